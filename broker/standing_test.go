package broker

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// hourly makes an order run every hour.
func hourly(o *token.Order) { o.Period, o.IfExists = 3600, token.Skip }

func (w *world) info(id token.TransferID) api.OrderInfo {
	w.t.Helper()
	info, err := w.b.OrderInfo(w.t.Context(), w.me(), id)
	if err != nil {
		w.t.Fatalf("reading the order %s: %v", id, err)
	}
	return info
}

// events returns the notes of a transfer's events of one kind.
func (w *world) events(id token.TransferID, kind api.EventKind) []string {
	w.t.Helper()
	page, err := w.b.Events(w.t.Context(), w.me(), id, 0, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	var notes []string
	for _, e := range page.Items {
		if e.Kind == kind {
			notes = append(notes, e.Note)
		}
	}
	return notes
}

func (w *world) leaves(kind db.LeafKind) (n int) {
	w.t.Helper()
	err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) error {
		return tx.Leaves(w.t.Context(), 0, func(_ int64, l db.Leaf) error {
			if l.Kind == kind {
				n++
			}
			return nil
		})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// carry lets both agents carry out the run k of o, which copies one object.
func (w *world) carry(src, dst *fake, o token.Order, k int64) {
	w.t.Helper()
	list := src.task(api.ListTask)
	if list.Run != k {
		w.t.Errorf("got a listing for run %d, want %d", list.Run, k)
	}
	src.page(list.ID, api.TaskPage{Entries: []api.Entry{object(fmt.Sprint("a", k), 10)}, Last: true})
	serve, receive := batch(src, dst)
	if m := src.manifest(serve); serve.Run != k || receive.Run != k || m.Xfr != o.Run(k) {
		w.t.Errorf("got runs %d and %d of %s, want %d of %s", serve.Run, receive.Run, m.Xfr, k, o.Run(k))
	}
	src.post(src.receipt(serve, nil))
	dst.post(dst.receipt(receive, nil))
	if t := w.want(o.Run(k), api.Complete, map[token.Result]int64{token.Stored: 1}); t.Order != o.ID || t.Run != k {
		w.t.Errorf("got run %d of %s, want %d of %s", t.Run, t.Order, k, o.ID)
	}
}

// TestStandingOrderLife: ten runs, each at its hour and under its own id, with the broker killed between any two.
func TestStandingOrderLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	o := w.order(hourly)
	w.submit(o)
	const runs = 10
	for k := range int64(runs) {
		if k > 0 {
			w.now = o.Due(k).Add(-time.Second)
			w.step()
			if got := w.info(o.ID); got.Runs != k || got.Next == nil || !got.Next.Equal(o.Due(k)) || got.State != api.OrderActive {
				t.Fatalf("a second before run %d: got %+v", k, got)
			}
			w.now = o.Due(k)
		}
		w.carry(src, dst, o, k)
		src.leave()
		dst.leave()
		w.crash()
		src.connect()
		dst.connect()
		w.step()
	}
	got := w.info(o.Run(7)) // by the id of a run
	if got.ID != o.ID || got.Runs != runs || got.Skipped != 0 || got.Newest != o.Run(runs-1) || got.Period != 3600 {
		t.Errorf("got %+v, want %d runs of %s", got, runs, o.ID)
	}
	page, err := w.b.Runs(t.Context(), w.me(), o.ID, "")
	if err != nil || len(page.Items) != runs || page.Items[0].ID != o.Run(runs-1) || page.Items[runs-1].ID != o.ID {
		t.Errorf("got %d runs (%v), want %d, the newest first", len(page.Items), err, runs)
	}
	if page, err = w.b.Runs(t.Context(), w.me(), o.ID, "3"); err != nil || len(page.Items) != 3 || page.Items[0].Run != 2 {
		t.Errorf("got %d runs before the third (%v), want 3", len(page.Items), err)
	}
	if n := w.leaves(db.RunLeaf); n != runs-1 {
		t.Errorf("got %d leaves of runs, want %d", n, runs-1)
	}
	list, err := w.b.Orders(t.Context(), w.me(), "", 0)
	if err != nil || len(list.Items) != 1 || list.Items[0].ID != o.ID {
		t.Errorf("got %+v (%v), want the one standing order", list, err)
	}
	if so, err := w.b.Order(t.Context(), w.me(), o.Run(4)); err != nil || len(so.JWS) != 2 {
		t.Errorf("got %+v (%v), want the order beside a run", so, err)
	}
}

// TestRunIsBegunOnce: a run whose commit failed, or whose answer was lost, is there once after the broker was killed.
func TestRunIsBegunOnce(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before commit", "after commit"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			src, dst := w.pair()
			o := w.order(hourly)
			w.submit(o)
			w.carry(src, dst, o, 0)
			w.now = o.Due(1)
			w.b.fault = func(at string) error {
				if at == when {
					return errInjected
				}
				return nil
			}
			if err := w.b.tendStanding(t.Context(), w.now); !errors.Is(err, errInjected) {
				t.Fatalf("got %v, want the fault", err)
			}
			src.leave()
			dst.leave()
			w.crash()
			src.connect()
			dst.connect()
			w.step()
			w.carry(src, dst, o, 1)
			if got := w.info(o.ID); got.Runs != 2 || got.Skipped != 0 || w.leaves(db.RunLeaf) != 1 {
				t.Errorf("got %+v with %d leaves, want run 1 once", got, w.leaves(db.RunLeaf))
			}
		})
	}
}

