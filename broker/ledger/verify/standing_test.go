package verify_test

import (
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/ledger/verify"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// standing makes the order of b one that has run every minute for an hour: run 59 is due.
func standing(t *testing.T) *bundle {
	b := newBundle(t)
	b.order.Iat, b.order.Period, b.order.IfExists = time.Now().Add(-time.Hour).Unix()+30, 60, token.Skip
	b.aliceN = b.north.Issue(token.Subscriber, "alice", certstest.Valid(time.Now().Add(-2*time.Hour), time.Now()))
	b.aliceS = b.south.Issue(token.Subscriber, "alice", certstest.ForKey(b.aliceS.Key)) // since a minute: newer than the order
	b.run = 59
	return b
}

// TestRunOfAStandingOrder: the bundle of a run verifies offline, under the certificate that signed or a newer one.
func TestRunOfAStandingOrder(t *testing.T) {
	t.Parallel()
	for _, run := range []int64{0, 1, 59} {
		b := standing(t)
		b.run = run
		a, err := verify.NewAuditor(b.signed(), b.trust)
		if err != nil {
			t.Fatal(err)
		}
		a.Batch(b.batch(1))
		a.Batch(b.batch(2))
		if r := a.Report(); !r.Good() || r.Stored != 4 || r.Run != run || r.Transfer != b.order.Run(run) || r.Period != 60 {
			t.Errorf("run %d: got %+v, want four items stored and nothing wrong", run, r)
		}
	}
}

// TestForgedRun changes one thing of a run at a time; each must be found.
func TestForgedRun(t *testing.T) {
	t.Parallel()
	soon := certstest.Valid(time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))
	for _, tt := range []struct {
		name  string
		want  problem.Code
		forge func(b *bundle)
	}{
		{"a run that is not due", problem.OrderNotDue, func(b *bundle) { b.run = 62 }},
		{"an order that had ended", problem.OrderExpired, func(b *bundle) { b.order.Exp, b.run = time.Now().Unix()-10, 3 }},
		{"a certificate of another account", problem.OrderUnsigned, func(b *bundle) { b.aliceN = b.north.Issue(token.Subscriber, "bob") }},
		{"a certificate that is newer than the order's end", problem.OrderUnsigned, func(b *bundle) {
			b.aliceN, b.order.Exp = b.north.Issue(token.Subscriber, "alice", soon), time.Now().Unix()+600
		}},
		{"a certificate that had expired", problem.CertExpired, func(b *bundle) { b.aliceN = b.north.Issue(token.Subscriber, "alice", certstest.Expired()) }},
		{"an order that runs once", problem.CertNotYet, func(b *bundle) { b.order.Period, b.run = 0, 0 }},
	} {
		b := standing(t)
		tt.forge(b)
		a, err := verify.NewAuditor(b.signed(), b.trust)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		a.Batch(b.batch(1))
		r := a.Report()
		if r.Good() {
			t.Errorf("%s: got a good report, want %q", tt.name, tt.want)
			continue
		}
		if got := r.Problems[0].Code; got != tt.want {
			t.Errorf("%s: got %+v, want %q", tt.name, r.Problems, tt.want)
		}
	}
}

// TestRunsAreNotMixed: a bundle holds one run. Batches of two would hide that one of them is missing half.
func TestRunsAreNotMixed(t *testing.T) {
	t.Parallel()
	b := standing(t)
	a, err := verify.NewAuditor(b.signed(), b.trust)
	if err != nil {
		t.Fatal(err)
	}
	a.Batch(b.batch(1))
	b.run = 58
	a.Batch(b.batch(2))
	if r := a.Report(); r.Wrong != 1 || r.Problems[0].Code != problem.CapManifest || r.Run != 59 {
		t.Errorf("two runs: got %+v, want %q", r, problem.CapManifest)
	}
	other := standing(t)
	other.order.ID = "0192f0c1-2345-7abc-8def-0123456789ac"
	if r := func() verify.Report { a.Batch(other.batch(3)); return a.Report() }(); r.Wrong != 2 {
		t.Errorf("a run of another order: got %+v, want it found", r)
	}
}
