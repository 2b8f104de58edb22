package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/audit"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// memAudit is a broker that has runs of audit records.
type memAudit []api.AuditProof

func (m memAudit) AuditRuns(_ context.Context, _ string, from int64) (api.Page[api.AuditRun], error) {
	page := api.Page[api.AuditRun]{}
	for _, p := range m {
		switch {
		case p.Run.First < from:
		case len(page.Items) > 0: // pages of one
			page.Next = "more"
		default:
			page.Items = append(page.Items, p.Run)
		}
	}
	return page, nil
}

func (m memAudit) AuditProof(_ context.Context, _ string, first int64) (api.AuditProof, error) {
	for _, p := range m {
		if p.Run.First == first {
			return p, nil
		}
	}
	return api.AuditProof{}, problem.New(problem.NotFound, "There is no such run")
}

// recorded returns runs of two records each.
func recorded(t *testing.T, runs int) memAudit {
	t.Helper()
	var m memAudit
	for i := range int64(runs) {
		p := api.AuditProof{Run: api.AuditRun{First: 2*i + 1, Records: 2, Leaf: 10 + i, Since: time.Unix(i, 0).UTC(), Until: time.Unix(i, 0).UTC()}}
		var hashes []token.Hash
		for n := range int64(2) {
			r := api.AuditRecord{N: 2*i + 1 + n, At: time.Unix(i, 0).UTC(), Op: "stat", Who: "spiffe://north/subscriber/alice"}
			p.Lines, hashes = append(p.Lines, api.AuditLine{Record: &r}), append(hashes, audit.HashOf(audit.Line(r)))
		}
		var err error
		if p.Run.Root, err = audit.Root(hashes); err != nil {
			t.Fatal(err)
		}
		if p.Leaf, err = json.Marshal(audit.LeafOf(p.Run)); err != nil {
			t.Fatal(err)
		}
		m = append(m, p)
	}
	return m
}

// TestAuditFileIsVerified: what is in a file is compared with the leaves that the broker has, and not with what the file says of them.
func TestAuditFileIsVerified(t *testing.T) {
	t.Parallel()
	m := recorded(t, 3)
	write := func(ps ...api.AuditProof) string {
		t.Helper()
		var b bytes.Buffer
		for _, p := range ps {
			line, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(append(line, '\n'))
		}
		name := filepath.Join(t.TempDir(), "audit.jsonl")
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	moved := time.Now()
	kept := make(memAudit, len(m)) // what the broker has when the first two runs are in a file
	for i, p := range m {
		if i < 2 {
			p.Run.Pruned, p.Lines = &moved, nil
		}
		kept[i] = p
	}
	chain := &audit.Chain{}
	if err := verifyRuns(t.Context(), kept, "north:", chain); err != nil || chain.Counts != (audit.Counts{Runs: 3, Records: 2, Pruned: 4}) {
		t.Errorf("the runs of the broker: got %+v, %v, want 2 records, and 4 in files", chain.Counts, err)
	}
	chain = &audit.Chain{}
	if err := verifyFile(t.Context(), kept, "north:", write(m[:2]...), chain); err != nil || chain.Counts != (audit.Counts{Runs: 2, Records: 4}) {
		t.Errorf("a good file: got %+v, %v, want 4 records", chain.Counts, err)
	}
	forged := recorded(t, 2)
	forged[1].Lines[0].Record.Who = "spiffe://north/subscriber/bob"
	rewritten := recorded(t, 2)
	*rewritten[1].Lines[0].Record = *forged[1].Lines[0].Record
	hashes := []token.Hash{audit.HashOf(audit.Line(*rewritten[1].Lines[0].Record)), audit.HashOf(audit.Line(*rewritten[1].Lines[1].Record))}
	rewritten[1].Run.Root, _ = audit.Root(hashes)
	rewritten[1].Leaf, _ = json.Marshal(audit.LeafOf(rewritten[1].Run))
	for name, c := range map[string]struct {
		file string
		code problem.Code
	}{
		"a record was changed":                      {write(forged...), problem.DigestDiffers},
		"a record was changed, with root and leaf":  {write(rewritten...), problem.DigestDiffers},
		"a run is left out":                         {write(m[0], m[2]), problem.DigestDiffers},
		"a run of which the broker knows nothing":   {write(recorded(t, 4)[3]), problem.NotFound},
		"an empty file":                             {write(), problem.Malformed},
		"a file that is not there":                  {"/nowhere", problem.Unreadable},
		"the hashes alone, in the place of records": {write(api.AuditProof{Run: m[0].Run, Leaf: m[0].Leaf, Lines: []api.AuditLine{{Hash: "x"}, {Hash: "y"}}}), problem.Malformed},
	} {
		if err := verifyFile(t.Context(), kept, "north:", c.file, &audit.Chain{}); problem.Of(err) != c.code {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
	}
}
