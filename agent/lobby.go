package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	helloTime    = 5 * time.Second  // that a new lane has to present its first capability
	arrivalTime  = 10 * time.Second // that a hello waits for its serve task
	maxPerCaller = 64               // lanes of one identity
	maxBadHellos = 16               // refused hellos of one lane before it is closed
	maxGreetings = 256              // batches of one lane
	maxServing   = 64               // wants of one identity that are answered at once, a buffer each
	maxServed    = 256              // wants of all of them
)

// acceptLanes serves every lane that a peer makes until ctx ends.
func (a *Agent) acceptLanes(ctx context.Context) {
	var lanes sync.WaitGroup
	defer lanes.Wait()
	pause := a.backoff(10*time.Millisecond, time.Second)
	for ctx.Err() == nil {
		lane, err := a.endpoint.Accept(ctx)
		if err != nil {
			if ctx.Err() == nil {
				a.log.Warn("accepting lanes", zap.Error(err))
				_ = a.sleep(ctx, pause.NextBackOff()) // the loop looks at ctx
			}
			continue
		}
		pause.Reset()
		lanes.Go(func() { a.serveLane(ctx, lane) })
	}
}

// A caller is a lane that a peer made, and what was admitted on it.
type caller struct {
	a     *Agent
	lane  link.Lane
	peer  certs.Peer
	guest *guest
	log   *zap.Logger

	mu      sync.Mutex                // guards all below
	granted map[wire.Batch]*admission // by the newest hello
	bad     int
}

// An admission is a capability that was presented on a lane and found good.
type admission struct {
	key batchKey
	gen int64
	exp time.Time
	kid string // of the key that signed it
}

// A guest is an identity that has made lanes.
type guest struct {
	lanes   int           // guarded by Agent.mu
	serving chan struct{} // a place for each of its wants that is being answered
}

func (a *Agent) serveLane(ctx context.Context, lane link.Lane) {
	var g *guest
	own := a.conf.Pair.NotAfter()
	peer, err := certs.PeerOf(lane.TLS(), a.conf.Trust, time.Now())
	if err == nil {
		g, err = a.callIn(peer.Identity)
	}
	if err != nil {
		a.metrics.refusals.WithLabelValues(string(problem.Of(err))).Inc()
		a.log.Warn("lane refused", zap.String("code", string(problem.Of(err))), zap.Error(err))
		a.refusedDialler(lane.TLS().PeerCertificates, err)
		_ = lane.Close(problem.Of(err), problem.As(err).Sentence())
		return
	}
	defer a.callOut(peer.Identity)
	a.guard(lane, peer, own)
	a.metrics.lanes.Inc()
	a.metrics.opened.WithLabelValues("in").Inc()
	defer a.metrics.lanes.Dec()
	c := &caller{a: a, lane: lane, peer: peer, guest: g, log: a.log.With(zap.String("peer", string(peer.Identity))), granted: map[wire.Batch]*admission{}}
	first := time.AfterFunc(helloTime+arrivalTime, func() {
		c.mu.Lock()
		none := len(c.granted) == 0
		c.mu.Unlock()
		if none {
			_ = lane.Close(problem.Timeout, "No capability was presented in time")
		}
	})
	defer first.Stop()
	var streams sync.WaitGroup
	for {
		st, err := lane.Accept(ctx)
		if err != nil {
			c.hungUp(err)
			break
		}
		streams.Go(func() { c.answer(ctx, st) })
	}
	streams.Wait()
	_ = lane.Close(problem.Draining, "The agent is stopping")
}

// guard closes a lane when its peer is not to be believed any more, when one of the two certificates ends (own is the end of ours), and
// in any case after certs.MaxConnectionLife. Whoever still needs a lane makes a new one, and is told then if that is not possible.
func (a *Agent) guard(lane link.Lane, peer certs.Peer, own time.Time) {
	until := certs.Deadline(time.Now(), own, peer.NotAfter)
	a.guards.Go(func() { // ends with the lane; Close waits for it
		err := a.conf.Trust.Guard(lane.Done(), peer, until)
		if err == nil {
			return
		}
		a.log.Info("a lane is closed", zap.String("peer", string(peer.Identity)), zap.String("code", string(problem.Of(err))), zap.Error(err))
		_ = lane.Close(problem.Of(err), problem.As(err).Sentence()) // never fails
	})
}

// callIn counts a lane against its identity's bound.
func (a *Agent) callIn(id token.Identity) (*guest, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.callers[id]
	if g == nil {
		g = &guest{serving: make(chan struct{}, maxServing)}
		a.callers[id] = g
	}
	if g.lanes >= maxPerCaller {
		return nil, problem.New(problem.Overloaded, "The agent %s has %d lanes already", id, maxPerCaller)
	}
	g.lanes++
	return g, nil
}

