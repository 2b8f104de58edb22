package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// touches counts what is asked of a store that reads, lists, makes, writes or removes something.
func touches(s *mem.Store) func() []string {
	var mu sync.Mutex
	var seen []string
	s.SetHook(func(op mem.Op, name string) (error, bool) {
		if op != mem.OpLeftovers && op != mem.OpProbe { // which the agent does by itself
			mu.Lock()
			seen = append(seen, string(op)+" "+name)
			mu.Unlock()
		}
		return nil, false
	})
	return func() []string { mu.Lock(); defer mu.Unlock(); return slices.Clone(seen) }
}

// said is the broker's word for an order, which no account has signed.
func (w *world) said(o token.Order) api.SignedOrder {
	w.t.Helper()
	word, err := w.broker.signer.SessionOrder(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return api.SignedOrder{JWS: []string{}, Chains: []string{}, Session: word}
}

// An attempt is a task that the holder of a broker's key gives to an agent, and what the agent must say to it.
type attempt struct {
	what string
	to   *node
	task api.Task
	want problem.Code
}

// everyKind is one task of each kind that would read, create, list or erase, all with the same order.
func (w *world) everyKind(s *spec, so api.SignedOrder, want map[api.TaskKind]problem.Code) []attempt {
	serve, receive := w.tasks(s)
	serve.Order, receive.Order = so, so
	var out []attempt
	for _, a := range []attempt{
		{"reads", w.src, serve, ""}, {"creates", w.dst, receive, ""},
		{"lists", w.src, api.Task{Kind: api.ListTask, Order: so}, ""}, {"lists the other side", w.dst, api.Task{Kind: api.ListTask, Order: so}, ""},
		{"describes", w.src, api.Task{Kind: api.StatTask, Order: so, Names: []token.ObjectName{"in/a"}}, ""},
		{"makes", w.dst, api.Task{Kind: api.MakeTask, Order: so, Names: []token.ObjectName{"out/x"}}, ""},
		{"erases here", w.src, api.Task{Kind: api.EraseTask, Order: so, Names: []token.ObjectName{"in/a"}}, ""},
		{"erases there", w.dst, api.Task{Kind: api.EraseTask, Order: so}, ""},
	} {
		var ok bool
		if a.want, ok = want[a.task.Kind]; !ok {
			a.want = want[""]
		}
		if a.want != "" {
			out = append(out, a)
		}
	}
	return out
}

// evilAttempts is all that a broker can try with its signing key and without a will of the subscriber.
func evilAttempts(w *world) map[string][]attempt {
	a, b := w.random("in/a", 100), w.random("in/b", 100)
	out := map[string][]attempt{}
	batch := func(name string, s *spec, serve, receive problem.Code, change func(serve, receive *api.Task)) {
		one, two := w.tasks(s)
		if change != nil {
			change(&one, &two)
		}
		out[name] = append(out[name], attempt{"reads", w.src, one, serve}, attempt{"creates", w.dst, two, receive})
	}
	fresh := func() *spec { return w.spec(w.order(), 1, a) }

	out["without an order"] = w.everyKind(fresh(), api.SignedOrder{}, map[api.TaskKind]problem.Code{"": problem.OrderUnsigned})

	bob := w.order()
	bob.Accounts = []token.Identity{token.NewIdentity("north.test", token.Subscriber, "bob"), token.NewIdentity("south.test", token.Subscriber, "bob")}
	out["with an order that names bob and that alice signed"] = w.everyKind(w.spec(bob, 1, a), w.signOrder(bob), map[api.TaskKind]problem.Code{"": problem.OrderUnsigned})

	stranger := newWorld(w.t) // the same names under other authorities
	out["with an order of a stranger of the same name"] = w.everyKind(fresh(), stranger.signOrder(w.order()), map[api.TaskKind]problem.Code{"": problem.CertUnknown})

	elsewhere := w.order()
	elsewhere.From.Name, elsewhere.To.Name = "other", "other"
	out["with a foreign order, for another place"] = w.everyKind(fresh(), w.signOrder(elsewhere), map[api.TaskKind]problem.Code{
		api.ServeTask: problem.CapManifest, api.ReceiveTask: problem.CapManifest, api.StatTask: problem.OrderNotCovered, api.MakeTask: problem.OrderNotCovered,
		api.ListTask: "", "": problem.OrderNotCovered,
	})

	outside := w.spec(w.order(), 1, a)
	secret := w.random("elsewhere/secret", 10)
	outside.items = append(outside.items, token.Item{Src: secret.Name, Dst: "out/secret", Size: secret.Size, Version: secret.Version, Part: token.ChunkSize})
	batch("outside its prefix", outside, problem.OrderNotCovered, problem.OrderNotCovered, nil)
	out["outside its prefix"] = append(out["outside its prefix"],
		attempt{"describes", w.src, api.Task{Kind: api.StatTask, Order: w.signOrder(w.order()), Names: []token.ObjectName{"elsewhere/secret"}}, problem.OrderNotCovered},
		attempt{"makes", w.dst, api.Task{Kind: api.MakeTask, Order: w.signOrder(w.order()), Names: []token.ObjectName{"elsewhere"}}, problem.OrderNotCovered},
		attempt{"lists there", w.dst, api.Task{Kind: api.ListTask, Order: w.signOrder(w.order())}, problem.OrderNotCovered},
		attempt{"makes here", w.src, api.Task{Kind: api.MakeTask, Order: w.signOrder(w.order())}, problem.OrderNotCovered},
		attempt{"lists for an order to describe", w.src, api.Task{Kind: api.ListTask, Order: w.signOrder(w.lookupOrder(token.Stat, token.Location{Provider: "north.test", Container: "data", Name: "in/a"}))}, problem.OrderNotCovered},
		attempt{"reads for an order to list", w.src, api.Task{Kind: api.ServeTask, Order: w.signOrder(w.lookupOrder(token.List, token.Location{Provider: "north.test", Container: "data", Name: "in"}))}, problem.OrderNotCovered})

	renamed := w.spec(w.order(), 1, a, b)
	renamed.items[0].Dst, renamed.items[1].Dst = renamed.items[1].Dst, renamed.items[0].Dst
	batch("renamed within it", renamed, problem.OrderNotCovered, problem.OrderNotCovered, nil)

	filtered := w.spec(w.order(), 1, a, b)
	filtered.order.Filters = []token.Filter{{Do: "exclude", Match: "b"}}
	batch("a filtered-out item", filtered, problem.OrderNotCovered, problem.OrderNotCovered, nil)

	batch("a second run of an order that has one", fresh(), problem.OrderNotCovered, problem.OrderNotCovered, func(serve, receive *api.Task) { serve.Run, receive.Run = 1, 1 })
	again := fresh()
	batch("a second run under another transfer's id", again, problem.CapManifest, problem.CapManifest, func(serve, receive *api.Task) {
		m, _, err := token.ParseManifest(serve.Manifest)
		if err != nil {
			w.t.Fatal(err)
		}
		m.Xfr = newID(w.t)
		if serve.Manifest, _, err = token.MarshalManifest(m); err != nil {
			w.t.Fatal(err)
		}
		receive.Manifest = serve.Manifest
	})

	for name, evil := range map[string]token.Identity{
		"a foreign peer": token.NewIdentity("hub.test", token.Agent, "evil"), "itself as the peer": w.broker.id, "a subscriber as the peer": token.NewIdentity("south.test", token.Subscriber, "alice"),
	} {
		batch(name, fresh(), problem.ForeignPeer, problem.ForeignPeer, func(serve, receive *api.Task) { serve.Peer.ID, receive.Peer.ID = evil, evil })
	}
	addWords(w, out)
	return out
}

// addWords is what a broker can try with its own word in place of a signature, where nobody has said that it is good for anything.
func addWords(w *world, out map[string][]attempt) {
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	s.authority = token.BySession
	out["on its own word, which is not taken here"] = w.everyKind(s, w.said(s.order), map[api.TaskKind]problem.Code{
		"": problem.PolicyRefused, api.EraseTask: problem.OrderNotCovered,
	})
	for i, a := range out["on its own word, which is not taken here"] { // the destination's order is not for listing there
		if a.what == "lists the other side" {
			out["on its own word, which is not taken here"][i].want = problem.OrderNotCovered
		}
	}
	signed := w.signOrder(s.order)
	word := w.said(s.order).Session
	dressed := signed
	dressed.JWS = []string{word, word}
	out["on its word dressed as an account's order"] = w.everyKind(s, dressed, map[api.TaskKind]problem.Code{"": problem.WrongStatement})
	out["with an account's order dressed as its word"] = w.everyKind(s, api.SignedOrder{Session: signed.JWS[0]}, map[api.TaskKind]problem.Code{"": problem.WrongStatement})
	both := signed
	both.Session = word
	out["with an order and its word"] = w.everyKind(s, both, map[api.TaskKind]problem.Code{"": problem.Malformed})
	forged, err := w.broker.signer.Order(s.order)
	if err != nil {
		w.t.Fatal(err)
	}
	mine := signed
	mine.JWS = []string{forged, forged}
	out["with an order that it signed itself"] = w.everyKind(s, mine, map[api.TaskKind]problem.Code{"": problem.UnknownKey})

	byOrder := w.spec(w.order(), 1, w.random("in/a", 100))
	byOrder.authority = token.BySession
	serve, receive := w.tasks(byOrder)
	out["with capabilities that say session for a signed order"] = []attempt{{"reads", w.src, serve, problem.WrongStatement}, {"creates", w.dst, receive, problem.WrongStatement}}
}

// TestEvilBroker: whoever holds the broker's signing key can read, create, list, describe, make and erase nothing that no subscriber has
// ordered: every attempt is refused by the agent that it is made at, and no store is asked for anything.
func TestEvilBroker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	all := evilAttempts(w)
	from, to := touches(w.from), touches(w.to)
	n := 0
	for name, attempts := range all {
		for i, a := range attempts {
			n++
			a.task.ID = fmt.Sprintf("%s %d", name, i)
			w.broker.give(a.to.port, a.task)
			var got api.Problem
			switch a.task.Kind {
			case api.ListTask, api.StatTask, api.MakeTask, api.EraseTask:
				entries, bad := w.broker.listing(a.task.ID)
				if bad == nil || len(entries) > 0 {
					t.Errorf("%s, %s: got %q and %+v, want a refusal", name, a.what, told(entries), bad)
					continue
				}
				got = *bad
			default:
				got = w.broker.refusal(a.task.ID)
			}
			if got.Code != a.want || got.Detail == "" {
				t.Errorf("%s, %s: got %q %q, want %q", name, a.what, got.Code, got.Detail, a.want)
			}
		}
	}
	if a, b := from(), to(); len(a)+len(b) > 0 {
		t.Errorf("the stores were asked %q and %q, want them left alone", a, b)
	}
	if n < 60 {
		t.Errorf("got %d attempts, want all of them", n)
	}
	w.checkNoStages()
}

