package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func hashOf(s string) token.Hash {
	sum := sha256.Sum256([]byte(s))
	return token.Hash(base64.RawURLEncoding.EncodeToString(sum[:]))
}

func batch() Batch {
	return Batch{Xfr: "0192d3a4-5b6c-7d8e-9f01-23456789abcd", Bat: 3}
}

func fullAttrs() store.Attrs {
	return store.Attrs{
		ModTime: time.Date(2026, 11, 23, 6, 0, 0, 123456789, time.UTC),
		Mode:    0o640, HasMode: true, ContentType: "text/plain; charset=utf-8",
		Meta: map[string]string{"author": "Ada\nLovelace", "x": ""},
	}
}

// frames holds at least one frame of every kind.
func frames() []Frame {
	metaFull := map[string]string{}
	for i := range MaxMetaPairs {
		metaFull[strings.Repeat("k", i+1)] = strings.Repeat("v", 95)
	}
	all := make([]int, MaxRun)
	for i := range all {
		all[i] = i
	}
	return []Frame{
		Hello{Batch: batch(), Version: 1, Lanes: 4, Man: hashOf("man"), Ord: hashOf("ord"), Capability: "eyJ.eyJ.sig_-"},
		Hello{Batch: batch(), Version: 65535, Lanes: MaxLanes, Man: hashOf("a"), Ord: hashOf("b"), Capability: strings.Repeat("A", MaxCapability)},
		WantChunks{Batch: batch(), Item: 7, First: 12, N: 16},
		WantChunks{Batch: batch(), Item: MaxItem, First: chunk.Count(chunk.MaxSize) - 1, N: 1},
		WantRun{Batch: batch(), Items: []int{0, 5, 1023}},
		WantRun{Batch: batch(), Items: all},
		Seal{Batch: batch(), Item: 1},
		End{Batch: batch(), N: 1024, Root: hashOf("root")},
		Refuse(problem.New(problem.Changed, "the object changed")),
		Refused{Number: 4_000_000, Code: "from-the-future", Sentence: ""},
		Welcome{Version: 1, Want: 16, Software: "consign 0.1"},
		ChunkHead{Index: 3, Length: chunk.Size},
		ChunkHead{},
		Item{Item: 9, Size: 4096, Attrs: fullAttrs(), Native: "md5:00"},
		Item{Attrs: store.Attrs{Meta: metaFull}},
		RefuseItem(3, problem.New(problem.Unreadable, "no right")),
		Sealed{Size: 5 << 30, Root: chunk.Value{1, 2}, Attrs: fullAttrs()},
		Sealed{},
		Ended{},
		Done{},
		Pinned{Attrs: fullAttrs(), Native: "etag:9b2cf5"},
		Pinned{Attrs: store.Attrs{ContentType: strings.Repeat("t", MaxType), Meta: metaFull}, Native: strings.Repeat("n", MaxNative)},
		Pinned{},
	}
}

func mustAppend(t testing.TB, b []byte, f Frame) []byte {
	t.Helper()
	b, err := Append(b, f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEveryKindComesBackAsItWent(t *testing.T) {
	t.Parallel()
	seen := map[Kind]bool{}
	for _, f := range frames() {
		seen[f.Kind()] = true
		b := mustAppend(t, nil, f)
		got, err := readFrame(bytes.NewReader(b))
		if err != nil {
			t.Errorf("%s: %v", f.Kind(), err)
			continue
		}
		if !reflect.DeepEqual(got, f) {
			t.Errorf("got %+v, want %+v", got, f)
		}
	}
	for k := range 256 {
		if known := maxBody(Kind(k)) > 0 || Kind(k) == KindEnded || Kind(k) == KindDone; known != seen[Kind(k)] {
			t.Errorf("kind %#x: known %t, tested %t", k, known, seen[Kind(k)])
		}
	}
}
