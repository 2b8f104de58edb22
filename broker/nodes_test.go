package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A person is a subscriber of north at the native surface.
type person struct {
	w    *world
	peer certs.Peer
}

func (p person) id() token.Identity { return p.peer.Identity }

// ruled is a world whose north has an administrator and three others.
func ruled(t *testing.T) (w *world, dave, alice, bob, eve person) {
	t.Helper()
	w = newWorld(t)
	people := map[string]*person{"dave": &dave, "alice": &alice, "bob": &bob, "eve": &eve}
	for name, p := range people {
		*p = person{w, peerOf(w.subscriber(w.north, name))}
	}
	w.must(w.b.Close())
	w.conf.Space = tree.Config{Administrators: []token.Identity{dave.id()}}
	w.open()
	return w, dave, alice, bob, eve
}

func at(address string) token.Location {
	l, err := token.ParseLocation(address)
	if err != nil {
		panic(err)
	}
	return l
}

func kindIn(address string) api.NodeKind {
	if strings.HasSuffix(address, "/") {
		return api.ContainerNode
	}
	return api.ObjectNode
}

func (p person) node(address string) (api.Node, error) {
	return p.w.b.Node(p.w.t.Context(), p.peer, Place{at(address), kindIn(address)}, p.w.now)
}

func (p person) change(address string, c api.NodeChange, ifMatch string) (api.Node, error) {
	return p.w.b.ChangeNode(p.w.t.Context(), p.peer, Place{at(address), kindIn(address)}, c, ifMatch, p.w.now)
}

func (p person) mustChange(address string, c api.NodeChange) api.Node {
	p.w.t.Helper()
	n, err := p.change(address, c, "")
	if err != nil {
		p.w.t.Fatalf("%s changes %s: %v", p.id(), address, err)
	}
	return n
}

// list makes entries of lines as people write them, in which NAME alone is a subscriber of north.
func list(lines ...string) *[]api.ACE {
	l, err := acl.ParseText(strings.Join(lines, "\n"))
	if err != nil {
		panic(err)
	}
	out := []api.ACE{}
	for _, e := range l.All() {
		if !e.Who.Special() && e.Flags&acl.IdentifierGroup == 0 {
			e.Who = acl.Who(token.NewIdentity("north", token.Subscriber, string(e.Who)))
		}
		out = append(out, entry(e, acl.Object))
	}
	return &out
}

func owner(id token.Identity) *string {
	s := string(id)
	return &s
}

func text(s string) json.RawMessage { return json.RawMessage(`"` + s + `"`) }

// TestNodeIsShownByParts: who may read one part is shown that, and not told of the others; who may read none is told what everybody is told.
func TestNodeIsShownByParts(t *testing.T) {
	t.Parallel()
	_, dave, alice, bob, eve := ruled(t)
	dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id())})
	const all = "ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS"
	dave.mustChange("north:/src/", api.NodeChange{ACL: list(all,
		"ALLOW alice OBJECT_INHERIT,CONTAINER_INHERIT READ_ATTRIBUTES,READ_METADATA,READ_ACL", "ALLOW bob OBJECT_INHERIT,CONTAINER_INHERIT READ_ATTRIBUTES")})
	dave.mustChange("north:/src/", api.NodeChange{Set: api.Items{"cdmi_throughput": text("1000")}})
	dave.mustChange("north:/src/a", api.NodeChange{Set: api.Items{"colour": text("red"), "cdmi_RPO": text("60")}})
	n, err := alice.node("north:/src/a")
	if err != nil || !n.Known || n.ID == "" || n.Owner != string(dave.id()) || string(n.User["colour"]) != `"red"` || len(n.ACL) != 3 || n.Storage["cdmi_mtime"] == nil {
		t.Fatalf("alice sees %+v, %v, want all of it", n, err)
	}
	if got := fmt.Sprint(n.Permissions); got != "[READ_ACL READ_ATTRIBUTES READ_METADATA]" {
		t.Errorf("alice may %s", got)
	}
	if !strings.Contains(n.ACL[0].Flags, "INHERITED") || n.Storage["cdmi_acl"] != nil {
		t.Errorf("the list is %+v, want it marked as inherited, and in one place", n.ACL)
	}
	var said []string
	for _, s := range n.Settings {
		said = append(said, fmt.Sprintf("%s=%s %v", s.Item, s.Value, s.From))
	}
	if got, want := strings.Join(said, ", "), `cdmi_RPO="60" [north:/src/a], cdmi_throughput="1000" [north:/src/]`; got != want {
		t.Errorf("in force is %s, want %s", got, want)
	}
	n, err = bob.node("north:/src/a")
	if err != nil || n.ID == "" || n.Owner != "" || n.User != nil || n.Storage != nil || n.Settings != nil || n.ACL != nil || n.Digest != "" {
		t.Errorf("bob sees %+v, %v, want attributes alone", n, err)
	}
	var hidden []string
	for _, address := range []string{"north:/src/a", "north:/src/none", "north:/src/"} {
		_, err := eve.node(address)
		if problem.Of(err) != problem.Hidden {
			t.Errorf("eve at %s: got %v, want %s", address, err, problem.Hidden)
			continue
		}
		hidden = append(hidden, strings.ReplaceAll(problem.As(err).Sentence(), address, "ADDRESS"))
	}
	if len(slices.Compact(hidden)) != 1 {
		t.Errorf("what is there and what is not is told apart: %q", hidden)
	}
	if _, err := eve.node("west:/src/a"); problem.Of(err) != problem.UnknownProvider {
		t.Errorf("another provider: got %v", err)
	}
}

