package broker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestPartsWithoutEnd: numbered parts of a receipt tell of different items. An agent that tells of one item again and
// again neither fills the ledger nor takes back what it has signed.
func TestPartsWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10), object("b", 10))
	serve, receive := batch(src, dst)
	m := dst.manifest(receive)
	part := func(n int64, last bool) func(*token.Receipt) {
		return func(r *token.Receipt) { r.Part, r.Last = n, last }
	}
	dst.post(dst.receipt(receive, []token.Outcome{good(0, m.Items[0], token.Destination)}, part(1, false)))
	for n := int64(2); n < 5; n++ {
		again := dst.receipt(receive, []token.Outcome{bad(0, token.Failed, problem.DiskFull)}, part(n, false))
		if _, err := w.b.PostReceipt(t.Context(), dst.peer, again, w.now); problem.Of(err) != problem.Conflict {
			t.Errorf("part %d about the same item: got %v, want %s", n, err, problem.Conflict)
		}
	}
	dst.post(dst.receipt(receive, []token.Outcome{good(1, m.Items[1], token.Destination)}, part(2, true)))
	if _, err := w.b.PostReceipt(t.Context(), dst.peer, dst.receipt(receive, []token.Outcome{}, part(3, true)), w.now); problem.Of(err) != problem.Conflict {
		t.Errorf("a part behind the last: got %v, want %s", err, problem.Conflict)
	}
	src.post(src.receipt(serve, nil))
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 2})
	if _, err := w.b.PostReceipt(t.Context(), src.peer, src.receipt(serve, []token.Outcome{}, part(7, true)), w.now); problem.Of(err) != problem.Conflict {
		t.Errorf("a part after the batch: got %v, want %s", err, problem.Conflict)
	}
}

// TestDeliveryIsDenied: a refusal is not signed. An agent cannot use it to deny what the other side has signed for, nor to
// take back its own receipt.
func TestDeliveryIsDenied(t *testing.T) {
	t.Parallel()
	refuse := *api.ProblemOf(problem.New(problem.NotPermitted, "I never saw it"))
	t.Run("by the source", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		src, dst := w.pair()
		id := w.submit(w.order())
		src.list(object("a", 10))
		serve, receive := batch(src, dst)
		dst.post(dst.receipt(receive, nil))
		if err := w.b.Refuse(t.Context(), src.peer, serve.ID, refuse, w.now); err != nil {
			t.Fatal(err)
		}
		if got := w.want(id, api.Complete, map[token.Result]int64{token.Stored: 1}); fmt.Sprint(got.Flags) != "[unmatched]" {
			t.Errorf("got flags %v, want unmatched: the source has signed nothing", got.Flags)
		}
	})
	t.Run("by who has signed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		src, dst := w.pair()
		id := w.submit(w.order())
		src.list(object("a", 10))
		serve, receive := batch(src, dst)
		dst.post(dst.receipt(receive, nil))
		if err := w.b.Refuse(t.Context(), dst.peer, receive.ID, refuse, w.now); err != nil {
			t.Fatal(err)
		}
		src.post(src.receipt(serve, nil))
		w.want(id, api.Complete, map[token.Result]int64{token.Stored: 1})
	})
	t.Run("by the destination", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		src, dst := w.pair()
		id := w.submit(w.order())
		src.list(object("a", 10))
		serve, receive := batch(src, dst)
		src.post(src.receipt(serve, nil))
		if err := w.b.Refuse(t.Context(), dst.peer, receive.ID, refuse, w.now); err != nil {
			t.Fatal(err)
		}
		got := w.want(id, api.Failed, map[token.Result]int64{token.Denied: 1})
		if got.Problem.Code != problem.NotPermitted {
			t.Errorf("got %+v, want the destination's reason", got.Problem)
		}
	})
}

