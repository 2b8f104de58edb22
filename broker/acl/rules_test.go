package acl_test

import (
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
)

// TestDeletion: DELETE on the object and the permission of its parent; one alone does not do.
func TestDeletion(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name         string
		kind         acl.Kind
		own, parent  string
		self, inside bool
	}{
		{"neither", acl.Object, "ALLOW bob 0x0 READ", "ALLOW bob 0x0 RW", false, false},
		{"DELETE alone", acl.Object, "ALLOW bob 0x0 DELETE", "ALLOW bob 0x0 RW", true, false},
		{"DELETE_OBJECT alone", acl.Object, "ALLOW bob 0x0 RW", "ALLOW bob 0x0 DELETE_OBJECT", false, true},
		{"DELETE_OBJECT on the object itself", acl.Object, "ALLOW bob 0x0 DELETE, DELETE_OBJECT", "ALLOW bob 0x0 RW", true, false},
		{"DELETE on the parent", acl.Object, "ALLOW bob 0x0 RW", "ALLOW bob 0x0 DELETE, DELETE_OBJECT", false, true},
		{"both", acl.Object, "ALLOW bob 0x0 DELETE", "ALLOW bob 0x0 DELETE_OBJECT", true, true},
		{"both, inherited", acl.Object, none, "ALLOW bob OBJECT_INHERIT DELETE, DELETE_OBJECT", true, true},
		{"denied on the object", acl.Object, "DENY bob 0x0 DELETE", "ALLOW bob OBJECT_INHERIT ALL_PERMS", false, true},
		{"denied on the parent", acl.Object, "ALLOW bob 0x0 ALL_PERMS", "DENY bob 0x0 DELETE_OBJECT; ALLOW bob 0x0 ALL_PERMS", true, false},
		{"a container", acl.Container, "ALLOW bob 0x0 DELETE", "ALLOW bob 0x0 DELETE_SUBCONTAINER", true, true},
		{"a container, inherited as an object", acl.Container, none, "ALLOW bob OBJECT_INHERIT DELETE, DELETE_SUBCONTAINER", false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := acl.CheckDelete(bob, target(t, tc.kind, tc.own, tc.parent, none))
			if d.Self.Granted() != tc.self || d.Parent.Granted() != tc.inside || d.Granted() != (tc.self && tc.inside) {
				t.Errorf("got %+v", d)
			}
		})
	}
	if d := acl.CheckDelete(bob, target(t, acl.Object, "ALLOW bob 0x0 DELETE")); !d.Granted() {
		t.Errorf("an object in no container: got %+v", d)
	}
	if d := acl.CheckDelete(bob, target(t, acl.Object, "ALLOW bob 0x0 RW")); d.Granted() {
		t.Errorf("an object in no container, without DELETE: got %+v", d)
	}
	if d := acl.CheckDelete(bob, acl.Target{}); d.Granted() {
		t.Errorf("nothing: got %+v", d)
	}
	// In a root container its owner may delete by that alone, and that is recorded; DELETE it does not give.
	d := acl.CheckDelete(olga, target(t, acl.Object, "ALLOW olga 0x0 DELETE", none))
	if !d.Granted() || !d.Parent.Outcome.Recorded() {
		t.Errorf("got %+v", d)
	}
	if d := acl.CheckDelete(olga, target(t, acl.Object, none, none)); d.Granted() {
		t.Errorf("got %+v for the owner of object and root container, without any entry", d)
	}
}

// TestOwnership: the owner hands on with WRITE_OWNER, an administrator takes, nobody else does anything.
func TestOwnership(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		acl  string
		who  acl.Principal
		to   acl.Who
		want acl.Outcome
	}{
		{"the owner with WRITE_OWNER", "ALLOW OWNER@ 0x0 WRITE_OWNER", olga, "bob", acl.Allowed},
		{"the owner without", "ALLOW OWNER@ 0x0 RW", olga, "bob", acl.Unmentioned},
		{"the owner, denied", "DENY olga 0x0 WRITE_OWNER; ALLOW OWNER@ 0x0 ALL_PERMS", olga, "bob", acl.Denied},
		{"another with WRITE_OWNER", "ALLOW alice 0x0 WRITE_OWNER", alice, "alice", acl.Unmentioned},
		{"an administrator takes", none, root, "root", acl.ForAdministrator},
		{"an administrator takes what denies", "DENY root 0x0 WRITE_OWNER", root, "root", acl.ForAdministrator},
		{"an administrator gives to another", none, root, "bob", acl.Unmentioned},
		{"an administrator gives to another, with WRITE_OWNER", "ALLOW root 0x0 ALL_PERMS", root, "bob", acl.Unmentioned},
		{"to everybody", "ALLOW OWNER@ 0x0 WRITE_OWNER", olga, acl.Everyone, acl.Unmentioned},
		{"to nobody", "ALLOW OWNER@ 0x0 WRITE_OWNER", olga, "", acl.Unmentioned},
		{"anonymous with administrative status", "ALLOW EVERYONE@ 0x0 WRITE_OWNER", acl.Principal{Status: acl.Administrating}, "", acl.Unmentioned},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tgt := target(t, acl.Object, tc.acl+"\nAUDIT EVERYONE@ 0x0 WRITE_OWNER", none)
			if d := acl.CheckOwner(tc.who, tgt, tc.to); d.Outcome != tc.want || d.Audited != acl.WriteOwner {
				t.Errorf("got %+v, want outcome %d, audited", d, tc.want)
			}
		})
	}
	if d := acl.CheckOwner(root, acl.Target{}, "root"); d.Granted() {
		t.Errorf("nothing: got %+v", d)
	}
}
