package certs_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const alpn = "consign-test/1"

// A meeting is what both sides of one TLS connection over loopback saw.
type meeting struct {
	server, client       tls.ConnectionState
	serverErr, clientErr error // of the handshake and one byte each way
}

// meet connects the two configurations and passes one byte each way: a refused client
// certificate shows on the client's first read, not in its handshake.
func meet(t *testing.T, server, client *tls.Config) meeting {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var m meeting
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := ln.Accept()
		if err != nil {
			m.serverErr = err
			return
		}
		c := tls.Server(raw, server)
		defer c.Close()
		m.serverErr = exchange(c)
		m.server = c.ConnectionState()
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, client)
	m.clientErr = exchange(c)
	m.client = c.ConnectionState()
	c.Close()
	<-done
	return m
}

func exchange(c *tls.Conn) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if err := c.Handshake(); err != nil {
		return err
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// raw is the configuration of a client that we did not write.
func raw(cert ...tls.Certificate) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}, Certificates: cert}
}

func TestBrokerServerLetsEverybodySpeakOnce(t *testing.T) {
	t.Parallel()
	a, stranger := certstest.New(t, alpha), certstest.New(t, beta)
	trust := certstest.Trust(a)
	server := certs.BrokerServer(a.Issue(token.Broker, "main").Pair())
	for name, tt := range map[string]struct {
		leaf *certstest.Leaf
		want problem.Code
	}{
		"good":          {a.Issue(token.Subscriber, "alice"), ""},
		"expired":       {a.Issue(token.Subscriber, "alice", certstest.Expired()), problem.CertExpired},
		"not yet valid": {a.Issue(token.Subscriber, "alice", certstest.NotYet()), problem.CertNotYet},
		"unknown":       {stranger.Issue(token.Subscriber, "alice"), problem.CertUnknown},
		"an authority":  {a.Issue(token.Subscriber, "alice", certstest.AsCA()), problem.CertMisused},
	} {
		m := meet(t, server, raw(tt.leaf.TLS()))
		if m.serverErr != nil || m.clientErr != nil {
			t.Errorf("%s: got %v, %v, want a connection that can carry the reason", name, m.serverErr, m.clientErr)
			continue
		}
		_, err := trust.Verify(m.server.PeerCertificates, time.Now())
		if got := problem.Of(err); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
	m := meet(t, server, raw())
	if m.serverErr != nil || m.clientErr != nil {
		t.Fatalf("no certificate: got %v, %v, want a connection that can carry the reason", m.serverErr, m.clientErr)
	}
	if _, err := trust.Verify(m.server.PeerCertificates, time.Now()); problem.Of(err) != problem.CertMissing {
		t.Errorf("no certificate: got %v, want %s", err, problem.CertMissing)
	}
	stolen := a.Issue(token.Subscriber, "alice").TLS()
	stolen.PrivateKey = a.Issue(token.Subscriber, "mallory").Key
	if m := meet(t, server, raw(stolen)); m.serverErr == nil || m.clientErr == nil {
		t.Error("a certificate without its key: got a connection, want none")
	}
}

func TestBrokerClientWantsOneIdentity(t *testing.T) {
	t.Parallel()
	a, b := certstest.New(t, alpha), certstest.NewUnconstrained(t, beta)
	trust := certstest.Trust(a, b)
	me := b.Issue(token.Agent, "eu-1").Pair()
	want := token.NewIdentity(alpha, token.Broker, "main")
	for name, tt := range map[string]struct {
		leaf *certstest.Leaf
		want problem.Code
	}{
		"the broker":                          {a.Issue(token.Broker, "main"), ""},
		"another broker of the same domain":   {a.Issue(token.Broker, "other"), problem.CertMismatch},
		"an agent of the same domain":         {a.Issue(token.Agent, "main"), problem.CertMisused},
		"a subscriber with server usage":      {a.Issue(token.Subscriber, "main"), problem.CertMisused},
		"the name, by another's authority":    {b.Issue(token.Broker, "main", certstest.As(string(want))), problem.CertUnknown},
		"the name under another's domain":     {b.Issue(token.Broker, "main"), problem.CertMismatch},
		"the broker, expired":                 {a.Issue(token.Broker, "main", certstest.Expired()), problem.CertExpired},
		"the authority's listener":            {a.Issue(token.Broker, "main", certstest.As(certs.IssuerName(alpha))), problem.CertMisused},
		"a name that only begins like wanted": {a.Issue(token.Broker, "main-2"), problem.CertMismatch},
	} {
		server := &tls.Config{Certificates: []tls.Certificate{tt.leaf.TLS()}, ClientAuth: tls.RequireAnyClientCert}
		m := meet(t, server, certs.BrokerClient(me, trust, want))
		if got := codeOf(m.clientErr); got != tt.want {
			t.Errorf("%s: got %q (%v), want %q", name, got, m.clientErr, tt.want)
		}
		if tt.want == "" && m.server.PeerCertificates[0].URIs[0].String() != string(me.Identity()) {
			t.Errorf("%s: the broker did not see our certificate", name)
		}
	}
	server := certs.BrokerServer(a.Issue(token.Broker, "main").Pair())
	if m := meet(t, server, certs.BrokerClient(nil, trust, want)); m.clientErr != nil || len(m.server.PeerCertificates) != 0 {
		t.Errorf("no pair: got %v and %d certificates, want a connection without one", m.clientErr, len(m.server.PeerCertificates))
	}
	if m := meet(t, server, certs.BrokerClient(me, trust, "")); codeOf(m.clientErr) != problem.CertMismatch {
		t.Errorf("no wanted identity: got %v, want a refusal", m.clientErr)
	}
}

// codeOf sees through what crypto/tls wraps.
func codeOf(err error) problem.Code {
	var e *problem.Error
	if errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return problem.Code(err.Error())
	}
	return ""
}

