package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/policy"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// erasable lets everybody do everything at the destination, also on the broker's word.
func (w *world) erasable() {
	w.dst.conf.Exports = []Export{{
		Container: "copies", Store: w.to, Session: []token.Identity{w.broker.id},
		Rules: []policy.Rule{{Who: []policy.Who{policy.Everyone}, May: []policy.Right{policy.Read, policy.List, policy.Create, policy.Erase}}},
	}}
}

// erasure is an order to erase a name at the destination: an object at a version, or an empty container.
func (w *world) erasure(name token.ObjectName, v token.Version) token.Order {
	o := w.lookupOrder(token.Erase, token.Location{Provider: "south.test", Container: "copies", Name: name})
	o.Version = v
	return o
}

// erase gives a task to the destination and returns what it says: the entry, or the code of a problem.
func (w *world) erase(so api.SignedOrder, names ...token.ObjectName) (api.Entry, problem.Code) {
	w.t.Helper()
	id := string(newID(w.t))
	w.broker.give(w.dst.port, api.Task{ID: id, Kind: api.EraseTask, Order: so, Names: names})
	got, bad := w.broker.listing(id)
	switch {
	case bad != nil && len(got) == 0 && bad.Detail != "":
		return api.Entry{}, bad.Code
	case bad != nil || len(got) != 1:
		w.t.Fatalf("got %+v and %v, want one entry or a problem", got, bad)
	}
	return got[0], ""
}

// TestErase: an order erases the state that it names, of the one thing that it names, once.
func TestErase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.erasable()
	w.dst.start()
	one := w.to.Put("out/a", []byte("12345"), store.Attrs{})
	w.to.Put("out/b", []byte("stays"), store.Attrs{})
	for _, name := range []token.ObjectName{"empty/inner", "full/inner"} {
		if err := w.to.Make(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		order token.Order
		want  problem.Code
	}{
		"another version":                {w.erasure("out/a", one.Version+"0"), problem.Outdated},
		"nothing":                        {w.erasure("out/c", one.Version), problem.Missing},
		"a container that is no object":  {w.erasure("full", one.Version), problem.Missing},
		"an object that is no container": {w.erasure("out/a", ""), problem.Missing},
		"a container with something in":  {w.erasure("full", ""), problem.NotEmpty},
		"a container with objects in":    {w.erasure("out", ""), problem.NotEmpty},
		"no container":                   {w.erasure("none", ""), problem.Missing},
	} {
		so := w.signOrder(tt.order)
		for i := range 2 { // the second time it is not thought to have happened
			if got, code := w.erase(so); code != tt.want {
				t.Errorf("%s, time %d: got %q and %+v, want %q", name, i+1, code, got, tt.want)
			}
		}
	}
	if _, code := w.erase(w.signOrder(w.erasure("out/a", one.Version)), "out/b"); code != problem.OrderNotCovered {
		t.Errorf("with a name beside the order's: got %q, want %q", code, problem.OrderNotCovered)
	}
	object, container := w.signOrder(w.erasure("out/a", one.Version)), w.said(w.erasure("empty/inner", ""))
	again := func(when string) {
		t.Helper()
		if got, code := w.erase(object); code != "" || got.Name != "out/a" || got.Type != string(store.Object) || got.Size != 5 || got.Version != one.Version || got.Sanitized != "" {
			t.Errorf("%s: got %q and %+v, want that the object was erased", when, code, got)
		}
		if got, code := w.erase(container); code != "" || got.Name != "empty/inner" || got.Type != string(store.Subtree) {
			t.Errorf("%s: got %q and %+v, want that the container was erased", when, code, got)
		}
	}
	again("at first")
	for _, name := range []token.ObjectName{"out/a", "empty/inner"} {
		if _, err := w.to.Stat(t.Context(), name); problem.Of(err) != problem.Missing {
			t.Errorf("%q: got %v, want that it is gone", name, err)
		}
	}
	w.to.Put("out/a", []byte("new"), store.Attrs{})
	if err := w.to.Make(t.Context(), "empty/inner"); err != nil {
		t.Fatal(err)
	}
	again("an evil broker that gives it again, when there is something new")
	w.dst.stop()
	w.dst.start()
	again("after a restart")
	for _, name := range []token.ObjectName{"out/a", "out/b", "empty/inner", "full/inner"} {
		if _, err := w.to.Stat(t.Context(), name); err != nil {
			t.Errorf("%q: got %v, want that it is there", name, err)
		}
	}
}

