package enrol

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestObtainAndRenew gets a certificate and replaces it three times: the key stays, the account stays, nothing listens in between.
func TestObtainAndRenew(t *testing.T) {
	t.Parallel()
	for _, challenge := range []Challenge{HTTP01, TLSALPN01} {
		f, conf, trust := newFake(t)
		conf.Challenge = challenge
		var key, account, last string
		for i := range 4 {
			if err := Obtain(t.Context(), conf, trust); err != nil {
				t.Fatalf("%s: %v", challenge, err)
			}
			pair, err := certs.OpenPair(conf.CertFile, conf.KeyFile)
			if err != nil || pair.Identity() != wanted {
				t.Fatalf("%s: got %v, want a pair of %s", challenge, err, wanted)
			}
			if cert := read(t, conf.CertFile); cert == last {
				t.Errorf("%s: round %d left the old certificate", challenge, i)
			} else {
				last = cert
			}
			if i > 0 && (read(t, conf.KeyFile) != key || read(t, conf.AccountFile) != account) {
				t.Errorf("%s: round %d changed a key", challenge, i)
			}
			key, account = read(t, conf.KeyFile), read(t, conf.AccountFile)
			if c, err := net.Dial("tcp", conf.Listen); err == nil {
				t.Errorf("%s: something listens while no challenge is open (%v)", challenge, c.Close())
			}
		}
		for _, file := range []string{conf.KeyFile, conf.AccountFile} {
			if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("mode of %s: got %v, %v, want 0600", filepath.Base(file), st.Mode(), err)
			}
		}
		if f.orders != 4 {
			t.Errorf("got %d orders, want 4", f.orders)
		}
		if left, err := os.ReadDir(filepath.Dir(conf.CertFile)); err != nil || len(left) != 3 {
			t.Errorf("got %d files, want certificate, key and account", len(left))
		}
	}
}

// TestKeyOfTheOperatorIsUsed certifies keys that were there before, of each kind of file and of RSA.
func TestKeyOfTheOperatorIsUsed(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	for kind, tt := range map[string]struct {
		der []byte
		pub interface{ Equal(crypto.PublicKey) bool }
	}{
		"EC PRIVATE KEY":  {sec1, &ec.PublicKey},
		"RSA PRIVATE KEY": {x509.MarshalPKCS1PrivateKey(rk), &rk.PublicKey},
	} {
		f, conf, trust := newFake(t)
		if err := os.WriteFile(conf.KeyFile, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: tt.der}), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Obtain(t.Context(), conf, trust); err != nil {
			t.Fatal(err)
		}
		if !tt.pub.Equal(f.csr.PublicKey) {
			t.Errorf("%s: another key was certified", kind)
		}
	}
}

// heldRSA signs as a key in another process does: with PSS alone.
type heldRSA struct{ *rsa.PrivateKey }

func (k heldRSA) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, ok := opts.(*rsa.PSSOptions); !ok {
		return nil, errors.New("this key makes PSS signatures")
	}
	return k.PrivateKey.Sign(r, digest, opts)
}

// TestKeyInNoFileIsCertified has a key certified that another process holds, and wants that no key file is made.
func TestKeyInNoFileIsCertified(t *testing.T) {
	t.Parallel()
	rk, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	f, conf, trust := newFake(t)
	file := conf.KeyFile
	conf.KeyFile, conf.Key = "", heldRSA{rk}
	if err := Obtain(t.Context(), conf, trust); err != nil {
		t.Fatal(err)
	}
	if !rk.PublicKey.Equal(f.csr.PublicKey) {
		t.Error("another key was certified")
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key file: got %v, want none", err)
	}
	conf.KeyFile = file
	if err := Obtain(t.Context(), conf, trust); problem.Of(err) != problem.BadConfig {
		t.Errorf("with two keys: got %v, want bad-config", err)
	}
}