// TestRunIsSkippedWhileOneLives: a run does not begin before the one before it has ended, and says so.
func TestRunIsSkippedWhileOneLives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.order(hourly)
	w.submit(o) // nobody is there
	for _, k := range []int64{1, 2, 3} {
		w.now = o.Due(k)
		w.step()
		w.step()
		w.crash()
	}
	if got := w.info(o.ID); got.Runs != 1 || got.Skipped != 3 || !got.Next.Equal(o.Due(4)) {
		t.Errorf("got %+v, want 3 runs skipped", got)
	}
	notes := w.events(o.ID, "skipped")
	if len(notes) != 3 || !strings.Contains(notes[2], "Run 3") || !strings.Contains(notes[2], "run 0 has not ended") {
		t.Errorf("got %q, want one event a run that is skipped", notes)
	}
	src, dst := w.pair()
	w.carry(src, dst, o, 0)
	w.step()
	if got := w.info(o.ID); got.Runs != 1 {
		t.Errorf("got %d runs, want none made up for", got.Runs)
	}
	w.now = o.Due(4)
	w.carry(src, dst, o, 4)
}

// TestMissedRunsAreNotMadeUpFor: after a rest the newest run that is due begins, and no other.
func TestMissedRunsAreNotMadeUpFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	o := w.order(hourly)
	w.submit(o)
	w.carry(src, dst, o, 0)
	w.now = o.Due(5).Add(40 * time.Minute)
	src.leave()
	dst.leave()
	w.crash()
	src.connect()
	dst.connect()
	w.carry(src, dst, o, 5)
	if got := w.info(o.ID); got.Runs != 2 || got.Skipped != 4 || !got.Next.Equal(o.Due(6)) {
		t.Errorf("got %+v, want runs 1 to 4 skipped", got)
	}
	if notes := w.events(o.Run(5), "ordered"); len(notes) != 1 || !strings.Contains(notes[0], "runs 1 to 4 were missed") {
		t.Errorf("got %q, want it to say which runs were missed", notes)
	}
	w.step()
	if _, err := w.b.Transfer(t.Context(), w.me(), o.Run(3), 0, 0); problem.Of(err) != problem.Hidden {
		t.Errorf("a run that was missed: got %v, want none", err)
	}
}

// TestStandingOrderComesLate: an order that is handed in long after it was signed begins with the run that is due.
func TestStandingOrderComesLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	o := w.order(hourly, func(o *token.Order) { o.Iat, o.Period = w.now.Add(-50*time.Minute).Unix(), 600 })
	got, err := w.b.Submit(t.Context(), w.me(), w.sign(o), w.now)
	if err != nil || got.ID != o.Run(5) || got.Order != o.ID || got.Run != 5 {
		t.Fatalf("got %+v (%v), want run 5", got, err)
	}
	again, err := w.b.Submit(t.Context(), w.me(), w.sign(o), w.now.Add(time.Minute))
	if err != nil || again.ID != got.ID {
		t.Errorf("again: got %s (%v), want %s", again.ID, err, got.ID)
	}
	w.carry(src, dst, o, 5)
	w.now = o.Due(6)
	w.carry(src, dst, o, 6)
	if got := w.info(o.ID); got.Runs != 2 || got.Skipped != 5 {
		t.Errorf("got %+v, want 2 runs", got)
	}
}

