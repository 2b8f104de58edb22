// Package store is the contract of an object store as an agent needs it: pinned
// reads by offset, stages that survive a crash, and publishing exactly once.
//
// A Store holds one container. It guarantees that nothing which was published
// is ever changed or replaced through it, and that what Publish reported as
// stored survives power loss right after. Names follow token.CheckName; a store
// that cannot hold a name says so with problem.BadName.
//
// Every implementation passes the suite in agent/store/storetest. The package
// itself holds only the types.
package store

import (
	"context"
	"io"
	"time"

	"github.com/consign-transfer/consign/token"
)

// A Type is what kind of thing a name is.
type Type string

const (
	Object  Type = "object"
	Subtree Type = "container" // a directory; in listings only when it is empty
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
	Attrs   Attrs
	Native  string // the store's own digest with its name in front, or empty
}

// Settle is how long a name must have been left alone for its Version to be
// trusted, where a store's clock is coarse.
const Settle = 2 * time.Second

// Attrs are what an object keeps when it travels.
type Attrs struct {
	ModTime time.Time // zero is unknown
	Mode    uint32    // permission bits of POSIX; meaningful only if HasMode
	HasMode bool
	Meta    map[string]string // user metadata; nil is none
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

// A Reader reads one pinned version. ReadAt may be called concurrently.
type Reader interface {
	io.ReaderAt
	io.Closer
	// Info returns the state that was pinned.
	Info() Info
	// Check returns nil if the name still is the pinned version, and
	// problem.Changed otherwise.
	Check(ctx context.Context) error
}

// A BatchID names the stages of one batch: a path segment of letters, digits and '-'.
type BatchID string

// A Store is one container of objects. Its methods may be called concurrently.
type Store interface {
	Lister
	// Stat describes name. There are three outcomes: an Info; problem.Missing
	// if nothing has that name; any other error.
	Stat(ctx context.Context, name token.ObjectName) (Info, error)
	// Open pins name at version. If the name has another version the error is
	// problem.Changed; if it is gone, problem.Missing; if it may not be read, problem.Unreadable.
	Open(ctx context.Context, name token.ObjectName, version token.Version) (Reader, error)
	// Make makes the subtree name with its parents; one that exists is fine, an object of
	// that name or of a parent's is problem.Taken. Durable when it returns.
	Make(ctx context.Context, name token.ObjectName) error
	// Batch opens the stages of id, made before a crash or new. Exactly one
	// Batch of an id may be in use at a time: problem.Claimed until the other was closed or dropped.
	Batch(ctx context.Context, id BatchID) (Batch, error)
	// Batches lists every id that has stages, for the janitor.
	Batches(ctx context.Context) ([]BatchID, error)
	// Probe measures what the store really does and returns problem.NotExclusive
	// with a sentence if it does not create exclusively.
	Probe(ctx context.Context) (Traits, error)
	io.Closer
}

// Traits are what Probe measured.
type Traits struct {
	Exclusive string // how exclusivity is had, for example "link"
	PartSize  int64  // smallest part, bytes; at least token.ChunkSize
	MaxParts  int64
	Modes     bool // keeps permission bits
	ModTimes  bool
	Meta      bool // keeps user metadata
}

// A Batch is the stages of one batch. Its methods may be called concurrently.
type Batch interface {
	// Stage creates, or opens again with what was written, the stage of the item of that index. Space for size bytes
	// is taken now where the store can; problem.DiskFull if there is none.
	Stage(ctx context.Context, item int, size int64) (Stage, error)
	// Publish makes every one of pubs visible under its name, each exactly once, and
	// returns one Published a publication in the same order. An entry whose Err is nil is durable. Publishing again what this batch already
	// published reports the same success, also after a crash. The entries' stages must not be written any more.
	Publish(ctx context.Context, pubs []Publication) []Published
	// Drop removes every stage of the batch. Published objects stay. It is idempotent.
	Drop(ctx context.Context) error
	// Close releases what is open; stages stay for a later Batch.
	Close() error
}

// A Stage is written aside until it is published. WriteAt may be called
// concurrently for ranges that do not overlap. It refuses to write beyond the
// size that Stage was given, and to write anything once Publish was asked for the item.
type Stage interface {
	io.WriterAt
	io.ReaderAt
	// Created reports whether the stage is new: then whatever a journal claims to
	// have been written before is not there, because a crash or a failed sync took it.
	Created() bool
	// Sync returns when everything written so far survives power loss, with the stage itself. After an error the stage is poisoned: every
	// further call fails, its content is gone, and the item must be staged anew after Discard.
	Sync() error
	// Discard removes the stage. A published object stays.
	Discard() error
	// Close releases the descriptor; the content stays.
	Close() error
}

// A Publication asks for one item to become visible.
type Publication struct {
	Item  int
	Name  token.ObjectName
	Size  int64
	Attrs Attrs
}

// A Published is what became of a Publication. There are three outcomes by Err:
//
//  1. nil: the object is there, whole and durable.
//  2. problem.Taken: the name exists and is not this batch's work.
//  3. any other error: nothing may be signed. The name does not exist by this batch's doing, unless
//     the error came after the name was made and before it was durable. Publish again tells; after a failed sync
//     it fails until the batch was closed or dropped and opened again.
type Published struct {
	Info Info
	Lost []string // attributes that could not be kept, by name: "mode", "mtime", "meta:KEY"
	Err  error
}
