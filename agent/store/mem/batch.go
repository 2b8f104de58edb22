package mem

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A batch is the stages of one batch; s.mu guards it.
type batch struct {
	s      *Store
	id     store.BatchID
	closed bool
}

// Batch implements store.Store.
func (s *Store) Batch(ctx context.Context, id store.BatchID) (store.Batch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !validBatch(id) {
		return nil, fmt.Errorf("opening batch %q: not an id", id)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse[id] != nil {
		return nil, problem.New(problem.Claimed, "The batch is already in use.")
	}
	if s.batches[id] == nil {
		s.batches[id] = map[int]*content{}
	}
	b := &batch{s: s, id: id}
	s.inUse[id] = b
	return b, nil
}

func validBatch(id store.BatchID) bool {
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return id != "" && len(id) <= 128
}

// Batches implements store.Store.
func (s *Store) Batches(ctx context.Context) ([]store.BatchID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.batches)), ctx.Err()
}

func (b *batch) label(item int) string { return fmt.Sprintf("%s/%d", b.id, item) }

// Stage implements store.Batch.
func (b *batch) Stage(ctx context.Context, item int, size int64) (store.Stage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if item < 0 || size < 0 {
		return nil, fmt.Errorf("staging item %d of %d bytes: out of range", item, size)
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.closed {
		return nil, fmt.Errorf("staging: %w", fs.ErrClosed)
	}
	persist, err := b.s.verdict(OpStage, b.label(item))
	if err != nil && !persist {
		return nil, err
	}
	c, created := b.s.batches[b.id][item], false
	if c == nil {
		c, created = &content{size: size}, true
		b.s.batches[b.id][item] = c
	}
	if err != nil {
		return nil, err
	}
	if c.size != size {
		return nil, fmt.Errorf("staging item %d: %d bytes, and %d before", item, size, c.size)
	}
	return &stage{b: b, item: item, c: c, created: created}, nil
}

// Publish implements store.Batch.
func (b *batch) Publish(ctx context.Context, pubs []store.Publication) []store.Published {
	outs := make([]store.Published, len(pubs))
	seen := map[int]bool{}
	for i, p := range pubs {
		if seen[p.Item] {
			outs[i].Err = fmt.Errorf("publishing item %d: named twice", p.Item)
			continue
		}
		seen[p.Item] = true
		info, err := b.publish(ctx, p)
		outs[i] = store.Published{Info: info, Err: err}
		if err == nil && p.Attrs.Mode&^0o777 != 0 {
			outs[i].Lost = []string{"mode"}
		}
	}
	return outs
}

func (b *batch) publish(ctx context.Context, p store.Publication) (store.Info, error) {
	if err := ctx.Err(); err != nil {
		return store.Info{}, err
	}
	if err := token.CheckName(p.Name); err != nil {
		return store.Info{}, err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.closed {
		return store.Info{}, fmt.Errorf("publishing: %w", fs.ErrClosed)
	}
	c := b.s.batches[b.id][p.Item]
	if c == nil || int64(len(c.data)) != p.Size {
		return store.Info{}, fmt.Errorf("publishing item %d: no stage of %d bytes", p.Item, p.Size)
	}
	if c.dead != nil {
		return store.Info{}, c.dead
	}
	persist, err := b.s.verdict(OpPublish, string(p.Name))
	if err != nil && !persist {
		return store.Info{}, err
	}
	c.sealed = true
	o, from := b.s.objects[string(p.Name)], origin{b.id, p.Item}
	switch {
	case o != nil && o.from == from && c.done == p.Name:
		return b.s.describe(o), err
	case o != nil || c.done != "" || b.s.blocked(string(p.Name)):
		return store.Info{}, problem.New(problem.Taken, "%q exists at the destination.", p.Name)
	}
	attrs := p.Attrs
	attrs.Meta = maps.Clone(attrs.Meta)
	if attrs.ModTime.IsZero() {
		attrs.ModTime = b.s.now()
	}
	if !attrs.HasMode {
		attrs.Mode, attrs.HasMode = 0o644, true
	}
	attrs.Mode &= 0o777
	c.synced, c.done = append([]byte{}, c.data...), p.Name
	b.s.put(p.Name, slices.Clone(c.data), attrs, from)
	if err != nil {
		return store.Info{}, err
	}
	return b.s.describe(b.s.objects[string(p.Name)]), nil
}

// Drop implements store.Batch.
func (b *batch) Drop(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	persist, err := b.s.verdict(OpDrop, string(b.id))
	if err != nil && !persist {
		return err
	}
	b.close()
	delete(b.s.batches, b.id)
	return err
}

// Close implements store.Batch.
func (b *batch) Close() error {
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.close()
	return nil
}

func (b *batch) close() {
	if !b.closed {
		b.closed = true
		delete(b.s.inUse, b.id)
	}
}

// A stage is one opening of a content; s.mu guards it.
type stage struct {
	b       *batch
	item    int
	c       *content
	created bool
	closed  bool
}

func (st *stage) Created() bool { return st.created }

func (st *stage) usable() error {
	if st.closed || st.b.closed {
		return fs.ErrClosed
	}
	return st.c.dead
}

func (st *stage) WriteAt(p []byte, off int64) (int, error) {
	st.b.s.mu.Lock()
	defer st.b.s.mu.Unlock()
	if err := st.usable(); err != nil {
		return 0, err
	}
	if st.c.sealed {
		return 0, errors.New("the item is published or about to be: it is not written any more")
	}
	if off < 0 || int64(len(p)) > st.c.size-off {
		return 0, fmt.Errorf("writing %d bytes at %d of %d: out of range", len(p), off, st.c.size)
	}
	persist, err := st.b.s.verdict(OpWrite, st.b.label(st.item))
	if err != nil && !persist {
		return 0, err
	}
	if grow := off + int64(len(p)) - int64(len(st.c.data)); grow > 0 {
		st.c.data = append(st.c.data, make([]byte, grow)...)
	}
	copy(st.c.data[off:], p)
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (st *stage) ReadAt(p []byte, off int64) (int, error) {
	st.b.s.mu.Lock()
	defer st.b.s.mu.Unlock()
	if err := st.usable(); err != nil {
		return 0, err
	}
	return readAt(st.c.data, p, off)
}

func (st *stage) Sync() error {
	st.b.s.mu.Lock()
	defer st.b.s.mu.Unlock()
	if err := st.usable(); err != nil {
		return err
	}
	persist, err := st.b.s.verdict(OpSync, st.b.label(st.item))
	if err == nil || persist {
		st.c.synced = append([]byte{}, st.c.data...)
	}
	if err != nil {
		st.c.dead = fmt.Errorf("the stage is poisoned by a failed sync: %w", err)
		delete(st.b.s.batches[st.b.id], st.item)
		return st.c.dead
	}
	return nil
}

func (st *stage) Discard() error {
	st.b.s.mu.Lock()
	defer st.b.s.mu.Unlock()
	if st.b.closed {
		return fs.ErrClosed
	}
	st.closed = true
	if st.b.s.batches[st.b.id][st.item] == st.c {
		delete(st.b.s.batches[st.b.id], st.item)
	}
	return nil
}

func (st *stage) Close() error {
	st.b.s.mu.Lock()
	defer st.b.s.mu.Unlock()
	st.closed = true
	return nil
}
