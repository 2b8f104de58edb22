package cdmi

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

// A claim is one capability. What is not claimed is not offered; nothing is claimed that a test of this package or of cmd/consign does not use.
type claim struct {
	name  string
	value any // string or []string
}

const yes = "true"

// mostMetadata is how many bytes of names and values fit into metadata at most, where as many items as may be take quotes and commas.
const mostMetadata = space.MaxMetadataSize - 5*space.MaxItems

// A claimant is an object that says what can be done with the objects that point to it.
type claimant struct {
	path     []string // below cdmi_capabilities
	claims   []claim
	children []string
}

// The objects to which capabilitiesURI points.
var (
	ofFixed = []string{"container", "fixed"} // the root and providers, which nobody makes or changes here
	ofRoots = []string{"container", "root"}  // root containers, which an operator exports
	ofInner = []string{"container"}
	ofData  = []string{"dataobject"}
)

// storageItems are claimed of everything that has metadata of its own.
var storageItems = []claim{{"cdmi_acl", yes}, {"cdmi_size", yes}, {"cdmi_ctime", yes}, {"cdmi_atime", yes}, {"cdmi_mtime", yes}, {"cdmi_acount", yes}, {"cdmi_mcount", yes}}

// claimants are all objects below cdmi_capabilities, whose contents depend on nothing but the limits of user metadata.
func claimants(l space.UserLimits) []claimant {
	listing := []claim{{"cdmi_list_children", yes}, {"cdmi_list_children_range", yes}}
	items := []claim{{"cdmi_read_metadata", yes}, {"cdmi_modify_metadata", yes}}
	wishes := []claim{
		{"cdmi_data_holds", yes}, {"cdmi_data_retention", yes}, {"cdmi_geographic_placement", yes},
		{"cdmi_value_hash", []string{string(space.SHA256), string(space.SHA384), string(space.SHA512), string(space.SHA160), string(space.MD5)}},
	}
	join := func(lists ...[]claim) (all []claim) {
		for _, list := range lists {
			all = append(all, list...)
		}
		return all
	}
	root := join(listing, items, []claim{{"cdmi_create_container", yes}, {"cdmi_assignedsize", yes}}, storageItems, wishes)
	return []claimant{
		{nil, systemWide(l), []string{"container/", "dataobject/"}},
		{ofInner, join(root, []claim{{"cdmi_delete_container", yes}}), []string{"fixed/", "root/"}},
		{ofFixed, listing, nil},
		{ofRoots, root, nil},
		{ofData, join(items, storageItems, wishes), nil},
	}
}

// systemWide are the capabilities of the whole.
func systemWide(l space.UserLimits) []claim {
	number := func(limit, most int) string {
		if limit <= 0 || limit > most {
			limit = most
		}
		return strconv.Itoa(limit)
	}
	return []claim{
		{"cdmi_dataobjects", yes},
		{"cdmi_metadata_maxitems", number(l.Items, space.MaxItems)},
		{"cdmi_metadata_maxsize", number(l.ItemSize, mostMetadata)},
		{"cdmi_metadata_maxtotalsize", number(l.TotalSize, mostMetadata)},
		{"cdmi_object_access_by_ID", yes},
		{"cdmi_security_access_control", yes},
		{"cdmi_security_data_integrity", yes},
		{"cdmi_security_immutability", yes},
		{"cdmi_authentication_methods", []string{"x509"}},
	}
}

// claimantAt returns the object of capabilities at a path.
func claimantAt(l space.UserLimits, path []string) (claimant, error) {
	for _, c := range claimants(l) {
		if strings.Join(c.path, "/") == strings.Join(path, "/") {
			return c, nil
		}
	}
	return claimant{}, problem.New(problem.NotFound, "There are no capabilities of that name")
}

// document is the object as it is shown.
func (c claimant) document(id func(...string) space.ObjectID, s selection) (document, error) {
	at := append([]string{capabilities}, c.path...)
	above := at[:len(at)-1]
	var d document
	d.text(objectType, typeCapability)
	d.text(objectID, string(id(at...)))
	d.text(objectName, at[len(at)-1]+"/")
	d.text(parentURI, uri(above...))
	d.text(parentID, string(id(above...)))
	if s.wants(capabilityField) {
		var what document
		for _, claim := range c.claims {
			v, err := json.Marshal(claim.value)
			if err != nil {
				return nil, err
			}
			what.raw(claim.name, v)
		}
		d.raw(capabilityField, bytes.TrimSuffix(what.bytes(), []byte{'\n'}))
	}
	span := s.children()
	list := c.children[min(span.lo, int64(len(c.children))):min(span.hi+1, int64(len(c.children)))]
	d.listed(s, span.lo, list)
	return d.selected(s), nil
}

// claimsOf says which capabilities something has, by its names below the root.
func claimsOf(k acl.Kind, names []string) []string {
	switch {
	case k == acl.Object:
		return ofData
	case len(names) < 2:
		return ofFixed
	case len(names) == 2:
		return ofRoots
	}
	return ofInner
}
