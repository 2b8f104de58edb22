package broker

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token/problem"
)

// Names below the state folder.
const (
	keyFile      = "capability.key" // PKCS #8 PEM, Ed25519
	databaseFile = "consign.db"
)

// Init prepares the state folder of a new broker: the folder, the capability key and the
// database. It fails with an error that matches fs.ErrExist if there is a key or a database already, and changes nothing of them.
func Init(ctx context.Context, state string) error {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return fmt.Errorf("making the state folder: %w", err)
	}
	if err := CreateKey(state); err != nil {
		return err
	}
	return db.Create(ctx, filepath.Join(state, databaseFile))
}

// CreateKey makes the key that signs capabilities, below the folder dir. It is not the
// key of the broker's certificate: who has one cannot act as the other. It fails with an
// error that matches fs.ErrExist if there is one.
func CreateKey(dir string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("making the capability key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the capability key: %w", err)
	}
	return writeOnce(filepath.Join(dir, keyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// writeOnce creates a file of that content, whole or not at all, and never replaces one.
func writeOnce(name string, data []byte) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return fmt.Errorf("staging %s: %w", filepath.Base(name), err)
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync() // the bytes first, while no name points at them
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return fmt.Errorf("staging %s: %w", filepath.Base(name), err)
	}
	if err := os.Link(tmp.Name(), name); err != nil {
		return fmt.Errorf("creating %s: %w", filepath.Base(name), err)
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return fmt.Errorf("creating %s: %w", filepath.Base(name), err)
	}
	return errors.Join(dir.Sync(), dir.Close()) // Durable from here.
}

// openKey reads the key that CreateKey made.
func openKey(dir string) (crypto.Signer, error) {
	name := filepath.Join(dir, keyFile)
	st, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, problem.Wrap(err, problem.BadConfig, "The broker's capability key does not exist; make it with 'consign broker init'")
	}
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The broker's capability key cannot be read")
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, problem.New(problem.BadConfig, "The broker's capability key may be read by others; set its mode to 0600")
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The broker's capability key cannot be read")
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return nil, problem.New(problem.BadConfig, "The broker's capability key is not one PEM block of a private key")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, problem.New(problem.BadConfig, "The broker's capability key cannot be decoded")
	}
	own, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, problem.New(problem.BadConfig, "The broker's capability key is not of Ed25519")
	}
	return own, nil
}
