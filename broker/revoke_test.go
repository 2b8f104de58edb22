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
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// newest waits for a list of revocations on the agent's stream that ok accepts.
func (f *fake) newest(ok func(token.Revocation) bool) token.Revocation {
	f.w.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		f.mu.Lock()
		n, last := len(f.lists), token.Revocation{}
		if n > 0 {
			last = f.lists[n-1]
		}
		f.mu.Unlock()
		if n > 0 && ok(last) {
			return last
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			f.w.t.Fatalf("%s got %d lists of revocations, and none as it should be", f.peer.Identity, n)
		}
	}
}

// reasonIn is why a transfer is in a list; empty if it is not.
func reasonIn(l token.Revocation, id token.TransferID) token.Reason {
	for _, e := range l.Revoked {
		if e.Xfr == id {
			return e.Reason
		}
	}
	return ""
}

func revoked(id token.TransferID, want token.Reason) func(token.Revocation) bool {
	return func(l token.Revocation) bool { return reasonIn(l, id) == want }
}

// leavesOf returns the bodies of all leaves of a kind.
func (w *world) leavesOf(kind db.LeafKind) (out []string) {
	w.t.Helper()
	if err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) error {
		return tx.Leaves(w.t.Context(), 0, func(_ int64, l db.Leaf) error {
			if l.Kind == kind {
				out = append(out, string(l.Body))
			}
			return nil
		})
	}); err != nil {
		w.t.Fatal(err)
	}
	return out
}

// under is a transfer under way, with a live batch of two items of which both agents know.
func (w *world) under(src, dst *fake) (id token.TransferID, serve, receive api.Task) {
	w.t.Helper()
	id = w.submit(w.order())
	src.list(object("a", 10), object("b", 20))
	serve, receive = batch(src, dst)
	return id, serve, receive
}

func TestCancelRevokes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id, _, receive := w.under(src, dst)
	if got := w.b.Revocations(0); got.JWS != "" {
		t.Errorf("got a list before anything was revoked")
	}
	if _, err := w.b.Cancel(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
	until := w.batchRow(id, receive.Bat).CapExp.Add(token.ClockSkew).Unix()
	for _, f := range []*fake{src, dst} {
		if l := f.next(); l.Drop == nil {
			t.Errorf("%s got %s, want a drop", f.peer.Identity, show(l))
		}
		l := f.newest(revoked(id, token.ByCancel)) // it came before the drop
		if l.Iss != w.b.self || l.Revoked[0].Until != until {
			t.Errorf("got %+v, want it of %s until %d", l, w.b.self, until)
		}
		if polled := w.list(w.b.Revocations(l.Epoch - 1).JWS); polled.Epoch != l.Epoch || reasonIn(polled, id) != token.ByCancel {
			t.Errorf("who polls gets %+v, want %+v", polled, l)
		}
		if again := w.b.Revocations(l.Epoch); again.JWS != "" {
			t.Errorf("who has the list gets it again")
		}
	}
	if ls := w.leavesOf(db.RevokeLeaf); len(ls) != 1 || !strings.Contains(ls[0], `"reason":"cancelled"`) || !strings.Contains(ls[0], string(id)) {
		t.Errorf("got leaves %q, want one of the cancellation", ls)
	}
}

// TestNothingToRevoke: a transfer without a capability that may live is in no list.
func TestNothingToRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	queued := w.submit(w.order())
	if _, err := w.b.Cancel(t.Context(), w.me(), queued, w.now); err != nil {
		t.Fatal(err)
	}
	src.lines = nil
	id, _, _ := w.under(src, dst)
	w.now = w.now.Add(w.b.conf.CapabilityLife + token.ClockSkew)
	if _, err := w.b.Cancel(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
	if got := w.b.Revocations(0); got.JWS != "" {
		t.Errorf("got %+v, want no list", w.list(got.JWS))
	}
}

