package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// digestsOf computes both digests that an order may name.
func digestsOf(t *testing.T, data []byte) map[string]token.Digest {
	t.Helper()
	tree := chunk.NewTree(int64(len(data)))
	for i := range chunk.Count(int64(len(data))) {
		off, n := chunk.Span(int64(len(data)), i)
		if err := tree.Add(i, chunk.Of(data[off:off+n], i, int64(len(data)))); err != nil {
			t.Fatal(err)
		}
	}
	root, err := tree.Root()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return map[string]token.Digest{"blake3": root, "sha256": token.Digest("sha256:" + hex.EncodeToString(sum[:]))}
}

// TestSourceServesWhatWasNotAskedFor: the digest in an order is checked whichever algorithm it names, for objects
// that come whole and in chunks, and for those that exist.
func TestSourceServesWhatWasNotAskedFor(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 100, 3<<20 + 5} {
		for _, algorithm := range []string{"blake3", "sha256"} {
			for _, c := range []struct {
				name   string
				exists bool
				wrong  bool
				want   token.Result
				code   problem.Code
			}{
				{"right", false, false, token.Stored, ""},
				{"wrong", false, true, token.Failed, problem.DigestDiffers},
				{"right, exists", true, false, token.Existed, ""},
				{"wrong, exists", true, true, token.TakenBy, problem.Taken},
			} {
				t.Run(fmt.Sprintf("%s %s %d", algorithm, c.name, size), func(t *testing.T) {
					t.Parallel()
					w := newWorld(t)
					w.src.start()
					w.dst.start()
					in := w.random("in/a", size)
					data := content(t, w.from, "in/a")
					o := w.order()
					o.Scope, o.From.Name, o.To.Name, o.IfExists = token.One, "in/a", "out/a", token.Compare
					if o.Digest = digestsOf(t, data)[algorithm]; c.wrong {
						last := o.Digest[len(o.Digest)-1:]
						o.Digest = o.Digest[:len(o.Digest)-1] + token.Digest(strings.Trim("01", string(last))[:1])
					}
					if c.exists {
						w.to.Put("out/a", data, store.Attrs{})
					}
					s := w.spec(o, 1, in)
					s.items[0].Digest = o.Digest
					_, dst := w.run(s)
					checkResults(t, dst, c.want)
					if got := dst.outs[0]; problem.Code(got.Code) != c.code {
						t.Errorf("got %s %q, want %s", got.Code, got.Detail, c.code)
					}
					if info, err := w.to.Stat(t.Context(), "out/a"); (err == nil) != (c.exists || !c.wrong) {
						t.Errorf("got %+v %v at the destination", info, err)
					}
					w.checkNoStages()
				})
			}
		}
	}
}
