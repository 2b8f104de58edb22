package tree

import (
	"context"
	"errors"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Create writes the row of a container that owner makes, with the list and the metadata that it has from the start, in a write transaction. Nobody
// needs a right for these: who may make a container, which is for the caller to decide, says what it is. There are three outcomes:
//
//  1. nil: the row is written, with those of the containers above that have none, and the place is as it is then. A row that Make has just
//     written for owner is this one.
//  2. a *problem.Error, and nothing is written: problem.Conflict if there is any other row; what no place could have, or is beyond a limit
//     (Malformed, UnknownField, TooLarge); problem.NotPermitted for an owner who is another one; problem.OnHold or UnderRetention if nothing may be
//     added to what is to hold it, or if its own retention would be less than one from above that is still to come.
//  3. any other error: the transaction must not be committed.
func (t *Tree) Create(ctx context.Context, tx *db.Tx, owner token.Identity, at token.Location, m space.Metadata, now time.Time) (Spot, error) {
	w, err := Change{Replace: &m}.read()
	if err != nil {
		return Spot{}, err
	}
	if w.owner != nil && *w.owner != acl.Who(owner) {
		return Spot{}, problem.New(problem.NotPermitted, "What %s makes is its own from the start, and %s's only when it is given away.", owner, *w.owner)
	}
	s, err := t.Spot(ctx, tx, at, acl.Container)
	if err != nil {
		return Spot{}, err
	}
	up, held := s.Up()
	if s.Known && !untouched(s.Node, owner) || !held {
		return Spot{}, problem.New(problem.Conflict, "%s is there already.", at)
	}
	if err := up.Settings.CheckFree(now); err != nil {
		return Spot{}, err
	}
	wanted, will, err := t.draft(s, w)
	if err != nil {
		return Spot{}, err
	}
	if err := space.CheckChange(s.Settings, will, now); err != nil { // what is to come from above, nobody leaves by making a container
		return Spot{}, err
	}
	if err := errors.Join(t.checkSize(wanted), checkDepth(s, wanted)); err != nil {
		return Spot{}, err
	}
	n, err := t.Make(ctx, tx, owner, at, acl.Container, now)
	if err != nil {
		return Spot{}, err
	}
	n.ACL, n.User, n.Data = wanted.ACL, wanted.User, wanted.Data
	n.Rev++
	if err := errors.Join(tx.SaveNode(ctx, n), keep(ctx, tx, n, now)); err != nil {
		return Spot{}, err
	}
	if n.Data != "" {
		if err := keep(ctx, tx, n, now); err != nil {
			return Spot{}, err
		}
	}
	if err := tx.BumpACLGen(ctx, at.Provider); err != nil {
		return Spot{}, err
	}
	return t.Spot(ctx, tx, at, acl.Container)
}

// untouched reports whether a row is as Make has written it for owner.
func untouched(n db.Node, owner token.Identity) bool {
	return n.Owner == acl.Who(owner) && n.ACL == "" && n.User == "" && n.Data == "" && n.Changes == 0 && n.Objects == 0
}
