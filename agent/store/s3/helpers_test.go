package s3

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
)

// A service is a running server with how it is reached.
type service struct {
	*realstores.S3
	endpoint string
	ca       string // file; empty if it speaks plain HTTP
	keys     string // file
}

// start is one of realstores'.
type start func(ctx context.Context, dir string) (*realstores.S3, error)

// honest are the servers that are used, each with and without TLS.
func honest() map[string]func(t *testing.T) *service {
	return map[string]func(t *testing.T) *service{
		"versitygw":      func(t *testing.T) *service { return plain(t, realstores.Versitygw) },
		"versitygw, TLS": func(t *testing.T) *service { return withTLS(t, realstores.Versitygw) },
		"rclone":         func(t *testing.T) *service { return plain(t, realstores.RcloneS3) },
		"rclone, TLS":    func(t *testing.T) *service { return withTLS(t, realstores.RcloneS3) },
	}
}

func plain(t *testing.T, run start) *service {
	t.Helper()
	s, err := run(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Kill(); err != nil { // its data goes too
			t.Error(err)
		}
	})
	v := &service{S3: s, endpoint: s.Endpoint, keys: keyFile(t, s.AccessKey+"\n"+s.SecretKey+"\n")}
	v.bucket(t, "home")
	return v
}

// withTLS puts a proxy in front that keeps the signed Host.
func withTLS(t *testing.T, run start) *service {
	t.Helper()
	v := plain(t, run)
	target, err := url.Parse(v.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewTLSServer(&httputil.ReverseProxy{
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = target.Scheme, target.Host, r.In.Host
		},
	})
	t.Cleanup(front.Close)
	v.endpoint, v.ca = front.URL, caFile(t, front)
	return v
}

// bucket makes a bucket, and returns how it is opened.
func (v *service) bucket(t *testing.T, name string) Config {
	t.Helper()
	if err := v.MakeBucket(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	return v.config(name)
}

func (v *service) config(name string) Config {
	return Config{Endpoint: v.endpoint, Region: v.Region, Bucket: name, CA: v.ca, Credentials: v.keys}
}

// faulty starts a proxy that fails before a server.
func faulty(t *testing.T, v *service) *realstores.Faults {
	t.Helper()
	proxy, err := realstores.NewFaults(t.Context(), realstores.SpeaksS3, v.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := proxy.Close(); err != nil {
			t.Error(err)
		}
	})
	return proxy
}

func caFile(t *testing.T, front *httptest.Server) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func keyFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// open returns a backend that is closed with the test.
func open(t *testing.T, conf Config) *backend {
	t.Helper()
	b, err := newBackend(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// fake returns a backend of a service that answers with h.
func fake(t *testing.T, h http.HandlerFunc) *backend {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return open(t, Config{Endpoint: s.URL, Region: "us-east-1", Bucket: "home", Credentials: keyFile(t, "access\nsecret\n")})
}

// counted counts the requests of a backend.
func counted(b *backend) *atomic.Int64 {
	var n atomic.Int64
	b.transport.base = tripper(func(r *http.Request) (*http.Response, error) {
		n.Add(1)
		return b.transport.quick.RoundTrip(r)
	})
	return &n
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// header is one with something of everything.
func header() bucket.Header {
	return bucket.Header{ContentType: "text/plain; charset=utf-8", Meta: map[string]string{"consign-transfer": "batch-1/7", "color": "dark  blue"}}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i ^ i>>8 ^ i>>16)
	}
	return b
}

func refusalXML(code string) string {
	return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code><Message>made up</Message><RequestId>1</RequestId></Error>`, code)
}
