package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// standing is order that runs every minute since ten minutes ago: runs 0 to 10 are due. The certificates of alice are newer than its signature.
func (w *world) standing() token.Order {
	o := w.order()
	o.Iat, o.Period, o.IfExists = time.Now().Add(-10*time.Minute).Unix(), 60, token.Skip
	return o
}

// withdrawal is the order of an account to withdraw o.
func (w *world) withdrawal(o token.Order, by token.Identity) token.Order {
	return token.Order{Accounts: []token.Identity{by}, Do: token.Withdraw, Iat: time.Now().Unix(), Exp: o.Exp, ID: newID(w.t), Target: o.ID}
}

// withdraw has an agent shown a withdrawal and returns what it says.
func (w *world) withdraw(p *port, id string, signed api.SignedOrder) *api.Problem {
	w.t.Helper()
	w.broker.give(p, api.Task{ID: id, Kind: api.WithdrawTask, Order: signed})
	_, bad := w.broker.listing(id)
	return bad
}

// refused gives both tasks of a batch to the agents and wants both refused.
func (w *world) refused(what string, serve, receive api.Task, want problem.Code) {
	w.t.Helper()
	for _, at := range []struct {
		n    *node
		task api.Task
	}{{w.src, serve}, {w.dst, receive}} {
		at.task.ID = what + " " + at.task.ID
		w.broker.give(at.n.port, at.task)
		if got := w.broker.refusal(at.task.ID); got.Code != want {
			w.t.Errorf("%s, %s: got %q, want %q: %s", what, at.task.Kind, got.Code, want, got.Detail)
		}
	}
}

// TestStandingOrderRuns: each run is a transfer of its own, in which a name may be stored again; also after a restart.
func TestStandingOrderRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.random("in/a", 1000)
	w.src.start()
	w.dst.start()
	o := w.standing()
	for _, k := range []int64{0, 3, 10} {
		s := w.spec(o, 1, in)
		s.run = k
		src, dst := w.run(s)
		checkResults(t, dst, token.Stored)
		checkMatch(t, src, dst)
		if xfr := o.Run(k); src.claims.Xfr != xfr || dst.claims.Xfr != xfr {
			t.Errorf("run %d: got receipts of %s and %s, want %s", k, src.claims.Xfr, dst.claims.Xfr, xfr)
		}
		w.checkCopied(s)
		w.to.Remove("out/a")
		poll(t, "the batches to end", func() bool { return len(w.dst.agent.of("")) == 0 && len(w.src.agent.of("")) == 0 })
		for _, n := range []*node{w.src, w.dst} {
			n.stop()
			n.start()
		}
	}
	names, err := os.ReadDir(filepath.Join(w.dst.state, "names"))
	if err != nil || len(names) != 1 || !strings.HasPrefix(names[0].Name(), string(o.Run(10))) {
		t.Errorf("got %v (%v), want the names of the newest run alone", names, err)
	}
}

