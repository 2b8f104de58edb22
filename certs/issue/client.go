package issue

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// The files that Join and IssueFiles write.
const (
	CertFile   = "cert.pem"
	KeyFile    = "key.pem"
	BundleFile = "bundle.pem"
)

const callTimeout = 30 * time.Second

// Join makes a key, has it certified with a join token and writes CertFile (0644), KeyFile (0600) and BundleFile
// (0644) into dir, the certificate last. The first connection is pinned to the root that the token
// names. An empty name is whatever the token is for. It fails with
// problem.Conflict, before the token is used, if dir holds a certificate; with problem.Unavailable if
// nobody answers; and as the server says, with JoinSpent or JoinRefused among others.
func Join(ctx context.Context, tok, name, dir string) (token.Identity, error) {
	jt, err := ParseToken(tok)
	if err != nil {
		return "", err
	}
	key, err := prepare(dir)
	if err != nil {
		return "", err
	}
	csr, err := newCSR(key)
	if err != nil {
		return "", err
	}
	got, err := call(ctx, jt.Address, "/v1/join", certs.PinnedIssuerClient(jt.Root),
		joinRequest{Token: jt.secret.text(), Name: name, CSR: csr})
	if err != nil {
		return "", fmt.Errorf("joining at %s: %w", jt.Address, err)
	}
	return joining{dir: dir, name: name, key: key, at: time.Now()}.finish(got)
}

// IssueFiles makes a key, certifies it and writes the files that Join writes, without
// a listener: for the operator of the authority. It refuses as Join and Issue do.
func (c *CA) IssueFiles(dir string, req Request, now time.Time) (token.Identity, error) {
	key, err := prepare(dir)
	if err != nil {
		return "", err
	}
	chain, err := c.Issue(key.Public(), req, now)
	if err != nil {
		return "", err
	}
	return joining{dir: dir, name: req.Name, key: key, at: now}.finish(answer{Certificate: string(chain.PEM()), Bundle: string(c.Bundle())})
}

