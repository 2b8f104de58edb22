package agent

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const bucketPart = 4 << 20

// bucketTraits are those of an object store far away.
func bucketTraits() store.Traits {
	t := mem.Everything()
	t.PartSize, t.MaxParts, t.Volatile, t.Rereads, t.Flat = bucketPart, 10_000, true, false, true
	return t
}

// like gives the destination a store with other traits.
func (w *world) like(t store.Traits) *world {
	w.t.Helper()
	w.to = mem.NewLike(time.Now, t)
	w.dst.conf.Exports[0].Store = w.to
	return w
}

// parts is a spec whose items are cut into parts of that size.
func (s *spec) parts(size int64) *spec {
	for i := range s.items {
		s.items[i].Part = size
	}
	return s
}

// A ledger watches what is staged at a destination: which parts the store has taken whole, and which the journal knows of.
type ledger struct {
	mu     sync.Mutex
	began  map[string]int // times that a part was begun, by ITEM/PART
	taken  map[string]int // times that one was ended
	noted  map[string]bool
	waits  map[mem.Op]func(n int, name string) (error, bool)
	calls  map[mem.Op]int
	faults []string
}

// watch follows the destination's store and journal from now on. Its faults are to be empty at the end.
func (w *world) watch() *ledger {
	l := &ledger{began: map[string]int{}, taken: map[string]int{}, noted: map[string]bool{}, waits: map[mem.Op]func(int, string) (error, bool){}, calls: map[mem.Op]int{}}
	w.to.SetHook(func(op mem.Op, name string) (error, bool) {
		persist, err := l.hook(op, name)
		return err, persist
	})
	return l
}

// on makes f decide about the calls of op, which it gets with their number from 1.
func (l *ledger) on(op mem.Op, f func(n int, name string) (error, bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits[op] = f
}

func (l *ledger) hook(op mem.Op, name string) (persist bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[op]++
	if f := l.waits[op]; f != nil {
		err, persist = f(l.calls[op], name)
	}
	_, part, _ := strings.Cut(name, "/")
	switch op {
	case mem.OpPart:
		if l.noted[part] {
			l.faults = append(l.faults, "part "+part+" is fetched again although the journal knows of it")
		}
		l.began[part]++
	case mem.OpClose:
		if err == nil {
			l.taken[part]++
		}
	}
	return persist, err
}

// moved is the hook of a destination: what was journalled must not come again.
func (l *ledger) moved(item int, chunk, unit int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noted[fmt.Sprintf("%d/%d", item, chunk/unit)] = true
}

func (l *ledger) count(op mem.Op) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls[op]
}

// check fails for what was fetched although it was there, and for large items' parts that were taken more than once.
func (l *ledger) check(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults {
		t.Error(f)
	}
	for part, n := range l.taken {
		if n > 1 {
			t.Errorf("part %s was taken %d times, want once", part, n)
		}
	}
}

// killAt kills the destination when n parts were journalled, once, and tells dead.
func (w *world) killAt(l *ledger, n int64) (dead chan struct{}) {
	dead = make(chan struct{})
	var seen atomic.Int64
	w.dst.conf.hooks.moved = func(_ string, item int, chunk int64) bool {
		l.moved(item, chunk, bucketPart/token.ChunkSize)
		if seen.Add(1) == n {
			go func() { w.dst.kill(); w.to.Kill(); close(dead) }()
		}
		return true
	}
	return dead
}

// give hands both tasks of a batch out.
func (w *world) give(s *spec) {
	w.t.Helper()
	serve, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	w.broker.give(w.src.port, serve)
}

// stored waits for both receipts of a batch of which everything is to be stored.
func (w *world) stored(s *spec) (src, dst receipt) {
	w.t.Helper()
	src, dst = w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref())
	checkMatch(w.t, src, dst)
	checkAll(w.t, dst, token.Stored)
	w.checkCopied(s)
	w.checkNoStages()
	return src, dst
}

