package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// sessionOrderLife is how long an order is good for that a request of CDMI makes.
const sessionOrderLife = 10 * time.Minute

// What an attempt is called where it is recorded.
const (
	opReadCDMI  = "cdmi-read"
	opPutCDMI   = "cdmi-put"
	opEraseCDMI = "cdmi-delete"
)

// The types of entries of a listing, as agent/store has them.
const (
	typeObject  = "object"
	typeSubtree = "container"
)

// A Look is what somebody wants to see of a place.
type Look struct {
	At    token.Location
	Kind  acl.Kind
	Parts []acl.Part // that are asked for, at least one
	// From and Count say which of the children of a container are asked for, in the order of their names and from 0, if Parts has acl.Children.
	From, Count int64
}

// A Sight is what somebody may see of a place.
type Sight struct {
	Shown    []acl.Part     // of the parts that were asked for, those that may be shown
	ID       space.ObjectID // empty: nothing is kept about the place, so that it has none yet
	ParentID space.ObjectID // the same of the container that holds it; empty for a root container
	Metadata space.Metadata // cdmi_acl only if acl.List is shown, all other items only if acl.Metadata is
	Children []string       // names, of containers with "/" at their end
	ETag     string         // changes whenever what is kept about the place does
}

// PlaceOf returns what has an object id. problem.Hidden if nothing has it or the caller may not see that it is there: the attempt is recorded then, and whatever
// else is wrong with the request, nobody learns by it.
func (b *Broker) PlaceOf(ctx context.Context, peer certs.Peer, id space.ObjectID, now time.Time) (at token.Location, kind acl.Kind, err error) {
	a := tree.Attempt{Trail: new(tree.Trail)}
	err = b.db.Read(ctx, func(tx *db.Tx) error {
		n, ok, err := tx.NodeByID(ctx, id)
		if err == nil && !ok {
			err = problem.New(problem.Hidden, "")
		}
		if err != nil {
			return err
		}
		if a, err = b.tree.Attempt(ctx, tx, peer.Identity, n.Provider, opReadCDMI); err != nil {
			return err
		}
		s, err := b.tree.Spot(ctx, tx, n.At(), n.Kind)
		if err != nil {
			return err
		}
		if at, kind = n.At(), n.Kind; !b.tree.Sees(a.By, s) {
			return b.tree.Decide(a, s, acl.ReadAttributes) // refused, since it would see it otherwise
		}
		return nil
	})
	if err = b.keepTrail(ctx, a.Trail, err, now); err != nil {
		return token.Location{}, 0, b.deny(peer.Identity, err)
	}
	return at, kind, nil
}

// See returns what a caller may see of a place. There are three outcomes:
//
//  1. nil: something of what is asked for may be shown, and the place is there: it has a row, is exported, or an agent has found it.
//  2. problem.NotPermitted or Hidden, as tree.Tree.Decide says, of the first part that is asked for: nothing may be shown. Whether
//     the place is there was not looked for.
//  3. what an agent answers, or what keeps it from answering: problem.Missing, PolicyRefused where no agent takes the broker's word, AgentAbsent.
//
// Children that an agent's policy does not tell are not shown, if something else is.
func (b *Broker) See(ctx context.Context, peer certs.Peer, l Look, now time.Time) (Sight, error) {
	s, out, err := b.judge(ctx, peer, l, now)
	if err != nil {
		return Sight{}, b.deny(peer.Identity, err)
	}
	if l.At.Name != "" && !s.Known {
		e, err := b.inStore(ctx, peer, l.At, l.Kind, now)
		if err != nil {
			return Sight{}, err
		}
		if slices.Contains(out.Shown, acl.Metadata) && l.Kind == acl.Object {
			out.Metadata["cdmi_size"] = space.Value(strconv.Quote(strconv.FormatInt(e.Size, 10)))
			if !e.ModTime.IsZero() {
				out.Metadata["cdmi_mtime"] = space.Value(strconv.Quote(space.FormatTime(e.ModTime)))
			}
		}
	}
	if !slices.Contains(out.Shown, acl.Children) || l.Count == 0 {
		return out, nil
	}
	out.Children, err = b.children(ctx, peer, l, now)
	if len(out.Shown) > 1 && problem.Of(err) == problem.PolicyRefused {
		out.Shown, err = slices.DeleteFunc(out.Shown, func(p acl.Part) bool { return p == acl.Children }), nil
	}
	if err != nil {
		return Sight{}, err
	}
	return out, nil
}

