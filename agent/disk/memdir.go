package disk

import (
	"io/fs"
	"syscall"
)

// A memHandle is an open inode of a Mem.
type memHandle struct {
	m      *Mem
	node   *inode
	epoch  int
	closed bool // guarded by m.mu
}

// do runs one call: f is its whole effect, and is not run if the hook says so.
func (h *memHandle) do(op Op, name string, f func() error) error {
	return h.doOrHalf(op, name, f, nil)
}

// doOrHalf is do with what half of f's effect is; nil is nothing.
func (h *memHandle) doOrHalf(op Op, name string, f, half func() error) error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.epoch != h.m.epoch {
		return memError(op, name, ErrStopped)
	}
	if h.closed {
		return memError(op, name, fs.ErrClosed)
	}
	v := h.m.begin(op, name)
	if v.Err != nil && v.Effect == Half && half != nil {
		f = half
	} else if v.Err != nil && v.Effect != Done {
		return memError(op, name, v.Err)
	}
	if err := f(); err != nil {
		return memError(op, name, err)
	}
	if v.Err != nil {
		return memError(op, name, v.Err)
	}
	return nil
}

func (h *memHandle) Stat() (st Stat, err error) {
	err = h.do(OpStat, "", func() error { st = h.node.Stat; return nil })
	if err != nil {
		return Stat{}, err
	}
	return st, nil
}

func (h *memHandle) Close() error {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.closed {
		return fs.ErrClosed
	}
	h.closed = true
	return nil
}

type memDir struct{ memHandle }

func (d *memDir) OpenFile(path string, mode Mode) (File, error) {
	op := OpOpen
	if mode == Create {
		op = OpCreate
	}
	if err := checkPath(string(op), path); err != nil {
		return nil, err
	}
	f := &memFile{memHandle{m: d.m, epoch: d.epoch}}
	err := d.do(op, path, func() (err error) {
		if mode == Create {
			f.node, err = d.create(path)
			return err
		}
		f.node, err = d.m.lookup(d.node, path)
		switch {
		case err != nil:
			return err
		case f.node.Type == Symlink:
			return syscall.ELOOP
		case f.node.Type != Regular:
			return ErrIrregular
		case f.node.Mode&0o400 == 0, mode == Write && f.node.Mode&0o200 == 0:
			return syscall.EACCES // as an owner without privileges gets it
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d *memDir) create(path string) (*inode, error) {
	dir, name, err := d.m.parentOf(d.node, path)
	if err != nil {
		return nil, err
	}
	if dir.entries[name] != nil {
		return nil, syscall.EEXIST
	}
	n := d.m.newInode(Regular, 0o600)
	n.Links = 1
	d.m.change(change{dir, map[string]*inode{name: n}})
	return n, nil
}

func (d *memDir) OpenDir(path string) (FS, error) {
	if err := checkPath(string(OpOpenDir), path); err != nil {
		return nil, err
	}
	sub := &memDir{memHandle{m: d.m, epoch: d.epoch}}
	err := d.do(OpOpenDir, path, func() (err error) {
		sub.node, err = d.m.lookup(d.node, path)
		switch {
		case err != nil:
			return err
		case sub.node.Type == Symlink:
			return syscall.ELOOP
		case sub.node.Type != Directory:
			return syscall.ENOTDIR
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return sub, nil
}

func (d *memDir) Lstat(path string) (st Stat, err error) {
	if err := checkPath(string(OpLstat), path); err != nil {
		return Stat{}, err
	}
	err = d.do(OpLstat, path, func() error {
		n, err := d.m.lookup(d.node, path)
		if err == nil {
			st = n.Stat
		}
		return err
	})
	if err != nil {
		return Stat{}, err
	}
	return st, nil
}

func (d *memDir) Names(yield func(name string) bool) error {
	var names []string
	err := d.do(OpNames, "", func() error {
		for name := range d.node.entries {
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if !yield(name) {
			return nil
		}
	}
	return nil
}

func (d *memDir) Mkdir(name string, mode uint32) error {
	if err := checkName(string(OpMkdir), name); err != nil {
		return err
	}
	return d.do(OpMkdir, name, func() error {
		if _, _, err := d.m.parentOf(d.node, name); err != nil {
			return err
		}
		if d.node.entries[name] != nil {
			return syscall.EEXIST
		}
		n := d.m.newInode(Directory, mode&0o777)
		n.Links = 1
		d.m.change(change{d.node, map[string]*inode{name: n}})
		return nil
	})
}

func (d *memDir) Link(name string, to FS, newname string) error {
	if err := checkName(string(OpLink), name); err != nil {
		return err
	}
	if err := checkName(string(OpLink), newname); err != nil {
		return err
	}
	target, ok := to.(*memDir)
	if !ok || target.m != d.m {
		return memError(OpLink, newname, syscall.EXDEV)
	}
	return d.do(OpLink, newname, func() error {
		if target.epoch != d.m.epoch {
			return ErrStopped
		}
		if target.closed {
			return fs.ErrClosed
		}
		n, err := d.m.lookup(d.node, name)
		if err != nil {
			return err
		}
		if _, _, err := d.m.parentOf(target.node, newname); err != nil {
			return err
		}
		if target.node.entries[newname] != nil {
			return syscall.EEXIST
		}
		if n.Type == Directory {
			return syscall.EPERM
		}
		d.m.change(change{target.node, map[string]*inode{newname: n}})
		n.Links++
		n.CTime = d.m.tick()
		return nil
	})
}

func (d *memDir) Rename(name, newname string) error {
	if err := checkName(string(OpRename), name); err != nil {
		return err
	}
	if err := checkName(string(OpRename), newname); err != nil {
		return err
	}
	return d.do(OpRename, name, func() error {
		n, err := d.m.lookup(d.node, name)
		if err != nil {
			return err
		}
		old := d.node.entries[newname]
		if old == n {
			return nil
		}
		if old != nil && (old.Type == Directory || n.Type == Directory) {
			return syscall.EISDIR
		}
		d.m.change(change{d.node, map[string]*inode{name: nil, newname: n}})
		if old != nil {
			old.Links--
			old.CTime = d.m.tick()
		}
		n.CTime = d.m.tick()
		return nil
	})
}

func (d *memDir) Remove(name string) error {
	if err := checkName(string(OpRemove), name); err != nil {
		return err
	}
	return d.do(OpRemove, name, func() error {
		n, err := d.m.lookup(d.node, name)
		if err != nil {
			return err
		}
		if len(n.entries) > 0 {
			return syscall.ENOTEMPTY
		}
		d.m.change(change{d.node, map[string]*inode{name: nil}})
		n.Links--
		n.CTime = d.m.tick()
		return nil
	})
}

func (d *memDir) Sync() error {
	return d.do(OpSyncDir, "", func() error { d.m.syncDir(d.node); return nil })
}

func (d *memDir) SyncAll() error {
	err := d.do(OpSyncAll, "", func() error {
		for _, c := range d.m.pending {
			c.apply(c.dir.durable)
		}
		d.m.pending = nil
		for _, n := range d.m.inodes {
			n.sync()
			n.kept = n.Stat
		}
		return nil
	})
	if err != nil {
		d.m.afterFailedSync(nil)
	}
	return err
}
