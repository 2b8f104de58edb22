package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// step does once everything that is due at now. It may be called at any moment and any number of
// times; what it does rests on the database and on who is connected alone.
func (b *Broker) step(ctx context.Context, now time.Time) error {
	return errors.Join(
		b.tendKeys(ctx, now),
		b.reap(ctx, now),
		b.tendRights(ctx, now),
		b.tendResting(ctx, now),
		b.tendStanding(ctx, now),
		b.tendNotices(ctx, now),
		b.tendAll(ctx, now),
		b.lease(ctx, now),
		b.tendAdoptions(ctx, now),
		b.dropPages(ctx),
		b.flushDenials(ctx, now),
		b.digestAudit(ctx, now),
		b.pruneAudit(ctx, now),
	)
}

// tendAll looks after every unfinished transfer.
func (b *Broker) tendAll(ctx context.Context, now time.Time) error {
	return b.eachUnfinished(ctx, func(t db.Transfer) error {
		if err := b.tend(ctx, t, now); err != nil {
			return fmt.Errorf("tending %s: %w", t.ID, err)
		}
		return nil
	})
}

// eachUnfinished calls fn for every transfer that has not ended, whatever becomes of the others.
func (b *Broker) eachUnfinished(ctx context.Context, fn func(db.Transfer) error) error {
	after := token.TransferID("")
	var errs []error
	for {
		var ts []db.Transfer
		err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
			ts, err = tx.Unfinished(ctx, after, transfersAtOnce)
			return err
		})
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for _, t := range ts {
			if err := fn(t); err != nil {
				errs = append(errs, err)
			}
			after = t.ID
		}
		if len(ts) < transfersAtOnce {
			return errors.Join(errs...)
		}
	}
}

// tend does what is due for one transfer.
func (b *Broker) tend(ctx context.Context, t db.Transfer, now time.Time) error {
	if t.Ending == "" && !now.Before(t.Expires) {
		return b.stop(ctx, t.ID, api.Expired, now)
	}
	if err := b.tendTurned(ctx, t, now); err != nil {
		return err
	}
	if t.State == api.Paused {
		if err := b.tendPause(ctx, t, now); err != nil {
			return err
		}
	} else if t.Ending == "" {
		if err := b.tendPlan(ctx, t, now); err != nil {
			return err
		}
		if err := b.tendRepins(ctx, t, now); err != nil {
			return err
		}
		if err := b.tendFolders(ctx, t, now); err != nil {
			return err
		}
	}
	return b.finish(ctx, t.ID, now)
}

// tendPlan has the source listed, as long as not too many batches wait, and closes a batch that
// has been open for long while agents have nothing to do.
func (b *Broker) tendPlan(ctx context.Context, t db.Transfer, now time.Time) error {
	if t.Planned {
		return nil
	}
	var ready, live int64
	var open []db.Batch
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		if ready, err = tx.CountIn(ctx, t.ID, db.Ready); err != nil {
			return err
		}
		if live, err = tx.CountIn(ctx, t.ID, db.Live); err != nil {
			return err
		}
		open, err = tx.BatchesIn(ctx, t.ID, db.Filling, 1)
		return err
	})
	if err != nil {
		return err
	}
	if len(open) > 0 && ready+live < 2 && now.Sub(open[0].Created) >= openFor {
		err := b.write(ctx, now, func(w *work) error {
			bt, err := w.Batch(ctx, open[0].Ref)
			if err != nil || bt.State != db.Filling {
				return err
			}
			bt.State = db.Ready
			return w.PutBatch(ctx, bt)
		})
		if err != nil {
			return err
		}
	}
	if now.Before(t.PlanAfter) || ready > int64(b.conf.MaxReady)/2 {
		return nil
	}
	given, err := b.assign(ctx, db.Task{Xfr: t.ID, Kind: db.PlanTask}, t.From, func(e db.Exporter) bool { return e.Export.Read }, now)
	if err != nil || given {
		if given && ready+live == 0 {
			b.await(t.ID, "")
		}
		return err
	}
	b.await(t.ID, b.nobody(t.From))
	return b.failUnexported(ctx, t, now)
}

// failUnexported ends the plan of a transfer if the agents that are now known do not export its containers.
func (b *Broker) failUnexported(ctx context.Context, t db.Transfer, now time.Time) error {
	return b.write(ctx, now, func(w *work) error {
		err := b.checkExported(ctx, w.Tx, token.Order{From: t.From, To: t.To}, t.Authority)
		if code := problem.Of(err); code != problem.NoContainer && code != problem.PolicyRefused {
			return err
		}
		t, txErr := w.Transfer(ctx, t.ID)
		if txErr != nil || t.Planned || t.Ending != "" {
			return txErr
		}
		return b.giveUp(ctx, w, &t, problem.As(err))
	})
}

