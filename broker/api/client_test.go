package api_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial returns a client that expects the broker want, before a server of the identity spiffe://hub/broker/main.
func dial(t *testing.T, want token.Identity, h http.HandlerFunc) *api.Client {
	t.Helper()
	hub := certstest.New(t, "hub")
	srv := httptest.NewUnstartedServer(h)
	leaf := hub.Issue(token.Broker, "main")
	srv.TLS = certs.BrokerServer(leaf.Pair())
	srv.TLS.Certificates = []tls.Certificate{leaf.TLS()} // or httptest adds its own
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	c := api.NewClient(srv.URL, certs.BrokerClient(hub.Issue(token.Agent, "a").Pair(), certstest.Trust(hub), want))
	t.Cleanup(c.Close)
	return c
}

const main0 = token.Identity("spiffe://hub/broker/main")

func TestFailuresAreProblems(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			if _, err := w.Write([]byte(body)); err != nil {
				t.Logf("the client did not take its answer: %v", err)
			}
		}
	}
	doc, err := json.Marshal(api.ProblemOf(problem.New(problem.UnknownProvider, "The broker does not know the provider \"west\"")))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		want token.Identity
		h    http.HandlerFunc
		code problem.Code
		says string
	}{
		{"the broker's own problem", main0, answer(404, string(doc)), problem.UnknownProvider, `"west"`},
		{"a proxy's page", main0, answer(502, "<html>"), problem.Unavailable, "502"},
		{"a refusal without words", main0, answer(418, ""), problem.Internal, "418"},
		{"a redirect elsewhere", main0, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusFound)
		}, problem.Internal, "302"},
		{"an answer that is no JSON", main0, answer(200, "hello"), problem.Unavailable, "could not be read"},
		{"an answer without end", main0, answer(200, strings.Repeat(" ", 33<<20)), problem.TooLarge, ""},
		{"another broker", "spiffe://hub/broker/other", answer(200, "{}"), problem.CertMismatch, ""},
		{"a broker of an unknown domain", "spiffe://west/broker/main", answer(200, "{}"), problem.CertMismatch, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := dial(t, tt.want, tt.h).Version(t.Context())
			var p *problem.Error
			if !errors.As(err, &p) || p.Code != tt.code || !strings.Contains(p.Sentence(), tt.says) {
				t.Errorf("got %v, want %s", err, tt.code)
			}
		})
	}
}

func TestNobodyListens(t *testing.T) {
	t.Parallel()
	hub := certstest.New(t, "hub")
	c := api.NewClient("https://127.0.0.1:1", certs.BrokerClient(hub.Issue(token.Agent, "a").Pair(), certstest.Trust(hub), main0))
	if _, err := c.Version(t.Context()); problem.Of(err) != problem.Unavailable || !problem.MayRetry(err) {
		t.Errorf("got %v, want unavailable", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Version(ctx); problem.Of(err) != problem.Cancelled {
		t.Errorf("with an ended context: got %v, want cancelled", err)
	}
}

func TestTaskStream(t *testing.T) {
	t.Parallel()
	stop := errors.New("enough")
	for _, tt := range []struct {
		name, body string
		lines      int
		code       problem.Code // empty: fn's own error
	}{
		{"closed", `{"ping":true}` + "\n" + `{"drop":{"xfr":"x","bat":1}}` + "\n", 2, problem.Unavailable},
		{"cut off within a line", `{"ping":true}` + "\n" + `{"ping":true}`, 1, problem.Unavailable},
		{"no JSON", "hello\n", 0, problem.Unavailable},
		{"a line without end", strings.Repeat(" ", api.MaxTaskSize+1), 0, problem.TooLarge},
		{"left by its reader", strings.Repeat(`{"ping":true}`+"\n", 9), 9, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := dial(t, main0, func(w http.ResponseWriter, _ *http.Request) {
				if _, err := w.Write([]byte(tt.body)); err != nil {
					t.Logf("the client did not take its answer: %v", err)
				}
			})
			n := 0
			err := c.Tasks(t.Context(), func(api.Line) error {
				if n++; n == 9 {
					return stop
				}
				return nil
			})
			if n != tt.lines || tt.code != "" && problem.Of(err) != tt.code || tt.code == "" && !errors.Is(err, stop) {
				t.Errorf("got %d lines and %v, want %d and %s", n, err, tt.lines, tt.code)
			}
		})
	}
}

func TestProblemTravels(t *testing.T) {
	t.Parallel()
	for _, k := range problem.Table() {
		e := &problem.Error{Code: k.Code, Detail: "One sentence", Remedy: "One remedy", Cause: errors.New("secret")}
		data, err := json.Marshal(api.ProblemOf(e))
		if err != nil {
			t.Fatal(err)
		}
		var p api.Problem
		if err := json.Unmarshal(data, &p); err != nil {
			t.Fatal(err)
		}
		got := problem.As(p.Err())
		if strings.Contains(string(data), "secret") || got.Code != k.Code || got.Sentence() != e.Detail || got.Advice() != e.Remedy {
			t.Errorf("%s: got %s", k.Code, data)
		}
	}
}

// TestBrokerIsDeniedMeanwhile: nothing more is asked of, or taken from, a broker that is denied while a connection to it is open; and
// once it is good again, a new connection serves.
func TestBrokerIsDeniedMeanwhile(t *testing.T) {
	t.Parallel()
	hub, dir := certstest.New(t, "hub"), t.TempDir()
	trust, err := certs.TrustFiles{Bundles: map[token.Provider]string{"hub": hub.BundleFile(dir)}, Denied: hub.Put(dir, "denied", nil)}.Open()
	if err != nil {
		t.Fatal(err)
	}
	deny := func(text string) {
		hub.Put(dir, "denied", []byte(text))
		if changed, err := trust.Reload(); !changed || err != nil {
			t.Fatalf("reloading: got %v, %v", changed, err)
		}
	}
	next := make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/tasks") {
			_, _ = io.WriteString(w, "{}") // the client notices if it is gone
			return
		}
		for {
			_, _ = io.WriteString(w, `{"ping":true}`+"\n")
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	}))
	leaf := hub.Issue(token.Broker, "main")
	srv.TLS = certs.BrokerServer(leaf.Pair())
	srv.TLS.Certificates = []tls.Certificate{leaf.TLS()} // or httptest adds its own
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	c := api.NewClient(srv.URL, certs.BrokerClient(hub.Issue(token.Agent, "a").Pair(), trust, main0))
	defer c.Close()
	if _, err := c.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := 0
	err = c.Tasks(t.Context(), func(api.Line) error {
		lines++
		deny("identity spiffe://hub/broker/main\n")
		close(next)
		return nil
	})
	if problem.Of(err) != problem.IDDenied || lines != 1 {
		t.Errorf("the stream: got %v after %d lines, want %s after 1", err, lines, problem.IDDenied)
	}
	if _, err := c.Version(t.Context()); problem.Of(err) != problem.IDDenied {
		t.Errorf("a call: got %v, want %s", err, problem.IDDenied)
	}
	deny("")
	if _, err := c.Version(t.Context()); err != nil {
		t.Errorf("once it is not denied any more: %v", err)
	}
}