// TestEvilBrokerRunsAnOrderAgain: what was carried out is over at both agents, also under a new batch number, and what exists is not replaced.
func TestEvilBrokerRunsAnOrderAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	o := w.order()
	s := w.spec(o, 1, w.random("in/a", 100))
	w.run(s)
	poll(t, "the batches to end", func() bool { return len(w.dst.agent.of("")) == 0 && len(w.src.agent.of("")) == 0 })
	before := content(t, w.to, "out/a")
	w.from.Put("in/a", []byte("other content"), store.Attrs{})
	info, err := w.from.Stat(t.Context(), "in/a")
	if err != nil {
		t.Fatal(err)
	}
	info.Name = "in/a"
	serve, receive := w.tasks(s)
	_, second := w.tasks(w.spec(o, 2, info))
	for i, a := range []attempt{
		{"serves the batch again", w.src, serve, problem.CapSpent}, {"receives the batch again", w.dst, receive, problem.CapSpent},
		{"receives the name in another batch", w.dst, second, problem.OrderSpent},
	} {
		a.task.ID = fmt.Sprint("again ", i)
		w.broker.give(a.to.port, a.task)
		if got := w.broker.refusal(a.task.ID); got.Code != a.want {
			t.Errorf("%s: got %q %q, want %q", a.what, got.Code, got.Detail, a.want)
		}
	}
	over := w.spec(w.order(), 1, info) // a good order, over what exists
	_, dst := w.run(over)
	checkResults(t, dst, token.TakenBy)
	if got := content(t, w.to, "out/a"); !slices.Equal(got, before) {
		t.Errorf("got %q at the destination, want what was there", got)
	}
}

