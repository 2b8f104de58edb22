package federation_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/certs/federation"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	north = token.Provider("north")
	south = token.Provider("south")
	// serverID is no identity of ours, as those of SPIRE are not.
	serverID = "spiffe://south/spire/server"
)

// A peer is a provider south whose bundle north follows, from an endpoint that answers what it is told to.
type peer struct {
	t            *testing.T
	north, south *certstest.CA
	file         string // of south's bundle at north
	trust        *certs.Trust
	answer       atomic.Pointer[http.HandlerFunc]
	srv          *httptest.Server
	changes      int
	poller       federation.Poller
}

// newPeer serves with leaf, or with a web certificate if that is nil.
func newPeer(t *testing.T, leaf func(*peer) *certstest.Leaf) *peer {
	t.Helper()
	dir := t.TempDir()
	p := &peer{t: t, north: certstest.NewUnconstrained(t, north), south: certstest.NewUnconstrained(t, south)}
	p.file = p.south.BundleFile(dir)
	var err error
	if p.trust, err = certs.OpenTrust(map[token.Provider]string{north: p.north.BundleFile(dir), south: p.file}); err != nil {
		t.Fatal(err)
	}
	p.srv = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*p.answer.Load())(w, r) }))
	p.srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	if leaf != nil {
		p.srv.TLS = &tls.Config{Certificates: []tls.Certificate{leaf(p).TLS()}}
	}
	p.srv.StartTLS()
	t.Cleanup(p.srv.Close)
	p.poller = federation.Poller{Trust: p.trust, OnChange: func(token.Provider) { p.changes++ }, OnError: func(token.Provider, error) {}}
	return p
}

func (p *peer) says(data []byte) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := w.Write(data); err != nil {
			p.t.Logf("the answer was not taken: %v", err)
		}
	})
	p.answer.Store(&h)
}

func (p *peer) web() federation.Endpoint {
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.srv.Certificate().Raw})
	return federation.Endpoint{Domain: south, URL: p.srv.URL, Profile: federation.Web, Roots: roots}
}

func (p *peer) spiffe() federation.Endpoint {
	return federation.Endpoint{Domain: south, URL: p.srv.URL, Profile: federation.SPIFFE, ID: serverID}
}

// trusts reports whether a new leaf of the authority is good.
func (p *peer) trusts(ca *certstest.CA) bool {
	_, err := p.trust.Verify(ca.Issue(token.Agent, "x").Chain, time.Now())
	return err == nil
}

