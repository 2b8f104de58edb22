package gcs_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/token/problem"
)

// stageParts writes n parts of a few bytes each and returns what they are together.
func stageParts(t *testing.T, b bucket.Backend, key string, index, n int) (bucket.Upload, []bucket.Part, []byte) {
	t.Helper()
	up, err := b.Begin(t.Context(), key, bucket.Header{Origin: store.OriginOf("batch", index)})
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	parts, errs := make([]bucket.Part, n), make([]error, n)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 16)
	for i := range n {
		data := fmt.Appendf(nil, "part %d;", i)
		all = append(all, data...)
		gate <- struct{}{}
		wg.Go(func() {
			parts[i], errs[i] = b.PutPart(t.Context(), up, int64(i), bytes.NewReader(data), int64(len(data)))
			<-gate
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return up, parts, all
}

// TestComposeOfManyParts: the requests that it takes, the bytes in their order, and that nothing stays.
func TestComposeOfManyParts(t *testing.T) {
	t.Parallel()
	g := emulator(t)
	f := behind(t, g)
	b := open(t, f.URL(), "con")
	for i, tc := range []struct{ parts, composes, inserts int }{
		{0, 0, 1}, {1, 1, 0}, {32, 1, 0}, {33, 2, 0}, {70, 4, 0}, {1024, 33, 0}, {1025, 34, 0},
	} {
		if testing.Short() && tc.parts > 100 {
			continue // three rounds of composing: a thousand requests
		}
		key := fmt.Sprintf("p/of %d", tc.parts)
		up, parts, want := stageParts(t, b, key, i, tc.parts)
		f.Plan(nil)
		h := bucket.Header{ContentType: "text/plain", Meta: map[string]string{"a": "b"}}
		made, err := b.Complete(t.Context(), up, parts, h)
		if err != nil {
			t.Fatalf("%d parts: %v", tc.parts, err)
		}
		if got := len(f.Requests()); f.Count("Compose") != tc.composes || f.Count("Insert") != tc.inserts || got != tc.composes+tc.inserts {
			t.Errorf("%d parts: got %d requests, %d composes, want %d", tc.parts, got, f.Count("Compose"), tc.composes)
		}
		o, err := b.Head(t.Context(), key)
		if err != nil || o.Version != made.Version || o.ContentType != "text/plain" || o.Meta["a"] != "b" || len(o.Meta) != 1 || o.Native != made.Native {
			t.Errorf("%d parts: got %+v (%v), and Complete told %+v", tc.parts, o, err, made)
		}
		r, _, err := b.Get(t.Context(), key, o.Version, 0, int64(len(want))+1)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if r.Close(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d parts: got %d bytes (%v), or in another order", tc.parts, len(got), err)
		}
		if err := b.Abort(t.Context(), up); err != nil {
			t.Errorf("%d parts: Abort: %v", tc.parts, err)
		}
	}
	if err := b.List(t.Context(), "p/.consign/", "", func(o bucket.Object) bool {
		t.Errorf("left over: %s", o.Key)
		return true
	}); err != nil {
		t.Fatal(err)
	}
}

// TestReplacedPartIsNotComposed: a part that was replaced after it was listed never becomes a part of the object.
func TestReplacedPartIsNotComposed(t *testing.T) {
	t.Parallel()
	g := emulator(t)
	b := open(t, g.Endpoint, "con")
	for i, n := range []int{3, 40} { // in the last compose, and in one before it
		key := fmt.Sprint("p/x", n)
		up, parts, _ := stageParts(t, b, key, i, n)
		if _, err := b.PutPart(t.Context(), up, 1, strings.NewReader("forged;"), 7); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Complete(t.Context(), up, parts, bucket.Header{}); !errors.Is(err, bucket.ErrNoUpload) {
			t.Errorf("%d parts: got %v, want no upload", n, err)
		}
		if _, err := b.Head(t.Context(), key); problem.Of(err) != problem.Missing {
			t.Errorf("%d parts: got %v, want no object", n, err)
		}
	}
}

// TestOneRequestACall counts what leaves the backend where nothing fails.
func TestOneRequestACall(t *testing.T) {
	t.Parallel()
	f := behind(t, emulator(t))
	b := open(t, f.URL(), "con")
	var made bucket.Object
	var up bucket.Upload
	var part bucket.Part
	for _, tc := range []struct {
		want string
		call func() error
	}{
		{"Insert", func() (err error) { made, err = b.Put(t.Context(), "k", []byte("x"), bucket.Header{}); return err }},
		{"Get", func() error { _, err := b.Head(t.Context(), "k"); return err }},
		{"GetMedia", func() error {
			r, _, err := b.Get(t.Context(), "k", made.Version, 0, 1)
			if err == nil {
				r.Close()
			}
			return err
		}},
		{"List", func() error { return b.List(t.Context(), "", "", func(bucket.Object) bool { return true }) }},
		{"", func() (err error) {
			up, err = b.Begin(t.Context(), "l", bucket.Header{Origin: "b/1"})
			return err
		}},
		{"Insert", func() (err error) {
			part, err = b.PutPart(t.Context(), up, 0, strings.NewReader("x"), 1)
			return err
		}},
		{"List", func() error { _, err := b.Parts(t.Context(), up); return err }},
		{"List", func() error { return b.Uploads(t.Context(), "", func(bucket.Upload) bool { return true }) }},
		{"Compose", func() error { _, err := b.Complete(t.Context(), up, []bucket.Part{part}, bucket.Header{}); return err }},
		{"List Delete", func() error { return b.Abort(t.Context(), up) }},
		{"List", func() error { return b.Abort(t.Context(), up) }},
		{"Delete", func() error { return b.Delete(t.Context(), "k", made.Version) }},
	} {
		f.Plan(nil)
		err := tc.call()
		var got []string
		for _, c := range f.Requests() {
			got = append(got, c.Kind)
		}
		if all := strings.Join(got, " "); err != nil || all != tc.want {
			t.Errorf("got %q (%v), want %q", all, err, tc.want)
		}
	}
}

// TestAbortOfVersions: a bucket that keeps versions keeps none of our parts.
func TestAbortOfVersions(t *testing.T) {
	t.Parallel()
	g := emulator(t)
	if _, err := g.Do(t.Context(), http.MethodPost, "/storage/v1/b?project=consign", []byte(`{"name":"versions","versioning":{"enabled":true}}`),
		"Content-Type", "application/json"); err != nil {
		t.Fatal(err)
	}
	b := open(t, g.Endpoint, "versions")
	up, _, _ := stageParts(t, b, "p/k", 0, 3)
	if _, err := b.PutPart(t.Context(), up, 1, strings.NewReader("again"), 5); err != nil {
		t.Fatal(err)
	}
	count := func() int {
		t.Helper()
		a, err := g.Do(t.Context(), http.MethodGet, "/storage/v1/b/versions/o?versions=true", nil)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(a.Body), `"timeCreated"`)
	}
	if n := count(); n != 4 {
		t.Fatalf("got %d generations of 3 parts, want 4", n)
	}
	if err := b.Abort(t.Context(), up); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 0 {
		t.Errorf("got %d generations after Abort, want none", n)
	}
}

// TestStrangersAreNotOurs: what somebody else keeps in the hidden folder is no upload, and Abort of a stage does not touch it.
func TestStrangersAreNotOurs(t *testing.T) {
	t.Parallel()
	g := emulator(t)
	b := open(t, g.Endpoint, "con")
	up, _, _ := stageParts(t, b, "p/k", 0, 1)
	stolen := strings.TrimPrefix(up.ID, "p/.consign/batch/0/")
	strangers := []string{
		"p/.consign/x", "p/.consign/batch/0/x", "p/.consign/batch/0/1234/p-00000000", "p/.consign/batch/00/" + stolen + "p-00000000",
		"p/.consign/ba_tch/0/" + stolen + "p-00000000", "p/.consign/batch/0/" + stolen + "deep/p-00000000",
		".consign/batch/0/" + stolen + "p-00000000",
	}
	for _, key := range strangers {
		write(t, g, key, []byte("x"), "text/plain", map[string]string{"consign-key": "p/k"})
	}
	write(t, g, "p/.consign/batch/7/"+stolen+"p-00000000", []byte("x"), "text/plain", nil) // names no key
	var found []bucket.Upload
	if err := b.Uploads(t.Context(), "p/", func(u bucket.Upload) bool { found = append(found, u); return true }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0].ID != up.ID || found[0].Origin != "batch/0" || found[0].Key != "p/k" || found[0].Since.IsZero() {
		t.Errorf("got %+v, want %+v alone", found, up)
	}
	if err := b.Uploads(t.Context(), "p/other", func(u bucket.Upload) bool { t.Errorf("got %+v", u); return true }); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"", "p/", "p/k", "q/.consign/batch/0/x/", "p/.consign", "p/.consign/", "p/.consign/batch/", "p/.consign/batch/0/"} {
		if err := b.Abort(t.Context(), bucket.Upload{Key: "p/k", ID: id, Origin: "batch/0"}); err == nil {
			t.Errorf("Abort of %q: got nil, want an error", id)
		}
	}
	if err := b.Abort(t.Context(), found[0]); err != nil {
		t.Error(err)
	}
	for _, key := range strangers[:5] {
		if _, err := b.Head(t.Context(), key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}
