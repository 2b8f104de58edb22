package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/chunk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token/problem"
)

// The encoder must refuse what a decoder would, and say so before a byte is written.
func TestEncoderRefusesWhatBreaksALimit(t *testing.T) {
	t.Parallel()
	hello := Hello{Batch: batch(), Version: 1, Lanes: 1, Man: hashOf("m"), Ord: hashOf("o"), Capability: "a.b.c"}
	change := func(f func(*Hello)) Hello { h := hello; f(&h); return h }
	meta := func(k, v string) Item { return Item{Attrs: store.Attrs{Meta: map[string]string{k: v}}} }
	many := map[string]string{}
	for i := range MaxMetaPairs + 1 {
		many[strings.Repeat("k", i+1)] = ""
	}
	for name, f := range map[string]Frame{
		"no version":            change(func(h *Hello) { h.Version = 0 }),
		"no lanes":              change(func(h *Hello) { h.Lanes = 0 }),
		"too many lanes":        change(func(h *Hello) { h.Lanes = MaxLanes + 1 }),
		"short manifest hash":   change(func(h *Hello) { h.Man = h.Man[1:] }),
		"second spelling":       change(func(h *Hello) { h.Ord = h.Ord[:42] + "B" }),
		"no capability":         change(func(h *Hello) { h.Capability = "" }),
		"long capability":       change(func(h *Hello) { h.Capability = strings.Repeat("a", MaxCapability+1) }),
		"capability with space": change(func(h *Hello) { h.Capability = "a b" }),
		"upper-case id":         change(func(h *Hello) { h.Xfr = "0192D3A4-5B6C-7D8E-9F01-23456789ABCD" }),
		"urn id":                change(func(h *Hello) { h.Xfr = "urn:uuid:0192d3a4-5b6c-7d8e-9f01-23456789abcd" }),
		"random id":             change(func(h *Hello) { h.Xfr = "0192d3a4-5b6c-4d8e-9f01-23456789abcd" }),
		"batch zero":            change(func(h *Hello) { h.Bat = 0 }),
		"negative batch":        change(func(h *Hello) { h.Bat = -1 }),
		"item too high":         WantChunks{Batch: batch(), Item: MaxItem + 1, N: 1},
		"item negative":         WantChunks{Batch: batch(), Item: -1, N: 1},
		"want nothing":          WantChunks{Batch: batch(), N: 0},
		"want too much":         WantChunks{Batch: batch(), N: MaxWant + 1},
		"want before":           WantChunks{Batch: batch(), First: -1, N: 1},
		"want behind":           WantChunks{Batch: batch(), First: chunk.Count(chunk.MaxSize), N: 1},
		"empty run":             WantRun{Batch: batch()},
		"run too long":          WantRun{Batch: batch(), Items: make([]int, MaxRun+1)},
		"run with a repeat":     WantRun{Batch: batch(), Items: []int{1, 1}},
		"run descending":        WantRun{Batch: batch(), Items: []int{2, 1}},
		"run negative":          WantRun{Batch: batch(), Items: []int{-1}},
		"run too high":          WantRun{Batch: batch(), Items: []int{MaxItem + 1}},
		"seal too high":         Seal{Batch: batch(), Item: MaxItem + 1},
		"seal without id":       Seal{},
		"too many outcomes":     End{Batch: batch(), N: MaxOutcomes + 1, Root: hashOf("r")},
		"no root":               End{Batch: batch()},
		"code of another":       Refused{Number: 1, Code: problem.Taken},
		"no code":               Refused{Number: 99999},
		"code with capitals":    Refused{Number: 99999, Code: "Bad"},
		"long code":             Refused{Number: 99999, Code: problem.Code(strings.Repeat("a", MaxCode+1))},
		"long sentence":         Refused{Number: 1, Code: problem.Internal, Sentence: strings.Repeat("a", MaxSentence+1)},
		"sentence with escape":  Refused{Number: 1, Code: problem.Internal, Sentence: "\x1b[31m"},
		"sentence of two lines": Refused{Number: 1, Code: problem.Internal, Sentence: "a\nb"},
		"sentence reversed":     Refused{Number: 1, Code: problem.Internal, Sentence: "a\u202eb"},
		"sentence not UTF-8":    Refused{Number: 1, Code: problem.Internal, Sentence: "\xff"},
		"welcome to nothing":    Welcome{Version: 1},
		"welcome to too much":   Welcome{Version: 1, Want: MaxWant + 1},
		"welcome version":       Welcome{Want: 1},
		"software too long":     Welcome{Version: 1, Want: 1, Software: strings.Repeat("a", MaxSoftware+1)},
		"chunk too long":        ChunkHead{Length: chunk.Size + 1},
		"chunk negative":        ChunkHead{Index: -1},
		"small item too long":   Item{Size: MaxSmall + 1},
		"item index":            Item{Item: MaxItem + 1},
		"mode with type bits":   Item{Attrs: store.Attrs{Mode: 0o100644, HasMode: true}},
		"mode without flag":     Item{Attrs: store.Attrs{Mode: 0o644}},
		"mtime too old":         Item{Attrs: store.Attrs{ModTime: time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC)}},
		"mtime too new":         Item{Attrs: store.Attrs{ModTime: time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)}},
		"meta without key":      meta("", "v"),
		"meta key too long":     meta(strings.Repeat("k", MaxMetaKey+1), ""),
		"meta key with newline": meta("a\nb", ""),
		"meta value with NUL":   meta("a", "\x00"),
		"meta value too long":   meta("a", strings.Repeat("v", MaxMetaSize)),
		"meta too many":         Item{Attrs: store.Attrs{Meta: many}},
		"type too long":         Pinned{Attrs: store.Attrs{ContentType: strings.Repeat("t", MaxType+1)}},
		"type with newline":     Item{Attrs: store.Attrs{ContentType: "text/plain\r\nx: y"}},
		"type not UTF-8":        Sealed{Attrs: store.Attrs{ContentType: "\xff"}},
		"pinned native":         Pinned{Native: strings.Repeat("n", MaxNative+1)},
		"native too long":       Item{Native: strings.Repeat("n", MaxNative+1)},
		"sealed negative":       Sealed{Size: -1},
		"sealed too large":      Sealed{Size: chunk.MaxSize + 1},
		"refused item index":    ItemRefused{Item: -1, Refused: Refuse(io.ErrNoProgress)},
	} {
		prefix := []byte("before")
		b, err := Append(prefix, f)
		if err == nil || !bytes.Equal(b, prefix) {
			t.Errorf("%s: got %d bytes and %v, want the prefix alone and an error", name, len(b), err)
		}
	}
}

