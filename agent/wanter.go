package agent

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxRunItems  = 256
	maxRunBytes  = 16 << 20
	maxMemoryRun = 4 << 20  // of maxRunBytes, where the store keeps them in memory, so that all wanters have a share
	bulkBytes    = 64 << 20 // received bytes after which they are made durable
)

// A want is what one wanter asks for at once: a run of small items, chunks of a large one, or its seal. Chunks are
// a part of the item, or several if a part is one chunk.
type want struct {
	items []int // of a run; nil otherwise
	item  int
	first int64
	n     int64       // chunks; 0 is the seal
	tree  *chunk.Tree // of the item when the chunks were taken
	waits int64       // bytes taken of the memory for chunks that come ahead of their turn
}

// A wanter asks, reads and writes on one lane.
type wanter struct {
	*receiver
	slot *slot
	size int // chunks that come in about a second
}

// wanter asks on one lane until nothing is left to ask. The memory for an answer is
// taken before its want is sent, and no other stream is waited for while an answer is unread.
func (r *receiver) wanter(ctx context.Context, s *slot) {
	pause := r.a.backoff(unreachMin, unreachMax)
	w := &wanter{receiver: r, slot: s, size: 1}
	for {
		q, ok := r.next(ctx, w.chunks())
		if !ok {
			return
		}
		if r.obey() { // policy was replaced while we waited, and what was taken may not be wanted any more
			r.giveBack(q)
			continue
		}
		stirred := r.stirred()
		err := w.fetch(ctx, q)
		r.giveBack(q)
		if err == nil {
			pause.Reset()
			r.wait(nil)
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errMoot) || r.refused(q, err) {
			continue
		}
		if problem.Of(err) == problem.UnknownKey { // the broker has a new one
			r.renewSoon()
		}
		r.wait(err)
		r.log.Debug("a want failed", zap.Error(err))
		if r.a.sleepOr(ctx, pause.NextBackOff(), stirred) != nil {
			return
		}
	}
}

// chunks is how many the wanter asks for at once.
func (w *wanter) chunks() int { return int(w.most(int64(w.size)*chunk.Size) / chunk.Size) }

// came takes a measure of the lane: so many bytes of one answer since start.
func (w *wanter) came(bytes int64, start time.Time) {
	w.size = min(wantSize(w.size, bytes, time.Since(start)), w.a.share(wire.MaxWant))
}

// share is a wanter's part of what one lane may have under way, so that all its wanters together never
// have more at stake than one want of full size when a process is killed.
func (a *Agent) share(whole int) int { return max(1, whole/a.conf.WantersPerLane) }

// wantSize is how many chunks to ask for next, so that a want takes about a second.
func wantSize(now int, bytes int64, took time.Duration) int {
	if bytes < chunk.Size/2 {
		return now
	}
	rate := float64(bytes) / max(took.Seconds(), 1e-3)
	return min(max(int(rate)/chunk.Size, 1), wire.MaxWant, 2*now)
}

// next waits for something to ask for and takes it; false means that there will not be any more.
func (r *receiver) next(ctx context.Context, size int) (want, bool) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	for {
		if ctx.Err() != nil || r.open == 0 || r.fatal != nil {
			return want{}, false
		}
		if w, ok := r.take(size); ok {
			return w, true
		}
		changed := r.changed
		r.rmu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
		r.rmu.Lock()
	}
}

// take picks a want: seals first, for they free their items; then a run of small items; then chunks. It waits for nothing, also not
// for memory: who has some of it is on the way to give it back, and asks for no more until then. The caller holds rmu.
func (r *receiver) take(size int) (want, bool) {
	run, total, runBytes := []int(nil), int64(0), r.most(int64(r.a.share(maxRunBytes)))
	if r.traits.Volatile {
		runBytes = min(runBytes, maxMemoryRun)
	}
	for i := r.cursor; i < len(r.pieces); i++ {
		p := &r.pieces[i]
		switch {
		case p.at == sealing && p.seal:
			for _, j := range run {
				r.unask(j)
			}
			p.seal = false
			p.users++
			return want{item: i}, true
		case p.at != missing:
			if i == r.cursor && p.at == done {
				r.cursor++
			}
		case r.small(i):
			if len(run) < maxRunItems && total < runBytes && r.reserve(i) {
				p.at = asked
				run, total = append(run, i), total+r.man.Items[i].Size
			}
		case len(run) == 0:
			if w, ok := r.lend(i, size); ok {
				p.users++
				return w, true
			}
		}
		if len(run) == maxRunItems || total >= runBytes {
			break
		}
	}
	return want{items: run}, len(run) > 0
}

// lend moves chunks of a large item in flight. Those that come ahead of their turn wait in memory, which is taken here; if there is not enough of it
// there are none. What is next in turn needs none. The caller holds rmu.
func (r *receiver) lend(i, size int) (w want, ok bool) {
	p := &r.pieces[i]
	if p.condemned {
		return want{}, false
	}
	w = want{item: i, tree: p.tree}
	if p.unit > 1 {
		w.first, w.n, ok = p.tree.TakePart(p.unit)
	} else {
		w.first, w.n, ok = p.tree.TakeMissing(size)
	}
	if !ok || !p.ordered || w.first == p.summed {
		return w, ok
	}
	if w.waits = w.n * chunk.Size; w.waits > r.ahead {
		p.tree.Release(w.first, w.n)
		return want{}, false
	}
	r.ahead -= w.waits
	return w, true
}

// reserve takes the memory for small item i, if the store needs any and it is there. One item is always let in. The caller
// holds rmu.
func (r *receiver) reserve(i int) bool {
	if !r.traits.Volatile {
		return true
	}
	need := r.man.Items[i].Size + itemMemory
	if need > r.memory && r.memory < r.budget {
		return false
	}
	r.pieces[i].memory = need
	r.memory -= need
	return true
}

// unask makes an item that was asked for missing again. The caller holds rmu.
func (r *receiver) unask(i int) {
	p := &r.pieces[i]
	p.at = missing
	r.free(p)
	r.cursor = min(r.cursor, i)
}

// giveBack makes what a want did not bring missing again, and closes the stage of an item that has its outcome.
func (r *receiver) giveBack(w want) {
	r.rmu.Lock()
	for _, i := range w.items {
		if r.pieces[i].at == asked {
			r.unask(i)
		}
	}
	if w.items == nil {
		p := &r.pieces[w.item]
		p.users--
		r.ahead += w.waits
		if w.n > 0 && p.tree == w.tree && p.at == missing {
			p.tree.Release(w.first, w.n)
		}
		if w.n == 0 && p.at == sealing {
			p.seal = true
		}
	}
	r.signal()
	r.rmu.Unlock()
	if w.items == nil {
		r.closeIdle(w.item)
	}
}
