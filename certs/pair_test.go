package certs_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestRotation changes the files below a running server and client: the next connection uses
// the new pair, and whatever is wrong with new files, the old pair stays.
func TestRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := certstest.New(t, alpha)
	trust := certstest.Trust(a)
	first := a.Issue(token.Agent, "x")
	certFile, keyFile := first.Files(dir)
	pair, err := certs.OpenPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	server, client := certs.PeerServer(pair, trust, alpn), certs.PeerClient(pair, trust, alpn, "")
	inUse := func(want *certstest.Leaf) {
		t.Helper()
		m := meet(t, server, client)
		if m.clientErr != nil || m.serverErr != nil {
			t.Fatalf("meeting: %v, %v", m.clientErr, m.serverErr)
		}
		for _, got := range []certs.Chain{m.client.PeerCertificates, m.server.PeerCertificates} {
			if got.LeafHash() != want.Chain.LeafHash() {
				t.Errorf("got another certificate on the connection than the one that should be in use")
			}
		}
		if pair.LeafHash() != want.Chain.LeafHash() || !pair.NotAfter().Equal(want.Chain[0].NotAfter) {
			t.Errorf("the pair does not say what it uses")
		}
	}
	reload := func(name string, want bool, code problem.Code) {
		t.Helper()
		changed, err := pair.Reload()
		if got := problem.Of(err); got != code || changed != want {
			t.Errorf("%s: got %v, %q (%v), want %v, %q", name, changed, got, err, want, code)
		}
	}
	inUse(first)
	reload("nothing new", false, "")

	second := a.Issue(token.Agent, "x")
	second.Files(dir)
	reload("a new pair", true, "")
	inUse(second)
	reload("nothing new since", false, "")

	otherDir := t.TempDir()
	otherCert, otherKey := a.Issue(token.Agent, "x").Files(otherDir)
	for name, bad := range map[string]struct {
		file, from string
		want       problem.Code
	}{
		"key of another":         {keyFile, otherKey, problem.BadConfig},
		"certificate of another": {certFile, otherCert, problem.BadConfig},
		"certificate is a key":   {certFile, otherKey, problem.Malformed},
	} {
		second.Files(dir)
		copyFile(t, bad.from, bad.file)
		reload(name, false, bad.want)
		inUse(second)
	}
	for name, tt := range map[string]struct {
		leaf *certstest.Leaf
		want problem.Code
	}{
		"expired":         {a.Issue(token.Agent, "x", certstest.Expired()), problem.CertExpired},
		"somebody else":   {a.Issue(token.Agent, "y"), problem.CertMismatch},
		"an authority":    {a.Issue(token.Agent, "x", certstest.AsCA()), problem.CertMisused},
		"without a name":  {a.Issue(token.Agent, "x", certstest.NoURI()), problem.CertMisused},
		"a refused curve": {a.Issue(token.Agent, "x", certstest.WithKey(certstest.P521)), problem.CertMisused},
	} {
		tt.leaf.Files(dir)
		reload(name, false, tt.want)
		reload(name+", asked again", false, tt.want)
		inUse(second)
	}
	if err := os.Truncate(certFile, 100); err != nil {
		t.Fatal(err)
	}
	reload("torn", false, problem.Malformed)
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	reload("gone", false, problem.BadConfig)
	inUse(second)

	third := a.Issue(token.Agent, "x", certstest.WithKey(certstest.RSA2048))
	third.Files(dir)
	reload("mended", true, "")
	inUse(third)
}

