package acl_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
)

// The evaluator below follows the text of the standard, as docs/adr reads it, and
// shares nothing with the one that it checks: lists are copied from a container to
// what it holds, one level at a time, with the flags that they get there, and then walked.

// naiveList returns the whole list of t, made from the root down.
func naiveList(t acl.Target) []acl.ACE {
	var above []acl.ACE // the whole list of the container above
	for i := len(t.Path) - 1; i >= 0; i-- {
		isContainer := i > 0 || t.Kind == acl.Container
		var here []acl.ACE
		for _, e := range t.Path[i].ACL.All() {
			if e.Flags&acl.Inherited == 0 {
				here = append(here, e)
			}
		}
		for _, e := range above {
			objects := e.Flags&acl.ObjectInherit != 0
			containers := e.Flags&acl.ContainerInherit != 0
			once := e.Flags&acl.NoPropagate != 0
			group := e.Flags & acl.IdentifierGroup
			child := e
			switch {
			case !isContainer && objects:
				child.Flags = group | acl.Inherited
			case isContainer && containers && once:
				child.Flags = group | acl.Inherited
			case isContainer && containers && objects:
				child.Flags = group | acl.Inherited | acl.ContainerInherit | acl.ObjectInherit
			case isContainer && containers:
				child.Flags = group | acl.Inherited | acl.ContainerInherit
			case isContainer && objects && !once:
				child.Flags = group | acl.Inherited | acl.ObjectInherit | acl.InheritOnly
			default:
				continue
			}
			here = append(here, child)
		}
		above = here
	}
	return above
}

func naiveMeans(e acl.ACE, p acl.Principal, owner, group acl.Who) bool {
	groups := map[acl.Who]bool{}
	for _, g := range p.Groups {
		groups[g] = p.Name != ""
	}
	administrator := p.Status == acl.Administrating && p.Name != ""
	switch e.Who {
	case "EVERYONE@":
		return true
	case "ANONYMOUS@":
		return p.Name == ""
	case "AUTHENTICATED@":
		return p.Name != ""
	case "OWNER@":
		return p.Name != "" && p.Name == owner
	case "GROUP@":
		return group != "" && groups[group]
	case "ADMINISTRATOR@", "ADMINUSERS@":
		return administrator
	}
	if e.Flags&acl.IdentifierGroup != 0 {
		return groups[e.Who]
	}
	return p.Name == e.Who
}

// naive evaluates, and says what is to be audited.
func naive(p acl.Principal, t acl.Target, want acl.Mask) (acl.Outcome, acl.Mask) {
	l := naiveList(t)
	owner, group := t.Path[0].Owner, t.Path[0].Group
	var audited acl.Mask
	for _, e := range l {
		if e.Type == acl.Audit && e.Flags&acl.InheritOnly == 0 && naiveMeans(e, p, owner, group) {
			audited |= e.Mask & want
		}
	}
	var m acl.Mask
	for _, e := range l {
		if e.Flags&acl.InheritOnly != 0 || !naiveMeans(e, p, owner, group) {
			continue
		}
		if e.Type == acl.Deny {
			if e.Mask&want != 0 {
				return acl.Denied, audited
			}
		}
		if e.Type == acl.Allow {
			m |= e.Mask
			if m&want == want {
				return acl.Allowed, audited
			}
		}
	}
	if t.Kind == acl.Container && len(t.Path) == 1 {
		if p.Name != "" && p.Name == owner {
			return acl.ForOwner, audited
		}
		if p.Status == acl.Administrating && p.Name != "" {
			return acl.ForAdministrator, audited
		}
	}
	return acl.Unmentioned, audited
}

// dice makes random cases. Few names and few bits, so that entries meet.
type dice struct{ *rand.Rand }

func one[T any](d dice, of ...T) T { return of[d.IntN(len(of))] }

func (d dice) mask() acl.Mask {
	m := acl.Mask(0)
	for range 1 + d.IntN(3) {
		m |= one(d, acl.ReadObject, acl.WriteObject, acl.ReadMetadata, acl.DeleteObject, acl.Delete, acl.WriteACL)
	}
	return one(d, m, m, m, m, acl.AllPerms, acl.Read, 0)
}

