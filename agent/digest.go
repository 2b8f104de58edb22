package agent

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// scanSize is how much of an object is read with one request where nobody waits for it, bytes.
const scanSize = 64 << 20

// answerSmall returns the value digest that the manifest asks for of item i, whose content is data and whose BLAKE3 digest is root. It fails with
// problem.DigestDiffers if data is not what order and manifest ask for.
func (r *receiver) answerSmall(i int, root token.Digest, data []byte) (token.ValueDigest, error) {
	s, err := newSums(sumsOf(r.man.Items[i]), nil)
	if err != nil {
		return "", err
	}
	s.write(data)
	return r.answer(i, root, s)
}

// answerLarge is answerSmall of a large item that is staged whole. state is of sums, which were computed as its bytes came.
func (r *receiver) answerLarge(i int, root token.Digest, state []byte) (token.ValueDigest, error) {
	s, err := newSums(sumsOf(r.man.Items[i]), state)
	if err != nil {
		return "", fmt.Errorf("hashing item %d: %w", i, err)
	}
	return r.answer(i, root, s)
}

// answer compares the digest of item i, of the algorithm that was asked for, with what was asked for, and returns its value digest.
func (r *receiver) answer(i int, root token.Digest, s sums) (token.ValueDigest, error) {
	it, own := r.man.Items[i], root
	if wantsSHA256(it) {
		own = s.digest()
	}
	if it.Digest != "" && own != it.Digest {
		return "", problem.New(problem.DigestDiffers, "The object hashes to another digest than the one that was asked for: %q", it.Src)
	}
	return s.value(it.Hash), nil
}

// refuseSums ends the items of which a hash is asked for that we cannot compute, before anything is asked for them.
func (r *receiver) refuseSums() {
	for i, it := range r.man.Items {
		r.rmu.Lock()
		waits := r.pieces[i].at != done && r.pieces[i].at != held
		r.rmu.Unlock()
		if _, err := newSums(sumsOf(it), nil); err != nil && waits {
			r.end(i, err)
		}
	}
}

// hashObject returns the digest of an object as it is now. along takes the content too.
func hashObject(ctx context.Context, a *Agent, s store.Store, info store.Info, along sums) (token.Digest, error) {
	rd, err := s.Open(ctx, info.Name, info.Version)
	if err != nil {
		return "", fmt.Errorf("opening the existing object: %w", err)
	}
	tree := chunk.NewTree(info.Size)
	count := tree.Count()
	for first := int64(0); first < count && err == nil; first += scanSize / chunk.Size {
		err = a.readChunks(ctx, rd, info.Size, first, min(scanSize/chunk.Size, count-first), func(index int64, data []byte) error {
			along.write(data)
			return tree.Add(index, chunk.Of(data, index, info.Size))
		})
	}
	if err == nil {
		err = rd.Check(ctx)
	}
	if err = errors.Join(err, rd.Close()); err != nil {
		return "", fmt.Errorf("reading the existing object: %w", err)
	}
	return tree.Root()
}

// readChunks reads n chunks of an object from first on with one request, and hands each to fn in order, which must not keep it.
func (a *Agent) readChunks(ctx context.Context, rd store.Reader, size, first, n int64, fn func(index int64, data []byte) error) (err error) {
	buf := a.buffer()
	defer a.release(buf)
	from, _ := chunk.Span(size, first)
	last, length := chunk.Span(size, first+n-1)
	if last+length == from { // empty: there is nothing to ask for
		return fn(first, buf[:0])
	}
	sec, err := rd.Section(ctx, from, last+length-from)
	if err != nil {
		return readProblem(err)
	}
	defer func() { err = errors.Join(err, sec.Close()) }()
	for index := first; index < first+n; index++ {
		_, length := chunk.Span(size, index)
		if _, err := io.ReadFull(sec, buf[:length]); err != nil {
			return readProblem(err)
		}
		if err := fn(index, buf[:length]); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// readProblem gives a failure to read an object its code. An object that is shorter than it was pinned has changed.
func readProblem(err error) error {
	switch {
	case err == nil || problem.Of(err) != problem.Internal:
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return problem.New(problem.Changed, "The object is shorter than it was")
	}
	return problem.Wrap(err, problem.Unreadable, "The object cannot be read")
}
