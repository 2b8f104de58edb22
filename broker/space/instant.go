package space

import (
	"strings"
	"time"

	"github.com/consign-transfer/consign/token/problem"
)

// instantForm is the only form of an instant: six decimals, UTC.
const instantForm = "2006-01-02T15:04:05.000000Z"

// FormatTime returns t in the form of CDMI, YYYY-MM-DDThh:mm:ss.ssssssZ in UTC. What is below a
// microsecond is dropped. The year must be 0 to 9999.
func FormatTime(t time.Time) string { return t.UTC().Format(instantForm) }

// ParseTime reads what FormatTime writes and nothing else, or fails with problem.Malformed. There is no 24:00 and no second 60.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(instantForm, s)
	if err != nil || FormatTime(t) != s {
		return time.Time{}, problem.New(problem.Malformed, "The time %s is not of the form YYYY-MM-DDThh:mm:ss.ssssssZ.", problem.Quote(s))
	}
	return t, nil
}

// An Interval is the time from Start to End, both of them included. The zero value is no time at all.
type Interval struct {
	Start, End time.Time
}

// ParseInterval reads two instants between '/', of which the second is not before the first, or fails with problem.Malformed.
func ParseInterval(s string) (Interval, error) {
	from, to, ok := strings.Cut(s, "/")
	if !ok {
		return Interval{}, problem.New(problem.Malformed, "The interval %s is not of the form start/end.", problem.Quote(s))
	}
	start, err := ParseTime(from)
	if err != nil {
		return Interval{}, err
	}
	end, err := ParseTime(to)
	if err != nil {
		return Interval{}, err
	}
	if end.Before(start) {
		return Interval{}, problem.New(problem.Malformed, "The interval %s ends before it begins.", problem.Quote(s))
	}
	return Interval{start, end}, nil
}

// String returns v in the form that ParseInterval reads.
func (v Interval) String() string { return FormatTime(v.Start) + "/" + FormatTime(v.End) }

// Contains reports whether t is in v.
func (v Interval) Contains(t time.Time) bool {
	return v != (Interval{}) && !t.Before(v.Start) && !t.After(v.End)
}
