package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// dropped takes lines until a drop comes, and returns its batch.
func (f *fake) dropped() int64 {
	f.w.t.Helper()
	l := f.next()
	if l.Drop == nil {
		f.w.t.Fatalf("%s got %s, want a drop", f.peer.Identity, show(l))
	}
	return l.Drop.Bat
}

// revoked returns the reason for which a transfer is in the newest list that an agent has.
func (f *fake) revoked(id token.TransferID) token.Reason {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lists) == 0 {
		return ""
	}
	for _, r := range f.lists[len(f.lists)-1].Revoked {
		if r.Xfr == id {
			return r.Reason
		}
	}
	return ""
}

// untried is what an agent says of items that it has not finished when it is told to stop.
func untried(m token.Manifest) []token.Outcome {
	out := make([]token.Outcome, len(m.Items))
	for i := range m.Items {
		out[i] = bad(i, token.Untried, problem.CapRevoked)
	}
	return out
}

// TestRightTakenAwayMidTransfer takes a right, a membership, and ownership away while a batch runs. Within one step capabilities are revoked and both
// agents are told to stop; what was stored stays stored, the rest is denied with the sentence, and the subscriber has an event of it.
func TestRightTakenAwayMidTransfer(t *testing.T) {
	t.Parallel()
	group := func(w *world, to func(*work) error) {
		if err := w.b.write(w.t.Context(), w.now, to); err != nil {
			w.t.Fatal(err)
		}
	}
	const alice = "spiffe://south/subscriber/alice"
	for _, tt := range []struct {
		name       string
		give, take func(*world)
		bit        string
	}{
		{"right to read", func(w *world) { w.allow("north:/src", grant("north", everything)) }, func(w *world) { w.allow("north:/src") }, "north:/src/"},
		{"right to add", func(w *world) { w.allow("south:/dst", grant("south", everything)) },
			func(w *world) { w.allow("south:/dst", grant("south", everything&^acl.AddObject)) }, "ADD_OBJECT"},
		{"membership", func(w *world) {
			w.allow("south:/dst", "ALLOW writers OBJECT_INHERIT,CONTAINER_INHERIT,IDENTIFIER_GROUP "+everything.Hex())
			group(w, func(tx *work) error {
				if _, err := tx.AddMember(tx.ctx(), "south", "writers", alice, w.now); err != nil {
					return err
				}
				return tx.BumpACLGen(tx.ctx(), "south")
			})
		}, func(w *world) {
			group(w, func(tx *work) error {
				if _, err := tx.DropMember(tx.ctx(), "south", "writers", alice); err != nil {
					return err
				}
				return tx.BumpACLGen(tx.ctx(), "south")
			})
		}, "south:/dst/"},
		{"hold", func(w *world) { w.allow("south:/dst", grant("south", everything)) },
			func(w *world) { w.wish("south:/dst", acl.Container, space.HoldID, `["case 7"]`) }, "case 7"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			src, dst := w.pair()
			tt.give(w)
			id := w.submit(w.order())
			src.list(object("a", 1), object("b", 2))
			serve, receive := batch(src, dst)
			tt.take(w)
			w.step()
			for _, f := range []*fake{src, dst} {
				if n := f.dropped(); n != receive.Bat {
					t.Errorf("%s is told to stop batch %d, want %d", f.peer.Identity, n, receive.Bat)
				}
				if r := f.revoked(id); r != token.ByDenial {
					t.Errorf("%s got the reason %q, want %q", f.peer.Identity, r, token.ByDenial)
				}
			}
			if _, err := w.b.Renew(t.Context(), dst.peer, api.Ref{Xfr: id, Bat: receive.Bat}, w.now); err == nil {
				t.Error("the destination got a new capability")
			}
			m := dst.manifest(receive)
			got := untried(m)
			got[0] = good(0, m.Items[0], token.Destination)
			dst.post(dst.receipt(receive, got))
			got = untried(m)
			got[0] = good(0, m.Items[0], token.Source)
			src.post(src.receipt(serve, got))
			ended := w.want(id, api.Partial, map[token.Result]int64{token.Stored: 1, token.Denied: 1})
			if ended.Problem == nil || !strings.Contains(ended.Problem.Detail, tt.bit) {
				t.Errorf("got the problem %+v, want one with %q", ended.Problem, tt.bit)
			}
			if len(ended.Denials) == 0 || !strings.Contains(ended.Denials[0].Note, tt.bit) {
				t.Errorf("got the denials %+v, want one with %q", ended.Denials, tt.bit)
			}
		})
	}
}

