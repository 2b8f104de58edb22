package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token/problem"
)

// blame attributes a failure to an item if it is one of the item.
func (r *receiver) blame(i int, err error) error {
	switch problem.Of(err) {
	case problem.Changed, problem.Missing, problem.Unreadable, problem.Corrupt, problem.BadName,
		problem.NotPermitted, problem.Hidden, problem.PolicyRefused:
		return &itemError{i, err}
	}
	return err
}

// refused decides what a failure ends: nothing (false: it is tried again later), an item, or every item.
func (r *receiver) refused(w want, err error) bool {
	if r.stopping() {
		return false
	}
	var local *localError
	var item *itemError
	switch code := problem.Of(err); {
	case errors.As(err, &local) && code == problem.StoreAway:
		return false // what was staged is still there
	case errors.As(err, &local) && errors.Is(err, store.ErrLost):
		r.lost(local.item, w.tree, local.err)
	case errors.As(err, &local):
		r.broken(local.item, w.tree, local.err)
	case errors.As(err, &item) && (code == problem.Corrupt || code == problem.PeerMisbehaved):
		r.again(item.item, item.err)
	case errors.As(err, &item):
		r.end(item.item, item.err)
	case final(code):
		r.endAll(err)
	case code == problem.PeerMisbehaved:
		r.misbehaved(w, err)
		return false // after a pause
	default:
		return false
	}
	return true
}

// final reports whether a refusal of the whole batch will not pass.
func final(code problem.Code) bool {
	switch code {
	case problem.CapNotYours, problem.CapAudience, problem.CapManifest, problem.CapSpent, problem.CapOverBudget, problem.CapTooLong,
		problem.ForeignPeer, problem.UnknownBroker, problem.PolicyRefused, problem.WrongStatement, problem.BadSignature,
		problem.NotCanonical, problem.OrderNotCovered, problem.OrderSpent, problem.OrderExpired, problem.OrderWithdrawn, problem.NotPermitted, problem.Hidden:
		return true
	}
	return false
}

// endAll gives every item without an outcome that of a refusal.
func (r *receiver) endAll(err error) {
	for i := range r.pieces {
		r.rmu.Lock()
		at := r.pieces[i].at
		r.rmu.Unlock()
		if at != done && at != held {
			r.end(i, err)
		}
	}
}

// misbehaved counts a broken answer against the items that were asked for.
func (r *receiver) misbehaved(w want, err error) {
	items := w.items
	if items == nil {
		items = []int{w.item}
	}
	for _, i := range items {
		r.rmu.Lock()
		p := &r.pieces[i]
		p.tries++
		over := p.tries >= maxTries && p.at != done && p.at != held
		r.rmu.Unlock()
		if over {
			r.end(i, err)
		}
	}
}

// again fetches an item anew whose bytes are not what its source says, a few times.
func (r *receiver) again(i int, err error) {
	r.rmu.Lock()
	p := &r.pieces[i]
	p.tries++
	over, whole := p.tries >= maxTries, p.at == sealing
	r.rmu.Unlock()
	switch {
	case over:
		r.end(i, err)
	case whole: // some chunk is wrong and nobody knows which
		r.anew(i)
	}
}

// condemn counts a failure of the stage that holds tree, which is nil for a small item. Of all that fail because one stage broke, one
// counts; the others get false, and the item is not their business any more.
func (r *receiver) condemn(i int, tree *chunk.Tree) (tries int, first bool) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	p := &r.pieces[i]
	if tree != nil && (p.tree != tree || p.condemned) {
		return 0, false
	}
	p.condemned = tree != nil
	p.tries++
	return p.tries, true
}

// lost fetches an item anew whose stage the store does not have any more, a few times.
func (r *receiver) lost(i int, tree *chunk.Tree, err error) {
	switch tries, first := r.condemn(i, tree); {
	case !first:
	case tries >= maxTries:
		r.end(i, problem.Wrap(err, problem.Unwritable, "The destination's store has lost what was staged of the item, %d times", tries))
	default:
		r.log.Info("the store has lost what was staged; the item is fetched anew", zap.Int("item", i), zap.Error(err))
		r.anew(i)
	}
}

// broken decides about an item with which our store failed: no space and no right end it, anything else is tried once more
// on a new stage.
func (r *receiver) broken(i int, tree *chunk.Tree, err error) {
	err = diskProblem(err)
	code := problem.Of(err)
	if code == problem.StoreAway {
		r.stop(err) // and after that it is as the store says
		return
	}
	tries, first := r.condemn(i, tree)
	switch {
	case !first:
		return
	case code == problem.Internal && tries < 2:
		r.anew(i)
		return
	case code == problem.Internal:
		err = problem.Wrap(err, problem.Unwritable, "The destination's store failed while the item was written")
	}
	r.end(i, err)
}

// anew throws the stage of an item away, so that all of it is fetched again. If the store cannot even do that, the item has
// failed; if it is only away, it is asked again after a pause.
func (r *receiver) anew(i int) {
	err := r.discard(r.a.ioCtx, i)
	switch {
	case err == nil:
	case problem.Of(err) == problem.StoreAway:
		r.stop(err)
	default:
		r.end(i, problem.Wrap(err, problem.Unwritable, "The destination's store failed while the item was written"))
	}
}

// discard throws the stage of an item away; all of the item is missing again. That is so as soon as the journal says it: what the store
// does with the stage after that cannot make anybody believe in it.
func (r *receiver) discard(ctx context.Context, i int) error {
	p := &r.pieces[i]
	p.staging.Lock()
	defer p.staging.Unlock()
	stage, err := r.disown(i)
	if err != nil {
		return err
	}
	if stage == nil {
		if stage, err = r.stages.Stage(ctx, r.itemOf(i, store.Attrs{})); err != nil {
			return fmt.Errorf("opening a stage to throw it away: %w", err)
		}
	}
	if err := stage.Discard(ctx); err != nil {
		return fmt.Errorf("throwing a stage away: %w", err)
	}
	return nil
}

// disown forgets what is held of an item, in the journal first, and returns its stage if that is open. No record of a chunk of it comes behind that.
func (r *receiver) disown(i int) (store.Stage, error) {
	p := &r.pieces[i]
	p.writing.Lock()
	defer p.writing.Unlock()
	if err := r.record(journal.Record{Kind: recForget, Data: binary.BigEndian.AppendUint16(nil, uint16(i))}); err != nil {
		r.stop(err)
		return nil, err
	}
	r.rmu.Lock()
	defer r.rmu.Unlock()
	stage := p.stage
	p.stage = nil
	if p.at != done {
		r.forget(i)
	}
	r.signal()
	return stage, nil
}
