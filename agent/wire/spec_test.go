package wire

import (
	"bytes"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token/problem"
)

// examples are the frames of the worked example, by the names that it gives them.
func examples() map[string][]byte {
	hello := []byte("hello")
	value := chunk.Of(hello, 0, int64(len(hello)))
	frame := func(f Frame, payload ...byte) []byte {
		b, err := Append(nil, f)
		if err != nil {
			return []byte(err.Error())
		}
		return append(b, payload...)
	}
	return map[string][]byte{
		"want-chunks": frame(WantChunks{Batch: batch(), Item: 2, First: 16, N: 4}),
		"want-run":    frame(WantRun{Batch: batch(), Items: []int{0, 5}}),
		"chunk":       frame(ChunkHead{Index: 0, Length: 5}, append(bytes.Clone(hello), value[:]...)...),
		"item": frame(Item{Item: 5, Size: 5, Attrs: store.Attrs{
			ModTime: fullAttrs().ModTime, Mode: 0o640, HasMode: true, Meta: map[string]string{"author": "Ada"},
		}}, append(bytes.Clone(hello), value[:]...)...),
		"pinned":  frame(Pinned{Attrs: store.Attrs{ModTime: fullAttrs().ModTime, ContentType: "text/plain"}, Native: "etag:9b2cf5"}),
		"refused": frame(Refuse(problem.New(problem.CapExpired, "it ended at 12:00"))),
		"done":    frame(Done{}),
	}
}

// The hexadecimal blocks of the specification are what this package writes.
func TestSpecificationExamples(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/spec/transfer.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range examples() {
		_, rest, ok := strings.Cut(string(text), "```"+name+"\n")
		block, _, closed := strings.Cut(rest, "```")
		if !ok || !closed {
			t.Errorf("%s: no such block; it should be\n%x", name, want)
			continue
		}
		got, err := hex.DecodeString(strings.Join(strings.Fields(block), ""))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, %v, want %x", name, got, err, want)
		}
	}
}

// The longest bodies of the specification's table are those that are enforced.
func TestSpecificationLimits(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/spec/transfer.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 6 || len(strings.TrimSpace(cells[1])) != 2 {
			continue
		}
		rows++
		kind, err := hex.DecodeString(strings.TrimSpace(cells[1]))
		if err != nil {
			t.Fatal(err)
		}
		got := strings.ReplaceAll(strings.TrimSpace(cells[4]), ",", "")
		if want := strconv.Itoa(maxBody(Kind(kind[0]))); got != want {
			t.Errorf("%s: the table says %s, enforced is %s", Kind(kind[0]), got, want)
		}
	}
	if rows != 14 {
		t.Errorf("got %d rows, want 14", rows)
	}
}
