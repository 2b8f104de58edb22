package dir

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestListInPasses lists directories that hold more names than a listing may.
func TestListInPasses(t *testing.T) {
	t.Parallel()
	m := disk.NewMem(time.Now)
	var want []string
	for i := range 300 {
		name := fmt.Sprintf("d%02d/e%d/%03d", i%10, i%2, i)
		if i%3 == 0 {
			name = fmt.Sprintf("f%03d", i)
		}
		want = append(want, name)
		putFile(t, m.Root(), token.ObjectName(name), nil)
	}
	slices.SortFunc(want, compareNames)
	for _, names := range []int{1, 2, 7, 100, maxNames} {
		s := Open(m.Root(), time.Now)
		s.names = names
		if got := storetest.Names(t, s, "", ""); !slices.Equal(got, want) {
			t.Errorf("with %d names at once: got %d names, want %d in order", names, len(got), len(want))
		}
		for range 20 {
			i := rand.IntN(len(want))
			if got := storetest.Names(t, s, "", token.ObjectName(want[i])); !slices.Equal(got, want[i+1:]) {
				t.Errorf("with %d names at once, after %q: got %d names, want %d", names, want[i], len(got), len(want)-i-1)
			}
		}
	}
}

func TestListGoesOnBehindBadNames(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	for _, name := range []string{"a", "\xff", "a\nb", "b\\c", "e\u0301", "%FF", "z", "\xffdir/x", "sp ace"} {
		at := filepath.Join(path, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(path, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openReal(t, path)
	want := []string{"%FF", "%FF [bad-name]", "%FFdir [bad-name]", "a", "a%0Ab [bad-name]", "b%5Cc [bad-name]", "e%CC%81 [bad-name]", "fifo", "sp ace", "z"}
	if got := storetest.Names(t, s, "", ""); !slices.Equal(got, want) {
		t.Errorf("List: got %q, want %q", got, want)
	}
	if got := storetest.Names(t, s, "", "a%0Ab"); !slices.Equal(got, want[5:]) {
		t.Errorf("List after a bad name: got %q, want %q", got, want[5:])
	}
	in, err := s.Stat(t.Context(), "fifo")
	if err != nil || in.Type != store.Special {
		t.Errorf("Stat of a pipe: %+v, %v", in, err)
	}
	_, err = s.Open(t.Context(), "fifo", in.Version)
	if problem.Of(err) != problem.Unreadable {
		t.Errorf("Open of a pipe: got %v, want unreadable", err)
	}
}

func TestListTellsOfUnreadableDirectory(t *testing.T) {
	t.Parallel()
	m := disk.NewMem(time.Now)
	for _, name := range []token.ObjectName{"a/x", "b/x", "c/x"} {
		putFile(t, m.Root(), name, nil)
	}
	for _, op := range []disk.Op{disk.OpOpenDir, disk.OpNames, disk.OpLstat} {
		m.ResetCalls()
		nth := map[disk.Op]int{disk.OpOpenDir: 2, disk.OpNames: 2, disk.OpLstat: 2}[op] // that of b, after the root's
		m.SetHook(disk.FailNth(op, nth, disk.Verdict{Err: syscall.EACCES}))
		got := storetest.Names(t, Open(m.Root(), time.Now), "", "")
		want := []string{"a/x", "b/ [unreadable]", "c/x"}
		if op == disk.OpLstat {
			want[1] = "b [unreadable]"
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s refused: got %q, want %q", op, got, want)
		}
	}
}

func openReal(t testing.TB, path string) *Store {
	t.Helper()
	root, err := disk.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	s := Open(root, time.Now)
	t.Cleanup(func() { s.Close() })
	return s
}

// stageWhole writes an item of one part and closes it.
func stageWhole(t testing.TB, b store.Batch, it store.Item, data []byte) {
	t.Helper()
	st, err := b.Stage(t.Context(), it)
	if err == nil {
		err = writePart(t.Context(), st, 0, data)
	}
	if err == nil {
		err = st.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func publish(t testing.TB, s *Store, id store.BatchID, names ...token.ObjectName) []store.Published {
	t.Helper()
	b, err := s.Batch(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var pubs []store.Publication
	for i, name := range names {
		it := store.Item{Index: i, Name: name, Size: 4, Part: token.ChunkSize}
		stageWhole(t, b, it, []byte("evil"))
		pubs = append(pubs, store.Publication{Item: it})
	}
	outs := b.Publish(t.Context(), pubs)
	if err := b.Drop(t.Context()); err != nil {
		t.Fatal(err)
	}
	return outs
}

// TestSymlinkSwap swaps a directory for a link to the outside while batches publish into
// it: nothing outside may change, and what is reported as stored must be inside.
func TestSymlinkSwap(t *testing.T) {
	t.Parallel()
	for _, open := range []func(string) (disk.FS, error){disk.Open, disk.OpenPortable} {
		path, outside := quickDir(t), quickDir(t)
		root, err := open(path)
		if err != nil {
			t.Fatal(err)
		}
		s := Open(root, time.Now)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { swap(t, path, outside, stop) })
		stored, refused := 0, 0
		for i := range 2000 {
			for _, out := range publish(t, s, "x-1", token.ObjectName(fmt.Sprintf("d/n%d", i)), token.ObjectName(fmt.Sprintf("d/sub/n%d", i))) {
				if out.Err == nil {
					stored++
				} else {
					refused++
				}
			}
		}
		close(stop)
		wg.Wait()
		entries, err := os.ReadDir(outside)
		if err != nil || len(entries) != 1 || entries[0].Name() != "sub" {
			t.Errorf("outside: %v, %v, want the folder sub alone", entries, err)
		}
		if entries, err = os.ReadDir(filepath.Join(outside, "sub")); err != nil || len(entries) != 0 {
			t.Errorf("outside/sub: %v, %v, want nothing", entries, err)
		}
		if stored == 0 || refused == 0 {
			t.Errorf("%d stored and %d refused: the attack had no effect", stored, refused)
		}
		t.Logf("%d stored, %d refused", stored, refused)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// swap takes d away, whenever the store has made it, and puts a link to outside in its place for a while.
func swap(t *testing.T, path, outside string, stop chan struct{}) {
	if err := os.MkdirAll(filepath.Join(outside, "sub"), 0o755); err != nil {
		t.Error(err)
		return
	}
	d, aside := filepath.Join(path, "d"), filepath.Join(path, "aside")
	for {
		select {
		case <-stop:
			return
		default:
		}
		// Each of these may come too early or too late, which is fine.
		_ = os.Rename(d, aside)
		_ = os.Symlink(outside, d)
		if st, err := os.Lstat(d); err == nil && st.Mode()&os.ModeSymlink != 0 {
			_ = os.Remove(d)
		}
		_ = os.RemoveAll(aside)
	}
}

func TestStageFolderOfAnotherIsRefused(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(path string) error{
		"link":          func(p string) error { return os.Symlink(os.TempDir(), p) },
		"open to all":   func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o777)) },
		"not a folder":  func(p string) error { return os.WriteFile(p, nil, 0o600) },
		"open to group": func(p string) error { return errors.Join(os.Mkdir(p, 0o700), os.Chmod(p, 0o750)) },
	} {
		path := t.TempDir()
		if err := plant(filepath.Join(path, hidden)); err != nil {
			t.Fatal(err)
		}
		s := openReal(t, path)
		if _, err := s.Batch(t.Context(), "x-1"); problem.Of(err) != problem.Unwritable && problem.Of(err) != problem.Taken {
			t.Errorf("%s: Batch: got %v, want unwritable", name, err)
		}
		if _, err := s.Probe(t.Context()); err == nil {
			t.Errorf("%s: Probe: got nil, want an error", name)
		}
	}
}

// TestVersionAcrossNames shows what a change of the number of names does to versions.
func TestVersionAcrossNames(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	s := openReal(t, path)
	file, other := filepath.Join(path, "f"), filepath.Join(path, "g")
	if err := os.WriteFile(file, []byte("12345"), 0o644); err != nil {
		t.Fatal(err)
	}
	in, _ := s.Stat(t.Context(), "f")
	r, err := s.Open(t.Context(), "f", in.Version)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Link(file, other); err != nil {
		t.Fatal(err)
	}
	if err := r.Check(t.Context()); err != nil {
		t.Errorf("a further name: Check: %v", err)
	}
	short, _ := s.Stat(t.Context(), "f")
	if !strings.HasPrefix(string(in.Version), string(short.Version)+"-") {
		t.Errorf("versions %q and %q: the one without ctime should begin the other", short.Version, in.Version)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	again, err := s.Open(t.Context(), "f", short.Version)
	if err != nil {
		t.Fatalf("Open at the version without ctime: %v", err)
	}
	defer again.Close()
	// Written in place with the time set back: ctime tells.
	st, _ := os.Stat(file)
	if err := errors.Join(os.WriteFile(file, []byte("abcde"), 0o644), os.Chtimes(file, st.ModTime(), st.ModTime())); err != nil {
		t.Fatal(err)
	}
	if err := again.Check(t.Context()); problem.Of(err) != problem.Changed {
		t.Errorf("written in place: Check: got %v, want changed", err)
	}
}

func TestFreshAndSettled(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	m := disk.NewMem(func() time.Time { return now })
	putFile(t, m.Root(), "f", nil)
	for _, tt := range []struct {
		after time.Duration
		fresh bool
	}{{0, true}, {store.Settle - time.Millisecond, true}, {store.Settle + time.Millisecond, false}, {-time.Second, true}, {-time.Hour, false}} {
		in, err := Open(m.Root(), func() time.Time { return now.Add(tt.after) }).Stat(t.Context(), "f")
		if err != nil || in.Fresh != tt.fresh {
			t.Errorf("%v after the write: fresh %v, %v, want %v", tt.after, in.Fresh, err, tt.fresh)
		}
	}
}

func TestProbeRefusesWhatIsNotExclusive(t *testing.T) {
	t.Parallel()
	m := disk.NewMem(time.Now)
	s := Open(m.Root(), time.Now)
	m.SetHook(disk.FailNth(disk.OpLink, 5, disk.Verdict{Err: syscall.EPERM}))
	if _, err := s.Probe(t.Context()); problem.Of(err) != problem.NotExclusive {
		t.Errorf("no hard links: got %v, want %s", err, problem.NotExclusive)
	}
	m.ResetCalls()
	m.SetHook(func(c disk.Call) disk.Verdict {
		if c.Op == disk.OpLink && c.NOp < 2 {
			return disk.Verdict{Err: syscall.EEXIST}
		}
		return disk.Verdict{}
	})
	if _, err := s.Probe(t.Context()); problem.Of(err) != problem.NotExclusive {
		t.Errorf("nobody wins: got %v, want %s", err, problem.NotExclusive)
	}
	m.SetHook(nil)
	if _, err := s.Probe(t.Context()); err != nil {
		t.Errorf("a good store: %v", err)
	}
}

func TestErrorsHaveTheirKind(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		op    disk.Op
		errno error
		want  problem.Code
	}{
		{disk.OpCreate, syscall.ENOSPC, problem.DiskFull},
		{disk.OpAllocate, syscall.ENOSPC, problem.DiskFull},
		{disk.OpWrite, syscall.EDQUOT, problem.DiskFull},
		{disk.OpCreate, syscall.EACCES, problem.Unwritable},
		{disk.OpCreate, syscall.EROFS, problem.Unwritable},
		{disk.OpWrite, syscall.EIO, problem.Internal},
	} {
		m := disk.NewMem(time.Now)
		b, err := Open(m.Root(), time.Now).Batch(t.Context(), "x-1")
		if err != nil {
			t.Fatal(err)
		}
		m.ResetCalls()
		m.SetHook(disk.FailNth(tt.op, 0, disk.Verdict{Err: tt.errno}))
		st, err := b.Stage(t.Context(), store.Item{Name: "x", Size: allocateMin, Part: token.ChunkSize})
		if err == nil {
			err = writePart(t.Context(), st, 0, make([]byte, allocateMin))
		}
		if problem.Of(err) != tt.want || !errors.Is(err, tt.errno) {
			t.Errorf("%s with %v: got %v, want %s", tt.op, tt.errno, err, tt.want)
		}
	}
}

// BenchmarkPublish publishes batches of 1,024 objects of 16 KiB into a directory of their own.
func BenchmarkPublish(b *testing.B) {
	const items, size = 1024, 16 << 10
	path := b.TempDir()
	s := openReal(b, path)
	data := storetest.Content(1, size)
	n := 0
	for b.Loop() {
		bat, err := s.Batch(b.Context(), store.BatchID(fmt.Sprint("b-", n)))
		if err != nil {
			b.Fatal(err)
		}
		pubs := make([]store.Publication, items)
		for i := range items {
			it := store.Item{
				Index: i, Name: token.ObjectName(fmt.Sprintf("d%d/%d", n, i)), Size: size, Part: token.ChunkSize,
				Attrs: store.Attrs{ModTime: time.Unix(1e9, 0), Mode: 0o644, HasMode: true},
			}
			stageWhole(b, bat, it, data)
			pubs[i] = store.Publication{Item: it}
		}
		for _, out := range bat.Publish(b.Context(), pubs) {
			if out.Err != nil {
				b.Fatal(out.Err)
			}
		}
		if err := bat.Drop(b.Context()); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(n*items)/b.Elapsed().Seconds(), "objects/s")
}

// BenchmarkRead opens, reads and checks objects of 16 KiB.
func BenchmarkRead(b *testing.B) {
	path := b.TempDir()
	s := openReal(b, path)
	if err := errors.Join(os.MkdirAll(filepath.Join(path, "a/b/c"), 0o755), os.WriteFile(filepath.Join(path, "a/b/c/f"), make([]byte, 16<<10), 0o644)); err != nil {
		b.Fatal(err)
	}
	in, err := s.Stat(b.Context(), "a/b/c/f")
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 16<<10)
	for b.Loop() {
		r, err := s.Open(b.Context(), "a/b/c/f", in.Version)
		var sec io.ReadCloser
		if err == nil {
			sec, err = r.Section(b.Context(), 0, 16<<10)
		}
		if err == nil {
			_, err = io.ReadFull(sec, buf)
		}
		if err == nil {
			err = sec.Close()
		}
		if err == nil {
			err = r.Check(b.Context())
		}
		if err == nil {
			err = r.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// TestListBelowAnObject: whoever wants all below an object is told that it is one, and not that it does not exist.
func TestListBelowAnObject(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openReal(t, dir)
	for _, name := range []token.ObjectName{"a", "a/b"} {
		err := s.List(t.Context(), name, "", func(store.Info, error) bool { return true })
		if problem.Of(err) != problem.Missing || !strings.Contains(problem.As(err).Sentence(), "it is an object") {
			t.Errorf("%q: got %v, want to be told of the object", name, err)
		}
	}
}
