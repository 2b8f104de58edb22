// Package adopt enters what a listing of a store tells of in the namespace: who may have it done, what becomes of each
// name, and how long it rests between two pieces.
//
// It guarantees that nothing is entered that the order does not cover or that stands in a container of somebody else's; that
// what had a row keeps its owner, its list and its metadata; that a piece is entered in the transaction that it is given, together with the place
// in the listing and the counts, so that what is entered once is counted once; and that one piece at a time is under way, with a rest as long
// as the work behind it.
//
// It lists nothing, asks no agent, and does not know when an adoption begins, waits or ends: package broker does. It writes no event
// and no leaf.
//
// It starts no goroutine. Time is an argument, but for what a Pace measures. Failures for callers are *problem.Error: of Check those of
// broker/tree's Decide, OnHold and UnderRetention.
package adopt

import (
	"context"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// op is what the trail calls an adoption.
const op = "adopt"

// Check reports whether the account of a may have it carried out, by the lists as they are now. It takes LIST_CONTAINER on the place, or
// READ_ATTRIBUTES on one object; and to administer it, which the owner of the place does with WRITE_METADATA, and WRITE_OWNER to name
// another owner, and an administrator of the provider by being one. Without that, anybody who may list a container could make everything in it
// its own. Metadata is refused where a hold or retention lets none change.
func Check(ctx context.Context, tx *db.Tx, t *tree.Tree, a db.Adoption, now time.Time, trail *tree.Trail) error {
	kind, want := acl.Container, acl.ListContainer
	if a.Scope == token.One {
		kind, want = acl.Object, acl.ReadAttributes
	}
	p, err := t.Principal(ctx, tx, a.Account, a.At.Provider)
	if err != nil {
		return err
	}
	by := tree.Attempt{By: p, Op: op, Trail: trail}
	s, err := t.Spot(ctx, tx, a.At, kind)
	if err != nil {
		return err
	}
	if err := t.Decide(by, s, want); err != nil {
		return err
	}
	if p.Status != acl.Administrating {
		if s.Owner() != p.Name {
			return &problem.Error{
				Code:   problem.NotPermitted,
				Detail: string(a.Account) + " does not own " + s.At.String() + ": what stands in a store is adopted by the owner of the place or by an administrator of its provider",
				Remedy: "Ask the owner or an administrator of " + string(a.At.Provider) + ", who can also name you as the owner of what is adopted.",
			}
		}
		if err := t.Decide(by, s, need(a)); err != nil {
			return err
		}
	}
	if a.Metadata != "" {
		return s.Settings.CheckFree(now)
	}
	return nil
}

// need is what the owner of a container must be granted there.
func need(a db.Adoption) acl.Mask {
	if a.Owner != a.Account {
		return acl.WriteMetadata | acl.WriteOwner
	}
	return acl.WriteMetadata
}
