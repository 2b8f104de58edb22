package broker

import (
	"context"
	"slices"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// lookupRights asks whether a lookup may be made at all: LIST_CONTAINER to list, READ_ATTRIBUTES to describe, ADD_SUBCONTAINER of
// what holds it to make a container. What has to be recorded is in trail, whatever the outcome.
func (b *Broker) lookupRights(ctx context.Context, o token.Order, trail *tree.Trail, now time.Time) error {
	var refused error
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		g, err := b.gate(ctx, tx, o.From, o.To, o.Accounts, now)
		if err != nil {
			return err
		}
		switch o.Do {
		case token.List:
			err = g.list(ctx, []token.ObjectName{o.From.Name})
			refused = g.lists[o.From.Name]
		case token.Stat:
			refused, err = g.describe(ctx, o.From.Name)
		case token.Make:
			refused, err = g.make(ctx, o.To.Name)
		default:
			err = problem.New(problem.WrongStatement, "An order to %s is not a lookup", o.Do)
		}
		*trail = g.trail
		return err
	})
	if err != nil {
		return err
	}
	return refused
}

// describe judges a description of what may be an object or a container: whoever may have one of the two described may ask. Which it is is judged when it is
// known, see screen.
func (g *gate) describe(ctx context.Context, name token.ObjectName) (refused, err error) {
	a, _ := g.attempt(opStat)
	for _, k := range []acl.Kind{acl.Container, acl.Object} {
		s, err := g.b.tree.Spot(ctx, g.tx, g.src.at(name), k)
		if err != nil {
			return nil, err
		}
		if refused = g.b.tree.Decide(a, s, acl.ReadAttributes); refused == nil {
			return nil, nil
		}
	}
	return refused, nil
}

// make judges the making of a container, also of one that is there: to be told so is to learn of it.
func (g *gate) make(ctx context.Context, name token.ObjectName) (refused, err error) {
	if err := g.land(ctx, []token.ObjectName{name}); err != nil {
		return nil, err
	}
	l := g.landings[name]
	if l.makes != nil || !g.dst.known[name] {
		return l.makes, nil
	}
	up, ok := l.near.Up()
	if !ok {
		return nil, nil // the root container is there, and is not made
	}
	a, _ := g.attempt(opMake)
	return g.b.tree.Decide(a, up, toMake), nil
}

// screen takes out of an answer what the account may not see: what is in containers that it may not list, and the attributes of what it may
// not read them of. Of these there is the reason in place of what was found.
func (b *Broker) screen(ctx context.Context, o token.Order, es []api.Entry, now time.Time) ([]api.Entry, error) {
	if o.Do == token.Make || len(es) == 0 {
		return es, nil
	}
	var out []api.Entry
	var trail tree.Trail
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		g, err := b.gate(ctx, tx, o.From, o.To, o.Accounts, now)
		if err != nil {
			return err
		}
		out, err = g.screen(ctx, o, es)
		trail = g.trail
		return err
	})
	if err = b.keepTrail(ctx, &trail, err, now); err != nil {
		return nil, err
	}
	return out, nil
}

func (g *gate) screen(ctx context.Context, o token.Order, es []api.Entry) ([]api.Entry, error) {
	names := map[acl.Kind][]token.ObjectName{}
	in := map[token.ObjectName]bool{}
	for _, e := range es {
		names[kindOfEntry(e)] = append(names[kindOfEntry(e)], e.Name)
		if o.Do == token.List {
			for _, c := range above(o.From.Name, e.Name) {
				in[c] = true
			}
		}
	}
	if err := g.list(ctx, sorted(in)); err != nil {
		return nil, err
	}
	refused := map[acl.Kind]map[token.ObjectName]error{}
	for k, ns := range names {
		var err error
		if refused[k], err = g.decide(ctx, string(o.Do), k, ns, acl.ReadAttributes); err != nil {
			return nil, err
		}
	}
	out := make([]api.Entry, 0, len(es))
	for _, e := range es {
		if c, why := g.barred(e.Name); o.Do == token.List && why != nil {
			if !slices.ContainsFunc(out, func(b api.Entry) bool { return b.Name == c }) {
				out = append(out, withheld(c, containerType, why))
			}
			continue
		}
		if why := refused[kindOfEntry(e)][e.Name]; why != nil {
			e = withheld(e.Name, e.Type, why)
		}
		out = append(out, e)
	}
	return out, nil
}

func kindOfEntry(e api.Entry) acl.Kind {
	if e.Type == containerType {
		return acl.Container
	}
	return acl.Object
}

// withheld is an entry of which the account may know the name alone.
func withheld(name token.ObjectName, kind string, why error) api.Entry {
	p := problem.As(why)
	return api.Entry{Name: name, Type: kind, Code: p.Code, Detail: clip(p.Sentence())}
}

// addMade has the namespace know a container that was made. It belongs to whom it was made for, unless it was there before.
func (b *Broker) addMade(ctx context.Context, w *work, to token.Location, accounts []token.Identity, es []api.Entry) error {
	for _, e := range es {
		if e.Code != "" || e.Name == "" {
			continue
		}
		at, owner := to, token.Identity("")
		if at.Name = e.Name; e.Made {
			owner = accountAt(accounts, to.Provider)
		}
		if _, err := b.tree.Make(ctx, w.Tx, owner, at, acl.Container, w.now); err != nil {
			return err
		}
	}
	return nil
}

// looked is what is left to do with the answer to a lookup before its caller has it.
func (b *Broker) looked(ctx context.Context, o token.Order, r api.LookupResult, now time.Time) (api.LookupResult, error) {
	es, err := b.screen(ctx, o, r.Entries, now)
	if err != nil {
		return api.LookupResult{}, err
	}
	r.Entries = es
	at := o.From
	if o.Do == token.Make {
		at = o.To
	}
	if err := b.merge(ctx, o, at, es, now); err != nil || o.Do != token.Make {
		return r, err
	}
	made := slices.DeleteFunc(slices.Clone(es), func(e api.Entry) bool { return e.Name != o.To.Name || e.Code != "" })
	if len(made) == 0 {
		return r, nil
	}
	return r, b.write(ctx, now, func(w *work) error { return b.addMade(ctx, w, o.To, o.Accounts, made) })
}