func (b *Broker) tendRepins(ctx context.Context, t db.Transfer, now time.Time) error {
	var bts []db.Batch
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		bts, err = tx.BatchesIn(ctx, t.ID, db.Repin, 64)
		return err
	})
	if err != nil {
		return err
	}
	for _, bt := range bts {
		if now.Before(bt.NotBefore) {
			continue
		}
		given, err := b.assign(ctx, db.Task{Xfr: t.ID, Bat: bt.Bat, Kind: db.RepinTask}, t.From, func(e db.Exporter) bool { return e.Export.Read }, now)
		if err != nil {
			return err
		}
		if !given {
			b.await(t.ID, b.nobody(t.From))
		}
	}
	return nil
}

// tendFolders has the empty containers made once the whole source is known.
func (b *Broker) tendFolders(ctx context.Context, t db.Transfer, now time.Time) error {
	if !t.Planned || now.Before(t.PlanAfter) {
		return nil
	}
	var some []token.ObjectName
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		some, err = tx.Folders(ctx, t.ID, 1)
		return err
	})
	if err != nil || len(some) == 0 {
		return err
	}
	if err := b.judgeFolders(ctx, t, now); err != nil {
		return err
	}
	given, err := b.assign(ctx, db.Task{Xfr: t.ID, Kind: db.MakeTask}, t.To, func(e db.Exporter) bool { return e.Export.Create }, now)
	if err == nil && !given {
		b.await(t.ID, b.nobody(t.To))
	}
	return err
}

// reap ends live batches that wait for nobody who will come, and moves those of absent agents.
func (b *Broker) reap(ctx context.Context, now time.Time) error {
	var live []db.Batch
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		live, err = tx.LiveAll(ctx)
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, bt := range live {
		do := b.due(bt, now)
		if do == nil {
			continue
		}
		err := b.write(ctx, now, func(w *work) error {
			bt, err := w.Batch(ctx, bt.Ref)
			if err != nil || bt.State != db.Live {
				return err
			}
			t, err := w.Transfer(ctx, bt.Xfr)
			if err != nil {
				return err
			}
			return do(ctx, w, &t, &bt)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("ending batch %d of %s: %w", bt.Bat, bt.Xfr, err))
		}
	}
	return errors.Join(errs...)
}

// due returns what is to be done with a live batch at now, or nil.
func (b *Broker) due(bt db.Batch, now time.Time) func(context.Context, *work, *db.Transfer, *db.Batch) error {
	grace := b.conf.LeaseGrace
	heard, dropped := !bt.DstDone.IsZero(), !bt.Dropped.IsZero()
	switch {
	case heard && now.Sub(bt.DstDone) >= b.conf.UnmatchedAfter,
		heard && dropped && b.absent(bt.Src, now) > grace,
		dropped && now.Sub(bt.Dropped) > grace:
		return func(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch) error {
			return b.settle(ctx, w, t, bt, true)
		}
	case dropped || heard || now.Before(bt.CapExp.Add(token.ClockSkew)):
		return nil // until its end the capability is good in the hands of whoever may come back
	case b.absent(bt.Dst, now) > grace || b.absent(bt.Src, now) > grace:
		return b.abandon
	}
	return nil
}

// abandon takes a batch from agents of which one is gone, if there are others to take it.
func (b *Broker) abandon(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch) error {
	if t.State == api.Paused {
		return nil // nobody is waited for
	}
	free := load{map[token.Identity]int{}, map[token.Identity]int{}}
	src, dst, why, err := b.pair(ctx, w.Tx, *t, free)
	if err != nil || why != "" {
		if problem.Of(err) == problem.NoListener {
			err = nil
		}
		return err // it waits for them
	}
	if b.connected(bt.Dst) { // it may have stored some: its receipt says which
		bt.Dropped = w.now
		w.then(func() { b.postBoth(*bt) })
		if _, err := w.record(ctx, t, change{event: "abandoned", note: fmt.Sprintf("%s is away; batch %d goes on with %s", bt.Src, bt.Bat, src)}); err != nil {
			return err
		}
		return w.PutBatch(ctx, *bt)
	}
	if _, err := w.record(ctx, t, change{event: "abandoned", note: fmt.Sprintf("%s is away; batch %d goes on with %s", bt.Dst, bt.Bat, dst)}); err != nil {
		return err
	}
	w.then(func() { b.postBoth(*bt) })
	return b.settle(ctx, w, t, bt, true)
}

// Cancel ends a transfer: nothing new is begun, and running batches are told to stop. A
// transfer that has ended stays as it is.
func (b *Broker) Cancel(ctx context.Context, peer certs.Peer, id token.TransferID, now time.Time) (api.Transfer, error) {
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		_, err := own(ctx, tx, peer, id)
		return err
	})
	if err != nil {
		return api.Transfer{}, b.deny(peer.Identity, err)
	}
	t, err := b.Transfer(ctx, peer, id, 0, 0)
	if err != nil || t.State.Ended() {
		return t, err
	}
	if err := b.stop(ctx, id, api.Cancelled, now); err != nil {
		return api.Transfer{}, err
	}
	b.log.Info("transfer cancelled", zap.String("xfr", string(id)), zap.String("by", string(peer.Identity)))
	b.wake()
	return b.Transfer(ctx, peer, id, 0, 0)
}

