package broker

import (
	"context"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// seeOrder returns the order to copy whose id that is, or of which it is a run, if the caller is one of its accounts. Whether there is one is not told to others.
func seeOrder(ctx context.Context, tx *db.Tx, peer certs.Peer, id token.TransferID) (token.Verified[token.Order], api.SignedOrder, error) {
	hidden := problem.New(problem.Hidden, "There is no order of that id that %s may see", peer.Identity)
	base, _, err := tx.BaseOf(ctx, id)
	if problem.Of(err) == problem.NotFound {
		return token.Verified[token.Order]{}, api.SignedOrder{}, hidden
	}
	if err != nil {
		return token.Verified[token.Order]{}, api.SignedOrder{}, err
	}
	v, so, err := order(ctx, tx, base)
	if err == nil && (v.Claims.Do != token.Copy || !slices.Contains(v.Claims.Accounts, peer.Identity)) {
		return token.Verified[token.Order]{}, api.SignedOrder{}, hidden
	}
	return v, so, err
}

// OrderInfo returns the order of the caller's whose id that is, or of which it is a run.
func (b *Broker) OrderInfo(ctx context.Context, peer certs.Peer, id token.TransferID) (api.OrderInfo, error) {
	var out api.OrderInfo
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		v, so, err := seeOrder(ctx, tx, peer, id)
		if err == nil {
			out, err = orderInfo(ctx, tx, v.Claims, so)
		}
		return err
	})
	if err != nil {
		return api.OrderInfo{}, b.deny(peer.Identity, err)
	}
	return out, nil
}

// Orders returns a page of the caller's standing orders, newest first.
func (b *Broker) Orders(ctx context.Context, peer certs.Peer, cursor string, limit int) (api.Page[api.OrderInfo], error) {
	page := api.Page[api.OrderInfo]{Items: []api.OrderInfo{}}
	limit, err := pageSize(limit)
	if err != nil {
		return page, err
	}
	err = b.db.Read(ctx, func(tx *db.Tx) error {
		ss, err := tx.StandingOf(ctx, peer.Identity, token.TransferID(cursor), limit+1)
		if err != nil {
			return err
		}
		if len(ss) > limit {
			ss = ss[:limit]
			page.Next = string(ss[limit-1].ID)
		}
		for _, s := range ss {
			v, so, err := order(ctx, tx, s.ID)
			if err != nil {
				return err
			}
			info, err := orderInfo(ctx, tx, v.Claims, so)
			if err != nil {
				return err
			}
			page.Items = append(page.Items, info)
		}
		return nil
	})
	return page, err
}

// orderInfo is an order as people see it.
func orderInfo(ctx context.Context, tx *db.Tx, o token.Order, so api.SignedOrder) (api.OrderInfo, error) {
	_, received, err := tx.BaseOf(ctx, o.ID)
	if err != nil {
		return api.OrderInfo{}, err
	}
	info := api.OrderInfo{
		ID: o.ID, Do: o.Do, From: o.From, To: o.To, Accounts: o.Accounts, Received: received, Signed: time.Unix(o.Iat, 0).UTC(), Expires: time.Unix(o.Exp, 0).UTC(),
		Period: o.Period, State: api.OrderEnded, Runs: 1, Newest: o.ID, Untold: []token.Identity{},
	}
	if s, ok, err := tx.Standing(ctx, o.ID); err != nil {
		return api.OrderInfo{}, err
	} else if ok {
		info.Runs, info.Skipped, info.Newest, info.Waiting, info.GoodUntil = s.Runs, s.Skipped, s.Newest, s.Note, goodUntil(so)
		if !s.Due.IsZero() {
			info.State, info.Next = api.OrderActive, &s.Due
		}
	}
	newest, err := tx.Transfer(ctx, info.Newest)
	if err != nil {
		return api.OrderInfo{}, err
	}
	if newest.Finished.IsZero() {
		info.State = api.OrderActive
	}
	w, ok, err := tx.Withdrawal(ctx, o.ID)
	if err != nil || !ok {
		return info, err
	}
	info.State, info.Next, info.Withdrawn, info.WithdrawnBy = api.OrderWithdrawn, nil, &w.Came, w.Account
	ns, err := tx.NoticesOf(ctx, o.ID)
	for _, n := range ns {
		info.Untold = append(info.Untold, n.Agent)
	}
	return info, err
}

// goodUntil is the end of the certificate beside an order that ends first.
func goodUntil(so api.SignedOrder) *time.Time {
	var first *time.Time
	for _, c := range so.Chains {
		if chain, err := certs.ParseChain([]byte(c)); err == nil && (first == nil || chain.Leaf().NotAfter.Before(*first)) {
			first = &chain.Leaf().NotAfter
		}
	}
	return first
}

// Runs returns a page of the transfers of an order of the caller's, newest run first.
func (b *Broker) Runs(ctx context.Context, peer certs.Peer, id token.TransferID, cursor string) (api.Page[api.Transfer], error) {
	page := api.Page[api.Transfer]{Items: []api.Transfer{}}
	before := int64(math.MaxInt64)
	if cursor != "" {
		var err error
		if before, err = number(cursor); err != nil {
			return page, err
		}
	}
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		v, _, err := seeOrder(ctx, tx, peer, id)
		if err != nil {
			return err
		}
		ts, err := tx.RunsOf(ctx, v.Claims.ID, before, defaultPage+1)
		if err != nil {
			return err
		}
		if len(ts) > defaultPage {
			ts = ts[:defaultPage]
			page.Next = strconv.FormatInt(ts[defaultPage-1].Run, 10)
		}
		for _, t := range ts {
			v, err := b.view(ctx, tx, t)
			if err != nil {
				return err
			}
			page.Items = append(page.Items, v)
		}
		return nil
	})
	if err != nil {
		return api.Page[api.Transfer]{}, b.deny(peer.Identity, err)
	}
	return page, nil
}
