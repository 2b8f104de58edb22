package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const part = token.ChunkSize

// A want is an item of a life with its content.
type want struct {
	item store.Item
	data []byte
}

// lives are the services of the sweeps: "small meta" has the calls of "uploads".
func lives() map[string]backendtest.Options {
	all := maps.Clone(services)
	delete(all, "small meta")
	return all
}

// lifeItems are a large item of three parts, a small one and an empty one.
func lifeItems() []want {
	var all []want
	for i, size := range []int{2*part + 4099, 500, 0} {
		name := token.ObjectName(fmt.Sprintf("d/item-%d", i))
		all = append(all, want{store.Item{Index: i, Name: name, Size: int64(size), Part: part}, storetest.Content(i, size)})
	}
	return all
}

// An agent lives one life of batch b-1 over a store, as often as it takes. closed is its journal.
type agent struct {
	t      *testing.T
	s      store.Store
	items  []want
	closed map[[2]int64]bool // item and part whose Close returned nil
	tries  int
	failed []error // by item
	given  error   // of staging what is given up
	ended  bool    // nothing is left to do but to drop
}

// givenUp is an item that is staged and never published.
func givenUp() want {
	return want{store.Item{Index: 7, Name: "d/given-up", Size: part + 1, Part: part}, storetest.Content(7, part+1)}
}

func newAgent(t *testing.T, s store.Store) *agent {
	return &agent{t: t, s: s, items: lifeItems(), closed: map[[2]int64]bool{}, tries: 5, failed: make([]error, 3)}
}

// stage writes the parts of an item that are not held, the last one first.
func (a *agent) stage(ctx context.Context, b store.Batch, w want) error {
	st, err := b.Stage(ctx, w.item)
	if err != nil {
		return err
	}
	for k := w.item.Parts() - 1; k >= 0; k-- {
		id := [2]int64{int64(w.item.Index), k}
		if a.closed[id] && st.Holds(k) {
			continue
		}
		delete(a.closed, id)
		p, err := st.Part(ctx, k)
		if err != nil {
			return err
		}
		off, n := w.item.Span(k)
		for piece := range slices.Chunk(w.data[off:off+n], 100_003) {
			if _, err := p.Write(piece); err != nil {
				p.Abort()
				return err
			}
		}
		if err := p.Close(); err != nil {
			return err
		}
		a.closed[id] = true
	}
	return errors.Join(st.Sync(), st.Close())
}

// publish stages and publishes an item until it is there or the failure is final.
func (a *agent) publish(ctx context.Context, b store.Batch, w want) (err error) {
	for range a.tries {
		if err = a.stage(ctx, b, w); err == nil {
			err = b.Publish(ctx, []store.Publication{{Item: w.item, Root: storetest.Root(w.data)}})[0].Err
		}
		if errors.Is(err, store.ErrLost) {
			st, serr := b.Stage(ctx, w.item)
			if serr == nil {
				serr = st.Discard(ctx)
			}
			if serr != nil {
				err = serr
			}
			for k := range w.item.Parts() {
				delete(a.closed, [2]int64{int64(w.item.Index), k})
			}
			continue
		}
		if problem.Of(err) != problem.StoreAway {
			return err
		}
	}
	return err
}

// live publishes everything and drops the batch.
func (a *agent) live(ctx context.Context) error {
	b, err := a.s.Batch(ctx, "b-1")
	if err != nil {
		return err
	}
	if !a.ended {
		for i, w := range a.items {
			a.failed[i] = a.publish(ctx, b, w)
		}
		for range a.tries {
			// And nothing more: Drop is to remove it.
			if a.given = a.stage(ctx, b, givenUp()); problem.Of(a.given) != problem.StoreAway {
				break
			}
		}
		a.ended = errors.Join(append(a.failed, a.given)...) == nil
	}
	for range a.tries {
		if err = b.Drop(ctx); err == nil {
			break
		}
	}
	return errors.Join(err, b.Close())
}

// audit checks what a life has left.
func (a *agent) audit(svc *backendtest.Service) {
	a.t.Helper()
	for i, w := range a.items {
		got, there := svc.Content(string(w.item.Name))
		switch {
		case there && !bytes.Equal(got, w.data):
			a.t.Errorf("item %d: other bytes than were sent", i)
		case !there && a.failed[i] == nil:
			a.t.Errorf("item %d: said to be published, and is not there", i)
		case there && problem.Of(a.failed[i]) == problem.Taken:
			a.t.Errorf("item %d: our own work is said to be somebody else's: %v", i, a.failed[i])
		}
	}
	if _, there := svc.Content("d/given-up"); there {
		a.t.Error("what was never published is there")
	}
	if n := len(svc.Keys()); n > len(a.items) {
		a.t.Errorf("%d objects of %d: %q", n, len(a.items), svc.Keys())
	}
}

// A trouble is a fault of one call. passes: an agent that tries again must not notice.
type trouble struct {
	name   string
	fault  backendtest.Fault
	passes bool
}

