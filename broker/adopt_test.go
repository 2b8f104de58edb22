package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	aliceAtNorth = token.Identity("spiffe://north/subscriber/alice")
	bobAtNorth   = token.Identity("spiffe://north/subscriber/bob")
)

// administered is a world in which alice administers north.
func administered(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.conf.Space.Administrators = []token.Identity{aliceAtNorth}
	w.crash()
	return w
}

// listing is an order of alice's to list north:/src, changed as the caller wishes.
func (w *world) listing(change ...func(*token.Order)) token.Order {
	return w.order(append([]func(*token.Order){func(o *token.Order) {
		o.Do, o.Accounts, o.To, o.IfExists = token.List, o.Accounts[:1], token.Location{}, ""
	}}, change...)...)
}

func (w *world) adopt(o token.Order, change ...func(*api.AdoptionOrder)) api.Adoption {
	w.t.Helper()
	a, err := w.b.Adopt(w.t.Context(), w.me(), w.asked(o, change...), w.now)
	if err != nil {
		w.t.Fatalf("adopting: %v", err)
	}
	return a
}

func (w *world) asked(o token.Order, change ...func(*api.AdoptionOrder)) api.AdoptionOrder {
	ao := api.AdoptionOrder{Order: w.sign(o)}
	for _, c := range change {
		c(&ao)
	}
	return ao
}

func (w *world) adoption(id token.TransferID) api.Adoption {
	w.t.Helper()
	a, err := w.b.Adoption(w.t.Context(), w.me(), id, 0, 0)
	if err != nil {
		w.t.Fatalf("reading an adoption: %v", err)
	}
	return a
}

// known returns what the namespace knows of a place in north:/src.
func (w *world) known(name token.ObjectName, k acl.Kind) (s tree.Spot) {
	w.t.Helper()
	err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) (err error) {
		s, err = w.b.tree.Spot(w.t.Context(), tx, token.Location{Provider: "north", Container: "src", Name: name}, k)
		return err
	})
	if err != nil {
		w.t.Fatalf("reading a row: %v", err)
	}
	return s
}

// own makes a container in north:/src, or all of it, that belongs to owner.
func (w *world) own(name token.ObjectName, owner token.Identity, list ...string) {
	w.t.Helper()
	err := w.b.db.Write(w.t.Context(), func(tx *db.Tx) error {
		at := token.Location{Provider: "north", Container: "src", Name: name}
		n, err := w.b.tree.Make(w.t.Context(), tx, owner, at, acl.Container, w.now)
		if err != nil {
			return err
		}
		n.Owner = acl.Who(owner)
		for _, text := range list {
			l, err := acl.ParseText(text)
			if err != nil {
				return err
			}
			n.ACL = string(l.Marshal())
		}
		return errors.Join(tx.SaveNode(w.t.Context(), n), tx.BumpACLGen(w.t.Context(), "north"))
	})
	if err != nil {
		w.t.Fatalf("making a container: %v", err)
	}
}

// adoptLeaves returns the leaves of adoptions.
func (w *world) adoptLeaves() (out []map[string]any) {
	w.t.Helper()
	err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) error {
		return tx.Leaves(w.t.Context(), 0, func(_ int64, l db.Leaf) error {
			if l.Kind != db.AdoptLeaf {
				return nil
			}
			m := map[string]any{}
			out = append(out, m)
			return json.Unmarshal(l.Body, &m)
		})
	})
	if err != nil {
		w.t.Fatalf("reading leaves: %v", err)
	}
	return out
}

// folders are n objects, ten to a folder, in the order of a listing.
func folders(n int) []api.Entry {
	var out []api.Entry
	for i := range n {
		out = append(out, object(fmt.Sprintf("d%04d/o%d", i/10, i%10), 3))
	}
	return out
}

