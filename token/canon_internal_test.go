package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"reflect"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token/problem"
)

func TestMarshalIsRFC8785(t *testing.T) {
	t.Parallel()
	type inner struct {
		Z int64  `json:"z"`
		A string `json:"a"`
	}
	type outer struct {
		N int64    `json:"n"`
		L []string `json:"l"`
		B bool     `json:"b"`
		I []inner  `json:"i"`
	}
	got, err := marshal(outer{N: -7, I: []inner{{1, "x"}}})
	if want := `{"b":false,"i":[{"a":"x","z":1}],"l":[],"n":-7}`; err != nil || string(got) != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
	for in, want := range map[string]string{
		"":                             `""`,
		"\u20ac$\u000f\nA'B\"\\\\\"/":  `"€$\u000f\nA'B\"\\\\\"/"`, // RFC 8785 section 3.2.2
		"\x00\x01\x1f\b\t\f\r\v\x7f<>": "\"\\u0000\\u0001\\u001f\\b\\t\\f\\r\\u000b\x7f<>\"",
		"\u2028\u2029\ufeff\U0001f680": "\"\u2028\u2029\ufeff\U0001f680\"",
	} {
		if got, err := marshal(in); err != nil || string(got) != want {
			t.Errorf("%q: got %s (%v), want %s", in, got, err, want)
		}
	}
	for _, n := range []int64{1 << 53, -1 << 53, 1<<63 - 1, -1 << 63} {
		if got, err := marshal(outer{N: n}); problem.Of(err) != problem.Malformed || got != nil {
			t.Errorf("%d: got %s (%v), want malformed", n, got, err)
		}
	}
	for _, n := range []int64{1<<53 - 1, -(1<<53 - 1), 0} {
		if _, err := marshal(n); err != nil {
			t.Errorf("%d: got %v", n, err)
		}
	}
	for _, s := range []string{"\xff", "a\xed\xa0\x80"} {
		if got, err := marshal(inner{A: s}); problem.Of(err) != problem.Malformed || got != nil {
			t.Errorf("%q: got %s (%v), want malformed", s, got, err)
		}
	}
}

// TestMembersAreSorted keeps the Go structs in the order of the wire.
func TestMembersAreSorted(t *testing.T) {
	t.Parallel()
	for name, v := range map[string]any{"order": Order{}, "capability": Capability{}, "receipt": Receipt{}, "manifest": Manifest{},
		"item": Item{}, "outcome": Outcome{}, "location": Location{}, "limits": Limits{}, "filter": Filter{}, "header": header{}} {
		if err := checkSorted(v); err != "" {
			t.Errorf("%s: %s", name, err)
		}
	}
}

func checkSorted(v any) string {
	t := reflect.TypeOf(v)
	for i := range t.NumField() {
		tag := t.Field(i).Tag.Get("json")
		if tag == "" || strings.ContainsAny(tag, ",-") {
			return t.Field(i).Name + " has no plain name"
		}
		if i > 0 && t.Field(i-1).Tag.Get("json") >= tag {
			return tag + " is not in order"
		}
	}
	return ""
}

// TestKeyThatMayNotMint: even if a key set held a P-384 key, it would sign no capability.
func TestKeyThatMayNotMint(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	h := HashOf(nil)
	c := Capability{
		Aud: NewIdentity("a", Agent, "x"), Authority: ByOrder, Bat: 1, Cnf: h, Do: Read, Exp: 2, Gen: 1, Iat: 1, Iss: NewIdentity("b", Broker, "x"),
		Man: h, Max: 1, Ord: h, Peer: NewIdentity("c", Agent, "x"), Xfr: "01938c5e-7a00-7abc-8def-0123456789ab",
	}
	lax := capabilityKind
	lax.algs = receiptKind.algs
	tok, err := sign(s, lax, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify[Capability](tok, lax, theKey(key.Public())); err != nil {
		t.Fatalf("the token is not otherwise good: %v", err)
	}
	if v, err := verify[Capability](tok, capabilityKind, theKey(key.Public())); problem.Of(err) != problem.BadSignature || v.Payload != nil {
		t.Errorf("got %+v (%v), want bad-signature", v, err)
	}
}
