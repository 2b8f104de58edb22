package tree_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func set(tb testing.TB, text string) tree.Change {
	tb.Helper()
	return tree.Change{Set: items(tb, text)}
}

func replace(tb testing.TB, text string) tree.Change {
	tb.Helper()
	m := items(tb, text)
	return tree.Change{Replace: &m}
}

func who(id token.Identity) *acl.Who {
	w := acl.Who(id)
	return &w
}

// TestEachChangeTakesItsRight: every kind of change is refused to who has all rights but the one that it takes, and made by who has that one alone.
func TestEachChangeTakesItsRight(t *testing.T) {
	t.Parallel()
	own := list(t, "ALLOW EVERYONE@ NO_FLAGS READ")
	for name, tt := range map[string]struct {
		c    tree.Change
		want acl.Mask
	}{
		"user":          {set(t, `{"color":"red"}`), acl.WriteMetadata},
		"remove user":   {tree.Change{Unset: []space.Item{"shape"}}, acl.WriteMetadata},
		"replace":       {replace(t, `{"color":"red"}`), acl.WriteMetadata},
		"placement":     {set(t, `{"cdmi_geographic_placement":["DE"]}`), acl.WriteMetadata},
		"retention":     {set(t, `{"cdmi_retention_period":"2026-12-01T00:00:00.000000Z/2027-01-01T00:00:00.000000Z"}`), acl.WriteRetention},
		"retention tag": {set(t, `{"cdmi_retention_id":"tag"}`), acl.WriteRetention},
		"autodelete":    {set(t, `{"cdmi_retention_autodelete":"true"}`), acl.WriteRetention | acl.Delete},
		"no autodelete": {set(t, `{"cdmi_retention_autodelete":"false"}`), acl.WriteRetention},
		"hold":          {set(t, `{"cdmi_hold_id":["h"]}`), acl.WriteRetentionHold},
		"list":          {tree.Change{ACL: &own}, acl.WriteACL},
		"list as item":  {set(t, `{"cdmi_acl":[]}`), acl.WriteACL},
		"no list":       {tree.Change{Unset: []space.Item{space.ItemACL}}, acl.WriteACL},
		"two kinds":     {set(t, `{"color":"red","cdmi_hold_id":["h"]}`), acl.WriteMetadata | acl.WriteRetentionHold},
		"replace, hold": {replace(t, `{"cdmi_hold_id":["h"]}`), acl.WriteMetadata | acl.WriteRetentionHold},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.make("north:/c/", rita, "ALLOW "+string(alice)+" OBJECT_INHERIT "+tt.want.Hex()+";ALLOW EVERYONE@ OBJECT_INHERIT READ_ATTRIBUTES")
			w.must(w.apply(alice, "north:/c/x", tt.c, ""))
			for bit := acl.Mask(1); bit != 0; bit <<= 1 {
				if bit&tt.want == 0 {
					continue
				}
				w.make("north:/d/", rita, "")
				w.must(w.apply(rita, "north:/d/", tree.Change{ACL: ptr(list(t, "ALLOW "+string(alice)+" OBJECT_INHERIT "+(acl.AllPerms&^bit).Hex()))}, ""))
				_, err := w.apply(alice, "north:/d/x", tt.c, "")
				refused(t, err, problem.NotPermitted, bit.String(), "north:/d/x")
				if w.spot("north:/d/x").Known {
					t.Fatal("what was refused left a row")
				}
			}
		})
	}
}

