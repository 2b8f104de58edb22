package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Hook is an address that is told of an account's events.
type Hook struct {
	ID        string
	Account   token.Identity
	URL       string
	Kinds     []api.EventKind // that are wanted; none is the usual ones
	Created   time.Time
	Due       time.Time // not to be called before
	Tries     int64     // that failed since the last success
	Failing   time.Time // since when; zero after a success
	Stopped   time.Time // when it was switched off; zero if it is on
	Delivered time.Time // when an event was last taken
	Pending   int64     // events that wait for it
	Code      problem.Code
	Detail    string // of the last failure
}

const hookColumns = `id, account, url, kinds, created, due, tries, failing, stopped, delivered, pending, code, detail`

func scanHook(r *sql.Rows) (Hook, error) {
	var h Hook
	var kinds string
	var created, due, failing, stopped, delivered int64
	err := r.Scan(&h.ID, &h.Account, &h.URL, &kinds, &created, &due, &h.Tries, &failing, &stopped, &delivered, &h.Pending, &h.Code, &h.Detail)
	if err != nil {
		return Hook{}, err
	}
	h.Created, h.Due, h.Failing, h.Stopped, h.Delivered = at(created), at(due), at(failing), at(stopped), at(delivered)
	return h, json.Unmarshal([]byte(kinds), &h.Kinds)
}

func (t *Tx) hooks(ctx context.Context, query string, args ...any) ([]Hook, error) {
	var out []Hook
	err := t.each(ctx, "reading webhooks", `SELECT `+hookColumns+` FROM hooks `+query, args, func(r *sql.Rows) error {
		h, err := scanHook(r)
		out = append(out, h)
		return err
	})
	return out, err
}

// AddHook adds a webhook.
func (t *Tx) AddHook(ctx context.Context, h Hook) error {
	kinds, err := json.Marshal(append([]api.EventKind{}, h.Kinds...))
	if err != nil {
		return err
	}
	return t.exec(ctx, "adding a webhook", `INSERT INTO hooks (`+hookColumns+`) VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, '', '')`,
		h.ID, string(h.Account), h.URL, string(kinds), ms(h.Created))
}

// Hooks returns the webhooks of the accounts, in order of their ids.
func (t *Tx) Hooks(ctx context.Context, accounts ...token.Identity) ([]Hook, error) {
	if len(accounts) == 0 {
		return nil, nil
	}
	args := make([]any, len(accounts))
	for i, a := range accounts {
		args[i] = string(a)
	}
	return t.hooks(ctx, `WHERE account IN (?`+strings.Repeat(", ?", len(args)-1)+`) ORDER BY account, id`, args...)
}

// Hook returns a webhook and whether there is one of that id.
func (t *Tx) Hook(ctx context.Context, id string) (Hook, bool, error) {
	hs, err := t.hooks(ctx, `WHERE id = ?`, id)
	if err != nil || len(hs) == 0 {
		return Hook{}, false, err
	}
	return hs[0], true, nil
}

// CountHooks returns how many webhooks there are.
func (t *Tx) CountHooks(ctx context.Context) (int64, error) {
	var n int64
	_, err := t.one(ctx, "counting webhooks", `SELECT COUNT(*) FROM hooks`, nil, &n)
	return n, err
}

// DueHooks returns the webhooks for which something waits that may be called now, those that are due longest first.
func (t *Tx) DueHooks(ctx context.Context, now time.Time, limit int) ([]Hook, error) {
	return t.hooks(ctx, `WHERE pending > 0 AND stopped = 0 AND due <= ? ORDER BY due, id LIMIT ?`, ms(now), limit)
}

// SaveHook writes what changes of a webhook but for its outbox.
func (t *Tx) SaveHook(ctx context.Context, h Hook) error {
	return t.exec(ctx, "saving a webhook", `UPDATE hooks SET due = ?, tries = ?, failing = ?, stopped = ?, delivered = ?, code = ?, detail = ? WHERE id = ?`,
		ms(h.Due), h.Tries, ms(h.Failing), ms(h.Stopped), ms(h.Delivered), string(h.Code), h.Detail, h.ID)
}

// DropHook forgets a webhook and what waits for it.
func (t *Tx) DropHook(ctx context.Context, id string) error {
	if err := t.ClearOutbox(ctx, id); err != nil {
		return err
	}
	return t.exec(ctx, "forgetting a webhook", `DELETE FROM hooks WHERE id = ?`, id)
}

// Enqueue has an event wait for a webhook.
func (t *Tx) Enqueue(ctx context.Context, hook string, seq int64) error {
	if err := t.exec(ctx, "filling an outbox", `INSERT INTO outbox (hook, seq) VALUES (?, ?)`, hook, seq); err != nil {
		return err
	}
	return t.exec(ctx, "counting an outbox", `UPDATE hooks SET pending = pending + 1 WHERE id = ?`, hook)
}

// NextOut returns the first event that waits for a webhook and whether there is one.
func (t *Tx) NextOut(ctx context.Context, hook string) (api.Event, bool, error) {
	es, err := t.events(ctx, `SELECT `+eventColumns+` FROM events e JOIN outbox o ON o.seq = e.seq WHERE o.hook = ? ORDER BY o.seq LIMIT 1`, hook)
	if err != nil || len(es) == 0 {
		return api.Event{}, false, err
	}
	return es[0], true, nil
}

// Dequeue forgets that an event waits for a webhook. One that does not is no failure.
func (t *Tx) Dequeue(ctx context.Context, hook string, seq int64) error {
	if err := t.exec(ctx, "counting an outbox", `UPDATE hooks SET pending = pending - 1 WHERE id = ? AND EXISTS (SELECT 1 FROM outbox WHERE hook = ? AND seq = ?)`,
		hook, hook, seq); err != nil {
		return err
	}
	return t.exec(ctx, "emptying an outbox", `DELETE FROM outbox WHERE hook = ? AND seq = ?`, hook, seq)
}

// ClearOutbox forgets all that waits for a webhook.
func (t *Tx) ClearOutbox(ctx context.Context, hook string) error {
	if err := t.exec(ctx, "clearing an outbox", `DELETE FROM outbox WHERE hook = ?`, hook); err != nil {
		return err
	}
	return t.exec(ctx, "counting an outbox", `UPDATE hooks SET pending = 0 WHERE id = ?`, hook)
}
