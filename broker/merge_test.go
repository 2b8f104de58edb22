package broker

import (
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

// TestListingsHaveTheirRows: entries of a listing have what their rows say, each kind its own, for who may read it; and an agent cannot say it.
func TestListingsHaveTheirRows(t *testing.T) {
	t.Parallel()
	w, dave, alice, _, eve := ruled(t)
	w.stored("", "north:/src/a=x", "north:/src/b/c=yy", "north:/src/secret=x")
	dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id()), ACL: list("ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS",
		"ALLOW EVERYONE@ OBJECT_INHERIT,CONTAINER_INHERIT LIST_CONTAINER,READ_ATTRIBUTES",
		"ALLOW alice OBJECT_INHERIT,CONTAINER_INHERIT READ_METADATA")})
	dave.mustChange("north:/src/secret", api.NodeChange{ACL: list("DENY alice NO_FLAGS READ_METADATA")})
	forged := &api.NodeBrief{ID: "00", Owner: "spiffe://north/subscriber/eve", Digest: digest("zzz")}
	look := func(p person) map[token.ObjectName]*api.NodeBrief {
		t.Helper()
		es := []api.Entry{{Name: "a", Type: "object", Node: forged}, {Name: "b", Type: "container", Node: forged}, {Name: "b/c", Type: "object"}, {Name: "none", Type: "object", Node: forged},
			{Name: "secret", Type: "object", Node: forged}, {Name: "bad", Type: "object", Code: "denied", Node: forged}, {Name: "a", Type: "container", Node: forged}}
		o := w.order(func(o *token.Order) { o.Do, o.To, o.Accounts = token.List, token.Location{}, []token.Identity{p.id()} })
		w.must(w.b.merge(t.Context(), o, o.From, es, w.now))
		out := map[token.ObjectName]*api.NodeBrief{}
		for _, e := range es {
			name := e.Name
			if e.Type == "container" {
				name += "/"
			}
			out[name] = e.Node
		}
		return out
	}
	got := look(alice)
	if a, c := got["a"], got["b/c"]; a == nil || a.ID == "" || a.ID == "00" || a.Digest != digest("x") || c == nil || c.Digest != digest("yy") || got["b/"] == nil || got["b/"].Digest != "" {
		t.Errorf("alice sees %+v %+v %+v, want what the rows say", got["a"], got["b/c"], got["b/"])
	}
	for _, name := range []token.ObjectName{"none", "secret", "bad", "a/"} {
		if got[name] != nil {
			t.Errorf("alice sees %+v of %s", got[name], name)
		}
	}
	for name, n := range look(eve) {
		if n != nil {
			t.Errorf("eve sees %+v of %s, whose metadata she may not read", n, name)
		}
	}
}
