package dir

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const wipedSize = 2*token.ChunkSize + 17

// TestWipeOverwrites holds files open while they are wiped, and reads zeros through them afterwards: an object that may only be read, a stage that is discarded, and
// one that is dropped. What has another name is left as it is.
func TestWipeOverwrites(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	s := openReal(t, path)
	data := storetest.Content(1, wipedSize)
	wantZeros := func(what string, f *os.File) {
		t.Helper()
		got, err := io.ReadAll(f)
		if err != nil || len(got) != wipedSize || !bytes.Equal(got, make([]byte, wipedSize)) {
			t.Errorf("%s: got %d bytes and %v, want %d zeros", what, len(got), err, wipedSize)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	open := func(name string) *os.File {
		t.Helper()
		f, err := os.Open(filepath.Join(path, name))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if err := os.WriteFile(filepath.Join(path, "o"), data, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(path, "o"), filepath.Join(path, "other")); err != nil {
		t.Fatal(err)
	}
	wipe := func() error {
		in, err := s.Stat(t.Context(), "o")
		if err != nil {
			t.Fatal(err)
		}
		return s.Wipe(t.Context(), store.Wiping{Name: "o", Version: in.Version, Method: store.Overwrite, Batch: "w"})
	}
	if err := wipe(); problem.Of(err) != problem.Claimed {
		t.Errorf("with another name: got %v, want %q", err, problem.Claimed)
	}
	if got, err := os.ReadFile(filepath.Join(path, "other")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("under the other name: got %d bytes and %v, want what was there", len(got), err)
	}
	if err := os.Remove(filepath.Join(path, "other")); err != nil {
		t.Fatal(err)
	}
	f := open("o")
	if err := wipe(); err != nil {
		t.Error(err)
	}
	wantZeros("an object", f)

	s.Sanitize(store.Overwrite)
	b, err := s.Batch(t.Context(), "b")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		stageWhole(t, b, store.Item{Index: i, Name: "x", Size: wipedSize, Part: 4 * token.ChunkSize}, data)
	}
	discarded, dropped := open(".consign/b/0"), open(".consign/b/1")
	st, err := b.Stage(t.Context(), store.Item{Index: 0, Name: "x", Size: wipedSize, Part: 4 * token.ChunkSize})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Discard(t.Context()); err != nil {
		t.Error(err)
	}
	wantZeros("a discarded stage", discarded)
	if err := b.Drop(t.Context()); err != nil {
		t.Error(err)
	}
	wantZeros("a dropped stage", dropped)
}

// TestWipeStopsAnywhere ends the process or cuts the power at every operation of a Wipe: who sees the name sees the whole object, the same Wipe goes on with what is left, and
// so does a janitor that knows nothing but the batch.
func TestWipeStopsAnywhere(t *testing.T) {
	t.Parallel()
	data := storetest.Content(1, 3*crashChunk)
	begin := func() (*disk.Mem, store.Wiping) {
		m := disk.NewMem(time.Now)
		putFile(t, m.Root(), "d/o", data)
		s := Open(m.Root(), time.Now)
		if err := s.Make(t.Context(), "d"); err != nil {
			t.Fatal(err)
		}
		if err := m.Root().SyncAll(); err != nil {
			t.Fatal(err)
		}
		in, err := s.Stat(t.Context(), "d/o")
		if err != nil {
			t.Fatal(err)
		}
		m.ResetCalls()
		return m, store.Wiping{Name: "d/o", Version: in.Version, Method: store.Overwrite, Batch: "w-1"}
	}
	m, w := begin()
	if err := Open(m.Root(), time.Now).Wipe(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	calls := m.Calls()
	for n := range calls {
		for _, effect := range []disk.Effect{disk.None, disk.Done, disk.Half} {
			for seed := range uint64(4) {
				m, w := begin()
				m.SetHook(disk.StopAt(n, effect))
				first := Open(m.Root(), time.Now).Wipe(t.Context(), w)
				end(m, seed)
				s := Open(m.Root(), time.Now)
				there := wipedOrWhole(t, s, data)
				if first == nil && there {
					t.Fatalf("call %d: it was wiped, and is there", n)
				}
				if seed == 3 { // a janitor
					s.Sanitize(store.Overwrite)
					b, err := s.Batch(context.Background(), w.Batch)
					if err == nil {
						err = b.Drop(context.Background())
					}
					if err != nil {
						t.Fatal(err)
					}
				} else if code := problem.Of(s.Wipe(t.Context(), w)); code != "" && (there || code != problem.Missing) && (!there || code != problem.Changed) {
					t.Fatalf("call %d, %v: again: got %q, the object being there: %t", n, effect, code, there)
				} else if code == "" {
					there = false
				}
				m.Crash(nil)
				s = Open(m.Root(), time.Now)
				if now := wipedOrWhole(t, s, data); now != there {
					t.Fatalf("call %d: in the end the object is there: %t, want %t", n, now, there)
				}
				if ids := leftBehind(t, s); len(ids) > 0 {
					t.Fatalf("call %d, %v, seed %d: %q are left", n, effect, seed, ids)
				}
			}
		}
	}
}

// wipedOrWhole reports whether the object d/o is there. If it is, it must be whole.
func wipedOrWhole(t *testing.T, s *Store, data []byte) bool {
	t.Helper()
	in, err := s.Stat(context.Background(), "d/o")
	if problem.Of(err) == problem.Missing {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(context.Background(), "d/o", in.Version)
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(context.Background(), r, in.Size)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("got %d bytes and %v under the name, want the whole object", len(got), err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return true
}
