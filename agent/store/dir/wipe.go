package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// aside is the name that a file has in the folder of its Wiping once it has lost its own.
const aside = "0"

// Methods implements store.Store.
func (s *Store) Methods() []store.Method { return []store.Method{store.Overwrite} }

// Sanitize implements store.Store.
func (s *Store) Sanitize(m store.Method) {
	if m == "" || m == store.Overwrite {
		s.wipes.Store(m == store.Overwrite)
	}
}

// Unmake implements store.Store. Like Erase it looks and then removes.
func (s *Store) Unmake(ctx context.Context, name token.ObjectName) error {
	d, base, st, err := s.entry(ctx, name)
	if err != nil {
		return err
	}
	defer d.Close()
	if st.Type != disk.Directory {
		return problem.New(problem.Missing, "%q is not a container.", name)
	}
	err = d.Remove(base)
	switch {
	case errors.Is(err, fs.ErrExist): // ENOTEMPTY
		return problem.Wrap(err, problem.NotEmpty, "The container %q is not empty.", name)
	case errors.Is(err, fs.ErrNotExist):
		return readError(err, name)
	case err != nil:
		return writeError(err, name)
	}
	if err := d.Sync(); err != nil {
		return writeError(err, name)
	}
	return nil // Durable from here.
}

// Wipe implements store.Store: the file gets a name aside and loses its own, and is overwritten there. Each step is durable before the next.
func (s *Store) Wipe(ctx context.Context, w store.Wiping) error {
	if err := errors.Join(ctx.Err(), checkName(w.Name)); err != nil {
		return err
	}
	if w.Method != store.Overwrite {
		return problem.New(problem.Unsanitizable, "A directory does not wipe by %q, only by %q.", w.Method, store.Overwrite)
	}
	if !validBatch(w.Batch) {
		return fmt.Errorf("wiping as %q: not an id", w.Batch)
	}
	if err := s.claim(w.Batch); err != nil {
		return err
	}
	defer s.release(w.Batch)
	d, err := s.folder(w.Batch)
	if err != nil {
		return err
	}
	defer d.Close()
	gone, err := s.setAside(w, d)
	if err == nil {
		err = overwrite(ctx, d, aside, w.Name)
	}
	if err != nil && gone {
		return err // and what is left is found as a leftover
	}
	if rm := d.Remove(aside); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		return errors.Join(err, writeError(rm, w.Name))
	}
	if bad := d.Sync(); bad != nil {
		return errors.Join(err, writeError(bad, w.Name))
	}
	return errors.Join(err, s.forget(w.Batch))
}

// forget removes the folder of a batch, which is empty.
func (s *Store) forget(id store.BatchID) error {
	all, err := s.root.OpenDir(hidden)
	if err != nil {
		return writeError(err, hidden)
	}
	defer all.Close()
	if err := errors.Join(all.Remove(string(id)), all.Sync()); err != nil {
		return fmt.Errorf("removing the folder of %q: %w", id, err)
	}
	return nil
}

// setAside moves the file of w into d, durably, and reports whether its own name is gone. A file that is there already was moved, or about to be, by
// a Wipe that was ended.
func (s *Store) setAside(w store.Wiping, d disk.FS) (gone bool, err error) {
	moved, err := d.Lstat(aside)
	begun := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, writeError(err, w.Name)
	}
	path, base := split(w.Name)
	parent, err := s.root.OpenDir(path)
	if errors.Is(err, fs.ErrNotExist) && begun {
		return true, s.syncNearest(path)
	}
	if err != nil {
		return false, readError(err, w.Name)
	}
	defer parent.Close()
	st, err := parent.Lstat(base)
	switch {
	case begun && (errors.Is(err, fs.ErrNotExist) || err == nil && !st.Same(moved)):
		return true, s.syncNearest(path) // what has the name now is another's; that ours has lost it may not be durable yet
	case err != nil:
		return false, readError(err, w.Name)
	case begun: // it had the version when it got its second name
	case st.Type != disk.Regular:
		return false, problem.New(problem.Missing, "%q is not an object.", w.Name)
	case !matches(w.Version, st):
		return false, problem.New(problem.Changed, "%q is not the version that was to be removed.", w.Name)
	case st.Links > 1:
		return false, problem.New(problem.Claimed, "The bytes of %q have another name too, and would be destroyed there as well.", w.Name)
	default:
		if err := parent.Link(base, d, aside); err != nil {
			return false, writeError(err, w.Name)
		}
		if moved, err = d.Lstat(aside); err != nil || !unchanged(st, moved) {
			return false, problem.Wrap(err, problem.Changed, "%q was replaced in the moment in which it was to be removed.", w.Name)
		}
	}
	for _, dir := range []string{hidden + "/" + string(w.Batch), hidden, "."} { // the name aside, before the other goes
		if err := s.syncDir(dir); err != nil {
			return false, err
		}
	}
	if err := parent.Remove(base); err != nil {
		return false, readError(err, w.Name)
	}
	if err := parent.Sync(); err != nil {
		return true, writeError(err, w.Name)
	}
	return true, nil // Durable from here: nobody reads it any more.
}

// syncNearest makes durable what became of the names in the directory path, or, if that is gone, of the nearest above that is not.
func (s *Store) syncNearest(path string) error {
	for {
		err := s.syncDir(path)
		if path == "." || problem.Of(err) != problem.Taken && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		path, _ = split(token.ObjectName(path))
	}
}

// overwrite writes zeros over the whole file, durably. A file with more than one name is somebody's, and is left.
func overwrite(ctx context.Context, d disk.FS, file string, name token.ObjectName) (err error) {
	f, err := reopen(d, file)
	if err != nil {
		return writeError(err, name)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return writeError(err, name)
	}
	if st.Links > 1 {
		return problem.New(problem.Claimed, "The bytes of %q have another name too, and would be destroyed there as well.", name)
	}
	zeros := make([]byte, min(st.Size, token.ChunkSize))
	for off := int64(0); off < st.Size; off += int64(len(zeros)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), st.Size-off)], off); err != nil {
			return writeError(err, name)
		}
	}
	if err := f.Sync(); err != nil {
		return writeError(err, name)
	}
	return nil
}

// scrap removes a file of stages that is thrown away, wiped if Sanitize asks for that and no object has the same bytes. One whose
// medium does not let it be wiped is removed all the same.
func (s *Store) scrap(ctx context.Context, d disk.FS, file string) error {
	if s.wipes.Load() {
		st, err := d.Lstat(file)
		if err == nil && st.Type == disk.Regular && st.Links == 1 && overwrite(ctx, d, file, "a stage") != nil && ctx.Err() != nil {
			return ctx.Err() // it is not over
		}
	}
	return d.Remove(file)
}

// claim takes a batch into use, and release gives it back.
func (s *Store) claim(id store.BatchID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse[id] {
		return problem.New(problem.Claimed, "The batch is already in use.")
	}
	s.inUse[id] = true
	return nil
}

func (s *Store) release(id store.BatchID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inUse, id)
}
