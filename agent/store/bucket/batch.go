package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"sync"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

// maxDropped bounds the ids that are remembered of batches whose parts only time removes.
const maxDropped = 10_000

// A batch is the stages of one batch. Lock order: mu, then an item's own.
type batch struct {
	s    *Store
	id   store.BatchID
	anew bool // what the service lists under this id was given up

	mu       sync.Mutex // guards all below
	items    map[int]*item
	discards map[int]bool // items of which the service may still list parts that were given up
	closed   bool
}

// Batch implements store.Store. It makes no request.
func (s *Store) Batch(ctx context.Context, id store.BatchID) (store.Batch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !validBatch(id) || isProbe(id) {
		return nil, fmt.Errorf("opening batch %q: not an id", id)
	}
	if err := s.claim(id); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &batch{s: s, id: id, anew: s.dropped[id], items: map[int]*item{}, discards: map[int]bool{}}, nil
}

func (b *batch) alive(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return fmt.Errorf("using a batch: %w", fs.ErrClosed)
	}
	return ctx.Err()
}

func checkItem(it store.Item) error {
	if it.Index < 0 || it.Size < 0 || it.Part < token.ChunkSize || it.Part&(it.Part-1) != 0 {
		return fmt.Errorf("staging item %d of %d bytes in parts of %d: out of range", it.Index, it.Size, it.Part)
	}
	return nil
}

// small reports whether a stage is kept in memory.
func small(it store.Item) bool { return it.Size <= token.ChunkSize }

// Stage implements store.Batch. For a small item it makes no request. For a large one it lists what was written before, where it may
// have been.
func (b *batch) Stage(ctx context.Context, it store.Item) (store.Stage, error) {
	if err := b.alive(ctx); err != nil {
		return nil, err
	}
	if err := checkItem(it); err != nil {
		return nil, err
	}
	f, err := b.find(it)
	if err != nil {
		return nil, fmt.Errorf("staging item %d: %w", it.Index, err)
	}
	if f == nil {
		if f, err = b.load(ctx, it); err != nil {
			return nil, fmt.Errorf("staging item %d: %w", it.Index, err)
		}
		f = b.add(f)
	}
	return &stage{f: f}, nil
}

// find returns the item if it is known in this life, and nil if not.
func (b *batch) find(it store.Item) (*item, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.items[it.Index]
	if f != nil && (f.item.Size != it.Size || f.item.Part != it.Part) {
		return nil, fmt.Errorf("%d bytes in parts of %d, and %d of %d before", it.Size, it.Part, f.item.Size, f.item.Part)
	}
	return f, nil
}

// add keeps f unless another call was faster, and returns the one that is kept.
func (b *batch) add(f *item) *item {
	b.mu.Lock()
	defer b.mu.Unlock()
	if other := b.items[f.item.Index]; other != nil {
		return other
	}
	if !b.closed {
		b.items[f.item.Index] = f
	}
	return f
}

// load returns an item with what an earlier life has left of it.
func (b *batch) load(ctx context.Context, it store.Item) (*item, error) {
	f := &item{b: b, item: it, key: b.s.key(it.Name), begins: make(chan struct{}, 1), parts: map[int64]Part{}}
	b.mu.Lock()
	anew := b.anew || b.discards[it.Index]
	b.mu.Unlock()
	if small(it) || anew && b.s.limits.Named {
		return f, nil
	}
	if err := b.s.checkName(it.Name); err != nil {
		return nil, err
	}
	if err := f.known(ctx); err != nil || f.up.ID == "" {
		return f, err
	}
	parts, err := b.s.parts(ctx, f.up)
	switch {
	case errors.Is(err, ErrNoUpload) && b.s.limits.Named:
		return f, nil // neither parts nor an object
	case err != nil && !errors.Is(err, ErrNoUpload):
		return nil, err
	case len(parts) == 0:
		return f, f.wasPublished(ctx)
	}
	for _, p := range parts {
		if p.Index < 0 || p.Index >= it.Parts() {
			continue
		}
		if _, n := it.Span(p.Index); p.Size == n {
			f.parts[p.Index] = p
		}
	}
	return f, nil
}

// known finds the upload of an earlier life.
func (f *item) known(ctx context.Context) (err error) {
	origin := store.OriginOf(f.b.id, f.item.Index)
	if f.b.s.limits.Named {
		f.up, err = f.b.s.b.Begin(ctx, f.key, f.b.s.header(f.item.Attrs, origin, ""))
		f.up.Part = f.item.Part
		return err
	}
	n, ok := f.b.s.noted(origin)
	if ok && n.Key == f.key {
		f.up, f.asked = n.upload(), n.Asked
	}
	return nil
}

// wasPublished seals the item if it has become an object already, so that nothing is sent again.
func (f *item) wasPublished(ctx context.Context) error {
	var o Object
	err := f.b.s.call(ctx, f.b.s.opt.Stall, func(ctx context.Context) (err error) {
		o, err = f.b.s.look(ctx, store.Publication{Item: f.item}, store.OriginOf(f.b.id, f.item.Index))
		return err
	})
	switch {
	case err == nil:
		f.sealed, f.done = true, &o
	case !errors.Is(err, errGone) && !isTaken(err):
		return err
	}
	return nil
}

func (s *Store) parts(ctx context.Context, up Upload) (parts []Part, err error) {
	err = s.call(ctx, s.opt.Stall, func(ctx context.Context) error {
		parts, err = s.b.Parts(ctx, up)
		return err
	})
	return parts, err
}

// Close implements store.Batch.
func (b *batch) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.closed = true
		b.items = nil
		b.s.release(b.id)
	}
	return nil
}

// Drop implements store.Batch. If it fails the batch stays in use, and can be dropped again.
func (b *batch) Drop(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	items := maps.Clone(b.items)
	b.mu.Unlock()
	if err := b.s.remove(ctx, b.id, items); err != nil {
		return fmt.Errorf("dropping batch %s: %w", b.id, err)
	}
	if b.s.limits.Expire > 0 {
		b.s.mu.Lock()
		if len(b.s.dropped) == maxDropped {
			clear(b.s.dropped)
		}
		b.s.dropped[b.id] = true
		b.s.mu.Unlock()
	}
	return b.Close()
}
