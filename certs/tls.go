package certs

import (
	"cmp"
	"crypto/tls"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// MaxConnectionLife bounds how long a connection rests on one handshake.
const MaxConnectionLife = 24 * time.Hour

// base is what every configuration has: TLS 1.3, no session tickets, and a certificate
// that is asked for at each handshake, so that a renewed one is used by the next
// connection and is sent whatever authorities the other side hints at. p may be nil for
// a client without a certificate.
func base(p *Pair) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return p.current(), nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return p.current(), nil
		},
	}
}

// current returns the certificate for TLS; the empty one, which is none, for a nil Pair.
func (p *Pair) current() *tls.Certificate {
	if p == nil {
		return &tls.Certificate{}
	}
	c := p.cur.Load().tls
	return &c
}

// BrokerServer is for the broker's HTTP listener. TLS makes a client that shows a certificate prove
// that it holds its key, and judges no more: the caller MUST call Trust.Verify with the connection's
// PeerCertificates, which may be none, before anything else, and can then refuse in words.
func BrokerServer(p *Pair) *tls.Config {
	c := base(p)
	c.ClientAuth = tls.RequestClientCert
	return c
}

// BrokerClient is for dialling the broker want. Its chain must be good for its
// domain now and must name exactly want; DNS names play no part. A handshake with another fails with
// problem.CertMismatch or an outcome of Trust.Verify. p may be nil if we have no certificate.
func BrokerClient(p *Pair, t *Trust, want token.Identity) *tls.Config {
	c := base(p)
	c.InsecureSkipVerify = true // crypto/tls would match DNS names and pool the roots; VerifyConnection does the whole of it
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := t.Verify(cs.PeerCertificates, time.Now())
		if err != nil {
			return err
		}
		return mustBe(id, want, token.Broker)
	}
	return c
}

// PeerServer is for an agent that listens to other agents by the given protocol. The
// dialler must prove that it is an agent of a trusted domain; which one it must be, the
// capability decides. One whose chain is genuine and not good now, or revoked, passes the handshake so that it can be
// told why: the caller MUST call PeerOf, and close with the problem it returns.
func PeerServer(p *Pair, t *Trust, alpn string) *tls.Config {
	c := peer(p, t, alpn, "")
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

// PeerClient is for an agent that dials the agent want, or any agent of a trusted domain
// if want is empty. As with PeerServer, the caller MUST call PeerOf before it uses the connection.
func PeerClient(p *Pair, t *Trust, alpn string, want token.Identity) *tls.Config {
	c := peer(p, t, alpn, want)
	c.InsecureSkipVerify = true // as in BrokerClient
	return c
}

func peer(p *Pair, t *Trust, alpn string, want token.Identity) *tls.Config {
	c := base(p)
	c.NextProtos = []string{alpn}
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != alpn {
			return problem.New(problem.PeerMisbehaved, "The peer does not speak %q.", alpn)
		}
		id, err := t.verify(cs.PeerCertificates, time.Now())
		if !genuine(err) {
			return err
		}
		return mustBe(id, cmp.Or(want, id), token.Agent)
	}
	return c
}

// mustBe refuses all but the wanted identity in the wanted role.
func mustBe(id, want token.Identity, role token.Role) error {
	switch {
	case id.Role() != role:
		return problem.New(problem.CertMisused, "The peer's certificate is of role %q where %q is needed.", id.Role(), role)
	case id != want:
		return problem.New(problem.CertMismatch, "The peer is %s where %s was expected.", id, want)
	}
	return nil
}

// A Peer is who is at the other end of a connection.
type Peer struct {
	Identity token.Identity
	Leaf     token.Hash // to which capabilities are bound
	Chain    Chain
	NotAfter time.Time // of the leaf
}

// PeerOf returns who is at the other end of a connection that PeerServer or PeerClient
// made. It fails with the outcomes of Trust.Verify; the sentence of CertExpired and CertNotYet is meant for the peer.
func PeerOf(cs tls.ConnectionState, t *Trust, now time.Time) (Peer, error) {
	chain := Chain(cs.PeerCertificates)
	id, err := t.Verify(chain, now)
	if err != nil {
		return Peer{}, err
	}
	return Peer{Identity: id, Leaf: chain.LeafHash(), Chain: chain, NotAfter: chain[0].NotAfter}, nil
}

// Deadline returns when a connection must be closed: at the end of either certificate, or
// after MaxConnectionLife. TLS itself never looks at a date again.
func Deadline(now, own, peer time.Time) time.Time {
	end := now.Add(MaxConnectionLife)
	for _, t := range []time.Time{own, peer} {
		if t.Before(end) {
			end = t
		}
	}
	return end
}
