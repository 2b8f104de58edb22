package agent

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
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
	maxReaders   = 16       // objects that a batch holds open
	allowStep    = 64 << 20 // bytes by which the allowance of a large batch is written down ahead
	allowPieces  = 16       // into how many steps a capability's budget is divided at least
	minAllowStep = 1 << 20
)

// An offer is one item of a batch as its server sees it.
type offer struct {
	tree  *chunk.Tree  // large; the values of what was read
	sent  token.Digest // served whole at the pinned version, and written down
	fault error        // why it was not served, the last time it was asked for
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
		i := int(binary.BigEndian.Uint16(rec.Data))
		if s.offers[i].tree == nil {
			s.served += s.man.Items[i].Size
		}
		s.note(i, token.Digest(rec.Data[2:]))
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
func (s *server) note(i int, d token.Digest) {
	if s.offers[i].sent == "" {
		s.batch.mu.Lock()
		s.items++
		s.bytes += s.man.Items[i].Size
		s.batch.mu.Unlock()
	}
	s.offers[i].sent, s.offers[i].fault = d, nil
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
	case s.will.CheckTime(now) != nil:
		return s.will.CheckTime(now)
	case c.Man != s.hash:
		return problem.New(problem.CapManifest, "The capability is for another manifest")
	case c.Gen <= cur.Claims.Gen-token.RecentGenerations:
		return problem.New(problem.CapStale, "Generation %d is in use, and %d was presented", cur.Claims.Gen, c.Gen)
	case c.Gen > cur.Claims.Gen:
		switch err := s.renewed(grant{Claims: c, Hash: v.Hash}); problem.Of(err) {
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
	return s.will.CheckTime(now)
}

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

// reader returns item i, pinned at its version, and what gives it back.
func (s *server) reader(ctx context.Context, i int) (store.Reader, func(), error) {
	s.smu.Lock()
	defer s.smu.Unlock()
	at := slices.IndexFunc(s.readers, func(o openReader) bool { return o.item == i })
	if at >= 0 {
		o := s.readers[at]
		o.users++
		s.readers = append(slices.Delete(s.readers, at, at+1), o)
		return o.r, func() { s.unread(i) }, nil
	}
	r, err := s.export.Store.Open(ctx, s.man.Items[i].Src, s.man.Items[i].Version)
	if err == nil && r.Info().Size != s.man.Items[i].Size {
		err = errors.Join(problem.New(problem.Changed, "The object has another size than was planned"), r.Close())
	}
	if err != nil {
		s.offers[i].fault = itemFault(err)
		return nil, nil, s.offers[i].fault
	}
	for n := 0; n < len(s.readers) && len(s.readers) >= maxReaders; {
		if s.readers[n].users > 0 {
			n++
			continue
		}
		s.closeReader(s.readers[n].r)
		s.readers = slices.Delete(s.readers, n, n+1)
	}
	s.readers = append(s.readers, openReader{item: i, r: r, users: 1})
	return r, func() { s.unread(i) }, nil
}

func (s *server) unread(i int) {
	s.smu.Lock()
	defer s.smu.Unlock()
	if at := slices.IndexFunc(s.readers, func(o openReader) bool { return o.item == i }); at >= 0 {
		s.readers[at].users--
	}
}

func (s *server) closeReader(r store.Reader) {
	if err := r.Close(); err != nil {
		s.log.Debug("closing an object", zap.Error(err))
	}
}

func (s *server) closeReaders() {
	s.smu.Lock()
	defer s.smu.Unlock()
	s.readers = slices.DeleteFunc(s.readers, func(o openReader) bool {
		if o.users == 0 {
			s.closeReader(o.r)
		}
		return o.users == 0
	})
}

// itemFault makes a failure of the source's store fit for the peer and the receipt.
func itemFault(err error) error {
	switch problem.Of(err) {
	case problem.Changed, problem.Missing, problem.Unreadable, problem.BadName, problem.Cancelled, problem.Timeout:
		return err
	}
	return problem.Wrap(err, problem.Unreadable, "The object cannot be read")
}

// spoil remembers why an item was not served.
func (s *server) spoil(i int, err error) error {
	err = itemFault(err)
	s.smu.Lock()
	defer s.smu.Unlock()
	s.offers[i].fault = err
	return err
}

// sendChunks answers a want of chunks. Each value is written down before its chunk goes out.
func (s *server) sendChunks(ctx context.Context, out *outlet, q wire.WantChunks) error {
	if q.Item >= len(s.offers) {
		return problem.New(problem.Malformed, "The manifest has no item %d", q.Item)
	}
	it := s.man.Items[q.Item]
	if q.First+int64(q.N) > chunk.Count(it.Size) {
		return problem.New(problem.Malformed, "Item %d has %d chunks", q.Item, chunk.Count(it.Size))
	}
	first, _ := chunk.Span(it.Size, q.First)
	last, n := chunk.Span(it.Size, q.First+int64(q.N)-1)
	if err := s.charge(last + n - first); err != nil {
		return err
	}
	r, done, err := s.reader(ctx, q.Item)
	if err != nil {
		return err
	}
	defer done()
	buf := s.a.buffer()
	defer s.a.release(buf)
	for index := q.First; index < q.First+int64(q.N); index++ {
		if ctx.Err() != nil {
			return problem.New(problem.Draining, "The agent is stopping")
		}
		off, n := chunk.Span(it.Size, index)
		data := buf[wire.ChunkHeadSize:][:n]
		if err := readAt(r, data, off); err != nil {
			return s.spoil(q.Item, err)
		}
		v := chunk.Of(data, index, it.Size)
		if err := s.addValue(q.Item, index, v); err != nil {
			return err
		}
		if err := out.write(wire.PutChunk(buf, index, int(n), v)); err != nil {
			return err
		}
		s.a.metrics.bytes.WithLabelValues("out").Add(float64(n))
	}
	return out.send(wire.Done{})
}

// addValue journals and keeps the value of a chunk. One that differs from what was served before means that the
// object has changed.
func (s *server) addValue(i int, index int64, v chunk.Value) error {
	o := &s.offers[i]
	s.smu.Lock()
	known := o.tree != nil && o.tree.Has(index) // and so is its record: asking again costs no disk
	s.smu.Unlock()
	if !known {
		if err := s.record(chunkRecord(i, index, v)); err != nil {
			return s.stop(err)
		}
	}
	_, n := chunk.Span(s.man.Items[i].Size, index)
	s.smu.Lock()
	defer s.smu.Unlock()
	s.served += n
	if o.tree == nil {
		return nil
	}
	if err := o.tree.Add(index, v); errors.Is(err, chunk.ErrDiffers) {
		o.fault = problem.New(problem.Changed, "The object does not read the same twice")
		return o.fault
	}
	return nil
}

// sendRun answers a want of small items. That they were served is durable before the run ends, so that a
// destination which keeps them can rely on the source's receipt.
func (s *server) sendRun(ctx context.Context, out *outlet, q wire.WantRun) error {
	var total int64
	for _, i := range q.Items {
		if i >= len(s.offers) || s.man.Items[i].Size > wire.MaxSmall {
			return problem.New(problem.Malformed, "Item %d is not one that is served in a run", i)
		}
		total += s.man.Items[i].Size
	}
	if err := s.charge(total); err != nil {
		return err
	}
	buf := s.a.buffer()
	defer s.a.release(buf)
	frame := make([]byte, 0, 1024)
	for _, i := range q.Items {
		if ctx.Err() != nil {
			return problem.New(problem.Draining, "The agent is stopping")
		}
		var err error
		if frame, err = s.sendSmall(ctx, out, frame[:0], buf, i); err != nil {
			return err
		}
	}
	if err := s.commit(); err != nil {
		return s.stop(err)
	}
	return out.send(wire.Done{})
}

// sendSmall serves one item of a run, or says why it does not come. It returns frame for the next one.
func (s *server) sendSmall(ctx context.Context, out *outlet, frame, buf []byte, i int) ([]byte, error) {
	it := s.man.Items[i]
	data := buf[:it.Size]
	info, err := readPinned(ctx, s.export.Store, it, data)
	if err != nil {
		if ctx.Err() != nil {
			return frame, problem.New(problem.Draining, "The agent is stopping")
		}
		return frame, out.send(wire.RefuseItem(i, s.spoil(i, err)))
	}
	v := chunk.Of(data, 0, it.Size)
	if err := s.sentWhole(i, v.Digest()); err != nil {
		return frame, err
	}
	attrs, _ := wire.Fit(info.Attrs)
	frame, err = wire.Append(frame, wire.Item{Item: i, Size: int(it.Size), Attrs: attrs, Native: clip(info.Native, wire.MaxNative)})
	if err != nil {
		return frame, problem.Wrap(err, problem.Internal, "The answer could not be encoded")
	}
	frame = append(append(frame, data...), v[:]...)
	s.smu.Lock()
	s.served += it.Size
	s.smu.Unlock()
	s.a.metrics.bytes.WithLabelValues("out").Add(float64(it.Size))
	return frame, out.write(frame)
}

// readPinned reads a whole small object and makes sure that it was the pinned version all the time.
func readPinned(ctx context.Context, st store.Store, it token.Item, data []byte) (store.Info, error) {
	r, err := st.Open(ctx, it.Src, it.Version)
	if err != nil {
		return store.Info{}, err
	}
	info := r.Info()
	switch {
	case info.Size != it.Size:
		err = problem.New(problem.Changed, "The object has another size than was planned")
	case it.Size > 0:
		err = readAt(r, data, 0)
	}
	if err == nil {
		err = r.Check(ctx)
	}
	return info, errors.Join(err, r.Close())
}

// sentWhole writes down that an item was served whole, once.
func (s *server) sentWhole(i int, d token.Digest) error {
	s.smu.Lock()
	if s.offers[i].sent == d {
		s.note(i, d)
		s.smu.Unlock()
		return nil
	}
	s.smu.Unlock()
	rec := journal.Record{Kind: recSent, Data: append(binary.BigEndian.AppendUint16(nil, uint16(i)), d...)}
	if err := s.record(rec); err != nil {
		return s.stop(err)
	}
	s.smu.Lock()
	defer s.smu.Unlock()
	s.note(i, d)
	return nil
}

// sendSeal answers with the digest of an item at its pinned version. What was not read for a want is read now.
func (s *server) sendSeal(ctx context.Context, out *outlet, q wire.Seal) error {
	if q.Item >= len(s.offers) || s.offers[q.Item].tree == nil {
		return problem.New(problem.Malformed, "Item %d is not one that is sealed", q.Item)
	}
	it := s.man.Items[q.Item]
	r, done, err := s.reader(ctx, q.Item)
	if err != nil {
		return err
	}
	defer done()
	if err := out.st.SetDeadline(time.Now().Add(answerTime + time.Duration(it.Size/sealRate)*time.Second)); err != nil {
		return err
	}
	root, err := s.seal(ctx, r, q.Item)
	if err == nil {
		err = r.Check(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			return problem.New(problem.Draining, "The agent is stopping")
		}
		return s.spoil(q.Item, err)
	}
	if err := s.sentWhole(q.Item, root); err != nil {
		return err
	}
	if err := s.commit(); err != nil {
		return s.stop(err)
	}
	info := r.Info()
	attrs, _ := wire.Fit(info.Attrs)
	v, err := valueOf(root)
	if err != nil {
		return err
	}
	return out.send(wire.Sealed{Size: it.Size, Root: v, Attrs: attrs, Native: clip(info.Native, wire.MaxNative)})
}

// seal returns the digest of a large item, reading the chunks whose value is not known.
func (s *server) seal(ctx context.Context, r store.Reader, i int) (token.Digest, error) {
	size := s.man.Items[i].Size
	buf := s.a.buffer()
	defer s.a.release(buf)
	for index := int64(0); index < chunk.Count(size); index++ {
		s.smu.Lock()
		known := s.offers[i].tree.Has(index)
		s.smu.Unlock()
		if known {
			continue
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		off, n := chunk.Span(size, index)
		if err := readAt(r, buf[:n], off); err != nil {
			return "", err
		}
		s.smu.Lock()
		err := s.offers[i].tree.Add(index, chunk.Of(buf[:n], index, size))
		s.smu.Unlock()
		if errors.Is(err, chunk.ErrDiffers) {
			return "", problem.New(problem.Changed, "The object does not read the same twice")
		}
	}
	s.smu.Lock()
	defer s.smu.Unlock()
	return s.offers[i].tree.Root()
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
			outs[i] = token.Outcome{Item: int64(i), Outcome: token.Sent, Size: it.Size, Digest: o.sent, Version: it.Version, Lost: []string{}}
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
