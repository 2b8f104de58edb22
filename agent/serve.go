package agent

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	allowStep    = 64 << 20 // bytes by which the allowance of a large batch is written down ahead
	allowPieces  = 16       // into how many steps a capability's budget is divided at least
	minAllowStep = 1 << 20
)

// An offer is one item of a batch as its server sees it.
type offer struct {
	tree   *chunk.Tree  // large; the values of what was read
	sent   token.Digest // served whole at the pinned version, and written down
	native string       // the store's own digest of it, or empty
	lost   []string     // attributes of it that cannot travel
	fault  error        // why it was not served, the last time it was asked for
}

// A server is the source's side of a batch. Requests come from lanes; work waits for the end.
type server struct {
	*batch

	smu     sync.Mutex // guards all below
	offers  []offer
	readers []openReader // most recently used last
	allowed int64        // bytes that count as served after a crash
	used    int64        // bytes served, and asked for but not served yet
	served  int64        // bytes of content that went out
	newest  int64        // generation
	ended   chan struct{}
	over    bool
	fatal   error
	failed  chan struct{} // closed with fatal
}

// An openReader is a pinned object that is kept open.
type openReader struct {
	item  int
	r     store.Reader
	users int
}

func newServer(b *batch) *server {
	s := &server{batch: b, offers: make([]offer, len(b.man.Items)), ended: make(chan struct{}), failed: make(chan struct{}), newest: b.grant.Claims.Gen}
	for i, it := range b.man.Items {
		if it.Size > chunk.Size {
			s.offers[i].tree = chunk.NewTree(it.Size)
		}
	}
	return s
}

// replay is side.replay.
func (s *server) replay(rec journal.Record) error {
	switch rec.Kind {
	case recBoot:
	case recEnd:
		if !s.over {
			s.over = true
			close(s.ended)
		}
	case recChunk:
		i, index, v, err := parseChunk(rec.Data, len(s.offers))
		if err != nil {
			return err
		}
		_, n := chunk.Span(s.man.Items[i].Size, index)
		s.served += n
		if t := s.offers[i].tree; t != nil && !t.Has(index) {
			return t.Add(index, v)
		}
	case recSent:
		if len(rec.Data) < 2 || int(binary.BigEndian.Uint16(rec.Data)) >= len(s.offers) {
			return fmt.Errorf("decoding a served item: %w", journal.ErrCorrupt)
		}
		text := strings.Split(string(rec.Data[2:]), "\n")
		if len(text) < 2 {
			return fmt.Errorf("decoding a served item: %w", journal.ErrCorrupt)
		}
		i := int(binary.BigEndian.Uint16(rec.Data))
		if s.offers[i].tree == nil {
			s.served += s.man.Items[i].Size
		}
		s.note(i, token.Digest(text[0]), text[1], text[2:])
	case recAllow:
		if len(rec.Data) != 8 {
			return fmt.Errorf("decoding an allowance: %w", journal.ErrCorrupt)
		}
		s.allowed = int64(binary.BigEndian.Uint64(rec.Data))
		s.used = s.allowed // what was not yet used of it counts as spent
	default:
		return fmt.Errorf("record of kind %d: %w", rec.Kind, journal.ErrCorrupt)
	}
	return nil
}

// note remembers that an item was served whole. The caller holds smu, or is alone.
func (s *server) note(i int, d token.Digest, native string, lost []string) {
	if s.offers[i].sent == "" {
		s.batch.mu.Lock()
		s.items++
		s.bytes += s.man.Items[i].Size
		s.batch.mu.Unlock()
	}
	s.offers[i].sent, s.offers[i].native, s.offers[i].lost, s.offers[i].fault = d, native, lost, nil
}

// work is side.work: the batch can be served until the destination says that it has ended, or the broker does.
func (s *server) work(ctx context.Context) error {
	s.a.openServer(s)
	defer s.a.closeServer(s)
	defer s.closeReaders()
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ended:
			return nil
		case <-s.failed:
			return s.why()
		case <-tick.C:
			if err := s.commit(); err != nil {
				return fmt.Errorf("keeping the journal: %w", diskProblem(err))
			}
		}
	}
}

// why returns what made the server fail.
func (s *server) why() error {
	s.smu.Lock()
	defer s.smu.Unlock()
	return s.fatal
}

func (a *Agent) openServer(s *server) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.servers[s.key] = s
	close(a.arrived)
	a.arrived = make(chan struct{})
}

func (a *Agent) closeServer(s *server) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.servers, s.key)
}

// stop ends this run over the batch: it is opened again from the journal.
func (s *server) stop(err error) error {
	err = problem.Wrap(diskProblem(err), problem.Draining, "The source cannot write its journal at the moment")
	s.smu.Lock()
	defer s.smu.Unlock()
	if s.fatal == nil {
		s.fatal = err
		close(s.failed)
	}
	return err
}

