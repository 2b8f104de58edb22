package azure_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/azure"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/token/problem"
)

// azurite starts the server, with a container "con".
func azurite(t *testing.T) *realstores.Azure {
	t.Helper()
	a, err := realstores.Azurite(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := a.MakeContainer(t.Context(), "con"); err != nil {
		t.Fatal(err)
	}
	return a
}

// open opens the container "con" at endpoint, with the key in a file.
func open(t *testing.T, a *realstores.Azure, endpoint string) bucket.Backend {
	t.Helper()
	at := *a
	at.Endpoint = endpoint
	return with(t, &at, a.Key, "con")
}

// with opens a container with a key.
func with(t testing.TB, a *realstores.Azure, key, container string) bucket.Backend {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := azure.NewBackend(azure.Config{Account: a.Account, Endpoint: a.Endpoint, Container: container, Credentials: file})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func TestConformance(t *testing.T) {
	t.Parallel()
	a := azurite(t)
	backendtest.Run(t, func(t *testing.T) backendtest.Subject {
		return backendtest.Subject{
			Backend: open(t, a, a.Endpoint), NoBucket: with(t, a, a.Key, "none"),
			BadCredentials: with(t, a, base64.StdEncoding.EncodeToString([]byte("another")), "con"),
		}
	})
}

func TestUploadAndWhoIsFirst(t *testing.T) {
	t.Parallel()
	a := azurite(t)
	b := open(t, a, a.Endpoint)
	ctx := t.Context()
	const size = 3 << 10
	content := func(seed byte) []byte { return bytes.Repeat([]byte{seed}, size) }
	var ups []bucket.Upload
	for i := range 2 {
		h := bucket.Header{Origin: store.OriginOf("batch-1", i), Meta: map[string]string{"consign_transfer": fmt.Sprint(i)}}
		up, err := b.Begin(ctx, "dir/ü k", h)
		if err != nil {
			t.Fatal(err)
		}
		if parts, err := b.Parts(ctx, up); i == 0 && (err != nil || len(parts) != 0) {
			t.Fatalf("before the first part: got %v (%v)", parts, err)
		}
		for _, p := range []int64{2, 0, 1, 0} {
			got, err := b.PutPart(ctx, up, p, bytes.NewReader(content(byte(i)*16+byte(p))), size)
			if err != nil || got.Index != p || got.Size != size {
				t.Fatalf("part %d: got %+v (%v)", p, got, err)
			}
		}
		ups = append(ups, up)
	}
	var found []store.Origin
	if err := b.Uploads(ctx, "dir/", func(u bucket.Upload) bool {
		found = append(found, u.Origin)
		if u.Key != "dir/ü k" || time.Since(u.Since) > time.Minute {
			t.Errorf("got the upload %+v", u)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(found)
	if !slices.Equal(found, []store.Origin{"batch-1/0", "batch-1/1"}) {
		t.Errorf("got the uploads %v, want both", found)
	}
	for i, up := range ups {
		parts, err := b.Parts(ctx, up)
		if err != nil || i == 0 && len(parts) != 3 {
			t.Fatalf("upload %d: got %v (%v), want its 3 parts", i, parts, err)
		}
		if i == 1 { // the first was completed meanwhile, which takes all blocks away
			if len(parts) != 0 {
				t.Errorf("got %v, want that a commit takes away the blocks of others", parts)
			}
			parts = []bucket.Part{{Index: 0, Size: size}, {Index: 1, Size: size}, {Index: 2, Size: size}}
		}
		o, err := b.Complete(ctx, up, parts, bucket.Header{Origin: up.Origin, ContentType: "x/y", Meta: map[string]string{"a": "b"}})
		switch {
		case i == 0 && (err != nil || o.Size != 3*size):
			t.Fatalf("Complete: got %+v (%v)", o, err)
		case i == 1 && problem.Of(err) != problem.Taken && !errors.Is(err, bucket.ErrNoUpload):
			t.Errorf("second Complete: got %v, want taken or no upload", err)
		}
	}
	o, err := b.Head(ctx, "dir/ü k")
	if err != nil || o.ContentType != "x/y" || o.Meta["a"] != "b" {
		t.Fatalf("got %+v (%v)", o, err)
	}
	r, _, err := b.Get(ctx, "dir/ü k", o.Version, 0, 3*size)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if want := slices.Concat(content(0), content(1), content(2)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes (%v), which are not those of the first upload", len(got), err)
	}
	none, err := b.Begin(ctx, "nothing staged", bucket.Header{Origin: "batch-1/9"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Complete(ctx, none, []bucket.Part{{Index: 0, Size: 1}}, bucket.Header{}); !errors.Is(err, bucket.ErrNoUpload) {
		t.Errorf("Complete of what was not staged: got %v, want no upload", err)
	}
}

func TestListFromTheMiddle(t *testing.T) {
	t.Parallel()
	a := azurite(t)
	b := open(t, a, a.Endpoint)
	ctx := t.Context()
	keys := []string{"p/a", "p/a b", "p/a/b", "p/b", "p/ü", "p/\uff21", "p/\U0001f600", "q"}
	for _, k := range keys {
		if _, err := b.Put(ctx, k, []byte(k), bucket.Header{}); err != nil {
			t.Fatalf("%q: %v", k, err)
		}
	}
	up, err := b.Begin(ctx, "p/unfinished", bucket.Header{Origin: "b/1"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.PutPart(ctx, up, 0, bytes.NewReader([]byte("x")), 1); err != nil {
		t.Fatal(err)
	}
	var all []string
	list := func(after string) (got []string) {
		if err := b.List(ctx, "p/", after, func(o bucket.Object) bool {
			if got = append(got, o.Key); o.Size != int64(len(o.Key)) || o.Version == "" {
				t.Errorf("got %+v", o)
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	all = list("")
	if sorted := slices.Sorted(slices.Values(all)); !slices.Equal(sorted, slices.Sorted(slices.Values(keys[:7]))) {
		t.Fatalf("got %q", all)
	}
	for i, k := range all {
		if got := list(k); !slices.Equal(got, all[i+1:]) {
			t.Errorf("after %q: got %q, want %q", k, got, all[i+1:])
		}
	}
	n := 0
	if err := b.List(ctx, "p/", "", func(bucket.Object) bool { n++; return false }); err != nil || n != 1 {
		t.Errorf("got %d after a stop (%v), want 1", n, err)
	}
}
