package broker

import (
	"fmt"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestListingPausesAndGoesOn lists 6,000 objects with two waiting batches allowed: the listing pauses, goes on
// after the last name, survives a kill, and plans each object once.
func TestListingPausesAndGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.conf.MaxReady = 2
	w.crash()
	src, dst := w.pair()
	src.leave()
	src.hello.Slots = 1
	src.connect()
	id := w.submit(w.order(func(o *token.Order) { o.Filters = []token.Filter{{Do: "exclude", Match: "*9"}} }))
	name := func(i int) string { return fmt.Sprintf("o%05d", i) }
	const n = 6000
	at, pauses, done := 0, 0, int64(0)
	for round := 0; !w.transfer(id).State.Ended(); round++ {
		if round > 200 {
			t.Fatalf("got no end: %+v", w.transfer(id))
		}
		w.step()
		l := src.next()
		if l.Task == nil {
			continue
		}
		switch k := *l.Task; k.Kind {
		case api.ListTask:
			if want := map[bool]string{true: name(at - 1)}[at > 0]; string(k.After) != want {
				t.Fatalf("got a listing after %q, want after %q", k.After, want)
			}
			for more := true; more; {
				page := api.TaskPage{}
				for ; at < n && len(page.Entries) < api.MaxPage; at++ {
					page.Entries = append(page.Entries, object(name(at), 1))
				}
				page.Last = at == n
				more = src.page(k.ID, page).More
			}
			if at < n {
				pauses++
			}
		case api.ServeTask:
			receive := dst.task(api.ReceiveTask)
			if got := len(dst.manifest(receive).Items); got > token.MaxItems {
				t.Fatalf("got a batch of %d items", got)
			}
			dst.post(dst.receipt(receive, nil))
			src.post(src.receipt(k, nil))
			w.step()
			done++
		default:
			t.Fatalf("got %s", show(l))
		}
	}
	if pauses == 0 || done < 6 {
		t.Errorf("got %d pauses and %d batches, want some and 6 at least", pauses, done)
	}
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: n - n/10})
}

func TestPlansThatCannotBe(t *testing.T) {
	t.Parallel()
	refuse := func(c problem.Code) *api.Problem { return api.ProblemOf(problem.New(c, "As the test says")) }
	for _, tt := range []struct {
		name   string
		change func(*token.Order)
		page   api.TaskPage
		state  api.State
		code   problem.Code
	}{
		{"missing object", one, api.TaskPage{Entries: []api.Entry{{Name: "a", Code: problem.Missing}}, Last: true}, api.Failed, problem.Missing},
		{"container instead of an object", one, api.TaskPage{Entries: []api.Entry{{Name: "a", Type: "container"}}, Last: true}, api.Failed, problem.Missing},
		{"link instead of an object", one, api.TaskPage{Entries: []api.Entry{{Name: "a", Type: "link"}}, Last: true}, api.Failed, problem.Skipped},
		{"another object", one, api.TaskPage{Entries: []api.Entry{object("x", 1)}, Last: true}, api.Failed, problem.Missing},
		{"missing root", func(*token.Order) {}, api.TaskPage{Problem: refuse(problem.Missing), Last: true}, api.Failed, problem.Missing},
		{"denied by the agent", func(*token.Order) {}, api.TaskPage{Problem: refuse(problem.NotPermitted), Last: true}, api.Failed, problem.NotPermitted},
		{"unreadable object", func(*token.Order) {}, api.TaskPage{Entries: []api.Entry{{Name: "a", Code: problem.Unreadable}}, Last: true}, api.Failed, problem.Unreadable},
		{"limit of items", func(o *token.Order) { o.Limits.Bytes = 5 }, api.TaskPage{Entries: []api.Entry{object("a", 9)}, Last: true}, api.Failed, problem.OrderNotCovered},
		{"empty tree", func(*token.Order) {}, api.TaskPage{Last: true}, api.Complete, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			src, _ := w.pair()
			id := w.submit(w.order(tt.change))
			src.page(src.next().Task.ID, tt.page)
			w.step()
			got := w.transfer(id)
			code := problem.Code("")
			if got.Problem != nil {
				code = got.Problem.Code
			}
			if got.State != tt.state || code != tt.code {
				t.Errorf("got %s %s, want %s %s", got.State, code, tt.state, tt.code)
			}
			w.checkTotals(id)
		})
	}
}

func TestWhomItWaitsFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.submit(w.order()) // no agent has ever been here
	w.step()
	if got := w.transfer(id); got.State != api.Queued || got.Waiting != "No agent of north is connected" {
		t.Errorf("got %s, waiting %q", got.State, got.Waiting)
	}
	src, dst := w.agent(w.north, "n1", "src"), w.agent(w.south, "s1", "dst")
	src.hello.Listen = nil
	src.connect()
	src.list(object("a", 1))
	w.step()
	if got := w.transfer(id); got.State.Ended() {
		t.Errorf("got %s before the other agent was here", got.State)
	}
	dst.connect()
	w.step()
	w.step()
	if got := w.transfer(id); got.State != api.Failed || got.Problem.Code != problem.NoListener {
		t.Errorf("got %s %+v, want no-listener", got.State, got.Problem)
	}
	o := w.order(func(o *token.Order) { o.To.Container = "nowhere" })
	if _, err := w.b.Submit(t.Context(), w.me(), w.sign(o), w.now); problem.Of(err) != problem.NoContainer {
		t.Errorf("a container that is not exported: got %v", err)
	}
	dst.hello.Exports[0].Create = false
	dst.connect()
	if _, err := w.b.Submit(t.Context(), w.me(), w.sign(w.order()), w.now); problem.Of(err) != problem.PolicyRefused {
		t.Errorf("a container in which nothing may be created: got %v", err)
	}
}

// TestCopyWithinOneProvider: an agent does not copy to itself. Where only one agent has both ends this is said at
// once; where another one can take a side it does, whichever side that is.
func TestCopyWithinOneProvider(t *testing.T) {
	t.Parallel()
	within := func(o *token.Order) {
		o.Accounts, o.To.Provider, o.To.Container = o.Accounts[:1], "north", "src"
		o.From.Name = "in"
	}
	w := newWorld(t)
	both := w.agent(w.north, "n1", "src")
	both.connect()
	if _, err := w.b.Submit(t.Context(), w.me(), w.sign(w.order(within)), w.now); problem.Of(err) != problem.PolicyRefused {
		t.Errorf("one agent for both ends: got %v, want it refused", err)
	}
	for i, spare := range []struct{ read, create bool }{{read: true}, {create: true}} {
		w := newWorld(t)
		both, other := w.agent(w.north, "n1", "src"), w.agent(w.north, "n2", "src")
		other.hello.Exports[0].Read, other.hello.Exports[0].Create = spare.read, spare.create
		both.connect()
		other.connect()
		other.stop() // the one that is left cannot take both sides
		<-other.done
		id := w.submit(w.order(within))
		w.step()
		both.page(both.next().Task.ID, api.TaskPage{Entries: []api.Entry{object("in/a", 1)}, Last: true})
		w.step()
		if got := w.transfer(id); got.Waiting != "Of the agents of north only one can take part now, and a copy is between two" {
			t.Errorf("case %d: got %s, waiting %q", i, got.State, got.Waiting)
		}
		other.connect()
		w.step()
		src, dst := other, both
		if spare.create {
			src, dst = both, other
		}
		serve, receive := batch(src, dst)
		if serve.Peer.ID != dst.peer.Identity || receive.Peer.ID != src.peer.Identity {
			t.Errorf("case %d: got a batch from %s to %s", i, receive.Peer.ID, serve.Peer.ID)
		}
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10))
	serve, receive := batch(src, dst)
	ref := api.Ref{Xfr: id, Bat: receive.Bat}
	keys, err := token.ParseKeySet(w.b.Keys(), w.b.Self())
	if err != nil {
		t.Fatal(err)
	}
	read := func(jws string, gen int64, do token.Verb, aud *fake) {
		t.Helper()
		v, err := token.VerifyCapability(jws, keys)
		c := v.Claims
		if err != nil || c.Gen != gen || c.Do != do || c.Aud != aud.peer.Identity || c.Cnf != dst.peer.Leaf || c.Man != token.HashOf(receive.Manifest) || c.Xfr != id {
			t.Errorf("got %+v, %v, want generation %d to %s for %s, bound to the destination", c, err, gen, do, aud.peer.Identity)
		}
	}
	read(receive.Capability, 1, token.Create, dst)
	read(receive.Present, 1, token.Read, src)
	read(serve.Capability, 1, token.Read, src)
	w.now = w.now.Add(10 * time.Minute)
	dst.peer.Leaf = token.HashOf([]byte("a new certificate"))
	r, err := w.b.Renew(t.Context(), dst.peer, ref, w.now)
	if err != nil {
		t.Fatal(err)
	}
	read(r.Capability, 2, token.Create, dst)
	read(r.Present, 2, token.Read, src)
	if r, err = w.b.Renew(t.Context(), src.peer, ref, w.now); err != nil || r.Present != "" {
		t.Errorf("the source's copy: got %+v, %v", r, err)
	}
	read(r.Capability, 2, token.Read, src)
	if _, err := w.b.Renew(t.Context(), w.agent(w.south, "s2", "dst").peer, ref, w.now); problem.Of(err) != problem.LeaseLost {
		t.Errorf("another agent renews: got %v, want lease-lost", err)
	}
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	if _, err := w.b.Renew(t.Context(), dst.peer, ref, w.now); problem.Of(err) != problem.LeaseLost {
		t.Errorf("renewing what has ended: got %v, want lease-lost", err)
	}
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 1})
}

