// Package link carries lanes between two agents: connections that are mutually
// authenticated by TLS 1.3, with any number of streams in each. QUIC is the
// transport so far; the interfaces are what a second one implements.
//
// It guarantees that nothing waits for ever on a peer that is gone: handshakes
// end after HandshakeTimeout, silent lanes after IdleTimeout, lanes of any kind
// when the peer's certificate does. It guarantees that every failure comes back
// as a *problem.Error, with the code and the sentence that the peer gave when
// it gave any, cleaned and at most wire.MaxSentence bytes; and that what a
// stranger can make us hold is bounded: see Config and limits.go. There are no
// session tickets and no 0-RTT, so a handshake always proves the key.
//
// It does not judge who the peer is: that is the tls.Config's doing, which the
// caller brings. Dial returns a Lane although the peer may be about to refuse
// our certificate (TLS 1.3 does not wait for that): the first round trip on the
// lane tells, and the caller calls a lane up only after it.
//
// # The reader never waits
//
// The streams of a lane share its flow-control window. A stream that nobody
// reads keeps its part of it; a few of them hold all of it, and then the one
// stream that is being read gets nothing more, for ever: a deadlock in which
// both sides wait in good faith. So, for every stream that was opened:
//
//   - its buffer, memory budget and place on disk are had before the request is written;
//   - once the request is written, its reader reads until EOF or calls Abandon; it waits
//     for no other stream, no order among streams, and no lock that is held across a read of another stream;
//   - every stream has a deadline, so that a broken rule is a problem.Timeout
//     with a stack to look at, and not silence.
//
// The rule lives with whoever opens streams, which is one goroutine a want. The
// package cannot enforce it; its tests show both halves.
//
// Errors are *problem.Error but for io.EOF and a context's own error; ErrClosed
// can be matched. Lanes, streams and endpoints may be used concurrently; of one
// stream, one goroutine reads and one writes.
package link

import (
	"context"
	"crypto/tls"
	"io"
	"time"

	"github.com/consign-transfer/consign/token/problem"
)

// ErrClosed is what calls on a lane return after either side closed it in good order.
var ErrClosed error = &problem.Error{Code: problem.PeerUnreached, Detail: "The lane was closed in good order"}

// A Lane is one connection between two agents.
type Lane interface {
	// Open opens a stream. It blocks while the peer's limit of open streams is reached.
	Open(ctx context.Context) (Stream, error)
	// Accept returns the next stream that the peer opened. It blocks until
	// there is one.
	Accept(ctx context.Context) (Stream, error)
	// TLS is the state of the finished handshake, with the peer's verified chain.
	TLS() tls.ConnectionState
	// Close ends the lane and every stream in it. The peer's calls fail with
	// code and sentence; an empty code closes in good order, and they fail with
	// ErrClosed. Only the first Close of a lane has an effect.
	Close(code problem.Code, sentence string) error
	// Done is closed when the lane has ended, whoever ended it.
	Done() <-chan struct{}
	// Err is why the lane ended, nil while it has not. Calls may fail a moment
	// before Done is closed.
	Err() error
}

// A Stream is a pair of byte sequences, one each way. Whoever opened it calls
// CloseWrite when the request is written and reads to EOF, or calls Abandon:
// what is left unread keeps its part of the lane's window.
type Stream interface {
	io.Reader
	io.Writer
	// CloseWrite ends our side: the peer reads EOF. Reading goes on.
	CloseWrite() error
	// Abandon gives both directions up: the peer's reads and writes fail with
	// code, ours too, and unread bytes return their credit. After a complete
	// exchange it does nothing, so it may be deferred.
	Abandon(code problem.Code)
	// SetDeadline is the time after which reads and writes fail with problem.Timeout.
	SetDeadline(t time.Time) error
}
