package token_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

// items returns n items of the given size.
func items(n int, size int64) []token.Item {
	out := make([]token.Item, n)
	for i := range out {
		name := token.ObjectName(fmt.Sprintf("d/%d", i))
		out[i] = token.Item{Dst: name, Part: token.ChunkSize, Size: size, Src: name, Version: "v"}
	}
	return out
}

func TestManifestCheck(t *testing.T) {
	t.Parallel()
	first := func(f func(*token.Item)) func(*token.Manifest) {
		return func(m *token.Manifest) { f(&m.Items[0]) }
	}
	for _, tc := range []struct {
		name string
		edit func(*token.Manifest)
		want problem.Code
	}{
		{"good", func(*token.Manifest) {}, ""},
		{"1024 items", func(m *token.Manifest) { m.Items = items(1024, 1) }, ""},
		{"8 GiB in two", func(m *token.Manifest) { m.Items = items(2, 4<<30) }, ""},
		{"one of 10 TB", func(m *token.Manifest) { m.Items = items(1, 1e13) }, ""},
		{"one source to two names", func(m *token.Manifest) { m.Items[1].Src = m.Items[0].Src }, ""},
		{"none", func(m *token.Manifest) { m.Items = nil }, problem.Malformed},
		{"1025 items", func(m *token.Manifest) { m.Items = items(1025, 1) }, problem.TooLarge},
		{"a byte more than 8 GiB", func(m *token.Manifest) { m.Items = items(2, 4<<30); m.Items[1].Size++ }, problem.TooLarge},
		{"sum that overflows", func(m *token.Manifest) { m.Items = items(1024, 1<<53-1) }, problem.TooLarge},
		{"size beyond JSON", func(m *token.Manifest) { m.Items = items(1, 1<<53) }, problem.Malformed},
		{"negative size", first(func(it *token.Item) { it.Size = -1 }), problem.Malformed},
		{"one name twice", func(m *token.Manifest) { m.Items[1].Dst = m.Items[0].Dst }, problem.Malformed},
		{"up in the source", first(func(it *token.Item) { it.Src = "../x" }), problem.BadName},
		{"up in the destination", first(func(it *token.Item) { it.Dst = "a/.." }), problem.BadName},
		{"no source", first(func(it *token.Item) { it.Src = "" }), problem.BadName},
		{"no version", first(func(it *token.Item) { it.Version = "" }), problem.Malformed},
		{"long version", first(func(it *token.Item) { it.Version = token.Version(strings.Repeat("v", 257)) }), problem.Malformed},
		{"version with a new line", first(func(it *token.Item) { it.Version = "a\nb" }), problem.Malformed},
		{"version not UTF-8", first(func(it *token.Item) { it.Version = "\xff" }), problem.Malformed},
		{"bad digest", first(func(it *token.Item) { it.Digest = "x" }), problem.Malformed},
		{"value hash", first(func(it *token.Item) { it.Hash = token.SHA512 }), ""},
		{"value hash in lower case", first(func(it *token.Item) { it.Hash = "sha256" }), problem.Malformed},
		{"value hash with a length apart", first(func(it *token.Item) { it.Hash = "SHA 256" }), problem.Malformed},
		{"value hash that does not exist", first(func(it *token.Item) { it.Hash = "CRC32" }), problem.Malformed},
		{"no part", first(func(it *token.Item) { it.Part = 0 }), problem.Malformed},
		{"negative part", first(func(it *token.Item) { it.Part = -1 << 63 }), problem.Malformed},
		{"small part", first(func(it *token.Item) { it.Part = 1 << 19 }), problem.Malformed},
		{"odd part", first(func(it *token.Item) { it.Part = 3 << 20 }), problem.Malformed},
		{"huge part", first(func(it *token.Item) { it.Part = 1 << 62 }), problem.Malformed},
		{"no batch", func(m *token.Manifest) { m.Bat = 0 }, problem.Malformed},
		{"no broker", func(m *token.Manifest) { m.Iss = tokentest.AgentA }, problem.Malformed},
		{"no order", func(m *token.Manifest) { m.Ord = "" }, problem.Malformed},
		{"no transfer", func(m *token.Manifest) { m.Xfr = "x" }, problem.Malformed},
	} {
		m := tokentest.Manifest()
		tc.edit(&m)
		if got := problem.Of(m.Check()); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
		b, h, err := token.MarshalManifest(m)
		if problem.Of(err) != tc.want || (b == nil || h == "") != (err != nil) {
			t.Errorf("%s: got %d bytes %q (%v), want %q", tc.name, len(b), h, err, tc.want)
		}
	}
}