func TestAdoption(t *testing.T) {
	t.Parallel()
	w := administered(t)
	src, _ := w.pair()
	o := w.listing()
	a := w.adopt(o, func(ao *api.AdoptionOrder) {
		ao.Owner, ao.Metadata = bobAtNorth, map[string]json.RawMessage{"project": json.RawMessage(`"apollo"`)}
	})
	if again := w.adopt(o, func(ao *api.AdoptionOrder) {
		ao.Owner, ao.Metadata = bobAtNorth, map[string]json.RawMessage{"project": json.RawMessage(`"apollo"`)}
	}); again.ID != a.ID {
		t.Errorf("the same again: got %s, want %s", again.ID, a.ID)
	}
	if _, err := w.b.Adopt(t.Context(), w.me(), w.asked(o), w.now); problem.Of(err) != problem.Conflict {
		t.Errorf("the same order for another owner: got %v, want %s", err, problem.Conflict)
	}
	k := src.task(api.ListTask)
	if k.After != "" || len(k.Order.JWS) != 1 {
		t.Errorf("got the task %+v", k)
	}
	n := int64(2500)
	if testing.Short() {
		n = 1200
	}
	all := append(folders(int(n)), api.Entry{Name: "e", Type: "container"}, api.Entry{Name: "ln", Type: "link"})
	for len(all) > 0 {
		part := min(len(all), api.MaxPage)
		page := api.TaskPage{Entries: all[:part], Last: part == len(all)}
		if more := src.page(k.ID, page).More; more != !page.Last {
			t.Fatalf("more is wanted: got %v, with %d left", more, len(all)-part)
		}
		all = all[part:]
		if done := w.adoption(a.ID); len(all) > 0 && done.State != api.Running || done.Objects < 1 {
			t.Errorf("a page was answered before it was entered: %+v", done)
		}
	}
	got := w.adoption(a.ID)
	want := api.Adoption{State: api.Complete, Objects: n, Containers: n/10 + 1, Bytes: 3 * n, Made: n + n/10 + 1, Skipped: 1}
	if got.State != want.State || got.Objects != want.Objects || got.Containers != want.Containers || got.Bytes != want.Bytes || got.Made != want.Made ||
		got.Changed+got.Refused != 0 || got.Skipped != 1 || got.Finished == nil || got.Problem != nil {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if n := w.known("d0111/o9", acl.Object).Node; n.Owner != acl.Who(bobAtNorth) || n.User != `{"project":"apollo"}` || n.Size != 3 || n.Version != "v-d0111/o9" {
		t.Errorf("got the row %+v", n)
	}
	if root := w.known("", acl.Container).Node; root.Objects != n || root.Size != 3*n || root.Owner != "" {
		t.Errorf("got the root container %+v", root)
	}
	ls := w.adoptLeaves()
	if len(ls) != 2 || ls[0]["owner"] != string(bobAtNorth) || ls[1]["objects"] != float64(n) || ls[1]["state"] != "complete" {
		t.Errorf("got the leaves %v, want one of the begin and one of the end", ls)
	}
	p, err := w.b.Adoptions(t.Context(), w.me(), "", 0)
	if err != nil || len(p.Items) != 1 || p.Items[0].ID != a.ID {
		t.Errorf("got the list %+v, %v", p, err)
	}
	src.idle()
}

// idle fails if there is something to do.
func (f *fake) idle() {
	f.w.t.Helper()
	f.w.step()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.lines) > 0 {
		f.w.t.Errorf("%s has to do: %s", f.peer.Identity, show(f.lines[0]))
	}
}

