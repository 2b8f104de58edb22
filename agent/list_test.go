package agent

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// lookupOrder is an order to do one thing at one place.
func (w *world) lookupOrder(do token.Verb, at token.Location) token.Order {
	now := time.Now()
	o := token.Order{Accounts: []token.Identity{w.account(at.Provider)}, Do: do, Scope: token.One, Filters: []token.Filter{}, ID: newID(w.t),
		Iat: now.Unix(), Exp: now.Add(time.Hour).Unix(), From: at}
	switch do {
	case token.List:
		o.Scope = token.Tree
	case token.Make, token.Erase:
		o.From, o.To = token.Location{}, at
	}
	return o
}

func told(es []api.Entry) []string {
	var ns []string
	for _, e := range es {
		ns = append(ns, string(e.Name)+" "+e.Type+" "+string(e.Code))
	}
	return ns
}

func TestList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 2500 {
		w.random(token.ObjectName(fmt.Sprintf("in/a/%04d", i)), 3)
	}
	w.random("in/b", 5)
	w.random("in/c/d/e", 7)
	w.random("outside", 7)
	w.from.PutLink("in/link", store.Link)
	w.src.start()
	in := token.Location{Provider: "north.test", Container: "data", Name: "in"}
	for _, c := range []struct {
		name  string
		order token.Order
		task  api.Task
		want  []string
		n     int
	}{
		{name: "whole tree in pages", order: w.lookupOrder(token.List, in), n: 2503},
		{name: "one level", order: w.lookupOrder(token.List, in), task: api.Task{Level: true},
			want: []string{"in/a container ", "in/b object ", "in/c container ", "in/link link "}},
		{name: "limit", order: w.lookupOrder(token.List, in), task: api.Task{Limit: 2}, want: []string{"in/a/0000 object ", "in/a/0001 object "}},
		{name: "after", order: w.lookupOrder(token.List, in), task: api.Task{After: "in/a/2499"}, want: []string{"in/b object ", "in/c/d/e object ", "in/link link "}},
		{name: "of a copy", order: w.order(), task: api.Task{After: "in/a/2499"}, want: []string{"in/b object ", "in/c/d/e object ", "in/link link "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.task.ID, c.task.Kind, c.task.Order = "list "+c.name, api.ListTask, w.signOrder(c.order)
			w.broker.give(w.src.port, c.task)
			got, bad := w.broker.listing(c.task.ID)
			if bad != nil {
				t.Fatalf("got %+v, want a listing", bad)
			}
			if c.n > 0 {
				if len(got) != c.n {
					t.Errorf("got %d entries, want %d", len(got), c.n)
				}
				return
			}
			if !slices.Equal(told(got), c.want) {
				t.Errorf("got %q, want %q", told(got), c.want)
			}
		})
	}
}

func TestListStopsWhenTheBrokerWantsNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 3000 {
		w.random(token.ObjectName(fmt.Sprintf("in/%04d", i)), 3)
	}
	w.broker.more = func(task string, pages int) bool { return task != "first" }
	w.src.start()
	signed := w.signOrder(w.order())
	w.broker.give(w.src.port, api.Task{ID: "first", Kind: api.ListTask, Order: signed})
	w.broker.await("one page", func() bool { return len(w.broker.pages["first"]) == 1 })
	w.broker.give(w.src.port, api.Task{ID: "second", Kind: api.ListTask, Order: signed, After: "in/0999"})
	got, bad := w.broker.listing("second")
	if bad != nil || len(got) != 2000 || got[0].Name != "in/1000" {
		t.Errorf("got %d entries and %v, want 2000 from in/1000", len(got), bad)
	}
	w.broker.mu.Lock()
	defer w.broker.mu.Unlock()
	if n := len(w.broker.pages["first"]); n != 1 {
		t.Errorf("got %d pages of the first task, want 1", n)
	}
}

func TestStatAndMake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random("in/b", 5)
	w.random("in/secret", 5)
	w.from.SetHook(func(op mem.Op, name string) (error, bool) {
		if op == mem.OpOpen && name == "in/secret" {
			return problem.New(problem.Unreadable, "No"), false
		}
		return nil, false
	})
	w.src.start()
	w.dst.start()
	o := w.order()
	w.broker.give(w.src.port, api.Task{ID: "stat", Kind: api.StatTask, Order: w.signOrder(o), Names: []token.ObjectName{"in/b", "in/none", "in/secret"}})
	got, bad := w.broker.listing("stat")
	if bad != nil || !slices.Equal(told(got), []string{"in/b object ", "in/none  missing", "in/secret object unreadable"}) {
		t.Errorf("got %q and %v", told(got), bad)
	}
	w.broker.give(w.dst.port, api.Task{ID: "make", Kind: api.MakeTask, Order: w.signOrder(o), Names: []token.ObjectName{"out/x/y"}})
	if got, bad := w.broker.listing("make"); bad != nil || !slices.Equal(told(got), []string{"out/x/y container "}) {
		t.Errorf("got %q and %v", told(got), bad)
	}
	if info, err := w.to.Stat(t.Context(), "out/x/y"); err != nil || info.Type != store.Subtree {
		t.Errorf("got %+v and %v, want a subtree", info, err)
	}
}

