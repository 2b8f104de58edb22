package main

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestACertificateThatEnds: the log says it once near the end and once at the end, and nothing of one that is renewed in time.
func TestACertificateThatEnds(t *testing.T) {
	t.Parallel()
	begin := time.Now().Add(-time.Hour)
	pair := certstest.New(t, "north").Issue(token.Agent, "one", certstest.Valid(begin, begin.Add(4*time.Hour))).Pair()
	core, logs := observer.New(zap.InfoLevel)
	now := begin.Add(time.Hour)
	e := &nearEnd{pair: pair, now: func() time.Time { return now }, log: zap.New(core)}
	for _, tt := range []struct {
		at   time.Duration
		want int
		says string
	}{{2 * time.Hour, 0, ""}, {3*time.Hour + time.Minute, 1, "ends soon"}, {3*time.Hour + 2*time.Minute, 1, "ends soon"}, {4 * time.Hour, 2, "has ended"}, {5 * time.Hour, 2, "has ended"}} {
		now = begin.Add(tt.at)
		if _, err := e.Reload(); err != nil {
			t.Errorf("after %s: %v", tt.at, err)
		}
		got := logs.All()
		if len(got) != tt.want || tt.want > 0 && (got[tt.want-1].Level != zap.ErrorLevel || !strings.Contains(got[tt.want-1].Message, tt.says)) {
			t.Errorf("after %s: got %v, want %d lines and the last with %q", tt.at, got, tt.want, tt.says)
		}
	}
}

// TestADenialIsLogged: the log says that a new deny list is in use, once.
func TestADenialIsLogged(t *testing.T) {
	t.Parallel()
	dir, ca := t.TempDir(), certstest.New(t, "north")
	trust, err := certs.TrustFiles{Bundles: map[token.Provider]string{"north": ca.BundleFile(dir)}, Denied: ca.Put(dir, "denied", nil)}.Open()
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.InfoLevel)
	r := replaced{trust, "it was replaced", zap.New(core)}
	ca.Put(dir, "denied", []byte("identity spiffe://north/agent/one\n"))
	for range 2 {
		if _, err := r.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	if logs.FilterMessage("it was replaced").Len() != 1 || logs.Len() != 1 {
		t.Errorf("got %v, want to be told once", logs.All())
	}
}

// TestAnAgentThatBelievesTooLittle: without its own provider's authorities, or its broker's, an agent would start and refuse everything.
func TestAnAgentThatBelievesTooLittle(t *testing.T) {
	t.Parallel()
	cfg := agentConfig{Brokers: []brokerAddress{{ID: "spiffe://hub/broker/main"}}}
	for _, tt := range []struct {
		says  string
		trust map[token.Provider]filePath
	}{
		{`no bundle of "north"`, map[token.Provider]filePath{"hub": "hub.pem", "south": "south.pem"}},
		{`no bundle of "hub"`, map[token.Provider]filePath{"north": "north.pem"}},
		{"", map[token.Provider]filePath{"north": "north.pem", "hub": "hub.pem"}},
	} {
		cfg.Trust = tt.trust
		err := cfg.believesEnough("north")
		if tt.says == "" && err != nil || tt.says != "" && (problem.Of(err) != problem.BadConfig || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%v: got %v, want %q", tt.trust, err, tt.says)
		}
	}
}
