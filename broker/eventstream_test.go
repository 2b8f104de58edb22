package broker

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A reader is one event stream.
type reader struct {
	t     *testing.T
	lines chan api.EventLine
	stop  context.CancelFunc
	done  chan struct{}
}

func (w *world) follow(peer certs.Peer, after int64) *reader {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{t: w.t, lines: make(chan api.EventLine, 4096), stop: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		_ = w.b.Follow(ctx, peer, after, func(l api.EventLine) error { r.lines <- l; return nil }) // it ends with ctx
	}()
	w.t.Cleanup(r.close)
	return r
}

func (r *reader) close() {
	r.stop()
	<-r.done
}

// next returns the next event.
func (r *reader) next() api.Event {
	r.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case l := <-r.lines:
			if l.Event != nil {
				if l.Seq != l.Event.Seq {
					r.t.Errorf("got the line %d of event %d", l.Seq, l.Event.Seq)
				}
				return *l.Event
			}
		case <-deadline:
			r.t.Fatal("no event came")
		}
	}
}

// TestEventStream: everybody gets the events of his own transfers and no others, in order, without a hole, from where he says.
func TestEventStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bob := [2]*certstest.Leaf{w.north.Issue(token.Subscriber, "bob"), w.south.Issue(token.Subscriber, "bob")}
	bobs := w.order(func(o *token.Order) {
		o.Accounts = []token.Identity{"spiffe://north/subscriber/bob", "spiffe://south/subscriber/bob"}
	})
	first := w.submit(w.order())
	if _, err := w.b.Submit(t.Context(), peerOf(bob[0]), w.sign(bobs, bob[0], bob[1]), w.now); err != nil {
		t.Fatal(err)
	}
	all, fresh := w.follow(w.me(), 0), w.follow(peerOf(w.alice[1]), -1)
	if e := all.next(); e.Xfr != first || e.Kind != "ordered" {
		t.Errorf("from the beginning: got %+v, want the first order", e)
	}
	if l := <-fresh.lines; !l.Ping || l.Seq != 2 {
		t.Errorf("from now on: got %+v, want a ping at 2", l)
	}
	second := w.submit(w.order())
	for name, r := range map[string]*reader{"all": all, "fresh": fresh} {
		if e := r.next(); e.Xfr != second || e.Seq != 3 {
			t.Errorf("%s: got %+v, want the order of %s", name, e, second)
		}
	}
	mine := w.follow(peerOf(bob[1]), 0)
	if e := mine.next(); e.Xfr != bobs.ID {
		t.Errorf("bob: got %+v, want his own", e)
	}
	w.must(w.b.write(t.Context(), w.now, func(k *work) error {
		for range 3000 { // more than a look brings
			if err := k.accountEvent(t.Context(), w.me().Identity, api.Event{Kind: "test"}); err != nil {
				return err
			}
		}
		return nil
	}))
	last := int64(3)
	for range 3000 {
		e := all.next()
		if e.Seq <= last || e.Kind != "test" || e.Account != w.me().Identity {
			t.Fatalf("got %+v behind %d", e, last)
		}
		last = e.Seq
	}
	again := w.follow(w.me(), last-1)
	if e := again.next(); e.Seq != last {
		t.Errorf("opened again: got %d, want %d", e.Seq, last)
	}
	mine.close()
	for len(mine.lines) > 0 {
		if l := <-mine.lines; l.Event != nil {
			t.Errorf("bob got %+v", l.Event)
		}
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestStreamsWithoutEnd: nobody takes every place, and who leaves makes room.
func TestStreamsWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range maxTailsBy {
		r := w.follow(w.me(), 0)
		for range 2 { // at the beginning, and when it has caught up
			if l := <-r.lines; !l.Ping {
				t.Errorf("got %+v, want a ping", l)
			}
		}
	}
	err := w.b.Follow(t.Context(), w.me(), 0, func(api.EventLine) error { return nil })
	if problem.Of(err) != problem.Overloaded {
		t.Errorf("one more: got %v, want %s", err, problem.Overloaded)
	}
	enough := errors.New("enough")
	if err := w.b.Follow(t.Context(), peerOf(w.alice[1]), 0, func(api.EventLine) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("another account: got %v", err)
	}
}
