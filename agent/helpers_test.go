package agent

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A world is two providers with an agent each, a subscriber with an account at both, and a broker.
type world struct {
	t                 testing.TB
	north, south, hub *certstest.CA
	trust             *certs.Trust
	broker            *memBroker
	alice             map[token.Provider]*certstest.Leaf
	src, dst          *node
	from, to          *mem.Store
}

// A node is an agent that can be stopped, killed and started again on the same state.
type node struct {
	w      *world
	conf   Config
	port   *port
	state  string
	agent  *Agent
	cancel context.CancelFunc
	done   chan struct{}
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOf(t, certstest.New(t, "north.test"), certstest.New(t, "south.test"), certstest.New(t, "hub.test"))
}

// newWorldOf is newWorld with these authorities.
func newWorldOf(t testing.TB, north, south, hub *certstest.CA) *world {
	t.Helper()
	w := &world{t: t, north: north, south: south, hub: hub, alice: map[token.Provider]*certstest.Leaf{}}
	w.trust = certstest.Trust(w.north, w.south, w.hub)
	w.broker = newMemBroker(t, token.NewIdentity("hub.test", token.Broker, "b"), w.trust)
	w.alice["north.test"] = w.north.Issue(token.Subscriber, "alice")
	w.alice["south.test"] = w.south.Issue(token.Subscriber, "alice")
	w.from, w.to = mem.New(time.Now), mem.New(time.Now)
	w.src = w.node(w.north, "a", Export{Container: "data", Store: w.from, Read: true})
	w.dst = w.node(w.south, "b", Export{Container: "copies", Store: w.to, Create: true, Read: true})
	return w
}

// node makes an agent that does not run yet.
func (w *world) node(ca *certstest.CA, name string, exports ...Export) *node {
	w.t.Helper()
	pair := ca.Issue(token.Agent, name).Pair()
	n := &node{w: w, port: w.broker.port(pair), state: w.t.TempDir()}
	n.conf = Config{
		Pair: pair, Trust: w.trust, Brokers: []Broker{{ID: w.broker.id, URL: "https://hub.test"}}, Exports: exports,
		State: n.state, Listen: "127.0.0.1:0", Dial: DialPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Logger: zaptest.NewLogger(w.t, zaptest.Level(logLevel)),
		hooks:  hooks{broker: func(Broker) control { return n.port }, quick: true, settle: time.Millisecond},
	}
	return n
}

// logLevel of agents in tests; lower it to see what they do.
const logLevel = zapcore.ErrorLevel

// start opens and runs the agent. It is stopped at the end of the test.
func (n *node) start() *node {
	n.w.t.Helper()
	a, err := Open(n.w.t.Context(), n.conf)
	if err != nil {
		n.w.t.Fatalf("opening an agent: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	n.agent, n.cancel, n.done = a, cancel, done
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			n.w.t.Errorf("running an agent: %v", err)
		}
	}()
	n.w.t.Cleanup(func() { cancel(); <-done })
	if n.conf.Listen != "" {
		n.conf.Listen = a.Addr().String() // the same one after a restart
	}
	return n
}

// stop ends the agent in order.
func (n *node) stop() {
	n.cancel()
	<-n.done
}

// A spec is what a test wants to have copied.
type spec struct {
	items    []token.Item
	order    token.Order
	run      int64
	bat      int64
	signed   api.SignedOrder
	manifest []byte
	man      token.Hash
	ord      token.Hash
	peerSrc  token.Identity
	peerDst  token.Identity
	max      int64
	life     time.Duration

	authority token.Authority // empty is ByOrder
}

// random puts an object of that size into the source's store.
func (w *world) random(name token.ObjectName, size int) store.Info {
	data := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16), byte(len(name))})
	if _, err := r.Read(data); err != nil {
		w.t.Fatal(err)
	}
	return w.from.Put(name, data, store.Attrs{ModTime: time.Unix(1700000000, 0), Mode: 0o640, HasMode: true})
}

// order is one to copy the tree "in" of the source to the tree "out".
func (w *world) order() token.Order {
	now := time.Now()
	return token.Order{
		Accounts: []token.Identity{w.account("north.test"), w.account("south.test")}, Do: token.Copy, Scope: token.Tree, IfExists: token.Fail,
		From: token.Location{Provider: "north.test", Container: "data", Name: "in"}, To: token.Location{Provider: "south.test", Container: "copies", Name: "out"},
		Filters: []token.Filter{}, Iat: now.Unix(), Exp: now.Add(time.Hour).Unix(), ID: newID(w.t),
	}
}

func (w *world) account(p token.Provider) token.Identity {
	return token.NewIdentity(p, token.Subscriber, "alice")
}

func newID(t testing.TB) token.TransferID {
	t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	return token.TransferID(id.String())
}

// signOrder signs an order with the key of every account that it names.
func (w *world) signOrder(o token.Order) api.SignedOrder {
	w.t.Helper()
	var s api.SignedOrder
	for _, account := range o.Accounts {
		leaf := w.alice[account.Provider()]
		signer, err := token.NewSigner(leaf.Key)
		if err != nil {
			w.t.Fatal(err)
		}
		jws, err := signer.Order(o)
		if err != nil {
			w.t.Fatalf("signing an order: %v", err)
		}
		s.JWS, s.Chains = append(s.JWS, jws), append(s.Chains, string(leaf.Chain.PEM()))
	}
	return s
}

