package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
)

const (
	bootA = "boot-a"
	bootB = "boot-b"
)

func newMem() *disk.Mem { return disk.NewMem(time.Now) }

func mustCreate(t *testing.T, dir disk.FS) *Journal {
	t.Helper()
	j, err := Create(dir, "j", bootA)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	return j
}

func appendText(t *testing.T, j *Journal, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := j.Append(Record{1, []byte(text)}); err != nil {
			t.Fatalf("Append: %v", err)
		}
	}
}

func commit(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Commit(j.Mark()); err != nil {
		t.Fatalf("Commit: %v", err)
	}
}

// read opens j and returns the texts that count.
func read(t *testing.T, dir disk.FS, boot string) (*Journal, []string) {
	t.Helper()
	texts := []string{}
	j, err := Open(dir, "j", boot, func(r Record) error {
		texts = append(texts, string(r.Data))
		return nil
	})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return j, texts
}

func wantTexts(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("recovered %q, want %q", got, want)
	}
}

func TestBootIDRule(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, boot string
		want       []string
	}{
		{"same boot: what was written counts", bootA, []string{"a", "b", "c", "d"}},
		{"other boot: only what was committed", bootB, []string{"a", "b"}},
		{"unknown boot: only what was committed", "", []string{"a", "b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMem()
			j := mustCreate(t, m.Root())
			appendText(t, j, "a", "b")
			mark := j.Mark()
			appendText(t, j, "c") // appended by somebody else between Mark and Commit
			if err := j.Commit(mark); err != nil {
				t.Fatal(err)
			}
			appendText(t, j, "d")
			m.Kill()
			j, got := read(t, m.Root(), tt.boot)
			wantTexts(t, got, tt.want...)
			appendText(t, j, "e")
			commit(t, j)
			m.Crash(nil)
			_, got = read(t, m.Root(), "boot-c")
			wantTexts(t, got, append(tt.want, "e")...)
		})
	}
}

func TestTornAtEveryByte(t *testing.T) {
	t.Parallel()
	m := newMem()
	root := m.Root()
	j := mustCreate(t, root)
	var ends []int64
	var texts []string
	for i := range 12 {
		text := fmt.Sprintf("record %d %s", i, string(make([]byte, i*7)))
		appendText(t, j, text)
		texts, ends = append(texts, text), append(ends, int64(j.Mark()))
		if i%4 == 3 {
			commit(t, j)
		}
	}
	f, err := root.OpenFile("j", disk.Read)
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, j.Mark())
	if _, err := f.ReadAt(whole, 0); err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut <= len(whole); cut++ {
		for _, flip := range []bool{false, true} {
			if flip && (cut == len(whole) || cut < int(maxUnborn)) {
				continue
			}
			b := slices.Clone(whole[:cut])
			if flip {
				b = slices.Clone(whole)
				b[cut] ^= 0x40
			}
			n := 0
			for n < len(ends) && ends[n] <= int64(cut) {
				n++
			}
			dir := plantFile(t, b)
			_, got := read(t, dir, bootA)
			wantTexts(t, got, texts[:n]...)
			_, again := read(t, dir, bootA)
			wantTexts(t, again, texts[:n]...)
		}
	}
	t.Logf("%d bytes: cut and flipped at each", len(whole))
}

func plantFile(t *testing.T, b []byte) disk.FS {
	t.Helper()
	dir := newMem().Root()
	f, err := dir.OpenFile("j", disk.Create)
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestForeignFileIsNotTaken(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"hello", "x", magic[:5] + "!", magic + "and then something that is much longer than an unborn journal could be, by far, in bytes"} {
		_, err := Open(plantFile(t, []byte(text)), "j", bootA, nil)
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("Open of %q: got %v, want ErrCorrupt", text, err)
		}
	}
}

