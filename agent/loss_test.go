package agent

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestStoreHasLostAStage: what the store says is lost is fetched again, a few times and not for ever.
func TestStoreHasLostAStage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		op   mem.Op
		at   string // the object or stage
		n    int    // times
		want token.Result
	}{
		{"a small one", mem.OpPublish, "out/s/07", 1, token.Stored},
		{"a large one", mem.OpPublish, "out/big", 2, token.Stored},
		{"a large one in the middle", mem.OpPart, "/0/1", 1, token.Stored},
		{"at the end of a part", mem.OpClose, "/0/2", 2, token.Stored},
		{"a small one again and again", mem.OpPublish, "out/s/07", 1000, token.Failed},
		{"a large one again and again", mem.OpPublish, "out/big", 1000, token.Failed},
		{"a part again and again", mem.OpClose, "/0/2", 1000, token.Failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).like(bucketTraits())
			l := w.watch()
			left := c.n
			l.on(c.op, func(_ int, name string) (error, bool) {
				if strings.HasSuffix(name, c.at) && left > 0 {
					left--
					return fmt.Errorf("the test: %w", store.ErrLost), false
				}
				return nil, false
			})
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, few(w)...).parts(bucketPart)
			w.give(s)
			dst := w.broker.receipt(token.Destination, s.ref())
			for _, o := range dst.outs {
				want := token.Stored
				if s.items[o.Item].Dst == "out/big" && (c.at == "out/big" || c.at[0] == '/') || string(s.items[o.Item].Dst) == c.at {
					want = c.want
				}
				if o.Outcome != want || want == token.Failed && o.Code != string(problem.Unwritable) {
					t.Errorf("%q: got %s %s, want %s", s.items[o.Item].Dst, o.Outcome, o.Code, want)
				}
			}
			w.checkNoStages()
		})
	}
}

// TestStoreLacksAPart: a stage that does not hold what the journal claims is thrown away, and its item fetched anew.
func TestStoreLacksAPart(t *testing.T) {
	t.Parallel()
	for name, traits := range map[string]store.Traits{"bucket": bucketTraits(), "folder": mem.Everything()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).like(traits)
			l := w.watch()
			var published atomic.Int64
			l.on(mem.OpPublish, func(_ int, name string) (error, bool) {
				if name == "out/big" {
					published.Add(1)
				}
				return nil, false
			})
			dead := make(chan struct{})
			w.dst.at(4, func() { w.dst.kill(); close(dead) })
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, mixed(w)...).parts(traits.PartSize)
			w.give(s)
			<-dead
			w.to.Crash() // in the same boot of the agent's machine, whose journal is believed
			w.dst.conf.hooks.moved = nil
			w.dst.start()
			w.stored(s)
			if n := published.Load(); n != 1 {
				t.Errorf("got %d attempts to publish, want one, of a stage that was looked at before", n)
			}
		})
	}
}

// TestOneStageBreaksOnce: when a stage breaks under several writers that is one failure of the item, not one for each of them.
func TestOneStageBreaksOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t).like(bucketTraits())
	var breaking atomic.Int64
	all := make(chan struct{})
	w.dst.conf.Exports[0].Store = spied{Store: w.to, part: func(_ int, _ int64, p store.Part) store.Part {
		if n := breaking.Add(1); n > 3 {
			return p
		}
		return spiedPart{p, func() error {
			p.Abort()
			if breaking.Add(100) > 300 {
				close(all)
			}
			<-all
			return syscall.EIO
		}}
	}}
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 12<<20)).parts(bucketPart)
	w.give(s)
	w.stored(s)
}

// A latePart takes everything, and says that it counts once it is too late.
type latePart struct{ late, ended chan struct{} }

func (p latePart) Write(b []byte) (int, error) { return len(b), nil }
func (p latePart) Close() error                { <-p.late; close(p.ended); return nil }
func (p latePart) Abort()                      {}

// TestPartOfAStageThatIsGone: a part that ends well on a stage which was thrown away meanwhile does not count on the new one.
func TestPartOfAStageThatIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t).like(bucketTraits())
	l := w.watch()
	w.dst.conf.Lanes, w.dst.conf.WantersPerLane = 1, 2
	discarded, began, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var late, published atomic.Int64
	var once sync.Once
	w.dst.conf.Exports[0].Store = spied{Store: w.to, discarded: func() {
		once.Do(func() {
			close(discarded)
			<-ended // while the stage's lock is held, so that nobody else takes the part before
		})
	}, part: func(_ int, index int64, p store.Part) store.Part {
		if index != 0 || late.Add(1) > 1 {
			return p
		}
		close(began)
		p.Abort()
		return latePart{discarded, ended}
	}}
	lost := false
	l.on(mem.OpClose, func(_ int, name string) (error, bool) {
		if lost || strings.HasSuffix(name, "/0") {
			return nil, false
		}
		select {
		case <-began:
			lost = true
			return store.ErrLost, false
		default:
			return nil, false
		}
	})
	l.on(mem.OpPublish, func(int, string) (error, bool) { published.Add(1); return nil, false })
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 24<<20)).parts(bucketPart)
	w.give(s)
	w.stored(s)
	if n := published.Load(); n != 1 {
		t.Errorf("got %d attempts to publish, want one, of a whole stage", n)
	}
}
