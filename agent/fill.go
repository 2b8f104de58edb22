package agent

import (
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/wire"
)

// A filling is the chunks of one want on their way into the stage of their item, part by part. What is left of a part when
// it is aborted is as if it had never come. It belongs to one goroutine.
type filling struct {
	*receiver
	want
	stage  store.Stage   // nil until begin
	part   store.Part    // nil between parts
	start  int64         // first chunk of part
	values []chunk.Value // of the chunks in part
	sum    hash.Hash     // over the item so far, if SHA-256 is kept along; nil if not
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
	p := &f.pieces[f.item]
	moot := !f.wanted()
	ordered, state := p.ordered, p.sum
	f.rmu.Unlock()
	if moot {
		return errMoot
	}
	f.stage = stage
	if !ordered {
		return nil
	}
	if f.sum, err = sumFrom(state); err != nil {
		return &localError{f.item, err}
	}
	return nil
}

// wanted reports whether the chunks still belong to the item as it is. The caller holds rmu.
func (f *filling) wanted() bool {
	p := &f.pieces[f.item]
	return p.at == missing && p.tree == f.tree
}

// put writes a verified chunk. The last one of a part makes the part count, and journals it.
func (f *filling) put(c wire.Chunk) error {
	unit, count := f.pieces[f.item].unit, f.tree.Count()
	if f.part == nil {
		part, err := f.stage.Part(f.io, c.Index/unit)
		if err != nil {
			return &localError{f.item, fmt.Errorf("beginning part %d of item %d: %w", c.Index/unit, f.item, err)}
		}
		f.part, f.start, f.values = part, c.Index, f.values[:0]
	}
	if _, err := f.part.Write(c.Data); err != nil {
		return &localError{f.item, fmt.Errorf("writing chunk %d of item %d: %w", c.Index, f.item, err)}
	}
	f.values = append(f.values, c.Value)
	if f.sum != nil {
		f.sum.Write(c.Data)
	}
	if c.Index+1 < min(f.start+unit, count) {
		return nil
	}
	err := f.part.Close()
	f.part = nil
	if err != nil {
		return &localError{f.item, fmt.Errorf("ending part %d of item %d: %w", c.Index/unit, f.item, err)}
	}
	return f.keep()
}

// abort gives up what is not a whole part.
func (f *filling) abort() {
	if f.part != nil {
		f.part.Abort()
		f.part = nil
	}
}

// keep journals a part that counts, data first, and takes its values in.
func (f *filling) keep() error {
	var state []byte
	if f.sum != nil {
		var err error
		if state, err = f.sum.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
			return fmt.Errorf("keeping the state of SHA-256: %w", err)
		}
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
	if err := f.record(partRecord(f.item, f.start, f.values, state)); err != nil {
		f.stop(err)
		return err
	}
	if err := f.admit(state); err != nil {
		return err
	}
	if h := f.a.conf.hooks.moved; h != nil && !h("part", f.item, f.start) {
		return errMoot
	}
	return nil
}

// admit takes the values of a part in that was journalled.
func (f *filling) admit(state []byte) error {
	f.rmu.Lock()
	defer f.rmu.Unlock()
	p := &f.pieces[f.item]
	if !f.wanted() || p.tree.Has(f.start) {
		return nil
	}
	var n int64
	for j, v := range f.values {
		index := f.start + int64(j)
		if err := p.tree.Add(index, v); err != nil {
			return err
		}
		_, size := chunk.Span(p.tree.Size(), index)
		n += size
	}
	if state != nil {
		p.sum, p.summed = state, f.start+int64(len(f.values))
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

// sumFrom returns SHA-256 in a state that it was in, or new.
func sumFrom(state []byte) (hash.Hash, error) {
	sum := sha256.New()
	if len(state) == 0 {
		return sum, nil
	}
	if err := sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return nil, fmt.Errorf("taking up the state of SHA-256: %w", err)
	}
	return sum, nil
}
