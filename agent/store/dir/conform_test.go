package dir

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token"
)

// quickDir returns a new directory in memory where the machine has such a place.
func quickDir(t *testing.T) string {
	path, err := os.MkdirTemp("/dev/shm", "store-test-") //nolint:usetesting // t.TempDir is on a disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

// real returns a subject over a directory of the machine's own.
func real(open func(path string) (disk.FS, error), tempDir func(*testing.T) string) func(t *testing.T) storetest.Subject {
	return func(t *testing.T) storetest.Subject {
		path := tempDir(t)
		reopen := func(t testing.TB) store.Store {
			root, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			return Open(root, time.Now)
		}
		at := func(name token.ObjectName) string { return filepath.Join(path, filepath.FromSlash(string(name))) }
		parent := func(t testing.TB, name token.ObjectName) {
			if err := os.MkdirAll(filepath.Dir(at(name)), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return storetest.Subject{
			Store: reopen(t),
			Put: func(t testing.TB, name token.ObjectName, data []byte) {
				parent(t, name)
				if err := os.WriteFile(at(name), data, 0o644); err != nil {
					t.Fatal(err)
				}
			},
			Remove: func(t testing.TB, name token.ObjectName) {
				if err := os.Remove(at(name)); err != nil {
					t.Fatal(err)
				}
			},
			Link: func(t testing.TB, name token.ObjectName) {
				if err := os.Symlink("o", at(name)); err != nil {
					t.Fatal(err)
				}
			},
			Kill:    reopen,
			Second:  reopen,
			Guesses: true,
		}
	}
}

// inMemory returns a subject over the disk with a page cache.
func inMemory(t *testing.T) storetest.Subject {
	m := disk.NewMem(time.Now)
	return storetest.Subject{
		Store: Open(m.Root(), time.Now),
		Put: func(t testing.TB, name token.ObjectName, data []byte) {
			putFile(t, m.Root(), name, data)
		},
		Remove: func(t testing.TB, name token.ObjectName) {
			parent, base := split(name)
			d, err := m.Root().OpenDir(parent)
			if err == nil {
				err = d.Remove(base)
			}
			if err != nil {
				t.Fatal(err)
			}
		},
		Link: func(t testing.TB, name token.ObjectName) {
			if err := m.Plant(string(name), disk.Symlink); err != nil {
				t.Fatal(err)
			}
		},
		Kill:    func(testing.TB) store.Store { m.Kill(); return Open(m.Root(), time.Now) },
		Second:  func(testing.TB) store.Store { return Open(m.Root(), time.Now) },
		Guesses: true,
	}
}

func putFile(t testing.TB, root disk.FS, name token.ObjectName, data []byte) {
	t.Helper()
	parent, base := split(name)
	if err := Open(root, time.Now).ensureDir(parent); err != nil {
		t.Fatal(err)
	}
	f, err := root.OpenFile(string(name), disk.Write)
	if err == nil {
		err = f.Truncate(0)
	} else {
		var d disk.FS
		if d, err = root.OpenDir(parent); err == nil {
			f, err = d.OpenFile(base, disk.Create)
		}
	}
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestConformanceOnDisk(t *testing.T) {
	t.Parallel()
	storetest.Run(t, real(disk.Open, func(t *testing.T) string { return t.TempDir() }))
}

func TestConformanceOnPortable(t *testing.T) {
	t.Parallel()
	storetest.Run(t, real(disk.OpenPortable, quickDir))
}

func TestConformanceInMemory(t *testing.T) {
	t.Parallel()
	storetest.Run(t, inMemory)
}
