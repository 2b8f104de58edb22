// Package wire is the agent protocol, version 1, as bytes: the frames that two
// agents exchange on the streams of a lane. docs/spec/transfer.md is its
// normative text; this page is the map.
//
// Every stream is opened by the dialler of the lane. It carries one request and
// FIN; then one answer and FIN. Whoever opened it reads to FIN or abandons it,
// because unread bytes keep their flow-control credit.
//
//	request       answer
//	Hello         Welcome
//	WantChunks    Pinned, then n times Chunk, then Done
//	WantRun       for each item asked for, in order: Item or ItemRefused; then Done
//	Seal          Sealed
//	End           Ended
//
// Refused may come in the place of any part of an answer, and is its last. A
// frame is a head, a body, and for Chunk and Item a payload that the body
// announces:
//
//	 0        1                      4               4+length
//	+--------+----------------------+---------------+ - - - - - - - - - - - - - - - - - -
//	|  kind  |        length        |     body      |  content  |  value (32 bytes)
//	+--------+----------------------+---------------+ - - - - - - - - - - - - - - - - - -
//
// Numbers are big-endian. A string is its length in bytes in two bytes, and its
// bytes. Bodies:
//
//	01 Hello       version u16, lanes u16, xfr 16, bat u64, man 32, ord 32, capability string
//	02 WantChunks  xfr 16, bat u64, item u16, n u16, first u64
//	03 WantRun     xfr 16, bat u64, count u16, count times item u16 (ascending)
//	04 Seal        xfr 16, bat u64, item u16
//	05 End         xfr 16, bat u64, n u32, root 32
//	80 Refused     number u32, code string, sentence string
//	81 Welcome     version u16, want u16, software string
//	82 Chunk       index u64, length u32; then content, then value
//	83 Item        item u16, size u32, attributes, native string; then content, then value
//	84 ItemRefused item u16, number u32, code string, sentence string
//	85 Sealed      size u64, root 32, attributes, native string
//	86 Ended       (empty)
//	87 Done        (empty)
//	88 Pinned      attributes, native string
//	attributes     flags u8 (1 mtime, 2 mode, 4 type), mtime i64 ns if 1, mode u32 if 2, type string if 4,
//	               pairs u8, pairs times (key string, value string), keys ascending
//
// It guarantees that a value has exactly one spelling: a decoder refuses what
// the encoder would not write, because both ask the same check; and that no
// allocation follows a number of the peer's before that number was compared
// with its limit, which limits.go names. It does no I/O but through the reader
// that it is given, starts no goroutine, and does not judge authority, digests
// or whether an item is what the manifest says: the agent does.
//
// Failures of the peer are *problem.Error with code problem.PeerMisbehaved;
// what the peer refused has the code and the sentence that it gave, which are
// claims of the peer and no more. Errors of the reader are wrapped. All
// functions are safe for concurrent use; the readers of answers belong to one
// goroutine.
//
// History: 1, the first. Before anything spoke it in earnest it gained Pinned and the content type, since an object
// store must know the attributes of an object before its first byte.
package wire

import (
	"errors"
	"fmt"

	"github.com/consign-transfer/consign/token/problem"
)

// ALPN is the protocol's name in the TLS handshake (RFC 7301).
const ALPN = "consign/1"

// Version is the newest revision of the protocol that this package speaks.
const Version = 1

// A Kind is the first byte of a frame. Requests are below 0x80, answers are not.
type Kind byte

// The kinds, in the order of the package's table.
const (
	KindHello       Kind = 0x01
	KindWantChunks  Kind = 0x02
	KindWantRun     Kind = 0x03
	KindSeal        Kind = 0x04
	KindEnd         Kind = 0x05
	KindRefused     Kind = 0x80
	KindWelcome     Kind = 0x81
	KindChunk       Kind = 0x82
	KindItem        Kind = 0x83
	KindItemRefused Kind = 0x84
	KindSealed      Kind = 0x85
	KindEnded       Kind = 0x86
	KindDone        Kind = 0x87
	KindPinned      Kind = 0x88
)

// A Frame is one of the structs of this package. It is made by value.
type Frame interface {
	// Kind is the frame's first byte.
	Kind() Kind
	check() error
	appendBody([]byte) []byte
}

// A Request is a Frame that opens a stream: Hello, WantChunks, WantRun, Seal or End.
type Request interface {
	Frame
	request()
}

// Append appends the frame f to b, without the payload of Chunk and Item, which
// follows it. It returns b unchanged and an error that names the field if f
// breaks a limit.
func Append(b []byte, f Frame) ([]byte, error) {
	if err := f.check(); err != nil {
		return b, fmt.Errorf("encoding %s: %w", f.Kind(), err)
	}
	start := len(b)
	b = append(b, byte(f.Kind()), 0, 0, 0)
	b = f.appendBody(b)
	n := len(b) - start - headSize
	if n > maxBody(f.Kind()) {
		return b[:start], fmt.Errorf("encoding %s: body of %d bytes: %w", f.Kind(), n, errLimit)
	}
	b[start+1], b[start+2], b[start+3] = byte(n>>16), byte(n>>8), byte(n)
	return b, nil
}

// decode is the inverse of Append for one body.
func decode(kind Kind, body []byte) (Frame, error) {
	p := &parser{rest: body}
	f := parseBody(kind, p)
	if f == nil {
		return nil, misbehaved("sent a frame of unknown kind %d", kind)
	}
	if p.short || len(p.rest) > 0 {
		return nil, misbehaved("sent a %s frame of the wrong length", kind)
	}
	if err := f.check(); err != nil {
		return nil, problem.Wrap(err, problem.PeerMisbehaved, "the other agent sent a %s frame with a value that is not allowed", kind)
	}
	return f, nil
}

func parseBody(kind Kind, p *parser) Frame {
	switch kind {
	case KindHello:
		return parseHello(p)
	case KindWantChunks:
		return parseWantChunks(p)
	case KindWantRun:
		return parseWantRun(p)
	case KindSeal:
		return parseSeal(p)
	case KindEnd:
		return parseEnd(p)
	case KindRefused:
		return parseRefused(p)
	case KindWelcome:
		return parseWelcome(p)
	case KindChunk:
		return parseChunkHead(p)
	case KindItem:
		return parseItem(p)
	case KindItemRefused:
		return parseItemRefused(p)
	case KindSealed:
		return parseSealed(p)
	case KindEnded:
		return Ended{}
	case KindDone:
		return Done{}
	case KindPinned:
		return parsePinned(p)
	}
	return nil
}

// String is the name of the kind, for messages.
func (k Kind) String() string {
	switch k {
	case KindHello:
		return "hello"
	case KindWantChunks:
		return "want-chunks"
	case KindWantRun:
		return "want-run"
	case KindSeal:
		return "seal"
	case KindEnd:
		return "end"
	case KindRefused:
		return "refused"
	case KindWelcome:
		return "welcome"
	case KindChunk:
		return "chunk"
	case KindItem:
		return "item"
	case KindItemRefused:
		return "item-refused"
	case KindSealed:
		return "sealed"
	case KindEnded:
		return "ended"
	case KindDone:
		return "done"
	case KindPinned:
		return "pinned"
	}
	return fmt.Sprintf("kind-%d", byte(k))
}

var (
	errLimit  = errors.New("outside its limit")
	errForm   = errors.New("not in its form")
	errSorted = errors.New("not in ascending order")
)

func misbehaved(format string, args ...any) error {
	return problem.New(problem.PeerMisbehaved, "the other agent "+format, args...)
}
