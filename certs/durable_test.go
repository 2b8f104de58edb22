package certs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/consign-transfer/consign/certs"
)

// TestReplacedFileIsWhole lets several write and one read.
func TestReplacedFileIsWhole(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				if err := certs.ReplaceFile(file, []byte(strings.Repeat(fmt.Sprint(i), 10_000)), 0o640); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for reads := 0; ; reads++ {
		data, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		if err == nil && (len(data) != 10_000 || strings.Count(string(data), string(data[:1])) != 10_000) {
			t.Fatalf("got a torn file of %d bytes", len(data))
		}
		select {
		case <-done:
		default:
			continue
		}
		break
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("got %v, %v, want mode 0640", st.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("got %d files, want one", len(left))
	}
	if err := certs.ReplaceFile(filepath.Join(file, "below"), nil, 0o600); err == nil {
		t.Error("got no error for a file below a file")
	}
}

// TestOneCreatesAFile lets several create one file: one does, whole, and nothing of the others is left.
func TestOneCreatesAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "f")
	var wg sync.WaitGroup
	var won atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			switch err := certs.CreateFile(file, []byte(strings.Repeat(fmt.Sprint(i), 1000)), 0o600); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile(file)
	if err != nil || won.Load() != 1 || len(data) != 1000 || strings.Count(string(data), string(data[:1])) != 1000 {
		t.Errorf("got %d winners and %d bytes (%v), want one and 1000 alike", won.Load(), len(data), err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v, want mode 0600", st.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 1 {
		t.Errorf("got %d files, want one", len(left))
	}
}
