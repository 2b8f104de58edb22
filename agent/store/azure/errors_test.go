package azure_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/token/problem"
)

// answering serves one handler, and counts requests.
func answering(t *testing.T, h http.HandlerFunc) (bucket.Backend, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		h(w, r)
	}))
	t.Cleanup(s.Close)
	a := &realstores.Azure{Endpoint: s.URL + "/acc", Account: "acc", Key: base64.StdEncoding.EncodeToString([]byte("secret"))}
	return open(t, a, a.Endpoint), &n
}

// calls are all that make one request, by name. Upload "B..." is named after origin b/1.
func calls(t *testing.T, b bucket.Backend) map[string]func(context.Context) error {
	t.Helper()
	up, err := b.Begin(t.Context(), "k", bucket.Header{Origin: "b/1"})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]func(context.Context) error{
		"head": func(ctx context.Context) error { _, err := b.Head(ctx, "k"); return err },
		"get": func(ctx context.Context) error {
			r, _, err := b.Get(ctx, "k", "v", 0, 10)
			if err == nil {
				_, err = io.ReadAll(r)
				r.Close()
			}
			return err
		},
		"list": func(ctx context.Context) error { return b.List(ctx, "", "", func(bucket.Object) bool { return true }) },
		"put":  func(ctx context.Context) error { _, err := b.Put(ctx, "k", []byte("x"), bucket.Header{}); return err },
		"part": func(ctx context.Context) error {
			_, err := b.PutPart(ctx, up, 0, strings.NewReader("x"), 1)
			return err
		},
		"parts": func(ctx context.Context) error { _, err := b.Parts(ctx, up); return err },
		"complete": func(ctx context.Context) error {
			_, err := b.Complete(ctx, up, []bucket.Part{{Size: 1}}, bucket.Header{})
			return err
		},
		"delete":  func(ctx context.Context) error { return b.Delete(ctx, "k", "v") },
		"uploads": func(ctx context.Context) error { return b.Uploads(ctx, "", func(bucket.Upload) bool { return true }) },
	}
}

// kind is what an error is to the Store.
func kind(err error) string {
	var away *bucket.Away
	var known *problem.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &away):
		return "away"
	case errors.Is(err, bucket.ErrConflict):
		return "conflict"
	case errors.Is(err, bucket.ErrNoUpload):
		return "no upload"
	case errors.As(err, &known):
		return string(known.Code)
	}
	return "internal"
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		status int
		code   string
		want   map[string]string // by call; "" is all others
	}{
		{500, "InternalError", map[string]string{"": "away"}},
		{503, "ServerBusy", map[string]string{"": "away"}},
		{408, "", map[string]string{"": "away"}},
		{429, "", map[string]string{"": "away"}},
		{401, "NoAuthenticationInformation", map[string]string{"": "unwritable", "head": "unreadable", "get": "unreadable", "list": "unreadable", "parts": "unreadable", "uploads": "unreadable"}},
		{403, "AuthorizationFailure", map[string]string{"": "unwritable", "head": "unreadable", "get": "unreadable", "list": "unreadable", "parts": "unreadable", "uploads": "unreadable"}},
		{403, "UnauthorizedBlobOverwrite", map[string]string{"": "taken"}},
		{404, "BlobNotFound", map[string]string{"head": "missing", "get": "missing", "delete": "missing", "put": "unwritable", "part": "unwritable", "complete": "no upload", "parts": "ok", "list": "unreadable", "uploads": "unreadable"}},
		{404, "ContainerNotFound", map[string]string{"": "unwritable", "head": "unreadable", "get": "unreadable", "list": "unreadable", "parts": "unreadable", "uploads": "unreadable"}},
		{409, "ContainerBeingDeleted", map[string]string{"": "unwritable", "head": "unreadable", "get": "unreadable", "list": "unreadable", "parts": "unreadable", "uploads": "unreadable"}},
		{409, "BlobAlreadyExists", map[string]string{"": "taken"}},
		{409, "InvalidBlobType", map[string]string{"put": "taken", "part": "taken", "complete": "taken", "delete": "unwritable", "parts": "ok"}},
		{409, "BlobImmutableDueToPolicy", map[string]string{"put": "taken", "complete": "taken", "delete": "unwritable"}},
		{409, "SnapshotsPresent", map[string]string{"delete": "unwritable"}},
		{409, "SomethingElse", map[string]string{"": "conflict"}},
		{409, "BlockCountExceedsLimit", map[string]string{"part": "disk-full"}},
		{412, "ConditionNotMet", map[string]string{"put": "taken", "complete": "taken", "head": "changed", "get": "changed", "delete": "changed", "part": "unwritable", "list": "unreadable"}},
		{412, "LeaseIdMissing", map[string]string{"put": "taken", "complete": "taken", "delete": "unwritable"}},
		{400, "InvalidBlockList", map[string]string{"complete": "no upload"}},
		{400, "InvalidBlobOrBlock", map[string]string{"part": "unwritable"}},
		{400, "Md5Mismatch", map[string]string{"put": "away", "part": "away"}},
		{400, "Crc64Mismatch", map[string]string{"put": "away", "part": "away"}},
		{400, "InvalidResourceName", map[string]string{"put": "bad-name", "part": "bad-name", "head": "bad-name"}},
		{400, "InvalidMetadata", map[string]string{"put": "unwritable"}},
		{413, "RequestBodyTooLarge", map[string]string{"put": "unwritable", "part": "unwritable"}},
		{302, "", map[string]string{"": "unwritable", "head": "unreadable", "get": "unreadable", "list": "unreadable", "parts": "unreadable", "uploads": "unreadable"}},
	} {
		b, n := answering(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the client may be gone
			if tc.code != "" {
				w.Header().Set("X-Ms-Error-Code", tc.code)
			}
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tc.status)
		})
		for name, call := range calls(t, b) {
			want, ok := tc.want[name]
			if !ok {
				want, ok = tc.want[""]
			}
			if !ok {
				continue
			}
			requests := int64(1)
			if want == "changed" && name != "head" { // whether there is one at all
				requests = 2
			}
			n.Store(0)
			if got := kind(call(t.Context())); got != want || n.Load() != requests {
				t.Errorf("%d %s: %s: got %q with %d requests, want %q with %d", tc.status, tc.code, name, got, n.Load(), want, requests)
			}
		}
	}
}