// TestEraseNeedsARight: by default nobody erases, whoever orders it and whatever else they may; and the broker's word is not enough where nobody
// said that it is.
func TestEraseNeedsARight(t *testing.T) {
	t.Parallel()
	all := []policy.Right{policy.Read, policy.List, policy.Create, policy.Erase}
	for name, tt := range map[string]struct {
		export Export
		word   bool
		want   problem.Code
	}{
		"read and create":                {Export{Read: true, Create: true}, false, problem.PolicyRefused},
		"every right but that":           {Export{Rules: []policy.Rule{{Who: []policy.Who{policy.Everyone}, May: all[:3]}}}, false, problem.PolicyRefused},
		"the right elsewhere":            {Export{Rules: []policy.Rule{{Who: []policy.Who{policy.Everyone}, May: all, Below: "other"}}}, false, problem.Hidden},
		"the right of somebody else":     {Export{Rules: []policy.Rule{{Who: []policy.Who{"spiffe://south.test/subscriber/bob"}, May: all}, {Who: []policy.Who{policy.Everyone}, May: all[:3]}}}, false, problem.NotPermitted},
		"the right, and a broker's word": {Export{Rules: []policy.Rule{{Who: []policy.Who{policy.Everyone}, May: all}}}, true, problem.PolicyRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tt.export.Container, tt.export.Store = "copies", w.to
			w.dst.conf.Exports = []Export{tt.export}
			w.dst.start()
			one := w.to.Put("out/a", []byte("12345"), store.Attrs{})
			seen := touches(w.to)
			so := w.signOrder(w.erasure("out/a", one.Version))
			if tt.word {
				so = w.said(w.erasure("out/a", one.Version))
			}
			if got, code := w.erase(so); code != tt.want {
				t.Errorf("got %q and %+v, want %q", code, got, tt.want)
			}
			if got := seen(); len(got) > 0 {
				t.Errorf("the store was asked %q, want it left alone", got)
			}
		})
	}
}

// TestEraseUnderAHold: no hold and no retention that a broker told of is passed over, though the order is good, the broker changes its mind without a record, another
// broker gives the order, or the agent starts again beside a broker that says nothing of holds.
func TestEraseUnderAHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.erasable()
	other := newMemBroker(t, token.NewIdentity("hub.test", token.Broker, "other"), w.trust)
	w.dst.conf.Brokers = append(w.dst.conf.Brokers, Broker{ID: other.id, URL: "https://other.test"})
	port := other.port(w.dst.conf.Pair)
	w.dst.conf.hooks.broker = func(b Broker) control {
		if b.ID == other.id {
			return port
		}
		return w.dst.port
	}
	w.dst.start()
	one := w.to.Put("out/a", []byte("12345"), store.Attrs{})
	so := w.signOrder(w.erasure("out/a", one.Version))
	until := time.Now().Add(time.Hour).UTC().Format("2006-01-02T15:04:05.000000Z")
	other.keep(port, api.KeptPage{Seq: 5, Last: true, Records: []api.Kept{
		{Seq: 4, Container: "copies", Name: "out", Data: heldData}, {Seq: 5, Container: "copies", Data: `{"cdmi_retention_period":"2020-01-01T00:00:00.000000Z/` + until + `"}`},
	}})
	other.kept(port, 5)
	refused := func(when string, want problem.Code) {
		t.Helper()
		if got, code := w.erase(so); code != want {
			t.Errorf("%s: got %q and %+v, want %q", when, code, got, want)
		}
		if _, err := w.to.Stat(t.Context(), "out/a"); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("held by another broker's record", problem.OnHold)
	w.dst.stop()
	other.mu.Lock()
	port.log, port.newest = nil, 0 // it pushes nothing any more
	other.mu.Unlock()
	w.dst.start()
	refused("after a restart", problem.OnHold)
	other.keep(port, api.KeptPage{Seq: 6, Last: true, Records: []api.Kept{{Seq: 6, Container: "copies", Name: "out"}}})
	other.kept(port, 6)
	refused("with the hold released and the retention still there", problem.UnderRetention)
	other.keep(port, api.KeptPage{Seq: 7, Last: true, Records: []api.Kept{{Seq: 7, Container: "copies"}}})
	other.kept(port, 7)
	w.broker.mu.Lock()
	w.dst.port.newest = 9 // and has not told of it
	w.broker.mu.Unlock()
	w.dst.stop()
	w.dst.start()
	refused("with a log that was not told whole", problem.Overloaded)
	w.broker.keep(w.dst.port, api.KeptPage{Seq: 9, Last: true, Records: []api.Kept{{Seq: 9, Container: "copies", Name: "out/a", Object: true, Data: "{"}}})
	poll(t, "a page that cannot be read", func() bool { return w.dst.agent.kept[w.broker.id].whole() != nil })
	refused("with a page that could not be read", problem.Overloaded)
	w.broker.keep(w.dst.port, api.KeptPage{Seq: 9, Last: true, Records: []api.Kept{{Seq: 9, Container: "copies", Name: "out/a", Object: true}}})
	w.broker.kept(w.dst.port, 9)
	if got, code := w.erase(so); code != "" {
		t.Errorf("with nothing in force: got %q and %+v, want it erased", code, got)
	}
}

// TestEraseDuringATransfer: what a batch is about to publish, or reads, is not erased under it.
func TestEraseDuringATransfer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.erasable()
	w.src.conf.Listen = "127.0.0.1:9" // nobody: the batch waits
	w.dst.start()
	_, receive := w.tasks(w.spec(w.order(), 1, w.random("in/a", 100)))
	w.broker.give(w.dst.port, receive)
	poll(t, "the batch to be taken", func() bool { return len(w.dst.agent.of("")) == 1 })
	if err := w.to.Make(t.Context(), "out"); err != nil {
		t.Fatal(err)
	}
	one := w.to.Put("out/a", []byte("somebody else's"), store.Attrs{})
	for _, o := range []token.Order{w.erasure("out/a", one.Version), w.erasure("out", "")} {
		if got, code := w.erase(w.signOrder(o)); code != problem.Claimed {
			t.Errorf("%q: got %q and %+v, want %q", o.To.Name, code, got, problem.Claimed)
		}
	}
}

