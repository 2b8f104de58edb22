package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// newStepCA starts a real step-ca with the template that docs/OPERATIONS.md shows. It comes to the given addresses for
// http-01 and tls-alpn-01.
func newStepCA(t *testing.T, d realstores.Domain, http01, tlsALPN01 string) *realstores.CA {
	t.Helper()
	shown := blocks(t, "../../docs/OPERATIONS.md", "template")
	if len(shown) != 1 {
		t.Fatalf("templates in docs/OPERATIONS.md: got %d, want 1", len(shown))
	}
	d.Provider, d.Template = "south", shown[0]
	d.HTTPPort, d.TLSPort = port(t, http01), port(t, tlsALPN01)
	ca, err := realstores.StepCA(t.Context(), t.TempDir(), d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ca.Stop(); err != nil {
			t.Error(err)
		}
		if log, err := os.ReadFile(ca.Log); err == nil && t.Failed() {
			t.Logf("the end of the log of step-ca:\n%s", log[max(0, len(log)-6000):])
		}
	})
	return ca
}

func port(t *testing.T, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTwoAuthorities copies from a provider of the built-in authority to one whose certificates come from a real step-ca:
// its agent's by ACME, before its first start and again while bytes flow, and its subscriber's, of RSA, by a one-time token.
func TestTwoAuthorities(t *testing.T) {
	t.Parallel()
	const bigBytes, rate = 48 << 20, 2 << 20
	w := newEmptyWorld(t)
	challenge := freeAddress(t)
	// Of a life of 160 s 100 are in the past, so that the first certificate is renewed within 12 s of its issue.
	ca := newStepCA(t, realstores.Domain{
		Identities: map[string]token.Identity{"127.0.0.1": "spiffe://south/agent/one"}, Life: time.Minute, Backdate: 100 * time.Second,
	}, challenge, freeAddress(t))
	w.must(w.net.AddProvider("north"))
	w.net.AddForeign("south", ca.Bundle)
	folder := filepath.Join(w.net.Dir, "agents", "south-one")
	slow := localnet.Setting{Key: "rate", Value: rate}
	w.people([]localnet.Setting{slow}, []localnet.Setting{slow, {Key: "identity", Value: map[string]any{
		"cert": filepath.Join(folder, "cert.pem"), "key": filepath.Join(folder, "key.pem"),
		"acme": map[string]any{
			"directory": ca.Directory, "root": ca.Bundle, "id": "spiffe://south/agent/one", "identifier": "127.0.0.1", "listen": challenge,
		},
	}}})
	certifyRSA(t, ca, "spiffe://south/subscriber/alice", filepath.Join(w.net.Dir, "subscribers", "alice", "south"))
	w.file("tree/small", []byte("small\n"))
	w.must(fillRandom(t.Context(), filepath.Join(w.src, "tree", "big"), bigBytes))

	// Before there is a certificate, a check says so and asks nobody.
	check := w.consign(problem.ExitTemporary, "agent", "--config", w.south.Config, "--check")
	if !strings.Contains(check.Stderr, "(enrolment-failed)") {
		t.Errorf("a check before the first start: got %q, want enrolment-failed", check.Stderr)
	}
	w.start()
	first, key := readFile(t, filepath.Join(folder, "cert.pem")), readFile(t, filepath.Join(folder, "key.pem"))
	order := w.order("-r", "north:/src/tree", "south:/dst/")
	renewals := 0
	w.await("the transfer ends", func() bool {
		got := w.show(order.ID)
		if got.State == api.Running {
			renewals = strings.Count(string(readFile(t, w.south.Log)), "certificate renewed")
		}
		return got.State.Ended()
	})
	if renewals == 0 {
		t.Error("no certificate was renewed while the transfer was running")
	}
	got := w.show(order.ID)
	if got.State != api.Complete || got.Outcomes[token.Stored] != 2 || got.Problem != nil {
		t.Errorf("transfer: got %s with %v and %v, want complete with 2 stored", got.State, got.Outcomes, got.Problem)
	}
	if bytes.Equal(readFile(t, filepath.Join(folder, "cert.pem")), first) {
		t.Error("the file still has the first certificate")
	}
	if !bytes.Equal(readFile(t, filepath.Join(folder, "key.pem")), key) {
		t.Error("a renewal replaced the key")
	}
	again := w.sent() - bigBytes
	t.Logf("%d renewals, %d bytes sent again", renewals, again)
	if again > 8<<20 {
		t.Errorf("%d bytes were sent again because of %d renewals", again, renewals)
	}
	if _, err := net.Dial("tcp", challenge); err == nil {
		t.Error("something listens for challenges while none is open")
	}
	w.same(order.ID, "tree")
	w.verified(order.ID)
	w.noStages()
}

// certifyRSA writes the files of a subscriber whose key is RSA, as an operator of step-ca does.
func certifyRSA(t *testing.T, ca *realstores.CA, id token.Identity, dir string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.Certify(t.Context(), id, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"cert.pem": chain, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
	} {
		if err := certs.ReplaceFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEnrolAtStepCA gets and renews a subscriber's certificate with the one command, by a DNS name and tls-alpn-01, and is refused
// another's.
func TestEnrolAtStepCA(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	challenge := freeAddress(t)
	ca := newStepCA(t, realstores.Domain{
		Identities: map[string]token.Identity{"localhost": "spiffe://south/subscriber/bob"}, Life: time.Hour, Backdate: time.Minute,
	}, freeAddress(t), challenge)
	out := filepath.Join(t.TempDir(), "bob")
	enrol := func(status int, id, identifier string) localnet.Result {
		return w.consign(status, "ca", "enrol", "--id", id, "--directory", ca.Directory, "--root", ca.Bundle, "--bundle", ca.Bundle,
			"--identifier", identifier, "--challenge", "tls-alpn-01", "--listen", challenge, "--out", out)
	}
	const bob = "spiffe://south/subscriber/bob"
	if got := enrol(0, bob, "localhost").Stdout; !strings.Contains(got, bob) {
		t.Errorf("enrolling: got %q, want the identity", got)
	}
	cert, key := readFile(t, filepath.Join(out, "cert.pem")), readFile(t, filepath.Join(out, "key.pem"))
	enrol(0, bob, "localhost")
	renewed := readFile(t, filepath.Join(out, "cert.pem"))
	if bytes.Equal(renewed, cert) || !bytes.Equal(readFile(t, filepath.Join(out, "key.pem")), key) {
		t.Error("renewing: want another certificate for the same key")
	}
	for name, tt := range map[string]struct {
		id, identifier string
		status         int
		says           string
	}{
		"another's identity":   {"spiffe://south/subscriber/alice", "localhost", problem.ExitDenied, "(certificate-wrong-identity)"},
		"an unknown name":      {bob, "127.0.0.1", problem.ExitTemporary, "(enrolment-failed)"},
		"what is no identity":  {"bob", "localhost", problem.ExitUsage, "spiffe://provider/role/name"},
		"a name with a star":   {bob, "*.localhost", problem.ExitUsage, "DNS name"},
		"of another authority": {"spiffe://north/subscriber/bob", "localhost", problem.ExitDenied, "(certificate-wrong-identity)"},
	} {
		if got := enrol(tt.status, tt.id, tt.identifier).Stderr; !strings.Contains(got, tt.says) {
			t.Errorf("%s: got %q, want %q", name, got, tt.says)
		}
		if !bytes.Equal(readFile(t, filepath.Join(out, "cert.pem")), renewed) {
			t.Errorf("%s: the certificate was replaced", name)
		}
	}
}
