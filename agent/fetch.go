package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxRunItems = 256
	maxRunBytes = 16 << 20
	bulkBytes   = 64 << 20 // received bytes after which they are made durable
)

// A want is what one wanter asks for at once: a run of small items, chunks of a large one, or its seal.
type want struct {
	items []int // of a run; nil otherwise
	item  int
	first int64
	n     int64 // chunks; 0 is the seal
}

// wanter asks, reads and writes on one lane until nothing is left to ask. The memory for an answer is
// taken before its want is sent, and nothing is waited for while an answer is unread.
func (r *receiver) wanter(ctx context.Context, s *slot) {
	pause := r.a.backoff(unreachMin, unreachMax)
	size := 1 // chunks that come in about a second
	for {
		w, ok := r.next(ctx, size)
		if !ok {
			return
		}
		start := time.Now()
		n, err := r.fetch(ctx, s, w)
		r.giveBack(w)
		if err == nil {
			pause.Reset()
			r.wait(nil)
			size = min(wantSize(size, n, time.Since(start)), r.a.share(wire.MaxWant))
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if r.refused(w, err) {
			continue
		}
		r.wait(err)
		r.log.Debug("a want failed", zap.Error(err))
		if r.a.sleep(ctx, pause.NextBackOff()) != nil {
			return
		}
	}
}

// share is a wanter's part of what one lane may have under way, so that all its wanters together never
// have more at stake than one want of full size when a process is killed.
func (a *Agent) share(whole int) int { return max(1, whole/a.conf.WantersPerLane) }

// wantSize is how many chunks to ask for next, so that a want takes about a second.
func wantSize(now int, bytes int64, took time.Duration) int {
	if bytes < chunk.Size/2 {
		return now
	}
	rate := float64(bytes) / max(took.Seconds(), 1e-3)
	return min(max(int(rate)/chunk.Size, 1), wire.MaxWant, 2*now)
}

// next waits for something to ask for and takes it; false means that there will not be any more.
func (r *receiver) next(ctx context.Context, size int) (want, bool) {
	r.rmu.Lock()
	defer r.rmu.Unlock()
	for {
		if ctx.Err() != nil || r.open == 0 || r.fatal != nil {
			return want{}, false
		}
		if w, ok := r.take(size); ok {
			return w, true
		}
		changed := r.changed
		r.rmu.Unlock()
		select {
		case <-ctx.Done():
		case <-changed:
		}
		r.rmu.Lock()
	}
}

// take picks a want: seals first, for they free their items; then a run of small items; then chunks. The caller holds rmu.
func (r *receiver) take(size int) (want, bool) {
	run, total, runBytes := []int(nil), int64(0), int64(r.a.share(maxRunBytes))
	for i := r.cursor; i < len(r.pieces); i++ {
		p := &r.pieces[i]
		switch {
		case p.at == sealing && p.seal:
			for _, j := range run {
				r.pieces[j].at = missing
			}
			p.seal = false
			p.users++
			return want{item: i}, true
		case p.at != missing:
			if i == r.cursor && p.at == done {
				r.cursor++
			}
		case r.small(i):
			if len(run) < maxRunItems && total < runBytes {
				p.at = asked
				run, total = append(run, i), total+r.man.Items[i].Size
			}
		case len(run) == 0:
			if first, n, ok := p.tree.TakeMissing(size); ok {
				p.users++
				return want{item: i, first: first, n: n}, true
			}
		}
		if len(run) == maxRunItems || total >= runBytes {
			break
		}
	}
	return want{items: run}, len(run) > 0
}

// giveBack makes what a want did not bring missing again, and closes the stage of an item that has its outcome.
func (r *receiver) giveBack(w want) {
	r.rmu.Lock()
	for _, i := range w.items {
		if p := &r.pieces[i]; p.at == asked {
			p.at = missing
			r.cursor = min(r.cursor, i)
		}
	}
	var idle store.Stage
	if w.items == nil {
		p := &r.pieces[w.item]
		p.users--
		if w.n > 0 && p.at == missing {
			p.tree.Release(w.first, w.n)
		}
		if w.n == 0 && p.at == sealing {
			p.seal = true
		}
		if p.at == done && p.users == 0 {
			idle, p.stage = p.stage, nil
		}
	}
	r.signal()
	r.rmu.Unlock()
	if idle != nil {
		if err := idle.Close(); err != nil {
			r.log.Debug("closing a stage", zap.Int("item", w.item), zap.Error(err))
		}
	}
}

// fetch asks for w on s and takes the answer. It returns how many bytes of content came.
func (r *receiver) fetch(ctx context.Context, s *slot, w want) (int64, error) {
	if err := r.pace(ctx, r.sizeOf(w)); err != nil {
		return 0, err
	}
	buf := r.a.buffer()
	defer r.a.release(buf)
	if w.items == nil && w.n > 0 {
		if err := r.stageOf(ctx, w.item); err != nil {
			return 0, &localError{w.item, err}
		}
	}
	st, most, err := s.open(ctx, r.batch)
	if err != nil {
		return 0, err
	}
	w.n = min(w.n, int64(most)) // what is left of it is given back by the caller
	// A stop lets the answer come to its end, if that is soon; a drop does not.
	defer context.AfterFunc(r.a.ioCtx, func() { st.Abandon(problem.Draining) })()
	defer context.AfterFunc(r.dropCtx, func() { st.Abandon(problem.Cancelled) })()
	defer st.Abandon(problem.Cancelled)
	in := &watched{st: st, within: r.a.patience(), since: time.Now()}
	switch {
	case w.items != nil:
		return r.fetchRun(ctx, st, in, w, buf)
	case w.n == 0:
		return 0, r.fetchSeal(ctx, st, w.item)
	}
	return r.fetchChunks(ctx, st, in, w, buf)
}

func (r *receiver) sizeOf(w want) (n int64) {
	for _, i := range w.items {
		n += r.man.Items[i].Size
	}
	return n + w.n*chunk.Size
}

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

// stageOf opens the stage of a large item, once.
func (r *receiver) stageOf(ctx context.Context, i int) error {
	p := &r.pieces[i]
	p.staging.Lock()
	defer p.staging.Unlock()
	r.rmu.Lock()
	open := p.stage != nil || p.at == done
	r.rmu.Unlock()
	if open {
		return nil
	}
	st, err := r.stages.Stage(ctx, i, r.man.Items[i].Size)
	if err != nil {
		return fmt.Errorf("staging item %d: %w", i, err)
	}
	r.rmu.Lock()
	p.stage = st
	r.rmu.Unlock()
	return nil
}

// fetchChunks takes chunks of a large item: each is verified, written, then journalled.
func (r *receiver) fetchChunks(ctx context.Context, st link.Stream, in io.Reader, w want, buf []byte) (got int64, err error) {
	size := r.man.Items[w.item].Size
	req := wire.WantChunks{Batch: r.wire(), Item: w.item, First: w.first, N: int(w.n)}
	if err := ask(st, req, r.a.patience()); err != nil {
		return 0, err
	}
	r.a.metrics.wants.WithLabelValues("chunks").Inc()
	for in := wire.NewChunkReader(in, req, size); ; {
		c, err := in.Next(buf)
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, r.blame(w.item, err)
		}
		got += int64(len(c.Data))
		r.countReceived(int64(len(c.Data)))
		if chunk.Of(c.Data, c.Index, size) != c.Value {
			return got, &itemError{w.item, problem.New(problem.Corrupt, "Chunk %d of item %d arrived altered", c.Index, w.item)}
		}
		if err := r.keep(w.item, c); err != nil {
			return got, err
		}
		if ctx.Err() != nil {
			return got, ctx.Err()
		}
	}
}

