package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token/problem"
)

// TestACMESettingsAreChecked wants every mistake in identity.acme to be told before anything is started.
func TestACMESettingsAreChecked(t *testing.T) {
	t.Parallel()
	w := newEmptyWorld(t)
	w.must(w.net.AddProvider("north"))
	with := func(name string, change func(identity, acme map[string]any)) localnet.Result {
		dir := filepath.Join(w.net.Dir, "agents", "north-"+name)
		acme := map[string]any{
			"directory": "https://127.0.0.1:1/directory", "id": "spiffe://north/agent/" + name, "identifier": "localhost",
			"root": w.net.Trust()["north"],
		}
		identity := map[string]any{"cert": filepath.Join(dir, "cert.pem"), "key": filepath.Join(dir, "key.pem"), "acme": acme}
		change(identity, acme)
		a, err := w.net.AddAgent("north", name, []localnet.Export{{Container: "src", Dir: w.src, Read: true}}, nil,
			localnet.Setting{Key: "identity", Value: identity},
			localnet.Setting{Key: "brokers", Value: []map[string]string{{"id": "spiffe://hub/broker/main", "url": "https://127.0.0.1:1"}}})
		w.must(err)
		r, _ := w.net.Run(t.Context(), "", "agent", "--config", a.Config, "--check")
		return r
	}
	for name, tt := range map[string]struct {
		change func(identity, acme map[string]any)
		says   string
	}{
		"two-authorities": {func(id, _ map[string]any) { id["renew_url"] = "https://127.0.0.1:1" }, "identity.renew_url and identity.acme"},
		"somebody-else":   {func(_, acme map[string]any) { acme["id"] = "spiffe://north/agent/other" }, "spiffe://north/agent/other"},
		"no-identity":     {func(_, acme map[string]any) { acme["id"] = "north" }, "spiffe://provider/role/name"},
		"challenge":       {func(_, acme map[string]any) { acme["challenge"] = "dns-01" }, "http-01"},
		"plain-http":      {func(_, acme map[string]any) { acme["directory"] = "http://127.0.0.1:1/directory" }, "https URL"},
		"no-root":         {func(_, acme map[string]any) { acme["root"] = "/nowhere/root.pem" }, "roots of the ACME authority"},
		"unknown":         {func(_, acme map[string]any) { acme["directry"] = "x" }, `did you mean "directory"`},
	} {
		if r := with(name, tt.change); r.Exit != problem.ExitUsage || !strings.Contains(r.Stderr, tt.says) {
			t.Errorf("%s: got exit status %d and %q, want %d and %q", name, r.Exit, r.Stderr, problem.ExitUsage, tt.says)
		}
	}
	if r := with("good", func(_, _ map[string]any) {}); strings.Contains(r.Stderr, "acme") || strings.Contains(r.Stderr, "ACME") {
		t.Errorf("good settings: got exit status %d and %q", r.Exit, r.Stderr)
	}
}
