package token

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/consign-transfer/consign/token/problem"
	"golang.org/x/text/unicode/norm"
)

// The two values of Filter.Do.
const (
	Include = "include"
	Exclude = "exclude"
)

// Check reports why f is not a filter: nil, problem.TooLarge or problem.Malformed.
// The characters [ ] { } and backslash are refused, because other tools give
// them a meaning that is not ours.
func (f Filter) Check() error {
	body := strings.TrimPrefix(f.Match, "/")
	switch {
	case f.Do != Include && f.Do != Exclude:
		return problem.New(problem.Malformed, "A filter does %s, not include or exclude.", problem.Quote(f.Do))
	case len(f.Match) > MaxFilterSize:
		return problem.New(problem.TooLarge, "The filter %s is longer than %d bytes.", problem.Quote(f.Match), MaxFilterSize)
	case body == "" || strings.HasPrefix(body, "/") || strings.HasSuffix(body, "/") || strings.Contains(body, "//"):
		return problem.New(problem.Malformed, "The filter %s has an empty segment, which no name has.", problem.Quote(f.Match))
	case strings.Contains(body, "***"):
		return problem.New(problem.Malformed, "The filter %s has more than two '*' in a row.", problem.Quote(f.Match))
	case strings.ContainsAny(body, `[]{}\`):
		return problem.New(problem.Malformed, "The filter %s has one of the characters []{}\\, which have no meaning here; write ? for them.", problem.Quote(f.Match))
	case !utf8.ValidString(body) || strings.ContainsFunc(body, unicode.IsControl) || !norm.NFC.IsNormalString(body):
		return problem.New(problem.Malformed, "The filter %s is not UTF-8 in normal form C without control characters.", problem.Quote(f.Match))
	}
	return nil
}

// included evaluates filters in order: the first that matches decides, and what
// none matches is included.
func included(filters []Filter, name string) bool {
	for _, f := range filters {
		if f.matches(name) {
			return f.Do == Include
		}
	}
	return true
}

// Matches reports whether a name, relative to where f is of, is one that f is for, whatever f does with it. f must be good, see Check.
func (f Filter) Matches(name ObjectName) bool { return f.matches(string(name)) }

// matches reports whether name, which is relative to the source root, matches the
// pattern: as a whole if the pattern begins with '/'; else its last segment if the
// pattern has no '/'; else any of its tails that begin at a segment.
func (f Filter) matches(name string) bool {
	pattern, anchored := strings.CutPrefix(f.Match, "/")
	if anchored {
		return glob(pattern, name, atStart)
	}
	if !strings.Contains(pattern, "/") {
		return glob(pattern, name[strings.LastIndexByte(name, '/')+1:], atStart)
	}
	return glob(pattern, name, atSegments)
}

// anchor says where in a name a match may begin. It always ends at the end.
type anchor int

const (
	atStart    anchor = iota // at the first byte
	atSegments               // there, and after every '/'
)

// The kinds of element of a pattern, which stand for themselves in []rune.
const (
	anyRune  = -1 // ?: one rune but '/'
	anyRunes = -2 // *: runes but '/'
	anyPath  = -3 // **: runes
)

func elements(pattern string) []rune {
	var out []rune
	for i, r := range pattern {
		switch {
		case r == '*' && i > 0 && pattern[i-1] == '*':
			out[len(out)-1] = anyPath
		case r == '*':
			out = append(out, anyRunes)
		case r == '?':
			out = append(out, anyRune)
		default:
			out = append(out, r)
		}
	}
	return out
}

// glob walks all positions in the pattern at once, so that its time is the
// product of both lengths at worst, whatever the pattern.
func glob(pattern, name string, from anchor) bool {
	el := elements(pattern)
	now, next := make([]bool, len(el)+1), make([]bool, len(el)+1)
	enter(el, now, 0)
	for _, r := range name {
		clear(next)
		live := false
		for i, e := range el {
			if !now[i] {
				continue
			}
			switch {
			case e == anyPath || e == anyRunes && r != '/':
				enter(el, next, i)
				live = true
			case e == r || e == anyRune && r != '/':
				enter(el, next, i+1)
				live = true
			}
		}
		if from == atSegments && r == '/' {
			enter(el, next, 0)
			live = true
		}
		if !live && from == atStart {
			return false
		}
		now, next = next, now
	}
	return now[len(el)]
}

// enter marks position i, and those behind the stars that may match nothing.
func enter(el []rune, set []bool, i int) {
	for ; !set[i]; i++ {
		set[i] = true
		if i == len(el) || el[i] != anyRunes && el[i] != anyPath {
			return
		}
	}
}
