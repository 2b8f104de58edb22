package agent

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// leave stages one part of an item of a batch and goes away.
func (w *world) leave(id store.BatchID, size int64) {
	w.t.Helper()
	b, err := w.to.Batch(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	st, err := b.Stage(w.t.Context(), store.Item{Name: "left/behind", Size: size, Part: token.ChunkSize})
	if err == nil {
		err = fill(w.t.Context(), st, make([]byte, min(size, token.ChunkSize)))
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		w.t.Fatal(err)
	}
}

// left are the batches that have something in the destination's store.
func (w *world) left() []store.BatchID {
	w.t.Helper()
	ids := map[store.BatchID]bool{}
	if err := w.to.Leftovers(w.t.Context(), func(l store.Leftover) bool { ids[l.Batch] = true; return true }); err != nil {
		w.t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(ids))
}

// leftovers leaves an orphan of the destination, something of another agent and of another program, something that nobody can tell the owner of,
// something that only time removes, and the stages of a live batch behind. It returns the ids of the first two and of the last.
func (w *world) leftovers() (orphan, foreign, live store.BatchID) {
	w.t.Helper()
	key := batchKey{iss: w.broker.id, xfr: newID(w.t), bat: 4, do: token.Create}
	orphan, foreign = key.stages(w.dst.port.id), key.stages("spiffe://south.test/agent/other")
	expiring := store.Leftover{Batch: batchKey{iss: w.broker.id, xfr: newID(w.t), bat: 1, do: token.Create}.stages(w.dst.port.id), Kind: "blocks", Expires: time.Now().Add(time.Hour)}
	w.leave(orphan, 3<<20)
	w.leave(foreign, 2<<20)
	w.dst.conf.Exports[0].Store = spied{Store: w.to, leftovers: func(yield func(store.Leftover) bool) {
		_ = yield(expiring) && yield(store.Leftover{Kind: "upload", ID: "who knows"}) && yield(store.Leftover{Batch: "x", Kind: "upload"})
	}}
	dead := make(chan struct{})
	w.dst.at(3, func() { w.dst.kill(); close(dead) })
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/big", 9<<20))
	w.give(s)
	<-dead
	w.dst.conf.hooks.moved = nil
	w.leave(orphan, 3<<20) // the agent has swept it at its start
	return orphan, foreign, batchKey{iss: w.broker.id, xfr: s.order.ID, bat: 1, do: token.Create}.stages(w.dst.port.id)
}

func TestCollect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	orphan, foreign, live := w.leftovers()
	all := []store.BatchID{orphan, foreign, live}
	slices.Sort(all)
	if got := w.left(); !slices.Equal(got, all) {
		t.Fatalf("got %v in the store, want %v", got, all)
	}
	want := map[Verdict]int{VerdictOrphan: 1, VerdictForeign: 2, VerdictLive: 1, VerdictUnknown: 1, VerdictExpiring: 1}
	for _, mode := range []CollectMode{LookOnly, DropOrphans, DropOrphans} {
		rep, err := Collect(t.Context(), w.dst.conf, mode)
		if err != nil || rep.Running || len(rep.Containers) != 1 {
			t.Fatalf("got %+v and %v, want the report of one container", rep, err)
		}
		if mode == DropOrphans && want[VerdictOrphan] > 0 {
			delete(want, VerdictOrphan)
			want[VerdictDropped] = 1
		} else if mode == DropOrphans {
			delete(want, VerdictDropped)
		}
		c := rep.Containers[0]
		if c.Container != "copies" || c.Err != nil || c.Lists != mem.Everything().Lists || !maps.Equal(c.Counts, want) {
			t.Errorf("mode %d: got %+v, want the counts %v", mode, c, want)
		}
		told := map[Verdict]int{}
		for _, f := range c.Findings {
			told[f.Verdict]++
			if f.Batch == live && f.Verdict != VerdictLive || f.Batch == foreign && f.Verdict != VerdictForeign {
				t.Errorf("got %+v", f)
			}
		}
		if !maps.Equal(told, want) {
			t.Errorf("mode %d: got the findings %v, want %v", mode, told, want)
		}
		if mode == DropOrphans {
			all = slices.DeleteFunc(all, func(id store.BatchID) bool { return id == orphan })
		}
		if got := w.left(); !slices.Equal(got, all) {
			t.Errorf("mode %d: got %v in the store, want %v", mode, got, all)
		}
	}
}

// TestCollectBesideARunningAgent only looks: the agent drops its orphans by itself.
func TestCollectBesideARunningAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	orphan, foreign, live := w.leftovers()
	w.src.stop() // so that the live batch stays as it is
	w.dst.conf.hooks.quick = false
	w.dst.start()
	poll(t, "the agent to sweep", func() bool { return !slices.Contains(w.left(), orphan) })
	w.leave(orphan, 3<<20)
	rep, err := Collect(t.Context(), w.dst.conf, DropOrphans)
	if err != nil || !rep.Running {
		t.Fatalf("got %+v and %v, want a report beside a running agent", rep, err)
	}
	want := map[Verdict]int{VerdictOrphan: 1, VerdictForeign: 2, VerdictLive: 1, VerdictUnknown: 1, VerdictExpiring: 1}
	if got := rep.Containers[0]; got.Err != nil || !maps.Equal(got.Counts, want) {
		t.Errorf("got %+v, want the counts %v", got, want)
	}
	if got, all := w.left(), []store.BatchID{orphan, foreign, live}; len(got) != len(all) {
		t.Errorf("got %v in the store, want all of %v", got, all)
	}
}

