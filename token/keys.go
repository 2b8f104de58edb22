package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"maps"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/token/problem"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

// A KeySet is the public keys that may sign capabilities, revocations and session orders, each pinned to one
// broker. The zero KeySet is empty. A KeySet is immutable.
type KeySet struct {
	keys map[string]pinned // by key id; never written after the constructor
}

type pinned struct {
	issuer Identity
	key    crypto.PublicKey
	jwk    webKey
}

// webKey is a public key as a JWK with exactly the members that we write.
type webKey struct {
	Alg string `json:"alg"`
	Crv string `json:"crv"`
	Kid string `json:"kid"`
	Kty string `json:"kty"`
	Use string `json:"use"`
	X   string `json:"x"`
	Y   string `json:"y"` // empty for Ed25519, where it is not written
}

// NewKeySet returns the keys of one broker: 1 to MaxKeys keys of Ed25519 or
// P-256. It fails with problem.UnknownKey for any other key, TooLarge for more of
// them and Malformed if issuer is not a broker. It keeps no reference to pubs.
func NewKeySet(issuer Identity, pubs ...crypto.PublicKey) (KeySet, error) {
	if err := checkRole("iss", issuer, Broker); err != nil {
		return KeySet{}, err
	}
	if len(pubs) == 0 {
		return KeySet{}, problem.New(problem.Malformed, "The key set is empty.")
	}
	if len(pubs) > MaxKeys {
		return KeySet{}, problem.New(problem.TooLarge, "The key set has more than %d keys.", MaxKeys)
	}
	keys := make(map[string]pinned, len(pubs))
	for _, pub := range pubs {
		p, err := pin(issuer, pub)
		if err != nil {
			return KeySet{}, err
		}
		keys[p.jwk.Kid] = p
	}
	return KeySet{keys: keys}, nil
}

func pin(issuer Identity, pub crypto.PublicKey) (pinned, error) {
	kid, err := KeyID(pub)
	if err != nil {
		return pinned{}, err
	}
	switch k := pub.(type) {
	case ed25519.PublicKey:
		k = slices.Clone(k)
		jwk := webKey{Alg: string(jose.EdDSA), Crv: "Ed25519", Kid: kid, Kty: "OKP", Use: "sig", X: strict64.EncodeToString(k)}
		return pinned{issuer, k, jwk}, nil
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 4, x, y
		if err != nil || len(point) != 65 {
			break
		}
		own, err := ecdsa.ParseUncompressedPublicKey(k.Curve, point)
		if err != nil {
			break
		}
		jwk := webKey{Alg: string(jose.ES256), Crv: "P-256", Kid: kid, Kty: "EC", Use: "sig",
			X: strict64.EncodeToString(point[1:33]), Y: strict64.EncodeToString(point[33:])}
		return pinned{issuer, own, jwk}, nil
	}
	return pinned{}, problem.New(problem.UnknownKey, "A key that signs capabilities must be Ed25519 or P-256.")
}

// ParseKeySet reads a JWKS (RFC 7517) of one broker: at most MaxKeySetSize bytes
// and 1 to MaxKeys keys, Ed25519 or P-256. One key that is private, symmetric or
// of another kind, a member that is unknown or written twice, or a kid, alg or use that does
// not belong to its key, and the whole set is refused: with problem.TooLarge,
// Malformed, UnknownField or UnknownKey.
func ParseKeySet(data []byte, issuer Identity) (KeySet, error) {
	if len(data) > MaxKeySetSize {
		return KeySet{}, tooLarge("key set", MaxKeySetSize)
	}
	var set map[string][]map[string]string
	if err := json.Unmarshal(data, &set); err != nil {
		return KeySet{}, problem.Wrap(err, problem.Malformed, "The key set is not a JWKS of public keys for signatures.")
	}
	for name := range set {
		if name != "keys" {
			return KeySet{}, problem.New(problem.UnknownField, "The key set has the unknown field %s.", problem.Quote(name))
		}
	}
	if len(set["keys"]) > MaxKeys {
		return KeySet{}, problem.New(problem.TooLarge, "The key set has more than %d keys.", MaxKeys)
	}
	var pubs []crypto.PublicKey
	for _, members := range set["keys"] {
		pub, err := parseWebKey(members)
		if err != nil {
			return KeySet{}, err
		}
		pubs = append(pubs, pub)
	}
	return NewKeySet(issuer, pubs...)
}

// parseWebKey lets go-jose read a key only after its members are known to be
// those of a public signing key: reading any other is not safe.
func parseWebKey(members map[string]string) (crypto.PublicKey, error) {
	want := map[string]bool{"alg": false, "crv": true, "kid": false, "kty": true, "use": false, "x": true}
	switch members["kty"] + " " + members["crv"] {
	case "OKP Ed25519":
	case "EC P-256":
		want["y"] = true
	default:
		return nil, problem.New(problem.UnknownKey, "A key of the set is neither Ed25519 nor P-256.")
	}
	for name := range members {
		if _, ok := want[name]; !ok {
			return nil, problem.New(problem.UnknownField, "A key of the set has the field %s, which is not of a public signing key.", problem.Quote(name))
		}
	}
	for name, required := range want {
		if _, ok := members[name]; required && !ok {
			return nil, problem.New(problem.Malformed, "A key of the set has no %q.", name)
		}
	}
	data, err := json.Marshal(members)
	if err != nil {
		return nil, problem.Wrap(err, problem.Malformed, "A key of the set cannot be read.")
	}
	var jwk jose.JSONWebKey
	if err := jwk.UnmarshalJSON(data); err != nil {
		return nil, problem.Wrap(err, problem.Malformed, "A key of the set cannot be read.")
	}
	p, err := pin("", jwk.Key)
	if err != nil {
		return nil, err
	}
	for name, must := range map[string]string{"alg": p.jwk.Alg, "kid": p.jwk.Kid, "use": p.jwk.Use} {
		if got, ok := members[name]; ok && got != must {
			return nil, problem.New(problem.Malformed, "A key of the set has a %q that is not its own.", name)
		}
	}
	return p.key, nil
}

// Merge returns the keys of both. A key that both have stays pinned to the
// broker that s pins it to.
func (s KeySet) Merge(t KeySet) KeySet {
	keys := maps.Clone(t.keys)
	if keys == nil {
		keys = make(map[string]pinned, len(s.keys))
	}
	maps.Copy(keys, s.keys)
	return KeySet{keys: keys}
}

// JWKS returns the set as RFC 7517 has it, keys sorted by id: equal sets have
// equal bytes. Issuers are not written.
func (s KeySet) JWKS() ([]byte, error) {
	set := struct {
		Keys []json.RawMessage `json:"keys"`
	}{Keys: []json.RawMessage{}}
	for _, kid := range slices.Sorted(maps.Keys(s.keys)) {
		b, err := marshal(s.keys[kid].jwk)
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, []byte(strings.Replace(string(b), `,"y":""`, "", 1)))
	}
	b, err := json.Marshal(set)
	if err != nil {
		return nil, problem.Wrap(err, problem.Internal, "The key set was not written.")
	}
	return b, nil
}

// Has reports whether the set has a key of that id.
func (s KeySet) Has(kid string) bool {
	_, ok := s.keys[kid]
	return ok
}

func (s KeySet) find(kid string) (crypto.PublicKey, error) {
	if p, ok := s.keys[kid]; ok {
		return p.key, nil
	}
	return nil, problem.New(problem.UnknownKey, "The key that signed it is not known.")
}
