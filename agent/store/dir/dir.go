// Package dir is a store over a directory of a file system.
//
// An object is a regular file; its name is its path. Stages are files in
// .consign/BATCH/ITEM inside the directory, so that link(2) publishes them: it
// creates a name exclusively, never replaces one and never follows a link. The
// stage stays linked until the batch is dropped. Hence after a crash our own finished work is known
// by its inode, and anything else of that name is problem.Taken. A file system without hard links is refused by Probe: renameat2(2)
// with RENAME_NOREPLACE is exclusive too, but once it has happened nothing in
// the file system tells our finished work from a stranger's file.
//
// A part is written into the stage at its offset as the bytes come, and counts once it was closed; from the first byte of a second
// writing to its Close it does not. Which parts of a stage of an earlier life were ever written only the caller's journal
// knows: Holds says true of all that are not being written again. An item is not written between
// a Publish and its Discard.
//
// The order of a publication is: data, mode and times durable; the stage's own
// name durable; link; the parent directory durable; its ancestors durable, innermost first; reported.
//
// A Version is device, inode, size, mtime and ctime in base 36 with '-' between them, without
// ctime for a file of several names. The reason: linking and unlinking changes ctime, so dropping a batch would
// change the version of what it published. A Reader still compares ctime as long as the number of names
// stays. A version without ctime does not show a change in place whose author also set mtime back. Erase looks
// at the version and then removes the name, which are two steps.
//
// It follows no symbolic link and enters no other mount: those are listed, as
// Link or with problem.Unreadable, and not entered. Names with a segment .consign in any case
// are refused: that folder in the root is not listed, and one below, which holds the stages of an export inside this one, is
// listed as Special and not entered. Objects get mode 0644, directories 0755 (less the umask), where nothing is known, and objects always keep the
// owner's right to read; stages are 0600 in
// a folder 0700 that must be our own. It keeps no user metadata and no content type, and no origin: it knows its own work by the inode.
//
// On NFS the same holds as far as the server does what the protocol says: LINK is exclusive there (RFC 1813, section
// 3.3.15), and a LINK that is sent again because its answer was lost is decided by the inode, not by the answer; syncing a file
// is COMMIT (section 3.3.21). Probe races on the mount itself. What does not: a client tells changes by other hosts
// only after its attribute cache has expired (nfs(5), acregmax: 60 s), so a source that others write while it is read needs a mount
// with actimeo=0; and where the server maps the agent's user to another (root_squash), the folder of stages is not our own and is refused.
//
// Memory: a listing holds at most 65,536 names and 256 more a level of depth, and one descriptor a level;
// a publication holds up to four descriptors beside those of open stages; a batch holds a number for each item that Publish
// was asked for, and a bit a part for each that was closed before it was whole. Leftovers holds the names of one batch's stages.
//
// Overwriting (Wipe, Sanitize) writes zeros over the whole content in place and syncs them before the last name goes. What the file system or the
// device keeps besides is beyond it: journals of data, snapshots, copy-on-write (btrfs, ZFS, XFS reflinks), compression that stores no zeros, and flash,
// which writes elsewhere and forgets later.
//
// BUG: if a write-back fails between a killed process and its successor, and the kernel evicts the
// inode meanwhile, the successor's sync does not learn of it. Reading back after publishing does.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	hidden      = ".consign" // the folder of stages, in the root
	maxSegment  = 255        // bytes; what every file system of ours takes
	maxNames    = 65536      // names that a listing holds, and minNames more a level
	minNames    = 256
	bulk        = 64 // publications from which one syncfs is cheaper than an fsync each
	manyDirs    = 16 // directories from which the same holds for them
	workers     = 4  // goroutines of one Publish
	allocateMin = token.ChunkSize
)

// A Store is a directory as a store.Store.
type Store struct {
	root  disk.FS
	now   func() time.Time
	names int         // maxNames, less in tests
	looks atomic.Bool // Probe found that links are not exclusive: look before each
	wipes atomic.Bool // stages that are thrown away are overwritten first

	mu    sync.Mutex // guards inUse
	inUse map[store.BatchID]bool
}

var _ store.Store = (*Store)(nil)

// Open returns a store over root, which it closes when it is closed. It touches
// nothing yet. Objects changed within store.Settle of now are reported as fresh.
func Open(root disk.FS, now func() time.Time) *Store {
	return &Store{root: root, now: now, names: maxNames, inUse: map[store.BatchID]bool{}}
}

// Close releases the directory. Batches and readers must be closed before.
func (s *Store) Close() error { return s.root.Close() }

