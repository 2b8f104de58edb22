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

// A Counts is how many items have which final outcome.
type Counts struct {
	Stored, Existed, Taken, Changed, Denied, Failed, Skipped, Untried int64
}

// Of returns the counter of a result; nil for one that no item can end with.
func (c *Counts) Of(r token.Result) *int64 {
	switch r {
	case token.Stored:
		return &c.Stored
	case token.Existed:
		return &c.Existed
	case token.TakenBy:
		return &c.Taken
	case token.Altered:
		return &c.Changed
	case token.Denied:
		return &c.Denied
	case token.Failed:
		return &c.Failed
	case token.Left:
		return &c.Skipped
	case token.Untried:
		return &c.Untried
	case token.Sent:
	}
	return nil
}

// Failures is how many items were not transferred though they should have been.
func (c *Counts) Failures() int64 { return c.Taken + c.Changed + c.Denied + c.Failed + c.Untried }

// Done is how many items have a final outcome.
func (c *Counts) Done() int64 { return c.Failures() + c.Stored + c.Existed + c.Skipped }

// A Transfer is the row of one transfer.
type Transfer struct {
	ID        token.TransferID
	State     api.State
	Ending    api.State // the state it will end in, from when nothing new is begun; empty before
	Do        token.Verb
	From, To  token.Location
	Accounts  []token.Identity
	Created   time.Time
	Finished  time.Time // zero while anything is left to do
	Expires   time.Time
	Planned   bool
	PlanAfter time.Time
	PlanTries int64
	Resume    token.ObjectName // the last name taken from the listing
	Items     int64
	Bytes     int64
	Moved     int64 // bytes of the stored items
	Counts
	Disputed  bool
	Unmatched bool
	Code      problem.Code // the first problem; empty for none
	Detail    string
	NextBat   int64
	Seq       int64
	Ord       token.Hash       // of the order's payload
	Paused    time.Time        // since when; zero while it is not
	Order     token.TransferID // the id of the order, which is that of its first run
	Run       int64            // of a standing order; else 0
	Withdrawn time.Time        // when the order was withdrawn; zero if it was not
	Authority token.Authority  // what it rests on
}

const transferColumns = `t.id, t.state, t.ending, t.verb, t.src_provider, t.src_container, t.src_name, t.dst_provider, t.dst_container, t.dst_name,
	t.accounts, t.created, t.finished, t.expires, t.planned, t.plan_after, t.plan_tries, t.resume_after, t.items, t.bytes, t.moved,
	t.stored, t.existed, t.taken, t.altered, t.denied, t.failed, t.skipped, t.untried, t.disputed, t.unmatched, t.code, t.detail,
	t.next_bat, t.seq, t.paused, o.hash, CASE o.base WHEN '' THEN o.id ELSE o.base END, o.run, o.withdrawn, t.authority`

const transferTables = ` FROM transfers t JOIN orders o ON o.id = t.id `

func scanTransfer(scan func(...any) error) (Transfer, error) {
	var t Transfer
	var accounts string
	var created, finished, expires, planned, planAfter, disputed, unmatched, paused, withdrawn int64
	err := scan(&t.ID, &t.State, &t.Ending, &t.Do, &t.From.Provider, &t.From.Container, &t.From.Name, &t.To.Provider, &t.To.Container, &t.To.Name,
		&accounts, &created, &finished, &expires, &planned, &planAfter, &t.PlanTries, &t.Resume, &t.Items, &t.Bytes, &t.Moved,
		&t.Stored, &t.Existed, &t.Taken, &t.Changed, &t.Denied, &t.Failed, &t.Skipped, &t.Untried, &disputed, &unmatched, &t.Code, &t.Detail,
		&t.NextBat, &t.Seq, &paused, &t.Ord, &t.Order, &t.Run, &withdrawn, &t.Authority)
	if err != nil {
		return Transfer{}, err
	}
	t.Created, t.Finished, t.Expires, t.PlanAfter, t.Paused, t.Withdrawn = at(created), at(finished), at(expires), at(planAfter), at(paused), at(withdrawn)
	t.Planned, t.Disputed, t.Unmatched = planned != 0, disputed != 0, unmatched != 0
	return t, json.Unmarshal([]byte(accounts), &t.Accounts)
}

