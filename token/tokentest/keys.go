// Package tokentest has what tests about statements need: fixed keys of every
// kind, one consistent set of statements, the golden vectors of token/testdata,
// and a forger.
//
// It guarantees that all of it is the same on every run and machine, but for the
// signatures of keys that sign with randomness. It is for tests alone: its keys
// are public.
package tokentest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
)

// A Key is a private key that everybody knows.
type Key struct {
	Name   string // as vectors call it
	Alg    string // the JWS algorithm that belongs to it
	Signer crypto.Signer
}

// Keys returns one key for each algorithm that may sign an order or a receipt:
// EdDSA, ES256, ES384 and PS256, in this order.
func Keys() []Key {
	return []Key{Ed25519("one"), ecKey("p256", "ES256", elliptic.P256()), ecKey("p384", "ES384", elliptic.P384()), rsaKey()}
}

// Ed25519 returns the Ed25519 key whose seed is the SHA-256 of name.
func Ed25519(name string) Key {
	seed := sha256.Sum256([]byte(name))
	return Key{Name: "ed25519-" + name, Alg: "EdDSA", Signer: ed25519.NewKeyFromSeed(seed[:])}
}

// ByName returns the key that a vector names, and whether there is one.
func ByName(name string) (Key, bool) {
	for _, k := range Keys() {
		if k.Name == name {
			return k, true
		}
	}
	return Key{}, false
}

func ecKey(name, alg string, curve elliptic.Curve) Key {
	sum := sha512.Sum384([]byte(name))
	sum[0] = 0 // below the order of the curve
	k, err := ecdsa.ParseRawPrivateKey(curve, sum[:(curve.Params().BitSize+7)/8])
	must(err)
	return Key{Name: name, Alg: alg, Signer: k}
}

func rsaKey() Key {
	block, _ := pem.Decode([]byte(rsaPEM))
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	must(err)
	return Key{Name: "rsa2048", Alg: "PS256", Signer: k.(*rsa.PrivateKey)}
}

// Sign returns a compact JWS of exactly these bytes, without asking whether they
// make sense: what a holder of the key can do at worst.
func (k Key) Sign(header, payload string) string {
	signed := encode(header) + "." + encode(payload)
	return signed + "." + base64.RawURLEncoding.EncodeToString(k.signature([]byte(signed)))
}

func (k Key) signature(msg []byte) []byte {
	switch k.Alg {
	case "EdDSA":
		sig, err := k.Signer.Sign(nil, msg, crypto.Hash(0))
		must(err)
		return sig
	case "PS256":
		sum := sha256.Sum256(msg)
		sig, err := k.Signer.Sign(rand.Reader, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
		must(err)
		return sig
	case "ES384":
		sum := sha512.Sum384(msg)
		return joint(k.Signer, sum[:], crypto.SHA384, 48)
	}
	sum := sha256.Sum256(msg)
	return joint(k.Signer, sum[:], crypto.SHA256, 32)
}

// joint is an ECDSA signature as RFC 7518 section 3.4 has it.
func joint(s crypto.Signer, sum []byte, hash crypto.Hash, size int) []byte {
	der, err := s.Sign(rand.Reader, sum, hash)
	must(err)
	var rs struct{ R, S *big.Int }
	_, err = asn1.Unmarshal(der, &rs)
	must(err)
	out := make([]byte, 2*size)
	rs.R.FillBytes(out[:size])
	rs.S.FillBytes(out[size:])
	return out
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func must(err error) {
	if err != nil {
		panic("tokentest: internal error: " + err.Error())
	}
}

// rsaPEM is an RSA key of 2048 bits, made for these tests and used nowhere else.
const rsaPEM = `-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQCzCgnyWRL8zEA/
cPc9M7CpconNILf2KHdvj5bo7ZSJfVWoANGRYQVZo0gv+151m27ddB/T95eVLp3v
ufx4UTGjG37xAHWBJ1//YNfoildNALxmK8DtMLO7fjrhnQJmTdxv6754WyNW+4F1
fRztkm9wc2Q+tScL3gYGDZMkYyZCBtFfwJ/xZMwyYqFv20BFJqqq47rp5Lp7OAc+
sCDujtSASZzhIuXJyAXWV0VJjHfVlBUwROxpy8fyV45CpYxpUvvXUOR3FrTyDNKG
lwPI+4XEhkmltAb8fCl1hOnAfSohwvODhsqaNmnKwNaiq2ReHfbVVDf9vw/Otw1+
nIXYqt/tAgMBAAECgf8UoZOD2b/WYbMFnH7hDpPM8uXuPVb1hrQ8ps89CCOVtFuq
gG2l0whKzAYFgXHhG4gq/LauNlnBVx3cAhKVysVthj2ah/MCbwcg5of6w/ZLaUpM
e74/lt0fPeyLEwyzvUUpoIDSXa4018aTQ1eSCM3Op31lvHpDY9JN4EKUbth5wx3q
NOqx2oPg2JnZ25C0/UtXN63hgJA2EPgBKtIRFpZ2VpVzZA3JH/03rGfy7AYqfARe
rR6hQOqvcVfmF34/l8oTMnAN0CHeKopWwn2Gc85cD76IfAXIkKRW0MgkmHlGlvUc
J/ZuhPq96fpK3NirfSyyGSSQdRbURBwfSJsZcDsCgYEA5NFIO9L/f1LnjOmNt68o
ehl/nss0pIkLXKPQhkJwznyTbMb4v8pn0mb+t64IuZ2TG1jhnuCr8rZcuyqpBb63
w8p2kp9oc61G+rk/3OjafZteTWHxp4DwcDs6quib3IdPeI9L8e5efPkR1GSOxo2O
WsC208JvqCD5H2p7DhslxeMCgYEAyE7qqmXP9BTArwR9/S1h+aKlBZJEGG7hV4yt
DctIEpfhLZg3ICCJNM1kf4dP6Nh44RJ0wAgOEoKfdQLawHXKnrqHxNEqeBshwhAo
56g4MNfdUjkYq0Jg+yT2wV9z0OOp3QSZrITyutKbv13eqoyQ9ZjBgTHDOc1fAGd+
8j9OK+8CgYEAi1UQ+jTSldKC4yB4xmgnaqpKNwSgCqzUuVWbLZYZoPLkxrEmWYtD
yzAiXPDhqT1VjaqCwL8olUQMlYA1qiTnO5b2uvPMo9vYw+W4CKnWGfRY6SACCbCP
OJgoclfwSMowT0ZaxXgUG1+DRuTwt+EM1SBSdAILAcMKT+IECqPnTWcCgYEAiYX9
AT5jdt2kqMS5x1AYOy8ag2e3jtrZpaU0zwqpEfLqq8Yc2tbbvL/jZtc82s18uHJW
a91b5AOAfPKXw5lbonzIaC1/LfTayYUUwG+zHH2oOyJuOG6bbPIk5ACn4FveLJtS
8qpYiEG+orVNAeT+RVA6Unwa4B2LQxjLhIBIKEsCgYEAsLQT2R2kQE0/pOJ7qirb
1UbV3eVxANQn5AKugUMCCInC/TSQVYEM/OSVj2bYu+SGr21eET9dT51VK9+ff5Vs
qWQe+199u3ejx/hEs50RK+Us7/IS7eDQ8tLYgSyZJUCdv1Y2OExvtBtugTHEfOWL
Ic46zWlv3Ib9moQZ5nEiYsA=
-----END PRIVATE KEY-----
`
