package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Bounds of webhooks.
const (
	maxHooks    = 4096   // of all accounts
	maxOutbox   = 10_000 // events that wait for one webhook
	maxKindSize = 32     // bytes of the name of a kind of event
)

// wants reports whether a webhook is told of a kind of event: what it names, or all but what every single batch goes through.
func wants(h db.Hook, kind api.EventKind) bool {
	if len(h.Kinds) > 0 {
		return slices.Contains(h.Kinds, kind) || kind == api.HookStopped || kind == api.KeyChanged
	}
	switch kind {
	case "planning", "claimed", "leased", "renewed", "receipt", "settled", "made":
		return false
	}
	return true
}

// spread has an event wait for the webhooks of the accounts, in the transaction that writes it. A webhook for which too much waits is
// switched off: its receiver can catch up with the event stream.
func (w *work) spread(ctx context.Context, e api.Event, accounts ...token.Identity) error {
	hs, err := w.Hooks(ctx, accounts...)
	if err != nil {
		return err
	}
	for _, h := range hs {
		if !h.Stopped.IsZero() || !wants(h, e.Kind) {
			continue
		}
		if h.Pending >= maxOutbox {
			full := problem.New(problem.Overloaded, "%d events wait for it, and no more are kept", maxOutbox)
			if err := w.stopHook(ctx, h, full); err != nil {
				return err
			}
			continue
		}
		if err := w.Enqueue(ctx, h.ID, e.Seq); err != nil {
			return err
		}
		w.posted = true
	}
	return nil
}

// stopHook switches a webhook off and tells its account.
func (w *work) stopHook(ctx context.Context, h db.Hook, why error) error {
	p := problem.As(why)
	h.Stopped, h.Code, h.Detail = w.now, p.Code, p.Sentence()
	if err := w.SaveHook(ctx, h); err != nil {
		return err
	}
	if err := w.ClearOutbox(ctx, h.ID); err != nil {
		return err
	}
	return w.accountEvent(ctx, h.Account, api.Event{Kind: api.HookStopped, Code: p.Code, Note: fmt.Sprintf("Webhook %s was switched off: %s", h.ID, within(p.Sentence()))})
}

// AddWebhook has an address told of the caller's events from now on. problem.HookRefused: it may not be called, or there are
// as many as there may be.
func (b *Broker) AddWebhook(ctx context.Context, peer certs.Peer, o api.WebhookOrder, now time.Time) (api.Webhook, error) {
	if err := b.checkHook(o); err != nil {
		return api.Webhook{}, b.deny(peer.Identity, err)
	}
	h := db.Hook{ID: uuid.NewString(), Account: peer.Identity, URL: o.URL, Kinds: o.Events, Created: now}
	err := b.write(ctx, now, func(w *work) error {
		if err := mustBeSettled(ctx, w.Tx, peer, "adds no webhook"); err != nil {
			return err
		}
		own, err := w.Hooks(ctx, peer.Identity)
		if err != nil {
			return err
		}
		all, err := w.CountHooks(ctx)
		switch {
		case err != nil:
			return err
		case len(own) >= api.MaxHooks:
			return problem.New(problem.HookRefused, "The account has %d webhooks already; remove one first", api.MaxHooks)
		case all >= maxHooks:
			return problem.New(problem.Overloaded, "The broker has as many webhooks as it takes")
		}
		return w.AddHook(ctx, h)
	})
	if err != nil {
		return api.Webhook{}, b.deny(peer.Identity, err)
	}
	b.log.Info("webhook added", zap.String("hook", h.ID), zap.String("by", string(peer.Identity)))
	return hookView(h), nil
}

func (b *Broker) checkHook(o api.WebhookOrder) error {
	switch {
	case b.conf.Courier == nil:
		return problem.New(problem.HookRefused, "This broker calls no webhooks")
	case len(o.URL) > api.MaxHookURL:
		return problem.New(problem.HookRefused, "The address of the webhook is longer than %d bytes", api.MaxHookURL)
	case len(o.Events) > api.MaxHookKinds:
		return problem.New(problem.TooLarge, "The webhook names more than %d kinds of events", api.MaxHookKinds)
	}
	for _, k := range o.Events {
		if k == "" || len(k) > maxKindSize || strings.Trim(string(k), "abcdefghijklmnopqrstuvwxyz-") != "" {
			return problem.New(problem.Malformed, "A kind of event is of lower-case letters and '-', at most %d", maxKindSize)
		}
	}
	return b.conf.Courier.May(o.URL)
}

// Webhooks returns the caller's webhooks.
func (b *Broker) Webhooks(ctx context.Context, peer certs.Peer) (api.Page[api.Webhook], error) {
	page := api.Page[api.Webhook]{Items: []api.Webhook{}}
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		hs, err := tx.Hooks(ctx, peer.Identity)
		for _, h := range hs {
			page.Items = append(page.Items, hookView(h))
		}
		return err
	})
	return page, err
}

// ownHook returns a webhook of the caller's. Whether there is another of that id is not told.
func ownHook(ctx context.Context, tx *db.Tx, peer certs.Peer, id string) (db.Hook, error) {
	h, ok, err := tx.Hook(ctx, id)
	if err == nil && (!ok || h.Account != peer.Identity) {
		err = problem.New(problem.Hidden, "There is no webhook of that id that %s may see", peer.Identity)
	}
	return h, err
}

// RemoveWebhook forgets a webhook of the caller's and what waits for it.
func (b *Broker) RemoveWebhook(ctx context.Context, peer certs.Peer, id string, now time.Time) error {
	err := b.write(ctx, now, func(w *work) error {
		h, err := ownHook(ctx, w.Tx, peer, id)
		if err != nil {
			return err
		}
		if err := mustBeSettled(ctx, w.Tx, peer, "removes no webhook"); err != nil {
			return err
		}
		return w.DropHook(ctx, h.ID)
	})
	return b.deny(peer.Identity, err)
}

// hookView is a webhook as its owner sees it.
func hookView(h db.Hook) api.Webhook {
	v := api.Webhook{ID: h.ID, Account: h.Account, URL: h.URL, Events: append([]api.EventKind{}, h.Kinds...), Created: h.Created, Pending: h.Pending}
	for _, x := range []struct {
		at   time.Time
		into **time.Time
	}{{h.Delivered, &v.Delivered}, {h.Failing, &v.Failing}, {h.Stopped, &v.Stopped}} {
		if !x.at.IsZero() {
			*x.into = &x.at
		}
	}
	if h.Tries > 0 && h.Stopped.IsZero() && h.Pending > 0 {
		v.Next = &h.Due
	}
	if h.Code != "" {
		v.Problem = api.ProblemOf(&problem.Error{Code: h.Code, Detail: h.Detail})
	}
	return v
}
