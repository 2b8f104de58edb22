package main

import (
	"context"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/consign-transfer/consign/agent/link"
	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A fault is one way to be refused, and what the subscriber is told of it.
type fault struct {
	name string
	make func(*testing.T, *office) verdict
	want problem.Code
	says string // a part of the sentence
}

// TestEveryRefusalHasAReason makes every fault of authentication and authorisation that there is, on every side, and wants the subscriber to
// read its code, one sentence that names the certificate and the date where that is the cause, and a remedy, and nothing of our insides nor of
// strangers.
func TestEveryRefusalHasAReason(t *testing.T) {
	t.Parallel()
	cas := map[token.Provider]*certstest.CA{"north": certstest.New(t, "north"), "south": certstest.New(t, "south"), "east": certstest.New(t, "east")}
	revoked := cas["south"].Issue(token.Agent, "revoked")
	o := newOffice(t, []*certstest.Leaf{revoked}, "identity spiffe://south/agent/shutout\n", cas)
	faults := subscriberFaults()
	faults = append(faults, brokerFaults()...)
	faults = append(faults, doorFaults()...)
	faults = append(faults, sourceFaults(revoked)...)
	faults = append(faults, destinationFaults()...)
	faults = append(faults, orderFaults()...)
	if len(faults) < 24 {
		t.Errorf("got %d faults, want 24 at least", len(faults))
	}
	t.Run("faults", func(t *testing.T) {
		for _, f := range faults {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				f.make(t, o).check(t, f.want, f.says)
			})
		}
	})
}

// subscriberFaults are of the subscriber's own certificate: as the command line finds them before it asks, and as the broker explains
// them in HTTP to a program that does not look.
func subscriberFaults() []fault {
	own := func(opts ...certstest.Option) func(*testing.T, *office) verdict {
		return func(t *testing.T, o *office) verdict {
			return said(t, o.configure(o.url, o.account(o.north.Issue(token.Subscriber, "alice", opts...))), "transfer", "list")
		}
	}
	asks := func(leaf func(*office) *certstest.Leaf) func(*testing.T, *office) verdict {
		return func(t *testing.T, o *office) verdict {
			_, err := o.client(leaf(o)).Transfers(t.Context(), "", "", 0)
			return answered(t, err)
		}
	}
	issue := func(name string, opts ...certstest.Option) func(*office) *certstest.Leaf {
		return func(o *office) *certstest.Leaf { return o.north.Issue(token.Subscriber, name, opts...) }
	}
	return []fault{
		{"subscriber/own certificate expired, before it asks", own(certstest.Expired()), problem.CertExpired, "spiffe://north/subscriber/alice"},
		{"subscriber/own certificate not yet valid, before it asks", own(certstest.NotYet()), problem.CertNotYet, "spiffe://north/subscriber/alice"},
		{"subscriber/expired", asks(issue("alice", certstest.Expired())), problem.CertExpired, "3 days ago"},
		{"subscriber/not yet valid", asks(issue("alice", certstest.NotYet())), problem.CertNotYet, "is not valid before"},
		{"subscriber/of an unknown authority", asks(func(o *office) *certstest.Leaf {
			return certstest.New(o.t, "north").Issue(token.Subscriber, "mallory")
		}), problem.CertUnknown, "authority"},
		{"subscriber/of an unknown authority and expired", asks(func(o *office) *certstest.Leaf {
			return certstest.New(o.t, "north").Issue(token.Subscriber, "mallory", certstest.Expired())
		}), problem.CertUnknown, "authority"},
		{"subscriber/of an unknown domain", asks(func(o *office) *certstest.Leaf {
			return certstest.New(o.t, "evil").Issue(token.Subscriber, "mallory")
		}), problem.CertUnknown, "No authority is trusted for the domain"},
		{"subscriber/of another domain's authority", asks(func(o *office) *certstest.Leaf {
			return o.south.Issue(token.Subscriber, "mallory", certstest.As("spiffe://north/subscriber/mallory"))
		}), problem.CertUnknown, "authority"},
		{"subscriber/for another use", asks(issue("mallory", certstest.For(x509.ExtKeyUsageServerAuth))), problem.CertMisused, "client authentication"},
		{"subscriber/none sent", asks(func(*office) *certstest.Leaf { return nil }), problem.CertMissing, ""},
		{"subscriber/an agent's certificate", asks(func(o *office) *certstest.Leaf { return o.north.Issue(token.Agent, "one") }), problem.NotPermitted, `for the role "subscriber"`},
	}
}

