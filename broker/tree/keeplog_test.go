package tree_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
)

// log is what the log of its provider says of a place.
func (w *world) log(address string) (record string) {
	w.t.Helper()
	l, k := at(w.t, address)
	w.read(func(ctx context.Context, tx *db.Tx) error {
		r, _, err := tx.KeepOf(ctx, l, k)
		record = r.Data
		return err
	})
	return record
}

// TestChangesReachTheLog: whatever way a place comes to have holds and retention, and loses them, its provider's log has it in the same transaction; what has nothing to do
// with erasing does not.
func TestChangesReachTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.make("north:/c/", alice, "ALLOW EVERYONE@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS")
	w.stored(alice, "north:/c/a", "north:/c/d/b")
	const held = `{"cdmi_hold_id":["x"]}`
	set := func(address, metadata string) {
		t.Helper()
		_, err := w.apply(alice, address, tree.Change{Set: items(t, metadata)}, "")
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(when, address, record string) {
		t.Helper()
		if got := w.log(address); got != record {
			t.Errorf("%s: got %q for %s, want %q", when, got, address, record)
		}
	}
	set("north:/c/a", `{"color":"red","cdmi_value_hash":"SHA256"}`)
	want("with what binds no erasure", "north:/c/a", "")
	set("north:/c/a", held)
	want("with a hold", "north:/c/a", held)
	set("north:/c/new", held) // without a row until now
	want("with a hold from the start", "north:/c/new", held)
	w.write(func(ctx context.Context, tx *db.Tx) error {
		l, k := at(t, "north:/c/a")
		s, err := w.tree.Spot(ctx, tx, l, k)
		if err != nil {
			return err
		}
		_, err = w.tree.ReleaseHold(ctx, tx, attempt(w.principal(rita, "north")), s, "x", w.now)
		if len(tx.NewKeeps()) != 1 || tx.NewKeeps()[0] != token.Provider("north") {
			t.Errorf("got %v, want that the log of north has grown", tx.NewKeeps())
		}
		return err
	})
	want("with the hold released", "north:/c/a", "")
	period := `{"cdmi_retention_period":"` + space.FormatTime(w.now) + "/" + space.FormatTime(w.now.Add(time.Hour)) + `"}`
	w.write(func(ctx context.Context, tx *db.Tx) error {
		l, _ := at(t, "north:/c/made/")
		_, err := w.tree.Create(ctx, tx, alice, l, items(t, period), w.now)
		return err
	})
	want("made with a retention", "north:/c/made/", period)
	for _, address := range []string{"north:/c/d/b", "north:/c/d/"} {
		set(address, held)
	}
	w.write(func(ctx context.Context, tx *db.Tx) error {
		l, k := at(t, "north:/c/d/")
		_, err := w.tree.Remove(ctx, tx, l, k)
		return err
	})
	want("a container that is gone", "north:/c/d/", "")
	want("what was in it", "north:/c/d/b", "")
	want("what was not", "north:/c/new", held)
	undone := w.d.Write(t.Context(), func(tx *db.Tx) error {
		_, err := w.tree.Apply(t.Context(), tx, attempt(w.principal(alice, "north")), tree.Change{At: token.Location{Provider: "north", Container: "c", Name: "a"}, Set: items(t, held)}, w.now)
		return errors.Join(err, errUndone)
	})
	if !errors.Is(undone, errUndone) {
		t.Fatal(undone)
	}
	want("of a change that was undone", "north:/c/a", "")
}
