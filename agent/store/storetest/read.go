package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func statOutcomes(t *testing.T, s Subject) {
	s.Put(t, "d/o", []byte("12345"))
	in, err := s.Store.Stat(t.Context(), "d/o")
	if err != nil || in.Type != store.Object || in.Size != 5 || in.Version == "" || in.Name != "d/o" || in.Fresh == s.Remote {
		t.Errorf("Stat of an object made just now: %+v, %v", in, err)
	}
	if in, err = s.Store.Stat(t.Context(), "d"); err != nil || in.Type != store.Subtree {
		t.Errorf("Stat of a subtree: %+v, %v", in, err)
	}
	for _, name := range []token.ObjectName{"x", "d/x", "d/x/y", "d/o/x", "D", "d/O", "dd", "d/"} {
		_, err := s.Store.Stat(t.Context(), name)
		wantProblem(t, fmt.Sprintf("Stat(%q)", name), err, problem.Missing, problem.BadName)
	}
	for _, name := range []token.ObjectName{"", "/d/o", "d//o", "../d/o", "d/./o", "d/\x00", ".consign", "d/.CONSIGN/o"} {
		_, err := s.Store.Stat(t.Context(), name)
		wantProblem(t, fmt.Sprintf("Stat(%q)", name), err, problem.BadName)
	}
}

