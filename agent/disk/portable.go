//go:build linux || darwin

package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// OpenPortable is Open without system calls that only some systems have: os.Root
// confines, and each component is looked at before it is entered. A link that
// is swapped in between look and entry is followed only within the directory
// that Open was given. SyncAll and Allocate are unsupported.
func OpenPortable(path string) (FS, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("opening directory %q: %w", path, err)
	}
	d, err := newRootDir(root)
	if err != nil {
		return nil, err
	}
	return d, nil
}

type rootDir struct {
	root *os.Root
	self *os.File // the directory itself, for Sync and Names
	dev  uint64
}

func newRootDir(root *os.Root) (*rootDir, error) {
	self, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	d := &rootDir{root: root, self: self}
	st, err := d.Stat()
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.dev = st.Dev
	return d, nil
}

func statOfInfo(fi fs.FileInfo) (Stat, error) {
	sys, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return Stat{}, fmt.Errorf("describing a file: %w", errors.ErrUnsupported)
	}
	t := Irregular
	switch {
	case fi.Mode().IsRegular():
		t = Regular
	case fi.IsDir():
		t = Directory
	case fi.Mode()&fs.ModeSymlink != 0:
		t = Symlink
	}
	mtime, ctime := statTimes(sys)
	return Stat{
		Type: t, Dev: uint64(sys.Dev), Inode: sys.Ino, Size: fi.Size(), Mode: uint32(fi.Mode().Perm()),
		Links: uint64(sys.Nlink), Owner: sys.Uid, MTime: mtime, CTime: ctime,
	}, nil
}

// walk checks that every component of path but the last is a directory of this
// file system and no link.
func (d *rootDir) walk(path string) error {
	if path == "." {
		return nil
	}
	for i, r := range path {
		if r != '/' {
			continue
		}
		if err := d.enter(path[:i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *rootDir) enter(path string) error {
	st, err := d.lstat(path)
	switch {
	case err != nil:
		return err
	case st.Type == Symlink:
		return &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
	case st.Type != Directory:
		return &fs.PathError{Op: "open", Path: path, Err: syscall.ENOTDIR}
	case st.Dev != d.dev:
		return &fs.PathError{Op: "open", Path: path, Err: syscall.EXDEV}
	}
	return nil
}

func (d *rootDir) lstat(path string) (Stat, error) {
	fi, err := d.root.Lstat(path)
	if err != nil {
		return Stat{}, err
	}
	return statOfInfo(fi)
}

func (d *rootDir) OpenFile(path string, mode Mode) (File, error) {
	if err := errors.Join(checkPath("open", path), d.walk(path)); err != nil {
		return nil, err
	}
	flags := os.O_RDWR
	switch mode {
	case Read:
		flags = os.O_RDONLY
	case Create:
		flags |= os.O_CREATE | os.O_EXCL
	}
	if mode != Create {
		st, err := d.lstat(path)
		if err == nil && st.Type == Symlink {
			err = &fs.PathError{Op: "open", Path: path, Err: syscall.ELOOP}
		} else if err == nil && st.Type != Regular {
			err = &fs.PathError{Op: "open", Path: path, Err: ErrIrregular}
		}
		if err != nil {
			return nil, err
		}
	}
	f, err := d.root.OpenFile(path, flags|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	file := &rootFile{f}
	if st, err := file.Stat(); err != nil || st.Type != Regular {
		_ = f.Close() // it was swapped since it was looked at
		return nil, errors.Join(err, &fs.PathError{Op: "open", Path: path, Err: ErrIrregular})
	}
	return file, nil
}

func (d *rootDir) OpenDir(path string) (FS, error) {
	if err := errors.Join(checkPath("open", path), d.walk(path)); err != nil {
		return nil, err
	}
	if path != "." {
		if err := d.enter(path); err != nil {
			return nil, err
		}
	}
	root, err := d.root.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return newRootDir(root)
}

func (d *rootDir) Lstat(path string) (Stat, error) {
	if err := errors.Join(checkPath("lstat", path), d.walk(path)); err != nil {
		return Stat{}, err
	}
	return d.lstat(path)
}

func (d *rootDir) Names(yield func(name string) bool) error {
	f, err := d.root.Open(".")
	if err != nil {
		return fmt.Errorf("reading directory: %w", err)
	}
	defer f.Close()
	for {
		names, err := f.Readdirnames(namesPiece)
		for _, name := range names {
			if !yield(name) {
				return nil
			}
		}
		if err == io.EOF { //nolint:errorlint // as Readdirnames documents
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading directory: %w", err)
		}
	}
}

func (d *rootDir) Mkdir(name string, mode uint32) error {
	if err := checkName("mkdir", name); err != nil {
		return err
	}
	return d.root.Mkdir(name, fs.FileMode(mode&0o777))
}

func (d *rootDir) Link(name string, to FS, newname string) error {
	if err := errors.Join(checkName("link", name), checkName("link", newname)); err != nil {
		return err
	}
	target, ok := to.(*rootDir)
	if !ok {
		return &fs.PathError{Op: "link", Path: newname, Err: syscall.EXDEV}
	}
	return linkFiles(d.self, name, target.self, newname)
}

func (d *rootDir) Rename(name, newname string) error {
	if err := errors.Join(checkName("rename", name), checkName("rename", newname)); err != nil {
		return err
	}
	return d.root.Rename(name, newname)
}

func (d *rootDir) Remove(name string) error {
	if err := checkName("remove", name); err != nil {
		return err
	}
	return d.root.Remove(name)
}

func (d *rootDir) Sync() error { return d.self.Sync() }

func (d *rootDir) SyncAll() error {
	return fmt.Errorf("syncing a whole file system: %w", errors.ErrUnsupported)
}

func (d *rootDir) Stat() (Stat, error) {
	fi, err := d.self.Stat()
	if err != nil {
		return Stat{}, err
	}
	return statOfInfo(fi)
}

func (d *rootDir) Close() error { return errors.Join(d.self.Close(), d.root.Close()) }

type rootFile struct{ *os.File }

func (f *rootFile) SyncAll() error { return f.Sync() }

func (f *rootFile) Allocate(int64) error {
	return fmt.Errorf("allocating: %w", errors.ErrUnsupported)
}

func (f *rootFile) SetTime(mtime time.Time) error {
	return control(f.File, func(fd int) error { return setTime(fd, mtime) })
}

func (f *rootFile) SetMode(mode uint32) error { return f.Chmod(fs.FileMode(mode & 0o777)) }

func (f *rootFile) Stat() (Stat, error) {
	fi, err := f.File.Stat()
	if err != nil {
		return Stat{}, err
	}
	return statOfInfo(fi)
}

func control(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = call(int(fd)) }); err != nil {
		return err
	}
	return inner
}
