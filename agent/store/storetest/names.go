package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

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

func reserved(name token.ObjectName) bool {
	return slices.ContainsFunc(strings.Split(string(name), "/"), func(seg string) bool { return strings.EqualFold(seg, ".consign") })
}

func oddNames(t *testing.T, s Subject) {
	kept, refused := []string{}, 0
	for i, name := range OddNames() {
		if long := func(seg string) bool { return len(seg) > s.Segment }; s.Segment > 0 && slices.ContainsFunc(strings.Split(string(name), "/"), long) {
			refused++
			continue
		}
		b := openBatch(t, s.Store, "b-1")
		it, data := s.item(i, name, 20), Content(i, 20)
		err := tryStage(t, b, it, data)
		if err == nil {
			err = publishOne(t, b, it, data).Err
		}
		switch {
		case err == nil:
			kept = append(kept, string(name))
			wantContent(t, s.Store, name, data)
		case problem.Of(err) == problem.BadName:
			refused++
		default:
			t.Errorf("Publish(%q): got %v, want success or bad-name", name, err)
		}
		if (token.CheckName(name) != nil || reserved(name)) && err == nil {
			t.Errorf("Publish(%q) took what is no name, or reserved", name)
		}
		mustDrop(t, b)
	}
	slices.SortFunc(kept, func(a, b string) int { return s.Order(token.ObjectName(a), token.ObjectName(b)) })
	got := Names(t, s.Store, "", "")
	if !slices.Equal(got, kept) {
		t.Errorf("List: got %q, want %q", got, kept)
	}
	for i := 0; i < len(kept); i += 7 {
		if got := Names(t, s.Store, "", token.ObjectName(kept[i])); !slices.Equal(got, kept[i+1:]) {
			t.Errorf("List after %q: got %q, want %q", kept[i], got, kept[i+1:])
		}
	}
	if len(kept) < 120 || refused < 33 {
		t.Errorf("kept %d and refused %d names of 200: the list has lost its teeth", len(kept), refused)
	}
}
