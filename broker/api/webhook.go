package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/consign-transfer/consign/token"
)

// Limits of webhooks.
const (
	MaxHookURL   = 2048 // bytes
	MaxHookKinds = 32   // kinds of events that one names
	MaxHooks     = 8    // of one account
)

// A WebhookOrder asks for an address to be told of the caller's events.
type WebhookOrder struct {
	URL    string      `json:"url"`
	Events []EventKind `json:"events,omitempty"` // none is all but those of every single batch
}

// A Webhook is an address that is told of an account's events, as docs/spec/webhooks.md says.
type Webhook struct {
	ID        string         `json:"id"`
	Account   token.Identity `json:"account"`
	URL       string         `json:"url"`
	Events    []EventKind    `json:"events"`
	Created   time.Time      `json:"created"`
	Pending   int64          `json:"pending"`             // events that wait for it
	Delivered *time.Time     `json:"delivered,omitempty"` // when it took one last
	Failing   *time.Time     `json:"failing,omitempty"`   // since when it takes none
	Next      *time.Time     `json:"next,omitempty"`      // when it is tried again
	Stopped   *time.Time     `json:"stopped,omitempty"`   // when it was switched off
	Problem   *Problem       `json:"problem,omitempty"`   // of the last failure
}

// A WebhookKey is what verifies the signatures of all webhooks of a broker.
type WebhookKey struct {
	Key string `json:"key"` // "whpk_" and the base64 of an Ed25519 public key
}

// A WebhookTest says what became of a test event.
type WebhookTest struct {
	Delivered bool     `json:"delivered"`
	Problem   *Problem `json:"problem,omitempty"` // why not
}

func webhookPath(id, rest string) string { return "/v1/webhooks/" + url.PathEscape(id) + rest }

// AddWebhook has an address told of the caller's events from now on. problem.HookRefused: it may not be called.
func (c *Client) AddWebhook(ctx context.Context, o WebhookOrder) (Webhook, error) {
	var w Webhook
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/webhooks", body: o}, &w)
	return w, err
}

// Webhooks returns the caller's webhooks.
func (c *Client) Webhooks(ctx context.Context) (Page[Webhook], error) {
	var p Page[Webhook]
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/webhooks"}, &p)
	return p, err
}

// RemoveWebhook forgets a webhook of the caller's and what waits for it.
func (c *Client) RemoveWebhook(ctx context.Context, id string) error {
	return c.do(ctx, call{method: http.MethodDelete, path: webhookPath(id, "")}, nil)
}

// TestWebhook sends a webhook of the caller's a test event now and says what became of it. One that was switched off is on again
// once it takes it.
func (c *Client) TestWebhook(ctx context.Context, id string) (WebhookTest, error) {
	var t WebhookTest
	err := c.do(ctx, call{method: http.MethodPost, path: webhookPath(id, "/test")}, &t)
	return t, err
}

// WebhookKey returns the key that verifies webhooks of this broker.
func (c *Client) WebhookKey(ctx context.Context) (WebhookKey, error) {
	var k WebhookKey
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/webhooks/key"}, &k)
	return k, err
}
