package agent

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// serveLies runs a source that answers every want with lie, until the test ends.
func (w *world) serveLies(lie func(st link.Stream, lane link.Lane, req wire.Request)) {
	w.t.Helper()
	e, err := link.ListenQUIC(link.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := e.Serve(certs.PeerServer(w.src.conf.Pair, w.trust, wire.ALPN)); err != nil {
		w.t.Fatal(err)
	}
	w.src.conf.Listen = e.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	answer := func(lane link.Lane, st link.Stream) {
		req, err := wire.ReadRequest(st)
		if err != nil {
			return
		}
		if _, ok := req.(wire.Hello); ok {
			put(st, wire.Welcome{Version: 1, Want: wire.MaxWant})
		} else {
			lie(st, lane, req)
		}
		_ = st.CloseWrite() // the other end may be gone
	}
	wg.Go(func() {
		for {
			lane, err := e.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() {
				for {
					st, err := lane.Accept(ctx)
					if err != nil {
						return
					}
					wg.Go(func() { answer(lane, st) })
				}
			})
		}
	})
	w.t.Cleanup(func() { cancel(); e.Close(); wg.Wait() })
}

func put(st link.Stream, f wire.Frame) {
	b, err := wire.Append(nil, f)
	if err == nil {
		_, _ = st.Write(b) // the reader may be gone
	}
}

// honest answers as a source would, for content; what a lie changes it does itself.
func honest(st link.Stream, req wire.Request, content []byte, alter func([]byte)) {
	size := int64(len(content))
	switch q := req.(type) {
	case wire.WantChunks:
		put(st, wire.Pinned{})
		for i := q.First; i < q.First+int64(q.N); i++ {
			off, n := chunk.Span(size, i)
			buf := make([]byte, wire.ChunkHeadSize+chunk.Size+chunk.Slack)
			data := buf[wire.ChunkHeadSize:][:n]
			copy(data, content[off:])
			v := chunk.Of(data, i, size)
			alter(data)
			_, _ = st.Write(wire.PutChunk(buf, i, int(n), v))
		}
		put(st, wire.Done{})
	case wire.Seal:
		put(st, wire.Sealed{Size: size, Root: chunk.Value(bytes.Repeat([]byte{7}, 32))})
	case wire.End:
		put(st, wire.Ended{})
	}
}

func TestHostileSource(t *testing.T) {
	t.Parallel()
	content := make([]byte, 3<<20+5)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	keep := func([]byte) {}
	garbage := func(st link.Stream, n int) { _, _ = st.Write(bytes.Repeat([]byte{0xff}, n)) }
	for _, c := range []struct {
		name string
		lie  func(st link.Stream, lane link.Lane, req wire.Request)
		want problem.Code // of the item; "" if it only waits, until the broker ends it
	}{
		{"alters a byte", func(st link.Stream, _ link.Lane, r wire.Request) {
			honest(st, r, content, func(b []byte) { b[3] ^= 1 })
		}, problem.Corrupt},
		{"seals another digest", func(st link.Stream, _ link.Lane, r wire.Request) { honest(st, r, content, keep) }, problem.Corrupt},
		{"says nothing", func(link.Stream, link.Lane, wire.Request) {}, problem.PeerMisbehaved},
		{"stops in a chunk", func(st link.Stream, _ link.Lane, _ wire.Request) {
			put(st, wire.Pinned{})
			put(st, wire.ChunkHead{Index: 0, Length: chunk.Size})
			garbage(st, 100)
		}, problem.PeerMisbehaved},
		{"sends garbage", func(st link.Stream, _ link.Lane, _ wire.Request) { garbage(st, 1<<16) }, problem.PeerMisbehaved},
		{"sends garbage without end", func(st link.Stream, _ link.Lane, _ wire.Request) {
			for st.SetDeadline(time.Now().Add(time.Minute)) == nil {
				if _, err := st.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, problem.PeerMisbehaved},
		{"announces a huge frame", func(st link.Stream, _ link.Lane, _ wire.Request) { _, _ = st.Write([]byte{0x82, 0xff, 0xff, 0xff}) }, problem.PeerMisbehaved},
		{"sends another chunk", func(st link.Stream, _ link.Lane, _ wire.Request) {
			put(st, wire.Pinned{})
			put(st, wire.ChunkHead{Index: 77, Length: 5})
		}, problem.PeerMisbehaved},
		{"describes nothing", func(st link.Stream, _ link.Lane, _ wire.Request) {
			put(st, wire.ChunkHead{Index: 0, Length: chunk.Size})
		}, problem.PeerMisbehaved},
		{"sends more after the end", func(st link.Stream, _ link.Lane, r wire.Request) {
			honest(st, r, content, keep)
			garbage(st, 10)
		}, problem.PeerMisbehaved},
		{"refuses with changed", func(st link.Stream, _ link.Lane, _ wire.Request) {
			put(st, wire.Refuse(problem.New(problem.Changed, "It moved")))
		}, problem.Changed},
		{"refuses for good", func(st link.Stream, _ link.Lane, _ wire.Request) {
			put(st, wire.Refuse(problem.New(problem.CapSpent, "Spent")))
		}, problem.CapSpent},
		{"stalls", func(st link.Stream, lane link.Lane, _ wire.Request) { <-lane.Done() }, ""},
		{"closes the lane", func(_ link.Stream, lane link.Lane, _ wire.Request) { _ = lane.Close(problem.Draining, "Bye") }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.serveLies(c.lie)
			w.dst.start()
			in := w.from.Put("in/x", content, store.Attrs{})
			s := w.spec(w.order(), 1, in)
			_, receive := w.tasks(s)
			w.broker.give(w.dst.port, receive)
			if c.want == "" {
				w.broker.await("a beat that says why", func() bool { return len(w.dst.port.beats) == 1 && w.dst.port.beats[0].Waiting != "" })
				w.broker.end(w.dst.port, s.ref())
			}
			got := w.broker.receipt(token.Destination, s.ref())
			if want := string(c.want); want != "" && got.outs[0].Code != want {
				t.Errorf("got %+v, want code %q", got.outs[0], want)
			}
			if info, err := w.to.Stat(t.Context(), "out/x"); problem.Of(err) != problem.Missing {
				t.Errorf("got %+v and %v, want no object", info, err)
			}
			w.checkNoStages()
		})
	}
}

func TestSourceFaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	infos := []store.Info{w.random("in/a", 10), w.random("in/b", 10), w.random("in/big", 4<<20), w.random("in/c", 10), w.random("in/gone", 2<<20)}
	s := w.spec(w.order(), 1, infos...)
	w.random("in/b", 11)      // another version
	w.random("in/big", 4<<20) // the same content in another version
	w.from.Remove("in/gone")
	w.dst.start()
	src, dst := w.run(s)
	checkMatch(t, src, dst)
	checkResults(t, dst, token.Stored, token.Altered, token.Altered, token.Stored, token.Failed)
	checkResults(t, src, token.Sent, token.Altered, token.Altered, token.Sent, token.Failed)
	if got := dst.outs[4].Code; got != string(problem.Missing) {
		t.Errorf("got %q, want %q", got, problem.Missing)
	}
}

