package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/audit"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
)

// attempts writes n audit records of north:/src/NAME.
func (w *world) attempts(n int, change ...func(*db.AuditRecord)) {
	w.t.Helper()
	var rs []db.AuditRecord
	for i := range n {
		r := db.AuditRecord{
			At: w.now, Who: "spiffe://north/subscriber/alice", Op: "stat", Place: token.Location{Provider: "north", Container: "src", Name: token.ObjectName(fmt.Sprint("o", i))},
			Want: acl.ReadAttributes, Audited: acl.ReadAttributes, Outcome: acl.Allowed, Cause: "entry 0 of north:/src/",
		}
		for _, c := range change {
			c(&r)
		}
		rs = append(rs, r)
	}
	if err := w.b.db.Write(w.t.Context(), func(tx *db.Tx) error { return tx.AddAudit(w.t.Context(), rs) }); err != nil {
		w.t.Fatal(err)
	}
}

// digested checks every run against its leaf and its records, and returns the sizes of the runs and how many records are in none.
func (w *world) digested() (sizes []int64, undigested int64) {
	w.t.Helper()
	ctx := context.Background()
	var c audit.Chain
	if err := w.b.db.Read(ctx, func(tx *db.Tx) error {
		runs, err := tx.AuditRuns(ctx, 0, 1<<20)
		if err != nil {
			return err
		}
		for _, run := range runs {
			sizes = append(sizes, run.Records)
			l, ok, err := tx.Leaf(ctx, run.Leaf)
			if err != nil || !ok || l.Kind != db.AuditLeaf {
				w.t.Errorf("the leaf of the run from %d on: got %q, %t, %v", run.First, l.Kind, ok, err)
			}
			p := api.AuditProof{Run: runForm(run), Leaf: json.RawMessage(l.Body)}
			rs, err := tx.AuditFrom(ctx, run.First, int(run.Records))
			if err != nil {
				return err
			}
			for _, r := range rs {
				if r.N < run.First+run.Records {
					form := auditForm(r)
					p.Lines = append(p.Lines, api.AuditLine{Record: &form})
				}
			}
			if err := c.Add(p); err != nil {
				w.t.Errorf("verifying: %v", err)
			}
		}
		_, undigested, err = tx.Undigested(ctx)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return sizes, undigested
}

func (w *world) wantDigested(when string, left int64, sizes ...int64) {
	w.t.Helper()
	got, undigested := w.digested()
	if fmt.Sprint(got) != fmt.Sprint(sizes) || undigested != left {
		w.t.Errorf("%s: got runs of %v records and %d in none, want %v and %d", when, got, undigested, sizes, left)
	}
}

// TestAuditDigests: a thousand records have a leaf at once, fewer after a minute, and a broker that starts anew goes on where it was.
func TestAuditDigests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.step()
	w.wantDigested("nothing recorded", 0)
	w.attempts(3)
	w.step()
	w.wantDigested("less than a minute", 3)
	w.now = w.now.Add(digestAfter - time.Second)
	w.attempts(2)
	w.step()
	w.wantDigested("still", 5)
	w.now = w.now.Add(time.Second)
	w.step()
	w.wantDigested("the first has waited a minute", 0, 5)
	w.attempts(2*api.MaxAuditRun + 7)
	w.step()
	w.wantDigested("thousands at once", 7, 5, 1000, 1000)
	w.crash()
	w.attempts(1)
	w.wantDigested("after a crash", 8, 5, 1000, 1000)
	w.now = w.now.Add(digestAfter)
	w.step()
	w.step()
	w.wantDigested("a minute later", 0, 5, 1000, 1000, 8)
	w.attempts(4)
	w.now = w.now.Add(-time.Hour) // a clock that was set back keeps nobody waiting
	w.step()
	w.wantDigested("after the clock went back", 0, 5, 1000, 1000, 8, 4)
	w.attempts(6)
	if err := w.b.lastDigests(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantDigested("after an orderly stop", 0, 5, 1000, 1000, 8, 4, 6)
}

// TestAuditDigestIsKilled: whether the broker dies before a run is committed or after, no record is in two runs or in none.
func TestAuditDigestIsKilled(t *testing.T) {
	t.Parallel()
	killed := errors.New("killed")
	for _, at := range []string{"before commit", "after commit"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.attempts(5)
			w.now = w.now.Add(digestAfter)
			w.b.fault = func(where string) error {
				if where == at {
					return killed
				}
				return nil
			}
			if err := w.b.digestAudit(t.Context(), w.now); !errors.Is(err, killed) {
				t.Fatalf("got %v, want %v", err, killed)
			}
			w.crash()
			w.attempts(2)
			w.now = w.now.Add(digestAfter)
			w.step()
			if sizes, left := w.digested(); left != 0 || (fmt.Sprint(sizes) != "[5 2]" && fmt.Sprint(sizes) != "[7]") {
				t.Errorf("got runs of %v records and %d in none, want all 7 in runs", sizes, left)
			}
		})
	}
}
