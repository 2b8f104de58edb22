package token_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

// refusals are the only problems that a forged token may be refused with.
var refusals = []problem.Code{problem.TooLarge, problem.Malformed, problem.UnknownField, problem.NotCanonical,
	problem.WrongStatement, problem.UnknownKey, problem.BadSignature}

// forge runs all forgeries of one statement and returns how many there were of
// each class and code.
func forge(t *testing.T, st tokentest.Statement, key tokentest.Key) (n int, tally map[string]map[problem.Code]int) {
	t.Helper()
	tok, err := st.Sign(signer(t, key))
	if err != nil {
		t.Fatal(err)
	}
	keys, failed := hub(t), 0
	if _, err := verifyAs(st.Kind, tok, key, keys); err != nil {
		t.Fatalf("the token to forge is not good: %v", err)
	}
	tally = map[string]map[problem.Code]int{}
	for f := range (tokentest.Forger{Key: key, Token: tok}).All() {
		n++
		got, err := verifyAs(st.Kind, f.Token, key, keys)
		code := problem.Of(err)
		if !slices.Contains(refusals, code) || !got.zero || f.Want != "" && code != f.Want {
			t.Errorf("%s (%s): got %q (%v), want %q and nothing else", f.Class, f.Name, code, err, f.Want)
			if failed++; failed > 20 {
				t.FailNow()
			}
		}
		if tally[f.Class] == nil {
			tally[f.Class] = map[problem.Code]int{}
		}
		tally[f.Class][code]++
	}
	return n, tally
}

// TestForgeries refuses every forgery of every kind of statement, each with the
// same problem as ever. A short run takes the capability alone.
func TestForgeries(t *testing.T) {
	names := []string{"order-tree", "session-order", "capability-read", "revocation", "link", "receipt"}
	if testing.Short() && !*update {
		names = []string{"capability-read"}
	}
	total := 0
	var report strings.Builder
	for _, st := range tokentest.Statements() {
		if !slices.Contains(names, st.Name) {
			continue
		}
		for _, key := range tokentest.Keys() {
			// The other keys go through the same lines, see TestForgeriesOfSlowKeys.
			if key.Alg != "EdDSA" && (key.Alg != "ES256" || st.Kind != "capability" || testing.Short()) {
				continue
			}
			n, tally := forge(t, st, key)
			total += n
			if key.Alg != "EdDSA" {
				continue
			}
			for _, class := range slices.Sorted(maps.Keys(tally)) {
				for _, code := range slices.Sorted(maps.Keys(tally[class])) {
					fmt.Fprintf(&report, "%s\t%s\t%s\t%d\n", st.Name, class, code, tally[class][code])
				}
			}
		}
	}
	t.Logf("%d forgeries, all refused", total)
	if total < 100_000 {
		t.Errorf("got %d forgeries, want at least 100000", total)
	}
	var want strings.Builder
	for line := range strings.Lines(string(golden(t, "testdata/forgeries.txt", func() []byte { return []byte(report.String()) }))) {
		if name, _, _ := strings.Cut(line, "\t"); slices.Contains(names, name) {
			want.WriteString(line)
		}
	}
	if got := report.String(); got != want.String() {
		t.Errorf("forgeries are refused with other problems than before:\n%s", got)
	}
}

// TestForgeriesOfSlowKeys does the same without the bytes for P-384 and RSA.
func TestForgeriesOfSlowKeys(t *testing.T) {
	t.Parallel()
	n := 0
	for _, key := range tokentest.Keys()[2:] {
		tok, err := signer(t, key).Order(tokentest.Order())
		if err != nil {
			t.Fatal(err)
		}
		f := tokentest.Forger{Key: key, Token: tok}
		for x := range f.Headers() {
			n++
			v, err := token.VerifyOrder(x.Token, key.Signer.Public())
			if problem.Of(err) != x.Want || v.Payload != nil {
				t.Errorf("%s %s: got %v, want %q", x.Class, x.Name, err, x.Want)
			}
		}
	}
	if n == 0 {
		t.Error("got no forgeries")
	}
	t.Logf("%d forgeries, all refused", n)
}

