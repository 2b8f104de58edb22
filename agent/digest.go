package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// sha256Prefix begins the digests of the algorithm that an order may name beside BLAKE3.
const sha256Prefix = "sha256:"

// scanSize is how much of an object is read with one request where nobody waits for it, bytes.
const scanSize = 64 << 20

// askedSmall returns problem.DigestDiffers if data is not what order and manifest ask of item i. root is its
// BLAKE3 digest, which is had for nothing.
func (r *receiver) askedSmall(i int, root token.Digest, data []byte) error {
	own := root
	if strings.HasPrefix(string(r.man.Items[i].Digest), sha256Prefix) {
		sum := sha256.New()
		sum.Write(data)
		own = shaDigest(sum)
	}
	return r.checkAsked(i, own)
}

// askedLarge is askedSmall of a large item that is staged whole. SHA-256 was kept along, or costs one more read of the stage.
func (r *receiver) askedLarge(ctx context.Context, i int, root token.Digest) error {
	it := r.man.Items[i]
	if !strings.HasPrefix(string(it.Digest), sha256Prefix) {
		return r.checkAsked(i, root)
	}
	r.rmu.Lock()
	p := &r.pieces[i]
	stage, ordered, state := p.stage, p.ordered, p.sum
	r.rmu.Unlock()
	var sum hash.Hash
	var err error
	switch {
	case ordered:
		sum, err = sumFrom(state)
	case stage == nil:
		return errMoot
	default:
		sum, err = sumStage(ctx, r.a, stage, it.Size)
	}
	if err != nil {
		return fmt.Errorf("computing SHA-256 of item %d: %w", i, err)
	}
	return r.checkAsked(i, shaDigest(sum))
}

// checkAsked compares the digest of item i, of the algorithm that was asked for, with what was asked for.
func (r *receiver) checkAsked(i int, own token.Digest) error {
	if it := r.man.Items[i]; it.Digest != "" && own != it.Digest {
		return problem.New(problem.DigestDiffers, "The object hashes to another digest than the one that was asked for: %q", it.Src)
	}
	return nil
}

func shaDigest(sum hash.Hash) token.Digest {
	return token.Digest(sha256Prefix + hex.EncodeToString(sum.Sum(nil)))
}

// sumStage computes SHA-256 of the size bytes of a stage.
func sumStage(ctx context.Context, a *Agent, stage io.ReaderAt, size int64) (hash.Hash, error) {
	buf := a.buffer()
	defer a.release(buf)
	sum := sha256.New()
	for off := int64(0); off < size; {
		n := min(int64(len(buf)), size-off)
		if got, err := stage.ReadAt(buf[:n], off); int64(got) < n {
			return nil, fmt.Errorf("reading the stage at %d: %w", off, err)
		}
		sum.Write(buf[:n])
		off += n
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return sum, nil
}

// hashObject returns the digest of an object as it is now. If sum is not nil it takes the content too.
func hashObject(ctx context.Context, a *Agent, s store.Store, info store.Info, sum hash.Hash) (token.Digest, error) {
	rd, err := s.Open(ctx, info.Name, info.Version)
	if err != nil {
		return "", fmt.Errorf("opening the existing object: %w", err)
	}
	tree := chunk.NewTree(info.Size)
	count := tree.Count()
	for first := int64(0); first < count && err == nil; first += scanSize / chunk.Size {
		err = a.readChunks(ctx, rd, info.Size, first, min(scanSize/chunk.Size, count-first), func(index int64, data []byte) error {
			if sum != nil {
				sum.Write(data)
			}
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
