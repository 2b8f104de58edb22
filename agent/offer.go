package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const maxReaders = 16 // objects that a batch holds open

// reader returns item i, pinned at its version, and what gives it back.
func (s *server) reader(ctx context.Context, i int) (store.Reader, func(), error) {
	s.smu.Lock()
	defer s.smu.Unlock()
	at := slices.IndexFunc(s.readers, func(o openReader) bool { return o.item == i })
	if at >= 0 {
		o := s.readers[at]
		o.users++
		s.readers = append(slices.Delete(s.readers, at, at+1), o)
		return o.r, func() { s.putBack(i) }, nil
	}
	r, err := s.export.Store.Open(ctx, s.man.Items[i].Src, s.man.Items[i].Version)
	if err != nil {
		s.offers[i].fault = itemFault(err)
		return nil, nil, s.offers[i].fault
	}
	for n := 0; n < len(s.readers) && len(s.readers) >= maxReaders; {
		if s.readers[n].users > 0 {
			n++
			continue
		}
		s.closeReader(s.readers[n].r)
		s.readers = slices.Delete(s.readers, n, n+1)
	}
	s.readers = append(s.readers, openReader{item: i, r: r, users: 1})
	return r, func() { s.putBack(i) }, nil
}

func (s *server) putBack(i int) {
	s.smu.Lock()
	defer s.smu.Unlock()
	if at := slices.IndexFunc(s.readers, func(o openReader) bool { return o.item == i }); at >= 0 {
		s.readers[at].users--
	}
}

func (s *server) closeReader(r store.Reader) {
	if err := r.Close(); err != nil {
		s.log.Debug("closing an object", zap.Error(err))
	}
}

func (s *server) closeReaders() {
	s.smu.Lock()
	defer s.smu.Unlock()
	s.readers = slices.DeleteFunc(s.readers, func(o openReader) bool {
		if o.users == 0 {
			s.closeReader(o.r)
		}
		return o.users == 0
	})
}

// itemFault makes a failure of the source's store fit for the peer and the receipt.
func itemFault(err error) error {
	switch problem.Of(err) {
	case problem.Changed, problem.Missing, problem.Unreadable, problem.BadName, problem.Cancelled, problem.Timeout, problem.StoreAway:
		return err
	}
	return problem.Wrap(err, problem.Unreadable, "The object cannot be read")
}

// spoil remembers why an item was not served.
func (s *server) spoil(i int, err error) error {
	err = itemFault(err)
	s.smu.Lock()
	defer s.smu.Unlock()
	s.offers[i].fault = err
	return err
}

// unread is what is told of a failure to read an item, which is remembered unless it is only that we stop.
func (s *server) unread(ctx context.Context, i int, err error) error {
	if ctx.Err() != nil {
		return problem.New(problem.Draining, "The agent is stopping")
	}
	return s.spoil(i, err)
}

func (s *server) closed(c io.Closer) {
	if err := c.Close(); err != nil {
		s.log.Debug("closing an object", zap.Error(err))
	}
}

// sendChunks answers a want of chunks. Each value is written down before its chunk goes out.
func (s *server) sendChunks(ctx context.Context, out *outlet, q wire.WantChunks) error {
	if q.Item >= len(s.offers) {
		return problem.New(problem.Malformed, "The manifest has no item %d", q.Item)
	}
	it := s.man.Items[q.Item]
	if q.First+int64(q.N) > chunk.Count(it.Size) {
		return problem.New(problem.Malformed, "Item %d has %d chunks", q.Item, chunk.Count(it.Size))
	}
	ruled, err := s.permit(q.Item)
	if err != nil {
		return err
	}
	first, _ := chunk.Span(it.Size, q.First)
	last, n := chunk.Span(it.Size, q.First+int64(q.N)-1)
	if err := s.charge(last + n - first); err != nil {
		return err
	}
	r, done, err := s.reader(ctx, q.Item)
	if err != nil {
		return err
	}
	defer done()
	sec, err := r.Section(ctx, first, last+n-first)
	if err != nil {
		return s.unread(ctx, q.Item, readProblem(err))
	}
	defer s.closed(sec)
	buf := s.a.buffer()
	defer s.a.release(buf)
	for index := q.First; index < q.First+int64(q.N); index++ {
		if ctx.Err() != nil {
			return problem.New(problem.Draining, "The agent is stopping")
		}
		if err := s.revoked(); err != nil {
			return err
		}
		_, n := chunk.Span(it.Size, index)
		if err := s.pace(ctx, ruled, n); err != nil {
			return err
		}
		data := buf[wire.ChunkHeadSize:][:n]
		if _, err := io.ReadFull(sec, data); err != nil {
			return s.unread(ctx, q.Item, readProblem(err))
		}
		if index == q.First {
			if err := s.describe(ctx, out, r, q.Item); err != nil {
				return err
			}
		}
		v := chunk.Of(data, index, it.Size)
		if err := s.addValue(q.Item, index, v); err != nil {
			return err
		}
		if err := out.write(wire.PutChunk(buf, index, int(n), v)); err != nil {
			return err
		}
		s.a.metrics.bytes.WithLabelValues("out").Add(float64(n))
	}
	return out.send(wire.Done{})
}

