package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	// maxKeys is how many keys of one identity are remembered, those seen last.
	maxKeys = 64
	// maxMet bounds the identities of which it is remembered in memory that they were looked at.
	maxMet = 4096
	// seenEvery is how often it is written down that somebody was here.
	seenEvery = time.Minute
	// aloneAfter is how long the new key of an account must wait until it may acknowledge its own change. Whoever holds
	// the old key, or a linked account, is told for so long; a thief with a certificate cannot end that.
	aloneAfter = 30 * 24 * time.Hour
)

// met is what is known of an identity since the start, so that most calls need no look into the database.
type met struct {
	spki    token.Hash
	seen    time.Time
	notices int
}

// Meet notes that an identity came with a key, and returns of how many changes of keys it is to be told. It is called for each
// verified call, before anything else is done for it: no key acts unnoticed.
func (b *Broker) Meet(ctx context.Context, peer certs.Peer, now time.Time) (notices int, err error) {
	role := peer.Identity.Role()
	if len(peer.Chain) == 0 || role != token.Subscriber && role != token.Agent {
		return 0, nil
	}
	spki := peer.Chain.KeyHash()
	b.mu.Lock()
	m, ok := b.met[peer.Identity]
	b.mu.Unlock()
	if ok && m.spki == spki && now.Sub(m.seen) < seenEvery && !now.Before(m.seen) {
		return m.notices, nil
	}
	err = b.write(ctx, now, func(w *work) error {
		if role == token.Subscriber {
			if err := w.SeeSubscriber(ctx, peer.Identity, now); err != nil {
				return err
			}
		}
		if err := b.meetKey(ctx, w, peer.Identity, peer.Chain); err != nil {
			return err
		}
		if err := w.noteChain(ctx, peer); err != nil {
			return err
		}
		open, err := w.OpenChanges(ctx, peer.Identity, api.MaxChanges)
		notices = len(open)
		return err
	})
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.met) >= maxMet {
		clear(b.met)
	}
	b.met[peer.Identity] = met{spki: spki, seen: now, notices: notices}
	return notices, nil
}

// meetKey remembers the key of a chain that is good for an identity. One that is not the first and was not seen before is a change: an
// event, a leaf, and a notice to the account and those that are linked with it now. It is the one place where that is decided.
func (b *Broker) meetKey(ctx context.Context, w *work, id token.Identity, chain certs.Chain) error {
	spki := chain.KeyHash()
	known, err := w.IdentityKeys(ctx, id)
	if err != nil {
		return err
	}
	for _, k := range known {
		if k.SPKI == spki {
			return w.SeeKey(ctx, id, spki, w.now)
		}
	}
	if err := w.SeeKey(ctx, id, spki, w.now); err != nil || len(known) == 0 {
		return err
	}
	if err := w.forgetKeys(ctx, id, known, maxKeys-1); err != nil {
		return err
	}
	return b.changeKey(ctx, w, db.KeyChange{ID: id, From: known[0].SPKI, To: spki, At: w.now})
}

// noteChain remembers with which certificate a subscriber came, unless its key is not settled: it is what stands for the account where it takes
// part by a link, in somebody else's session.
func (w *work) noteChain(ctx context.Context, peer certs.Peer) error {
	if peer.Identity.Role() != token.Subscriber {
		return nil
	}
	ok, err := settled(ctx, w.Tx, peer)
	if err != nil || !ok {
		return err
	}
	return w.PutChain(ctx, peer.Identity, peer.Chain.PEM())
}

