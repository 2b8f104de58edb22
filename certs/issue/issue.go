// Package issue is the small built-in authority of one provider: it certifies agents,
// brokers and subscribers of its own domain, lets a new one join with a token that works
// once, and renews certificates that are still valid. The broker never runs it.
//
// It guarantees four things. Its root can name nobody outside its domain (critical URI
// name constraint, path length zero), and serial numbers are 128 random bits. A
// certificate is in the log of issued ones, durable, before anybody gets it. A join token is
// kept only as its SHA-256 and is spent, durably, before its certificate is returned: of
// any number of uses at once, through any number of processes and crashes, at most one gets
// a certificate; a second use is refused and told to the operator. Files are replaced
// as a whole or not at all.
//
// Its outcomes are *problem.Error: join-token-spent, join-token-refused, malformed,
// too-large, overloaded, conflict, bad-config, insufficient-privileges, or one of certificate-*. It renews for the same
// key only: a new key is a new joining. Deny
// ends the renewal of a lost key and puts its certificates on the revocation list. docs/spec/identity.md has the protocol.
//
// The log of issued certificates grows by about 300 bytes each and is never pruned.
package issue

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	rootLife    = 10 * 365 * 24 * time.Hour
	servingLife = 24 * time.Hour
	minLife     = time.Minute
	backdate    = time.Minute // for clocks that are behind ours

	bundleRefresh = 5 * time.Minute // that others are told to keep between two looks at our bundle

	rootFile   = "ca.pem"
	keyFile    = "ca.key.pem"
	issuedFile = "issued.jsonl"
	alarmFile  = "alarms.jsonl"
	tokenDir   = "tokens"
	deniedDir  = "denied"
)

// A CA is the authority of one domain, over its directory. Several processes may have one
// directory open, for example a server and a command that makes tokens.
type CA struct {
	dir    string
	domain token.Provider
	root   *x509.Certificate
	key    crypto.Signer
	trust  *certs.Trust

	mu      sync.Mutex // guards all below
	serving *tls.Certificate
	list    []byte // the newest revocation list that was published
	listed  time.Time
}

