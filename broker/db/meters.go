package db

import (
	"context"
	"database/sql"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

// Meter has batches hold room in a container from now on, and reports whether they did not before.
func (t *Tx) Meter(ctx context.Context, l token.Location) (bool, error) {
	return t.one(ctx, "metering a container", `INSERT INTO meters (provider, container, name) VALUES (?, ?, ?)
		ON CONFLICT (provider, container, name) DO NOTHING RETURNING name`, []any{string(l.Provider), string(l.Container), string(l.Name)}, new(string))
}

// Metered returns the names of the metered containers in the root container of l, itself included.
func (t *Tx) Metered(ctx context.Context, l token.Location) (map[token.ObjectName]bool, error) {
	out := map[token.ObjectName]bool{}
	err := t.each(ctx, "reading metered containers", `SELECT name FROM meters WHERE provider = ? AND container = ?`,
		[]any{string(l.Provider), string(l.Container)}, func(r *sql.Rows) error {
			var n token.ObjectName
			err := r.Scan(&n)
			out[n] = true
			return err
		})
	return out, err
}

// Hold replaces what a batch holds, by the names of metered containers in the root container of l.
func (t *Tx) Hold(ctx context.Context, l token.Location, ref api.Ref, bytes map[token.ObjectName]int64) error {
	if err := t.Unhold(ctx, ref); err != nil {
		return err
	}
	for name, n := range bytes {
		if err := t.HoldMore(ctx, token.Location{Provider: l.Provider, Container: l.Container, Name: name}, ref, n); err != nil {
			return err
		}
	}
	return nil
}

// HoldMore notes what a batch holds in a metered container of which it held nothing.
func (t *Tx) HoldMore(ctx context.Context, l token.Location, ref api.Ref, bytes int64) error {
	return t.exec(ctx, "holding room", `INSERT INTO holdings (provider, container, name, xfr, bat, bytes) VALUES (?, ?, ?, ?, ?, ?)`,
		string(l.Provider), string(l.Container), string(l.Name), string(ref.Xfr), ref.Bat, bytes)
}

// Unhold gives back all that a batch holds.
func (t *Tx) Unhold(ctx context.Context, ref api.Ref) error {
	return t.exec(ctx, "giving room back", `DELETE FROM holdings WHERE xfr = ? AND bat = ?`, string(ref.Xfr), ref.Bat)
}

// Held returns how many bytes all batches hold in a metered container.
func (t *Tx) Held(ctx context.Context, l token.Location) (int64, error) {
	var n int64
	_, err := t.one(ctx, "adding up what is held", `SELECT COALESCE(SUM(bytes), 0) FROM holdings WHERE provider = ? AND container = ? AND name = ?`,
		[]any{string(l.Provider), string(l.Container), string(l.Name)}, &n)
	return n, err
}

// UnendedInto returns the batches that have not ended of all transfers into the root container of l.
func (t *Tx) UnendedInto(ctx context.Context, l token.Location) ([]Batch, error) {
	return t.batches(ctx, `WHERE state IN ('filling', 'ready', 'repin', 'live') AND xfr IN (SELECT id FROM transfers WHERE finished = 0 AND dst_provider = ? AND dst_container = ?) ORDER BY xfr, bat`,
		string(l.Provider), string(l.Container))
}

// UnendedOf returns the batches of a transfer that have not ended, by number.
func (t *Tx) UnendedOf(ctx context.Context, xfr token.TransferID) ([]Batch, error) {
	return t.batches(ctx, `WHERE xfr = ? AND state <> 'ended' ORDER BY bat`, string(xfr))
}

// NextJudging returns the first moment at which what agents are doing is to be judged anew; zero if there is none.
func (t *Tx) NextJudging(ctx context.Context) (time.Time, error) {
	var first int64
	_, err := t.one(ctx, "looking for what is to be judged", `SELECT COALESCE(MIN(judge_after), 0) FROM batches
		WHERE state = 'live' AND judge_after > 0 AND dropped = 0 AND dst_done = 0`, nil, &first)
	return at(first), err
}

// Resting returns the transfers that are revoked and neither paused nor at their end, by id.
func (t *Tx) Resting(ctx context.Context) ([]token.TransferID, error) {
	var out []token.TransferID
	err := t.each(ctx, "looking for resting transfers", `SELECT r.xfr FROM revocations r JOIN transfers t ON t.id = r.xfr
		WHERE t.finished = 0 AND t.ending = '' AND t.state <> 'paused' ORDER BY r.xfr`, nil, func(r *sql.Rows) error {
		var id token.TransferID
		err := r.Scan(&id)
		out = append(out, id)
		return err
	})
	return out, err
}

// Loud reports whether a transfer has a batch that was stopped, of which one of the agents has not said that it has ended, and of which a
// capability ends after the given time.
func (t *Tx) Loud(ctx context.Context, xfr token.TransferID, after time.Time) (bool, error) {
	return t.one(ctx, "looking for stopped batches", `SELECT bat FROM batches WHERE xfr = ? AND dropped > 0 AND cap_exp > ? AND (src_done = 0 OR dst_done = 0) LIMIT 1`,
		[]any{string(xfr), ms(after)}, new(int64))
}
