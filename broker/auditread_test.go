package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/audit"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// governed is a world in which north and south have an administrator each.
func governed(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.conf.Space.Administrators = []token.Identity{"spiffe://north/subscriber/root", "spiffe://south/subscriber/root"}
	w.crash()
	return w
}

func (w *world) person(ca *certstest.CA, name string) certs.Peer {
	return peerOf(ca.Issue(token.Subscriber, name))
}

// grant says owner and list of a root container of north, past all rules. An empty list is none.
func (w *world) grant(container token.Container, owner acl.Who, list string) {
	w.t.Helper()
	err := w.b.db.Write(w.t.Context(), func(tx *db.Tx) error {
		n, err := w.b.tree.Make(w.t.Context(), tx, token.Identity(owner), token.Location{Provider: "north", Container: container}, acl.Container, w.now)
		if err != nil {
			return err
		}
		n.Owner, n.ACL = owner, ""
		if list != "" {
			a, err := acl.ParseText(list)
			if err != nil {
				return err
			}
			n.ACL = string(a.Marshal())
		}
		return tx.SaveNode(w.t.Context(), n)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) auditNumbers(p certs.Peer, q api.AuditQuery) (string, error) {
	w.t.Helper()
	page, err := w.b.Audit(w.t.Context(), p, q, w.now)
	var ns []string
	for _, r := range page.Items {
		ns = append(ns, fmt.Sprint(r.N))
	}
	if page.Next != "" {
		ns = append(ns, "then "+page.Next)
	}
	return strings.Join(ns, " "), err
}

// TestAuditIsReadByWhoMay: nobody reads what was recorded of others' containers, and nobody by the list of a container that nobody owns.
func TestAuditIsReadByWhoMay(t *testing.T) {
	t.Parallel()
	w := governed(t)
	w.grant("owned", "spiffe://north/subscriber/alice", "")
	w.grant("listed", "spiffe://north/subscriber/alice", "ALLOW spiffe://north/subscriber/carol NO_FLAGS READ_ACL\nALLOW spiffe://north/subscriber/dave NO_FLAGS LIST_CONTAINER, READ_METADATA")
	w.attempts(2)
	w.attempts(1, func(r *db.AuditRecord) { r.Place.Container = "owned" })
	w.attempts(1, func(r *db.AuditRecord) { r.Place.Container = "listed" })
	w.attempts(1, func(r *db.AuditRecord) { r.Place.Provider = "south" })
	alice, bob := w.person(w.north, "alice"), w.person(w.south, "bob")
	carol, dave := w.person(w.north, "carol"), w.person(w.north, "dave")
	for _, c := range []struct {
		who   certs.Peer
		place string
		want  string
		code  problem.Code
	}{
		{w.person(w.north, "root"), "north:", "1 2 3 4", ""},
		{w.person(w.north, "root"), "north:/src", "1 2", ""},
		{w.person(w.south, "root"), "south:", "5", ""},
		{w.person(w.south, "root"), "north:", "", problem.NotPermitted},
		{w.person(w.south, "root"), "north:/src", "", problem.Hidden},
		{w.person(w.north, "root"), "south:/src", "", problem.Hidden},
		{peerOf(w.south.Issue(token.Subscriber, "root2")), "south:", "", problem.NotPermitted},
		{alice, "north:", "", problem.NotPermitted},
		{alice, "north:/src", "", problem.NotPermitted},
		{alice, "north:/owned", "3", ""},
		{alice, "north:/owned/o0", "3", ""},
		{alice, "north:/owned/o", "", ""},
		{bob, "north:/owned", "", problem.NotPermitted}, // he may read there, and no list
		{bob, "north:/src", "", problem.Hidden},
		{bob, "north:/listed", "", problem.Hidden},
		{bob, "north:/nothing", "", problem.Hidden},
		{carol, "north:/listed/x", "", ""},
		{carol, "north:/listed", "4", ""},
		{dave, "north:/listed", "", problem.NotPermitted},
		{dave, "west:", "", problem.UnknownProvider},
		{dave, "north", "", problem.BadAddress},
		{dave, "", "", problem.BadAddress},
		{peerOf(w.north.Issue(token.Agent, "n1")), "north:/owned", "", problem.NotPermitted},
	} {
		got, err := w.auditNumbers(c.who, api.AuditQuery{Place: c.place})
		if got != c.want || (c.code == "") != (err == nil) || err != nil && problem.Of(err) != c.code {
			t.Errorf("%s of %s: got %q, %v, want %q, %q", c.who.Identity, c.place, got, err, c.want, c.code)
		}
		if c.code == "" {
			continue
		}
		if _, err := w.b.AuditRuns(t.Context(), c.who, c.place, 1, w.now); problem.Of(err) != c.code {
			t.Errorf("%s of the runs of %s: got %v, want %s", c.who.Identity, c.place, err, c.code)
		}
		if _, err := w.b.AuditProof(t.Context(), c.who, c.place, 1, w.now); problem.Of(err) != c.code {
			t.Errorf("%s of a run of %s: got %v, want %s", c.who.Identity, c.place, err, c.code)
		}
	}
}

func TestAuditPages(t *testing.T) {
	t.Parallel()
	w := governed(t)
	root := w.person(w.north, "root")
	w.attempts(3)
	w.now = w.now.Add(time.Minute)
	w.attempts(2, func(r *db.AuditRecord) { r.Who = "spiffe://south/subscriber/bob" })
	for _, c := range []struct {
		q    api.AuditQuery
		want string
	}{
		{api.AuditQuery{}, "1 2 3 4 5"},
		{api.AuditQuery{Limit: 2}, "1 2 then 2"},
		{api.AuditQuery{Limit: 2, After: 3}, "4 5 then 5"},
		{api.AuditQuery{Limit: 2, After: 5}, ""},
		{api.AuditQuery{Who: "spiffe://south/subscriber/bob"}, "4 5"},
		{api.AuditQuery{Since: w.now}, "4 5"},
		{api.AuditQuery{Until: w.now.Add(-time.Second), After: 1}, "2 3"},
	} {
		c.q.Place = "north:"
		if got, err := w.auditNumbers(root, c.q); err != nil || got != c.want {
			t.Errorf("%+v: got %q, %v, want %q", c.q, got, err, c.want)
		}
	}
}

// TestAuditProofHidesOthers: who may read one container alone verifies the whole run, and learns of the rest nothing but how many there are.
func TestAuditProofHidesOthers(t *testing.T) {
	t.Parallel()
	w := governed(t)
	w.grant("owned", "spiffe://north/subscriber/alice", "")
	w.attempts(3)
	w.attempts(2, func(r *db.AuditRecord) { r.Place.Container = "owned" })
	w.now = w.now.Add(digestAfter)
	w.step()
	alice := w.person(w.north, "alice")
	p, err := w.b.AuditProof(t.Context(), alice, "north:/owned", 1, w.now)
	if err != nil {
		t.Fatal(err)
	}
	var c audit.Chain
	if err := c.Add(p); err != nil || c.Counts != (audit.Counts{Runs: 1, Records: 2, Hidden: 3}) {
		t.Errorf("got %+v, %v, want 2 records and 3 hashes", c.Counts, err)
	}
	text, err := json.Marshal(p)
	if err != nil || bytes.Contains(text, []byte(`"src"`)) || bytes.Count(text, []byte(`"salt"`)) != 2 {
		t.Errorf("got %s, %v, which says something of records of another container", text, err)
	}
	if _, err := w.b.AuditProof(t.Context(), alice, "north:/owned", 2, w.now); problem.Of(err) != problem.NotFound {
		t.Errorf("a run that does not begin there: got %v, want %s", err, problem.NotFound)
	}
	runs, err := w.b.AuditRuns(t.Context(), alice, "north:/owned", 0, w.now)
	if err != nil || len(runs.Items) != 1 || runs.Items[0] != p.Run || runs.Next != "" {
		t.Errorf("got the runs %+v, %v", runs, err)
	}
}

// TestLetInIsTold: an owner or administrator who is let into a root container by that alone is recorded, and the owner is told, once in a
// while; the record is durable before anybody is let in.
func TestLetInIsTold(t *testing.T) {
	t.Parallel()
	w := governed(t)
	w.grant("locked", "spiffe://north/subscriber/alice", "DENY spiffe://north/subscriber/mallory NO_FLAGS ALL_PERMS")
	attempt := func(who token.Identity) error {
		w.t.Helper()
		var a tree.Attempt
		err := w.b.db.Read(t.Context(), func(tx *db.Tx) error {
			var err error
			if a, err = w.b.tree.Attempt(t.Context(), tx, who, "north", "show"); err != nil {
				return err
			}
			s, err := w.b.tree.Spot(t.Context(), tx, token.Location{Provider: "north", Container: "locked"}, acl.Container)
			if err != nil {
				return err
			}
			return w.b.tree.Decide(a, s, acl.ReadACL)
		})
		return w.b.keepTrail(t.Context(), a.Trail, err, w.now)
	}
	told := func() []string {
		w.t.Helper()
		var notes []string
		if err := w.b.db.Read(t.Context(), func(tx *db.Tx) error {
			last, err := tx.LastEvent(t.Context())
			if err != nil {
				return err
			}
			es, err := tx.EventsOf(t.Context(), []token.Identity{"spiffe://north/subscriber/alice"}, 0, last, 100)
			for _, e := range es {
				if e.Kind == api.LetIn {
					notes = append(notes, e.Note)
				}
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return notes
	}
	for range 3 {
		if err := attempt("spiffe://north/subscriber/root"); err != nil {
			t.Fatal(err)
		}
	}
	if err := attempt("spiffe://north/subscriber/alice"); err != nil {
		t.Fatal(err)
	}
	if err := attempt("spiffe://south/subscriber/root"); problem.Of(err) != problem.Hidden {
		t.Errorf("an administrator of another provider: got %v, want %s", err, problem.Hidden)
	}
	want := []string{
		"spiffe://north/subscriber/root was let into north:/locked/ as an administrator of north, and no entry of the list allows it: READ_ACL",
		"spiffe://north/subscriber/alice was let into north:/locked/ as its owner, and no entry of the list allows it: READ_ACL",
	}
	if got := told(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, err := w.auditNumbers(w.person(w.north, "root"), api.AuditQuery{Place: "north:"}); err != nil || got != "1 2 3 4" {
		t.Errorf("got the records %q, %v, want each of four attempts", got, err)
	}
	w.now = w.now.Add(tellAgain)
	w.crash()
	if err := attempt("spiffe://north/subscriber/root"); err != nil || len(told()) != 3 {
		t.Errorf("ten minutes later: got %v, %q, want it told again", err, told())
	}
	broken := errors.New("the disk is gone")
	w.b.fault = func(string) error { return broken }
	if err := attempt("spiffe://north/subscriber/root"); !errors.Is(err, broken) {
		t.Errorf("an attempt that cannot be recorded: got %v, want %v", err, broken)
	}
	w.b.fault = func(string) error { return nil }
}

// auditFiles verifies all files of audit records, one after another, and returns how many there are and of how many records.
func (w *world) auditFiles() (files int, records int64) {
	w.t.Helper()
	names, err := filepath.Glob(filepath.Join(w.conf.State, auditFolder, "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	var c audit.Chain
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			w.t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			var p api.AuditProof
			if err := json.Unmarshal(line, &p); err != nil {
				w.t.Fatal(err)
			}
			if err := c.Add(p); err != nil {
				w.t.Errorf("%s: %v", name, err)
			}
		}
	}
	return len(names), c.Counts.Records
}

// TestAuditIsPruned: whole runs go to a file that can still be verified, and none is lost whenever the broker dies.
func TestAuditIsPruned(t *testing.T) {
	t.Parallel()
	w := governed(t)
	w.conf.AuditKeep = 48 * time.Hour
	w.crash()
	for range 3 {
		w.attempts(4)
		w.now = w.now.Add(digestAfter)
		w.step()
		w.now = w.now.Add(15 * time.Hour)
	}
	left := func() int {
		page, err := w.b.Audit(t.Context(), w.person(w.north, "root"), api.AuditQuery{Place: "north:"}, w.now)
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Items)
	}
	w.now = w.now.Add(26 * time.Hour) // the first run is 71 hours old
	w.step()
	if n, _ := w.auditFiles(); n != 0 || left() != 12 {
		t.Fatalf("before it is time: got %d files and %d records, want none and 12", n, left())
	}
	w.now = w.now.Add(2 * time.Hour)
	killed := errors.New("killed")
	w.b.fault = func(string) error { return killed }
	if err := w.b.pruneAudit(t.Context(), w.now); !errors.Is(err, killed) {
		t.Fatalf("got %v, want %v", err, killed)
	}
	w.crash()
	if left() != 12 {
		t.Errorf("killed before the commit: got %d records, want 12", left())
	}
	w.step()
	if n, records := w.auditFiles(); n != 1 || records != 12-int64(left()) || left() != 4 {
		t.Errorf("got %d files of %d records, and %d left, want one of 8, and 4", n, records, left())
	}
	p, err := w.b.AuditProof(t.Context(), w.person(w.north, "root"), "north:", 1, w.now)
	var c audit.Chain
	if err != nil || p.Run.Pruned == nil || len(p.Lines) != 0 || c.Add(p) != nil || c.Counts.Pruned != 4 {
		t.Errorf("a run that was pruned: got %+v, %v", p, err)
	}
	w.now = w.now.Add(30 * time.Hour)
	w.step()
	if n, records := w.auditFiles(); n != 2 || records != 12 || left() != 0 {
		t.Errorf("when the last is old enough: got %d files of %d records, and %d left, want 2 of 12, and none", n, records, left())
	}
}
