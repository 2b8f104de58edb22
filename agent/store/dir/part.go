package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/consign-transfer/consign/agent/store"
)

// A progress is which parts of an item are there. Of a file that was made in this life they are those that were closed
// since; of an older one all that were not begun again, because only the caller's journal knows which were written.
type progress struct {
	item store.Item
	made bool // in this life

	taking sync.Mutex // makes take one at a time, and comes before every other lock

	mu      sync.Mutex       // guards all below
	marks   map[int64]uint64 // a bit for each part that counts, if made; else for each that does not
	marked  int64
	writers map[int64]*part // the last writer of each part
}

func newProgress(item store.Item, made bool) *progress {
	return &progress{item: item, made: made, marks: map[int64]uint64{}, writers: map[int64]*part{}}
}

func (pr *progress) holds(part int64) bool {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.marks[part>>6]>>(part&63)&1 == 1 == pr.made
}

// whole reports whether every part counts. An object without bytes needs none.
func (pr *progress) whole() bool {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if pr.made && pr.item.Size > 0 {
		return pr.marked == pr.item.Parts()
	}
	return pr.marked == 0 || pr.item.Size == 0
}

// set says whether a part counts.
func (pr *progress) set(part int64, counts bool) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	bit := uint64(1) << (part & 63)
	word, mark := pr.marks[part>>6], counts == pr.made
	switch {
	case mark == (word&bit != 0):
		return
	case mark:
		word |= bit
		pr.marked++
	default:
		word &^= bit
		pr.marked--
	}
	if pr.marks[part>>6] = word; word == 0 {
		delete(pr.marks, part>>6)
	}
}

// take makes p the writer of its part. Every earlier one has written its last byte when it returns: a third that came between a
// second's entry and the end of the first would else write beside the first.
func (pr *progress) take(p *part) {
	pr.taking.Lock()
	defer pr.taking.Unlock()
	pr.mu.Lock()
	before := pr.writers[p.index]
	pr.writers[p.index] = p
	pr.mu.Unlock()
	if before != nil {
		before.fail(errors.New("another writer has begun the part"))
	}
}

func (pr *progress) leave(p *part) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	if pr.writers[p.index] == p {
		delete(pr.writers, p.index)
	}
}

// A part is written into the file at its place as the bytes come. From its first byte to its Close it
// does not count, whatever was there before.
type part struct {
	ctx   context.Context // of the call of Part, for which the Writes stand
	f     *staged
	index int64

	mu      sync.Mutex // guards all below
	at, end int64      // in the file
	err     error      // why it will not count
	ended   bool
}

// Part implements store.Stage.
func (s *stage) Part(ctx context.Context, index int64) (store.Part, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := s.f
	if index < 0 || index >= f.item.Parts() {
		return nil, fmt.Errorf("writing part %d of %d: out of range", index, f.item.Parts())
	}
	off, n := f.item.Span(index)
	p := &part{ctx: ctx, f: f, index: index, at: off, end: off + n}
	if err := p.may(); err != nil {
		return nil, err
	}
	f.done.take(p)
	return p, nil
}

// may returns why the part cannot be written, or nil.
func (p *part) may() error {
	p.f.mu.RLock()
	defer p.f.mu.RUnlock()
	return p.allowed()
}

// allowed is may for a caller that holds f.mu.
func (p *part) allowed() error {
	if err := p.f.usable(); err != nil {
		return err
	}
	if p.f.sealed {
		return errSealed
	}
	return p.ctx.Err()
}

func (p *part) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

func (p *part) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return 0, fs.ErrClosed
	}
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.write(b)
	p.err = err
	return n, err
}

func (p *part) write(b []byte) (int, error) {
	p.f.mu.RLock()
	defer p.f.mu.RUnlock()
	if err := p.allowed(); err != nil {
		return 0, err
	}
	if int64(len(b)) > p.end-p.at {
		return 0, fmt.Errorf("writing part %d: more bytes than it has", p.index)
	}
	if len(b) == 0 {
		return 0, nil
	}
	p.f.done.set(p.index, false)
	n, err := p.f.file.WriteAt(b, p.at)
	p.at += int64(n)
	if err != nil {
		return n, writeError(err, p.f.name())
	}
	return n, nil
}

func (p *part) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return fs.ErrClosed
	}
	p.ended = true
	defer p.f.done.leave(p)
	if p.err != nil {
		return p.err
	}
	if p.at != p.end {
		return fmt.Errorf("closing part %d: %d bytes are missing", p.index, p.end-p.at)
	}
	// Sealing waits, so that a part counts before it or not at all.
	p.f.mu.RLock()
	defer p.f.mu.RUnlock()
	if err := p.allowed(); err != nil {
		return err
	}
	p.f.done.set(p.index, true)
	return nil
}

func (p *part) Abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.ended = true
		p.f.done.leave(p)
	}
}
