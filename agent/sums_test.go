package agent

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// valueOfStdlib is the value digest of data by the standard library alone.
func valueOfStdlib(h token.ValueHash, data []byte) token.ValueDigest {
	sum := map[token.ValueHash]func() hash.Hash{token.MD5: md5.New, token.SHA160: sha1.New, token.SHA256: sha256.New, token.SHA384: sha512.New384, token.SHA512: sha512.New}[h]()
	sum.Write(data)
	return token.ValueDigest(string(h) + ":" + hex.EncodeToString(sum.Sum(nil)))
}

// TestSumsAgreeWithTheStandardLibrary: over objects of any size, whatever pieces they come in and wherever the process ends.
func TestSumsAgreeWithTheStandardLibrary(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		it := token.Item{Hash: token.ValueHashes()[r.IntN(5)], Size: r.Int64N(5000)}
		if r.IntN(3) == 0 {
			it.Digest = token.Digest(sha256Prefix + "of something")
		}
		data := make([]byte, it.Size)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		s, err := newSums(sumsOf(it), nil)
		if err != nil {
			t.Fatal(err)
		}
		for rest := data; len(rest) > 0; {
			n := 1 + r.IntN(len(rest))
			s.write(rest[:n])
			rest = rest[n:]
			if r.IntN(2) == 0 {
				continue
			}
			state, err := s.state()
			if err != nil {
				t.Fatal(err)
			}
			s.write([]byte("what a killed process has hashed and not kept"))
			if s, err = newSums(sumsOf(it), state); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := s.value(it.Hash), valueOfStdlib(it.Hash, data); got != want || got.Check() != nil {
			t.Errorf("seed %d, %d bytes: got %s, want %s", seed, it.Size, got, want)
		}
		if got, want := s.digest(), digestsOf(t, data)["sha256"]; it.Digest != "" && got != want {
			t.Errorf("seed %d, %d bytes: got %s, want %s", seed, it.Size, got, want)
		}
	}
}

// TestStateOfOtherSums: a journal that is torn or of other hashes gives no state to go on from, and never a wrong value.
func TestStateOfOtherSums(t *testing.T) {
	t.Parallel()
	names := []token.ValueHash{token.SHA256, token.MD5}
	s, err := newSums(names, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.write([]byte("some bytes"))
	state, err := s.state()
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n < len(state); n++ {
		if got, err := newSums(names, state[:n]); got != nil || !errors.Is(err, journal.ErrCorrupt) {
			t.Fatalf("%d of %d bytes: got %v and %v, want %v", n, len(state), got, err, journal.ErrCorrupt)
		}
	}
	for what, other := range map[string][]token.ValueHash{"fewer": names[:1], "in another order": {token.MD5, token.SHA256}, "another": {token.SHA256, token.SHA512}} {
		if got, err := newSums(other, state); got != nil || !errors.Is(err, journal.ErrCorrupt) {
			t.Errorf("%s: got %v and %v, want %v", what, got, err, journal.ErrCorrupt)
		}
	}
	if _, err := newSums([]token.ValueHash{"CRC32"}, nil); problem.Of(err) != problem.PolicyRefused {
		t.Errorf("got %v, want %q", err, problem.PolicyRefused)
	}
}

// hashed asks for value hashes of the items of s, each of them in turn.
func (w *world) hashed(s *spec) *spec {
	w.t.Helper()
	for i := range s.items {
		s.items[i].Hash = token.ValueHashes()[i%5]
	}
	return s
}

// checkValues fails unless each outcome answers what its item asked for, as the standard library has it.
func (w *world) checkValues(s *spec, dst receipt) {
	w.t.Helper()
	m, _, err := token.ParseManifest(s.manifest)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := m.CheckOutcomes(dst.outs); err != nil {
		w.t.Error(err)
	}
	for i, o := range dst.outs {
		it := s.items[i]
		want := token.ValueDigest("")
		if it.Hash != "" {
			want = valueOfStdlib(it.Hash, content(w.t, w.src.conf.Exports[0].Store, it.Src))
		}
		if o.Hash != want {
			w.t.Errorf("item %d, %d bytes: got %s, want %s", i, it.Size, o.Hash, want)
		}
	}
}

// TestValueHash: the destination answers the value hash of each item, large or small, in the pass in which it takes the bytes, over several
// lanes, and killed anywhere; no stage is read again for it and no part comes twice.
func TestValueHash(t *testing.T) {
	t.Parallel()
	chunked := bucketTraits()
	chunked.PartSize = token.ChunkSize
	for name, tt := range map[string]struct {
		traits store.Traits
		part   int64
	}{"rereads": {mem.Everything(), token.ChunkSize}, "bucket": {bucketTraits(), bucketPart}, "bucket of small parts": {chunked, token.ChunkSize}} {
		for _, n := range []int64{0, 1, 3, 6} {
			if testing.Short() && n != 3 {
				continue
			}
			t.Run(fmt.Sprintf("%s, killed after %d", name, n), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t).like(tt.traits)
				l := w.watch()
				l.on(mem.OpReread, func(int, string) (error, bool) { t.Error("a stage was read again"); return nil, false })
				dead := make(chan struct{})
				var seen atomic.Int64
				w.dst.conf.hooks.moved = func(_ string, item int, chunk int64) bool {
					l.moved(item, chunk, tt.part/token.ChunkSize)
					if seen.Add(1) == n {
						go func() { w.dst.kill(); w.to.Kill(); close(dead) }()
					}
					return true
				}
				w.src.start()
				w.dst.start()
				s := w.hashed(w.spec(w.order(), 1, w.random("in/0", 9<<20+5), w.random("in/1", 0), w.random("in/2", 8<<20), w.random("in/3", 1<<20), w.random("in/4", 5<<20+1),
					w.random("in/5", 100), w.random("in/6", 2<<20), w.random("in/7", 3<<20))).parts(tt.part)
				s.items[6].Hash = "" // as most items are
				for i, kind := range map[int]string{0: "sha256", 2: "sha256", 3: "sha256", 4: "blake3"} {
					s.items[i].Digest = digestsOf(t, content(t, w.from, s.items[i].Src))[kind]
				}
				w.give(s)
				if n > 0 {
					<-dead
					w.dst.start()
				}
				_, dst := w.stored(s)
				w.checkValues(s, dst)
				l.mu.Lock()
				defer l.mu.Unlock()
				for _, f := range l.faults {
					t.Error(f)
				}
			})
		}
	}
}