// spec is a batch of these objects of the source.
func (w *world) spec(o token.Order, bat int64, infos ...store.Info) *spec {
	w.t.Helper()
	s := &spec{order: o, bat: bat, peerSrc: w.src.port.id, peerDst: w.dst.port.id, life: w.broker.life}
	for _, in := range infos {
		dst, err := o.Destination(in.Name)
		if err != nil {
			w.t.Fatal(err)
		}
		s.items = append(s.items, token.Item{Src: in.Name, Dst: dst, Size: in.Size, Version: in.Version, Part: token.ChunkSize})
	}
	return s
}

// tasks mints a batch: what the broker would give to both agents.
func (w *world) tasks(s *spec) (serve, receive api.Task) {
	w.t.Helper()
	payload, err := s.order.Payload()
	if err != nil {
		w.t.Fatal(err)
	}
	if s.ord == "" {
		s.ord = token.HashOf(payload)
	}
	if s.signed.JWS == nil {
		s.signed = w.signOrder(s.order)
	}
	s.manifest, s.man, err = token.MarshalManifest(token.Manifest{Bat: s.bat, Iss: w.broker.id, Items: s.items, Ord: s.ord, Xfr: s.order.Run(s.run)})
	if err != nil {
		w.t.Fatalf("encoding a manifest: %v", err)
	}
	if s.max == 0 {
		s.max = 64 << 20
		for _, it := range s.items {
			s.max += it.Size + it.Size/10
		}
	}
	ref := s.ref()
	m := &mint{src: w.src.port, dst: w.dst.port, c: token.Capability{
		Aud: s.peerSrc, Authority: cmp.Or(s.authority, token.ByOrder), Bat: s.bat, Do: token.Read, Iss: w.broker.id, Man: s.man, Max: s.max, Ord: s.ord, Peer: s.peerDst, Xfr: ref.Xfr,
	}}
	w.broker.mu.Lock()
	w.broker.minted[ref] = m
	w.broker.mu.Unlock()
	read, create := w.broker.mintGeneration(m, s.life)
	name := fmt.Sprintf("%s-%d", ref.Xfr, s.bat)
	serve = api.Task{ID: "serve-" + name, Kind: api.ServeTask, Order: s.signed, Run: s.run, Bat: s.bat, Manifest: s.manifest, Capability: read, Peer: api.Peer{ID: s.peerDst, Listen: []string{}}}
	receive = api.Task{ID: "receive-" + name, Kind: api.ReceiveTask, Order: s.signed, Run: s.run, Bat: s.bat, Manifest: s.manifest, Capability: create, Present: read,
		Peer: api.Peer{ID: s.peerSrc, Listen: w.listen()}}
	return serve, receive
}

func (w *world) listen() []string {
	if w.src.agent == nil {
		return []string{w.src.conf.Listen}
	}
	return []string{w.src.agent.Addr().String()}
}

// run gives a batch to both agents and returns both receipts.
func (w *world) run(s *spec) (src, dst receipt) {
	w.t.Helper()
	serve, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	w.broker.give(w.src.port, serve)
	return w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref())
}

func (s *spec) ref() api.Ref { return api.Ref{Xfr: s.order.Run(s.run), Bat: s.bat} }

// content reads an object of a store; nil if it does not exist.
func content(t testing.TB, s store.Store, name token.ObjectName) []byte {
	t.Helper()
	info, err := s.Stat(t.Context(), name)
	if err != nil {
		return nil
	}
	r, err := s.Open(t.Context(), name, info.Version)
	if err != nil {
		t.Fatalf("opening %q: %v", name, err)
	}
	defer r.Close()
	sec, err := r.Section(t.Context(), 0, info.Size)
	if err != nil {
		t.Fatalf("reading %q: %v", name, err)
	}
	defer sec.Close()
	data := make([]byte, info.Size)
	if _, err := io.ReadFull(sec, data); err != nil {
		t.Fatalf("reading %q: %v", name, err)
	}
	return data
}

// checkCopied compares the destination of every item with its source.
func (w *world) checkCopied(s *spec) {
	w.t.Helper()
	for _, it := range s.items {
		if !slices.Equal(content(w.t, w.from, it.Src), content(w.t, w.to, it.Dst)) {
			w.t.Errorf("%q is not a copy of %q", it.Dst, it.Src)
		}
	}
}

// checkNoStages fails if the destination keeps stages of ours.
func (w *world) checkNoStages() {
	w.t.Helper()
	poll(w.t, "the stages to be gone", func() bool {
		n := 0
		err := w.to.Leftovers(context.Background(), func(store.Leftover) bool { n++; return true })
		return err == nil && n == 0
	})
}

// poll waits until ok, with a deadline.
func poll(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// checkResults compares the outcomes of a receipt.
func checkResults(t testing.TB, r receipt, want ...token.Result) {
	t.Helper()
	var got []token.Result
	for _, o := range r.outs {
		got = append(got, o.Outcome)
	}
	if !slices.Equal(got, want) {
		t.Errorf("outcomes of the %s: got %v, want %v; %+v", r.claims.Side, got, want, r.outs)
	}
}

// checkMatch fails if the two receipts contradict each other.
func checkMatch(t testing.TB, src, dst receipt) {
	t.Helper()
	for i := range dst.outs {
		if err := token.Match(src.outs[i], dst.outs[i]); err != nil {
			t.Errorf("item %d: %v", i, err)
		}
	}
}