// TestOnlyWhatIsConcernedEnds: of two running batches one has an item that may not be read any more. The other rests until both agents have ended that
// one, goes on with the capabilities that it has, and the rest of the stopped one goes on in another batch.
func TestOnlyWhatIsConcernedEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("north:/src", grant("north", everything))
	id := w.submit(w.order())
	k := src.task(api.ListTask)
	src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("a", 1), object("hr/b", 2)}})
	serve, receive := batch(src, dst)
	src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("z", 3)}, Last: true})
	serve2, receive2 := batch(src, dst)
	w.allow("north:/src/hr", "DENY spiffe://north/subscriber/alice OBJECT_INHERIT,CONTAINER_INHERIT READ_OBJECT")
	w.step()
	for _, f := range []*fake{src, dst} {
		if n := f.dropped(); n != receive.Bat {
			t.Fatalf("%s is told to stop batch %d, want %d", f.peer.Identity, n, receive.Bat)
		}
		if r := f.revoked(id); r != token.ByPause {
			t.Errorf("%s got the reason %q, want %q: it is to keep what it has of the other batch", f.peer.Identity, r, token.ByPause)
		}
	}
	if _, err := w.b.Renew(t.Context(), dst.peer, api.Ref{Xfr: id, Bat: receive2.Bat}, w.now); problem.Of(err) != problem.CapRevoked {
		t.Errorf("a renewal while the transfer rests: got %v", err)
	}
	dst.post(dst.receipt(receive, untried(dst.manifest(receive))))
	w.step()
	if dst.revoked(id) == "" {
		t.Error("the capabilities are good again, and the source has not said that it has ended the stopped batch")
	}
	src.post(src.receipt(serve, untried(src.manifest(serve))))
	w.now = w.now.Add(time.Minute)
	for _, f := range []*fake{src, dst} { // the other one is told of again, and the rest of the stopped one
		seen := map[int64]bool{}
		for range 2 {
			l := f.next()
			if l.Task == nil {
				t.Fatalf("%s got %s", f.peer.Identity, show(l))
			}
			seen[l.Task.Bat] = true
			if l.Task.Bat != receive2.Bat {
				m := f.manifest(*l.Task)
				if len(m.Items) != 1 || m.Items[0].Src != "a" {
					t.Errorf("got the items %+v, want a alone", m.Items)
				}
				f.post(f.receipt(*l.Task, nil))
			}
		}
		if !seen[receive2.Bat] || len(seen) != 2 {
			t.Errorf("%s got the batches %v", f.peer.Identity, seen)
		}
		if r := f.revoked(id); r != "" {
			t.Errorf("%s has the transfer in its list still: %q", f.peer.Identity, r)
		}
	}
	dst.post(dst.receipt(receive2, nil))
	src.post(src.receipt(serve2, nil))
	w.want(id, api.Partial, map[token.Result]int64{token.Stored: 2, token.Denied: 1})
}

