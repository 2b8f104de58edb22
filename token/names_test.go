package token_test

import (
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestCheckName(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ what, name, says string }{
		{"plain", "a", ""},
		{"deep", "a/b/c.txt", ""},
		{"dots inside", "..a/b../...", ""},
		{"hidden", ".consign/x", ""},
		{"spaces", " a /b ", ""},
		{"other scripts", "Zürich/日本/🚀", ""},
		{"quotes and brackets", `"'<>[]{}*?`, ""},
		{"line separator", "a\u2028b", ""},
		{"1024 bytes", strings.Repeat("a", 1024), ""},
		{"nothing", "", "empty"},
		{"1025 bytes", strings.Repeat("a", 1025), "longer than 1024"},
		{"2000 bytes", strings.Repeat("é", 1000), "longer than 1024"},
		{"not UTF-8", "a\xff", "not UTF-8"},
		{"half a surrogate", "\xed\xa0\x80", "not UTF-8"},
		{"NUL", "a\x00b", "control character"},
		{"new line", "a\nb", "control character"},
		{"delete", "a\x7f", "control character"},
		{"C1 control", "a\u0085b", "control character"},
		{"backslash", `a\b`, "backslash"},
		{"decomposed", "Zu\u0308rich", "normal form C"},
		{"Angstrom sign", "\u212b", "normal form C"},
		{"leading slash", "/a", "empty segment"},
		{"trailing slash", "a/", "empty segment"},
		{"double slash", "a//b", "empty segment"},
		{"only a slash", "/", "empty segment"},
		{"here", "./a", `"."`},
		{"up", "a/../b", `".."`},
		{"up at the end", "a/..", `".."`},
	} {
		t.Run(tc.what, func(t *testing.T) {
			t.Parallel()
			refusedAs(t, token.CheckName(token.ObjectName(tc.name)), problem.BadName, tc.says)
		})
	}
}

// refusedAs wants err to say a sentence that contains says, or nil for "".
func refusedAs(t *testing.T, err error, code problem.Code, says string) {
	t.Helper()
	if says == "" {
		wantCode(t, err, "")
		return
	}
	wantCode(t, err, code)
	if s := problem.As(err).Sentence(); !strings.Contains(s, says) || len(s) > 400 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		t.Errorf("got the sentence %q, want one line of ASCII with %q", s, says)
	}
}

