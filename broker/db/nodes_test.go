package db

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
)

func TestNodesComeBackAsTheyWent(t *testing.T) {
	t.Parallel()
	d, _ := newDB(t)
	us := func(n int64) time.Time { return time.UnixMicro(1_700_000_000_000_000 + n).UTC() }
	n := Node{Provider: "p", Container: "c", Name: "a/b", Kind: acl.Object, ID: "00", Owner: "o", ACL: "[]", User: "{}", Data: "{ }", Size: 1, Objects: 2, Digest: "d", HashKind: "h",
		Hash: "x", Version: "v", Native: "n", Created: us(1), Accessed: us(2), Modified: us(3), Accesses: 3, Changes: 4, Rev: 5, Xfr: "t", Bat: 6, Item: 7, Adopted: us(4)}
	root := token.Location{Provider: "p", Container: "c"}
	same := func(tx *Tx) error {
		got, err := tx.Nodes(t.Context(), "p", "c", []token.ObjectName{"x", "a/b", "a"})
		if err != nil || len(got) != 1 || got[0] != n {
			t.Errorf("got %+v, %v, want %+v", got, err, n)
		}
		one, ok, err := tx.NodeByID(t.Context(), n.ID)
		if err != nil || !ok || one != n {
			t.Errorf("by identifier: got %+v, %v", one, err)
		}
		if _, ok, err := tx.NodeByID(t.Context(), "01"); ok || err != nil {
			t.Errorf("an identifier of nothing: got %t, %v", ok, err)
		}
		return nil
	}
	write(t, d, func(tx *Tx) error { return errors.Join(tx.AddNodes(t.Context(), []Node{n}), same(tx)) })
	n.Owner, n.ACL, n.User, n.Data, n.Size, n.Digest, n.HashKind, n.Hash, n.Version, n.Native = "1", "2", "3", "4", 5, "6", "7", "8", "9", "10"
	n.Modified, n.Changes, n.Rev, n.Xfr, n.Bat, n.Item, n.Adopted = us(11), 12, 13, "14", 15, 16, us(17)
	write(t, d, func(tx *Tx) error { return errors.Join(tx.SaveNode(t.Context(), n), same(tx)) })
	n.Accesses, n.Accessed = n.Accesses+2, us(20)
	write(t, d, func(tx *Tx) error {
		names := []token.ObjectName{"a/b", "none"}
		return errors.Join(tx.Accessed(t.Context(), root, acl.Object, names, us(20)), tx.Accessed(t.Context(), root, acl.Object, names, us(19)),
			tx.Accessed(t.Context(), root, acl.Container, names, us(30)), same(tx))
	})
	write(t, d, func(tx *Tx) error {
		box := Node{Provider: "p", Container: "c", Name: "a", Kind: acl.Container, ID: "02", Size: 10, Objects: 1}
		if err := tx.AddNodes(t.Context(), []Node{box}); err != nil {
			return err
		}
		if err := tx.Grow(t.Context(), box.At(), 2, -3); err != nil {
			return err
		}
		if err := tx.SaveNode(t.Context(), box); err != nil { // which does not know of what came meanwhile
			return err
		}
		got, _, err := tx.NodeByID(t.Context(), "02")
		if got.Objects != 3 || got.Size != 7 {
			t.Errorf("a container: got %+v", got)
		}
		if err := tx.AddNodes(t.Context(), []Node{box}); err == nil {
			t.Error("a place has two rows")
		}
		return err
	})
}

