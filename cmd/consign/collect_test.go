package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent"
	"github.com/consign-transfer/consign/cmd/localnet"
)

// gc runs 'consign agent gc' on an agent and returns what was found in its only container, and whether an agent was running.
func (w *world) gc(a *localnet.Agent, flags ...string) (found collected, running bool) {
	w.t.Helper()
	r, err := w.net.Run(w.t.Context(), a.Config, append([]string{"agent", "gc", "-o", "json"}, flags...)...)
	w.must(err)
	var got struct {
		Running    bool        `json:"running"`
		Containers []collected `json:"containers"`
	}
	w.must(json.Unmarshal([]byte(r.Stdout), &got))
	if len(got.Containers) != 1 {
		w.t.Fatalf("agent gc: got %d containers, want 1", len(got.Containers))
	}
	return got.Containers[0], got.Running
}

// TestCollect kills a destination in the middle and collects by hand: what its journal needs is live and stays; without the
// journal it is an orphan, which a dry run leaves and a real one removes; while the agent runs nothing is touched.
func TestCollect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, localnet.Setting{Key: "rate", Value: 4 << 20})
	w.must(fillRandom(t.Context(), filepath.Join(w.src, "big"), 32<<20))
	start(w)
	w.order("north:/src/big", "south:/dst/")
	w.await("some megabytes are sent", func() bool { return w.sent() > 4<<20 })
	if got, running := w.gc(w.south); !running || got.Counts[agent.VerdictLive] != 1 {
		t.Errorf("while the agent runs: got %v, running %v; want one that is live", got.Counts, running)
	}
	w.must(w.south.Kill())
	if got, running := w.gc(w.south); running || got.Counts[agent.VerdictLive] != 1 || got.Counts[agent.VerdictDropped] != 0 || !got.Lists {
		t.Errorf("with its journal: got %+v, running %v; want one that is live", got, running)
	}
	w.must(os.RemoveAll(filepath.Join(w.south.State, "batches")))
	for _, c := range []struct {
		flags   []string
		verdict agent.Verdict
		n       int
	}{{[]string{"--dry-run"}, agent.VerdictOrphan, 1}, {nil, agent.VerdictDropped, 1}, {nil, agent.VerdictDropped, 0}} {
		if got, _ := w.gc(w.south, c.flags...); got.Counts[c.verdict] != c.n || len(got.Findings) != c.n {
			t.Errorf("without its journal, %v: got %+v, want %d %s", c.flags, got, c.n, c.verdict)
		}
	}
	w.noStages()
	r := w.consignAt(w.south, 0, "agent", "gc")
	if !strings.Contains(r.Stderr, "dst: nothing is left over") {
		t.Errorf("what gc says at the end: got %q", r.Stderr)
	}
}

// consignAt runs the program with an agent's configuration and wants an exit status.
func (w *world) consignAt(a *localnet.Agent, status int, args ...string) localnet.Result {
	w.t.Helper()
	r, _ := w.net.Run(w.t.Context(), a.Config, args...)
	if r.Exit != status {
		w.t.Fatalf("consign %s: exit status: got %d, want %d\n%s%s", strings.Join(args, " "), r.Exit, status, r.Stdout, r.Stderr)
	}
	return r
}

// TestProbe measures a folder that is created in, one that is only read, one that is gone, and a store that does not answer.
func TestProbe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if r := w.consignAt(w.south, 0, "agent", "probe"); !strings.Contains(r.Stdout, "good") || !strings.Contains(r.Stdout, "mtime,mode") {
		t.Errorf("a folder to create in: got %q", r.Stdout)
	}
	if r := w.consignAt(w.north, 0, "agent", "probe", "-o", "jsonl"); !strings.Contains(r.Stdout, `"verdict":"`+probeRead+`"`) {
		t.Errorf("a folder to read: got %q", r.Stdout)
	}
	entries, err := os.ReadDir(w.src)
	if err != nil || len(entries) != 0 {
		t.Errorf("the folder that is only read: got %v, %v; want it untouched", entries, err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	w.must(os.WriteFile(secret, []byte("key\nsecret\n"), 0o600))
	away, err := w.net.AddAgent("south", "away", []localnet.Export{{Container: "dst", Create: true, Store: localnet.Store{Kind: "s3", Settings: map[string]any{
		"bucket": "bucket", "endpoint": "http://" + freeAddress(t), "credentials": secret,
	}}}}, []*localnet.Broker{w.broker})
	w.must(err)
	r := w.consignAt(away, 5, "agent", "probe")
	if !strings.Contains(r.Stdout, "failed") || !strings.Contains(r.Stderr, "(store-unavailable)") || strings.Contains(r.Stderr, "secret") {
		t.Errorf("a store that does not answer: got %q, %q; want store-unavailable", r.Stdout, r.Stderr)
	}
}
