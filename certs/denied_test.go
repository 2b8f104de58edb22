package certs_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestDenied(t *testing.T) {
	t.Parallel()
	now := time.Now()
	dir := t.TempDir()
	a, b := certstest.New(t, alpha), certstest.New(t, beta)
	below := a.Intermediate(now.Add(-time.Hour), now.Add(time.Hour))
	eve, one, under := a.Issue(token.Subscriber, "eve"), a.Issue(token.Agent, "one"), below.Issue(token.Agent, "under")
	renewed, good := a.Issue(token.Agent, "one"), b.Issue(token.Subscriber, "eve")
	list := fmt.Sprintf("# stolen on Monday\n\nidentity spiffe://a.example/subscriber/eve\nserial a.example %s\nserial a.example %s\nserial other.example 5\n",
		one.Chain[0].SerialNumber.Text(16), under.Chain[1].SerialNumber.Text(16))
	files := certs.TrustFiles{
		Bundles: map[token.Provider]string{alpha: a.BundleFile(dir), beta: b.BundleFile(dir)}, Denied: a.Put(dir, "denied", []byte(list)),
	}
	trust, err := files.Open()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		leaf *certstest.Leaf
		at   time.Time
		want problem.Code
		says string
	}{
		{"an identity", eve, now, problem.IDDenied, "The operator has denied spiffe://a.example/subscriber/eve."},
		{"what it signed before", eve, now.Add(-30 * time.Second), problem.IDDenied, ""},
		{"a certificate", one, now, problem.IDDenied, "The certificate of spiffe://a.example/agent/one (serial " + one.Chain[0].SerialNumber.Text(16)[:8] + "…) was denied by the operator."},
		{"another certificate of the same identity", renewed, now, "", ""},
		{"below a denied authority", under, now, problem.IDDenied, "authority above it"},
		{"the same name in another domain", good, now, "", ""},
		{"a stranger who takes a denied name", certstest.New(t, alpha).Issue(token.Subscriber, "eve"), now, problem.CertUnknown, ""},
		{"denied and expired", a.Issue(token.Subscriber, "eve", certstest.Expired()), now, problem.CertExpired, ""},
	} {
		_, err := trust.Verify(tt.leaf.Chain, tt.at)
		if got := problem.Of(err); got != tt.want || err != nil && !strings.Contains(problem.As(err).Sentence(), tt.says) {
			t.Errorf("%s: got %q (%v), want %q", tt.name, got, err, tt.want)
		}
	}
	m := meet(t, certs.PeerServer(renewed.Pair(), trust, alpn), raw(one.TLS()))
	if _, err := certs.PeerOf(m.server, trust, now); m.serverErr != nil || problem.Of(err) != problem.IDDenied {
		t.Errorf("a denied dialler: got %v, %v, want a connection that can carry the reason", m.serverErr, err)
	}
	a.Put(dir, "denied", nil)
	if changed, err := trust.Reload(); !changed || err != nil {
		t.Fatalf("an empty list: got %v, %v", changed, err)
	}
	if _, err := trust.Verify(eve.Chain, now); err != nil {
		t.Errorf("nobody denied: got %v", err)
	}
}

func TestDenyListsThatAreNotGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := certstest.New(t, alpha)
	eve := a.Issue(token.Subscriber, "eve")
	good := []byte("identity spiffe://a.example/subscriber/eve\n")
	trust, err := certs.TrustFiles{Bundles: map[token.Provider]string{alpha: a.BundleFile(dir)}, Denied: a.Put(dir, "denied", good)}.Open()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"no keyword":            "spiffe://a.example/subscriber/eve\n",
		"not an identity":       "identity spiffe://a.example/eve\n",
		"two spaces":            "identity  spiffe://a.example/subscriber/eve\n",
		"a space at the end":    "identity spiffe://a.example/subscriber/eve \n",
		"a carriage return":     "identity spiffe://a.example/subscriber/eve\r\n",
		"a word more":           "identity spiffe://a.example/subscriber/eve now\n",
		"a whole domain":        "identity spiffe://a.example\n",
		"serial without domain": "serial 5f\n",
		"serial in capitals":    "serial a.example 5F\n",
		"serial with a zero":    "serial a.example 05\n",
		"serial with colons":    "serial a.example 5f:3a\n",
		"serial below zero":     "serial a.example -5\n",
		"serial with a prefix":  "serial a.example 0x5\n",
		"serial of no domain":   "serial A 5\n",
		"twice":                 string(good) + string(good),
		"not text":              "identity \xff\n",
		"too many":              manyDenied(certs.MaxDenied + 1),
		"too large":             strings.Repeat("#", certs.MaxFileSize+1),
	} {
		a.Put(dir, "denied", []byte(text))
		changed, err := trust.Reload()
		if changed || problem.Of(err) != problem.BadConfig || strings.Contains(problem.As(err).Sentence(), dir) {
			t.Errorf("%s: got %v, %v, want %s without a path", name, changed, err, problem.BadConfig)
		}
		if _, err := trust.Verify(eve.Chain, time.Now()); problem.Of(err) != problem.IDDenied {
			t.Errorf("%s: got %v, want the list that was in use", name, err)
		}
	}
	a.Put(dir, "denied", bytes.TrimSuffix(good, []byte("\n")))
	if _, err := trust.Reload(); err != nil {
		t.Errorf("without a newline at the end: got %v", err)
	}
}

func manyDenied(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "serial a.example %x\n", i)
	}
	return b.String()
}
