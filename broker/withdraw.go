package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// noticeAgain is how long an agent may take to say that it knows of a withdrawal, before it is told again.
const noticeAgain = time.Minute

// noticePrefix begins the id of a task to withdraw; the id of the target follows.
const noticePrefix = "w."

// Withdraw takes in an order to withdraw the order id, or that of which id is a run. Outcomes: the target as it is then, also if
// it was withdrawn before, by whichever account; problem.Hidden if the account of the order to withdraw is none of the
// target's; the problem of an order that is not good. No run of the target follows, what runs is cancelled, and every agent of its providers
// is told until it has said that it knows.
func (b *Broker) Withdraw(ctx context.Context, peer certs.Peer, id token.TransferID, so api.SignedOrder, now time.Time) (api.OrderInfo, error) {
	v, err := b.verifyOrder(ctx, peer, so, now)
	if err != nil {
		return api.OrderInfo{}, b.deny(peer.Identity, err)
	}
	o := v.Claims
	if o.Do != token.Withdraw {
		return api.OrderInfo{}, b.deny(peer.Identity, problem.New(problem.WrongStatement, "An order to %s withdraws nothing", o.Do))
	}
	told := 0
	err = b.write(ctx, now, func(w *work) error {
		target, _, err := seeOrder(ctx, w.Tx, peer, id)
		if err != nil {
			return err
		}
		if t := target.Claims; o.Target != t.ID {
			return problem.New(problem.WrongStatement, "The order withdraws %s and was handed in for %s", o.Target, t.ID)
		} else if o.Exp < min(t.Exp, o.Iat+int64(token.MaxOrderLife/time.Second)) {
			return problem.New(problem.Malformed, "The order to withdraw ends before the order that it withdraws, so that an agent which is away would never learn of it")
		}
		if _, done, err := w.Withdrawal(ctx, o.Target); err != nil || done {
			return err
		}
		told, err = b.withdraw(ctx, w, target.Claims, v, so)
		return err
	})
	if err != nil {
		return api.OrderInfo{}, b.deny(peer.Identity, err)
	}
	b.log.Info("order withdrawn", zap.String("order", string(o.Target)), zap.String("by", string(peer.Identity)), zap.Int("agents", told))
	b.wake()
	return b.OrderInfo(ctx, peer, o.Target)
}

// withdraw writes a withdrawal, stops what runs, and has the agents told, of which it returns the number.
func (b *Broker) withdraw(ctx context.Context, w *work, target token.Order, v token.Verified[token.Order], so api.SignedOrder) (int, error) {
	o, by := v.Claims, v.Claims.Accounts[0]
	switch _, hash, err := w.Order(ctx, o.ID); {
	case err == nil && hash != v.Hash:
		return 0, problem.New(problem.Conflict, "The id of the order was used for another order")
	case problem.Of(err) == problem.NotFound:
		if err := w.NoteOrder(ctx, o.ID, v.Hash, so, w.now); err != nil {
			return 0, err
		}
	case err != nil:
		return 0, err
	}
	if err := w.AddWithdrawal(ctx, db.Withdrawal{Target: o.Target, ID: o.ID, Account: by, Came: w.now, Expires: time.Unix(o.Exp, 0)}); err != nil {
		return 0, err
	}
	if _, err := w.leaf(ctx, db.WithdrawLeaf, facts{"certificates": chainsOf(so), "jws": so.JWS, "order": o.Target, "xfr": o.ID}); err != nil {
		return 0, err
	}
	ts, err := w.UnfinishedOf(ctx, o.Target)
	if err != nil {
		return 0, err
	}
	for _, t := range ts {
		if err := w.tell(ctx, t, "withdrawn", fmt.Sprintf("The order was withdrawn by %s", by)); err != nil {
			return 0, err
		}
		if err := b.stopIn(ctx, w, t.ID, api.Cancelled); err != nil {
			return 0, err
		}
	}
	// To all agents that may ever be asked, not only to those that were: it costs a line, and holds also for a task that is on its way.
	told := 0
	providers := []token.Provider{target.From.Provider, target.To.Provider}
	for _, p := range slices.Compact(providers) {
		if p == "" {
			continue
		}
		as, err := w.Agents(ctx, p)
		if err != nil {
			return 0, err
		}
		for _, a := range as {
			if err := w.PutNotice(ctx, db.Notice{Agent: a.ID, Target: o.Target}, w.now); err != nil {
				return 0, err
			}
			w.then(func() { b.post(a.ID, outgoing{withdrawn: o.Target}) })
			told++
		}
	}
	return told, nil
}

// tendNotices tells agents again of what they have not said that they know.
func (b *Broker) tendNotices(ctx context.Context, now time.Time) error {
	var old []db.Notice
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		old, err = tx.OldNotices(ctx, now.Add(-noticeAgain))
		return err
	})
	old = slices.DeleteFunc(old, func(n db.Notice) bool { return !b.connected(n.Agent) && now.Before(n.Expires) }) // who is away is told when it comes
	if err != nil || len(old) == 0 {
		return err
	}
	return b.write(ctx, now, func(w *work) error {
		for _, n := range old {
			if !now.Before(n.Expires) { // so has what it withdrew
				if _, err := w.DropNotice(ctx, n); err != nil {
					return err
				}
				continue
			}
			if err := w.PutNotice(ctx, n, now); err != nil {
				return err
			}
			w.then(func() { b.post(n.Agent, outgoing{withdrawn: n.Target}) })
		}
		return nil
	})
}

// noticeTask spells the task to withdraw an order; nil if the agent knows of it.
func (b *Broker) noticeTask(ctx context.Context, agent token.Identity, target token.TransferID) (*api.Task, error) {
	var task *api.Task
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		if due, err := tx.Notice(ctx, agent, target); err != nil || !due {
			return err
		}
		w, ok, err := tx.Withdrawal(ctx, target)
		if err != nil || !ok {
			return err
		}
		so, _, err := tx.Order(ctx, w.ID)
		task = &api.Task{ID: noticePrefix + string(target), Kind: api.WithdrawTask, Order: so}
		return err
	})
	return task, err
}

// noticed takes in that an agent knows of a withdrawal, or why it does not take it: then it is told again later.
func (b *Broker) noticed(ctx context.Context, agent token.Identity, id string, page api.TaskPage, now time.Time) (api.TaskPageAnswer, error) {
	n := db.Notice{Agent: agent, Target: token.TransferID(strings.TrimPrefix(id, noticePrefix))}
	if p := page.Problem; p != nil {
		b.log.Warn("an agent does not take a withdrawal; it is told again", zap.String("agent", string(agent)), zap.String("order", string(n.Target)),
			zap.String("code", string(p.Code)), zap.String("why", clip(p.Detail)))
		return api.TaskPageAnswer{}, nil
	}
	return api.TaskPageAnswer{}, b.write(ctx, now, func(w *work) error {
		was, err := w.DropNotice(ctx, n)
		if err == nil && !was {
			err = problem.New(problem.LeaseLost, "Nobody waits for this result any more")
		}
		return err
	})
}
