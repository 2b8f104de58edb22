package link

import "time"

// What a lane may take, and for how long.
const (
	// HandshakeTimeout is how long a handshake may be silent; the whole may
	// take twice as long.
	HandshakeTimeout = 5 * time.Second
	// IdleTimeout is how long a lane may be silent before it has ended.
	IdleTimeout = 30 * time.Second
	// Probe is how often each side of a lane sends a datagram (RFC 9221) of
	// probeSize bytes without meaning. It keeps the lane alive, and it is long
	// enough for a peer that was killed and started again to answer with a
	// stateless reset (RFC 9000 section 10.3), which QUIC's own PING is not: so
	// a restart is noticed after Probe and not after IdleTimeout.
	Probe = 5 * time.Second
	// KeepAlive is how often a lane without traffic sends a PING, where the
	// peer takes no datagrams.
	KeepAlive = 10 * time.Second

	// MaxStreams is how many streams of a peer may be open in one lane at once.
	MaxStreams = 16

	// DefaultMaxLanes is Config.MaxLanes if it is zero.
	DefaultMaxLanes = 256
	// DefaultMaxPerAddress is Config.MaxPerAddress if it is zero.
	DefaultMaxPerAddress = 64
	// DefaultWindowBudget is Config.WindowBudget if it is zero, in bytes.
	DefaultWindowBudget = 64 << 20

	// handshakeRate is how many handshakes a second, and at once, may come from
	// addresses that have not proved that they can be reached. What is above is
	// answered by a Retry, which holds no memory.
	handshakeRate = 32
	// halfOpen is how many unproved handshakes can be open at that rate: each
	// ends after at most twice HandshakeTimeout.
	halfOpen = handshakeRate + handshakeRate*int(2*HandshakeTimeout/time.Second)

	// The windows, in bytes, bound what a lane holds of what was sent and not
	// yet read. A lane starts with the first ones, out of no budget; beyond it
	// grows as it is read, up to the last ones, out of the endpoint's
	// WindowBudget.
	firstStreamWindow = 512 << 10
	firstLaneWindow   = 768 << 10
	lastStreamWindow  = 6 << 20
	lastLaneWindow    = 12 << 20

	probeSize    = 64 // bytes; any packet above 42 is answered
	maxAddresses = 4  // addresses of one name that Dial tries
)
