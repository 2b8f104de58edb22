package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestEveryCommandLooksAtItsOwnCertificateFirst: each command that asks a broker says by itself that the certificates of its accounts have
// expired, which, when, and what to do, and asks nobody.
func TestEveryCommandLooksAtItsOwnCertificateFirst(t *testing.T) {
	t.Parallel()
	const id = "0192f0c1-2345-7abc-8def-0123456789ab"
	arguments := map[string][]string{ // of the commands that take some
		"cp": {"north:/src/a", "south:/dst/"}, "ls": {"north:/src/"}, "mkdir": {"south:/dst/new"}, "stat": {"north:/src/a"}, "erase": {"north:/src/a"},
		"acl get": {"north:/src/a"}, "acl set": {"north:/src/a", "ALLOW OWNER@ NO_FLAGS ALL_PERMS"}, "acl explain": {"alice", "north:/src/a", "READ_OBJECT"},
		"meta get": {"north:/src/a"}, "meta set": {"north:/src/a", "colour=red"}, "meta unset": {"north:/src/a", "colour"}, "meta release": {"north:/src/a", "x"},
		"find": {"--name", "**"}, "group list": {"north"}, "group show": {"north:staff"}, "group add": {"north:staff", "alice"}, "group remove": {"north:staff", "alice"},
		"adopt": {"north:/src/"}, "adopt show": {id}, "adopt cancel": {id}, "audit list": {"north:/src/"}, "audit verify": {"north:/src/"},
		"transfer show": {id}, "transfer wait": {id}, "transfer cancel": {id}, "transfer pause": {id}, "transfer resume": {id}, "transfer events": {id},
		"receipt get": {id}, "order show": {id}, "order withdraw": {id},
		"webhook add": {"https://example.com/"}, "webhook remove": {"x"}, "webhook test": {"x"},
	}
	dir := t.TempDir()
	hub := certstest.New(t, "hub")
	conf := map[string]any{"broker": map[string]string{"id": "spiffe://hub/broker/main", "url": "https://127.0.0.1:1"}, "trust": map[string]string{"hub": hub.BundleFile(dir)}}
	var accounts []map[string]string
	for _, p := range []string{"north", "south"} {
		folder := filepath.Join(dir, p)
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		cert, key := certstest.New(t, token.Provider(p)).Issue(token.Subscriber, "alice", certstest.Expired()).Files(folder)
		accounts = append(accounts, map[string]string{"cert": cert, "key": key})
	}
	conf["accounts"] = accounts
	data, err := yaml.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	checked := 0
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			walk(c)
		}
		_, path, _ := strings.Cut(cmd.CommandPath(), " ")
		if cmd.Flags().Lookup("broker-url") == nil || strings.HasPrefix(path, "account ") || path == "order refresh" { // those are about the certificates themselves
			return
		}
		checked++
		args := append(strings.Fields(path), arguments[path]...)
		code, out, errOut := invoke(t, nil, append([]string{"--config", file, "-o", "json"}, args...)...)
		lines := strings.Split(strings.TrimSpace(errOut), "\n")
		var p api.Problem
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &p); err != nil || code != problem.ExitDenied || out != "" {
			t.Errorf("%s: got %d %q %q", path, code, out, errOut)
			return
		}
		verdict{p.Code, p.Detail, p.Remedy}.check(t, problem.CertExpired, "Your certificate for spiffe://")
		if !strings.Contains(p.Remedy, "consign ca join") {
			t.Errorf("%s: got the remedy %q, want what to type", path, p.Remedy)
		}
	}
	walk(newApp().rootCommand())
	if checked < 16 {
		t.Errorf("checked %d commands, want 16 at least", checked)
	}
}
