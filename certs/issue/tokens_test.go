package issue

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func newTestToken(t testing.TB, ca *CA) string {
	t.Helper()
	tok, err := ca.NewToken(Request{Role: token.Agent, Name: "x"}, "ca.a.example:7443", 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestTokenText(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	tok := newTestToken(t, ca)
	jt, err := ParseToken(tok)
	if err != nil {
		t.Fatal(err)
	}
	if jt.Address != "ca.a.example:7443" || jt.Root != ca.Fingerprint() || len(jt.secret) != 32 {
		t.Errorf("got %+v, want the authority's address and fingerprint", jt)
	}
	hidden := fmt.Sprintf("%v %+v %#v %s", jt, jt, jt, jt)
	if strings.Contains(hidden, jt.secret.text()) || strings.Contains(hidden, fmt.Sprint(jt.secret[0], " ", jt.secret[1])) {
		t.Errorf("printing shows the secret: %s", hidden)
	}
	if other := newTestToken(t, ca); other == tok {
		t.Error("got the same token twice")
	}
	// No byte can be changed so that the same secret, root and address come out.
	changed := 0
	for i := range len(tok) {
		for _, b := range []byte("Aa0_-. \n=") {
			if tok[i] == b {
				continue
			}
			changed++
			got, err := ParseToken(tok[:i] + string(b) + tok[i+1:])
			if err == nil && got == jt {
				t.Errorf("byte %d as %q gives the same token: it has two spellings", i, b)
			}
			if err != nil && (got != JoinToken{} || problem.Of(err) != problem.JoinRefused) {
				t.Errorf("byte %d as %q: got %v, %v", i, b, got, err)
			}
		}
	}
	if changed < 1000 {
		t.Errorf("tried %d changes, want a thousand or more", changed)
	}
}

func TestNewTokenRefuses(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	good := Request{Role: token.Agent, Name: "x"}
	for name, tt := range map[string]struct {
		req     Request
		address string
		ttl     time.Duration
	}{
		"no name":       {Request{Role: token.Agent}, "h:1", 0},
		"no role":       {Request{Name: "x"}, "h:1", 0},
		"too long life": {Request{token.Agent, "x", 8 * 24 * time.Hour}, "h:1", 0},
		"no port":       {good, "h", 0},
		"no host":       {good, ":1", 0},
		"a URL":         {good, "https://h:1", 0},
		"too long":      {good, "h:1", MaxTokenLife + 1},
		"negative":      {good, "h:1", -time.Second},
	} {
		tok, err := ca.NewToken(tt.req, tt.address, tt.ttl, time.Now())
		if tok != "" || problem.Of(err) != problem.Malformed {
			t.Errorf("%s: got %q, %v, want a refusal", name, tok, err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(ca.dir, tokenDir)); err != nil || len(left) != 0 {
		t.Errorf("got %d tokens kept, %v, want none", len(left), err)
	}
}

// FuzzParseToken holds that what is accepted has one spelling and no secret is in an error.
func FuzzParseToken(f *testing.F) {
	ca, err := Create(filepath.Join(f.TempDir(), "ca"), domain, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	seeds := []string{newTestToken(f, ca), newTestToken(f, ca)}
	for _, s := range seeds {
		if _, err := ParseToken(s); err != nil {
			f.Fatalf("a seed is not good: %v", err)
		}
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		jt, err := ParseToken(text)
		if err != nil {
			if (jt != JoinToken{}) {
				t.Fatal("got a token with an error")
			}
			return
		}
		if len(text) > MaxTokenSize || !strings.HasPrefix(text, tokenPrefix+"."+jt.secret.text()+"."+string(jt.Root)+".") {
			t.Fatalf("%q is accepted in another spelling", text)
		}
	})
}
