package disk_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/consign-transfer/consign/agent/disk"
)

func TestOneHolderOfALock(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "lock")
	first, err := disk.Lock(name)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := disk.Lock(name); !errors.Is(err, disk.ErrLocked) || second != nil {
		t.Errorf("a second holder: got %v, %v, want %v", second, err, disk.ErrLocked)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	third, err := disk.Lock(name)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	if err := third.Close(); err != nil {
		t.Error(err)
	}
}
