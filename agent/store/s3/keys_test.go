package s3

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/consign-transfer/consign/token/problem"
)

// signer is a service that tells which access key a request was signed with.
func signer(t *testing.T) (endpoint string, last func() string) {
	t.Helper()
	var key atomic.Value
	key.Store("")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, after, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
		id, _, _ := strings.Cut(after, "/")
		key.Store(id + " " + r.Header.Get("X-Amz-Security-Token"))
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() string { return strings.TrimSpace(key.Swap("").(string)) }
}

// lonely takes everything out of the environment that gives credentials.
func lonely(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// TestKeys checks each source of credentials that can be had here, and their order.
func TestKeys(t *testing.T) {
	shared := "[default]\naws_access_key_id = fromshared\naws_secret_access_key = s\n[work]\naws_access_key_id = fromprofile\naws_secret_access_key = s\naws_session_token = tok\n"
	tests := map[string]struct {
		set  func(t *testing.T, c *Config)
		want string
	}{
		"two lines":   {func(t *testing.T, c *Config) { c.Credentials = keyFile(t, "# ours\n\nfromfile\r\nsecret\n") }, "fromfile"},
		"three lines": {func(t *testing.T, c *Config) { c.Credentials = keyFile(t, "fromfile\nsecret\ntok") }, "fromfile tok"},
		"shared form": {func(t *testing.T, c *Config) { c.Credentials = keyFile(t, shared) }, "fromshared"},
		"a profile":   {func(t *testing.T, c *Config) { c.Credentials, c.Profile = keyFile(t, shared), "work" }, "fromprofile tok"},
		"file before environment": {func(t *testing.T, c *Config) {
			t.Setenv("AWS_ACCESS_KEY_ID", "fromenv")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			c.Credentials = keyFile(t, "fromfile\nsecret\n")
		}, "fromfile"},
		"environment": {func(t *testing.T, _ *Config) {
			t.Setenv("AWS_ACCESS_KEY_ID", "fromenv")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			t.Setenv("AWS_SESSION_TOKEN", "tok")
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", keyFile(t, shared))
		}, "fromenv tok"},
		"AWS's file": {func(t *testing.T, _ *Config) { t.Setenv("AWS_SHARED_CREDENTIALS_FILE", keyFile(t, shared)) }, "fromshared"},
		"AWS's file and profile": {func(t *testing.T, c *Config) {
			t.Setenv("AWS_SHARED_CREDENTIALS_FILE", keyFile(t, shared))
			c.Profile = "work"
		}, "fromprofile tok"},
		"a container": {func(t *testing.T, _ *Config) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "tok" {
					w.WriteHeader(http.StatusForbidden)
				}
				_, _ = fmt.Fprintf(w, `{"AccessKeyId":"frombox","SecretAccessKey":"s","Token":"session","Expiration":%q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
			}))
			t.Cleanup(s.Close)
			t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", s.URL)
			t.Setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "tok")
		}, "frombox session"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			lonely(t)
			endpoint, last := signer(t)
			conf := Config{Endpoint: endpoint, Bucket: "home"}
			tt.set(t, &conf)
			b := open(t, conf)
			for range 2 {
				if _, err := b.Head(t.Context(), "k"); problem.Of(err) != problem.Missing || last() != tt.want {
					t.Errorf("got %v, signed by another than %q", err, tt.want)
				}
			}
		})
	}
}

// TestNoKeys checks that nothing is ever asked for without credentials.
func TestNoKeys(t *testing.T) {
	lonely(t)
	endpoint, last := signer(t)
	b := open(t, Config{Endpoint: endpoint, Bucket: "home"})
	for name, call := range calls(b) {
		err := call(t.Context())
		if got := kind(err); got != string(problem.Unreadable) && got != string(problem.Unwritable) || !strings.Contains(err.Error(), "no credentials") {
			t.Errorf("%s: got %v, want a refusal that says why", name, err)
		}
	}
	if got := last(); got != "" {
		t.Errorf("a request was made, signed by %q", got)
	}
	// A service that the environment names and that does not answer may come back.
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(s.Close)
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", s.URL)
	b = open(t, Config{Endpoint: endpoint, Bucket: "home"})
	if _, err := b.Head(t.Context(), "k"); kind(err) != "away" {
		t.Errorf("a service for credentials that is busy: got %v, want away", err)
	}
}

// TestKeysChange checks that a file is read again when it changes, and that one which broke does not count as a refusal.
func TestKeysChange(t *testing.T) {
	t.Parallel()
	endpoint, last := signer(t)
	conf := Config{Endpoint: endpoint, Bucket: "home", Credentials: keyFile(t, "first\nsecret\n")}
	b := open(t, conf)
	for _, tt := range []struct{ text, kind, want string }{
		{"", "missing", "first"}, {"second\nsecret\n", "missing", "second"}, {"", "missing", "second"},
		{"half", "away", ""}, {"third\nsecret\ntok\n", "missing", "third tok"},
	} {
		if tt.text != "" {
			next := keyFile(t, tt.text)
			if err := os.Rename(next, conf.Credentials); err != nil {
				t.Fatal(err)
			}
		}
		_, err := b.Head(t.Context(), "k")
		if got := last(); kind(err) != tt.kind || got != tt.want {
			t.Errorf("after %q: got %v, signed by %q, want %q by %q", tt.text, err, got, tt.kind, tt.want)
		}
	}
}

// TestSecretsStayHere checks that no error and no request body tells a secret.
func TestSecretsStayHere(t *testing.T) {
	t.Parallel()
	const secret = "correct-horse-battery"
	leaked := false
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		leaked = leaked || strings.Contains(fmt.Sprint(r.URL, r.Header, string(text)), secret)
		w.WriteHeader(http.StatusForbidden)
	}))
	t.Cleanup(s.Close)
	b := open(t, Config{Endpoint: s.URL, Bucket: "home", Credentials: keyFile(t, "access\n"+secret+"\n")})
	for name, call := range calls(b) {
		if err := call(t.Context()); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v, want an error without the secret", name, err)
		}
	}
	if leaked {
		t.Error("the secret was sent")
	}
}