// stands reports whether an account that does not call itself is one still: the certificate with which it was seen last is good now.
func (b *Broker) stands(ctx context.Context, id token.Identity, now time.Time) error {
	var pem []byte
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		pem, err = tx.Chain(ctx, id)
		return err
	})
	if err != nil {
		return err
	}
	chain, err := certs.ParseChain(pem)
	if err == nil {
		var of token.Identity
		if of, err = b.conf.Trust.Verify(chain, now); err == nil && of != id {
			err = problem.New(problem.CertMismatch, "The certificate with which %s was seen last is of %s", id, of)
		}
	}
	if err != nil {
		p := problem.As(err)
		return &problem.Error{
			Code: p.Code, Detail: p.Sentence(), Cause: err, Remedy: fmt.Sprintf("Let %s call this broker once with a certificate that is good; any command of its profile does.", id),
		}
	}
	return nil
}

// forgetKeys keeps the given number of keys: those that are not settled go first, so that whoever has many new ones cannot have the
// owner's forgotten, and of equals those not seen for longest.
func (w *work) forgetKeys(ctx context.Context, id token.Identity, known []db.IdentityKey, keep int) error {
	over := len(known) - keep
	for _, settledToo := range []bool{false, true} {
		for _, k := range slices.Backward(known) {
			if over <= 0 {
				return nil
			}
			open, err := w.Unsettled(ctx, id, k.SPKI)
			if err != nil {
				return err
			}
			if open == settledToo {
				continue
			}
			if err := w.DropKey(ctx, id, k.SPKI); err != nil {
				return err
			}
			over--
		}
	}
	return nil
}

// changeKey records a change of key and tells those whom it concerns.
func (b *Broker) changeKey(ctx context.Context, w *work, c db.KeyChange) error {
	told := []token.Identity{c.ID}
	if c.ID.Role() == token.Subscriber {
		links, err := w.Links(ctx, c.ID)
		if err != nil {
			return err
		}
		for _, l := range links {
			told = append(told, l.ID)
		}
		if c.N, err = w.AddKeyChange(ctx, c, told); err != nil {
			return err
		}
	}
	if _, err := w.leaf(ctx, db.IdentityKeyLeaf, facts{"from": c.From, "id": c.ID, "n": c.N, "to": c.To}); err != nil {
		return err
	}
	note := fmt.Sprintf("The key of %s changed from %s to %s. If that was not you, tell the provider.", c.ID, c.From, c.To)
	for _, a := range told {
		if err := w.accountEvent(ctx, a, api.Event{Kind: api.KeyChanged, Note: note}); err != nil {
			return err
		}
	}
	w.then(func() {
		b.log.Warn("the key of an identity changed", zap.String("id", string(c.ID)), zap.String("from", string(c.From)), zap.String("to", string(c.To)))
		b.unmeet(told...)
	})
	return nil
}

// unmeet has identities looked at again at their next call.
func (b *Broker) unmeet(ids ...token.Identity) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		delete(b.met, id)
	}
}

// settled reports whether the caller's key may use the account's links: it is the first one, or its change was acknowledged.
func settled(ctx context.Context, tx *db.Tx, peer certs.Peer) (bool, error) {
	if len(peer.Chain) == 0 {
		return false, nil
	}
	open, err := tx.Unsettled(ctx, peer.Identity, peer.Chain.KeyHash())
	return !open, err
}

// mustBeSettled refuses a caller whose key is not settled, which would else take away, or keep for itself, what its owner is told by.
func mustBeSettled(ctx context.Context, tx *db.Tx, peer certs.Peer, what string) error {
	ok, err := settled(ctx, tx, peer)
	if err == nil && !ok {
		err = &problem.Error{
			Code: problem.NotPermitted, Detail: fmt.Sprintf("The key of %s has changed, which nobody has acknowledged yet, and until then it %s", peer.Identity, what),
			Remedy: "Acknowledge it with 'consign account acknowledge', with the earlier key or from an account that was linked before.",
		}
	}
	return err
}

