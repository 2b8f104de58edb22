package storetest

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func statOutcomes(t *testing.T, s Subject) {
	s.Put(t, "d/o", []byte("12345"))
	in, err := s.Store.Stat(t.Context(), "d/o")
	if err != nil || in.Type != store.Object || in.Size != 5 || in.Version == "" || !in.Fresh {
		t.Errorf("Stat of an object made just now: %+v, %v", in, err)
	}
	if in, err = s.Store.Stat(t.Context(), "d"); err != nil || in.Type != store.Subtree {
		t.Errorf("Stat of a subtree: %+v, %v", in, err)
	}
	for _, name := range []token.ObjectName{"x", "d/x", "x/y/z", "d/o/x"} {
		wantMissing(t, s.Store, name)
	}
	for _, name := range []token.ObjectName{"", "/d/o", "d//o", "../d/o", "d/./o", "d/\x00"} {
		_, err := s.Store.Stat(t.Context(), name)
		wantProblem(t, fmt.Sprintf("Stat(%q)", name), err, problem.BadName)
	}
}

func openOutcomes(t *testing.T, s Subject) {
	s.Put(t, "d/o", []byte("12345"))
	in, err := s.Store.Stat(t.Context(), "d/o")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Store.Open(t.Context(), "d/x", in.Version)
	wantProblem(t, "Open of nothing", err, problem.Missing)
	for _, v := range []token.Version{"", "x", in.Version + "0", in.Version[1:]} {
		_, err = s.Store.Open(t.Context(), "d/o", v)
		wantProblem(t, fmt.Sprintf("Open at %q", v), err, problem.Changed)
	}
	_, err = s.Store.Open(t.Context(), "d", in.Version)
	wantProblem(t, "Open of a subtree", err, problem.Unreadable)
	_, err = s.Store.Open(t.Context(), "../o", in.Version)
	wantProblem(t, "Open of a bad name", err, problem.BadName)
	r, err := s.Store.Open(t.Context(), "d/o", in.Version)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buf := make([]byte, 4)
	for _, tt := range []struct {
		off  int64
		want string
		err  error
	}{{0, "1234", nil}, {1, "2345", nil}, {3, "45", io.EOF}, {5, "", io.EOF}, {9, "", io.EOF}} {
		n, err := r.ReadAt(buf, tt.off)
		if string(buf[:n]) != tt.want || err != tt.err { //nolint:errorlint // io.ReaderAt returns io.EOF itself
			t.Errorf("ReadAt(%d): got %q, %v, want %q, %v", tt.off, buf[:n], err, tt.want, tt.err)
		}
	}
	if r.Info().Version != in.Version || r.Info().Size != 5 {
		t.Errorf("Info: got %+v, want %+v", r.Info(), in)
	}
}

