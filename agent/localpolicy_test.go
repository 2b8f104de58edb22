package agent

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/policy"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// everyone is a rule for all accounts.
func everyone(below token.ObjectName, may ...policy.Right) policy.Rule {
	return policy.Rule{Who: []policy.Who{policy.Everyone}, May: may, Below: below}
}

// ruled gives the only export of a node these rules.
func (n *node) ruled(rules ...policy.Rule) {
	e := &n.conf.Exports[0]
	*e = Export{Container: e.Container, Store: e.Store, Rules: rules}
}

// reads counts the requests of a store that look at it or write to it.
func reads(s *mem.Store) func() int {
	var mu sync.Mutex
	n := 0
	s.SetHook(func(mem.Op, string) (error, bool) {
		mu.Lock()
		defer mu.Unlock()
		n++
		return nil, false
	})
	return func() int { mu.Lock(); defer mu.Unlock(); return n }
}

// TestItemsOutsideThePolicy: what local policy does not allow of a batch is denied, by the side that denies it, and the rest is moved.
func TestItemsOutsideThePolicy(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"source", "destination"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if side == "source" {
				w.src.ruled(everyone("in/open", policy.Read), everyone("", policy.List))
			} else {
				w.dst.ruled(everyone("out/open", policy.Create))
			}
			w.src.start()
			w.dst.start()
			o := w.order()
			o.IfExists = token.Skip
			if side == "destination" { // of what exists there the account learns nothing
				w.to.Put("out/shut/big", []byte("x"), store.Attrs{})
			}
			s := w.spec(o, 1, w.random("in/open/a", 100), w.random("in/shut/b", 100), w.random("in/shut/big", 3<<20))
			src, dst := w.run(s)
			checkMatch(t, src, dst)
			checkResults(t, dst, token.Stored, token.Denied, token.Denied)
			for _, o := range dst.outs[1:] {
				if o.Code != string(problem.NotPermitted) || !strings.Contains(o.Detail, "alice") || !strings.Contains(o.Detail, "/shut") {
					t.Errorf("got %q %q, want %q with the account and the place", o.Code, o.Detail, problem.NotPermitted)
				}
			}
			if side == "source" {
				checkResults(t, src, token.Sent, token.Denied, token.Denied)
			}
			if got := content(t, w.to, "out/shut/b"); got != nil {
				t.Error("an item that is denied was created")
			}
			w.checkNoStages()
		})
	}
}

// TestBatchOutsideThePolicy: a batch of which nothing is allowed, or that is too large, is refused before a store is touched.
func TestBatchOutsideThePolicy(t *testing.T) {
	t.Parallel()
	limited := func(r policy.Rule, l policy.Limits) policy.Rule { r.Limits = l; return r }
	for name, tt := range map[string]struct {
		src, dst   policy.Rule
		serve, rcv problem.Code
		says       string
	}{
		"another prefix":         {everyone("else", policy.Read), everyone("else", policy.Create), problem.Hidden, problem.NotPermitted, "alice"},
		"a large object":         {limited(everyone("", policy.Read), policy.Limits{Object: 99}), limited(everyone("", policy.Create), policy.Limits{Object: 99}), problem.PolicyRefused, problem.PolicyRefused, "max_object"},
		"many items":             {limited(everyone("", policy.Read), policy.Limits{Items: 1}), limited(everyone("", policy.Create), policy.Limits{Items: 1}), problem.PolicyRefused, problem.PolicyRefused, "max_batch_items"},
		"many bytes":             {limited(everyone("", policy.Read), policy.Limits{Bytes: 150}), limited(everyone("", policy.Create), policy.Limits{Bytes: 150}), problem.PolicyRefused, problem.PolicyRefused, "max_batch_bytes"},
		"a peer that is not it":  {policy.Rule{Who: []policy.Who{policy.Everyone}, May: []policy.Right{policy.Read}, To: []token.Provider{"east.test"}}, policy.Rule{Who: []policy.Who{policy.Everyone}, May: []policy.Right{policy.Create}, From: []token.Provider{"east.test"}}, problem.PolicyRefused, problem.PolicyRefused, ".test"},
		"a right that is not it": {everyone("", policy.List), everyone("", policy.List), problem.PolicyRefused, problem.PolicyRefused, "not exported to"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.src.ruled(tt.src)
			w.dst.ruled(tt.dst)
			s := w.spec(w.order(), 1, w.random("in/a", 100), w.random("in/b", 100))
			w.src.start()
			w.dst.start()
			from, to := reads(w.from), reads(w.to)
			serve, receive := w.tasks(s)
			for _, side := range []struct {
				n    *node
				task api.Task
				want problem.Code
			}{{w.src, serve, tt.serve}, {w.dst, receive, tt.rcv}} {
				w.broker.give(side.n.port, side.task)
				if got := w.broker.refusal(side.task.ID); got.Code != side.want || !strings.Contains(got.Detail, tt.says) {
					t.Errorf("%s: got %q %q, want %q with %q", side.task.Kind, got.Code, got.Detail, side.want, tt.says)
				}
			}
			if from() > 0 || content(t, w.to, "out/a") != nil {
				t.Errorf("the source's store was asked %d times, the destination's %d times: want nothing read and nothing written", from(), to())
			}
		})
	}
}