// TestRenewalsWithoutEnd: each generation is a leaf that stays. However often and under however many certificates an
// agent asks, their number grows with time alone.
func TestRenewalsWithoutEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		life time.Duration // of the order
		leaf func(n int) token.Hash
	}{
		{"at once", 48 * time.Hour, func(int) token.Hash { return "" }},
		{"near the order's end", 10 * time.Minute, func(int) token.Hash { return "" }},
		{"under two certificates in turn", 48 * time.Hour, func(n int) token.Hash { return token.HashOf([]byte{byte(n % 2)}) }},
	} {
		if testing.Short() && tt.name == "at once" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			src, dst := w.pair()
			id := w.submit(w.order(func(o *token.Order) { o.Exp = w.now.Add(tt.life).Unix() }))
			src.list(object("a", 10))
			_, receive := batch(src, dst)
			keys, err := token.ParseKeySet(w.b.Keys(), w.b.Self())
			if err != nil {
				t.Fatal(err)
			}
			gen := int64(0)
			for n := range 300 {
				w.now = w.now.Add(time.Second)
				peer := dst.peer
				if leaf := tt.leaf(n); leaf != "" {
					peer.Leaf = leaf
				}
				r, err := w.b.Renew(t.Context(), peer, api.Ref{Xfr: id, Bat: receive.Bat}, w.now)
				if problem.Of(err) == problem.Overloaded {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				v, err := token.VerifyCapability(r.Capability, keys)
				if err != nil || v.Claims.Cnf != peer.Leaf {
					t.Fatalf("got %+v, %v, want a capability for the caller", v.Claims, err)
				}
				gen = v.Claims.Gen
			}
			if gen > 32 {
				t.Errorf("got generation %d after 300 renewals in five minutes, want 32 at most", gen)
			}
		})
	}
}

// TestPagesThatNeverEnd: an agent that sends first pages and never the last one, task after task, leaves nothing in memory.
func TestPagesThatNeverEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10))
	serve, receive := batch(src, dst)
	dst.post(dst.receipt(receive, []token.Outcome{bad(0, token.Altered, problem.Changed)}))
	src.post(src.receipt(serve, []token.Outcome{bad(0, token.Altered, problem.Changed)}))
	w.now = w.now.Add(time.Minute)
	for range 3 {
		stat := src.task(api.StatTask)
		src.page(stat.ID, api.TaskPage{Entries: []api.Entry{object("x", 1), object("y", 1)}})
		for range 4 { // silence, but for a sign of life
			w.now = w.now.Add(3 * time.Minute)
			for _, f := range []*fake{src, dst} {
				if _, err := w.b.Beat(t.Context(), f.peer, api.Beat{}, w.now); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.step()
		w.step()
		w.b.mu.Lock()
		n := len(w.b.partial)
		w.b.mu.Unlock()
		if n != 0 {
			t.Fatalf("got the pages of %d tasks in memory after their leases, want none", n)
		}
	}
	if _, err := w.b.Cancel(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
}

// TestFaultsCountAgainstTheLimit: a source that lists nothing but faults reaches the order's limit like any other.
func TestFaultsCountAgainstTheLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.pair()
	id := w.submit(w.order(func(o *token.Order) { o.Limits.Items = 3 }))
	k := src.task(api.ListTask)
	var es []api.Entry
	for i := range 10 {
		es = append(es, api.Entry{Name: token.ObjectName(fmt.Sprint(i)), Code: problem.Unreadable})
	}
	if a := src.page(k.ID, api.TaskPage{Entries: es}); a.More {
		t.Error("got more pages wanted beyond the limit")
	}
	w.want(id, api.Failed, map[token.Result]int64{token.Failed: 3})
}

// TestLookupsWithoutEnd: one subscriber does not take every place among the lookups.
func TestLookupsWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pair()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	list := func() api.Lookup {
		return api.Lookup{Order: w.sign(w.order(func(o *token.Order) {
			o.Do, o.To, o.IfExists, o.Accounts = token.List, token.Location{}, "", o.Accounts[:1]
		}))}
	}
	refused := make(chan struct{}, 2*maxLookupsBy)
	var wg sync.WaitGroup
	for range 2 * maxLookupsBy {
		l := list()
		wg.Go(func() {
			if _, err := w.b.Lookup(ctx, w.me(), l, w.now); problem.Of(err) == problem.Overloaded {
				refused <- struct{}{}
			}
		})
	}
	for range maxLookupsBy {
		select {
		case <-refused:
		case <-time.After(10 * time.Second):
			t.Fatal("waited in vain for half of the lookups to be refused")
		}
	}
	w.b.mu.Lock()
	n := len(w.b.lookups)
	w.b.mu.Unlock()
	if n != maxLookupsBy {
		t.Errorf("got %d lookups of one subscriber, want %d", n, maxLookupsBy)
	}
	cancel()
	wg.Wait()
}

