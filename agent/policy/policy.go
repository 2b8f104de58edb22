// Package policy is the operator's word on an agent's containers: who may read,
// list, create and erase below which names, with which providers, at the word of which
// brokers, and how much at once.
//
// It guarantees that what no rule allows is refused. The first rule that fits the
// account, the right, the name and the peer decides, and its limits bind. Names are
// compared by segment: a rule below "a/b" is for "a/b" and "a/b/c", and not for "a/bc".
// Every refusal is a *problem.Error that names the account, what it may not do and the place, and
// is the same whether or not an object exists there.
//
// It does no I/O, reads no clock and starts no goroutine. A Policy is immutable
// and may be used by several goroutines; whoever reloads makes a new one.
package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Limits of a policy. Counts.
const (
	MaxRules   = 256     // of one container
	MaxWho     = 1024    // subscribers and groups of one rule
	MaxGroups  = 1024    // of one agent
	MaxMembers = 100_000 // of all groups of one agent
)

// A Right is what a rule lets somebody do.
type Right string

// The rights. To describe one object by its name, either List or Read is enough.
const (
	Read   Right = "read"   // read objects
	Create Right = "create" // create objects and containers; never replace
	List   Right = "list"   // see names, sizes and versions
	Erase  Right = "erase"  // erase objects, and containers in which nothing is; only rules give it
)

// A Who says whom a rule is for: the identity of a subscriber of the own provider, GroupPrefix and the name of a
// group, or Everyone.
type Who string

// Everyone is every subscriber of the own provider.
const Everyone Who = "*"

// GroupPrefix begins a Who that names a group.
const GroupPrefix = "group:"

// Groups are the members of each group: subscribers of the own provider.
type Groups map[string][]token.Identity

// A Rule lets some accounts do something below a name.
type Rule struct {
	Who   []Who
	May   []Right
	Below token.ObjectName // the name itself and all below it; empty is the whole container
	// From are the providers whose objects may be created here, To those that objects may be read to. Empty is any. They do not bind
	// what is told to the account itself: listings and descriptions that are no part of a copy.
	From, To []token.Provider
	Limits   Limits
}

// Limits bound what a rule allows; zero is no limit.
type Limits struct {
	Object int64 // bytes of one object
	Bytes  int64 // total size of the items of one batch
	Items  int64 // items of one batch
	Rate   int64 // bytes a second, of all batches under the rule, each way
}

// A Container is the policy of one container.
type Container struct {
	Name  token.Container
	Rules []Rule
	// Brokers may ask for it. Empty is every broker that the agent listens to.
	Brokers []token.Identity
	// Session are the brokers on whose word alone, without an order signed by the account, the rules apply. Empty is none.
	Session []token.Identity
}

// A Policy is the policy of one agent. Make it with New; the zero Policy allows nothing.
type Policy struct {
	own        token.Provider
	containers map[token.Container]*container
}

// A container is a Container made ready to be asked.
type container struct {
	Container
	rules []rule
}

// A rule is a Rule with its groups resolved.
type rule struct {
	Rule
	everyone token.Provider // whose subscribers the rule is for, each of them; empty if it is not
	who      map[token.Identity]bool
	groups   []map[token.Identity]bool
}

// New checks containers and groups of an agent of the provider own and returns the policy, or
// problem.BadConfig naming what is wrong.
func New(own token.Provider, containers []Container, groups Groups) (*Policy, error) {
	members, err := resolve(own, groups)
	if err != nil {
		return nil, err
	}
	p := &Policy{own: own, containers: make(map[token.Container]*container, len(containers))}
	for _, c := range containers {
		if _, twice := p.containers[c.Name]; twice {
			return nil, problem.New(problem.BadConfig, "The container %q is exported twice", c.Name)
		}
		if len(c.Rules) > MaxRules {
			return nil, problem.New(problem.BadConfig, "The container %q has %d rules and may have %d", c.Name, len(c.Rules), MaxRules)
		}
		ready := &container{Container: c, rules: make([]rule, len(c.Rules))}
		for i, r := range c.Rules {
			if ready.rules[i], err = compile(own, r, members); err != nil {
				return nil, problem.Wrap(err, problem.BadConfig, "Rule %d of the container %q: %s", i+1, c.Name, problem.As(err).Sentence())
			}
		}
		p.containers[c.Name] = ready
	}
	return p, nil
}

