package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/token/problem"
)

// TestRestoreFromABackup is the drill of docs/OPERATIONS.md: a broker is put back to a copy of its state
// that is older than some transfers. What was known stays verifiable, what was not is not found, its objects
// stay, and new orders are carried out.
func TestRestoreFromABackup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("one", []byte("one\n"))
	start(w)
	state, backup := filepath.Join(w.net.Dir, "brokers", "hub", "state"), filepath.Join(t.TempDir(), "backup")
	known := w.order("north:/src/one", "south:/dst/known")
	w.consign(0, "transfer", "wait", string(known.ID))
	w.must(w.broker.Stop())
	w.must(os.CopyFS(backup, os.DirFS(state)))
	w.must(w.broker.Start(t.Context()))
	later := w.order("north:/src/one", "south:/dst/later")
	w.consign(0, "transfer", "wait", string(later.ID))

	w.must(w.broker.Stop())
	w.must(os.Rename(state, state+".lost"))
	w.must(os.CopyFS(state, os.DirFS(backup)))
	w.must(os.Chmod(filepath.Join(state, "capability.key"), 0o600))
	w.must(w.broker.Start(t.Context()))

	w.verified(known.ID)
	w.consign(problem.ExitDenied, "transfer", "show", string(later.ID))
	if _, err := os.Stat(filepath.Join(w.dst, "later")); err != nil {
		t.Errorf("what was published after the backup: %v", err)
	}
	w.consign(0, "cp", "--wait", "north:/src/one", "south:/dst/anew")
	w.consign(problem.ExitExists, "cp", "--wait", "north:/src/one", "south:/dst/later")
	w.consign(0, "cp", "--wait", "--if-exists", "verify", "north:/src/one", "south:/dst/later")
}

// TestCapabilityKeyIsReplaced is the drill of docs/OPERATIONS.md for a key that was lost: without it
// the broker does not start; with a new one agents learn it and work goes on.
func TestCapabilityKeyIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("one", []byte("one\n"))
	start(w)
	w.consign(0, "cp", "--wait", "north:/src/one", "south:/dst/before")
	w.must(w.broker.Stop())
	state := filepath.Join(w.net.Dir, "brokers", "hub", "state")
	w.must(os.Remove(filepath.Join(state, "capability.key")))
	if err := w.broker.Start(t.Context()); err == nil {
		t.Fatal("the broker started without its key")
	}
	fresh := t.TempDir()
	w.must(broker.Init(t.Context(), fresh))
	w.must(os.Rename(filepath.Join(fresh, "capability.key"), filepath.Join(state, "capability.key")))
	w.must(w.broker.Start(t.Context()))
	w.consign(0, "cp", "--wait", "north:/src/one", "south:/dst/after")
}

// TestStolenKeyDrill is the drill of docs/OPERATIONS.md for a key that leaked: it is replaced beside a running broker, and work goes on.
func TestStolenKeyDrill(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("one", []byte("one\n"))
	start(w)
	w.consign(0, "cp", "--wait", "north:/src/one", "south:/dst/before")
	hub := filepath.Join(w.net.Dir, "brokers", "hub")
	config, key := filepath.Join(hub, "broker.yaml"), filepath.Join(hub, "state", "capability.key")
	old, err := os.ReadFile(key)
	w.must(err)
	w.consign(0, "broker", "rotate-key", "--config", config)
	w.consign(problem.ExitFailed, "broker", "rotate-key", "--config", config) // one is waiting already
	w.consign(0, "broker", "rotate-key", "--revoke-old", "--config", config)
	w.await("the new key is in its place", func() bool {
		now, err := os.ReadFile(key)
		return err == nil && !bytes.Equal(now, old)
	})
	w.consign(0, "cp", "--wait", "north:/src/one", "south:/dst/after")
}
