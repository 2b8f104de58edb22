package wire

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/token"
	"github.com/google/uuid"
)

// A Batch names what a request is about. The authority is the capability of the
// newest Hello for it on the same lane.
type Batch struct {
	Xfr token.TransferID
	Bat int64 // from 1
}

func (i Batch) check() error {
	u, err := uuid.Parse(string(i.Xfr))
	if err != nil || u.String() != string(i.Xfr) || u.Version() != 7 || u.Variant() != uuid.RFC4122 {
		return fmt.Errorf("xfr: %w", errForm)
	}
	return checkRange("bat", i.Bat, 1, math.MaxInt64)
}

// append appends a Batch that check accepted.
func (i Batch) append(b []byte) []byte {
	u := uuid.MustParse(string(i.Xfr))
	return binary.BigEndian.AppendUint64(append(b, u[:]...), uint64(i.Bat))
}

// Hello presents a capability. It is the first request of a lane and comes
// again for each further batch and each renewed capability.
type Hello struct {
	Batch
	Version    uint16     // of the protocol, the dialler's newest; at least 1
	Lanes      int        // how many lanes the dialler means to have with this peer, 1..MaxLanes; a hint
	Man        token.Hash // the manifest that the dialler holds
	Ord        token.Hash // the order that the dialler holds
	Capability string     // compact JWS, at most MaxCapability bytes
}

// WantChunks asks for N chunks of one item in order, from First.
type WantChunks struct {
	Batch
	Item  int   // index in the manifest
	First int64 // chunk index
	N     int   // 1..MaxWant
}

// WantRun asks for whole small items, at most MaxSmall bytes each.
type WantRun struct {
	Batch
	Items []int // indices in the manifest, ascending, 1..MaxRun of them
}

// Seal asks for the source's own digest of an item that was asked for in
// chunks, after it checked once more that the item is the pinned version.
type Seal struct {
	Batch
	Item int
}

// End tells the source that the destination has an outcome for every item, or
// for every one of a numbered part of the batch.
type End struct {
	Batch
	N    int        // outcome lines, 0..MaxOutcomes
	Root token.Hash // of the Merkle tree over them
}

// Kind is KindHello.
func (Hello) Kind() Kind { return KindHello }

// Kind is KindWantChunks.
func (WantChunks) Kind() Kind { return KindWantChunks }

// Kind is KindWantRun.
func (WantRun) Kind() Kind { return KindWantRun }

// Kind is KindSeal.
func (Seal) Kind() Kind { return KindSeal }

// Kind is KindEnd.
func (End) Kind() Kind { return KindEnd }

func (Hello) request()      {}
func (WantChunks) request() {}
func (WantRun) request()    {}
func (Seal) request()       {}
func (End) request()        {}

func (h Hello) check() error {
	if err := h.Batch.check(); err != nil {
		return err
	}
	if err := checkRange("version", int64(h.Version), 1, math.MaxUint16); err != nil {
		return err
	}
	if err := checkRange("lanes", int64(h.Lanes), 1, MaxLanes); err != nil {
		return err
	}
	if err := checkHash("man", h.Man); err != nil {
		return err
	}
	if err := checkHash("ord", h.Ord); err != nil {
		return err
	}
	return checkCompact("capability", h.Capability)
}

// checkCompact accepts the alphabet of a compact JWS: what else is in it, token judges.
func checkCompact(name, s string) error {
	if len(s) == 0 || len(s) > MaxCapability {
		return fmt.Errorf("%s of %d bytes: %w", name, len(s), errLimit)
	}
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.') {
			return fmt.Errorf("%s: %w", name, errForm)
		}
	}
	return nil
}

func (h Hello) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, h.Version)
	b = binary.BigEndian.AppendUint16(b, uint16(h.Lanes))
	b = h.Batch.append(b)
	b = appendHash(b, h.Man)
	b = appendHash(b, h.Ord)
	return appendStr(b, h.Capability)
}

func parseHello(p *parser) Hello {
	h := Hello{Version: p.u16(), Lanes: int(p.u16())}
	h.Batch = p.batch()
	h.Man, h.Ord = p.hash(), p.hash()
	h.Capability = p.str()
	return h
}

func (w WantChunks) check() error {
	if err := w.Batch.check(); err != nil {
		return err
	}
	if err := checkRange("item", int64(w.Item), 0, MaxItem); err != nil {
		return err
	}
	if err := checkRange("n", int64(w.N), 1, MaxWant); err != nil {
		return err
	}
	return checkRange("first", w.First, 0, chunk.Count(chunk.MaxSize)-int64(w.N))
}

func (w WantChunks) appendBody(b []byte) []byte {
	b = w.Batch.append(b)
	b = binary.BigEndian.AppendUint16(b, uint16(w.Item))
	b = binary.BigEndian.AppendUint16(b, uint16(w.N))
	return binary.BigEndian.AppendUint64(b, uint64(w.First))
}

func parseWantChunks(p *parser) WantChunks {
	w := WantChunks{Batch: p.batch(), Item: int(p.u16()), N: int(p.u16())}
	w.First = int64(p.u64())
	return w
}

func (w WantRun) check() error {
	if err := w.Batch.check(); err != nil {
		return err
	}
	if err := checkRange("count", int64(len(w.Items)), 1, MaxRun); err != nil {
		return err
	}
	last := -1
	for _, i := range w.Items {
		if i <= last {
			return fmt.Errorf("items: %w", errSorted)
		}
		last = i
	}
	return checkRange("item", int64(last), 0, MaxItem)
}

func (w WantRun) appendBody(b []byte) []byte {
	b = w.Batch.append(b)
	b = binary.BigEndian.AppendUint16(b, uint16(len(w.Items)))
	for _, i := range w.Items {
		b = binary.BigEndian.AppendUint16(b, uint16(i))
	}
	return b
}

func parseWantRun(p *parser) WantRun {
	w := WantRun{Batch: p.batch()}
	n := int(p.u16())
	if n > MaxRun || 2*n != len(p.rest) {
		p.short = true
		return w
	}
	w.Items = make([]int, n)
	for i := range w.Items {
		w.Items[i] = int(p.u16())
	}
	return w
}

func (s Seal) check() error {
	if err := s.Batch.check(); err != nil {
		return err
	}
	return checkRange("item", int64(s.Item), 0, MaxItem)
}

func (s Seal) appendBody(b []byte) []byte {
	return binary.BigEndian.AppendUint16(s.Batch.append(b), uint16(s.Item))
}

func parseSeal(p *parser) Seal { return Seal{Batch: p.batch(), Item: int(p.u16())} }

func (e End) check() error {
	if err := e.Batch.check(); err != nil {
		return err
	}
	if err := checkRange("n", int64(e.N), 0, MaxOutcomes); err != nil {
		return err
	}
	return checkHash("root", e.Root)
}

func (e End) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(e.Batch.append(b), uint32(e.N))
	return appendHash(b, e.Root)
}

func parseEnd(p *parser) End {
	return End{Batch: p.batch(), N: int(p.u32()), Root: p.hash()}
}
