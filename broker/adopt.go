package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/adopt"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Bounds of adoptions.
const (
	maxAdoptions    = 1000 // that have not ended
	maxAdoptionsBy  = 32   // of them, those of one account
	adoptionsAtOnce = 4    // that are carried out; each takes a lookup's place at its agent
)

// Adopt takes in an order to list a container, or to describe one object, so that what is found is entered in the namespace. Outcomes:
// the adoption, new or, for the same again, as it is; problem.Conflict if the order's id was used for something else; problem.NotPermitted or
// Hidden if the account does not administer the place; the problem of an order that is not good. It goes on by itself until
// the order ends.
func (b *Broker) Adopt(ctx context.Context, peer certs.Peer, ao api.AdoptionOrder, now time.Time) (api.Adoption, error) {
	if old, ok, err := b.readopted(ctx, peer, ao); err != nil || ok {
		return old, err
	}
	v, err := b.verifyOrder(ctx, peer, ao.Order, now)
	if err == nil {
		ao.Order, err = b.vouched(ao.Order)
	}
	var a db.Adoption
	if err == nil {
		a, err = b.adoptionOf(v.Claims, ao, now)
	}
	if err != nil {
		return api.Adoption{}, b.deny(peer.Identity, err)
	}
	var trail tree.Trail
	err = b.write(ctx, now, func(w *work) error {
		trail = tree.Trail{}
		all, own, err := w.CountUnfinishedAdoptions(ctx, a.Account)
		if err != nil {
			return err
		}
		if all >= maxAdoptions || own >= maxAdoptionsBy {
			return problem.New(problem.Overloaded, "Too many adoptions have not ended: %d, of which %d of %s", all, own, a.Account)
		}
		if err := b.checkExported(ctx, w.Tx, v.Claims, a.Authority); err != nil {
			return err
		}
		if err := b.judgeAdoption(ctx, w, &a, &trail); err != nil {
			return err
		}
		return b.addAdoption(ctx, w, a, v, ao.Order, peer)
	})
	if err != nil {
		return api.Adoption{}, b.deny(peer.Identity, b.keepTrail(ctx, &trail, err, now))
	}
	b.log.Info("adoption accepted", zap.String("order", string(a.ID)), zap.String("by", string(peer.Identity)))
	b.wake()
	return b.Adoption(ctx, peer, a.ID, 0, 0)
}

// readopted returns the adoption that was handed in before under the id of this order, also past its end.
func (b *Broker) readopted(ctx context.Context, peer certs.Peer, ao api.AdoptionOrder) (api.Adoption, bool, error) {
	if ao.Order.Session != "" {
		return api.Adoption{}, false, nil // verifyOrder says why not
	}
	v, _, err := readOrder(ao.Order)
	if err != nil {
		return api.Adoption{}, false, b.deny(peer.Identity, err)
	}
	var out api.Adoption
	found := false
	err = b.db.Read(ctx, func(tx *db.Tx) error {
		_, hash, err := tx.Order(ctx, v.Claims.ID)
		if problem.Of(err) == problem.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		old, err := seeAdoption(ctx, tx, peer, v.Claims.ID)
		again, errAgain := b.adoptionOf(v.Claims, ao, old.Created)
		if err != nil || errAgain != nil || hash != v.Hash || old.Owner != again.Owner || old.Metadata != again.Metadata {
			return problem.New(problem.Conflict, "The id of the order was used for another order")
		}
		found, out = true, b.adoptionView(old)
		return nil
	})
	if err != nil {
		return api.Adoption{}, false, b.deny(peer.Identity, err)
	}
	return out, found, nil
}

// adoptionOf spells what is asked for. It does not say whether the account may.
func (b *Broker) adoptionOf(o token.Order, ao api.AdoptionOrder, now time.Time) (db.Adoption, error) {
	if o.Do != token.List && o.Do != token.Stat {
		return db.Adoption{}, problem.New(problem.WrongStatement, "An order to %s adopts nothing; it takes one to list a container or to describe an object", o.Do)
	}
	account, ok := o.Account(o.From.Provider)
	if !ok {
		return db.Adoption{}, problem.New(problem.OrderUnsigned, "The order names no account at %s", o.From.Provider)
	}
	a := db.Adoption{
		ID: o.ID, State: api.Queued, Account: account, At: o.From, Scope: o.Scope, Owner: ao.Owner, Authority: authorityOf(ao.Order), Created: now,
		Expires: time.Unix(o.Exp, 0).UTC(),
	}
	if a.Owner == "" {
		a.Owner = account
	}
	if err := b.checkNewOwner(a.Owner); err != nil {
		return db.Adoption{}, err
	}
	if len(ao.Metadata) == 0 {
		return a, nil
	}
	text, err := json.Marshal(ao.Metadata)
	if err != nil {
		return db.Adoption{}, problem.Wrap(err, problem.Malformed, "The metadata cannot be read")
	}
	m, err := space.ParseMetadata(text)
	if err == nil {
		err = space.CheckUser(m, b.tree.Limits())
	}
	a.Metadata = string(m.Marshal())
	return a, err
}