// TestMisissuedIsNotUsed lets the authority issue everything but what was asked for: the old certificate stays.
func TestMisissuedIsNotUsed(t *testing.T) {
	t.Parallel()
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign := certstest.New(t, domain)
	b := certstest.New(t, "b.example")
	for name, tt := range map[string]struct {
		issue func(ca *certstest.CA, key crypto.Signer) *certstest.Leaf
		want  problem.Code
	}{
		"another agent": {func(ca *certstest.CA, k crypto.Signer) *certstest.Leaf {
			return ca.Issue(token.Agent, "eu-2", certstest.ForKey(k))
		}, problem.CertMismatch},
		"another role": {func(ca *certstest.CA, k crypto.Signer) *certstest.Leaf {
			return ca.Issue(token.Subscriber, "eu-1", certstest.ForKey(k))
		}, problem.CertMismatch},
		"of another domain": {func(_ *certstest.CA, k crypto.Signer) *certstest.Leaf {
			return b.Issue(token.Agent, "eu-1", certstest.ForKey(k))
		}, problem.CertMismatch},
		"another key": {func(ca *certstest.CA, _ crypto.Signer) *certstest.Leaf {
			return ca.Issue(token.Agent, "eu-1", certstest.ForKey(other))
		}, problem.CertMismatch},
		"no identity": {func(ca *certstest.CA, k crypto.Signer) *certstest.Leaf {
			return ca.Issue(token.Agent, "eu-1", certstest.ForKey(k), certstest.NoURI())
		}, problem.CertMisused},
		"two identities": {func(ca *certstest.CA, k crypto.Signer) *certstest.Leaf {
			return ca.Issue(token.Agent, "eu-1", certstest.ForKey(k), certstest.AlsoURI("spiffe://a.example/agent/eu-2"))
		}, problem.CertMisused},
		"an authority": {func(ca *certstest.CA, k crypto.Signer) *certstest.Leaf {
			return ca.Issue(token.Agent, "eu-1", certstest.ForKey(k), certstest.AsCA())
		}, problem.CertMisused},
		"usages of a server": {func(ca *certstest.CA, k crypto.Signer) *certstest.Leaf {
			return ca.Issue(token.Agent, "eu-1", certstest.ForKey(k), certstest.For(x509.ExtKeyUsageServerAuth))
		}, problem.CertMisused},
		"by a root that we do not trust": {func(_ *certstest.CA, k crypto.Signer) *certstest.Leaf {
			return foreign.Issue(token.Agent, "eu-1", certstest.ForKey(k))
		}, problem.CertUnknown},
		"expired": {func(ca *certstest.CA, k crypto.Signer) *certstest.Leaf {
			return ca.Issue(token.Agent, "eu-1", certstest.ForKey(k), certstest.Expired())
		}, problem.CertExpired},
		"not yet valid": {func(ca *certstest.CA, k crypto.Signer) *certstest.Leaf {
			return ca.Issue(token.Agent, "eu-1", certstest.ForKey(k), certstest.NotYet())
		}, problem.CertNotYet},
	} {
		f, conf, _ := newFake(t)
		ca := certstest.New(t, domain)
		trust := certstest.Trust(ca, b)
		f.issue = func(k crypto.Signer) certs.Chain { return ca.Issue(token.Agent, "eu-1", certstest.ForKey(k)).Chain }
		if err := Obtain(t.Context(), conf, trust); err != nil {
			t.Fatal(err)
		}
		good := read(t, conf.CertFile)
		f.issue = func(k crypto.Signer) certs.Chain { return tt.issue(ca, k).Chain }
		err := Obtain(t.Context(), conf, trust)
		if problem.Of(err) != tt.want {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
		if s := problem.As(err); err != nil && (!strings.Contains(s.Sentence(), "ACME authority") || s.Advice() != remedyTemplate) {
			t.Errorf("%s: got %q and %q, want who issued it and what to do", name, s.Sentence(), s.Advice())
		}
		if read(t, conf.CertFile) != good {
			t.Errorf("%s: the certificate in use was replaced", name)
		}
	}
}

// TestRefusals has the authority fail in each way: one sentence, a remedy, the old files.
func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault func(f *fakeACME, conf *Config)
		says  string
	}{
		"refuses the order": {func(f *fakeACME, _ *Config) {
			f.before = failing(f, "/order", http.StatusForbidden, "rejectedIdentifier", "not\x1b[2J here")
		}, "The ACME authority refused: not[2J here (rejectedIdentifier, HTTP status 403)"},
		"refuses the request": {func(f *fakeACME, _ *Config) {
			f.before = failing(f, "/finalize", http.StatusBadRequest, "badCSR", "names differ.")
		}, "The ACME authority refused: names differ (badCSR, HTTP status 400)"},
		"is ill": {func(f *fakeACME, _ *Config) {
			f.before = failing(f, "/account", http.StatusInternalServerError, "serverInternal", "ill")
		}, "The ACME authority refused: ill (serverInternal, HTTP status 500)"},
		"offers another challenge": {func(f *fakeACME, _ *Config) { f.offered = []string{"dns-01"} },
			"The ACME authority does not offer the challenge http-01."},
		"comes elsewhere": {func(f *fakeACME, conf *Config) { f.visit, conf.patience = "127.0.0.1:1", 1500*time.Millisecond },
			"The ACME authority did not see that we control the identifier: it could not be seen (connection, HTTP status 400)"},
		"has terms": {func(f *fakeACME, _ *Config) {
			f.dir["meta"] = map[string]any{"termsOfService": "https://a.example/terms"}
		}, "The ACME authority has terms of service that were not accepted: https://a.example/terms"},
		"wants an external account": {func(f *fakeACME, _ *Config) {
			f.dir["meta"] = map[string]any{"externalAccountRequired": true}
		}, "The ACME authority wants an external account binding, which is not supported."},
		"answers without end": {func(f *fakeACME, _ *Config) {
			f.before = func(w http.ResponseWriter, _ string) bool {
				_, _ = w.Write(bytes.Repeat([]byte(" "), 2*maxAnswer))
				return true
			}
		}, "The ACME authority cannot be reached, or does not speak ACME."},
		"is away": {func(f *fakeACME, _ *Config) { f.srv.Close() }, "The ACME authority cannot be reached, or does not speak ACME."},
		"is not who it says": {func(_ *fakeACME, conf *Config) { conf.Roots = certs.Chain{certstest.New(t, domain).Root()}.PEM() },
			"What answers as the ACME authority has a web certificate that is not trusted."},
		"we cannot listen": {func(_ *fakeACME, conf *Config) { conf.Listen = "192.0.2.1:80" },
			"The address for ACME challenges cannot be listened at."},
	} {
		f, conf, trust := newFake(t)
		f.mu.Lock()
		tt.fault(f, &conf)
		f.mu.Unlock()
		err := Obtain(t.Context(), conf, trust)
		if s := problem.As(err); err == nil || s.Code != problem.EnrolFailed || s.Sentence() != tt.says || s.Advice() == "" {
			t.Errorf("%s: got %v, want %q", name, err, tt.says)
		}
		if _, err := os.Stat(conf.CertFile); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: there is a certificate", name)
		}
	}
}

