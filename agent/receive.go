package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const maxTries = 3 // that an item is fetched whose bytes are wrong or whose stage breaks

// A place is where an item of a receiver stands.
type place int

const (
	missing place = iota // small: not asked for; large: chunks are missing or in flight
	asked                // small: in flight
	sealing              // large: every chunk is held, or the name exists and its digest is to be compared; the source is to confirm
	held                 // staged and verified: to be published
	done                 // has its final outcome
)

// A piece is one item of a batch as its receiver sees it.
type piece struct {
	at      place
	tree    *chunk.Tree  // large; what is held
	seal    bool         // sealing: nobody has asked yet
	own     token.Digest // of the existing object to compare with; none if there is nothing to compare
	root    token.Digest // of a held item
	attrs   store.Attrs
	tries   int
	users   int         // wants in flight
	dirty   bool        // chunks were written since the last sync
	doubt   bool        // held in an earlier boot: the stage may have lost bytes
	stage   store.Stage // large; nil until the first chunk arrives
	staging *sync.Mutex // held while stage is opened
	outcome token.Outcome
}

// A receiver is the destination's side of a batch. Wanters ask and write, one publisher makes durable and visible.
type receiver struct {
	*batch
	stages store.Batch
	pool   *pool
	queue  chan int // held items, for the publisher; has room for all
	bulk   chan struct{}
	claims token.Receipt // once signed; of the goroutine that works on the batch
	told   bool          // the source has heard of the end

	rmu      sync.Mutex // guards all below
	pieces   []piece
	cursor   int           // large items before it have nothing to ask for
	open     int           // items without a final outcome
	changed  chan struct{} // closed and replaced when there may be more to do
	fatal    error         // why the work must begin anew
	received int64         // bytes of chunks that came
	since    int64         // bytes since the last commit
	boot     string        // that the records being replayed were written in
}

func newReceiver(b *batch) *receiver {
	r := &receiver{batch: b, pieces: make([]piece, len(b.man.Items)), open: len(b.man.Items), queue: make(chan int, 2*len(b.man.Items)+maxPublish),
		bulk: make(chan struct{}, 1), changed: make(chan struct{})}
	for i, it := range b.man.Items {
		p := &r.pieces[i]
		p.staging = new(sync.Mutex)
		if it.Size > chunk.Size {
			p.tree = chunk.NewTree(it.Size)
		}
	}
	return r
}

// heldRecord is what must be known of an item to publish it.
type heldRecord struct {
	Item  int          `json:"item"`
	Root  token.Digest `json:"root"`
	Attrs store.Attrs  `json:"attrs"`
}

// replay is side.replay.
func (r *receiver) replay(rec journal.Record) error {
	switch rec.Kind {
	case recBoot:
		r.boot = string(rec.Data)
		return nil
	case recChunk:
		return r.replayChunk(rec.Data)
	case recHeld, recSealed:
		var h heldRecord
		if err := json.Unmarshal(rec.Data, &h); err != nil || h.Item < 0 || h.Item >= len(r.pieces) {
			return fmt.Errorf("decoding a held item: %w", errors.Join(err, journal.ErrCorrupt))
		}
		p := &r.pieces[h.Item]
		p.at, p.root, p.attrs, p.doubt = held, h.Root, h.Attrs, rec.Kind == recHeld && r.boot != r.a.boot
	case recForget:
		if len(rec.Data) != 2 || int(binary.BigEndian.Uint16(rec.Data)) >= len(r.pieces) {
			return fmt.Errorf("decoding a forgotten item: %w", journal.ErrCorrupt)
		}
		r.forget(int(binary.BigEndian.Uint16(rec.Data)))
	case recOutcome:
		o, err := token.ParseOutcome(rec.Data)
		if err != nil || o.Item >= int64(len(r.pieces)) {
			return fmt.Errorf("decoding an outcome: %w", errors.Join(err, journal.ErrCorrupt))
		}
		p := &r.pieces[o.Item]
		if p.at != done {
			r.open--
			r.count(p.at, o.Item, o)
		}
		p.at, p.outcome = done, o
	default:
		return fmt.Errorf("record of kind %d: %w", rec.Kind, journal.ErrCorrupt)
	}
	return nil
}

