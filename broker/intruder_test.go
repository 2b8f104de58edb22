package broker

import (
	"fmt"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestCompareIsNoOracle: who may bring objects into a container and not read there does not learn, by copying guesses with
// "verify", what is in it. Whether the name is there makes no difference.
func TestCompareIsNoOracle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.pair()
	w.allow("south:/dst", grant("south", everything&^(acl.ReadObject|acl.ReadACL)))
	id := w.submit(w.order(func(o *token.Order) { o.IfExists = token.Compare }))
	src.list(object("guess", 10), object("another", 10))
	w.want(id, "failed", map[token.Result]int64{token.Denied: 2})
	page, err := w.b.Items(t.Context(), w.me(), id, "", "")
	if err != nil || len(page.Items) != 2 {
		t.Fatalf("got %+v, %v", page, err)
	}
	for _, it := range page.Items {
		if !strings.Contains(it.Detail, "READ_OBJECT") || !strings.Contains(it.Detail, "south:/dst/copy/") {
			t.Errorf("%s: got %q, want the missing right to read at the destination", it.Src, it.Detail)
		}
	}
}

// TestReadingByAChange: who changes something is shown it, and that is an attempt to read it like any other: recorded where an
// AUDIT entry wants that.
func TestReadingByAChange(t *testing.T) {
	t.Parallel()
	w, dave, alice, _, _ := ruled(t)
	dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id()), ACL: list("ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS",
		"AUDIT EVERYONE@ OBJECT_INHERIT READ_ACL,READ_METADATA", "ALLOW alice OBJECT_INHERIT WRITE_METADATA,READ_METADATA,READ_ACL")})
	n := alice.mustChange("north:/src/a", api.NodeChange{Set: api.Items{"colour": []byte(`"red"`)}})
	if len(n.ACL) == 0 || len(n.User) == 0 {
		t.Fatalf("got %+v, want what alice may read of it", n)
	}
	read := acl.Mask(0)
	for _, r := range w.recorded("change") {
		if r.Who == acl.Who(alice.id()) && r.Place == at("north:/src/a") && r.Outcome == acl.Allowed {
			read |= r.Audited
		}
	}
	if read != acl.ReadACL|acl.ReadMetadata {
		t.Errorf("what alice was shown: got %s recorded, want READ_ACL and READ_METADATA", read)
	}
}

// TestExplainTellsOfNoMembers: who may read a list learns of others' groups no more than its entries make of them. Administrators and oneself
// are told all.
func TestExplainTellsOfNoMembers(t *testing.T) {
	t.Parallel()
	w, dave, alice, bob, _ := ruled(t)
	for _, g := range []string{"staff", "secret"} {
		if _, err := w.b.ChangeGroup(t.Context(), dave.peer, "north", g, api.GroupChange{Add: []token.Identity{bob.id()}}, w.now); err != nil {
			t.Fatal(err)
		}
	}
	dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id()), ACL: list("ALLOW alice NO_FLAGS READ_ACL", "ALLOW staff IDENTIFIER_GROUP LIST_CONTAINER",
		"ALLOW bob NO_FLAGS READ_ACL", "ALLOW dave NO_FLAGS READ_ACL")})
	for _, c := range []struct {
		asks person
		want string
	}{{alice, "[staff]"}, {bob, "[secret staff subscribers]"}, {dave, "[secret staff subscribers]"}} {
		e, err := w.b.ExplainAccess(t.Context(), c.asks.peer, Place{at("north:/src/"), api.ContainerNode}, string(bob.id()), "LIST_CONTAINER", w.now)
		if err != nil || fmt.Sprint(e.Groups) != c.want || !e.Granted {
			t.Errorf("%s asks of bob: got the groups %v, granted %t, %v, want %s", c.asks.id(), e.Groups, e.Granted, err, c.want)
		}
	}
}

