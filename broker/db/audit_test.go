package db

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/token"
)

// attempt is a record of somebody who wanted to read north:/c/NAME.
func attempt(name string, change ...func(*AuditRecord)) AuditRecord {
	r := AuditRecord{
		At: time.UnixMilli(1_700_000_000_123).UTC(), Who: "spiffe://north/subscriber/alice", Op: "stat",
		Place: token.Location{Provider: "north", Container: "c", Name: token.ObjectName(name)}, Kind: acl.Object,
		Want: acl.ReadAttributes, Audited: acl.ReadAttributes, Outcome: acl.Allowed, Cause: "entry 0 of north:/c", Items: 1,
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

func audited(t *testing.T, d *DB, f AuditFilter, after int64) []AuditRecord {
	t.Helper()
	var rs []AuditRecord
	if err := d.Read(t.Context(), func(tx *Tx) (err error) {
		rs, err = tx.Audit(t.Context(), f, after, 1000)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestAuditRecords(t *testing.T) {
	t.Parallel()
	d, _ := newDB(t)
	later := attempt("a/b/c", func(r *AuditRecord) {
		r.At = r.At.Add(time.Hour)
		r.Who = ""
		r.Outcome, r.Missing, r.Items, r.First, r.Last = acl.Denied, acl.Delete, 0, "b", "c"
	})
	put := []AuditRecord{
		attempt("a"), attempt("a/b", func(r *AuditRecord) { r.Kind = acl.Container }), later, attempt("a-b"), attempt("a0"),
		attempt("a", func(r *AuditRecord) { r.Place.Container = "other" }), attempt("a", func(r *AuditRecord) { r.Place.Provider = "south" }),
	}
	write(t, d, func(tx *Tx) error { return tx.AddAudit(t.Context(), put) })
	all := audited(t, d, AuditFilter{Provider: "north"}, 0)
	put[2].Items = 1
	if len(all) != 6 {
		t.Fatalf("got %d records, want the 6 of north", len(all))
	}
	salts := map[string]bool{}
	for i, r := range all {
		want := put[i]
		want.N, want.Salt = r.N, r.Salt
		if r != want {
			t.Errorf("got the record %+v, want %+v", r, want)
		}
		if r.N != int64(i+1) || len(r.Salt) != 22 {
			t.Errorf("got number %d and salt %q, want %d and 22 characters", r.N, r.Salt, i+1)
		}
		salts[r.Salt] = true
	}
	if len(salts) != len(all) {
		t.Errorf("got %d salts for %d records", len(salts), len(all))
	}
	for _, c := range []struct {
		f     AuditFilter
		after int64
		want  string
	}{
		{AuditFilter{Provider: "north"}, 2, "3 4 5 6"},
		{AuditFilter{Provider: "nort"}, 0, ""},
		{AuditFilter{Provider: "north", Container: "c"}, 0, "1 2 3 4 5"},
		{AuditFilter{Provider: "north", Container: "c", Below: "a"}, 0, "1 2 3"},
		{AuditFilter{Provider: "north", Container: "c", Below: "a/b"}, 0, "2 3"},
		{AuditFilter{Provider: "north", Who: later.Who}, 0, "1 2 3 4 5 6"},
		{AuditFilter{Provider: "north", Who: "spiffe://north/subscriber/al"}, 0, ""},
		{AuditFilter{Provider: "north", Since: later.At}, 0, "3"},
		{AuditFilter{Provider: "north", Until: later.At.Add(-time.Millisecond)}, 0, "1 2 4 5 6"},
		{AuditFilter{Provider: "south"}, 0, "7"},
	} {
		var got []string
		for _, r := range audited(t, d, c.f, c.after) {
			got = append(got, fmt.Sprint(r.N))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%+v after %d: got the records %q, want %q", c.f, c.after, s, c.want)
		}
	}
}

// TestAuditRecordsStay: a record is not changed, and not removed without its run; a transaction that fails leaves no hole.
func TestAuditRecordsStay(t *testing.T) {
	t.Parallel()
	d, _ := newDB(t)
	ctx := t.Context()
	add := func(n int) func(*Tx) error {
		return func(tx *Tx) error {
			var rs []AuditRecord
			for i := range n {
				rs = append(rs, attempt(fmt.Sprint("o", i)))
			}
			return tx.AddAudit(ctx, rs)
		}
	}
	write(t, d, add(150))
	lost := errors.New("lost")
	if err := d.Write(ctx, func(tx *Tx) error { return errors.Join(add(7)(tx), lost) }); !errors.Is(err, lost) {
		t.Fatalf("got %v, want %v", err, lost)
	}
	write(t, d, add(50))
	undigested(t, d, 1, 200)
	run := AuditRun{First: 1, Records: 120, Root: "root", Since: attempt("").At, Until: attempt("").At}
	write(t, d, func(tx *Tx) (err error) {
		if run.Leaf, err = Append(ctx, tx, Leaf{Kind: AuditLeaf, At: run.Until, Body: []byte("{}")}); err != nil {
			return err
		}
		return tx.AddAuditRun(ctx, run)
	})
	undigested(t, d, 121, 80)
	for _, attack := range []string{
		`UPDATE audit SET who = 'somebody else' WHERE n = 1`, `DELETE FROM audit WHERE n = 1`, `DELETE FROM audit WHERE n = 121`, `DELETE FROM audit`,
	} {
		if err := d.Write(ctx, func(tx *Tx) error { return tx.exec(ctx, "attacking", attack) }); err == nil {
			t.Errorf("%s: got nil, want it refused", attack)
		}
	}
	now := time.UnixMilli(1_800_000_000_000).UTC()
	write(t, d, func(tx *Tx) error { return tx.PruneAuditRun(ctx, run, now) })
	if rs := audited(t, d, AuditFilter{Provider: "north"}, 0); len(rs) != 80 || rs[0].N != 121 {
		t.Errorf("after pruning: got %d records, want 80 from 121 on", len(rs))
	}
	if err := d.Read(ctx, func(tx *Tx) error {
		runs, err := tx.AuditRuns(ctx, 0, 10)
		kept, errKept := tx.KeptAuditRuns(ctx, 10)
		want := run
		want.Pruned = now
		if len(runs) != 1 || runs[0] != want || len(kept) != 0 {
			t.Errorf("after pruning: got the runs %+v, of which %d kept, want %+v and none", runs, len(kept), want)
		}
		l, ok, errLeaf := tx.Leaf(ctx, run.Leaf)
		if !ok || l.Kind != AuditLeaf {
			t.Errorf("its leaf: got %+v, %t", l, ok)
		}
		return errors.Join(err, errKept, errLeaf)
	}); err != nil {
		t.Fatal(err)
	}
}

func undigested(t *testing.T, d *DB, first, n int64) {
	t.Helper()
	if err := d.Read(context.Background(), func(tx *Tx) error {
		gotFirst, gotN, err := tx.Undigested(t.Context())
		if gotFirst != first || gotN != n {
			t.Errorf("without a run: got %d records from %d on, want %d from %d on", gotN, gotFirst, n, first)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    string
		size int
		want string
	}{{"", 3, ""}, {"abc", 3, "abc"}, {"abcd", 3, "abc"}, {"abé", 3, "ab"}, {"€€", 5, "€"}, {"€", 2, ""}} {
		if got := cut(c.s, c.size); got != c.want {
			t.Errorf("cut(%q, %d): got %q, want %q", c.s, c.size, got, c.want)
		}
	}
}
