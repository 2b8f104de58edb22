package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// WebClient is for the client of a server that is no party of ours, whose certificate is an ordinary one of the web: an object
// store, an ACME authority, a bundle endpoint. roots is PEM of who may have issued it, and empty means the system's roots. We show
// no certificate of ours. TLS 1.2 is allowed, because services and gateways still end there.
func WebClient(roots []byte) (*tls.Config, error) {
	if len(roots) == 0 {
		return PublicClient(nil), nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, errors.New("there is no certificate in PEM form")
	}
	return PublicClient(pool), nil
}

// PublicClient is WebClient for roots that were read already; nil means the system's.
func PublicClient(roots *x509.CertPool) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, SessionTicketsDisabled: true}
}