// TestLostUpdate: of two who read the same state and change it, the second is told, and nothing of its change is there.
func TestLostUpdate(t *testing.T) {
	t.Parallel()
	w, dave, alice, _, _ := ruled(t)
	n := dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id()), ACL: list("ALLOW alice NO_FLAGS ALL_PERMS")})
	if _, err := alice.change("north:/src/", api.NodeChange{Set: api.Items{"by": text("alice")}}, n.ETag); err != nil {
		t.Fatal(err)
	}
	before := len(w.leavesOf(db.AccessLeaf))
	_, err := dave.change("north:/src/", api.NodeChange{ACL: list("ALLOW dave NO_FLAGS ALL_PERMS"), Set: api.Items{"by": text("dave")}}, n.ETag)
	if problem.Of(err) != problem.Outdated || problem.Lookup(problem.Outdated).HTTP != 412 {
		t.Errorf("the second change: got %v, want %s", err, problem.Outdated)
	}
	got, err := alice.node("north:/src/")
	if err != nil || string(got.User["by"]) != `"alice"` || len(got.ACL) != 1 || !strings.HasSuffix(got.ACL[0].Identifier, "/alice") {
		t.Errorf("afterwards it is %+v, %v, want alice's", got, err)
	}
	if after := len(w.leavesOf(db.AccessLeaf)); after != before {
		t.Errorf("a change that was refused left %d leaves", after-before)
	}
	if _, err := alice.change("north:/src/", api.NodeChange{Unset: []string{"by"}}, got.ETag); err != nil {
		t.Errorf("with the ETag that was read: %v", err)
	}
}

// TestChangesThatAreNoChanges: what is wrong with a change is said, and no row comes of it.
func TestChangesThatAreNoChanges(t *testing.T) {
	t.Parallel()
	w, dave, _, _, eve := ruled(t)
	dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id())})
	items := api.Items{"a": text("b")}
	for name, tt := range map[string]struct {
		c    api.NodeChange
		want problem.Code
	}{
		"nothing":                {api.NodeChange{}, problem.Malformed},
		"all and some":           {api.NodeChange{Metadata: &items, Set: items}, problem.Malformed},
		"an entry without a who": {api.NodeChange{ACL: &[]api.ACE{{Type: "ALLOW", Flags: "NO_FLAGS", Mask: "READ"}}}, problem.Malformed},
		"an unknown permission":  {api.NodeChange{ACL: &[]api.ACE{{Type: "ALLOW", Identifier: "EVERYONE@", Flags: "NO_FLAGS", Mask: "BACKUP"}}}, problem.Malformed},
		"an item of nobody":      {api.NodeChange{Set: api.Items{"cdmi_data_holds": text("x")}}, problem.UnknownField},
		"a number":               {api.NodeChange{Set: api.Items{"a": json.RawMessage("7")}}, problem.Malformed},
		"a special owner":        {api.NodeChange{Owner: owner("EVERYONE@")}, problem.Malformed},
		"a hold that is none":    {api.NodeChange{ReleaseHold: "case 7"}, problem.NotFound},
		"a hold and more":        {api.NodeChange{ReleaseHold: "case 7", Set: items}, problem.Malformed},
	} {
		if _, err := dave.change("north:/src/new", tt.c, ""); problem.Of(err) != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
	if _, err := w.b.ChangeNode(t.Context(), dave.peer, Place{At: at("north:/src/new")}, api.NodeChange{Set: items}, "", w.now); problem.Of(err) != problem.Malformed {
		t.Errorf("without a kind: got %v, want %s", err, problem.Malformed)
	}
	if _, err := eve.change("north:/src/new", api.NodeChange{Set: items}, ""); problem.Of(err) != problem.NotPermitted {
		t.Errorf("eve: got %v, want %s", err, problem.NotPermitted)
	}
	if n, err := dave.node("north:/src/new"); err != nil || n.Known {
		t.Errorf("a change that was refused made the row %+v, %v", n, err)
	}
}