// TestDeletingByRetention: who may write retention and not delete has nothing erased by itself, at once or in a while, neither in a container nor where autodelete
// comes from above; a later end is for whoever may write it.
func TestDeletingByRetention(t *testing.T) {
	t.Parallel()
	const over, later, latest = "2020-01-01T00:00:00.000000Z/2021-01-01T00:00:00.000000Z", "2020-01-01T00:00:00.000000Z/2090-01-01T00:00:00.000000Z", "2020-01-01T00:00:00.000000Z/2091-01-01T00:00:00.000000Z"
	w := newWorld(t)
	w.make("north:/c/", rita, "ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS;ALLOW "+string(alice)+" OBJECT_INHERIT,CONTAINER_INHERIT WRITE_RETENTION,WRITE_METADATA,READ_ATTRIBUTES,READ_METADATA")
	for _, address := range []string{"north:/c/x", "north:/c/a/"} {
		for _, data := range []string{`{"cdmi_retention_autodelete":"true","cdmi_retention_period":"` + over + `"}`, `{"cdmi_retention_autodelete":"true"}`} {
			_, err := w.apply(alice, address, set(t, data), "")
			refused(t, err, problem.NotPermitted, "DELETE")
			_, err = w.apply(alice, address, replace(t, data), "")
			refused(t, err, problem.NotPermitted, "DELETE")
		}
	}
	w.must(w.apply(rita, "north:/c/", set(t, `{"cdmi_retention_autodelete":"true"}`), ""))
	for _, period := range []string{over, later} {
		_, err := w.apply(alice, "north:/c/x", set(t, `{"cdmi_retention_period":"`+period+`"}`), "")
		refused(t, err, problem.NotPermitted, "DELETE")
	}
	w.must(w.apply(alice, "north:/c/off", set(t, `{"cdmi_retention_autodelete":"false"}`), ""))
	_, err := w.apply(alice, "north:/c/off", tree.Change{Unset: []space.Item{space.RetentionAutodelete}}, "")
	refused(t, err, problem.NotPermitted, "DELETE")
	w.must(w.apply(rita, "north:/c/kept", set(t, `{"cdmi_retention_period":"`+later+`"}`), ""))
	w.must(w.apply(alice, "north:/c/kept", set(t, `{"cdmi_retention_period":"`+latest+`"}`), ""))
}

func ptr[T any](v T) *T { return &v }

// TestWhatWasShownIsWrittenBack: a client that sends all back that it was shown needs no right for what it does not change.
func TestWhatWasShownIsWrittenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", rita, "ALLOW "+string(alice)+" OBJECT_INHERIT WRITE_METADATA,READ_METADATA,READ_ACL")
	w.make("north:/c/x", bob)
	w.must(w.apply(rita, "north:/c/", set(t, `{"cdmi_retention_id":"above"}`), ""))
	w.must(w.apply(rita, "north:/c/", tree.Change{ACL: ptr(list(t, "ALLOW "+string(rita)+" OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS;ALLOW "+string(alice)+" OBJECT_INHERIT WRITE_METADATA,READ_METADATA"))}, ""))
	w.must(w.apply(rita, "north:/c/x", set(t, `{"color":"red","cdmi_retention_id":"tag","cdmi_hold_id":[]}`), ""))
	s := w.must(w.apply(alice, "north:/c/x", replace(t, `{"color":"blue","cdmi_retention_id":"tag","cdmi_hold_id":[],"cdmi_size":"1","cdmi_ctime":"then","cdmi_value_hash_provided":"x"}`), ""))
	if s.Node.User != `{"color":"blue"}` || s.Node.Data != `{"cdmi_hold_id":[],"cdmi_retention_id":"tag"}` || s.Node.Owner != acl.Who(bob) {
		t.Errorf("got %+v", s.Node)
	}
	_, err := w.apply(alice, "north:/c/x", replace(t, `{"color":"blue","cdmi_retention_id":"other","cdmi_hold_id":[]}`), "")
	refused(t, err, problem.NotPermitted, "WRITE_RETENTION")
	_, err = w.apply(alice, "north:/c/x", replace(t, `{"color":"blue","cdmi_retention_id":"tag"}`), "")
	refused(t, err, problem.NotPermitted, "WRITE_RETENTION_HOLD")
}

