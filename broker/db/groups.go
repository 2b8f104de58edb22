package db

import (
	"context"
	"database/sql"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token"
)

// ACLGen returns a number that has grown since whatever decides about access or orders at a provider was last
// changed: lists, owners, data system metadata, groups, administrators. A new row of an object does not count.
func (t *Tx) ACLGen(ctx context.Context, p token.Provider) (int64, error) {
	var n int64
	_, err := t.one(ctx, "reading the generation of lists", `SELECT gen FROM acl_gens WHERE provider = ?`, []any{string(p)}, &n)
	return n, err
}

// BumpACLGen lets ACLGen grow.
func (t *Tx) BumpACLGen(ctx context.Context, p token.Provider) error {
	return t.exec(ctx, "counting a change of lists", `INSERT INTO acl_gens (provider, gen) VALUES (?, 1) ON CONFLICT (provider) DO UPDATE SET gen = acl_gens.gen + 1`, string(p))
}

// A Group is a group of a provider.
type Group struct {
	Name    acl.Who
	Members int64
}

// Groups returns the groups of a provider, by name.
func (t *Tx) Groups(ctx context.Context, p token.Provider) ([]Group, error) {
	out := []Group{}
	err := t.each(ctx, "reading groups", `SELECT name, COUNT(*) FROM group_members WHERE provider = ? GROUP BY name ORDER BY name`, []any{string(p)}, func(r *sql.Rows) error {
		var g Group
		err := r.Scan(&g.Name, &g.Members)
		out = append(out, g)
		return err
	})
	return out, err
}

// Members returns up to limit members of a group, by identity, from behind after.
func (t *Tx) Members(ctx context.Context, p token.Provider, group acl.Who, after token.Identity, limit int) ([]token.Identity, error) {
	out := []token.Identity{}
	err := t.each(ctx, "reading members", `SELECT member FROM group_members WHERE provider = ? AND name = ? AND member > ? ORDER BY member LIMIT ?`,
		[]any{string(p), string(group), string(after), limit}, func(r *sql.Rows) error {
			var id token.Identity
			err := r.Scan(&id)
			out = append(out, id)
			return err
		})
	return out, err
}

// GroupsOf returns the groups of a provider that an identity is a member of, by name.
func (t *Tx) GroupsOf(ctx context.Context, p token.Provider, id token.Identity) ([]acl.Who, error) {
	var out []acl.Who
	err := t.each(ctx, "reading groups", `SELECT name FROM group_members WHERE provider = ? AND member = ? ORDER BY name`, []any{string(p), string(id)}, func(r *sql.Rows) error {
		var name acl.Who
		err := r.Scan(&name)
		out = append(out, name)
		return err
	})
	return out, err
}

// CountMembers returns how many members a group has.
func (t *Tx) CountMembers(ctx context.Context, p token.Provider, group acl.Who) (int64, error) {
	var n int64
	_, err := t.one(ctx, "counting members", `SELECT COUNT(*) FROM group_members WHERE provider = ? AND name = ?`, []any{string(p), string(group)}, &n)
	return n, err
}

// AddMember makes an identity a member of a group, and reports whether it was none.
func (t *Tx) AddMember(ctx context.Context, p token.Provider, group acl.Who, id token.Identity, now time.Time) (bool, error) {
	return t.one(ctx, "adding a member", `INSERT INTO group_members (provider, name, member, added) VALUES (?, ?, ?, ?)
		ON CONFLICT (provider, name, member) DO NOTHING RETURNING added`, []any{string(p), string(group), string(id), ms(now)}, new(int64))
}

// DropMember takes an identity out of a group, and reports whether it was a member.
func (t *Tx) DropMember(ctx context.Context, p token.Provider, group acl.Who, id token.Identity) (bool, error) {
	return t.one(ctx, "removing a member", `DELETE FROM group_members WHERE provider = ? AND name = ? AND member = ? RETURNING added`,
		[]any{string(p), string(group), string(id)}, new(int64))
}
