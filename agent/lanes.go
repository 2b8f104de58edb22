package agent

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/cenkalti/backoff/v4"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	laneLinger  = 30 * time.Second // that lanes stay open when no batch uses them
	unreachMin  = time.Second
	unreachMax  = 30 * time.Second
	answerTime  = 30 * time.Second // that the peer may take for a frame, or for progressBytes of one
	answerTicks = 30               // into which answerTime is divided to see progress
	progressMin = 1 << 10          // bytes within answerTime, below which a stream is abandoned
	sealRate    = 10 << 20         // bytes a second that a source is expected to read at least when it seals
	maxAddrs    = 16               // addresses of a peer that are tried
)

// A pool is the lanes to one peer, shared by every batch that receives from it.
type pool struct {
	a    *Agent
	peer token.Identity

	slots []*slot

	mu    sync.Mutex // guards all below
	users int
	idle  time.Time // since when there are no users
}

// A slot is the place of one lane: empty, or with a lane that is up.
type slot struct {
	pool *pool

	mu      sync.Mutex // held while a lane is dialled and greeted, so that one goroutine does it
	lane    link.Lane
	leaf    token.Hash         // of our certificate on lane
	greeted map[batchKey]int64 // the generation that was presented on lane
	want    int                // chunks that the peer gives at once
	pause   backoff.BackOff
	until   time.Time // no dialling before
	why     error     // of the last failure to dial
}

// lanesTo returns the pool to a peer, for one user more.
func (a *Agent) lanesTo(peer token.Identity) *pool {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pools[peer]
	if p == nil {
		p = &pool{a: a, peer: peer}
		for range a.conf.Lanes {
			p.slots = append(p.slots, &slot{pool: p, pause: a.backoff(unreachMin, unreachMax)})
		}
		a.pools[peer] = p
	}
	p.mu.Lock()
	p.users++
	p.mu.Unlock()
	return p
}

// leave gives the pool back. Its lanes stay open for a while.
func (p *pool) leave(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users--
	p.idle = now
}

// closeIdle closes the pools that nobody has used for a while.
func (a *Agent) closeIdle(now time.Time) {
	a.mu.Lock()
	var idle []*pool
	for id, p := range a.pools {
		p.mu.Lock()
		if p.users == 0 && now.Sub(p.idle) > laneLinger {
			idle = append(idle, p)
			delete(a.pools, id)
		}
		p.mu.Unlock()
	}
	a.mu.Unlock()
	for _, p := range idle {
		p.close()
	}
}

func (p *pool) close() {
	for _, s := range p.slots {
		s.mu.Lock()
		s.hangUp()
		s.mu.Unlock()
	}
}

// hangUp empties the slot. The caller holds mu.
func (s *slot) hangUp() {
	if s.lane == nil {
		return
	}
	_ = s.lane.Close("", "") // never fails
	s.lane = nil
	s.pool.a.metrics.lanes.Dec()
}

// open returns a stream on the slot's lane, dialling it if it is down and presenting the batch's
// newest capability if that was not done on it yet. While the peer cannot be reached it fails at once, until the
// time of its next try.
func (s *slot) open(ctx context.Context, b *batch) (link.Stream, int, error) {
	lane, want, err := s.ready(ctx, b)
	if err != nil {
		return nil, 0, err
	}
	st, err := lane.Open(ctx)
	if err != nil {
		return nil, 0, err
	}
	return st, want, nil
}

