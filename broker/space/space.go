// Package space holds the rules of the namespace that need nothing but their
// arguments: identifiers of objects, the forms of CDMI for times and metadata, what
// data system metadata ask for, how they are inherited, and what they forbid.
//
// It guarantees that each identifier, time, interval and item has one canonical form, and that what
// was written in it is read back unchanged. Every item of CDMI's chapter 16 is known, and read only in
// the form that the standard gives it: a value that the standard would silently not use is
// refused here, so that nobody believes in a wish that was dropped. Where the published texts
// contradict each other, the page "Readings of CDMI" of docs/adr says which reading is taken.
//
// It keeps nothing and carries nothing out. It does not know where an object is, how many copies of it
// there are or which time it is, it gives out no identifier that is unique by itself, and it erases
// nothing. Nothing here is in force by itself: a rule holds where somebody asks for it.
//
// It does no I/O, reads no clock, starts no goroutine and logs nothing. Values are not changed once they
// are made; every function may be called concurrently. Failures are *problem.Error, and the other
// results are then zero.
package space

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Limits, checked before anything is kept. Bytes unless the name says otherwise.
const (
	MaxMetadataSize = 1 << 20 // all items of one object, as JSON
	MaxItems        = 4096    // items of one object
	MaxItemNameSize = 255
	MaxDepth        = 32 // arrays and objects within each other
	MaxTextSize     = 1024
	MaxRegions      = 300 // entries of a placement
	MaxHolds        = 100 // own holds of one object
	maxNumber       = 1<<53 - 1
)

// plain reports whether s is UTF-8 in NFC without control characters and without
// U+FFFD, which is what a decoder leaves of what it could not read.
func plain(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return false
		}
	}
	return norm.NFC.IsNormalString(s)
}
