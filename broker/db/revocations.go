package db

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/consign-transfer/consign/token"
)

// A Revocation is a transfer whose capabilities are taken back.
type Revocation struct {
	Xfr    token.TransferID
	Reason token.Reason
	Ends   time.Time // from when none of its capabilities can live
}

// PutRevocation notes a revocation in place of an earlier one of the transfer. Of more than limit, those go that end first among those of
// whoever has the most: nobody can have the revocations of others forgotten by having many.
func (t *Tx) PutRevocation(ctx context.Context, r Revocation, limit int) error {
	if err := t.exec(ctx, "noting a revocation", `INSERT INTO revocations (xfr, reason, ends) VALUES (?, ?, ?)
		ON CONFLICT (xfr) DO UPDATE SET reason = excluded.reason, ends = excluded.ends`, string(r.Xfr), string(r.Reason), ms(r.Ends)); err != nil {
		return err
	}
	for {
		n := 0
		if _, err := t.one(ctx, "counting the revocations", `SELECT COUNT(*) FROM revocations`, nil, &n); err != nil || n <= limit {
			return err
		}
		if err := t.exec(ctx, "bounding the revocations", `DELETE FROM revocations WHERE xfr = (
			SELECT r.xfr FROM revocations r LEFT JOIN transfers t ON t.id = r.xfr WHERE COALESCE(t.accounts, '') = (
				SELECT COALESCE(t.accounts, '') AS who FROM revocations r LEFT JOIN transfers t ON t.id = r.xfr GROUP BY who ORDER BY COUNT(*) DESC, who LIMIT 1)
			ORDER BY r.ends, r.xfr DESC LIMIT 1)`); err != nil {
			return err
		}
	}
}

// DropRevocation forgets the revocation of a transfer and reports whether there was one.
func (t *Tx) DropRevocation(ctx context.Context, xfr token.TransferID) (bool, error) {
	return t.one(ctx, "forgetting a revocation", `DELETE FROM revocations WHERE xfr = ? RETURNING xfr`, []any{string(xfr)}, new(string))
}

// Revoked returns why the capabilities of a transfer are taken back, and whether they are.
func (t *Tx) Revoked(ctx context.Context, xfr token.TransferID) (token.Reason, bool, error) {
	var why token.Reason
	ok, err := t.one(ctx, "looking for a revocation", `SELECT reason FROM revocations WHERE xfr = ?`, []any{string(xfr)}, &why)
	return why, ok, err
}

// ForgetRevocations forgets the revocations that have ended.
func (t *Tx) ForgetRevocations(ctx context.Context, now time.Time) error {
	return t.exec(ctx, "forgetting revocations", `DELETE FROM revocations WHERE ends <= ?`, ms(now))
}

// Revocations returns all revocations, by transfer.
func (t *Tx) Revocations(ctx context.Context) ([]Revocation, error) {
	var out []Revocation
	err := t.each(ctx, "reading revocations", `SELECT xfr, reason, ends FROM revocations ORDER BY xfr`, nil, func(r *sql.Rows) error {
		var v Revocation
		var ends int64
		err := r.Scan(&v.Xfr, &v.Reason, &ends)
		v.Ends = at(ends)
		out = append(out, v)
		return err
	})
	return out, err
}

// LastCapability returns when the last capability of a transfer ends, or ended; the zero time if none was minted.
func (t *Tx) LastCapability(ctx context.Context, xfr token.TransferID) (time.Time, error) {
	var exp int64
	_, err := t.one(ctx, "looking for capabilities", `SELECT COALESCE(MAX(cap_exp), 0) FROM batches WHERE xfr = ?`, []any{string(xfr)}, &exp)
	return at(exp), err
}

// LastCapabilityOfAll returns when the last capability of all ends, or ended.
func (t *Tx) LastCapabilityOfAll(ctx context.Context) (time.Time, error) {
	var exp int64
	_, err := t.one(ctx, "looking for capabilities", `SELECT COALESCE(MAX(cap_exp), 0) FROM batches`, nil, &exp)
	return at(exp), err
}

// Epoch returns the epoch of the newest list of revocations and when it was made; 0 if there was none yet.
func (t *Tx) Epoch(ctx context.Context) (epoch, iat int64, err error) {
	text, err := t.Meta(ctx, "epoch")
	if err != nil || text == "" {
		return 0, 0, err
	}
	if _, err := fmt.Sscanf(text, "%d %d", &epoch, &iat); err != nil {
		return 0, 0, fmt.Errorf("reading the epoch: %w", err)
	}
	return epoch, iat, nil
}

// SetEpoch begins a new epoch.
func (t *Tx) SetEpoch(ctx context.Context, epoch, iat int64) error {
	return t.SetMeta(ctx, "epoch", fmt.Sprintf("%d %d", epoch, iat))
}