// TestLookupsOutsideThePolicy: no listing, description or container for who may not have it, and nothing is looked up to find that out.
func TestLookupsOutsideThePolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random("in/open/a", 5)
	w.random("in/shut/b", 5)
	w.src.ruled(everyone("in/open", policy.List, policy.Read))
	w.dst.ruled(everyone("out/open", policy.Create))
	w.src.start()
	w.dst.start()
	from := reads(w.from)
	at := func(name token.ObjectName) token.Location {
		return token.Location{Provider: "north.test", Container: "data", Name: name}
	}
	list := func(name token.ObjectName) token.Order { return w.lookupOrder(token.List, at(name)) }
	for name, tt := range map[string]struct {
		n     *node
		task  api.Task
		order token.Order
		want  problem.Code
	}{
		"a listing above the prefix":     {w.src, api.Task{Kind: api.ListTask}, list("in"), problem.Hidden},
		"a listing of everything":        {w.src, api.Task{Kind: api.ListTask}, list(""), problem.Hidden},
		"a listing beside the prefix":    {w.src, api.Task{Kind: api.ListTask}, list("in/shut"), problem.Hidden},
		"a description":                  {w.src, api.Task{Kind: api.StatTask, Names: []token.ObjectName{"in/shut/b"}}, w.lookupOrder(token.Stat, at("in/shut/b")), problem.Hidden},
		"a description of what is not":   {w.src, api.Task{Kind: api.StatTask, Names: []token.ObjectName{"in/shut/none"}}, w.lookupOrder(token.Stat, at("in/shut/none")), problem.Hidden},
		"a plan of a copy":               {w.src, api.Task{Kind: api.ListTask}, w.order(), problem.Hidden},
		"a container outside the prefix": {w.dst, api.Task{Kind: api.MakeTask, Names: []token.ObjectName{"out/shut"}}, w.order(), problem.NotPermitted},
	} {
		tt.task.ID, tt.task.Order = name, w.signOrder(tt.order)
		w.broker.give(tt.n.port, tt.task)
		if got, bad := w.broker.listing(name); bad == nil || bad.Code != tt.want || len(got) > 0 || !strings.Contains(bad.Detail, "alice") {
			t.Errorf("%s: got %q and %+v, want %q", name, told(got), bad, tt.want)
		}
	}
	if n := from(); n > 0 {
		t.Errorf("the source's store was asked %d times, want it left alone", n)
	}
	w.broker.give(w.dst.port, api.Task{ID: "some", Kind: api.MakeTask, Order: w.signOrder(w.order()), Names: []token.ObjectName{"out/open/x", "out/shut/y"}})
	got, bad := w.broker.listing("some")
	if bad != nil || len(got) != 2 || got[0].Code != "" || got[1].Code != problem.NotPermitted {
		t.Errorf("one container of two: got %+v and %+v, want one made and one refused", got, bad)
	}
	for name, want := range map[token.ObjectName]problem.Code{"out/open/x": "", "out/shut": problem.Missing, "out/shut/y": problem.Missing} {
		if _, err := w.to.Stat(t.Context(), name); problem.Of(err) != want {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

// TestPlanTellsWhatPolicyDenies: a listing for a copy says of each object that may not be read why, so that nobody plans it.
func TestPlanTellsWhatPolicyDenies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random("in/open/a", 5)
	w.random("in/open/big", 50)
	w.random("in/shut/b", 5)
	open := everyone("in/open", policy.Read)
	open.Limits.Object = 10
	w.src.ruled(everyone("", policy.List), open)
	w.src.start()
	w.broker.give(w.src.port, api.Task{ID: "plan", Kind: api.ListTask, Order: w.signOrder(w.order())})
	got, bad := w.broker.listing("plan")
	codes := map[token.ObjectName]problem.Code{}
	for _, e := range got {
		codes[e.Name] = e.Code
	}
	want := map[token.ObjectName]problem.Code{"in/open/a": "", "in/open/big": problem.PolicyRefused, "in/shut/b": problem.NotPermitted}
	if bad != nil || fmt.Sprint(codes) != fmt.Sprint(want) {
		t.Errorf("got %v and %+v, want %v", codes, bad, want)
	}
}

// TestRightTakenAway: policy that is replaced under a running batch stops its next want, at either side.
func TestRightTakenAway(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"source", "destination"} {
		t.Run(side, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.dst.conf.Lanes, w.dst.conf.WantersPerLane = 1, 1
			var once sync.Once
			n, rule := w.src, everyone("elsewhere", policy.Read, policy.List)
			if side == "destination" {
				n, rule = w.dst, everyone("elsewhere", policy.Create)
			}
			w.dst.conf.hooks.moved = func(string, int, int64) bool {
				once.Do(func() {
					e := n.conf.Exports[0]
					if err := n.agent.SetPolicy([]Export{{Container: e.Container, Rules: []policy.Rule{rule}}}, nil); err != nil {
						t.Error(err)
					}
				})
				return true
			}
			w.src.start()
			w.dst.start()
			const chunks = 64
			s := w.spec(w.order(), 1, w.random("in/big", chunks<<20))
			_, dst := w.run(s)
			checkResults(t, dst, token.Denied)
			if o := dst.outs[0]; o.Code != string(problem.NotPermitted) && o.Code != string(problem.Hidden) {
				t.Errorf("got %q %q, want the refusal of policy", o.Code, o.Detail)
			}
			if content(t, w.to, "out/big") != nil {
				t.Error("the object was created all the same")
			}
			w.checkNoStages()
		})
	}
}

