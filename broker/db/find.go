package db

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
)

// A Position is where a search stands: at a row of a provider.
type Position struct {
	Container token.Container
	Name      token.ObjectName
	Kind      acl.Kind
}

// A Search says which rows of a provider are looked at. All that is set must hold.
type Search struct {
	Provider  token.Provider
	Container token.Container  // empty: every one
	Below     token.ObjectName // what is below it; empty: everything
	Begins    token.ObjectName // names that begin so
	Digest    token.Digest
	User      bool   // rows that have user metadata
	Has       string // what User is only read for: a text that user metadata hold; in any letter case, so that it finds too many
}

// A Candidate is what a search reads of a row.
type Candidate struct {
	Position
	ID       space.ObjectID
	Owner    acl.Who
	Size     int64
	Digest   token.Digest
	Modified int64  // microseconds since 1970
	User     string // if it was asked for and holds Has; else empty
}

// errEnough ends a query of which nothing more is wanted.
var errEnough = errors.New("enough")

// Candidates calls fn for each row that a search looks at, in the order of container, name and kind, from behind a position on; from the first
// if that is nil. It looks at limit rows at most, and stops when fn returns false.
func (t *Tx) Candidates(ctx context.Context, s Search, after *Position, limit int, fn func(Candidate) (bool, error)) error {
	where, args := []string{`provider = ?`}, []any{string(s.Provider)}
	and := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	if s.Digest != "" {
		and(`digest = ? AND digest <> ''`, string(s.Digest))
	}
	if s.User {
		and(`user_md <> ''`)
	}
	if s.Container != "" {
		and(`container = ?`, string(s.Container))
	}
	if s.Below != "" { // '0' is what comes after '/'
		and(`name >= ? AND name < ?`, string(s.Below)+"/", string(s.Below)+"0")
	}
	if s.Begins != "" {
		and(`name >= ? AND name < ?`, string(s.Begins), string(s.Begins)+"\U0010FFFF")
	}
	if after != nil {
		and(`(container, name, kind) > (?, ?, ?)`, string(after.Container), string(after.Name), int64(after.Kind))
	}
	user := `''`
	var all []any
	if s.User {
		user = `CASE WHEN user_md LIKE ? ESCAPE '!' THEN user_md ELSE '' END`
		all = append(all, "%"+strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(s.Has)+"%")
	}
	query := `SELECT container, name, kind, id, owner, size, digest, modified, ` + user + ` FROM nodes WHERE ` + strings.Join(where, ` AND `) +
		` ORDER BY container, name, kind LIMIT ?`
	err := t.each(ctx, "searching nodes", query, append(append(all, args...), limit), func(r *sql.Rows) error {
		var c Candidate
		if err := r.Scan(&c.Container, &c.Name, &c.Kind, &c.ID, &c.Owner, &c.Size, &c.Digest, &c.Modified, &c.User); err != nil {
			return err
		}
		more, err := fn(c)
		if err == nil && !more {
			err = errEnough
		}
		return err
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// A Brief is what a listing tells of a row.
type Brief struct {
	Name   token.ObjectName
	Kind   acl.Kind
	ID     space.ObjectID
	Owner  acl.Who
	Digest token.Digest
}

// Briefs returns what a listing tells of the rows that have one of names, of either kind, in no order.
func (t *Tx) Briefs(ctx context.Context, p token.Provider, c token.Container, names []token.ObjectName) ([]Brief, error) {
	var out []Brief
	q := named{"reading nodes", `SELECT name, kind, id, owner, digest FROM nodes WHERE provider = ? AND container = ? AND name IN `, ``, []any{string(p), string(c)}}
	err := t.eachNamed(ctx, q, names, func(r *sql.Rows) error {
		var b Brief
		err := r.Scan(&b.Name, &b.Kind, &b.ID, &b.Owner, &b.Digest)
		out = append(out, b)
		return err
	})
	return out, err
}
