package issue

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/federation"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestAuthorityIsABundleEndpoint: another provider follows the bundle of a built-in authority, and takes it from nobody who is not that
// authority's listener.
func TestAuthorityIsABundleEndpoint(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	file := filepath.Join(t.TempDir(), "south.json")
	if err := os.WriteFile(file, o.Bundle(), 0o600); err != nil {
		t.Fatal(err)
	}
	trust, err := certs.OpenTrust(map[token.Provider]string{domain: file})
	if err != nil {
		t.Fatal(err)
	}
	p := federation.Poller{Trust: trust, OnChange: func(token.Provider) {}}
	e := federation.Endpoint{Domain: domain, URL: "https://" + o.address + BundlePath, Profile: federation.SPIFFE, ID: certs.IssuerName(domain)}
	if wait, err := p.Poll(t.Context(), e); err != nil || wait != bundleRefresh {
		t.Errorf("asking the authority: got %s, %v", wait, err)
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := certs.ParseBundle(kept); err != nil || b.Sequence != uint64(o.root.NotBefore.Unix()) || !b.Roots[0].Equal(o.root) {
		t.Errorf("what is kept: got %+v, %v", b, err)
	}
	if _, err := trust.Verify(mustIssue(t, o.CA), time.Now()); err != nil {
		t.Errorf("after that: %v", err)
	}
	e.ID += "x"
	if _, err := p.Poll(t.Context(), e); problem.Of(err) != problem.CertMismatch {
		t.Errorf("as another: got %v, want %s", err, problem.CertMismatch)
	}
}

func mustIssue(t *testing.T, ca *CA) certs.Chain {
	t.Helper()
	chain, err := ca.Issue(newTestKey(t).Public(), Request{Role: token.Agent, Name: "x"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return chain
}
