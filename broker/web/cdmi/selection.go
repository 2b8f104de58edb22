package cdmi

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

// The fields of the objects that are served, by the names of the standard and in its order.
const (
	objectType       = "objectType"
	objectID         = "objectID"
	objectName       = "objectName"
	parentURI        = "parentURI"
	parentID         = "parentID"
	domainURI        = "domainURI"
	capabilitiesURI  = "capabilitiesURI"
	completionStatus = "completionStatus"
	percentComplete  = "percentComplete"
	mimetype         = "mimetype"
	metadataField    = "metadata"
	exportsField     = "exports"
	snapshotsField   = "snapshots"
	capabilityField  = "capabilities"
	childrenRange    = "childrenrange"
	childrenField    = "children"
)

// Fields by the type of object. Those that are optional in the standard and are never there may be asked for all the same.
var (
	containerFields = []string{objectType, objectID, objectName, parentURI, parentID, domainURI, capabilitiesURI, completionStatus, percentComplete,
		metadataField, exportsField, snapshotsField, childrenRange, childrenField}
	dataFields = []string{objectType, objectID, objectName, parentURI, parentID, domainURI, capabilitiesURI, completionStatus, percentComplete,
		mimetype, metadataField}
	capabilityFields = []string{objectType, objectID, objectName, parentURI, parentID, capabilityField, childrenRange, childrenField}
)

// valueFields tell of the value of a data object, which is not offered.
var valueFields = []string{"value", "valuerange", "valuetransferencoding"}

// Limits of a selection. Counts.
const (
	maxSelected = 256
	maxChildren = 1000   // of one answer
	maxChild    = 99_999 // the last child that can be asked for by its number
)

// A selection is what a request asks for behind "?". Its zero value asks for everything.
type selection struct {
	some     bool     // only what follows
	fields   []string // whole ones
	prefixes []string // of the metadata items that are asked for
	span     *span    // of children
}

// A span counts from 0 and has both its ends.
type span struct{ lo, hi int64 }

// parseSelection reads the query of a read: field;field, where metadata:PREFIX and children:LO-HI ask for a part of one.
// fields are those that there are.
func parseSelection(raw string, fields []string) (selection, error) {
	if raw == "" {
		return selection{}, nil
	}
	s := selection{some: true}
	seen := map[string]bool{}
	for part := range strings.SplitSeq(raw, ";") {
		if len(seen) == maxSelected {
			return selection{}, problem.New(problem.TooLarge, "The query asks for more than %d things", maxSelected)
		}
		name, arg, has, err := splitQuery(part)
		if err != nil {
			return selection{}, err
		}
		if seen[name+":"+arg] {
			return selection{}, problem.New(problem.Malformed, "The query asks for %s twice", problem.Quote(name))
		}
		seen[name+":"+arg] = true
		switch {
		case slices.Contains(valueFields, name):
			return selection{}, noValue()
		case !slices.Contains(fields, name):
			return selection{}, problem.New(problem.UnknownField, "There is no field %s to ask for", problem.Quote(name))
		case !has:
			s.fields = append(s.fields, name)
		case name == metadataField && arg != "":
			s.prefixes = append(s.prefixes, arg)
		case name == childrenField && s.span == nil:
			if s.span, err = parseSpan(arg); err != nil {
				return selection{}, err
			}
		default:
			return selection{}, problem.New(problem.Malformed, "The query asks for a part of the field %q in a way that does not exist", name)
		}
	}
	if s.span != nil && slices.Contains(s.fields, childrenField) {
		return selection{}, problem.New(problem.Malformed, "The query asks for all children and for a range of them")
	}
	return s, nil
}

// splitQuery splits name:arg. Each is percent-decoded by itself, so that either may have ':' or ';' within.
func splitQuery(part string) (name, arg string, has bool, err error) {
	name, arg, has = strings.Cut(part, ":")
	for _, s := range []*string{&name, &arg} {
		if *s, err = url.PathUnescape(*s); err != nil {
			return "", "", false, problem.Wrap(err, problem.Malformed, "The query is not percent-encoded as it must be")
		}
	}
	if name == "" {
		return "", "", false, problem.New(problem.Malformed, "The query has an empty name")
	}
	return name, arg, has, nil
}

