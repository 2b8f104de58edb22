package certs_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const aliceAtA = token.Identity("spiffe://a.example/subscriber/alice")

var alice = pkix.Name{CommonName: "Alice Liddell", Organization: []string{"Oxford, Christ Church"}}

// line is the line that maps a plain leaf of ca.
func line(t *testing.T, ca *certstest.CA, leaf *certstest.Leaf, id token.Identity) string {
	t.Helper()
	l, err := certs.AccountLine(certs.Chain{leaf.Chain[0], ca.Root()}, id)
	if err != nil {
		t.Fatal(err)
	}
	return l + "\n"
}

func TestPlainSubscriber(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	a, b := certstest.NewUnconstrained(t, alpha), certstest.NewUnconstrained(t, beta)
	staff, guests := a.Intermediate(now.AddDate(0, 0, -9), now.AddDate(0, 0, 9)), a.Intermediate(now.AddDate(0, 0, -9), now.AddDate(0, 0, 9))
	hers := staff.Issue(token.Subscriber, "x", certstest.Plain(alice))
	bob, eve := staff.Issue(token.Subscriber, "x", certstest.Plain(pkix.Name{CommonName: "Bob"})), staff.Issue(token.Subscriber, "x", certstest.Plain(pkix.Name{CommonName: "Eve"}))
	file := "# made by consign ca map\n\n" + line(t, staff, hers, aliceAtA) + line(t, staff, bob, "spiffe://a.example/subscriber/bob") + line(t, staff, eve, "spiffe://a.example/subscriber/eve")
	files := certs.TrustFiles{
		Bundles:     map[token.Provider]string{alpha: a.BundleFile(dir), beta: b.BundleFile(dir)},
		Subscribers: map[token.Provider]string{alpha: a.Put(dir, "a.accounts", []byte(file)), beta: b.Put(dir, "b.accounts", nil)},
		CRLs:        map[token.Provider]string{alpha: a.Put(dir, "a.crl", staff.CRL(certstest.CRL{Number: 1, Revoked: []certstest.Revoked{{Chain: bob.Chain, At: now.Add(-time.Second)}}}))},
		Denied:      a.Put(dir, "denied", []byte("identity spiffe://a.example/subscriber/eve\n")),
	}
	trust, err := files.Open()
	if err != nil {
		t.Fatal(err)
	}
	other, err := asn1.Marshal(pkix.RDNSequence{ // the same words, with another ASN.1 type for one of them
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Oxford, Christ Church"}},
		{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("Alice Liddell")}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	stranger := certstest.NewUnconstrained(t, alpha)
	forged := stranger.Issue(token.Subscriber, "x", certstest.Plain(alice))
	forged.Chain = append(forged.Chain[:1:1], hers.Chain[1:]...) // claims an issuer that it does not have
	crossed := staff.Recertified(b)
	for _, tt := range []struct {
		name string
		leaf *certstest.Leaf
		want problem.Code
	}{
		{"mapped", hers, ""},
		{"renewed", staff.Issue(token.Subscriber, "x", certstest.Plain(alice)), ""},
		{"with another key", staff.Issue(token.Subscriber, "x", certstest.Plain(alice), certstest.WithKey(certstest.RSA2048)), ""},
		{"with a URI name that is no SPIFFE one", staff.Issue(token.Subscriber, "x", certstest.Plain(alice), certstest.AlsoURI("tag:microsoft.com,2022-09-14:sid:S-1-5-21")), ""},
		{"by way of another domain's root", crossed.Issue(token.Subscriber, "x", certstest.Plain(alice)), problem.CertMisused},
		{"the same subject, of another authority of the domain", guests.Issue(token.Subscriber, "x", certstest.Plain(alice)), problem.CertMisused},
		{"the same subject, of the domain's root", a.Issue(token.Subscriber, "x", certstest.Plain(alice)), problem.CertMisused},
		{"the same subject, of another domain", b.Issue(token.Subscriber, "x", certstest.Plain(alice)), problem.CertMisused},
		{"the same subject, of a stranger", stranger.Issue(token.Subscriber, "x", certstest.Plain(alice)), problem.CertUnknown},
		{"the same subject, of a stranger who claims the issuer", forged, problem.CertUnknown},
		{"the same subject in another encoding", staff.Issue(token.Subscriber, "x", certstest.RawSubject(other)), problem.CertMisused},
		{"another subject", staff.Issue(token.Subscriber, "x", certstest.Plain(pkix.Name{CommonName: "Alice Liddell"})), problem.CertMisused},
		{"no subject", staff.Issue(token.Subscriber, "x", certstest.Plain(pkix.Name{})), problem.CertMisused},
		{"made for servers", staff.Issue(token.Subscriber, "x", certstest.Plain(alice), certstest.For(x509.ExtKeyUsageServerAuth)), problem.CertMisused},
		{"an authority", staff.Issue(token.Subscriber, "x", certstest.Plain(alice), certstest.AsCA()), problem.CertMisused},
		{"a key of another kind", staff.Issue(token.Subscriber, "x", certstest.Plain(alice), certstest.WithKey(certstest.P521)), problem.CertMisused},
		{"a proxy certificate", staff.Issue(token.Subscriber, "x", certstest.Plain(alice), certstest.Critical()), problem.CertMisused},
		{"expired", staff.Issue(token.Subscriber, "x", certstest.Plain(alice), certstest.Expired()), problem.CertExpired},
		{"not yet valid", staff.Issue(token.Subscriber, "x", certstest.Plain(alice), certstest.NotYet()), problem.CertNotYet},
		{"revoked", bob, problem.CertRevoked},
		{"denied", eve, problem.IDDenied},
	} {
		id, err := trust.Verify(tt.leaf.Chain, now)
		if got := problem.Of(err); got != tt.want {
			t.Errorf("%s: got %q (%v), want %q", tt.name, got, err, tt.want)
		}
		if err == nil && id != aliceAtA || err != nil && id != "" {
			t.Errorf("%s: got the identity %q", tt.name, id)
		}
		if tt.want != problem.CertUnknown && tt.want != problem.CertMisused {
			continue
		}
		if s := problem.As(err).Sentence(); strings.Contains(s, "alice") || strings.Contains(s, "Alice") {
			t.Errorf("%s: the sentence names somebody: %q", tt.name, s)
		}
	}
	// An identity that stands in the certificate wins, whatever its subject.
	named := staff.Issue(token.Subscriber, "carol", certstest.Plain(alice), certstest.As("spiffe://a.example/subscriber/carol"))
	if id, err := trust.Verify(named.Chain, now); id != "spiffe://a.example/subscriber/carol" || err != nil {
		t.Errorf("a SPIFFE name and a mapped subject: got %q, %v", id, err)
	}
	for p, want := range map[token.Provider]bool{alpha: true, beta: true, "c.example": false} {
		if got := trust.CanJudge(hers.Chain, p); got != want {
			t.Errorf("can judge a plain chain for %s: got %v, want %v", p, got, want)
		}
	}
	if trust := certstest.Trust(a); trust.CanJudge(hers.Chain, alpha) || !trust.CanJudge(named.Chain, alpha) {
		t.Error("a domain without a file of subscribers judges plain chains, or not the others")
	}
	if m := meet(t, certs.BrokerServer(a.Issue(token.Broker, "main").Pair()), raw(hers.TLS())); m.serverErr != nil {
		t.Errorf("a handshake with a plain certificate: got %v", m.serverErr)
	} else if p, err := certs.PeerOf(m.server, trust, now); err != nil || p.Identity != aliceAtA {
		t.Errorf("a connection with a plain certificate: got %q, %v", p.Identity, err)
	}
}

// TestPlainCertificateOfTwoDomains: an authority that two domains have certified can have its people mapped in one of them only.
func TestPlainCertificateOfTwoDomains(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	a, b := certstest.NewUnconstrained(t, alpha), certstest.NewUnconstrained(t, beta)
	at := a.Intermediate(now.Add(-time.Hour), now.Add(time.Hour))
	both := at.Recertified(b)
	leaf := at.Issue(token.Subscriber, "x", certstest.Plain(alice))
	files := certs.TrustFiles{
		Bundles:     map[token.Provider]string{alpha: a.BundleFile(dir), beta: b.BundleFile(dir)},
		Subscribers: map[token.Provider]string{alpha: a.Put(dir, "a.accounts", nil), beta: b.Put(dir, "b.accounts", []byte(line(t, at, leaf, "spiffe://b.example/subscriber/alice")))},
	}
	trust, err := files.Open()
	if err != nil {
		t.Fatal(err)
	}
	chain := append(certs.Chain{leaf.Chain[0], leaf.Chain[1]}, both.Root())
	if id, err := trust.Verify(chain, now); id != "spiffe://b.example/subscriber/alice" || err != nil {
		t.Errorf("got %q, %v, want the account of the domain that maps it", id, err)
	}
	a.Put(dir, "a.accounts", []byte(line(t, at, leaf, aliceAtA)))
	if changed, err := trust.Reload(); changed || problem.Of(err) != problem.BadConfig {
		t.Errorf("mapped in both: got %v, %v, want %s", changed, err, problem.BadConfig)
	}
	if id, err := trust.Verify(chain, now); id != "spiffe://b.example/subscriber/alice" || err != nil {
		t.Errorf("after that: got %q, %v, want what was in use", id, err)
	}
}

func TestAccountFilesThatAreNotGood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := certstest.New(t, alpha)
	leaf := a.Issue(token.Subscriber, "x", certstest.Plain(alice))
	good := line(t, a, leaf, aliceAtA)
	words := strings.SplitN(strings.TrimSuffix(good, "\n"), " ", 4)
	with := func(i int, word string) string {
		w := append([]string(nil), words...)
		w[i] = word
		return strings.Join(w, " ") + "\n"
	}
	if words[3] != `CN=Alice Liddell,O=Oxford\, Christ Church` {
		t.Errorf("got the subject %q", words[3])
	}
	trust, err := certs.TrustFiles{
		Bundles: map[token.Provider]string{alpha: a.BundleFile(dir)}, Subscribers: map[token.Provider]string{alpha: a.Put(dir, "accounts", []byte(good))},
	}.Open()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"three words":                strings.Join(words[:3], " ") + "\n",
		"an agent":                   with(0, "spiffe://a.example/agent/alice"),
		"a broker":                   with(0, "spiffe://a.example/broker/alice"),
		"another provider":           with(0, "spiffe://b.example/subscriber/alice"),
		"no identity":                with(0, "alice"),
		"a key in hexadecimal":       with(1, strings.Repeat("5f", 32)),
		"a key too short":            with(1, words[1][:42]),
		"a subject with padding":     with(2, words[2]+"="),
		"a subject cut off":          with(2, words[2][:len(words[2])-4]),
		"a subject that is none":     with(2, "AAAA"),
		"an empty subject":           with(2, "MAA"),
		"another text":               with(3, "CN=Bob"),
		"a space more":               with(3, words[3]+" "),
		"two spaces":                 strings.Replace(good, " ", "  ", 1),
		"a carriage return":          strings.TrimSuffix(good, "\n") + "\r\n",
		"twice":                      good + good,
		"two accounts for one":       good + with(0, "spiffe://a.example/subscriber/bob"),
		"not text":                   "\xff",
		"too large":                  strings.Repeat("#", certs.MaxFileSize+1),
		"a subject that says newers": with(3, strings.ToUpper(words[3])),
	} {
		a.Put(dir, "accounts", []byte(text))
		changed, err := trust.Reload()
		if changed || problem.Of(err) != problem.BadConfig || strings.Contains(problem.As(err).Sentence(), dir) {
			t.Errorf("%s: got %v, %v, want %s without a path", name, changed, err, problem.BadConfig)
		}
		if id, err := trust.Verify(leaf.Chain, time.Now()); id != aliceAtA || err != nil {
			t.Errorf("%s: got %q, %v, want what was in use", name, id, err)
		}
	}
	a.Put(dir, "accounts", nil)
	if changed, err := trust.Reload(); !changed || err != nil {
		t.Errorf("nobody: got %v, %v", changed, err)
	}
	if _, err := trust.Verify(leaf.Chain, time.Now()); problem.Of(err) != problem.CertMisused {
		t.Errorf("taken out of the file: got %v, want %s", err, problem.CertMisused)
	}
	_, err = certs.TrustFiles{Bundles: map[token.Provider]string{alpha: a.BundleFile(dir)}, Subscribers: map[token.Provider]string{beta: a.Put(dir, "accounts", nil)}}.Open()
	wantCode(t, err, problem.BadConfig)
}

