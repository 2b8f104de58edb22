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
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(roots) == 0 {
		return conf, nil
	}
	conf.RootCAs = x509.NewCertPool()
	if !conf.RootCAs.AppendCertsFromPEM(roots) {
		return nil, errors.New("there is no certificate in PEM form")
	}
	return conf, nil
}
