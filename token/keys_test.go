package token_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

func TestKeySetThereAndBack(t *testing.T) {
	t.Parallel()
	set := hub(t)
	data, err := set.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	back, err := token.ParseKeySet(data, tokentest.TheirHub)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.JWKS()
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("got %s (%v), want %s", again, err, data)
	}
	for _, k := range tokentest.Keys()[:2] {
		s := signer(t, k)
		if !back.Has(s.KeyID()) {
			t.Errorf("%s: got no key", k.Name)
		}
		tok, err := s.Capability(tokentest.Capability())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := token.VerifyCapability(tok, back); err != nil {
			t.Errorf("%s: got %v", k.Name, err)
		}
	}
	if back.Has("") || (token.KeySet{}).Has(signer(t, tokentest.Keys()[0]).KeyID()) {
		t.Error("got a key that is not there")
	}
	var indented bytes.Buffer // operators may lay it out; only statements have one spelling
	if err := json.Indent(&indented, data, "", "  "); err != nil {
		t.Fatal(err)
	}
	if _, err := token.ParseKeySet(indented.Bytes(), tokentest.TheirHub); err != nil {
		t.Errorf("indented: got %v", err)
	}
}

// TestKeySetIsACopy: who made the set cannot change its keys afterwards.
func TestKeySetIsACopy(t *testing.T) {
	t.Parallel()
	key := tokentest.Keys()[0]
	pub := slices.Clone(key.Signer.Public().(ed25519.PublicKey))
	set, err := token.NewKeySet(tokentest.TheirHub, pub)
	if err != nil {
		t.Fatal(err)
	}
	clear(pub)
	tok, err := signer(t, key).Capability(tokentest.Capability())
	if err != nil {
		t.Fatal(err)
	}
	_, err = token.VerifyCapability(tok, set)
	wantCode(t, err, "")
}

