package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	chacha "math/rand/v2"
	"os"
	"path/filepath"

	"lukechampine.com/blake3"

	"github.com/consign-transfer/consign/token"
)

// A census is what is in a folder.
type census struct {
	files int64
	bytes int64 // content of the regular files
	space int64 // what a copy takes on disk, roughly
}

// count walks a folder. What is not a regular file counts for nothing.
func count(ctx context.Context, dir string) (census, error) {
	const block = 4096
	var c census
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if e.IsDir() {
			c.space += block
		}
		if !e.Type().IsRegular() {
			return nil
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		c.files++
		c.bytes += st.Size()
		c.space += (st.Size() + block - 1) / block * block
		return nil
	})
	return c, err
}

// fillRandom makes a file whose content neither compresses nor repeats.
func fillRandom(ctx context.Context, name string, n int64) (err error) {
	var seed [32]byte
	rand.Read(seed[:]) // never fails
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("making a file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	from, buf := chacha.NewChaCha8(seed), make([]byte, 1<<20)
	for n > 0 && ctx.Err() == nil {
		part := buf[:min(n, int64(len(buf)))]
		if _, err := io.ReadFull(from, part); err != nil {
			return fmt.Errorf("making random bytes: %w", err)
		}
		if _, err := f.Write(part); err != nil {
			return fmt.Errorf("filling a file: %w", err)
		}
		n -= int64(len(part))
	}
	return ctx.Err()
}

// compareTrees reads both trees and fails at the first difference: a name that is only on one side, other
// content, or a digest that is not the one that was claimed for the source's name.
func compareTrees(ctx context.Context, source, dst string, claimed map[string]token.Digest) (census, error) {
	var same census
	err := filepath.WalkDir(source, func(path string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if !e.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		a, n, err := digestOf(path)
		if err != nil {
			return err
		}
		b, _, err := digestOf(filepath.Join(dst, rel))
		if err != nil {
			return err
		}
		if a != b || a != claimed[filepath.ToSlash(rel)] {
			return fmt.Errorf("%s: the source is %s, the copy is %s, and %q was signed", rel, a, b, claimed[filepath.ToSlash(rel)])
		}
		same.files++
		same.bytes += n
		return nil
	})
	if err != nil {
		return same, fmt.Errorf("comparing: %w", err)
	}
	copied, err := count(ctx, dst)
	if err != nil {
		return same, fmt.Errorf("comparing: %w", err)
	}
	if copied.files != same.files {
		return same, fmt.Errorf("comparing: %d files in the source and %d in the copy", same.files, copied.files)
	}
	return same, nil
}

func digestOf(name string) (token.Digest, int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := blake3.New(32, nil)
	n, err := io.Copy(h, f)
	if err != nil {
		return "", 0, fmt.Errorf("reading %s: %w", name, err)
	}
	return token.Digest("blake3:" + hex.EncodeToString(h.Sum(nil))), n, nil
}

// removeAll removes a folder of ours, also where copied folders are not writable.
func removeAll(dir string) error {
	if dir == "" || os.RemoveAll(dir) == nil {
		return nil
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			return os.Chmod(path, 0o700) //nolint:gosec // a folder needs its x bits
		}
		return nil
	})
	return errors.Join(err, os.RemoveAll(dir))
}
