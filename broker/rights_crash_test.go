package broker

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

// obedient is an agent that ends what it is told to end, and comes to the end of everything else but hr/b unless the transfer is revoked. What is signed is signed once, and
// posted until it is taken.
type obedient struct {
	*fake
	tasks  map[int64]api.Task
	unsent map[int64]api.SignedReceipt
	signed map[int64]bool
	rests  bool // as the newest list says, which it keeps over a new stream
}

func (o *obedient) turn(id token.TransferID) error {
	o.mu.Lock()
	lines := o.lines
	o.lines = nil
	o.mu.Unlock()
	for _, l := range lines {
		switch {
		case l.Task != nil && l.Task.Bat > 0:
			o.tasks[l.Task.Bat] = *l.Task
		case l.Drop != nil && !o.signed[l.Drop.Bat]:
			o.sign(l.Drop.Bat, untried(o.manifest(o.tasks[l.Drop.Bat])))
		}
	}
	o.mu.Lock()
	told := len(o.lists) > 0
	o.mu.Unlock()
	if told {
		o.rests = o.revoked(id) != ""
	}
	if !o.rests {
		for bat, k := range o.tasks {
			if !o.signed[bat] && !strings.Contains(string(k.Manifest), "hr/b") { // it never comes to an end with that by itself
				o.sign(bat, nil)
			}
		}
	}
	for bat, sr := range o.unsent {
		if _, err := o.w.b.PostReceipt(o.w.t.Context(), o.peer, sr, o.w.now); err != nil {
			return err
		}
		delete(o.unsent, bat)
	}
	return nil
}

func (o *obedient) sign(bat int64, outcomes []token.Outcome) {
	o.signed[bat] = true
	o.unsent[bat] = o.receipt(o.tasks[bat], outcomes)
}

// TestDenialIsKilledAnywhere takes a right away from one of two running batches, and fails each transaction of what follows once, before its commit and after
// it, and kills the broker there. The end is the same each time: one item is denied, all others are stored, nothing is held, and nothing is revoked.
func TestDenialIsKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before commit", "after commit"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			n, step := 1, 1
			if testing.Short() {
				step = 6
			}
			for denyAndFail(t, when, n) {
				n += step
			}
			if n < 6 {
				t.Errorf("got %d transactions, want 6 at least: the faults do not fire", n-1)
			}
		})
	}
}

func denyAndFail(t *testing.T, when string, n int) bool {
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("north:/src", grant("north", everything))
	w.allow("south:/dst", grant("south", everything))
	w.assign("south:/dst", 100)
	id := w.submit(w.order())
	k := src.task(api.ListTask)
	agents := []*obedient{}
	for _, f := range []*fake{src, dst} {
		agents = append(agents, &obedient{fake: f, tasks: map[int64]api.Task{}, unsent: map[int64]api.SignedReceipt{}, signed: map[int64]bool{}})
	}
	for i, es := range [][]api.Entry{{object("a", 1), object("hr/b", 2)}, {object("z", 3)}} {
		src.page(k.ID, api.TaskPage{Entries: es, Last: i == 1})
		serve, receive := batch(src, dst)
		agents[0].tasks[serve.Bat], agents[1].tasks[receive.Bat] = serve, receive
	}
	w.allow("north:/src/hr", "DENY spiffe://north/subscriber/alice OBJECT_INHERIT,CONTAINER_INHERIT READ_OBJECT")
	var count atomic.Int64
	w.b.fault = func(at string) error {
		if at == when && count.Add(1) == int64(n) {
			return errInjected
		}
		return nil
	}
	killed := false
	for round := 0; ; round++ {
		if round > 400 {
			t.Fatalf("transaction %d: got no end: %+v", n, w.transfer(id))
		}
		err := w.b.step(t.Context(), w.now)
		for _, a := range agents {
			if err == nil {
				err = a.turn(id)
			}
		}
		switch {
		case errors.Is(err, errInjected):
			killed = true
			for _, a := range agents {
				a.leave()
			}
			w.crash()
			for _, a := range agents {
				a.connect()
			}
		case err != nil:
			t.Fatalf("transaction %d: %v", n, err)
		case w.transfer(id).State.Ended():
			w.want(id, api.Partial, map[token.Result]int64{token.Stored: 2, token.Denied: 1})
			if used, held := w.filled("south:/dst"); used != 4 || held != 0 {
				t.Errorf("transaction %d: got %d bytes there and %d held, want 4 and none", n, used, held)
			}
			if r := dst.revoked(id); r != "" {
				t.Errorf("transaction %d: the transfer is revoked in the end: %q", n, r)
			}
			return killed
		}
		w.now = w.now.Add(time.Second)
		for _, a := range agents {
			select {
			case <-a.more:
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
}