// AddOrder writes an order, or a later run of one, that no other has the id of, and its transfer.
func (t *Tx) AddOrder(ctx context.Context, x Transfer, signed api.SignedOrder) error {
	body, err := json.Marshal(signed)
	if err != nil {
		return err
	}
	accounts, err := json.Marshal(x.Accounts)
	if err != nil {
		return err
	}
	base := x.Order
	if base == x.ID {
		base = ""
	}
	if err := t.exec(ctx, "adding an order", `INSERT INTO orders (id, hash, signed, received, base, run) VALUES (?, ?, ?, ?, ?, ?)`,
		string(x.ID), string(x.Ord), body, ms(x.Created), string(base), x.Run); err != nil {
		return err
	}
	if err := t.exec(ctx, "adding a transfer", `INSERT INTO transfers (id, state, ending, verb, src_provider, src_container, src_name,
		dst_provider, dst_container, dst_name, accounts, created, finished, expires, planned, plan_after, plan_tries, resume_after, items, bytes, moved,
		stored, existed, taken, altered, denied, failed, skipped, untried, disputed, unmatched, code, detail, next_bat, seq, authority)
		VALUES (?, ?, '', ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, 0, 0, 0, '', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '', '', 1, 0, ?)`,
		string(x.ID), string(x.State), string(x.Do), string(x.From.Provider), string(x.From.Container), string(x.From.Name),
		string(x.To.Provider), string(x.To.Container), string(x.To.Name), string(accounts), ms(x.Created), ms(x.Expires), string(x.Authority)); err != nil {
		return err
	}
	for _, a := range x.Accounts {
		if err := t.exec(ctx, "adding an account", `INSERT INTO accounts (account, xfr) VALUES (?, ?)`, string(a), string(x.ID)); err != nil {
			return err
		}
	}
	return nil
}

// Order returns an order as it came and the hash of its payload, or problem.NotFound.
func (t *Tx) Order(ctx context.Context, id token.TransferID) (api.SignedOrder, token.Hash, error) {
	var body []byte
	var hash token.Hash
	var o api.SignedOrder
	ok, err := t.one(ctx, "reading an order", `SELECT signed, hash FROM orders WHERE id = ?`, []any{string(id)}, &body, &hash)
	if err != nil {
		return o, "", err
	}
	if !ok {
		return o, "", problem.New(problem.NotFound, "There is no transfer of that id")
	}
	if err := json.Unmarshal(body, &o); err != nil {
		return o, "", fmt.Errorf("reading an order: %w", err)
	}
	return o, hash, nil
}

// Transfer returns a transfer, or problem.NotFound.
func (t *Tx) Transfer(ctx context.Context, id token.TransferID) (Transfer, error) {
	x, err := scanTransfer(t.tx.QueryRowContext(ctx, `SELECT `+transferColumns+transferTables+`WHERE t.id = ?`, string(id)).Scan)
	if err != nil {
		if ok, err := t.one(ctx, "looking for a transfer", `SELECT id FROM transfers WHERE id = ?`, []any{string(id)}, new(string)); err == nil && !ok {
			return Transfer{}, problem.New(problem.NotFound, "There is no transfer of that id")
		}
		return Transfer{}, fmt.Errorf("reading a transfer: %w", err)
	}
	return x, nil
}

