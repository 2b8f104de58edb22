package web_test

import (
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// stream opens the task stream of an agent; begun is closed when it is up, and ended gets the reason for its end.
func (n *net0) stream(c *api.Client) (begun chan struct{}, ended chan error) {
	n.t.Helper()
	if _, err := c.Hello(n.t.Context(), api.Hello{Listen: []string{}, Held: []api.Ref{}, Exports: []api.Export{}}); err != nil {
		n.t.Fatal(err)
	}
	begun, ended = make(chan struct{}), make(chan error, 1)
	first := true
	go func() { // ends with the test's context
		ended <- c.Tasks(n.t.Context(), func(api.Line) error {
			if first {
				first = false
				close(begun)
			}
			return nil
		})
	}()
	return begun, ended
}

// within waits for a channel, far longer than it should take.
func within[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	select {
	case v := <-c:
		return v
	case <-late.C:
		t.Fatalf("waited in vain for %s", what)
	}
	panic("unreachable")
}

// TestStreamOfADeniedAgent: an agent that is connected when its operator's colleague denies it, or when its certificate is
// revoked, loses its stream as soon as the list is read, and learns why when it comes back.
func TestStreamOfADeniedAgent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := serveTrusting(t, func(n *net0) *certs.Trust {
		trust, err := certs.TrustFiles{
			Bundles: map[token.Provider]string{"hub": n.hub.BundleFile(dir), "north": n.north.BundleFile(dir), "south": n.south.BundleFile(dir)},
			CRLs:    map[token.Provider]string{"south": n.south.Put(dir, "south.crl", n.south.CRL(certstest.CRL{Number: 1}))},
			Denied:  n.hub.Put(dir, "denied", nil),
		}.Open()
		if err != nil {
			t.Fatal(err)
		}
		return trust
	})
	leaf := n.south.Issue(token.Agent, "s1")
	denied, revoked, honest := n.client(n.north.Issue(token.Agent, "n1")), n.client(leaf), n.client(n.north.Issue(token.Agent, "n2"))
	begun, endDenied := n.stream(denied)
	within(t, "the first stream", begun)
	begun, endRevoked := n.stream(revoked)
	within(t, "the second stream", begun)
	begun, endHonest := n.stream(honest)
	within(t, "the third stream", begun)

	n.hub.Put(dir, "denied", []byte("identity spiffe://north/agent/n1\n"))
	n.south.Put(dir, "south.crl", n.south.CRL(certstest.CRL{Number: 2, Revoked: []certstest.Revoked{{Chain: leaf.Chain, At: time.Now().Add(-time.Second)}}}))
	if changed, err := n.trust.Reload(); !changed || err != nil {
		t.Fatalf("reloading: got %v, %v", changed, err)
	}
	for name, tt := range map[string]struct {
		end  chan error
		c    *api.Client
		want problem.Code
		says string
	}{"denied": {endDenied, denied, problem.IDDenied, "has denied"}, "revoked": {endRevoked, revoked, problem.CertRevoked, "was revoked"}} {
		if err := within(t, "the end of the stream", tt.end); !problem.MayRetry(err) || !strings.Contains(err.Error(), "The broker ended the stream: ") || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: the stream ended with %v, want a reason to come back that says %q", name, err, tt.says)
		}
		if _, err := tt.c.Hello(t.Context(), api.Hello{}); problem.Of(err) != tt.want {
			t.Errorf("%s: coming back: got %v, want %s", name, err, tt.want)
		}
	}
	if _, err := honest.Version(t.Context()); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	select {
	case err := <-endHonest:
		t.Errorf("the stream of somebody else ended: %v", err)
	default:
	}
}

// TestTwoProcessesOfOneAgent: two agents that run with one identity by mistake take the stream from each other, and are told so.
func TestTwoProcessesOfOneAgent(t *testing.T) {
	t.Parallel()
	n := serve(t)
	leaf := n.north.Issue(token.Agent, "n1")
	begun, ended := n.stream(n.client(leaf))
	within(t, "the first stream", begun)
	begun, _ = n.stream(n.client(leaf))
	within(t, "the second stream", begun)
	if err := within(t, "the end of the first", ended); !problem.MayRetry(err) || !strings.Contains(err.Error(), "two processes run with its identity") {
		t.Errorf("got %v, want to be told of the other one", err)
	}
}

// TestConnectionEndsWithItsCertificate: a stream ends with the certificate that opened it, a request on the same connection
// is refused in words and is the last one there, and the renewed certificate goes on.
func TestConnectionEndsWithItsCertificate(t *testing.T) {
	t.Parallel()
	n := serve(t)
	end := time.Now().Add(4 * time.Second).Truncate(time.Second)
	old := n.north.Issue(token.Agent, "n1", certstest.Valid(end.Add(-time.Hour), end))
	begun, ended := n.stream(n.client(old))
	within(t, "the stream", begun)
	c := n.http(old)
	if status, _ := n.ask(c, http.MethodGet, "/v1/version", ""); status != http.StatusOK {
		t.Fatalf("before the end: got status %d", status)
	}
	if err := within(t, "the end of the stream", ended); !problem.MayRetry(err) {
		t.Errorf("the stream ended with %v, want a reason to come back", err)
	}
	if now := time.Now(); now.Before(end) {
		t.Errorf("the stream ended %s before its certificate", end.Sub(now))
	}
	for _, want := range []bool{true, false} { // whether the connection is the one from before
		var reused bool
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/v1/version", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != problem.Lookup(problem.CertExpired).HTTP || reused != want {
			t.Errorf("after the end: got status %d on a connection from before: %v, want %v", resp.StatusCode, reused, want)
		}
	}
	begun, _ = n.stream(n.client(n.north.Issue(token.Agent, "n1", certstest.ForKey(old.Key))))
	within(t, "the stream of the renewed certificate", begun)
}
