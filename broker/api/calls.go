package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/consign-transfer/consign/token"
)

// LookupWait is how long the broker waits for an agent's answer to a lookup.
const LookupWait = 20 * time.Second

// A VersionInfo says what program the broker is.
type VersionInfo struct {
	Broker  token.Identity `json:"broker"`
	Version string         `json:"version"`
	API     int            `json:"api"` // 1
}

// query builds "path?a=b" of the pairs whose value is not empty.
func query(path string, pairs ...string) string {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			v.Set(pairs[i], pairs[i+1])
		}
	}
	if len(v) == 0 {
		return path
	}
	return path + "?" + v.Encode()
}

// number is empty for 0.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// clamp bounds a wait to what the broker accepts, and spells it; 0 is empty.
func clamp(wait time.Duration) (time.Duration, string) {
	wait = min(max(wait, 0), MaxWait).Truncate(time.Millisecond)
	if wait == 0 {
		return 0, ""
	}
	return wait, wait.String()
}

func transferPath(id token.TransferID, rest string) string {
	return "/v1/transfers/" + url.PathEscape(string(id)) + rest
}

// Submit hands a copy order in and returns its transfer. It is idempotent by the order's id: the
// same payload again returns the same transfer, another payload is problem.Conflict.
func (c *Client) Submit(ctx context.Context, o SignedOrder) (Transfer, error) {
	var t Transfer
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/transfers", body: o}, &t)
	return t, err
}

// Lookup has a list, stat or make order carried out and returns its result. It takes up to
// LookupWait; problem.AgentAbsent names the provider if no agent of it is connected.
func (c *Client) Lookup(ctx context.Context, l Lookup) (LookupResult, error) {
	var r LookupResult
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/lookups", body: l, wait: LookupWait}, &r)
	return r, err
}

// Transfer returns the transfer id once its Seq is beyond after, or as it is after wait,
// which is at most MaxWait. With after 0 it returns at once.
func (c *Client) Transfer(ctx context.Context, id token.TransferID, after int64, wait time.Duration) (Transfer, error) {
	var t Transfer
	wait, w := clamp(wait)
	err := c.do(ctx, call{method: http.MethodGet, path: query(transferPath(id, ""), "after", number(after), "wait", w), wait: wait}, &t)
	return t, err
}

// Transfers returns a page of the transfers that the caller may see, newest first, in the
// given state or, if that is empty, in any. A limit of 0 is the broker's own.
func (c *Client) Transfers(ctx context.Context, state State, cursor string, limit int) (Page[Transfer], error) {
	var p Page[Transfer]
	path := query("/v1/transfers", "state", string(state), "cursor", cursor, "limit", number(int64(limit)))
	err := c.do(ctx, call{method: http.MethodGet, path: path}, &p)
	return p, err
}

// Cancel ends a transfer: nothing new is begun, running batches are stopped. A transfer that
// has ended is returned as it is.
func (c *Client) Cancel(ctx context.Context, id token.TransferID) (Transfer, error) {
	var t Transfer
	err := c.do(ctx, call{method: http.MethodPost, path: transferPath(id, "/cancel")}, &t)
	return t, err
}

// Pause has a transfer rest: nothing is begun, and the capabilities of what runs are revoked. What was received stays for
// Resume. problem.Conflict: it is paused already, or has ended.
func (c *Client) Pause(ctx context.Context, id token.TransferID) (Transfer, error) {
	var t Transfer
	err := c.do(ctx, call{method: http.MethodPost, path: transferPath(id, "/pause")}, &t)
	return t, err
}

// Resume lets a paused transfer go on. problem.Conflict: it is not paused.
func (c *Client) Resume(ctx context.Context, id token.TransferID) (Transfer, error) {
	var t Transfer
	err := c.do(ctx, call{method: http.MethodPost, path: transferPath(id, "/resume")}, &t)
	return t, err
}

