package certs

import (
	"crypto/x509"

	"github.com/consign-transfer/consign/token/problem"
)

// ParseRoots reads a trust bundle from PEM: 1 to MaxRoots certificates, all of them
// authorities. It fails with problem.TooLarge or problem.Malformed.
func ParseRoots(data []byte) ([]*x509.Certificate, error) {
	if len(data) > MaxFileSize {
		return nil, problem.New(problem.TooLarge, "The trust bundle is larger than %d bytes.", MaxFileSize)
	}
	ders, err := blocks(data, MaxRoots)
	if err != nil {
		return nil, err
	}
	if len(ders) == 0 {
		return nil, problem.New(problem.Malformed, "There is no certificate in the trust bundle.")
	}
	roots := make([]*x509.Certificate, 0, len(ders))
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "Certificate %d of the trust bundle cannot be read.", i+1)
		}
		if !c.BasicConstraintsValid || !c.IsCA {
			return nil, problem.New(problem.Malformed, "Certificate %d of the trust bundle is not an authority's.", i+1)
		}
		roots = append(roots, c)
	}
	return roots, nil
}

func poolOf(roots []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	return pool
}