// TestAccessIsInTheLedger: who changed a list, an owner or a wish, and to what, is in a leaf of its own; user metadata are not.
func TestAccessIsInTheLedger(t *testing.T) {
	t.Parallel()
	w, dave, _, bob, _ := ruled(t)
	dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id())})
	dave.mustChange("north:/src/", api.NodeChange{Set: api.Items{"colour": text("red")}})
	dave.mustChange("north:/src/a", api.NodeChange{ACL: list("DENY bob NO_FLAGS DELETE")})
	dave.mustChange("north:/src/a", api.NodeChange{Set: api.Items{"cdmi_hold_id": json.RawMessage(`["case 7"]`)}})
	if _, err := bob.change("north:/src/", api.NodeChange{Owner: owner(bob.id())}, ""); problem.Of(err) != problem.NotPermitted {
		t.Errorf("bob takes what is not bob's: got %v", err)
	}
	dave.mustChange("north:/src/a", api.NodeChange{ReleaseHold: "case 7"})
	leaves := w.leavesOf(db.AccessLeaf)
	wants := []string{`"owner":"spiffe://north/subscriber/dave"`, `"acl":"[{\"acetype\":`, `"data":"{\"cdmi_hold_id\":[\"case 7\"]}"`, `"data":""`}
	if len(leaves) != len(wants) {
		t.Fatalf("got %d leaves, want %d: %q", len(leaves), len(wants), leaves)
	}
	for i, want := range wants {
		if !strings.Contains(leaves[i], want) || !strings.Contains(leaves[i], `"by":"spiffe://north/subscriber/dave"`) {
			t.Errorf("leaf %d is %s, want %s by dave", i, leaves[i], want)
		}
	}
	long := []string{}
	for i := range 400 {
		long = append(long, fmt.Sprintf("ALLOW somebody-%d NO_FLAGS READ", i))
	}
	dave.mustChange("north:/src/a", api.NodeChange{ACL: list(long...)})
	leaves = w.leavesOf(db.AccessLeaf)
	if last := leaves[len(leaves)-1]; !strings.Contains(last, `"acl_sha256":"`) || len(last) > 4096 {
		t.Errorf("the leaf of a long list has %d bytes and no hash", len(last))
	}
}

