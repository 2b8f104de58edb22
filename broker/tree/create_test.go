package tree_test

import (
	"context"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// create makes a container in a transaction of its own, which is undone if that is refused.
func (w *world) create(owner token.Identity, address, metadata string) (s tree.Spot, err error) {
	w.t.Helper()
	l, _ := at(w.t, address)
	m := items(w.t, metadata)
	refused := w.d.Write(w.t.Context(), func(tx *db.Tx) error {
		s, err = w.tree.Create(w.t.Context(), tx, owner, l, m, w.now)
		return err
	})
	if refused != nil && err == nil {
		w.t.Fatal(refused)
	}
	return s, err
}

// TestCreate: a container is from the start what its maker says, whatever the containers above give an owner, and nothing has been changed since.
func TestCreate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", rita, "ALLOW EVERYONE@ CONTAINER_INHERIT READ")
	s := w.must(w.create(alice, "north:/c/a/b/", `{"color":"red","cdmi_retention_id":"tag","cdmi_size":"7","cdmi_acl":[{"acetype":"ALLOW","identifier":"OWNER@","aceflags":"0x00","acemask":"RW"},
		{"acetype":"ALLOW","identifier":"EVERYONE@","aceflags":"INHERITED","acemask":"ALL_PERMS"}]}`))
	n := s.Node
	if !s.Known || n.Owner != acl.Who(alice) || n.User != `{"color":"red"}` || n.Data != `{"cdmi_retention_id":"tag"}` || n.Changes != 0 || n.ID == "" || n.Kind != acl.Container {
		t.Errorf("got %+v", n)
	}
	if own, given := s.OwnList(); !given || own.Len() != 1 {
		t.Errorf("got the list %s, %v; want the one own entry", own.Marshal(), given)
	}
	if up := w.spot("north:/c/a/"); !up.Known || up.Node.Owner != "" {
		t.Errorf("the container above: got %+v", up.Node)
	}
	before := w.gen("north")
	s = w.must(w.create(alice, "north:/c/plain/", `{}`))
	if _, given := s.OwnList(); given || s.Node.User != "" || s.Node.Owner != acl.Who(alice) || w.gen("north") == before {
		t.Errorf("got %+v", s.Node)
	}
	if _, err := w.decide(alice, "north:/c/plain/", acl.WriteMetadata); problem.Of(err) != problem.NotPermitted {
		t.Errorf("its maker, to whom nothing above gives more: got %v", err)
	}
	w.must(w.create(alice, "north:/c/mine/", `{"cdmi_owner":"`+string(alice)+`"}`))
	w.make("north:/c/made/", alice)
	id := w.spot("north:/c/made/").Node.ID
	if s := w.must(w.create(alice, "north:/c/made/", `{"a":"b"}`)); s.Node.ID != id || s.Node.User != `{"a":"b"}` || s.Node.Changes != 0 {
		t.Errorf("one that was made just now: got %+v", s.Node)
	}
	if _, err := w.create(alice, "north:/c/made/", `{"a":"c"}`); problem.Of(err) != problem.Conflict {
		t.Errorf("one that is as it is: got %v", err)
	}
}

// TestCreateUnderAHold: what binds the erasure of a container from the start is in the log that its provider's agents get.
func TestCreateUnderAHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice)
	w.must(w.create(alice, "north:/c/free/", `{}`))
	w.must(w.create(alice, "north:/c/held/", `{"cdmi_hold_id":["h"],"cdmi_value_hash":"MD5"}`))
	w.read(func(ctx context.Context, tx *db.Tx) error {
		ks, err := tx.KeepsAfter(ctx, "north", 0, 10)
		if err == nil && (len(ks) != 1 || ks[0].At.Name != "held" || ks[0].Kind != acl.Container || ks[0].Data != `{"cdmi_hold_id":["h"]}`) {
			t.Errorf("got %+v, want the one hold", ks)
		}
		return err
	})
}

