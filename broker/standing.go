package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	// maxChains bounds how many accounts' certificates are remembered as known.
	maxChains = 4096
	// maxStanding bounds the standing orders of one account that have runs to come. Each of them makes transfers, or events of runs that
	// are skipped, for as long as it lives, without anybody's asking.
	maxStanding = 256
)

// transferOf is the transfer of run k of an order.
func transferOf(v token.Verified[token.Order], k int64, now time.Time) db.Transfer {
	o := v.Claims
	return db.Transfer{
		ID: o.Run(k), Order: o.ID, Run: k, State: api.Queued, Do: o.Do, From: o.From, To: o.To, Accounts: o.Accounts, Created: now,
		Expires: time.Unix(o.Exp, 0), NextBat: 1, Ord: v.Hash, Authority: token.ByOrder,
	}
}

// dueAfter returns when the run of an order that comes after k is due; zero if none does.
func dueAfter(o token.Order, k int64) time.Time {
	if o.Run(k+1) == "" {
		return time.Time{}
	}
	return o.Due(k + 1)
}

// addStanding writes a standing order with the newest of its runs that is due.
func (w *work) addStanding(ctx context.Context, v token.Verified[token.Order], so api.SignedOrder, leaves []token.Hash) (token.TransferID, error) {
	o := v.Claims
	for _, a := range o.Accounts {
		if n, err := w.CountStanding(ctx, a); err != nil {
			return "", err
		} else if n >= maxStanding {
			return "", &problem.Error{
				Code: problem.TooLarge, Detail: fmt.Sprintf("The account %s has %d standing orders already", a, maxStanding),
				Remedy: "Withdraw one that is not needed with 'consign order withdraw', or let one order copy more.",
			}
		}
	}
	k := o.RunAt(w.now)
	t := transferOf(v, k, w.now)
	if k == 0 {
		if err := w.addOrder(ctx, t, so, facts{"certificates": leaves, "jws": so.JWS}); err != nil {
			return "", err
		}
	} else { // it came late
		if err := w.NoteOrder(ctx, o.ID, v.Hash, so, w.now); err != nil {
			return "", err
		}
		if _, err := w.leaf(ctx, db.OrderLeaf, facts{"certificates": leaves, "jws": so.JWS, "xfr": o.ID}); err != nil {
			return "", err
		}
		if err := w.addRun(ctx, t, so, leaves, ""); err != nil {
			return "", err
		}
	}
	s := db.Standing{ID: o.ID, Due: dueAfter(o, k), Next: k + 1, Newest: t.ID, NewestRun: k, Runs: 1, Skipped: k}
	return t.ID, w.AddStanding(ctx, s, o.Accounts)
}

// addRun begins a later run of a standing order. It fails with problem.Conflict if another order has its id.
func (w *work) addRun(ctx context.Context, t db.Transfer, so api.SignedOrder, leaves []token.Hash, note string) error {
	switch _, _, err := w.Order(ctx, t.ID); {
	case err == nil:
		return problem.New(problem.Conflict, "The id of run %d was used for another order", t.Run)
	case problem.Of(err) != problem.NotFound:
		return err
	}
	if err := w.AddOrder(ctx, t, so); err != nil {
		return err
	}
	_, err := w.record(ctx, &t, change{"ordered", fmt.Sprintf("Run %d of the standing order %s was begun%s", t.Run, t.Order, note), db.RunLeaf, facts{
		"certificates": leaves, "order": t.Order, "run": t.Run,
	}})
	return err
}

// tendStanding begins the runs that are due.
func (b *Broker) tendStanding(ctx context.Context, now time.Time) error {
	after := token.TransferID("")
	var errs []error
	for {
		var ss []db.Standing
		err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
			ss, err = tx.DueStanding(ctx, now, after, transfersAtOnce)
			return err
		})
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		for _, s := range ss {
			if err := b.tendRuns(ctx, s.ID, now); err != nil {
				errs = append(errs, fmt.Errorf("tending the standing order %s: %w", s.ID, err))
			}
			after = s.ID
		}
		if len(ss) < transfersAtOnce {
			return errors.Join(errs...)
		}
	}
}

// A turn is what becomes of a standing order of which a run is due.
type turn struct {
	s      db.Standing
	v      token.Verified[token.Order]
	so     api.SignedOrder
	newest db.Transfer  // of the run that was begun last
	run    int64        // the newest that is due
	held   string       // why it is not begun yet; empty: it is begun or skipped
	denied problem.Code // held for this: the namespace refuses it now
	trail  tree.Trail
	skip   bool // the newest has not ended
}

