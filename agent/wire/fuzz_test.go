package wire

import (
	"bytes"
	"testing"

	"github.com/consign-transfer/consign/token/problem"
)

// What is accepted is written back byte for byte; what is not leaves nothing.
func FuzzFrameHasOneSpelling(f *testing.F) {
	seeds := frames()
	if len(seeds) == 0 {
		f.Fatal("no seeds")
	}
	for _, s := range seeds {
		f.Add(mustAppend(f, nil, s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		got, err := readFrame(r)
		if err != nil {
			if got != nil || problem.Of(err) != problem.PeerMisbehaved {
				t.Fatalf("got %v and %v", got, err)
			}
			return
		}
		out, err := Append(nil, got)
		if err != nil {
			t.Fatalf("accepted %+v, which is not written: %v", got, err)
		}
		if read := in[:len(in)-r.Len()]; !bytes.Equal(out, read) {
			t.Fatalf("read %x, wrote %x", read, out)
		}
	})
}