// checkNewOwner reports why nothing can be entered as the property of an identity.
func (b *Broker) checkNewOwner(owner token.Identity) error {
	id, err := token.ParseIdentity(string(owner))
	switch {
	case err != nil:
		return problem.New(problem.Malformed, "The owner is not an identity of the form spiffe://provider/subscriber/name")
	case id.Role() != token.Subscriber:
		return problem.New(problem.Malformed, "The owner %s is no subscriber", owner)
	case !slices.Contains(b.conf.Providers, id.Provider()):
		return problem.New(problem.UnknownProvider, "The broker does not know the provider %q of the owner", id.Provider())
	}
	return nil
}

// judgeAdoption reports whether the account may adopt what is at the place, by the lists as they are now.
func (b *Broker) judgeAdoption(ctx context.Context, w *work, a *db.Adoption, trail *tree.Trail) error {
	gen, err := w.ACLGen(ctx, a.At.Provider)
	if err != nil || a.Judged == gen && a.Seq > 0 {
		return err
	}
	if err := adopt.Check(ctx, w.Tx, b.tree, *a, w.now, trail); err != nil {
		return err
	}
	a.Judged = gen
	return nil
}

// addAdoption writes an adoption with its order and the leaf that it begins with.
func (b *Broker) addAdoption(ctx context.Context, w *work, a db.Adoption, v token.Verified[token.Order], so api.SignedOrder, peer certs.Peer) error {
	switch _, _, err := w.Order(ctx, a.ID); {
	case err == nil:
		return problem.New(problem.Conflict, "The id of the order was used for another order")
	case problem.Of(err) != problem.NotFound:
		return err
	}
	if err := w.NoteOrder(ctx, a.ID, v.Hash, so, w.now); err != nil {
		return err
	}
	if err := w.SeeSubscriber(ctx, a.Account, w.now); err != nil {
		return err
	}
	if err := w.AddAdoption(ctx, a); err != nil {
		return err
	}
	body := orderFacts(so, peer)
	body["xfr"] = a.ID
	if _, err := w.leaf(ctx, db.OrderLeaf, body); err != nil {
		return err
	}
	_, err := w.leaf(ctx, db.AdoptLeaf, facts{
		"account": a.Account, "at": a.At.String(), "metadata": token.HashOf([]byte(a.Metadata)), "owner": a.Owner, "scope": a.Scope, "state": a.State, "xfr": a.ID,
	})
	return err
}

// endAdoption ends an adoption, for err if that is not nil. What it has entered stays.
func (b *Broker) endAdoption(ctx context.Context, w *work, a *db.Adoption, as api.State, err error) error {
	a.State, a.Finished = as, w.now
	if err != nil {
		why := problem.As(err)
		a.Code, a.Detail = why.Code, clip(why.Sentence())
	}
	if err := w.SaveAdoption(ctx, a); err != nil {
		return err
	}
	if _, err := w.leaf(ctx, db.AdoptLeaf, facts{
		"bytes": a.Bytes, "changed": a.Changed, "code": a.Code, "containers": a.Containers, "made": a.Made, "objects": a.Objects, "refused": a.Refused,
		"skipped": a.Skipped, "state": a.State, "xfr": a.ID,
	}); err != nil {
		return err
	}
	e := api.Event{Kind: api.AdoptionEnded, Note: fmt.Sprintf("The adoption of %s ended: %s; %d objects and %d containers have a row", a.At, as, a.Objects, a.Containers)}
	if err := adoptionProblem(*a); err != nil {
		why := problem.As(err)
		e.Code = why.Code
		e.Note += "; " + within(why.Sentence())
	}
	w.touched[a.ID] = true
	id := a.ID
	w.then(func() {
		b.await(id, "")
		b.mu.Lock()
		delete(b.adopting, id)
		b.mu.Unlock()
		b.log.Info("adoption ended", zap.String("order", string(id)), zap.String("state", string(as)))
	})
	return w.accountEvent(ctx, a.Account, e)
}

// adoptionProblem says why an adoption ended other than complete, or what it has met so far.
func adoptionProblem(a db.Adoption) error {
	if a.Code == "" {
		return nil
	}
	first := &problem.Error{Code: a.Code, Detail: a.Detail}
	if a.State == api.Partial {
		return &problem.Error{
			Code: problem.Partial, Detail: fmt.Sprintf("%d names were not entered; the first: %s", a.Refused, first.Sentence()),
			Remedy: "When the cause is gone, adopt again: what has a row by then stays as it is.",
		}
	}
	return first
}