// TestBelow: what only begins with the same letters is not below, and pages leave nothing out.
func TestBelow(t *testing.T) {
	t.Parallel()
	d, _ := newDB(t)
	names := []token.ObjectName{"", "a", "a!", "a/", "a/b", "a/b/c", "a/b0", "a/\U0010ffff", "a0", "a0/x", "b"}
	var ns []Node
	for i, n := range names {
		for _, k := range []acl.Kind{acl.Object, acl.Container} {
			if n == "" && k == acl.Object || n == "a/" {
				continue
			}
			ns = append(ns, Node{Provider: "p", Container: "c", Name: n, Kind: k, ID: idOf(i, k), Size: 1})
			ns = append(ns, Node{Provider: "p", Container: "d", Name: n, Kind: k, ID: "d" + idOf(i, k), Size: 1})
		}
	}
	write(t, d, func(tx *Tx) error { return tx.AddNodes(t.Context(), ns) })
	for under, want := range map[token.ObjectName]string{
		"":    "a0 a1 a!0 a!1 a/b0 a/b1 a/b/c0 a/b/c1 a/b00 a/b01 a/\U0010ffff0 a/\U0010ffff1 a00 a01 a0/x0 a0/x1 b0 b1",
		"a":   "a/b0 a/b1 a/b/c0 a/b/c1 a/b00 a/b01 a/\U0010ffff0 a/\U0010ffff1",
		"a/b": "a/b/c0 a/b/c1",
		"b":   "",
	} {
		at := token.Location{Provider: "p", Container: "c", Name: under}
		var got []string
		if err := d.Read(t.Context(), func(tx *Tx) error {
			after := Node{}
			for {
				page, err := tx.NodesBelow(t.Context(), at, after.Name, after.Kind, 3)
				if err != nil {
					return err
				}
				for _, n := range page {
					got = append(got, fmt.Sprintf("%s%d", n.Name, n.Kind))
				}
				if len(page) < 3 {
					break
				}
				after = page[2]
			}
			objects, bytes, err := tx.HeldBelow(t.Context(), at)
			if n := int64(len(got) / 2); objects != n || bytes != n {
				t.Errorf("below %q: counted %d of %d bytes, there are %d", under, objects, bytes, n)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("below %q: got %s\nwant %s", under, s, want)
		}
	}
	write(t, d, func(tx *Tx) error {
		at := token.Location{Provider: "p", Container: "c", Name: "a"}
		if err := tx.AddVersion(t.Context(), ns[6], 1); err != nil { // of "a!"
			return err
		}
		if err := errors.Join(tx.DropBelow(t.Context(), at), tx.DropNode(t.Context(), token.Location{Provider: "p", Container: "c", Name: "a!"}, acl.Object)); err != nil {
			return err
		}
		left, err := tx.NodesBelow(t.Context(), token.Location{Provider: "p", Container: "c"}, "", acl.Object, 100)
		if len(left) != 9 {
			t.Errorf("%d rows are left, want those of a, a! (one), a0, a0/x, b", len(left))
		}
		other, err2 := tx.NodesBelow(t.Context(), token.Location{Provider: "p", Container: "d"}, "", acl.Object, 100)
		if len(other) != 18 {
			t.Errorf("%d rows are left in another container, want all 18", len(other))
		}
		return errors.Join(err, err2)
	})
}

func idOf(i int, k acl.Kind) space.ObjectID { return space.ObjectID(fmt.Sprintf("%d-%d", i, k)) }

// TestRulesOfNames: whatever lies between and behind the names, and however many there are, their rows are found, each once, and few queries are made.
func TestRulesOfNames(t *testing.T) {
	t.Parallel()
	d, _ := newDB(t)
	var ns []Node
	for i := range 3000 {
		name := token.ObjectName(fmt.Sprintf("n%04d", i))
		ns = append(ns, Node{Provider: "p", Container: "c", Name: name, ID: idOf(i, acl.Object), Owner: "o"})
		if i%3 == 0 {
			ns = append(ns, Node{Provider: "p", Container: "c", Name: name, Kind: acl.Container, ID: idOf(i, acl.Container), Owner: "o"})
		}
	}
	write(t, d, func(tx *Tx) error { return tx.AddNodes(t.Context(), ns) })
	named := func(from, step, n int) (names []token.ObjectName) {
		for i := range n {
			names = append(names, token.ObjectName(fmt.Sprintf("n%04d", from+i*step)))
		}
		slices.Reverse(names)
		return names
	}
	for what, tt := range map[string]struct {
		names []token.ObjectName
		kind  acl.Kind
		found int
		most  int
	}{
		"dense":             {named(500, 1, 1000), acl.Object, 1000, 1},
		"dense, containers": {named(501, 3, 100), acl.Container, 100, 2},
		"sparse":            {named(0, 60, 50), acl.Object, 50, 2},
		"all and more":      {named(0, 1, 5000), acl.Object, 3000, 1},
		"behind all":        {named(4000, 1, 1000), acl.Object, 0, 1},
		"containers of all": {named(0, 1, 3000), acl.Container, 1000, 1},
		"few":               {named(10, 100, 5), acl.Object, 5, 1},
		"none":              {nil, acl.Object, 0, 0},
	} {
		if err := d.Read(t.Context(), func(tx *Tx) error {
			before := tx.Ran()
			got, err := tx.Rules(t.Context(), "p", "c", tt.kind, tt.names)
			seen := map[token.ObjectName]bool{}
			for _, r := range got {
				if seen[r.Name] || r.Kind != tt.kind || r.Owner != "o" || !slices.Contains(tt.names, r.Name) {
					t.Errorf("%s: got %+v", what, r)
				}
				seen[r.Name] = true
			}
			if len(got) != tt.found || tx.Ran()-before > tt.most {
				t.Errorf("%s: got %d in %d queries, want %d", what, len(got), tx.Ran()-before, tt.found)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Read(t.Context(), func(tx *Tx) error {
		before := tx.Ran()
		got, err := tx.Nodes(t.Context(), "p", "c", named(0, 1, 2500))
		if len(got) != 2500+834 || tx.Ran()-before != 3 {
			t.Errorf("of both kinds: got %d in %d queries", len(got), tx.Ran()-before)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
