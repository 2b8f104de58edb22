package check

import (
	"bytes"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

func textRules() []Rule {
	return []Rule{
		{"left-overs", leftOvers},
		{"outside names", outsideNames},
		{"decisions", decisions},
		{"dependencies", dependencies},
		{"links", links},
	}
}

// leftOver is written so that it does not find itself.
var leftOver = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)

// leftOvers forbids marks of unfinished work: what is missing is an issue.
func leftOvers(t *Tree) ([]Finding, int) {
	return t.grep(leftOver, "leaves work behind: finish it, or open an issue")
}

// outsideName matches what has a meaning on one machine or for one team alone:
// paths, hosts that serve modules or packages, pages that are not in the repository.
var outsideName = regexp.MustCompile(`(^|[^\w.~/-])/(wo` + `rk|ro` + `ot|Us` + `ers)/` +
	`|\.\./sha` + `red\b|\bhouse-st` + `yle\b|\bDES` + `IGN(\.md| section| \d)` +
	`|\bproxy\.gol` + `ang\.org|\bsum\.gol` + `ang\.org|\bgopr` + `oxy\.|\bartif` + `actory\b` +
	`|\bregistry\.npm` + `js\.org|\bpypi\.o` + `rg|\bdeb\.deb` + `ian\.org`)

// outsideNames forbids naming what is not part of the repository and cannot be
// found by who reads it.
func outsideNames(t *Tree) ([]Finding, int) {
	return t.grep(outsideName, "names a path, host or page outside of the repository")
}

// grep looks at every line of every text but checksums of modules.
func (t *Tree) grep(re *regexp.Regexp, what string) (found []Finding, looked int) {
	for _, f := range t.texts {
		if path.Base(f.path) == "go.sum" {
			continue
		}
		n := 0
		for line := range bytes.Lines(f.data) {
			n++
			looked++
			if m := re.Find(line); m != nil {
				found = append(found, Finding{fmt.Sprintf("%s:%d", f.path, n), fmt.Sprintf("%q %s", bytes.TrimSpace(m), what)})
			}
		}
	}
	return found, looked
}

var decisionName = regexp.MustCompile(`^docs/adr/(\d{4})-[a-z0-9-]+\.md$`)

// decisions demands that docs/adr is numbered from 0001 without a gap, and that
// each begins with a heading.
func decisions(t *Tree) (found []Finding, looked int) {
	for _, f := range t.texts {
		if path.Dir(f.path) != "docs/adr" {
			continue
		}
		m := decisionName.FindStringSubmatch(f.path)
		if m == nil {
			found = append(found, Finding{f.path, "must be called NNNN-what-was-decided.md"})
			continue
		}
		looked++ // texts are in the order of their names
		if n, _ := strconv.Atoi(m[1]); n != looked {
			found = append(found, Finding{f.path, fmt.Sprintf("is number %d of the decisions and should be %04d", n, looked)})
			looked = n
		}
		if !bytes.HasPrefix(f.data, []byte("# ")) {
			found = append(found, Finding{f.path, "must begin with a heading"})
		}
	}
	return found, looked
}

// dependencies demands that every direct requirement of the module is named, as
// code, on some page of docs/adr.
func dependencies(t *Tree) (found []Finding, looked int) {
	for _, r := range t.mods[0].Require {
		if r.Indirect {
			continue
		}
		looked++
		named := slices.ContainsFunc(t.texts, func(f text) bool {
			return decisionName.MatchString(f.path) && bytes.Contains(f.data, []byte("`"+r.Mod.Path+"`"))
		})
		if !named {
			found = append(found, Finding{"go.mod", r.Mod.Path + " is required and no page of docs/adr says why"})
		}
	}
	return found, looked
}

var (
	fence   = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	inline  = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(<?([^)\s>]+)>?(?:\s+"[^"]*")?\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *#*$`)
)

// links demands that every relative link of a page resolves, with its anchor.
func links(t *Tree) (found []Finding, looked int) {
	for _, f := range t.texts {
		if path.Ext(f.path) != ".md" || strings.Contains(f.path, "testdata/") {
			continue
		}
		prose := inline.ReplaceAll(fence.ReplaceAll(f.data, nil), nil)
		for _, m := range link.FindAllSubmatch(prose, -1) {
			u, err := url.Parse(string(m[1]))
			if err == nil && (u.Scheme != "" || u.Host != "") {
				continue
			}
			looked++
			if err != nil || !t.resolves(f, u) {
				found = append(found, Finding{f.path, fmt.Sprintf("links to %s, which is not there", m[1])})
			}
		}
	}
	return found, looked
}

// resolves reports whether u, on the page from, leads to a file or folder and,
// if it has a fragment, to a heading of that page.
func (t *Tree) resolves(from text, u *url.URL) bool {
	target := from.path
	if u.Path != "" {
		target = path.Join(path.Dir(from.path), u.Path)
	}
	if strings.HasPrefix(u.Path, "/") || !t.paths[target] {
		return false
	}
	if u.Fragment == "" || path.Ext(target) != ".md" {
		return true
	}
	i := slices.IndexFunc(t.texts, func(f text) bool { return f.path == target })
	return i >= 0 && slices.Contains(anchors(t.texts[i].data), u.Fragment)
}

// anchors returns the fragments by which the headings of a page are reached.
func anchors(page []byte) []string {
	var all []string
	times := make(map[string]int)
	for _, m := range heading.FindAllSubmatch(fence.ReplaceAll(page, nil), -1) {
		a := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-', r == '_', unicode.IsLetter(r), unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, string(m[1]))
		n := times[a]
		times[a]++
		if n > 0 {
			a += "-" + strconv.Itoa(n)
		}
		all = append(all, a)
	}
	return all
}
