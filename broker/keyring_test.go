package broker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// published is the key set as an agent reads it.
func (w *world) published() token.KeySet {
	w.t.Helper()
	keys, err := token.ParseKeySet(w.b.Keys(), w.b.self)
	if err != nil {
		w.t.Fatalf("the published keys: %v", err)
	}
	return keys
}

// wantKeys checks how many keys are published and whether the one that signs is among them.
func (w *world) wantKeys(when string, n int) {
	w.t.Helper()
	if got := strings.Count(string(w.b.Keys()), `"kid"`); got != n {
		w.t.Errorf("%s: got %d keys, want %d", when, got, n)
	}
	if !w.published().Has(w.b.signer().KeyID()) {
		w.t.Errorf("%s: the key that signs is not published", when)
	}
}

func (w *world) nextKey() {
	w.t.Helper()
	if err := CreateNextKey(w.conf.State); err != nil {
		w.t.Fatal(err)
	}
}

func TestKeyIsRotated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	_, _, receive := w.under(src, dst)
	first := w.b.signer().KeyID()
	w.wantKeys("at first", 1)
	w.nextKey()
	if err := CreateNextKey(w.conf.State); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second next key: got %v, want that it exists", err)
	}
	w.step()
	w.wantKeys("once it is seen", 2)
	w.now = w.now.Add(w.b.conf.KeyAhead - time.Second)
	w.step()
	if got := w.b.signer().KeyID(); got != first {
		t.Fatalf("the new key signs before everybody can know it")
	}
	w.now = w.now.Add(time.Second)
	w.step()
	second := w.b.signer().KeyID()
	if second == first {
		t.Fatal("the new key does not sign")
	}
	w.wantKeys("once it signs", 2)
	if _, err := token.VerifyCapability(receive.Capability, w.published()); err != nil {
		t.Errorf("what the first key has signed: %v", err)
	}
	src.leave()
	dst.leave()
	w.crash()
	w.wantKeys("after a restart", 2)
	if got := w.b.signer().KeyID(); got != second {
		t.Errorf("got another key after the restart")
	}
	w.now = w.now.Add(w.b.conf.CapabilityLife + token.ClockSkew - time.Second)
	w.step()
	w.wantKeys("while a capability of it may live", 2)
	w.now = w.now.Add(time.Second)
	w.step()
	w.wantKeys("at the end", 1)
	var changes []string
	for _, l := range w.leavesOf(db.KeyLeaf) {
		_, rest, _ := strings.Cut(l, `"change":"`)
		change, _, _ := strings.Cut(rest, `"`)
		changes = append(changes, change)
	}
	if got := strings.Join(changes, " "); got != "active published active withdrawn" {
		t.Errorf("got leaves %s", got)
	}
	if _, err := os.Stat(filepath.Join(w.conf.State, nextFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the next key is still there: %v", err)
	}
}

// TestNeverThreeKeys: a rotation that is asked for during another waits for its end.
func TestNeverThreeKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	seen := map[string]bool{}
	for range 50 {
		if err := CreateNextKey(w.conf.State); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
		w.step()
		if n := strings.Count(string(w.b.Keys()), `"kid"`); n > 2 {
			t.Fatalf("got %d keys, want two at most", n)
		}
		seen[w.b.signer().KeyID()] = true
		w.now = w.now.Add(4 * time.Minute)
	}
	if len(seen) < 4 {
		t.Errorf("got %d keys that signed in 200 minutes of rotations, want each to have its turn", len(seen))
	}
}