// TestListingIsCutShort: policy that is replaced under a listing ends it at its next page.
func TestListingIsCutShort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range api.MaxPage + 10 {
		w.random(token.ObjectName(fmt.Sprintf("in/%05d", i)), 1)
	}
	w.broker.more = func(string, int) bool {
		if err := w.src.agent.SetPolicy([]Export{{Container: "data", Rules: []policy.Rule{everyone("elsewhere", policy.List)}}}, nil); err != nil {
			t.Error(err)
		}
		return true
	}
	w.src.start()
	w.broker.give(w.src.port, api.Task{ID: "list", Kind: api.ListTask, Order: w.signOrder(w.lookupOrder(token.List, token.Location{Provider: "north.test", Container: "data", Name: "in"}))})
	got, bad := w.broker.listing("list")
	if bad == nil || bad.Code != problem.Hidden || len(got) != api.MaxPage {
		t.Errorf("got %d names and %+v, want one page and then %q", len(got), bad, problem.Hidden)
	}
}

// TestBrokerShutOut: a broker that is taken out of an export's policy gets nothing more of a running batch.
func TestBrokerShutOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	friend := token.NewIdentity("hub.test", token.Broker, "friend")
	w.src.conf.Brokers = append(w.src.conf.Brokers, Broker{ID: friend, URL: "https://friend.test"})
	other := newMemBroker(t, friend, w.trust).port(w.src.conf.Pair)
	w.src.conf.hooks.broker = func(b Broker) control {
		if b.ID == friend {
			return other
		}
		return w.src.port
	}
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	serve, receive := w.tasks(s)
	w.broker.give(w.src.port, serve)
	poll(t, "the batch to be served", func() bool {
		w.src.agent.mu.Lock()
		defer w.src.agent.mu.Unlock()
		return len(w.src.agent.servers) == 1
	})
	if err := w.src.agent.SetPolicy([]Export{{Container: "data", Read: true, Brokers: []token.Identity{friend}}}, nil); err != nil {
		t.Fatal(err)
	}
	w.broker.give(w.dst.port, receive)
	dst := w.broker.receipt(token.Destination, s.ref())
	checkResults(t, dst, token.Denied)
	if o := dst.outs[0]; o.Code != string(problem.PolicyRefused) || !strings.Contains(o.Detail, "broker/b") {
		t.Errorf("got %q %q, want %q that names the broker", o.Code, o.Detail, problem.PolicyRefused)
	}
	w.broker.await("the next hello", func() bool { return len(w.src.port.hello.Exports) == 0 })
}

// TestGroupsAreReplaced: who joins a group may at once, and who leaves it may not any more.
func TestGroupsAreReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random("in/a", 5)
	rule := policy.Rule{Who: []policy.Who{"group:staff"}, May: []policy.Right{policy.Read, policy.List}}
	w.src.ruled(rule)
	w.src.conf.Groups = policy.Groups{"staff": {}}
	w.src.start()
	for i, tt := range []struct {
		groups policy.Groups
		want   problem.Code
	}{{policy.Groups{"staff": {w.account("north.test")}}, ""}, {policy.Groups{"staff": {}}, problem.NotPermitted}} {
		if err := w.src.agent.SetPolicy([]Export{{Container: "data", Rules: []policy.Rule{rule}}}, tt.groups); err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprint("list ", i)
		w.broker.give(w.src.port, api.Task{ID: id, Kind: api.ListTask, Order: w.signOrder(w.order())})
		_, bad := w.broker.listing(id)
		if got := codeOf(bad); got != tt.want {
			t.Errorf("with %v: got %q, want %q", tt.groups, got, tt.want)
		}
	}
}