// describe sends what the destination may have to know of an item before its first byte. Something was read before, so that
// it is known here as well.
func (s *server) describe(ctx context.Context, out *outlet, r store.Reader, i int) error {
	info, err := s.pinned(ctx, r, i)
	if err != nil {
		return s.unread(ctx, i, err)
	}
	attrs, _ := wire.Fit(info.Attrs)
	return out.send(wire.Pinned{Attrs: attrs, Native: clip(info.Native, wire.MaxNative)})
}

// pinned describes the pinned version of an item, which must have the size that was planned.
func (s *server) pinned(ctx context.Context, r store.Reader, i int) (store.Info, error) {
	info, err := r.Info(ctx)
	if err == nil && info.Size != s.man.Items[i].Size {
		err = problem.New(problem.Changed, "The object has another size than was planned")
	}
	return info, err
}

// addValue journals and keeps the value of a chunk. One that differs from what was served before means that the
// object has changed.
func (s *server) addValue(i int, index int64, v chunk.Value) error {
	o := &s.offers[i]
	s.smu.Lock()
	known := o.tree != nil && o.tree.Has(index) // and so is its record: asking again costs no disk
	s.smu.Unlock()
	if !known {
		if err := s.record(chunkRecord(i, index, v)); err != nil {
			return s.stop(err)
		}
	}
	_, n := chunk.Span(s.man.Items[i].Size, index)
	s.smu.Lock()
	defer s.smu.Unlock()
	s.served += n
	if o.tree == nil {
		return nil
	}
	if err := o.tree.Add(index, v); errors.Is(err, chunk.ErrDiffers) {
		o.fault = problem.New(problem.Changed, "The object does not read the same twice")
		return o.fault
	}
	return nil
}

// sendRun answers a want of small items. That they were served is durable before the run ends, so that a
// destination which keeps them can rely on the source's receipt.
func (s *server) sendRun(ctx context.Context, out *outlet, q wire.WantRun) error {
	var total int64
	for _, i := range q.Items {
		if i >= len(s.offers) || s.man.Items[i].Size > wire.MaxSmall {
			return problem.New(problem.Malformed, "Item %d is not one that is served in a run", i)
		}
		total += s.man.Items[i].Size
	}
	if err := s.charge(total); err != nil {
		return err
	}
	buf := s.a.buffer()
	defer s.a.release(buf)
	frame := make([]byte, 0, 1024)
	var away error // the store is, or the rate is used up: it is not tried with every other item
	for _, i := range q.Items {
		if ctx.Err() != nil {
			return problem.New(problem.Draining, "The agent is stopping")
		}
		if err := s.revoked(); err != nil {
			return err
		}
		ruled, err := s.permit(i)
		if err == nil && away == nil {
			if err = s.pace(ctx, ruled, s.man.Items[i].Size); err != nil {
				away = err
			}
		}
		if err == nil && away != nil {
			err = away
			if problem.Of(away) == problem.StoreAway {
				err = s.spoil(i, away)
			}
		}
		if err != nil {
			if err := out.send(wire.RefuseItem(i, err)); err != nil {
				return err
			}
			continue
		}
		if frame, err = s.sendSmall(ctx, out, frame[:0], buf, i); problem.Of(err) == problem.StoreAway && !out.broken {
			away = err
			err = out.send(wire.RefuseItem(i, err))
		}
		if err != nil {
			return err
		}
	}
	if err := s.commit(); err != nil {
		return s.stop(err)
	}
	return out.send(wire.Done{})
}

// sendSmall serves one item of a run, or says why it does not come. It returns frame for the next one. It fails with problem.StoreAway
// before anything of the item was sent.
func (s *server) sendSmall(ctx context.Context, out *outlet, frame, buf []byte, i int) ([]byte, error) {
	it := s.man.Items[i]
	data := buf[:it.Size]
	info, err := readPinned(ctx, s.export.Store, it, data)
	if err != nil {
		if err = s.unread(ctx, i, err); ctx.Err() != nil || problem.Of(err) == problem.StoreAway {
			return frame, err
		}
		return frame, out.send(wire.RefuseItem(i, err))
	}
	v := chunk.Of(data, 0, it.Size)
	attrs, lost := wire.Fit(info.Attrs)
	if err := s.sentWhole(i, v.Digest(), info.Native, lost); err != nil {
		return frame, err
	}
	frame, err = wire.Append(frame, wire.Item{Item: i, Size: int(it.Size), Attrs: attrs, Native: clip(info.Native, wire.MaxNative)})
	if err != nil {
		return frame, problem.Wrap(err, problem.Internal, "The answer could not be encoded")
	}
	frame = append(append(frame, data...), v[:]...)
	s.smu.Lock()
	s.served += it.Size
	s.smu.Unlock()
	s.a.metrics.bytes.WithLabelValues("out").Add(float64(it.Size))
	return frame, out.write(frame)
}

