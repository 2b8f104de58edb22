package cdmi

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

func TestReadContainer(t *testing.T) {
	t.Parallel()
	g := read(t, newSpace(), "/cdmi/north/src/dir/")
	if g.status != http.StatusOK || g.header.Get("Content-Type") != typeContainer || g.header.Get(versionHeader) != "1.1.1" || g.header.Get("ETag") != `"v1"` {
		t.Fatalf("got %d %v %s", g.status, g.header, g.body)
	}
	for name, want := range map[string]string{
		objectType: "application/cdmi-container", objectID: string(idOfDir), objectName: "dir/", parentURI: "/cdmi/north/src/", capabilitiesURI: "/cdmi/cdmi_capabilities/container/",
		completionStatus: "Complete", childrenRange: "0-3", mimetype: "", domainURI: "",
	} {
		if got := g.text(t, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := g.list(t, childrenField); !slices.Equal(got, []string{"a b", "deep/", "one", "zürich"}) {
		t.Errorf("children: got %q", got)
	}
	if got := string(g.fields[metadataField]); got != `{"cdmi_acl":[],"cdmi_acount":"0","cdmi_size":"7","colour":"red"}` {
		t.Errorf("metadata: got %s", got)
	}
	if at, last := strings.Index(g.body, `"childrenrange"`), strings.Index(g.body, `"children":`); at < strings.Index(g.body, `"metadata"`) || last < at {
		t.Errorf("children are not last: %s", g.body)
	}
}

func TestReadDataObject(t *testing.T) {
	t.Parallel()
	g := read(t, newSpace(), "/cdmi/north/src/dir/one")
	if g.status != http.StatusOK || g.header.Get("Content-Type") != typeObject {
		t.Fatalf("got %d %v %s", g.status, g.header, g.body)
	}
	for name, want := range map[string]string{
		objectType: "application/cdmi-object", objectID: string(idOfOne), objectName: "one", parentURI: "/cdmi/north/src/dir/", capabilitiesURI: "/cdmi/cdmi_capabilities/dataobject/",
		completionStatus: "Complete", mimetype: "application/octet-stream",
	} {
		if got := g.text(t, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for _, f := range append([]string{childrenField, childrenRange}, valueFields...) {
		if _, there := g.fields[f]; there {
			t.Errorf("there is a field %s: %s", f, g.body)
		}
	}
	if g := read(t, newSpace(), "/cdmi/north/src/dir/a%20b"); g.status != http.StatusOK || g.text(t, objectName) != "a b" || g.fields[objectID] != nil {
		t.Errorf("one of which nothing is kept: got %d %s", g.status, g.body)
	}
	if g := read(t, newSpace(), "/cdmi/north/src/dir/z%C3%BCrich?parentURI;objectName"); g.text(t, parentURI)+g.text(t, objectName) != "/cdmi/north/src/dir/zürich" {
		t.Errorf("names in a body are not percent-encoded: got %s", g.body)
	}
	if g := ask(t, newSpace(), http.MethodHead, "/cdmi/north/src/dir/one", "", versionHeader, "1.0.2"); g.status != http.StatusOK || g.body != "" || g.header.Get(versionHeader) != "1.0.2" {
		t.Errorf("its head: got %d %v %q", g.status, g.header, g.body)
	}
}

// TestStatusesOfReads holds the standard's table for a GET.
func TestStatusesOfReads(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, path string
		head       []string
		status     int
		code       problem.Code
	}{
		{"by plain HTTP", "/cdmi/north/src/dir/one", nil, 400, problem.NotOffered},
		{"by plain HTTP, with curl's own header", "/cdmi/north/src/dir/", []string{"Accept", "*/*"}, 400, problem.NotOffered},
		{"of CDMI without a version", "/cdmi/north/src/dir/", []string{"Accept", typeContainer}, 400, problem.Malformed},
		{"of a version that is not spoken", "/cdmi/north/src/dir/", []string{versionHeader, "2.0"}, 400, problem.NotOffered},
		{"of a value", "/cdmi/north/src/dir/one?value", []string{versionHeader, "1.1.1"}, 400, problem.NotOffered},
		{"of a range of a value", "/cdmi/north/src/dir/one?value:0-3", []string{versionHeader, "1.1.1"}, 400, problem.NotOffered},
		{"of a field that does not exist", "/cdmi/north/src/dir/?colour", []string{versionHeader, "1.1.1"}, 400, problem.UnknownField},
		{"that accepts another type", "/cdmi/north/src/dir/", []string{versionHeader, "1.1.1", "Accept", typeObject}, 406, problem.NotAcceptable},
		{"that accepts no JSON", "/cdmi/north/src/dir/one", []string{versionHeader, "1.1.1", "Accept", "text/html"}, 406, problem.NotAcceptable},
		{"of what is not there", "/cdmi/north/src/dir/two", []string{versionHeader, "1.1.1"}, 404, problem.Hidden},
		{"of an object by a container's name", "/cdmi/north/src/dir/one/", []string{versionHeader, "1.1.1"}, 404, problem.Hidden},
		{"of a provider that is not there", "/cdmi/east/", []string{versionHeader, "1.1.1"}, 404, problem.UnknownProvider},
		{"of domains", "/cdmi/cdmi_domains/", []string{versionHeader, "1.1.1"}, 404, problem.UnknownProvider},
		{"of capabilities that are not there", "/cdmi/cdmi_capabilities/queue/", []string{versionHeader, "1.1.1"}, 404, problem.NotFound},
		{"of an id that nothing has", "/cdmi/cdmi_objectid/" + someID, []string{versionHeader, "1.1.1"}, 404, problem.Hidden},
		{"of an object's id with a slash", "/cdmi/cdmi_objectid/" + string(idOfOne) + "/", []string{versionHeader, "1.1.1"}, 404, problem.Hidden},
		{"below an object's id", "/cdmi/cdmi_objectid/" + string(idOfOne) + "/x", []string{versionHeader, "1.1.1"}, 404, problem.Hidden},
		{"of a name that is none", "/cdmi/north/src/a%00", []string{versionHeader, "1.1.1"}, 400, problem.BadName},
		{"with a double slash", "/cdmi/north//src/", []string{versionHeader, "1.1.1"}, 400, problem.BadName},
		{"of something of a reserved name that is there", "/cdmi/north/src/cdmi_odd", []string{versionHeader, "1.1.1"}, 200, ""},
		{"of an object beside a container of its name", "/cdmi/north/src/both", []string{versionHeader, "1.1.1"}, 200, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			g := ask(t, newSpace(), http.MethodGet, tc.path, "", tc.head...)
			if g.status != tc.status || problem.Of(g.err) != tc.code {
				t.Errorf("got %d, %v, want %d %s", g.status, g.err, tc.status, tc.code)
			}
		})
	}
	for _, method := range []string{http.MethodPost, http.MethodPatch, http.MethodOptions, "MKCOL"} {
		if g := ask(t, newSpace(), method, "/cdmi/north/src/dir/", "", versionHeader, "1.1.1"); g.status != 400 || problem.Of(g.err) != problem.NotOffered {
			t.Errorf("%s: got %d, %v", method, g.status, g.err)
		}
	}
}

// TestRedirections: a container without a slash at its end is sent to its name with one, whoever may see it.
func TestRedirections(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		for path, want := range map[string]string{
			"/cdmi/north/src/dir":                                     "https://broker.example/cdmi/north/src/dir/",
			"/cdmi/north/src/dir/deep":                                "https://broker.example/cdmi/north/src/dir/deep/",
			"/cdmi/cdmi_objectid/" + string(idOfDir):                  "https://broker.example/cdmi/cdmi_objectid/" + string(idOfDir) + "/",
			"/cdmi/cdmi_objectid/" + string(idOfDir) + "/deep":        "https://broker.example/cdmi/cdmi_objectid/" + string(idOfDir) + "/deep/",
			"/cdmi/cdmi_objectid/" + string(idOfDir) + "/no%20such/x": "",
		} {
			g := ask(t, newSpace(), method, path, "", versionHeader, "1.1.1", "Accept", typeContainer)
			if want == "" && g.status != http.StatusNotFound || want != "" && (g.status != http.StatusMovedPermanently || g.header.Get("Location") != want) {
				t.Errorf("%s %s: got %d to %q, want %q", method, path, g.status, g.header.Get("Location"), want)
			}
			m := newSpace()
			m.hidden = true
			if g := ask(t, m, method, path, "", versionHeader, "1.1.1"); g.status != http.StatusNotFound {
				t.Errorf("%s %s, to who may not see it: got %d", method, path, g.status)
			}
		}
	}
	for path, want := range map[string]string{
		"/cdmi": "/cdmi/", "/cdmi/north": "/cdmi/north/", "/cdmi/cdmi_capabilities": "/cdmi/cdmi_capabilities/", "/cdmi/north/src": "/cdmi/north/src/",
		"/cdmi/north/src/dir?children:0-1;metadata:a%20b": "/cdmi/north/src/dir/?children:0-1;metadata:a%20b",
	} {
		if g := read(t, newSpace(), path); g.status != http.StatusMovedPermanently || g.header.Get("Location") != "https://broker.example"+want {
			t.Errorf("%s: got %d to %q", path, g.status, g.header.Get("Location"))
		}
	}
}

func TestSelectedFields(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"objectID":                           `{"objectID":"` + string(idOfDir) + `"}`,
		"objectName;objectType":              `{"objectType":"application/cdmi-container","objectName":"dir/"}`,
		"metadata:colour":                    `{"metadata":{"colour":"red"}}`,
		"metadata:cdmi_a":                    `{"metadata":{"cdmi_acl":[],"cdmi_acount":"0"}}`,
		"metadata:cdmi_acl":                  `{"metadata":{"cdmi_acl":[]}}`,
		"metadata:cdmi_size;metadata:c":      `{"metadata":{"cdmi_acl":[],"cdmi_acount":"0","cdmi_size":"7","colour":"red"}}`,
		"metadata:nothing":                   `{"metadata":{}}`,
		"children:1-2":                       `{"childrenrange":"1-2","children":["deep/","one"]}`,
		"children:3-9;objectName":            `{"objectName":"dir/","childrenrange":"3-3","children":["zürich"]}`,
		"children:9-9":                       `{"childrenrange":"","children":[]}`,
		"childrenrange":                      `{"childrenrange":"0-3"}`,
		"children":                           `{"children":["a b","deep/","one","zürich"]}`,
		"domainURI":                          `{}`,
		"exports;snapshots;completionStatus": `{"completionStatus":"Complete"}`,
	} {
		if g := read(t, newSpace(), "/cdmi/north/src/dir/?"+query); g.status != http.StatusOK || strings.TrimSpace(g.body) != want {
			t.Errorf("%s: got %d %s, want %s", query, g.status, g.body, want)
		}
	}
	if g := read(t, newSpace(), "/cdmi/north/src/dir/one?metadata:%40user"); strings.TrimSpace(g.body) != `{"metadata":{"@user":"x"}}` {
		t.Errorf("a name that is percent-encoded: got %s", g.body)
	}
	m := newSpace()
	if g := read(t, m, "/cdmi/north/src/dir/?children:50-99999"); g.status != http.StatusOK || m.looks[0].Count != maxChildren || m.looks[0].From != 50 {
		t.Errorf("more children than one answer has: got %d, %+v", g.status, m.looks)
	}
	if m := newSpace(); read(t, m, "/cdmi/north/src/dir/?objectID").status != http.StatusOK || m.looks[0].Count != 0 {
		t.Errorf("children were looked for that nobody asked for: %+v", m.looks)
	}
}

