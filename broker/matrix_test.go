package broker

import (
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A statement is one that can be signed by anybody.
type statement struct {
	kind  string // what its header says
	order token.Order
	sign  func(token.Signer) (string, error)
}

// A place is where the broker reads a statement from.
type place struct {
	kind   string                  // that it takes; empty: none
	by     string                  // whose signature it takes
	second bool                    // of two signatures
	want   map[string]problem.Code // for statements of that kind and signer; those that are taken are not there
	none   problem.Code            // where none is taken
	give   func(o token.Order, tok string) error
}

// statements is one of each kind, about the transfer id and the task of dst in it, and the link among them.
func (w *world) statements(id token.TransferID, receive api.Task, dst *fake) (all map[string]statement, link token.Link) {
	w.t.Helper()
	keys, err := token.ParseKeySet(w.b.Keys(), w.b.self)
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := token.VerifyCapability(receive.Capability, keys)
	if err != nil {
		w.t.Fatal(err)
	}
	read := c.Claims
	read.Do, read.Aud, read.Peer = token.Read, read.Peer, read.Aud
	good := dst.receipt(receive, nil)
	r, err := token.VerifyReceipt(good.JWS, dst.leaf.Chain[0].PublicKey)
	if err != nil {
		w.t.Fatal(err)
	}
	link = token.Link{Accounts: w.order().Accounts, Aud: w.b.self, Challenge: token.HashOf(nil), Iat: w.now.Unix(), Exp: w.now.Unix() + 300}
	looking := func(o *token.Order) {
		o.Do, o.IfExists, o.To, o.Accounts = token.List, "", token.Location{}, o.Accounts[:1]
	}
	ofOrder := func(change ...func(*token.Order)) statement {
		o := w.order(change...)
		return statement{"order", o, func(s token.Signer) (string, error) { return s.Order(o) }}
	}
	copying := w.order()
	other := func(kind string, sign func(token.Signer) (string, error)) statement {
		return statement{kind, copying, sign}
	}
	return map[string]statement{
		"an order to copy": ofOrder(), "a standing order": ofOrder(func(o *token.Order) { o.Period = 3600 }), "an order to list": ofOrder(looking),
		"an order to withdraw": ofOrder(func(o *token.Order) {
			*o = token.Order{Accounts: o.Accounts[:1], Do: token.Withdraw, Iat: o.Iat, Exp: o.Exp + 3600, ID: o.ID, Target: id}
		}),
		"a session order":        other("session order", func(s token.Signer) (string, error) { return s.SessionOrder(copying) }),
		"a capability to read":   other("capability", func(s token.Signer) (string, error) { return s.Capability(read) }),
		"a capability to create": other("capability", func(s token.Signer) (string, error) { return s.Capability(c.Claims) }),
		"a receipt":              other("receipt", func(s token.Signer) (string, error) { return s.Receipt(r.Claims) }),
		"a link":                 other("link", func(s token.Signer) (string, error) { return s.Link(link) }),
		"a list of revocations": other("revocation", func(s token.Signer) (string, error) {
			return s.Revocation(token.Revocation{Epoch: 1, Iat: w.now.Unix(), Iss: w.b.self})
		}),
	}, link
}

// TestStatementsInTheWrongPlace: every kind of statement, signed with every key, wherever the broker reads one. It is refused for what it
// is before it is looked at whose it is, and nothing comes of it.
func TestStatementsInTheWrongPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id, _, receive := w.under(src, dst)
	statements, link := w.statements(id, receive, dst)
	good := dst.receipt(receive, nil)
	with := func(i int, give func(api.SignedOrder) error) func(token.Order, string) error {
		return func(o token.Order, tok string) error {
			so := w.sign(o)
			so.JWS[i] = tok
			return give(so)
		}
	}
	submit := func(so api.SignedOrder) error { _, err := w.b.Submit(t.Context(), w.me(), so, w.now); return err }
	lookup := func(so api.SignedOrder) error {
		_, err := w.b.Lookup(t.Context(), w.me(), api.Lookup{Order: so}, w.now)
		return err
	}
	withdraw := func(so api.SignedOrder) error { _, err := w.b.Withdraw(t.Context(), w.me(), id, so, w.now); return err }
	linking := func(i int) func(token.Order, string) error {
		return func(_ token.Order, tok string) error {
			sl := w.signLink(link, w.alice[:], w.alice[:])
			sl.JWS[i] = tok
			_, err := w.b.Link(t.Context(), w.me(), sl, w.now)
			return err
		}
	}
	no := problem.WrongStatement
	places := map[string]place{
		"a submission":         {kind: "order", by: "alice at north", want: map[string]problem.Code{"an order to list": no, "an order to withdraw": no}, give: with(0, submit)},
		"its second signature": {kind: "order", by: "alice at south", second: true, give: with(1, submit)},
		"a lookup": {kind: "order", by: "alice at north", give: with(0, lookup), want: map[string]problem.Code{
			"an order to copy": no, "a standing order": no, "an order to withdraw": no,
		}},
		"a withdrawal": {kind: "order", by: "alice at north", give: with(0, withdraw), want: map[string]problem.Code{
			"an order to copy": no, "a standing order": no, "an order to list": no,
		}},
		"a link":              {kind: "link", by: "alice at north", give: linking(0)},
		"a link's other side": {kind: "link", by: "alice at south", give: linking(1)},
		"a receipt": {kind: "receipt", by: "the destination", give: func(_ token.Order, tok string) error {
			sr := good
			sr.JWS = tok
			_, err := w.b.PostReceipt(t.Context(), dst.peer, sr, w.now)
			return err
		}},
		"the word of a broker":               {none: no, give: func(_ token.Order, tok string) error { return submit(api.SignedOrder{Session: tok}) }},
		"the word of a broker, for a lookup": {none: no, give: func(_ token.Order, tok string) error { return lookup(api.SignedOrder{Session: tok}) }},
		"the word of a broker, to withdraw":  {none: no, give: func(_ token.Order, tok string) error { return withdraw(api.SignedOrder{Session: tok}) }},
		"beside the claims of a session": {none: problem.Malformed, give: func(o token.Order, tok string) error {
			return submit(api.SignedOrder{JWS: []string{tok}, Chains: w.sign(o).Chains[:1], Claims: &o})
		}},
	}
	w.present(statements, places, map[string]token.Signer{
		"the broker": w.b.signer(), "alice at north": w.signer(w.alice[0]), "alice at south": w.signer(w.alice[1]), "the source": w.signer(src.leaf),
		"the destination": w.signer(dst.leaf),
	})
	if got := w.transfer(id); got.State != api.Running || len(got.Outcomes) != 0 {
		t.Errorf("got %+v, want the transfer as it was", got)
	}
	if got, err := w.b.Transfers(t.Context(), w.me(), "", "", 0); err != nil || len(got.Items) != 1 {
		t.Errorf("got %d transfers (%v), want the one", len(got.Items), err)
	}
	if got, err := w.b.Account(t.Context(), w.me()); err != nil || len(got.Linked) != 0 {
		t.Errorf("got the links %+v (%v), want none", got.Linked, err)
	}
}

