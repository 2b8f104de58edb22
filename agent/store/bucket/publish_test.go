package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token/problem"
)

// begun returns a batch with a stage of the large item, written whole.
func begun(t *testing.T, s store.Store) (store.Batch, store.Stage, want) {
	t.Helper()
	b, err := s.Batch(t.Context(), "b-1")
	if err != nil {
		t.Fatal(err)
	}
	w := lifeItems()[0]
	if err := newAgent(t, s).stage(t.Context(), b, w); err != nil {
		t.Fatal(err)
	}
	st, err := b.Stage(t.Context(), w.item)
	if err != nil {
		t.Fatal(err)
	}
	return b, st, w
}

func publish(ctx context.Context, b store.Batch, w want) store.Published {
	return b.Publish(ctx, []store.Publication{{Item: w.item, Root: storetest.Root(w.data)}})[0]
}

// TestLostCompletionIsWaitedFor: after an answer was lost, an upload that is gone may be about to be the object.
func TestLostCompletionIsWaitedFor(t *testing.T) {
	t.Parallel()
	svc := backendtest.New(backendtest.Options{})
	b, _, w := begun(t, open(svc, nil, ""))
	n := 0
	svc.Fail(func(c backendtest.Call) backendtest.Fault {
		if c.Op != "Complete" {
			return backendtest.Fault{}
		}
		n++
		return map[int]backendtest.Fault{1: {Err: &bucket.Away{Err: errors.New("lost")}}, 2: {Err: bucket.ErrNoUpload}}[n]
	})
	if out := publish(t.Context(), b, w); out.Err != nil {
		t.Errorf("got %v, want success at the third try", out.Err)
	}
	if got, _ := svc.Content("d/item-0"); !bytes.Equal(got, w.data) {
		t.Error("other bytes")
	}
}

