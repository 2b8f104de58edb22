package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestGroupsAreTheAdministrators: nobody else changes a group, not even an administrator of another provider; and a member gains and loses by it at once.
func TestGroupsAreTheAdministrators(t *testing.T) {
	t.Parallel()
	w, dave, alice, bob, eve := ruled(t)
	foreign := person{w, peerOf(w.subscriber(w.south, "dave"))}
	change := func(p person, at token.Provider, group string, c api.GroupChange) (api.GroupChanged, error) {
		return w.b.ChangeGroup(t.Context(), p.peer, at, group, c, w.now)
	}
	both := api.GroupChange{Add: []token.Identity{alice.id(), foreign.id()}}
	for _, p := range []person{alice, foreign} {
		if _, err := change(p, "north", "staff", both); problem.Of(err) != problem.NotPermitted {
			t.Errorf("%s changes a group of north: got %v, want %s", p.id(), err, problem.NotPermitted)
		}
		if err := w.b.RemoveGroup(t.Context(), p.peer, "north", "staff", w.now); problem.Of(err) != problem.Hidden {
			t.Errorf("%s removes a group of north: got %v, want %s", p.id(), err, problem.Hidden)
		}
	}
	if _, err := change(dave, "south", "staff", both); problem.Of(err) != problem.NotPermitted {
		t.Errorf("north's administrator changes a group of south: got %v, want %s", err, problem.NotPermitted)
	}
	if got, err := change(dave, "north", "staff", both); err != nil || got.Added != 2 {
		t.Fatalf("dave makes a group: got %+v, %v", got, err)
	}
	if got, err := change(dave, "north", "staff", both); err != nil || got.Added != 0 {
		t.Errorf("the same again: got %+v, %v", got, err)
	}
	dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id()), ACL: list("ALLOW staff IDENTIFIER_GROUP,OBJECT_INHERIT READ")})
	if _, err := alice.node("north:/src/a"); err != nil {
		t.Errorf("a member: %v", err)
	}
	if _, err := foreign.node("north:/src/a"); err != nil {
		t.Errorf("a member of another provider: %v", err)
	}
	if _, err := bob.node("north:/src/a"); problem.Of(err) != problem.Hidden {
		t.Errorf("no member: got %v", err)
	}
	if got, err := change(dave, "north", "staff", api.GroupChange{Add: []token.Identity{bob.id()}, Remove: []token.Identity{alice.id(), eve.id()}}); err != nil || got.Added != 1 || got.Removed != 1 {
		t.Errorf("changing members: got %+v, %v", got, err)
	}
	if _, err := alice.node("north:/src/a"); problem.Of(err) != problem.Hidden {
		t.Errorf("a member no more: got %v", err)
	}
	for name, bad := range map[string]struct {
		group string
		c     api.GroupChange
	}{
		"reserved": {"subscribers", both}, "special": {"ADMINUSERS@", both}, "a bad name": {"a/b", both}, "nobody": {"staff", api.GroupChange{}},
		"no identity": {"staff", api.GroupChange{Add: []token.Identity{"alice"}}}, "in and out": {"staff", api.GroupChange{Add: both.Add, Remove: both.Add}},
		"too many": {"staff", api.GroupChange{Add: slices.Repeat(both.Add, 600)}},
	} {
		if _, err := change(dave, "north", bad.group, bad.c); problem.Of(err) != problem.Malformed {
			t.Errorf("%s: got %v, want %s", name, err, problem.Malformed)
		}
	}
	leaves := strings.Join(w.leavesOf(db.GroupLeaf), "\n")
	want := strings.Join([]string{
		`{"added":["spiffe://north/subscriber/alice","spiffe://south/subscriber/dave"],"by":"spiffe://north/subscriber/dave","group":"staff","provider":"north"}`,
		`{"added":["spiffe://north/subscriber/bob"],"by":"spiffe://north/subscriber/dave","group":"staff","provider":"north"}`,
		`{"by":"spiffe://north/subscriber/dave","group":"staff","provider":"north","removed":["spiffe://north/subscriber/alice"]}`,
	}, "\n")
	if leaves != want {
		t.Errorf("got the leaves\n%s\nwant\n%s", leaves, want)
	}
}

// TestGroupsAreShownToWhomTheyConcern: administrators see all groups, members their own, and every subscriber of a provider who administrates it.
func TestGroupsAreShownToWhomTheyConcern(t *testing.T) {
	t.Parallel()
	w, dave, alice, bob, _ := ruled(t)
	foreign := person{w, peerOf(w.subscriber(w.south, "dave"))}
	var many []token.Identity
	for i := range 200 {
		many = append(many, token.NewIdentity("south", token.Subscriber, fmt.Sprintf("p%03d", i)))
	}
	for group, ids := range map[string][]token.Identity{"staff": {alice.id()}, "crowd": many} {
		if _, err := w.b.ChangeGroup(t.Context(), dave.peer, "north", group, api.GroupChange{Add: ids}, w.now); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		p    person
		want string
	}{
		"an administrator": {dave, "ADMINUSERS@:1 subscribers:0 crowd:200 staff:1"}, "a member": {alice, "ADMINUSERS@:1 subscribers:0 staff:1"},
		"another": {bob, "ADMINUSERS@:1 subscribers:0"}, "a stranger": {foreign, ""},
	} {
		page, err := w.b.Groups(t.Context(), tt.p.peer, "north")
		var got []string
		for _, g := range page.Items {
			got = append(got, fmt.Sprintf("%s:%d", g.Name, g.Count))
		}
		if s := strings.Join(got, " "); err != nil || s != tt.want {
			t.Errorf("%s sees %q, %v, want %q", name, s, err, tt.want)
		}
	}
	members := func(p person, group string) (int, problem.Code) {
		page, err := w.b.Members(t.Context(), p.peer, "north", group, "")
		if err == nil {
			return len(page.Items), ""
		}
		return len(page.Items), problem.Of(err)
	}
	for _, tt := range []struct {
		p     person
		group string
		n     int
		code  problem.Code
	}{
		{dave, "crowd", 200, ""}, {alice, "staff", 1, ""}, {alice, "crowd", 0, problem.Hidden}, {bob, "staff", 0, problem.Hidden}, {bob, "none", 0, problem.Hidden},
		{bob, "ADMINUSERS@", 1, ""}, {foreign, "ADMINUSERS@", 0, problem.Hidden}, {foreign, "subscribers", 0, problem.Hidden}, {bob, "subscribers", 0, problem.Malformed},
	} {
		if n, code := members(tt.p, tt.group); n != tt.n || code != tt.code {
			t.Errorf("%s asks for %s: got %d members and %q, want %d and %q", tt.p.id(), tt.group, n, code, tt.n, tt.code)
		}
	}
	if err := w.b.RemoveGroup(t.Context(), dave.peer, "north", "crowd", w.now); err != nil {
		t.Fatal(err)
	}
	if n, code := members(dave, "crowd"); n != 0 || code != problem.Hidden {
		t.Errorf("a group that was removed has %d members and %q", n, code)
	}
	if got := len(w.leavesOf(db.GroupLeaf)); got != 1+4+4 {
		t.Errorf("got %d leaves, want one for 64 members", got)
	}
}
