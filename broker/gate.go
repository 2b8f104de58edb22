package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// What a copy takes. It carries the metadata of an object along with the value, so it reads both.
const (
	toCopy = acl.ReadObject | acl.ReadMetadata
	toAdd  = acl.AddObject
	toMake = acl.AddSubcontainer
)

// What an attempt is called where it is recorded.
const (
	opCopyFrom = "copy-from"
	opCopyTo   = "copy-to"
	opList     = "list"
	opStat     = "stat"
	opMake     = "make"
	opCompare  = "compare"
	opErase    = "erase"
	opShow     = "show"
	opChange   = "change"
	opExplain  = "explain"
	opFind     = "find"
	opAudit    = "audit"
)

// A gate asks the namespace what the accounts of an order may do at its two ends, in one transaction. Everything that is done for an order comes
// through here first: the order itself, a lookup, each page of a plan, each batch before it is minted, and whatever rests on an answer
// again once the answer may have changed. A refusal of it is a *problem.Error that the subscriber is told as it is.
type gate struct {
	b        *Broker
	tx       *db.Tx
	now      time.Time
	from, to token.Location // of the order; zero if it has none
	reads    acl.Principal  // the account at the source
	adds     acl.Principal  // the account at the destination
	trail    tree.Trail     // must be kept before anybody is answered
	src, dst *ground

	gen      int64     // of lists and settings at both ends, from 1
	again    time.Time // from when an answer may be another without any change; zero: never
	vague    bool      // an answer was given for want of knowledge, and is none for good
	placed   space.Region
	stores   []db.Exporter // of the destination
	exported bool          // placed is looked up, and some agent exports the destination

	lists    map[token.ObjectName]error   // by container of the source: why it may not be listed
	landings map[token.ObjectName]landing // by container of the destination
	meters   map[token.ObjectName]*meter
}

// A landing is what is to be said of adding objects to a container.
type landing struct {
	adds  error     // why none may be added; nil: they may
	makes error     // why the container may not be made; nil: it may, or is known to be there
	near  tree.Spot // what is in force in it
}

// gate returns the gate of what goes from one place to another for accounts.
func (b *Broker) gate(ctx context.Context, tx *db.Tx, from, to token.Location, accounts []token.Identity, now time.Time) (*gate, error) {
	g := &gate{b: b, tx: tx, now: now, from: from, to: to, src: newGround(b.tree, tx, from), dst: newGround(b.tree, tx, to),
		lists: map[token.ObjectName]error{}, landings: map[token.ObjectName]landing{}, meters: map[token.ObjectName]*meter{}}
	var err error
	if g.gen, err = generation(ctx, tx, from, to); err != nil {
		return nil, err
	}
	for _, end := range []struct {
		l   token.Location
		who *acl.Principal
	}{{from, &g.reads}, {to, &g.adds}} {
		if end.l.Provider == "" {
			continue
		}
		account := accountAt(accounts, end.l.Provider)
		if account == "" {
			return nil, fmt.Errorf("asking for the rights at %s: the order names no account there", end.l)
		}
		if *end.who, err = b.tree.Principal(ctx, tx, account, end.l.Provider); err != nil {
			return nil, err
		}
	}
	if to.Provider != "" {
		es, err := tx.Exporters(ctx, to.Provider, to.Container)
		if err != nil {
			return nil, err
		}
		g.exported, g.placed, g.stores = len(es) > 0, b.placeOf(to, es), es
	}
	return g, nil
}

// gateOf is gate for a transfer.
func (b *Broker) gateOf(ctx context.Context, tx *db.Tx, t db.Transfer, now time.Time) (*gate, error) {
	return b.gate(ctx, tx, t.From, t.To, t.Accounts, now)
}

