package broker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestJudge is the table of matching: what one item ends with, from what both sides signed.
func TestJudge(t *testing.T) {
	t.Parallel()
	it := token.Item{Src: "a", Size: 7}
	stored, sent := good(0, it, token.Destination), good(0, it, token.Source)
	shorter, otherwise := sent, sent
	shorter.Size = 6
	otherwise.Digest = digest("another")
	failed := func(c problem.Code) *token.Outcome { o := bad(0, token.ResultOf(c), c); return &o }
	existed := token.Outcome{Outcome: token.Existed}
	for _, tt := range []struct {
		name     string
		src, dst *token.Outcome
		bout     bout
		result   token.Result
		code     problem.Code
		next     next
		flag     string
	}{
		{name: "both agree", src: &sent, dst: &stored, result: token.Stored},
		{name: "another size", src: &shorter, dst: &stored, result: token.Failed, code: problem.Disputed, flag: "disputed"},
		{name: "another digest", src: &otherwise, dst: &stored, result: token.Failed, code: problem.Disputed, flag: "disputed"},
		{name: "stored, but never sent", src: failed(problem.Untried), dst: &stored, result: token.Failed, code: problem.Disputed, flag: "disputed"},
		{name: "stored, and the source's receipt lacks it", dst: &stored, result: token.Failed, code: problem.Disputed, flag: "disputed"},
		{name: "stored, and the source is silent for good", dst: &stored, bout: bout{unmatched: true}, result: token.Stored, flag: "unmatched"},
		{name: "existed", dst: &existed, result: token.Existed},
		{name: "taken", dst: failed(problem.Taken), result: token.TakenBy, code: problem.Taken},
		{name: "skipped", dst: failed(problem.Skipped), result: token.Left, code: problem.Skipped},
		{name: "denied", dst: failed(problem.PolicyRefused), result: token.Denied, code: problem.PolicyRefused},
		{name: "changed once", dst: failed(problem.Changed), next: repin},
		{name: "changed twice", dst: failed(problem.Changed), bout: bout{repins: 1}, result: token.Altered, code: problem.Changed},
		{name: "changed by the source's word", src: failed(problem.Changed), dst: failed(problem.Untried), next: repin},
		{name: "unreadable by the source's word", src: failed(problem.Unreadable), dst: failed(problem.PeerMisbehaved), result: token.Failed, code: problem.Unreadable},
		{name: "disk full for the hundredth time", dst: failed(problem.DiskFull), bout: bout{tries: 99}, next: later},
		{name: "store away for the hundredth time", dst: failed(problem.StoreAway), bout: bout{tries: 99}, next: later},
		{name: "corrupt", dst: failed(problem.Corrupt), next: retry},
		{name: "corrupt for the eighth time", dst: failed(problem.Corrupt), bout: bout{tries: 7}, result: token.Failed, code: problem.Corrupt},
		{name: "digest differs", dst: failed(problem.DigestDiffers), result: token.Failed, code: problem.DigestDiffers},
		{name: "peer unreachable for the hundredth time", dst: failed(problem.PeerUnreached), bout: bout{tries: 99}, next: later},
		{name: "draining", dst: failed(problem.Draining), next: later},
		{name: "no word of the destination", src: &sent, next: later},
		{name: "untried, cancelled", dst: failed(problem.Untried), bout: bout{ending: api.Cancelled}, result: token.Untried, code: problem.Cancelled},
		{name: "untried, expired", dst: failed(problem.Untried), bout: bout{ending: api.Expired}, result: token.Untried, code: problem.OrderExpired},
		{name: "disk full, cancelled", dst: failed(problem.DiskFull), bout: bout{ending: api.Cancelled}, result: token.Failed, code: problem.DiskFull},
		{name: "changed, cancelled", dst: failed(problem.Changed), bout: bout{ending: api.Cancelled}, result: token.Altered, code: problem.Changed},
		{name: "stored, cancelled", src: &sent, dst: &stored, bout: bout{ending: api.Cancelled}, result: token.Stored},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := tt.bout
			b.src, b.dst = map[int64]token.Outcome{}, map[int64]token.Outcome{}
			if tt.src != nil {
				b.src[0] = *tt.src
			}
			if tt.dst != nil {
				b.dst[0] = *tt.dst
			}
			v := b.judge(0, it)
			flag := map[bool]string{v.disputed: "disputed", v.unmatched: "unmatched"}[true]
			if v.next != tt.next || flag != tt.flag {
				t.Errorf("got next %d, flag %q, want %d, %q", v.next, flag, tt.next, tt.flag)
			}
			if v.next == over && (v.result != tt.result || v.code != tt.code) {
				t.Errorf("got %s %s, want %s %s", v.result, v.code, tt.result, tt.code)
			}
		})
	}
}

