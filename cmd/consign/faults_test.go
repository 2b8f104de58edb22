package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token/problem"
)

// TestClaimedThenTaken orders another object to a name that a running transfer has reserved: it waits and
// says why, and ends as taken once the other is published.
func TestClaimedThenTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, localnet.Setting{Key: "rate", Value: 2 << 20})
	w.must(fillRandom(t.Context(), filepath.Join(w.src, "big"), 24<<20))
	w.file("small", []byte("small\n"))
	start(w)
	first := w.order("north:/src/big", "south:/dst/name")
	w.await("the first transfer runs", func() bool { return w.show(first.ID).State == api.Running })
	// Frozen, the destination keeps its claim and its connection for as long as this test needs.
	w.must(syscall.Kill(w.south.PID(), syscall.SIGSTOP))
	defer func() { w.must(syscall.Kill(w.south.PID(), syscall.SIGCONT)) }()
	second := w.order("north:/src/small", "south:/dst/name")
	w.await("the second transfer says that the name is claimed", func() bool {
		if s := w.show(second.ID); s.State.Ended() {
			t.Fatalf("the second transfer: got %s before the first has ended", s.State)
		}
		return strings.Contains(w.show(second.ID).Waiting, "claimed")
	})
	w.must(syscall.Kill(w.south.PID(), syscall.SIGCONT))
	w.consign(problem.ExitOK, "transfer", "wait", string(first.ID))
	r := w.consign(problem.ExitExists, "transfer", "wait", string(second.ID))
	if !strings.Contains(r.Stderr, "(taken)") || !strings.Contains(r.Stderr, "hint: ") {
		t.Errorf("what the second is told: got %q, want taken and a remedy", r.Stderr)
	}
	a, _, err := digestOf(filepath.Join(w.src, "big"))
	w.must(err)
	if b, _, err := digestOf(filepath.Join(w.dst, "name")); err != nil || a != b {
		t.Errorf("the winner's content: got %s, %v; want %s", b, err, a)
	}
	w.verified(first.ID)
	w.noStages()
}

// TestUnreadableFile copies a tree of which one file cannot be read: the others arrive, the transfer
// is partial, and the report lists the one.
func TestUnreadableFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("tree/a", []byte("a\n"))
	w.file("tree/secret", []byte("secret\n"))
	w.file("tree/z", []byte("z\n"))
	w.must(os.Chmod(filepath.Join(w.src, "tree", "secret"), 0))
	w.must(w.broker.Start(t.Context()))
	w.must(startObedient(t.Context(), w.north.Proc))
	w.must(w.south.Start(t.Context()))
	r := w.consign(problem.ExitPartial, "cp", "-r", "--wait", "-o", "json", "north:/src/tree", "south:/dst/")
	var got api.Transfer
	w.must(json.Unmarshal([]byte(r.Stdout), &got))
	if !strings.Contains(r.Stderr, `"code":"partial"`) {
		t.Errorf("the problem: got %q, want the code partial", r.Stderr)
	}
	for _, name := range []string{"a", "z"} {
		if _, err := os.Stat(filepath.Join(w.dst, "tree", name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(w.dst, "tree", "secret")); err == nil {
		t.Error("the file that cannot be read was copied")
	}
	shown := w.consign(problem.ExitOK, "transfer", "show", string(got.ID)).Stdout
	if !strings.Contains(shown, "tree/secret") || !strings.Contains(shown, "(unreadable)") {
		t.Errorf("the report: got %q, want it to list tree/secret as unreadable", shown)
	}
}

// TestHostileRequests sends what no client of ours sends to a running broker: each gets its code, and
// the broker goes on.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(w.broker.Start(t.Context()))
	s, err := (&demo{a: newApp(), config: w.config}).session(t.Context())
	w.must(err)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: certs.BrokerClient(s.accounts[0], s.trust, w.broker.ID), ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	for name, c := range map[string]struct {
		body   string
		status int
		code   problem.Code
	}{
		"malformed JSON":      {`{"jws":`, 400, problem.Malformed},
		"unknown field":       {`{"jws":[],"chains":[],"jwz":[]}`, 400, problem.UnknownField},
		"a field twice":       {`{"jws":[],"chains":[],"jws":[]}`, 400, problem.Malformed},
		"trailing data":       {`{"jws":[],"chains":[]} {}`, 400, problem.Malformed},
		"token of 24 MiB":     {`{"jws":["` + strings.Repeat("A", 24<<20) + `"],"chains":[""]}`, 413, problem.TooLarge},
		"no signature at all": {`{"jws":[],"chains":[]}`, 403, problem.OrderUnsigned},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.broker.URL+"/v1/transfers", strings.NewReader(c.body))
		w.must(err)
		req.Header.Set("Content-Type", "application/json")
		res, err := client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		data, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		w.must(err)
		w.must(res.Body.Close())
		var p api.Problem
		if err := json.Unmarshal(data, &p); err != nil || p.Code != c.code || res.StatusCode != c.status {
			t.Errorf("%s: got %d %s (%v), want %d %s", name, res.StatusCode, data, err, c.status, c.code)
		}
		if p.Detail == "" || p.Remedy == "" || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got %s of type %s, want a sentence and a remedy", name, data, res.Header.Get("Content-Type"))
		}
	}
	w.consign(problem.ExitOK, "transfer", "list")
}

