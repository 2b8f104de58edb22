package db

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
)

// UnknownSize is the size of an object that only its store knows.
const UnknownSize = -1

// A Node is the row of an object or container.
type Node struct {
	Provider  token.Provider
	Container token.Container
	Name      token.ObjectName // empty: the root container
	Kind      acl.Kind
	ID        space.ObjectID
	Owner     acl.Who // empty: that of the container above
	ACL       string  // its own list in canonical form; empty: none
	User      string  // user metadata as JSON; empty: none
	Data      string  // data system metadata as JSON; empty: none
	Size      int64   // bytes, or UnknownSize; of a container those of all objects with rows below it
	Objects   int64   // of a container: that are in Size
	Digest    token.Digest
	HashKind  space.ValueHash // of Hash
	Hash      string          // the value's hash in Base16; empty: none
	Version   token.Version
	Native    string // the store's own digest
	Created   time.Time
	Accessed  time.Time
	Modified  time.Time
	Accesses  int64
	Changes   int64
	Rev       int64 // grows with every change that is shown, but for accesses and what a container holds
	Xfr       token.TransferID
	Bat       int64
	Item      int64
	Adopted   time.Time // when it was found in the store; zero: it was not
}

// At returns where n is.
func (n Node) At() token.Location {
	return token.Location{Provider: n.Provider, Container: n.Container, Name: n.Name}
}

const nodeColumns = `provider, container, name, kind, id, owner, acl, user_md, data_md, size, objects, digest, hash_kind, hash, version, native,
	created, accessed, modified, accesses, changes, rev, xfr, bat, item, adopted`

const nodeWidth = 26

func scanNode(scan func(...any) error) (Node, error) {
	var n Node
	var created, accessed, modified, adopted int64
	err := scan(&n.Provider, &n.Container, &n.Name, &n.Kind, &n.ID, &n.Owner, &n.ACL, &n.User, &n.Data, &n.Size, &n.Objects, &n.Digest, &n.HashKind,
		&n.Hash, &n.Version, &n.Native, &created, &accessed, &modified, &n.Accesses, &n.Changes, &n.Rev, &n.Xfr, &n.Bat, &n.Item, &adopted)
	n.Created, n.Accessed, n.Modified, n.Adopted = atMicro(created), atMicro(accessed), atMicro(modified), atMicro(adopted)
	return n, err
}

// args are the values of n in the order of nodeColumns.
func (n Node) args(into []any) []any {
	return append(into, string(n.Provider), string(n.Container), string(n.Name), int64(n.Kind), string(n.ID), string(n.Owner), n.ACL, n.User, n.Data, n.Size,
		n.Objects, string(n.Digest), string(n.HashKind), n.Hash, string(n.Version), n.Native, micro(n.Created), micro(n.Accessed), micro(n.Modified),
		n.Accesses, n.Changes, n.Rev, string(n.Xfr), n.Bat, n.Item, micro(n.Adopted))
}

