package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestRightTakenAwayMidway: an administrator closes a folder while a copy of the tree around it runs, at the rate that the source's metadata allow. What is in
// the folder stops and is denied, with the sentence; the rest arrives. Then a quota and a hold refuse before a byte moves.
func TestRightTakenAwayMidway(t *testing.T) {
	t.Parallel()
	const closed, open = 24 << 20, 6 << 20
	w, people := newGoverned(t)
	w.file("tree/small", []byte("small\n"))
	for name, size := range map[string]int64{"hr/big": closed, "open/big": open} {
		w.must(os.MkdirAll(filepath.Dir(filepath.Join(w.src, "tree", name)), 0o700))
		w.must(fillRandom(t.Context(), filepath.Join(w.src, "tree", name), size))
	}
	start(w)
	dana := func(args ...string) { w.consign(0, append([]string{"--config", people["DANA"]}, args...)...) }
	list := filepath.Join(t.TempDir(), "list")
	w.must(os.WriteFile(list, []byte("ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS\n"+
		"ALLOW alice OBJECT_INHERIT,CONTAINER_INHERIT READ, READ_ACL, ADD_OBJECT, ADD_SUBCONTAINER\n"), 0o600))
	for _, at := range []string{"north:/gov/", "south:/dst/"} {
		dana("acl", "set", "--owner", "dana", at)
		dana("acl", "set", "-f", list, at)
	}
	dana("meta", "set", "north:/gov/", "cdmi_throughput=4000000")
	order := w.order("-r", "north:/gov/tree", "south:/dst/")
	w.await("some bytes are sent", func() bool { return w.sent() >= 2<<20 })
	dana("acl", "set", "--add", "north:/gov/tree/hr/", "DENY alice OBJECT_INHERIT,CONTAINER_INHERIT READ_OBJECT")
	w.consign(problem.ExitPartial, "transfer", "wait", string(order.ID))
	got := w.show(order.ID)
	if got.Outcomes[token.Stored] != 2 || got.Outcomes[token.Denied] != 1 {
		t.Errorf("got %v, want two stored and one denied", got.Outcomes)
	}
	if it := w.items(order.ID)["tree/hr/big"]; it.Outcome != token.Denied || !strings.Contains(it.Detail, "alice does not get READ_OBJECT on north:/gov/tree/hr/big: entry 1 of north:/gov/tree/hr denies it") {
		t.Errorf("got %s: %s", it.Outcome, it.Detail)
	}
	if n := w.sent(); n >= closed {
		t.Errorf("got %d bytes sent, want fewer than the closed object alone has", n)
	}
	if _, err := os.Lstat(filepath.Join(w.dst, "tree", "hr", "big")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the closed object is at the destination: %v", err)
	}
	w.noStages()

	before := w.sent()
	dana("meta", "set", "south:/dst/", "cdmi_assignedsize=6000010")
	full := w.order("-r", "north:/gov/tree/open", "south:/dst/again")
	w.consign(problem.ExitFailed, "transfer", "wait", string(full.ID))
	if it := w.items(full.ID)["tree/open/big"]; it.Code != problem.QuotaExceeded {
		t.Errorf("beyond the quota: got %s %s", it.Outcome, it.Code)
	}
	dana("meta", "set", "south:/dst/", `cdmi_hold_id=["case 7"]`)
	if r := w.consign(problem.ExitDenied, "cp", "north:/gov/tree/small", "south:/dst/held"); !strings.Contains(r.Stderr, "case 7") {
		t.Errorf("under a hold: got %q", r.Stderr)
	}
	if n := w.sent(); n != before {
		t.Errorf("%d bytes were sent of what was refused", n-before)
	}
}
