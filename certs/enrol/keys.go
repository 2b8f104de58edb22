package enrol

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token/problem"
)

// keyOf reads the private key of a file, and makes file and key if there is none. Of several who make it at once all
// get the same.
func keyOf(file string) (crypto.Signer, error) {
	key, err := readKey(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(made)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	err = certs.CreateFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, problem.Wrap(err, problem.BadConfig, "A key file cannot be made.")
	}
	return readKey(file)
}

// readKey reads the first key of a PEM file. A file that is not there is fs.ErrNotExist, any other fault problem.BadConfig.
func readKey(file string) (crypto.Signer, error) {
	st, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil || st.Size() > certs.MaxFileSize {
		return nil, problem.Wrap(err, problem.BadConfig, "A key file cannot be read.")
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "A key file cannot be read.")
	}
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return nil, problem.New(problem.BadConfig, "There is no private key in a key file.")
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
