package acl_test

import (
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
)

var (
	alice     = named("alice")
	bob       = named("bob", "eng", "staff")
	olga      = named("olga") // owns every target of the tests
	root      = admin("root")
	anonymous = acl.Principal{}
)

// TestEvaluationVectors has the vectors of the evaluation rules.
func TestEvaluationVectors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		kind  acl.Kind
		lists []string // what is asked for, then those above it
		who   acl.Principal
		want  acl.Mask
		got   acl.Outcome
	}{
		{"1 empty list, anybody", acl.Object, []string{"", none}, alice, 1, acl.Unmentioned},
		{"1 empty list, its owner", acl.Object, []string{"", none}, olga, 1, acl.Unmentioned},
		{"1 empty list, an administrator", acl.Object, []string{"", none}, root, 1, acl.Unmentioned},
		{"1 empty list of a container below the root, an administrator", acl.Container, []string{"", none}, root, 1, acl.Unmentioned},
		{"2 granted twice is granted", acl.Object, []string{"ALLOW alice 0x0 0x1; ALLOW alice 0x0 0x9", none}, alice, 0x9, acl.Allowed},
		{"3 denied to one, rest goes on", acl.Object, []string{"DENY bob 0x0 0x2; ALLOW EVERYONE@ 0x0 0x3", none}, bob, 0x1, acl.Allowed},
		{"3 denied to one", acl.Object, []string{"DENY bob 0x0 0x2; ALLOW EVERYONE@ 0x0 0x3", none}, bob, 0x2, acl.Denied},
		{"3 denied to one, not to others", acl.Object, []string{"DENY bob 0x0 0x2; ALLOW EVERYONE@ 0x0 0x3", none}, alice, 0x3, acl.Allowed},
		{"3 any denied bit denies all", acl.Object, []string{"DENY bob 0x0 0x2; ALLOW EVERYONE@ 0x0 0x3", none}, bob, 0x3, acl.Denied},
		{"4 the order counts", acl.Object, []string{"ALLOW EVERYONE@ 0x0 0x2; DENY bob 0x0 0x2", none}, bob, 0x2, acl.Allowed},
		{"5 only to be inherited", acl.Container, []string{"ALLOW OWNER@ INHERIT_ONLY ALL_PERMS", none}, olga, 0x1, acl.Unmentioned},
		{"5 only to be inherited, on an object", acl.Object, []string{"ALLOW OWNER@ INHERIT_ONLY,OBJECT_INHERIT ALL_PERMS", none}, olga, 0x1, acl.Unmentioned},
		{"6 root, owner", acl.Container, []string{"ALLOW alice 0x0 0x1"}, olga, 0x2, acl.ForOwner},
		{"6 root, administrator", acl.Container, []string{"ALLOW alice 0x0 0x1"}, root, 0x2, acl.ForAdministrator},
		{"6 root, a stranger", acl.Container, []string{"ALLOW alice 0x0 0x1"}, bob, 0x2, acl.Unmentioned},
		{"6 root, anonymous", acl.Container, []string{"ALLOW alice 0x0 0x1"}, anonymous, 0x2, acl.Unmentioned},
		{"6 root, owner, half by an entry", acl.Container, []string{"ALLOW olga 0x0 0x1"}, olga, 0x3, acl.ForOwner},
		{"6 root, owner denied by an entry", acl.Container, []string{"DENY EVERYONE@ 0x0 0x2"}, olga, 0x2, acl.Denied},
		{"6 root, administrator denied by an entry", acl.Container, []string{"DENY ADMINISTRATOR@ 0x0 0x2"}, root, 0x3, acl.Denied},
		{"6 the same on a container below, owner", acl.Container, []string{"ALLOW alice 0x0 0x1", none}, olga, 0x2, acl.Unmentioned},
		{"6 the same on a container below, administrator", acl.Container, []string{"ALLOW alice 0x0 0x1", none}, root, 0x2, acl.Unmentioned},
		{"6 an object in no container is no root", acl.Object, []string{"ALLOW alice 0x0 0x1"}, olga, 0x2, acl.Unmentioned},
		{"7 AUDIT grants nothing", acl.Object, []string{"AUDIT alice 0x0 ALL_PERMS", none}, alice, 0x1, acl.Unmentioned},
		{"7 AUDIT denies nothing", acl.Object, []string{"AUDIT alice 0x0 ALL_PERMS; ALLOW alice 0x0 0x1", none}, alice, 0x1, acl.Allowed},
		{"8 ANONYMOUS@ is nobody who authenticated", acl.Object, []string{"ALLOW ANONYMOUS@ 0x0 0x1", none}, alice, 0x1, acl.Unmentioned},
		{"8 ANONYMOUS@", acl.Object, []string{"ALLOW ANONYMOUS@ 0x0 0x1", none}, anonymous, 0x1, acl.Allowed},
		{"8 AUTHENTICATED@", acl.Object, []string{"ALLOW AUTHENTICATED@ 0x0 0x1", none}, alice, 0x1, acl.Allowed},
		{"8 AUTHENTICATED@ is not anonymous", acl.Object, []string{"ALLOW AUTHENTICATED@ 0x0 0x1", none}, anonymous, 0x1, acl.Unmentioned},
		{"8 EVERYONE@", acl.Object, []string{"ALLOW EVERYONE@ 0x0 0x1", none}, alice, 0x1, acl.Allowed},
		{"8 EVERYONE@, anonymous", acl.Object, []string{"ALLOW EVERYONE@ 0x0 0x1", none}, anonymous, 0x1, acl.Allowed},
		{"bits come together from several entries", acl.Object, []string{"ALLOW alice 0x0 0x1; DENY bob 0x0 0x1F; ALLOW EVERYONE@ 0x0 0x8", "ALLOW alice OBJECT_INHERIT 0x10"}, alice, 0x19, acl.Allowed},
		{"own entries come before inherited ones", acl.Object, []string{"ALLOW alice 0x0 0x1", "DENY alice OBJECT_INHERIT 0x1"}, alice, 0x1, acl.Allowed},
		{"the nearest container comes first", acl.Object, []string{"", "DENY alice OBJECT_INHERIT 0x1", "ALLOW alice OBJECT_INHERIT 0x1"}, alice, 0x1, acl.Denied},
		{"bits that do not exist are granted to nobody", acl.Object, []string{"ALLOW alice 0x0 ALL_PERMS", none}, alice, 0x800, acl.Unmentioned},
		{"nothing is asked for", acl.Object, []string{"DENY alice 0x0 ALL_PERMS", none}, alice, 0, acl.Allowed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := acl.Evaluate(tc.who, target(t, tc.kind, tc.lists...), tc.want)
			if d.Outcome != tc.got {
				t.Errorf("got outcome %d, want %d", d.Outcome, tc.got)
			}
			recorded := tc.got == acl.ForOwner || tc.got == acl.ForAdministrator
			if granted := recorded || tc.got == acl.Allowed; d.Granted() != granted || d.Outcome.Recorded() != recorded {
				t.Errorf("got granted %v, recorded %v", d.Granted(), d.Outcome.Recorded())
			}
		})
	}
}