// keep writes a verified chunk and journals it, data first.
func (r *receiver) keep(i int, c wire.Chunk) error {
	p := &r.pieces[i]
	r.rmu.Lock()
	stage, over := p.stage, p.at != missing
	r.rmu.Unlock()
	if over || stage == nil {
		return nil // the item has its outcome, or begins anew
	}
	off, n := chunk.Span(r.man.Items[i].Size, c.Index)
	if _, err := stage.WriteAt(c.Data, off); err != nil {
		return &localError{i, fmt.Errorf("writing chunk %d of item %d: %w", c.Index, i, err)}
	}
	r.rmu.Lock()
	p.dirty = true
	r.rmu.Unlock()
	if err := r.record(chunkRecord(i, c.Index, c.Value)); err != nil {
		r.stop(err)
		return err
	}
	r.rmu.Lock()
	defer r.rmu.Unlock()
	if p.at != missing || p.stage != stage {
		return nil
	}
	if p.tree.Has(c.Index) {
		return nil
	}
	if err := p.tree.Add(c.Index, c.Value); err != nil {
		return err
	}
	r.mu.Lock()
	r.bytes += n
	r.mu.Unlock()
	if r.since += n; r.since >= bulkBytes {
		r.since = 0
		select {
		case r.bulk <- struct{}{}:
		default:
		}
	}
	if p.tree.Complete() {
		p.at, p.seal = sealing, true
		r.signal()
	}
	if h := r.a.conf.hooks.moved; h != nil && !h("chunk", i, c.Index) {
		return context.Canceled
	}
	return nil
}

func (r *receiver) countReceived(n int64) {
	r.rmu.Lock()
	r.received += n
	r.rmu.Unlock()
	r.a.metrics.bytes.WithLabelValues("in").Add(float64(n))
}

