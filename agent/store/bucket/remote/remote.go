// Package remote is what backends have in common that speak HTTP through a
// vendor's client: the transport, the body of a part, and the meaning of a request that
// got no answer. It retries nothing.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	dialWithin   = 10 * time.Second
	answerWithin = 2 * time.Minute // from the last byte of a request to the head of its answer
	idleConns    = 128             // kept open to one host
)

// Transport returns a new transport, for one backend. ca is a file of root certificates (PEM); empty means
// the system's. It speaks HTTP/1.1, where parts that go side by side have a connection each, and it never decompresses, because what is
// stored is what is read.
func Transport(ca string) (*http.Transport, error) {
	var roots []byte
	if ca != "" {
		var err error
		if roots, err = os.ReadFile(ca); err != nil {
			return nil, problem.Wrap(err, problem.BadConfig, "The root certificates of the store cannot be read")
		}
	}
	conf, err := certs.WebClient(roots)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The file of root certificates of the store holds no certificate")
	}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialWithin, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   dialWithin,
		ResponseHeaderTimeout: answerWithin,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   idleConns,
		IdleConnTimeout:       time.Minute,
		DisableCompression:    true,
	}, nil
}

// Lost is what a request comes to whose answer did not arrive whole: the context's error, a failure that was typed
// before, or *bucket.Away.
func Lost(ctx context.Context, err error) error {
	var known *problem.Error
	var away *bucket.Away
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &known), errors.As(err, &away):
		return err
	}
	return &bucket.Away{Err: err}
}

// Passing reports whether an HTTP status says that the same request may work later.
func Passing(status int) bool {
	return status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooManyRequests
}

// After is how long an answer asks to wait (RFC 9110, section 10.2.3); 0 if it does not say.
func After(h http.Header) time.Duration {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// Total reads the size of the whole from a Content-Range (RFC 9110, section 14.4), which also an answer of 416 has.
func Total(contentRange string) (int64, error) {
	_, total, ok := strings.Cut(contentRange, "/")
	n, err := strconv.ParseInt(total, 10, 64)
	if !ok || err != nil || n < 0 {
		return 0, fmt.Errorf("reading Content-Range %q: no size", contentRange)
	}
	return n, nil
}