func (a *Agent) callOut(id token.Identity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.callers[id].lanes--; a.callers[id].lanes == 0 {
		delete(a.callers, id)
	}
}

// answer takes one request and answers it.
func (c *caller) answer(ctx context.Context, st link.Stream) {
	defer context.AfterFunc(c.a.ioCtx, func() { st.Abandon(problem.Draining) })()
	if err := c.reply(ctx, st); err != nil {
		c.log.Debug("an answer did not arrive", zap.Error(err))
		st.Abandon(problem.Cancelled) // not after a whole answer, whose last bytes are still on their way
	}
}

// reply reads a request and writes the answer to it, or the refusal.
func (c *caller) reply(ctx context.Context, st link.Stream) error {
	if err := st.SetDeadline(time.Now().Add(helloTime)); err != nil {
		return err
	}
	req, err := wire.ReadRequest(st)
	if err != nil {
		c.misbehaves(err)
		return err
	}
	if err := st.SetDeadline(time.Now().Add(arrivalTime + answerTime)); err != nil {
		return err
	}
	out := &outlet{st: st}
	if hello, ok := req.(wire.Hello); ok {
		err = c.hello(ctx, out, hello)
	} else {
		err = c.request(ctx, out, req)
	}
	if err != nil && !out.broken {
		c.log.Debug("request refused", zap.String("request", req.Kind().String()), zap.Error(err))
		at := batchOf(req)
		c.report(at.Xfr, at.Bat, api.AtWant, err)
		err = out.send(wire.Refuse(err))
	}
	if err != nil {
		return err
	}
	return st.CloseWrite()
}

// misbehaves closes the lane of a peer that does not keep to the protocol.
func (c *caller) misbehaves(err error) {
	if problem.Of(err) == problem.PeerMisbehaved {
		c.log.Warn("the peer broke the protocol", zap.Error(err))
		_ = c.lane.Close(problem.PeerMisbehaved, problem.As(err).Sentence())
	}
}

// hello judges a capability. What is refused is logged: somebody tried a door.
func (c *caller) hello(ctx context.Context, out *outlet, h wire.Hello) error {
	w, err := c.admit(ctx, h)
	if err == nil {
		return out.send(w)
	}
	c.a.metrics.refusals.WithLabelValues(string(problem.Of(err))).Inc()
	c.log.Warn("capability refused", zap.String("xfr", string(h.Xfr)), zap.Int64("bat", h.Bat), zap.String("code", string(problem.Of(err))), zap.Error(err))
	c.report(h.Xfr, h.Bat, api.AtHello, err)
	c.mu.Lock()
	c.bad++
	bad := c.bad
	c.mu.Unlock()
	if sent := out.send(wire.Refuse(err)); sent != nil {
		return sent
	}
	if bad >= maxBadHellos {
		_ = c.lane.Close(problem.Overloaded, "Too many capabilities were refused")
	}
	return nil
}