// trusting lets both agents take the broker's word.
func (w *world) trusting() {
	for _, n := range []*node{w.src, w.dst} {
		n.conf.Exports[0].Session = []token.Identity{w.broker.id}
	}
}

// TestWordOfABroker: where local policy names the broker, its word is good for what the rules allow, and receipts say what it was.
func TestWordOfABroker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.trusting()
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100), w.random("in/big", 3<<20))
	s.authority, s.signed = token.BySession, w.said(s.order)
	w.broker.give(w.src.port, api.Task{ID: "plan", Kind: api.ListTask, Order: s.signed})
	if got, bad := w.broker.listing("plan"); bad != nil || len(got) != 2 {
		t.Fatalf("got %q and %+v, want two objects", told(got), bad)
	}
	src, dst := w.run(s)
	checkMatch(t, src, dst)
	checkResults(t, dst, token.Stored, token.Stored)
	w.checkCopied(s)
	for _, r := range []receipt{src, dst} {
		if r.claims.Authority != token.BySession {
			t.Errorf("the receipt of the %s says %q, want %q", r.claims.Side, r.claims.Authority, token.BySession)
		}
	}
	if !w.src.port.hello.Exports[0].Session || !w.dst.port.hello.Exports[0].Session {
		t.Errorf("the broker is not told that its word is taken: %+v", w.src.port.hello.Exports)
	}
}

