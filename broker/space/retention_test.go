package space_test

import (
	"testing"

	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	start = "2026-01-01T00:00:00.000000Z"
	end   = "2027-01-01T00:00:00.000000Z"
	later = "2028-01-01T00:00:00.000000Z"

	before = "2025-06-01T00:00:00.000000Z"
	during = "2026-06-01T00:00:00.000000Z"
	after  = "2027-01-01T00:00:00.000001Z"

	kept = `"cdmi_retention_period":"` + start + "/" + end + `"`
	held = `"cdmi_hold_id":["case 7"]`
)

// TestRetentionAndHolds: when an object may be changed or erased at all.
func TestRetentionAndHolds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, json, now string
		code            problem.Code
		word            string
	}{
		{"nothing", `{}`, during, "", ""},
		{"a mark is no retention", `{"cdmi_retention_id":"x","cdmi_retention_autodelete":"true"}`, during, "", ""},
		{"before its start", `{` + kept + `}`, before, "", ""},
		{"at its start", `{` + kept + `}`, start, problem.UnderRetention, end},
		{"during", `{` + kept + `}`, during, problem.UnderRetention, end},
		{"at its end", `{` + kept + `}`, end, problem.UnderRetention, end},
		{"after its end", `{` + kept + `}`, after, "", ""},
		{"no hold", `{"cdmi_hold_id":[]}`, during, "", ""},
		{"a hold", `{` + held + `}`, during, problem.OnHold, `"case 7"`},
		{"a hold beats a retention that is over", `{` + held + `,` + kept + `}`, after, problem.OnHold, `"case 7"`},
		{"a hold is named first", `{` + held + `,` + kept + `}`, during, problem.OnHold, `"case 7"`},
		{"many holds", `{"cdmi_hold_id":["a","b","c","d"]}`, during, problem.OnHold, `"a", "b", "c", ...`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := settings(t, tc.json).CheckFree(at(t, tc.now))
			if tc.code == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			refused(t, err, tc.code, tc.word)
		})
	}
}

// TestChangesOfSettings: what may be changed of an object that is kept or held, and what not.
func TestChangesOfSettings(t *testing.T) {
	t.Parallel()
	period := func(from, to string) string { return `{"cdmi_retention_period":"` + from + "/" + to + `"}` }
	for _, tc := range []struct {
		name, was, will, now string
		code                 problem.Code
		word                 string
	}{
		{"free", `{"cdmi_RPO":"1"}`, `{"cdmi_RTO":"1"}`, during, "", ""},
		{"nothing changes under a hold", `{` + held + `,"cdmi_RPO":"1"}`, `{` + held + `,"cdmi_RPO":"1"}`, during, "", ""},
		{"retention begins", `{}`, period(start, end), during, "", ""},
		{"hold begins", `{}`, `{` + held + `}`, during, "", ""},

		{"the end moves later", period(start, end), period(start, later), during, "", ""},
		{"the end moves earlier", period(start, later), period(start, end), during, problem.UnderRetention, "only move later"},
		{"the end moves earlier, before the start", period(start, later), period(start, end), before, problem.UnderRetention, "only move later"},
		{"the start moves", period(start, end), period(before, end), during, problem.UnderRetention, "start"},
		{"the start moves, and the end later", period(start, end), period(during, later), during, problem.UnderRetention, "start"},
		{"taken away", period(start, end), `{}`, during, problem.UnderRetention, "taken away"},
		{"taken away before its start", period(start, end), `{}`, before, problem.UnderRetention, "taken away"},
		{"taken away at its end", period(start, end), `{}`, end, problem.UnderRetention, "taken away"},
		{"taken away after its end", period(start, end), `{}`, after, "", ""},
		{"another after its end", period(start, end), period(during, later), after, "", ""},
		{"another item during", `{` + kept + `}`, `{` + kept + `,"cdmi_RPO":"1"}`, during, problem.UnderRetention, end},
		{"another item, changed during", `{` + kept + `,"cdmi_RPO":"2"}`, `{` + kept + `,"cdmi_RPO":"1"}`, during, problem.UnderRetention, end},
		{"another item, taken away during", `{` + kept + `,"cdmi_RPO":"2"}`, `{` + kept + `}`, during, problem.UnderRetention, end},
		{"another item before its start", `{` + kept + `}`, `{` + kept + `,"cdmi_RPO":"1"}`, before, "", ""},
		{"another item after its end", `{` + kept + `}`, `{` + kept + `,"cdmi_RPO":"1"}`, after, "", ""},
		{"autodelete during", `{` + kept + `}`, `{` + kept + `,"cdmi_retention_autodelete":"true"}`, during, problem.UnderRetention, end},
		{"a hold during", `{` + kept + `}`, `{` + kept + `,` + held + `}`, during, "", ""},

		{"a hold more", `{` + held + `}`, `{"cdmi_hold_id":["x","case 7"]}`, during, "", ""},
		{"a hold taken away", `{` + held + `}`, `{}`, during, problem.OnHold, `"case 7"`},
		{"a hold emptied", `{` + held + `}`, `{"cdmi_hold_id":[]}`, during, problem.OnHold, `"case 7"`},
		{"a hold renamed", `{` + held + `}`, `{"cdmi_hold_id":["case 8"]}`, during, problem.OnHold, `"case 7"`},
		{"another item on hold", `{` + held + `}`, `{` + held + `,"cdmi_RPO":"1"}`, during, problem.OnHold, `"case 7"`},
		{"the end moves later on hold", `{` + held + `,` + kept + `}`, `{` + held + `,"cdmi_retention_period":"` + start + "/" + later + `"}`, during, "", ""},
		{"retention begins on hold", `{` + held + `}`, `{` + held + `,` + kept + `}`, during, problem.OnHold, `"case 7"`},
		{"retention taken away after its end, on hold", `{` + held + `,` + kept + `}`, `{` + held + `}`, after, problem.OnHold, `"case 7"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := space.CheckChange(settings(t, tc.was), settings(t, tc.will), at(t, tc.now))
			if tc.code == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			refused(t, err, tc.code, tc.word)
		})
	}
}

func TestAutodelete(t *testing.T) {
	t.Parallel()
	const auto = `"cdmi_retention_autodelete":"true"`
	for _, tc := range []struct {
		json, now string
		want      bool
	}{
		{`{` + kept + `,` + auto + `}`, after, true},
		{`{` + kept + `,` + auto + `}`, end, false},
		{`{` + kept + `,` + auto + `}`, before, false},
		{`{` + kept + `}`, after, false},
		{`{` + kept + `,"cdmi_retention_autodelete":"false"}`, after, false},
		{`{` + auto + `}`, after, false},
		{`{` + kept + `,` + auto + `,` + held + `}`, after, false},
		{`{` + kept + `,` + auto + `,"cdmi_hold_id":[]}`, after, true},
	} {
		s := settings(t, tc.json)
		if got := s.Due(at(t, tc.now)); got != tc.want {
			t.Errorf("%s at %s: got %v", tc.json, tc.now, got)
		}
		if tc.want && s.CheckFree(at(t, tc.now)) != nil {
			t.Errorf("%s at %s: due and not free", tc.json, tc.now)
		}
	}
}