// admit applies every rule to a presented capability.
func (c *caller) admit(ctx context.Context, h wire.Hello) (wire.Welcome, error) {
	v, err := c.verify(h.Capability)
	if err != nil {
		return wire.Welcome{}, err
	}
	adm := token.Admission{Now: time.Now(), Self: c.a.self, Peer: c.peer.Identity, Leaf: c.peer.Leaf, Do: token.Read, Ord: h.Ord, Man: h.Man}
	if err := v.Claims.Admit(adm); err != nil {
		return wire.Welcome{}, err
	}
	if v.Claims.Xfr != h.Xfr || v.Claims.Bat != h.Bat {
		return wire.Welcome{}, problem.New(problem.WrongStatement, "The capability is of another batch")
	}
	if err := c.a.session(v.Claims.Iss).revoked(h.Xfr); err != nil {
		return wire.Welcome{}, err
	}
	key := batchKey{iss: v.Claims.Iss, xfr: h.Xfr, bat: h.Bat, do: token.Read}
	s, err := c.a.awaitServer(ctx, key)
	if err != nil {
		return wire.Welcome{}, err
	}
	if err := s.accept(v, c.peer.Identity, adm.Now); err != nil {
		return wire.Welcome{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.granted) >= maxGreetings {
		clear(c.granted)
	}
	c.granted[h.Batch] = &admission{key: key, gen: v.Claims.Gen, exp: time.Unix(v.Claims.Exp, 0), kid: v.KeyID}
	return wire.Welcome{Version: wire.Version, Want: wire.MaxWant, Software: "consign/" + clip(c.a.conf.Version, 48)}, nil
}

// verify tries the keys of each broker that we listen to.
func (c *caller) verify(tok string) (token.Verified[token.Capability], error) {
	err := problem.New(problem.UnknownKey, "The capability is signed by no broker that this agent listens to")
	for _, s := range c.a.sessions {
		v, bad := s.verifyCapability(tok, time.Now(), keysAtMost)
		if bad == nil {
			return v, nil
		}
		if code := problem.Of(bad); code != problem.UnknownKey && code != problem.UnknownBroker {
			return token.Verified[token.Capability]{}, bad
		}
		err = bad
	}
	return token.Verified[token.Capability]{}, err
}

// awaitServer returns the served batch, waiting a while for its task: the broker tells both agents at once.
func (a *Agent) awaitServer(ctx context.Context, key batchKey) (*server, error) {
	ctx, cancel := context.WithTimeout(ctx, a.quickly(arrivalTime))
	defer cancel()
	for {
		a.mu.Lock()
		s, b, arrived := a.servers[key], a.batches[key], a.arrived
		a.mu.Unlock()
		switch {
		case s != nil:
			return s, nil
		case b != nil && b.isSigned(), b == nil && a.spent.has(key):
			return nil, problem.New(problem.CapSpent, "Batch %d of transfer %s has ended", key.bat, key.xfr)
		}
		select {
		case <-ctx.Done():
			return nil, problem.New(problem.LeaseLost, "The source has no task to serve batch %d of transfer %s", key.bat, key.xfr)
		case <-arrived:
		}
	}
}

// batchOf returns the batch that a request is about.
func batchOf(req wire.Request) wire.Batch {
	switch q := req.(type) {
	case wire.Hello:
		return q.Batch
	case wire.WantChunks:
		return q.Batch
	case wire.WantRun:
		return q.Batch
	case wire.Seal:
		return q.Batch
	case wire.End:
		return q.Batch
	}
	return wire.Batch{}
}

// request answers what needs an admission.
func (c *caller) request(ctx context.Context, out *outlet, req wire.Request) error {
	at := batchOf(req)
	c.mu.Lock()
	adm := c.granted[at]
	c.mu.Unlock()
	if adm == nil {
		return problem.New(problem.CapNotYours, "No capability for this batch was presented on this lane")
	}
	c.a.mu.Lock()
	s, b := c.a.servers[adm.key], c.a.batches[adm.key]
	c.a.mu.Unlock()
	switch {
	case s == nil && b != nil && !b.isSigned():
		return problem.New(problem.Draining, "The batch is being opened again")
	case s == nil:
		return problem.New(problem.CapSpent, "The batch has ended")
	}
	if err := s.allows(adm, time.Now()); err != nil {
		return err
	}
	if _, ok := req.(wire.End); ok {
		return s.noteEnd(out) // which asks for nothing
	}
	if err := errors.Join(s.revoked(), s.s.holds(adm.kid)); err != nil {
		return err
	}
	leave, err := c.seat(ctx)
	if err != nil {
		return err
	}
	defer leave()
	switch q := req.(type) {
	case wire.WantChunks:
		return s.sendChunks(ctx, out, q)
	case wire.WantRun:
		return s.sendRun(ctx, out, q)
	case wire.Seal:
		return s.sendSeal(ctx, out, q)
	}
	return problem.New(problem.Malformed, "A request of this kind is not known")
}

// seat waits for a place among the wants that are answered, each of which holds a buffer for as long as the peer takes to read. First
// among those of its identity, so that nobody who does not read keeps others waiting.
func (c *caller) seat(ctx context.Context) (leave func(), err error) {
	late := time.NewTimer(c.a.quickly(arrivalTime))
	defer late.Stop()
	full := problem.New(problem.Overloaded, "The source answers as many wants as it can")
	for i, places := range []chan struct{}{c.guest.serving, c.a.served} {
		select {
		case places <- struct{}{}:
			continue
		case <-late.C:
			err = full
		case <-c.lane.Done():
			err = full
		case <-ctx.Done():
			err = problem.New(problem.Draining, "The agent is stopping")
		}
		if i > 0 {
			<-c.guest.serving
		}
		return nil, err
	}
	return func() { <-c.a.served; <-c.guest.serving }, nil
}

// An outlet writes an answer. Every frame has its own time to be taken.
type outlet struct {
	st     link.Stream
	broken bool // a write failed: nothing more can be said
	buf    []byte
}

// send writes one frame.
func (o *outlet) send(f wire.Frame) error {
	frame, err := wire.Append(o.buf[:0], f)
	if err != nil {
		return problem.Wrap(err, problem.Internal, "The answer could not be encoded")
	}
	o.buf = frame
	return o.write(frame)
}

func (o *outlet) write(p []byte) error {
	err := o.st.SetDeadline(time.Now().Add(answerTime))
	if err == nil {
		_, err = o.st.Write(p)
	}
	if err != nil {
		o.broken = true
		return errors.Join(errBroken, err)
	}
	return nil
}

// errBroken marks a failure to write an answer, as against one to make it.
var errBroken = errors.New("the answer broke off")