func failing(f *fakeACME, path string, status int, kind, detail string) func(http.ResponseWriter, string) bool {
	return func(w http.ResponseWriter, got string) bool {
		if got == path {
			f.refuse(w, status, kind, detail)
		}
		return got == path
	}
}

// TestChallengeAnswersNothingElse looks in, while a challenge is open, for what is not there.
func TestChallengeAnswersNothingElse(t *testing.T) {
	t.Parallel()
	f, conf, trust := newFake(t)
	f.before = func(_ http.ResponseWriter, path string) bool {
		if path != "/challenge/http-01" {
			return false
		}
		for _, stray := range []string{"/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/other", "/key.pem"} {
			res, err := http.Get("http://" + f.visit + stray)
			if err != nil {
				t.Errorf("%s: %v", stray, err)
				continue
			}
			if res.Body.Close(); res.StatusCode != http.StatusNotFound {
				t.Errorf("%s: got status %d, want 404", stray, res.StatusCode)
			}
		}
		http.DefaultClient.CloseIdleConnections()
		return false
	}
	if err := Obtain(t.Context(), conf, trust); err != nil {
		t.Error(err)
	}
}

// TestObtainEndsWithItsContext interrupts an attempt in the middle.
func TestObtainEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f, conf, trust := newFake(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.before = func(_ http.ResponseWriter, path string) bool {
		if path == "/challenge/http-01" {
			cancel()
		}
		return false
	}
	if err := Obtain(ctx, conf, trust); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

// TestOneKeyIsMade lets several make one key at once.
func TestOneKeyIsMade(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "key.pem")
	var wg sync.WaitGroup
	keys := make([]crypto.Signer, 8)
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = keyOf(file); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys[1:] {
		if !k.Public().(*ecdsa.PublicKey).Equal(keys[0].Public()) {
			t.Error("got two keys")
		}
	}
}

// TestBadKeyFilesAreKept wants a file that holds no key to be an error, and to stay.
func TestBadKeyFilesAreKept(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty": "", "no PEM": "key\n",
		"a certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"a torn key":    "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"too large":     strings.Repeat("x", certs.MaxFileSize+1),
	} {
		file := filepath.Join(t.TempDir(), "key.pem")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := keyOf(file); problem.Of(err) != problem.BadConfig {
			t.Errorf("%s: got %v, want bad-config", name, err)
		}
		if read(t, file) != text {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	_, good, _ := newFake(t)
	for _, id := range []string{"localhost", "eu-1.agents.a.example", "192.0.2.1", "2001:db8::1"} {
		good.Identifier = id
		if err := good.Check(); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	for name, spoil := range map[string]func(*Config){
		"identity":           func(c *Config) { c.Identity = "spiffe://a.example/eu-1" },
		"plain HTTP":         func(c *Config) { c.Directory = "http://a.example/directory" },
		"no directory":       func(c *Config) { c.Directory = "" },
		"challenge":          func(c *Config) { c.Challenge = "dns-01" },
		"wildcard":           func(c *Config) { c.Identifier = "*.a.example" },
		"upper case":         func(c *Config) { c.Identifier = "A.example" },
		"no identifier":      func(c *Config) { c.Identifier = "" },
		"address, long form": func(c *Config) { c.Identifier = "2001:db8:0::1" },
		"address with zone":  func(c *Config) { c.Identifier = "fe80::1%eth0" },
		"a dot at the end":   func(c *Config) { c.Identifier = "a.example." },
		"listen":             func(c *Config) { c.Listen = "here" },
		"contact":            func(c *Config) { c.Contact = "ops@a.example" },
		"account":            func(c *Config) { c.AccountFile = "" },
	} {
		bad := good
		spoil(&bad)
		if err := bad.Check(); problem.Of(err) != problem.BadConfig {
			t.Errorf("%s: got %v, want bad-config", name, err)
		}
	}
}
