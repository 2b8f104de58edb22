package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/consign-transfer/consign/broker/adopt"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// An adopter is who carries an adoption out at the moment. It is in memory alone: whoever starts anew has it listed from the last name
// that is committed.
type adopter struct {
	agent  token.Identity
	stream int64     // the agent's, over which the task went
	heard  time.Time // when a page came last, or the task was given
}

// tendAdoptions has every adoption that has not ended carried out, a few at once, the oldest first.
func (b *Broker) tendAdoptions(ctx context.Context, now time.Time) error {
	var as []db.Adoption
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		as, err = tx.UnfinishedAdoptions(ctx, maxAdoptions)
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	busy := 0
	for _, a := range as {
		under, err := b.tendAdoption(ctx, a, busy, now)
		if err != nil {
			errs = append(errs, fmt.Errorf("tending the adoption %s: %w", a.ID, err))
		}
		if under {
			busy++
		}
	}
	return errors.Join(errs...)
}

// tendAdoption does what is due for one adoption while busy others are carried out, and reports whether it is one of them.
func (b *Broker) tendAdoption(ctx context.Context, a db.Adoption, busy int, now time.Time) (bool, error) {
	switch {
	case !now.Before(a.Expires):
		return false, b.changeAdoption(ctx, a.ID, now, func(w *work, a *db.Adoption) error {
			return b.endAdoption(ctx, w, a, api.Expired, problem.New(problem.OrderExpired, "The order ended before all was adopted"))
		})
	case b.underWay(a.ID, now):
		return true, nil
	case now.Before(a.NotBefore):
		return false, nil
	case busy >= adoptionsAtOnce:
		b.await(a.ID, "Other adoptions are under way, and it comes after them")
		return false, nil
	}
	var agent token.Identity
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		agent, err = b.adopterFor(ctx, tx, a)
		return err
	})
	if code := problem.Of(err); code == problem.NoContainer || code == problem.PolicyRefused {
		return false, b.changeAdoption(ctx, a.ID, now, func(w *work, a *db.Adoption) error { return b.endAdoption(ctx, w, a, api.Failed, err) })
	}
	if err != nil {
		return false, err
	}
	if agent == "" {
		b.await(a.ID, b.nobody(a.At))
		return false, nil
	}
	return true, b.changeAdoption(ctx, a.ID, now, func(w *work, a *db.Adoption) error { return b.giveAdoption(ctx, w, a, agent) })
}

// adopterFor returns the first agent that may carry an adoption out and is connected; empty if there is none. It fails as checkExported does.
func (b *Broker) adopterFor(ctx context.Context, tx *db.Tx, a db.Adoption) (token.Identity, error) {
	if err := b.checkExported(ctx, tx, token.Order{From: a.At}, a.Authority); err != nil {
		return "", err
	}
	es, err := taking(ctx, tx, a.At, a.Authority)
	if err != nil {
		return "", err
	}
	for _, e := range es {
		if e.Export.Read && b.connected(e.ID) {
			return e.ID, nil
		}
	}
	return "", nil
}

// changeAdoption calls fn with an adoption that has not ended, in one transaction.
func (b *Broker) changeAdoption(ctx context.Context, id token.TransferID, now time.Time, fn func(*work, *db.Adoption) error) error {
	return b.write(ctx, now, func(w *work) error {
		a, err := w.Adoption(ctx, id)
		if err != nil || !a.Finished.IsZero() {
			return err
		}
		return fn(w, &a)
	})
}

// underWay reports whether an agent carries the adoption out: it has been given the task over the stream that it has, and is heard of.
func (b *Broker) underWay(id token.TransferID, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	k, ok := b.adopting[id]
	if !ok {
		return false
	}
	s := b.sessions[k.agent]
	return s != nil && s.stream != 0 && s.stream == k.stream && now.Sub(k.heard) < b.conf.LeaseGrace
}

// giveAdoption gives an agent the task. An earlier task ends with its next page.
func (b *Broker) giveAdoption(ctx context.Context, w *work, a *db.Adoption, agent token.Identity) error {
	_, so, err := order(ctx, w.Tx, a.ID)
	if err != nil {
		return err
	}
	if so, err = b.carried(so); err != nil {
		return err
	}
	a.State, a.Agent, a.Task = api.Running, agent, adoptTaskID(a.ID)
	task := &api.Task{ID: a.Task, Kind: api.ListTask, Order: so, After: a.Resume}
	if a.Scope == token.One {
		task.Kind, task.After, task.Names = api.StatTask, "", []token.ObjectName{a.At.Name}
	}
	id := a.ID
	w.touched[id] = true
	w.then(func() {
		b.await(id, "")
		b.mu.Lock()
		if s := b.sessions[agent]; s != nil {
			b.adopting[id] = adopter{agent: agent, stream: s.stream, heard: w.now}
		}
		b.mu.Unlock()
		b.post(agent, outgoing{task: task})
	})
	return w.SaveAdoption(ctx, a)
}

