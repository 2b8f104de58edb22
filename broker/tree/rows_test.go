package tree_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestStoredOwnsNoContainer: who stores an object in a container of others owns the object, and not the container that gets a row by that.
func TestStoredOwnsNoContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stored(bob, "north:/c/a/b/x", "north:/c/a/y")
	if _, err := w.decide(bob, "north:/c/a/b/x", acl.AllPerms); err != nil {
		t.Errorf("its own object: %v", err)
	}
	for _, address := range []string{"north:/c/", "north:/c/a/", "north:/c/a/b/"} {
		s := w.spot(address)
		if !s.Known || s.Owner() != "" {
			t.Errorf("%s: known %t, owner %q", address, s.Known, s.Owner())
		}
		_, err := w.decide(bob, address, acl.WriteACL)
		refused(t, err, problem.NotPermitted)
	}
	if _, err := w.decide(bob, "north:/c/a/of-others", acl.WriteACL); problem.Of(err) != problem.NotPermitted {
		t.Errorf("what was there before: got %v", err)
	}
	if id := w.spot("north:/c/a/b/x").Node.ID; !id.Intact() {
		t.Errorf("the identifier %s is not right", id)
	}
}

// TestStoredAgain: the same changes nothing, other bytes under the same name are a new version of the same object.
func TestStoredAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, _ := at(t, "north:/c/x")
	store := func(o tree.StoredObject) db.Node {
		o.At = l
		w.write(func(ctx context.Context, tx *db.Tx) error {
			return w.tree.Stored(ctx, tx, []tree.StoredObject{o}, w.now)
		})
		w.now = w.now.Add(time.Second)
		return w.spot("north:/c/x").Node
	}
	o := tree.StoredObject{Owner: bob, Size: 5, Digest: "blake3:1", Version: "v1", Xfr: "x", Bat: 1, Item: 3, HashKind: space.SHA256, Hash: "AB", Native: "etag",
		User: space.Metadata{"color": `"red"`}}
	first := store(o)
	if first.Owner != acl.Who(bob) || first.Size != 5 || first.User != `{"color":"red"}` || first.Changes != 0 || first.Accesses != 0 || first.Created != first.Modified ||
		first.Created != first.Accessed || first.Hash != "AB" || first.Item != 3 {
		t.Errorf("got %+v", first)
	}
	if again := store(o); again != first {
		t.Errorf("the same again: got %+v", again)
	}
	o.Owner, o.Size, o.Digest, o.Version, o.Xfr = alice, 7, "blake3:2", "v2", "y"
	second := store(o)
	if second.ID != first.ID || second.Owner != acl.Who(bob) || second.Size != 7 || second.Changes != 1 || second.Rev != 2 || second.User != first.User || !second.Modified.After(first.Modified) {
		t.Errorf("other bytes: got %+v", second)
	}
	if root := w.spot("north:/c/").Node; root.Size != 7 || root.Objects != 1 {
		t.Errorf("the container: got %d bytes, %d objects", root.Size, root.Objects)
	}
	for i := range int64(40) {
		o.Size = 100 + i
		store(o)
	}
	w.read(func(ctx context.Context, tx *db.Tx) error {
		vs, err := tx.Versions(ctx, first.ID)
		if len(vs) != 16 || vs[0].Size != 138 || vs[15].Size != 123 {
			t.Errorf("got %d versions, %+v", len(vs), vs)
		}
		return err
	})
}

// TestUserMetadataThatCameAlong is kept if it is such, and within the limits: nothing that an agent says becomes what the system alone writes.
func TestUserMetadataThatCameAlong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tree = newTree(t, tree.Config{Limits: space.UserLimits{Items: 1}})
	for user, want := range map[string]string{`{"a":"b"}`: `{"a":"b"}`, `{"cdmi_owner":"x"}`: "", `{"a":1}`: "", `{"a":"b","c":"d"}`: "", `{}`: ""} {
		o := tree.StoredObject{At: token.Location{Provider: "north", Container: "c", Name: "x"}, User: items(t, user), Xfr: "x"}
		err := w.d.Write(t.Context(), func(tx *db.Tx) error {
			if err := w.tree.Stored(t.Context(), tx, []tree.StoredObject{o}, w.now); err != nil {
				return err
			}
			s, err := w.tree.Spot(t.Context(), tx, o.At, acl.Object)
			if s.Node.User != want {
				t.Errorf("%s: got %s", user, s.Node.User)
			}
			return errors.Join(err, errUndone)
		})
		if !errors.Is(err, errUndone) {
			t.Fatal(err)
		}
	}
}

