package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// journalSize is the size of the source's journals of batches.
func (n *node) journalSize() (size int64) {
	n.w.t.Helper()
	names, err := filepath.Glob(filepath.Join(n.state, "batches", "*"))
	if err != nil {
		n.w.t.Fatal(err)
	}
	for _, name := range names {
		st, err := os.Stat(name)
		if err != nil {
			n.w.t.Fatal(err)
		}
		size += st.Size()
	}
	return size
}

// TestRepeatedWantsDoNotFillTheDisk: a destination that asks for the same again, which costs it next to nothing for empty
// items, seals and short last chunks, makes the source write nothing more.
func TestRepeatedWantsDoNotFillTheDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/empty", 0), w.random("in/big", 1<<20+1))
	capability := w.served(s)
	holder := w.thief(w.dst.conf.Pair)
	if err := holder.hello(s, capability); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2<<20)
	for name, again := range map[string]func() error{
		"empty items": func() error {
			q := wire.WantRun{Batch: s.wire(), Items: []int{0}}
			st, err := holder.ask(q)
			if err != nil {
				return err
			}
			defer st.Abandon(problem.Cancelled)
			_, err = wire.NewRunReader(st, q).Next(buf)
			return err
		},
		"short last chunks": func() error {
			q := wire.WantChunks{Batch: s.wire(), Item: 1, First: 1, N: 1}
			st, err := holder.ask(q)
			if err != nil {
				return err
			}
			defer st.Abandon(problem.Cancelled)
			_, err = wire.NewChunkReader(st, q, 1<<20+1).Next(buf)
			return err
		},
		"seals": func() error {
			st, err := holder.ask(wire.Seal{Batch: s.wire(), Item: 1})
			if err != nil {
				return err
			}
			defer st.Abandon(problem.Cancelled)
			_, err = wire.ReadSealed(st)
			return err
		},
	} {
		const warm, times = 3, 100
		var before int64
		for n := range warm + times {
			if n == warm {
				before = w.src.journalSize()
			}
			if err := again(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if grown := w.src.journalSize() - before; grown > 1000 { // synced marks of the group commit
			t.Errorf("%s: the journal has grown by %d bytes for %d repeated wants, want next to nothing", name, grown, times)
		}
	}
}

// TestWantsThatAreNotRead: a destination that asks on every stream of many lanes and reads nothing makes the source
// hold a bounded number of buffers.
func TestWantsThatAreNotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/big", 64<<20))
	s.max = 1 << 40
	capability := w.served(s)
	const lanes, streams = 16, 15
	for range lanes {
		f := w.thief(w.dst.conf.Pair)
		if err := f.hello(s, capability); err != nil {
			t.Fatal(err)
		}
		for range streams {
			if _, err := f.ask(wire.WantChunks{Batch: s.wire(), Item: 0, First: 0, N: wire.MaxWant}); err != nil {
				t.Fatal(err)
			}
		}
	}
	a := w.src.agent
	busy := func() int {
		a.mu.Lock()
		defer a.mu.Unlock()
		if g := a.callers[w.dst.port.id]; g != nil {
			return len(g.serving)
		}
		return 0
	}
	poll(t, "the source to be busy", func() bool { return busy() == maxServing })
	if n := len(a.served); n > maxServing {
		t.Errorf("got %d wants answered at once, want %d at most", n, maxServing)
	}
}

// TestOrderEndsWhileItIsServed: no capability outlives its order, whatever a broker mints.
func TestOrderEndsWhileItIsServed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	o := w.order()
	o.Exp = time.Now().Add(2 * time.Second).Unix()
	s := w.spec(o, 1, w.random("in/a", 100))
	capability := w.served(s)
	holder := w.thief(w.dst.conf.Pair)
	if err := holder.hello(s, capability); err != nil {
		t.Fatal(err)
	}
	want := wire.WantRun{Batch: s.wire(), Items: []int{0}}
	poll(t, "the order to end", func() bool {
		st, err := holder.ask(want)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Abandon(problem.Cancelled)
		_, err = wire.NewRunReader(st, want).Next(make([]byte, 2<<20))
		return problem.Of(err) == problem.OrderExpired || time.Now().Unix() > o.Exp+2
	})
	st, err := holder.ask(want)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Abandon(problem.Cancelled)
	_, err = wire.NewRunReader(st, want).Next(make([]byte, 2<<20))
	wantCode(t, "a want after the order's end", err, problem.OrderExpired)
	var serve, receive api.Task
	w.resign(s, &serve, &receive, func(c *token.Capability) { c.Gen = 2 })
	wantCode(t, "a capability minted after the order's end", holder.hello(s, serve.Capability), problem.OrderExpired)
}