// TestEraseWhoseAnswerIsLost: an erasure that happened and was not heard of is not taken for one that failed, and one that failed not for one that happened.
func TestEraseWhoseAnswerIsLost(t *testing.T) {
	t.Parallel()
	for _, happened := range []bool{true, false} {
		t.Run(fmt.Sprintf("happened=%t", happened), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.erasable()
			w.dst.start()
			one := w.to.Put("out/a", []byte("12345"), store.Attrs{})
			w.to.SetHook(func(op mem.Op, _ string) (error, bool) {
				if op == mem.OpErase {
					return problem.Wrap(errors.New("no answer"), problem.StoreAway, "The store does not answer"), happened
				}
				return nil, false
			})
			so := w.signOrder(w.erasure("out/a", one.Version))
			if got, code := w.erase(so); code != problem.StoreAway {
				t.Errorf("got %q and %+v, want %q", code, got, problem.StoreAway)
			}
			w.to.SetHook(nil)
			w.dst.stop()
			w.dst.start()
			if got, code := w.erase(so); code != "" || got.Name != "out/a" {
				t.Errorf("again: got %q and %+v, want that it is erased", code, got)
			}
			if _, err := w.to.Stat(t.Context(), "out/a"); problem.Of(err) != problem.Missing {
				t.Errorf("got %v, want that it is gone", err)
			}
		})
	}
}

// TestEraseWipes: where metadata in force ask for a method, what is erased and what is thrown away unpublished is wiped by it; a method that the
// store does not have lets nothing be erased.
func TestEraseWipes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.erasable()
	w.dst.start()
	seen := touches(w.to)
	one := w.to.Put("out/a", []byte("12345"), store.Attrs{})
	w.broker.keep(w.dst.port, api.KeptPage{Seq: 1, Last: true, Records: []api.Kept{{Seq: 1, Container: "copies", Data: `{"cdmi_sanitization_method":"shred"}`}}})
	w.broker.kept(w.dst.port, 1)
	so := w.signOrder(w.erasure("out/a", one.Version))
	if got, code := w.erase(so); code != problem.Unsanitizable {
		t.Errorf("by a method that there is not: got %q and %+v, want %q", code, got, problem.Unsanitizable)
	}
	if got := seen(); len(got) > 0 {
		t.Errorf("the store was asked %q, want it left alone", got)
	}
	w.broker.keep(w.dst.port, api.KeptPage{Seq: 2, Last: true, Records: []api.Kept{{Seq: 2, Container: "copies", Data: freeData}}})
	w.broker.kept(w.dst.port, 2)
	if got, code := w.erase(so); code != "" || got.Sanitized != string(store.Overwrite) {
		t.Errorf("got %q and %+v, want it erased by %q", code, got, store.Overwrite)
	}
	if got := seen(); !slices.Contains(got, "wipe out/a") || slices.Contains(got, "erase out/a") {
		t.Errorf("the store was asked %q, want it to wipe", got)
	}
	b, err := w.to.Batch(t.Context(), "someones")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Stage(t.Context(), store.Item{Name: "x", Size: 1, Part: token.ChunkSize}); err != nil {
		t.Fatal(err)
	}
	if err := b.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := seen(); !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "wipe someones/") }) {
		t.Errorf("the store was asked %q, want it to wipe the stage", got)
	}
}

// TestWipeThatWasEndedIsSweptUp: what an erasure has left aside is known as ours, and as nobody's who is still at it, so that the janitor finishes it.
func TestWipeThatWasEndedIsSweptUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.erasable()
	w.dst.start()
	a := w.dst.agent
	will := will{Order: w.erasure("out/a", "v"), ord: token.HashOf([]byte("x"))}
	id := will.erasing(w.broker.id, a.self)
	if !ownStages(id, a.self) || ownStages(id, w.src.conf.Pair.Identity()) {
		t.Errorf("%q is not known as what only %s has left", id, a.self)
	}
	a.wiping.Store(id, true) // before the janitor, which runs, can see it
	b, err := w.to.Batch(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Stage(t.Context(), store.Item{Name: "x", Size: 1, Part: token.ChunkSize}); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	left := func() (n int) {
		if err := w.to.Leftovers(t.Context(), func(l store.Leftover) bool {
			if l.Batch == id {
				n++
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if _, err := a.sweepStages(t.Context(), w.dst.conf.Exports[0]); err != nil || left() == 0 {
		t.Errorf("got %v and %d leftovers, want what is still being wiped left alone", err, left())
	}
	a.wiping.Delete(id)
	if _, err := a.sweepStages(t.Context(), w.dst.conf.Exports[0]); err != nil || left() > 0 {
		t.Errorf("got %v and %d leftovers, want it gone", err, left())
	}
}
