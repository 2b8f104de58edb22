package main

import (
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// write makes a file in a folder of the test and returns its name.
func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func newApp(environ ...string) *app {
	return &app{streams: streams{environ: environ}, format: table, now: time.Now, signers: &signers{}}
}

func TestLoadRefusesTypos(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ yaml, want string }{
		"unknown key":        {"broker:\n  urll: x\n", `:2: there is no setting "urll"; did you mean "url"`},
		"unknown top key":    {"truts: {}\n", `:1: there is no setting "truts"; did you mean "trust"`},
		"nothing near":       {"zzzzzzzz: 1\n", `:1: there is no setting "zzzzzzzz"; there are accounts, broker, crl`},
		"duplicate":          {"broker:\n  url: a\n  id: b\n  url: c\n", `:4: the setting "url" was already given in line 2`},
		"duplicate in a map": {"trust:\n  a: x\n  a: y\n", `:3: the setting "a" was already given in line 2`},
		"in a list":          {"accounts:\n- cert: a\n  kee: b\n", `:3: there is no setting "kee"; did you mean "key"`},
		"list for a group":   {"broker: [a]\n", `:1: "broker" must hold settings`},
		"text for a list":    {"accounts: a\n", `:1: "accounts" must be a list`},
		"group for a text":   {"broker:\n  url: {a: b}\n", `:2: "broker/url" must be a single value`},
		"nothing for a text": {"broker:\n  url:\n", `:2: "broker/url" must be a single value`},
		"alias":              {"broker: &b\n  url: x\n", `anchors and aliases are not supported`},
		"two documents":      {"broker: {}\n---\nbroker: {}\n", "more than one YAML document"},
		"a list":             {"- a\n", "the file must hold settings"},
		"no yaml":            {"a: [b\n", "is not good YAML"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := write(t, "config.yaml", c.yaml)
			_, err := newApp().load(&cliConfig{}, loading{files: []string{file}})
			if problem.Of(err) != problem.BadConfig {
				t.Fatalf("code: got %q (%v), want %q", problem.Of(err), err, problem.BadConfig)
			}
			if s := problem.As(err).Sentence(); !strings.Contains(s, c.want) || !strings.HasPrefix(s, file) {
				t.Errorf("sentence: got %q, want the file and %q", s, c.want)
			}
		})
	}
}

func TestLoadRefusesBadValues(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ yaml, want string }{
		"number":   {"lanes: four\n", `"lanes" is not good: "four" is not a whole number`},
		"negative": {"lanes: -1\n", `"lanes" is not good`},
		"bool":     {"exports:\n- read: yes please\n", `"exports/0/read" is not good: "yes please" is neither true nor false`},
		"size":     {"rate: fast\n", `"rate" is not good: "fast" is not a size`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newApp().load(&agentConfig{}, loading{files: []string{write(t, "agent.yaml", c.yaml)}})
			if problem.Of(err) != problem.BadConfig || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: got %v, want %q with %q", err, problem.BadConfig, c.want)
			}
		})
	}
}

