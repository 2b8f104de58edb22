package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// blake3Prefix and sha256Prefix begin the digests of the two algorithms that an order may name.
const (
	blake3Prefix = "blake3:"
	sha256Prefix = "sha256:"
)

// asked returns problem.DigestDiffers if content is not what order and manifest ask of item i. root is its
// BLAKE3 digest, which is had for nothing; SHA-256 costs one more read of content.
func (r *receiver) asked(ctx context.Context, i int, root token.Digest, content io.ReaderAt) error {
	it := r.man.Items[i]
	own := root
	switch {
	case it.Digest == "":
		return nil
	case strings.HasPrefix(string(it.Digest), sha256Prefix):
		var err error
		if own, err = sumObject(ctx, r.a, content, it.Size); err != nil {
			return fmt.Errorf("computing SHA-256 of item %d: %w", i, err)
		}
	}
	if own != it.Digest {
		return problem.New(problem.DigestDiffers, "The object hashes to another digest than the one that was asked for: %q", it.Src)
	}
	return nil
}

// askedOf is asked of the object that exists under the name of item i.
func (r *receiver) askedOf(ctx context.Context, i int, root token.Digest, info store.Info) error {
	if strings.HasPrefix(string(r.man.Items[i].Digest), blake3Prefix) {
		return r.asked(ctx, i, root, nil)
	}
	rd, err := r.export.Store.Open(ctx, info.Name, info.Version)
	if err != nil {
		return fmt.Errorf("opening the existing object: %w", err)
	}
	return errors.Join(r.asked(ctx, i, root, rd), rd.Close())
}

// sumObject returns the SHA-256 of size bytes.
func sumObject(ctx context.Context, a *Agent, rd io.ReaderAt, size int64) (token.Digest, error) {
	buf := a.buffer()
	defer a.release(buf)
	sum := sha256.New()
	for off := int64(0); off < size; {
		n := min(int64(len(buf)), size-off)
		if err := readAt(rd, buf[:n], off); err != nil {
			return "", err
		}
		sum.Write(buf[:n])
		off += n
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
	}
	return token.Digest(sha256Prefix + hex.EncodeToString(sum.Sum(nil))), nil
}

// hashObject returns the digest of an object as it is now.
func hashObject(ctx context.Context, a *Agent, s store.Store, info store.Info) (token.Digest, error) {
	rd, err := s.Open(ctx, info.Name, info.Version)
	if err != nil {
		return "", fmt.Errorf("opening the existing object: %w", err)
	}
	tree := chunk.NewTree(info.Size)
	err = hashMissing(ctx, a, rd, tree, info.Size)
	if err = errors.Join(err, rd.Close()); err != nil {
		return "", fmt.Errorf("reading the existing object: %w", err)
	}
	return tree.Root()
}

// hashMissing reads what tree does not hold of an object.
func hashMissing(ctx context.Context, a *Agent, rd io.ReaderAt, tree *chunk.Tree, size int64) error {
	buf := a.buffer()
	defer a.release(buf)
	for {
		i, _, ok := tree.TakeMissing(1)
		if !ok {
			return nil
		}
		off, n := chunk.Span(size, i)
		if err := readAt(rd, buf[:n], off); err != nil {
			tree.Release(i, 1)
			return err
		}
		if err := tree.Add(i, chunk.Of(buf[:n], i, size)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// readAt fills p. An object that is shorter than it was pinned has changed.
func readAt(rd io.ReaderAt, p []byte, off int64) error {
	n, err := rd.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return problem.New(problem.Changed, "The object is shorter than it was")
	case problem.Of(err) != problem.Internal:
		return err
	}
	return problem.Wrap(err, problem.Unreadable, "The object cannot be read")
}
