package issue

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestRenew(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	dir := t.TempDir()
	pair, trust := o.join("eu-1", dir)
	seen := map[token.Hash]bool{pair.LeafHash(): true}
	_, first, id := pair.Current()
	keyBefore, err := os.ReadFile(filepath.Join(dir, KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := Renew(t.Context(), pair, o.address, trust); err != nil {
			t.Fatal(err)
		}
		if seen[pair.LeafHash()] {
			t.Error("the certificate is one that was used before")
		}
		seen[pair.LeafHash()] = true
		onDisk, _ := open(t, dir)
		_, chain, got := onDisk.Current()
		if onDisk.LeafHash() != pair.LeafHash() || got != id {
			t.Errorf("the files are not what is in use")
		}
		if !bytes.Equal(chain[0].RawSubjectPublicKeyInfo, first[0].RawSubjectPublicKeyInfo) {
			t.Error("the key changed")
		}
		if _, err := trust.Verify(chain, time.Now()); err != nil {
			t.Error(err)
		}
		if life := lifeOf(chain[0], token.Agent); life != lifeOf(first[0], token.Agent) {
			t.Errorf("got a life of %s, want that of the first", life)
		}
	}
	keyAfter, err := os.ReadFile(filepath.Join(dir, KeyFile))
	if err != nil || !bytes.Equal(keyBefore, keyAfter) {
		t.Errorf("the key file changed: %v", err)
	}
	if n := o.logged(t, id); n != 4 {
		t.Errorf("got %d certificates in the log, want 4", n)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) != 0 {
		t.Errorf("got %v left behind, want nothing", left)
	}
}

// TestRenewalRefused renews by certificates that must not be renewed, past our own client, which
// would not even try.
func TestRenewalRefused(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	now := time.Now()
	key := newTestKey(t)
	issued := func(req Request, at time.Time) tls.Certificate {
		chain, err := o.Issue(key.Public(), req, at)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: chain.DER(), PrivateKey: key}
	}
	agent := Request{Role: token.Agent, Name: "eu-1"}
	foreign := func(opts ...certstest.Option) tls.Certificate {
		return certstest.New(t, domain).Issue(token.Agent, "eu-1", append(opts, certstest.ForKey(key))...).TLS()
	}
	serving, err := o.servingCert(now)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		cert tls.Certificate
		key  crypto.Signer // of the request
		want problem.Code
	}{
		"good":                 {issued(agent, now), key, ""},
		"expired":              {issued(agent, now.Add(-25*time.Hour)), key, problem.CertExpired},
		"not yet valid":        {issued(agent, now.Add(time.Hour)), key, problem.CertNotYet},
		"of another authority": {foreign(), key, problem.CertUnknown},
		"of another, expired":  {foreign(certstest.Expired()), key, problem.CertUnknown},
		"of another domain":    {certstest.New(t, "b.example").Issue(token.Agent, "x").TLS(), key, problem.CertUnknown},
		"ours, named by another domain's authority": {certstest.NewUnconstrained(t, "b.example").Issue(token.Agent, "eu-1",
			certstest.As("spiffe://a.example/agent/eu-1"), certstest.ForKey(key)).TLS(), key, problem.CertUnknown},
		"another key":               {issued(agent, now), newTestKey(t), problem.CertMismatch},
		"none":                      {tls.Certificate{}, key, problem.CertMissing},
		"the listener's":            {*serving, serving.PrivateKey.(crypto.Signer), problem.CertMisused},
		"the root itself":           {tls.Certificate{Certificate: [][]byte{o.root.Raw}, PrivateKey: o.key}, o.key, problem.CertMisused},
		"a leaf that a leaf signed": {delegated(t, issued(agent, now)), key, problem.CertUnknown},
	} {
		got, err := postRenewal(t, o, tt.cert, tt.key)
		if code := problem.Of(err); code != tt.want {
			t.Errorf("%s: got %q (%v), want %q", name, code, err, tt.want)
		}
		if (got.Certificate != "") != (tt.want == "") {
			t.Errorf("%s: got the certificate %q", name, got.Certificate)
		}
		s := problem.As(err)
		if tt.want == problem.CertExpired && !strings.Contains(s.Sentence(), "spiffe://a.example/agent/eu-1 (serial ") {
			t.Errorf("%s: the sentence does not name the certificate: %q", name, s.Sentence())
		}
	}
}

