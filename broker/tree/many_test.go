package tree_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// dice makes random trees. Few names and few bits, so that entries meet.
type dice struct{ *rand.Rand }

func one[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

// A naiveRow is a row as the test knows it.
type naiveRow struct {
	owner acl.Who
	list  *acl.ACL
}

type naiveKey struct {
	name string
	kind acl.Kind
}

func (d dice) list(tb testing.TB) acl.ACL {
	tb.Helper()
	entries := make([]acl.ACE, d.IntN(4))
	for i := range entries {
		e := &entries[i]
		e.Type = one(d, acl.Allow, acl.Allow, acl.Allow, acl.Deny, acl.Audit)
		e.Who = one(d, acl.Who(alice), acl.Who(bob), acl.Who(carol), "eng", "subscribers", "OWNER@", "EVERYONE@", "AUTHENTICATED@", "ADMINISTRATOR@")
		e.Mask = one(d, acl.ReadObject, acl.ReadMetadata, acl.ReadObject|acl.WriteMetadata, acl.ReadACL, acl.ReadAttributes|acl.ReadACL, acl.AllPerms)
		e.Flags = one(d, 0, acl.ObjectInherit, acl.ContainerInherit, acl.ObjectInherit|acl.ContainerInherit, acl.ObjectInherit|acl.ContainerInherit)
		if d.IntN(5) == 0 {
			e.Flags |= acl.NoPropagate
		}
		if d.IntN(5) == 0 {
			e.Flags |= acl.InheritOnly
		}
		if e.Who == "eng" || e.Who == "subscribers" {
			e.Flags |= acl.IdentifierGroup
		}
	}
	a, err := acl.New(entries...)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// tree makes rows below a root container for some of all names of up to four segments, and returns them and the names.
func (d dice) tree(tb testing.TB, tx *db.Tx, c token.Container) (map[naiveKey]naiveRow, []string) {
	tb.Helper()
	rows := map[naiveKey]naiveRow{}
	names := []string{""}
	for range 4 + d.IntN(12) {
		parts := make([]string, 1+d.IntN(4))
		for i := range parts {
			parts[i] = one(d, "a", "b", "a.b")
		}
		names = append(names, strings.Join(parts, "/"))
	}
	var all []string
	for _, n := range names {
		for {
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
			if n == "" {
				break
			}
			n = n[:max(strings.LastIndex(n, "/"), 0)]
		}
	}
	var nodes []db.Node
	for i, n := range all {
		for _, k := range []acl.Kind{acl.Object, acl.Container} {
			if n == "" && k == acl.Object || d.IntN(3) == 0 {
				continue
			}
			row := naiveRow{owner: one(d, "", "", acl.Who(alice), acl.Who(bob), acl.Who(carol))}
			node := db.Node{Provider: "north", Container: c, Name: token.ObjectName(n), Kind: k, ID: space.ObjectID(fmt.Sprintf("%s-%d-%d", c, i, k)), Owner: row.owner, Rev: 1}
			if d.IntN(2) == 0 {
				l := d.list(tb)
				row.list, node.ACL = &l, string(l.Marshal())
			}
			rows[naiveKey{n, k}] = row
			nodes = append(nodes, node)
		}
	}
	if err := tx.AddNodes(tb.Context(), nodes); err != nil {
		tb.Fatal(err)
	}
	return rows, all
}

// naiveTarget puts together what is asked for as the package's documentation says it, from the root down.
func naiveTarget(tb testing.TB, rows map[naiveKey]naiveRow, name string, k acl.Kind) acl.Target {
	tb.Helper()
	if name == "" {
		k = acl.Container
	}
	var parts []string
	if name != "" {
		parts = strings.Split(name, "/")
	}
	t := acl.Target{}
	owner := acl.Who("")
	for i := range len(parts) + 1 {
		here := naiveKey{strings.Join(parts[:i], "/"), acl.Container}
		if i == len(parts) {
			here.kind = k
		}
		row := rows[here]
		if row.owner != "" {
			owner = row.owner
		}
		t = acl.Target{Kind: here.kind, Path: append([]acl.Level{{Owner: owner}}, t.Path...)}
		switch {
		case row.list != nil:
			t.Path[0].ACL = *row.list
		case i == 0 && owner == "":
			t.Path[0].ACL = list(tb, "ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS;ALLOW subscribers IDENTIFIER_GROUP,OBJECT_INHERIT,CONTAINER_INHERIT 0x0002008F")
		case i == 0:
			t.Path[0].ACL = list(tb, "ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS;ALLOW AUTHENTICATED@ OBJECT_INHERIT,CONTAINER_INHERIT READ")
		case len(t.Logical()) == 0: // inherits nothing
			t.Path[0].ACL = list(tb, "ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS")
		}
	}
	return t
}

// TestAgreesWithTheRules compares, over random trees, what is decided about one place with acl.Evaluate of a list that is put together naively, and what
// is decided about many with what is decided about each.
func TestAgreesWithTheRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	trees := 100
	if testing.Short() {
		trees = 3
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	d := dice{rand.New(rand.NewPCG(seed, 0))}
	if _, err := w.members(rita, "eng", bob, carol); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	err := w.d.Write(t.Context(), func(tx *db.Tx) error {
		for n := range trees {
			c := token.Container(fmt.Sprintf("c%d", n))
			rows, names := d.tree(t, tx, c)
			for _, id := range []token.Identity{alice, bob, carol, rita, ""} {
				p := w.principalIn(t.Context(), tx, id)
				for _, k := range []acl.Kind{acl.Object, acl.Container} {
					want := one(d, acl.ReadObject, acl.ReadMetadata, acl.WriteMetadata|acl.ReadObject, acl.ReadACL, acl.Delete)
					forest{c, rows, names, seen}.agree(t.Context(), w, tx, ask{p, k, want})
				}
			}
			if t.Failed() {
				return fmt.Errorf("tree %d of seed %d", n, seed)
			}
		}
		return errUndone
	})
	if err != errUndone { //nolint:errorlint // nothing wraps it
		t.Fatal(err)
	}
	t.Logf("seen %v", seen)
	for _, what := range []string{"granted", string(problem.NotPermitted), string(problem.Hidden), "recorded"} {
		if seen[what] < trees {
			t.Errorf("%s came up %d times, too few to prove anything", what, seen[what])
		}
	}
}

// A forest is one random tree, and what came up in all of them.
type forest struct {
	c     token.Container
	rows  map[naiveKey]naiveRow
	names []string
	seen  map[string]int
}

// An ask is who asks for what.
type ask struct {
	p    acl.Principal
	k    acl.Kind
	want acl.Mask
}

// agree compares all ways to decide for one principal.
func (f forest) agree(ctx context.Context, w *world, tx *db.Tx, of ask) {
	w.t.Helper()
	c, rows, names, seen, p, k, want := f.c, f.rows, f.names, f.seen, of.p, of.k, of.want
	root := token.Location{Provider: "north", Container: c}
	var asked []token.ObjectName
	for _, n := range names {
		asked = append(asked, token.ObjectName(n))
	}
	many := attempt(p)
	refusals, err := w.tree.DecideMany(ctx, tx, many, tree.Page{At: root, Kind: k, Names: asked}, want)
	if err != nil {
		w.t.Fatal(err)
	}
	records := int64(0)
	for _, n := range names {
		at := root
		at.Name = token.ObjectName(n)
		s, err := w.tree.Spot(ctx, tx, at, k)
		if err != nil {
			w.t.Fatal(err)
		}
		a := attempt(p)
		trail := a.Trail
		got := w.tree.Decide(a, s, want)
		naive := naiveTarget(w.t, rows, n, k)
		should := acl.Evaluate(p, naive, want)
		if fmt.Sprint(s.Target) != fmt.Sprint(naive) || (got == nil) != should.Granted() || trail.Empty() == (should.Audited != 0 || should.Outcome.Recorded()) {
			w.t.Errorf("%s as %s for %s: got %v and %+v, want %+v\n%v\n%v", s.At, k, p.Name, got, trail.Records(), should, s.Target, naive)
		}
		if fmt.Sprint(refusals[at.Name]) != fmt.Sprint(got) {
			w.t.Errorf("%s as %s for %s: among many %v, alone %v", s.At, k, p.Name, refusals[at.Name], got)
		}
		if up, ok := s.Up(); ok {
			above, err := w.tree.Spot(ctx, tx, up.At, acl.Container)
			if err != nil || fmt.Sprint(up) != fmt.Sprint(above) {
				w.t.Errorf("above %s: got %+v, want %+v, %v", s.At, up, above, err)
			}
		}
		records += int64(len(trail.Records()))
		seen["recorded"] += len(trail.Records())
		if got == nil {
			seen["granted"]++
		} else {
			seen[string(problem.Of(got))]++
		}
	}
	counted := int64(0)
	for _, r := range many.Trail.Records() {
		counted += r.Items
		if r.Who != p.Name || r.Want != want || r.Op != "test" || r.First > r.Last || r.Place.Container != c {
			w.t.Errorf("got the record %+v", r)
		}
	}
	if counted != records {
		w.t.Errorf("the records count %d names, and alone there are %d", counted, records)
	}
}

// TestAPageTakesAHandfulOfQueries: for a thousand names in one container, or each in one of its own.
func TestAPageTakesAHandfulOfQueries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var flat, deep []token.ObjectName
	var objects []tree.StoredObject
	root := token.Location{Provider: "north", Container: "c"}
	n := 1000
	if testing.Short() {
		n = 200
	}
	for i := range n {
		flat = append(flat, token.ObjectName(fmt.Sprintf("dir/n%04d", i)))
		deep = append(deep, token.ObjectName(fmt.Sprintf("deep/d%04d/n", i)))
		at := root
		at.Name = flat[i]
		objects = append(objects, tree.StoredObject{At: at, Owner: alice, Size: 1, Version: "v", Xfr: "x"})
		at.Name = deep[i]
		objects = append(objects, tree.StoredObject{At: at, Owner: alice, Size: 1, Version: "v", Xfr: "x"})
	}
	w.make("north:/c/", rita, "AUDIT EVERYONE@ OBJECT_INHERIT,CONTAINER_INHERIT READ_OBJECT;ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS")
	w.write(func(ctx context.Context, tx *db.Tx) error { return w.tree.Stored(ctx, tx, objects, w.now) })
	for name, tt := range map[string]struct {
		names []token.ObjectName
		most  int
	}{"flat": {flat, 2}, "deep": {deep, 4}, "none": {nil, 1}} {
		w.read(func(ctx context.Context, tx *db.Tx) error {
			a := attempt(w.principalIn(ctx, tx, alice))
			before := tx.Ran()
			refusals, err := w.tree.DecideMany(ctx, tx, a, tree.Page{At: root, Names: tt.names}, acl.ReadObject)
			if n := tx.Ran() - before; n > tt.most {
				t.Errorf("%s: %d queries", name, n)
			}
			if len(refusals) != 0 {
				t.Errorf("%s: refused %v", name, refusals)
			}
			if r := a.Trail.Records(); len(tt.names) > 0 && (len(r) != 1 || r[0].Items != int64(n) || r[0].First != tt.names[0] || r[0].Last != tt.names[n-1] || r[0].Place != root) {
				t.Errorf("%s: got the records %+v", name, r)
			}
			before = tx.Ran()
			s, err2 := w.tree.Spot(ctx, tx, token.Location{Provider: "north", Container: "c", Name: "a/b/c/d/e/f/g"}, acl.Object)
			if n := tx.Ran() - before; n != 1 || err2 != nil || len(s.Target.Path) != 8 {
				t.Errorf("one place: %d queries, %v", n, err2)
			}
			return err
		})
	}
}

// TestSettingsInForce are those of the containers above, but for what a place says itself.
func TestSettingsInForce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice)
	w.must(w.apply(alice, "north:/c/", set(t, `{"cdmi_geographic_placement":["DE"],"cdmi_assignedsize":"100","cdmi_retention_id":"root"}`), ""))
	w.must(w.apply(alice, "north:/c/a/", set(t, `{"cdmi_retention_id":"a"}`), ""))
	s := w.spot("north:/c/a/b/x").Settings
	if s.RetentionTag != "a" || s.Placement.String() != w.spot("north:/c/").Settings.Placement.String() || s.Has(space.AssignedSize) {
		t.Errorf("got %+v", s)
	}
	up, _ := w.spot("north:/c/a/b/x").Up()
	if up.At.Name != "a/b" || up.Settings.RetentionTag != "a" || up.Known {
		t.Errorf("above: got %+v", up)
	}
	if root := w.spot("north:/c/"); !root.Settings.Has(space.AssignedSize) || !root.Target.Root() {
		t.Errorf("got %+v", root)
	}
	for address, kind := range map[string]acl.Kind{"north:/c/a": acl.Container, "north:/c/": acl.Container, "north:/c/none": acl.Object} {
		l, _ := at(t, address)
		w.read(func(ctx context.Context, tx *db.Tx) error {
			s, err := w.tree.Find(ctx, tx, l)
			if s.Kind != kind || s.Target.Kind != kind {
				t.Errorf("%s: got %s", address, s.Kind)
			}
			return err
		})
	}
	w.make("north:/c/a", alice)
	w.read(func(ctx context.Context, tx *db.Tx) error {
		s, err := w.tree.Find(ctx, tx, token.Location{Provider: "north", Container: "c", Name: "a"})
		if s.Kind != acl.Object || !s.Known {
			t.Errorf("an object and a container: got %s", s.Kind)
		}
		return err
	})
}