// TestJoinAndRenew runs an authority as a process: a token works once, a certificate is renewed.
func TestJoinAndRenew(t *testing.T) {
	t.Parallel()
	w := &world{t: t}
	dir := t.TempDir()
	binary, err := exec.LookPath("consign")
	w.must(err)
	w.net, err = localnet.New(dir, binary)
	w.must(err)
	ca, out := filepath.Join(dir, "ca"), filepath.Join(dir, "one")
	w.consign(0, "ca", "init", "north", "--dir", ca)
	address := freeAddress(t)
	var log bytes.Buffer
	admin := freeAddress(t)
	serve := exec.Command(binary, "ca", "serve", "--dir", ca, "--listen", address, "--admin", admin)
	serve.Stderr = &log
	w.must(serve.Start())
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			w.must(serve.Process.Signal(syscall.SIGTERM))
			if err := serve.Wait(); err != nil {
				t.Errorf("the authority's end: %v", err)
			}
		}
	}
	defer stop()
	w.await("the authority listens", func() bool {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			err = c.Close()
		}
		return err == nil
	})
	file := filepath.Join(dir, "token")
	w.must(os.WriteFile(file, []byte(w.consign(0, "ca", "token", "agent", "one", "--dir", ca, "--address", address).Stdout), 0o600))
	if got := w.consign(0, "ca", "join", file, "--out", out).Stdout; !strings.Contains(got, "spiffe://north/agent/one") {
		t.Errorf("joining: got %q, want the identity", got)
	}
	if got := w.consign(4, "ca", "join", file, "--out", filepath.Join(dir, "two")).Stderr; !strings.Contains(got, "(join-token-spent)") {
		t.Errorf("joining with a spent token: got %q, want join-token-spent", got)
	}
	// The alarm reaches the operator in each of three ways.
	if got := httpBody(t, "http://"+admin+"/metrics"); !strings.Contains(got, "\nconsign_ca_alarms_total 1\n") {
		t.Errorf("metrics: got %q, want one alarm", got)
	}
	if noted := string(readFile(t, filepath.Join(ca, "alarms.jsonl"))); !strings.Contains(noted, `"identity":"spiffe://north/agent/one"`) {
		t.Errorf("the file of alarms: got %q, want the identity", noted)
	}
	before, err := os.ReadFile(filepath.Join(out, "cert.pem"))
	w.must(err)
	w.consign(0, "ca", "renew", "--cert", filepath.Join(out, "cert.pem"), "--key", filepath.Join(out, "key.pem"),
		"--bundle", filepath.Join(out, "bundle.pem"), "--url", "https://"+address)
	if after, err := os.ReadFile(filepath.Join(out, "cert.pem")); err != nil || bytes.Equal(before, after) {
		t.Errorf("the renewed certificate: got the old one (%v)", err)
	}
	before, err = os.ReadFile(filepath.Join(out, "cert.pem"))
	w.must(err)
	w.consign(0, "ca", "renew", "--cert", filepath.Join(out, "cert.pem"), "--bundle", filepath.Join(out, "bundle.pem"), "--url", "https://"+address,
		"--", w.net.Binary, "signer", "serve", "--key", filepath.Join(out, "key.pem")) // TLS and request are signed by another process
	if after, err := os.ReadFile(filepath.Join(out, "cert.pem")); err != nil || bytes.Equal(before, after) {
		t.Errorf("renewed with a signer: got the old one (%v)", err)
	}
	if got := w.consign(0, "ca", "deny", "agent", "one", "--dir", ca, "-o", "json").Stdout; !strings.Contains(got, `"keys": 1`) {
		t.Errorf("denying: got %q, want one key", got)
	}
	w.consign(problem.ExitNotFound, "ca", "deny", "agent", "nobody", "--dir", ca)
	denied := w.consign(problem.ExitDenied, "ca", "renew", "--cert", filepath.Join(out, "cert.pem"), "--key", filepath.Join(out, "key.pem"),
		"--bundle", filepath.Join(out, "bundle.pem"), "--url", "https://"+address).Stderr
	if !strings.Contains(denied, "(insufficient-privileges)") {
		t.Errorf("renewing a denied key: got %q, want insufficient-privileges", denied)
	}
	stop()
	alarmed := regexp.MustCompile(`(?m)^\{"level":"error",.*used a second time.*"identity":"spiffe://north/agent/one"`)
	if !alarmed.MatchString(log.String()) || strings.Contains(log.String(), "consign-join-1") {
		t.Errorf("the authority's log: got %q, want the alarm at level error and no token", log.String())
	}
}

func httpBody(t *testing.T, url string) string {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
