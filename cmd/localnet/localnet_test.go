package localnet_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
)

// TestAccountsAreOfTheirOwnAuthority checks that a person's certificate of one provider is not taken at another.
func TestAccountsAreOfTheirOwnAuthority(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	files, err := n.Account("alice", "north", "south")
	if err != nil {
		t.Fatal(err)
	}
	trust, err := certs.OpenTrust(n.Trust())
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []token.Provider{"north", "south"} {
		pair, err := certs.OpenPair(files[i]["cert"], files[i]["key"])
		if err != nil {
			t.Fatal(err)
		}
		_, chain, id := pair.Current()
		if id != token.NewIdentity(want, token.Subscriber, "alice") {
			t.Errorf("identity: got %s, want alice at %s", id, want)
		}
		if _, err := trust.Verify(chain, chain.Leaf().NotBefore); err != nil {
			t.Errorf("verifying %s: %v", id, err)
		}
	}
}

// TestAgentConfigurationNamesOnlyLoopback checks that nothing of a Net listens or dials elsewhere.
func TestAgentConfigurationNamesOnlyLoopback(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, err := n.AddAgent("north", "one", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(a.Listen, "127.0.0.1:") {
		t.Errorf("listen: got %s, want a loopback address", a.Listen)
	}
	conf, err := os.ReadFile(filepath.Join(n.Dir, "agents", "north-one", "agent.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(conf); !strings.Contains(got, "127.0.0.0/8") || strings.Contains(got, "0.0.0.0/0") {
		t.Errorf("dial policy: got\n%s", got)
	}
}

// TestStartTellsWhyADaemonEnded checks that the end of the log comes with the error.
func TestStartTellsWhyADaemonEnded(t *testing.T) {
	t.Parallel()
	n := newNet(t)
	a, err := n.AddAgent("north", "one", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "ended at its start") {
		t.Errorf("starting a program that ends: got %v, want an error that says so", err)
	}
	if a.Running() {
		t.Error("the daemon is said to run")
	}
}

// newNet makes a network of two providers whose program is one that ends at once.
func newNet(t *testing.T) *localnet.Net {
	t.Helper()
	ends, err := exec.LookPath("false")
	if err != nil {
		t.Fatal(err)
	}
	n, err := localnet.New(t.TempDir(), ends)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, p := range []token.Provider{"north", "south"} {
		if err := n.AddProvider(p); err != nil {
			t.Fatal(err)
		}
	}
	return n
}
