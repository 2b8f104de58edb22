package token

import (
	"bytes"
	"crypto"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/token/problem"
	"github.com/go-jose/go-jose/v4"
)

// Verified is a statement whose signature, spelling and form are good. Whether it
// is good now, here and for this peer is for its own methods to say.
type Verified[T any] struct {
	Claims  T
	Hash    Hash   // of Payload; the statement's name everywhere
	Payload []byte // canonical; the caller owns it
	KeyID   string // of the key that signed
}

// kind is what tells one statement from another.
type kind struct {
	name       string
	typ        jose.ContentType
	maxSize    int // of the compact JWS
	maxPayload int
	algs       []jose.SignatureAlgorithm
}

func (k kind) allows(alg jose.SignatureAlgorithm) bool { return slices.Contains(k.algs, alg) }

var (
	capabilityKind = kind{"capability", "consign-capability+jwt", MaxCapabilitySize, MaxCapabilitySize,
		[]jose.SignatureAlgorithm{jose.EdDSA, jose.ES256}}
	orderKind = kind{"order", "consign-order+jwt", MaxOrderSize, MaxOrderPayload,
		[]jose.SignatureAlgorithm{jose.EdDSA, jose.ES256, jose.ES384, jose.PS256}}
	sessionOrderKind = kind{"session order", "consign-session-order+jwt", MaxOrderSize, MaxOrderPayload,
		[]jose.SignatureAlgorithm{jose.EdDSA, jose.ES256}}
	revocationKind = kind{"revocation", "consign-revocation+jwt", MaxRevocationSize, MaxRevocationPayload,
		[]jose.SignatureAlgorithm{jose.EdDSA, jose.ES256}}
	linkKind = kind{"link", "consign-link+jwt", MaxLinkSize, MaxLinkSize,
		[]jose.SignatureAlgorithm{jose.EdDSA, jose.ES256, jose.ES384, jose.PS256}}
	receiptKind = kind{"receipt", "consign-receipt+jwt", MaxReceiptSize, MaxReceiptSize,
		[]jose.SignatureAlgorithm{jose.EdDSA, jose.ES256, jose.ES384, jose.PS256}}
)

// header is the protected header: these members and no other.
type header struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
	Typ string `json:"typ"`
}

// VerifyOrder returns the order in tok if key signed it. Whose key that is, the
// caller knows from its certificate. Failures, besides those of Order.Check:
// problem.TooLarge, Malformed, UnknownField, NotCanonical, WrongStatement (another
// kind), UnknownKey (it names another key), BadSignature. The result is then zero.
func VerifyOrder(tok string, key crypto.PublicKey) (Verified[Order], error) {
	return verify[Order](tok, orderKind, theKey(key))
}

// VerifyLink returns the link in tok if key signed it. It fails as VerifyOrder does.
func VerifyLink(tok string, key crypto.PublicKey) (Verified[Link], error) {
	return verify[Link](tok, linkKind, theKey(key))
}

// VerifyReceipt returns the receipt in tok if key signed it. It fails as
// VerifyOrder does.
func VerifyReceipt(tok string, key crypto.PublicKey) (Verified[Receipt], error) {
	return verify[Receipt](tok, receiptKind, theKey(key))
}

// VerifyCapability returns the capability in tok if a key of keys signed it and
// is pinned to the broker that it names. It fails as VerifyOrder does, and with
// problem.UnknownBroker if the key belongs to another broker.
func VerifyCapability(tok string, keys KeySet) (Verified[Capability], error) {
	v, err := verify[Capability](tok, capabilityKind, keys.find)
	if err != nil {
		return Verified[Capability]{}, err
	}
	if err := keys.pinned(capabilityKind, v.KeyID, v.Claims.Iss); err != nil {
		return Verified[Capability]{}, err
	}
	return v, nil
}

// VerifyRevocation returns the revocation in tok if a key of keys signed it and is
// pinned to the broker that it names. It fails as VerifyCapability does. Whether it
// is newer than what the caller has is for the caller to say.
func VerifyRevocation(tok string, keys KeySet) (Verified[Revocation], error) {
	v, err := verify[Revocation](tok, revocationKind, keys.find)
	if err != nil {
		return Verified[Revocation]{}, err
	}
	if err := keys.pinned(revocationKind, v.KeyID, v.Claims.Iss); err != nil {
		return Verified[Revocation]{}, err
	}
	return v, nil
}

