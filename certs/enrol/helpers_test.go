package enrol

import (
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
)

const (
	domain = token.Provider("a.example")
	wanted = token.Identity("spiffe://a.example/agent/eu-1")
	// identifier is what a fake authority checks. It comes to the address where we listen, as if that were the identifier's port.
	identifier = "127.0.0.1"
)

// A fakeACME is an ACME authority in memory that looks at challenges for real. It keeps the flow of RFC 8555 and
// checks no signature: that is for the real authority in cmd/consign.
type fakeACME struct {
	t   *testing.T
	srv *httptest.Server

	mu       sync.Mutex // guards all below
	orders   int
	accounts int
	leaves   []*certstest.Leaf
	thumb    string                                        // of the account's key
	proven   bool                                          // the challenge of the present order
	failure  string                                        // of the challenge of the present order
	csr      *x509.CertificateRequest                      // of the last order
	issue    func(crypto.Signer) certs.Chain               // nil: what was wanted
	before   func(w http.ResponseWriter, path string) bool // answers instead; for faults
	dir      map[string]any                                // added to the directory
	offered  []string                                      // challenges
	visit    string                                        // where the challenge is looked at
}

// newFake starts an authority and returns it with a configuration that is good for it.
func newFake(t *testing.T) (*fakeACME, Config, *certs.Trust) {
	t.Helper()
	f := &fakeACME{t: t, dir: map[string]any{}, offered: []string{"dns-01", "http-01", "tls-alpn-01"}}
	f.srv = httptest.NewTLSServer(f)
	t.Cleanup(f.srv.Close)
	ca := certstest.New(t, domain)
	f.issue = func(key crypto.Signer) certs.Chain { return ca.Issue(token.Agent, "eu-1", certstest.ForKey(key)).Chain }
	dir := t.TempDir()
	f.visit = freeAddress(t)
	return f, Config{
		Identity: wanted, CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"),
		AccountFile: filepath.Join(dir, "account.pem"), Directory: f.srv.URL + "/directory", Contact: "mailto:ops@a.example",
		Roots:      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.srv.Certificate().Raw}),
		Identifier: identifier, Challenge: HTTP01, Listen: f.visit,
	}, certstest.Trust(ca)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// publicOnly is a key of which the authority has seen the public half.
type publicOnly struct{ pub crypto.PublicKey }

func (p publicOnly) Public() crypto.PublicKey { return p.pub }
func (p publicOnly) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("there is no private key")
}

// ServeHTTP is one request of RFC 8555.
func (f *fakeACME) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("Replay-Nonce", fmt.Sprint(time.Now().UnixNano()))
	if f.before != nil && f.before(w, r.URL.Path) {
		return
	}
	payload := f.payload(r)
	u := f.srv.URL
	switch r.URL.Path {
	case "/directory":
		f.answer(w, http.StatusOK, merged(map[string]any{"newNonce": u + "/nonce", "newAccount": u + "/account", "newOrder": u + "/order"}, f.dir))
	case "/nonce":
	case "/account":
		w.Header().Set("Location", u+"/account/1")
		status := http.StatusCreated
		if f.accounts++; f.accounts > 1 {
			status = http.StatusOK
		}
		f.answer(w, status, map[string]any{"status": "valid"})
	case "/order":
		f.orders++
		f.proven, f.failure = false, ""
		w.Header().Set("Location", u+"/order/1")
		f.answer(w, http.StatusCreated, f.order("pending"))
	case "/order/1":
		f.answer(w, http.StatusOK, f.order(map[bool]string{true: "ready", false: "pending"}[f.proven]))
	case "/authz":
		f.answer(w, http.StatusOK, f.authz())
	case "/challenge/http-01", "/challenge/tls-alpn-01":
		f.look(r.URL.Path)
		f.answer(w, http.StatusOK, map[string]any{"type": "http-01", "url": u + r.URL.Path, "token": "tok", "status": "processing"})
	case "/finalize":
		f.finalize(w, payload)
	case "/cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_, _ = w.Write(f.leaves[len(f.leaves)-1].Chain.PEM())
	default:
		f.refuse(w, http.StatusNotFound, "malformed", "there is no "+r.URL.Path)
	}
}

