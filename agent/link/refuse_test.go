package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consign-transfer/consign/token/problem"
	"github.com/quic-go/quic-go"
)

// Dial succeeds although the peer refuses our certificate: the first round trip
// says why.
func TestPeerRefusesOurCertificate(t *testing.T) {
	ok := time.Hour
	for _, tc := range []struct {
		name  string
		leaf  func(t testing.TB, p *pair) *tls.Certificate
		want  problem.Code
		words string
	}{
		{"expired", func(t testing.TB, p *pair) *tls.Certificate {
			c := p.ca.leaf(t, time.Now().Add(-time.Minute))
			return &c
		}, problem.CertExpired, "expired"},
		{"of another authority", func(t testing.TB, p *pair) *tls.Certificate {
			c := newAuthority(t).leaf(t, time.Now().Add(ok))
			return &c
		}, problem.CertUnknown, "issuer"},
		{"for servers only", func(t testing.TB, p *pair) *tls.Certificate {
			c := p.ca.leaf(t, time.Now().Add(ok), x509.ExtKeyUsageServerAuth)
			return &c
		}, problem.CertMisused, "kind"},
		{"none", func(testing.TB, *pair) *tls.Certificate { return nil }, problem.CertMissing, "no certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newWorld(t, time.Millisecond, nil).pair(t, Config{})
				lane, err := p.a.Dial(t.Context(), p.to, p.ca.client(tc.leaf(t, p)))
				if err != nil {
					t.Fatalf("dialling: %v, want a lane that fails at its first round trip", err)
				}
				_, err = ask(t, lane, []byte("hello"))
				if e := problem.As(err); e.Code != tc.want || !strings.Contains(e.Sentence(), tc.words) {
					t.Errorf("got %v, want %s with %q", err, tc.want, tc.words)
				}
				<-lane.Done()
				if problem.Of(lane.Err()) != tc.want || !ByPeer(lane.Err()) {
					t.Errorf("the lane ended with %v, want %s by the peer", lane.Err(), tc.want)
				}
			})
		})
	}
}

func TestWeRefuseThePeersCertificate(t *testing.T) {
	own := problem.New(problem.ForeignPeer, "not an agent of that provider")
	for _, tc := range []struct {
		name   string
		leaf   func(t testing.TB, ca *authority) tls.Certificate
		change func(*tls.Config)
		want   problem.Code
	}{
		{"expired", func(t testing.TB, ca *authority) tls.Certificate { return ca.leaf(t, time.Now().Add(-time.Minute)) }, nil, problem.CertExpired},
		{"of another authority", func(t testing.TB, _ *authority) tls.Certificate {
			return newAuthority(t).leaf(t, time.Now().Add(time.Hour))
		}, nil, problem.CertUnknown},
		{"for clients only", func(t testing.TB, ca *authority) tls.Certificate {
			return ca.leaf(t, time.Now().Add(time.Hour), x509.ExtKeyUsageClientAuth)
		}, nil, problem.CertMisused},
		{"of another name", goodLeaf, func(c *tls.Config) { c.ServerName = "other.test" }, problem.CertMismatch},
		{"refused by our own rule", goodLeaf, func(c *tls.Config) {
			c.VerifyConnection = func(tls.ConnectionState) error { return own }
		}, problem.ForeignPeer},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, time.Millisecond, nil)
				a, errA := OverPacketConn(w.hosts[0], Config{})
				b, errB := OverPacketConn(w.hosts[1], Config{})
				a, b = endpoint(t, a, errA), endpoint(t, b, errB)
				ca := newAuthority(t)
				if err := b.Serve(ca.server(tc.leaf(t, ca))); err != nil {
					t.Fatal(err)
				}
				mine := goodLeaf(t, ca)
				config := ca.client(&mine)
				if tc.change != nil {
					tc.change(config)
				}
				lane, err := a.Dial(t.Context(), b.Addr().String(), config)
				if problem.Of(err) != tc.want || lane != nil {
					t.Errorf("got %v, want %s", err, tc.want)
				}
			})
		})
	}
}

func goodLeaf(t testing.TB, ca *authority) tls.Certificate {
	return ca.leaf(t, time.Now().Add(time.Hour))
}

func TestRefusalTravelsWithItsSentence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWorld(t, time.Millisecond, nil).pair(t, Config{})
		for _, tc := range []struct {
			code     problem.Code
			sentence string
			want     string
		}{
			{problem.ForeignPeer, "spiffe://a/agent/x is not expected here", "spiffe://a/agent/x is not expected here"},
			{problem.CertExpired, "it \x1b[31mexpired\r\n", "it  [31mexpired"},
			{problem.PolicyRefused, strings.Repeat("é", 200), strings.Repeat("é", 128)},
			{problem.Draining, "", problem.Lookup(problem.Draining).Title},
		} {
			a, b := p.lanes(t)
			s, err := a.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if a.Err() != nil {
				t.Errorf("got %v of a lane that lives, want nil", a.Err())
			}
			if err := b.Close(tc.code, tc.sentence); err != nil {
				t.Fatal(err)
			}
			_, err = io.ReadAll(s)
			<-a.Done() // shortly after its streams failed
			for what, err := range map[string]error{"read": err, "lane": a.Err(), "own side": b.Err()} {
				if e := problem.As(err); e.Code != tc.code || e.Sentence() != tc.want {
					t.Errorf("%s: got %s %q, want %s %q", what, e.Code, e.Sentence(), tc.code, tc.want)
				}
			}
		}
	})
}