// SaveTransfer writes what may change of a transfer.
func (t *Tx) SaveTransfer(ctx context.Context, x Transfer) error {
	return t.exec(ctx, "saving a transfer", `UPDATE transfers SET state = ?, ending = ?, finished = ?, planned = ?, plan_after = ?, plan_tries = ?,
		resume_after = ?, items = ?, bytes = ?, moved = ?, stored = ?, existed = ?, taken = ?, altered = ?, denied = ?, failed = ?, skipped = ?,
		untried = ?, disputed = ?, unmatched = ?, code = ?, detail = ?, next_bat = ?, seq = ?, paused = ? WHERE id = ?`,
		string(x.State), string(x.Ending), ms(x.Finished), bit(x.Planned), ms(x.PlanAfter), x.PlanTries, string(x.Resume), x.Items, x.Bytes, x.Moved,
		x.Stored, x.Existed, x.Taken, x.Changed, x.Denied, x.Failed, x.Skipped, x.Untried, bit(x.Disputed), bit(x.Unmatched), string(x.Code), x.Detail,
		x.NextBat, x.Seq, ms(x.Paused), string(x.ID))
}

// Unfinished returns up to limit unfinished transfers whose id is after the given one, by id.
func (t *Tx) Unfinished(ctx context.Context, after token.TransferID, limit int) ([]Transfer, error) {
	return t.transfers(ctx, `WHERE t.finished = 0 AND t.id > ? ORDER BY t.id LIMIT ?`, string(after), limit)
}

// Transfers returns up to limit transfers of any of the accounts, of which there must be one, in a state (any if empty), by falling id,
// with ids before the given one (all if empty).
func (t *Tx) Transfers(ctx context.Context, accounts []token.Identity, state api.State, before token.TransferID, limit int) ([]Transfer, error) {
	var args []any
	for _, a := range accounts {
		args = append(args, string(a))
	}
	return t.transfers(ctx, `WHERE t.id IN (SELECT a.xfr FROM accounts a WHERE a.account IN `+values(1, len(accounts))+`)
		AND (t.state = ? OR ? = '') AND (t.id < ? OR ? = '') ORDER BY t.id DESC LIMIT ?`,
		append(args, string(state), string(state), string(before), string(before), limit)...)
}

func (t *Tx) transfers(ctx context.Context, rest string, args ...any) ([]Transfer, error) {
	var out []Transfer
	err := t.each(ctx, "reading transfers", `SELECT `+transferColumns+transferTables+rest, args, func(r *sql.Rows) error {
		x, err := scanTransfer(r.Scan)
		out = append(out, x)
		return err
	})
	return out, err
}

// TransferStates returns how many transfers are in which state.
func (t *Tx) TransferStates(ctx context.Context) (map[string]int64, error) {
	return t.countBy(ctx, `SELECT state, COUNT(*) FROM transfers GROUP BY state`)
}

// BatchStates returns how many batches are in which state.
func (t *Tx) BatchStates(ctx context.Context) (map[string]int64, error) {
	return t.countBy(ctx, `SELECT state, COUNT(*) FROM batches GROUP BY state`)
}

func (t *Tx) countBy(ctx context.Context, query string) (map[string]int64, error) {
	out := map[string]int64{}
	err := t.each(ctx, "counting", query, nil, func(r *sql.Rows) error {
		var k string
		var n int64
		err := r.Scan(&k, &n)
		out[k] = n
		return err
	})
	return out, err
}

// An Unplanned is a name of the source that no batch holds, and why.
type Unplanned struct {
	N      int64 // from 1 within the transfer
	Name   string
	Result token.Result
	Code   problem.Code
	Detail string
}

// AddUnplanned adds names to the report of a transfer, after those that are there.
func (t *Tx) AddUnplanned(ctx context.Context, xfr token.TransferID, us []Unplanned) error {
	var n int64
	if _, err := t.one(ctx, "counting unplanned names", `SELECT COALESCE(MAX(n), 0) FROM unplanned WHERE xfr = ?`, []any{string(xfr)}, &n); err != nil {
		return err
	}
	for len(us) > 0 {
		part := us[:min(len(us), rowsAtOnce)]
		us = us[len(part):]
		args := make([]any, 0, 6*len(part))
		for _, u := range part {
			n++
			args = append(args, string(xfr), n, u.Name, string(u.Result), string(u.Code), u.Detail)
		}
		if err := t.exec(ctx, "adding unplanned names", `INSERT INTO unplanned (xfr, n, name, result, code, detail) VALUES `+
			values(len(part), 6), args...); err != nil {
			return err
		}
	}
	return nil
}

