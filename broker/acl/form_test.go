package acl_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token/problem"
)

// TestForms: the same list in every form of the standard is the same list, and is written in one.
func TestForms(t *testing.T) {
	t.Parallel()
	const canonical = `[{"acetype":"0x00","identifier":"OWNER@","aceflags":"0x03","acemask":"0x001F07FF"},` +
		`{"acetype":"0x01","identifier":"eng","aceflags":"0x40","acemask":"0x00010002"},` +
		`{"acetype":"0x02","identifier":"Zoë <z&z>","aceflags":"0x00","acemask":"0x00000001"}]`
	const names = `[{"acetype":"ALLOW","identifier":"OWNER@","aceflags":"CONTAINER_INHERIT, OBJECT_INHERIT","acemask":"ALL_PERMS"},` +
		`{"acetype":"DENY","identifier":"eng","aceflags":"IDENTIFIER_GROUP","acemask":"DELETE, ADD_OBJECT"},` +
		`{"acetype":"AUDIT","identifier":"Zoë <z&z>","aceflags":"NO_FLAGS","acemask":"LIST_CONTAINER"}]`
	const lines = "ALLOW OWNER@ CONTAINER_INHERIT,OBJECT_INHERIT ALL_PERMS\n" +
		"DENY eng IDENTIFIER_GROUP DELETE, ADD_OBJECT\n" +
		"AUDIT \"Zoë <z&z>\" NO_FLAGS LIST_CONTAINER\n"
	want, err := acl.Parse([]byte(canonical))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		canonical, names,
		strings.ReplaceAll(strings.ReplaceAll(canonical, `"0x001F07FF"`, `"0x1007FFFF"`), ",", " ,\n"),
		strings.ReplaceAll(strings.ReplaceAll(names, "DELETE, ADD_OBJECT", "CDMI_ACE_DELETE | CDMI_ACE_ADD_OBJECT"), `"ALLOW"`, `"CDMI_ACE_ACCESS_ALLOWED_TYPE"`),
		`[{"acemask":"ALL_PERMS","aceflags":"0x3","acetype":"0x0","identifier":"\u004fWNER@"}` + canonical[strings.Index(canonical, `,{"acetype":"0x01"`):],
	} {
		got, err := acl.Parse([]byte(s))
		if err != nil || !got.Equal(want) {
			t.Errorf("%s:\ngot %v, %v", s, got, err)
		}
		if m := string(got.Marshal()); m != canonical {
			t.Errorf("got  %s\nwant %s", m, canonical)
		}
		if m := string(got.MarshalNames(acl.Container)); m != names {
			t.Errorf("got  %s\nwant %s", m, names)
		}
		if m := got.Text(acl.Container); m != lines {
			t.Errorf("got\n%s\nwant\n%s", m, lines)
		}
	}
	for _, s := range []string{lines, "# a note\n\n\t" + strings.ReplaceAll(lines, "\n", "\r\n  ") + "#", strings.ReplaceAll(lines, " ", "\t ")} {
		s = strings.ReplaceAll(s, "\"Zoë\t <z&z>\"", "\"Zoë <z&z>\"")
		if got, err := acl.ParseText(s); err != nil || !got.Equal(want) {
			t.Errorf("%q: got %v, %v", s, got, err)
		}
	}
	var entries []acl.ACE
	for i, e := range want.All() {
		if i != len(entries) {
			t.Errorf("got position %d, want %d", i, len(entries))
		}
		entries = append(entries, e)
	}
	if again, err := acl.New(entries...); err != nil || !again.Equal(want) || again.Len() != 3 {
		t.Errorf("got %v, %v", again, err)
	}
}

