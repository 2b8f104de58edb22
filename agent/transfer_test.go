package agent

import (
	"fmt"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
)

func TestCopiesSmallAndLargeObjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	var infos []store.Info
	for i, size := range []int{0, 1, 4096, 1 << 20, 1<<20 + 1, 9<<20 + 12345, 3 << 20} {
		infos = append(infos, w.random(token.ObjectName(fmt.Sprintf("in/d%d/o%d", i%3, i)), size))
	}
	for i := range 500 {
		infos = append(infos, w.random(token.ObjectName(fmt.Sprintf("in/many/%03d", i)), i*7))
	}
	s := w.spec(w.order(), 1, infos...)
	src, dst := w.run(s)
	for i, o := range dst.outs {
		if o.Outcome != token.Stored || src.outs[i].Outcome != token.Sent {
			t.Fatalf("item %d: destination %+v, source %+v", i, o, src.outs[i])
		}
	}
	checkMatch(t, src, dst)
	w.checkCopied(s)
	w.checkNoStages()
}
