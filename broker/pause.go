package broker

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// keepNames is how long a paused transfer keeps its destination names from others.
const keepNames = time.Hour

// errPaused is the answer to who asks for a capability of a paused transfer.
var errPaused = problem.New(problem.CapRevoked, "The transfer is paused")

// Pause has a transfer of the caller's rest: nothing new is begun, and the capabilities of what runs are revoked. Live batches
// stay with their agents, which keep what they have received. It fails with problem.Conflict if the transfer is paused or has
// ended.
func (b *Broker) Pause(ctx context.Context, peer certs.Peer, id token.TransferID, now time.Time) (api.Transfer, error) {
	err := b.write(ctx, now, func(w *work) error {
		t, err := own(ctx, w.Tx, peer, id)
		switch {
		case err != nil:
			return err
		case t.State == api.Paused:
			return &problem.Error{Code: problem.Conflict, Detail: "The transfer is paused already", Remedy: "Let it go on with 'consign transfer resume'."}
		case t.State.Ended() || t.Ending != "":
			return hasEnded(t)
		}
		t.State, t.Paused = api.Paused, now
		if err := b.revoke(ctx, w, id, token.ByPause); err != nil {
			return err
		}
		if err := w.DropTasks(ctx, id); err != nil {
			return err
		}
		_, err = w.record(ctx, &t, change{"paused", fmt.Sprintf("Paused by %s", peer.Identity), db.PauseLeaf, facts{"as": api.Paused, "by": peer.Identity}})
		w.then(func() { b.await(id, "") })
		return err
	})
	if err != nil {
		return api.Transfer{}, b.deny(peer.Identity, err)
	}
	b.log.Info("transfer paused", zap.String("xfr", string(id)), zap.String("by", string(peer.Identity)))
	return b.Transfer(ctx, peer, id, 0, 0)
}

func hasEnded(t db.Transfer) error {
	as := t.State
	if t.Ending != "" {
		as = t.Ending
	}
	return &problem.Error{Code: problem.Conflict, Detail: fmt.Sprintf("The transfer has already ended: it is %s", as), Remedy: "Order it again if it is still wanted."}
}

// Resume lets a paused transfer of the caller's go on where it was. It fails with problem.Conflict if the transfer is not paused.
func (b *Broker) Resume(ctx context.Context, peer certs.Peer, id token.TransferID, now time.Time) (api.Transfer, error) {
	err := b.write(ctx, now, func(w *work) error {
		t, err := own(ctx, w.Tx, peer, id)
		switch {
		case err != nil:
			return err
		case t.State.Ended() || t.Ending != "":
			return hasEnded(t)
		case t.State != api.Paused:
			return &problem.Error{Code: problem.Conflict, Detail: fmt.Sprintf("The transfer is not paused: it is %s", t.State), Remedy: "Nothing to do: it goes on by itself."}
		}
		t.State, t.Paused = api.Queued, time.Time{}
		if _, err := b.liftQuiet(ctx, w, &t); err != nil { // told first
			return err
		}
		if err := b.retake(ctx, w, &t); err != nil {
			return err
		}
		_, err = w.record(ctx, &t, change{"resumed", fmt.Sprintf("Resumed by %s", peer.Identity), db.PauseLeaf, facts{"as": t.State, "by": peer.Identity}})
		w.then(b.wake)
		return err
	})
	if err != nil {
		return api.Transfer{}, b.deny(peer.Identity, err)
	}
	b.log.Info("transfer resumed", zap.String("xfr", string(id)), zap.String("by", string(peer.Identity)))
	return b.Transfer(ctx, peer, id, 0, 0)
}

// retake sends the live batches of a resumed transfer on their way. Names that were given back are reserved again; a batch that cannot
// have all of its own any more is ended by its agents, and what is left of it waits as any batch does.
func (b *Broker) retake(ctx context.Context, w *work, t *db.Transfer) error {
	live, err := w.BatchesIn(ctx, t.ID, db.Live, 1<<20)
	if err != nil {
		return err
	}
	for _, bt := range live {
		if bt.Dropped.IsZero() {
			if err := b.retakeOne(ctx, w, t, bt); err != nil {
				return err
			}
		}
		w.then(func() { b.postBoth(bt) })
	}
	return nil
}

func (b *Broker) retakeOne(ctx context.Context, w *work, t *db.Transfer, bt db.Batch) error {
	if !bt.DstDone.IsZero() { // nothing will be created any more
		t.State = api.Running
		return nil
	}
	m, err := manifest(ctx, w.Tx, bt.Ref)
	if err != nil {
		return err
	}
	names := make([]token.ObjectName, len(m.Items))
	for i, it := range m.Items {
		names[i] = it.Dst
	}
	if err := w.Release(ctx, bt.Ref); err != nil {
		return err
	}
	got, err := w.Reserve(ctx, t.To, bt.Ref, names)
	if err != nil {
		return err
	}
	if len(got) == len(names) {
		t.State = api.Running
		return nil
	}
	bt.Dropped = w.now
	return w.PutBatch(ctx, bt)
}

// tendPause gives the names of a transfer back that has been paused for long.
func (b *Broker) tendPause(ctx context.Context, t db.Transfer, now time.Time) error {
	if now.Sub(t.Paused) < keepNames {
		return nil
	}
	held := int64(0)
	if err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		held, err = tx.CountReserved(ctx, t.ID)
		return err
	}); err != nil || held == 0 {
		return err
	}
	return b.write(ctx, now, func(w *work) error {
		t, err := w.Transfer(ctx, t.ID)
		if err != nil || t.State != api.Paused {
			return err
		}
		live, err := w.BatchesIn(ctx, t.ID, db.Live, 1<<20)
		if err != nil {
			return err
		}
		for _, bt := range live {
			if err := w.Release(ctx, bt.Ref); err != nil {
				return err
			}
		}
		if err := w.WakeClaimed(ctx, t.To, now); err != nil {
			return err
		}
		w.then(b.wake)
		_, err = w.record(ctx, &t, change{event: "released", note: fmt.Sprintf("Paused for %s: its names at the destination are free for others", keepNames)})
		return err
	})
}