func (s *slot) ready(ctx context.Context, b *batch) (link.Lane, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := b.s.revoked(b.key.xfr); err != nil {
		return nil, 0, err
	}
	if err := s.pool.a.conf.Trust.Denied(b.will.Accounts...); err != nil {
		return nil, 0, err
	}
	g, peer := b.current()
	if err := b.s.holds(g.Key); err != nil {
		b.renewSoon()
		return nil, 0, err
	}
	if time.Now().Unix() >= g.Claims.Exp {
		b.renewSoon()
		return nil, 0, problem.New(problem.CapExpired, "The capability has ended and is not renewed yet")
	}
	// A capability is bound to the certificate of its renewal. An older lane serves older capabilities on.
	if s.lane != nil && (s.lane.Err() != nil || s.leaf != g.Claims.Cnf && g.Claims.Cnf == s.pool.a.conf.Pair.LeafHash()) {
		s.hangUp()
	}
	if s.lane == nil {
		if wait := time.Until(s.until); wait > 0 && s.why != nil {
			if err := s.pool.a.sleep(ctx, wait); err != nil {
				return nil, 0, err
			}
		}
		leaf := s.pool.a.conf.Pair.LeafHash()
		lane, err := s.dial(ctx, peer.Listen)
		if err != nil {
			b.report(api.BySelf, api.AtLane, err)
			return nil, 0, s.failed(ctx, err)
		}
		s.lane, s.leaf, s.greeted = lane, leaf, map[batchKey]int64{}
		s.pool.a.metrics.lanes.Inc()
		s.pool.a.metrics.opened.WithLabelValues("out").Inc()
	}
	if s.leaf != g.Claims.Cnf {
		b.renewSoon()
		return nil, 0, problem.New(problem.CapStale, "The capability is bound to an earlier certificate and is not renewed yet")
	}
	if s.greeted[b.key] >= g.Claims.Gen {
		return s.lane, s.want, nil
	}
	if s.pool.a.conf.Pair.LeafHash() != s.leaf && s.greeted[b.key] == 0 && len(s.greeted) == 0 {
		s.hangUp() // our certificate was renewed while the lane was dialled: which one it carries is not known
		return nil, 0, problem.New(problem.CapStale, "Our certificate has just been renewed")
	}
	w, err := s.greet(ctx, b, g)
	if err != nil {
		if s.lane.Err() != nil {
			err = s.lane.Err()
			if len(s.greeted) == 0 && link.ByPeer(err) {
				b.report(api.ByPeer, api.AtLane, err)
			}
			s.hangUp()
			return nil, 0, s.failed(ctx, err)
		}
		b.report(api.ByPeer, api.AtHello, err)
		return nil, 0, err
	}
	s.why = nil
	s.pause.Reset()
	s.greeted[b.key], s.want = g.Claims.Gen, w.Want
	return s.lane, s.want, nil
}

// failed remembers that the peer is not reached. The caller holds mu.
func (s *slot) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.why = err
	s.until = time.Now().Add(s.pause.NextBackOff())
	return err
}

// dial tries each address of the peer once, of the first maxAddrs.
func (s *slot) dial(ctx context.Context, addrs []string) (link.Lane, error) {
	a := s.pool.a
	if err := a.conf.Pair.Preflight(time.Now()); err != nil {
		return nil, err
	}
	own := a.conf.Pair.NotAfter()
	err := problem.New(problem.NoListener, "The agent %s cannot be dialled", s.pool.peer)
	for _, addr := range addrs[:min(len(addrs), maxAddrs)] {
		var lane link.Lane
		if lane, err = a.endpoint.Dial(ctx, addr, certs.PeerClient(a.conf.Pair, a.conf.Trust, wire.ALPN, s.pool.peer)); err != nil {
			continue
		}
		p, bad := certs.PeerOf(lane.TLS(), a.conf.Trust, time.Now())
		if bad == nil && p.Identity != s.pool.peer {
			bad = problem.New(problem.CertMismatch, "The peer is %s, not %s", p.Identity, s.pool.peer)
		}
		if bad != nil {
			_ = lane.Close(problem.Of(bad), problem.As(bad).Sentence())
			err = bad
			continue
		}
		a.guard(lane, p, own)
		return lane, nil
	}
	return nil, err
}

// greet presents the capability.
func (s *slot) greet(ctx context.Context, b *batch, g grant) (wire.Welcome, error) {
	st, err := s.lane.Open(ctx)
	if err != nil {
		return wire.Welcome{}, err
	}
	hello := wire.Hello{Batch: b.wire(), Version: wire.Version, Lanes: len(s.pool.slots), Man: b.hash, Ord: b.will.ord, Capability: g.Present}
	defer context.AfterFunc(ctx, func() { st.Abandon(problem.Cancelled) })()
	defer st.Abandon(problem.Cancelled)
	if err := ask(st, hello, s.pool.a.patience()); err != nil {
		return wire.Welcome{}, err
	}
	return wire.ReadWelcome(st)
}

func (b *batch) wire() wire.Batch { return wire.Batch{Xfr: b.key.xfr, Bat: b.key.bat} }

