package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"

	"github.com/consign-transfer/consign/token/problem"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/cryptosigner"
)

// Sizes of the RSA keys that may sign orders and receipts, in bits.
const (
	minRSA = 2048
	maxRSA = 8192
)

// A Signer signs statements with one key. It is immutable and may be used by
// several goroutines if its key may. The zero Signer signs nothing: its methods
// fail with problem.UnknownKey.
type Signer struct {
	key crypto.Signer
	alg jose.SignatureAlgorithm
	kid string
}

// NewSigner returns a signer for key. The key decides the algorithm: Ed25519 is
// EdDSA, P-256 ES256, P-384 ES384, and RSA of 2048 to 8192 bits PS256; any other
// is refused with problem.UnknownKey.
func NewSigner(key crypto.Signer) (Signer, error) {
	if key == nil {
		return Signer{}, problem.New(problem.UnknownKey, "There is no key to sign with.")
	}
	alg, err := algorithm(key.Public())
	if err != nil {
		return Signer{}, err
	}
	kid, err := KeyID(key.Public())
	if err != nil {
		return Signer{}, err
	}
	return Signer{key: key, alg: alg, kid: kid}, nil
}

// KeyID returns the thumbprint of the signer's public key, as the function KeyID does.
func (s Signer) KeyID() string { return s.kid }

// KeyID returns the RFC 7638 SHA-256 thumbprint of a public key in base64url. It
// fails with problem.UnknownKey for a key that cannot sign statements.
func KeyID(pub crypto.PublicKey) (string, error) {
	if _, err := algorithm(pub); err != nil {
		return "", err
	}
	jwk := jose.JSONWebKey{Key: pub}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return "", problem.Wrap(err, problem.UnknownKey, "The key has no thumbprint.")
	}
	return strict64.EncodeToString(sum), nil
}

// algorithm is the only one that a key may be used with.
func algorithm(pub crypto.PublicKey) (jose.SignatureAlgorithm, error) {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return jose.EdDSA, nil
		}
	case *ecdsa.PublicKey:
		if k == nil || k.Curve == nil {
			break
		}
		if _, err := k.ECDH(); err != nil { // not a point of a curve that we know
			break
		}
		switch k.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		}
	case *rsa.PublicKey:
		if k != nil && k.N != nil && k.N.BitLen() >= minRSA && k.N.BitLen() <= maxRSA {
			return jose.PS256, nil
		}
	}
	return "", problem.New(problem.UnknownKey, "The key is not Ed25519, P-256, P-384 or RSA of %d to %d bits.", minRSA, maxRSA)
}

// Order returns o as a compact JWS. It fails as Order.Payload does.
func (s Signer) Order(o Order) (string, error) { return sign(s, orderKind, o) }

// Capability returns c as a compact JWS. It fails as Capability.Check does, and
// with problem.UnknownKey if the key is neither Ed25519 nor P-256.
func (s Signer) Capability(c Capability) (string, error) { return sign(s, capabilityKind, c) }

// Revocation returns r as a compact JWS. It fails as Revocation.Payload does, and
// with problem.UnknownKey if the key is neither Ed25519 nor P-256.
func (s Signer) Revocation(r Revocation) (string, error) { return sign(s, revocationKind, r) }

// Link returns l as a compact JWS. It fails as Link.Check does.
func (s Signer) Link(l Link) (string, error) { return sign(s, linkKind, l) }

// Receipt returns r as a compact JWS. It fails as Receipt.Check does.
func (s Signer) Receipt(r Receipt) (string, error) { return sign(s, receiptKind, r) }

func sign[T checked](s Signer, k kind, claims T) (string, error) {
	if s.key == nil {
		return "", problem.New(problem.UnknownKey, "There is no key to sign with.")
	}
	if !k.allows(s.alg) {
		return "", problem.New(problem.UnknownKey, "A key for %s may not sign a %s.", s.alg, k.name)
	}
	payload, err := marshalChecked(k.name, claims, k.maxPayload)
	if err != nil {
		return "", err
	}
	key := jose.SigningKey{Algorithm: s.alg, Key: jose.JSONWebKey{Key: cryptosigner.Opaque(s.key), KeyID: s.kid}}
	signer, err := jose.NewSigner(key, new(jose.SignerOptions).WithType(k.typ))
	if err != nil {
		return "", problem.Wrap(err, problem.Internal, "The %s was not signed.", k.name)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		if p := (*problem.Error)(nil); errors.As(err, &p) { // of a key that explains itself, as one in another process does
			return "", p
		}
		return "", problem.Wrap(err, problem.Internal, "The %s was not signed.", k.name)
	}
	tok, err := jws.CompactSerialize()
	if err != nil {
		return "", problem.Wrap(err, problem.Internal, "The %s was not signed.", k.name)
	}
	if len(tok) > k.maxSize {
		return "", tooLarge(k.name, k.maxSize)
	}
	return tok, nil
}
