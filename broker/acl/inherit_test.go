package acl_test

import (
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
)

// TestInheritance has the table of what becomes of an entry one and two levels below
// where it stands: whether it is in force there, and with which flags it is shown. "-" is not at all.
func TestInheritance(t *testing.T) {
	t.Parallel()
	const (
		oi, ci, np, io = acl.ObjectInherit, acl.ContainerInherit, acl.NoPropagate, acl.InheritOnly
		in             = acl.Inherited
		not            = acl.Flags(0xFFFF)
	)
	for _, tc := range []struct {
		flags                        acl.Flags
		object, container            acl.Flags // shown one level below
		grandObject, grandContainer  acl.Flags // shown two levels below
		onObject, onContainer        bool      // in force one level below
		onGrandObject, onGrandContnr bool
	}{
		{0, not, not, not, not, false, false, false, false},
		{io, not, not, not, not, false, false, false, false},
		{np, not, not, not, not, false, false, false, false},
		{oi, in, in | oi | io, in, in | oi | io, true, false, true, false},
		{ci, not, in | ci, not, in | ci, false, true, false, true},
		{oi | ci, in, in | oi | ci, in, in | oi | ci, true, true, true, true},
		{oi | io, in, in | oi | io, in, in | oi | io, true, false, true, false},
		{ci | io, not, in | ci, not, in | ci, false, true, false, true},
		{oi | ci | io, in, in | oi | ci, in, in | oi | ci, true, true, true, true},
		{oi | np, in, not, not, not, true, false, false, false},
		{ci | np, not, in, not, not, false, true, false, false},
		{oi | ci | np, in, in, not, not, true, true, false, false},
		{oi | ci | np | io, in, in, not, not, true, true, false, false},
		{oi | np | io, in, not, not, not, true, false, false, false},
	} {
		e := acl.ACE{Who: "alice", Flags: tc.flags, Mask: 1}
		a, err := acl.New(e)
		if err != nil {
			t.Fatal(err)
		}
		check := func(levels int, kind acl.Kind, flags acl.Flags, force bool) {
			t.Helper()
			tgt := acl.Target{Kind: kind, Path: make([]acl.Level, levels+2)} // one more above, so that nothing is a root
			tgt.Path[levels].ACL = a
			shown := tgt.Logical()
			switch {
			case flags == not && len(shown) != 0:
				t.Errorf("%s: %d levels below on a %s: got %v, want it not to be shown", tc.flags, levels, kind, shown)
			case flags != not && (len(shown) != 1 || shown[0] != acl.ACE{Who: "alice", Flags: flags, Mask: 1}):
				t.Errorf("%s: %d levels below on a %s: got %v, want the flags %s", tc.flags, levels, kind, shown, flags)
			}
			if d := acl.Evaluate(alice, tgt, 1); d.Granted() != force {
				t.Errorf("%s: %d levels below on a %s: got %+v, want in force %v", tc.flags, levels, kind, d, force)
			}
		}
		check(0, acl.Object, tc.flags, tc.flags&io == 0)
		check(0, acl.Container, tc.flags, tc.flags&io == 0)
		check(1, acl.Object, tc.object, tc.onObject)
		check(1, acl.Container, tc.container, tc.onContainer)
		check(2, acl.Object, tc.grandObject, tc.onGrandObject)
		check(2, acl.Container, tc.grandContainer, tc.onGrandContnr)
		check(7, acl.Object, tc.grandObject, tc.onGrandObject)
		check(7, acl.Container, tc.grandContainer, tc.onGrandContnr)
	}
}

// TestLogicalOrder: own entries first, then those of the nearest container on.
func TestLogicalOrder(t *testing.T) {
	t.Parallel()
	tgt := target(t, acl.Object,
		"DENY a 0x0 0x1; ALLOW a 0x0 0x1",
		"ALLOW b OBJECT_INHERIT 0x1; ALLOW b CONTAINER_INHERIT 0x1; DENY b OBJECT_INHERIT,IDENTIFIER_GROUP 0x2",
		"AUDIT c OBJECT_INHERIT,CONTAINER_INHERIT 0x1")
	want := list(t, "DENY a 0x0 0x1; ALLOW a 0x0 0x1; ALLOW b INHERITED 0x1; DENY b INHERITED,IDENTIFIER_GROUP 0x2; AUDIT c INHERITED 0x1")
	got, err := acl.New(tgt.Logical()...)
	if err != nil || !got.Equal(want) {
		t.Errorf("got\n%s%v\nwant\n%s", got.Text(acl.Object), err, want.Text(acl.Object))
	}
}

