package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A life is one run of an agent's part in a transfer: stage, write, sync, publish. It remembers
// outside the machine what it was promised, as the other side and the broker do.
type life struct {
	objects  []token.ObjectName
	chunks   int             // of each object
	have     map[[2]int]bool // (item, chunk) that Sync promised
	promised map[int]bool    // items whose Published.Err was nil
}

const crashChunk = 1500 // not a multiple of the sector, which this store does not mind

// writePart writes a part in two pieces.
func writePart(ctx context.Context, st store.Stage, part int64, data []byte) error {
	p, err := st.Part(ctx, part)
	if err != nil {
		return err
	}
	for _, piece := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
		if _, err := p.Write(piece); err != nil {
			p.Abort()
			return err
		}
	}
	return p.Close()
}

// readAll reads the first n bytes.
func readAll(ctx context.Context, r store.Reader, n int64) ([]byte, error) {
	sec, err := r.Section(ctx, 0, n)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(sec)
	return data, errors.Join(err, sec.Close())
}

// leftBehind returns the names of all leftovers.
func leftBehind(t testing.TB, s *Store) (ids []string) {
	t.Helper()
	if err := s.Leftovers(t.Context(), func(l store.Leftover) bool { ids = append(ids, l.ID); return true }); err != nil {
		t.Fatalf("Leftovers: %v", err)
	}
	return ids
}

func (l *life) data(item int) []byte { return storetest.Content(item, l.chunks*crashChunk) }

func (l *life) item(index int) store.Item {
	return store.Item{
		Index: index, Name: l.objects[index], Size: int64(l.chunks * crashChunk), Part: crashChunk,
		Attrs: store.Attrs{ModTime: time.Unix(1e9, 0), Mode: 0o440, HasMode: true},
	}
}

// run goes on where an earlier life ended, and returns nil when all is published.
func (l *life) run(ctx context.Context, s *Store) error {
	b, err := s.Batch(ctx, "x-1")
	if err != nil {
		return err
	}
	pubs := make([]store.Publication, len(l.objects))
	for item := range l.objects {
		pubs[item] = store.Publication{Item: l.item(item)}
		if l.promised[item] {
			continue
		}
		if err := l.fill(ctx, b, item); err != nil {
			return err
		}
	}
	for item, out := range b.Publish(ctx, pubs) {
		if out.Err != nil {
			err = errors.Join(err, fmt.Errorf("item %d: %w", item, out.Err))
			continue
		}
		l.promised[item] = true
	}
	if err != nil {
		return err
	}
	return b.Close()
}

// fill writes what is missing of an item, unless it was published already.
func (l *life) fill(ctx context.Context, b store.Batch, item int) error {
	st, err := b.Stage(ctx, l.item(item))
	if err != nil {
		return err
	}
	whole := true
	for k := range l.chunks {
		if !st.Holds(int64(k)) {
			delete(l.have, [2]int{item, k})
		}
		whole = whole && l.have[[2]int{item, k}]
	}
	if whole {
		return st.Close()
	}
	data := l.data(item)
	for k := range l.chunks {
		if l.have[[2]int{item, k}] {
			continue
		}
		if err := writePart(ctx, st, int64(k), data[k*crashChunk:(k+1)*crashChunk]); err != nil {
			return err
		}
	}
	if err := st.Sync(); err != nil {
		for k := range l.chunks {
			delete(l.have, [2]int{item, k})
		}
		return errors.Join(err, st.Discard(ctx))
	}
	for k := range l.chunks {
		l.have[[2]int{item, k}] = true
	}
	return st.Close()
}

// audit checks every object after a crash: whole or absent, and there if it was promised.
func (l *life) audit(t *testing.T, s *Store) {
	t.Helper()
	for item, name := range l.objects {
		in, err := s.Stat(t.Context(), name)
		if problem.Of(err) == problem.Missing && !l.promised[item] {
			continue
		}
		if err != nil {
			t.Fatalf("item %d, promised %v: %v", item, l.promised[item], err)
		}
		r, err := s.Open(t.Context(), name, in.Version)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(t.Context(), r, in.Size); err != nil || !bytes.Equal(got, l.data(item)) {
			t.Fatalf("item %d is torn: %d bytes, %v", item, in.Size, err)
		}
		if in.Attrs.Mode != 0o440 || in.Attrs.ModTime.Unix() != 1e9 {
			t.Fatalf("item %d has mode %o and time %v", item, in.Attrs.Mode, in.Attrs.ModTime)
		}
	}
}

func newLife(items, chunks, dirs int) *life {
	l := &life{chunks: chunks, have: map[[2]int]bool{}, promised: map[int]bool{}}
	for i := range items {
		l.objects = append(l.objects, token.ObjectName(fmt.Sprintf("a/%d/o%d", i%dirs, i)))
	}
	return l
}