func TestManifestLimit(t *testing.T) {
	t.Parallel()
	m := tokentest.Manifest()
	m.Items = items(1024, 1)
	for i := range m.Items {
		long := token.ObjectName(fmt.Sprintf("%d%s", i, strings.Repeat(`"`, 1020)))
		m.Items[i].Src, m.Items[i].Dst = long, long
	}
	wantCode(t, m.Check(), "")
	_, _, err := token.MarshalManifest(m)
	wantCode(t, err, problem.TooLarge)
	got, h, err := token.ParseManifest([]byte(strings.Repeat(" ", token.MaxManifestSize+1)))
	wantCode(t, err, problem.TooLarge)
	if got.Items != nil || h != "" {
		t.Errorf("got %v %q with an error", got, h)
	}
}

// TestOtherSpellings: what any JSON decoder would take for the same manifest or
// outcome is refused, with nothing beside the error.
func TestOtherSpellings(t *testing.T) {
	t.Parallel()
	b, _, err := token.MarshalManifest(tokentest.Manifest())
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	for _, tc := range []struct {
		name, text string
		want       problem.Code
	}{
		{"space", strings.Replace(good, ":", ": ", 1), problem.NotCanonical},
		{"new line at the end", good + "\n", problem.NotCanonical},
		{"order", `{"items":` + good[strings.Index(good, "["):strings.Index(good, "]")+1] + `,"bat":1` + good[strings.Index(good, "]")+1:], problem.NotCanonical},
		{"upper case", strings.Replace(good, `"bat"`, `"BAT"`, 1), problem.NotCanonical},
		{"twice, first", strings.Replace(good, `{"bat":1`, `{"bat":1,"bat":1`, 1), problem.Malformed},
		{"twice in an item", strings.Replace(good, `"part":`, `"part":0,"part":`, 1), problem.Malformed},
		{"unknown", strings.Replace(good, `{"bat":1`, `{"bat":1,"bau":1`, 1), problem.UnknownField},
		{"unknown in an item", strings.Replace(good, `"part":`, `"acl":[],"part":`, 1), problem.UnknownField},
		{"missing", strings.Replace(good, `{"bat":1,`, `{`, 1), problem.NotCanonical},
		{"null", strings.Replace(good, `"bat":1`, `"bat":null`, 1), problem.NotCanonical},
		{"float", strings.Replace(good, `"bat":1`, `"bat":1.0`, 1), problem.Malformed},
		{"exponent", strings.Replace(good, `"bat":1`, `"bat":1e0`, 1), problem.Malformed},
		{"text for number", strings.Replace(good, `"bat":1`, `"bat":"1"`, 1), problem.Malformed},
		{"escape", strings.Replace(good, "run", `r\u0075n`, 1), problem.NotCanonical},
		{"escaped slash", strings.Replace(good, "run/", `run\/`, 1), problem.NotCanonical},
		{"escaped umlaut", strings.Replace(good, "ü", `\u00fc`, 1), problem.NotCanonical},
		{"not UTF-8", strings.Replace(good, "ü", "\xfc", 1), problem.NotCanonical},
		{"nested without end", strings.Repeat("[", 1<<20), problem.Malformed},
		{"nested objects", strings.Repeat(`{"a":`, 1<<19), problem.Malformed},
		{"nothing", "", problem.Malformed},
	} {
		if tc.text == good {
			t.Fatalf("%s: the text is the good one", tc.name)
		}
		m, h, err := token.ParseManifest([]byte(tc.text))
		if got := problem.Of(err); got != tc.want || h != "" || m.Items != nil || m.Bat != 0 {
			t.Errorf("%s: got %q (%v), want %q and nothing else", tc.name, got, err, tc.want)
		}
	}
}