// micro and atMicro are the stored form of a time of a node; 0 is the zero time.
func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func atMicro(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// namesAtOnce is how many names one query asks for.
const namesAtOnce = 1024

// A named is a query about names in a root container: before the names in brackets, and after them. args go before the names.
type named struct {
	doing, before, after string
	args                 []any
}

// eachNamed runs a query for all names, a thousand at once.
func (t *Tx) eachNamed(ctx context.Context, q named, names []token.ObjectName, scan func(*sql.Rows) error) error {
	for len(names) > 0 {
		part := names[:min(len(names), namesAtOnce)]
		names = names[len(part):]
		args := append(make([]any, 0, len(q.args)+len(part)), q.args...)
		for _, n := range part {
			args = append(args, string(n))
		}
		if err := t.each(ctx, q.doing, q.before+`(?`+strings.Repeat(`, ?`, len(part)-1)+`)`+q.after, args, scan); err != nil {
			return err
		}
	}
	return nil
}

// Nodes returns the rows that have one of names, of either kind, in no order.
func (t *Tx) Nodes(ctx context.Context, p token.Provider, c token.Container, names []token.ObjectName) ([]Node, error) {
	var out []Node
	q := named{"reading nodes", `SELECT ` + nodeColumns + ` FROM nodes WHERE provider = ? AND container = ? AND name IN `, ``, []any{string(p), string(c)}}
	err := t.eachNamed(ctx, q, names, func(r *sql.Rows) error {
		n, err := scanNode(r.Scan)
		out = append(out, n)
		return err
	})
	return out, err
}

// NodeByID returns the row of an identifier and whether there is one.
func (t *Tx) NodeByID(ctx context.Context, id space.ObjectID) (Node, bool, error) {
	var n Node
	found := false
	err := t.each(ctx, "reading a node", `SELECT `+nodeColumns+` FROM nodes WHERE id = ?`, []any{string(id)}, func(r *sql.Rows) (err error) {
		found = true
		n, err = scanNode(r.Scan)
		return err
	})
	return n, found, err
}

// below is the condition for what is below a place, and its arguments. What begins with "a/" is from "a/" up to, and without, "a0".
func below(l token.Location) (string, []any) {
	if l.Name == "" {
		return `provider = ? AND container = ? AND name > ''`, []any{string(l.Provider), string(l.Container)}
	}
	return `provider = ? AND container = ? AND name >= ? AND name < ?`, []any{string(l.Provider), string(l.Container), string(l.Name) + "/", string(l.Name) + "0"}
}

// NodesBelow returns up to limit rows below a place, by name and kind, from behind the row that after and afterKind
// name; from the first if after is empty.
func (t *Tx) NodesBelow(ctx context.Context, l token.Location, after token.ObjectName, afterKind acl.Kind, limit int) ([]Node, error) {
	where, args := below(l)
	if after != "" {
		where += ` AND name >= ? AND (name > ? OR kind > ?)`
		args = append(args, string(after), string(after), int64(afterKind))
	}
	var out []Node
	err := t.each(ctx, "reading nodes", `SELECT `+nodeColumns+` FROM nodes WHERE `+where+` ORDER BY name, kind LIMIT ?`, append(args, limit), func(r *sql.Rows) error {
		n, err := scanNode(r.Scan)
		out = append(out, n)
		return err
	})
	return out, err
}

// A Rule is what of a row decides about access.
type Rule struct {
	Name  token.ObjectName
	Kind  acl.Kind
	Owner acl.Who
	ACL   string
}

const ruleColumns = `SELECT name, kind, owner, acl FROM nodes WHERE provider = ? AND container = ? AND `

func scanRule(scan func(...any) error) (Rule, error) {
	var u Rule
	err := scan(&u.Name, &u.Kind, &u.Owner, &u.ACL)
	return u, err
}

// fewNames is up to how many names are looked up one by one.
const fewNames = 32

// Rules returns what decides about access of the rows of a kind that have one of names, in no order. A page of a listing has
// most of the rows between its first and its last name, and to read along is cheaper than to look up each; but below what is listed there
// may be far more rows than it has names. So twice as many rows as names are read along, and the names behind them are looked up.
func (t *Tx) Rules(ctx context.Context, p token.Provider, c token.Container, k acl.Kind, names []token.ObjectName) ([]Rule, error) {
	var out []Rule
	if len(names) > fewNames {
		names = slices.Sorted(slices.Values(names))
		var err error
		if out, names, err = t.rulesAlong(ctx, token.Location{Provider: p, Container: c}, k, names); err != nil {
			return nil, err
		}
	}
	q := named{"reading lists", ruleColumns + `kind = ? AND name IN `, ``, []any{string(p), string(c), int64(k)}}
	err := t.eachNamed(ctx, q, names, func(r *sql.Rows) error {
		u, err := scanRule(r.Scan)
		out = append(out, u)
		return err
	})
	return out, err
}

// rulesAlong is Rules for the first of sorted names, and returns those that it did not come to.
func (t *Tx) rulesAlong(ctx context.Context, root token.Location, k acl.Kind, names []token.ObjectName) (out []Rule, rest []token.ObjectName, err error) {
	limit, read := 2*len(names), 0
	var last token.ObjectName
	rest = names
	err = t.each(ctx, "reading lists", ruleColumns+`name >= ? AND name <= ? ORDER BY name, kind LIMIT ?`,
		[]any{string(root.Provider), string(root.Container), string(names[0]), string(names[len(names)-1]), limit}, func(r *sql.Rows) error {
			u, err := scanRule(r.Scan)
			read, last = read+1, u.Name
			for len(rest) > 0 && rest[0] < u.Name {
				rest = rest[1:]
			}
			if len(rest) > 0 && rest[0] == u.Name && u.Kind == k {
				out = append(out, u)
				rest = rest[1:]
			}
			return err
		})
	if read < limit {
		return out, nil, err // and there are no more
	}
	for len(rest) > 0 && rest[0] < last {
		rest = rest[1:]
	}
	return out, rest, err
}

// AddNodes writes new rows.
func (t *Tx) AddNodes(ctx context.Context, ns []Node) error {
	for len(ns) > 0 {
		part := ns[:min(len(ns), rowsAtOnce)]
		ns = ns[len(part):]
		args := make([]any, 0, nodeWidth*len(part))
		for _, n := range part {
			args = n.args(args)
		}
		if err := t.exec(ctx, "adding nodes", `INSERT INTO nodes (`+nodeColumns+`) VALUES `+values(len(part), nodeWidth), args...); err != nil {
			return err
		}
	}
	return nil
}

// SaveNode replaces all of a row that can change. What a container holds is changed by Grow alone, and accesses by Accessed.
func (t *Tx) SaveNode(ctx context.Context, n Node) error {
	size := `, size = ?`
	args := []any{string(n.Owner), n.ACL, n.User, n.Data, string(n.Digest), string(n.HashKind), n.Hash, string(n.Version), n.Native, micro(n.Modified), n.Changes, n.Rev,
		string(n.Xfr), n.Bat, n.Item, micro(n.Adopted)}
	if n.Kind == acl.Container {
		size = ``
	} else {
		args = append(args, n.Size)
	}
	return t.exec(ctx, "saving a node", `UPDATE nodes SET owner = ?, acl = ?, user_md = ?, data_md = ?, digest = ?, hash_kind = ?, hash = ?, version = ?, native = ?, modified = ?,
		changes = ?, rev = ?, xfr = ?, bat = ?, item = ?, adopted = ?`+size+` WHERE provider = ? AND container = ? AND name = ? AND kind = ?`,
		append(args, string(n.Provider), string(n.Container), string(n.Name), int64(n.Kind))...)
}

// Grow adds to what a container holds.
func (t *Tx) Grow(ctx context.Context, l token.Location, objects, bytes int64) error {
	return t.exec(ctx, "counting what a container holds", `UPDATE nodes SET objects = objects + ?, size = size + ? WHERE provider = ? AND container = ? AND name = ? AND kind = 1`,
		objects, bytes, string(l.Provider), string(l.Container), string(l.Name))
}

// Accessed counts an access to each of the rows of a kind that have one of names in the root container of a place.
func (t *Tx) Accessed(ctx context.Context, root token.Location, k acl.Kind, names []token.ObjectName, now time.Time) error {
	q := named{"counting accesses", `UPDATE nodes SET accesses = accesses + 1, accessed = CASE WHEN accessed < ? THEN ? ELSE accessed END
		WHERE provider = ? AND container = ? AND kind = ? AND name IN `, ` RETURNING kind`, []any{micro(now), micro(now), string(root.Provider), string(root.Container), int64(k)}}
	return t.eachNamed(ctx, q, names, func(*sql.Rows) error { return nil })
}

// HeldBelow returns how many objects with rows are below a place, and their bytes.
func (t *Tx) HeldBelow(ctx context.Context, l token.Location) (objects, bytes int64, err error) {
	where, args := below(l)
	_, err = t.one(ctx, "counting objects", `SELECT COUNT(*), COALESCE(SUM(size), 0) FROM nodes WHERE `+where+` AND kind = 0 AND size >= 0`, args, &objects, &bytes)
	return objects, bytes, err
}

// DropNode removes a row and its earlier states.
func (t *Tx) DropNode(ctx context.Context, l token.Location, k acl.Kind) error {
	return t.dropNodes(ctx, `provider = ? AND container = ? AND name = ? AND kind = ?`, []any{string(l.Provider), string(l.Container), string(l.Name), int64(k)})
}

// DropBelow removes all rows below a place and their earlier states.
func (t *Tx) DropBelow(ctx context.Context, l token.Location) error {
	where, args := below(l)
	return t.dropNodes(ctx, where, args)
}

func (t *Tx) dropNodes(ctx context.Context, where string, args []any) error {
	if err := t.exec(ctx, "forgetting versions", `DELETE FROM node_versions WHERE id IN (SELECT id FROM nodes WHERE `+where+`)`, args...); err != nil {
		return err
	}
	return t.exec(ctx, "removing nodes", `DELETE FROM nodes WHERE `+where, args...)
}

// AddVersion keeps the state that n has now as an earlier one, and the newest keep of them.
func (t *Tx) AddVersion(ctx context.Context, n Node, keep int) error {
	if err := t.exec(ctx, "keeping a version", `INSERT INTO node_versions (id, rev, size, digest, hash_kind, hash, version, native, modified, xfr, bat, item)
		VALUES `+values(1, 12), string(n.ID), n.Rev, n.Size, string(n.Digest), string(n.HashKind), n.Hash, string(n.Version), n.Native, micro(n.Modified),
		string(n.Xfr), n.Bat, n.Item); err != nil {
		return err
	}
	return t.exec(ctx, "forgetting versions", `DELETE FROM node_versions WHERE id = ? AND rev NOT IN (SELECT rev FROM node_versions WHERE id = ? ORDER BY rev DESC LIMIT ?)`,
		string(n.ID), string(n.ID), keep)
}

// Versions returns the earlier states of an object, the newest first. Only what is of a state is set in them.
func (t *Tx) Versions(ctx context.Context, id space.ObjectID) ([]Node, error) {
	var out []Node
	err := t.each(ctx, "reading versions", `SELECT id, rev, size, digest, hash_kind, hash, version, native, modified, xfr, bat, item FROM node_versions
		WHERE id = ? ORDER BY rev DESC`, []any{string(id)}, func(r *sql.Rows) error {
		var n Node
		var modified int64
		err := r.Scan(&n.ID, &n.Rev, &n.Size, &n.Digest, &n.HashKind, &n.Hash, &n.Version, &n.Native, &modified, &n.Xfr, &n.Bat, &n.Item)
		n.Modified = atMicro(modified)
		out = append(out, n)
		return err
	})
	return out, err
}
