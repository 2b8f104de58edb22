package wire

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/consign-transfer/consign/agent/store"
)

const (
	hasModTime = 1
	hasMode    = 2
	hasType    = 4
)

// Fit returns what of a can travel, and the names of what cannot in the form of
// store.Published: "mtime" for a time that int64 nanoseconds since 1970 cannot
// hold, "mode", "type", and "meta:KEY" for pairs that break a limit, in ascending order
// until the rest fits. It does not change a.
func Fit(a store.Attrs) (fit store.Attrs, lost []string) {
	if !a.ModTime.IsZero() {
		if inRange(a.ModTime) {
			fit.ModTime = a.ModTime
		} else {
			lost = append(lost, "mtime")
		}
	}
	if a.HasMode {
		if a.Mode <= MaxMode {
			fit.Mode, fit.HasMode = a.Mode, true
		} else {
			lost = append(lost, "mode")
		}
	}
	if checkText("content type", a.ContentType, MaxType) == nil {
		fit.ContentType = a.ContentType
	} else {
		lost = append(lost, "type")
	}
	total := 0
	for _, k := range slices.Sorted(maps.Keys(a.Meta)) {
		v := a.Meta[k]
		if checkPair(k, v) != nil || len(fit.Meta) == MaxMetaPairs || total+len(k)+len(v) > MaxMetaSize {
			lost = append(lost, "meta:"+k)
			continue
		}
		if fit.Meta == nil {
			fit.Meta = make(map[string]string)
		}
		fit.Meta[k] = v
		total += len(k) + len(v)
	}
	return fit, lost
}

func inRange(t time.Time) bool {
	lo, hi := time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64)
	return !t.Before(lo) && !t.After(hi)
}

// checkPair demands a printable key and text without NUL.
func checkPair(k, v string) error {
	if k == "" {
		return fmt.Errorf("metadata key: %w", errLimit)
	}
	if err := checkText("metadata key", k, MaxMetaKey); err != nil {
		return err
	}
	if len(v) > MaxMetaSize {
		return fmt.Errorf("metadata value of %d bytes: %w", len(v), errLimit)
	}
	if !utf8.ValidString(v) || slices.Contains([]byte(v), 0) {
		return fmt.Errorf("metadata value: %w", errForm)
	}
	return nil
}

func checkAttrs(a store.Attrs) error {
	if !a.ModTime.IsZero() && !inRange(a.ModTime) {
		return fmt.Errorf("mtime: %w", errLimit)
	}
	if a.Mode > MaxMode || a.Mode != 0 && !a.HasMode {
		return fmt.Errorf("mode: %w", errLimit)
	}
	if err := checkText("content type", a.ContentType, MaxType); err != nil {
		return err
	}
	if len(a.Meta) > MaxMetaPairs {
		return fmt.Errorf("%d metadata pairs: %w", len(a.Meta), errLimit)
	}
	total := 0
	for k, v := range a.Meta {
		if err := checkPair(k, v); err != nil {
			return err
		}
		total += len(k) + len(v)
	}
	return checkRange("metadata size", int64(total), 0, MaxMetaSize)
}

func appendAttrs(b []byte, a store.Attrs) []byte {
	var flags byte
	if !a.ModTime.IsZero() {
		flags |= hasModTime
	}
	if a.HasMode {
		flags |= hasMode
	}
	if a.ContentType != "" {
		flags |= hasType
	}
	b = append(b, flags)
	if flags&hasModTime != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(a.ModTime.UnixNano()))
	}
	if flags&hasMode != 0 {
		b = binary.BigEndian.AppendUint32(b, a.Mode)
	}
	if flags&hasType != 0 {
		b = appendStr(b, a.ContentType)
	}
	b = append(b, byte(len(a.Meta)))
	if len(a.Meta) == 0 {
		return b
	}
	for _, k := range slices.Sorted(maps.Keys(a.Meta)) {
		b = appendStr(appendStr(b, k), a.Meta[k])
	}
	return b
}

func parseAttrs(p *parser) (a store.Attrs) {
	flags := p.u8()
	if flags&^(hasModTime|hasMode|hasType) != 0 {
		p.short = true
		return a
	}
	if flags&hasModTime != 0 {
		a.ModTime = time.Unix(0, int64(p.u64())).UTC()
	}
	if flags&hasMode != 0 {
		a.Mode, a.HasMode = p.u32(), true
	}
	if flags&hasType != 0 {
		if a.ContentType = p.str(); a.ContentType == "" {
			p.short = true // the flag says that there is one
			return a
		}
	}
	n := int(p.u8())
	if n > MaxMetaPairs {
		p.short = true
		return a
	}
	last := ""
	for range n {
		k, v := p.str(), p.str()
		if p.short || k <= last {
			p.short = true
			return a
		}
		if a.Meta == nil {
			a.Meta = make(map[string]string, n)
		}
		a.Meta[k], last = v, k
	}
	return a
}
