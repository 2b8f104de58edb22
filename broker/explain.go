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

// ExplainAccess says what the lists make of an attempt of who, an identity or ANONYMOUS@, at permissions at a place. It takes READ_ACL there; without it the
// caller is told of itself alone, and of no entry. Entries of containers above that are not inherited are shown to who has READ_ACL there.
func (b *Broker) ExplainAccess(ctx context.Context, peer certs.Peer, of Place, who, want string, now time.Time) (api.Explanation, error) {
	var out api.Explanation
	id, mask, err := attempt(who, want)
	if err == nil {
		err = b.checkPlace(of)
	}
	if err == nil {
		err = b.asking(ctx, peer.Identity, of.At.Provider, opExplain, now, func(tx *db.Tx, a tree.Attempt) error {
			caller := a.By
			s, err := b.spot(ctx, tx, of)
			if err != nil {
				return err
			}
			self := id == peer.Identity
			if err := b.tree.Decide(a, s, acl.ReadACL); err != nil {
				if !self || !b.tree.Sees(caller, s) {
					return err
				}
				out = b.ownAccess(caller, s, mask)
				return nil
			}
			asked := caller
			if !self {
				if asked, err = b.tree.Principal(ctx, tx, id, of.At.Provider); err != nil {
					return err
				}
			}
			out = b.explained(caller, asked, s, mask)
			return nil
		})
	}
	if err != nil {
		return api.Explanation{}, b.deny(peer.Identity, err)
	}
	return out, nil
}

// attempt reads who is asked of and what is attempted.
func attempt(who, want string) (token.Identity, acl.Mask, error) {
	var id token.Identity
	var err error
	if acl.Who(who) != acl.Anonymous {
		if id, err = token.ParseIdentity(who); err != nil {
			return "", 0, err
		}
	}
	mask, err := acl.ParseMask(want)
	if err == nil && mask == 0 {
		err = problem.New(problem.Malformed, "No permission is asked for")
	}
	return id, mask, err
}

// ownAccess tells somebody who may not read the list what it comes to for themselves.
func (b *Broker) ownAccess(p acl.Principal, s tree.Spot, want acl.Mask) api.Explanation {
	out := b.explanation(p, s, want, acl.Evaluate(p, s.Target, want))
	for _, g := range p.Groups {
		out.Groups = append(out.Groups, string(g))
	}
	out.Outcome = "denied"
	if out.Granted {
		out.Outcome = "allowed"
		out.Sentence = string(p.Name) + " gets " + want.Text(s.Kind) + " on " + s.At.String() + "."
	} else if err := b.tree.Decide(tree.Attempt{By: p, Trail: new(tree.Trail)}, s, want); err != nil { // nobody attempts it: nothing is recorded
		out.Sentence = problem.As(err).Sentence()
	}
	out.Text = out.Sentence + "\n"
	return out
}

func (b *Broker) explanation(p acl.Principal, s tree.Spot, want acl.Mask, d acl.Decision) api.Explanation {
	out := api.Explanation{
		At: s.At, Kind: kindOf(s.Kind), Principal: string(p.Name), Groups: []string{}, Wanted: names(want, s.Kind), Granted: d.Granted(), Missing: []string{},
		Steps: []api.AccessStep{},
	}
	if p.Name == "" {
		out.Principal = string(acl.Anonymous)
	}
	return out
}

// explained is the walk for asked, as caller may read it.
func (b *Broker) explained(caller, asked acl.Principal, s tree.Spot, want acl.Mask) api.Explanation {
	e := acl.Explain(asked, s.Target, want)
	mayRead := []bool{true}
	places := []token.Location{s.At}
	for up, ok := s.Up(); ok; up, ok = up.Up() {
		mayRead = append(mayRead, b.tree.May(caller, up, acl.ReadACL) != 0)
		places = append(places, up.At)
	}
	var shown []acl.Step
	for _, step := range e.Steps {
		if step.Verdict != acl.Elsewhere || mayRead[step.At.Level] {
			shown = append(shown, step)
		}
	}
	e.Steps = shown
	out := b.explanation(asked, s, want, e.Decision)
	for _, g := range asked.Groups { // of others no more than the entries say anyway
		named := func(step acl.Step) bool { return step.ACE.Flags&acl.IdentifierGroup != 0 && step.ACE.Who == g }
		if asked.Name == caller.Name || caller.Status == acl.Administrating || slices.ContainsFunc(e.Steps, named) {
			out.Groups = append(out.Groups, string(g))
		}
	}
	out.Outcome, out.Missing = outcomes[e.Decision.Outcome], names(e.Decision.Missing, s.Kind)
	out.Sentence, out.Text = e.Sentence(s.Names...), e.Text(s.Names...)
	for _, step := range e.Steps {
		k := acl.Container
		if step.At.Level == 0 {
			k = s.Kind
		}
		out.Steps = append(out.Steps, api.AccessStep{At: places[step.At.Level], Entry: step.At.Entry + 1, ACE: entry(step.ACE, k), Verdict: verdicts[step.Verdict],
			Bits: names(step.Bits, s.Kind)})
	}
	return out
}

// outcomes and verdicts are the words of the surface.
var (
	outcomes = map[acl.Outcome]string{
		acl.Unmentioned: "unmentioned", acl.Denied: "denied", acl.Allowed: "allowed", acl.ForOwner: "for-owner", acl.ForAdministrator: "for-administrator",
	}
	verdicts = map[acl.Verdict]string{
		acl.Elsewhere: "elsewhere", acl.Stranger: "stranger", acl.Silent: "silent", acl.Allows: "allows", acl.Denies: "denies", acl.Audits: "audits", acl.Unread: "unread",
	}
)