// TestEvilBrokerRunsAStandingOrder: what a broker with its signing key and a standing order tries, neither agent does.
func TestEvilBrokerRunsAStandingOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.random("in/a", 100)
	secret := w.random("private/a", 100)
	w.src.start()
	w.dst.start()
	o := w.standing()
	first := w.spec(o, 1, in)
	first.run = 5
	w.run(first)
	w.to.Remove("out/a")

	for name, c := range map[string]struct {
		spec  func(*spec)
		tasks func(s *spec, serve, receive *api.Task)
		want  problem.Code
	}{
		"a run that is not due":          {spec: func(s *spec) { s.run = 12 }, want: problem.OrderNotDue},
		"a run behind the last":          {tasks: func(s *spec, serve, receive *api.Task) { serve.Run, receive.Run = 1000, 1000 }, want: problem.OrderNotCovered},
		"a negative run":                 {tasks: func(s *spec, serve, receive *api.Task) { serve.Run, receive.Run = -1, -1 }, want: problem.OrderNotCovered},
		"a run that it made up for":      {spec: func(s *spec) { s.run = 4 }, want: problem.OrderSpent},
		"the first run, long over":       {spec: func(s *spec) { s.run = 0 }, want: problem.OrderSpent},
		"a run under another's number":   {spec: func(s *spec) { s.run = 6 }, tasks: func(s *spec, serve, receive *api.Task) { serve.Run, receive.Run = 7, 7 }, want: problem.CapManifest},
		"a run of an order that has one": {spec: func(s *spec) { s.order, s.run = w.order(), 0 }, tasks: func(s *spec, serve, receive *api.Task) { serve.Run, receive.Run = 1, 1 }, want: problem.OrderNotCovered},
		"another prefix": {spec: func(s *spec) {
			s.run, s.items[0].Src, s.items[0].Version = 6, secret.Name, secret.Version
		}, want: problem.OrderNotCovered},
		"a run after the end": {spec: func(s *spec) {
			s.order = w.standing()
			s.order.Exp, s.run = time.Now().Unix()-1, 9
		}, want: problem.OrderExpired},
		"the renewed chain of another account": {tasks: func(s *spec, serve, receive *api.Task) {
			bob := api.SignedOrder{JWS: serve.Order.JWS, Chains: []string{
				string(w.north.Issue(token.Subscriber, "bob").Chain.PEM()), string(w.south.Issue(token.Subscriber, "bob").Chain.PEM()),
			}}
			serve.Order, receive.Order = bob, bob
		}, want: problem.UnknownKey},
		"a chain of another account with the same key": {tasks: func(s *spec, serve, receive *api.Task) {
			bob := api.SignedOrder{JWS: serve.Order.JWS, Chains: []string{
				string(w.north.Issue(token.Subscriber, "bob", certstest.ForKey(w.alice["north.test"].Key)).Chain.PEM()),
				string(w.south.Issue(token.Subscriber, "bob", certstest.ForKey(w.alice["south.test"].Key)).Chain.PEM()),
			}}
			serve.Order, receive.Order = bob, bob
		}, want: problem.OrderUnsigned},
		"a chain of the same account with another key": {tasks: func(s *spec, serve, receive *api.Task) {
			other := api.SignedOrder{JWS: serve.Order.JWS, Chains: []string{
				string(w.north.Issue(token.Subscriber, "alice").Chain.PEM()), string(w.south.Issue(token.Subscriber, "alice").Chain.PEM()),
			}}
			serve.Order, receive.Order = other, other
		}, want: problem.UnknownKey},
		"a chain that has expired": {tasks: func(s *spec, serve, receive *api.Task) {
			past := certstest.Valid(time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)) // good when the order was signed
			old := api.SignedOrder{JWS: serve.Order.JWS, Chains: []string{
				string(w.north.Issue(token.Subscriber, "alice", past, certstest.ForKey(w.alice["north.test"].Key)).Chain.PEM()),
				string(w.south.Issue(token.Subscriber, "alice", past, certstest.ForKey(w.alice["south.test"].Key)).Chain.PEM()),
			}}
			serve.Order, receive.Order = old, old
		}, want: problem.CertExpired},
	} {
		s := w.spec(o, 2, in)
		s.run = 5
		if c.spec != nil {
			c.spec(s)
		}
		serve, receive := w.tasks(s)
		if c.tasks != nil {
			c.tasks(s, &serve, &receive)
		}
		w.refused(name, serve, receive, c.want)
	}
	again := w.spec(o, 9, in)
	again.run = 5
	_, receive := w.tasks(again)
	w.broker.give(w.dst.port, receive)
	if got := w.broker.refusal(receive.ID); got.Code != problem.OrderSpent {
		t.Errorf("a run a second time: got %q, want %q", got.Code, problem.OrderSpent)
	}
	for _, kind := range []api.TaskKind{api.ListTask, api.MakeTask} {
		port := map[api.TaskKind]*port{api.ListTask: w.src.port, api.MakeTask: w.dst.port}[kind]
		for id, want := range map[int64]problem.Code{4: problem.OrderSpent, 12: problem.OrderNotDue, -3: problem.OrderNotCovered} {
			task := api.Task{ID: string(kind) + time.Duration(id).String(), Kind: kind, Order: w.signOrder(o), Run: id}
			w.broker.give(port, task)
			if _, bad := w.broker.listing(task.ID); bad == nil || bad.Code != want {
				t.Errorf("%s for run %d: got %+v, want %q", kind, id, bad, want)
			}
		}
	}
	if got := content(t, w.to, "out/a"); got != nil {
		t.Errorf("got an object of %d bytes, want none", len(got))
	}
}

