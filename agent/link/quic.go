package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"

	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"
)

// Config is how an endpoint is made. Its zero value serves: any port of every
// address, for dialling or listening.
//
// An endpoint holds at most MaxLanes lanes that others made plus 352 handshakes
// of unproved addresses; for each lane, 768 KiB of what was sent and not yet
// read and 187 KiB of datagrams; and WindowBudget for all of them together.
type Config struct {
	// Addr is host:port of the socket. Empty, or port 0, is a port of the
	// system's choice.
	Addr string
	// ResetKey, kept over restarts, lets peers notice a restart after Probe or
	// at their next request, and not after IdleTimeout. Optional: zero sends no
	// resets.
	ResetKey [32]byte
	// TokenKey signs proofs of address. Optional: zero is a random one, and a
	// handshake that a restart interrupts begins anew.
	TokenKey [32]byte
	// MaxLanes is how many lanes made by others may be open. Optional: DefaultMaxLanes.
	MaxLanes int
	// MaxPerAddress is how many of them one IP address may have, handshakes
	// included. Optional: DefaultMaxPerAddress.
	MaxPerAddress int
	// WindowBudget is what all lanes together may hold beyond their first
	// window, in bytes. Optional: DefaultWindowBudget.
	WindowBudget int64
	// Permit is asked about every address before it is dialled, after a name
	// was resolved; its error is why Dial fails. Optional: all are permitted.
	Permit func(netip.AddrPort) error
}

// An Endpoint is one UDP socket with all lanes over it, those that it dialled
// and those that it accepted. Its methods may be called concurrently.
type Endpoint struct {
	cfg       Config
	conn      net.PacketConn
	transport *quic.Transport
	budget    *budget
	gate      *gate
	offload   func() (reads, datagrams uint64) // nil without receive offload

	lanes sync.WaitGroup // watchers of lanes, and leavers of the gate

	mu       sync.Mutex
	open     map[*quic.Conn]quicLane // guarded by mu; nil once Close began
	accepted int                     // guarded by mu; those of open that others made
	listener *quic.Listener          // guarded by mu; nil before Serve
}

// ListenQUIC opens the socket. On Linux it asks the kernel to deliver datagrams
// of one peer in bundles (UDP_GRO), which raises the rate by a tenth or more,
// and does without if the kernel refuses.
func ListenQUIC(cfg Config) (*Endpoint, error) {
	addr := cfg.Addr
	if addr == "" {
		addr = ":0"
	}
	local, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The address to listen on is not host:port")
	}
	socket, err := net.ListenUDP("udp", local)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The UDP address %q cannot be listened at", addr)
	}
	conn, stats := withOffload(socket)
	e, err := OverPacketConn(conn, cfg)
	if err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	e.offload = stats
	return e, nil
}

// OverPacketConn is ListenQUIC over a connection that the caller made, for
// simulated networks. The endpoint owns conn and closes it; Config.Addr is not
// used.
func OverPacketConn(conn net.PacketConn, cfg Config) (*Endpoint, error) {
	if cfg.MaxLanes < 0 || cfg.MaxPerAddress < 0 || cfg.WindowBudget < 0 {
		return nil, problem.New(problem.BadConfig, "MaxLanes, MaxPerAddress and WindowBudget must not be negative")
	}
	cfg.MaxLanes = orElse(cfg.MaxLanes, DefaultMaxLanes)
	cfg.MaxPerAddress = orElse(cfg.MaxPerAddress, DefaultMaxPerAddress)
	cfg.WindowBudget = orElse(cfg.WindowBudget, DefaultWindowBudget)
	e := &Endpoint{
		cfg:    cfg,
		conn:   conn,
		budget: newBudget(cfg.WindowBudget),
		gate:   &gate{total: cfg.MaxLanes + halfOpen, each: cfg.MaxPerAddress, from: make(map[netip.Addr]int)},
		open:   make(map[*quic.Conn]quicLane),
	}
	unproved := rate.NewLimiter(handshakeRate, handshakeRate)
	e.transport = &quic.Transport{
		Conn:                conn,
		ConnectionIDLength:  8,
		VerifySourceAddress: func(net.Addr) bool { return !unproved.Allow() },
		ConnContext:         e.admit,
	}
	if key := quic.StatelessResetKey(cfg.ResetKey); key != (quic.StatelessResetKey{}) {
		e.transport.StatelessResetKey = &key
	}
	if key := quic.TokenGeneratorKey(cfg.TokenKey); key != (quic.TokenGeneratorKey{}) {
		e.transport.TokenGeneratorKey = &key
	}
	return e, nil
}