// TestStandingOrderEnds: no run begins at the order's end or after it, and the order says that it has ended.
func TestStandingOrderEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	o := w.order(hourly, func(o *token.Order) { o.Exp = o.Iat + 2*3600 })
	w.submit(o)
	w.carry(src, dst, o, 0)
	w.now = o.Due(1)
	w.carry(src, dst, o, 1)
	for range 3 {
		w.now = w.now.Add(time.Hour)
		w.step()
	}
	if got := w.info(o.ID); got.Runs != 2 || got.Skipped != 0 || got.Next != nil || got.State != api.OrderEnded {
		t.Errorf("got %+v, want it ended after 2 runs", got)
	}
}

// TestRunUnderAnotherOrdersID: somebody who knows a standing order takes the id of a run for an order of their own.
func TestRunUnderAnotherOrdersID(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	o := w.order(hourly)
	w.submit(o)
	w.carry(src, dst, o, 0)
	squat := w.order(func(x *token.Order) { x.ID = o.Run(1) })
	w.submit(squat)
	w.now = o.Due(1)
	w.step()
	w.step()
	if got := w.info(o.ID); got.Runs != 1 || got.Skipped != 1 || !got.Next.Equal(o.Due(2)) {
		t.Errorf("got %+v, want run 1 skipped", got)
	}
	if x := w.transfer(o.Run(1)); x.Order != squat.ID || x.Run != 0 {
		t.Errorf("got run %d of %s, want the order that has the id", x.Run, x.Order)
	}
	if _, err := w.b.Cancel(t.Context(), w.me(), squat.ID, w.now); err != nil {
		t.Fatal(err)
	}
	src.leave() // and the tasks of the other order with it
	dst.leave()
	src.connect()
	dst.connect()
	w.now = o.Due(2)
	w.carry(src, dst, o, 2)
	taken := w.order(func(x *token.Order) { x.ID = o.Run(2) })
	if _, err := w.b.Submit(t.Context(), w.me(), w.sign(taken), w.now); problem.Of(err) != problem.Conflict {
		t.Errorf("an order of the id of a run: got %v, want %q", err, problem.Conflict)
	}
}

// renewal is a certificate of alice at ca for the key of an older one.
func (w *world) renewal(ca *certstest.CA, old *certstest.Leaf, name string, opts ...certstest.Option) *certstest.Leaf {
	opts = append([]certstest.Option{certstest.Valid(w.now.Add(-time.Minute), w.now.Add(9*time.Hour)), certstest.ForKey(old.Key)}, opts...)
	return ca.Issue(token.Subscriber, name, opts...)
}

