package agent

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestStoreThatDoesNotCreateExclusively is refused, unless its export allows it: then every start warns and every receipt says so.
func TestStoreThatDoesNotCreateExclusively(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	traits := bucketTraits()
	traits.Exclusive = ""
	w.like(traits)
	if a, err := Open(t.Context(), w.dst.conf); problem.Of(err) != problem.NotExclusive || a != nil {
		t.Fatalf("got %v, want %s", err, problem.NotExclusive)
	}
	w.dst.conf.Exports[0].Unsafe = true
	core, logs := observer.New(zapcore.WarnLevel)
	w.dst.conf.Logger = zap.New(core)
	w.src.start()
	for start := range 2 {
		reg := prometheus.NewRegistry()
		w.dst.conf.Metrics = reg
		w.dst.start()
		if n := logs.FilterMessageSnippet("DOES NOT CREATE EXCLUSIVELY").Len(); n != start+1 {
			t.Errorf("start %d: got %d warnings, want one each time", start, n)
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "consign_agent_unsafe_stores" && f.GetMetric()[0].GetGauge().GetValue() != 1 {
				t.Errorf("got %v unsafe stores, want 1", f.GetMetric()[0].GetGauge().GetValue())
			}
		}
		s := w.spec(w.order(), 1, w.random(token.ObjectName("in/"+strings.Repeat("a", start+1)), 100))
		w.give(s)
		src, dst := w.stored(s)
		if src.claims.CreateBy != "" || dst.claims.CreateBy != token.GuardAgent {
			t.Errorf("got create_only %q and %q, want none and %q", src.claims.CreateBy, dst.claims.CreateBy, token.GuardAgent)
		}
		w.dst.stop()
	}
}

// TestOnlyWhatIsWrittenIsProbed: a source has nothing to prove, and a destination that does says so.
func TestOnlyWhatIsWrittenIsProbed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.from.SetHook(func(op mem.Op, _ string) (error, bool) {
		if op == mem.OpProbe {
			t.Error("the source's store was probed")
		}
		return nil, false
	})
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100))
	w.give(s)
	src, dst := w.stored(s)
	if src.claims.CreateBy != "" || dst.claims.CreateBy != token.GuardStore {
		t.Errorf("got create_only %q and %q, want none and %q", src.claims.CreateBy, dst.claims.CreateBy, token.GuardStore)
	}
}

// TestBrokerCutsWhatTheStoreCannotTake: parts that are too small, too many or so large that their values would fill memory are refused.
func TestBrokerCutsWhatTheStoreCannotTake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	traits := bucketTraits()
	traits.MaxParts = 3
	w.like(traits)
	w.src.start()
	w.dst.start()
	in := w.random("in/a", 13<<20)
	for name, c := range map[string]struct {
		part int64
		says string
	}{
		"too small": {bucketPart / 2, "takes from 4194304"}, "too many": {bucketPart, "into 4 parts"}, "too large": {maxPart * 2, "takes from"},
	} {
		_, receive := w.tasks(w.spec(w.order(), 1, in).parts(c.part))
		w.broker.give(w.dst.port, receive)
		if got := w.broker.refusal(receive.ID); got.Code != problem.PolicyRefused || !strings.Contains(got.Detail, c.says) {
			t.Errorf("%s: got %q %q, want %q", name, got.Code, got.Detail, problem.PolicyRefused)
		}
	}
	w.to.SetHook(nil)
	s := w.spec(w.order(), 1, in).parts(bucketPart * 2)
	w.give(s)
	w.stored(s)
}

// TestOwnWorkIsKnownAgain: an object that this very batch has published, of which no record is left, is stored and not taken.
func TestOwnWorkIsKnownAgain(t *testing.T) {
	t.Parallel()
	for _, how := range []token.IfExists{token.Fail, token.Skip, token.Compare} {
		for _, size := range []int{100, 6 << 20} {
			for name, traits := range map[string]store.Traits{"bucket": bucketTraits(), "folder": mem.Everything()} {
				t.Run(string(how)+" "+name+" "+time.Duration(size).String(), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t).like(traits)
					in := w.random("in/a", size)
					o := w.order()
					o.IfExists = how
					s := w.spec(o, 1, in).parts(traits.PartSize)
					w.publishAs(batchKey{iss: w.broker.id, xfr: o.ID, bat: 1, do: token.Create}.stages(w.dst.port.id), s)
					w.src.start()
					w.dst.start()
					w.give(s)
					w.stored(s)
				})
			}
		}
	}
}