// resolve checks groups and returns them as sets.
func resolve(own token.Provider, groups Groups) (map[string]map[token.Identity]bool, error) {
	if len(groups) > MaxGroups {
		return nil, problem.New(problem.BadConfig, "There are %d groups, and there may be %d", len(groups), MaxGroups)
	}
	total := 0
	sets := make(map[string]map[token.Identity]bool, len(groups))
	for name, ids := range groups {
		if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return nil, problem.New(problem.BadConfig, "%q cannot be the name of a group", name)
		}
		if total += len(ids); total > MaxMembers {
			return nil, problem.New(problem.BadConfig, "The groups have more than %d members", MaxMembers)
		}
		set := make(map[token.Identity]bool, len(ids))
		for _, id := range ids {
			if err := checkSubscriber(own, id); err != nil {
				return nil, problem.Wrap(err, problem.BadConfig, "The group %q: %s", name, problem.As(err).Sentence())
			}
			set[id] = true
		}
		sets[name] = set
	}
	return sets, nil
}

func checkSubscriber(own token.Provider, id token.Identity) error {
	if got, err := token.ParseIdentity(string(id)); err != nil || got.Role() != token.Subscriber || got.Provider() != own {
		return problem.New(problem.BadConfig, "%q is not a subscriber of %s", id, own)
	}
	return nil
}

func compile(own token.Provider, r Rule, groups map[string]map[token.Identity]bool) (rule, error) {
	out := rule{Rule: r, who: map[token.Identity]bool{}}
	switch {
	case len(r.Who) == 0:
		return rule{}, problem.New(problem.BadConfig, "It is for nobody; name subscribers, groups or %q (who)", Everyone)
	case len(r.Who) > MaxWho:
		return rule{}, problem.New(problem.BadConfig, "It is for more than %d subscribers and groups; make a group of them", MaxWho)
	case len(r.May) == 0:
		return rule{}, problem.New(problem.BadConfig, "It allows nothing; name %s, %s, %s or %s (may)", Read, Create, List, Erase)
	}
	for _, w := range r.Who {
		name, isGroup := strings.CutPrefix(string(w), GroupPrefix)
		switch set, known := groups[name]; {
		case w == Everyone:
			out.everyone = own
		case isGroup && !known:
			return rule{}, problem.New(problem.BadConfig, "There is no group %q", name)
		case isGroup:
			out.groups = append(out.groups, set)
		default:
			if err := checkSubscriber(own, token.Identity(w)); err != nil {
				return rule{}, err
			}
			out.who[token.Identity(w)] = true
		}
	}
	for _, m := range r.May {
		if m != Read && m != Create && m != List && m != Erase {
			return rule{}, problem.New(problem.BadConfig, "%q is not a right; there are %s, %s, %s and %s", m, Read, Create, List, Erase)
		}
	}
	return out, r.check()
}

// check reports what is wrong with the name, the providers and the limits of r.
func (r Rule) check() error {
	if r.Below != "" {
		if err := token.CheckName(r.Below); err != nil {
			return err
		}
	}
	for _, p := range slices.Concat(r.From, r.To) {
		if id, err := token.ParseIdentity(string(token.NewIdentity(p, token.Agent, "a"))); err != nil || id.Provider() != p {
			return problem.New(problem.BadConfig, "%q is not the name of a provider", p)
		}
	}
	l := r.Limits
	switch {
	case len(r.From) > 0 && !slices.Contains(r.May, Create):
		return problem.New(problem.BadConfig, "It says from where objects come (from) and does not allow to create")
	case len(r.To) > 0 && !slices.Contains(r.May, Read):
		return problem.New(problem.BadConfig, "It says where objects go (to) and does not allow to read")
	case min(l.Object, l.Bytes, l.Items, l.Rate) < 0:
		return problem.New(problem.BadConfig, "A limit is negative")
	case l != (Limits{}) && !slices.Contains(r.May, Create) && !slices.Contains(r.May, Read):
		return problem.New(problem.BadConfig, "It limits objects and allows neither to read nor to create them")
	}
	return nil
}

