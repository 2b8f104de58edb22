// Package db keeps the broker's state: the only SQL of the program.
//
// It guarantees that a transaction is durable when Write returns nil, and has left
// nothing behind when it returns another error, but for one case that every caller must bear: the
// commit was durable and its answer was lost. It guarantees that leaves are
// numbered from 0 without a hole and are never changed or removed, that events are
// numbered from 1, and that a destination name is reserved by one batch at most. A
// second process that opens the same file is refused.
//
// It knows what is stored and nothing of why: rules are in package broker. The
// statements are portable SQL; only the migrations and the way of opening belong to one
// engine. Errors are not for strangers: none is a *problem.Error but problem.NotFound
// where a doc says so.
package db

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // also the driver of sql.Open

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

//go:embed migrations/*.sql
var migrations embed.FS

// rowsAtOnce is how many rows one INSERT carries: a third faster than one by one.
const rowsAtOnce = 64

// A DB is an open database. Its methods may be called concurrently: writers wait for each
// other, readers for nobody.
type DB struct {
	w, r    *sql.DB
	c       *sql.DB // to move what was committed from the log to the database
	lock    *os.File
	checked time.Duration
}

// Create makes a new database file and fails with an error that matches fs.ErrExist if there is
// one. The folder must exist.
func Create(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("creating the database: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("creating the database: %w", err)
	}
	d, err := Open(ctx, path)
	if err != nil {
		return err
	}
	return d.Close()
}

// Open opens the database that Create made, brings its schema up to date, and checks it if
// it was not closed in an orderly way. It fails with problem.BadConfig if the file does not exist, is in
// use by another broker or is damaged.
func Open(ctx context.Context, path string) (*DB, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, problem.Wrap(err, problem.BadConfig, "The broker's database does not exist; make it with 'consign broker init'")
	}
	lock, err := takeLock(path + ".lock")
	if err != nil {
		return nil, err
	}
	d := &DB{lock: lock}
	if err := d.open(ctx, path); err != nil {
		return nil, errors.Join(err, d.closeFiles())
	}
	return d, nil
}

func (d *DB) open(ctx context.Context, path string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("locating the database: %w", err)
	}
	common := "&_pragma=busy_timeout(10000)&_pragma=foreign_keys(1)&_pragma=cache_size(-16384)"
	base := (&url.URL{Scheme: "file", Path: abs}).String()
	d.w, err = sql.Open("sqlite", base+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate"+common)
	if err != nil {
		return fmt.Errorf("opening the database: %w", err)
	}
	d.w.SetMaxOpenConns(1)
	d.r, err = sql.Open("sqlite", base+"?mode=ro&_pragma=query_only(1)"+common)
	if err != nil {
		return fmt.Errorf("opening the database for reading: %w", err)
	}
	d.r.SetMaxOpenConns(8)
	d.c, err = sql.Open("sqlite", base+"?_pragma=synchronous(FULL)&_pragma=busy_timeout(0)")
	if err != nil {
		return fmt.Errorf("opening the database for its log: %w", err)
	}
	d.c.SetMaxOpenConns(1)
	if err := d.migrate(ctx); err != nil {
		return err
	}
	return d.check(ctx)
}

// Tidy moves what was committed from the log to the database, as far as readers let it. It happens by itself, in every hundredth write or so, which then takes
// several times as long; whoever writes much, and rests, does it in between, while others write. It waits for nobody: that somebody else does it at
// the moment is no failure.
func (d *DB) Tidy(ctx context.Context) error {
	var busy, log, moved int64
	if err := d.c.QueryRowContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`).Scan(&busy, &log, &moved); err != nil {
		return writing(fmt.Errorf("moving the log: %w", err))
	}
	return nil
}

func (d *DB) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("reading the migrations: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, d.w, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("preparing the migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return problem.Wrap(err, problem.BadConfig, "The broker's database cannot be read or brought up to date")
	}
	return nil
}

// check looks the whole file over after an unclean stop, and marks the database as in use.
func (d *DB) check(ctx context.Context) error {
	var clean string
	err := d.w.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = 'clean'`).Scan(&clean)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("reading how the database was closed: %w", err)
	}
	if clean == "0" {
		began := time.Now() //nolint:forbidigo // to measure how long it takes, which only the log is told
		var verdict string
		if err := d.w.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&verdict); err != nil {
			return problem.Wrap(err, problem.BadConfig, "The broker's database is damaged; restore it from a backup")
		}
		if verdict != "ok" {
			return problem.Wrap(errors.New(verdict), problem.BadConfig, "The broker's database is damaged; restore it from a backup")
		}
		d.checked = max(time.Since(began), 1)
	}
	return d.setClean(ctx, "0")
}

