package link

import (
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"
)

// A budget lends window bytes to lanes. It is safe for concurrent use and calls
// nothing.
type budget struct {
	mu    sync.Mutex
	left  int64                // guarded by mu
	taken map[*quic.Conn]int64 // guarded by mu; lanes that may borrow
}

func newBudget(total int64) *budget {
	return &budget{left: total, taken: make(map[*quic.Conn]int64)}
}

// open lets a lane borrow from now on.
func (b *budget) open(c *quic.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken[c] = 0
}

// take lends delta bytes if there are so many left and c is open.
func (b *budget) take(c *quic.Conn, delta uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	was, ok := b.taken[c]
	if !ok || b.left < 0 || delta > uint64(b.left) {
		return false
	}
	b.left -= int64(delta)
	b.taken[c] = was + int64(delta)
	return true
}

// close takes back what c borrowed.
func (b *budget) close(c *quic.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += b.taken[c]
	delete(b.taken, c)
}

var errCrowded = errors.New("link: as many connections as are taken")

// A gate counts connections that others made, half-open ones included. It is
// safe for concurrent use.
type gate struct {
	total, each int

	mu   sync.Mutex
	n    int                // guarded by mu
	from map[netip.Addr]int // guarded by mu
}

// enter counts one connection in, or returns errCrowded.
func (g *gate) enter(a netip.Addr) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.n >= g.total || g.from[a] >= g.each {
		return errCrowded
	}
	g.n++
	g.from[a]++
	return nil
}

func (g *gate) leave(a netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n--
	if g.from[a]--; g.from[a] == 0 {
		delete(g.from, a)
	}
}

// addrOf is the host of a; the zero Addr stands for all that are not IP.
func addrOf(a net.Addr) netip.Addr {
	if u, ok := a.(*net.UDPAddr); ok {
		return u.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}
