package mem

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// describe is o as a caller sees it now.
func (s *Store) describe(o *object) store.Info {
	in := o.info
	in.Fresh = s.now().Sub(o.at).Abs() < store.Settle
	in.Attrs.Meta = maps.Clone(in.Attrs.Meta)
	return in
}

// Stat implements store.Store.
func (s *Store) Stat(ctx context.Context, name token.ObjectName) (store.Info, error) {
	if err := ctx.Err(); err != nil {
		return store.Info{}, err
	}
	if err := checkName(name); err != nil {
		return store.Info{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.verdict(OpStat, string(name)); err != nil {
		return store.Info{}, err
	}
	o := s.objects[string(name)]
	if o == nil {
		return store.Info{}, missing(name)
	}
	return s.describe(o), nil
}

// List implements store.Lister in the order of segments.
func (s *Store) List(ctx context.Context, prefix, after token.ObjectName, yield func(store.Info, error) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.checkPrefix(prefix); err != nil {
		return err
	}
	for _, name := range s.names(string(prefix), string(after)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		in, ok, err := s.listed(name)
		if ok && !yield(in, err) {
			return nil
		}
	}
	return ctx.Err()
}

func (s *Store) checkPrefix(prefix token.ObjectName) error {
	if prefix != "" {
		if err := checkName(prefix); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.verdict(OpList, ""); err != nil || prefix == "" {
		return err
	}
	if o := s.objects[string(prefix)]; o == nil || o.info.Type != store.Subtree {
		return missing(prefix)
	}
	return nil
}

// names returns what there is below prefix behind after, in order, without subtrees that hold anything.
func (s *Store) names(prefix, after string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := map[string]bool{}
	for name := range s.objects {
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			full[name[:i]] = true
		}
	}
	var names []string
	for name := range s.objects {
		below := prefix == "" || strings.HasPrefix(name, prefix+"/")
		parent := full[name] && s.objects[name].info.Type == store.Subtree
		if below && !parent && (after == "" || compareNames(name, after) > 0) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, compareNames)
	return names
}

// listed describes name, unless it has gone since names was called.
func (s *Store) listed(name string) (in store.Info, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[name]
	if o == nil {
		return store.Info{}, false, nil
	}
	_, err = s.verdict(OpList, name)
	return s.describe(o), true, err
}

func compareNames(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// A reader reads the bytes that were there when it was opened.
type reader struct {
	s    *Store
	o    *object
	info store.Info
}

// Open implements store.Store.
func (s *Store) Open(ctx context.Context, name token.ObjectName, version token.Version) (store.Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.verdict(OpOpen, string(name)); err != nil {
		return nil, err
	}
	o := s.objects[string(name)]
	switch {
	case o == nil:
		return nil, missing(name)
	case o.info.Type != store.Object:
		return nil, problem.New(problem.Unreadable, "%q is not an object.", name)
	case o.info.Version != version:
		return nil, problem.New(problem.Changed, "%q is not the version that was planned.", name)
	}
	return &reader{s: s, o: o, info: s.describe(o)}, nil
}

func (r *reader) Close() error { return nil }

func (r *reader) Info(ctx context.Context) (store.Info, error) {
	if err := ctx.Err(); err != nil {
		return store.Info{}, err
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if _, err := r.s.verdict(OpInfo, string(r.info.Name)); err != nil {
		return store.Info{}, err
	}
	return r.info, nil
}

func (r *reader) Section(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if off < 0 || n < 0 || off+n < 0 {
		return nil, fmt.Errorf("reading %d bytes at %d: %w", n, off, fs.ErrInvalid)
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if _, err := r.s.verdict(OpSection, string(r.info.Name)); err != nil {
		return nil, err
	}
	size := int64(len(r.o.data))
	return &section{ctx: ctx, r: r, data: r.o.data[min(off, size):min(off+n, size)], short: off+n > size && n > 0}, nil
}

// A section is what is left to read of one.
type section struct {
	ctx   context.Context // of the call of Section, for which the Reads stand
	r     *reader
	data  []byte
	short bool // the object ends before the section
}

func (s *section) Close() error { return nil }

func (s *section) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	s.r.s.mu.Lock()
	defer s.r.s.mu.Unlock()
	if _, err := s.r.s.verdict(OpRead, string(s.r.info.Name)); err != nil {
		return 0, err
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	switch {
	case n > 0 || len(p) == 0:
		return n, nil
	case s.short:
		return 0, io.ErrUnexpectedEOF
	}
	return 0, io.EOF
}

func (r *reader) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if _, err := r.s.verdict(OpCheck, string(r.info.Name)); err != nil {
		return err
	}
	if r.s.objects[string(r.info.Name)] != r.o {
		return problem.New(problem.Changed, "%q was changed while it was read.", r.info.Name)
	}
	return nil
}
