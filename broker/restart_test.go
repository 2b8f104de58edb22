package broker

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

var errInjected = errors.New("injected by the test")

// robot does what an agent does, and goes on after a failed call as an agent would: what is
// signed is signed once and posted until it is taken.
type robot struct {
	*fake
	signed map[string]bool
	unsent map[string]api.SignedReceipt
}

// act carries out one line.
func (r *robot) act(l api.Line) error {
	if l.Task == nil {
		return nil
	}
	k := *l.Task
	var page api.TaskPage
	switch k.Kind {
	case api.ListTask:
		page.Entries = []api.Entry{object("a", 10), object("b", 20), {Name: "e", Type: "container"}, {Name: "ln", Type: "link"}}
	case api.MakeTask:
		for _, n := range k.Names {
			page.Entries = append(page.Entries, api.Entry{Name: n, Type: "container"})
		}
	case api.ReceiveTask, api.ServeTask:
		if r.signed[k.ID] {
			return nil
		}
		r.signed[k.ID] = true
		r.unsent[k.ID] = r.receipt(k, r.outcomes(k))
		return nil
	case api.StatTask:
	}
	page.Last = true
	_, err := r.w.b.PostPage(r.w.t.Context(), r.peer, k.ID, page, r.w.now)
	if problem.Of(err) == problem.LeaseLost {
		return nil
	}
	return err
}

// outcomes lets item a fail in the first batch.
func (r *robot) outcomes(k api.Task) []token.Outcome {
	side := token.Destination
	if k.Kind == api.ServeTask {
		side = token.Source
	}
	var out []token.Outcome
	for i, it := range r.manifest(k).Items {
		switch {
		case it.Src != "a" || k.Bat > 1:
			out = append(out, good(i, it, side))
		case side == token.Destination:
			out = append(out, bad(i, token.Failed, problem.DiskFull))
		default:
			out = append(out, bad(i, token.Untried, problem.Untried))
		}
	}
	return out
}

// turn carries out what has come, and posts what is signed.
func (r *robot) turn() error {
	for {
		r.mu.Lock()
		if len(r.lines) == 0 {
			r.mu.Unlock()
			break
		}
		l := r.lines[0]
		r.lines = r.lines[1:]
		r.mu.Unlock()
		if err := r.act(l); err != nil {
			return err
		}
	}
	for id, sr := range r.unsent {
		if _, err := r.w.b.PostReceipt(r.w.t.Context(), r.peer, sr, r.w.now); err != nil {
			return fmt.Errorf("posting the receipt of %s: %w", id, err)
		}
		delete(r.unsent, id)
	}
	return nil
}

// TestRestartAtEveryCommit fails each transaction of a transfer's life once, before its commit and after it (the
// answer is lost), kills the broker there, and wants the same end each time.
func TestRestartAtEveryCommit(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before commit", "after commit"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			n := 1
			step := 1
			if testing.Short() {
				step = 5
			}
			for failAt(t, when, n) {
				n += step
			}
			if n < 10 {
				t.Errorf("got %d transactions in a whole life, want 10 at least: the faults do not fire", n-1)
			}
			t.Logf("every %d. of %d transactions failed once, %s", step, n-1, when)
		})
	}
}

// failAt runs the life with the n-th transaction failing, and reports whether there were as many.
func failAt(t *testing.T, when string, n int) bool {
	w := newWorld(t)
	src, dst := w.pair()
	robots := []*robot{{src, map[string]bool{}, map[string]api.SignedReceipt{}}, {dst, map[string]bool{}, map[string]api.SignedReceipt{}}}
	var count atomic.Int64
	w.b.fault = func(at string) error {
		if at == when && count.Add(1) == int64(n) {
			return errInjected
		}
		return nil
	}
	o := w.order()
	so := w.sign(o)
	live := func() error {
		if _, err := w.b.Submit(t.Context(), w.me(), so, w.now); err != nil {
			return fmt.Errorf("submitting: %w", err)
		}
		if err := w.b.step(t.Context(), w.now); err != nil {
			return err
		}
		for _, r := range robots {
			select {
			case <-r.more:
			case <-time.After(2 * time.Millisecond):
			}
			if err := r.turn(); err != nil {
				return err
			}
		}
		return nil
	}
	for range 200 {
		err := live()
		switch {
		case errors.Is(err, errInjected):
			src.leave()
			dst.leave()
			w.crash()
			src.connect()
			dst.connect()
		case err != nil:
			t.Fatalf("%s, transaction %d: %v", when, n, err)
		}
		w.now = w.now.Add(10 * time.Second)
		if err == nil {
			if x, err := w.b.Transfer(t.Context(), w.me(), o.ID, 0, 0); err == nil && x.Finished != nil {
				break
			}
		}
	}
	w.want(o.ID, api.Complete, map[token.Result]int64{token.Stored: 2, token.Left: 1})
	src.leave()
	dst.leave()
	return count.Load() >= int64(n)
}

// TestTheDatabaseCannotBeWritten: whoever asks is told so in words and that nothing was changed, the broker is not ready, and it goes on
// by itself.
func TestTheDatabaseCannotBeWritten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.b.fault = func(string) error { return fmt.Errorf("inserting: %w: disk full", db.ErrUnwritable) }
	_, err := w.b.Submit(t.Context(), w.me(), w.sign(w.order()), w.now)
	if problem.Of(err) != problem.Unavailable || strings.Contains(problem.As(err).Sentence(), "disk full") || !w.b.unwritable.Load() {
		t.Errorf("got %v, want to be told that the broker cannot write, and no detail", err)
	}
	w.b.fault = func(string) error { return nil }
	if err := w.b.Ready(t.Context()); err != nil || w.b.unwritable.Load() {
		t.Errorf("once it can be written: %v", err)
	}
	w.submit(w.order())
}
