package broker

import (
	"context"
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

// maxAccounts is how many accounts an order names at most, one a provider.
const maxAccounts = 2

// readOrder returns the order in so if each JWS is signed by the leaf of the chain beside
// it, all over one payload. It says nothing of who the chains are. An order that nobody signed has none.
func readOrder(so api.SignedOrder) (token.Verified[token.Order], []certs.Chain, error) {
	var zero token.Verified[token.Order]
	if so.Claims != nil {
		v, err := readClaims(so)
		return v, nil, err
	}
	if n := len(so.JWS); n == 0 || n > maxAccounts || len(so.Chains) != n {
		return zero, nil, problem.New(problem.OrderUnsigned, "The order needs one signature and one certificate chain an account, at most %d", maxAccounts)
	}
	var first token.Verified[token.Order]
	chains := make([]certs.Chain, len(so.JWS))
	for i, jws := range so.JWS {
		chain, err := certs.ParseChain([]byte(so.Chains[i]))
		if err != nil {
			return zero, nil, err
		}
		v, err := token.VerifyOrder(jws, chain.Leaf().PublicKey)
		if err != nil {
			return zero, nil, err
		}
		if i == 0 {
			first = v
		} else if v.Hash != first.Hash {
			return zero, nil, problem.New(problem.OrderUnsigned, "The signatures of the order are not over the same payload")
		}
		chains[i] = chain
	}
	if len(first.Claims.Accounts) != len(chains) {
		return zero, nil, problem.New(problem.OrderUnsigned, "The order names %d accounts and has %d signatures", len(first.Claims.Accounts), len(chains))
	}
	return first, chains, nil
}

// verifyOrder returns the order in so if it is for this broker's providers, is valid now, was signed by every
// account that it names, and comes from one of them; or if nobody signed it, and the session that it came in is good for all of them.
func (b *Broker) verifyOrder(ctx context.Context, peer certs.Peer, so api.SignedOrder, now time.Time) (token.Verified[token.Order], error) {
	var zero token.Verified[token.Order]
	if so.Session != "" {
		return zero, problem.New(problem.WrongStatement, "A broker's word for an order is written by that broker, and taken from nobody")
	}
	v, chains, err := readOrder(so)
	if err != nil {
		return zero, err
	}
	o := v.Claims
	for _, l := range []token.Location{o.From, o.To} {
		if l.Provider != "" && !slices.Contains(b.conf.Providers, l.Provider) {
			return zero, problem.New(problem.UnknownProvider, "The broker does not know the provider %q", l.Provider)
		}
	}
	if err := o.CheckTime(now); err != nil {
		return zero, err
	}
	if so.Claims != nil {
		if err := b.checkSession(ctx, peer, o, now); err != nil {
			return zero, err
		}
		return v, nil
	}
	for i, account := range o.Accounts {
		for _, at := range []time.Time{now, time.Unix(o.Iat, 0)} {
			id, err := b.conf.Trust.Verify(chains[i], at)
			if err != nil {
				return zero, err
			}
			if id != account || id.Role() != token.Subscriber {
				return zero, problem.New(problem.OrderUnsigned, "The order names the account %s and was signed by %s", account, id)
			}
		}
	}
	if !slices.Contains(o.Accounts, peer.Identity) {
		return zero, problem.New(problem.NotPermitted, "The order is of %v and was handed in by %s", o.Accounts, peer.Identity)
	}
	for i, account := range o.Accounts {
		if _, err := b.Meet(ctx, certs.Peer{Identity: account, Chain: chains[i]}, now); err != nil {
			return zero, err
		}
	}
	return v, nil
}

// Submit takes a copy order in. Outcomes: the transfer, new or, for the same order again, as it
// is; problem.Conflict if another order has that id; the problem of an order that is not good; and what the namespace
// refuses its accounts (see gate). A container that no agent exports is refused only if an agent of that provider has ever been here.
func (b *Broker) Submit(ctx context.Context, peer certs.Peer, so api.SignedOrder, now time.Time) (api.Transfer, error) {
	if old, ok, err := b.resubmitted(ctx, peer, so); err != nil || ok {
		return old, err
	}
	v, err := b.verifyOrder(ctx, peer, so, now)
	if err == nil {
		so, err = b.vouched(so)
	}
	if err != nil {
		return api.Transfer{}, b.deny(peer.Identity, err)
	}
	o := v.Claims
	if o.Do == token.Withdraw {
		return api.Transfer{}, problem.New(problem.WrongStatement, "An order to withdraw is not a transfer; hand it in at the order that it withdraws")
	}
	if o.Do != token.Copy {
		return api.Transfer{}, problem.New(problem.WrongStatement, "An order to %s is not a transfer; ask for a lookup", o.Do)
	}
	xfr := o.ID
	var refused error
	var trail tree.Trail
	err = b.write(ctx, now, func(w *work) error {
		refused, trail = nil, tree.Trail{}
		_, hash, err := w.Order(ctx, o.ID)
		switch {
		case err == nil && hash == v.Hash:
			s, standing, err := w.Standing(ctx, o.ID)
			if standing {
				xfr = s.Newest
			}
			return err // nil: another call was quicker
		case err == nil:
			return problem.New(problem.Conflict, "The id of the order was used for another order")
		case problem.Of(err) != problem.NotFound:
			return err
		}
		if err := b.checkExported(ctx, w.Tx, o, authorityOf(so)); err != nil {
			return err
		}
		g, err := b.gate(ctx, w.Tx, o.From, o.To, o.Accounts, now)
		if err != nil {
			return err
		}
		if refused, err = g.order(ctx, o.Scope); err != nil {
			return err
		}
		trail = g.trail // for what comes of it if nothing of this is written
		if err := w.keep(ctx, &g.trail); err != nil || refused != nil {
			return err
		}
		if o.Standing() {
			xfr, err = w.addStanding(ctx, v, so, chainsOf(so))
			return err
		}
		t := transferOf(v, 0, now)
		t.Authority = authorityOf(so)
		return w.addOrder(ctx, t, so, orderFacts(so, peer))
	})
	if err != nil {
		return api.Transfer{}, b.deny(peer.Identity, b.keepTrail(ctx, &trail, err, now))
	}
	if refused != nil {
		return api.Transfer{}, b.deny(peer.Identity, refused)
	}
	b.unknown(o.Accounts)
	b.log.Info("order accepted", zap.String("xfr", string(o.ID)), zap.String("by", string(peer.Identity)))
	b.wake()
	return b.Transfer(ctx, peer, xfr, 0, 0)
}

// chainsOf names the leaf certificates of a signed order, which readOrder has parsed.
func chainsOf(so api.SignedOrder) []token.Hash {
	var out []token.Hash
	for _, c := range so.Chains {
		if chain, err := certs.ParseChain([]byte(c)); err == nil {
			out = append(out, chain.LeafHash())
		}
	}
	return out
}

func (w *work) addOrder(ctx context.Context, t db.Transfer, so api.SignedOrder, body facts) error {
	if err := w.AddOrder(ctx, t, so); err != nil {
		return err
	}
	for _, a := range t.Accounts {
		if err := w.SeeSubscriber(ctx, a, w.now); err != nil {
			return err
		}
	}
	_, err := w.record(ctx, &t, change{"ordered", "The order was accepted", db.OrderLeaf, body})
	return err
}

// resubmitted returns the transfer of an order that was accepted before, also past its end.
func (b *Broker) resubmitted(ctx context.Context, peer certs.Peer, so api.SignedOrder) (api.Transfer, bool, error) {
	if so.Session != "" {
		return api.Transfer{}, false, nil // verifyOrder says why not
	}
	v, _, err := readOrder(so)
	if err != nil {
		return api.Transfer{}, false, b.deny(peer.Identity, err)
	}
	var hash token.Hash
	xfr := v.Claims.ID
	err = b.db.Read(ctx, func(tx *db.Tx) error {
		var err error
		if _, hash, err = tx.Order(ctx, v.Claims.ID); err != nil {
			return err
		}
		s, standing, err := tx.Standing(ctx, v.Claims.ID)
		if standing {
			xfr = s.Newest
		}
		return err
	})
	if err != nil || hash != v.Hash {
		if problem.Of(err) == problem.NotFound {
			err = nil
		}
		return api.Transfer{}, false, err
	}
	t, err := b.Transfer(ctx, peer, xfr, 0, 0)
	return t, true, err
}

// checkExported refuses containers that the agents of a provider, having been here, do not export: problem.NoContainer;
// or do not export for what the order wants there, or on our word alone, or only one agent has both ends of a copy: problem.PolicyRefused.
func (b *Broker) checkExported(ctx context.Context, tx *db.Tx, o token.Order, by token.Authority) error {
	var ends [2][]token.Identity // the agents that may read and those that may create
	for i, need := range []struct {
		at    token.Location
		fit   func(db.Exporter) bool
		doing string
	}{
		{o.From, func(e db.Exporter) bool { return e.Export.Read }, "to read from"},
		{o.To, func(e db.Exporter) bool { return e.Export.Create }, "to create in"},
	} {
		if o.Do == token.Erase {
			need.fit, need.doing = func(e db.Exporter) bool { return e.Export.Erase }, "to erase in"
		}
		l := need.at
		if l.Provider == "" {
			continue
		}
		known, err := tx.Agents(ctx, l.Provider)
		if err != nil {
			return err
		}
		es, err := tx.Exporters(ctx, l.Provider, l.Container)
		if err != nil {
			return err
		}
		if len(known) > 0 && len(es) == 0 {
			return problem.New(problem.NoContainer, "No agent of %s exports the container %q", l.Provider, l.Container)
		}
		if len(es) > 0 && !slices.ContainsFunc(es, need.fit) {
			return problem.New(problem.PolicyRefused, "No agent of %s exports the container %q %s", l.Provider, l.Container, need.doing)
		}
		if es = slices.DeleteFunc(es, func(e db.Exporter) bool { return !need.fit(e) }); len(es) > 0 && !slices.ContainsFunc(es, func(e db.Exporter) bool { return takes(e, by) }) {
			return problem.New(problem.PolicyRefused, "No agent of %s takes orders for the container %q that its account did not sign, on the word of %s (session)",
				l.Provider, l.Container, b.self)
		}
		for _, e := range es {
			if takes(e, by) {
				ends[i] = append(ends[i], e.ID)
			}
		}
	}
	if len(ends[0]) == 1 && slices.Equal(ends[0], ends[1]) {
		return problem.New(problem.PolicyRefused, "Only %s exports both ends of this copy, and a copy is between two agents", ends[0][0])
	}
	return nil
}

// order returns the order of a transfer, which was verified when it came in.
func order(ctx context.Context, tx *db.Tx, xfr token.TransferID) (token.Verified[token.Order], api.SignedOrder, error) {
	so, _, err := tx.Order(ctx, xfr)
	if err != nil {
		return token.Verified[token.Order]{}, so, err
	}
	v, _, err := readOrder(so)
	if err != nil {
		return v, so, fmt.Errorf("reading the order of %s, which was good when it came: %w", xfr, err)
	}
	return v, so, nil
}