func TestDecoderRefusesEveryTruncationAndExtension(t *testing.T) {
	t.Parallel()
	for _, f := range frames() {
		b := mustAppend(t, nil, f)
		step := max(1, len(b)/200)
		for n := 0; n < len(b); n += step {
			if got, err := readFrame(bytes.NewReader(b[:n])); problem.Of(err) != problem.PeerMisbehaved || got != nil {
				t.Errorf("%s cut to %d of %d bytes: got %v, %v", f.Kind(), n, len(b), got, err)
			}
		}
		longer := append(append([]byte(nil), b...), 0)
		n := len(longer) - headSize
		longer[1], longer[2], longer[3] = byte(n>>16), byte(n>>8), byte(n)
		if got, err := readFrame(bytes.NewReader(longer)); problem.Of(err) != problem.PeerMisbehaved || got != nil {
			t.Errorf("%s with one byte more: got %v, %v", f.Kind(), got, err)
		}
	}
}

// A head that announces more than its kind may have is refused before anything
// is allocated or read.
func TestLengthBombIsRefusedUnread(t *testing.T) {
	t.Parallel()
	for k := range 256 {
		r := bytes.NewReader(append([]byte{byte(k), 0xff, 0xff, 0xff}, make([]byte, 1<<16)...))
		if _, err := readFrame(r); problem.Of(err) != problem.PeerMisbehaved {
			t.Errorf("kind %#x: got %v", k, err)
		}
		if r.Len() != 1<<16 {
			t.Errorf("kind %#x: %d bytes of the bomb were read", k, 1<<16-r.Len())
		}
	}
}

