// Package token is the contract between subscriber, broker and agents: the
// statements that they sign, the names in them, and the rules that anyone can
// check without asking anybody.
//
// It guarantees that the payload of a statement has exactly one spelling: what a
// Signer wrote, Verify accepts, and nothing else. A statement is named by the
// Hash of its payload, never by its token: an ECDSA or RSA key has many good
// signatures of one payload, so that two tokens may be one statement. It
// guarantees that Order.Covers is the only mapping from an order to names, so
// that planner and agents cannot differ.
//
// It does no I/O, reads no clock, starts no goroutine and logs nothing. All
// values are plain data; all functions may be called concurrently. Failures are
// *problem.Error, matched with problem.Of, and the other results are then zero.
package token

import "time"

// Limits, checked before anything is parsed. Bytes unless the name says otherwise.
const (
	MaxNameSize       = 1024
	MaxContainerSize  = 255
	MaxProviderSize   = 255
	MaxCapabilitySize = 4 << 10
	MaxReceiptSize    = 8 << 10
	MaxOrderPayload   = 16 << 10
	MaxOrderSize      = 24 << 10 // the compact JWS of a payload of MaxOrderPayload
	MaxManifestSize   = 4 << 20
	MaxOutcomeSize    = 1 << 10
	MaxKeySetSize     = 64 << 10
	MaxKeys           = 16
	MaxItems          = 1024    // items of a manifest
	MaxBatchBytes     = 8 << 30 // bytes of a manifest of more than one item
	MaxFilters        = 64
	MaxFilterSize     = 1024
	MaxDetailSize     = 256
	MaxCapabilities   = 16 // capabilities named by one receipt

	MaxRevocationPayload = 1 << 20
	MaxRevocationSize    = 3 << 19 // the compact JWS of a payload of MaxRevocationPayload
	MaxRevoked           = 8192    // transfers of one revocation
	MaxReasonSize        = 32

	// ChunkSize is the unit of verification: an aligned piece of an object.
	ChunkSize = 1 << 20

	// MaxCapabilityLife bounds exp - iat of a capability.
	MaxCapabilityLife = 6 * time.Hour
	// ClockSkew is how far apart clocks may be.
	ClockSkew = time.Minute
	// RecentGenerations is how many generations of a capability are accepted at once.
	RecentGenerations = 2
)

// A Provider is the name of a storage provider, which is its SPIFFE trust domain:
// lower-case letters, digits, '.', '-' and '_'.
type Provider string

// A Container is the name of what holds objects at a provider: one segment of
// an object name, at most MaxContainerSize bytes.
type Container string

// An ObjectName is the name of an object in its container, in the grammar that
// CheckName enforces. The zero value names no object; as a root it is the whole container.
type ObjectName string

// An Identity is a SPIFFE ID of ours: spiffe://PROVIDER/ROLE/NAME.
type Identity string

// A TransferID is the id of an order and of the transfer that carries it out: a
// UUIDv7 (RFC 9562) in its lower-case text form.
type TransferID string

// A Digest is the output of a hash with its name in front: blake3: or sha256: and 64
// lower-case hexadecimal digits. The empty Digest is none.
type Digest string

// A Version is a store's own name of one immutable state of an object; opaque here.
type Version string

// A Hash is SHA-256 of the canonical bytes of a statement or manifest, of a leaf
// certificate, or a Merkle root: 43 characters of unpadded base64url.
type Hash string

// A Location is an object, or a prefix of objects, at a provider.
type Location struct {
	Container Container  `json:"container"`
	Name      ObjectName `json:"name"`
	Provider  Provider   `json:"provider"`
}

// A Verb is what an order wants or a capability allows.
type Verb string

const (
	Copy   Verb = "copy"   // orders: copy From to To
	List   Verb = "list"   // orders: list below From
	Stat   Verb = "stat"   // orders: describe From
	Make   Verb = "make"   // orders: make To, a container path
	Erase  Verb = "erase"  // orders: erase To: an object at Version, or, without one, an empty container
	Read   Verb = "read"   // capabilities: read the manifest's sources
	Create Verb = "create" // capabilities: create the manifest's destinations

	Withdraw Verb = "withdraw" // orders: let nothing more be done for Target
)

// A Scope says what a Location of an order means.
type Scope string

const (
	One  Scope = "object" // exactly the named object
	Tree Scope = "tree"   // every object below the name
)

// An IfExists says what becomes of an item whose destination name exists.
type IfExists string

const (
	Fail    IfExists = "fail"   // outcome taken; the transfer ends partial or failed
	Skip    IfExists = "skip"   // outcome existed
	Compare IfExists = "verify" // outcome existed if the digests are equal, taken otherwise
)

// A Filter includes or excludes items by a pattern over the name below the source root.
type Filter struct {
	Do    string `json:"do"` // "include" or "exclude"
	Match string `json:"match"`
}

// Limits bound a transfer; zero is no limit.
type Limits struct {
	Bytes int64 `json:"bytes"` // total size of items
	Items int64 `json:"items"` // number of items
	Rate  int64 `json:"rate"`  // bytes per second
}

