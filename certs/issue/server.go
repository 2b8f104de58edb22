package issue

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Limits of the listener.
const (
	maxBody       = 16 << 10 // bytes of a request
	maxCSR        = 8 << 10  // bytes of its certificate request
	maxAnswer     = 2 << 20  // bytes of an answer
	maxConcurrent = 128      // requests at once; more are told to come back
	maxAlarms     = 1 << 20  // bytes of the file of alarms
)

// An Alarm is a use of a join token that was already spent: one of the two users is not
// who it was given to.
type Alarm struct {
	Identity token.Identity // for whom the token was made
	Remote   string         // network address of the second user; for our own log only
	At       time.Time
}

// note writes an alarm where the operator finds it also if nobody read the log. Past maxAlarms nothing is added: the
// first ones tell enough, and a stranger must not fill the disk.
func (c *CA) note(a Alarm) error {
	file := filepath.Join(c.dir, alarmFile)
	if st, err := os.Stat(file); err == nil && st.Size() > maxAlarms {
		return nil
	}
	line, err := json.Marshal(map[string]string{
		"at": a.At.UTC().Format(time.RFC3339), "identity": string(a.Identity), "remote": a.Remote, "what": string(problem.JoinSpent),
	})
	if err != nil {
		return fmt.Errorf("encoding an alarm: %w", err)
	}
	if err := appendLine(file, line, os.O_CREATE); err != nil {
		return fmt.Errorf("noting an alarm: %w", err)
	}
	return nil
}

type joinRequest struct {
	Token string `json:"token"` // the secret alone, base64url
	Name  string `json:"name"`  // empty: whatever the token is for
	CSR   string `json:"csr"`   // PEM
}

type renewRequest struct {
	CSR string `json:"csr"`
}

type answer struct {
	Certificate string `json:"certificate"` // PEM, leaf first
	Bundle      string `json:"bundle"`      // PEM
}

// refusal is a problem as RFC 9457 renders it.
type refusal struct {
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Code   problem.Code `json:"code"`
	Remedy string       `json:"remedy"`
}

// NewServer returns a server for the authority's listener, with its deadlines and its TLS;
// call its ServeTLS with empty file names. Handler says what onAlarm and onError are.
func NewServer(ca *CA, onAlarm func(Alarm), onError func(error)) *http.Server {
	return &http.Server{
		Handler: Handler(ca, onAlarm, onError), TLSConfig: ServeTLSConfig(ca),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 15 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog: log.New(io.Discard, "", 0), // handshakes of strangers are no news
	}
}

// ServeTLSConfig is the configuration that a listener for Handler must have: it shows
// a leaf that the authority made for this, and takes any client certificate, which Handler judges.
func ServeTLSConfig(ca *CA) *tls.Config {
	return certs.IssuerServer(func() (*tls.Certificate, error) { return ca.servingCert(time.Now()) })
}

// BundlePath is where the authority is a SPIFFE bundle endpoint of its domain, of the profile https_spiffe and with the id
// certs.IssuerName.
const BundlePath = "/v1/bundle.json"

// Handler answers POST /v1/join, POST /v1/renew, GET /v1/bundle, GET BundlePath and GET CRLPath. It must be behind
// ServeTLSConfig. It calls onAlarm when a token is used a second time, and onError with the
// cause of each internal error, before it answers, in the request's goroutine.
func Handler(ca *CA, onAlarm func(Alarm), onError func(error)) http.Handler {
	h := &handler{ca: ca, onAlarm: onAlarm, onError: onError, slots: make(chan struct{}, maxConcurrent)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/join", h.bounded(h.join))
	mux.HandleFunc("POST /v1/renew", h.bounded(h.renew))
	mux.HandleFunc("GET /v1/bundle", h.bundle)
	mux.HandleFunc("GET "+BundlePath, h.spiffeBundle)
	mux.HandleFunc("GET "+CRLPath, h.crl)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		h.refuse(w, problem.New(problem.NotFound, "The authority has no such resource."))
	})
	return mux
}

type handler struct {
	ca      *CA
	onAlarm func(Alarm)
	onError func(error)
	slots   chan struct{}
}

// bounded runs at most maxConcurrent requests at once and renders what they return.
func (h *handler) bounded(do func(*http.Request) (certs.Chain, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case h.slots <- struct{}{}:
			defer func() { <-h.slots }()
		default:
			h.refuse(w, problem.New(problem.Overloaded, ""))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		chain, err := do(r)
		if err != nil {
			h.refuse(w, err)
			return
		}
		h.write(w, "application/json", http.StatusOK, answer{Certificate: string(chain.PEM()), Bundle: string(h.ca.Bundle())})
	}
}

