package storetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Names lists all below prefix after a cursor; an error of a name stands behind it in brackets.
func Names(t testing.TB, s store.Store, prefix, after token.ObjectName) []string {
	t.Helper()
	names := []string{}
	err := s.List(t.Context(), prefix, after, func(in store.Info, err error) bool {
		name := string(in.Name)
		if in.Type == store.Subtree {
			name += "/"
		}
		if err != nil {
			name += " [" + string(problem.Of(err)) + "]"
		}
		names = append(names, name)
		return true
	})
	if err != nil {
		t.Errorf("List(%q, %q): %v", prefix, after, err)
	}
	return names
}

// listedAs is the part of all, which are as Names writes them, that List(prefix, after) yields.
func listedAs(s Subject, all []string, prefix, after token.ObjectName) []string {
	want := []string{}
	for _, n := range all {
		bare := token.ObjectName(strings.TrimSuffix(n, "/"))
		if prefix != "" && !strings.HasPrefix(string(bare), string(prefix)+"/") || after != "" && s.Order(bare, after) <= 0 {
			continue
		}
		want = append(want, n)
	}
	slices.SortFunc(want, func(a, b string) int {
		return s.Order(token.ObjectName(strings.TrimSuffix(a, "/")), token.ObjectName(strings.TrimSuffix(b, "/")))
	})
	return want
}

func listing(t *testing.T, s Subject) {
	if got := Names(t, s.Store, "", ""); len(got) != 0 {
		t.Fatalf("an empty store lists %q", got)
	}
	all := []string{"日本/語", "a/c", "e/f/", "a-b", "ab", "a/b/c/d", "ä/ö", "a/b-", "a/b/c/e", "a.b/x", "a.b/x y", "a/b/c!", "zz/%2e", "zz/+"}
	for _, name := range all {
		if !strings.HasSuffix(name, "/") {
			s.Put(t, token.ObjectName(name), []byte("x"))
		}
	}
	if err := s.Store.Make(t.Context(), "e/f"); err != nil {
		t.Fatal(err)
	}
	b := openBatch(t, s.Store, "not-listed")
	stageWhole(t, b, s.item(0, "staged", 1), []byte("x"))
	begun := s.item(1, "begun", s.large(2))
	if err := writePart(t, openStage(t, b, begun), begun, 0, Content(1, s.large(2))); err != nil {
		t.Fatal(err)
	}
	prefixes := []token.ObjectName{"", "a", "a/b", "a/b/c", "e", "e/f", "zz", "日本"}
	afters := []token.ObjectName{"", "a/b", "a/b/zzz", "a/b/c/d/x", "Z", "a", "b", "e", "zz", "zzz", "a/b/", "日"}
	for _, name := range all {
		afters = append(afters, token.ObjectName(strings.TrimSuffix(name, "/")))
	}
	for _, prefix := range prefixes {
		for _, after := range afters {
			want := listedAs(s, all, prefix, after)
			if got := Names(t, s.Store, prefix, after); !slices.Equal(got, want) {
				t.Errorf("List(%q, %q): got %q, want %q", prefix, after, got, want)
			}
		}
	}
	for _, prefix := range []token.ObjectName{"x", "a/b/c/d", "a/b/x", "a-b", "a/b/c/", "sta"} {
		err := s.Store.List(t.Context(), prefix, "", func(store.Info, error) bool { t.Errorf("List(%q) yields", prefix); return false })
		wantProblem(t, fmt.Sprintf("List(%q)", prefix), err, problem.Missing, problem.BadName)
	}
	n := 0
	if err := s.Store.List(t.Context(), "", "", func(store.Info, error) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Errorf("stopping at 3: got %d names, %v", n, err)
	}
	for _, prefix := range []token.ObjectName{"../x", ".consign", ".Consign/b-1"} {
		wantProblem(t, "List of a bad prefix", s.Store.List(t.Context(), prefix, "", nil), problem.BadName)
	}
}

const nLong = 2500 // more than any service puts into two pages

// putMany makes names below p, a few at once, and returns them in order.
func putMany(t *testing.T, s Subject, n int) (names []string) {
	var wg sync.WaitGroup
	for i := range n {
		names = append(names, fmt.Sprintf("p/%04d", i))
	}
	for lane := range 8 {
		wg.Go(func() {
			for i := lane; i < n; i += 8 {
				s.Put(t, token.ObjectName(names[i]), []byte(names[i]))
			}
		})
	}
	wg.Wait()
	return names
}

func longListing(t *testing.T, s Subject) {
	want := putMany(t, s, nLong)
	s.Put(t, "q", []byte("beside"))
	if got := Names(t, s.Store, "p", ""); !slices.Equal(got, want) {
		t.Errorf("List: got %d names, want %d in order", len(got), len(want))
	}
	for i := 499; i < nLong; i += 500 {
		if got := Names(t, s.Store, "p", token.ObjectName(want[i])); !slices.Equal(got, want[i+1:]) {
			t.Errorf("List after %q: got %d names, want %d", want[i], len(got), len(want)-i-1)
		}
	}
	n := 0
	if err := s.Store.List(t.Context(), "", "", func(in store.Info, err error) bool {
		if err != nil || in.Type != store.Object || in.Name != "q" && in.Size != int64(len("p/0000")) || in.Version == "" {
			t.Errorf("List: got %+v, %v", in, err)
		}
		n++
		return true
	}); err != nil || n != nLong+1 {
		t.Errorf("List of all: got %d names, %v, want %d", n, err, nLong+1)
	}
}

// vanishing removes names, before and behind where the listing stands, while it goes on.
func vanishing(t *testing.T, s Subject) {
	const n = 400
	want := putMany(t, s, n)
	seen := map[token.ObjectName]int{}
	gone := map[token.ObjectName]bool{}
	remove := func(i int) {
		if name := token.ObjectName(want[i]); !gone[name] {
			s.Remove(t, name)
			gone[name] = true
		}
	}
	err := s.Store.List(t.Context(), "p", "", func(in store.Info, err error) bool {
		if err != nil && problem.Of(err) != problem.Missing {
			t.Errorf("%q: %v", in.Name, err)
		}
		i := len(seen)
		seen[in.Name]++
		if i%10 == 0 && i+5 < n {
			remove(i + 5)
			remove(i / 2)
		}
		return true
	})
	if err != nil {
		t.Errorf("List: %v", err)
	}
	for _, name := range want {
		if k := seen[token.ObjectName(name)]; k > 1 || k == 0 && !gone[token.ObjectName(name)] {
			t.Errorf("%q was yielded %d times", name, k)
		}
	}
}
