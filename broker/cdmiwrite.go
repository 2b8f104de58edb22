package broker

import (
	"context"
	"errors"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Wish is what somebody wants to be so of the metadata of a place.
type Wish struct {
	At       token.Location
	Kind     acl.Kind
	Metadata space.Metadata // nil is none
	// Named are the items that the wish is about: those that are in Metadata are set, the others removed. nil is all of them, of which the
	// list and the owner stay as they are where Metadata does not have them; nil beside no Metadata changes nothing.
	Named   []space.Item
	Make    bool   // a container that is not there is made
	IfMatch string // the ETag that the place must have, or empty
}

// Put changes the metadata of a place, or makes a container with them. There are four outcomes:
//
//  1. nil: all of it is done, and durable; made tells which.
//  2. a refusal, and nothing is changed or made: as tree.Tree.Apply and Create say, or problem.PlacementRefused for a container that its own metadata would keep from
//     being where it is. To make one takes ADD_SUBCONTAINER on what is to hold it.
//  3. what an agent answers, or what keeps it from answering, and nothing is kept: problem.Missing if the place is not there and not to be made.
//  4. any other error after the container was made in its store: the same wish again is a change.
func (b *Broker) Put(ctx context.Context, peer certs.Peer, w Wish, now time.Time) (made bool, err error) {
	there, makes, err := b.mayPut(ctx, peer, w, now)
	if err != nil {
		return false, b.deny(peer.Identity, err)
	}
	if !there {
		switch _, err := b.inStore(ctx, peer, w.At, w.Kind, now); {
		case err == nil:
		case problem.Of(err) != problem.Missing || !w.Make:
			return false, err
		case makes != nil:
			return false, b.deny(peer.Identity, makes)
		default:
			return b.create(ctx, peer, w, now)
		}
	}
	return false, b.deny(peer.Identity, b.update(ctx, peer, w, now))
}

// mayPut looks at the place of a wish: whether it is known to be there, and if not, why the caller may not make it. It fails if the caller may neither
// make it nor know of it.
func (b *Broker) mayPut(ctx context.Context, peer certs.Peer, w Wish, now time.Time) (there bool, makes, err error) {
	if err := b.checkPlace(Place{At: w.At}); err != nil {
		return false, nil, err
	}
	err = b.asking(ctx, peer.Identity, w.At.Provider, opPutCDMI, now, func(tx *db.Tx, a tree.Attempt) error {
		s, err := b.tree.Spot(ctx, tx, w.At, w.Kind)
		if err != nil {
			return err
		}
		up, held := s.Up()
		if there = s.Known || !held; there {
			err := b.checkRoot(ctx, tx, s)
			if problem.Of(err) == problem.NoContainer && w.Make {
				err = problem.New(problem.NotOffered, "A root container is made by the operator who exports it, and no agent of %s exports %q", w.At.Provider, w.At.Container)
			}
			return err
		}
		if w.Make {
			makes = b.tree.Decide(a, up, acl.AddSubcontainer)
		}
		if (!w.Make || makes != nil) && !b.tree.Sees(a.By, s) {
			return b.tree.Decide(a, s, acl.ReadAttributes) // refused, since it would see it otherwise
		}
		return nil
	})
	return there, makes, err
}

// errRehearsed ends a transaction that was only to show what would be refused.
var errRehearsed = errors.New("rehearsed")

// create makes a container in its store, and then its row; made is false if it was there already. All that the namespace refuses it refuses before.
func (b *Broker) create(ctx context.Context, peer certs.Peer, w Wish, now time.Time) (made bool, err error) {
	row := func(tx *work) (tree.Spot, error) {
		m := w.Metadata
		if w.Named != nil {
			m = space.Metadata{}
			for _, item := range w.Named {
				if v, ok := w.Metadata[item]; ok {
					m[item] = v
				}
			}
		}
		s, err := b.tree.Create(ctx, tx.Tx, peer.Identity, w.At, m, now)
		if err != nil {
			return tree.Spot{}, err
		}
		if err := b.checkSettled(ctx, tx.Tx, s); err != nil {
			return tree.Spot{}, err
		}
		return s, b.checkWished(ctx, tx.Tx, tree.Spot{}, s)
	}
	err = b.write(ctx, now, func(tx *work) error {
		if _, err := row(tx); err != nil {
			return err
		}
		return errRehearsed
	})
	if !errors.Is(err, errRehearsed) {
		return false, b.deny(peer.Identity, err)
	}
	if w.IfMatch != "" {
		return false, problem.New(problem.Outdated, "%s is not there", w.At)
	}
	e, err := b.askOne(ctx, peer, token.Make, w.At, now)
	switch {
	case err != nil:
		return false, err
	case !e.Made: // somebody was quicker
		return false, b.deny(peer.Identity, b.update(ctx, peer, w, now))
	}
	return true, b.write(ctx, now, func(tx *work) error {
		s, err := row(tx)
		if err != nil {
			return err
		}
		return b.accessLeaf(ctx, tx, acl.Principal{Name: acl.Who(peer.Identity)}, tree.Spot{At: s.At, Kind: s.Kind}, s)
	}) // Durable from here.
}

// checkSettled refuses a placement that a place would not obey by being where it is, which no order can mend.
func (b *Broker) checkSettled(ctx context.Context, tx *db.Tx, s tree.Spot) error {
	es, err := tx.Exporters(ctx, s.At.Provider, s.At.Container)
	if err != nil {
		return err
	}
	return s.Settings.CheckPlace(b.placeOf(s.At, es))
}

// update changes the metadata of a place.
func (b *Broker) update(ctx context.Context, peer certs.Peer, w Wish, now time.Time) error {
	a := tree.Attempt{Trail: new(tree.Trail)}
	err := b.write(ctx, now, func(tx *work) (err error) {
		if a, err = b.tree.Attempt(ctx, tx.Tx, peer.Identity, w.At.Provider, opPutCDMI); err != nil {
			return err
		}
		was, err := b.tree.Spot(ctx, tx.Tx, w.At, w.Kind)
		if err != nil {
			return err
		}
		c, changes := changeFor(was, w)
		if !changes {
			return b.unchanged(a, was, w)
		}
		is, err := b.applyChange(ctx, tx, a, was, c)
		if err != nil {
			return err
		}
		if wanted := was.Settings.Metadata()[space.GeographicPlacement]; is.Settings.Metadata()[space.GeographicPlacement] != wanted {
			if err := b.checkSettled(ctx, tx.Tx, is); err != nil {
				return err
			}
		}
		return tx.keep(ctx, a.Trail)
	})
	if err != nil {
		return b.keepTrail(ctx, a.Trail, err, now)
	}
	return nil
}

// unchanged judges a wish that changes nothing: it succeeds for whoever may know that the place is there, in the state that the wish is for.
func (b *Broker) unchanged(a tree.Attempt, s tree.Spot, w Wish) error {
	if !b.tree.Sees(a.By, s) {
		return b.tree.Decide(a, s, acl.ReadAttributes) // refused, since it would see it otherwise
	}
	if w.IfMatch != "" && w.IfMatch != bareTag(b.tree.ETag(s)) {
		return problem.New(problem.Outdated, "%s is not in the state any more that the request was made for", w.At)
	}
	return nil
}

// changeFor is what a wish changes at a place, and whether that is anything.
func changeFor(was tree.Spot, w Wish) (tree.Change, bool) {
	c := tree.Change{At: was.At, Kind: was.Kind}
	if w.IfMatch != "" {
		c.IfMatch = quotedTag(w.IfMatch)
	}
	if w.Named == nil {
		c.Replace = &w.Metadata
		return c, w.Metadata != nil
	}
	c.Set = space.Metadata{}
	for _, item := range w.Named {
		if v, ok := w.Metadata[item]; ok {
			c.Set[item] = v
		} else {
			c.Unset = append(c.Unset, item)
		}
	}
	return c, true
}

// EraseContainer removes a container that holds nothing, and what is kept about it. There are three outcomes:
//
//  1. nil: it is gone, durably.
//  2. a refusal, and nothing is changed: as tree.Tree.DecideDeletion says; problem.OnHold or UnderRetention; problem.Conflict if something is
//     kept about what is in it, or the store has anything in it; problem.NotOffered for a root container.
//  3. what an agent answers, or what keeps it from answering: problem.Missing if nothing is there, PolicyRefused where no agent erases on the broker's word. After
//     problem.Timeout it may or may not be gone, and the same call tells.
func (b *Broker) EraseContainer(ctx context.Context, peer certs.Peer, at token.Location, now time.Time) error {
	known, err := b.mayErase(ctx, peer, at, now)
	if err != nil {
		return b.deny(peer.Identity, err)
	}
	_, err = b.askOne(ctx, peer, token.Erase, at, now)
	if problem.Of(err) != problem.Missing || !known {
		return err
	}
	return b.write(ctx, now, func(w *work) error { // it is gone from its store by another hand
		_, err := b.tree.Remove(ctx, w.Tx, at, acl.Container)
		return err
	})
}

// mayErase judges whether a container may be deleted, and reports whether anything is kept about it.
func (b *Broker) mayErase(ctx context.Context, peer certs.Peer, at token.Location, now time.Time) (known bool, err error) {
	if err := b.checkPlace(Place{At: at}); err != nil {
		return false, err
	}
	if at.Name == "" {
		return false, problem.New(problem.NotOffered, "A root container is made and removed by the operator who exports it")
	}
	err = b.asking(ctx, peer.Identity, at.Provider, opEraseCDMI, now, func(tx *db.Tx, a tree.Attempt) error {
		s, err := b.tree.Spot(ctx, tx, at, acl.Container)
		if err != nil {
			return err
		}
		known = s.Known
		if err := b.tree.DecideDeletion(a, s); err != nil {
			return err
		}
		if err := s.Settings.CheckFree(now); err != nil {
			return err
		}
		below, err := tx.NodesBelow(ctx, at, "", acl.Object, 1)
		if err == nil && len(below) > 0 {
			err = &problem.Error{Code: problem.Conflict, Detail: "Something is kept about what is in " + at.String(), Remedy: "Delete what is in it first."}
		}
		return err
	})
	return known, err
}