// script is a life of a journal. It returns what was committed and what was appended.
func script(dir disk.FS) (committed, appended []string, err error) {
	j, err := Create(dir, "j", bootA)
	if err != nil {
		return nil, nil, err
	}
	for i := range 6 {
		for k := range 3 {
			text := fmt.Sprint(i, "/", k, string(make([]byte, 300)))
			// An append that fails may have arrived all the same.
			appended = append(appended, text)
			if err := j.Append(Record{1, []byte(text)}); err != nil {
				return committed, appended, err
			}
		}
		if err := j.Commit(j.Mark()); err != nil {
			return committed, appended, err
		}
		committed = slices.Clone(appended)
	}
	return committed, appended, j.Close()
}

func TestCrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	m := newMem()
	if _, _, err := script(m.Root()); err != nil {
		t.Fatal(err)
	}
	calls, points := m.Calls(), 0
	for n := range calls + 1 {
		for _, effect := range []disk.Effect{disk.None, disk.Done, disk.Half} {
			for seed := range uint64(6) {
				points++
				m := newMem()
				m.SetHook(disk.StopAt(n, effect))
				committed, appended, _ := script(m.Root())
				boot := bootB
				switch seed {
				case 0:
					m.Kill()
					boot = bootA
				case 1:
					m.Crash(nil)
				default:
					m.Crash(rand.New(rand.NewPCG(seed, uint64(n))))
				}
				checkRecovery(t, m, boot, committed, appended)
			}
		}
	}
	t.Logf("%d crash points over %d operations", points, calls)
}

// checkRecovery expects a prefix of appended that has all of committed, also when
// recovery itself is cut short at any operation.
func checkRecovery(t *testing.T, m *disk.Mem, boot string, committed, appended []string) {
	t.Helper()
	m.ResetCalls()
	for stop := 0; ; stop++ {
		m.SetHook(disk.StopAt(stop, disk.Done))
		var got []string
		j, err := Open(m.Root(), "j", boot, func(r Record) error { got = append(got, string(r.Data)); return nil })
		m.Kill()
		m.ResetCalls()
		if errors.Is(err, fs.ErrNotExist) && len(committed) == 0 {
			return
		}
		if errors.Is(err, disk.ErrStopped) && stop < 200 {
			continue
		}
		if err != nil {
			t.Fatalf("Open: %v", err)
		}
		if len(got) < len(committed) || len(got) > len(appended) || !slices.Equal(got, appended[:len(got)]) {
			t.Fatalf("recovered %d records, committed %d, appended %d", len(got), len(committed), len(appended))
		}
		_ = j
		return
	}
}

func TestFailedSyncPoisons(t *testing.T) {
	t.Parallel()
	m := newMem()
	j := mustCreate(t, m.Root())
	appendText(t, j, "a")
	commit(t, j)
	appendText(t, j, "b")
	m.SetHook(disk.FailNth(disk.OpSync, m.CallsOf(disk.OpSync), disk.Verdict{Err: syscall.EIO}))
	if err := j.Commit(j.Mark()); !errors.Is(err, ErrPoisoned) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("Commit: got %v, want ErrPoisoned and EIO", err)
	}
	if err := j.Commit(j.Mark()); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("second Commit: got %v, want ErrPoisoned", err)
	}
	if err := j.Append(Record{1, nil}); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("Append: got %v, want ErrPoisoned", err)
	}
	// A successor in the same boot must not believe what the disk never got.
	m.Kill()
	j, got := read(t, m.Root(), bootA)
	wantTexts(t, got, "a")
	appendText(t, j, "c")
	commit(t, j)
	m.Crash(nil)
	_, got = read(t, m.Root(), bootB)
	wantTexts(t, got, "a", "c")
}

func TestFailedAppendLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, effect := range []disk.Effect{disk.None, disk.Half, disk.Done} {
		m := newMem()
		j := mustCreate(t, m.Root())
		appendText(t, j, "a")
		m.SetHook(disk.FailNth(disk.OpWrite, m.CallsOf(disk.OpWrite), disk.Verdict{Err: syscall.ENOSPC, Effect: effect}))
		if err := j.Append(Record{1, make([]byte, 4000)}); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("Append: got %v, want ENOSPC", err)
		}
		appendText(t, j, "b")
		commit(t, j)
		m.Crash(nil)
		_, got := read(t, m.Root(), bootB)
		wantTexts(t, got, "a", "b")
	}
}

