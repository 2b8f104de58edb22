package acl

// An Outcome is what a walk ends with. The zero value denies.
type Outcome uint8

const (
	Unmentioned      Outcome = iota // denied: the end of the list came before all was allowed
	Denied                          // denied by an entry
	Allowed                         // allowed by entries
	ForOwner                        // allowed to the owner of a root container where its list says nothing; to be recorded
	ForAdministrator                // the same, to an administrator
)

// Granted reports whether o lets somebody in.
func (o Outcome) Granted() bool { return o == Allowed || o.Recorded() }

// Recorded reports whether somebody was let in by what they are and not by any
// entry. The standard wants an event of it, so that whoever so changes a root
// container's list leaves a trace.
func (o Outcome) Recorded() bool { return o == ForOwner || o == ForAdministrator }

// A Place is where an entry stands: how many levels above what was asked for, and
// which of the entries there, both from 0.
type Place struct {
	Level, Entry int
}

// Nowhere is the place of no entry.
var nowhere = Place{-1, -1}

// A Decision is what Evaluate comes to.
type Decision struct {
	Outcome Outcome
	// Missing is why it is denied: what the entry at At denies of what was asked for,
	// or what no entry allowed. It is empty where access is granted by entries; where it is granted to
	// an owner or administrator it is what they have by that alone.
	Missing Mask
	// At is where the entry stands that decided: that denied, or allowed the last of
	// what was asked for. Its numbers are -1 if none did.
	At Place
	// Audited is what was asked for and has to be recorded, whatever the outcome. Every
	// AUDIT entry in force counts, also behind the one that decided.
	Audited Mask
}

// Granted reports whether access is granted.
func (d Decision) Granted() bool { return d.Outcome.Granted() }

// Evaluate decides whether p is granted all of want on t. It walks the logical list
// of t and unites what entries that refer to p allow; it ends with Allowed once that is all
// of want, and with Denied at the first entry that refers to p and denies any of want,
// also what was allowed before. At the end of the list access is denied, but for the owner of a root
// container and administrators there: ForOwner, ForAdministrator.
//
// An empty want asks for nothing and is Allowed unless t is nothing: never ask for it. It allocates nothing.
func Evaluate(p Principal, t Target, want Mask) Decision { return walk(&p, &t, want, nil) }

// walk is the one walk over a logical list. If steps is not nil it adds what
// it did with each entry.
func walk(p *Principal, t *Target, want Mask, steps *[]Step) Decision {
	if len(t.Path) == 0 {
		return Decision{Outcome: Unmentioned, Missing: want, At: nowhere}
	}
	d := Decision{Outcome: Unmentioned, Missing: want, At: nowhere}
	decided := want == 0
	if decided {
		d.Outcome = Allowed
	}
	for levels := range t.Path {
		entries := t.Path[levels].ACL.entries
		for i := range entries {
			e := &entries[i]
			verdict, bits := e.judge(p, t, levels, want)
			if decided && (verdict == Allows || verdict == Denies) {
				verdict, bits = Unread, 0
			}
			switch verdict {
			case Audits:
				d.Audited |= bits
			case Allows:
				bits &= d.Missing
				if d.Missing &^= bits; d.Missing == 0 {
					d.Outcome, d.At, decided = Allowed, Place{levels, i}, true
				}
			case Denies:
				d.Outcome, d.Missing, d.At, decided = Denied, bits, Place{levels, i}, true
			}
			if steps != nil {
				*steps = append(*steps, Step{Place{levels, i}, *e, verdict, bits})
			}
		}
	}
	if !decided && t.Root() {
		d.Outcome = p.atRoot(&t.Path[0])
	}
	return d
}

// judge says what e, levels above what is asked for, does for p, and with which bits of want.
func (e *ACE) judge(p *Principal, t *Target, levels int, want Mask) (Verdict, Mask) {
	switch bits := e.Mask & want; {
	case !e.inForce(levels, t.Kind):
		return Elsewhere, 0
	case !e.refersTo(p, &t.Path[0]):
		return Stranger, 0
	case bits == 0:
		return Silent, 0
	case e.Type == Audit:
		return Audits, bits
	case e.Type == Deny:
		return Denies, bits
	default:
		return Allows, bits
	}
}

// atRoot is the outcome for p of a walk that decided nothing at a root container.
func (p *Principal) atRoot(root *Level) Outcome {
	switch {
	case p.owns(root):
		return ForOwner
	case p.administrates():
		return ForAdministrator
	}
	return Unmentioned
}

// Permitted returns which permissions of among p would be granted on t, if each were
// asked for alone, and which of them by an Outcome that is to be recorded. It is one
// walk: of the entries that name a bit, the first that refers to p decides about it.
func Permitted(p Principal, t Target, among Mask) (granted, recorded Mask) {
	open := among
	for levels := range t.Path {
		entries := t.Path[levels].ACL.entries
		for i := range entries {
			switch verdict, bits := entries[i].judge(&p, &t, levels, open); verdict {
			case Allows:
				granted, open = granted|bits, open&^bits
			case Denies:
				open &^= bits
			}
		}
	}
	if t.Root() && p.atRoot(&t.Path[0]).Granted() {
		granted, recorded = granted|open, open
	}
	return granted, recorded
}
