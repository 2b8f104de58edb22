package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"sync"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

var errSealed = errors.New("the item is published or about to be: it is not written any more")

// A staged is the open file of an item, shared by the stages that were opened on it.
type staged struct {
	b    *batch
	item store.Item
	refs int // guarded by b.mu
	done *progress

	mu     sync.RWMutex // held for reading during a write, for writing to seal
	file   disk.File    // nil once released
	sealed bool
	dead   error // a sync failed
}

// name is what error messages call the item.
func (f *staged) name() token.ObjectName {
	return token.ObjectName(fmt.Sprint("item ", f.item.Index))
}

// usable returns why the file cannot be used, or nil. The caller holds mu.
func (f *staged) usable() error {
	if f.file == nil {
		return fs.ErrClosed
	}
	return f.dead
}

// A stage is one opening of a staged.
type stage struct {
	f    *staged
	once sync.Once
}

func (s *stage) Holds(part int64) bool {
	s.f.mu.RLock()
	defer s.f.mu.RUnlock()
	return s.f.usable() == nil && part >= 0 && part < s.f.item.Parts() && s.f.done.holds(part)
}

func (s *stage) ReadAt(p []byte, off int64) (int, error) {
	s.f.mu.RLock()
	defer s.f.mu.RUnlock()
	if err := s.f.usable(); err != nil {
		return 0, err
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
	if err := f.usable(); err != nil {
		return err
	}
	if err := call(f.file); err != nil {
		f.dead = fmt.Errorf("the stage is poisoned by a failed sync: %w", writeError(err, f.name()))
		if f.sealed && f.published() {
			return f.dead
		}
		// Its cache may show what the disk lacks; nobody shall find it again.
		if err := f.b.s.scrap(context.Background(), f.b.dir, strconv.Itoa(f.item.Index)); err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// seal ends writing: when it returns none is under way and none will be. It reports whether every part counts.
func (f *staged) seal() (whole bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sealed = true
	return f.done.whole()
}

func (s *stage) Discard(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f := s.f
	err := s.Close()
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	if f.b.closed {
		return fs.ErrClosed
	}
	if f.b.files[f.item.Index] == f {
		delete(f.b.files, f.item.Index)
		err = errors.Join(err, f.release())
	}
	delete(f.b.unfinished, f.item.Index)
	rm := f.b.s.scrap(ctx, f.b.dir, strconv.Itoa(f.item.Index))
	if errors.Is(rm, fs.ErrNotExist) {
		rm = nil
	}
	if err := errors.Join(err, rm); err != nil {
		return fmt.Errorf("discarding item %d: %w", f.item.Index, err)
	}
	delete(f.b.asked, f.item.Index)
	return nil
}

func (s *stage) Close() (err error) {
	s.once.Do(func() {
		f := s.f
		f.b.mu.Lock()
		defer f.b.mu.Unlock()
		if f.refs--; f.refs == 0 && f.b.files[f.item.Index] == f {
			delete(f.b.files, f.item.Index)
			err = f.release()
			f.b.remember(f)
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
