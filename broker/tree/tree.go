// Package tree is the namespace as the broker keeps it: rows of objects and containers, who may do what with them,
// what is in force for them, and how all of that is changed.
//
// It guarantees that a decision follows from the rows in one transaction by the rules of broker/acl and broker/space alone;
// that the two ways of deciding, one place or many, agree; that every refusal is formulated in one place, which tells an asker no
// more than it may see; that a change takes every right that it needs and is made whole or not at all; and that the row of whatever
// has a row has rows above it up to the root container, whose totals are the sums of what is below.
//
// A place is a token.Location and a kind: an object and a container may have one name. The empty name is the root container that an
// agent exports; it is always a container. What has no row has no list, owner or metadata of its own, and all of those of the
// containers above: rows exist only for what was stored, adopted, made or given metadata through us. What has no owner of its own belongs to the
// owner of the nearest container above that has one. The page "The namespace as it is kept" of docs/adr says why.
//
// It does not know whether anything exists in a store, asks no agent, and carries nothing out. It decides only what it is asked for: which
// permissions an operation takes is said by who offers the operation.
//
// It reads no clock and starts no goroutine. A Tree decides the same at any time; its methods may be called concurrently, each with a transaction
// of its own. Refusals are *problem.Error: NotPermitted and Hidden (see Decide), Outdated, OnHold, UnderRetention,
// Malformed, UnknownField, TooLarge, Conflict. Any other error is the database's, or a row that is damaged.
package tree

import (
	"context"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Subscribers is the group of every subscriber identity of the provider itself. Nobody can make or change it.
const Subscribers acl.Who = "subscribers"

// A Config is what an operator says of the namespace.
type Config struct {
	Administrators []token.Identity // each of its own provider only
	Limits         space.UserLimits
	Enterprise     uint32 // IANA's enterprise number, in object ids; 0 is none
}

// A Tree decides about the namespace that a database keeps.
type Tree struct {
	conf    Config
	unowned acl.ACL // of a root container of which nobody has said an owner or a list
	root    acl.ACL // of a root container with an owner and no list
	orphan  acl.ACL // of what has no list and inherits nothing

	lists memo[acl.ACL]
	wants [2]memo[space.Settings] // by acl.Kind
}

// New returns the tree of conf, or problem.BadConfig naming the setting that is wrong.
func New(conf Config) (*Tree, error) {
	conf.Administrators = slices.Clone(conf.Administrators)
	slices.Sort(conf.Administrators)
	conf.Administrators = slices.Compact(conf.Administrators)
	for _, id := range conf.Administrators {
		if _, err := token.ParseIdentity(string(id)); err != nil {
			return nil, problem.Wrap(err, problem.BadConfig, "The setting administrators: %s", problem.As(err).Sentence())
		}
		if id.Role() != token.Subscriber {
			return nil, problem.New(problem.BadConfig, "The setting administrators: %s is not of the role %q.", id, token.Subscriber)
		}
	}
	if conf.Enterprise > space.MaxEnterprise {
		return nil, problem.New(problem.BadConfig, "The setting enterprise_number is %d; the greatest is %d.", conf.Enterprise, space.MaxEnterprise)
	}
	if l := conf.Limits; l.Items < 0 || l.ItemSize < 0 || l.TotalSize < 0 {
		return nil, problem.New(problem.BadConfig, "A setting metadata_max is negative; 0 is no limit.")
	}
	const down = acl.ObjectInherit | acl.ContainerInherit
	unowned, err := acl.New(
		acl.ACE{Type: acl.Allow, Who: acl.Owner, Flags: down, Mask: acl.AllPerms},
		acl.ACE{Type: acl.Allow, Who: Subscribers, Flags: down | acl.IdentifierGroup,
			Mask: acl.ReadObject | acl.AddObject | acl.AddSubcontainer | acl.ReadMetadata | acl.ReadAttributes | acl.ReadACL})
	if err != nil {
		return nil, err
	}
	return &Tree{conf: conf, unowned: unowned, root: acl.RootDefault(), orphan: acl.Default()}, nil
}

// list reads a list as a row has it.
func (t *Tree) list(kept string) (acl.ACL, error) {
	return t.lists.get(kept, func() (acl.ACL, error) { return acl.Parse([]byte(kept)) })
}

// settings reads data system metadata as a row of kind k has them.
func (t *Tree) settings(k acl.Kind, kept string) (space.Settings, error) {
	if kept == "" {
		return space.Settings{}, nil
	}
	return t.wants[k&1].get(kept, func() (space.Settings, error) {
		m, err := metadata(kept)
		if err != nil {
			return space.Settings{}, err
		}
		return space.ParseSettings(k, m)
	})
}

// Limits returns the limits of user metadata.
func (t *Tree) Limits() space.UserLimits { return t.conf.Limits }

// Administrators returns the administrators of a provider, by identity.
func (t *Tree) Administrators(p token.Provider) []token.Identity {
	var out []token.Identity
	for _, id := range t.conf.Administrators {
		if id.Provider() == p {
			out = append(out, id)
		}
	}
	return out
}

// Begin is called once after the database was opened. If the administrators are others than before, it lets ACLGen of their providers grow.
func (t *Tree) Begin(ctx context.Context, tx *db.Tx) error {
	const noted = "administrators"
	names := make([]string, len(t.conf.Administrators))
	for i, id := range t.conf.Administrators {
		names[i] = string(id)
	}
	was, err := tx.Meta(ctx, noted)
	now := strings.Join(names, "\n")
	if err != nil || was == now {
		return err
	}
	var providers []token.Provider
	for name := range strings.SplitSeq(was+"\n"+now, "\n") {
		if p := token.Identity(name).Provider(); p != "" && !slices.Contains(providers, p) {
			providers = append(providers, p)
		}
	}
	for _, p := range providers {
		if err := tx.BumpACLGen(ctx, p); err != nil {
			return err
		}
	}
	return tx.SetMeta(ctx, noted, now)
}

// Principal returns who an identity is at a provider: its name, the groups of that provider that it is a member of, and whether it
// administrates there. An identity of another provider never does. The empty identity did not authenticate.
func (t *Tree) Principal(ctx context.Context, tx *db.Tx, who token.Identity, at token.Provider) (acl.Principal, error) {
	if who == "" {
		return acl.Principal{}, nil
	}
	p := acl.Principal{Name: acl.Who(who)}
	var err error
	if p.Groups, err = tx.GroupsOf(ctx, at, who); err != nil {
		return acl.Principal{}, err
	}
	if who.Provider() != at {
		return p, nil
	}
	if who.Role() == token.Subscriber {
		p.Groups = append(p.Groups, Subscribers)
	}
	if _, ok := slices.BinarySearch(t.conf.Administrators, who); ok {
		p.Status = acl.Administrating
	}
	return p, nil
}