// TestListingKeepsToTheFilters: a broker learns of no name that the order excludes, and gets nothing made that its filters
// leave out or that is to be an object.
func TestListingKeepsToTheFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, n := range []token.ObjectName{"in/a", "in/private/key", "in/private/deep/key", "in/z.tmp"} {
		w.random(n, 5)
	}
	if err := w.from.Make(t.Context(), "in/private/empty"); err != nil {
		t.Fatal(err)
	}
	w.src.start()
	w.dst.start()
	exclude := []token.Filter{{Do: "exclude", Match: "/private/**"}, {Do: "exclude", Match: "*.tmp"}}
	for name, o := range map[string]token.Order{
		"copy": w.order(), "list": w.lookupOrder(token.List, token.Location{Provider: "north.test", Container: "data", Name: "in"}),
	} {
		o.Filters = exclude
		w.broker.give(w.src.port, api.Task{ID: name, Kind: api.ListTask, Order: w.signOrder(o)})
		if got, bad := w.broker.listing(name); bad != nil || !slices.Equal(told(got), []string{"in/a object "}) {
			t.Errorf("%s: got %q and %v, want the one object that is not excluded", name, told(got), bad)
		}
	}
	filtered, one := w.order(), w.order()
	filtered.Filters = exclude
	one.Scope, one.From.Name, one.To.Name = token.One, "in/a", "out/a"
	for name, task := range map[string]api.Task{
		"a folder that is excluded":         {Order: w.signOrder(filtered), Names: []token.ObjectName{"out/private/x"}},
		"a folder in place of the object":   {Order: w.signOrder(one), Names: []token.ObjectName{"out/a"}},
		"the same, by leaving the name out": {Order: w.signOrder(one)},
	} {
		task.ID, task.Kind = name, api.MakeTask
		w.broker.give(w.dst.port, task)
		if got, bad := w.broker.listing(name); bad == nil || bad.Code != problem.OrderNotCovered || len(got) > 0 {
			t.Errorf("%s: got %q and %v, want %s", name, told(got), bad, problem.OrderNotCovered)
		}
	}
	if info, err := w.to.Stat(t.Context(), "out"); problem.Of(err) != problem.Missing {
		t.Errorf("got %+v and %v, want nothing made", info, err)
	}
}

// TestTasksWithoutEnd: a broker that gives tasks faster than they are done is not read any further.
func TestTasksWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random("in/a", 5)
	release := make(chan struct{})
	w.from.SetHook(func(op mem.Op, _ string) (error, bool) {
		if op == mem.OpList {
			<-release
		}
		return nil, false
	})
	w.src.start()
	defer close(release)
	w.broker.await("the agent's hello", func() bool { return w.src.port.hello.Slots > 0 })
	signed := w.signOrder(w.order())
	var taken atomic.Int64
	s := w.src.agent.sessions[0]
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 1000 {
			s.take(w.src.agent.runCtx, api.Task{ID: fmt.Sprint("list ", n), Kind: api.ListTask, Order: signed})
			taken.Add(1)
		}
	}()
	t.Cleanup(func() { <-done })
	poll(t, "tasks to be taken", func() bool { return taken.Load() >= maxTasks })
	deadline := time.After(200 * time.Millisecond)
	for over := false; !over; {
		select {
		case <-deadline:
			over = true
		default:
			if n := taken.Load(); n > maxTasks {
				t.Fatalf("got %d tasks taken while none was done, want %d at most", n, maxTasks)
			}
		}
	}
}

