package agent

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

func entry(xfr token.TransferID, why token.Reason) token.Revoked {
	return token.Revoked{Reason: why, Until: time.Now().Unix() + 900, Xfr: xfr}
}

// A census counts what the destination journals.
type census struct {
	mu    sync.Mutex
	n     int64
	times map[string]int
}

// count has the destination counted, and f called once at that number.
func (n *node) count(at int64, f func()) *census {
	c := &census{times: map[string]int{}}
	n.conf.hooks.moved = func(what string, item int, chunk int64) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.n++
		c.times[fmt.Sprintf("%s %d %d", what, item, chunk)]++
		if c.n == at {
			go f()
		}
		return true
	}
	return c
}

func (c *census) total() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// beaten waits until the agent tells the broker that a batch waits for that reason.
func (w *world) beaten(p *port, want problem.Code) {
	w.t.Helper()
	w.broker.await("a beat that says "+string(want), func() bool {
		for _, b := range p.beats {
			if b.Waiting == want {
				return true
			}
		}
		return false
	})
}

// TestPausedInTheMiddle: bytes stop whoever of the two agents hears of it, and over whichever way; then the transfer goes on, and
// nothing that was journalled is fetched again.
func TestPausedInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		set  func(*world)
	}{
		{"over the task stream", func(*world) {}},
		{"over the poll alone", func(w *world) { w.src.port.deaf, w.dst.port.deaf = true, true }},
		{"the source alone hears of it", func(w *world) { w.dst.port.blind = true }},
		{"the destination alone hears of it", func(w *world) { w.src.port.blind = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			c.set(w)
			o := w.order()
			seen := w.dst.count(4, func() { w.broker.revoke(1, entry(o.ID, token.ByPause)) })
			w.dst.conf.Rate = 8 << 20 // so that it is the middle
			w.src.start()
			w.dst.start()
			s := w.spec(o, 1, mixed(w)...)
			w.give(s)
			w.beaten(w.dst.port, problem.CapRevoked)
			held := seen.total()
			poll(t, "what is under way to end", func() bool { now := seen.total(); same := now == held; held = now; return same && quiet(seen, now) })
			if held == 0 || held >= int64(len(s.items)) {
				t.Fatalf("got %d parts before the pause, want some and not all", held)
			}
			w.broker.revoke(2)
			src, dst := w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref())
			checkMatch(t, src, dst)
			checkAll(t, dst, token.Stored)
			w.checkCopied(s)
			w.checkNoStages()
			for what, n := range seen.times {
				if n != 1 {
					t.Errorf("%s was journalled %d times, want once", what, n)
				}
			}
		})
	}
}

// TestStoppedBatchOfARestingTransfer: while a transfer rests the broker ends one of its batches, because of what may not be copied any more. Both agents sign for it
// and leave nothing of it; then the other goes on, and nothing that was journalled of it is fetched again.
func TestStoppedBatchOfARestingTransfer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.order()
	seen := w.dst.count(4, func() { w.broker.revoke(1, entry(o.ID, token.ByPause)) })
	w.dst.conf.Rate = 8 << 20
	w.src.start()
	w.dst.start()
	stopped := w.spec(o, 1, w.random("in/hr/a", 32<<20))
	goes := w.spec(o, 2, w.random("in/c", 100), w.random("in/d", 12<<20))
	w.give(stopped)
	w.give(goes)
	w.beaten(w.dst.port, problem.CapRevoked)
	w.broker.end(w.src.port, stopped.ref())
	w.broker.end(w.dst.port, stopped.ref())
	w.broker.receipt(token.Source, stopped.ref())
	for _, out := range w.broker.receipt(token.Destination, stopped.ref()).outs {
		if out.Outcome != token.Untried {
			t.Errorf("got %s of the stopped batch, want %s", out.Outcome, token.Untried)
		}
	}
	w.broker.revoke(2)
	src, dst := w.broker.receipt(token.Source, goes.ref()), w.broker.receipt(token.Destination, goes.ref())
	checkMatch(t, src, dst)
	checkAll(t, dst, token.Stored)
	w.checkCopied(goes)
	w.checkNoStages()
	for what, n := range seen.times {
		if strings.Contains(what, " 1 ") && n != 1 { // the stopped batch has no second item
			t.Errorf("%s was journalled %d times, want once", what, n)
		}
	}
}

