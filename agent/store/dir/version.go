package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// versionOf is the version of a file in the state st.
func versionOf(st disk.Stat) token.Version {
	if st.Links > 1 {
		return shortVersion(st)
	}
	return longVersion(st)
}

func shortVersion(st disk.Stat) token.Version {
	b := make([]byte, 0, 64)
	for i, n := range []uint64{st.Dev, st.Inode, uint64(st.Size), uint64(st.MTime.UnixNano())} {
		if i > 0 {
			b = append(b, '-')
		}
		b = strconv.AppendUint(b, n, 36)
	}
	return token.Version(b)
}

func longVersion(st disk.Stat) token.Version {
	b := append([]byte(shortVersion(st)), '-')
	return token.Version(strconv.AppendUint(b, uint64(st.CTime.UnixNano()), 36))
}

// matches reports whether a file in the state st is at version v, in either form.
func matches(v token.Version, st disk.Stat) bool {
	return v == longVersion(st) || v == shortVersion(st)
}

// unchanged reports whether a file went from one state to the other by nothing but
// getting or losing names.
func unchanged(from, to disk.Stat) bool {
	return from.Same(to) && from.Size == to.Size && from.MTime.Equal(to.MTime) &&
		(from.CTime.Equal(to.CTime) || from.Links != to.Links)
}

// A reader reads one file that was pinned when it was opened.
type reader struct {
	s    *Store
	file disk.File
	st   disk.Stat // when it was opened
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
	f, err := s.root.OpenFile(string(name), disk.Read)
	if err != nil {
		return nil, readError(err, name)
	}
	st, err := f.Stat()
	if err == nil && !matches(version, st) {
		err = problem.New(problem.Changed, "%q is not the version that was planned.", name)
	}
	if err != nil {
		_ = f.Close() // nothing was read
		return nil, readError(err, name)
	}
	r := &reader{s: s, file: f, st: st, info: s.info(name, st)}
	r.info.Version = version
	return r, nil
}

func (r *reader) Close() error { return r.file.Close() }

func (r *reader) Info(ctx context.Context) (store.Info, error) {
	if err := ctx.Err(); err != nil {
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
	return &section{ctx: ctx, r: r, off: off, end: off + n}, nil
}

// A section reads the open file from off to end. That it was changed is found out by Check.
type section struct {
	ctx      context.Context // of the call of Section, for which the Reads stand
	r        *reader
	off, end int64
}

func (s *section) Close() error { return nil }

func (s *section) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if s.off >= s.end {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.end-s.off)]
	n, err := s.r.file.ReadAt(p, s.off)
	s.off += int64(n)
	switch {
	case n > 0 || len(p) == 0:
		return n, nil // an error comes again with the next
	case errors.Is(err, io.EOF):
		return 0, io.ErrUnexpectedEOF
	case err == nil:
		return 0, io.ErrNoProgress
	}
	return 0, readError(err, s.r.info.Name)
}

// Check looks at the open file, which tells of writes, and at the name, which tells of replacement.
func (r *reader) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := r.info.Name
	open, err := r.file.Stat()
	if err != nil {
		return readError(err, name)
	}
	if !unchanged(r.st, open) {
		return problem.New(problem.Changed, "%q was changed while it was read.", name)
	}
	named, err := r.s.root.Lstat(string(name))
	if err != nil {
		return problem.Wrap(err, problem.Changed, "%q was removed or moved while it was read.", name)
	}
	if !named.Same(r.st) {
		return problem.New(problem.Changed, "%q was replaced while it was read.", name)
	}
	return nil
}
