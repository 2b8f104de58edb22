package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func publishedEqualsStaged(t *testing.T, s Subject) {
	sizes := []int{0, 1, 511, 512, 4096, token.ChunkSize - 1, token.ChunkSize, token.ChunkSize + 1, s.part(), s.large(2), s.large(4)}
	for i, size := range sizes {
		data := Content(i, size)
		it := s.item(i, token.ObjectName(fmt.Sprintf("dir %d/sub/object-%d-%d", i%2, i, size)), size)
		b := openBatch(t, s.Store, "b-1")
		stageWhole(t, b, it, data)
		wantMissing(t, s.Store, it.Name)
		out := publishOne(t, b, it, data)
		if out.Err != nil || out.Info.Name != it.Name || out.Info.Size != it.Size || out.Info.Type != store.Object || out.Info.Version == "" {
			t.Fatalf("Publish: %+v", out)
		}
		wantContent(t, s.Store, it.Name, data)
		mustDrop(t, b)
		wantContent(t, s.Store, it.Name, data)
	}
}

func existingIsTaken(t *testing.T, s Subject) {
	s.Put(t, "outside", []byte("theirs"))
	s.Put(t, "outside-large", []byte("theirs"))
	first, big := Content(1, 100), Content(3, s.large(2))
	mustPublish(t, s.Store, "b-1", s.item(0, "ours", 100), first)
	mustPublish(t, s.Store, "b-1", s.item(1, "ours-large", len(big)), big)
	for _, tt := range []struct {
		name token.ObjectName
		size int
		want []byte
	}{
		{"outside", 6, []byte("theirs")}, {"outside-large", len(big), []byte("theirs")},
		{"ours", 100, first}, {"ours-large", len(big), big}, {"ours", len(big), first}, {"ours-large", 100, big},
	} {
		b := openBatch(t, s.Store, "b-2")
		it, data := s.item(0, tt.name, tt.size), Content(2, tt.size)
		stageWhole(t, b, it, data)
		for range 2 {
			wantProblem(t, "Publish", publishOne(t, b, it, data).Err, problem.Taken)
		}
		mustDrop(t, b)
		wantContent(t, s.Store, tt.name, tt.want)
	}
	afterDrop(t, s, first)
}

// afterDrop stages the item that became "ours" once more in a batch of the same id: after Drop it is not
// the batch's work any more, but where the object says that it is, that is believed if the content is the same.
func afterDrop(t *testing.T, s Subject, first []byte) {
	before, err := s.Store.Stat(t.Context(), "ours")
	if err != nil {
		t.Fatal(err)
	}
	it := s.item(0, "ours", 100)
	b := openBatch(t, s.Store, "b-1")
	stageWhole(t, b, it, first)
	out := publishOne(t, b, it, first)
	if out.Err != nil || before.Origin == "" {
		wantProblem(t, "Publish", out.Err, problem.Taken)
	} else if out.Info.Version != before.Version {
		t.Errorf("Publish: got version %q, want %q, which was there", out.Info.Version, before.Version)
	}
	mustDrop(t, b)
	b = openBatch(t, s.Store, "b-1")
	other := Content(9, 100)
	stageWhole(t, b, it, other)
	wantProblem(t, "Publish of other content by the same origin", publishOne(t, b, it, other).Err, problem.Taken)
	wantContent(t, s.Store, "ours", first)
}