// TestRootReachesEveryObject: changing the list of a root container reaches what is
// deep below it, with nothing to be done on the way.
func TestRootReachesEveryObject(t *testing.T) {
	t.Parallel()
	lists := []string{"ALLOW bob 0x0 0x1", none, none, none, none, none, "ALLOW bob 0x0 0x1"}
	if d := acl.Evaluate(root, target(t, acl.Object, lists...), acl.WriteACL); d.Granted() {
		t.Fatalf("got %+v, want an administrator to be denied below the root", d)
	}
	rootContainer := target(t, acl.Container, lists[len(lists)-1])
	if d := acl.Evaluate(root, rootContainer, acl.WriteACL); d.Outcome != acl.ForAdministrator || !d.Outcome.Recorded() {
		t.Fatalf("got %+v, want an administrator to be let in at the root, recorded", d)
	}
	lists[len(lists)-1] = "ALLOW ADMINUSERS@ OBJECT_INHERIT WRITE_ACL"
	if d := acl.Evaluate(root, target(t, acl.Object, lists...), acl.WriteACL); d.Outcome != acl.Allowed {
		t.Errorf("got %+v, want the new entry of the root to reach", d)
	}
}

// TestInheritedEntryWrittenBack: a list that is written back as it was shown is what
// it was, and an entry that somebody marks as inherited is not in force where it stands.
func TestInheritedEntryWrittenBack(t *testing.T) {
	t.Parallel()
	tgt := target(t, acl.Object, "ALLOW bob 0x0 0x1", "ALLOW alice OBJECT_INHERIT 0x1")
	shown, err := acl.New(tgt.Logical()...)
	if err != nil || shown.Len() != 2 {
		t.Fatalf("got %v, %v", shown, err)
	}
	back, err := acl.Parse(shown.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	if own := back.Own(); !own.Equal(tgt.Path[0].ACL) {
		t.Errorf("got %s, want %s", own.Text(acl.Object), tgt.Path[0].ACL.Text(acl.Object))
	}
	// The right is taken away above; a copy that was kept below by mistake gives it to nobody.
	kept := acl.Target{Path: []acl.Level{{ACL: back}, {}}}
	if d := acl.Evaluate(alice, kept, 1); d.Granted() {
		t.Errorf("got %+v by an entry that is not its own", d)
	}
	if d := acl.Evaluate(bob, kept, 1); !d.Granted() {
		t.Errorf("got %+v, want its own entry in force", d)
	}
	if got := list(t, "ALLOW bob INHERITED 0x1").Own(); !got.Equal(acl.ACL{}) {
		t.Errorf("got %s", got.Text(acl.Object))
	}
	above := target(t, acl.Object, none, "ALLOW alice INHERITED,OBJECT_INHERIT 0x1")
	if d := acl.Evaluate(alice, above, 1); d.Granted() || len(above.Logical()) != 0 {
		t.Errorf("got %+v, %v from a copy above", d, above.Logical())
	}
}

// TestDefaults: a root container that was made without a list.
func TestDefaults(t *testing.T) {
	t.Parallel()
	path := []acl.Level{{Owner: "alice"}, {Owner: "bob"}, {ACL: acl.RootDefault(), Owner: "olga"}}
	tgt := acl.Target{Path: path}
	for _, tc := range []struct {
		who  acl.Principal
		want acl.Mask
	}{{alice, acl.AllPerms}, {bob, acl.Read}, {olga, acl.Read}, {root, acl.Read}, {anonymous, 0}} {
		if got, _ := acl.Permitted(tc.who, tgt, acl.AllPerms); got != tc.want {
			t.Errorf("%q: got %s, want %s", tc.who.Name, got, tc.want)
		}
	}
	if got := len(tgt.Logical()); got != 2 {
		t.Errorf("got %d inherited entries, want 2", got)
	}
	alone := acl.Target{Path: []acl.Level{{ACL: acl.Default(), Owner: "alice"}}}
	if got, _ := acl.Permitted(alice, alone, acl.AllPerms); got != acl.AllPerms {
		t.Errorf("got %s for the owner of an object in no container", got)
	}
	if got, _ := acl.Permitted(bob, alone, acl.AllPerms); got != 0 {
		t.Errorf("got %s for a stranger", got)
	}
	for _, a := range []acl.ACL{acl.RootDefault(), acl.Default()} {
		if again, err := acl.Parse(a.Marshal()); err != nil || !again.Equal(a) {
			t.Errorf("got %v, %v", again, err)
		}
	}
}
