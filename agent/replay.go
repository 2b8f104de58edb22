package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

// heldRecord is what must be known of an item to publish it.
type heldRecord struct {
	Item  int               `json:"item"`
	Root  token.Digest      `json:"root"`
	Value token.ValueDigest `json:"value,omitempty"`
	Attrs store.Attrs       `json:"attrs"`
}

// replay is side.replay.
func (r *receiver) replay(rec journal.Record) error {
	switch rec.Kind {
	case recBoot:
		r.boot = string(rec.Data)
		return nil
	case recChunk:
		i, index, v, err := parseChunk(rec.Data, len(r.pieces))
		if err != nil {
			return err
		}
		return r.replayPart(i, index, []chunk.Value{v}, nil)
	case recPart:
		i, first, values, sum, err := parsePart(rec.Data, len(r.pieces))
		if err != nil {
			return err
		}
		return r.replayPart(i, first, values, sum)
	case recHeld, recSealed:
		var h heldRecord
		if err := json.Unmarshal(rec.Data, &h); err != nil || h.Item < 0 || h.Item >= len(r.pieces) {
			return fmt.Errorf("decoding a held item: %w", errors.Join(err, journal.ErrCorrupt))
		}
		p := &r.pieces[h.Item]
		p.at, p.root, p.value, p.attrs, p.doubt = held, h.Root, h.Value, h.Attrs, rec.Kind == recHeld && r.boot != r.a.boot
	case recForget:
		if len(rec.Data) != 2 || int(binary.BigEndian.Uint16(rec.Data)) >= len(r.pieces) {
			return fmt.Errorf("decoding a forgotten item: %w", journal.ErrCorrupt)
		}
		r.forget(int(binary.BigEndian.Uint16(rec.Data)))
	case recOutcome:
		o, err := token.ParseOutcome(rec.Data)
		if err != nil || o.Item >= int64(len(r.pieces)) {
			return fmt.Errorf("decoding an outcome: %w", errors.Join(err, journal.ErrCorrupt))
		}
		p := &r.pieces[o.Item]
		if p.at != done {
			r.open--
			r.count(p.at, o.Item, o)
		}
		p.at, p.outcome = done, o
	default:
		return fmt.Errorf("record of kind %d: %w", rec.Kind, journal.ErrCorrupt)
	}
	return nil
}

// count adds a final outcome to what beats say.
func (r *receiver) count(was place, item int64, o token.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.items++
	if o.Outcome == token.Stored && r.small(int(item)) && was != done {
		r.bytes += o.Size
	}
}

func chunkRecord(item int, index int64, v chunk.Value) journal.Record {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 2+8+len(v)), uint16(item))
	b = binary.BigEndian.AppendUint64(b, uint64(index))
	return journal.Record{Kind: recChunk, Data: append(b, v[:]...)}
}

// parseChunk is the inverse of chunkRecord.
func parseChunk(data []byte, items int) (item int, index int64, v chunk.Value, err error) {
	if len(data) != 2+8+len(v) || int(binary.BigEndian.Uint16(data)) >= items {
		return 0, 0, v, fmt.Errorf("decoding a chunk: %w", journal.ErrCorrupt)
	}
	copy(v[:], data[10:])
	return int(binary.BigEndian.Uint16(data)), int64(binary.BigEndian.Uint64(data[2:])), v, nil
}

// partRecord is a part that is staged: the values of its chunks, and the state of the hashes behind them that are computed as it comes. It
// is one record, so that a part is never remembered in pieces.
func partRecord(item int, first int64, values []chunk.Value, sum []byte) journal.Record {
	if len(values) == 1 && sum == nil {
		return chunkRecord(item, first, values[0])
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, partHead+len(values)*len(chunk.Value{})+len(sum)), uint16(item))
	b = binary.BigEndian.AppendUint64(b, uint64(first))
	b = binary.BigEndian.AppendUint32(b, uint32(len(values)))
	for _, v := range values {
		b = append(b, v[:]...)
	}
	return journal.Record{Kind: recPart, Data: append(b, sum...)}
}

const partHead = 2 + 8 + 4

// parsePart is the inverse of partRecord. sum shares memory with data.
func parsePart(data []byte, items int) (item int, first int64, values []chunk.Value, sum []byte, err error) {
	bad := fmt.Errorf("decoding a part: %w", journal.ErrCorrupt)
	if len(data) < partHead || int(binary.BigEndian.Uint16(data)) >= items {
		return 0, 0, nil, nil, bad
	}
	n, rest := int64(binary.BigEndian.Uint32(data[10:])), data[partHead:]
	if n > int64(len(rest)/len(chunk.Value{})) {
		return 0, 0, nil, nil, bad
	}
	values = make([]chunk.Value, n)
	for i := range values {
		rest = rest[copy(values[i][:], rest):]
	}
	return int(binary.BigEndian.Uint16(data)), int64(binary.BigEndian.Uint64(data[2:])), values, rest, nil
}

// replayPart takes a whole part in.
func (r *receiver) replayPart(i int, first int64, values []chunk.Value, sum []byte) error {
	p := &r.pieces[i]
	n := int64(len(values))
	if p.tree == nil || first < 0 || first >= p.tree.Count() || first%p.unit != 0 || n != min(p.unit, p.tree.Count()-first) {
		return fmt.Errorf("reading a part of item %d: %w", i, journal.ErrCorrupt)
	}
	for j, v := range values {
		index := first + int64(j)
		if p.tree.Has(index) {
			continue
		}
		if err := p.tree.Add(index, v); err != nil {
			return err
		}
		_, size := chunk.Span(p.tree.Size(), index)
		r.received += size
		r.mu.Lock()
		r.bytes += size
		r.mu.Unlock()
	}
	if len(sum) > 0 {
		p.sum, p.summed = sum, first+n
	}
	return nil
}

// forget makes item i missing again. The caller holds rmu, or is alone.
func (r *receiver) forget(i int) {
	p := &r.pieces[i]
	if p.tree != nil {
		_, lost := p.tree.Held()
		p.tree = chunk.NewTree(p.tree.Size())
		r.mu.Lock()
		r.bytes -= lost
		r.mu.Unlock()
	}
	p.at, p.root, p.value, p.doubt, p.seal, p.dirty = missing, "", "", false, false, false
	p.condemned, p.sum, p.summed = false, nil, 0
	r.free(p)
	r.cursor = min(r.cursor, i)
}

// free gives back what a piece has of the memory. The caller holds rmu, or is alone.
func (r *receiver) free(p *piece) {
	r.memory += p.memory
	p.memory = 0
}
