package token_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestHash(t *testing.T) {
	t.Parallel()
	// SHA-256 of nothing, FIPS 180-4.
	if got, want := token.HashOf(nil), token.Hash("47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"); got != want || got.Check() != nil {
		t.Errorf("got %s, want %s", got, want)
	}
	good := string(token.HashOf([]byte("x")))
	for name, h := range map[string]string{
		"none": "", "short": good[1:], "long": good + "A", "padded": good + "=", "other alphabet": "+" + good[1:],
		"new line": good[:42] + "\n", "dot": "." + good[1:], "spare bits": good[:42] + "B",
	} {
		if name == "spare bits" && good[42] == 'B' {
			t.Fatal("the example has no spare bits")
		}
		if err := token.Hash(h).Check(); problem.Of(err) != problem.Malformed {
			t.Errorf("%s: got %v, want malformed", name, err)
		}
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("0a", 32)
	for s, ok := range map[string]bool{
		"blake3:" + hex: true, "sha256:" + hex: true, "": false, hex: false, "blake3:": false, "md5:" + hex: false, "BLAKE3:" + hex: false,
		"blake3:" + strings.ToUpper(hex): false, "blake3:" + hex + "0": false, "blake3:" + hex[1:]: false, "blake3:g" + hex[1:]: false,
		"blake3:" + hex[:32] + "g" + hex[33:]: false, " blake3:" + hex: false,
	} {
		got, err := token.ParseDigest(s)
		if (err == nil) != ok || ok != (string(got) == s && s != "") || !ok && problem.Of(err) != problem.Malformed {
			t.Errorf("%q: got %q (%v), want %v", s, got, err, ok)
		}
		if err := token.Digest(s).Check(); (err == nil) != (ok || s == "") {
			t.Errorf("%q: got %v", s, err)
		}
	}
}

// merkle is RFC 6962 section 2.1, word for word.
func merkle(d [][]byte) [32]byte {
	switch len(d) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, d[0]...))
	}
	k := 1
	for 2*k < len(d) {
		k *= 2
	}
	l, r := merkle(d[:k]), merkle(d[k:])
	return sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
}

func TestOutcomesRootIsThatOfRFC6962(t *testing.T) {
	t.Parallel()
	var lines [][]byte
	for n := range 301 {
		got, err := token.OutcomesRoot(lines)
		sum := merkle(lines)
		if want := token.Hash(base64.RawURLEncoding.EncodeToString(sum[:])); err != nil || got != want {
			t.Fatalf("%d lines: got %s (%v), want %s", n, got, err, want)
		}
		lines = append(lines, []byte(fmt.Sprintf("line %d", n)))
	}
}
