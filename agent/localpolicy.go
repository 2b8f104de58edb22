package agent

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/consign-transfer/consign/agent/policy"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A rulebook is local policy as it is at one moment, with what paces each rule. It is replaced whole.
type rulebook struct {
	*policy.Policy
	containers []policy.Container // that it was made of
	groups     policy.Groups

	in, out map[*policy.Rule]*rate.Limiter // of rules that have a rate
}

// Rights is the policy of the export. Read, Create and Subscribers are one rule.
func (e Export) Rights() policy.Container {
	c := policy.Container{Name: e.Container, Rules: e.Rules, Brokers: e.Brokers, Session: e.Session}
	if len(e.Rules) > 0 {
		return c
	}
	var r policy.Rule
	if e.Read {
		r.May = append(r.May, policy.Read, policy.List)
	}
	if e.Create {
		r.May = append(r.May, policy.Create)
	}
	for _, s := range e.Subscribers {
		r.Who = append(r.Who, policy.Who(s))
	}
	if len(e.Subscribers) == 0 {
		r.Who = []policy.Who{policy.Everyone}
	}
	c.Rules = []policy.Rule{r}
	return c
}

// Creates reports whether anybody may create in the container, so that its store is probed and swept.
func (e Export) Creates() bool {
	return slices.ContainsFunc(e.Rights().Rules, func(r policy.Rule) bool { return slices.Contains(r.May, policy.Create) })
}

// newRulebook checks the policy of all exports and makes it ready.
func newRulebook(own token.Provider, exports []Export, groups policy.Groups) (*rulebook, error) {
	cs := make([]policy.Container, len(exports))
	for i, e := range exports {
		cs[i] = e.Rights()
	}
	p, err := policy.New(own, cs, groups)
	if err != nil {
		return nil, err
	}
	book := &rulebook{Policy: p, containers: cs, groups: groups, in: map[*policy.Rule]*rate.Limiter{}, out: map[*policy.Rule]*rate.Limiter{}}
	p.Rules(func(_ token.Container, r *policy.Rule) {
		if r.Limits.Rate > 0 {
			book.in[r], book.out[r] = newLimiter(r.Limits.Rate), newLimiter(r.Limits.Rate)
		}
	})
	return book, nil
}

// SetPolicy replaces what the exports allow, and to whom: for every task that comes from now on, and for every want of the batches under way.
// What has arrived whole is still published. exports must name the containers of the Config; their Store and
// Unsafe are not looked at. It fails with problem.BadConfig, and then nothing changes.
func (a *Agent) SetPolicy(exports []Export, groups policy.Groups) error {
	for _, e := range exports {
		old := a.exportOf(e.Container)
		switch {
		case old == nil:
			return problem.New(problem.BadConfig, "The container %q is new, and is exported when the agent is started again", e.Container)
		case e.Creates() && !old.Creates():
			return problem.New(problem.BadConfig, "The store of the container %q was not measured at start; start the agent again to let objects be created in it", e.Container)
		}
		if err := e.checkPolicy(a.conf.Brokers); err != nil {
			return err
		}
	}
	if len(exports) != len(a.conf.Exports) {
		return problem.New(problem.BadConfig, "The agent exports %d containers, and the new policy is of %d", len(a.conf.Exports), len(exports))
	}
	book, err := newRulebook(a.self.Provider(), exports, groups)
	if err != nil {
		return err
	}
	if now := a.rules.Load(); reflect.DeepEqual(now.containers, book.containers) && reflect.DeepEqual(now.groups, book.groups) {
		return nil // and what paces the rules goes on
	}
	before := a.rules.Swap(book)
	a.log.Info("local policy replaced", zap.Int("exports", len(exports)), zap.Int("groups", len(groups)))
	for _, s := range a.sessions {
		if !sameOffers(a.conf.Exports, before.Policy, book.Policy, s.id()) {
			s.greetAgain()
		}
	}
	return nil
}

// sameOffers reports whether a broker has been told of all that the exports are to it now.
func sameOffers(exports []Export, before, now *policy.Policy, broker token.Identity) bool {
	for _, e := range exports {
		was, had := before.Offer(e.Container, broker)
		is, has := now.Offer(e.Container, broker)
		if was != is || had != has {
			return false
		}
	}
	return true
}

// exportOf returns the export of a container; nil if there is none.
func (a *Agent) exportOf(c token.Container) *Export {
	i := slices.IndexFunc(a.conf.Exports, func(e Export) bool { return e.Container == c })
	if i < 0 {
		return nil
	}
	return &a.conf.Exports[i]
}