// TestBatchBeyondTheLimits: each item is within the order's limits, and the batch is not.
func TestBatchBeyondTheLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	for name, limits := range map[string]token.Limits{"bytes": {Bytes: 150}, "items": {Items: 1}} {
		o := w.order()
		o.Limits = limits
		s := w.spec(o, 1, w.random("in/a", 100), w.random("in/b", 100))
		serve, receive := w.tasks(s)
		w.broker.give(w.src.port, serve)
		w.broker.give(w.dst.port, receive)
		for _, id := range []string{serve.ID, receive.ID} {
			if got := w.broker.refusal(id); got.Code != problem.OrderNotCovered {
				t.Errorf("%s, %s: got %q, want %q", name, id, got.Code, problem.OrderNotCovered)
			}
		}
	}
}

// TestBrokersOfOneShortName: the keys of one broker are not taken for those of another whose name was chosen to share a short
// hash, which takes a minute to find.
func TestBrokersOfOneShortName(t *testing.T) {
	t.Parallel()
	one, two := token.Identity("spiffe://hub.test/broker/b"), token.Identity("spiffe://evil.test/broker/b")
	if keyFile(one) == keyFile(two) || len(keyFile(one)) < 40 {
		t.Errorf("got key files %q and %q, want whole hashes", keyFile(one), keyFile(two))
	}
}

// An eager broker renews at once, with capabilities that are to be renewed at once.
type eager struct {
	*port
	calls atomic.Int64
	same  bool // brings the same generation again and again
}

func (e *eager) Renew(_ context.Context, ref api.Ref) (api.Renewal, error) {
	n := e.calls.Add(1)
	e.b.mu.Lock()
	c := e.b.minted[ref].c
	e.b.mu.Unlock()
	c.Gen, c.Cnf, c.Iat, c.Exp = n+1, e.pair.LeafHash(), time.Now().Unix()-800, time.Now().Unix()+100
	if e.same {
		c.Gen = 1
	}
	return api.Renewal{Capability: e.b.sign(mirrored(c)), Present: e.b.sign(c)}, nil
}

// TestBrokerRenewsWithoutEnd: renewals that ask for a renewal neither fill the destination's disk nor keep it busy.
func TestBrokerRenewsWithoutEnd(t *testing.T) {
	t.Parallel()
	for _, same := range []bool{false, true} {
		t.Run(fmt.Sprintf("same=%t", same), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.src.conf.Listen = "127.0.0.1:9" // nobody: the batch waits
			e := &eager{port: w.dst.port, same: same}
			w.dst.conf.hooks.broker = func(Broker) control { return e }
			w.dst.start()
			s := w.spec(w.order(), 1, w.random("in/a", 100))
			s.life = time.Second
			_, receive := w.tasks(s)
			w.broker.give(w.dst.port, receive)
			enough := int64(spareGrants + 20)
			if same {
				enough = 10
			}
			poll(t, "renewals", func() bool { return e.calls.Load() > enough })
			b := w.dst.agent.of("")[0]
			b.mu.Lock()
			grants, took := b.grants, time.Now().Unix()-b.started
			b.mu.Unlock()
			if most := spareGrants + took + 1; grants > most || same && grants > 0 {
				t.Errorf("got %d capabilities journalled in %d s, want %d at most", grants, took, most)
			}
		})
	}
}

// TestBrokerPublishesTheKeyOfAnother: a key belongs to the broker whose capabilities name it, whoever publishes it first.
func TestBrokerPublishesTheKeyOfAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	evil := newMemBroker(t, token.NewIdentity("hub.test", token.Broker, "a-evil"), w.trust)
	var err error
	if evil.keys, err = token.NewKeySet(evil.id, evil.key.Public(), w.broker.key.Public()); err != nil {
		t.Fatal(err)
	}
	other := evil.port(w.src.conf.Pair)
	w.src.conf.Brokers = append([]Broker{{ID: evil.id, URL: "https://evil.test"}}, w.src.conf.Brokers...)
	w.src.conf.hooks.broker = func(b Broker) control {
		if b.ID == evil.id {
			return other
		}
		return w.src.port
	}
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	capability := w.served(s)
	evil.await("the other broker to be heard", func() bool { return other.hello.Slots > 0 })
	holder := w.thief(w.dst.conf.Pair)
	if err := holder.hello(s, capability); err != nil {
		t.Errorf("the capability of the honest broker: got %v, want a welcome", err)
	}
	c := w.broker.minted[s.ref()].c
	c.Gen, c.Cnf, c.Iat, c.Exp = 2, w.dst.port.pair.LeafHash(), time.Now().Unix(), time.Now().Unix()+900
	wantCode(t, "in the honest broker's name, signed by the evil one", holder.hello(s, evil.sign(c)), problem.UnknownKey)
	c.Iss = evil.id
	wantCode(t, "in the evil broker's name for the honest one's batch", holder.hello(s, evil.sign(c)), problem.LeaseLost)
}

