package space

import (
	"slices"
	"strings"

	"github.com/consign-transfer/consign/token/problem"
)

// A Region is a country by its code of ISO 3166-1 ("DE"), or a part of one by
// its code of ISO 3166-2 ("DE-BY"). A country contains its parts. The empty Region is
// an unknown one.
type Region string

// countries are the codes of ISO 3166-1 that are assigned to countries.
const countries = " AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ" +
	" CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR" +
	" GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP" +
	" KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ" +
	" NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW" +
	" SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ" +
	" VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW "

// twins are parts of countries that ISO 3166 also lists as a country of its own, so that
// the same land has two codes: the part, and the code as a country.
var twins = map[Region]Region{
	"US-AS": "AS", "US-GU": "GU", "US-MP": "MP", "US-PR": "PR", "US-UM": "UM", "US-VI": "VI",
	"CN-HK": "HK", "CN-MO": "MO", "CN-TW": "TW",
	"FR-BL": "BL", "FR-GF": "GF", "FR-973": "GF", "FR-GP": "GP", "FR-971": "GP", "FR-MF": "MF", "FR-MQ": "MQ", "FR-972": "MQ", "FR-NC": "NC",
	"FR-PF": "PF", "FR-PM": "PM", "FR-RE": "RE", "FR-974": "RE", "FR-TF": "TF", "FR-WF": "WF", "FR-YT": "YT", "FR-976": "YT",
	"NL-AW": "AW", "NL-CW": "CW", "NL-SX": "SX", "NL-BQ1": "BQ", "NL-BQ2": "BQ", "NL-BQ3": "BQ",
	"NO-21": "SJ", "NO-22": "SJ", "FI-01": "AX",
}

// ParseRegion reads a code in upper case, or fails with problem.Malformed. The country must exist; of a part only the
// form is checked, one to three letters or digits.
func ParseRegion(s string) (Region, error) {
	country, part, parted := strings.Cut(s, "-")
	switch {
	case len(country) != 2 || !strings.Contains(countries, " "+country+" "):
		return "", problem.New(problem.Malformed, "The region %s is not a code of ISO 3166 such as \"DE\" or \"DE-BY\".", problem.Quote(s))
	case parted && (part == "" || len(part) > 3 || strings.Trim(part, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != ""):
		return "", problem.New(problem.Malformed, "The region %s is not a part of a country by a code of ISO 3166-2 such as \"DE-BY\".", problem.Quote(s))
	}
	return Region(s), nil
}

// Contains reports whether all of o is in r, by their codes.
func (r Region) Contains(o Region) bool {
	return r != "" && (r == o || strings.HasPrefix(string(o), string(r)+"-"))
}

// overlaps reports whether some of o may be in r. A store that is somewhere in a
// country may be in any part of it. Two codes of the same land overlap. Neither is unknown.
func (r Region) overlaps(o Region) bool {
	return r.Contains(o) || o.Contains(r) || twins[r] == o || twins[o] == r
}

// Agreed returns where a store is, if provider and agent say the same, and the unknown
// region if they do not or one of them says nothing.
func Agreed(provider, agent Region) Region {
	if provider != agent {
		return ""
	}
	return provider
}

// anywhere is the entry of a placement that permits every known region.
const anywhere = "*"

// A Placement says where an object may be kept: entries that are a Region, "*" for every
// region, or "!" and a Region that is excluded. The order of entries means
// nothing. An empty placement permits nothing.
type Placement []string

// ParsePlacement checks entries, or fails with problem.Malformed or problem.TooLarge. Exclusions
// alone would permit nothing, which is hardly what they are written for, and are refused.
func ParsePlacement(entries []string) (Placement, error) {
	if len(entries) > MaxRegions {
		return nil, problem.New(problem.TooLarge, "The placement has more than %d regions.", MaxRegions)
	}
	permits := len(entries) == 0
	for _, e := range entries {
		code, excluded := strings.CutPrefix(e, "!")
		switch {
		case e == anywhere:
		case code == anywhere:
			return nil, problem.New(problem.Malformed, "The placement excludes every region with \"!*\": write an empty list to permit none.")
		default:
			if _, err := ParseRegion(code); err != nil {
				return nil, err
			}
		}
		permits = permits || !excluded
	}
	if !permits {
		return nil, &problem.Error{
			Code:   problem.Malformed,
			Detail: "The placement has exclusions alone, which permit no region at all: add \"*\" to permit all others.",
			Remedy: "Add \"*\" to the list.",
		}
	}
	return append(Placement{}, entries...), nil
}

// Check reports why an object may not be kept at place: problem.PlacementRefused, or nil. An
// exclusion that may cover place always wins, wherever in the list it is. Else an
// entry that contains all of place permits it. An unknown place is never permitted.
func (p Placement) Check(place Region) error {
	if place == "" {
		return problem.New(problem.PlacementRefused, "The object may be kept in the regions %s alone, and where the store is, is not known.", p)
	}
	permitted := false
	for _, e := range p {
		if code, excluded := strings.CutPrefix(e, "!"); excluded && Region(code).overlaps(place) {
			return problem.New(problem.PlacementRefused, "The object may not be kept in %s, where the store is: its placement excludes %s.", problem.Quote(string(place)), problem.Quote(code))
		}
		permitted = permitted || e == anywhere || Region(e).Contains(place)
	}
	if !permitted {
		return problem.New(problem.PlacementRefused, "The object may be kept in the regions %s alone, and the store is in %s.", p, problem.Quote(string(place)))
	}
	return nil
}

// String returns the first entries of p, for sentences.
func (p Placement) String() string {
	const some = 8
	if len(p) == 0 {
		return "(none)"
	}
	if len(p) > some {
		return strings.Join(slices.Concat(p[:some], []string{"..."}), ", ")
	}
	return strings.Join(p, ", ")
}
