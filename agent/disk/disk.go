// Package disk is the few file operations that the journal and the directory
// store need, below one directory.
//
// It guarantees confinement: no operation leaves the directory that Open was
// given, none follows a symbolic link on any component of a path, and none
// crosses into another mounted file system. Nothing here replaces a file but
// Rename, which says so.
//
// There are three implementations: Open on Linux (openat2, kernels from 5.6),
// the portable one over os.Root, which Open falls back to, and Mem, in memory
// with page-cache semantics, for tests: what was not synced is lost or torn at
// a crash, and any call can be made to fail.
//
// Errors are those of the operating system. Callers may match fs.ErrExist,
// fs.ErrNotExist, fs.ErrPermission, fs.ErrClosed, errors.ErrUnsupported,
// syscall.ENOSPC, syscall.ENAMETOOLONG, syscall.ELOOP (a component is a symbolic
// link), syscall.EXDEV (a component is another mount), syscall.ENOTDIR and
// ErrIrregular. It decides nothing about names beyond confinement and logs nothing.
package disk

import (
	"errors"
	"io/fs"
	"strings"
	"time"
)

// ErrIrregular is returned by OpenFile for a name that is neither a regular file
// nor a symbolic link (that is syscall.ELOOP).
var ErrIrregular = errors.New("not a regular file")

// A Mode says how OpenFile opens.
type Mode int

const (
	// Read opens an existing file for reading.
	Read Mode = iota
	// Write opens an existing file for reading and writing.
	Write
	// Create makes a file that must not exist and opens it for reading and writing.
	Create
)

// A Type is what kind of thing a name is.
type Type int

const (
	Regular Type = iota
	Directory
	Symlink
	Irregular // a device, socket or pipe
)

// A Stat describes one state of one inode.
type Stat struct {
	Type  Type
	Dev   uint64
	Inode uint64
	Size  int64  // bytes
	Mode  uint32 // permission bits, 0777
	Links uint64 // names of the inode
	Owner uint32 // user id
	MTime time.Time
	CTime time.Time
}

// Same reports whether s and t describe the same inode.
func (s Stat) Same(t Stat) bool { return s.Dev == t.Dev && s.Inode == t.Inode }

// An FS is an open directory, and what is below it. A path has one or more
// segments with '/' between them; "." is the directory itself where a path is
// said to be accepted. A name is one segment. Methods may be called concurrently.
type FS interface {
	// OpenFile opens the regular file at path. A file that Create makes has the
	// permission bits 0600 and is not durable before Sync of the file and of
	// its directory.
	OpenFile(path string, mode Mode) (File, error)
	// OpenDir opens the directory at path as an FS of its own. Close it as well.
	OpenDir(path string) (FS, error)
	// Lstat describes path without following a link in its last component.
	Lstat(path string) (Stat, error)
	// Names calls yield for every name in the directory but "." and "..", in no
	// order, until yield returns false. It holds a bounded number of names.
	Names(yield func(name string) bool) error
	// Mkdir makes the directory name with permission bits mode.
	Mkdir(name string, mode uint32) error
	// Link gives the file name of this directory the further name newname in the
	// directory to, which must come from the same Open. It never replaces:
	// if newname exists the error matches fs.ErrExist.
	Link(name string, to FS, newname string) error
	// Rename atomically renames within the directory and REPLACES newname. It is
	// for files of our own that are written anew as a whole; never publish with it.
	Rename(name, newname string) error
	// Remove removes the file or empty directory name.
	Remove(name string) error
	// Sync returns when the directory's entries survive power loss.
	Sync() error
	// SyncAll returns when everything written to the file system survives power
	// loss. An error of writing back any file since this FS was opened is
	// reported once, by whichever call of SyncAll on this FS comes first: the caller must then
	// distrust everything. errors.ErrUnsupported where there is no such operation.
	SyncAll() error
	// Stat describes the directory itself.
	Stat() (Stat, error)
	// Close releases the handle. Later calls fail with fs.ErrClosed.
	Close() error
}

// A File is an open regular file. Methods may be called concurrently, WriteAt
// for ranges that do not overlap.
type File interface {
	// ReadAt is io.ReaderAt.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt is io.WriterAt.
	WriteAt(p []byte, off int64) (int, error)
	// Sync returns when the data, and the size, survive power loss. After an error
	// nothing written since the last success may be trusted, and a second Sync
	// proves nothing: write a new file.
	Sync() error
	// SyncAll is Sync and also keeps mode, times and links.
	SyncAll() error
	// Truncate sets the size.
	Truncate(size int64) error
	// Allocate takes space for size bytes now and makes the file at least that
	// long. errors.ErrUnsupported where it cannot.
	Allocate(size int64) error
	// SetTime sets the time of last modification.
	SetTime(mtime time.Time) error
	// SetMode sets the permission bits; others are ignored.
	SetMode(mode uint32) error
	// Stat describes the file.
	Stat() (Stat, error)
	// Close releases the descriptor. Later calls fail with fs.ErrClosed.
	Close() error
}

// namesPiece is how many names are read at once.
const namesPiece = 1024

// checkPath refuses a path that is not canonical, before the system sees it.
func checkPath(op, path string) error {
	if path == "." {
		return nil
	}
	for seg := range strings.SplitSeq(path, "/") {
		if !validSegment(seg) {
			return &fs.PathError{Op: op, Path: path, Err: fs.ErrInvalid}
		}
	}
	return nil
}

// checkName refuses what is not one segment.
func checkName(op, name string) error {
	if strings.Contains(name, "/") || !validSegment(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

func validSegment(seg string) bool {
	return seg != "" && seg != "." && seg != ".." && !strings.Contains(seg, "\x00")
}
