package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/token/problem"
)

// blame attributes a failure to an item if it is one of the item.
func (r *receiver) blame(i int, err error) error {
	switch problem.Of(err) {
	case problem.Changed, problem.Missing, problem.Unreadable, problem.Corrupt, problem.BadName:
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
	case errors.As(err, &local):
		r.broken(local.item, local.err)
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
		problem.NotCanonical, problem.OrderNotCovered, problem.OrderSpent, problem.OrderExpired, problem.NotPermitted:
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
		if err := r.discard(r.a.ioCtx, i); err != nil {
			r.end(i, err)
		}
	}
}

// broken decides about an item with which our store failed: no space and no right end it, anything else is tried once more
// on a new stage.
func (r *receiver) broken(i int, err error) {
	err = diskProblem(err)
	r.rmu.Lock()
	r.pieces[i].tries++
	tries := r.pieces[i].tries
	r.rmu.Unlock()
	code := problem.Of(err)
	if code == problem.Internal && tries < 2 {
		if again := r.discard(r.a.ioCtx, i); again == nil {
			return
		}
	}
	if code == problem.Internal {
		err = problem.Wrap(err, problem.Unwritable, "The destination's store failed while the item was written")
	}
	r.end(i, err)
}

// discard throws the stage of an item away; all of the item is missing again.
func (r *receiver) discard(ctx context.Context, i int) error {
	p := &r.pieces[i]
	p.staging.Lock()
	defer p.staging.Unlock()
	if err := r.record(journal.Record{Kind: recForget, Data: binary.BigEndian.AppendUint16(nil, uint16(i))}); err != nil {
		r.stop(err)
		return err
	}
	r.rmu.Lock()
	stage := p.stage
	p.stage = nil
	r.rmu.Unlock()
	if stage == nil {
		var err error
		if stage, err = r.stages.Stage(ctx, i, r.man.Items[i].Size); err != nil {
			return fmt.Errorf("opening a stage to throw it away: %w", err)
		}
	}
	if err := stage.Discard(); err != nil {
		return fmt.Errorf("throwing a stage away: %w", err)
	}
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if p.at != done {
		r.forget(i)
	}
	r.signal()
	return nil
}
