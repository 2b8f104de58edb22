package acl

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/consign-transfer/consign/token/problem"
)

// The members of an entry in JSON.
const (
	memberType  = "acetype"
	memberWho   = "identifier"
	memberFlags = "aceflags"
	memberMask  = "acemask"
)

// Parse reads a list as CDMI has it in the metadata item cdmi_acl: a JSON array
// of objects with exactly the members acetype, identifier, aceflags and acemask, each a
// string in a form that ParseType, ParseFlags or ParseMask reads. Entries that are marked
// Inherited are kept, see ACL.Own.
func Parse(b []byte) (ACL, error) {
	switch {
	case len(b) > MaxSize:
		return ACL{}, problem.New(problem.TooLarge, "The access control list is larger than %d bytes.", MaxSize)
	case !utf8.Valid(b) || !json.Valid(b):
		return ACL{}, problem.New(problem.Malformed, "The access control list is not JSON.")
	}
	// A token at a time, because encoding/json takes a member that is there twice, or
	// in other letters, for the member itself.
	dec := json.NewDecoder(bytes.NewReader(b))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('[') {
		return ACL{}, problem.New(problem.Malformed, "The access control list is not an array.")
	}
	var entries []ACE
	for dec.More() {
		if len(entries) == MaxEntries {
			return ACL{}, tooMany()
		}
		e, err := parseEntry(dec)
		if err != nil {
			return ACL{}, numbered(len(entries), err)
		}
		entries = append(entries, e)
	}
	return ACL{entries}, nil
}

func parseEntry(dec *json.Decoder) (ACE, error) {
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return ACE{}, problem.New(problem.Malformed, "The entry is not an object.")
	}
	members := make(map[string]string, 4)
	for dec.More() {
		name, value, err := parseMember(dec)
		if err != nil {
			return ACE{}, err
		}
		if _, twice := members[name]; twice {
			return ACE{}, problem.New(problem.Malformed, "The entry has the member %q twice.", name)
		}
		members[name] = value
	}
	if _, err := dec.Token(); err != nil && !errors.Is(err, io.EOF) {
		return ACE{}, problem.New(problem.Malformed, "The entry is not an object.")
	}
	for _, name := range []string{memberType, memberWho, memberFlags, memberMask} {
		if _, ok := members[name]; !ok {
			return ACE{}, problem.New(problem.Malformed, "The entry has no member %q.", name)
		}
	}
	return entry(members[memberType], members[memberWho], members[memberFlags], members[memberMask])
}

func parseMember(dec *json.Decoder) (name, value string, err error) {
	tok, err := dec.Token()
	name, ok := tok.(string)
	if err != nil || !ok {
		return "", "", problem.New(problem.Malformed, "The entry is not an object.")
	}
	switch name {
	case memberType, memberWho, memberFlags, memberMask:
	default:
		return "", "", problem.New(problem.UnknownField, "The entry has the unknown member %s.", problem.Quote(name))
	}
	tok, err = dec.Token()
	value, ok = tok.(string)
	if err != nil || !ok {
		return "", "", problem.New(problem.Malformed, "The member %q of the entry is not a string; numbers stand between quotes with a leading 0x.", name)
	}
	return name, value, nil
}

// entry puts an entry together from its four parts as text.
func entry(typ, who, flags, mask string) (ACE, error) {
	var e ACE
	var err error
	if e.Type, err = ParseType(typ); err != nil {
		return ACE{}, err
	}
	e.Who = Who(who)
	if err = e.Who.Check(); err != nil {
		return ACE{}, err
	}
	if e.Flags, err = ParseFlags(flags); err != nil {
		return ACE{}, err
	}
	if e.Mask, err = ParseMask(mask); err != nil {
		return ACE{}, err
	}
	return e, nil
}

// numbered says in which entry, from 0, err was found.
func numbered(i int, err error) error {
	return problem.Wrap(err, problem.Of(err), "Entry %d of the access control list: %s", i+1, problem.As(err).Sentence())
}