func TestNewKeySet(t *testing.T) {
	t.Parallel()
	keys := tokentest.Keys()
	many := make([]crypto.PublicKey, 17)
	for i := range many {
		many[i] = tokentest.Ed25519(fmt.Sprint(i)).Signer.Public()
	}
	for _, tc := range []struct {
		name   string
		issuer token.Identity
		pubs   []crypto.PublicKey
		want   problem.Code
	}{
		{"sixteen", tokentest.TheirHub, many[:16], ""},
		{"seventeen", tokentest.TheirHub, many, problem.TooLarge},
		{"none", tokentest.TheirHub, nil, problem.Malformed},
		{"P-384", tokentest.TheirHub, []crypto.PublicKey{keys[2].Signer.Public()}, problem.UnknownKey},
		{"RSA", tokentest.TheirHub, []crypto.PublicKey{keys[3].Signer.Public()}, problem.UnknownKey},
		{"nil", tokentest.TheirHub, []crypto.PublicKey{nil}, problem.UnknownKey},
		{"private", tokentest.TheirHub, []crypto.PublicKey{keys[0].Signer}, problem.UnknownKey},
		{"agent", tokentest.AgentA, many[:1], problem.Malformed},
		{"nobody", "", many[:1], problem.Malformed},
	} {
		set, err := token.NewKeySet(tc.issuer, tc.pubs...)
		if problem.Of(err) != tc.want || err != nil && set.Has(kidOf(t, many[0])) {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
}

func kidOf(t *testing.T, pub crypto.PublicKey) string {
	t.Helper()
	kid, err := token.KeyID(pub)
	if err != nil {
		t.Fatal(err)
	}
	return kid
}

// TestKeySetRefused: one bad key, and none of the set is used.
func TestKeySetRefused(t *testing.T) {
	t.Parallel()
	data, err := hub(t).JWKS()
	if err != nil {
		t.Fatal(err)
	}
	const okp = `{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	const ec = `{"crv":"P-256","kty":"EC","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}`
	with := func(key string) string { return string(data[:len(data)-2]) + "," + key + "]}" }
	in := func(member string) string { return with(okp[:len(okp)-1] + "," + member + "}") }
	for _, tc := range []struct {
		name, text string
		want       problem.Code
	}{
		{"one more Ed25519", with(okp), ""},
		{"one more P-256", with(ec), ""},
		{"key_ops as a list", in(`"key_ops":["verify"]`), problem.Malformed},
		{"private Ed25519", in(`"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"`), problem.UnknownField},
		{"private P-256", with(ec[:len(ec)-1] + `,"d":"870MB6gfuTJ4HtUnUvYMyJpr5eUZNP4Bk43bVdj3eAE"}`), problem.UnknownField},
		{"symmetric", with(`{"k":"AAECAwQF","kty":"oct"}`), problem.UnknownKey},
		{"symmetric in disguise", in(`"k":"AAECAwQF"`), problem.UnknownField},
		{"RSA", with(`{"e":"AQAB","kty":"RSA","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx"}`), problem.UnknownKey},
		{"X25519", with(strings.Replace(okp, "Ed25519", "X25519", 1)), problem.UnknownKey},
		{"P-384", with(strings.Replace(ec, "P-256", "P-384", 1)), problem.UnknownKey},
		{"kty of another", with(strings.Replace(okp, "OKP", "EC", 1)), problem.UnknownKey},
		{"off the curve", with(strings.Replace(ec, `"x":"M`, `"x":"N`, 1)), problem.Malformed},
		{"no x", with(`{"crv":"Ed25519","kty":"OKP"}`), problem.Malformed},
		{"no y", with(ec[:strings.Index(ec, `,"y"`)] + "}"), problem.Malformed},
		{"y for Ed25519", in(`"y":"AA"`), problem.UnknownField},
		{"short x", with(`{"crv":"Ed25519","kty":"OKP","x":"11qY"}`), problem.Malformed},
		{"chain", in(`"x5u":"https://evil.example"`), problem.UnknownField},
		{"x twice", in(`"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`), problem.Malformed},
		{"kid of another", in(`"kid":"NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"`), problem.Malformed},
		{"alg of another", in(`"alg":"ES256"`), problem.Malformed},
		{"alg none", in(`"alg":"none"`), problem.Malformed},
		{"for encryption", in(`"use":"enc"`), problem.Malformed},
		{"null key", with("null"), problem.UnknownKey},
		{"text key", with(`"x"`), problem.Malformed},
		{"no keys", `{"keys":[]}`, problem.Malformed},
		{"empty", `{}`, problem.Malformed},
		{"nothing", ``, problem.Malformed},
		{"null", `null`, problem.Malformed},
		{"a list", `[` + okp + `]`, problem.Malformed},
		{"unknown field", `{"keys":[` + okp + `],"more":[]}`, problem.UnknownField},
		{"keys twice", `{"keys":[` + okp + `],"keys":[]}`, problem.Malformed},
		{"seventeen keys", `{"keys":[` + strings.Repeat(okp+",", 16) + okp + `]}`, problem.TooLarge},
		{"64 KiB and a byte", string(data) + strings.Repeat(" ", 64<<10), problem.TooLarge},
		{"nested", `{"keys":` + strings.Repeat("[", 60000), problem.Malformed},
	} {
		set, err := token.ParseKeySet([]byte(tc.text), tokentest.TheirHub)
		if got := problem.Of(err); got != tc.want || err != nil && set.Has(kidOf(t, tokentest.Keys()[0].Signer.Public())) {
			t.Errorf("%s: got %q (%v), want %q", tc.name, got, err, tc.want)
		}
	}
}

func TestMerge(t *testing.T) {
	t.Parallel()
	shared, other := tokentest.Keys()[0], tokentest.Ed25519("second")
	const evil token.Identity = "spiffe://evil.example/broker/main"
	ours, err := token.NewKeySet(tokentest.TheirHub, shared.Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := token.NewKeySet(evil, shared.Signer.Public(), other.Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	tok, err := signer(t, shared).Capability(tokentest.Capability())
	if err != nil {
		t.Fatal(err)
	}
	_, err = token.VerifyCapability(tok, ours.Merge(theirs))
	wantCode(t, err, "")
	_, err = token.VerifyCapability(tok, theirs.Merge(ours))
	wantCode(t, err, problem.UnknownBroker)
	_, err = token.VerifyCapability(tok, token.KeySet{}.Merge(ours).Merge(token.KeySet{}))
	wantCode(t, err, "")
	if ours.Has(kidOf(t, other.Signer.Public())) || !ours.Merge(theirs).Has(kidOf(t, other.Signer.Public())) {
		t.Error("merging changed the set that it was called on, or added nothing")
	}
}
