package tree

import (
	"context"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Limits of groups.
const (
	MaxGroups        = 4096 // of a provider
	MaxMembers       = 1 << 16
	MaxGroupNameSize = 255 // bytes
	MaxAtOnce        = 1024
)

// A Group is named by its provider and its name there.
type Group struct {
	At   token.Provider
	Name acl.Who
}

// CheckGroup reports why no group can be called name: problem.Malformed, or nil. A name is of letters, digits, '.', '-' and '_', and none
// is Subscribers, whose members are said by what it is.
func CheckGroup(name acl.Who) error {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_", r)
	}
	switch {
	case name == Subscribers:
		return problem.New(problem.Malformed, "The group %q is every subscriber of the provider and cannot be changed.", Subscribers)
	case name == "" || len(name) > MaxGroupNameSize || strings.ContainsFunc(string(name), func(r rune) bool { return !plain(r) }):
		return problem.New(problem.Malformed, "The name %s of a group is not 1 to %d letters, digits, '.', '-' and '_'.", problem.Quote(string(name)), MaxGroupNameSize)
	}
	return nil
}

// AddMembers makes identities members of a group of a provider, which comes to be by that. Only an administrator of the provider may: problem.NotPermitted. It
// returns how many were none before.
func (t *Tree) AddMembers(ctx context.Context, tx *db.Tx, p acl.Principal, g Group, ids []token.Identity, now time.Time) (int, error) {
	if err := t.checkMembers(p, g, ids); err != nil {
		return 0, err
	}
	n := 0
	for _, id := range ids {
		added, err := tx.AddMember(ctx, g.At, g.Name, id, now)
		if err != nil {
			return 0, err
		}
		if added {
			n++
		}
	}
	if n == 0 {
		return 0, nil
	}
	if members, err := tx.CountMembers(ctx, g.At, g.Name); err != nil {
		return 0, err
	} else if members > MaxMembers {
		return 0, problem.New(problem.TooLarge, "The group %s would have more than %d members.", g.Name, MaxMembers)
	}
	if groups, err := tx.Groups(ctx, g.At); err != nil {
		return 0, err
	} else if len(groups) > MaxGroups {
		return 0, problem.New(problem.TooLarge, "The provider %s would have more than %d groups.", g.At, MaxGroups)
	}
	return n, tx.BumpACLGen(ctx, g.At)
}

// RemoveMembers takes identities out of a group, which is gone when nobody is left. It is for whom AddMembers is for, and returns how many were members.
func (t *Tree) RemoveMembers(ctx context.Context, tx *db.Tx, p acl.Principal, g Group, ids []token.Identity) (int, error) {
	if err := t.checkMembers(p, g, ids); err != nil {
		return 0, err
	}
	n := 0
	for _, id := range ids {
		removed, err := tx.DropMember(ctx, g.At, g.Name, id)
		if err != nil {
			return 0, err
		}
		if removed {
			n++
		}
	}
	if n == 0 {
		return 0, nil
	}
	return n, tx.BumpACLGen(ctx, g.At)
}

func (t *Tree) checkMembers(p acl.Principal, g Group, ids []token.Identity) error {
	if err := t.administers(p, g.At); err != nil {
		return err
	}
	if err := CheckGroup(g.Name); err != nil {
		return err
	}
	if len(ids) == 0 || len(ids) > MaxAtOnce {
		return problem.New(problem.Malformed, "There are %d identities, not 1 to %d.", len(ids), MaxAtOnce)
	}
	for _, id := range ids {
		if _, err := token.ParseIdentity(string(id)); err != nil {
			return err
		}
	}
	return nil
}

// administers reports why p may not do what is an administrator's: problem.NotPermitted, or nil.
func (t *Tree) administers(p acl.Principal, at token.Provider) error {
	if p.Status != acl.Administrating || p.Name == "" || token.Identity(p.Name).Provider() != at {
		return problem.New(problem.NotPermitted, "%s is no administrator of the provider %s.", shown(p.Name), at)
	}
	return nil
}

// Groups returns the groups of a provider, by name: to an administrator all, to others those that they are in.
func (t *Tree) Groups(ctx context.Context, tx *db.Tx, p acl.Principal, at token.Provider) ([]db.Group, error) {
	all, err := tx.Groups(ctx, at)
	if err != nil || t.administers(p, at) == nil {
		return all, err
	}
	mine := []db.Group{}
	for _, g := range all {
		if in(p, g.Name) {
			mine = append(mine, g)
		}
	}
	return mine, nil
}

// Members returns up to limit members of a group, by identity, from behind after. They are shown to administrators and to each other;
// to all others it is problem.Hidden, as a group is that does not exist.
func (t *Tree) Members(ctx context.Context, tx *db.Tx, p acl.Principal, g Group, after token.Identity, limit int) ([]token.Identity, error) {
	hidden := problem.New(problem.Hidden, "There is no group %s at %s that %s may see.", problem.Quote(string(g.Name)), g.At, shown(p.Name))
	if t.administers(p, g.At) != nil && (g.Name == Subscribers || !in(p, g.Name)) {
		return nil, hidden
	}
	members, err := tx.Members(ctx, g.At, g.Name, after, limit)
	if err == nil && len(members) == 0 && after == "" {
		return nil, hidden
	}
	return members, err
}

func in(p acl.Principal, group acl.Who) bool {
	for _, g := range p.Groups {
		if g == group {
			return true
		}
	}
	return false
}
