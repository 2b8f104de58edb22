package tree_test

import (
	"context"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// adopt enters what was found in north:/c, owned by owner, and returns how many rows were made and changed.
func (w *world) adopt(owner token.Identity, found ...tree.Found) (made, changed int64) {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *db.Tx) (err error) {
		as := tree.Adoption{Owner: owner, User: items(w.t, `{"project":"apollo"}`)}
		made, changed, err = w.tree.Adopt(ctx, tx, as, token.Location{Provider: "north", Container: "c"}, found, w.now)
		return err
	})
	return made, changed
}

func object(name token.ObjectName, size int64, v token.Version) tree.Found {
	return tree.Found{Name: name, Kind: acl.Object, Size: size, Version: v, Native: "etag-" + string(v), Modified: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func TestAdoptMakesRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made, changed := w.adopt(bob, object("x/y/o", 7, "1"), tree.Found{Name: "x/y", Kind: acl.Container}, tree.Found{Name: "x", Kind: acl.Container}, object("x/p", 5, "1"))
	if made != 4 || changed != 0 {
		t.Errorf("got %d rows made and %d changed, want 4 and 0", made, changed)
	}
	o := w.spot("north:/c/x/y/o")
	if n := o.Node; !o.Known || n.Owner != acl.Who(bob) || n.Size != 7 || n.Version != "1" || n.Native != "etag-1" || n.User != `{"project":"apollo"}` ||
		n.Modified.Year() != 2020 || !n.Adopted.Equal(w.now) || n.Xfr != "" || n.ID == "" {
		t.Errorf("got the row %+v", n)
	}
	for address, want := range map[string]db.Node{
		"north:/c/x/y/": {Owner: acl.Who(bob), Objects: 1, Size: 7},
		"north:/c/x/":   {Owner: acl.Who(bob), Objects: 2, Size: 12},
		"north:/c/":     {Objects: 2, Size: 12}, // nobody's: a root container is not adopted
	} {
		if n := w.spot(address).Node; n.Owner != want.Owner || n.Objects != want.Objects || n.Size != want.Size || (n.User != "") != (want.Owner != "") {
			t.Errorf("%s: got %+v, want %+v", address, n, want)
		}
	}
}

func TestAdoptLeavesRowsThatAreThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.stored(alice, "north:/c/x/mine")
	w.make("north:/c/x/", alice, "ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS") // the row is there, and nobody's
	before := w.spot("north:/c/x/mine").Node
	made, changed := w.adopt(bob, tree.Found{Name: "x", Kind: acl.Container}, object("x/mine", 10, "v1"))
	if made != 0 || changed != 2 { // the container's owner, the native digest
		t.Errorf("got %d rows made and %d changed, want 0 and 2", made, changed)
	}
	n := w.spot("north:/c/x/mine").Node
	if n.Owner != before.Owner || n.ID != before.ID || n.Digest != before.Digest || n.Xfr != before.Xfr || n.User != before.User || n.ACL != before.ACL || n.Native != "etag-v1" {
		t.Errorf("got %+v, want %+v with a native digest", n, before)
	}
	if c := w.spot("north:/c/x/").Node; c.ACL == "" || c.User != "" || c.Owner != acl.Who(bob) {
		t.Errorf("got the container %+v, want its list, no metadata, and an owner, which it had not", c)
	}
	if made, changed := w.adopt(rita, tree.Found{Name: "x", Kind: acl.Container}, object("x/mine", 10, "v1")); made+changed != 0 {
		t.Errorf("the same again: got %d rows made and %d changed, want none", made, changed)
	}
}

