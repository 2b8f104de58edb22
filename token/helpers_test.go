package token_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

var update = flag.Bool("update", false, "write testdata and the worked examples of docs/spec anew")

// golden returns the committed file, after writing it if -update was given.
func golden(t testing.TB, path string, fresh func() []byte) []byte {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, fresh(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readFile(path string) ([]byte, error) { return os.ReadFile(path) }

// vectors returns the committed vectors and fails if there are none.
func vectors(t testing.TB, path string) []tokentest.Vector {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	vs, err := tokentest.ParseVectors(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(vs) == 0 {
		t.Fatalf("%s has no vectors", path)
	}
	return vs
}

// wantCode fails unless err is of the given code, "" being no error.
func wantCode(t testing.TB, err error, want problem.Code) {
	t.Helper()
	if got := problem.Of(err); got != want {
		t.Errorf("got %q (%v), want %q", got, err, want)
	}
}

func signer(t testing.TB, k tokentest.Key) token.Signer {
	t.Helper()
	s, err := token.NewSigner(k.Signer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// hub is the key set of the broker of tokentest, with both kinds of key.
func hub(t testing.TB) token.KeySet {
	t.Helper()
	keys := tokentest.Keys()
	ks, err := token.NewKeySet(tokentest.TheirHub, keys[0].Signer.Public(), keys[1].Signer.Public(),
		tokentest.Ed25519("second").Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	return ks
}

// verified is what any of the verifiers says.
type verified struct {
	payload []byte
	hash    token.Hash
	kid     string
	zero    bool
}

func check[T any](v token.Verified[T], isZero func(T) bool, err error) (verified, error) {
	return verified{v.Payload, v.Hash, v.KeyID, isZero(v.Claims) && v.Payload == nil && v.Hash == "" && v.KeyID == ""}, err
}

// verifyAs verifies tok as a statement of the given kind, signed by key.
func verifyAs(kind, tok string, key tokentest.Key, keys token.KeySet) (verified, error) {
	switch kind {
	case "order":
		v, err := token.VerifyOrder(tok, key.Signer.Public())
		return check(v, func(o token.Order) bool { return o.ID == "" && o.Accounts == nil && o.Exp == 0 }, err)
	case "link":
		v, err := token.VerifyLink(tok, key.Signer.Public())
		return check(v, func(l token.Link) bool { return l.Accounts == nil && l.Aud == "" && l.Exp == 0 }, err)
	case "receipt":
		v, err := token.VerifyReceipt(tok, key.Signer.Public())
		return check(v, func(r token.Receipt) bool { return r.Xfr == "" && r.Caps == nil && r.N == 0 }, err)
	}
	if kind == "session-order" {
		v, err := token.VerifySessionOrder(tok, keys, tokentest.TheirHub)
		return check(v, func(o token.Order) bool { return o.ID == "" && o.Accounts == nil && o.Exp == 0 }, err)
	}
	if kind == "revocation" {
		v, err := token.VerifyRevocation(tok, keys)
		return check(v, func(r token.Revocation) bool { return r.Epoch == 0 && r.Iss == "" && r.Revoked == nil }, err)
	}
	v, err := token.VerifyCapability(tok, keys)
	return check(v, func(c token.Capability) bool { return c == token.Capability{} }, err)
}