var errBroken = errors.New("broken for good")

func troubles() []trouble {
	away := &bucket.Away{Err: errors.New("no answer")}
	return []trouble{
		{"no answer, nothing done", backendtest.Fault{Err: away}, true},
		{"no answer, done", backendtest.Fault{Err: away, Done: true}, true},
		{"conflict", backendtest.Fault{Err: bucket.ErrConflict}, true},
		{"conflict, done", backendtest.Fault{Err: bucket.ErrConflict, Done: true}, true},
		{"no upload", backendtest.Fault{Err: bucket.ErrNoUpload}, false},
		{"no upload, done", backendtest.Fault{Err: bucket.ErrNoUpload, Done: true}, false},
		{"taken", backendtest.Fault{Err: problem.New(problem.Taken, "Taken.")}, false},
		{"taken, done", backendtest.Fault{Err: problem.New(problem.Taken, "Taken."), Done: true}, false},
		{"missing", backendtest.Fault{Err: problem.New(problem.Missing, "Missing.")}, false},
		{"refused", backendtest.Fault{Err: problem.New(problem.Unwritable, "Refused.")}, false},
		{"broken", backendtest.Fault{Err: errBroken}, false},
		{"broken, done", backendtest.Fault{Err: errBroken, Done: true}, false},
	}
}

// calls counts the requests of a life in which nothing fails.
func calls(t *testing.T, opt backendtest.Options) int {
	t.Helper()
	svc := backendtest.New(opt)
	a := newAgent(t, open(svc, newNotebook(), ""))
	if err := errors.Join(append(a.failed, a.live(t.Context()))...); err != nil {
		t.Fatal(err)
	}
	a.audit(svc)
	return len(svc.Calls())
}

// TestFaultAtEachCall lets each call of a life fail in each way.
func TestFaultAtEachCall(t *testing.T) {
	t.Parallel()
	for name, opt := range lives() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := calls(t, opt)
			if n < 8 {
				t.Fatalf("a life has %d calls; the test has lost its teeth", n)
			}
			for i, tr := range troubles() {
				for at := range n + 4 {
					if testing.Short() && (at+i)%4 != 0 {
						continue
					}
					faultAt(t, opt, tr, at)
				}
			}
		})
	}
}

func faultAt(t *testing.T, opt backendtest.Options, tr trouble, at int) {
	svc, notes := backendtest.New(opt), newNotebook()
	var hit string
	svc.Fail(func(c backendtest.Call) backendtest.Fault {
		if c.N != at {
			return backendtest.Fault{}
		}
		hit = c.Op
		return tr.fault
	})
	s := open(svc, notes, "")
	a := newAgent(t, s)
	err := a.live(t.Context())
	svc.Fail(nil)
	what := fmt.Sprintf("%s at call %d, %s", tr.name, at, hit)
	a.audit(svc)
	if tr.passes || hit == "" {
		if err := errors.Join(append(a.failed, err, a.given)...); err != nil {
			t.Errorf("%s: got %v, want that it passes", what, err)
		}
	}
	for i, err := range a.failed {
		if errors.Is(err, bucket.ErrConflict) && tr.passes || err != nil && problem.Of(err) == problem.Internal && !errors.Is(err, errBroken) && !errors.Is(err, store.ErrLost) && !errors.Is(err, bucket.ErrNoUpload) {
			t.Errorf("%s: item %d: got %v, which has no kind", what, i, err)
		}
	}
	// What the service could not remove then it removes now.
	b, berr := s.Batch(t.Context(), "b-1")
	if berr != nil {
		t.Fatalf("%s: %v", what, berr)
	}
	if err := b.Drop(t.Context()); err != nil {
		t.Errorf("%s: Drop: %v", what, err)
	}
	auditNothingLeft(t, what, svc, s, notes, hit == "Begin" && tr.fault.Done)
}

// auditNothingLeft wants that nothing unfinished is there. If an upload may have begun without its identifier having been told, that
// alone is, and told of.
func auditNothingLeft(t *testing.T, what string, svc *backendtest.Service, s store.Store, notes *notebook, window bool) {
	t.Helper()
	if s.(*bucket.Store).Expires() {
		return
	}
	var told []store.Leftover
	if err := s.Leftovers(t.Context(), func(l store.Leftover) bool { told = append(told, l); return true }); err != nil {
		t.Errorf("%s: Leftovers: %v", what, err)
	}
	left := svc.Unfinished()
	if !window {
		if len(left) != 0 || len(told) != 0 || notes.len() != 0 {
			t.Errorf("%s: left over: uploads %+v, leftovers %+v, %d notes", what, left, told, notes.len())
		}
		return
	}
	if len(left) > 1 || len(told) > len(left) {
		t.Errorf("%s: left over: %+v, and told %+v; want one at most", what, left, told)
	}
	for _, l := range told {
		if l.Batch != "" || l.ID != left[0].ID {
			t.Errorf("%s: told %+v, want %+v of no batch", what, l, left[0])
		}
	}
}
