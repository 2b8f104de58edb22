package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/consign-transfer/consign/agent"
	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/mem"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/hook"
	"github.com/consign-transfer/consign/broker/web"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// An office is a broker behind its real server and a real agent of north and of south, all in this process; puppets, which
// take their tasks like agents and show at a lane what no agent of ours would; and alice with her command line.
type office struct {
	t                       *testing.T
	dir                     string
	hub, north, south, east *certstest.CA
	odd                     *certstest.CA // among the roots of south at the agents, and constrained to other names
	trust                   *certs.Trust  // the broker's and alice's
	b                       *broker.Broker
	url                     string
	alice                   map[token.Provider]*certstest.Leaf
	config                  string // alice's
	n                       atomic.Int64
	receiver                receiver // of alice's webhook
}

// A receiver is what a webhook posts to.
type receiver struct {
	url string
	key ed25519.PublicKey // of the broker
	mu  sync.Mutex        // guards got
	got []api.Event
}

// take takes an event if its signature is the broker's.
func (r *receiver) take(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(io.LimitReader(q.Body, 1<<20))
	sig, ok := strings.CutPrefix(q.Header.Get("Webhook-Signature"), "v1a,")
	raw, bad := base64.StdEncoding.DecodeString(sig)
	signed := q.Header.Get("Webhook-Id") + "." + q.Header.Get("Webhook-Timestamp") + "." + string(body)
	var e struct {
		Type string
		Data api.Event
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || !ok || bad != nil || !ed25519.Verify(r.key, []byte(signed), raw) || json.Unmarshal(body, &e) != nil || e.Type != "consign.transfer."+string(e.Data.Kind) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.got = append(r.got, e.Data)
}

// has reports whether a denial came.
func (r *receiver) has(id token.TransferID, want verdict) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.got, func(e api.Event) bool {
		return e.Xfr == id && e.Kind == api.DeniedEvent && (verdict{e.Code, e.Note, e.Remedy}) == want
	})
}

// receive serves alice's webhook, and returns what calls it.
func (o *office) receive() *hook.Sender {
	srv := httptest.NewTLSServer(http.HandlerFunc(o.receiver.take))
	o.t.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	s := hook.New(hook.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Roots: roots})
	o.t.Cleanup(s.Close)
	o.receiver.url = srv.URL
	return s
}

// subscribe has alice's events posted to her receiver, as she would.
func (o *office) subscribe() {
	o.t.Helper()
	if code, _, errOut := invoke(o.t, nil, "--config", o.config, "webhook", "add", o.receiver.url+"/in", "--at", "north"); code != 0 {
		o.t.Fatalf("adding a webhook: got %d %s", code, errOut)
	}
	code, key, errOut := invoke(o.t, nil, "--config", o.config, "webhook", "key")
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(key), "whpk_"))
	if code != 0 || err != nil {
		o.t.Fatalf("the key of webhooks: got %d %q %s, %v", code, key, errOut, err)
	}
	o.receiver.mu.Lock()
	defer o.receiver.mu.Unlock()
	o.receiver.key = raw
}

// newOffice opens an office, in which the agents deny and have revoked what is given. It closes with the test.
func newOffice(t *testing.T, revoked []*certstest.Leaf, denied string, cas map[token.Provider]*certstest.CA) *office {
	t.Helper()
	o := &office{t: t, dir: t.TempDir(), hub: certstest.New(t, "hub"), north: cas["north"], south: cas["south"], east: cas["east"],
		odd: certstest.New(t, "elsewhere"), alice: map[token.Provider]*certstest.Leaf{}}
	roots := map[token.Provider][]*x509.Certificate{"hub": {o.hub.Root()}, "north": {o.north.Root()}, "south": {o.south.Root()}, "east": {o.east.Root()}}
	o.trust = certs.NewTrust(roots)
	pair := o.hub.Issue(token.Broker, "main").Pair()
	conf := broker.Config{Identity: pair, Trust: o.trust, Providers: []token.Provider{"north", "south", "east"}, State: filepath.Join(o.dir, "broker"), Courier: o.receive()}
	o.must(broker.Init(t.Context(), conf.State))
	var err error
	o.b, err = broker.Open(t.Context(), conf, time.Now())
	o.must(err)
	t.Cleanup(func() { o.must(o.b.Close()) })
	o.run(o.b.Run)
	o.url = o.serve(pair)
	accounts := []map[string]string{}
	for p, ca := range map[token.Provider]*certstest.CA{"north": o.north, "south": o.south, "east": o.east} {
		o.alice[p] = ca.Issue(token.Subscriber, "alice")
		accounts = append(accounts, o.account(o.alice[p]))
	}
	o.config = o.configure(o.url, accounts...)
	o.subscribe()
	strict := o.agentTrust(revoked, denied)
	bob := token.NewIdentity
	from, to := mem.New(time.Now), mem.New(time.Now)
	from.Put("a", []byte("hello"), store.Attrs{ModTime: time.Unix(1700000000, 0)})
	o.agent(o.north.Issue(token.Agent, "one"), strict,
		agent.Export{Container: "src", Store: from, Read: true},
		agent.Export{Container: "private", Store: from, Read: true, Subscribers: []token.Identity{bob("north", token.Subscriber, "bob")}})
	o.agent(o.south.Issue(token.Agent, "one"), strict,
		agent.Export{Container: "dst", Store: to, Create: true},
		agent.Export{Container: "vault", Store: to, Create: true, Subscribers: []token.Identity{bob("south", token.Subscriber, "bob")}})
	return o
}

