package storetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func publishedEqualsStaged(t *testing.T, s Subject) {
	for i, size := range []int{0, 1, 511, 512, 4096, token.ChunkSize, 3*token.ChunkSize + 7} {
		data := Content(i, size)
		name := token.ObjectName(fmt.Sprintf("dir %d/sub/object-%d", i%2, size))
		b := openBatch(t, s.Store, "b-1")
		st, err := b.Stage(t.Context(), i, int64(size))
		if err != nil {
			t.Fatal(err)
		}
		if !st.Created() {
			t.Error("a new stage says that it is not")
		}
		for off := 0; off < size; off += token.ChunkSize / 2 {
			if _, err := st.WriteAt(data[off:min(off+token.ChunkSize/2, size)], int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		if err := st.Sync(); err != nil {
			t.Fatal(err)
		}
		wantMissing(t, s.Store, name)
		out := publishOne(t, b, i, name, size)
		if out.Err != nil || out.Info.Name != name || out.Info.Size != int64(size) || out.Info.Type != store.Object || out.Info.Version == "" {
			t.Fatalf("Publish: %+v", out)
		}
		wantContent(t, s.Store, name, data)
		if err := b.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantContent(t, s.Store, name, data)
	}
}

func existingIsTaken(t *testing.T, s Subject) {
	s.Put(t, "outside", []byte("theirs"))
	first := Content(1, 100)
	mustPublish(t, s.Store, "b-1", "ours", first)
	for _, tt := range []struct {
		name token.ObjectName
		want []byte
	}{{"outside", []byte("theirs")}, {"ours", first}} {
		b := openBatch(t, s.Store, "b-2")
		stageItem(t, b, 0, Content(2, len(tt.want)))
		for range 2 {
			wantProblem(t, "Publish", publishOne(t, b, 0, tt.name, len(tt.want)).Err, problem.Taken)
		}
		if err := b.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantContent(t, s.Store, tt.name, tt.want)
	}
	// The same bytes by the same id, but after Drop, are not this batch's work any more.
	b := openBatch(t, s.Store, "b-1")
	stageItem(t, b, 0, first)
	wantProblem(t, "Publish", publishOne(t, b, 0, "ours", 100).Err, problem.Taken)
}

const (
	nRaces = 1000 // how often two batches race for one name
	tracks = 8    // how many such pairs race at once
)

func races(t *testing.T, s Subject) {
	var wg sync.WaitGroup
	for track := range tracks {
		var pair [2]store.Batch
		for i := range pair {
			pair[i] = openBatch(t, s.Store, store.BatchID(fmt.Sprintf("racer-%d-%d", track, i)))
		}
		wg.Go(func() {
			for n := track; n < nRaces && !t.Failed(); n += tracks {
				race(t, s.Store, pair, n)
			}
		})
	}
	wg.Wait()
}

// race lets both batches publish item n under one name.
func race(t *testing.T, s store.Store, pair [2]store.Batch, n int) {
	name := token.ObjectName(fmt.Sprintf("d%d/n%d", n%7, n))
	var outs [2]store.Published
	var wg sync.WaitGroup
	for i, b := range pair {
		data := fmt.Appendf(nil, "racer %d", i)
		st, err := b.Stage(t.Context(), n, int64(len(data)))
		if err == nil {
			_, err = st.WriteAt(data, 0)
		}
		if err == nil {
			err = st.Close()
		}
		if err != nil {
			t.Error(err)
			return
		}
	}
	for i, b := range pair {
		wg.Go(func() {
			outs[i] = b.Publish(t.Context(), []store.Publication{{Item: n, Name: name, Size: 7}})[0]
		})
	}
	wg.Wait()
	winner := 0
	if outs[0].Err != nil {
		winner = 1
	}
	if outs[winner].Err != nil {
		t.Errorf("race %d: nobody won: %v, %v", n, outs[0].Err, outs[1].Err)
	}
	wantProblem(t, "the loser's Publish", outs[1-winner].Err, problem.Taken)
	wantContent(t, s, name, fmt.Appendf(nil, "racer %d", winner))
}

func publishAgain(t *testing.T, s Subject) {
	st := s.Store
	b := openBatch(t, st, "b-1")
	data := Content(1, 1000)
	stageItem(t, b, 0, data)
	want := publishOne(t, b, 0, "a/b", 1000)
	if want.Err != nil {
		t.Fatal(want.Err)
	}
	for range 3 {
		again := publishOne(t, b, 0, "a/b", 1000)
		if again.Err != nil || again.Info.Version != want.Info.Version || again.Info.Name != want.Info.Name {
			t.Fatalf("publishing again: got %+v, want %+v", again, want)
		}
		st = s.Kill(t)
		b = openBatch(t, st, "b-1")
		wantContent(t, st, "a/b", data)
	}
	wantProblem(t, "publishing the item under another name", publishOne(t, b, 0, "a/c", 1000).Err, problem.Taken)
	wantMissing(t, st, "a/c")
}

func stageSurvives(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	data := Content(1, 3*token.ChunkSize)
	st, err := b.Stage(t.Context(), 7, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	half := len(data) / 2
	if _, err := st.WriteAt(data[:half], 0); err != nil {
		t.Fatal(err)
	}
	if err := st.Sync(); err != nil {
		t.Fatal(err)
	}
	after := s.Kill(t)
	ids, err := after.Batches(t.Context())
	if err != nil || !slices.Contains(ids, "b-1") {
		t.Fatalf("Batches: got %q, %v, want b-1 among them", ids, err)
	}
	b = openBatch(t, after, "b-1")
	st, err = b.Stage(t.Context(), 7, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if st.Created() {
		t.Error("a stage that survived says that it is new")
	}
	got := make([]byte, half)
	if _, err := st.ReadAt(got, 0); err != nil || !bytes.Equal(got, data[:half]) {
		t.Fatalf("what was synced is not there: %v", err)
	}
	if _, err := st.WriteAt(data[half:], int64(half)); err != nil {
		t.Fatal(err)
	}
	if out := publishOne(t, b, 7, "x", len(data)); out.Err != nil {
		t.Fatal(out.Err)
	}
	wantContent(t, after, "x", data)
}

func sealed(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	data := Content(1, 64)
	stageItem(t, b, 0, data)
	open, err := b.Stage(t.Context(), 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	if out := publishOne(t, b, 0, "x", 64); out.Err != nil {
		t.Fatal(out.Err)
	}
	if _, err := open.WriteAt([]byte("evil"), 0); err == nil {
		t.Error("WriteAt after Publish: got nil, want an error")
	}
	st := s.Kill(t)
	b = openBatch(t, st, "b-1")
	again, err := b.Stage(t.Context(), 0, 64)
	if err == nil {
		if _, err := again.WriteAt([]byte("evil"), 0); err == nil {
			t.Error("WriteAt on a published stage after a kill: got nil, want an error")
		}
	}
	wantContent(t, st, "x", data)
}

func outOfRange(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	st, err := b.Stage(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		n   int
		off int64
	}{{1, 10}, {11, 0}, {2, 9}, {1, -1}, {1, 1<<63 - 1}} {
		if _, err := st.WriteAt(make([]byte, tt.n), tt.off); err == nil {
			t.Errorf("WriteAt of %d bytes at %d of 10: got nil, want an error", tt.n, tt.off)
		}
	}
	if _, err := b.Stage(t.Context(), 1, -1); err == nil {
		t.Error("Stage of -1 bytes: got nil, want an error")
	}
	if _, err := b.Stage(t.Context(), -1, 1); err == nil {
		t.Error("Stage of item -1: got nil, want an error")
	}
	for _, id := range []store.BatchID{"", "..", "a/b", "a b", "a_b", store.BatchID(strings.Repeat("x", 200))} {
		if _, err := s.Store.Batch(t.Context(), id); err == nil {
			t.Errorf("Batch(%q): got nil, want an error", id)
		}
	}
}

func discard(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	st, err := b.Stage(t.Context(), 0, 4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.WriteAt([]byte("old!"), 0); err != nil {
		t.Fatal(err)
	}
	if err := st.Discard(); err != nil {
		t.Fatal(err)
	}
	if st, err = b.Stage(t.Context(), 0, 4); err != nil || !st.Created() {
		t.Fatalf("Stage after Discard: %v; want a new one", err)
	}
	if _, err := st.WriteAt([]byte("new!"), 0); err != nil {
		t.Fatal(err)
	}
	if out := publishOne(t, b, 0, "x", 4); out.Err != nil {
		t.Fatal(out.Err)
	}
	wantContent(t, s.Store, "x", []byte("new!"))
	if err := st.Discard(); err != nil {
		t.Fatal(err)
	}
	wantContent(t, s.Store, "x", []byte("new!"))
}

func drop(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	stageItem(t, b, 0, []byte("kept"))
	stageItem(t, b, 1, []byte("never"))
	out := publishOne(t, b, 0, "x", 4)
	if out.Err != nil {
		t.Fatal(out.Err)
	}
	r, err := s.Store.Open(t.Context(), "x", out.Info.Version)
	if err != nil {
		t.Fatalf("Open at the published version: %v", err)
	}
	defer r.Close()
	for range 2 {
		if err := b.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Check(t.Context()); err != nil {
		t.Errorf("a read that Drop went through: %v", err)
	}
	later, err := s.Store.Open(t.Context(), "x", out.Info.Version)
	if err != nil {
		t.Fatalf("Open at the published version after Drop: %v", err)
	}
	later.Close()
	wantContent(t, s.Store, "x", []byte("kept"))
	if ids, err := s.Store.Batches(t.Context()); err != nil || len(ids) != 0 {
		t.Errorf("Batches after Drop: got %q, %v, want none", ids, err)
	}
	b = openBatch(t, s.Store, "b-1")
	st, err := b.Stage(t.Context(), 1, 5)
	if err != nil || !st.Created() {
		t.Fatalf("Stage after Drop: %v; want a new one", err)
	}
}

func many(t *testing.T, s Subject) {
	for _, n := range []int{3, 70, 200} {
		s.Put(t, token.ObjectName(fmt.Sprintf("m%d/d1/1", n)), []byte("theirs"))
		b := openBatch(t, s.Store, "b-1")
		var pubs []store.Publication
		for i := range n {
			data := Content(i, 10+i)
			stageItem(t, b, i, data)
			name := token.ObjectName(fmt.Sprintf("m%d/d%d/%d", n, i%40, i))
			pubs = append(pubs, store.Publication{Item: i, Name: name, Size: int64(len(data))})
		}
		pubs[2].Name = "bad//name"
		for round := range 2 {
			for i, out := range b.Publish(t.Context(), pubs) {
				switch i {
				case 1:
					wantProblem(t, "Publish", out.Err, problem.Taken)
				case 2:
					wantProblem(t, "Publish", out.Err, problem.BadName)
				default:
					if out.Err != nil {
						t.Fatalf("round %d, %q: %v", round, pubs[i].Name, out.Err)
					}
					wantContent(t, s.Store, pubs[i].Name, Content(i, 10+i))
				}
			}
		}
		wantContent(t, s.Store, pubs[1].Name, []byte("theirs"))
		if err := b.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func claimed(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	_, err := s.Store.Batch(t.Context(), "b-1")
	wantProblem(t, "a second Batch", err, problem.Claimed)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Stage(t.Context(), 0, 1); err == nil {
		t.Error("Stage of a closed batch: got nil, want an error")
	}
	openBatch(t, s.Store, "b-1")
}

func unfit(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	stageItem(t, b, 0, []byte("four"))
	stageItem(t, b, 1, []byte("four"))
	outs := b.Publish(t.Context(), []store.Publication{
		{Item: 0, Name: "x", Size: 5}, {Item: 9, Name: "y", Size: 4}, {Item: 1, Name: "z", Size: 4}, {Item: 1, Name: "zz", Size: 4},
	})
	for i, want := range []bool{false, false, true, false} {
		if got := outs[i].Err == nil; got != want {
			t.Errorf("publication %d: got %v, want success %v", i, outs[i].Err, want)
		}
	}
	for _, name := range []token.ObjectName{"x", "y", "zz"} {
		wantMissing(t, s.Store, name)
	}
}

func cancelled(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	stageItem(t, b, 0, []byte("four"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := b.Publish(ctx, []store.Publication{{Item: 0, Name: "x", Size: 4}})[0]
	wantProblem(t, "Publish", out.Err, problem.Cancelled)
	_, err := s.Store.Stat(ctx, "x")
	wantProblem(t, "Stat", err, problem.Cancelled)
	_, err = s.Store.Open(ctx, "x", "v")
	wantProblem(t, "Open", err, problem.Cancelled)
	_, err = b.Stage(ctx, 1, 1)
	wantProblem(t, "Stage", err, problem.Cancelled)
	wantProblem(t, "Make", s.Store.Make(ctx, "d"), problem.Cancelled)
	_, err = s.Store.Batch(ctx, "b-2")
	wantProblem(t, "Batch", err, problem.Cancelled)
	wantMissing(t, s.Store, "x")
	wantMissing(t, s.Store, "d")
}

func parentIsObject(t *testing.T, s Subject) {
	s.Put(t, "o", []byte("object"))
	b := openBatch(t, s.Store, "b-1")
	stageItem(t, b, 0, []byte("four"))
	for _, name := range []token.ObjectName{"o/x", "o/x/y"} {
		wantProblem(t, "Publish", publishOne(t, b, 0, name, 4).Err, problem.Taken)
	}
	if err := s.Store.Make(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "Publish over a subtree", publishOne(t, b, 0, "d", 4).Err, problem.Taken)
	wantContent(t, s.Store, "o", []byte("object"))
}

func attributes(t *testing.T, s Subject) {
	traits, err := s.Store.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	when := time.Date(1999, 12, 31, 23, 59, 58, 123456000, time.UTC)
	b := openBatch(t, s.Store, "b-1")
	stageItem(t, b, 0, []byte("four"))
	stageItem(t, b, 1, []byte("four"))
	outs := b.Publish(t.Context(), []store.Publication{
		{Item: 0, Name: "x", Size: 4, Attrs: store.Attrs{ModTime: when, Mode: 0o440, HasMode: true, Meta: map[string]string{"k": "v"}}},
		{Item: 1, Name: "y", Size: 4, Attrs: store.Attrs{Mode: 0o6755, HasMode: true}},
	})
	in, err := s.Store.Stat(t.Context(), "x")
	if err != nil || outs[0].Err != nil || outs[1].Err != nil {
		t.Fatal(err, outs[0].Err, outs[1].Err)
	}
	if traits.ModTimes != in.Attrs.ModTime.Equal(when) || traits.ModTimes == slices.Contains(outs[0].Lost, "mtime") {
		t.Errorf("mtime: got %v and lost %q, want %v", in.Attrs.ModTime, outs[0].Lost, when)
	}
	if kept := in.Attrs.HasMode && in.Attrs.Mode == 0o440; traits.Modes != kept || traits.Modes == slices.Contains(outs[0].Lost, "mode") {
		t.Errorf("mode: got %o and lost %q, want 440", in.Attrs.Mode, outs[0].Lost)
	}
	if traits.Meta != (in.Attrs.Meta["k"] == "v") || traits.Meta == slices.Contains(outs[0].Lost, "meta:k") {
		t.Errorf("meta: got %v and lost %q, want k=v", in.Attrs.Meta, outs[0].Lost)
	}
	in, err = s.Store.Stat(t.Context(), "y")
	if err != nil || in.Attrs.Mode&^0o777 != 0 || !slices.Contains(outs[1].Lost, "mode") {
		t.Errorf("setuid: got mode %o, lost %q, %v; want it gone and told", in.Attrs.Mode, outs[1].Lost, err)
	}
}

func concurrent(t *testing.T, s Subject) {
	const size = 4 * token.ChunkSize
	data := Content(3, size)
	b := openBatch(t, s.Store, "b-1")
	var wg sync.WaitGroup
	for item := range 4 {
		st, err := b.Stage(t.Context(), item, size)
		if err != nil {
			t.Fatal(err)
		}
		for off := 0; off < size; off += token.ChunkSize {
			wg.Go(func() {
				if _, err := st.WriteAt(data[off:off+token.ChunkSize], int64(off)); err != nil {
					t.Error(err)
				}
				if err := st.Sync(); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for item := range 4 {
		wg.Go(func() {
			if out := publishOne(t, b, item, token.ObjectName(fmt.Sprintf("p/%d/x", item)), size); out.Err != nil {
				t.Error(out.Err)
			}
		})
	}
	wg.Wait()
	for item := range 4 {
		wantContent(t, s.Store, token.ObjectName(fmt.Sprintf("p/%d/x", item)), data)
	}
}
