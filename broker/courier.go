package broker

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	expo "github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// How webhooks are called.
const (
	hookTime     = 10 * time.Second // that one call may take
	hooksAtOnce  = 64               // webhooks that are called at once
	hooksBy      = 4                // of them, those of one account
	hooksLooked  = 256              // that one look finds
	hookRun      = 64               // events that one webhook is told before others come in between
	hookGiveUp   = 72 * time.Hour   // that a webhook may take nothing before it is switched off
	hookRetryMin = 5 * time.Second
	hookRetryMax = 6 * time.Hour
	testEvery    = 2 * time.Second // between tests of one webhook
	maxTested    = maxHooks
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

// calls are the webhooks that are being called.
type calls struct {
	mu     sync.Mutex // guards all below
	hooks  map[string]bool
	by     map[token.Identity]int
	tested map[string]time.Time
}

// seat takes a place for a call of a webhook: one of each at once, so that its events come in order, a few of each account, so
// that nobody takes every place.
func (c *calls) seat(h db.Hook) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hooks[h.ID] || c.by[h.Account] >= hooksBy || len(c.hooks) >= hooksAtOnce {
		return false
	}
	c.hooks[h.ID] = true
	c.by[h.Account]++
	return true
}

func (c *calls) leave(h db.Hook) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.hooks, h.ID)
	if c.by[h.Account]--; c.by[h.Account] == 0 {
		delete(c.by, h.Account)
	}
}

// mayTest reports whether a webhook may be tested again.
func (c *calls) mayTest(id string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.tested[id]) < testEvery {
		return false
	}
	if len(c.tested) >= maxTested {
		clear(c.tested)
	}
	c.tested[id] = now
	return true
}

// callHooks calls webhooks for which something waits until ctx ends. No call keeps another webhook, or a transfer, waiting.
func (b *Broker) callHooks(ctx context.Context) {
	if b.conf.Courier == nil {
		return
	}
	var running sync.WaitGroup
	defer running.Wait()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		var due []db.Hook
		err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
			due, err = tx.DueHooks(ctx, time.Now(), hooksLooked)
			return err
		})
		if err != nil && ctx.Err() == nil {
			b.log.Error("looking for webhooks to call", zap.Error(err))
		}
		for _, h := range due {
			if !b.calls.seat(h) {
				continue
			}
			running.Go(func() {
				defer poke(b.posted)
				defer b.calls.leave(h)
				b.callHook(ctx, h)
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-b.posted:
		}
	}
}

// callHook tells a webhook what waits for it, one after another, until one is not taken.
func (b *Broker) callHook(ctx context.Context, h db.Hook) {
	for range hookRun {
		var e api.Event
		some := false
		err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
			e, some, err = tx.NextOut(ctx, h.ID)
			return err
		})
		if err == nil && !some {
			return
		}
		taken := false
		if err == nil {
			taken, err = b.deliverNext(ctx, h, e)
		}
		if err != nil && ctx.Err() == nil {
			b.log.Error("calling a webhook", zap.String("hook", h.ID), zap.Error(err))
		}
		if !taken || ctx.Err() != nil {
			return
		}
	}
}

// deliverNext sends one event and notes what became of it. That it was taken is durable after it was taken: an event that is sent
// again has the same id.
func (b *Broker) deliverNext(ctx context.Context, h db.Hook, e api.Event) (taken bool, err error) {
	now := time.Now()
	m, err := b.message(h.ID, e, now)
	if err != nil {
		return false, err
	}
	call, cancel := context.WithTimeout(ctx, hookTime)
	bad := b.conf.Courier.Deliver(call, h.URL, m)
	cancel()
	if ctx.Err() != nil {
		return false, nil //nolint:nilerr // we are stopping; what became of it is not known
	}
	return bad == nil, b.noteDelivery(ctx, h.ID, e.Seq, bad, time.Now())
}

