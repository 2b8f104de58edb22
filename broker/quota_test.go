package broker

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// filled returns what is in a container, and what is held in it.
func (w *world) filled(at string) (used, held int64) {
	w.t.Helper()
	l := spotAt(w.t, at)
	if err := w.b.db.Read(context.Background(), func(tx *db.Tx) error {
		s, err := w.b.tree.Spot(context.Background(), tx, l, acl.Container)
		if err != nil {
			return err
		}
		used = s.Node.Size
		held, err = tx.Held(context.Background(), l)
		return err
	}); err != nil {
		w.t.Error(err)
	}
	return used, held
}

// assign gives a container an assigned size.
func (w *world) assign(at string, size int64) {
	w.t.Helper()
	w.wish(at, acl.Container, space.AssignedSize, fmt.Sprintf("%q", fmt.Sprint(size)))
}

// unfinished is how many transfers have not ended.
func (w *world) unfinished() (n int) {
	w.t.Helper()
	if err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) error {
		ts, err := tx.Unfinished(w.t.Context(), "", 1<<16)
		n = len(ts)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestAThousandOrdersKeepToAQuota has many orders of 10 bytes come at once, their sources described at once, and their batches carried out at once, into a
// container that has room for some of them, which is in another that has room for fewer. After every commit what is there and what is held is
// no more than either size; in the end both are full.
func TestAThousandOrdersKeepToAQuota(t *testing.T) {
	t.Parallel()
	orders, fit := 1000, 150
	if testing.Short() {
		orders, fit = 100, 30
	}
	const size = 10
	w := newWorld(t)
	src, dst := w.agent(w.north, "n1", "src"), w.agent(w.south, "s1", "dst")
	src.hello.Slots, dst.hello.Slots = 64, 64
	src.connect()
	dst.connect()
	w.allow("south:/dst", grant("south", everything))
	w.wish("south:/dst/in", acl.Container, "colour", `"red"`)
	w.assign("south:/dst", int64(fit)*size+size-1)
	w.assign("south:/dst/in", int64(2*fit)*size)
	var mu sync.Mutex
	most, commits := int64(0), 0
	w.b.fault = func(at string) error {
		if at != "after commit" {
			return nil
		}
		used, held := w.filled("south:/dst")
		mu.Lock()
		defer mu.Unlock()
		commits++
		if most = max(most, used+held); used+held > int64(fit)*size+size-1 {
			t.Errorf("%d bytes are there and %d are held, of %d", used, held, int64(fit)*size+size-1)
		}
		return nil
	}
	t.Cleanup(func() { w.b.fault = func(string) error { return nil } })

	var all sync.WaitGroup
	at := make(chan struct{}, 16) // at once
	each := func(fn func()) {
		at <- struct{}{}
		all.Go(func() { fn(); <-at })
	}
	for i := range orders {
		o := w.order(one, func(o *token.Order) { o.To.Name = token.ObjectName(fmt.Sprintf("in/%d", i)) })
		so := w.sign(o)
		each(func() {
			if _, err := w.b.Submit(context.Background(), w.me(), so, w.now); err != nil {
				t.Errorf("order %d: %v", i, err)
			}
		})
	}
	all.Wait()
	answer := func(f *fake, k api.Task) {
		var err error
		switch k.Kind {
		case api.StatTask:
			_, err = w.b.PostPage(context.Background(), f.peer, k.ID, api.TaskPage{Entries: []api.Entry{object("a", size)}, Last: true}, w.now)
		case api.ServeTask, api.ReceiveTask:
			_, err = w.b.PostReceipt(context.Background(), f.peer, f.receipt(k, nil), w.now)
		}
		if err != nil {
			t.Errorf("answering a task to %s: %v", k.Kind, err)
		}
	}
	for deadline := time.Now().Add(4 * time.Minute); w.unfinished() > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%d transfers have not ended", w.unfinished())
		}
		w.step()
		for _, f := range []*fake{src, dst} {
			f.mu.Lock()
			lines := f.lines
			f.lines = nil
			for range len(f.more) {
				<-f.more
			}
			f.mu.Unlock()
			for _, l := range lines {
				if l.Task != nil {
					each(func() { answer(f, *l.Task) })
				}
			}
		}
		all.Wait()
	}
	used, held := w.filled("south:/dst")
	if used != int64(fit)*size || held != 0 {
		t.Errorf("in the end %d bytes are there and %d held, want %d and none", used, held, fit*size)
	}
	if used, held := w.filled("south:/dst/in"); used != int64(fit)*size || held != 0 {
		t.Errorf("in the inner container %d bytes are there and %d held, want %d and none", used, held, fit*size)
	}
	t.Logf("%d commits, at most %d bytes there and held", commits, most)
}

