package s3

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

const (
	finishWithin = 15 * time.Minute // for Complete, while the service puts the parts together without a word
	maxAnswer    = 64 << 20         // bytes of an answer that is not content
)

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
	slow  *http.Transport   // waits longer for the head of an answer
	base  http.RoundTripper // in place of both; for tests
}

func newTransport(quick *http.Transport) *transport {
	quick.ReadBufferSize, quick.WriteBufferSize = 64<<10, 64<<10
	slow := quick.Clone()
	slow.ResponseHeaderTimeout = finishWithin
	return &transport{quick: quick, slow: slow}
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
	r = r.Clone(r.Context())
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
		tr.err = err
		return nil, err
	}
	tr.status, tr.header = resp.StatusCode, resp.Header
	lists := query.Has("list-type") || query.Has("uploads") || query.Has("uploadId")
	if r.Method != http.MethodGet || lists || resp.StatusCode >= 300 {
		resp.Body = &bounded{ReadCloser: resp.Body, left: maxAnswer}
	}
	if r.Method == http.MethodGet && lists && resp.StatusCode == http.StatusOK && isError(resp) {
		resp.StatusCode = http.StatusInternalServerError // or the client takes it for an empty list
	}
	return resp, nil
}

// isError reports whether an answer of success begins as an error does. Nothing of it is lost.
func isError(resp *http.Response) bool {
	const most = 512 // bytes to the first element
	buf := bufio.NewReaderSize(resp.Body, most)
	head, _ := buf.Peek(most) // an error comes again
	resp.Body = struct {
		io.Reader
		io.Closer
	}{buf, resp.Body}
	return bytes.Contains(head, []byte("<Error>")) || bytes.Contains(head, []byte("<Error "))
}

// bounded is an answer that the client reads into memory.
type bounded struct {
	io.ReadCloser
	left int64 // bytes that may still come
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errors.New("the answer is longer than any should be")
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
