package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// errResting is the answer to who asks for a capability of a transfer from which something is taken at the moment.
var errResting = problem.New(problem.CapRevoked, "The transfer rests until its agents have stopped what it may not do any more")

// rights is what the last look at all transfers rested on.
type rights struct {
	looked bool                     // there was one since the start
	gens   map[token.Provider]int64 // of lists and settings
}

// tendRights asks anew about whatever is not done yet, if anything has changed of lists, owners, groups, administrators, settings or places, or if
// a retention has begun. What may not go on ends as denied, and what runs of it is stopped. After a start everything is asked for once: the
// configuration may be another.
func (b *Broker) tendRights(ctx context.Context, now time.Time) error {
	gens := map[token.Provider]int64{}
	var due time.Time
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		for _, p := range b.conf.Providers {
			if gens[p], err = tx.ACLGen(ctx, p); err != nil {
				return err
			}
		}
		due, err = tx.NextJudging(ctx)
		return err
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	was := b.rights
	b.mu.Unlock()
	if was.looked && maps.Equal(was.gens, gens) && (due.IsZero() || now.Before(due)) {
		return nil
	}
	err = b.eachUnfinished(ctx, func(t db.Transfer) error {
		if t.Ending != "" {
			return nil
		}
		if err := b.reconsider(ctx, t, !was.looked, now); err != nil {
			return fmt.Errorf("asking anew for the rights of %s: %w", t.ID, err)
		}
		return nil
	})
	if err != nil {
		return err // all of it is looked at again
	}
	b.mu.Lock()
	b.rights = rights{looked: true, gens: gens}
	b.mu.Unlock()
	return nil
}

// A review is what asking anew about a transfer came to.
type review struct {
	gen    int64
	plan   bool       // the plan may not go on
	good   []db.Batch // may go on as they are, with what they were judged under
	denied []api.Ref  // some of their items may not
}

// reconsider asks anew about what is left of a transfer, or at least about what was judged under something else.
func (b *Broker) reconsider(ctx context.Context, t db.Transfer, all bool, now time.Time) error {
	var r review
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		r, err = b.review(ctx, tx, t, all, now)
		return err
	})
	if err != nil || !r.plan && len(r.good) == 0 && len(r.denied) == 0 {
		return err
	}
	return b.write(ctx, now, func(w *work) error {
		t, err := w.Transfer(ctx, t.ID)
		if err != nil || t.Ending != "" || !t.Finished.IsZero() {
			return err
		}
		for _, bt := range r.good {
			if err := b.restamp(ctx, w, bt); err != nil {
				return err
			}
		}
		if r.plan {
			if err := b.endPlan(ctx, w, &t); err != nil {
				return err
			}
		}
		return b.denyBatches(ctx, w, &t, r.denied)
	})
}

// review reads only, so that nobody waits for it.
func (b *Broker) review(ctx context.Context, tx *db.Tx, t db.Transfer, all bool, now time.Time) (review, error) {
	g, err := b.gateOf(ctx, tx, t, now)
	if err != nil {
		return review{}, err
	}
	r := review{gen: g.gen}
	if !t.Planned {
		v, _, err := order(ctx, tx, t.ID)
		if err != nil {
			return r, err
		}
		refused, err := g.order(ctx, v.Claims.Scope)
		if err != nil {
			return r, err
		}
		r.plan = refused != nil
	}
	bts, err := tx.UnendedOf(ctx, t.ID)
	if err != nil {
		return r, err
	}
	for _, bt := range bts {
		if !all && !g.stale(bt) || !bt.Dropped.IsZero() || !bt.DstDone.IsZero() {
			continue // nothing more will be created
		}
		m, err := manifest(ctx, tx, bt.Ref)
		if err != nil {
			return r, err
		}
		refused, err := g.items(ctx, m.Items)
		switch {
		case err != nil:
			return r, err
		case len(refused) > 0:
			r.denied = append(r.denied, bt.Ref)
			continue
		}
		if bt.State != db.Live {
			continue // it is judged in the write that mints it, which also looks for room
		}
		if bt.Rate, err = g.rate(ctx, sourcesOf(m.Items)); err != nil {
			return r, err
		}
		g.stamp(&bt)
		r.good = append(r.good, bt)
	}
	return r, nil
}

