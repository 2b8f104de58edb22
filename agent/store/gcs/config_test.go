package gcs_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/store/gcs"
	"github.com/consign-transfer/consign/token/problem"
)

// testKey returns a new private key as JSON has it.
func testKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return at
	}
	user := file("user.json", `{"type":"authorized_user","client_id":"a","client_secret":"hush","refresh_token":"hush"}`)
	nonsense := file("nonsense.json", `{"type":"hush"}`)
	for _, tc := range []struct {
		name    string
		config  gcs.Config
		env     map[string]string
		refused bool
	}{
		{name: "an emulator", config: gcs.Config{Bucket: "b", Endpoint: "http://127.0.0.1:1"}},
		{name: "an emulator of the environment", config: gcs.Config{Bucket: "b"}, env: map[string]string{"STORAGE_EMULATOR_HOST": "127.0.0.1:1"}},
		{name: "no credentials asked for", config: gcs.Config{Bucket: "b", Credentials: gcs.Anonymous}},
		{name: "a file", config: gcs.Config{Bucket: "b", Credentials: user}},
		{name: "a file of the environment", config: gcs.Config{Bucket: "b"}, env: map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": user}},
		{name: "a token in the clear", config: gcs.Config{Bucket: "b", Endpoint: "http://storage.example", Credentials: user}, refused: true},
		{name: "another file", config: gcs.Config{Bucket: "b", Credentials: nonsense}, refused: true},
		{name: "no such file", config: gcs.Config{Bucket: "b", Credentials: dir + "/none"}, refused: true},
		{name: "another file of the environment", config: gcs.Config{Bucket: "b"}, env: map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": dir + "/none"}, refused: true},
		{name: "no bucket", config: gcs.Config{Endpoint: "http://127.0.0.1:1"}, refused: true},
		{name: "a path", config: gcs.Config{Bucket: "b", Endpoint: "https://storage.example/storage/v1"}, refused: true},
		{name: "a password", config: gcs.Config{Bucket: "b", Endpoint: "https://u:hush@storage.example"}, refused: true},
		{name: "no URL", config: gcs.Config{Bucket: "b", Endpoint: "storage.example"}, refused: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, name := range []string{"STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"} {
				t.Setenv(name, tc.env[name])
			}
			b, err := gcs.NewBackend(tc.config)
			if (err != nil) != tc.refused || err != nil && problem.Of(err) != problem.BadConfig {
				t.Fatalf("got %v, want refused %v as bad configuration", err, tc.refused)
			}
			if err != nil {
				if strings.Contains(err.Error(), "hush") {
					t.Errorf("got %v, which tells the secret", err)
				}
				return
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLoginRefused: what the login says is told as what the store says.
func TestLoginRefused(t *testing.T) {
	t.Setenv("STORAGE_EMULATOR_HOST", "")
	key := testKey(t)
	for status, want := range map[int]string{400: "unreadable", 401: "unreadable", 503: "away"} {
		login := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(login.Close)
		file := filepath.Join(t.TempDir(), "account.json")
		text := `{"type":"service_account","client_email":"a@b.example","private_key_id":"1","token_uri":"` + login.URL + `","private_key":` + key + `}`
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := gcs.NewBackend(gcs.Config{Bucket: "b", Credentials: file})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = b.Close() }) // never an error
		if _, err := b.Head(t.Context(), "k"); kind(err) != want {
			t.Errorf("a login with status %d: got %v, want %s", status, err, want)
		}
	}
}