// present gives each statement, by each signer, to each place that does not take it, and checks what is said to it.
func (w *world) present(statements map[string]statement, places map[string]place, signers map[string]token.Signer) {
	w.t.Helper()
	n := 0
	for by, key := range signers {
		for what, st := range statements {
			tok, err := st.sign(key)
			if err != nil {
				w.t.Fatal(err)
			}
			for at, p := range places {
				if p.second && len(st.order.Accounts) < 2 {
					continue
				}
				want := p.want[what]
				switch {
				case p.kind == "":
					want = p.none
				case st.kind != p.kind:
					want = problem.WrongStatement
				case by != p.by:
					want = problem.UnknownKey
				case want == "": // its right place
					continue
				}
				n++
				if err := p.give(st.order, tok); problem.Of(err) != want {
					w.t.Errorf("%s by %s as %s: got %v, want %s", what, by, at, err, want)
				}
			}
		}
	}
	w.t.Logf("%d statements in the wrong place", n)
}

func (w *world) signer(l *certstest.Leaf) token.Signer {
	w.t.Helper()
	s, err := token.NewSigner(l.Key)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// strays are certificates that are not the one of a token that was signed by leaf: what is wrong with each, and mismatch where it is good for
// somebody else.
func (w *world) strays(leaf *certstest.Leaf, mismatch problem.Code) map[string]struct {
	chain certs.Chain
	want  problem.Code
} {
	w.t.Helper()
	me := peerOf(leaf).Identity
	ca, far, roles := w.north, w.south, map[token.Role]token.Role{token.Subscriber: token.Agent, token.Agent: token.Subscriber}
	if me.Provider() == "south" {
		ca, far = far, ca
	}
	_, hub, _ := w.conf.Identity.Current()
	same := certstest.ForKey(leaf.Key)
	long := certstest.Valid(w.now.Add(-time.Hour), w.now.Add(96*time.Hour))
	type stray = struct {
		chain certs.Chain
		want  problem.Code
	}
	return map[string]stray{
		"of another, with another key":         {ca.Issue(me.Role(), "bob", long).Chain, problem.UnknownKey},
		"of the same, with another key":        {ca.Issue(me.Role(), me.Name(), long).Chain, problem.UnknownKey},
		"of the other provider's":              {far.Issue(me.Role(), me.Name(), long).Chain, problem.UnknownKey},
		"of the broker":                        {hub, problem.UnknownKey},
		"of the authority":                     {certs.Chain{ca.Root()}, problem.UnknownKey},
		"behind another's":                     {append(ca.Issue(me.Role(), "bob", long).Chain, leaf.Chain...), problem.UnknownKey},
		"of another, with the same key":        {ca.Issue(me.Role(), "bob", long, same).Chain, mismatch},
		"of another role, with the same key":   {ca.Issue(roles[me.Role()], me.Name(), long, same).Chain, mismatch},
		"of the other provider, the same key":  {far.Issue(me.Role(), me.Name(), long, same).Chain, mismatch},
		"of a foreign authority, the same key": {certstest.NewUnconstrained(w.t, far.Domain()).Issue(me.Role(), "x", long, same, certstest.As(string(me))).Chain, problem.CertUnknown},
		"that has ended":                       {ca.Issue(me.Role(), me.Name(), same, certstest.Expired()).Chain, problem.CertExpired},
		"that has not begun":                   {ca.Issue(me.Role(), me.Name(), same, certstest.NotYet()).Chain, problem.CertNotYet},
		"without a name":                       {ca.Issue(me.Role(), me.Name(), long, same, certstest.NoURI()).Chain, problem.CertMisused},
		"of two names":                         {ca.Issue(me.Role(), me.Name(), long, same, certstest.AlsoURI("spiffe://"+string(far.Domain())+"/agent/x")).Chain, problem.CertMisused},
	}
}

// TestEveryTokenWithEveryOtherCertificate: what is signed is as good as the certificate beside it: the one certificate, that of the very identity
// that the statement names, of the key that signed it, by its own domain, and now.
func TestEveryTokenWithEveryOtherCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	id, _, receive := w.under(src, dst)
	good := dst.receipt(receive, nil)
	withdrawal := w.order(func(o *token.Order) {
		*o = token.Order{Accounts: o.Accounts[:1], Do: token.Withdraw, Iat: o.Iat, Exp: o.Exp + 3600, ID: o.ID, Target: id}
	})
	ordered := func(i int, o token.Order, give func(api.SignedOrder) error) func(string) error {
		return func(chain string) error {
			so := w.sign(o)
			so.Chains[i] = chain
			return give(so)
		}
	}
	submit := func(so api.SignedOrder) error { _, err := w.b.Submit(t.Context(), w.me(), so, w.now); return err }
	linked := func(i int) func(string) error {
		return func(chain string) error {
			_, sl := w.link(w.alice[0], w.alice[1])
			sl.Chains[i] = chain
			_, err := w.b.Link(t.Context(), w.me(), sl, w.now)
			w.b.mu.Lock()
			clear(w.b.challenges) // those of refused links that were not spent
			w.b.mu.Unlock()
			return err
		}
	}
	n := 0
	for at, tt := range map[string]struct {
		leaf     *certstest.Leaf
		mismatch problem.Code
		give     func(chain string) error
	}{
		"a submission":         {w.alice[0], problem.OrderUnsigned, ordered(0, w.order(), submit)},
		"its second signature": {w.alice[1], problem.OrderUnsigned, ordered(1, w.order(), submit)},
		"a lookup": {w.alice[0], problem.OrderUnsigned, ordered(0, w.order(func(o *token.Order) {
			o.Do, o.IfExists, o.To, o.Accounts = token.List, "", token.Location{}, o.Accounts[:1]
		}), func(so api.SignedOrder) error {
			_, err := w.b.Lookup(t.Context(), w.me(), api.Lookup{Order: so}, w.now)
			return err
		})},
		"a withdrawal": {w.alice[0], problem.OrderUnsigned, ordered(0, withdrawal, func(so api.SignedOrder) error {
			_, err := w.b.Withdraw(t.Context(), w.me(), id, so, w.now)
			return err
		})},
		"a link":              {w.alice[0], problem.CertMismatch, linked(0)},
		"a link's other side": {w.alice[1], problem.CertMismatch, linked(1)},
		"a receipt": {dst.leaf, problem.CertMismatch, func(chain string) error {
			sr := good
			sr.Chain = chain
			_, err := w.b.PostReceipt(t.Context(), dst.peer, sr, w.now)
			return err
		}},
	} {
		for of, s := range w.strays(tt.leaf, tt.mismatch) {
			n++
			if err := tt.give(string(s.chain.PEM())); problem.Of(err) != s.want {
				t.Errorf("%s with a certificate %s: got %v, want %s", at, of, err, s.want)
			}
		}
	}
	t.Logf("%d tokens with another certificate", n)
	if got := w.transfer(id); got.State != api.Running || len(got.Outcomes) != 0 {
		t.Errorf("got %+v, want the transfer as it was", got)
	}
	if err := submit(w.sign(w.order())); err != nil {
		t.Errorf("with its own certificates: %v", err)
	}
}