func codeOf(p *api.Problem) problem.Code {
	if p == nil {
		return ""
	}
	return p.Code
}

// TestPolicyThatCannotBeReplaced: what would need a restart, or is wrong, changes nothing.
func TestPolicyThatCannotBeReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random("in/a", 5)
	w.src.start()
	good := Export{Container: "data", Read: true}
	for name, es := range map[string][]Export{
		"a new container":  {good, {Container: "more", Read: true}},
		"a container less": {},
		"one twice":        {good, good},
		"creating where nobody has looked whether it is exclusive": {{Container: "data", Create: true}},
		"rules and simple settings":                                {{Container: "data", Read: true, Rules: []policy.Rule{everyone("", policy.Read)}}},
		"a group that is not there":                                {{Container: "data", Rules: []policy.Rule{{Who: []policy.Who{"group:x"}, May: []policy.Right{policy.Read}}}}},
		"a broker that is not there":                               {{Container: "data", Read: true, Brokers: []token.Identity{"spiffe://hub.test/broker/x"}}},
		"nothing":                                                  {{Container: "data"}},
	} {
		if err := w.src.agent.SetPolicy(es, nil); problem.Of(err) != problem.BadConfig {
			t.Errorf("%s: got %v, want %q", name, err, problem.BadConfig)
		}
	}
	w.broker.give(w.src.port, api.Task{ID: "list", Kind: api.ListTask, Order: w.signOrder(w.order())})
	if got, bad := w.broker.listing("list"); bad != nil || len(got) != 1 {
		t.Errorf("got %v and %+v, want the policy as it was", got, bad)
	}
}

// TestRateOfARule: a source that sends as much as it may says so and goes on later; nothing is lost by that.
func TestRateOfARule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	out := everyone("", policy.Read, policy.List)
	out.Limits.Rate = 4 << 20
	in := everyone("", policy.Create)
	in.Limits.Rate = 4 << 20
	w.src.ruled(out)
	w.dst.ruled(in)
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100), w.random("in/big", 6<<20), w.random("in/small", 1<<20))
	src, dst := w.run(s)
	checkMatch(t, src, dst)
	checkResults(t, dst, token.Stored, token.Stored, token.Stored)
	w.checkCopied(s)
}

// TestRateIsUsedUp: nobody waits at the source for longer than the peer has patience, and who gave up has used nothing.
func TestRateIsUsedUp(t *testing.T) {
	t.Parallel()
	a := &Agent{}
	s := &server{batch: &batch{a: a}}
	a.sending = newLimiter(1)
	if err := s.pace(t.Context(), nil, 1<<20); err != nil {
		t.Fatalf("the first mebibyte: %v", err)
	}
	for range 3 {
		if err := s.pace(t.Context(), nil, 1<<20); problem.Of(err) != problem.Overloaded {
			t.Fatalf("got %v, want %q", err, problem.Overloaded)
		}
	}
	if tokens := a.sending.TokensAt(time.Now()); tokens < -1 {
		t.Errorf("got a debt of %f bytes, want none for what was not sent", -tokens)
	}
	if err := s.pace(t.Context(), newLimiter(1<<30), 0); err != nil {
		t.Errorf("an empty item: %v", err)
	}
}

// TestSimpleSettingsAreOneRule: what an export said before there were rules, it says still.
func TestSimpleSettingsAreOneRule(t *testing.T) {
	t.Parallel()
	alice, bob := token.Identity("spiffe://north.test/subscriber/alice"), token.Identity("spiffe://north.test/subscriber/bob")
	for name, tt := range map[string]struct {
		e     Export
		may   []policy.Right
		alone bool // bob may not
	}{
		"read":           {Export{Read: true}, []policy.Right{policy.Read, policy.List}, false},
		"create":         {Export{Create: true}, []policy.Right{policy.Create}, false},
		"both":           {Export{Read: true, Create: true}, []policy.Right{policy.Read, policy.List, policy.Create}, false},
		"for one to use": {Export{Read: true, Subscribers: []token.Identity{alice}}, []policy.Right{policy.Read, policy.List}, true},
	} {
		tt.e.Container = "data"
		book, err := newRulebook("north.test", []Export{tt.e}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, who := range []token.Identity{alice, bob} {
			view, err := book.Open(policy.Ask{Container: "data", Account: who, Peer: "south.test", Authority: token.ByOrder})
			if err != nil {
				t.Fatal(err)
			}
			for _, right := range []policy.Right{policy.Read, policy.List, policy.Create} {
				_, err := view.May(right, "a/b")
				if want := slices.Contains(tt.may, right) && (who == alice || !tt.alone); (err == nil) != want {
					t.Errorf("%s: %s may %s: got %v, want %t", name, who, right, err, want)
				}
			}
		}
	}
}
