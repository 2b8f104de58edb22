package link

import (
	"testing"
	"time"
)

// benchLanes opens n lanes from a to b over which each stream brings size/n bytes.
func benchLanes(tb testing.TB, a, b *Endpoint, n, size int) []Lane {
	tb.Helper()
	p := newPair(tb, a, b)
	lanes := make([]Lane, n)
	for i := range lanes {
		dialler, listener := p.lanes(tb)
		lanes[i] = dialler
		go serveBytes(tb.Context(), listener, size/n)
	}
	return lanes
}

// timed is how long f took, in seconds.
func timed(f func()) float64 {
	began := time.Now()
	f()
	return time.Since(began).Seconds()
}
