package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Standing is what changes of a standing order.
type Standing struct {
	ID        token.TransferID
	Due       time.Time // of the next run; zero if none follows
	Next      int64     // its number
	Newest    token.TransferID
	NewestRun int64
	Runs      int64
	Skipped   int64
	Note      string // public: why the run that is due is not begun
}

const standingColumns = `s.id, s.due, s.next_run, s.newest, s.newest_run, s.runs, s.skipped, s.note`

// AddStanding writes what there is to know of a standing order beside the order itself.
func (t *Tx) AddStanding(ctx context.Context, s Standing, accounts []token.Identity) error {
	if err := t.exec(ctx, "adding a standing order", `INSERT INTO standing (id, due, next_run, newest, newest_run, runs, skipped, note) VALUES `+values(1, 8),
		string(s.ID), ms(s.Due), s.Next, string(s.Newest), s.NewestRun, s.Runs, s.Skipped, s.Note); err != nil {
		return err
	}
	for _, a := range accounts {
		if err := t.exec(ctx, "adding an account", `INSERT INTO standing_accounts (account, id) VALUES (?, ?)`, string(a), string(s.ID)); err != nil {
			return err
		}
	}
	return nil
}

// SaveStanding writes what may change of a standing order.
func (t *Tx) SaveStanding(ctx context.Context, s Standing) error {
	return t.exec(ctx, "saving a standing order", `UPDATE standing SET due = ?, next_run = ?, newest = ?, newest_run = ?, runs = ?, skipped = ?, note = ? WHERE id = ?`,
		ms(s.Due), s.Next, string(s.Newest), s.NewestRun, s.Runs, s.Skipped, s.Note, string(s.ID))
}

// Standing returns the standing order of that id, and whether there is one.
func (t *Tx) Standing(ctx context.Context, id token.TransferID) (Standing, bool, error) {
	ss, err := t.standing(ctx, `WHERE s.id = ?`, string(id))
	if err != nil || len(ss) == 0 {
		return Standing{}, false, err
	}
	return ss[0], true, nil
}

// DueStanding returns up to limit standing orders of which a run is due at now and whose id is after the given one, by id.
func (t *Tx) DueStanding(ctx context.Context, now time.Time, after token.TransferID, limit int) ([]Standing, error) {
	return t.standing(ctx, `WHERE s.due > 0 AND s.due <= ? AND s.id > ? ORDER BY s.id LIMIT ?`, ms(now), string(after), limit)
}

// StandingOf returns up to limit standing orders of an account, by falling id, with ids before the given one (all if empty).
func (t *Tx) StandingOf(ctx context.Context, account token.Identity, before token.TransferID, limit int) ([]Standing, error) {
	return t.standing(ctx, `JOIN standing_accounts a ON a.id = s.id WHERE a.account = ? AND (s.id < ? OR ? = '') ORDER BY s.id DESC LIMIT ?`,
		string(account), string(before), string(before), limit)
}

// CountStanding returns how many standing orders of an account have runs to come.
func (t *Tx) CountStanding(ctx context.Context, account token.Identity) (int, error) {
	var n int
	_, err := t.one(ctx, "counting standing orders", `SELECT COUNT(*) FROM standing s JOIN standing_accounts a ON a.id = s.id WHERE a.account = ? AND s.due > 0`,
		[]any{string(account)}, &n)
	return n, err
}

func (t *Tx) standing(ctx context.Context, rest string, args ...any) ([]Standing, error) {
	var out []Standing
	err := t.each(ctx, "reading standing orders", `SELECT `+standingColumns+` FROM standing s `+rest, args, func(r *sql.Rows) error {
		var s Standing
		var due int64
		err := r.Scan(&s.ID, &due, &s.Next, &s.Newest, &s.NewestRun, &s.Runs, &s.Skipped, &s.Note)
		s.Due = at(due)
		out = append(out, s)
		return err
	})
	return out, err
}

// BaseOf returns the id of the order whose transfer or run has that id, and when it was received; or problem.NotFound.
func (t *Tx) BaseOf(ctx context.Context, id token.TransferID) (token.TransferID, time.Time, error) {
	var base token.TransferID
	var received int64
	ok, err := t.one(ctx, "looking for an order", `SELECT b.id, b.received FROM orders o JOIN orders b ON b.id = CASE o.base WHEN '' THEN o.id ELSE o.base END WHERE o.id = ?`,
		[]any{string(id)}, &base, &received)
	if err == nil && !ok {
		err = problem.New(problem.NotFound, "There is no order of that id")
	}
	return base, at(received), err
}

// RunsOf returns up to limit transfers of an order, by falling number of their run, with numbers before the given one.
func (t *Tx) RunsOf(ctx context.Context, id token.TransferID, before int64, limit int) ([]Transfer, error) {
	return t.transfers(ctx, `WHERE (o.id = ? OR o.base = ?) AND o.run < ? ORDER BY o.run DESC LIMIT ?`, string(id), string(id), before, limit)
}