func pinned(t *testing.T, s Subject) {
	for _, tt := range []struct {
		name  token.ObjectName
		touch func(name token.ObjectName)
	}{
		{"replaced", func(n token.ObjectName) { s.Put(t, n, []byte("abcde")) }},
		{"grown", func(n token.ObjectName) { s.Put(t, n, []byte("123456")) }},
		{"removed", func(n token.ObjectName) { s.Remove(t, n) }},
		{"removed-and-made-again", func(n token.ObjectName) { s.Remove(t, n); s.Put(t, n, []byte("12345")) }},
	} {
		s.Put(t, tt.name, []byte("12345"))
		in, err := s.Store.Stat(t.Context(), tt.name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := s.Store.Open(t.Context(), tt.name, in.Version)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Check(t.Context()); err != nil {
			t.Errorf("%s: Check before: %v", tt.name, err)
		}
		tt.touch(tt.name)
		wantProblem(t, string(tt.name)+": Check after", r.Check(t.Context()), problem.Changed)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		_, err = s.Store.Open(t.Context(), tt.name, in.Version)
		if tt.name == "removed" {
			wantProblem(t, "Open after", err, problem.Missing)
		} else {
			wantProblem(t, string(tt.name)+": Open after", err, problem.Changed)
		}
	}
}

// Names lists all below prefix after a cursor; an error of a name stands behind it in brackets.
func Names(t testing.TB, s store.Store, prefix, after token.ObjectName) []string {
	t.Helper()
	names := []string{}
	err := s.List(t.Context(), prefix, after, func(in store.Info, err error) bool {
		name := string(in.Name)
		if in.Type == store.Subtree {
			name += "/"
		}
		if err != nil {
			name += " [" + string(problem.Of(err)) + "]"
		}
		names = append(names, name)
		return true
	})
	if err != nil {
		t.Errorf("List(%q, %q): %v", prefix, after, err)
	}
	return names
}

func listing(t *testing.T, s Subject) {
	if got := Names(t, s.Store, "", ""); len(got) != 0 {
		t.Fatalf("an empty store lists %q", got)
	}
	want := []string{"a/b/c/d", "a/b/c/e", "a/b-", "a/c", "a-b", "a.b/x", "ab", "e/f/", "ä/ö", "日本/語"}
	for _, i := range []int{9, 3, 0, 5, 2, 8, 1, 6, 4} {
		s.Put(t, token.ObjectName(want[i]), []byte("x"))
	}
	if err := s.Store.Make(t.Context(), "e/f"); err != nil {
		t.Fatal(err)
	}
	b := openBatch(t, s.Store, "not-listed")
	stageItem(t, b, 0, []byte("x"))
	if got := Names(t, s.Store, "", ""); !slices.Equal(got, want) {
		t.Errorf("List: got %q, want %q", got, want)
	}
	for i, after := range want {
		after := token.ObjectName(strings.TrimSuffix(after, "/"))
		if got := Names(t, s.Store, "", after); !slices.Equal(got, want[i+1:]) {
			t.Errorf("List after %q: got %q, want %q", after, got, want[i+1:])
		}
	}
	for _, tt := range []struct {
		prefix, after token.ObjectName
		want          []string
	}{
		{"a", "", want[:4]},
		{"a", "a/b/c/d", want[1:4]},
		{"a", "a/b", want[:4]},
		{"a", "a/b/zzz", want[2:4]},
		{"a", "a/b/c/d/x", want[1:4]},
		{"a", "Z", want[:4]},
		{"a", "b", nil},
		{"a/b", "", want[:2]},
		{"e", "", want[7:8]},
		{"e/f", "", nil},
		{"", "e", want[7:]},
		{"", "b", want[7:]},
		{"", "zz", want[8:]},
	} {
		if got := Names(t, s.Store, tt.prefix, tt.after); !slices.Equal(got, tt.want) {
			t.Errorf("List(%q, %q): got %q, want %q", tt.prefix, tt.after, got, tt.want)
		}
	}
	for _, prefix := range []token.ObjectName{"x", "a/b/c/d", "a/b/x", "a-b"} {
		err := s.Store.List(t.Context(), prefix, "", func(store.Info, error) bool { t.Errorf("List(%q) yields", prefix); return false })
		wantProblem(t, fmt.Sprintf("List(%q)", prefix), err, problem.Missing)
	}
	n := 0
	if err := s.Store.List(t.Context(), "", "", func(store.Info, error) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Errorf("stopping at 3: got %d names, %v", n, err)
	}
	wantProblem(t, "List of a bad prefix", s.Store.List(t.Context(), "../x", "", nil), problem.BadName)
}

func makeOutcomes(t *testing.T, s Subject) {
	s.Put(t, "o", []byte("x"))
	for _, name := range []token.ObjectName{"d", "d/e/f", "d/e/f", "d", "日本"} {
		if err := s.Store.Make(t.Context(), name); err != nil {
			t.Errorf("Make(%q): %v", name, err)
		}
		if in, err := s.Store.Stat(t.Context(), name); err != nil || in.Type != store.Subtree {
			t.Errorf("Stat(%q): %+v, %v", name, in, err)
		}
	}
	for _, name := range []token.ObjectName{"o", "o/x", "o/x/y"} {
		wantProblem(t, fmt.Sprintf("Make(%q)", name), s.Store.Make(t.Context(), name), problem.Taken)
	}
	for _, name := range []token.ObjectName{"", "..", "a//b"} {
		wantProblem(t, fmt.Sprintf("Make(%q)", name), s.Store.Make(t.Context(), name), problem.BadName)
	}
	if got, want := Names(t, s.Store, "", ""), []string{"d/e/f/", "o", "日本/"}; !slices.Equal(got, want) {
		t.Errorf("List: got %q, want %q", got, want)
	}
}

// OddNames returns 200 names that have made programs stumble. Some are no names.
func OddNames() []token.ObjectName {
	names := []string{
		".hidden", "..data", "...", "a..", "~", "~root", "-rf", "--", "-", " ", "  lead", "trail ", "a b", "*", "?", "[a]",
		"{a,b}", "$HOME", "$(id)", "`id`", "a;b", "a|b", "a&b", "a>b", "a<b", "'", "\"", "#", "%", "%2e%2e", "%00", "%FF", "+", "=", "@", ":",
		"C:", "con", "NUL", "aux.txt", "COM1", "a.", "lost+found", "nul:", "a:b:c", "@eaDir", "Thumbs.db", ".git/config", ".nfs0001",
		".consign/y", ".consign/x", ".CONSIGN/b/0", ".consignee", "x/.consign", "é", "e\u0301", "ﬁ", "Å", "A\u030a", "\u212b", "ß", "ẞ", "İ", "ı",
		"Ω", "\u2126", "日本語", "한글", "\u1112\u1161\u11ab", "עברית", "\u202egnp.exe", "\u200b", "\ufeff", "\u00a0", "\ufffd", "\uffff", "😀", "👩‍👩‍👧",
		"\xff", "a\xc3", "\xed\xa0\x80", "\xc0\xaf", "a\nb", "a\rb", "a\tb", "a\x00b", "\x01", "\x7f", "\u0085", "\u2028", "a\\b", "\\", "a/\\/b",
		"", "/", "//", "/a", "a/", "a//b", ".", "..", "./a", "../a", "a/..", "a/../b", "a/./b", "../../etc/passwd", "a/../../b",
		strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("é", 127), strings.Repeat("é", 128), strings.Repeat("d/", 200) + "x",
		strings.Repeat("y/", 511) + "yy", strings.Repeat("z/", 512) + "z", strings.Repeat(strings.Repeat("w", 254)+"/", 4) + "w", "0", "00", "-1", "1e9", "null", "true",
	}
	for i := 0; len(names) < 200; i++ {
		names = append(names, fmt.Sprintf("fill %c/%c", rune(0xa1+i*7), rune(0x4e00+i*131)))
	}
	odd := make([]token.ObjectName, len(names))
	for i, n := range names {
		odd[i] = token.ObjectName(n)
	}
	return odd
}

func oddNames(t *testing.T, s Subject) {
	kept, refused := []string{}, 0
	for i, name := range OddNames() {
		b := openBatch(t, s.Store, "b-1")
		data := Content(i, 20)
		stageItem(t, b, 0, data)
		out := publishOne(t, b, 0, name, 20)
		switch {
		case out.Err == nil:
			kept = append(kept, string(name))
			wantContent(t, s.Store, name, data)
		case problem.Of(out.Err) == problem.BadName:
			refused++
		default:
			t.Errorf("Publish(%q): got %v, want success or bad-name", name, out.Err)
		}
		if want := token.CheckName(name) != nil; want && out.Err == nil {
			t.Errorf("Publish(%q) took what is no name", name)
		}
		if err := b.Drop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got := Names(t, s.Store, "", "")
	slices.Sort(got)
	slices.Sort(kept)
	if !slices.Equal(got, kept) {
		t.Errorf("List: got %q, want %q", got, kept)
	}
	if len(kept) < 120 || refused < 33 {
		t.Errorf("kept %d and refused %d names of 200: the list has lost its teeth", len(kept), refused)
	}
}

func links(t *testing.T, s Subject) {
	s.Put(t, "o", []byte("target"))
	s.Link(t, "l")
	in, err := s.Store.Stat(t.Context(), "l")
	if err != nil || in.Type != store.Link {
		t.Errorf("Stat of a link: %+v, %v", in, err)
	}
	_, err = s.Store.Open(t.Context(), "l", in.Version)
	wantProblem(t, "Open of a link", err, problem.Unreadable)
	types := map[token.ObjectName]store.Type{}
	if err := s.Store.List(t.Context(), "", "", func(in store.Info, err error) bool {
		types[in.Name] = in.Type
		return err == nil
	}); err != nil || types["l"] != store.Link || types["o"] != store.Object {
		t.Errorf("List: got %v, %v", types, err)
	}
	b := openBatch(t, s.Store, "b-1")
	stageItem(t, b, 0, []byte("four"))
	wantProblem(t, "Publish over a link", publishOne(t, b, 0, "l", 4).Err, problem.Taken)
	wantContent(t, s.Store, "o", []byte("target"))
}

func probed(t *testing.T, s Subject) {
	for range 2 {
		traits, err := s.Store.Probe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if traits.Exclusive == "" || traits.PartSize < token.ChunkSize || traits.MaxParts < 1 {
			t.Errorf("Probe: %+v", traits)
		}
	}
	if got := Names(t, s.Store, "", ""); len(got) != 0 {
		t.Errorf("Probe left %q", got)
	}
	if ids, err := s.Store.Batches(t.Context()); err != nil || len(ids) != 0 {
		t.Errorf("Batches after Probe: got %q, %v, want none", ids, err)
	}
}
