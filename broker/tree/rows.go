package tree

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// keptVersions is how many earlier states of an object are kept.
const keptVersions = 16

// A StoredObject is an object that a transfer has stored.
type StoredObject struct {
	At       token.Location
	Owner    token.Identity // the account that made it; empty: nobody that is known
	Size     int64
	Digest   token.Digest
	HashKind space.ValueHash // of Hash, if that was asked for
	Hash     string
	Version  token.Version
	Native   string
	User     space.Metadata // user metadata that came with it; it counts for a row that has none, and if space.CheckUser has nothing against it
	Modified time.Time      // zero: now
	Xfr      token.TransferID
	Bat      int64
	Item     int64
}

// Stored writes the rows of objects that were stored. An object that has no row gets one, and an identifier; one that has keeps
// identifier, owner, list and what metadata it has, and its earlier state becomes an old version. What is the same as before changes nothing. Of
// several objects of one name the last counts.
//
// Containers above that have no row get one without an owner: that something could be stored in a container is no proof of having made it, and who owns it
// may do all below it. Who knows that a container was made calls Make before.
func (t *Tree) Stored(ctx context.Context, tx *db.Tx, objects []StoredObject, now time.Time) error {
	type root struct {
		provider  token.Provider
		container token.Container
	}
	byRoot := map[root]map[token.ObjectName]StoredObject{}
	var roots []root
	for _, o := range objects {
		if o.At.Name == "" {
			return problem.New(problem.BadName, "An object without a name cannot be stored.")
		}
		r := root{o.At.Provider, o.At.Container}
		if byRoot[r] == nil {
			byRoot[r] = map[token.ObjectName]StoredObject{}
			roots = append(roots, r)
		}
		byRoot[r][o.At.Name] = o
	}
	for _, r := range roots {
		s := storing{t: t, tx: tx, at: token.Location{Provider: r.provider, Container: r.container}, now: now, grown: map[token.ObjectName]growth{}}
		if err := s.store(ctx, byRoot[r]); err != nil {
			return err
		}
	}
	return nil
}

// A growth is what comes to a container.
type growth struct{ objects, bytes int64 }

// storing is Stored in one root container.
type storing struct {
	t     *Tree
	tx    *db.Tx
	at    token.Location
	now   time.Time
	rows  map[key]db.Node
	fresh []db.Node
	grown map[token.ObjectName]growth
	owned bool // something that was there before belongs to somebody else now
}

func (s *storing) store(ctx context.Context, objects map[token.ObjectName]StoredObject) error {
	names := make([]token.ObjectName, 0, len(objects))
	for n := range objects {
		names = append(names, n)
	}
	slices.Sort(names)
	if err := s.read(ctx, names); err != nil {
		return err
	}
	for _, name := range names {
		var err error
		o := objects[name]
		if was, ok := s.rows[key{name, acl.Object}]; ok {
			err = s.replace(ctx, was, o)
		} else {
			err = s.add(o)
		}
		if err != nil {
			return err
		}
	}
	return s.finish(ctx)
}

// finish writes what was planned.
func (s *storing) finish(ctx context.Context) error {
	if err := s.tx.AddNodes(ctx, s.fresh); err != nil {
		return err
	}
	for _, name := range sortedNames(s.grown) {
		at := s.at
		at.Name = name
		if g := s.grown[name]; g != (growth{}) {
			if err := s.tx.Grow(ctx, at, g.objects, g.bytes); err != nil {
				return err
			}
		}
	}
	if !s.owned {
		return nil
	}
	return s.tx.BumpACLGen(ctx, s.at.Provider)
}

