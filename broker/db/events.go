package db

import (
	"context"
	"database/sql"
	"strings"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

const eventColumns = `e.seq, e.came, e.xfr, e.kind, e.note, e.code, e.account`

// AddEvent writes an event and returns its number, which is beyond all earlier ones.
func (t *Tx) AddEvent(ctx context.Context, e api.Event) (int64, error) {
	seq, err := t.next(ctx, "event")
	if err != nil {
		return 0, err
	}
	err = t.exec(ctx, "adding an event", `INSERT INTO events (seq, came, xfr, kind, note, code, account) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		seq, ms(e.At), string(e.Xfr), string(e.Kind), e.Note, string(e.Code), string(e.Account))
	return seq, err
}

func scanEvent(r *sql.Rows) (api.Event, error) {
	var e api.Event
	var came int64
	err := r.Scan(&e.Seq, &came, &e.Xfr, &e.Kind, &e.Note, &e.Code, &e.Account)
	e.At = at(came)
	return e, err
}

func (t *Tx) events(ctx context.Context, query string, args ...any) ([]api.Event, error) {
	var out []api.Event
	err := t.each(ctx, "reading events", query, args, func(r *sql.Rows) error {
		e, err := scanEvent(r)
		out = append(out, e)
		return err
	})
	return out, err
}

// Events returns up to limit events of a transfer after the number after, in order.
func (t *Tx) Events(ctx context.Context, xfr token.TransferID, after int64, limit int) ([]api.Event, error) {
	return t.events(ctx, `SELECT `+eventColumns+` FROM events e WHERE e.xfr = ? AND e.seq > ? ORDER BY e.seq LIMIT ?`, string(xfr), after, limit)
}

// Denials returns the newest denials of a transfer, at most limit, oldest first.
func (t *Tx) Denials(ctx context.Context, xfr token.TransferID, limit int) ([]api.Event, error) {
	return t.events(ctx, `SELECT * FROM (SELECT `+eventColumns+` FROM events e WHERE e.xfr = ? AND e.kind = 'denied' ORDER BY e.seq DESC LIMIT ?) d ORDER BY d.seq`,
		string(xfr), limit)
}

// LastEvent returns the number of the newest event; 0 if there is none.
func (t *Tx) LastEvent(ctx context.Context) (int64, error) {
	var n int64
	_, err := t.one(ctx, "reading the newest event", `SELECT value - 1 FROM counters WHERE name = 'event'`, nil, &n)
	return n, err
}

// EventsOf returns the events of the given accounts and of their transfers whose numbers are beyond after and at most upTo, in
// order, at most limit.
func (t *Tx) EventsOf(ctx context.Context, accounts []token.Identity, after, upTo int64, limit int) ([]api.Event, error) {
	if len(accounts) == 0 {
		return nil, nil
	}
	in := "(?" + strings.Repeat(", ?", len(accounts)-1) + ")"
	args := []any{after, upTo}
	for range 2 {
		for _, a := range accounts {
			args = append(args, string(a))
		}
	}
	return t.events(ctx, `SELECT `+eventColumns+` FROM events e WHERE e.seq > ? AND e.seq <= ? AND (e.account IN `+in+`
		OR EXISTS (SELECT 1 FROM accounts a WHERE a.xfr = e.xfr AND a.account IN `+in+`)) ORDER BY e.seq LIMIT ?`, append(args, limit)...)
}
