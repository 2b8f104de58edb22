package space_test

import (
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
	"golang.org/x/text/language"
)

// TestCountries compares our list with that of another maker, and names every difference.
func TestCountries(t *testing.T) {
	t.Parallel()
	// Codes that ISO 3166-1 has reserved, left to users or withdrawn.
	const others = " AC CP CQ DG EA EU EZ IC TA UN XK AN CS FQ NT PC SU YU "
	n := 0
	for a := 'A'; a <= 'Z'; a++ {
		for b := 'A'; b <= 'Z'; b++ {
			code := string(a) + string(b)
			_, err := space.ParseRegion(code)
			if err == nil {
				n++
			}
			r, known := language.ParseRegion(code)
			theirs := known == nil && r.IsCountry() && r.String() == code && r.Canonicalize() == r
			if theirs != (err == nil) && !strings.Contains(others, " "+code+" ") {
				t.Errorf("%s: ours %v, theirs %v", code, err == nil, theirs)
			}
			if err == nil && strings.Contains(others, " "+code+" ") {
				t.Errorf("%s is taken for a country", code)
			}
		}
	}
	if n != 249 {
		t.Errorf("got %d countries, want 249", n)
	}
}

func TestRegions(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"DE", "DE-BY", "US-CA", "FR-971", "GB-ENG", "NO-21", "FR-A"} {
		if r, err := space.ParseRegion(s); err != nil || string(r) != s {
			t.Errorf("%s: got %s, %v", s, r, err)
		}
	}
	for s, word := range map[string]string{
		"": "ISO 3166", "de": "ISO 3166", "DEU": "ISO 3166", "276": "ISO 3166", "XX": "ISO 3166", "EU": "ISO 3166", "Germany": "ISO 3166", "*": "ISO 3166", "!DE": "ISO 3166",
		" DE": "ISO 3166", "E ": "ISO 3166", "DE-": "ISO 3166-2", "DE-by": "ISO 3166-2", "DE-ABCD": "ISO 3166-2", "DE-B-Y": "ISO 3166-2", "DE_BY": "ISO 3166", "XX-YY": "ISO 3166",
	} {
		r, err := space.ParseRegion(s)
		refused(t, err, problem.Malformed, word)
		if r != "" {
			t.Errorf("%q: got %s with an error", s, r)
		}
	}
	for _, tc := range []struct {
		r, o space.Region
		want bool
	}{
		{"DE", "DE", true}, {"DE", "DE-BY", true}, {"DE-BY", "DE-BY", true}, {"DE-BY", "DE", false}, {"DE-BY", "DE-BE", false},
		{"DE-B", "DE-BY", false}, {"DE", "DK", false}, {"", "", false}, {"", "DE", false}, {"DE", "", false}, {"US", "PR", false}, {"US", "US-PR", true},
	} {
		if got := tc.r.Contains(tc.o); got != tc.want {
			t.Errorf("%q contains %q: got %v", tc.r, tc.o, got)
		}
	}
}

// TestPlacement: an exclusion always wins; a country contains its parts; what is unknown is never permitted.
func TestPlacement(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		entries string
		place   space.Region
		want    bool
		word    string
	}{
		{"a country", "DE", "DE", true, ""},
		{"a part of it", "DE", "DE-BY", true, ""},
		{"another", "DE FR", "US", false, `"US"`},
		{"one of several", "DE FR", "FR", true, ""},
		{"everywhere", "*", "JP", true, ""},
		{"everywhere is nowhere unknown", "*", "", false, "not known"},
		{"unknown", "DE", "", false, "not known"},
		{"nothing is permitted", "", "DE", false, "(none)"},
		{"excluded", "!US *", "US", false, `excludes "US"`},
		{"excluded by its country", "!US *", "US-CA", false, `excludes "US"`},
		{"not excluded", "!US *", "DE", true, ""},
		{"an exclusion at the end wins", "* !US", "US", false, `excludes "US"`},
		{"an exclusion in the middle wins", "US !US DE", "US", false, `excludes "US"`},
		{"a part excluded of what is permitted", "US !US-CA", "US-CA", false, `excludes "US-CA"`},
		{"another part", "US !US-CA", "US-NY", true, ""},
		{"a store somewhere in the country may be in the part", "US !US-CA", "US", false, `excludes "US-CA"`},
		{"a part is permitted, the store is somewhere in the country", "US-NY", "US", false, "alone"},
		{"a part is permitted in an excluded country", "!US US-NY", "US-NY", false, `excludes "US"`},
		{"two codes of one land", "!PR *", "US-PR", false, `excludes "PR"`},
		{"two codes of one land, the other way", "!US-PR *", "PR", false, `excludes "US-PR"`},
		{"a land of its own code is not its country's", "!US *", "PR", true, ""},
		{"many", strings.Repeat("DE ", 20), "US", false, "DE, DE, DE, DE, DE, DE, DE, DE, ... alone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p, err := space.ParsePlacement(strings.Fields(tc.entries))
			if err != nil {
				t.Fatal(err)
			}
			err = p.Check(tc.place)
			if tc.want {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			refused(t, err, problem.PlacementRefused, tc.word)
		})
	}
	refused(t, space.Placement(nil).Check("DE"), problem.PlacementRefused)
}

func TestPlacementsThatAreRefused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		entries []string
		code    problem.Code
		word    string
	}{
		{[]string{"!US"}, problem.Malformed, `add "*"`},
		{[]string{"!US", "!CN"}, problem.Malformed, `add "*"`},
		{[]string{"!*"}, problem.Malformed, "empty list"},
		{[]string{"*", "!*"}, problem.Malformed, "empty list"},
		{[]string{"us"}, problem.Malformed, "ISO 3166"},
		{[]string{"!us", "*"}, problem.Malformed, "ISO 3166"},
		{[]string{"!!US", "*"}, problem.Malformed, "ISO 3166"},
		{[]string{"! US", "*"}, problem.Malformed, "ISO 3166"},
		{[]string{""}, problem.Malformed, "ISO 3166"},
		{[]string{"!", "*"}, problem.Malformed, "ISO 3166"},
		{make([]string, space.MaxRegions+1), problem.TooLarge, "300"},
	} {
		p, err := space.ParsePlacement(tc.entries)
		refused(t, err, tc.code, tc.word)
		if p != nil {
			t.Errorf("got %v with an error", p)
		}
	}
}

// TestPlaceOfAStore: provider and agent both say it, or it is unknown.
func TestPlaceOfAStore(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ provider, agent, want space.Region }{
		{"DE", "DE", "DE"}, {"DE", "FR", ""}, {"DE", "DE-BY", ""}, {"DE", "", ""}, {"", "DE", ""}, {"", "", ""},
	} {
		if got := space.Agreed(tc.provider, tc.agent); got != tc.want {
			t.Errorf("%q and %q: got %q, want %q", tc.provider, tc.agent, got, tc.want)
		}
	}
}