func TestConcurrentCommitsShareSyncs(t *testing.T) {
	t.Parallel()
	m := newMem()
	j := mustCreate(t, m.Root())
	const writers, each = 16, 40
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := j.Append(Record{2, fmt.Appendf(nil, "%d/%d", w, i)}); err != nil {
					t.Error(err)
				}
				if err := j.Commit(j.Mark()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	m.Crash(nil)
	_, got := read(t, m.Root(), bootB)
	if len(got) != writers*each {
		t.Fatalf("recovered %d records, want %d", len(got), writers*each)
	}
	t.Logf("%d commits, %d syncs", writers*each, m.CallsOf(disk.OpSync))
}

func TestCreateTwiceAndRemove(t *testing.T) {
	t.Parallel()
	m := newMem()
	mustCreate(t, m.Root())
	if _, err := Create(m.Root(), "j", bootA); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second Create: got %v, want fs.ErrExist", err)
	}
	for range 2 {
		if err := Remove(m.Root(), "j"); err != nil {
			t.Fatal(err)
		}
	}
	m.Crash(nil)
	if _, err := Open(m.Root(), "j", bootA, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Open after Remove: got %v, want fs.ErrNotExist", err)
	}
}

func TestOversizedRecord(t *testing.T) {
	t.Parallel()
	j := mustCreate(t, newMem().Root())
	if err := j.Append(Record{1, make([]byte, MaxRecordSize+1)}); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v, want ErrTooLarge", err)
	}
	if err := j.Append(Record{1, make([]byte, MaxRecordSize)}); err != nil {
		t.Fatal(err)
	}
}

func TestBootIDIsStable(t *testing.T) {
	t.Parallel()
	a, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := BootID()
	if a != b || len(a) > maxBootID {
		t.Fatalf("got %q and %q", a, b)
	}
}

func FuzzOpen(f *testing.F) {
	m := newMem()
	j, err := Create(m.Root(), "j", bootA)
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{"", "a", "some longer record"} {
		if err := errors.Join(j.Append(Record{3, []byte(s)}), j.Commit(j.Mark())); err != nil {
			f.Fatal(err)
		}
	}
	whole := make([]byte, j.Mark())
	if _, err := j.file.ReadAt(whole, 0); err != nil {
		f.Fatal(err)
	}
	for n := range len(whole) + 1 {
		f.Add(whole[:n])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := plantFile(t, b)
		var recs []Record
		j, err := Open(dir, "j", bootA, func(r Record) error { recs = append(recs, r); return nil })
		if err != nil {
			if j != nil {
				t.Fatal("a journal beside an error")
			}
			return
		}
		// What was recovered is what a second recovery finds, and every record
		// encodes to the bytes that it was read from.
		var again []Record
		if _, err := Open(dir, "j", bootA, func(r Record) error { again = append(again, r); return nil }); err != nil {
			t.Fatalf("second Open: %v", err)
		}
		if !slices.EqualFunc(recs, again, func(a, b Record) bool { return a.Kind == b.Kind && string(a.Data) == string(b.Data) }) {
			t.Fatalf("second Open: %d records, first %d", len(again), len(recs))
		}
		d := decoder{r: j.file, at: int64(len(magic)), size: int64(j.Mark())}
		for d.at < d.size {
			at := d.at
			r, err := d.next()
			if err != nil {
				t.Fatalf("record at %d: %v", at, err)
			}
			enc := appendRecord(nil, at, r)
			raw := make([]byte, len(enc))
			if _, err := j.file.ReadAt(raw, at); err != nil || string(raw) != string(enc) {
				t.Fatalf("record at %d encodes differently", at)
			}
		}
	})
}