// TestBrokerAsksForMoreThanTheOrder: what no subscriber ordered is not listed, described or made.
func TestBrokerAsksForMoreThanTheOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random("in/b", 5)
	w.src.start()
	w.dst.start()
	in := token.Location{Provider: "north.test", Container: "data", Name: "in"}
	filtered := w.order()
	filtered.Filters = []token.Filter{{Do: "exclude", Match: "b"}}
	other := in
	other.Container = "private"
	one := w.order()
	one.Scope, one.From.Name, one.To.Name = token.One, "in/b", "out/b"
	expired := w.order()
	expired.Iat, expired.Exp = expired.Iat-7200, expired.Iat-3600
	for _, c := range []struct {
		name string
		at   *node
		task api.Task
		want problem.Code
	}{
		{"stat of a filtered name", w.src, api.Task{Kind: api.StatTask, Order: w.signOrder(filtered), Names: []token.ObjectName{"in/b"}}, problem.OrderNotCovered},
		{"stat outside the order", w.src, api.Task{Kind: api.StatTask, Order: w.signOrder(w.order()), Names: []token.ObjectName{"outside"}}, problem.OrderNotCovered},
		{"stat of a bad name", w.src, api.Task{Kind: api.StatTask, Order: w.signOrder(w.order()), Names: []token.ObjectName{"in/../x"}}, problem.BadName},
		{"list for an order to stat", w.src, api.Task{Kind: api.ListTask, Order: w.signOrder(w.lookupOrder(token.Stat, token.Location{Provider: "north.test", Container: "data", Name: "in/b"}))}, problem.OrderNotCovered},
		{"list for an order of one object", w.src, api.Task{Kind: api.ListTask, Order: w.signOrder(one)}, problem.OrderNotCovered},
		{"list at the other provider", w.dst, api.Task{Kind: api.ListTask, Order: w.signOrder(w.order())}, problem.OrderNotCovered},
		{"list of a container that is not exported", w.src, api.Task{Kind: api.ListTask, Order: w.signOrder(w.lookupOrder(token.List, other))}, problem.NoContainer},
		{"list for an order that has ended", w.src, api.Task{Kind: api.ListTask, Order: w.signOrder(expired)}, problem.OrderExpired},
		{"list without an order", w.src, api.Task{Kind: api.ListTask}, problem.OrderUnsigned},
		{"make outside the order", w.dst, api.Task{Kind: api.MakeTask, Order: w.signOrder(w.order()), Names: []token.ObjectName{"elsewhere"}}, problem.OrderNotCovered},
		{"make where nothing may be created", w.src, api.Task{Kind: api.MakeTask, Order: w.signOrder(w.lookupOrder(token.Make, in))}, problem.PolicyRefused},
		{"make for an order to list", w.src, api.Task{Kind: api.MakeTask, Order: w.signOrder(w.lookupOrder(token.List, in))}, problem.OrderNotCovered},
		{"erase for an order to copy", w.dst, api.Task{Kind: api.EraseTask, Order: w.signOrder(w.order())}, problem.OrderNotCovered},
		{"unknown kind", w.src, api.Task{Kind: "melt", Order: w.signOrder(w.order())}, problem.Malformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.task.ID = c.name
			w.broker.give(c.at.port, c.task)
			if c.task.Kind == "melt" {
				if got := w.broker.refusal(c.name); got.Code != c.want {
					t.Errorf("got %q, want %q: %s", got.Code, c.want, got.Detail)
				}
				return
			}
			got, bad := w.broker.listing(c.name)
			if bad == nil || bad.Code != c.want || len(got) > 0 {
				t.Errorf("got %v and %d entries, want %q", bad, len(got), c.want)
			}
		})
	}
}

// TestFreshNameIsDescribedAgain: a version that cannot tell two states apart is not reported for a copy.
func TestFreshNameIsDescribedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random("in/b", 5)
	w.src.conf.hooks.settle = store.Settle + 100*time.Millisecond
	fresh, err := w.from.Stat(t.Context(), "in/b")
	if err != nil || !fresh.Fresh {
		t.Fatalf("got %+v and %v, want a fresh object", fresh, err)
	}
	w.src.start()
	start := time.Now()
	w.broker.give(w.src.port, api.Task{ID: "list", Kind: api.ListTask, Order: w.signOrder(w.order())})
	got, bad := w.broker.listing("list")
	if bad != nil || len(got) != 1 || time.Since(start) < store.Settle {
		t.Errorf("got %q and %v after %s, want one entry after the name has settled", told(got), bad, time.Since(start))
	}
}

func TestUnreadableNameDoesNotEndAListing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random("in/a", 5)
	w.random("in/b", 5)
	w.random("in/c", 5)
	w.from.SetHook(func(op mem.Op, name string) (error, bool) {
		if op == mem.OpList && name == "in/b" {
			return problem.Wrap(errors.New("/secret/path"), problem.Unreadable, "No"), false
		}
		return nil, false
	})
	w.src.start()
	w.broker.give(w.src.port, api.Task{ID: "list", Kind: api.ListTask, Order: w.signOrder(w.order())})
	got, bad := w.broker.listing("list")
	if bad != nil || !slices.Equal(told(got), []string{"in/a object ", "in/b object unreadable", "in/c object "}) {
		t.Errorf("got %q and %v", told(got), bad)
	}
}
