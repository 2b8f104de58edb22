package db

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

// AddLink writes the link of two accounts, the lesser first, and reports whether it is new.
func (t *Tx) AddLink(ctx context.Context, a, b token.Identity, signed api.SignedLink, now time.Time) (bool, error) {
	was, err := t.Linked(ctx, a, b)
	if err != nil || was {
		return false, err
	}
	body, err := json.Marshal(signed)
	if err != nil {
		return false, err
	}
	a, b = min(a, b), max(a, b)
	return true, t.exec(ctx, "adding a link", `INSERT INTO links (a, b, made, statement) VALUES (?, ?, ?, ?)`, string(a), string(b), ms(now), body)
}

// DropLink removes the link of two accounts and reports whether there was one.
func (t *Tx) DropLink(ctx context.Context, a, b token.Identity) (bool, error) {
	was, err := t.Linked(ctx, a, b)
	if err != nil || !was {
		return false, err
	}
	return true, t.exec(ctx, "removing a link", `DELETE FROM links WHERE a = ? AND b = ?`, string(min(a, b)), string(max(a, b)))
}

// Linked reports whether two accounts are linked.
func (t *Tx) Linked(ctx context.Context, a, b token.Identity) (bool, error) {
	return t.one(ctx, "looking for a link", `SELECT made FROM links WHERE a = ? AND b = ?`, []any{string(min(a, b)), string(max(a, b))}, new(int64))
}

// Links returns the accounts that are linked with one, by identity.
func (t *Tx) Links(ctx context.Context, account token.Identity) ([]api.LinkedAccount, error) {
	out := []api.LinkedAccount{}
	err := t.each(ctx, "reading links", `SELECT CASE WHEN a = ? THEN b ELSE a END AS other, made FROM links WHERE a = ? OR b = ? ORDER BY other`,
		[]any{string(account), string(account), string(account)}, func(r *sql.Rows) error {
			var l api.LinkedAccount
			var made int64
			err := r.Scan(&l.ID, &made)
			l.Since = at(made)
			out = append(out, l)
			return err
		})
	return out, err
}

// An IdentityKey is a key with which an identity was seen.
type IdentityKey struct {
	SPKI        token.Hash
	First, Last time.Time
}

// IdentityKeys returns the keys of an identity, the one seen last first.
func (t *Tx) IdentityKeys(ctx context.Context, id token.Identity) ([]IdentityKey, error) {
	var out []IdentityKey
	err := t.each(ctx, "reading keys", `SELECT spki, first, last FROM identity_keys WHERE id = ? ORDER BY last DESC, first DESC, spki`, []any{string(id)}, func(r *sql.Rows) error {
		var k IdentityKey
		var first, last int64
		err := r.Scan(&k.SPKI, &first, &last)
		k.First, k.Last = at(first), at(last)
		out = append(out, k)
		return err
	})
	return out, err
}

// SeeKey notes that an identity was seen with a key, new or not.
func (t *Tx) SeeKey(ctx context.Context, id token.Identity, spki token.Hash, now time.Time) error {
	return t.exec(ctx, "noting a key", `INSERT INTO identity_keys (id, spki, first, last) VALUES (?, ?, ?, ?)
		ON CONFLICT (id, spki) DO UPDATE SET last = excluded.last`, string(id), string(spki), ms(now), ms(now))
}

// DropKey forgets a key of an identity.
func (t *Tx) DropKey(ctx context.Context, id token.Identity, spki token.Hash) error {
	return t.exec(ctx, "forgetting a key", `DELETE FROM identity_keys WHERE id = ? AND spki = ?`, string(id), string(spki))
}

// PutChain notes the chain with which an account was seen.
func (t *Tx) PutChain(ctx context.Context, id token.Identity, pem []byte) error {
	return t.exec(ctx, "noting a chain", `INSERT INTO account_chains (id, chain) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET chain = excluded.chain`, string(id), pem)
}