// TestEntriesLeaveTheList: what can live no more is listed no more, so that the list is bounded by the life of capabilities.
func TestEntriesLeaveTheList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	first, _, _ := w.under(src, dst)
	if _, err := w.b.Pause(t.Context(), w.me(), first, w.now); err != nil {
		t.Fatal(err)
	}
	src.newest(revoked(first, token.ByPause))
	w.now = w.now.Add(w.b.conf.CapabilityLife + token.ClockSkew)
	second := w.submit(w.order(func(o *token.Order) { o.To.Name = "elsewhere" }))
	src.list(object("c", 10))
	batch(src, dst)
	if _, err := w.b.Pause(t.Context(), w.me(), second, w.now); err != nil {
		t.Fatal(err)
	}
	if l := dst.newest(revoked(second, token.ByPause)); len(l.Revoked) != 1 {
		t.Errorf("got %+v, want the second transfer alone", l)
	}
}

// TestEpochsGrow over restarts, with a clock that goes back, and after a backup was restored.
func TestEpochsGrow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id, _, _ := w.under(src, dst)
	last := int64(0)
	grows := func(what string) {
		t.Helper()
		l := w.list(w.b.Revocations(0).JWS)
		if l.Epoch <= last {
			t.Errorf("%s: got epoch %d after %d", what, l.Epoch, last)
		}
		last = l.Epoch
	}
	if _, err := w.b.Pause(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
	grows("a pause")
	if _, err := w.b.Resume(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
	grows("a resumption in the same millisecond")
	src.leave()
	dst.leave()
	w.now = w.now.Add(-time.Hour)
	w.crash()
	grows("a start with the clock of an hour ago")
	w.now = w.now.Add(2 * time.Hour)
	// An older state, as from a backup: what agents have seen is beyond it, and the start is beyond what they have seen.
	if err := w.b.db.Write(t.Context(), func(tx *db.Tx) error { return tx.SetEpoch(t.Context(), 1000, 1) }); err != nil {
		t.Fatal(err)
	}
	w.crash()
	grows("a start from a backup")
}

// TestRevocationIsCommittedBeforeItIsTold: killed on either side of the commit, the broker has either done nothing, or tells
// everybody when it is back.
func TestRevocationIsCommittedBeforeItIsTold(t *testing.T) {
	t.Parallel()
	resume := func(w *world, id token.TransferID) error {
		_, err := w.b.Resume(w.t.Context(), w.me(), id, w.now)
		return err
	}
	for i, tt := range []struct {
		when string
		do   func(*world, token.TransferID) error
		want token.Reason
	}{
		{"before commit", resume, token.ByPause},
		{"after commit", resume, ""},
		{"before commit", func(w *world, id token.TransferID) error {
			_, err := w.b.Cancel(w.t.Context(), w.me(), id, w.now)
			return err
		}, ""},
		{"after commit", func(w *world, id token.TransferID) error {
			_, err := w.b.Cancel(w.t.Context(), w.me(), id, w.now)
			return err
		}, token.ByCancel},
		{"before commit", func(w *world, id token.TransferID) error {
			_, err := w.b.Pause(w.t.Context(), w.me(), id, w.now)
			return err
		}, ""},
		{"after commit", func(w *world, id token.TransferID) error {
			_, err := w.b.Pause(w.t.Context(), w.me(), id, w.now)
			return err
		}, token.ByPause},
	} {
		t.Run(fmt.Sprint(i, " ", tt.when), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			src, dst := w.pair()
			id, _, _ := w.under(src, dst)
			if resuming := i < 2; resuming {
				if _, err := w.b.Pause(t.Context(), w.me(), id, w.now); err != nil {
					t.Fatal(err)
				}
			}
			src.leave() // what is told in the moment of the kill is told to nobody
			dst.leave()
			w.b.fault = func(at string) error {
				if at == tt.when {
					return errInjected
				}
				return nil
			}
			if err := tt.do(w, id); !errors.Is(err, errInjected) {
				t.Fatalf("got %v, want the kill", err)
			}
			w.crash()
			src.connect()
			dst.connect()
			if tt.want == "" {
				if got := w.transfer(id); got.State != api.Running {
					t.Errorf("got %s, want it running", got.State)
				}
				if l := w.b.Revocations(0); l.JWS != "" && reasonIn(w.list(l.JWS), id) != "" {
					t.Error("got it in the list")
				}
				return
			}
			for _, f := range []*fake{src, dst} {
				f.newest(revoked(id, tt.want))
			}
		})
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	k := src.task(api.ListTask)
	src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("a", 10), object("b", 10)}})
	_, receive := batch(src, dst)
	got, err := w.b.Pause(t.Context(), w.me(), id, w.now)
	if err != nil || got.State != api.Paused || !strings.Contains(got.Waiting, "when it is resumed") {
		t.Fatalf("got %+v, %v, want it paused", got, err)
	}
	for _, f := range []*fake{src, dst} {
		f.newest(revoked(id, token.ByPause))
	}
	ref := api.Ref{Xfr: id, Bat: receive.Bat}
	if _, err := w.b.Renew(t.Context(), dst.peer, ref, w.now); problem.Of(err) != problem.CapRevoked {
		t.Errorf("renewing a paused batch: got %v, want %s", err, problem.CapRevoked)
	}
	if _, err := w.b.PostPage(t.Context(), src.peer, k.ID, api.TaskPage{Last: true}, w.now); problem.Of(err) != problem.LeaseLost {
		t.Errorf("going on with the listing: got %v, want %s", err, problem.LeaseLost)
	}
	// Far longer than any lease: nobody is waited for, nothing is begun, and the batch stays where its chunks are.
	for range 5 {
		w.now = w.now.Add(time.Hour)
		w.step()
	}
	src.leave()
	dst.leave()
	if drop := dst.connect().Drop; len(drop) != 0 {
		t.Errorf("got %v to drop, want nothing", drop)
	}
	src.connect()
	w.step()
	if len(src.lines) > 0 || len(dst.lines) > 0 {
		t.Errorf("got work in a pause: %d and %d lines", len(src.lines), len(dst.lines))
	}
	if got, err = w.b.Resume(t.Context(), w.me(), id, w.now); err != nil || got.State != api.Running {
		t.Fatalf("got %+v, %v, want it running", got, err)
	}
	again := dst.task(api.ReceiveTask)
	if again.Bat != receive.Bat {
		t.Errorf("got batch %d, want batch %d, whose chunks are held", again.Bat, receive.Bat)
	}
	tasks := map[api.TaskKind]api.Task{}
	for len(tasks) < 2 {
		k := *src.next().Task
		tasks[k.Kind] = k
	}
	if got := tasks[api.ListTask].After; got != "b" {
		t.Errorf("the listing goes on after %q, want b", got)
	}
	src.page(tasks[api.ListTask].ID, api.TaskPage{Last: true})
	dst.post(dst.receipt(again, nil))
	src.post(src.receipt(tasks[api.ServeTask], nil))
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 2})
	if n := len(w.leavesOf(db.PauseLeaf)); n != 2 {
		t.Errorf("got %d leaves of pauses, want that and the resumption", n)
	}
}

