package token_test

import (
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

// example is what a page shows of a vector.
func example(v tokentest.Vector) string {
	s := fmt.Sprintf("<!-- vector %s -->\n\n```text\npayload: %s\nhash: %s\n", v.Name, v.Payload, v.Hash)
	if v.Token != "" {
		s += "token: " + v.Token + "\n"
	}
	if v.Xfr != "" {
		s += "xfr: " + v.Xfr + "\n"
	}
	return s + "```\n"
}

var marked = regexp.MustCompile("(?m)^<!-- vector (\\S*) -->\n(\n```text\n[^`]*```\n)?")

// TestSpecExamples keeps the worked examples of docs/spec equal to the vectors.
func TestSpecExamples(t *testing.T) {
	byName := map[string]tokentest.Vector{}
	for _, v := range vectors(t, acceptedFile) {
		byName[v.Name] = v
	}
	for _, page := range []string{"order", "capability", "revocation", "link", "receipt"} {
		path := "../docs/spec/" + page + ".md"
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		want := marked.ReplaceAllStringFunc(string(before), func(s string) string {
			n++
			v, ok := byName[marked.FindStringSubmatch(s)[1]]
			if !ok {
				t.Errorf("%s: %q is no vector", path, s)
			}
			return example(v)
		})
		if n == 0 {
			t.Errorf("%s has no worked example", path)
		}
		if got := golden(t, path, func() []byte { return []byte(want) }); string(got) != want {
			t.Errorf("%s is stale; run go test ./token -update", path)
		}
	}
}

// TestSpecNamesEveryClaim: each member on the wire has a row on its page, and each
// problem that a page names exists.
func TestSpecNamesEveryClaim(t *testing.T) {
	t.Parallel()
	codes := map[string]bool{}
	for _, k := range problem.Table() {
		codes[string(k.Code)] = true
	}
	for page, values := range map[string][]any{
		"order":      {token.Order{}, token.Location{}, token.Filter{}, token.Limits{}},
		"capability": {token.Capability{}, token.Manifest{}, token.Item{}},
		"revocation": {token.Revocation{}, token.Revoked{}},
		"link":       {token.Link{}},
		"receipt":    {token.Receipt{}, token.Outcome{}},
	} {
		b, err := os.ReadFile("../docs/spec/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			typ := reflect.TypeOf(v)
			for i := range typ.NumField() {
				if row := "\n| `" + typ.Field(i).Tag.Get("json") + "` |"; !strings.Contains(string(b), row) {
					t.Errorf("%s.md has no row of %s.%s", page, typ.Name(), typ.Field(i).Name)
				}
			}
		}
		for _, m := range regexp.MustCompile("`((?:capability|order|link|clock|not|wrong|bad|unknown|too|foreign)-[a-z-]+)`").FindAllStringSubmatch(string(b), -1) {
			if !codes[m[1]] {
				t.Errorf("%s.md names the problem %q, which does not exist", page, m[1])
			}
		}
	}
}
