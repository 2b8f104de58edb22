package chunk

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/consign-transfer/consign/token"
	"lukechampine.com/blake3/guts"
)

var (
	// ErrRange is an index that the object does not have.
	ErrRange = errors.New("chunk: no such chunk")
	// ErrDiffers is a second value for a chunk that is held with another one.
	ErrDiffers = errors.New("chunk: already held with another value")
	// ErrMerged is a second value for a chunk whose first one was merged with
	// its neighbours and cannot be compared any more.
	ErrMerged = errors.New("chunk: already held, its value is merged")
	// ErrIncomplete is a root that was asked for before every chunk was held.
	ErrIncomplete = errors.New("chunk: not complete")
)

// A Tree is what a receiver holds of one object: the values of its chunks, with
// complete aligned siblings merged, and which chunks somebody is fetching. Make
// one with NewTree. A Tree is not safe for concurrent use: the owner of the
// item holds a lock around every call, never around a read or a write.
//
// Each chunk is missing, in flight or held. TakeMissing and TakePart move missing chunks in
// flight, Release moves them back, Add makes a chunk held from either state,
// for ever. So that bytes on disk and values here cannot part, only the taker
// of a chunk writes it: to ask for a slow run elsewhere, first abandon it, wait
// for its reader to return, Release, and take it anew.
//
// Memory: at most 16 bytes a run in flight, and for each run held 32 bytes and
// at most 2*log2(n) values of 48 bytes plus what a map costs, where n is the
// number of chunks: below 4 KiB a run.
type Tree struct {
	size   int64
	count  int64
	values map[subtree]Value
	held   runs
	busy   runs // held or in flight
	have   int64
}

// A subtree is the complete aligned range of 2^level chunks that begins at
// index<<level.
type subtree struct {
	index int64
	level uint8
}

// NewTree returns the tree of an object of size bytes of which nothing is held.
// It panics if size is negative or above MaxSize.
func NewTree(size int64) *Tree {
	return &Tree{size: size, count: Count(size), values: make(map[subtree]Value)}
}

// Add says that chunk index is held and has value v. There are four outcomes:
// nil, it is held now or was already held with that very value; ErrDiffers, it
// was held with another value; ErrMerged, it was held and its value cannot be
// compared any more; ErrRange. In the last three nothing changed. Who replays a
// journal that may name a chunk twice asks Has first.
func (t *Tree) Add(index int64, v Value) error {
	if index < 0 || index >= t.count {
		return fmt.Errorf("adding chunk %d of %d: %w", index, t.count, ErrRange)
	}
	if t.held.has(index) {
		return t.again(index, v)
	}
	t.held = t.held.add(index, index+1)
	t.busy = t.busy.add(index, index+1)
	t.have++
	at := subtree{index: index}
	for t.mayMerge(at) {
		sibling := subtree{index: at.index ^ 1, level: at.level}
		other, ok := t.values[sibling]
		if !ok {
			break
		}
		delete(t.values, sibling)
		left, right := v, other
		if at.index&1 == 1 {
			left, right = other, v
		}
		v = toValue(guts.ChainingValue(guts.ParentNode(left.words(), right.words(), &guts.IV, 0)))
		at = subtree{index: at.index >> 1, level: at.level + 1}
	}
	t.values[at] = v
	return nil
}

func (t *Tree) again(index int64, v Value) error {
	switch old, ok := t.values[subtree{index: index}]; {
	case !ok:
		return fmt.Errorf("adding chunk %d again: %w", index, ErrMerged)
	case old != v:
		return fmt.Errorf("adding chunk %d again: %w", index, ErrDiffers)
	}
	return nil
}

// mayMerge reports whether the parent of s is a complete subtree and not the
// root, which is compressed differently and therefore last.
func (t *Tree) mayMerge(s subtree) bool {
	end := (s.index>>1 + 1) << (s.level + 1)
	return end <= t.count && (s.index>>1 > 0 || end < t.count)
}

// Has reports whether chunk index is held.
func (t *Tree) Has(index int64) bool { return t.held.has(index) }

// InFlight reports whether chunk index was taken and is not held.
func (t *Tree) InFlight(index int64) bool { return t.busy.has(index) && !t.held.has(index) }

