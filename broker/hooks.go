package broker

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
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

// hookKeyName is the note under which the database keeps the key that signs webhooks. Who has it can tell a receiver what never was, and
// nothing else.
const hookKeyName = "webhook-key"

// A Message is one event on its way to a webhook, as docs/spec/webhooks.md has it.
type Message struct {
	ID        string // the same whenever it is sent again
	At        time.Time
	Body      []byte
	Signature string
}

// A Courier carries messages to webhooks.
type Courier interface {
	// May returns problem.HookRefused for an address that is never called. It connects to nobody.
	May(url string) error
	// Deliver returns nil once the receiver has taken the message, and otherwise a *problem.Error, with *Deferred
	// around it or ErrGone in its chain. It ends soon after ctx does.
	Deliver(ctx context.Context, url string, m Message) error
}

// ErrGone is what a receiver answers that wants to be called no more.
var ErrGone = errors.New("the receiver is gone")

// A Deferred is the failure of a delivery whose receiver has said when to try again.
type Deferred struct {
	After time.Duration
	Err   error
}

// Error is that of the failure.
func (d *Deferred) Error() string { return d.Err.Error() }

// Unwrap returns the failure.
func (d *Deferred) Unwrap() error { return d.Err }

// openHookKey reads the key that signs webhooks, and makes it with a new database.
func (b *Broker) openHookKey(ctx context.Context, now time.Time) error {
	return b.write(ctx, now, func(w *work) error {
		text, err := w.Meta(ctx, hookKeyName)
		if err != nil {
			return err
		}
		if text == "" {
			seed := make([]byte, ed25519.SeedSize)
			rand.Read(seed)
			text = base64.StdEncoding.EncodeToString(seed)
			if err := w.SetMeta(ctx, hookKeyName, text); err != nil {
				return err
			}
		}
		seed, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(seed) != ed25519.SeedSize {
			return problem.New(problem.BadConfig, "The broker's webhook key cannot be read; restore its database from a backup")
		}
		b.hookKey = ed25519.NewKeyFromSeed(seed)
		return nil
	})
}

// WebhookKey returns what verifies the signatures of webhooks.
func (b *Broker) WebhookKey() api.WebhookKey {
	pub, ok := b.hookKey.Public().(ed25519.PublicKey)
	if !ok {
		panic("broker: internal error: the webhook key is not of Ed25519")
	}
	return api.WebhookKey{Key: "whpk_" + base64.StdEncoding.EncodeToString(pub)}
}

// sign returns the signature of a message by the scheme v1a of Standard Webhooks.
func (b *Broker) sign(id string, at time.Time, body []byte) string {
	signed := id + "." + strconv.FormatInt(at.Unix(), 10) + "." + string(body)
	return "v1a," + base64.StdEncoding.EncodeToString(ed25519.Sign(b.hookKey, []byte(signed)))
}

// A cloudEvent is an event in the structured JSON form of CloudEvents 1.0.
type cloudEvent struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`
	Source      string    `json:"source"`
	Type        string    `json:"type"`
	Subject     string    `json:"subject"`
	Time        string    `json:"time"`
	ContentType string    `json:"datacontenttype"`
	Data        api.Event `json:"data"`
}

// message spells an event for a webhook.
func (b *Broker) message(hook string, e api.Event, now time.Time) (Message, error) {
	c := cloudEvent{
		SpecVersion: "1.0", ID: strconv.FormatInt(e.Seq, 10), Source: string(b.self), Type: "consign.transfer." + string(e.Kind), Subject: string(e.Xfr),
		Time: e.At.UTC().Format(time.RFC3339Nano), ContentType: "application/json", Data: advised([]api.Event{e})[0],
	}
	if e.Xfr == "" {
		c.Type, c.Subject = "consign.account."+string(e.Kind), string(e.Account)
	}
	body, err := json.Marshal(c)
	if err != nil {
		return Message{}, fmt.Errorf("encoding an event: %w", err)
	}
	id := "msg_" + hook + "_" + c.ID
	return Message{ID: id, At: now, Body: body, Signature: b.sign(id, now, body)}, nil
}

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
	return w.notice(ctx, h.Account, api.Event{Kind: api.HookStopped, Code: p.Code, Note: fmt.Sprintf("Webhook %s was switched off: %s", h.ID, within(p.Sentence()))})
}

// notice writes an event of an account.
func (w *work) notice(ctx context.Context, account token.Identity, e api.Event) error {
	e.At, e.Account = w.now, account
	var err error
	if e.Seq, err = w.AddEvent(ctx, e); err != nil {
		return err
	}
	w.audience[account] = true
	return w.spread(ctx, e, account)
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