// TestEveryByteOfACapability changes each byte of one into all 255 others; a short
// run into each eighth of them.
func TestEveryByteOfACapability(t *testing.T) {
	t.Parallel()
	tok, err := signer(t, tokentest.Keys()[0]).Capability(tokentest.Capability())
	if err != nil {
		t.Fatal(err)
	}
	keys, n, step := hub(t), 0, 1
	if testing.Short() {
		step = 8
	}
	for i := range len(tok) {
		b := []byte(tok)
		for d := 1 + i%step; d < 256; d += step {
			n++
			b[i] = tok[i] ^ byte(d)
			if _, err := token.VerifyCapability(string(b), keys); err == nil {
				t.Fatalf("byte %d as %#02x: got a capability, want a refusal", i, b[i])
			}
		}
	}
	t.Logf("%d changed bytes, all refused", n)
}

// signed are the kinds of signed statements.
var signed = []string{"order", "session-order", "capability", "revocation", "link", "receipt"}

// TestKindConfusion presents each kind of statement in the place of each other.
func TestKindConfusion(t *testing.T) {
	t.Parallel()
	n := 0
	for _, st := range tokentest.Statements() {
		for _, key := range tokentest.Keys()[:2] {
			tok, err := st.Sign(signer(t, key))
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range signed {
				n++
				want := problem.WrongStatement
				if kind == st.Kind {
					want = ""
				}
				if _, err := verifyAs(kind, tok, key, hub(t)); problem.Of(err) != want {
					t.Errorf("%s as %s: got %v, want %q", st.Name, kind, err, want)
				}
			}
		}
	}
	if n < 2*len(signed)*len(signed) {
		t.Errorf("got %d presentations, want each kind in each place", n)
	}
}

// TestOtherPayloadUnderOurHeader signs one kind's payload under another's typ.
func TestOtherPayloadUnderOurHeader(t *testing.T) {
	t.Parallel()
	key := tokentest.Keys()[0]
	kid := signer(t, key).KeyID()
	payloads := map[string]string{}
	for _, v := range vectors(t, acceptedFile) {
		payloads[v.Kind] = v.Payload
	}
	for _, kind := range signed {
		for from, payload := range payloads {
			if strings.TrimPrefix(from, "session-") == strings.TrimPrefix(kind, "session-") {
				continue // the same, or one claims with two authorities, which typ and key tell apart
			}
			tok := key.Sign(fmt.Sprintf(`{"alg":"EdDSA","kid":%q,"typ":"consign-%s+jwt"}`, kid, kind), payload)
			_, err := verifyAs(kind, tok, key, hub(t))
			if c := problem.Of(err); c != problem.UnknownField && c != problem.NotCanonical && c != problem.Malformed {
				t.Errorf("%s as %s: got %v, want a refusal", from, kind, err)
			}
		}
	}
}

// TestOtherSignatureSamePayload: an ECDSA signature (r, s) is as good as (r, n-s).
// The token differs, the statement is the same, and so is its hash.
func TestOtherSignatureSamePayload(t *testing.T) {
	t.Parallel()
	key := tokentest.Keys()[1]
	tok, err := signer(t, key).Capability(tokentest.Capability())
	if err != nil {
		t.Fatal(err)
	}
	p := strings.Split(tok, ".")
	sig, err := base64.RawURLEncoding.DecodeString(p[2])
	if err != nil {
		t.Fatal(err)
	}
	s := new(big.Int).SetBytes(sig[32:])
	new(big.Int).Sub(elliptic.P256().Params().N, s).FillBytes(sig[32:])
	other := p[0] + "." + p[1] + "." + base64.RawURLEncoding.EncodeToString(sig)
	a, err := token.VerifyCapability(tok, hub(t))
	if err != nil {
		t.Fatal(err)
	}
	b, err := token.VerifyCapability(other, hub(t))
	if err != nil {
		t.Fatal(err)
	}
	if tok == other || a.Hash != b.Hash || a.Claims != b.Claims {
		t.Errorf("got %v and %v, want one statement", a, b)
	}
}