// TestRotationIsKilledAnywhere fails each transaction of a rotation once, before its commit and after it, and starts anew: the files
// follow the database. At no time does a key sign that is not published.
func TestRotationIsKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, how := range []func(string) error{CreateNextKey, ReplaceKey} {
		for _, when := range []string{"before commit", "after commit"} {
			step := 1
			if testing.Short() {
				step = 3
			}
			for n := 1; ; n += step {
				w := newWorld(t)
				first, count := w.b.signer().KeyID(), 0
				if err := how(w.conf.State); err != nil {
					t.Fatal(err)
				}
				arm := func() {
					w.b.fault = func(at string) error {
						if at != when {
							return nil
						}
						if count++; count == n {
							return errInjected
						}
						return nil
					}
				}
				arm()
				for range 12 {
					if err := w.b.step(t.Context(), w.now); errors.Is(err, errInjected) {
						w.crash()
						arm()
					} else if err != nil {
						t.Fatalf("%s, transaction %d: %v", when, n, err)
					}
					w.wantKeys(when, strings.Count(string(w.b.Keys()), `"kid"`))
					w.now = w.now.Add(5 * time.Minute)
				}
				w.wantKeys("at the end", 1)
				key, err := openKey(w.conf.State, keyFile)
				if err != nil || keyID(key) != w.b.signer().KeyID() || keyID(key) == first {
					t.Errorf("%s, transaction %d: the file is not that of the new key (%v)", when, n, err)
				}
				for _, name := range []string{nextFile, nowFile} {
					if _, err := os.Stat(filepath.Join(w.conf.State, name)); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("%s, transaction %d: %s is left (%v)", when, n, name, err)
					}
				}
				if count < n {
					if n < 2 {
						t.Errorf("%s: no transaction was failed", when)
					}
					break
				}
			}
		}
	}
}

// TestStolenKeyIsReplacedAtOnce: what the old key has signed counts nowhere, batches go on with new capabilities, and a list that only the new
// key has signed makes agents ask for keys.
func TestStolenKeyIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	for _, waiting := range []bool{false, true} {
		w := newWorld(t)
		src, dst := w.pair()
		_, serve, receive := w.under(src, dst)
		if waiting { // a next key that is published already is the one
			w.nextKey()
			w.step()
		}
		if err := ReplaceKey(w.conf.State); err != nil {
			t.Fatal(err)
		}
		w.step()
		w.wantKeys("at once", 1)
		for _, tok := range []string{serve.Capability, receive.Capability} {
			if _, err := token.VerifyCapability(tok, w.published()); problem.Of(err) != problem.UnknownKey {
				t.Errorf("what the old key has signed: got %v, want %s", err, problem.UnknownKey)
			}
		}
		dst.newest(func(l token.Revocation) bool { return len(l.Revoked) == 0 })
		again, other := dst.task(api.ReceiveTask), src.task(api.ServeTask)
		for _, tok := range []string{again.Capability, again.Present, other.Capability} {
			if v, err := token.VerifyCapability(tok, w.published()); err != nil || v.Claims.Bat != receive.Bat {
				t.Errorf("got %+v (%v), want a capability of the same batch by the new key", v.Claims, err)
			}
		}
	}
}

func TestNextKeysThatAreNotUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, next := w.b.signer().KeyID(), filepath.Join(w.conf.State, nextFile)
	w.nextKey()
	w.step()
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	w.step()
	w.wantKeys("once it is taken away", 1)
	if err := os.WriteFile(next, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.b.step(t.Context(), w.now); problem.Of(err) != problem.BadConfig {
		t.Errorf("a file that is no key: got %v, want %s", err, problem.BadConfig)
	}
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	w.nextKey()
	if err := os.Chmod(next, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := w.b.step(t.Context(), w.now); problem.Of(err) != problem.BadConfig {
		t.Errorf("a key that others may read: got %v, want %s", err, problem.BadConfig)
	}
	if got := w.b.signer().KeyID(); got != first {
		t.Error("another key signs")
	}
	if err := os.Remove(next); err != nil {
		t.Fatal(err)
	}
	if err := CreateNextKey(t.TempDir()); problem.Of(err) != problem.BadConfig {
		t.Errorf("without a broker: got %v, want %s", err, problem.BadConfig)
	}
}
