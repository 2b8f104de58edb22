package token

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/consign-transfer/consign/token/problem"
	"github.com/google/uuid"
	"golang.org/x/text/unicode/norm"
)

// A Role is what an identity may do: the first path segment of its SPIFFE ID.
type Role string

const (
	Agent      Role = "agent"      // moves bytes for its provider
	Broker     Role = "broker"     // mints capabilities, keeps the ledger
	Subscriber Role = "subscriber" // orders transfers
)

const (
	scheme      = "spiffe://"
	maxNamePart = 255 // bytes of the last segment of an identity
)

// CheckName reports why n is not the name of an object: problem.BadName, or nil.
// A name is UTF-8 in NFC, 1 to MaxNameSize bytes, of segments joined by '/'; no
// segment is empty, "." or ".."; no control character and no backslash occurs.
func CheckName(n ObjectName) error {
	return checkPath("object name", string(n), MaxNameSize)
}

// CheckContainer reports why c is not the name of a container: problem.BadName,
// or nil. A container is one segment of an object name, 1 to MaxContainerSize bytes.
func CheckContainer(c Container) error {
	if strings.Contains(string(c), "/") {
		return problem.New(problem.BadName, "The container name %s contains '/'.", problem.Quote(string(c)))
	}
	return checkPath("container name", string(c), MaxContainerSize)
}

// CheckProvider reports why p is not the name of a provider: problem.BadName, or
// nil. A provider is 1 to MaxProviderSize lower-case letters, digits, '.', '-'
// and '_', and begins with a letter or digit.
func CheckProvider(p Provider) error {
	s := string(p)
	switch {
	case s == "":
		return problem.New(problem.BadName, "The provider name is empty.")
	case len(s) > MaxProviderSize:
		return problem.New(problem.BadName, "The provider name %s is longer than %d bytes.", problem.Quote(s), MaxProviderSize)
	case !only(s, isDomainByte):
		return problem.New(problem.BadName, "The provider name %s has a character that is not a lower-case letter, digit, '.', '-' or '_'.", problem.Quote(s))
	case strings.IndexByte(".-_", s[0]) >= 0:
		return problem.New(problem.BadName, "The provider name %s does not begin with a letter or digit.", problem.Quote(s))
	}
	return nil
}