// TestValueHashOfAFolder: on real files, and over a loss of power, which takes what was not synced.
func TestValueHashOfAFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.dirs()
	dead := make(chan struct{})
	w.dst.conf.hooks.boot = "first"
	w.dst.at(3, func() { w.dst.kill(); close(dead) })
	w.src.start()
	w.dst.start()
	s := w.hashed(w.spec(w.order(), 1, w.write(root, "in/a", 7<<20+3), w.write(root, "in/b", 100), w.write(root, "in/c", 0), w.write(root, "in/d", 3<<20)))
	w.give(s)
	<-dead
	w.dst.conf.hooks.moved, w.dst.conf.hooks.boot = nil, "second"
	w.dst.start()
	dst := w.broker.receipt(token.Destination, s.ref())
	checkAll(t, dst, token.Stored)
	w.checkValues(s, dst)
}

// TestValueHashOfWhatIsNotStored: nothing but a stored object has one, and what is refused for its digest is not answered either.
func TestValueHashOfWhatIsNotStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	o := w.order()
	o.IfExists = token.Compare
	s := w.hashed(w.spec(o, 1, w.random("in/same", 100), w.random("in/other", 3<<20), w.random("in/wrong", 2<<20), w.random("in/good", 2<<20)))
	w.to.Put("out/same", content(t, w.from, "in/same"), store.Attrs{})
	w.to.Put("out/other", bytes.Repeat([]byte("x"), 3<<20), store.Attrs{})
	s.items[2].Digest = digestsOf(t, []byte("something else"))["blake3"]
	src, dst := w.run(s)
	checkResults(t, dst, token.Existed, token.TakenBy, token.Failed, token.Stored)
	checkMatch(t, src, dst)
	for i, o := range slices.Concat(dst.outs[:3], src.outs) {
		if o.Hash != "" {
			t.Errorf("outcome %d: got %s, want none", i, o.Hash)
		}
	}
	if got, want := dst.outs[3].Hash, valueOfStdlib(s.items[3].Hash, content(t, w.from, "in/good")); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestLanesTakeTurns: while the first part of an item that is hashed is slow, other lanes fetch and write what comes behind it, as much as there is
