package main

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/certs/federation"
	"github.com/consign-transfer/consign/certs/issue"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestFederationSettings turns settings into endpoints, and refuses those that could not work.
func TestFederationSettings(t *testing.T) {
	t.Parallel()
	trust := trustConfig{Trust: map[token.Provider]filePath{"south": "s.json", "east": "e.json"}}
	got, err := endpoints(map[token.Provider]federationConfig{
		"south": {URL: "https://a/b"}, "east": {URL: "https://c/d", Profile: "https_spiffe", ID: "spiffe://east/ca"},
	}, trust)
	if err != nil || len(got) != 2 || got[0].Domain != "east" || got[0].Profile != federation.SPIFFE || got[1].Profile != federation.Web {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, conf := range map[string]map[token.Provider]federationConfig{
		"no bundle file": {"west": {URL: "https://a/b"}},
		"no web roots":   {"south": {URL: "https://a/b", CA: filePath(filepath.Join(t.TempDir(), "none"))}},
		"no id":          {"south": {URL: "https://a/b", Profile: "https_spiffe"}},
		"plain http":     {"south": {URL: "http://a/b"}},
	} {
		if _, err := endpoints(conf, trust); problem.Of(err) != problem.BadConfig {
			t.Errorf("%s: got %v, want %s", name, err, problem.BadConfig)
		}
	}
}

// TestDaemonFollowsABundle: a daemon takes a new authority of its peer into use without a restart, from the peer's 'consign ca serve'.
func TestDaemonFollowsABundle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	north := certstest.New(t, "north")
	cert, key := north.Issue(token.Agent, "one").Files(dir)
	ca, err := issue.Create(filepath.Join(dir, "ca"), "south", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := listenTCP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := issue.NewServer(ca, func(issue.Alarm) {}, func(err error) { t.Errorf("serving: %v", err) })
	served := make(chan error, 1)
	go func() { served <- srv.ServeTLS(ln, "", "") }()
	defer func() {
		srv.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving: %v", err)
		}
	}()
	// What north has of south is its bundle and an authority that is not south's any more.
	retired := certstest.New(t, "south")
	bundle := retired.Put(dir, "south.json", append(ca.Bundle(), certs.Chain{retired.Root()}.PEM()...))
	id, err := newApp().openIdentity(t.Context(), identityConfig{Cert: filePath(cert), Key: filePath(key)}, believing{
		trustConfig: trustConfig{Trust: map[token.Provider]filePath{"north": filePath(north.BundleFile(dir)), "south": filePath(bundle)}},
		federation: map[token.Provider]federationConfig{
			"south": {URL: "https://" + ln.Addr().String() + issue.BundlePath, Profile: "https_spiffe", ID: certs.IssuerName("south")},
		},
	}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	old := retired.Issue(token.Agent, "x").Chain
	changed := id.trust.Changed()
	if _, err := id.trust.Verify(old, time.Now()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- id.Run(ctx) }()
	<-changed
	if _, err := id.trust.Verify(old, time.Now()); problem.Of(err) != problem.CertUnknown {
		t.Errorf("an authority that the peer has retired: got %v, want %s", err, problem.CertUnknown)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ending: %v", err)
	}
}
