package link

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/quic-go/quic-go"
)

// A quicLane is a Lane over one QUIC connection.
type quicLane struct{ conn *quic.Conn }

var _ Lane = quicLane{}

func (l quicLane) Open(ctx context.Context) (Stream, error) {
	s, err := l.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, mapped(err)
	}
	return quicStream{s}, nil
}

func (l quicLane) Accept(ctx context.Context) (Stream, error) {
	s, err := l.conn.AcceptStream(ctx)
	if err != nil {
		return nil, mapped(err)
	}
	return quicStream{s}, nil
}

func (l quicLane) TLS() tls.ConnectionState { return l.conn.ConnectionState().TLS }

func (l quicLane) Close(code problem.Code, sentence string) error {
	if code != "" && sentence == "" {
		sentence = problem.Lookup(code).Title
	}
	return l.conn.CloseWithError(quic.ApplicationErrorCode(number(code)), wire.Sentence(sentence))
}

func (l quicLane) Done() <-chan struct{} { return l.conn.Context().Done() }

func (l quicLane) Err() error {
	if l.conn.Context().Err() == nil {
		return nil
	}
	return mapped(context.Cause(l.conn.Context()))
}

// watch returns when the lane has ended. Until then it probes the peer, and it
// ends the lane when the peer's certificate ends.
func (l quicLane) watch() {
	end := time.NewTimer(untilEnd(l.TLS()))
	defer end.Stop()
	probe := time.NewTicker(Probe)
	defer probe.Stop()
	padding := make([]byte, probeSize)
	for {
		select {
		case <-l.Done():
			return
		case <-probe.C:
			// It fails if the lane has ended, which the next round sees, or if
			// the peer takes no datagrams: KeepAlive serves then, and a restart
			// is noticed later.
			_ = l.conn.SendDatagram(padding)
		case <-end.C:
			_ = l.Close(problem.CertExpired, "A certificate of this lane has ended; open a new one with a renewed certificate")
		}
	}
}

// untilEnd is how long the lane may live by the peer's certificate. One that had ended before the handshake gets a moment, in
// which the lane's owner closes it with a sentence that names the certificate.
func untilEnd(state tls.ConnectionState) time.Duration {
	const never = 1 << 62
	if len(state.PeerCertificates) == 0 {
		return never
	}
	left := time.Until(state.PeerCertificates[0].NotAfter)
	if left <= 0 {
		return HandshakeTimeout
	}
	return left
}

// A quicStream is a Stream over one QUIC stream.
type quicStream struct{ s *quic.Stream }

var _ Stream = quicStream{}

func (s quicStream) Read(b []byte) (int, error) {
	n, err := s.s.Read(b)
	return n, mapped(err)
}

func (s quicStream) Write(b []byte) (int, error) {
	n, err := s.s.Write(b)
	return n, mapped(err)
}

func (s quicStream) CloseWrite() error { return mapped(s.s.Close()) }

func (s quicStream) Abandon(code problem.Code) {
	s.s.CancelRead(quic.StreamErrorCode(number(code)))
	s.s.CancelWrite(quic.StreamErrorCode(number(code)))
}

func (s quicStream) SetDeadline(t time.Time) error { return mapped(s.s.SetDeadline(t)) }