// TestSourceChangesMidway: a large object that changes after some of it was served is never published.
func TestSourceChangesMidway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dst.conf.Lanes, w.dst.conf.WantersPerLane = 1, 1
	changed := make(chan struct{})
	w.dst.at(3, func() { w.random("in/big", 6<<20); close(changed) })
	w.src.start()
	w.dst.start()
	s := w.spec(w.order(), 1, w.random("in/big", 8<<20), w.random("in/a", 1))
	src, dst := w.run(s)
	<-changed
	checkMatch(t, src, dst)
	checkResults(t, dst, token.Altered, token.Stored)
	w.checkNoStages()
}

func TestNameExists(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		how  token.IfExists
		want []token.Result
	}{
		{token.Fail, []token.Result{token.TakenBy, token.TakenBy, token.TakenBy, token.TakenBy, token.TakenBy, token.Stored}},
		{token.Skip, []token.Result{token.Existed, token.Existed, token.Existed, token.Existed, token.TakenBy, token.Stored}},
		{token.Compare, []token.Result{token.Existed, token.TakenBy, token.Existed, token.TakenBy, token.TakenBy, token.Stored}},
	} {
		t.Run(string(c.how), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.src.start()
			w.dst.start()
			var infos []store.Info
			for _, o := range []struct {
				name token.ObjectName
				size int
			}{{"same", 50}, {"other", 50}, {"bigsame", 3 << 20}, {"bigother", 3 << 20}, {"dir", 9}, {"new", 9}} {
				infos = append(infos, w.random("in/"+o.name, o.size))
			}
			flipped := func(name token.ObjectName) []byte {
				b := bytes.Clone(content(t, w.from, name))
				b[7] ^= 1
				return b
			}
			w.to.Put("out/same", content(t, w.from, "in/same"), store.Attrs{})
			w.to.Put("out/other", flipped("in/other"), store.Attrs{})
			w.to.Put("out/bigsame", content(t, w.from, "in/bigsame"), store.Attrs{})
			w.to.Put("out/bigother", flipped("in/bigother"), store.Attrs{})
			if err := w.to.Make(t.Context(), "out/dir"); err != nil {
				t.Fatal(err)
			}
			before := content(t, w.to, "out/bigother")
			o := w.order()
			o.IfExists = c.how
			s := w.spec(o, 1, infos...)
			src, dst := w.run(s)
			checkMatch(t, src, dst)
			checkResults(t, dst, c.want...)
			if !bytes.Equal(content(t, w.to, "out/bigother"), before) {
				t.Error("an object that existed was changed")
			}
		})
	}
}

// TestTwoTransfersRaceForOneName: nobody coordinates them but the store, as when their brokers do not know each other.
func TestTwoTransfersRaceForOneName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.conf.Slots, w.dst.conf.Slots = 8, 8
	w.src.start()
	w.dst.start()
	in := w.random("in/a", 1000)
	var wg sync.WaitGroup
	const races = 40
	for range races {
		var results [2]token.Result
		for i := range results {
			s := w.spec(w.order(), 1, in)
			wg.Go(func() {
				src, dst := w.run(s)
				checkMatch(t, src, dst)
				results[i] = dst.outs[0].Outcome
			})
		}
		wg.Wait()
		if !(results[0] == token.Stored && results[1] == token.TakenBy || results[0] == token.TakenBy && results[1] == token.Stored) {
			t.Fatalf("got %v, want one stored and one taken", results)
		}
		w.to.Remove("out/a")
	}
}

// TestSlots: a batch more than there are slots is refused with a code that may pass.
func TestSlots(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dst.conf.Slots = 1
	w.src.conf.Listen = "127.0.0.1:9"
	w.dst.start()
	in := w.random("in/a", 1)
	var last api.Task
	for n := range 3 {
		_, last = w.tasks(w.spec(w.order(), 1, in))
		w.broker.give(w.dst.port, last)
		poll(t, "the batch to begin", func() bool { return len(w.dst.agent.of("")) == min(n+1, 2) })
	}
	if got := w.broker.refusal(last.ID); got.Code != problem.Overloaded || !got.Retry {
		t.Errorf("got %q, want %q", got.Code, problem.Overloaded)
	}
}