// TestLostOnTheWay: what the source could not say of an object and what the destination could not keep is one list.
func TestLostOnTheWay(t *testing.T) {
	t.Parallel()
	it := token.Item{Src: "a", Size: 7}
	src, dst := good(0, it, token.Source), good(0, it, token.Destination)
	src.Lost, dst.Lost = []string{"meta:big", "mode"}, []string{"meta:a", "mode"}
	for _, tt := range []struct {
		src  map[int64]token.Outcome
		want []string
	}{{map[int64]token.Outcome{0: src}, []string{"meta:a", "meta:big", "mode"}}, {nil, []string{"meta:a", "mode"}}} {
		v := bout{src: tt.src, dst: map[int64]token.Outcome{0: dst}, unmatched: true}.judge(0, it)
		if v.result != token.Stored || !slices.Equal(v.lost, tt.want) {
			t.Errorf("got %s without %q, want without %q", v.result, v.lost, tt.want)
		}
	}
}

func TestContradictionIsDisputed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10))
	serve, receive := batch(src, dst)
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, []token.Outcome{bad(0, token.Failed, problem.Unreadable)}))
	got := w.want(id, api.Failed, map[token.Result]int64{token.Failed: 1})
	if len(got.Flags) != 1 || got.Flags[0] != "disputed" || got.Problem == nil || got.Problem.Code != problem.Disputed {
		t.Errorf("got flags %v and problem %+v, want disputed", got.Flags, got.Problem)
	}
}

func TestSourceReceiptNeverComes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10))
	serve, receive := batch(src, dst)
	dst.post(dst.receipt(receive, nil))
	for wait, told := range map[time.Duration]int{time.Second: 0, time.Minute: 1} { // it may not have heard the end from its peer
		for who, want := range map[*fake]int{src: told, dst: 0} {
			answer, err := w.b.Beat(t.Context(), who.peer, api.Beat{Running: []api.Progress{{Ref: api.Ref{Xfr: id, Bat: receive.Bat}}}}, w.now.Add(wait))
			if err != nil || len(answer.Drop) != want {
				t.Errorf("%s after %v: told to end %v, %v, want %d", who.peer.Identity, wait, answer.Drop, err, want)
			}
		}
	}
	w.now = w.now.Add(23 * time.Hour)
	w.step()
	if got := w.transfer(id).State; got != api.Running {
		t.Fatalf("got %s after 23 h, want running", got)
	}
	w.now = w.now.Add(2 * time.Hour)
	w.step()
	got := w.want(id, api.Complete, map[token.Result]int64{token.Stored: 1})
	if fmt.Sprint(got.Flags) != "[unmatched]" {
		t.Errorf("got flags %v, want unmatched", got.Flags)
	}
	src.post(src.receipt(serve, nil)) // kept, though late
	page, err := w.b.Batches(t.Context(), w.me(), id, "")
	if err != nil || len(page.Items) != 1 || len(page.Items[0].Receipts) != 2 {
		t.Errorf("got %+v, %v, want one batch with two receipts", page, err)
	}
}

func TestChangedSourceIsPlannedOnceMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10), object("b", 5), object("c", 1))
	for round := range 2 {
		serve, receive := batch(src, dst)
		var at, from []token.Outcome
		for i, it := range dst.manifest(receive).Items {
			if it.Src == "b" {
				at, from = append(at, good(i, it, token.Destination)), append(from, good(i, it, token.Source))
				continue
			}
			at, from = append(at, bad(i, token.Altered, problem.Changed)), append(from, bad(i, token.Altered, problem.Changed))
		}
		dst.post(dst.receipt(receive, at))
		src.post(src.receipt(serve, from))
		if round == 1 {
			break
		}
		w.now = w.now.Add(time.Minute)
		stat := src.task(api.StatTask)
		if fmt.Sprint(stat.Names) != "[a c]" {
			t.Fatalf("got names %v to describe anew, want a and c", stat.Names)
		}
		// In two pages, as an agent may.
		src.page(stat.ID, api.TaskPage{Entries: []api.Entry{{Name: "a", Type: "object", Size: 30, Version: "v2"}}})
		src.page(stat.ID, api.TaskPage{Entries: []api.Entry{{Name: "c", Code: problem.Missing, Detail: "Gone"}}, Last: true})
	}
	got := w.want(id, api.Partial, map[token.Result]int64{token.Stored: 1, token.Altered: 1, token.Failed: 1})
	if got.Bytes != 36 || got.Items != 3 {
		t.Errorf("got %d items of %d bytes, want 3 of 36", got.Items, got.Bytes)
	}
	items, err := w.b.Items(t.Context(), w.me(), id, token.Altered, "")
	if err != nil || len(items.Items) != 1 || items.Items[0].Src != "a" || items.Items[0].Code != problem.Changed {
		t.Errorf("got %+v, %v, want a as changed", items, err)
	}
}

// TestWhatWasLostIsListed checks that a subscriber sees which attributes the destination could not keep.
func TestWhatWasLostIsListed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10), object("b", 5))
	serve, receive := batch(src, dst)
	var at, from []token.Outcome
	for i, it := range dst.manifest(receive).Items {
		o := good(i, it, token.Destination)
		if it.Src == "a" {
			o.Lost = []string{"meta:colour", "mode"}
		}
		at, from = append(at, o), append(from, good(i, it, token.Source))
	}
	dst.post(dst.receipt(receive, at))
	src.post(src.receipt(serve, from))
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 2})
	items, err := w.b.Items(t.Context(), w.me(), id, "", "")
	if err != nil || len(items.Items) != 2 {
		t.Fatalf("got %+v, %v, want two items", items, err)
	}
	if a, b := items.Items[0].Lost, items.Items[1].Lost; !slices.Equal(a, []string{"meta:colour", "mode"}) || len(b) != 0 {
		t.Errorf("got %v and %v, want a to have lost two attributes and b none", a, b)
	}
}

func TestFailedItemsAreTriedAgain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code  problem.Code
		tries int
	}{{problem.Corrupt, maxTries}, {problem.Unwritable, 1}} {
		t.Run(string(tt.code), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			src, dst := w.pair()
			id := w.submit(w.order())
			src.list(object("a", 10), object("b", 10))
			for try := range tt.tries {
				serve, receive := batch(src, dst)
				var at, from []token.Outcome
				for i, it := range dst.manifest(receive).Items {
					if it.Src == "b" {
						at, from = append(at, good(i, it, token.Destination)), append(from, good(i, it, token.Source))
						continue
					}
					at, from = append(at, bad(i, token.Failed, tt.code)), append(from, bad(i, token.Untried, problem.Untried))
				}
				if want := 1 + map[bool]int{true: 1}[try == 0]; len(at) != want {
					t.Fatalf("try %d: got %d items, want %d", try, len(at), want)
				}
				dst.post(dst.receipt(receive, at))
				src.post(src.receipt(serve, from))
				w.now = w.now.Add(backoffMax)
			}
			got := w.want(id, api.Partial, map[token.Result]int64{token.Stored: 1, token.Failed: 1})
			if got.Problem == nil || got.Problem.Code != problem.Partial {
				t.Errorf("got problem %+v, want partial", got.Problem)
			}
		})
	}
}

func TestRefusedBatchIsDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10))
	serve, receive := batch(src, dst)
	p := *api.ProblemOf(problem.New(problem.NotPermitted, "Account alice may not create objects in dst"))
	if err := w.b.Refuse(t.Context(), src.peer, receive.ID, p, w.now); problem.Of(err) != problem.LeaseLost {
		t.Errorf("refusing the other's task: got %v, want lease-lost", err)
	}
	for range 2 { // the answer may have been lost
		if err := w.b.Refuse(t.Context(), dst.peer, receive.ID, p, w.now); err != nil {
			t.Fatalf("refusing: %v", err)
		}
	}
	if l := src.next(); l.Drop == nil || l.Drop.Bat != serve.Bat {
		t.Errorf("the source got %s, want a drop", show(l))
	}
	got := w.want(id, api.Failed, map[token.Result]int64{token.Denied: 1})
	if got.Problem.Code != problem.NotPermitted || got.Problem.Detail != p.Detail {
		t.Errorf("got problem %+v, want the agent's own words", got.Problem)
	}
}

func TestPassingRefusalIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10))
	_, receive := batch(src, dst)
	if err := w.b.Refuse(t.Context(), dst.peer, receive.ID, *api.ProblemOf(problem.New(problem.Draining, "")), w.now); err != nil {
		t.Fatalf("refusing: %v", err)
	}
	if l := src.next(); l.Drop == nil {
		t.Errorf("the source got %s, want a drop", show(l))
	}
	w.now = w.now.Add(backoffMax)
	serve, receive := batch(src, dst)
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 1})
}

func TestNameIsClaimedByAnotherTransfer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	page := func() {
		k := src.task(api.StatTask)
		src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("a", 10)}, Last: true})
	}
	first := w.submit(w.order(one))
	page()
	serve, receive := batch(src, dst)
	second := w.submit(w.order(one))
	page()
	w.step()
	if got := w.transfer(second); got.State.Ended() || got.Waiting != "A name is claimed by another transfer" {
		t.Fatalf("got %s, waiting %q, want it to wait for the name", got.State, got.Waiting)
	}
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.want(first, api.Complete, map[token.Result]int64{token.Stored: 1})
	serve, receive = batch(src, dst) // woken at once, without its backoff
	dst.post(dst.receipt(receive, []token.Outcome{bad(0, token.TakenBy, problem.Taken)}))
	src.post(src.receipt(serve, []token.Outcome{bad(0, token.Untried, problem.Untried)}))
	w.want(second, api.Failed, map[token.Result]int64{token.TakenBy: 1})
}

func TestOnlyClaimedItemsWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.submit(w.order(func(o *token.Order) { o.Scope, o.From.Name, o.To.Name = token.One, "a", "copy/a" }))
	k := src.task(api.StatTask)
	src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("a", 10)}, Last: true})
	batch(src, dst)
	second := w.submit(w.order())
	src.list(object("a", 10), object("b", 20))
	serve, receive := batch(src, dst)
	if m := dst.manifest(receive); len(m.Items) != 1 || m.Items[0].Src != "b" {
		t.Fatalf("got items %+v, want b alone", m.Items)
	}
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.step()
	if got := w.transfer(second); got.State != api.Running || got.ItemsDone != 1 {
		t.Errorf("got %s with %d items done, want running with 1", got.State, got.ItemsDone)
	}
	w.checkTotals(second)
}

func TestCancelStopsRunningBatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	dst.leave()
	dst.hello.Slots = 1
	dst.connect()
	id := w.submit(w.order())
	k := src.task(api.ListTask)
	src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("a", 10), object("b", 10)}})
	serve, receive := batch(src, dst)
	src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("c", 10)}, Last: true})
	got, err := w.b.Cancel(t.Context(), w.me(), id, w.now)
	if err != nil || got.State != api.Cancelled || got.Finished != nil {
		t.Fatalf("got %+v, %v, want cancelled at once and not finished", got, err)
	}
	for _, f := range []*fake{src, dst} {
		if l := f.next(); l.Drop == nil || l.Drop.Bat != receive.Bat {
			t.Errorf("%s got %s, want a drop", f.peer.Identity, show(l))
		}
	}
	if _, err := w.b.Renew(t.Context(), dst.peer, api.Ref{Xfr: id, Bat: receive.Bat}, w.now); problem.Of(err) != problem.LeaseLost {
		t.Errorf("renewing a cancelled batch: got %v, want lease-lost", err)
	}
	m := dst.manifest(receive)
	dst.post(dst.receipt(receive, []token.Outcome{good(0, m.Items[0], token.Destination), bad(1, token.Untried, problem.Untried)}))
	src.post(src.receipt(serve, []token.Outcome{good(0, m.Items[0], token.Source), bad(1, token.Untried, problem.Untried)}))
	got = w.want(id, api.Cancelled, map[token.Result]int64{token.Stored: 1, token.Untried: 2})
	if got.Finished == nil || got.Problem.Code != problem.Cancelled {
		t.Errorf("got %+v, want it finished and cancelled", got)
	}
}

func TestCancelledBatchOfSilentAgentsEndsAfterTheLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10))
	batch(src, dst)
	if _, err := w.b.Cancel(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
	w.now = w.now.Add(11 * time.Minute)
	w.step()
	w.want(id, api.Cancelled, map[token.Result]int64{token.Untried: 1})
}

func TestOrderEndsBeforeItsItems(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	o := w.order(func(o *token.Order) { o.Exp = o.Iat + 600 })
	id := w.submit(o)
	src.list(object("a", 10))
	serve, receive := batch(src, dst)
	if exp := w.batchRow(id, receive.Bat).CapExp; exp.Unix() != o.Exp {
		t.Errorf("got a capability until %s, want the order's end", exp)
	}
	w.now = w.now.Add(10 * time.Minute)
	w.step()
	if got := w.transfer(id).State; got != api.Running {
		t.Fatalf("got %s while agents may still report, want running", got)
	}
	dst.post(dst.receipt(receive, []token.Outcome{bad(0, token.Untried, problem.Untried)}))
	src.post(src.receipt(serve, []token.Outcome{bad(0, token.Untried, problem.Untried)}))
	got := w.want(id, api.Expired, map[token.Result]int64{token.Untried: 1})
	if got.Problem.Code != problem.OrderExpired {
		t.Errorf("got problem %+v, want order-expired", got.Problem)
	}
}

func (w *world) batchRow(id token.TransferID, bat int64) (bt db.Batch) {
	w.t.Helper()
	if err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) (err error) {
		bt, err = tx.Batch(w.t.Context(), api.Ref{Xfr: id, Bat: bat})
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return bt
}

func TestAbsentDestinationIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10))
	_, receive := batch(src, dst)
	dst.leave()
	w.now = w.now.Add(time.Hour)
	w.step()
	if got := w.transfer(id).Waiting; got != "The agent spiffe://south/agent/s1 is not connected" {
		t.Errorf("got waiting %q", got)
	}
	other := w.agent(w.south, "s2", "dst")
	other.connect()
	w.step()
	if l := src.next(); l.Drop == nil || l.Drop.Bat != receive.Bat {
		t.Fatalf("the source got %s, want a drop", show(l))
	}
	w.now = w.now.Add(time.Minute)
	serve2, receive2 := batch(src, other)
	if receive2.Bat == receive.Bat {
		t.Errorf("got batch %d for the other agent, want a new number", receive2.Bat)
	}
	dst.hello.Held = []api.Ref{{Xfr: id, Bat: receive.Bat}}
	if welcome := dst.connect(); len(welcome.Drop) != 1 {
		t.Errorf("the first agent got %+v, want its batch dropped", welcome)
	}
	other.post(other.receipt(receive2, nil))
	src.post(src.receipt(serve2, nil))
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 1})
	dst.post(dst.receipt(receive, nil)) // late: kept, counted nowhere
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 1})
}

