package verify_test

import (
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/ledger/verify"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

// audit returns the code of what is wrong first with a bundle of one batch; empty if nothing is.
func (b *bundle) audit(so api.SignedOrder, rec api.BatchRecord) problem.Code {
	b.t.Helper()
	a, err := verify.NewAuditor(so, b.trust)
	if err != nil {
		return problem.Of(err)
	}
	a.Batch(rec)
	if r := a.Report(); !r.Good() {
		return r.Problems[0].Code
	}
	return ""
}

// places are where a bundle holds a statement, each with who has signed it there and the certificate beside it.
func (b *bundle) places() map[string]struct {
	kind string
	leaf *certstest.Leaf
	give func(jws, chain string) problem.Code
} {
	order := func(i int) func(jws, chain string) problem.Code {
		return func(jws, chain string) problem.Code {
			so := b.signed()
			so.JWS[i], so.Chains[i] = jws, chain
			return b.audit(so, b.batch(1))
		}
	}
	receipt := func(i int) func(jws, chain string) problem.Code {
		return func(jws, chain string) problem.Code {
			rec := b.batch(1)
			rec.Receipts[i].JWS, rec.Receipts[i].Chain = jws, chain
			return b.audit(b.signed(), rec)
		}
	}
	return map[string]struct {
		kind string
		leaf *certstest.Leaf
		give func(jws, chain string) problem.Code
	}{
		"the order": {"order", b.aliceN, order(0)}, "its second signature": {"order", b.aliceS, order(1)},
		"the source's receipt": {"receipt", b.source, receipt(0)}, "the destination's receipt": {"receipt", b.destination, receipt(1)},
	}
}

// TestStatementsInTheWrongPlace: a statement of another kind is none of the order and no receipt, whoever has signed it.
func TestStatementsInTheWrongPlace(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	n := 0
	for at, p := range b.places() {
		for by, leaf := range map[string]*certstest.Leaf{"alice at north": b.aliceN, "alice at south": b.aliceS, "the source": b.source, "the destination": b.destination} {
			s, err := token.NewSigner(leaf.Key)
			if err != nil {
				t.Fatal(err)
			}
			for _, st := range tokentest.Statements() {
				jws, err := st.Sign(s)
				if err != nil {
					t.Fatal(err)
				}
				want := problem.WrongStatement
				switch {
				case st.Kind == p.kind && leaf == p.leaf:
					continue // another order or receipt of the same signer: TestForgedBundle
				case st.Kind == p.kind:
					want = problem.UnknownKey
				}
				n++
				if got := p.give(jws, string(p.leaf.Chain.PEM())); got != want {
					t.Errorf("%s by %s as %s: got %q, want %s", st.Name, by, at, got, want)
				}
			}
		}
	}
	t.Logf("%d statements in the wrong place", n)
}

// TestEveryTokenWithEveryOtherCertificate: orders and receipts are as good as the certificate beside them.
func TestEveryTokenWithEveryOtherCertificate(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	n := 0
	for at, p := range b.places() {
		me, err := certs.IdentityOf(p.leaf.Chain[0])
		if err != nil {
			t.Fatal(err)
		}
		ca, far, role, mismatch := b.north, b.south, token.Agent, problem.OrderUnsigned
		if me.Provider() == far.Domain() {
			ca, far = far, ca
		}
		if p.kind == "receipt" {
			role, mismatch = token.Subscriber, problem.CertMismatch
		}
		rec, so := b.batch(1), b.signed()
		jws := map[string]string{
			"the order": so.JWS[0], "its second signature": so.JWS[1], "the source's receipt": rec.Receipts[0].JWS, "the destination's receipt": rec.Receipts[1].JWS,
		}[at]
		if got := p.give(jws, string(p.leaf.Chain.PEM())); got != "" {
			t.Errorf("%s with its own certificate: got %s", at, got)
		}
		same := certstest.ForKey(p.leaf.Key)
		for of, s := range map[string]struct {
			chain certs.Chain
			want  problem.Code
		}{
			"of another, with another key":         {ca.Issue(me.Role(), "bob").Chain, problem.UnknownKey},
			"of the same, with another key":        {ca.Issue(me.Role(), me.Name()).Chain, problem.UnknownKey},
			"of the authority":                     {certs.Chain{ca.Root()}, problem.UnknownKey},
			"behind another's":                     {append(ca.Issue(me.Role(), "bob").Chain, p.leaf.Chain...), problem.UnknownKey},
			"of another, with the same key":        {ca.Issue(me.Role(), "bob", same).Chain, mismatch},
			"of another role, with the same key":   {ca.Issue(role, me.Name(), same).Chain, mismatch},
			"of the other provider, the same key":  {far.Issue(me.Role(), me.Name(), same).Chain, mismatch},
			"of a foreign authority, the same key": {certstest.NewUnconstrained(t, far.Domain()).Issue(me.Role(), "x", same, certstest.As(string(me))).Chain, problem.CertUnknown},
			"that has ended":                       {ca.Issue(me.Role(), me.Name(), same, certstest.Expired()).Chain, problem.CertExpired},
			"that has not begun":                   {ca.Issue(me.Role(), me.Name(), same, certstest.NotYet()).Chain, problem.CertNotYet},
			"without a name":                       {ca.Issue(me.Role(), me.Name(), same, certstest.NoURI()).Chain, problem.CertMisused},
		} {
			n++
			if got := p.give(jws, string(s.chain.PEM())); got != s.want {
				t.Errorf("%s with a certificate %s: got %q, want %s", at, of, got, s.want)
			}
		}
	}
	t.Logf("%d tokens with another certificate", n)
}