// TestAllThatWasShownIsWrittenBack with one item changed, at a root container and at an object, with a list of its own or a default one, by who may
// write metadata and neither list nor owner.
func TestAllThatWasShownIsWrittenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/own/", rita, "ALLOW EVERYONE@ OBJECT_INHERIT WRITE_METADATA,READ_METADATA,READ_ACL;ALLOW EVERYONE@ NO_FLAGS WRITE_METADATA,READ_METADATA")
	w.make("north:/own/listed", bob, "ALLOW "+string(alice)+" NO_FLAGS READ_OBJECT")
	w.make("north:/default/", alice)
	for _, tt := range []struct {
		who     token.Identity
		address string
	}{{carol, "north:/own/"}, {carol, "north:/own/listed"}, {carol, "north:/own/x"}, {alice, "north:/default/"}} {
		was := w.spot(tt.address)
		m := w.tree.StorageMetadata(was)
		m["color"] = `"red"`
		s := w.must(w.apply(tt.who, tt.address, tree.Change{Replace: &m}, ""))
		if s.Node.User != `{"color":"red"}` || s.Node.ACL != was.Node.ACL || s.Node.Owner != was.Node.Owner {
			t.Errorf("%s: got %+v", tt.address, s.Node)
		}
		if tt.who != carol {
			continue
		}
		m[space.ItemOwner] = `"` + space.Value(carol) + `"`
		_, err := w.apply(carol, tt.address, tree.Change{Replace: &m}, "")
		refused(t, err, problem.NotPermitted, "WRITE_OWNER")
		delete(m, space.ItemOwner)
		m[space.ItemACL] = `[]`
		if tt.address != "north:/own/x" { // which has none to take away
			_, err = w.apply(carol, tt.address, tree.Change{Replace: &m}, "")
			refused(t, err, problem.NotPermitted, "WRITE_ACL")
		}
		_, err = w.apply(carol, tt.address, tree.Change{Set: space.Metadata{space.ItemACL: `[]`}}, "")
		refused(t, err, problem.NotPermitted, "WRITE_ACL")
	}
}

// TestMetadataMakeNoOwner: who may write metadata of what has no row does not come to own it by that.
func TestMetadataMakeNoOwner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", rita, "ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS;ALLOW EVERYONE@ OBJECT_INHERIT,CONTAINER_INHERIT WRITE_METADATA,READ_METADATA")
	for _, address := range []string{"north:/c/a/x", "north:/c/b/"} {
		s := w.must(w.apply(bob, address, set(t, `{"color":"red"}`), ""))
		if !s.Known || s.Node.Owner != "" || s.Owner() != acl.Who(rita) {
			t.Errorf("%s: got the owner %q, %q", address, s.Node.Owner, s.Owner())
		}
		if _, err := w.decide(bob, address, acl.WriteACL); problem.Of(err) != problem.NotPermitted {
			t.Errorf("%s: got %v", address, err)
		}
	}
	if s := w.spot("north:/c/a/"); !s.Known || s.Node.Owner != "" {
		t.Errorf("the container above: got %+v", s.Node)
	}
	if n := w.spot("north:/c/a/x").Node; n.Size != db.UnknownSize {
		t.Errorf("got the size %d of what nobody has measured", n.Size)
	}
}

// TestOwners: the owner with WRITE_OWNER gives away, an administrator takes, and nobody else does either.
func TestOwners(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice, "ALLOW OWNER@ OBJECT_INHERIT ALL_PERMS;ALLOW EVERYONE@ OBJECT_INHERIT,CONTAINER_INHERIT READ_ATTRIBUTES,WRITE_OWNER")
	w.make("north:/c/x", bob)
	before := w.gen("north")
	_, err := w.apply(alice, "north:/c/x", tree.Change{Owner: who(alice)}, "")
	refused(t, err, problem.NotPermitted, string(alice), "owner of north:/c/x")
	_, err = w.apply(rita, "north:/c/x", tree.Change{Owner: who(alice)}, "") // an administrator takes for itself alone
	refused(t, err, problem.NotPermitted, string(rita))
	_, err = w.apply(sven, "north:/c/x", tree.Change{Owner: who(sven)}, "")
	refused(t, err, problem.NotPermitted, string(sven))
	if s := w.must(w.apply(rita, "north:/c/x", tree.Change{Owner: who(rita)}, "")); s.Owner() != acl.Who(rita) {
		t.Errorf("got the owner %q", s.Owner())
	}
	if s := w.must(w.apply(rita, "north:/c/x", set(t, `{"cdmi_owner":"`+string(carol)+`"}`), "")); s.Owner() != acl.Who(carol) {
		t.Errorf("got the owner %q", s.Owner())
	}
	if w.gen("north") == before {
		t.Error("the generation did not grow")
	}
	for _, bad := range []token.Identity{"OWNER@", "EVERYONE@", "alice", "", "spiffe://north/agent/a"} {
		_, err := w.apply(carol, "north:/c/x", tree.Change{Owner: who(bad)}, "")
		refused(t, err, problem.Malformed, "owner")
	}
}

