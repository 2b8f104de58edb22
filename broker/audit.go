package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/audit"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
)

const (
	digestAfter = time.Minute // how long a record waits for its leaf at most while the broker runs
	runsAtOnce  = 64          // runs of one step, so that all else goes on beside them
)

// auditForm is a record as everybody else sees it.
func auditForm(r db.AuditRecord) api.AuditRecord {
	outcome := map[acl.Outcome]api.AuditOutcome{
		acl.Unmentioned: api.AuditUnmentioned, acl.Denied: api.AuditDenied, acl.Allowed: api.AuditAllowed, acl.ForOwner: api.AuditOwner, acl.ForAdministrator: api.AuditAdministrator,
	}[r.Outcome]
	return api.AuditRecord{
		At: r.At, Audited: r.Audited.Hex(), Cause: r.Cause, First: r.First, Items: r.Items, Kind: r.Kind.String(), Last: r.Last, Missing: r.Missing.Hex(), N: r.N, Op: r.Op,
		Outcome: outcome, Place: r.Place, Salt: r.Salt, Want: r.Want.Hex(), Who: string(r.Who),
	}
}

func runForm(r db.AuditRun) api.AuditRun {
	out := api.AuditRun{First: r.First, Records: r.Records, Root: r.Root, Since: r.Since, Until: r.Until, Leaf: r.Leaf}
	if !r.Pruned.IsZero() {
		out.Pruned = &r.Pruned
	}
	return out
}

// lineOf is a record in a proof: itself if it may be shown, else its hash.
func lineOf(r db.AuditRecord, shown bool) api.AuditLine {
	form := auditForm(r)
	if shown {
		return api.AuditLine{Record: &form}
	}
	return api.AuditLine{Hash: audit.HashOf(audit.Line(form))}
}

// digestAudit writes the leaf of each run of records that is due: of api.MaxAuditRun of them, or of fewer that have waited for a
// minute. A record is in exactly one run, because a run begins where the last one that is committed ends.
func (b *Broker) digestAudit(ctx context.Context, now time.Time) error {
	for range runsAtOnce {
		var n int64
		var oldest []db.AuditRecord
		err := b.db.Read(ctx, func(tx *db.Tx) error {
			first, left, err := tx.Undigested(ctx)
			if n = left; err != nil || n == 0 {
				return err
			}
			oldest, err = tx.AuditFrom(ctx, first, 1)
			return err
		})
		if err != nil || n == 0 {
			return err
		}
		if n < api.MaxAuditRun && len(oldest) == 1 {
			if waits := now.Sub(oldest[0].At); waits >= 0 && waits < digestAfter {
				return nil
			}
		}
		if err := b.write(ctx, now, func(w *work) error { return w.digestRun(ctx) }); err != nil {
			return fmt.Errorf("digesting audit records: %w", err)
		}
	}
	b.wake()
	return nil
}

// digestRun writes the next run and its leaf.
func (w *work) digestRun(ctx context.Context) error {
	first, n, err := w.Undigested(ctx)
	if err != nil || n == 0 {
		return err
	}
	rs, err := w.AuditFrom(ctx, first, api.MaxAuditRun)
	if err != nil {
		return err
	}
	if want := min(n, api.MaxAuditRun); int64(len(rs)) != want || rs[0].N != first || rs[want-1].N != first+want-1 {
		return fmt.Errorf("digesting audit records: there are %d from %d on, and %d were written", len(rs), first, want)
	}
	hashes := make([]token.Hash, len(rs))
	for i, r := range rs {
		hashes[i] = audit.HashOf(audit.Line(auditForm(r)))
	}
	run := db.AuditRun{First: first, Records: int64(len(rs)), Since: rs[0].At, Until: rs[len(rs)-1].At}
	if run.Root, err = audit.Root(hashes); err != nil {
		return err
	}
	l := audit.LeafOf(runForm(run))
	if run.Leaf, err = w.leaf(ctx, db.AuditLeaf, facts{"first": l.First, "records": l.Records, "root": l.Root, "since": l.Since, "until": l.Until}); err != nil {
		return err
	}
	return w.AddAuditRun(ctx, run)
}

// lastDigests writes the leaves of what was recorded last, when the broker stops: what a leaf has, nobody changes unseen while it is down.
func (b *Broker) lastDigests(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	return b.digestAudit(ctx, time.Now().Add(digestAfter))
}