// TestWithheldFields: a reader gets what is permitted and is not told of the rest; if nothing is, the answer is 403.
func TestWithheldFields(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		granted []acl.Part
		query   string
		want    string // of the body; empty is 403
	}{
		{[]acl.Part{acl.Metadata}, "", `{"metadata":{"cdmi_acount":"0","cdmi_size":"7","colour":"red"}}`},
		{[]acl.Part{acl.Metadata}, "?metadata:cdmi_a", `{"metadata":{"cdmi_acount":"0"}}`},
		{[]acl.Part{acl.Metadata}, "?objectID", ``},
		{[]acl.Part{acl.Metadata}, "?children", ``},
		{[]acl.Part{acl.List}, "?metadata:cdmi_acl", `{"metadata":{"cdmi_acl":[]}}`},
		{[]acl.Part{acl.Children}, "", `{"childrenrange":"0-3","children":["a b","deep/","one","zürich"]}`},
		{[]acl.Part{acl.Children}, "?metadata", ``},
		{[]acl.Part{acl.Attributes}, "?objectID;metadata", `{"objectID":"` + string(idOfDir) + `"}`},
		{nil, "", ``},
	} {
		m := newSpace()
		m.granted = tc.granted
		g := read(t, m, "/cdmi/north/src/dir/"+tc.query)
		if tc.want == "" && (g.status != http.StatusForbidden || problem.Of(g.err) != problem.NotPermitted) || tc.want != "" && strings.TrimSpace(g.body) != tc.want {
			t.Errorf("%v of %q: got %d %s %v, want %s", tc.granted, tc.query, g.status, g.body, g.err, tc.want)
		}
	}
}

