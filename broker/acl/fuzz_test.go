package acl_test

import (
	"bufio"
	"bytes"
	"os"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token/problem"
)

// seeds adds the lines of a file of testdata but for notes, and fails if there are none.
func seeds(f *testing.F, file string) {
	f.Helper()
	data, err := os.ReadFile("testdata/" + file)
	if err != nil {
		f.Fatal(err)
	}
	n := 0
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		if line := s.Text(); line != "" && line[0] != '#' {
			f.Add(line)
			n++
		}
	}
	if n == 0 {
		f.Fatal("no seeds")
	}
}

// FuzzParse: what is read as a list is written in one form, which is read as the same list.
func FuzzParse(f *testing.F) {
	seeds(f, "lists.txt")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := acl.Parse([]byte(s))
		if err != nil {
			if a.Len() != 0 || problem.Of(err) == problem.Internal {
				t.Fatalf("got %d entries with %v", a.Len(), err)
			}
			return
		}
		stable(t, a)
	})
}

// FuzzParseText: the same of the form for people.
func FuzzParseText(f *testing.F) {
	seeds(f, "texts.txt")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := acl.ParseText(s)
		if err != nil {
			if a.Len() != 0 || problem.Of(err) == problem.Internal {
				t.Fatalf("got %d entries with %v", a.Len(), err)
			}
			return
		}
		stable(t, a)
	})
}

// stable fails unless a is read back as itself from every form.
func stable(t *testing.T, a acl.ACL) {
	t.Helper()
	for _, e := range a.All() {
		if err := e.Check(); err != nil {
			t.Fatalf("the list has an entry that is none: %v", err)
		}
	}
	b := a.Marshal()
	if again, err := acl.Parse(b); err != nil || !again.Equal(a) || !bytes.Equal(again.Marshal(), b) {
		t.Fatalf("%s: got %s, %v", b, again.Marshal(), err)
	}
	for _, k := range []acl.Kind{acl.Object, acl.Container} {
		if again, err := acl.Parse(a.MarshalNames(k)); err != nil || !again.Equal(a) {
			t.Fatalf("%s: got %s, %v", a.MarshalNames(k), again.Marshal(), err)
		}
		if again, err := acl.ParseText(a.Text(k)); err != nil || !again.Equal(a) {
			t.Fatalf("%s: got %s, %v", a.Text(k), again.Marshal(), err)
		}
	}
}

// FuzzParseMask: what is read as a mask, flags or type has one number and is read back from its names.
func FuzzParseMask(f *testing.F) {
	seeds(f, "masks.txt")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := acl.ParseMask(s)
		if err != nil && (m != 0 || problem.Of(err) == problem.Internal) {
			t.Fatalf("got %s with %v", m, err)
		}
		if m&^acl.AllPerms != 0 {
			t.Fatalf("got the bits %s, which do not exist", m.Hex())
		}
		for _, form := range []string{m.Text(acl.Object), m.Text(acl.Container), m.Hex()} {
			if again, err := acl.ParseMask(form); err != nil || again != m {
				t.Fatalf("%s: got %s, %v", form, again, err)
			}
		}
		g, err := acl.ParseFlags(s)
		if err != nil && (g != 0 || problem.Of(err) == problem.Internal) {
			t.Fatalf("got %s with %v", g, err)
		}
		for _, form := range []string{g.String(), g.Hex()} {
			if again, err := acl.ParseFlags(form); err != nil || again != g {
				t.Fatalf("%s: got %s, %v", form, again, err)
			}
		}
		y, err := acl.ParseType(s)
		if err != nil && (y != 0 || problem.Of(err) == problem.Internal) {
			t.Fatalf("got %s with %v", y, err)
		}
		for _, form := range []string{y.String(), y.Hex()} {
			if again, err := acl.ParseType(form); err != nil || again != y {
				t.Fatalf("%s: got %s, %v", form, again, err)
			}
		}
	})
}