// TestPeers lets every kind of agent meet, as dialler and as listener. Only a chain that is
// good or bad in time passes the handshake, and PeerOf then tells the two apart.
func TestPeers(t *testing.T) {
	t.Parallel()
	a, b, stranger := certstest.New(t, alpha), certstest.NewUnconstrained(t, beta), certstest.New(t, alpha)
	trust := certstest.Trust(a, b)
	me := b.Issue(token.Agent, "me").Pair()
	for name, tt := range map[string]struct {
		leaf *certstest.Leaf
		tls  problem.Code // at the handshake
		peer problem.Code // of PeerOf
	}{
		"agent":                  {a.Issue(token.Agent, "x"), "", ""},
		"agent, Ed25519":         {a.Issue(token.Agent, "x", certstest.WithKey(certstest.Ed25519)), "", ""},
		"agent, P-384":           {a.Issue(token.Agent, "x", certstest.WithKey(certstest.P384)), "", ""},
		"agent, RSA":             {a.Issue(token.Agent, "x", certstest.WithKey(certstest.RSA2048)), "", ""},
		"expired":                {a.Issue(token.Agent, "x", certstest.Expired()), "", problem.CertExpired},
		"not yet valid":          {a.Issue(token.Agent, "x", certstest.NotYet()), "", problem.CertNotYet},
		"unknown":                {stranger.Issue(token.Agent, "x"), problem.CertUnknown, ""},
		"unknown and expired":    {stranger.Issue(token.Agent, "x", certstest.Expired()), problem.CertUnknown, ""},
		"B names A":              {b.Issue(token.Agent, "x", certstest.As("spiffe://a.example/agent/x")), problem.CertUnknown, ""},
		"A names below A":        {a.Issue(token.Agent, "x", certstest.As("spiffe://sub.a.example/agent/x")), problem.CertUnknown, ""},
		"subscriber":             {a.Issue(token.Subscriber, "x"), problem.CertMisused, ""},
		"broker":                 {a.Issue(token.Broker, "x"), problem.CertMisused, ""},
		"expired broker":         {a.Issue(token.Broker, "x", certstest.Expired()), problem.CertMisused, ""},
		"client only":            {a.Issue(token.Agent, "x", certstest.For(x509.ExtKeyUsageClientAuth)), problem.CertMisused, ""},
		"proxy certificate":      {a.Issue(token.Agent, "x").Delegate(certstest.Critical()), problem.CertMisused, ""},
		"proxy, plain extension": {a.Issue(token.Agent, "x").Delegate(), problem.CertUnknown, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check := func(side string, cs tls.ConnectionState, mine, theirs error) {
				if got := codeOf(mine); got != tt.tls {
					t.Fatalf("%s: got %q (%v), want %q", side, got, mine, tt.tls)
				}
				if tt.tls != "" {
					if theirs == nil || strings.Contains(theirs.Error(), "example") {
						t.Errorf("%s: got %v, want a bare alert", side, theirs)
					}
					return
				}
				peer, err := certs.PeerOf(cs, trust, time.Now())
				if got := problem.Of(err); got != tt.peer {
					t.Errorf("%s: got %q, want %q", side, got, tt.peer)
				}
				want := certs.Peer{}
				if tt.peer == "" {
					want = certs.Peer{Identity: "spiffe://a.example/agent/x", Leaf: tt.leaf.Chain.LeafHash(), NotAfter: tt.leaf.Chain[0].NotAfter}
				}
				if peer.Identity != want.Identity || peer.Leaf != want.Leaf || !peer.NotAfter.Equal(want.NotAfter) {
					t.Errorf("%s: got %+v, want %+v", side, peer, want)
				}
			}
			m := meet(t, certs.PeerServer(me, trust, alpn), raw(tt.leaf.TLS()))
			check("as dialler", m.server, m.serverErr, m.clientErr)
			listener := &tls.Config{NextProtos: []string{alpn}, Certificates: []tls.Certificate{tt.leaf.TLS()}, ClientAuth: tls.RequireAnyClientCert}
			m = meet(t, listener, certs.PeerClient(me, trust, alpn, ""))
			check("as listener", m.client, m.clientErr, m.serverErr)
		})
	}
}