// TestADamagedRow is our failure, and whoever asks is told nothing of it.
func TestADamagedRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, spoil := range []func(*db.Node){
		func(n *db.Node) { n.ACL = `[{"acetype":"9"}]` }, func(n *db.Node) { n.Data = `{"cdmi_hold_id":"x"}` },
	} {
		err := w.d.Write(t.Context(), func(tx *db.Tx) error {
			ctx, root := t.Context(), token.Location{Provider: "north", Container: "c"}
			n, err := w.tree.Make(ctx, tx, alice, root, acl.Container, w.now)
			if err != nil {
				return err
			}
			spoil(&n)
			if err := tx.SaveNode(ctx, n); err != nil {
				return err
			}
			root.Name = "x"
			_, err = w.tree.Spot(ctx, tx, root, acl.Object)
			if problem.Of(err) != problem.Internal {
				t.Errorf("one: got %v", err)
			}
			if n.ACL != "" {
				if _, err := w.tree.DecideMany(ctx, tx, attempt(acl.Principal{}), tree.Page{At: root, Names: []token.ObjectName{"x"}}, acl.ReadObject); problem.Of(err) != problem.Internal {
					t.Errorf("many: got %v", err)
				}
			}
			return errUndone
		})
		if err != errUndone { //nolint:errorlint // nothing wraps it
			t.Fatal(err)
		}
	}
}
