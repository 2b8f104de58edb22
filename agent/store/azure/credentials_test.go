package azure

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token/problem"
)

const (
	key  = "c2VjcmV0"
	sas  = "sv=2024-11-04&ss=b&sig=aaa%3D"
	conn = "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=" + key + ";EndpointSuffix=core.chinacloudapi.cn"
)

func TestCredentials(t *testing.T) {
	for _, tc := range []struct {
		name    string
		config  Config
		file    string
		env     map[string]string
		want    credential
		at      string
		refused bool
	}{
		{name: "a key", config: Config{Account: "acc"}, file: key + "\n", want: credential{account: "acc", key: key}, at: "https://acc.blob.core.windows.net/con"},
		{name: "a key without its account", file: key, refused: true},
		{name: "no key", config: Config{Account: "acc"}, file: "not base64!", refused: true},
		{name: "an empty file", config: Config{Account: "acc"}, file: "\n", refused: true},
		{name: "a token", config: Config{Account: "acc"}, file: "?" + sas, want: credential{account: "acc", sas: sas}, at: "https://acc.blob.core.windows.net/con"},
		{name: "a token alone", config: Config{Endpoint: "https://gate.example/acc/"}, file: sas, want: credential{sas: sas}, at: "https://gate.example/acc/con"},
		{name: "a connection string", file: conn, want: credential{account: "acc", key: key, endpoint: "https://acc.blob.core.chinacloudapi.cn"}, at: "https://acc.blob.core.chinacloudapi.cn/con"},
		{name: "a connection string behind an endpoint", config: Config{Endpoint: "http://127.0.0.1:1/acc"}, file: conn, want: credential{account: "acc", key: key, endpoint: "https://acc.blob.core.chinacloudapi.cn"}, at: "http://127.0.0.1:1/acc/con"},
		{name: "a connection string with an endpoint and a token", file: "BlobEndpoint=https://b.example;SharedAccessSignature=" + sas, want: credential{sas: sas, endpoint: "https://b.example"}, at: "https://b.example/con"},
		{name: "a connection string of another account", config: Config{Account: "other"}, file: conn, refused: true},
		{name: "a connection string without a secret", file: "AccountName=acc;X=y", refused: true},
		{name: "a connection string that is none", file: "AccountName=acc;secret", refused: true},
		{name: "a connection string in the environment", env: map[string]string{"AZURE_STORAGE_CONNECTION_STRING": conn, "AZURE_STORAGE_KEY": "eA=="}, want: credential{account: "acc", key: key, endpoint: "https://acc.blob.core.chinacloudapi.cn"}, at: "https://acc.blob.core.chinacloudapi.cn/con"},
		{name: "a key in the environment", env: map[string]string{"AZURE_STORAGE_ACCOUNT": "acc", "AZURE_STORAGE_KEY": key}, want: credential{account: "acc", key: key}, at: "https://acc.blob.core.windows.net/con"},
		{name: "a token in the environment", config: Config{Account: "acc"}, env: map[string]string{"AZURE_STORAGE_SAS_TOKEN": "?" + sas}, want: credential{account: "acc", sas: sas}, at: "https://acc.blob.core.windows.net/con"},
		{name: "a file before the environment", config: Config{Account: "acc"}, file: key, env: map[string]string{"AZURE_STORAGE_CONNECTION_STRING": "nonsense"}, want: credential{account: "acc", key: key}, at: "https://acc.blob.core.windows.net/con"},
		{name: "the chain", config: Config{Account: "acc"}, want: credential{account: "acc"}, at: "https://acc.blob.core.windows.net/con"},
		{name: "nothing at all", refused: true},
		{name: "an endpoint with a token in it", config: Config{Endpoint: "https://acc.example?" + sas}, refused: true},
		{name: "an endpoint with a password", config: Config{Endpoint: "https://u:secret@acc.example"}, refused: true},
		{name: "no URL", config: Config{Endpoint: "acc.example"}, refused: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, name := range []string{"AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_ACCOUNT"} {
				t.Setenv(name, tc.env[name])
			}
			tc.config.Container = "con"
			if tc.file != "" {
				tc.config.Credentials = filepath.Join(t.TempDir(), "secret")
				if err := os.WriteFile(tc.config.Credentials, []byte(tc.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			b, err := NewBackend(tc.config)
			if (err != nil) != tc.refused {
				t.Fatalf("got %v, want refused %v", err, tc.refused)
			}
			if err != nil {
				for _, secret := range []string{"secret", key, "not base64", "sig="} {
					if strings.Contains(strings.ReplaceAll(err.Error(), tc.config.Credentials, ""), secret) {
						t.Errorf("got %v, which tells %q", err, secret)
					}
				}
				if problem.Of(err) != problem.BadConfig {
					t.Errorf("got %v, want bad configuration", err)
				}
				return
			}
			defer b.Close()
			got, err := tc.config.credential()
			if err != nil || got != tc.want {
				t.Errorf("got %+v (%v), want %+v", got, err, tc.want)
			}
			if at, err := tc.config.url(got); err != nil || at.String() != tc.at {
				t.Errorf("got %v (%v), want %s", at, err, tc.at)
			}
		})
	}
	for _, c := range []Config{{Account: "acc"}, {Account: "acc", Container: "a/b"}, {Account: "acc", Container: "con", Credentials: "/does/not/exist"}} {
		if _, err := NewBackend(c); problem.Of(err) != problem.BadConfig {
			t.Errorf("%+v: got %v, want bad configuration", c, err)
		}
	}
}
