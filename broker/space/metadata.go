package space

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/consign-transfer/consign/token/problem"
)

// An Item is the name of one piece of metadata.
type Item string

// A Value is what an item has: JSON without spaces.
type Value string

// Metadata are the items of an object or container. Who gets one must not change it.
type Metadata map[Item]Value

// ParseMetadata reads the JSON object that CDMI has in the field metadata. A name is
// UTF-8 in NFC, 1 to MaxItemNameSize bytes without control characters; no name is there twice, in the values
// neither. It fails with problem.Malformed or problem.TooLarge, and does not judge the values.
func ParseMetadata(b []byte) (Metadata, error) {
	switch {
	case len(b) > MaxMetadataSize:
		return nil, problem.New(problem.TooLarge, "The metadata are larger than %d bytes.", MaxMetadataSize)
	case !utf8.Valid(b) || !json.Valid(b):
		return nil, problem.New(problem.Malformed, "The metadata are not JSON.")
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, problem.New(problem.Malformed, "The metadata are not an object.")
	}
	m := Metadata{}
	for dec.More() {
		tok, err := dec.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return nil, problem.New(problem.Malformed, "The metadata are not an object.")
		}
		if err := Item(name).Check(); err != nil {
			return nil, err
		}
		if _, twice := m[Item(name)]; twice {
			return nil, problem.New(problem.Malformed, "The metadata have the item %s twice.", problem.Quote(name))
		}
		if len(m) == MaxItems {
			return nil, problem.New(problem.TooLarge, "The metadata have more than %d items.", MaxItems)
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "The item %s has no value.", problem.Quote(name))
		}
		if m[Item(name)], err = compact(Item(name), raw); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Marshal returns m as a JSON object without spaces, items in the order of their bytes. ParseMetadata reads it back.
func (m Metadata) Marshal() []byte {
	b := []byte{'{'}
	for i, item := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, stringValue(string(item))...), ':')
		b = append(b, m[item]...)
	}
	return append(b, '}')
}

// Check reports why i cannot be the name of an item: problem.Malformed or nil.
func (i Item) Check() error {
	switch {
	case i == "":
		return problem.New(problem.Malformed, "An item of the metadata has no name.")
	case len(i) > MaxItemNameSize:
		return problem.New(problem.Malformed, "The name %s of an item is longer than %d bytes.", problem.Quote(string(i)), MaxItemNameSize)
	case !plain(string(i)):
		return problem.New(problem.Malformed, "The name %s of an item is not UTF-8 in normal form C without control characters.", problem.Quote(string(i)))
	}
	return nil
}

// compact returns the JSON in raw without spaces. It refuses names that are there twice,
// and what is nested deeper than MaxDepth.
func compact(item Item, raw []byte) (Value, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	var open []map[string]bool // an object's names so far; nil for an array
	name := false              // a name comes next
	for {
		tok, err := dec.Token()
		if err != nil {
			return "", problem.Wrap(err, problem.Malformed, "The value of the item %s is not JSON.", problem.Quote(string(item)))
		}
		top := len(open) - 1
		switch delim, _ := tok.(json.Delim); {
		case delim == '{' || delim == '[':
			if len(open) == MaxDepth {
				return "", problem.New(problem.Malformed, "The value of the item %s is nested deeper than %d.", problem.Quote(string(item)), MaxDepth)
			}
			if delim == '{' {
				open = append(open, map[string]bool{})
			} else {
				open = append(open, nil)
			}
			name = delim == '{'
			continue
		case delim != 0:
			open = open[:top]
			top--
		case name:
			key, _ := tok.(string)
			if open[top][key] {
				return "", problem.New(problem.Malformed, "The value of the item %s has the member %s twice.", problem.Quote(string(item)), problem.Quote(key))
			}
			open[top][key] = true
			name = false
			continue
		}
		if top < 0 {
			break
		}
		name = open[top] != nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", problem.Wrap(err, problem.Malformed, "The value of the item %s is not JSON.", problem.Quote(string(item)))
	}
	return Value(b.String()), nil
}

// A Class says what an item is and who may write it.
type Class uint8

const (
	User     Class = iota // the subscriber's own
	Access                // cdmi_acl and cdmi_owner: they have rules of their own, see broker/acl
	Storage               // storage system metadata: written by the system alone
	Data                  // data system metadata: what the subscriber wishes
	Provided              // what of a wish is true: written by the system alone
	Unknown               // begins with cdmi_ and is none of the standard's
)

// The items that are guarded by rules of their own.
const (
	ItemACL   Item = "cdmi_acl"
	ItemOwner Item = "cdmi_owner"
)

const (
	reserved = "cdmi_"
	provided = "_provided"
)

