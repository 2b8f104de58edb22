package cdmi

import (
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

func TestParseSelection(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		query string
		parts []acl.Part
		code  problem.Code
	}{
		{query: "", parts: []acl.Part{acl.Attributes, acl.Metadata, acl.List, acl.Children}},
		{query: "objectID;objectName", parts: []acl.Part{acl.Attributes}},
		{query: "metadata", parts: []acl.Part{acl.Metadata, acl.List}},
		{query: "metadata:cdmi_acl", parts: []acl.Part{acl.List}},
		{query: "metadata:cdmi_a", parts: []acl.Part{acl.Metadata, acl.List}},
		{query: "metadata:cdmi_size", parts: []acl.Part{acl.Metadata}},
		{query: "metadata:cdmi_acl;metadata:cdmi_owner", parts: []acl.Part{acl.Metadata, acl.List}},
		{query: "metadata:%40user", parts: []acl.Part{acl.Metadata}},
		{query: "metadata:a%3Bb", parts: []acl.Part{acl.Metadata}},
		{query: "children:0-2", parts: []acl.Part{acl.Children}},
		{query: "childrenrange", parts: []acl.Part{acl.Children}},
		{query: "children:3-3;objectID", parts: []acl.Part{acl.Attributes, acl.Children}},
		{query: "domainURI;exports;snapshots;percentComplete", parts: []acl.Part{acl.Attributes}},
		{query: "value", code: problem.NotOffered},
		{query: "value:0-10", code: problem.NotOffered},
		{query: "valuerange", code: problem.NotOffered},
		{query: "nothing", code: problem.UnknownField},
		{query: "objectid", code: problem.UnknownField},
		{query: "objectID&objectName", code: problem.UnknownField},
		{query: "objectID;;objectName", code: problem.Malformed},
		{query: "objectID;", code: problem.Malformed},
		{query: "objectID;objectID", code: problem.Malformed},
		{query: "metadata:", code: problem.Malformed},
		{query: "objectID:1", code: problem.Malformed},
		{query: "children;children:0-1", code: problem.Malformed},
		{query: "children:0-1;children:2-3", code: problem.Malformed},
		{query: "children:", code: problem.Malformed},
		{query: "children:2", code: problem.Malformed},
		{query: "children:2-1", code: problem.Malformed},
		{query: "children:-1-2", code: problem.Malformed},
		{query: "children:00-2", code: problem.Malformed},
		{query: "children:0-+2", code: problem.Malformed},
		{query: "children:0-99999999999999999999", code: problem.Malformed},
		{query: "children:0-100000", code: problem.TooLarge},
		{query: "metadata:%zz", code: problem.Malformed},
		{query: "mimetype", code: problem.UnknownField}, // of data objects
	} {
		s, err := parseSelection(tc.query, containerFields)
		if problem.Of(err) != tc.code {
			t.Errorf("%q: got %v, want %q", tc.query, err, tc.code)
			continue
		}
		if err == nil && !slices.Equal(s.parts(containerFields), tc.parts) {
			t.Errorf("%q: got the parts %v, want %v", tc.query, s.parts(containerFields), tc.parts)
		}
	}
	var many []string
	for i := range maxSelected + 1 {
		many = append(many, "metadata:"+strings.Repeat("x", i+1))
	}
	if _, err := parseSelection(strings.Join(many, ";"), dataFields); problem.Of(err) != problem.TooLarge {
		t.Errorf("%d things: got %v", len(many), err)
	}
}

func TestSpans(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]span{
		"": {0, 999}, "children": {0, 999}, "children:5-7": {5, 7}, "children:99999-99999": {99_999, 99_999},
		"children:0-99999": {0, 999}, "children:500-2000": {500, 1499},
	} {
		s, err := parseSelection(query, containerFields)
		if err != nil || s.children() != want {
			t.Errorf("%q: got %v, %v, want %v", query, s.children(), err, want)
		}
	}
}

func TestParseNamed(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		query string
		named []space.Item
		code  problem.Code
	}{
		{query: ""},
		{query: "metadata"},
		{query: "metadata:a", named: []space.Item{"a"}},
		{query: "metadata:a;metadata:cdmi_acl", named: []space.Item{"a", "cdmi_acl"}},
		{query: "metadata:%40user;metadata:a%3Bb", named: []space.Item{"@user", "a;b"}},
		{query: "metadata:", code: problem.Malformed},
		{query: "metadata;metadata:a", code: problem.Malformed},
		{query: "metadata:a;metadata", code: problem.Malformed},
		{query: "metadata:a;metadata:a", code: problem.Malformed},
		{query: "metadata:a;", code: problem.Malformed},
		{query: "value:0-10", code: problem.NotOffered},
		{query: "snapshot", code: problem.NotOffered},
		{query: "metadata:a%00", code: problem.Malformed},
	} {
		named, err := parseNamed(tc.query)
		if problem.Of(err) != tc.code || !slices.Equal(named, tc.named) || (named == nil) != (tc.named == nil) {
			t.Errorf("%q: got %v, %v, want %v %q", tc.query, named, err, tc.named, tc.code)
		}
	}
}