func TestCheckContainerAndProvider(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{
		"c": "", "My Data": "", strings.Repeat("a", 255): "", "": "empty", strings.Repeat("a", 256): "longer", "a/b": "contains '/'",
		"..": `".."`, ".": `"."`, "a\\b": "backslash", "a\nb": "control",
	} {
		refusedAs(t, token.CheckContainer(token.Container(name)), problem.BadName, says)
	}
	for name, says := range map[string]string{
		"a": "", "a.example": "", "3-x_y.z": "", strings.Repeat("a", 255): "", "": "empty", strings.Repeat("a", 256): "longer",
		"A.example": "lower-case", "a b": "lower-case", "a/b": "lower-case", "a:b": "lower-case", "ä": "lower-case",
		".": "begin", "..": "begin", "-a": "begin",
	} {
		refusedAs(t, token.CheckProvider(token.Provider(name)), problem.BadName, says)
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	id := token.NewIdentity("a.example", token.Agent, "eu-1")
	if id != "spiffe://a.example/agent/eu-1" || id.Provider() != "a.example" || id.Role() != token.Agent || id.Name() != "eu-1" {
		t.Errorf("got %q: %q %q %q", id, id.Provider(), id.Role(), id.Name())
	}
	for s, ok := range map[string]bool{
		"spiffe://a.example/agent/eu-1":                        true,
		"spiffe://a.example/broker/B.1_x":                      true,
		"spiffe://a.example/subscriber/ada":                    true,
		"spiffe://a.example/subscriber/...":                    true,
		"":                                                     false,
		"spiffe://a.example":                                   false,
		"spiffe://a.example/agent":                             false,
		"spiffe://a.example/agent/":                            false,
		"spiffe://a.example/agent/x/y":                         false,
		"spiffe://a.example/agent/x/":                          false,
		"spiffe://a.example//x":                                false,
		"spiffe:///agent/x":                                    false,
		"SPIFFE://a.example/agent/x":                           false,
		"spiffe://A.example/agent/x":                           false,
		"spiffe://a.example/Agent/x":                           false,
		"spiffe://a.example/owner/x":                           false,
		"spiffe://a.example:443/agent/x":                       false,
		"spiffe://u@a.example/agent/x":                         false,
		"spiffe://a.example/agent/..":                          false,
		"spiffe://a.example/agent/.":                           false,
		"spiffe://a.example/agent/%41":                         false,
		"spiffe://a.example/agent/x?y":                         false,
		"spiffe://a.example/agent/x#y":                         false,
		"spiffe://a.example/agent/x y":                         false,
		"spiffe://a.example/agent/é":                           false,
		"https://a.example/agent/x":                            false,
		" spiffe://a.example/agent/x":                          false,
		"spiffe://a.example/agent/" + strings.Repeat("x", 255): true,
		"spiffe://a.example/agent/" + strings.Repeat("x", 256): false,
	} {
		got, err := token.ParseIdentity(s)
		if (err == nil) != ok || ok && string(got) != s || !ok && (got != "" || problem.Of(err) != problem.Malformed) {
			t.Errorf("%q: got %q (%v), want %v", s, got, err, ok)
		}
		if i := token.Identity(s); !ok && (i.Provider() != "" || i.Role() != "" || i.Name() != "") {
			t.Errorf("%q: got %q %q %q, want nothing", s, i.Provider(), i.Role(), i.Name())
		}
	}
}

func TestParseLocation(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		s, back string
		want    token.Location
		code    problem.Code
	}{
		{s: "a.example:/c/x/y", back: "a.example:/c/x/y", want: token.Location{Container: "c", Name: "x/y", Provider: "a.example"}},
		{s: "a:/c", back: "a:/c/", want: token.Location{Container: "c", Provider: "a"}},
		{s: "a:/c/", back: "a:/c/", want: token.Location{Container: "c", Provider: "a"}},
		{s: "a:/c/x/", back: "a:/c/x", want: token.Location{Container: "c", Name: "x", Provider: "a"}},
		{s: "a:/c/x:/y", back: "a:/c/x:/y", want: token.Location{Container: "c", Name: "x:/y", Provider: "a"}},
		{s: "a:/c//", code: problem.BadName},
		{s: "a:/c/x//", code: problem.BadName},
		{s: "a:/c//x", code: problem.BadName},
		{s: "a:/c/../x", code: problem.BadName},
		{s: "a:/../x", code: problem.BadName},
		{s: "A:/c/x", code: problem.BadName},
		{s: ":/c/x", code: problem.BadName},
		{s: "", code: problem.BadAddress},
		{s: "a", code: problem.BadAddress},
		{s: "a:c/x", code: problem.BadAddress},
		{s: "a:/", code: problem.BadAddress},
		{s: "a://c", code: problem.BadAddress},
		{s: "/tmp/a:/c/x", code: problem.BadAddress},
		{s: "./file", code: problem.BadAddress},
		{s: "https://a/c", code: problem.BadAddress},
	} {
		got, err := token.ParseLocation(tc.s)
		if problem.Of(err) != tc.code || got != tc.want || got.String() != tc.back {
			t.Errorf("%q: got %+v %q (%v), want %+v %q %q", tc.s, got, got, err, tc.want, tc.back, tc.code)
		}
		if err == nil {
			if again, err := token.ParseLocation(got.String()); err != nil || again != got {
				t.Errorf("%q: got %+v (%v) of its own address", tc.s, again, err)
			}
		}
	}
}

func TestParseTransferID(t *testing.T) {
	t.Parallel()
	for s, ok := range map[string]bool{
		"01938c5e-7a00-7abc-8def-0123456789ab":          true,
		"01938C5E-7A00-7ABC-8DEF-0123456789AB":          false, // upper case
		"01938c5e-7a00-4abc-8def-0123456789ab":          false, // version 4
		"01938c5e-7a00-7abc-cdef-0123456789ab":          false, // other variant
		"01938c5e7a007abc8def0123456789ab":              false,
		"{01938c5e-7a00-7abc-8def-0123456789ab}":        false,
		"urn:uuid:01938c5e-7a00-7abc-8def-0123456789ab": false,
		"01938c5e-7a00-7abc-8def-0123456789a":           false,
		"01938c5e-7a00-7abc-8def-0123456789ag":          false,
		"":                                              false,
	} {
		got, err := token.ParseTransferID(s)
		if (err == nil) != ok || ok != (got != "") || !ok && problem.Of(err) != problem.Malformed {
			t.Errorf("%q: got %q (%v), want %v", s, got, err, ok)
		}
	}
}