// TestResumedSoon: within the life of its capabilities a transfer goes on with them, since the list does not have it any more.
func TestResumedSoon(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id, serve, receive := w.under(src, dst)
	if _, err := w.b.Pause(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
	paused := dst.newest(revoked(id, token.ByPause))
	if _, err := w.b.Resume(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
	if l := dst.newest(revoked(id, "")); l.Epoch <= paused.Epoch {
		t.Errorf("got epoch %d after %d", l.Epoch, paused.Epoch)
	}
	if again := dst.task(api.ReceiveTask); again.Capability != receive.Capability {
		t.Errorf("got another capability, want the one that is good again")
	}
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 2})
}

// TestPausedForLong: after an hour others may have the names. Resuming takes them back, or what is left waits for them.
func TestPausedForLong(t *testing.T) {
	t.Parallel()
	for _, rival := range []bool{false, true} {
		w := newWorld(t)
		src, dst := w.pair()
		id, serve, receive := w.under(src, dst)
		if _, err := w.b.Pause(t.Context(), w.me(), id, w.now); err != nil {
			t.Fatal(err)
		}
		other := w.submit(w.order())
		src.list(object("b", 20))
		w.now = w.now.Add(keepNames - time.Second)
		w.step()
		if got := w.transfer(other); got.BytesMoved != 0 || !strings.Contains(got.Waiting, "claimed") {
			t.Errorf("within the hour: got %+v, want the other to wait for the name", got)
		}
		if !rival {
			if _, err := w.b.Cancel(t.Context(), w.me(), other, w.now); err != nil {
				t.Fatal(err)
			}
		}
		w.now = w.now.Add(time.Second)
		w.step()
		w.step()
		if rival {
			theirs, mine := batch(src, dst)
			dst.post(dst.receipt(mine, nil))
			if _, err := w.b.Resume(t.Context(), w.me(), id, w.now); err != nil {
				t.Fatal(err)
			}
			for _, f := range []*fake{src, dst} {
				if l := f.next(); l.Drop == nil || l.Drop.Bat != receive.Bat || l.Drop.Xfr != id {
					t.Fatalf("got %s, want the batch dropped whose names another has", show(l))
				}
			}
			src.post(src.receipt(theirs, nil))
			m := dst.manifest(receive)
			dst.post(dst.receipt(receive, []token.Outcome{good(0, m.Items[0], token.Destination), bad(1, token.Untried, problem.Cancelled)}))
			src.post(src.receipt(serve, []token.Outcome{good(0, m.Items[0], token.Source), bad(1, token.Untried, problem.Cancelled)}))
			w.now = w.now.Add(time.Minute)
			theirs, mine = batch(src, dst) // what is left, once the name is free
			dst.post(dst.receipt(mine, []token.Outcome{bad(0, token.TakenBy, problem.Taken)}))
			src.post(src.receipt(theirs, []token.Outcome{bad(0, token.Untried, problem.Untried)}))
			w.want(id, api.Partial, map[token.Result]int64{token.Stored: 1, token.TakenBy: 1})
			continue
		}
		if _, err := w.b.Resume(t.Context(), w.me(), id, w.now); err != nil {
			t.Fatal(err)
		}
		again := dst.task(api.ReceiveTask)
		if again.Bat != receive.Bat {
			t.Errorf("got batch %d, want batch %d, whose chunks are held", again.Bat, receive.Bat)
		}
		third := w.submit(w.order())
		for l := src.next(); ; l = src.next() {
			if l.Task != nil && l.Task.Kind == api.ListTask {
				src.page(l.Task.ID, api.TaskPage{Entries: []api.Entry{object("b", 20)}, Last: true})
				break
			}
		}
		w.step()
		if got := w.transfer(third); !strings.Contains(got.Waiting, "claimed") {
			t.Errorf("after the resumption: got %+v, want another to wait for the name", got)
		}
	}
}

func TestPausesThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id, _, _ := w.under(src, dst)
	stranger := peerOf(w.north.Issue(token.Subscriber, "mallory"))
	pause := func() error { _, err := w.b.Pause(t.Context(), w.me(), id, w.now); return err }
	resume := func() error { _, err := w.b.Resume(t.Context(), w.me(), id, w.now); return err }
	for _, tt := range []struct {
		name string
		do   func() error
		want problem.Code
		says string
	}{
		{"resuming what runs", resume, problem.Conflict, "is not paused: it is running"},
		{"a stranger's pause", func() error { _, err := w.b.Pause(t.Context(), stranger, id, w.now); return err }, problem.Hidden, "no transfer of that id"},
		{"a pause", pause, "", ""},
		{"pausing twice", pause, problem.Conflict, "paused already"},
		{"a stranger's resumption", func() error { _, err := w.b.Resume(t.Context(), stranger, id, w.now); return err }, problem.Hidden, "no transfer of that id"},
		{"resuming", resume, "", ""},
		{"resuming twice", resume, problem.Conflict, "is not paused"},
		{"cancelling", func() error { _, err := w.b.Cancel(t.Context(), w.me(), id, w.now); return err }, "", ""},
		{"pausing an ended one", pause, problem.Conflict, "already ended: it is cancelled"},
		{"resuming an ended one", resume, problem.Conflict, "already ended: it is cancelled"},
	} {
		err := tt.do()
		if problem.Of(err) != tt.want || err != nil && !strings.Contains(problem.As(err).Sentence(), tt.says) {
			t.Errorf("%s: got %v, want %s %q", tt.name, err, tt.want, tt.says)
		}
	}
}

