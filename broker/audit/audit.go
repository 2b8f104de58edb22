// Package audit is how audit records are written down, so that none can be
// changed, added or left out unseen: the one line of each, the root of a run of
// them, and the leaf that has the root.
//
// It guarantees that a record has one line, and that a Chain which has taken a
// number of proofs without a failure has seen runs that begin with record 1 and
// leave none out, of which every record in full and the hash of every other make
// up the root that the leaf has. A run whose records are not there is counted and
// not checked.
//
// It does not know whether a leaf is in anybody's ledger, nor whether an attempt
// was made that nobody recorded. It does no I/O, reads no clock and starts no
// goroutine. A Chain must not be used concurrently. Failures are *problem.Error of
// code problem.Malformed, NotCanonical or DigestDiffers, and the other results are then zero.
package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Line returns the bytes of a record over which the tree is made: JSON without spaces, members in the order of their names.
func Line(r api.AuditRecord) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	r.At = r.At.UTC()
	if err := enc.Encode(r); err != nil {
		panic("audit: internal error: a record has no JSON: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// HashOf returns the hash of a line as a leaf of the tree (RFC 6962): SHA-256 of a zero byte and the line.
func HashOf(line []byte) token.Hash {
	h := sha256.Sum256(append([]byte{0}, line...))
	return token.Hash(base64.RawURLEncoding.EncodeToString(h[:]))
}

// Root returns the root of the RFC 6962 tree over lines of which hashes are the hashes, at least one.
func Root(hashes []token.Hash) (token.Hash, error) {
	if len(hashes) == 0 || len(hashes) > api.MaxAuditRun {
		return "", problem.New(problem.Malformed, "A run of audit records has %d of them, not 1 to %d", len(hashes), api.MaxAuditRun)
	}
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, x := range at {
			out[i] = stored[x]
		}
		return out, nil
	})
	for n, text := range hashes {
		if err := text.Check(); err != nil {
			return "", err
		}
		raw, err := base64.RawURLEncoding.DecodeString(string(text))
		if err != nil {
			return "", problem.Wrap(err, problem.Malformed, "A hash of an audit record is not base64url")
		}
		hs, err := tlog.StoredHashesForRecordHash(int64(n), tlog.Hash(raw), read)
		if err != nil {
			return "", problem.Wrap(err, problem.Internal, "Hashing audit records did not work")
		}
		stored = append(stored, hs...)
	}
	root, err := tlog.TreeHash(int64(len(hashes)), read)
	if err != nil {
		return "", problem.Wrap(err, problem.Internal, "Hashing audit records did not work")
	}
	return token.Hash(base64.RawURLEncoding.EncodeToString(root[:])), nil
}

// A Leaf is what the ledger has of a run.
type Leaf struct {
	First   int64      `json:"first"`
	Records int64      `json:"records"`
	Root    token.Hash `json:"root"`
	Since   int64      `json:"since"` // seconds since 1970 UTC, of its first and its last record
	Until   int64      `json:"until"`
}

// LeafOf returns the leaf of a run.
func LeafOf(r api.AuditRun) Leaf {
	return Leaf{First: r.First, Records: r.Records, Root: r.Root, Since: r.Since.Unix(), Until: r.Until.Unix()}
}

// ParseLeaf reads the content of a leaf, which has one form.
func ParseLeaf(b []byte) (Leaf, error) {
	var l Leaf
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return Leaf{}, problem.Wrap(err, problem.Malformed, "The leaf is not that of a run of audit records")
	}
	again, err := json.Marshal(l)
	if err != nil || !bytes.Equal(again, b) {
		return Leaf{}, problem.New(problem.NotCanonical, "The leaf of a run of audit records is not in its one form")
	}
	return l, nil
}

// A Chain checks runs, one after another. Its zero value begins with record 1.
type Chain struct {
	next   int64 // number of the record that must come next
	leaf   int64 // of the last run
	Counts Counts
}

// From returns a Chain that begins with the run of which record first is the first.
func From(first int64) Chain { return Chain{next: first, leaf: -1} }

// Counts are what a Chain has seen.
type Counts struct {
	Runs    int64 `json:"runs"`
	Records int64 `json:"records"` // that were there in full
	Hidden  int64 `json:"hidden"`  // of which there was the hash alone
	Pruned  int64 `json:"pruned"`  // that are in a file of the broker's operator
}

// Add checks the run that follows.
func (c *Chain) Add(p api.AuditProof) error {
	if c.next == 0 {
		c.next, c.leaf = 1, -1
	}
	run := p.Run
	l, err := ParseLeaf(p.Leaf)
	switch {
	case err != nil:
		return err
	case run.First != c.next:
		return wrong(run, "it begins with record %d, and the one before ends with %d", run.First, c.next-1)
	case run.Leaf <= c.leaf:
		return wrong(run, "its leaf %d is not behind leaf %d of the run before", run.Leaf, c.leaf)
	case l != LeafOf(run):
		return wrong(run, "leaf %d says something else of it", run.Leaf)
	case run.Records < 1 || run.Records > api.MaxAuditRun:
		return wrong(run, "it has %d records", run.Records)
	}
	if run.Pruned != nil && len(p.Lines) == 0 {
		c.Counts.Pruned += run.Records
	} else if err := c.lines(run, p.Lines); err != nil {
		return err
	}
	c.Counts.Runs++
	c.next, c.leaf = run.First+run.Records, run.Leaf
	return nil
}

func (c *Chain) lines(run api.AuditRun, lines []api.AuditLine) error {
	if int64(len(lines)) != run.Records {
		return wrong(run, "%d of its %d records are there", len(lines), run.Records)
	}
	hashes := make([]token.Hash, len(lines))
	seen := int64(0)
	for i, l := range lines {
		hashes[i] = l.Hash
		if l.Record == nil {
			continue
		}
		if l.Record.N != run.First+int64(i) {
			return wrong(run, "record %d is in the place of record %d", l.Record.N, run.First+int64(i))
		}
		hashes[i] = HashOf(Line(*l.Record))
		seen++
	}
	root, err := Root(hashes)
	if err != nil {
		return err
	}
	if root != run.Root {
		return wrong(run, "its records are not those of which leaf %d has the root", run.Leaf)
	}
	c.Counts.Records += seen
	c.Counts.Hidden += run.Records - seen
	return nil
}

func wrong(run api.AuditRun, format string, args ...any) error {
	return &problem.Error{
		Code:   problem.DigestDiffers,
		Detail: fmt.Sprintf("The run of audit records from %d on is not what was written down: "+format, append([]any{run.First}, args...)...),
		Remedy: "Somebody changed the broker's database or the file: ask its operator, and compare with a backup.",
	}
}
