package wire

import (
	"bufio"
	"fmt"
	"io"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
)

// runAhead is readAhead for runs, whose frames are short.
const runAhead = 16 << 10

// RefuseItem is the frame that tells the peer why an item of a run does not come.
func RefuseItem(item int, err error) ItemRefused {
	return ItemRefused{Item: item, Refused: Refuse(err)}
}

// A Small is one item of a run as it arrived. Nothing about its content has
// been verified. If Err is set, all but Index is zero.
type Small struct {
	Index  int         // in the manifest
	Data   []byte      // the content, in the caller's buffer
	Root   chunk.Value // what the source says that it hashes to
	Attrs  store.Attrs
	Native string // the source store's own digest, or empty
	Err    error  // why the item does not come, as the peer said it: a *problem.Error
}

// A RunReader reads the answer to WantRun. Its Next must be called until it
// returns an error, or the stream abandoned.
type RunReader struct {
	r    *bufio.Reader
	left []int
}

// NewRunReader reads the answer to want from r. want is not changed and must
// not change meanwhile.
func NewRunReader(r io.Reader, want WantRun) *RunReader {
	return &RunReader{r: bufio.NewReaderSize(r, runAhead), left: want.Items}
}

// Next reads the next item into buf, which needs MaxSmall bytes of capacity for
// an item of any size and should have chunk.Slack more for the hash. There are
// six outcomes: the item that was asked for next; the same with Err, and the
// run goes on; io.EOF after the last one and the end of the stream; the problem
// that the peer gave; problem.PeerMisbehaved; the error of the reader, wrapped.
// Whether the size is the manifest's, the caller checks.
func (r *RunReader) Next(buf []byte) (Small, error) {
	f, err := readFrame(r.r)
	if err != nil {
		return Small{}, fmt.Errorf("reading a run: %w", err)
	}
	switch f := f.(type) {
	case Item:
		return r.content(f, buf)
	case ItemRefused:
		if err := r.expect(f.Item); err != nil {
			return Small{}, err
		}
		return Small{Index: f.Item, Err: f.Err()}, nil
	case Done:
		if len(r.left) > 0 {
			return Small{}, misbehaved("ended a run before item %d", r.left[0])
		}
		if err := readEnd(r.r); err != nil {
			return Small{}, fmt.Errorf("reading the end of a run: %w", err)
		}
		return Small{}, io.EOF
	case Refused:
		return Small{}, refusal(r.r, f)
	}
	return Small{}, misbehaved("sent a %s frame in a run", f.Kind())
}

func (r *RunReader) content(head Item, buf []byte) (Small, error) {
	if err := r.expect(head.Item); err != nil {
		return Small{}, err
	}
	if cap(buf) < head.Size {
		return Small{}, fmt.Errorf("reading item %d of %d bytes: %w", head.Item, head.Size, errBuffer)
	}
	got := Small{Index: head.Item, Data: buf[:head.Size], Attrs: head.Attrs, Native: head.Native}
	if err := readPayload(r.r, got.Data, &got.Root); err != nil {
		return Small{}, fmt.Errorf("reading item %d: %w", head.Item, err)
	}
	return got, nil
}

func (r *RunReader) expect(item int) error {
	if len(r.left) == 0 || r.left[0] != item {
		return misbehaved("sent item %d, which was not asked for next", item)
	}
	r.left = r.left[1:]
	return nil
}
