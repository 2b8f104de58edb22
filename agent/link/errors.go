package link

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"

	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/quic-go/quic-go"
)

// number is the spelling of code on the wire; 0 is good order.
func number(code problem.Code) uint64 {
	if code == "" {
		return 0
	}
	return problem.Lookup(code).Number
}

// mapped turns an error of the transport into one of ours. It leaves nil,
// io.EOF and the error of a context alone.
func mapped(err error) error {
	var own *problem.Error
	var app *quic.ApplicationError
	var stream *quic.StreamError
	var transport *quic.TransportError
	switch {
	case err == nil, err == io.EOF: //nolint:errorlint // a reader's contract is the bare io.EOF
		return err
	case errors.As(err, &own): // a callback of the tls.Config, or mapped before
		return &problem.Error{Code: own.Code, Detail: own.Detail, Remedy: own.Remedy, Cause: err}
	case errors.As(err, &app):
		return closed(uint64(app.ErrorCode), app.ErrorMessage, err)
	case errors.As(err, &stream):
		return closed(uint64(stream.ErrorCode), "", err)
	case errors.As(err, &transport):
		return fault(transport)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return problem.Wrap(err, problem.Timeout, "The other agent did not go on in the time that it has")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return mappedSilence(err)
}

// mappedSilence is for what ends a lane without a word of the peer.
func mappedSilence(err error) error {
	var idle *quic.IdleTimeoutError
	var handshake *quic.HandshakeTimeoutError
	var reset *quic.StatelessResetError
	var version *quic.VersionNegotiationError
	switch {
	case errors.As(err, &idle):
		return problem.Wrap(err, problem.PeerUnreached, "The other agent fell silent")
	case errors.As(err, &handshake):
		return problem.Wrap(err, problem.PeerUnreached, "The other agent did not answer")
	case errors.As(err, &reset):
		return problem.Wrap(err, problem.PeerUnreached, "The other agent was started again and does not know this lane")
	case errors.As(err, &version):
		return problem.Wrap(err, problem.PeerMisbehaved, "The other agent speaks no common version of QUIC")
	case errors.Is(err, quic.ErrTransportClosed), errors.Is(err, quic.ErrServerClosed), errors.Is(err, net.ErrClosed):
		return problem.Wrap(err, problem.Draining, "This agent is stopping")
	}
	return problem.Wrap(err, problem.PeerUnreached, "The other agent cannot be reached")
}

// ByPeer reports whether the other side brought an error of this package about, by closing the lane or refusing it.
func ByPeer(err error) bool {
	var app *quic.ApplicationError
	var transport *quic.TransportError
	return errors.As(err, &app) && app.Remote || errors.As(err, &transport) && transport.Remote
}

// closed is a lane or stream that one of the sides ended with a number of
// token/problem.
func closed(number uint64, sentence string, cause error) error {
	if number == 0 {
		return ErrClosed
	}
	code := problem.Internal // also for the code of a newer peer, whose sentence still helps
	if kind, ok := problem.ByNumber(number); ok {
		code = kind.Code
	}
	return &problem.Error{Code: code, Detail: wire.Sentence(sentence), Cause: cause}
}

// fault maps an error of QUIC or TLS itself.
func fault(err *quic.TransportError) error {
	if err.ErrorCode >= 0x100 && err.ErrorCode < 0x200 {
		if err.Remote {
			return refusedByPeer(uint8(err.ErrorCode), err)
		}
		return refusedByUs(err)
	}
	switch err.ErrorCode {
	case quic.ConnectionRefused:
		return problem.Wrap(err, problem.Overloaded, "The other agent has as many lanes as it takes")
	case quic.NoError, quic.ApplicationErrorErrorCode, quic.NoViablePathError:
		return problem.Wrap(err, problem.PeerUnreached, "The other agent closed the lane")
	}
	return problem.Wrap(err, problem.PeerMisbehaved, "The lane broke the rules of QUIC")
}

// Alerts of RFC 8446 section 6 that say something about a certificate.
const (
	alertBadCertificate         = 42
	alertUnsupportedCertificate = 43
	alertCertificateRevoked     = 44
	alertCertificateExpired     = 45
	alertCertificateUnknown     = 46
	alertUnknownCA              = 48
	alertAccessDenied           = 49
	alertCertificateRequired    = 116
	alertNoApplicationProtocol  = 120
)

// refusedByPeer explains an alert, which carries no text, from our side.
func refusedByPeer(alert uint8, err error) error {
	switch alert {
	case alertCertificateExpired:
		return problem.Wrap(err, problem.CertExpired, "The other agent refused our certificate: it has expired or is not valid yet")
	case alertUnknownCA, alertCertificateUnknown, alertCertificateRevoked:
		return problem.Wrap(err, problem.CertUnknown, "The other agent refused our certificate: it does not trust its issuer")
	case alertBadCertificate, alertUnsupportedCertificate, alertAccessDenied:
		return problem.Wrap(err, problem.CertMisused, "The other agent refused our certificate: it is not of the kind that it expects")
	case alertCertificateRequired:
		return problem.Wrap(err, problem.CertMissing, "The other agent got no certificate from us")
	case alertNoApplicationProtocol:
		return problem.Wrap(err, problem.PeerMisbehaved, "The other agent does not speak %s", wire.ALPN)
	}
	return problem.Wrap(err, problem.PeerUnreached, "The other agent ended the TLS handshake")
}

// refusedByUs explains why our TLS refused the peer.
func refusedByUs(err *quic.TransportError) error {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return problem.Wrap(err, problem.CertExpired, "The certificate of the other agent has expired or is not valid yet")
	case errors.As(err, &unknown):
		return problem.Wrap(err, problem.CertUnknown, "The certificate of the other agent is not of an authority that we trust for it")
	case errors.As(err, &host):
		return problem.Wrap(err, problem.CertMismatch, "The certificate of the other agent names somebody else")
	case uint8(err.ErrorCode) == alertCertificateRequired:
		return problem.Wrap(err, problem.CertMissing, "The other agent sent no certificate")
	case uint8(err.ErrorCode) == alertNoApplicationProtocol:
		return problem.Wrap(err, problem.PeerMisbehaved, "The other agent does not speak %s", wire.ALPN)
	}
	return problem.Wrap(err, problem.CertMisused, "The certificate of the other agent is not of the kind that is needed here")
}
