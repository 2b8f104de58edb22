package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/consign-transfer/consign/agent/store"
)

// A part streams into one PutPart, which runs in a goroutine of its own. Close and Abort wait for it.
type part struct {
	f     *item
	index int64
	size  int64
	n     int64 // written
	err   error // why it will not count
	ended bool

	w    *io.PipeWriter
	dog  *watchdog
	free func() bool // stops closing w with the context

	over chan struct{} // closed when PutPart has returned
	made Part          // what it returned; read after over
	fail error
}

var (
	errEnded = errors.New("the part was ended before it was whole")
	errEarly = errors.New("the service has answered before the part was whole")
)

// stream begins to write a part. The service's time counts only while there is something to take from us.
func (f *item) stream(ctx context.Context, up Upload, index, size int64) *part {
	ctx, dog := watch(ctx, f.b.s.opt.Stall)
	r, w := io.Pipe()
	p := &part{f: f, index: index, size: size, w: w, dog: dog, over: make(chan struct{})}
	p.free = context.AfterFunc(ctx, func() { _ = w.CloseWithError(context.Cause(ctx)) }) // never an error
	go func() {
		defer close(p.over)
		p.made, p.fail = f.b.s.b.PutPart(ctx, up, index, &fedReader{io.LimitReader(r, size), dog}, size)
		_ = r.CloseWithError(errEarly) // never an error
	}()
	return p
}

// A fedReader tells a watchdog that something moves.
type fedReader struct {
	r   io.Reader
	dog *watchdog
}

func (f *fedReader) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	f.dog.feed()
	return n, err
}

// Write implements io.Writer.
func (p *part) Write(b []byte) (int, error) {
	switch {
	case p.ended:
		return 0, fs.ErrClosed
	case p.err != nil:
		return 0, p.err
	case int64(len(b)) > p.size-p.n:
		p.stop(fmt.Errorf("writing %d bytes behind %d of %d: out of range", len(b), p.n, p.size))
		return 0, p.err
	}
	p.dog.wake()
	n, err := p.w.Write(b)
	p.dog.sleep()
	p.n += int64(n)
	if err != nil {
		p.stop(nil)
		return n, p.err
	}
	return n, nil
}

// stop ends PutPart and waits for it. The part does not count, because of err or else of what PutPart said.
func (p *part) stop(err error) {
	p.dog.cancel(errEnded)
	_ = p.w.CloseWithError(errEnded) // never an error
	<-p.over
	p.free()
	p.dog.end()
	switch {
	case err != nil:
		p.err = err
	case p.fail == nil:
		p.err = errEarly
	default:
		p.err = p.f.refused(p.dog.why(p.fail))
	}
}

// refused gives a failure of PutPart its kind.
func (f *item) refused(err error) error {
	switch {
	case errors.Is(err, ErrNoUpload):
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.dead == nil {
			f.dead = fmt.Errorf("writing item %d: the service has no such upload: %w", f.item.Index, store.ErrLost)
		}
		return f.dead
	case passes(err):
		return storeAway(err)
	}
	return fmt.Errorf("writing item %d: %w", f.item.Index, err)
}

// Close implements store.Part.
func (p *part) Close() error {
	switch {
	case p.ended:
		return fs.ErrClosed
	case p.err == nil && p.n != p.size:
		p.stop(fmt.Errorf("closing a part: it has %d bytes of %d", p.n, p.size))
	}
	p.ended = true
	if p.err != nil {
		return p.err
	}
	p.dog.wake()
	<-p.over
	_ = p.w.Close() // never an error
	p.free()
	p.dog.end()
	f := p.f
	if p.fail != nil {
		return f.refused(p.dog.why(p.fail))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.dead != nil:
		return f.dead
	case f.sealed:
		return errSealed
	}
	p.made.Index, p.made.Size = p.index, p.size
	f.parts[p.index] = p.made
	return nil
}

// Abort implements store.Part.
func (p *part) Abort() {
	if !p.ended && p.err == nil {
		p.stop(errEnded)
	}
	p.ended = true
}
