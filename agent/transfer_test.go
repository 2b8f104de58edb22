package agent

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

// TestRateOfTheOrder: all batches of a transfer together stay below the rate that its order allows.
func TestRateOfTheOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	o := w.order()
	o.Limits.Rate = 2 << 20
	s1 := w.spec(o, 1, w.random("in/large", 3<<20), w.random("in/a", 1000))
	s2 := w.spec(o, 2, w.random("in/b", 1<<20), w.random("in/c", 1<<20))
	began := time.Now()
	var wg sync.WaitGroup
	for _, s := range []*spec{s1, s2} {
		serve, receive := w.tasks(s)
		w.broker.give(w.dst.port, receive)
		w.broker.give(w.src.port, serve)
		wg.Go(func() { checkResults(t, w.broker.receipt(token.Destination, s.ref()), token.Stored, token.Stored) })
	}
	wg.Wait()
	const burst = 2 << 20
	if took, least := time.Since(began), time.Second*(5<<20-burst)/(2<<20); took < least-50*time.Millisecond {
		t.Errorf("5 MiB at 2 MiB/s took %s, want at least %s", took, least)
	}
}

func TestCopiesSmallAndLargeObjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	var infos []store.Info
	for i, size := range []int{0, 1, 4096, 1 << 20, 1<<20 + 1, 9<<20 + 12345, 3 << 20} {
		infos = append(infos, w.random(token.ObjectName(fmt.Sprintf("in/d%d/o%d", i%3, i)), size))
	}
	for i := range 500 {
		infos = append(infos, w.random(token.ObjectName(fmt.Sprintf("in/many/%03d", i)), i*7))
	}
	s := w.spec(w.order(), 1, infos...)
	src, dst := w.run(s)
	for i, o := range dst.outs {
		if o.Outcome != token.Stored || src.outs[i].Outcome != token.Sent {
			t.Fatalf("item %d: destination %+v, source %+v", i, o, src.outs[i])
		}
	}
	checkMatch(t, src, dst)
	w.checkCopied(s)
	w.checkNoStages()
}