// TestWaitingItemsAreDenied: what no agent has begun ends without one, also after a restart in between.
func TestWaitingItemsAreDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src := w.agent(w.north, "n1", "src")
	src.connect()
	w.allow("north:/src", grant("north", everything))
	id := w.submit(w.order())
	src.list(object("a", 1), object("hr/b", 2), object("z", 3))
	w.allow("north:/src/hr", "DENY spiffe://north/subscriber/alice OBJECT_INHERIT,CONTAINER_INHERIT READ_OBJECT")
	src.leave()
	w.crash()
	w.step()
	got := w.transfer(id)
	if got.Outcomes[token.Denied] != 1 || got.ItemsDone != 1 {
		t.Errorf("got %v, want one item denied", got.Outcomes)
	}
	w.checkTotals(id)
}

// TestListingIsTakenAway: the plan ends at the next step, with an event, and what was found goes on.
func TestListingIsTakenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("north:/src", grant("north", everything))
	id := w.submit(w.order())
	k := src.task(api.ListTask)
	src.page(k.ID, api.TaskPage{Entries: []api.Entry{object("a", 1)}})
	serve, receive := batch(src, dst)
	w.allow("north:/src", grant("north", acl.ReadMetadata|acl.ReadAttributes),
		"ALLOW spiffe://north/subscriber/alice OBJECT_INHERIT,INHERIT_ONLY READ_OBJECT")
	w.step()
	if _, err := w.b.PostPage(t.Context(), src.peer, k.ID, api.TaskPage{Entries: []api.Entry{object("b", 1)}, Last: true}, w.now); problem.Of(err) != problem.LeaseLost {
		t.Errorf("a page of a listing that may not be: got %v", err)
	}
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	got := w.want(id, api.Partial, map[token.Result]int64{token.Stored: 1})
	if got.Problem == nil || !strings.Contains(got.Problem.Detail, "LIST_CONTAINER") {
		t.Errorf("got the problem %+v", got.Problem)
	}
}

// TestRetentionBeginsMidTransfer: nothing has changed, but the moment has come.
func TestRetentionBeginsMidTransfer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("south:/dst", grant("south", everything))
	start := w.now.Add(5 * time.Minute)
	w.wish("south:/dst", acl.Container, space.RetentionPeriod, fmt.Sprintf("%q", space.Interval{Start: start, End: start.Add(time.Hour)}.String()))
	id := w.submit(w.order())
	src.list(object("a", 1))
	batch(src, dst)
	w.now = start.Add(-time.Second)
	w.step()
	if r := dst.revoked(id); r != "" {
		t.Fatalf("it was revoked before: %q", r)
	}
	w.now = start.Add(time.Second)
	w.step()
	if dst.dropped() == 0 || dst.revoked(id) != token.ByDenial {
		t.Errorf("got the reason %q, want %q", dst.revoked(id), token.ByDenial)
	}
}

// TestPausedTransferLosesARight: what was stopped while it was paused does not go on when it is resumed.
func TestPausedTransferLosesARight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("north:/src", grant("north", everything))
	id := w.submit(w.order())
	src.list(object("a", 1))
	serve, receive := batch(src, dst)
	if _, err := w.b.Pause(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
	w.allow("north:/src")
	w.step()
	dst.dropped()
	src.dropped()
	if _, err := w.b.Resume(t.Context(), w.me(), id, w.now); err != nil {
		t.Fatal(err)
	}
	w.step()
	if dst.revoked(id) == "" {
		t.Error("its capabilities are good again, and its agents have not stopped")
	}
	dst.post(dst.receipt(receive, untried(dst.manifest(receive))))
	src.post(src.receipt(serve, untried(src.manifest(serve))))
	w.want(id, api.Failed, map[token.Result]int64{token.Denied: 1})
}

