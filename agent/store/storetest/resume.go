package storetest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func stageSurvives(t *testing.T, s Subject) {
	it := s.item(7, "x", s.large(4))
	data := Content(1, s.large(4))
	st := openStage(t, openBatch(t, s.Store, "b-1"), it)
	for _, part := range []int64{0, 2} {
		if err := writePart(t, st, it, part, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Sync(); err != nil {
		t.Fatal(err)
	}
	after := s.kill(t)
	wantSomeLeft(t, after, "b-1")
	b := openBatch(t, after, "b-1")
	st = openStage(t, b, it)
	for part, want := range []bool{true, false, true, false} {
		if got := st.Holds(int64(part)); got != want && !s.Guesses || want && !got {
			t.Errorf("Holds(%d) after a kill: got %v, want %v", part, got, want)
		}
	}
	for _, part := range []int64{3, 1} {
		if err := writePart(t, st, it, part, data); err != nil {
			t.Fatal(err)
		}
	}
	if out := publishOne(t, b, it, data); out.Err != nil {
		t.Fatal(out.Err)
	}
	wantContent(t, after, "x", data)
}

// publishWithoutStage publishes after a kill in a batch where nothing was staged since.
func publishWithoutStage(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	var pubs []store.Publication
	var before []store.Published
	for i, size := range []int{100, s.large(2), 100, s.large(2)} {
		it := s.item(i, token.ObjectName(fmt.Sprint("x", i)), size)
		stageWhole(t, b, it, Content(i, size))
		pubs = append(pubs, publication(it, Content(i, size)))
	}
	before = b.Publish(t.Context(), pubs[:2])
	after := s.kill(t)
	b = openBatch(t, after, "b-1")
	outs := b.Publish(t.Context(), pubs)
	for i, out := range outs {
		data := Content(i, int(pubs[i].Size))
		switch {
		case i < 2 && (out.Err != nil || before[i].Err != nil || out.Info.Version != before[i].Info.Version):
			t.Errorf("item %d, published before: got %+v, want %+v", i, out, before[i])
		case i < 2 || out.Err == nil:
			wantContent(t, after, pubs[i].Name, data)
		case !errors.Is(out.Err, store.ErrLost):
			t.Errorf("item %d, staged before: got %v, want success or ErrLost", i, out.Err)
		default:
			wantMissing(t, after, pubs[i].Name)
			stageAnew(t, after, b, pubs[i].Item, data)
		}
	}
}

// stageAnew does what ErrLost asks for.
func stageAnew(t *testing.T, s store.Store, b store.Batch, it store.Item, data []byte) {
	t.Helper()
	if err := openStage(t, b, it).Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
	stageWhole(t, b, it, data)
	if out := publishOne(t, b, it, data); out.Err != nil {
		t.Fatalf("Publish of what was staged anew: %v", out.Err)
	}
	wantContent(t, s, it.Name, data)
}

func smallAfterKill(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	var pubs []store.Publication
	for i, size := range []int{1, 1000, token.ChunkSize} {
		it := s.item(i, token.ObjectName(fmt.Sprint("x", i)), size)
		stageWhole(t, b, it, Content(i, size))
		pubs = append(pubs, publication(it, Content(i, size)))
	}
	first := b.Publish(t.Context(), pubs[:1])[0]
	if first.Err != nil {
		t.Fatal(first.Err)
	}
	after := s.kill(t)
	b = openBatch(t, after, "b-1")
	outs := b.Publish(t.Context(), pubs)
	if outs[0].Err != nil || outs[0].Info.Version != first.Info.Version {
		t.Errorf("published before the kill: got %+v, want %+v", outs[0], first)
	}
	for i, out := range outs[1:] {
		pub := pubs[1+i]
		data := Content(1+i, int(pub.Size))
		if !s.traits.Volatile {
			if out.Err != nil {
				t.Errorf("staged before the kill: %v", out.Err)
			}
			wantContent(t, after, pub.Name, data)
			continue
		}
		if !errors.Is(out.Err, store.ErrLost) {
			t.Errorf("staged in memory before the kill: got %v, want ErrLost", out.Err)
		}
		wantMissing(t, after, pub.Name)
		if openStage(t, b, pub.Item).Holds(0) {
			t.Error("a part in memory is held after a kill")
		}
		stageAnew(t, after, b, pub.Item, data)
	}
	volatileClose(t, s, after)
}

// volatileClose closes a batch and opens it again, which is no kill, but takes what is in memory.
func volatileClose(t *testing.T, s Subject, st store.Store) {
	b := openBatch(t, st, "b-2")
	it := s.item(0, "closed", 10)
	stageWhole(t, b, it, Content(1, 10))
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = openBatch(t, st, "b-2")
	if held := openStage(t, b, it).Holds(0); held == s.traits.Volatile {
		t.Errorf("a small stage after Close of its batch: held %v, and the store says volatile %v", held, s.traits.Volatile)
	}
}

func origins(t *testing.T, s Subject) {
	s.Put(t, "theirs", []byte("theirs"))
	if in, err := s.Store.Stat(t.Context(), "theirs"); err != nil || in.Origin != "" {
		t.Errorf("Stat of what nobody staged: origin %q, %v, want none", in.Origin, err)
	}
	b := openBatch(t, s.Store, "b-1")
	for i, size := range []int{0, 100, s.large(2)} {
		it, data := s.item(i, token.ObjectName(fmt.Sprint("x", i)), size), Content(i, size)
		stageWhole(t, b, it, data)
		out := publishOne(t, b, it, data)
		if out.Err != nil {
			t.Fatal(out.Err)
		}
		if out.Info.Origin != "" && out.Info.Origin != store.OriginOf("b-1", i) {
			t.Errorf("Publish: got origin %q, want %q or none", out.Info.Origin, store.OriginOf("b-1", i))
		}
		in, err := s.Store.Stat(t.Context(), it.Name)
		if err != nil || in.Origin != out.Info.Origin {
			t.Errorf("Stat: got origin %q, %v; Publish said %q", in.Origin, err, out.Info.Origin)
		}
		r, err := s.Store.Open(t.Context(), it.Name, in.Version)
		if err != nil {
			t.Fatal(err)
		}
		if in, err = r.Info(t.Context()); err != nil || in.Origin != out.Info.Origin {
			t.Errorf("Info: got origin %q, %v; Publish said %q", in.Origin, err, out.Info.Origin)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if len(in.Attrs.Meta) > 0 {
			t.Errorf("metadata of what had none: got %q", in.Attrs.Meta)
		}
	}
}

// forgedOrigin is what somebody does who may write to the store, and wants his object taken for the agent's.
func forgedOrigin(t *testing.T, s Subject) {
	b := openBatch(t, s.Store, "b-1")
	it, data := s.item(0, "x", 100), Content(1, 100)
	stageWhole(t, b, it, data)
	if s.Forge != nil {
		s.Forge(t, "x", Content(2, 100), store.OriginOf("b-1", 0))
		wantProblem(t, "Publish over a forged object", publishOne(t, b, it, data).Err, problem.Taken)
		if in, err := s.Store.Stat(t.Context(), "x"); err != nil || len(in.Attrs.Meta) != 0 {
			t.Errorf("Stat of a forged object: metadata %q, %v, want none, for the key is ours", in.Attrs.Meta, err)
		}
		wantContent(t, s.Store, "x", Content(2, 100))
	}
	// By the metadata of a source that is under somebody else's control.
	for i, size := range []int{100, s.large(2)} {
		it, data := s.item(1+i, token.ObjectName(fmt.Sprint("y", i)), size), Content(1, size)
		it.Attrs.Meta = map[string]string{
			"consign-transfer": "b-2/0", "consign_transfer": "b-2/0", "Consign-Transfer": "b-2/0", "consign-digest": string(Root(data)), "consign_digest": string(Root(data)),
		}
		stageWhole(t, b, it, data)
		out := publishOne(t, b, it, data)
		if out.Err != nil {
			t.Fatal(out.Err)
		}
		in := wantExact(t, s.Store, it, out)
		if in.Origin != "" && in.Origin != store.OriginOf("b-1", 1+i) {
			t.Errorf("origin: got %q, want that of the stage", in.Origin)
		}
		other := openBatch(t, s.Store, "b-2")
		it.Index, it.Attrs = 0, store.Attrs{}
		stageWhole(t, other, it, data)
		wantProblem(t, "Publish by the forged origin", publishOne(t, other, it, data).Err, problem.Taken)
		mustDrop(t, other)
	}
}