// TestCollectWithoutAStateDirectory touches nothing: beside a directory that is not there everything would look dead.
func TestCollectWithoutAStateDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := batchKey{iss: w.broker.id, xfr: newID(t), bat: 4, do: token.Create}.stages(w.dst.port.id)
	w.leave(id, 100)
	w.dst.conf.State += "/elsewhere"
	if rep, err := Collect(t.Context(), w.dst.conf, DropOrphans); problem.Of(err) != problem.BadConfig || len(rep.Containers) > 0 {
		t.Errorf("got %+v and %v, want %s", rep, err, problem.BadConfig)
	}
	if got := w.left(); len(got) != 1 {
		t.Errorf("got %v left, want %q untouched", got, id)
	}
}

// TestCollectWhileTheStoreIsAway reports that, and the other containers all the same.
func TestCollectWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	for _, op := range []mem.Op{mem.OpProbe, mem.OpLeftovers, mem.OpBatch, mem.OpDrop} {
		w := newWorld(t)
		w.dst.start().stop() // there is a state directory
		id := batchKey{iss: w.broker.id, xfr: newID(t), bat: 4, do: token.Create}.stages(w.dst.port.id)
		w.leave(id, 100)
		w.dst.conf.Exports = append(w.dst.conf.Exports, Export{Container: "more", Store: mem.New(time.Now), Create: true})
		w.to.SetHook(func(o mem.Op, _ string) (error, bool) {
			if o == op {
				return problem.New(problem.StoreAway, "Not now"), false
			}
			return nil, false
		})
		rep, err := Collect(t.Context(), w.dst.conf, DropOrphans)
		if err != nil || len(rep.Containers) != 2 || problem.Of(rep.Containers[0].Err) != problem.StoreAway || rep.Containers[1].Err != nil {
			t.Errorf("%s: got %+v and %v, want one container's failure", op, rep, err)
		}
		w.to.SetHook(nil)
		if rep.Containers[0].Counts[VerdictDropped] > 0 || len(w.left()) != 1 {
			t.Errorf("%s: got %+v, want nothing dropped", op, rep)
		}
	}
}

// TestJanitorSparesWhatItCannotRead: the stages of a batch whose journal is damaged are not dead.
func TestJanitorSparesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dst.start().stop()
	key := batchKey{iss: w.broker.id, xfr: newID(t), bat: 2, do: token.Create}
	other := key
	other.bat = 3
	a := &Agent{conf: w.dst.conf, boot: "boot"}
	if err := a.openState(); err != nil {
		t.Fatal(err)
	}
	j, err := journal.Create(a.batchDir, key.file(), "boot")
	if err == nil {
		err = j.Append(journal.Record{Kind: 99, Data: []byte("what?")})
	}
	if err == nil {
		err = j.Commit(j.Mark())
	}
	if err != nil || j.Close() != nil || a.Close() != nil {
		t.Fatal(err)
	}
	w.leave(key.stages(w.dst.port.id), 100)
	w.leave(other.stages(w.dst.port.id), 100)
	w.dst.conf.Logger = zap.NewNop() // it complains, rightly
	w.dst.start()
	poll(t, "the dead stages to go", func() bool { return len(w.left()) == 1 })
	w.dst.agent.sweep(t.Context())
	if got := w.left(); len(got) != 1 || got[0] != key.stages(w.dst.port.id) {
		t.Errorf("got %v left, want those of the journal that cannot be read", got)
	}
}

// TestNotes: a store's notes are durable, its own, and readable beside a running agent.
func TestNotes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dst.start()
	one, two := newNotes(w.dst.agent.stages, "copies"), newNotes(w.dst.agent.stages, "copies2")
	for i := range 3 {
		if err := one.Put(fmt.Sprint("k", i), fmt.Sprint("v", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := two.Put("k0", "other"); err != nil {
		t.Fatal(err)
	}
	if err := one.Remove("k1"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"k0": "v0", "k2": "v2"}
	set, err := journal.ReadSet(w.dst.agent.state, stagesFile, w.dst.agent.boot, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	beside := copyNotes(set, "copies")
	if got := maps.Collect(beside.All()); !maps.Equal(got, want) {
		t.Errorf("beside the agent: got %v, want %v", got, want)
	}
	if err := beside.Put("k9", "x"); err != nil || beside.Remove("k0") != nil {
		t.Error(err)
	}
	if _, ok := beside.Get("k0"); ok {
		t.Error("a note that was removed from the copy is still in it")
	}
	w.dst.stop()
	w.dst.start()
	if got := maps.Collect(newNotes(w.dst.agent.stages, "copies").All()); !maps.Equal(got, want) {
		t.Errorf("after a restart: got %v, want %v", got, want)
	}
	if got, ok := newNotes(w.dst.agent.stages, "copies2").Get("k0"); got != "other" || !ok {
		t.Errorf("got %q %t, want the other container's note", got, ok)
	}
}
