package token_test

import (
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

// TestTreeIntoItself: the copies of a tree into itself are listed and copied again, until names are too long.
func TestTreeIntoItself(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to, container string
		want                problem.Code
	}{
		{"", "x", "raw", problem.Malformed}, {"a", "a/x", "raw", problem.Malformed}, {"a/b", "a/b/c/d", "raw", problem.Malformed},
		{"a", "a", "raw", ""}, {"a", "ab", "raw", ""}, {"a/b", "a", "raw", ""}, {"", "", "raw", ""}, {"", "x", "other", ""}, {"a", "a/x", "other", ""},
	} {
		o := tokentest.Order()
		o.Accounts = []token.Identity{tokentest.AtA}
		o.From = token.Location{Provider: "a.example", Container: "raw", Name: token.ObjectName(tt.from)}
		o.To = token.Location{Provider: "a.example", Container: token.Container(tt.container), Name: token.ObjectName(tt.to)}
		if err := o.Check(); problem.Of(err) != tt.want {
			t.Errorf("%s to %s: got %v, want %q", o.From, o.To, err, tt.want)
		}
		o.To.Provider, o.Accounts = "b.example", []token.Identity{tokentest.AtA, tokentest.AtB}
		if err := o.Check(); err != nil {
			t.Errorf("%s to %s: got %v, want nil", o.From, o.To, err)
		}
	}
}
