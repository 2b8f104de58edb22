package stores_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/cmd/localnet/stores"
)

// TestSecretsAreInFilesOnly checks that what goes into a configuration holds the address of the server and no secret, and that
// the secret's file is ours alone.
func TestSecretsAreInFilesOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := &realstores.S3{Process: realstoresProcess(t), Endpoint: "http://127.0.0.1:1", AccessKey: "the-key", SecretKey: "the-secret", Region: "r"}
	st, err := stores.S3At(s, filepath.Join(dir, "secrets"), "bucket", "pre/fix")
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range st.Settings {
		if text, _ := value.(string); strings.Contains(text, "the-") {
			t.Errorf("the setting %s holds %q", key, text)
		}
	}
	if st.Kind != "s3" || st.Settings["prefix"] != "pre/fix" || st.Settings["endpoint"] != s.Endpoint {
		t.Errorf("store: got %+v", st)
	}
	file := st.Settings["credentials"].(string)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secret's file: got %v, %v; want the mode 0600", info.Mode(), err)
	}
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "the-secret") {
		t.Errorf("the secret's file: got %q, %v", text, err)
	}
}

// realstoresProcess starts the smallest of the servers, whose process id names the file.
func realstoresProcess(t *testing.T) *realstores.Process {
	t.Helper()
	s, err := realstores.GoFakeS3(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s.Process
}
