package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
)

const (
	auditFolder  = "audit"        // in the state folder
	pruneAfter   = 24 * time.Hour // beyond AuditKeep, so that a file holds about a day
	prunedAtOnce = 10_000         // records of one file at most, unless a run alone has more
	runsOfFile   = 2_000
)

// pruneAudit moves the records that are older than AuditKeep into a file of the state folder, by whole runs. What the ledger has of
// them stays, so that the file can be verified for ever.
func (b *Broker) pruneAudit(ctx context.Context, now time.Time) error {
	if b.conf.AuditKeep == 0 {
		return nil
	}
	var due []db.AuditRun
	var body []byte
	err := b.db.Read(ctx, func(tx *db.Tx) error {
		oldest, err := tx.KeptAuditRuns(ctx, 1)
		if err != nil || len(oldest) == 0 || now.Sub(oldest[0].Until) < b.conf.AuditKeep+pruneAfter {
			return err
		}
		kept, err := tx.KeptAuditRuns(ctx, runsOfFile)
		if err != nil {
			return err
		}
		records := int64(0)
		for _, run := range kept {
			if records += run.Records; now.Sub(run.Until) < b.conf.AuditKeep || len(due) > 0 && records > prunedAtOnce {
				break
			}
			due = append(due, run)
		}
		body, err = auditFile(ctx, tx, due)
		return err
	})
	if err != nil || len(due) == 0 {
		return err
	}
	dir := filepath.Join(b.conf.State, auditFolder)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the folder of audit records: %w", err)
	}
	name := filepath.Join(dir, fmt.Sprintf("%015d.jsonl", due[0].First))
	if err := errors.Join(certs.ReplaceFile(name, body, 0o600), certs.SyncDir(b.conf.State)); err != nil { // also what a crash left of the same runs
		return fmt.Errorf("writing audit records to %s: %w", name, err)
	}
	// Durable from here: what is not removed now is written to the same file again.
	if err := b.write(ctx, now, func(w *work) error {
		for _, run := range due {
			if err := w.PruneAuditRun(ctx, run, now); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("pruning audit records: %w", err)
	}
	b.log.Info("audit records were moved from the database to a file", zap.String("file", name), zap.Int("runs", len(due)), zap.Int64("first", due[0].First))
	return nil
}

// auditFile is what a file holds: an api.AuditProof a line, with every record in full.
func auditFile(ctx context.Context, tx *db.Tx, runs []db.AuditRun) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, run := range runs {
		p, err := proofOf(ctx, tx, run, func(db.AuditRecord) bool { return true })
		if err != nil {
			return nil, err
		}
		if err := enc.Encode(p); err != nil {
			return nil, fmt.Errorf("writing a run of audit records: %w", err)
		}
	}
	return out.Bytes(), nil
}

// proofOf returns a run with its leaf, the records that show wants in full and the hashes of all others.
func proofOf(ctx context.Context, tx *db.Tx, run db.AuditRun, show func(db.AuditRecord) bool) (api.AuditProof, error) {
	p := api.AuditProof{Run: runForm(run), Lines: []api.AuditLine{}}
	l, ok, err := tx.Leaf(ctx, run.Leaf)
	if err != nil || !ok {
		return p, errors.Join(err, fmt.Errorf("reading the leaf %d of a run of audit records", run.Leaf))
	}
	p.Leaf = json.RawMessage(l.Body)
	if !run.Pruned.IsZero() {
		return p, nil
	}
	rs, err := tx.AuditFrom(ctx, run.First, int(run.Records))
	if err != nil {
		return p, err
	}
	for _, r := range rs {
		if r.N >= run.First+run.Records {
			break
		}
		p.Lines = append(p.Lines, lineOf(r, show(r)))
	}
	return p, nil
}