// TestCrashAtEveryOperation kills the process or cuts the power at every file system operation
// of a publication, before and after the operation took effect, and then runs it again.
func TestCrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		items, chunks int
		dirs, step    int
	}{
		{"one object of eight chunks", 1, 8, 1, 1},
		{"five objects", 5, 2, 3, 1},
		{"many directories, synced at once", manyDirs, 1, manyDirs, 3},
		{"seventy objects, synced at once", bulk + 6, 1, 3, 11},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := disk.NewMem(time.Now)
			if err := newLife(tt.items, tt.chunks, tt.dirs).run(t.Context(), Open(m.Root(), time.Now)); err != nil {
				t.Fatal(err)
			}
			calls, points, thin := m.Calls(), 0, 1
			if testing.Short() {
				thin = 4
			}
			for n := 0; n <= calls; n += tt.step * thin {
				for _, effect := range []disk.Effect{disk.None, disk.Done, disk.Half} {
					for seed := range uint64(5) {
						points++
						crashOnce(t, newLife(tt.items, tt.chunks, tt.dirs), disk.StopAt(n, effect), seed)
					}
				}
			}
			t.Logf("%d crash points over %d operations", points, calls)
		})
	}
}

func crashOnce(t *testing.T, l *life, hook func(disk.Call) disk.Verdict, seed uint64) {
	t.Helper()
	m := disk.NewMem(time.Now)
	m.SetHook(hook)
	err := l.run(t.Context(), Open(m.Root(), time.Now))
	if err == nil && len(l.promised) != len(l.objects) {
		t.Fatal("success without promises")
	}
	end(m, seed)
	s := Open(m.Root(), time.Now)
	l.audit(t, s)
	if err := l.run(t.Context(), s); err != nil {
		t.Fatalf("running again: %v", err)
	}
	m.Crash(nil)
	s = Open(m.Root(), time.Now)
	l.audit(t, s)
	// A third run publishes nothing anew and still succeeds; then nothing is left.
	links := m.CallsOf(disk.OpLink)
	if err := l.run(t.Context(), s); err != nil {
		t.Fatalf("running a third time: %v", err)
	}
	if got := m.CallsOf(disk.OpLink); got != links {
		t.Fatalf("a third run linked %d times", got-links)
	}
	b, err := s.Batch(t.Context(), "x-1")
	if err == nil {
		err = b.Drop(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	m.Crash(nil)
	s = Open(m.Root(), time.Now)
	l.audit(t, s)
	if ids := leftBehind(t, s); len(ids) != 0 {
		t.Fatalf("Leftovers after Drop and crash: got %q", ids)
	}
}

// end ends the machine's life in one of several ways.
func end(m *disk.Mem, seed uint64) {
	switch seed {
	case 0:
		m.Kill()
	case 1:
		m.Crash(nil)
	default:
		m.Crash(rand.New(rand.NewPCG(seed, 7)))
	}
}

// TestEveryOperationFailsOnce fails each operation once with each error and lets the process go
// on: nothing that was promised may be missing or torn, in the cache or after a power cut.
func TestEveryOperationFailsOnce(t *testing.T) {
	t.Parallel()
	for _, items := range []int{2, bulk} {
		m := disk.NewMem(time.Now)
		if err := newLife(items, 2, 3).run(t.Context(), Open(m.Root(), time.Now)); err != nil {
			t.Fatal(err)
		}
		calls, runs, step := m.Calls(), 0, 1
		if items >= bulk {
			step = 7
		}
		if testing.Short() {
			step *= 4
		}
		for n := 0; n < calls; n += step {
			for _, errno := range []error{syscall.EIO, syscall.ENOSPC} {
				for _, effect := range []disk.Effect{disk.None, disk.Done, disk.Half} {
					runs++
					failOnce(t, newLife(items, 2, 3), n, disk.Verdict{Err: errno, Effect: effect})
				}
			}
		}
		t.Logf("%d items: %d faults over %d operations", items, runs, calls)
	}
}

func failOnce(t *testing.T, l *life, n int, v disk.Verdict) {
	t.Helper()
	m := disk.NewMem(time.Now)
	m.SetHook(func(c disk.Call) disk.Verdict {
		if c.N == n {
			return v
		}
		return disk.Verdict{}
	})
	s := Open(m.Root(), time.Now)
	// The process goes on after each error, as an agent's next attempt does, with a batch opened anew.
	var err error
	for range 3 {
		if err = l.run(t.Context(), s); err == nil {
			break
		}
		s.mu.Lock()
		clear(s.inUse) // the failed attempt's batch is abandoned
		s.mu.Unlock()
	}
	if err != nil {
		t.Fatalf("operation %d, %v: never succeeded: %v", n, v, err)
	}
	l.audit(t, s)
	m.Crash(nil)
	l.audit(t, Open(m.Root(), time.Now))
}