// TestRotationOfAPeersAuthority follows a new authority from its announcement to the end of the old one, and keeps what was learnt over
// a restart while the endpoint is down.
func TestRotationOfAPeersAuthority(t *testing.T) {
	t.Parallel()
	p := newPeer(t, nil)
	next := certstest.New(t, south)
	steps := []struct {
		name     string
		says     []byte
		wait     time.Duration
		old, new bool
		changes  int
	}{
		{"as it is", certstest.SPIFFE(t, certs.Bundle{Sequence: 1, Refresh: 2 * time.Minute}, p.south), 2 * time.Minute, true, false, 0},
		{"the same again", certstest.SPIFFE(t, certs.Bundle{Sequence: 1, Refresh: 2 * time.Minute}, p.south), 2 * time.Minute, true, false, 0},
		{"announced", certstest.SPIFFE(t, certs.Bundle{Sequence: 2}, p.south, next), federation.DefaultRefresh, true, true, 1},
		{"over", certstest.SPIFFE(t, certs.Bundle{Sequence: 3, Refresh: time.Second}, next), federation.MinRefresh, false, true, 2},
		{"with a hint of years", certstest.SPIFFE(t, certs.Bundle{Sequence: 3, Refresh: 24 * time.Hour}, next), federation.MaxRefresh, false, true, 2},
	}
	for _, s := range steps {
		p.says(s.says)
		wait, err := p.poller.Poll(t.Context(), p.web())
		if err != nil || wait != s.wait {
			t.Errorf("%s: got %s, %v, want %s", s.name, wait, err, s.wait)
		}
		if p.trusts(p.south) != s.old || p.trusts(next) != s.new || p.changes != s.changes || !p.trusts(p.north) {
			t.Errorf("%s: got trust in the old one %v, in the new one %v, after %d changes", s.name, p.trusts(p.south), p.trusts(next), p.changes)
		}
	}
	p.says(certstest.SPIFFE(t, certs.Bundle{Sequence: 2}, p.south, next))
	if _, err := p.poller.Poll(t.Context(), p.web()); problem.Of(err) != problem.BadConfig || p.trusts(p.south) {
		t.Errorf("an older bundle: got %v, want %s", err, problem.BadConfig)
	}
	p.srv.Close()
	if _, err := p.poller.Poll(t.Context(), p.web()); problem.Of(err) != problem.Unavailable || !problem.MayRetry(err) {
		t.Errorf("an endpoint that is down: got %v, want %s", err, problem.Unavailable)
	}
	again, err := certs.OpenTrust(map[token.Provider]string{south: p.file})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Verify(next.Issue(token.Agent, "x").Chain, time.Now()); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// TestAnswersThatAreNoBundle: nothing that an endpoint answers changes what is trusted, or the file, unless it is a good bundle of its
// own domain.
func TestAnswersThatAreNoBundle(t *testing.T) {
	t.Parallel()
	p := newPeer(t, nil)
	other := certstest.New(t, south)
	p.says(certstest.SPIFFE(t, certs.Bundle{Sequence: 9}, p.south))
	if _, err := p.poller.Poll(t.Context(), p.web()); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(p.file)
	if err != nil {
		t.Fatal(err)
	}
	good := string(certstest.SPIFFE(t, certs.Bundle{Sequence: 10}, other))
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(code)
			_, _ = io.WriteString(w, good) // whether it is read is what is tested
		}
	}
	leaf := other.Issue(token.Agent, "x").Chain
	for name, tt := range map[string]struct {
		says string
		how  http.HandlerFunc
		want problem.Code
	}{
		"north's authority among them":  {says: string(certstest.SPIFFE(t, certs.Bundle{Sequence: 10}, other, p.north)), want: problem.BadConfig},
		"an older one":                  {says: string(certstest.SPIFFE(t, certs.Bundle{Sequence: 8}, other)), want: problem.BadConfig},
		"nobody":                        {says: string(certstest.SPIFFE(t, certs.Bundle{Sequence: 10})), want: problem.BadConfig},
		"a leaf":                        {says: strings.Replace(good, base64Of(other.Root().Raw), base64Of(leaf[0].Raw), 1), want: problem.BadConfig},
		"a private key":                 {says: strings.Replace(good, `"kty"`, `"d":"AA","kty"`, 1), want: problem.BadConfig},
		"a member twice":                {says: strings.Replace(good, `{"keys"`, `{"keys":[],"keys"`, 1), want: problem.BadConfig},
		"two certificates in one key":   {says: strings.Replace(good, `"x5c":[`, `"x5c":["AAAA",`, 1), want: problem.BadConfig},
		"a sequence that is no number":  {says: strings.Replace(good, `"spiffe_sequence":10`, `"spiffe_sequence":"10"`, 1), want: problem.BadConfig},
		"a sequence below zero":         {says: strings.Replace(good, `"spiffe_sequence":10`, `"spiffe_sequence":-10`, 1), want: problem.BadConfig},
		"something behind it":           {says: good + "{}", want: problem.BadConfig},
		"one without a number":          {says: strings.Replace(good, `"spiffe_sequence":10`, `"spiffe_seq":10`, 1), want: problem.BadConfig},
		"one in PEM":                    {says: string(certs.Chain{other.Root()}.PEM()), want: problem.BadConfig},
		"a page":                        {says: "<html>", want: problem.BadConfig},
		"nothing":                       {says: "", want: problem.BadConfig},
		"more than the limit":           {says: good + strings.Repeat(" ", certs.MaxFileSize), want: problem.BadConfig},
		"a redirection":                 {how: status(http.StatusFound), want: problem.Unavailable},
		"a failure with a bundle in it": {how: status(http.StatusInternalServerError), want: problem.Unavailable},
		"an answer cut off": {how: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, good[:100]) // the rest never comes
		}, want: problem.Unavailable},
	} {
		p.says([]byte(tt.says))
		if tt.how != nil {
			p.answer.Store(&tt.how)
		}
		_, err := p.poller.Poll(t.Context(), p.web())
		if problem.Of(err) != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
		if now, err := os.ReadFile(p.file); err != nil || !bytes.Equal(now, before) {
			t.Errorf("%s: the file of the bundle was changed (%v)", name, err)
		}
		if p.trusts(other) || !p.trusts(p.south) || !p.trusts(p.north) {
			t.Errorf("%s: something else is trusted", name)
		}
	}
	p.says([]byte(good))
	stranger := p.web()
	stranger.Roots = certs.Chain{other.Root()}.PEM()
	if _, err := p.poller.Poll(t.Context(), stranger); problem.Of(err) != problem.Unavailable || p.trusts(other) {
		t.Errorf("an endpoint of unknown web roots: got %v, want %s", err, problem.Unavailable)
	}
}

