package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestWhatCannotTravelIsTold: metadata that the wire does not hold are named by the source, those that the store does not keep by the destination, also
// where an outcome has no room to name all; and the object is stored all the same. A restart of the source forgets none of it.
func TestWhatCannotTravelIsTold(t *testing.T) {
	t.Parallel()
	traits := bucketTraits()
	traits.Meta, traits.Types = false, false
	w := newWorld(t).like(traits)
	dead := make(chan struct{})
	w.src.start()
	w.dst.at(2, func() { w.src.kill(); close(dead) })
	w.dst.start()
	many := map[string]string{"a": "fits", "nul": "\x00"}
	for i := range 90 {
		many[fmt.Sprintf("k%02d%s", i, strings.Repeat("x", 100))] = "v"
	}
	few := map[string]string{"a": "fits", "big": strings.Repeat("v", 9<<10)}
	s := w.spec(w.order(), 1, w.from.Put("in/few", []byte("x"), store.Attrs{Meta: few, ContentType: "text/plain"}), w.from.Put("in/many", []byte("x"), store.Attrs{Meta: many}),
		w.from.Put("in/none", []byte("x"), store.Attrs{}), w.random("in/large", 9<<20)).parts(bucketPart)
	w.give(s)
	<-dead
	w.src.start()
	src, dst := w.stored(s)
	checkAll(t, src, token.Sent)
	for i, want := range map[int][2][]string{0: {{"meta:big"}, {"meta:a", "type"}}, 2: {{}, {}}, 3: {{}, {}}} {
		if !slices.Equal(src.outs[i].Lost, want[0]) || !slices.Equal(dst.outs[i].Lost, want[1]) {
			t.Errorf("item %d: got %q lost at the source and %q at the destination, want %q", i, src.outs[i].Lost, dst.outs[i].Lost, want)
		}
	}
	for side, o := range map[token.Side]token.Outcome{token.Source: src.outs[1], token.Destination: dst.outs[1]} {
		if len(o.Lost) < 2 || !slices.Contains(o.Lost, lostMore) {
			t.Errorf("%s: got %q lost, want some by name and that there are more", side, o.Lost)
		}
	}
	if !slices.Contains(dst.outs[1].Lost, "meta:a") || slices.Contains(src.outs[1].Lost, "meta:a") {
		t.Errorf("got %q lost at the source and %q at the destination, want what comes first in order to travel", src.outs[1].Lost, dst.outs[1].Lost)
	}
}

// TestLineOf: an outcome that names more than a line holds says so, and never fails for it.
func TestLineOf(t *testing.T) {
	t.Parallel()
	lost := []string{"mode", "mtime", "type"}
	for i := range 40 {
		lost = append(lost, fmt.Sprintf("meta:%02d%s", i, strings.Repeat("k", 100)))
	}
	names := lostNames(lost)
	if len(names) != token.MaxLost || !slices.IsSorted(names) || names[0] != lostMore || !slices.Contains(names, "type") {
		t.Errorf("got %q, want %d names in order, with all that are no user metadata and %q", names, token.MaxLost, lostMore)
	}
	if got := lostNames([]string{"type", "meta:a", "meta:a", "", "meta:\n"}); !slices.Equal(got, []string{"meta: ", "meta:a", "type"}) {
		t.Errorf("got %q", got)
	}
	o := token.Outcome{Outcome: token.Stored, Size: 1 << 52, Digest: digestsOf(t, nil)["blake3"], Hash: valueOfStdlib(token.SHA512, nil), Item: 1023, Lost: names,
		Version: token.Version(strings.Repeat(`"`, token.MaxVersionSize)), Native: strings.Repeat(`\`, token.MaxNativeSize)}
	line, err := lineOf(&o)
	if err != nil || len(line) > token.MaxOutcomeSize || !slices.Contains(o.Lost, lostMore) || !slices.Contains(o.Lost, "mtime") {
		t.Errorf("got %d bytes that name %q (%v)", len(line), o.Lost, err)
	}
	if got, err := token.ParseOutcome(line); err != nil || !slices.Equal(got.Lost, o.Lost) || got.Version != o.Version || got.Hash != o.Hash {
		t.Errorf("got %+v (%v), want %+v", got, err, o)
	}
	bad := token.Outcome{Outcome: token.Stored, Item: -1, Lost: names}
	if line, err := lineOf(&bad); problem.Of(err) != problem.Malformed || line != nil {
		t.Errorf("got %q and %v, want what MarshalOutcome says", line, err)
	}
}