// TestStandingOrderIsJudgedAtEachRun: a run is not begun while the account lacks a right, its subscriber is told once, and it is begun when the right is back.
func TestStandingOrderIsJudgedAtEachRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.pair()
	w.allow("north:/src", grant("north", everything))
	o := w.order(func(o *token.Order) { o.Period = 3600 })
	id := w.submit(o)
	src.list()
	w.step()
	w.allow("north:/src")
	w.now = w.now.Add(time.Hour)
	w.step()
	w.step()
	info, err := w.b.OrderInfo(t.Context(), w.me(), id)
	if err != nil || !strings.Contains(info.Waiting, "north:/src/") || info.Runs != 1 {
		t.Errorf("got %+v (%v), want an order that waits for the right", info, err)
	}
	if got := w.transfer(id).Denials; len(got) != 1 {
		t.Errorf("got the denials %+v, want one", got)
	}
	w.allow("north:/src", grant("north", everything))
	w.step()
	if info, err := w.b.OrderInfo(t.Context(), w.me(), id); err != nil || info.Runs != 2 || info.Waiting != "" {
		t.Errorf("got %+v (%v), want a second run", info, err)
	}
	src.list()
}

// TestAgentMovesAStore: a place that was agreed is not any more, and what was permitted for it ends.
func TestAgentMovesAStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.conf.Places = map[token.Location]space.Region{{Provider: "south"}: "DE"}
	w.crash()
	src, dst := w.agent(w.north, "n1", "src"), w.agent(w.south, "s1", "dst")
	dst.hello.Exports[0].Place = "DE"
	src.connect()
	dst.connect()
	w.allow("south:/dst", grant("south", everything))
	w.wish("south:/dst", acl.Container, space.GeographicPlacement, `["DE"]`)
	id := w.submit(w.order())
	src.list(object("a", 1))
	serve, receive := batch(src, dst)
	dst.leave()
	dst.hello.Exports[0].Place = "US"
	dst.connect()
	src.dropped()
	if k := dst.next(); k.Task != nil { // of its new stream
		dst.dropped()
	}
	dst.post(dst.receipt(receive, untried(dst.manifest(receive))))
	src.post(src.receipt(serve, untried(src.manifest(serve))))
	got := w.want(id, api.Failed, map[token.Result]int64{token.Denied: 1})
	if n := len(got.Denials); n == 0 || got.Denials[0].Code != problem.PlacementRefused {
		t.Errorf("got the denials %+v", got.Denials)
	}
}

// TestConfigurationMovesAStore: the broker is started with another place for a provider. No list and no setting has changed; what waits and what runs ends.
func TestConfigurationMovesAStore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.conf.Places = map[token.Location]space.Region{{Provider: "south"}: "DE"}
	w.crash()
	src, dst := w.agent(w.north, "n1", "src"), w.agent(w.south, "s1", "dst")
	src.hello.Slots = 1
	dst.hello.Exports[0].Place = "DE"
	src.connect()
	dst.connect()
	w.allow("south:/dst", grant("south", everything))
	w.wish("south:/dst", acl.Container, space.GeographicPlacement, `["DE"]`)
	runs := w.submit(w.order())
	src.list(object("a", 1))
	batch(src, dst)
	waits := w.submit(w.order(func(o *token.Order) { o.To.Name = "two" }))
	src.list(object("b", 1))
	src.leave()
	dst.leave()
	w.conf.Places = map[token.Location]space.Region{{Provider: "south"}: "US"}
	w.crash()
	w.step()
	w.want(waits, api.Failed, map[token.Result]int64{token.Denied: 1})
	src.connect()
	if l := src.dropped(); l == 0 || src.revoked(runs) != token.ByDenial {
		t.Errorf("got the reason %q of what runs, want %q", src.revoked(runs), token.ByDenial)
	}
}