// TestRenewedChain: a standing order goes on under a newer certificate of the same identity and key, and only with that.
func TestRenewedChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	in := w.random("in/a", 100)
	w.src.start()
	w.dst.start()
	o := w.standing()
	s := w.spec(o, 1, in)
	s.signed = w.signOrder(o)
	for i, ca := range []*certstest.CA{w.north, w.south} {
		key := certstest.ForKey(w.alice[ca.Domain()].Key)
		s.signed.Chains[i] = string(ca.Issue(token.Subscriber, "alice", key, certstest.Valid(time.Now().Add(-time.Second), time.Now().Add(time.Hour))).Chain.PEM())
	}
	_, dst := w.run(s)
	checkResults(t, dst, token.Stored)

	// One that runs once is judged as of its signature, whatever came later.
	once := w.spec(w.order(), 1, w.random("in/b", 100))
	once.order.Iat -= 600
	serve, receive := w.tasks(once)
	w.refused("a chain that is newer than an order that runs once", serve, receive, problem.CertNotYet)
}

// TestWithdrawnOrderIsRefused: nothing is done for an order that was withdrawn, by either agent, before or after a restart, also if the withdrawal came
// before the order.
func TestWithdrawnOrderIsRefused(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(*world) token.Order{"standing": (*world).standing, "once": (*world).order} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			in := w.random("in/a", 100)
			w.src.start()
			w.dst.start()
			seen, unseen := make(w), make(w)
			w.run(w.spec(seen, 1, in))
			for i, o := range []token.Order{seen, unseen} {
				by := []token.Provider{"north.test", "south.test"}[i]
				signed := w.signOrder(w.withdrawal(o, w.account(by)))
				for _, n := range []*node{w.src, w.dst} {
					id := "withdraw " + string(o.ID) + string(n.port.id)
					for range 2 { // it is delivered until it is accepted
						if bad := w.withdraw(n.port, id, signed); bad != nil {
							t.Fatalf("got %+v, want the withdrawal taken", bad)
						}
						id += " again"
					}
				}
			}
			for _, restart := range []bool{false, true} {
				if restart {
					for _, n := range []*node{w.src, w.dst} {
						n.stop()
						n.start()
					}
				}
				for i, o := range []token.Order{seen, unseen} {
					serve, receive := w.tasks(w.spec(o, 7, in))
					w.refused(strings.Repeat("again ", i)+map[bool]string{true: "after", false: "before"}[restart], serve, receive, problem.OrderWithdrawn)
				}
			}
			other := w.spec(make(w), 1, w.random("in/b", 10)) // of the same accounts
			_, dst := w.run(other)
			checkResults(t, dst, token.Stored)
		})
	}
}

// TestWithdrawalStopsABatch: what is under way for an order ends when the order is withdrawn, and says why.
func TestWithdrawalStopsABatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dst.start() // the source is away: the batch waits
	w.src.conf.Listen = "127.0.0.1:9"
	o := w.standing()
	s := w.spec(o, 1, w.random("in/a", 100))
	s.run = 2
	_, receive := w.tasks(s)
	w.broker.give(w.dst.port, receive)
	poll(t, "the batch to be taken", func() bool { return len(w.dst.agent.of("")) == 1 })
	if bad := w.withdraw(w.dst.port, "withdraw", w.signOrder(w.withdrawal(o, w.account("north.test")))); bad != nil {
		t.Fatalf("got %+v, want the withdrawal taken", bad)
	}
	r := w.broker.receipt(token.Destination, s.ref())
	checkResults(t, r, token.Untried)
	if r.outs[0].Code != string(problem.OrderWithdrawn) {
		t.Errorf("got the reason %q, want %q", r.outs[0].Code, problem.OrderWithdrawn)
	}
	w.checkNoStages()
}