func (h *handler) join(r *http.Request) (certs.Chain, error) {
	var in joinRequest
	if err := decode(r.Body, &in); err != nil {
		return nil, err
	}
	s, err := parseSecret(in.Token)
	if err != nil {
		return nil, err
	}
	csr, err := parseCSR(in.CSR)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	g, err := h.ca.redeem(s, in.Name, now)
	if problem.Of(err) == problem.JoinSpent {
		a := Alarm{Identity: token.NewIdentity(h.ca.domain, g.Role, g.Name), Remote: r.RemoteAddr, At: now}
		if err := h.ca.note(a); err != nil {
			h.onError(err)
		}
		h.onAlarm(a)
	}
	if err != nil {
		return nil, err
	}
	return h.ca.Issue(csr.PublicKey, Request{Role: g.Role, Name: g.Name, Life: time.Duration(g.Life) * time.Second}, now)
}

// renew gives the holder of a certificate that is still valid another one, for the
// same identity, key and length of life.
func (h *handler) renew(r *http.Request) (certs.Chain, error) {
	if r.TLS == nil {
		return nil, problem.New(problem.CertMissing, "")
	}
	now := time.Now()
	chain := certs.Chain(r.TLS.PeerCertificates)
	id, err := h.ca.trust.Verify(chain, now)
	if err != nil {
		return nil, err
	}
	var in renewRequest
	if err := decode(r.Body, &in); err != nil {
		return nil, err
	}
	csr, err := parseCSR(in.CSR)
	if err != nil {
		return nil, err
	}
	key := token.HashOf(chain[0].RawSubjectPublicKeyInfo)
	if err := h.ca.checkDenied(key); err != nil {
		return nil, err
	}
	if token.HashOf(csr.RawSubjectPublicKeyInfo) != key {
		return nil, &problem.Error{
			Code: problem.CertMismatch, Detail: "The certificate request is for another key than the certificate that is renewed.",
			Remedy: "Join again with a new token to change the key.",
		}
	}
	return h.ca.Issue(csr.PublicKey, Request{Role: id.Role(), Name: id.Name(), Life: lifeOf(chain[0], id.Role())}, now)
}

// lifeOf is the life with which a leaf was issued, within the limits of its role.
func lifeOf(leaf *x509.Certificate, role token.Role) time.Duration {
	p, _ := ProfileOf(role)
	return min(p.Max, max(minLife, leaf.NotAfter.Sub(leaf.NotBefore)-backdate))
}

func (h *handler) bundle(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-pem-file")
	if _, err := w.Write(h.ca.Bundle()); err != nil {
		h.onError(err)
	}
}

func (h *handler) spiffeBundle(w http.ResponseWriter, _ *http.Request) {
	data, err := h.ca.SPIFFEBundle()
	if err != nil {
		h.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(data); err != nil {
		h.onError(err)
	}
}

func (h *handler) crl(w http.ResponseWriter, _ *http.Request) {
	data, err := h.ca.recentCRL(time.Now())
	if err != nil {
		h.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-pem-file")
	if _, err := w.Write(data); err != nil {
		h.onError(err)
	}
}

// decode reads one JSON value without unknown fields and nothing after it.
func decode(r io.Reader, into any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err := d.Token(); err != io.EOF {
			return problem.New(problem.Malformed, "There is something behind the request.")
		}
		return nil
	}
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return problem.Wrap(err, problem.TooLarge, "The request is larger than %d bytes.", maxBody)
	}
	return problem.Wrap(err, problem.Malformed, "The request is not the JSON object that belongs here.")
}

// parseCSR reads a certificate request and checks that its maker holds the key. Only the key of it
// counts: who is certified, and for how long, is not the asker's to say.
func parseCSR(text string) (*x509.CertificateRequest, error) {
	if len(text) > maxCSR {
		return nil, problem.New(problem.TooLarge, "The certificate request is larger than %d bytes.", maxCSR)
	}
	b, _ := pem.Decode([]byte(text))
	if b == nil || b.Type != "CERTIFICATE REQUEST" {
		return nil, problem.New(problem.Malformed, "The certificate request is not PEM.")
	}
	csr, err := x509.ParseCertificateRequest(b.Bytes)
	if err != nil {
		return nil, problem.Wrap(err, problem.Malformed, "The certificate request cannot be read.")
	}
	if err := certs.CheckKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, problem.Wrap(err, problem.BadSignature, "The certificate request is not signed by its own key.")
	}
	return csr, nil
}

func (h *handler) refuse(w http.ResponseWriter, err error) {
	e := problem.As(err)
	kind := problem.Lookup(e.Code)
	if kind.Code == problem.Internal {
		h.onError(err)
	}
	h.write(w, "application/problem+json", kind.HTTP, refusal{
		Title: kind.Title, Status: kind.HTTP, Detail: e.Sentence(), Code: kind.Code, Remedy: e.Advice(),
	})
}

func (h *handler) write(w http.ResponseWriter, contentType string, status int, body any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		h.onError(err)
	}
}
