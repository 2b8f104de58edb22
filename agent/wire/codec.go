package wire

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/consign-transfer/consign/token"
	"github.com/google/uuid"
)

// A parser takes fields from the front of a body. A field that is not there is
// zero and sets short.
type parser struct {
	rest  []byte
	short bool
}

func (p *parser) take(n int) []byte {
	if p.short || len(p.rest) < n {
		p.short = true
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) u8() uint8 {
	if b := p.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *parser) u16() uint16 {
	if b := p.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (p *parser) u32() uint32 {
	if b := p.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (p *parser) u64() uint64 {
	if b := p.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (p *parser) value() (v [32]byte) {
	copy(v[:], p.take(len(v)))
	return v
}

func (p *parser) str() string { return string(p.take(int(p.u16()))) }

func (p *parser) hash() token.Hash {
	v := p.value()
	return token.Hash(base64.RawURLEncoding.EncodeToString(v[:]))
}

func (p *parser) batch() Batch {
	var id uuid.UUID
	copy(id[:], p.take(len(id)))
	return Batch{Xfr: token.TransferID(id.String()), Bat: int64(p.u64())}
}

func appendStr(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// appendHash appends the 32 bytes of a hash that checkHash accepted.
func appendHash(b []byte, h token.Hash) []byte {
	var v [32]byte
	if _, err := base64.RawURLEncoding.Strict().Decode(v[:], []byte(h)); err != nil {
		panic("wire: internal error: a hash changed after its check")
	}
	return append(b, v[:]...)
}

func checkHash(name string, h token.Hash) error {
	var v [33]byte
	if len(h) != 43 {
		return fmt.Errorf("%s of %d characters: %w", name, len(h), errLimit)
	}
	if n, err := base64.RawURLEncoding.Strict().Decode(v[:], []byte(h)); err != nil || n != 32 {
		return fmt.Errorf("%s: %w", name, errForm)
	}
	return nil
}

func checkRange(name string, n, lo, hi int64) error {
	if n < lo || n > hi {
		return fmt.Errorf("%s %d: %w", name, n, errLimit)
	}
	return nil
}

// checkText accepts what Sentence would leave alone, up to limit bytes.
func checkText(name, s string, limit int) error {
	if len(s) > limit {
		return fmt.Errorf("%s of %d bytes: %w", name, len(s), errLimit)
	}
	if !utf8.ValidString(s) || strings.ContainsFunc(s, unprintable) {
		return fmt.Errorf("%s: %w", name, errForm)
	}
	return nil
}

// unprintable is anything that could move a cursor, reorder or break a line.
func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// Sentence makes s fit for a wire and a terminal: valid UTF-8, printable, one
// line, at most MaxSentence bytes. What is not printable becomes a space; what
// is too long is cut at a character.
func Sentence(s string) string {
	s = strings.Map(func(r rune) rune {
		if unprintable(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(clip(s, 4*MaxSentence), "?"))
	return strings.TrimSpace(clip(s, MaxSentence))
}

// clip cuts s to at most n bytes, not within a character.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