// delegated is a leaf for the same key that the certificate's own key signed.
func delegated(t *testing.T, by tls.Certificate) tls.Certificate {
	t.Helper()
	chain, err := certs.ParseChainDER(by.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	key := by.PrivateKey.(crypto.Signer)
	return certstest.NewLeaf(t, chain, key).Delegate(certstest.ForKey(key)).TLS()
}

func postRenewal(t *testing.T, o *office, cert tls.Certificate, key crypto.Signer) (answer, error) {
	t.Helper()
	conf := stranger()
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	body, err := json.Marshal(renewRequest{CSR: testCSR(t, key)})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	res, err := client.Post("https://"+o.address+"/v1/renew", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return parseAnswer(res.StatusCode, data)
}

// TestDeny ends a stolen key: it renews no more, others do, and its owner comes back by a new token.
func TestDeny(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	stolen, trust := o.join("eu-1", t.TempDir())
	other, _ := o.join("eu-2", t.TempDir())
	if err := Renew(t.Context(), stolen, o.address, trust); err != nil {
		t.Fatal(err)
	}
	id := stolen.Identity()
	for range 2 {
		if n, err := o.Deny(id); n != 1 || err != nil {
			t.Fatalf("got %d keys, %v, want 1", n, err)
		}
	}
	wantCode(t, Renew(t.Context(), stolen, o.address, trust), problem.NotPermitted)
	if err := Renew(t.Context(), other, o.address, trust); err != nil {
		t.Errorf("another agent: got %v, want a renewal", err)
	}
	fresh, _ := o.join("eu-1", t.TempDir())
	if err := Renew(t.Context(), fresh, o.address, trust); err != nil {
		t.Errorf("a new key: got %v, want a renewal", err)
	}
	wantCode(t, Renew(t.Context(), stolen, o.address, trust), problem.NotPermitted)
	_, err := o.Deny("spiffe://a.example/agent/nobody")
	wantCode(t, err, problem.NotFound)
}

func TestRenewBeforeItIsAsked(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	dir := t.TempDir()
	old := certstest.New(t, domain).Issue(token.Agent, "x", certstest.Expired())
	pair, err := certs.OpenPair(old.Files(dir))
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, Renew(t.Context(), pair, o.address, o.trust), problem.CertExpired)
	memory := certstest.New(t, domain).Issue(token.Agent, "x").Pair()
	wantCode(t, Renew(t.Context(), memory, o.address, o.trust), problem.BadConfig)
	good, _ := o.join("x", t.TempDir())
	elsewhere := certs.NewTrust(map[token.Provider][]*x509.Certificate{"b.example": {o.root}})
	wantCode(t, Renew(t.Context(), good, o.address, elsewhere), problem.BadConfig)
}

// TestServingRotates asks for the listener's certificate through its life.
func TestServingRotates(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	now := time.Now()
	first, err := ca.servingCert(now)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ca.servingCert(now.Add(servingLife/2 - time.Minute)); err != nil || again != first {
		t.Errorf("got another certificate within half of the life: %v", err)
	}
	next, err := ca.servingCert(now.Add(servingLife/2 + time.Minute))
	if err != nil || next == first {
		t.Errorf("got the old certificate past half of its life: %v", err)
	}
}

// TestRenewerOverTLS lets the loop meet a real authority, with a certificate that is due.
func TestRenewerOverTLS(t *testing.T) {
	t.Parallel()
	o := newOffice(t)
	dir := t.TempDir()
	if _, err := o.IssueFiles(dir, Request{Role: token.Agent, Name: "x"}, time.Now().Add(-20*time.Hour)); err != nil {
		t.Fatal(err)
	}
	pair, trust := open(t, dir)
	old := pair.NotAfter()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r := &certs.Renewer{Pair: pair,
		Renew:     func(ctx context.Context) error { return Renew(ctx, pair, o.address, trust) },
		OnRenewed: func(time.Time) { cancel() }, OnError: func(err error) { t.Error(err) }}
	r.Run(ctx)
	if !pair.NotAfter().After(old.Add(19 * time.Hour)) {
		t.Errorf("got an end at %s, want one a day ahead", pair.NotAfter())
	}
}
