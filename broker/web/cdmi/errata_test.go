package cdmi

import (
	"net/http"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

// A test for each erratum of the published text that this package has to do with, by the numbers of the page "Readings of CDMI" of docs/adr.

// Examples print the type of an object as "/application/cdmi-object". Taken: the registered type, without a slash in front, in the field, in the
// header, and of what is read.
func TestErratum18TypesHaveNoSlashInFront(t *testing.T) {
	t.Parallel()
	m := newSpace()
	for path, want := range map[string]string{
		"/cdmi/north/src/dir/one": "application/cdmi-object", "/cdmi/north/src/dir/": "application/cdmi-container", "/cdmi/cdmi_capabilities/": "application/cdmi-capability",
	} {
		if g := read(t, m, path); g.text(t, objectType) != want || g.header.Get("Content-Type") != want {
			t.Errorf("%s: got %q and %q, want %q", path, g.text(t, objectType), g.header.Get("Content-Type"), want)
		}
		if g := ask(t, m, http.MethodGet, path, "", versionHeader, "1.1.1", "Accept", "/"+want); g.status != http.StatusNotAcceptable {
			t.Errorf("%s, accepting the printed form: got %d", path, g.status)
		}
	}
	if g := put(t, m, "/application/cdmi-object", "/cdmi/north/src/dir/one", "{}"); g.status != http.StatusBadRequest || len(m.wishes) > 0 {
		t.Errorf("a body of the printed form: got %d", g.status)
	}
}

// The privileges of a member of a domain are "cdmi_privileges" in an example and cdmi_member_privileges in the table. Taken: the table's name. There are no
// domains here, so neither is an item of anything; the example's is refused naming the other, and what would hold it is not found nor claimed.
func TestErratum19PrivilegesOfMembers(t *testing.T) {
	t.Parallel()
	_, err := space.Metadata{"cdmi_privileges": `["administrator"]`}.Split()
	if problem.Of(err) != problem.UnknownField || !strings.Contains(problem.As(err).Sentence(), "cdmi_member_privileges") {
		t.Errorf("the example's name: got %v", err)
	}
	if _, err := (space.Metadata{"cdmi_member_privileges": `["administrator"]`}).Split(); problem.Of(err) != problem.UnknownField {
		t.Errorf("the table's name, of what is no member: got %v", err)
	}
	m := newSpace()
	if g := read(t, m, "/cdmi/cdmi_domains/"); g.status != http.StatusNotFound {
		t.Errorf("the domains: got %d", g.status)
	}
	if g := read(t, m, "/cdmi/cdmi_capabilities/"); strings.Contains(g.body, "cdmi_domains") {
		t.Errorf("domains are claimed: %s", g.body)
	}
	if g := read(t, m, "/cdmi/north/src/dir/?domainURI"); strings.TrimSpace(g.body) != "{}" {
		t.Errorf("the domain of a container: got %s", g.body)
	}
}