// brokerFaults are of the broker's own certificate, as the command line explains them.
func brokerFaults() []fault {
	at := func(leaf func(*office) *certstest.Leaf) func(*testing.T, *office) verdict {
		return func(t *testing.T, o *office) verdict {
			return said(t, o.configure(o.serve(leaf(o).Pair()), o.account(o.alice["north"])), "transfer", "list")
		}
	}
	return []fault{
		{"broker/expired", at(func(o *office) *certstest.Leaf { return o.hub.Issue(token.Broker, "main", certstest.Expired()) }), problem.CertExpired, "spiffe://hub/broker/main"},
		{"broker/not yet valid", at(func(o *office) *certstest.Leaf { return o.hub.Issue(token.Broker, "main", certstest.NotYet()) }), problem.CertNotYet, "spiffe://hub/broker/main"},
		{"broker/of an unknown authority", at(func(o *office) *certstest.Leaf { return certstest.New(o.t, "hub").Issue(token.Broker, "main") }), problem.CertUnknown, "authority"},
		{"broker/for another use", at(func(o *office) *certstest.Leaf {
			return o.hub.Issue(token.Broker, "main", certstest.For(x509.ExtKeyUsageClientAuth))
		}), problem.CertMisused, "server authentication"},
	}
}

// doorFaults are of agents whose certificate the broker refuses. They cannot say so to anybody; the transfer that needs them does.
func doorFaults() []fault {
	refused := func(ca func(*office) *certstest.CA, opt certstest.Option, source bool) func(*testing.T, *office) verdict {
		return func(t *testing.T, o *office) verdict {
			p := o.puppet(ca(o), "").greet() // known, and not here
			from, to := "north:/src/a", "south:/"+string(p.container)+"/x"
			if source {
				from, to = "north:/"+string(p.container)+"/a", "south:/dst/"+p.id.Name()
			}
			id := o.cp(t, from, to)
			_, err := o.client(ca(o).Issue(token.Agent, p.id.Name(), opt)).Hello(t.Context(), api.Hello{})
			return o.denied(t, id, problem.Of(err))
		}
	}
	north, south := func(o *office) *certstest.CA { return o.north }, func(o *office) *certstest.CA { return o.south }
	return []fault{
		{"door/destination's agent expired", refused(south, certstest.Expired(), false), problem.CertExpired, " of south away: the certificate of spiffe://south/agent/p"},
		{"door/destination's agent not yet valid", refused(south, certstest.NotYet(), false), problem.CertNotYet, " of south away: the certificate of spiffe://south/agent/p"},
		{"door/source's agent expired", refused(north, certstest.Expired(), true), problem.CertExpired, " of north away: the certificate of spiffe://north/agent/p"},
		{"door/source's agent not yet valid", refused(north, certstest.NotYet(), true), problem.CertNotYet, " of north away: the certificate of spiffe://north/agent/p"},
	}
}

