package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
)

var recipe = realstores.Recipe{Name: "echo", Version: "v1", Tool: realstores.Go, Package: "example.test/echo", Program: "echo"}

// output is a buffer for several writers.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// cacheOf makes an empty cache directory the user's, and returns the folder of the recipe.
func cacheOf(t *testing.T) string {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir()) // what os.UserCacheDir looks at elsewhere
	dir, err := recipe.Dir()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func writes(_ context.Context, r realstores.Recipe, dir string) error {
	return os.WriteFile(filepath.Join(dir, r.Program), nil, 0o600)
}

// TestRunsAtOnceBuildOnce checks that of runs at the same time one builds, and the others find what it built.
func TestRunsAtOnceBuildOnce(t *testing.T) {
	cacheOf(t)
	var built atomic.Int32
	var out output
	in := installer{out: &out, build: func(ctx context.Context, r realstores.Recipe, dir string) error {
		built.Add(1)
		return writes(ctx, r, dir)
	}}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := in.all(t.Context(), []realstores.Recipe{recipe}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := built.Load(); got != 1 {
		t.Errorf("builds: got %d, want 1:\n%s", got, out.b.String())
	}
	if _, err := recipe.Installed(); err != nil {
		t.Error(err)
	}
}

// TestFailureLeavesNothing checks that neither an error nor a killed run leaves what looks installed, and that
// the others are tried nevertheless.
func TestFailureLeavesNothing(t *testing.T) {
	dir := cacheOf(t)
	killed := hidden(dir, "new-1")
	if err := os.MkdirAll(killed, 0o700); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken")
	var out output
	in := installer{out: &out, build: func(ctx context.Context, r realstores.Recipe, dir string) error {
		switch r.Name {
		case recipe.Name:
			return errors.Join(writes(ctx, r, dir), broken)
		case "nothing":
			return nil
		}
		return writes(ctx, r, dir)
	}}
	nothing, third := recipe, recipe
	nothing.Name, third.Name = "nothing", "third"
	err := in.all(t.Context(), []realstores.Recipe{recipe, nothing, third})
	if !errors.Is(err, broken) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want both errors", err)
	}
	if _, err := third.Installed(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Dir(dir))
	left = slices.DeleteFunc(left, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".lock") })
	if err != nil || len(left) != 1 || left[0].Name() != "third-v1" {
		t.Errorf("left: %v (%v), want the third alone", left, err)
	}
}

// TestWaitingEnds checks that a run that waits for another can be interrupted.
func TestWaitingEnds(t *testing.T) {
	cacheOf(t)
	ctx, cancel := context.WithCancel(t.Context())
	var out output
	quick := installer{out: &out, build: writes}
	slow := installer{out: &out, build: func(context.Context, realstores.Recipe, string) error {
		cancel()
		if err := quick.one(ctx, recipe); !errors.Is(err, context.Canceled) {
			t.Errorf("a run that waits and is interrupted: got %v", err)
		}
		return errors.New("not built")
	}}
	if err := slow.one(t.Context(), recipe); err == nil {
		t.Error("got no error")
	}
}

// TestFailedToolIsExplained checks that the error of a tool says what to do.
func TestFailedToolIsExplained(t *testing.T) {
	err := run(t.Context(), t.TempDir(), "go", "no-such-command")
	if err == nil || !strings.Contains(err.Error(), "unknown command") || !strings.Contains(err.Error(), "make servers") {
		t.Errorf("a tool that fails: got %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	err = run(t.Context(), t.TempDir(), "npm", "install")
	if err == nil || !strings.Contains(err.Error(), "apt-get install nodejs npm") {
		t.Errorf("a tool that is missing: got %v", err)
	}
}