// TestChangesThatNothingCouldHave are refused before anybody's rights are looked at.
func TestChangesThatNothingCouldHave(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := list(t, "")
	for name, tt := range map[string]struct {
		c    tree.Change
		code problem.Code
	}{
		"nothing":                 {tree.Change{}, problem.Malformed},
		"nothing, in items":       {set(t, `{}`), problem.Malformed},
		"what the system writes":  {set(t, `{"cdmi_size":"1"}`), problem.Hidden}, // has no effect, and takes a right
		"both":                    {tree.Change{Replace: &space.Metadata{}, Set: items(t, `{"a":"b"}`)}, problem.Malformed},
		"both, to remove":         {tree.Change{Replace: &space.Metadata{}, Unset: []space.Item{"a"}}, problem.Malformed},
		"two lists":               {tree.Change{ACL: &a, Set: items(t, `{"cdmi_acl":[]}`)}, problem.Malformed},
		"a list and none":         {tree.Change{ACL: &a, Unset: []space.Item{space.ItemACL}}, problem.Malformed},
		"two owners":              {tree.Change{Owner: who(alice), Set: items(t, `{"cdmi_owner":"x"}`)}, problem.Malformed},
		"no owner":                {tree.Change{Unset: []space.Item{space.ItemOwner}}, problem.Malformed},
		"an owner that is a list": {set(t, `{"cdmi_owner":["x"]}`), problem.Malformed},
		"set and removed":         {tree.Change{Set: items(t, `{"a":"b"}`), Unset: []space.Item{"a"}}, problem.Malformed},
		"a number":                {set(t, `{"a":1}`), problem.Malformed},
		"an unknown item":         {set(t, `{"cdmi_new":"1"}`), problem.UnknownField},
		"an unknown item to go":   {tree.Change{Unset: []space.Item{"cdmi_new"}}, problem.UnknownField},
		"a capability's name":     {set(t, `{"cdmi_data_holds":"1"}`), problem.UnknownField},
		"an empty name":           {tree.Change{Unset: []space.Item{""}}, problem.Malformed},
		"a bad list":              {set(t, `{"cdmi_acl":"x"}`), problem.Malformed},
		"a bad period":            {set(t, `{"cdmi_retention_period":"x"}`), problem.Malformed},
		"a size of an object":     {set(t, `{"cdmi_assignedsize":"1"}`), problem.Malformed},
	} {
		if _, err := w.apply(carol, "north:/c/x", tt.c, ""); problem.Of(err) != tt.code {
			t.Errorf("%s: got %v, want %s", name, err, tt.code)
		}
	}
}

// TestAChangeThatWasOvertaken: If-Match holds against every change that is shown, and never before the rights.
func TestAChangeThatWasOvertaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice)
	red := set(t, `{"color":"red"}`)
	_, err := w.apply(alice, "north:/c/x", red, "*")
	refused(t, err, problem.Outdated)
	first := w.tree.ETag(w.spot("north:/c/x"))
	second := w.tree.ETag(w.must(w.apply(alice, "north:/c/x", red, first)))
	_, err = w.apply(alice, "north:/c/x", set(t, `{"color":"blue"}`), first)
	refused(t, err, problem.Outdated, "north:/c/x")
	_, err = w.apply(bob, "north:/c/x", set(t, `{"color":"blue"}`), first)
	refused(t, err, problem.NotPermitted)
	w.must(w.apply(alice, "north:/c/x", set(t, `{"color":"blue"}`), "*"))
	w.must(w.apply(alice, "north:/c/x", set(t, `{"color":"green"}`), w.tree.ETag(w.spot("north:/c/x"))))
	if third := w.tree.ETag(w.must(w.apply(alice, "north:/c/x", set(t, `{"color":"green"}`), ""))); third == second {
		t.Error("the ETag of another state is the same")
	}
}

