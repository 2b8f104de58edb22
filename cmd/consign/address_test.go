package main

import (
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestRoots is the table of what 'consign cp --help' says.
func TestRoots(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from, to  string
		recursive bool
		src, dst  string
	}{
		{"n:/c/a/x", "s:/d/y", false, "n:/c/a/x", "s:/d/y"},
		{"n:/c/a/x", "s:/d/", false, "n:/c/a/x", "s:/d/x"},
		{"n:/c/a/x", "s:/d", false, "n:/c/a/x", "s:/d/x"},
		{"n:/c/a/x", "s:/d/old/", false, "n:/c/a/x", "s:/d/old/x"},
		{"n:/c/a", "s:/d/", true, "n:/c/a", "s:/d/a"},
		{"n:/c/a/", "s:/d/", true, "n:/c/a", "s:/d/a"},
		{"n:/c/x/a", "s:/d/old/", true, "n:/c/x/a", "s:/d/old/a"},
		{"n:/c/a", "s:/d/b", true, "n:/c/a", "s:/d/b"},
		{"n:/c/", "s:/d/", true, "n:/c/", "s:/d/"},
		{"n:/c", "s:/d/b", true, "n:/c/", "s:/d/b"},
		{"n:/c/", "s:/d/b/", true, "n:/c/", "s:/d/b"},
		{"n:/c/a/x", "n:/c/b/", false, "n:/c/a/x", "n:/c/b/x"},
	} {
		o, err := cpOptions{recursive: c.recursive, ifExists: "fail"}.copyOrder(c.from, c.to)
		if err != nil {
			t.Errorf("cp %v %s %s: %v", c.recursive, c.from, c.to, err)
			continue
		}
		if got := o.From.String(); got != c.src {
			t.Errorf("cp %v %s %s: source: got %s, want %s", c.recursive, c.from, c.to, got, c.src)
		}
		if got := o.To.String(); got != c.dst {
			t.Errorf("cp %v %s %s: destination: got %s, want %s", c.recursive, c.from, c.to, got, c.dst)
		}
	}
}

func TestCopyRefusesBadInput(t *testing.T) {
	t.Parallel()
	good := cpOptions{ifExists: "fail"}
	for name, c := range map[string]struct {
		opt      cpOptions
		from, to string
		code     problem.Code
		says     string
	}{
		"local source":          {good, "./x", "s:/d/", problem.BadAddress, "path of this machine"},
		"local destination":     {good, "n:/c/x", "/tmp/x", problem.BadAddress, "path of this machine"},
		"no slash":              {good, "n:c/x", "s:/d/", problem.BadAddress, "no '/' after the provider"},
		"url":                   {good, "s3://bucket/x", "s:/d/", problem.BadAddress, `URL of the scheme "s3"`},
		"no container":          {good, "n:/", "s:/d/", problem.BadAddress, "names no container"},
		"dot dot":               {good, "n:/c/../x", "s:/d/", problem.BadName, `".."`},
		"control characters":    {good, "n:/c/a\nb", "s:/d/", problem.BadName, ""},
		"2,000 bytes":           {good, "n:/c/" + strings.Repeat("a", 2000), "s:/d/", problem.BadName, ""},
		"too long when joined":  {good, "n:/c/" + strings.Repeat("a", 600), "s:/d/" + strings.Repeat("b", 600) + "/", problem.BadName, ""},
		"bad provider":          {good, "North:/c/x", "s:/d/", problem.BadName, ""},
		"container without -r":  {good, "n:/c/", "s:/d/", problem.Usage, "not one object"},
		"onto itself":           {good, "n:/c/x", "n:/c/x", problem.Usage, "are the same"},
		"bad if-exists":         {cpOptions{ifExists: "replace"}, "n:/c/x", "s:/d/", problem.Usage, "fail, skip or verify"},
		"digest with -r":        {cpOptions{recursive: true, digest: "x", ifExists: "fail"}, "n:/c/x", "s:/d/", problem.Usage, "one object"},
		"bad digest":            {cpOptions{digest: "md5:00", ifExists: "fail"}, "n:/c/x", "s:/d/", problem.Usage, "--digest"},
		"filter without -r":     {cpOptions{filters: []token.Filter{{Do: token.Include, Match: "x"}}, ifExists: "fail"}, "n:/c/x", "s:/d/", problem.Usage, "for -r"},
		"rate that is no size":  {cpOptions{limit: "fast", ifExists: "fail"}, "n:/c/x", "s:/d/", problem.Usage, "not a size"},
		"an escape in the name": {good, "n:/c/\x1b[2J", "s:/d/", problem.BadName, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := c.opt.copyOrder(c.from, c.to)
			if problem.Of(err) != c.code {
				t.Fatalf("code: got %q (%v), want %q", problem.Of(err), err, c.code)
			}
			p := problem.As(err)
			if !strings.Contains(p.Sentence(), c.says) {
				t.Errorf("sentence: got %q, want it to hold %q", p.Sentence(), c.says)
			}
			if p.Advice() == "" {
				t.Error("there is no remedy")
			}
			if strings.ContainsAny(p.Sentence(), "\n\x1b") {
				t.Errorf("the sentence %q writes to the screen", p.Sentence())
			}
		})
	}
}

// TestFiltersKeepTheirOrder checks that filters are those of the command line in its order, and
// that an include excludes the rest.
func TestFiltersKeepTheirOrder(t *testing.T) {
	t.Parallel()
	var opt cpOptions
	for _, f := range []token.Filter{{Do: token.Exclude, Match: "a"}, {Do: token.Include, Match: "b"}, {Do: token.Exclude, Match: "c"}} {
		flag := filterFlag{do: f.Do, opt: &opt}
		if err := flag.Set(f.Match); err != nil {
			t.Fatal(err)
		}
	}
	got := opt.ordered()
	want := []token.Filter{{Do: "exclude", Match: "a"}, {Do: "include", Match: "b"}, {Do: "exclude", Match: "c"}, {Do: "exclude", Match: "**"}}
	if len(got) != len(want) {
		t.Fatalf("filters: got %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("filter %d: got %v, want %v", i, got[i], want[i])
		}
	}
	only := cpOptions{filters: want[:1]}
	if got := only.ordered(); len(got) != 1 {
		t.Errorf("without an include: got %v, want only the exclude", got)
	}
}
