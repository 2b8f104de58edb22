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

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token/problem"
)

// keyOf reads the private key of a file, and makes file and key if there is none. Of several who make it at once all
// get the same.
func keyOf(file string) (crypto.Signer, error) {
	key, err := certs.ReadKey(file)
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
	return certs.ReadKey(file)
}