// TestPartsAreNeverFetchedAgain kills the destination behind each part that was journalled: whatever the journal knows of is
// not fetched again, and no part is taken twice but those in flight.
func TestPartsAreNeverFetchedAgain(t *testing.T) {
	t.Parallel()
	for n := int64(1); n <= 9; n++ { // of 7 and 2 parts
		if testing.Short() && n%4 != 0 {
			continue
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).like(bucketTraits())
			l := w.watch()
			dead := w.killAt(l, n)
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, mixed(w)...).parts(bucketPart)
			w.give(s)
			<-dead
			w.dst.start()
			w.stored(s)
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, f := range l.faults {
				t.Error(f)
			}
			parts := 0
			for part, taken := range l.taken {
				if item, _, _ := strings.Cut(part, "/"); item != "0" && item != "41" {
					continue // small ones live in memory alone
				}
				parts++
				if taken > 2 {
					t.Errorf("part %s was taken %d times, want twice at most, if it was in flight", part, taken)
				}
			}
			if parts != 9 {
				t.Errorf("got %d parts of large items, want 9", parts)
			}
		})
	}
}

// TestVolatileStoreIsKilled: small items that were only in memory are fetched again, those that were published are known again.
func TestVolatileStoreIsKilled(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 17, 40} {
		if testing.Short() && n%2 == 1 {
			continue
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).like(bucketTraits())
			l := w.watch()
			dead := make(chan struct{})
			l.on(mem.OpPublish, func(i int, _ string) (error, bool) {
				if i == n {
					go func() { w.dst.kill(); w.to.Kill(); close(dead) }()
				}
				return nil, false
			})
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, mixed(w)...).parts(bucketPart)
			w.give(s)
			<-dead
			l.on(mem.OpPublish, nil)
			w.dst.start()
			w.stored(s)
		})
	}
}

// TestMemoryForOneItem: where the memory for small items is enough for one, one after the other comes, and nobody waits for
// ever: not for memory while it is held by what is waited for, and not after failures and losses.
func TestMemoryForOneItem(t *testing.T) {
	t.Parallel()
	w := newWorld(t).like(bucketTraits())
	w.dst.conf.hooks.memory = 1
	l := w.watch()
	var held, most atomic.Int64
	l.on(mem.OpClose, func(_ int, name string) (error, bool) {
		if strings.Count(name, "/") == 2 && strings.HasSuffix(name, "/0") && !strings.Contains(name, "/0/") {
			if n := held.Add(1); n > most.Load() {
				most.Store(n)
			}
		}
		return nil, false
	})
	l.on(mem.OpPublish, func(n int, name string) (error, bool) {
		if name == "out/big" {
			return nil, false
		}
		switch n % 7 {
		case 3:
			return problem.New(problem.StoreAway, "Not now"), false
		case 5:
			held.Add(-1)
			return store.ErrLost, false
		}
		held.Add(-1)
		return nil, false
	})
	w.src.start()
	w.dst.start()
	infos := []store.Info{w.random("in/big", 9<<20)}
	for i := range 30 {
		infos = append(infos, w.random(token.ObjectName(fmt.Sprintf("in/s/%02d", i)), 1+i*30_000))
	}
	s := w.spec(w.order(), 1, infos...).parts(bucketPart)
	w.give(s)
	w.stored(s)
	if most.Load() != 1 {
		t.Errorf("got %d small items in memory at once, want 1", most.Load())
	}
}

// few is mixed with less of everything.
func few(w *world) []store.Info {
	infos := []store.Info{w.random("in/big", 9<<20+17)}
	for i := range 12 {
		infos = append(infos, w.random(token.ObjectName(fmt.Sprintf("in/s/%02d", i)), 100+i))
	}
	return append(infos, w.random("in/z", 5<<20))
}

// TestStoreIsAway: a store that does not answer, at each of its calls in turn, ends nothing and costs nothing but time: what it
// has taken is not fetched again.
func TestStoreIsAway(t *testing.T) {
	t.Parallel()
	for name, traits := range map[string]store.Traits{"bucket": bucketTraits(), "folder": mem.Everything()} {
		for _, op := range []mem.Op{mem.OpBatch, mem.OpStat, mem.OpStage, mem.OpPart, mem.OpWrite, mem.OpClose, mem.OpSync, mem.OpPublish, mem.OpDrop, mem.OpLeftovers} {
			for _, persist := range []bool{false, true} {
				if testing.Short() && persist == (name == "folder") {
					continue
				}
				t.Run(fmt.Sprintf("%s %s %t", name, op, persist), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t).like(traits)
					l := w.watch()
					var gone atomic.Bool
					var back atomic.Int64
					gone.Store(true)
					l.on(op, func(n int, _ string) (error, bool) {
						if n > 3 && gone.Load() || n > 6 && back.Add(-1) == 0 { // some calls come through before
							return problem.New(problem.StoreAway, "The store has gone for lunch"), persist
						}
						return nil, false
					})
					w.src.start()
					w.dst.start()
					s := w.spec(w.order(), 1, few(w)...).parts(max(traits.PartSize, token.ChunkSize))
					w.give(s)
					if l.waitsFor(op, traits) {
						w.broker.await("a beat that says why", func() bool {
							return len(w.dst.port.beats) == 1 && w.dst.port.beats[0].Waiting == problem.StoreAway
						})
					}
					gone.Store(false)
					if op != mem.OpStat { // which the test itself calls
						back.Store(3) // and once more
					}
					w.stored(s)
					if op == mem.OpSync || persist && op == mem.OpClose {
						return // a stage that failed to sync is gone; a part whose end was not heard of is written again
					}
					l.check(t)
				})
			}
		}
	}
}