// turn looks at a standing order; false means that nothing is due.
func (b *Broker) turn(ctx context.Context, tx *db.Tx, id token.TransferID, now time.Time) (turn, bool, error) {
	var t turn
	s, ok, err := tx.Standing(ctx, id)
	if err != nil || !ok || s.Due.IsZero() || s.Due.After(now) {
		return t, false, err
	}
	t.s = s
	if t.v, t.so, err = order(ctx, tx, id); err != nil {
		return t, false, err
	}
	if t.newest, err = tx.Transfer(ctx, s.Newest); err != nil {
		return t, false, err
	}
	t.run = t.v.Claims.RunAt(now)
	if t.skip = t.newest.Finished.IsZero(); !t.skip {
		t.held = b.holds(t.v.Claims, t.so, now)
	}
	if t.skip || t.held != "" {
		return t, true, nil
	}
	o := t.v.Claims
	g, err := b.gate(ctx, tx, o.From, o.To, o.Accounts, now)
	if err != nil {
		return t, false, err
	}
	refused, err := g.order(ctx, o.Scope)
	if t.trail = g.trail; refused != nil {
		p := problem.As(refused)
		t.denied, t.held = p.Code, clip(p.Sentence())
	}
	return t, true, err
}

// holds says why no agent would take a run of a standing order now: a certificate beside it is not good any more.
func (b *Broker) holds(o token.Order, so api.SignedOrder, now time.Time) string {
	for i, account := range o.Accounts {
		chain, err := certs.ParseChain([]byte(so.Chains[i]))
		if err != nil {
			return problem.As(err).Sentence()
		}
		id, err := b.conf.Trust.Verify(chain, now)
		if err != nil {
			return clip(problem.As(err).Sentence())
		}
		if id != account {
			return fmt.Sprintf("The certificate beside the order is of %s and not of %s", id, account)
		}
	}
	return ""
}

// tendRuns begins the newest run of a standing order that is due, or skips it while the one before it lives. One that is held
// by a certificate is begun when a newer one has come, and one that the namespace refuses when it does not any more, if it is the newest still.
func (b *Broker) tendRuns(ctx context.Context, id token.TransferID, now time.Time) error {
	idle := false
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		t, due, err := b.turn(ctx, tx, id, now)
		idle = !due || t.held != "" && t.held == t.s.Note && now.Unix() < t.v.Claims.Exp
		return err
	})
	if err != nil || idle {
		return err
	}
	return b.write(ctx, now, func(w *work) error {
		t, due, err := b.turn(ctx, w.Tx, id, now)
		if err != nil || !due {
			return err
		}
		o, s := t.v.Claims, t.s
		switch {
		case now.Unix() >= o.Exp: // what was not begun never will be
			s.Skipped += t.run - s.Next + 1
			s.Due, s.Next, s.Note = time.Time{}, t.run+1, ""
			return w.SaveStanding(ctx, s)
		case t.held != "":
			s.Note = t.held
			note := "No run of the standing order is begun: " + t.held
			if t.denied != "" {
				err = errors.Join(w.keep(ctx, &t.trail), w.denied(ctx, &t.newest, t.denied, note))
			} else {
				err = w.tell(ctx, t.newest, "held", note)
			}
			if err != nil {
				return err
			}
			return w.SaveStanding(ctx, s)
		case t.skip:
			return w.skipRun(ctx, t, fmt.Sprintf("run %d has not ended", s.NewestRun))
		}
		if err := w.keep(ctx, &t.trail); err != nil {
			return err
		}
		next := transferOf(t.v, t.run, now)
		err = w.addRun(ctx, next, t.so, chainsOf(t.so), missed(s.Next, t.run))
		if problem.Of(err) == problem.Conflict {
			return w.skipRun(ctx, t, "its id is another order's")
		}
		if err != nil {
			return err
		}
		s.Skipped += t.run - s.Next
		s.Due, s.Next, s.Newest, s.NewestRun, s.Note = dueAfter(o, t.run), t.run+1, next.ID, t.run, ""
		s.Runs++
		b.log.Info("run begun", zap.String("order", string(id)), zap.Int64("run", t.run), zap.String("xfr", string(next.ID)))
		return w.SaveStanding(ctx, s)
	})
}

// missed says which runs a later one makes up for.
func missed(next, run int64) string {
	switch run {
	case next:
		return ""
	case next + 1:
		return fmt.Sprintf("; run %d was missed", next)
	}
	return fmt.Sprintf("; runs %d to %d were missed", next, run-1)
}