// Items returns a page of what became of the items of a transfer, those of one result or, if
// that is empty, all.
func (c *Client) Items(ctx context.Context, id token.TransferID, result token.Result, cursor string) (Page[ItemReport], error) {
	var p Page[ItemReport]
	err := c.do(ctx, call{method: http.MethodGet, path: query(transferPath(id, "/items"), "outcome", string(result), "cursor", cursor)}, &p)
	return p, err
}

// Events returns the events of a transfer after the one of that Seq, waiting up to wait,
// at most MaxWait, for the first.
func (c *Client) Events(ctx context.Context, id token.TransferID, after int64, wait time.Duration) (Page[Event], error) {
	var p Page[Event]
	wait, w := clamp(wait)
	err := c.do(ctx, call{method: http.MethodGet, path: query(transferPath(id, "/events"), "after", number(after), "wait", w), wait: wait}, &p)
	return p, err
}

// Order returns the order of a transfer as it was signed.
func (c *Client) Order(ctx context.Context, id token.TransferID) (SignedOrder, error) {
	var o SignedOrder
	err := c.do(ctx, call{method: http.MethodGet, path: transferPath(id, "/order")}, &o)
	return o, err
}

// Orders returns a page of the caller's standing orders, newest first. A limit of 0 is the broker's own.
func (c *Client) Orders(ctx context.Context, cursor string, limit int) (Page[OrderInfo], error) {
	var p Page[OrderInfo]
	err := c.do(ctx, call{method: http.MethodGet, path: query("/v1/orders", "cursor", cursor, "limit", number(int64(limit)))}, &p)
	return p, err
}

// OrderInfo returns the order of that id, or the one of which it is a run.
func (c *Client) OrderInfo(ctx context.Context, id token.TransferID) (OrderInfo, error) {
	var o OrderInfo
	err := c.do(ctx, call{method: http.MethodGet, path: orderPath(id, "")}, &o)
	return o, err
}

// Runs returns a page of the transfers of an order, newest run first.
func (c *Client) Runs(ctx context.Context, id token.TransferID, cursor string) (Page[Transfer], error) {
	var p Page[Transfer]
	err := c.do(ctx, call{method: http.MethodGet, path: query(orderPath(id, "/runs"), "cursor", cursor)}, &p)
	return p, err
}

// Withdraw hands in an order to withdraw the order id, and returns that one. It is idempotent.
func (c *Client) Withdraw(ctx context.Context, id token.TransferID, o SignedOrder) (OrderInfo, error) {
	var out OrderInfo
	err := c.do(ctx, call{method: http.MethodPost, path: orderPath(id, "/withdraw"), body: o}, &out)
	return out, err
}

func orderPath(id token.TransferID, rest string) string {
	return "/v1/orders/" + url.PathEscape(string(id)) + rest
}

// Batches returns a page of the batches of a transfer with all that was signed about them.
func (c *Client) Batches(ctx context.Context, id token.TransferID, cursor string) (Page[BatchRecord], error) {
	var p Page[BatchRecord]
	err := c.do(ctx, call{method: http.MethodGet, path: query(transferPath(id, "/batches"), "cursor", cursor)}, &p)
	return p, err
}

// Providers returns the providers that the broker knows.
func (c *Client) Providers(ctx context.Context) (Page[ProviderInfo], error) {
	var p Page[ProviderInfo]
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/providers"}, &p)
	return p, err
}

// Version returns what program the broker is.
func (c *Client) Version(ctx context.Context) (VersionInfo, error) {
	var v VersionInfo
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/version"}, &v)
	return v, err
}

// Keys returns the broker's JWKS, for token.ParseKeySet.
func (c *Client) Keys(ctx context.Context) ([]byte, error) {
	data, err := c.raw(ctx, call{method: http.MethodGet, path: "/.well-known/jwks.json", limit: token.MaxKeySetSize})
	return data, err
}
