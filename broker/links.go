package broker

import (
	"context"
	"crypto/rand"
	"slices"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Bounds of the challenges for links that wait for their use, of all and of one account.
const (
	maxChallenges   = 1024
	maxChallengesBy = 32
	maxLinks        = 64 // of one account
)

// A challenge waits for the link that holds it. It is in memory alone: a broker that starts again remembers none.
type challenge struct {
	by  token.Identity
	end time.Time
}

// LinkChallenge makes the challenge for one link of the caller's.
func (b *Broker) LinkChallenge(peer certs.Peer, now time.Time) (api.LinkChallenge, error) {
	random := make([]byte, 32)
	rand.Read(random)
	c := token.HashOf(random)
	end := now.Add(token.MaxLinkLife)
	b.mu.Lock()
	defer b.mu.Unlock()
	own := 0
	for k, old := range b.challenges {
		if !now.Before(old.end) {
			delete(b.challenges, k)
		} else if old.by == peer.Identity {
			own++
		}
	}
	if len(b.challenges) >= maxChallenges || own >= maxChallengesBy {
		return api.LinkChallenge{}, problem.New(problem.Overloaded, "Too many links are being made; wait some minutes")
	}
	b.challenges[c] = challenge{by: peer.Identity, end: end}
	return api.LinkChallenge{Challenge: c, Exp: end.Unix()}, nil
}

// spend takes a challenge out, and reports whether it was given for a link of these accounts and is in time.
func (b *Broker) spend(c token.Hash, accounts []token.Identity, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	got, ok := b.challenges[c]
	delete(b.challenges, c)
	return ok && now.Before(got.end) && slices.Contains(accounts, got.by)
}

// readLink returns the link in sl if each JWS is signed by the leaf of the chain beside it, all over one payload.
func readLink(sl api.SignedLink) (token.Link, []certs.Chain, error) {
	if len(sl.JWS) != 2 || len(sl.Chains) != 2 {
		return token.Link{}, nil, problem.New(problem.BadSignature, "A link needs the signatures and certificate chains of two accounts")
	}
	var first token.Verified[token.Link]
	chains := make([]certs.Chain, 2)
	for i, jws := range sl.JWS {
		chain, err := certs.ParseChain([]byte(sl.Chains[i]))
		if err != nil {
			return token.Link{}, nil, err
		}
		v, err := token.VerifyLink(jws, chain.Leaf().PublicKey)
		if err != nil {
			return token.Link{}, nil, err
		}
		if i == 0 {
			first = v
		} else if v.Hash != first.Hash {
			return token.Link{}, nil, problem.New(problem.BadSignature, "The signatures of the link are not over the same payload")
		}
		chains[i] = chain
	}
	return first.Claims, chains, nil
}

// verifyLink returns the link in sl if it is for this broker and its challenge, is good now, and was signed by both accounts, of which one
// hands it in.
func (b *Broker) verifyLink(peer certs.Peer, sl api.SignedLink, now time.Time) (token.Link, []certs.Chain, error) {
	l, chains, err := readLink(sl)
	if err != nil {
		return l, nil, err
	}
	good := b.spend(l.Challenge, l.Accounts, now) // whatever else is wrong with it: it is spent by the attempt
	for i, account := range l.Accounts {
		if !slices.Contains(b.conf.Providers, account.Provider()) {
			return l, nil, problem.New(problem.UnknownProvider, "The broker does not know the provider %q", account.Provider())
		}
		id, err := b.conf.Trust.Verify(chains[i], now)
		if err != nil {
			return l, nil, err
		}
		if id != account {
			return l, nil, problem.New(problem.CertMismatch, "The link names the account %s and was signed by %s", account, id)
		}
	}
	switch {
	case !slices.Contains(l.Accounts, peer.Identity):
		return l, nil, problem.New(problem.NotPermitted, "The link is of %v and was handed in by %s", l.Accounts, peer.Identity)
	case l.Aud != b.self:
		return l, nil, problem.New(problem.LinkRefused, "The link is for the broker %s", l.Aud)
	case !good:
		return l, nil, problem.New(problem.LinkRefused, "The challenge of the link is not one that this broker gave to its accounts, or was used already")
	}
	return l, chains, l.CheckTime(now)
}

// Link links two accounts of one person. It gives no right to anything that accounts sign for: such an order needs the signature of each
// account that it names. A session order, of which we give our word, names none but linked ones. The same two again are no failure.
func (b *Broker) Link(ctx context.Context, peer certs.Peer, sl api.SignedLink, now time.Time) (api.Account, error) {
	l, chains, err := b.verifyLink(peer, sl, now)
	if err != nil {
		return api.Account{}, b.deny(peer.Identity, err)
	}
	err = b.write(ctx, now, func(w *work) error {
		for i, account := range l.Accounts {
			if err := b.meetKey(ctx, w, account, chains[i]); err != nil {
				return err
			}
			links, err := w.Links(ctx, account)
			if err != nil {
				return err
			}
			if len(links) >= maxLinks {
				return problem.New(problem.TooLarge, "The account %s is linked with %d others already", account, maxLinks)
			}
		}
		return nil
	})
	if err != nil {
		return api.Account{}, b.deny(peer.Identity, err)
	}
	err = b.write(ctx, now, func(w *work) error { // a key that is new by this very link is remembered, whatever becomes of the link
		for i, account := range l.Accounts {
			of := certs.Peer{Identity: account, Chain: chains[i]}
			ok, err := settled(ctx, w.Tx, of)
			if err != nil {
				return err
			}
			if !ok {
				return &problem.Error{
					Code: problem.LinkRefused, Detail: "The key of " + string(account) + " has changed, and nobody has acknowledged that yet",
					Remedy: "Acknowledge it with 'consign account acknowledge', with the earlier key or from an account that was linked before.",
				}
			}
			if err := w.noteChain(ctx, of); err != nil {
				return err
			}
		}
		isNew, err := w.AddLink(ctx, l.Accounts[0], l.Accounts[1], sl, now)
		if err != nil || !isNew {
			return err
		}
		w.then(func() { b.unmeet(l.Accounts...) })
		return w.linkage(ctx, api.AccountLinked, l.Accounts[0], l.Accounts[1], facts{"accounts": l.Accounts, "jws": sl.JWS})
	})
	if err != nil {
		return api.Account{}, b.deny(peer.Identity, err)
	}
	return b.Account(ctx, peer)
}

// linkage writes the leaf and the events of a link that came or went.
func (w *work) linkage(ctx context.Context, kind api.EventKind, a, b token.Identity, body facts) error {
	if _, err := w.leaf(ctx, db.LinkLeaf, body); err != nil {
		return err
	}
	for _, pair := range [][2]token.Identity{{a, b}, {b, a}} {
		note := "The account is linked with " + string(pair[1])
		if kind == api.AccountUnlinked {
			note = "The account is not linked with " + string(pair[1]) + " any more"
		}
		if err := w.accountEvent(ctx, pair[0], api.Event{Kind: kind, Note: note}); err != nil {
			return err
		}
	}
	return nil
}

// Unlink removes the link of the caller with another account; problem.NotLinked if there is none. Notices of changes of keys that
// the other was told of before stay: whoever has a new key cannot take them away.
func (b *Broker) Unlink(ctx context.Context, peer certs.Peer, other token.Identity, now time.Time) (api.Account, error) {
	err := b.write(ctx, now, func(w *work) error {
		was, err := w.DropLink(ctx, peer.Identity, other)
		if err != nil {
			return err
		}
		if !was {
			return problem.New(problem.NotLinked, "%s is not linked with %q", peer.Identity, clip(string(other)))
		}
		return w.linkage(ctx, api.AccountUnlinked, peer.Identity, other, facts{"by": peer.Identity, "unlinked": other})
	})
	if err != nil {
		return api.Account{}, b.deny(peer.Identity, err)
	}
	return b.Account(ctx, peer)
}

// linked reports whether an account is one person's with the caller: it is the caller's own, or is linked with it, and the caller's key is settled.
func (b *Broker) linked(ctx context.Context, peer certs.Peer, other token.Identity) (bool, error) {
	if peer.Identity == other {
		return true, nil
	}
	var may []token.Identity
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		may, err = sees(ctx, tx, peer)
		return err
	})
	return slices.Contains(may, other), err
}

// sees returns the accounts whose transfers and events the caller may see: its own, and those that are linked with it if its key is settled.
func sees(ctx context.Context, tx *db.Tx, peer certs.Peer) ([]token.Identity, error) {
	out := []token.Identity{peer.Identity}
	ok, err := settled(ctx, tx, peer)
	if err != nil || !ok {
		return out, err
	}
	links, err := tx.Links(ctx, peer.Identity)
	for _, l := range links {
		out = append(out, l.ID)
	}
	return out, err
}
