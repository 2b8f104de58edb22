package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Limits, checked before anything is parsed.
const (
	MaxChainCerts = 8         // certificates of a chain
	MaxChainSize  = 64 << 10  // bytes of a chain's DER
	MaxChainPEM   = 128 << 10 // bytes of a chain's PEM, with what tools write between blocks
	MaxFileSize   = 1 << 20   // bytes of a certificate, key or bundle file
	MaxRoots      = 64        // roots of one trust domain
	MinRSABits    = 2048      // of a leaf's key
	MaxRSABits    = 8192      // of any key of a chain: what a check costs grows with its cube, and a stranger chooses it
)

// A Chain is a certificate and those that vouch for it, leaf first. The root need not be
// in it. It is immutable by agreement: nobody changes the certificates of a Chain.
type Chain []*x509.Certificate

// ParseChain reads a chain from PEM: one or more CERTIFICATE blocks and no block
// of any other type. It fails with problem.TooLarge beyond the limits and else with problem.Malformed.
func ParseChain(data []byte) (Chain, error) {
	if len(data) > MaxChainPEM {
		return nil, problem.New(problem.TooLarge, "The certificate chain is larger than %d bytes.", MaxChainPEM)
	}
	ders, err := blocks(data, MaxChainCerts)
	if err != nil {
		return nil, err
	}
	return ParseChainDER(ders)
}

// ParseChainDER reads a chain of one certificate or more, each one DER encoding, leaf first.
// It fails as ParseChain does.
func ParseChainDER(ders [][]byte) (Chain, error) {
	if len(ders) == 0 {
		return nil, problem.New(problem.Malformed, "There is no certificate in the chain.")
	}
	if err := checkSize(len(ders), func(i int) int { return len(ders[i]) }); err != nil {
		return nil, err
	}
	chain := make(Chain, 0, len(ders))
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "Certificate %d of the chain cannot be read.", i+1)
		}
		chain = append(chain, c)
	}
	if err := chain.checkKeys(); err != nil {
		return nil, err
	}
	return chain, nil
}

// PEM returns the chain as CERTIFICATE blocks, which ParseChain reads.
func (c Chain) PEM() []byte {
	var out []byte
	for _, cert := range c {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}

// DER returns the encoding of each certificate. The caller must not modify the bytes.
func (c Chain) DER() [][]byte {
	out := make([][]byte, len(c))
	for i, cert := range c {
		out[i] = cert.Raw
	}
	return out
}

// Leaf returns the first certificate, or nil if the chain is empty.
func (c Chain) Leaf() *x509.Certificate {
	if len(c) == 0 {
		return nil
	}
	return c[0]
}

// LeafHash returns SHA-256 of the leaf's DER, to which capabilities are bound
// (RFC 8705 x5t#S256), or "" if the chain is empty.
func (c Chain) LeafHash() token.Hash {
	if len(c) == 0 {
		return ""
	}
	return token.HashOf(c[0].Raw)
}

// KeyHash returns SHA-256 of the leaf's SubjectPublicKeyInfo, by which keys are remembered and
// compared, or "" if the chain is empty.
func (c Chain) KeyHash() token.Hash {
	if len(c) == 0 {
		return ""
	}
	return token.HashOf(c[0].RawSubjectPublicKeyInfo)
}

// check applies the limits of a chain to one that TLS has parsed.
func (c Chain) check() error {
	if err := checkSize(len(c), func(i int) int { return len(c[i].Raw) }); err != nil {
		return err
	}
	return c.checkKeys()
}

// checkKeys bounds the arithmetic that anybody can make us do who sends us a chain.
func (c Chain) checkKeys() error {
	for _, cert := range c {
		if k, ok := cert.PublicKey.(*rsa.PublicKey); ok && k.N.BitLen() > MaxRSABits {
			return problem.New(problem.TooLarge, "The chain has an RSA key of more than %d bits.", MaxRSABits)
		}
	}
	return nil
}

func checkSize(n int, size func(int) int) error {
	if n > MaxChainCerts {
		return problem.New(problem.TooLarge, "The chain has more than %d certificates.", MaxChainCerts)
	}
	total := 0
	for i := range n {
		if total += size(i); total > MaxChainSize {
			return problem.New(problem.TooLarge, "The certificate chain is larger than %d bytes.", MaxChainSize)
		}
	}
	return nil
}

// blocks returns the contents of at most limit CERTIFICATE blocks.
func blocks(data []byte, limit int) ([][]byte, error) {
	var out [][]byte
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			return out, nil
		}
		if b.Type != "CERTIFICATE" {
			return nil, problem.New(problem.Malformed, "There is something other than certificates where only certificates belong.")
		}
		if len(out) == limit {
			return nil, problem.New(problem.TooLarge, "There are more than %d certificates.", limit)
		}
		out = append(out, b.Bytes)
	}
}

// IdentityOf returns the identity that leaf claims. It says nothing of whether the claim
// is true: that is Trust.Verify. The leaf must have exactly one URI name, in the one
// spelling of an identity, must be made for signatures and must not be an authority's;
// all else is problem.CertMisused.
func IdentityOf(leaf *x509.Certificate) (token.Identity, error) {
	if leaf == nil {
		return "", problem.New(problem.CertMissing, "")
	}
	if err := checkLeaf(leaf); err != nil {
		return "", err
	}
	if len(leaf.URIs) != 1 {
		return "", problem.New(problem.CertMisused, "The certificate has %d URI names where exactly one is needed.", len(leaf.URIs))
	}
	raw, err := rawURI(leaf)
	if err != nil {
		return "", problem.Wrap(err, problem.CertMisused, "The URI name of the certificate cannot be read.")
	}
	id, err := token.ParseIdentity(raw)
	if err != nil {
		return "", problem.Wrap(err, problem.CertMisused, "The URI name of the certificate is not of the form spiffe://provider/role/name.")
	}
	return id, nil
}

// checkLeaf refuses what nobody's certificate may be.
func checkLeaf(leaf *x509.Certificate) error {
	switch {
	case leaf.IsCA, leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return problem.New(problem.CertMisused, "The certificate is an authority's own and names no account or agent.")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return problem.New(problem.CertMisused, "The certificate is not made for digital signatures.")
	case len(leaf.UnhandledCriticalExtensions) > 0:
		return problem.New(problem.CertMisused, "The certificate has a critical extension that is not supported, as proxy certificates have.")
	}
	return nil
}

// rawURI returns the bytes of the first URI name. net/url has normalised what
// x509 keeps, so that two spellings would look like one.
func rawURI(leaf *x509.Certificate) (string, error) {
	const tagURI = 6 // RFC 5280 section 4.2.1.6, GeneralName
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) {
			continue
		}
		var names []asn1.RawValue
		if _, err := asn1.Unmarshal(e.Value, &names); err != nil {
			return "", err
		}
		for _, n := range names {
			if n.Class == asn1.ClassContextSpecific && n.Tag == tagURI {
				return string(n.Bytes), nil
			}
		}
	}
	return "", asn1.StructuralError{Msg: "no URI name"}
}

// CheckKey refuses with problem.CertMisused the keys that cannot sign a statement: all but
// Ed25519, P-256, P-384 and RSA of MinRSABits and up.
func CheckKey(pub crypto.PublicKey) error {
	switch k := pub.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() {
			return nil
		}
	case *rsa.PublicKey:
		if k.N.BitLen() >= MinRSABits {
			return nil
		}
	}
	return problem.New(problem.CertMisused, "The key of the certificate is not Ed25519, P-256, P-384 or RSA of %d bits or more.", MinRSABits)
}
