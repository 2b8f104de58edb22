package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A BatchState is where a batch stands.
type BatchState string

// The states of a batch, in the order in which it goes through them.
const (
	Filling BatchState = "filling" // the planner may add to it
	Ready   BatchState = "ready"   // waits for two agents
	Repin   BatchState = "repin"   // its sources changed; waits to be described anew
	Live    BatchState = "live"    // leased to two agents, names reserved
	Ended   BatchState = "ended"   // every item is final or went on in another batch
)

// A Batch is the row of one batch, without its manifest.
type Batch struct {
	api.Ref
	State     BatchState
	Man       token.Hash
	Items     int64
	Bytes     int64
	Created   time.Time
	NotBefore time.Time
	Claimed   bool // waits for a name that another batch has reserved
	Tries     int64
	Attempts  int64
	Repins    int64
	Src, Dst  token.Identity // the agents it was last leased to
	Gen       int64
	Cnf       token.Hash // of the newest generation
	CapExp    time.Time
	CapRead   string
	CapCreate string
	SrcDone   time.Time
	DstDone   time.Time
	Dropped   time.Time
	Note      string // public: why it was tried again

	Judged     int64     // the generation of lists and settings under which its items were judged; 0: not, or not for good
	JudgeAfter time.Time // from when they are to be judged anew although nothing has changed; zero: never
	Rate       int64     // how fast its sources may be read, bytes a second; 0 is no limit
}

const batchColumns = `xfr, bat, state, man, items, bytes, created, not_before, claimed, tries, attempts, repins, src, dst, gen, cnf, cap_exp,
	cap_read, cap_create, src_done, dst_done, dropped, note, judged, judge_after, rate`

func scanBatch(scan func(...any) error) (Batch, error) {
	var b Batch
	var created, notBefore, claimed, capExp, srcDone, dstDone, dropped, judgeAfter int64
	err := scan(&b.Xfr, &b.Bat, &b.State, &b.Man, &b.Items, &b.Bytes, &created, &notBefore, &claimed, &b.Tries, &b.Attempts, &b.Repins, &b.Src, &b.Dst,
		&b.Gen, &b.Cnf, &capExp, &b.CapRead, &b.CapCreate, &srcDone, &dstDone, &dropped, &b.Note,
		&b.Judged, &judgeAfter, &b.Rate)
	b.Created, b.NotBefore, b.Claimed, b.CapExp = at(created), at(notBefore), claimed != 0, at(capExp)
	b.SrcDone, b.DstDone, b.Dropped, b.JudgeAfter = at(srcDone), at(dstDone), at(dropped), at(judgeAfter)
	return b, err
}

// PutBatch writes a batch, new or not.
func (t *Tx) PutBatch(ctx context.Context, b Batch) error {
	return t.exec(ctx, "saving a batch", `INSERT INTO batches (`+batchColumns+`) VALUES `+values(1, 26)+`
		ON CONFLICT (xfr, bat) DO UPDATE SET state = excluded.state, man = excluded.man, items = excluded.items, bytes = excluded.bytes,
		not_before = excluded.not_before, claimed = excluded.claimed, tries = excluded.tries, attempts = excluded.attempts, repins = excluded.repins,
		src = excluded.src, dst = excluded.dst, gen = excluded.gen, cnf = excluded.cnf, cap_exp = excluded.cap_exp, cap_read = excluded.cap_read,
		cap_create = excluded.cap_create, src_done = excluded.src_done, dst_done = excluded.dst_done, dropped = excluded.dropped, note = excluded.note,
		judged = excluded.judged, judge_after = excluded.judge_after, rate = excluded.rate`,
		string(b.Xfr), b.Bat, string(b.State), string(b.Man), b.Items, b.Bytes, ms(b.Created), ms(b.NotBefore), bit(b.Claimed), b.Tries, b.Attempts,
		b.Repins, string(b.Src), string(b.Dst), b.Gen, string(b.Cnf), ms(b.CapExp), b.CapRead, b.CapCreate, ms(b.SrcDone), ms(b.DstDone), ms(b.Dropped), b.Note,
		b.Judged, ms(b.JudgeAfter), b.Rate)
}

// Batch returns a batch, or problem.NotFound.
func (t *Tx) Batch(ctx context.Context, ref api.Ref) (Batch, error) {
	b, err := scanBatch(t.tx.QueryRowContext(ctx, `SELECT `+batchColumns+` FROM batches WHERE xfr = ? AND bat = ?`, string(ref.Xfr), ref.Bat).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return Batch{}, problem.New(problem.NotFound, "There is no batch of that number")
	}
	if err != nil {
		return Batch{}, fmt.Errorf("reading a batch: %w", err)
	}
	return b, nil
}

