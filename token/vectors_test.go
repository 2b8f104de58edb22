package token_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

const (
	acceptedFile = "testdata/vectors.txt"
	refusedFile  = "testdata/refused.txt"
)

// freshVectors keeps the signatures of before where they are still good, so that
// a run with -update changes nothing that need not change.
func freshVectors(t *testing.T) []tokentest.Vector {
	t.Helper()
	fresh, err := tokentest.Vectors()
	if err != nil {
		t.Fatal(err)
	}
	var old []tokentest.Vector
	if b, err := readFile(acceptedFile); err == nil {
		if old, err = tokentest.ParseVectors(b); err != nil {
			t.Fatal(err)
		}
	}
	for i, v := range fresh {
		j := slices.IndexFunc(old, func(o tokentest.Vector) bool { return o.Name == v.Name && o.Payload == v.Payload })
		if j >= 0 {
			fresh[i].Token = old[j].Token
		}
	}
	return fresh
}

func TestVectors(t *testing.T) {
	fresh := freshVectors(t)
	golden(t, acceptedFile, func() []byte {
		return tokentest.FormatVectors("Statements that every implementation accepts, for docs/spec.\n"+
			"The keys are in tokentest/keys.go; the private ones are public.", fresh)
	})
	vs := vectors(t, acceptedFile)
	if len(vs) != len(fresh) {
		t.Fatalf("got %d vectors, want %d; run with -update", len(vs), len(fresh))
	}
	for i, v := range vs {
		t.Run(v.Name, func(t *testing.T) {
			if v.Name != fresh[i].Name || v.Payload != fresh[i].Payload || v.Hash != fresh[i].Hash || v.Xfr != fresh[i].Xfr {
				t.Errorf("the code no longer writes this vector:\n got %s\nwant %s", fresh[i].Payload, v.Payload)
			}
			if v.Kind == "run" {
				acceptRun(t, v)
			} else if got := otherEncoder(t, v.Payload); got != v.Payload {
				t.Errorf("another encoder writes\n%s\nwant\n%s", got, v.Payload)
			}
			if got := token.HashOf([]byte(v.Payload)); string(got) != v.Hash {
				t.Errorf("got hash %s, want %s", got, v.Hash)
			}
			acceptVector(t, v)
		})
	}
}

// acceptRun makes the id of a run from its text with the standard library alone.
func acceptRun(t *testing.T, v tokentest.Vector) {
	t.Helper()
	o := tokentest.Standing()
	k, ok := o.RunOf(token.TransferID(v.Xfr))
	if !ok || v.Name != fmt.Sprintf("run-%d", k) || o.Run(k) != token.TransferID(v.Xfr) {
		t.Fatalf("got run %d %v, want %s", k, ok, v.Name)
	}
	sum := sha256.Sum256([]byte(v.Payload))
	hexed := fmt.Sprintf("%012x%x", (o.Iat+k*o.Period)*1000, sum[:10])
	variant := "89ab"[sum[2]>>4&3]
	want := hexed[:8] + "-" + hexed[8:12] + "-7" + hexed[13:16] + "-" + string(variant) + hexed[17:20] + "-" + hexed[20:32]
	if v.Xfr != want {
		t.Errorf("got %s, want %s", v.Xfr, want)
	}
}

func acceptVector(t *testing.T, v tokentest.Vector) {
	t.Helper()
	switch v.Kind {
	case "run":
	case "manifest":
		m, h, err := token.ParseManifest([]byte(v.Payload))
		if err != nil || string(h) != v.Hash {
			t.Fatalf("got hash %s (%v), want %s", h, err, v.Hash)
		}
		again, h2, err := token.MarshalManifest(m)
		if err != nil || string(again) != v.Payload || h2 != h {
			t.Errorf("got %s %s (%v)", again, h2, err)
		}
	case "outcome":
		o, err := token.ParseOutcome([]byte(v.Payload))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := token.MarshalOutcome(o); err != nil || string(again) != v.Payload {
			t.Errorf("got %s (%v)", again, err)
		}
	default:
		key, ok := tokentest.ByName(v.Key)
		if !ok {
			t.Fatalf("no key %q", v.Key)
		}
		got, err := verifyAs(v.Kind, v.Token, key, hub(t))
		if err != nil {
			t.Fatal(err)
		}
		kid, err := token.KeyID(key.Signer.Public())
		if err != nil || got.kid != kid || string(got.payload) != v.Payload || string(got.hash) != v.Hash {
			t.Errorf("got %+v (%v)", got, err)
		}
	}
}

// otherEncoder re-encodes with the standard library alone: maps have sorted keys.
func otherEncoder(t *testing.T, s string) string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// freshRefused takes the first forgery of each class for each kind.
func freshRefused(t *testing.T) []tokentest.Vector {
	t.Helper()
	var out []tokentest.Vector
	key := tokentest.Keys()[0]
	for _, st := range tokentest.Statements() {
		if !slices.Contains([]string{"order-tree", "session-order", "capability-read", "revocation", "link", "receipt"}, st.Name) {
			continue
		}
		tok, err := st.Sign(signer(t, key))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for f := range (tokentest.Forger{Key: key, Token: tok}).All() {
			if seen[f.Class] || len(f.Token) > 20<<10 || strings.Trim(f.Token, " ") != f.Token || f.Token == "" || strings.ContainsFunc(f.Token, func(r rune) bool { return r < ' ' || r > '~' }) {
				continue
			}
			seen[f.Class] = true
			_, err := verifyAs(st.Kind, f.Token, key, hub(t))
			out = append(out, tokentest.Vector{Name: fmt.Sprintf("%s/%s/%s", st.Name, f.Class, f.Name), Kind: st.Kind,
				Key: key.Name, Token: f.Token, Refused: string(problem.Of(err))})
		}
	}
	return out
}

func TestRefusedVectors(t *testing.T) {
	golden(t, refusedFile, func() []byte {
		return tokentest.FormatVectors("Tokens that every implementation refuses, and the problem each is refused with:\n"+
			"the first attempt of each class of attack. The keys are in tokentest/keys.go.", freshRefused(t))
	})
	for _, v := range vectors(t, refusedFile) {
		t.Run(v.Name, func(t *testing.T) {
			key, ok := tokentest.ByName(v.Key)
			if !ok || v.Refused == "" {
				t.Fatalf("the vector has no key or no problem: %+v", v)
			}
			got, err := verifyAs(v.Kind, v.Token, key, hub(t))
			wantCode(t, err, problem.Code(v.Refused))
			if !got.zero {
				t.Errorf("got %+v with an error, want nothing", got)
			}
		})
	}
}

func TestVectorFileIsStrict(t *testing.T) {
	t.Parallel()
	if _, err := tokentest.ParseVectors([]byte("nome: x\n\n")); err == nil {
		t.Error("got a vector with an unknown field, want an error")
	}
	vs, err := tokentest.ParseVectors([]byte("# note\n\nname: x\nkey: a: b\n\nname: y\n\n"))
	if err != nil || len(vs) != 2 || vs[0].Key != "a: b" || vs[1].Name != "y" {
		t.Errorf("got %+v (%v)", vs, err)
	}
}
