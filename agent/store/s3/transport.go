package s3

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	stallAfter   = time.Minute      // without a byte, of a connection that should move
	finishWithin = 15 * time.Minute // for Complete, while the service puts the parts together without a word
	maxAnswer    = 64 << 20         // bytes of an answer that is not content
)

// errStalled is the end of an answer of which nothing came for stallAfter.
var errStalled = errors.New("the answer stalled")

// A trip is what the requests of one call met. It travels in their context, because the client gives headers and causes only of some
// answers. Requests of one call do not overlap.
type trip struct {
	ifMatch string      // sent, where the client has no option for it; it is not signed, which only x-amz-* must be
	spoil   bool        // the body is changed on its way
	status  int         // of the last answer; 0 if there was none
	header  http.Header // of the last answer
	err     error       // why there was no answer
}

type tripKey struct{}

// withTrip returns the context for the requests of one call.
func withTrip(ctx context.Context) (context.Context, *trip) {
	t := &trip{header: http.Header{}}
	return context.WithValue(ctx, tripKey{}, t), t
}

// transport is the http.RoundTripper below the client. It never retries.
type transport struct {
	quick *http.Transport
	slow  *http.Transport // waits longer for the head of an answer
	stall time.Duration
	base  http.RoundTripper // in place of both; for tests
}

func newTransport(quick *http.Transport) *transport {
	dial := quick.DialContext
	quick.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &conn{c}, nil
	}
	quick.ResponseHeaderTimeout = stallAfter
	quick.ReadBufferSize, quick.WriteBufferSize = 64<<10, 64<<10
	slow := quick.Clone()
	slow.ResponseHeaderTimeout = finishWithin
	return &transport{quick: quick, slow: slow, stall: stallAfter}
}

func (t *transport) close() {
	t.quick.CloseIdleConnections()
	t.slow.CloseIdleConnections()
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	tr, _ := r.Context().Value(tripKey{}).(*trip)
	if tr == nil {
		tr = &trip{}
	}
	tr.status, tr.header, tr.err = 0, http.Header{}, nil
	ctx, cancel := context.WithCancelCause(r.Context())
	r = r.Clone(ctx)
	if tr.ifMatch != "" {
		r.Header.Set("If-Match", tr.ifMatch)
	}
	if tr.spoil && r.Body != nil {
		r.Body = &spoiled{ReadCloser: r.Body}
	}
	query := r.URL.Query()
	var via http.RoundTripper = t.quick
	switch {
	case t.base != nil:
		via = t.base
	case r.Method == http.MethodPost && query.Has("uploadId"):
		via = t.slow
	}
	resp, err := via.RoundTrip(r)
	if err != nil {
		cancel(nil)
		tr.err = err
		return nil, err
	}
	tr.status, tr.header = resp.StatusCode, resp.Header
	a := &answer{body: resp.Body, cancel: cancel, ctx: ctx, stall: t.stall, left: -1}
	if r.Method != http.MethodGet || query.Has("list-type") || query.Has("uploads") || query.Has("uploadId") || resp.StatusCode >= 300 {
		a.left = maxAnswer
	}
	a.timer = time.AfterFunc(t.stall, func() { cancel(errStalled) })
	a.timer.Stop()
	resp.Body = a
	return resp, nil
}

// An answer is the body of an answer that is given up if nothing comes, while somebody reads it. One goroutine reads it.
type answer struct {
	body   io.ReadCloser
	ctx    context.Context // of the request
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
	left   int64 // bytes that may still come; negative is any
	once   sync.Once
	err    error
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, errors.New("the answer is longer than any should be")
	}
	if a.left > 0 {
		p = p[:min(int64(len(p)), a.left)]
	}
	a.timer.Reset(a.stall)
	n, err := a.body.Read(p)
	a.timer.Stop()
	if a.left > 0 {
		a.left -= int64(n)
	}
	if err != nil && errors.Is(context.Cause(a.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

// Close implements io.Closer.
func (a *answer) Close() error {
	a.once.Do(func() {
		a.timer.Stop()
		a.err = a.body.Close()
		a.cancel(nil)
	})
	return a.err
}

// A conn gives up when a write does not move.
type conn struct{ net.Conn }

// Write implements io.Writer.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(stallAfter)); err != nil { //nolint:forbidigo // a deadline of the network
		return 0, err
	}
	return c.Conn.Write(p)
}
