package main

import (
	"bytes"
	"context"
	"crypto/x509/pkix"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestMapPlainCertificate: what the command prints makes a certificate without a SPIFFE name the account, for those who trust the file
// and for its holder, and for nobody else.
func TestMapPlainCertificate(t *testing.T) {
	t.Parallel()
	const alice = token.Identity("spiffe://north/subscriber/alice")
	dir := t.TempDir()
	north, hub := certstest.New(t, "north"), certstest.New(t, "hub")
	leaf := north.Issue(token.Subscriber, "x", certstest.Plain(pkix.Name{CommonName: "Alice", Organization: []string{"North"}}))
	cert, key := leaf.Files(dir)
	bundle := north.BundleFile(dir)
	command := func(args ...string) (string, string, int) {
		var out, bad bytes.Buffer
		code := run(context.Background(), args, streams{in: strings.NewReader(""), out: &out, err: &bad})
		return out.String(), bad.String(), code
	}
	line, bad, code := command("ca", "map", cert, string(alice), "--issuer", bundle)
	if code != 0 || !strings.HasSuffix(line, " CN=Alice,O=North\n") || !strings.HasPrefix(line, string(alice)+" ") {
		t.Fatalf("got %q, %q and %d, want a line", line, bad, code)
	}
	out, _, code := command("ca", "map", cert, string(alice), "--issuer", bundle, "--output", "json")
	var got struct{ Identity, Issuer, Subject, Line string }
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 || got.Line+"\n" != line || got.Subject != "CN=Alice,O=North" {
		t.Errorf("as JSON: got %q, %v, %d", out, err, code)
	}
	for name, args := range map[string][]string{
		"without its issuer":  {"ca", "map", cert, string(alice)},
		"with another issuer": {"ca", "map", cert, string(alice), "--issuer", hub.BundleFile(dir)},
		"for an agent":        {"ca", "map", cert, "spiffe://north/agent/alice", "--issuer", bundle},
		"no such file":        {"ca", "map", cert + "x", string(alice), "--issuer", bundle},
	} {
		if out, _, code := command(args...); code == 0 || out != "" {
			t.Errorf("%s: got %q and %d, want a failure", name, out, code)
		}
	}
	north.Put(dir, "north.accounts", []byte(line))
	config := filepath.Join(dir, "config.yaml")
	text := "broker: {url: 'https://127.0.0.1:1', id: 'spiffe://hub/broker/main'}\ntrust: {north: north.pem, hub: hub.pem}\nsubscribers: {north: north.accounts}\n" +
		"accounts: [{cert: cert.pem, key: key.pem, id: 'spiffe://north/subscriber/alice'}]\n"
	hub.BundleFile(dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a := newApp()
	a.config = config
	s, err := a.openWith(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.account("north") == nil || s.account("north").Identity() != alice {
		t.Error("the configuration does not make it the account")
	}
	if id, err := s.trust.Verify(leaf.Chain, time.Now()); id != alice || err != nil {
		t.Errorf("verifying: got %q, %v, want %s", id, err, alice)
	}
	if _, err := certs.OpenPair(cert, key); problem.Of(err) != problem.CertMisused {
		t.Errorf("without an id: got %v, want %s", err, problem.CertMisused)
	}
}