func TestAbandonTellsThePeerTheCode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newWorld(t, time.Millisecond, nil).pair(t, Config{}).lanes(t)
		s, err := a.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("want")); err != nil {
			t.Fatal(err)
		}
		other, err := b.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Abandon(problem.DiskFull)
		<-time.After(time.Second)
		_, readErr := io.ReadAll(other)
		_, writeErr := other.Write(make([]byte, 100))
		_, ownErr := s.Read(make([]byte, 1))
		for what, err := range map[string]error{"peer's read": readErr, "peer's write": writeErr, "own read": ownErr} {
			if problem.Of(err) != problem.DiskFull {
				t.Errorf("%s: got %v, want %s", what, err, problem.DiskFull)
			}
		}
	})
}

func TestDialFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWorld(t, time.Millisecond, nil).pair(t, Config{})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		for _, tc := range []struct {
			name, addr string
			ctx        context.Context
			want       problem.Code
		}{
			{"nobody there", "10.9.9.9:4433", t.Context(), problem.PeerUnreached},
			{"no port", "10.0.0.2", t.Context(), problem.BadAddress},
			{"no such port", "10.0.0.2:seventy", t.Context(), problem.BadAddress},
			{"nothing", "", t.Context(), problem.BadAddress},
			{"cancelled", p.to, ended, problem.Cancelled},
		} {
			if lane, err := p.a.Dial(tc.ctx, tc.addr, p.tls); problem.Of(err) != tc.want || lane != nil {
				t.Errorf("%s: got %v, want %s", tc.name, err, tc.want)
			}
		}
		if took := time.Since(began); took > 3*HandshakeTimeout {
			t.Errorf("it took %v, want at most %v", took, 3*HandshakeTimeout)
		}
		if _, err := p.a.Dial(t.Context(), p.to, nil); problem.Of(err) != problem.BadConfig {
			t.Errorf("without a configuration: got %v", err)
		}
	})
}

func TestAddressThatIsNotPermittedIsNotDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []netip.AddrPort
		w := newWorld(t, time.Millisecond, nil)
		a, err := OverPacketConn(w.hosts[0], Config{Permit: func(ap netip.AddrPort) error {
			asked = append(asked, ap)
			return problem.New(problem.PolicyRefused, "loopback is not dialled")
		}})
		a = endpoint(t, a, err)
		ca := newAuthority(t)
		leaf := goodLeaf(t, ca)
		if _, err := a.Dial(t.Context(), "127.0.0.1:1", ca.client(&leaf)); problem.Of(err) != problem.PolicyRefused {
			t.Errorf("got %v, want %s", err, problem.PolicyRefused)
		}
		if len(asked) != 1 || asked[0] != netip.MustParseAddrPort("127.0.0.1:1") || w.hosts[0].Stats().PacketsSent != 0 {
			t.Errorf("asked %v, sent %d packets", asked, w.hosts[0].Stats().PacketsSent)
		}
	})
}

func TestCloseTellsEveryLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newWorld(t, time.Millisecond, nil).pair(t, Config{})
		a, _ := p.lanes(t)
		a2, _ := p.lanes(t)
		for range 2 {
			if err := p.b.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for _, lane := range []Lane{a, a2} {
			<-lane.Done()
			if problem.Of(lane.Err()) != problem.Draining {
				t.Errorf("got %v, want %s", lane.Err(), problem.Draining)
			}
		}
		_, acceptErr := p.b.Accept(t.Context())
		_, dialErr := p.b.Dial(t.Context(), "10.0.0.1:4433", p.tls)
		for what, err := range map[string]error{"Accept": acceptErr, "Dial": dialErr, "Serve": p.b.Serve(p.tls)} {
			if problem.Of(err) != problem.Draining {
				t.Errorf("%s: got %v, want %s", what, err, problem.Draining)
			}
		}
	})
}

func TestServeDemandsACertificate(t *testing.T) {
	t.Parallel()
	e, err := ListenQUIC(Config{Addr: "127.0.0.1:0"})
	e = endpoint(t, e, err)
	for name, c := range map[string]*tls.Config{"nil": nil, "no client certificate": {}, "optional": {ClientAuth: tls.VerifyClientCertIfGiven}} {
		if err := e.Serve(c); problem.Of(err) != problem.BadConfig {
			t.Errorf("%s: got %v, want %s", name, err, problem.BadConfig)
		}
	}
	if _, err := e.Accept(t.Context()); problem.Of(err) != problem.Internal {
		t.Errorf("Accept before Serve: got %v", err)
	}
	for name, cfg := range map[string]Config{"no port": {Addr: "here"}, "lanes": {Addr: "127.0.0.1:0", MaxLanes: -1}, "budget": {Addr: "127.0.0.1:0", WindowBudget: -1}} {
		if e, err := ListenQUIC(cfg); problem.Of(err) != problem.BadConfig || e != nil {
			t.Errorf("%s: got %v, want %s", name, err, problem.BadConfig)
		}
	}
}

