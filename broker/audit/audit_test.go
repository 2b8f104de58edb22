package audit_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/audit"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func record(n int64) api.AuditRecord {
	return api.AuditRecord{
		At: time.UnixMilli(1_772_366_400_000 + n).UTC(), Audited: "0x00000080", Cause: "entry 0 of north:/c/", Items: 1, Kind: "object", Missing: "0x00000000", N: n, Op: "stat",
		Outcome: api.AuditAllowed, Place: token.Location{Provider: "north", Container: "c", Name: "a<b>é"}, Salt: fmt.Sprintf("salt-%d", n), Want: "0x00000080",
		Who: "spiffe://north/subscriber/alice",
	}
}

// proof is the run of n records from first on, whose leaf is leaf.
func proof(t *testing.T, first, n, leaf int64) api.AuditProof {
	t.Helper()
	p := api.AuditProof{Run: api.AuditRun{First: first, Records: n, Since: record(first).At, Until: record(first + n - 1).At, Leaf: leaf}}
	var hashes []token.Hash
	for i := range n {
		r := record(first + i)
		p.Lines = append(p.Lines, api.AuditLine{Record: &r})
		hashes = append(hashes, audit.HashOf(audit.Line(r)))
	}
	var err error
	if p.Run.Root, err = audit.Root(hashes); err != nil {
		t.Fatal(err)
	}
	seal(t, &p)
	return p
}

// seal writes the leaf anew.
func seal(t *testing.T, p *api.AuditProof) {
	t.Helper()
	var err error
	if p.Leaf, err = json.Marshal(audit.LeafOf(p.Run)); err != nil {
		t.Fatal(err)
	}
}