// Create makes a new authority in dir, whole or not at all. A dir that exists and is not
// empty is problem.Conflict.
func Create(dir string, domain token.Provider, now time.Time) (*CA, error) {
	if err := token.CheckProvider(domain); err != nil {
		return nil, fmt.Errorf("creating an authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("creating an authority: %w", err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: newSerial(), Subject: pkix.Name{CommonName: "Consign authority of " + string(domain)},
		URIs:      []*url.URL{{Scheme: "spiffe", Host: string(domain)}},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true, // x509 has one flag for all name constraints
		PermittedURIDomains:         []string{string(domain)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("signing the root: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := createDir(dir, map[string][]byte{
		keyFile: keyPEM, rootFile: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), issuedFile: nil,
	}, tokenDir, deniedDir); err != nil {
		return nil, err
	}
	return Open(dir)
}

// Open reads an authority that Create made. A directory or key that others may read is
// problem.BadConfig, as is one that is not whole.
func Open(dir string) (*CA, error) {
	for _, name := range []string{".", keyFile} {
		st, err := os.Stat(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, problem.Wrap(err, problem.BadConfig, "There is no authority in this folder.")
		} else if err != nil {
			return nil, problem.Wrap(err, problem.BadConfig, "The folder of the authority cannot be read.")
		}
		if st.Mode().Perm()&0o077 != 0 {
			return nil, problem.New(problem.BadConfig, "The folder or key of the authority can be read by others than its owner.")
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, rootFile), filepath.Join(dir, keyFile))
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The root and key of the authority cannot be read.")
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA || len(pair.Leaf.PermittedURIDomains) != 1 {
		return nil, problem.New(problem.BadConfig, "The root is not one that a built-in authority made.")
	}
	domain := token.Provider(pair.Leaf.PermittedURIDomains[0])
	trust := certs.NewTrust(map[token.Provider][]*x509.Certificate{domain: {pair.Leaf}})
	return &CA{dir: dir, domain: domain, root: pair.Leaf, key: key, trust: trust}, nil
}

// Domain returns the only domain that the authority can name.
func (c *CA) Domain() token.Provider { return c.domain }

// Bundle returns the trust bundle of the domain as PEM.
func (c *CA) Bundle() []byte { return certs.Chain{c.root}.PEM() }

// SPIFFEBundle returns the same as a SPIFFE bundle. Its number is the second in which the root was made, so that the bundle of an
// authority that takes the place of this one is newer.
func (c *CA) SPIFFEBundle() ([]byte, error) {
	return certs.MarshalBundle(certs.Bundle{
		Roots: []*x509.Certificate{c.root}, Sequence: uint64(max(c.root.NotBefore.Unix(), 0)), Refresh: bundleRefresh,
	})
}

// Fingerprint returns SHA-256 of the root, which join tokens pin.
func (c *CA) Fingerprint() token.Hash { return token.HashOf(c.root.Raw) }

// A Request says for whom a certificate is made. Life 0 is the default of the role.
type Request struct {
	Role token.Role
	Name string
	Life time.Duration
}

// A Profile is what the certificates of a role have.
type Profile struct {
	Default, Max time.Duration
	usages       []x509.ExtKeyUsage
}

// ProfileOf returns the profile of a role and whether it has one.
func ProfileOf(role token.Role) (Profile, bool) {
	const day = 24 * time.Hour
	client, server := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	switch role {
	case token.Agent:
		return Profile{day, 7 * day, []x509.ExtKeyUsage{client, server}}, true
	case token.Broker:
		return Profile{30 * day, 90 * day, []x509.ExtKeyUsage{server, client}}, true
	case token.Subscriber:
		return Profile{90 * day, 400 * day, []x509.ExtKeyUsage{client}}, true
	}
	return Profile{}, false
}

// Issue certifies pub as the identity of req in the authority's domain: from a minute ago, to
// the end of its life or that of the root. A name that is none, or a life below a minute or above the role's
// maximum, is problem.Malformed; a key of another kind than certs.CheckKey allows is problem.CertMisused.
func (c *CA) Issue(pub crypto.PublicKey, req Request, now time.Time) (certs.Chain, error) {
	id, profile, life, err := c.check(req)
	if err != nil {
		return nil, err
	}
	if err := certs.CheckKey(pub); err != nil {
		return nil, err
	}
	cert, err := c.sign(pub, string(id), profile.usages, now, life)
	if err != nil {
		return nil, fmt.Errorf("issuing a certificate to %s: %w", id, err)
	}
	return certs.Chain{cert}, nil
}

func (c *CA) check(req Request) (id token.Identity, p Profile, life time.Duration, err error) {
	if id, err = token.ParseIdentity(string(token.NewIdentity(c.domain, req.Role, req.Name))); err != nil {
		return "", p, 0, err
	}
	p, ok := ProfileOf(req.Role)
	if !ok {
		return "", p, 0, problem.New(problem.Malformed, "There is no profile for the role %q.", req.Role)
	}
	if life = req.Life; life == 0 {
		life = p.Default
	}
	if life < minLife || life > p.Max {
		return "", p, 0, problem.New(problem.Malformed, "The life of a certificate of role %q must be between %s and %s.", req.Role, minLife, p.Max)
	}
	return id, p, life, nil
}

// sign makes a leaf and returns it once it is in the log.
func (c *CA) sign(pub crypto.PublicKey, uri string, usages []x509.ExtKeyUsage, now time.Time, life time.Duration) (*x509.Certificate, error) {
	if now.After(c.root.NotAfter) {
		return nil, problem.New(problem.CertExpired, "The authority's own certificate expired on %s.", c.root.NotAfter.UTC().Format(time.RFC3339))
	}
	name, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: newSerial(), URIs: []*url.URL{name}, BasicConstraintsValid: true,
		NotBefore: now.Add(-backdate), NotAfter: now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usages,
	}
	if tmpl.NotAfter.After(c.root.NotAfter) {
		tmpl.NotAfter = c.root.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.root, pub, c.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	line, err := json.Marshal(issued{
		At: now.UTC().Format(time.RFC3339), Serial: cert.SerialNumber.Text(16), Identity: uri,
		NotAfter: cert.NotAfter.UTC().Format(time.RFC3339), Key: token.HashOf(cert.RawSubjectPublicKeyInfo),
	})
	if err != nil {
		return nil, err
	}
	if err := appendLine(filepath.Join(c.dir, issuedFile), line, 0); err != nil {
		return nil, fmt.Errorf("logging a certificate: %w", err)
	}
	return cert, nil
}

// issued is one line of the log.
type issued struct {
	At       string     `json:"at"`
	Serial   string     `json:"serial"`
	Identity string     `json:"identity"`
	NotAfter string     `json:"not_after"`
	Key      token.Hash `json:"key"` // SHA-256 of the SubjectPublicKeyInfo
}

// servingCert returns the listener's own certificate, with the root behind it for
// those who know only its fingerprint. It makes a new one at half of its life.
func (c *CA) servingCert(now time.Time) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.serving != nil && c.serving.Leaf.NotAfter.Sub(now) > servingLife/2 {
		return c.serving, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the listener's key: %w", err)
	}
	leaf, err := c.sign(key.Public(), certs.IssuerName(c.domain), []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, now, servingLife)
	if err != nil {
		return nil, fmt.Errorf("certifying the listener: %w", err)
	}
	c.serving = &tls.Certificate{Certificate: [][]byte{leaf.Raw, c.root.Raw}, PrivateKey: key, Leaf: leaf}
	return c.serving, nil
}

// newSerial returns 128 random bits.
func newSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails: crypto/rand ends the program instead
	return new(big.Int).SetBytes(b)
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
