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
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token/problem"
)

// Names below the state folder.
const (
	keyFile      = "capability.key"      // PKCS #8 PEM, Ed25519: the key that signs
	nextFile     = "capability.next.key" // the same: it is published, and signs later
	nowFile      = "capability.now.key"  // the same: it signs at once, and no older key counts
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
func CreateKey(dir string) error { return createKey(dir, keyFile) }

// CreateNextKey makes the key that the broker of that state folder will sign with after it has been published for a while. It may run.
// It fails with an error that matches fs.ErrExist if there is a next key already, and with problem.BadConfig if there is no broker.
func CreateNextKey(dir string) error {
	if _, err := openKey(dir, keyFile); err != nil {
		return err
	}
	return createKey(dir, nextFile)
}

// ReplaceKey makes a key, or takes the next one if there is one, with which the broker of that state folder signs as soon as it sees it;
// what older keys have signed is not good any more. It fails as CreateNextKey does.
func ReplaceKey(dir string) error {
	if _, err := openKey(dir, keyFile); err != nil {
		return err
	}
	err := os.Link(filepath.Join(dir, nextFile), filepath.Join(dir, nowFile)) // which never replaces one
	if errors.Is(err, fs.ErrNotExist) {
		return createKey(dir, nowFile)
	}
	if err != nil {
		return fmt.Errorf("taking the next capability key: %w", err)
	}
	return certs.SyncDir(dir)
}

func createKey(dir, name string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("making the capability key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the capability key: %w", err)
	}
	if err := certs.CreateFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return fmt.Errorf("creating %s: %w", name, err)
	}
	return nil
}

// putInPlace makes the key of that file the one that the next start finds.
func putInPlace(dir, name string) error {
	if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, keyFile)); err != nil {
		return fmt.Errorf("putting the capability key in its place: %w", err)
	}
	return certs.SyncDir(dir)
}

// openKeyIfAny is openKey, and nil if there is no such file.
func openKeyIfAny(dir, name string) (crypto.Signer, error) {
	if _, err := os.Lstat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return openKey(dir, name)
}

// openKey reads a key that CreateKey or its like made.
func openKey(dir, file string) (crypto.Signer, error) {
	name := filepath.Join(dir, file)
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
