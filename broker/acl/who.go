package acl

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/consign-transfer/consign/token/problem"
	"golang.org/x/text/unicode/norm"
)

// A Who is the identifier of an entry: the name of a user or group, or one of the
// special identifiers, which end in '@'. An identifier that ends so and is none of
// them may be kept and shown, and refers to nobody. Names are compared byte by byte.
type Who string

const (
	Owner         Who = "OWNER@"         // who owns the object or container that is asked for
	OwningGroup   Who = "GROUP@"         // every member of its group, if it has one
	Everyone      Who = "EVERYONE@"      // all, anonymous or not
	Anonymous     Who = "ANONYMOUS@"     // who did not authenticate
	Authenticated Who = "AUTHENTICATED@" // who did
	Administrator Who = "ADMINISTRATOR@" // who has administrative status
	AdminUsers    Who = "ADMINUSERS@"    // the group of those; it refers to the same principals
)

// Check reports why w cannot be an identifier: problem.Malformed, problem.TooLarge,
// or nil. An identifier is UTF-8 in NFC, 1 to MaxWhoSize bytes, without control
// characters, and without U+FFFD, which is what a decoder leaves of what it could not read.
func (w Who) Check() error {
	s := string(w)
	switch {
	case s == "":
		return problem.New(problem.Malformed, "An entry has no identifier.")
	case len(s) > MaxWhoSize:
		return problem.New(problem.TooLarge, "The identifier %s is longer than %d bytes.", problem.Quote(s), MaxWhoSize)
	case !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError):
		return problem.New(problem.Malformed, "The identifier %s is not UTF-8.", problem.Quote(s))
	case strings.ContainsFunc(s, unicode.IsControl):
		return problem.New(problem.Malformed, "The identifier %s contains a control character.", problem.Quote(s))
	case !norm.NFC.IsNormalString(s):
		return problem.New(problem.Malformed, "The identifier %s is not in Unicode normal form C.", problem.Quote(s))
	}
	return nil
}

// Special reports whether w ends in '@', so that it is no name of a user or group.
func (w Who) Special() bool { return strings.HasSuffix(string(w), "@") }

// A Status is what a principal is beyond its name.
type Status uint8

const (
	Ordinary       Status = iota // nothing more
	Administrating               // has administrative status
)

// A Principal is who asks. The zero value did not authenticate. The caller must
// not change Groups while a decision is made.
type Principal struct {
	Name   Who    // as entries name it; empty if it did not authenticate
	Groups []Who  // that it is a member of
	Status Status // counts only with a name
}

func (p *Principal) administrates() bool { return p.Name != "" && p.Status == Administrating }

// owns reports whether p is the owner that l names. A name that is special is
// nobody's: else who could choose a name could be everybody.
func (p *Principal) owns(l *Level) bool {
	return p.Name != "" && p.Name == l.Owner && !p.Name.Special()
}

func (p *Principal) memberOf(group Who) bool {
	return p.Name != "" && group != "" && !group.Special() && slices.Contains(p.Groups, group)
}

// refersTo reports whether e refers to p, where at is what p wants access to.
// IDENTIFIER_GROUP says nothing about special identifiers, which say themselves what they are.
func (e *ACE) refersTo(p *Principal, at *Level) bool {
	if !e.Who.Special() {
		if e.Flags&IdentifierGroup != 0 {
			return p.memberOf(e.Who)
		}
		return p.Name == e.Who // an identifier is not empty, so nobody anonymous is meant
	}
	switch e.Who {
	case Everyone:
		return true
	case Anonymous:
		return p.Name == ""
	case Authenticated:
		return p.Name != ""
	case Owner:
		return p.owns(at)
	case OwningGroup:
		return p.memberOf(at.Group)
	case Administrator, AdminUsers:
		return p.administrates()
	}
	return false
}
