package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
)

// keep writes what has to be recorded of the attempts in trail, in the transaction of w.
func (w *work) keep(ctx context.Context, trail *tree.Trail) error {
	if trail.Empty() {
		return nil
	}
	if err := w.tellLetIn(ctx, trail.Records()); err != nil {
		return err
	}
	return trail.Keep(ctx, w.Tx, w.now)
}

// tellLetIn tells the owner of a root container of whom records say that they were let in there by what they are: of each of them
// once in a while.
func (w *work) tellLetIn(ctx context.Context, rs []db.AuditRecord) error {
	type guest struct {
		root token.Location
		who  acl.Who
	}
	told := map[guest]bool{}
	for _, r := range rs {
		g := guest{token.Location{Provider: r.Place.Provider, Container: r.Place.Container}, r.Who}
		if !r.Outcome.Recorded() || told[g] {
			continue
		}
		told[g] = true
		lately, err := w.LetInSince(ctx, g.root, g.who, w.now.Add(-tellAgain))
		if err != nil {
			return err
		}
		roots, err := w.Nodes(ctx, g.root.Provider, g.root.Container, []token.ObjectName{""})
		if err != nil {
			return err
		}
		if lately || len(roots) == 0 || roots[0].Owner == "" {
			continue
		}
		as := "its owner"
		if r.Outcome == acl.ForAdministrator {
			as = "an administrator of " + string(g.root.Provider)
		}
		e := api.Event{Kind: api.LetIn, Note: fmt.Sprintf("%s was let into %s as %s, and no entry of the list allows it: %s", r.Who, g.root, as, r.Missing.Text(acl.Container))}
		if err := w.accountEvent(ctx, token.Identity(roots[0].Owner), e); err != nil {
			return err
		}
	}
	return nil
}

// asking reads as an attempt of somebody at a provider. They are answered with what it returns, once all that has to be recorded of it is.
func (b *Broker) asking(ctx context.Context, who token.Identity, at token.Provider, op string, now time.Time, read func(*db.Tx, tree.Attempt) error) error {
	var a tree.Attempt
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		if a, err = b.tree.Attempt(ctx, tx, who, at, op); err != nil {
			return err
		}
		return read(tx, a)
	})
	if a.Trail == nil {
		return err
	}
	return b.keepTrail(ctx, a.Trail, err, now)
}

// keepTrail writes what has to be recorded of attempts that have written nothing themselves: reads, and changes that were refused. Whoever made them
// is answered with what it returns: err, or that they could not be recorded.
func (b *Broker) keepTrail(ctx context.Context, trail *tree.Trail, err error, now time.Time) error {
	if trail.Empty() {
		return err
	}
	if bad := b.write(ctx, now, func(w *work) error { return w.keep(ctx, trail) }); bad != nil {
		return bad
	}
	return err
}