// TestNothingIsDenied: zero values let nobody in.
func TestNothingIsDenied(t *testing.T) {
	t.Parallel()
	for _, p := range []acl.Principal{anonymous, alice, root, {Status: acl.Administrating}, {Groups: []acl.Who{""}}} {
		for _, tgt := range []acl.Target{{}, {Kind: acl.Container}, {Path: []acl.Level{{}}}, {Path: []acl.Level{{}, {}}}, {Kind: acl.Container, Path: []acl.Level{{}, {}}}} {
			if d := acl.Evaluate(p, tgt, acl.ReadObject); d.Granted() {
				t.Errorf("%+v: %+v: got %+v", p, tgt, d)
			}
			if m, _ := acl.Permitted(p, tgt, acl.AllPerms); m != 0 {
				t.Errorf("%+v: %+v: got %s", p, tgt, m)
			}
		}
	}
	if d := acl.Evaluate(alice, acl.Target{}, 0); d.Granted() {
		t.Error("got access to nothing")
	}
	var d acl.Decision
	if d.Granted() || acl.Outcome(0).Granted() || acl.Outcome(99).Granted() {
		t.Error("a zero or unknown decision grants")
	}
	// What is of no group is not of the group of no name.
	odd := acl.Principal{Name: "x", Groups: []acl.Who{""}}
	if d := acl.Evaluate(odd, acl.Target{Path: []acl.Level{{ACL: list(t, "ALLOW GROUP@ 0x0 0x1")}}}, 1); d.Granted() {
		t.Errorf("got %+v", d)
	}
	// A root container that nobody owns is not everybody's.
	if d := acl.Evaluate(anonymous, acl.Target{Kind: acl.Container, Path: []acl.Level{{}}}, 1); d.Granted() {
		t.Errorf("got %+v", d)
	}
}

