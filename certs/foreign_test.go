package certs_test

import (
	"crypto"
	"crypto/tls"
	"testing"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestAuthorityOfOneProviderNamesAnother: an authority of B that nothing in its certificate constrains names an agent, a subscriber, the
// broker, the authority and the bundle endpoint of A. Nobody who listens or dials takes that for A's, with A's authorities or its own in the
// chain, under A's intermediate, and whatever the dates.
func TestAuthorityOfOneProviderNamesAnother(t *testing.T) {
	t.Parallel()
	now := time.Now()
	a, b := certstest.NewUnconstrained(t, alpha), certstest.NewUnconstrained(t, beta)
	trust := certstest.Trust(a, b)
	me, hub := a.Issue(token.Agent, "me").Pair(), a.Issue(token.Broker, "main").Pair()
	listens := func(server *tls.Config) func(*certstest.Leaf) error {
		return func(l *certstest.Leaf) error {
			m := meet(t, server, raw(l.TLS()))
			if m.serverErr != nil {
				return m.serverErr
			}
			_, err := certs.PeerOf(m.server, trust, now)
			return err
		}
	}
	dials := func(client *tls.Config) func(*certstest.Leaf) error {
		return func(l *certstest.Leaf) error {
			server := &tls.Config{Certificates: []tls.Certificate{l.TLS()}, ClientAuth: tls.RequestClientCert, NextProtos: []string{alpn}}
			m := meet(t, server, client)
			if m.clientErr != nil {
				return m.clientErr
			}
			_, err := certs.PeerOf(m.client, trust, now)
			return err
		}
	}
	judges := func(at time.Time) func(*certstest.Leaf) error {
		return func(l *certstest.Leaf) error { _, err := trust.Verify(l.Chain, at); return err }
	}
	for _, door := range []struct {
		name string
		role token.Role
		as   string
		try  func(*certstest.Leaf) error
	}{
		{"the broker listens", token.Subscriber, string(aliceAtA), listens(certs.BrokerServer(hub))},
		{"the broker listens to agents", token.Agent, "spiffe://a.example/agent/x", listens(certs.BrokerServer(hub))},
		{"an agent listens", token.Agent, "spiffe://a.example/agent/x", listens(certs.PeerServer(me, trust, alpn))},
		{"an agent dials", token.Agent, "spiffe://a.example/agent/x", dials(certs.PeerClient(me, trust, alpn, "spiffe://a.example/agent/x"))},
		{"an agent dials anybody", token.Agent, "spiffe://a.example/agent/x", dials(certs.PeerClient(me, trust, alpn, ""))},
		{"a client dials its broker", token.Broker, "spiffe://a.example/broker/main", dials(certs.BrokerClient(me, trust, "spiffe://a.example/broker/main"))},
		{"a renewal dials its authority", token.Agent, certs.IssuerName(alpha), dials(certs.IssuerClient(me, trust))},
		{"a follower dials a bundle endpoint", token.Agent, "spiffe://a.example/spire/server", dials(certs.BundleClient(trust, "spiffe://a.example/spire/server"))},
		{"an order's chain", token.Subscriber, string(aliceAtA), judges(now)},
		{"a receipt's chain", token.Agent, "spiffe://a.example/agent/x", judges(now.Add(-30 * time.Second))},
	} {
		t.Run(door.name, func(t *testing.T) {
			t.Parallel()
			honest := a.Issue(door.role, "x", certstest.As(door.as))
			if err := door.try(honest); err != nil && problem.Of(err) != problem.CertMisused { // an authority's name is no peer's
				t.Fatalf("by A's own authority: got %v", err)
			}
			forged := b.Issue(door.role, "x", certstest.As(door.as))
			with := func(more ...certs.Chain) *certstest.Leaf {
				l := &certstest.Leaf{Chain: forged.Chain[:1:1], Key: forged.Key}
				for _, c := range more {
					l.Chain = append(l.Chain, c...)
				}
				return l
			}
			below := b.Intermediate(now.Add(-time.Hour), now.Add(time.Hour))
			for how, leaf := range map[string]*certstest.Leaf{
				"plainly":                           forged,
				"with B's root":                     with(certs.Chain{b.Root()}),
				"with A's root":                     with(certs.Chain{a.Root()}),
				"with both":                         with(certs.Chain{b.Root()}, certs.Chain{a.Root()}),
				"by an intermediate of B":           below.Issue(door.role, "x", certstest.As(door.as)),
				"by an intermediate in A's name":    b.Named(a.Root().Subject).Issue(door.role, "x", certstest.As(door.as)),
				"expired":                           b.Issue(door.role, "x", certstest.As(door.as), certstest.Expired()),
				"not yet valid":                     b.Issue(door.role, "x", certstest.As(door.as), certstest.NotYet()),
				"as one of two names, B's first":    b.Issue(door.role, "x", certstest.AlsoURI(door.as)),
				"as one of two names, A's first":    b.Issue(door.role, "x", certstest.As(door.as), certstest.AlsoURI("spiffe://b.example/agent/x")),
				"with a key that A certified, too":  b.Issue(door.role, "x", certstest.As(door.as), certstest.ForKey(honest.Key)),
				"behind A's leaf, with its own key": {Chain: append(certs.Chain{forged.Chain[0]}, honest.Chain...), Key: forged.Key},
			} {
				err := door.try(leaf)
				if code := codeOf(err); code != problem.CertUnknown && code != problem.CertMisused {
					t.Errorf("%s: got %v, want a refusal", how, err)
				}
			}
		})
	}
}

// TestNameConstraintsAreTheSecondFence: crypto/x509 takes sub.a.example for a name below a.example, so the domains are compared
// exactly first; and when an operator has put the wrong authority in a bundle, a constraint in it still holds.
func TestNameConstraintsAreTheSecondFence(t *testing.T) {
	t.Parallel()
	const sub = token.Provider("sub.a.example")
	now := time.Now()
	a, below, b := certstest.New(t, alpha), certstest.New(t, sub), certstest.New(t, beta)
	wild := certstest.NewUnconstrained(t, beta)
	trapped := a.Issue(token.Agent, "x", certstest.As("spiffe://sub.a.example/agent/x"))
	misplaced := func(ca *certstest.CA, p token.Provider) *certs.Trust {
		trust, err := certs.OpenTrust(map[token.Provider]string{p: ca.Put(t.TempDir(), "bundle", certs.Chain{ca.Root()}.PEM())})
		if err != nil {
			t.Fatal(err)
		}
		return trust
	}
	for _, tt := range []struct {
		name  string
		trust *certs.Trust
		leaf  *certstest.Leaf
		want  problem.Code
	}{
		{"a name below one's own, of nobody", certstest.Trust(a), trapped, problem.CertUnknown},
		{"a name below one's own, of somebody", certstest.Trust(a, below), trapped, problem.CertUnknown},
		{"that somebody", certstest.Trust(a, below), below.Issue(token.Agent, "x"), ""},
		{"a name above one's own", certstest.Trust(a, below), below.Issue(token.Agent, "x", certstest.As("spiffe://a.example/agent/x")), problem.CertUnknown},
		{"the trap of x509, by a bundle with the wrong authority", misplaced(a, sub), trapped, ""}, // nothing is left that could refuse it
		{"B's constrained authority in A's bundle names A", misplaced(b, alpha), b.Issue(token.Agent, "x", certstest.As("spiffe://a.example/agent/x")), problem.CertUnknown},
		{"B's unconstrained authority in A's bundle names A", misplaced(wild, alpha), wild.Issue(token.Agent, "x", certstest.As("spiffe://a.example/agent/x")), ""},
		{"an intermediate that is not constrained, below one that is", certstest.Trust(a), a.Intermediate(now.Add(-time.Hour), now.Add(time.Hour)).Issue(token.Agent, "x",
			certstest.As("spiffe://sub.a.example/agent/x")), problem.CertUnknown},
	} {
		if _, err := tt.trust.Verify(tt.leaf.Chain, now); problem.Of(err) != tt.want {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}

// kinds are the keys that certificates may have, of leaves and of authorities.
var kinds = map[string]certstest.KeyKind{
	"RSA 2048": certstest.RSA2048, "RSA 3072": certstest.RSA3072, "P-256": certstest.P256, "P-384": certstest.P384, "Ed25519": certstest.Ed25519,
}

// TestEveryKindOfKey lets leaves of every kind, under authorities of every kind, through every door from both sides.
func TestEveryKindOfKey(t *testing.T) {
	t.Parallel()
	keys := map[string]crypto.Signer{}
	seed := certstest.New(t, alpha)
	for name, kind := range kinds {
		keys[name] = seed.Issue(token.Agent, "x", certstest.WithKey(kind)).Key
	}
	for by, kind := range kinds {
		ca := certstest.NewWithKey(t, alpha, kind)
		for of, key := range keys {
			t.Run(of+" by "+by, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				trust, err := certs.OpenTrust(map[token.Provider]string{alpha: ca.BundleFile(dir)})
				if err != nil {
					t.Fatal(err)
				}
				one, hub := ca.Issue(token.Agent, "one", certstest.ForKey(key)), ca.Issue(token.Broker, "main", certstest.ForKey(key))
				pair, err := certs.OpenPair(one.Files(dir)) // as files, whose key has a form for each kind
				if err != nil {
					t.Fatal(err)
				}
				for name, m := range map[string]meeting{
					"agents": meet(t, certs.PeerServer(pair, trust, alpn), certs.PeerClient(pair, trust, alpn, pair.Identity())),
					"broker": meet(t, certs.BrokerServer(hub.Pair()), certs.BrokerClient(pair, trust, "spiffe://a.example/broker/main")),
				} {
					if m.serverErr != nil || m.clientErr != nil {
						t.Errorf("%s: got %v, %v", name, m.serverErr, m.clientErr)
						continue
					}
					if p, err := certs.PeerOf(m.server, trust, time.Now()); err != nil || p.Identity != pair.Identity() {
						t.Errorf("%s: got %q, %v", name, p.Identity, err)
					}
				}
				signer, err := token.NewSigner(pair.Signer())
				if err != nil {
					t.Fatal(err)
				}
				o := token.Order{
					Accounts: []token.Identity{aliceAtA}, Do: token.List, Scope: token.Tree, Iat: 1, Exp: 3600, ID: "0192f0c1-2345-7abc-8def-0123456789ab",
					From: token.Location{Provider: alpha, Container: "c"},
				}
				jws, err := signer.Order(o)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := token.VerifyOrder(jws, one.Chain[0].PublicKey); err != nil {
					t.Errorf("an order: %v", err)
				}
			})
		}
	}
}
