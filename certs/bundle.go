package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Bundle is the roots of one trust domain, as PEM or as a SPIFFE bundle has them. Only the latter has a number and a hint.
type Bundle struct {
	Roots []*x509.Certificate
	// Sequence grows with every new bundle of the domain; 0 is none.
	Sequence uint64
	// Refresh is how often the domain wants to be asked for a newer one; 0 is no hint.
	Refresh time.Duration
	spiffe  bool // not PEM
}

// ParseRoots is ParseBundle for the roots alone.
func ParseRoots(data []byte) ([]*x509.Certificate, error) {
	b, err := ParseBundle(data)
	return b.Roots, err
}

// ParseBundle reads a trust bundle from PEM or from a SPIFFE bundle (a JWKS, which begins with a brace): 1 to MaxRoots
// certificates, all of them authorities. It fails with problem.TooLarge or problem.Malformed.
func ParseBundle(data []byte) (Bundle, error) {
	if len(data) > MaxFileSize {
		return Bundle{}, problem.New(problem.TooLarge, "The trust bundle is larger than %d bytes.", MaxFileSize)
	}
	var b Bundle
	var ders [][]byte
	var err error
	if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		b.spiffe = true
		ders, err = b.readSPIFFE(data)
	} else {
		ders, err = blocks(data, MaxRoots)
	}
	if err != nil {
		return Bundle{}, err
	}
	if len(ders) == 0 {
		return Bundle{}, problem.New(problem.Malformed, "There is no certificate in the trust bundle.")
	}
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return Bundle{}, problem.Wrap(err, problem.Malformed, "Certificate %d of the trust bundle cannot be read.", i+1)
		}
		if !c.BasicConstraintsValid || !c.IsCA {
			return Bundle{}, problem.New(problem.Malformed, "Certificate %d of the trust bundle is not an authority's.", i+1)
		}
		b.Roots = append(b.Roots, c)
	}
	if err := Chain(b.Roots).checkKeys(); err != nil {
		return Bundle{}, err
	}
	return b, nil
}

// forX509 is the use of a key of a SPIFFE bundle that vouches for certificates.
const forX509 = "x509-svid"

// maxRefresh bounds a hint, in seconds: beyond it the number means nothing to us.
const maxRefresh = 10 * 365 * 24 * 3600

// readSPIFFE reads number and hint of a SPIFFE bundle, and returns the certificates of the keys that are for X.509. Other keys
// and unknown members are passed over, as that specification wants; a member that is there twice, or a private key, is refused.
func (b *Bundle) readSPIFFE(data []byte) (ders [][]byte, err error) {
	doc, err := members(data)
	if err != nil {
		return nil, err
	}
	var keys []json.RawMessage
	if err := json.Unmarshal(doc["keys"], &keys); err != nil || keys == nil {
		return nil, problem.New(problem.Malformed, "The SPIFFE bundle has no list of keys.")
	}
	if raw, ok := doc["spiffe_sequence"]; ok {
		if err := json.Unmarshal(raw, &b.Sequence); err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "The sequence number of the SPIFFE bundle is not a whole number.")
		}
	}
	if raw, ok := doc["spiffe_refresh_hint"]; ok {
		var seconds uint64
		if err := json.Unmarshal(raw, &seconds); err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "The refresh hint of the SPIFFE bundle is not a whole number.")
		}
		b.Refresh = time.Duration(min(seconds, maxRefresh)) * time.Second
	}
	for i, raw := range keys {
		der, err := rootOf(raw)
		if err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "Key %d of the SPIFFE bundle: %s", i+1, problem.As(err).Sentence())
		}
		if der == nil {
			continue
		}
		if len(ders) == MaxRoots {
			return nil, problem.New(problem.TooLarge, "There are more than %d certificates.", MaxRoots)
		}
		ders = append(ders, der)
	}
	return ders, nil
}

// rootOf returns the certificate of a key, or nil if the key is for something else.
func rootOf(key []byte) ([]byte, error) {
	jwk, err := members(key)
	if err != nil {
		return nil, err
	}
	for _, secret := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if _, ok := jwk[secret]; ok {
			return nil, problem.New(problem.Malformed, "It is a private key.")
		}
	}
	var use string
	if raw, ok := jwk["use"]; ok {
		if err := json.Unmarshal(raw, &use); err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "Its use is not a text.")
		}
	}
	if use != forX509 {
		return nil, nil
	}
	var chain []string
	if err := json.Unmarshal(jwk["x5c"], &chain); err != nil || len(chain) != 1 {
		return nil, problem.New(problem.Malformed, "It has not exactly one certificate.")
	}
	der, err := base64.StdEncoding.Strict().DecodeString(chain[0])
	if err != nil {
		return nil, problem.Wrap(err, problem.Malformed, "Its certificate is not in base64.")
	}
	return der, nil
}

// members returns the members of a JSON object, each of which must be there once.
func members(data []byte) (map[string]json.RawMessage, error) {
	wrong := func(err error) error { return problem.Wrap(err, problem.Malformed, "It is not a JSON object.") }
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, wrong(err)
	}
	out := map[string]json.RawMessage{}
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, wrong(err)
		}
		if _, twice := out[name]; twice {
			return nil, problem.New(problem.Malformed, "A member is there twice.")
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, wrong(err)
		}
		out[name] = raw
	}
	if _, err := dec.Token(); err != nil {
		return nil, wrong(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, wrong(err)
	}
	return out, nil
}

// MarshalBundle writes a SPIFFE bundle whose roots have P-256 keys, which ParseBundle reads.
func MarshalBundle(b Bundle) ([]byte, error) {
	type jwk struct {
		Kty string   `json:"kty"`
		Use string   `json:"use"`
		Crv string   `json:"crv"`
		X   string   `json:"x"`
		Y   string   `json:"y"`
		X5c []string `json:"x5c"`
	}
	doc := struct {
		Keys     []jwk  `json:"keys"`
		Sequence uint64 `json:"spiffe_sequence"`
		Refresh  int64  `json:"spiffe_refresh_hint"`
	}{Keys: []jwk{}, Sequence: b.Sequence, Refresh: int64(b.Refresh / time.Second)}
	for _, r := range b.Roots {
		pub, ok := r.PublicKey.(*ecdsa.PublicKey)
		if !ok || pub.Curve != elliptic.P256() {
			return nil, errors.New("writing a SPIFFE bundle: a root's key is not on P-256")
		}
		point, err := pub.Bytes()
		if err != nil {
			return nil, fmt.Errorf("writing a SPIFFE bundle: %w", err)
		}
		const coordinate = 32 // after one byte that says that both follow
		doc.Keys = append(doc.Keys, jwk{
			Kty: "EC", Use: forX509, Crv: "P-256", X: base64.RawURLEncoding.EncodeToString(point[1 : 1+coordinate]),
			Y: base64.RawURLEncoding.EncodeToString(point[1+coordinate:]), X5c: []string{base64.StdEncoding.EncodeToString(r.Raw)},
		})
	}
	return json.Marshal(doc)
}

// checkDomain refuses an authority that says of itself that it is another domain's.
func (b Bundle) checkDomain(p token.Provider) error {
	for i, r := range b.Roots {
		if slices.ContainsFunc(r.URIs, func(u *url.URL) bool { return u.Scheme == "spiffe" && u.Host != string(p) }) {
			return problem.New(problem.Malformed, "Certificate %d of the trust bundle is the authority of another domain.", i+1)
		}
	}
	return nil
}

func poolOf(roots []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	return pool
}
