package mem

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

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
	persist, err := s.verdict(OpBatch, string(id))
	if err != nil && !persist {
		return nil, err
	}
	if s.inUse[id] != nil {
		return nil, problem.New(problem.Claimed, "The batch is already in use.")
	}
	if s.batches[id] == nil {
		s.batches[id] = map[int]*content{}
	}
	if err != nil {
		return nil, err // made, and not in use
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

// label names a stage for the hook.
func (b *batch) label(item int) string { return string(store.OriginOf(b.id, item)) }

// small reports whether a stage of the item lives no longer than its batch.
func (s *Store) small(it store.Item) bool { return s.traits.Volatile && it.Size <= token.ChunkSize }

func checkItem(it store.Item) error {
	if it.Index < 0 || it.Size < 0 || it.Part < token.ChunkSize || it.Part&(it.Part-1) != 0 {
		return fmt.Errorf("staging item %d of %d bytes in parts of %d: out of range", it.Index, it.Size, it.Part)
	}
	return checkName(it.Name)
}

// Stage implements store.Batch.
func (b *batch) Stage(ctx context.Context, item store.Item) (store.Stage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkItem(item); err != nil {
		return nil, err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.closed {
		return nil, fmt.Errorf("staging: %w", fs.ErrClosed)
	}
	persist, err := b.s.verdict(OpStage, b.label(item.Index))
	if err != nil && !persist {
		return nil, err
	}
	c := b.s.batches[b.id][item.Index]
	if c == nil {
		c = &content{item: item, since: b.s.now(), parts: map[int64][]byte{}}
		b.s.batches[b.id][item.Index] = c
	}
	if err != nil {
		return nil, err
	}
	if c.item.Size != item.Size || c.item.Part != item.Part {
		return nil, fmt.Errorf("staging item %d: %d bytes in parts of %d, and %d of %d before", item.Index, item.Size, item.Part, c.item.Size, c.item.Part)
	}
	return &stage{b: b, c: c}, nil
}

// Publish implements store.Batch.
func (b *batch) Publish(ctx context.Context, pubs []store.Publication) []store.Published {
	outs := make([]store.Published, len(pubs))
	seen := map[int]bool{}
	for i, p := range pubs {
		if seen[p.Index] {
			outs[i].Err = fmt.Errorf("publishing item %d: named twice", p.Index)
			continue
		}
		seen[p.Index] = true
		info, err := b.publish(ctx, p)
		outs[i] = store.Published{Info: info, Err: err}
		if err == nil {
			_, outs[i].Lost = b.s.keep(p.Attrs)
		}
	}
	return outs
}

func (b *batch) publish(ctx context.Context, p store.Publication) (store.Info, error) {
	if err := ctx.Err(); err != nil {
		return store.Info{}, err
	}
	if err := checkName(p.Name); err != nil {
		return store.Info{}, err
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if b.closed {
		return store.Info{}, fmt.Errorf("publishing: %w", fs.ErrClosed)
	}
	c := b.s.batches[b.id][p.Index]
	switch {
	case c != nil && c.item.Size != p.Size:
		return store.Info{}, fmt.Errorf("publishing item %d: its stage is of %d bytes, not %d", p.Index, c.item.Size, p.Size)
	case c != nil && c.dead != nil:
		return store.Info{}, c.dead
	}
	persist, err := b.s.verdict(OpPublish, string(p.Name))
	if err != nil && !persist {
		return store.Info{}, err
	}
	if c != nil {
		c.sealed = true
	}
	o, from := b.s.objects[string(p.Name)], store.OriginOf(b.id, p.Index)
	switch {
	case o != nil && o.info.Origin == from && o.info.Size == p.Size && o.root == p.Root && (c == nil || c.done == p.Name || c.done == ""):
		return b.s.describe(o), err
	case o != nil || c != nil && c.done != "" || b.s.blocked(string(p.Name)):
		return store.Info{}, problem.New(problem.Taken, "%q exists at the destination.", p.Name)
	case c == nil || !c.whole():
		return store.Info{}, fmt.Errorf("publishing item %d: %w", p.Index, store.ErrLost)
	}
	attrs, _ := b.s.keep(p.Attrs)
	if attrs.ModTime.IsZero() {
		attrs.ModTime = b.s.now()
	}
	if !attrs.HasMode && b.s.traits.Modes {
		attrs.Mode, attrs.HasMode = 0o644, true
	}
	c.synced, c.done = maps.Clone(c.parts), p.Name
	o = b.s.put(p.Name, c.bytes(), attrs)
	o.info.Origin, o.root = from, p.Root
	if err != nil {
		return store.Info{}, err
	}
	return b.s.describe(o), nil
}

// keep splits attributes into those that the store keeps and the names of the others.
func (s *Store) keep(a store.Attrs) (kept store.Attrs, lost []string) {
	kept = a
	kept.Meta = maps.Clone(a.Meta)
	if kept.Mode &= 0o777; a.HasMode && (!s.traits.Modes || kept.Mode != a.Mode) {
		lost = append(lost, "mode")
		kept.HasMode = s.traits.Modes
	}
	if !a.ModTime.IsZero() && !s.traits.ModTimes {
		lost = append(lost, "mtime")
		kept.ModTime = time.Time{}
	}
	if a.ContentType != "" && !s.traits.Types {
		lost = append(lost, "type")
		kept.ContentType = ""
	}
	if !s.traits.Meta {
		for key := range a.Meta {
			lost = append(lost, "meta:"+key)
		}
		kept.Meta = nil
	}
	slices.Sort(lost)
	return kept, lost
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
	for item, c := range b.s.batches[b.id] {
		if c.done == "" {
			b.s.wipe(b.label(item))
		}
	}
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

// close ends the use of the batch. The caller holds s.mu.
func (b *batch) close() {
	if !b.closed {
		b.closed = true
		delete(b.s.inUse, b.id)
		maps.DeleteFunc(b.s.batches[b.id], func(_ int, c *content) bool { return b.s.small(c.item) })
	}
}
