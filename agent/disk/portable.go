//go:build linux || darwin

package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// OpenPortable is Open without system calls that only some systems have: os.Root
// confines, and each component is looked at before and after it is entered. SyncAll and Allocate are unsupported.
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

// at calls f with the directory that path's last segment is in and that segment. Every
// component before it is looked at, entered and looked at again, so that a link in its place is
// found out whenever it was put there.
func (d *rootDir) at(path string, f func(dir *os.Root, base string) error) error {
	dir, base := d.root, path
	defer func() {
		if dir != d.root {
			_ = dir.Close() // only passed through
		}
	}()
	for {
		seg, rest, more := strings.Cut(base, "/")
		if !more {
			return f(dir, base)
		}
		next, err := d.enter(dir, seg)
		if err != nil {
			return err
		}
		if dir != d.root {
			_ = dir.Close() // only passed through
		}
		dir, base = next, rest
	}
}

// enter opens the directory seg of dir.
func (d *rootDir) enter(dir *os.Root, seg string) (*os.Root, error) {
	before, err := lstatIn(dir, seg)
	switch {
	case err != nil:
	case before.Type == Symlink:
		err = syscall.ELOOP
	case before.Type != Directory:
		err = syscall.ENOTDIR
	case before.Dev != d.dev:
		err = syscall.EXDEV
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: seg, Err: err}
	}
	next, err := dir.OpenRoot(seg)
	if err != nil {
		return nil, err
	}
	after, err := lstatIn(next, ".")
	if err == nil && !after.Same(before) {
		err = &fs.PathError{Op: "open", Path: seg, Err: syscall.ELOOP}
	}
	if err != nil {
		return nil, errors.Join(err, next.Close())
	}
	return next, nil
}

func lstatIn(dir *os.Root, name string) (Stat, error) {
	fi, err := dir.Lstat(name)
	if err != nil {
		return Stat{}, err
	}
	return statOfInfo(fi)
}

func (d *rootDir) OpenFile(path string, mode Mode) (file File, err error) {
	if err := checkPath("open", path); err != nil {
		return nil, err
	}
	err = d.at(path, func(dir *os.Root, base string) (err error) {
		file, err = openIn(dir, base, mode)
		return err
	})
	if err != nil {
		return nil, err
	}
	return file, nil
}

func openIn(dir *os.Root, name string, mode Mode) (File, error) {
	flags := os.O_RDWR
	switch mode {
	case Read:
		flags = os.O_RDONLY
	case Create:
		flags |= os.O_CREATE | os.O_EXCL
	}
	var before Stat
	if mode != Create {
		var err error
		before, err = lstatIn(dir, name)
		switch {
		case err != nil:
			return nil, err
		case before.Type == Symlink:
			return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
		case before.Type != Regular:
			return nil, &fs.PathError{Op: "open", Path: name, Err: ErrIrregular}
		}
	}
	f, err := dir.OpenFile(name, flags|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	file := &rootFile{f}
	st, err := file.Stat()
	if err == nil && (st.Type != Regular || mode != Create && !st.Same(before)) {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrIrregular} // swapped since it was looked at
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return file, nil
}

func (d *rootDir) OpenDir(path string) (sub FS, err error) {
	if err := checkPath("open", path); err != nil {
		return nil, err
	}
	err = d.at(path, func(dir *os.Root, base string) error {
		root, err := d.enter(dir, base)
		if err != nil {
			return err
		}
		sub, err = newRootDir(root)
		return err
	})
	if err != nil {
		return nil, err
	}
	return sub, nil
}

func (d *rootDir) Lstat(path string) (st Stat, err error) {
	if err := checkPath("lstat", path); err != nil {
		return Stat{}, err
	}
	err = d.at(path, func(dir *os.Root, base string) (err error) {
		st, err = lstatIn(dir, base)
		return err
	})
	if err != nil {
		return Stat{}, err
	}
	return st, nil
}

func (d *rootDir) Names(yield func(name string) bool) error {
	f, err := d.root.Open(".")
	if err != nil {
		return fmt.Errorf("reading directory: %w", err)
	}
	defer f.Close()
	return yieldNames(f, yield)
}

// yieldNames asks for names alone: types are not in every file system's entries,
// and os would look them up by a path that means nothing here.
func yieldNames(f *os.File, yield func(name string) bool) error {
	for {
		names, err := f.Readdirnames(namesPiece)
		for _, name := range names {
			if !yield(name) {
				return nil
			}
		}
		if err == io.EOF {
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
