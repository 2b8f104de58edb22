package db

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token"
)

// Limits of an audit record, in bytes.
const (
	MaxOpSize    = 64
	MaxCauseSize = 2048
	saltSize     = 16
)

// An AuditRecord says of one attempt at access that it was made, because an AUDIT entry asks for that or because somebody was let in
// by what they are. It has no consequence.
type AuditRecord struct {
	N       int64          // from 1, without a hole; AddAudit gives it
	At      time.Time      // of the attempt
	Who     acl.Who        // empty: did not authenticate
	Op      string         // what was tried, as its surface calls it; at most MaxOpSize
	Place   token.Location // with the empty name: the root container. Of a page of names: what was listed
	Kind    acl.Kind
	Want    acl.Mask         // what was asked for
	Audited acl.Mask         // what of it AUDIT entries name; empty where Outcome alone is the cause
	Outcome acl.Outcome      // what became of it, and by what
	Missing acl.Mask         // as acl.Decision has it
	Cause   string           // the first entry that asks for the record, and where it stands; cut at MaxCauseSize
	Items   int64            // names that this is said of: Place, or so many in it; 0 is 1
	First   token.ObjectName // of a page of names: the first and the last that this is said of; else empty
	Last    token.ObjectName
	Salt    string // so that nobody guesses the record from its hash; AddAudit makes it
}

const auditColumns = `n, came, who, op, provider, container, name, kind, want, audited, outcome, missing, cause, items, first_name, last_name, salt`

const auditWidth = 17

// AddAudit writes records and gives them their numbers. They are never changed, and removed only together with their run.
func (t *Tx) AddAudit(ctx context.Context, rs []AuditRecord) error {
	for len(rs) > 0 {
		part := rs[:min(len(rs), rowsAtOnce)]
		rs = rs[len(part):]
		first, err := t.take(ctx, "audit", int64(len(part)))
		if err != nil {
			return err
		}
		args := make([]any, 0, auditWidth*len(part))
		for i, r := range part {
			salt := make([]byte, saltSize)
			if _, err := rand.Read(salt); err != nil {
				return fmt.Errorf("making a salt: %w", err)
			}
			args = append(args, first+int64(i), ms(r.At), string(r.Who), cut(r.Op, MaxOpSize), string(r.Place.Provider), string(r.Place.Container), string(r.Place.Name),
				int64(r.Kind), int64(r.Want), int64(r.Audited), int64(r.Outcome), int64(r.Missing), cut(r.Cause, MaxCauseSize), max(r.Items, 1), string(r.First), string(r.Last),
				base64.RawURLEncoding.EncodeToString(salt))
		}
		if err := t.exec(ctx, "adding audit records", `INSERT INTO audit (`+auditColumns+`) VALUES `+values(len(part), auditWidth), args...); err != nil {
			return err
		}
	}
	return nil
}

// take takes n numbers from a counter and returns the first.
func (t *Tx) take(ctx context.Context, counter string, n int64) (int64, error) {
	var first int64
	ok, err := t.one(ctx, "counting", `UPDATE counters SET value = value + ? WHERE name = ? RETURNING value - ?`, []any{n, counter, n}, &first)
	if err == nil && !ok {
		err = fmt.Errorf("counting: there is no counter %q", counter)
	}
	return first, err
}

// cut returns the first size bytes of s, without half a character at the end.
func cut(s string, size int) string {
	if len(s) <= size {
		return s
	}
	for size > 0 && !utf8.RuneStart(s[size]) {
		size--
	}
	return s[:size]
}

// An AuditFilter says which records are wanted.
type AuditFilter struct {
	Provider  token.Provider
	Container token.Container  // empty: every one
	Below     token.ObjectName // this name and all below it; empty: every one
	Who       acl.Who          // empty: everybody
	Since     time.Time        // zero: from the first on
	Until     time.Time        // zero: to the last
}

func (t *Tx) auditRecords(ctx context.Context, query string, args ...any) ([]AuditRecord, error) {
	var out []AuditRecord
	err := t.each(ctx, "reading audit records", query, args, func(rows *sql.Rows) error {
		var r AuditRecord
		var came int64
		err := rows.Scan(&r.N, &came, &r.Who, &r.Op, &r.Place.Provider, &r.Place.Container, &r.Place.Name, &r.Kind, &r.Want, &r.Audited, &r.Outcome,
			&r.Missing, &r.Cause, &r.Items, &r.First, &r.Last, &r.Salt)
		r.At = at(came)
		out = append(out, r)
		return err
	})
	return out, err
}

