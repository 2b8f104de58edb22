package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

func TestOffloadIsUsedAndBytesAreRight(t *testing.T) {
	p := realPair(t, Config{})
	a, b := p.lanes(t)
	go serveEcho(t, b)
	want := make([]byte, 16<<20)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	if got, err := ask(t, a, want); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %d bytes, %v, want the %d that were sent", len(got), err, len(want))
	}
	if p.b.offload == nil {
		if err := tryOffload(t); err == nil {
			t.Fatal("the kernel bundles datagrams, and yet the endpoint does without")
		}
		return
	}
	reads, datagrams := p.b.offload()
	t.Logf("%d bundles for %d datagrams", reads, datagrams)
	if datagrams < 3*reads {
		t.Errorf("got %d datagrams in %d bundles, want at least three in one", datagrams, reads)
	}
}

// tryOffload asks the kernel for what withOffload asks.
func tryOffload(t *testing.T) error {
	t.Helper()
	socket := listenUDP(t)
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var refused error
	if err := raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	}); err != nil {
		t.Fatal(err)
	}
	return refused
}

func listenUDP(t testing.TB) *net.UDPConn {
	t.Helper()
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() }) // closed by its endpoint where it has one
	return socket
}

func TestOffloadDoesWithoutAClosedSocket(t *testing.T) {
	t.Parallel()
	socket := listenUDP(t)
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	if conn, stats := withOffload(socket); conn != net.PacketConn(socket) || stats != nil {
		t.Error("a socket that refuses the option was not left as it is")
	}
}

// cmsg is one control message as the kernel lays it out.
func cmsg(level, kind int32, body []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(body)))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(len(body))))
	binary.NativeEndian.PutUint32(b[8:], uint32(level))
	binary.NativeEndian.PutUint32(b[12:], uint32(kind))
	copy(b[unix.CmsgLen(0):], body)
	return b
}

func groMessage(size uint32) []byte {
	return cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, binary.NativeEndian.AppendUint32(nil, size))
}

func TestSegmentSize(t *testing.T) {
	t.Parallel()
	ecn := cmsg(unix.IPPROTO_IP, unix.IP_TOS, []byte{2})
	for _, tc := range []struct {
		name string
		oob  []byte
		n    int
		want int
	}{
		{"no messages", nil, 1200, 1200},
		{"no datagram", nil, 0, 0},
		{"other messages", ecn, 1200, 1200},
		{"alone", groMessage(1200), 3000, 1200},
		{"behind others", append(bytes.Clone(ecn), groMessage(1200)...), 3000, 1200},
		{"as long as the bundle", groMessage(3000), 3000, 3000},
		{"longer than the bundle", groMessage(4000), 3000, 3000},
		{"zero", groMessage(0), 3000, 3000},
		{"negative", groMessage(1 << 31), 3000, 3000},
		{"short body", cmsg(unix.IPPROTO_UDP, unix.UDP_GRO, []byte{1}), 3000, 3000},
		{"cut", groMessage(1200)[:10], 3000, 3000},
	} {
		if got := segmentSize(tc.oob, tc.n); got != tc.want {
			t.Errorf("%s: got %d, want %d", tc.name, got, tc.want)
		}
	}
}

// Bundles are split at their segment size; each datagram keeps its sender and
// its bundle's control messages; the batches asked for may be of any length.
func TestSplittingBundles(t *testing.T) {
	t.Parallel()
	oob := append(cmsg(unix.IPPROTO_IP, unix.IP_TOS, []byte{3}), groMessage(4)...)
	x, y := &net.UDPAddr{Port: 1}, &net.UDPAddr{Port: 2}
	for _, batch := range []int{1, 2, 3, 8} {
		c := &offloadConn{}
		c.bundles = []ipv4.Message{
			{Buffers: [][]byte{[]byte("aaaabbbbcc")}, OOB: oob, N: 10, NN: len(oob), Addr: x},
			{Buffers: [][]byte{{}}, Addr: y},
			{Buffers: [][]byte{[]byte("whole datagram")}, N: 14, Addr: y},
		}
		c.openBundle()
		var got []string
		for len(c.bundles) > 0 {
			ms := make([]ipv4.Message, batch)
			for i := range ms {
				ms[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 8)}, OOB: make([]byte, oobSize)}
			}
			n, err := c.ReadBatch(ms, 0)
			if err != nil || n < 1 {
				t.Fatalf("got %d, %v", n, err)
			}
			for _, m := range ms[:n] {
				got = append(got, string(m.Buffers[0][:m.N]))
				if wantOOB := m.Addr == x; wantOOB != bytes.Equal(m.OOB[:m.NN], oob) || wantOOB != (m.N == 4 || m.N == 2) {
					t.Errorf("%q came from %v with %d bytes of control", got[len(got)-1], m.Addr, m.NN)
				}
			}
		}
		want := []string{"aaaa", "bbbb", "cc", "", "whole da"}
		if len(got) != len(want) {
			t.Fatalf("batches of %d: got %q, want %q", batch, got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("batches of %d: got %q, want %q", batch, got, want)
			}
		}
	}
}

// unbundled is an endpoint whose socket is left as it is.
func unbundled(t testing.TB) *Endpoint {
	e, err := OverPacketConn(listenUDP(t), Config{})
	return endpoint(t, e, err)
}

func bundled(t testing.TB) *Endpoint {
	e, err := ListenQUIC(Config{Addr: "127.0.0.1:0"})
	return endpoint(t, e, err)
}

// fetch reads n bytes over each lane at once.
func fetch(b *testing.B, lanes []Lane, n int) {
	b.Helper()
	done := make(chan error, len(lanes))
	for _, lane := range lanes {
		go func() {
			s, err := lane.Open(context.Background())
			if err == nil {
				err = s.CloseWrite()
			}
			if err == nil {
				_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, s, make([]byte, 256<<10))
			}
			done <- err
		}()
	}
	for range lanes {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// Memory to discard over loopback, both ends in this process. Each round does
// the same with and without offload, so that "ratio" compares like with like.
func BenchmarkLanes(b *testing.B) {
	const size = 64 << 20
	for _, lanes := range []int{1, 4, 8} {
		b.Run(map[int]string{1: "1", 4: "4", 8: "8"}[lanes], func(b *testing.B) {
			with, without := benchLanes(b, bundled(b), bundled(b), lanes, size), benchLanes(b, unbundled(b), unbundled(b), lanes, size)
			var on, off float64
			b.ResetTimer()
			for b.Loop() {
				on += timed(func() { fetch(b, with, size/lanes) })
				off += timed(func() { fetch(b, without, size/lanes) })
			}
			total := float64(size) * float64(b.N) / 1e6
			b.ReportMetric(total/on, "MB/s-gro")
			b.ReportMetric(total/off, "MB/s-plain")
			b.ReportMetric(off/on, "ratio")
		})
	}
}
