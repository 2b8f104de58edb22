package certs_test

import (
	"crypto/x509"
	"errors"
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

const (
	alpha = token.Provider("a.example")
	beta  = token.Provider("b.example")
)

func wantCode(t *testing.T, err error, want problem.Code) {
	t.Helper()
	if got := problem.Of(err); got != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}

// TestVerify judges every kind of leaf by the roots of two providers.
func TestVerify(t *testing.T) {
	t.Parallel()
	a, b, stranger := certstest.New(t, alpha), certstest.New(t, beta), certstest.New(t, alpha)
	wild := certstest.NewUnconstrained(t, "w.example") // may sign any name
	trust := certstest.Trust(a, b, wild)
	now := time.Now()
	long := a.Intermediate(now.Add(-time.Hour), now.Add(time.Hour))
	over := a.Intermediate(now.AddDate(0, 0, -9), now.AddDate(0, 0, -2))
	client, server := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	good := a.Issue(token.Agent, "eu-1")

	tests := []struct {
		name string
		leaf *certstest.Leaf
		want problem.Code
	}{
		{"agent", good, ""},
		{"broker", b.Issue(token.Broker, "main"), ""},
		{"broker for servers only", b.Issue(token.Broker, "main", certstest.For(server)), ""},
		{"subscriber", b.Issue(token.Subscriber, "alice"), ""},
		{"P-384", a.Issue(token.Subscriber, "alice", certstest.WithKey(certstest.P384)), ""},
		{"Ed25519", a.Issue(token.Subscriber, "alice", certstest.WithKey(certstest.Ed25519)), ""},
		{"RSA", a.Issue(token.Subscriber, "alice", certstest.WithKey(certstest.RSA2048)), ""},
		{"under an intermediate", long.Issue(token.Agent, "eu-1"), ""},
		{"expired", a.Issue(token.Agent, "eu-1", certstest.Expired()), problem.CertExpired},
		{"not yet valid", a.Issue(token.Agent, "eu-1", certstest.NotYet()), problem.CertNotYet},
		{"intermediate expired", over.Issue(token.Agent, "eu-1", certstest.Valid(now.AddDate(0, 0, -8), now.AddDate(0, 0, 8))), problem.CertExpired},
		{"unknown authority", stranger.Issue(token.Agent, "eu-1"), problem.CertUnknown},
		{"unknown and expired", stranger.Issue(token.Agent, "eu-1", certstest.Expired()), problem.CertUnknown},
		{"unknown and not yet valid", stranger.Issue(token.Agent, "eu-1", certstest.NotYet()), problem.CertUnknown},
		{"unknown domain", certstest.New(t, "c.example").Issue(token.Agent, "eu-1"), problem.CertUnknown},
		{"A's authority names B", a.Issue(token.Agent, "x", certstest.As("spiffe://b.example/agent/x")), problem.CertUnknown},
		{"unconstrained authority names B", wild.Issue(token.Agent, "x", certstest.As("spiffe://b.example/agent/x")), problem.CertUnknown},
		{"unconstrained authority names B, expired", wild.Issue(token.Agent, "x", certstest.As("spiffe://b.example/agent/x"), certstest.Expired()), problem.CertUnknown},
		{"A's authority names a domain below A", a.Issue(token.Agent, "x", certstest.As("spiffe://sub.a.example/agent/x")), problem.CertUnknown},
		{"agent only a client", a.Issue(token.Agent, "x", certstest.For(client)), problem.CertMisused},
		{"agent only a server", a.Issue(token.Agent, "x", certstest.For(server)), problem.CertMisused},
		{"agent without usages", a.Issue(token.Agent, "x", certstest.For()), problem.CertMisused},
		{"agent for anything", a.Issue(token.Agent, "x", certstest.For(x509.ExtKeyUsageAny)), problem.CertMisused},
		{"broker only a client", a.Issue(token.Broker, "x", certstest.For(client)), problem.CertMisused},
		{"subscriber only a server", a.Issue(token.Subscriber, "x", certstest.For(server)), problem.CertMisused},
		{"an authority", a.Issue(token.Agent, "x", certstest.AsCA()), problem.CertMisused},
		{"an authority that may not sign", a.Issue(token.Agent, "x", certstest.AsCA(), certstest.KeyUsage(x509.KeyUsageDigitalSignature)), problem.CertMisused},
		{"may sign CRLs", a.Issue(token.Agent, "x", certstest.KeyUsage(x509.KeyUsageDigitalSignature|x509.KeyUsageCRLSign)), problem.CertMisused},
		{"may not sign", a.Issue(token.Agent, "x", certstest.KeyUsage(x509.KeyUsageKeyEncipherment)), problem.CertMisused},
		{"no URI", a.Issue(token.Agent, "x", certstest.NoURI()), problem.CertMisused},
		{"two URIs", a.Issue(token.Agent, "x", certstest.AlsoURI("spiffe://a.example/agent/y")), problem.CertMisused},
		{"unknown role", a.Issue(token.Agent, "x", certstest.As("spiffe://a.example/admin/x")), problem.CertMisused},
		{"the authority's listener", a.Issue(token.Agent, "x", certstest.As(certs.IssuerName(alpha))), problem.CertMisused},
		{"exact spelling", a.Issue(token.Agent, "x", certstest.RawURI("spiffe://a.example/agent/x")), ""},
		{"upper case scheme", a.Issue(token.Agent, "x", certstest.RawURI("SPIFFE://a.example/agent/x")), problem.CertMisused},
		{"empty fragment", a.Issue(token.Agent, "x", certstest.RawURI("spiffe://a.example/agent/x#")), problem.CertMisused},
		{"empty query", a.Issue(token.Agent, "x", certstest.RawURI("spiffe://a.example/agent/x?")), problem.CertMisused},
		{"upper case domain", a.Issue(token.Agent, "x", certstest.As("spiffe://A.example/agent/x")), problem.CertMisused},
		{"with a port", a.Issue(token.Agent, "x", certstest.As("spiffe://a.example:1/agent/x")), problem.CertMisused},
		{"with a user", a.Issue(token.Agent, "x", certstest.As("spiffe://b.example@a.example/agent/x")), problem.CertMisused},
		{"escaped", a.Issue(token.Agent, "x", certstest.As("spiffe://a.example/agent/%78")), problem.CertMisused},
		{"P-521", a.Issue(token.Agent, "x", certstest.WithKey(certstest.P521)), problem.CertMisused},
		{"proxy certificate", good.Delegate(certstest.Critical()), problem.CertMisused},
		{"proxy without its extension", good.Delegate(), problem.CertUnknown},
		{"none", &certstest.Leaf{}, problem.CertMissing},
		{"longest allowed chain", &certstest.Leaf{Chain: repeat(good, certs.MaxChainCerts)}, ""},
		{"too long a chain", &certstest.Leaf{Chain: repeat(good, certs.MaxChainCerts+1)}, problem.TooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			id, err := trust.Verify(tt.leaf.Chain, now)
			wantCode(t, err, tt.want)
			if err == nil {
				if want := tt.leaf.Chain[0].URIs[0].String(); string(id) != want {
					t.Errorf("got identity %q, want %q", id, want)
				}
				return
			}
			if id != "" {
				t.Errorf("got identity %q with an error, want none", id)
			}
			s := problem.As(err).Sentence()
			named := strings.Contains(s, "spiffe://a.example/agent/")
			if want := tt.want == problem.CertExpired || tt.want == problem.CertNotYet; named != want {
				t.Errorf("sentence names the certificate: got %v, want %v: %q", named, want, s)
			}
			for _, leak := range []string{"b.example", "c.example", "sub.a", "proxy", "x509", "test root"} {
				if strings.Contains(s, leak) && !strings.Contains(s, "as proxy certificates have") {
					t.Errorf("sentence repeats %q of a stranger: %q", leak, s)
				}
			}
		})
	}
}

