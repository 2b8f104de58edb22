package tree_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, conf := range map[string]tree.Config{
		"no identity":       {Administrators: []token.Identity{"rita"}},
		"an agent":          {Administrators: []token.Identity{"spiffe://north/agent/a"}},
		"enterprise number": {Enterprise: 1 << 24},
		"a negative limit":  {Limits: space.UserLimits{Items: -1}},
	} {
		if _, err := tree.New(conf); problem.Of(err) != problem.BadConfig {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestForeignAdministrator: an administrator of one provider is nothing more than others at another, whoever sets up the broker.
func TestForeignAdministrator(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if p := w.principal(rita, "north"); p.Status != acl.Administrating || !slices.Equal(p.Groups, []acl.Who{"subscribers"}) {
		t.Errorf("at home: got %+v", p)
	}
	if p := w.principal(sven, "north"); p.Status != acl.Ordinary || len(p.Groups) != 0 {
		t.Errorf("elsewhere: got %+v", p)
	}
	if p := w.principal("", "north"); p.Name != "" || p.Status != acl.Ordinary || len(p.Groups) != 0 {
		t.Errorf("anonymous: got %+v", p)
	}
	if got := w.tree.Administrators("north"); !slices.Equal(got, []token.Identity{rita}) {
		t.Errorf("got %v", got)
	}
	if _, err := w.decide(sven, "north:/c/", acl.WriteACL); problem.Of(err) != problem.Hidden {
		t.Errorf("a foreign administrator at a root: got %v", err)
	}
}

// members changes a group in a transaction of its own.
func (w *world) members(who token.Identity, group acl.Who, ids ...token.Identity) (n int, err error) {
	w.t.Helper()
	p := w.principal(who, "north")
	_ = w.d.Write(w.t.Context(), func(tx *db.Tx) error {
		n, err = w.tree.AddMembers(w.t.Context(), tx, p, tree.Group{At: "north", Name: group}, ids, w.now)
		return err
	})
	return n, err
}

func TestGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.gen("north")
	if n, err := w.members(rita, "eng", bob, carol, bob); n != 2 || err != nil {
		t.Fatalf("got %d, %v", n, err)
	}
	if w.gen("north") == before {
		t.Error("the generation did not grow")
	}
	w.make("north:/c/", alice, "ALLOW eng IDENTIFIER_GROUP,OBJECT_INHERIT READ_OBJECT;ALLOW spiffe://north/subscriber/eng OBJECT_INHERIT WRITE_OBJECT")
	for _, who := range []token.Identity{bob, carol} {
		if _, err := w.decide(who, "north:/c/x", acl.ReadObject); err != nil {
			t.Errorf("%s: %v", who, err)
		}
	}
	if _, err := w.decide(sven, "north:/c/x", acl.ReadObject); problem.Of(err) != problem.Hidden {
		t.Errorf("who is no member: got %v", err)
	}
	w.make("south:/c/", sven, "ALLOW eng IDENTIFIER_GROUP,OBJECT_INHERIT READ_OBJECT")
	if _, err := w.decide(bob, "south:/c/x", acl.ReadObject); problem.Of(err) != problem.Hidden {
		t.Errorf("a group of one provider at another: got %v", err)
	}
	w.write(func(ctx context.Context, tx *db.Tx) error {
		n, err := w.tree.RemoveMembers(ctx, tx, w.principalIn(ctx, tx, rita), tree.Group{At: "north", Name: "eng"}, []token.Identity{bob, alice})
		if n != 1 {
			t.Errorf("removed %d", n)
		}
		return err
	})
	if _, err := w.decide(bob, "north:/c/x", acl.ReadObject); problem.Of(err) != problem.Hidden {
		t.Errorf("who was taken out: got %v", err)
	}
}

func (w *world) principalIn(ctx context.Context, tx *db.Tx, who token.Identity) acl.Principal {
	w.t.Helper()
	p, err := w.tree.Principal(ctx, tx, who, "north")
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// TestNobodyMakesAGroupTheirs: groups are for administrators of the provider, and nobody joins the group that is said by what its members are.
func TestNobodyMakesAGroupTheirs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, who := range []token.Identity{alice, carol, sven, ""} {
		_, err := w.members(who, "eng", alice)
		refused(t, err, problem.NotPermitted, "no administrator of the provider north")
	}
	for _, group := range []acl.Who{tree.Subscribers, "", "a b", "OWNER@", "EVERYONE@", "a/b", "ä"} {
		if _, err := w.members(rita, group, alice); problem.Of(err) != problem.Malformed {
			t.Errorf("the group %q: got %v", group, err)
		}
	}
	if _, err := w.members(rita, "eng", "alice"); problem.Of(err) != problem.Malformed {
		t.Errorf("a member that is no identity: got %v", err)
	}
	if _, err := w.members(rita, "eng"); problem.Of(err) != problem.Malformed {
		t.Errorf("no member: got %v", err)
	}
}

// TestWhoSeesGroups: a stranger cannot tell a group that it is not in from one that does not exist.
func TestWhoSeesGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, m := range []struct {
		group acl.Who
		id    token.Identity
	}{{"eng", bob}, {"eng", alice}, {"ops", carol}} {
		if _, err := w.members(rita, m.group, m.id); err != nil {
			t.Fatal(err)
		}
	}
	w.read(func(ctx context.Context, tx *db.Tx) error {
		for who, want := range map[token.Identity]string{rita: "[{eng 2} {ops 1}]", bob: "[{eng 2}]", sven: "[]"} {
			p, err := w.tree.Principal(ctx, tx, who, "north")
			if err != nil {
				return err
			}
			gs, err := w.tree.Groups(ctx, tx, p, "north")
			if err != nil || fmt.Sprint(gs) != want {
				t.Errorf("%s: got %v, %v, want %s", who, gs, err, want)
			}
		}
		members := func(who token.Identity, g acl.Who) ([]token.Identity, error) {
			return w.tree.Members(ctx, tx, w.principalIn(ctx, tx, who), tree.Group{At: "north", Name: g}, "", 10)
		}
		if got, err := members(bob, "eng"); err != nil || !slices.Equal(got, []token.Identity{alice, bob}) {
			t.Errorf("a member: got %v, %v", got, err)
		}
		if got, err := members(rita, "ops"); err != nil || !slices.Equal(got, []token.Identity{carol}) {
			t.Errorf("an administrator: got %v, %v", got, err)
		}
		for _, g := range []acl.Who{"ops", "none", tree.Subscribers} {
			_, err := members(bob, g)
			refused(t, err, problem.Hidden, string(g))
		}
		return nil
	})
}

// TestBegin: a change of the administrators in the configuration lets what was judged before be judged again, and no start without one does.
func TestBegin(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	begin := func(tr *tree.Tree) {
		w.write(func(ctx context.Context, tx *db.Tx) error { return tr.Begin(ctx, tx) })
	}
	begin(w.tree)
	north, south := w.gen("north"), w.gen("south")
	begin(newTree(t, tree.Config{Administrators: []token.Identity{sven, rita, sven}}))
	if w.gen("north") != north || w.gen("south") != south {
		t.Error("the same administrators in other words: the generation grew")
	}
	begin(newTree(t, tree.Config{Administrators: []token.Identity{sven}}))
	if w.gen("north") == north {
		t.Error("an administrator less: the generation did not grow")
	}
}
