// Package acl is the access control of CDMI (ISO/IEC 17826, chapter 16), which is
// that of NFSv4: lists of entries that allow, deny or audit, how a list is written,
// how it is inherited, and what it decides.
//
// It guarantees that every number, name and list has one canonical form, which
// Marshal writes, and that what Marshal wrote, Parse reads back unchanged. Unknown bits, names and
// members are refused by name. A decision follows from its arguments alone: Evaluate allocates nothing,
// Explain walks by the same code, and what no entry allows is denied. Where the published texts
// contradict each other, the page "Readings of CDMI" of docs/adr says which one is taken; a
// test for each erratum says it again.
//
// It does not know who anybody is, where lists are kept, or which permissions an
// operation needs beyond those that the standard names; it does not hide anything from
// who must not see it, writes no audit record and no event, and looks up no group. It says
// that something has to be recorded; the caller records it. Nothing here is in
// force by itself: a rule holds where somebody asks for it.
//
// It does no I/O, reads no clock, starts no goroutine and logs nothing. A list never changes once it is
// made; every function may be called concurrently. Failures are *problem.Error of
// code problem.Malformed, UnknownField or TooLarge, and the other results are then zero.
package acl

import (
	"iter"
	"slices"

	"github.com/consign-transfer/consign/token/problem"
)

// Limits, checked before anything is kept. Bytes unless the name says otherwise.
const (
	MaxEntries        = 1000 // entries of one list
	MaxSize           = 512 << 10
	MaxWhoSize        = 600 // more than the longest identity
	MaxExpressionSize = 1024
)

// A Type says what an entry does. Its values are those of NFSv4; ALARM, which CDMI has not, is refused.
type Type uint32

const (
	Allow Type = 0x0 // grants the permissions of its mask
	Deny  Type = 0x1 // ends the walk, and denies, if its mask has any permission that is asked for
	Audit Type = 0x2 // grants and denies nothing: an attempt at a permission of its mask is to be recorded
)

// Flags say where an entry is in force, what its identifier names, and where it came from.
type Flags uint32

const (
	ObjectInherit    Flags = 0x01 // objects below inherit it
	ContainerInherit Flags = 0x02 // containers below inherit it
	NoPropagate      Flags = 0x04 // only direct children inherit it
	InheritOnly      Flags = 0x08 // not in force where it stands
	IdentifierGroup  Flags = 0x40 // the identifier names a group
	Inherited        Flags = 0x80 // shown here, but it stands in a container above
)

const (
	allFlags     = ObjectInherit | ContainerInherit | NoPropagate | InheritOnly | IdentifierGroup | Inherited
	inheritFlags = ObjectInherit | ContainerInherit | NoPropagate | InheritOnly
)

// An ACE is one entry of a list.
type ACE struct {
	Type  Type
	Who   Who
	Flags Flags
	Mask  Mask // may be empty; then the entry has no effect
}

// Check reports which part of e has a meaning that does not exist: problem.Malformed,
// problem.TooLarge, or nil.
func (e ACE) Check() error {
	if e.Type > Audit {
		return problem.New(problem.Malformed, "The type of an entry is %s, not ALLOW, DENY or AUDIT.", hex(uint32(e.Type), 2))
	}
	if err := e.Who.Check(); err != nil {
		return err
	}
	if unknown := e.Flags &^ allFlags; unknown != 0 {
		return flagWords.refuseBits(uint32(unknown))
	}
	if unknown := e.Mask &^ AllPerms; unknown != 0 {
		return maskWords.refuseBits(uint32(unknown))
	}
	return nil
}

// An ACL is an ordered list of entries. It is immutable; its zero value is the
// empty list, which allows nothing.
type ACL struct {
	entries []ACE
}

// New returns the list of entries in their order. It fails as ACE.Check does, and
// with problem.TooLarge if there are more than MaxEntries.
func New(entries ...ACE) (ACL, error) {
	if len(entries) > MaxEntries {
		return ACL{}, tooMany()
	}
	for _, e := range entries {
		if err := e.Check(); err != nil {
			return ACL{}, err
		}
	}
	if len(entries) == 0 {
		return ACL{}, nil
	}
	return ACL{slices.Clone(entries)}, nil
}

// Len returns the number of entries.
func (a ACL) Len() int { return len(a.entries) }

// All returns the entries with their positions, from 0, in their order.
func (a ACL) All() iter.Seq2[int, ACE] { return slices.All(a.entries) }

// Equal reports whether a and b have the same entries in the same order.
func (a ACL) Equal(b ACL) bool { return slices.Equal(a.entries, b.entries) }

// Own returns a without the entries that are marked as inherited. Who writes a
// list back as it was shown writes those too; they stand in a container above and
// are not to be kept a second time, where they would outlive a change up there.
func (a ACL) Own() ACL {
	own := slices.DeleteFunc(slices.Clone(a.entries), func(e ACE) bool { return e.Flags&Inherited != 0 })
	if len(own) == 0 {
		return ACL{}
	}
	return ACL{own}
}

// RootDefault is the list of a root container that was made without one: its owner
// may do all, every authenticated user may read, and all below inherits both.
func RootDefault() ACL {
	const down = ObjectInherit | ContainerInherit
	return ACL{[]ACE{{Allow, Owner, down, AllPerms}, {Allow, Authenticated, down, Read}}}
}

// Default is the list of what was made without one where nothing is inherited: its owner may do all.
func Default() ACL {
	return ACL{[]ACE{{Allow, Owner, ObjectInherit | ContainerInherit, AllPerms}}}
}

func tooMany() error {
	return problem.New(problem.TooLarge, "The access control list has more than %d entries.", MaxEntries)
}
