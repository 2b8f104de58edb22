package acl_test

import (
	"sync"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
)

// deep is an object at depth 10 whose own list has 20 entries, and every container
// above it as many; the one that decides is the last of all.
func deep(tb testing.TB) (acl.Principal, acl.Target) {
	tb.Helper()
	whos := []acl.Who{"carol", "eng", "OWNER@", "dave@north.example", "GROUP@", "erin", "ops", "ADMINISTRATOR@", "ANONYMOUS@", "frank"}
	tgt := acl.Target{Path: make([]acl.Level, 11)}
	for i := range tgt.Path {
		entries := make([]acl.ACE, 20)
		for j := range entries {
			entries[j] = acl.ACE{Type: acl.Type(j % 3), Who: whos[j%len(whos)], Flags: acl.ObjectInherit | acl.ContainerInherit, Mask: acl.AllPerms}
			if entries[j].Who == "eng" || entries[j].Who == "ops" {
				entries[j].Flags |= acl.IdentifierGroup
			}
		}
		if i == len(tgt.Path)-1 {
			entries[19] = acl.ACE{Type: acl.Allow, Who: "alice", Flags: acl.ObjectInherit, Mask: acl.Read}
		}
		a, err := acl.New(entries...)
		if err != nil {
			tb.Fatal(err)
		}
		tgt.Path[i] = acl.Level{ACL: a, Owner: "olga", Group: "staff"}
	}
	p := acl.Principal{Name: "alice", Groups: []acl.Who{"red", "green", "blue"}}
	if d := acl.Evaluate(p, tgt, acl.Read); d.Outcome != acl.Allowed || d.At != (acl.Place{Level: 10, Entry: 19}) {
		tb.Fatalf("got %+v", d)
	}
	return p, tgt
}

// thin is deep, where the containers above inherit nothing but the last entry of the root.
func thin(tb testing.TB) (acl.Principal, acl.Target) {
	p, tgt := deep(tb)
	last, err := acl.New(acl.ACE{Who: "alice", Flags: acl.ObjectInherit, Mask: acl.Read})
	if err != nil {
		tb.Fatal(err)
	}
	for i := 1; i < 10; i++ {
		tgt.Path[i].ACL = acl.ACL{}
	}
	tgt.Path[10].ACL = last
	return p, tgt
}

// TestEvaluationAllocatesNothing, at depth 10, with 20 entries at every level.
func TestEvaluationAllocatesNothing(t *testing.T) {
	p, tgt := deep(t)
	for name, f := range map[string]func(){
		"Evaluate":    func() { acl.Evaluate(p, tgt, acl.Read) },
		"Permitted":   func() { acl.Permitted(p, tgt, acl.AllPerms) },
		"CheckDelete": func() { acl.CheckDelete(p, tgt) },
		"CheckOwner":  func() { acl.CheckOwner(p, tgt, "alice") },
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: got %v allocations, want none", name, n)
		}
	}
}

// TestManyEvaluateAtOnce: one list, one target and one principal serve many goroutines.
func TestManyEvaluateAtOnce(t *testing.T) {
	t.Parallel()
	p, tgt := deep(t)
	want := acl.Explain(p, tgt, acl.Read).Text()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if d := acl.Evaluate(p, tgt, acl.Read); !d.Granted() {
					t.Errorf("got %+v", d)
				}
				if got := acl.Explain(p, tgt, acl.Read).Text(); got != want {
					t.Errorf("got %s", got)
				}
				if l := tgt.Path[0].ACL; l.Own().Len() != l.Len() || len(l.Marshal()) == 0 {
					t.Error("the list has changed")
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkEvaluate20EntriesDepth10(b *testing.B) {
	p, tgt := thin(b)
	b.ReportAllocs()
	for b.Loop() {
		acl.Evaluate(p, tgt, acl.Read)
	}
}

func BenchmarkEvaluate220EntriesDepth10(b *testing.B) {
	p, tgt := deep(b)
	b.ReportAllocs()
	for b.Loop() {
		acl.Evaluate(p, tgt, acl.Read)
	}
}

func BenchmarkParse20Entries(b *testing.B) {
	_, tgt := deep(b)
	list := tgt.Path[0].ACL.Marshal()
	b.SetBytes(int64(len(list)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := acl.Parse(list); err != nil {
			b.Fatal(err)
		}
	}
}
