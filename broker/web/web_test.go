package web_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/broker/web"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

var update = flag.Bool("update", false, "write docs/openapi.yaml anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// net0 is a broker behind its real server on loopback.
type net0 struct {
	t                 *testing.T
	hub, north, south *certstest.CA
	trust             *certs.Trust
	b                 *broker.Broker
	srv               *web.Server
	url, admin        string
}

func serve(t *testing.T) *net0 {
	t.Helper()
	return serveTrusting(t, func(n *net0) *certs.Trust { return certstest.Trust(n.hub, n.north, n.south) })
}

// serveWith serves with what an operator decides of the namespace.
func serveWith(t *testing.T, space tree.Config) *net0 {
	t.Helper()
	return serveTrusting(t, func(n *net0) *certs.Trust { return certstest.Trust(n.hub, n.north, n.south) }, func(c *broker.Config) { c.Space = space })
}

// serveTrusting serves with the trust that open returns.
func serveTrusting(t *testing.T, open func(*net0) *certs.Trust, change ...func(*broker.Config)) *net0 {
	t.Helper()
	n := &net0{t: t, hub: certstest.New(t, "hub"), north: certstest.New(t, "north"), south: certstest.New(t, "south")}
	n.trust = open(n)
	pair := n.hub.Issue(token.Broker, "main").Pair()
	conf := broker.Config{Identity: pair, Trust: n.trust, Providers: []token.Provider{"north", "south"}, State: filepath.Join(t.TempDir(), "state")}
	for _, c := range change {
		c(&conf)
	}
	if err := broker.Init(t.Context(), conf.State); err != nil {
		t.Fatal(err)
	}
	var err error
	if n.b, err = broker.Open(t.Context(), conf, time.Now()); err != nil {
		t.Fatal(err)
	}
	if n.srv, err = web.New(web.Config{Broker: n.b, Identity: pair, Trust: n.trust}); err != nil {
		t.Fatal(err)
	}
	l, admin := listen(t), listen(t)
	n.url, n.admin = "https://"+l.Addr().String(), "http://"+admin.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- n.srv.Run(ctx, l, admin) }()
	go func() { ended <- n.b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("stopping: %v", err)
			}
		}
		if err := n.b.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return n
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (n *net0) client(l *certstest.Leaf) *api.Client {
	c := api.NewClient(n.url, certs.BrokerClient(l.Pair(), n.trust, n.b.Self()))
	n.t.Cleanup(c.Close)
	return c
}

// http returns a plain client that shows the leaf, or none if it is nil.
func (n *net0) http(l *certstest.Leaf) *http.Client {
	conf := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}
	if l != nil {
		conf.Certificates = []tls.Certificate{l.TLS()}
	}
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	n.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// ask makes a request and returns the status and the problem, if it is one.
func (n *net0) ask(c *http.Client, method, path, body string) (int, api.Problem) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, n.url+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatalf("%s %s: %v", method, path, err)
	}
	var p api.Problem
	if resp.StatusCode >= 300 {
		if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
			n.t.Errorf("%s %s: got a failure of type %q: %s", method, path, ct, data)
		}
		if err := json.Unmarshal(data, &p); err != nil {
			n.t.Errorf("%s %s: %v", method, path, err)
		}
		if p.Status != resp.StatusCode || p.Title == "" || p.Remedy == "" || p.Type != "/problems/"+string(p.Code) {
			n.t.Errorf("%s %s: got an incomplete problem %s", method, path, data)
		}
	}
	return resp.StatusCode, p
}

func (n *net0) order(leaves ...*certstest.Leaf) (token.Order, api.SignedOrder) {
	n.t.Helper()
	id, err := uuid.NewV7()
	if err != nil {
		n.t.Fatal(err)
	}
	o := token.Order{
		Accounts: []token.Identity{"spiffe://north/subscriber/alice", "spiffe://south/subscriber/alice"}, Do: token.Copy, Scope: token.Tree,
		Iat: time.Now().Unix(), Exp: time.Now().Add(time.Hour).Unix(), ID: token.TransferID(id.String()), IfExists: token.Fail,
		From: token.Location{Provider: "north", Container: "src"}, To: token.Location{Provider: "south", Container: "dst"},
	}
	return o, n.sign(o, leaves...)
}

