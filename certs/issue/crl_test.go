package issue

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestDeniedAreOnTheList: who trusts the authority and follows its list refuses whoever was denied from that moment on, and nobody
// else; a new key is another's business.
func TestDeniedAreOnTheList(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	now := time.Now()
	lost, kept := newTestKey(t), newTestKey(t)
	get := func(name string, pub any, at time.Time) certs.Chain {
		t.Helper()
		chain, err := o.Issue(pub, Request{Role: token.Agent, Name: name}, at)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	before := now.Add(-time.Hour)
	stolen, renewed, over := get("one", lost.Public(), before), get("one", lost.Public(), now), get("one", lost.Public(), now.Add(-25*time.Hour))
	other := get("two", kept.Public(), before)
	dir := t.TempDir()
	file, bundle := filepath.Join(dir, "crl"), filepath.Join(dir, "bundle")
	write := func(name string, data []byte) {
		t.Helper()
		if err := certs.ReplaceFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := o.CRL(now)
	if err != nil {
		t.Fatal(err)
	}
	write(file, list)
	write(bundle, o.Bundle())
	trust, err := certs.TrustFiles{Bundles: map[token.Provider]string{domain: bundle}, CRLs: map[token.Provider]string{domain: file}}.Open()
	if err != nil {
		t.Fatal(err)
	}
	judge := func(what string, chain certs.Chain, at time.Time, want problem.Code) {
		t.Helper()
		if _, err := trust.Verify(chain, at); problem.Of(err) != want {
			t.Errorf("%s: got %v, want %q", what, err, want)
		}
	}
	judge("before", stolen, now, "")
	if n, err := o.Deny("spiffe://a.example/agent/one"); n != 1 || err != nil {
		t.Fatalf("denying: got %d, %v", n, err)
	}
	later := time.Now().Add(time.Hour)
	if list, err = o.CRL(later); err != nil {
		t.Fatal(err)
	}
	write(file, list)
	if changed, err := trust.Reload(); !changed || err != nil {
		t.Fatalf("reloading: got %v, %v", changed, err)
	}
	judge("the stolen one", stolen, later, problem.CertRevoked)
	judge("the renewed one", renewed, later, problem.CertRevoked)
	judge("what it signed before", stolen, now.Add(-time.Minute), "")
	judge("the one past its end", over, later, problem.CertExpired)
	judge("somebody else", other, later, "")
	judge("joined anew", get("one", newTestKey(t).Public(), now), later, "")
	if bytes.Contains(list, []byte("PRIVATE")) {
		t.Error("the list has a key in it")
	}
	fetched := fetch(t, o, CRLPath)
	if again := fetch(t, o, CRLPath); !bytes.Equal(fetched, again) {
		t.Error("the listener signs a list for everybody who asks")
	}
	write(file, fetched)
	if _, err := trust.Reload(); problem.Of(err) != problem.BadConfig { // it was made before the one in use
		t.Errorf("an older list: got %v, want %s", err, problem.BadConfig)
	}
	judge("after an older list", stolen, later, problem.CertRevoked)
	fresh, err := certs.TrustFiles{Bundles: map[token.Provider]string{domain: bundle}, CRLs: map[token.Provider]string{domain: file}}.Open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Verify(stolen, later); problem.Of(err) != problem.CertRevoked {
		t.Errorf("with the list that was fetched: got %v, want %s", err, problem.CertRevoked)
	}
	log := filepath.Join(o.dir, issuedFile)
	good, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	write(log, append(bytes.Clone(good), "torn"...))
	if list, err := o.CRL(later); err == nil || list != nil {
		t.Error("a list was made of a log that cannot be read")
	}
	write(log, good)
}

// fetch gets what the listener gives to anybody.
func fetch(t *testing.T, o *office, path string) []byte {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+o.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %d, %v", resp.StatusCode, err)
	}
	return data
}
