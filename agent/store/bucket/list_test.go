package bucket_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// oddBucket holds keys that are names, markers, and neither. listed is what List makes of them, in order.
func oddBucket(opt backendtest.Options) (svc *backendtest.Service, listed []string) {
	svc = backendtest.New(opt)
	for _, key := range []string{
		"in/", "in/.consign/probe-1-x/race", "in//lead", "in/a", "in/a b", "in/a%0", "in/a-b", "in/a/", "in/a\x01", "in/a\x01\x01", "in/b-c", "in/b/", "in/c/", "in/c/x", "in/d//", "in/d//e", "in/e/../f",
		"in/f/.CONSIGN/b/0", "in/f/.CONSIGN/b/1", "in/f/.consign", "in/f/g", "in/h\\i", "in/z/", "out/x",
	} {
		svc.Set(key, nil, nil)
	}
	svc.Set("in/full/", []byte("content of a folder"), nil)
	return svc, []string{
		"%2Flead [bad-name]", "a", "a%01 [bad-name]", "a%01%01 [bad-name]", "a b", "a%0", "a-b", "b-c", "b/", "c/x", "d%2F%2F [bad-name]", "d%2F%2Fe [bad-name]", "e/%2E%2E/f [bad-name]",
		"f/.CONSIGN", "f/.consign [bad-name]", "f/g", "full%2F [bad-name]", "h%5Ci [bad-name]", "z/",
	}
}

// TestListOddKeys lists in pages of every size, resumed after every name.
func TestListOddKeys(t *testing.T) {
	t.Parallel()
	for _, page := range []int{1, 2, 1000} {
		svc, want := oddBucket(backendtest.Options{Page: page})
		s := open(svc, nil, "in")
		if got := storetest.Names(t, s, "", ""); !slices.Equal(got, want) {
			t.Fatalf("got  %q\nwant %q", got, want)
		}
		for k := 1; k < 4; k++ {
			var got []string
			after := token.ObjectName("")
			for range 100 {
				n := 0
				if err := s.List(t.Context(), "", after, func(in store.Info, err error) bool {
					name := string(in.Name)
					if in.Type == store.Subtree {
						name += "/"
					}
					if err != nil {
						name += " [" + string(problem.Of(err)) + "]"
					}
					got = append(got, name)
					after = in.Name
					n++
					return n < k
				}); err != nil {
					t.Fatal(err)
				}
				if n < k {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d at a time: got\n%q\nwant\n%q", k, got, want)
			}
		}
	}
}

// TestListTwoOfOneName: an object is called as another key is shown.
func TestListTwoOfOneName(t *testing.T) {
	t.Parallel()
	svc := backendtest.New(backendtest.Options{})
	for _, key := range []string{"a\x01", "a b", "a%01"} {
		svc.Set(key, nil, nil)
	}
	s := open(svc, nil, "")
	if got, want := storetest.Names(t, s, "", ""), []string{"a%01 [bad-name]", "a b", "a%01"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	err := s.List(t.Context(), "", "a%01", func(in store.Info, _ error) bool { t.Errorf("got %q", in.Name); return true })
	if problem.Of(err) != problem.BadName {
		t.Errorf("List after a name of two keys: got %v, want %s", err, problem.BadName)
	}
	if got, want := storetest.Names(t, s, "", "a b"), []string{"a%01"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestListLeaps is what the agent does to see one level: it goes on behind everything below a name.
func TestListLeaps(t *testing.T) {
	t.Parallel()
	svc, _ := oddBucket(backendtest.Options{})
	s := open(svc, nil, "in")
	got := storetest.Names(t, s, "", "c/\U0010FFFF")
	if len(got) == 0 || got[0] != "d%2F%2F [bad-name]" {
		t.Errorf("behind all below c: got %q", got)
	}
	before := len(svc.Calls())
	storetest.Names(t, s, "", "f/\U0010FFFF")
	if n := len(svc.Calls()) - before; n != 1 {
		t.Errorf("a leap took %d requests, want 1", n)
	}
}

func TestSubtrees(t *testing.T) {
	t.Parallel()
	svc, _ := oddBucket(backendtest.Options{})
	s := open(svc, nil, "in")
	for name, want := range map[token.ObjectName]store.Type{"a": store.Object, "b": store.Subtree, "c": store.Subtree, "c/x": store.Object, "f": store.Subtree, "z": store.Subtree, "e": store.Subtree} {
		if in, err := s.Stat(t.Context(), name); err != nil || in.Type != want {
			t.Errorf("Stat(%q): got %+v and %v, want %s", name, in, err, want)
		}
	}
	for _, name := range []token.ObjectName{"x", "in", "c/x/y", "out", "fu"} {
		if in, err := s.Stat(t.Context(), name); problem.Of(err) != problem.Missing {
			t.Errorf("Stat(%q): got %+v and %v, want missing", name, in, err)
		}
		if err := s.List(t.Context(), name, "", nil); problem.Of(err) != problem.Missing {
			t.Errorf("List(%q): got %v, want missing", name, err)
		}
	}
	// Pages after the last name: the subtree is there, though nothing is told.
	for _, tt := range []struct{ prefix, after token.ObjectName }{{"c", "c/x"}, {"z", ""}, {"z", "zz"}, {"c", "d"}} {
		if got := storetest.Names(t, s, tt.prefix, tt.after); len(got) != 0 {
			t.Errorf("List(%q, %q): got %q, want none", tt.prefix, tt.after, got)
		}
	}
	if err := s.List(t.Context(), "x", "x/y", nil); problem.Of(err) != problem.Missing {
		t.Errorf("List after a name of no subtree: got %v, want missing", err)
	}
	for _, name := range []token.ObjectName{"c", "new/sub", "new/sub"} {
		if err := s.Make(t.Context(), name); err != nil {
			t.Errorf("Make(%q): %v", name, err)
		}
	}
	if content, there := svc.Content("in/new/sub/"); !there || !bytes.Equal(content, nil) {
		t.Error("Make of a new subtree has written no marker")
	}
	if err := s.Make(t.Context(), "a"); problem.Of(err) != problem.Taken {
		t.Errorf("Make of an object: got %v, want taken", err)
	}
}

// TestListWithFaults loses the answer to each page in turn.
func TestListWithFaults(t *testing.T) {
	t.Parallel()
	_, want := oddBucket(backendtest.Options{})
	for at := range 25 {
		svc, _ := oddBucket(backendtest.Options{Page: 1})
		svc.Fail(func(c backendtest.Call) backendtest.Fault {
			if c.N == at {
				return troubles()[at%2].fault
			}
			return backendtest.Fault{}
		})
		if got := storetest.Names(t, open(svc, nil, "in"), "", ""); !slices.Equal(got, want) {
			t.Errorf("no answer at call %d: got %q, want %q", at, got, want)
		}
	}
}