// TestStandingOrderIsNotRefreshed: of the certificates with which an account calls, only one of the key that signed a standing order goes beside it.
func TestStandingOrderIsNotRefreshed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.submit(w.order(func(o *token.Order) { o.Period = 3600 }))
	longer := certstest.Valid(w.now.Add(-time.Hour), w.now.Add(200*time.Hour))
	beside := func() string {
		t.Helper()
		so, err := w.b.Order(t.Context(), w.me(), id)
		if err != nil {
			t.Fatal(err)
		}
		return so.Chains[0] + so.Chains[1]
	}
	before := beside()
	for of, l := range map[string]*certstest.Leaf{
		"the same account, with another key": w.north.Issue(token.Subscriber, "alice", longer),
		"another account, with its key":      w.north.Issue(token.Subscriber, "bob", longer, certstest.ForKey(w.alice[0].Key)),
		"an agent of the name, with its key": w.north.Issue(token.Agent, "alice", longer, certstest.ForKey(w.alice[0].Key)),
		"the other account, with this key":   w.south.Issue(token.Subscriber, "alice", longer, certstest.ForKey(w.alice[0].Key)),
		"its own, which ends sooner":         w.north.Issue(token.Subscriber, "alice", certstest.ForKey(w.alice[0].Key), certstest.Valid(w.now.Add(-time.Hour), w.now.Add(time.Hour))),
	} {
		if err := w.b.Renewed(t.Context(), peerOf(l), w.now); err != nil {
			t.Errorf("a call of %s: %v", of, err)
		}
		if beside() != before {
			t.Errorf("a call of %s: its certificate is beside the order now", of)
			before = beside()
		}
	}
	if err := w.b.Renewed(t.Context(), peerOf(w.north.Issue(token.Subscriber, "alice", longer, certstest.ForKey(w.alice[0].Key))), w.now); err != nil || beside() == before {
		t.Errorf("its own, which ends later, is not beside the order (%v)", err)
	}
}