// Marshal returns a in its canonical form: JSON without spaces, members in the
// order of the standard, and hexadecimal numbers, which every version of CDMI reads.
func (a ACL) Marshal() []byte {
	return a.marshal(func(e ACE) [3]string { return [3]string{e.Type.Hex(), e.Flags.Hex(), e.Mask.Hex()} })
}

// MarshalNames is Marshal with names for numbers, those of masks for kind k. Parse reads it too.
func (a ACL) MarshalNames(k Kind) []byte {
	return a.marshal(func(e ACE) [3]string { return [3]string{e.Type.String(), e.Flags.String(), e.Mask.Text(k)} })
}

func (a ACL) marshal(form func(ACE) [3]string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	text := func(before, s string) {
		b.WriteString(before)
		if err := enc.Encode(s); err != nil {
			panic("acl: internal error: a string has no JSON: " + err.Error())
		}
		b.Truncate(b.Len() - 1) // the line's end
	}
	b.WriteByte('[')
	for i, e := range a.entries {
		if i > 0 {
			b.WriteByte(',')
		}
		parts := form(e)
		text(`{"acetype":`, parts[0])
		text(`,"identifier":`, string(e.Who))
		text(`,"aceflags":`, parts[1])
		text(`,"acemask":`, parts[2])
		b.WriteByte('}')
	}
	b.WriteByte(']')
	return b.Bytes()
}

// ParseText reads a list as people write it: a line an entry, of type, identifier,
// flags and mask between spaces. An identifier with a space is quoted as in Go. The mask is the rest of the line
// and may have spaces, the flags may not. Empty lines and those that begin with '#' are left out.
func ParseText(s string) (ACL, error) {
	if len(s) > MaxSize {
		return ACL{}, problem.New(problem.TooLarge, "The access control list is larger than %d bytes.", MaxSize)
	}
	var entries []ACE
	for line := range strings.Lines(s) {
		line = strings.Trim(line, " \t\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		if len(entries) == MaxEntries {
			return ACL{}, tooMany()
		}
		e, err := parseLine(line)
		if err != nil {
			return ACL{}, numbered(len(entries), err)
		}
		entries = append(entries, e)
	}
	return ACL{entries}, nil
}

func parseLine(line string) (ACE, error) {
	typ, rest := cutField(line)
	var who string
	if strings.HasPrefix(rest, `"`) {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return ACE{}, problem.New(problem.Malformed, "The identifier %s has no closing quote.", problem.Quote(rest))
		}
		if who, err = strconv.Unquote(quoted); err != nil {
			return ACE{}, problem.New(problem.Malformed, "The identifier %s is not quoted as in Go.", problem.Quote(rest))
		}
		rest = rest[len(quoted):]
		if rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			return ACE{}, problem.New(problem.Malformed, "The identifier %s is not followed by a space.", problem.Quote(quoted))
		}
		rest = strings.TrimLeft(rest, " \t")
	} else {
		who, rest = cutField(rest)
	}
	flags, mask := cutField(rest)
	if mask == "" {
		return ACE{}, problem.New(problem.Malformed, "The line is not of the form TYPE IDENTIFIER FLAGS MASK; without flags write NO_FLAGS.")
	}
	return entry(typ, who, flags, mask)
}

// cutField returns what stands before the first run of spaces, and what after it.
func cutField(s string) (field, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// Text returns a as people write it, a line an entry, with the names of masks for
// kind k. ParseText reads it back. The empty list is the empty text.
func (a ACL) Text(k Kind) string {
	var b strings.Builder
	for _, e := range a.entries {
		flags := strings.ReplaceAll(e.Flags.String(), ", ", ",")
		b.WriteString(e.Type.String() + " " + e.Who.shown() + " " + flags + " " + e.Mask.Text(k) + "\n")
	}
	return b.String()
}

// shown is w as it is, or quoted if it has a space, a quote or what cannot be printed.
func (w Who) shown() string {
	plain := func(r rune) bool { return r != '"' && r != ' ' && unicode.IsPrint(r) }
	if w == "" || strings.ContainsFunc(string(w), func(r rune) bool { return !plain(r) }) {
		return strconv.Quote(string(w))
	}
	return string(w)
}