func TestAccountLineRefuses(t *testing.T) {
	t.Parallel()
	a, b := certstest.New(t, alpha), certstest.New(t, beta)
	plain := a.Issue(token.Subscriber, "x", certstest.Plain(alice)).Chain[0]
	named := a.Issue(token.Subscriber, "x").Chain[0]
	escape := a.Issue(token.Subscriber, "x", certstest.Plain(pkix.Name{CommonName: "a\nidentity"})).Chain[0]
	for name, tt := range map[string]struct {
		chain certs.Chain
		id    token.Identity
		want  problem.Code
	}{
		"without its issuer":      {certs.Chain{plain}, aliceAtA, problem.CertUnknown},
		"of another issuer":       {certs.Chain{plain, b.Root()}, aliceAtA, problem.CertUnknown},
		"with a SPIFFE name":      {certs.Chain{named, a.Root()}, aliceAtA, problem.CertMisused},
		"an authority":            {certs.Chain{a.Root(), a.Root()}, aliceAtA, problem.CertMisused},
		"for an agent":            {certs.Chain{plain, a.Root()}, "spiffe://a.example/agent/alice", problem.Malformed},
		"a subject of two lines":  {certs.Chain{escape, a.Root()}, aliceAtA, problem.CertMisused},
		"nothing":                 {nil, aliceAtA, problem.CertUnknown},
		"an identity in no form ": {certs.Chain{plain, a.Root()}, "alice", problem.Malformed},
	} {
		if got, err := certs.AccountLine(tt.chain, tt.id); problem.Of(err) != tt.want || got != "" {
			t.Errorf("%s: got %q, %v, want %s", name, got, err, tt.want)
		}
	}
}