// TestSettledItemsHaveRows: what was stored is known to the namespace in the same transaction, with its owner, and what was read at the source was accessed.
func TestSettledItemsHaveRows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.wish("north:/src/a", acl.Object, "colour", `"red"`)
	before := w.spot("north:/src/a", acl.Object).Node.Accesses
	id := w.submit(w.order())
	src.list(object("a", 10), object("b", 20), object("sub/c", 30))
	serve, receive := batch(src, dst)
	m := dst.manifest(receive)
	got := untried(m)
	got[0], got[2] = good(0, m.Items[0], token.Destination), good(2, m.Items[2], token.Destination)
	got[1] = bad(1, token.Failed, problem.Unwritable)
	dst.post(dst.receipt(receive, got))
	src.post(src.receipt(serve, nil))
	w.want(id, api.Partial, map[token.Result]int64{token.Stored: 2, token.Failed: 1})
	n := w.spot("south:/dst/copy/sub/c", acl.Object)
	if !n.Known || n.Node.Size != 30 || n.Node.Owner != "spiffe://south/subscriber/alice" || n.Node.Xfr != id || n.Node.Digest == "" {
		t.Errorf("got the row %+v", n.Node)
	}
	if n := w.spot("south:/dst/copy/b", acl.Object); n.Known {
		t.Errorf("got a row of what was not stored: %+v", n.Node)
	}
	if n := w.spot("south:/dst", acl.Container); n.Node.Size != 40 || n.Node.Objects != 2 {
		t.Errorf("got %d bytes of %d objects in the container, want 40 of 2", n.Node.Size, n.Node.Objects)
	}
	if n := w.spot("north:/src/a", acl.Object).Node.Accesses; n != before+1 {
		t.Errorf("got %d accesses of the source, want %d", n, before+1)
	}
}

// TestMadeContainersBelongToWhomTheyWereMadeFor, and not to who asks for one that is there.
func TestMadeContainersBelongToWhomTheyWereMadeFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.pair()
	for name, made := range map[string]bool{"new": true, "old": false} {
		done := make(chan error, 1)
		go func() {
			_, err := w.b.Lookup(t.Context(), w.me(), api.Lookup{Order: w.sign(w.lookupOrder(token.Make, "north:/src/"+name))}, w.now)
			done <- err
		}()
		k := src.task(api.MakeTask)
		src.page(k.ID, api.TaskPage{Entries: []api.Entry{{Name: token.ObjectName(name), Type: "container", Made: made}}, Last: true})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		n := w.spot("north:/src/"+name, acl.Container)
		if want := map[bool]acl.Who{true: "spiffe://north/subscriber/alice"}[made]; !n.Known || n.Node.Owner != want {
			t.Errorf("%s: got the owner %q, want %q", name, n.Node.Owner, want)
		}
	}
}

// TestFoldersKeepToTheRights: an empty container is made where the account may make one, and is denied else.
func TestFoldersKeepToTheRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("south:/dst", grant("south", everything))
	w.wish("south:/dst/copy/full", acl.Container, "colour", `"red"`)
	w.allow("south:/dst/copy/full", "DENY spiffe://south/subscriber/alice CONTAINER_INHERIT ADD_SUBCONTAINER")
	id := w.submit(w.order())
	src.list(api.Entry{Name: "empty", Type: "container"}, api.Entry{Name: "full/empty", Type: "container"}, api.Entry{Name: "late", Type: "container"})
	w.wish("south:/dst/copy/late", acl.Container, "colour", `"red"`) // known to be there: nothing is made
	mk := dst.task(api.MakeTask)
	if fmt.Sprint(mk.Names) != "[copy/empty copy/late]" {
		t.Fatalf("got %q to make", mk.Names)
	}
	dst.page(mk.ID, api.TaskPage{Last: true, Entries: []api.Entry{{Name: "copy/empty", Type: "container", Made: true}, {Name: "copy/late", Type: "container"}}})
	w.want(id, api.Failed, map[token.Result]int64{token.Denied: 1})
	if n := w.spot("south:/dst/copy/empty", acl.Container); n.Node.Owner != "spiffe://south/subscriber/alice" {
		t.Errorf("got the owner %q", n.Node.Owner)
	}
}

