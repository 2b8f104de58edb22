package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// withdrawalLife is how long a withdrawal is remembered after it was signed: longer than any order lives that was signed before.
const withdrawalLife = token.MaxOrderLife + remember

// withdrawals is which orders were withdrawn, and by which account. An order need not have been seen here to be withdrawn, so
// that a task which is late, or held back, finds it withdrawn already.
type withdrawals struct {
	set   *journal.Set
	share *share
}

func newWithdrawals(set *journal.Set) withdrawals {
	return withdrawals{set: set, share: (&share{set: set, most: maxWithdrawalsBy, all: maxWithdrawalsFor, what: "withdrawals", by: func(key, _ string) token.Identity {
		_, by, _ := strings.Cut(key, " ")
		return token.Identity(by)
	}}).counted()}
}

func withdrawalKey(target token.TransferID, by token.Identity) string {
	return string(target) + " " + string(by)
}

// put remembers the withdrawal w, durably, or fails with problem.Overloaded if its account, or its provider, has had too many.
func (ws withdrawals) put(w token.Order) error {
	key, until := withdrawalKey(w.Target, w.Accounts[0]), time.Unix(w.Iat, 0).Add(withdrawalLife)
	if err := ws.share.put(key, w.Accounts[0], func() error { return ws.set.Put(key, "", until) }); err != nil {
		return fmt.Errorf("remembering a withdrawal: %w", err)
	}
	return nil
}

// check fails with problem.OrderWithdrawn if an account of o has withdrawn it. Another's withdrawal of that id is nothing to it.
func (ws withdrawals) check(o token.Order) error {
	for _, by := range o.Accounts {
		if _, ok := ws.set.Get(withdrawalKey(o.ID, by)); ok {
			return problem.New(problem.OrderWithdrawn, "The order was withdrawn by %s", by)
		}
	}
	return nil
}

// withdraw carries out a task to withdraw an order. What is under way for it ends, whichever broker gave it. The broker is told once all that is durable.
func (s *session) withdraw(ctx context.Context, t api.Task, now time.Time) error {
	w, err := s.a.verifyWithdrawal(t.Order, now)
	if err != nil {
		return err
	}
	if err := s.a.withdrawn.put(w); err != nil {
		return err
	}
	// Durable from here. A batch that is taken in this moment looks again once it is on the list: see begin.
	for _, b := range s.a.of("") {
		if s.a.withdrawn.check(b.will.Order) != nil && b.dropCtx.Err() == nil {
			b.log.Info("the order was withdrawn", zap.String("by", string(w.Accounts[0])))
			b.drop()
		}
	}
	_, err = s.ctl.PostPage(ctx, t.ID, api.TaskPage{Entries: []api.Entry{}, Last: true})
	if problem.Of(err) == problem.LeaseLost {
		return nil
	}
	if err != nil {
		return fmt.Errorf("answering a withdrawal: %w", err)
	}
	return nil
}

// verifyWithdrawal returns the order to withdraw in so if its account signed it, with a certificate that was good at iat: it
// may come late, and takes rights away alone. It holds for orders that name that account, here or elsewhere.
func (a *Agent) verifyWithdrawal(so api.SignedOrder, now time.Time) (token.Order, error) {
	v, chains, err := readOrder(so)
	if err != nil {
		return token.Order{}, err
	}
	w := v.Claims
	if w.Do != token.Withdraw {
		return token.Order{}, problem.New(problem.OrderNotCovered, "An order to %s withdraws nothing", w.Do)
	}
	if err := w.CheckTime(now); err != nil {
		return token.Order{}, err
	}
	id, err := a.conf.Trust.Verify(chains[0], time.Unix(w.Iat, 0))
	if err != nil {
		return token.Order{}, fmt.Errorf("verifying the chain of %s: %w", w.Accounts[0], err)
	}
	if id != w.Accounts[0] || id.Role() != token.Subscriber {
		return token.Order{}, problem.New(problem.OrderUnsigned, "The order names the account %s and is signed by %s", w.Accounts[0], id)
	}
	return w, nil
}
