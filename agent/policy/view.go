package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// An Ask is who wants something of a container, at whose word.
type Ask struct {
	Container token.Container
	Broker    token.Identity
	Account   token.Identity // at the own provider
	Peer      token.Provider // the other one of a copy; empty where there is none
	Authority token.Authority
}

// A View is a container as one Ask may see it. It is good for as long as its Policy is.
type View struct {
	c   *container
	ask Ask
}

// Open returns what a may see, however little that is: problem.NoContainer if the container is not exported,
// problem.PolicyRefused if it is not exported to the broker, or not on the broker's word alone.
func (p *Policy) Open(a Ask) (View, error) {
	c := p.containers[a.Container]
	switch {
	case c == nil:
		return View{}, problem.New(problem.NoContainer, "The container %q is not exported by this agent of %s", a.Container, p.own)
	case len(c.Brokers) > 0 && !slices.Contains(c.Brokers, a.Broker):
		return View{}, problem.New(problem.PolicyRefused, "The container %q is not exported to the broker %s", a.Container, a.Broker)
	case a.Authority != token.ByOrder && !slices.Contains(c.Session, a.Broker):
		return View{}, problem.New(problem.PolicyRefused, "The container %q takes no order that its account did not sign on the word of the broker %s (session)", a.Container, a.Broker)
	}
	return View{c, a}, nil
}

// May returns the rule that lets the account do so at a name, which for List means all that is below the name; the empty name is the
// container. Otherwise it fails with problem.NotPermitted, or with problem.Hidden for a name at which the account may not
// even list though it has some right in the container, or with problem.PolicyRefused if the rules want another peer, or give this
// right to nobody.
func (v View) May(right Right, name token.ObjectName) (*Rule, error) {
	foreign := false
	for i := range v.c.rules {
		r := &v.c.rules[i]
		if !slices.Contains(r.May, right) || !below(name, r.Below) || !r.isFor(v.ask.Account) {
			continue
		}
		if r.with(right, v.ask.Peer) {
			return &r.Rule, nil
		}
		foreign = true
	}
	if foreign {
		return nil, v.foreign(right, name)
	}
	return nil, v.missing(right, name)
}

// MayDescribe reports whether the account may be told of one name. It fails as May does.
func (v View) MayDescribe(name token.ObjectName) error {
	if _, err := v.May(List, name); err == nil {
		return nil
	}
	_, err := v.May(Read, name)
	return err
}

// Item returns the rule under which the account may read or create an object of that name and size. It fails as May
// does, and with problem.PolicyRefused if the object is larger than the rule allows.
func (v View) Item(right Right, name token.ObjectName, size int64) (*Rule, error) {
	r, err := v.May(right, name)
	if err != nil {
		return nil, err
	}
	if most := r.Limits.Object; most > 0 && size > most {
		return nil, problem.New(problem.PolicyRefused, "The object has %d bytes, and the account %s may %s objects of at most %d below %s (max_object)",
			size, v.ask.Account, right, most, v.place(r.Below))
	}
	return r, nil
}

// Batch reports what a batch is refused for whole, of which right is ours: Read its items' sources or Create their destinations. It is nil;
// problem.PolicyRefused if what its rules allow of it is more than one of them allows at once; or, if not one of the items is allowed, what Item
// says of the first. Items that are not allowed beside others that are do not count.
func (v View) Batch(right Right, items []token.Item) error {
	var first error
	sums := map[*Rule]Limits{}
	for _, it := range items {
		name := it.Src
		if right == Create {
			name = it.Dst
		}
		r, err := v.Item(right, name, it.Size)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		sum := sums[r]
		sum.Items, sum.Bytes = sum.Items+1, sum.Bytes+it.Size
		sums[r] = sum
	}
	if len(items) > 0 && len(sums) == 0 {
		return first
	}
	for i := range v.c.rules {
		r := &v.c.rules[i].Rule
		sum := sums[r]
		switch l := r.Limits; {
		case l.Items > 0 && sum.Items > l.Items:
			return problem.New(problem.PolicyRefused, "The batch has %d items, and the account %s may %s at most %d at once below %s (max_batch_items)",
				sum.Items, v.ask.Account, right, l.Items, v.place(r.Below))
		case l.Bytes > 0 && sum.Bytes > l.Bytes:
			return problem.New(problem.PolicyRefused, "The batch has %d bytes, and the account %s may %s at most %d at once below %s (max_batch_bytes)",
				sum.Bytes, v.ask.Account, right, l.Bytes, v.place(r.Below))
		}
	}
	return nil
}

// foreign is the refusal where only the peer is wrong.
func (v View) foreign(right Right, name token.ObjectName) error {
	if right == Create {
		return problem.New(problem.PolicyRefused, "The account %s may not create objects that come from %s below %s (from)", v.ask.Account, v.ask.Peer, v.place(parent(name)))
	}
	return problem.New(problem.PolicyRefused, "The account %s may not have objects below %s read by %s (to)", v.ask.Account, v.place(parent(name)), v.ask.Peer)
}

// missing is the refusal where a right is.
func (v View) missing(right Right, name token.ObjectName) error {
	anybody, own, seen := false, false, false
	for i := range v.c.rules {
		r := &v.c.rules[i]
		anybody = anybody || slices.Contains(r.May, right)
		if r.isFor(v.ask.Account) {
			own = true
			seen = seen || slices.Contains(r.May, List) && below(name, r.Below)
		}
	}
	doing, place := "read objects", v.place(parent(name))
	switch right {
	case Create:
		doing = "create objects"
	case List:
		doing, place = "list names", v.place(name)
	case Erase:
		doing = "erase objects"
	case Read:
	}
	switch {
	case !anybody:
		verb := map[Right]string{Read: "read from", Create: "create in", List: "list", Erase: "erase in"}[right]
		return problem.New(problem.PolicyRefused, "The container %q is not exported to %s", v.c.Name, verb)
	case own && !seen && right != Create:
		return problem.New(problem.Hidden, "There is nothing below %s, or the account %s may not see it", place, v.ask.Account)
	}
	return problem.New(problem.NotPermitted, "The account %s may not %s below %s (needs %s)", v.ask.Account, doing, place, right)
}

// place names a place in the container for people.
func (v View) place(name token.ObjectName) string {
	if name == "" {
		return fmt.Sprintf("%q", v.c.Name)
	}
	return fmt.Sprintf("%q", string(v.c.Name)+"/"+string(name))
}

// parent is the name without its last segment.
func parent(name token.ObjectName) token.ObjectName {
	i := strings.LastIndexByte(string(name), '/')
	return name[:max(i, 0)]
}
