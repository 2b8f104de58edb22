package db

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

// A Keep is the record of one place in its provider's log of what binds erasures.
type Keep struct {
	At   token.Location // its name is empty for the whole container
	Kind acl.Kind
	Seq  int64
	Data string    // JSON of the place's own items; empty: none any more
	Look time.Time // when to look for what is to be erased by itself; zero is never
	Done token.ObjectName
	Note string
}

func (k Keep) key() []any {
	return []any{string(k.At.Provider), string(k.At.Container), string(k.At.Name), int64(k.Kind)}
}

const keepColumns = `provider, container, name, kind, seq, data, look, done, note`

func scanKeep(r *sql.Rows) (k Keep, err error) {
	var look int64
	err = r.Scan(&k.At.Provider, &k.At.Container, &k.At.Name, &k.Kind, &k.Seq, &k.Data, &look, &k.Done, &k.Note)
	k.Look = at(look)
	return k, err
}

// PutKeep makes k the newest record of its place, with the next number of its provider, and returns the number; 0 if it says what is
// there already, or nothing of a place that never had a record.
func (t *Tx) PutKeep(ctx context.Context, k Keep, now time.Time) (int64, error) {
	old := ""
	known, err := t.one(ctx, "reading a record of holds", `SELECT data FROM kept WHERE provider = ? AND container = ? AND name = ? AND kind = ?`, k.key(), &old)
	if err != nil || known && old == k.Data || !known && k.Data == "" {
		return 0, err
	}
	newest, err := t.NewestKeep(ctx, k.At.Provider)
	if err != nil {
		return 0, err
	}
	seq := max(newest+1, ms(now))
	t.kept = append(t.kept, k.At.Provider)
	return seq, t.exec(ctx, "writing a record of holds", `INSERT INTO kept (`+keepColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, '', '')
		ON CONFLICT (provider, container, name, kind) DO UPDATE SET seq = excluded.seq, data = excluded.data, look = excluded.look, done = '', note = ''`,
		append(k.key(), seq, k.Data, ms(k.Look))...)
}

// EndKeeps ends the record of a place, and, of a container, those of all below it: its rows are gone.
func (t *Tx) EndKeeps(ctx context.Context, l token.Location, kind acl.Kind) error {
	for {
		from, to, only := string(l.Name), string(l.Name), int64(kind)
		ks, err := t.keeps(ctx, `WHERE provider = ? AND container = ? AND name = ? AND kind = ? AND data <> ''`, string(l.Provider), string(l.Container), from, only)
		if err == nil && len(ks) == 0 && kind == acl.Container {
			below := `WHERE provider = ? AND container = ? AND data <> '' LIMIT 1000`
			args := []any{string(l.Provider), string(l.Container)}
			if l.Name != "" {
				below = `WHERE provider = ? AND container = ? AND name BETWEEN ? AND ? AND data <> '' LIMIT 1000`
				args = append(args, from+"/", to+"/\U0010FFFF")
			}
			ks, err = t.keeps(ctx, below, args...)
		}
		if err != nil || len(ks) == 0 {
			return err
		}
		for _, k := range ks {
			k.Data, k.Look = "", time.Time{}
			if _, err := t.PutKeep(ctx, k, time.Time{}); err != nil {
				return err
			}
		}
	}
}

// NewKeeps returns the providers whose logs PutKeep has added to in this transaction, each once or more.
func (t *Tx) NewKeeps() []token.Provider { return t.kept }

// NewestKeep is the newest number of a provider's log; 0 if it is empty.
func (t *Tx) NewestKeep(ctx context.Context, p token.Provider) (int64, error) {
	var seq, floor, least int64
	if _, err := t.one(ctx, "reading the newest record of holds", `SELECT COALESCE(MAX(seq), 0) FROM kept WHERE provider = ?`, []any{string(p)}, &seq); err != nil {
		return 0, err
	}
	_, err := t.one(ctx, "reading where the log of holds begins", `SELECT seq, least FROM kept_floors WHERE provider = ?`, []any{string(p)}, &floor, &least)
	return max(seq, floor, least), err
}

// RaiseKeeps makes the next number of a provider's log greater than seq.
func (t *Tx) RaiseKeeps(ctx context.Context, p token.Provider, seq int64) error {
	return t.exec(ctx, "raising the numbers of holds", `INSERT INTO kept_floors (provider, seq, least) VALUES (?, 0, ?)
		ON CONFLICT (provider) DO UPDATE SET least = excluded.least WHERE excluded.least > kept_floors.least`, string(p), seq)
}

// KeepFloor is the number from which an agent must have come to be told the rest alone.
func (t *Tx) KeepFloor(ctx context.Context, p token.Provider) (int64, error) {
	var seq int64
	_, err := t.one(ctx, "reading where the log of holds begins", `SELECT seq FROM kept_floors WHERE provider = ?`, []any{string(p)}, &seq)
	return seq, err
}

// KeepsAfter returns up to limit records of a provider's log beyond a number, in order.
func (t *Tx) KeepsAfter(ctx context.Context, p token.Provider, after int64, limit int) ([]Keep, error) {
	return t.keeps(ctx, `WHERE provider = ? AND seq > ? ORDER BY seq LIMIT ?`, string(p), after, limit)
}

// KeepOf returns the record of a place, and whether there is one that says something.
func (t *Tx) KeepOf(ctx context.Context, at token.Location, kind acl.Kind) (Keep, bool, error) {
	ks, err := t.keeps(ctx, `WHERE provider = ? AND container = ? AND name = ? AND kind = ?`, Keep{At: at, Kind: kind}.key()...)
	if err != nil || len(ks) == 0 {
		return Keep{}, false, err
	}
	return ks[0], ks[0].Data != "", nil
}

// KeepsBelow returns up to limit records below a place that say something, by name and kind, from behind after.
func (t *Tx) KeepsBelow(ctx context.Context, l token.Location, after Keep, limit int) ([]Keep, error) {
	where, args := below(l)
	return t.keeps(ctx, `WHERE `+where+` AND data <> '' AND (name, kind) > (?, ?) ORDER BY name, kind LIMIT ?`, append(args, string(after.At.Name), int64(after.Kind), limit)...)
}

// KeepsToLook returns up to limit records at which it is time to look for what is to be erased by itself, those that wait longest first.
func (t *Tx) KeepsToLook(ctx context.Context, now time.Time, limit int) ([]Keep, error) {
	return t.keeps(ctx, `WHERE look > 0 AND look <= ? ORDER BY look LIMIT ?`, ms(now), limit)
}

func (t *Tx) keeps(ctx context.Context, where string, args ...any) ([]Keep, error) {
	var out []Keep
	err := t.each(ctx, "reading records of holds", `SELECT `+keepColumns+` FROM kept `+where, args, func(r *sql.Rows) error {
		k, err := scanKeep(r)
		out = append(out, k)
		return err
	})
	return out, err
}

// LookedAtKeep notes how far the look at a record has come, and when to look again, unless the record is another by now.
func (t *Tx) LookedAtKeep(ctx context.Context, k Keep) error {
	return t.exec(ctx, "noting a look for what is to be erased", `UPDATE kept SET look = ?, done = ?, note = ?
		WHERE provider = ? AND container = ? AND name = ? AND kind = ? AND seq = ?`, append([]any{ms(k.Look), string(k.Done), k.Note}, append(k.key(), k.Seq)...)...)
}

// DropKeeps forgets records that say nothing any more and are older than a number, and returns whether there were any.
func (t *Tx) DropKeeps(ctx context.Context, p token.Provider, before int64) (bool, error) {
	var last int64
	if _, err := t.one(ctx, "looking for records of holds that are over", `SELECT COALESCE(MAX(seq), 0) FROM kept WHERE provider = ? AND seq < ? AND data = ''`,
		[]any{string(p), before}, &last); err != nil || last == 0 {
		return false, err
	}
	if err := t.exec(ctx, "noting where the log of holds begins", `INSERT INTO kept_floors (provider, seq, least) VALUES (?, ?, 0)
		ON CONFLICT (provider) DO UPDATE SET seq = excluded.seq`, string(p), last); err != nil {
		return false, err
	}
	return true, t.exec(ctx, "dropping records of holds that are over", `DELETE FROM kept WHERE provider = ? AND seq <= ? AND data = ''`, string(p), last)
}

// SetKept notes up to which number an agent keeps its provider's log.
func (t *Tx) SetKept(ctx context.Context, agent token.Identity, seq int64) error {
	return t.exec(ctx, "noting what an agent keeps", `UPDATE agents SET kept = ? WHERE id = ?`, seq, string(agent))
}

// Reserved reports whether a live batch has reserved a name, or, for a container, one below it.
func (t *Tx) Reserved(ctx context.Context, l token.Location, kind acl.Kind) (bool, error) {
	from, to := string(l.Name), string(l.Name)
	if kind == acl.Container {
		from, to = from+"/", to+"/\U0010FFFF"
	}
	var one int64
	return t.one(ctx, "looking for a reserved name", `SELECT 1 FROM reservations WHERE provider = ? AND container = ? AND name BETWEEN ? AND ? LIMIT 1`,
		[]any{string(l.Provider), string(l.Container), from, to}, &one)
}

// lines and unlines are the stored form of short words.
func lines(words []string) string { return strings.Join(words, "\n") }

func unlines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// Kept returns what an agent is to be told of a record.
func (k Keep) Kept() api.Kept {
	return api.Kept{Seq: k.Seq, Container: k.At.Container, Name: k.At.Name, Object: k.Kind == acl.Object, Data: k.Data}
}

// An Erasure is what an agent has erased for an order.
type Erasure struct {
	ID      token.TransferID // of the order
	At      token.Location
	Kind    acl.Kind
	Version token.Version
	Size    int64
	Method  string // by which it was wiped; empty: it was not
	Agent   token.Identity
	Came    time.Time
	Leaf    int64
}

// HasErasure reports whether it is known that an order has erased.
func (t *Tx) HasErasure(ctx context.Context, id token.TransferID) (bool, error) {
	var one int64
	return t.one(ctx, "looking for an erasure", `SELECT 1 FROM erasures WHERE id = ?`, []any{string(id)}, &one)
}

// PutErasure writes an erasure down.
func (t *Tx) PutErasure(ctx context.Context, x Erasure) error {
	return t.exec(ctx, "writing an erasure", `INSERT INTO erasures (id, provider, container, name, kind, version, size, method, agent, came, leaf)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, string(x.ID), string(x.At.Provider), string(x.At.Container), string(x.At.Name), int64(x.Kind),
		string(x.Version), x.Size, x.Method, string(x.Agent), ms(x.Came), x.Leaf)
}
