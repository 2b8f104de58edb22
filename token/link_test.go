package token_test

import (
	"slices"
	"testing"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

func TestLinkCheck(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		edit func(*token.Link)
		want problem.Code
	}{
		"good":           {func(*token.Link) {}, ""},
		"ten minutes":    {func(l *token.Link) { l.Exp = l.Iat + 600 }, ""},
		"a second more":  {func(l *token.Link) { l.Exp = l.Iat + 601 }, problem.Malformed},
		"ends at once":   {func(l *token.Link) { l.Exp = l.Iat }, problem.Malformed},
		"no iat":         {func(l *token.Link) { l.Iat = 0 }, problem.Malformed},
		"one account":    {func(l *token.Link) { l.Accounts = l.Accounts[:1] }, problem.Malformed},
		"three accounts": {func(l *token.Link) { l.Accounts = append(l.Accounts, "spiffe://c.example/subscriber/ada") }, problem.Malformed},
		"not sorted":     {func(l *token.Link) { slices.Reverse(l.Accounts) }, problem.Malformed},
		"twice the same": {func(l *token.Link) { l.Accounts[1] = l.Accounts[0] }, problem.Malformed},
		"one provider":   {func(l *token.Link) { l.Accounts[1] = "spiffe://a.example/subscriber/bob" }, problem.Malformed},
		"an agent":       {func(l *token.Link) { l.Accounts[1] = tokentest.AgentB }, problem.Malformed},
		"for an agent":   {func(l *token.Link) { l.Aud = tokentest.AgentB }, problem.Malformed},
		"no challenge":   {func(l *token.Link) { l.Challenge = "" }, problem.Malformed},
	} {
		l := tokentest.Link()
		tc.edit(&l)
		if got := problem.Of(l.Check()); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
		if tok, err := signer(t, tokentest.Keys()[0]).Link(l); problem.Of(err) != tc.want || (tok == "") != (err != nil) {
			t.Errorf("%s: got a token of %d bytes (%v), want %q", name, len(tok), err, tc.want)
		}
	}
	l := tokentest.Link()
	for at, want := range map[int64]problem.Code{l.Iat - 61: problem.LinkRefused, l.Iat - 60: "", l.Exp - 1: "", l.Exp: problem.LinkRefused} {
		if got := problem.Of(l.CheckTime(time.Unix(at, 0))); got != want {
			t.Errorf("at %d: got %q, want %q", at, got, want)
		}
	}
}
