package issue

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const domain = token.Provider("a.example")

// An office is an authority that serves on loopback.
type office struct {
	*CA
	t       *testing.T
	address string
	mu      sync.Mutex // guards alarms, errors
	alarms  []Alarm
	errors  []error
}

func newCA(t *testing.T) *CA {
	t.Helper()
	// Two days old, so that leaves can have been issued yesterday.
	ca, err := Create(filepath.Join(t.TempDir(), "ca"), domain, time.Now().AddDate(0, 0, -2))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { audit(t, ca) })
	return ca
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{CA: newCA(t), t: t}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.address = ln.Addr().String()
	server := NewServer(o.CA, func(a Alarm) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.alarms = append(o.alarms, a)
	}, func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.errors = append(o.errors, err)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.ServeTLS(ln, "", ""); err != http.ErrServerClosed {
			t.Errorf("serving: %v", err)
		}
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		<-done
	})
	return o
}

// token makes a join token for an agent.
func (o *office) token(name string) string {
	o.t.Helper()
	tok, err := o.NewToken(Request{Role: token.Agent, Name: name}, o.address, 0, time.Now())
	if err != nil {
		o.t.Fatal(err)
	}
	return tok
}

func (o *office) told() (alarms []Alarm, errs []error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.alarms, o.errors
}

// join joins and returns the pair and trust that it left in dir.
func (o *office) join(name, dir string) (*certs.Pair, *certs.Trust) {
	o.t.Helper()
	if _, err := Join(o.t.Context(), o.token(name), name, dir); err != nil {
		o.t.Fatal(err)
	}
	return open(o.t, dir)
}

func open(t *testing.T, dir string) (*certs.Pair, *certs.Trust) {
	t.Helper()
	pair, err := certs.OpenPair(filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	trust, err := certs.OpenTrust(map[token.Provider]string{domain: filepath.Join(dir, BundleFile)})
	if err != nil {
		t.Fatal(err)
	}
	return pair, trust
}

// audit reads the whole directory of an authority: every line of its log is one certificate with a
// serial number of its own, every mark belongs to a token, nothing half-written is left.
func audit(t *testing.T, ca *CA) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(ca.dir, issuedFile))
	if err != nil {
		t.Fatal(err)
	}
	serials := map[string]bool{}
	for line := range bytes.Lines(data) {
		var i issued
		if err := json.Unmarshal(line, &i); err != nil || i.Serial == "" || serials[i.Serial] {
			t.Errorf("the log has the bad line %q: %v", line, err)
		}
		serials[i.Serial] = true
	}
	entries, err := os.ReadDir(filepath.Join(ca.dir, tokenDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, isMark := strings.CutSuffix(e.Name(), ".spent")
		if !isMark {
			name, _ = strings.CutSuffix(e.Name(), ".json")
		}
		if len(name) != 64 {
			t.Errorf("the token folder holds %q", e.Name())
		}
		if _, err := os.Stat(ca.tokenFile(name, ".json")); err != nil {
			t.Errorf("a mark without its token: %v", err)
		}
	}
}

// logged counts the certificates that were issued to a name.
func (c *CA) logged(t *testing.T, id token.Identity) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.dir, issuedFile))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(data, []byte(`"`+string(id)+`"`))
}

func newTestKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func testCSR(t *testing.T, key crypto.Signer) string {
	t.Helper()
	csr, err := newCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func wantCode(t *testing.T, err error, want problem.Code) {
	t.Helper()
	if got := problem.Of(err); got != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}

// stranger is the TLS of a client that we did not write.
func stranger(cert ...tls.Certificate) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, Certificates: cert}
}