// publishAs publishes what a batch is to copy under the name of its stages, as if the agent had done so and forgotten it.
func (w *world) publishAs(id store.BatchID, s *spec) {
	w.t.Helper()
	b, err := w.to.Batch(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	it := store.Item{Name: s.items[0].Dst, Size: s.items[0].Size, Part: s.items[0].Part}
	st, err := b.Stage(w.t.Context(), it)
	if err != nil {
		w.t.Fatal(err)
	}
	data := content(w.t, w.from, s.items[0].Src)
	for part := range it.Parts() {
		p, err := st.Part(w.t.Context(), part)
		if err != nil {
			w.t.Fatal(err)
		}
		off, n := it.Span(part)
		if _, err := p.Write(data[off : off+n]); err != nil || p.Close() != nil {
			w.t.Fatal(err)
		}
	}
	root, err := hashObject(w.t.Context(), &Agent{}, w.from, store.Info{Name: s.items[0].Src, Version: s.items[0].Version, Size: it.Size}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if out := b.Publish(w.t.Context(), []store.Publication{{Item: it, Root: root}})[0]; out.Err != nil {
		w.t.Fatal(out.Err)
	}
	if err := b.Drop(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// TestSmallItemsCostNoLook: where a look is a request, what Publish will say anyway is not asked before.
func TestSmallItemsCostNoLook(t *testing.T) {
	t.Parallel()
	for how, want := range map[token.IfExists]int{token.Fail: 2, token.Skip: 14} {
		w := newWorld(t).like(bucketTraits())
		w.to.Put("out/s/03", []byte("here before"), store.Attrs{})
		l := w.watch()
		w.src.start()
		w.dst.start()
		o := w.order()
		o.IfExists = how
		s := w.spec(o, 1, few(w)...).parts(bucketPart)
		w.give(s)
		dst := w.broker.receipt(token.Destination, s.ref())
		if n := l.count(mem.OpStat); n != want {
			t.Errorf("%s: got %d looks for 14 items of which 2 are large, want %d", how, n, want)
		}
		existing := map[token.IfExists]token.Result{token.Fail: token.TakenBy, token.Skip: token.Existed}[how]
		for _, o := range dst.outs {
			if want := map[bool]token.Result{true: existing, false: token.Stored}[s.items[o.Item].Dst == "out/s/03"]; o.Outcome != want {
				t.Errorf("%s, %q: got %+v, want %s", how, s.items[o.Item].Dst, o, want)
			}
		}
	}
}

// TestDescribingReadsNothing: a task that describes names costs no read of their content.
func TestDescribingReadsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.random("in/b", 5)
	var reads, infos atomic.Int64
	w.from.SetHook(func(op mem.Op, _ string) (error, bool) {
		switch op {
		case mem.OpSection, mem.OpRead:
			reads.Add(1)
		case mem.OpInfo:
			infos.Add(1)
			return problem.New(problem.Unreadable, "No"), false
		}
		return nil, false
	})
	w.src.start()
	w.broker.give(w.src.port, api.Task{ID: "stat", Kind: api.StatTask, Order: w.signOrder(w.order()), Names: []token.ObjectName{"in/b"}})
	got, bad := w.broker.listing("stat")
	if bad != nil || len(got) != 1 || got[0].Code != problem.Unreadable {
		t.Errorf("got %q and %v, want what Info says, where Open asks nobody", told(got), bad)
	}
	if reads.Load() > 0 || infos.Load() != 1 {
		t.Errorf("got %d reads and %d looks, want a look", reads.Load(), infos.Load())
	}
}

// TestSourceReadsOnce: a run of chunks is one request to the source's store, and so is a small object.
func TestSourceReadsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t).like(bucketTraits())
	w.dst.conf.Lanes, w.dst.conf.WantersPerLane = 1, 1
	var sections atomic.Int64
	w.from.SetHook(func(op mem.Op, _ string) (error, bool) {
		if op == mem.OpSection {
			sections.Add(1)
		}
		return nil, false
	})
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, few(w)...).parts(bucketPart)
	w.give(s)
	w.broker.receipt(token.Destination, s.ref())
	// 12 small ones; 14 MiB in 3 and 2 parts, of which the first wants, until the lane is measured, are shorter.
	if n := sections.Load(); n < 12+5 || n > 12+5+4 {
		t.Errorf("got %d requests, want from %d to %d", n, 12+5, 12+5+4)
	}
	w.stored(s)
}