// count adds a final outcome to what beats say.
func (r *receiver) count(was place, item int64, o token.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.items++
	if o.Outcome == token.Stored && r.small(int(item)) && was != done {
		r.bytes += o.Size
	}
}

func chunkRecord(item int, index int64, v chunk.Value) journal.Record {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+8+len(v)), uint16(item))
	b = binary.BigEndian.AppendUint64(b, uint64(index))
	return journal.Record{Kind: recChunk, Data: append(b, v[:]...)}
}

// parseChunk is the inverse of chunkRecord.
func parseChunk(data []byte, items int) (item int, index int64, v chunk.Value, err error) {
	if len(data) != 2+8+len(v) || int(binary.BigEndian.Uint16(data)) >= items {
		return 0, 0, v, fmt.Errorf("decoding a chunk: %w", journal.ErrCorrupt)
	}
	copy(v[:], data[10:])
	return int(binary.BigEndian.Uint16(data)), int64(binary.BigEndian.Uint64(data[2:])), v, nil
}

func (r *receiver) replayChunk(data []byte) error {
	i, index, v, err := parseChunk(data, len(r.pieces))
	if err != nil {
		return err
	}
	p := &r.pieces[i]
	if p.tree == nil || p.tree.Has(index) {
		return nil
	}
	if err := p.tree.Add(index, v); err != nil {
		return err
	}
	_, n := chunk.Span(p.tree.Size(), index)
	r.received += n
	r.mu.Lock()
	r.bytes += n
	r.mu.Unlock()
	return nil
}

// forget makes item i missing again.
func (r *receiver) forget(i int) {
	p := &r.pieces[i]
	if p.tree != nil {
		_, lost := p.tree.Held()
		p.tree = chunk.NewTree(p.tree.Size())
		r.mu.Lock()
		r.bytes -= lost
		r.mu.Unlock()
	}
	p.at, p.root, p.doubt, p.seal, p.dirty = missing, "", false, false, false
	r.cursor = min(r.cursor, i)
}

// work is side.work: stages are opened, what exists is found, then wanters and the publisher run until every item
// has its outcome.
func (r *receiver) work(ctx context.Context) error {
	stages, err := r.export.Store.Batch(ctx, r.key.stages(r.a.self))
	if err != nil {
		return fmt.Errorf("opening the stages: %w", err)
	}
	r.stages = stages
	defer r.closeStages()
	if err := r.resume(ctx); err != nil {
		return err
	}
	if err := r.survey(ctx); err != nil {
		return err
	}
	_, peer := r.current()
	r.pool = r.a.lanesTo(peer.ID)
	defer func() { r.pool.leave(time.Now()) }()
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { r.publisher(run); cancel() })
	wg.Go(func() { r.renewer(run) })
	for _, s := range r.pool.slots {
		for range r.a.conf.WantersPerLane {
			wg.Go(func() { r.wanter(run, s) })
		}
	}
	wg.Wait()
	r.rmu.Lock()
	defer r.rmu.Unlock()
	switch {
	case r.fatal != nil:
		return r.fatal
	case r.open > 0:
		return context.Cause(ctx)
	}
	return nil
}

func (r *receiver) closeStages() {
	for i := range r.pieces {
		if st := r.pieces[i].stage; st != nil {
			if err := st.Close(); err != nil {
				r.log.Debug("closing a stage", zap.Int("item", i), zap.Error(err))
			}
			r.pieces[i].stage = nil
		}
	}
	if err := r.stages.Close(); err != nil {
		r.log.Debug("closing the stages", zap.Error(err))
	}
}

// resume takes up what an earlier run held. A small item that was staged in an earlier boot is read again, since its
// stage was not yet durable when its record was; a large one was synced before its records counted.
func (r *receiver) resume(ctx context.Context) error {
	for i := range r.pieces {
		p := &r.pieces[i]
		if p.at == done || p.at == missing && !p.begun() {
			continue
		}
		ok, err := r.trusts(ctx, i)
		if err != nil {
			return err
		}
		switch {
		case !ok:
			if err := r.discard(ctx, i); err != nil {
				return err
			}
		case p.at == held:
			r.queue <- i
		case p.tree.Complete():
			p.at, p.seal = sealing, true
		}
	}
	return nil
}