func (t *Tx) batches(ctx context.Context, rest string, args ...any) ([]Batch, error) {
	var out []Batch
	err := t.each(ctx, "reading batches", `SELECT `+batchColumns+` FROM batches `+rest, args, func(r *sql.Rows) error {
		b, err := scanBatch(r.Scan)
		out = append(out, b)
		return err
	})
	return out, err
}

// BatchesIn returns up to limit batches of a transfer in a state, by number.
func (t *Tx) BatchesIn(ctx context.Context, xfr token.TransferID, s BatchState, limit int) ([]Batch, error) {
	return t.batches(ctx, `WHERE xfr = ? AND state = ? ORDER BY bat LIMIT ?`, string(xfr), string(s), limit)
}

// BatchesAfter returns up to limit batches of a transfer after a number, by number.
func (t *Tx) BatchesAfter(ctx context.Context, xfr token.TransferID, after int64, limit int) ([]Batch, error) {
	return t.batches(ctx, `WHERE xfr = ? AND bat > ? ORDER BY bat LIMIT ?`, string(xfr), after, limit)
}

// LiveOf returns the live batches that are leased to an agent, on either side.
func (t *Tx) LiveOf(ctx context.Context, agent token.Identity) ([]Batch, error) {
	return t.batches(ctx, `WHERE state = 'live' AND (src = ? OR dst = ?) ORDER BY xfr, bat`, string(agent), string(agent))
}

// LiveAll returns all live batches. There are at most as many as the agents have slots.
func (t *Tx) LiveAll(ctx context.Context) ([]Batch, error) {
	return t.batches(ctx, `WHERE state = 'live' ORDER BY xfr, bat`)
}

// Leased returns the live batches of all transfers but those that are paused: what the agents have to do.
func (t *Tx) Leased(ctx context.Context) ([]Batch, error) {
	return t.batches(ctx, `WHERE state = 'live' AND `+notPaused+` ORDER BY xfr, bat`)
}

// notPaused holds for the batches of transfers that are not paused.
const notPaused = `xfr NOT IN (SELECT id FROM transfers WHERE finished = 0 AND state = 'paused')`

// NextReady returns, for up to limit transfers that are not paused, the first of its batches that is ready at now.
func (t *Tx) NextReady(ctx context.Context, now time.Time, limit int) ([]Batch, error) {
	return t.batches(ctx, `WHERE state = 'ready' AND not_before <= ? AND `+notPaused+` AND bat = (SELECT MIN(c.bat) FROM batches c
		WHERE c.state = 'ready' AND c.xfr = batches.xfr AND c.not_before <= ?) ORDER BY not_before, xfr LIMIT ?`, ms(now), ms(now), limit)
}

// CountIn returns how many batches of a transfer are in a state.
func (t *Tx) CountIn(ctx context.Context, xfr token.TransferID, s BatchState) (int64, error) {
	var n int64
	_, err := t.one(ctx, "counting batches", `SELECT COUNT(*) FROM batches WHERE xfr = ? AND state = ?`, []any{string(xfr), string(s)}, &n)
	return n, err
}

// Unended returns how many batches of a transfer are not ended.
func (t *Tx) Unended(ctx context.Context, xfr token.TransferID) (int64, error) {
	var n int64
	_, err := t.one(ctx, "counting batches", `SELECT COUNT(*) FROM batches WHERE xfr = ? AND state <> 'ended'`, []any{string(xfr)}, &n)
	return n, err
}

// WakeClaimed makes the batches ready at now that wait for a name in a container.
func (t *Tx) WakeClaimed(ctx context.Context, l token.Location, now time.Time) error {
	return t.exec(ctx, "waking batches", `UPDATE batches SET not_before = ? WHERE state = 'ready' AND claimed = 1 AND not_before > ? AND xfr IN
		(SELECT id FROM transfers WHERE finished = 0 AND dst_provider = ? AND dst_container = ?)`, ms(now), ms(now), string(l.Provider), string(l.Container))
}

// PutManifest writes the canonical bytes of a batch's manifest in place of earlier ones.
func (t *Tx) PutManifest(ctx context.Context, ref api.Ref, body []byte) error {
	return t.exec(ctx, "saving a manifest", `INSERT INTO manifests (xfr, bat, body) VALUES (?, ?, ?) ON CONFLICT (xfr, bat) DO UPDATE SET body = excluded.body`,
		string(ref.Xfr), ref.Bat, body)
}

