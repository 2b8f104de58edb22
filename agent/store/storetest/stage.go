package storetest

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

func outOfRange(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	it := s.item(0, "x", 10)
	st := openStage(t, b, it)
	for _, part := range []int64{-1, 1, 2, 1 << 62} {
		if p, err := st.Part(t.Context(), part); err == nil {
			t.Errorf("Part(%d) of 1: got nil, want an error", part)
			p.Abort()
		}
	}
	for _, n := range []int{0, 9, 11, 100} {
		if err := writeBytes(t, st, 0, make([]byte, n)); err == nil {
			t.Errorf("a part of %d bytes of 10: got nil, want an error", n)
		}
	}
	if out := publishOne(t, b, it, make([]byte, 10)); out.Err == nil {
		t.Error("Publish without a part that counts: got nil, want an error")
	}
	wantMissing(t, s.Store, "x")
	for _, it := range []store.Item{
		{Index: 1, Name: "y", Size: -1, Part: token.ChunkSize}, {Index: -1, Name: "y", Size: 1, Part: token.ChunkSize},
		{Index: 1, Name: "y", Size: 1}, {Index: 1, Name: "y", Size: 1, Part: -token.ChunkSize},
	} {
		if _, err := b.Stage(t.Context(), it); err == nil {
			t.Errorf("Stage(%+v): got nil, want an error", it)
		}
	}
	for _, id := range []store.BatchID{"", "..", "a/b", "a b", "a_b", store.BatchID(strings.Repeat("x", 200))} {
		if _, err := s.Store.Batch(t.Context(), id); err == nil {
			t.Errorf("Batch(%q): got nil, want an error", id)
		}
	}
}

// writeBytes writes a part of any length.
func writeBytes(t testing.TB, st store.Stage, part int64, data []byte) error {
	p, err := st.Part(t.Context(), part)
	if err != nil {
		return err
	}
	if _, err := p.Write(data); err != nil {
		p.Abort()
		return err
	}
	return p.Close()
}