func TestAdoptionOfOneObject(t *testing.T) {
	t.Parallel()
	one := func(o *token.Order) { o.Do, o.Scope, o.From.Name = token.Stat, token.One, "d/a" }
	for name, tt := range map[string]struct {
		entries []api.Entry
		state   api.State
		code    problem.Code
	}{
		"there":       {[]api.Entry{object("d/a", 3)}, api.Complete, ""},
		"not there":   {[]api.Entry{{Name: "d/a", Code: problem.Missing, Detail: "There is none"}}, api.Failed, problem.Missing},
		"nothing":     {nil, api.Failed, problem.Missing},
		"a container": {[]api.Entry{{Name: "d/a", Type: "container"}}, api.Failed, problem.Missing},
		"another one": {[]api.Entry{object("d/b", 3)}, api.Failed, problem.Missing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := administered(t)
			src, _ := w.pair()
			a := w.adopt(w.listing(one))
			k := src.task(api.StatTask)
			if !slices.Equal(k.Names, []token.ObjectName{"d/a"}) {
				t.Errorf("got the names %v", k.Names)
			}
			src.page(k.ID, api.TaskPage{Entries: tt.entries, Last: true})
			got := w.adoption(a.ID)
			if got.State != tt.state || tt.code == "" && got.Problem != nil || tt.code != "" && (got.Problem == nil || got.Problem.Code != tt.code) {
				t.Errorf("got %+v (%+v), want %s %s", got, got.Problem, tt.state, tt.code)
			}
			if known, want := w.known("d/a", acl.Object).Known, tt.code == ""; known != want || w.known("d/b", acl.Object).Known || w.known("d", acl.Container).Node.Owner != "" {
				t.Errorf("the row is there: got %v, want %v", known, want)
			}
		})
	}
}

// TestAdoptionIsKilledAnywhere fails each transaction of an adoption once, before its commit and after it (the answer is lost), kills the broker there, and
// wants the same counts and rows each time.
func TestAdoptionIsKilledAnywhere(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before commit", "after commit"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			n, step := 1, 1
			if testing.Short() {
				step = 4
			}
			for adoptFailingAt(t, when, n) {
				n += step
			}
			if n < 5 {
				t.Errorf("got %d transactions in a whole adoption, want 5 at least: the faults do not fire", n-1)
			}
			t.Logf("transactions up to %d failed, %s", n-1, when)
		})
	}
}

// adoptFailingAt adopts with the n-th transaction failing, and reports whether there were as many.
func adoptFailingAt(t *testing.T, when string, n int) bool {
	w := administered(t)
	src := w.agent(w.north, "n1", "src")
	src.connect()
	var count atomic.Int64
	w.b.fault = func(at string) error {
		if at == when && count.Add(1) == int64(n) {
			return errInjected
		}
		return nil
	}
	all := folders(120)
	ao := w.asked(w.listing())
	id := token.TransferID("")
	live := func() error {
		a, err := w.b.Adopt(t.Context(), w.me(), ao, w.now)
		if err != nil {
			return err
		}
		id = a.ID
		if err := w.b.step(t.Context(), w.now); err != nil {
			return err
		}
		select {
		case <-src.more:
		case <-time.After(2 * time.Millisecond):
		}
		src.mu.Lock()
		lines := src.lines
		src.lines = nil
		src.mu.Unlock()
		for _, l := range lines {
			if err := src.answer(l, all); err != nil {
				return err
			}
		}
		return nil
	}
	for range 50 {
		err := live()
		switch {
		case errors.Is(err, errInjected):
			src.leave()
			w.crash()
			src.connect()
		case err != nil:
			t.Fatalf("%s, transaction %d: %v", when, n, err)
		case w.adoption(id).Finished != nil:
			got := w.adoption(id)
			if got.State != api.Complete || got.Objects != 120 || got.Containers != 12 || got.Made != 132 || got.Changed != 0 || got.Bytes != 360 || len(w.adoptLeaves()) != 2 {
				t.Errorf("%s, transaction %d: got %+v", when, n, got)
			}
			if root := w.known("", acl.Container).Node; root.Objects != 120 || root.Size != 360 {
				t.Errorf("%s, transaction %d: the root container holds %+v", when, n, root)
			}
			src.leave()
			return count.Load() >= int64(n)
		}
		w.now = w.now.Add(10 * time.Second)
	}
	t.Fatalf("%s, transaction %d: got no end: %+v", when, n, w.adoption(id))
	return false
}

