package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token/problem"
)

// kinds are the kinds of stores.
var kinds = []string{kindDir, kindS3, kindAzure, kindGCS}

// sampleOf is what 'consign agent init' writes for a kind of store.
func sampleOf(t *testing.T, kind string, flags ...string) string {
	t.Helper()
	code, out, stderr := invoke(t, nil, append([]string{"agent", "init", "--store", kind}, flags...)...)
	if code != 0 {
		t.Fatalf("agent init --store %s: exit status %d: %s", kind, code, stderr)
	}
	return out
}

// loadAgent loads a text as agent.yaml.
func loadAgent(t *testing.T, text string) (agentConfig, error) {
	t.Helper()
	var cfg agentConfig
	_, err := newApp().load(&cfg, loading{files: []string{write(t, "agent.yaml", text)}})
	return cfg, err
}

// TestEverySampleLoads loads what init writes for each kind of store: as it is, and with every example put in force, which
// must then be all settings that there are.
func TestEverySampleLoads(t *testing.T) {
	t.Parallel()
	example := regexp.MustCompile(`(?m)^( *)# ([a-z_]+: \S.*|dial:|  allow: .*)$`)
	for _, kind := range kinds {
		text := sampleOf(t, kind)
		cfg, err := loadAgent(t, text)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if got, err := cfg.Exports[0].kind(); err != nil || got != kind {
			t.Errorf("%s: the export names %q, %v", kind, got, err)
		}
		full := example.ReplaceAllString(text, "$1$2")
		if full, err := loadAgent(t, full); err != nil {
			t.Errorf("%s with its examples: %v", kind, err)
		} else if !full.Exports[0].AllowUnsafeStore {
			t.Errorf("%s with its examples: no example was put in force", kind)
		}
		sh := shapeOf(reflect.TypeFor[agentConfig]())
		export := sh.keys["exports"].elem
		want := slices.Collect(maps.Keys(sh.keys))
		want = append(want, slices.Collect(maps.Keys(export.keys))...)
		if kind != kindDir {
			want = append(want, slices.Collect(maps.Keys(export.keys[kind].keys))...)
		}
		for _, key := range want {
			if slices.Contains(kinds, key) && key != kind {
				continue
			}
			if !regexp.MustCompile(`(?m)^[ -]*` + key + `:`).MatchString(full) {
				t.Errorf("%s: the sample does not have the setting %s", kind, key)
			}
		}
	}
}

// TestSamplePassesTheCheck writes the sample of each kind, puts an identity beside it, and wants that the agent takes it.
func TestSamplePassesTheCheck(t *testing.T) {
	t.Parallel()
	for kind, flags := range map[string][]string{
		kindDir:   {"--dir", "FOLDER"},
		kindS3:    {"--bucket", "results", "--endpoint", "https://127.0.0.1:1", "--region", "eu-central-1", "--prefix", "a/b", "--credentials", "store.secret"},
		kindAzure: {"--container", "results", "--account", "acme", "--prefix", "a", "--credentials", "store.secret"},
		kindGCS:   {"--bucket", "results", "--endpoint", "https://127.0.0.1:1", "--credentials", "store.secret"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "agent.yaml")
			for i := range flags {
				flags[i] = strings.Replace(flags[i], "FOLDER", dir, 1)
			}
			args := append([]string{"agent", "init", "--store", kind, "--out", file}, flags...)
			if code, _, stderr := invoke(t, nil, args...); code != 0 {
				t.Fatalf("%q: exit status %d: %s", args, code, stderr)
			}
			if code, _, stderr := invoke(t, nil, args...); code != problem.ExitFailed || !strings.Contains(stderr, "exists") {
				t.Errorf("a second time: got exit status %d, %q; want that the file exists", code, stderr)
			}
			fillIdentity(t, dir, kind)
			code, out, stderr := invoke(t, nil, "agent", "--check", "--config", file)
			if code != 0 {
				t.Fatalf("--check: exit status %d: %s", code, stderr)
			}
			for i := 0; i+1 < len(flags); i += 2 {
				if !strings.Contains(out, flags[i+1]) {
					t.Errorf("--check: got %q, want it to have %s", out, flags[i+1])
				}
			}
		})
	}
}

