// Package certstest makes authorities in memory, and leaves of every kind that a peer
// may show: good ones, and such as are expired, foreign or made for something else.
//
// It guarantees that a leaf differs from a good one in nothing but what its options
// say. It is imported by tests alone. Its functions end the test on an error of their own.
package certstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
)

// A CA is an authority of one trust domain.
type CA struct {
	t      testing.TB
	domain token.Provider
	cert   *x509.Certificate
	key    crypto.Signer
	above  certs.Chain // from its issuer up, without the root
}

// New returns the authority of a domain: valid for ten years, constrained to URI names
// of its domain, as a built-in authority is.
func New(t testing.TB, domain token.Provider) *CA {
	t.Helper()
	return NewWithKey(t, domain, P256)
}

// NewWithKey is New with a key of that kind.
func NewWithKey(t testing.TB, domain token.Provider, kind KeyKind) *CA {
	t.Helper()
	tmpl := authority(domain)
	tmpl.PermittedDNSDomainsCritical = true
	tmpl.PermittedURIDomains = []string{string(domain)}
	return root(t, domain, tmpl, kind)
}

// NewUnconstrained returns an authority without name constraints, as most are in the
// wild: nothing in its certificate keeps it from naming anybody.
func NewUnconstrained(t testing.TB, domain token.Provider) *CA {
	t.Helper()
	return root(t, domain, authority(domain), P256)
}

func authority(domain token.Provider) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: string(domain) + " test root"},
		NotBefore: now.AddDate(-5, 0, 0), NotAfter: now.AddDate(5, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func root(t testing.TB, domain token.Provider, tmpl *x509.Certificate, kind KeyKind) *CA {
	t.Helper()
	key := newKey(t, kind)
	return &CA{t: t, domain: domain, cert: sign(t, tmpl, tmpl, key.Public(), key), key: key}
}

// Intermediate returns an authority that ca vouches for, whose life is as given. Its leaves carry it in their chains.
func (ca *CA) Intermediate(from, to time.Time) *CA {
	ca.t.Helper()
	tmpl := authority(ca.domain)
	tmpl.NotBefore, tmpl.NotAfter = from, to
	tmpl.Subject.CommonName = string(ca.domain) + " test intermediate"
	key := newKey(ca.t, P256)
	cert := sign(ca.t, tmpl, ca.cert, key.Public(), ca.key)
	return &CA{t: ca.t, domain: ca.domain, cert: cert, key: key, above: append(certs.Chain{cert}, ca.above...)}
}

// Named returns an authority that ca vouches for and that bears this name, which may be another's.
func (ca *CA) Named(subject pkix.Name) *CA {
	ca.t.Helper()
	tmpl := authority(ca.domain)
	tmpl.Subject = subject
	key := newKey(ca.t, P256)
	cert := sign(ca.t, tmpl, ca.cert, key.Public(), ca.key)
	return &CA{t: ca.t, domain: ca.domain, cert: cert, key: key, above: append(certs.Chain{cert}, ca.above...)}
}

// Recertified returns the same authority, with the same key, under another certificate that by signs.
func (ca *CA) Recertified(by *CA) *CA {
	ca.t.Helper()
	tmpl := *ca.cert
	tmpl.SerialNumber = serial()
	cert := sign(ca.t, &tmpl, by.cert, ca.key.Public(), by.key)
	return &CA{t: ca.t, domain: ca.domain, cert: cert, key: ca.key, above: append(certs.Chain{cert}, by.above...)}
}

// Domain returns the trust domain that the authority is for.
func (ca *CA) Domain() token.Provider { return ca.domain }

// Root returns the authority's own certificate.
func (ca *CA) Root() *x509.Certificate { return ca.cert }

// BundleFile writes the authority's certificate as a PEM file and returns its name.
func (ca *CA) BundleFile(dir string) string {
	ca.t.Helper()
	file := filepath.Join(dir, string(ca.domain)+".pem")
	write(ca.t, file, certs.Chain{ca.cert}.PEM(), 0o644)
	return file
}

// SPIFFE returns the SPIFFE bundle of authorities with keys on P-256.
func SPIFFE(t testing.TB, b certs.Bundle, cas ...*CA) []byte {
	t.Helper()
	for _, ca := range cas {
		b.Roots = append(b.Roots, ca.cert)
	}
	data, err := certs.MarshalBundle(b)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Trust returns trust in each authority for its own domain.
func Trust(cas ...*CA) *certs.Trust {
	roots := map[token.Provider][]*x509.Certificate{}
	for _, ca := range cas {
		roots[ca.domain] = append(roots[ca.domain], ca.cert)
	}
	return certs.NewTrust(roots)
}

// A Leaf is a certificate with its chain and key, good or not.
type Leaf struct {
	Chain certs.Chain
	Key   crypto.Signer
	t     testing.TB
}

// Issue returns a leaf for role and name in the authority's domain: P-256, from a minute
// ago to a day ahead, with the usages of its role; and then as the options say.
func (ca *CA) Issue(role token.Role, name string, opts ...Option) *Leaf {
	ca.t.Helper()
	now := time.Now()
	s := &spec{t: ca.t, kind: P256, tmpl: &x509.Certificate{
		SerialNumber: serial(), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(24 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages(role),
	}}
	As(string(token.NewIdentity(ca.domain, role, name)))(s)
	for _, o := range opts {
		o(s)
	}
	key := s.key
	if key == nil {
		key = newKey(ca.t, s.kind)
	}
	cert := sign(ca.t, s.tmpl, ca.cert, key.Public(), ca.key)
	return &Leaf{Chain: append(certs.Chain{cert}, ca.above...), Key: key, t: ca.t}
}

// NewLeaf makes a Leaf of a certificate that another authority issued.
func NewLeaf(t testing.TB, chain certs.Chain, key crypto.Signer) *Leaf {
	return &Leaf{Chain: chain, Key: key, t: t}
}

// Pair returns the leaf as one's own certificate, in memory.
func (l *Leaf) Pair() *certs.Pair {
	l.t.Helper()
	p, err := certs.NewPair(l.Chain, l.Key)
	if err != nil {
		l.t.Fatalf("making a pair: %v", err)
	}
	return p
}

// TLS returns the leaf for a tls.Config of the test's own, which may be an attacker's.
func (l *Leaf) TLS() tls.Certificate {
	return tls.Certificate{Certificate: l.Chain.DER(), PrivateKey: l.Key}
}

// Files writes cert.pem and key.pem into dir, each atomically, and returns their names.
func (l *Leaf) Files(dir string) (certFile, keyFile string) {
	l.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(l.Key)
	if err != nil {
		l.t.Fatalf("encoding a key: %v", err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(l.t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	write(l.t, certFile, l.Chain.PEM(), 0o644)
	return certFile, keyFile
}

func write(t testing.TB, file string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(file+".new", data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func usages(role token.Role) []x509.ExtKeyUsage {
	switch role {
	case token.Subscriber:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	case token.Broker:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
}

func sign(t testing.TB, tmpl, parent *x509.Certificate, pub crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, by)
	if err != nil {
		t.Fatalf("signing a certificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("parsing our own certificate: %v", err)
	}
	return cert
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}

func newKey(t testing.TB, kind KeyKind) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case P384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case P521:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case Ed25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatalf("making a key: %v", err)
	}
	return key
}

func mustURL(t testing.TB, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatalf("parsing %q: %v", s, err)
	}
	return u
}
