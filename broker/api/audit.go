package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/consign-transfer/consign/token"
)

// MaxAuditRun bounds the records of one run.
const MaxAuditRun = 1000

// An AuditRecord says of one attempt at access that it was made, because an AUDIT entry asks for that or because somebody was let in
// by what they are. Members are in the order of their names: package audit makes a record's line of them.
type AuditRecord struct {
	At      time.Time        `json:"at"`      // to the millisecond
	Audited string           `json:"audited"` // what of Want AUDIT entries name, as a mask of CDMI: 0x and eight digits
	Cause   string           `json:"cause"`   // the first entry that asks for the record, and where it stands; or who was let in
	First   token.ObjectName `json:"first"`   // of a page of names: the first that this is said of; else empty
	Items   int64            `json:"items"`   // names that it is said of: Place, or so many in it
	Kind    string           `json:"kind"`    // object or container
	Last    token.ObjectName `json:"last"`    // of a page of names: the last
	Missing string           `json:"missing"` // what was denied, or by being who one is alone allowed, as a mask of CDMI
	N       int64            `json:"n"`       // from 1, without a hole
	Op      string           `json:"op"`      // what was tried
	Outcome AuditOutcome     `json:"outcome"`
	Place   token.Location   `json:"place"`
	Salt    string           `json:"salt"` // so that nobody guesses the record from its hash
	Want    string           `json:"want"` // what was asked for, as a mask of CDMI
	Who     string           `json:"who"`  // empty: did not authenticate
}

// An AuditOutcome says what became of an attempt.
type AuditOutcome string

// The outcomes.
const (
	AuditAllowed       AuditOutcome = "allowed"       // by entries
	AuditDenied        AuditOutcome = "denied"        // by an entry
	AuditUnmentioned   AuditOutcome = "unmentioned"   // denied, because no entry allows it
	AuditOwner         AuditOutcome = "owner"         // let in as the owner of the root container
	AuditAdministrator AuditOutcome = "administrator" // let in as an administrator
)

// An AuditRun is a row of records with the leaf of the ledger that has their root: that of the RFC 6962 tree over their lines.
type AuditRun struct {
	First   int64      `json:"first"` // number of its first record; it begins where the run before ends
	Records int64      `json:"records"`
	Root    token.Hash `json:"root"`
	Since   time.Time  `json:"since"` // of its first and its last record
	Until   time.Time  `json:"until"`
	Leaf    int64      `json:"leaf"`             // index in the ledger
	Pruned  *time.Time `json:"pruned,omitempty"` // when its records were moved to a file of the broker
}

// An AuditProof is all of one run that the caller may see, and for all else its hash, so that the root can be computed.
type AuditProof struct {
	Run   AuditRun        `json:"run"`
	Leaf  json.RawMessage `json:"leaf"`  // the content of the leaf
	Lines []AuditLine     `json:"lines"` // one a record, in order; none if the run is pruned
}

// An AuditLine is a record, or the hash of one that the caller may not see.
type AuditLine struct {
	Record *AuditRecord `json:"record,omitempty"`
	Hash   token.Hash   `json:"hash,omitempty"` // of the leaf of the tree: SHA-256 of a zero byte and the line
}

// An AuditQuery says which records are wanted. Place is needed: who may read the records of a place is said by its root container, and
// the records of all containers of a provider are for its administrators.
type AuditQuery struct {
	Place string    // provider:, provider:/container or provider:/container/name; all below it count
	Who   string    // an identity; empty: everybody
	Since time.Time // zero: from the first on
	Until time.Time // zero: to the last
	After int64     // number of a record: only those behind it
	Limit int       // 0 is the broker's own; at most MaxPage
}

// Audit returns a page of records, the oldest first. Next is the After of the next page, as a number.
func (c *Client) Audit(ctx context.Context, q AuditQuery) (Page[AuditRecord], error) {
	var p Page[AuditRecord]
	path := query("/v1/audit", "place", q.Place, "who", q.Who, "since", instant(q.Since), "until", instant(q.Until), "after", number(q.After), "limit", number(int64(q.Limit)))
	err := c.do(ctx, call{method: http.MethodGet, path: path}, &p)
	return p, err
}

// AuditRuns returns a page of runs that begin with record from or later. Who may ask is who may read the records of place.
func (c *Client) AuditRuns(ctx context.Context, place string, from int64) (Page[AuditRun], error) {
	var p Page[AuditRun]
	err := c.do(ctx, call{method: http.MethodGet, path: query("/v1/audit/runs", "place", place, "from", number(from))}, &p)
	return p, err
}

// AuditProof returns the run that begins with record first, with the records of place in full.
func (c *Client) AuditProof(ctx context.Context, place string, first int64) (AuditProof, error) {
	var p AuditProof
	err := c.do(ctx, call{method: http.MethodGet, path: query("/v1/audit/runs/"+strconv.FormatInt(first, 10), "place", place)}, &p)
	return p, err
}

// instant is empty for no time.
func instant(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
