package bucket_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
	"github.com/consign-transfer/consign/token/problem"
)

// A slow service takes its time to make an object of its parts, does not list them meanwhile, and goes on when the one who asked is gone.
type slow struct {
	bucket.Backend
	busy *atomic.Bool
	rest func() error // finishes what was asked for
}

func (s *slow) Complete(ctx context.Context, up bucket.Upload, parts []bucket.Part, h bucket.Header) (bucket.Object, error) {
	if s.rest == nil {
		s.busy.Store(true)
		s.rest = func() error {
			s.busy.Store(false)
			_, err := s.Backend.Complete(context.WithoutCancel(ctx), up, parts, h)
			return err
		}
		return bucket.Object{}, errKilled
	}
	if s.busy.Load() {
		return bucket.Object{}, bucket.ErrNoUpload
	}
	return s.Backend.Complete(ctx, up, parts, h)
}

func (s *slow) Parts(ctx context.Context, up bucket.Upload) ([]bucket.Part, error) {
	if s.busy.Load() {
		return nil, bucket.ErrNoUpload
	}
	return s.Backend.Parts(ctx, up)
}

func openSlow(b bucket.Backend, notes store.Notes) *bucket.Store {
	s := bucket.New(b, testOptions(""))
	s.Keep(notes)
	return s
}

// TestKillWhileTheServiceCompletes is a kill after the completion was asked for and before the service is done with it. The successor waits
// for the object, and sends nothing again.
func TestKillWhileTheServiceCompletes(t *testing.T) {
	t.Parallel()
	svc, notes := backendtest.New(backendtest.Options{}), newNotebook()
	b := &slow{Backend: svc.Backend(), busy: new(atomic.Bool)}
	w := lifeItems()[0]
	first := newAgent(t, openSlow(b, notes))
	batch, err := first.s.Batch(t.Context(), "b-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.stage(t.Context(), batch, w); err != nil {
		t.Fatal(err)
	}
	pub := store.Publication{Item: w.item}
	if out := batch.Publish(t.Context(), []store.Publication{pub})[0]; !errors.Is(out.Err, errKilled) {
		t.Fatalf("got %v, want %v", out.Err, errKilled)
	}
	second := openSlow(b, notes)
	batch, err = second.Batch(t.Context(), "b-1")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if out := batch.Publish(t.Context(), []store.Publication{pub})[0]; problem.Of(out.Err) != problem.StoreAway || errors.Is(out.Err, store.ErrLost) {
			t.Fatalf("while the service is at it: got %v, want %s", out.Err, problem.StoreAway)
		}
	}
	if err := b.rest(); err != nil {
		t.Fatal(err)
	}
	out := batch.Publish(t.Context(), []store.Publication{pub})[0]
	if out.Err != nil || out.Info.Origin != store.OriginOf("b-1", w.item.Index) {
		t.Errorf("after the service is done: got %+v, want the object", out)
	}
	if err := batch.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if notes.len() != 0 {
		t.Errorf("%d notes are left", notes.len())
	}
}
