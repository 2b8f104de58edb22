package tree_test

import (
	"context"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestUnownedRoot: where nobody has said an owner or a list, the provider's own subscribers may do what they always could, and nobody else anything.
func TestUnownedRoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, address := range []string{"north:/c/", "north:/c/a/", "north:/c/a/x"} {
		for _, want := range []acl.Mask{acl.ReadObject, acl.AddObject, acl.AddSubcontainer, acl.ReadMetadata, acl.ReadAttributes, acl.ReadACL} {
			if _, err := w.decide(alice, address, want); err != nil {
				t.Errorf("%s of a subscriber: %v", want, err)
			}
			if _, err := w.decide(carol, address, want); problem.Of(err) != problem.Hidden {
				t.Errorf("%s of another provider's subscriber at %s: got %v", want, address, err)
			}
		}
		for _, want := range []acl.Mask{acl.WriteMetadata, acl.WriteACL, acl.Delete, acl.DeleteObject, acl.WriteOwner, acl.WriteRetention, acl.WriteRetentionHold} {
			_, err := w.decide(alice, address, want)
			refused(t, err, problem.NotPermitted, string(alice), "no entry allows it")
		}
	}
	if _, err := w.decide("", "north:/c/x", acl.ReadObject); problem.Of(err) != problem.Hidden {
		t.Errorf("anonymous: got %v", err)
	}
	if _, err := w.decide("spiffe://north/agent/a", "north:/c/x", acl.ReadObject); problem.Of(err) != problem.Hidden {
		t.Errorf("an agent is no subscriber: got %v", err)
	}
}

// TestOwnedRoot: with an owner and without a list of its own the standard's default holds.
func TestOwnedRoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice)
	if _, err := w.decide(alice, "north:/c/deep/down/x", acl.AllPerms); err != nil {
		t.Errorf("what nobody else owns is the owner's of the container: %v", err)
	}
	if _, err := w.decide(carol, "north:/c/x", acl.ReadObject); err != nil {
		t.Errorf("authenticated users read: %v", err)
	}
	_, err := w.decide(bob, "north:/c/", acl.AddObject)
	refused(t, err, problem.NotPermitted, "ADD_OBJECT", "north:/c/")
	w.stored(bob, "north:/c/x")
	if _, err := w.decide(alice, "north:/c/x", acl.Delete); problem.Of(err) != problem.NotPermitted {
		t.Errorf("an object of another owner: got %v", err)
	}
	if _, err := w.decide(bob, "north:/c/x", acl.AllPerms); err != nil {
		t.Errorf("its own owner: %v", err)
	}
}

// TestAnEmptyListIsNotNoList: a list without entries inherits and adds nothing; no list at a root container is a default.
func TestAnEmptyListIsNotNoList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice, "")
	if _, err := w.decide(bob, "north:/c/", acl.ReadObject); problem.Of(err) != problem.Hidden {
		t.Errorf("got %v", err)
	}
	trail, err := w.decide(alice, "north:/c/", acl.WriteACL)
	if err != nil || len(trail.Records()) != 1 || trail.Records()[0].Outcome != acl.ForOwner {
		t.Errorf("its owner is let in and recorded: got %v, %+v", err, trail.Records())
	}
	if _, err := w.decide(alice, "north:/c/x", acl.ReadObject); err != nil {
		t.Errorf("what inherits nothing is its owner's: %v", err)
	}
	w.make("north:/c/y", alice, "")
	if _, err := w.decide(alice, "north:/c/y", acl.ReadObject); problem.Of(err) != problem.NotPermitted {
		t.Errorf("but with an empty list of its own: got %v", err)
	}
}