// fillIdentity makes the files that the sample names beside it.
func fillIdentity(t *testing.T, dir, kind string) {
	t.Helper()
	for _, args := range [][]string{
		{"ca", "init", "north", "--dir", dir + "/ca-north"}, {"ca", "init", "south", "--dir", dir + "/ca-south"}, {"ca", "init", "hub", "--dir", dir + "/ca-hub"},
		{"ca", "issue", "agent", "one", "--dir", dir + "/ca-north", "--out", dir},
	} {
		if code, _, stderr := invoke(t, nil, args...); code != 0 {
			t.Fatalf("%q: exit status %d: %s", args, code, stderr)
		}
	}
	for _, p := range []string{"south", "hub"} {
		data, err := os.ReadFile(filepath.Join(dir, "ca-"+p, "ca.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p+".pem"), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if kind != kindDir {
		if err := os.WriteFile(filepath.Join(dir, "store.secret"), []byte(secretOf(t, kind)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// secretOf is a secret of the form that a kind of store takes, of nobody.
func secretOf(t *testing.T, kind string) string {
	t.Helper()
	switch kind {
	case kindS3:
		return "[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n"
	case kindAzure:
		return "bm90aGluZw==\n"
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "nobody@example.com", "token_uri": "https://127.0.0.1:1/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestInitRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no such kind":        {[]string{"--store", "ftp"}, "no kind of store"},
		"a kind that is none": {[]string{"--store", "agent"}, "no kind of store"},
		"a path":              {[]string{"--store", "../x"}, "no kind of store"},
		"another kind's flag": {[]string{"--store", "gcs", "--region", "x"}, "--region says nothing"},
		"dir with a bucket":   {[]string{"--bucket", "x"}, "--bucket says nothing"},
		"two files":           {[]string{"a.yaml", "--out", "b.yaml"}, "named twice"},
		"a secret in the url": {[]string{"--store", "s3", "--endpoint", "https://key:pass@host"}, "perhaps a secret"},
		"a signed url":        {[]string{"--store", "azure", "--endpoint", "https://host/?sig=pass"}, "perhaps a secret"},
	} {
		code, out, stderr := invoke(t, nil, append([]string{"agent", "init"}, c.args...)...)
		if code != problem.ExitUsage || !strings.Contains(stderr, c.want) || strings.Contains(stderr+out, "pass") {
			t.Errorf("%s: got exit status %d, %q; want 2 and %q", name, code, stderr, c.want)
		}
	}
}

// TestSecretsAreRefusedInConfigurations checks that a secret's name is told where it belongs, and that its value is not
// repeated.
func TestSecretsAreRefusedInConfigurations(t *testing.T) {
	t.Parallel()
	for _, key := range []string{
		"access_key", "access_key_id", "aws_secret_access_key", "secret_key", "secretKey", "session_token", "account_key", "connection_string",
		"sas", "sas_token", "shared_key", "password", "private_key", "client_secret", "api-key",
	} {
		_, err := loadAgent(t, "exports:\n- container: data\n  s3:\n    bucket: b\n    "+key+": hunter2\n")
		s := ""
		if err != nil {
			s = problem.As(err).Sentence()
		}
		if problem.Of(err) != problem.BadConfig || !strings.Contains(s, "agent.yaml:5: ") || !strings.Contains(s, "credentials: systemd:NAME") || strings.Contains(s, "hunter2") {
			t.Errorf("%s: got %v, want bad-config with the place, where it belongs, and no value", key, err)
		}
	}
	for _, key := range []string{"bukcet", "endpoint_url", "key", "sassy", "profiles"} {
		_, err := loadAgent(t, "exports:\n- container: data\n  s3:\n    "+key+": x\n")
		if problem.Of(err) != problem.BadConfig || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want an ordinary typo", key, err)
		}
	}
}

func TestSystemdCredentials(t *testing.T) {
	t.Parallel()
	env := func(dir string) func(string) string {
		return func(key string) string { return map[string]string{"CREDENTIALS_DIRECTORY": dir}[key] }
	}
	cfg, err := loadAgent(t, "exports:\n- s3: {bucket: b, credentials: 'systemd:store'}\n- s3: {bucket: b, credentials: keys.ini}\n")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := cfg.Exports[0].S3.Credentials.file(env("/run/credentials/x")); err != nil || got != "/run/credentials/x/store" {
		t.Errorf("systemd:store: got %q, %v", got, err)
	}
	if got, err := cfg.Exports[1].S3.Credentials.file(env("")); err != nil || !filepath.IsAbs(got) || filepath.Base(got) != "keys.ini" {
		t.Errorf("keys.ini: got %q, %v; want it beside the configuration", got, err)
	}
	for name, c := range map[string]struct {
		path secretPath
		dir  string
		want string
	}{
		"no systemd": {"systemd:store", "", "gave this process no credentials"},
		"no name":    {"systemd:", "/run", "does not name a systemd credential"},
		"a path":     {"systemd:../../etc/shadow", "/run", "does not name a systemd credential"},
		"the folder": {"systemd:..", "/run", "does not name a systemd credential"},
	} {
		if got, err := c.path.file(env(c.dir)); problem.Of(err) != problem.BadConfig || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %q, %v; want bad-config and %q", name, got, err, c.want)
		}
	}
}

func TestExportsNameOneStore(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ export, want string }{
		"none":           {"{container: data, read: true}", "and names none"},
		"two":            {"{container: data, read: true, dir: /tmp, s3: {bucket: b}}", "and names dir and s3"},
		"an empty group": {"{container: data, read: true, s3: {}}", "bucket"},
		"bad style":      {"{container: data, read: true, s3: {bucket: bbb, style: odd, credentials: keys}}", "style"},
		"a secret":       {"{container: data, read: true, s3: {bucket: bbb, endpoint: 'https://a:hunter2@host', credentials: keys}}", "perhaps a secret"},
		"no container":   {"{container: data, read: true, azure: {account: a, credentials: keys}}", "container"},
		"no file":        {"{container: data, read: true, gcs: {bucket: b, credentials: nothing.json}}", "cannot be read"},
	} {
		cfg, err := loadAgent(t, "exports:\n- "+c.export+"\n")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		e := &cfg.Exports[0]
		keys := secretPath(write(t, "keys", "one\ntwo\n"))
		if e.S3 != nil {
			e.S3.Credentials = keys
		}
		if e.Azure != nil {
			e.Azure.Credentials = keys
		}
		values := []setting{{Key: "exports.0.container", Origin: "agent.yaml:2"}}
		_, err = newApp().openExports(cfg.Exports, values, nil)
		if problem.Of(err) != problem.BadConfig || !strings.Contains(problem.As(err).Sentence(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want bad-config with %q", name, err, c.want)
		} else if !strings.HasPrefix(problem.As(err).Sentence(), "agent.yaml:2: ") {
			t.Errorf("%s: got %q, want the place first", name, problem.As(err).Sentence())
		}
	}
}