// TestGuessOfAnIdentifierIsRecorded: who comes with the identifier of something that he may not see learns nothing, and leaves a record where an
// AUDIT entry wants one.
func TestGuessOfAnIdentifierIsRecorded(t *testing.T) {
	t.Parallel()
	w, dave, _, _, eve := ruled(t)
	n := dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id()), ACL: list("ALLOW OWNER@ NO_FLAGS ALL_PERMS", "AUDIT EVERYONE@ NO_FLAGS READ_ATTRIBUTES")})
	if n.ID == "" {
		t.Fatal("got no identifier")
	}
	if _, _, err := w.b.PlaceOf(t.Context(), eve.peer, space.ObjectID(n.ID), w.now); problem.Of(err) != problem.Hidden {
		t.Errorf("got %v, want %s", err, problem.Hidden)
	}
	rs := w.recorded(opReadCDMI)
	if len(rs) != 1 || rs[0].Who != acl.Who(eve.id()) || rs[0].Outcome.Granted() {
		t.Errorf("got the records %+v, want one of eve's", rs)
	}
	if _, _, err := w.b.PlaceOf(t.Context(), dave.peer, space.ObjectID(n.ID), w.now); err != nil {
		t.Errorf("its owner: %v", err)
	}
}

// TestHoldIsNotErasedWithItsContainer: who may delete an empty container does not end by it the holds on names below that nothing has yet.
func TestHoldIsNotErasedWithItsContainer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dst := w.agent(w.south, "s1", "dst")
	dst.hello.Exports[0].Erase = true
	dst.connect()
	w.allow("south:/dst", grant("south", acl.AllPerms))
	w.wish("south:/dst/inbox/case/evidence", acl.Object, space.HoldID, `["case 7"]`)
	for _, name := range []token.ObjectName{"inbox", "inbox/case"} {
		if got := <-w.erase(t.Context(), w.sign(w.erasure(name, ""))); problem.Of(got.err) != problem.OnHold || strings.Contains(problem.As(got.err).Sentence(), "evidence") {
			t.Errorf("%s: got %v, want %s and no name of what is held", name, got.err, problem.OnHold)
		}
	}
	w.wish("south:/dst/other/x", acl.Object, space.RetentionAutodelete, `"true"`) // binds nothing
	c := w.erase(t.Context(), w.sign(w.erasure("other", "")))
	k := dst.task(api.EraseTask)
	w.wish("south:/dst/other/y", acl.Object, space.HoldID, `["case 8"]`) // while the agent erases
	dst.page(k.ID, api.TaskPage{Entries: []api.Entry{{Name: "other", Type: "container"}}, Last: true})
	if got := <-c; got.err != nil {
		t.Errorf("what binds nothing: got %v", got.err)
	}
	if s := w.spot("south:/dst/other/y", acl.Object); len(s.Settings.Holds) != 1 {
		t.Errorf("a hold that came while the container was erased: got %v, want it to stay", s.Settings.Holds)
	}
}

// TestNoAttemptHidesInAPage: each object of a page that is copied is counted in a record, whatever list of its own it has, also one that
// denies or that its owner wrote to be unseen; and names are not told of by which the record would be another's.
func TestNoAttemptHidesInAPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("north:/src", grant("north", everything), "AUDIT EVERYONE@ OBJECT_INHERIT READ_OBJECT")
	w.shut("north:/src/o007") // denied, and audited all the same
	own, err := acl.ParseText("ALLOW spiffe://north/subscriber/alice NO_FLAGS ALL_PERMS\nALLOW EVERYONE@ NO_FLAGS READ")
	if err != nil {
		t.Fatal(err)
	}
	w.apply("north:/src/o100", acl.Object, tree.Change{ACL: &own})
	id := w.submit(w.order())
	const n = 500
	var es []api.Entry
	for i := range n {
		es = append(es, object(fmt.Sprintf("o%03d", i), 1))
	}
	src.list(es...)
	serve, receive := batch(src, dst)
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	w.want(id, "partial", map[token.Result]int64{token.Stored: n - 1, token.Denied: 1})
	counted := map[bool]int64{}
	for _, r := range w.recorded(opCopyFrom) {
		if r.Who != "spiffe://north/subscriber/alice" || r.Audited != acl.ReadObject || r.Place != (token.Location{Provider: "north", Container: "src"}) || !strings.Contains(r.Cause, "north:/src/") {
			t.Errorf("got the record %+v", r)
		}
		counted[r.Outcome.Granted()] += r.Items
	}
	if counted[true] != n-1 || counted[false] != 1 {
		t.Errorf("got %d attempts that were granted and %d that were denied recorded, want %d and 1", counted[true], counted[false], n-1)
	}
}