// Unplanned returns up to limit names after number after, of one result or, if that is empty, all.
func (t *Tx) Unplanned(ctx context.Context, xfr token.TransferID, result token.Result, after int64, limit int) ([]Unplanned, error) {
	var out []Unplanned
	err := t.each(ctx, "reading unplanned names", `SELECT n, name, result, code, detail FROM unplanned WHERE xfr = ? AND n > ? AND (result = ? OR ? = '')
		ORDER BY n LIMIT ?`, []any{string(xfr), after, string(result), string(result), limit}, func(r *sql.Rows) error {
		var u Unplanned
		err := r.Scan(&u.N, &u.Name, &u.Result, &u.Code, &u.Detail)
		out = append(out, u)
		return err
	})
	return out, err
}

// AddFolders notes empty containers of the source. Those that are noted are fine.
func (t *Tx) AddFolders(ctx context.Context, xfr token.TransferID, names []token.ObjectName) error {
	for len(names) > 0 {
		part := names[:min(len(names), rowsAtOnce)]
		names = names[len(part):]
		args := make([]any, 0, 2*len(part))
		for _, n := range part {
			args = append(args, string(xfr), string(n))
		}
		if err := t.exec(ctx, "noting empty containers", `INSERT INTO folders (xfr, name) VALUES `+values(len(part), 2)+` ON CONFLICT (xfr, name) DO NOTHING`, args...); err != nil {
			return err
		}
	}
	return nil
}

// Folders returns up to limit empty containers that are not made yet.
func (t *Tx) Folders(ctx context.Context, xfr token.TransferID, limit int) ([]token.ObjectName, error) {
	var out []token.ObjectName
	err := t.each(ctx, "reading empty containers", `SELECT name FROM folders WHERE xfr = ? ORDER BY name LIMIT ?`, []any{string(xfr), limit}, func(r *sql.Rows) error {
		var n token.ObjectName
		err := r.Scan(&n)
		out = append(out, n)
		return err
	})
	return out, err
}

// DropFolders forgets the first limit empty containers; all if limit is 0.
func (t *Tx) DropFolders(ctx context.Context, xfr token.TransferID, limit int) error {
	if limit == 0 {
		err := t.exec(ctx, "forgetting empty containers", `DELETE FROM folders WHERE xfr = ?`, string(xfr))
		return err
	}
	return t.exec(ctx, "forgetting empty containers", `DELETE FROM folders WHERE xfr = ? AND name IN
		(SELECT name FROM folders WHERE xfr = ? ORDER BY name LIMIT ?)`, string(xfr), string(xfr), limit)
}

// DropFolder forgets one empty container.
func (t *Tx) DropFolder(ctx context.Context, xfr token.TransferID, name token.ObjectName) error {
	return t.exec(ctx, "forgetting an empty container", `DELETE FROM folders WHERE xfr = ? AND name = ?`, string(xfr), string(name))
}

// values spells n rows of k parameters.
func values(n, k int) string {
	row := make([]byte, 0, 2*k+2)
	row = append(row, '(')
	for i := range k {
		if i > 0 {
			row = append(row, ',')
		}
		row = append(row, '?')
	}
	row = append(row, ')')
	out := make([]byte, 0, n*(len(row)+1))
	for i := range n {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, row...)
	}
	return string(out)
}

// NoteOrder writes an order that has no transfer, and that no other has the id of.
func (t *Tx) NoteOrder(ctx context.Context, id token.TransferID, hash token.Hash, signed api.SignedOrder, now time.Time) error {
	body, err := json.Marshal(signed)
	if err != nil {
		return err
	}
	return t.exec(ctx, "noting an order", `INSERT INTO orders (id, hash, signed, received) VALUES (?, ?, ?, ?)`, string(id), string(hash), body, ms(now))
}