func (o *office) must(err error) {
	o.t.Helper()
	if err != nil {
		o.t.Fatal(err)
	}
}

// run runs fn until the test ends, and wants it to end well.
func (o *office) run(fn func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	o.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) && problem.Of(err) != problem.Cancelled {
			o.t.Errorf("at the end: %v", err)
		}
	})
}

// serve has the broker listen with a certificate, and returns its address.
func (o *office) serve(pair *certs.Pair) string {
	o.t.Helper()
	srv, err := web.New(web.Config{Broker: o.b, Identity: pair, Trust: o.trust})
	o.must(err)
	l, err := (&net.ListenConfig{}).Listen(o.t.Context(), "tcp", "127.0.0.1:0")
	o.must(err)
	o.run(func(ctx context.Context) error { return srv.Run(ctx, l, nil) })
	return "https://" + l.Addr().String()
}

// account writes a leaf and its key, and returns their files as the configuration has them.
func (o *office) account(l *certstest.Leaf) map[string]string {
	o.t.Helper()
	dir := filepath.Join(o.dir, fmt.Sprintf("account-%d", o.n.Add(1)))
	o.must(os.Mkdir(dir, 0o700))
	cert, key := l.Files(dir)
	return map[string]string{"cert": cert, "key": key}
}

// configure writes a configuration for the command line.
func (o *office) configure(url string, accounts ...map[string]string) string {
	o.t.Helper()
	dir := filepath.Join(o.dir, fmt.Sprintf("config-%d", o.n.Add(1)))
	o.must(os.Mkdir(dir, 0o700))
	data, err := yaml.Marshal(map[string]any{
		"broker": map[string]string{"id": string(o.b.Self()), "url": url}, "trust": map[string]string{"hub": o.hub.BundleFile(dir)}, "accounts": accounts,
	})
	o.must(err)
	file := filepath.Join(dir, "config.yaml")
	o.must(os.WriteFile(file, data, 0o600))
	return file
}

// agentTrust is what the agents trust: less than the broker does.
func (o *office) agentTrust(revoked []*certstest.Leaf, denied string) *certs.Trust {
	o.t.Helper()
	dir := filepath.Join(o.dir, "agent-trust")
	o.must(os.Mkdir(dir, 0o700))
	files := certs.TrustFiles{Bundles: map[token.Provider]string{}, CRLs: map[token.Provider]string{}}
	for p, ca := range map[token.Provider]*certstest.CA{"hub": o.hub, "north": o.north, "south": o.south, "east": o.east} {
		files.Bundles[p] = ca.BundleFile(dir)
	}
	o.must(os.WriteFile(files.Bundles["south"], certs.Chain{o.south.Root(), o.odd.Root()}.PEM(), 0o600))
	list := certstest.CRL{Next: time.Now().Add(24 * time.Hour)}
	for _, l := range revoked {
		list.Revoked = append(list.Revoked, certstest.Revoked{Chain: l.Chain, At: time.Now().Add(-time.Hour)})
	}
	files.CRLs["south"] = o.south.Put(dir, "south.crl", o.south.CRL(list))
	files.CRLs["east"] = o.east.Put(dir, "east.crl", o.east.CRL(certstest.CRL{Made: time.Now().Add(-48 * time.Hour), Next: time.Now().Add(-24 * time.Hour)}))
	files.Denied = filepath.Join(dir, "denied.txt")
	o.must(os.WriteFile(files.Denied, []byte(denied), 0o600))
	t, err := files.Open()
	o.must(err)
	return t
}