// checkPath holds the grammar that object and container names share.
func checkPath(what, s string, limit int) error {
	switch {
	case s == "":
		return problem.New(problem.BadName, "The %s is empty.", what)
	case len(s) > limit:
		return problem.New(problem.BadName, "The %s %s is longer than %d bytes.", what, problem.Quote(s), limit)
	case !utf8.ValidString(s):
		return problem.New(problem.BadName, "The %s %s is not UTF-8.", what, problem.Quote(s))
	case strings.ContainsFunc(s, unicode.IsControl):
		return problem.New(problem.BadName, "The %s %s contains a control character.", what, problem.Quote(s))
	case strings.Contains(s, `\`):
		return problem.New(problem.BadName, "The %s %s contains a backslash.", what, problem.Quote(s))
	case !norm.NFC.IsNormalString(s):
		return problem.New(problem.BadName, "The %s %s is not in Unicode normal form C.", what, problem.Quote(s))
	}
	for seg := range strings.SplitSeq(s, "/") {
		switch seg {
		case "":
			return problem.New(problem.BadName, "The %s %s has an empty segment.", what, problem.Quote(s))
		case ".", "..":
			return problem.New(problem.BadName, "The %s %s has the segment %q.", what, problem.Quote(s), seg)
		}
	}
	return nil
}

func only(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func isDomainByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '.' || c == '-' || c == '_'
}

func isPathByte(c byte) bool { return isDomainByte(c) || 'A' <= c && c <= 'Z' }

// NewIdentity joins an identity from its parts and checks nothing: ParseIdentity
// tells whether the result is one.
func NewIdentity(p Provider, r Role, name string) Identity {
	return Identity(scheme + string(p) + "/" + string(r) + "/" + name)
}

// ParseIdentity returns s as an identity, or problem.Malformed. An identity has
// one spelling: spiffe://PROVIDER/ROLE/NAME with a provider as CheckProvider
// has it, a known role, and a name of 1 to 255 letters, digits, '.', '-' and '_'
// that is neither "." nor "..".
func ParseIdentity(s string) (Identity, error) {
	p, r, name, ok := Identity(s).split()
	switch {
	case !ok:
		return "", problem.New(problem.Malformed, "The identity %s is not of the form spiffe://PROVIDER/ROLE/NAME.", problem.Quote(s))
	case CheckProvider(p) != nil:
		return "", problem.Wrap(CheckProvider(p), problem.Malformed, "The identity %s does not name a provider.", problem.Quote(s))
	case r != Agent && r != Broker && r != Subscriber:
		return "", problem.New(problem.Malformed, "The identity %s has an unknown role.", problem.Quote(s))
	case name == "" || len(name) > maxNamePart || name == "." || name == ".." || !only(name, isPathByte):
		return "", problem.New(problem.Malformed, "The identity %s does not end in a name of letters, digits, '.', '-' and '_'.", problem.Quote(s))
	}
	return Identity(s), nil
}

func (i Identity) split() (p Provider, r Role, name string, ok bool) {
	rest, ok := strings.CutPrefix(string(i), scheme)
	if !ok {
		return "", "", "", false
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 {
		return "", "", "", false
	}
	return Provider(parts[0]), Role(parts[1]), parts[2], true
}

// Provider returns the provider (SPIFFE trust domain) of i, or "" if i is not of
// the form that ParseIdentity accepts.
func (i Identity) Provider() Provider {
	p, _, _ := i.valid()
	return p
}

// Role returns the role of i, or "" if i is not an identity.
func (i Identity) Role() Role {
	_, r, _ := i.valid()
	return r
}

// Name returns the last segment of i, or "" if i is not an identity.
func (i Identity) Name() string {
	_, _, n := i.valid()
	return n
}

// valid returns the three names of i, each "" if i is not an identity.
func (i Identity) valid() (Provider, Role, string) {
	if _, err := ParseIdentity(string(i)); err != nil {
		return "", "", ""
	}
	p, r, n, _ := i.split()
	return p, r, n
}

// checkRole reports why claim, which is i, is not an identity of role r.
func checkRole(claim string, i Identity, r Role) error {
	if _, err := ParseIdentity(string(i)); err != nil {
		return err
	}
	if i.Role() != r {
		return problem.New(problem.Malformed, "The claim %q is %s, which is not of the role %q.", claim, problem.Quote(string(i)), r)
	}
	return nil
}

// ParseLocation returns the location that an address provider:/container/name
// means. The name may be empty, which is the whole container; one '/' at the end
// is dropped. It fails with problem.BadAddress if the form is wrong and with
// problem.BadName if one of the three names is.
func ParseLocation(s string) (Location, error) {
	p, path, ok := strings.Cut(s, ":/")
	if !ok || strings.Contains(p, "/") {
		return Location{}, problem.New(problem.BadAddress, "The address %s is not of the form provider:/container/name.", problem.Quote(s))
	}
	c, name, _ := strings.Cut(path, "/")
	if c == "" {
		return Location{}, problem.New(problem.BadAddress, "The address %s names no container.", problem.Quote(s))
	}
	if name != "/" {
		name = strings.TrimSuffix(name, "/")
	}
	l := Location{Container: Container(c), Name: ObjectName(name), Provider: Provider(p)}
	if err := l.Check(); err != nil {
		return Location{}, err
	}
	return l, nil
}

// String returns the address of l, with "/" after the container even if the name
// is empty. ParseLocation reads it back. The zero Location is "".
func (l Location) String() string {
	if l == (Location{}) {
		return ""
	}
	return string(l.Provider) + ":/" + string(l.Container) + "/" + string(l.Name)
}

// Check reports which of the three names of l is wrong: problem.BadName, or nil.
// An empty Name is allowed.
func (l Location) Check() error {
	if err := CheckProvider(l.Provider); err != nil {
		return err
	}
	if err := CheckContainer(l.Container); err != nil {
		return err
	}
	if l.Name == "" {
		return nil
	}
	return CheckName(l.Name)
}

// ParseTransferID returns s as a transfer id, or problem.Malformed if it is not a
// UUIDv7 in its lower-case text form of 36 characters.
func ParseTransferID(s string) (TransferID, error) {
	u, err := uuid.Parse(s)
	if err != nil || u.String() != s || u.Version() != 7 || u.Variant() != uuid.RFC4122 {
		return "", problem.New(problem.Malformed, "The transfer id %s is not a UUIDv7 in lower case.", problem.Quote(s))
	}
	return TransferID(s), nil
}
