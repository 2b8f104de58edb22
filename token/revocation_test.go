package token_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

func TestRevocationCheck(t *testing.T) {
	t.Parallel()
	life := int64((token.MaxCapabilityLife + token.ClockSkew).Seconds())
	for _, tc := range []struct {
		name string
		edit func(*token.Revocation)
		want problem.Code
	}{
		{"good", func(*token.Revocation) {}, ""},
		{"of nobody", func(r *token.Revocation) { r.Revoked = nil }, ""},
		{"a reason to come", func(r *token.Revocation) { r.Revoked[0].Reason = "moon-is-full" }, ""},
		{"as long as the longest capability", func(r *token.Revocation) { r.Revoked[0].Until = r.Iat + life }, ""},
		{"a second longer", func(r *token.Revocation) { r.Revoked[0].Until = r.Iat + life + 1 }, problem.Malformed},
		{"over already", func(r *token.Revocation) { r.Revoked[0].Until = r.Iat }, problem.Malformed},
		{"no epoch", func(r *token.Revocation) { r.Epoch = 0 }, problem.Malformed},
		{"an epoch beyond JSON", func(r *token.Revocation) { r.Epoch = 1 << 53 }, problem.Malformed},
		{"no iat", func(r *token.Revocation) { r.Iat = 0 }, problem.Malformed},
		{"an agent's", func(r *token.Revocation) { r.Iss = tokentest.AgentA }, problem.Malformed},
		{"a subscriber's", func(r *token.Revocation) { r.Iss = tokentest.AtA }, problem.Malformed},
		{"of no transfer", func(r *token.Revocation) { r.Revoked[0].Xfr = "" }, problem.Malformed},
		{"not sorted", func(r *token.Revocation) { slices.Reverse(r.Revoked) }, problem.Malformed},
		{"twice", func(r *token.Revocation) { r.Revoked[0] = r.Revoked[1] }, problem.Malformed},
		{"no reason", func(r *token.Revocation) { r.Revoked[0].Reason = "" }, problem.Malformed},
		{"a sentence", func(r *token.Revocation) { r.Revoked[0].Reason = "it was you" }, problem.Malformed},
		{"a long reason", func(r *token.Revocation) { r.Revoked[0].Reason = token.Reason(strings.Repeat("a", 33)) }, problem.Malformed},
		{"more than the most", func(r *token.Revocation) { r.Revoked = make([]token.Revoked, token.MaxRevoked+1) }, problem.TooLarge},
	} {
		r := tokentest.Revocation()
		tc.edit(&r)
		if got := problem.Of(r.Check()); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
		if tok, err := signer(t, tokentest.Keys()[0]).Revocation(r); problem.Of(err) != tc.want || (tok == "") != (err != nil) {
			t.Errorf("%s: got a token of %d bytes (%v), want %q", tc.name, len(tok), err, tc.want)
		}
	}
}

// TestMostRevocations: a list of as many transfers as there may be, each as long as it can be, fits.
func TestMostRevocations(t *testing.T) {
	t.Parallel()
	r := token.Revocation{Epoch: 1<<53 - 1, Iat: 1<<53 - 1000, Iss: tokentest.TheirHub}
	for i := range token.MaxRevoked {
		r.Revoked = append(r.Revoked, token.Revoked{Reason: token.Reason(strings.Repeat("z", token.MaxReasonSize)), Until: 1<<53 - 1,
			Xfr: token.TransferID(fmt.Sprintf("01938c5e-7a00-7abc-8def-%012d", i))})
	}
	tok, err := signer(t, tokentest.Keys()[0]).Revocation(r)
	if err != nil {
		t.Fatal(err)
	}
	v, err := token.VerifyRevocation(tok, hub(t))
	if err != nil || len(v.Claims.Revoked) != token.MaxRevoked {
		t.Errorf("got %d transfers (%v), want %d", len(v.Claims.Revoked), err, token.MaxRevoked)
	}
	t.Logf("%d transfers: %d bytes of payload, %d of token", token.MaxRevoked, len(v.Payload), len(tok))
}

// TestRevocationByAStranger: only the capability keys of the broker itself speak of what it has revoked.
func TestRevocationByAStranger(t *testing.T) {
	t.Parallel()
	for _, k := range tokentest.Keys()[2:] { // those of accounts and agents
		if _, err := signer(t, k).Revocation(tokentest.Revocation()); problem.Of(err) != problem.UnknownKey {
			t.Errorf("%s: got %v, want unknown-key", k.Name, err)
		}
	}
	stranger := tokentest.Ed25519("stranger")
	tok, err := signer(t, stranger).Revocation(tokentest.Revocation())
	if err != nil {
		t.Fatal(err)
	}
	_, err = token.VerifyRevocation(tok, hub(t))
	wantCode(t, err, problem.UnknownKey)
	_, err = token.VerifyRevocation(tok, token.KeySet{})
	wantCode(t, err, problem.UnknownKey)
	theirs, err := token.NewKeySet("spiffe://evil.example/broker/main", stranger.Signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	v, err := token.VerifyRevocation(tok, hub(t).Merge(theirs))
	wantCode(t, err, problem.UnknownBroker)
	if v.Payload != nil || v.Claims.Epoch != 0 {
		t.Errorf("got %+v with an error", v)
	}
}

func FuzzRevocation(f *testing.F) {
	seed(f, payloadOf, "revocation")
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := token.ParseRevocation(b)
		if err != nil {
			if r.Epoch != 0 || r.Revoked != nil || problem.Of(err) == problem.Internal {
				t.Fatalf("got %+v with %v", r, err)
			}
			return
		}
		if again, err := r.Payload(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("got %s (%v), want %s", again, err, b)
		}
	})
}