// TestRefusals: who sees what of a refusal.
func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = "spiffe://north/subscriber/"
	w.make("north:/c/", rita, "DENY "+n+"bob OBJECT_INHERIT,CONTAINER_INHERIT READ_OBJECT;"+
		"ALLOW "+n+"bob OBJECT_INHERIT,CONTAINER_INHERIT READ_METADATA,READ_ACL;"+
		"ALLOW "+n+"alice OBJECT_INHERIT,CONTAINER_INHERIT READ_ATTRIBUTES;"+
		"ALLOW "+n+"lena NO_FLAGS LIST_CONTAINER;"+
		"ALLOW "+n+"owen OBJECT_INHERIT WRITE_OBJECT")
	w.stored(rita, "north:/c/there")
	for _, name := range []string{"there", "not-there"} {
		address := "north:/c/" + name
		_, err := w.decide(bob, address, acl.ReadObject)
		refused(t, err, problem.NotPermitted, string(bob), address, "READ_OBJECT", "entry 1 of north:/c/ denies it")
		_, err = w.decide(alice, address, acl.ReadObject)
		refused(t, err, problem.NotPermitted, string(alice), address, "READ_OBJECT", "no right to it was found")
		silent(t, err, "entry")
		_, err = w.decide("spiffe://north/subscriber/lena", address, acl.ReadObject)
		refused(t, err, problem.NotPermitted, "lena", "READ_OBJECT") // may list what holds it
		_, err = w.decide("spiffe://north/subscriber/owen", address, acl.ReadObject|acl.WriteObject)
		refused(t, err, problem.Hidden, "There is nothing at "+address) // a right that shows nothing
		silent(t, err, "READ_OBJECT")
	}
}

// TestHiddenIsTheSameWhetherOrNotItIsThere: who may not see a place learns nothing of what is there, of what kind it is, or of what is missing.
func TestHiddenIsTheSameWhetherOrNotItIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice, "ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS")
	attempts := func(address string) (said []string) {
		for _, a := range []string{address, address + "/"} {
			for _, want := range []acl.Mask{acl.ReadObject, acl.Delete, acl.WriteACL} {
				_, err := w.decide(bob, a, want)
				said = append(said, err.Error())
			}
			_, err := w.apply(bob, a, tree.Change{Set: space.Metadata{"color": `"red"`}}, "")
			_, late := w.apply(bob, a, tree.Change{Set: space.Metadata{"color": `"red"`}}, `"other"`)
			said = append(said, err.Error(), late.Error())
		}
		return said
	}
	before := attempts("north:/c/x")
	w.stored(alice, "north:/c/x")
	w.make("north:/c/x/", alice)
	w.must(w.apply(alice, "north:/c/x", tree.Change{Set: space.Metadata{"cdmi_hold_id": `["h"]`}}, ""))
	if after := attempts("north:/c/x"); strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("got %q once it is there, and before that %q", after, before)
	}
}

// TestAGuessedIdentifier: an identifier tells who may not see the place neither that it exists nor where it is.
func TestAGuessedIdentifier(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice, "ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS")
	w.stored(alice, "north:/c/secret")
	id := w.spot("north:/c/secret").Node.ID
	byID := func(who token.Identity, id space.ObjectID) (s tree.Spot, p acl.Principal, err error) {
		_ = w.d.Read(t.Context(), func(tx *db.Tx) error {
			s, p, err = w.tree.ByID(t.Context(), tx, who, id)
			return nil
		})
		return s, p, err
	}
	s, p, err := byID(alice, id)
	if err != nil || s.At.String() != "north:/c/secret" || p.Name != acl.Who(alice) {
		t.Errorf("its owner: got %v, %v, %v", s.At, p, err)
	}
	_, _, err = byID(bob, id)
	refused(t, err, problem.Hidden, string(bob))
	silent(t, err, "secret", "north:/")
	_, _, other := byID(bob, id[:len(id)-1]+"_")
	_, of, _ := strings.Cut(err.Error(), "...")
	if _, ofNone, _ := strings.Cut(other.Error(), "..."); problem.Of(other) != problem.Hidden || of == "" || of != ofNone {
		t.Errorf("got %v, and of one that does not exist %v", err, other)
	}
}