func TestMetadataMustBeSortedAndUnique(t *testing.T) {
	t.Parallel()
	b := mustAppend(t, nil, Item{Attrs: store.Attrs{Meta: map[string]string{"a": "1", "b": "2"}}})
	for name, swap := range map[string][2]string{"swapped": {"b", "a"}, "twice": {"a", "a"}} {
		c := append([]byte(nil), b...)
		ia, ib := bytes.Index(c, []byte("a\x00\x011")), bytes.Index(c, []byte("b\x00\x012"))
		c[ia], c[ib] = swap[0][0], swap[1][0]
		if _, err := readFrame(bytes.NewReader(c)); problem.Of(err) != problem.PeerMisbehaved {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// An empty content type has one spelling: no flag.
func TestEmptyTypeIsNotWritten(t *testing.T) {
	t.Parallel()
	b := mustAppend(t, nil, Pinned{Attrs: store.Attrs{ContentType: "x"}})
	at := bytes.Index(b, []byte{hasType, 0, 1, 'x'})
	c := append(append([]byte(nil), b[:at]...), hasType, 0, 0)
	c = append(c, b[at+4:]...)
	c[3]--
	if got, err := readFrame(bytes.NewReader(c)); problem.Of(err) != problem.PeerMisbehaved || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestReadRequestTakesExactlyOne(t *testing.T) {
	t.Parallel()
	seal := mustAppend(t, nil, Seal{Batch: batch(), Item: 4})
	if got, err := ReadRequest(bytes.NewReader(seal)); err != nil || got != (Seal{Batch: batch(), Item: 4}) {
		t.Errorf("got %v, %v", got, err)
	}
	broken := errors.New("the line broke")
	for _, tc := range []struct {
		name string
		r    io.Reader
		want error
	}{
		{"nothing", strings.NewReader(""), nil},
		{"two requests", bytes.NewReader(append(append([]byte(nil), seal...), seal...)), nil},
		{"one byte more", bytes.NewReader(append(append([]byte(nil), seal...), 0)), nil},
		{"an answer", bytes.NewReader(mustAppend(t, nil, Done{})), nil},
		{"a broken line", io.MultiReader(bytes.NewReader(seal[:9]), brokenReader{broken}), broken},
		{"a broken end", io.MultiReader(bytes.NewReader(seal), brokenReader{broken}), broken},
	} {
		got, err := ReadRequest(tc.r)
		if got != nil || err == nil {
			t.Errorf("%s: got %v, %v, want an error", tc.name, got, err)
		}
		if tc.want != nil && !errors.Is(err, tc.want) || tc.want == nil && problem.Of(err) != problem.PeerMisbehaved {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}

// A brokenReader always fails.
type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }

func TestAnswersAndRefusals(t *testing.T) {
	t.Parallel()
	read := func(frames ...Frame) (Welcome, error) {
		var b []byte
		for _, f := range frames {
			b = mustAppend(t, b, f)
		}
		return ReadWelcome(bytes.NewReader(b))
	}
	want := Welcome{Version: 1, Want: 4, Software: "x"}
	if got, err := read(want); got != want || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	_, err := read(Refuse(problem.Wrap(errors.New("/secret/path"), problem.CapExpired, "it ended\r\n\x1b[31m")))
	e := problem.As(err)
	if e.Code != problem.CapExpired || e.Sentence() != "it ended   [31m" {
		t.Errorf("got %q %q", e.Code, e.Sentence())
	}
	_, err = read(Refused{Number: 4_000_000, Code: "from-the-future", Sentence: "told so"})
	if e := problem.As(err); e.Code != problem.Internal || e.Sentence() != "told so" {
		t.Errorf("got %q %q, want internal", e.Code, e.Sentence())
	}
	for name, bad := range map[string][]Frame{
		"another kind":     {Ended{}},
		"two answers":      {want, want},
		"refused and more": {Refuse(io.EOF), want},
	} {
		if got, err := read(bad...); problem.Of(err) != problem.PeerMisbehaved || got != (Welcome{}) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	if err := ReadEnded(bytes.NewReader(mustAppend(t, nil, Ended{}))); err != nil {
		t.Error(err)
	}
	sealed := Sealed{Size: 3, Root: chunk.Value{9}}
	if got, err := ReadSealed(bytes.NewReader(mustAppend(t, nil, sealed))); err != nil || got.Root != sealed.Root {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestSentence(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                        "",
		"plain":                   "plain",
		"a\x00b\x7fc\u2028d":      "a b c d",
		"\xff\xfe":                "?",
		" padded ":                "padded",
		strings.Repeat("a", 300):  strings.Repeat("a", 256),
		strings.Repeat("ä", 200):  strings.Repeat("ä", 128),
		strings.Repeat("€", 86):   strings.Repeat("€", 85),
		"right\u202eto left":      "right to left",
		strings.Repeat("\x80", 9): "?",
	} {
		if got := Sentence(in); got != want || checkText("", got, MaxSentence) != nil {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestFitKeepsWhatCanTravel(t *testing.T) {
	t.Parallel()
	meta := map[string]string{"": "no key", "bad\n": "", "nul": "\x00", "good": "yes", "huge": strings.Repeat("v", MaxMetaSize)}
	in := store.Attrs{ModTime: time.Date(1500, 1, 1, 0, 0, 0, 0, time.UTC), Mode: 0o100644, HasMode: true, ContentType: "a\nb", Meta: meta}
	fit, lost := Fit(in)
	if len(fit.Meta) != 1 || fit.Meta["good"] != "yes" || fit.HasMode || fit.ContentType != "" || !fit.ModTime.IsZero() {
		t.Errorf("got %+v", fit)
	}
	if got, want := strings.Join(lost, "|"), "mtime|mode|type|meta:|meta:bad\n|meta:huge|meta:nul"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(meta) != 5 {
		t.Error("the argument was changed")
	}
	if _, err := Append(nil, Item{Attrs: fit}); err != nil {
		t.Errorf("what fits is refused: %v", err)
	}
	if fit, lost := Fit(fullAttrs()); len(lost) != 0 || len(fit.Meta) != 2 || fit.ContentType != fullAttrs().ContentType || !fit.ModTime.Equal(fullAttrs().ModTime) {
		t.Errorf("got %+v, lost %v", fit, lost)
	}
}