// TestWordOfABrokerHasLimits: what its word is good for is what an order of the account would be, and no other broker's word is good for it.
func TestWordOfABrokerHasLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.trusting()
	w.src.conf.Exports[0].Subscribers = []token.Identity{token.NewIdentity("north.test", token.Subscriber, "bob")}
	w.src.start()
	w.dst.start()
	a := w.random("in/a", 100)
	fresh := func() *spec {
		s := w.spec(w.order(), 1, a)
		s.authority = token.BySession
		return s
	}
	from, to := touches(w.from), touches(w.to)
	refused := fresh()
	refused.signed = w.said(refused.order)
	serve, _ := w.tasks(refused)
	renamed := fresh()
	renamed.items[0].Dst = "out/other"
	renamed.signed = w.said(renamed.order)
	_, receive := w.tasks(renamed)
	honest := fresh()
	honest.authority, honest.signed = token.ByOrder, w.said(honest.order)
	_, byOrder := w.tasks(honest)
	other := newMemBroker(t, w.broker.id, w.trust)
	word, err := other.signer.SessionOrder(w.order())
	if err != nil {
		t.Fatal(err)
	}
	ended := w.order()
	ended.Iat, ended.Exp = ended.Iat-7200, ended.Iat-3600
	for i, at := range []attempt{
		{"an account that may not", w.src, serve, problem.NotPermitted},
		{"another name", w.dst, receive, problem.OrderNotCovered},
		{"a capability that says that the account signed", w.dst, byOrder, problem.WrongStatement},
		{"the word of another key", w.dst, api.Task{Kind: api.ReceiveTask, Order: api.SignedOrder{Session: word}}, problem.UnknownKey},
		{"an order that has ended", w.dst, api.Task{Kind: api.ReceiveTask, Order: w.said(ended)}, problem.OrderExpired},
	} {
		at.task.ID = fmt.Sprint(i)
		w.broker.give(at.to.port, at.task)
		if got := w.broker.refusal(at.task.ID); got.Code != at.want {
			t.Errorf("%s: got %q %q, want %q", at.what, got.Code, got.Detail, at.want)
		}
	}
	if a, b := from(), to(); len(a)+len(b) > 0 {
		t.Errorf("the stores were asked %q and %q, want them left alone", a, b)
	}
}

// TestWordIsRemembered: a batch that was taken on a broker's word goes on after a restart, also if the key is not known any more.
func TestWordIsRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.trusting()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	s.authority, s.signed = token.BySession, w.said(s.order)
	w.src.conf.Listen = "127.0.0.1:0"
	w.src.start()
	serve, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	poll(t, "the batch to be taken", func() bool { return len(w.dst.agent.of("")) == 1 })
	w.dst.stop()
	if err := os.RemoveAll(filepath.Join(w.dst.state, "keys")); err != nil {
		t.Fatal(err)
	}
	idle, err := Open(t.Context(), w.dst.conf)
	if err != nil {
		t.Fatal(err)
	}
	recalled := idle.of("")
	if err := idle.Close(); err != nil || len(recalled) != 1 {
		t.Fatalf("got %d batches and %v, want the one that was taken", len(recalled), err)
	}
	if b := recalled[0]; b.will.authority != token.BySession || b.will.ord != s.ord || b.will.account != w.account("south.test") {
		t.Errorf("got %+v, want what was taken on the broker's word", b.will)
	}
	w.dst.start()
	w.broker.give(w.src.port, serve)
	dst := w.broker.receipt(token.Destination, s.ref())
	checkResults(t, dst, token.Stored)
	if dst.claims.Authority != token.BySession {
		t.Errorf("got the authority %q, want %q", dst.claims.Authority, token.BySession)
	}
}

// TestWordIsTakenNoMore: a broker whose word is not good any more gets nothing more of a running batch.
func TestWordIsTakenNoMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.trusting()
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	s.authority, s.signed = token.BySession, w.said(s.order)
	serve, receive := w.tasks(s)
	w.broker.give(w.src.port, serve)
	poll(t, "the batch to be served", func() bool {
		w.src.agent.mu.Lock()
		defer w.src.agent.mu.Unlock()
		return len(w.src.agent.servers) == 1
	})
	if err := w.src.agent.SetPolicy([]Export{{Container: "data", Read: true}}, nil); err != nil {
		t.Fatal(err)
	}
	w.broker.give(w.dst.port, receive)
	dst := w.broker.receipt(token.Destination, s.ref())
	checkResults(t, dst, token.Denied)
	if o := dst.outs[0]; o.Code != string(problem.PolicyRefused) || !strings.Contains(o.Detail, "session") {
		t.Errorf("got %q %q, want %q that names the setting", o.Code, o.Detail, problem.PolicyRefused)
	}
}
