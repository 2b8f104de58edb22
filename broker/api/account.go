package api

import (
	"context"
	"net/http"
	"time"

	"github.com/consign-transfer/consign/token"
)

// NoticeHeader is in every answer to an account of which a change of key is not acknowledged yet, its own or a linked one's: how
// many there are. GET /v1/account has them.
const NoticeHeader = "Consign-Notice"

// MaxChanges bounds the changes of keys of one Account; those that follow are seen when these are acknowledged.
const MaxChanges = 32

// An Account is what the broker knows of the caller.
type Account struct {
	ID       token.Identity  `json:"id"`
	Seen     time.Time       `json:"seen,omitzero"`
	Key      token.Hash      `json:"key"` // of the call: SHA-256 of the SubjectPublicKeyInfo
	KeySince time.Time       `json:"key_since"`
	Settled  bool            `json:"settled"` // the key is the first one, or its change was acknowledged; without it links do nothing
	Linked   []LinkedAccount `json:"linked"`
	Changes  []KeyChange     `json:"changes"` // not acknowledged yet, the oldest first
}

// A LinkedAccount is another account of the same person.
type LinkedAccount struct {
	ID    token.Identity `json:"id"`
	Since time.Time      `json:"since"`
}

// A KeyChange says that an account was seen with a key that it had not before.
type KeyChange struct {
	N       int64          `json:"n"`
	Account token.Identity `json:"account"`
	From    token.Hash     `json:"from"` // SHA-256 of the SubjectPublicKeyInfo, as of To
	To      token.Hash     `json:"to"`
	At      time.Time      `json:"at"`
	Alone   time.Time      `json:"alone"` // from when the new key may acknowledge it by itself
}

// A LinkChallenge is what a link must hold.
type LinkChallenge struct {
	Challenge token.Hash `json:"challenge"`
	Exp       int64      `json:"exp"` // seconds since 1970 UTC
}

// A SignedLink is a link as its accounts signed it.
type SignedLink struct {
	JWS    []string `json:"jws"`    // one a member of Link.Accounts, in that order, all over the same payload
	Chains []string `json:"chains"` // PEM, leaf first, one a member of JWS
}

// An Unlink names the account whose link with the caller goes.
type Unlink struct {
	Account token.Identity `json:"account"`
}

// An Acknowledgement says of a change of a key whether it was the caller's.
type Acknowledgement struct {
	Change  int64   `json:"change"`
	Verdict Verdict `json:"verdict"`
}

// A Verdict is what somebody says of a change of a key.
type Verdict string

// The verdicts. Either ends the notice; after NotMine the key stays unsettled.
const (
	Mine    Verdict = "mine"
	NotMine Verdict = "not-mine"
)

// Account returns what the broker knows of the caller.
func (c *Client) Account(ctx context.Context) (Account, error) {
	var a Account
	err := c.do(ctx, call{method: http.MethodGet, path: "/v1/account"}, &a)
	return a, err
}

// LinkChallenge returns the challenge for one link of the caller's.
func (c *Client) LinkChallenge(ctx context.Context) (LinkChallenge, error) {
	var l LinkChallenge
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/account/links/challenge"}, &l)
	return l, err
}

// Link hands a link in. The same two accounts again are no failure.
func (c *Client) Link(ctx context.Context, l SignedLink) (Account, error) {
	var a Account
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/account/links", body: l}, &a)
	return a, err
}

// Unlink removes the link with an account; problem.NotLinked if there is none.
func (c *Client) Unlink(ctx context.Context, other token.Identity) (Account, error) {
	var a Account
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/account/unlink", body: Unlink{Account: other}}, &a)
	return a, err
}

// Acknowledge says of a change of key whether it was the caller's. problem.NotPermitted says who may and from when.
func (c *Client) Acknowledge(ctx context.Context, change int64, v Verdict) (Account, error) {
	var a Account
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/account/acknowledge", body: Acknowledgement{Change: change, Verdict: v}}, &a)
	return a, err
}
