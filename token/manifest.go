package token

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/consign-transfer/consign/token/problem"
)

// MaxVersionSize bounds a Version, in bytes.
const MaxVersionSize = 256

// Check reports why m is not well formed, or nil: problem.TooLarge if it has more
// than MaxItems items or, having more than one, more than MaxBatchBytes; BadName
// for a name; else Malformed.
func (m Manifest) Check() error {
	if err := checkRole("iss", m.Iss, Broker); err != nil {
		return err
	}
	if err := checkBatch(m.Xfr, m.Bat, ByOrder); err != nil {
		return err
	}
	if err := m.Ord.Check(); err != nil {
		return err
	}
	if len(m.Items) == 0 {
		return problem.New(problem.Malformed, "The manifest has no items.")
	}
	if len(m.Items) > MaxItems {
		return problem.New(problem.TooLarge, "The manifest has more than %d items.", MaxItems)
	}
	return m.checkItems()
}

func (m Manifest) checkItems() error {
	var total int64 // cannot overflow: MaxItems times the largest integer of JSON fits
	seen := make(map[ObjectName]bool, len(m.Items))
	for _, it := range m.Items {
		if err := it.Check(); err != nil {
			return err
		}
		if seen[it.Dst] {
			return problem.New(problem.Malformed, "The manifest names the destination %s twice.", problem.Quote(string(it.Dst)))
		}
		seen[it.Dst] = true
		total += it.Size
	}
	if len(m.Items) > 1 && total > MaxBatchBytes {
		return problem.New(problem.TooLarge, "The manifest has more than %d bytes.", int64(MaxBatchBytes))
	}
	return nil
}

// Check reports why it is not well formed: nil, problem.BadName or problem.Malformed.
func (it Item) Check() error {
	if err := CheckName(it.Src); err != nil {
		return err
	}
	if err := CheckName(it.Dst); err != nil {
		return err
	}
	if err := it.Digest.Check(); err != nil {
		return err
	}
	if err := it.Hash.Check(); err != nil {
		return err
	}
	if it.Version == "" {
		return problem.New(problem.Malformed, "The item %s has no version.", problem.Quote(string(it.Src)))
	}
	if err := checkText("version", string(it.Version), MaxVersionSize); err != nil {
		return err
	}
	switch {
	case it.Size < 0 || it.Size > maxInteger:
		return problem.New(problem.Malformed, "The size of the item %s is negative or too large.", problem.Quote(string(it.Src)))
	case it.Part < ChunkSize || it.Part > maxInteger || it.Part&(it.Part-1) != 0:
		return problem.New(problem.Malformed, "The part size of the item %s is not a power of two from %d up.", problem.Quote(string(it.Src)), ChunkSize)
	}
	return nil
}

// checkText holds for short texts that a statement carries and nobody parses.
func checkText(what, s string, limit int) error {
	switch {
	case len(s) > limit:
		return problem.New(problem.Malformed, "The %s is longer than %d bytes.", what, limit)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return problem.New(problem.Malformed, "The %s is not UTF-8 without control characters.", what)
	}
	return nil
}