// TestPlainPair opens a plain certificate as one's own, which is only possible if it is said whose it is.
func TestPlainPair(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := certstest.New(t, alpha)
	leaf := a.Issue(token.Subscriber, "x", certstest.Plain(alice))
	cert, key := leaf.Files(dir)
	if p, err := certs.OpenPair(cert, key); problem.Of(err) != problem.CertMisused || p != nil {
		t.Errorf("without an account: got %v, want %s", err, problem.CertMisused)
	}
	p, err := certs.PairFiles{Cert: cert, Key: key, Account: aliceAtA}.Open()
	if err != nil || p.Identity() != aliceAtA {
		t.Fatalf("got %v, want the pair of %s", err, aliceAtA)
	}
	a.Issue(token.Subscriber, "x", certstest.Plain(alice)).Files(dir)
	if changed, err := p.Reload(); !changed || err != nil || p.Identity() != aliceAtA {
		t.Errorf("renewed: got %v, %v", changed, err)
	}
	for _, id := range []token.Identity{"spiffe://a.example/agent/x", "alice"} {
		if _, err := (certs.PairFiles{Cert: cert, Key: key, Account: id}).Open(); err == nil {
			t.Errorf("as %s: got no error, want one", id)
		}
	}
	cert, key = a.Issue(token.Subscriber, "bob").Files(dir)
	if _, err := (certs.PairFiles{Cert: cert, Key: key, Account: aliceAtA}).Open(); problem.Of(err) != problem.CertMismatch {
		t.Errorf("a certificate that names somebody else: got %v, want %s", err, problem.CertMismatch)
	}
}