// TestNativeDigestOfTheSource is in the source's receipt, also after a restart.
func TestNativeDigestOfTheSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.conf.Exports[0].Store = native{w.from}
	w.src.start()
	w.dst.conf.Rate = 2 << 20 // so that the source can be stopped in between
	served := make(chan struct{})
	w.dst.at(2, func() { close(served) })
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100), w.random("in/big", 6<<20))
	w.give(s)
	<-served
	w.src.stop()
	w.src.start()
	w.broker.receipt(token.Destination, s.ref())
	src := w.broker.receipt(token.Source, s.ref())
	for i, o := range src.outs {
		if want := "etag:" + string(s.items[i].Src); o.Native != want {
			t.Errorf("item %d: got %q, want %q", i, o.Native, want)
		}
	}
}

// TestSlowPublishDoesNotStopSyncs: what comes meanwhile is made durable all the same.
func TestSlowPublishDoesNotStopSyncs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	synced, published := make(chan struct{}, 1000), make(chan struct{})
	w.dst.conf.Exports[0].Store = spied{Store: w.to, publish: func([]store.Publication) {
		select {
		case <-published:
			return // once
		default:
			close(published)
		}
		for len(synced) > 0 {
			<-synced
		}
		select {
		case <-synced:
		case <-time.After(20 * time.Second):
			t.Error("nothing was synced while a publication took its time")
		}
	}, synced: func() { synced <- struct{}{} }}
	w.dst.conf.Rate = 4 << 20
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/a", 100), w.random("in/big", 24<<20))
	w.give(s)
	w.stored(s)
}

// TestOneCommitAtATime: nothing is published on the strength of a commit while another one still syncs what its mark covers.
func TestOneCommitAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	syncing, published := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	var once sync.Once
	w.dst.conf.Exports[0].Store = spied{Store: w.to, stage: func(it store.Item) {
		if it.Index == 0 {
			<-syncing // so that the small item is held no earlier
		}
	}, sync: func() {
		if !first.CompareAndSwap(false, true) {
			return
		}
		close(syncing)
		select {
		case <-published:
			t.Error("an item was published while a commit was under way")
		case <-time.After(time.Second):
		}
	}, publish: func([]store.Publication) { once.Do(func() { close(published) }) }}
	w.dst.conf.Rate = 4 << 20
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/s", 100), w.random("in/big", 20<<20))
	w.give(s)
	w.stored(s)
}

// TestJournalWithoutStates: the journal is of a time when nothing was hashed along; what cannot be summed any more is fetched anew.
func TestJournalWithoutStates(t *testing.T) {
	t.Parallel()
	items := []token.Item{{Size: 3 << 20, Part: token.ChunkSize, Hash: token.SHA256}, {Size: 3 << 20, Part: token.ChunkSize}}
	r := newReceiver(&batch{a: &Agent{}, bill: bill{man: token.Manifest{Items: items}, export: &Export{}}})
	for i := range items {
		if err := r.replay(chunkRecord(i, 0, chunk.Of(make([]byte, chunk.Size), 0, 3<<20))); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := r.trusts(t.Context(), 0); ok || err != nil {
		t.Errorf("got %t and %v of chunks that are not hashed, want no trust in them", ok, err)
	}
	if p := &r.pieces[1]; p.ordered || !p.begun() {
		t.Errorf("got %+v of an item of which no hash is asked for", p)
	}
}