// restamp notes that a live batch was judged anew. Its source is told if it is to be read at another rate.
func (b *Broker) restamp(ctx context.Context, w *work, judged db.Batch) error {
	bt, err := w.Batch(ctx, judged.Ref)
	if err != nil || bt.State != db.Live || bt.Man != judged.Man {
		return err
	}
	if bt.Rate != judged.Rate {
		w.then(func() { b.post(bt.Src, outgoing{batch: bt.Ref}) })
	}
	bt.Judged, bt.JudgeAfter, bt.Rate = judged.Judged, judged.JudgeAfter, judged.Rate
	return w.PutBatch(ctx, bt)
}

// endPlan takes nothing more from the source of a transfer if the order as a whole is refused now.
func (b *Broker) endPlan(ctx context.Context, w *work, t *db.Transfer) error {
	v, _, err := order(ctx, w.Tx, t.ID)
	if err != nil || t.Planned {
		return err
	}
	p := &planner{b: b, w: w, t: t, o: v.Claims}
	if p.gate, err = b.gateOf(ctx, w.Tx, *t, w.now); err != nil {
		return err
	}
	refused, err := p.gate.order(ctx, v.Claims.Scope)
	if err != nil || refused == nil {
		return err
	}
	if err := p.load(ctx); err != nil {
		return err
	}
	if err := w.DropTasks(ctx, t.ID); err != nil {
		return err
	}
	return p.barred(ctx, refused)
}

// denyBatches judges batches anew of which some items were refused a moment ago. What waits for agents ends at once; what they do is taken from
// them: first their capabilities, then the batches.
func (b *Broker) denyBatches(ctx context.Context, w *work, t *db.Transfer, refs []api.Ref) error {
	var stopped []db.Batch
	for _, ref := range refs {
		bt, err := w.Batch(ctx, ref)
		if err != nil {
			return err
		}
		switch bt.State {
		case db.Ended:
		case db.Live:
			stop, err := b.mayNot(ctx, w, t, &bt)
			if err != nil {
				return err
			}
			if stop {
				stopped = append(stopped, bt)
			}
		case db.Filling, db.Ready, db.Repin:
			bt.Judged = 0 // by what was configured before, perhaps
			if _, err := b.judgeWaiting(ctx, w, t, &bt); err != nil {
				return err
			}
		}
	}
	if len(stopped) == 0 {
		return nil
	}
	reason, err := b.restsFor(ctx, w, t)
	if err != nil {
		return err
	}
	if t.State != api.Paused { // else they are revoked already
		if err := b.revoke(ctx, w, t.ID, reason); err != nil {
			return err
		}
	}
	for _, bt := range stopped {
		w.then(func() { b.postBoth(bt) })
	}
	return nil
}

// mayNot reports whether a live batch has items that may not be copied any more, and marks it as one that its agents are to stop. Its names and its room
// stay taken until they have said what became of it.
func (b *Broker) mayNot(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch) (bool, error) {
	if !bt.Dropped.IsZero() || !bt.DstDone.IsZero() {
		return false, nil
	}
	g, err := b.gateOf(ctx, w.Tx, *t, w.now)
	if err != nil {
		return false, err
	}
	m, err := manifest(ctx, w.Tx, bt.Ref)
	if err != nil {
		return false, err
	}
	refused, err := g.items(ctx, m.Items)
	if err != nil || len(refused) == 0 {
		return false, err
	}
	if err := w.keep(ctx, &g.trail); err != nil {
		return false, err
	}
	bt.Dropped, bt.Judged = w.now, 0
	if err := w.PutBatch(ctx, *bt); err != nil {
		return false, err
	}
	first := slices.Min(slices.Collect(maps.Keys(refused)))
	why := problem.As(refused[first])
	b.log.Info("a batch is stopped: rights were taken away", zap.String("xfr", string(t.ID)), zap.Int64("bat", bt.Bat), zap.String("code", string(why.Code)))
	note := fmt.Sprintf("Batch %d is stopped: %d of its items may not be copied any more; the first, %q: %s", bt.Bat, len(refused), m.Items[first].Src,
		within(clip(why.Sentence())))
	return true, w.denied(ctx, t, why.Code, note)
}

// restsFor returns for what reason the capabilities of a transfer are revoked of which live batches were stopped: for good if nothing else of it is left.
// Else agents are to keep what they have of the rest, as they do of a transfer that is paused, and go on with it soon.
func (b *Broker) restsFor(ctx context.Context, w *work, t *db.Transfer) (token.Reason, error) {
	bts, err := w.UnendedOf(ctx, t.ID)
	if err != nil || !t.Planned {
		return token.ByPause, err
	}
	if slices.ContainsFunc(bts, func(bt db.Batch) bool { return bt.Dropped.IsZero() }) {
		return token.ByPause, nil
	}
	return token.ByDenial, nil
}