func TestStrangersKeys(t *testing.T) {
	t.Parallel()
	key, stranger := tokentest.Keys()[0], tokentest.Ed25519("stranger")
	tok, err := signer(t, stranger).Capability(tokentest.Capability())
	if err != nil {
		t.Fatal(err)
	}
	_, err = token.VerifyCapability(tok, hub(t))
	wantCode(t, err, problem.UnknownKey)
	_, err = token.VerifyCapability(tok, token.KeySet{})
	wantCode(t, err, problem.UnknownKey)

	// A broker may not speak for another, though both are known.
	theirs, err := token.NewKeySet("spiffe://evil.example/broker/main", stranger.Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	v, err := token.VerifyCapability(tok, hub(t).Merge(theirs))
	wantCode(t, err, problem.UnknownBroker)
	if v.Payload != nil || v.Claims != (token.Capability{}) {
		t.Errorf("got %+v with an error", v)
	}

	order, err := signer(t, key).Order(tokentest.Order())
	if err != nil {
		t.Fatal(err)
	}
	for name, pub := range map[string]crypto.PublicKey{
		"stranger": stranger.Signer.Public(), "none": nil, "text": "key", "short": ed25519.PublicKey("x"),
		"nil EC": (*ecdsa.PublicKey)(nil), "empty EC": &ecdsa.PublicKey{}, "nil RSA": (*rsa.PublicKey)(nil), "empty RSA": &rsa.PublicKey{},
	} {
		if _, err := token.VerifyOrder(order, pub); problem.Of(err) != problem.UnknownKey {
			t.Errorf("%s: got %v, want unknown-key", name, err)
		}
	}
}

// oddSigner has a public key that is not its own.
type oddSigner struct {
	crypto.Signer
	public crypto.PublicKey
}

func (o oddSigner) Public() crypto.PublicKey { return o.public }

func TestSigner(t *testing.T) {
	t.Parallel()
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	weak := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 2046), E: 65537}
	huge := &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 8192), E: 65537}
	off := &ecdsa.PublicKey{Curve: elliptic.P256(), X: big.NewInt(1), Y: big.NewInt(1)} //nolint:staticcheck // what replaces X and Y refuses such a point
	for name, s := range map[string]crypto.Signer{
		"none": nil, "P-224": p224, "P-521": p521, "RSA of 2047 bits": oddSigner{p224, weak}, "RSA of 8193 bits": oddSigner{p224, huge}, "off the curve": oddSigner{p224, off},
	} {
		got, err := token.NewSigner(s)
		if problem.Of(err) != problem.UnknownKey || got != (token.Signer{}) {
			t.Errorf("%s: got %v (%v), want unknown-key", name, got, err)
		}
	}
	if _, err := (token.Signer{}).Order(tokentest.Order()); problem.Of(err) != problem.UnknownKey {
		t.Errorf("zero signer: got %v, want unknown-key", err)
	}
	for _, k := range tokentest.Keys() {
		want := problem.Code("")
		if k.Alg == "ES384" || k.Alg == "PS256" {
			want = problem.UnknownKey
		}
		_, err := signer(t, k).Capability(tokentest.Capability())
		if problem.Of(err) != want {
			t.Errorf("%s signs a capability: got %v, want %q", k.Alg, err, want)
		}
	}
	bad := tokentest.Order()
	bad.Exp = bad.Iat
	if tok, err := signer(t, tokentest.Keys()[0]).Order(bad); tok != "" || problem.Of(err) != problem.Malformed {
		t.Errorf("got %q (%v), want malformed", tok, err)
	}
}

// TestThumbprint is the example of RFC 8037 appendix A.3.
func TestThumbprint(t *testing.T) {
	t.Parallel()
	x, err := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	if err != nil {
		t.Fatal(err)
	}
	got, err := token.KeyID(ed25519.PublicKey(x))
	if want := "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; err != nil || got != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
}