func openOutcomes(t *testing.T, s Subject) {
	s.Put(t, "d/o", []byte("12345"))
	in, err := s.Store.Stat(t.Context(), "d/o")
	if err != nil {
		t.Fatal(err)
	}
	_, err = readPinned(t, s.Store, "d/x", in.Version)
	wantProblem(t, "Open of nothing", err, problem.Missing)
	for _, v := range []token.Version{"", "x", in.Version + "0", in.Version[1:]} {
		_, err = readPinned(t, s.Store, "d/o", v)
		wantProblem(t, fmt.Sprintf("Open at %q", v), err, problem.Changed)
	}
	_, err = readPinned(t, s.Store, "d", in.Version)
	if s.Remote {
		wantProblem(t, "Open of a subtree", err, problem.Unreadable, problem.Missing)
	} else {
		wantProblem(t, "Open of a subtree", err, problem.Unreadable)
	}
	for _, name := range []token.ObjectName{"../o", "", "d/.consign/o"} {
		_, err = s.Store.Open(t.Context(), name, in.Version)
		wantProblem(t, "Open of a bad name", err, problem.BadName)
	}
	r, err := s.Store.Open(t.Context(), "d/o", in.Version)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// Before and after anything was read.
	for range 2 {
		got, err := r.Info(t.Context())
		if err != nil || got.Version != in.Version || got.Size != 5 || got.Name != "d/o" || got.Type != store.Object {
			t.Errorf("Info: got %+v, %v, want %+v", got, err, in)
		}
		if data, err := readSection(t, r, 1, 3); string(data) != "234" || err != nil {
			t.Errorf("Section: got %q, %v", data, err)
		}
	}
	if err := r.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// pinned replaces a name of which a part was read: no byte of another state is returned as one of
// the pinned state, unless Check says so.
func pinned(t *testing.T, s Subject) {
	for _, tt := range []struct {
		name  token.ObjectName
		touch func(name token.ObjectName)
	}{
		{"replaced", func(n token.ObjectName) { s.Put(t, n, []byte("abcde")) }},
		{"grown", func(n token.ObjectName) { s.Put(t, n, []byte("123456")) }},
		{"removed", func(n token.ObjectName) { s.Remove(t, n) }},
		{"removed-and-made-again", func(n token.ObjectName) { s.Remove(t, n); s.Put(t, n, []byte("12345")) }},
	} {
		s.Put(t, tt.name, []byte("12345"))
		in, err := s.Store.Stat(t.Context(), tt.name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Store.Open(t.Context(), tt.name, in.Version)
		if err != nil {
			t.Fatal(err)
		}
		if data, err := readSection(t, r, 0, 2); string(data) != "12" || err != nil {
			t.Errorf("%s: read %q, %v", tt.name, data, err)
		}
		if err := r.Check(t.Context()); err != nil {
			t.Errorf("%s: Check before: %v", tt.name, err)
		}
		tt.touch(tt.name)
		data, err := readSection(t, r, 2, 3)
		check := r.Check(t.Context())
		switch {
		case !s.Remote:
			wantProblem(t, string(tt.name)+": Check after", check, problem.Changed)
		case err != nil:
			wantProblem(t, string(tt.name)+": reading after", err, problem.Changed, problem.Missing)
		case check == nil && string(data) != "345":
			t.Errorf("%s: read %q after, and Check says that it was pinned", tt.name, data)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		openedLate(t, s, tt.name, in.Version)
	}
}

// openedLate opens a version that is not the name's any more.
func openedLate(t *testing.T, s Subject, name token.ObjectName, version token.Version) {
	data, err := readPinned(t, s.Store, name, version)
	want := problem.Changed
	if name == "removed" {
		want = problem.Missing
	}
	if s.Remote && (err == nil && string(data) == "12345" || problem.Of(err) == problem.Missing) {
		return // a store that keeps versions still has it, or had it
	}
	wantProblem(t, string(name)+": Open after", err, want)
}

func pinnedWhileReplaced(t *testing.T, s Subject) {
	const size, generations = 300_000, 24
	var contents [generations][]byte
	for i := range contents {
		contents[i] = Content(i, size+i%3)
	}
	s.Put(t, "x", contents[0])
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range generations {
			s.Put(t, "x", contents[i])
		}
	})
	wg.Go(func() {
		for over := false; !over; {
			select {
			case <-done:
				over = true
			default:
			}
			readOnce(t, s, contents[:])
		}
	})
	wg.Wait()
	wantContent(t, s.Store, "x", contents[generations-1])
}

// readOnce reads x in two pieces, as it is now. What is read without an error is one of contents, if the reader says that it is as
// large as Stat did: a server that looks twice for one answer may give the size of one version beside the name of another.
func readOnce(t *testing.T, s Subject, contents [][]byte) {
	in, err := s.Store.Stat(t.Context(), "x")
	if err != nil || in.Fresh {
		return // not whole, or not to be relied on
	}
	r, err := s.Store.Open(t.Context(), "x", in.Version)
	if err != nil {
		wantProblem(t, "Open", err, problem.Changed, problem.Missing)
		return
	}
	defer r.Close()
	if now, err := r.Info(t.Context()); err != nil || now.Size != in.Size {
		if err != nil {
			wantProblem(t, "Info", err, problem.Changed, problem.Missing)
		}
		return
	}
	var data []byte
	for off := int64(0); off < in.Size; {
		n := min(in.Size/2+1, in.Size-off)
		piece, err := readSection(t, r, off, n)
		if err != nil {
			if !s.Torn { // else it may also end early
				wantProblem(t, "Section", err, problem.Changed, problem.Missing)
			}
			return
		}
		data, off = append(data, piece...), off+n
	}
	if r.Check(t.Context()) != nil || s.Torn {
		return
	}
	for _, c := range contents {
		if bytes.Equal(c, data) {
			return
		}
	}
	t.Errorf("%d bytes were read at one version that are none of the contents", len(data))
}

func sections(t *testing.T, s Subject) {
	const size = 300_007
	data := Content(1, size)
	s.Put(t, "x", data)
	s.Put(t, "empty", nil)
	r := openNow(t, s, "x")
	type span struct{ off, n int64 }
	spans := []span{
		{0, size}, {0, 1}, {size - 1, 1}, {1000, 70_000}, {65_536, 65_536}, {1, size - 1}, {0, 0}, {17, 0},
		{size, 1}, {size - 1, 2}, {0, size + 1}, {size + 100, 5}, {0, 10 * size}, {1 << 40, 1},
	}
	for range 20 {
		off := rand.Int64N(size)
		spans = append(spans, span{off, rand.Int64N(size) + 1})
	}
	var wg sync.WaitGroup
	for _, sp := range spans {
		wg.Go(func() { wantSection(t, r, data, sp.off, sp.n) })
	}
	wg.Wait()
	for _, sp := range []span{{-1, 1}, {0, -1}, {-5, -5}, {1<<63 - 1, 2}} {
		if sec, err := r.Section(t.Context(), sp.off, sp.n); err == nil {
			t.Errorf("Section(%d, %d): got nil, want an error", sp.off, sp.n)
			sec.Close()
		}
	}
	wantSection(t, openNow(t, s, "empty"), nil, 0, 1)
	wantSection(t, openNow(t, s, "empty"), nil, 0, 0)
	abandoned(t, r)
	wantSection(t, r, data, 5, 1000)
	if err := r.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

func openNow(t testing.TB, s Subject, name token.ObjectName) store.Reader {
	t.Helper()
	in, err := s.Store.Stat(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Store.Open(t.Context(), name, in.Version)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func wantSection(t testing.TB, r store.Reader, data []byte, off, n int64) {
	t.Helper()
	size := int64(len(data))
	got, err := readSection(t, r, off, n)
	want := data[min(off, size):min(off+n, size)]
	if short := int64(len(want)) < n; short != errors.Is(err, io.ErrUnexpectedEOF) || !short && err != nil {
		t.Errorf("Section(%d, %d) of %d bytes: got %v, want short %v", off, n, size, err, short)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("Section(%d, %d) of %d bytes: got %d bytes, want those %d", off, n, size, len(got), len(want))
	}
}

// abandoned closes and cancels sections that were not read to their end.
func abandoned(t *testing.T, r store.Reader) {
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		sec, err := r.Section(ctx, 0, 300_000)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(sec, make([]byte, 10)); err != nil {
			t.Errorf("the first bytes: %v", err)
		}
		cancel()
		if _, err := io.ReadAll(sec); err != nil {
			wantProblem(t, "reading a cancelled section", err, problem.Cancelled)
		}
		_ = sec.Close() // it was cancelled
		if sec, err = r.Section(t.Context(), 0, 300_000); err != nil {
			t.Fatal(err)
		}
		if err := sec.Close(); err != nil {
			t.Errorf("closing a section of which nothing was read: %v", err)
		}
	}
}

func links(t *testing.T, s Subject) {
	if s.Link == nil {
		return
	}
	s.Put(t, "o", []byte("target"))
	s.Link(t, "l")
	in, err := s.Store.Stat(t.Context(), "l")
	if err != nil || in.Type != store.Link {
		t.Errorf("Stat of a link: %+v, %v", in, err)
	}
	_, err = s.Store.Open(t.Context(), "l", in.Version)
	wantProblem(t, "Open of a link", err, problem.Unreadable)
	types := map[token.ObjectName]store.Type{}
	if err := s.Store.List(t.Context(), "", "", func(in store.Info, err error) bool {
		types[in.Name] = in.Type
		return err == nil
	}); err != nil || types["l"] != store.Link || types["o"] != store.Object {
		t.Errorf("List: got %v, %v", types, err)
	}
	b := openBatch(t, s.Store, "b-1")
	it := s.item(0, "l", 4)
	stageWhole(t, b, it, []byte("four"))
	wantProblem(t, "Publish over a link", publishOne(t, b, it, []byte("four")).Err, problem.Taken)
	if err := s.Store.Erase(t.Context(), "l", in.Version); err == nil {
		t.Error("Erase of a link: got nil, want an error")
	}
	wantContent(t, s.Store, "o", []byte("target"))
}

func makeOutcomes(t *testing.T, s Subject) {
	s.Put(t, "o", []byte("x"))
	for _, name := range []token.ObjectName{"d", "d/e/f", "d/e/f", "d", "日本"} {
		if err := s.Store.Make(t.Context(), name); err != nil {
			t.Errorf("Make(%q): %v", name, err)
		}
		if in, err := s.Store.Stat(t.Context(), name); err != nil || in.Type != store.Subtree || in.Name != name {
			t.Errorf("Stat(%q): %+v, %v", name, in, err)
		}
	}
	wantProblem(t, "Make of an object", s.Store.Make(t.Context(), "o"), problem.Taken)
	if got, want := Names(t, s.Store, "", ""), []string{"d/e/f/", "o", "日本/"}; !slices.Equal(got, want) {
		t.Errorf("List: got %q, want %q", got, want)
	}
	for _, name := range []token.ObjectName{"o/x", "o/x/y"} {
		err := s.Store.Make(t.Context(), name)
		if !s.traits.Flat {
			wantProblem(t, fmt.Sprintf("Make(%q)", name), err, problem.Taken)
		} else if err != nil {
			t.Errorf("Make(%q) where a name may be an object and have others below it: %v", name, err)
		}
	}
	for _, name := range []token.ObjectName{"", "..", "a//b", ".consign", "d/.Consign/x"} {
		wantProblem(t, fmt.Sprintf("Make(%q)", name), s.Store.Make(t.Context(), name), problem.BadName)
	}
	wantContent(t, s.Store, "o", []byte("x"))
	s.Put(t, "d/e/f/g", []byte("x"))
	if got, want := Names(t, s.Store, "d", ""), []string{"d/e/f/g"}; !slices.Equal(got, want) {
		t.Errorf("List of a subtree that is not empty any more: got %q, want %q", got, want)
	}
}

func eraseOutcomes(t *testing.T, s Subject) {
	s.Put(t, "d/o", []byte("12345"))
	s.Put(t, "d/p", []byte("stays"))
	in, err := s.Store.Stat(t.Context(), "d/o")
	if err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "Erase of nothing", s.Store.Erase(t.Context(), "d/x", in.Version), problem.Missing)
	for _, v := range []token.Version{"x", in.Version + "0", in.Version[1:]} {
		wantProblem(t, fmt.Sprintf("Erase at %q", v), s.Store.Erase(t.Context(), "d/o", v), problem.Changed)
	}
	if err := s.Store.Erase(t.Context(), "d/o", ""); err == nil {
		t.Error("Erase at no version: got nil, want an error")
	}
	for _, name := range []token.ObjectName{"", "../d/o", ".consign/x"} {
		wantProblem(t, "Erase of a bad name", s.Store.Erase(t.Context(), name, in.Version), problem.BadName)
	}
	if err := s.Store.Erase(t.Context(), "d", in.Version); err == nil {
		t.Error("Erase of a subtree: got nil, want an error")
	}
	wantContent(t, s.Store, "d/o", []byte("12345"))
	s.Put(t, "d/o", []byte("another"))
	wantProblem(t, "Erase of what was replaced", s.Store.Erase(t.Context(), "d/o", in.Version), problem.Changed)
	if in, err = s.Store.Stat(t.Context(), "d/o"); err != nil {
		t.Fatal(err)
	}
	if err := s.Store.Erase(t.Context(), "d/o", in.Version); err != nil {
		t.Errorf("Erase: %v", err)
	}
	wantMissing(t, s.Store, "d/o")
	wantProblem(t, "Erase again", s.Store.Erase(t.Context(), "d/o", in.Version), problem.Missing)
	wantContent(t, s.Store, "d/p", []byte("stays"))
	// What was published goes the same way, and the name is free again.
	for i := range 2 {
		it := s.item(0, "d/o", 100)
		out := mustPublish(t, s.Store, store.BatchID(fmt.Sprint("b-", i)), it, Content(i, 100))
		wantContent(t, s.Store, "d/o", Content(i, 100))
		if err := s.Store.Erase(t.Context(), "d/o", out.Info.Version); err != nil {
			t.Errorf("Erase of what was published: %v", err)
		}
		wantMissing(t, s.Store, "d/o")
	}
}

// countLeft counts what is left over of a batch: what Drop can remove, and what only time removes.
func countLeft(t testing.TB, s store.Store, id store.BatchID) (removable, expiring int) {
	t.Helper()
	if err := s.Leftovers(t.Context(), func(l store.Leftover) bool {
		switch {
		case l.Kind == "":
			t.Errorf("a leftover without a kind: %+v", l)
		case l.Batch != id:
		case l.Expires.IsZero():
			removable++
		default:
			expiring++
		}
		return true
	}); err != nil {
		t.Errorf("Leftovers: %v", err)
	}
	return removable, expiring
}

func wantSomeLeft(t testing.TB, s store.Store, id store.BatchID) {
	t.Helper()
	if removable, expiring := countLeft(t, s, id); removable+expiring == 0 {
		t.Errorf("Leftovers: got nothing of %s", id)
	}
}

// wantNoneLeft is how it is after Drop.
func wantNoneLeft(t testing.TB, s store.Store, id store.BatchID) {
	t.Helper()
	if n, _ := countLeft(t, s, id); n != 0 {
		t.Errorf("Leftovers: got %d of %s, want none", n, id)
	}
}

func leftovers(t *testing.T, s Subject) {
	s.Put(t, "theirs", []byte("theirs"))
	data := Content(1, s.large(2))
	for _, id := range []store.BatchID{"b-1", "b-2"} {
		b := openBatch(t, s.Store, id)
		for i := range 2 {
			it := s.item(i, token.ObjectName(fmt.Sprintf("%s-%d", id, i)), len(data))
			st := openStage(t, b, it)
			if err := writePart(t, st, it, 0, data); err != nil {
				t.Fatal(err)
			}
			if err := st.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		published := s.item(2, token.ObjectName(id), len(data))
		stageWhole(t, b, published, data)
		if out := publishOne(t, b, published, data); out.Err != nil {
			t.Fatal(out.Err)
		}
	}
	after := s.Store
	for range 2 {
		n := map[store.BatchID]int{}
		if err := after.Leftovers(t.Context(), func(l store.Leftover) bool {
			n[l.Batch]++
			if l.Name != "" && l.Name != token.ObjectName(string(l.Batch)+"-0") && l.Name != token.ObjectName(string(l.Batch)+"-1") {
				t.Errorf("a leftover under another name: %+v", l)
			}
			return true
		}); err != nil || n["b-1"] < 2 || n["b-2"] < 2 {
			t.Errorf("Leftovers: got %v, %v, want two items of each batch", n, err)
		}
		after = s.kill(t)
	}
	n := 0
	if err := after.Leftovers(t.Context(), func(store.Leftover) bool { n++; return false }); err != nil || n != 1 {
		t.Errorf("stopping at the first: got %d, %v", n, err)
	}
	// A batch of which nothing is open is dropped just so, as a janitor does.
	mustDrop(t, openBatch(t, after, "b-1"))
	wantNoneLeft(t, after, "b-1")
	wantSomeLeft(t, after, "b-2")
	mustDrop(t, openBatch(t, after, "b-2"))
	wantNoneLeft(t, after, "b-2")
	for _, name := range []token.ObjectName{"b-1", "b-2"} {
		wantContent(t, after, name, data)
	}
	wantContent(t, after, "theirs", []byte("theirs"))
	mustDrop(t, openBatch(t, after, "never-used"))
}
