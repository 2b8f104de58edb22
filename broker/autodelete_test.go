package broker

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	overSince = `"2020-01-01T00:00:00.000000Z/2021-01-01T00:00:00.000000Z"`
	goneAlice = token.Identity("spiffe://south/subscriber/alice")
)

// dstAt is a place at south.
func dstAt(name token.ObjectName) token.Location {
	return token.Location{Provider: "south", Container: "dst", Name: name}
}

// row makes the row of an object that the broker has stored, and gives metadata to it.
func (w *world) row(name token.ObjectName, owner token.Identity, v token.Version, items space.Metadata) {
	w.t.Helper()
	w.must(w.b.write(context.Background(), w.now, func(tx *work) error {
		return w.b.tree.Stored(context.Background(), tx.Tx, []tree.StoredObject{{At: dstAt(name), Owner: owner, Size: 5, Version: v}}, w.now)
	}))
	if items != nil {
		w.set(dstAt(name), acl.Object, items)
	}
}

// set gives metadata to a place, as its owner.
func (w *world) set(at token.Location, kind acl.Kind, items space.Metadata) {
	w.t.Helper()
	ctx := context.Background()
	w.must(w.b.write(ctx, w.now, func(tx *work) error {
		a, err := w.b.tree.Attempt(ctx, tx.Tx, goneAlice, "south", "test")
		if err == nil {
			_, err = w.b.tree.Apply(ctx, tx.Tx, a, tree.Change{At: at, Kind: kind, Set: items}, w.now)
		}
		return err
	}))
}

// keepOf is the record of a place in the log.
func (w *world) keepOf(at token.Location, kind acl.Kind) (k db.Keep) {
	w.t.Helper()
	w.must(w.b.db.Read(context.Background(), func(tx *db.Tx) (err error) {
		k, _, err = tx.KeepOf(context.Background(), at, kind)
		return err
	}))
	return k
}

func (w *world) hasRow(at token.Location, kind acl.Kind) (known bool) {
	w.t.Helper()
	w.must(w.b.db.Read(context.Background(), func(tx *db.Tx) error {
		s, err := w.b.tree.Spot(context.Background(), tx, at, kind)
		known = s.Known
		return err
	}))
	return known
}

// TestRetentionThatHasEnded: an object whose retention has ended is erased in the state of its row, on our word in the name of its owner; one that is held, or whose retention
// runs, is not.
func TestRetentionThatHasEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	over := space.Metadata{space.RetentionPeriod: overSince, space.RetentionAutodelete: `"true"`}
	w.row("over", goneAlice, "v-7", over)
	w.row("held", goneAlice, "v-1", space.Metadata{space.RetentionPeriod: overSince, space.RetentionAutodelete: `"true"`, space.HoldID: `["case 7"]`})
	w.row("kept", goneAlice, "v-1", space.Metadata{space.RetentionPeriod: space.Value(`"2020-01-01T00:00:00.000000Z/` + space.FormatTime(w.now.Add(time.Hour)) + `"`), space.RetentionAutodelete: `"true"`})
	w.row("stays", goneAlice, "v-1", space.Metadata{space.RetentionPeriod: overSince})
	dst := w.eraser()
	dst.kept()
	done := make(chan error, 1)
	go func() { done <- w.b.lookForDue(context.Background(), w.now) }()
	k := dst.task(api.EraseTask)
	o := w.word(k)
	if o.Do != token.Erase || o.To != dstAt("over") || o.Version != "v-7" || o.Accounts[0] != goneAlice {
		t.Errorf("got the order %+v, want one to erase what is over", o)
	}
	dst.page(k.ID, api.TaskPage{Entries: []api.Entry{{Name: "over", Type: "object", Size: 5, Version: "v-7"}}, Last: true})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := w.leavesOf(db.EraseLeaf); len(got) != 1 || !strings.Contains(got[0], `"by":"spiffe://hub/broker/main"`) {
		t.Errorf("got the leaves %q, want one", got)
	}
	for name, there := range map[token.ObjectName]bool{"over": false, "held": true, "kept": true, "stays": true} {
		if got := w.hasRow(dstAt(name), acl.Object); got != there {
			t.Errorf("%s: got a row: %t, want %t", name, got, there)
		}
	}
	if got := dst.kept(); len(got.Records) != 1 || got.Records[0].Name != "over" || got.Records[0].Data != "" {
		t.Errorf("got %+v, want that agents are told that nothing is kept of it any more", got)
	}
	w.must(w.b.lookForDue(t.Context(), w.now)) // asks nobody
	if k := w.keepOf(dstAt("held"), acl.Object); !k.Look.After(w.now) {
		t.Errorf("got %v for the next look at what is held, want a later one: the hold may go", k.Look)
	}
	if k := w.keepOf(dstAt("stays"), acl.Object); !k.Look.IsZero() {
		t.Errorf("got %v for the next look at what stays, want none", k.Look)
	}
	w.now = w.now.Add(2 * time.Hour)
	go func() { done <- w.b.lookForDue(context.Background(), w.now) }()
	k = dst.task(api.EraseTask)
	if o := w.word(k); o.To != dstAt("kept") {
		t.Errorf("got %+v, want what has ended meanwhile", o.To)
	}
	dst.page(k.ID, api.TaskPage{Entries: []api.Entry{}, Last: true, Problem: &api.Problem{Code: problem.OnHold, Detail: "It is held here"}})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if k := w.keepOf(dstAt("kept"), acl.Object); k.Note != "It is held here" || !k.Look.After(w.now) {
		t.Errorf("got %+v, want the agent's reason and another look", k)
	}
}

