package agent

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

// TestPowerFailsAtEveryStep cuts the power of one side at every call of its journal's disk, from the first
// write of a batch to the removal of its journal. Each time the batch ends well after the next boot.
func TestPowerFailsAtEveryStep(t *testing.T) {
	t.Parallel()
	folder, bucket := mem.Everything(), bucketTraits()
	for name, c := range map[string]struct {
		side   token.Side
		traits store.Traits
	}{"source": {token.Source, folder}, "destination": {token.Destination, folder}, "destination with a bucket": {token.Destination, bucket}} {
		calls := powerFailure(t, c.side, c.traits, -1)
		t.Logf("%s: %d calls of the disk, each of them a point of failure", name, calls)
		for n := range calls {
			if testing.Short() && n%12 != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s %d", name, n), func(t *testing.T) {
				t.Parallel()
				powerFailure(t, c.side, c.traits, n)
			})
		}
	}
}

// powerFailure copies a few objects and cuts the power of one side's journal, and of its store, after n calls from
// the task on; never if n is negative. It returns how many calls there were in all.
func powerFailure(t *testing.T, side token.Side, traits store.Traits, n int) int {
	w := newWorld(t).like(traits)
	victim := w.dst
	if side == token.Source {
		victim = w.src
	}
	state := disk.NewMem(time.Now)
	victim.conf.hooks.state, victim.conf.hooks.boot = state.Root(), "first"
	w.src.start()
	w.dst.start()
	infos := []store.Info{w.random("in/big", int(3*traits.PartSize+1))}
	for i := range 5 {
		infos = append(infos, w.random(token.ObjectName(fmt.Sprintf("in/s/%d", i)), 100+i))
	}
	s := w.spec(w.order(), 1, infos...).parts(traits.PartSize)
	w.broker.await("both hellos", func() bool { return w.src.port.hello.Slots > 0 && w.dst.port.hello.Slots > 0 })
	state.ResetCalls()
	dead := make(chan struct{})
	if n >= 0 {
		off := false
		state.SetHook(func(c disk.Call) disk.Verdict {
			if c.N < n {
				return disk.Verdict{}
			}
			if !off {
				off = true
				close(dead)
			}
			return disk.Verdict{Err: syscall.EIO}
		})
	}
	serve, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	w.broker.give(w.src.port, serve)
	if n >= 0 {
		select {
		case <-dead:
		case <-time.After(3 * time.Second): // this time it took fewer calls
		}
		w.to.SetHook(nil)
		victim.cancel()
		<-victim.done
		state.Crash(rand.New(rand.NewPCG(uint64(n), 7)))
		switch {
		case traits.Volatile:
			w.to.Kill() // what a bucket has taken stays; what it keeps here in memory does not
		case side == token.Destination:
			w.to.Crash()
		}
		victim.conf.hooks.state, victim.conf.hooks.boot = state.Root(), "second"
		w.broker.mu.Lock()
		w.broker.refusals = map[string]api.Problem{}
		w.broker.mu.Unlock()
		victim.start()
	}
	dst := w.broker.receipt(token.Destination, s.ref())
	if n >= 0 && side == token.Destination && !w.broker.hasWithin(20*time.Second, token.Source, s.ref()) {
		w.broker.end(w.src.port, s.ref()) // its journal was gone before the source was told: then the broker ends the batch
	}
	src := w.broker.receipt(token.Source, s.ref())
	checkMatch(t, src, dst)
	checkAll(t, dst, token.Stored)
	w.checkCopied(s)
	w.checkNoStages()
	return state.Calls()
}
