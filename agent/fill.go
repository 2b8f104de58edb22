package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/wire"
)

// A filling is the chunks of one want on their way into the stage of their item, part by part. What is left of a part when
// it is aborted is as if it had never come. It belongs to one goroutine.
//
// Where hashes are computed as the item comes, wants take turns: chunks are hashed and journalled in their order, so that what the journal
// knows of is what a state of the hashes is behind. A want whose turn has not come is written all the same, and what it has brought
// waits in memory that was taken for it. So lanes need not wait for each other, and nothing is read again.
type filling struct {
	*receiver
	want
	stage  store.Stage   // nil until begin
	part   store.Part    // nil between parts
	turn   bool          // the turn of the want has come
	ahead  []wire.Chunk  // chunks that wait for that, in buffers of the agent
	sums   sums          // over the item so far; once turn is true
	values []chunk.Value // of the chunks behind the last part that was journalled; once turn is true
}

// begin opens the stage, once. It fails with errMoot if the item is not fetched any more.
func (f *filling) begin(attrs store.Attrs) error {
	if f.stage != nil {
		return nil
	}
	stage, err := f.stageOf(f.io, f.item, attrs)
	if errors.Is(err, errMoot) {
		return err
	}
	if err != nil {
		return &localError{f.item, err}
	}
	f.rmu.Lock()
	moot := !f.wanted()
	f.rmu.Unlock()
	if moot {
		return errMoot
	}
	f.stage = stage
	return nil
}

// wanted reports whether the chunks still belong to the item as it is. The caller holds rmu.
func (f *filling) wanted() bool {
	p := &f.pieces[f.item]
	return p.at == missing && p.tree == f.tree
}

// put writes a verified chunk. The last one of a part makes the part count, and journals it when its turn has come.
func (f *filling) put(c wire.Chunk) error {
	if err := f.write(c); err != nil {
		return err
	}
	if err := f.advance(); err != nil {
		return err
	}
	if f.turn {
		return f.settle(c)
	}
	buf := f.a.buffer()
	c.Data = buf[:copy(buf, c.Data)]
	f.ahead = append(f.ahead, c)
	return nil
}

// last reports whether chunk index is the last one of its part.
func (f *filling) last(index int64) bool {
	return (index+1)%f.pieces[f.item].unit == 0 || index+1 == f.tree.Count()
}

func (f *filling) write(c wire.Chunk) error {
	index := c.Index / f.pieces[f.item].unit
	if f.part == nil {
		part, err := f.stage.Part(f.io, index)
		if err != nil {
			return &localError{f.item, fmt.Errorf("beginning part %d of item %d: %w", index, f.item, err)}
		}
		f.part = part
	}
	if _, err := f.part.Write(c.Data); err != nil {
		return &localError{f.item, fmt.Errorf("writing chunk %d of item %d: %w", c.Index, f.item, err)}
	}
	if !f.last(c.Index) {
		return nil
	}
	err := f.part.Close()
	f.part = nil
	if err != nil {
		return &localError{f.item, fmt.Errorf("ending part %d of item %d: %w", index, f.item, err)}
	}
	return nil
}

// advance looks whether the turn of the want has come, and settles what waited for it.
func (f *filling) advance() (err error) {
	if f.turn {
		return nil
	}
	f.rmu.Lock()
	p := &f.pieces[f.item]
	ready, ordered, state := !p.ordered || p.summed == f.first, p.ordered, p.sum
	f.rmu.Unlock()
	if !ready {
		return nil
	}
	if ordered {
		if f.sums, err = newSums(sumsOf(f.man.Items[f.item]), state); err != nil {
			return &localError{f.item, err}
		}
	}
	f.turn = true
	for len(f.ahead) > 0 {
		c := f.ahead[0]
		f.ahead = f.ahead[1:]
		err := f.settle(c)
		f.a.release(c.Data[:cap(c.Data)])
		if err != nil {
			return err
		}
	}
	return nil
}

// await returns once all that came is settled. If nobody fetches what must come before, it fails with errMoot: then that is what this
// wanter is to do.
func (f *filling) await(ctx context.Context) error {
	for {
		f.rmu.Lock()
		p, changed := &f.pieces[f.item], f.changed
		vain := !f.wanted() || f.fatal != nil || p.summed != f.first && !p.tree.InFlight(p.summed)
		f.rmu.Unlock()
		if err := f.advance(); err != nil || f.turn {
			return err
		}
		if vain {
			return errMoot
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// settle hashes a chunk that is written, whose turn it is, and journals a part with its last one.
func (f *filling) settle(c wire.Chunk) error {
	f.sums.write(c.Data)
	f.values = append(f.values, c.Value)
	if !f.last(c.Index) {
		return nil
	}
	err := f.keep(c.Index + 1 - int64(len(f.values)))
	f.values = f.values[:0]
	return err
}

// abort gives up what is not a whole part, or has waited in vain.
func (f *filling) abort() {
	if f.part != nil {
		f.part.Abort()
		f.part = nil
	}
	for _, c := range f.ahead {
		f.a.release(c.Data[:cap(c.Data)])
	}
	f.ahead = nil
}

// keep journals a part that counts, data first, and takes its values in. start is its first chunk.
func (f *filling) keep(start int64) error {
	state, err := f.sums.state()
	if err != nil {
		return err
	}
	p := &f.pieces[f.item]
	p.writing.Lock()
	defer p.writing.Unlock()
	f.rmu.Lock()
	moot := !f.wanted()
	p.dirty = p.dirty || !moot
	f.rmu.Unlock()
	if moot {
		return errMoot
	}
	if err := f.record(partRecord(f.item, start, f.values, state)); err != nil {
		f.stop(err)
		return err
	}
	if err := f.admit(start, state); err != nil {
		return err
	}
	if h := f.a.conf.hooks.moved; h != nil && !h("part", f.item, start) {
		return errMoot
	}
	return nil
}

// admit takes the values of a part in that was journalled.
func (f *filling) admit(start int64, state []byte) error {
	f.rmu.Lock()
	defer f.rmu.Unlock()
	p := &f.pieces[f.item]
	if !f.wanted() || p.tree.Has(start) {
		return nil
	}
	var n int64
	for j, v := range f.values {
		index := start + int64(j)
		if err := p.tree.Add(index, v); err != nil {
			return err
		}
		_, size := chunk.Span(p.tree.Size(), index)
		n += size
	}
	if p.ordered {
		p.sum, p.summed = state, start+int64(len(f.values))
		f.signal() // to who waits for its turn
	}
	f.mu.Lock()
	f.bytes += n
	f.mu.Unlock()
	if f.since += n; f.since >= bulkBytes {
		f.since = 0
		select {
		case f.bulk <- struct{}{}:
		default:
		}
	}
	if p.tree.Complete() {
		p.at, p.seal = sealing, true
		f.signal()
	}
	return nil
}