// TestSignedNonsense: a good signature does not make claims good.
func TestSignedNonsense(t *testing.T) {
	t.Parallel()
	key := tokentest.Keys()[0]
	kid := signer(t, key).KeyID()
	payloads := map[string]string{}
	for _, v := range vectors(t, acceptedFile) {
		if _, ok := payloads[v.Kind]; !ok {
			payloads[v.Kind] = v.Payload
		}
	}
	for _, tc := range []struct {
		name, kind, old, new string
		want                 problem.Code
	}{
		{"lives for months", "capability", `"exp":1795400900`, `"exp":1805400900`, problem.CapTooLong},
		{"allows to overwrite", "capability", `"do":"read"`, `"do":"modify"`, problem.Malformed},
		{"no budget", "capability", `"max":70000000`, `"max":0`, problem.Malformed},
		{"other broker", "capability", `hub.example`, `bad.example`, problem.UnknownBroker},
		{"agent as broker", "capability", `hub.example/broker`, `hub.example/agent`, problem.Malformed},
		{"linked for a year", "link", `"exp":1795400300`, `"exp":1805400300`, problem.Malformed},
		{"linked for an agent", "link", `b.example/subscriber`, `b.example/agent`, problem.Malformed},
		{"linked at one provider", "link", `b.example/subscriber/ada`, `a.example/subscriber/bob`, problem.Malformed},
		{"linked with itself", "link", `b.example/subscriber/ada`, `a.example/subscriber/ada`, problem.Malformed},
		{"linked without a challenge", "link", `"challenge":"`, `"challenge":"x`, problem.Malformed},
		{"linked at an agent", "link", `hub.example/broker`, `hub.example/agent`, problem.Malformed},
		{"epoch before the first", "revocation", `"epoch":1795400000123`, `"epoch":0`, problem.Malformed},
		{"revoked for months", "revocation", `"until":1795400960`, `"until":1805400960`, problem.Malformed},
		{"revoked and forgotten", "revocation", `"until":1795400960`, `"until":1795400000`, problem.Malformed},
		{"not sorted", "revocation", `01938c5e-7a00-7000-8000-000000000001`, `01938c5e-7a00-7fff-8fff-000000000001`, problem.Malformed},
		{"twice the same", "revocation", `01938c5e-7a00-7000-8000-000000000001`, `01938c5e-7a00-7abc-8def-0123456789ab`, problem.Malformed},
		{"a reason that is text", "revocation", `"reason":"paused"`, `"reason":"Paused for lunch"`, problem.Malformed},
		{"no reason", "revocation", `"reason":"paused"`, `"reason":""`, problem.Malformed},
		{"revoked by an agent", "revocation", `hub.example/broker`, `hub.example/agent`, problem.Malformed},
		{"revoked by another broker", "revocation", `hub.example`, `bad.example`, problem.UnknownBroker},
		{"up and out", "order", `"name":"2026"`, `"name":"../2026"`, problem.BadName},
		{"lives for decades", "order", `"exp":1796004800`, `"exp":2796004800`, problem.Malformed},
		{"verb to come", "order", `"do":"copy"`, `"do":"erase"`, problem.Malformed},
		{"negative limit", "order", `"rate":0`, `"rate":-1`, problem.Malformed},
		{"minus zero", "order", `"rate":0`, `"rate":-0`, problem.NotCanonical},
		{"17 KiB", "order", `"name":"2026"`, `"name":"` + strings.Repeat("x", 17<<10) + `"`, problem.TooLarge},
		{"withdrawn without a signature", "session-order", `"do":"copy"`, `"do":"withdraw"`, problem.Malformed},
		{"standing without a signature", "session-order", `"period":0`, `"period":3600`, problem.Malformed},
		{"an authority to come", "capability", `"authority":"order"`, `"authority":"trust"`, problem.Malformed},
		{"no authority", "receipt", `"authority":"order"`, `"authority":""`, problem.Malformed},
		{"finished before it started", "receipt", `"finished":1795400050`, `"finished":1795400000`, problem.Malformed},
		{"no capability", "receipt", `"caps":["`, `"caps":[],"caps":["`, problem.Malformed},
	} {
		payload := strings.Replace(payloads[tc.kind], tc.old, tc.new, 1)
		if payload == payloads[tc.kind] {
			t.Fatalf("%s: the payload is unchanged", tc.name)
		}
		got, err := verifyAs(tc.kind, key.Sign(fmt.Sprintf(`{"alg":"EdDSA","kid":%q,"typ":"consign-%s+jwt"}`, kid, tc.kind), payload), key, hub(t))
		if problem.Of(err) != tc.want || !got.zero {
			t.Errorf("%s: got %v, want %q and nothing else", tc.name, err, tc.want)
		}
	}
}

// TestLargePayloadIsNotHashed: a payload beyond its limit is refused for its size,
// before anything is computed over it.
func TestLargePayloadIsNotHashed(t *testing.T) {
	t.Parallel()
	key := tokentest.Keys()[0]
	tok := key.Sign(fmt.Sprintf(`{"alg":"EdDSA","kid":%q,"typ":"consign-order+jwt"}`, signer(t, key).KeyID()), strings.Repeat("x", token.MaxOrderPayload+1))
	_, err := token.VerifyOrder(tok[:len(tok)-8]+"AAAAAAAA", key.Signer.Public())
	wantCode(t, err, problem.TooLarge)
	tok = key.Sign(fmt.Sprintf(`{"alg":"EdDSA","kid":%q,"typ":"consign-order+jwt"}`, signer(t, key).KeyID()), strings.Repeat("x", token.MaxOrderPayload))
	_, err = token.VerifyOrder(tok, key.Signer.Public())
	wantCode(t, err, problem.Malformed)
}
