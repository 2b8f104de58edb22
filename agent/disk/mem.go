package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// sectorSize is what a disk writes whole or not at all, bytes.
const sectorSize = 512

// An Op names a kind of call that a Mem may be told to fail.
type Op string

// The operations. Reading ones can fail as well as writing ones.
const (
	OpOpen     Op = "open"
	OpCreate   Op = "create"
	OpOpenDir  Op = "opendir"
	OpLstat    Op = "lstat"
	OpNames    Op = "names"
	OpMkdir    Op = "mkdir"
	OpLink     Op = "link"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
	OpSyncDir  Op = "syncdir"
	OpSyncAll  Op = "syncall"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpSync     Op = "sync"
	OpSyncFile Op = "syncfile" // File.SyncAll
	OpTruncate Op = "truncate"
	OpAllocate Op = "allocate"
	OpSetTime  Op = "settime"
	OpSetMode  Op = "setmode"
	OpStat     Op = "stat"
)

// A Call is one call that is about to happen.
type Call struct {
	Op   Op
	Name string // as the caller gave it; empty where there is none
	N    int    // how many calls of any Op came before, since Mem was made or ResetCalls
	NOp  int    // how many calls of this Op came before
}

// An Effect says what a call does besides returning its error.
type Effect int

const (
	// None: nothing happened.
	None Effect = iota
	// Done: everything happened, and only the answer was lost.
	Done
	// Half: half of the bytes of a write arrived; None for other calls.
	Half
)

// A Verdict is what becomes of a call. A nil Err is ordinary success.
type Verdict struct {
	Err    error
	Effect Effect
}

// FailNth returns a hook for SetHook that fails the call of that op which n others of
// it precede.
func FailNth(op Op, n int, v Verdict) func(Call) Verdict {
	return func(c Call) Verdict {
		if c.Op == op && c.NOp == n {
			return v
		}
		return Verdict{}
	}
}

// StopAt returns a hook that lets n calls through and fails every later one with
// ErrStopped, as a process experiences its own death. The first that fails has the
// given effect.
func StopAt(n int, effect Effect) func(Call) Verdict {
	return func(c Call) Verdict {
		switch {
		case c.N < n:
			return Verdict{}
		case c.N == n:
			return Verdict{ErrStopped, effect}
		}
		return Verdict{Err: ErrStopped}
	}
}

// ErrStopped is what calls return after StopAt, and on handles from before a Crash or Kill.
var ErrStopped = errors.New("the machine has stopped")

// A Mem is a file system in memory with a page cache, for tests. Data becomes
// durable by File.Sync, mode and times by File.SyncAll, entries by FS.Sync of
// their directory, everything by FS.SyncAll. Crash loses what is not durable, or
// part of it. A failed sync loses the data that it should have kept, for good: a
// second sync succeeds and does not bring it back, as Linux does it. Changes of
// directories stay pending then: a file system that cannot write its journal
// stops altogether, and a hook can do the same. Its methods may be called concurrently.
type Mem struct {
	now func() time.Time

	mu      sync.Mutex // guards all below, and all inodes
	hook    func(Call) Verdict
	calls   int
	byOp    map[Op]int
	epoch   int // raised by Crash and Kill: older handles are dead
	last    time.Time
	nextIno uint64
	root    *inode
	pending []change // of directories, in order, not durable yet
	inodes  map[uint64]*inode
}

// An inode is a file, directory or other thing, as the cache and as the disk have it.
type inode struct {
	Stat
	data    []byte
	disk    []byte       // what survives
	dirty   map[int]bool // sectors written since the last sync
	kept    Stat         // mode and times that survive
	entries map[string]*inode
	durable map[string]*inode
}

// A change is one operation on a directory; a rename is one change.
type change struct {
	dir *inode
	set map[string]*inode // nil removes
}

// NewMem returns an empty file system that takes times of files from now.
func NewMem(now func() time.Time) *Mem {
	m := &Mem{now: now, byOp: map[Op]int{}, inodes: map[uint64]*inode{}}
	m.root = m.newInode(Directory, 0o755)
	m.root.kept = m.root.Stat
	return m
}

// Root returns a new handle of the root directory.
func (m *Mem) Root() FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &memDir{memHandle{m: m, node: m.root, epoch: m.epoch}}
}

// SetHook makes hook decide what becomes of every later call; nil lets all
// succeed. The hook must not call m.
func (m *Mem) SetHook(hook func(Call) Verdict) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = hook
}

// Calls returns how many calls there were.
func (m *Mem) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// CallsOf returns how many calls of op there were.
func (m *Mem) CallsOf(op Op) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byOp[op]
}

// ResetCalls counts from zero again.
func (m *Mem) ResetCalls() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls, m.byOp = 0, map[Op]int{}
}

// Kill ends the process: every handle is dead, and the cache stays. The hook is removed.
func (m *Mem) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	m.hook = nil
}

// Crash cuts the power: every handle is dead, what is durable stays, and of the
// rest each sector and each change of a directory stays or is lost as rng
// decides. A nil rng loses all of it. The hook is removed.
func (m *Mem) Crash(rng *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	m.hook = nil
	keep := func() bool { return rng != nil && rng.IntN(2) == 0 }
	for _, c := range m.pending {
		if keep() {
			c.apply(c.dir.durable)
		}
	}
	m.pending = nil
	for _, n := range m.inodes {
		n.crash(keep)
	}
	m.recount()
}

