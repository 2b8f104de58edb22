// Package api is the broker's HTTP surface as Go types, and the client that
// agents and the command line use. Paths are below /v1; bodies are JSON; a
// failure is application/problem+json (RFC 9457) with a stable code.
//
// It guarantees that what the server sends and what the client reads are the
// same Go types. It decides nothing: rules are in token, state is in broker.
package api

import (
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Limits of the surface. Counts unless the name says otherwise.
const (
	MaxPage      = 1000      // entries of one page of a listing
	MaxPageSize  = 512 << 10 // bytes of one page of a listing
	MaxNames     = 1024      // names of one stat task
	MaxBodySize  = 8 << 20   // bytes of any request body
	MaxTaskSize  = 16 << 20  // bytes of one line of the task stream
	MaxDenials   = 8         // denials of one Transfer
	MaxWait      = time.Minute
	PingEvery    = 10 * time.Second
	PingDeadline = 30 * time.Second // silence after which a reader gives the stream up
)

// A SignedOrder is an order as its accounts signed it; or, of who cannot sign, what the broker makes of their session.
type SignedOrder struct {
	JWS    []string `json:"jws"`    // one a member of Order.Accounts, in that order, all over the same payload
	Chains []string `json:"chains"` // PEM, leaf first, one a member of JWS
	// Claims are those of an order that nobody signed, in place of JWS and Chains. The caller is one of its accounts and asks for it in a session
	// whose certificate shows that. The broker gives its own word for it, where agents take that.
	Claims *token.Order `json:"claims,omitempty"`
	// Session is that word, of kind consign-session-order. Brokers write it, and take it from nobody.
	Session string `json:"session,omitempty"`
}

// A State is where a transfer stands.
type State string

const (
	Queued    State = "queued"
	Running   State = "running"
	Paused    State = "paused"
	Complete  State = "complete"
	Partial   State = "partial"
	Failed    State = "failed"
	Cancelled State = "cancelled"
	Expired   State = "expired"
)

// Ended reports whether s is terminal.
func (s State) Ended() bool {
	switch s {
	case Complete, Partial, Failed, Cancelled, Expired:
		return true
	case Queued, Running, Paused:
	}
	return false
}

// A Transfer is the progress of one order, or of one run of a standing order.
type Transfer struct {
	ID         token.TransferID       `json:"id"`
	Order      token.TransferID       `json:"order"` // the id of the order, which is that of its first run
	Run        int64                  `json:"run"`   // of a standing order, from 0; else 0
	State      State                  `json:"state"`
	Do         token.Verb             `json:"do"`
	From       token.Location         `json:"from"`
	To         token.Location         `json:"to"`
	Accounts   []token.Identity       `json:"accounts"`
	Authority  token.Authority        `json:"authority"` // "order", or "session" if no account signed it
	Created    time.Time              `json:"created"`
	Finished   *time.Time             `json:"finished,omitempty"`
	Planned    bool                   `json:"planned"`           // the source has been listed to its end
	Items      int64                  `json:"items"`             // found so far
	Bytes      int64                  `json:"bytes"`             // size of the items found so far
	BytesMoved int64                  `json:"bytes_moved"`       // verified at the destination, running batches included; not durable
	ItemsDone  int64                  `json:"items_done"`        // items with a final outcome
	Outcomes   map[token.Result]int64 `json:"outcomes"`          // final outcomes by kind
	Flags      []string               `json:"flags"`             // "disputed", "unmatched"
	Waiting    string                 `json:"waiting,omitempty"` // for whom or what it waits, one sentence
	Denials    []Event                `json:"denials,omitempty"` // the newest refusals of anybody who takes part, oldest first, at most MaxDenials
	Problem    *Problem               `json:"problem,omitempty"` // why it ended other than complete
	Seq        int64                  `json:"seq"`               // of its newest event; for GET ?after=
}

// An OrderState is where an order stands.
type OrderState string

const (
	OrderActive    OrderState = "active"    // a run follows, or one is unfinished
	OrderEnded     OrderState = "ended"     // nothing more will be done
	OrderWithdrawn OrderState = "withdrawn" // nothing more may be done
)

// An OrderInfo is an order to copy, and how far it was carried out.
type OrderInfo struct {
	ID          token.TransferID `json:"id"`
	State       OrderState       `json:"state"`
	Do          token.Verb       `json:"do"`
	From        token.Location   `json:"from"`
	To          token.Location   `json:"to"`
	Accounts    []token.Identity `json:"accounts"`
	Received    time.Time        `json:"received"`
	Signed      time.Time        `json:"signed"`
	Expires     time.Time        `json:"expires"`
	Period      int64            `json:"period"`               // seconds between runs; 0: it runs once
	Runs        int64            `json:"runs"`                 // that were begun
	Skipped     int64            `json:"skipped"`              // that were due and not begun
	Newest      token.TransferID `json:"newest"`               // the run that was begun last
	Next        *time.Time       `json:"next,omitempty"`       // when the next run is due
	GoodUntil   *time.Time       `json:"good_until,omitempty"` // of a standing order: the end of the certificate beside it that ends first
	Waiting     string           `json:"waiting,omitempty"`    // why the run that is due is not begun, one sentence
	Withdrawn   *time.Time       `json:"withdrawn,omitempty"`
	WithdrawnBy token.Identity   `json:"withdrawn_by,omitempty"`
	Untold      []token.Identity `json:"untold"` // agents that have not said yet that they know of the withdrawal
}

// ProblemPath is where a broker answers a ProblemPage for the code behind it, to everybody.
const ProblemPath = "/problems/"

// A ProblemPage says what a code means everywhere.
type ProblemPage struct {
	Code   problem.Code `json:"code"`
	Number uint64       `json:"number"` // QUIC application error code
	Status int          `json:"status"` // of HTTP
	Exit   int          `json:"exit"`   // of the command line
	Retry  bool         `json:"retryable"`
	Title  string       `json:"title"`
	Cause  string       `json:"cause"`
	Remedy string       `json:"remedy"`
}

// A Problem is RFC 9457 with our members.
type Problem struct {
	Type     string       `json:"type"` // ProblemPath and the code: a reference that is relative to the broker
	Title    string       `json:"title"`
	Status   int          `json:"status"`
	Detail   string       `json:"detail,omitempty"`
	Instance string       `json:"instance,omitempty"`
	Code     problem.Code `json:"code"`
	Remedy   string       `json:"remedy,omitempty"`
	Retry    bool         `json:"retryable"`
	Incident string       `json:"incident,omitempty"` // names the line in the broker's log
	Errors   []FieldError `json:"errors,omitempty"`
}

// A FieldError says which part of a request is wrong.
type FieldError struct {
	Location string `json:"location"`
	Message  string `json:"message"`
}

// An ItemReport is what became of one item, as people ask for it.
type ItemReport struct {
	Src     token.ObjectName `json:"src"`
	Dst     token.ObjectName `json:"dst,omitempty"`
	Size    int64            `json:"size"`
	Outcome token.Result     `json:"outcome"`
	Code    problem.Code     `json:"code,omitempty"`
	Detail  string           `json:"detail,omitempty"`
	Digest  token.Digest     `json:"digest,omitempty"`
	Batch   int64            `json:"batch,omitempty"`
	Lost    []string         `json:"lost,omitempty"` // attributes that could not travel or that the destination could not represent, as "mode" or "meta:colour"
}

// An Event is one line of the broker's ordered event table. It is of a transfer, or of an account alone.
type Event struct {
	Seq     int64            `json:"seq"`
	At      time.Time        `json:"at"`
	Xfr     token.TransferID `json:"xfr,omitempty"`
	Account token.Identity   `json:"account,omitempty"` // whose it is, if it is of no transfer
	Kind    EventKind        `json:"kind"`
	Note    string           `json:"note,omitempty"`   // one public sentence
	Code    problem.Code     `json:"code,omitempty"`   // of a refusal or failure
	Remedy  string           `json:"remedy,omitempty"` // what the reader can do about it, one sentence
}

// An EventKind says what happened. More may come; a reader passes over what it does not know.
type EventKind string

// The kinds on which somebody acts. What a transfer ends with is an event of the State's name.
const (
	// DeniedEvent: somebody who takes part was refused for want of identity or authority, or an account by the namespace. Code and Note say why.
	DeniedEvent EventKind = "denied"
	// HookStopped: a webhook of the account was switched off. Code and Note say why.
	HookStopped EventKind = "webhook-stopped"
	// HookTest is no event of the table: it is what a webhook is tested with.
	HookTest EventKind = "webhook-test"
	// KeyChanged: an account was seen with a key that it had not before. The account itself is told, and those linked with it.
	KeyChanged EventKind = "key-changed"
	// KeyAcknowledged: somebody who may has said whether the change was theirs.
	KeyAcknowledged EventKind = "key-acknowledged"
	// AccountLinked and AccountUnlinked: a link with another account came or went.
	AccountLinked   EventKind = "linked"
	AccountUnlinked EventKind = "unlinked"
	// LetIn: somebody was let into a root container of the account by what they are, its owner or an administrator, and by no entry.
	LetIn EventKind = "let-in"
	// AdoptionEnded: an adoption of the account has ended. Note says how, and Code why if not all was entered.
	AdoptionEnded EventKind = "adoption-ended"
)

// An EventLine is one line of the event stream. Seq is always there: a stream that is opened with it as after goes on behind this line.
type EventLine struct {
	Seq   int64  `json:"seq"`
	Ping  bool   `json:"ping,omitempty"` // nothing to say; sent at the beginning, when all that was there has been sent, and every PingEvery
	Event *Event `json:"event,omitempty"`
}

// A Page is one page of a list; Next is empty on the last one.
type Page[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// An Entry is one name of a listing.
type Entry struct {
	Name    token.ObjectName `json:"name"`
	Type    string           `json:"type"` // of agent/store: object, container, link, special
	Size    int64            `json:"size"`
	Version token.Version    `json:"version,omitempty"`
	ModTime time.Time        `json:"mtime,omitzero"`
	Mode    string           `json:"mode,omitempty"` // octal permission bits
	Native  string           `json:"native,omitempty"`
	// Sanitized is the method by which what was erased was wiped; empty: it was not.
	Sanitized string `json:"sanitized,omitempty"`
	// Node is of its row, to who may see that; the broker alone says it.
	Node   *NodeBrief   `json:"node,omitempty"`
	Code   problem.Code `json:"code,omitempty"` // why it cannot be described
	Detail string       `json:"detail,omitempty"`
	Made   bool         `json:"made,omitempty"` // of what was to be made: it was not there before
}

// A Lookup asks for a list, stat, make or erase order to be carried out while the caller waits.
type Lookup struct {
	Order SignedOrder      `json:"order"`
	After token.ObjectName `json:"after,omitempty"` // list: start after this name
	Limit int              `json:"limit,omitempty"` // list: at most this many entries; 0 is MaxPage
	Level bool             `json:"level,omitempty"` // list: only the names directly below the prefix; deeper ones become one entry of type container
}

// A LookupResult answers a Lookup. Next is the After of the next page, empty on the last.
type LookupResult struct {
	Entries []Entry          `json:"entries"`
	Next    token.ObjectName `json:"next,omitempty"`
}

// A ProviderInfo describes a provider and what its agents export.
type ProviderInfo struct {
	Name       token.Provider    `json:"name"`
	Containers []token.Container `json:"containers"`
	Agents     []AgentInfo       `json:"agents"`
}

// An AgentInfo describes an agent.
type AgentInfo struct {
	ID        token.Identity `json:"id"`
	Connected bool           `json:"connected"`
	Version   string         `json:"version"`
	Seen      time.Time      `json:"seen"`
}

// A BatchRecord is everything that was said about one batch: what an auditor needs.
type BatchRecord struct {
	Bat      int64           `json:"bat"`
	Manifest []byte          `json:"manifest"` // canonical bytes
	Receipts []SignedReceipt `json:"receipts"`
}

// A SignedReceipt is a receipt with its certificate chain and outcome lines.
type SignedReceipt struct {
	JWS   string `json:"jws"`
	Chain string `json:"chain"` // PEM, leaf first
	Lines string `json:"lines"` // canonical outcome lines, each ended by a newline
}