// Audit returns up to limit records after number after, in order.
func (t *Tx) Audit(ctx context.Context, f AuditFilter, after int64, limit int) ([]AuditRecord, error) {
	query, args := `SELECT `+auditColumns+` FROM audit WHERE provider = ? AND n > ?`, []any{string(f.Provider), after}
	if f.Container != "" {
		query, args = query+` AND container = ?`, append(args, string(f.Container))
	}
	if f.Below != "" { // '0' is what comes after '/'
		below := string(f.Below)
		query, args = query+` AND (name = ? OR name >= ? AND name < ?)`, append(args, below, below+"/", below+"0")
	}
	if f.Who != "" {
		query, args = query+` AND who = ?`, append(args, string(f.Who))
	}
	if !f.Since.IsZero() {
		query, args = query+` AND came >= ?`, append(args, ms(f.Since))
	}
	if !f.Until.IsZero() {
		query, args = query+` AND came <= ?`, append(args, ms(f.Until))
	}
	return t.auditRecords(ctx, query+` ORDER BY n LIMIT ?`, append(args, limit)...)
}

// AuditFrom returns up to limit records from number first on, of all places.
func (t *Tx) AuditFrom(ctx context.Context, first int64, limit int) ([]AuditRecord, error) {
	return t.auditRecords(ctx, `SELECT `+auditColumns+` FROM audit WHERE n >= ? ORDER BY n LIMIT ?`, first, limit)
}

// LetInSince reports whether there is a record since a time that somebody was let into a root container by what they are.
func (t *Tx) LetInSince(ctx context.Context, root token.Location, who acl.Who, since time.Time) (bool, error) {
	return t.one(ctx, "reading who was let in", `SELECT 1 FROM audit WHERE outcome >= 3 AND provider = ? AND container = ? AND who = ? AND came > ? LIMIT 1`,
		[]any{string(root.Provider), string(root.Container), string(who), ms(since)}, new(int))
}

// An AuditRun is a row of records with the leaf that has their root. Runs begin with record 1 and leave none out.
type AuditRun struct {
	First, Records int64
	Root           token.Hash
	Since, Until   time.Time // of its first and its last record
	Leaf           int64
	Pruned         time.Time // when its records were moved to a file; zero: they are here
}

// Undigested returns the number of the first record that is in no run, and how many there are.
func (t *Tx) Undigested(ctx context.Context) (first, n int64, err error) {
	_, err = t.one(ctx, "looking for records without a run", `SELECT r.ends, c.value - r.ends FROM counters c,
		(SELECT COALESCE((SELECT first + records FROM audit_runs ORDER BY first DESC LIMIT 1), 1) AS ends) r WHERE c.name = 'audit'`, nil, &first, &n)
	return first, n, err
}

// AddAuditRun writes a run, which must begin where the last one ended.
func (t *Tx) AddAuditRun(ctx context.Context, r AuditRun) error {
	return t.exec(ctx, "adding a run of audit records", `INSERT INTO audit_runs (first, records, root, since, until, leaf, pruned) VALUES (?, ?, ?, ?, ?, ?, 0)`,
		r.First, r.Records, string(r.Root), ms(r.Since), ms(r.Until), r.Leaf)
}

func (t *Tx) auditRuns(ctx context.Context, query string, args ...any) ([]AuditRun, error) {
	var out []AuditRun
	err := t.each(ctx, "reading runs of audit records", query, args, func(rows *sql.Rows) error {
		var r AuditRun
		var since, until, pruned int64
		err := rows.Scan(&r.First, &r.Records, &r.Root, &since, &until, &r.Leaf, &pruned)
		r.Since, r.Until, r.Pruned = at(since), at(until), at(pruned)
		out = append(out, r)
		return err
	})
	return out, err
}

// AuditRuns returns up to limit runs that begin with record from or later, in order.
func (t *Tx) AuditRuns(ctx context.Context, from int64, limit int) ([]AuditRun, error) {
	return t.auditRuns(ctx, `SELECT first, records, root, since, until, leaf, pruned FROM audit_runs WHERE first >= ? ORDER BY first LIMIT ?`, from, limit)
}

// KeptAuditRuns returns up to limit runs whose records are here, the oldest first.
func (t *Tx) KeptAuditRuns(ctx context.Context, limit int) ([]AuditRun, error) {
	return t.auditRuns(ctx, `SELECT first, records, root, since, until, leaf, pruned FROM audit_runs WHERE pruned = 0 ORDER BY first LIMIT ?`, limit)
}

// PruneAuditRun removes the records of a run. The run and its leaf stay.
func (t *Tx) PruneAuditRun(ctx context.Context, r AuditRun, now time.Time) error {
	if err := t.exec(ctx, "marking a run of audit records", `UPDATE audit_runs SET pruned = ? WHERE first = ?`, ms(now), r.First); err != nil {
		return err
	}
	return t.exec(ctx, "removing audit records", `DELETE FROM audit WHERE n >= ? AND n < ?`, r.First, r.First+r.Records)
}

// Leaf returns one leaf, and whether there is one of that index.
func (t *Tx) Leaf(ctx context.Context, idx int64) (Leaf, bool, error) {
	var l Leaf
	var came int64
	ok, err := t.one(ctx, "reading a leaf", `SELECT kind, came, body FROM leaves WHERE idx = ?`, []any{idx}, &l.Kind, &came, &l.Body)
	l.At = at(came)
	return l, ok, err
}
