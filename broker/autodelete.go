package broker

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Bounds of the looks for objects whose retention has ended and that are to be erased by themselves.
const (
	dueEvery     = 5 * time.Second  // between rounds
	dueRecords   = 8                // of the log, at which one round looks
	dueRows      = 256              // of a container, at which one look looks
	dueAgain     = time.Hour        // until a place is looked at again where something is due and could not be erased, or may become due
	dueSoon      = 15 * time.Second // the same where what was in the way will pass
	dueWait      = 10 * time.Minute
	dueOrderLife = time.Hour
	pruneEvery   = time.Hour
)

// eraseDue looks for what is to be erased by itself, from time to time, until ctx ends.
func (b *Broker) eraseDue(ctx context.Context) {
	tick := time.NewTicker(dueEvery)
	defer tick.Stop()
	told, pruned := "", time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		err := b.lookForDue(ctx, now)
		if now.Sub(pruned) >= pruneEvery {
			pruned, err = now, errors.Join(err, b.pruneKeeps(ctx, now))
		}
		switch {
		case err == nil:
			told = ""
		case ctx.Err() == nil && err.Error() != told:
			told = err.Error()
			b.log.Error("what is to be erased by itself was not looked for; it is tried again", zap.Error(err))
		}
	}
}

// lookForDue is one round.
func (b *Broker) lookForDue(ctx context.Context, now time.Time) error {
	var ks []db.Keep
	if err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		ks, err = tx.KeepsToLook(ctx, now, dueRecords)
		return err
	}); err != nil {
		return err
	}
	for _, k := range ks {
		if err := b.lookAt(ctx, k, now); err != nil {
			return err
		}
	}
	return nil
}

// A due is an object that is to be erased by itself.
type due struct {
	row   db.Node
	owner acl.Who
}

// A look is what a look at one place has found.
type look struct {
	whole tree.Spot // the place
	due   []due
	done  token.ObjectName // how far it has come, if there is more
}

// lookAt has what is due at a place, or below it, erased as far as one look goes, and notes when to look again, and why something was not.
func (b *Broker) lookAt(ctx context.Context, k db.Keep, now time.Time) error {
	if k.Done == "" {
		k.Note = "" // of the look before
	}
	l, err := b.findDue(ctx, k, now)
	if err != nil {
		return err
	}
	again := dueAgain
	for _, d := range l.due {
		err := b.eraseOne(ctx, d, now)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p := problem.As(err)
			k.Note = clip(p.Sentence())
			if problem.MayRetry(err) {
				again = dueSoon
			}
			b.log.Warn("an object whose retention has ended is not erased", zap.String("at", d.row.At().String()), zap.Error(err))
		}
	}
	k.Done = l.done
	switch set := l.whole.Settings; {
	case l.done != "":
		k.Look = now
	case !set.Autodelete && len(l.due) == 0:
		k.Look = time.Time{}
	default:
		k.Look = now.Add(again)
		if end := set.Retention.End; end.After(k.Look) {
			k.Look = end
		}
	}
	return b.write(ctx, now, func(w *work) error { return w.LookedAtKeep(ctx, k) })
}

// findDue looks for what is due at the place of k, or, in a container, at the next rows below it.
func (b *Broker) findDue(ctx context.Context, k db.Keep, now time.Time) (look, error) {
	var l look
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		l = look{}
		if l.whole, err = b.tree.Spot(ctx, tx, k.At, k.Kind); err != nil {
			return err
		}
		rows := []db.Node{l.whole.Node}
		if k.Kind == acl.Container {
			if rows, err = tx.NodesBelow(ctx, k.At, k.Done, acl.Container, dueRows); err != nil {
				return err
			}
			if len(rows) == dueRows {
				l.done = rows[dueRows-1].Name
			}
		}
		for _, n := range rows {
			if n.Kind != acl.Object || n.ID == "" {
				continue
			}
			s, err := b.tree.Spot(ctx, tx, n.At(), acl.Object)
			if err != nil {
				return err
			}
			if s.Settings.Due(now) {
				l.due = append(l.due, due{s.Node, s.Owner()})
			}
		}
		return nil
	})
	return l, err
}

// eraseOne has one object erased that is due. It rests on our word alone, in the name of its owner: an agent whose operator does not take that refuses it.
func (b *Broker) eraseOne(ctx context.Context, d due, now time.Time) error {
	owner := token.Identity(d.owner)
	switch {
	case d.row.Version == "":
		return problem.New(problem.Outdated, "The broker does not know in which state %q is in its store, and erases no other", d.row.Name)
	case owner.Provider() != d.row.Provider || owner.Role() != token.Subscriber:
		return problem.New(problem.OrderUnsigned, "The owner of %q has no account at %s, in whose name it could be erased", d.row.Name, d.row.Provider)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	o := token.Order{
		Accounts: []token.Identity{owner}, Do: token.Erase, Scope: token.One, Filters: []token.Filter{}, ID: token.TransferID(id.String()),
		Iat: now.Unix(), Exp: now.Add(dueOrderLife).Unix(), To: d.row.At(), Version: d.row.Version,
	}
	so, err := b.vouched(api.SignedOrder{Claims: &o})
	if err != nil {
		return err
	}
	v, err := readClaims(api.SignedOrder{Claims: &o})
	if err != nil {
		return err
	}
	e := erasure{order: v, so: so, by: b.self}
	var trail tree.Trail // empty: nobody's right is asked
	if err := b.allowErasure(ctx, &e, &trail, now); err != nil {
		return err
	}
	if err := b.noteLookup(ctx, certs.Peer{Identity: b.self, Leaf: b.conf.Identity.LeafHash()}, v, so, trail, now); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dueWait)
	defer cancel()
	_, err = b.carryErasure(ctx, e)
	if problem.Of(err) == problem.Missing { // what is gone is gone, and nobody need look for it again
		return b.write(ctx, now, func(w *work) error { return b.dropRow(ctx, w, e) })
	}
	return err
}

// pruneKeeps drops records of holds that say nothing any more, of which agents that were away for longer are told by getting the log anew.
func (b *Broker) pruneKeeps(ctx context.Context, now time.Time) error {
	const keep = 30 * 24 * time.Hour
	return b.write(ctx, now, func(w *work) error {
		for _, p := range b.conf.Providers {
			if _, err := w.DropKeeps(ctx, p, now.Add(-keep).UnixMilli()); err != nil {
				return err
			}
		}
		return nil
	})
}