func orElse[T int | int64](n, other T) T {
	if n == 0 {
		return other
	}
	return n
}

func (e *Endpoint) quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:           HandshakeTimeout,
		MaxIdleTimeout:                 IdleTimeout,
		KeepAlivePeriod:                KeepAlive,
		EnableDatagrams:                true,
		MaxIncomingStreams:             MaxStreams,
		MaxIncomingUniStreams:          -1,
		InitialStreamReceiveWindow:     firstStreamWindow,
		MaxStreamReceiveWindow:         lastStreamWindow,
		InitialConnectionReceiveWindow: firstLaneWindow,
		MaxConnectionReceiveWindow:     lastLaneWindow,
		AllowConnectionWindowIncrease:  e.budget.take,
	}
}

// admit is asked about every handshake that others begin.
func (e *Endpoint) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	from := addrOf(info.RemoteAddr)
	if err := e.gate.enter(from); err != nil {
		return nil, err
	}
	e.lanes.Add(1)
	context.AfterFunc(ctx, func() {
		defer e.lanes.Done()
		e.gate.leave(from)
	})
	return ctx, nil
}

// Addr is the local address of the socket.
func (e *Endpoint) Addr() net.Addr { return e.conn.LocalAddr() }

// Serve begins to take lanes that others dial, under config, which must ask for
// the peer's certificate and judge it. It does not block; it may be called
// once.
func (e *Endpoint) Serve(config *tls.Config) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.open == nil {
		return problem.New(problem.Draining, "This agent is stopping")
	}
	if config == nil || !demands(config) && config.GetConfigForClient == nil {
		return errUndemanding()
	}
	listener, err := e.transport.Listen(hardened(config), e.quicConfig())
	if err != nil {
		return fmt.Errorf("listening for lanes: %w", err)
	}
	e.listener = listener
	return nil
}

// Accept returns the next lane whose handshake is finished, and with it the
// verification of the peer's certificate. It blocks until there is one. Serve
// comes first.
func (e *Endpoint) Accept(ctx context.Context) (Lane, error) {
	e.mu.Lock()
	listener := e.listener
	e.mu.Unlock()
	if listener == nil {
		return nil, problem.New(problem.Internal, "Lanes were accepted before they were served")
	}
	for {
		conn, err := listener.Accept(ctx)
		if err != nil {
			return nil, mapped(err)
		}
		lane, err := e.adopt(conn, accepted)
		if problem.Of(err) == problem.Overloaded {
			continue // the peer was told; others may still come
		}
		if err != nil {
			return nil, err
		}
		return lane, nil
	}
}

// Dial opens a lane to addr, host:port with a port in digits, under config. A
// name is resolved and up to 4 of its addresses are tried in turn. That it
// returns a Lane does not yet mean that the peer accepts our certificate.
func (e *Endpoint) Dial(ctx context.Context, addr string, config *tls.Config) (Lane, error) {
	if config == nil {
		return nil, problem.New(problem.BadConfig, "A lane needs a TLS configuration")
	}
	targets, err := resolve(ctx, addr)
	if err != nil {
		return nil, err
	}
	for _, target := range targets {
		if e.cfg.Permit != nil {
			if err = e.cfg.Permit(target); err != nil {
				continue
			}
		}
		var conn *quic.Conn
		conn, err = e.transport.Dial(ctx, net.UDPAddrFromAddrPort(target), hardened(config), e.quicConfig())
		if err == nil {
			return e.adopt(conn, dialled)
		}
		if err = mapped(err); problem.Of(err) != problem.PeerUnreached {
			break // another address would answer the same
		}
	}
	return nil, fmt.Errorf("dialling a lane: %w", err)
}

