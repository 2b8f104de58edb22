package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newDB(t *testing.T) (*DB, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a db?.sqlite") // a name that a URL would misread
	if err := Create(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.closeFiles() }) // again, where the test has closed it
	return d, path
}

// TestCallerGoesAway: a transaction that ended with its context says so, and not that somebody has ended it already.
func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	d, _ := newDB(t)
	for name, do := range map[string]func(context.Context, func(*Tx) error) error{"read": d.Read, "write": d.Write} {
		ctx, cancel := context.WithCancel(t.Context())
		err := do(ctx, func(tx *Tx) error {
			cancel()
			for late := time.Now().Add(time.Minute); time.Now().Before(late); { // until database/sql has rolled it back
				if _, err := tx.Meta(context.Background(), "x"); errors.Is(err, sql.ErrTxDone) {
					return nil
				}
			}
			return errors.New("it was not rolled back")
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v, want %v", name, err, context.Canceled)
		}
	}
}

func write(t *testing.T, d *DB, fn func(*Tx) error) {
	t.Helper()
	if err := d.Write(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	d, path := newDB(t)
	if _, err := Open(t.Context(), path); problem.Of(err) != problem.BadConfig || !strings.Contains(err.Error(), "Another broker") {
		t.Errorf("a second broker on the same file: got %v", err)
	}
	if _, err := Open(t.Context(), path+".none"); problem.Of(err) != problem.BadConfig || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that does not exist: got %v", err)
	}
	if _, err := os.Stat(path + ".none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening made a file: %v", err)
	}
	if err := Create(t.Context(), path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating over a database: got %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte(strings.Repeat("this is no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), junk); problem.Of(err) != problem.BadConfig {
		t.Errorf("a file of junk: got %v", err)
	}
}

func TestUncleanStopIsChecked(t *testing.T) {
	t.Parallel()
	d, path := newDB(t)
	if d.Checked() != 0 {
		t.Errorf("a new database was checked")
	}
	if err := d.Abandon(); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false} { // after the kill; after an orderly stop
		d, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Checked() > 0; got != want {
			t.Errorf("opening %d: got checked %t, want %t", i, got, want)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLeavesAreAppendOnly(t *testing.T) {
	t.Parallel()
	d, path := newDB(t)
	leaf := func(body string) error {
		return d.Write(t.Context(), func(tx *Tx) error {
			_, err := Append(t.Context(), tx, Leaf{KeyLeaf, time.Now(), []byte(body)})
			return err
		})
	}
	for i := range 3 {
		if err := leaf(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		failed := errors.New("failed")
		if err := d.Write(t.Context(), func(tx *Tx) error { // a transaction that fails leaves no hole
			if _, err := Append(t.Context(), tx, Leaf{KeyLeaf, time.Now(), []byte("lost")}); err != nil {
				return err
			}
			return failed
		}); !errors.Is(err, failed) {
			t.Fatalf("got %v, want the function's own error", err)
		}
	}
	if err := leaf(strings.Repeat("x", MaxLeafSize+1)); problem.Of(err) != problem.TooLarge {
		t.Errorf("a leaf that is too large: got %v", err)
	}
	for _, q := range []string{`DELETE FROM leaves WHERE idx = 1`, `UPDATE leaves SET body = x'00' WHERE idx = 1`, `DELETE FROM leaves`} {
		if _, err := d.w.ExecContext(t.Context(), q); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: got %v, want a refusal", q, err)
		}
	}
	if err := d.Read(t.Context(), func(tx *Tx) error { return tx.SetMeta(t.Context(), "a", "b") }); err == nil {
		t.Errorf("a reader wrote")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var got []string
	if err := d.Read(t.Context(), func(tx *Tx) error {
		return tx.Leaves(t.Context(), 0, func(i int64, l Leaf) error {
			got = append(got, fmt.Sprintf("%d:%s", i, l.Body))
			return nil
		})
	}); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != "[0:0 1:1 2:2]" {
		t.Errorf("got leaves %v", got)
	}
}

func addTransfer(t *testing.T, d *DB, id token.TransferID) {
	t.Helper()
	write(t, d, func(tx *Tx) error {
		return tx.AddOrder(t.Context(), Transfer{ID: id, State: api.Queued, Do: token.Copy, Accounts: []token.Identity{"spiffe://a/subscriber/x"},
			To: token.Location{Provider: "p", Container: "c"}, Created: time.Now(), Expires: time.Now().Add(time.Hour), Ord: "h" + token.Hash(id)}, api.SignedOrder{})
	})
}

// TestOneThousandWantOneName races 1,000 batches for three names; each name gets one owner, and after
// that gives it back, another.
func TestOneThousandWantOneName(t *testing.T) {
	t.Parallel()
	d, _ := newDB(t)
	addTransfer(t, d, "x")
	const n = 1000
	write(t, d, func(tx *Tx) error {
		for i := range int64(n) {
			if err := tx.PutBatch(t.Context(), Batch{Ref: api.Ref{Xfr: "x", Bat: i + 1}, State: Live}); err != nil {
				return err
			}
		}
		return nil
	})
	at := token.Location{Provider: "p", Container: "c"}
	names := []token.ObjectName{"a", "b", "c"}
	var mu sync.Mutex
	owners := map[token.ObjectName][]int64{}
	var wg sync.WaitGroup
	for i := range int64(n) {
		wg.Go(func() {
			err := d.Write(context.Background(), func(tx *Tx) error {
				got, err := tx.Reserve(context.Background(), at, api.Ref{Xfr: "x", Bat: i + 1}, names[i%3:])
				mu.Lock()
				defer mu.Unlock()
				for name := range got {
					owners[name] = append(owners[name], i+1)
				}
				return err
			})
			if err != nil {
				t.Errorf("reserving: %v", err)
			}
		})
	}
	wg.Wait()
	for _, name := range names {
		if len(owners[name]) != 1 {
			t.Errorf("name %q has %d owners, want one", name, len(owners[name]))
		}
	}
	write(t, d, func(tx *Tx) error {
		owner := api.Ref{Xfr: "x", Bat: owners["c"][0]}
		if err := tx.Release(t.Context(), owner); err != nil {
			return err
		}
		got, err := tx.Reserve(t.Context(), at, api.Ref{Xfr: "x", Bat: n}, []token.ObjectName{"c"})
		if !got["c"] {
			t.Errorf("a name that was given back cannot be reserved")
		}
		strays, serr := tx.Strays(t.Context())
		if strays != 0 {
			t.Errorf("got %d strays, want none", strays)
		}
		return errors.Join(err, serr)
	})
}

func TestManyNamesInOneReservation(t *testing.T) {
	t.Parallel()
	d, _ := newDB(t)
	addTransfer(t, d, "x")
	at := token.Location{Provider: "p", Container: "c"}
	var names []token.ObjectName
	for i := range 1024 {
		names = append(names, token.ObjectName(fmt.Sprintf("n%d", i)))
	}
	write(t, d, func(tx *Tx) error {
		for bat := range int64(2) {
			if err := tx.PutBatch(t.Context(), Batch{Ref: api.Ref{Xfr: "x", Bat: bat}, State: Live}); err != nil {
				return err
			}
		}
		if got, err := tx.Reserve(t.Context(), at, api.Ref{Xfr: "x", Bat: 0}, names[:100]); err != nil || len(got) != 100 {
			t.Errorf("got %d names, %v, want 100", len(got), err)
		}
		got, err := tx.Reserve(t.Context(), at, api.Ref{Xfr: "x", Bat: 1}, names)
		if len(got) != 924 {
			t.Errorf("got %d names, want the other 924", len(got))
		}
		return err
	})
}

func TestRowsComeBackAsTheyWent(t *testing.T) {
	t.Parallel()
	d, _ := newDB(t)
	addTransfer(t, d, "x")
	now := time.UnixMilli(1700000000123).UTC()
	b := Batch{Ref: api.Ref{Xfr: "x", Bat: 7}, State: Repin, Man: "m", Items: 1, Bytes: 2, Created: now, NotBefore: now.Add(1e9), Claimed: true, Tries: 3,
		Attempts: 4, Repins: 5, Src: "s", Dst: "d", Gen: 6, Cnf: "f", CapExp: now.Add(2e9), CapRead: "r", CapCreate: "w", SrcDone: now.Add(3e9),
		DstDone: now.Add(4e9), Dropped: now.Add(5e9), Note: "n"}
	x := Transfer{}
	write(t, d, func(tx *Tx) (err error) {
		if x, err = tx.Transfer(t.Context(), "x"); err != nil {
			return err
		}
		x.State, x.Ending, x.Finished, x.Planned, x.PlanAfter, x.PlanTries, x.Resume = api.Partial, api.Expired, now, true, now, 1, "r"
		x.Items, x.Bytes, x.Moved, x.Counts = 2, 3, 4, Counts{1, 2, 3, 4, 5, 6, 7, 8}
		x.Disputed, x.Unmatched, x.Code, x.Detail, x.NextBat, x.Seq = true, true, "taken", "d", 9, 10
		if err := tx.SaveTransfer(t.Context(), x); err != nil {
			return err
		}
		if err := tx.PutBatch(t.Context(), b); err != nil {
			return err
		}
		if err := tx.PutFinal(t.Context(), b.Ref, nil); err != nil {
			return err
		}
		return tx.AddReceipt(t.Context(), Receipt{Ref: b.Ref, Side: token.Source, Part: 1, Last: true, Came: now}) // of no outcomes
	})
	if err := d.Read(t.Context(), func(tx *Tx) error {
		if got, err := tx.Transfer(t.Context(), "x"); err != nil || fmt.Sprint(got) != fmt.Sprint(x) {
			t.Errorf("got transfer %+v, %v, want %+v", got, err, x)
		}
		if got, err := tx.Batch(t.Context(), b.Ref); err != nil || got != b {
			t.Errorf("got batch %+v, %v, want %+v", got, err, b)
		}
		if got, err := tx.Receipts(t.Context(), b.Ref); err != nil || len(got) != 1 || got[0].Signed.Lines != "" || !got[0].Last {
			t.Errorf("got receipts %+v, %v", got, err)
		}
		if _, err := tx.Transfer(t.Context(), "y"); problem.Of(err) != problem.NotFound {
			t.Errorf("a transfer that does not exist: got %v", err)
		}
		if _, err := tx.Batch(t.Context(), api.Ref{Xfr: "x", Bat: 8}); problem.Of(err) != problem.NotFound {
			t.Errorf("a batch that does not exist: got %v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestRevocationsAreBounded: of more than the limit, those go that end first.
func TestRevocationsAreBounded(t *testing.T) {
	t.Parallel()
	d, _ := newDB(t)
	now := time.Now().Truncate(time.Second)
	write(t, d, func(tx *Tx) error {
		for i, minutes := range []int{5, 1, 4, 2, 3} {
			r := Revocation{Xfr: token.TransferID(fmt.Sprintf("t%d", i)), Reason: token.ByCancel, Ends: now.Add(time.Duration(minutes) * time.Minute)}
			if err := tx.PutRevocation(t.Context(), r, 3); err != nil {
				return err
			}
		}
		return tx.ForgetRevocations(t.Context(), now.Add(3*time.Minute))
	})
	if err := d.Read(t.Context(), func(tx *Tx) error {
		rs, err := tx.Revocations(t.Context())
		if len(rs) != 2 || rs[0].Xfr != "t0" || rs[1].Xfr != "t2" {
			t.Errorf("got %+v, want the two that end last and have not ended", rs)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestADiskThatIsFull: a database that cannot grow says so and loses nothing, and is written again once it can.
func TestADiskThatIsFull(t *testing.T) {
	t.Parallel()
	d, _ := newDB(t)
	limit := func(pages int) {
		t.Helper()
		if _, err := d.w.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count = %d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	fill := func() error {
		return d.Write(t.Context(), func(tx *Tx) error {
			return tx.exec(t.Context(), "filling", `INSERT INTO meta (name, value) VALUES ('fill', ?)`, strings.Repeat("x", 1<<20))
		})
	}
	limit(1) // SQLite takes what it has already as the least
	if err := fill(); !errors.Is(err, ErrUnwritable) {
		t.Errorf("full: got %v, want %v", err, ErrUnwritable)
	}
	limit(1 << 20)
	if err := errors.Join(d.Probe(t.Context()), fill()); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := fill(); err == nil || errors.Is(err, ErrUnwritable) {
		t.Errorf("a fault of ours: got %v, want another failure", err)
	}
}

// TestTidyEmptiesTheLog tidies beside a reader and behind a writer: what was committed is there, and after a kill too.
func TestTidyEmptiesTheLog(t *testing.T) {
	t.Parallel()
	d, path := newDB(t)
	for i := range 50 {
		write(t, d, func(tx *Tx) error { return tx.SetMeta(t.Context(), fmt.Sprint(i), strings.Repeat("x", 8000)) })
	}
	if err := d.Read(t.Context(), func(*Tx) error { return d.Tidy(t.Context()) }); err != nil {
		t.Fatalf("beside a reader: %v", err)
	}
	if err := d.Tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	var busy, log, moved int64
	if err := d.c.QueryRowContext(t.Context(), `PRAGMA wal_checkpoint(PASSIVE)`).Scan(&busy, &log, &moved); err != nil || busy != 0 || moved != log {
		t.Errorf("got %d of %d pages of the log moved (busy %d, %v), want all", moved, log, busy, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() < 50*8000 {
		t.Errorf("the database has %d bytes (%v), want all that was written", info.Size(), err)
	}
	if err := d.Write(t.Context(), func(tx *Tx) error { // a writer does not wait for it, nor it for a writer
		if err := tx.SetMeta(t.Context(), "late", "1"); err != nil {
			return err
		}
		return d.Tidy(t.Context())
	}); err != nil {
		t.Errorf("beside a writer: %v", err)
	}
}
