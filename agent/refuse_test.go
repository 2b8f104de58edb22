package agent

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// An evil is one thing that a broker with its signing key can do to a batch. It changes what is minted, or the tasks.
type evil struct {
	name  string
	spec  func(w *world, s *spec)
	tasks func(w *world, s *spec, serve, receive *api.Task)
	serve problem.Code // the source's refusal; "" if it has nothing to find fault with
	recv  problem.Code // the destination's
}

// resign signs the capabilities of both tasks again after a change.
func (w *world) resign(s *spec, serve, receive *api.Task, change func(*token.Capability)) {
	c := w.broker.minted[s.ref()].c
	c.Gen, c.Cnf, c.Iat = 1, w.dst.port.pair.LeafHash(), time.Now().Unix()
	c.Exp = c.Iat + 900
	change(&c)
	serve.Capability = w.broker.sign(c)
	receive.Present = serve.Capability
	receive.Capability = w.broker.sign(mirrored(c))
}

func evils() []evil {
	return []evil{
		{name: "renames an item", spec: func(w *world, s *spec) { s.items[0].Dst = "out/other" }, serve: problem.OrderNotCovered, recv: problem.OrderNotCovered},
		{name: "adds an item outside the order", spec: func(w *world, s *spec) {
			in := w.random("elsewhere/secret", 10)
			s.items = append(s.items, token.Item{Src: in.Name, Dst: "out/secret", Size: in.Size, Version: in.Version, Part: token.ChunkSize})
		}, serve: problem.OrderNotCovered, recv: problem.OrderNotCovered},
		{name: "adds an item that a filter excludes", spec: func(w *world, s *spec) {
			s.order.Filters = []token.Filter{{Do: "exclude", Match: "a"}}
		}, serve: problem.OrderNotCovered, recv: problem.OrderNotCovered},
		{name: "names a peer of a foreign provider", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			evil := token.NewIdentity("hub.test", token.Agent, "evil")
			serve.Peer.ID, receive.Peer.ID = evil, evil
		}, serve: problem.ForeignPeer, recv: problem.ForeignPeer},
		{name: "mints for a peer of a foreign provider", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			evil := token.NewIdentity("hub.test", token.Agent, "evil")
			serve.Peer.ID = evil
			receive.Peer.ID = evil
			w.resign(s, serve, receive, func(c *token.Capability) { c.Peer = evil })
		}, serve: problem.ForeignPeer, recv: problem.ForeignPeer},
		{name: "names a subscriber as the peer", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			serve.Peer.ID = token.NewIdentity("south.test", token.Subscriber, "alice")
			receive.Peer.ID = token.NewIdentity("north.test", token.Subscriber, "alice")
		}, serve: problem.ForeignPeer, recv: problem.ForeignPeer},
		{name: "sends no order", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			serve.Order, receive.Order = api.SignedOrder{}, api.SignedOrder{}
		}, serve: problem.OrderUnsigned, recv: problem.OrderUnsigned},
		{name: "sends another subscriber's order", spec: func(w *world, s *spec) {
			s.order.Accounts = []token.Identity{token.NewIdentity("north.test", token.Subscriber, "bob"), token.NewIdentity("south.test", token.Subscriber, "bob")}
		}, serve: problem.OrderUnsigned, recv: problem.OrderUnsigned},
		{name: "leaves one signature out", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			o := api.SignedOrder{JWS: s.signed.JWS[:1], Chains: s.signed.Chains[:1]}
			serve.Order, receive.Order = o, o
		}, serve: problem.OrderUnsigned, recv: problem.OrderUnsigned},
		{name: "sends the order of another transfer", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			o := w.signOrder(w.order())
			serve.Order, receive.Order = o, o
		}, serve: problem.CapManifest, recv: problem.CapManifest},
		{name: "signs with another broker's key", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			_, key, _ := ed25519.GenerateKey(nil)
			signer, _ := token.NewSigner(key)
			old := w.broker.signer
			w.broker.signer = signer
			defer func() { w.broker.signer = old }()
			w.resign(s, serve, receive, func(*token.Capability) {})
		}, serve: problem.UnknownKey, recv: problem.UnknownKey},
		{name: "signs as another broker", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			w.resign(s, serve, receive, func(c *token.Capability) { c.Iss = token.NewIdentity("hub.test", token.Broker, "other") })
		}, serve: problem.UnknownBroker, recv: problem.UnknownBroker},
		{name: "sends a capability that has ended", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			w.resign(s, serve, receive, func(c *token.Capability) { c.Iat, c.Exp = c.Iat-900, c.Iat-1 })
		}, serve: problem.CapExpired, recv: problem.CapExpired},
		{name: "sends a capability from the future", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			w.resign(s, serve, receive, func(c *token.Capability) { c.Iat, c.Exp = c.Iat+600, c.Iat+900 })
		}, serve: problem.CapNotYet, recv: problem.CapNotYet},
		{name: "sends a capability for another manifest", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			w.resign(s, serve, receive, func(c *token.Capability) { c.Man = token.HashOf([]byte("another")) })
		}, serve: problem.CapManifest, recv: problem.CapManifest},
		{name: "sends a capability for another audience", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			w.resign(s, serve, receive, func(c *token.Capability) {
				c.Aud, c.Peer = token.NewIdentity("north.test", token.Agent, "x"), token.NewIdentity("south.test", token.Agent, "x")
			})
		}, serve: problem.CapAudience, recv: problem.CapAudience},
		{name: "binds the capability to another key", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			w.resign(s, serve, receive, func(c *token.Capability) { c.Cnf = token.HashOf([]byte("evil's leaf")) })
		}, recv: problem.CapNotYours},
		{name: "swaps the two capabilities", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			serve.Capability, receive.Capability = receive.Capability, serve.Capability
		}, serve: problem.CapAudience, recv: problem.CapAudience},
		{name: "sends a capability of another batch", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			w.resign(s, serve, receive, func(c *token.Capability) { c.Bat = 9 })
		}, serve: problem.WrongStatement, recv: problem.WrongStatement},
		{name: "sends a batch that is larger than its capability", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			w.resign(s, serve, receive, func(c *token.Capability) { c.Max = 10 })
		}, serve: problem.CapOverBudget, recv: problem.CapOverBudget},
		{name: "sends a manifest with a trailing space", tasks: func(w *world, s *spec, serve, receive *api.Task) {
			serve.Manifest = append(slices.Clone(serve.Manifest), ' ')
			receive.Manifest = serve.Manifest
		}, serve: problem.NotCanonical, recv: problem.NotCanonical},
		{name: "asks for a container that is not exported", spec: func(w *world, s *spec) {
			s.order.From.Container, s.order.To.Container = "private", "private"
		}, serve: problem.NoContainer, recv: problem.NoContainer},
	}
}

func TestBrokerDoesNotKeepToTheOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.random("in/a", 100)
	w.src.start()
	w.dst.start()
	for _, c := range evils() {
		t.Run(c.name, func(t *testing.T) {
			s := w.spec(w.order(), 1, in)
			if c.spec != nil {
				c.spec(w, s)
			}
			serve, receive := w.tasks(s)
			if c.tasks != nil {
				c.tasks(w, s, &serve, &receive)
			}
			for _, side := range []struct {
				n    *node
				task api.Task
				want problem.Code
			}{{w.src, serve, c.serve}, {w.dst, receive, c.recv}} {
				if side.want == "" {
					continue
				}
				w.broker.give(side.n.port, side.task)
				if got := w.broker.refusal(side.task.ID); got.Code != side.want {
					t.Errorf("%s: got %q, want %q: %s", side.task.Kind, got.Code, side.want, got.Detail)
				}
			}
		})
	}
	if got := content(t, w.to, "out/a"); got != nil {
		t.Errorf("got an object of %d bytes, want none", len(got))
	}
	w.checkNoStages()
}

// TestEveryByteOfACapability changes each byte of both capabilities in turn: each is refused by both agents.
func TestEveryByteOfACapability(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.random("in/a", 100)
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, in)
	serve, receive := w.tasks(s)
	for _, at := range []struct {
		n    *node
		task api.Task
	}{{w.src, serve}, {w.dst, receive}} {
		sess := at.n.agent.sessions[0]
		poll(t, "the keys", func() bool { sess.mu.Lock(); defer sess.mu.Unlock(); return sess.keys.Has(w.broker.signer.KeyID()) })
		will, err := at.n.agent.verifyOrder(at.task.Order, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		do := token.Read
		if at.task.Kind == api.ReceiveTask {
			do = token.Create
		}
		if _, err := at.n.agent.verifyBatch(sess, at.task, will, do, time.Now()); err != nil {
			t.Fatalf("the untouched task: got %v, want it accepted", err)
		}
		for i := range at.task.Capability {
			b := []byte(at.task.Capability)
			b[i] ^= 1
			bad := at.task
			bad.Capability = string(b)
			if _, err := at.n.agent.verifyBatch(sess, bad, will, do, time.Now()); err == nil || problem.Of(err) == problem.Internal {
				t.Fatalf("%s, byte %d: got %v, want a refusal with a code", at.task.Kind, i, err)
			}
		}
	}
}

func TestOrderRunsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	o := w.order()
	in := w.random("in/a", 100)
	first := w.spec(o, 1, in)
	w.run(first)
	again := w.spec(o, 2, w.random("in/b", 10), in)
	_, receive := w.tasks(again)
	w.broker.give(w.dst.port, receive)
	if got := w.broker.refusal(receive.ID); got.Code != problem.OrderSpent || !strings.Contains(got.Detail, "out/a") {
		t.Errorf("a stored name in a second batch: got %q %q, want %q", got.Code, got.Detail, problem.OrderSpent)
	}
	poll(t, "the batches to end", func() bool { return len(w.dst.agent.of("")) == 0 && len(w.src.agent.of("")) == 0 })
	serve, receive := w.tasks(first)
	serve.ID, receive.ID = "again "+serve.ID, "again "+receive.ID
	for _, at := range []struct {
		n    *node
		task api.Task
	}{{w.src, serve}, {w.dst, receive}} {
		w.broker.give(at.n.port, at.task)
		if got := w.broker.refusal(at.task.ID); got.Code != problem.CapSpent {
			t.Errorf("%s of a batch that has ended: got %q, want %q", at.task.Kind, got.Code, problem.CapSpent)
		}
	}
}

// TestSecondBrokerPresentsTheOrder: an order belongs to the broker that presented it first, also after a restart.
func TestSecondBrokerPresentsTheOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := newMemBroker(t, token.NewIdentity("hub.test", token.Broker, "other"), w.trust)
	port := other.port(w.src.conf.Pair)
	mine := w.src.port
	w.src.conf.Brokers = append(w.src.conf.Brokers, Broker{ID: other.id, URL: "https://other.test"})
	w.src.conf.hooks.broker = func(b Broker) control {
		if b.ID == other.id {
			return port
		}
		return mine
	}
	w.random("in/a", 1)
	w.src.start()
	task := api.Task{ID: "list", Kind: api.ListTask, Order: w.signOrder(w.order())}
	w.broker.give(mine, task)
	if _, bad := w.broker.listing("list"); bad != nil {
		t.Fatalf("got %+v, want a listing", bad)
	}
	for range 2 {
		other.give(port, task)
		if _, bad := other.listing("list"); bad == nil || bad.Code != problem.OrderSpent {
			t.Errorf("got %+v, want %q", bad, problem.OrderSpent)
		}
		w.src.stop()
		delete(other.pages, "list")
		w.src.start()
	}
}

func TestLocalPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.random("in/a", 1)
	w.src.conf.Exports[0].Subscribers = []token.Identity{token.NewIdentity("north.test", token.Subscriber, "bob")}
	w.dst.conf.Exports[0] = Export{Container: "copies", Store: w.to, Read: true}
	w.src.start()
	w.dst.start()
	serve, receive := w.tasks(w.spec(w.order(), 1, in))
	w.broker.give(w.src.port, serve)
	w.broker.give(w.dst.port, receive)
	got := w.broker.refusal(serve.ID)
	if got.Code != problem.NotPermitted || !strings.Contains(got.Detail, "alice") || !strings.Contains(got.Detail, "data") {
		t.Errorf("an account that is not listed: got %q %q, want %q with account and container", got.Code, got.Detail, problem.NotPermitted)
	}
	if got := w.broker.refusal(receive.ID); got.Code != problem.PolicyRefused {
		t.Errorf("create where only reading is exported: got %q, want %q", got.Code, problem.PolicyRefused)
	}
}

// TestSubscriberOfAnotherAuthority: a chain that the own provider's authority did not issue is no account here.
func TestSubscriberOfAnotherAuthority(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	imposter := newWorld(t) // the same names under other authorities
	signed := imposter.signOrder(w.order())
	w.broker.give(w.src.port, api.Task{ID: "list", Kind: api.ListTask, Order: signed})
	if _, bad := w.broker.listing("list"); bad == nil || bad.Code != problem.CertUnknown {
		t.Errorf("got %+v, want %q", bad, problem.CertUnknown)
	}
	mixed := w.signOrder(w.order())
	mixed.Chains[0], mixed.Chains[1] = mixed.Chains[1], mixed.Chains[0]
	w.broker.give(w.src.port, api.Task{ID: "mixed", Kind: api.ListTask, Order: mixed})
	if _, bad := w.broker.listing("mixed"); bad == nil || bad.Code != problem.UnknownKey {
		t.Errorf("swapped chains: got %+v, want %q", bad, problem.UnknownKey)
	}
}
