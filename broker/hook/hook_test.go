package hook_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/broker/hook"
	"github.com/consign-transfer/consign/token/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver serves h on loopback and returns its address and a Sender that trusts it and may call it.
func receiver(t *testing.T, h http.HandlerFunc) (string, *hook.Sender) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	return srv.URL, sender(t, hook.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Roots: roots, Version: "test"})
}

func sender(t *testing.T, c hook.Config) *hook.Sender {
	t.Helper()
	s := hook.New(c)
	t.Cleanup(s.Close)
	return s
}

var message = broker.Message{ID: "msg_1", At: time.Unix(1700000000, 0), Body: []byte(`{"specversion":"1.0"}`), Signature: "v1a,xyz"}

func TestDeliver(t *testing.T) {
	t.Parallel()
	var got *http.Request
	var body []byte
	url, s := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(http.StatusNoContent)
	})
	if err := s.Deliver(t.Context(), url+"/in?x=1", message); err != nil {
		t.Fatal(err)
	}
	if got.Method != http.MethodPost || got.URL.String() != "/in?x=1" || !bytes.Equal(body, message.Body) {
		t.Errorf("got %s %s %s", got.Method, got.URL, body)
	}
	for name, want := range map[string]string{
		"webhook-id": "msg_1", "webhook-timestamp": "1700000000", "webhook-signature": "v1a,xyz", "user-agent": "consign/test",
		"content-type": "application/cloudevents+json; charset=utf-8",
	} {
		if got := got.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		h     http.HandlerFunc
		want  problem.Code
		says  string
		gone  bool
		after time.Duration
	}{
		{"a failure", status(500, ""), problem.Unavailable, "500", false, 0},
		{"gone", status(410, ""), problem.Unavailable, "410", true, 0},
		{"busy", status(429, "120"), problem.Unavailable, "429", false, 2 * time.Minute},
		{"away", status(503, "7"), problem.Unavailable, "503", false, 7 * time.Second},
		{"busy until a date", func(w http.ResponseWriter, _ *http.Request) {
			now := time.Now().UTC().Truncate(time.Second)
			w.Header().Set("Date", now.Format(http.TimeFormat))
			w.Header().Set("Retry-After", now.Add(time.Hour).Format(http.TimeFormat))
			w.WriteHeader(429)
		}, problem.Unavailable, "429", false, time.Hour},
		{"busy with nonsense", status(429, "soon, I hope"), problem.Unavailable, "429", false, 0},
		{"busy since", status(429, "-5"), problem.Unavailable, "429", false, 0},
		{"a redirect to inside", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://169.254.169.254/latest/meta-data", http.StatusTemporaryRedirect)
		}, problem.Unavailable, "307", false, 0},
		{"a body without end", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}, "", "", false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url, s := receiver(t, c.h)
			err := s.Deliver(t.Context(), url, message)
			var later *broker.Deferred
			after := time.Duration(0)
			if errors.As(err, &later) {
				after = later.After
			}
			if problem.Of(err) != c.want || err != nil && !strings.Contains(problem.As(err).Sentence(), c.says) || errors.Is(err, broker.ErrGone) != c.gone || after != c.after {
				t.Errorf("got %v, after %s", err, after)
			}
		})
	}
}

func status(code int, after string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader(code)
	}
}

// TestServerSideRequestForgery: no spelling of an inner address is called, and the answer says nothing of what is there.
func TestServerSideRequestForgery(t *testing.T) {
	t.Parallel()
	called := false
	url, _ := receiver(t, func(http.ResponseWriter, *http.Request) { called = true })
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "https://"), ":")
	s := sender(t, hook.Config{})
	for _, address := range []string{
		url, "https://127.0.0.1:" + port, "https://localhost:" + port, "https://[::1]:" + port, "https://[::ffff:127.0.0.1]:" + port, "https://[64:ff9b::7f00:1]/",
		"https://169.254.169.254/latest/meta-data", "https://10.0.0.1/", "https://192.168.1.1/", "https://172.16.0.1/", "https://100.64.0.1/", "https://[fd00::1]/",
		"https://[fe80::1]/", "https://0.0.0.0:" + port, "https://[::]:" + port, "https://[2002:7f00:1::]/", "https://100.100.100.200/",
	} {
		err := s.Deliver(t.Context(), address, message)
		if problem.Of(err) != problem.HookRefused && !strings.Contains(address, "localhost") {
			t.Errorf("%s: got %v, want %s", address, err, problem.HookRefused)
		}
		if err == nil || strings.Contains(problem.As(err).Sentence(), "127.") || strings.Contains(problem.As(err).Sentence(), port) {
			t.Errorf("%s: got %v, want a failure that says nothing of it", address, err)
		}
	}
	for _, address := range []string{"http://example.com/", "ftp://example.com/", "https:///x", "https://user:pass@example.com/", "https://example.com/#x", "https:example.com",
		"https://example.com:0/", "https://example.com:99999/", "//example.com/", "", "https://127.0.0.1/", "https://\x00/"} {
		if err := s.May(address); problem.Of(err) != problem.HookRefused {
			t.Errorf("%q: got %v, want %s", address, err, problem.HookRefused)
		}
	}
	for _, address := range []string{"https://example.com", "https://example.com:8443/in?token=1", "https://93.184.215.14/"} {
		if err := s.May(address); err != nil {
			t.Errorf("%q: got %v", address, err)
		}
	}
	if called {
		t.Error("the inner receiver was called")
	}
}

// TestNameIsJudgedWhenItIsDialled: a name is allowed or not by what it leads to now.
func TestNameIsJudgedWhenItIsDialled(t *testing.T) {
	t.Parallel()
	s := sender(t, hook.Config{})
	if err := s.May("https://localhost/"); err != nil {
		t.Fatalf("before it is resolved: got %v", err)
	}
	if err := s.Deliver(t.Context(), "https://localhost/", message); problem.Of(err) != problem.HookRefused {
		t.Errorf("got %v, want %s", err, problem.HookRefused)
	}
}

func TestReceiverOfAnUnknownAuthority(t *testing.T) {
	t.Parallel()
	url, _ := receiver(t, status(204, ""))
	s := sender(t, hook.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	err := s.Deliver(t.Context(), url, message)
	if problem.Of(err) != problem.Unavailable || problem.As(err).Sentence() != "The certificate of the webhook's receiver is not good" {
		t.Errorf("got %v", err)
	}
}

func TestReceiverThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	url, s := receiver(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Deliver(ctx, url, message); problem.Of(err) != problem.Timeout {
		t.Errorf("got %v, want %s", err, problem.Timeout)
	}
	if err := s.Deliver(t.Context(), "https://127.0.0.1:1/", message); problem.Of(err) != problem.Unavailable {
		t.Errorf("nobody listens: got %v, want %s", err, problem.Unavailable)
	}
}