// sourceFaults are of who dials the source, whose agent is a real one. The puppet that is refused tells the broker of it only where the source
// cannot know whom it refused.
func sourceFaults(revoked *certstest.Leaf) []fault {
	knocks := func(name string, want problem.Code, leaf func(*office, *puppet) *certstest.Leaf) func(*testing.T, *office) verdict {
		return func(t *testing.T, o *office) verdict {
			p := o.puppet(o.south, name)
			p.on = func(k api.Task) {
				if k.Kind != api.ReceiveTask {
					return
				}
				l := leaf(o, p)
				var pair *certs.Pair
				if l != nil {
					pair = l.Pair()
				}
				err := p.knock(k, certs.PeerClient(pair, o.trust, wire.ALPN, ""))
				for range 8 { // as an agent does: the source may not have its task yet
					again := time.NewTimer(500 * time.Millisecond)
					select {
					case <-t.Context().Done():
						again.Stop()
						return
					case <-again.C:
					}
					err = p.knock(k, certs.PeerClient(pair, o.trust, wire.ALPN, ""))
				}
				if l != nil || problem.Of(err) != want {
					return
				}
				m, _, _ := token.ParseManifest(k.Manifest)
				e := problem.As(err)
				_ = p.client.Report(t.Context(), api.Reports{Reports: []api.Report{{ // what became of it is waited for
					Ref: api.Ref{Xfr: m.Xfr, Bat: m.Bat}, Peer: k.Peer.ID, By: api.ByPeer, At: api.AtLane, Code: e.Code, Detail: e.Sentence(),
				}}})
			}
			p.start()
			return o.denied(t, o.cp(t, "north:/src/a", "south:/"+string(p.container)+"/x"), want)
		}
	}
	itself := func(opts ...certstest.Option) func(*office, *puppet) *certstest.Leaf {
		return func(o *office, p *puppet) *certstest.Leaf { return o.south.Issue(token.Agent, p.id.Name(), opts...) }
	}
	const claims = "Somebody who says to be agent p"
	return []fault{
		{"source/expired", knocks("", problem.CertExpired, itself(certstest.Expired())), problem.CertExpired, " of south could not connect to agent one of north: the certificate of spiffe://south/agent/p"},
		{"source/not yet valid", knocks("", problem.CertNotYet, itself(certstest.NotYet())), problem.CertNotYet, " of south could not connect to agent one of north: the certificate of spiffe://south/agent/p"},
		{"source/of an unknown authority", knocks("", problem.CertUnknown, func(o *office, p *puppet) *certstest.Leaf {
			return certstest.New(o.t, "south").Issue(token.Agent, p.id.Name())
		}), problem.CertUnknown, claims},
		{"source/of an unknown authority and expired", knocks("", problem.CertUnknown, func(o *office, p *puppet) *certstest.Leaf {
			return certstest.New(o.t, "south").Issue(token.Agent, p.id.Name(), certstest.Expired())
		}), problem.CertUnknown, claims},
		{"source/of another domain's authority", knocks("", problem.CertUnknown, func(o *office, p *puppet) *certstest.Leaf {
			return o.east.Issue(token.Agent, "mallory", certstest.As(string(p.id)))
		}), problem.CertUnknown, claims},
		{"source/beyond a name constraint", knocks("", problem.CertUnknown, func(o *office, p *puppet) *certstest.Leaf {
			return o.odd.Issue(token.Agent, "mallory", certstest.As(string(p.id)))
		}), problem.CertUnknown, claims},
		{"source/for another use", knocks("", problem.CertMisused, itself(certstest.For(x509.ExtKeyUsageClientAuth))), problem.CertMisused, claims},
		{"source/none sent", knocks("", problem.CertMissing, func(*office, *puppet) *certstest.Leaf { return nil }), problem.CertMissing, " of south could not connect to agent one of north"},
		{"source/revoked", knocks("revoked", problem.CertRevoked, func(*office, *puppet) *certstest.Leaf { return revoked }), problem.CertRevoked, "the certificate of spiffe://south/agent/revoked"},
		{"source/denied by the operator", knocks("shutout", problem.IDDenied, itself()), problem.IDDenied, "the operator has denied spiffe://south/agent/shutout"},
		{"source/a thief with a good certificate", knocks("", problem.CapNotYours, func(o *office, p *puppet) *certstest.Leaf {
			return o.south.Issue(token.Agent, "mallory")
		}), problem.CapNotYours, "Agent one of north refused somebody who came for batch 1 in the place of agent p"},
		{"source/a revocation list past its end", func(t *testing.T, o *office) verdict {
			p := o.puppet(o.east, "").greet()
			return o.denied(t, o.cp(t, "north:/src/a", "east:/"+string(p.container)+"/x"), problem.CRLStale)
		}, problem.CRLStale, `he revocation list of provider "east" ended on 20`},
	}
}

// destinationFaults are of who listens for the destination, whose agent is a real one.
func destinationFaults() []fault {
	answers := func(want problem.Code, leaf func(*office, *puppet) *certstest.Leaf) func(*testing.T, *office) verdict {
		return func(t *testing.T, o *office) verdict {
			p := o.puppet(o.north, "")
			e, err := link.ListenQUIC(link.Config{Addr: "127.0.0.1:0"})
			o.must(err)
			o.must(e.Serve(certs.PeerServer(leaf(o, p).Pair(), o.trust, wire.ALPN)))
			o.run(func(ctx context.Context) error {
				for ctx.Err() == nil {
					if _, err := e.Accept(ctx); err != nil {
						break
					}
				}
				return e.Close()
			})
			p.listen = []string{e.Addr().String()}
			p.on = func(k api.Task) {
				if k.Kind == api.StatTask {
					p.describe(k)
				}
			}
			p.start()
			return o.denied(t, o.cp(t, "north:/"+string(p.container)+"/a", "south:/dst/"+p.id.Name()), want)
		}
	}
	itself := func(opts ...certstest.Option) func(*office, *puppet) *certstest.Leaf {
		return func(o *office, p *puppet) *certstest.Leaf { return o.north.Issue(token.Agent, p.id.Name(), opts...) }
	}
	const cannot = "Agent one of south could not connect to agent p"
	return []fault{
		{"destination/expired", answers(problem.CertExpired, itself(certstest.Expired())), problem.CertExpired, cannot},
		{"destination/not yet valid", answers(problem.CertNotYet, itself(certstest.NotYet())), problem.CertNotYet, cannot},
		{"destination/of an unknown authority", answers(problem.CertUnknown, func(o *office, p *puppet) *certstest.Leaf {
			return certstest.New(o.t, "north").Issue(token.Agent, p.id.Name())
		}), problem.CertUnknown, cannot},
		{"destination/of an unknown authority and expired", answers(problem.CertUnknown, func(o *office, p *puppet) *certstest.Leaf {
			return certstest.New(o.t, "north").Issue(token.Agent, p.id.Name(), certstest.Expired())
		}), problem.CertUnknown, cannot},
		{"destination/of another domain's authority", answers(problem.CertUnknown, func(o *office, p *puppet) *certstest.Leaf {
			return o.east.Issue(token.Agent, "mallory", certstest.As(string(p.id)))
		}), problem.CertUnknown, cannot},
		{"destination/for another use", answers(problem.CertMisused, itself(certstest.For(x509.ExtKeyUsageServerAuth))), problem.CertMisused, cannot},
		{"destination/of another agent", answers(problem.CertMismatch, func(o *office, _ *puppet) *certstest.Leaf {
			return o.north.Issue(token.Agent, "mallory")
		}), problem.CertMismatch, cannot},
	}
}