// storageItems are the storage system metadata that nobody may write.
var storageItems = []Item{"cdmi_size", "cdmi_ctime", "cdmi_atime", "cdmi_mtime", "cdmi_acount", "cdmi_mcount", "cdmi_hash"}

// misnamed are names of capabilities that the standard itself takes for those of items.
var misnamed = map[Item]string{
	"cdmi_data_holds":      "cdmi_hold_id",
	"cdmi_data_autodelete": "cdmi_retention_autodelete",
	"cdmi_data_retention":  "cdmi_retention_id and cdmi_retention_period",
}

// misprinted are names that an example of the standard has for another one, of things that are not kept here.
var misprinted = map[Item]string{"cdmi_privileges": "cdmi_member_privileges, of members of domains, which there are none of here"}

// Class returns what i is.
func (i Item) Class() Class {
	switch {
	case !strings.HasPrefix(string(i), reserved):
		return User
	case i == ItemACL || i == ItemOwner:
		return Access
	case slices.Contains(storageItems, i):
		return Storage
	case ruleOf(i) != nil:
		return Data
	}
	if wish, ok := strings.CutSuffix(string(i), provided); ok {
		if r := ruleOf(Item(wish)); r != nil && r.provided {
			return Provided
		}
	}
	return Unknown
}

// Parts are metadata that a subscriber sent, by who may write them.
type Parts struct {
	User   Metadata
	Data   Metadata
	Access Metadata
	// Ignored are items that the system alone writes. The standard wants no
	// refusal of them, so that who sends back what it was shown is not refused.
	Ignored []Item
}

// Split sorts m. It fails with problem.UnknownField if a name is reserved for the standard and
// is none of its names, naming the item that is meant where that is known.
func (m Metadata) Split() (Parts, error) {
	p := Parts{User: Metadata{}, Data: Metadata{}, Access: Metadata{}}
	for _, item := range slices.Sorted(maps.Keys(m)) {
		switch item.Class() {
		case User:
			p.User[item] = m[item]
		case Data:
			p.Data[item] = m[item]
		case Access:
			p.Access[item] = m[item]
		case Storage, Provided:
			p.Ignored = append(p.Ignored, item)
		default:
			if meant, ok := misnamed[item]; ok {
				return Parts{}, problem.New(problem.UnknownField, "The item %s is the name of a capability: write %s.", problem.Quote(string(item)), meant)
			}
			if meant, ok := misprinted[item]; ok {
				return Parts{}, problem.New(problem.UnknownField, "The item %s is a misprint of %s.", problem.Quote(string(item)), meant)
			}
			return Parts{}, problem.New(problem.UnknownField, "The item %s begins with cdmi_ and is none of CDMI's.", problem.Quote(string(item)))
		}
	}
	return p, nil
}

// UserLimits bound user metadata. They are what the capabilities of these names say; 0
// is no limit beyond those of ParseMetadata.
type UserLimits struct {
	Items     int // cdmi_metadata_maxitems: items
	ItemSize  int // cdmi_metadata_maxsize: bytes of one item, its name and its value as JSON without spaces
	TotalSize int // cdmi_metadata_maxtotalsize: bytes of all items together
}

// CheckUser reports why user cannot be user metadata: problem.Malformed if a name begins with cdmi_ or a value is
// no string, array or object, problem.TooLarge if it is beyond l, or nil.
func CheckUser(user Metadata, l UserLimits) error {
	if l.Items > 0 && len(user) > l.Items {
		return problem.New(problem.TooLarge, "There are %d items of user metadata; cdmi_metadata_maxitems is %d.", len(user), l.Items)
	}
	total := 0
	for _, item := range slices.Sorted(maps.Keys(user)) {
		v := user[item]
		if strings.HasPrefix(string(item), reserved) {
			return problem.New(problem.Malformed, "The item %s of user metadata begins with cdmi_, which is reserved.", problem.Quote(string(item)))
		}
		if v == "" || !strings.ContainsRune(`"[{`, rune(v[0])) {
			return problem.New(problem.Malformed, "The item %s of user metadata is not a string, array or object; numbers and true stand between quotes.", problem.Quote(string(item)))
		}
		size := len(item) + len(v)
		if l.ItemSize > 0 && size > l.ItemSize {
			return problem.New(problem.TooLarge, "The item %s of user metadata has %d bytes; cdmi_metadata_maxsize is %d.", problem.Quote(string(item)), size, l.ItemSize)
		}
		total += size
	}
	if l.TotalSize > 0 && total > l.TotalSize {
		return problem.New(problem.TooLarge, "User metadata have %d bytes together; cdmi_metadata_maxtotalsize is %d.", total, l.TotalSize)
	}
	return nil
}
