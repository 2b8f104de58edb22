package db

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/consign-transfer/consign/token/problem"
)

// MaxLeafSize bounds the body of a leaf, in bytes.
const MaxLeafSize = 65535

// A LeafKind says what a leaf records.
type LeafKind string

// The kinds of leaves.
const (
	OrderLeaf       LeafKind = "order"
	MintLeaf        LeafKind = "mint"
	ReceiptLeaf     LeafKind = "receipt"
	SettleLeaf      LeafKind = "settle"
	DenialLeaf      LeafKind = "denial"
	KeyLeaf         LeafKind = "key"
	ConfigLeaf      LeafKind = "config"
	CancelLeaf      LeafKind = "cancel"
	LinkLeaf        LeafKind = "link"
	IdentityKeyLeaf LeafKind = "identity-key" // of a subscriber or agent
	PauseLeaf       LeafKind = "pause"
	RevokeLeaf      LeafKind = "revocation"

	RunLeaf      LeafKind = "run"      // a later run of a standing order was begun
	RenewLeaf    LeafKind = "renew"    // a newer certificate came for a standing order
	WithdrawLeaf LeafKind = "withdraw" // an order was withdrawn

	EraseLeaf  LeafKind = "erase"  // what an agent has erased
	AuditLeaf  LeafKind = "audit"  // the root of a run of audit records
	AdoptLeaf  LeafKind = "adopt"  // an adoption was begun, or has ended
	AccessLeaf LeafKind = "access" // list, owner or data system metadata of a place were changed
	GroupLeaf  LeafKind = "group"  // somebody came into a group or left it
)

// A Leaf is one entry of what the broker can never take back.
type Leaf struct {
	Kind LeafKind
	At   time.Time
	Body []byte // canonical bytes, at most MaxLeafSize
}

// Append writes a leaf and returns its index. It is the only function that does. The
// indexes of committed leaves are 0, 1, 2 ... without a hole.
func Append(ctx context.Context, tx *Tx, l Leaf) (int64, error) {
	if len(l.Body) > MaxLeafSize {
		return 0, problem.New(problem.TooLarge, "The statement is larger than a ledger leaf of %d bytes", MaxLeafSize)
	}
	idx, err := tx.next(ctx, "leaf")
	if err != nil {
		return 0, err
	}
	err = tx.exec(ctx, "appending a leaf", `INSERT INTO leaves (idx, kind, came, body) VALUES (?, ?, ?, ?)`,
		idx, string(l.Kind), ms(l.At), l.Body)
	return idx, err
}

// next takes a number from a counter. The writers' one-at-a-time order leaves no hole: a
// transaction that fails gives its numbers back.
func (t *Tx) next(ctx context.Context, counter string) (int64, error) {
	var n int64
	ok, err := t.one(ctx, "counting", `UPDATE counters SET value = value + 1 WHERE name = ? RETURNING value - 1`, []any{counter}, &n)
	if err == nil && !ok {
		err = fmt.Errorf("counting: there is no counter %q", counter)
	}
	return n, err
}

// Leaves calls fn with the index and content of each leaf from the given index on.
func (t *Tx) Leaves(ctx context.Context, from int64, fn func(int64, Leaf) error) error {
	return t.each(ctx, "reading leaves", `SELECT idx, kind, came, body FROM leaves WHERE idx >= ? ORDER BY idx`, []any{from}, func(r *sql.Rows) error {
		var idx, came int64
		var l Leaf
		if err := r.Scan(&idx, &l.Kind, &came, &l.Body); err != nil {
			return err
		}
		l.At = at(came)
		return fn(idx, l)
	})
}

// Meta returns a note that SetMeta left; empty if there is none.
func (t *Tx) Meta(ctx context.Context, name string) (string, error) {
	var v string
	_, err := t.one(ctx, "reading a note", `SELECT value FROM meta WHERE name = ?`, []any{name}, &v)
	return v, err
}

// SetMeta leaves a note under a name, in place of an earlier one.
func (t *Tx) SetMeta(ctx context.Context, name, value string) error {
	return t.exec(ctx, "leaving a note", `INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
}