// Chain returns the chain with which an account was seen last, as PEM; nil if there is none.
func (t *Tx) Chain(ctx context.Context, id token.Identity) ([]byte, error) {
	var pem []byte
	_, err := t.one(ctx, "reading a chain", `SELECT chain FROM account_chains WHERE id = ?`, []any{string(id)}, &pem)
	return pem, err
}

// A KeyChange is a change of an identity's key, and what those say of it whom it concerns.
type KeyChange struct {
	N        int64
	ID       token.Identity
	From, To token.Hash
	At       time.Time
	Verdict  api.Verdict // empty while nobody has said
}

// AddKeyChange writes a change that the given accounts are told of, and returns its number.
func (t *Tx) AddKeyChange(ctx context.Context, c KeyChange, told []token.Identity) (int64, error) {
	n, err := t.next(ctx, "key_change")
	if err != nil {
		return 0, err
	}
	if err := t.exec(ctx, "adding a change of key", `INSERT INTO key_changes (n, id, was, became, came, verdict, judged, judge) VALUES (?, ?, ?, ?, ?, '', 0, '')`,
		n, string(c.ID), string(c.From), string(c.To), ms(c.At)); err != nil {
		return 0, err
	}
	for _, a := range told {
		if err := t.exec(ctx, "adding a notice", `INSERT INTO key_notices (account, n) VALUES (?, ?)`, string(a), n); err != nil {
			return 0, err
		}
	}
	return n, nil
}

const changeColumns = `SELECT c.n, c.id, c.was, c.became, c.came, c.verdict FROM key_changes c JOIN key_notices o ON o.n = c.n `

func scanChange(scan func(...any) error) (KeyChange, error) {
	var c KeyChange
	var came int64
	err := scan(&c.N, &c.ID, &c.From, &c.To, &came, &c.Verdict)
	c.At = at(came)
	return c, err
}

// OpenChanges returns up to limit changes that an account is told of and of which nobody has said anything, the oldest first.
func (t *Tx) OpenChanges(ctx context.Context, account token.Identity, limit int) ([]KeyChange, error) {
	var out []KeyChange
	err := t.each(ctx, "reading changes of keys", changeColumns+`WHERE o.account = ? AND c.verdict = '' ORDER BY c.n LIMIT ?`, []any{string(account), limit}, func(r *sql.Rows) error {
		c, err := scanChange(r.Scan)
		out = append(out, c)
		return err
	})
	return out, err
}

// KeyChange returns the change of that number if the account is told of it, and whether it is.
func (t *Tx) KeyChange(ctx context.Context, account token.Identity, n int64) (KeyChange, bool, error) {
	var c KeyChange
	found := false
	err := t.each(ctx, "reading a change of key", changeColumns+`WHERE o.account = ? AND c.n = ?`, []any{string(account), n}, func(r *sql.Rows) error {
		var err error
		found = true
		c, err = scanChange(r.Scan)
		return err
	})
	return c, found, err
}

// Unsettled reports whether a key of an identity came by a change that nobody has said to be theirs.
func (t *Tx) Unsettled(ctx context.Context, id token.Identity, spki token.Hash) (bool, error) {
	return t.one(ctx, "looking for a change of key", `SELECT n FROM key_changes WHERE id = ? AND became = ? AND verdict <> 'mine' LIMIT 1`, []any{string(id), string(spki)}, new(int64))
}

// JudgeKey notes what somebody says of every change of an identity to a key.
func (t *Tx) JudgeKey(ctx context.Context, id token.Identity, spki token.Hash, v api.Verdict, by token.Identity, now time.Time) error {
	return t.exec(ctx, "judging a change of key", `UPDATE key_changes SET verdict = ?, judged = ?, judge = ? WHERE id = ? AND became = ?`,
		string(v), ms(now), string(by), string(id), string(spki))
}

// Seen returns when a subscriber was here last; zero if never.
func (t *Tx) Seen(ctx context.Context, id token.Identity) (time.Time, error) {
	var seen int64
	_, err := t.one(ctx, "reading when a subscriber was here", `SELECT seen FROM subscribers WHERE id = ?`, []any{string(id)}, &seen)
	return at(seen), err
}