// TestQuotaOfATree: of a tree goes what fits, in the order of its names, and the rest is denied with the numbers.
func TestQuotaOfATree(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("south:/dst", grant("south", everything))
	w.assign("south:/dst/copy/small", 25)
	id := w.submit(w.order())
	src.list(object("big/x", 1000), object("small/a", 10), object("small/b", 20), object("small/c", 15), object("small/d", 0), object("small/e", 1))
	if used, held := w.filled("south:/dst/copy/small"); used != 0 || held != 25 {
		t.Errorf("got %d bytes there and %d held, want 25 held", used, held)
	}
	serve, receive := batch(src, dst)
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	got := w.want(id, api.Partial, map[token.Result]int64{token.Stored: 4, token.Denied: 2})
	if n := len(got.Denials); n != 1 || got.Denials[0].Code != problem.QuotaExceeded || !strings.Contains(got.Denials[0].Note, "15 of its assigned size of 25") {
		t.Errorf("got the denials %+v", got.Denials)
	}
	if used, held := w.filled("south:/dst/copy/small"); used != 25 || held != 0 {
		t.Errorf("got %d bytes there and %d held, want 25 there", used, held)
	}
}

// TestRoomComesBack: what a batch held and did not store is free for others, whatever became of it, also after a kill.
func TestRoomComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("south:/dst", grant("south", everything))
	w.assign("south:/dst", 30)
	id := w.submit(w.order())
	src.list(object("a", 10), object("b", 20))
	serve, receive := batch(src, dst)
	src.leave()
	dst.leave()
	w.crash()
	if _, held := w.filled("south:/dst"); held != 30 {
		t.Errorf("after a kill %d bytes are held, want 30", held)
	}
	src.connect()
	dst.connect()
	src.next()
	dst.next()
	m := dst.manifest(receive)
	dst.post(dst.receipt(receive, []token.Outcome{good(0, m.Items[0], token.Destination), bad(1, token.Failed, problem.Timeout)}))
	src.post(src.receipt(serve, nil))
	if used, held := w.filled("south:/dst"); used != 10 || held != 20 {
		t.Errorf("got %d bytes there and %d held by what is tried again, want 10 and 20", used, held)
	}
	if _, err := w.b.Cancel(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
	w.step()
	if used, held := w.filled("south:/dst"); used != 10 || held != 0 {
		t.Errorf("got %d bytes there and %d held after the end, want 10 and none", used, held)
	}
}

// TestQuotaComesLater: a container gets its size while batches are on their way. What agents have begun counts as held, whatever its size; what
// waits is denied as far as it does not fit.
func TestQuotaComesLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.agent(w.north, "n1", "src"), w.agent(w.south, "s1", "dst")
	src.hello.Slots = 1
	src.connect()
	dst.connect()
	w.allow("south:/dst", grant("south", everything))
	first := w.submit(w.order(one))
	src.page(src.task(api.StatTask).ID, api.TaskPage{Entries: []api.Entry{object("a", 40)}, Last: true})
	serve, receive := batch(src, dst)
	second := w.submit(w.order(func(o *token.Order) { o.To.Name = "two" }))
	src.list(object("x", 5), object("y", 7))
	w.assign("south:/dst", 50)
	third := w.submit(w.order(func(o *token.Order) { o.To.Name = "three" }))
	src.list(object("z", 1))
	if used, held := w.filled("south:/dst"); used != 0 || held != 52 {
		t.Errorf("got %d bytes there and %d held, want 52 held: 40 begun and 12 that wait", used, held)
	}
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.want(first, api.Complete, map[token.Result]int64{token.Stored: 1})
	w.want(third, api.Failed, map[token.Result]int64{token.Denied: 1})
	serve, receive = batch(src, dst)
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.want(second, api.Partial, map[token.Result]int64{token.Stored: 1, token.Denied: 1})
	if used, held := w.filled("south:/dst"); used != 47 || held != 0 {
		t.Errorf("got %d bytes there and %d held, want 47 there", used, held)
	}
}

// TestSourceGrowsBeyondTheQuota: what is described anew with another size needs room for it.
func TestSourceGrowsBeyondTheQuota(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("south:/dst", grant("south", everything))
	w.assign("south:/dst", 30)
	id := w.submit(w.order())
	src.list(object("a", 10), object("b", 10))
	serve, receive := batch(src, dst)
	changed := []token.Outcome{bad(0, token.Altered, problem.Changed), bad(1, token.Altered, problem.Changed)}
	dst.post(dst.receipt(receive, changed))
	src.post(src.receipt(serve, changed))
	w.now = w.now.Add(time.Minute)
	k := src.task(api.StatTask)
	src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("a", 20), object("b", 11)}, Last: true})
	if _, held := w.filled("south:/dst"); held != 20 {
		t.Errorf("got %d bytes held, want 20", held)
	}
	serve, receive = batch(src, dst)
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	got := w.want(id, api.Partial, map[token.Result]int64{token.Stored: 1, token.Denied: 1})
	if n := len(got.Denials); n != 1 || got.Denials[0].Code != problem.QuotaExceeded {
		t.Errorf("got the denials %+v", got.Denials)
	}
}