// TestListingGoesOnBehindASubtree: a store that lists "a-b" between "a" and what is in it would tell of both for ever, one entry a page.
func TestListingGoesOnBehindASubtree(t *testing.T) {
	t.Parallel()
	tree, object := api.Entry{Name: "d/a", Type: "container"}, api.Entry{Name: "d/a", Type: "object"}
	level, whole := &lookup{task: &api.Task{Level: true}}, &lookup{task: &api.Task{}}
	if got := level.behind(tree); got <= "d/a/zzz" || got >= "d/a0" {
		t.Errorf("got %q, want a name behind all of the subtree and before the next", got)
	}
	for _, got := range []token.ObjectName{level.behind(object), whole.behind(tree), whole.behind(object)} {
		if got != "d/a" {
			t.Errorf("got %q, want the name itself", got)
		}
	}
}

// TestStandingOrdersWithoutEnd: each standing order makes runs by itself. An account has so many and no more, until it withdraws one or one ends;
// others have theirs.
func TestStandingOrdersWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	submit := func(o token.Order) error { _, err := w.b.Submit(t.Context(), w.me(), w.sign(o), w.now); return err }
	var last token.Order
	for range maxStanding {
		last = w.order(func(o *token.Order) { o.Period = 60 })
		if err := submit(last); err != nil {
			t.Fatal(err)
		}
	}
	more := w.order(func(o *token.Order) { o.Period = 60 })
	if err := submit(more); problem.Of(err) != problem.TooLarge {
		t.Errorf("one too many: got %v, want %s", err, problem.TooLarge)
	}
	if err := submit(last); err != nil {
		t.Errorf("one of them again: %v", err)
	}
	if err := submit(w.order()); err != nil {
		t.Errorf("an order that runs once: %v", err)
	}
	withdrawal := token.Order{Accounts: last.Accounts[:1], Do: token.Withdraw, Iat: last.Iat, Exp: last.Exp, ID: w.order().ID, Target: last.ID}
	if _, err := w.b.Withdraw(t.Context(), w.me(), last.ID, w.sign(withdrawal), w.now); err != nil {
		t.Fatal(err)
	}
	if err := submit(more); err != nil {
		t.Errorf("once one was withdrawn: %v", err)
	}
}

// TestPausesWithoutEnd: the list of revocations is bounded, and whoever pauses one transfer after another fills it. What falls out is his own: the
// transfer of another that was stopped stays on it.
func TestPausesWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id, _, _ := w.under(src, dst)
	mallory := [2]*certstest.Leaf{w.subscriber(w.north, "mallory"), w.subscriber(w.south, "mallory")}
	if _, err := w.b.Cancel(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
	const limit = 8
	at := w.now.Add(time.Hour) // each of his ends later
	for range 2 * limit {
		o := w.order(func(o *token.Order) {
			o.Accounts = []token.Identity{"spiffe://north/subscriber/mallory", "spiffe://south/subscriber/mallory"}
		})
		if _, err := w.b.Submit(t.Context(), peerOf(mallory[0]), w.sign(o, mallory[:]...), w.now); err != nil {
			t.Fatal(err)
		}
		if err := w.b.write(t.Context(), w.now, func(w *work) error {
			return w.PutRevocation(t.Context(), db.Revocation{Xfr: o.ID, Reason: token.ByPause, Ends: at}, limit)
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.b.db.Read(t.Context(), func(tx *db.Tx) error {
		rs, err := tx.Revocations(t.Context())
		if len(rs) != limit || !slices.ContainsFunc(rs, func(r db.Revocation) bool { return r.Xfr == id }) {
			t.Errorf("got %+v, want %d with the transfer %s", rs, limit, id)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