// waitsFor reports whether few comes to the fourth call of op before it ends.
func (l *ledger) waitsFor(op mem.Op, t store.Traits) bool {
	switch op {
	case mem.OpBatch, mem.OpDrop, mem.OpLeftovers, mem.OpSync:
		return false
	case mem.OpStat:
		return !t.Volatile // small items are not looked for
	}
	return true
}

// TestSourceIsAway: the source's store does not answer for a while, at each of its calls.
func TestSourceIsAway(t *testing.T) {
	t.Parallel()
	for _, op := range []mem.Op{mem.OpOpen, mem.OpSection, mem.OpRead, mem.OpInfo, mem.OpCheck} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t).like(bucketTraits())
			l := w.watch()
			var calls atomic.Int64
			var gone atomic.Bool
			gone.Store(true)
			infos := few(w)
			w.from.SetHook(func(o mem.Op, _ string) (error, bool) {
				if o == op && calls.Add(1) > 2 && gone.Load() {
					return problem.New(problem.StoreAway, "The store has gone for lunch"), false
				}
				return nil, false
			})
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, infos...).parts(bucketPart)
			w.give(s)
			w.broker.await("a beat that says why", func() bool {
				return len(w.dst.port.beats) == 1 && w.dst.port.beats[0].Waiting == problem.StoreAway
			})
			gone.Store(false)
			w.stored(s)
			l.check(t)
		})
	}
}

// TestSHA256IsKeptAlong: the hash is computed while the item comes, part by part in order, each once, and over restarts; what is
// another object than the one that was asked for is not published.
func TestSHA256IsKeptAlong(t *testing.T) {
	t.Parallel()
	const size = 21<<20 + 5
	for _, part := range []int64{token.ChunkSize, bucketPart} {
		for _, n := range []int64{0, 1, 2, 5} {
			for _, wrong := range []bool{false, true} {
				if wrong && n%2 == 1 || testing.Short() && (n%2 == 1 || wrong == (part == bucketPart)) {
					continue
				}
				t.Run(fmt.Sprintf("parts of %d MiB, killed after %d, wrong %t", part>>20, n, wrong), func(t *testing.T) {
					t.Parallel()
					traits := bucketTraits()
					traits.PartSize = part
					w := newWorld(t).like(traits)
					l := w.watch()
					var order []int64
					dead := make(chan struct{})
					var seen atomic.Int64
					w.dst.conf.hooks.moved = func(_ string, item int, chunk int64) bool {
						l.moved(item, chunk, part/token.ChunkSize)
						l.mu.Lock()
						order = append(order, chunk/(part/token.ChunkSize))
						l.mu.Unlock()
						if seen.Add(1) == n {
							go func() { w.dst.kill(); w.to.Kill(); close(dead) }()
						}
						return true
					}
					w.src.start()
					w.dst.start()
					in := w.random("in/a", size)
					o := w.order()
					o.Scope, o.From.Name, o.To.Name = token.One, "in/a", "out/a"
					o.Digest = digestsOf(t, content(t, w.from, "in/a"))["sha256"]
					if wrong {
						o.Digest = o.Digest[:len(o.Digest)-1] + token.Digest(strings.Trim("01", string(o.Digest[len(o.Digest)-1]))[:1])
					}
					s := w.spec(o, 1, in).parts(part)
					s.items[0].Digest = o.Digest
					w.give(s)
					if n > 0 {
						<-dead
						w.dst.start()
					}
					dst := w.broker.receipt(token.Destination, s.ref())
					if want := (token.Outcome{Outcome: token.Stored}); wrong {
						want.Outcome, want.Code = token.Failed, string(problem.DigestDiffers)
						if got := dst.outs[0]; got.Outcome != want.Outcome || got.Code != want.Code {
							t.Errorf("got %+v, want %+v", got, want)
						}
					} else {
						checkAll(t, dst, token.Stored)
						w.checkCopied(s)
					}
					l.mu.Lock()
					defer l.mu.Unlock()
					for _, f := range l.faults {
						t.Error(f)
					}
					for next, index := range order {
						if index != int64(next) {
							t.Fatalf("part %d was journalled where part %d belongs: %v", index, next, order)
						}
					}
					if want := (size + part - 1) / part; int64(len(order)) != want {
						t.Errorf("got %d parts in the journal, want %d", len(order), want)
					}
				})
			}
		}
	}
}