// stop begins nothing new in a transfer that will end as the given state, and stops what runs.
func (b *Broker) stop(ctx context.Context, id token.TransferID, as api.State, now time.Time) error {
	return b.write(ctx, now, func(w *work) error { return b.stopIn(ctx, w, id, as) })
}

// stopIn is stop in a transaction that does more.
func (b *Broker) stopIn(ctx context.Context, w *work, id token.TransferID, as api.State) error {
	t, err := w.Transfer(ctx, id)
	if err != nil || t.Ending != "" || !t.Finished.IsZero() {
		return err
	}
	t.Ending = as
	t.Paused = time.Time{}
	if t.State == api.Paused {
		t.State = api.Running
	}
	if as == api.Cancelled {
		t.State = as
		why := token.ByCancel
		if !t.Withdrawn.IsZero() {
			why = token.ByWithdrawal
		}
		if err := b.revoke(ctx, w, id, why); err != nil { // told first
			return err
		}
	} // an order ends with the last of its capabilities
	code, detail := endCode(as, t.Withdrawn)
	if as == api.Cancelled {
		t.Code, t.Detail = code, detail // said while it is still ending
	}
	if _, err := w.record(ctx, &t, change{api.EventKind(as), detail, db.CancelLeaf, facts{"as": as}}); err != nil {
		return err
	}
	if err := w.DropTasks(ctx, id); err != nil {
		return err
	}
	if err := w.DropFolders(ctx, id, 0); err != nil {
		return err
	}
	if err := b.closeWaiting(ctx, w, &t, code, detail); err != nil {
		return err
	}
	live, err := w.BatchesIn(ctx, id, db.Live, 1<<20)
	if err != nil {
		return err
	}
	for _, bt := range live {
		if bt.Dropped.IsZero() {
			bt.Dropped = w.now
		}
		if err := w.PutBatch(ctx, bt); err != nil {
			return err
		}
		w.then(func() { b.postBoth(bt) })
	}
	return nil
}

// finish ends a transfer that has nothing left to do.
func (b *Broker) finish(ctx context.Context, id token.TransferID, now time.Time) error {
	done := func(ctx context.Context, tx *db.Tx) (bool, error) {
		t, err := tx.Transfer(ctx, id)
		if err != nil || !t.Finished.IsZero() || !t.Planned && t.Ending == "" {
			return false, err
		}
		if n, err := tx.Unended(ctx, id); err != nil || n > 0 {
			return false, err
		}
		some, err := tx.Folders(ctx, id, 1)
		return len(some) == 0, err
	}
	var now1 bool
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		now1, err = done(ctx, tx)
		return err
	})
	if err != nil || !now1 {
		return err
	}
	return b.write(ctx, now, func(w *work) error {
		if ok, err := done(ctx, w.Tx); err != nil || !ok {
			return err
		}
		t, err := w.Transfer(ctx, id)
		if err != nil {
			return err
		}
		t.State, t.Finished = endState(t), now
		if code, detail := endCode(t.State, t.Withdrawn); t.State == api.Cancelled || t.State == api.Expired {
			t.Code, t.Detail = code, detail
		}
		if err := w.DropTasks(ctx, id); err != nil {
			return err
		}
		w.then(func() { b.forget(t) })
		if err := w.event(ctx, &t, api.Event{Kind: api.EventKind(t.State), Code: t.Code, Note: endNote(t)}); err != nil {
			return err
		}
		_, err = w.leaf(ctx, db.SettleLeaf, facts{"bytes": t.Moved, "items": t.Items, "state": t.State, "xfr": t.ID})
		return err
	})
}

// endNote says how a transfer ended and, of one that did not go well, its first problem: whoever is told of this event alone knows why.
func endNote(t db.Transfer) string {
	note := fmt.Sprintf("The transfer ended: %s", t.State)
	if t.Code == "" {
		return note
	}
	return note + "; " + within((&problem.Error{Code: t.Code, Detail: t.Detail}).Sentence())
}

// forget drops what memory holds of a transfer that has ended.
func (b *Broker) forget(t db.Transfer) {
	b.await(t.ID, "")
	b.mu.Lock()
	delete(b.reasons, t.ID)
	b.mu.Unlock()
	b.log.Info("transfer ended", zap.String("xfr", string(t.ID)), zap.String("state", string(t.State)), zap.Int64("items", t.Items),
		zap.Int64("stored", t.Stored), zap.Int64("bytes", t.Moved), zap.String("code", string(t.Code)))
}

// endState is the state in which a transfer with nothing left to do ends.
func endState(t db.Transfer) api.State {
	whole := t.Failures() == 0 && t.Code == "" && t.Planned
	switch {
	case t.Ending == api.Cancelled:
		return api.Cancelled
	case t.Ending == api.Expired && !whole:
		return api.Expired
	case whole:
		return api.Complete
	case t.Stored+t.Existed > 0:
		return api.Partial
	}
	return api.Failed
}

// await notes what a transfer waits for; empty is nothing.
func (b *Broker) await(id token.TransferID, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if why == "" {
		delete(b.waiting, id)
		return
	}
	b.waiting[id] = why
}