// TestDialPolicyThroughGateways: an address in disguise is judged by what it leads to.
func TestDialPolicyThroughGateways(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]problem.Code{
		"64:ff9b::7f00:1": problem.PolicyRefused, "64:ff9b::a9fe:a9fe": problem.PolicyRefused, "64:ff9b::c000:207": "",
		"2002:7f00:1::1": problem.PolicyRefused, "2002:a9fe:a9fe::1": problem.PolicyRefused, "2002:c000:207::1": "",
		"168.63.129.16": problem.PolicyRefused, "192.0.0.192": problem.PolicyRefused, "::ffff:100.100.100.200": problem.PolicyRefused,
	} {
		wantCode(t, addr, DialPolicy{}.Permits(netip.MustParseAddr(addr)), want)
	}
}

// TestAddressesWithoutEnd: a broker that names very many addresses has a few of them looked up.
func TestAddressesWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	a := w.dst.agent
	p := a.lanesTo(w.src.port.id)
	defer func() { p.leave(time.Now()) }()
	for _, bad := range []int{maxAddrs - 1, maxAddrs} {
		addrs := append(slices.Repeat([]string{"nowhere"}, bad), w.listen()...)
		lane, err := p.slots[0].dial(t.Context(), addrs)
		if err == nil {
			_ = lane.Close("", "") // never fails
		}
		if good := bad < maxAddrs; good != (err == nil) {
			t.Errorf("the address that answers is number %d: got %v, want a lane only within the first %d", bad+1, err, maxAddrs)
		}
	}
}

// TestTasksWithHugeWords: what a broker says in one word is neither kept nor logged nor answered with if it is huge.
func TestTasksWithHugeWords(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	core, logs := observer.New(zapcore.WarnLevel)
	w.src.conf.Logger = zap.New(core)
	w.src.start()
	huge := strings.Repeat("x", 1<<20)
	signed := w.signOrder(w.order())
	w.broker.give(w.src.port, api.Task{ID: huge, Kind: api.ListTask})
	w.broker.give(w.src.port, api.Task{ID: "kind", Kind: api.TaskKind(huge), Order: signed})
	w.broker.give(w.src.port, api.Task{ID: "peer", Kind: api.ServeTask, Order: signed, Peer: api.Peer{ID: token.Identity(huge)}})
	w.broker.give(w.src.port, api.Task{ID: "last", Kind: "melt", Order: signed})
	w.broker.refusal("last")
	s := w.src.agent.sessions[0]
	s.mu.Lock()
	if len(s.refused) != 1 || !s.refused["last"] {
		t.Errorf("got %d refused tasks remembered, want the last alone", len(s.refused))
	}
	s.mu.Unlock()
	for _, e := range logs.All() {
		if n := len(fmt.Sprint(e.Message, e.ContextMap())); n > 4096 {
			t.Errorf("got a line of %d bytes in the log: %.80s", n, e.Message)
		}
	}
}

// TestOneProviderOnBothSides: where one provider is source and destination, a task for one side opens nothing of the other.
func TestOneProviderOnBothSides(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dst = w.node(w.north, "n2", Export{Container: "copies", Store: w.to, Create: true})
	w.src.start()
	w.dst.start()
	o := w.order()
	o.Accounts, o.To.Provider = o.Accounts[:1], "north.test"
	s := w.spec(o, 1, w.random("in/a", 100))
	serve, receive := w.tasks(s)
	for name, c := range map[string]struct {
		at   *node
		task api.Task
	}{"receive at the source": {w.src, receive}, "serve at the destination": {w.dst, serve}} {
		c.task.ID = name
		w.broker.give(c.at.port, c.task)
		if got := w.broker.refusal(name); got.Code != problem.NoContainer {
			t.Errorf("%s: got %q, want %q", name, got.Code, problem.NoContainer)
		}
	}
	src, dst := w.run(s)
	checkMatch(t, src, dst)
	checkResults(t, dst, token.Stored)
	w.checkCopied(s)
}