// resolve returns at least one address.
func resolve(ctx context.Context, addr string) ([]netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		return []netip.AddrPort{ap}, nil
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadAddress, "The address of the other agent is not host:port")
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadAddress, "The port in the address of the other agent is not a number")
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(found) == 0 {
		return nil, problem.Wrap(err, problem.PeerUnreached, "The name of the other agent cannot be resolved")
	}
	targets := make([]netip.AddrPort, 0, maxAddresses)
	for _, ip := range found[:min(len(found), maxAddresses)] {
		targets = append(targets, netip.AddrPortFrom(ip.Unmap(), uint16(port)))
	}
	return targets, nil
}

// An origin is which side opened a lane: 1 counts towards Config.MaxLanes, 0 does not.
type origin int

const (
	dialled  origin = 0
	accepted origin = 1
)

// adopt makes a lane of conn and watches it until it ends. One accepted lane
// too many is closed with problem.Overloaded.
func (e *Endpoint) adopt(conn *quic.Conn, from origin) (Lane, error) {
	lane := quicLane{conn}
	e.mu.Lock()
	code := problem.Code("")
	switch {
	case e.open == nil:
		code = problem.Draining
	case from == accepted && e.accepted >= e.cfg.MaxLanes:
		code = problem.Overloaded
	default:
		e.open[conn] = lane
		e.accepted += int(from)
		e.budget.open(conn)
		e.lanes.Go(func() {
			lane.watch()
			e.forget(conn, from)
		})
	}
	e.mu.Unlock()
	if code != "" {
		return nil, errors.Join(problem.New(code, "%s", problem.Lookup(code).Title), lane.Close(code, ""))
	}
	return lane, nil
}

func (e *Endpoint) forget(conn *quic.Conn, from origin) {
	e.budget.close(conn)
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, conn)
	e.accepted -= int(from)
}

// Close ends every lane with problem.Draining, closes the socket and waits for
// what the endpoint started. It is idempotent.
func (e *Endpoint) Close() error {
	e.mu.Lock()
	lanes := e.open
	e.open = nil
	e.mu.Unlock()
	for _, lane := range lanes {
		_ = lane.Close(problem.Draining, "") // never fails
	}
	err := e.transport.Close()
	if lanes != nil {
		err = errors.Join(err, e.conn.Close())
	}
	e.lanes.Wait()
	return err
}

// hardened is config with what every lane has: TLS 1.3, our protocol, no resumption.
func hardened(config *tls.Config) *tls.Config {
	c := config.Clone()
	c.MinVersion = tls.VersionTLS13
	c.NextProtos = []string{wire.ALPN}
	c.SessionTicketsDisabled = true
	c.ClientSessionCache = nil
	if choose := c.GetConfigForClient; choose != nil {
		c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			chosen, err := choose(hello)
			if err != nil {
				return nil, err
			}
			if chosen == nil {
				chosen = config
			}
			if !demands(chosen) {
				return nil, errUndemanding()
			}
			return hardened(chosen), nil
		}
	}
	return c
}

// demands reports whether a peer without a certificate fails the handshake.
func demands(c *tls.Config) bool {
	return c.ClientAuth == tls.RequireAnyClientCert || c.ClientAuth == tls.RequireAndVerifyClientCert
}

func errUndemanding() error {
	return problem.New(problem.BadConfig, "Lanes need a TLS configuration that requires the peer's certificate")
}