// TestExplainTellsNoMoreThanMayBeRead: the walk is for who may read the list; others are told of themselves alone; and what a container above
// keeps for itself is shown to who may read it there.
func TestExplainTellsNoMoreThanMayBeRead(t *testing.T) {
	t.Parallel()
	w, dave, alice, bob, eve := ruled(t)
	const down = "OBJECT_INHERIT,CONTAINER_INHERIT"
	dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id()), ACL: list("ALLOW OWNER@ "+down+" ALL_PERMS", "ALLOW mole NO_FLAGS READ",
		"ALLOW bob OBJECT_INHERIT READ_ATTRIBUTES")})
	dave.mustChange("north:/src/a", api.NodeChange{ACL: list("ALLOW alice NO_FLAGS READ_ACL,READ_ATTRIBUTES", "DENY eve NO_FLAGS READ_OBJECT")})
	ask := func(p person, address string, who token.Identity, want string) (api.Explanation, error) {
		return w.b.ExplainAccess(t.Context(), p.peer, Place{at(address), kindIn(address)}, string(who), want, w.now)
	}
	e, err := ask(dave, "north:/src/a", bob.id(), "READ_OBJECT")
	if err != nil || e.Granted || e.Outcome != "unmentioned" || len(e.Steps) != 5 || !strings.Contains(e.Text, "mole") || !strings.Contains(e.Text, "not inherited by objects") {
		t.Errorf("dave asks about bob: got %+v, %v", e, err)
	}
	e, err = ask(alice, "north:/src/a", eve.id(), "READ_OBJECT")
	if err != nil || e.Granted || e.Outcome != "denied" || e.Steps[1].Verdict != "denies" || e.Steps[1].Entry != 2 || e.Steps[1].At != at("north:/src/a") {
		t.Errorf("alice asks about eve: got %+v, %v", e, err)
	}
	if strings.Contains(e.Text, "mole") || strings.Contains(fmt.Sprint(e.Steps), "mole") {
		t.Errorf("alice is shown what stands in the root container: %s", e.Text)
	}
	e, err = ask(bob, "north:/src/a", bob.id(), "READ_OBJECT")
	if err != nil || e.Granted || len(e.Steps) != 0 || !strings.Contains(e.Sentence, "no right to it was found") {
		t.Errorf("bob asks about himself: got %+v, %v", e, err)
	}
	if e, err = ask(bob, "north:/src/a", bob.id(), "READ_ATTRIBUTES"); err != nil || !e.Granted || len(e.Steps) != 0 {
		t.Errorf("bob asks about himself: got %+v, %v", e, err)
	}
	if _, err := ask(bob, "north:/src/a", alice.id(), "READ_OBJECT"); problem.Of(err) != problem.NotPermitted {
		t.Errorf("bob asks about alice: got %v, want %s", err, problem.NotPermitted)
	}
	if _, err := ask(eve, "north:/src/a", eve.id(), "READ_OBJECT"); problem.Of(err) != problem.Hidden {
		t.Errorf("eve asks about herself: got %v, want %s", err, problem.Hidden)
	}
	for _, bad := range [][2]string{{"alice", "READ_OBJECT"}, {string(bob.id()), "BACKUP"}, {string(bob.id()), "0x00000000"}, {"EVERYONE@", "READ_OBJECT"}} {
		if _, err := ask(dave, "north:/src/a", token.Identity(bad[0]), bad[1]); err == nil {
			t.Errorf("%v: got no refusal", bad)
		}
	}
	if e, err := ask(dave, "north:/src/a", "ANONYMOUS@", "READ_OBJECT"); err != nil || e.Granted || e.Principal != "ANONYMOUS@" {
		t.Errorf("somebody anonymous: got %+v, %v", e, err)
	}
}

// TestAuditOfReadsIsKept: what an AUDIT entry asks for is durable when the answer is there, of reads, changes and what was refused.
func TestAuditOfReadsIsKept(t *testing.T) {
	t.Parallel()
	w, dave, alice, _, eve := ruled(t)
	dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id()), ACL: list("ALLOW OWNER@ OBJECT_INHERIT ALL_PERMS", "ALLOW alice OBJECT_INHERIT READ",
		"AUDIT EVERYONE@ OBJECT_INHERIT READ_METADATA,WRITE_METADATA")})
	if _, err := alice.node("north:/src/a"); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.change("north:/src/a", api.NodeChange{Set: api.Items{"x": text("y")}}, ""); problem.Of(err) != problem.NotPermitted {
		t.Fatalf("alice changes: got %v", err)
	}
	if _, err := eve.node("north:/src/a"); problem.Of(err) != problem.Hidden {
		t.Fatalf("eve reads: got %v", err)
	}
	dave.mustChange("north:/src/a", api.NodeChange{Set: api.Items{"x": text("y")}})
	w.crash()
	var got []string
	w.must(w.b.db.Read(t.Context(), func(tx *db.Tx) error {
		rs, err := tx.Audit(t.Context(), db.AuditFilter{Provider: "north", Container: "src", Below: "a"}, 0, 100)
		for _, r := range rs {
			got = append(got, fmt.Sprintf("%s %s %s", token.Identity(r.Who).Name(), r.Op, r.Audited))
		}
		return errors.Join(err)
	}))
	want := []string{"alice show READ_METADATA", "alice change WRITE_METADATA", "eve show READ_METADATA", "dave change WRITE_METADATA", "dave change READ_METADATA"}
	if !slices.Equal(got, want) {
		t.Errorf("recorded are %q, want %q", got, want)
	}
}