// tendResting lets transfers go on of which something was stopped, once no agent can do that any more.
func (b *Broker) tendResting(ctx context.Context, now time.Time) error {
	var ids []token.TransferID
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		ids, err = tx.Resting(ctx)
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		err := b.write(ctx, now, func(w *work) error {
			t, err := w.Transfer(ctx, id)
			if err != nil || t.Ending != "" || t.State == api.Paused || !t.Finished.IsZero() {
				return err
			}
			quiet, err := b.liftQuiet(ctx, w, &t)
			if err != nil || !quiet {
				return err
			}
			live, err := w.BatchesIn(ctx, id, db.Live, 1<<20)
			w.then(func() {
				b.await(id, "")
				for _, bt := range live {
					b.postBoth(bt)
				}
				b.wake()
			})
			return err
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("letting %s go on: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// liftQuiet lifts the revocation of a transfer unless a batch of it that was stopped may still be in somebody's hands: both its agents have said
// that they have ended it, or its capability has. It reports whether the transfer is not revoked any more.
func (b *Broker) liftQuiet(ctx context.Context, w *work, t *db.Transfer) (bool, error) {
	loud, err := w.Loud(ctx, t.ID, w.now.Add(-token.ClockSkew))
	if err != nil {
		return false, err
	}
	if loud {
		id := t.ID
		w.then(func() { b.await(id, problem.As(errResting).Sentence()) })
		return false, nil
	}
	return true, b.lift(ctx, w, t.ID)
}

// judgeWaiting judges the items of a batch that is not live, if they were not under what is now. Those that may not be copied end here, as denied.
// It reports whether any is left in the batch.
func (b *Broker) judgeWaiting(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch) (bool, error) {
	g, err := b.gateOf(ctx, w.Tx, *t, w.now)
	if err != nil || !g.stale(*bt) {
		return err == nil, err
	}
	m, err := manifest(ctx, w.Tx, bt.Ref)
	if err != nil {
		return false, err
	}
	refused, err := g.items(ctx, m.Items)
	if err != nil {
		return false, err
	}
	if err := g.crowded(ctx, w, m.Items, refused); err != nil {
		return false, err
	}
	if err := w.keep(ctx, &g.trail); err != nil {
		return false, err
	}
	var left, gone []token.Item
	var verdicts []verdict
	other := false // than they are in the manifest
	for i, it := range m.Items {
		why := refused[i]
		if why == nil {
			h := g.hash(it.Dst)
			other = other || h != it.Hash
			it.Hash = h
			left = append(left, it)
			continue
		}
		verdicts = append(verdicts, deniedVerdict(int64(len(gone)), it, why))
		gone = append(gone, it)
	}
	if len(left) == 0 {
		return false, b.end(ctx, w, t, bt, m, verdicts)
	}
	g.stamp(bt)
	if bt.Rate, err = g.rate(ctx, sourcesOf(left)); err != nil {
		return false, err
	}
	if len(gone) == 0 && !other {
		return true, w.PutBatch(ctx, *bt)
	}
	if err := b.setItems(ctx, w, t, bt, left); err != nil || len(gone) == 0 {
		return err == nil, err
	}
	return true, b.endApart(ctx, w, t, gone, verdicts)
}

// endApart ends items in a batch of their own, which is never ready.
func (b *Broker) endApart(ctx context.Context, w *work, t *db.Transfer, items []token.Item, verdicts []verdict) error {
	bat := t.NextBat
	if err := b.addBatch(ctx, w, t, db.Batch{State: db.Filling}, items); err != nil {
		return err
	}
	bt, err := w.Batch(ctx, api.Ref{Xfr: t.ID, Bat: bat})
	if err != nil {
		return err
	}
	m, err := manifest(ctx, w.Tx, bt.Ref)
	if err != nil {
		return err
	}
	return b.end(ctx, w, t, &bt, m, verdicts)
}

// deniedVerdict is that the gate refused an item.
func deniedVerdict(i int64, it token.Item, why error) verdict {
	p := problem.As(why)
	return verdict{item: i, result: token.Denied, code: p.Code, detail: clip(p.Sentence()), size: it.Size}
}

// judgeLeft denies those items of a settled batch that would go on in another and may not.
func (b *Broker) judgeLeft(ctx context.Context, w *work, t *db.Transfer, bt db.Batch, m token.Manifest, verdicts []verdict) error {
	var items []token.Item
	var at []int
	for i, v := range verdicts {
		if v.next != over && v.next != elsewhere {
			items, at = append(items, m.Items[v.item]), append(at, i)
		}
	}
	if len(items) == 0 {
		return nil
	}
	g, err := b.gateOf(ctx, w.Tx, *t, w.now)
	if err != nil || !g.stale(bt) {
		return err
	}
	refused, err := g.items(ctx, items)
	if err != nil {
		return err
	}
	for i, why := range refused {
		verdicts[at[i]] = deniedVerdict(int64(verdicts[at[i]].item), items[i], why)
	}
	return w.keep(ctx, &g.trail)
}

// judgeLive refuses to renew a batch that may not go on any more; the next step stops it.
func (b *Broker) judgeLive(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch) error {
	if _, rests, err := w.Revoked(ctx, t.ID); err != nil {
		return err
	} else if rests {
		return errResting
	}
	g, err := b.gateOf(ctx, w.Tx, *t, w.now)
	if err != nil || !g.stale(*bt) {
		return err
	}
	m, err := manifest(ctx, w.Tx, bt.Ref)
	if err != nil {
		return err
	}
	refused, err := g.items(ctx, m.Items)
	switch {
	case err != nil:
		return err
	case len(refused) > 0:
		b.wake()
		return errResting
	}
	g.stamp(bt)
	if bt.Rate, err = g.rate(ctx, sourcesOf(m.Items)); err != nil {
		return err
	}
	return w.keep(ctx, &g.trail)
}

// judgeFolders drops those empty containers from what is to be made that may not be made any more.
func (b *Broker) judgeFolders(ctx context.Context, t db.Transfer, now time.Time) error {
	refused := func(tx *db.Tx) (*gate, map[token.ObjectName]error, error) {
		names, err := tx.Folders(ctx, t.ID, api.MaxNames)
		if err != nil {
			return nil, nil, err
		}
		g, err := b.gateOf(ctx, tx, t, now)
		if err != nil {
			return nil, nil, err
		}
		if err := g.land(ctx, names); err != nil {
			return nil, nil, err
		}
		out := map[token.ObjectName]error{}
		for _, n := range names {
			if why := g.landings[n].makes; why != nil {
				out[n] = why
			}
		}
		return g, out, nil
	}
	some := false
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		_, out, err := refused(tx)
		some = len(out) > 0
		return err
	})
	if err != nil || !some {
		return err
	}
	return b.write(ctx, now, func(w *work) error {
		t, err := w.Transfer(ctx, t.ID)
		if err != nil || t.Ending != "" {
			return err
		}
		g, out, err := refused(w.Tx)
		if err != nil {
			return err
		}
		p := &planner{b: b, w: w, t: &t, gate: g}
		for _, n := range slices.Sorted(maps.Keys(out)) {
			p.refuse(n, out[n])
			if err := w.DropFolder(ctx, t.ID, n); err != nil {
				return err
			}
		}
		return errors.Join(w.AddUnplanned(ctx, t.ID, p.odd), p.namesRefused(ctx), w.keep(ctx, &g.trail), w.SaveTransfer(ctx, t))
	})
}

// putAgent notes what an agent says of itself. If a container is then somewhere else than before, or its store can wipe otherwise, all that rests on that is
// asked for anew.
func (b *Broker) putAgent(ctx context.Context, w *work, a db.Agent, exports []api.Export) error {
	said := func() ([]string, error) {
		var out []string
		for _, e := range exports {
			at := token.Location{Provider: a.ID.Provider(), Container: e.Container}
			es, err := w.Exporters(ctx, at.Provider, at.Container)
			if err != nil {
				return nil, err
			}
			out = append(out, string(b.placeOf(at, es)))
			for _, x := range es {
				out = append(out, x.Export.Sanitizes...)
			}
		}
		return out, nil
	}
	was, err := said()
	if err != nil {
		return err
	}
	if err := w.PutAgent(ctx, a, exports); err != nil {
		return err
	}
	is, err := said()
	if err != nil || slices.Equal(was, is) {
		return err
	}
	w.then(b.wake)
	return w.BumpACLGen(ctx, a.ID.Provider())
}
