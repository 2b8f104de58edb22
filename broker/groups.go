package broker

import (
	"context"
	"slices"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// membersInLeaf is how many identities one leaf names, so that it stays below db.MaxLeafSize.
const membersInLeaf = 64

// Groups returns the groups of a provider by name: to its administrators all, to others those that they are in. Those that nobody keeps come first, for
// the provider's own subscribers.
func (b *Broker) Groups(ctx context.Context, peer certs.Peer, at token.Provider) (api.Page[api.Group], error) {
	page := api.Page[api.Group]{Items: []api.Group{}}
	err := b.reading(ctx, peer, at, func(tx *db.Tx, p acl.Principal) error {
		if slices.Contains(p.Groups, tree.Subscribers) {
			page.Items = append(page.Items, api.Group{Provider: at, Name: string(acl.AdminUsers), Count: int64(len(b.tree.Administrators(at))), Reserved: true},
				api.Group{Provider: at, Name: string(tree.Subscribers), Reserved: true})
		}
		gs, err := b.tree.Groups(ctx, tx, p, at)
		for _, g := range gs {
			page.Items = append(page.Items, api.Group{Provider: at, Name: string(g.Name), Count: g.Members})
		}
		return err
	})
	if err != nil {
		return api.Page[api.Group]{}, b.deny(peer.Identity, err)
	}
	return page, nil
}

// Members returns a page of the members of a group, for administrators of its provider and for its members; the administrators themselves are
// shown to every subscriber of the provider. Who is in a group that nobody keeps otherwise is said by what it is.
func (b *Broker) Members(ctx context.Context, peer certs.Peer, at token.Provider, group, cursor string) (api.Page[token.Identity], error) {
	page := api.Page[token.Identity]{Items: []token.Identity{}}
	err := b.reading(ctx, peer, at, func(tx *db.Tx, p acl.Principal) error {
		own := slices.Contains(p.Groups, tree.Subscribers)
		switch {
		case own && acl.Who(group) == acl.AdminUsers:
			page.Items = append(page.Items, b.tree.Administrators(at)...)
			return nil
		case own && acl.Who(group) == tree.Subscribers:
			return problem.New(problem.Malformed, "The group %q is every subscriber of %s, and nobody keeps a list of them", group, at)
		}
		ids, err := b.tree.Members(ctx, tx, p, tree.Group{At: at, Name: acl.Who(group)}, token.Identity(cursor), api.MaxPage)
		if err != nil {
			return err
		}
		page.Items = append(page.Items, ids...)
		if len(ids) == api.MaxPage {
			page.Next = string(ids[len(ids)-1])
		}
		return nil
	})
	if err != nil {
		return api.Page[token.Identity]{}, b.deny(peer.Identity, err)
	}
	return page, nil
}

// reading calls fn with who the caller is at a provider.
func (b *Broker) reading(ctx context.Context, peer certs.Peer, at token.Provider, fn func(*db.Tx, acl.Principal) error) error {
	if !slices.Contains(b.conf.Providers, at) {
		return problem.New(problem.UnknownProvider, "The broker does not know the provider %q", clip(string(at)))
	}
	return b.db.Read(ctx, func(tx *db.Tx) error {
		p, err := b.tree.Principal(ctx, tx, peer.Identity, at)
		if err != nil {
			return err
		}
		return fn(tx, p)
	})
}

// ChangeGroup puts identities into a group and takes others out of it, for administrators of its provider. It comes to be with its first member and
// goes with its last one.
func (b *Broker) ChangeGroup(ctx context.Context, peer certs.Peer, at token.Provider, group string, c api.GroupChange, now time.Time) (api.GroupChanged, error) {
	var out api.GroupChanged
	err := b.regroup(ctx, peer, at, now, func(w *work, p acl.Principal) error {
		if n := len(c.Add) + len(c.Remove); n == 0 || n > tree.MaxAtOnce {
			return problem.New(problem.Malformed, "The change of the group names %d identities, not 1 to %d", n, tree.MaxAtOnce)
		}
		for _, id := range c.Add {
			if slices.Contains(c.Remove, id) {
				return problem.New(problem.Malformed, "%s is both to be put into the group and to be taken out of it", clip(string(id)))
			}
		}
		var err error
		g := tree.Group{At: at, Name: acl.Who(group)}
		if len(c.Add) > 0 {
			if out.Added, err = b.addMembers(ctx, w, p, g, c.Add); err != nil {
				return err
			}
		}
		if len(c.Remove) > 0 {
			out.Removed, err = b.dropMembers(ctx, w, p, g, c.Remove)
		}
		return err
	})
	return out, err
}

// RemoveGroup takes every member out of a group. Entries of lists that name it are for nobody then.
func (b *Broker) RemoveGroup(ctx context.Context, peer certs.Peer, at token.Provider, group string, now time.Time) error {
	return b.regroup(ctx, peer, at, now, func(w *work, p acl.Principal) error {
		g := tree.Group{At: at, Name: acl.Who(group)}
		for left := true; left; {
			ids, err := b.tree.Members(ctx, w.Tx, p, g, "", tree.MaxAtOnce+1)
			if err != nil {
				return err
			}
			left = len(ids) > tree.MaxAtOnce
			if _, err := b.dropMembers(ctx, w, p, g, ids[:min(len(ids), tree.MaxAtOnce)]); err != nil {
				return err
			}
		}
		return nil
	})
}

// regroup carries a change of groups out, and has what rests on them looked at.
func (b *Broker) regroup(ctx context.Context, peer certs.Peer, at token.Provider, now time.Time, fn func(*work, acl.Principal) error) error {
	if !slices.Contains(b.conf.Providers, at) {
		return b.deny(peer.Identity, problem.New(problem.UnknownProvider, "The broker does not know the provider %q", clip(string(at))))
	}
	err := b.write(ctx, now, func(w *work) error {
		p, err := b.tree.Principal(ctx, w.Tx, peer.Identity, at)
		if err != nil {
			return err
		}
		w.then(b.wake)
		return fn(w, p)
	})
	return b.deny(peer.Identity, err)
}

func (b *Broker) addMembers(ctx context.Context, w *work, p acl.Principal, g tree.Group, ids []token.Identity) (int, error) {
	var fresh []token.Identity
	for _, id := range ids {
		in, err := w.GroupsOf(ctx, g.At, id)
		if err != nil {
			return 0, err
		}
		if !slices.Contains(in, g.Name) && !slices.Contains(fresh, id) {
			fresh = append(fresh, id)
		}
	}
	n, err := b.tree.AddMembers(ctx, w.Tx, p, g, ids, w.now)
	if err != nil {
		return 0, err
	}
	return n, w.groupLeaves(ctx, p, g, "added", fresh)
}

func (b *Broker) dropMembers(ctx context.Context, w *work, p acl.Principal, g tree.Group, ids []token.Identity) (int, error) {
	var gone []token.Identity
	for _, id := range ids {
		in, err := w.GroupsOf(ctx, g.At, id)
		if err != nil {
			return 0, err
		}
		if slices.Contains(in, g.Name) && !slices.Contains(gone, id) {
			gone = append(gone, id)
		}
	}
	n, err := b.tree.RemoveMembers(ctx, w.Tx, p, g, ids)
	if err != nil {
		return 0, err
	}
	return n, w.groupLeaves(ctx, p, g, "removed", gone)
}

// groupLeaves writes who has put whom into a group, or taken out of it.
func (w *work) groupLeaves(ctx context.Context, p acl.Principal, g tree.Group, what string, ids []token.Identity) error {
	for part := range slices.Chunk(ids, membersInLeaf) {
		if _, err := w.leaf(ctx, db.GroupLeaf, facts{"by": string(p.Name), "group": string(g.Name), "provider": g.At, what: part}); err != nil {
			return err
		}
	}
	return nil
}
