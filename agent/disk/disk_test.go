package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// eachFS runs a test over every implementation. path is empty for Mem.
func eachFS(t *testing.T, run func(t *testing.T, d FS, path string)) {
	t.Parallel()
	for name, open := range map[string]func(string) (FS, error){
		"system": Open, "portable": OpenPortable,
		"memory": func(string) (FS, error) { return NewMem(time.Now).Root(), nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir()
			d, err := open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if name == "memory" {
				path = ""
			}
			run(t, d, path)
		})
	}
}

func write(t *testing.T, d FS, path, text string) File {
	t.Helper()
	f, err := d.OpenFile(path, Create)
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0)
	}
	if err != nil {
		t.Fatalf("writing %q: %v", path, err)
	}
	return f
}

func mkdir(t *testing.T, d FS, name string) FS {
	t.Helper()
	if err := d.Mkdir(name, 0o755); err != nil {
		t.Fatal(err)
	}
	sub, err := d.OpenDir(name)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func names(t *testing.T, d FS) []string {
	t.Helper()
	var all []string
	if err := d.Names(func(name string) bool { all = append(all, name); return true }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func TestFiles(t *testing.T) {
	eachFS(t, func(t *testing.T, d FS, _ string) {
		f := write(t, d, "f", "hello")
		when := time.Unix(1e9, 123456000).UTC()
		if err := errors.Join(f.SetMode(0o4640), f.SetTime(when), f.Sync(), f.SyncAll(), d.Sync(), f.Truncate(4)); err != nil {
			t.Fatal(err)
		}
		if err := f.SetTime(when); err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err != nil || st.Type != Regular || st.Size != 4 || st.Mode != 0o640 || !st.MTime.Equal(when) || st.Links != 1 {
			t.Errorf("Stat: %+v, %v", st, err)
		}
		if got, err := d.Lstat("f"); err != nil || !got.Same(st) || !got.CTime.Equal(st.CTime) {
			t.Errorf("Lstat: got %+v, %v, want %+v", got, err, st)
		}
		if err := f.Allocate(10000); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Allocate: %v", err)
		} else if st, _ := f.Stat(); err == nil && st.Size != 10000 {
			t.Errorf("Allocate: size %d, want 10000", st.Size)
		}
		if err := d.SyncAll(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("SyncAll: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Stat(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Stat of a closed file: got %v, want fs.ErrClosed", err)
		}
		if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("Close twice: got %v, want fs.ErrClosed", err)
		}
	})
}

func TestLinkNeverReplaces(t *testing.T) {
	eachFS(t, func(t *testing.T, d FS, _ string) {
		a, b := write(t, d, "a", "aa"), write(t, d, "b", "bb")
		defer a.Close()
		defer b.Close()
		sub := mkdir(t, d, "sub")
		defer sub.Close()
		if err := d.Link("a", sub, "x"); err != nil {
			t.Fatal(err)
		}
		for _, from := range []string{"a", "b"} {
			if err := d.Link(from, sub, "x"); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Link of %q over x: got %v, want fs.ErrExist", from, err)
			}
		}
		if err := d.Link("none", sub, "y"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Link of nothing: got %v, want fs.ErrNotExist", err)
		}
		st, _ := d.Lstat("sub/x")
		if want, _ := a.Stat(); !st.Same(want) || st.Links != 2 {
			t.Errorf("sub/x is %+v, want %+v with 2 links", st, want)
		}
		if err := d.Remove("sub"); err == nil {
			t.Error("Remove of a directory with entries: got nil, want an error")
		}
		if err := errors.Join(sub.Remove("x"), d.Remove("sub"), d.Rename("a", "b")); err != nil {
			t.Fatal(err)
		}
		if got := names(t, d); !slices.Equal(got, []string{"b"}) {
			t.Errorf("names: got %q, want b", got)
		}
		if _, err := d.OpenFile("b", Create); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Create of what exists: got %v, want fs.ErrExist", err)
		}
	})
}