// TestRewrittenPartMustCount: a part that counted is begun again with other bytes, which arrive whole while the answer is lost.
func TestRewrittenPartMustCount(t *testing.T) {
	t.Parallel()
	svc := backendtest.New(backendtest.Options{})
	b, st, w := begun(t, open(svc, nil, ""))
	svc.Fail(func(backendtest.Call) backendtest.Fault {
		return backendtest.Fault{Err: &bucket.Away{Err: errors.New("lost")}, Done: true}
	})
	p, err := st.Part(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	_, werr := p.Write(storetest.Content(9, part))
	if err := p.Close(); problem.Of(err) != problem.StoreAway && problem.Of(werr) != problem.StoreAway {
		t.Fatalf("got %v and %v, want %s", werr, err, problem.StoreAway)
	}
	svc.Fail(nil)
	if st.Holds(0) {
		t.Error("a part that was begun again and not closed is held")
	}
	if out := publish(t.Context(), b, w); !errors.Is(out.Err, store.ErrLost) {
		t.Errorf("Publish: got %v, want %v", out.Err, store.ErrLost)
	}
	if _, there := svc.Content("d/item-0"); there {
		t.Error("it was published all the same")
	}
}

// TestPartsOfOtherSizesAreNotHeld: what the service lists counts by its size.
func TestPartsOfOtherSizesAreNotHeld(t *testing.T) {
	t.Parallel()
	for _, named := range []bool{false, true} {
		svc, notes := backendtest.New(backendtest.Options{Named: named}), newNotebook()
		_, _, w := begun(t, open(svc, notes, ""))
		for index, size := range map[int64]int{1: 10, 2: 4098, 5: part} {
			if _, err := svc.Backend().PutPart(t.Context(), svc.Unfinished()[0], index, bytes.NewReader(make([]byte, size)), int64(size)); err != nil {
				t.Fatal(err)
			}
		}
		b, err := open(svc, notes, "").Batch(t.Context(), "b-1")
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.Stage(t.Context(), w.item)
		if err != nil {
			t.Fatal(err)
		}
		for part, want := range map[int64]bool{0: true, 1: false, 2: false, 3: false, 5: false, -1: false} {
			if got := st.Holds(part); got != want {
				t.Errorf("named %v: Holds(%d): got %v, want %v", named, part, got, want)
			}
		}
	}
}

// TestServiceForgetsThePin: the answer itself says that it is of another version.
func TestServiceForgetsThePin(t *testing.T) {
	t.Parallel()
	svc := backendtest.New(backendtest.Options{Lie: backendtest.ForgetsPins})
	svc.Set("x", []byte("old"), nil)
	s := open(svc, nil, "")
	in, err := s.Stat(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	svc.Set("x", []byte("new"), nil)
	r, err := s.Open(t.Context(), "x", in.Version)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(t, r, 0, 3); problem.Of(err) != problem.Changed || len(got) != 0 {
		t.Errorf("Section: got %q and %v, want %s", got, err, problem.Changed)
	}
	if _, err := r.Info(t.Context()); problem.Of(err) != problem.Changed {
		t.Errorf("Info: got %v, want %s", err, problem.Changed)
	}
	if err := r.Check(t.Context()); problem.Of(err) != problem.Changed {
		t.Errorf("Check: got %v, want %s", err, problem.Changed)
	}
}

// TestPartClosedAfterPublish was open when Publish was asked for; it does not count any more.
func TestPartClosedAfterPublish(t *testing.T) {
	t.Parallel()
	svc := backendtest.New(backendtest.Options{})
	b, st, w := begun(t, open(svc, nil, ""))
	p, err := st.Part(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(w.data[part : 2*part]); err != nil {
		t.Fatal(err)
	}
	if out := publish(t.Context(), b, w); !errors.Is(out.Err, store.ErrLost) {
		t.Errorf("Publish with a part open: got %v, want %v", out.Err, store.ErrLost)
	}
	if err := p.Close(); err == nil || st.Holds(1) {
		t.Errorf("Close after Publish: got %v and held %v, want an error", err, st.Holds(1))
	}
}

func TestEraseWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	svc := backendtest.New(backendtest.Options{})
	svc.Set("x", []byte("x"), nil)
	s := open(svc, nil, "")
	in, err := s.Stat(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	lost := true
	svc.Fail(func(backendtest.Call) (f backendtest.Fault) {
		if lost {
			f = backendtest.Fault{Err: &bucket.Away{Err: errors.New("lost")}, Done: true}
		}
		lost = false
		return f
	})
	if err := s.Erase(t.Context(), "x", in.Version); err != nil {
		t.Errorf("got %v, want that it is erased", err)
	}
	if err := s.Erase(t.Context(), "x", in.Version); problem.Of(err) != problem.Missing {
		t.Errorf("again: got %v, want %s", err, problem.Missing)
	}
}

// TestPublishThatIsCancelledOnItsWay: nobody can say whether it was published, and it is not said that it was not.
func TestPublishThatIsCancelledOnItsWay(t *testing.T) {
	t.Parallel()
	svc := backendtest.New(backendtest.Options{})
	b, _, w := begun(t, open(svc, nil, ""))
	ctx, cancel := context.WithCancel(t.Context())
	svc.Fail(func(c backendtest.Call) backendtest.Fault {
		if c.Op == "Complete" {
			cancel()
		}
		return backendtest.Fault{Stall: c.Op == "Complete"}
	})
	out := publish(ctx, b, w)
	if problem.Of(out.Err) != problem.StoreAway || !errors.Is(out.Err, context.Canceled) {
		t.Errorf("got %v, want %s because of %v", out.Err, problem.StoreAway, context.Canceled)
	}
	svc.Fail(nil)
	if out := publish(t.Context(), b, w); out.Err != nil {
		t.Errorf("again: %v", out.Err)
	}
}

// TestTwoWritersOfAPart: the one whose Close comes last is not the one whose bytes did.
func TestTwoWritersOfAPart(t *testing.T) {
	t.Parallel()
	svc := backendtest.New(backendtest.Options{})
	b, st, w := begun(t, open(svc, nil, ""))
	mark := func() string {
		ps, err := svc.Backend().Parts(t.Context(), svc.Unfinished()[0])
		if err != nil {
			t.Fatal(err)
		}
		return ps[0].Mark
	}
	write := func() store.Part {
		old := mark()
		p, err := st.Part(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(w.data[:part]); err != nil {
			t.Fatal(err)
		}
		for until := time.After(10 * time.Second); mark() == old; {
			select {
			case <-until:
				t.Fatal("the part does not arrive")
			case <-time.After(time.Millisecond):
			}
		}
		return p
	}
	first := write()
	second := write()
	if err := errors.Join(second.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	if out := publish(t.Context(), b, w); out.Err != nil {
		t.Errorf("Publish: %v", out.Err)
	}
}