// trusts reports whether the stage of an item holds what the journal says.
func (r *receiver) trusts(ctx context.Context, i int) (bool, error) {
	p := &r.pieces[i]
	switch {
	case r.small(i) && (p.doubt || r.breaks > 0):
		return r.reread(ctx, i)
	case r.small(i):
		return true, nil
	}
	if err := r.stageOf(ctx, i); err != nil {
		return false, diskProblem(err)
	}
	return !p.stage.Created(), nil
}

// reread reports whether the stage of a small item holds what its record says.
func (r *receiver) reread(ctx context.Context, i int) (bool, error) {
	size := r.man.Items[i].Size
	st, err := r.stages.Stage(ctx, i, size)
	if err != nil {
		return false, fmt.Errorf("opening the stage of item %d: %w", i, err)
	}
	buf := r.a.buffer()
	defer r.a.release(buf)
	n, err := st.ReadAt(buf[:size], 0)
	if cerr := st.Close(); cerr != nil {
		return false, fmt.Errorf("closing the stage of item %d: %w", i, cerr)
	}
	if int64(n) < size {
		r.log.Debug("a stage is short after a crash", zap.Int("item", i), zap.Error(err))
		return false, nil
	}
	return chunk.Of(buf[:size], 0, size).Digest() == r.pieces[i].root, nil
}

// survey gives their outcome to items whose destination exists before anything was asked for them.
func (r *receiver) survey(ctx context.Context) error {
	for i := range r.pieces {
		p := &r.pieces[i]
		if p.at != missing || p.begun() {
			continue
		}
		info, err := r.export.Store.Stat(ctx, r.man.Items[i].Dst)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case problem.Of(err) == problem.Missing:
		case err != nil:
			r.end(i, err)
		case info.Type != store.Object:
			r.end(i, problem.New(problem.Taken, "The name exists and is not an object"))
		default:
			r.exists(ctx, i, info)
		}
	}
	return nil
}

// exists decides about an item whose name is there.
func (r *receiver) exists(ctx context.Context, i int, info store.Info) {
	switch r.will.IfExists {
	case token.Skip:
		r.conclude(i, token.Outcome{Item: int64(i), Outcome: token.Existed, Size: info.Size, Version: info.Version, Lost: []string{}})
		return
	case token.Compare:
		if info.Size != r.man.Items[i].Size {
			break
		}
		own, err := hashObject(ctx, r.a, r.export.Store, info)
		if err != nil {
			r.end(i, err)
			return
		}
		if theirs := r.man.Items[i].Digest; theirs != "" {
			switch err := r.askedOf(ctx, i, own, info); {
			case err == nil:
				theirs = own
			case problem.Of(err) != problem.DigestDiffers:
				r.end(i, err)
				return
			}
			r.compared(i, own, theirs)
			return
		}
		r.rmu.Lock()
		p := &r.pieces[i]
		p.own, p.root = own, ""
		if p.tree != nil {
			p.at, p.seal = sealing, true
		}
		r.rmu.Unlock()
		return
	}
	r.end(i, problem.New(problem.Taken, "The name %q already exists", r.man.Items[i].Dst))
}

// compared gives its outcome to an item whose name exists, now that the source's digest is known.
func (r *receiver) compared(i int, own, theirs token.Digest) {
	if own != theirs {
		r.end(i, problem.New(problem.Taken, "The name %q already exists with other content", r.man.Items[i].Dst))
		return
	}
	r.conclude(i, token.Outcome{Item: int64(i), Outcome: token.Existed, Size: r.man.Items[i].Size, Digest: own, Lost: []string{}})
}

// stopping reports whether failures are those of our own end, which say nothing about an item.
func (r *receiver) stopping() bool { return r.a.runCtx.Err() != nil || r.dropCtx.Err() != nil }

