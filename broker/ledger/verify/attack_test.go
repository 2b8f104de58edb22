package verify_test

import (
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/ledger/verify"
	"github.com/consign-transfer/consign/token/problem"
)

// TestRecordsLeftOut: what a broker removes from a bundle cannot be proved, but as much of it as shows is said.
func TestRecordsLeftOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name                    string
		change                  func(rs []api.BatchRecord) []api.BatchRecord
		stored, silent, skipped int64
	}{
		{"nothing", func(rs []api.BatchRecord) []api.BatchRecord { return rs }, 6, 0, 0},
		{"the first batch", func(rs []api.BatchRecord) []api.BatchRecord { return rs[1:] }, 4, 0, 1},
		{"a batch in the middle", func(rs []api.BatchRecord) []api.BatchRecord { return append(rs[:1], rs[2]) }, 4, 0, 1},
		{"the last batch, which nobody can see", func(rs []api.BatchRecord) []api.BatchRecord { return rs[:2] }, 4, 0, 0},
		{"the destination's receipt", func(rs []api.BatchRecord) []api.BatchRecord {
			rs[1].Receipts = rs[1].Receipts[:1]
			return rs
		}, 4, 2, 0},
		{"both receipts", func(rs []api.BatchRecord) []api.BatchRecord {
			rs[2].Receipts = nil
			return rs
		}, 4, 2, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBundle(t)
			a, err := verify.NewAuditor(b.signed(), b.trust)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range tt.change([]api.BatchRecord{b.batch(1), b.batch(2), b.batch(3)}) {
				a.Batch(r)
			}
			if r := a.Report(); !r.Good() || r.Stored != tt.stored || r.Silent != tt.silent || r.Skipped != tt.skipped {
				t.Errorf("got %+v, want %d stored, %d silent and %d skipped", r, tt.stored, tt.silent, tt.skipped)
			}
		})
	}
}

// TestBatchesSwapped: receipts are of one batch, also when two batches hold the very same items.
func TestBatchesSwapped(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	a, err := verify.NewAuditor(b.signed(), b.trust)
	if err != nil {
		t.Fatal(err)
	}
	one, two := b.batch(1), b.batch(2)
	one.Receipts, two.Receipts = two.Receipts, one.Receipts
	a.Batch(one)
	a.Batch(two)
	if r := a.Report(); r.Wrong != 4 || r.Stored != 0 || r.Problems[0].Code != problem.WrongStatement {
		t.Errorf("got %+v, want four receipts refused", r)
	}
}

// TestMoreThanTheLimits: each item is within the order's limit, and all together are not.
func TestMoreThanTheLimits(t *testing.T) {
	t.Parallel()
	b := newBundle(t)
	b.order.Limits.Bytes = 30
	a, err := verify.NewAuditor(b.signed(), b.trust)
	if err != nil {
		t.Fatal(err)
	}
	a.Batch(b.batch(1))
	if r := a.Report(); !r.Good() {
		t.Errorf("got %+v, want 20 of 30 bytes to be good", r)
	}
	a.Batch(b.batch(2))
	for range 2 {
		if r := a.Report(); r.Wrong != 1 || r.Problems[0].Code != problem.OrderNotCovered {
			t.Errorf("got %+v, want 40 of 30 bytes to be wrong", r)
		}
	}
}
