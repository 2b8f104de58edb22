package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/consign-transfer/consign/agent/store"
)

var errSealed = errors.New("the item is published or about to be: it is not written any more")

// An item is what is known of one item's stage, shared by the stages that were opened on it.
type item struct {
	b      *batch
	item   store.Item
	key    string
	begins chan struct{} // holds one: who begins the upload

	mu      sync.Mutex // guards all below
	up      Upload     // ID is empty before it has begun
	header  *Header    // what it was begun with, in this life
	parts   map[int64]Part
	content []byte // of a small item
	whole   bool   // content counts
	sealed  bool
	dead    error     // why it must be staged anew
	done    *Object   // what it has become
	spent   bool      // the upload has become it in this life, and nothing of it is left
	asked   time.Time // when the service was first asked to make it of its parts, in this life or an earlier one; zero is never
}

// A stage is one opening of an item.
type stage struct {
	f      *item
	closed atomic.Bool
}

func (st *stage) alive(ctx context.Context) error {
	if st.closed.Load() {
		return fmt.Errorf("using a stage: %w", fs.ErrClosed)
	}
	return st.f.b.alive(ctx)
}

// Holds implements store.Stage.
func (st *stage) Holds(part int64) bool {
	f := st.f
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.dead != nil || part < 0 || part >= f.item.Parts():
		return false
	case f.done != nil:
		return true
	case small(f.item):
		return f.whole
	}
	_, ok := f.parts[part]
	return ok
}

// Part implements store.Stage. The first one of a large item begins the upload.
func (st *stage) Part(ctx context.Context, index int64) (store.Part, error) {
	f := st.f
	if err := st.alive(ctx); err != nil {
		return nil, err
	}
	if index < 0 || index >= f.item.Parts() {
		return nil, fmt.Errorf("writing part %d of %d: out of range", index, f.item.Parts())
	}
	if err := f.writable(); err != nil {
		return nil, err
	}
	_, n := f.item.Span(index)
	if small(f.item) {
		return &smallPart{ctx: ctx, f: f, size: n}, nil
	}
	up, err := f.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("beginning item %d: %w", f.item.Index, err)
	}
	f.mu.Lock()
	delete(f.parts, index) // whatever comes of it, the service may have the new one
	f.mu.Unlock()
	return f.stream(ctx, up, index, n), nil
}

func (f *item) writable() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead != nil {
		return f.dead
	}
	if f.sealed {
		return errSealed
	}
	return nil
}

// begin returns the upload, and begins it if nobody has.
func (f *item) begin(ctx context.Context) (Upload, error) {
	select {
	case f.begins <- struct{}{}:
		defer func() { <-f.begins }()
	case <-ctx.Done():
		return Upload{}, ctx.Err()
	}
	f.mu.Lock()
	up := f.up
	f.mu.Unlock()
	if up.ID != "" {
		return up, nil
	}
	h := f.b.s.header(f.item.Attrs, store.OriginOf(f.b.id, f.item.Index), "")
	up, err := f.b.s.begin(ctx, f.key, h, f.item.Part)
	if err != nil {
		return Upload{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up, f.header = up, &h
	return up, nil
}

// ReadAt implements store.Stage, for small items.
func (st *stage) ReadAt(p []byte, off int64) (int, error) {
	f := st.f
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case !small(f.item) || f.done != nil:
		return 0, fmt.Errorf("reading a stage: %w", errors.ErrUnsupported)
	case f.dead != nil:
		return 0, f.dead
	case off < 0 || !f.whole:
		return 0, fmt.Errorf("reading a stage at %d: %w", off, fs.ErrInvalid)
	case off >= int64(len(f.content)):
		return 0, io.EOF
	}
	n := copy(p, f.content[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Sync implements store.Stage. A part that counts is with the service already, or in memory.
func (st *stage) Sync() error {
	st.f.mu.Lock()
	defer st.f.mu.Unlock()
	return st.f.dead
}

// Discard implements store.Stage. Parts that are being written must have ended.
func (st *stage) Discard(ctx context.Context) error {
	f := st.f
	if err := f.b.alive(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	f.sealed = true
	f.mu.Unlock()
	if !small(f.item) {
		if err := f.b.s.forget(ctx, store.OriginOf(f.b.id, f.item.Index), f); err != nil {
			return fmt.Errorf("discarding item %d: %w", f.item.Index, err)
		}
	}
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	if f.b.items[f.item.Index] == f {
		delete(f.b.items, f.item.Index)
		f.b.discards[f.item.Index] = true
	}
	return nil
}

// Close implements store.Stage.
func (st *stage) Close() error {
	st.closed.Store(true)
	return nil
}

// A smallPart is the one part of a small item.
type smallPart struct {
	ctx   context.Context // of Part, for which the Writes stand
	f     *item
	size  int64
	data  []byte
	err   error // why it will not count
	ended bool
}

func (p *smallPart) Write(b []byte) (int, error) {
	switch {
	case p.ended:
		return 0, fs.ErrClosed
	case p.err == nil && p.ctx.Err() != nil:
		p.err = p.ctx.Err()
	case p.err == nil && int64(len(b)) > p.size-int64(len(p.data)):
		p.err = fmt.Errorf("writing %d bytes behind %d of %d: out of range", len(b), len(p.data), p.size)
	}
	if p.err != nil {
		return 0, p.err
	}
	if p.data == nil {
		p.data = make([]byte, 0, p.size)
	}
	p.data = append(p.data, b...)
	return len(b), nil
}

func (p *smallPart) Close() error {
	if p.ended {
		return fs.ErrClosed
	}
	p.ended = true
	if p.err != nil {
		return p.err
	}
	if int64(len(p.data)) != p.size {
		return fmt.Errorf("closing a part: it has %d bytes of %d", len(p.data), p.size)
	}
	f := p.f
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.dead != nil:
		return f.dead
	case f.sealed:
		return errSealed
	}
	f.content, f.whole = p.data, true
	return nil
}

func (p *smallPart) Abort() { p.ended, p.data = true, nil }
