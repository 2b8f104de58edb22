package certs_test

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// listed is trust in one authority with its list in a file that can be replaced.
type listed struct {
	t     *testing.T
	ca    *certstest.CA
	dir   string
	trust *certs.Trust
}

func openListed(t *testing.T, ca *certstest.CA, stale certs.StalePolicy, crl []byte) *listed {
	t.Helper()
	l := &listed{t: t, ca: ca, dir: t.TempDir()}
	var err error
	l.trust, err = certs.TrustFiles{
		Bundles: map[token.Provider]string{ca.Domain(): ca.BundleFile(l.dir)},
		CRLs:    map[token.Provider]string{ca.Domain(): ca.Put(l.dir, "list.crl", crl)},
		Stale:   stale,
	}.Open()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// replace puts another list in place and reloads.
func (l *listed) replace(crl []byte) (bool, error) {
	l.t.Helper()
	l.ca.Put(l.dir, "list.crl", crl)
	return l.trust.Reload()
}

func (l *listed) judge(what string, c certs.Chain, at time.Time, want problem.Code) {
	l.t.Helper()
	_ = l.hear(what, c, at, want)
}

// hear is judge, and returns what the peer is told.
func (l *listed) hear(what string, c certs.Chain, at time.Time, want problem.Code) (sentence string) {
	l.t.Helper()
	_, err := l.trust.Verify(c, at)
	if got := problem.Of(err); got != want {
		l.t.Errorf("%s: got %q (%v), want %q", what, got, err, want)
	}
	if err == nil {
		return ""
	}
	return problem.As(err).Sentence()
}

func TestRevokedCertificate(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	a := certstest.New(t, alpha)
	below, clean := a.Intermediate(now.AddDate(0, 0, -9), now.AddDate(0, 0, 9)), a.Intermediate(now.AddDate(0, 0, -9), now.AddDate(0, 0, 9))
	old := certstest.Valid(now.AddDate(0, 0, -8), now.AddDate(0, 0, 8))
	thief, stolen, good := a.Issue(token.Agent, "thief", old), a.Issue(token.Subscriber, "alice", old), a.Issue(token.Agent, "good", old)
	under, fine := below.Issue(token.Agent, "under", old), clean.Issue(token.Agent, "fine", old)
	over := a.Issue(token.Agent, "over", certstest.Expired())
	day := now.AddDate(0, 0, -3)
	l := openListed(t, a, certs.RefuseStale, a.CRL(certstest.CRL{Number: 7, Revoked: []certstest.Revoked{
		{Chain: thief.Chain, At: day}, {Chain: stolen.Chain, At: day, Stolen: day.AddDate(0, 0, -2)},
		{Chain: under.Chain[1:], At: day}, {Chain: over.Chain, At: day},
	}}))
	got := l.hear("revoked", thief.Chain, now, problem.CertRevoked)
	want := "The certificate of spiffe://a.example/agent/thief (serial " + thief.Chain[0].SerialNumber.Text(16)[:8] + "…) was revoked on " + day.UTC().Format(time.RFC3339) + "."
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	got = l.hear("under a revoked intermediate", under.Chain, now, problem.CertRevoked)
	if !strings.Contains(got, "authority above it (serial "+under.Chain[1].SerialNumber.Text(16)[:8]) {
		t.Errorf("the sentence does not say which certificate was revoked: %q", got)
	}
	l.judge("not on the list", good.Chain, now, "")
	l.judge("under an intermediate without a list", fine.Chain, now, "")
	l.judge("expired and revoked", over.Chain, now, problem.CertExpired)
	l.judge("what was signed before", thief.Chain, day.Add(-time.Second), "")
	l.judge("what was signed at that instant", thief.Chain, day, problem.CertRevoked)
	l.judge("what was signed before, by a key that was stolen still earlier", stolen.Chain, day.Add(-time.Second), problem.CertRevoked)
	l.judge("what was signed before the theft", stolen.Chain, day.AddDate(0, 0, -2).Add(-time.Second), "")
	// A stranger's certificate with a serial number of the list learns nothing.
	stranger := certstest.New(t, alpha).Issue(token.Agent, "thief", certstest.Serial(thief.Chain[0].SerialNumber))
	got = l.hear("a stranger's", stranger.Chain, now, problem.CertUnknown)
	if strings.Contains(got, "revoked") || strings.Contains(got, "thief") {
		t.Errorf("a stranger is told %q", got)
	}
}

// TestRevokedOnOnePathOnly: a cross-certified authority whose one certificate was revoked is good by the other.
func TestRevokedOnOnePathOnly(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a := certstest.New(t, alpha)
	first := a.Intermediate(now.Add(-time.Hour), now.Add(time.Hour))
	second := first.Recertified(a)
	leaf := first.Issue(token.Agent, "x")
	both := append(certs.Chain{leaf.Chain[0], leaf.Chain[1]}, second.Root())
	l := openListed(t, a, certs.RefuseStale, a.CRL(certstest.CRL{Revoked: []certstest.Revoked{{Chain: leaf.Chain[1:], At: now.Add(-time.Minute)}}}))
	l.judge("the revoked path alone", leaf.Chain, now, problem.CertRevoked)
	l.judge("both paths", both, now, "")
}

func TestStaleList(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	a := certstest.New(t, alpha)
	old := certstest.Valid(now.AddDate(0, 0, -8), now.AddDate(0, 0, 8))
	revoked, good := a.Issue(token.Agent, "thief", old), a.Issue(token.Agent, "good", old)
	list := certstest.CRL{Number: 1, Made: now.AddDate(0, 0, -4), Next: now.AddDate(0, 0, -2), Revoked: []certstest.Revoked{{Chain: revoked.Chain, At: now.AddDate(0, 0, -5)}}}
	strict, lax := openListed(t, a, certs.RefuseStale, a.CRL(list)), openListed(t, a, certs.AcceptStale, a.CRL(list))
	got := strict.hear("past the end of the list", good.Chain, now, problem.CRLStale)
	want := `The revocation list of provider "a.example" ended on ` + list.Next.UTC().Format(time.RFC3339) + ", 2 days ago."
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	strict.judge("revoked, past the end of the list", revoked.Chain, now, problem.CertRevoked)
	strict.judge("what was signed in the time of the list", good.Chain, list.Next, "")
	lax.judge("past the end of the list", good.Chain, now, "")
	lax.judge("revoked, past the end of the list", revoked.Chain, now, problem.CertRevoked)
	for _, l := range []*listed{strict, lax} {
		if err := l.trust.Stale(now); problem.Of(err) != problem.CRLStale {
			t.Errorf("asked for stale lists: got %v, want %s", err, problem.CRLStale)
		}
		if changed, err := l.replace(a.CRL(certstest.CRL{Number: 2})); !changed || err != nil {
			t.Fatalf("a newer list: got %v, %v", changed, err)
		}
		l.judge("with a newer list", good.Chain, now, "")
		if err := l.trust.Stale(now); err != nil {
			t.Errorf("asked for stale lists: got %v, want none", err)
		}
	}
	// The end of the handshake's own check: who is at the other end learns why.
	if _, err := strict.trust.Verify(certstest.New(t, alpha).Issue(token.Agent, "x").Chain, now); problem.Of(err) != problem.CertUnknown {
		t.Errorf("a stranger: got %v, want %s", err, problem.CertUnknown)
	}
}

// TestOlderListIsPutBack: who can write the file cannot have a revocation forgotten, neither by an older list nor by leaving one out.
func TestOlderListIsPutBack(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a := certstest.New(t, alpha)
	below := a.Intermediate(now.Add(-time.Hour), now.Add(time.Hour))
	thief := below.Issue(token.Agent, "thief")
	older := below.CRL(certstest.CRL{Number: 6, Made: now.Add(-time.Minute)})
	newer := below.CRL(certstest.CRL{Number: 7, Made: now.Add(-time.Minute), Revoked: []certstest.Revoked{{Chain: thief.Chain, At: now.Add(-time.Hour)}}})
	l := openListed(t, a, certs.RefuseStale, older)
	l.judge("before", thief.Chain, now, "")
	before := l.trust.Changed()
	if changed, err := l.replace(newer); !changed || err != nil {
		t.Fatalf("a newer list: got %v, %v", changed, err)
	}
	select {
	case <-before:
	default:
		t.Error("nobody was told that something else is trusted now")
	}
	l.judge("after", thief.Chain, now, problem.CertRevoked)
	for name, data := range map[string][]byte{
		"an older number":               older,
		"an equal number, made earlier": below.CRL(certstest.CRL{Number: 7, Made: now.Add(-time.Hour)}),
		"of another authority":          certstest.New(t, alpha).CRL(certstest.CRL{Number: 9}),
		"nothing":                       {},
		"text":                          []byte("no list"),
		"torn":                          newer[:200],
		"a key": append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{0}}),
			newer...),
		"twice the same authority": append(bytes.Clone(newer), newer...),
		"too large":                make([]byte, certs.MaxCRLSize+1),
		"without its intermediate": newer[:bytes.Index(newer, []byte("-----BEGIN CERTIFICATE"))],
		"a delta":                  below.CRL(certstest.CRL{Number: 9, Extra: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 7}}}}),
		"of authorities only": below.CRL(certstest.CRL{Number: 9, Extra: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x82, 1, 0xff}}}}),
	} {
		changed, err := l.replace(data)
		if problem.Of(err) != problem.BadConfig || changed {
			t.Errorf("%s: got %v, %v, want %s", name, changed, err, problem.BadConfig)
		}
		if s := problem.As(err).Sentence(); !strings.Contains(s, string(alpha)) || strings.Contains(s, l.dir) {
			t.Errorf("%s: the sentence must name the provider and no path: %q", name, s)
		}
		l.judge(name, thief.Chain, now, problem.CertRevoked)
	}
	if changed, err := l.replace(a.CRL(certstest.CRL{Number: 1})); !changed || err != nil {
		t.Fatalf("the list of another authority alone: got %v, %v", changed, err)
	}
	l.judge("left out", thief.Chain, now, problem.CertRevoked)
}

