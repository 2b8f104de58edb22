package agent

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A thief speaks the protocol to the source with a certificate of its own.
type thief struct {
	t    testing.TB
	w    *world
	e    *link.Endpoint
	pair *certs.Pair
	lane link.Lane
}

func (w *world) thief(pair *certs.Pair) *thief {
	w.t.Helper()
	e, err := link.ListenQUIC(link.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { e.Close() })
	return &thief{t: w.t, w: w, e: e, pair: pair}
}

// ask sends one request on a lane, made if need be, and returns the stream to read the answer from.
func (f *thief) ask(req wire.Request) (link.Stream, error) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	if f.lane == nil || f.lane.Err() != nil {
		lane, err := f.e.Dial(ctx, f.w.src.agent.Addr().String(), certs.PeerClient(f.pair, f.w.trust, wire.ALPN, ""))
		if err != nil {
			return nil, err
		}
		f.lane = lane
	}
	st, err := f.lane.Open(ctx)
	if err != nil {
		return nil, err
	}
	return st, ask(st, req, 10*time.Second)
}

func (f *thief) hello(s *spec, capability string) error {
	f.t.Helper()
	st, err := f.ask(wire.Hello{Batch: s.wire(), Version: 1, Lanes: 1, Man: s.man, Ord: s.ord, Capability: capability})
	if err != nil {
		return err
	}
	defer st.Abandon(problem.Cancelled)
	_, err = wire.ReadWelcome(st)
	return err
}

func (s *spec) wire() wire.Batch { return wire.Batch{Xfr: s.order.ID, Bat: s.bat} }

// served is a batch that the source is ready to serve, and the capability to read it.
func (w *world) served(s *spec) string {
	w.t.Helper()
	serve, receive := w.tasks(s)
	w.broker.give(w.src.port, serve)
	poll(w.t, "the batch to be served", func() bool {
		w.src.agent.mu.Lock()
		defer w.src.agent.mu.Unlock()
		return len(w.src.agent.servers) > 0
	})
	return receive.Present
}

func wantCode(t testing.TB, what string, err error, want problem.Code) {
	t.Helper()
	if got := problem.Of(err); got != want {
		t.Errorf("%s: got %q (%v), want %q", what, got, err, want)
	}
}

func TestStolenCapability(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	capability := w.served(s)
	for _, c := range []struct {
		name string
		pair *certs.Pair
		want problem.Code
	}{
		{"another agent of the destination's provider", w.south.Issue(token.Agent, "thief").Pair(), problem.CapNotYours},
		{"an agent of the source's provider", w.north.Issue(token.Agent, "thief").Pair(), problem.CapNotYours},
		{"the same agent with another certificate", w.south.Issue(token.Agent, "b").Pair(), problem.CapNotYours},
		{"an expired certificate", w.south.Issue(token.Agent, "b", certstest.Expired()).Pair(), problem.CertExpired},
		{"a subscriber", w.alice["south.test"].Pair(), problem.CertMisused},
		{"a stranger", certstest.New(t, "south.test").Issue(token.Agent, "b").Pair(), problem.CertMisused}, // all that the alert of TLS says
	} {
		err := w.thief(c.pair).hello(s, capability)
		wantCode(t, c.name, err, c.want)
		if c.want == problem.CertExpired && !strings.Contains(problem.As(err).Sentence(), "ertificate") {
			t.Errorf("%s: got %q, want a sentence about the certificate", c.name, problem.As(err).Sentence())
		}
	}
	wantCode(t, "the holder", w.thief(w.dst.conf.Pair).hello(s, capability), "")
}

func TestCapabilityIsNotGoodHere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	capability := w.served(s)
	holder := w.thief(w.dst.conf.Pair)
	changed := func(change func(*token.Capability)) string {
		var serve, receive api.Task
		w.resign(s, &serve, &receive, change)
		return serve.Capability
	}
	for _, c := range []struct {
		name       string
		capability string
		want       problem.Code
	}{
		{"after its end", changed(func(c *token.Capability) { c.Iat, c.Exp = c.Iat-900, c.Iat-1 }), problem.CapExpired},
		{"for another manifest", changed(func(c *token.Capability) { c.Man = token.HashOf(nil) }), problem.CapManifest},
		{"for another order", changed(func(c *token.Capability) { c.Ord = token.HashOf(nil) }), problem.WrongStatement},
		{"for another source", changed(func(c *token.Capability) { c.Aud = token.NewIdentity("north.test", token.Agent, "x") }), problem.CapAudience},
		{"for another destination", changed(func(c *token.Capability) { c.Peer = token.NewIdentity("south.test", token.Agent, "x") }), problem.ForeignPeer},
		{"to create", changed(func(c *token.Capability) { c.Do = token.Create }), problem.WrongStatement},
		{"of another batch", changed(func(c *token.Capability) { c.Bat = 2 }), problem.WrongStatement},
		{"on another authority", changed(func(c *token.Capability) { c.Authority = token.BySession }), problem.WrongStatement},
		{"nothing like one", "e30.e30.e30", problem.WrongStatement},
	} {
		err := holder.hello(s, c.capability)
		if c.name == "nothing like one" && err != nil && problem.Of(err) != problem.Internal {
			continue
		}
		wantCode(t, c.name, err, c.want)
	}
	other := *s
	other.bat = 7
	other.man = ""
	serve, _ := w.tasks(&other)
	wantCode(t, "of a batch that the source was not told of", w.thief(w.dst.conf.Pair).hello(&other, serve.Capability), problem.LeaseLost)
	for gen, want := range map[int64]problem.Code{3: ""} {
		wantCode(t, "a newer generation", holder.hello(s, changed(func(c *token.Capability) { c.Gen = gen })), want)
	}
	wantCode(t, "the one before", holder.hello(s, changed(func(c *token.Capability) { c.Gen = 2 })), "")
	wantCode(t, "an old generation", holder.hello(s, capability), problem.CapStale)
}

func TestCapabilityReplayedAfterTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	w.run(s)
	var serve, receive api.Task
	w.resign(s, &serve, &receive, func(*token.Capability) {})
	for range 2 {
		wantCode(t, "a replay", w.thief(w.dst.conf.Pair).hello(s, serve.Capability), problem.CapSpent)
		poll(t, "the batch to be forgotten", func() bool { return len(w.src.agent.of("")) == 0 })
		w.src.stop()
		w.src.start()
	}
}

// TestEveryByteOfAPresentedCapability changes each byte on its way to the source.
func TestEveryByteOfAPresentedCapability(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	capability := w.served(s)
	holder := w.thief(w.dst.conf.Pair)
	for i := range capability {
		b := []byte(capability)
		if b[i] = 'A'; capability[i] == 'A' {
			b[i] = 'B'
		}
		err := holder.hello(s, string(b))
		if code := problem.Of(err); err == nil || code == problem.Internal || code == problem.PeerUnreached {
			t.Fatalf("byte %d: got %v, want a refusal with a code", i, err)
		}
		if i%8 == 7 {
			_ = holder.lane.Close("", "")
		}
	}
}

func TestHostileDestination(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100), w.random("in/big", 5<<20))
	s.max = 6 << 20
	capability := w.served(s)
	holder := w.thief(w.dst.conf.Pair)
	chunks := func(item int, first int64, n int) error {
		want := wire.WantChunks{Batch: s.wire(), Item: item, First: first, N: n}
		st, err := holder.ask(want)
		if err != nil {
			return err
		}
		defer st.Abandon(problem.Cancelled)
		buf := make([]byte, 2<<20)
		size := int64(100)
		if item == 1 {
			size = 5 << 20
		}
		for rd := wire.NewChunkReader(st, want, size); ; {
			if _, err := rd.Next(buf); err != nil {
				return err
			}
		}
	}
	wantCode(t, "a want before any hello", chunks(1, 0, 1), problem.CapNotYours)
	if err := holder.hello(s, capability); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "an item that is not in the manifest", chunks(9, 0, 1), problem.Malformed)
	wantCode(t, "chunks beyond the end", chunks(1, 4, 2), problem.Malformed)
	st, err := holder.ask(wire.WantRun{Batch: s.wire(), Items: []int{1}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = wire.NewRunReader(st, wire.WantRun{Items: []int{1}}).Next(make([]byte, 2<<20))
	wantCode(t, "a large item in a run", err, problem.Malformed)
	if err := chunks(1, 0, 5); err == nil || problem.Of(err) != problem.Internal { // io.EOF has no code
		t.Fatalf("all chunks: got %v, want the end", err)
	}
	wantCode(t, "more bytes than the capability allows", chunks(1, 0, 5), problem.CapOverBudget)
	if err := w.thief(w.dst.conf.Pair).hello(s, capability); err != nil {
		t.Errorf("another lane: got %v, want a welcome", err)
	}
}

// TestCapabilityEndsOnAnOpenLane: a lane that was admitted is asked for its capability at every want.
func TestCapabilityEndsOnAnOpenLane(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	s.life = 2 * time.Second
	capability := w.served(s)
	holder := w.thief(w.dst.conf.Pair)
	if err := holder.hello(s, capability); err != nil {
		t.Fatal(err)
	}
	poll(t, "the capability to end", func() bool {
		st, err := holder.ask(wire.WantRun{Batch: s.wire(), Items: []int{0}})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Abandon(problem.Cancelled)
		_, err = wire.NewRunReader(st, wire.WantRun{Items: []int{0}}).Next(make([]byte, 2<<20))
		return problem.Of(err) == problem.CapExpired
	})
}

func TestDialPolicy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		addr  string
		allow []netip.Prefix
		want  problem.Code
	}{
		{"192.0.2.7", nil, ""}, {"2001:db8::1", nil, ""}, {"10.1.2.3", nil, ""},
		{"127.0.0.1", nil, problem.PolicyRefused}, {"::1", nil, problem.PolicyRefused}, {"::ffff:127.0.0.1", nil, problem.PolicyRefused},
		{"169.254.169.254", nil, problem.PolicyRefused}, {"fe80::1", nil, problem.PolicyRefused}, {"224.0.0.1", nil, problem.PolicyRefused},
		{"0.0.0.0", nil, problem.PolicyRefused}, {"::", nil, problem.PolicyRefused}, {"255.255.255.255", nil, problem.PolicyRefused},
		{"fd00:ec2::254", nil, problem.PolicyRefused},
		{"127.0.0.1", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, ""}, {"::ffff:127.0.0.1", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, ""},
		{"192.0.2.7", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, problem.PolicyRefused},
	} {
		wantCode(t, c.addr, DialPolicy{Allow: c.allow}.Permits(netip.MustParseAddr(c.addr)), c.want)
	}
}