// TestDeletion: it takes a right on what is deleted and one on what holds it.
func TestDeletion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = "spiffe://north/subscriber/"
	w.make("north:/c/", rita, "ALLOW "+n+"alice NO_FLAGS DELETE_OBJECT;ALLOW EVERYONE@ OBJECT_INHERIT,CONTAINER_INHERIT READ_ATTRIBUTES,READ_ACL;"+
		"ALLOW "+n+"alice OBJECT_INHERIT DELETE;ALLOW "+n+"bob OBJECT_INHERIT DELETE;ALLOW "+n+"kim NO_FLAGS DELETE_OBJECT")
	for who, want := range map[token.Identity]string{alice: "", bob: "DELETE_SUBCONTAINER on north:/c/", "spiffe://north/subscriber/kim": "DELETE on north:/c/x"} {
		s := w.spot("north:/c/x")
		err := w.tree.DecideDeletion(attempt(w.principal(who, "north")), s)
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", who, err)
			}
			continue
		}
		refused(t, err, problem.NotPermitted, string(who), want)
	}
}

// TestRecords: what an AUDIT entry names, and who was let in by what they are, is in the trail whatever the outcome.
func TestRecords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice, "AUDIT EVERYONE@ OBJECT_INHERIT,CONTAINER_INHERIT READ_OBJECT,DELETE;ALLOW spiffe://north/subscriber/bob OBJECT_INHERIT READ_OBJECT")
	for _, tt := range []struct {
		who     token.Identity
		address string
		want    acl.Mask
		audited acl.Mask
		outcome acl.Outcome
		cause   string
	}{
		{bob, "north:/c/x", acl.ReadObject, acl.ReadObject, acl.Allowed, "entry 1 of north:/c/"},
		{carol, "north:/c/x", acl.ReadObject | acl.WriteACL, acl.ReadObject, acl.Unmentioned, "entry 1 of north:/c/"},
		{alice, "north:/c/", acl.WriteACL, 0, acl.ForOwner, ""},
		{rita, "north:/c/", acl.WriteACL, 0, acl.ForAdministrator, ""},
	} {
		trail, err := w.decide(tt.who, tt.address, tt.want)
		if (err == nil) != (tt.outcome != acl.Unmentioned) {
			t.Errorf("%s: got %v", tt.who, err)
		}
		if len(trail.Records()) != 1 {
			t.Fatalf("%s: got %+v", tt.who, trail.Records())
		}
		r := trail.Records()[0]
		if r.Who != acl.Who(tt.who) || r.Place.String() != tt.address || r.Audited != tt.audited || r.Outcome != tt.outcome || r.Want != tt.want || r.Op != "test" || r.Cause != tt.cause || r.Items != 1 {
			t.Errorf("%s: got %+v", tt.who, r)
		}
	}
	if trail, _ := w.decide(bob, "north:/c/x", acl.WriteObject); !trail.Empty() {
		t.Errorf("an attempt that no entry names: got %+v", trail.Records())
	}
}

// TestNothingIsAskedFor: a decision about nothing is a mistake of ours and lets nobody in.
func TestNothingIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := w.decide(alice, "north:/c/x", 0); err == nil {
		t.Error("one place: let in")
	}
	w.read(func(ctx context.Context, tx *db.Tx) error {
		if _, err := w.tree.DecideMany(ctx, tx, attempt(acl.Principal{}), tree.Page{At: token.Location{Provider: "north", Container: "c"}}, 0); err == nil {
			t.Error("many: let in")
		}
		return nil
	})
}

// TestATrailIsKept: what was collected is in the database with the time of the attempt, and is not kept twice.
func TestATrailIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice, "AUDIT EVERYONE@ NO_FLAGS LIST_CONTAINER")
	trail, err := w.decide(bob, "north:/c/", acl.ListContainer)
	if problem.Of(err) != problem.Hidden || trail.Empty() {
		t.Fatalf("got %v, %+v", err, trail.Records())
	}
	for range 2 {
		w.write(func(ctx context.Context, tx *db.Tx) error { return trail.Keep(ctx, tx, w.now) })
	}
	if !trail.Empty() {
		t.Error("the trail is not empty once it is kept")
	}
}