// isFor reports whether the rule names the account.
func (r *rule) isFor(account token.Identity) bool {
	if r.everyone != "" && account.Provider() == r.everyone || r.who[account] {
		return true
	}
	return slices.ContainsFunc(r.groups, func(set map[token.Identity]bool) bool { return set[account] })
}

// with reports whether the rule lets objects be exchanged with the peer for this right.
func (r *rule) with(right Right, peer token.Provider) bool {
	named := r.To
	switch right {
	case Create:
		named = r.From
	case List, Erase:
		return true
	case Read:
	}
	return len(named) == 0 || peer == "" || slices.Contains(named, peer)
}

// below reports whether name is root or below it.
func below(name, root token.ObjectName) bool {
	return root == "" || name == root || strings.HasPrefix(string(name), string(root)+"/")
}

// An Offer is what a container comes to for a broker, whoever orders: no account has more, and some may have less.
type Offer struct {
	Read, Create bool  // objects may be read or listed; may be created
	Erase        bool  // objects, and empty containers, may be erased
	Session      bool  // also without an order signed by the account
	Items, Bytes int64 // of a batch that is refused for its size by no rule; 0 is no limit
}

// Offer returns what the container is to a broker, and false if it is nothing.
func (p *Policy) Offer(c token.Container, broker token.Identity) (Offer, bool) {
	k := p.containers[c]
	if k == nil || len(k.Brokers) > 0 && !slices.Contains(k.Brokers, broker) {
		return Offer{}, false
	}
	o := Offer{Session: slices.Contains(k.Session, broker)}
	for _, r := range k.rules {
		o.Read = o.Read || slices.Contains(r.May, Read) || slices.Contains(r.May, List)
		o.Create = o.Create || slices.Contains(r.May, Create)
		o.Erase = o.Erase || slices.Contains(r.May, Erase)
		o.Items, o.Bytes = least(o.Items, r.Limits.Items), least(o.Bytes, r.Limits.Bytes)
	}
	return o, o.Read || o.Create || o.Erase
}

// least is the lower of two limits of which 0 is none.
func least(a, b int64) int64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// Rules calls fn with every rule of every container. The pointers are those that View returns, and good keys.
func (p *Policy) Rules(fn func(token.Container, *Rule)) {
	for name, c := range p.containers {
		for i := range c.rules {
			fn(name, &c.rules[i].Rule)
		}
	}
}

// String says the rule in words.
func (r Rule) String() string {
	var b strings.Builder
	b.WriteString(list(r.Who) + " may " + list(r.May))
	if r.Below != "" {
		fmt.Fprintf(&b, " below %q", string(r.Below))
	}
	if len(r.From) > 0 {
		b.WriteString(" from " + list(r.From))
	}
	if len(r.To) > 0 {
		b.WriteString(" to " + list(r.To))
	}
	for _, l := range []struct {
		n    int64
		what string
	}{{r.Limits.Object, "bytes an object"}, {r.Limits.Bytes, "bytes a batch"}, {r.Limits.Items, "items a batch"}, {r.Limits.Rate, "bytes a second"}} {
		if l.n > 0 {
			fmt.Fprintf(&b, ", at most %d %s", l.n, l.what)
		}
	}
	return b.String()
}

func list[T ~string](words []T) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = string(w)
	}
	return strings.Join(out, ", ")
}