// Complete reports whether every chunk is held.
func (t *Tree) Complete() bool { return t.have == t.count }

// Size is the size of the object, in bytes.
func (t *Tree) Size() int64 { return t.size }

// Count is the number of its chunks.
func (t *Tree) Count() int64 { return t.count }

// Held is how much is held: a number of chunks, and their bytes.
func (t *Tree) Held() (chunks, bytes int64) {
	bytes = t.have * Size
	if t.held.has(t.count - 1) {
		_, n := Span(t.size, t.count-1)
		bytes += n - Size
	}
	return t.have, bytes
}

// TakeMissing moves the first run of missing chunks, at most max of them, in
// flight, and returns it. ok is false, and nothing changed, if no chunk is
// missing, which does not mean that the tree is complete, or if max is below 1.
func (t *Tree) TakeMissing(max int) (first, n int64, ok bool) {
	next := 0
	if len(t.busy) > 0 && t.busy[0].lo == 0 {
		first, next = t.busy[0].hi, 1
	}
	end := t.count
	if next < len(t.busy) {
		end = t.busy[next].lo
	}
	n = min(end-first, int64(max))
	if n < 1 {
		return 0, 0, false
	}
	t.busy = t.busy.add(first, first+n)
	return first, n, true
}

// TakePart moves the first aligned run of unit chunks of which none is held or in flight, the last of the object
// possibly shorter, in flight, and returns it: for a store that takes parts whole. ok is false, and nothing
// changed, if there is no such run, or if unit is below 1. If chunks are added and released by
// such runs alone, every missing chunk is in one.
func (t *Tree) TakePart(unit int64) (first, n int64, ok bool) {
	if unit < 1 {
		return 0, 0, false
	}
	for _, r := range t.busy {
		if min(first+unit, t.count) <= r.lo {
			break
		}
		first = max(first, (r.hi+unit-1)/unit*unit) // behind the run, on a border
	}
	if n = min(unit, t.count-first); n < 1 {
		return 0, 0, false
	}
	t.busy = t.busy.add(first, first+n)
	return first, n, true
}

// Release gives back a run from TakeMissing or TakePart, or a part of it: those of its
// chunks that are not held are missing again. Releasing what is held or missing
// changes nothing.
func (t *Tree) Release(first, n int64) {
	lo, hi := max(first, 0), min(first+n, t.count)
	if lo >= hi {
		return
	}
	t.busy = t.busy.remove(lo, hi)
	for i := t.held.find(lo); i < len(t.held) && t.held[i].lo < hi; i++ {
		t.busy = t.busy.add(max(t.held[i].lo, lo), min(t.held[i].hi, hi))
	}
}

// Root is the digest of the object, or ErrIncomplete.
func (t *Tree) Root() (token.Digest, error) {
	if !t.Complete() {
		return "", fmt.Errorf("merging %d of %d chunks: %w", t.have, t.count, ErrIncomplete)
	}
	if t.count == 1 {
		return t.values[subtree{}].Digest(), nil // Of made it a root already
	}
	// What is left are the peaks: one complete subtree for each bit of the
	// count, from the largest on the left; two halves if the count is a power
	// of two.
	peaks := t.peaks()
	node := guts.ParentNode(peaks[len(peaks)-2], peaks[len(peaks)-1], &guts.IV, 0)
	for i := len(peaks) - 3; i >= 0; i-- {
		node = guts.ParentNode(peaks[i], guts.ChainingValue(node), &guts.IV, 0)
	}
	return root(node).Digest(), nil
}

// peaks returns the values that cover a complete tree of two or more chunks,
// from the left.
func (t *Tree) peaks() [][8]uint32 {
	var peaks [][8]uint32
	for first := int64(0); first < t.count; {
		level := uint8(bits.Len64(uint64(t.count-first)) - 1)
		if first == 0 && t.count == 1<<level {
			level--
		}
		v, ok := t.values[subtree{index: first >> level, level: level}]
		if !ok {
			panic("chunk: internal error: a complete tree lacks a subtree")
		}
		peaks = append(peaks, v.words())
		first += 1 << level
	}
	return peaks
}
