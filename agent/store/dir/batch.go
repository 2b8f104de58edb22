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

// A batch is the stages of one batch. Lock order: syncing, mu, a stage's own.
type batch struct {
	s   *Store
	id  store.BatchID
	dir disk.FS // opened before the first write, so that SyncAll on it misses no failure

	syncing sync.Mutex // held during a sync of dir or of all: a failure is told to one caller only
	synced  int        // guarded by syncing: how many of made are durable

	mu         sync.Mutex // guards all below
	made       int        // stages created
	files      map[int]*staged
	unfinished map[int]*progress // of stages that were closed and are not whole
	asked      map[int]bool      // items that Publish was called for, and that were not discarded since
	dead       error             // why nothing more is promised
	closed     bool
}

// Batch implements store.Store.
func (s *Store) Batch(ctx context.Context, id store.BatchID) (store.Batch, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !validBatch(id) {
		return nil, fmt.Errorf("opening batch %q: not an id", id)
	}
	if err := s.claim(id); err != nil {
		return nil, err
	}
	d, err := s.folder(id)
	if err != nil {
		s.release(id)
		return nil, err
	}
	// made starts above synced: a stage from before a kill may not be durable yet.
	return &batch{
		s: s, id: id, dir: d, made: 1, files: map[int]*staged{}, unfinished: map[int]*progress{}, asked: map[int]bool{},
	}, nil
}

// folder opens the folder of a batch, and makes it if it is missing.
func (s *Store) folder(id store.BatchID) (disk.FS, error) {
	all, err := s.staging()
	if err != nil {
		return nil, err
	}
	defer all.Close()
	if err = all.Mkdir(string(id), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, writeError(err, hidden)
	}
	d, err := all.OpenDir(string(id))
	if err != nil {
		return nil, writeError(err, hidden)
	}
	return d, nil
}

// alive returns why the batch cannot be used, or nil.
func (b *batch) alive(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return fmt.Errorf("using a batch: %w", fs.ErrClosed)
	case b.dead != nil:
		return b.dead
	}
	return ctx.Err()
}

// kill makes every later call but Drop and Close fail.
func (b *batch) kill(cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dead == nil {
		b.dead = fmt.Errorf("the batch is poisoned: %w", cause)
	}
}

// syncDir makes the names of all stages durable.
func (b *batch) syncDir() error {
	b.syncing.Lock()
	defer b.syncing.Unlock()
	b.mu.Lock()
	made, dead := b.made, b.dead
	b.mu.Unlock()
	if dead != nil {
		return dead
	}
	if b.synced == made {
		return nil
	}
	err := b.dir.Sync()
	if err == nil && b.synced == 0 {
		// The folders may be new, or left by a predecessor that was killed before this.
		if err = b.s.syncDir(hidden); err == nil {
			err = b.s.root.Sync()
		}
	}
	if err != nil {
		b.kill(err)
		return err
	}
	b.synced = made
	return nil
}

// Stage implements store.Batch.
func (b *batch) Stage(ctx context.Context, item store.Item) (store.Stage, error) {
	if err := b.alive(ctx); err != nil {
		return nil, err
	}
	if item.Index < 0 || item.Size < 0 || item.Part <= 0 {
		return nil, fmt.Errorf("staging item %d of %d bytes in parts of %d: out of range", item.Index, item.Size, item.Part)
	}
	if err := checkName(item.Name); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.files[item.Index]; f != nil {
		if f.item.Size != item.Size || f.item.Part != item.Part {
			return nil, fmt.Errorf("staging item %d: %d bytes in parts of %d, and %d of %d before", item.Index, item.Size, item.Part, f.item.Size, f.item.Part)
		}
		f.refs++
		return &stage{f: f}, nil
	}
	f, err := b.open(item)
	if err != nil {
		return nil, writeError(err, token.ObjectName(fmt.Sprint("item ", item.Index)))
	}
	b.files[item.Index] = f
	return &stage{f: f}, nil
}

// open opens or creates the file of item. The caller holds mu.
func (b *batch) open(item store.Item) (*staged, error) {
	name := strconv.Itoa(item.Index)
	f := &staged{b: b, item: item, refs: 1, sealed: b.asked[item.Index]}
	st, err := b.dir.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if f.file, err = b.dir.OpenFile(name, disk.Create); err != nil {
			return nil, err
		}
		b.made++
		f.done = newProgress(item, true)
		delete(b.unfinished, item.Index)
		return f, f.allocate()
	case err != nil:
		return nil, err
	case st.Size > item.Size:
		return nil, fmt.Errorf("the stage has %d bytes, more than %d", st.Size, item.Size)
	case f.sealed || st.Links > 1:
		// Published, or about to be: these bytes are an object's now.
		f.sealed = true
		f.file, err = b.dir.OpenFile(name, disk.Read)
	default:
		f.file, err = reopen(b.dir, name)
	}
	if err != nil {
		return nil, err
	}
	if f.done = b.unfinished[item.Index]; f.done == nil || f.done.item.Part != item.Part {
		f.done = newProgress(item, false)
	}
	return f, nil
}

// remember keeps what is known of the parts of a file that was closed. The caller holds mu.
func (b *batch) remember(f *staged) {
	if f.done.whole() {
		delete(b.unfinished, f.item.Index)
	} else {
		b.unfinished[f.item.Index] = f.done
	}
}

// reopen opens a file of d for writing, also one that has the mode of an object that may only be read.
func reopen(d disk.FS, name string) (disk.File, error) {
	f, err := d.OpenFile(name, disk.Write)
	if !errors.Is(err, fs.ErrPermission) {
		return f, err
	}
	if f, err = d.OpenFile(name, disk.Read); err != nil {
		return nil, err
	}
	if err := errors.Join(f.SetMode(0o600), f.Close()); err != nil {
		return nil, err
	}
	return d.OpenFile(name, disk.Write)
}

// allocate takes the space of a large stage now. On failure nothing is left.
func (f *staged) allocate() error {
	if f.item.Size < allocateMin {
		return nil
	}
	err := f.file.Allocate(f.item.Size)
	if err == nil || errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	return errors.Join(err, f.file.Close(), f.b.dir.Remove(strconv.Itoa(f.item.Index)))
}

// Drop implements store.Batch.
func (b *batch) Drop(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.Close(); err != nil {
		return err
	}
	all, err := b.s.root.OpenDir(hidden)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return writeError(err, hidden)
	}
	defer all.Close()
	d, err := all.OpenDir(string(b.id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return writeError(err, hidden)
	}
	err = errors.Join(empty(d, func(name string) error { return b.s.scrap(ctx, d, name) }), d.Close())
	if err == nil {
		err = all.Remove(string(b.id))
	}
	if err == nil {
		err = all.Sync()
	}
	if err != nil {
		return fmt.Errorf("dropping batch %q: %w", b.id, err)
	}
	return nil
}

// empty has every file of d removed, in pieces, so that memory does not grow with their number.
func empty(d disk.FS, remove func(name string) error) error {
	for {
		var names []string
		err := d.Names(func(name string) bool { names = append(names, name); return len(names) < minNames })
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
}

// Close implements store.Batch. It also closes the stages that are open.
func (b *batch) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	var errs []error
	for _, f := range b.files {
		errs = append(errs, f.release())
	}
	b.files = nil
	b.mu.Unlock()
	b.s.release(b.id)
	return errors.Join(append(errs, b.dir.Close())...)
}
