package space_test

import (
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

func TestTimes(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]time.Time{
		"2026-11-26T11:03:12.000000Z": time.Date(2026, 11, 26, 11, 3, 12, 0, time.UTC),
		"1970-01-01T00:00:00.000001Z": time.Unix(0, 1000),
		"2024-02-29T23:59:59.999999Z": time.Date(2024, 2, 29, 23, 59, 59, 999999000, time.UTC),
		"0000-01-01T00:00:00.000000Z": time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC),
		"9999-12-31T23:59:59.999999Z": time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC),
	} {
		got, err := space.ParseTime(s)
		if err != nil || !got.Equal(want) || got.Location() != time.UTC || space.FormatTime(got) != s {
			t.Errorf("%s: got %v, %v", s, got, err)
		}
	}
	east := time.Date(2026, 1, 1, 1, 0, 0, 1999, time.FixedZone("", 3600))
	if got := space.FormatTime(east); got != "2026-01-01T00:00:00.000001Z" {
		t.Errorf("got %s, want UTC in microseconds", got)
	}
	for _, s := range []string{
		"", "2026-11-26", "2026-11-26T11:03:12Z", "2026-11-26T11:03:12.00000Z", "2026-11-26T11:03:12.0000000Z", "2026-11-26T11:03:12,000000Z",
		"2026-11-26 11:03:12.000000Z", "2026-11-26T11:03:12.000000z", "2026-11-26T11:03:12.000000+00:00", "2026-11-26T11:03:12.000000",
		"2026-11-26T24:00:00.000000Z", "2026-11-26T23:59:60.000000Z", "2026-02-29T00:00:00.000000Z", "2026-13-01T00:00:00.000000Z",
		"02026-11-26T11:03:12.000000Z", " 2026-11-26T11:03:12.000000Z", "2026-11-26T1:03:12.000000Z",
	} {
		got, err := space.ParseTime(s)
		refused(t, err, problem.Malformed, "YYYY-MM-DDThh:mm:ss.ssssssZ")
		if !got.IsZero() {
			t.Errorf("%q: got %v with an error", s, got)
		}
	}
}

func TestIntervals(t *testing.T) {
	t.Parallel()
	const start, end = "2026-01-01T00:00:00.000000Z", "2027-01-01T00:00:00.000000Z"
	v, err := space.ParseInterval(start + "/" + end)
	if err != nil || v.String() != start+"/"+end || !v.Start.Equal(at(t, start)) || !v.End.Equal(at(t, end)) {
		t.Fatalf("got %v, %v", v, err)
	}
	for s, want := range map[string]bool{
		start: true, end: true, "2026-06-01T00:00:00.000000Z": true,
		"2025-12-31T23:59:59.999999Z": false, "2027-01-01T00:00:00.000001Z": false,
	} {
		if got := v.Contains(at(t, s)); got != want {
			t.Errorf("%s: got %v, want %v", s, got, want)
		}
	}
	if (space.Interval{}).Contains(time.Time{}) {
		t.Error("no time at all contains a time")
	}
	if _, err := space.ParseInterval(start + "/" + start); err != nil {
		t.Errorf("an instant: got %v", err)
	}
	for s, word := range map[string]string{
		"": "start/end", start: "start/end", end + "/" + start: "before it begins", start + "/": "form", "/" + end: "form",
		start + "/" + end + "/" + end: "form", start + "/P1Y": "form", start + "--" + end: "start/end",
	} {
		got, err := space.ParseInterval(s)
		refused(t, err, problem.Malformed, word)
		if got != (space.Interval{}) {
			t.Errorf("%q: got %v with an error", s, got)
		}
	}
}
