package certs_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/certs/issue"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestSPIFFEBundle reads a bundle as SPIRE publishes it, with keys for tokens and members that we do not know.
func TestSPIFFEBundle(t *testing.T) {
	t.Parallel()
	a := certstest.NewWithKey(t, alpha, certstest.RSA2048)
	text := fmt.Sprintf(`{"keys": [
	  {"use": "x509-svid", "kty": "RSA", "n": "AQAB", "e": "AQAB", "x5c": [%q], "alg": "RS256"},
	  {"use": "jwt-svid", "kty": "EC", "kid": "x", "crv": "P-256", "x": "AA", "y": "AA"},
	  {"kty": "EC", "x5c": ["not ours"]}
	], "spiffe_sequence": 12, "spiffe_refresh_hint": 300, "other": {"keys": 1}}
`, base64.StdEncoding.EncodeToString(a.Root().Raw))
	b, err := certs.ParseBundle([]byte(text))
	if err != nil || len(b.Roots) != 1 || !b.Roots[0].Equal(a.Root()) || b.Sequence != 12 || b.Refresh != 5*time.Minute {
		t.Fatalf("got %+v, %v", b, err)
	}
	dir := t.TempDir()
	trust, err := certs.OpenTrust(map[token.Provider]string{alpha: a.Put(dir, "a.json", []byte(text))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.Verify(a.Issue(token.Agent, "x").Chain, time.Now()); err != nil {
		t.Errorf("got %v, want trust", err)
	}
	a.Put(dir, "a.json", []byte(strings.Replace(text, ": 12", ": 11", 1)))
	if changed, err := trust.Reload(); changed || problem.Of(err) != problem.BadConfig {
		t.Errorf("an older bundle in the file: got %v, %v, want %s", changed, err, problem.BadConfig)
	}
	a.Put(dir, "a.json", certs.Chain{a.Root()}.PEM())
	if changed, err := trust.Reload(); changed || err != nil {
		t.Errorf("the same roots in PEM: got %v, %v", changed, err)
	}
}

// TestAuthorityOfAnotherDomainInABundle: an authority that says whose it is cannot be slipped into another domain's bundle, by
// whoever writes it.
func TestAuthorityOfAnotherDomainInABundle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := certstest.New(t, alpha)
	b, err := issue.Create(dir+"/ca", beta, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"PEM": b.Bundle(), "SPIFFE": mustMarshal(t, b)} {
		if trust, err := certs.OpenTrust(map[token.Provider]string{alpha: a.Put(dir, "a", data)}); problem.Of(err) != problem.BadConfig || trust != nil {
			t.Errorf("%s: got %v, want %s", name, err, problem.BadConfig)
		}
	}
	trust, err := certs.OpenTrust(map[token.Provider]string{alpha: a.BundleFile(dir)})
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := trust.Replace(alpha, mustMarshal(t, b)); changed || problem.Of(err) != problem.BadConfig {
		t.Errorf("replacing: got %v, %v, want %s", changed, err, problem.BadConfig)
	}
	if _, err := trust.Replace(beta, mustMarshal(t, b)); problem.Of(err) != problem.BadConfig {
		t.Errorf("of a domain without a file: got %v, want %s", err, problem.BadConfig)
	}
}

func mustMarshal(t *testing.T, ca *issue.CA) []byte {
	t.Helper()
	data, err := ca.SPIFFEBundle()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzParseBundle holds that what is read is nothing but authorities, and that a refusal gives nothing.
func FuzzParseBundle(f *testing.F) {
	a, b := certstest.New(f, alpha), certstest.New(f, beta)
	f.Add(certstest.SPIFFE(f, certs.Bundle{Sequence: 1, Refresh: time.Minute}, a, b))
	f.Add(certs.Chain{a.Root(), b.Root()}.PEM())
	f.Add([]byte(`{"keys":[{"use":"x509-svid","x5c":["AA"]},{"use":"jwt-svid"}],"keys":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := certs.ParseBundle(data)
		if err != nil {
			if code := problem.Of(err); code != problem.Malformed && code != problem.TooLarge || len(got.Roots) > 0 {
				t.Fatalf("got %d roots and %v", len(got.Roots), err)
			}
			return
		}
		for _, r := range got.Roots {
			if !r.IsCA {
				t.Fatal("a root is no authority")
			}
		}
		if len(got.Roots) == 0 || len(got.Roots) > certs.MaxRoots || got.Refresh < 0 {
			t.Fatalf("got %d roots and the hint %s", len(got.Roots), got.Refresh)
		}
	})
}
