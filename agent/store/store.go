// Package store is the contract of an object store as an agent needs it: pinned
// reads by offset, stages that survive a crash, and publishing exactly once.
//
// A Store holds one container. It guarantees that nothing which was published
// is ever changed or replaced through it, and that what Publish reported as
// stored survives power loss right after. Names follow token.CheckName; a store
// that cannot hold a name says so with problem.BadName, and none holds a name with
// a segment .consign in any case, because that is where stages are kept.
//
// An object is staged in parts: aligned pieces of Item.Part bytes, which may be written in any
// order and concurrently, each from its beginning to its end. A part counts once its Close has returned nil,
// and never in pieces.
//
// Failures that will pass (no answer, too many requests) are problem.StoreAway: what was
// staged is still there, and the same call may be made again. A store has one retry loop
// of its own for a call, so StoreAway means that it has tried for a while; a part alone is never
// retried inside, because its bytes come from the caller.
//
// Every implementation passes the suite in agent/store/storetest. The package
// itself holds only the types.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/consign-transfer/consign/token"
)

// A Type is what kind of thing a name is.
type Type string

const (
	Object  Type = "object"
	Subtree Type = "container" // a directory, or what stands for one; in listings only when it is empty
	Link    Type = "link"      // a symbolic link; never followed
	Special Type = "special"   // a device, socket or pipe
)

// An Info describes one state of one name.
type Info struct {
	Name    token.ObjectName
	Type    Type
	Size    int64
	Version token.Version // what Open takes to read exactly this state
	Fresh   bool          // changed so recently that Version may not tell two states apart; describe it again after Settle
	Attrs   Attrs         // a listing may leave out what costs one more request a name
	Native  string        // the store's own digest with its kind in front, as in "etag:9b2cf5", or empty
	Origin  Origin        // the stage that was published as this object, where the store keeps that; else empty
}

// Settle is how long a name must have been left alone for its Version to be
// trusted, where a store's clock is coarse.
const Settle = 2 * time.Second

// Attrs are what an object keeps when it travels.
type Attrs struct {
	ModTime     time.Time // zero is unknown
	Mode        uint32    // permission bits of POSIX; meaningful only if HasMode
	HasMode     bool
	ContentType string            // media type (RFC 9110, section 8.3); empty is unknown
	Meta        map[string]string // user metadata; nil is none
}

// A Lister calls yield for each name below prefix, which is a whole name and not a
// piece of one (empty: the container), in the store's own total
// order, starting after the name after (empty: from the start). It stops
// without an error when yield returns false. A name that cannot be described is yielded
// with its error and listing goes on; an error of the listing itself is returned. A name that is
// no token.ObjectName is yielded escaped, with problem.BadName. The prefix itself is not yielded; if
// it is not a subtree the error is problem.Missing.
type Lister interface {
	// List blocks until it has yielded the last name, yield returned false, or ctx ended,
	// which is its error then. It calls yield in the caller's goroutine, holding no lock.
	List(ctx context.Context, prefix, after token.ObjectName, yield func(Info, error) bool) error
}

// A Reader reads one pinned version. Its methods may be called concurrently.
type Reader interface {
	io.Closer
	// Section returns the n bytes from off on, for one goroutine, which closes it. It is one request where
	// the store is remote. Its Read fails with problem.Changed rather than return a byte of another version,
	// if the store can tell while it reads, and with io.ErrUnexpectedEOF where the object ends before off+n.
	Section(ctx context.Context, off, n int64) (io.ReadCloser, error)
	// Info returns the state that was pinned, with all attributes. It costs a
	// request only if nothing was read yet.
	Info(ctx context.Context) (Info, error)
	// Check returns problem.Changed unless every byte that was read, and Info, belong to the pinned version.
	Check(ctx context.Context) error
}

// A BatchID names the stages of one batch: a path segment of letters, digits and '-'.
type BatchID string

// An Origin is the stage of item index of a batch: BATCH/INDEX.
type Origin string

// OriginOf names a stage.
func OriginOf(id BatchID, index int) Origin { return Origin(fmt.Sprintf("%s/%d", id, index)) }

// A Store is one container of objects. Its methods may be called concurrently.
type Store interface {
	Lister
	Eraser
	io.Closer
	// Keep gives the store its memory. It is called once, before Probe and Batch, by an agent
	// that lets it create; a store that finds its stages by itself ignores it.
	Keep(notes Notes)
	// Probe measures what the store really does. If it does not create exclusively the error is problem.NotExclusive with
	// a sentence, and Traits are what was measured all the same: a caller that goes on knows what it does, and
	// the store then looks before it creates, which is all that is left.
	Probe(ctx context.Context) (Traits, error)
	// Stat describes name. There are three outcomes: an Info with all attributes; problem.Missing
	// if nothing has that name; any other error.
	Stat(ctx context.Context, name token.ObjectName) (Info, error)
	// Open pins name at version. If the name has another version the error is
	// problem.Changed; if it is gone, problem.Missing; if it may not be read, problem.Unreadable. A remote store
	// may say so at the first Section or Info instead.
	Open(ctx context.Context, name token.ObjectName, version token.Version) (Reader, error)
	// Make makes the subtree name with its parents; one that exists is fine, an object of
	// that name is problem.Taken, and so is one of a parent's unless Traits.Flat. Durable when it returns.
	Make(ctx context.Context, name token.ObjectName) error
	// Batch opens the stages of id, made before a crash or new. Exactly one
	// Batch of an id may be in use at a time: problem.Claimed until the other was closed or dropped.
	Batch(ctx context.Context, id BatchID) (Batch, error)
	// Leftovers calls yield for everything unpublished that is in the store, as far as it can be seen or is remembered,
	// until yield returns false. What belongs to batches in use is among it.
	Leftovers(ctx context.Context, yield func(Leftover) bool) error
}