// TestWhatBelongsToSomebodyElseIsJudgedAnew: a place that had a row and gets an owner is a change of what was decided; a new object is not.
func TestWhatBelongsToSomebodyElseIsJudgedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice)
	w.must(w.apply(alice, "north:/c/seen", set(t, `{"color":"red"}`), ""))
	gen := w.gen("north")
	store := func(name token.ObjectName, o tree.StoredObject) {
		o.At = token.Location{Provider: "north", Container: "c", Name: name}
		w.write(func(ctx context.Context, tx *db.Tx) error {
			return w.tree.Stored(ctx, tx, []tree.StoredObject{o}, w.now)
		})
	}
	store("new", tree.StoredObject{Owner: bob, Xfr: "x"})
	if w.gen("north") != gen {
		t.Error("the generation grew with what changes nobody's rights")
	}
	store("seen", tree.StoredObject{Owner: bob, Xfr: "x"})
	if w.gen("north") == gen {
		t.Error("the generation did not grow with an owner of what had none")
	}
}

// TestMetadataBeforeTheObject: what was said of a name before the object came is kept, and its size counts from then on.
func TestMetadataBeforeTheObject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", rita)
	was := w.must(w.apply(rita, "north:/c/x", set(t, `{"color":"red","cdmi_acl":[]}`), ""))
	w.must(w.apply(rita, "north:/c/y", set(t, `{"cdmi_acl":[]}`), ""))
	w.stored(bob, "north:/c/x")
	l, _ := at(t, "north:/c/y")
	w.write(func(ctx context.Context, tx *db.Tx) error {
		return w.tree.Stored(ctx, tx, []tree.StoredObject{{At: l, Owner: bob, Xfr: "x", User: space.Metadata{"color": `"blue"`}}}, w.now)
	})
	if y := w.spot("north:/c/y").Node; y.User != `{"color":"blue"}` || y.ACL != "[]" {
		t.Errorf("metadata that came along where there were none: got %+v", y)
	}
	is := w.spot("north:/c/x")
	if is.Node.ID != was.Node.ID || is.Node.ACL != "[]" || is.Node.User != was.Node.User || is.Node.Size != 10 || is.Owner() != acl.Who(bob) {
		t.Errorf("got %+v", is.Node)
	}
	if root := w.spot("north:/c/").Node; root.Size != 10 || root.Objects != 2 {
		t.Errorf("the container: got %d bytes, %d objects", root.Size, root.Objects)
	}
}

// TestNamesOfTwoSpellings: no row is made that another spelling of its name would not find.
func TestNamesOfTwoSpellings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", rita)
	for _, bad := range []token.Location{
		{Provider: "north", Container: "c", Name: "a/"}, {Provider: "north", Container: "c", Name: "a//b"}, {Provider: "north", Container: "c", Name: "../b"},
		{Provider: "north", Container: "c", Name: "/"}, {Provider: "north", Container: "c", Name: "e\u0301"}, {Provider: "north", Container: "c/d", Name: "a"},
		{Provider: "North", Container: "c", Name: "a"},
	} {
		for what, try := range map[string]func(context.Context, *db.Tx) error{
			"make": func(ctx context.Context, tx *db.Tx) error {
				_, err := w.tree.Make(ctx, tx, alice, bad, acl.Container, w.now)
				return err
			},
			"store": func(ctx context.Context, tx *db.Tx) error {
				return w.tree.Stored(ctx, tx, []tree.StoredObject{{At: bad, Owner: alice, Xfr: "x"}}, w.now)
			},
			"adopt": func(ctx context.Context, tx *db.Tx) error {
				_, _, err := w.tree.Adopt(ctx, tx, tree.Adoption{Owner: alice}, bad, []tree.Found{{Name: bad.Name}}, w.now)
				return err
			},
		} {
			if err := w.d.Write(t.Context(), func(tx *db.Tx) error { return try(t.Context(), tx) }); problem.Of(err) != problem.BadName {
				t.Errorf("%s %q in %q of %q: got %v", what, bad.Name, bad.Container, bad.Provider, err)
			}
		}
	}
}

