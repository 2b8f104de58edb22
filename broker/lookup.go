package broker

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Bounds of the lookups that are waited for at once: of all, and of one caller, so that nobody takes every place.
const (
	maxLookups   = 256
	maxLookupsBy = 32
)

// A lookup is one that somebody waits for. It is in memory alone.
type lookup struct {
	by    token.Identity
	agent token.Identity
	task  *api.Task
	pages chan api.TaskPage // holds one
	done  chan struct{}     // closed when nobody waits any more
	limit int
	got   int // entries taken; the agent's calls come one after another
}

// Lookup has a list, stat, make or erase order carried out by an agent while the caller waits, as far as the namespace lets its
// account. Nothing of the result is kept but the row of a container that was made, and what was erased. problem.AgentAbsent names the provider if no agent of it is connected, and
// problem.Timeout if the agent did not answer.
func (b *Broker) Lookup(ctx context.Context, peer certs.Peer, l api.Lookup, now time.Time) (api.LookupResult, error) {
	v, err := b.verifyOrder(ctx, peer, l.Order, now)
	if err == nil {
		l.Order, err = b.vouched(l.Order)
	}
	if err != nil {
		return api.LookupResult{}, b.deny(peer.Identity, err)
	}
	if v.Claims.Do == token.Erase {
		return b.eraseOrdered(ctx, peer, v, l.Order, now)
	}
	task, at, err := lookupTask(v.Claims, l)
	if err != nil {
		return api.LookupResult{}, b.deny(peer.Identity, err)
	}
	var trail tree.Trail
	if err := b.lookupRights(ctx, v.Claims, &trail, now); err != nil {
		return api.LookupResult{}, b.deny(peer.Identity, b.keepTrail(ctx, &trail, err, now))
	}
	agent, err := b.lookupAgent(ctx, v.Claims, at, authorityOf(l.Order))
	if err != nil {
		return api.LookupResult{}, b.deny(peer.Identity, b.keepTrail(ctx, &trail, err, now))
	}
	if err := b.noteLookup(ctx, peer, v, l.Order, trail, now); err != nil {
		return api.LookupResult{}, b.keepTrail(ctx, &trail, err, now)
	}
	waits, cancel := context.WithTimeout(ctx, b.conf.LookupWait)
	defer cancel()
	r, err := b.ask(waits, newLookup(peer.Identity, agent, task), v.Claims.Do == token.List)
	if err != nil {
		return api.LookupResult{}, err
	}
	return b.looked(ctx, v.Claims, r, now)
}

func newLookup(by, agent token.Identity, task *api.Task) *lookup {
	return &lookup{by: by, agent: agent, task: task, pages: make(chan api.TaskPage, 1), done: make(chan struct{}), limit: max(int(task.Limit), 1)}
}

// ask gives the task of k to its agent and waits for the answer until ctx ends.
func (b *Broker) ask(ctx context.Context, k *lookup, listing bool) (api.LookupResult, error) {
	b.mu.Lock()
	own := 0
	for _, other := range b.lookups {
		if other.by == k.by {
			own++
		}
	}
	full := len(b.lookups) >= maxLookups || own >= maxLookupsBy
	if !full {
		b.lookups[k.task.ID] = k
	}
	b.mu.Unlock()
	if full {
		return api.LookupResult{}, problem.New(problem.Overloaded, "Too many lookups are waited for at once")
	}
	defer func() {
		close(k.done)
		b.mu.Lock()
		delete(b.lookups, k.task.ID)
		b.mu.Unlock()
	}()
	b.post(k.agent, outgoing{task: k.task})
	return k.gather(ctx, listing)
}

// gather collects pages until the last.
func (k *lookup) gather(ctx context.Context, listing bool) (api.LookupResult, error) {
	r := api.LookupResult{Entries: []api.Entry{}}
	for {
		select {
		case <-ctx.Done():
			return api.LookupResult{}, problem.New(problem.Timeout, "The agent %s did not answer in time", k.agent)
		case p := <-k.pages:
			if p.Problem != nil {
				return api.LookupResult{}, &problem.Error{Code: p.Problem.Code, Detail: clip(p.Problem.Detail)}
			}
			r.Entries = append(r.Entries, p.Entries...)
			if len(r.Entries) >= k.limit {
				r.Entries = r.Entries[:k.limit]
				if listing {
					r.Next = k.behind(r.Entries[k.limit-1])
				}
				return r, nil
			}
			if p.Last {
				return r, nil
			}
		}
	}
}