func sortedNames(m map[token.ObjectName]growth) []token.ObjectName {
	out := make([]token.ObjectName, 0, len(m))
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// read reads the rows of names and of the containers above them. It fails with problem.BadName for one that could have two spellings: a row
// would be found by one of them alone.
func (s *storing) read(ctx context.Context, names []token.ObjectName) error {
	if err := s.at.Check(); err != nil {
		return err
	}
	for _, n := range names {
		if n == "" {
			continue
		}
		if err := token.CheckName(n); err != nil {
			return err
		}
	}
	asked := make(map[token.ObjectName]bool, 2*len(names))
	all := make([]token.ObjectName, 0, 2*len(names))
	for _, n := range names {
		for !asked[n] {
			asked[n] = true
			all = append(all, n)
			if n != "" {
				n = parent(n)
			}
		}
	}
	ns, err := s.tx.Nodes(ctx, s.at.Provider, s.at.Container, all)
	s.rows = make(map[key]db.Node, len(ns))
	for _, n := range ns {
		s.rows[key{n.Name, n.Kind}] = n
	}
	return err
}

// add plans the row of an object that has none.
func (s *storing) add(o StoredObject) error {
	if err := s.above(o.At.Name); err != nil {
		return err
	}
	n, err := s.t.newNode(o.At, acl.Object, o.Owner, s.now)
	if err != nil {
		return err
	}
	o.describe(&n)
	if !o.Modified.IsZero() {
		n.Modified = o.Modified
	}
	s.carry(&n, o.User)
	s.fresh = append(s.fresh, n)
	s.grow(n.Name, 1, o.Size)
	return nil
}

// replace changes the row of an object that has one.
func (s *storing) replace(ctx context.Context, was db.Node, o StoredObject) error {
	n := was
	o.describe(&n)
	s.carry(&n, o.User)
	if n.Owner == "" {
		n.Owner = acl.Who(o.Owner)
		s.handOver(n.Name, o.Owner)
	}
	if n.User == "" && len(o.User) > 0 {
		n.User = string(o.User.Marshal())
	}
	if n == was {
		return nil
	}
	if !sameValue(was, n) {
		n.Modified = s.now
		if !o.Modified.IsZero() {
			n.Modified = o.Modified
		}
		if was.Size != db.UnknownSize {
			if err := s.tx.AddVersion(ctx, was, keptVersions); err != nil {
				return err
			}
		}
	}
	n.Rev++
	n.Changes++
	if err := s.tx.SaveNode(ctx, n); err != nil {
		return err
	}
	if was.Size == db.UnknownSize {
		s.grow(n.Name, 1, n.Size)
	} else {
		s.grow(n.Name, 0, n.Size-was.Size)
	}
	return nil
}

// carry sets in n the user metadata that came with an object, if it has none and they may be.
func (s *storing) carry(n *db.Node, user space.Metadata) {
	if n.User == "" && space.CheckUser(user, s.t.conf.Limits) == nil {
		n.User = kept(user)
	}
}

// describe sets in n what o says of the value.
func (o StoredObject) describe(n *db.Node) {
	n.Size, n.Digest, n.HashKind, n.Hash, n.Version, n.Native = o.Size, o.Digest, o.HashKind, o.Hash, o.Version, o.Native
	n.Xfr, n.Bat, n.Item, n.Adopted = o.Xfr, o.Bat, o.Item, time.Time{}
}

// sameValue reports whether two rows speak of one state of an object.
func sameValue(a, b db.Node) bool {
	return a.Size == b.Size && a.Digest == b.Digest && a.Version == b.Version && a.Xfr == b.Xfr && a.Bat == b.Bat && a.Item == b.Item
}

// handOver notes that something without an owner of its own, which was there before, gets owner. Nothing that was decided changes by that if it had been that
// owner's already, from above; nor if nobody owned it and no list says anything above: then nothing denies an owner what others are granted.
func (s *storing) handOver(name token.ObjectName, owner token.Identity) {
	was, listed := acl.Who(""), false
	for name != "" {
		name = parent(name)
		row := s.rows[key{name, acl.Container}]
		if was == "" {
			was = row.Owner
		}
		listed = listed || row.ACL != ""
	}
	s.owned = s.owned || owner != "" && was != acl.Who(owner) && (was != "" || listed)
}

// above plans rows for the containers above name that have none.
func (s *storing) above(name token.ObjectName) error {
	for name != "" {
		name = parent(name)
		if _, ok := s.rows[key{name, acl.Container}]; ok {
			return nil // and so have those above it
		}
		at := s.at
		at.Name = name
		n, err := s.t.newNode(at, acl.Container, "", s.now)
		if err != nil {
			return err
		}
		s.rows[key{name, acl.Container}] = n
		s.fresh = append(s.fresh, n)
	}
	return nil
}

// grow notes what comes to the containers above name.
func (s *storing) grow(name token.ObjectName, objects, bytes int64) {
	for name != "" {
		name = parent(name)
		g := s.grown[name]
		s.grown[name] = growth{g.objects + objects, g.bytes + bytes}
	}
}

// newNode returns a row as it begins.
func (t *Tree) newNode(at token.Location, k acl.Kind, owner token.Identity, now time.Time) (db.Node, error) {
	opaque := make([]byte, 16)
	if _, err := rand.Read(opaque); err != nil {
		return db.Node{}, err
	}
	id, err := space.NewObjectID(t.conf.Enterprise, opaque)
	if err != nil {
		return db.Node{}, err
	}
	now = now.UTC().Truncate(time.Microsecond)
	n := db.Node{Provider: at.Provider, Container: at.Container, Name: at.Name, Kind: k, ID: id, Owner: acl.Who(owner), Created: now, Accessed: now, Modified: now, Rev: 1}
	if k == acl.Object {
		n.Size = db.UnknownSize
	}
	return n, nil
}

// Make returns the row of a place, and makes it, and those of the containers above, if there is none. owner is who is known to have made what is
// there; it counts for a new row alone, and is empty where nobody is known to: an owner may do all below. A row that is there stays as it is. Without
// a name it is a container.
func (t *Tree) Make(ctx context.Context, tx *db.Tx, owner token.Identity, at token.Location, kind acl.Kind, now time.Time) (db.Node, error) {
	if at.Name == "" {
		kind = acl.Container
	}
	s := storing{t: t, tx: tx, at: token.Location{Provider: at.Provider, Container: at.Container}, now: now}
	if err := s.read(ctx, []token.ObjectName{at.Name}); err != nil {
		return db.Node{}, err
	}
	if n, ok := s.rows[key{at.Name, kind}]; ok {
		return n, nil
	}
	if err := s.above(at.Name); err != nil {
		return db.Node{}, err
	}
	n, err := t.newNode(at, kind, owner, now)
	if err != nil {
		return db.Node{}, err
	}
	return n, tx.AddNodes(ctx, append(s.fresh, n))
}

// Remove removes the row of what is gone from its store, and of a container those of all below it. It asks for no right and looks at no hold:
// what is gone is gone. It reports whether there was a row.
func (t *Tree) Remove(ctx context.Context, tx *db.Tx, at token.Location, kind acl.Kind) (bool, error) {
	rows, err := rowsOf(ctx, tx, at)
	if err != nil {
		return false, err
	}
	n, ok := rows[key{at.Name, kind}]
	if !ok {
		return false, nil
	}
	objects, bytes := int64(0), int64(0)
	if kind == acl.Container {
		objects, bytes = n.Objects, n.Size
		if err := tx.DropBelow(ctx, at); err != nil {
			return false, err
		}
	} else if n.Size != db.UnknownSize {
		objects, bytes = 1, n.Size
	}
	if err := errors.Join(tx.DropNode(ctx, at, kind), tx.EndKeeps(ctx, at, kind)); err != nil {
		return false, err
	}
	for _, name := range lineage(at.Name)[1:] {
		up := at
		up.Name = name
		if objects == 0 && bytes == 0 {
			break
		}
		if err := tx.Grow(ctx, up, -objects, -bytes); err != nil {
			return false, err
		}
	}
	return true, tx.BumpACLGen(ctx, at.Provider)
}

// OwnRoot lets a root container belong to owner if it belongs to nobody yet, and reports whether it does so from now on: what the provider's
// agent says of an export. It fails with problem.Malformed if owner is no identity of a subscriber.
func (t *Tree) OwnRoot(ctx context.Context, tx *db.Tx, root token.Location, owner token.Identity, now time.Time) (bool, error) {
	if err := checkOwner(acl.Who(owner)); err != nil {
		return false, err
	}
	root.Name = ""
	n, err := t.Make(ctx, tx, "", root, acl.Container, now)
	if err != nil || n.Owner != "" {
		return false, err
	}
	n.Owner, n.Modified = acl.Who(owner), now
	n.Rev++
	n.Changes++
	if err := tx.SaveNode(ctx, n); err != nil {
		return false, err
	}
	return true, tx.BumpACLGen(ctx, root.Provider)
}

// checkOwner reports why nothing can belong to w: problem.Malformed, or nil.
func checkOwner(w acl.Who) error {
	id, err := token.ParseIdentity(string(w))
	if err != nil {
		return problem.Wrap(err, problem.Malformed, "The owner %s is no identity, such as spiffe://north/subscriber/alice.", problem.Quote(string(w)))
	}
	if id.Role() != token.Subscriber {
		return problem.New(problem.Malformed, "The owner %s is not of the role %q.", id, token.Subscriber)
	}
	return nil
}
