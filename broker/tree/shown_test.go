package tree_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
)

func TestStorageMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice)
	l, _ := at(t, "north:/c/x")
	o := tree.StoredObject{At: l, Owner: bob, Size: 10, Digest: "blake3:d", Version: "v1", Xfr: "x", HashKind: space.SHA256, Hash: "ABCD"}
	w.write(func(ctx context.Context, tx *db.Tx) error {
		return w.tree.Stored(ctx, tx, []tree.StoredObject{o}, w.now)
	})
	const want = `{"cdmi_acl":[{"acetype":"0x00","identifier":"OWNER@","aceflags":"0x80","acemask":"0x001F07FF"},` +
		`{"acetype":"0x00","identifier":"AUTHENTICATED@","aceflags":"0x80","acemask":"0x00000089"}],"cdmi_acount":"0","cdmi_atime":"2026-11-26T12:00:00.000000Z",` +
		`"cdmi_ctime":"2026-11-26T12:00:00.000000Z","cdmi_mcount":"0","cdmi_mtime":"2026-11-26T12:00:00.000000Z",` +
		`"cdmi_owner":"spiffe://north/subscriber/bob","cdmi_size":"10"}`
	if got := string(w.tree.StorageMetadata(w.spot("north:/c/x")).Marshal()); !strings.EqualFold(got, want) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	w.must(w.apply(alice, "north:/c/", set(t, `{"cdmi_value_hash":"SHA256"}`), ""))
	if got := w.tree.StorageMetadata(w.spot("north:/c/x"))["cdmi_hash"]; got != `"ABCD"` {
		t.Errorf("a hash that is asked for: got %s", got)
	}
	w.must(w.apply(bob, "north:/c/x", set(t, `{"cdmi_value_hash":"SHA512"}`), ""))
	if got, ok := w.tree.StorageMetadata(w.spot("north:/c/x"))["cdmi_hash"]; ok {
		t.Errorf("a hash of another kind than is asked for: got %s", got)
	}
	later := w.now.Add(time.Microsecond)
	w.write(func(ctx context.Context, tx *db.Tx) error {
		return tx.Accessed(ctx, token.Location{Provider: "north", Container: "c"}, acl.Object, []token.ObjectName{"x", "none"}, later)
	})
	m := w.tree.StorageMetadata(w.spot("north:/c/x"))
	if m["cdmi_acount"] != `"1"` || m["cdmi_atime"] != `"2026-11-26T12:00:00.000001Z"` || m["cdmi_mcount"] != `"1"` {
		t.Errorf("after an access and a change: got %v", m)
	}
	m = w.tree.StorageMetadata(w.spot("north:/c/unknown"))
	if len(m) != 2 || m["cdmi_owner"] != `"spiffe://north/subscriber/alice"` || m["cdmi_acl"] == "" {
		t.Errorf("what has no row: got %v", m)
	}
	if m := w.tree.StorageMetadata(w.spot("north:/unowned/x")); len(m) != 1 {
		t.Errorf("what nobody owns: got %v", m)
	}
}

// TestETagChanges with whatever is shown, above too, and neither with accesses nor with what others hold.
func TestETagChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const address = "north:/c/a/x"
	seen := map[string]string{}
	last := ""
	step := func(what string, same bool) {
		t.Helper()
		etag := w.tree.ETag(w.spot(address))
		if was, ok := seen[etag]; same != (etag == last) || ok && !same {
			t.Errorf("%s: got %s, before %s, seen after %q", what, etag, last, was)
		}
		seen[etag], last = what, etag
	}
	step("nothing there", false)
	w.make("north:/c/", alice)
	step("another owner above", false)
	w.make("north:/c/a/", alice)
	step("an owner between", false)
	w.stored(alice, address)
	step("stored", false)
	w.must(w.apply(alice, address, set(t, `{"color":"red"}`), ""))
	step("user metadata", false)
	w.must(w.apply(alice, "north:/c/a/", set(t, `{"color":"red"}`), ""))
	step("user metadata above", true)
	w.must(w.apply(alice, "north:/c/", set(t, `{"cdmi_geographic_placement":["DE"]}`), ""))
	step("a wish above", false)
	w.must(w.apply(alice, "north:/c/a/", set(t, `{"cdmi_acl":[]}`), ""))
	step("a list above", false)
	w.must(w.apply(rita, "north:/c/", tree.Change{Owner: who(rita)}, ""))
	step("another owner at the root", false)
	w.write(func(ctx context.Context, tx *db.Tx) error {
		return tx.Accessed(ctx, token.Location{Provider: "north", Container: "c"}, acl.Object, []token.ObjectName{"a/x"}, w.now.Add(time.Hour))
	})
	step("an access", true)
	w.stored(alice, "north:/c/a/y")
	step("a sibling", true)
	w.write(func(ctx context.Context, tx *db.Tx) error {
		l, k := at(t, address)
		_, err := w.tree.Remove(ctx, tx, l, k)
		return err
	})
	step("removed", false)
	w.stored(alice, address)
	step("stored again", false)
	if one, two := w.tree.ETag(w.spot("north:/c/a/")), func() string { w.stored(alice, "north:/c/a/z"); return w.tree.ETag(w.spot("north:/c/a/")) }(); one == two {
		t.Error("a container that holds more has the same ETag")
	}
	if len(last) != 18 || last[0] != '"' || last[17] != '"' {
		t.Errorf("got %s", last)
	}
}

// TestListsOfManyLevels: what is inherited may be more than a list may have, and is shown whole.
func TestListsOfManyLevels(t *testing.T) {
	t.Parallel()
	var entries []acl.ACE
	for range acl.MaxEntries + 1 {
		entries = append(entries, acl.ACE{Who: acl.Everyone, Flags: acl.Inherited})
	}
	text := string(tree.MarshalList(entries))
	if n := strings.Count(text, `"acetype"`); n != len(entries) || strings.Contains(text, "]") && !strings.HasSuffix(text, "}]") || strings.Contains(text, ",,") {
		t.Errorf("got %d entries in %s", n, text[len(text)-200:])
	}
	if got := string(tree.MarshalList(nil)); got != "[]" {
		t.Errorf("got %s", got)
	}
}