func TestByID(t *testing.T) {
	t.Parallel()
	m := newSpace()
	for byID, path := range map[string]string{
		string(idOfOne):                             "/cdmi/north/src/dir/one",
		strings.ToLower(string(idOfOne)):            "/cdmi/north/src/dir/one",
		string(idOfDir) + "/":                       "/cdmi/north/src/dir/",
		string(idOfDir) + "/one":                    "/cdmi/north/src/dir/one",
		string(idOfDir) + "/deep/":                  "/cdmi/north/src/dir/deep/",
		string(idOfDir) + "/?metadata;children:0-1": "/cdmi/north/src/dir/?metadata;children:0-1",
	} {
		got, want := read(t, m, "/cdmi/cdmi_objectid/"+byID), read(t, m, path)
		if got.status != http.StatusOK || got.body != want.body {
			t.Errorf("%s: got %d %s, want %s", byID, got.status, got.body, want.body)
		}
	}
	for _, path := range []string{"/cdmi/", "/cdmi/south/", "/cdmi/cdmi_capabilities/", "/cdmi/cdmi_capabilities/container/root/"} {
		want := read(t, m, path)
		id := want.text(t, objectID)
		if parsed, err := space.ParseObjectID(id); err != nil || !parsed.Intact() {
			t.Errorf("%s: got the id %q, %v", path, id, err)
		}
		if got := read(t, m, "/cdmi/cdmi_objectid/"+id+"/"); got.status != http.StatusOK || got.body != want.body {
			t.Errorf("%s by its id %s: got %d %s", path, id, got.status, got.body)
		}
	}
	root := read(t, m, "/cdmi/").text(t, objectID)
	if got, want := read(t, m, "/cdmi/cdmi_objectid/"+root+"/north/src/dir/one"), read(t, m, "/cdmi/north/src/dir/one"); got.body != want.body {
		t.Errorf("below the id of the root: got %d %s", got.status, got.body)
	}
	if g := read(t, m, "/cdmi/north/src/?parentID"); g.text(t, parentID) != read(t, m, "/cdmi/north/").text(t, objectID) {
		t.Errorf("the parent of a root container: got %s", g.body)
	}
}

