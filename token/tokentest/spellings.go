package tokentest

import (
	"encoding/base64"
	"fmt"
	"iter"
	"strings"

	"github.com/consign-transfer/consign/token/problem"
)

func decode(s string) string {
	b, err := base64.RawURLEncoding.DecodeString(s)
	must(err)
	return string(b)
}

// Spellings yields other texts that a lax decoder takes for the same token.
func (f Forger) Spellings() iter.Seq[Forgery] {
	return func(yield func(Forgery) bool) {
		p := strings.Split(f.Token, ".")
		for i := range p {
			for _, last := range alphabet {
				q := append([]string(nil), p...)
				q[i] = p[i][:len(p[i])-1] + string(last)
				if decodes(q[i], p[i]) && q[i] != p[i] &&
					!yield(Forgery{"spare bits", fmt.Sprintf("part %d ends in %c", i, last), strings.Join(q, "."), problem.NotCanonical}) {
					return
				}
			}
			for _, pad := range []string{"=", "==", "\n", "\r\n", " ", "\t", "\x00", "%3D"} {
				q := append([]string(nil), p...)
				q[i] += pad
				if !yield(Forgery{"padding", fmt.Sprintf("part %d and %q", i, pad), strings.Join(q, "."), problem.Malformed}) {
					return
				}
			}
			q := append([]string(nil), p...)
			q[i] = ""
			if !yield(Forgery{"empty part", fmt.Sprint(i), strings.Join(q, "."), problem.Malformed}) {
				return
			}
		}
		std := strings.NewReplacer("-", "+", "_", "/").Replace(f.Token)
		for _, shape := range []struct{ name, tok string }{
			{"no token", ""}, {"dots", ".."}, {"one part", p[0]}, {"two parts", p[0] + "." + p[1]}, {"four parts", f.Token + ".AAAA"},
			{"five parts", f.Token + ".AAAA.AAAA"}, {"leading dot", "." + f.Token}, {"trailing dot", f.Token + "."},
			{"leading space", " " + f.Token}, {"JSON", `{"payload":"` + p[1] + `","protected":"` + p[0] + `","signature":"` + p[2] + `"}`},
			{"bearer", "Bearer " + f.Token},
		} {
			if !yield(Forgery{"shape", shape.name, shape.tok, problem.Malformed}) {
				return
			}
		}
		if std != f.Token && !yield(Forgery{"shape", "the other base64 alphabet", std, problem.Malformed}) {
			return
		}
		for _, big := range []string{f.Token + strings.Repeat("A", 24<<20), strings.Repeat(".", 24<<20), strings.Repeat("e30.", 6<<20), f.Token + strings.Repeat(" ", 2<<20)} {
			if !yield(Forgery{"huge", fmt.Sprintf("%d bytes", len(big)), big, problem.TooLarge}) {
				return
			}
		}
	}
}

func decodes(a, b string) bool {
	x, err := base64.RawURLEncoding.DecodeString(a)
	return err == nil && string(x) == decode(b)
}

// Bytes yields the token with each byte replaced by each byte that is not of its
// alphabet and by some that are, with each byte left out, doubled, and with
// a new line before it.
func (f Forger) Bytes() iter.Seq[Forgery] {
	return func(yield func(Forgery) bool) {
		t := f.Token
		for i := range len(t) {
			for c := range 256 {
				b := byte(c)
				in := strings.IndexByte(alphabet+".", b) >= 0
				if b == t[i] || in && !neighbour(t[i], b) {
					continue
				}
				want := problem.Code("")
				if !in {
					want = problem.Malformed
				}
				if !yield(Forgery{"byte replaced", fmt.Sprintf("%d by %#02x", i, b), t[:i] + string([]byte{b}) + t[i+1:], want}) {
					return
				}
			}
			for _, x := range []Forgery{
				{"byte left out", fmt.Sprint(i), t[:i] + t[i+1:], ""},
				{"byte doubled", fmt.Sprint(i), t[:i] + t[i:i+1] + t[i:], ""},
				{"new line", fmt.Sprint(i), t[:i] + "\n" + t[i:], problem.Malformed},
				{"cut", fmt.Sprint(i), t[:i], ""},
			} {
				if !yield(x) {
					return
				}
			}
		}
	}
}

// neighbour picks the bytes of the alphabet that replace was: those one bit of the
// six away, and the dot. A full verification is paid for each.
func neighbour(was, b byte) bool {
	x, y := strings.IndexByte(alphabet, was), strings.IndexByte(alphabet, b)
	if x < 0 || y < 0 {
		return true
	}
	d := x ^ y
	return d&(d-1) == 0
}