// answer lists all behind the name of a task in pages of 40. A page whose answer is lost is sent once more.
func (f *fake) answer(l api.Line, all []api.Entry) error {
	if l.Task == nil || l.Task.Kind != api.ListTask {
		return nil
	}
	at := 0
	if l.Task.After != "" {
		at = 1 + slices.IndexFunc(all, func(e api.Entry) bool { return e.Name == l.Task.After })
	}
	for more := true; more; {
		end := min(at+40, len(all))
		page := api.TaskPage{Entries: all[at:end], Last: end == len(all)}
		a, err := f.w.b.PostPage(f.w.t.Context(), f.peer, l.Task.ID, page, f.w.now)
		if problem.Of(err) == problem.LeaseLost {
			return nil
		}
		if err != nil {
			return err
		}
		at, more = end, a.More
	}
	return nil
}

// TestAdoptionGoesOnWithAnotherAgent: an agent that goes away is waited for, and a late page of its is nobody's.
func TestAdoptionGoesOnWithAnotherAgent(t *testing.T) {
	t.Parallel()
	w := administered(t)
	one, two := w.agent(w.north, "n1", "src"), w.agent(w.north, "n2", "src")
	one.connect()
	a := w.adopt(w.listing())
	k := one.task(api.ListTask)
	all := folders(60)
	one.page(k.ID, api.TaskPage{Entries: all[:30]})
	one.leave()
	w.step()
	if got := w.adoption(a.ID); got.State != api.Running || !strings.Contains(got.Waiting, "north") || got.Objects != 30 {
		t.Errorf("without an agent: got %+v", got)
	}
	two.connect()
	next := two.task(api.ListTask)
	if next.After != all[29].Name || next.ID == k.ID {
		t.Errorf("got a listing after %q, want after %q", next.After, all[29].Name)
	}
	for name, f := range map[string]*fake{"late": one, "of another's task": two} {
		if _, err := w.b.PostPage(t.Context(), f.peer, k.ID, api.TaskPage{Entries: all[30:], Last: true}, w.now); problem.Of(err) != problem.LeaseLost {
			t.Errorf("a page %s: got %v, want %s", name, err, problem.LeaseLost)
		}
	}
	if _, err := w.b.PostPage(t.Context(), one.peer, next.ID, api.TaskPage{Last: true}, w.now); problem.Of(err) != problem.LeaseLost {
		t.Errorf("an end by who does not list: got %v, want %s", err, problem.LeaseLost)
	}
	two.page(next.ID, api.TaskPage{Entries: all[30:], Last: true})
	if got := w.adoption(a.ID); got.State != api.Complete || got.Objects != 60 || got.Containers != 6 {
		t.Errorf("got %+v", got)
	}
}

