package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/consign-transfer/consign/token"
)

// An AdoptionOrder asks for what stands in a store to be entered in the namespace.
type AdoptionOrder struct {
	// Order lists a container, or describes one object. It is all that agents see; an adoption ends when it does.
	Order SignedOrder `json:"order"`
	// Owner is who owns what is entered: a subscriber of a provider that the broker serves; empty is the caller.
	Owner token.Identity `json:"owner,omitempty"`
	// Metadata is the user metadata of what is entered.
	Metadata Items `json:"user_metadata,omitempty"`
}

// An Adoption is the progress of an AdoptionOrder. What had a row before keeps its owner, its list and its metadata.
type Adoption struct {
	ID        token.TransferID `json:"id"` // of the order
	State     State            `json:"state"`
	At        token.Location   `json:"at"`
	Scope     token.Scope      `json:"scope"`
	Account   token.Identity   `json:"account"` // who asked for it
	Owner     token.Identity   `json:"owner"`
	Metadata  Items            `json:"user_metadata,omitempty"`
	Authority token.Authority  `json:"authority"`
	Created   time.Time        `json:"created"`
	Finished  *time.Time       `json:"finished,omitempty"`
	Expires   time.Time        `json:"expires"`

	Objects    int64 `json:"objects"`    // that have a row now
	Containers int64 `json:"containers"` // likewise
	Bytes      int64 `json:"bytes"`      // of the objects
	Made       int64 `json:"made"`       // rows that were not there
	Changed    int64 `json:"changed"`    // rows that were there and told of another size, version or time
	Skipped    int64 `json:"skipped"`    // what is neither object nor container
	Refused    int64 `json:"refused"`    // names that were not entered; Problem is that of the first

	After   token.ObjectName `json:"after,omitempty"`   // the name that was entered last, behind which it goes on
	Waiting string           `json:"waiting,omitempty"` // why it does not go on at the moment, one sentence
	Problem *Problem         `json:"problem,omitempty"`
	Seq     int64            `json:"seq"` // grows with every change
}

func adoptionPath(id token.TransferID, rest string) string {
	return "/v1/adoptions/" + url.PathEscape(string(id)) + rest
}

// Adopt hands an adoption in. It is idempotent by the id of its order: the same again is the same adoption, another
// one with that id is problem.Conflict. problem.NotPermitted: the caller does not administer the place.
func (c *Client) Adopt(ctx context.Context, o AdoptionOrder) (Adoption, error) {
	var a Adoption
	err := c.do(ctx, call{method: http.MethodPost, path: "/v1/adoptions", body: o}, &a)
	return a, err
}

// Adoption returns an adoption once its Seq is beyond after, or as it is after wait, which is at most MaxWait. With
// after 0 it returns at once.
func (c *Client) Adoption(ctx context.Context, id token.TransferID, after int64, wait time.Duration) (Adoption, error) {
	var a Adoption
	wait, w := clamp(wait)
	err := c.do(ctx, call{method: http.MethodGet, path: query(adoptionPath(id, ""), "after", number(after), "wait", w), wait: wait}, &a)
	return a, err
}

// Adoptions returns a page of the adoptions that the caller may see, newest first. A limit of 0 is the broker's own.
func (c *Client) Adoptions(ctx context.Context, cursor string, limit int) (Page[Adoption], error) {
	var p Page[Adoption]
	err := c.do(ctx, call{method: http.MethodGet, path: query("/v1/adoptions", "cursor", cursor, "limit", number(int64(limit)))}, &p)
	return p, err
}

// CancelAdoption ends an adoption; what was entered stays. One that has ended is returned as it is.
func (c *Client) CancelAdoption(ctx context.Context, id token.TransferID) (Adoption, error) {
	var a Adoption
	err := c.do(ctx, call{method: http.MethodPost, path: adoptionPath(id, "/cancel")}, &a)
	return a, err
}
