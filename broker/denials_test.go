package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// denials returns what a transfer was told of refusals, and checks that each has a sentence and a remedy.
func (w *world) denials(id token.TransferID) []api.Event {
	w.t.Helper()
	ds := w.transfer(id).Denials
	for _, d := range ds {
		if d.Kind != api.DeniedEvent || d.Xfr != id || d.Note == "" || d.Remedy == "" || d.Code == "" || d.Seq == 0 {
			w.t.Errorf("got the denial %+v, want a code, a sentence and a remedy", d)
		}
	}
	return ds
}

// running is a transfer with one batch that both agents have.
func (w *world) running(src, dst *fake) (id token.TransferID, serve, receive api.Task) {
	w.t.Helper()
	id = w.submit(w.order())
	src.list(object("a", 10))
	serve, receive = batch(src, dst)
	return id, serve, receive
}

func (f *fake) report(rs ...api.Report) {
	f.w.t.Helper()
	if err := f.w.b.Report(f.w.t.Context(), f.peer, api.Reports{Reports: rs}, f.w.now); err != nil {
		f.w.t.Fatalf("reporting: %v", err)
	}
}

func (f *fake) beat(p api.Progress) {
	f.w.t.Helper()
	if _, err := f.w.b.Beat(f.w.t.Context(), f.peer, api.Beat{Running: []api.Progress{p}}, f.w.now); err != nil {
		f.w.t.Fatalf("a beat: %v", err)
	}
}

// TestRefusedLaneReachesTheSubscriber: both agents tell of one refusal; the subscriber reads who could not connect to
// whom and why, once from each, in the denials, the events and in what the transfer waits for.
func TestRefusedLaneReachesTheSubscriber(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id, _, receive := w.running(src, dst)
	ref := api.Ref{Xfr: id, Bat: receive.Bat}
	why := "The certificate of spiffe://south/agent/s1 (serial 5f3a0b1c…) expired on 2026-11-20T14:02:00Z, 3 days ago."
	dst.report(api.Report{Ref: ref, Peer: src.peer.Identity, By: api.ByPeer, At: api.AtLane, Code: problem.CertExpired, Detail: "The other agent refused our certificate"})
	dst.beat(api.Progress{Ref: ref, Waiting: problem.CertExpired, Note: "The other agent refused our certificate"})
	for range 3 {
		src.report(api.Report{Ref: ref, Peer: dst.peer.Identity, By: api.BySelf, At: api.AtLane, Code: problem.CertExpired, Detail: why})
	}
	want := "Agent s1 of south could not connect to agent n1 of north: the certificate of spiffe://south/agent/s1 (serial 5f3a0b1c…) expired on 2026-11-20T14:02:00Z, 3 days ago"
	ds := w.denials(id)
	if len(ds) != 2 || ds[1].Note != want || ds[1].Code != problem.CertExpired {
		t.Errorf("got %+v, want two denials and %q", ds, want)
	}
	if got := w.transfer(id).Waiting; got != want {
		t.Errorf("waiting: got %q, want %q", got, want)
	}
	es, err := w.b.Events(t.Context(), w.me(), id, ds[0].Seq-1, 0)
	if err != nil || len(es.Items) != 2 || es.Items[1].Note != want || es.Items[1].Remedy == "" {
		t.Errorf("events: got %+v, %v", es.Items, err)
	}
	w.now = w.now.Add(tellAgain)
	src.report(api.Report{Ref: ref, Peer: dst.peer.Identity, By: api.BySelf, At: api.AtLane, Code: problem.CertExpired, Detail: why})
	if n := len(w.denials(id)); n != 3 {
		t.Errorf("a while later: got %d denials, want it told again", n)
	}
	dst.beat(api.Progress{Ref: ref, Bytes: 5})
	if got := w.transfer(id).Waiting; got != "" {
		t.Errorf("once it goes on: got waiting for %q", got)
	}
}