// parseSpan reads lo-hi, both of them numbers in their shortest form.
func parseSpan(s string) (*span, error) {
	l, h, ok := strings.Cut(s, "-")
	lo, errLo := strconv.ParseInt(l, 10, 64)
	hi, errHi := strconv.ParseInt(h, 10, 64)
	switch {
	case !ok || errLo != nil || errHi != nil || lo < 0 || hi < lo || strconv.FormatInt(lo, 10) != l || strconv.FormatInt(hi, 10) != h:
		return nil, problem.New(problem.Malformed, "The range %s of children is not of the form 0-9", problem.Quote(s))
	case hi > maxChild:
		return nil, &problem.Error{
			Code: problem.TooLarge, Detail: "Children are counted up to " + strconv.Itoa(maxChild),
			Remedy: "List what is beyond with 'consign ls', which goes by names.",
		}
	}
	return &span{lo, hi}, nil
}

// wants reports whether a field is asked for, or a part of it.
func (s selection) wants(field string) bool {
	switch {
	case !s.some || slices.Contains(s.fields, field):
		return true
	case field == metadataField:
		return len(s.prefixes) > 0
	case field == childrenField:
		return s.span != nil
	}
	return false
}

// children is the range of children that an answer has at most.
func (s selection) children() span {
	if s.span == nil {
		return span{0, maxChildren - 1}
	}
	return span{s.span.lo, min(s.span.hi, s.span.lo+maxChildren-1)}
}

// parts are the parts of an object that what is asked for is guarded by.
func (s selection) parts(fields []string) []acl.Part {
	var out []acl.Part
	add := func(p acl.Part) {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	for _, f := range fields {
		switch {
		case !s.wants(f):
		case f == metadataField:
			if !s.listAlone() {
				add(acl.Metadata)
			}
			if s.asksFor(space.ItemACL) {
				add(acl.List)
			}
		case f == childrenField || f == childrenRange:
			add(acl.Children)
		default:
			add(acl.Attributes)
		}
	}
	return out
}

// listAlone reports whether of the metadata nothing but the access control list is asked for.
func (s selection) listAlone() bool {
	return s.some && !slices.Contains(s.fields, metadataField) && !slices.ContainsFunc(s.prefixes, func(p string) bool { return p != string(space.ItemACL) })
}

// asksFor reports whether an item of the metadata is asked for.
func (s selection) asksFor(item space.Item) bool {
	return !s.some || slices.Contains(s.fields, metadataField) ||
		slices.ContainsFunc(s.prefixes, func(p string) bool { return strings.HasPrefix(string(item), p) })
}

// parseNamed reads the query of an update: nothing or metadata alone, for all metadata, or metadata:NAME;metadata:NAME, for those
// items and no others; named is then not nil.
func parseNamed(raw string) (named []space.Item, err error) {
	if raw == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(raw, ";") {
		name, arg, has, err := splitQuery(part)
		if err != nil {
			return nil, err
		}
		switch {
		case slices.Contains(valueFields, name):
			return nil, noValue()
		case name != metadataField:
			return nil, problem.New(problem.NotOffered, "Of %s no part can be changed; metadata can", problem.Quote(name))
		case !has && raw == metadataField:
			return nil, nil
		case !has:
			return nil, problem.New(problem.Malformed, "The query names all metadata and more beside")
		case len(named) == maxSelected:
			return nil, problem.New(problem.TooLarge, "The query names more than %d items", maxSelected)
		case slices.Contains(named, space.Item(arg)):
			return nil, problem.New(problem.Malformed, "The query names the item %s twice", problem.Quote(arg))
		}
		if err := space.Item(arg).Check(); err != nil {
			return nil, err
		}
		named = append(named, space.Item(arg))
	}
	return named, nil
}

func noValue() error {
	return &problem.Error{
		Code: problem.NotOffered, Detail: "Values of data objects are neither read nor written here",
		Remedy: "Move objects with an order: see 'consign cp'.",
	}
}