// Account returns what is known of the caller.
func (b *Broker) Account(ctx context.Context, peer certs.Peer) (api.Account, error) {
	a := api.Account{ID: peer.Identity, Key: peer.Chain.KeyHash(), Linked: []api.LinkedAccount{}, Changes: []api.KeyChange{}}
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		var err error
		if a.Seen, err = tx.Seen(ctx, peer.Identity); err != nil {
			return err
		}
		keys, err := tx.IdentityKeys(ctx, peer.Identity)
		for _, k := range keys {
			if k.SPKI == a.Key {
				a.KeySince = k.First
			}
		}
		if err != nil {
			return err
		}
		if a.Settled, err = settled(ctx, tx, peer); err != nil {
			return err
		}
		if a.Settled {
			if a.Linked, err = tx.Links(ctx, peer.Identity); err != nil {
				return err
			}
		}
		open, err := tx.OpenChanges(ctx, peer.Identity, api.MaxChanges)
		for _, c := range open {
			a.Changes = append(a.Changes, api.KeyChange{N: c.N, Account: c.ID, From: c.From, To: c.To, At: c.At, Alone: c.At.Add(aloneAfter)})
		}
		return err
	})
	return a, err
}

// Acknowledge ends the notice of a change of key, and settles the key if it is said to be the caller's own. It takes a settled key of the account, a
// settled key of an account that was linked with it when the change came, or, aloneAfter later and if nobody else has said anything, the new key
// itself. To all others of them it is problem.NotPermitted, and to a stranger there is no such change.
func (b *Broker) Acknowledge(ctx context.Context, peer certs.Peer, a api.Acknowledgement, now time.Time) (api.Account, error) {
	if a.Verdict != api.Mine && a.Verdict != api.NotMine {
		return api.Account{}, problem.New(problem.Malformed, "A change of a key is %q or %q", api.Mine, api.NotMine)
	}
	err := b.write(ctx, now, func(w *work) error {
		c, told, err := w.KeyChange(ctx, peer.Identity, a.Change)
		switch {
		case err != nil:
			return err
		case !told:
			return problem.New(problem.Hidden, "There is no change of a key of that number that %s may see", peer.Identity)
		case c.Verdict == a.Verdict:
			return nil // again: the answer was lost
		}
		if err := mayAcknowledge(ctx, w.Tx, peer, c, now); err != nil {
			return err
		}
		if err := w.JudgeKey(ctx, c.ID, c.To, a.Verdict, peer.Identity, now); err != nil {
			return err
		}
		if _, err := w.leaf(ctx, db.IdentityKeyLeaf, facts{"acknowledged": c.N, "by": peer.Identity, "id": c.ID, "key": peer.Chain.KeyHash(), "to": c.To, "verdict": a.Verdict}); err != nil {
			return err
		}
		w.then(func() { b.unmeetAll() })
		return w.accountEvent(ctx, c.ID, api.Event{Kind: api.KeyAcknowledged, Note: fmt.Sprintf("Of the key %s of %s, %s says: %s", c.To, c.ID, peer.Identity, a.Verdict)})
	})
	if err != nil {
		return api.Account{}, b.deny(peer.Identity, err)
	}
	return b.Account(ctx, peer)
}

func mayAcknowledge(ctx context.Context, tx *db.Tx, peer certs.Peer, c db.KeyChange, now time.Time) error {
	alone := c.At.Add(aloneAfter)
	if peer.Identity == c.ID && peer.Chain.KeyHash() == c.To {
		if now.Before(alone) || c.Verdict != "" {
			return &problem.Error{
				Code: problem.NotPermitted, Detail: fmt.Sprintf("The new key of %s cannot acknowledge its own change before %s", c.ID, alone.UTC().Format(time.RFC3339)),
				Remedy: "Acknowledge it with the earlier key, or from an account that was linked with it before.",
			}
		}
		return nil
	}
	ok, err := settled(ctx, tx, peer)
	if err == nil && !ok {
		err = problem.New(problem.NotPermitted, "The key of %s is itself a change that nobody has acknowledged", peer.Identity)
	}
	return err
}

// unmeetAll has everybody looked at again.
func (b *Broker) unmeetAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.met)
}