// end gives item i the outcome of a failure, unless what failed is that we stop.
func (r *receiver) end(i int, err error) {
	if code := problem.Of(err); r.stopping() && (code == problem.Cancelled || code == problem.Timeout || code == problem.Draining) {
		return
	}
	r.conclude(i, failed(i, r.man.Items[i].Size, err))
}

// conclude gives item i its final outcome, once, and journals it.
func (r *receiver) conclude(i int, o token.Outcome) {
	line, err := token.MarshalOutcome(o)
	if err != nil {
		r.log.Error("an outcome that cannot be written", zap.Int("item", i), zap.Error(err))
		o = failed(i, r.man.Items[i].Size, problem.New(problem.Internal, "The outcome could not be written down"))
		if line, err = token.MarshalOutcome(o); err != nil {
			r.stop(err)
			return
		}
	}
	r.rmu.Lock()
	p := &r.pieces[i]
	if p.at == done {
		r.rmu.Unlock()
		return
	}
	was := p.at
	p.at, p.outcome, p.dirty = done, o, false
	r.open--
	r.rmu.Unlock()
	r.count(was, int64(i), o)
	r.a.metrics.items.WithLabelValues(string(o.Outcome)).Inc()
	if err := r.record(journal.Record{Kind: recOutcome, Data: line}); err != nil {
		r.stop(err)
	}
	r.rmu.Lock()
	r.signal()
	r.rmu.Unlock()
}

// stop ends this run over the batch: it is begun anew from the journal.
func (r *receiver) stop(err error) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if r.fatal == nil {
		r.fatal = fmt.Errorf("keeping the journal: %w", diskProblem(err))
	}
	r.signal()
}

// signal wakes whoever waits for more to do. The caller holds rmu.
func (r *receiver) signal() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// outcomes is side.outcomes.
func (r *receiver) outcomes(rest error) ([]token.Outcome, error) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	outs := make([]token.Outcome, len(r.pieces))
	var stored []token.ObjectName
	for i := range r.pieces {
		switch p := &r.pieces[i]; {
		case p.at == done:
			outs[i] = p.outcome
		case rest == nil:
			return nil, fmt.Errorf("item %d has no outcome", i)
		default:
			outs[i] = failed(i, r.man.Items[i].Size, rest)
			outs[i].Outcome = token.Untried
		}
		if outs[i].Outcome == token.Stored {
			stored = append(stored, r.man.Items[i].Dst)
		}
	}
	if err := r.a.names.add(r.bill, stored); err != nil {
		return nil, err
	}
	r.logEnd(outs)
	return outs, nil
}

// logEnd says what the batch came to; the campaigns count with it. The caller holds rmu.
func (r *receiver) logEnd(outs []token.Outcome) {
	kinds := map[token.Result]int{}
	var bytes int64
	for _, o := range outs {
		kinds[o.Outcome]++
		if o.Outcome == token.Stored {
			bytes += o.Size
		}
	}
	r.log.Info("batch received", zap.Int("items", len(outs)), zap.Int64("bytes", bytes), zap.Int64("bytes_received", r.received),
		zap.Int64("bytes_again", max(0, r.received-bytes)), zap.Any("outcomes", kinds))
}

// clean is side.clean: the stages go.
func (r *receiver) clean(ctx context.Context) error {
	stages, err := r.export.Store.Batch(ctx, r.key.stages(r.a.self))
	if err != nil {
		return err
	}
	return errors.Join(stages.Drop(ctx), stages.Close())
}

// small reports whether item i is fetched whole.
func (r *receiver) small(i int) bool { return r.man.Items[i].Size <= chunk.Size }

// begun reports whether a large item has chunks already.
func (p *piece) begun() bool {
	if p.tree == nil {
		return false
	}
	n, _ := p.tree.Held()
	return n > 0
}

// lostNames makes a list of lost attributes fit for a statement.
func lostNames(lost []string) []string {
	out := []string{}
	for _, name := range lost {
		if name = clip(name, token.MaxLostSize); name != "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return out[:min(len(out), token.MaxLost)]
}