func repeat(l *certstest.Leaf, n int) certs.Chain {
	var c certs.Chain
	for range n {
		c = append(c, l.Chain[0])
	}
	return c
}

// TestVerifyAtTheTimeOfAStatement asks about the past: what was signed by a certificate
// in its life stays good, and what was not never becomes good.
func TestVerifyAtTheTimeOfAStatement(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	trust := certstest.Trust(a)
	from := time.Now().AddDate(0, 0, -30).Truncate(time.Second)
	to := from.AddDate(0, 0, 1)
	chain := a.Issue(token.Subscriber, "alice", certstest.Valid(from, to)).Chain
	for _, tt := range []struct {
		at   time.Time
		want problem.Code
	}{
		{from.Add(-time.Second), problem.CertNotYet},
		{from, ""},
		{to, ""},
		{to.Add(time.Second), problem.CertExpired},
		{time.Now(), problem.CertExpired},
	} {
		_, err := trust.Verify(chain, tt.at)
		if got := problem.Of(err); got != tt.want {
			t.Errorf("at %s: got %q, want %q", tt.at, got, tt.want)
		}
	}
	if _, err := trust.Verify(chain, time.Time{}); err == nil {
		t.Error("no time at all: got no error, want one")
	}
}

// TestSentences holds the words that people read.
func TestSentences(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	trust := certstest.Trust(a)
	end := time.Date(2026, 11, 20, 14, 2, 0, 0, time.UTC)
	chain := a.Issue(token.Subscriber, "alice", certstest.Valid(end.AddDate(0, 0, -9), end)).Chain
	serial := chain[0].SerialNumber.Text(16)[:8]
	for _, tt := range []struct {
		at   time.Time
		want string
	}{
		{end.Add(75 * time.Hour), "expired on 2026-11-20T14:02:00Z, 3 days ago."},
		{end.Add(25 * time.Hour), "expired on 2026-11-20T14:02:00Z, 1 day ago."},
		{end.Add(61 * time.Minute), "expired on 2026-11-20T14:02:00Z, 1 hour ago."},
		{end.Add(time.Second), "expired on 2026-11-20T14:02:00Z, 1 second ago."},
		{end.Add(time.Millisecond), "expired on 2026-11-20T14:02:00Z, less than a second ago."},
		{end.AddDate(0, 0, -11), "is not valid before 2026-11-11T14:02:00Z, which is in 2 days."},
	} {
		_, err := trust.Verify(chain, tt.at)
		want := "The certificate of spiffe://a.example/subscriber/alice (serial " + serial + "…) " + tt.want
		if got := problem.As(err).Sentence(); got != want {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	}
}

func TestOpenTrustAndReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b, next := certstest.New(t, alpha), certstest.New(t, beta), certstest.New(t, alpha)
	file := a.BundleFile(dir)
	trust, err := certs.OpenTrust(map[token.Provider]string{alpha: file, beta: b.BundleFile(dir)})
	if err != nil {
		t.Fatal(err)
	}
	if got := trust.Providers(); len(got) != 2 || got[0] != alpha || got[1] != beta {
		t.Errorf("got %v, want both providers in order", got)
	}
	now := time.Now()
	old, fresh := a.Issue(token.Agent, "x").Chain, next.Issue(token.Agent, "x").Chain
	judge := func(c certs.Chain, want problem.Code) {
		t.Helper()
		_, err := trust.Verify(c, now)
		wantCode(t, err, want)
	}
	reload := func(want bool, code problem.Code) {
		t.Helper()
		got, err := trust.Reload()
		wantCode(t, err, code)
		if got != want {
			t.Fatalf("got changed %v, want %v", got, want)
		}
	}
	replace := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(file+"x", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+"x", file); err != nil {
			t.Fatal(err)
		}
	}
	reload(false, "")
	judge(old, "")
	judge(fresh, problem.CertUnknown)
	bad := map[string][]byte{
		"empty":            {},
		"text":             []byte("not PEM"),
		"torn":             certs.Chain{next.Root()}.PEM()[:300],
		"a leaf":           old.PEM(),
		"B's authority":    certs.Chain{b.Root()}.PEM(),
		"a private key":    []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"not certificates": []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
		"too large":        make([]byte, certs.MaxFileSize+1),
	}
	for name, data := range bad {
		replace(data)
		_, err := trust.Reload()
		if got := problem.Of(err); got != problem.BadConfig {
			t.Errorf("%s: got %q (%v), want %q", name, got, err, problem.BadConfig)
		}
		if s := problem.As(err).Sentence(); !strings.Contains(s, string(alpha)) || strings.Contains(s, dir) {
			t.Errorf("%s: sentence must name the provider and no path: %q", name, s)
		}
		judge(old, "")
	}
	replace(append(certs.Chain{a.Root()}.PEM(), certs.Chain{next.Root()}.PEM()...))
	reload(true, "")
	judge(old, "")
	judge(fresh, "")
	replace(certs.Chain{next.Root()}.PEM())
	reload(true, "")
	judge(old, problem.CertUnknown)
	judge(fresh, "")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	reload(false, problem.BadConfig)
	judge(fresh, "")
}

func TestOpenTrustRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := certstest.New(t, alpha)
	file := a.BundleFile(dir)
	for name, files := range map[string]map[token.Provider]string{
		"one authority for two providers": {alpha: file, beta: file},
		"no such file":                    {alpha: filepath.Join(dir, "none.pem")},
		"not a provider":                  {"A Example": file},
	} {
		trust, err := certs.OpenTrust(files)
		if got := problem.Of(err); got != problem.BadConfig || trust != nil {
			t.Errorf("%s: got %v, %q, want nothing and %q", name, trust, got, problem.BadConfig)
		}
	}
	_, err := certs.OpenTrust(map[token.Provider]string{alpha: filepath.Join(dir, "none.pem")})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want os.ErrNotExist in the chain", err)
	}
}
