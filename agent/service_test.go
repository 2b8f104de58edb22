package agent

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
	"github.com/consign-transfer/consign/token"
)

// remote gives the destination a bucket of a service in memory, as a process that was just started sees it.
func (w *world) remote(s *backendtest.Service) {
	w.dst.conf.Exports[0].Store = bucket.New(s.Backend(), bucket.Options{Now: time.Now, Patience: 20 * time.Millisecond, Interval: time.Millisecond})
}

// A trouble is what goes wrong at one call of a service.
type trouble struct {
	done bool // the call has its effect all the same
	kill bool // the destination is killed while it waits for the answer
}

// throughTrouble copies a few objects to a bucket of a service, with trouble at its call n from the task on; none if n is
// negative. It returns how many calls there were.
func throughTrouble(t *testing.T, opt backendtest.Options, n int, what trouble) int {
	opt.PartSize = bucketPart
	service := backendtest.New(opt)
	w := newWorld(t)
	w.remote(service)
	l := &ledger{noted: map[string]bool{}}
	w.dst.conf.hooks.moved = func(_ string, item int, chunk int64) bool {
		l.moved(item, chunk, bucketPart/token.ChunkSize)
		return true
	}
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, few(w)...).parts(bucketPart)
	index := map[string]int{}
	for i, it := range s.items {
		index[string(it.Dst)] = i
	}
	before, begun := len(service.Calls()), ""
	var once sync.Once
	dead := make(chan struct{})
	service.Fail(func(c backendtest.Call) (f backendtest.Fault) {
		l.mu.Lock()
		defer l.mu.Unlock()
		i, ours := index[c.Key] // others are the probe's
		if part := fmt.Sprintf("%d/%d", i, c.Part); ours && c.Op == "PutPart" && l.noted[part] {
			l.faults = append(l.faults, "part "+part+" is sent again although the journal knows of it")
		}
		if n < 0 || c.N != before+n {
			return backendtest.Fault{}
		}
		once.Do(func() {
			begun = c.Op
			f = backendtest.Fault{Err: &bucket.Away{Err: io.ErrUnexpectedEOF}, Done: what.done}
			if what.kill {
				f.Stall = !what.done
				go func() { w.dst.kill(); close(dead) }()
			}
		})
		return f
	})
	w.give(s)
	if what.kill && n >= 0 {
		select {
		case <-dead:
			w.remote(service)
			w.dst.start()
		case <-time.After(5 * time.Second): // this time it took fewer calls
		}
	}
	src, dst := w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref())
	checkMatch(t, src, dst)
	checkAll(t, dst, token.Stored)
	for _, it := range s.items {
		got, ok := service.Content(string(it.Dst))
		if !ok || !bytes.Equal(got, content(t, w.from, it.Src)) {
			t.Errorf("%q is not a copy of %q", it.Dst, it.Src)
		}
	}
	poll(t, "the batch to end", func() bool { return len(w.dst.agent.of("")) == 0 })
	if left := service.Unfinished(); len(left) > 0 && !(what.done && begun == "Begin" && !opt.Named) { // whose identifier nobody heard: it may be anybody's
		t.Errorf("got %v left behind after trouble at %s, want nothing", left, begun)
	}
	if keys := service.Keys(); slices.ContainsFunc(keys, func(k string) bool { _, ok := index[k]; return !ok }) {
		t.Errorf("got the keys %q, want no others than were ordered", keys)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults {
		t.Errorf("after trouble at %s: %s", begun, f)
	}
	return len(service.Calls()) - before
}

// TestTroubleAtEachCall: a service that does not answer a call, before or after its effect, and a kill of the destination while it waits for
// the answer, at each call in turn: all is stored once, nothing that is known is sent again, nothing is left behind.
func TestTroubleAtEachCall(t *testing.T) {
	t.Parallel()
	kills := []trouble{{false, true}, {true, true}}
	for name, c := range map[string]struct {
		opt  backendtest.Options
		ways []trouble
	}{
		"S3":    {backendtest.Options{}, append([]trouble{{false, false}, {true, false}}, kills...)},
		"named": {backendtest.Options{Named: true}, kills}, "unlisted": {backendtest.Options{Unlisted: true}, kills},
	} {
		opt := c.opt
		calls := throughTrouble(t, opt, -1, trouble{})
		t.Logf("%s: %d calls, each of them tried in %d ways", name, calls, len(c.ways))
		for n := range calls {
			if testing.Short() && n%40 != 0 {
				continue
			}
			for _, what := range c.ways {
				t.Run(fmt.Sprintf("%s %d %+v", name, n, what), func(t *testing.T) {
					t.Parallel()
					throughTrouble(t, opt, n, what)
				})
			}
		}
	}
}