// TestMakeIsNoTaking: making what has a row already gives nobody anything.
func TestMakeIsNoTaking(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/a/", alice)
	w.make("north:/c/a/", bob)
	if s := w.spot("north:/c/a/"); s.Owner() != acl.Who(alice) {
		t.Errorf("got the owner %q", s.Owner())
	}
	w.stored("", "north:/c/b/x")
	w.make("north:/c/b/", bob)
	if s := w.spot("north:/c/b/"); s.Owner() != "" {
		t.Errorf("got the owner %q", s.Owner())
	}
}

// TestOwnRoot: what an agent says of an owner counts while there is none.
func TestOwnRoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	l, _ := at(t, "north:/c/")
	own := func(id token.Identity) (done bool, err error) {
		_ = w.d.Write(t.Context(), func(tx *db.Tx) error {
			done, err = w.tree.OwnRoot(t.Context(), tx, l, id, w.now)
			return err
		})
		return done, err
	}
	for _, bad := range []token.Identity{"EVERYONE@", "alice", "", "spiffe://north/broker/b"} {
		if _, err := own(bad); problem.Of(err) != problem.Malformed {
			t.Errorf("%q: got %v", bad, err)
		}
	}
	gen := w.gen("north")
	if done, err := own(alice); !done || err != nil || w.gen("north") == gen {
		t.Errorf("the first: got %t, %v", done, err)
	}
	gen = w.gen("north")
	for _, id := range []token.Identity{bob, alice} {
		if done, err := own(id); done || err != nil || w.gen("north") != gen {
			t.Errorf("a later one: got %t, %v", done, err)
		}
	}
	if s := w.spot("north:/c/"); s.Owner() != acl.Who(alice) {
		t.Errorf("got the owner %q", s.Owner())
	}
}

// TestRemove: what is gone leaves no row, no version and no bytes, and what is made there later is another.
func TestRemove(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stored(bob, "north:/c/a/x", "north:/c/a/b/y", "north:/c/ab", "north:/c/a0")
	w.make("north:/c/a", alice) // an object of the container's name
	was := w.spot("north:/c/a/x").Node.ID
	remove := func(address string) (done bool) {
		l, k := at(t, address)
		w.write(func(ctx context.Context, tx *db.Tx) (err error) {
			done, err = w.tree.Remove(ctx, tx, l, k)
			return err
		})
		return done
	}
	if !remove("north:/c/a/x") || remove("north:/c/a/x") || remove("north:/c/none/") {
		t.Error("removed what is not there, or did not remove what is")
	}
	if a, root := w.spot("north:/c/a/").Node, w.spot("north:/c/").Node; a.Size != 10 || a.Objects != 1 || root.Size != 30 || root.Objects != 3 {
		t.Errorf("got %+v, %+v", a, root)
	}
	w.stored(bob, "north:/c/a/x")
	if id := w.spot("north:/c/a/x").Node.ID; id == was {
		t.Error("another object has the identifier of the one that is gone")
	}
	if !remove("north:/c/a/") {
		t.Error("the container was not removed")
	}
	for address, known := range map[string]bool{"north:/c/a/": false, "north:/c/a/x": false, "north:/c/a/b/": false, "north:/c/a/b/y": false, "north:/c/ab": true,
		"north:/c/a0": true, "north:/c/a": true, "north:/c/": true} {
		if s := w.spot(address); s.Known != known {
			t.Errorf("%s: known %t, want %t", address, s.Known, known)
		}
	}
	if root := w.spot("north:/c/").Node; root.Size != 20 || root.Objects != 2 {
		t.Errorf("got %+v", root)
	}
}

