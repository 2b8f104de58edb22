package disk

import (
	"io"
	"syscall"
	"time"
)

// maxMemFile bounds one file of a Mem, bytes.
const maxMemFile = 1 << 30

type memFile struct{ memHandle }

func (f *memFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.do(OpRead, "", func() error {
		if off < 0 {
			return syscall.EINVAL
		}
		if off < int64(len(f.node.data)) {
			n = copy(p, f.node.data[off:])
		}
		return nil
	})
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func (f *memFile) WriteAt(p []byte, off int64) (n int, err error) {
	write := func(size int) func() error {
		return func() error {
			if err := f.write(p[:size], off); err != nil {
				return err
			}
			n = size
			return nil
		}
	}
	err = f.doOrHalf(OpWrite, "", write(len(p)), write(len(p)/2))
	if err != nil && n == len(p) {
		n = 0 // the answer was lost
	}
	return n, err
}

func (f *memFile) write(p []byte, off int64) error {
	end := off + int64(len(p))
	if off < 0 || end > maxMemFile {
		return syscall.EFBIG
	}
	if len(p) == 0 {
		return nil
	}
	n := f.node
	if end > int64(len(n.data)) {
		n.resize(end)
	}
	copy(n.data[off:], p)
	for s := off / sectorSize; s <= (end-1)/sectorSize; s++ {
		n.dirty[int(s)] = true
	}
	n.touch(f.m.tick())
	return nil
}

// resize sets the length of the cached data; what is new is zero.
func (n *inode) resize(size int64) {
	old := int64(len(n.data))
	if size <= old {
		n.data = n.data[:size]
	} else {
		n.data = append(n.data, make([]byte, size-old)...)
	}
	for s := min(old, size) / sectorSize; s*sectorSize < max(old, size); s++ {
		n.dirty[int(s)] = true
	}
	n.Size = size
}

func (n *inode) touch(now time.Time) { n.MTime, n.CTime = now, now }

// sync writes the dirty sectors to the disk, and the size.
func (n *inode) sync() {
	if n.Type == Directory {
		return
	}
	size := len(n.data)
	if len(n.disk) > size {
		n.disk = n.disk[:size]
	} else {
		n.disk = append(n.disk, make([]byte, size-len(n.disk))...)
	}
	for s := range n.dirty {
		from := s * sectorSize
		if to := min(from+sectorSize, size); from < to {
			copy(n.disk[from:to], n.data[from:to])
		}
	}
	n.dirty = map[int]bool{}
	n.kept.Size = int64(size)
}

func (f *memFile) Sync() error {
	err := f.do(OpSync, "", func() error { f.node.sync(); return nil })
	if err != nil {
		f.m.afterFailedSync(&f.memHandle)
	}
	return err
}

func (f *memFile) SyncAll() error {
	err := f.do(OpSyncFile, "", func() error {
		f.node.sync()
		f.node.kept = f.node.Stat
		return nil
	})
	if err != nil {
		f.m.afterFailedSync(&f.memHandle)
	}
	return err
}

// afterFailedSync takes the dirty marks away: the cache still shows what was
// written and no later sync will write it. h is nil for the whole file system.
func (m *Mem) afterFailedSync(h *memHandle) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h == nil {
		for _, n := range m.inodes {
			n.dirty = map[int]bool{}
		}
	} else if h.epoch == m.epoch && !h.closed {
		h.node.dirty = map[int]bool{}
	}
}

func (f *memFile) Truncate(size int64) error {
	return f.do(OpTruncate, "", func() error {
		if size < 0 || size > maxMemFile {
			return syscall.EINVAL
		}
		f.node.resize(size)
		f.node.touch(f.m.tick())
		return nil
	})
}

func (f *memFile) Allocate(size int64) error {
	return f.do(OpAllocate, "", func() error {
		if size < 0 || size > maxMemFile {
			return syscall.ENOSPC
		}
		if size > int64(len(f.node.data)) {
			f.node.resize(size)
			f.node.touch(f.m.tick())
		}
		return nil
	})
}

func (f *memFile) SetTime(mtime time.Time) error {
	return f.do(OpSetTime, "", func() error {
		f.node.MTime, f.node.CTime = mtime.UTC(), f.m.tick()
		return nil
	})
}

func (f *memFile) SetMode(mode uint32) error {
	return f.do(OpSetMode, "", func() error {
		f.node.Mode, f.node.CTime = mode&0o777, f.m.tick()
		return nil
	})
}
