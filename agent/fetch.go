package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A localError is a failure of our own store with an item.
type localError struct {
	item int
	err  error
}

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// An itemError is a failure that belongs to an item, as the peer or its bytes have it.
type itemError struct {
	item int
	err  error
}

func (e *itemError) Error() string { return e.err.Error() }
func (e *itemError) Unwrap() error { return e.err }

// errMoot ends a want whose item has its outcome meanwhile, or begins anew.
var errMoot = errors.New("the item is not fetched any more")

// fetch asks for q and takes the answer.
func (w *wanter) fetch(ctx context.Context, q want) error {
	buf := w.a.buffer()
	defer w.a.release(buf)
	switch {
	case q.items != nil:
		return w.fetchRun(ctx, q, buf)
	case q.n == 0:
		return w.fetchSeal(ctx, q.item)
	}
	f := &filling{receiver: w.receiver, want: q}
	defer f.abort()
	for at := q.first; at < q.first+q.n; {
		n, err := w.fetchChunks(ctx, f, at, buf)
		if err != nil {
			return err
		}
		at += n
	}
	return f.await(ctx)
}

// An exchange is one request and its answer on a stream of the wanter's lane.
type exchange struct {
	st    link.Stream
	in    *watched
	most  int64 // chunks that the peer gives at once
	start time.Time
	end   func()
}

// exchange opens a stream for an answer of about so many bytes of each item. The caller calls end.
func (w *wanter) exchange(ctx context.Context, bytes map[int]int64) (*exchange, error) {
	if err := w.pace(ctx, bytes); err != nil {
		return nil, err
	}
	st, most, err := w.slot.open(ctx, w.batch)
	if err != nil {
		return nil, err
	}
	// A stop lets the answer come to its end, if that is soon; anything else that ends the run does not.
	stop := context.AfterFunc(w.io, func() { st.Abandon(problem.Draining) })
	now := time.Now()
	return &exchange{st: st, in: &watched{st: st, within: w.a.patience(), since: now}, most: int64(most), start: now, end: func() {
		stop()
		st.Abandon(problem.Cancelled)
	}}, nil
}

// stageOf returns the stage of a large item, opening it if need be. It fails with errMoot if the item has its outcome.
func (r *receiver) stageOf(ctx context.Context, i int, attrs store.Attrs) (store.Stage, error) {
	p := &r.pieces[i]
	p.staging.Lock()
	defer p.staging.Unlock()
	r.rmu.Lock()
	st, over := p.stage, p.at == done
	r.rmu.Unlock()
	switch {
	case over:
		return nil, errMoot
	case st != nil:
		return st, nil
	}
	st, err := r.stages.Stage(ctx, r.itemOf(i, attrs))
	if err != nil {
		return nil, fmt.Errorf("staging item %d: %w", i, err)
	}
	r.rmu.Lock()
	p.stage = st
	r.rmu.Unlock()
	return st, nil
}