// quiet reports whether nothing more is journalled for a while.
func quiet(c *census, held int64) bool {
	late := time.NewTimer(200 * time.Millisecond)
	defer late.Stop()
	<-late.C
	return c.total() == held
}

// TestRevokedCapabilityIsRefused: a destination that does not listen gets nothing: no welcome, no want, no rest of an answer.
func TestRevokedCapabilityIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100), w.random("in/big", 16<<20))
	capability := w.served(s)
	holder := w.thief(w.dst.conf.Pair)
	if err := holder.hello(s, capability); err != nil {
		t.Fatal(err)
	}
	big := wire.WantChunks{Batch: s.wire(), Item: 1, First: 0, N: 16}
	st, err := holder.ask(big)
	if err != nil {
		t.Fatal(err)
	}
	in, buf := wire.NewChunkReader(st, big, 16<<20), make([]byte, 2<<20)
	if _, err := in.Next(buf); err != nil {
		t.Fatal(err)
	}
	w.broker.revoke(1, entry(s.order.ID, token.ByPause))
	poll(t, "the list to arrive", func() bool { return w.src.agent.sessions[0].epoch() == 1 })
	n := 1
	for err = nil; err == nil; n++ {
		_, err = in.Next(buf)
	}
	wantCode(t, "the rest of an answer", err, problem.CapRevoked)
	if n >= 16 {
		t.Errorf("got %d chunks of 16 after the revocation", n)
	}
	for range 2 {
		wantCode(t, "a hello", holder.hello(s, capability), problem.CapRevoked)
	}
	run := wire.WantRun{Batch: s.wire(), Items: []int{0}}
	if st, err = holder.ask(run); err != nil {
		t.Fatal(err)
	}
	_, err = wire.NewRunReader(st, run).Next(buf)
	wantCode(t, "a want", err, problem.CapRevoked)
	if says := problem.As(holder.hello(s, capability)).Sentence(); !strings.Contains(says, "paused") {
		t.Errorf("got %q, want why", says)
	}
}

// TestCancelledByRevocation: the list ends a batch as the broker's word does, which need not come: stages go, receipts are signed.
func TestCancelledByRevocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.order()
	w.dst.count(4, func() { w.broker.revoke(1, entry(o.ID, "a-reason-to-come")) })
	w.dst.conf.Rate = 8 << 20
	w.src.start()
	w.dst.start()
	s := w.spec(o, 1, mixed(w)...)
	w.give(s)
	for _, side := range []token.Side{token.Source, token.Destination} {
		untried := 0
		for _, out := range w.broker.receipt(side, s.ref()).outs {
			if out.Outcome == token.Untried && out.Code == string(problem.Cancelled) {
				untried++
			}
		}
		if untried == 0 {
			t.Errorf("the %s has no item that was not tried", side)
		}
	}
	w.checkNoStages()
}

