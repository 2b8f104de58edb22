package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// newRuledWorld is a world whose agents have rules: at the source staff may list everything and read what is open, at the destination
// create below in. Both take the broker's word.
func newRuledWorld(t *testing.T) (w *world, groups string) {
	t.Helper()
	w = newEmptyWorld(t)
	for _, p := range []token.Provider{"north", "south"} {
		w.must(w.net.AddProvider(p))
	}
	groups = filepath.Join(t.TempDir(), "groups.yaml")
	w.must(os.WriteFile(groups, []byte("staff: [spiffe://north/subscriber/alice]\n"), 0o600))
	hub := []string{"spiffe://hub/broker/main"}
	north := []map[string]any{{"container": "src", "dir": w.src, "session": hub, "rules": []map[string]any{
		{"who": []string{"group:staff"}, "may": []string{"list"}},
		{"who": []string{"group:staff"}, "may": []string{"read"}, "below": "tree/open", "to": []string{"south"}, "max_object": 1000},
	}}}
	south := []map[string]any{{"container": "dst", "dir": w.dst, "session": hub, "rules": []map[string]any{
		{"who": []string{"*"}, "may": []string{"create"}, "below": "in", "max_batch_items": 2},
	}}}
	w.people([]localnet.Setting{{Key: "exports", Value: north}, {Key: "groups_file", Value: groups}}, []localnet.Setting{{Key: "exports", Value: south}})
	return w, groups
}

// items are what became of the items of a transfer, by source name.
func (w *world) items(id token.TransferID) map[token.ObjectName]api.ItemReport {
	w.t.Helper()
	out := map[token.ObjectName]api.ItemReport{}
	r := w.consign(0, "transfer", "show", "--items", "-o", "jsonl", string(id))
	for line := range strings.SplitSeq(strings.TrimSpace(r.Stdout), "\n") {
		var i api.ItemReport
		w.must(json.Unmarshal([]byte(line), &i))
		out[i.Src] = i
	}
	return out
}

// TestPolicyReachesTheSubscriber: what an agent's local policy refuses is told to the subscriber: who may not do what, where, and what is missing.
func TestPolicyReachesTheSubscriber(t *testing.T) {
	t.Parallel()
	w, groups := newRuledWorld(t)
	for name, size := range map[string]int{"tree/open/a": 10, "tree/open/b": 10, "tree/open/c": 10, "tree/open/large": 2000, "tree/shut/d": 10} {
		w.file(name, []byte(strings.Repeat("x", size)))
	}
	w.start()
	order := w.order("-r", "north:/src/tree", "south:/dst/in")
	w.consign(problem.ExitPartial, "transfer", "wait", string(order.ID))
	for src, want := range map[token.ObjectName]struct {
		code problem.Code
		says string
	}{
		"tree/open/a": {}, "tree/open/b": {}, "tree/open/c": {},
		"tree/open/large": {problem.PolicyRefused, "max_object"},
		"tree/shut/d":     {problem.NotPermitted, `spiffe://north/subscriber/alice may not read objects below "src/tree/shut" (needs read)`},
	} {
		got := w.items(order.ID)[src]
		if got.Code != want.code || !strings.Contains(got.Detail, want.says) || want.code == "" && got.Outcome != token.Stored || want.code != "" && got.Outcome != token.Denied {
			t.Errorf("%s: got %+v, want %q that says %q", src, got, want.code, want.says)
		}
	}
	elsewhere := w.order("-r", "north:/src/tree/open", "south:/dst/out")
	w.consign(problem.ExitDenied, "transfer", "wait", string(elsewhere.ID))
	for src, got := range w.items(elsewhere.ID) {
		if src != "tree/open/large" && (got.Code != problem.NotPermitted || !strings.Contains(got.Detail, `spiffe://south/subscriber/alice may not create objects below "dst/out`)) {
			t.Errorf("%s: got %+v, want the destination's refusal", src, got)
		}
	}
	denials := w.show(elsewhere.ID).Denials
	for _, want := range []problem.Code{problem.PolicyRefused, problem.NotPermitted} { // of an item at the source; of the destination's agent
		if !slices.ContainsFunc(denials, func(e api.Event) bool { return e.Code == want }) {
			t.Errorf("got the denials %+v, want %s among them", denials, want)
		}
	}
	for _, line := range [][]string{{"ls", "south:/dst/"}, {"mkdir", "south:/dst/out"}, {"stat", "south:/dst/in/a"}} {
		if r := w.consign(problem.ExitDenied, line...); !strings.Contains(r.Stderr, "dst") {
			t.Errorf("%q: got %q, want a refusal that names the container", line, r.Stderr)
		}
	}
	w.consign(0, "ls", "north:/src/tree")
	w.must(os.WriteFile(groups, []byte("staff: []\n"), 0o600))
	w.must(w.north.Reload())
	w.await("the agent has read who belongs to the group", func() bool {
		r, _ := w.net.Run(t.Context(), w.config, "ls", "north:/src/tree")
		return r.Exit == problem.ExitDenied && strings.Contains(r.Stderr, "spiffe://north/subscriber/alice may not list names")
	})
	late := w.order("-r", "north:/src/tree/open", "south:/dst/in/late")
	w.consign(problem.ExitDenied, "transfer", "wait", string(late.ID))
	if p := w.show(late.ID).Problem; p == nil || p.Code != problem.NotPermitted {
		t.Errorf("got the problem %+v, want that the account may not any more", p)
	}
}

