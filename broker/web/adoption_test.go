package web_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// listOrder is an order of a subscriber's to list north:/src.
func (n *net0) listOrder(l *certstest.Leaf, by token.Identity) api.SignedOrder {
	o, _ := n.order(l)
	o.Do, o.Scope, o.To, o.IfExists, o.From.Name, o.Accounts = token.List, token.Tree, token.Location{}, "", "", []token.Identity{by}
	return n.sign(o, l)
}

func TestAdoptionOverTheWire(t *testing.T) {
	t.Parallel()
	n := serveWith(t, tree.Config{Administrators: []token.Identity{"spiffe://north/subscriber/alice"}})
	alice, bob := n.north.Issue(token.Subscriber, "alice"), n.north.Issue(token.Subscriber, "bob")
	ask := api.AdoptionOrder{Order: n.listOrder(alice, "spiffe://north/subscriber/alice"), Metadata: map[string]json.RawMessage{"tags": json.RawMessage(`["a","b"]`)}}
	c := n.client(alice)
	a, err := c.Adopt(t.Context(), ask)
	if err != nil || a.State != api.Queued || a.Owner != "spiffe://north/subscriber/alice" || string(a.Metadata["tags"]) != `["a","b"]` {
		t.Fatalf("adopting: got %+v, %v", a, err)
	}
	if p, err := c.Adoptions(t.Context(), "", 10); err != nil || len(p.Items) != 1 || p.Items[0].ID != a.ID {
		t.Errorf("the list: got %+v, %v", p, err)
	}
	for name, call := range map[string]func(*api.Client) error{
		"show":   func(c *api.Client) error { _, err := c.Adoption(t.Context(), a.ID, 0, 0); return err },
		"cancel": func(c *api.Client) error { _, err := c.CancelAdoption(t.Context(), a.ID); return err },
	} {
		if err := call(n.client(bob)); problem.Of(err) != problem.Hidden {
			t.Errorf("%s of another's adoption: got %v, want %s", name, err, problem.Hidden)
		}
	}
	if _, err := n.client(bob).Adopt(t.Context(), api.AdoptionOrder{Order: n.listOrder(bob, "spiffe://north/subscriber/bob")}); problem.Of(err) != problem.NotPermitted {
		t.Errorf("of nobody's container by bob: got %v, want %s", err, problem.NotPermitted)
	}
	if a, err = c.CancelAdoption(t.Context(), a.ID); err != nil || a.State != api.Cancelled || a.Finished == nil {
		t.Errorf("cancelled: got %+v, %v", a, err)
	}
	for body, want := range map[string]problem.Code{
		`{"order":{"jws":[],"chains":[]},"sudo":1}`:                          problem.UnknownField,
		`{"order":{"jws":[],"chains":[]},"user_metadata":[]}`:                problem.Malformed,
		`{"order":{"jws":[],"chains":[]},"user_metadata":{"a":"1","a":"2"}}`: problem.Malformed,
		`{"order":{"jws":[],"chains":[]}}`:                                   problem.OrderUnsigned,
	} {
		if status, p := n.ask(n.http(alice), http.MethodPost, "/v1/adoptions", body); p.Code != want {
			t.Errorf("%s: got %d %s, want %s", body, status, p.Code, want)
		}
	}
	for name, metadata := range map[string]string{"the standard's": `{"cdmi_size":"1"}`, "a number": `{"a":1}`, "nothing": `{"a":null}`} {
		bad := api.AdoptionOrder{Order: n.listOrder(alice, "spiffe://north/subscriber/alice")}
		if err := json.Unmarshal([]byte(metadata), &bad.Metadata); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Adopt(t.Context(), bad); problem.Of(err) != problem.Malformed {
			t.Errorf("metadata of %s: got %v, want %s", name, err, problem.Malformed)
		}
	}
}
