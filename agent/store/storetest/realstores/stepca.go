package realstores

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
)

// A CA is a running step-ca: the authority of one trust domain, with a root, an intermediate that signs, and two
// provisioners: "acme", whose template maps identifiers to identities, and "people", for one-time tokens.
type CA struct {
	*Process
	Directory string // URL of the ACME directory
	Bundle    string // PEM file of the root: the bundle of the domain, and what the server's own web certificate is checked with
	sign      string // URL
	people    *ecdsa.PrivateKey
	roots     []byte
}

// A Domain is what a CA certifies, and how.
type Domain struct {
	Provider   token.Provider
	Template   string                    // of the certificates by ACME; it finds the next in .Identities
	Identities map[string]token.Identity // of each identifier that ACME may be asked for
	Life       time.Duration             // of certificates by ACME
	Backdate   time.Duration             // by which they begin in the past
	HTTPPort   int                       // where it comes for http-01, instead of 80
	TLSPort    int                       // where it comes for tls-alpn-01, instead of 443
}

// StepCA starts step-ca with new keys and everything below dir.
func StepCA(ctx context.Context, dir string, d Domain) (*CA, error) {
	s := &CA{Bundle: filepath.Join(dir, "root.pem")}
	if err := s.found(dir, d.Provider); err != nil {
		return nil, fmt.Errorf("founding an authority: %w", err)
	}
	var failed error
	p, addr, err := start(ctx, launch{
		name: stepCA, dir: dir, env: []string{"STEPPATH=" + dir},
		args: func(program, addr string) []string {
			file := filepath.Join(dir, "ca.json")
			failed = writeJSON(file, s.config(dir, addr, d))
			return []string{
				program, "--insecure", "--acme-http-port", strconv.Itoa(d.HTTPPort), "--acme-tls-port", strconv.Itoa(d.TLSPort), file,
			}
		},
		ready: func(ctx context.Context, addr string) error {
			if failed != nil {
				return failed
			}
			// Only ours has a certificate under the new root.
			_, err := s.call(ctx, http.MethodGet, "https://"+addr+"/health", nil)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	s.Process, s.Directory, s.sign = p, "https://"+addr+"/acme/acme/directory", "https://"+addr+"/1.0/sign"
	return s, nil
}

// found makes root, intermediate and the key of the provisioner for people.
func (s *CA) found(dir string, domain token.Provider) error {
	if err := makeFolder(dir); err != nil {
		return err
	}
	var keys [3]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return err
		}
	}
	now := time.Now() //nolint:forbidigo // the server compares it with its own clock
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: string(domain) + " root"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, PermittedURIDomains: []string{string(domain)},
	}
	root, err := issueAuthority(tmpl, tmpl, keys[0], keys[0])
	if err != nil {
		return err
	}
	below := *tmpl
	below.SerialNumber, below.Subject, below.MaxPathLenZero = big.NewInt(2), pkix.Name{CommonName: string(domain) + " intermediate"}, true
	intermediate, err := issueAuthority(&below, tmpl, keys[1], keys[0])
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(keys[1])
	if err != nil {
		return err
	}
	s.people, s.roots = keys[2], root
	for name, data := range map[string][]byte{
		"root.pem": root, "intermediate.pem": intermediate,
		"intermediate.key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	} {
		if err := certs.ReplaceFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func issueAuthority(tmpl, parent *x509.Certificate, key, by *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), by)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), err
}

func (s *CA) config(dir, addr string, d Domain) map[string]any {
	point, err := s.people.PublicKey.Bytes() // 4, X, Y
	if err != nil {
		panic("realstores: internal error: " + err.Error())
	}
	return map[string]any{
		"root": filepath.Join(dir, "root.pem"), "crt": filepath.Join(dir, "intermediate.pem"), "key": filepath.Join(dir, "intermediate.key.pem"),
		"address": addr, "dnsNames": []string{"127.0.0.1"}, "logger": map[string]string{"format": "text"},
		"db": map[string]string{"type": "bbolt", "dataSource": filepath.Join(dir, "db")},
		"authority": map[string]any{
			"backdate": d.Backdate.String(),
			// Tokens name their second, and this server may have started within it.
			"disableIssuedAtCheck": true,
			"provisioners": []any{
				map[string]any{
					"type": "ACME", "name": "acme",
					"claims":  map[string]string{"minTLSCertDuration": "1m", "defaultTLSCertDuration": d.Life.String()},
					"options": map[string]any{"x509": map[string]any{"template": d.Template, "templateData": map[string]any{"Identities": d.Identities}}},
				},
				map[string]any{
					"type": "JWK", "name": "people", "key": map[string]string{
						"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "people", "x": segment(point[1:33]), "y": segment(point[33:]),
					},
				},
			},
		},
	}
}

func writeJSON(file string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return certs.ReplaceFile(file, data, 0o600)
}

func segment(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Certify has a key certified for an identity by a one-time token of the provisioner "people", as `step ca certificate
// NAME --san ID` does, and returns the chain in PEM.
func (s *CA) Certify(ctx context.Context, id token.Identity, key crypto.Signer) ([]byte, error) {
	name, err := url.Parse(string(id))
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: id.Name()}, URIs: []*url.URL{name},
	}, key)
	if err != nil {
		return nil, fmt.Errorf("making a request: %w", err)
	}
	ott, err := s.oneTimeToken(id)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(map[string]string{
		"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})), "ott": ott,
	})
	if err != nil {
		return nil, err
	}
	got, err := s.call(ctx, http.MethodPost, s.sign, body)
	if err != nil {
		return nil, fmt.Errorf("having %s certified: %w", id, err)
	}
	var answer struct {
		Chain []string `json:"certChain"`
	}
	if err := json.Unmarshal(got, &answer); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	return []byte(strings.Join(answer.Chain, "")), nil
}

// oneTimeToken is a JWT, ES256.
func (s *CA) oneTimeToken(id token.Identity) (string, error) {
	now := time.Now() //nolint:forbidigo // the server compares it with its own clock
	head := `{"alg":"ES256","kid":"people","typ":"JWT"}`
	claims, err := json.Marshal(map[string]any{
		"iss": "people", "aud": s.sign, "sub": id.Name(), "sans": []string{string(id)}, "jti": secret(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	})
	if err != nil {
		return "", err
	}
	text := segment([]byte(head)) + "." + segment(claims)
	sum := sha256.Sum256([]byte(text))
	r, v, err := ecdsa.Sign(rand.Reader, s.people, sum[:])
	if err != nil {
		return "", err
	}
	return text + "." + segment(append(r.FillBytes(make([]byte, 32)), v.FillBytes(make([]byte, 32))...)), nil
}

// call sends one request and returns the body of an answer that grants it.
func (s *CA) call(ctx context.Context, method, target string, body []byte) ([]byte, error) {
	conf, err := certs.WebClient(s.roots)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		return nil, &Refusal{res.StatusCode, res.Header, got}
	}
	return got, nil
}
