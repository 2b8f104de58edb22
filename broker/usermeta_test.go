package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
)

// copied has a transfer of these objects run to its end, and returns it.
func (w *world) copied(src, dst *fake, names ...string) token.TransferID {
	w.t.Helper()
	id := w.submit(w.order())
	var es []api.Entry
	for _, n := range names {
		es = append(es, object(n, 10))
	}
	src.list(es...)
	serve, receive := batch(src, dst)
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: int64(len(names))})
	return id
}

// TestUserMetadataTravel: what is kept here of an object goes to its copy with its identifier new and its owner the account that copied; what the copy
// has of its own stays, and containers keep theirs.
func TestUserMetadataTravel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("north:/src", grant("north", everything))
	w.allow("south:/dst", grant("south", everything))
	for at, value := range map[string]string{"north:/src/a": `"red"`, "north:/src/d/b": `{"x":[1,"é"]}`, "north:/src/kept": `"red"`, "south:/dst/copy/kept": `"blue"`, "north:/src/waited": `"red"`} {
		w.wish(at, acl.Object, "colour", value)
	}
	w.wish("south:/dst/copy/waited", acl.Object, space.RPO, `"60"`) // a row of what is to come, without user metadata
	w.wish("north:/src/d", acl.Container, "colour", `"green"`)
	w.copied(src, dst, "a", "d/b", "kept", "plain", "waited")
	for at, want := range map[string]string{"a": `{"colour":"red"}`, "d/b": `{"colour":{"x":[1,"é"]}}`, "kept": `{"colour":"blue"}`, "plain": "", "waited": `{"colour":"red"}`} {
		got, was := w.spot("south:/dst/copy/"+at, acl.Object), w.spot("north:/src/"+at, acl.Object)
		if got.Node.User != want || got.Node.ID == was.Node.ID {
			t.Errorf("%s: got the metadata %s, want %s", at, got.Node.User, want)
		}
		if at != "kept" && got.Owner() != "spiffe://south/subscriber/alice" {
			t.Errorf("%s: belongs to %s", at, got.Owner())
		}
	}
	if got := w.spot("south:/dst/copy/d", acl.Container).Node.User; got != "" {
		t.Errorf("got the metadata %s of a container that nobody copied", got)
	}
}

// TestHoldsAndRetentionNeverTravel: neither does any other wish of the source, its list or its owner. What binds the copy is what binds where it is.
func TestHoldsAndRetentionNeverTravel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("north:/src", grant("north", everything))
	w.allow("south:/dst", grant("south", everything))
	end := fmt.Sprintf(`"%s/%s"`, w.now.UTC().Format("2006-01-02T15:04:05.000000Z"), w.now.AddDate(1, 0, 0).UTC().Format("2006-01-02T15:04:05.000000Z"))
	list, err := acl.ParseText(grant("north", everything) + "\nALLOW OWNER@ NO_FLAGS ALL_PERMS")
	if err != nil {
		t.Fatal(err)
	}
	w.apply("north:/src/a", acl.Object, tree.Change{ACL: &list, Set: space.Metadata{
		"colour": `"red"`, space.HoldID: `["case 7"]`, space.RetentionPeriod: space.Value(end), space.RetentionID: `"archive"`, space.SanitizationMethod: `"overwrite"`,
	}})
	w.copied(src, dst, "a")
	got := w.spot("south:/dst/copy/a", acl.Object)
	if got.Node.User != `{"colour":"red"}` || got.Node.Data != "" || got.Node.ACL != "" || len(got.Settings.Holds) > 0 || got.Settings.Has(space.RetentionPeriod) {
		t.Errorf("got %+v, want the user metadata alone", got.Node)
	}
	if was := w.spot("north:/src/a", acl.Object); len(was.Settings.Holds) != 1 || was.Node.Data == "" {
		t.Errorf("got %+v at the source, want it as it was", was.Node)
	}
}

// TestCopyToReadMetadata: who may read an object and not its metadata does not get at them by a copy.
func TestCopyToReadMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("north:/src", grant("north", everything))
	w.allow("south:/dst", grant("south", everything))
	w.wish("north:/src/a", acl.Object, "colour", `"red"`)
	list, err := acl.ParseText("DENY spiffe://north/subscriber/alice NO_FLAGS READ_METADATA\nALLOW OWNER@ NO_FLAGS ALL_PERMS")
	if err != nil {
		t.Fatal(err)
	}
	w.apply("north:/src/a", acl.Object, tree.Change{ACL: &list})
	id := w.submit(w.order())
	src.list(object("a", 10), object("b", 10))
	serve, receive := batch(src, dst)
	if m := dst.manifest(receive); len(m.Items) != 1 || m.Items[0].Src != "b" {
		t.Fatalf("got the items %+v, want none of whose metadata nothing may be read", m.Items)
	}
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.want(id, api.Partial, map[token.Result]int64{token.Stored: 1, token.Denied: 1})
	if w.hasRow(spotAt(t, "south:/dst/copy/a"), acl.Object) {
		t.Error("there is a row of what was not copied")
	}
}

// TestUserMetadataBeyondTheLimit: limits that were lowered meanwhile hold for copies as well, and what stays behind for that is told.
func TestUserMetadataBeyondTheLimit(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]space.UserLimits{"items": {Items: 1}, "size": {ItemSize: 20}, "total size": {TotalSize: 60}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			src, dst := w.pair()
			w.allow("north:/src", grant("north", everything))
			w.allow("south:/dst", grant("south", everything))
			w.wish("north:/src/a", acl.Object, "colour", `"`+strings.Repeat("r", 30)+`"`)
			w.wish("north:/src/a", acl.Object, "shape", `"`+strings.Repeat("s", 30)+`"`)
			w.wish("north:/src/b", acl.Object, "c", `"x"`)
			var err error
			if w.b.tree, err = tree.New(tree.Config{Limits: limits}); err != nil {
				t.Fatal(err)
			}
			id := w.copied(src, dst, "a", "b")
			if a, b := w.spot("south:/dst/copy/a", acl.Object).Node.User, w.spot("south:/dst/copy/b", acl.Object).Node.User; a != "" || b != `{"c":"x"}` {
				t.Errorf("got the metadata %s and %s, want those alone that are within the limits", a, b)
			}
			page, err := w.b.Items(t.Context(), w.me(), id, "", "")
			if err != nil {
				t.Fatal(err)
			}
			for _, it := range page.Items {
				if want := it.Src == "a"; slices.Contains(it.Lost, lostMetadata) != want {
					t.Errorf("%s: got %q lost", it.Src, it.Lost)
				}
			}
		})
	}
}