// TestAdoptionEndsWithItsOrder: what was entered stays, and nothing is taken any more.
func TestAdoptionEndsWithItsOrder(t *testing.T) {
	t.Parallel()
	w := administered(t)
	src, _ := w.pair()
	for name, end := range map[string]func(id token.TransferID){
		"expired": func(token.TransferID) {
			w.now = w.now.Add(49 * time.Hour)
			w.step()
		},
		"cancelled": func(id token.TransferID) {
			if _, err := w.b.CancelAdoption(t.Context(), w.me(), id, w.now); err != nil {
				t.Fatal(err)
			}
		},
	} {
		a := w.adopt(w.listing())
		k := src.task(api.ListTask)
		src.page(k.ID, api.TaskPage{Entries: folders(10)})
		end(a.ID)
		if _, err := w.b.PostPage(t.Context(), src.peer, k.ID, api.TaskPage{Entries: folders(20)[10:], Last: true}, w.now); problem.Of(err) != problem.LeaseLost {
			t.Errorf("%s: a page behind the end: got %v", name, err)
		}
		got := w.adoption(a.ID)
		if string(got.State) != name || got.Objects != 10 || got.Problem == nil || w.known("d0001/o0", acl.Object).Known || !w.known("d0000/o0", acl.Object).Known {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

// TestAdoptionByWhoDoesNotAdminister: whoever may list a container, and write there, could else make everything in it its own.
func TestAdoptionByWhoDoesNotAdminister(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		prepare func(*world)
		owner   token.Identity
		place   token.ObjectName
		code    problem.Code
	}{
		"nobody's container":                {func(*world) {}, "", "", problem.NotPermitted},
		"somebody else's":                   {func(w *world) { w.own("", bobAtNorth) }, "", "", problem.NotPermitted},
		"somebody else's, with every right": {func(w *world) { w.own("", bobAtNorth, "ALLOW EVERYONE@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS") }, "", "", problem.NotPermitted},
		"its own, without WRITE_METADATA":   {func(w *world) { w.own("", aliceAtNorth, "DENY OWNER@ CONTAINER_INHERIT WRITE_METADATA") }, "", "", problem.NotPermitted},
		"its own, without LIST_CONTAINER": {func(w *world) {
			w.own("", aliceAtNorth, "DENY OWNER@ CONTAINER_INHERIT LIST_CONTAINER")
		}, "", "", problem.NotPermitted},
		"its own, that it may not see": {func(w *world) {
			w.own("x", aliceAtNorth, "DENY EVERYONE@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS")
			w.own("", bobAtNorth, "ALLOW bob OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS")
		}, "", "x", problem.Hidden},
		"its own, for another as the owner":  {func(w *world) { w.own("", aliceAtNorth, "DENY OWNER@ CONTAINER_INHERIT WRITE_OWNER") }, bobAtNorth, "", problem.NotPermitted},
		"its own":                            {func(w *world) { w.own("", aliceAtNorth) }, "", "", ""},
		"its own, for another, WRITE_OWNER":  {func(w *world) { w.own("", aliceAtNorth) }, bobAtNorth, "", ""},
		"its own, for no subscriber":         {func(w *world) { w.own("", aliceAtNorth) }, "spiffe://north/agent/n1", "", problem.Malformed},
		"its own, for an unknown provider's": {func(w *world) { w.own("", aliceAtNorth) }, "spiffe://west/subscriber/w", "", problem.UnknownProvider},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.pair()
			tt.prepare(w)
			o := w.listing(func(o *token.Order) { o.From.Name = tt.place })
			_, err := w.b.Adopt(t.Context(), w.me(), w.asked(o, func(ao *api.AdoptionOrder) { ao.Owner = tt.owner }), w.now)
			if tt.code == "" && err != nil || tt.code != "" && problem.Of(err) != tt.code {
				t.Errorf("got %v, want %s", err, tt.code)
			}
			if _, seen := w.b.Adoption(t.Context(), w.me(), o.ID, 0, 0); (seen == nil) != (tt.code == "") {
				t.Errorf("the adoption is there: %v", seen)
			}
		})
	}
}

// TestAdoptionOfAnOrderOfAnothers: an order that another has signed, or to do something else, adopts nothing.
func TestAdoptionOfAnOrderOfAnothers(t *testing.T) {
	t.Parallel()
	w := administered(t)
	w.pair()
	mallory := w.north.Issue(token.Subscriber, "mallory", certstest.Valid(w.now.Add(-time.Hour), w.now.Add(time.Hour)))
	if _, err := w.b.Adopt(t.Context(), peerOf(mallory), w.asked(w.listing()), w.now); problem.Of(err) != problem.NotPermitted {
		t.Errorf("alice's order, handed in by mallory: got %v, want %s", err, problem.NotPermitted)
	}
	if _, err := w.b.Adopt(t.Context(), w.me(), w.asked(w.order()), w.now); problem.Of(err) != problem.WrongStatement {
		t.Errorf("an order to copy: got %v, want %s", err, problem.WrongStatement)
	}
	used := w.submit(w.order())
	if _, err := w.b.Adopt(t.Context(), w.me(), w.asked(w.listing(func(o *token.Order) { o.ID = used })), w.now); problem.Of(err) != problem.Conflict {
		t.Errorf("an id that was used: got %v, want %s", err, problem.Conflict)
	}
	a := w.adopt(w.listing())
	for name, call := range map[string]func() error{
		"show":   func() error { _, err := w.b.Adoption(t.Context(), peerOf(mallory), a.ID, 0, 0); return err },
		"cancel": func() error { _, err := w.b.CancelAdoption(t.Context(), peerOf(mallory), a.ID, w.now); return err },
	} {
		if err := call(); problem.Of(err) != problem.Hidden {
			t.Errorf("%s of another's adoption: got %v, want %s", name, err, problem.Hidden)
		}
	}
	if p, err := w.b.Adoptions(t.Context(), peerOf(mallory), "", 0); err != nil || len(p.Items) != 0 {
		t.Errorf("mallory's adoptions: got %+v, %v", p, err)
	}
}

