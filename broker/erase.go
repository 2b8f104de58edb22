package broker

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// eraseWait is how long an erasure is waited for, by us and not by who ordered it: to wipe a large object takes as long as to write it.
const eraseWait = 30 * time.Minute

// An erasure is an order to erase that an agent is to carry out.
type erasure struct {
	order token.Verified[token.Order]
	so    api.SignedOrder // as it is carried
	by    token.Identity  // who asked; we ourselves for what erases itself
	agent token.Identity
	row   db.Node // of what is to be erased, as it was when that was allowed; zero if there is none
}

// kind is what is to be erased: an object, or an empty container.
func (e erasure) kind() acl.Kind {
	if e.order.Claims.Version == "" {
		return acl.Container
	}
	return acl.Object
}

// An erased is what became of an erasure.
type erased struct {
	entry api.Entry
	err   error
}

// eraseOrdered has an order to erase carried out. It goes on if the caller goes or cannot wait so long: what was erased is written down in any case.
func (b *Broker) eraseOrdered(ctx context.Context, peer certs.Peer, v token.Verified[token.Order], so api.SignedOrder, now time.Time) (api.LookupResult, error) {
	e := erasure{order: v, so: so, by: peer.Identity}
	var trail tree.Trail
	if err := b.allowErasure(ctx, &e, &trail, now); err != nil {
		return api.LookupResult{}, b.deny(peer.Identity, b.keepTrail(ctx, &trail, err, now))
	}
	if err := b.noteLookup(ctx, peer, v, so, trail, now); err != nil {
		return api.LookupResult{}, b.keepTrail(ctx, &trail, err, now)
	}
	answer, goesOn := make(chan erased, 1), context.WithoutCancel(ctx)
	b.erasures.Go(func() {
		entry, err := b.carryErasure(goesOn, e)
		answer <- erased{entry, err}
	})
	waits, cancel := context.WithTimeout(ctx, b.conf.LookupWait)
	defer cancel()
	select {
	case a := <-answer:
		if a.err != nil {
			return api.LookupResult{}, a.err
		}
		return api.LookupResult{Entries: []api.Entry{a.entry}}, nil
	case <-waits.Done():
		return api.LookupResult{}, problem.New(problem.Timeout, "The agent %s has not erased it yet; the same order tells later whether it has", e.agent)
	}
}

// allowErasure chooses the agent of e, or says why it is not to be carried out: the account may not delete it there, a hold or retention is in force, a transfer is about to
// publish it, or nobody takes it. For what erases itself nobody's right is asked. What has to be recorded is in trail, whatever the outcome.
func (b *Broker) allowErasure(ctx context.Context, e *erasure, trail *tree.Trail, now time.Time) error {
	o := e.order.Claims
	account, _ := o.Account(o.To.Provider)
	var es []db.Exporter
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		if err := b.checkExported(ctx, tx, o, authorityOf(e.so)); err != nil {
			return err
		}
		s, err := b.tree.Spot(ctx, tx, o.To, e.kind())
		if err != nil {
			return err
		}
		e.row = s.Node
		if e.by != b.self {
			a, err := b.tree.Attempt(ctx, tx, account, o.To.Provider, opErase)
			if err != nil {
				return err
			}
			a.Trail = trail
			if err := b.tree.DecideDeletion(a, s); err != nil {
				return err
			}
		}
		if err := s.Settings.CheckFree(now); err != nil {
			return err
		}
		if err := b.checkBelow(ctx, tx, s, now); err != nil {
			return err
		}
		reserved, err := tx.Reserved(ctx, o.To, e.kind())
		if err != nil {
			return err
		}
		if reserved {
			return problem.New(problem.Claimed, "A transfer that has not ended has to do with %q", o.To.Name)
		}
		es, err = taking(ctx, tx, o.To, authorityOf(e.so))
		return err
	})
	if err != nil {
		return err
	}
	for _, x := range es {
		if x.Export.Erase && b.connected(x.ID) {
			e.agent = x.ID
			return nil
		}
	}
	return problem.New(problem.AgentAbsent, "%s", b.nobody(o.To))
}

