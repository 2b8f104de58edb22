package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// authorityOf returns what an order rests on, as it came or is kept.
func authorityOf(so api.SignedOrder) token.Authority {
	if so.Claims != nil {
		return token.BySession
	}
	return token.ByOrder
}

// readClaims returns an order that nobody signed, whose hash is that of the payload which an account would sign.
func readClaims(so api.SignedOrder) (token.Verified[token.Order], error) {
	if len(so.JWS) > 0 || len(so.Chains) > 0 {
		return token.Verified[token.Order]{}, problem.New(problem.Malformed, "The order is signed by its accounts, and claims beside that are signed by nobody")
	}
	payload, err := so.Claims.Payload()
	if err != nil {
		return token.Verified[token.Order]{}, err
	}
	return token.Verified[token.Order]{Claims: *so.Claims, Hash: token.HashOf(payload), Payload: payload}, nil
}

// checkSession reports whether the session of peer is good for an order of these accounts: it is one of them, and every other one is linked to it
// and is an account still. A link does not end with the account; that nobody can act in its name without its certificate does not end with a link.
func (b *Broker) checkSession(ctx context.Context, peer certs.Peer, o token.Order, now time.Time) error {
	if _, err := b.signer().SessionOrder(o); err != nil { // it is one that no broker can give its word for
		return err
	}
	if !slices.Contains(o.Accounts, peer.Identity) {
		return problem.New(problem.NotPermitted, "The order is of %v and was handed in by %s", o.Accounts, peer.Identity)
	}
	for _, a := range o.Accounts {
		if a == peer.Identity {
			continue
		}
		ok, err := b.linked(ctx, peer, a)
		if err != nil {
			return err
		}
		if !ok {
			return problem.New(problem.NotLinked, "The account %s is not linked to %s, in whose session the order came", a, peer.Identity)
		}
		if err := b.stands(ctx, a, now); err != nil {
			return err
		}
	}
	return nil
}

// vouched returns a verified order as it is kept and carried: with the broker's word for it if no account signed it.
func (b *Broker) vouched(so api.SignedOrder) (api.SignedOrder, error) {
	if so.Claims == nil {
		return so, nil
	}
	word, err := b.signer().SessionOrder(*so.Claims)
	if err != nil {
		return api.SignedOrder{}, err
	}
	return api.SignedOrder{JWS: []string{}, Chains: []string{}, Claims: so.Claims, Session: word}, nil
}

// carried returns a kept order as an agent is to have it: a word of ours is given anew, with the key that is in use now.
func (b *Broker) carried(so api.SignedOrder) (api.SignedOrder, error) {
	out, err := b.vouched(so)
	if err != nil {
		return api.SignedOrder{}, fmt.Errorf("giving our word for an order that was good when it came: %w", err)
	}
	out.Claims = nil
	return out, nil
}

// orderFacts are what the leaf of an order says of it. peer is who handed it in.
func orderFacts(so api.SignedOrder, peer certs.Peer) facts {
	if so.Claims == nil {
		return facts{"certificates": chainsOf(so), "jws": so.JWS}
	}
	return facts{"authority": token.BySession, "certificates": []token.Hash{peer.Leaf}, "session": so.Session}
}

// takes reports whether an exporter takes orders of that authority.
func takes(e db.Exporter, by token.Authority) bool { return by != token.BySession || e.Export.Session }

// taking returns the exporters of a location that take orders of that authority.
func taking(ctx context.Context, tx *db.Tx, l token.Location, by token.Authority) ([]db.Exporter, error) {
	es, err := tx.Exporters(ctx, l.Provider, l.Container)
	return slices.DeleteFunc(es, func(e db.Exporter) bool { return !takes(e, by) }), err
}
