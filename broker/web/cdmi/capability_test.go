package cdmi

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/space"
)

// TestCapabilityObjects walks all of them, from the top: each is where its parent says, and nothing is claimed that is for what is not served.
func TestCapabilityObjects(t *testing.T) {
	t.Parallel()
	m := newSpace()
	claimed := map[string][]string{}
	var walk func(path string)
	walk = func(path string) {
		g := read(t, m, path)
		if g.status != 200 || g.header.Get("Content-Type") != typeCapability || g.text(t, objectType) != "application/cdmi-capability" || g.fields[metadataField] != nil {
			t.Fatalf("%s: got %d %v %s", path, g.status, g.header, g.body)
		}
		if g.text(t, parentURI)+g.text(t, objectName) != path {
			t.Errorf("%s calls itself %s%s", path, g.text(t, parentURI), g.text(t, objectName))
		}
		var caps map[string]any
		if strings.Contains(strings.TrimSuffix(g.body, "\n"), "\n") {
			t.Errorf("%s is not on one line: %q", path, g.body)
		}
		if err := json.Unmarshal(g.fields[capabilityField], &caps); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for name, v := range caps {
			if s, ok := v.(string); ok && s != "true" && strings.Trim(s, "0123456789") != "" {
				t.Errorf("%s: %s is %q", path, name, s)
			}
			claimed[path] = append(claimed[path], name)
		}
		for _, c := range g.list(t, childrenField) {
			walk(path + c)
		}
	}
	walk("/cdmi/cdmi_capabilities/")
	if len(claimed) != 5 {
		t.Errorf("got %d objects of capabilities, want 5", len(claimed))
	}
	for path, names := range claimed {
		for _, name := range names {
			for _, never := range []string{"read_value", "modify_value", "create_value", "queue", "domain", "snapshot", "export", "serializ", "copy", "move", "reference", "multipart", "query", "logging", "notification", "audit", "encryption", "redundancy", "create_dataobject", "delete_dataobject"} {
				if strings.Contains(name, never) {
					t.Errorf("%s claims %s", path, name)
				}
			}
		}
	}
	for path, kind := range map[string]string{"/cdmi/": "container/fixed/", "/cdmi/north/": "container/fixed/", "/cdmi/north/src/": "container/root/", "/cdmi/north/src/dir/": "container/", "/cdmi/north/src/dir/one": "dataobject/"} {
		if got := read(t, m, path).text(t, capabilitiesURI); got != "/cdmi/cdmi_capabilities/"+kind || claimed[got] == nil {
			t.Errorf("%s: got the capabilities %s", path, got)
		}
	}
	if got := claimed["/cdmi/cdmi_capabilities/container/root/"]; slices.Contains(got, "cdmi_delete_container") {
		t.Errorf("a root container cannot be deleted, and claims %v", got)
	}
}

// TestClaimedLimits: the limits that are claimed are those of the configuration, or those of the form where there is none.
func TestClaimedLimits(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		limits space.UserLimits
		want   [3]string
	}{
		{space.UserLimits{}, [3]string{"4096", "1028096", "1028096"}},
		{space.UserLimits{Items: 10, ItemSize: 20, TotalSize: 30}, [3]string{"10", "20", "30"}},
		{space.UserLimits{Items: 1 << 30, ItemSize: 1 << 30, TotalSize: 1 << 30}, [3]string{"4096", "1028096", "1028096"}},
	} {
		got := map[string]any{}
		for _, c := range systemWide(tc.limits) {
			got[c.name] = c.value
		}
		for i, name := range []string{"cdmi_metadata_maxitems", "cdmi_metadata_maxsize", "cdmi_metadata_maxtotalsize"} {
			if got[name] != tc.want[i] {
				t.Errorf("%+v: %s is %v, want %s", tc.limits, name, got[name], tc.want[i])
			}
		}
	}
	largest := space.Metadata{"a": space.Value(`"` + strings.Repeat("x", mostMetadata-3) + `"`)}
	if _, err := space.ParseMetadata(largest.Marshal()); err != nil {
		t.Errorf("the largest item that is claimed: %v", err)
	}
}
