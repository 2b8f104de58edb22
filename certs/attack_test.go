package certs_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token/problem"
)

// TestHugeAuthorityKeys: checking one signature under a key of 100,000 bits takes seconds of a core, and a chain that travels beside
// an order is checked several times. Such a chain is refused before any arithmetic. A stranger makes it: the
// issuer's key is any odd number and the signature need not be good.
func TestHugeAuthorityKeys(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	trust := certstest.Trust(a)
	for _, bits := range []int{8193, 120_000} {
		chain := hugeChain(t, bits)
		if got, err := certs.ParseChain(chain.PEM()); problem.Of(err) != problem.TooLarge || got != nil {
			t.Errorf("reading a chain with a key of %d bits: got %v, want %s", bits, err, problem.TooLarge)
		}
		if id, err := trust.Verify(chain, time.Now()); problem.Of(err) != problem.TooLarge || id != "" {
			t.Errorf("verifying a chain with a key of %d bits: got %q and %v, want %s", bits, id, err, problem.TooLarge)
		}
	}
}

// hugeChain is a leaf that names somebody of alpha under an authority with an RSA key of that many bits.
func hugeChain(t *testing.T, bits int) certs.Chain {
	t.Helper()
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	for n.BitLen() != bits || n.Bit(0) == 0 {
		var err error
		if n, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), uint(bits))); err != nil {
			t.Fatal(err)
		}
		n.SetBit(n, bits-1, 1).SetBit(n, 0, 1)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	issuer := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "huge"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	huge := &rsa.PublicKey{N: n, E: 1<<31 - 1}
	der, err := x509.CreateCertificate(rand.Reader, issuer, &x509.Certificate{Subject: issuer.Subject}, huge, key)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	name, err := url.Parse("spiffe://" + string(alpha) + "/subscriber/mallory")
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), URIs: []*url.URL{name},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	// An ECDSA signature that is then renamed to RSA and grown: nothing has to be good before it is checked.
	if der, err = x509.CreateCertificate(rand.Reader, leaf, &x509.Certificate{Subject: issuer.Subject}, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	return certs.Chain{resigned(t, der, (bits+7)/8), authority}
}

// resigned replaces the signature of a certificate by n bytes that claim to be of RSA.
func resigned(t *testing.T, der []byte, n int) *x509.Certificate {
	t.Helper()
	var outer struct {
		TBS asn1.RawValue
		Alg pkix.AlgorithmIdentifier
		Sig asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		t.Fatal(err)
	}
	var fields []asn1.RawValue
	if _, err := asn1.UnmarshalWithParams(outer.TBS.FullBytes, &fields, "optional"); err != nil {
		t.Fatal(err)
	}
	alg := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue}
	algDER, err := asn1.Marshal(alg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := asn1.Unmarshal(algDER, &fields[2]); err != nil { // version, serial number, signature
		t.Fatal(err)
	}
	tbs, err := asn1.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	outer.TBS = asn1.RawValue{FullBytes: tbs}
	outer.Alg = alg
	sig := make([]byte, n)
	sig[n-1] = 2
	outer.Sig = asn1.BitString{Bytes: sig, BitLength: 8 * n}
	if der, err = asn1.Marshal(outer); err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