// TestCertificateOfAStandingOrderIsRenewed: a run is held while a certificate beside the order is past its end, and begins
// when its account has come by with a newer one of the same key; with no other.
func TestCertificateOfAStandingOrderIsRenewed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, ca := range []*certstest.CA{w.north, w.south} {
		w.alice[i] = ca.Issue(token.Subscriber, "alice", certstest.Valid(w.now.Add(-time.Hour), w.now.Add(90*time.Minute)))
	}
	me := w.me()
	src, dst := w.pair()
	once := w.order()
	o := w.order(hourly)
	w.submit(o)
	w.carry(src, dst, o, 0)
	w.now = o.Due(1)
	w.carry(src, dst, o, 1)
	w.submit(once)
	w.now = o.Due(2)
	for range 3 {
		w.step()
	}
	got := w.info(o.ID)
	if got.Runs != 2 || !strings.Contains(got.Waiting, "expired") || !strings.Contains(got.Waiting, "alice") || !got.GoodUntil.Before(w.now) {
		t.Errorf("got %+v, want it to wait for a certificate", got)
	}
	if notes := w.events(o.Run(1), "held"); len(notes) != 1 {
		t.Errorf("got %q, want one event", notes)
	}
	for name, leaf := range map[string]*certstest.Leaf{
		"of another key": w.north.Issue(token.Subscriber, "alice"), "of another account with the key": w.renewal(w.north, w.alice[0], "bob"),
		"of an agent with the key": w.north.Issue(token.Agent, "alice", certstest.ForKey(w.alice[0].Key)),
		"that is older":            w.renewal(w.north, w.alice[0], "alice", certstest.Valid(w.now.Add(-9*time.Hour), w.now.Add(-8*time.Hour))),
	} {
		if err := w.b.Renewed(t.Context(), peerOf(leaf), w.now); err != nil {
			t.Fatal(err)
		}
		if n := w.leaves(db.RenewLeaf); n != 0 {
			t.Errorf("a certificate %s: got it taken", name)
		}
	}
	fresh := []*certstest.Leaf{w.renewal(w.north, w.alice[0], "alice"), w.renewal(w.south, w.alice[1], "alice")}
	for i, leaf := range fresh {
		for range 2 {
			if err := w.b.Renewed(t.Context(), peerOf(leaf), w.now); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.leaves(db.RenewLeaf); n != i+1 {
			t.Errorf("got %d leaves of newer certificates, want %d", n, i+1)
		}
		w.step()
	}
	src.leave()
	src.connect()
	for {
		l := src.task(api.ListTask)
		if l.Run == 0 { // of the order that runs once: its chains stay
			if l.Order.Chains[0] != string(w.alice[0].Chain.PEM()) {
				t.Error("the chain of an order that runs once was replaced")
			}
			continue
		}
		if want := []string{string(fresh[0].Chain.PEM()), string(fresh[1].Chain.PEM())}; l.Run != 2 || !slices.Equal(l.Order.Chains, want) {
			t.Errorf("got run %d, want run 2 with the newer chains", l.Run)
		}
		break
	}
	if so, err := w.b.Order(t.Context(), me, o.Run(1)); err != nil || so.Chains[0] != string(w.alice[0].Chain.PEM()) {
		t.Errorf("got another chain beside a run that has ended (%v)", err)
	}
	if got := w.info(o.ID); got.Runs != 3 || got.Waiting != "" || !got.GoodUntil.After(w.now) {
		t.Errorf("got %+v, want run 2 begun", got)
	}
}

// withdrawal signs the order of one of alice's accounts to withdraw target.
func (w *world) withdrawal(target token.Order, by int, change ...func(*token.Order)) api.SignedOrder {
	w.t.Helper()
	id := peerOf(w.alice[by]).Identity
	o := w.order(func(o *token.Order) {
		*o = token.Order{Accounts: []token.Identity{id}, Do: token.Withdraw, Iat: o.Iat, Exp: target.Exp, ID: o.ID, Target: target.ID}
	})
	for _, c := range change {
		c(&o)
	}
	return w.sign(o, w.alice[by])
}