// UnfinishedOf returns the unfinished transfers of an order.
func (t *Tx) UnfinishedOf(ctx context.Context, id token.TransferID) ([]Transfer, error) {
	return t.transfers(ctx, `WHERE (o.id = ? OR o.base = ?) AND t.finished = 0 ORDER BY t.id`, string(id), string(id))
}

// SetSigned replaces the chains beside an order, or beside one run of it. The order itself is the same.
func (t *Tx) SetSigned(ctx context.Context, id token.TransferID, signed api.SignedOrder) error {
	body, err := json.Marshal(signed)
	if err != nil {
		return fmt.Errorf("replacing the chains of an order: %w", err)
	}
	return t.exec(ctx, "replacing the chains of an order", `UPDATE orders SET signed = ? WHERE id = ?`, body, string(id))
}

// A Withdrawal is that an order was withdrawn.
type Withdrawal struct {
	Target  token.TransferID
	ID      token.TransferID // of the order to withdraw
	Account token.Identity
	Came    time.Time
	Expires time.Time
}

// AddWithdrawal writes a withdrawal. No run of the target follows, and all of them are marked.
func (t *Tx) AddWithdrawal(ctx context.Context, w Withdrawal) error {
	if err := t.exec(ctx, "adding a withdrawal", `INSERT INTO withdrawals (target, id, account, came, expires) VALUES (?, ?, ?, ?, ?)`,
		string(w.Target), string(w.ID), string(w.Account), ms(w.Came), ms(w.Expires)); err != nil {
		return err
	}
	if err := t.exec(ctx, "marking an order as withdrawn", `UPDATE orders SET withdrawn = ? WHERE id = ? OR base = ?`, ms(w.Came), string(w.Target), string(w.Target)); err != nil {
		return err
	}
	return t.exec(ctx, "ending a standing order", `UPDATE standing SET due = 0, note = '' WHERE id = ?`, string(w.Target))
}

// Withdrawal returns the withdrawal of an order, and whether there is one.
func (t *Tx) Withdrawal(ctx context.Context, target token.TransferID) (Withdrawal, bool, error) {
	w := Withdrawal{Target: target}
	var came, expires int64
	ok, err := t.one(ctx, "looking for a withdrawal", `SELECT id, account, came, expires FROM withdrawals WHERE target = ?`, []any{string(target)},
		&w.ID, &w.Account, &came, &expires)
	w.Came, w.Expires = at(came), at(expires)
	return w, ok, err
}

// A Notice is that an agent has not said yet that it knows of a withdrawal.
type Notice struct {
	Agent   token.Identity
	Target  token.TransferID
	Expires time.Time // of the withdrawal, and of its target
}

// PutNotice notes that an agent is told of a withdrawal at now.
func (t *Tx) PutNotice(ctx context.Context, n Notice, now time.Time) error {
	return t.exec(ctx, "noting a notice", `INSERT INTO notices (agent, target, tried) VALUES (?, ?, ?) ON CONFLICT (agent, target) DO UPDATE SET tried = excluded.tried`,
		string(n.Agent), string(n.Target), ms(now))
}

// DropNotice forgets a notice, and reports whether there was one.
func (t *Tx) DropNotice(ctx context.Context, n Notice) (bool, error) {
	var target string
	return t.one(ctx, "forgetting a notice", `DELETE FROM notices WHERE agent = ? AND target = ? RETURNING target`, []any{string(n.Agent), string(n.Target)}, &target)
}

// Notices returns the notices for an agent.
func (t *Tx) Notices(ctx context.Context, agent token.Identity) ([]Notice, error) {
	return t.notices(ctx, `WHERE n.agent = ? ORDER BY n.target`, string(agent))
}

// Notice reports whether an agent has not said yet that it knows of the withdrawal of target.
func (t *Tx) Notice(ctx context.Context, agent token.Identity, target token.TransferID) (bool, error) {
	ns, err := t.notices(ctx, `WHERE n.agent = ? AND n.target = ?`, string(agent), string(target))
	return len(ns) > 0, err
}

// NoticesOf returns the notices of a withdrawal.
func (t *Tx) NoticesOf(ctx context.Context, target token.TransferID) ([]Notice, error) {
	return t.notices(ctx, `WHERE n.target = ? ORDER BY n.agent`, string(target))
}

// OldNotices returns all notices that were sent last before the given time.
func (t *Tx) OldNotices(ctx context.Context, before time.Time) ([]Notice, error) {
	return t.notices(ctx, `WHERE n.tried < ? ORDER BY n.agent, n.target`, ms(before))
}

func (t *Tx) notices(ctx context.Context, rest string, args ...any) ([]Notice, error) {
	var out []Notice
	err := t.each(ctx, "reading notices", `SELECT n.agent, n.target, w.expires FROM notices n JOIN withdrawals w ON w.target = n.target `+rest, args, func(r *sql.Rows) error {
		var n Notice
		var expires int64
		err := r.Scan(&n.Agent, &n.Target, &expires)
		n.Expires = at(expires)
		out = append(out, n)
		return err
	})
	return out, err
}
