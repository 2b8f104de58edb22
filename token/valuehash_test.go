package token_test

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

// TestValueHashesAreThoseOfCDMI: names are algorithm and bits, and outputs are as long as the standard library's.
func TestValueHashesAreThoseOfCDMI(t *testing.T) {
	t.Parallel()
	sizes := map[token.ValueHash]int{token.MD5: md5.Size, "SHA160": sha1.Size, "SHA256": sha256.Size, "SHA384": sha512.Size384, "SHA512": sha512.Size}
	for _, h := range token.ValueHashes() {
		if want, ok := sizes[h]; !ok || h.Size() != want {
			t.Errorf("%s: got %d bytes, want %d", h, h.Size(), want)
		}
		delete(sizes, h)
		text := string(h) + ":" + strings.Repeat("0f", h.Size())
		d, err := token.ParseValueDigest(text)
		if err != nil || d.Hash() != h || d.Base16() != strings.Repeat("0f", h.Size()) || d.Check() != nil || h.Check() != nil {
			t.Errorf("%s: got %q %q %q (%v)", h, d, d.Hash(), d.Base16(), err)
		}
	}
	if len(sizes) > 0 {
		t.Errorf("left over: %v", sizes)
	}
	if token.ValueHash("").Check() != nil || token.ValueDigest("").Check() != nil || token.ValueDigest("").Hash() != "" || token.ValueDigest("").Base16() != "" {
		t.Error("none is refused, or is something")
	}
}

func TestParseValueDigest(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256(nil)
	good := "SHA256:" + hex.EncodeToString(sum[:])
	if d, err := token.ParseValueDigest(good); err != nil || string(d) != good {
		t.Fatalf("got %q (%v)", d, err)
	}
	for _, bad := range []string{
		"", ":", "SHA256", "SHA256:", ":" + good[7:], good[7:], strings.ToLower(good), strings.ToUpper(good), good + "0", good[:len(good)-1], good + " ",
		" " + good, "SHA-256" + good[6:], "SHA256: " + good[7:], "SHA512" + good[6:], "MD5" + good[6:], "CRC32:00000000", "SHA160" + good[6:], "blake3" + good[6:],
		"SHA256:g" + good[8:], "SHA256::" + good[8:],
	} {
		if d, err := token.ParseValueDigest(bad); problem.Of(err) != problem.Malformed || d != "" {
			t.Errorf("%q: got %q (%v), want malformed", bad, d, err)
		}
		if err := token.ValueDigest(bad).Check(); bad != "" && problem.Of(err) != problem.Malformed {
			t.Errorf("%q: Check got %v, want malformed", bad, err)
		}
	}
}

// TestValueHashThatNobodyAskedFor: a destination answers what the manifest asks for, and nothing else.
func TestValueHashThatNobodyAskedFor(t *testing.T) {
	t.Parallel()
	m := tokentest.Manifest()
	wantCode(t, m.CheckOutcomes(tokentest.Outcomes()), "")
	for _, tc := range []struct {
		name string
		edit func(outs []token.Outcome)
		want problem.Code
	}{
		{"good", func([]token.Outcome) {}, ""},
		{"not stored, not answered", func(outs []token.Outcome) {
			outs[1] = token.Outcome{Item: 1, Outcome: token.Failed, Code: string(problem.DiskFull)}
		}, ""},
		{"sent, not answered", func(outs []token.Outcome) { outs[1].Outcome, outs[1].Hash = token.Sent, "" }, ""},
		{"not answered", func(outs []token.Outcome) { outs[1].Hash = "" }, problem.Malformed},
		{"answered with another", func(outs []token.Outcome) { outs[1].Hash = token.ValueDigest("MD5:" + strings.Repeat("0", 32)) }, problem.Malformed},
		{"not asked for", func(outs []token.Outcome) { outs[0].Hash = outs[1].Hash }, problem.Malformed},
		{"the answer of another item", func(outs []token.Outcome) { outs[0].Item, outs[1].Item = 1, 0 }, problem.Malformed},
		{"an item that is not there", func(outs []token.Outcome) { outs[2].Item = 3 }, problem.Malformed},
	} {
		outs := tokentest.Outcomes()
		tc.edit(outs)
		for _, o := range outs {
			wantCode(t, o.Check(), "")
		}
		if got := problem.Of(m.CheckOutcomes(outs)); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}