// TestAdoptionLeavesOthersContainersAlone: an owner adopts nothing that stands in a container of somebody else's below.
func TestAdoptionLeavesOthersContainersAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.pair()
	w.own("", aliceAtNorth)
	w.own("bobs", bobAtNorth)
	w.own("shut", aliceAtNorth, "DENY OWNER@ CONTAINER_INHERIT WRITE_METADATA")
	a := w.adopt(w.listing())
	src.list(object("a", 1), object("bobs/deep/o", 2), object("bobs/o", 2), object("shut/o", 4), object("z", 8))
	got := w.adoption(a.ID)
	if got.State != api.Partial || got.Objects != 2 || got.Refused != 3 || got.Bytes != 9 || got.Problem == nil || got.Problem.Code != problem.Partial ||
		!strings.Contains(got.Problem.Detail, "bobs/deep") {
		t.Errorf("got %+v, %+v", got, got.Problem)
	}
	for _, name := range []token.ObjectName{"bobs/deep/o", "bobs/o", "shut/o"} {
		if w.known(name, acl.Object).Known {
			t.Errorf("%s has a row", name)
		}
	}
	w.conf.Space.Administrators = []token.Identity{aliceAtNorth}
	src.leave()
	w.crash()
	src.connect()
	a = w.adopt(w.listing())
	src.list(object("a", 1), object("bobs/deep/o", 2), object("bobs/o", 2), object("shut/o", 4), object("z", 8))
	if got := w.adoption(a.ID); got.State != api.Complete || got.Objects != 5 || w.known("bobs", acl.Container).Node.Owner != acl.Who(bobAtNorth) {
		t.Errorf("by an administrator: got %+v", got)
	}
}

// TestRightToAdoptIsTakenAway: with the next piece the adoption is over, and says why.
func TestRightToAdoptIsTakenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.pair()
	w.own("", aliceAtNorth)
	a := w.adopt(w.listing())
	k := src.task(api.ListTask)
	src.page(k.ID, api.TaskPage{Entries: folders(10)})
	w.own("", bobAtNorth)
	if more := src.page(k.ID, api.TaskPage{Entries: folders(20)[10:]}).More; more {
		t.Error("more is wanted of an adoption that has ended")
	}
	got := w.adoption(a.ID)
	if got.State != api.Failed || got.Objects != 10 || got.Problem == nil || got.Problem.Code != problem.NotPermitted {
		t.Errorf("got %+v, %+v", got, got.Problem)
	}
}

// TestAdoptionUnderAHold: metadata may not change there; what is there may be written down.
func TestAdoptionUnderAHold(t *testing.T) {
	t.Parallel()
	w := administered(t)
	src, _ := w.pair()
	w.own("held", aliceAtNorth)
	err := w.b.db.Write(t.Context(), func(tx *db.Tx) error {
		n := w.known("held", acl.Container).Node
		n.Data = `{"cdmi_hold_id":["case 7"]}`
		return tx.SaveNode(t.Context(), n)
	})
	if err != nil {
		t.Fatal(err)
	}
	tagged := func(ao *api.AdoptionOrder) { ao.Metadata = map[string]json.RawMessage{"a": json.RawMessage(`"b"`)} }
	held := func(o *token.Order) { o.From.Name = "held" }
	if _, err := w.b.Adopt(t.Context(), w.me(), w.asked(w.listing(held), tagged), w.now); problem.Of(err) != problem.OnHold {
		t.Errorf("with metadata: got %v, want %s", err, problem.OnHold)
	}
	a := w.adopt(w.listing(), tagged)
	src.list(object("a", 1), object("held/o", 2))
	if got := w.adoption(a.ID); got.State != api.Partial || got.Objects != 1 || got.Refused != 1 || w.known("held/o", acl.Object).Known {
		t.Errorf("with metadata, from above: got %+v", got)
	}
	a = w.adopt(w.listing(held))
	src.list(object("held/o", 2))
	if got := w.adoption(a.ID); got.State != api.Complete || got.Objects != 1 {
		t.Errorf("without metadata: got %+v", got)
	}
}