func (n *net0) sign(o token.Order, leaves ...*certstest.Leaf) api.SignedOrder {
	n.t.Helper()
	var so api.SignedOrder
	for _, l := range leaves {
		s, err := token.NewSigner(l.Key)
		if err != nil {
			n.t.Fatal(err)
		}
		jws, err := s.Order(o)
		if err != nil {
			n.t.Fatal(err)
		}
		so.JWS, so.Chains = append(so.JWS, jws), append(so.Chains, string(l.Chain.PEM()))
	}
	return so
}

func TestLifeOverTheWire(t *testing.T) {
	t.Parallel()
	n := serve(t)
	atNorth, atSouth := n.north.Issue(token.Subscriber, "alice"), n.south.Issue(token.Subscriber, "alice")
	alice := n.client(atNorth)
	o, so := n.order(atNorth, atSouth)
	x, err := alice.Submit(t.Context(), so)
	if err != nil || x.State != api.Queued {
		t.Fatalf("submitting: got %+v, %v", x, err)
	}
	if again, err := alice.Submit(t.Context(), so); err != nil || again.ID != x.ID {
		t.Errorf("submitting again: got %+v, %v", again, err)
	}
	other := o
	other.To.Name = "elsewhere"
	if _, err := alice.Submit(t.Context(), n.sign(other, atNorth, atSouth)); problem.Of(err) != problem.Conflict {
		t.Errorf("another order of the same id: got %v, want conflict", err)
	}
	agent := n.client(n.north.Issue(token.Agent, "n1"))
	if w, err := agent.Hello(t.Context(), api.Hello{Listen: []string{}, Held: []api.Ref{}, Exports: []api.Export{{Container: "src", Read: true}}}); err != nil || w.Broker != n.b.Self() {
		t.Fatalf("hello: got %+v, %v", w, err)
	}
	stop := io.EOF
	var task api.Task
	err = agent.Tasks(t.Context(), func(l api.Line) error {
		if l.Task == nil {
			return nil
		}
		task = *l.Task
		return stop
	})
	if !errors.Is(err, stop) || task.Kind != api.ListTask || task.Order.JWS[0] != so.JWS[0] {
		t.Fatalf("the task stream: got %v, %+v", err, task)
	}
	answer, err := agent.PostPage(t.Context(), task.ID, api.TaskPage{Entries: []api.Entry{}, Last: true})
	if err == nil && answer.More {
		t.Errorf("got a wish for more after the last page")
	}
	if err != nil && problem.Of(err) != problem.LeaseLost { // the stream has ended: the task may be on its way to nobody
		t.Fatalf("posting a page: %v", err)
	}
	if err == nil {
		got, err := alice.Transfer(t.Context(), o.ID, x.Seq, 30*time.Second)
		for err == nil && !got.State.Ended() {
			got, err = alice.Transfer(t.Context(), o.ID, got.Seq, 30*time.Second)
		}
		if err != nil || got.State != api.Complete {
			t.Errorf("an empty tree: got %+v, %v", got, err)
		}
	}
	if es, err := alice.Events(t.Context(), o.ID, 0, 0); err != nil || len(es.Items) == 0 || es.Items[0].Kind != "ordered" {
		t.Errorf("events: got %+v, %v", es, err)
	}
	if got, err := alice.Order(t.Context(), o.ID); err != nil || got.JWS[1] != so.JWS[1] {
		t.Errorf("order: got %+v, %v", got, err)
	}
	if keys, err := agent.Keys(t.Context()); err != nil {
		t.Errorf("keys: %v", err)
	} else if _, err := token.ParseKeySet(keys, n.b.Self()); err != nil {
		t.Errorf("keys: %v", err)
	}
}

func TestOpenAPIIsCommitted(t *testing.T) {
	t.Parallel()
	n := serve(t)
	want, err := n.srv.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("..", "..", "docs", "openapi.yaml")
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/openapi.yaml is not what the server says; run: go test ./broker/web -run OpenAPI -update")
	}
}