// ask writes a request and gives the peer a time to answer.
func ask(st link.Stream, req wire.Request, within time.Duration) error {
	frame, err := wire.Append(nil, req)
	if err != nil {
		return err
	}
	if err := st.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := st.Write(frame); err != nil {
		return err
	}
	return st.CloseWrite()
}

// A watched stream fails with problem.Timeout if less than progressMin bytes come within the time given.
type watched struct {
	st     link.Stream
	within time.Duration
	since  time.Time
	moved  int
}

// Read is io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.st.Read(p)
	w.moved += n
	if w.moved < progressMin {
		return n, err
	}
	if now := time.Now(); now.Sub(w.since) > w.within/answerTicks {
		w.since, w.moved = now, 0
		if bad := w.st.SetDeadline(now.Add(w.within)); bad != nil && err == nil {
			err = bad
		}
	}
	return n, err
}

// rested begins the time anew after the reader has been busy elsewhere, which is not the peer's fault.
func (w *watched) rested() {
	if now := time.Now(); now.Sub(w.since) > w.within/answerTicks {
		w.since, w.moved = now, 0
		_ = w.st.SetDeadline(now.Add(w.within)) // a stream that is gone says so when it is read
	}
}

// buffer takes a buffer for one chunk with its frame, making one if there are fewer than the bound.
func (a *Agent) buffer() []byte {
	select {
	case b := <-a.buffers:
		return b
	default:
		return make([]byte, wire.ChunkHeadSize+chunk.Size+chunk.Slack)
	}
}

// release gives a buffer back.
func (a *Agent) release(b []byte) {
	select {
	case a.buffers <- b:
	default:
	}
}

// newLimiter returns what lets that many bytes a second pass; nil lets all pass.
func newLimiter(bytes int64) *rate.Limiter {
	if bytes <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(bytes), max(chunk.Size, int(min(bytes, 16*chunk.Size))))
}

// limit gives b what paces it: the rate of its order, shared by all batches of the transfer on our side of it, and that of its task. It is called
// with a.mu held, before b is among the batches.
func (a *Agent) limit(b *batch) {
	b.limiter = newLimiter(b.will.Limits.Rate)
	for _, other := range a.siblings(b) {
		b.limiter = other.limiter
	}
	a.ceil(b, b.rate)
}

// siblings are the other batches of the transfer on our side of it. a.mu is held.
func (a *Agent) siblings(b *batch) (bs []*batch) {
	for k, other := range a.batches {
		if other != b && k.iss == b.key.iss && k.xfr == b.key.xfr && k.do == b.key.do {
			bs = append(bs, other)
		}
	}
	return bs
}

// ceil makes the task of b allow so many bytes a second, shared by those of its siblings whose tasks allow the same. a.mu is held.
func (a *Agent) ceil(b *batch, bytes int64) {
	l := newLimiter(bytes)
	for _, other := range a.siblings(b) {
		other.mu.Lock()
		if other.rate == bytes {
			l = other.ceiling
		}
		other.mu.Unlock()
	}
	b.mu.Lock()
	b.rate, b.ceiling = bytes, l
	b.mu.Unlock()
}

// throttle is ceil for a task that came again with another rate. It binds at once; an error says only that a restart may not know of it.
func (b *batch) throttle(bytes int64) error {
	b.mu.Lock()
	same := b.rate == bytes
	b.mu.Unlock()
	if same {
		return nil
	}
	b.a.mu.Lock()
	b.a.ceil(b, bytes)
	b.a.mu.Unlock()
	return b.record(journal.Record{Kind: recRate, Data: binary.BigEndian.AppendUint64(nil, uint64(bytes))})
}

// limiters pace b by its order and its task; nil is no limit.
func (b *batch) limiters() [2]*rate.Limiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	return [...]*rate.Limiter{b.limiter, b.ceiling}
}

// most is how many bytes are asked for at once, of so many: no more than a slow rate lets pass at once, or the source, which paces them by the
// same rate, would send some and turn away the rest.
func (b *batch) most(bytes int64) int64 {
	for _, l := range b.limiters() {
		if l != nil {
			bytes = min(bytes, int64(l.Burst()))
		}
	}
	return bytes
}
