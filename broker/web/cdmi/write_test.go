package cdmi

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

var newSpaceDir = token.Location{Provider: "north", Container: "src", Name: "dir"}

// put writes a body of a kind, as a client of CDMI does.
func put(t *testing.T, m *memSpace, kind, path, body string, more ...string) got {
	t.Helper()
	return ask(t, m, http.MethodPut, path, body, append([]string{versionHeader, "1.1.1", "Content-Type", kind}, more...)...)
}

func TestCreateContainer(t *testing.T) {
	t.Parallel()
	m := newSpace()
	g := put(t, m, typeContainer, "/cdmi/north/src/new/", `{"metadata":{"colour":"blue"}}`)
	if g.status != http.StatusCreated || g.text(t, objectType) != typeContainer || g.text(t, objectName) != "new/" || g.text(t, objectID) == "" ||
		g.text(t, parentURI) != "/cdmi/north/src/" || string(g.fields[metadataField]) != `{"colour":"blue"}` || g.text(t, childrenRange) != "" || string(g.fields[childrenField]) != "[]" {
		t.Errorf("got %d %s %v", g.status, g.body, g.err)
	}
	if g.header.Get("Content-Type") != typeContainer || g.header.Get(versionHeader) != "1.1.1" {
		t.Errorf("got the headers %v", g.header)
	}
	w := m.wishes[0]
	if w.At != (token.Location{Provider: "north", Container: "src", Name: "new"}) || w.Kind != acl.Container || !w.Make || w.Named != nil {
		t.Errorf("got the wish %+v", w)
	}
	if g := put(t, m, typeContainer+asJSON, "/cdmi/north/src/newer/", "", "Accept", typeContainer+asJSON); g.status != http.StatusCreated || g.header.Get("Content-Type") != typeContainer+asJSON {
		t.Errorf("without a body: got %d %v %v", g.status, g.header, g.err)
	}
	if g := put(t, m, typeContainer, "/cdmi/cdmi_objectid/"+string(idOfDir)+"/below/", "{}"); g.status != http.StatusCreated || g.text(t, parentURI) != "/cdmi/north/src/dir/" {
		t.Errorf("below an id: got %d %s %v", g.status, g.body, g.err)
	}
	if g := ask(t, m, http.MethodPut, "/cdmi/north/src/plain/", ""); g.status != http.StatusCreated || g.body != "" || g.header.Get(versionHeader) != "" {
		t.Errorf("by plain HTTP: got %d %v %q", g.status, g.header, g.body)
	}
	m.granted = nil
	if g := put(t, m, typeContainer, "/cdmi/north/src/shut/", "{}"); g.status != http.StatusCreated || strings.TrimSpace(g.body) != "{}" {
		t.Errorf("one that its maker may not read: got %d %s", g.status, g.body)
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	m := newSpace()
	for _, tc := range []struct {
		kind, path, body string
		named            []space.Item
		metadata         string
	}{
		{typeContainer, "/cdmi/north/src/dir/", `{"metadata":{"a":"b"}}`, nil, `{"a":"b"}`},
		{typeContainer, "/cdmi/north/src/dir/?metadata", `{"metadata":{"a":"b"}}`, nil, `{"a":"b"}`},
		{typeContainer, "/cdmi/north/src/dir/?metadata:a;metadata:c", `{"metadata":{"a":"b","d":"e"}}`, []space.Item{"a", "c"}, `{"a":"b","d":"e"}`},
		{typeObject, "/cdmi/north/src/dir/one?metadata:%40user", `{}`, []space.Item{"@user"}, `{}`},
		{typeObject, "/cdmi/cdmi_objectid/" + string(idOfOne), `{"metadata":{}}`, nil, `{}`},
		{typeContainer, "/cdmi/south/dst/", `{"metadata":{"cdmi_owner":"spiffe://south/subscriber/bob"}}`, nil, `{"cdmi_owner":"spiffe://south/subscriber/bob"}`},
	} {
		g := put(t, m, tc.kind, tc.path, tc.body, "If-Match", `"v1"`)
		w := m.wishes[len(m.wishes)-1]
		if g.status != http.StatusNoContent || g.body != "" || !slices.Equal(w.Named, tc.named) || string(w.Metadata.Marshal()) != tc.metadata || w.IfMatch != "v1" {
			t.Errorf("%s: got %d %v, %+v", tc.path, g.status, g.err, w)
		}
	}
	if w := m.wishes[3]; w.Kind != acl.Object || w.Make || w.Metadata != nil {
		t.Errorf("of a data object: got %+v", w)
	}
}

// TestStatusesOfWrites holds the standard's tables for a PUT and a DELETE.
func TestStatusesOfWrites(t *testing.T) {
	t.Parallel()
	const object, container = typeObject, typeContainer
	cdmi := func(kind string) []string { return []string{versionHeader, "1.0.2", "Content-Type", kind} }
	for _, tc := range []struct {
		name, method, path, body string
		head                     []string
		status                   int
		code                     problem.Code
	}{
		{"a container without a slash", "PUT", "/cdmi/north/src/new", "{}", cdmi(container), 400, problem.Malformed},
		{"a data object with a slash", "PUT", "/cdmi/north/src/new/", "{}", cdmi(object), 400, problem.Malformed},
		{"a body of no type", "PUT", "/cdmi/north/src/new/", "{}", []string{versionHeader, "1.0.2"}, 400, problem.Malformed},
		{"a body of another type", "PUT", "/cdmi/north/src/new/", "{}", cdmi("application/json"), 400, problem.Malformed},
		{"no version", "PUT", "/cdmi/north/src/new/", "{}", []string{"Content-Type", container}, 400, problem.Malformed},
		{"an answer that is not accepted", "PUT", "/cdmi/north/src/new/", "{}", append(cdmi(container), "Accept", "text/html"), 406, problem.NotAcceptable},
		{"a data object", "PUT", "/cdmi/north/src/new", `{"value":"x"}`, cdmi(object), 400, problem.NotOffered},
		{"metadata of a data object that is not there", "PUT", "/cdmi/north/src/new", `{}`, cdmi(object), 404, problem.Hidden},
		{"a value by plain HTTP", "PUT", "/cdmi/north/src/new", "bytes", []string{"Content-Type", "text/plain"}, 400, problem.NotOffered},
		{"a container with a body by plain HTTP", "PUT", "/cdmi/north/src/new/", "{}", []string{"Content-Type", "application/json"}, 400, problem.Malformed},
		{"a part of a value", "PUT", "/cdmi/north/src/dir/one?value:0-1", `{}`, cdmi(object), 400, problem.NotOffered},
		{"a snapshot", "PUT", "/cdmi/north/src/dir/", `{"snapshot":"s"}`, cdmi(container), 400, problem.NotOffered},
		{"a copy", "PUT", "/cdmi/north/src/new/", `{"copy":"/cdmi/north/src/dir/"}`, cdmi(container), 400, problem.NotOffered},
		{"a member twice", "PUT", "/cdmi/north/src/new/", `{"metadata":{},"metadata":{}}`, cdmi(container), 400, problem.Malformed},
		{"a reserved name", "PUT", "/cdmi/north/src/cdmi_new/", `{}`, cdmi(container), 400, problem.BadName},
		{"below a reserved name", "PUT", "/cdmi/north/src/dir/cdmi_snapshots/x/", `{}`, cdmi(container), 400, problem.BadName},
		{"a reserved name below the root", "PUT", "/cdmi/cdmi_domains/", `{}`, cdmi(container), 400, problem.BadName},
		{"a provider", "PUT", "/cdmi/east/", `{}`, cdmi(container), 400, problem.NotOffered},
		{"the root", "PUT", "/cdmi/", `{}`, cdmi(container), 400, problem.NotOffered},
		{"capabilities", "PUT", "/cdmi/cdmi_capabilities/container/", `{}`, cdmi(container), 400, problem.NotOffered},
		{"by the id of a container without a slash", "PUT", "/cdmi/cdmi_objectid/" + string(idOfDir), `{}`, cdmi(object), 400, problem.Malformed},
		{"by the id of an object with a slash", "PUT", "/cdmi/cdmi_objectid/" + string(idOfOne) + "/", `{}`, cdmi(container), 404, problem.Hidden},
		{"by an id that nothing has", "PUT", "/cdmi/cdmi_objectid/" + someID + "/", `{}`, cdmi(container), 404, problem.Hidden},
		{"a body that is too large", "PUT", "/cdmi/north/src/new/", `{"metadata":{"a":"` + strings.Repeat("x", maxBody) + `"}}`, cdmi(container), 400, problem.TooLarge},
		{"delete a container", "DELETE", "/cdmi/north/src/dir/deep/", "", []string{versionHeader, "1.0.2"}, 204, ""},
		{"delete a container by plain HTTP", "DELETE", "/cdmi/north/src/dir/deep/", "", nil, 204, ""},
		{"delete a container by its id", "DELETE", "/cdmi/cdmi_objectid/" + string(idOfDir) + "/deep/", "", nil, 204, ""},
		{"delete what is not there", "DELETE", "/cdmi/north/src/no/", "", nil, 404, problem.Hidden},
		{"delete a data object", "DELETE", "/cdmi/north/src/dir/one", "", nil, 400, problem.NotOffered},
		{"delete a data object that is not there", "DELETE", "/cdmi/north/src/dir/two", "", nil, 404, problem.Hidden},
		{"delete a root container", "DELETE", "/cdmi/north/src/", "", nil, 400, problem.NotOffered},
		{"delete a provider", "DELETE", "/cdmi/north/", "", nil, 400, problem.NotOffered},
		{"delete a part", "DELETE", "/cdmi/north/src/dir/deep/?metadata:a", "", nil, 400, problem.NotOffered},
		{"only what is not there", "PUT", "/cdmi/north/src/dir/", `{}`, append(cdmi(container), "If-None-Match", "*"), 400, problem.NotOffered},
		{"what has not changed since", "PUT", "/cdmi/north/src/dir/", `{}`, append(cdmi(container), "If-Unmodified-Since", "Thu, 26 Nov 2026 12:00:00 GMT"), 400, problem.NotOffered},
		{"delete in a state", "DELETE", "/cdmi/north/src/dir/deep/", "", []string{"If-Match", `"v0"`}, 400, problem.NotOffered},
		{"delete a reserved name", "DELETE", "/cdmi/north/src/cdmi_odd", "", nil, 400, problem.BadName},
		{"delete in a version that is not spoken", "DELETE", "/cdmi/north/src/dir/deep/", "", []string{versionHeader, "3"}, 400, problem.NotOffered},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m := newSpace()
			before := len(m.nodes)
			g := ask(t, m, tc.method, tc.path, tc.body, tc.head...)
			if g.status != tc.status || problem.Of(g.err) != tc.code {
				t.Errorf("got %d, %v, want %d %s", g.status, g.err, tc.status, tc.code)
			}
			if tc.status >= 300 && (len(m.nodes) != before || len(m.wishes) > 0 && tc.code != problem.Hidden) {
				t.Errorf("something was done: %+v", m.wishes)
			}
		})
	}
}

// TestRefusalsOfWrites: what the broker refuses has the standard's status.
func TestRefusalsOfWrites(t *testing.T) {
	t.Parallel()
	for code, want := range map[problem.Code]int{
		problem.NotPermitted: 403, problem.OnHold: 403, problem.UnderRetention: 403, problem.PlacementRefused: 403, problem.Hidden: 404, problem.TooLarge: 400,
		problem.Malformed: 400, problem.UnknownField: 400, problem.Conflict: 409, problem.Outdated: 412, problem.PolicyRefused: 403,
	} {
		m := newSpace()
		m.refuse = problem.New(code, "no")
		if g := put(t, m, typeContainer, "/cdmi/north/src/dir/", "{}"); g.status != want {
			t.Errorf("PUT: %s: got %d, want %d", code, g.status, want)
		}
		if g := ask(t, m, http.MethodDelete, "/cdmi/north/src/dir/", ""); g.status != want {
			t.Errorf("DELETE: %s: got %d, want %d", code, g.status, want)
		}
	}
}