// agent runs a real agent.
func (o *office) agent(l *certstest.Leaf, trust *certs.Trust, exports ...agent.Export) {
	o.t.Helper()
	a, err := agent.Open(o.t.Context(), agent.Config{
		Slots: agent.MaxSlots, Lanes: 1, Pair: l.Pair(), Trust: trust, Brokers: []agent.Broker{{ID: o.b.Self(), URL: o.url}}, Exports: exports,
		State: filepath.Join(o.dir, fmt.Sprintf("agent-%d", o.n.Add(1))), Listen: "127.0.0.1:0", Dial: agent.DialPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	})
	o.must(err)
	o.run(a.Run)
	o.await(func() bool {
		page, err := o.client(o.alice["north"]).Providers(o.t.Context())
		o.must(err)
		for _, p := range page.Items {
			for _, x := range p.Agents {
				if string(x.ID) == l.Chain[0].URIs[0].String() && x.Connected {
					return true
				}
			}
		}
		return false
	}, "an agent to connect")
}

func (o *office) await(done func() bool, what string) {
	o.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			o.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// client asks the broker with a certificate, good or not; nil is none.
func (o *office) client(l *certstest.Leaf) *api.Client {
	var pair *certs.Pair
	if l != nil {
		pair = l.Pair()
	}
	c := api.NewClient(o.url, certs.BrokerClient(pair, o.trust, o.b.Self()))
	o.t.Cleanup(c.Close)
	return c
}

// A puppet is an agent in the eyes of the broker.
type puppet struct {
	o         *office
	id        token.Identity
	container token.Container
	client    *api.Client // with a good certificate
	listen    []string
	on        func(api.Task) // what it does with a task; of the goroutine of its stream
}

// puppet makes an agent of a provider, under that name or, if it is empty, one of its own, which exports one container.
func (o *office) puppet(ca *certstest.CA, name string) *puppet {
	if name == "" {
		name = fmt.Sprintf("p%d", o.n.Add(1))
	}
	p := &puppet{o: o, id: token.NewIdentity(ca.Domain(), token.Agent, name), container: token.Container("of-" + name), listen: []string{}}
	p.client = o.client(ca.Issue(token.Agent, name))
	return p
}

// greet says who it is and what it exports.
func (p *puppet) greet() *puppet {
	p.o.t.Helper()
	_, err := p.client.Hello(p.o.t.Context(), api.Hello{Version: "test", Listen: p.listen, Slots: 4, Held: []api.Ref{},
		Exports: []api.Export{{Container: p.container, Read: true, Create: true, PartSize: token.ChunkSize, MaxParts: 10_000}}})
	p.o.must(err)
	return p
}

// start takes tasks.
func (p *puppet) start() *puppet {
	p.o.t.Helper()
	p.greet()
	up := make(chan struct{})
	first := true
	p.o.run(func(ctx context.Context) error {
		err := p.client.Tasks(ctx, func(l api.Line) error {
			if first {
				first = false
				close(up)
			}
			if l.Task != nil {
				p.on(*l.Task)
			}
			return nil
		})
		if ctx.Err() != nil || problem.Of(err) == problem.Unavailable {
			return nil //nolint:nilerr // the test or the broker has ended
		}
		return err
	})
	<-up
	return p
}

// describe answers a task for the one object that it has.
func (p *puppet) describe(k api.Task) {
	_, _ = p.client.PostPage(p.o.t.Context(), k.ID, api.TaskPage{Last: true, Entries: []api.Entry{
		{Name: "a", Type: string(store.Object), Size: 5, Version: "v1", ModTime: time.Unix(1700000000, 0)},
	}}) // what it is answered shows in the transfer
}

// knock dials the source of a receive task as somebody with that certificate, presents the capability, and returns why that failed.
func (p *puppet) knock(k api.Task, conf *tls.Config) error {
	e, err := link.ListenQUIC(link.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(p.o.t.Context(), 20*time.Second)
	defer cancel()
	lane, err := e.Dial(ctx, k.Peer.Listen[0], conf)
	if err != nil {
		return err
	}
	st, err := lane.Open(ctx)
	if err != nil {
		return err
	}
	m, man, err := token.ParseManifest(k.Manifest)
	if err != nil {
		return err
	}
	frame, err := wire.Append(nil, wire.Hello{Batch: wire.Batch{Xfr: m.Xfr, Bat: m.Bat}, Version: wire.Version, Lanes: 1, Man: man, Ord: m.Ord, Capability: k.Present})
	if err == nil {
		_, err = st.Write(frame)
	}
	if err == nil {
		err = st.CloseWrite()
	}
	if err == nil {
		_, err = wire.ReadWelcome(st)
	}
	return err
}

// cp orders a copy as alice and returns the transfer.
func (o *office) cp(t *testing.T, from, to string) token.TransferID {
	t.Helper()
	code, out, errOut := invoke(t, nil, "--config", o.config, "cp", "-o", "json", from, to)
	var x api.Transfer
	if err := json.Unmarshal([]byte(out), &x); code != 0 || err != nil {
		t.Fatalf("cp %s %s: got %d %s %s", from, to, code, out, errOut)
	}
	return x.ID
}

// A verdict is what the subscriber was told: a code, a sentence and a remedy.
type verdict struct {
	code             problem.Code
	sentence, remedy string
}

// denied waits until alice's command line shows a denial of that code, wherever it is shown.
func (o *office) denied(t *testing.T, id token.TransferID, want problem.Code) verdict {
	t.Helper()
	var got verdict
	var last string
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for got.code == "" {
		code, out, errOut := invoke(t, nil, "--config", o.config, "transfer", "show", "-o", "json", string(id))
		var x api.Transfer
		if err := json.Unmarshal([]byte(out), &x); code != 0 || err != nil {
			t.Fatalf("transfer show: got %d %s %s", code, out, errOut)
		}
		for _, d := range x.Denials {
			if d.Code == want {
				got = verdict{d.Code, d.Note, d.Remedy}
			}
		}
		last = out
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("no denial of code %s came; the transfer is %s", want, last)
		}
	}
	_, events, _ := invoke(t, nil, "--config", o.config, "transfer", "events", "-o", "jsonl", string(id))
	_, all, _ := invoke(t, nil, "--config", o.config, "transfer", "events", "-o", "jsonl")
	_, shown, _ := invoke(t, nil, "--config", o.config, "transfer", "show", string(id))
	for name, text := range map[string]string{"its events": events, "all events": all} {
		if !hasEvent(text, id, got) {
			t.Errorf("%s do not have the denial %+v: %s", name, got, text)
		}
	}
	o.await(func() bool { return o.receiver.has(id, got) }, "the webhook to be told of "+got.sentence)
	if !strings.Contains(shown, got.sentence) || !strings.Contains(shown, got.remedy) {
		t.Errorf("for people: got %s, want %q and %q", shown, got.sentence, got.remedy)
	}
	return got
}

// hasEvent reports whether lines of JSON have a denial.
func hasEvent(text string, id token.TransferID, want verdict) bool {
	for line := range strings.Lines(text) {
		var e api.Event
		if err := json.Unmarshal([]byte(line), &e); err == nil && e.Xfr == id && e.Kind == api.DeniedEvent && (verdict{e.Code, e.Note, e.Remedy}) == want {
			return true
		}
	}
	return false
}

// said is what a command of somebody's told him when it failed.
func said(t *testing.T, config string, args ...string) verdict {
	t.Helper()
	code, out, errOut := invoke(t, nil, append([]string{"--config", config, "-o", "json"}, args...)...)
	lines := bytes.Split(bytes.TrimSpace([]byte(errOut)), []byte("\n"))
	var p api.Problem
	if err := json.Unmarshal(lines[len(lines)-1], &p); code == 0 || err != nil {
		t.Fatalf("%v: got %d %s %s", args, code, out, errOut)
	}
	if code != problem.Lookup(p.Code).Exit {
		t.Errorf("%v: got the exit status %d for %s", args, code, p.Code)
	}
	return verdict{p.Code, p.Detail, p.Remedy}
}

// answered is what a failed call told its caller.
func answered(t *testing.T, err error) verdict {
	t.Helper()
	var p *problem.Error
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want a problem", err)
	}
	return verdict{p.Code, p.Sentence(), p.Advice()}
}