// TestOrderIsWithdrawn: what runs is cancelled, no run follows, and each agent is told until it has said that it knows.
func TestOrderIsWithdrawn(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"standing", "once"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			src, dst := w.pair()
			away := w.agent(w.south, "s2", "dst")
			away.connect()
			away.leave()
			o := w.order(func(o *token.Order) {
				if kind == "standing" {
					hourly(o)
				}
			})
			w.submit(o)
			src.list(object("a", 10))
			_, receive := batch(src, dst)
			south := peerOf(w.alice[1])
			so := w.withdrawal(o, 1)
			got, err := w.b.Withdraw(t.Context(), south, o.ID, so, w.now)
			if err != nil || got.State != api.OrderWithdrawn || got.WithdrawnBy != south.Identity || got.Next != nil || len(got.Untold) != 3 {
				t.Fatalf("got %+v (%v), want it withdrawn by %s and 3 agents to be told", got, err, south.Identity)
			}
			if x := w.transfer(o.ID); x.State != api.Cancelled {
				t.Errorf("got %s, want %s", x.State, api.Cancelled)
			}
			w.acknowledge(src, dst)
			src.post(src.receipt(api.Task{Kind: api.ServeTask, Bat: receive.Bat, Manifest: receive.Manifest, Capability: receive.Present}, []token.Outcome{bad(0, token.Untried, problem.Untried)}))
			dst.post(dst.receipt(receive, []token.Outcome{bad(0, token.Untried, problem.OrderWithdrawn)}))
			x := w.want(o.ID, api.Cancelled, map[token.Result]int64{token.Untried: 1})
			if x.Problem == nil || x.Problem.Code != problem.OrderWithdrawn {
				t.Errorf("got %+v, want %q", x.Problem, problem.OrderWithdrawn)
			}
			if notes := w.events(o.ID, "withdrawn"); len(notes) != 1 || !strings.Contains(notes[0], string(south.Identity)) {
				t.Errorf("got %q, want who withdrew it", notes)
			}
			again := w.withdrawal(o, 0) // by the other account, which changes nothing
			for _, so := range []api.SignedOrder{so, again} {
				peer := map[bool]int{true: 1, false: 0}[so.JWS[0] != again.JWS[0]]
				if got, err := w.b.Withdraw(t.Context(), peerOf(w.alice[peer]), o.ID, so, w.now); err != nil || got.WithdrawnBy != south.Identity || !slices.Equal(got.Untold, []token.Identity{away.peer.Identity}) {
					t.Errorf("again: got %+v (%v), want it as it is", got, err)
				}
			}
			if n := w.leaves(db.WithdrawLeaf); n != 1 {
				t.Errorf("got %d leaves, want 1", n)
			}
			w.crash()
			for k := int64(1); k < 4 && kind == "standing"; k++ {
				w.now = o.Due(k)
				w.step()
			}
			if got := w.info(o.ID); got.Runs != 1 || got.State != api.OrderWithdrawn {
				t.Errorf("got %+v, want no further run", got)
			}
			away.connect()
			w.acknowledge(away)
			if got := w.info(o.ID); len(got.Untold) != 0 {
				t.Errorf("got %v still untold, want nobody", got.Untold)
			}
		})
	}
}

// acknowledge lets agents answer a withdrawal, after each was told twice.
func (w *world) acknowledge(agents ...*fake) {
	w.t.Helper()
	for _, f := range agents {
		var k api.Task
		for n := 0; n < 2; {
			l := f.next()
			if l.Task == nil || l.Task.Kind != api.WithdrawTask {
				continue // what it is to stop
			}
			if k = *l.Task; n == 0 {
				// It is refused at first, as an agent does whose clock is wrong.
				f.page(k.ID, api.TaskPage{Entries: []api.Entry{}, Last: true, Problem: api.ProblemOf(problem.New(problem.ClockSkewed, ""))})
				w.now = w.now.Add(noticeAgain + time.Second)
			}
			n++
		}
		v, _, err := readOrder(k.Order)
		if err != nil || v.Claims.Do != token.Withdraw {
			w.t.Errorf("got %+v (%v), want the signed withdrawal", v.Claims, err)
		}
		f.page(k.ID, api.TaskPage{Entries: []api.Entry{}, Last: true})
		if _, err := w.b.PostPage(w.t.Context(), f.peer, k.ID, api.TaskPage{Last: true}, w.now); problem.Of(err) != problem.LeaseLost {
			w.t.Errorf("answering twice: got %v, want %q", err, problem.LeaseLost)
		}
	}
}