// TestRetentionOfAContainer: what is in a container for which the retention has ended is erased, a row after the other, and why something is not is noted.
func TestRetentionOfAContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, n := range []token.ObjectName{"old/a", "old/deep/b", "old/held", "older"} {
		w.row(n, goneAlice, token.Version("v-"+n), nil)
	}
	w.row("old/theirs", "spiffe://east/subscriber/bob", "v", nil)
	w.row("old/unknown", goneAlice, "", nil)
	w.set(dstAt("old/held"), acl.Object, space.Metadata{space.HoldID: `["x"]`})
	w.must(w.b.write(t.Context(), w.now, func(tx *work) error {
		_, err := w.b.tree.OwnRoot(t.Context(), tx.Tx, dstAt(""), goneAlice, w.now)
		return err
	}))
	w.set(dstAt("old"), acl.Container, space.Metadata{space.RetentionPeriod: overSince, space.RetentionAutodelete: `"true"`})
	dst := w.eraser()
	dst.kept()
	done := make(chan error, 1)
	go func() { done <- w.b.lookForDue(context.Background(), w.now) }()
	for _, want := range []token.ObjectName{"old/a", "old/deep/b"} {
		k := dst.task(api.EraseTask)
		if o := w.word(k); o.To != dstAt(want) {
			t.Errorf("got %q, want %q", o.To.Name, want)
		}
		dst.page(k.ID, api.TaskPage{Entries: []api.Entry{{Name: want, Type: "object"}}, Last: true})
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for name, there := range map[token.ObjectName]bool{"old/a": false, "old/deep/b": false, "old/held": true, "older": true, "old/theirs": true, "old/unknown": true} {
		if got := w.hasRow(dstAt(name), acl.Object); got != there {
			t.Errorf("%s: got a row: %t, want %t", name, got, there)
		}
	}
	if k := w.keepOf(dstAt("old"), acl.Container); !strings.Contains(k.Note, "in which state") || k.Done != "" || !k.Look.After(w.now) {
		t.Errorf("got %+v, want a reason and another look from the start", k)
	}
}

// TestRetentionWhereNobodyTakesOurWord: nothing is asked of an agent that does not take it, and the reason is noted.
func TestRetentionWhereNobodyTakesOurWord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.row("over", goneAlice, "v-7", space.Metadata{space.RetentionPeriod: overSince, space.RetentionAutodelete: `"true"`})
	dst := w.agent(w.south, "s1", "dst")
	dst.hello.Exports[0].Erase = true
	dst.connect()
	w.must(w.b.lookForDue(t.Context(), w.now))
	if k := w.keepOf(dstAt("over"), acl.Object); !strings.Contains(k.Note, "session") || !w.hasRow(dstAt("over"), acl.Object) {
		t.Errorf("got %+v, want a note that names the setting", k)
	}
	w.must(w.b.db.Read(t.Context(), func(tx *db.Tx) error {
		s, err := w.b.tree.Spot(t.Context(), tx, dstAt("over"), acl.Object)
		if err != nil {
			return err
		}
		got, err := w.b.provided(t.Context(), tx, s)
		if p := got[space.RetentionAutodelete]; err == nil && (p.Kind != space.Uncertain || len(p.Value) > 0 || !strings.Contains(p.Evidence, "session")) {
			t.Errorf("got %+v, want that it is not known to be, and why", p)
		}
		return err
	}))
}

// word is the order of a task, which rests on our word alone.
func (w *world) word(k api.Task) token.Order {
	w.t.Helper()
	keys, err := token.ParseKeySet(w.b.Keys(), w.b.self)
	if err != nil {
		w.t.Fatal(err)
	}
	v, err := token.VerifySessionOrder(k.Order.Session, keys, w.b.self)
	if err != nil {
		w.t.Fatalf("the order of a task: %v", err)
	}
	return v.Claims
}
