package cdmi

import (
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const someID = "0000706D0010734CE0BAEB29DD542B51" // printed in the standard, with a CRC that is right

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		path  string
		in    realm
		names []string
		slash bool
		code  problem.Code
	}{
		{path: "/cdmi", names: nil},
		{path: "/cdmi/", slash: true},
		{path: "/cdmi/north", names: []string{"north"}},
		{path: "/cdmi/north/src/a/b", names: []string{"north", "src", "a", "b"}},
		{path: "/cdmi/north/src/a/", names: []string{"north", "src", "a"}, slash: true},
		{path: "/cdmi/north/src/a%20b%3F%3Bc", names: []string{"north", "src", "a b?;c"}},
		{path: "/cdmi/north/src/Z%C3%BCrich", names: []string{"north", "src", "Zürich"}},
		{path: "/cdmi/cdmi_capabilities", in: claims, names: []string{}},
		{path: "/cdmi/cdmi_capabilities/container/root/", in: claims, names: []string{"container", "root"}, slash: true},
		{path: "/cdmi/cdmi_objectid/" + someID, in: ids, names: []string{}},
		{path: "/cdmi/cdmi_objectid/" + strings.ToLower(someID) + "/a/b/", in: ids, names: []string{"a", "b"}, slash: true},
		{path: "/cdmi/cdmi_objectid/", code: problem.NotOffered},
		{path: "/cdmi/cdmi_objectid/xyz", code: problem.Malformed},
		{path: "/cdmi/cdmi_objectid/" + someID + "/" + strings.Repeat("a", 1025), code: problem.BadName},
		{path: "/cdmi/cdmi_objectid/" + someID + "/a%00", code: problem.BadName},
		{path: "/cdmi//", code: problem.BadName},
		{path: "/cdmi///", code: problem.BadName},
		{path: "/cdmi/north//src", code: problem.BadName},
		{path: "/cdmi//north", code: problem.BadName},
		{path: "/cdmi/north/src//", code: problem.BadName},
		{path: "/cdmi/north/src/a%2Fb", code: problem.BadName},
		{path: "/cdmi/north/src/%2e%2e/x", code: problem.BadName},
		{path: "/cdmi/north/./src", code: problem.BadName},
		{path: "/cdmi/north/src/%zz", code: problem.BadName},
		{path: "/cdmisomething", code: problem.NotFound},
		{path: "/v1/version", code: problem.NotFound},
	} {
		a, err := parseAddress(tc.path)
		if problem.Of(err) != tc.code || !slices.Equal(a.names, tc.names) || a.in != tc.in || a.slash != tc.slash {
			t.Errorf("%s: got %+v, %v, want %+v", tc.path, a, err, tc)
		}
		if tc.in == ids && a.id != someID {
			t.Errorf("%s: got the id %s", tc.path, a.id)
		}
	}
}

func TestLocations(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]token.Location{
		"/cdmi/north/src":                              {Provider: "north", Container: "src"},
		"/cdmi/north/src/a/b/":                         {Provider: "north", Container: "src", Name: "a/b"},
		"/cdmi/NORTH/src":                              {},
		"/cdmi/north/src/a%00":                         {},
		"/cdmi/north/src/a%5C":                         {},
		"/cdmi/north/src/" + strings.Repeat("a", 1025): {},
	} {
		a, err := parseAddress(path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		got, err := a.location()
		if got != want || (err == nil) != (want != token.Location{}) || err != nil && problem.Of(err) != problem.BadName {
			t.Errorf("%s: got %+v, %v, want %+v", path, got, err, want)
		}
		if err == nil && uri(pathOf(got)...) != strings.TrimSuffix(path, "/")+"/" {
			t.Errorf("%s: its address is %s", path, uri(pathOf(got)...))
		}
	}
	at := token.Location{Provider: "north", Container: "src", Name: "a"}
	if got := beyond(at, []string{"b", "c"}); got.Name != "a/b/c" {
		t.Errorf("got %v", got)
	}
	if got := beyond(token.Location{Provider: "north", Container: "src"}, []string{"b"}); got.Name != "b" {
		t.Errorf("below a root container: got %v", got)
	}
	for name, code := range map[string]problem.Code{"a": "", "acdmi_x": "", "cdmi_x": problem.BadName, "a/cdmi_snapshots": problem.BadName, "cdmi_objectid/a": problem.BadName} {
		if err := checkOwn(strings.Split(name, "/")); problem.Of(err) != code {
			t.Errorf("%s: got %v, want %q", name, err, code)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"/cdmi/", "/cdmi/north/src/a%20b/", "/cdmi/cdmi_objectid/" + someID + "/x", "/cdmi/cdmi_capabilities/container/", "/cdmi//a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		a, err := parseAddress(path)
		if err != nil && (a.names != nil || a.id != "" || a.slash) {
			t.Errorf("%q: got %+v beside %v", path, a, err)
		}
		for _, n := range a.names {
			if n == "" || n == "." || n == ".." || strings.Contains(n, "/") {
				t.Errorf("%q: got the name %q", path, n)
			}
		}
	})
}
