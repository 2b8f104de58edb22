package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
)

// patience bounds every wait of a test.
const patience = 2 * time.Minute

// A world is a network of real processes: north exports src, south takes into dst, alice has an account at
// both.
type world struct {
	t            *testing.T
	net          *localnet.Net
	broker       *localnet.Broker
	north, south *localnet.Agent
	config       string
	src, dst     string
}

// newWorld makes a world; its processes are not started. They end with the test, which then shows their
// logs if it failed.
func newWorld(t *testing.T, opts ...localnet.Setting) *world {
	t.Helper()
	w := newEmptyWorld(t)
	for _, p := range []token.Provider{"north", "south"} {
		w.must(w.net.AddProvider(p))
	}
	w.people(opts, opts)
	return w
}

// newEmptyWorld is a network of nobody.
func newEmptyWorld(t *testing.T) *world {
	t.Helper()
	binary, err := exec.LookPath("consign")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, src: filepath.Join(t.TempDir(), "src"), dst: filepath.Join(t.TempDir(), "dst")}
	w.net, err = localnet.New(t.TempDir(), binary)
	w.must(err)
	t.Cleanup(func() {
		if err := w.net.Close(); err != nil {
			t.Errorf("ending the processes: %v", err)
		}
	})
	for _, dir := range []string{w.src, w.dst} {
		w.must(os.Mkdir(dir, 0o700))
	}
	return w
}

// people makes the broker, both agents and alice, once their providers are there.
func (w *world) people(north, south []localnet.Setting) {
	w.t.Helper()
	var err error
	w.broker, err = w.net.AddBroker(w.t.Context(), "hub")
	w.must(err)
	brokers := []*localnet.Broker{w.broker}
	w.north, err = w.net.AddAgent("north", "one", []localnet.Export{{Container: "src", Dir: w.src, Read: true}}, brokers, north...)
	w.must(err)
	w.south, err = w.net.AddAgent("south", "one", []localnet.Export{{Container: "dst", Dir: w.dst, Read: true, Create: true}}, brokers, south...)
	w.must(err)
	w.config, err = w.net.AddSubscriber("alice", w.broker, "north", "south")
	w.must(err)
	w.t.Cleanup(func() {
		if w.t.Failed() {
			for _, p := range w.procs() {
				w.t.Logf("the end of the log of %s:\n%s", p.Name, p.Tail(25))
			}
		}
	})
}

func (w *world) procs() []*localnet.Proc {
	return []*localnet.Proc{w.broker.Proc, w.north.Proc, w.south.Proc}
}

func (w *world) start() {
	w.t.Helper()
	for _, p := range w.procs() {
		w.must(p.Start(w.t.Context()))
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// consign runs the program as alice and wants an exit status.
func (w *world) consign(status int, args ...string) localnet.Result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	r, _ := w.net.Run(ctx, w.config, args...)
	if r.Exit != status {
		w.t.Fatalf("consign %s: exit status: got %d, want %d\n%s%s", strings.Join(args, " "), r.Exit, status, r.Stdout, r.Stderr)
	}
	return r
}

// file makes a file at the source.
func (w *world) file(name string, content []byte) {
	w.t.Helper()
	file := filepath.Join(w.src, filepath.FromSlash(name))
	w.must(os.MkdirAll(filepath.Dir(file), 0o700))
	w.must(os.WriteFile(file, content, 0o600))
}

// order runs cp without waiting and returns the transfer.
func (w *world) order(args ...string) api.Transfer {
	w.t.Helper()
	var t api.Transfer
	w.must(json.Unmarshal([]byte(w.consign(0, append([]string{"cp", "-o", "json"}, args...)...).Stdout), &t))
	return t
}

func (w *world) show(id token.TransferID) api.Transfer {
	w.t.Helper()
	var t api.Transfer
	w.must(json.Unmarshal([]byte(w.consign(0, "transfer", "show", "-o", "json", string(id)).Stdout), &t))
	return t
}

// await polls until done is true.
func (w *world) await(what string, done func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("waiting until %s: %v", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// verified fetches and verifies the receipts of a transfer.
func (w *world) verified(id token.TransferID) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "receipts.jsonl")
	w.consign(0, "receipt", "get", string(id), "-f", file)
	w.consign(0, "receipt", "verify", file)
}

// same wants that a folder of that name is equal at both ends, with the digests that were signed.
func (w *world) same(id token.TransferID, name string) {
	w.t.Helper()
	d := &demo{net: w.net, config: w.config}
	items, err := d.outcomes(w.t.Context(), &ordered{t: api.Transfer{ID: id}})
	w.must(err)
	claimed := map[string]token.Digest{}
	for src, digest := range items {
		claimed[strings.TrimPrefix(src, name+"/")] = digest
	}
	got, err := compareTrees(w.t.Context(), filepath.Join(w.src, name), filepath.Join(w.dst, name), claimed)
	w.must(err)
	if int(got.files) != len(claimed) {
		w.t.Errorf("stored items: got %d, want %d", len(claimed), got.files)
	}
}

// noStages wants that the janitor leaves nothing.
func (w *world) noStages() {
	w.t.Helper()
	w.await("no stage is left", func() bool {
		left := 0
		w.must(filepath.WalkDir(filepath.Join(w.dst, ".consign"), func(_ string, e fs.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				left++
			}
			return nil
		}))
		return left == 0
	})
}

// TestKillEachRole copies a few hundred files and 64 MiB, kills source, destination and broker with SIGKILL in the
// middle, one after another, and wants everything to arrive once.
func TestKillEachRole(t *testing.T) {
	t.Parallel()
	const bigBytes, files = 64 << 20, 300
	w := newWorld(t, localnet.Setting{Key: "rate", Value: 8 << 20})
	for i := range files {
		w.file(fmt.Sprintf("tree/%02d/file-%03d", i%17, i), []byte(strings.Repeat(fmt.Sprintf("%d\n", i), i*31)))
	}
	w.must(fillRandom(t.Context(), filepath.Join(w.src, "tree", "big"), bigBytes))
	w.start()
	order := w.order("-r", "north:/src/tree", "south:/dst/")
	before := int64(0) // what earlier lives of the source have sent
	for i, victim := range []*localnet.Proc{w.south.Proc, w.north.Proc, w.broker.Proc} {
		want := int64(bigBytes) * int64(2*i+2) / 8
		w.await(fmt.Sprintf("%d bytes are sent", want), func() bool { return before+w.sent() >= want })
		if before += w.sent(); before >= bigBytes {
			t.Fatalf("%s would be killed too late: %d bytes were sent", victim.Name, before)
		}
		w.must(victim.Kill())
		if victim != w.north.Proc {
			before -= w.sent()
		}
		w.must(victim.Start(t.Context()))
	}
	r := w.consign(0, "transfer", "wait", string(order.ID))
	if !strings.Contains(r.Stderr, "complete") {
		t.Errorf("what wait says: got %q, want it to hold complete", r.Stderr)
	}
	got := w.show(order.ID)
	if got.State != api.Complete || got.Outcomes[token.Stored] != files+1 {
		t.Errorf("transfer: got %s with %v, want complete with %d stored", got.State, got.Outcomes, files+1)
	}
	w.same(order.ID, "tree")
	w.verified(order.ID)
	w.noStages()
}

// sent is how many bytes the source has sent in its present life.
func (w *world) sent() int64 {
	w.t.Helper()
	n, err := metric(w.t.Context(), w.north.Proc, "consign_agent_bytes_total", `direction="out"`)
	w.must(err)
	return n
}
