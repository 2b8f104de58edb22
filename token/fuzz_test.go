package token_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

// seed adds the golden vectors of the given kinds and fails if there are none.
func seed(f *testing.F, of func(tokentest.Vector) string, kinds ...string) {
	f.Helper()
	n := 0
	for _, file := range []string{acceptedFile, refusedFile} {
		for _, v := range vectors(f, file) {
			for _, k := range kinds {
				if s := of(v); v.Kind == k && s != "" {
					f.Add([]byte(s))
					n++
				}
			}
		}
	}
	if n == 0 {
		f.Fatal("no seeds")
	}
}

func payloadOf(v tokentest.Vector) string { return v.Payload }

// FuzzVerify: whatever is accepted was signed by us, and its payload is its only form.
func FuzzVerify(f *testing.F) {
	seed(f, func(v tokentest.Vector) string { return v.Token }, signed...)
	keys, good := tokentest.Keys(), map[string]bool{}
	for _, v := range vectors(f, acceptedFile) {
		good[v.Payload] = true
	}
	set := hub(f)
	f.Fuzz(func(t *testing.T, tok []byte) {
		for _, kind := range signed {
			for _, key := range keys {
				v, err := verifyAs(kind, string(tok), key, set)
				switch {
				case err != nil && !v.zero:
					t.Fatalf("%s: got %+v with an error", kind, v)
				case err != nil && problem.Of(err) == problem.Internal:
					t.Fatalf("%s: got %v, want a problem of the table", kind, err)
				case err == nil && !good[string(v.payload)]:
					t.Fatalf("%s: got the payload %s, which nobody signed", kind, v.payload)
				}
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	seed(f, payloadOf, "manifest", "outcome")
	f.Fuzz(func(t *testing.T, b []byte) {
		m, h, err := token.ParseManifest(b)
		if err != nil {
			if h != "" || m.Items != nil || m.Bat != 0 || problem.Of(err) == problem.Internal {
				t.Fatalf("got %+v %q with %v", m, h, err)
			}
			return
		}
		again, h2, err := token.MarshalManifest(m)
		if err != nil || !bytes.Equal(again, b) || h != h2 {
			t.Fatalf("got %s (%v), want %s", again, err, b)
		}
	})
}

func FuzzOutcome(f *testing.F) {
	seed(f, payloadOf, "outcome")
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := token.ParseOutcome(b)
		if err != nil {
			if o.Outcome != "" || o.Lost != nil || problem.Of(err) == problem.Internal {
				t.Fatalf("got %+v with %v", o, err)
			}
			return
		}
		again, err := token.MarshalOutcome(o)
		if err != nil || !bytes.Equal(again, b) || bytes.IndexByte(b, '\n') >= 0 {
			t.Fatalf("got %s (%v), want %s", again, err, b)
		}
	})
}

// FuzzName: an accepted name stays below the directory that it is joined to.
func FuzzName(f *testing.F) {
	for _, s := range []string{"a", "a/b", "..", "a/../b", "/a", "a//b", "\xff", "Zürich", "Zu\u0308rich", `a\b`, ".consign/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := token.CheckName(token.ObjectName(s))
		if err != nil {
			if problem.Of(err) != problem.BadName {
				t.Fatalf("got %v, want bad-name", err)
			}
			return
		}
		if s == "" || len(s) > token.MaxNameSize || strings.Contains("/"+s+"/", "//") || strings.Contains("/"+s+"/", "/../") || strings.Contains("/"+s+"/", "/./") || strings.ContainsAny(s, "\\\x00\n\r") {
			t.Fatalf("got %q as a name", s)
		}
	})
}

func FuzzLocation(f *testing.F) {
	for _, s := range []string{"a:/c/x", "a:/c", "a:/c/", "a:/c//", "a:/", "a", ":/c", "a:/../x", "a.example:/c/x/y/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := token.ParseLocation(s)
		if err != nil {
			if c := problem.Of(err); l != (token.Location{}) || c != problem.BadAddress && c != problem.BadName {
				t.Fatalf("got %+v with %v", l, err)
			}
			return
		}
		if again, err := token.ParseLocation(l.String()); err != nil || again != l {
			t.Fatalf("got %+v (%v) of %q, want %+v", again, err, l, l)
		}
		if back := l.String(); back != s && back != s+"/" && back+"/" != s {
			t.Fatalf("got %q of %q", back, s)
		}
	})
}

func FuzzKeySet(f *testing.F) {
	data, err := hub(f).JWKS()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"keys":[{"k":"AAECAwQF","kty":"oct"}]}`))
	f.Add([]byte(`{"keys":[{"crv":"Ed25519","d":"x","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		set, err := token.ParseKeySet(b, tokentest.TheirHub)
		if err != nil {
			if out, _ := set.JWKS(); string(out) != `{"keys":[]}` || problem.Of(err) == problem.Internal {
				t.Fatalf("got %s with %v", out, err)
			}
			return
		}
		one, err := set.JWKS()
		if err != nil || bytes.Contains(one, []byte(`"d":`)) {
			t.Fatalf("got %s (%v)", one, err)
		}
		back, err := token.ParseKeySet(one, tokentest.TheirHub)
		if err != nil {
			t.Fatal(err)
		}
		if two, err := back.JWKS(); err != nil || !bytes.Equal(one, two) {
			t.Fatalf("got %s (%v), want %s", two, err, one)
		}
	})
}

// FuzzFilter compares the matcher with the definition as a regular expression.
func FuzzFilter(f *testing.F) {
	for _, s := range [][2]string{{"*.tmp", "x/a.tmp"}, {"/a/**", "a/b"}, {"a?c", "abc"}, {"a/**b", "a/x/b"}, {"**", "x"}, {"***", "x"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if (token.Filter{Do: token.Exclude, Match: pattern}).Check() != nil || token.CheckName(token.ObjectName(name)) != nil || len(pattern) > 200 {
			return
		}
		if got, want := excludes(pattern, name), naive(pattern, name); got != want {
			t.Fatalf("%q on %q: got %v, want %v", pattern, name, got, want)
		}
	})
}