func TestSentencesOfReports(t *testing.T) {
	t.Parallel()
	bt := db.Batch{Src: "spiffe://north/agent/n1", Dst: "spiffe://south/agent/s1", Ref: api.Ref{Bat: 3}}
	for _, c := range []struct {
		from token.Identity
		r    api.Report
		want string
	}{
		{bt.Src, api.Report{Peer: bt.Dst, By: api.BySelf, At: api.AtLane, Code: problem.CertUnknown},
			"Somebody who says to be agent s1 of south could not connect to agent n1 of north: the certificate was not issued by an authority that is trusted for its domain"},
		{bt.Dst, api.Report{Peer: bt.Src, By: api.BySelf, At: api.AtLane, Code: problem.CertUnknown, Detail: "No authority is trusted for the domain that the certificate names."},
			"Agent s1 of south could not connect to agent n1 of north: no authority is trusted for the domain that the certificate names"},
		{bt.Src, api.Report{Ref: bt.Ref, Peer: bt.Dst, By: api.BySelf, At: api.AtHello, Code: problem.CapNotYours, Stranger: true},
			"Agent n1 of north refused somebody who came for batch 3 in the place of agent s1 of south: the capability is bound to another key"},
		{bt.Dst, api.Report{Ref: bt.Ref, Peer: bt.Src, By: api.ByPeer, At: api.AtHello, Code: problem.CapManifest},
			"Agent n1 of north refused batch 3 to agent s1 of south: the capability is for another manifest"},
	} {
		if got := laneText(c.from, bt, c.r); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestReportsOfOthersBatches: nobody reports about what is not his, nor says more than is taken.
func TestReportsOfOthersBatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	third := w.agent(w.north, "n2", "other")
	third.connect()
	id, _, receive := w.running(src, dst)
	ref := api.Ref{Xfr: id, Bat: receive.Bat}
	good := api.Report{Ref: ref, Peer: src.peer.Identity, By: api.BySelf, At: api.AtLane, Code: problem.CertExpired}
	third.report(good)
	for _, change := range []func(*api.Report){
		func(r *api.Report) { r.Peer = third.peer.Identity },
		func(r *api.Report) { r.Peer = dst.peer.Identity },
		func(r *api.Report) { r.Bat = 99 },
		func(r *api.Report) { r.Xfr = "another" },
		func(r *api.Report) { r.Code = "no-such-code" },
		func(r *api.Report) { r.Code = problem.DiskFull },
		func(r *api.Report) { r.By = "nobody" },
	} {
		r := good
		change(&r)
		dst.report(r)
	}
	if ds := w.denials(id); len(ds) != 0 {
		t.Errorf("got %+v, want no denial", ds)
	}
	err := w.b.Report(t.Context(), dst.peer, api.Reports{Reports: make([]api.Report, api.MaxReports+1)}, w.now)
	if problem.Of(err) != problem.TooLarge {
		t.Errorf("too many at once: got %v, want %s", err, problem.TooLarge)
	}
}

// TestReportsWithoutEnd: an agent that finds ever new things to report is not written down without end.
func TestReportsWithoutEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id, _, receive := w.running(src, dst)
	for _, k := range problem.Table() {
		for _, by := range []api.Refuser{api.BySelf, api.ByPeer} {
			for _, f := range []*fake{src, dst} {
				peer := src.peer.Identity
				if f == src {
					peer = dst.peer.Identity
				}
				r := api.Report{Ref: api.Ref{Xfr: id, Bat: receive.Bat}, Peer: peer, By: by, At: api.AtLane, Code: k.Code}
				other := r
				other.Stranger = true
				f.report(r, other)
			}
		}
	}
	es, err := w.b.Events(t.Context(), w.me(), id, 0, 0)
	if err != nil || len(es.Items) > maxReasons+10 {
		t.Errorf("got %d events (%v), want at most %d denials", len(es.Items), err, maxReasons)
	}
	if got := len(w.denials(id)); got != api.MaxDenials {
		t.Errorf("shown with the transfer: got %d, want %d", got, api.MaxDenials)
	}
}

// TestDeniedTasks: what an agent refuses and which items it denies are denials of the transfer.
func TestDeniedTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id, _, receive := w.running(src, dst)
	p := api.ProblemOf(problem.New(problem.NotPermitted, "The account spiffe://south/subscriber/alice may not use the container \"dst\""))
	if err := w.b.Refuse(t.Context(), dst.peer, receive.ID, *p, w.now); err != nil {
		t.Fatal(err)
	}
	ds := w.denials(id)
	want := fmt.Sprintf("Agent s1 of south refused batch %d: the account spiffe://south/subscriber/alice may not use the container \"dst\"", receive.Bat)
	if len(ds) != 1 || ds[0].Note != want || ds[0].Code != problem.NotPermitted {
		t.Errorf("a refused batch: got %+v, want %q once", ds, want)
	}

	src.next() // it is told to stop
	id, serve, receive := w.running(src, dst)
	dst.post(dst.receipt(receive, []token.Outcome{bad(0, token.Denied, problem.PolicyRefused)}))
	src.post(src.receipt(serve, []token.Outcome{bad(0, token.Untried, problem.Untried)}))
	ds = w.denials(id)
	if len(ds) != 1 || ds[0].Code != problem.PolicyRefused || !strings.Contains(ds[0].Note, `"a": as the test says`) {
		t.Errorf("a denied item: got %+v, want one denial", ds)
	}

	id = w.submit(w.order())
	k := src.task(api.ListTask)
	src.page(k.ID, api.TaskPage{Last: true, Problem: api.ProblemOf(problem.New(problem.OrderUnsigned, "The order names an account that did not sign it"))})
	ds = w.denials(id)
	if len(ds) != 1 || ds[0].Code != problem.OrderUnsigned || ds[0].Note != "The source could not be listed: the order names an account that did not sign it" {
		t.Errorf("a listing: got %+v, want one denial", ds)
	}
}