// orderFaults are of rights and signatures.
func orderFaults() []fault {
	submits := func(change func(*token.Order), by func(*office) [2]*certstest.Leaf, as func(*office) *certstest.Leaf) func(*testing.T, *office) verdict {
		return func(t *testing.T, o *office) verdict {
			_, err := o.client(as(o)).Submit(t.Context(), o.signed(t, change, by(o)))
			return answered(t, err)
		}
	}
	alice := func(o *office) *certstest.Leaf { return o.alice["north"] }
	both := func(o *office) [2]*certstest.Leaf { return [2]*certstest.Leaf{o.alice["north"], o.alice["south"]} }
	nothing := func(*token.Order) {}
	return []fault{
		{"order/no right at the source", func(t *testing.T, o *office) verdict {
			return o.denied(t, o.cp(t, "north:/private/a", "south:/dst/private"), problem.NotPermitted)
		}, problem.NotPermitted, "spiffe://north/subscriber/alice"},
		{"order/no right at the destination", func(t *testing.T, o *office) verdict {
			return o.denied(t, o.cp(t, "north:/src/a", "south:/vault/a"), problem.NotPermitted)
		}, problem.NotPermitted, "spiffe://south/subscriber/alice"},
		{"order/no right at the broker", submits(nothing, both, func(o *office) *certstest.Leaf { return o.north.Issue(token.Subscriber, "bob") }), problem.NotPermitted, "was handed in by spiffe://north/subscriber/bob"},
		{"order/of somebody else", func(t *testing.T, o *office) verdict {
			id := o.cp(t, "north:/src/a", "south:/dst/hidden")
			return said(t, o.configure(o.url, o.account(o.north.Issue(token.Subscriber, "bob"))), "transfer", "show", string(id))
		}, problem.Hidden, "There is no transfer of that id that spiffe://north/subscriber/bob may see"},
		{"order/signed by another account", submits(nothing, func(o *office) [2]*certstest.Leaf {
			return [2]*certstest.Leaf{o.alice["north"], o.south.Issue(token.Subscriber, "bob")}
		}, alice), problem.OrderUnsigned, "names the account spiffe://south/subscriber/alice and was signed by spiffe://south/subscriber/bob"},
		{"order/signed by the wrong key", submits(nothing, func(o *office) [2]*certstest.Leaf {
			forged := certstest.NewLeaf(o.t, o.alice["south"].Chain, o.south.Issue(token.Subscriber, "alice").Key)
			return [2]*certstest.Leaf{o.alice["north"], forged}
		}, alice), problem.UnknownKey, ""},
		{"order/signed with an expired certificate", submits(nothing, func(o *office) [2]*certstest.Leaf {
			return [2]*certstest.Leaf{o.alice["north"], o.south.Issue(token.Subscriber, "alice", certstest.Expired())}
		}, alice), problem.CertExpired, "spiffe://south/subscriber/alice"},
		{"order/signed by an unknown authority's account", submits(nothing, func(o *office) [2]*certstest.Leaf {
			return [2]*certstest.Leaf{o.alice["north"], certstest.New(o.t, "south").Issue(token.Subscriber, "alice")}
		}, alice), problem.CertUnknown, "authority"},
		{"order/of an account that is not linked", func(t *testing.T, o *office) verdict {
			x := o.copyOrder(t, func(x *token.Order) { x.Accounts[1] = "spiffe://south/subscriber/bob" })
			_, err := o.client(o.alice["north"]).Submit(t.Context(), api.SignedOrder{JWS: []string{}, Chains: []string{}, Claims: &x})
			return answered(t, err)
		}, problem.NotLinked, "The account spiffe://south/subscriber/bob is not linked to spiffe://north/subscriber/alice"},
		{"order/past its end", submits(func(x *token.Order) { x.Iat, x.Exp = x.Iat-7200, x.Iat-3600 }, both, alice), problem.OrderExpired, ""},
		{"order/of a clock that is ahead", submits(func(x *token.Order) { x.Iat, x.Exp = x.Iat+3600, x.Exp+3600 }, both, alice), problem.OrderNotYet, ""},
		{"order/withdrawn", func(t *testing.T, o *office) verdict {
			p := o.puppet(o.south, "").greet() // never here, so that it waits
			id := o.cp(t, "north:/src/a", "south:/"+string(p.container)+"/x")
			if code, _, errOut := invoke(t, nil, "--config", o.config, "order", "withdraw", string(id)); code != 0 {
				t.Fatalf("withdrawing: got %d %s", code, errOut)
			}
			return said(t, o.config, "transfer", "wait", string(id))
		}, problem.OrderWithdrawn, "withdrawn"},
		{"order/an agent's clock is off", func(t *testing.T, o *office) verdict {
			p := o.puppet(o.south, "")
			p.on = func(k api.Task) {
				if k.Kind == api.ReceiveTask {
					bad := problem.New(problem.ClockSkewed, "The clocks of the broker and of this agent differ by 2h0m0s; set the clock that is wrong")
					_ = p.client.Refuse(t.Context(), k.ID, api.Refusal{Problem: *api.ProblemOf(bad)}) // what became of it is waited for
				}
			}
			p.start()
			return o.denied(t, o.cp(t, "north:/src/a", "south:/"+string(p.container)+"/x"), problem.ClockSkewed)
		}, problem.ClockSkewed, "differ by 2h0m0s"},
	}
}

