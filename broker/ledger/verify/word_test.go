package verify_test

import (
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/ledger/verify"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// bySession is batch with receipts that rest on a broker's word.
func (b *bundle) bySession(bat int64) api.BatchRecord {
	man := b.manifest(bat)
	word := func(r *token.Receipt) { r.Authority = token.BySession }
	return api.BatchRecord{Bat: bat, Manifest: man, Receipts: []api.SignedReceipt{
		b.receipt(man, token.Source, b.source, b.outcomes(token.Source), word),
		b.receipt(man, token.Destination, b.destination, b.outcomes(token.Destination), word),
	}}
}

// TestWordOfABroker: a report says whether the accounts signed the order, and neither kind passes for the other.
func TestWordOfABroker(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	claims := api.SignedOrder{Claims: &b.order, Session: "x.y.z"}
	both := b.signed()
	both.Claims = &b.order
	other := b.order
	other.To.Name = "elsewhere"
	for _, tt := range []struct {
		name  string
		order api.SignedOrder
		batch api.BatchRecord
		by    token.Authority
		wrong int64
		code  problem.Code
	}{
		{"signed by the accounts", b.signed(), b.batch(1), token.ByOrder, 0, ""},
		{"on the word of a broker", claims, b.bySession(1), token.BySession, 0, ""},
		{"signatures taken away, to disown what was ordered", claims, b.batch(1), token.BySession, 2, problem.WrongStatement},
		{"a signed order put before what nobody ordered", b.signed(), b.bySession(1), token.ByOrder, 2, problem.WrongStatement},
		{"both", both, b.bySession(1), token.BySession, 1, problem.Malformed},
		{"other claims than the agents saw", api.SignedOrder{Claims: &other}, b.bySession(1), token.BySession, 1, problem.CapManifest},
	} {
		a, err := verify.NewAuditor(tt.order, b.trust)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		a.Batch(tt.batch)
		r := a.Report()
		if r.Authority != tt.by || r.Wrong != tt.wrong || tt.wrong > 0 && r.Problems[0].Code != tt.code || tt.wrong == 0 && (r.Stored != 2 || r.Broker != "spiffe://hub/broker/main") {
			t.Errorf("%s: got %+v, want %d things wrong (%s) by %s", tt.name, r, tt.wrong, tt.code, tt.by)
		}
	}
	bad := b.order
	bad.From.Name = "../up"
	if _, err := verify.NewAuditor(api.SignedOrder{Claims: &bad}, b.trust); problem.Of(err) != problem.BadName {
		t.Errorf("an order that is none: got %v, want %q", err, problem.BadName)
	}
}
