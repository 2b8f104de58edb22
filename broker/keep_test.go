package broker

import (
	"context"
	"fmt"
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

// hold puts holds on objects of north:/src in one transaction, or releases them if data is empty.
func (w *world) hold(data string, names ...token.ObjectName) {
	w.t.Helper()
	w.must(w.b.write(context.Background(), w.now, func(tx *work) error {
		for _, n := range names {
			k := db.Keep{At: token.Location{Provider: "north", Container: "src", Name: n}, Kind: acl.Object, Data: data}
			if _, err := tx.PutKeep(context.Background(), k, w.now); err != nil {
				return err
			}
		}
		return nil
	}))
}

const someHold = `{"cdmi_hold_id":["case 7"]}`

// holds waits for a page of holds and returns it.
func (f *fake) holds() (p api.KeptPage) {
	f.w.t.Helper()
	f.w.poll("a page of holds", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.pages) == 0 {
			return false
		}
		p, f.pages = f.pages[0], f.pages[1:]
		return true
	})
	return p
}

// kept is holds, and says that the page is durable.
func (f *fake) kept() api.KeptPage {
	f.w.t.Helper()
	p := f.holds()
	if err := f.w.b.Kept(f.w.t.Context(), f.peer, api.KeptMark{Seq: p.Seq}, f.w.now); err != nil {
		f.w.t.Fatalf("acknowledging a page of holds: %v", err)
	}
	return p
}

// TestHoldsReachTheAgents: every agent of the provider gets what is newer than what it has, a page at a time, and no other provider's.
func TestHoldsReachTheAgents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var many []token.ObjectName
	for i := range api.MaxKept + 20 {
		many = append(many, token.ObjectName(fmt.Sprintf("o%04d", i)))
	}
	w.hold(someHold, many...)
	a, other := w.agent(w.north, "n1", "src"), w.agent(w.south, "s1", "dst")
	if got := a.connect(); got.Kept == 0 {
		t.Error("the welcome does not say that there are holds")
	}
	if got := other.connect(); got.Kept != 0 {
		t.Errorf("got %d for another provider, want nothing", got.Kept)
	}
	first := a.holds()
	if len(first.Records) != api.MaxKept || first.Last || first.Anew || first.Records[0].Data != someHold || !first.Records[0].Object {
		t.Fatalf("got %+v, want a full page that is not the last", first)
	}
	w.hold(someHold, "late")
	a.mu.Lock()
	if len(a.pages) > 0 {
		t.Errorf("got %+v before the page was acknowledged, want nothing", a.pages[0])
	}
	a.mu.Unlock()
	for _, bad := range []int64{0, first.Seq - 1, first.Seq + 1} {
		if err := w.b.Kept(t.Context(), a.peer, api.KeptMark{Seq: bad}, w.now); problem.Of(err) != problem.LeaseLost {
			t.Errorf("acknowledging %d: got %v, want %q", bad, err, problem.LeaseLost)
		}
	}
	w.must(w.b.Kept(t.Context(), a.peer, api.KeptMark{Seq: first.Seq}, w.now))
	second := a.kept()
	if len(second.Records) != 21 || !second.Last || second.Records[20].Name != "late" || second.Records[0].Seq <= first.Records[511].Seq {
		t.Errorf("got %d records, want the rest in order", len(second.Records))
	}
	w.hold("", "late")
	third := a.kept()
	if len(third.Records) != 1 || third.Records[0].Data != "" || third.Records[0].Name != "late" || !third.Last {
		t.Errorf("got %+v, want that the hold was released", third)
	}
	w.hold("", "never")
	w.hold(someHold, many[0])
	a.leave()
	a.hello.Kept = second.Seq
	a.connect()
	if got := a.kept(); len(got.Records) != 1 || got.Records[0].Name != "late" {
		t.Errorf("got %+v after a reconnection, want what the agent said that it has not", got)
	}
	at := token.Location{Provider: "north", Container: "src", Name: many[3]}
	w.must(w.b.db.Read(t.Context(), func(tx *db.Tx) error {
		h, err := holdsOf(t.Context(), tx, at, acl.Object)
		if err != nil || h.agents != 1 || h.kept != 1 || h.seq == 0 {
			t.Errorf("got %+v and %v, want that the agent has it", h, err)
		}
		return nil
	}))
	w.hold(`{"cdmi_hold_id":["case 8"]}`, many[3])
	w.must(w.b.db.Read(t.Context(), func(tx *db.Tx) error {
		if h, err := holdsOf(t.Context(), tx, at, acl.Object); err != nil || h.agents != 1 || h.kept != 0 {
			t.Errorf("got %+v and %v, want that the agent has it not yet", h, err)
		}
		return nil
	}))
}