func TestLookup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.pair()
	so := w.sign(w.order(func(o *token.Order) {
		o.Do, o.To, o.IfExists, o.Accounts = token.List, token.Location{}, "", o.Accounts[:1]
	}))
	type result struct {
		r   api.LookupResult
		err error
	}
	ask := func(limit int) chan result {
		c := make(chan result, 1)
		go func() {
			r, err := w.b.Lookup(t.Context(), w.me(), api.Lookup{Order: so, Limit: limit}, w.now)
			c <- result{r, err}
		}()
		return c
	}
	c := ask(0)
	k := src.task(api.ListTask)
	if a := src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("a", 1)}}); !a.More {
		t.Errorf("got no wish for more after the first page")
	}
	src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("b", 1)}, Last: true})
	if got := <-c; got.err != nil || len(got.r.Entries) != 2 || got.r.Next != "" {
		t.Errorf("got %+v", got)
	}
	c = ask(1)
	k = src.task(api.ListTask)
	if a := src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("a", 1)}}); a.More {
		t.Errorf("got a wish for more than the limit")
	}
	if got := <-c; got.err != nil || len(got.r.Entries) != 1 || got.r.Next != "a" {
		t.Errorf("got %+v, want one entry and the next page after it", got)
	}
	c = ask(0)
	src.task(api.ListTask)
	if got := <-c; problem.Of(got.err) != problem.Timeout {
		t.Errorf("an agent that does not answer: got %v, want timeout", got.err)
	}
	if _, err := w.b.PostPage(t.Context(), src.peer, k.ID, api.TaskPage{Last: true}, w.now); problem.Of(err) != problem.LeaseLost {
		t.Errorf("a page that nobody waits for: got %v, want lease-lost", err)
	}
}

// TestAwaySince: what counts is when an agent was last heard of, not when it came.
func TestAwaySince(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, dst := w.pair()
	came := w.now
	w.now = w.now.Add(time.Hour)
	if _, err := w.b.Beat(t.Context(), dst.peer, api.Beat{}, w.now); err != nil {
		t.Fatal(err)
	}
	page, err := w.b.Providers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []time.Time{came, w.now} {
		if got := page.Items[i].Agents[0].Seen; got.Sub(want).Abs() > time.Minute {
			t.Errorf("the agent of %s: got seen at %s, want about %s", page.Items[i].Name, got, want)
		}
	}
}