// TestRevocationsThatAreRefused change nothing; the next good one counts.
func TestRevocationsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	capability := w.served(s)
	broker := w.src.agent.sessions[0]
	iat := time.Now().Unix()
	list := func(epoch int64, es ...token.Revoked) token.Revocation {
		return token.Revocation{Epoch: epoch, Iat: iat, Iss: w.broker.id, Revoked: es}
	}
	ours := entry(s.order.ID, token.ByCancel)
	if err := broker.takeRevocations(w.broker.signList(list(5)), time.Now()); err != nil {
		t.Fatal(err)
	}
	by := func(k tokentest.Key, r token.Revocation) string {
		signer, err := token.NewSigner(k.Signer)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Revocation(r)
		if err != nil {
			t.Fatal(err)
		}
		return jws
	}
	foreign := list(9, ours)
	foreign.Iss = "spiffe://evil.test/broker/x"
	alice, err := token.NewSigner(w.alice["north.test"].Key)
	if err != nil {
		t.Fatal(err)
	}
	account, err := alice.Revocation(list(9, ours))
	if err != nil {
		t.Fatal(err)
	}
	good := w.broker.signList(list(9, ours))
	for _, c := range []struct {
		name, tok string
		want      problem.Code
	}{
		{"an old list again", w.broker.signList(list(4, ours)), problem.CapStale},
		{"another list of the same epoch", w.broker.signList(list(5, ours)), problem.CapStale},
		{"the same list", w.broker.signList(list(5)), ""},
		{"by another broker", by(tokentest.Ed25519("evil"), foreign), problem.UnknownKey},
		{"by another broker in our broker's name", by(tokentest.Ed25519("evil"), list(9, ours)), problem.UnknownKey},
		{"by our broker in another's name", w.broker.signList(foreign), problem.UnknownBroker},
		{"by an account", account, problem.UnknownKey},
		{"a capability", capability, problem.WrongStatement},
		{"an order", w.signOrder(w.order()).JWS[0], problem.WrongStatement},
		{"half of one", good[:len(good)/2], problem.Malformed},
		{"nothing", "", problem.Malformed},
	} {
		err := broker.takeRevocations(c.tok, time.Now())
		if got := problem.Of(err); got != c.want && (c.name != "half of one" || err == nil) {
			t.Errorf("%s: got %q (%v), want %q", c.name, got, err, c.want)
		}
		if broker.epoch() != 5 || broker.revoked(s.order.ID) != nil {
			t.Fatalf("%s: it was taken over", c.name)
		}
	}
	wantCode(t, "the capability", w.thief(w.dst.conf.Pair).hello(s, capability), "")
	if err := broker.takeRevocations(w.broker.signList(list(8, entry(newID(t), token.ByCancel))), time.Now()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "the capability once another transfer's are revoked", w.thief(w.dst.conf.Pair).hello(s, capability), "")
	if err := broker.takeRevocations(good, time.Now()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "the capability once it is revoked", w.thief(w.dst.conf.Pair).hello(s, capability), problem.CapRevoked)
}

// TestRevocationOutlivesARestart: the list is durable before the agent acts on it, and counts while the broker is down.
func TestRevocationOutlivesARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	capability := w.served(s)
	w.broker.revoke(7, entry(s.order.ID, token.ByPause))
	poll(t, "the list to arrive", func() bool { return w.src.agent.sessions[0].epoch() == 7 })
	w.src.kill()
	w.broker.setDown(true)
	w.src.start()
	for range 2 {
		wantCode(t, "a hello", w.thief(w.dst.conf.Pair).hello(s, capability), problem.CapRevoked)
	}
	if err := w.src.agent.sessions[0].takeRevocations(w.broker.signList(token.Revocation{Epoch: 6, Iat: time.Now().Unix(), Iss: w.broker.id}), time.Now()); problem.Of(err) != problem.CapStale {
		t.Errorf("an old list after the restart: got %v, want %s", err, problem.CapStale)
	}
}

// TestKilledBeforeItCouldAct: the list was durable, and the batches had not been ended.
func TestKilledBeforeItCouldAct(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dead := make(chan struct{})
	w.dst.at(4, func() { w.dst.kill(); close(dead) })
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, mixed(w)...)
	w.give(s)
	<-dead
	w.broker.setDown(true)
	payload, err := token.Revocation{Epoch: 1, Iat: time.Now().Unix(), Iss: w.broker.id, Revoked: []token.Revoked{entry(s.order.ID, token.ByWithdrawal)}}.Payload()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := disk.Open(w.dst.state + "/keys")
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Close()
	if err := writeFile(keys, revokedFile(w.broker.id), append([]byte(w.broker.signer.KeyID()+"\n"), payload...)); err != nil {
		t.Fatal(err)
	}
	w.dst.conf.hooks.moved = func(string, int, int64) bool { t.Error("a chunk was taken under a revoked capability"); return true }
	w.dst.start()
	poll(t, "the receipt to be signed", func() bool {
		bs := w.dst.agent.of("")
		return len(bs) == 1 && bs[0].isSigned()
	})
	w.broker.setDown(false)
	if dst := w.broker.receipt(token.Destination, s.ref()); dst.outs[0].Outcome != token.Untried {
		t.Errorf("got %+v, want the large item untried", dst.outs[0])
	}
	w.checkNoStages()
}