// judge finds out which parts of a place may be shown, and shows what is kept of them.
func (b *Broker) judge(ctx context.Context, peer certs.Peer, l Look, now time.Time) (s tree.Spot, out Sight, err error) {
	if err := b.checkPlace(Place{At: l.At}); err != nil {
		return s, out, err
	}
	err = b.asking(ctx, peer.Identity, l.At.Provider, opReadCDMI, now, func(tx *db.Tx, a tree.Attempt) (err error) {
		if s, err = b.tree.Spot(ctx, tx, l.At, l.Kind); err != nil {
			return err
		}
		var granted acl.Mask
		var first error
		for _, part := range l.Parts {
			switch err := b.tree.Decide(a, s, part.ToRead()); {
			case err == nil:
				granted |= part.ToRead()
			case !errors.As(err, new(*problem.Error)):
				return err
			case first == nil:
				first = err
			}
		}
		if out.Shown = acl.Readable(granted, l.Parts...); len(out.Shown) == 0 {
			return first
		}
		if err := b.checkRoot(ctx, tx, s); err != nil {
			return err
		}
		return b.fill(ctx, tx, s, &out)
	})
	return s, out, err
}

// checkRoot refuses a root container that nobody exports and of which nothing is kept.
func (b *Broker) checkRoot(ctx context.Context, tx *db.Tx, s tree.Spot) error {
	if s.At.Name != "" || s.Known {
		return nil
	}
	es, err := tx.Exporters(ctx, s.At.Provider, s.At.Container)
	if err == nil && len(es) == 0 {
		err = problem.New(problem.NoContainer, "No agent of %s exports the container %q", s.At.Provider, s.At.Container)
	}
	return err
}

// fill adds what is kept of a place to what may be shown of it.
func (b *Broker) fill(ctx context.Context, tx *db.Tx, s tree.Spot, out *Sight) error {
	out.ID, out.ETag, out.Metadata = s.Node.ID, bareTag(b.tree.ETag(s)), space.Metadata{}
	if up, ok := s.Up(); ok {
		out.ParentID = up.Node.ID
	}
	storage := b.tree.StorageMetadata(s)
	if slices.Contains(out.Shown, acl.List) {
		out.Metadata[space.ItemACL] = storage[space.ItemACL]
	}
	if !slices.Contains(out.Shown, acl.Metadata) {
		return nil
	}
	delete(storage, space.ItemACL)
	user, err := b.tree.UserMetadata(s)
	if err != nil {
		return err
	}
	data, err := b.tree.DataMetadata(s)
	if err != nil {
		return err
	}
	provided, err := b.provided(ctx, tx, s)
	if err != nil {
		return err
	}
	for _, m := range []space.Metadata{storage, user, data, providedItems(provided)} {
		maps.Copy(out.Metadata, m)
	}
	return nil
}

// Space returns what the operator has decided of the namespace.
func (b *Broker) Space() tree.Config { return b.conf.Space }