// fetchChunks takes a run of the chunks that f is to be filled with, from at on, and returns how many came. Each is verified before it
// is written.
func (w *wanter) fetchChunks(ctx context.Context, f *filling, at int64, buf []byte) (int64, error) {
	size := w.man.Items[f.item].Size
	n := min(f.first+f.n-at, int64(w.chunks()))
	x, err := w.exchange(ctx, map[int]int64{f.item: n * chunk.Size})
	if err != nil {
		return 0, err
	}
	defer x.end()
	n = min(n, x.most)
	req := wire.WantChunks{Batch: w.wire(), Item: f.item, First: at, N: int(n)}
	if err := ask(x.st, req, w.a.patience()); err != nil {
		return 0, err
	}
	w.a.metrics.wants.WithLabelValues("chunks").Inc()
	in := wire.NewChunkReader(x.in, req, size)
	d, err := in.Pinned()
	if err != nil {
		return 0, w.blame(f.item, err)
	}
	if err := f.begin(d.Attrs); err != nil {
		return 0, err
	}
	for got := int64(0); ; {
		x.in.rested() // the store may have taken its time
		c, err := in.Next(buf)
		if errors.Is(err, io.EOF) {
			w.came(got, x.start)
			return n, nil
		}
		if err != nil {
			return 0, w.blame(f.item, err)
		}
		got += int64(len(c.Data))
		w.countReceived(int64(len(c.Data)))
		if chunk.Of(c.Data, c.Index, size) != c.Value {
			return 0, &itemError{f.item, problem.New(problem.Corrupt, "Chunk %d of item %d arrived altered", c.Index, f.item)}
		}
		if err := f.put(c); err != nil {
			return 0, err
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
}

func (r *receiver) countReceived(n int64) {
	r.rmu.Lock()
	r.received += n
	r.rmu.Unlock()
	r.a.metrics.bytes.WithLabelValues("in").Add(float64(n))
}

// fetchSeal asks the source to confirm the digest of an item.
func (w *wanter) fetchSeal(ctx context.Context, i int) error {
	x, err := w.exchange(ctx, nil)
	if err != nil {
		return err
	}
	defer x.end()
	size := w.man.Items[i].Size
	if err := ask(x.st, wire.Seal{Batch: w.wire(), Item: i}, w.a.patience()+time.Duration(size/sealRate)*time.Second); err != nil {
		return err
	}
	w.a.metrics.wants.WithLabelValues("seal").Inc()
	s, err := wire.ReadSealed(x.st)
	if err != nil {
		return w.blame(i, err)
	}
	if s.Size != size {
		return &itemError{i, problem.New(problem.PeerMisbehaved, "The source sealed item %d with another size", i)}
	}
	return w.sealed(i, s)
}

// sealed compares what the source says of an item with what is held of it.
func (r *receiver) sealed(i int, s wire.Sealed) error {
	theirs := s.Root.Digest()
	r.rmu.Lock()
	p := &r.pieces[i]
	own, at, state := p.own, p.at, p.sum
	var root token.Digest
	var err error
	if own == "" && at == sealing {
		root, err = p.tree.Root()
	}
	r.rmu.Unlock()
	switch {
	case at != sealing:
		return nil
	case own != "":
		r.compared(i, own, theirs)
		return nil
	case err != nil:
		return err
	case root != theirs:
		return &itemError{i, problem.New(problem.Corrupt, "Item %d as it arrived is not what its source sealed", i)}
	}
	value, err := r.answerLarge(i, root, state)
	if err != nil {
		if problem.Of(err) == problem.DigestDiffers {
			r.end(i, err)
			return nil
		}
		return &localError{i, err}
	}
	return r.hold(recSealed, []heldRecord{{i, root, value, s.Attrs}})
}

// hold makes verified items ready to be published.
func (r *receiver) hold(kind byte, items []heldRecord) error {
	recs := make([]journal.Record, len(items))
	for n, h := range items {
		data, err := json.Marshal(h)
		if err != nil {
			return fmt.Errorf("encoding a held item: %w", err)
		}
		recs[n] = journal.Record{Kind: kind, Data: data}
	}
	if err := r.record(recs...); err != nil {
		r.stop(err)
		return err
	}
	r.rmu.Lock()
	defer r.rmu.Unlock()
	for _, h := range items {
		p := &r.pieces[h.Item]
		if p.at == done {
			continue
		}
		p.at, p.root, p.value, p.attrs = held, h.Root, h.Value, h.Attrs
		r.queue <- h.Item // has room for every item
	}
	return nil
}

// fetchRun takes whole small items. They count only once the run has come to its end, because by then the source has
// written down that it served them. What fails and may pass ends the run as a failure, once the others are held.
func (w *wanter) fetchRun(ctx context.Context, q want, buf []byte) error {
	x, err := w.exchange(ctx, w.sizesOf(q.items))
	if err != nil {
		return err
	}
	defer x.end()
	req := wire.WantRun{Batch: w.wire(), Items: q.items}
	if err := ask(x.st, req, w.a.patience()); err != nil {
		return err
	}
	w.a.metrics.wants.WithLabelValues("run").Inc()
	var came []heldRecord
	var later error
	got, away := int64(0), false // away: our own store is, and is not tried with every other item
	for in := wire.NewRunReader(x.in, req); ; {
		s, err := in.Next(buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		got += int64(len(s.Data))
		w.countReceived(int64(len(s.Data)))
		var h *heldRecord
		switch {
		case s.Err != nil:
			err = w.blame(s.Index, s.Err)
		case !away:
			h, err = w.keepSmall(s)
			away = problem.Of(err) == problem.StoreAway
		}
		if err != nil && !w.refused(want{item: s.Index, n: 1}, err) {
			later = err
		}
		if h != nil {
			came = append(came, *h)
		}
		x.in.rested()
	}
	w.came(got, x.start)
	return errors.Join(w.hold(recHeld, came), later)
}

func (r *receiver) sizesOf(items []int) map[int]int64 {
	sizes := make(map[int]int64, len(items))
	for _, i := range items {
		sizes[i] = r.man.Items[i].Size
	}
	return sizes
}

// keepSmall verifies and stages one item of a run. It returns what is held of it; nil if the item is not to be published.
func (r *receiver) keepSmall(s wire.Small) (*heldRecord, error) {
	it := r.man.Items[s.Index]
	if int64(len(s.Data)) != it.Size {
		return nil, &itemError{s.Index, problem.New(problem.PeerMisbehaved, "The source sent item %d with another size", s.Index)}
	}
	if chunk.Of(s.Data, 0, it.Size) != s.Root {
		return nil, &itemError{s.Index, problem.New(problem.Corrupt, "Item %d arrived altered", s.Index)}
	}
	root := s.Root.Digest()
	r.rmu.Lock()
	own := r.pieces[s.Index].own
	r.rmu.Unlock()
	if own != "" {
		r.compared(s.Index, own, root)
		return nil, nil
	}
	value, err := r.answerSmall(s.Index, root, s.Data)
	if err != nil {
		r.end(s.Index, err)
		return nil, nil
	}
	st, err := r.stages.Stage(r.io, r.itemOf(s.Index, s.Attrs))
	if err != nil {
		return nil, &localError{s.Index, fmt.Errorf("staging item %d: %w", s.Index, err)}
	}
	err = fill(r.io, st, s.Data)
	if err = errors.Join(err, st.Close()); err != nil {
		return nil, &localError{s.Index, fmt.Errorf("writing item %d: %w", s.Index, err)}
	}
	return &heldRecord{s.Index, root, value, s.Attrs}, nil
}

// fill writes the only part of a stage.
func fill(ctx context.Context, st store.Stage, data []byte) error {
	part, err := st.Part(ctx, 0)
	if err != nil {
		return err
	}
	defer part.Abort()
	if _, err := part.Write(data); err != nil {
		return err
	}
	return part.Close()
}

// diskProblem gives an error of the disk its code.
func diskProblem(err error) error {
	var known *problem.Error
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return problem.Wrap(err, problem.DiskFull, "The agent has no space left for its journal")
	}
	return err
}