// TestPausedTransfersEnd when they are cancelled or their order ends, and agents are told.
func TestPausedTransfersEnd(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		as api.State
		do func(*world, token.TransferID)
	}{
		{api.Cancelled, func(w *world, id token.TransferID) {
			if _, err := w.b.Cancel(w.t.Context(), w.me(), id, w.now); err != nil {
				w.t.Fatal(err)
			}
		}},
		{api.Expired, func(w *world, _ token.TransferID) { w.now = w.now.Add(48 * time.Hour) }},
	} {
		w := newWorld(t)
		src, dst := w.pair()
		id, serve, receive := w.under(src, dst)
		if _, err := w.b.Pause(t.Context(), w.me(), id, w.now); err != nil {
			t.Fatal(err)
		}
		tt.do(w, id)
		for _, f := range []*fake{src, dst} {
			if l := f.next(); l.Drop == nil {
				t.Errorf("%s: got %s, want a drop", tt.as, show(l))
			}
		}
		if tt.as == api.Cancelled {
			src.newest(revoked(id, token.ByCancel))
		}
		no := []token.Outcome{bad(0, token.Untried, problem.Cancelled), bad(1, token.Untried, problem.Cancelled)}
		dst.post(dst.receipt(receive, no))
		src.post(src.receipt(serve, no))
		w.want(id, tt.as, map[token.Result]int64{token.Untried: 2})
	}
}

// TestPausedTransfersTakeNoSlots: agents work for others meanwhile.
func TestPausedTransfersTakeNoSlots(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	src.hello.Slots, dst.hello.Slots = 1, 1
	for _, f := range []*fake{src, dst} {
		f.leave()
		f.connect()
	}
	var ids []token.TransferID
	for _, to := range []token.ObjectName{"x", "y", "z"} {
		id := w.submit(w.order(func(o *token.Order) { o.To.Name = to }))
		src.list(object("a", 10))
		batch(src, dst)
		if _, err := w.b.Pause(t.Context(), w.me(), id, w.now); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	l := src.newest(revoked(ids[2], token.ByPause))
	for _, id := range ids {
		if !slices.ContainsFunc(l.Revoked, func(e token.Revoked) bool { return e.Xfr == id }) {
			t.Errorf("got %+v, want all three", l.Revoked)
		}
	}
}

// TestClockIsOff: what an agent says of the clocks is what its transfer waits for, whatever it was asked.
func TestClockIsOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	skewed := problem.New(problem.ClockSkewed, "The clock of the agent %s is 6m0s behind that of the broker", src.peer.Identity)
	src.page(src.task(api.ListTask).ID, api.TaskPage{Last: true, Problem: api.ProblemOf(skewed)})
	if got := w.transfer(id); !strings.Contains(got.Waiting, "is 6m0s behind") || got.State.Ended() {
		t.Errorf("a listing: got %s, waiting for %q", got.State, got.Waiting)
	}
	w.now = w.now.Add(time.Minute)
	src.list(object("a", 10))
	serve, _ := batch(src, dst)
	if err := w.b.Refuse(t.Context(), src.peer, serve.ID, *api.ProblemOf(skewed), w.now); err != nil {
		t.Fatal(err)
	}
	if got := w.transfer(id); !strings.Contains(got.Waiting, "is 6m0s behind") || got.State.Ended() {
		t.Errorf("a batch: got %s, waiting for %q", got.State, got.Waiting)
	}
	dst.next() // the drop
	w.now = w.now.Add(time.Minute)
	serve, receive := batch(src, dst)
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 1})
}

// TestMinuteOfLife: with the shortest capabilities a transfer of five minutes is renewed as often as it needs.
func TestMinuteOfLife(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.b.conf.CapabilityLife = minCapabilityLife
	src, dst := w.pair()
	id, serve, receive := w.under(src, dst)
	keys, gens := w.published(), int64(1)
	for end := w.now.Add(5 * time.Minute); w.now.Before(end); gens++ {
		w.now = w.now.Add(minCapabilityLife * 2 / 3)
		r, err := w.b.Renew(t.Context(), dst.peer, api.Ref{Xfr: id, Bat: receive.Bat}, w.now)
		if err != nil {
			t.Fatalf("after %d generations: %v", gens, err)
		}
		for _, tok := range []string{r.Capability, r.Present} {
			v, err := token.VerifyCapability(tok, keys)
			if c := v.Claims; err != nil || c.Gen != gens+1 || c.Exp-c.Iat > 60 {
				t.Errorf("got %+v (%v), want generation %d of a minute", c, err, gens+1)
			}
		}
		w.step()
	}
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 2})
	t.Logf("%d generations in 5 minutes", gens)
}