// TestForgedWithdrawal: nobody but an account of an order withdraws it.
func TestForgedWithdrawal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	w.dst.start()
	o := w.standing()
	imposter := newWorld(t) // the same names under other authorities
	alice, mallory := w.account("north.test"), token.NewIdentity("north.test", token.Subscriber, "mallory")
	sign := func(o token.Order, l *certstest.Leaf) api.SignedOrder {
		signer, err := token.NewSigner(l.Key)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Order(o)
		if err != nil {
			t.Fatal(err)
		}
		return api.SignedOrder{JWS: []string{jws}, Chains: []string{string(l.Chain.PEM())}}
	}
	late := w.withdrawal(o, alice)
	late.Exp = time.Now().Unix() - 1
	late.Iat = late.Exp - 10
	long := w.withdrawal(o, alice)
	long.Iat -= 3600
	for name, c := range map[string]struct {
		signed api.SignedOrder
		want   problem.Code
	}{
		"signed by somebody else":                {sign(w.withdrawal(o, alice), w.north.Issue(token.Subscriber, "mallory")), problem.OrderUnsigned},
		"signed by an agent":                     {sign(w.withdrawal(o, alice), w.north.Issue(token.Agent, "a")), problem.OrderUnsigned},
		"signed by the account of another world": {imposter.signOrder(w.withdrawal(o, alice)), problem.CertUnknown},
		"not signed":                             {api.SignedOrder{}, problem.OrderUnsigned},
		"no withdrawal":                          {w.signOrder(o), problem.OrderNotCovered},
		"past its end":                           {sign(late, w.alice["north.test"]), problem.OrderExpired},
		"signed before the certificate was good": {sign(long, w.alice["north.test"]), problem.CertNotYet},
	} {
		if bad := w.withdraw(w.dst.port, name, c.signed); bad == nil || bad.Code != c.want {
			t.Errorf("%s: got %+v, want %q", name, bad, c.want)
		}
	}
	// It is good, and of another: it is nothing to this order.
	if bad := w.withdraw(w.dst.port, "another's", sign(w.withdrawal(o, mallory), w.north.Issue(token.Subscriber, "mallory"))); bad != nil {
		t.Errorf("got %+v, want it taken", bad)
	}
	_, dst := w.run(w.spec(o, 1, w.random("in/a", 100)))
	checkResults(t, dst, token.Stored)
}

// TestRunsDoNotFillTheSets: what an agent remembers of the runs of a standing order does not grow with their number.
func TestRunsDoNotFillTheSets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dst.start()
	a := w.dst.agent
	o := w.standing()
	o.Iat, o.Exp = time.Now().Unix()-300*86400, time.Now().Unix()+10*86400
	v, err := o.Payload()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	base := will{Order: o, ord: token.HashOf(v), account: w.account("south.test"), xfr: o.ID}
	for k := int64(0); k < 200; k++ {
		run, err := base.at(k*2000, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.bind(run, w.broker.id, now); err != nil {
			t.Fatal(err)
		}
		b := bill{will: run, key: batchKey{iss: w.broker.id, xfr: run.xfr, bat: 1, do: token.Create}}
		if err := a.names.add(b, []token.ObjectName{"out/a"}); err != nil {
			t.Fatal(err)
		}
		if err := a.spent.put(b.key, o, now); err != nil {
			t.Fatal(err)
		}
	}
	if n := a.orders.set.Len(); n != 2 {
		t.Errorf("got %d entries of one order, want 2", n)
	}
	names, err := os.ReadDir(filepath.Join(w.dst.state, "names"))
	if err != nil || len(names) != 1 {
		t.Errorf("got %d files of names (%v), want that of the newest run", len(names), err)
	}
	if err := a.spent.set.Compact(now.Add(token.MaxCapabilityLife + remember + time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n := a.spent.set.Len(); n != 0 {
		t.Errorf("got %d batches still marked when no capability for them can be good, want none", n)
	}
	if err := a.bind(base, w.broker.id, now); problem.Of(err) != problem.OrderSpent {
		t.Errorf("the first run again: got %v, want %q", err, problem.OrderSpent)
	}
}