// Manifest returns the canonical bytes of a batch's manifest, or problem.NotFound.
func (t *Tx) Manifest(ctx context.Context, ref api.Ref) ([]byte, error) {
	return t.blob(ctx, `SELECT body FROM manifests WHERE xfr = ? AND bat = ?`, ref)
}

// PutFinal writes the final outcomes of a batch's items.
func (t *Tx) PutFinal(ctx context.Context, ref api.Ref, body []byte) error {
	if body == nil {
		body = []byte{} // no outcome is final: nothing, not NULL
	}
	return t.exec(ctx, "saving outcomes", `INSERT INTO finals (xfr, bat, body) VALUES (?, ?, ?)`, string(ref.Xfr), ref.Bat, body)
}

// Final returns the final outcomes of a batch's items, or problem.NotFound.
func (t *Tx) Final(ctx context.Context, ref api.Ref) ([]byte, error) {
	return t.blob(ctx, `SELECT body FROM finals WHERE xfr = ? AND bat = ?`, ref)
}

func (t *Tx) blob(ctx context.Context, query string, ref api.Ref) ([]byte, error) {
	var body []byte
	ok, err := t.one(ctx, "reading a batch", query, []any{string(ref.Xfr), ref.Bat}, &body)
	if err == nil && !ok {
		err = problem.New(problem.NotFound, "There is no batch of that number")
	}
	return body, err
}

// AddCapability notes that a capability was minted.
func (t *Tx) AddCapability(ctx context.Context, ref api.Ref, gen int64, do token.Verb, hash token.Hash) error {
	return t.exec(ctx, "noting a capability", `INSERT INTO capabilities (hash, xfr, bat, gen, verb) VALUES (?, ?, ?, ?, ?)`,
		string(hash), string(ref.Xfr), ref.Bat, gen, string(do))
}

// Capabilities returns the hashes of the capabilities that were minted for a batch.
func (t *Tx) Capabilities(ctx context.Context, ref api.Ref) (map[token.Hash]bool, error) {
	out := map[token.Hash]bool{}
	err := t.each(ctx, "reading capabilities", `SELECT hash FROM capabilities WHERE xfr = ? AND bat = ?`, []any{string(ref.Xfr), ref.Bat}, func(r *sql.Rows) error {
		var h token.Hash
		err := r.Scan(&h)
		out[h] = true
		return err
	})
	return out, err
}

// Reserve reserves the names that nobody has reserved for a batch, and returns which of the
// names it got.
func (t *Tx) Reserve(ctx context.Context, l token.Location, ref api.Ref, names []token.ObjectName) (map[token.ObjectName]bool, error) {
	got := make(map[token.ObjectName]bool, len(names))
	for len(names) > 0 {
		part := names[:min(len(names), rowsAtOnce)]
		names = names[len(part):]
		args := make([]any, 0, 5*len(part))
		for _, n := range part {
			args = append(args, string(l.Provider), string(l.Container), string(n), string(ref.Xfr), ref.Bat)
		}
		err := t.each(ctx, "reserving names", `INSERT INTO reservations (provider, container, name, xfr, bat) VALUES `+values(len(part), 5)+`
			ON CONFLICT (provider, container, name) DO NOTHING RETURNING name`, args, func(r *sql.Rows) error {
			var n token.ObjectName
			err := r.Scan(&n)
			got[n] = true
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return got, nil
}

// Release gives the names of a batch back.
func (t *Tx) Release(ctx context.Context, ref api.Ref) error {
	return t.exec(ctx, "releasing names", `DELETE FROM reservations WHERE xfr = ? AND bat = ?`, string(ref.Xfr), ref.Bat)
}

// CountReserved returns how many names are reserved for a transfer.
func (t *Tx) CountReserved(ctx context.Context, xfr token.TransferID) (int64, error) {
	var n int64
	_, err := t.one(ctx, "counting names", `SELECT COUNT(*) FROM reservations WHERE xfr = ?`, []any{string(xfr)}, &n)
	return n, err
}

// Strays returns how many reservations belong to no live batch: none, or the broker is wrong.
func (t *Tx) Strays(ctx context.Context) (int64, error) {
	var n int64
	_, err := t.one(ctx, "looking for stray reservations", `SELECT COUNT(*) FROM reservations r LEFT JOIN batches b ON b.xfr = r.xfr AND b.bat = r.bat
		WHERE b.state IS NULL OR b.state <> 'live'`, nil, &n)
	return n, err
}