func TestPathsStayInside(t *testing.T) {
	eachFS(t, func(t *testing.T, d FS, _ string) {
		for _, path := range []string{"", "..", "../x", "/etc/passwd", "a/../../x", "a//b", "./a", "a/", "a\x00b"} {
			_, err := d.OpenFile(path, Read)
			_, err2 := d.OpenFile(path, Create)
			_, err3 := d.OpenDir(path)
			_, err4 := d.Lstat(path)
			for i, err := range []error{err, err2, err3, err4, d.Mkdir(path, 0o700), d.Link("f", d, path), d.Rename("f", path), d.Rename(path, "f"), d.Remove(path)} {
				if !errors.Is(err, fs.ErrInvalid) {
					t.Errorf("call %d with %q: got %v, want fs.ErrInvalid", i, path, err)
				}
			}
		}
		for _, name := range []string{"a/b", "."} {
			if err := d.Mkdir(name, 0o700); !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("Mkdir(%q): got %v, want fs.ErrInvalid", name, err)
			}
		}
	})
}

func TestLinksAreNotFollowed(t *testing.T) {
	eachFS(t, func(t *testing.T, d FS, path string) {
		if path == "" {
			return // planted in TestMemPlanted
		}
		outside := t.TempDir()
		if err := errors.Join(
			os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600), os.Mkdir(filepath.Join(path, "inside"), 0o700),
			os.WriteFile(filepath.Join(path, "inside", "f"), nil, 0o600), os.Symlink(outside, filepath.Join(path, "out")),
			os.Symlink("inside", filepath.Join(path, "in")), os.Symlink(filepath.Join(outside, "secret"), filepath.Join(path, "file")),
			os.Symlink("nowhere", filepath.Join(path, "dangling")), syscall.Mkfifo(filepath.Join(path, "pipe"), 0o600),
		); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{"out/secret", "in/f", "file", "dangling"} {
			for _, mode := range []Mode{Read, Write} {
				if _, err := d.OpenFile(p, mode); !errors.Is(err, syscall.ELOOP) {
					t.Errorf("OpenFile(%q): got %v, want ELOOP", p, err)
				}
			}
			if _, err := d.OpenFile(p, Create); err == nil {
				t.Errorf("Create of %q: got nil, want an error", p)
			}
		}
		for _, p := range []string{"out", "in", "dangling"} {
			if _, err := d.OpenDir(p); !errors.Is(err, syscall.ELOOP) && !errors.Is(err, syscall.ENOTDIR) {
				t.Errorf("OpenDir(%q): got %v, want ELOOP or ENOTDIR", p, err)
			}
			if st, err := d.Lstat(p); err != nil || st.Type != Symlink {
				t.Errorf("Lstat(%q): %+v, %v, want a link", p, st, err)
			}
		}
		for _, p := range []string{"out/secret", "in/f"} {
			if _, err := d.Lstat(p); !errors.Is(err, syscall.ELOOP) {
				t.Errorf("Lstat(%q): got %v, want ELOOP", p, err)
			}
		}
		if _, err := d.OpenFile("pipe", Read); !errors.Is(err, ErrIrregular) {
			t.Errorf("OpenFile of a pipe: got %v, want ErrIrregular", err)
		}
		if _, err := d.OpenFile("inside", Read); !errors.Is(err, ErrIrregular) {
			t.Errorf("OpenFile of a directory: got %v, want ErrIrregular", err)
		}
		for _, p := range []string{"dangling", "file"} {
			f := write(t, d, "new"+p, "x")
			if err := d.Link("new"+p, d, p); !errors.Is(err, fs.ErrExist) {
				t.Errorf("Link over the link %q: got %v, want fs.ErrExist", p, err)
			}
			f.Close()
		}
	})
}

func TestMemPlanted(t *testing.T) {
	t.Parallel()
	m := NewMem(time.Now)
	if err := errors.Join(m.Plant("l", Symlink), m.Plant("p", Irregular)); err != nil {
		t.Fatal(err)
	}
	m.Crash(nil)
	d := m.Root()
	_, err := d.OpenFile("l", Read)
	_, err2 := d.OpenDir("l")
	_, err3 := d.Lstat("l/x")
	for i, err := range []error{err, err2, err3} {
		if !errors.Is(err, syscall.ELOOP) {
			t.Errorf("call %d: got %v, want ELOOP", i, err)
		}
	}
	if _, err := d.OpenFile("p", Read); !errors.Is(err, ErrIrregular) {
		t.Errorf("OpenFile of a pipe: got %v, want ErrIrregular", err)
	}
}

