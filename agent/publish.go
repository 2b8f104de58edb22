package agent

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxPublish  = 256 // items that are published together
	commitEvery = 2 * time.Second
	endTries    = 3
	endTime     = 3 * time.Second
)

// publisher is the one goroutine that makes things durable and visible. It returns once every item has its outcome, or
// when ctx ends.
func (r *receiver) publisher(ctx context.Context) {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for {
		r.rmu.Lock()
		over, changed := r.open == 0 || r.fatal != nil, r.changed
		r.rmu.Unlock()
		if over || ctx.Err() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
			r.syncBulk()
		case <-r.bulk:
			r.syncBulk()
		case i := <-r.queue:
			group := []int{i}
			for len(group) < maxPublish && len(r.queue) > 0 {
				group = append(group, <-r.queue)
			}
			r.publish(group)
		}
	}
}

// syncBulk is the group commit of chunks.
func (r *receiver) syncBulk() {
	r.rmu.Lock()
	dirty := false
	for i := range r.pieces {
		dirty = dirty || r.pieces[i].dirty
	}
	r.rmu.Unlock()
	if !dirty {
		return
	}
	if err := r.commit(); err != nil {
		r.stop(err)
	}
}

// commit makes the journal's records durable, the data that they claim first. A chunk's item is dirty before its record is
// appended, so every record before the mark is of a stage that is synced here or was before. The stages of small items
// are not: their records are intents, and are checked against the stage after a change of boot.
func (r *receiver) commit() error {
	for {
		r.batch.mu.Lock()
		j := r.j
		r.batch.mu.Unlock()
		if j == nil {
			return problem.New(problem.Draining, "The batch is not open")
		}
		mark := j.Mark()
		broken := false
		for i, st := range r.takeDirty() {
			if err := st.Sync(); err != nil {
				broken = true
				r.broken(i, fmt.Errorf("syncing item %d: %w", i, err))
			}
		}
		if broken {
			continue // the records of what was thrown away are answered by a later one
		}
		return j.Commit(mark) // Durable from here.
	}
}

// takeDirty returns the stages that were written since the last time.
func (r *receiver) takeDirty() map[int]store.Stage {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	dirty := map[int]store.Stage{}
	for i := range r.pieces {
		if p := &r.pieces[i]; p.dirty && p.stage != nil && p.at != done {
			p.dirty = false
			dirty[i] = p.stage
		}
	}
	return dirty
}

// publish makes held items visible. That they are complete is durable before, so that a stage which may
// already be linked to its name is never written again.
func (r *receiver) publish(group []int) {
	if err := r.commit(); err != nil {
		r.stop(err)
		return
	}
	var pubs []store.Publication
	r.rmu.Lock()
	for _, i := range group {
		if p := &r.pieces[i]; p.at == held {
			pubs = append(pubs, store.Publication{Item: i, Name: r.man.Items[i].Dst, Size: r.man.Items[i].Size, Attrs: p.attrs})
		}
	}
	r.rmu.Unlock()
	if len(pubs) == 0 {
		return
	}
	outs := r.stages.Publish(r.a.ioCtx, pubs)
	for n, out := range outs {
		if problem.Of(out.Err) == problem.Internal && r.breaks == 0 {
			// The store may have lost what it held. Nothing that is not published is believed any more: the batch
			// begins anew, once.
			r.breaks++
			r.stop(out.Err)
			return
		}
		r.published(pubs[n], out)
	}
}

// published turns what the store says into the item's outcome.
func (r *receiver) published(pub store.Publication, out store.Published) {
	i := pub.Item
	r.rmu.Lock()
	root := r.pieces[i].root
	r.rmu.Unlock()
	switch code := problem.Of(out.Err); {
	case out.Err == nil:
		r.conclude(i, token.Outcome{
			Item: int64(i), Outcome: token.Stored, Size: pub.Size, Digest: root, Version: out.Info.Version,
			Native: clip(out.Info.Native, token.MaxNativeSize), Lost: lostNames(out.Lost),
		})
	case r.a.ioCtx.Err() != nil:
		r.stop(r.a.ioCtx.Err())
	case code == problem.Taken && r.will.IfExists != token.Fail:
		r.lostRace(i, root)
	case code == problem.Internal:
		r.broken(i, out.Err)
	default:
		r.end(i, out.Err)
	}
}

// lostRace decides about an item whose name appeared while it was fetched.
func (r *receiver) lostRace(i int, root token.Digest) {
	info, err := r.export.Store.Stat(r.a.ioCtx, r.man.Items[i].Dst)
	if err != nil || info.Type != store.Object {
		r.end(i, problem.New(problem.Taken, "The name %q already exists", r.man.Items[i].Dst))
		return
	}
	if r.will.IfExists == token.Skip {
		r.conclude(i, token.Outcome{Item: int64(i), Outcome: token.Existed, Size: info.Size, Version: info.Version, Lost: []string{}})
		return
	}
	own, err := hashObject(r.a.ioCtx, r.a, r.export.Store, info)
	if err != nil {
		r.end(i, err)
		return
	}
	r.compared(i, root, own)
}

// settle is side.settle: the source is told that the batch has ended. If it is not reached now, linger goes on.
func (r *receiver) settle(ctx context.Context, claims token.Receipt) {
	ctx, cancel := context.WithTimeout(ctx, r.a.quickly(endTime)+time.Second)
	defer cancel()
	_, peer := r.current()
	p := r.a.lanesTo(peer.ID)
	defer func() { p.leave(time.Now()) }()
	r.claims = claims
	for n := range endTries {
		err := r.tellEnd(ctx, p.slots[n%len(p.slots)], claims)
		if r.told = err == nil || final(problem.Of(err)); r.told {
			return
		}
		r.log.Debug("the source was not told of the end", zap.Error(err))
		if ctx.Err() != nil {
			return
		}
	}
}

// linger is side.linger: the source is told until it has heard, or the broker ends the batch, or the capability ends. Without
// that the source would have to wait for the broker.
func (r *receiver) linger(ctx context.Context) {
	if r.told || r.claims.N == 0 {
		return
	}
	_, peer := r.current()
	p := r.a.lanesTo(peer.ID)
	defer func() { p.leave(time.Now()) }()
	pause := r.a.backoff(unreachMin, unreachMax)
	for ctx.Err() == nil {
		err := r.tellEnd(ctx, p.slots[0], r.claims)
		if code := problem.Of(err); err == nil || final(code) || code == problem.CapExpired || code == problem.PeerMisbehaved {
			return
		}
		if r.a.sleepOr(ctx, pause.NextBackOff(), r.dropCtx.Done()) != nil || r.dropCtx.Err() != nil {
			return
		}
	}
}

func (r *receiver) tellEnd(ctx context.Context, s *slot, claims token.Receipt) error {
	st, _, err := s.open(ctx, r.batch)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { st.Abandon(problem.Cancelled) })()
	defer st.Abandon(problem.Cancelled)
	if err := ask(st, wire.End{Batch: r.wire(), N: int(claims.N), Root: claims.Root}, r.a.patience()); err != nil {
		return err
	}
	return wire.ReadEnded(st)
}