func (d dice) ace() acl.ACE {
	e := acl.ACE{
		Type: one(d, acl.Allow, acl.Allow, acl.Allow, acl.Deny, acl.Audit),
		Who: one[acl.Who](d, "alice", "alice", "bob", "bob", "eng", "ops", "alice", "OWNER@", "GROUP@", "EVERYONE@", "ANONYMOUS@", "AUTHENTICATED@",
			"ADMINISTRATOR@", "ADMINUSERS@", "OTHERS@"),
		Mask: d.mask(),
	}
	for _, f := range []acl.Flags{acl.ObjectInherit, acl.ContainerInherit, acl.ObjectInherit | acl.ContainerInherit} {
		if d.IntN(3) == 0 {
			e.Flags |= f
		}
	}
	for _, f := range []acl.Flags{acl.NoPropagate, acl.InheritOnly, acl.Inherited} {
		if d.IntN(6) == 0 {
			e.Flags |= f
		}
	}
	if e.Who == "eng" || e.Who == "ops" || d.IntN(10) == 0 {
		e.Flags |= acl.IdentifierGroup
	}
	return e
}

func (d dice) target(tb testing.TB) acl.Target {
	t := acl.Target{Kind: one(d, acl.Object, acl.Container), Path: make([]acl.Level, 1+d.IntN(5))}
	for i := range t.Path {
		entries := make([]acl.ACE, d.IntN(5))
		for j := range entries {
			entries[j] = d.ace()
		}
		a, err := acl.New(entries...)
		if err != nil {
			tb.Fatal(err)
		}
		t.Path[i] = acl.Level{ACL: a, Owner: one[acl.Who](d, "alice", "bob", ""), Group: one[acl.Who](d, "eng", "ops", "")}
	}
	return t
}

func (d dice) principal() acl.Principal {
	p := acl.Principal{Name: one[acl.Who](d, "alice", "alice", "bob", "carol", ""), Status: one(d, acl.Ordinary, acl.Ordinary, acl.Administrating)}
	for _, g := range []acl.Who{"eng", "ops", "alice"} {
		if d.IntN(3) == 0 {
			p.Groups = append(p.Groups, g)
		}
	}
	return p
}

// TestAgreesWithANaiveEvaluator compares a million random cases: list, principal, mask and tree.
func TestAgreesWithANaiveEvaluator(t *testing.T) {
	t.Parallel()
	cases := 1_000_000
	if testing.Short() {
		cases = 20_000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d cases", seed, cases)
	d := dice{rand.New(rand.NewPCG(seed, 0))}
	seen := map[acl.Outcome]int{}
	audited := 0
	for n := range cases {
		tgt, p, want := d.target(t), d.principal(), d.mask()
		got := acl.Evaluate(p, tgt, want)
		outcome, audit := naive(p, tgt, want)
		if want == 0 {
			outcome = acl.Allowed // asked for nothing
		}
		seen[outcome]++
		if audit != 0 {
			audited++
		}
		if got.Outcome != outcome || got.Audited != audit {
			t.Fatalf("case %d of seed %d: got %+v, the naive evaluator has %d and %s\n%s", n, seed, got, outcome, audit, acl.Explain(p, tgt, want).Text())
		}
		if n%16 == 0 {
			agree(t, p, tgt, want)
		}
	}
	for _, o := range []acl.Outcome{acl.Unmentioned, acl.Denied, acl.Allowed, acl.ForOwner, acl.ForAdministrator} {
		if seen[o] < cases/500 {
			t.Errorf("outcome %d came up %d times, too few to prove anything", o, seen[o])
		}
	}
	if audited < cases/500 {
		t.Errorf("%d cases were audited, too few to prove anything", audited)
	}
	t.Logf("outcomes %v, audited %d", seen, audited)
}

// agree compares all else that can be compared about one case.
func agree(t *testing.T, p acl.Principal, tgt acl.Target, want acl.Mask) {
	t.Helper()
	if got, naively := fmt.Sprint(tgt.Logical()), fmt.Sprint(naiveList(tgt)); got != naively {
		t.Fatalf("shown: got %s, the naive list is %s", got, naively)
	}
	e := acl.Explain(p, tgt, want)
	if e.Decision != acl.Evaluate(p, tgt, want) {
		t.Fatalf("explained: got %+v", e.Decision)
	}
	var granted, recorded acl.Mask
	for _, perm := range permissions {
		if o, _ := naive(p, tgt, perm.bit); o.Granted() {
			granted |= perm.bit
			if o != acl.Allowed {
				recorded |= perm.bit
			}
		}
	}
	if g, r := acl.Permitted(p, tgt, acl.AllPerms); g != granted || r != recorded {
		t.Fatalf("permitted: got %s and %s, naively %s and %s", g, r, granted, recorded)
	}
	self, _ := naive(p, tgt, acl.Delete)
	parent := acl.Allowed
	if len(tgt.Path) > 1 {
		parent, _ = naive(p, acl.Target{Kind: acl.Container, Path: tgt.Path[1:]}, 0x40)
	}
	if d := acl.CheckDelete(p, tgt); d.Self.Outcome != self || d.Parent.Outcome != parent {
		t.Fatalf("deletion: got %+v, naively %d and %d", d, self, parent)
	}
}
