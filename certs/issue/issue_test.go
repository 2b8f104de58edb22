package issue

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestCreate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "ca")
	now := time.Now()
	ca, err := Create(dir, domain, now)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{".": 0o700, keyFile: 0o600, tokenDir: 0o700} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: got mode %v, %v, want %v", name, st.Mode().Perm(), err, want)
		}
	}
	r := ca.root
	if !r.IsCA || !r.MaxPathLenZero || !r.PermittedDNSDomainsCritical || len(r.PermittedURIDomains) != 1 || r.PermittedURIDomains[0] != string(domain) {
		t.Errorf("the root lacks a constraint: %+v", r)
	}
	if bits := r.SerialNumber.BitLen(); bits < 96 || bits > 128 {
		t.Errorf("got a serial of %d bits, want up to 128 random ones", bits)
	}
	_, err = Create(dir, domain, now)
	wantCode(t, err, problem.Conflict)
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again.Fingerprint() != ca.Fingerprint() || again.Domain() != domain {
		t.Error("a refused second creation changed the authority")
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*")); err != nil || len(left) != 0 {
		t.Errorf("got %v left behind, want nothing", left)
	}
	_, err = Create(filepath.Join(t.TempDir(), "x"), "Not A Domain", now)
	wantCode(t, err, problem.BadName)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(file, domain, now); err == nil {
		t.Error("a file in the way: got an authority, want a refusal")
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "mine" {
		t.Errorf("a file in the way: got %q, %v, want it untouched", data, err)
	}
	empty := t.TempDir()
	if _, err := Create(empty, domain, now); err != nil {
		t.Errorf("an empty folder: got %v, want an authority", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(dir string) error{
		"nothing there":      func(dir string) error { return os.Rename(dir, dir+"x") },
		"no key":             func(dir string) error { return os.Remove(filepath.Join(dir, keyFile)) },
		"no root":            func(dir string) error { return os.Remove(filepath.Join(dir, rootFile)) },
		"torn root":          func(dir string) error { return os.Truncate(filepath.Join(dir, rootFile), 99) },
		"key of others' eye": func(dir string) error { return os.Chmod(filepath.Join(dir, keyFile), 0o640) },
		"folder for others":  func(dir string) error { return os.Chmod(dir, 0o755) },
	} {
		dir := filepath.Join(t.TempDir(), "ca")
		if _, err := Create(dir, domain, time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		ca, err := Open(dir)
		if problem.Of(err) != problem.BadConfig || ca != nil {
			t.Errorf("%s: got %v, %v, want a refusal", name, ca, err)
		}
	}
}

func TestIssueProfiles(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	now := time.Now().Truncate(time.Second)
	const day = 24 * time.Hour
	client, server := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	for _, tt := range []struct {
		role      token.Role
		life, max time.Duration
		usages    []x509.ExtKeyUsage
	}{
		{token.Agent, day, 7 * day, []x509.ExtKeyUsage{client, server}},
		{token.Broker, 30 * day, 90 * day, []x509.ExtKeyUsage{server, client}},
		{token.Subscriber, 90 * day, 400 * day, []x509.ExtKeyUsage{client}},
	} {
		key := newTestKey(t)
		chain, err := ca.Issue(key.Public(), Request{Role: tt.role, Name: "x"}, now)
		if err != nil {
			t.Fatal(err)
		}
		want := token.NewIdentity(domain, tt.role, "x")
		if id, err := ca.trust.Verify(chain, now); id != want || err != nil {
			t.Errorf("got %q, %v, want %q", id, err, want)
		}
		c := chain[0]
		if !c.NotBefore.Equal(now.Add(-time.Minute)) || !c.NotAfter.Equal(now.Add(tt.life)) {
			t.Errorf("%s: got a life from %s to %s, want %s", tt.role, c.NotBefore, c.NotAfter, tt.life)
		}
		if len(c.ExtKeyUsage) != len(tt.usages) || c.IsCA || c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.URIs) != 1 {
			t.Errorf("%s: got usages %v, key usage %b, URIs %v", tt.role, c.ExtKeyUsage, c.KeyUsage, c.URIs)
		}
		for _, life := range []time.Duration{tt.max, time.Minute} {
			if chain, err := ca.Issue(key.Public(), Request{tt.role, "x", life}, now); err != nil || !chain[0].NotAfter.Equal(now.Add(life)) {
				t.Errorf("%s for %s: got %v", tt.role, life, err)
			}
		}
		for _, life := range []time.Duration{tt.max + 1, time.Minute - 1, -1} {
			if chain, err := ca.Issue(key.Public(), Request{tt.role, "x", life}, now); problem.Of(err) != problem.Malformed || chain != nil {
				t.Errorf("%s for %s: got %v, want a refusal", tt.role, life, err)
			}
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	now := time.Now()
	good := newTestKey(t).Public()
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small := &rsa.PublicKey{N: newSerial(), E: 65537}
	for name, tt := range map[string]struct {
		pub  crypto.PublicKey
		req  Request
		now  time.Time
		want problem.Code
	}{
		"no name":        {good, Request{Role: token.Agent}, now, problem.Malformed},
		"two segments":   {good, Request{Role: token.Agent, Name: "a/b"}, now, problem.Malformed},
		"a dot":          {good, Request{Role: token.Agent, Name: ".."}, now, problem.Malformed},
		"unknown role":   {good, Request{Role: "root", Name: "x"}, now, problem.Malformed},
		"no key":         {nil, Request{Role: token.Agent, Name: "x"}, now, problem.CertMisused},
		"P-521":          {p521.Public(), Request{Role: token.Agent, Name: "x"}, now, problem.CertMisused},
		"small RSA":      {small, Request{Role: token.Agent, Name: "x"}, now, problem.CertMisused},
		"after the root": {good, Request{Role: token.Agent, Name: "x"}, now.Add(rootLife + time.Hour), problem.CertExpired},
	} {
		chain, err := ca.Issue(tt.pub, tt.req, tt.now)
		if problem.Of(err) != tt.want || chain != nil {
			t.Errorf("%s: got %v, %v, want %q", name, chain, err, tt.want)
		}
	}
	if n := ca.logged(t, token.NewIdentity(domain, token.Agent, "x")); n != 0 {
		t.Errorf("got %d lines in the log, want none for refusals", n)
	}
	chain, err := ca.Issue(good, Request{Role: token.Subscriber, Name: "late"}, ca.root.NotAfter.Add(-time.Hour))
	if err != nil || chain[0].NotAfter.After(ca.root.NotAfter) {
		t.Errorf("got a leaf that outlives the root: %v", err)
	}
}

// TestStolenRootKey signs with the authority's key what its root may not: a name of another domain, one of
// a domain below, and an authority below. Each is refused even by who trusts the root for everything.
func TestStolenRootKey(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	now := time.Now()
	everywhere := certs.NewTrust(map[token.Provider][]*x509.Certificate{domain: {ca.root}, "b.example": {ca.root}, "a.example.b.example": {ca.root}})
	leaf := func(uri string, parent *x509.Certificate, by crypto.Signer, isCA bool) (*x509.Certificate, crypto.Signer) {
		t.Helper()
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		key := newTestKey(t)
		tmpl := &x509.Certificate{
			SerialNumber: newSerial(), URIs: []*url.URL{u}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			BasicConstraintsValid: true, IsCA: isCA, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		}
		if isCA {
			tmpl.KeyUsage, tmpl.ExtKeyUsage = x509.KeyUsageCertSign, nil
			tmpl.Subject.CommonName = "below"
		}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c, key
	}
	own, _ := leaf("spiffe://a.example/agent/x", ca.root, ca.key, false)
	if _, err := everywhere.Verify(certs.Chain{own}, now); err != nil {
		t.Fatalf("a name of the own domain: got %v, want trust", err)
	}
	for _, uri := range []string{"spiffe://b.example/agent/x", "spiffe://a.example.b.example/agent/x"} {
		c, _ := leaf(uri, ca.root, ca.key, false)
		_, err := everywhere.Verify(certs.Chain{c}, now)
		wantCode(t, err, problem.CertUnknown)
	}
	below, key := leaf("spiffe://a.example", ca.root, ca.key, true)
	c, _ := leaf("spiffe://a.example/agent/x", below, key, false)
	_, err := everywhere.Verify(certs.Chain{c, below}, now)
	wantCode(t, err, problem.CertUnknown)
}

func TestIssueFiles(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	dir := filepath.Join(t.TempDir(), "alice")
	id, err := ca.IssueFiles(dir, Request{Role: token.Subscriber, Name: "alice"}, time.Now())
	if want := token.NewIdentity(domain, token.Subscriber, "alice"); id != want || err != nil {
		t.Fatalf("got %q, %v, want %q", id, err, want)
	}
	pair, trust := open(t, dir)
	_, chain, _ := pair.Current()
	if got, err := trust.Verify(chain, time.Now()); got != id || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, id)
	}
	for name, want := range map[string]os.FileMode{CertFile: 0o644, KeyFile: 0o600, BundleFile: 0o644} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: got %v, %v, want mode %v", name, st, err, want)
		}
	}
	before := pair.LeafHash()
	_, err = ca.IssueFiles(dir, Request{Role: token.Subscriber, Name: "mallory"}, time.Now())
	wantCode(t, err, problem.Conflict)
	if pair, _ := open(t, dir); pair.LeafHash() != before {
		t.Error("a refused issue changed the files")
	}
}
