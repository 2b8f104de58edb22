package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// StoreClient is for the client of an object store, whose certificate is an ordinary one of the
// web: roots is PEM of who may have issued it, and empty means the system's roots. We show
// no certificate of ours. TLS 1.2 is allowed, because services and gateways still end there.
func StoreClient(roots []byte) (*tls.Config, error) {
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