// prepare makes dir and a key in it. A key without a certificate is of a joining that did not
// succeed, and is replaced.
func prepare(dir string) (crypto.Signer, error) {
	if _, err := os.Stat(filepath.Join(dir, CertFile)); err == nil {
		return nil, &problem.Error{
			Code: problem.Conflict, Detail: "There is already a certificate in this folder.",
			Remedy: "Renew it, or remove it to join anew.",
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("looking for a certificate: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	data, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := certs.ReplaceFile(filepath.Join(dir, KeyFile), data, 0o600); err != nil {
		return nil, fmt.Errorf("writing the key: %w", err)
	}
	return key, nil
}

// A joining is what was asked for: a certificate for key, named name unless that is empty.
type joining struct {
	dir, name string
	key       crypto.Signer
	at        time.Time
}

// finish checks that the answer is what was asked for and writes it.
func (j joining) finish(got answer) (token.Identity, error) {
	roots, err := certs.ParseRoots([]byte(got.Bundle))
	if err != nil {
		return "", fmt.Errorf("reading the answer of the authority: %w", err)
	}
	chain, id, err := accept(got, j.key)
	if err != nil {
		return "", err
	}
	trust := certs.NewTrust(map[token.Provider][]*x509.Certificate{id.Provider(): roots})
	if _, err := trust.Verify(chain, j.at); err != nil {
		return "", fmt.Errorf("checking the new certificate: %w", err)
	}
	if j.name != "" && j.name != id.Name() {
		return "", problem.New(problem.CertMismatch, "The authority certified another name than the one asked for.")
	}
	if err := certs.ReplaceFile(filepath.Join(j.dir, BundleFile), []byte(got.Bundle), 0o644); err != nil {
		return "", fmt.Errorf("writing the trust bundle: %w", err)
	}
	if err := certs.ReplaceFile(filepath.Join(j.dir, CertFile), chain.PEM(), 0o644); err != nil {
		return "", fmt.Errorf("writing the certificate: %w", err)
	}
	return id, nil
}

// accept reads the certificate of an answer, which must be for key.
func accept(got answer, key crypto.Signer) (certs.Chain, token.Identity, error) {
	chain, err := certs.ParseChain([]byte(got.Certificate))
	if err != nil {
		return nil, "", fmt.Errorf("reading the answer of the authority: %w", err)
	}
	pair, err := certs.NewPair(chain, key)
	if err != nil {
		return nil, "", fmt.Errorf("reading the answer of the authority: %w", err)
	}
	return chain, pair.Identity(), nil
}

// Renew has the certificate of pair replaced by a new one of the same identity and key, at the authority
// that listens at address (host:port, or an https URL without a path), writes it over pair's certificate file and
// reloads pair. A crash leaves the old one or the new one, each whole. The authority must be that of
// pair's own domain in trust. A pair in memory is problem.BadConfig; else it fails as Join does.
func Renew(ctx context.Context, pair *certs.Pair, address string, trust *certs.Trust) error {
	file, _ := pair.Files()
	if file == "" {
		return problem.New(problem.BadConfig, "A certificate in memory cannot be renewed.")
	}
	if err := pair.Preflight(time.Now()); err != nil {
		return err
	}
	key := pair.Signer()
	csr, err := newCSR(key)
	if err != nil {
		return err
	}
	got, err := call(ctx, address, "/v1/renew", certs.IssuerClient(pair, trust), renewRequest{CSR: csr})
	if err != nil {
		return fmt.Errorf("renewing at %s: %w", address, err)
	}
	chain, id, err := accept(got, key)
	if err != nil {
		return err
	}
	if id != pair.Identity() {
		return problem.New(problem.CertMismatch, "The authority certified somebody else.")
	}
	if _, err := trust.Verify(chain, time.Now()); err != nil {
		return fmt.Errorf("checking the new certificate: %w", err)
	}
	if err := certs.ReplaceFile(file, chain.PEM(), 0o644); err != nil {
		return fmt.Errorf("writing the certificate: %w", err)
	}
	if _, err := pair.Reload(); err != nil {
		return fmt.Errorf("taking the new certificate into use: %w", err)
	}
	return nil
}

func newCSR(key crypto.Signer) (string, error) {
	var how x509.CertificateRequest
	if _, ok := key.Public().(*rsa.PublicKey); ok {
		how.SignatureAlgorithm = x509.SHA256WithRSAPSS // a key in a signer knows no other
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &how, key)
	if err != nil {
		return "", fmt.Errorf("making a certificate request: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// call posts one request on a connection of its own.
func call(ctx context.Context, address, path string, conf *tls.Config, body any) (answer, error) {
	address = strings.TrimSuffix(strings.TrimPrefix(address, "https://"), "/")
	if err := checkAddress(address); err != nil {
		return answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	data, err := json.Marshal(body)
	if err != nil {
		return answer{}, fmt.Errorf("encoding a request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+address+path, bytes.NewReader(data))
	if err != nil {
		return answer{}, fmt.Errorf("making a request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true},
		// A secret is in the body: it goes where it was sent and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	res, err := client.Do(req)
	if err != nil {
		return answer{}, unreached(ctx, err)
	}
	defer res.Body.Close()
	data, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return answer{}, unreached(ctx, err)
	}
	return parseAnswer(res.StatusCode, data)
}

// unreached says why there is no answer: our own verdict about the server, the end of ctx, or silence.
func unreached(ctx context.Context, err error) error {
	var e *problem.Error
	if errors.As(err, &e) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("calling the authority: %w", ctx.Err())
	}
	return &problem.Error{
		Code: problem.Unavailable, Cause: err, Detail: "The authority cannot be reached.",
		Remedy: "Check its address and that 'consign ca serve' runs.",
	}
}

func parseAnswer(status int, data []byte) (answer, error) {
	if status == http.StatusOK {
		var got answer
		if err := json.Unmarshal(data, &got); err != nil {
			return answer{}, problem.Wrap(err, problem.Malformed, "The answer of the authority cannot be read.")
		}
		return got, nil
	}
	var r refusal
	if err := json.Unmarshal(data, &r); err != nil || problem.Lookup(r.Code).Code != r.Code {
		return answer{}, problem.New(problem.Unavailable, "What answers at this address is not an authority: HTTP status %d.", status)
	}
	return answer{}, &problem.Error{Code: r.Code, Detail: certs.Printable(r.Detail, certs.MaxWords), Remedy: certs.Printable(r.Remedy, certs.MaxWords)}
}