// generation returns a number from 1 that has grown if anything has changed that decides about orders between two places.
func generation(ctx context.Context, tx *db.Tx, from, to token.Location) (int64, error) {
	sum := int64(1)
	for _, p := range slices.Compact([]token.Provider{from.Provider, to.Provider}) {
		n, err := tx.ACLGen(ctx, p)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// stamp notes under what the items of a batch were judged, for as long as that is no older.
func (g *gate) stamp(bt *db.Batch) {
	bt.Judged, bt.JudgeAfter = g.gen, g.again
	if g.vague {
		bt.Judged = 0
	}
}

// stale reports whether the items of a batch are to be judged anew.
func (g *gate) stale(bt db.Batch) bool {
	return bt.Judged != g.gen || !bt.JudgeAfter.IsZero() && !g.now.Before(bt.JudgeAfter)
}

// order judges an order to copy as a whole: whether its source may be read, or listed, and whether objects may be added to its
// destination. A refusal is of the order; it is nil if there is none.
func (g *gate) order(ctx context.Context, scope token.Scope) (refused, err error) {
	into := g.to.Name
	if scope == token.One {
		into = holderOf(into)
		names, err := g.sources(ctx, []token.ObjectName{g.from.Name})
		if err != nil || names[g.from.Name] != nil {
			return names[g.from.Name], err
		}
	} else {
		if err := g.list(ctx, []token.ObjectName{g.from.Name}); err != nil || g.lists[g.from.Name] != nil {
			return g.lists[g.from.Name], err
		}
	}
	if err := g.land(ctx, []token.ObjectName{into}); err != nil {
		return nil, err
	}
	return g.landings[into].adds, nil
}

// attempt is what the account at the end that an operation is about attempts.
func (g *gate) attempt(op string) (tree.Attempt, token.Location) {
	if op == opCopyTo || op == opMake || op == opCompare {
		return tree.Attempt{By: g.adds, Op: op, Trail: &g.trail}, g.to
	}
	return tree.Attempt{By: g.reads, Op: op, Trail: &g.trail}, g.from
}

// decide judges many names at the end that an operation is about, and returns the refusals.
func (g *gate) decide(ctx context.Context, op string, kind acl.Kind, names []token.ObjectName, want acl.Mask) (map[token.ObjectName]error, error) {
	if len(names) == 0 {
		return nil, nil
	}
	a, at := g.attempt(op)
	return g.b.tree.DecideMany(ctx, g.tx, a, tree.Page{At: at, Kind: kind, Names: names}, want)
}

// sources returns the names of objects that may not be copied from the source, and why.
func (g *gate) sources(ctx context.Context, names []token.ObjectName) (map[token.ObjectName]error, error) {
	return g.decide(ctx, opCopyFrom, acl.Object, names, toCopy)
}

// list finds out which containers of the source may be listed.
func (g *gate) list(ctx context.Context, containers []token.ObjectName) error {
	fresh := slices.DeleteFunc(slices.Clone(containers), func(c token.ObjectName) bool { _, ok := g.lists[c]; return ok })
	if len(fresh) == 0 {
		return nil
	}
	refused, err := g.decide(ctx, opList, acl.Container, fresh, acl.ListContainer)
	for _, c := range fresh {
		g.lists[c] = refused[c]
	}
	return err
}

// barred returns the topmost container at or above a name's own, from the source of the order on, that may not be listed, and why; or nil. What is in it is
// not to be named: who lists such a tree by hand would not come by it. The containers must have been asked for with list.
func (g *gate) barred(name token.ObjectName) (token.ObjectName, error) {
	for _, c := range above(g.from.Name, name) {
		if err := g.lists[c]; err != nil {
			return c, err
		}
	}
	return "", nil
}

// above returns the containers of a name below root, root first. One that is not below root has none.
func above(root, name token.ObjectName) []token.ObjectName {
	if root != "" && !strings.HasPrefix(string(name), string(root)+"/") {
		return nil
	}
	var out []token.ObjectName
	for c := holderOf(name); len(c) > len(root); c = holderOf(c) {
		out = append(out, c)
	}
	out = append(out, root)
	slices.Reverse(out)
	return out
}

// land finds out what is to be said of adding objects to containers of the destination. A container that is not known to be there has to be made, and
// those above it.
func (g *gate) land(ctx context.Context, containers []token.ObjectName) error {
	fresh := map[token.ObjectName]bool{}
	for _, c := range containers {
		if _, ok := g.landings[c]; !ok {
			fresh[c] = true
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(fresh))
	if err := g.dst.look(ctx, names); err != nil {
		return err
	}
	in := map[token.ObjectName]bool{} // in which a container has to be made
	for _, c := range names {
		for ; !g.dst.known[c]; c = holderOf(c) {
			in[holderOf(c)] = true
		}
	}
	adds, err := g.decide(ctx, opCopyTo, acl.Container, names, toAdd)
	if err != nil {
		return err
	}
	var makes map[token.ObjectName]error
	if len(in) > 0 {
		if makes, err = g.decide(ctx, opCopyTo, acl.Container, slices.Sorted(maps.Keys(in)), toMake); err != nil {
			return err
		}
	}
	for _, c := range names {
		if g.landings[c], err = g.landing(ctx, c, adds[c], makes); err != nil {
			return err
		}
	}
	return nil
}

// landing puts together what was decided about one container.
func (g *gate) landing(ctx context.Context, c token.ObjectName, adds error, makes map[token.ObjectName]error) (landing, error) {
	l := landing{adds: adds}
	var err error
	if l.near, err = g.dst.near(ctx, c); err != nil {
		return l, err
	}
	for up := c; !g.dst.known[up]; up = holderOf(up) {
		if why := makes[holderOf(up)]; why != nil {
			l.makes = why // the topmost of those that may not be made
		}
	}
	closed := g.closed(l.near.Settings, g.dst.at(c))
	if !g.dst.known[c] && l.makes == nil {
		l.makes = closed
	}
	for _, why := range []error{l.makes, closed, g.misplaced(l.near.Settings)} {
		if l.adds == nil {
			l.adds = why
		}
	}
	return l, nil
}

// closed says why nothing may change in a container with those settings: it is under retention or a hold.
func (g *gate) closed(s space.Settings, at token.Location) error {
	if start := s.Retention.Start; s.Has(space.RetentionPeriod) && g.now.Before(start) && (g.again.IsZero() || start.Before(g.again)) {
		g.again = start
	}
	err := s.CheckFree(g.now)
	if err == nil {
		return nil
	}
	return problem.New(problem.Of(err), "Nothing can be added to %s, whose settings bind all that is in it: %s.", at, within(problem.As(err).Sentence()))
}

// misplaced says why nothing may be kept where the destination is, or as it is: by its place, or because its store cannot wipe as is asked for. While no agent has said that it exports it, nothing can be brought there
// either, and it is asked for again.
func (g *gate) misplaced(s space.Settings) error {
	if !g.exported {
		g.vague = g.vague || s.Has(space.GeographicPlacement) || s.Sanitization != ""
		return nil
	}
	err := s.CheckPlace(g.placed)
	if err == nil {
		return checkSanitization(s, g.to, g.stores)
	}
	return problem.New(problem.PlacementRefused, "The container %q of %s is not where the object may be kept: %s.", g.to.Container, g.to.Provider, within(problem.As(err).Sentence()))
}

// items judges items of a batch anew, and returns the refusals by index. A listing that was taken is not asked for again: what rests on an item is the
// right to read it, and that to add it.
func (g *gate) items(ctx context.Context, items []token.Item) (map[int]error, error) {
	srcs, into := make([]token.ObjectName, len(items)), make([]token.ObjectName, len(items))
	for i, it := range items {
		srcs[i], into[i] = it.Src, holderOf(it.Dst)
	}
	refused, err := g.sources(ctx, srcs)
	if err != nil {
		return nil, err
	}
	if err := g.land(ctx, into); err != nil {
		return nil, err
	}
	out := map[int]error{}
	for i, it := range items {
		if why := refused[it.Src]; why != nil {
			out[i] = why
		} else if why := g.landings[into[i]].adds; why != nil {
			out[i] = why
		}
	}
	return out, nil
}

// hash returns the hash that an object of that name is to have at the destination, or none. Its container must have been asked for with land.
func (g *gate) hash(dst token.ObjectName) token.ValueHash {
	return token.ValueHash(g.landings[holderOf(dst)].near.Settings.Hash)
}

// rate returns how fast objects of the source may be read: the least of what is in force for any of them, bytes a second; 0 is no limit.
func (g *gate) rate(ctx context.Context, names []token.ObjectName) (int64, error) {
	holders := map[token.ObjectName]bool{}
	for _, n := range names {
		holders[holderOf(n)] = true
	}
	if err := g.src.look(ctx, slices.Sorted(maps.Keys(holders))); err != nil {
		return 0, err
	}
	own := map[token.ObjectName]tree.Spot{} // of objects with settings of their own
	rows, err := g.tx.Nodes(ctx, g.from.Provider, g.from.Container, names)
	if err != nil {
		return 0, err
	}
	for _, n := range rows {
		if n.Kind != acl.Object || n.Data == "" {
			continue
		}
		if own[n.Name], err = g.b.tree.Spot(ctx, g.tx, n.At(), acl.Object); err != nil {
			return 0, err
		}
	}
	least := int64(0)
	for _, n := range names {
		s, ok := own[n]
		if !ok {
			if s, err = g.src.near(ctx, holderOf(n)); err != nil {
				return 0, err
			}
		}
		if s.Settings.Has(space.Throughput) && (least == 0 || s.Settings.Rate < least) {
			least = s.Settings.Rate
		}
	}
	return least, nil
}