// sessionOrder is an order of the caller alone, for the broker to give its word for. A caller of another provider has none.
func sessionOrder(peer certs.Peer, do token.Verb, at token.Location, now time.Time) (api.SignedOrder, error) {
	if peer.Identity.Provider() != at.Provider {
		return api.SignedOrder{}, &problem.Error{
			Code:   problem.PolicyRefused,
			Detail: fmt.Sprintf("Agents of %s look into their stores for accounts of %s alone, and %s is of %s", at.Provider, at.Provider, peer.Identity, peer.Identity.Provider()),
			Remedy: "Come with a certificate of " + string(at.Provider) + ".",
		}
	}
	id, err := uuid.NewV7()
	if err != nil {
		return api.SignedOrder{}, err
	}
	o := token.Order{ID: token.TransferID(id.String()), Accounts: []token.Identity{peer.Identity}, Do: do, Scope: token.One, Iat: now.Unix(), Exp: now.Add(sessionOrderLife).Unix()}
	switch do {
	case token.List:
		o.From, o.Scope = at, token.Tree
	case token.Stat:
		o.From = at
	default:
		o.To = at
	}
	return api.SignedOrder{Claims: &o}, nil
}

// inStore has an agent look whether something of kind k is at a place: problem.Missing if not.
func (b *Broker) inStore(ctx context.Context, peer certs.Peer, at token.Location, k acl.Kind, now time.Time) (api.Entry, error) {
	e, err := b.askOne(ctx, peer, token.Stat, at, now)
	switch {
	case err != nil:
		return api.Entry{}, err
	case e.Type == typeObject && k == acl.Object, e.Type == typeSubtree && k == acl.Container:
		return e, nil
	case e.Type == typeObject: // a bucket may have a container of that name too
		below, err := b.listed(ctx, peer, at, "", 1, now)
		if err == nil && len(below.Entries) > 0 {
			return api.Entry{Name: at.Name, Type: typeSubtree}, nil
		}
		if err != nil && problem.Of(err) != problem.Missing {
			return api.Entry{}, err
		}
	}
	return api.Entry{}, problem.New(problem.Missing, "There is no %s at %s", k, at)
}

// askOne has an agent carry out an order that is about one name.
func (b *Broker) askOne(ctx context.Context, peer certs.Peer, do token.Verb, at token.Location, now time.Time) (api.Entry, error) {
	so, err := sessionOrder(peer, do, at, now)
	if err != nil {
		return api.Entry{}, err
	}
	r, err := b.Lookup(ctx, peer, api.Lookup{Order: so}, now)
	switch {
	case err != nil:
		return api.Entry{}, err
	case len(r.Entries) == 0:
		return api.Entry{}, problem.New(problem.Missing, "There is nothing at %s", at)
	case r.Entries[0].Code != "":
		return api.Entry{}, &problem.Error{Code: r.Entries[0].Code, Detail: r.Entries[0].Detail}
	}
	return r.Entries[0], nil
}

// listed has an agent list a page of the names directly in a container.
func (b *Broker) listed(ctx context.Context, peer certs.Peer, at token.Location, after token.ObjectName, limit int, now time.Time) (api.LookupResult, error) {
	so, err := sessionOrder(peer, token.List, at, now)
	if err != nil {
		return api.LookupResult{}, err
	}
	return b.Lookup(ctx, peer, api.Lookup{Order: so, After: after, Limit: limit, Level: true}, now)
}

// children returns some of what a container holds, counted from its first name on. Links and special files are no children.
func (b *Broker) children(ctx context.Context, peer certs.Peer, l Look, now time.Time) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, b.conf.LookupWait)
	defer cancel()
	out := []string{}
	var after token.ObjectName
	for n := int64(0); ; {
		page, err := b.listed(ctx, peer, l.At, after, api.MaxPage, now)
		if err != nil {
			return nil, err
		}
		for _, e := range page.Entries {
			name := strings.TrimPrefix(string(e.Name), string(l.At.Name)+"/")
			switch e.Type {
			case typeSubtree:
				name += "/"
			case typeObject:
			default:
				continue
			}
			if n++; n > l.From {
				out = append(out, name)
			}
			if n == l.From+l.Count {
				return out, nil
			}
		}
		if after = page.Next; after == "" {
			return out, nil
		}
	}
}
