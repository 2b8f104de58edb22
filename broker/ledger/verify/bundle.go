package verify

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token/problem"
)

// MaxLineSize bounds a line of a bundle, in bytes: one batch with its manifest and receipts.
const MaxLineSize = 32 << 20

// formatVersion is the "v" of a bundle's first line. 1: an order, then one batch a line.
const formatVersion = 1

// head is the first line of a bundle.
type head struct {
	V     int             `json:"v"`
	Order api.SignedOrder `json:"order"`
}

// A Writer writes a bundle: JSON lines, the first with the order, then one batch a line.
type Writer struct{ enc *json.Encoder }

// NewWriter begins a bundle on w.
func NewWriter(w io.Writer, o api.SignedOrder) (*Writer, error) {
	enc := json.NewEncoder(w)
	if err := enc.Encode(head{formatVersion, o}); err != nil {
		return nil, fmt.Errorf("writing the order of a bundle: %w", err)
	}
	return &Writer{enc}, nil
}

// Write adds one batch.
func (w *Writer) Write(r api.BatchRecord) error {
	if err := w.enc.Encode(r); err != nil {
		return fmt.Errorf("writing batch %d of a bundle: %w", r.Bat, err)
	}
	return nil
}

// A Reader reads a bundle, one batch at a time.
type Reader struct {
	lines *bufio.Reader
	order api.SignedOrder
}

// NewReader reads the beginning of a bundle from r. It fails with problem.Malformed if that is none,
// and as r does.
func NewReader(r io.Reader) (*Reader, error) {
	b := &Reader{lines: bufio.NewReaderSize(r, 1<<20)}
	var h head
	err := b.next(&h)
	if errors.Is(err, io.EOF) {
		return nil, problem.New(problem.Malformed, "The bundle is empty")
	}
	if err != nil {
		return nil, err
	}
	if h.V != formatVersion {
		return nil, problem.New(problem.Malformed, "The bundle is of version %d; this program reads version %d", h.V, formatVersion)
	}
	b.order = h.Order
	return b, nil
}

// Order returns the order of the bundle.
func (b *Reader) Order() api.SignedOrder { return b.order }

// Read returns the next batch; io.EOF after the last.
func (b *Reader) Read() (api.BatchRecord, error) {
	var r api.BatchRecord
	if err := b.next(&r); err != nil {
		return api.BatchRecord{}, err
	}
	return r, nil
}

// next decodes the next line. A last line that was cut off is problem.Malformed.
func (b *Reader) next(v any) error {
	var line []byte
	for {
		piece, err := b.lines.ReadSlice('\n')
		if len(line)+len(piece) > MaxLineSize {
			return problem.New(problem.TooLarge, "A line of the bundle is larger than %d bytes", MaxLineSize)
		}
		line = append(line, piece...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) == 0:
			return io.EOF
		case errors.Is(err, io.EOF):
			return problem.New(problem.Malformed, "The last line of the bundle was cut off")
		case err != nil:
			return fmt.Errorf("reading a bundle: %w", err)
		}
		break
	}
	if len(bytes.TrimSpace(line)) == 0 { // or its io.EOF would end the bundle, and hide what follows
		return problem.New(problem.Malformed, "A line of the bundle is empty")
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return problem.Wrap(err, problem.Malformed, "A line of the bundle cannot be read")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return problem.New(problem.Malformed, "A line of the bundle holds more than one value")
	}
	return nil
}

// Bundle audits a whole bundle. The error is for one that cannot be read to its end; what is wrong in it is
// in the report.
func Bundle(r io.Reader, trust *certs.Trust) (Report, error) {
	b, err := NewReader(r)
	if err != nil {
		return Report{}, err
	}
	a, err := NewAuditor(b.Order(), trust)
	if err != nil {
		return Report{}, err
	}
	for {
		rec, err := b.Read()
		if errors.Is(err, io.EOF) {
			return a.Report(), nil
		}
		if err != nil {
			return Report{}, err
		}
		a.Batch(rec)
	}
}