// behind is where a listing goes on. Behind a subtree of which only the name was told, that is behind everything in it: not every store lists
// what is in "a" before "a-b".
func (k *lookup) behind(e api.Entry) token.ObjectName {
	if k.task.Level && e.Type == "container" {
		return e.Name + "/\U0010FFFF"
	}
	return e.Name
}

// lookupTask spells the task of an order, and where it is to be done.
func lookupTask(o token.Order, l api.Lookup) (*api.Task, token.Location, error) {
	t := &api.Task{ID: uuid.NewString(), Order: l.Order, Limit: 1}
	t.Order.Claims = nil // the word is enough
	switch o.Do {
	case token.List:
		if l.Limit < 0 || l.Limit > api.MaxPage {
			return nil, o.From, problem.New(problem.TooLarge, "A lookup is of at most %d entries", api.MaxPage)
		}
		t.Kind, t.After, t.Level, t.Limit = api.ListTask, l.After, l.Level, int64(l.Limit)
		if l.Limit == 0 {
			t.Limit = api.MaxPage
		}
		if n := o.Limits.Items; n > 0 {
			t.Limit = min(t.Limit, n)
		}
		return t, o.From, nil
	case token.Stat:
		t.Kind, t.Names = api.StatTask, []token.ObjectName{o.From.Name}
		return t, o.From, nil
	case token.Make:
		t.Kind, t.Names = api.MakeTask, []token.ObjectName{o.To.Name}
		return t, o.To, nil
	case token.Erase:
		t.Kind = api.EraseTask
		return t, o.To, nil
	}
	return nil, o.From, problem.New(problem.WrongStatement, "An order to %s is not a lookup; submit it as a transfer", o.Do)
}

// lookupAgent returns the connected agent that is to do it.
func (b *Broker) lookupAgent(ctx context.Context, o token.Order, at token.Location, by token.Authority) (token.Identity, error) {
	var es []db.Exporter
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		if err := b.checkExported(ctx, tx, o, by); err != nil {
			return err
		}
		es, err = taking(ctx, tx, at, by)
		return err
	})
	if err != nil {
		return "", err
	}
	for _, e := range es {
		if b.connected(e.ID) && (e.Export.Create || o.Do != token.Make) {
			return e.ID, nil
		}
	}
	return "", problem.New(problem.AgentAbsent, "%s", b.nobody(at))
}

// noteLookup writes the leaf of an order that is looked up for the first time; the id of an order is for one order.
func (b *Broker) noteLookup(ctx context.Context, peer certs.Peer, v token.Verified[token.Order], so api.SignedOrder, trail tree.Trail, now time.Time) error {
	id := v.Claims.ID
	return b.write(ctx, now, func(w *work) error {
		if err := w.keep(ctx, &trail); err != nil {
			return err
		}
		_, hash, err := w.Order(ctx, id)
		switch {
		case err == nil && hash == v.Hash:
			return nil
		case err == nil:
			return problem.New(problem.Conflict, "The id of the order was used for another order")
		case problem.Of(err) != problem.NotFound:
			return err
		}
		if err := w.NoteOrder(ctx, id, v.Hash, so, now); err != nil {
			return err
		}
		body := orderFacts(so, peer)
		body["xfr"] = id
		_, err = w.leaf(ctx, db.OrderLeaf, body)
		return err
	})
}

// lookupPage hands a page to whoever waits for it, and reports whether the task is a lookup.
func (b *Broker) lookupPage(agent token.Identity, id string, p api.TaskPage) (api.TaskPageAnswer, bool) {
	b.mu.Lock()
	k := b.lookups[id]
	b.mu.Unlock()
	if k == nil || k.agent != agent {
		return api.TaskPageAnswer{}, false
	}
	select {
	case k.pages <- p:
	case <-k.done:
		return api.TaskPageAnswer{}, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	k.got += len(p.Entries)
	return api.TaskPageAnswer{More: !p.Last && p.Problem == nil && k.got < k.limit}, true
}