// TestHeldKey: the certificate of a key that is in no file is read again as ever, and never one of another key.
func TestHeldKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := certstest.New(t, alpha)
	first := a.Issue(token.Agent, "x")
	certFile, _ := first.Files(dir)
	if _, err := certs.OpenHeldPair(certFile, a.Issue(token.Agent, "x").Key); problem.Of(err) != problem.SignerFailed {
		t.Errorf("the key of another certificate: got %v, want signer-failed", err)
	}
	pair, err := certs.OpenHeldPair(certFile, first.Key)
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := pair.Reload(); changed || err != nil {
		t.Errorf("nothing new: got %v, %v", changed, err)
	}
	renewed := a.Issue(token.Agent, "x", certstest.ForKey(first.Key))
	renewed.Files(dir)
	if changed, err := pair.Reload(); !changed || err != nil || pair.LeafHash() != renewed.Chain.LeafHash() {
		t.Errorf("renewed: got %v, %v", changed, err)
	}
	a.Issue(token.Agent, "x").Files(dir)
	if changed, err := pair.Reload(); changed || problem.Of(err) != problem.SignerFailed {
		t.Errorf("a certificate of another key: got %v, %v, want signer-failed", changed, err)
	}
	if m := meet(t, certs.PeerServer(pair, certstest.Trust(a), alpn), certs.PeerClient(pair, certstest.Trust(a), alpn, "")); m.clientErr != nil || m.serverErr != nil {
		t.Errorf("meeting: %v, %v", m.clientErr, m.serverErr)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpenPairRefuses(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	one, other := t.TempDir(), t.TempDir()
	cert, key := a.Issue(token.Agent, "x").Files(one)
	_, otherKey := a.Issue(token.Agent, "x").Files(other)
	for name, tt := range map[string]struct {
		cert, key string
		want      problem.Code
	}{
		"no certificate":    {filepath.Join(one, "none"), key, problem.BadConfig},
		"no key":            {cert, filepath.Join(one, "none"), problem.BadConfig},
		"key of another":    {cert, otherKey, problem.BadConfig},
		"certificate twice": {cert, cert, problem.BadConfig},
		"key twice":         {key, key, problem.Malformed},
		"a folder":          {one, key, problem.BadConfig},
	} {
		p, err := certs.OpenPair(tt.cert, tt.key)
		if got := problem.Of(err); got != tt.want || p != nil {
			t.Errorf("%s: got %v, %q (%v), want nothing, %q", name, p, got, err, tt.want)
		}
		if s := problem.As(err).Sentence(); strings.Contains(s, one) {
			t.Errorf("%s: the sentence holds a path: %q", name, s)
		}
	}
	if _, err := certs.NewPair(a.Issue(token.Agent, "x").Chain, a.Issue(token.Agent, "x").Key); problem.Of(err) != problem.BadConfig {
		t.Errorf("key of another, in memory: got %v, want a refusal", err)
	}
	if _, err := certs.NewPair(nil, nil); problem.Of(err) != problem.BadConfig {
		t.Errorf("nothing: got %v, want a refusal", err)
	}
}

func TestPairSigns(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	leaf := a.Issue(token.Agent, "x")
	pair := leaf.Pair()
	sum := sha256.Sum256([]byte("statement"))
	if _, err := pair.Signer().Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	cert, chain, id := pair.Current()
	if cert.PrivateKey.(crypto.Signer) != pair.Signer() || chain.LeafHash() != pair.LeafHash() || id != pair.Identity() {
		t.Error("Current differs from the rest")
	}
	if c, k := pair.Files(); c != "" || k != "" {
		t.Errorf("got files %q, %q, want none", c, k)
	}
	if changed, err := pair.Reload(); changed || err != nil {
		t.Errorf("got %v, %v, want nothing to reload", changed, err)
	}
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	now := time.Now()
	dir := t.TempDir()
	old, err := certs.OpenPair(a.Issue(token.Subscriber, "alice", certstest.Expired()).Files(dir))
	if err != nil {
		t.Fatalf("an expired certificate must be opened to be explained: %v", err)
	}
	for name, tt := range map[string]struct {
		pair *certs.Pair
		code problem.Code
		want []string
	}{
		"good":    {a.Issue(token.Subscriber, "alice").Pair(), "", nil},
		"expired": {old, problem.CertExpired, []string{"Your certificate for spiffe://a.example/subscriber/alice (serial ", " expired on ", ", 3 days ago."}},
		"not yet": {a.Issue(token.Subscriber, "alice", certstest.NotYet()).Pair(), problem.CertNotYet, []string{" is not valid before ", ", which is in 2 hours."}},
	} {
		err := tt.pair.Preflight(now)
		if got := problem.Of(err); got != tt.code {
			t.Errorf("%s: got %q, want %q", name, got, tt.code)
		}
		for _, part := range tt.want {
			if s := problem.As(err).Sentence(); !strings.Contains(s, part) {
				t.Errorf("%s: got %q, want %q in it", name, s, part)
			}
		}
	}
}

// A scripted reloader fails as its script says.
type scripted struct {
	script []string
	calls  int
}

func (s *scripted) Reload() (bool, error) {
	text := s.script[min(s.calls, len(s.script)-1)]
	s.calls++
	if text == "" {
		return true, nil
	}
	return false, errors.New(text)
}

func TestWatchTellsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 85*time.Second)
		defer cancel()
		r := &scripted{script: []string{"", "torn", "torn", "gone", "", "gone", "torn", ""}}
		quiet := &scripted{script: []string{""}}
		var told []string
		certs.Watch(ctx, 10*time.Second, func(err error) { told = append(told, err.Error()) }, r, quiet)
		if want := []string{"torn", "gone", "gone", "torn"}; !slices.Equal(told, want) {
			t.Errorf("got %q, want %q", told, want)
		}
		if r.calls != 8 || quiet.calls != 8 {
			t.Errorf("got %d and %d calls, want 8 each", r.calls, quiet.calls)
		}
	})
}

// TestReloadUnderLoad reads a pair from many goroutines while it changes: whoever reads
// gets a certificate with its own key.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := certstest.New(t, alpha)
	trust := certstest.Trust(a)
	pair, err := certs.OpenPair(a.Issue(token.Agent, "x").Files(dir))
	if err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan error)
	const readers = 4
	for range readers {
		go func() {
			for !stop.Load() {
				cert, chain, _ := pair.Current()
				pub := cert.PrivateKey.(crypto.Signer).Public().(interface{ Equal(crypto.PublicKey) bool })
				if _, err := trust.Verify(chain, time.Now()); err != nil || !pub.Equal(chain[0].PublicKey) {
					done <- errors.New("a key without its certificate")
					return
				}
			}
			done <- nil
		}()
	}
	changes := 0
	for range 50 {
		a.Issue(token.Agent, "x").Files(dir)
		if changed, err := pair.Reload(); err != nil {
			t.Errorf("reloading: %v", err)
		} else if changed {
			changes++
		}
	}
	stop.Store(true)
	for range readers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if changes != 50 {
		t.Errorf("got %d changes, want 50", changes)
	}
}
