package token_test

import (
	"testing"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

func TestCapabilityCheck(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		edit func(*token.Capability)
		want problem.Code
	}{
		{"good", func(*token.Capability) {}, ""},
		{"six hours", func(c *token.Capability) { c.Exp = c.Iat + 6*3600 }, ""},
		{"six hours and a second", func(c *token.Capability) { c.Exp = c.Iat + 6*3600 + 1 }, problem.CapTooLong},
		{"for ever", func(c *token.Capability) { c.Exp = 1<<53 - 1 }, problem.CapTooLong},
		{"beyond JSON", func(c *token.Capability) { c.Exp = 1 << 62 }, problem.Malformed},
		{"no exp", func(c *token.Capability) { c.Exp = 0 }, problem.Malformed},
		{"no iat", func(c *token.Capability) { c.Iat = 0 }, problem.Malformed},
		{"negative iat", func(c *token.Capability) { c.Iat = -5; c.Exp = 5 }, problem.Malformed},
		{"ends at once", func(c *token.Capability) { c.Exp = c.Iat }, problem.Malformed},
		{"no batch", func(c *token.Capability) { c.Bat = 0 }, problem.Malformed},
		{"no generation", func(c *token.Capability) { c.Gen = 0 }, problem.Malformed},
		{"huge generation", func(c *token.Capability) { c.Gen = 1 << 53 }, problem.Malformed},
		{"no bytes", func(c *token.Capability) { c.Max = 0 }, problem.Malformed},
		{"negative bytes", func(c *token.Capability) { c.Max = -1 }, problem.Malformed},
		{"order's verb", func(c *token.Capability) { c.Do = token.Copy }, problem.Malformed},
		{"overwrite", func(c *token.Capability) { c.Do = "modify" }, problem.Malformed},
		{"no verb", func(c *token.Capability) { c.Do = "" }, problem.Malformed},
		{"an authority to come", func(c *token.Capability) { c.Authority = "trust" }, problem.Malformed},
		{"agent as issuer", func(c *token.Capability) { c.Iss = tokentest.AgentA }, problem.Malformed},
		{"broker as audience", func(c *token.Capability) { c.Aud = tokentest.TheirHub }, problem.Malformed},
		{"subscriber as peer", func(c *token.Capability) { c.Peer = tokentest.AtB }, problem.Malformed},
		{"no peer", func(c *token.Capability) { c.Peer = "" }, problem.Malformed},
		{"no transfer", func(c *token.Capability) { c.Xfr = "" }, problem.Malformed},
		{"no leaf", func(c *token.Capability) { c.Cnf = "" }, problem.Malformed},
		{"no manifest", func(c *token.Capability) { c.Man = "" }, problem.Malformed},
		{"no order", func(c *token.Capability) { c.Ord = "x" }, problem.Malformed},
	} {
		c := tokentest.Capability()
		tc.edit(&c)
		if got := problem.Of(c.Check()); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
		if tok, err := signer(t, tokentest.Keys()[0]).Capability(c); problem.Of(err) != tc.want || (tok == "") != (err != nil) {
			t.Errorf("%s: got the token %q (%v), want %q", tc.name, tok, err, tc.want)
		}
	}
}

// TestAdmit names each attack on a good capability by somebody or something else.
func TestAdmit(t *testing.T) {
	t.Parallel()
	c := tokentest.Capability()
	other := token.HashOf([]byte("other"))
	for _, tc := range []struct {
		name string
		edit func(*token.Admission)
		want problem.Code
	}{
		{"its holder in time", func(*token.Admission) {}, ""},
		{"60 s early", func(a *token.Admission) { a.Now = time.Unix(c.Iat-60, 0) }, ""},
		{"61 s early", func(a *token.Admission) { a.Now = time.Unix(c.Iat-61, 0) }, problem.CapNotYet},
		{"last nanosecond", func(a *token.Admission) { a.Now = time.Unix(c.Exp, -1) }, ""},
		{"at the end", func(a *token.Admission) { a.Now = time.Unix(c.Exp, 0) }, problem.CapExpired},
		{"long after", func(a *token.Admission) { a.Now = time.Unix(c.Exp+1e6, 0) }, problem.CapExpired},
		{"at another agent", func(a *token.Admission) { a.Self = "spiffe://a.example/agent/eu-2" }, problem.CapAudience},
		{"at the peer", func(a *token.Admission) { a.Self = tokentest.AgentB }, problem.CapAudience},
		{"to create", func(a *token.Admission) { a.Do = token.Create }, problem.WrongStatement},
		{"by another holder", func(a *token.Admission) { a.Leaf = other }, problem.CapNotYours},
		{"by nobody", func(a *token.Admission) { a.Leaf = "" }, problem.CapNotYours},
		{"by another peer", func(a *token.Admission) { a.Peer = "spiffe://b.example/agent/us-2" }, problem.ForeignPeer},
		{"for another order", func(a *token.Admission) { a.Ord = other }, problem.WrongStatement},
		{"for another manifest", func(a *token.Admission) { a.Man = other }, problem.CapManifest},
	} {
		a := tokentest.Admission()
		tc.edit(&a)
		if got := problem.Of(c.Admit(a)); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestAdmitOrder: with everything wrong, each repair shows the next failure.
func TestAdmitOrder(t *testing.T) {
	t.Parallel()
	c, good := tokentest.Capability(), tokentest.Admission()
	var a token.Admission
	a.Now = time.Unix(c.Exp, 0)
	for i, step := range []struct {
		want   problem.Code
		repair func()
	}{
		{problem.CapExpired, func() { a.Now = time.Unix(0, 0) }},
		{problem.CapNotYet, func() { a.Now = good.Now }},
		{problem.CapAudience, func() { a.Self = good.Self }},
		{problem.WrongStatement, func() { a.Do = good.Do }},
		{problem.CapNotYours, func() { a.Leaf = good.Leaf }},
		{problem.ForeignPeer, func() { a.Peer = good.Peer }},
		{problem.WrongStatement, func() { a.Ord = good.Ord }},
		{problem.CapManifest, func() { a.Man = good.Man }},
		{"", func() {}},
	} {
		if got := problem.Of(c.Admit(a)); got != step.want {
			t.Errorf("step %d: got %q, want %q", i, got, step.want)
		}
		step.repair()
	}
	// The zero capability opens no door, not even that of the zero admission.
	wantCode(t, token.Capability{}.Admit(token.Admission{Now: time.Unix(-1, 0)}), problem.CapNotYours)
	wantCode(t, token.Capability{}.Admit(token.Admission{Now: good.Now}), problem.CapExpired)
}