func TestLineVector(t *testing.T) {
	t.Parallel()
	want := `{"at":"2026-03-01T12:00:00.007Z","audited":"0x00000080","cause":"entry 0 of north:/c/","first":"","items":1,"kind":"object","last":"","missing":"0x00000000","n":7,"op":"stat",` +
		`"outcome":"allowed","place":{"container":"c","name":"a<b>é","provider":"north"},"salt":"salt-7","want":"0x00000080","who":"spiffe://north/subscriber/alice"}`
	r := record(7)
	r.At = r.At.In(time.FixedZone("elsewhere", 3600)) // an instant has one spelling
	if got := string(audit.Line(r)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestRootIsThatOfTheLines: from the hashes alone comes the root that the lines have.
func TestRootIsThatOfTheLines(t *testing.T) {
	t.Parallel()
	var lines [][]byte
	var hashes []token.Hash
	for n := range int64(70) {
		line := audit.Line(record(n + 1))
		lines, hashes = append(lines, line), append(hashes, audit.HashOf(line))
		want, err := token.OutcomesRoot(lines)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := audit.Root(hashes); err != nil || got != want {
			t.Errorf("%d lines: got %s, %v, want %s", n+1, got, err, want)
		}
	}
	for name, bad := range map[string][]token.Hash{"none": nil, "too many": make([]token.Hash, api.MaxAuditRun+1), "no hash": {"abc"}, "empty": {""}} {
		if got, err := audit.Root(bad); problem.Of(err) != problem.Malformed || got != "" {
			t.Errorf("%s: got %q, %v, want %s", name, got, err, problem.Malformed)
		}
	}
}

// TestChain: runs that follow each other are good, whether a record is shown or only its hash, and those that are pruned are counted.
func TestChain(t *testing.T) {
	t.Parallel()
	var c audit.Chain
	one, two, three := proof(t, 1, 5, 3), proof(t, 6, 1, 9), proof(t, 7, 3, 10)
	one.Lines[2] = api.AuditLine{Hash: audit.HashOf(audit.Line(*one.Lines[2].Record))}
	now := time.Now()
	two.Run.Pruned, two.Lines = &now, nil
	for _, p := range []api.AuditProof{one, two, three} {
		if err := c.Add(p); err != nil {
			t.Fatalf("run from %d on: %v", p.Run.First, err)
		}
	}
	if want := (audit.Counts{Runs: 3, Records: 7, Hidden: 1, Pruned: 1}); c.Counts != want {
		t.Errorf("got %+v, want %+v", c.Counts, want)
	}
}

// TestRecordsThatWereChanged: whatever somebody does to records, runs or leaves after the fact is seen.
func TestRecordsThatWereChanged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		attack string
		change func(*testing.T, *api.AuditProof)
		code   problem.Code
	}{
		{"a record says something else", func(_ *testing.T, p *api.AuditProof) { p.Lines[1].Record.Who = "spiffe://north/subscriber/bob" }, problem.DigestDiffers},
		{"the salt of a record is another", func(_ *testing.T, p *api.AuditProof) { p.Lines[1].Record.Salt = "x" }, problem.DigestDiffers},
		{"a record is left out", func(_ *testing.T, p *api.AuditProof) { p.Lines = p.Lines[1:] }, problem.DigestDiffers},
		{"the last record is left out everywhere but in the leaf", func(_ *testing.T, p *api.AuditProof) { p.Lines, p.Run.Records = p.Lines[:4], 4 }, problem.DigestDiffers},
		{"two records change places", func(_ *testing.T, p *api.AuditProof) { p.Lines[1], p.Lines[2] = p.Lines[2], p.Lines[1] }, problem.DigestDiffers},
		{"two hidden records change places", func(_ *testing.T, p *api.AuditProof) {
			for i := range p.Lines {
				p.Lines[i] = api.AuditLine{Hash: audit.HashOf(audit.Line(*p.Lines[i].Record))}
			}
			p.Lines[1], p.Lines[2] = p.Lines[2], p.Lines[1]
		}, problem.DigestDiffers},
		{"a record is added", func(_ *testing.T, p *api.AuditProof) {
			r := record(6)
			p.Lines = append(p.Lines, api.AuditLine{Record: &r})
			p.Run.Records++
		}, problem.DigestDiffers},
		{"a run is left out", func(t *testing.T, p *api.AuditProof) { *p = proof(t, 6, 2, 9) }, problem.DigestDiffers},
		{"a run is there twice", func(t *testing.T, p *api.AuditProof) { p.Run.First = 0; seal(t, p) }, problem.DigestDiffers},
		{"the root of the run is not that of the leaf", func(_ *testing.T, p *api.AuditProof) { p.Run.Root = token.HashOf(nil) }, problem.DigestDiffers},
		{"the records are gone and nobody pruned them", func(_ *testing.T, p *api.AuditProof) { p.Lines = nil }, problem.DigestDiffers},
		{"an empty run", func(t *testing.T, p *api.AuditProof) { p.Lines, p.Run.Records = nil, 0; seal(t, p) }, problem.DigestDiffers},
		{"the leaf is another spelling", func(_ *testing.T, p *api.AuditProof) { p.Leaf = append(json.RawMessage(" "), p.Leaf...) }, problem.NotCanonical},
		{"the leaf has a member more", func(_ *testing.T, p *api.AuditProof) {
			p.Leaf = json.RawMessage(strings.Replace(string(p.Leaf), "{", `{"a":1,`, 1))
		}, problem.Malformed},
		{"the leaf is of another kind", func(_ *testing.T, p *api.AuditProof) { p.Leaf = json.RawMessage(`[]`) }, problem.Malformed},
		{"no hash in the place of a record", func(_ *testing.T, p *api.AuditProof) { p.Lines[0] = api.AuditLine{} }, problem.Malformed},
	} {
		t.Run(c.attack, func(t *testing.T) {
			t.Parallel()
			var chain audit.Chain
			p := proof(t, 1, 5, 3)
			c.change(t, &p)
			if err := chain.Add(p); problem.Of(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			if chain.Counts != (audit.Counts{}) {
				t.Errorf("what is not good was counted: %+v", chain.Counts)
			}
		})
	}
	var chain audit.Chain
	if err := chain.Add(proof(t, 1, 2, 5)); err != nil {
		t.Fatal(err)
	}
	if err := chain.Add(proof(t, 3, 2, 5)); problem.Of(err) != problem.DigestDiffers {
		t.Errorf("two runs of one leaf: got %v, want %s", err, problem.DigestDiffers)
	}
}
