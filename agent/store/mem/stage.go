package mem

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strconv"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

// content is what was staged of an item.
type content struct {
	item   store.Item
	since  time.Time
	parts  map[int64][]byte // those that count, each never changed
	synced map[int64][]byte // what survives a crash; nil if the stage itself does not
	sealed bool
	dead   error
	done   token.ObjectName // what it was published as
}

// whole reports whether every part counts. An object without bytes needs none.
func (c *content) whole() bool { return c.item.Size == 0 || int64(len(c.parts)) == c.item.Parts() }

func (c *content) bytes() []byte {
	var b bytes.Buffer
	for part := range c.item.Parts() {
		b.Write(c.parts[part])
	}
	return b.Bytes()
}

// A stage is one opening of a content; s.mu guards it.
type stage struct {
	b      *batch
	c      *content
	closed bool
}

// lock takes s.mu and reports whether the stage can be used. The caller unlocks in any case.
func (st *stage) lock() error {
	st.b.s.mu.Lock()
	if st.closed || st.b.closed {
		return fs.ErrClosed
	}
	return st.c.dead
}

func (st *stage) label() string { return st.b.label(st.c.item.Index) }

func (st *stage) Holds(part int64) bool {
	err := st.lock()
	defer st.b.s.mu.Unlock()
	_, held := st.c.parts[part]
	return err == nil && held
}

var errSealed = errors.New("the item is published or about to be: it is not written any more")

func (st *stage) Part(ctx context.Context, index int64) (store.Part, error) {
	err := st.lock()
	defer st.b.s.mu.Unlock()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	if st.c.sealed {
		return nil, errSealed
	}
	if index < 0 || index >= st.c.item.Parts() {
		return nil, fmt.Errorf("writing part %d of %d: out of range", index, st.c.item.Parts())
	}
	p := &part{ctx: ctx, st: st, index: index, label: st.label() + "/" + strconv.FormatInt(index, 10)}
	if _, err := st.b.s.verdict(OpPart, p.label); err != nil {
		return nil, err
	}
	_, p.size = st.c.item.Span(index)
	return p, nil
}

// A part is being written. Its bytes count when it is closed.
type part struct {
	ctx   context.Context // of the call of Part, for which the Writes stand
	st    *stage
	index int64
	size  int64
	label string
	data  []byte
	err   error // why it will not count
	ended bool
}

// lock is that of the stage, and tells why the part cannot go on.
func (p *part) lock() error {
	err := p.st.lock()
	switch {
	case p.ended:
		return fs.ErrClosed
	case p.err == nil && err != nil:
		p.err = err
	case p.err == nil && p.st.c.sealed:
		p.err = errSealed
	case p.err == nil:
		p.err = p.ctx.Err()
	}
	return p.err
}

func (p *part) Write(b []byte) (int, error) {
	err := p.lock()
	defer p.st.b.s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if int64(len(b)) > p.size-int64(len(p.data)) {
		p.err = fmt.Errorf("writing %s: more than its %d bytes", p.label, p.size)
		return 0, p.err
	}
	if _, p.err = p.st.b.s.verdict(OpWrite, p.label); p.err != nil {
		return 0, p.err
	}
	p.data = append(p.data, b...)
	return len(b), nil
}

func (p *part) Close() error {
	err := p.lock()
	defer p.st.b.s.mu.Unlock()
	p.ended = true
	if err != nil {
		return err
	}
	if int64(len(p.data)) != p.size {
		return fmt.Errorf("closing %s: it has %d bytes of %d", p.label, len(p.data), p.size)
	}
	persist, err := p.st.b.s.verdict(OpClose, p.label)
	if err == nil || persist {
		p.st.c.parts[p.index] = p.data
	}
	return err
}

func (p *part) Abort() {
	_ = p.lock() // whatever it says, the part is over
	defer p.st.b.s.mu.Unlock()
	p.ended, p.data = true, nil
}

func (st *stage) ReadAt(b []byte, off int64) (int, error) {
	err := st.lock()
	defer st.b.s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if !st.b.s.traits.Rereads && st.c.item.Size > token.ChunkSize {
		return 0, fmt.Errorf("reading a stage: %w", errors.ErrUnsupported)
	}
	if _, err := st.b.s.verdict(OpReread, st.label()); err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("reading at %d: %w", off, fs.ErrInvalid)
	}
	// What was not written is zeros, as in a file with holes.
	n := 0
	for n < len(b) && off < st.c.item.Size {
		index := off / st.c.item.Part
		start, size := st.c.item.Span(index)
		piece := b[n:min(int64(len(b)), int64(n)+start+size-off)]
		clear(piece)
		if data := st.c.parts[index]; data != nil {
			copy(piece, data[off-start:])
		}
		n, off = n+len(piece), off+int64(len(piece))
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (st *stage) Sync() error {
	err := st.lock()
	defer st.b.s.mu.Unlock()
	if err != nil {
		return err
	}
	persist, err := st.b.s.verdict(OpSync, st.label())
	if err == nil || persist {
		st.c.synced = maps.Clone(st.c.parts)
	}
	if err != nil {
		st.c.dead = fmt.Errorf("the stage is poisoned by a failed sync: %w", err)
		st.forget()
		return st.c.dead
	}
	return nil
}

// forget removes the content from the batch, unless another took its place.
func (st *stage) forget() {
	stages, item := st.b.s.batches[st.b.id], st.c.item.Index
	if stages[item] == st.c {
		if st.c.done == "" {
			st.b.s.wipe(st.label())
		}
		delete(stages, item)
	}
}

func (st *stage) Discard(ctx context.Context) error {
	_ = st.lock() // a poisoned or closed stage is discarded too
	defer st.b.s.mu.Unlock()
	if st.b.closed {
		return fs.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	persist, err := st.b.s.verdict(OpDiscard, st.label())
	if err != nil && !persist {
		return err
	}
	st.closed = true
	st.forget()
	return err
}

func (st *stage) Close() error {
	_ = st.lock() // closing twice is fine
	defer st.b.s.mu.Unlock()
	st.closed = true
	return nil
}
