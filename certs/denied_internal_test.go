package certs

import (
	"bytes"
	"math/big"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// FuzzDenied: what is taken denies exactly what its lines say, each of which has one spelling.
func FuzzDenied(f *testing.F) {
	for _, s := range []string{
		"", "# nobody\n", "identity spiffe://a.example/subscriber/eve\nserial a.example 5f\n", "serial a.example 0\n", "serial a.example 05\n",
		"identity spiffe://a.example/subscriber/eve\nidentity spiffe://a.example/subscriber/eve", "serial a -1", "serial a +1", "serial a 1_0", "identity \xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := parseDenied(data)
		if err != nil {
			if c := problem.Of(err); d != nil || c != problem.Malformed && c != problem.TooLarge {
				t.Fatalf("got %v and %v", d, err)
			}
			return
		}
		n := len(d.ids)
		for _, of := range d.serials {
			n += len(of)
		}
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			if len(line) == 0 || line[0] == '#' {
				continue
			}
			n--
			words := strings.Split(string(line), " ")
			if words[0] == "identity" {
				if d.identity(token.Identity(words[1])) == nil {
					t.Fatalf("%q is not denied", line)
				}
				continue
			}
			number, ok := new(big.Int).SetString(words[2], 16)
			if !ok || !d.serials[token.Provider(words[1])][string(number.Bytes())] || number.Text(16) != words[2] {
				t.Fatalf("%q is not denied, or has another spelling", line)
			}
		}
		if n != 0 {
			t.Fatalf("%d more are denied than are listed", n)
		}
	})
}