// TestCreateIsRefused: what is refused leaves nothing.
func TestCreateIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", rita)
	w.make("north:/c/there/", bob)
	w.must(w.apply(rita, "north:/c/held/", set(t, `{"cdmi_hold_id":["h"]}`), ""))
	w.must(w.apply(rita, "north:/c/kept/", set(t, `{"cdmi_retention_period":"2020-01-01T00:00:00.000000Z/2090-01-01T00:00:00.000000Z"}`), ""))
	for name, tt := range map[string]struct {
		address, metadata string
		code              problem.Code
	}{
		"what is there":                        {"north:/c/there/", `{}`, problem.Conflict},
		"a root container":                     {"north:/new/", `{}`, problem.Conflict},
		"somebody else's":                      {"north:/c/new/", `{"cdmi_owner":"` + string(bob) + `"}`, problem.NotPermitted},
		"in a container under a hold":          {"north:/c/held/new/", `{}`, problem.OnHold},
		"deep below one":                       {"north:/c/held/a/b/", `{}`, problem.OnHold},
		"in a container under a retention":     {"north:/c/kept/new/", `{}`, problem.UnderRetention},
		"with an item of no name that is":      {"north:/c/new/", `{"cdmi_colour":"red"}`, problem.UnknownField},
		"with a list that is none":             {"north:/c/new/", `{"cdmi_acl":{}}`, problem.Malformed},
		"with a wish that is none":             {"north:/c/new/", `{"cdmi_retention_period":"soon"}`, problem.Malformed},
		"with user metadata that are a number": {"north:/c/new/", `{"a":1}`, problem.Malformed},
	} {
		_, err := w.create(alice, tt.address, tt.metadata)
		if problem.Of(err) != tt.code {
			t.Errorf("%s: got %v, want %s", name, err, tt.code)
		}
		if tt.code != problem.Conflict && w.spot(tt.address).Known {
			t.Errorf("%s: there is a row", name)
		}
	}
	small := &world{t: t, d: newDB(t), tree: newTree(t, tree.Config{Limits: space.UserLimits{Items: 1}}), now: w.now}
	if _, err := small.create(alice, "north:/c/new/", `{"a":"1","b":"2"}`); problem.Of(err) != problem.TooLarge {
		t.Errorf("beyond a limit: got %v", err)
	}
	small.read(func(ctx context.Context, tx *db.Tx) error {
		ns, err := tx.NodesBelow(ctx, token.Location{Provider: "north", Container: "c"}, "", acl.Object, 1)
		if len(ns) > 0 {
			t.Errorf("it left %+v", ns)
		}
		return err
	})
}

// TestCreateLeavesNoRetention: who makes a container in an archive that is still being filled cannot have it, and all that comes
// into it, leave the retention that begins later.
func TestCreateLeavesNoRetention(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", rita)
	period := func(from, to time.Duration) string {
		return space.Interval{Start: w.now.Add(from), End: w.now.Add(to)}.String()
	}
	const day = 24 * time.Hour
	begins, ends := day, 300*day
	w.must(w.apply(rita, "north:/c/", tree.Change{Set: items(t, `{"cdmi_retention_period":"`+period(begins, ends)+`"}`)}, ""))
	for name, own := range map[string]string{"over at once": period(-2*day, -day), "ends earlier": period(begins, ends-day), "begins later": period(begins+day, ends+day)} {
		_, err := w.create(rita, "north:/c/x/", `{"cdmi_retention_period":"`+own+`"}`)
		if problem.Of(err) != problem.UnderRetention {
			t.Errorf("%s: got %v, want %s", name, err, problem.UnderRetention)
		}
	}
	w.must(w.create(rita, "north:/c/longer/", `{"cdmi_retention_period":"`+period(begins, ends+day)+`"}`))
	w.must(w.create(rita, "north:/c/same/", `{}`))
}
