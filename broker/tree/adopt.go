package tree

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Found is an object or container that stands in a store, as a listing tells of it.
type Found struct {
	Name     token.ObjectName
	Kind     acl.Kind
	Size     int64 // of an object, as are all below
	Version  token.Version
	Native   string
	Modified time.Time // zero: not known
}

// An Adoption is what the rows get that are made for what is found.
type Adoption struct {
	Owner token.Identity
	User  space.Metadata
}

// Adopt writes the rows of what was found in a root container, and returns how many it made and how many that were there it changed. A
// row that is there keeps identifier, owner, list and metadata; one without an owner of its own gets one. Of an object whose size or version is another than
// in its row, the earlier state becomes an old version, and what was known of its content, digest and transfer, is that one's alone. Containers
// above that are not among what was found get rows without an owner. It asks for no right: the caller has.
func (t *Tree) Adopt(ctx context.Context, tx *db.Tx, as Adoption, root token.Location, found []Found, now time.Time) (made, changed int64, err error) {
	s := adopting{storing: storing{t: t, tx: tx, at: token.Location{Provider: root.Provider, Container: root.Container}, now: now.UTC().Truncate(time.Microsecond),
		grown: map[token.ObjectName]growth{}}, owner: as.Owner}
	if len(as.User) > 0 {
		s.user = string(as.User.Marshal())
	}
	found = slices.Clone(found)
	slices.SortStableFunc(found, func(a, b Found) int { // containers first, each before what is in it
		return cmp.Or(cmp.Compare(b.Kind, a.Kind), cmp.Compare(a.Name, b.Name))
	})
	names := make([]token.ObjectName, 0, len(found))
	for _, f := range found {
		if f.Name == "" {
			return 0, 0, problem.New(problem.BadName, "A root container is not adopted, nor what has no name.")
		}
		names = append(names, f.Name)
	}
	if err := s.read(ctx, names); err != nil {
		return 0, 0, err
	}
	for i, f := range found {
		if i+1 < len(found) && found[i+1].Name == f.Name && found[i+1].Kind == f.Kind {
			continue // the last counts
		}
		if err := s.take(ctx, f); err != nil {
			return 0, 0, err
		}
	}
	return s.made, s.changed, s.finish(ctx)
}

// adopting is Adopt in one root container.
type adopting struct {
	storing
	owner         token.Identity
	user          string
	made, changed int64
}

// take makes or refreshes the row of one thing.
func (s *adopting) take(ctx context.Context, f Found) error {
	was, ok := s.rows[key{f.Name, f.Kind}]
	if ok {
		return s.refresh(ctx, was, f)
	}
	if err := s.above(f.Name); err != nil {
		return err
	}
	at := s.at
	at.Name = f.Name
	n, err := s.t.newNode(at, f.Kind, s.owner, s.now)
	if err != nil {
		return err
	}
	n.User, n.Adopted = s.user, s.now
	if !f.Modified.IsZero() {
		n.Modified = f.Modified
	}
	if f.Kind == acl.Object {
		n.Size, n.Version, n.Native = f.Size, f.Version, f.Native
		s.grow(f.Name, 1, f.Size)
	}
	s.rows[key{f.Name, f.Kind}] = n
	s.fresh = append(s.fresh, n)
	s.handOver(f.Name, s.owner)
	s.made++
	return nil
}

// refresh brings a row that is there up to date.
func (s *adopting) refresh(ctx context.Context, was db.Node, f Found) error {
	n := was
	if n.Owner == "" {
		n.Owner = acl.Who(s.owner)
		s.handOver(n.Name, s.owner)
	}
	if f.Kind == acl.Object {
		if err := s.renew(ctx, was, &n, f); err != nil {
			return err
		}
	}
	if n == was {
		return nil
	}
	n.Rev++
	n.Changes++
	s.changed++
	return s.tx.SaveNode(ctx, n)
}

// renew sets in n, which was the row of an object, what the store says of it now.
func (s *adopting) renew(ctx context.Context, was db.Node, n *db.Node, f Found) error {
	n.Size, n.Version = f.Size, f.Version
	switch {
	case was.Size == db.UnknownSize:
		s.grow(f.Name, 1, f.Size)
	case was.Size == f.Size && sameVersion(was.Version, f.Version):
		if n.Native == "" {
			n.Native = f.Native
		}
		return nil
	default:
		if err := s.tx.AddVersion(ctx, was, keptVersions); err != nil {
			return err
		}
		s.grow(f.Name, 0, f.Size-was.Size)
	}
	n.Digest, n.HashKind, n.Hash, n.Native = "", "", "", f.Native
	n.Xfr, n.Bat, n.Item, n.Adopted = "", 0, 0, s.now
	n.Modified = s.now
	if !f.Modified.IsZero() {
		n.Modified = f.Modified
	}
	return nil
}

// sameVersion reports whether two versions are of one state. A store may tell the version of what it has just published less precisely than it
// lists it later; the later one then is the earlier one, a hyphen and more.
func sameVersion(was, is token.Version) bool {
	return was == is || was != "" && strings.HasPrefix(string(is), string(was)+"-")
}
