package space

import (
	"slices"
	"strings"
	"time"

	"github.com/consign-transfer/consign/token/problem"
)

// CheckFree reports why an object for which s is in force may at the time now neither be
// changed, its metadata included, nor erased: problem.OnHold, else problem.UnderRetention, or nil. A hold beats
// everything; it has no end, and to release it is no change of metadata. Retention is in force from
// its start to its end, both included.
func (s Settings) CheckFree(now time.Time) error {
	if len(s.Holds) > 0 {
		return problem.New(problem.OnHold, "The object is under the hold %s and can neither be changed nor erased.", holds(s.Holds))
	}
	if s.Retention.Contains(now) {
		return problem.New(problem.UnderRetention, "The object is under retention until %s and can neither be changed nor erased before.", FormatTime(s.Retention.End))
	}
	return nil
}

// CheckChange reports why, at the time now, what is in force for an object may not go from was to
// will. It says what CheckFree says if the object is not free; but a hold may be added and the end of
// retention may move later. No hold may be taken away: problem.OnHold. Until a retention has ended, it may not go,
// its start may not change and its end may not move earlier: problem.UnderRetention. Both are what
// is in force after inheritance, so that a change cannot get around what stands above.
func CheckChange(was, will Settings, now time.Time) error {
	for _, h := range was.Holds {
		if !slices.Contains(will.Holds, h) {
			return problem.New(problem.OnHold, "The hold %s cannot be taken away by a change of metadata.", problem.Quote(h))
		}
	}
	if err := checkRetention(was, will, now); err != nil {
		return err
	}
	for i, r := range table {
		if r.item == HoldID || r.item == RetentionPeriod && !was.ended(now) {
			continue // judged above
		}
		had, has := was.has>>i&1 == 1, will.has>>i&1 == 1
		if had == has && (!had || r.write(&was) == r.write(&will)) {
			continue
		}
		if err := was.CheckFree(now); err != nil {
			return err
		}
	}
	return nil
}

func checkRetention(was, will Settings, now time.Time) error {
	if was.ended(now) {
		return nil
	}
	end := FormatTime(was.Retention.End)
	switch {
	case !will.Has(RetentionPeriod):
		return problem.New(problem.UnderRetention, "The retention until %s cannot be taken away before it has ended.", end)
	case !will.Retention.Start.Equal(was.Retention.Start):
		return problem.New(problem.UnderRetention, "The start of a retention cannot be changed; that until %s began or begins at %s.", end, FormatTime(was.Retention.Start))
	case will.Retention.End.Before(was.Retention.End):
		return problem.New(problem.UnderRetention, "The end of a retention can only move later; it is %s.", end)
	}
	return nil
}

// ended reports whether s has no retention that is, or is still to come, at the time now.
func (s Settings) ended(now time.Time) bool {
	return !s.Has(RetentionPeriod) || now.After(s.Retention.End)
}

// Due reports whether an object for which s is in force is to be erased by itself at the
// time now: its retention has ended, RetentionAutodelete is set, and there is no hold.
func (s Settings) Due(now time.Time) bool {
	return s.Autodelete && s.Has(RetentionPeriod) && now.After(s.Retention.End) && len(s.Holds) == 0
}

// holds names the first of several holds, for sentences.
func holds(all []string) string {
	const some = 3
	named := make([]string, 0, some+1)
	for i, h := range all {
		if i == some {
			named = append(named, "...")
			break
		}
		named = append(named, problem.Quote(h))
	}
	return strings.Join(named, ", ")
}
