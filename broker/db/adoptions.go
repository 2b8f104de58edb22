package db

import (
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// An Adoption is the row of one adoption: what stands in a store is entered in the namespace, page by page.
type Adoption struct {
	ID        token.TransferID // of its order
	State     api.State
	Account   token.Identity // who asked for it
	At        token.Location
	Scope     token.Scope
	Owner     token.Identity // of the rows that are made
	Metadata  string         // of the rows that are made: user metadata as JSON; empty for none
	Authority token.Authority
	Created   time.Time
	Finished  time.Time // zero while anything is left to do
	Expires   time.Time
	NotBefore time.Time // not to be listed before
	Tries     int64     // that failed since the last page
	Judged    int64     // the ACLGen of the provider under which Account was last found to have the right
	Task      string    // id of the task that is, or was last, carried out
	Agent     token.Identity
	Page      token.Hash       // of the page that came last
	PageDone  int64            // entries of it that were taken
	Resume    token.ObjectName // the last name taken
	Inside    token.ObjectName // the container that was entered last; empty: none
	AdoptionCounts
	Code   problem.Code // the first problem; empty for none
	Detail string
	Seq    int64 // grows with every SaveAdoption
}

// AdoptionCounts are what an adoption came to so far.
type AdoptionCounts struct {
	Objects, Containers int64 // that have a row now
	Bytes               int64 // of the objects
	Made                int64 // rows that were not there
	Changed             int64 // rows that were there, of what the store has otherwise now
	Skipped             int64 // what is neither object nor container
	Refused             int64 // names that were not taken, each for a problem
}

const adoptionColumns = `id, state, account, provider, container, name, scope, owner, metadata, authority, created, finished, expires, not_before, tries,
	judged, task, agent, page, page_done, resume, inside, objects, containers, bytes, made, changed, skipped, refused, code, detail, seq`

func scanAdoption(r *sql.Rows) (Adoption, error) {
	var a Adoption
	var created, finished, expires, notBefore int64
	err := r.Scan(&a.ID, &a.State, &a.Account, &a.At.Provider, &a.At.Container, &a.At.Name, &a.Scope, &a.Owner, &a.Metadata, &a.Authority, &created, &finished, &expires,
		&notBefore, &a.Tries, &a.Judged, &a.Task, &a.Agent, &a.Page, &a.PageDone, &a.Resume, &a.Inside, &a.Objects, &a.Containers, &a.Bytes, &a.Made, &a.Changed, &a.Skipped,
		&a.Refused, &a.Code, &a.Detail, &a.Seq)
	a.Created, a.Finished, a.Expires, a.NotBefore = at(created), at(finished), at(expires), at(notBefore)
	return a, err
}

func (t *Tx) adoptions(ctx context.Context, rest string, args ...any) ([]Adoption, error) {
	var out []Adoption
	err := t.each(ctx, "reading adoptions", `SELECT `+adoptionColumns+` FROM adoptions `+rest, args, func(r *sql.Rows) error {
		a, err := scanAdoption(r)
		out = append(out, a)
		return err
	})
	return out, err
}

// AddAdoption writes an adoption whose order is there.
func (t *Tx) AddAdoption(ctx context.Context, a Adoption) error {
	return t.exec(ctx, "adding an adoption", `INSERT INTO adoptions (`+adoptionColumns+`) VALUES `+values(1, 32),
		string(a.ID), string(a.State), string(a.Account), string(a.At.Provider), string(a.At.Container), string(a.At.Name), string(a.Scope), string(a.Owner), a.Metadata,
		string(a.Authority), ms(a.Created), ms(a.Finished), ms(a.Expires), ms(a.NotBefore), a.Tries, a.Judged, a.Task, string(a.Agent), string(a.Page), a.PageDone,
		string(a.Resume), string(a.Inside), a.Objects, a.Containers, a.Bytes, a.Made, a.Changed, a.Skipped, a.Refused, string(a.Code), a.Detail, a.Seq)
}

// SaveAdoption writes what changes of an adoption, and raises its Seq.
func (t *Tx) SaveAdoption(ctx context.Context, a *Adoption) error {
	a.Seq++
	return t.exec(ctx, "saving an adoption", `UPDATE adoptions SET state = ?, finished = ?, not_before = ?, tries = ?, judged = ?, task = ?, agent = ?, page = ?, page_done = ?,
		resume = ?, inside = ?, objects = ?, containers = ?, bytes = ?, made = ?, changed = ?, skipped = ?, refused = ?, code = ?, detail = ?, seq = ? WHERE id = ?`,
		string(a.State), ms(a.Finished), ms(a.NotBefore), a.Tries, a.Judged, a.Task, string(a.Agent), string(a.Page), a.PageDone, string(a.Resume), string(a.Inside),
		a.Objects, a.Containers, a.Bytes, a.Made, a.Changed, a.Skipped, a.Refused, string(a.Code), a.Detail, a.Seq, string(a.ID))
}

// Adoption returns an adoption, or problem.NotFound.
func (t *Tx) Adoption(ctx context.Context, id token.TransferID) (Adoption, error) {
	as, err := t.adoptions(ctx, `WHERE id = ?`, string(id))
	if err == nil && len(as) == 0 {
		err = problem.New(problem.NotFound, "There is no such adoption")
	}
	if err != nil {
		return Adoption{}, err
	}
	return as[0], nil
}

// UnfinishedAdoptions returns up to limit adoptions that have not ended, oldest first.
func (t *Tx) UnfinishedAdoptions(ctx context.Context, limit int) ([]Adoption, error) {
	return t.adoptions(ctx, `WHERE finished = 0 ORDER BY id LIMIT ?`, limit)
}

// CountUnfinishedAdoptions returns how many adoptions have not ended, in all and of one account.
func (t *Tx) CountUnfinishedAdoptions(ctx context.Context, account token.Identity) (all, own int64, err error) {
	_, err = t.one(ctx, "counting adoptions", `SELECT COUNT(*), COUNT(CASE WHEN account = ? THEN 1 END) FROM adoptions WHERE finished = 0`, []any{string(account)}, &all, &own)
	return all, own, err
}

// AdoptionsOf returns up to limit adoptions of the accounts whose ids are before the given one, newest first; all if that is empty.
func (t *Tx) AdoptionsOf(ctx context.Context, accounts []token.Identity, before token.TransferID, limit int) ([]Adoption, error) {
	if len(accounts) == 0 {
		return nil, nil
	}
	args := make([]any, 0, len(accounts)+3)
	for _, a := range accounts {
		args = append(args, string(a))
	}
	return t.adoptions(ctx, `WHERE account IN (?`+strings.Repeat(", ?", len(accounts)-1)+`) AND (id < ? OR ? = '') ORDER BY id DESC LIMIT ?`,
		append(args, string(before), string(before), limit)...)
}
