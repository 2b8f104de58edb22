package space_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

// FuzzObjectID: what is read has one spelling.
func FuzzObjectID(f *testing.F) {
	if len(printed) == 0 {
		f.Fatal("no seeds")
	}
	for _, v := range printed {
		f.Add(string(v.id))
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := space.ParseObjectID(s)
		if err != nil {
			if id != "" || problem.Of(err) != problem.Malformed {
				t.Fatalf("got %q with %v", id, err)
			}
			return
		}
		if again, err := space.ParseObjectID(string(id)); err != nil || again != id || len(id) != len(s) {
			t.Fatalf("%q: got %q, %v", id, again, err)
		}
	})
}

// FuzzMetadata: what is read is written in one form, and what it asks for is the same when it is read again.
func FuzzMetadata(f *testing.F) {
	n := 0
	for _, form := range forms {
		for _, v := range form.read {
			f.Add([]byte(`{"` + string(form.item) + `":` + v + `}`))
			n++
		}
		for v := range form.refused {
			if len(v) < 100 {
				f.Add([]byte(`{"` + string(form.item) + `":` + v + `}`))
			}
		}
	}
	f.Add([]byte(`{ "a" : [1, {"b": "\u00e9"}], "cdmi_size": "1", "cdmi_acl": [], "cdmi_RPO_provided": "1" }`))
	if n == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := space.ParseMetadata(b)
		if err != nil {
			if m != nil || problem.Of(err) == problem.Internal {
				t.Fatalf("got %v with %v", m, err)
			}
			return
		}
		written := m.Marshal()
		if again, err := space.ParseMetadata(written); err != nil || !bytes.Equal(again.Marshal(), written) {
			t.Fatalf("%s: got %s, %v", written, again.Marshal(), err)
		}
		parts, err := m.Split()
		if err != nil {
			if problem.Of(err) != problem.UnknownField {
				t.Fatalf("got %v", err)
			}
			return
		}
		if len(parts.User)+len(parts.Data)+len(parts.Access)+len(parts.Ignored) != len(m) {
			t.Fatalf("%s: an item is lost", written)
		}
		s, err := space.ParseSettings(acl.Container, parts.Data)
		if err != nil {
			if !reflect.DeepEqual(s, space.Settings{}) || problem.Of(err) == problem.Internal {
				t.Fatalf("got %+v with %v", s, err)
			}
			return
		}
		again, err := space.ParseSettings(acl.Container, s.Metadata())
		if err != nil || !reflect.DeepEqual(again, s) {
			t.Fatalf("%v: got %+v, %v, want %+v", s.Metadata(), again, err, s)
		}
		whole := space.Inherit(s, s)
		for item := range parts.Data {
			if !whole.Has(item) {
				t.Fatalf("%s is lost by inheritance", item)
			}
		}
	})
}

// FuzzInterval: what is read as times is written as it was.
func FuzzInterval(f *testing.F) {
	f.Add("2026-01-01T00:00:00.000000Z/2033-01-01T00:00:00.000000Z")
	f.Add("2026-01-01T24:00:00.000000Z/2033-01-01T00:00:60.000000Z")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := space.ParseInterval(s)
		switch {
		case err != nil && (v != space.Interval{} || problem.Of(err) != problem.Malformed):
			t.Fatalf("got %v with %v", v, err)
		case err == nil && (v.String() != s || v.End.Before(v.Start)):
			t.Fatalf("%q: got %s", s, v)
		}
	})
}