// TestRestingBatchesAreBounded: batches that wait without a good capability do not keep others from their slots, and are not without end.
func TestRestingBatchesAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	broker, refused := w.src.agent.sessions[0], 0
	var paused []token.Revoked
	for i := range maxResting + 2 {
		s := w.spec(w.order(), 1, w.random(token.ObjectName(fmt.Sprintf("in/%d", i)), 10))
		serve, _ := w.tasks(s)
		w.broker.give(w.src.port, serve)
		poll(t, "the task to be taken or refused", func() bool {
			w.broker.mu.Lock()
			p, no := w.broker.refusals[serve.ID]
			w.broker.mu.Unlock()
			if no && p.Code != problem.Overloaded {
				t.Fatalf("got %+v, want %s", p, problem.Overloaded)
			}
			return no || w.src.agent.holds(s.order.ID)
		})
		if !w.src.agent.holds(s.order.ID) {
			refused++
			continue
		}
		paused = append(paused, entry(s.order.ID, token.ByPause))
		w.broker.revoke(int64(i+1), paused...)
		poll(t, "the pause", func() bool { return broker.revoked(s.order.ID) != nil })
	}
	if refused != 2 {
		t.Errorf("got %d tasks refused, want the two beyond %d", refused, maxResting)
	}
}

func (a *Agent) holds(xfr token.TransferID) bool {
	for _, b := range a.of("") {
		if b.key.xfr == xfr {
			return true
		}
	}
	return false
}

// TestPollWithoutAStream: a broker whose task stream does not come about is asked all the same.
func TestPollWithoutAStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.conf.hooks.broker = func(Broker) control { return noStream{w.src.port} }
	w.src.start()
	id := newID(t)
	w.broker.revoke(3, entry(id, token.ByCancel))
	poll(t, "the list to be fetched", func() bool { return w.src.agent.sessions[0].revoked(id) != nil })
}

// noStream is a broker whose task stream does not come about.
type noStream struct{ *port }

func (noStream) Hello(context.Context, api.Hello) (api.Welcome, error) {
	return api.Welcome{}, problem.New(problem.Unavailable, "As the test says")
}

// TestEpochOfAStolenKey: who had the broker's key for a moment signs a list of an epoch that the broker never reaches, so that agents would take
// no list of the broker any more. They do once the broker has replaced the key; and a list from before is not taken again.
func TestEpochOfAStolenKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	one, two := newID(t), newID(t)
	ours := func() *session { return w.src.agent.sessions[0] }
	evil := w.broker.signList(token.Revocation{Epoch: 1 << 52, Iat: time.Now().Unix(), Iss: w.broker.id})
	w.broker.publish(evil)
	poll(t, "the list of the thief", func() bool { return ours().epoch() == 1<<52 })
	wantCode(t, "a list of the broker", ours().takeRevocations(w.broker.signList(token.Revocation{Epoch: 7, Iat: time.Now().Unix(), Iss: w.broker.id}), time.Now()), problem.CapStale)
	w.src.stop() // what was seen is kept
	w.src.start()
	wantCode(t, "a list of the broker after a restart", ours().takeRevocations(w.broker.signList(token.Revocation{Epoch: 8, Iat: time.Now().Unix(), Iss: w.broker.id}), time.Now()), problem.CapStale)

	w.broker.replaceKey()
	w.broker.revoke(9, entry(one, token.ByCancel))
	poll(t, "the list under the new key", func() bool { return ours().reason(one) == token.ByCancel })
	wantCode(t, "the list of the thief again", ours().takeRevocations(evil, time.Now()), problem.UnknownKey)
	older := w.broker.signList(token.Revocation{Epoch: 8, Iat: time.Now().Unix(), Iss: w.broker.id, Revoked: []token.Revoked{entry(two, token.ByCancel)}})
	wantCode(t, "an older list under the new key", ours().takeRevocations(older, time.Now()), problem.CapStale)
	w.src.stop()
	w.src.start()
	if ours().reason(one) != token.ByCancel {
		t.Error("the list is forgotten after a restart")
	}
	wantCode(t, "an older list after a restart", ours().takeRevocations(older, time.Now()), problem.CapStale)
}
