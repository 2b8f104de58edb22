package realstores_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
)

// TestStepCA checks that the authority certifies whom its own domain has, nobody else, and that Stop leaves no process.
func TestStepCA(t *testing.T) {
	t.Parallel()
	ca, err := realstores.StepCA(t.Context(), t.TempDir(), realstores.Domain{Provider: "south", Template: "{}", Life: time.Hour, Backdate: time.Minute})
	running(t, ca, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := certs.OpenTrust(map[token.Provider]string{"south": ca.Bundle})
	if err != nil {
		t.Fatal(err)
	}
	const alice = token.Identity("spiffe://south/subscriber/alice")
	text, err := ca.Certify(t.Context(), alice, key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := certs.ParseChain(text)
	if err != nil || len(chain) != 2 {
		t.Fatalf("the chain: got %d certificates, %v, want leaf and intermediate", len(chain), err)
	}
	if id, err := trust.Verify(chain, time.Now()); err != nil || id != alice {
		t.Errorf("verifying: got %s, %v, want %s", id, err, alice)
	}
	// The root has a name constraint: the second fence, which holds also if a template or a token errs.
	var refused *realstores.Refusal
	if _, err := ca.Certify(t.Context(), "spiffe://north/subscriber/alice", key); !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
		t.Errorf("certifying somebody of another domain: got %v, want status 403", err)
	}
	pid := ca.PID()
	if err := ca.Stop(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after Stop: got %v, want none", pid, err)
	}
}