func TestHardenedLeavesNothingToTheCaller(t *testing.T) {
	t.Parallel()
	loose := &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12, NextProtos: []string{"h3"}, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	outer := loose.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return loose, nil }
	chosen, err := hardened(outer).GetConfigForClient(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*tls.Config{"outer": hardened(outer), "chosen": chosen} {
		if c.MinVersion != tls.VersionTLS13 || len(c.NextProtos) != 1 || c.NextProtos[0] != "consign/1" || !c.SessionTicketsDisabled || c.ClientSessionCache != nil {
			t.Errorf("%s: got %+v", name, c)
		}
	}
	for name, choice := range map[string]*tls.Config{"chosen": {ClientAuth: tls.RequestClientCert}, "own": nil} {
		c := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return choice, nil }}
		if got, err := hardened(c).GetConfigForClient(nil); got != nil || problem.Of(err) != problem.BadConfig {
			t.Errorf("%s configuration without a demand: got %v, %v", name, got, err)
		}
	}
	if loose.NextProtos[0] != "h3" || loose.SessionTicketsDisabled {
		t.Error("the caller's configuration was changed")
	}
}

func TestMapped(t *testing.T) {
	t.Parallel()
	alert := func(n uint16, remote bool) error {
		return &quic.TransportError{Remote: remote, ErrorCode: quic.TransportErrorCode(0x100 + n)}
	}
	for _, tc := range []struct {
		name string
		err  error
		want problem.Code
	}{
		{"nil", nil, ""},
		{"idle", &quic.IdleTimeoutError{}, problem.PeerUnreached},
		{"no answer", &quic.HandshakeTimeoutError{}, problem.PeerUnreached},
		{"reset", &quic.StatelessResetError{}, problem.PeerUnreached},
		{"another QUIC", &quic.VersionNegotiationError{}, problem.PeerMisbehaved},
		{"good order", &quic.ApplicationError{Remote: true}, problem.PeerUnreached},
		{"a code", &quic.ApplicationError{Remote: true, ErrorCode: quic.ApplicationErrorCode(problem.Lookup(problem.Taken).Number)}, problem.Taken},
		{"a code from the future", &quic.ApplicationError{Remote: true, ErrorCode: 1 << 40}, problem.Internal},
		{"a stream's code", &quic.StreamError{Remote: true, ErrorCode: quic.StreamErrorCode(problem.Lookup(problem.Changed).Number)}, problem.Changed},
		{"revoked", alert(alertCertificateRevoked, true), problem.CertUnknown},
		{"certificate unknown", alert(alertCertificateUnknown, true), problem.CertUnknown},
		{"unsupported", alert(alertUnsupportedCertificate, true), problem.CertMisused},
		{"access denied", alert(alertAccessDenied, true), problem.CertMisused},
		{"no protocol, theirs", alert(alertNoApplicationProtocol, true), problem.PeerMisbehaved},
		{"no protocol, ours", alert(alertNoApplicationProtocol, false), problem.PeerMisbehaved},
		{"they sent none", alert(alertCertificateRequired, false), problem.CertMissing},
		{"internal alert", alert(80, true), problem.PeerUnreached},
		{"refused connection", &quic.TransportError{Remote: true, ErrorCode: quic.ConnectionRefused}, problem.Overloaded},
		{"plain close", &quic.TransportError{Remote: true, ErrorCode: quic.NoError}, problem.PeerUnreached},
		{"broken rules", &quic.TransportError{Remote: true, ErrorCode: quic.FlowControlError}, problem.PeerMisbehaved},
		{"deadline", os.ErrDeadlineExceeded, problem.Timeout},
		{"socket closed", net.ErrClosed, problem.Draining},
		{"listener closed", quic.ErrServerClosed, problem.Draining},
		{"network down", &net.OpError{Op: "write", Err: errors.New("network is down")}, problem.PeerUnreached},
		{"cancelled", context.Canceled, problem.Cancelled},
		{"a callback's", errors.Join(errors.New("tls"), problem.New(problem.ForeignPeer, "x")), problem.ForeignPeer},
	} {
		got := mapped(tc.err)
		if problem.Of(got) != tc.want {
			t.Errorf("%s: got %v, want %s", tc.name, got, tc.want)
		}
	}
	if got := mapped(io.EOF); got != io.EOF {
		t.Errorf("got %v, want the bare io.EOF", got)
	}
	if got := mapped(&quic.ApplicationError{}); !errors.Is(got, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", got)
	}
}