// skipRun lets the runs that are due pass.
func (w *work) skipRun(ctx context.Context, t turn, why string) error {
	s := t.s
	if err := w.tell(ctx, t.newest, "skipped", fmt.Sprintf("Run %d of the standing order is skipped%s: %s", t.run, missed(s.Next, t.run), why)); err != nil {
		return err
	}
	s.Skipped += t.run - s.Next + 1
	s.Due, s.Next, s.Note = dueAfter(t.v.Claims, t.run), t.run+1, ""
	return w.SaveStanding(ctx, s)
}

// tell adds an event to a transfer whose state it does not change.
func (w *work) tell(ctx context.Context, t db.Transfer, event api.EventKind, note string) error {
	_, err := w.record(ctx, &t, change{event: event, note: clip(note)})
	return err
}

// Renewed takes the certificate with which a subscriber calls beside its standing orders, in place of an older one of the same identity and key. So
// they go on for as long as their subscriber comes by with a certificate that is good. One of another key cannot
// stand for the signature, and changes nothing.
func (b *Broker) Renewed(ctx context.Context, peer certs.Peer, now time.Time) error {
	if peer.Identity.Role() != token.Subscriber || len(peer.Chain) == 0 || b.knows(peer) {
		return nil
	}
	var stale []token.TransferID
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		stale = nil
		for before := token.TransferID(""); ; {
			ss, err := tx.StandingOf(ctx, peer.Identity, before, transfersAtOnce)
			if err != nil || len(ss) == 0 {
				return err
			}
			for _, s := range ss {
				before = s.ID
				if _, newer, err := renewed(ctx, tx, s.ID, peer); err != nil {
					return err
				} else if newer {
					stale = append(stale, s.ID)
				}
			}
		}
	})
	if err != nil {
		return err
	}
	for _, id := range stale {
		if err := b.renew(ctx, id, peer, now); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.chains) >= maxChains {
		clear(b.chains)
	}
	b.chains[peer.Identity] = peer.Leaf
	return nil
}

// knows reports whether the certificate of a caller was looked at since the start, or since the account handed in a standing order.
func (b *Broker) knows(peer certs.Peer) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.chains[peer.Identity] == peer.Leaf
}

// unknown has the certificates of accounts looked at again.
func (b *Broker) unknown(accounts []token.Identity) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range accounts {
		delete(b.chains, a)
	}
}

// renewed returns a standing order, or a run of one, with the caller's chain, and whether that is a newer one for the same key.
func renewed(ctx context.Context, tx *db.Tx, id token.TransferID, peer certs.Peer) (api.SignedOrder, bool, error) {
	v, so, err := order(ctx, tx, id)
	if err != nil {
		return so, false, err
	}
	i := slices.Index(v.Claims.Accounts, peer.Identity)
	if i < 0 {
		return so, false, nil
	}
	old, err := certs.ParseChain([]byte(so.Chains[i]))
	if err != nil {
		return so, false, fmt.Errorf("reading a chain of %s: %w", id, err)
	}
	leaf := peer.Chain.Leaf()
	if !leaf.NotAfter.After(old.Leaf().NotAfter) {
		return so, false, nil
	}
	if _, err := token.VerifyOrder(so.JWS[i], leaf.PublicKey); err != nil {
		return so, false, nil //nolint:nilerr // the certificate is of another key: it is of no use here
	}
	so.Chains = slices.Clone(so.Chains)
	so.Chains[i] = string(peer.Chain.PEM())
	return so, true, nil
}

// renew puts the caller's chain beside a standing order and its unfinished runs. Runs that have ended keep that under which they ran.
func (b *Broker) renew(ctx context.Context, id token.TransferID, peer certs.Peer, now time.Time) error {
	err := b.write(ctx, now, func(w *work) error {
		so, newer, err := renewed(ctx, w.Tx, id, peer)
		if err != nil || !newer {
			return err
		}
		if err := w.SetSigned(ctx, id, so); err != nil {
			return err
		}
		ts, err := w.UnfinishedOf(ctx, id)
		if err != nil {
			return err
		}
		for _, t := range ts {
			if err := w.SetSigned(ctx, t.ID, so); err != nil {
				return err
			}
		}
		s, ok, err := w.Standing(ctx, id)
		if err != nil || !ok {
			return err
		}
		newest, err := w.Transfer(ctx, s.Newest)
		if err != nil {
			return err
		}
		note := fmt.Sprintf("A certificate of %s until %s is beside the standing order", peer.Identity, peer.Chain.Leaf().NotAfter.UTC().Format(time.RFC3339))
		_, err = w.record(ctx, &newest, change{"certificate", note, db.RenewLeaf, facts{"account": peer.Identity, "certificate": peer.Leaf, "order": id}})
		return err
	})
	if err != nil {
		return fmt.Errorf("renewing a certificate of %s: %w", id, err)
	}
	b.wake()
	return nil
}