// checkName refuses what this store cannot hold.
func checkName(name token.ObjectName) error {
	if err := token.CheckName(name); err != nil {
		return err
	}
	for seg := range strings.SplitSeq(string(name), "/") {
		if strings.EqualFold(seg, hidden) {
			return problem.New(problem.BadName, "The segment %q is reserved.", seg)
		}
		if len(seg) > maxSegment {
			return problem.New(problem.BadName, "The name has a segment of %d bytes; the file system takes %d.", len(seg), maxSegment)
		}
	}
	return nil
}

// split cuts a name into its directory, "." at the top, and its last segment.
func split(name token.ObjectName) (parent, base string) {
	if i := strings.LastIndexByte(string(name), '/'); i >= 0 {
		return string(name[:i]), string(name[i+1:])
	}
	return ".", string(name)
}

// Stat implements store.Store.
func (s *Store) Stat(ctx context.Context, name token.ObjectName) (store.Info, error) {
	if err := errors.Join(ctx.Err(), checkName(name)); err != nil {
		return store.Info{}, err
	}
	st, err := s.root.Lstat(string(name))
	if err != nil {
		return store.Info{}, readError(err, name)
	}
	return s.info(name, st), nil
}

func (s *Store) info(name token.ObjectName, st disk.Stat) store.Info {
	in := store.Info{Name: name}
	switch st.Type {
	case disk.Directory:
		in.Type = store.Subtree
	case disk.Symlink:
		in.Type = store.Link
	case disk.Regular:
		in.Type = store.Object
		in.Size = st.Size
		in.Version = versionOf(st)
	default:
		in.Type = store.Special
	}
	now := s.now()
	in.Fresh = now.Sub(st.MTime).Abs() < store.Settle || now.Sub(st.CTime).Abs() < store.Settle
	in.Attrs = store.Attrs{ModTime: st.MTime, Mode: st.Mode, HasMode: true}
	return in
}

// Make implements store.Store.
func (s *Store) Make(ctx context.Context, name token.ObjectName) error {
	if err := errors.Join(ctx.Err(), checkName(name)); err != nil {
		return err
	}
	if err := s.ensureDir(string(name)); err != nil {
		return err
	}
	for path := string(name); ; path, _ = split(token.ObjectName(path)) {
		if err := s.syncDir(path); err != nil {
			return err
		}
		if path == "." {
			return nil // Durable from here.
		}
	}
}

// ensureDir makes the directory path and those above it where they are missing. Nothing
// is durable yet.
func (s *Store) ensureDir(path string) error {
	d, err := s.root.OpenDir(path)
	if err == nil {
		return d.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return writeError(err, token.ObjectName(path))
	}
	parent, base := split(token.ObjectName(path))
	if err := s.ensureDir(parent); err != nil {
		return err
	}
	above, err := s.root.OpenDir(parent)
	if err != nil {
		return writeError(err, token.ObjectName(path))
	}
	defer above.Close()
	if err := above.Mkdir(base, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return writeError(err, token.ObjectName(path))
	}
	d, err = above.OpenDir(base)
	if err != nil {
		return writeError(err, token.ObjectName(path))
	}
	return d.Close()
}

func (s *Store) syncDir(path string) error {
	d, err := s.root.OpenDir(path)
	if err != nil {
		return writeError(err, token.ObjectName(path))
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return writeError(err, token.ObjectName(path))
	}
	return nil
}

// staging opens the folder of all stages, and makes it if it is missing.
func (s *Store) staging() (disk.FS, error) {
	d, err := s.root.OpenDir(hidden)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.root.Mkdir(hidden, 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			d, err = s.root.OpenDir(hidden)
		}
	}
	if err != nil {
		return nil, writeError(err, hidden)
	}
	st, err := d.Stat()
	if err == nil && (st.Mode&0o077 != 0 || st.Owner != uint32(os.Geteuid())) {
		err = problem.New(problem.Unwritable, "The folder %s belongs to or is open to another user.", hidden)
	}
	if err != nil {
		_ = d.Close() // only looked at
		return nil, err
	}
	return d, nil
}

// Keep implements store.Store: stages are found by looking.
func (s *Store) Keep(store.Notes) {}

// entry looks at name for who is going to remove it: the directory that holds it, which the caller must close, what it is called there, and what it is.
func (s *Store) entry(ctx context.Context, name token.ObjectName) (d disk.FS, base string, st disk.Stat, err error) {
	if err := errors.Join(ctx.Err(), checkName(name)); err != nil {
		return nil, "", st, err
	}
	parent, base := split(name)
	if d, err = s.root.OpenDir(parent); err != nil {
		return nil, "", st, readError(err, name)
	}
	if st, err = d.Lstat(base); err != nil {
		return nil, "", st, errors.Join(readError(err, name), d.Close())
	}
	return d, base, st, nil
}

