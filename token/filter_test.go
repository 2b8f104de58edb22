package token_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"pgregory.net/rapid"
)

// excludes asks the order whose only filter excludes pattern about a name.
func excludes(pattern, name string) bool {
	o := token.Order{Do: token.Copy, Scope: token.Tree, Filters: []token.Filter{{Do: token.Exclude, Match: pattern}}}
	return problem.Of(o.Selects(token.ObjectName(name))) == problem.OrderNotCovered
}

func TestFilterMatches(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		pattern, matches, not string // names, space-separated
	}{
		{"a", "a x/a x/y/a", "b ab ba a/b A"},
		{"*", "a x/a x/y/a .hidden", ""},
		{"**", "a x/a x/y/a", ""},
		{"*.tmp", "a.tmp x/.tmp x/y.tmp", "a.tmpx tmp a.tmp/b"},
		{"a?c", "abc x/aéc a日c", "ac abbc a/c"},
		{"/a", "a", "x/a a/b"},
		{"/*", "a b.c", "a/b"},
		{"/**", "a a/b", ""},
		{"/*/a", "x/a", "a x/y/a"},
		{"dir/**", "dir/a dir/b/c x/dir/a", "dir xdir/a dirx/a a/dir"},
		{"/dir/**", "dir/a dir/b/c", "dir x/dir/a"},
		{"a/b", "a/b x/a/b", "xa/b a/b/c a/x/b b"},
		{"a/*", "a/b x/a/b", "a/b/c a b"},
		{"a/**/b", "a/x/b a/x/y/b z/a/x/b", "a/b a/x/bc"},
		{"a/**b", "a/b a/xb a/x/b", "ab a/bc"},
		{"**/x", "a/x a/b/x", "x ax"},
		{"/a**z", "az abz a/z a/b/z", "az/b x/az"},
		{"a**z", "az abz x/az", "a/z"}, // without '/', the last segment alone
		{"*a*b*", "ab xaybz q/ab", "ba a/b"},
	} {
		for name := range strings.FieldsSeq(tc.matches) {
			if !excludes(tc.pattern, name) {
				t.Errorf("%q does not match %q, want a match", tc.pattern, name)
			}
		}
		for name := range strings.FieldsSeq(tc.not) {
			if excludes(tc.pattern, name) {
				t.Errorf("%q matches %q, want none", tc.pattern, name)
			}
		}
	}
}

func TestFilterCheck(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string]problem.Code{
		"a": "", "/a": "", "**": "", "a/**/b": "", "日?": "", strings.Repeat("a", 1024): "",
		"": problem.Malformed, "/": problem.Malformed, "//a": problem.Malformed, "a/": problem.Malformed, "a//b": problem.Malformed,
		"***": problem.Malformed, "a[bc]": problem.Malformed, "*.{jpg,png}": problem.Malformed, `\*`: problem.Malformed, "a\n": problem.Malformed,
		"\xff": problem.Malformed, "u\u0308": problem.Malformed, strings.Repeat("a", 1025): problem.TooLarge,
	} {
		if got := problem.Of(token.Filter{Do: token.Include, Match: pattern}.Check()); got != want {
			t.Errorf("%q: got %q, want %q", pattern, got, want)
		}
	}
	for _, do := range []string{"", "Include", "+", "omit"} {
		if got := problem.Of(token.Filter{Do: do, Match: "*"}.Check()); got != problem.Malformed {
			t.Errorf("do %q: got %q, want malformed", do, got)
		}
	}
}

// naive is the definition of docs/spec/order.md as a regular expression.
func naive(pattern, name string) bool {
	body, anchored := strings.CutPrefix(pattern, "/")
	if !anchored && !strings.Contains(body, "/") {
		name = name[strings.LastIndex(name, "/")+1:]
	}
	var re strings.Builder
	for i := 0; i < len(body); i++ {
		switch {
		case strings.HasPrefix(body[i:], "**"):
			re.WriteString(`.*`)
			i++
		case body[i] == '*':
			re.WriteString(`[^/]*`)
		case body[i] == '?':
			re.WriteString(`[^/]`)
		default:
			re.WriteString(regexp.QuoteMeta(body[i : i+1]))
		}
	}
	start := `(^|/)`
	if anchored || !strings.Contains(body, "/") {
		start = `^`
	}
	return regexp.MustCompile(`(?s)` + start + re.String() + `$`).MatchString(name)
}

func TestFilterAgainstNaive(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`/?([ab?]|\*\*?|/){1,10}`).Draw(t, "pattern")
		name := rapid.StringMatching(`[ab]{1,3}(/[ab]{1,3}){0,4}`).Draw(t, "name")
		if (token.Filter{Do: token.Exclude, Match: pattern}).Check() != nil {
			return
		}
		if got, want := excludes(pattern, name), naive(pattern, name); got != want {
			t.Fatalf("%q on %q: got %v, want %v", pattern, name, got, want)
		}
	})
}

// TestAllSmallFilters does the same for every pattern of up to five characters.
func TestAllSmallFilters(t *testing.T) {
	t.Parallel()
	names := strings.Fields("a b aa ab a/a a/b b/a ab/a a/ab a/b/a b/a/b a/a/a/a")
	hits, misses := 0, 0
	patterns := []string{""}
	for range 5 {
		var longer []string
		for _, p := range patterns {
			for _, c := range []string{"a", "b", "?", "*", "/"} {
				longer = append(longer, p+c)
			}
		}
		for _, p := range longer {
			if (token.Filter{Do: token.Exclude, Match: p}).Check() != nil {
				continue
			}
			for _, name := range names {
				got, want := excludes(p, name), naive(p, name)
				if got != want {
					t.Fatalf("%q on %q: got %v, want %v", p, name, got, want)
				}
				if want {
					hits++
				} else {
					misses++
				}
			}
		}
		patterns = longer
	}
	if hits < 1000 || misses < 1000 {
		t.Errorf("got %d matches and %d others, want a thousand of each", hits, misses)
	}
	t.Logf("%d matches, %d others", hits, misses)
}

// TestHostileFilter gives an exponential matcher more to do than the universe has time for.
func TestHostileFilter(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("a", 1023)
	for _, unit := range []string{"*a", "**a", "*?", "**?a", "a*", "/**a"} {
		pattern := strings.Repeat(unit, 1000/len(unit)) + "b"
		begin := time.Now()
		if excludes(pattern, name) {
			t.Errorf("%s...: got a match, want none", unit)
		}
		if d := time.Since(begin); d > 2*time.Second {
			t.Errorf("%s...: took %v, want time in proportion to pattern times name", unit, d)
		}
	}
}

func BenchmarkHostileFilter(b *testing.B) {
	name, pattern := strings.Repeat("a", 1023), strings.Repeat("*a", 511)+"b"
	for b.Loop() {
		excludes(pattern, name)
	}
}