// TestExampleOfTheStandard: the list of its example of a GET.
func TestExampleOfTheStandard(t *testing.T) {
	t.Parallel()
	const shown = `[ { "acetype" : "0x00", "identifier" : "EVERYONE@", "aceflags" : "0x00", "acemask" : "0x00020089" } ]`
	a, err := acl.Parse([]byte(shown))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(a.Marshal()), strings.ReplaceAll(shown, " ", ""); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestEmptyLists(t *testing.T) {
	t.Parallel()
	for _, b := range []string{"[]", " [\n] "} {
		a, err := acl.Parse([]byte(b))
		if err != nil || a.Len() != 0 || !a.Equal(acl.ACL{}) || string(a.Marshal()) != "[]" || a.Text(acl.Object) != "" {
			t.Errorf("%q: got %v, %v", b, a, err)
		}
	}
	if a, err := acl.New(); err != nil || !a.Equal(acl.ACL{}) {
		t.Errorf("got %v, %v", a, err)
	}
}

// TestListsThatAreRefused: what is not exactly a list is none.
func TestListsThatAreRefused(t *testing.T) {
	t.Parallel()
	const good = `{"acetype":"ALLOW","identifier":"alice","aceflags":"0x00","acemask":"0x01"}`
	change := func(from, to string) string { return "[" + strings.Replace(good, from, to, 1) + "]" }
	for _, tc := range []struct {
		name, json string
		code       problem.Code
		word       string
	}{
		{"nothing", "", problem.Malformed, "not JSON"},
		{"null", "null", problem.Malformed, "not an array"},
		{"an object", good, problem.Malformed, "not an array"},
		{"two lists", "[][]", problem.Malformed, "not JSON"},
		{"a comma too many", "[" + good + ",]", problem.Malformed, "not JSON"},
		{"no comma", "[" + good + good + "]", problem.Malformed, "not JSON"},
		{"not closed", "[" + good, problem.Malformed, "not JSON"},
		{"not UTF-8", change("alice", "\xff"), problem.Malformed, "not JSON"},
		{"half a surrogate pair", change("alice", `\ud800`), problem.Malformed, "not UTF-8"},
		{"a list of strings", `["ALLOW"]`, problem.Malformed, "Entry 1"},
		{"a list in a list", "[[" + good + "]]", problem.Malformed, "not an object"},
		{"the second is wrong", "[" + good + ",{}]", problem.Malformed, "Entry 2"},
		{"a member twice", change(`"acemask"`, `"acetype":"DENY","acemask"`), problem.Malformed, "twice"},
		{"a member in other letters", change("acemask", "AceMask"), problem.UnknownField, `"AceMask"`},
		{"a member missing", change(`,"acemask":"0x01"`, ""), problem.Malformed, `"acemask"`},
		{"no flags", change(`"aceflags":"0x00",`, ""), problem.Malformed, `"aceflags"`},
		{"an expiration", change("}", `,"expiration":"2030-01-01T00:00:00.000000Z"}`), problem.UnknownField, "expiration"},
		{"a number for a string", change(`"0x01"`, "1"), problem.Malformed, "not a string"},
		{"null for a string", change(`"alice"`, "null"), problem.Malformed, "not a string"},
		{"a list for a string", change(`"0x01"`, `["READ_OBJECT"]`), problem.Malformed, "not a string"},
		{"ALARM", change("ALLOW", "0x03"), problem.Malformed, "0x03"},
		{"no identifier", change("alice", ""), problem.Malformed, "no identifier"},
		{"identifier with a line's end", change("alice", `a\nb`), problem.Malformed, "control character"},
		{"identifier not composed", change("alice", "Zoe\u0308"), problem.Malformed, "normal form C"},
		{"identifier too long", change("alice", strings.Repeat("a", acl.MaxWhoSize+1)), problem.TooLarge, "600 bytes"},
		{"unknown bit", change(`"0x01"`, `"0x800"`), problem.Malformed, "0x800"},
		{"unknown flag", change(`"0x00"`, `"0x20"`), problem.Malformed, "0x20"},
		{"empty mask", change(`"0x01"`, `""`), problem.Malformed, "empty"},
		{"too many entries", "[" + strings.Repeat(good+",", acl.MaxEntries) + good + "]", problem.TooLarge, "1000 entries"},
		{"too many bytes", "[" + good + strings.Repeat(" ", acl.MaxSize) + "]", problem.TooLarge, "bytes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			a, err := acl.Parse([]byte(tc.json))
			refused(t, err, tc.code, tc.word)
			if a.Len() != 0 {
				t.Errorf("got %d entries with an error", a.Len())
			}
		})
	}
}