func publishAgain(t *testing.T, s Subject) {
	st := s.Store
	for i, size := range []int{0, 1000, s.large(2)} {
		data := Content(i, size)
		it := s.item(i, token.ObjectName(fmt.Sprintf("a/b%d", i)), size)
		b := openBatch(t, st, store.BatchID(fmt.Sprint("b-", i)))
		stageWhole(t, b, it, data)
		want := publishOne(t, b, it, data)
		if want.Err != nil {
			t.Fatal(want.Err)
		}
		for range 3 {
			again := publishOne(t, b, it, data)
			if again.Err != nil || again.Info.Version != want.Info.Version || again.Info.Name != want.Info.Name || again.Info.Size != want.Info.Size {
				t.Fatalf("publishing again: got %+v, want %+v", again, want)
			}
			st = s.kill(t)
			b = openBatch(t, st, store.BatchID(fmt.Sprint("b-", i)))
			wantContent(t, st, it.Name, data)
		}
		it.Name = token.ObjectName(fmt.Sprintf("a/c%d", i))
		if out := publishOne(t, b, it, data); problem.Of(out.Err) != problem.Taken && !errors.Is(out.Err, store.ErrLost) {
			t.Errorf("publishing the item under another name: got %v, want %q or ErrLost", out.Err, problem.Taken)
		}
		wantMissing(t, st, it.Name)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func sealed(t *testing.T, s Subject) {
	st := s.Store
	for i, size := range []int{64, s.large(2)} {
		b := openBatch(t, st, store.BatchID(fmt.Sprint("b-", i)))
		data, evil := Content(i, size), Content(i+7, size)
		it := s.item(0, token.ObjectName(fmt.Sprint("x", i)), size)
		stageWhole(t, b, it, data)
		open := openStage(t, b, it)
		if out := publishOne(t, b, it, data); out.Err != nil {
			t.Fatal(out.Err)
		}
		if err := writePart(t, open, it, 0, evil); err == nil {
			t.Error("writing a part after Publish: got nil, want an error")
		}
		wantContent(t, st, it.Name, data)
		st = s.kill(t)
		b = openBatch(t, st, store.BatchID(fmt.Sprint("b-", i)))
		// A store that no longer has the stage may take one anew, but not publish it.
		if tryStage(t, b, it, evil) == nil {
			wantProblem(t, "Publish of other content after a kill", publishOne(t, b, it, evil).Err, problem.Taken)
		}
		wantContent(t, st, it.Name, data)
		mustDrop(t, b)
		wantContent(t, st, it.Name, data)
	}
}

func drop(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	kept, never, begun := s.item(0, "x", 4), s.item(1, "y", 5), s.item(2, "z", s.large(2))
	stageWhole(t, b, kept, []byte("kept"))
	stageWhole(t, b, never, []byte("never"))
	if err := writePart(t, openStage(t, b, begun), begun, 0, Content(2, s.large(2))); err != nil {
		t.Fatal(err)
	}
	out := publishOne(t, b, kept, []byte("kept"))
	if out.Err != nil {
		t.Fatal(out.Err)
	}
	r, err := s.Store.Open(t.Context(), "x", out.Info.Version)
	if err != nil {
		t.Fatalf("Open at the published version: %v", err)
	}
	defer r.Close()
	for range 2 {
		mustDrop(t, b)
	}
	if data, err := readSection(t, r, 0, 4); string(data) != "kept" || err != nil {
		t.Errorf("a read that Drop went through: got %q, %v", data, err)
	}
	if err := r.Check(t.Context()); err != nil {
		t.Errorf("a read that Drop went through: %v", err)
	}
	if data, err := readPinned(t, s.Store, "x", out.Info.Version); string(data) != "kept" || err != nil {
		t.Errorf("reading the published version after Drop: got %q, %v", data, err)
	}
	wantContent(t, s.Store, "x", []byte("kept"))
	wantMissing(t, s.Store, "y")
	wantMissing(t, s.Store, "z")
	wantNoneLeft(t, s.Store, "b-1")
	b = openBatch(t, s.Store, "b-1")
	for _, it := range []store.Item{never, begun} {
		if openStage(t, b, it).Holds(0) {
			t.Errorf("item %d after Drop: a part of a new stage is held", it.Index)
		}
	}
}

func many(t *testing.T, s Subject) {
	for _, n := range []int{3, 70, 200} {
		s.Put(t, token.ObjectName(fmt.Sprintf("m%d/d1/1", n)), []byte("theirs"))
		b := openBatch(t, s.Store, "b-1")
		var pubs []store.Publication
		for i := range n {
			data := Content(i, 10+i)
			it := s.item(i, token.ObjectName(fmt.Sprintf("m%d/d%d/%d", n, i%40, i)), len(data))
			if i != 2 {
				stageWhole(t, b, it, data)
			} else {
				it.Name = "bad//name"
			}
			pubs = append(pubs, publication(it, data))
		}
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
		mustDrop(t, b)
	}
}

func claimed(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	_, err := s.Store.Batch(t.Context(), "b-1")
	wantProblem(t, "a second Batch", err, problem.Claimed)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Stage(t.Context(), s.item(0, "x", 1)); err == nil {
		t.Error("Stage of a closed batch: got nil, want an error")
	}
	if out := publishOne(t, b, s.item(0, "x", 1), []byte("x")); out.Err == nil {
		t.Error("Publish of a closed batch: got nil, want an error")
	}
	openBatch(t, s.Store, "b-1")
}

func unfit(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	four := []byte("four")
	stageWhole(t, b, s.item(0, "x", 4), four)
	stageWhole(t, b, s.item(1, "z", 4), four)
	half, begun := s.item(2, "half", s.large(2)), s.item(3, "begun", 4)
	if err := writePart(t, openStage(t, b, half), half, 0, Content(2, s.large(2))); err != nil {
		t.Fatal(err)
	}
	openStage(t, b, begun)
	pubs := []store.Publication{
		publication(s.item(0, "x", 5), []byte("five!")), publication(s.item(9, "y", 4), four), publication(s.item(1, "z", 4), four),
		publication(s.item(1, "zz", 4), four), publication(half, Content(2, s.large(2))), publication(begun, four),
	}
	outs := b.Publish(t.Context(), pubs)
	for i, want := range []bool{false, false, true, false, false, false} {
		if got := outs[i].Err == nil; got != want {
			t.Errorf("publication %d: got %v, want success %v", i, outs[i].Err, want)
		}
		if !want {
			wantMissing(t, s.Store, pubs[i].Name)
		}
	}
	for _, i := range []int{1, 4, 5} {
		if !errors.Is(outs[i].Err, store.ErrLost) {
			t.Errorf("publication %d, of what was never staged whole: got %v, want ErrLost", i, outs[i].Err)
		}
	}
}

func cancelled(t *testing.T, s Subject) {
	s.Put(t, "there", []byte("1234"))
	in, err := s.Store.Stat(t.Context(), "there")
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Store.Open(t.Context(), "there", in.Version)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := openBatch(t, s.Store, "b-1")
	it := s.item(0, "x", 4)
	stageWhole(t, b, it, []byte("four"))
	open := openStage(t, b, s.item(1, "y", 4))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out := b.Publish(ctx, []store.Publication{publication(it, []byte("four"))})[0]
	wantProblem(t, "Publish", out.Err, problem.Cancelled)
	_, err = s.Store.Stat(ctx, "x")
	wantProblem(t, "Stat", err, problem.Cancelled)
	_, err = s.Store.Open(ctx, "there", in.Version)
	wantProblem(t, "Open", err, problem.Cancelled)
	wantProblem(t, "reading", readWith(ctx, r, 4), problem.Cancelled)
	_, err = b.Stage(ctx, s.item(2, "z", 1))
	wantProblem(t, "Stage", err, problem.Cancelled)
	_, err = open.Part(ctx, 0)
	wantProblem(t, "Part", err, problem.Cancelled)
	wantProblem(t, "Make", s.Store.Make(ctx, "d"), problem.Cancelled)
	wantProblem(t, "Erase", s.Store.Erase(ctx, "there", in.Version), problem.Cancelled)
	_, err = s.Store.Batch(ctx, "b-2")
	wantProblem(t, "Batch", err, problem.Cancelled)
	wantProblem(t, "List", s.Store.List(ctx, "", "", func(store.Info, error) bool { return true }), problem.Cancelled)
	_, err = s.Store.Probe(ctx)
	wantProblem(t, "Probe", err, problem.Cancelled)
	wantMissing(t, s.Store, "x")
	wantMissing(t, s.Store, "d")
	wantContent(t, s.Store, "there", []byte("1234"))
	if out := publishOne(t, b, it, []byte("four")); out.Err != nil {
		t.Errorf("Publish after one that was cancelled: %v", out.Err)
	}
}

// readWith reads a section and returns its error.
func readWith(ctx context.Context, r store.Reader, n int64) error {
	sec, err := r.Section(ctx, 0, n)
	if err != nil {
		return err
	}
	_, err = io.ReadAll(sec)
	return errors.Join(err, sec.Close())
}

func parentIsObject(t *testing.T, s Subject) {
	s.Put(t, "o", []byte("object"))
	b := openBatch(t, s.Store, "b-1")
	for i, name := range []token.ObjectName{"o/x", "o/x2/y"} {
		it := s.item(i, name, 4)
		stageWhole(t, b, it, []byte("four"))
		out := publishOne(t, b, it, []byte("four"))
		if !s.traits.Flat {
			wantProblem(t, "Publish", out.Err, problem.Taken)
			continue
		}
		if out.Err != nil {
			t.Errorf("Publish(%q) where a name may be an object and have others below it: %v", name, out.Err)
		}
		wantContent(t, s.Store, name, []byte("four"))
	}
	if err := s.Store.Make(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	it := s.item(5, "d", 4)
	stageWhole(t, b, it, []byte("four"))
	if out := publishOne(t, b, it, []byte("four")); !s.traits.Flat || out.Err != nil {
		wantProblem(t, "Publish over a subtree", out.Err, problem.Taken)
	}
	wantContent(t, s.Store, "o", []byte("object"))
}

func probed(t *testing.T, s Subject) {
	s.Put(t, "d/o", []byte("theirs"))
	for range 2 {
		traits, err := s.Store.Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if traits.Exclusive == "" || traits.PartSize < token.ChunkSize || traits.PartSize&(traits.PartSize-1) != 0 || traits.MaxParts < 1 {
			t.Errorf("Probe: %+v", traits)
		}
		if traits != s.traits {
			t.Errorf("Probe: got %+v, and on another subject %+v", traits, s.traits)
		}
	}
	if got := Names(t, s.Store, "", ""); len(got) != 1 || got[0] != "d/o" {
		t.Errorf("Probe left %q", got)
	}
	if err := s.Store.Leftovers(t.Context(), func(l store.Leftover) bool {
		if l.Expires.IsZero() {
			t.Errorf("Probe left %+v", l)
		}
		return true
	}); err != nil {
		t.Error(err)
	}
}