// readPinned reads a whole small object and makes sure that it was the pinned version all the time. It is one request where the store
// is remote.
func readPinned(ctx context.Context, st store.Store, it token.Item, data []byte) (info store.Info, err error) {
	r, err := st.Open(ctx, it.Src, it.Version)
	if err != nil {
		return store.Info{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if it.Size > 0 {
		sec, err := r.Section(ctx, 0, it.Size)
		if err != nil {
			return store.Info{}, readProblem(err)
		}
		_, err = io.ReadFull(sec, data)
		if err = errors.Join(err, sec.Close()); err != nil {
			return store.Info{}, readProblem(err)
		}
	}
	if info, err = r.Info(ctx); err != nil {
		return store.Info{}, err
	}
	if info.Size != it.Size {
		return store.Info{}, problem.New(problem.Changed, "The object has another size than was planned")
	}
	return info, r.Check(ctx)
}

// sentWhole writes down that an item was served whole but for the attributes in lost, once.
func (s *server) sentWhole(i int, d token.Digest, native string, lost []string) error {
	native, lost = clip(native, token.MaxNativeSize), lostNames(lost)
	s.smu.Lock()
	if s.offers[i].sent == d {
		s.note(i, d, native, lost)
		s.smu.Unlock()
		return nil
	}
	s.smu.Unlock()
	text := strings.Join(append([]string{string(d), native}, lost...), "\n")
	rec := journal.Record{Kind: recSent, Data: append(binary.BigEndian.AppendUint16(nil, uint16(i)), text...)}
	if err := s.record(rec); err != nil {
		return s.stop(err)
	}
	s.smu.Lock()
	defer s.smu.Unlock()
	s.note(i, d, native, lost)
	return nil
}

// sendSeal answers with the digest of an item at its pinned version. What was not read for a want is read now.
func (s *server) sendSeal(ctx context.Context, out *outlet, q wire.Seal) error {
	if q.Item >= len(s.offers) || s.offers[q.Item].tree == nil {
		return problem.New(problem.Malformed, "Item %d is not one that is sealed", q.Item)
	}
	it := s.man.Items[q.Item]
	if _, err := s.permit(q.Item); err != nil {
		return err
	}
	r, done, err := s.reader(ctx, q.Item)
	if err != nil {
		return err
	}
	defer done()
	if err := out.st.SetDeadline(time.Now().Add(answerTime + time.Duration(it.Size/sealRate)*time.Second)); err != nil {
		return err
	}
	var info store.Info
	root, err := s.seal(ctx, r, q.Item)
	if err == nil {
		info, err = s.pinned(ctx, r, q.Item)
	}
	if err == nil {
		err = r.Check(ctx)
	}
	if err != nil {
		return s.unread(ctx, q.Item, err)
	}
	attrs, lost := wire.Fit(info.Attrs)
	if err := s.sentWhole(q.Item, root, info.Native, lost); err != nil {
		return err
	}
	if err := s.commit(); err != nil {
		return s.stop(err)
	}
	v, err := valueOf(root)
	if err != nil {
		return err
	}
	return out.send(wire.Sealed{Size: it.Size, Root: v, Attrs: attrs, Native: clip(info.Native, wire.MaxNative)})
}

// seal returns the digest of a large item, reading the chunks whose value is not known, each run of them with one request.
func (s *server) seal(ctx context.Context, r store.Reader, i int) (token.Digest, error) {
	size := s.man.Items[i].Size
	for first := int64(0); ; {
		var n int64
		if first, n = s.unknown(i, first); n == 0 {
			break
		}
		err := s.a.readChunks(ctx, r, size, first, n, func(index int64, data []byte) error {
			v := chunk.Of(data, index, size)
			s.smu.Lock()
			defer s.smu.Unlock()
			if err := s.offers[i].tree.Add(index, v); errors.Is(err, chunk.ErrDiffers) {
				return problem.New(problem.Changed, "The object does not read the same twice")
			}
			return nil
		})
		if err != nil {
			return "", err
		}
		first += n
	}
	s.smu.Lock()
	defer s.smu.Unlock()
	return s.offers[i].tree.Root()
}

// unknown returns the next run of chunks from first on whose values are not known, of at most scanSize bytes; n is 0 if there is none.
func (s *server) unknown(i int, first int64) (from, n int64) {
	s.smu.Lock()
	defer s.smu.Unlock()
	t := s.offers[i].tree
	for first < t.Count() && t.Has(first) {
		first++
	}
	for first+n < t.Count() && n < scanSize/chunk.Size && !t.Has(first+n) {
		n++
	}
	return first, n
}
