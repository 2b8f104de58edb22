package disk

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// resolve confines every path: below the directory, through no symbolic or magic
// link, and within one mount, so that one syncfs covers all of it.
const resolve = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV

// A handle is a descriptor that cannot be used after it was closed, even when
// its number has been given to something else.
type handle struct {
	mu sync.RWMutex // guards fd: held for reading during a call, for writing by Close
	fd int          // -1 when closed
}

func (h *handle) with(call func(fd int) error) error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if h.fd < 0 {
		return fs.ErrClosed
	}
	for {
		if err := call(h.fd); err != unix.EINTR { //nolint:errorlint // a plain Errno by contract of the calls
			return err
		}
	}
}

func (h *handle) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fd < 0 {
		return fs.ErrClosed
	}
	fd := h.fd
	h.fd = -1
	return unix.Close(fd)
}

func (h *handle) Stat() (Stat, error) {
	var st unix.Stat_t
	if err := h.with(func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return Stat{}, fmt.Errorf("fstat: %w", err)
	}
	return statOf(&st), nil
}

type linuxDir struct{ handle }

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

func (d *linuxDir) openat2(path string, flags int, mode uint32) (int, error) {
	fd := -1
	err := d.with(func(dir int) (err error) {
		how := unix.OpenHow{Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode), Resolve: resolve}
		for range 64 {
			// EAGAIN: somebody renamed meanwhile, and the kernel could not prove that
			// the path stayed beneath.
			if fd, err = unix.Openat2(dir, path, &how); err != unix.EAGAIN {
				return err
			}
		}
		return err
	})
	return fd, err
}

func (d *linuxDir) OpenFile(path string, mode Mode) (File, error) {
	if err := checkPath("open", path); err != nil {
		return nil, err
	}
	flags := unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
	var perm uint32
	switch mode {
	case Read:
		flags |= unix.O_RDONLY
	case Write:
		flags |= unix.O_RDWR
	case Create:
		flags |= unix.O_RDWR | unix.O_CREAT | unix.O_EXCL
		perm = 0o600
	}
	fd, err := d.openat2(path, flags, perm)
	if err == unix.ENXIO || err == unix.EISDIR || err == unix.ENODEV { //nolint:errorlint // plain Errno
		err = ErrIrregular
	}
	if err != nil {
		return nil, pathError("open", path, err)
	}
	f := &linuxFile{handle: handle{fd: fd}}
	if mode == Create {
		return f, nil
	}
	st, err := f.Stat()
	if err == nil && st.Type != Regular {
		err = ErrIrregular
	}
	if err != nil {
		_ = f.Close() // opened only to look at it
		return nil, pathError("open", path, err)
	}
	return f, nil
}

func (d *linuxDir) OpenDir(path string) (FS, error) {
	if err := checkPath("open", path); err != nil {
		return nil, err
	}
	fd, err := d.openat2(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, pathError("open", path, err)
	}
	return &linuxDir{handle: handle{fd: fd}}, nil
}

func (d *linuxDir) Lstat(path string) (Stat, error) {
	if err := checkPath("lstat", path); err != nil {
		return Stat{}, err
	}
	var st unix.Stat_t
	if checkName("lstat", path) == nil {
		err := d.with(func(fd int) error { return unix.Fstatat(fd, path, &st, unix.AT_SYMLINK_NOFOLLOW) })
		if err != nil {
			return Stat{}, pathError("lstat", path, err)
		}
		return statOf(&st), nil
	}
	fd, err := d.openat2(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return Stat{}, pathError("lstat", path, err)
	}
	h := handle{fd: fd}
	got, err := h.Stat()
	_ = h.Close() // an O_PATH descriptor: nothing was written
	return got, pathError("lstat", path, err)
}

func (d *linuxDir) Names(yield func(name string) bool) error {
	// A descriptor of its own: the position in a directory belongs to the descriptor.
	fd, err := d.openat2(".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("reading directory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "directory")
	defer f.Close()
	return yieldNames(f, yield)
}

