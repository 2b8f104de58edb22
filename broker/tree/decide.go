package tree

import (
	"fmt"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token/problem"
)

// toSee are the permissions of which each lets its holder know that a place is there.
const toSee = acl.ReadAttributes | acl.ReadMetadata | acl.ReadObject // READ_OBJECT is LIST_CONTAINER on a container

// Decide judges one attempt, of p. There are three outcomes:
//
//  1. nil: p is granted all of want at s.
//  2. problem.NotPermitted: it is not, and may see the place. The sentence names principal, place and what is missing, and the
//     entry that decided if p has READ_ACL where that stands.
//  3. problem.Hidden: it is not, and may not see the place. The sentence is the same whether or not anything is there.
//
// A place may be seen by who is granted READ_ATTRIBUTES, READ_METADATA or READ_OBJECT (LIST_CONTAINER) on it, or LIST_CONTAINER on
// what holds it. What has to be recorded of the attempt, whatever the outcome, is in its trail then.
func (t *Tree) Decide(a Attempt, s Spot, want acl.Mask) error {
	if want == 0 {
		return fmt.Errorf("deciding about %q at %s: nothing was asked for", a.Op, s.At)
	}
	d := acl.Evaluate(a.By, s.Target, want)
	a.note(s, want, d)
	if d.Granted() {
		return nil
	}
	return refusal(a.By, s.Target, s.Names, want)
}

// DecideDeletion judges an attempt to delete s, with the outcomes of Decide: it takes DELETE on s, and DELETE_OBJECT or
// DELETE_SUBCONTAINER on what holds it. Holds and retention are not looked at.
func (t *Tree) DecideDeletion(a Attempt, s Spot) error {
	p := a.By
	d := acl.CheckDelete(p, s.Target)
	a.note(s, acl.Delete, d.Self)
	up, held := s.Up()
	if held {
		a.note(up, acl.DeleteObject, d.Parent)
	}
	switch {
	case !d.Self.Granted():
		return refusal(p, s.Target, s.Names, acl.Delete)
	case !d.Parent.Granted():
		if !sees(p, s.Target) {
			return refusal(p, s.Target, s.Names, acl.Delete) // of what it may not see
		}
		return refusal(p, up.Target, up.Names, acl.DeleteObject)
	}
	return nil
}

// May returns which permissions of among p would be granted at s, each asked for alone. It records nothing: it is for showing
// what may be seen, after Decide let p in, and never lets anybody do anything.
func (t *Tree) May(p acl.Principal, s Spot, among acl.Mask) acl.Mask {
	granted, _ := acl.Permitted(p, s.Target, among)
	return granted
}

// Sees reports whether p may know of s at all.
func (t *Tree) Sees(p acl.Principal, s Spot) bool { return sees(p, s.Target) }

func sees(p acl.Principal, t acl.Target) bool {
	if granted, _ := acl.Permitted(p, t, toSee); granted != 0 {
		return true
	}
	up, ok := t.Parent()
	if !ok {
		return false
	}
	granted, _ := acl.Permitted(p, up, acl.ListContainer)
	return granted != 0
}

// refusal is the one formulation of a refusal of want, which was judged before.
func refusal(p acl.Principal, t acl.Target, names []string, want acl.Mask) error {
	if !sees(p, t) {
		return problem.New(problem.Hidden, "There is nothing at %s that %s may see.", names[0], shown(p.Name))
	}
	e := acl.Explanation{Principal: p, Target: t, Want: want, Decision: acl.Evaluate(p, t, want)} // without the steps, which may be many
	if e.Decision.Outcome == acl.Unmentioned && mayRead(p, t, 0) || e.Decision.Outcome == acl.Denied && mayRead(p, t, e.Decision.At.Level) {
		return problem.New(problem.NotPermitted, "%s", e.Sentence(names...))
	}
	granted, _ := acl.Permitted(p, t, want)
	missing := want &^ granted
	if missing == 0 { // each of them alone would be granted: an entry denies one that another allows before
		missing = want
	}
	return problem.New(problem.NotPermitted, "%s does not get %s on %s: no right to it was found.", shown(p.Name), missing.Text(t.Kind), names[0])
}

// mayRead reports whether p may read the list that stands levels above t.
func mayRead(p acl.Principal, t acl.Target, levels int) bool {
	if levels > 0 {
		t = acl.Target{Kind: acl.Container, Path: t.Path[levels:]}
	}
	granted, _ := acl.Permitted(p, t, acl.ReadACL)
	return granted != 0
}

func shown(w acl.Who) string {
	if w == "" {
		return "somebody anonymous"
	}
	return string(w)
}