func TestAdoptFollowsTheStore(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		found    tree.Found
		keeps    bool // digest and transfer
		versions int
		size     int64
	}{
		"unchanged":                   {object("o", 10, "v1"), true, 0, 10},
		"told of more precisely":      {object("o", 10, "v1-9"), true, 0, 10},
		"another version":             {object("o", 10, "v2"), false, 1, 10},
		"a version that begins alike": {object("o", 10, "v12"), false, 1, 10},
		"another size":                {object("o", 11, "v1"), false, 1, 11},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.stored(alice, "north:/c/o")
			was := w.spot("north:/c/o").Node
			w.now = w.now.Add(time.Hour)
			w.adopt(bob, tt.found)
			n := w.spot("north:/c/o").Node
			if n.Size != tt.size || n.Version != tt.found.Version || n.Owner != acl.Who(alice) || n.ID != was.ID {
				t.Errorf("got %+v", n)
			}
			if kept := n.Digest == was.Digest && n.Xfr == was.Xfr && n.Adopted.IsZero(); kept != tt.keeps {
				t.Errorf("digest and transfer kept: got %v (%+v), want %v", kept, n, tt.keeps)
			}
			var old []db.Node
			w.read(func(ctx context.Context, tx *db.Tx) (err error) {
				old, err = tx.Versions(ctx, n.ID)
				return err
			})
			if len(old) != tt.versions {
				t.Errorf("got %d earlier states, want %d", len(old), tt.versions)
			}
			if root := w.spot("north:/c/").Node; root.Objects != 1 || root.Size != tt.size {
				t.Errorf("the container holds %d objects, %d bytes; want 1 and %d", root.Objects, root.Size, tt.size)
			}
		})
	}
}

// TestAdoptFillsRowsOfMetadata finds an object that has metadata and of which nobody knew the size.
func TestAdoptFillsRowsOfMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/o", alice)
	if made, changed := w.adopt(bob, object("o", 3, "1")); made != 0 || changed != 1 {
		t.Errorf("got %d rows made and %d changed, want 0 and 1", made, changed)
	}
	if n, root := w.spot("north:/c/o").Node, w.spot("north:/c/").Node; n.Size != 3 || n.Owner != acl.Who(alice) || root.Objects != 1 || root.Size != 3 {
		t.Errorf("got %+v in %+v", n, root)
	}
}

func TestAdoptOfARootContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := w.d.Write(t.Context(), func(tx *db.Tx) error {
		_, _, err := w.tree.Adopt(t.Context(), tx, tree.Adoption{Owner: alice}, token.Location{Provider: "north", Container: "c"}, []tree.Found{{Kind: acl.Container}}, w.now)
		return err
	})
	refused(t, err, problem.BadName)
}

// TestAdoptedAndJudgedAnew: what is adopted belongs to somebody else from then on, so that who was judged before is judged again; once.
func TestAdoptedAndJudgedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice)
	if _, err := w.decide(alice, "north:/c/o", acl.Delete); err != nil {
		t.Fatal(err)
	}
	gen := w.gen("north")
	w.adopt(bob, object("o", 1, "1"))
	if _, err := w.decide(alice, "north:/c/o", acl.Delete); problem.Of(err) != problem.NotPermitted || w.gen("north") == gen {
		t.Errorf("got %v under the same generation", err)
	}
	gen = w.gen("north")
	w.adopt(bob, object("o", 1, "1"))
	if w.gen("north") != gen {
		t.Error("the same again: the generation grew")
	}
	w.must(w.apply(alice, "north:/c/p", set(t, `{"color":"red"}`), ""))
	gen = w.gen("north")
	w.adopt(bob, object("p", 1, "1"))
	if w.gen("north") == gen {
		t.Error("a row without an owner got one: the generation did not grow")
	}
	gen = w.gen("north")
	w.adopt(bob, object("b/1", 1, "1"), tree.Found{Name: "b", Kind: acl.Container})
	if w.gen("north") == gen {
		t.Error("a container changed hands: the generation did not grow")
	}
	gen = w.gen("north")
	w.adopt(bob, object("b/2", 1, "1"))
	w.write(func(ctx context.Context, tx *db.Tx) error {
		_, _, err := w.tree.Adopt(ctx, tx, tree.Adoption{Owner: bob}, token.Location{Provider: "north", Container: "nobodys"}, []tree.Found{object("x", 1, "1")}, w.now)
		return err
	})
	if w.gen("north") != gen {
		t.Error("what was its own before, or nobody's where nothing is said: the generation grew, and all that runs is judged again for nothing")
	}
}
