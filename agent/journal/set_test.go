package journal

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
)

var epoch = time.Unix(1_700_000_000, 0)

func openSet(t *testing.T, dir disk.FS, now time.Time) *Set {
	t.Helper()
	s, err := OpenSet(dir, "set", bootA, now)
	if err != nil {
		t.Fatalf("OpenSet: %v", err)
	}
	return s
}

func wantValue(t *testing.T, s *Set, key, want string) {
	t.Helper()
	if got, ok := s.Get(key); got != want || ok != (want != "") {
		t.Errorf("Get(%q): got %q, %v, want %q", key, got, ok, want)
	}
}

func TestSetIsDurable(t *testing.T) {
	t.Parallel()
	m := newMem()
	s := openSet(t, m.Root(), epoch)
	for i, value := range []string{"one", "two", "three"} {
		if err := s.Put("key", value, epoch.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(fmt.Sprint("k", i), value, epoch.Add(time.Duration(i)*time.Hour)); err != nil {
			t.Fatal(err)
		}
		m.Crash(nil)
		s = openSet(t, m.Root(), epoch)
		wantValue(t, s, "key", value)
	}
	m.Crash(nil)
	s = openSet(t, m.Root(), epoch.Add(90*time.Minute))
	wantValue(t, s, "k0", "")
	wantValue(t, s, "k1", "")
	wantValue(t, s, "k2", "three")
	wantValue(t, s, "key", "")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestClaimIsWonOnce(t *testing.T) {
	t.Parallel()
	m := newMem()
	s := openSet(t, m.Root(), epoch)
	const claimants = 16
	held := make([]string, claimants)
	var wg sync.WaitGroup
	for i := range claimants {
		wg.Go(func() {
			var err error
			if held[i], err = s.Claim("order", fmt.Sprint("transfer-", i), epoch.Add(time.Hour)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	m.Crash(nil)
	s = openSet(t, m.Root(), epoch)
	winner, _ := s.Get("order")
	for i, got := range held {
		if got != winner || winner == "" {
			t.Errorf("claimant %d holds %q, the set %q", i, got, winner)
		}
	}
	if got, err := s.Claim("order", "late", epoch.Add(time.Hour)); err != nil || got != winner {
		t.Errorf("a late claim: got %q, %v, want %q", got, err, winner)
	}
}

func TestSetCompacts(t *testing.T) {
	t.Parallel()
	m := newMem()
	s := openSet(t, m.Root(), epoch)
	value := string(make([]byte, 20<<10))
	for i := range 120 {
		if err := s.Put("same key", value, epoch.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	before := s.j.Size()
	if err := s.Compact(epoch); err != nil {
		t.Fatal(err)
	}
	if after := s.j.Size(); after > before/50 || s.Len() != 1 {
		t.Errorf("compacting: from %d to %d bytes, %d entries", before, after, s.Len())
	}
	if err := s.Put("other", "x", epoch.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	m.Crash(nil)
	s = openSet(t, m.Root(), epoch)
	wantValue(t, s, "same key", value)
	wantValue(t, s, "other", "x")
	if err := s.Compact(epoch.Add(1000 * time.Hour)); err != nil || s.Len() != 0 {
		t.Errorf("all past: %d entries, %v", s.Len(), err)
	}
	m.Crash(nil)
	if s = openSet(t, m.Root(), epoch); s.Len() != 0 {
		t.Errorf("after a crash: %d entries, want 0", s.Len())
	}
}

func TestSetRemove(t *testing.T) {
	t.Parallel()
	m := newMem()
	s := openSet(t, m.Root(), epoch)
	for i := range 5 {
		if err := s.Put(fmt.Sprint("k", i), fmt.Sprint("v", i), epoch.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	seen := 0
	for key, value := range s.All() {
		seen++
		if got, _ := s.Get(key); got != value {
			t.Errorf("All yields %q for %q, Get %q", value, key, got)
		}
		if key != "k1" {
			if err := s.Remove(key); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Remove("never there"); err != nil || seen != 5 {
		t.Errorf("got %d entries and %v, want 5", seen, err)
	}
	m.Crash(nil)
	s = openSet(t, m.Root(), epoch)
	wantValue(t, s, "k0", "")
	wantValue(t, s, "k1", "v1")
	if err := s.Put("k0", "again", epoch.Add(time.Hour)); err != nil || s.Len() != 2 {
		t.Errorf("got %d entries and %v, want 2", s.Len(), err)
	}
	for range 200 { // what was removed takes no room for ever
		if err := s.Put("big", string(make([]byte, 10<<10)), epoch.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove("big"); err != nil {
			t.Fatal(err)
		}
	}
	before := s.j.Size()
	if err := s.Compact(epoch); err != nil || s.j.Size() > before/100 {
		t.Errorf("compacting: from %d to %d bytes, %v", before, s.j.Size(), err)
	}
	got, err := ReadSet(m.Root(), "set", bootA, epoch)
	if want := map[string]string{"k0": "again", "k1": "v1"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("ReadSet beside its owner: got %v and %v, want %v", got, err, want)
	}
	if got, err := ReadSet(m.Root(), "none", bootA, epoch); err != nil || len(got) != 0 {
		t.Errorf("ReadSet of what does not exist: got %v and %v, want nothing", got, err)
	}
	if got, err := ReadSet(m.Root(), "set", bootA, epoch.Add(2*time.Hour)); err != nil || len(got) != 0 {
		t.Errorf("ReadSet of what is past: got %v and %v, want nothing", got, err)
	}
}

func TestSetLimits(t *testing.T) {
	t.Parallel()
	s := openSet(t, newMem().Root(), epoch)
	long := string(make([]byte, MaxSetValue+1))
	for _, kv := range [][2]string{{long[:MaxSetKey+1], ""}, {"k", long}} {
		if err := s.Put(kv[0], kv[1], epoch); !errors.Is(err, ErrTooLarge) {
			t.Errorf("Put of %d and %d bytes: got %v, want ErrTooLarge", len(kv[0]), len(kv[1]), err)
		}
	}
	s.size = MaxSetSize - 100
	if err := s.Put("k", "v", epoch.Add(time.Hour)); err != nil {
		t.Errorf("Put below the limit: %v", err)
	}
	if err := s.Put("l", "v", epoch.Add(time.Hour)); !errors.Is(err, ErrFull) {
		t.Errorf("Put above the limit: got %v, want ErrFull", err)
	}
}

// TestSetCrashAtEveryOperation: what Put promised is there after a crash at any operation,
// also in the middle of a compaction.
func TestSetCrashAtEveryOperation(t *testing.T) {
	t.Parallel()
	run := func(dir disk.FS, promised map[string]string) error {
		s, err := OpenSet(dir, "set", bootA, epoch)
		if err != nil {
			return err
		}
		for i := range 8 {
			key, value := fmt.Sprint("k", i%3), fmt.Sprint("v", i)
			delete(promised, key) // neither the old nor the new is certain while Put runs
			if err := s.Put(key, value, epoch.Add(time.Hour)); err != nil {
				return err
			}
			promised[key] = value
			if i%5 == 4 {
				delete(promised, key)
				if err := s.Remove(key); err != nil {
					return err
				}
				promised[key] = ""
			}
			if i%4 == 3 {
				if err := s.Put("past", "x", epoch.Add(-time.Hour)); err != nil {
					return err
				}
				if err := s.rewriteNow(); err != nil {
					return err
				}
			}
		}
		return s.Close()
	}
	m := newMem()
	if err := run(m.Root(), map[string]string{}); err != nil {
		t.Fatal(err)
	}
	calls, points := m.Calls(), 0
	for n := range calls + 1 {
		for _, effect := range []disk.Effect{disk.None, disk.Done, disk.Half} {
			for seed := range uint64(4) {
				points++
				m, promised := newMem(), map[string]string{}
				m.SetHook(disk.StopAt(n, effect))
				_ = run(m.Root(), promised) // it ends with the machine, or not at all
				switch seed {
				case 0:
					m.Kill()
				case 1:
					m.Crash(nil)
				default:
					m.Crash(rand.New(rand.NewPCG(seed, uint64(n))))
				}
				s := openSet(t, m.Root(), epoch)
				for key, value := range promised {
					wantValue(t, s, key, value)
				}
				if t.Failed() {
					t.Fatalf("stopped at %d, effect %d, seed %d", n, effect, seed)
				}
			}
		}
	}
	t.Logf("%d crash points over %d operations", points, calls)
}

func (s *Set) rewriteNow() error {
	s.compact.Lock()
	defer s.compact.Unlock()
	return s.rewrite()
}

func TestSetAfterFailedSync(t *testing.T) {
	t.Parallel()
	m := newMem()
	s := openSet(t, m.Root(), epoch)
	m.SetHook(disk.FailNth(disk.OpSync, m.CallsOf(disk.OpSync), disk.Verdict{Err: syscall.EIO}))
	if err := s.Put("k", "v", epoch.Add(time.Hour)); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("Put: got %v, want ErrPoisoned", err)
	}
	if _, err := s.Claim("k", "v", epoch.Add(time.Hour)); !errors.Is(err, ErrPoisoned) {
		t.Fatalf("Claim: got %v, want ErrPoisoned", err)
	}
	m.Kill()
	wantValue(t, openSet(t, m.Root(), epoch), "k", "")
}

// TestSetPutAll: what was put and taken away together is there after a crash, and nothing is beyond the limits of one entry.
func TestSetPutAll(t *testing.T) {
	t.Parallel()
	m := newMem()
	s := openSet(t, m.Root(), epoch)
	if err := s.Put("old", "1", epoch.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"a": "1", "b": "2", "old": "", "none": ""}
	if err := s.PutAll(maps.All(all), epoch.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, long := range []map[string]string{{strings.Repeat("k", MaxSetKey+1): "v"}, {"k": strings.Repeat("v", MaxSetValue+1)}} {
		if err := s.PutAll(maps.All(long), epoch.Add(time.Hour)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("got %v, want %v", err, ErrTooLarge)
		}
	}
	m.Crash(nil)
	s = openSet(t, m.Root(), epoch)
	wantValue(t, s, "a", "1")
	wantValue(t, s, "b", "2")
	if got := s.Len(); got != 2 {
		t.Errorf("got %d entries, want the two that were not taken away", got)
	}
}
