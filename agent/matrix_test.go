package agent

import (
	"context"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

// A statement is one that can be signed by anybody.
type statement struct {
	kind string // what its header says
	sign func(token.Signer) (string, error)
}

// A reading is where an agent reads a statement from.
type reading struct {
	kind string                  // that it takes
	by   string                  // whose signature it takes
	want map[string]problem.Code // for statements of that kind and signer; those that are taken are not there
	give func(tok string) error
}

func signerOf(t testing.TB, l *certstest.Leaf) token.Signer {
	t.Helper()
	s, err := token.NewSigner(l.Key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// statements is one of each kind, about the batch s, which the source serves by the capability that it returns as well.
func (w *world) statements(s *spec) (map[string]statement, token.Order) {
	o := w.order()
	standing, listing := w.order(), w.lookupOrder(token.List, token.Location{Provider: "north.test", Container: "data", Name: "in"})
	standing.Period = 600
	withdrawal := w.withdrawal(s.order, w.account("north.test"))
	read := w.broker.minted[s.ref()].c
	read.Gen, read.Cnf, read.Iat = 1, w.dst.port.pair.LeafHash(), time.Now().Unix()
	read.Exp = read.Iat + 900
	link := tokentest.Link()
	link.Aud = w.broker.id
	list := token.Revocation{Epoch: 1 << 50, Iat: time.Now().Unix(), Iss: w.broker.id, Revoked: []token.Revoked{entry(s.order.ID, token.ByCancel)}}
	order := func(o token.Order) statement {
		return statement{"order", func(s token.Signer) (string, error) { return s.Order(o) }}
	}
	return map[string]statement{
		"an order to copy": order(o), "a standing order": order(standing), "an order to list": order(listing), "an order to withdraw": order(withdrawal),
		"a session order":        {"session order", func(s token.Signer) (string, error) { return s.SessionOrder(o) }},
		"a capability to read":   {"capability", func(s token.Signer) (string, error) { return s.Capability(read) }},
		"a capability to create": {"capability", func(s token.Signer) (string, error) { return s.Capability(mirrored(read)) }},
		"a receipt":              {"receipt", func(s token.Signer) (string, error) { return s.Receipt(tokentest.Receipt()) }},
		"a link":                 {"link", func(s token.Signer) (string, error) { return s.Link(link) }},
		"a list of revocations":  {"revocation", func(s token.Signer) (string, error) { return s.Revocation(list) }},
	}, o
}

// TestStatementsInTheWrongPlace: every kind of statement, signed with every key, wherever an agent reads one. It is refused for what it
// is before it is looked at whose it is, and nothing comes of it.
func TestStatementsInTheWrongPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.trusting() // so that it is the kind which is refused
	w.src.start()
	w.dst.start()
	a := w.random("in/a", 100)
	good := w.spec(w.order(), 1, a)
	capability := w.served(good)
	statements, o := w.statements(good)
	holder, session, tries := w.thief(w.dst.conf.Pair), w.src.agent.sessions[0], 0
	// A task for the order of the statements, with one word of it replaced.
	task := func(n *node, change func(t *api.Task)) error {
		s := w.spec(o, 1, a)
		serve, receive := w.tasks(s)
		k := serve
		if n == w.dst {
			k = receive
		}
		change(&k)
		return n.agent.sessions[0].dispatch(context.Background(), k)
	}
	lookup := func(tok string) error {
		so := w.signOrder(w.lookupOrder(token.List, token.Location{Provider: "north.test", Container: "data", Name: "in"}))
		so.JWS[0] = tok
		return session.dispatch(context.Background(), api.Task{ID: "look", Kind: api.ListTask, Order: so})
	}
	withdraw := func(tok string) error {
		so := w.signOrder(w.withdrawal(good.order, w.account("north.test")))
		so.JWS[0] = tok
		return session.dispatch(context.Background(), api.Task{ID: "withdraw", Kind: api.WithdrawTask, Order: so})
	}
	unlike, differs := problem.WrongStatement, problem.OrderUnsigned // the second: the two signatures are of different orders
	places := map[string]reading{
		"a hello": {"capability", "the broker", map[string]problem.Code{"a capability to create": problem.CapAudience}, func(tok string) error {
			if tries++; holder.lane != nil && tries%8 == 0 {
				_ = holder.lane.Close("", "") // before the source does, after so many
			}
			return holder.hello(good, tok)
		}},
		"the order of a task": {"order", "alice at north", map[string]problem.Code{
			"a standing order": differs, "an order to list": differs, "an order to withdraw": differs,
		}, func(tok string) error {
			return task(w.src, func(k *api.Task) { k.Order.JWS = []string{tok, k.Order.JWS[1]} })
		}},
		"its second signature": {"order", "alice at south", map[string]problem.Code{
			"a standing order": differs, "an order to list": differs, "an order to withdraw": differs,
		}, func(tok string) error {
			return task(w.src, func(k *api.Task) { k.Order.JWS = []string{k.Order.JWS[0], tok} })
		}},
		"the word of a task": {"session order", "the broker", map[string]problem.Code{"a session order": unlike}, func(tok string) error {
			return task(w.src, func(k *api.Task) { k.Order = api.SignedOrder{Session: tok} })
		}},
		"the order of a listing": {"order", "alice at north", map[string]problem.Code{
			"an order to copy": differs, "a standing order": differs, "an order to withdraw": problem.OrderNotCovered,
		}, lookup},
		"a withdrawal": {"order", "alice at north", map[string]problem.Code{
			"an order to copy": differs, "a standing order": differs, "an order to list": problem.OrderNotCovered,
		}, withdraw},
		"the source's capability": {"capability", "the broker", map[string]problem.Code{
			"a capability to read": unlike, "a capability to create": problem.CapAudience,
		}, func(tok string) error { return task(w.src, func(k *api.Task) { k.Capability = tok }) }},
		"the destination's capability": {"capability", "the broker", map[string]problem.Code{
			"a capability to read": problem.CapAudience, "a capability to create": unlike,
		}, func(tok string) error { return task(w.dst, func(k *api.Task) { k.Capability = tok }) }},
		"the capability to present": {"capability", "the broker", map[string]problem.Code{
			"a capability to read": unlike, "a capability to create": problem.CapAudience,
		}, func(tok string) error { return task(w.dst, func(k *api.Task) { k.Present = tok }) }},
		"a list of revocations": {"revocation", "the broker", nil, func(tok string) error { return session.takeRevocations(tok, time.Now()) }},
	}
	w.present(statements, places, map[string]token.Signer{
		"the broker": w.broker.signer, "alice at north": signerOf(t, w.alice["north.test"]), "alice at south": signerOf(t, w.alice["south.test"]),
		"an agent": signerOf(t, w.north.Issue(token.Agent, "x")),
	})
	if session.epoch() != 0 {
		t.Error("a list was taken over")
	}
	if err := w.src.agent.withdrawn.check(good.order); err != nil {
		t.Errorf("the order was withdrawn: %v", err)
	}
	wantCode(t, "the capability", holder.hello(good, capability), "")
}

// present gives each statement, by each signer, to each place that does not take it, and checks what is said to it.
func (w *world) present(statements map[string]statement, places map[string]reading, signers map[string]token.Signer) {
	w.t.Helper()
	n := 0
	for by, key := range signers {
		for what, st := range statements {
			tok, err := st.sign(key)
			if err != nil {
				w.t.Fatal(err)
			}
			for at, p := range places {
				want := p.want[what]
				switch {
				case st.kind != p.kind:
					want = problem.WrongStatement
				case by != p.by:
					want = problem.UnknownKey
				case want == "": // its right place
					continue
				}
				n++
				if err := p.give(tok); problem.Of(err) != want {
					w.t.Errorf("%s by %s as %s: got %v, want %s", what, by, at, err, want)
				}
			}
		}
	}
	w.t.Logf("%d statements in the wrong place", n)
}

// TestEveryTokenWithEveryOtherCertificate: an order is as good as the certificate beside it: the one certificate, that of the very account that
// it names, of the key that signed it, by the account's own domain, and now.
func TestEveryTokenWithEveryOtherCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.src.start()
	a := w.random("in/a", 100)
	session := w.src.agent.sessions[0]
	ordered := func(i int) func(string) error {
		return func(chain string) error {
			serve, _ := w.tasks(w.spec(w.order(), 1, a))
			serve.Order.Chains[i] = chain
			return session.dispatch(context.Background(), serve)
		}
	}
	single := func(kind api.TaskKind, o token.Order) func(string) error {
		return func(chain string) error {
			so := w.signOrder(o)
			so.Chains[0] = chain
			return session.dispatch(context.Background(), api.Task{ID: "x", Kind: kind, Order: so})
		}
	}
	target := w.order()
	n := 0
	for at, tt := range map[string]struct {
		leaf *certstest.Leaf
		give func(chain string) error
	}{
		"the order of a task":    {w.alice["north.test"], ordered(0)},
		"its second signature":   {w.alice["south.test"], ordered(1)},
		"the order of a listing": {w.alice["north.test"], single(api.ListTask, w.lookupOrder(token.List, token.Location{Provider: "north.test", Container: "data", Name: "in"}))},
		"a withdrawal":           {w.alice["north.test"], single(api.WithdrawTask, w.withdrawal(target, w.account("north.test")))},
	} {
		me, err := certs.IdentityOf(tt.leaf.Chain[0])
		if err != nil {
			t.Fatal(err)
		}
		ca, far := w.north, w.south
		if me.Provider() == far.Domain() {
			ca, far = far, ca
		}
		same := certstest.ForKey(tt.leaf.Key)
		for of, s := range map[string]struct {
			chain certs.Chain
			want  problem.Code
		}{
			"of another, with another key":         {ca.Issue(me.Role(), "bob").Chain, problem.UnknownKey},
			"of the same, with another key":        {ca.Issue(me.Role(), me.Name()).Chain, problem.UnknownKey},
			"of the other provider's":              {far.Issue(me.Role(), me.Name()).Chain, problem.UnknownKey},
			"of an agent":                          {ca.Issue(token.Agent, "a").Chain, problem.UnknownKey},
			"of the authority":                     {certs.Chain{ca.Root()}, problem.UnknownKey},
			"behind another's":                     {append(ca.Issue(me.Role(), "bob").Chain, tt.leaf.Chain...), problem.UnknownKey},
			"of another, with the same key":        {ca.Issue(me.Role(), "bob", same).Chain, problem.OrderUnsigned},
			"of another role, with the same key":   {ca.Issue(token.Agent, me.Name(), same).Chain, problem.OrderUnsigned},
			"of the other provider, the same key":  {far.Issue(me.Role(), me.Name(), same).Chain, problem.OrderUnsigned},
			"of a foreign authority, the same key": {certstest.NewUnconstrained(t, far.Domain()).Issue(me.Role(), "x", same, certstest.As(string(me))).Chain, problem.CertUnknown},
			"that has ended":                       {ca.Issue(me.Role(), me.Name(), same, certstest.Expired()).Chain, problem.CertExpired},
			"that has not begun":                   {ca.Issue(me.Role(), me.Name(), same, certstest.NotYet()).Chain, problem.CertNotYet},
			"without a name":                       {ca.Issue(me.Role(), me.Name(), same, certstest.NoURI()).Chain, problem.CertMisused},
			"of two names":                         {ca.Issue(me.Role(), me.Name(), same, certstest.AlsoURI("spiffe://north.test/agent/x")).Chain, problem.CertMisused},
		} {
			if of == "without a name" && tt.leaf != w.alice["north.test"] {
				continue // whose a plain certificate of the other provider is, only that provider's file says: its own agent judges it
			}
			n++
			if err := tt.give(string(s.chain.PEM())); problem.Of(err) != s.want {
				t.Errorf("%s with a certificate %s: got %v, want %s", at, of, err, s.want)
			}
		}
	}
	t.Logf("%d tokens with another certificate", n)
	if err := w.src.agent.withdrawn.check(target); err != nil {
		t.Errorf("the order was withdrawn: %v", err)
	}
	if len(w.src.agent.of("")) != 0 {
		t.Error("a batch was taken")
	}
}
