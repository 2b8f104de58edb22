package acl

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// A Verdict is what a walk did with one entry.
type Verdict uint8

const (
	Elsewhere Verdict = iota // it is not in force for what was asked for
	Stranger                 // it does not refer to who asked
	Silent                   // it names nothing of what was asked for
	Allows
	Denies
	Audits
	Unread // the decision was made before
)

// A Step is one entry that a walk came by.
type Step struct {
	At      Place
	ACE     ACE // as it stands there
	Verdict Verdict
	Bits    Mask // what it newly allowed, denied or audits of what was asked for
}

// An Explanation is a walk, entry by entry, and what it came to.
type Explanation struct {
	Principal Principal
	Target    Target
	Want      Mask
	Steps     []Step // every entry of every level, in the order of the walk
	Decision  Decision
}

// Explain decides what Evaluate decides, and says how.
func Explain(p Principal, t Target, want Mask) Explanation {
	e := Explanation{Principal: p, Target: t, Want: want}
	e.Decision = walk(&p, &t, want, &e.Steps)
	return e
}

// Sentence says what the walk came to and which entry decided. names are those of
// the target and of the containers above it, as Path has them; a level without a
// name is called by its distance.
func (e Explanation) Sentence(names ...string) string {
	d, who, what := e.Decision, e.Principal.shown(), level(names, 0)
	missing := d.Missing.Text(e.Target.Kind)
	switch d.Outcome {
	case Denied:
		return fmt.Sprintf("%s does not get %s on %s: entry %d of %s denies it.", who, missing, what, d.At.Entry+1, level(names, d.At.Level))
	case Allowed:
		if d.At == nowhere {
			return fmt.Sprintf("%s asked for nothing on %s.", who, what)
		}
		return fmt.Sprintf("%s gets %s on %s: entry %d of %s allows the last of it.",
			who, e.Want.Text(e.Target.Kind), what, d.At.Entry+1, level(names, d.At.Level))
	case ForOwner:
		return fmt.Sprintf("%s gets %s on %s as the owner of a root container: no entry allows %s.", who, e.Want.Text(e.Target.Kind), what, missing)
	case ForAdministrator:
		return fmt.Sprintf("%s gets %s on %s as an administrator at a root container: no entry allows %s.", who, e.Want.Text(e.Target.Kind), what, missing)
	}
	return fmt.Sprintf("%s does not get %s on %s: no entry allows it.", who, missing, what)
}

// Text is the walk for people: who asks for what, a line an entry with what became of
// it, and the sentence. names are as Sentence has them. What is not plain is quoted, so that it
// cannot write to a terminal.
func (e Explanation) Text(names ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s asks for %s on %s\n", e.Principal.shown(), e.Want.Text(e.Target.Kind), level(names, 0))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, s := range e.Steps {
		fmt.Fprintf(w, "  %s\t%d\t%s\t%s\t%s\t%s\t%s\n", level(names, s.At.Level), s.At.Entry+1,
			s.ACE.Type, s.ACE.Who.shown(), s.ACE.Flags, s.ACE.Mask.Text(e.kindAt(s.At.Level)), e.reason(s))
	}
	w.Flush() //nolint:errcheck // a strings.Builder does not fail
	b.WriteString(e.Sentence(names...) + "\n")
	if e.Decision.Audited != 0 {
		fmt.Fprintf(&b, "The attempt at %s is to be recorded.\n", e.Decision.Audited.Text(e.Target.Kind))
	}
	return b.String()
}

// kindAt returns what the level is by whose names its entries are shown.
func (e *Explanation) kindAt(levels int) Kind {
	if levels > 0 {
		return Container
	}
	return e.Target.Kind
}

func (e *Explanation) reason(s Step) string {
	bits := s.Bits.Text(e.Target.Kind)
	switch s.Verdict {
	case Stranger:
		return "not for " + e.Principal.shown()
	case Silent:
		return "names nothing of it"
	case Allows:
		if s.Bits == 0 {
			return "allows what is allowed already"
		}
		return "allows " + bits
	case Denies:
		return "denies " + bits
	case Audits:
		return "audits " + bits
	case Unread:
		return "not read: already decided"
	}
	switch flags := s.ACE.Flags; {
	case flags&Inherited != 0:
		return "marked as inherited, but stands here: no effect"
	case s.At.Level == 0:
		return "only to be inherited"
	case s.At.Level > 1 && flags&NoPropagate != 0 && flags&(ObjectInherit|ContainerInherit) != 0:
		return "inherited by direct children alone"
	}
	return fmt.Sprintf("not inherited by %ss", e.Target.Kind)
}

func level(names []string, levels int) string {
	switch {
	case levels < len(names) && names[levels] != "":
		return Who(names[levels]).shown()
	case levels == 0:
		return "itself"
	case levels == 1:
		return "its parent"
	}
	return fmt.Sprintf("%d levels up", levels)
}

func (p *Principal) shown() string {
	if p.Name == "" {
		return "somebody anonymous"
	}
	return p.Name.shown()
}
