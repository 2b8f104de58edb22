package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxAnswerSize = 32 << 20 // bytes of any answer but the task stream
	maxDetailSize = 1 << 10  // bytes of a sentence that a broker sends

	// answerTime is how long the broker may take beyond the wait that was asked for.
	answerTime = 60 * time.Second
	// pingTime is how long a connection may be silent before it is probed, and how
	// long the probe may take.
	pingTime = 15 * time.Second
)

// A Client speaks to one broker. Its methods may be called concurrently; each
// returns when its answer is whole or its context ends. None tries again: whether that may
// help, problem.MayRetry tells.
//
// Every failure is a *problem.Error. There are four kinds:
//
//  1. the broker refused: the problem that it sent.
//  2. the broker is not who it should be, or has no good certificate: the problem of
//     the tls.Config's own verification, such as problem.CertMismatch.
//  3. the broker was not reached or did not answer in time: problem.Unavailable.
//     What was asked may have been done; all calls may be repeated.
//  4. the caller's context ended: problem.Cancelled or problem.Timeout.
type Client struct {
	base string
	conf *tls.Config

	mu   sync.Mutex // guards all below
	leaf []byte     // DER of our certificate on http's connections
	seen *tls.ConnectionState
	made time.Time // when http was
	http *http.Client
	told bool // the newest answer had NoticeHeader
}

// NewClient returns a client of the broker at base, such as "https://hub.example:7443".
// conf proves who we are and judges the broker; certs.BrokerClient makes one. The
// client asks conf for its certificate before each call, and leaves its old connections when
// there is a new one, when conf's VerifyConnection would not let the broker in any more, and after a day. It connects to nobody yet.
func NewClient(base string, conf *tls.Config) *Client {
	return &Client{base: strings.TrimRight(base, "/"), conf: conf}
}

// Close releases idle connections. The client may be used again.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// Notices reports whether the newest answer said that there are changes of keys of which Account tells.
func (c *Client) Notices() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told
}

// session returns the HTTP client whose connections carry our present certificate and lead to a broker that is good now.
func (c *Client) session() *http.Client {
	leaf := c.ownLeaf()
	c.mu.Lock()
	seen := c.seen
	c.mu.Unlock()
	bad := c.judge(seen) != nil
	c.mu.Lock()
	defer c.mu.Unlock()
	bad = bad && c.seen == seen
	if c.http != nil && bytes.Equal(leaf, c.leaf) && !bad && time.Since(c.made) < certs.MaxConnectionLife {
		return c.http
	}
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
	c.seen, c.made = nil, time.Now()
	c.leaf = leaf
	c.http = &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:     c.conf.Clone(),
			ForceAttemptHTTP2:   true,
			TLSHandshakeTimeout: pingTime,
			DialContext:         (&net.Dialer{Timeout: pingTime}).DialContext,
			IdleConnTimeout:     2 * time.Minute,
			MaxIdleConnsPerHost: 4,
			HTTP2:               &http.HTTP2Config{SendPingTimeout: pingTime, PingTimeout: pingTime},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c.http
}

// judge judges the broker at the other end of a connection anew, which TLS does only once.
func (c *Client) judge(seen *tls.ConnectionState) error {
	if seen == nil || c.conf.VerifyConnection == nil {
		return nil
	}
	return c.conf.VerifyConnection(*seen)
}

// ownLeaf returns the DER of the certificate that the next connection would carry; nil is none.
func (c *Client) ownLeaf() []byte {
	if c.conf.GetClientCertificate == nil {
		if len(c.conf.Certificates) == 0 || len(c.conf.Certificates[0].Certificate) == 0 {
			return nil
		}
		return c.conf.Certificates[0].Certificate[0]
	}
	own, err := c.conf.GetClientCertificate(&tls.CertificateRequestInfo{Version: tls.VersionTLS13})
	if err != nil || own == nil || len(own.Certificate) == 0 {
		return nil
	}
	return own.Certificate[0]
}

// A call is one request.
type call struct {
	method, path string
	body         any           // nil is none
	match        string        // the ETag of what is to be changed; empty is whatever is there
	wait         time.Duration // that the broker may wait before it answers
	limit        int64         // bytes of the answer; 0 is maxAnswerSize
}