// FuzzAccounts holds that no file panics or maps somebody outside its provider, and that a file that is read has one spelling.
func FuzzAccounts(f *testing.F) {
	a := certstest.New(f, alpha)
	leaf := a.Issue(token.Subscriber, "x", certstest.Plain(alice))
	good, err := certs.AccountLine(certs.Chain{leaf.Chain[0], a.Root()}, aliceAtA)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(good + "\n"))
	f.Add([]byte("# nobody\n\n" + good))
	dir := f.TempDir()
	bundle, file := a.BundleFile(dir), a.Put(dir, "accounts", nil)
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		trust, err := certs.TrustFiles{Bundles: map[token.Provider]string{alpha: bundle}, Subscribers: map[token.Provider]string{alpha: file}}.Open()
		if err != nil {
			if problem.Of(err) != problem.BadConfig {
				t.Fatalf("got %v, want %s", err, problem.BadConfig)
			}
			return
		}
		id, err := trust.Verify(leaf.Chain, time.Now())
		if err == nil && (id.Provider() != alpha || id.Role() != token.Subscriber) {
			t.Fatalf("the file maps somebody to %q", id)
		}
		if err == nil && !bytes.Contains(data, []byte(good[len(aliceAtA):])) && id == aliceAtA {
			t.Fatalf("another spelling is read: %q", data)
		}
	})
}