// TestWhoCannotSign: a client that only shows a certificate lists on the broker's word, is told what it needs to copy, and copies once its
// accounts are linked; the auditor reads that nobody has signed.
func TestWhoCannotSign(t *testing.T) {
	t.Parallel()
	w, _ := newRuledWorld(t)
	w.file("tree/open/a", []byte("content"))
	w.start()
	var cfg cliConfig
	_, err := newApp().load(&cfg, loading{files: []string{w.config}})
	w.must(err)
	trust, err := cfg.trustConfig.open()
	w.must(err)
	pair, err := certs.OpenPair(string(cfg.Accounts[0].Cert), string(cfg.Accounts[0].Key))
	w.must(err)
	c := api.NewClient(cfg.Broker.URL, certs.BrokerClient(pair, trust, cfg.Broker.ID))
	defer c.Close()
	now := newApp().now()
	id, err := uuid.NewV7()
	w.must(err)
	o := token.Order{
		ID: token.TransferID(id.String()), Accounts: []token.Identity{pair.Identity()}, Do: token.List, Scope: token.Tree, Iat: now.Unix(), Exp: now.Unix() + 600,
		From: token.Location{Provider: "north", Container: "src", Name: "tree"},
	}
	got, err := c.Lookup(t.Context(), api.Lookup{Order: api.SignedOrder{Claims: &o}})
	if err != nil || len(got.Entries) != 1 || got.Entries[0].Name != "tree/open/a" {
		t.Errorf("a listing: got %+v and %v, want one object", got, err)
	}
	if id, err = uuid.NewV7(); err != nil {
		t.Fatal(err)
	}
	o.ID, o.Do, o.IfExists = token.TransferID(id.String()), token.Copy, token.Fail
	o.Accounts = append(o.Accounts, "spiffe://south/subscriber/alice")
	o.To = token.Location{Provider: "south", Container: "dst", Name: "in"}
	if _, err := c.Submit(t.Context(), api.SignedOrder{Claims: &o}); problem.Of(err) != problem.NotLinked {
		t.Errorf("a copy: got %v, want %q", err, problem.NotLinked)
	}
	w.consign(0, "account", "link")
	if _, err := c.Submit(t.Context(), api.SignedOrder{Claims: &o}); err != nil {
		t.Fatalf("a copy of linked accounts: %v", err)
	}
	w.consign(0, "transfer", "wait", string(o.ID))
	if copied, err := os.ReadFile(filepath.Join(w.dst, "in", "open", "a")); err != nil || string(copied) != "content" {
		t.Errorf("got %q and %v, want the copy", copied, err)
	}
	if r := w.consign(0, "transfer", "show", string(o.ID)); !strings.Contains(r.Stdout, "no account signed") {
		t.Errorf("what show says: got %q, want that no account signed", r.Stdout)
	}
	file := filepath.Join(t.TempDir(), "receipts.jsonl")
	w.consign(0, "receipt", "get", string(o.ID), "-f", file)
	if r := w.consign(0, "receipt", "verify", file); !strings.Contains(r.Stdout, "the word of the broker spiffe://hub/broker/main alone: no account signed this order") {
		t.Errorf("what the auditor reads: got %q, want on whose word it rests", r.Stdout)
	}
}
