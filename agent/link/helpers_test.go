package link

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An authority issues certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert: cert, key: key, pool: pool}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// leaf issues a certificate for both roles that is valid until end, or as use says.
func (a *authority) leaf(t testing.TB, end time.Time, use ...x509.ExtKeyUsage) tls.Certificate {
	t.Helper()
	if len(use) == 0 {
		use = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	}
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"agent.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end, ExtKeyUsage: use,
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) server(leaf tls.Certificate) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{leaf}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: a.pool, MinVersion: tls.VersionTLS13,
	}
}

func (a *authority) client(leaf *tls.Certificate) *tls.Config {
	return &tls.Config{
		RootCAs: a.pool, ServerName: "agent.test", MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if leaf == nil {
				return &tls.Certificate{}, nil
			}
			return leaf, nil
		},
	}
}

// A pair is two endpoints, of which b serves.
type pair struct {
	ca   *authority
	a, b *Endpoint
	tls  *tls.Config // what a dials with
	to   string      // where b is
}

func endpoint(t testing.TB, e *Endpoint, err error) *Endpoint {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("closing an endpoint: %v", err)
		}
	})
	return e
}

// realPair is a pair over loopback.
func realPair(t testing.TB, cfg Config) *pair {
	t.Helper()
	cfg.Addr = "127.0.0.1:0"
	a, errA := ListenQUIC(Config{Addr: "127.0.0.1:0"})
	b, errB := ListenQUIC(cfg)
	return newPair(t, endpoint(t, a, errA), endpoint(t, b, errB))
}

func newPair(t testing.TB, a, b *Endpoint) *pair {
	t.Helper()
	ca := newAuthority(t)
	leafA, leafB := ca.leaf(t, time.Now().Add(100*time.Hour)), ca.leaf(t, time.Now().Add(100*time.Hour))
	if err := b.Serve(ca.server(leafB)); err != nil {
		t.Fatal(err)
	}
	return &pair{ca: ca, a: a, b: b, tls: ca.client(&leafA), to: b.Addr().String()}
}

// lanes dials once and accepts once.
func (p *pair) lanes(t testing.TB) (dialler, listener Lane) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dialler, err := p.a.Dial(ctx, p.to, p.tls)
	if err != nil {
		t.Fatal(err)
	}
	listener, err = p.b.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return dialler, listener
}

// A world is a simulated network of two hosts, inside a synctest bubble.
type world struct {
	router *rules
	net    *simnet.Simnet
	hosts  [2]*simnet.SimConn
}

// rules drop packets; everything else goes through at once.
type rules struct {
	simnet.PerfectRouter
	drop func(simnet.Packet) bool
}

func (r *rules) SendPacket(p simnet.Packet) error {
	if r.drop != nil && r.drop(p) {
		return nil
	}
	return r.PerfectRouter.SendPacket(p)
}

func newWorld(t testing.TB, latency time.Duration, drop func(simnet.Packet) bool) *world {
	t.Helper()
	w := &world{router: &rules{drop: drop}}
	w.net = &simnet.Simnet{Router: w.router}
	for i := range w.hosts {
		addr := &net.UDPAddr{IP: net.IPv4(10, 0, 0, byte(i+1)).To4(), Port: 4433}
		w.hosts[i] = w.net.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Latency: latency})
	}
	if err := w.net.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.net.Close() }) // it fails only if it was closed before
	return w
}

func (w *world) pair(t testing.TB, cfg Config) *pair {
	t.Helper()
	a, errA := OverPacketConn(w.hosts[0], Config{})
	b, errB := OverPacketConn(w.hosts[1], cfg)
	return newPair(t, endpoint(t, a, errA), endpoint(t, b, errB))
}
