package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consign-transfer/consign/token/problem"
	"github.com/quic-go/quic-go/testutils/simnet"
)

// serveBytes answers each stream with n bytes, whatever it was asked, and
// returns when the lane ends.
func serveBytes(ctx context.Context, lane Lane, n int) {
	content := make([]byte, n)
	for {
		s, err := lane.Accept(ctx)
		if err != nil {
			return
		}
		go func() {
			if _, err := io.Copy(io.Discard, s); err != nil {
				s.Abandon(problem.Cancelled)
				return
			}
			if _, err := s.Write(content); err != nil {
				s.Abandon(problem.Cancelled)
				return
			}
			_ = s.CloseWrite() // the reader finds out
		}()
	}
}

// open asks for bytes on a new stream that must end within d.
func open(t testing.TB, lane Lane, d time.Duration) Stream {
	t.Helper()
	s, err := lane.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SetDeadline(time.Now().Add(d)), s.CloseWrite()); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTransferOverALossyDelayedPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n, lost atomic.Int64
		w := newWorld(t, 25*time.Millisecond, func(simnet.Packet) bool {
			drop := n.Add(1)%50 == 7
			if drop {
				lost.Add(1)
			}
			return drop
		})
		a, b := w.pair(t, Config{}).lanes(t)
		go serveEcho(t, b)
		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		got, err := ask(t, a, want)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, %v, want %d", len(got), err, len(want))
		}
		if lost.Load() < 10 {
			t.Errorf("only %d packets were lost", lost.Load())
		}
	})
}

func TestPartition(t *testing.T) {
	for _, tc := range []struct {
		name string
		cut  time.Duration
		want problem.Code
	}{
		{"that heals before the idle timeout", 14 * time.Second, ""},
		{"that does not", 40 * time.Second, problem.PeerUnreached},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var cut atomic.Bool
				w := newWorld(t, 5*time.Millisecond, func(simnet.Packet) bool { return cut.Load() })
				a, b := w.pair(t, Config{}).lanes(t)
				const size = 4 << 20
				go serveBytes(t.Context(), b, size)
				s := open(t, a, 5*time.Minute)
				if _, err := io.ReadFull(s, make([]byte, size/4)); err != nil {
					t.Fatal(err)
				}
				cut.Store(true) // in the middle of the stream
				healed := time.AfterFunc(tc.cut, func() { cut.Store(false) })
				defer healed.Stop()
				rest, err := io.Copy(io.Discard, s)
				if problem.Of(err) != tc.want {
					t.Fatalf("got %v, want %q", err, tc.want)
				}
				if tc.want == "" {
					if rest != size-size/4 {
						t.Errorf("got %d more bytes, want %d", rest, size-size/4)
					}
					return
				}
				<-a.Done()
				<-b.Done()
				for side, lane := range map[string]Lane{"reader": a, "writer": b} {
					if got := problem.Of(lane.Err()); got != tc.want {
						t.Errorf("%s: got %v, want %s", side, lane.Err(), tc.want)
					}
				}
			})
		})
	}
}

func TestIdleLaneIsKeptAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newWorld(t, time.Millisecond, nil).pair(t, Config{}).lanes(t)
		go serveEcho(t, b)
		<-time.After(time.Hour) // of the bubble's time
		if got, err := ask(t, a, []byte("still there?")); err != nil || len(got) == 0 {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// The rule that keeps lanes from deadlock, kept: each stream has a reader that
// waits for nobody, whatever the order in which they were opened.
func TestFiveUnequalReadersAllFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newWorld(t, time.Millisecond, nil).pair(t, Config{}).lanes(t)
		const size = 16 << 20
		go serveBytes(t.Context(), b, size)
		type result struct {
			n   int64
			err error
		}
		results := make(chan result)
		streams := make([]Stream, 5)
		for i := range streams {
			streams[i] = open(t, a, 10*time.Minute)
		}
		for i := range streams {
			go func() {
				n, err := io.Copy(io.Discard, streams[len(streams)-1-i])
				results <- result{n, err}
			}()
		}
		for range streams {
			if r := <-results; r.n != size || r.err != nil {
				t.Errorf("got %d bytes, %v, want %d", r.n, r.err, size)
			}
		}
	})
}

// The same five, read one after the other and the last one first: the unread
// ones hold the lane's window. The deadline turns the deadlock into a problem,
// and giving the others up frees the lane.
func TestReaderThatWaitsForAnotherIsFoundByItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newWorld(t, time.Millisecond, nil).pair(t, Config{}).lanes(t)
		const size = 16 << 20
		go serveBytes(t.Context(), b, size)
		streams := make([]Stream, 5)
		for i := range streams {
			streams[i] = open(t, a, time.Minute)
			synctest.Wait()               // the answer fills what it may,
			<-time.After(time.Second / 2) // round trips included
		}
		n, err := io.Copy(io.Discard, streams[4])
		if problem.Of(err) != problem.Timeout || n == size {
			t.Fatalf("got %d bytes, %v, want a part and problem.Timeout", n, err)
		}
		for _, s := range streams {
			s.Abandon(problem.Cancelled)
		}
		s := open(t, a, time.Minute)
		if n, err := io.Copy(io.Discard, s); n != size || err != nil {
			t.Errorf("after the others were abandoned: got %d bytes, %v, want %d", n, err, size)
		}
	})
}

func TestLaneEndsWithThePeersCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWorld(t, time.Millisecond, nil).pair(t, Config{})
		leaf := p.ca.leaf(t, time.Now().Add(10*time.Minute))
		p.tls = p.ca.client(&leaf)
		began := time.Now()
		a, b := p.lanes(t)
		<-a.Done()
		<-b.Done()
		if got := time.Since(began).Round(time.Second); got != 10*time.Minute {
			t.Errorf("the lane ended after %v, want 10m", got)
		}
		for side, lane := range map[string]Lane{"holder": a, "peer": b} {
			if problem.Of(lane.Err()) != problem.CertExpired {
				t.Errorf("%s: got %v, want %s", side, lane.Err(), problem.CertExpired)
			}
		}
	})
}

// A peer that was killed and started again on its address does not know the
// lane; with its key kept it says so, long before the idle timeout.
func TestRestartedPeerIsNoticedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dead atomic.Bool
		w := newWorld(t, time.Millisecond, func(p simnet.Packet) bool { return dead.Load() })
		cfg := Config{ResetKey: [32]byte{1, 2, 3}}
		p := w.pair(t, cfg)
		a, _ := p.lanes(t)
		dead.Store(true)
		if err := p.b.Close(); err != nil { // its farewell is lost
			t.Fatal(err)
		}
		<-time.After(time.Second) // until it is
		again := simnet.NewBlockingSimConn(w.hosts[1].LocalAddr().(*net.UDPAddr), w.router)
		b, err := OverPacketConn(again, cfg)
		b = endpoint(t, b, err)
		leaf := p.ca.leaf(t, time.Now().Add(time.Hour))
		if err := b.Serve(p.ca.server(leaf)); err != nil {
			t.Fatal(err)
		}
		dead.Store(false)
		began := time.Now()
		<-a.Done()
		if took := time.Since(began); problem.Of(a.Err()) != problem.PeerUnreached || took > Probe+time.Second {
			t.Errorf("got %v after %v, want %s within %v", a.Err(), took, problem.PeerUnreached, Probe+time.Second)
		}
	})
}