func TestLoadPrecedence(t *testing.T) {
	t.Parallel()
	system := write(t, "agent.yaml", "listen: one\nadmin: one\nlog_level: one\nlanes: 1\nexports: [{container: a}]\n")
	user := write(t, "agent.yaml", "listen: two\nadmin: two\nlog_level: two\nexports: [{container: b, dir: c}]\n")
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.String("log-level", "info", "")
	flags.String("listen", "", "")
	if err := flags.Parse([]string{"--log-level=four"}); err != nil {
		t.Fatal(err)
	}
	cfg := agentConfig{Slots: 7}
	got, err := newApp("CONSIGN_ADMIN=three", "CONSIGN_LOG_LEVEL=three", "OTHER=x").load(&cfg, loading{
		files: []string{system, user, filepath.Join(t.TempDir(), "missing")}, flags: flags,
		flagKey: map[string]string{"log-level": "log_level", "listen": "listen"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := agentConfig{
		Listen: "two", Admin: "three", LogLevel: "four", Lanes: 1, Slots: 7,
		Exports: []exportConfig{{Container: "b", Dir: filePath(filepath.Join(filepath.Dir(user), "c"))}},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("settings: got %+v, want %+v", cfg, want)
	}
	origins := map[string]string{}
	for _, s := range got.settings(&cfg) {
		origins[s.Key] = s.Origin
	}
	for key, want := range map[string]string{
		"listen": user + ":1", "admin": "environment CONSIGN_ADMIN", "log_level": "flag --log-level",
		"lanes": system + ":4", "slots": "default", "exports.0.dir": user + ":4",
	} {
		if origins[key] != want {
			t.Errorf("origin of %s: got %q, want %q", key, origins[key], want)
		}
	}
}

func TestLoadRefusesUnknownVariables(t *testing.T) {
	t.Parallel()
	_, err := newApp("CONSIGN_BROKER_ULR=x").load(&cliConfig{}, loading{})
	if problem.Of(err) != problem.BadConfig || !strings.Contains(err.Error(), `did you mean "CONSIGN_BROKER_URL"`) {
		t.Errorf("error: got %v, want bad-config with the nearest variable", err)
	}
	// A variable of another command's configuration is none of ours, but is no typo.
	if _, err := newApp("CONSIGN_LEASE_GRACE=5m", "CONSIGN_CONFIG=x", "CONSIGN_EMPTY=").load(&cliConfig{}, loading{}); err != nil {
		t.Errorf("a variable of the broker: got %v, want nil", err)
	}
}

func TestLoadKeepsDotsInProviders(t *testing.T) {
	t.Parallel()
	var cfg cliConfig
	file := write(t, "config.yaml", "trust:\n  north.example: a.pem\n  south: /b.pem\n")
	if _, err := newApp().load(&cfg, loading{files: []string{file}}); err != nil {
		t.Fatal(err)
	}
	if got, want := cfg.Trust["north.example"], filePath(filepath.Join(filepath.Dir(file), "a.pem")); got != want {
		t.Errorf("bundle of north.example: got %q, want %q", got, want)
	}
	if got := cfg.Trust["south"]; got != "/b.pem" {
		t.Errorf("bundle of south: got %q, want /b.pem", got)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	words := []string{"broker", "trust", "accounts", "identity"}
	for word, want := range map[string]string{"broekr": "broker", "trsut": "trust", "acount": "accounts", "qqq": "", strings.Repeat("x", 100): ""} {
		if got := nearest(word, words); got != want {
			t.Errorf("nearest to %q: got %q, want %q", word, got, want)
		}
	}
}

// TestTrustSettings loads what all three configurations have beside each other, in each of them.
func TestTrustSettings(t *testing.T) {
	t.Parallel()
	file := write(t, "any.yaml", "trust: {north: n.pem}\ncrls: {north: n.crl}\ncrl_stale: accept\ndenied: no.txt\n")
	dir := filepath.Dir(file)
	want := trustConfig{
		Trust: map[token.Provider]filePath{"north": filePath(filepath.Join(dir, "n.pem"))},
		CRLs:  map[token.Provider]filePath{"north": filePath(filepath.Join(dir, "n.crl"))}, CRLStale: "accept",
		Denied: filePath(filepath.Join(dir, "no.txt")),
	}
	var cli cliConfig
	var hub brokerConfig
	var one agentConfig
	for _, c := range []struct {
		cfg any
		got *trustConfig
	}{{&cli, &cli.trustConfig}, {&hub, &hub.trustConfig}, {&one, &one.trustConfig}} {
		got, err := newApp().load(c.cfg, loading{files: []string{file}})
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*c.got, want) {
			t.Errorf("%T: got %+v, want %+v", c.cfg, *c.got, want)
		}
		shown := map[string]string{}
		for _, s := range got.settings(c.cfg) {
			shown[s.Key] = s.Value + " from " + s.Origin
		}
		for key, want := range map[string]string{
			"trust.north": filepath.Join(dir, "n.pem") + " from " + file + ":1", "crls.north": filepath.Join(dir, "n.crl") + " from " + file + ":2",
			"crl_stale": "accept from " + file + ":3",
		} {
			if shown[key] != want {
				t.Errorf("%T: %s is shown as %q, want %q", c.cfg, key, shown[key], want)
			}
		}
	}
	if _, err := (trustConfig{CRLStale: "perhaps"}).open(); problem.Of(err) != problem.BadConfig {
		t.Errorf("an unknown policy: got %v, want %s", err, problem.BadConfig)
	}
	_, err := newApp().load(&cliConfig{}, loading{files: []string{write(t, "typo.yaml", "crl_stael: accept\n")}})
	if problem.Of(err) != problem.BadConfig || !strings.Contains(err.Error(), "crl_stale") {
		t.Errorf("a typo: got %v, want the nearest setting", err)
	}
}

// TestPlacesOfTheBroker: the setting places names providers and containers, and says which entry is none of both.
func TestPlacesOfTheBroker(t *testing.T) {
	t.Parallel()
	read := func(text string) (map[token.Location]space.Region, error) {
		var cfg brokerConfig
		if _, err := newApp().load(&cfg, loading{files: []string{write(t, "broker.yaml", text)}}); err != nil {
			return nil, err
		}
		return cfg.places()
	}
	got, err := read("places:\n  north.example: DE\n  'south:/my.archive': FR\n")
	want := map[token.Location]space.Region{{Provider: "north.example"}: "DE", {Provider: "south", Container: "my.archive"}: "FR"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"{'south:archive': FR}", "{'south:/': FR}", "{'south:/a': FR, 'south:/a/': DE}", "[DE]"} {
		if got, err := read("places: " + bad + "\n"); problem.Of(err) != problem.BadConfig || got != nil {
			t.Errorf("%s: got %v, %v; want %q", bad, got, err, problem.BadConfig)
		}
	}
}
