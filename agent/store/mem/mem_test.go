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
	storetest.Run(t, func(*testing.T) storetest.Subject {
		s := New(time.Now)
		return storetest.Subject{
			Store:  s,
			Put:    func(_ testing.TB, name token.ObjectName, data []byte) { s.Put(name, data, store.Attrs{}) },
			Remove: func(_ testing.TB, name token.ObjectName) { s.Remove(name) },
			Link:   func(_ testing.TB, name token.ObjectName) { s.PutLink(name, store.Link) },
			Kill:   func(testing.TB) store.Store { s.Crash(); return s },
		}
	})
}

func TestLostReplyOfPublish(t *testing.T) {
	t.Parallel()
	for _, persist := range []bool{false, true} {
		s := New(time.Now)
		b, err := s.Batch(t.Context(), "b-1")
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.Stage(t.Context(), 0, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		broken := errors.New("cable")
		s.SetHook(func(op Op, _ string) (error, bool) {
			if op == OpPublish {
				return broken, persist
			}
			return nil, false
		})
		pubs := []store.Publication{{Item: 0, Name: "x", Size: 1}}
		if out := b.Publish(t.Context(), pubs)[0]; !errors.Is(out.Err, broken) {
			t.Errorf("Publish: got %v, want %v", out.Err, broken)
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
		if !persist && problem.Of(out.Err) != problem.Internal {
			t.Errorf("Publish of a stage that the crash took: got %v, want an error", out.Err)
		}
	}
}

func TestFailedSyncTakesTheStage(t *testing.T) {
	t.Parallel()
	s := New(time.Now)
	b, _ := s.Batch(t.Context(), "b-1")
	st, _ := b.Stage(t.Context(), 0, 1)
	s.SetHook(func(op Op, _ string) (error, bool) {
		if op == OpSync {
			return errors.New("disk"), false
		}
		return nil, false
	})
	if err := st.Sync(); err == nil {
		t.Fatal("Sync: got nil, want an error")
	}
	s.SetHook(nil)
	if _, err := st.WriteAt([]byte("x"), 0); err == nil {
		t.Error("WriteAt after a failed Sync: got nil, want an error")
	}
	if err := st.Discard(); err != nil {
		t.Fatal(err)
	}
	if st, err := b.Stage(t.Context(), 0, 1); err != nil || !st.Created() {
		t.Errorf("Stage after it: %v; want a new one", err)
	}
}
