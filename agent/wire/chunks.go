package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/consign-transfer/consign/agent/chunk"
)

// readAhead is what the readers of answers take from a stream at once, in bytes.
const readAhead = 4 << 10

var errBuffer = errors.New("wire: the caller's buffer is too small")

// PutChunk completes the frame of one chunk around content that is already in
// place, so that a source sends it with one Write: b[ChunkHeadSize:][:n] is the
// content of chunk index and v its value. It writes before and behind the
// content and returns the whole frame, which shares b's memory. It panics if b
// has no room for the head, n bytes and ValueSize.
func PutChunk(b []byte, index int64, n int, v chunk.Value) []byte {
	if n < 0 || n > chunk.Size || cap(b) < ChunkHeadSize+n+ValueSize {
		panic("wire: internal error: no room for a chunk")
	}
	b = b[:ChunkHeadSize+n+ValueSize]
	if _, err := Append(b[:0], ChunkHead{Index: index, Length: n}); err != nil {
		panic("wire: internal error: " + err.Error())
	}
	copy(b[ChunkHeadSize+n:], v[:])
	return b
}

// A Chunk is one chunk as it arrived. Nothing about its content has been verified.
type Chunk struct {
	Index int64
	Data  []byte // the content, in the caller's buffer
	Value chunk.Value
}

// A ChunkReader reads the answer to WantChunks. Pinned may be called first; then Next must be called until
// it returns an error, or the stream abandoned.
type ChunkReader struct {
	r      *bufio.Reader
	size   int64
	next   int64
	end    int64
	pinned bool // Pinned has been read
}

// NewChunkReader reads the answer to want, which asked for chunks of an item of
// size bytes, from r.
func NewChunkReader(r io.Reader, want WantChunks, size int64) *ChunkReader {
	return &ChunkReader{r: bufio.NewReaderSize(r, readAhead), size: size, next: want.First, end: want.First + int64(want.N)}
}

// Pinned reads the source's description of the item, which comes before its chunks. There are four
// outcomes: the description; the problem that the peer gave; problem.PeerMisbehaved; the error of the reader, wrapped.
func (c *ChunkReader) Pinned() (Pinned, error) {
	f, err := readFrame(c.r)
	if err != nil {
		return Pinned{}, fmt.Errorf("reading what describes the item: %w", err)
	}
	switch f := f.(type) {
	case Pinned:
		if c.pinned {
			return Pinned{}, misbehaved("described an item twice")
		}
		c.pinned = true
		return f, nil
	case Refused:
		return Pinned{}, refusal(c.r, f)
	}
	return Pinned{}, misbehaved("sent a %s frame where it must describe the item", f.Kind())
}

// Next reads the next chunk, and Pinned before the first if that was not done, into buf, which needs the length of the longest
// chunk, and should have chunk.Slack more capacity for the hash. There are five
// outcomes: the chunk that was asked for next, with the length that it must
// have; io.EOF after the last one and the end of the stream; the problem that
// the peer gave; problem.PeerMisbehaved; the error of the reader, wrapped.
func (c *ChunkReader) Next(buf []byte) (Chunk, error) {
	if !c.pinned {
		if _, err := c.Pinned(); err != nil {
			return Chunk{}, err
		}
	}
	f, err := readFrame(c.r)
	if err != nil {
		return Chunk{}, fmt.Errorf("reading chunk %d: %w", c.next, err)
	}
	switch f := f.(type) {
	case ChunkHead:
		return c.content(f, buf)
	case Done:
		if c.next != c.end {
			return Chunk{}, misbehaved("ended before chunk %d", c.next)
		}
		if err := readEnd(c.r); err != nil {
			return Chunk{}, fmt.Errorf("reading the end of a want: %w", err)
		}
		return Chunk{}, io.EOF
	case Refused:
		return Chunk{}, refusal(c.r, f)
	}
	return Chunk{}, misbehaved("sent a %s frame among chunks", f.Kind())
}

func (c *ChunkReader) content(head ChunkHead, buf []byte) (Chunk, error) {
	if c.next >= c.end || head.Index != c.next {
		return Chunk{}, misbehaved("sent chunk %d, which was not asked for next", head.Index)
	}
	if _, n := chunk.Span(c.size, head.Index); int64(head.Length) != n {
		return Chunk{}, misbehaved("sent %d bytes as chunk %d, which has %d", head.Length, head.Index, n)
	}
	if cap(buf) < head.Length {
		return Chunk{}, fmt.Errorf("reading chunk %d: %w", head.Index, errBuffer)
	}
	got := Chunk{Index: head.Index, Data: buf[:head.Length]}
	if err := readPayload(c.r, got.Data, &got.Value); err != nil {
		return Chunk{}, fmt.Errorf("reading chunk %d: %w", head.Index, err)
	}
	c.next++
	return got, nil
}

func readPayload(r io.Reader, data []byte, v *chunk.Value) error {
	if err := readFull(r, data); err != nil {
		return err
	}
	return readFull(r, v[:])
}

// refusal is the peer's problem, once the stream has ended behind it.
func refusal(r io.Reader, f Refused) error {
	if err := readEnd(r); err != nil {
		return fmt.Errorf("reading the end of a refusal: %w", err)
	}
	return f.Err()
}