// TestNothingChanges: what is as it was leaves counters, times and generation alone.
func TestNothingChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice)
	c := set(t, `{"color":"red","cdmi_geographic_placement":["DE"],"cdmi_acl":[]}`)
	was, gen := w.must(w.apply(alice, "north:/c/", c, "")), w.gen("north")
	w.now = w.now.Add(time.Hour)
	if s := w.must(w.apply(alice, "north:/c/", c, "")); s.Node != was.Node || w.gen("north") != gen {
		t.Errorf("got %+v, generation %d; before %+v, %d", s.Node, w.gen("north"), was.Node, gen)
	}
	s := w.must(w.apply(alice, "north:/c/", set(t, `{"color":"blue"}`), ""))
	if !s.Node.Modified.Equal(w.now) || s.Node.Changes != was.Node.Changes+1 || s.Node.Rev != was.Node.Rev+1 || s.Node.Created != was.Node.Created || w.gen("north") != gen {
		t.Errorf("user metadata: got %+v, generation %d", s.Node, w.gen("north"))
	}
	w.must(w.apply(alice, "north:/c/", set(t, `{"cdmi_geographic_placement":["FR"]}`), ""))
	if w.gen("north") == gen {
		t.Error("the generation did not grow with what decides about orders")
	}
}

// TestInheritedEntriesAreNotKept: a list that is written back as it was shown does not take what stands above into its own keeping.
func TestInheritedEntriesAreNotKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice, "ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS;ALLOW "+string(bob)+" OBJECT_INHERIT READ_OBJECT")
	w.make("north:/c/x", alice, "ALLOW "+string(carol)+" NO_FLAGS READ_OBJECT")
	s := w.spot("north:/c/x")
	w.must(w.apply(alice, "north:/c/x", tree.Change{Set: space.Metadata{space.ItemACL: w.tree.StorageMetadata(s)[space.ItemACL]}}, ""))
	w.must(w.apply(alice, "north:/c/", tree.Change{ACL: ptr(list(t, "ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS"))}, ""))
	if _, err := w.decide(bob, "north:/c/x", acl.ReadObject); problem.Of(err) != problem.Hidden {
		t.Errorf("a right that was taken away above: got %v", err)
	}
	if _, err := w.decide(carol, "north:/c/x", acl.ReadObject); err != nil {
		t.Errorf("one of its own: %v", err)
	}
}

// TestNobodyLeavesAHold: no change takes a hold away, here or from above, and nothing but a further hold is changed under one.
func TestNobodyLeavesAHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", rita)
	w.make("north:/c/a/", rita)
	w.make("north:/c/a/x", rita)
	w.must(w.apply(rita, "north:/c/a/x", set(t, `{"color":"red","cdmi_hold_id":["own"]}`), ""))
	w.must(w.apply(rita, "north:/c/", set(t, `{"cdmi_hold_id":["above"]}`), ""))
	free := list(t, "ALLOW EVERYONE@ NO_FLAGS ALL_PERMS")
	for name, c := range map[string]tree.Change{
		"other holds":  set(t, `{"cdmi_hold_id":["other"]}`),
		"no holds":     set(t, `{"cdmi_hold_id":[]}`),
		"removed":      {Unset: []space.Item{space.HoldID}},
		"all replaced": replace(t, `{}`),
		"user":         set(t, `{"color":"blue"}`),
		"user removed": {Unset: []space.Item{"color"}},
		"data":         set(t, `{"cdmi_geographic_placement":["DE"]}`),
		"list":         {ACL: &free},
		"owner":        {Owner: who(alice)},
		"new hold too": set(t, `{"cdmi_hold_id":["own","more"],"color":"blue"}`),
	} {
		_, err := w.apply(rita, "north:/c/a/x", c, "")
		refused(t, err, problem.OnHold)
		if name == "user" {
			_, err := w.apply(rita, "north:/c/a/", c, "")
			refused(t, err, problem.OnHold, "above")
		}
	}
	s := w.must(w.apply(rita, "north:/c/a/x", set(t, `{"cdmi_hold_id":["own","more"]}`), ""))
	if got := strings.Join(s.Settings.Holds, " "); got != "above more own" {
		t.Errorf("got the holds %q", got)
	}
}