// TestTotals: after any sequence of what changes rows, a container's totals are the sums of what is below, and whatever has a row has rows above it.
func TestTotals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	place := func() token.Location {
		l := token.Location{Provider: "north", Container: "c"}
		for range 1 + r.IntN(4) {
			l.Name += token.ObjectName("/" + string(rune('a'+r.IntN(3))))
		}
		l.Name = l.Name[1:]
		return l
	}
	w.make("north:/c/", rita)
	err := w.d.Write(t.Context(), func(tx *db.Tx) error {
		ctx := t.Context()
		rita := attempt(w.principalIn(ctx, tx, rita))
		steps := 300
		if testing.Short() {
			steps = 25
		}
		for n := range steps {
			var err error
			switch r.IntN(5) {
			case 0, 1:
				var objects []tree.StoredObject
				for range 1 + r.IntN(6) {
					objects = append(objects, tree.StoredObject{At: place(), Owner: alice, Size: int64(r.IntN(100)), Version: token.Version(fmt.Sprint(r.IntN(3))), Xfr: "x"})
				}
				err = w.tree.Stored(ctx, tx, objects, w.now)
			case 2:
				_, err = w.tree.Make(ctx, tx, bob, place(), acl.Kind(r.IntN(2)), w.now)
			case 3:
				_, err = w.tree.Remove(ctx, tx, place(), acl.Kind(r.IntN(2)))
			case 4:
				c := set(t, `{"n":"`+fmt.Sprint(n)+`"}`)
				c.At, c.Kind = place(), acl.Kind(r.IntN(2))
				_, err = w.tree.Apply(ctx, tx, rita, c, w.now)
				if problem.Of(err) == problem.NotPermitted {
					err = nil // it is somebody else's
				}
			}
			if err != nil {
				return err
			}
			if err := w.audit(ctx, tx, token.Location{Provider: "north", Container: "c"}); err != nil {
				return fmt.Errorf("after step %d: %w", n, err)
			}
		}
		return errUndone
	})
	if err != errUndone { //nolint:errorlint // nothing wraps it
		t.Fatal(err)
	}
}

// audit looks over all rows of a root container.
func (w *world) audit(ctx context.Context, tx *db.Tx, root token.Location) error {
	all, err := tx.NodesBelow(ctx, root, "", acl.Object, 10_000)
	if err != nil {
		return err
	}
	known := map[token.ObjectName]bool{}
	for _, n := range all {
		if n.Kind == acl.Container {
			known[n.Name] = true
		}
	}
	rows, err := tx.Nodes(ctx, root.Provider, root.Container, []token.ObjectName{""})
	if err != nil || len(all) > 0 && len(rows) != 1 {
		return fmt.Errorf("rows but no root: %w", err)
	}
	for _, n := range append(all, rows...) {
		up := n.Name
		if i := len(up) - 2; i > 0 {
			if up = up[:i]; !known[up] {
				return fmt.Errorf("%s has no row above it", n.Name)
			}
		}
		if n.Kind != acl.Container {
			continue
		}
		objects, bytes, err := tx.HeldBelow(ctx, n.At())
		if err != nil || n.Objects != objects || n.Size != bytes {
			return fmt.Errorf("%s has %d objects of %d bytes, and says %d of %d: %w", n.At(), objects, bytes, n.Objects, n.Size, err)
		}
	}
	return nil
}

// TestACrashLeavesWholeChanges: after the process has ended anywhere, what was committed is there, whole, and nothing else is.
func TestACrashLeavesWholeChanges(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "broker.sqlite")
	if err := db.Create(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, tree: newTree(t, tree.Config{}), now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	root := token.Location{Provider: "north", Container: "c"}
	for n := range 3 {
		var err error
		if w.d, err = db.Open(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		w.read(func(ctx context.Context, tx *db.Tx) error {
			objects, bytes, err := tx.HeldBelow(ctx, root)
			if objects != int64(2*n) || bytes != int64(20*n) {
				t.Errorf("after %d crashes: %d objects of %d bytes", n, objects, bytes)
			}
			return errors.Join(err, w.audit(ctx, tx, root))
		})
		w.stored(alice, fmt.Sprintf("north:/c/%d/x", n), fmt.Sprintf("north:/c/%d/y", n))
		ctx, crash := context.WithCancel(t.Context())
		err = w.d.Write(ctx, func(tx *db.Tx) error {
			at := root
			at.Name = token.ObjectName(fmt.Sprintf("%d/lost", n))
			if err := w.tree.Stored(ctx, tx, []tree.StoredObject{{At: at, Size: 1000, Xfr: "x"}}, w.now); err != nil {
				return err
			}
			_, err := w.tree.Remove(ctx, tx, token.Location{Provider: "north", Container: "c", Name: "0"}, acl.Container)
			crash() // before it is committed
			return err
		})
		if err == nil {
			t.Fatal("it was committed")
		}
		if err := w.d.Abandon(); err != nil {
			t.Fatal(err)
		}
	}
}