// TestAgentTellsOfMoreThanWasAsked: names outside the place and those that a filter excludes are nobody's business, and no problem.
func TestAgentTellsOfMoreThanWasAsked(t *testing.T) {
	t.Parallel()
	w := administered(t)
	src, _ := w.pair()
	a := w.adopt(w.listing(func(o *token.Order) {
		o.From.Name, o.Filters = "d", []token.Filter{{Do: token.Exclude, Match: "*.tmp"}}
	}))
	src.list(object("elsewhere", 1), object("d/a", 1), object("d/b.tmp", 1), api.Entry{Name: "d/bad", Code: problem.NotPermitted, Detail: "No\x1b[31m"}, object("dd", 1))
	got := w.adoption(a.ID)
	if got.State != api.Partial || got.Objects != 1 || got.Containers != 1 || got.Refused != 1 || strings.Contains(got.Problem.Detail, "\x1b") {
		t.Errorf("got %+v, %+v", got, got.Problem)
	}
	if n := w.known("", acl.Container).Node; n.Objects != 1 {
		t.Errorf("the root container holds %d objects, want 1", n.Objects)
	}
}

// TestAdoptionIsTriedAgain: what may pass is waited for; what may not ends the adoption.
func TestAdoptionIsTriedAgain(t *testing.T) {
	t.Parallel()
	w := administered(t)
	src, _ := w.pair()
	a := w.adopt(w.listing())
	k := src.task(api.ListTask)
	src.page(k.ID, api.TaskPage{Last: true, Problem: api.ProblemOf(problem.New(problem.Timeout, "The store is busy"))})
	src.idle()
	if got := w.adoption(a.ID); got.State != api.Running || !strings.Contains(got.Waiting, "busy") {
		t.Errorf("got %+v", got)
	}
	w.now = w.now.Add(time.Hour)
	k = src.task(api.ListTask)
	src.page(k.ID, api.TaskPage{Last: true, Problem: api.ProblemOf(problem.New(problem.Missing, "There is nothing below it"))})
	if got := w.adoption(a.ID); got.State != api.Failed || got.Problem.Code != problem.Missing || got.Waiting != "" {
		t.Errorf("got %+v", got)
	}
}

// TestAdoptionsWithoutEnd: an account has so many at once, and a few are carried out, the oldest first.
func TestAdoptionsWithoutEnd(t *testing.T) {
	t.Parallel()
	w := administered(t)
	src, _ := w.pair()
	var ids []token.TransferID
	for range maxAdoptionsBy {
		ids = append(ids, w.adopt(w.listing()).ID)
	}
	if _, err := w.b.Adopt(t.Context(), w.me(), w.asked(w.listing()), w.now); problem.Of(err) != problem.Overloaded {
		t.Errorf("one more: got %v, want %s", err, problem.Overloaded)
	}
	w.step()
	running := 0
	for _, id := range ids {
		if w.adoption(id).State == api.Running {
			running++
		}
	}
	if running != adoptionsAtOnce {
		t.Errorf("%d are carried out at once, want %d", running, adoptionsAtOnce)
	}
	for range ids {
		src.list(object("a", 1))
	}
	for _, id := range ids {
		if got := w.adoption(id); got.State != api.Complete {
			t.Errorf("got %+v", got)
		}
	}
}
