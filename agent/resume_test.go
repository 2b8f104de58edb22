package agent

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// kill stops the agent where it stands: nothing that is under way may finish.
func (n *node) kill() {
	n.cancel()
	n.agent.endpoint.Close()
	<-n.done
}

// at makes the destination call f once, when n chunks were journalled.
func (n *node) at(count int64, f func()) {
	var seen atomic.Int64
	n.conf.hooks.moved = func(string, int, int64) bool {
		if seen.Add(1) == count {
			go f()
		}
		return true
	}
}

func mixed(w *world) []store.Info {
	infos := []store.Info{w.random("in/big", 24<<20+17)}
	for i := range 40 {
		infos = append(infos, w.random(token.ObjectName(fmt.Sprintf("in/s/%02d", i)), 100+i))
	}
	return append(infos, w.random("in/z", 5<<20))
}

func TestDestinationIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dead := make(chan struct{})
	w.dst.at(9, func() { w.dst.kill(); close(dead) })
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, mixed(w)...)
	serve, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	w.broker.give(w.src.port, serve)
	<-dead
	w.dst.conf.hooks.moved = nil
	w.dst.start()
	src, dst := w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref())
	checkMatch(t, src, dst)
	checkAll(t, dst, token.Stored)
	w.checkCopied(s)
	w.checkNoStages()
}

// TestDestinationStopsAnywhere: an orderly stop is no outcome of an item, wherever it finds the agent.
func TestDestinationStopsAnywhere(t *testing.T) {
	t.Parallel()
	for _, chunks := range []int64{1, 2, 5, 9, 14, 20, 28} {
		if testing.Short() && chunks != 1 && chunks != 14 {
			continue
		}
		t.Run(fmt.Sprint(chunks), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			now := make(chan struct{})
			w.dst.at(chunks, func() { close(now) })
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, mixed(w)...)
			serve, receive := w.tasks(s)
			w.broker.give(w.dst.port, receive)
			w.broker.give(w.src.port, serve)
			select {
			case <-now:
			case <-time.After(time.Minute):
				t.Fatal("the chunk at which to stop did not come within a minute")
			}
			w.dst.stop()
			w.dst.conf.hooks.moved = nil
			w.dst.start()
			checkAll(t, w.broker.receipt(token.Destination, s.ref()), token.Stored)
			w.checkCopied(s)
		})
	}
}

func TestSourceIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dead := make(chan struct{})
	w.src.start()
	w.dst.at(9, func() { w.src.kill(); close(dead) })
	w.dst.start()
	s := w.spec(w.order(), 1, mixed(w)...)
	serve, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	w.broker.give(w.src.port, serve)
	<-dead
	w.src.start()
	src, dst := w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref())
	checkMatch(t, src, dst)
	checkAll(t, dst, token.Stored)
	checkAll(t, src, token.Sent)
	w.checkCopied(s)
}

func checkAll(t testing.TB, r receipt, want token.Result) {
	t.Helper()
	for _, o := range r.outs {
		if o.Outcome != want {
			t.Errorf("item %d of the %s: got %+v, want %s", o.Item, r.claims.Side, o, want)
		}
	}
}

// TestPowerFailsAtTheDestination loses what was not synced, in the journal and in the store, and boots anew.
func TestPowerFailsAtTheDestination(t *testing.T) {
	t.Parallel()
	for _, count := range []int64{1, 5, 20, 28} {
		if testing.Short() && count != 5 {
			continue
		}
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			state := disk.NewMem(time.Now)
			w.dst.conf.hooks.state, w.dst.conf.hooks.boot = state.Root(), "first"
			dead := make(chan struct{})
			w.dst.at(count, func() { w.dst.kill(); close(dead) })
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, mixed(w)...)
			serve, receive := w.tasks(s)
			w.broker.give(w.dst.port, receive)
			w.broker.give(w.src.port, serve)
			<-dead
			state.Crash(rand.New(rand.NewPCG(uint64(count), 1)))
			w.to.Crash()
			w.dst.conf.hooks.state, w.dst.conf.hooks.boot, w.dst.conf.hooks.moved = state.Root(), "second", nil
			w.dst.start()
			src, dst := w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref())
			checkMatch(t, src, dst)
			checkAll(t, dst, token.Stored)
			w.checkCopied(s)
			w.checkNoStages()
		})
	}
}