// TestHoldsAreReleasedByAdministratorsAlone: not by who is under it, not by another provider's, and not where it only comes from above.
func TestHoldsAreReleasedByAdministratorsAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice, "ALLOW EVERYONE@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS")
	w.must(w.apply(alice, "north:/c/", set(t, `{"cdmi_hold_id":["above"]}`), ""))
	w.must(w.apply(alice, "north:/c/x", set(t, `{"cdmi_hold_id":["one","two"]}`), ""))
	release := func(who token.Identity, address, hold string) (s tree.Spot, err error) {
		of := w.spot(address)
		a := attempt(w.principal(who, of.At.Provider))
		_ = w.d.Write(t.Context(), func(tx *db.Tx) error {
			s, err = w.tree.ReleaseHold(t.Context(), tx, a, of, hold, w.now)
			return err
		})
		return s, err
	}
	for _, who := range []token.Identity{alice, sven} {
		_, err := release(who, "north:/c/x", "one")
		refused(t, err, problem.NotPermitted, "no administrator of the provider north")
	}
	_, err := release(rita, "north:/c/x", "above")
	refused(t, err, problem.NotFound, "of its own")
	gen := w.gen("north")
	s, err := release(rita, "north:/c/x", "one")
	if err != nil || strings.Join(s.Settings.Holds, " ") != "above two" || w.gen("north") == gen {
		t.Errorf("got %v, %v, generation %d", s.Settings.Holds, err, w.gen("north"))
	}
	if s, err = release(rita, "north:/c/x", "two"); err != nil || s.Node.Data != "" {
		t.Errorf("the last: got %q, %v", s.Node.Data, err)
	}
	if s, err = release(rita, "north:/c/", "above"); err != nil || len(s.Settings.Holds) != 0 {
		t.Errorf("got %v, %v", s.Settings.Holds, err)
	}
	w.must(w.apply(alice, "north:/c/x", set(t, `{"color":"red"}`), ""))
}

// TestRetentionEndsLaterOnly: an end moves later, and nothing else about it or under it is changed, by an own period neither.
func TestRetentionEndsLaterOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", rita)
	w.make("north:/c/x", rita)
	period := func(from, to string) tree.Change {
		return set(t, `{"cdmi_retention_period":"`+from+`T00:00:00.000000Z/`+to+`T00:00:00.000000Z"}`)
	}
	w.must(w.apply(rita, "north:/c/", period("2026-11-01", "2027-01-01"), ""))
	for _, c := range []tree.Change{
		period("2026-11-01", "2026-12-01"), period("2026-12-24", "2027-02-01"), set(t, `{"color":"red"}`), {Owner: who(alice)},
	} {
		for _, address := range []string{"north:/c/", "north:/c/x"} {
			_, err := w.apply(rita, address, c, "")
			refused(t, err, problem.UnderRetention, "2027-01-01")
		}
	}
	w.must(w.apply(rita, "north:/c/x", period("2026-11-01", "2027-02-01"), ""))
	_, err := w.apply(rita, "north:/c/x", tree.Change{Unset: []space.Item{space.RetentionPeriod}}, "")
	refused(t, err, problem.UnderRetention, "2027-02-01")
	w.now = time.Date(2027, 1, 15, 0, 0, 0, 0, time.UTC)
	w.must(w.apply(rita, "north:/c/", set(t, `{"color":"red"}`), ""))
	_, err = w.apply(rita, "north:/c/x", set(t, `{"color":"red"}`), "")
	refused(t, err, problem.UnderRetention)
}