func (c change) apply(entries map[string]*inode) {
	for name, n := range c.set {
		if n == nil {
			delete(entries, name)
		} else {
			entries[name] = n
		}
	}
}

// crash makes the cache what the disk has, with each dirty sector as keep decides.
func (n *inode) crash(keep func() bool) {
	if n.Type == Directory {
		n.entries = cloneEntries(n.durable)
		return
	}
	size := len(n.disk)
	if keep() {
		size = len(n.data)
	}
	after := make([]byte, size)
	copy(after, n.disk)
	for s := range n.dirty {
		from := s * sectorSize
		if to := min(from+sectorSize, size, len(n.data)); from < to && keep() {
			copy(after[from:to], n.data[from:to])
		}
	}
	if keep() {
		n.kept = n.Stat
	}
	links := n.Links
	n.Stat = n.kept
	n.Links, n.Size = links, int64(size)
	n.data, n.disk, n.dirty = after, append([]byte(nil), after...), map[int]bool{}
}

// recount sets link counts by what the root reaches and forgets the rest.
func (m *Mem) recount() {
	for _, n := range m.inodes {
		n.Links = 0
	}
	m.root.Links = 1
	var visit func(d *inode)
	visit = func(d *inode) {
		for _, n := range d.entries {
			n.Links++
			if n.Type == Directory {
				visit(n)
			}
		}
	}
	visit(m.root)
	for ino, n := range m.inodes {
		if n.Links == 0 {
			delete(m.inodes, ino)
		}
	}
}

// Plant makes a symbolic link or an irregular file at path, durably.
func (m *Mem) Plant(path string, t Type) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, name, err := m.parentOf(m.root, path)
	if err != nil {
		return err
	}
	n := m.newInode(t, 0o777)
	n.Links, n.kept = 1, n.Stat
	dir.entries[name], dir.durable[name] = n, n
	return nil
}

func (m *Mem) newInode(t Type, mode uint32) *inode {
	m.nextIno++
	now := m.tick()
	n := &inode{
		Stat: Stat{
			Type: t, Dev: 1, Inode: m.nextIno, Mode: mode, Owner: uint32(os.Geteuid()),
			MTime: now, CTime: now,
		},
		dirty: map[int]bool{},
	}
	if t == Directory {
		n.entries, n.durable = map[string]*inode{}, map[string]*inode{}
	}
	m.inodes[n.Inode] = n
	n.kept = n.Stat
	return n
}

// tick returns a time that is later than any before, so that change times differ.
func (m *Mem) tick() time.Time {
	now := m.now().UTC()
	if !now.After(m.last) {
		now = m.last.Add(time.Nanosecond)
	}
	m.last = now
	return now
}

// begin counts a call and returns what becomes of it. The caller holds mu.
func (m *Mem) begin(op Op, name string) Verdict {
	c := Call{Op: op, Name: name, N: m.calls, NOp: m.byOp[op]}
	m.calls++
	m.byOp[op]++
	if m.hook == nil {
		return Verdict{}
	}
	return m.hook(c)
}

// lookup walks path from dir. The caller holds mu.
func (m *Mem) lookup(dir *inode, path string) (*inode, error) {
	if path == "." {
		return dir, nil
	}
	parent, name, err := m.parentOf(dir, path)
	if err != nil {
		return nil, err
	}
	n := parent.entries[name]
	if n == nil {
		return nil, syscall.ENOENT
	}
	return n, nil
}

func (m *Mem) parentOf(dir *inode, path string) (*inode, string, error) {
	segs := strings.Split(path, "/")
	for i, seg := range segs {
		if len(seg) > 255 {
			return nil, "", syscall.ENAMETOOLONG
		}
		if i == len(segs)-1 {
			break
		}
		n := dir.entries[seg]
		switch {
		case n == nil:
			return nil, "", syscall.ENOENT
		case n.Type == Symlink:
			return nil, "", syscall.ELOOP
		case n.Type != Directory:
			return nil, "", syscall.ENOTDIR
		}
		dir = n
	}
	return dir, segs[len(segs)-1], nil
}

// change applies c to the cache and remembers that it is not durable.
func (m *Mem) change(c change) {
	c.apply(c.dir.entries)
	m.pending = append(m.pending, c)
	now := m.tick()
	c.dir.MTime, c.dir.CTime = now, now
}

// syncDir makes the changes of dir durable.
func (m *Mem) syncDir(dir *inode) {
	rest := m.pending[:0]
	for _, c := range m.pending {
		if c.dir == dir {
			c.apply(dir.durable)
		} else {
			rest = append(rest, c)
		}
	}
	m.pending = rest
}

func cloneEntries(from map[string]*inode) map[string]*inode {
	to := make(map[string]*inode, len(from))
	for name, n := range from {
		to[name] = n
	}
	return to
}

func memError(op Op, name string, err error) error {
	return fmt.Errorf("%w", &fs.PathError{Op: string(op), Path: name, Err: err})
}
