package web_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestLinkAndNoticesOverTheWire links two accounts, changes the key of one, and wants every answer to both to say so until it is acknowledged.
func TestLinkAndNoticesOverTheWire(t *testing.T) {
	t.Parallel()
	n := serve(t)
	atNorth, atSouth := n.north.Issue(token.Subscriber, "alice"), n.south.Issue(token.Subscriber, "alice")
	north, south := n.client(atNorth), n.client(atSouth)
	c, err := north.LinkChallenge(t.Context())
	if err != nil || c.Challenge.Check() != nil {
		t.Fatalf("a challenge: %+v, %v", c, err)
	}
	l := token.Link{Accounts: []token.Identity{"spiffe://north/subscriber/alice", "spiffe://south/subscriber/alice"}, Aud: n.b.Self(), Challenge: c.Challenge,
		Iat: time.Now().Unix(), Exp: c.Exp}
	sl := api.SignedLink{}
	for _, leaf := range []*certstest.Leaf{atNorth, atSouth} {
		s, err := token.NewSigner(leaf.Key)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := s.Link(l)
		if err != nil {
			t.Fatal(err)
		}
		sl.JWS, sl.Chains = append(sl.JWS, jws), append(sl.Chains, string(leaf.Chain.PEM()))
	}
	a, err := north.Link(t.Context(), sl)
	if err != nil || len(a.Linked) != 1 || a.Linked[0].ID != "spiffe://south/subscriber/alice" || !a.Settled || a.Seen.IsZero() {
		t.Fatalf("linking: got %+v, %v", a, err)
	}
	if _, err := south.Link(t.Context(), sl); problem.Of(err) != problem.LinkRefused {
		t.Errorf("replayed by the other account: got %v", err)
	}
	notices := func(l *certstest.Leaf, path string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := n.http(l).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Header.Get(api.NoticeHeader)
	}
	if got := notices(atNorth, "/v1/providers"); got != "" {
		t.Errorf("a notice of nothing: %q", got)
	}
	fresh := n.north.Issue(token.Subscriber, "alice")
	for path, leaf := range map[string]*certstest.Leaf{"/v1/version": fresh, "/v1/providers": atNorth, "/no/such/path": atSouth} {
		_ = notices(fresh, "/v1/version")
		if got := notices(leaf, path); got != "1" {
			t.Errorf("%s: got the notice %q, want 1", path, got)
		}
	}
	if south.Notices() {
		t.Error("the client has notices before it was told")
	}
	if a, err = south.Account(t.Context()); err != nil || len(a.Changes) != 1 || !south.Notices() {
		t.Fatalf("the account: got %+v, %v", a, err)
	}
	if _, err := n.client(fresh).Acknowledge(t.Context(), a.Changes[0].N, api.Mine); problem.Of(err) != problem.NotPermitted {
		t.Errorf("by the new key: got %v", err)
	}
	if a, err = south.Acknowledge(t.Context(), a.Changes[0].N, api.Mine); err != nil || len(a.Changes) != 0 {
		t.Errorf("by the linked account: got %+v, %v", a, err)
	}
	if got := notices(atNorth, "/v1/providers"); got != "" {
		t.Errorf("after the acknowledgement: got the notice %q", got)
	}
	if _, err := north.Unlink(t.Context(), "spiffe://south/subscriber/alice"); err != nil {
		t.Errorf("unlinking: %v", err)
	}
	if _, err := north.Unlink(t.Context(), "spiffe://south/subscriber/alice"); problem.Of(err) != problem.NotLinked {
		t.Errorf("unlinking twice: got %v", err)
	}
}
