package web_test

import (
	"crypto/x509/pkix"
	"net/http"
	"testing"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestSubscriberWithAPlainCertificate: the broker knows an account by the provider's file, over TLS and in the order's signature, and
// takes nobody for it who has its name from elsewhere.
func TestSubscriberWithAPlainCertificate(t *testing.T) {
	t.Parallel()
	alice := certstest.Plain(pkix.Name{CommonName: "Alice"})
	var atSouth *certstest.Leaf
	n := serveTrusting(t, func(n *net0) *certs.Trust {
		dir := t.TempDir()
		atSouth = n.south.Issue(token.Subscriber, "x", alice, certstest.WithKey(certstest.P384))
		line, err := certs.AccountLine(append(atSouth.Chain[:1:1], n.south.Root()), "spiffe://south/subscriber/alice")
		if err != nil {
			t.Fatal(err)
		}
		trust, err := certs.TrustFiles{
			Bundles:     map[token.Provider]string{"hub": n.hub.BundleFile(dir), "north": n.north.BundleFile(dir), "south": n.south.BundleFile(dir)},
			Subscribers: map[token.Provider]string{"south": n.south.Put(dir, "accounts", []byte(line))},
		}.Open()
		if err != nil {
			t.Fatal(err)
		}
		return trust
	})
	atNorth := n.north.Issue(token.Subscriber, "alice")
	o, so := n.order(atNorth, atSouth)
	if x, err := n.client(atNorth).Submit(t.Context(), so); err != nil || x.ID != o.ID {
		t.Fatalf("an order with a plain certificate: got %+v, %v", x, err)
	}
	if status, p := n.ask(n.http(atSouth), http.MethodGet, "/v1/transfers/"+string(o.ID), ""); status != http.StatusOK {
		t.Errorf("asking with it: got %d, %+v", status, p)
	}
	if status, p := n.ask(n.http(atSouth), http.MethodPost, "/v1/agent/hello", "{}"); status != http.StatusForbidden || p.Code != problem.NotPermitted {
		t.Errorf("as an agent: got %d, %+v", status, p)
	}
	for name, leaf := range map[string]*certstest.Leaf{
		"north's authority": n.north.Issue(token.Subscriber, "x", alice), "a stranger's": certstest.New(t, "south").Issue(token.Subscriber, "x", alice),
		"the same authority, another subject": n.south.Issue(token.Subscriber, "x", certstest.Plain(pkix.Name{CommonName: "alice"})),
	} {
		if status, p := n.ask(n.http(leaf), http.MethodGet, "/v1/transfers/"+string(o.ID), ""); status < 400 || p.Code != problem.CertMisused && p.Code != problem.CertUnknown {
			t.Errorf("%s: got %d, %s", name, status, p.Code)
		}
		_, forged := n.order(atNorth, leaf)
		if _, err := n.client(atNorth).Submit(t.Context(), forged); problem.Of(err) != problem.CertMisused && problem.Of(err) != problem.CertUnknown {
			t.Errorf("an order signed by %s: got %v", name, err)
		}
	}
}
