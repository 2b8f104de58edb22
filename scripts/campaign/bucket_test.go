package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
)

// TestBucketsAreJudgedByTheirBytes checks on a real server that a campaign sees a wrong byte, a wrong length, an object too
// few and an upload that was left behind.
func TestBucketsAreJudgedByTheirBytes(t *testing.T) {
	t.Parallel()
	const seed, size = 7, pieceSize + 12345
	ctx, dir := t.Context(), t.TempDir()
	s, err := realstores.Versitygw(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	b, err := newBucket(ctx, s, "bucket")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.fill(ctx, "tree/object", seed, size); err != nil {
		t.Fatal(err)
	}
	if err := b.same(ctx, "tree/object", seed, size); err != nil {
		t.Errorf("the same bytes: got %v, want nil", err)
	}
	for name, err := range map[string]error{
		"another seed": b.same(ctx, "tree/object", seed+1, size),
		"too short":    b.same(ctx, "tree/object", seed, size-1),
		"too long":     b.same(ctx, "tree/object", seed, size+1),
		"no object":    b.same(ctx, "tree/other", seed, size),
	} {
		if err == nil {
			t.Errorf("%s: got nil, want an error", name)
		}
	}
	if n, bytes, err := b.count(ctx, "tree/"); err != nil || n != 1 || bytes != size {
		t.Errorf("counted: got %d objects of %d bytes, %v; want 1 of %d", n, bytes, err, size)
	}
	if keys, listed, err := b.uploads(ctx); err != nil || !listed || len(keys) != 0 {
		t.Errorf("uploads: got %v, %v, %v; want none", keys, listed, err)
	}
	began, err := b.Do(ctx, http.MethodPost, b.path("left", "uploads", ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, id, _ := strings.Cut(string(began.Body), "<UploadId>")
	id, _, _ = strings.Cut(id, "<")
	if _, err := b.Do(ctx, http.MethodPut, b.path("left", "uploadId", id, "partNumber", "1"), []byte("part")); err != nil {
		t.Fatal(err)
	}
	if keys, listed, err := b.uploads(ctx); err != nil || !listed || len(keys) != 1 || keys[0] != "left" {
		t.Errorf("uploads: got %v, %v, %v; want left", keys, listed, err)
	}
	if err := b.remove(ctx, "tree/object"); err != nil {
		t.Error(err)
	}
	if n, _, err := b.count(ctx, ""); err != nil || n != 0 {
		t.Errorf("counted after removal: got %d, %v; want 0", n, err)
	}
	if n, err := uploadFiles(filepath.Join(dir, "data")); err != nil || n != 1 {
		t.Errorf("files of uploads: got %d, %v; want 1", n, err)
	}
}
