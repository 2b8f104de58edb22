package tree_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
)

// benched is a database with ten levels of containers, each with a list of twenty entries, and a thousand objects at the end.
func benched(b *testing.B) (*db.DB, *tree.Tree, token.Location, []token.ObjectName) {
	b.Helper()
	d, tr, now := newDB(b), newTree(b, tree.Config{}), time.Now()
	at := token.Location{Provider: "north", Container: "c", Name: "1/2/3/4/5/6/7/8/9"}
	var lines strings.Builder
	for i := range 19 {
		fmt.Fprintf(&lines, "ALLOW spiffe://north/subscriber/other%d OBJECT_INHERIT,CONTAINER_INHERIT READ_OBJECT\n", i)
	}
	lines.WriteString("ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT READ_METADATA\n")
	a := list(b, lines.String())
	var names []token.ObjectName
	err := d.Write(b.Context(), func(tx *db.Tx) error {
		var objects []tree.StoredObject
		for i := range 1000 {
			o := tree.StoredObject{At: at, Owner: alice, Size: 1, Version: "v", Xfr: "x"}
			o.At.Name += token.ObjectName(fmt.Sprintf("/n%04d", i))
			names = append(names, o.At.Name)
			objects = append(objects, o)
		}
		if err := tr.Stored(b.Context(), tx, objects, now); err != nil {
			return err
		}
		for l := at; ; l.Name = l.Name[:max(len(l.Name)-2, 0)] {
			n, err := tr.Make(b.Context(), tx, "", l, acl.Container, now)
			if err != nil {
				return err
			}
			n.ACL = string(a.Marshal())
			if err := tx.SaveNode(b.Context(), n); err != nil {
				return err
			}
			if l.Name == "" {
				return nil
			}
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	return d, tr, at, names
}

// BenchmarkDecideOne decides about one object at depth ten, each level with a list of twenty entries, with all that is read for it.
func BenchmarkDecideOne(b *testing.B) {
	d, tr, at, names := benched(b)
	at.Name = names[500]
	a := attempt(acl.Principal{Name: acl.Who(alice)})
	if err := d.Read(b.Context(), func(tx *db.Tx) error {
		b.ReportAllocs()
		for b.Loop() {
			s, err := tr.Spot(b.Context(), tx, at, acl.Object)
			if err != nil {
				return err
			}
			if err := tr.Decide(a, s, acl.ReadMetadata); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkDecidePage is the same for a page of a thousand.
func BenchmarkDecidePage(b *testing.B) {
	d, tr, at, names := benched(b)
	a := attempt(acl.Principal{Name: acl.Who(alice)})
	if err := d.Read(b.Context(), func(tx *db.Tx) error {
		b.ReportAllocs()
		for b.Loop() {
			refused, err := tr.DecideMany(b.Context(), tx, a, tree.Page{At: at, Names: names}, acl.ReadMetadata)
			if err != nil || len(refused) > 0 {
				return fmt.Errorf("refused %d: %w", len(refused), err)
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkStored writes the rows of a thousand new objects.
func BenchmarkStored(b *testing.B) {
	d, tr, at, names := benched(b)
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		n++
		if err := d.Write(b.Context(), func(tx *db.Tx) error {
			objects := make([]tree.StoredObject, len(names))
			for i := range objects {
				objects[i] = tree.StoredObject{At: at, Owner: alice, Size: 1, Version: "v", Xfr: "x"}
				objects[i].At.Name += token.ObjectName(fmt.Sprintf("/%d/n%04d", n, i))
			}
			return tr.Stored(b.Context(), tx, objects, time.Now())
		}); err != nil {
			b.Fatal(err)
		}
	}
}
