package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestEraseFromTheCommandLine: the owner of a container, as its agent says, erases what the agent's rules let erase: one state of one object, and containers in which nothing
// is. What is held stays, also for the owner, and the agent is told of it; what is past its retention goes by itself; what is to be wiped is.
func TestEraseFromTheCommandLine(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	for _, p := range []token.Provider{"north", "south"} {
		w.must(w.net.AddProvider(p))
	}
	north := []map[string]any{{"container": "src", "dir": w.src, "read": true}}
	south := []map[string]any{{"container": "dst", "dir": w.dst, "owner": "spiffe://south/subscriber/alice", "session": []string{"spiffe://hub/broker/main"}, "rules": []map[string]any{
		{"who": []string{"*"}, "may": []string{"read", "list", "create"}},
		{"who": []string{"*"}, "may": []string{"erase"}, "below": "in"},
	}}}
	w.people([]localnet.Setting{{Key: "exports", Value: north}}, []localnet.Setting{{Key: "exports", Value: south}})
	w.file("a", []byte("content"))
	w.start()
	w.await("both agents are connected", func() bool {
		return strings.Count(w.consign(0, "provider", "list").Stdout, "(connected)") == 2
	})
	at := func(name string) string { return filepath.Join(w.dst, name) }
	w.consign(0, "mkdir", "south:/dst/in/empty/inner")
	w.must(os.WriteFile(at("in/a"), []byte("content"), 0o600))
	w.must(os.WriteFile(at("b"), []byte("content"), 0o600))
	for _, tt := range []struct {
		exit int
		args []string
		says string
	}{
		{problem.ExitDenied, []string{"south:/dst/b"}, `may not erase objects`},
		{problem.ExitDenied, []string{"north:/src/a"}, `"src" to erase in`},
		{problem.ExitNotFound, []string{"south:/dst/in/none"}, "missing"},
		{problem.ExitNotFound, []string{"south:/dst/in/empty"}, "With '/' at its end"},
		{problem.ExitFailed, []string{"south:/dst/in/a", "--version", "v-1"}, "not the version"},
		{problem.ExitFailed, []string{"south:/dst/in/empty/"}, "is not empty"},
		{problem.ExitUsage, []string{"south:/dst/"}, "a whole container"},
		{problem.ExitUsage, []string{"south:/dst/in/empty/", "--version", "v"}, "has no --version"},
		{0, []string{"south:/dst/in/a"}, "erased south:/dst/in/a"},
		{problem.ExitNotFound, []string{"south:/dst/in/a"}, "missing"},
		{0, []string{"south:/dst/in/empty/inner/"}, "erased south:/dst/in/empty/inner"},
		{0, []string{"south:/dst/in/empty/", "-o", "json"}, ""},
	} {
		if r := w.consign(tt.exit, append([]string{"erase"}, tt.args...)...); !strings.Contains(r.Stderr, tt.says) {
			t.Errorf("erase %q: got %q, want it to say %q", tt.args, r.Stderr, tt.says)
		}
	}
	for name, there := range map[string]bool{"b": true, "in/a": false, "in/empty": false, "in": true} {
		if _, err := os.Lstat(at(name)); (err == nil) != there {
			t.Errorf("%s: got %v, want that it is there: %t", name, err, there)
		}
	}
	w.consign(problem.ExitDenied, "meta", "set", "south:/dst/in/", "cdmi_sanitization_method=shred")
	w.consign(0, "meta", "set", "south:/dst/in/", "cdmi_sanitization_method=overwrite")
	w.must(os.WriteFile(at("in/held"), []byte("content"), 0o600))
	w.must(os.WriteFile(at("in/wiped"), []byte("content"), 0o600))
	w.consign(0, "meta", "set", "south:/dst/in/held", `cdmi_hold_id=["case 7"]`)
	w.await("the agent keeps the hold", func() bool {
		for line := range strings.Lines(w.consign(0, "stat", "south:/dst/in/held").Stdout) {
			if strings.HasPrefix(line, "cdmi_hold_id_provided") {
				return strings.Contains(line, "case 7") && !strings.Contains(line, "unknown")
			}
		}
		return false
	})
	w.consign(problem.ExitDenied, "erase", "south:/dst/in/held")
	r := w.consign(0, "erase", "south:/dst/in/wiped")
	if !strings.Contains(r.Stderr, "wiped by overwrite") {
		t.Errorf("got %q, want that it was wiped", r.Stderr)
	}
	if _, err := os.Lstat(at("in/held")); err != nil {
		t.Errorf("what is held: %v", err)
	}
	w.consign(0, "cp", "--wait", "north:/src/a", "south:/dst/in/old")
	w.consign(0, "meta", "set", "south:/dst/in/old", "cdmi_retention_autodelete=true",
		"cdmi_retention_period=2020-01-01T00:00:00.000000Z/2021-01-01T00:00:00.000000Z")
	w.await("what is past its retention erases itself", func() bool { _, err := os.Lstat(at("in/old")); return errors.Is(err, fs.ErrNotExist) })
}
