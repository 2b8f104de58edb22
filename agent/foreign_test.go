package agent

import (
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestAuthorityOfOneProviderNamesAnother: an authority that nothing constrains names agents, accounts and the broker of another provider, at
// the lane's both ends and in an order's signatures. Nothing is served, nothing is asked for, and no order of it is carried out.
func TestAuthorityOfOneProviderNamesAnother(t *testing.T) {
	t.Parallel()
	wild := func(p token.Provider) *certstest.CA { return certstest.NewUnconstrained(t, p) }
	t.Run("dialling the source", func(t *testing.T) {
		t.Parallel()
		w := newWorldOf(t, wild("north.test"), wild("south.test"), wild("hub.test"))
		w.src.start()
		s := w.spec(w.order(), 1, w.random("in/a", 100))
		capability := w.served(s)
		for name, leaf := range map[string]*certstest.Leaf{
			"the source's provider names the destination": w.north.Issue(token.Agent, "x", certstest.As(string(w.dst.port.id))),
			"the broker's domain names the destination":   w.hub.Issue(token.Agent, "x", certstest.As(string(w.dst.port.id))),
			"with the key of the real one":                w.north.Issue(token.Agent, "x", certstest.As(string(w.dst.port.id)), certstest.ForKey(w.dst.conf.Pair.Signer())),
			"with the destination's authority behind it": {
				Chain: append(w.north.Issue(token.Agent, "x", certstest.As(string(w.dst.port.id)), certstest.ForKey(w.dst.conf.Pair.Signer())).Chain, w.south.Root()), Key: w.dst.conf.Pair.Signer(),
			},
		} {
			// All that the alert of TLS says of it.
			wantCode(t, name, w.thief(certstest.NewLeaf(t, leaf.Chain, leaf.Key).Pair()).hello(s, capability), problem.CertMisused)
		}
	})
	t.Run("listening for the destination", func(t *testing.T) {
		t.Parallel()
		w := newWorldOf(t, wild("north.test"), wild("south.test"), wild("hub.test"))
		asked := false
		honest := w.src.conf.Pair
		w.src.conf.Pair = w.south.Issue(token.Agent, "x", certstest.As(string(w.src.port.id)), certstest.ForKey(honest.Signer())).Pair()
		w.serveLies(func(link.Stream, link.Lane, wire.Request) { asked = true })
		w.dst.start()
		s := w.spec(w.order(), 1, w.random("in/a", 100))
		_, receive := w.tasks(s)
		w.broker.give(w.dst.port, receive)
		poll(t, "the dialler to give up", func() bool {
			w.dst.agent.mu.Lock()
			defer w.dst.agent.mu.Unlock()
			for _, p := range w.dst.agent.pools {
				for _, sl := range p.slots {
					sl.mu.Lock()
					why := sl.why
					sl.mu.Unlock()
					if problem.Of(why) == problem.CertUnknown || problem.Of(why) == problem.CertMisused {
						return true
					}
				}
			}
			return false
		})
		if asked {
			t.Error("the false source was asked for something")
		}
	})
	t.Run("signing an order", func(t *testing.T) {
		t.Parallel()
		w := newWorldOf(t, wild("north.test"), wild("south.test"), wild("hub.test"))
		w.dst.start()
		for name, leaf := range map[string]*certstest.Leaf{
			"the other provider names the account": w.north.Issue(token.Subscriber, "x", certstest.As(string(w.account("south.test")))),
			"the broker's domain names it":         w.hub.Issue(token.Subscriber, "x", certstest.As(string(w.account("south.test")))),
			"expired, at that":                     w.hub.Issue(token.Subscriber, "x", certstest.As(string(w.account("south.test"))), certstest.Expired()),
		} {
			w.alice["south.test"] = leaf
			_, receive := w.tasks(w.spec(w.order(), 1, w.random("in/b", 5)))
			w.broker.give(w.dst.port, receive)
			if p := w.broker.refusal(receive.ID); p.Code != problem.CertUnknown {
				t.Errorf("%s: got %q, want %s", name, p.Code, problem.CertUnknown)
			}
		}
	})
}

// TestProvidersWithOtherKinds copies between providers whose authorities, agents and accounts have keys of other kinds: orders and receipts
// are signed with what the certificates have.
func TestProvidersWithOtherKinds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name       string
		ca         certstest.KeyKind
		agent, acc certstest.KeyKind
	}{
		{"RSA", certstest.RSA3072, certstest.RSA2048, certstest.RSA2048}, {"P-384", certstest.P384, certstest.P384, certstest.P384},
		{"Ed25519", certstest.Ed25519, certstest.Ed25519, certstest.Ed25519},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorldOf(t, certstest.NewWithKey(t, "north.test", tt.ca), certstest.New(t, "south.test"), certstest.NewWithKey(t, "hub.test", tt.ca))
			w.alice["north.test"] = w.north.Issue(token.Subscriber, "alice", certstest.WithKey(tt.acc))
			pair := w.north.Issue(token.Agent, "a", certstest.WithKey(tt.agent), certstest.Valid(time.Now().Add(-time.Minute), time.Now().Add(time.Hour))).Pair()
			w.src.conf.Pair, w.src.port = pair, w.broker.port(pair)
			w.src.start()
			w.dst.start()
			s := w.spec(w.order(), 1, w.random("in/a", 5), w.random("in/big", 3<<20))
			src, dst := w.run(s)
			checkMatch(t, src, dst)
			checkAll(t, dst, token.Stored)
			w.checkCopied(s)
		})
	}
}