// TestBrokerIsDown: the batch goes on, and the receipts wait, also over restarts of the agents.
func TestBrokerIsDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dst.conf.hooks.moved = func(string, int, int64) bool { w.broker.setDown(true); return true }
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/big", 12<<20))
	serve, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	w.broker.give(w.src.port, serve)
	poll(t, "both sides to sign", func() bool {
		for _, n := range []*node{w.src, w.dst} {
			bs := n.agent.of("")
			if len(bs) != 1 || !bs[0].isSigned() {
				return false
			}
		}
		return true
	})
	first := w.dst.agent.of("")[0].signed.JWS
	w.src.stop()
	w.dst.stop()
	w.dst.conf.hooks.moved = nil
	w.src.start()
	w.dst.start()
	w.broker.setDown(false)
	dst := w.broker.receipt(token.Destination, s.ref())
	checkMatch(t, w.broker.receipt(token.Source, s.ref()), dst)
	if dst.signed.JWS != first {
		t.Error("the receipt was signed anew; want the same bytes for ever")
	}
	w.checkCopied(s)
}

func TestBrokerEndsABatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dst.conf.Listen = ""
	w.dst.start() // nobody serves: the batch waits
	s := w.spec(w.order(), 1, w.random("in/a", 100), w.random("in/big", 3<<20))
	w.src.conf.Listen = "127.0.0.1:9"
	_, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	w.broker.await("a beat that says why", func() bool {
		return len(w.dst.port.beats) == 1 && w.dst.port.beats[0].Waiting == problem.PeerUnreached && w.dst.port.beats[0].Note != ""
	})
	w.broker.end(w.dst.port, s.ref())
	dst := w.broker.receipt(token.Destination, s.ref())
	checkResults(t, dst, token.Untried, token.Untried)
	if dst.outs[0].Code != string(problem.Cancelled) {
		t.Errorf("got code %q, want %q", dst.outs[0].Code, problem.Cancelled)
	}
	w.checkNoStages()
	poll(t, "the journal to be removed", func() bool { return len(w.dst.agent.of("")) == 0 })
}

// TestSourceHearsOfTheEndFromTheBroker: the destination is gone for good.
func TestSourceHearsOfTheEndFromTheBroker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	serve, _ := w.tasks(s)
	w.broker.give(w.src.port, serve)
	poll(t, "the batch to begin", func() bool { return len(w.src.agent.of("")) == 1 })
	w.broker.end(w.src.port, s.ref())
	checkResults(t, w.broker.receipt(token.Source, s.ref()), token.Untried)
}

// TestRenewal: a batch outlives several generations of its capability.
func TestRenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.broker.life = 3 * time.Second
	w.dst.conf.Rate = 2 << 20
	w.dst.conf.Lanes = 2
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/big", 16<<20))
	src, dst := w.run(s)
	checkMatch(t, src, dst)
	checkAll(t, dst, token.Stored)
	if len(dst.claims.Caps) < 2 || len(src.claims.Caps) < 2 {
		t.Errorf("got %d and %d generations, want more than one", len(src.claims.Caps), len(dst.claims.Caps))
	}
	w.checkCopied(s)
}

// TestCapabilityEndsWhileTheBrokerIsDown: the batch waits with its journal intact, and goes on after renewal.
func TestCapabilityEndsWhileTheBrokerIsDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.broker.life = 4 * time.Second
	w.dst.conf.Rate = 3 << 20
	w.dst.at(2, func() { w.broker.setDown(true) })
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/big", 20<<20))
	serve, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	w.broker.give(w.src.port, serve)
	poll(t, "the capability to end", func() bool {
		bs := w.dst.agent.of("")
		return len(bs) == 1 && bs[0].progress().Waiting == problem.CapExpired
	})
	w.broker.setDown(false)
	dst := w.broker.receipt(token.Destination, s.ref())
	checkMatch(t, w.broker.receipt(token.Source, s.ref()), dst)
	checkAll(t, dst, token.Stored)
	w.checkCopied(s)
}

// TestStoreIsFull: the item that does not fit fails, the others go on.
func TestStoreIsFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.to.SetHook(func(op mem.Op, name string) (error, bool) {
		if op == mem.OpStage && name[len(name)-2:] == "/0" {
			return syscall.ENOSPC, false
		}
		return nil, false
	})
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/big", 3<<20), w.random("in/a", 10), w.random("in/c", 2<<20))
	src, dst := w.run(s)
	checkMatch(t, src, dst)
	checkResults(t, dst, token.Failed, token.Stored, token.Stored)
	if dst.outs[0].Code != string(problem.DiskFull) {
		t.Errorf("got code %q, want %q", dst.outs[0].Code, problem.DiskFull)
	}
	w.checkNoStages()
}