func (d *DB) setClean(ctx context.Context, v string) error {
	_, err := d.w.ExecContext(ctx, `INSERT INTO meta (name, value) VALUES ('clean', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, v)
	if err != nil {
		return fmt.Errorf("marking the database: %w", err)
	}
	return nil
}

// Checked returns how long the check after an unclean stop took; 0 if none was needed.
func (d *DB) Checked() time.Duration { return d.checked }

// Close closes the database in an orderly way. No method may be called after it.
func (d *DB) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(d.setClean(ctx, "1"), d.closeFiles())
}

// Abandon closes the files as the end of the process would, without the mark of an orderly stop.
func (d *DB) Abandon() error { return d.closeFiles() }

func (d *DB) closeFiles() error {
	var errs []error
	for _, h := range []*sql.DB{d.c, d.r, d.w} {
		if h != nil {
			errs = append(errs, h.Close())
		}
	}
	return errors.Join(append(errs, d.lock.Close())...)
}

// A Tx is one transaction. It must not be used concurrently, nor after the function that got it.
type Tx struct {
	tx   *sql.Tx
	ran  int
	kept []token.Provider // see NewKeeps
}

// Ran returns how many statements t has run that are few by promise: tests hold callers to it.
func (t *Tx) Ran() int { return t.ran }

// Write calls fn in a transaction of its own and commits if fn returns nil; else nothing
// has happened and fn's error is returned as it is. Writers run one after another.
// ErrUnwritable is in the failure if the disk is full, read-only or broken.
func (d *DB) Write(ctx context.Context, fn func(*Tx) error) error {
	return writing(run(ctx, d.w, nil, fn))
}

// Probe reports whether the database can be written now: it writes what is there already.
func (d *DB) Probe(ctx context.Context) error { return writing(d.setClean(ctx, "0")) }

// ErrUnwritable says that the database cannot be written for a reason of what it stands on, and may be when that is mended.
var ErrUnwritable = errors.New("the database cannot be written")

// Result codes of SQLite that speak of the disk, without what their higher bits add.
const (
	resultReadOnly = 8
	resultIO       = 10
	resultFull     = 13
	resultCantOpen = 14
)

func writing(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() & 0xff {
	case resultReadOnly, resultIO, resultFull, resultCantOpen:
		return fmt.Errorf("%w: %w", ErrUnwritable, err)
	}
	return err
}

// Read calls fn in a transaction that sees one state of the database and may not write.
func (d *DB) Read(ctx context.Context, fn func(*Tx) error) error {
	return run(ctx, d.r, &sql.TxOptions{ReadOnly: true}, fn)
}

func run(ctx context.Context, h *sql.DB, opts *sql.TxOptions, fn func(*Tx) error) error {
	tx, err := h.BeginTx(ctx, opts)
	if err != nil {
		return fmt.Errorf("beginning a transaction: %w", err)
	}
	if err := fn(&Tx{tx: tx}); err != nil {
		_ = tx.Rollback() // err says more; a transaction that cannot be rolled back ends with its connection
		return err
	}
	if err := tx.Commit(); err != nil {
		if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
			err = ctx.Err() // whose end has rolled it back
		}
		return fmt.Errorf("committing: %w", err)
	}
	return nil
}

func (t *Tx) exec(ctx context.Context, doing, query string, args ...any) error {
	t.ran++
	if _, err := t.tx.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// each calls scan for each row of a query.
func (t *Tx) each(ctx context.Context, doing, query string, args []any, scan func(*sql.Rows) error) error {
	t.ran++
	rows, err := t.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return fmt.Errorf("%s: %w", doing, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return nil
}

// one scans the only row of a query and reports whether there was one.
func (t *Tx) one(ctx context.Context, doing, query string, args []any, dest ...any) (bool, error) {
	t.ran++
	err := t.tx.QueryRowContext(ctx, query, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s: %w", doing, err)
	}
	return true, nil
}

// ms and at are the stored form of a time; 0 is the zero time.
func ms(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
