package tree

import (
	"context"
	"fmt"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
)

// An Attempt is who attempts what, as Op calls it in records; what has to be recorded of it is in Trail then, which must not be nil.
type Attempt struct {
	By    acl.Principal
	Op    string // at most db.MaxOpSize bytes
	Trail *Trail
}

// Attempt returns an attempt of an identity at a provider, with an empty trail.
func (t *Tree) Attempt(ctx context.Context, tx *db.Tx, who token.Identity, at token.Provider, op string) (Attempt, error) {
	p, err := t.Principal(ctx, tx, who, at)
	return Attempt{By: p, Op: op, Trail: new(Trail)}, err
}

// A Trail collects what has to be recorded of the attempts of one request. Its zero value is empty. It must be kept, durably,
// before the request is answered. It must not be used concurrently.
type Trail struct {
	records []db.AuditRecord
}

// Empty reports whether there is nothing to be recorded.
func (r *Trail) Empty() bool { return len(r.records) == 0 }

// Records returns what is to be recorded, in the order of the attempts, without a time.
func (r *Trail) Records() []db.AuditRecord { return r.records }

// Keep writes what was collected as tried at now, in a write transaction; of a change in that which makes it. The trail is empty then.
func (r *Trail) Keep(ctx context.Context, tx *db.Tx, now time.Time) error {
	for i := range r.records {
		r.records[i].At = now
	}
	if err := tx.AddAudit(ctx, r.records); err != nil {
		return err
	}
	r.records = nil
	return nil
}

// recorded reports whether d asks for a record.
func recorded(d acl.Decision) bool { return d.Audited != 0 || d.Outcome.Recorded() }

// note adds what d asks to have recorded.
func (a Attempt) note(s Spot, want acl.Mask, d acl.Decision) {
	if recorded(d) {
		a.Trail.records = append(a.Trail.records, a.record(s.At, s.Kind, want, d, cause(a.By, s.Target, s.Names, want, d)))
	}
}

func (a Attempt) record(at token.Location, k acl.Kind, want acl.Mask, d acl.Decision, cause string) db.AuditRecord {
	return db.AuditRecord{Place: at, Kind: k, Who: a.By.Name, Op: a.Op, Want: want, Audited: d.Audited, Outcome: d.Outcome, Missing: d.Missing, Cause: cause, Items: 1}
}

// cause names the first entry that asks for a record of d; empty where the outcome alone does.
func cause(p acl.Principal, t acl.Target, names []string, want acl.Mask, d acl.Decision) string {
	if d.Audited == 0 {
		return ""
	}
	for _, s := range acl.Explain(p, t, want).Steps {
		if s.Verdict == acl.Audits {
			return fmt.Sprintf("entry %d of %s", s.At.Entry+1, names[s.At.Level])
		}
	}
	return ""
}

// A gathered is the records of many names of one listing: those that say the same are one.
type gathered struct {
	records []db.AuditRecord
	byWhat  map[db.AuditRecord]int // by the record without its count and names
}

func (g *gathered) note(what db.AuditRecord, name token.ObjectName) {
	i, ok := g.byWhat[what]
	if !ok {
		if g.byWhat == nil {
			g.byWhat = map[db.AuditRecord]int{}
		}
		i = len(g.records)
		g.byWhat[what] = i
		what.Items, what.First, what.Last = 0, name, name
		g.records = append(g.records, what)
	}
	r := &g.records[i]
	r.Items++
	r.First, r.Last = min(r.First, name), max(r.Last, name)
}