// TestWhatDecided: the decision names the entry, what was missing, and what is to be recorded.
func TestWhatDecided(t *testing.T) {
	t.Parallel()
	nowhere := acl.Place{Level: -1, Entry: -1}
	for _, tc := range []struct {
		name  string
		kind  acl.Kind
		lists []string
		who   acl.Principal
		ask   acl.Mask
		want  acl.Decision
	}{
		{"denied", acl.Object, []string{"ALLOW bob 0x0 0x1", "DENY carol OBJECT_INHERIT 0x2; DENY eng OBJECT_INHERIT,IDENTIFIER_GROUP 0x6"}, bob, 0x7, acl.Decision{Outcome: acl.Denied, Missing: 0x6, At: acl.Place{Level: 1, Entry: 1}}},
		{"denied what was allowed", acl.Object, []string{"ALLOW bob 0x0 0x1; DENY bob 0x0 0x1"}, bob, 0x3, acl.Decision{Outcome: acl.Denied, Missing: 0x1, At: acl.Place{Entry: 1}}},
		{"missing", acl.Object, []string{"ALLOW bob 0x0 0x1"}, bob, 0x19, acl.Decision{Missing: 0x18, At: nowhere}},
		{"allowed", acl.Object, []string{"ALLOW bob 0x0 0x1", none, "ALLOW bob OBJECT_INHERIT 0xFF; ALLOW bob OBJECT_INHERIT 0xFF"}, bob, 0x19, acl.Decision{Outcome: acl.Allowed, At: acl.Place{Level: 2, Entry: 0}}},
		{"audited and allowed, also behind the end", acl.Object, []string{"AUDIT EVERYONE@ 0x0 0x1; ALLOW bob 0x0 ALL_PERMS; AUDIT bob 0x0 0x10", "AUDIT bob OBJECT_INHERIT 0x2; AUDIT alice OBJECT_INHERIT 0x4"}, bob, 0x1F, acl.Decision{Outcome: acl.Allowed, At: acl.Place{Entry: 1}, Audited: 0x13}},
		{"audited and denied", acl.Object, []string{"DENY bob 0x0 0x1; AUDIT bob 0x0 0x3"}, bob, 0x1, acl.Decision{Outcome: acl.Denied, Missing: 0x1, At: acl.Place{}, Audited: 0x1}},
		{"audited and not mentioned", acl.Object, []string{"AUDIT bob 0x0 0x3"}, bob, 0x5, acl.Decision{Missing: 0x5, At: nowhere, Audited: 0x1}},
		{"audited at the root", acl.Container, []string{"ALLOW olga 0x0 0x4; AUDIT OWNER@ 0x0 0x5"}, olga, 0x5, acl.Decision{Outcome: acl.ForOwner, Missing: 0x1, At: nowhere, Audited: 0x5}},
		{"an AUDIT entry that is not inherited", acl.Object, []string{"", "AUDIT bob CONTAINER_INHERIT 0x1"}, bob, 0x1, acl.Decision{Missing: 0x1, At: nowhere}},
		{"nothing asked, nothing audited", acl.Object, []string{"AUDIT bob 0x0 0x1"}, bob, 0, acl.Decision{Outcome: acl.Allowed, At: nowhere}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tgt := target(t, tc.kind, tc.lists...)
			if got := acl.Evaluate(tc.who, tgt, tc.ask); got != tc.want {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
			if got := acl.Explain(tc.who, tgt, tc.ask).Decision; got != tc.want {
				t.Errorf("explained: got  %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

// TestWhoIsMeant has every kind of identifier, and whom it does not mean.
func TestWhoIsMeant(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		who, flags string
		means      []acl.Principal
		not        []acl.Principal
	}{
		{"alice", "0x0", []acl.Principal{alice, {Name: "alice", Groups: []acl.Who{"x"}}}, []acl.Principal{bob, anonymous, root, named("Alice"), named("alice "), named("bob", "alice")}},
		{"eng", "IDENTIFIER_GROUP", []acl.Principal{bob, named("x", "y", "eng")}, []acl.Principal{alice, named("eng"), anonymous, {Groups: []acl.Who{"eng"}}}},
		{"OWNER@", "0x0", []acl.Principal{olga}, []acl.Principal{alice, anonymous, root, named("OWNER@"), named("x", "olga", "OWNER@")}},
		{"GROUP@", "0x0", []acl.Principal{bob, named("x", "staff")}, []acl.Principal{alice, olga, anonymous, named("staff"), named("GROUP@"), named("x", "GROUP@"), {Groups: []acl.Who{"staff"}}}},
		{"EVERYONE@", "0x0", []acl.Principal{alice, anonymous, root}, nil},
		{"ANONYMOUS@", "0x0", []acl.Principal{anonymous}, []acl.Principal{alice, root, named("ANONYMOUS@"), named("x", "ANONYMOUS@")}},
		{"AUTHENTICATED@", "0x0", []acl.Principal{alice, root}, []acl.Principal{anonymous, {Status: acl.Administrating}, {Groups: []acl.Who{"eng"}}}},
		{"ADMINISTRATOR@", "0x0", []acl.Principal{root}, []acl.Principal{alice, anonymous, {Status: acl.Administrating}, named("ADMINISTRATOR@"), named("x", "ADMINISTRATOR@")}},
		{"ADMINUSERS@", "IDENTIFIER_GROUP", []acl.Principal{root}, []acl.Principal{alice, anonymous, {Status: acl.Administrating}, named("x", "ADMINUSERS@")}},
		// IDENTIFIER_GROUP takes nothing from special identifiers, and gives nothing.
		{"OWNER@", "IDENTIFIER_GROUP", []acl.Principal{olga}, []acl.Principal{named("x", "olga"), alice}},
		{"EVERYONE@", "IDENTIFIER_GROUP", []acl.Principal{alice, anonymous}, nil},
		// What is special and unknown is kept, and means nobody.
		{"WHOEVER@", "0x0", nil, []acl.Principal{alice, anonymous, root, named("WHOEVER@"), named("x", "WHOEVER@")}},
		{"WHOEVER@", "IDENTIFIER_GROUP", nil, []acl.Principal{alice, named("WHOEVER@"), named("x", "WHOEVER@")}},
		{"@", "0x0", nil, []acl.Principal{alice, anonymous, named("@")}},
		// An '@' with a domain behind it is a name.
		{"alice@north.example", "0x0", []acl.Principal{named("alice@north.example")}, []acl.Principal{alice}},
	} {
		t.Run(tc.who+" "+tc.flags, func(t *testing.T) {
			t.Parallel()
			tgt := target(t, acl.Object, "ALLOW "+tc.who+" "+tc.flags+" 0x1", none)
			for _, p := range tc.means {
				if d := acl.Evaluate(p, tgt, 1); d.Outcome != acl.Allowed {
					t.Errorf("%+v: got %+v, want allowed", p, d)
				}
			}
			for _, p := range tc.not {
				if d := acl.Evaluate(p, tgt, 1); d.Granted() {
					t.Errorf("%+v: got %+v, want denied", p, d)
				}
			}
		})
	}
}

// TestSubscriberNamedLikeAnOwner: whoever can choose a name, or have a group of any
// name, becomes no special identifier by it, and no owner of what nobody owns.
func TestSubscriberNamedLikeAnOwner(t *testing.T) {
	t.Parallel()
	specials := []acl.Who{acl.Owner, acl.OwningGroup, acl.Everyone, acl.Anonymous, acl.Authenticated, acl.Administrator, acl.AdminUsers}
	for _, name := range specials {
		thief := acl.Principal{Name: name, Groups: specials}
		for _, owner := range append(specials, "") {
			level := acl.Level{ACL: list(t, "ALLOW OWNER@ 0x0 0x1; ALLOW GROUP@ 0x0 0x1; ALLOW ADMINUSERS@ 0x0 0x1; ALLOW ADMINISTRATOR@ 0x0 0x1; ALLOW ANONYMOUS@ 0x0 0x1"), Owner: owner, Group: owner}
			if d := acl.Evaluate(thief, acl.Target{Kind: acl.Container, Path: []acl.Level{level}}, 1); d.Granted() {
				t.Errorf("%s, owned by %q: got %+v", name, owner, d)
			}
		}
	}
}

// TestOwnerOfTheContainerAbove: OWNER@ that is inherited means the owner of what
// inherits, not of where the entry stands.
func TestOwnerOfTheContainerAbove(t *testing.T) {
	t.Parallel()
	tgt := acl.Target{Path: []acl.Level{{Owner: "alice", Group: "eng"}, {ACL: list(t, "ALLOW OWNER@ OBJECT_INHERIT 0x1; ALLOW GROUP@ OBJECT_INHERIT 0x2"), Owner: "olga", Group: "ops"}}}
	if d := acl.Evaluate(olga, tgt, 1); d.Granted() {
		t.Errorf("the container's owner: got %+v", d)
	}
	if d := acl.Evaluate(alice, tgt, 1); !d.Granted() {
		t.Errorf("the object's owner: got %+v", d)
	}
	if d := acl.Evaluate(bob, tgt, 2); !d.Granted() {
		t.Errorf("the object's group: got %+v", d)
	}
	if d := acl.Evaluate(named("x", "ops"), tgt, 2); d.Granted() {
		t.Errorf("the container's group: got %+v", d)
	}
}

// TestPermittedIsEveryBitAlone: what Permitted says is what Evaluate says of each permission.
func TestPermittedIsEveryBitAlone(t *testing.T) {
	t.Parallel()
	tgt := target(t, acl.Container, "ALLOW bob 0x0 0x1; DENY bob 0x0 0x3; ALLOW EVERYONE@ 0x0 0x13; AUDIT bob 0x0 ALL_PERMS; DENY olga 0x0 0x8")
	for _, tc := range []struct {
		who               acl.Principal
		among             acl.Mask
		granted, recorded acl.Mask
	}{
		{bob, acl.AllPerms, 0x11, 0},
		{bob, 0x2, 0, 0},
		{alice, acl.AllPerms, 0x13, 0},
		{olga, acl.AllPerms, acl.AllPerms &^ 0x8, acl.AllPerms &^ 0x1B},
		{root, 0x1C, 0x1C, 0xC},
		{anonymous, 0x1C, 0x10, 0},
		{alice, 0, 0, 0},
	} {
		granted, recorded := acl.Permitted(tc.who, tgt, tc.among)
		if granted != tc.granted || recorded != tc.recorded {
			t.Errorf("%+v: got %s and %s, want %s and %s", tc.who, granted.Hex(), recorded.Hex(), tc.granted.Hex(), tc.recorded.Hex())
		}
	}
}
