package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// maxSurveyors is how many names are looked up at once where each look is a request to somewhere else.
const maxSurveyors = 16

// resume takes up what an earlier run held, as far as the store still has it. A failure of the store is no reason to throw anything away.
func (r *receiver) resume(ctx context.Context) error {
	for i := range r.pieces {
		p := &r.pieces[i]
		if p.at == done || p.at == missing && !p.begun() {
			continue
		}
		ok, err := r.trusts(ctx, i)
		if err != nil {
			return err
		}
		switch {
		case !ok:
			r.log.Info("a stage is not what the journal says; the item is fetched anew", zap.Int("item", i))
			if err := r.discard(ctx, i); err != nil {
				return err
			}
		case p.at == held:
			r.queue <- i
		case p.tree.Complete():
			p.at, p.seal = sealing, true
		}
	}
	return nil
}

// trusts reports whether the stage of an item holds what the journal says. A small item that was staged in an earlier boot is
// read again, since its stage was not yet durable when its record was; a large one was synced before its records counted. Where that
// would be a request, Publish finds out: it knows its own work, and says if the stage is lost.
func (r *receiver) trusts(ctx context.Context, i int) (bool, error) {
	p := &r.pieces[i]
	switch {
	case p.at == held && !r.near():
		return true, nil
	case r.small(i) && (p.doubt || r.breaks > 0):
		return r.reread(ctx, i)
	case r.small(i):
		return true, nil
	case p.ordered && !p.summable():
		return false, nil
	}
	stage, err := r.stageOf(ctx, i, store.Attrs{})
	switch {
	case errors.Is(err, store.ErrLost):
		return false, nil
	case err != nil:
		return false, diskProblem(err)
	}
	for first := int64(0); first < p.tree.Count(); first += p.unit {
		if p.tree.Has(first) && !stage.Holds(first/p.unit) {
			return false, nil
		}
	}
	return true, nil
}

// near reports whether stages of every size can be looked at without a request to somewhere else.
func (r *receiver) near() bool { return r.traits.Rereads && !r.traits.Volatile }

// summable reports whether the hashes can be carried on behind the chunks that are held, which are then the first ones.
func (p *piece) summable() bool {
	n, _ := p.tree.Held()
	return n == p.summed
}

// reread reports whether the stage of a small item holds what its record says.
func (r *receiver) reread(ctx context.Context, i int) (bool, error) {
	size := r.man.Items[i].Size
	st, err := r.stages.Stage(ctx, r.itemOf(i, store.Attrs{}))
	if err != nil {
		return false, fmt.Errorf("opening the stage of item %d: %w", i, err)
	}
	buf := r.a.buffer()
	defer r.a.release(buf)
	n, err := st.ReadAt(buf[:size], 0)
	if cerr := st.Close(); cerr != nil {
		return false, fmt.Errorf("closing the stage of item %d: %w", i, cerr)
	}
	if int64(n) < size {
		if problem.Of(err) == problem.StoreAway {
			return false, err
		}
		r.log.Debug("a stage is short after a crash", zap.Int("item", i), zap.Error(err))
		return false, nil
	}
	return chunk.Of(buf[:size], 0, size).Digest() == r.pieces[i].root, nil
}

// survey gives their outcome to items whose destination exists before anything was asked for them.
func (r *receiver) survey(ctx context.Context) error {
	workers := 1
	if r.traits.Volatile {
		workers = maxSurveyors
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := range next {
				if err := r.look(ctx, i); err != nil {
					stop(err)
				}
			}
		})
	}
	for i := range r.pieces {
		p := &r.pieces[i]
		if p.at != missing || p.begun() || r.traits.Volatile && r.small(i) && r.will.IfExists == token.Fail {
			continue // what fails is seen by Publish as well, and a small item does not cost much more than the look
		}
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// look decides about an item of which nothing is held by what its name is at the moment. An error ends the run.
func (r *receiver) look(ctx context.Context, i int) error {
	info, err := r.export.Store.Stat(ctx, r.man.Items[i].Dst)
	switch code := problem.Of(err); {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case code == problem.Missing:
		return nil
	case code == problem.StoreAway:
		return fmt.Errorf("looking for %q: %w", r.man.Items[i].Dst, err)
	case err != nil:
		r.end(i, err)
	case info.Type == store.Subtree && r.traits.Flat:
		return nil // a name may be both
	case info.Type != store.Object:
		r.end(i, problem.New(problem.Taken, "The name exists and is not an object"))
	case info.Origin == store.OriginOf(r.key.stages(r.a.self), i):
		return nil // our own work, of which a crash took the record: Publish knows it again
	default:
		return r.exists(ctx, i, info)
	}
	return nil
}

// exists decides about an item whose name is there.
func (r *receiver) exists(ctx context.Context, i int, info store.Info) error {
	it := r.man.Items[i]
	switch {
	case r.will.IfExists == token.Skip:
		r.conclude(i, token.Outcome{Item: int64(i), Outcome: token.Existed, Size: info.Size, Version: info.Version, Lost: []string{}})
		return nil
	case r.will.IfExists != token.Compare || info.Size != it.Size:
		r.end(i, problem.New(problem.Taken, "The name %q already exists", it.Dst))
		return nil
	}
	along, err := newSums(digestSums(it), nil)
	if err != nil {
		return err
	}
	own, err := hashObject(ctx, r.a, r.export.Store, info, along)
	switch {
	case problem.Of(err) == problem.StoreAway:
		return err
	case err != nil:
		r.end(i, err)
		return nil
	case it.Digest != "":
		got := own
		if wantsSHA256(it) {
			got = along.digest()
		}
		if got == it.Digest {
			r.compared(i, own, own)
		} else {
			r.compared(i, own, it.Digest)
		}
		return nil
	}
	r.rmu.Lock()
	defer r.rmu.Unlock()
	p := &r.pieces[i]
	p.own, p.root = own, ""
	if p.tree != nil {
		p.at, p.seal = sealing, true
	}
	return nil
}

// compared gives its outcome to an item whose name exists, now that the source's digest is known.
func (r *receiver) compared(i int, own, theirs token.Digest) {
	if own != theirs {
		r.end(i, problem.New(problem.Taken, "The name %q already exists with other content", r.man.Items[i].Dst))
		return
	}
	r.conclude(i, token.Outcome{Item: int64(i), Outcome: token.Existed, Size: r.man.Items[i].Size, Digest: own, Lost: []string{}})
}
