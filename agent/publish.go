package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxPublish  = 256 // items that are published together
	commitEvery = 2 * time.Second
)

// publisher is the one goroutine that makes things visible. It returns once every item has its outcome, or when ctx ends. While the
// store is away it asks again and again; nothing is lost by that.
func (r *receiver) publisher(ctx context.Context) {
	pause := r.a.backoff(unreachMin, unreachMax)
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
		case i := <-r.queue:
			group := []int{i}
			for len(group) < maxPublish && len(r.queue) > 0 {
				group = append(group, <-r.queue)
			}
			away := r.publish(group)
			if before := r.publishing.Swap(away == nil); away == nil {
				if !before {
					r.wait(nil)
				}
				pause.Reset()
				continue
			}
			r.batch.wait(away)
			r.log.Warn("publishing waits for the store", zap.Error(away))
			if r.a.sleep(ctx, pause.NextBackOff()) != nil {
				return
			}
		}
	}
}

// wait is batch.wait, but that good news of a lane does not hide for what reason the publisher waits.
func (r *receiver) wait(err error) {
	if err != nil || r.publishing.Load() {
		r.batch.wait(err)
	}
}

// closeIdle closes the stage of an item that has its outcome and that nobody uses.
func (r *receiver) closeIdle(i int) {
	r.rmu.Lock()
	p := &r.pieces[i]
	var idle store.Stage
	if p.at == done && p.users == 0 {
		idle, p.stage = p.stage, nil
	}
	r.rmu.Unlock()
	if idle == nil {
		return
	}
	if err := idle.Close(); err != nil {
		r.log.Debug("closing a stage", zap.Int("item", i), zap.Error(err))
	}
}

// syncer makes chunks durable from time to time, whatever the publisher waits for, until ctx ends.
func (r *receiver) syncer(ctx context.Context) {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-r.bulk:
		}
		r.syncBulk()
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
// are not: their records are intents, and are checked against the stage after a change of boot. One commit runs at a time: another's
// mark would cover records whose stages this one has taken and not yet synced.
func (r *receiver) commit() error {
	r.syncing.Lock()
	defer r.syncing.Unlock()
	for {
		r.batch.mu.Lock()
		j := r.j
		r.batch.mu.Unlock()
		if j == nil {
			return problem.New(problem.Draining, "The batch is not open")
		}
		mark := j.Mark()
		broken := false
		for i, d := range r.takeDirty() {
			err := d.stage.Sync()
			if problem.Of(err) == problem.StoreAway {
				return err // poisoned all the same; the next run over the batch finds out what is left
			}
			if err != nil {
				broken = true
				r.broken(i, d.tree, fmt.Errorf("syncing item %d: %w", i, err))
			}
		}
		if broken {
			continue // the records of what was thrown away are answered by a later one
		}
		return j.Commit(mark) // Durable from here.
	}
}

// A dirtied stage was written since the last sync.
type dirtied struct {
	stage store.Stage
	tree  *chunk.Tree
}

// takeDirty returns the stages that were written since the last time.
func (r *receiver) takeDirty() map[int]dirtied {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	dirty := map[int]dirtied{}
	for i := range r.pieces {
		if p := &r.pieces[i]; p.dirty && p.stage != nil && p.at != done {
			p.dirty = false
			dirty[i] = dirtied{p.stage, p.tree}
		}
	}
	return dirty
}

// publish makes held items visible. That they are complete is durable before, so that a stage which may
// already be linked to its name is never written again. Items for which the store is away stay held and come again; the reason
// is returned.
func (r *receiver) publish(group []int) (away error) {
	if err := r.commit(); err != nil {
		r.stop(err)
		return nil
	}
	slices.Sort(group)
	var pubs []store.Publication
	r.rmu.Lock()
	for _, i := range slices.Compact(group) {
		if p := &r.pieces[i]; p.at == held {
			pubs = append(pubs, store.Publication{Item: r.itemOf(i, p.attrs), Root: p.root})
		}
	}
	r.rmu.Unlock()
	if len(pubs) == 0 {
		return nil
	}
	outs := r.stages.Publish(r.a.ioCtx, pubs)
	for n, out := range outs {
		if problem.Of(out.Err) == problem.Internal && !errors.Is(out.Err, store.ErrLost) && r.near() && r.breaks == 0 {
			// The store may have lost what it held. Nothing that is not published is believed any more: the batch
			// begins anew, once.
			r.breaks++
			r.stop(out.Err)
			return nil
		}
		if err := r.published(pubs[n], out); problem.Of(err) == problem.StoreAway {
			away = err
			r.queue <- pubs[n].Index // has room: it was in it
			continue
		}
		r.closeIdle(pubs[n].Index)
	}
	return away
}

// published turns what the store says into the item's outcome. It fails with problem.StoreAway if there is none yet.
func (r *receiver) published(pub store.Publication, out store.Published) error {
	i := pub.Index
	r.rmu.Lock()
	tree, value := r.pieces[i].tree, r.pieces[i].value
	r.rmu.Unlock()
	switch code := problem.Of(out.Err); {
	case out.Err == nil:
		r.conclude(i, token.Outcome{
			Item: int64(i), Outcome: token.Stored, Size: pub.Size, Digest: pub.Root, Hash: value, Version: out.Info.Version,
			Native: clip(out.Info.Native, token.MaxNativeSize), Lost: lostNames(out.Lost),
		})
	case r.a.ioCtx.Err() != nil:
		r.stop(r.a.ioCtx.Err())
	case code == problem.StoreAway:
		return out.Err
	case errors.Is(out.Err, store.ErrLost):
		r.lost(i, tree, out.Err)
	case code == problem.Taken && r.will.IfExists != token.Fail:
		return r.lostRace(i, pub.Root)
	case code == problem.Internal:
		r.broken(i, tree, out.Err)
	default:
		r.end(i, out.Err)
	}
	return nil
}

// lostRace decides about an item whose name appeared while it was fetched. It fails with problem.StoreAway if it cannot
// decide yet.
func (r *receiver) lostRace(i int, root token.Digest) error {
	info, err := r.export.Store.Stat(r.a.ioCtx, r.man.Items[i].Dst)
	switch code := problem.Of(err); {
	case code == problem.StoreAway:
		return err
	case code != "" || info.Type != store.Object:
		r.end(i, problem.New(problem.Taken, "The name %q already exists", r.man.Items[i].Dst))
		return nil
	case r.will.IfExists == token.Skip:
		r.conclude(i, token.Outcome{Item: int64(i), Outcome: token.Existed, Size: info.Size, Version: info.Version, Lost: []string{}})
		return nil
	}
	own, err := hashObject(r.a.ioCtx, r.a, r.export.Store, info, nil)
	switch {
	case problem.Of(err) == problem.StoreAway:
		return err
	case err != nil:
		r.end(i, err)
	default:
		r.compared(i, root, own)
	}
	return nil
}
