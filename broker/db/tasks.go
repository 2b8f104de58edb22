package db

import (
	"context"
	"database/sql"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

// A TaskKind says what a task is for.
type TaskKind string

// The kinds of tasks that have a row; the work on a live batch has none of its own.
const (
	PlanTask  TaskKind = "plan"  // list or describe the source
	RepinTask TaskKind = "repin" // describe the sources of a batch anew
	MakeTask  TaskKind = "make"  // make empty containers at the destination
)

// A Task is work that an agent is to do for a transfer.
type Task struct {
	ID       string
	Xfr      token.TransferID
	Bat      int64
	Kind     TaskKind
	Agent    token.Identity
	Created  time.Time  // or when a page of it came last
	LastPage token.Hash // of the page taken last
}

const taskColumns = `id, xfr, bat, kind, agent, created, last_page`

// AddTask adds a task in place of an earlier one for the same end.
func (t *Tx) AddTask(ctx context.Context, k Task) error {
	if err := t.exec(ctx, "replacing a task", `DELETE FROM tasks WHERE xfr = ? AND bat = ? AND kind = ?`, string(k.Xfr), k.Bat, string(k.Kind)); err != nil {
		return err
	}
	return t.exec(ctx, "adding a task", `INSERT INTO tasks (`+taskColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		k.ID, string(k.Xfr), k.Bat, string(k.Kind), string(k.Agent), ms(k.Created), string(k.LastPage))
}

// SetLastPage notes which page of a task was taken last, and when.
func (t *Tx) SetLastPage(ctx context.Context, id string, page token.Hash, now time.Time) error {
	return t.exec(ctx, "noting a page", `UPDATE tasks SET last_page = ?, created = ? WHERE id = ?`, string(page), ms(now), id)
}

// DropTask forgets a task.
func (t *Tx) DropTask(ctx context.Context, id string) error {
	return t.exec(ctx, "forgetting a task", `DELETE FROM tasks WHERE id = ?`, id)
}

// DropTasks forgets all tasks of a transfer.
func (t *Tx) DropTasks(ctx context.Context, xfr token.TransferID) error {
	return t.exec(ctx, "forgetting tasks", `DELETE FROM tasks WHERE xfr = ?`, string(xfr))
}

// Task returns a task and whether there is one of that id.
func (t *Tx) Task(ctx context.Context, id string) (Task, bool, error) {
	ks, err := t.tasks(ctx, `WHERE id = ?`, id)
	if err != nil || len(ks) == 0 {
		return Task{}, false, err
	}
	return ks[0], true, nil
}

// TasksOf returns the tasks of an agent.
func (t *Tx) TasksOf(ctx context.Context, agent token.Identity) ([]Task, error) {
	return t.tasks(ctx, `WHERE agent = ? ORDER BY id`, string(agent))
}

// TasksFor returns the tasks of a transfer.
func (t *Tx) TasksFor(ctx context.Context, xfr token.TransferID) ([]Task, error) {
	return t.tasks(ctx, `WHERE xfr = ? ORDER BY id`, string(xfr))
}

func (t *Tx) tasks(ctx context.Context, rest string, args ...any) ([]Task, error) {
	var out []Task
	err := t.each(ctx, "reading tasks", `SELECT `+taskColumns+` FROM tasks `+rest, args, func(r *sql.Rows) error {
		var k Task
		var created int64
		if err := r.Scan(&k.ID, &k.Xfr, &k.Bat, &k.Kind, &k.Agent, &created, &k.LastPage); err != nil {
			return err
		}
		k.Created = at(created)
		out = append(out, k)
		return nil
	})
	return out, err
}

// A Receipt is the row of one receipt.
type Receipt struct {
	api.Ref
	Side   token.Side
	Part   int64
	Last   bool
	Root   token.Hash
	Signed api.SignedReceipt
	Leaf   int64
	Came   time.Time
}

const receiptColumns = `xfr, bat, side, part, final, root, jws, chain, lines, leaf, came`

// AddReceipt adds a receipt that is not there.
func (t *Tx) AddReceipt(ctx context.Context, r Receipt) error {
	return t.exec(ctx, "adding a receipt", `INSERT INTO receipts (`+receiptColumns+`) VALUES `+values(1, 11),
		string(r.Xfr), r.Bat, string(r.Side), r.Part, bit(r.Last), string(r.Root), r.Signed.JWS, r.Signed.Chain, []byte(r.Signed.Lines), r.Leaf, ms(r.Came))
}

// Receipts returns the receipts of a batch, the source's first, by part.
func (t *Tx) Receipts(ctx context.Context, ref api.Ref) ([]Receipt, error) {
	var out []Receipt
	err := t.each(ctx, "reading receipts", `SELECT `+receiptColumns+` FROM receipts WHERE xfr = ? AND bat = ? ORDER BY side DESC, part`,
		[]any{string(ref.Xfr), ref.Bat}, func(row *sql.Rows) error {
			var r Receipt
			var final, came int64
			var lines []byte
			if err := row.Scan(&r.Xfr, &r.Bat, &r.Side, &r.Part, &final, &r.Root, &r.Signed.JWS, &r.Signed.Chain, &lines, &r.Leaf, &came); err != nil {
				return err
			}
			r.Last, r.Signed.Lines, r.Came = final != 0, string(lines), at(came)
			out = append(out, r)
			return nil
		})
	return out, err
}

// ReceiptOf returns the receipt of one side and part of a batch and whether there is one.
func (t *Tx) ReceiptOf(ctx context.Context, ref api.Ref, side token.Side, part int64) (root token.Hash, leaf int64, ok bool, err error) {
	ok, err = t.one(ctx, "looking for a receipt", `SELECT root, leaf FROM receipts WHERE xfr = ? AND bat = ? AND side = ? AND part = ?`,
		[]any{string(ref.Xfr), ref.Bat, string(side), part}, &root, &leaf)
	return root, leaf, ok, err
}
