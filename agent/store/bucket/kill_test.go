package bucket_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
)

var errKilled = errors.New("the process was killed")

// mortal notes end with the process, and what they hold does not.
type mortal struct {
	*notebook
	dead *atomic.Bool
}

func (m mortal) Put(key, value string) error {
	if m.dead.Load() {
		return errKilled
	}
	return m.notebook.Put(key, value)
}

func (m mortal) Remove(key string) error {
	if m.dead.Load() {
		return errKilled
	}
	return m.notebook.Remove(key)
}

// TestKillAtEachCall kills the process at each call of a life, before and after the call's effect, and lets a successor with its notes and journal finish.
func TestKillAtEachCall(t *testing.T) {
	t.Parallel()
	for name, opt := range lives() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := calls(t, opt)
			resumed := 0
			for at := range n {
				if testing.Short() && at%3 != 0 {
					continue
				}
				for _, done := range []bool{false, true} {
					resumed += killAt(t, opt, at, done)
				}
			}
			if resumed == 0 {
				t.Error("no part was ever taken up again; the test has lost its teeth")
			}
		})
	}
}

// killAt returns how many parts of the first life the second one did not write again.
func killAt(t *testing.T, opt backendtest.Options, at int, done bool) int {
	svc, notes, dead := backendtest.New(opt), newNotebook(), &atomic.Bool{}
	var hit string
	svc.Fail(func(c backendtest.Call) backendtest.Fault {
		switch {
		case c.N == at:
			hit = c.Op
			dead.Store(true)
			return backendtest.Fault{Err: errKilled, Done: done}
		case c.N > at:
			return backendtest.Fault{Err: errKilled}
		}
		return backendtest.Fault{}
	})
	first := newAgent(t, open(svc, mortal{notes, dead}, ""))
	first.tries = 1
	_ = first.live(t.Context()) // killed somewhere
	svc.Fail(nil)
	what := fmt.Sprintf("killed at call %d, %s, done %v", at, hit, done)

	s := open(svc, notes, "")
	before := len(svc.Calls())
	second := newAgent(t, s)
	second.ended = first.ended
	closed := 0
	for id := range first.closed {
		if w := id[0]; w == 0 {
			second.closed[id] = true
			closed++
		}
	}
	if err := second.live(t.Context()); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if err := errors.Join(append(second.failed, second.given)...); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	for _, c := range svc.Calls()[before:] {
		if id := [2]int64{0, c.Part}; c.Op == "PutPart" && c.Key == "d/item-0" && first.closed[id] {
			t.Errorf("%s: part %d of item 0 was written again", what, c.Part)
		}
	}
	second.audit(svc)
	auditNothingLeft(t, what, svc, s, notes, hit == "Begin" && done)
	return closed
}

// TestOrphanIsTold is the documented window: killed between Begin and its note.
func TestOrphanIsTold(t *testing.T) {
	t.Parallel()
	svc, notes, dead := backendtest.New(backendtest.Options{}), newNotebook(), &atomic.Bool{}
	svc.Fail(func(c backendtest.Call) backendtest.Fault {
		if c.Op != "Begin" {
			return backendtest.Fault{}
		}
		dead.Store(true)
		return backendtest.Fault{Err: errKilled, Done: true}
	})
	w := lifeItems()[0]
	a := newAgent(t, open(svc, mortal{notes, dead}, ""))
	b, err := a.s.Batch(t.Context(), "b-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.stage(t.Context(), b, w); !errors.Is(err, errKilled) {
		t.Fatalf("got %v, want %v", err, errKilled)
	}
	svc.Fail(nil)
	// Somebody else's upload to another key is none of ours.
	if _, err := svc.Backend().Begin(t.Context(), "theirs", bucket.Header{}); err != nil {
		t.Fatal(err)
	}
	s := open(svc, notes, "")
	wantOrphan := func(what string) {
		t.Helper()
		var told []store.Leftover
		if err := s.Leftovers(t.Context(), func(l store.Leftover) bool { told = append(told, l); return true }); err != nil {
			t.Fatal(err)
		}
		if len(told) != 1 || told[0].Batch != "" || told[0].Name != w.item.Name || told[0].ID == "" || told[0].Since.IsZero() {
			t.Errorf("%s: told %+v, want the upload to %q, of no batch", what, told, w.item.Name)
		}
	}
	wantOrphan("after the kill")
	second := newAgent(t, s)
	if err := errors.Join(append(second.failed, second.live(t.Context()))...); err != nil {
		t.Fatal(err)
	}
	wantOrphan("after the batch was finished and dropped")
	if n := len(svc.Unfinished()); n != 2 {
		t.Errorf("got %d uploads, want both that may be somebody else's", n)
	}
	for _, up := range svc.Unfinished() {
		if err := svc.Backend().Abort(t.Context(), up); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := s.Leftovers(t.Context(), func(l store.Leftover) bool { t.Errorf("told %+v", l); return true }); err != nil {
			t.Fatal(err)
		}
	}
	if notes.len() != 0 {
		t.Errorf("%d notes are left of what is gone", notes.len())
	}
}
