// Package hook calls webhooks: it posts one message to an address that a subscriber has named.
//
// It guarantees that it speaks https alone, and connects to no address outside the public internet but within the networks that the
// operator allows: the address is judged after its name was resolved, as it is dialled, so that no name and no
// redirect leads inside. No redirect is followed, no proxy is asked, no cookie or credential is sent. Nothing
// of an answer is kept but its status and, with 429 and 503, Retry-After; its body is thrown away, and only a
// part of it is read. What a failure says is one of a few sentences, so that whoever names an address learns nothing of
// what else is there.
//
// It does not decide what is sent, nor when to try again.
package hook

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/broker/api/reach"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	connectTime   = 5 * time.Second
	answerTime    = 10 * time.Second
	idleTime      = 30 * time.Second
	maxIdle       = 64
	maxHeaderSize = 16 << 10
	maxBodySize   = 64 << 10 // bytes of an answer's body that are read, and thrown away
)

// Config is what a Sender needs. Its zero value serves: public addresses, and the authorities of the system.
type Config struct {
	// Allow are networks that may be called though they are not of the public internet.
	Allow []netip.Prefix
	// Roots judge receivers. Optional: nil is the system's.
	Roots *x509.CertPool
	// Version is told to receivers. Optional.
	Version string
}

// A Sender posts messages. Its methods may be called concurrently.
type Sender struct {
	conf   Config
	client *http.Client
}

var _ broker.Courier = (*Sender)(nil)

// New returns a Sender that has connected to nobody yet. Close releases what it keeps.
func New(conf Config) *Sender {
	s := &Sender{conf: conf}
	dialer := &net.Dialer{Timeout: connectTime, Control: s.control}
	s.client = &http.Client{
		Transport: &http.Transport{
			Proxy: nil, DialContext: dialer.DialContext, TLSClientConfig: certs.PublicClient(conf.Roots), TLSHandshakeTimeout: connectTime,
			ForceAttemptHTTP2: true, ResponseHeaderTimeout: answerTime, MaxResponseHeaderBytes: maxHeaderSize, DisableCompression: true,
			MaxIdleConns: maxIdle, MaxIdleConnsPerHost: 1, IdleConnTimeout: idleTime,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return s
}

// Close releases idle connections.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// refused is what every address that may not be called gets.
func refused() error {
	return problem.New(problem.HookRefused, "The address of the webhook is not on a public network, and the broker's operator does not allow it")
}

// permits reports whether an address may be dialled.
func (s *Sender) permits(a netip.Addr) bool {
	return reach.Public(a) || slices.ContainsFunc(s.conf.Allow, func(p netip.Prefix) bool { return p.Contains(a.Unmap().WithZone("")) })
}

// control is asked about every address just before it is dialled.
func (s *Sender) control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !s.permits(ap.Addr()) {
		return refused()
	}
	return nil
}

// May returns problem.HookRefused unless the address is an https URL without user and fragment whose host, if it is written as a
// number, may be called. A name is judged each time it is dialled.
func (s *Sender) May(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return problem.New(problem.HookRefused, "The address of the webhook is not of the form https://host/path")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return problem.New(problem.HookRefused, "The port of the webhook's address is not a number from 1 to 65535")
		}
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && !s.permits(a) {
		return refused()
	}
	return nil
}

// Deliver posts a message. It returns nil if the answer is of status 2xx, and else the reason: with broker.ErrGone in its
// chain after 410, and as *broker.Deferred if the receiver said when to come again.
func (s *Sender) Deliver(ctx context.Context, address string, m broker.Message) error {
	if err := s.May(address); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(m.Body))
	if err != nil {
		return problem.Wrap(err, problem.HookRefused, "The address of the webhook is not of the form https://host/path")
	}
	req.Header.Set("Content-Type", "application/cloudevents+json; charset=utf-8")
	req.Header.Set("User-Agent", "consign/"+s.conf.Version)
	req.Header.Set("Webhook-Id", m.ID)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(m.At.Unix(), 10))
	req.Header.Set("Webhook-Signature", m.Signature)
	resp, err := s.client.Do(req)
	if err != nil {
		return explain(err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxBodySize) // the status was all; a body that breaks off changes nothing
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil
	}
	return answered(resp)
}

// answered is the failure of an answer that is not a success.
func answered(resp *http.Response) error {
	var cause error
	if resp.StatusCode == http.StatusGone {
		cause = broker.ErrGone
	}
	err := problem.Wrap(cause, problem.Unavailable, "The receiver of the webhook answered with HTTP status %d", resp.StatusCode)
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		if after := retryAfter(resp.Header.Get("Retry-After"), resp.Header.Get("Date")); after > 0 {
			return &broker.Deferred{After: after, Err: err}
		}
	}
	return err
}

// retryAfter reads Retry-After: seconds, or a date, which is compared with the receiver's own clock. 0 is no wish.
func retryAfter(text, date string) time.Duration {
	if n, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	now, err := http.ParseTime(date)
	if err != nil {
		return 0
	}
	return max(0, at.Sub(now))
}

// explain makes a *problem.Error of a failure to reach the receiver, without its words.
func explain(err error) error {
	var own *problem.Error
	var cert x509.CertificateInvalidError
	var host x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var timeout net.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &cert), errors.As(err, &host), errors.As(err, &unknown):
		return problem.Wrap(err, problem.Unavailable, "The certificate of the webhook's receiver is not good")
	case errors.As(err, &timeout) && timeout.Timeout():
		return problem.Wrap(err, problem.Timeout, "The receiver of the webhook did not answer in time")
	}
	return problem.Wrap(err, problem.Unavailable, "The receiver of the webhook cannot be reached")
}