// boundAtOnce is how many holds and retentions below a container are looked at together.
const boundAtOnce = 256

// checkBelow reports why a container must not be erased though its store has nothing in it: a name below it is under a hold or retention, also one that nothing has
// yet, and would be free afterwards. What is bound is not named: the account may not be one that may see it.
func (b *Broker) checkBelow(ctx context.Context, tx *db.Tx, s tree.Spot, now time.Time) error {
	if s.Kind != acl.Container {
		return nil
	}
	for after := (db.Keep{}); ; {
		ks, err := tx.KeepsBelow(ctx, s.At, after, boundAtOnce)
		if err != nil {
			return err
		}
		for _, k := range ks {
			in, err := b.tree.Spot(ctx, tx, k.At, k.Kind)
			if err != nil {
				return err
			}
			if err := in.Settings.CheckFree(now); err != nil {
				return problem.New(problem.Of(err), "Something below %s is under a hold or retention, and would leave it if the container were erased", s.At)
			}
			after = k
		}
		if len(ks) < boundAtOnce {
			return nil
		}
	}
}

// carryErasure has the agent of e erase, and writes down what it has erased.
func (b *Broker) carryErasure(ctx context.Context, e erasure) (api.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, eraseWait)
	defer cancel()
	defer context.AfterFunc(b.life, cancel)()
	l := api.Lookup{Order: e.so}
	task, _, err := lookupTask(e.order.Claims, l)
	if err != nil {
		return api.Entry{}, err
	}
	r, err := b.ask(ctx, newLookup(e.by, e.agent, task), false)
	if err != nil {
		return api.Entry{}, err
	}
	if len(r.Entries) != 1 || r.Entries[0].Name != e.order.Claims.To.Name || r.Entries[0].Code != "" {
		return api.Entry{}, problem.New(problem.PeerMisbehaved, "The agent %s answered an order to erase with something else", e.agent)
	}
	return r.Entries[0], b.noteErasure(ctx, e, r.Entries[0], time.Now())
}

// noteErasure writes down what was erased, once for each order.
func (b *Broker) noteErasure(ctx context.Context, e erasure, got api.Entry, now time.Time) error {
	o := e.order.Claims
	x := db.Erasure{ID: o.ID, At: o.To, Kind: e.kind(), Version: o.Version, Size: max(got.Size, 0), Method: clip(got.Sanitized), Agent: e.agent, Came: now}
	err := b.write(ctx, now, func(w *work) error {
		known, err := w.HasErasure(ctx, x.ID)
		if err != nil || known {
			return err
		}
		if x.Leaf, err = w.leaf(ctx, db.EraseLeaf, facts{
			"agent": x.Agent, "authority": authorityOf(e.so), "by": e.by, "container": x.At.Container, "kind": x.Kind.String(), "method": x.Method, "name": x.At.Name,
			"order": x.ID, "ord": e.order.Hash, "provider": x.At.Provider, "size": x.Size, "version": x.Version,
		}); err != nil {
			return err
		}
		if err := w.PutErasure(ctx, x); err != nil {
			return err
		}
		return b.dropRow(ctx, w, e)
	})
	if err == nil {
		b.log.Info("erased", zap.String("order", string(x.ID)), zap.String("agent", string(x.Agent)), zap.String("method", x.Method))
	}
	return err
}

// dropRow removes the row of what was erased, unless it is of something else by now.
func (b *Broker) dropRow(ctx context.Context, w *work, e erasure) error {
	at := e.order.Claims.To
	s, err := b.tree.Spot(ctx, w.Tx, at, e.kind())
	if err != nil || !s.Known || s.Node.ID != e.row.ID || s.Node.Version != e.row.Version {
		return err
	}
	if err := b.checkBelow(ctx, w.Tx, s, w.now); errors.As(err, new(*problem.Error)) {
		return nil // bound meanwhile: what is kept of it stays
	} else if err != nil {
		return err
	}
	_, err = b.tree.Remove(ctx, w.Tx, at, e.kind())
	return err
}