func TestAbsentAgentWithoutAnotherIsAwaited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10))
	_, receive := batch(src, dst)
	dst.leave()
	w.now = w.now.Add(20 * time.Hour)
	w.step()
	dst.hello.Held = []api.Ref{{Xfr: id, Bat: receive.Bat}}
	if welcome := dst.connect(); len(welcome.Drop) != 0 {
		t.Fatalf("got %+v, want the batch to be the agent's still", welcome)
	}
	again := dst.task(api.ReceiveTask)
	if again.Bat != receive.Bat || again.ID != receive.ID {
		t.Errorf("got task %s, want %s", again.ID, receive.ID)
	}
}

func TestReceiptsThatAreNotGood(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id := w.submit(w.order())
	src.list(object("a", 10))
	serve, receive := batch(src, dst)
	stranger := w.agent(w.south, "s9", "dst")
	lines := dst.receipt(receive, nil)
	lines.Lines = "{}\n"
	hashed := good(0, dst.manifest(receive).Items[0], token.Destination)
	hashed.Hash = valueDigest(token.MD5)
	early := func(r *token.Receipt) { r.Iat -= 86400; r.Started, r.Finished = r.Iat, r.Iat }
	for _, tt := range []struct {
		name string
		by   *fake
		sr   api.SignedReceipt
		want problem.Code
	}{
		{"posted by another agent", src, dst.receipt(receive, nil), problem.CertMismatch},
		{"of an agent that has not the batch", stranger, stranger.receipt(receive, nil), problem.LeaseLost},
		{"of the other side", src, src.receipt(serve, []token.Outcome{}, func(r *token.Receipt) { r.Side, r.CreateBy = token.Destination, token.GuardStore }), problem.LeaseLost},
		{"for another manifest", dst, dst.receipt(receive, nil, func(r *token.Receipt) { r.Man = token.HashOf([]byte("x")) }), problem.CapManifest},
		{"for another order", dst, dst.receipt(receive, nil, func(r *token.Receipt) { r.Ord = token.HashOf([]byte("x")) }), problem.WrongStatement},
		{"on a capability never minted", dst, dst.receipt(receive, nil, func(r *token.Receipt) { r.Caps = []token.Hash{token.HashOf([]byte("x"))} }), problem.WrongStatement},
		{"for another broker", dst, dst.receipt(receive, nil, func(r *token.Receipt) { r.Aud = "spiffe://hub/broker/other" }), problem.CapAudience},
		{"for no such batch", dst, dst.receipt(receive, nil, func(r *token.Receipt) { r.Bat = 99 }), problem.NotFound},
		{"from the future", dst, dst.receipt(receive, nil, func(r *token.Receipt) { r.Iat += 3600 }), problem.Malformed},
		{"of an item that is not there", dst, dst.receipt(receive, []token.Outcome{bad(5, token.Failed, problem.DiskFull)}), problem.Malformed},
		{"with other lines", dst, lines, problem.Malformed},
		{"with a value hash that nobody asked for", dst, dst.receipt(receive, []token.Outcome{hashed}), problem.Malformed},
		{"of a time before the certificate", dst, dst.receipt(receive, nil, early), problem.CertNotYet},
	} {
		if _, err := w.b.PostReceipt(t.Context(), tt.by.peer, tt.sr, w.now); problem.Of(err) != tt.want {
			t.Errorf("a receipt %s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	if got := w.transfer(id); got.State != api.Running || got.ItemsDone != 0 {
		t.Errorf("got %+v after refused receipts, want it untouched", got)
	}
	first := dst.receipt(receive, nil)
	a, err := w.b.PostReceipt(t.Context(), dst.peer, first, w.now)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.b.PostReceipt(t.Context(), dst.peer, first, w.now); err != nil || again != a {
		t.Errorf("the same receipt again: got %+v, %v, want %+v", again, err, a)
	}
	other := dst.receipt(receive, []token.Outcome{bad(0, token.Failed, problem.DiskFull)})
	if _, err := w.b.PostReceipt(t.Context(), dst.peer, other, w.now); problem.Of(err) != problem.Conflict {
		t.Errorf("a contradicting receipt: got %v, want conflict", err)
	}
	if got := w.transfer(id).Flags; fmt.Sprint(got) != "[disputed]" {
		t.Errorf("got flags %v, want disputed", got)
	}
}