// TestLogOfHoldsThatWasPutBack: what an agent has seen beyond the database stays in force there, and what comes later is beyond it, though the clock was put back too.
func TestLogOfHoldsThatWasPutBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent(w.north, "n1", "src")
	a.hello.Kept = w.now.Add(time.Hour).UnixMilli()
	if got := a.connect(); got.Kept != a.hello.Kept {
		t.Errorf("got %d, want the number that the agent has", got.Kept)
	}
	w.hold(someHold, "a")
	if got := a.kept(); got.Anew || len(got.Records) != 1 || got.Records[0].Seq <= a.hello.Kept {
		t.Errorf("got %+v, want a record beyond %d", got, a.hello.Kept)
	}
	for _, n := range []int64{-1, w.now.Add(30 * 24 * time.Hour).UnixMilli(), 1<<63 - 1} {
		b := w.agent(w.north, "n2", "src")
		b.hello.Kept = n
		if _, err := w.b.Hello(t.Context(), b.peer, b.hello, w.now); problem.Of(err) != problem.Malformed {
			t.Errorf("kept up to %d: got %v, want %q", n, err, problem.Malformed)
		}
	}
}

// TestLogOfHoldsIsPruned: records that say nothing any more are dropped, and an agent that has not seen them gets the log anew.
func TestLogOfHoldsIsPruned(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.agent(w.north, "n1", "src")
	w.hold(someHold, "a", "b")
	a.connect()
	a.hello.Kept = a.kept().Seq
	a.leave()
	w.hold("", "a")
	w.now = w.now.Add(time.Hour)
	w.hold(someHold, "c")
	w.must(w.b.write(t.Context(), w.now, func(tx *work) error {
		dropped, err := tx.DropKeeps(t.Context(), "north", w.now.UnixMilli())
		if !dropped {
			t.Error("nothing was dropped")
		}
		return err
	}))
	a.connect()
	got := a.kept()
	if !got.Anew || !got.Last || len(got.Records) != 2 || got.Records[0].Name != "b" || got.Records[1].Name != "c" {
		t.Errorf("got %+v, want the whole log anew", got)
	}
	a.leave()
	a.hello.Kept = got.Seq
	a.connect()
	w.hold(someHold, "d")
	if got := a.kept(); got.Anew || len(got.Records) != 1 {
		t.Errorf("got %+v, want what is new alone", got)
	}
}

// TestSanitizationThatCannotBe: a method is refused where one of the stores does not have it, or nobody knows whether it has.
func TestSanitizationThatCannotBe(t *testing.T) {
	t.Parallel()
	at := token.Location{Provider: "north", Container: "src"}
	can, cannot := db.Exporter{Export: api.Export{Sanitizes: []string{"x", "overwrite"}}}, db.Exporter{}
	asks := space.Settings{Sanitization: "overwrite"}
	for name, tt := range map[string]struct {
		s    space.Settings
		es   []db.Exporter
		want problem.Code
	}{
		"nothing asked": {space.Settings{}, []db.Exporter{cannot}, ""}, "it can": {asks, []db.Exporter{can, can}, ""},
		"one cannot": {asks, []db.Exporter{can, cannot}, problem.Unsanitizable}, "nobody there": {asks, nil, problem.Unsanitizable},
	} {
		if err := checkSanitization(tt.s, at, tt.es); problem.Of(err) != tt.want {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// TestSanitizationIsRefusedWhenItIsSet: metadata that ask for what the store cannot do are not written; those that ask for what it can are, and what is of no
// concern to it is.
func TestSanitizationIsRefusedWhenItIsSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dst := w.agent(w.south, "s1", "dst")
	dst.hello.Exports[0].Owner, dst.hello.Exports[0].Sanitizes = goneAlice, []string{"overwrite"}
	dst.connect()
	for _, tt := range []struct {
		items space.Metadata
		want  problem.Code
	}{
		{space.Metadata{space.SanitizationMethod: `"shred"`}, problem.Unsanitizable},
		{space.Metadata{space.SanitizationMethod: `"overwrite"`}, ""},
		{space.Metadata{"color": `"red"`}, ""},
	} {
		err := w.b.write(t.Context(), w.now, func(tx *work) error {
			was, err := w.b.tree.Spot(t.Context(), tx.Tx, dstAt(""), acl.Container)
			if err != nil {
				return err
			}
			a, err := w.b.tree.Attempt(t.Context(), tx.Tx, goneAlice, "south", "test")
			if err == nil {
				_, err = w.b.applyChange(t.Context(), tx, a, was, tree.Change{At: dstAt(""), Kind: acl.Container, Set: tt.items})
			}
			return err
		})
		if problem.Of(err) != tt.want {
			t.Errorf("%v: got %v, want %q", tt.items, err, tt.want)
		}
	}
	if k := w.keepOf(dstAt(""), acl.Container); k.Data != `{"cdmi_sanitization_method":"overwrite"}` {
		t.Errorf("got the record %q, want the method that there is", k.Data)
	}
}
