package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
)

// newCDMIWorld is a world of which south is in Germany, and lets everybody do everything in dst, which is alice's, on the broker's word.
func newCDMIWorld(t *testing.T) *world {
	t.Helper()
	w := newEmptyWorld(t)
	for _, p := range []token.Provider{"north", "south"} {
		w.must(w.net.AddProvider(p))
	}
	var err error
	w.broker, err = w.net.AddBroker(t.Context(), "hub", localnet.Setting{Key: "places", Value: map[string]string{"south": "DE"}})
	w.must(err)
	brokers := []*localnet.Broker{w.broker}
	w.north, err = w.net.AddAgent("north", "one", []localnet.Export{{Container: "src", Dir: w.src, Read: true}}, brokers)
	w.must(err)
	w.south, err = w.net.AddAgent("south", "one", nil, brokers, localnet.Setting{Key: "exports", Value: []map[string]any{{
		"container": "dst", "dir": w.dst, "session": []string{"spiffe://hub/broker/main"}, "owner": "spiffe://south/subscriber/alice", "place": "DE",
		"rules": []map[string]any{{"who": []string{"*"}, "may": []string{"read", "list", "create", "erase"}}},
	}}})
	w.must(err)
	w.config, err = w.net.AddSubscriber("alice", w.broker, "north", "south")
	w.must(err)
	t.Cleanup(func() {
		for _, p := range w.procs() {
			if t.Failed() {
				t.Logf("the end of the log of %s:\n%s", p.Name, p.Tail(25))
			}
		}
	})
	return w
}

// TestCDMISession runs a session of CDMI by curl alone: testdata/cdmi/session.sh says what is done and which status the standard's tables have for it. The agent takes the
// broker's word, since curl signs nothing.
func TestCDMISession(t *testing.T) {
	t.Parallel()
	w := newCDMIWorld(t)
	w.must(os.WriteFile(filepath.Join(w.dst, "one"), []byte("four"), 0o600))
	w.must(w.broker.Start(t.Context()))
	w.must(w.south.Start(t.Context()))
	w.await("the agent is connected", func() bool {
		return strings.Count(w.consign(0, "provider", "list").Stdout, "(connected)") == 1
	})
	for _, name := range []string{"bob", "carol"} {
		_, err := w.net.Account(name, "south")
		w.must(err)
	}
	pair, err := certs.OpenPair(w.broker.Cert, w.broker.Key)
	w.must(err)
	spki, err := x509.MarshalPKIXPublicKey(pair.Signer().Public())
	w.must(err)
	pin := sha256.Sum256(spki)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", filepath.Join("testdata", "cdmi", "session.sh"))
	cmd.Env = append(os.Environ(), "URL="+w.broker.URL, "PIN=sha256//"+base64.StdEncoding.EncodeToString(pin[:]), "KEYS="+filepath.Join(w.net.Dir, "subscribers"), "DST="+w.dst, "ID=spiffe://south/subscriber/")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "all as the standard has it\n" {
		t.Errorf("got %v\n%s", err, out)
	}
}

// TestCDMIClaims uses what is claimed as capabilities and what a session by itself does not come to: wishes of containers decide orders, and are seen in what these have stored.
func TestCDMIClaims(t *testing.T) {
	t.Parallel()
	w := newCDMIWorld(t)
	w.file("one.txt", []byte("the first object\n"))
	start(w)
	archive := "/cdmi/south/dst/archive/"
	w.cdmi(http.MethodPut, archive, `{"metadata":{"cdmi_value_hash":"SHA256","cdmi_geographic_placement":["DE"]}}`, http.StatusCreated)
	w.consign(0, "cp", "--wait", "north:/src/one.txt", "south:/dst/archive/")
	got := w.cdmi(http.MethodGet, archive+"one.txt", "", http.StatusOK)
	for _, want := range []string{
		fmt.Sprintf(`"cdmi_hash":"%x"`, sha256.Sum256([]byte("the first object\n"))), `"cdmi_size":"17"`, `"cdmi_owner":"spiffe://south/subscriber/alice"`, `"objectID":"`,
		`"cdmi_value_hash_provided":"SHA256"`, `"cdmi_geographic_placement_provided":["DE"]`,
	} {
		if !strings.Contains(strings.ToLower(got), strings.ToLower(want)) {
			t.Errorf("what was copied: got %s, want %s in it", got, want)
		}
	}
	for path, body := range map[string]string{"/cdmi/south/dst/far/": `{"metadata":{"cdmi_geographic_placement":["JP"]}}`, archive + "?metadata:cdmi_geographic_placement": `{"metadata":{"cdmi_geographic_placement":["!DE","*"]}}`} {
		if got := w.cdmi(http.MethodPut, path, body, http.StatusForbidden); !strings.Contains(got, "placement-refused") {
			t.Errorf("%s: got %s", path, got)
		}
	}
	w.cdmi(http.MethodPut, archive+"?metadata:cdmi_geographic_placement", `{"metadata":{"cdmi_geographic_placement":["of no form"]}}`, http.StatusBadRequest)
	w.cdmi(http.MethodPut, "/cdmi/south/dst/small/", `{"metadata":{"cdmi_assignedsize":"10"}}`, http.StatusCreated)
	if r, _ := w.net.Run(t.Context(), w.config, "cp", "--wait", "north:/src/one.txt", "south:/dst/small/"); r.Exit == 0 || !strings.Contains(r.Stdout+r.Stderr, "quota-exceeded") {
		t.Errorf("17 bytes into a container of 10: got exit status %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	capabilities := w.cdmi(http.MethodGet, "/cdmi/cdmi_capabilities/container/", "", http.StatusOK)
	for _, want := range []string{`"cdmi_value_hash":["SHA256","SHA384","SHA512","SHA160","MD5"]`, `"cdmi_assignedsize":"true"`, `"cdmi_geographic_placement":"true"`} {
		if !strings.Contains(capabilities, want) {
			t.Errorf("what containers can do: got %s, want %s in it", capabilities, want)
		}
	}
}

// cdmi makes a request of CDMI as alice of south, wants a status, and returns the body.
func (w *world) cdmi(method, path, body string, status int) string {
	w.t.Helper()
	var cfg cliConfig
	_, err := newApp().load(&cfg, loading{files: []string{w.config}})
	w.must(err)
	trust, err := cfg.trustConfig.open()
	w.must(err)
	pair, err := certs.OpenPair(string(cfg.Accounts[1].Cert), string(cfg.Accounts[1].Key))
	w.must(err)
	tr := &http.Transport{TLSClientConfig: certs.BrokerClient(pair, trust, cfg.Broker.ID)}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.broker.URL+path, strings.NewReader(body))
	w.must(err)
	req.Header.Set("X-CDMI-Specification-Version", "1.1.1")
	if body != "" {
		req.Header.Set("Content-Type", "application/cdmi-container")
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	w.must(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	w.must(err)
	if resp.StatusCode != status {
		w.t.Fatalf("%s %s: got %d, want %d\n%s", method, path, resp.StatusCode, status, data)
	}
	return string(data)
}
