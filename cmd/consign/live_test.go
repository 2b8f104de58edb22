package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.yaml.in/yaml/v3"

	"github.com/consign-transfer/consign/certs/issue"
	"github.com/consign-transfer/consign/token"
)

// TestLive runs testdata/live: what people type while everything is up, and each bad input that
// reaches a daemon. All scripts share one network.
func TestLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("one.txt", []byte("the first object\n"))
	w.file("two.txt", []byte("the second object\n"))
	w.file("tree/a.csv", []byte("a\n"))
	w.file("tree/b.tmp", []byte("b\n"))
	w.file("tree/deep/er/c.csv", []byte("c\n"))
	w.must(os.MkdirAll(filepath.Join(w.src, "tree", "empty"), 0o700))
	w.must(os.Symlink("a.csv", filepath.Join(w.src, "tree", "link")))
	w.file("odd/bad\\name", []byte("x"))
	w.file("odd/good", []byte("good\n"))
	start(w)
	bad := badAccounts(w)
	testscript.Run(t, testscript.Params{Dir: "testdata/live", Cmds: liveCommands(w), RequireExplicitExec: true, Setup: func(e *testscript.Env) error {
		setup(w, e)
		for name, file := range bad {
			e.Setenv(name, file)
		}
		return nil
	}})
}

// TestDown runs testdata/down, where parties are away. Each script has a network of its own.
func TestDown(t *testing.T) {
	t.Parallel()
	scripts, err := filepath.Glob("testdata/down/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("scripts: got %v, %v; want some", scripts, err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.file("one.txt", []byte("the first object\n"))
			start(w)
			testscript.Run(t, testscript.Params{Files: []string{script}, Cmds: liveCommands(w), RequireExplicitExec: true, Setup: func(e *testscript.Env) error {
				setup(w, e)
				return nil
			}})
		})
	}
}

// start starts a world and waits until its agents are connected.
func start(w *world) {
	w.t.Helper()
	w.start()
	w.await("both agents are connected", func() bool {
		return strings.Count(w.consign(0, "provider", "list").Stdout, "(connected)") == 2
	})
}

func setup(w *world, e *testscript.Env) {
	e.Setenv("CONSIGN_CONFIG", w.config)
	e.Setenv("CONFIG", w.config)
	e.Setenv("SRC", w.src)
	e.Setenv("DST", w.dst)
	e.Setenv("HOME", e.WorkDir)
}

// liveCommands adds to scriptCommands: id VAR PROGRAM ARGS..., which keeps what it prints in a variable;
// daemon kill|start NAME; interrupt PROGRAM ARGS..., which sends SIGINT once it has spoken.
func liveCommands(w *world) map[string]func(*testscript.TestScript, bool, []string) {
	cmds := scriptCommands()
	cmds["id"] = func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < 2 {
			ts.Fatalf("usage: id VAR program args...")
		}
		ts.Check(ts.Exec(args[1], args[2:]...))
		ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
	}
	cmds["daemon"] = func(ts *testscript.TestScript, neg bool, args []string) {
		procs := map[string]interface {
			Kill() error
		}{"broker": w.broker, "north": w.north, "south": w.south}
		if neg || len(args) != 2 || procs[args[1]] == nil {
			ts.Fatalf("usage: daemon kill|start broker|north|south")
		}
		if args[0] == "kill" {
			ts.Check(procs[args[1]].Kill())
			return
		}
		for _, p := range w.procs() {
			if strings.Contains(p.Name, args[1]) || args[1] == "broker" && p == w.broker.Proc {
				ts.Check(p.Start(w.t.Context()))
			}
		}
	}
	cmds["interrupt"] = interrupt
	return cmds
}

// interrupt runs a program, sends it SIGINT when it has written its first line, and wants exit status 130.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: interrupt program args...")
	}
	binary, err := exec.LookPath(args[0])
	ts.Check(err)
	out, err := os.Create(ts.MkAbs("interrupted"))
	ts.Check(err)
	defer out.Close()
	cmd := exec.Command(binary, args[1:]...)
	cmd.Env = []string{"CONSIGN_CONFIG=" + ts.Getenv("CONSIGN_CONFIG"), "HOME=" + ts.Getenv("HOME")}
	cmd.Stdout = out
	pipe, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	buf := make([]byte, 4096)
	n, err := pipe.Read(buf)
	ts.Check(err)
	ts.Check(cmd.Process.Signal(os.Interrupt))
	for err == nil {
		_, werr := out.Write(buf[:n])
		ts.Check(werr)
		n, err = pipe.Read(buf)
	}
	_ = cmd.Wait() // its exit status is looked at below
	if got := cmd.ProcessState.ExitCode(); got != 130 {
		ts.Fatalf("exit status after SIGINT: got %d, want 130", got)
	}
}

// badAccounts makes configurations whose account at north is expired, of an unknown authority, or of
// somebody else, by the names of variables.
func badAccounts(w *world) map[string]string {
	w.t.Helper()
	real, err := issue.Open(filepath.Join(w.net.Dir, "authorities", "north"))
	w.must(err)
	fake, err := issue.Create(filepath.Join(w.t.TempDir(), "ca"), "north", time.Now())
	w.must(err)
	bob, err := w.net.AddSubscriber("bob", w.broker, "north", "south")
	w.must(err)
	carol, err := w.net.AddSubscriber("carol", w.broker, "north", "south")
	w.must(err)
	return map[string]string{
		"EXPIRED": w.accountFrom(real, time.Now().Add(-100*24*time.Hour)),
		"UNKNOWN": w.accountFrom(fake, time.Now()),
		"BOB":     bob,
		"CAROL":   carol,
		"AUTH":    filepath.Join(w.net.Dir, "authorities"),
	}
}

// accountFrom writes a configuration whose only account was issued by ca at that time.
func (w *world) accountFrom(ca *issue.CA, at time.Time) string {
	w.t.Helper()
	dir := w.t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	chain, err := ca.Issue(key.Public(), issue.Request{Role: token.Subscriber, Name: "alice"}, at)
	w.must(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	w.must(err)
	w.must(os.WriteFile(filepath.Join(dir, "cert.pem"), chain.PEM(), 0o600))
	w.must(os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600))
	trust := map[string]string{}
	for p, file := range w.net.Trust() {
		trust[string(p)] = file
	}
	data, err := yaml.Marshal(map[string]any{
		"broker": map[string]string{"id": string(w.broker.ID), "url": w.broker.URL}, "trust": trust,
		"accounts": []map[string]string{{"cert": "cert.pem", "key": "key.pem"}},
	})
	w.must(err)
	file := filepath.Join(dir, "config.yaml")
	w.must(os.WriteFile(file, data, 0o600))
	return file
}
