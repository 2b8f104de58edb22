package realstores_test

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
)

// stopping is what every running server can.
type stopping interface {
	Stop() error
	Kill() error
	PID() int
	Done() <-chan struct{}
}

// running fails the test if a server did not start, and ends it with the test.
func running[S stopping](t *testing.T, s S, err error) S {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func s3Server(t *testing.T, start func(context.Context, string) (*realstores.S3, error)) *realstores.S3 {
	t.Helper()
	s, err := start(t.Context(), t.TempDir())
	return running(t, s, err)
}

func gcsServer(t *testing.T, start func(context.Context, string) (*realstores.GCS, error)) *realstores.GCS {
	t.Helper()
	s, err := start(t.Context(), t.TempDir())
	return running(t, s, err)
}

// granted fails the test if a request was not granted.
func granted(t *testing.T, a *realstores.Answer, err error) *realstores.Answer {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// status returns the status that a request was answered with.
func status(t *testing.T, a *realstores.Answer, err error) int {
	t.Helper()
	if r := (*realstores.Refusal)(nil); errors.As(err, &r) {
		return r.Status
	}
	return granted(t, a, err).Status
}

// servers are all of them, with how each makes a bucket and an object and reads it again.
var servers = []struct {
	name string
	try  func(t *testing.T, name string) (s stopping, got string)
}{
	{"versitygw", func(t *testing.T, name string) (stopping, string) { return tryS3(t, realstores.Versitygw, name) }},
	{"rclone", func(t *testing.T, name string) (stopping, string) { return tryS3(t, realstores.RcloneS3, name) }},
	{"gofakes3", func(t *testing.T, name string) (stopping, string) { return tryS3(t, realstores.GoFakeS3, name) }},
	{"azurite", tryAzure},
	{"fake-gcs-server", func(t *testing.T, name string) (stopping, string) { return tryGCS(t, realstores.FakeGCS, name) }},
	{"gcs emulator", func(t *testing.T, name string) (stopping, string) { return tryGCS(t, realstores.GCSEmulator, name) }},
}

func tryS3(t *testing.T, start func(context.Context, string) (*realstores.S3, error), name string) (stopping, string) {
	s := s3Server(t, start)
	if err := s.MakeBucket(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	a, err := s.Do(t.Context(), http.MethodPut, "/one/"+name, []byte("content"))
	granted(t, a, err)
	a, err = s.Do(t.Context(), http.MethodGet, "/one/"+name, nil, "Range", "bytes=1-3")
	return s, string(granted(t, a, err).Body)
}

func tryAzure(t *testing.T, name string) (stopping, string) {
	a, err := realstores.Azurite(t.Context(), t.TempDir())
	running(t, a, err)
	if err := a.MakeContainer(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	answer, err := a.Do(t.Context(), http.MethodPut, "/one/"+name, []byte("content"), "X-Ms-Blob-Type", "BlockBlob", "If-None-Match", "*")
	granted(t, answer, err)
	answer, err = a.Do(t.Context(), http.MethodPut, "/one/"+name, []byte("other"), "X-Ms-Blob-Type", "BlockBlob", "If-None-Match", "*")
	if got := status(t, answer, err); got != http.StatusConflict {
		t.Errorf("a second exclusive put: got %d, want 409", got)
	}
	answer, err = a.Do(t.Context(), http.MethodGet, "/one/"+name, nil, "X-Ms-Range", "bytes=1-3")
	return a, string(granted(t, answer, err).Body)
}

func tryGCS(t *testing.T, start func(context.Context, string) (*realstores.GCS, error), name string) (stopping, string) {
	g := gcsServer(t, start)
	if err := g.MakeBucket(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	gcsPut(t, g, name, "content")
	a, err := g.Do(t.Context(), http.MethodGet, "/storage/v1/b/one/o/"+escape(name)+"?alt=media", nil, "Range", "bytes=1-3")
	return g, string(granted(t, a, err).Body)
}

// TestEveryServer checks that each starts and answers, and that Stop and Kill leave no process.
func TestEveryServer(t *testing.T) {
	t.Parallel()
	for _, tt := range servers {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, got := tt.try(t, "dir/an object, with+signs")
			if got != "ont" {
				t.Errorf("bytes 1-3 of the object: got %q, want %q", got, "ont")
			}
			pid := s.PID()
			if err := syscall.Kill(pid, 0); err != nil {
				t.Fatalf("looking at process %d: %v", pid, err)
			}
			for range 2 {
				if err := s.Stop(); err != nil {
					t.Error(err)
				}
			}
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("process %d after Stop: got %v, want none", pid, err)
			}
			if err := s.Kill(); err != nil {
				t.Errorf("Kill of one that has ended: %v", err)
			}
		})
	}
}

// TestWrongSecret checks that the S3 servers that look at signatures refuse a wrong one, so
// that a proxy in between which keeps them is proven to.
func TestWrongSecret(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(context.Context, string) (*realstores.S3, error){
		"versitygw": realstores.Versitygw, "rclone": realstores.RcloneS3,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := s3Server(t, start)
			thief := *s
			thief.SecretKey += "x"
			a, err := thief.Do(t.Context(), http.MethodGet, "/", nil)
			if got := status(t, a, err); got != http.StatusForbidden {
				t.Errorf("with a wrong secret: got %d, want 403", got)
			}
		})
	}
}

// TestStartTellsWhyAServerEnded checks that the end of the log comes with the error.
func TestStartTellsWhyAServerEnded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "data"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := realstores.Versitygw(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "data") {
		t.Errorf("a file where the folder should be: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := realstores.GoFakeS3(ctx, t.TempDir()); err == nil {
		t.Error("a start that was called off: got no error")
	}
}

// TestFind checks what is said of a program that is not installed.
func TestFind(t *testing.T) {
	for _, r := range realstores.Recipes() {
		if _, err := realstores.Find(r.Name); err != nil {
			t.Error(err)
		}
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir()) // what os.UserCacheDir looks at elsewhere
	_, err := realstores.Find("rclone")
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "make servers") {
		t.Errorf("one that is not there: got %v", err)
	}
	if _, err := realstores.Find("nobody"); err == nil {
		t.Error("one that has no recipe: got no error")
	}
}