// copyOrder is a copy order of alice's, changed as the caller wishes.
func (o *office) copyOrder(t *testing.T, change func(*token.Order)) token.Order {
	t.Helper()
	id, err := uuid.NewV7()
	o.must(err)
	now := time.Now().Unix()
	x := token.Order{
		Accounts: []token.Identity{"spiffe://north/subscriber/alice", "spiffe://south/subscriber/alice"}, Do: token.Copy, Scope: token.One,
		Iat: now, Exp: now + 3600, ID: token.TransferID(id.String()), IfExists: token.Fail,
		From: token.Location{Provider: "north", Container: "src", Name: "a"}, To: token.Location{Provider: "south", Container: "dst", Name: "signed"},
	}
	change(&x)
	return x
}

// signed is a copy order of alice's, signed by these two with the chains that they show.
func (o *office) signed(t *testing.T, change func(*token.Order), by [2]*certstest.Leaf) api.SignedOrder {
	t.Helper()
	x := o.copyOrder(t, change)
	var so api.SignedOrder
	for _, l := range by {
		s, err := token.NewSigner(l.Key)
		o.must(err)
		jws, err := s.Order(x)
		o.must(err)
		so.JWS, so.Chains = append(so.JWS, jws), append(so.Chains, string(l.Chain.PEM()))
	}
	return so
}

// TestAnExpiredAccountHidesNothing: what another account sees is listed though the first one's certificate has expired, and the
// command says which has.
func TestAnExpiredAccountHidesNothing(t *testing.T) {
	t.Parallel()
	cas := map[token.Provider]*certstest.CA{"north": certstest.New(t, "north"), "south": certstest.New(t, "south"), "east": certstest.New(t, "east")}
	o := newOffice(t, nil, "", cas)
	id := o.cp(t, "north:/src/a", "south:/dst/listed")
	expired := o.account(o.north.Issue(token.Subscriber, "alice", certstest.Expired()))
	config := o.configure(o.url, expired, o.account(o.alice["south"]))
	code, out, errOut := invoke(t, nil, "--config", config, "-o", "jsonl", "transfer", "list")
	if code != 0 || !strings.Contains(out, string(id)) {
		t.Errorf("got %d %s, want transfer %s", code, out, id)
	}
	if !strings.Contains(errOut, "warning: Your certificate for spiffe://north/subscriber/alice") {
		t.Errorf("got %q, want to be told of the certificate", errOut)
	}
}
