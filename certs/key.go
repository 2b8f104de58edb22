package certs

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"

	"github.com/consign-transfer/consign/token/problem"
)

// ReadKey reads the first private key of a PEM file: PKCS #8, SEC 1 or PKCS #1. A file that is not there is fs.ErrNotExist, any
// other fault problem.BadConfig.
func ReadKey(file string) (crypto.Signer, error) {
	data, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The key file cannot be read.")
	}
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return nil, problem.New(problem.BadConfig, "There is no private key in the key file.")
		}
		if key := parseKey(b); key != nil {
			return key, nil
		}
	}
}

// parseKey returns nil for what is no private key that signs.
func parseKey(b *pem.Block) crypto.Signer {
	var key any
	var err error
	switch b.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(b.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(b.Bytes)
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	signer, _ := key.(crypto.Signer)
	return signer
}