func discard(t *testing.T, s Subject) {
	for i, size := range []int{4, s.large(2)} {
		b := openBatch(t, s.Store, "b-1")
		it := s.item(i, token.ObjectName(fmt.Sprint("x", i)), size)
		st := openStage(t, b, it)
		old, young := Content(1, size), Content(2, size)
		if err := writePart(t, st, it, 0, old); err != nil {
			t.Fatal(err)
		}
		if !st.Holds(0) {
			t.Error("a part that was written is not held")
		}
		if err := st.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st = openStage(t, b, it); st.Holds(0) {
			t.Error("Stage after Discard holds a part")
		}
		for part := range it.Parts() {
			if err := writePart(t, st, it, part, young); err != nil {
				t.Fatal(err)
			}
		}
		if out := publishOne(t, b, it, young); out.Err != nil {
			t.Fatal(out.Err)
		}
		wantContent(t, s.Store, it.Name, young)
		if err := st.Discard(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantContent(t, s.Store, it.Name, young)
		mustDrop(t, b)
	}
}

func partsInAnyOrder(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	for i, part := range []int64{token.ChunkSize, 8 * token.ChunkSize} {
		part = max(part, s.traits.PartSize)
		it := store.Item{Index: i, Name: token.ObjectName(fmt.Sprint("x", i)), Size: 3*part + 4099, Part: part}
		data := Content(i, int(it.Size))
		st := openStage(t, b, it)
		for _, k := range []int64{3, 1, 0, 2} {
			if err := writePart(t, st, it, k, data); err != nil {
				t.Fatal(err)
			}
		}
		// Again, each over other bytes of its own first.
		evil := Content(i+5, int(it.Size))
		for _, k := range []int64{1, 3} {
			if s.Streams {
				evil = data
			}
			for _, d := range [][]byte{evil, data} {
				if err := writePart(t, st, it, k, d); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := st.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		if out := publishOne(t, b, it, data); out.Err != nil {
			t.Fatal(out.Err)
		}
		wantContent(t, s.Store, it.Name, data)
	}
}

func partNotClosed(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	for i, size := range []int{1000, s.large(2)} {
		it := s.item(i, token.ObjectName(fmt.Sprint("x", i)), size)
		data := Content(i, size)
		last := it.Parts() - 1
		off, n := it.Span(last)
		tail := data[off:]
		for name, spoil := range map[string]func(p store.Part){
			"aborted at once":   func(p store.Part) { p.Abort() },
			"aborted half way":  func(p store.Part) { _, _ = p.Write(tail[:n/2]); p.Abort() },
			"aborted whole":     func(p store.Part) { _, _ = p.Write(tail); p.Abort() },
			"closed short":      func(p store.Part) { _, _ = p.Write(tail[1:]); wantFailure(t, p.Close()) },
			"closed empty":      func(p store.Part) { wantFailure(t, p.Close()) },
			"closed long":       func(p store.Part) { writeLong(t, p, tail) },
			"never closed":      func(p store.Part) { _, _ = p.Write(tail) },
			"aborted and again": func(p store.Part) { p.Abort(); p.Abort(); wantFailure(t, p.Close()) },
		} {
			st := openStage(t, b, it)
			for k := range last {
				if err := writePart(t, st, it, k, data); err != nil {
					t.Fatal(err)
				}
			}
			p, err := st.Part(t.Context(), last)
			if err != nil {
				t.Fatal(err)
			}
			spoil(p)
			if st.Holds(last) {
				t.Errorf("%d bytes, %s: the part counts", size, name)
			}
			p.Abort()
			if err := st.Sync(); err != nil {
				t.Errorf("%d bytes, %s: Sync: %v", size, name, err)
			}
			if out := publishOne(t, b, it, data); out.Err == nil {
				t.Fatalf("%d bytes, %s: published", size, name)
			}
			wantMissing(t, s.Store, it.Name)
			if err := st.Discard(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	rewriteAborted(t, s, b)
}

func wantFailure(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		t.Error("closing a part that is not whole: got nil, want an error")
	}
}

func writeLong(t testing.TB, p store.Part, tail []byte) {
	t.Helper()
	_, err := p.Write(slices.Concat(tail, []byte("!")))
	if cerr := p.Close(); err == nil && cerr == nil {
		t.Error("a part with a byte too many: got nil, want an error")
	}
}

// rewriteAborted begins a part again that counts, with other bytes, and gives it up: what is held
// and published afterwards are not those bytes.
func rewriteAborted(t *testing.T, s Subject, b store.Batch) {
	for i, size := range []int{1000, s.large(2)} {
		it := s.item(10+i, token.ObjectName(fmt.Sprint("again", i)), size)
		data := Content(i, size)
		st := openStage(t, b, it)
		for part := range it.Parts() {
			if err := writePart(t, st, it, part, data); err != nil {
				t.Fatal(err)
			}
		}
		p, err := st.Part(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(Content(i+3, size/2)[:min(500, size/2)]); err != nil {
			t.Fatal(err)
		}
		p.Abort()
		if !st.Holds(0) {
			if err := writePart(t, st, it, 0, data); err != nil {
				t.Fatal(err)
			}
		}
		if out := publishOne(t, b, it, data); out.Err != nil {
			t.Fatal(out.Err)
		}
		wantContent(t, s.Store, it.Name, data)
	}
}

func concurrent(t *testing.T, s Subject) {
	size := s.large(4)
	data := Content(3, size)
	b := openBatch(t, s.Store, "b-1")
	var wg sync.WaitGroup
	items := make([]store.Item, 3)
	for i := range items {
		items[i] = s.item(i, token.ObjectName(fmt.Sprintf("p/%d/x", i)), size)
		st := openStage(t, b, items[i])
		for part := range items[i].Parts() {
			wg.Go(func() {
				if err := writePart(t, st, items[i], part, data); err != nil {
					t.Error(err)
				}
				if err := st.Sync(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for _, it := range items {
		wg.Go(func() {
			if out := publishOne(t, b, it, data); out.Err != nil {
				t.Error(out.Err)
			}
		})
	}
	wg.Wait()
	for _, it := range items {
		wantContent(t, s.Store, it.Name, data)
	}
}

func reread(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	for i, size := range []int{1, 1000, token.ChunkSize, s.large(3)} {
		it := s.item(i, token.ObjectName(fmt.Sprint("x", i)), size)
		data := Content(i, size)
		st := openStage(t, b, it)
		for part := range it.Parts() {
			if err := writePart(t, st, it, part, data); err != nil {
				t.Fatal(err)
			}
		}
		if !s.traits.Rereads && size > token.ChunkSize {
			if _, err := st.ReadAt(make([]byte, 1), 0); err == nil {
				t.Error("ReadAt where the store cannot: got nil, want an error")
			}
			continue
		}
		if !s.traits.Rereads {
			continue // of small ones either is fine
		}
		for range 20 {
			off := rand.IntN(size)
			buf := make([]byte, 1+rand.IntN(size))
			n, err := st.ReadAt(buf, int64(off))
			want := data[off:min(off+len(buf), size)]
			if !slices.Equal(buf[:n], want) || (err != nil) != (len(want) < len(buf)) || err != nil && err != io.EOF { //nolint:errorlint // io.ReaderAt returns io.EOF itself
				t.Errorf("ReadAt of %d bytes at %d of %d: got %d, %v", len(buf), off, size, n, err)
			}
		}
	}
}