// TestWithdrawalsThatAreNotGood: nobody but an account of an order withdraws it, and not so that an agent may miss it.
func TestWithdrawalsThatAreNotGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o, other := w.order(hourly), w.order(hourly)
	w.submit(o)
	w.submit(other)
	long := certstest.Valid(w.now.Add(-time.Hour), w.now.Add(96*time.Hour))
	mallory := w.north.Issue(token.Subscriber, "mallory", long)
	forged := func(by *certstest.Leaf) api.SignedOrder {
		x := w.order(func(x *token.Order) {
			*x = token.Order{Accounts: []token.Identity{peerOf(by).Identity}, Do: token.Withdraw, Iat: x.Iat, Exp: o.Exp, ID: x.ID, Target: o.ID}
		})
		return w.sign(x, by)
	}
	alice := forged(w.alice[0])
	inName := w.sign(w.order(func(x *token.Order) {
		*x = token.Order{Accounts: []token.Identity{"spiffe://north/subscriber/alice"}, Do: token.Withdraw, Iat: x.Iat, Exp: o.Exp, ID: x.ID, Target: o.ID}
	}), mallory)
	for name, c := range map[string]struct {
		by   *certstest.Leaf
		so   api.SignedOrder
		want problem.Code
	}{
		"by a stranger":                    {mallory, forged(mallory), problem.Hidden},
		"in the name of the account":       {w.alice[0], inName, problem.OrderUnsigned},
		"handed in by a stranger":          {mallory, alice, problem.NotPermitted},
		"that ends before its target":      {w.alice[0], w.withdrawal(o, 0, func(x *token.Order) { x.Exp = o.Exp - 1 }), problem.Malformed},
		"of another order":                 {w.alice[0], w.withdrawal(other, 0), problem.WrongStatement},
		"that is no withdrawal":            {w.alice[0], w.sign(o), problem.WrongStatement},
		"of what does not exist":           {w.alice[0], w.withdrawal(w.order(), 0), problem.WrongStatement},
		"under the id of the order itself": {w.alice[0], w.withdrawal(o, 0, func(x *token.Order) { x.ID = other.ID }), problem.Conflict},
	} {
		if _, err := w.b.Withdraw(t.Context(), peerOf(c.by), o.ID, c.so, w.now); problem.Of(err) != c.want {
			t.Errorf("a withdrawal %s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := w.b.Withdraw(t.Context(), w.me(), w.order().ID, alice, w.now); problem.Of(err) != problem.Hidden {
		t.Errorf("an order that does not exist: got %v, want %q", err, problem.Hidden)
	}
	for _, fn := range []func() error{
		func() error { _, err := w.b.OrderInfo(t.Context(), peerOf(mallory), o.ID); return err },
		func() error { _, err := w.b.Runs(t.Context(), peerOf(mallory), o.ID, ""); return err },
	} {
		if err := fn(); problem.Of(err) != problem.Hidden {
			t.Errorf("a stranger looks: got %v, want %q", err, problem.Hidden)
		}
	}
	if page, err := w.b.Orders(t.Context(), peerOf(mallory), "", 0); err != nil || len(page.Items) != 0 {
		t.Errorf("a stranger lists: got %+v (%v), want nothing", page, err)
	}
	if _, err := w.b.Submit(t.Context(), w.me(), alice, w.now); problem.Of(err) != problem.WrongStatement {
		t.Errorf("a withdrawal as a transfer: got %v, want %q", err, problem.WrongStatement)
	}
	if got := w.info(o.ID); got.State != api.OrderActive {
		t.Errorf("got %+v, want it active", got)
	}
}

// TestWithdrawalSurvivesFaults: a withdrawal whose commit failed has not happened, and one whose answer was lost has.
func TestWithdrawalSurvivesFaults(t *testing.T) {
	t.Parallel()
	for when, want := range map[string]api.OrderState{"before commit": api.OrderActive, "after commit": api.OrderWithdrawn} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			o := w.order(hourly)
			w.submit(o)
			so := w.withdrawal(o, 0)
			w.b.fault = func(at string) error {
				if at == when {
					return errInjected
				}
				return nil
			}
			if _, err := w.b.Withdraw(t.Context(), w.me(), o.ID, so, w.now); !errors.Is(err, errInjected) {
				t.Fatalf("got %v, want the fault", err)
			}
			w.crash()
			if got := w.info(o.ID); got.State != want {
				t.Errorf("got %s, want %s", got.State, want)
			}
			if got, err := w.b.Withdraw(t.Context(), w.me(), o.ID, so, w.now); err != nil || got.State != api.OrderWithdrawn {
				t.Errorf("again: got %+v (%v), want it withdrawn", got, err)
			}
			if x := w.transfer(o.ID); x.State != api.Cancelled {
				t.Errorf("got %s, want %s", x.State, api.Cancelled)
			}
		})
	}
}