// TestIDsNameNothing: who may not see what has an id is told the same as of an id that nothing has, and learns no name.
func TestIDsNameNothing(t *testing.T) {
	t.Parallel()
	m := newSpace()
	m.hidden = true
	nothing := read(t, m, "/cdmi/cdmi_objectid/"+someID)
	long := strings.Repeat("a", 1022) // with the name above it, more than a name may have
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		for _, path := range []string{string(idOfOne), string(idOfDir) + "/", string(idOfDir), string(idOfDir) + "/" + long} {
			g := ask(t, m, method, "/cdmi/cdmi_objectid/"+path, "", versionHeader, "1.1.1")
			if method == http.MethodDelete && strings.HasSuffix(path, "/") {
				m.refuse = m.hide(newSpaceDir)
				g = ask(t, m, method, "/cdmi/cdmi_objectid/"+path, "", versionHeader, "1.1.1")
				m.refuse = nil
			}
			if g.status != nothing.status || problem.As(g.err).Sentence() != problem.As(nothing.err).Sentence() {
				t.Errorf("%s %s: got %d %v, want %d %v", method, path, g.status, g.err, nothing.status, nothing.err)
			}
		}
	}
}

func TestRootAndProviders(t *testing.T) {
	t.Parallel()
	g := read(t, newSpace(), "/cdmi/")
	if got := g.list(t, childrenField); !slices.Equal(got, []string{"north/", "south/"}) || g.text(t, parentURI)+g.text(t, objectName) != "/cdmi/" || g.fields[parentID] != nil || string(g.fields[metadataField]) != "{}" {
		t.Errorf("the root: got %s", g.body)
	}
	g = read(t, newSpace(), "/cdmi/south/")
	if got := g.list(t, childrenField); !slices.Equal(got, []string{"arch/", "dst/"}) || g.text(t, parentURI)+g.text(t, objectName) != "/cdmi/south/" || g.text(t, objectType) != typeContainer {
		t.Errorf("a provider: got %s", g.body)
	}
	if g := read(t, newSpace(), "/cdmi/south/?children:1-1"); strings.TrimSpace(g.body) != `{"childrenrange":"1-1","children":["dst/"]}` {
		t.Errorf("the second container: got %s", g.body)
	}
}

// TestOurOwnFailures: what is no refusal keeps its status.
func TestOurOwnFailures(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]int{
		problem.New(problem.AgentAbsent, ""): 503, problem.New(problem.Timeout, ""): 504, errors.New("a disk"): 500, problem.New(problem.Overloaded, ""): 429,
		problem.New(problem.OnHold, ""): 403, problem.New(problem.UnderRetention, ""): 403, problem.New(problem.PlacementRefused, ""): 403, problem.New(problem.PolicyRefused, ""): 403,
		problem.New(problem.Conflict, ""): 409, problem.New(problem.Taken, ""): 409, problem.New(problem.Outdated, ""): 412, problem.New(problem.TooLarge, ""): 400,
	} {
		if got := statusOf(err); got != want {
			t.Errorf("%v: got %d, want %d", err, got, want)
		}
	}
}