func (d *linuxDir) Mkdir(name string, mode uint32) error {
	if err := checkName("mkdir", name); err != nil {
		return err
	}
	err := d.with(func(fd int) error { return unix.Mkdirat(fd, name, mode&0o777) })
	return pathError("mkdir", name, err)
}

func (d *linuxDir) Link(name string, to FS, newname string) error {
	if err := checkName("link", name); err != nil {
		return err
	}
	if err := checkName("link", newname); err != nil {
		return err
	}
	target, ok := to.(*linuxDir)
	if !ok {
		return pathError("link", newname, unix.EXDEV)
	}
	err := d.with(func(from int) error {
		if target == d {
			return unix.Linkat(from, name, from, newname, 0)
		}
		return target.with(func(fd int) error { return unix.Linkat(from, name, fd, newname, 0) })
	})
	return pathError("link", newname, err)
}

func (d *linuxDir) Rename(name, newname string) error {
	if err := checkName("rename", name); err != nil {
		return err
	}
	if err := checkName("rename", newname); err != nil {
		return err
	}
	err := d.with(func(fd int) error { return unix.Renameat(fd, name, fd, newname) })
	return pathError("rename", name, err)
}

func (d *linuxDir) Remove(name string) error {
	if err := checkName("remove", name); err != nil {
		return err
	}
	err := d.with(func(fd int) error {
		err := unix.Unlinkat(fd, name, 0)
		if err == unix.EISDIR {
			err = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR)
		}
		return err
	})
	return pathError("remove", name, err)
}

func (d *linuxDir) Sync() error    { return pathError("fsync", ".", d.with(unix.Fsync)) }
func (d *linuxDir) SyncAll() error { return pathError("syncfs", ".", d.with(unix.Syncfs)) }

type linuxFile struct{ handle }

func (f *linuxFile) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, pathError("read", "", unix.EINVAL)
	}
	for n < len(p) {
		var m int
		err := f.with(func(fd int) (err error) { m, err = unix.Pread(fd, p[n:], off+int64(n)); return err })
		if err != nil {
			return n, fmt.Errorf("reading: %w", err)
		}
		if m == 0 {
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

func (f *linuxFile) WriteAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, pathError("write", "", unix.EINVAL)
	}
	for n < len(p) {
		var m int
		err := f.with(func(fd int) (err error) { m, err = unix.Pwrite(fd, p[n:], off+int64(n)); return err })
		if err == nil && m == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return n, fmt.Errorf("writing: %w", err)
		}
		n += m
	}
	return n, nil
}

func (f *linuxFile) Sync() error    { return pathError("fdatasync", "", f.with(unix.Fdatasync)) }
func (f *linuxFile) SyncAll() error { return pathError("fsync", "", f.with(unix.Fsync)) }

func (f *linuxFile) Truncate(size int64) error {
	return pathError("truncate", "", f.with(func(fd int) error { return unix.Ftruncate(fd, size) }))
}

func (f *linuxFile) Allocate(size int64) error {
	return pathError("fallocate", "", f.with(func(fd int) error { return unix.Fallocate(fd, 0, 0, size) }))
}

func (f *linuxFile) SetTime(mtime time.Time) error {
	return pathError("utimens", "", f.with(func(fd int) error { return setTime(fd, mtime) }))
}

func (f *linuxFile) SetMode(mode uint32) error {
	return pathError("fchmod", "", f.with(func(fd int) error { return unix.Fchmod(fd, mode&0o777) }))
}

func statOf(st *unix.Stat_t) Stat {
	t := Irregular
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		t = Regular
	case unix.S_IFDIR:
		t = Directory
	case unix.S_IFLNK:
		t = Symlink
	}
	return Stat{
		Type: t, Dev: uint64(st.Dev), Inode: st.Ino, Size: st.Size, Mode: st.Mode & 0o777,
		Links: uint64(st.Nlink), Owner: st.Uid, //nolint:unconvert // narrower on other machines
		MTime: time.Unix(st.Mtim.Unix()).UTC(), CTime: time.Unix(st.Ctim.Unix()).UTC(),
	}
}