// An Order is the subscriber's signed will. One JWS a key of Accounts is made over the same payload.
// See docs/spec/order.md.
type Order struct {
	Accounts []Identity `json:"accounts"` // one a provider, sorted, at most two
	Digest   Digest     `json:"digest"`   // what One object must hash to, or none
	Do       Verb       `json:"do"`
	Exp      int64      `json:"exp"` // seconds since 1970 UTC
	Filters  []Filter   `json:"filters"`
	From     Location   `json:"from"`
	Iat      int64      `json:"iat"`
	ID       TransferID `json:"id"`
	IfExists IfExists   `json:"if_exists"`
	Limits   Limits     `json:"limits"` // of each run
	Period   int64      `json:"period"` // seconds between runs; 0 is one run
	Scope    Scope      `json:"scope"`
	Target   TransferID `json:"target"` // the id of the order to Withdraw, or none
	To       Location   `json:"to"`
	Version  Version    `json:"version"` // the state of an object to Erase, or none
}

// An Authority says what a transfer rests on. Capability and receipt name it.
type Authority string

// The authorities.
const (
	ByOrder   Authority = "order"   // an order that every account has signed
	BySession Authority = "session" // the word of a broker, to whom an account that cannot sign has shown its certificate
)

// A Capability is the broker's signed right to one manifest, bound to one key.
// See docs/spec/capability.md.
type Capability struct {
	Aud       Identity   `json:"aud"` // the agent that must accept it
	Authority Authority  `json:"authority"`
	Bat       int64      `json:"bat"` // batch number, from 1
	Cnf       Hash       `json:"cnf"` // SHA-256 of the holder's leaf certificate (RFC 8705 x5t#S256)
	Do        Verb       `json:"do"`  // Read or Create
	Exp       int64      `json:"exp"`
	Gen       int64      `json:"gen"` // generation, from 1
	Iat       int64      `json:"iat"`
	Iss       Identity   `json:"iss"` // the broker
	Man       Hash       `json:"man"`
	Max       int64      `json:"max"`  // bytes that may cross the wire, re-sent ones included
	Ord       Hash       `json:"ord"`  // of the order's payload
	Peer      Identity   `json:"peer"` // the other agent, seen from aud
	Xfr       TransferID `json:"xfr"`
}

// An Item is one object of a manifest.
type Item struct {
	Digest  Digest     `json:"digest"` // what it must hash to, or none
	Dst     ObjectName `json:"dst"`
	Hash    ValueHash  `json:"hash"` // what the stored object is to have beside its digest, or none
	Part    int64      `json:"part"` // bytes; a power of two, at least ChunkSize
	Size    int64      `json:"size"` // bytes
	Src     ObjectName `json:"src"`
	Version Version    `json:"version"` // the pinned version of Src
}

// A Manifest is the content of a batch. It is not signed: it is named by the
// SHA-256 of its canonical bytes.
type Manifest struct {
	Bat   int64      `json:"bat"`
	Iss   Identity   `json:"iss"`
	Items []Item     `json:"items"`
	Ord   Hash       `json:"ord"`
	Xfr   TransferID `json:"xfr"`
}

// A Side is which of the two agents speaks.
type Side string

const (
	Source      Side = "source"
	Destination Side = "destination"
)

// A Receipt is an agent's signed statement of a batch, or of a numbered part of
// it. See docs/spec/receipt.md.
type Receipt struct {
	Aud       Identity   `json:"aud"` // the broker
	Authority Authority  `json:"authority"`
	Bat       int64      `json:"bat"`
	Bytes     int64      `json:"bytes"` // total size of the stored or sent items
	Caps      []Hash     `json:"caps"`  // payloads of the capabilities it rests on, in order of generation
	CreateBy  Guard      `json:"create_only"`
	Finished  int64      `json:"finished"`
	Iat       int64      `json:"iat"`
	Iss       Identity   `json:"iss"`
	Last      bool       `json:"last"` // no further part follows
	Man       Hash       `json:"man"`
	N         int64      `json:"n"` // number of outcome lines
	Ord       Hash       `json:"ord"`
	Part      int64      `json:"part"` // from 1
	Root      Hash       `json:"root"` // RFC 6962 tree over the outcome lines
	Side      Side       `json:"side"`
	Started   int64      `json:"started"`
	Xfr       TransferID `json:"xfr"`
}

// A Guard is who kept a name from being created twice.
type Guard string

// The guards. A source creates nothing, and its receipt has the empty one.
const (
	GuardStore Guard = "store" // the store itself, in the request that creates, as its probe measured
	GuardAgent Guard = "agent" // the agent alone, by looking first: its operator has allowed a store that cannot
)

// A Result is what became of an item, as one side saw it.
type Result string

const (
	Stored  Result = "stored"  // destination: published, durable
	Sent    Result = "sent"    // source: every byte served, version unchanged
	Existed Result = "existed" // the name existed and the order allows that
	TakenBy Result = "taken"   // the name existed
	Altered Result = "changed" // the source was not the pinned version
	Denied  Result = "denied"
	Failed  Result = "failed"
	Left    Result = "skipped" // not an object
	Untried Result = "untried"
)

// An Outcome is one line of a receipt: what became of one item.
type Outcome struct {
	Code    string      `json:"code"`   // of token/problem; empty for stored, sent and existed
	Detail  string      `json:"detail"` // one public sentence, or empty
	Digest  Digest      `json:"digest"`
	Hash    ValueDigest `json:"hash"`   // stored: of the hash that the manifest asks for; else none
	Item    int64       `json:"item"`   // index in the manifest, from 0
	Lost    []string    `json:"lost"`   // attributes that the destination could not represent; that could not travel, if a source says it
	Native  string      `json:"native"` // the store's own digest, or empty
	Outcome Result      `json:"outcome"`
	Size    int64       `json:"size"`
	Version Version     `json:"version"` // of what was read or stored
}