// TestUserMetadataIsBounded: a limit counts what there would be, with what is there already.
func TestUserMetadataIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.tree = newTree(t, tree.Config{Limits: space.UserLimits{Items: 2, ItemSize: 20, TotalSize: 30}})
	w.make("north:/c/", alice)
	w.must(w.apply(alice, "north:/c/x", set(t, `{"a":"1"}`), ""))
	_, err := w.apply(alice, "north:/c/x", set(t, `{"b":"1","c":"1"}`), "")
	refused(t, err, problem.TooLarge, "cdmi_metadata_maxitems")
	_, err = w.apply(alice, "north:/c/x", set(t, `{"b":"123456789012345678"}`), "")
	refused(t, err, problem.TooLarge, "cdmi_metadata_maxsize")
	w.must(w.apply(alice, "north:/c/x", set(t, `{"a":"123456789012345"}`), ""))
	_, err = w.apply(alice, "north:/c/x", set(t, `{"b":"12345678901234"}`), "")
	refused(t, err, problem.TooLarge, "cdmi_metadata_maxtotalsize")
	_, err = w.apply(bob, "north:/c/x", set(t, `{"b":"12345678901234"}`), "") // says nothing of what is there
	refused(t, err, problem.NotPermitted)
}

// TestListsWithoutEnd: nobody makes every decision about a deep name read hundreds of the longest lists, or add up hundreds of holds.
func TestListsWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice)
	deep := "north:/c/" + strings.Repeat("a/", tree.MaxLevels-1)
	everybody := list(t, "ALLOW EVERYONE@ NO_FLAGS READ")
	for _, address := range []string{deep + "x", deep + "a/", deep + strings.Repeat("a/", 400)} {
		_, err := w.apply(alice, address, tree.Change{ACL: &everybody}, "")
		refused(t, err, problem.TooLarge, "levels deep")
		_, err = w.apply(alice, address, set(t, `{"cdmi_hold_id":["h"]}`), "")
		refused(t, err, problem.TooLarge, "levels deep")
		w.must(w.apply(alice, address, set(t, `{"mine":"x"}`), ""))
		_, err = w.apply(bob, address, tree.Change{ACL: &everybody}, "")
		refused(t, err, problem.NotPermitted)
	}
	_, err := w.create(alice, deep+"new/", `{"cdmi_acl":[]}`)
	refused(t, err, problem.TooLarge, "levels deep")
	w.must(w.apply(alice, deep, tree.Change{ACL: &everybody}, "")) // the deepest one that may have one
}

// TestARefusalLeavesNothing: a change of which one part is refused makes no other, and a transaction that is not committed neither.
func TestARefusalLeavesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice, "ALLOW "+string(bob)+" OBJECT_INHERIT WRITE_METADATA,READ_METADATA,READ_ACL")
	_, err := w.apply(bob, "north:/c/a/x", set(t, `{"color":"red","cdmi_acl":[]}`), "")
	refused(t, err, problem.NotPermitted, "WRITE_ACL")
	silent(t, err, "WRITE_METADATA")
	gen := w.gen("north")
	err = w.d.Write(t.Context(), func(tx *db.Tx) error {
		c, a := set(t, `{"cdmi_acl":[]}`), attempt(w.principalIn(t.Context(), tx, alice))
		c.At, c.Kind = at(t, "north:/c/a/x")
		if _, err := w.tree.Apply(t.Context(), tx, a, c, w.now); err == nil {
			t.Error("no entry allows it, and it was done")
		}
		c.At, c.Kind = at(t, "north:/c/")
		if _, err := w.tree.Apply(t.Context(), tx, a, c, w.now); err != nil {
			t.Error(err)
		}
		return errUndone
	})
	if !errors.Is(err, errUndone) || w.spot("north:/c/a/x").Known || w.spot("north:/c/a/").Known || w.gen("north") != gen {
		t.Errorf("got %v; something was left", err)
	}
	w.read(func(ctx context.Context, tx *db.Tx) error {
		ns, err := tx.NodesBelow(ctx, token.Location{Provider: "north", Container: "c"}, "", acl.Object, 10)
		if len(ns) != 0 {
			t.Errorf("got %+v", ns)
		}
		return err
	})
}