func TestPeerClientWantsOneIdentity(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	trust := certstest.Trust(a)
	me := a.Issue(token.Agent, "me").Pair()
	for name, tt := range map[string]struct {
		leaf *certstest.Leaf
		want problem.Code
	}{
		"the one":                {a.Issue(token.Agent, "x"), ""},
		"another":                {a.Issue(token.Agent, "y"), problem.CertMismatch},
		"another, expired":       {a.Issue(token.Agent, "y", certstest.Expired()), problem.CertMismatch},
		"the one, expired, told": {a.Issue(token.Agent, "x", certstest.Expired()), ""},
	} {
		m := meet(t, certs.PeerServer(tt.leaf.Pair(), trust, alpn), certs.PeerClient(me, trust, alpn, "spiffe://a.example/agent/x"))
		if got := codeOf(m.clientErr); got != tt.want {
			t.Errorf("%s: got %q (%v), want %q", name, got, m.clientErr, tt.want)
		}
	}
}

// TestOtherProtocolsAndVersions tries what a peer must not be able to talk us into.
func TestOtherProtocolsAndVersions(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	trust := certstest.Trust(a)
	leaf := a.Issue(token.Agent, "x")
	server := certs.PeerServer(leaf.Pair(), trust, alpn)
	for name, change := range map[string]func(*tls.Config){
		"TLS 1.2":          func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
		"another protocol": func(c *tls.Config) { c.NextProtos = []string{"h3"} },
		"no protocol":      func(c *tls.Config) { c.NextProtos = nil },
		"no certificate":   func(c *tls.Config) { c.Certificates = nil },
	} {
		conf := raw(leaf.TLS())
		change(conf)
		if m := meet(t, server, conf); m.serverErr == nil || m.clientErr == nil {
			t.Errorf("%s: got %v, %v, want refusals", name, m.serverErr, m.clientErr)
		}
	}
}

// TestSessionResumption gives the client a cache and looks whether anything ever gets into it.
func TestSessionResumption(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	trust := certstest.Trust(a)
	leaf := a.Issue(token.Agent, "x")
	for name, server := range map[string]*tls.Config{
		"peer":   certs.PeerServer(leaf.Pair(), trust, alpn),
		"broker": certs.BrokerServer(leaf.Pair()),
	} {
		cache := &countingCache{ClientSessionCache: tls.NewLRUClientSessionCache(8)}
		conf := raw(leaf.TLS())
		conf.ClientSessionCache, conf.ServerName = cache, "x"
		for range 3 {
			if m := meet(t, server, conf); m.clientErr != nil || m.client.DidResume || m.server.DidResume {
				t.Errorf("%s: got %v, resumed %v, want a full handshake", name, m.clientErr, m.client.DidResume)
			}
		}
		if cache.tickets != 0 || cache.asked == 0 {
			t.Errorf("%s: got %d tickets in %d looks, want none in some", name, cache.tickets, cache.asked)
		}
	}
}

type countingCache struct {
	tls.ClientSessionCache
	tickets, asked int
}

func (c *countingCache) Put(key string, s *tls.ClientSessionState) {
	if s != nil {
		c.tickets++
	}
	c.ClientSessionCache.Put(key, s)
}

func (c *countingCache) Get(key string) (*tls.ClientSessionState, bool) {
	c.asked++
	return c.ClientSessionCache.Get(key)
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	now := time.Now()
	hour, day := now.Add(time.Hour), now.Add(24*time.Hour)
	for _, tt := range []struct{ own, peer, want time.Time }{
		{hour, day, hour}, {day, hour, hour}, {now.AddDate(1, 0, 0), now.AddDate(1, 0, 0), day}, {now.Add(-1), day, now.Add(-1)},
	} {
		if got := certs.Deadline(now, tt.own, tt.peer); !got.Equal(tt.want) {
			t.Errorf("own %s, peer %s: got %s, want %s", tt.own, tt.peer, got, tt.want)
		}
	}
}
