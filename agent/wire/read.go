package wire

import (
	"errors"
	"fmt"
	"io"
)

// ReadRequest reads one request and the end of the stream behind it. There are
// three outcomes: a Request; problem.PeerMisbehaved; the error of r, wrapped.
func ReadRequest(r io.Reader) (Request, error) {
	f, err := readFrame(r)
	if err != nil {
		return nil, fmt.Errorf("reading a request: %w", err)
	}
	req, ok := f.(Request)
	if !ok {
		return nil, misbehaved("sent a %s frame as a request", f.Kind())
	}
	if err := readEnd(r); err != nil {
		return nil, fmt.Errorf("reading the end of a request: %w", err)
	}
	return req, nil
}

// ReadWelcome reads the answer to Hello, to its end. There are four outcomes: a
// Welcome; the problem that the peer gave; problem.PeerMisbehaved; the error of
// r, wrapped.
func ReadWelcome(r io.Reader) (Welcome, error) { return readAnswer[Welcome](r) }

// ReadSealed reads the answer to Seal, to its end, with the outcomes of ReadWelcome.
func ReadSealed(r io.Reader) (Sealed, error) { return readAnswer[Sealed](r) }

// ReadEnded reads the answer to End, to its end, with the outcomes of ReadWelcome.
func ReadEnded(r io.Reader) error {
	_, err := readAnswer[Ended](r)
	return err
}

func readAnswer[T Frame](r io.Reader) (answer T, err error) {
	var zero T
	f, err := readFrame(r)
	if err != nil {
		return zero, fmt.Errorf("reading the answer: %w", err)
	}
	if err := readEnd(r); err != nil {
		return zero, fmt.Errorf("reading the end of the answer: %w", err)
	}
	switch f := f.(type) {
	case T:
		return f, nil
	case Refused:
		return zero, f.Err()
	}
	return zero, misbehaved("sent a %s frame as the answer, not %s", f.Kind(), zero.Kind())
}

// readFrame reads one frame without a payload that may follow it.
func readFrame(r io.Reader) (Frame, error) {
	var head [headSize]byte
	if err := readFull(r, head[:]); err != nil {
		return nil, err
	}
	kind := Kind(head[0])
	n := int(head[1])<<16 | int(head[2])<<8 | int(head[3])
	if n > maxBody(kind) {
		return nil, misbehaved("sent a frame of kind %s that is %d bytes long", kind, n)
	}
	var short [64]byte
	body := short[:min(n, len(short))]
	if n > len(short) {
		body = make([]byte, n)
	}
	if err := readFull(r, body); err != nil {
		return nil, err
	}
	return decode(kind, body)
}

// readFull fills b. A stream that ends before is the peer's fault.
func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return misbehaved("ended a stream in the middle")
	}
	return err
}

// readEnd demands FIN, which gives the stream's credit back.
func readEnd(r io.Reader) error {
	var b [1]byte
	switch _, err := io.ReadFull(r, b[:]); {
	case err == nil:
		return misbehaved("sent more than one frame where one is allowed")
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}
