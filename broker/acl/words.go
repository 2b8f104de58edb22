package acl

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/consign-transfer/consign/token/problem"
)

// maxDigits is how many hexadecimal digits a number may have, leading zeros included.
const maxDigits = 8

// A word is a name of bits: on objects and, if it is another one, on containers.
type word struct {
	bits              uint32
	object, container string
}

func (w word) name(k Kind) string {
	if k == Container && w.container != "" {
		return w.container
	}
	return w.object
}

// A vocabulary is how one kind of number is read and written.
type vocabulary struct {
	what    string            // for sentences
	known   uint32            // every bit that has a meaning
	one     bool              // it is one word, not a set
	bare    string            // what may stand in front of every name
	shown   []word            // names that are written, from the greatest to the least
	read    []word            // names that are only read
	numbers map[uint32]uint32 // numbers that mean another
	lost    map[string]string // names that are refused, with what to write instead
}

// parse reads words and numbers between '|' or ','. The result is 0 with an error.
func (v *vocabulary) parse(s string) (uint32, error) {
	if len(s) > MaxExpressionSize {
		return 0, problem.New(problem.TooLarge, "The %s %s is longer than %d bytes.", v.what, problem.Quote(s), MaxExpressionSize)
	}
	var bits uint32
	items := 0
	for item := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == '|' || r == ',' }) {
		b, err := v.item(strings.Trim(item, " \t"))
		if err != nil {
			return 0, err
		}
		bits |= b
		items++
	}
	// FieldsFunc drops what is empty, and "READ_ACL,,DELETE" is a slip of somebody.
	if items != strings.Count(s, "|")+strings.Count(s, ",")+1 {
		return 0, problem.New(problem.Malformed, "The %s %s has an empty place: write names or numbers between ',' or '|'.", v.what, problem.Quote(s))
	}
	if v.one && items > 1 {
		return 0, problem.New(problem.Malformed, "The %s %s is a list and should be one word.", v.what, problem.Quote(s))
	}
	return bits, nil
}

func (v *vocabulary) item(s string) (uint32, error) {
	if digits, ok := strings.CutPrefix(s, "0x"); ok {
		return v.number(s, digits)
	}
	name := strings.TrimPrefix(s, v.bare)
	for _, words := range [][]word{v.shown, v.read} {
		for _, w := range words {
			if name != "" && (name == w.object || name == w.container) {
				return w.bits, nil
			}
		}
	}
	if instead, ok := v.lost[name]; ok {
		return 0, problem.New(problem.Malformed, "The %s has the name %s, which is not used here: %s.", v.what, problem.Quote(s), instead)
	}
	switch {
	case s == "":
		return 0, problem.New(problem.Malformed, "The %s has an empty place: write names or numbers between ',' or '|'.", v.what)
	case '0' <= s[0] && s[0] <= '9':
		return 0, problem.New(problem.Malformed, "The %s has the number %s, which is not hexadecimal with a leading 0x.", v.what, problem.Quote(s))
	}
	return 0, problem.New(problem.Malformed, "The %s has the unknown name %s.", v.what, problem.Quote(s))
}

func (v *vocabulary) number(s, digits string) (uint32, error) {
	n, err := strconv.ParseUint(digits, 16, 32)
	if err != nil || len(digits) > maxDigits {
		return 0, problem.New(problem.Malformed, "The %s has the number %s, which is not 1 to %d hexadecimal digits after 0x.", v.what, problem.Quote(s), maxDigits)
	}
	bits := uint32(n)
	if other, ok := v.numbers[bits]; ok {
		return other, nil
	}
	if v.one {
		if !slices.ContainsFunc(v.shown, func(w word) bool { return w.bits == bits }) {
			return 0, problem.New(problem.Malformed, "The %s has the unknown number %s.", v.what, problem.Quote(s))
		}
		return bits, nil
	}
	if unknown := bits &^ v.known; unknown != 0 {
		return 0, v.refuseBits(unknown)
	}
	return bits, nil
}

// refuseBits names every bit of unknown, which is not empty.
func (v *vocabulary) refuseBits(unknown uint32) error {
	var bits []string
	for b := uint32(1); b != 0; b <<= 1 {
		if unknown&b != 0 {
			bits = append(bits, hex(b, 2))
		}
	}
	return problem.New(problem.Malformed, "The %s has bits that mean nothing: %s.", v.what, strings.Join(bits, ", "))
}

// names takes bits apart. One pass does: what was taken out does not come back.
func (v *vocabulary) names(bits uint32, k Kind) []string {
	var names []string
	for _, w := range v.shown {
		if bits&w.bits == w.bits && w.bits != 0 {
			names = append(names, w.name(k))
			bits ^= w.bits
		}
	}
	if bits != 0 {
		names = append(names, hex(bits, 8))
	}
	return names
}

func hex(n uint32, width int) string { return fmt.Sprintf("0x%0*X", width, n) }
