package space

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/consign-transfer/consign/token"
)

// An Assurance says how it is known what of a wish is true.
type Assurance string

// The assurances. Only the first two are ever shown as a value.
const (
	Measured  Assurance = "measured" // from what was looked at, as a hash of the bytes that were stored
	Attested  Assurance = "attested" // said by everybody whose business it is, and looked at by nobody
	Uncertain Assurance = "unknown"  // neither; it may be true or not
)

// uncertain is the Plain form of what is not known: a string that is no value of any item.
const uncertain Value = `"unknown"`

// A Provision is what of one wish is true, as far as anybody knows.
type Provision struct {
	Value    Value     // as the wish would say it; empty if Kind is Uncertain
	Kind     Assurance // how it is known
	By       []string  // who says so: agents, and providers by their names
	At       time.Time // when the last of them said so; zero if Kind is Uncertain
	Evidence string    // a sentence: what it rests on, or why it is not known
}

// Plain returns the form of a CDMI item: the value, and "unknown" where there is none. The standard wants a true statement, and
// every other value would be a guess.
func (p Provision) Plain() Value {
	if p.Kind == Uncertain {
		return uncertain
	}
	return p.Value
}

// Provided returns the item that says what of the wish i is true, or the empty one if the standard has none.
func (i Item) Provided() Item {
	if r := ruleOf(i); r == nil || !r.provided {
		return ""
	}
	return i + provided
}

// Facts are what is known of how an object or container is kept. What is not known is zero.
type Facts struct {
	Provider token.Provider
	Place    Region    // where the provider says that the store is
	PlacedAt time.Time // when it said so
	Words    []Word    // of every agent that exports the container; empty: there is none
	Hash     Hashed    // of an object
}

// A Word is what one agent says of what it has in its care.
type Word struct {
	Agent  token.Identity
	At     time.Time // when it said so
	Place  Region    // where the store is
	Acked  time.Time // when it had made durable what is in force of retention, autodelete and holds; zero: it has not said so
	Erases bool      // its operator lets the broker have something erased that is due
	Wipes  []string  // the sanitization methods that its store truly does
	Limits bool      // it keeps to a throughput that a task names
}

// A Hashed is a hash that an agent computed of the very bytes that it stored.
type Hashed struct {
	Kind  ValueHash // empty: none
	Agent token.Identity
	At    time.Time // of its receipt
	Leaf  int64     // of that
}

// Provide returns what of each wish is true of something for which s is in force: of every wish in s, and of whatever else is
// known. The names are those of wishes, see Item.Provided. It is never more than f says: where somebody whose business it is has
// not spoken, or two say different things, it is Uncertain.
func Provide(s Settings, f Facts) map[Item]Provision {
	out := map[Item]Provision{}
	for _, r := range table {
		if !r.provided {
			continue
		}
		p := Provision{Kind: Uncertain, Evidence: "Nothing measures this, and nobody attests it."}
		switch r.item {
		case GeographicPlacement:
			p = f.placement()
		case RetentionPeriod, HoldID:
			p = f.kept(s, r)
		case RetentionAutodelete:
			p = f.autodelete(s, r)
		case Hash:
			p = f.hash()
		case Throughput:
			p = f.all(r.write(&s), "keep to it as a ceiling when they send", "keep to a ceiling of throughput", func(w Word) (time.Time, bool) { return w.At, w.Limits })
		case SanitizationMethod:
			p = f.all(r.write(&s), "say that their store does it", "wipe by "+s.Sanitization, func(w Word) (time.Time, bool) { return w.At, slices.Contains(w.Wipes, s.Sanitization) })
		}
		wished := s.Has(r.item)
		if wished || p.Kind != Uncertain && (r.item == GeographicPlacement || r.item == Hash) {
			out[r.item] = p
		}
	}
	return out
}

func unknownBecause(format string, args ...any) Provision {
	return Provision{Kind: Uncertain, Evidence: fmt.Sprintf(format, args...)}
}

// all is a value that every agent attests by a time that said returns. does and what end the sentences.
func (f Facts) all(v Value, does, what string, said func(Word) (time.Time, bool)) Provision {
	if len(f.Words) == 0 {
		return unknownBecause("No agent of %s exports the container and could attest it.", f.Provider)
	}
	p := Provision{Value: v, Kind: Attested}
	for _, w := range f.Words {
		at, ok := said(w)
		if !ok || at.IsZero() {
			return unknownBecause("The agent %s has not said that it would %s.", w.Agent, what)
		}
		p.say(string(w.Agent), at)
	}
	p.Evidence = "The agents of the store " + does + ": " + strings.Join(p.By, ", ") + "."
	return p
}

// say adds somebody to those who attest p.
func (p *Provision) say(who string, at time.Time) {
	p.By = append(p.By, who)
	if at.After(p.At) {
		p.At = at
	}
}

// kept is what the agents have made durable, and look at before they erase anything.
func (f Facts) kept(s Settings, r rule) Provision {
	return f.all(r.write(&s), "have made it durable, and look at it before they erase anything", "keep to it", func(w Word) (time.Time, bool) { return w.Acked, !w.Acked.IsZero() })
}

// autodelete is true only where somebody can erase what is due.
func (f Facts) autodelete(s Settings, r rule) Provision {
	p := f.kept(s, r)
	if p.Kind == Uncertain || !s.Autodelete {
		return p
	}
	for _, w := range f.Words {
		if !w.Erases {
			return unknownBecause("The local policy of the agent %s lets nothing be erased on the broker's word.", w.Agent)
		}
	}
	return p
}

// placement is where the store is, if provider and all agents say the same.
func (f Facts) placement() Provision {
	switch {
	case f.Place == "":
		return unknownBecause("The provider %s has not said where the store is.", f.Provider)
	case len(f.Words) == 0:
		return unknownBecause("The provider %s says %s, and no agent of it exports the container and could agree.", f.Provider, f.Place)
	}
	p := Provision{Value: writeStrings([]string{string(f.Place)}), Kind: Attested}
	p.say(string(f.Provider), f.PlacedAt)
	for _, w := range f.Words {
		if Agreed(f.Place, w.Place) == "" {
			if w.Place == "" {
				return unknownBecause("The provider %s says %s, and the agent %s has not said where the store is.", f.Provider, f.Place, w.Agent)
			}
			return unknownBecause("The provider %s says %s, and the agent %s says %s.", f.Provider, f.Place, w.Agent, w.Place)
		}
		p.say(string(w.Agent), w.At)
	}
	p.Evidence = fmt.Sprintf("The provider and the agents of the store say the same: %s.", strings.Join(p.By, ", "))
	return p
}

// hash is the algorithm of the hash that was computed of the bytes as they were stored.
func (f Facts) hash() Provision {
	if f.Hash.Kind == "" {
		return unknownBecause("No receipt has a hash of the value beside its digest.")
	}
	return Provision{
		Value: stringValue(string(f.Hash.Kind)), Kind: Measured, By: []string{string(f.Hash.Agent)}, At: f.Hash.At,
		Evidence: fmt.Sprintf("The receipt in leaf %d of the ledger has the hash, computed of the bytes as they were stored.", f.Hash.Leaf),
	}
}
