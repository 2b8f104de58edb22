package tree

import (
	"context"
	"fmt"
	"strings"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Spot is a place with all that is in force there. It is what the transaction saw that it was read in; who gets one must not change it.
type Spot struct {
	At       token.Location
	Kind     acl.Kind
	Node     db.Node    // its row, if Known; else zero
	Known    bool       // there is a row
	Target   acl.Target // of the place, up to the root container
	Names    []string   // of the levels of Target, for acl.Explanation
	Settings space.Settings

	above []container // the containers above, nearest first
}

// A container is what is in force in a container, kept for what is below it.
type container struct {
	node     db.Node // zero without a row
	known    bool
	settings space.Settings
}

// Owner returns who owns s: its own owner, else that of the nearest container above that has one; empty if none has.
func (s Spot) Owner() acl.Who { return s.Target.Path[0].Owner }

// Up returns the container that holds s, and whether there is one. It asks nobody.
func (s Spot) Up() (Spot, bool) {
	target, ok := s.Target.Parent()
	if !ok {
		return Spot{}, false
	}
	up := s.above[0]
	return Spot{At: token.Location{Provider: s.At.Provider, Container: s.At.Container, Name: parent(s.At.Name)}, Kind: acl.Container, Node: up.node,
		Known: up.known, Target: target, Names: s.Names[1:], Settings: up.settings, above: s.above[1:]}, true
}

// OwnList returns the list that s has of its own, without what it inherits, and whether it was given one; else it is that of
// a root container, or the list of what inherits nothing.
func (s Spot) OwnList() (acl.ACL, bool) { return s.Target.Path[0].ACL, s.Node.ACL != "" }

// parent returns the name of the container that holds what has the name n, which is not empty.
func parent(n token.ObjectName) token.ObjectName {
	return n[:max(strings.LastIndexByte(string(n), '/'), 0)]
}

// lineage returns n and the names of the containers above it, nearest first; the last is the empty one.
func lineage(n token.ObjectName) []token.ObjectName {
	out := []token.ObjectName{n}
	for n != "" {
		n = parent(n)
		out = append(out, n)
	}
	return out
}

// Spot returns what is in force at a place. Without a name it is a container, whatever kind says.
func (t *Tree) Spot(ctx context.Context, tx *db.Tx, at token.Location, kind acl.Kind) (Spot, error) {
	rows, err := rowsOf(ctx, tx, at)
	if err != nil {
		return Spot{}, err
	}
	return t.spot(at, kind, rows)
}

// Find is Spot for who does not know the kind: that of the row, of the object's if there are two. Without a row it is an object.
func (t *Tree) Find(ctx context.Context, tx *db.Tx, at token.Location) (Spot, error) {
	rows, err := rowsOf(ctx, tx, at)
	if err != nil {
		return Spot{}, err
	}
	kind := acl.Object
	_, object := rows[key{at.Name, acl.Object}]
	if _, holds := rows[key{at.Name, acl.Container}]; holds && !object {
		kind = acl.Container
	}
	return t.spot(at, kind, rows)
}

// ByID returns the place of an identifier. It fails with problem.Hidden if there is none or p may not see it, without saying which.
func (t *Tree) ByID(ctx context.Context, tx *db.Tx, who token.Identity, id space.ObjectID) (Spot, acl.Principal, error) {
	hidden := problem.New(problem.Hidden, "There is nothing of the identifier %s that %s may see.", problem.Quote(string(id)), shown(acl.Who(who)))
	n, ok, err := tx.NodeByID(ctx, id)
	if err != nil {
		return Spot{}, acl.Principal{}, err
	}
	if !ok {
		return Spot{}, acl.Principal{}, hidden
	}
	s, err := t.Spot(ctx, tx, n.At(), n.Kind)
	if err != nil {
		return Spot{}, acl.Principal{}, err
	}
	p, err := t.Principal(ctx, tx, who, n.Provider)
	if err != nil {
		return Spot{}, acl.Principal{}, err
	}
	if !sees(p, s.Target) {
		return Spot{}, acl.Principal{}, hidden
	}
	return s, p, nil
}

// A key is what a row is found by in its root container.
type key struct {
	name token.ObjectName
	kind acl.Kind
}

// rowsOf returns the rows of a place, of either kind, and of the containers above it.
func rowsOf(ctx context.Context, tx *db.Tx, at token.Location) (map[key]db.Node, error) {
	ns, err := tx.Nodes(ctx, at.Provider, at.Container, lineage(at.Name))
	if err != nil {
		return nil, err
	}
	rows := make(map[key]db.Node, len(ns))
	for _, n := range ns {
		rows[key{n.Name, n.Kind}] = n
	}
	return rows, nil
}

// spot puts a place together from its rows and those above it.
func (t *Tree) spot(at token.Location, kind acl.Kind, rows map[key]db.Node) (Spot, error) {
	if at.Name == "" {
		kind = acl.Container
	}
	names := lineage(at.Name)
	s := Spot{At: at, Kind: kind, Target: acl.Target{Kind: kind, Path: make([]acl.Level, len(names))}, Names: make([]string, len(names)),
		above: make([]container, len(names)-1)}
	var owner acl.Who
	for i := len(names) - 1; i >= 0; i-- {
		at.Name = names[i]
		s.Names[i] = at.String()
		k := acl.Container
		if i == 0 {
			k = kind
		}
		n, known := rows[key{names[i], k}]
		var err error
		if s.Target.Path[i], err = t.level(n.Owner, n.ACL, owner, k, s.Target.Path[i+1:]); err != nil {
			return Spot{}, damaged(at, err)
		}
		owner = s.Target.Path[i].Owner
		own, err := t.settings(k, n.Data)
		if err != nil {
			return Spot{}, damaged(at, err)
		}
		if i < len(s.above) {
			own = space.Inherit(s.above[i].settings, own)
		}
		if i > 0 {
			s.above[i-1] = container{n, known, own}
		} else {
			s.Node, s.Known, s.Settings = n, known, own
		}
	}
	return s, nil
}

// level puts one level together: own is the owner in its row and list the list there, above the levels above and their owner. An empty above is that of
// a root container.
func (t *Tree) level(own acl.Who, list string, owner acl.Who, kind acl.Kind, above []acl.Level) (acl.Level, error) {
	l := acl.Level{Owner: own}
	if own == "" {
		l.Owner = owner
	}
	var err error
	switch {
	case list != "":
		l.ACL, err = t.list(list)
	case len(above) > 0:
		if !inherits(kind, above) {
			l.ACL = t.orphan
		}
	case l.Owner == "":
		l.ACL = t.unowned
	default:
		l.ACL = t.root
	}
	return l, err
}

// inherits reports whether anything at all is inherited by something of kind k below the levels above.
func inherits(k acl.Kind, above []acl.Level) bool {
	for i := range above {
		for _, e := range above[i].ACL.All() {
			far := i > 0 && e.Flags&acl.NoPropagate != 0
			if e.Flags&acl.Inherited != 0 || far {
				continue
			}
			wanted := acl.ObjectInherit
			if k == acl.Container {
				wanted = acl.ContainerInherit
				if e.Flags&acl.NoPropagate == 0 {
					wanted |= acl.ObjectInherit // handed on to its objects
				}
			}
			if e.Flags&wanted != 0 {
				return true
			}
		}
	}
	return false
}

// metadata reads metadata as a row has them.
func metadata(kept string) (space.Metadata, error) {
	if kept == "" {
		return space.Metadata{}, nil
	}
	return space.ParseMetadata([]byte(kept))
}

// damaged says that a row cannot be read that was good when it was written. The cause has a code of its own, which must not reach who asked.
func damaged(at token.Location, err error) error {
	return fmt.Errorf("reading the row of %s, which was good when it was written: %v", at, err) //nolint:errorlint // hidden, see above
}
