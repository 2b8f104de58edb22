// Package chunk is the digest tree of an object: BLAKE3 in aligned pieces of
// one mebibyte, so that a receiver can check, keep and account for each piece
// alone and still end with the digest that b3sum prints for the whole.
//
// It guarantees four things. Of is a pure function of the bytes, the index and
// the size, and allocates nothing. The Root of a complete Tree is BLAKE3 of the
// object, whatever the order in which its values came. A Tree never takes two
// values for one chunk without saying so. Its memory follows the number of
// separate runs that are held or in flight, not the size of the object: an
// object of 10 TB (10^7 chunks) that is filled roughly in order needs a few
// kilobytes.
//
// The package does no I/O, starts no goroutine and knows nothing of where bytes
// come from. It does not decide who may write a chunk; it only lends each
// missing one to a single taker at a time.
//
// Matchable errors: ErrRange, ErrDiffers, ErrMerged, ErrIncomplete.
//
// An object has at least one chunk: an empty object is one empty chunk, as it
// is in BLAKE3.
package chunk

import (
	"encoding/hex"

	"github.com/consign-transfer/consign/token"
	"lukechampine.com/blake3/guts"
)

const (
	// Size is the length of every chunk but the last one of an object, in bytes.
	Size = token.ChunkSize

	// Slack is what a buffer should have beyond its content, in bytes of
	// capacity: the hash reads whole groups of that length. Of works without,
	// at the price of copying the last group.
	Slack = groupSize

	// MaxSize is the largest object, in bytes: 2^60 - 1.
	MaxSize = 1<<60 - 1

	groupSize   = guts.MaxSIMD * guts.ChunkSize // what one call of the hash compresses
	chunkGroups = Size / groupSize
	leaves      = Size / guts.ChunkSize // BLAKE3's own chunks in one of ours
)

// A Value is what a chunk contributes to the digest of its object: its chaining
// value in the BLAKE3 tree. In an object of a single chunk it is the digest
// itself.
type Value [32]byte

// Digest spells v as the digest of an object. It is right only for the value of
// an object's single chunk and for a value that is known to be a root.
func (v Value) Digest() token.Digest {
	return token.Digest("blake3:" + hex.EncodeToString(v[:]))
}

// Count is the number of chunks of an object of size bytes, at least 1. It
// panics if size is negative or above MaxSize: sizes from outside are checked
// before.
func Count(size int64) int64 {
	mustSize(size)
	if size <= Size {
		return 1
	}
	return (size + Size - 1) / Size
}

// Span is where chunk index of an object of size bytes begins and how long it
// is, in bytes. It panics if there is no such chunk.
func Span(size, index int64) (off, n int64) {
	if index < 0 || index >= Count(size) {
		panic("chunk: internal error: index outside the object")
	}
	off = index * Size
	return off, min(size-off, Size)
}

// Of is the value of chunk index of an object of size bytes, whose content is
// buf. It panics if buf is not exactly as long as Span says. What lies between
// the length and the capacity of buf may be read, up to Slack bytes, but does
// not matter; buf is not kept or changed. Safe for concurrent use.
func Of(buf []byte, index int64, size int64) Value {
	_, n := Span(size, index)
	if int64(len(buf)) != n {
		panic("chunk: internal error: content is not as long as its chunk")
	}
	node := compress(buf, uint64(index)*leaves)
	if size <= Size {
		return root(node)
	}
	return toValue(guts.ChainingValue(node))
}

// compress returns the node over buf, at most Size bytes, which begins at
// BLAKE3 chunk counter. Groups are merged level by level; an odd last one moves
// up unchanged, which is BLAKE3's own left-heavy tree.
func compress(buf []byte, counter uint64) guts.Node {
	var values [chunkGroups][8]uint32
	n := 0
	for len(buf) > groupSize {
		values[n] = guts.ChainingValue(guts.CompressBuffer((*[groupSize]byte)(buf), groupSize, &guts.IV, counter, 0))
		n++
		counter += guts.MaxSIMD
		buf = buf[groupSize:]
	}
	last := compressLast(buf, counter)
	if n == 0 {
		return last
	}
	values[n] = guts.ChainingValue(last)
	return merge(values[:n+1])
}

// compressLast is the node over a group that may be short. The hash demands an
// array of a full group whatever the length: the slack of buf serves, or a
// copy.
func compressLast(buf []byte, counter uint64) guts.Node {
	if cap(buf) >= groupSize {
		return guts.CompressBuffer((*[groupSize]byte)(buf[:groupSize]), len(buf), &guts.IV, counter, 0)
	}
	var group [groupSize]byte
	copy(group[:], buf)
	return guts.CompressBuffer(&group, len(buf), &guts.IV, counter, 0)
}

// merge reduces two or more values of neighbouring subtrees, all complete but
// the last, to the node above them. It destroys values.
func merge(values [][8]uint32) guts.Node {
	for len(values) > 2 {
		n := 0
		for i := 0; i+1 < len(values); i += 2 {
			values[n] = guts.ChainingValue(guts.ParentNode(values[i], values[i+1], &guts.IV, 0))
			n++
		}
		if len(values)%2 == 1 {
			values[n] = values[len(values)-1]
			n++
		}
		values = values[:n]
	}
	return guts.ParentNode(values[0], values[1], &guts.IV, 0)
}

// root turns the topmost node into the digest.
func root(node guts.Node) Value {
	node.Flags |= guts.FlagRoot
	words := guts.CompressNode(node)
	return toValue([8]uint32(words[:8]))
}

func mustSize(size int64) {
	if size < 0 || size > MaxSize {
		panic("chunk: internal error: size outside 0..MaxSize")
	}
}
