package wire

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token/problem"
)

// Refused says why the rest of an answer does not come.
type Refused struct {
	Number   uint32 // of token/problem
	Code     problem.Code
	Sentence string // as Sentence leaves it
}

// Welcome accepts a Hello.
type Welcome struct {
	Version  uint16 // of the protocol as the listener will speak it, at most the dialler's
	Want     int    // chunks that one WantChunks may ask for, 1..MaxWant
	Software string // name and version, for people
}

// ChunkHead begins one chunk. Its content and its value follow.
type ChunkHead struct {
	Index  int64
	Length int // of the content, in bytes, 0..chunk.Size
}

// Item begins one whole small item. Its content and its digest as a value follow.
type Item struct {
	Item   int
	Size   int // of the content, in bytes, 0..MaxSmall
	Attrs  store.Attrs
	Native string // the source store's own digest, or empty
}

// ItemRefused stands for an item of a run that does not come; the run goes on.
type ItemRefused struct {
	Item int
	Refused
}

// Sealed is the source's statement of an item whose every chunk it has read at
// the pinned version.
type Sealed struct {
	Size   int64
	Root   chunk.Value // the digest; Root.Digest spells it
	Attrs  store.Attrs
	Native string // the source store's own digest, or empty
}

// Ended says that the source has noted the End.
type Ended struct{}

// Done ends an answer of several frames.
type Done struct{}

// Pinned describes an item at its pinned version, before the first of its chunks in an answer.
type Pinned struct {
	Attrs  store.Attrs
	Native string // the source store's own digest, or empty
}

// Kind is KindRefused.
func (Refused) Kind() Kind { return KindRefused }

// Kind is KindWelcome.
func (Welcome) Kind() Kind { return KindWelcome }

// Kind is KindChunk.
func (ChunkHead) Kind() Kind { return KindChunk }

// Kind is KindItem.
func (Item) Kind() Kind { return KindItem }

// Kind is KindItemRefused.
func (ItemRefused) Kind() Kind { return KindItemRefused }

// Kind is KindSealed.
func (Sealed) Kind() Kind { return KindSealed }

// Kind is KindEnded.
func (Ended) Kind() Kind { return KindEnded }

// Kind is KindDone.
func (Done) Kind() Kind { return KindDone }

// Kind is KindPinned.
func (Pinned) Kind() Kind { return KindPinned }

// Refuse is the frame that tells the peer about err: the code and the public
// sentence, never the cause.
func Refuse(err error) Refused {
	e := problem.As(err)
	kind := problem.Lookup(e.Code)
	return Refused{Number: uint32(kind.Number), Code: kind.Code, Sentence: Sentence(e.Sentence())}
}

// Err is the refusal as an error of this side: a *problem.Error with the code
// and the sentence of the peer. A code that this side does not know counts as
// problem.Internal.
func (r Refused) Err() error {
	code := problem.Internal
	if kind, ok := problem.ByNumber(uint64(r.Number)); ok {
		code = kind.Code
	}
	return &problem.Error{Code: code, Detail: r.Sentence, Cause: fmt.Errorf("refused by the other agent with code %q", r.Code)}
}

func (r Refused) check() error {
	if kind, ok := problem.ByNumber(uint64(r.Number)); ok && kind.Code != r.Code {
		return fmt.Errorf("code that is not of number %d: %w", r.Number, errForm)
	}
	if len(r.Code) == 0 || len(r.Code) > MaxCode {
		return fmt.Errorf("code of %d bytes: %w", len(r.Code), errLimit)
	}
	for _, c := range []byte(r.Code) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return fmt.Errorf("code: %w", errForm)
		}
	}
	return checkText("sentence", r.Sentence, MaxSentence)
}

func (r Refused) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, r.Number)
	b = appendStr(b, string(r.Code))
	return appendStr(b, r.Sentence)
}

func parseRefused(p *parser) Refused {
	return Refused{Number: p.u32(), Code: problem.Code(p.str()), Sentence: p.str()}
}

func (w Welcome) check() error {
	if err := checkRange("version", int64(w.Version), 1, math.MaxUint16); err != nil {
		return err
	}
	if err := checkRange("want", int64(w.Want), 1, MaxWant); err != nil {
		return err
	}
	return checkText("software", w.Software, MaxSoftware)
}

func (w Welcome) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, w.Version)
	b = binary.BigEndian.AppendUint16(b, uint16(w.Want))
	return appendStr(b, w.Software)
}

func parseWelcome(p *parser) Welcome {
	return Welcome{Version: p.u16(), Want: int(p.u16()), Software: p.str()}
}

func (c ChunkHead) check() error {
	if err := checkRange("index", c.Index, 0, chunk.Count(chunk.MaxSize)-1); err != nil {
		return err
	}
	return checkRange("length", int64(c.Length), 0, chunk.Size)
}

func (c ChunkHead) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(c.Index))
	return binary.BigEndian.AppendUint32(b, uint32(c.Length))
}

func parseChunkHead(p *parser) ChunkHead {
	return ChunkHead{Index: int64(p.u64()), Length: int(p.u32())}
}

func (i Item) check() error {
	if err := checkRange("item", int64(i.Item), 0, MaxItem); err != nil {
		return err
	}
	if err := checkRange("size", int64(i.Size), 0, MaxSmall); err != nil {
		return err
	}
	if err := checkAttrs(i.Attrs); err != nil {
		return err
	}
	return checkText("native", i.Native, MaxNative)
}

func (i Item) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(i.Item))
	b = binary.BigEndian.AppendUint32(b, uint32(i.Size))
	b = appendAttrs(b, i.Attrs)
	return appendStr(b, i.Native)
}

func parseItem(p *parser) Item {
	return Item{Item: int(p.u16()), Size: int(p.u32()), Attrs: parseAttrs(p), Native: p.str()}
}

func (i ItemRefused) check() error {
	if err := checkRange("item", int64(i.Item), 0, MaxItem); err != nil {
		return err
	}
	return i.Refused.check()
}

func (i ItemRefused) appendBody(b []byte) []byte {
	return i.Refused.appendBody(binary.BigEndian.AppendUint16(b, uint16(i.Item)))
}

func parseItemRefused(p *parser) ItemRefused {
	return ItemRefused{Item: int(p.u16()), Refused: parseRefused(p)}
}

func (s Sealed) check() error {
	if err := checkRange("size", s.Size, 0, chunk.MaxSize); err != nil {
		return err
	}
	if err := checkAttrs(s.Attrs); err != nil {
		return err
	}
	return checkText("native", s.Native, MaxNative)
}

func (s Sealed) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(s.Size))
	b = append(b, s.Root[:]...)
	b = appendAttrs(b, s.Attrs)
	return appendStr(b, s.Native)
}

func parseSealed(p *parser) Sealed {
	return Sealed{Size: int64(p.u64()), Root: p.value(), Attrs: parseAttrs(p), Native: p.str()}
}

func (Ended) check() error               { return nil }
func (Ended) appendBody(b []byte) []byte { return b }
func (Done) check() error                { return nil }
func (Done) appendBody(b []byte) []byte  { return b }

func (d Pinned) check() error {
	if err := checkAttrs(d.Attrs); err != nil {
		return err
	}
	return checkText("native", d.Native, MaxNative)
}

func (d Pinned) appendBody(b []byte) []byte { return appendStr(appendAttrs(b, d.Attrs), d.Native) }

func parsePinned(p *parser) Pinned { return Pinned{Attrs: parseAttrs(p), Native: p.str()} }
