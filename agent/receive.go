package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const maxTries = 3 // that an item is fetched whose bytes are wrong or whose stage breaks

// stageMemory bounds the small items of a batch that a store keeps in memory until they are published, bytes.
const stageMemory = 32 << 20

// aheadMemory bounds the chunks of a batch that came ahead of their turn to be hashed, bytes.
const aheadMemory = 32 << 20

// itemMemory is what such an item counts for beside its content, bytes.
const itemMemory = 4 << 10

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
	at    place
	tree  *chunk.Tree       // large; what is held. A new one once the item begins anew, so that takers of the old one can tell
	unit  int64             // large; chunks of a part
	seal  bool              // sealing: nobody has asked yet
	own   token.Digest      // of the existing object to compare with; none if there is nothing to compare
	root  token.Digest      // of a held item
	value token.ValueDigest // of a held item; none if none is asked for
	attrs store.Attrs
	tries int
	// condemned: the stage has failed and is about to be thrown away, with what tree says of it.
	condemned bool
	users     int         // wants in flight
	memory    int64       // taken of the receiver's
	dirty     bool        // chunks were written since the last sync
	doubt     bool        // held in an earlier boot: the stage may have lost bytes
	stage     store.Stage // large; nil until the first chunk arrives
	outcome   token.Outcome

	limiter *rate.Limiter // of the rule that lets it in; nil is no limit

	ordered bool   // large: hashed as it comes
	sum     []byte // ordered: the state of sums over the first summed chunks, which are those that are held
	summed  int64

	staging *sync.Mutex // held while stage is opened or thrown away
	writing *sync.Mutex // held while a record of chunks is written, so that none comes behind one that forgets them
}

// A receiver is the destination's side of a batch. Wanters ask and write, one publisher makes visible, one syncer durable.
type receiver struct {
	*batch
	traits store.Traits
	stages store.Batch
	pool   *pool
	queue  chan int // held items, for the publisher; has room for all
	bulk   chan struct{}
	claims token.Receipt // once signed; of the goroutine that works on the batch
	told   bool          // the source has heard of the end
	// io is what calls of the store that may finish after a stop run under. It ends soon after the agent is stopped, and at
	// once if this run over the batch ends for another reason.
	io      context.Context
	syncing sync.Mutex // held during a commit: what one takes over another must not claim

	publishing atomic.Bool // the publisher does not wait for the store

	rmu      sync.Mutex // guards all below
	pieces   []piece
	cursor   int           // large items before it have nothing to ask for
	open     int           // items without a final outcome
	changed  chan struct{} // closed and replaced when there may be more to do
	fatal    error         // why the work must begin anew
	received int64         // bytes of chunks that came
	since    int64         // bytes since the last commit
	memory   int64         // that small items may still take in a store that keeps them in memory
	budget   int64         // all of it
	ahead    int64         // memory for chunks that come ahead of their turn to be hashed
	boot     string        // that the records being replayed were written in
	book     *rulebook     // that was applied last
}

func newReceiver(b *batch) *receiver {
	r := &receiver{batch: b, traits: b.a.traits[b.export.Container], pieces: make([]piece, len(b.man.Items)), open: len(b.man.Items),
		queue: make(chan int, 2*len(b.man.Items)+maxPublish), bulk: make(chan struct{}, 1), changed: make(chan struct{})}
	if r.budget = b.a.conf.hooks.memory; r.budget == 0 {
		r.budget = stageMemory
	}
	r.memory = r.budget
	if r.ahead = b.a.conf.hooks.ahead; r.ahead == 0 {
		r.ahead = aheadMemory
	}
	r.publishing.Store(true)
	for i, it := range b.man.Items {
		p := &r.pieces[i]
		p.staging, p.writing = new(sync.Mutex), new(sync.Mutex)
		if it.Size > chunk.Size {
			p.tree, p.unit = chunk.NewTree(it.Size), it.Part/chunk.Size
			p.ordered = len(sumsOf(it)) > 0
		}
	}
	return r
}

// itemOf is item i as the store is told of it.
func (r *receiver) itemOf(i int, attrs store.Attrs) store.Item {
	it := r.man.Items[i]
	return store.Item{Index: i, Name: it.Dst, Size: it.Size, Part: it.Part, Attrs: attrs}
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
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	io, release := context.WithCancel(r.a.ioCtx)
	defer release()
	r.io = io
	defer context.AfterFunc(run, func() {
		if r.a.runCtx.Err() == nil {
			release()
		}
	})()
	r.obey() // first: of what is not allowed, nobody learns whether it exists
	r.refuseSums()
	if err := r.resume(ctx); err != nil {
		return err
	}
	if err := r.survey(ctx); err != nil {
		return err
	}
	_, peer := r.current()
	r.pool = r.a.lanesTo(peer.ID)
	defer func() { r.pool.leave(time.Now()) }()
	var wg sync.WaitGroup
	wg.Go(func() { r.publisher(run); cancel() })
	wg.Go(func() { r.syncer(run) })
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

// stopping reports whether failures are those of our own end, which say nothing about an item.
func (r *receiver) stopping() bool {
	return r.a.runCtx.Err() != nil || r.dropCtx.Err() != nil || r.io.Err() != nil
}

// end gives item i the outcome of a failure, unless what failed is that we stop.
func (r *receiver) end(i int, err error) {
	if code := problem.Of(err); r.stopping() && (code == problem.Cancelled || code == problem.Timeout || code == problem.Draining) {
		return
	}
	r.conclude(i, failed(i, r.man.Items[i].Size, err))
}

// conclude gives item i its final outcome, once, and journals it.
func (r *receiver) conclude(i int, o token.Outcome) {
	line, err := lineOf(&o)
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
	r.free(p)
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

// stop ends this run over the batch: it is begun anew from the journal, after a pause in which err is the reason that is told.
func (r *receiver) stop(err error) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if r.fatal == nil {
		r.fatal = diskProblem(err)
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
