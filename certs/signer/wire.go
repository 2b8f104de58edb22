package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"strings"

	"github.com/consign-transfer/consign/certs"
)

// Limits of the protocol, in bytes of a line with its end unless the name says otherwise.
const (
	Version        = 1
	MaxRequestSize = 64 << 10
	MaxAnswerSize  = 8 << 10
	MaxMessageSize = 32 << 10 // bytes that an Ed25519 key signs
	maxKeySize     = 4 << 10  // bytes of a public key
	maxLabel       = 128      // bytes
	maxSentence    = 256      // bytes
)

// What a request asks for.
const (
	doKey  = "key"
	doSign = "sign"
)

// An algorithm is how a signature is made. The key and the hash decide it.
type algorithm string

const (
	algEd25519   algorithm = "ed25519"
	algECDSA256  algorithm = "ecdsa-sha256"
	algECDSA384  algorithm = "ecdsa-sha384"
	algRSAPSS256 algorithm = "rsa-pss-sha256"
	algRSAPSS384 algorithm = "rsa-pss-sha384"
	algRSAPSS512 algorithm = "rsa-pss-sha512"
)

// hash returns the hash whose digest is signed; 0 where the message itself is.
func (a algorithm) hash() crypto.Hash {
	switch a {
	case algECDSA256, algRSAPSS256:
		return crypto.SHA256
	case algECDSA384, algRSAPSS384:
		return crypto.SHA384
	case algRSAPSS512:
		return crypto.SHA512
	case algEd25519:
	}
	return 0
}

// algorithms are those that a key may be used with.
func algorithms(pub crypto.PublicKey) []algorithm {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return []algorithm{algEd25519}
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return []algorithm{algECDSA256}
		case elliptic.P384():
			return []algorithm{algECDSA384}
		}
	case *rsa.PublicKey:
		return []algorithm{algRSAPSS256, algRSAPSS384, algRSAPSS512}
	}
	return nil
}

// A request is one line to the signer.
type request struct {
	V       int       `json:"v"`
	ID      int64     `json:"id"`
	Do      string    `json:"do"`
	Alg     algorithm `json:"alg,omitempty"`
	Digest  []byte    `json:"digest,omitempty"`
	Message []byte    `json:"message,omitempty"`
}

// An answer is one line from the signer.
type answer struct {
	V         int    `json:"v"`
	ID        int64  `json:"id"`
	Key       []byte `json:"key,omitempty"`
	Label     string `json:"label,omitempty"`
	Signature []byte `json:"signature,omitempty"`
	Error     string `json:"error,omitempty"`
}

// A job is one signature that is wanted.
type job struct {
	request
}

// jobOf turns what crypto.Signer is asked into a request, or refuses what no key of ours may sign.
func jobOf(pub crypto.PublicKey, digest []byte, opts crypto.SignerOpts) (job, error) {
	var hash crypto.Hash
	if opts != nil {
		hash = opts.HashFunc()
	}
	if pss, ok := opts.(*rsa.PSSOptions); ok {
		if n := pss.SaltLength; n != rsa.PSSSaltLengthAuto && n != rsa.PSSSaltLengthEqualsHash && (hash == 0 || n != hash.Size()) {
			return job{}, failed("", "An RSA key signs with a salt as long as the hash, and another was asked for")
		}
	} else if _, isRSA := pub.(*rsa.PublicKey); isRSA {
		return job{}, failed("", "An RSA key signs with PSS alone, and another padding was asked for")
	}
	for _, alg := range algorithms(pub) {
		if alg.hash() != hash {
			continue
		}
		r := request{Do: doSign, Alg: alg}
		switch {
		case hash == 0 && len(digest) > MaxMessageSize:
			return job{}, failed("", "The message to sign is larger than %d bytes", MaxMessageSize)
		case hash == 0:
			r.Message = digest
		case len(digest) != hash.Size():
			return job{}, failed("", "The digest to sign is not %d bytes long", hash.Size())
		default:
			r.Digest = digest
		}
		return job{r}, nil
	}
	return job{}, failed("", "The key %s does not sign with this hash", Describe(pub))
}

// verify reports whether sig is the signature that was wanted.
func (j job) verify(pub crypto.PublicKey, sig []byte) bool {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(k, j.Message, sig)
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, j.Digest, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPSS(k, j.Alg.hash(), j.Digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
	}
	return false
}

// parseKey reads a SubjectPublicKeyInfo of a key that may be a party's.
func parseKey(der []byte) (crypto.PublicKey, error) {
	if len(der) == 0 || len(der) > maxKeySize {
		return nil, offence("its answer holds no public key")
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, offence("its public key cannot be read")
	}
	if k, ok := pub.(*rsa.PublicKey); ok && k.N.BitLen() > certs.MaxRSABits || certs.CheckKey(pub) != nil {
		return nil, failed("Use a key of one of these kinds.", "The signer process has a key that is not Ed25519, P-256, P-384 or RSA of %d to %d bits", certs.MinRSABits, certs.MaxRSABits)
	}
	return pub, nil
}

func equalKeys(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// Describe names the kind of a public key for people.
func Describe(pub crypto.PublicKey) string {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return "Ed25519"
	case *ecdsa.PublicKey:
		return k.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	}
	return "unknown"
}

// sentence makes what a signer says fit for a sentence of ours.
func sentence(s string) string { return strings.TrimSuffix(certs.Printable(s, maxSentence), ".") }