// noteDelivery writes what became of an event that was sent to a webhook.
func (b *Broker) noteDelivery(ctx context.Context, hook string, seq int64, bad error, now time.Time) error {
	return b.write(ctx, now, func(w *work) error {
		h, ok, err := w.Hook(ctx, hook)
		if err != nil || !ok || !h.Stopped.IsZero() {
			return err // it was removed, or switched off, meanwhile
		}
		if bad == nil {
			h.Due, h.Tries, h.Failing, h.Delivered, h.Code, h.Detail = time.Time{}, 0, time.Time{}, now, "", ""
			if err := w.SaveHook(ctx, h); err != nil {
				return err
			}
			return w.Dequeue(ctx, hook, seq)
		}
		p := problem.As(bad)
		h.Tries++
		if h.Failing.IsZero() {
			h.Failing = now
		}
		h.Code, h.Detail = p.Code, clip(p.Sentence())
		switch {
		case errors.Is(bad, ErrGone):
			return w.stopHook(ctx, h, bad)
		case now.Sub(h.Failing) >= hookGiveUp:
			return w.stopHook(ctx, h, problem.New(p.Code, "It has taken nothing for %s; the last try: %s", hookGiveUp, within(clip(p.Sentence()))))
		}
		wait := hookPause(h.Tries)
		var later *Deferred
		if errors.As(bad, &later) {
			wait = max(wait, min(later.After, hookRetryMax))
		}
		h.Due = now.Add(wait)
		return w.SaveHook(ctx, h)
	})
}

// hookPause is how long a webhook rests after so many failures.
func hookPause(tries int64) time.Duration {
	p := expo.NewExponentialBackOff(expo.WithInitialInterval(hookRetryMin), expo.WithMultiplier(3), expo.WithRandomizationFactor(0.2),
		expo.WithMaxInterval(hookRetryMax), expo.WithMaxElapsedTime(0))
	wait := p.NextBackOff()
	for range min(tries-1, 16) {
		wait = p.NextBackOff()
	}
	return wait
}

// TestWebhook sends a webhook of the caller's a test event now. One that was switched off is on again if it is taken.
func (b *Broker) TestWebhook(ctx context.Context, peer certs.Peer, id string, now time.Time) (api.WebhookTest, error) {
	var h db.Hook
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		h, err = ownHook(ctx, tx, peer, id)
		return err
	})
	switch {
	case err != nil:
		return api.WebhookTest{}, b.deny(peer.Identity, err)
	case b.conf.Courier == nil:
		return api.WebhookTest{}, problem.New(problem.HookRefused, "This broker calls no webhooks")
	case !b.calls.mayTest(id, now) || !b.calls.seat(h):
		return api.WebhookTest{}, problem.New(problem.Overloaded, "The webhook is being called, or was tested a moment ago")
	}
	defer b.calls.leave(h)
	m, err := b.message(h.ID, api.Event{At: now, Account: h.Account, Kind: api.HookTest, Note: "This is a test"}, now)
	if err != nil {
		return api.WebhookTest{}, err
	}
	m.ID += "-" + now.UTC().Format("20060102T150405.000") // no test is another one sent again
	m.Signature = b.sign(m.ID, m.At, m.Body)
	call, cancel := context.WithTimeout(ctx, hookTime)
	defer cancel()
	if bad := b.conf.Courier.Deliver(call, h.URL, m); bad != nil {
		return api.WebhookTest{Problem: api.ProblemOf(bad)}, ctx.Err()
	}
	return api.WebhookTest{Delivered: true}, b.write(ctx, now, func(w *work) error {
		h, ok, err := w.Hook(ctx, id)
		if err != nil || !ok {
			return err
		}
		h.Due, h.Tries, h.Failing, h.Stopped, h.Delivered, h.Code, h.Detail = time.Time{}, 0, time.Time{}, time.Time{}, now, "", ""
		w.posted = true
		return w.SaveHook(ctx, h)
	})
}