// inside is what no sentence for a subscriber holds: paths, addresses, words of libraries, the names of strangers.
var inside = regexp.MustCompile(`(?i)/tmp|/work|127\.0\.0|localhost|\.go\b|goroutine|panic|x509|tls:|crypto_error|remote error|0x[0-9a-f]|dial |udp|tcp|EOF|sql|mallory|evil|elsewhere|\n|%!`)

// named is a certificate's name and a date, as sentences about its life have them.
var named = regexp.MustCompile(`spiffe://[a-z]+/(agent|subscriber|broker)/[a-z0-9]+ \(serial [0-9a-f]+…\).* [0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z`)

// check wants the code, one sentence with the certificate's name and date where that is the cause, a remedy, and nothing else.
func (v verdict) check(t *testing.T, want problem.Code, says string) {
	t.Helper()
	if v.code != want {
		t.Errorf("got the code %s, want %s: %q", v.code, want, v.sentence)
	}
	if v.sentence == "" || v.remedy == "" || len(v.sentence) > 700 {
		t.Errorf("got the sentence %q and the remedy %q", v.sentence, v.remedy)
	}
	if got := inside.FindString(v.sentence + " " + v.remedy); got != "" {
		t.Errorf("%q leaks in %q %q", got, v.sentence, v.remedy)
	}
	switch want {
	case problem.CertExpired, problem.CertNotYet, problem.CertRevoked:
		if !named.MatchString(v.sentence) {
			t.Errorf("got %q, want the certificate's name and the date", v.sentence)
		}
	}
	if !strings.Contains(v.sentence, says) {
		t.Errorf("got %q, want it to say %q", v.sentence, says)
	}
}
