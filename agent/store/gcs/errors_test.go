package gcs_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
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
	return open(t, s.URL, "con"), &n
}

// calls are all that make one request, by name.
func calls(t *testing.T, b bucket.Backend) map[string]func(context.Context) error {
	t.Helper()
	up, err := b.Begin(t.Context(), "k", bucket.Header{Origin: "b/1"})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]func(context.Context) error{
		"head": func(ctx context.Context) error { _, err := b.Head(ctx, "k"); return err },
		"get": func(ctx context.Context) error {
			r, _, err := b.Get(ctx, "k", "1", 0, 10)
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
			_, err := b.Complete(ctx, up, []bucket.Part{{Size: 1, Mark: "1"}}, bucket.Header{})
			return err
		},
		"delete":  func(ctx context.Context) error { return b.Delete(ctx, "k", "1") },
		"abort":   func(ctx context.Context) error { return b.Abort(ctx, up) },
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
	denied := map[string]string{"": "unreadable", "put": "unwritable", "part": "unwritable", "complete": "unwritable", "delete": "unwritable"}
	for _, tc := range []struct {
		status int
		reason string
		want   map[string]string // by call; "" is all others
	}{
		{500, "internalError", map[string]string{"": "away"}},
		{503, "backendError", map[string]string{"": "away"}},
		{408, "", map[string]string{"": "away"}},
		{429, "rateLimitExceeded", map[string]string{"": "away"}},
		{403, "userRateLimitExceeded", map[string]string{"": "away"}},
		{401, "authError", denied},
		{403, "forbidden", denied},
		{404, "notFound", map[string]string{"": "unreadable", "head": "missing", "delete": "missing", "put": "unwritable", "part": "unwritable", "complete": "no upload"}},
		{409, "conflict", map[string]string{"": "conflict"}},
		{412, "conditionNotMet", map[string]string{"put": "taken", "complete": "taken", "head": "changed", "get": "changed", "delete": "changed", "part": "unwritable", "list": "unreadable"}},
		{400, "invalid", denied},
		{413, "uploadTooLarge", denied},
		{302, "", denied},
		{308, "", denied},
	} {
		b, n := answering(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // the client may be gone
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(tc.status)
			_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{ // the client may be gone
				"code": tc.status, "message": "m", "errors": []any{map[string]any{"reason": tc.reason}},
			}})
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
			switch {
			case name == "get" && tc.status == 404: // why: the generation, the key or the bucket
				requests = 3
			case name == "delete" && tc.status == 412: // whether there is one at all
				requests = 2
			}
			n.Store(0)
			if got := kind(call(t.Context())); got != want || n.Load() != requests {
				t.Errorf("%d %s: %s: got %q with %d requests, want %q with %d", tc.status, tc.reason, name, got, n.Load(), want, requests)
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
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "100")
			w.Header().Set("Content-Range", "bytes 0-99/100")
			if r.Method == http.MethodDelete {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, `{"items":[{"na`) // cut off
			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}
			panic(http.ErrAbortHandler)
		},
	} {
		b, n := answering(t, h)
		for name, call := range calls(t, b) {
			if within := what == "dropped within the answer"; within && name == "delete" {
				continue // it has no answer but its head
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
	var answer string
	b, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the client may be gone
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer) // the client may be gone
	})
	put := calls(t, b)["part"]
	x := crcOf([]byte("x"))
	for _, tc := range []struct{ answer, want string }{
		{`{"generation":"5","size":"1","crc32c":"` + x + `"}`, "ok"},
		{`{"generation":"5","size":"1","crc32c":"AAAAAA=="}`, "away"},
		{`{"generation":"5","size":"1"}`, "away"},
		{`{"generation":"5","size":"2","crc32c":"` + x + `"}`, "away"},
		{`{"generation":`, "away"},
	} {
		answer = tc.answer
		if got := kind(put(t.Context())); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.answer, got, tc.want)
		}
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

// crcOf is a CRC-32C as the API spells it.
func crcOf(b []byte) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestPartIsStreamed: 64 MiB pass through without being kept.
func TestPartIsStreamed(t *testing.T) {
	const size = 64 << 20
	zeros := crcOf(make([]byte, size))
	var got atomic.Int64
	b, n := answering(t, func(w http.ResponseWriter, r *http.Request) {
		c, _ := io.Copy(io.Discard, r.Body)
		got.Store(c)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"generation":"5","size":"67108864","crc32c":"`+zeros+`"}`) // the client may be gone
	})
	up, err := b.Begin(t.Context(), "k", bucket.Header{Origin: "b/1"})
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := b.PutPart(t.Context(), up, 0, io.LimitReader(readerFunc(func(p []byte) (int, error) { clear(p); return len(p), nil }), size), size); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if all := after.TotalAlloc - before.TotalAlloc; all > 2<<20 || got.Load() < size || n.Load() != 1 {
		t.Errorf("got %d bytes in %d requests with %d bytes allocated, want %d in 1 with less than 2 MiB", got.Load(), n.Load(), all, size)
	}
}

func TestShortAnswerOfGet(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusOK, http.StatusPartialContent} {
		b, _ := answering(t, func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Accept-Encoding"); got != "gzip" {
				t.Errorf("got Accept-Encoding %q, want gzip, or the service would decompress", got)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "0123456789") // the client may be gone
		})
		if got := kind(calls(t, b)["get"](t.Context())); got != "away" {
			t.Errorf("status %d without a size: got %q, want away", status, got)
		}
	}
}