// do makes a call and decodes its answer into answer, unless that is nil.
func (c *Client) do(ctx context.Context, k call, answer any) error {
	data, err := c.raw(ctx, k)
	if err != nil || answer == nil {
		return err
	}
	if err := json.Unmarshal(data, answer); err != nil {
		return problem.Wrap(fmt.Errorf("decoding the answer to %s %s: %w", k.method, k.path, err),
			problem.Unavailable, "The broker's answer could not be read")
	}
	return nil
}

// raw makes a call and returns the body of its answer.
func (c *Client) raw(ctx context.Context, k call) ([]byte, error) {
	own, cancel := context.WithTimeout(ctx, k.wait+answerTime)
	defer cancel()
	resp, err := c.send(own, k)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	defer resp.Body.Close()
	limit := int64(maxAnswerSize)
	if k.limit > 0 {
		limit = k.limit
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, c.explain(ctx, err)
	case int64(len(data)) > limit:
		return nil, problem.New(problem.TooLarge, "The broker's answer is larger than %d bytes", limit)
	case resp.StatusCode >= 300:
		return nil, refusal(resp.StatusCode, data)
	}
	return data, nil
}

// send makes the request and returns when the head of the answer is here.
func (c *Client) send(ctx context.Context, k call) (*http.Response, error) {
	var body io.Reader
	if k.body != nil {
		data, err := json.Marshal(k.body)
		if err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "The request could not be encoded")
		}
		if len(data) > MaxBodySize {
			return nil, problem.New(problem.TooLarge, "The request is larger than %d bytes", MaxBodySize)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, k.method, c.base+k.path, body)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The address of the broker is not a URL")
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if k.match != "" {
		req.Header.Set("If-Match", `"`+k.match+`"`)
	}
	resp, err := c.session().Do(req)
	if err == nil {
		c.mu.Lock()
		c.seen, c.told = resp.TLS, resp.Header.Get(NoticeHeader) != ""
		c.mu.Unlock()
	}
	return resp, err
}

// explain makes a *problem.Error of a failure to reach the broker. ctx is the caller's own.
func (c *Client) explain(ctx context.Context, err error) error {
	var known *problem.Error
	var op *net.OpError
	switch {
	case errors.As(err, &known):
		return known
	case ctx.Err() != nil:
		return &problem.Error{Code: problem.Of(ctx.Err()), Cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return problem.Wrap(err, problem.Unavailable, "The broker did not answer in time")
	case errors.As(err, &op) && op.Op == "remote error" && c.ownLeaf() == nil:
		return &problem.Error{Code: problem.CertMissing, Cause: err}
	case errors.As(err, &op) && op.Op == "dial":
		return problem.Wrap(err, problem.Unavailable, "The broker cannot be reached: no connection to its address")
	}
	return problem.Wrap(err, problem.Unavailable, "The connection to the broker broke")
}

// refusal makes a *problem.Error of an answer that is not a success.
func refusal(status int, data []byte) error {
	var p Problem
	if err := json.Unmarshal(data, &p); err != nil || p.Code == "" {
		if status >= 500 {
			return problem.New(problem.Unavailable, "The broker, or something before it, answered with HTTP status %d", status)
		}
		return problem.New(problem.Internal, "The broker answered with HTTP status %d and no explanation", status)
	}
	return p.Err()
}

// Err returns p as an error: a *problem.Error with its code, sentence and remedy. The
// incident, if any, is its cause.
func (p Problem) Err() error {
	e := &problem.Error{Code: p.Code, Detail: shorten(p.Detail), Remedy: shorten(p.Remedy)}
	for _, f := range p.Errors {
		e.Detail = shorten(e.Detail + " (" + f.Location + ": " + f.Message + ")")
	}
	if p.Incident != "" {
		e.Cause = errors.New("incident " + shorten(p.Incident))
	}
	return e
}

// ProblemOf returns the document of err, which must not be nil. It holds the public
// part alone; nothing of an unknown error's text.
func ProblemOf(err error) *Problem {
	e := problem.As(err)
	kind := problem.Lookup(e.Code)
	return &Problem{
		Type: ProblemPath + string(e.Code), Title: kind.Title, Status: kind.HTTP, Detail: e.Sentence(),
		Code: e.Code, Remedy: e.Advice(), Retry: kind.Retry == problem.Later,
	}
}

func shorten(s string) string {
	if len(s) <= maxDetailSize {
		return s
	}
	return strings.ToValidUTF8(s[:maxDetailSize], "") + "..."
}
