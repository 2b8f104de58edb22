package link

import (
	"encoding/binary"
	"net"
	"sync/atomic"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	bundles    = 8        // bundles that one system call may fill
	bundleSize = 64 << 10 // the longest that the kernel makes
	oobSize    = 128      // as much as quic-go gives for a datagram's control messages
	cmsgLen    = 4        // of the segment size in its control message
	minSegment = 1
)

// An offloadConn is a UDP socket whose datagrams the kernel delivers in
// bundles: those of one flow and one length behind each other (UDP_GRO). It
// hands them to quic-go one by one, each with the control messages (ECN bits,
// packet info) of its bundle, which are the same for all in it.
//
// ReadBatch is called by one goroutine; the rest is the socket's own.
type offloadConn struct {
	*net.UDPConn
	batch *ipv4.PacketConn

	bundles []ipv4.Message // what the last system call filled
	rest    []byte         // of bundles[0], not yet handed out
	segment int            // length of the datagrams in rest but the last

	all   []ipv4.Message
	reads atomic.Uint64 // bundles
	grams atomic.Uint64 // datagrams
}

// withOffload turns receive offload on. If the kernel refuses, it returns
// socket as it is, and no counter.
func withOffload(socket *net.UDPConn) (net.PacketConn, func() (reads, datagrams uint64)) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return socket, nil
	}
	var refused error
	err = raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
	})
	if err != nil || refused != nil {
		return socket, nil
	}
	c := &offloadConn{UDPConn: socket, batch: ipv4.NewPacketConn(socket), all: make([]ipv4.Message, bundles)}
	for i := range c.all {
		c.all[i].Buffers = [][]byte{make([]byte, bundleSize)}
		c.all[i].OOB = make([]byte, oobSize)
	}
	return c, func() (uint64, uint64) { return c.reads.Load(), c.grams.Load() }
}

// ReadBatch fills ms with datagrams, at least one if err is nil. It blocks only
// if no datagram is left of the last system call.
func (c *offloadConn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	if len(c.bundles) == 0 {
		n, err := c.batch.ReadBatch(c.all, flags)
		if n <= 0 || err != nil {
			return 0, err
		}
		c.reads.Add(uint64(n))
		c.bundles = c.all[:n]
		c.openBundle()
	}
	n := 0
	for n < len(ms) && len(c.bundles) > 0 {
		c.next(&ms[n])
		n++
	}
	c.grams.Add(uint64(n))
	return n, nil
}

// openBundle prepares the first of the bundles for next.
func (c *offloadConn) openBundle() {
	m := &c.bundles[0]
	c.rest = m.Buffers[0][:m.N]
	c.segment = segmentSize(m.OOB[:m.NN], m.N)
}

// next copies one datagram to m. One that is longer than m's buffer is cut, as
// the kernel would have done.
func (c *offloadConn) next(m *ipv4.Message) {
	from := &c.bundles[0]
	n := min(c.segment, len(c.rest))
	m.N = copy(m.Buffers[0], c.rest[:n])
	m.NN = copy(m.OOB, from.OOB[:from.NN])
	m.Addr, m.Flags = from.Addr, from.Flags
	c.rest = c.rest[n:]
	if len(c.rest) > 0 {
		return
	}
	if c.bundles = c.bundles[1:]; len(c.bundles) > 0 {
		c.openBundle()
	}
}

// segmentSize is the length of the datagrams in a bundle of n bytes with these
// control messages; n if they say none.
func segmentSize(oob []byte, n int) int {
	for len(oob) > 0 {
		head, body, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			break
		}
		if head.Level == unix.IPPROTO_UDP && head.Type == unix.UDP_GRO && len(body) >= cmsgLen {
			if size := int(int32(binary.NativeEndian.Uint32(body))); size >= minSegment && size < n {
				return size
			}
		}
		oob = rest
	}
	return n
}