// TestListAsOthersMakeIt reads the scope that step-ca writes, which names a place and excludes nothing.
func TestListAsOthersMakeIt(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	type where struct {
		FullName []asn1.RawValue `asn1:"optional,tag:0"`
	}
	scope, err := asn1.Marshal(struct {
		Where where `asn1:"optional,tag:0"`
	}{where{[]asn1.RawValue{{Class: 2, Tag: 6, Bytes: []byte("https://ca.a.example/1.0/crl")}}}})
	if err != nil {
		t.Fatal(err)
	}
	thief := a.Issue(token.Agent, "thief")
	now := time.Now()
	l := openListed(t, a, certs.RefuseStale, a.CRL(certstest.CRL{
		Revoked: []certstest.Revoked{{Chain: thief.Chain, At: now.Add(-time.Second)}},
		Extra:   []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: scope}},
	}))
	l.judge("revoked", thief.Chain, now, problem.CertRevoked)
}

// TestOneBadFileKeepsNothingElseBack: the list of one provider comes into use although another's bundle is broken.
func TestOneBadFileKeepsNothingElseBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := certstest.New(t, alpha), certstest.New(t, beta)
	trust, err := certs.TrustFiles{
		Bundles: map[token.Provider]string{alpha: a.BundleFile(dir), beta: b.BundleFile(dir)},
		CRLs:    map[token.Provider]string{beta: b.Put(dir, "b.crl", b.CRL(certstest.CRL{Number: 1}))},
	}.Open()
	if err != nil {
		t.Fatal(err)
	}
	thief := b.Issue(token.Agent, "thief")
	a.Put(dir, "a.example.pem", []byte("broken"))
	b.Put(dir, "b.crl", b.CRL(certstest.CRL{Number: 2, Revoked: []certstest.Revoked{{Chain: thief.Chain, At: time.Now().Add(-time.Second)}}}))
	if changed, err := trust.Reload(); !changed || problem.Of(err) != problem.BadConfig {
		t.Errorf("got %v, %v, want a change and %s", changed, err, problem.BadConfig)
	}
	_, err = trust.Verify(thief.Chain, time.Now())
	wantCode(t, err, problem.CertRevoked)
	_, err = trust.Verify(a.Issue(token.Agent, "x").Chain, time.Now())
	wantCode(t, err, "")
}

func TestOpenTrustFilesRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := certstest.New(t, alpha)
	bundle, crl := a.BundleFile(dir), a.Put(dir, "a.crl", a.CRL(certstest.CRL{}))
	own := map[token.Provider]string{alpha: bundle}
	for name, files := range map[string]certs.TrustFiles{
		"a list without a bundle": {Bundles: own, CRLs: map[token.Provider]string{beta: crl}},
		"a list that is a bundle": {Bundles: own, CRLs: map[token.Provider]string{alpha: bundle}},
		"no such list":            {Bundles: own, CRLs: map[token.Provider]string{alpha: crl + "x"}},
		"an unknown policy":       {Bundles: own, CRLs: map[token.Provider]string{alpha: crl}, Stale: "maybe"},
	} {
		if trust, err := files.Open(); problem.Of(err) != problem.BadConfig || trust != nil {
			t.Errorf("%s: got %v, want nothing and %s", name, err, problem.BadConfig)
		}
	}
}

// TestRevokedPeers: one whose certificate was revoked gets through a handshake between agents only to be told so, and no broker that
// was revoked is spoken to.
func TestRevokedPeers(t *testing.T) {
	t.Parallel()
	a := certstest.New(t, alpha)
	thief, hub, me := a.Issue(token.Agent, "thief"), a.Issue(token.Broker, "main"), a.Issue(token.Agent, "me")
	at := time.Now().Add(-time.Second)
	l := openListed(t, a, certs.RefuseStale, a.CRL(certstest.CRL{Revoked: []certstest.Revoked{{Chain: thief.Chain, At: at}, {Chain: hub.Chain, At: at}}}))
	m := meet(t, certs.PeerServer(me.Pair(), l.trust, alpn), raw(thief.TLS()))
	if m.serverErr != nil || m.clientErr != nil {
		t.Fatalf("a revoked dialler: got %v, %v, want a connection that can carry the reason", m.serverErr, m.clientErr)
	}
	if p, err := certs.PeerOf(m.server, l.trust, time.Now()); problem.Of(err) != problem.CertRevoked || p.Identity != "" {
		t.Errorf("a revoked dialler: got %q, %v, want nobody and %s", p.Identity, err, problem.CertRevoked)
	}
	m = meet(t, certs.PeerServer(thief.Pair(), l.trust, alpn), certs.PeerClient(me.Pair(), l.trust, alpn, ""))
	if _, err := certs.PeerOf(m.client, l.trust, time.Now()); problem.Of(err) != problem.CertRevoked {
		t.Errorf("a revoked listener: got %v, want %s", err, problem.CertRevoked)
	}
	m = meet(t, certs.BrokerServer(hub.Pair()), certs.BrokerClient(me.Pair(), l.trust, hub.Pair().Identity()))
	if problem.Of(m.clientErr) != problem.CertRevoked {
		t.Errorf("a revoked broker: got %v, want %s", m.clientErr, problem.CertRevoked)
	}
}