// accept takes a capability that was presented and verified: it is of this batch, order and manifest, for this peer, and one of the two
// newest generations. No capability outlives its order.
func (s *server) accept(v token.Verified[token.Capability], peer token.Identity, now time.Time) error {
	cur, with := s.current()
	switch c := v.Claims; {
	case with.ID != peer || c.Peer != with.ID:
		return problem.New(problem.ForeignPeer, "The batch is served to %s alone", with.ID)
	case c.Ord != s.will.ord:
		return problem.New(problem.WrongStatement, "The capability belongs to another order")
	case s.will.checkAuthority(c) != nil:
		return s.will.checkAuthority(c)
	case s.a.mayAct(s.will.Order, now) != nil:
		return s.a.mayAct(s.will.Order, now)
	case c.Man != s.hash:
		return problem.New(problem.CapManifest, "The capability is for another manifest")
	case c.Gen <= cur.Claims.Gen-token.RecentGenerations:
		return problem.New(problem.CapStale, "Generation %d is in use, and %d was presented", cur.Claims.Gen, c.Gen)
	case c.Gen > cur.Claims.Gen:
		switch err := s.renewed(grant{Claims: c, Hash: v.Hash, Key: v.KeyID}); problem.Of(err) {
		case "", problem.CapStale: // the broker, or another lane, brought it a moment ago
		case problem.Overloaded:
			return err
		default:
			return s.stop(err)
		}
	}
	return nil
}

// allows reports whether an admission still opens the batch: at every want, not only at hello.
func (s *server) allows(adm *admission, now time.Time) error {
	cur, _ := s.current()
	switch {
	case !now.Before(adm.exp):
		return problem.New(problem.CapExpired, "The capability ended at %s", adm.exp.UTC().Format(time.RFC3339))
	case adm.gen <= cur.Claims.Gen-token.RecentGenerations:
		return problem.New(problem.CapStale, "Generation %d is in use, and %d was presented", cur.Claims.Gen, adm.gen)
	}
	return s.a.mayAct(s.will.Order, now)
}

// revoked returns problem.CapRevoked once the broker has taken the capabilities of the batch back: also in the middle of an answer.
func (s *server) revoked() error { return s.s.revoked(s.key.xfr) }

// charge takes n bytes from the capability's budget before any of them is read. What is taken ahead is written down
// first, so that a crash counts it as spent.
func (s *server) charge(n int64) error {
	cur, _ := s.current()
	limit := cur.Claims.Max
	s.smu.Lock()
	defer s.smu.Unlock()
	if s.used+n > limit {
		return problem.New(problem.CapOverBudget, "The capability allows %d bytes, of which %d are left", limit, max(0, limit-s.used))
	}
	s.used += n
	if s.used <= s.allowed {
		return nil
	}
	step := max(minAllowStep, min(allowStep, limit/allowPieces))
	allowed := min(limit, s.used+step)
	if err := s.record(journal.Record{Kind: recAllow, Data: binary.BigEndian.AppendUint64(nil, uint64(allowed))}); err != nil {
		s.used -= n
		return problem.Wrap(diskProblem(err), problem.Draining, "The source cannot write its journal at the moment")
	}
	s.allowed = allowed
	return nil
}

// noteEnd ends the batch at the destination's word: nothing more will be asked for. It is durable before it is
// answered, since the destination does not say it again after that.
func (s *server) noteEnd(out *outlet) error {
	if err := s.record(journal.Record{Kind: recEnd}); err != nil {
		return s.stop(err)
	}
	if err := s.commit(); err != nil {
		return s.stop(err)
	}
	if err := out.send(wire.Ended{}); err != nil {
		return err
	}
	s.smu.Lock()
	defer s.smu.Unlock()
	if !s.over {
		s.over = true
		close(s.ended)
	}
	return nil
}

// outcomes is side.outcomes.
func (s *server) outcomes(rest error) ([]token.Outcome, error) {
	if rest == nil {
		rest = problem.New(problem.Untried, "The destination did not ask for it")
	}
	s.smu.Lock()
	defer s.smu.Unlock()
	outs := make([]token.Outcome, len(s.offers))
	kinds := map[token.Result]int{}
	var bytes int64
	for i, o := range s.offers {
		it := s.man.Items[i]
		switch {
		case o.sent != "":
			outs[i] = token.Outcome{Item: int64(i), Outcome: token.Sent, Size: it.Size, Digest: o.sent, Version: it.Version, Native: o.native, Lost: o.lost}
			bytes += it.Size
		case o.fault != nil:
			outs[i] = failed(i, it.Size, o.fault)
		default:
			outs[i] = failed(i, it.Size, rest)
			outs[i].Outcome = token.Untried
		}
		kinds[outs[i].Outcome]++
		s.a.metrics.items.WithLabelValues(string(outs[i].Outcome)).Inc()
	}
	s.log.Info("batch served", zap.Int("items", len(outs)), zap.Int64("bytes", bytes), zap.Int64("bytes_served", s.served),
		zap.Int64("bytes_again", max(0, s.served-bytes)), zap.Any("outcomes", kinds))
	return outs, nil
}

// settle is side.settle; the destination knows already.
func (s *server) settle(context.Context, token.Receipt) {}

// linger is side.linger; a source has nobody to tell.
func (s *server) linger(context.Context) {}

// clean is side.clean; a source keeps nothing elsewhere.
func (s *server) clean(context.Context) error { return nil }

// valueOf is the inverse of chunk.Value.Digest.
func valueOf(d token.Digest) (v chunk.Value, err error) {
	b, err := hex.DecodeString(strings.TrimPrefix(string(d), "blake3:"))
	if err != nil || len(b) != len(v) {
		return v, problem.Wrap(err, problem.Internal, "The digest is not BLAKE3")
	}
	return chunk.Value(b), nil
}