// Erase implements store.Store. It looks and then removes: a file that somebody else puts in the
// place in between goes as well.
func (s *Store) Erase(ctx context.Context, name token.ObjectName, version token.Version) error {
	d, base, st, err := s.entry(ctx, name)
	if err != nil {
		return err
	}
	defer d.Close()
	switch {
	case st.Type != disk.Regular:
		return problem.New(problem.Missing, "%q is not an object.", name)
	case !matches(version, st):
		return problem.New(problem.Changed, "%q is not the version that was to be removed.", name)
	}
	if err := d.Remove(base); err != nil {
		return readError(err, name)
	}
	if err := d.Sync(); err != nil {
		return writeError(err, name)
	}
	return nil // Durable from here.
}

// Leftovers implements store.Store: one entry a stage that is not published, and one a batch that has none.
func (s *Store) Leftovers(ctx context.Context, yield func(store.Leftover) bool) error {
	all, err := s.root.OpenDir(hidden)
	if errors.Is(err, fs.ErrNotExist) {
		return ctx.Err()
	}
	if err != nil {
		return readError(err, hidden)
	}
	defer all.Close()
	var ids []store.BatchID
	if err := all.Names(func(name string) bool {
		if validBatch(store.BatchID(name)) {
			ids = append(ids, store.BatchID(name))
		}
		return ctx.Err() == nil
	}); err != nil {
		return readError(err, hidden)
	}
	for _, id := range ids {
		if err := ctx.Err(); err != nil {
			return err
		}
		left, err := leftoversOf(all, id)
		if err != nil {
			return readError(err, hidden)
		}
		for _, l := range left {
			if !yield(l) {
				return nil
			}
		}
	}
	return ctx.Err()
}

// leftoversOf describes the folder of one batch, unless it goes meanwhile.
func leftoversOf(all disk.FS, id store.BatchID) (left []store.Leftover, err error) {
	d, err := all.OpenDir(string(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var names []string
	if err := d.Names(func(name string) bool { names = append(names, name); return true }); err != nil {
		return nil, err
	}
	for _, name := range names {
		st, err := d.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && st.Links > 1:
			continue
		case err != nil:
			return nil, err
		}
		left = append(left, store.Leftover{Batch: id, Kind: "file", ID: string(id) + "/" + name, Since: st.MTime})
	}
	if len(left) > 0 {
		return left, nil
	}
	st, err := d.Stat()
	if err != nil {
		return nil, err
	}
	return []store.Leftover{{Batch: id, Kind: "file", ID: string(id), Since: st.MTime}}, nil
}

func validBatch(id store.BatchID) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// readError gives an error of reading name its kind.
func readError(err error, name token.ObjectName) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return problem.Wrap(err, problem.Missing, "There is no object %q.", name)
	case errors.Is(err, fs.ErrPermission):
		return problem.Wrap(err, problem.Unreadable, "The agent may not read %q.", name)
	case errors.Is(err, syscall.ELOOP):
		return problem.Wrap(err, problem.Unreadable, "%q is or leads through a symbolic link, which is not followed.", name)
	case errors.Is(err, syscall.EXDEV):
		return problem.Wrap(err, problem.Unreadable, "%q is on another file system, which is not entered.", name)
	case errors.Is(err, disk.ErrIrregular):
		return problem.Wrap(err, problem.Unreadable, "%q is not a regular file.", name)
	case errors.Is(err, syscall.ENAMETOOLONG):
		return problem.Wrap(err, problem.BadName, "The name is too long for the file system.")
	}
	return fmt.Errorf("reading %q: %w", name, err)
}

// writeError gives an error of writing name its kind.
func writeError(err error, name token.ObjectName) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return problem.Wrap(err, problem.DiskFull, "There is no space left in the destination's container.")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return problem.Wrap(err, problem.Unwritable, "The agent may not write %q.", name)
	case errors.Is(err, syscall.ELOOP):
		return problem.Wrap(err, problem.Unwritable, "%q leads through a symbolic link, which is not followed.", name)
	case errors.Is(err, syscall.EXDEV):
		return problem.Wrap(err, problem.Unwritable, "%q is on another file system, which is not entered.", name)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		return problem.Wrap(err, problem.Taken, "The name %q, or one that it lies below, is an object.", name)
	case errors.Is(err, syscall.ENAMETOOLONG), errors.Is(err, syscall.EILSEQ), errors.Is(err, syscall.EINVAL):
		return problem.Wrap(err, problem.BadName, "The file system does not take the name.")
	}
	return fmt.Errorf("writing %q: %w", name, err)
}