// fetchSeal asks the source to confirm the digest of an item.
func (r *receiver) fetchSeal(ctx context.Context, st link.Stream, i int) error {
	size := r.man.Items[i].Size
	if err := ask(st, wire.Seal{Batch: r.wire(), Item: i}, r.a.patience()+time.Duration(size/sealRate)*time.Second); err != nil {
		return err
	}
	r.a.metrics.wants.WithLabelValues("seal").Inc()
	s, err := wire.ReadSealed(st)
	if err != nil {
		return r.blame(i, err)
	}
	if s.Size != size {
		return &itemError{i, problem.New(problem.PeerMisbehaved, "The source sealed item %d with another size", i)}
	}
	theirs := s.Root.Digest()
	r.rmu.Lock()
	p := &r.pieces[i]
	own, at := p.own, p.at
	var root token.Digest
	var content io.ReaderAt
	if own == "" && at == sealing {
		root, err = p.tree.Root()
		content = p.stage
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
	if err := r.asked(ctx, i, root, content); err != nil {
		if problem.Of(err) == problem.DigestDiffers {
			r.end(i, err)
			return nil
		}
		return &localError{i, err}
	}
	return r.hold(recSealed, []heldRecord{{i, root, s.Attrs}})
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
		p.at, p.root, p.attrs = held, h.Root, h.Attrs
		r.queue <- h.Item // has room for every item
	}
	return nil
}

// fetchRun takes whole small items. They count only once the run has come to its end, because by then the source has
// written down that it served them.
func (r *receiver) fetchRun(ctx context.Context, st link.Stream, in io.Reader, w want, buf []byte) (got int64, err error) {
	req := wire.WantRun{Batch: r.wire(), Items: w.items}
	if err := ask(st, req, r.a.patience()); err != nil {
		return 0, err
	}
	r.a.metrics.wants.WithLabelValues("run").Inc()
	var came []heldRecord
	for in := wire.NewRunReader(in, req); ; {
		s, err := in.Next(buf)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return got, err
		}
		if s.Err != nil {
			if !r.refused(want{item: s.Index, n: 1}, r.blame(s.Index, s.Err)) {
				return got, s.Err
			}
			continue
		}
		got += int64(len(s.Data))
		r.countReceived(int64(len(s.Data)))
		ok, err := r.keepSmall(ctx, s)
		if err != nil && !r.refused(want{item: s.Index, n: 1}, err) {
			return got, err
		}
		if ok {
			came = append(came, heldRecord{s.Index, s.Root.Digest(), s.Attrs})
		}
	}
	return got, r.hold(recHeld, came)
}

// keepSmall verifies and stages one item of a run. It reports whether the item is to be published.
func (r *receiver) keepSmall(ctx context.Context, s wire.Small) (bool, error) {
	it := r.man.Items[s.Index]
	if int64(len(s.Data)) != it.Size {
		return false, &itemError{s.Index, problem.New(problem.PeerMisbehaved, "The source sent item %d with another size", s.Index)}
	}
	if chunk.Of(s.Data, 0, it.Size) != s.Root {
		return false, &itemError{s.Index, problem.New(problem.Corrupt, "Item %d arrived altered", s.Index)}
	}
	root := s.Root.Digest()
	r.rmu.Lock()
	own := r.pieces[s.Index].own
	r.rmu.Unlock()
	if own != "" {
		r.compared(s.Index, own, root)
		return false, nil
	}
	if err := r.asked(ctx, s.Index, root, bytes.NewReader(s.Data)); err != nil {
		r.end(s.Index, err)
		return false, nil
	}
	st, err := r.stages.Stage(ctx, s.Index, it.Size)
	if err != nil {
		return false, &localError{s.Index, fmt.Errorf("staging item %d: %w", s.Index, err)}
	}
	_, err = st.WriteAt(s.Data, 0)
	if err = errors.Join(err, st.Close()); err != nil {
		return false, &localError{s.Index, fmt.Errorf("writing item %d: %w", s.Index, err)}
	}
	return true, nil
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

// renewer asks for a new generation at two thirds of the life of the one in use.
func (r *receiver) renewer(ctx context.Context) {
	pause := r.a.backoff(time.Second, 30*time.Second)
	for ctx.Err() == nil {
		g, peer := r.current()
		life := time.Duration(g.Claims.Exp-g.Claims.Iat) * time.Second
		at := time.Unix(g.Claims.Iat, 0).Add(life*2/3 - time.Duration(rand.Int64N(int64(life/20)+1)))
		if r.a.sleepOr(ctx, time.Until(at), r.renew) != nil {
			return
		}
		n, err := r.s.ctl.Renew(ctx, r.key.ref())
		if err == nil {
			g, err = r.a.verifyGrant(r.s, r.bill, n.Capability, n.Present, peer.ID, time.Now())
		}
		if err == nil {
			err = r.renewed(g)
		}
		if err == nil {
			pause.Reset()
			r.log.Debug("capability renewed", zap.Int64("gen", g.Claims.Gen))
			continue
		}
		if ctx.Err() != nil {
			return
		}
		r.log.Warn("the capability is not renewed", zap.Error(err))
		if r.a.sleepOr(ctx, pause.NextBackOff(), r.s.nextHello()) != nil {
			return
		}
	}
}
