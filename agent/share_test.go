package agent

import (
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestWithdrawalsWithoutEnd: withdrawals are remembered for longer than any order lives, and anybody with an account somewhere may sign them,
// for orders that never were. Neither one account nor one authority fills the memory, so that those of others are kept.
func TestWithdrawalsWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dst.start()
	share := w.dst.agent.withdrawn.share
	share.most, share.all = 3, 5
	withdraw := func(leaf *certstest.Leaf, o token.Order) error {
		s := signerOf(t, leaf)
		jws, err := s.Order(o)
		if err != nil {
			t.Fatal(err)
		}
		so := api.SignedOrder{JWS: []string{jws}, Chains: []string{string(leaf.Chain.PEM())}}
		if bad := w.withdraw(w.dst.port, "withdraw "+string(o.ID), so); bad != nil {
			return problem.New(bad.Code, "%s", bad.Detail)
		}
		return nil
	}
	flood := func(name string) (taken int, last error) {
		leaf := w.hub.Issue(token.Subscriber, name)
		for range 5 {
			if err := withdraw(leaf, w.withdrawal(w.order(), token.NewIdentity("hub.test", token.Subscriber, name))); err != nil {
				last = err
			} else {
				taken++
			}
		}
		return taken, last
	}
	for _, c := range []struct {
		name string
		want int
	}{{"one", 3}, {"two", 2}, {"three", 0}} { // two by what is left of the provider's
		got, err := flood(c.name)
		if got != c.want || problem.Of(err) != problem.Overloaded {
			t.Errorf("account %s of a flooding authority: got %d taken and %v, want %d and %s", c.name, got, err, c.want, problem.Overloaded)
		}
	}
	o := w.order()
	if err := withdraw(w.alice["south.test"], w.withdrawal(o, w.account("south.test"))); err != nil {
		t.Errorf("another's withdrawal: got %v, want it taken", err)
	}
	if err := withdraw(w.alice["south.test"], w.withdrawal(o, w.account("south.test"))); err != nil {
		t.Errorf("the same withdrawal again: got %v, want it taken", err)
	}
	w.dst.stop()
	w.dst.start()
	share = w.dst.agent.withdrawn.share
	share.most, share.all = 3, 5
	if got, err := flood("three"); got != 0 || problem.Of(err) != problem.Overloaded {
		t.Errorf("after a restart: got %d taken and %v, want none", got, err)
	}
}

// TestOrdersWithoutEnd: an order is remembered until it ends. One account that orders without end keeps nobody else's orders out.
func TestOrdersWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	a := w.src.agent
	a.orders.share.most = 3
	now := time.Now()
	bind := func(account token.Identity, o token.Order) error {
		payload, err := o.Payload()
		if err != nil {
			t.Fatal(err)
		}
		return a.bind(will{Order: o, ord: token.HashOf(payload), account: account, xfr: o.ID}, w.broker.id, now)
	}
	mallory := token.NewIdentity("north.test", token.Subscriber, "mallory")
	first := w.order()
	wantCode(t, "the first", bind(mallory, first), "")
	soon := w.order()
	soon.Exp = now.Unix() + 1
	wantCode(t, "one that ends soon", bind(mallory, soon), "")
	wantCode(t, "the third", bind(mallory, w.order()), "")
	wantCode(t, "one too many", bind(mallory, w.order()), problem.Overloaded)
	wantCode(t, "the first again", bind(mallory, first), "")
	wantCode(t, "another's", bind(w.account("north.test"), w.order()), "")
	if err := a.orders.set.Compact(now.Add(remember + time.Minute)); err != nil {
		t.Fatal(err)
	}
	a.orders.share.recount()
	wantCode(t, "once one has ended", bind(mallory, w.order()), "")
	wantCode(t, "one too many again", bind(mallory, w.order()), problem.Overloaded)
	w.src.stop()
	w.src.start()
	a = w.src.agent
	a.orders.share.most = 3
	wantCode(t, "one too many after a restart", bind(mallory, w.order()), problem.Overloaded)
	if owner, at, account := parseOwner("spiffe://hub.test/broker/b 7"); owner != w.broker.id || at != 7 || account != "" {
		t.Errorf("an entry of before: got %q %d %q", owner, at, account)
	}
}
