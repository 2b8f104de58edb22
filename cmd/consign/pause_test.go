package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
)

// TestPauseMidway pauses a running transfer: bytes stop, also when the broker and both agents are killed and started meanwhile, and when it
// is resumed nothing is sent again that was verified.
func TestPauseMidway(t *testing.T) {
	t.Parallel()
	const bigBytes = 32 << 20
	w := newWorld(t, localnet.Setting{Key: "rate", Value: 4 << 20})
	w.file("tree/small", []byte("small\n"))
	w.must(fillRandom(t.Context(), filepath.Join(w.src, "tree", "big"), bigBytes))
	start(w)
	order := w.order("-r", "north:/src/tree", "south:/dst/")
	w.await("some bytes are sent", func() bool { return w.sent() >= 6<<20 })
	w.consign(0, "transfer", "pause", string(order.ID))
	began, last, changed := time.Now(), w.sent(), time.Now()
	w.await("bytes have stopped for two seconds", func() bool {
		if now := w.sent(); now != last {
			last, changed = now, time.Now()
		}
		return time.Since(changed) > 2*time.Second
	})
	t.Logf("bytes stopped %s after the pause was answered, at %d of %d", changed.Sub(began).Round(10*time.Millisecond), last, int64(bigBytes))
	if last >= bigBytes || changed.Sub(began) > 30*time.Second {
		t.Fatalf("got %d bytes sent, the last %s after the pause, want it to stop in the middle and within 30 s", last, changed.Sub(began))
	}
	if got := w.show(order.ID); got.State != api.Paused {
		t.Errorf("got state %s, want paused", got.State)
	}
	w.must(w.broker.Kill())
	for _, p := range []*localnet.Proc{w.south.Proc, w.north.Proc} { // with nobody to tell them
		w.must(p.Kill())
		w.must(p.Start(t.Context()))
	}
	w.must(w.broker.Start(t.Context()))
	if again := w.sent(); again != 0 {
		t.Errorf("got %d bytes sent in the pause, want none", again)
	}
	w.consign(0, "transfer", "resume", string(order.ID))
	w.consign(0, "transfer", "wait", string(order.ID))
	if got := w.show(order.ID); got.State != api.Complete || got.Outcomes[token.Stored] != 2 {
		t.Errorf("got %s %v, want both stored", got.State, got.Outcomes)
	}
	total := last + w.sent()
	t.Logf("%d bytes were sent for %d", total, int64(bigBytes))
	if total > bigBytes+2<<20 { // a kill costs one want a lane at most, and there was none under way
		t.Errorf("got %d bytes sent in all, want hardly more than %d", total, int64(bigBytes))
	}
	w.same(order.ID, "tree")
	w.verified(order.ID)
	w.noStages()
}