func merged(a, b map[string]any) map[string]any {
	for k, v := range b {
		a[k] = v
	}
	return a
}

// payload takes a JWS apart and notes the thumbprint of the account's key.
func (f *fakeACME) payload(r *http.Request) []byte {
	var jws struct{ Protected, Payload string }
	if r.Method != http.MethodPost || json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&jws) != nil {
		return nil
	}
	head, _ := base64.RawURLEncoding.DecodeString(jws.Protected)
	var h struct {
		JWK *struct{ Crv, Kty, X, Y string }
	}
	if json.Unmarshal(head, &h) == nil && h.JWK != nil {
		sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":%q,"kty":%q,"x":%q,"y":%q}`, h.JWK.Crv, h.JWK.Kty, h.JWK.X, h.JWK.Y))
		f.thumb = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	payload, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
	return payload
}

func (f *fakeACME) answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		f.t.Error(err)
	}
}

func (f *fakeACME) refuse(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail})
}

func (f *fakeACME) order(status string) map[string]any {
	return map[string]any{
		"status": status, "authorizations": []string{f.srv.URL + "/authz"}, "finalize": f.srv.URL + "/finalize",
		"certificate": f.srv.URL + "/cert", "identifiers": []any{map[string]string{"type": "ip", "value": identifier}},
	}
}

func (f *fakeACME) authz() map[string]any {
	var all []map[string]any
	for _, c := range f.offered {
		one := map[string]any{"type": c, "url": f.srv.URL + "/challenge/" + c, "token": "tok", "status": "pending"}
		if f.failure != "" {
			one["error"] = map[string]any{"type": "urn:ietf:params:acme:error:connection", "detail": f.failure, "status": 400}
		}
		all = append(all, one)
	}
	return map[string]any{
		"status": map[bool]string{true: "valid", false: "pending"}[f.proven], "challenges": all,
		"identifier": map[string]string{"type": "ip", "value": identifier},
	}
}

// look visits the challenge as an authority does.
func (f *fakeACME) look(path string) {
	f.failure = "it could not be seen"
	want := "tok." + f.thumb
	if strings.HasSuffix(path, "http-01") {
		res, err := http.Get("http://" + f.visit + "/.well-known/acme-challenge/tok")
		if err != nil {
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		f.proven = err == nil && res.StatusCode == http.StatusOK && string(body) == want
		return
	}
	conn, err := tls.Dial("tcp", f.visit, &tls.Config{NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer conn.Close()
	sum := sha256.Sum256([]byte(want))
	value, err := asn1.Marshal(sum[:])
	leaf := conn.ConnectionState().PeerCertificates[0]
	for _, e := range leaf.Extensions {
		if e.Id.String() == "1.3.6.1.5.5.7.1.31" && e.Critical {
			f.proven = err == nil && string(e.Value) == string(value) && leaf.IPAddresses[0].String() == identifier
		}
	}
}

func (f *fakeACME) finalize(w http.ResponseWriter, payload []byte) {
	var in struct{ CSR string }
	if err := json.Unmarshal(payload, &in); err != nil || !f.proven {
		f.refuse(w, http.StatusForbidden, "orderNotReady", "not ready")
		return
	}
	der, _ := base64.RawURLEncoding.DecodeString(in.CSR)
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil || len(csr.IPAddresses) != 1 || len(csr.URIs) != 0 {
		f.refuse(w, http.StatusBadRequest, "badCSR", "the names do not match the identifiers exactly")
		return
	}
	f.csr = csr
	f.leaves = append(f.leaves, certstest.NewLeaf(f.t, f.issue(publicOnly{csr.PublicKey}), nil))
	f.answer(w, http.StatusOK, f.order("valid"))
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
