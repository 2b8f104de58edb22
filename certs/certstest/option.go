package certstest

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/consign-transfer/consign/token"
)

// An Option makes a leaf differ from a good one in one respect.
type Option func(*spec)

type spec struct {
	t    testing.TB
	tmpl *x509.Certificate
	kind KeyKind
	key  crypto.Signer
}

// A KeyKind is an algorithm and size of a leaf's key.
type KeyKind int

// The kinds of keys. P521 is refused everywhere.
const (
	P256 KeyKind = iota
	P384
	Ed25519
	RSA2048
	RSA3072
	P521
)

// WithKey makes the leaf's key one of that kind.
func WithKey(kind KeyKind) Option { return func(s *spec) { s.kind = kind } }

// ForKey certifies an existing key, as a renewal does.
func ForKey(key crypto.Signer) Option { return func(s *spec) { s.key = key } }

// Valid sets the life of the leaf.
func Valid(from, to time.Time) Option {
	return func(s *spec) { s.tmpl.NotBefore, s.tmpl.NotAfter = from, to }
}

// Serial sets the serial number.
func Serial(n *big.Int) Option { return func(s *spec) { s.tmpl.SerialNumber = n } }

// Expired ends the leaf three days and an hour ago.
func Expired() Option {
	end := time.Now().Add(-73 * time.Hour)
	return Valid(end.Add(-24*time.Hour), end)
}

// NotYet lets the leaf begin in two hours and a half.
func NotYet() Option {
	begin := time.Now().Add(150 * time.Minute)
	return Valid(begin, begin.Add(24*time.Hour))
}

// As replaces the URI names by exactly one, which may name somebody of another domain.
func As(uri string) Option {
	return func(s *spec) { s.tmpl.URIs = []*url.URL{mustURL(s.t, uri)} }
}

// NoURI leaves the URI name out and gives a DNS name instead.
func NoURI() Option {
	return func(s *spec) { s.tmpl.URIs, s.tmpl.DNSNames = nil, []string{"localhost"} }
}

// Plain gives the leaf a subject and no other name, as certificates for people have.
func Plain(subject pkix.Name) Option {
	return func(s *spec) { s.tmpl.URIs, s.tmpl.Subject = nil, subject }
}

// RawSubject gives the leaf a subject in this encoding and no other name.
func RawSubject(der []byte) Option {
	return func(s *spec) { s.tmpl.URIs, s.tmpl.RawSubject = nil, der }
}

// AlsoURI adds a second URI name.
func AlsoURI(uri string) Option {
	return func(s *spec) { s.tmpl.URIs = append(s.tmpl.URIs, mustURL(s.t, uri)) }
}

// RawURI replaces the names by one URI in exactly this spelling, which net/url would tidy.
func RawURI(uri string) Option {
	return func(s *spec) {
		names, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}})
		if err != nil {
			s.t.Fatalf("encoding a name: %v", err)
		}
		s.tmpl.URIs = nil
		s.tmpl.ExtraExtensions = append(s.tmpl.ExtraExtensions, pkix.Extension{
			Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: names,
		})
	}
}

// For replaces the extended key usages.
func For(usages ...x509.ExtKeyUsage) Option {
	return func(s *spec) { s.tmpl.ExtKeyUsage = usages }
}

// KeyUsage replaces the key usage.
func KeyUsage(u x509.KeyUsage) Option { return func(s *spec) { s.tmpl.KeyUsage = u } }

// AsCA marks the leaf as an authority.
func AsCA() Option {
	return func(s *spec) {
		s.tmpl.IsCA = true
		s.tmpl.KeyUsage |= x509.KeyUsageCertSign
	}
}

// Critical adds an unknown critical extension, as the RFC 3820 one of a proxy certificate is.
func Critical() Option {
	return func(s *spec) {
		s.tmpl.ExtraExtensions = append(s.tmpl.ExtraExtensions, pkix.Extension{
			Id: asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 14}, Critical: true, Value: []byte{0x30, 0},
		})
	}
}

// Delegate returns a leaf that this leaf signs, as grid tools make proxy certificates: the same name with
// one more part. No path through a leaf is ever good.
func (l *Leaf) Delegate(opts ...Option) *Leaf {
	l.t.Helper()
	by := &CA{t: l.t, cert: l.Chain[0], key: l.Key, above: l.Chain}
	like := []Option{As(l.Chain[0].URIs[0].String()), For(l.Chain[0].ExtKeyUsage...)}
	return by.Issue(token.Agent, "proxy", append(like, opts...)...)
}
