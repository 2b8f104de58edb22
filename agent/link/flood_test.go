package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consign-transfer/consign/token/problem"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/testutils/simnet"
)

// A flood of handshakes from addresses that never answer: what they hold is
// bounded by the rate of unproved ones, and somebody honest still gets in.
func TestHalfOpenFloodLeavesRoomForTheHonest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flooder := &net.UDPAddr{IP: net.IPv4(10, 6, 6, 6).To4(), Port: 666}
		w := newWorld(t, time.Millisecond, func(p simnet.Packet) bool {
			return p.To.String() == flooder.String() // spoofed: the answers do not come back
		})
		conn := simnet.NewBlockingSimConn(flooder, w.router)
		spoofer, err := OverPacketConn(conn, Config{})
		spoofer = endpoint(t, spoofer, err)
		p := w.pair(t, Config{MaxLanes: 4, MaxPerAddress: 10_000})

		const flood = 600
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range flood {
			all.Go(func() {
				if lane, err := spoofer.Dial(ctx, p.to, p.tls); err == nil {
					t.Errorf("a spoofer got lane %v", lane)
				}
			})
		}
		<-time.After(time.Second)
		if held, bound := heldBy(p.b), 3*handshakeRate; held > bound || held == 0 {
			t.Errorf("%d half-open handshakes after a second, want 1 to %d", held, bound)
		}
		began := time.Now()
		a, b := p.lanes(t)
		go serveEcho(t, b)
		if _, err := ask(t, a, []byte("hello")); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the honest one waited %v, want at most 1s", took)
		}
		stop()
		all.Wait()
		<-time.After(3 * HandshakeTimeout)
		if held := heldBy(p.b); held != 1 {
			t.Errorf("%d connections are held after the flood, want the honest one", held)
		}
	})
}

func heldBy(e *Endpoint) int {
	e.gate.mu.Lock()
	defer e.gate.mu.Unlock()
	return e.gate.n
}

func TestOneAddressCannotTakeEveryLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWorld(t, time.Millisecond, nil).pair(t, Config{MaxPerAddress: 3})
		for range 3 {
			p.lanes(t)
		}
		if _, err := p.a.Dial(t.Context(), p.to, p.tls); problem.Of(err) != problem.Overloaded {
			t.Errorf("got %v, want %s", err, problem.Overloaded)
		}
	})
}

func TestLanesAboveTheLimitAreToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWorld(t, time.Millisecond, nil).pair(t, Config{MaxLanes: 2})
		first, _ := p.lanes(t)
		p.lanes(t)
		ctx, cancel := context.WithCancel(t.Context())
		accepted := make(chan Lane, 1)
		go func() {
			lane, _ := p.b.Accept(ctx) // nil when the test ends
			accepted <- lane
		}()
		third, err := p.a.Dial(t.Context(), p.to, p.tls)
		if err != nil {
			t.Fatal(err)
		}
		<-third.Done()
		if problem.Of(third.Err()) != problem.Overloaded {
			t.Errorf("got %v, want %s", third.Err(), problem.Overloaded)
		}
		if err := first.Close("", ""); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second)
		if _, err := p.a.Dial(t.Context(), p.to, p.tls); err != nil {
			t.Error(err)
		}
		if lane := <-accepted; lane == nil {
			t.Error("no lane was accepted although one had ended")
		}
		cancel()
	})
}

// A peer that opens streams and never finishes them gets so many and no more.
func TestStreamsOfAPeerAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newWorld(t, time.Millisecond, nil).pair(t, Config{}).lanes(t)
		for range MaxStreams {
			if _, err := a.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := a.Open(ctx); problem.Of(err) != problem.Timeout {
			t.Errorf("got %v, want %s", err, problem.Timeout)
		}
	})
}

func TestGate(t *testing.T) {
	t.Parallel()
	g := &gate{total: 3, each: 2, from: make(map[netip.Addr]int)}
	x, y := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	for i, step := range []struct {
		from  netip.Addr
		leave bool
		want  error
	}{
		{x, false, nil}, {x, false, nil}, {x, false, errCrowded}, {y, false, nil}, {y, false, errCrowded},
		{x, true, nil}, {y, false, nil}, {x, false, errCrowded}, {y, true, nil}, {y, true, nil}, {x, true, nil},
	} {
		var got error
		if step.leave {
			g.leave(step.from)
		} else {
			got = g.enter(step.from)
		}
		if !errors.Is(got, step.want) {
			t.Errorf("step %d: got %v, want %v", i, got, step.want)
		}
	}
	if g.n != 0 || len(g.from) != 0 {
		t.Errorf("%d connections of %d addresses are left, want none", g.n, len(g.from))
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	b := newBudget(100)
	x, y := new(quic.Conn), new(quic.Conn)
	take := func(what string, c *quic.Conn, n uint64, want bool) {
		t.Helper()
		if got := b.take(c, n); got != want {
			t.Errorf("%s: got %t, want %t", what, got, want)
		}
	}
	take("one that is not a lane", x, 1, false)
	b.open(x)
	b.open(y)
	take("a part", x, 60, true)
	take("more than is left", y, 41, false)
	take("more than there ever was", y, 1<<63, false)
	take("the rest", y, 40, true)
	b.close(x)
	take("one that has ended", x, 1, false)
	take("what it gave back", y, 60, true)
	b.close(y)
	b.close(y)
	if b.left != 100 || len(b.taken) != 0 {
		t.Errorf("%d bytes are left for %d lanes, want 100 for none", b.left, len(b.taken))
	}
}