func TestTextsThatAreRefused(t *testing.T) {
	t.Parallel()
	for text, word := range map[string]string{
		"ALLOW":                                      "TYPE IDENTIFIER FLAGS MASK",
		"ALLOW alice":                                "TYPE IDENTIFIER FLAGS MASK",
		"ALLOW alice NO_FLAGS":                       "TYPE IDENTIFIER FLAGS MASK",
		"allow alice NO_FLAGS DELETE":                `"allow"`,
		"ALLOW alice DELETE NO_FLAGS":                `"DELETE"`,
		"ALLOW alice smith NO_FLAGS DELETE":          `"smith"`,
		"ALLOW \"alice NO_FLAGS DELETE":              "closing quote",
		"ALLOW \"alice\"NO_FLAGS DELETE":             "followed by a space",
		"ALLOW \"\" NO_FLAGS DELETE":                 "no identifier",
		"ALLOW \"a\\nb\" NO_FLAGS DELETE":            "control character",
		"\n# x\nALLOW a NO_FLAGS DELETE\nDENY a x y": "Entry 2",
	} {
		a, err := acl.ParseText(text)
		refused(t, err, problem.Malformed, word)
		if a.Len() != 0 {
			t.Errorf("%q: got %d entries with an error", text, a.Len())
		}
	}
	_, err := acl.ParseText(strings.Repeat("DENY a 0x0 0x1\n", acl.MaxEntries+1))
	refused(t, err, problem.TooLarge, "1000 entries")
	_, err = acl.ParseText(strings.Repeat(" ", acl.MaxSize+1))
	refused(t, err, problem.TooLarge, "bytes")
}

// TestEntriesThatAreRefused: a list cannot be made around the parsers either.
func TestEntriesThatAreRefused(t *testing.T) {
	t.Parallel()
	good := acl.ACE{Type: acl.Allow, Who: "alice", Mask: acl.Delete}
	for word, e := range map[string]acl.ACE{
		"0x03":          {Type: 3, Who: "alice"},
		"no identifier": {},
		"0x30":          {Who: "alice", Flags: 0x130},
		"0x800":         {Who: "alice", Mask: 0x801},
	} {
		if word == "0x30" {
			word = "0x10, 0x20, 0x100"
		}
		a, err := acl.New(good, e)
		refused(t, err, problem.Malformed, word)
		if a.Len() != 0 {
			t.Errorf("got %d entries with an error", a.Len())
		}
	}
	_, err := acl.New(make([]acl.ACE, acl.MaxEntries+1)...)
	refused(t, err, problem.TooLarge, "entries")
}

// TestListIsImmutable: who made a list, or looked at it, cannot change it.
func TestListIsImmutable(t *testing.T) {
	t.Parallel()
	mine := []acl.ACE{{Who: "alice", Mask: acl.Delete}}
	a, err := acl.New(mine...)
	if err != nil {
		t.Fatal(err)
	}
	before := string(a.Marshal())
	mine[0].Who = "mallory"
	for _, e := range a.All() {
		e.Who = "mallory"
		_ = e
	}
	target := acl.Target{Kind: acl.Object, Path: []acl.Level{{ACL: a}}}
	target.Logical()[0].Who = "mallory"
	if got := string(a.Marshal()); got != before {
		t.Errorf("got %s, want %s", got, before)
	}
}

func ExampleParse() {
	a, err := acl.Parse([]byte(`[{"acetype":"ALLOW","identifier":"alice","aceflags":"NO_FLAGS","acemask":"READ_ALL | 0x02"}]`))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(a.Marshal()))
	fmt.Print(a.Text(acl.Object))
	// Output:
	// [{"acetype":"0x00","identifier":"alice","aceflags":"0x00","acemask":"0x0000000B"}]
	// ALLOW alice NO_FLAGS READ_METADATA, WRITE_OBJECT, READ_OBJECT
}
