package web_test

import (
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestAuthorityOfOneProviderNamesAnother: south's authority, which nothing constrains, names agents and accounts of north, and the broker
// itself. It reaches no route, signs no order and no receipt.
func TestAuthorityOfOneProviderNamesAnother(t *testing.T) {
	t.Parallel()
	n := serveTrusting(t, func(n *net0) *certs.Trust {
		n.south = certstest.NewUnconstrained(t, "south")
		return certstest.Trust(n.hub, n.north, n.south)
	})
	for _, tt := range []struct {
		role token.Role
		as   string
	}{
		{token.Subscriber, "spiffe://north/subscriber/alice"}, {token.Agent, "spiffe://north/agent/n1"}, {token.Broker, "spiffe://hub/broker/main"},
		{token.Subscriber, "spiffe://hub/subscriber/root"},
	} {
		c := n.http(n.south.Issue(tt.role, "x", certstest.As(tt.as)))
		for _, r := range n.routes() {
			if status, p := n.ask(c, r[0], r[1], ""); p.Code != problem.CertUnknown || status != problem.Lookup(problem.CertUnknown).HTTP {
				t.Errorf("%s by south: %s %s: got %d %s, want %s", tt.as, r[0], r[1], status, p.Code, problem.CertUnknown)
			}
		}
	}
	atSouth := n.south.Issue(token.Subscriber, "alice")
	forged := n.south.Issue(token.Subscriber, "x", certstest.As("spiffe://north/subscriber/alice"))
	_, so := n.order(forged, atSouth)
	if _, err := n.client(atSouth).Submit(t.Context(), so); problem.Of(err) != problem.CertUnknown {
		t.Errorf("an order whose account at north is south's invention: got %v, want %s", err, problem.CertUnknown)
	}
	lie := n.south.Issue(token.Agent, "x", certstest.As("spiffe://north/agent/n1"))
	signer, err := token.NewSigner(lie.Key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := token.OutcomesRoot(nil)
	if err != nil {
		t.Fatal(err)
	}
	now, hash := time.Now().Unix(), token.HashOf([]byte("x"))
	jws, err := signer.Receipt(token.Receipt{
		Aud: n.b.Self(), Authority: token.ByOrder, Bat: 1, Caps: []token.Hash{hash}, Finished: now, Iat: now, Iss: "spiffe://north/agent/n1", Last: true, Man: hash, Ord: hash,
		Part: 1, Root: root, Side: token.Source, Started: now, Xfr: "0192f0c1-2345-7abc-8def-0123456789ab",
	})
	if err != nil {
		t.Fatal(err)
	}
	honest := n.client(n.north.Issue(token.Agent, "n1")) // who posts it is who it says
	if _, err := honest.PostReceipt(t.Context(), api.SignedReceipt{JWS: jws, Chain: string(lie.Chain.PEM())}); problem.Of(err) != problem.CertUnknown {
		t.Errorf("a receipt signed by south's invention: got %v, want %s", err, problem.CertUnknown)
	}
}

// TestAccountsAndBrokersOfEveryKind takes orders that were signed with keys of every kind, over connections of every kind.
func TestAccountsAndBrokersOfEveryKind(t *testing.T) {
	t.Parallel()
	n := serveTrusting(t, func(n *net0) *certs.Trust {
		n.north, n.south = certstest.NewWithKey(t, "north", certstest.RSA3072), certstest.NewWithKey(t, "south", certstest.Ed25519)
		return certstest.Trust(n.hub, n.north, n.south)
	})
	for name, kind := range map[string]certstest.KeyKind{
		"RSA 2048": certstest.RSA2048, "RSA 3072": certstest.RSA3072, "P-256": certstest.P256, "P-384": certstest.P384, "Ed25519": certstest.Ed25519,
	} {
		atNorth, atSouth := n.north.Issue(token.Subscriber, "alice", certstest.WithKey(kind)), n.south.Issue(token.Subscriber, "alice", certstest.WithKey(kind))
		o, so := n.order(atNorth, atSouth)
		if x, err := n.client(atNorth).Submit(t.Context(), so); err != nil || x.ID != o.ID {
			t.Errorf("%s: got %+v, %v", name, x, err)
		}
	}
}