// TestJournalIsFull: the batch waits with a reason, and goes on when there is space.
func TestJournalIsFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	state := disk.NewMem(time.Now)
	w.dst.conf.hooks.state, w.dst.conf.hooks.boot = state.Root(), "first"
	var seen atomic.Int64
	w.dst.conf.hooks.moved = func(string, int, int64) bool {
		if seen.Add(1) == 5 {
			state.SetHook(func(c disk.Call) disk.Verdict {
				if c.Op == disk.OpWrite {
					return disk.Verdict{Err: syscall.ENOSPC}
				}
				return disk.Verdict{}
			})
		}
		return true
	}
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, mixed(w)...)
	serve, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	w.broker.give(w.src.port, serve)
	w.broker.await("a beat that says why", func() bool {
		return len(w.dst.port.beats) == 1 && w.dst.port.beats[0].Waiting == problem.DiskFull
	})
	state.SetHook(nil)
	dst := w.broker.receipt(token.Destination, s.ref())
	checkMatch(t, w.broker.receipt(token.Source, s.ref()), dst)
	checkAll(t, dst, token.Stored)
	w.checkCopied(s)
}

// TestSyncFails: a stage that could not be synced is thrown away and its item is fetched once more.
func TestSyncFails(t *testing.T) {
	t.Parallel()
	for _, op := range []mem.Op{mem.OpSync, mem.OpPublish} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var calls atomic.Int64
			w.to.SetHook(func(o mem.Op, name string) (error, bool) {
				if o == op && calls.Add(1) == 1 {
					return syscall.EIO, false
				}
				return nil, false
			})
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, w.random("in/big", 3<<20), w.random("in/a", 10))
			src, dst := w.run(s)
			checkMatch(t, src, dst)
			checkAll(t, dst, token.Stored)
			w.checkCopied(s)
			w.checkNoStages()
		})
	}
}

// TestStoreKeepsFailing: what fails again is an outcome, not a loop.
func TestStoreKeepsFailing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.to.SetHook(func(o mem.Op, name string) (error, bool) {
		if o == mem.OpPublish && name == "out/a" {
			return syscall.EIO, false
		}
		return nil, false
	})
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/big", 3<<20), w.random("in/a", 10))
	src, dst := w.run(s)
	checkMatch(t, src, dst)
	checkResults(t, dst, token.Stored, token.Failed)
	if dst.outs[1].Code != string(problem.Unwritable) {
		t.Errorf("got code %q, want %q", dst.outs[1].Code, problem.Unwritable)
	}
	w.checkNoStages()
}

// TestStopLetsNothingBeLost: a stopped agent leaves a journal that its successor continues.
func TestStopLetsNothingBeLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stopped := make(chan struct{})
	w.dst.at(4, func() { w.dst.stop(); close(stopped) })
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, mixed(w)...)
	serve, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	w.broker.give(w.src.port, serve)
	<-stopped
	w.src.stop()
	w.dst.conf.hooks.moved = nil
	w.src.start()
	w.dst.start()
	checkMatch(t, w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref()))
	w.checkCopied(s)
}

// TestCertificateIsRenewedMidway: lanes and capabilities move to the new certificate, on whichever side it is, and nothing is lost.
func TestCertificateIsRenewedMidway(t *testing.T) {
	t.Parallel()
	for name, side := range map[string]func(*world) (*node, *certstest.CA, string){
		"destination": func(w *world) (*node, *certstest.CA, string) { return w.dst, w.south, "b" },
		"source":      func(w *world) (*node, *certstest.CA, string) { return w.src, w.north, "a" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			n, ca, who := side(w)
			dir := t.TempDir()
			pair, err := certs.OpenPair(ca.Issue(token.Agent, who).Files(dir))
			if err != nil {
				t.Fatal(err)
			}
			n.conf.Pair, n.port = pair, w.broker.port(pair)
			w.dst.conf.Rate = 8 << 20
			renewed := make(chan struct{})
			w.dst.at(3, func() {
				defer close(renewed)
				ca.Issue(token.Agent, who).Files(dir)
				if changed, err := pair.Reload(); err != nil || !changed {
					t.Errorf("got %v and %v, want a new certificate", changed, err)
				}
				w.dst.agent.of("")[0].renewSoon()
			})
			w.src.start()
			w.dst.start()
			src, dst := w.run(w.spec(w.order(), 1, w.random("in/big", 12<<20)))
			<-renewed
			checkMatch(t, src, dst)
			checkAll(t, dst, token.Stored)
			if len(dst.claims.Caps) < 2 {
				t.Errorf("got %d generations, want more than one", len(dst.claims.Caps))
			}
			w.dst.agent.closeIdle(time.Now().Add(time.Hour)) // the next lanes are dialled anew
			_, after := w.run(w.spec(w.order(), 1, w.random("in/a", 5)))
			checkAll(t, after, token.Stored)
		})
	}
}
