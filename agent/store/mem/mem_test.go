package mem

import (
	"errors"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	bucket := Everything()
	bucket.PartSize, bucket.Volatile, bucket.Rereads, bucket.Flat = 2*token.ChunkSize, true, false, true
	bare := store.Traits{Exclusive: "memory", PartSize: token.ChunkSize, MaxParts: 1 << 20, Rereads: true}
	for name, traits := range map[string]store.Traits{"everything": Everything(), "like a bucket": bucket, "keeps nothing": bare} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(*testing.T) storetest.Subject { return subject(NewLike(time.Now, traits)) })
		})
	}
}

func subject(s *Store) storetest.Subject {
	return storetest.Subject{
		Store:  s,
		Put:    func(_ testing.TB, name token.ObjectName, data []byte) { s.Put(name, data, store.Attrs{}) },
		Remove: func(_ testing.TB, name token.ObjectName) { s.Remove(name) },
		Link:   func(_ testing.TB, name token.ObjectName) { s.PutLink(name, store.Link) },
		Kill:   func(testing.TB) store.Store { s.Crash(); return s },
		PutAttrs: func(_ testing.TB, name token.ObjectName, data []byte, attrs store.Attrs) {
			s.Put(name, data, attrs)
		},
	}
}

var item = store.Item{Name: "x", Size: 1, Part: token.ChunkSize}

// stage1 writes the item, and returns its batch and stage.
func stage1(t *testing.T, s *Store) (store.Batch, store.Stage, error) {
	t.Helper()
	b, err := s.Batch(t.Context(), "b-1")
	if err != nil {
		t.Fatal(err)
	}
	st, err := b.Stage(t.Context(), item)
	if err != nil {
		t.Fatal(err)
	}
	p, err := st.Part(t.Context(), 0)
	if err == nil {
		_, err = p.Write([]byte("x"))
	}
	if err == nil {
		err = p.Close()
	}
	return b, st, err
}

var errCable = errors.New("cable")

func failing(which Op, persist bool) Hook {
	return func(op Op, _ string) (error, bool) {
		if op == which {
			return errCable, persist
		}
		return nil, false
	}
}

func TestLostReplyOfPublish(t *testing.T) {
	t.Parallel()
	for _, persist := range []bool{false, true} {
		s := New(time.Now)
		b, _, err := stage1(t, s)
		if err != nil {
			t.Fatal(err)
		}
		s.SetHook(failing(OpPublish, persist))
		pubs := []store.Publication{{Item: item}}
		if out := b.Publish(t.Context(), pubs)[0]; !errors.Is(out.Err, errCable) {
			t.Errorf("Publish: got %v, want %v", out.Err, errCable)
		}
		s.SetHook(nil)
		_, err = s.Stat(t.Context(), "x")
		if there := err == nil; there != persist {
			t.Errorf("persist %v: the object is there: %v", persist, there)
		}
		s.Crash()
		if b, err = s.Batch(t.Context(), "b-1"); err != nil {
			t.Fatal(err)
		}
		out := b.Publish(t.Context(), pubs)[0]
		if persist && out.Err != nil {
			t.Errorf("Publish after a lost reply: %v", out.Err)
		}
		if !persist && !errors.Is(out.Err, store.ErrLost) {
			t.Errorf("Publish of a stage that the crash took: got %v, want ErrLost", out.Err)
		}
	}
}

func TestFailedSyncTakesTheStage(t *testing.T) {
	t.Parallel()
	s := New(time.Now)
	b, st, err := stage1(t, s)
	if err != nil {
		t.Fatal(err)
	}
	s.SetHook(failing(OpSync, false))
	if err := st.Sync(); err == nil {
		t.Fatal("Sync: got nil, want an error")
	}
	s.SetHook(nil)
	if _, err := st.Part(t.Context(), 0); err == nil || st.Holds(0) {
		t.Error("a poisoned stage: holds or takes a part")
	}
	if err := st.Discard(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st, err := b.Stage(t.Context(), item); err != nil || st.Holds(0) {
		t.Errorf("Stage after it: %v; want a new one", err)
	}
}

func TestLostReplyOfPart(t *testing.T) {
	t.Parallel()
	for _, op := range []Op{OpPart, OpWrite, OpClose} {
		for _, persist := range []bool{false, true} {
			s := New(time.Now)
			s.SetHook(failing(op, persist))
			_, st, err := stage1(t, s)
			if !errors.Is(err, errCable) {
				t.Errorf("%s: got %v, want %v", op, err, errCable)
			}
			if got, want := st.Holds(0), op == OpClose && persist; got != want {
				t.Errorf("%s, persist %v: held %v, want %v", op, persist, got, want)
			}
		}
	}
}

// TestKillAndCrash tells the end of a process from a loss of power.
func TestKillAndCrash(t *testing.T) {
	t.Parallel()
	volatile := Everything()
	volatile.Volatile = true
	for _, tt := range []struct {
		name   string
		traits store.Traits
		sync   bool
		end    func(*Store)
		held   bool
	}{
		{"kill", Everything(), false, (*Store).Kill, true},
		{"crash", Everything(), false, (*Store).Crash, false},
		{"crash after sync", Everything(), true, (*Store).Crash, true},
		{"kill, volatile", volatile, true, (*Store).Kill, false},
		{"crash, volatile", volatile, true, (*Store).Crash, false},
	} {
		s := NewLike(time.Now, tt.traits)
		_, st, err := stage1(t, s)
		if err == nil && tt.sync {
			err = st.Sync()
		}
		if err != nil {
			t.Fatal(err)
		}
		tt.end(s)
		if st.Holds(0) {
			t.Errorf("%s: a stage of the process before holds a part", tt.name)
		}
		b, err := s.Batch(t.Context(), "b-1")
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if st, err = b.Stage(t.Context(), item); err != nil || st.Holds(0) != tt.held {
			t.Errorf("%s: %v, held %v, want %v", tt.name, err, st.Holds(0), tt.held)
		}
	}
}

func TestStoreThatIsNotExclusiveTellsItsTraits(t *testing.T) {
	t.Parallel()
	traits := Everything()
	traits.Exclusive = ""
	got, err := NewLike(time.Now, traits).Probe(t.Context())
	if problem.Of(err) != problem.NotExclusive || got != traits {
		t.Errorf("Probe: got %+v, %v, want %+v and %s", got, err, traits, problem.NotExclusive)
	}
}