func base64Of(der []byte) string {
	text := string(pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: der}))
	return strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(text, "-----BEGIN X-----\n"), "-----END X-----\n"), "\n", "")
}

// TestEndpointOfATrustDomain: an endpoint of the profile https_spiffe is believed if it is exactly the one that was configured.
func TestEndpointOfATrustDomain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		leaf func(*peer) *certstest.Leaf
		want problem.Code
	}{
		"the endpoint": {func(p *peer) *certstest.Leaf { return p.south.Issue(token.Agent, "x", certstest.As(serverID)) }, ""},
		"another server of the domain": {func(p *peer) *certstest.Leaf {
			return p.south.Issue(token.Agent, "x", certstest.As(serverID+"s"))
		}, problem.CertMismatch},
		"an agent of the domain":          {func(p *peer) *certstest.Leaf { return p.south.Issue(token.Agent, "x") }, problem.CertMismatch},
		"the name by another's authority": {func(p *peer) *certstest.Leaf { return p.north.Issue(token.Agent, "x", certstest.As(serverID)) }, problem.CertUnknown},
		"the name by an unknown authority": {func(p *peer) *certstest.Leaf {
			return certstest.New(p.t, south).Issue(token.Agent, "x", certstest.As(serverID))
		}, problem.CertUnknown},
		"the endpoint, expired": {func(p *peer) *certstest.Leaf {
			return p.south.Issue(token.Agent, "x", certstest.As(serverID), certstest.Expired())
		}, problem.CertUnknown},
		"the authority itself": {func(p *peer) *certstest.Leaf {
			return p.south.Issue(token.Agent, "x", certstest.As(serverID), certstest.AsCA())
		}, problem.CertMisused},
		"two names, one of them the right": {func(p *peer) *certstest.Leaf {
			return p.south.Issue(token.Agent, "x", certstest.As(serverID), certstest.AlsoURI("spiffe://south/agent/x"))
		}, problem.CertMisused},
		"the name in other letters": {func(p *peer) *certstest.Leaf {
			return p.south.Issue(token.Agent, "x", certstest.RawURI("SPIFFE://south/spire/server"))
		}, problem.CertMismatch},
		"a client's certificate of the name": {func(p *peer) *certstest.Leaf { return p.south.Issue(token.Subscriber, "x", certstest.As(serverID)) }, problem.CertUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t, tt.leaf)
			next := certstest.New(t, south)
			p.says(certstest.SPIFFE(t, certs.Bundle{Sequence: 2}, p.south, next))
			_, err := p.poller.Poll(t.Context(), p.spiffe())
			if problem.Of(err) != tt.want || p.trusts(next) != (tt.want == "") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestFirstBundle(t *testing.T) {
	t.Parallel()
	p := newPeer(t, nil)
	p.says(certstest.SPIFFE(t, certs.Bundle{Sequence: 1}, p.south))
	file := filepath.Join(t.TempDir(), "south.json")
	if !federation.Missing(file) {
		t.Fatal("a file that was never made is there")
	}
	if err := federation.Fetch(t.Context(), p.web(), file); err != nil || federation.Missing(file) {
		t.Fatalf("got %v, want a first bundle", err)
	}
	if _, err := certs.OpenTrust(map[token.Provider]string{south: file}); err != nil {
		t.Errorf("opening it: %v", err)
	}
	none := filepath.Join(t.TempDir(), "none.json")
	if err := federation.Fetch(t.Context(), p.spiffe(), none); problem.Of(err) != problem.BadConfig || !federation.Missing(none) {
		t.Errorf("of an endpoint that nobody can judge: got %v, want %s", err, problem.BadConfig)
	}
	p.says([]byte("{}"))
	if err := federation.Fetch(t.Context(), p.web(), none); problem.Of(err) != problem.BadConfig || !federation.Missing(none) {
		t.Errorf("of no bundle: got %v, want %s", err, problem.BadConfig)
	}
}

func TestEndpointsThatAreNotGood(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]federation.Endpoint{
		"plain HTTP":          {Domain: south, URL: "http://a/b", Profile: federation.Web},
		"no host":             {Domain: south, URL: "https:///b", Profile: federation.Web},
		"a password":          {Domain: south, URL: "https://a:b@c/d", Profile: federation.Web},
		"no profile":          {Domain: south, URL: "https://a/b"},
		"an unknown profile":  {Domain: south, URL: "https://a/b", Profile: "http"},
		"a web endpoint's id": {Domain: south, URL: "https://a/b", Profile: federation.Web, ID: serverID},
		"no id":               {Domain: south, URL: "https://a/b", Profile: federation.SPIFFE},
		"an id without path":  {Domain: south, URL: "https://a/b", Profile: federation.SPIFFE, ID: "spiffe://south"},
		"an id with a query":  {Domain: south, URL: "https://a/b", Profile: federation.SPIFFE, ID: serverID + "?x"},
		"an id of nobody":     {Domain: south, URL: "https://a/b", Profile: federation.SPIFFE, ID: "https://south/spire/server"},
		"web roots and an id": {Domain: south, URL: "https://a/b", Profile: federation.SPIFFE, ID: serverID, Roots: []byte("x")},
		"no domain":           {Domain: "South!", URL: "https://a/b", Profile: federation.Web},
	} {
		if err := e.Check(); problem.Of(err) != problem.BadConfig {
			t.Errorf("%s: got %v, want %s", name, err, problem.BadConfig)
		}
	}
}

// TestRunEnds asks at once, tells a lasting failure once, and leaves nothing running.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	p := newPeer(t, nil)
	next := certstest.New(t, south)
	p.says(certstest.SPIFFE(t, certs.Bundle{Sequence: 2}, p.south, next))
	changed, failed := make(chan token.Provider, 1), make(chan error, 1)
	dead := p.web()
	dead.URL, dead.Domain = "https://127.0.0.1:1/", north
	run := federation.Poller{
		Trust: p.trust, Endpoints: []federation.Endpoint{p.web(), dead},
		OnChange: func(d token.Provider) { changed <- d }, OnError: func(_ token.Provider, err error) { failed <- err },
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); run.Run(ctx) }()
	if d := <-changed; d != south || !p.trusts(next) {
		t.Errorf("got a change of %q", d)
	}
	if err := <-failed; problem.Of(err) != problem.Unavailable {
		t.Errorf("got the failure %v, want %s", err, problem.Unavailable)
	}
	cancel()
	<-ended
}