// adoptPage takes in a page of what an adoption's agent found. It is answered once all of it is committed, a piece at a time, with a rest
// behind each: an agent sends no page before the one before it is answered, so nothing heaps up here, and others come to write.
func (b *Broker) adoptPage(ctx context.Context, agent token.Identity, task string, page api.TaskPage, now time.Time) (api.TaskPageAnswer, error) {
	body, err := json.Marshal(page)
	if err != nil {
		return api.TaskPageAnswer{}, fmt.Errorf("naming a page: %w", err)
	}
	p := adoptedPage{task: task, agent: agent, page: page, hash: token.HashOf(body)}
	for {
		err := b.pace.Turn(ctx, func(n int) error { return b.adoptPiece(ctx, &p, n, now) })
		if err != nil || p.left == 0 {
			return api.TaskPageAnswer{More: p.more}, err
		}
	}
}

// An adoptedPage is a page on its way into the namespace.
type adoptedPage struct {
	task  string
	agent token.Identity
	page  api.TaskPage
	hash  token.Hash
	left  int  // entries that are not committed
	more  bool // another page is wanted
}

// adoptPiece enters up to n entries of a page. They, the place in the listing and what there is of the page are committed together, so that a crash of anyone
// goes on from there and counts nothing twice.
func (b *Broker) adoptPiece(ctx context.Context, p *adoptedPage, n int, now time.Time) error {
	id := adoptionOfTask(p.task)
	return b.write(ctx, now, func(w *work) error {
		p.left, p.more = 0, false
		a, err := w.Adoption(ctx, id)
		if problem.Of(err) == problem.NotFound || err == nil && (a.Task != p.task || a.Agent != p.agent || !a.Finished.IsZero()) {
			return problem.New(problem.LeaseLost, "Nobody waits for this result any more")
		}
		if err != nil {
			return err
		}
		w.touched[id] = true
		w.then(func() { b.heardAdopter(id, now) })
		if p.page.Problem != nil {
			return b.adoptionFailed(ctx, w, &a, p.page.Problem)
		}
		if a.Page != p.hash {
			a.Page, a.PageDone = p.hash, 0
		}
		var trail tree.Trail
		if err := b.judgeAdoption(ctx, w, &a, &trail); err != nil {
			if why := problem.As(err); problem.Lookup(why.Code).HTTP != 500 {
				err = errors.Join(w.keep(ctx, &trail), b.endAdoption(ctx, w, &a, api.Failed, why))
			}
			return err
		}
		if err := w.keep(ctx, &trail); err != nil {
			return err
		}
		v, _, err := order(ctx, w.Tx, id)
		if err != nil {
			return err
		}
		rest := p.page.Entries[min(a.PageDone, int64(len(p.page.Entries))):]
		piece := rest[:min(n, len(rest))]
		enough, err := adopt.Clerk{Tree: b.tree, Adoption: &a, Order: v.Claims}.Enter(ctx, w.Tx, piece, now)
		if err != nil {
			return err
		}
		if a.Judged, err = w.ACLGen(ctx, a.At.Provider); err != nil { // what moved it since it was judged are our own rows
			return err
		}
		a.PageDone += int64(len(piece))
		a.Tries = 0
		p.left = len(rest) - len(piece)
		if enough || p.page.Last && p.left == 0 {
			p.left = 0
			return b.endAdoption(ctx, w, &a, adopt.End(&a), nil)
		}
		p.more = p.left > 0 || !p.page.Last
		return w.SaveAdoption(ctx, &a)
	})
}

// heardAdopter notes that a page of an adoption came.
func (b *Broker) heardAdopter(id token.TransferID, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if k, ok := b.adopting[id]; ok {
		k.heard = now
		b.adopting[id] = k
	}
}

// adoptionFailed takes in that the store could not be listed: it is tried again later, or the adoption ends here, with what was entered before.
func (b *Broker) adoptionFailed(ctx context.Context, w *work, a *db.Adoption, p *api.Problem) error {
	why := &problem.Error{Code: p.Code, Detail: clip(p.Detail)}
	if p.Code == problem.OrderExpired {
		return b.endAdoption(ctx, w, a, api.Expired, why)
	}
	if problem.Lookup(p.Code).Retry == problem.Never {
		return b.endAdoption(ctx, w, a, api.Failed, why)
	}
	a.NotBefore = w.now.Add(backoff(a.Tries))
	a.Tries++
	a.Task = ""
	id := a.ID
	w.then(func() {
		b.await(id, why.Sentence())
		b.mu.Lock()
		delete(b.adopting, id)
		b.mu.Unlock()
	})
	return w.SaveAdoption(ctx, a)
}