func TestPatienceIsPassedOn(t *testing.T) {
	t.Parallel()
	b, _ := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	_, err := b.Head(t.Context(), "k")
	var away *bucket.Away
	if !errors.As(err, &away) || away.After != 7*time.Second {
		t.Errorf("got %v, want to wait 7s", err)
	}
}

// TestNoAnswer: whatever breaks, it is Away, and asked once.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	for what, h := range map[string]http.HandlerFunc{
		"dropped before the request is read": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"dropped within the answer": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the client may be gone
			w.Header().Set("Content-Length", "100")
			w.Header().Set("Content-Range", "bytes 0-99/100")
			if r.Method == http.MethodPut {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, `<?xml version="1.0"?><Enum`) // cut off
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
			panic(http.ErrAbortHandler)
		},
	} {
		b, n := answering(t, h)
		for name, call := range calls(t, b) {
			if within := what == "dropped within the answer"; within && (name == "head" || name == "delete") {
				continue // these have no answer but its head
			}
			n.Store(0)
			err := call(t.Context())
			if got := kind(err); got != "away" || n.Load() != 1 {
				t.Errorf("%s: %s: got %q (%v) with %d requests, want away with 1", what, name, got, err, n.Load())
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for name, call := range calls(t, b) {
			if err := call(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %s: got %v, want the context's error", what, name, err)
			}
		}
	}
}

func TestDamagedOnTheWay(t *testing.T) {
	t.Parallel()
	crc := ""
	b, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the client may be gone
		if crc != "" {
			w.Header().Set("X-Ms-Content-Crc64", crc)
		}
		w.WriteHeader(http.StatusCreated)
	})
	put := calls(t, b)["part"]
	if err := put(t.Context()); err != nil {
		t.Errorf("no digest in the answer: got %v", err)
	}
	crc = base64.StdEncoding.EncodeToString(make([]byte, 8))
	if got := kind(put(t.Context())); got != "away" {
		t.Errorf("another digest: got %q, want away", got)
	}
}

// TestRefusedWhileSending: a part that is refused before it was sent is not read any more when PutPart has returned.
func TestRefusedWhileSending(t *testing.T) {
	t.Parallel()
	b, _ := answering(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	up, err := b.Begin(t.Context(), "k", bucket.Header{Origin: "b/1"})
	if err != nil {
		t.Fatal(err)
	}
	var over atomic.Bool
	r := readerFunc(func(p []byte) (int, error) {
		if over.Load() {
			t.Error("read after PutPart has returned")
		}
		return len(p), nil
	})
	for range 20 {
		over.Store(false)
		_, err := b.PutPart(t.Context(), up, 0, r, 64<<20)
		over.Store(true)
		if got := kind(err); got != "away" {
			t.Errorf("got %q (%v), want away", got, err)
		}
	}
	_, err = b.PutPart(t.Context(), up, 0, io.MultiReader(strings.NewReader("x"), iotest.ErrReader(io.ErrClosedPipe)), 1<<20)
	if !errors.Is(err, io.ErrClosedPipe) && kind(err) != "away" {
		t.Errorf("a reader that breaks: got %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestPartIsStreamed: 64 MiB pass through without being kept.
func TestPartIsStreamed(t *testing.T) {
	const size = 64 << 20
	var got atomic.Int64
	b, n := answering(t, func(w http.ResponseWriter, r *http.Request) {
		c, _ := io.Copy(io.Discard, r.Body)
		got.Store(c)
		w.WriteHeader(http.StatusCreated)
	})
	up, err := b.Begin(t.Context(), "k", bucket.Header{Origin: "b/1"})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := b.PutPart(t.Context(), up, 0, io.LimitReader(readerFunc(func(p []byte) (int, error) { return len(p), nil }), size), size); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if all := after.TotalAlloc - before.TotalAlloc; all > 2<<20 || got.Load() != size || n.Load() != 1 {
		t.Errorf("got %d bytes in %d requests with %d bytes allocated, want %d in 1 with less than 2 MiB", got.Load(), n.Load(), all, size)
	}
}

func TestShortAnswerOfGet(t *testing.T) {
	t.Parallel()
	b, _ := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-9/*")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(bytes.Repeat([]byte("x"), 10)) // the client may be gone
	})
	if got := kind(calls(t, b)["get"](t.Context())); got != "away" {
		t.Errorf("an answer without a size: got %q, want away", got)
	}
}