// Notes is what a store remembers beyond the end of the process, where the remote side cannot be asked: texts
// of at most MaxNote bytes by key. Its methods may be called concurrently.
type Notes interface {
	// Put is durable when it returns nil. It replaces.
	Put(key, value string) error
	// Get returns the newest value of key, and whether there is one.
	Get(key string) (value string, ok bool)
	// Remove forgets key, at the latest by the next start. Removing what is not there is fine.
	Remove(key string) error
	// All yields every note, in no order. The loop may call the other methods.
	All() iter.Seq2[string, string]
}

// MaxNote bounds key and value of a note together, in bytes.
const MaxNote = 8 << 10

// A Leftover is something that was staged and not published.
type Leftover struct {
	// Batch is whose it is. Empty: it may be ours, or somebody else's, which cannot be told; then nothing touches it.
	Batch BatchID
	Kind  string           // "file", "upload", "part object", "blocks"
	Name  token.ObjectName // what it was to become; empty if that is not known
	ID    string           // the store's name for it; may be empty
	Since time.Time        // zero is unknown
	// Expires is when the store removes it by itself. Zero: Drop of its batch removes it. Not zero: nothing else can.
	Expires time.Time
}

// Traits are what Probe measured.
type Traits struct {
	Exclusive   string // how exclusivity is had, for example "link"; empty if it is not
	PartSize    int64  // smallest part, bytes; a power of two and at least token.ChunkSize
	MaxParts    int64
	PartDigests string // which digest the store checks of each part: "crc32c", "md5"; empty if none
	Lists       bool   // stages are found by asking the store, not only by what was noted
	Volatile    bool   // stages of up to token.ChunkSize bytes are kept in memory until they are published
	Rereads     bool   // Stage.ReadAt works for stages of every size
	Flat        bool   // a name may be an object and have others below it
	Modes       bool   // keeps permission bits
	ModTimes    bool
	Types       bool // keeps content types
	Meta        bool // keeps user metadata, as far as its keys and values can be said in the store's protocol
}

// An Item is what is to become an object: all that a store may have to know before the first byte.
type Item struct {
	Index int
	Name  token.ObjectName
	Size  int64
	Part  int64 // bytes of each part but the last; a power of two, at least token.ChunkSize
	Attrs Attrs // may be zero where an earlier stage is taken up again; not when a part is written first
}

// Parts is how many parts the item has, at least one.
func (it Item) Parts() int64 { return max(1, (it.Size+it.Part-1)/it.Part) }

// Span is where a part begins and how long it is.
func (it Item) Span(part int64) (off, n int64) {
	off = part * it.Part
	return off, min(it.Part, it.Size-off)
}

// ErrLost says that a stage is not there, or not whole. The item must be staged anew after Discard.
var ErrLost = errors.New("the stage is not there, or not whole")

// A Batch is the stages of one batch. Its methods may be called concurrently.
type Batch interface {
	// Stage creates, or opens again with what was written, the stage of an item. Space for its size
	// is taken now where the store can; problem.DiskFull if there is none.
	Stage(ctx context.Context, item Item) (Stage, error)
	// Publish makes every one of pubs visible under its name, each exactly once, and
	// returns one Published a publication in the same order. An entry whose Err is nil is durable. Publishing again what this batch already
	// published reports the same success, also after a crash and without a Stage. The entries' stages must not be written any more.
	Publish(ctx context.Context, pubs []Publication) []Published
	// Drop removes every stage of the batch, but those that only time removes. Published objects stay. It is idempotent.
	Drop(ctx context.Context) error
	// Close releases what is open; stages stay for a later Batch, but for those in memory (Traits.Volatile).
	Close() error
}

// A Stage is written aside until it is published. Its methods may be called concurrently.
type Stage interface {
	// Holds reports whether a part that was written before is there; what a journal claims beyond
	// it was taken by a crash, a failed sync or the store. For what was never written it may say anything.
	Holds(part int64) bool
	// Part begins one part, in place of what was written of it. It is refused once Publish was asked for the item. Of two
	// writers of the same part either may win.
	Part(ctx context.Context, part int64) (Part, error)
	// ReadAt is io.ReaderAt over what was written, where Traits.Rereads.
	io.ReaderAt
	// Sync returns when every part that counts survives power loss, with the stage itself. After an error the stage is poisoned: every
	// further call fails, its content is gone, and the item must be staged anew after Discard.
	Sync() error
	// Discard removes the stage. A published object stays.
	Discard(ctx context.Context) error
	// Close releases the descriptor; the content stays.
	Close() error
}

// A Part takes the bytes of one part in order. It belongs to one goroutine.
type Part interface {
	// Write fails once the store has refused the part, with the reason.
	io.Writer
	// Close ends the part. It returns nil if exactly the part's bytes were written and it counts.
	Close() error
	// Abort gives the part up; what was written of it does not count. After Close it does nothing.
	Abort()
}

// A Publication asks for one item to become visible.
type Publication struct {
	Item
	Root token.Digest // of the content
}

// A Published is what became of a Publication. There are four outcomes by Err:
//
//  1. nil: the object is there, whole and durable.
//  2. problem.Taken: the name exists and is not this batch's work.
//  3. ErrLost: the name does not exist, and the stage is gone.
//  4. any other error: nothing may be signed. The name does not exist by this batch's doing, unless
//     the error came after the name was made and before it was durable, or with problem.StoreAway. Publish again tells; after a failed sync
//     it fails until the batch was closed or dropped and opened again.
type Published struct {
	Info Info
	Lost []string // attributes that could not be kept, by name: "mode", "mtime", "type", "meta:KEY"
	Err  error
}