// FuzzRevocationLists holds that no file forgives what was revoked, and that a refusal is one of the configuration.
func FuzzRevocationLists(f *testing.F) {
	a := certstest.New(f, alpha)
	thief := a.Issue(token.Agent, "thief")
	now := time.Now()
	revoked := a.CRL(certstest.CRL{Number: 2, Revoked: []certstest.Revoked{{Chain: thief.Chain, At: now.Add(-time.Minute)}}})
	f.Add(a.CRL(certstest.CRL{Number: 1}))
	f.Add(revoked)
	f.Add(a.Intermediate(now.Add(-time.Hour), now.Add(time.Hour)).CRL(certstest.CRL{Number: 1}))
	dir := f.TempDir()
	files := certs.TrustFiles{Bundles: map[token.Provider]string{alpha: a.BundleFile(dir)}, CRLs: map[token.Provider]string{alpha: a.Put(dir, "crl", revoked)}}
	trust, err := files.Open()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(files.CRLs[alpha], data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := trust.Reload(); err != nil && problem.Of(err) != problem.BadConfig {
			t.Fatalf("got %v, want %s", err, problem.BadConfig)
		}
		if _, err := trust.Verify(thief.Chain, now); problem.Of(err) != problem.CertRevoked {
			t.Fatalf("got %v, want %s", err, problem.CertRevoked)
		}
	})
}
