package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/token"
)

var errSealed = errors.New("the item is published or about to be: it is not written any more")

// A staged is the open file of an item, shared by the stages that were opened on it.
type staged struct {
	b       *batch
	item    int
	size    int64
	created bool
	refs    int // guarded by b.mu

	mu     sync.RWMutex // held for reading during a write, for writing to seal
	file   disk.File    // nil once released
	sealed bool
	dead   error // a sync failed
}

// A stage is one opening of a staged.
type stage struct {
	f       *staged
	created bool
	once    sync.Once
}

func (s *stage) Created() bool { return s.created }

func (s *stage) WriteAt(p []byte, off int64) (int, error) {
	f := s.f
	f.mu.RLock()
	defer f.mu.RUnlock()
	switch {
	case f.file == nil:
		return 0, fs.ErrClosed
	case f.dead != nil:
		return 0, f.dead
	case f.sealed:
		return 0, errSealed
	case off < 0 || int64(len(p)) > f.size-off:
		return 0, fmt.Errorf("writing %d bytes at %d of %d: out of range", len(p), off, f.size)
	}
	n, err := f.file.WriteAt(p, off)
	if err != nil {
		return n, writeError(err, token.ObjectName(fmt.Sprint("item ", f.item)))
	}
	return n, nil
}

func (s *stage) ReadAt(p []byte, off int64) (int, error) {
	s.f.mu.RLock()
	defer s.f.mu.RUnlock()
	switch {
	case s.f.file == nil:
		return 0, fs.ErrClosed
	case s.f.dead != nil:
		return 0, s.f.dead
	}
	return s.f.file.ReadAt(p, off)
}

func (s *stage) Sync() error {
	if err := s.f.sync(disk.File.Sync); err != nil {
		return err
	}
	return s.f.b.syncDir()
}

// sync runs one of the two syncs of a file, and poisons the stage if it fails.
func (f *staged) sync(call func(disk.File) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return fs.ErrClosed
	}
	if f.dead != nil {
		return f.dead
	}
	if err := call(f.file); err != nil {
		f.dead = fmt.Errorf("the stage is poisoned by a failed sync: %w", writeError(err, token.ObjectName(fmt.Sprint("item ", f.item))))
		if f.sealed && f.published() {
			return f.dead
		}
		// Its cache may show what the disk lacks; nobody shall find it again.
		if err := f.b.dir.Remove(strconv.Itoa(f.item)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.dead = errors.Join(f.dead, err)
		}
		return f.dead
	}
	return nil
}

func (f *staged) published() bool {
	st, err := f.file.Stat()
	return err == nil && st.Links > 1
}

// seal ends writing: when it returns none is under way and none will be.
func (f *staged) seal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sealed = true
}

func (s *stage) Discard() error {
	f := s.f
	err := s.Close()
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	if f.b.closed {
		return fs.ErrClosed
	}
	if f.b.files[f.item] == f {
		delete(f.b.files, f.item)
		err = errors.Join(err, f.release())
	}
	rm := f.b.dir.Remove(strconv.Itoa(f.item))
	if errors.Is(rm, fs.ErrNotExist) {
		rm = nil
	}
	if err := errors.Join(err, rm); err != nil {
		return fmt.Errorf("discarding item %d: %w", f.item, err)
	}
	return nil
}

func (s *stage) Close() (err error) {
	s.once.Do(func() {
		f := s.f
		f.b.mu.Lock()
		defer f.b.mu.Unlock()
		if f.refs--; f.refs == 0 && f.b.files[f.item] == f {
			delete(f.b.files, f.item)
			err = f.release()
		}
	})
	return err
}

// release closes the descriptor.
func (f *staged) release() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}