func TestManyNames(t *testing.T) {
	eachFS(t, func(t *testing.T, d FS, _ string) {
		var want []string
		for i := range 2*namesPiece + 3 {
			name := fmt.Sprintf("%05d", i)
			want = append(want, name)
			if err := write(t, d, name, "").Close(); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if got := names(t, d); !slices.Equal(got, want) {
				t.Errorf("got %d names, want %d", len(got), len(want))
			}
		}
		n := 0
		if err := d.Names(func(string) bool { n++; return n < 5 }); err != nil || n != 5 {
			t.Errorf("stopping: %d names, %v", n, err)
		}
		if _, err := d.OpenFile(strings.Repeat("x", 256), Create); !errors.Is(err, syscall.ENAMETOOLONG) {
			t.Errorf("a name of 256 bytes: got %v, want ENAMETOOLONG", err)
		}
	})
}

// TestCrashLosesWhatIsNotSynced counts out what survives each kind of sync.
func TestCrashLosesWhatIsNotSynced(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		sync func(d FS, f File) error
		want string // content after the crash; "gone" for no file
	}{
		{"nothing", func(FS, File) error { return nil }, "gone"},
		{"file alone", func(_ FS, f File) error { return f.SyncAll() }, "gone"},
		{"directory alone", func(d FS, _ File) error { return d.Sync() }, ""},
		{"both", func(d FS, f File) error { return errors.Join(f.Sync(), d.Sync()) }, "data"},
		{"everything", func(d FS, _ File) error { return d.SyncAll() }, "data"},
	} {
		m := NewMem(time.Now)
		d := m.Root()
		f := write(t, d, "f", "data")
		if err := tt.sync(d, f); err != nil {
			t.Fatal(err)
		}
		m.Crash(nil)
		if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrStopped) {
			t.Errorf("%s: an old handle: got %v, want ErrStopped", tt.name, err)
		}
		got := "gone"
		if f, err := m.Root().OpenFile("f", Read); err == nil {
			buf := make([]byte, 10)
			n, _ := f.ReadAt(buf, 0)
			got = string(buf[:n])
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestCrashTearsAtSectors(t *testing.T) {
	t.Parallel()
	torn := 0
	for seed := range uint64(50) {
		m := NewMem(time.Now)
		f := write(t, m.Root(), "f", strings.Repeat("a", 4*sectorSize))
		if err := errors.Join(f.Sync(), m.Root().Sync()); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte(strings.Repeat("b", 4*sectorSize)), 0); err != nil {
			t.Fatal(err)
		}
		m.Crash(rand.New(rand.NewPCG(seed, 1)))
		f, err := m.Root().OpenFile("f", Read)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4*sectorSize)
		if _, err := f.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		for s := range 4 {
			sector := string(got[s*sectorSize : (s+1)*sectorSize])
			if sector != strings.Repeat(sector[:1], sectorSize) {
				t.Fatal("a sector is torn")
			}
		}
		if got[0] != got[len(got)-1] || got[0] != got[sectorSize] {
			torn++
		}
	}
	if torn < 10 {
		t.Errorf("%d of 50 crashes tore the file: too few", torn)
	}
}

func TestFailedSyncIsNotMadeGood(t *testing.T) {
	t.Parallel()
	m := NewMem(time.Now)
	f := write(t, m.Root(), "f", "data")
	if err := m.Root().Sync(); err != nil {
		t.Fatal(err)
	}
	m.SetHook(FailNth(OpSync, 0, Verdict{Err: syscall.EIO}))
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Sync: got %v, want EIO", err)
	}
	if err := f.Sync(); err != nil {
		t.Fatalf("second Sync: %v", err)
	}
	m.Crash(nil)
	st, err := m.Root().Lstat("f")
	if err != nil {
		t.Fatal(err)
	}
	f, _ = m.Root().OpenFile("f", Read)
	buf := make([]byte, st.Size)
	if _, err := f.ReadAt(buf, 0); err != nil && st.Size > 0 || string(buf) == "data" {
		t.Errorf("after a failed sync and a crash the file has %q", buf)
	}
}

func TestHalfAWrite(t *testing.T) {
	t.Parallel()
	m := NewMem(time.Now)
	f := write(t, m.Root(), "f", "")
	m.SetHook(FailNth(OpWrite, m.CallsOf(OpWrite), Verdict{Err: syscall.ENOSPC, Effect: Half}))
	n, err := f.WriteAt([]byte("12345678"), 0)
	if st, _ := f.Stat(); n != 4 || st.Size != 4 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %d, %v and a file of %d bytes, want 4, ENOSPC, 4", n, err, st.Size)
	}
}