// TestNamesDeniedAtTheSource: what the source denies of a tree is told once for each reason, and the end of the transfer says why
// it is not whole: a webhook may hear of nothing else.
func TestNamesDeniedAtTheSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.pair()
	id := w.submit(w.order())
	forbidden := func(name string) api.Entry {
		return api.Entry{Name: token.ObjectName(name), Type: "object", Code: problem.NotPermitted, Detail: "The account may not read objects below \"src\""}
	}
	src.list(forbidden("a"), forbidden("b"), api.Entry{Name: "c", Type: "object", Code: problem.Unreadable, Detail: "It cannot be read"})
	ds := w.denials(id)
	const note = `The source denied some of what is below it; the first, "a": the account may not read objects below "src"`
	if len(ds) != 1 || ds[0].Note != note || ds[0].Code != problem.NotPermitted {
		t.Errorf("got %+v, want %q once", ds, note)
	}
	w.step()
	es, err := w.b.Events(t.Context(), w.me(), id, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	const end = `The transfer ended: failed; the account may not read objects below "src"`
	if last := es.Items[len(es.Items)-1]; last.Kind != api.EventKind(api.Failed) || last.Code != problem.NotPermitted || last.Note != end || last.Remedy == "" {
		t.Errorf("got the last event %+v, want %q", last, end)
	}
}

// TestRefusedReceiptAndRenewal: what the broker refuses to an agent in the course of a transfer is a denial of it; an agent that
// does not take part is not named.
func TestRefusedReceiptAndRenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	evil := w.agent(w.north, "evil", "other")
	id, _, receive := w.running(src, dst)
	ref := api.Ref{Xfr: id, Bat: receive.Bat}
	wrong := dst.receipt(receive, nil, func(r *token.Receipt) { r.Ord = token.HashOf([]byte("another")) })
	if _, err := w.b.PostReceipt(t.Context(), dst.peer, wrong, w.now); problem.Of(err) != problem.WrongStatement {
		t.Fatalf("a receipt for another order: got %v", err)
	}
	late := dst.receipt(receive, nil, func(r *token.Receipt) { r.Iat = w.now.Add(100 * time.Hour).Unix() })
	if _, err := w.b.PostReceipt(t.Context(), dst.peer, late, w.now); problem.Of(err) != problem.CertExpired {
		t.Fatalf("a receipt of after the certificate's end: got %v", err)
	}
	for range 2 {
		if _, err := w.b.Renew(t.Context(), evil.peer, ref, w.now); problem.Of(err) != problem.LeaseLost {
			t.Fatalf("somebody else's renewal: got %v", err)
		}
	}
	ds := w.denials(id)
	if len(ds) != 3 || strings.Contains(fmt.Sprint(ds), "evil") {
		t.Fatalf("got %+v, want three denials without the name of who does not take part", ds)
	}
	for i, want := range []struct {
		code problem.Code
		says string
	}{
		{problem.WrongStatement, "The broker refused agent s1 of south, who wanted to hand in a receipt for batch 1: "},
		{problem.CertExpired, " expired on "},
		{problem.LeaseLost, "The broker refused somebody who does not take part, who wanted new capabilities for batch 1: "},
	} {
		if ds[i].Code != want.code || !strings.Contains(ds[i].Note, want.says) {
			t.Errorf("got %s %q, want %s with %q", ds[i].Code, ds[i].Note, want.code, want.says)
		}
	}
}

