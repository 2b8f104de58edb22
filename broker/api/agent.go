package api

import (
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Hello is what an agent says of itself before it opens its task stream. Who
// it is comes from its certificate.
type Hello struct {
	Version string   `json:"version"`
	Listen  []string `json:"listen"` // host:port where its peers can dial it over UDP; empty: it only dials
	Slots   int      `json:"slots"`  // batches it takes at once, as source and as destination each
	Exports []Export `json:"exports"`
	Held    []Ref    `json:"held"`           // batches in its journal, for which it awaits continuation or delivers receipts
	Kept    int64    `json:"kept,omitempty"` // the number up to which it has made this broker's log of holds and retentions durable
}

// An Export is a container that an agent serves.
type Export struct {
	Container token.Container `json:"container"`
	Read      bool            `json:"read"`
	Create    bool            `json:"create"`
	Erase     bool            `json:"erase,omitempty"` // objects and empty containers may be erased, by somebody
	PartSize  int64           `json:"part_size"`       // smallest, bytes
	MaxParts  int64           `json:"max_parts"`
	Session   bool            `json:"session,omitempty"`   // also for orders that only this broker gives its word for
	MaxItems  int64           `json:"max_items,omitempty"` // of a batch that local policy refuses to nobody for its size; 0 is no limit
	MaxBytes  int64           `json:"max_bytes,omitempty"` // the same
	Place     string          `json:"place,omitempty"`     // where the store is, by a code of ISO 3166; empty: the agent does not say
	Owner     token.Identity  `json:"owner,omitempty"`     // whose the container is while the broker knows no owner; empty: the agent does not say
	Sanitizes []string        `json:"sanitizes,omitempty"` // the methods by which its store can truly wipe what it erases
}

// A Ref names a batch.
type Ref struct {
	Xfr token.TransferID `json:"xfr"`
	Bat int64            `json:"bat"`
}

// A Welcome answers a Hello.
type Welcome struct {
	Broker token.Identity `json:"broker"`
	Time   int64          `json:"time"`           // the broker's clock, seconds since 1970 UTC
	Drop   []Ref          `json:"drop"`           // held batches that are ended: stages and journals may go
	Kept   int64          `json:"kept,omitempty"` // the newest number of the log of holds and retentions: nothing is erased before it is reached
}

// A Line is one line of the task stream. Exactly one member is set.
type Line struct {
	Ping bool  `json:"ping,omitempty"` // nothing to say; sent every PingEvery
	Task *Task `json:"task,omitempty"` // work; sent again after each reconnection until it is ended
	Drop *Ref  `json:"drop,omitempty"` // stop this batch, remove its stages, post what became of it
	// Revocation is the broker's newest list of revocations, a compact JWS: first on the stream, and whenever there is a newer one.
	Revocation string    `json:"revocation,omitempty"`
	Kept       *KeptPage `json:"kept,omitempty"` // holds and retentions
}

// A LastLine ends a stream that the broker breaks off, and says why. Who reads streams passes over a line of which it knows nothing.
type LastLine struct {
	Problem *Problem `json:"problem,omitempty"`
}

// Revocations is the answer to who polls for the newest list of revocations.
type Revocations struct {
	JWS string `json:"jws,omitempty"` // compact; empty if there is none of a greater epoch
}

// A TaskKind says what an agent is asked to do.
type TaskKind string

const (
	ListTask    TaskKind = "list"
	StatTask    TaskKind = "stat"
	MakeTask    TaskKind = "make"
	EraseTask   TaskKind = "erase" // what the order names and nothing else; answered with one entry that tells what was erased
	ReceiveTask TaskKind = "receive"
	ServeTask   TaskKind = "serve"

	WithdrawTask TaskKind = "withdraw" // stop what Order withdraws, and remember it; answered with an empty last page
)

// A Task is the delivery of work to an agent. It is idempotent: the same ID may arrive again.
type Task struct {
	ID    string      `json:"id"`
	Kind  TaskKind    `json:"kind"`
	Order SignedOrder `json:"order"`         // for a standing one the chains are those of now
	Run   int64       `json:"run,omitempty"` // the number of the standing order's run that it is for

	After token.ObjectName   `json:"after,omitempty"` // list
	Limit int64              `json:"limit,omitempty"` // list: entries in all; 0 is no limit
	Level bool               `json:"level,omitempty"` // list, as in Lookup
	Names []token.ObjectName `json:"names,omitempty"` // stat: at most MaxNames

	Bat        int64  `json:"bat,omitempty"`        // receive, serve
	Manifest   []byte `json:"manifest,omitempty"`   // canonical bytes
	Capability string `json:"capability,omitempty"` // whose audience is this agent
	Present    string `json:"present,omitempty"`    // receive: to be presented to the peer
	Peer       Peer   `json:"peer,omitzero"`
	Rate       int64  `json:"rate,omitempty"` // bytes a second of all batches of the transfer with this rate; 0 is no limit but those of others
}

// A Peer is the other agent of a batch.
type Peer struct {
	ID     token.Identity `json:"id"`
	Listen []string       `json:"listen"`
}

// A TaskPage is a piece of the result of a list, stat, make or erase task.
type TaskPage struct {
	Entries []Entry  `json:"entries"`
	Last    bool     `json:"last"`              // nothing follows
	Problem *Problem `json:"problem,omitempty"` // the task failed; implies Last
}

// A TaskPageAnswer says whether the broker wants more now. If not, the agent
// stops; a list goes on later with another task from the last name taken.
type TaskPageAnswer struct {
	More bool `json:"more"`
}

// A Refusal is an agent's answer to a receive or serve task that it does not take.
type Refusal struct {
	Problem Problem `json:"problem"`
}

// A Beat is an agent's sign of life, every few seconds.
type Beat struct {
	Running []Progress `json:"running"`
}

// A Progress says how far a running batch is.
type Progress struct {
	Ref
	Bytes   int64        `json:"bytes"`             // verified
	Items   int64        `json:"items"`             // with a final outcome
	Waiting problem.Code `json:"waiting,omitempty"` // why it does not go on at the moment, for example peer-unreachable
	Note    string       `json:"note,omitempty"`    // one public sentence to that
}

// A BeatAnswer lists batches of the Beat that are ended for the broker.
type BeatAnswer struct {
	Drop []Ref `json:"drop"`
	Time int64 `json:"time,omitempty"` // the broker's clock, seconds since 1970 UTC
}

// A Renewal is the next generation of a batch's capabilities, bound to the
// certificate of the call that asked for it.
type Renewal struct {
	Capability string `json:"capability"`        // whose audience is the caller
	Present    string `json:"present,omitempty"` // destination only: to be presented to the peer
}

// A ReceiptAnswer says that the receipt is durable at the broker.
type ReceiptAnswer struct {
	Leaf int64 `json:"leaf"` // its index among the broker's leaves
}

// MaxReports is how many reports one call carries at most.
const MaxReports = 64

// A Report is what an agent says of a lane between it and the other agent of a batch that one of the two
// has refused. Both tell: who was refused knows that it was, who refused knows why.
type Report struct {
	Ref
	Peer   token.Identity `json:"peer"` // the other agent, as the task named it
	By     Refuser        `json:"by"`
	At     Stage          `json:"at"`
	Code   problem.Code   `json:"code"`
	Detail string         `json:"detail"` // one public sentence; no name of a stranger is in it
	// Stranger says that it was not the peer, but somebody else who came for the batch. Nothing more is told of them.
	Stranger bool `json:"stranger,omitempty"`
}

// A Refuser is who refused, as the reporting agent sees it.
type Refuser string

const (
	BySelf Refuser = "self"
	ByPeer Refuser = "peer"
)

// A Stage is how far a lane had come when it was refused.
type Stage string

const (
	AtLane  Stage = "lane"  // at the certificates
	AtHello Stage = "hello" // at the capability
	AtWant  Stage = "want"  // at a request for content
)

// Reports are several reports at once.
type Reports struct {
	Reports []Report `json:"reports"`
}