// export returns the export that w is about, and what local policy lets its account do there at the word of the broker iss.
func (a *Agent) export(iss token.Identity, w will, do token.Verb) (*Export, policy.View, error) {
	ask := w.ask(iss, do)
	view, err := a.rules.Load().Open(ask)
	if err != nil {
		return nil, policy.View{}, err
	}
	e := a.exportOf(ask.Container)
	if e == nil { // a policy is of exports
		return nil, policy.View{}, problem.New(problem.NoContainer, "The container %q is not exported here", ask.Container)
	}
	return e, view, nil
}

// ask is what the order comes to for local policy on our side of it, which is the destination's if do is Create or Erase.
func (w will) ask(iss token.Identity, do token.Verb) policy.Ask {
	here, there := w.From, w.To
	if do == token.Create || do == token.Erase {
		here, there = there, here
	}
	return policy.Ask{Container: here.Container, Broker: iss, Account: w.account, Peer: there.Provider, Authority: w.authority}
}

// obey applies local policy as it is now to the items that have not arrived, unless it is the one that was applied last, and reports
// whether it was not. What it does not allow is denied.
func (r *receiver) obey() bool {
	book := r.a.rules.Load()
	r.rmu.Lock()
	same := r.book == book
	r.rmu.Unlock()
	if same {
		return false
	}
	view, err := book.Open(r.will.ask(r.key.iss, token.Create))
	if err != nil {
		r.endAll(err)
	}
	for i, it := range r.man.Items {
		if err != nil {
			break
		}
		rule, denied := view.Item(policy.Create, it.Dst, it.Size)
		r.rmu.Lock()
		p := &r.pieces[i]
		p.limiter = book.in[rule]
		waits := p.at != done && p.at != held
		r.rmu.Unlock()
		if denied != nil && waits {
			r.end(i, denied)
		}
	}
	r.rmu.Lock()
	r.book = book // only now: whoever finds it here goes on
	r.rmu.Unlock()
	return true
}

// pace waits until so many bytes of each item may be received: by order and task, by our configuration, and by the rule that lets the item in.
func (r *receiver) pace(ctx context.Context, need map[int]int64) error {
	total, ruled := int64(0), map[*rate.Limiter]int64{}
	r.rmu.Lock()
	for i, n := range need {
		total += n
		if l := r.pieces[i].limiter; l != nil {
			ruled[l] += n
		}
	}
	r.rmu.Unlock()
	own := r.limiters()
	for _, l := range append(own[:], r.a.receiving) {
		if l != nil {
			ruled[l] += total
		}
	}
	for l, n := range ruled {
		for n > 0 {
			piece := min(n, int64(l.Burst()))
			if err := l.WaitN(ctx, int(piece)); err != nil {
				return errors.Join(ctx.Err(), err)
			}
			n -= piece
		}
	}
	return nil
}

// permit returns what paces item i on its way out, if local policy lets it be read now: at every want, not only when the batch came. What it
// does not allow is remembered as the item's outcome.
func (s *server) permit(i int) (*rate.Limiter, error) {
	book, it := s.a.rules.Load(), s.man.Items[i]
	view, err := book.Open(s.will.ask(s.key.iss, token.Read))
	if err != nil {
		return nil, s.deny(i, err)
	}
	rule, err := view.Item(policy.Read, it.Src, it.Size)
	if err != nil {
		return nil, s.deny(i, err)
	}
	return book.out[rule], nil
}

// deny remembers that local policy does not let an item be read, and returns why.
func (s *server) deny(i int, err error) error {
	s.smu.Lock()
	defer s.smu.Unlock()
	s.offers[i].fault = err
	return err
}

// pace waits until n more bytes may be sent: by order and task, by the rule of their item, which may have none, and by our configuration. A
// peer is not kept waiting for longer than it would think us dead: problem.Overloaded, and it asks again later.
func (s *server) pace(ctx context.Context, ruled *rate.Limiter, n int64) error {
	now, wait := time.Now(), time.Duration(0)
	var taken []*rate.Reservation
	own := s.limiters()
	for _, l := range append(own[:], ruled, s.a.sending) {
		if l == nil || n == 0 {
			continue
		}
		r := l.ReserveN(now, int(n))
		taken = append(taken, r)
		wait = max(wait, r.DelayFrom(now))
	}
	switch {
	case wait == 0:
		return nil
	case wait > s.a.patience()/3:
		for _, r := range taken {
			r.CancelAt(now)
		}
		return problem.New(problem.Overloaded, "The source sends as much as its rate allows")
	}
	if err := s.a.sleep(ctx, wait); err != nil {
		return fmt.Errorf("waiting for the rate: %w", err)
	}
	return nil
}
