package remote

import (
	"errors"
	"hash"
	"io"
	"sync"
)

// errOver is what a client reads that goes on after its call has ended.
var errOver = errors.New("the call that this body belongs to has ended")

// A Body is the body of one request, read once from somebody else's reader. It is what an HTTP client may be given that goes
// on reading in a goroutine of its own after it has returned: End stops that. It buffers nothing.
//
// It can be asked for its size, as io.Seeker has it, and be set to its start as long as nothing was read; so no client can send it
// twice.
type Body struct {
	mu   sync.Mutex // guards all below; held while reading from r
	r    io.Reader
	sum  hash.Hash // nil is none
	size int64
	read int64
	at   int64 // where Seek has set it
	err  error // why no more is read
	over bool
}

// NewBody returns a body of the next size bytes of r. Each is written to sum, which may be nil.
func NewBody(r io.Reader, size int64, sum hash.Hash) *Body {
	return &Body{r: r, size: size, sum: sum}
}

// Read implements io.Reader. Where r ends early the error is io.ErrUnexpectedEOF.
func (b *Body) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.over:
		return 0, errOver
	case b.at != b.read:
		return 0, errors.New("reading the body of a part from another place than where it is")
	case b.err != nil:
		return 0, b.err
	case b.read == b.size:
		return 0, io.EOF
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.size-b.read)])
	if b.sum != nil {
		b.sum.Write(p[:n]) // never an error
	}
	b.read += int64(n)
	b.at = b.read
	switch {
	case b.read == b.size:
		return n, nil // whatever r says: it has given all
	case errors.Is(err, io.EOF):
		b.err = io.ErrUnexpectedEOF
	default:
		b.err = err
	}
	return n, b.err
}

// Seek implements io.Seeker, as far as the type's doc says.
func (b *Body) Seek(offset int64, whence int) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.size
	}
	if offset < 0 || offset > b.size || b.read > 0 && offset != b.read {
		return 0, errors.New("setting back the body of a part, which is read once")
	}
	b.at = offset
	return offset, nil
}

// Close does nothing: the reader is its owner's.
func (b *Body) Close() error { return nil }

// End waits until no Read is under way and lets none begin. It returns why r could not be read to the end, or nil; and whether all
// of it was.
func (b *Body) End() (whole bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.over = true
	return b.read == b.size, b.err
}
