package cdmi

import (
	"net/url"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Names that stand directly below the root and mean something of their own.
const (
	byID         = "cdmi_objectid"
	capabilities = "cdmi_capabilities"
	reserved     = "cdmi_" // names that begin so are the standard's
)

// A realm is the part of the tree that a path leads into.
type realm int

const (
	places realm = iota // the root, providers, and what their containers hold
	ids                 // an object id, and what is below it
	claims              // objects that say what is offered
)

// An address is what the path of a request names. Names are as they are, not percent-encoded.
type address struct {
	in    realm
	id    space.ObjectID // of ids
	names []string       // behind the root, the id or cdmi_capabilities
	slash bool           // it ended in "/", which means a container
}

// parseAddress reads a path below Prefix as it came over the wire. A name that does not decode, is empty, or has
// a "/" within fails with problem.BadName.
func parseAddress(escaped string) (address, error) {
	rest, ok := strings.CutPrefix(escaped, strings.TrimSuffix(Prefix, "/"))
	if !ok || rest != "" && rest[0] != '/' {
		return address{}, problem.New(problem.NotFound, "There is no such path")
	}
	a := address{slash: strings.HasSuffix(rest, "/")}
	rest = strings.TrimSuffix(strings.TrimPrefix(rest, "/"), "/")
	if rest == "" {
		if escaped == Prefix+"/" {
			return address{}, emptyName()
		}
		return a, nil
	}
	for part := range strings.SplitSeq(rest, "/") {
		name, err := url.PathUnescape(part)
		switch {
		case err != nil:
			return address{}, problem.Wrap(err, problem.BadName, "The name %s in the path is not percent-encoded as it must be", problem.Quote(part))
		case name == "":
			return address{}, emptyName()
		case strings.Contains(name, "/"):
			return address{}, problem.New(problem.BadName, "The name %s in the path has a '/' within", problem.Quote(name))
		case name == "." || name == "..":
			return address{}, problem.New(problem.BadName, "The path has the name %q", name)
		}
		a.names = append(a.names, name)
	}
	return a.sort()
}

func emptyName() error {
	return problem.New(problem.BadName, "The path has an empty name")
}

// sort tells the realms apart.
func (a address) sort() (address, error) {
	switch a.names[0] {
	case capabilities:
		a.in, a.names = claims, a.names[1:]
	case byID:
		if len(a.names) == 1 {
			return address{}, problem.New(problem.NotOffered, "Nothing is made or listed at %s; an object id follows it", byID)
		}
		id, err := space.ParseObjectID(a.names[1])
		if err != nil {
			return address{}, err
		}
		a.in, a.id, a.names = ids, id, a.names[2:]
		if len(a.names) > 0 { // before anybody looks what has the id: it is no secret what names there can be
			if err := token.CheckName(token.ObjectName(strings.Join(a.names, "/"))); err != nil {
				return address{}, err
			}
		}
	}
	return a, nil
}

// location is the place of a provider that a names; there are two names at least.
func (a address) location() (token.Location, error) {
	l := token.Location{Provider: token.Provider(a.names[0]), Container: token.Container(a.names[1]), Name: token.ObjectName(strings.Join(a.names[2:], "/"))}
	if err := l.Check(); err != nil {
		return token.Location{}, err
	}
	return l, nil
}

// beyond is the place of names below another one.
func beyond(at token.Location, names []string) token.Location {
	if len(names) == 0 {
		return at
	}
	path := slices.Clone(names)
	if at.Name != "" {
		path = slices.Insert(path, 0, string(at.Name))
	}
	at.Name = token.ObjectName(strings.Join(path, "/"))
	return at
}

// checkOwn refuses names that are the standard's, for what somebody wants to make or remove.
func checkOwn(names []string) error {
	for _, name := range names {
		if strings.HasPrefix(name, reserved) {
			return problem.New(problem.BadName, "The name %s begins with %s, which is reserved", problem.Quote(name), reserved)
		}
	}
	return nil
}

// uri is the path of names below the root, as bodies have it: not percent-encoded.
func uri(names ...string) string {
	if len(names) == 0 {
		return Prefix
	}
	return Prefix + strings.Join(names, "/") + "/"
}

// pathOf returns the names of a place below the root.
func pathOf(at token.Location) []string {
	names := []string{string(at.Provider), string(at.Container)}
	if at.Name != "" {
		names = append(names, strings.Split(string(at.Name), "/")...)
	}
	return names
}
