package storetest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// unmakeOutcomes: what is empty goes, what is not stays with all that is in it.
func unmakeOutcomes(t *testing.T, s Subject) {
	s.Put(t, "full/o", []byte("stays"))
	s.Put(t, "o", []byte("stays"))
	for _, name := range []token.ObjectName{"d/e", "d/f", "full/e"} {
		if err := s.Store.Make(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[token.ObjectName]problem.Code{
		"full": problem.NotEmpty, "d": problem.NotEmpty, "none": problem.Missing, "none/x": problem.Missing, "o": problem.Missing, "full/o": problem.Missing, "ful": problem.Missing,
		"": problem.BadName, "..": problem.BadName, ".consign": problem.BadName, "d/.Consign": problem.BadName,
	} {
		wantProblem(t, fmt.Sprintf("Unmake(%q)", name), s.Store.Unmake(t.Context(), name), want)
	}
	for _, name := range []token.ObjectName{"d/e", "full/e"} {
		if err := s.Store.Unmake(t.Context(), name); err != nil {
			t.Errorf("Unmake(%q): %v", name, err)
		}
		wantMissing(t, s.Store, name)
		wantProblem(t, fmt.Sprintf("Unmake(%q) again", name), s.Store.Unmake(t.Context(), name), problem.Missing)
	}
	if got, want := Names(t, s.Store, "", ""), []string{"d/f/", "full/o", "o"}; !slices.Equal(got, want) {
		t.Errorf("List: got %q, want %q", got, want)
	}
	wantContent(t, s.Store, "full/o", []byte("stays"))
	if err := s.Store.Make(t.Context(), "d/e"); err != nil {
		t.Errorf("Make of what was removed: %v", err)
	}
}

// wipeOutcomes are those of Erase, and a method that the store does not have removes nothing.
func wipeOutcomes(t *testing.T, s Subject) {
	s.Put(t, "d/o", []byte("12345"))
	in, err := s.Store.Stat(t.Context(), "d/o")
	if err != nil {
		t.Fatal(err)
	}
	wipe := func(name token.ObjectName, v token.Version, m store.Method, n int) error {
		return s.Store.Wipe(t.Context(), store.Wiping{Name: name, Version: v, Method: m, Batch: store.BatchID(fmt.Sprint("wipe-", n))})
	}
	for i, m := range []store.Method{"", "melt"} {
		wantProblem(t, fmt.Sprintf("Wipe by %q", m), wipe("d/o", in.Version, m, i), problem.Unsanitizable)
	}
	for i, m := range s.Store.Methods() {
		n := 10 * (i + 1)
		wantProblem(t, "Wipe of nothing", wipe("d/x", in.Version, m, n), problem.Missing)
		wantProblem(t, "Wipe of another version", wipe("d/o", in.Version+"0", m, n), problem.Changed)
		wantProblem(t, "Wipe of a bad name", wipe("../d/o", in.Version, m, n), problem.BadName)
		wantContent(t, s.Store, "d/o", []byte("12345"))
		if err := wipe("d/o", in.Version, m, n); err != nil {
			t.Errorf("Wipe: %v", err)
		}
		wantMissing(t, s.Store, "d/o")
		wantProblem(t, "Wipe again", wipe("d/o", in.Version, m, n), problem.Missing)
		out := mustPublish(t, s.Store, store.BatchID(fmt.Sprint("b-", i)), s.item(0, "d/o", s.large(2)), Content(i, s.large(2)))
		if err := wipe("d/o", out.Info.Version, m, n+1); err != nil {
			t.Errorf("Wipe of what was published: %v", err)
		}
		wantMissing(t, s.Store, "d/o")
		s.Put(t, "d/o", []byte("12345"))
		if in, err = s.Store.Stat(t.Context(), "d/o"); err != nil {
			t.Fatal(err)
		}
	}
	wantContent(t, s.Store, "d/o", []byte("12345"))
	if total, _ := countLeft(t, s.Store, "wipe-10"); total > 0 {
		t.Errorf("got %d leftovers of what was wiped, want none", total)
	}
}

// wipedStages: with a method, and with one that there is not, what is thrown away is gone, and what is published stays as it is.
func wipedStages(t *testing.T, s Subject) {
	for i, m := range append(slices.Clone(s.Store.Methods()), "melt", "") {
		s.Store.Sanitize(m)
		id, name := store.BatchID(fmt.Sprint("b-", i)), token.ObjectName(fmt.Sprint("o", i))
		b := openBatch(t, s.Store, id)
		size := s.large(2)
		for item := range 3 {
			stageWhole(t, b, s.item(item, name, size), Content(item, size))
		}
		st := openStage(t, b, s.item(1, name, size))
		if err := st.Discard(t.Context()); err != nil {
			t.Errorf("Discard: %v", err)
		}
		if out := publishOne(t, b, s.item(0, name, size), Content(0, size)); out.Err != nil {
			t.Errorf("Publish: %v", out.Err)
		}
		mustDrop(t, b)
		wantContent(t, s.Store, name, Content(0, size))
		if total, _ := countLeft(t, s.Store, id); total > 0 {
			t.Errorf("got %d leftovers, want none", total)
		}
	}
}