// pinned reports whether the key of that id is the broker's that a statement names.
func (s KeySet) pinned(k kind, kid string, iss Identity) error {
	if s.keys[kid].issuer != iss {
		return problem.New(problem.UnknownBroker, "The %s was signed with the key of another broker than it names.", k.name)
	}
	return nil
}

// theKey finds key under its own id and nothing else.
func theKey(key crypto.PublicKey) func(string) (crypto.PublicKey, error) {
	return func(kid string) (crypto.PublicKey, error) {
		own, err := KeyID(key)
		if err != nil {
			return nil, err
		}
		if own != kid {
			return nil, problem.New(problem.UnknownKey, "The statement was signed with another key.")
		}
		return key, nil
	}
}

// verify is the only door for a signed statement. The order of its steps is that
// of docs/spec/capability.md: nothing is decoded before its size and alphabet
// are known, nothing is hashed or computed before header, kind and key are
// known to be right, and nothing is read from the payload before it is signed for.
func verify[T checked](tok string, k kind, find func(kid string) (crypto.PublicKey, error)) (Verified[T], error) {
	parts, err := split(tok, k)
	if err != nil {
		return Verified[T]{}, err
	}
	h, err := unmarshal[header]("header of the "+k.name, parts[0])
	if err != nil {
		return Verified[T]{}, err
	}
	if h.Typ != string(k.typ) {
		return Verified[T]{}, problem.New(problem.WrongStatement, "It is not a %s.", k.name)
	}
	key, err := find(h.Kid)
	if err != nil {
		return Verified[T]{}, err
	}
	alg, err := algorithm(key)
	if err != nil {
		return Verified[T]{}, err
	}
	if h.Alg != string(alg) || !k.allows(alg) {
		return Verified[T]{}, problem.New(problem.BadSignature, "The key does not sign a %s with this algorithm.", k.name)
	}
	if len(parts[1]) > k.maxPayload {
		return Verified[T]{}, tooLarge(k.name, k.maxPayload)
	}
	if err := checkSignature(tok, parts[1], key, alg); err != nil {
		return Verified[T]{}, problem.Wrap(err, problem.BadSignature, "The signature of the %s does not verify.", k.name)
	}
	claims, err := parseChecked[T](k.name, parts[1], k.maxPayload)
	if err != nil {
		return Verified[T]{}, err
	}
	return Verified[T]{Claims: claims, Hash: HashOf(parts[1]), Payload: parts[1], KeyID: h.Kid}, nil
}

// split decodes the three parts of a compact JWS, each of which has one spelling.
func split(tok string, k kind) ([3][]byte, error) {
	var parts [3][]byte
	if len(tok) > k.maxSize {
		return parts, tooLarge(k.name, k.maxSize)
	}
	// Go's decoder skips new lines; is64 does not let them through.
	text := strings.SplitN(tok, ".", len(parts)+1)
	if len(text) != len(parts) {
		return parts, problem.New(problem.Malformed, "The %s is not a compact JWS.", k.name)
	}
	for i, t := range text {
		if t == "" || !only(t, is64) {
			return parts, problem.New(problem.Malformed, "The %s is not a compact JWS.", k.name)
		}
		var err error
		if parts[i], err = strict64.DecodeString(t); err != nil {
			return parts, problem.Wrap(err, problem.NotCanonical, "The %s is not in canonical base64url.", k.name)
		}
	}
	return parts, nil
}

// checkSignature asks go-jose, and makes sure that it saw the payload that we saw.
func checkSignature(tok string, payload []byte, key crypto.PublicKey, alg jose.SignatureAlgorithm) error {
	jws, err := jose.ParseSignedCompact(tok, []jose.SignatureAlgorithm{alg})
	if err != nil {
		return err
	}
	if len(jws.Signatures) != 1 {
		return jose.ErrCryptoFailure
	}
	signed, err := jws.Verify(key)
	if err != nil {
		return err
	}
	if !bytes.Equal(signed, payload) {
		return jose.ErrCryptoFailure
	}
	return nil
}