// CancelAdoption ends an adoption of the caller's. What it has entered stays; one that has ended stays as it is.
func (b *Broker) CancelAdoption(ctx context.Context, peer certs.Peer, id token.TransferID, now time.Time) (api.Adoption, error) {
	err := b.write(ctx, now, func(w *work) error {
		a, err := seeAdoption(ctx, w.Tx, peer, id)
		switch {
		case err != nil:
			return err
		case a.Account != peer.Identity:
			return &problem.Error{
				Code: problem.NotPermitted, Detail: fmt.Sprintf("The adoption is of %s; %s may see it by a link, and a link is no authority", a.Account, peer.Identity),
				Remedy: "Use the certificate of that account.",
			}
		case !a.Finished.IsZero():
			return nil
		}
		return b.endAdoption(ctx, w, &a, api.Cancelled, problem.New(problem.Cancelled, "The adoption was cancelled by %s", peer.Identity))
	})
	if err != nil {
		return api.Adoption{}, b.deny(peer.Identity, err)
	}
	return b.Adoption(ctx, peer, id, 0, 0)
}

// seeAdoption returns an adoption if it is of the caller, or of an account that is linked with it. Whether there is one is not told to others.
func seeAdoption(ctx context.Context, tx *db.Tx, peer certs.Peer, id token.TransferID) (db.Adoption, error) {
	a, err := tx.Adoption(ctx, id)
	if err == nil && a.Account != peer.Identity {
		var may []token.Identity
		if may, err = sees(ctx, tx, peer); err == nil && !slices.Contains(may, a.Account) {
			err = problem.New(problem.NotFound, "")
		}
	}
	if problem.Of(err) == problem.NotFound {
		return db.Adoption{}, problem.New(problem.Hidden, "There is no adoption of that id that %s may see", peer.Identity)
	}
	return a, err
}

// Adoption returns an adoption of the caller's once its Seq is beyond after, or as it is after wait.
func (b *Broker) Adoption(ctx context.Context, peer certs.Peer, id token.TransferID, after int64, wait time.Duration) (api.Adoption, error) {
	var out api.Adoption
	err := b.until(ctx, id, wait, func() (bool, error) {
		err := b.db.Read(ctx, func(tx *db.Tx) error {
			a, err := seeAdoption(ctx, tx, peer, id)
			out = b.adoptionView(a)
			return err
		})
		return out.Seq > after, err
	})
	if err != nil {
		return api.Adoption{}, b.deny(peer.Identity, err)
	}
	return out, nil
}

// Adoptions returns a page of the adoptions that the caller may see, newest first.
func (b *Broker) Adoptions(ctx context.Context, peer certs.Peer, cursor string, limit int) (api.Page[api.Adoption], error) {
	page := api.Page[api.Adoption]{Items: []api.Adoption{}}
	limit, err := pageSize(limit)
	if err != nil {
		return page, err
	}
	err = b.db.Read(ctx, func(tx *db.Tx) error {
		may, err := sees(ctx, tx, peer)
		if err != nil {
			return err
		}
		as, err := tx.AdoptionsOf(ctx, may, token.TransferID(cursor), limit+1)
		if err != nil {
			return err
		}
		if len(as) > limit {
			as = as[:limit]
			page.Next = string(as[limit-1].ID)
		}
		for _, a := range as {
			page.Items = append(page.Items, b.adoptionView(a))
		}
		return nil
	})
	return page, err
}

// adoptionView is an adoption as people see it.
func (b *Broker) adoptionView(a db.Adoption) api.Adoption {
	v := api.Adoption{
		ID: a.ID, State: a.State, At: a.At, Scope: a.Scope, Account: a.Account, Owner: a.Owner, Authority: a.Authority, Created: a.Created, Expires: a.Expires,
		Objects: a.Objects, Containers: a.Containers, Bytes: a.Bytes, Made: a.Made, Changed: a.Changed, Skipped: a.Skipped, Refused: a.Refused, After: a.Resume, Seq: a.Seq,
	}
	if a.Metadata != "" {
		if err := json.Unmarshal([]byte(a.Metadata), &v.Metadata); err != nil {
			b.log.Error("reading the metadata of an adoption", zap.String("order", string(a.ID)), zap.Error(err))
		}
	}
	if err := adoptionProblem(a); err != nil {
		v.Problem = api.ProblemOf(err)
	}
	if !a.Finished.IsZero() {
		v.Finished = &a.Finished
		return v
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	v.Waiting = b.waiting[a.ID]
	return v
}

// adoptPrefix begins the id of a task of an adoption; the adoption's id and a random one follow.
const adoptPrefix = "a."

func adoptTaskID(id token.TransferID) string {
	return adoptPrefix + string(id) + "." + uuid.NewString()
}

// adoptionOfTask is the inverse of adoptTaskID.
func adoptionOfTask(task string) token.TransferID {
	id, _, _ := strings.Cut(strings.TrimPrefix(task, adoptPrefix), ".")
	return token.TransferID(id)
}