// TestAgentTurnedAwayAtTheDoor: an agent whose certificate has expired cannot say so; the transfers that need it are told.
func TestAgentTurnedAwayAtTheDoor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src := w.agent(w.north, "n1", "src")
	src.connect()
	id := w.submit(w.order())
	src.list(object("a", 10))
	leaf := w.south.Issue(token.Agent, "s1", certstest.Expired())
	_, err := w.conf.Trust.Verify(leaf.Chain, w.now)
	if err := w.b.TurnAway("spiffe://south/agent/s1", err, w.now); problem.Of(err) != problem.CertExpired {
		t.Fatalf("got %v", err)
	}
	w.step()
	w.step()
	ds := w.denials(id)
	if len(ds) != 1 || !strings.HasPrefix(ds[0].Note, "The broker has turned agent s1 of south away: the certificate of spiffe://south/agent/s1 (serial ") || !strings.Contains(ds[0].Note, " expired on ") {
		t.Errorf("got %+v, want one denial with the certificate's name and end", ds)
	}
	if got := w.transfer(id).Waiting; !strings.Contains(got, "No agent of south is connected; the broker has turned agent s1 of south away: the certificate of ") {
		t.Errorf("waiting: got %q", got)
	}
	w.agent(w.south, "s1", "dst").connect()
	w.step()
	if got := w.transfer(id).Waiting; strings.Contains(got, "turned") {
		t.Errorf("once it is back: got waiting for %q", got)
	}
}

// TestAgentTurnedAwayThatNobodyNeeds: a transfer is not told of an agent at the door while another one that exports the same is here.
func TestAgentTurnedAwayThatNobodyNeeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src := w.agent(w.north, "n1", "src")
	src.connect()
	w.agent(w.south, "s1", "dst").connect()
	old := w.agent(w.south, "s2", "dst")
	old.connect()
	old.stop()
	<-old.done
	err := problem.New(problem.CertExpired, "The certificate of spiffe://south/agent/s2 expired")
	if w.b.TurnAway(old.peer.Identity, err, w.now) == nil {
		t.Fatal("it was let in")
	}
	id := w.submit(w.order())
	w.step()
	w.step()
	if ds := w.denials(id); len(ds) != 0 {
		t.Errorf("got %+v, want to be told of nobody", ds)
	}
}

// denialLeaves sums what the leaves say of denials.
func (w *world) denialLeaves() map[denial]int64 {
	w.t.Helper()
	got := map[denial]int64{}
	err := w.b.db.Read(context.Background(), func(tx *db.Tx) error {
		return tx.Leaves(context.Background(), 0, func(_ int64, l db.Leaf) error {
			if l.Kind != db.DenialLeaf {
				return nil
			}
			var f struct {
				ID   token.Identity `json:"id"`
				Code problem.Code   `json:"code"`
				N    int64          `json:"n"`
			}
			err := json.Unmarshal(l.Body, &f)
			got[denial{f.ID, f.Code}] += f.N
			return err
		})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

// TestDenialsAreCounted: every denial is in the leaves: by minute, of more identities than are told apart, after a write that
// failed, and at the end.
func TestDenialsAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	err := problem.New(problem.CertExpired, "Expired")
	for i := range maxDenials + 100 {
		_ = w.b.deny(token.Identity(fmt.Sprintf("spiffe://north/subscriber/s%d", i)), err)
	}
	_ = w.b.deny("spiffe://north/subscriber/s0", err)
	_ = w.b.deny("spiffe://north/subscriber/s0", context.Canceled)
	w.b.fault = func(string) error { return context.DeadlineExceeded }
	if err := w.b.flushDenials(t.Context(), w.now.Add(time.Minute)); err == nil {
		t.Fatal("the write did not fail")
	}
	w.b.fault = func(string) error { return nil }
	if got := w.denialLeaves(); len(got) != 0 {
		t.Fatalf("got %d leaves of a write that failed", len(got))
	}
	if err := w.b.flushDenials(t.Context(), w.now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	got := w.denialLeaves()
	if got[denial{"spiffe://north/subscriber/s0", problem.CertExpired}] != 2 || got[denial{}] != 100 || len(got) != maxDenials+1 {
		t.Errorf("got %d of the first, %d of those without a name and %d kinds", got[denial{"spiffe://north/subscriber/s0", problem.CertExpired}], got[denial{}], len(got))
	}
	_ = w.b.deny("spiffe://north/agent/last", err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.b.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := w.denialLeaves()[denial{"spiffe://north/agent/last", problem.CertExpired}]; got != 1 {
		t.Errorf("at the end: got %d, want 1", got)
	}
}
