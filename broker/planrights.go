package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// ask asks the gate about all of a page at once. A refusal is of the whole plan: the source may not be listed any more, or nothing may be
// added to the destination.
func (p *planner) ask(ctx context.Context, es []api.Entry) (refused, err error) {
	if p.o.Scope == token.Tree {
		if refused, err := p.gate.order(ctx, p.o.Scope); err != nil || refused != nil {
			return refused, err
		}
	}
	var objects, there []token.ObjectName
	in, into := map[token.ObjectName]bool{}, map[token.ObjectName]bool{}
	for _, e := range es {
		dst, err := p.o.Destination(e.Name)
		if problem.Of(err) == problem.OrderNotCovered {
			continue
		}
		if p.o.Scope == token.Tree {
			for _, c := range above(p.o.From.Name, e.Name) {
				in[c] = true
			}
		}
		switch {
		case err != nil || e.Code != "":
		case e.Type == containerType:
			into[dst] = true
		case e.Type == objectType:
			objects, there = append(objects, e.Name), append(there, dst)
			into[holderOf(dst)] = true
		}
	}
	if err := p.gate.list(ctx, sorted(in)); err != nil {
		return nil, err
	}
	if p.sources, err = p.gate.sources(ctx, objects); err != nil {
		return nil, err
	}
	if p.o.IfExists == token.Compare { // whoever learns that an object is as the source has read it
		if p.compare, err = p.gate.decide(ctx, opCompare, acl.Object, there, acl.ReadObject); err != nil {
			return nil, err
		}
	}
	return nil, p.gate.land(ctx, sorted(into))
}

// sorted returns the members of a set.
func sorted(set map[token.ObjectName]bool) []token.ObjectName {
	out := make([]token.ObjectName, 0, len(set))
	for n := range set {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// bar reports whether a name is in a container that the account may not list. The container is reported then, once for all that is in it, of which
// nothing is named. What is in a container comes together in a listing.
func (p *planner) bar(name token.ObjectName) bool {
	c, why := p.gate.barred(name)
	if why == nil {
		return false
	}
	if !strings.HasPrefix(string(p.t.Resume), string(c)+"/") {
		p.refuse(c, why)
	}
	return true
}

// denies says why an object may not be copied, if that is so whatever its size.
func (p *planner) denies(src, dst token.ObjectName) error {
	if why := p.sources[src]; why != nil {
		return why
	}
	if why := p.compare[dst]; why != nil {
		return why
	}
	return p.gate.landings[holderOf(dst)].adds
}

// refuse notes a name that the gate refused.
func (p *planner) refuse(name token.ObjectName, why error) {
	e := problem.As(why)
	u := db.Unplanned{Name: string(name), Code: e.Code, Detail: e.Sentence()}
	p.report(u.Name, token.Denied, u.Code, u.Detail)
	p.refused = append(p.refused, u)
}

// namesRefused tells the subscriber of the first name of each kind of refusal: of a large tree not of every page anew.
func (p *planner) namesRefused(ctx context.Context) error {
	told := map[problem.Code]bool{}
	for _, u := range p.refused {
		if told[u.Code] {
			continue
		}
		told[u.Code] = true
		note := fmt.Sprintf("Some of what the order covers may not be copied; the first, %q: %s", u.Name, within(u.Detail))
		if err := p.b.deniedOnce(ctx, p.w, p.t, "gate "+string(u.Code), u.Code, note); err != nil {
			return err
		}
	}
	return nil
}

// stamped notes under what the items of the open batch were judged, and how fast they may be read.
func (p *planner) stamped(ctx context.Context) error {
	if p.gate == nil {
		return nil
	}
	was := p.open
	p.gate.stamp(&p.open)
	if was.Bat != 0 && was.Judged != p.open.Judged {
		p.open.Judged = 0 // some of its items were judged under what was then
	}
	if at := was.JudgeAfter; !at.IsZero() && (p.open.JudgeAfter.IsZero() || at.Before(p.open.JudgeAfter)) {
		p.open.JudgeAfter = at
	}
	var err error
	p.open.Rate, err = p.gate.rate(ctx, sourcesOf(p.items))
	return err
}

func sourcesOf(items []token.Item) []token.ObjectName {
	out := make([]token.ObjectName, len(items))
	for i, it := range items {
		out[i] = it.Src
	}
	return out
}

// barred ends the plan, with what was loaded: the order as a whole is refused now. What was found before goes on as far as its own rights reach.
func (p *planner) barred(ctx context.Context, why error) error {
	if err := p.close(ctx); err != nil {
		return err
	}
	e := problem.As(why)
	blame(p.t, e.Code, clip(e.Sentence()))
	p.t.Planned = true
	if err := p.w.keep(ctx, &p.gate.trail); err != nil {
		return err
	}
	return p.w.denied(ctx, p.t, e.Code, "Nothing more is taken from the source: "+within(clip(e.Sentence())))
}