// TestAttributesTravel: all that can be said of an object is, whether it comes whole or in parts.
func TestAttributesTravel(t *testing.T) {
	t.Parallel()
	w := newWorld(t).like(bucketTraits())
	var staged sync.Map
	w.dst.conf.Exports[0].Store = spied{Store: w.to, stage: func(it store.Item) { staged.LoadOrStore(it.Index, it.Attrs) }}
	w.src.start()
	w.dst.start()
	attrs := store.Attrs{ModTime: time.Unix(1700000000, 123456789), Mode: 0o600, HasMode: true, ContentType: "image/tiff; level=2", Meta: map[string]string{"run": "7", "Who": "Ada"}}
	small := w.from.Put("in/small", []byte("x"), attrs)
	large := w.from.Put("in/large", bytes.Repeat([]byte("y"), 9<<20), attrs)
	bare := w.from.Put("in/bare", []byte("z"), store.Attrs{})
	s := w.spec(w.order(), 1, small, large, bare).parts(bucketPart)
	w.give(s)
	_, dst := w.stored(s)
	for i, name := range []token.ObjectName{"out/small", "out/large"} {
		info, err := w.to.Stat(t.Context(), name)
		if got := info.Attrs; err != nil || !got.ModTime.Equal(attrs.ModTime) || got.Mode != attrs.Mode || got.ContentType != attrs.ContentType || fmt.Sprint(got.Meta) != fmt.Sprint(attrs.Meta) {
			t.Errorf("%q: got %+v and %v, want %+v", name, got, err, attrs)
		}
		first, _ := staged.Load(i)
		if got := first.(store.Attrs); got.ContentType != attrs.ContentType || fmt.Sprint(got.Meta) != fmt.Sprint(attrs.Meta) {
			t.Errorf("%q: the store was told %+v before the first byte, want %+v", name, got, attrs)
		}
		if len(dst.outs[i].Lost) > 0 {
			t.Errorf("%q: got %v lost, want nothing", name, dst.outs[i].Lost)
		}
	}
	if info, err := w.to.Stat(t.Context(), "out/bare"); err != nil || info.Attrs.ContentType != "" || len(info.Attrs.Meta) > 0 {
		t.Errorf("got %+v and %v, want nothing that the source does not have", info.Attrs, err)
	}
}

// TestFolderIsKilled: on real files, in parts of a chunk and in larger ones, killed and gone on.
func TestFolderIsKilled(t *testing.T) {
	t.Parallel()
	for _, part := range []int64{token.ChunkSize, bucketPart} {
		for n := int64(1); n <= 3; n++ {
			t.Run(fmt.Sprintf("parts of %d MiB, killed after %d", part>>20, n), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				root := w.dirs()
				infos := []store.Info{w.write(root, "in/a", 11<<20+3), w.write(root, "in/b", 100), w.write(root, "in/c", 0)}
				dead := make(chan struct{})
				w.dst.at(n, func() { w.dst.kill(); close(dead) })
				w.src.start()
				w.dst.start()
				s := w.spec(w.order(), 1, infos...).parts(part)
				w.give(s)
				<-dead
				w.dst.conf.hooks.moved = nil
				w.dst.start()
				src, dst := w.broker.receipt(token.Source, s.ref()), w.broker.receipt(token.Destination, s.ref())
				checkMatch(t, src, dst)
				checkAll(t, dst, token.Stored)
				for _, it := range s.items {
					if !bytes.Equal(content(t, w.dst.conf.Exports[0].Store, it.Dst), content(t, w.src.conf.Exports[0].Store, it.Src)) {
						t.Errorf("%q is not a copy of %q", it.Dst, it.Src)
					}
				}
			})
		}
	}
}