// TestRateOfTheSource: the least throughput that is in force for what a batch reads is what its source's agent is told, also when it changes.
func TestRateOfTheSource(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("north:/src", grant("north", everything))
	w.wish("north:/src", acl.Container, space.Throughput, `"5000"`)
	w.wish("north:/src/b", acl.Object, space.Throughput, `"2000"`)
	id := w.submit(w.order())
	src.list(object("a", 1), object("b", 1))
	serve, receive := batch(src, dst)
	if serve.Rate != 2000 || receive.Rate != 0 {
		t.Errorf("got the rates %d and %d, want 2000 at the source alone", serve.Rate, receive.Rate)
	}
	w.wish("north:/src/b", acl.Object, space.Throughput, `"1000"`)
	if again := src.task(api.ServeTask); again.Rate != 1000 {
		t.Errorf("got the rate %d after the change, want 1000", again.Rate)
	}
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 2})
}

// TestHashOfTheDestination: the hash that is in force where an object goes is asked for in the manifest, also of what waits when it changes, and what the agent
// answers is in its row.
func TestHashOfTheDestination(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.agent(w.north, "n1", "src"), w.agent(w.south, "s1", "dst")
	src.connect()
	w.allow("south:/dst", grant("south", everything))
	w.wish("south:/dst/copy/a", acl.Container, space.Hash, `"SHA256"`)
	id := w.submit(w.order())
	src.list(object("a/x", 1), object("b/y", 1))
	w.wish("south:/dst/copy/b", acl.Container, space.Hash, `"MD5"`)
	dst.connect()
	serve, receive := batch(src, dst)
	m := dst.manifest(receive)
	var outs []token.Outcome
	for i, it := range m.Items {
		if want := map[token.ObjectName]token.ValueHash{"a/x": token.SHA256, "b/y": token.MD5}[it.Src]; it.Hash != want {
			t.Errorf("%s: got the hash %q, want %q", it.Src, it.Hash, want)
		}
		o := good(i, it, token.Destination)
		o.Hash = token.ValueDigest(string(it.Hash) + ":" + strings.Repeat("ab", it.Hash.Size()))
		outs = append(outs, o)
	}
	dst.post(dst.receipt(receive, outs))
	src.post(src.receipt(serve, nil))
	w.want(id, api.Complete, map[token.Result]int64{token.Stored: 2})
	if n := w.spot("south:/dst/copy/b/y", acl.Object).Node; n.HashKind != space.MD5 || n.Hash != strings.Repeat("ab", 16) {
		t.Errorf("got the hash %q of kind %q in the row", n.Hash, n.HashKind)
	}
}

// TestAttemptsAreRecorded: an AUDIT entry has an order recorded that is refused, and a page of a plan as one record.
func TestAttemptsAreRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.pair()
	audit := "AUDIT EVERYONE@ OBJECT_INHERIT,CONTAINER_INHERIT READ_OBJECT"
	w.allow("north:/src", audit)
	if _, err := w.b.Submit(t.Context(), w.me(), w.sign(w.order(one)), w.now); err == nil {
		t.Fatal("it was not refused")
	}
	if got := w.recorded(opCopyFrom); len(got) != 1 || got[0].Outcome.Granted() {
		t.Fatalf("got the records %+v, want one of a refusal", got)
	}
	w.allow("north:/src", audit, grant("north", everything))
	w.submit(w.order())
	src.list(object("a", 1), object("b", 1), object("c", 1))
	got := w.recorded(opCopyFrom)
	if len(got) != 2 || got[1].Items != 3 || !got[1].Outcome.Granted() {
		t.Errorf("got the records %+v, want another of three names", got)
	}
}

// recorded returns the audit records of an operation.
func (w *world) recorded(op string) []db.AuditRecord {
	w.t.Helper()
	var out []db.AuditRecord
	if err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) error {
		rs, err := tx.AuditFrom(w.t.Context(), 1, 1000)
		for _, r := range rs {
			if r.Op == op {
				out = append(out, r)
			}
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return out
}
