package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"sync"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Open implements store.Store. It makes no request: what is wrong is said at the first Section or Info.
func (s *Store) Open(ctx context.Context, name token.ObjectName, version token.Version) (store.Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.checkName(name); err != nil {
		return nil, err
	}
	if version == "" {
		return nil, problem.New(problem.Changed, "%q has another version.", name)
	}
	return &reader{s: s, name: name, version: version}, nil
}

// A reader reads one version of a name. Every request carries it.
type reader struct {
	s       *Store
	name    token.ObjectName
	version token.Version

	mu     sync.Mutex // guards all below
	info   *store.Info
	failed error // that the version is gone
	closed bool
}

func (r *reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

func (r *reader) alive(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return fmt.Errorf("reading %q: %w", r.name, fs.ErrClosed)
	}
	return ctx.Err()
}

// saw checks what an answer says of the object, and remembers it.
func (r *reader) saw(o Object, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
	case !r.s.same(o.Version, r.version):
		err = problem.New(problem.Changed, "%q has another version.", r.name)
	case r.info != nil && o.Size != r.info.Size: // versitygw looks twice for one answer, and a writer comes between
		err = problem.New(problem.Changed, "%q has another size under the same version.", r.name)
	}
	if err != nil {
		if problem.Of(err) == problem.Changed {
			r.failed = err
		}
		return err
	}
	if r.info == nil && o.Meta != nil {
		in := r.s.info(r.name, o)
		in.Version = r.version // in the spelling that the caller has
		r.info = &in
	}
	return nil
}

// Info implements store.Reader.
func (r *reader) Info(ctx context.Context) (store.Info, error) {
	if err := r.alive(ctx); err != nil {
		return store.Info{}, err
	}
	r.mu.Lock()
	known := r.info
	r.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	o, err := r.s.head(ctx, r.s.key(r.name))
	if err == nil && o.Meta == nil {
		o.Meta = map[string]string{}
	}
	if err := r.saw(o, err); err != nil {
		return store.Info{}, fmt.Errorf("describing %q: %w", r.name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return *r.info, nil
}

// Check implements store.Reader. Since no request goes without the version, it fails only if one was refused.
func (r *reader) Check(ctx context.Context) error {
	if err := r.alive(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// Section implements store.Reader.
func (r *reader) Section(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if err := r.alive(ctx); err != nil {
		return nil, err
	}
	if off < 0 || n < 0 || off > math.MaxInt64-n {
		return nil, fmt.Errorf("reading %d bytes at %d: out of range", n, off)
	}
	sec := &section{r: r, ctx: ctx, off: off, left: n, loop: r.s.loop()}
	if n > 0 {
		if err := sec.open(); err != nil {
			return nil, fmt.Errorf("reading %q: %w", r.name, err)
		}
	}
	return sec, nil
}

// A section reads a range, in as many requests as it takes. It belongs to one goroutine.
type section struct {
	r    *reader
	ctx  context.Context // of Section, for which the Reads stand
	loop *loop
	off  int64
	left int64
	size int64 // of the object
	got  bool  // something was read
	err  error // why nothing more is read

	body io.ReadCloser // of the request under way; nil if there is none
	dog  *watchdog     // of the same
}

// open makes a request for what is left, until there is an answer.
func (s *section) open() error {
	for {
		err := s.ask()
		if err == nil {
			return nil
		}
		if err = s.loop.again(s.ctx, err); err != nil {
			if s.got && problem.Of(err) == problem.Missing {
				err = s.r.saw(Object{}, problem.Wrap(err, problem.Changed, "%q was removed while it was read.", s.r.name))
			}
			return err
		}
	}
}

func (s *section) ask() error {
	if err := s.ctx.Err(); err != nil {
		return err
	}
	ctx, dog := watch(s.ctx, s.r.s.opt.Stall)
	dog.wake()
	body, o, err := s.r.s.b.Get(ctx, s.r.s.key(s.r.name), s.r.version, s.off, s.left)
	dog.sleep()
	if err = s.r.saw(o, dog.why(err)); err != nil {
		if body != nil {
			_ = body.Close() // not read
		}
		dog.end()
		return err
	}
	s.body, s.dog, s.size = body, dog, o.Size
	return nil
}

// Read implements io.Reader. Where an answer breaks off, the rest is asked for.
func (s *section) Read(p []byte) (int, error) {
	if s.err == nil && s.left == 0 {
		s.err = io.EOF
	}
	for s.err == nil {
		if s.body == nil {
			if err := s.open(); err != nil {
				s.err = fmt.Errorf("reading %q: %w", s.r.name, err)
				break
			}
		}
		s.dog.wake()
		n, err := s.body.Read(p[:min(int64(len(p)), s.left)])
		s.dog.sleep()
		s.off, s.left = s.off+int64(n), s.left-int64(n)
		if n > 0 {
			s.got = true
			s.loop.renew()
		}
		if err != nil && s.left > 0 {
			s.broke(err)
		}
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, s.err
}

// broke decides whether what is left can be asked for after a body has ended early.
func (s *section) broke(err error) {
	err = s.dog.why(err)
	s.end()
	away := err
	known := isAway(err)
	if !known {
		away = &Away{Err: err}
	}
	switch code := problem.Of(err); {
	case s.ctx.Err() != nil:
		s.err = s.ctx.Err()
	case errors.Is(err, io.EOF) && s.off >= s.size:
		s.err = io.ErrUnexpectedEOF
	case !known && code != problem.Internal && code != problem.Cancelled && code != problem.Timeout:
		s.err = s.r.saw(Object{}, err)
	case s.loop.again(s.ctx, away) != nil:
		s.err = fmt.Errorf("reading %q: %w", s.r.name, storeAway(err))
	}
}

func (s *section) end() {
	if s.body != nil {
		_ = s.body.Close() // only read from
		s.dog.end()
		s.body = nil
	}
}

// Close implements io.Closer.
func (s *section) Close() error {
	s.end()
	if s.err == nil {
		s.err = fs.ErrClosed
	}
	return nil
}
