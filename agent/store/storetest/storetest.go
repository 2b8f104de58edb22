// Package storetest is the suite that every store passes. Each numbered test is
// an outcome that agent/store promises.
package storetest

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Subject is a store under test, and what only its maker can do to it. The
// functions fail the test themselves.
type Subject struct {
	Store store.Store
	// Put makes name an object with these bytes, in place of any, as somebody outside does.
	Put func(t testing.TB, name token.ObjectName, data []byte)
	// Remove takes name away, as somebody outside does.
	Remove func(t testing.TB, name token.ObjectName)
	// Link makes name a symbolic link.
	Link func(t testing.TB, name token.ObjectName)
	// Kill ends the process that uses Store and returns the store as its successor finds it.
	Kill func(t testing.TB) store.Store
}

// Run runs the suite. Each test gets a new, empty subject from open, whose clock must
// be the real one.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	tests := []struct {
		name string
		run  func(t *testing.T, s Subject)
	}{
		{"01 published equals staged", publishedEqualsStaged},
		{"02 existing name is taken and stays", existingIsTaken},
		{"03 one of two racing batches wins", races},
		{"04 publishing again succeeds again", publishAgain},
		{"05 stage survives a kill", stageSurvives},
		{"06 published bytes cannot be written", sealed},
		{"07 writes stay within the size", outOfRange},
		{"08 discarded stage is created anew", discard},
		{"09 dropped batch leaves its objects", drop},
		{"10 stat outcomes", statOutcomes},
		{"11 open outcomes", openOutcomes},
		{"12 pinned read detects change", pinned},
		{"13 list order, resume, prefix, stop", listing},
		{"14 make outcomes", makeOutcomes},
		{"15 odd names are kept or refused", oddNames},
		{"16 many at once, each with its own outcome", many},
		{"17 batch in use is claimed", claimed},
		{"18 unfit stage publishes nothing", unfit},
		{"19 cancelled calls do nothing", cancelled},
		{"20 probe", probed},
		{"21 object in the place of a parent is taken", parentIsObject},
		{"22 attributes", attributes},
		{"23 concurrent writes and publications", concurrent},
		{"24 links are described and not read", links},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			t.Cleanup(func() {
				if err := s.Store.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			tt.run(t, s)
		})
	}
}

// Content returns size bytes that depend on seed.
func Content(seed, size int) []byte {
	b := make([]byte, size)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func openBatch(t testing.TB, s store.Store, id store.BatchID) store.Batch {
	t.Helper()
	b, err := s.Batch(t.Context(), id)
	if err != nil {
		t.Fatalf("Batch(%q): %v", id, err)
	}
	return b
}

// stageItem writes an item whole and closes it.
func stageItem(t testing.TB, b store.Batch, item int, data []byte) {
	t.Helper()
	st, err := b.Stage(t.Context(), item, int64(len(data)))
	if err != nil {
		t.Fatalf("Stage(%d): %v", item, err)
	}
	if _, err := st.WriteAt(data, 0); err != nil {
		t.Fatalf("WriteAt: %v", err)
	}
	if err := st.Close(); err != nil {
		t.Fatalf("closing stage: %v", err)
	}
}

func publishOne(t testing.TB, b store.Batch, item int, name token.ObjectName, size int) store.Published {
	t.Helper()
	outs := b.Publish(t.Context(), []store.Publication{{Item: item, Name: name, Size: int64(size)}})
	if len(outs) != 1 {
		t.Fatalf("Publish: got %d results, want 1", len(outs))
	}
	return outs[0]
}

// mustPublish stages and publishes an object in a batch that it drops.
func mustPublish(t testing.TB, s store.Store, id store.BatchID, name token.ObjectName, data []byte) store.Info {
	t.Helper()
	b := openBatch(t, s, id)
	stageItem(t, b, 0, data)
	out := publishOne(t, b, 0, name, len(data))
	if out.Err != nil {
		t.Fatalf("Publish(%q): %v", name, out.Err)
	}
	if err := b.Drop(t.Context()); err != nil {
		t.Fatalf("Drop: %v", err)
	}
	return out.Info
}

// wantContent reads name as it is now.
func wantContent(t testing.TB, s store.Store, name token.ObjectName, want []byte) {
	t.Helper()
	in, err := s.Stat(t.Context(), name)
	if err != nil {
		t.Errorf("Stat(%q): %v", name, err)
		return
	}
	if in.Type != store.Object || in.Size != int64(len(want)) || in.Name != name {
		t.Errorf("Stat(%q): got %s %q of %d bytes, want an object of %d", name, in.Type, in.Name, in.Size, len(want))
	}
	r, err := s.Open(t.Context(), name, in.Version)
	if err != nil {
		t.Errorf("Open(%q): %v", name, err)
		return
	}
	defer r.Close()
	got := make([]byte, len(want))
	if _, err := r.ReadAt(got, 0); len(got) > 0 && err != nil {
		t.Errorf("ReadAt(%q): %v", name, err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("content of %q differs", name)
	}
	if err := r.Check(t.Context()); err != nil {
		t.Errorf("Check(%q): %v", name, err)
	}
}

func wantProblem(t testing.TB, what string, err error, want problem.Code) {
	t.Helper()
	if got := problem.Of(err); got != want {
		t.Errorf("%s: got %q (%v), want %q", what, got, err, want)
	}
}

func wantMissing(t testing.TB, s store.Store, name token.ObjectName) {
	t.Helper()
	_, err := s.Stat(t.Context(), name)
	wantProblem(t, fmt.Sprintf("Stat(%q)", name), err, problem.Missing)
}