// memory for, and none where there is none; hashed and journalled is in order.
func TestLanesTakeTurns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		part, ahead int64
		want        int64 // parts that come ahead
	}{
		{token.ChunkSize, 0, 1}, {token.ChunkSize, 3 << 20, 1}, {token.ChunkSize, 1, 0}, {bucketPart, 0, 3}, {bucketPart, bucketPart, 1}, {bucketPart, 1, 0},
	} {
		if testing.Short() && tt.part == token.ChunkSize {
			continue
		}
		t.Run(fmt.Sprintf("parts of %d MiB, %d bytes ahead", tt.part>>20, tt.ahead), func(t *testing.T) {
			t.Parallel()
			traits := bucketTraits()
			traits.PartSize = tt.part
			w := newWorld(t).like(traits)
			w.dst.conf.hooks.ahead = tt.ahead
			var mu sync.Mutex
			var once sync.Once
			var closed, ahead, journalled, most int64 // parts that are written; of these not journalled; journalled; the highest of ahead
			came := make(chan struct{})
			w.dst.conf.Exports[0].Store = spied{Store: w.to, part: func(_ int, index int64, p store.Part) store.Part {
				mu.Lock()
				defer mu.Unlock()
				if tt.want == 0 && index != closed {
					t.Errorf("part %d began behind %d parts that were written, and there is no memory for it to wait in", index, closed)
				}
				return spiedPart{p, func() error {
					if index == 0 && tt.want > 0 {
						<-came
					}
					if err := p.Close(); err != nil {
						return err
					}
					mu.Lock()
					defer mu.Unlock()
					closed++
					ahead++
					if most = max(most, ahead); index > 0 && ahead == tt.want {
						once.Do(func() { close(came) })
					}
					return nil
				}}
			}}
			w.dst.conf.hooks.moved = func(_ string, _ int, chunk int64) bool {
				mu.Lock()
				defer mu.Unlock()
				if chunk != journalled*tt.part/token.ChunkSize {
					t.Errorf("chunk %d was journalled behind %d parts", chunk, journalled)
				}
				ahead--
				journalled++
				return true
			}
			w.src.start()
			w.dst.start()
			s := w.hashed(w.spec(w.order(), 1, w.random("in/a", 21<<20+5))).parts(tt.part)
			w.give(s)
			_, dst := w.stored(s)
			w.checkValues(s, dst)
			limit := cmp.Or(tt.ahead, aheadMemory)/tt.part + 2 // the next in turn needs no memory, and one may be journalled and not yet counted
			if most > limit || tt.want > 0 && most < 2 {
				t.Errorf("got %d parts written that were not journalled, want 2 to %d", most, limit)
			}
		})
	}
}

// TestTurnsOfLanesThatFail: a want that others wait for fails again and again, and its item comes whole all the same: nobody waits for what
// nobody fetches.
func TestTurnsOfLanesThatFail(t *testing.T) {
	t.Parallel()
	for _, part := range []int64{token.ChunkSize, bucketPart} {
		if testing.Short() && part == token.ChunkSize {
			continue
		}
		t.Run(fmt.Sprintf("parts of %d MiB", part>>20), func(t *testing.T) {
			t.Parallel()
			traits := bucketTraits()
			traits.PartSize = part
			w := newWorld(t).like(traits)
			l := w.watch()
			l.on(mem.OpClose, func(n int, _ string) (error, bool) {
				if n%3 == 1 {
					return problem.New(problem.StoreAway, "Not now"), false
				}
				return nil, false
			})
			w.src.start()
			w.dst.start()
			s := w.hashed(w.spec(w.order(), 1, w.random("in/a", 21<<20+5), w.random("in/b", 6<<20), w.random("in/c", 100))).parts(part)
			w.give(s)
			_, dst := w.stored(s)
			w.checkValues(s, dst)
		})
	}
}

// TestValueHashAnywhere: objects of random sizes in stores of random parts, killed at a random part and again at another.
func TestValueHashAnywhere(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	for n := range 4 {
		if testing.Short() && n%2 == 1 {
			continue
		}
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		t.Run(fmt.Sprintf("seed %d %d", seed, n), func(t *testing.T) {
			t.Parallel()
			part := int64(token.ChunkSize) << r.IntN(4)
			traits := mem.Everything()
			if traits.PartSize = part; r.IntN(2) == 0 {
				traits.Volatile, traits.Rereads, traits.Flat = true, false, true
			}
			w := newWorld(t).like(traits)
			var infos []store.Info
			for i := range 6 {
				infos = append(infos, w.random(token.ObjectName(fmt.Sprintf("in/%d", i)), r.IntN(2<<20<<(2*(i%2)))))
			}
			l := w.watch()
			w.src.start()
			dies := make(chan chan struct{}, 2)
			var left atomic.Int64
			w.dst.conf.hooks.moved = func(_ string, item int, chunk int64) bool {
				l.moved(item, chunk, part/token.ChunkSize)
				if left.Add(-1) == 0 {
					dead := make(chan struct{})
					dies <- dead
					go func() { w.dst.kill(); w.to.Kill(); close(dead) }()
				}
				return true
			}
			left.Store(1 + r.Int64N(3))
			w.dst.start()
			s := w.hashed(w.spec(w.order(), 1, infos...)).parts(part)
			w.give(s)
			over := make(chan struct{})
			go func() {
				defer close(over)
				w.broker.receipt(token.Destination, s.ref())
			}()
			for again := range 2 {
				select {
				case dead := <-dies:
					<-dead
					if again == 0 {
						left.Store(1 + r.Int64N(3))
					}
					w.dst.start()
				case <-over:
				}
			}
			_, dst := w.stored(s)
			w.checkValues(s, dst)
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, f := range l.faults {
				t.Error(f)
			}
		})
	}
}
