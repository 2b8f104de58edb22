package signer

import (
	"bufio"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/consign-transfer/consign/certs"
)

// Serve is the other side: it answers requests on in with signatures of key, one after another, until in ends, and
// then returns nil. label says where the key is. It is the reference of the protocol: what it does is all that a signer must do. A
// request that is not good is refused in its answer; one that is no request at all ends it with an error.
func Serve(in io.Reader, out io.Writer, key crypto.Signer, label string) error {
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encoding the public key: %w", err)
	}
	if _, err := parseKey(spki); err != nil {
		return err
	}
	r := bufio.NewReaderSize(in, MaxRequestSize)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case err != nil:
			return fmt.Errorf("reading a request: %w", err)
		}
		var q request
		if err := strictJSON(line, &q); err != nil {
			return fmt.Errorf("reading a request: %w", err)
		}
		a := answer{V: Version, ID: q.ID}
		switch {
		case q.V != Version:
			a.Error = "Only version 1 is spoken here."
		case q.Do == doKey:
			a.Key, a.Label = spki, certs.Printable(label, maxLabel)
		case q.Do == doSign:
			a.Signature, a.Error = q.sign(key)
		default:
			a.Error = "There is no such request."
		}
		data, err := json.Marshal(a)
		if err != nil {
			return fmt.Errorf("encoding an answer: %w", err)
		}
		if _, err := out.Write(append(data, '\n')); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
	}
}

// sign makes the signature that a request asks for, or says in a sentence why not.
func (q request) sign(key crypto.Signer) (sig []byte, refusal string) {
	if !slices.Contains(algorithms(key.Public()), q.Alg) {
		return nil, "This key does not sign with that algorithm."
	}
	hash := q.Alg.hash()
	input, other, opts := q.Message, q.Digest, crypto.SignerOpts(hash)
	good := len(input) > 0 && len(input) <= MaxMessageSize
	if hash != 0 {
		input, other = other, input
		good = len(input) == hash.Size()
	}
	if !good || len(other) > 0 {
		return nil, "There must be a digest of the algorithm's length, or for Ed25519 a message, and not both."
	}
	if _, ok := key.Public().(*rsa.PublicKey); ok {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
	}
	sig, err := key.Sign(rand.Reader, input, opts)
	if err != nil {
		return nil, "The key did not sign."
	}
	return sig, ""
}
