package space

import (
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/consign-transfer/consign/token/problem"
)

// An ObjectID is CDMI's identifier of an object or container, in upper-case Base16. It
// survives update, renaming and move. The bytes behind the text are:
//
//	 0    1        3    4    5        6      7    8
//	+----+----------+----+--------+------------+- - - - - - - -
//	| 00 |enterprise| 00 | length |    CRC     |    opaque
//	+----+----------+----+--------+------------+- - - - - - - -
//
// The enterprise number is IANA's, length counts all bytes, and the CRC is CRC-16/ARC of all
// bytes with those of the CRC being zero. Numbers are big-endian. An ObjectID of another maker is opaque: its
// CRC is never a reason to refuse it, because the standard itself prints wrong ones.
type ObjectID string

// Sizes in bytes of an ObjectID, before Base16.
const (
	idHead        = 8
	MaxIDSize     = 40
	DefaultIDSize = 24 // 16 opaque bytes
)

// MaxEnterprise is the greatest enterprise number that fits.
const MaxEnterprise = 1<<24 - 1

// NewObjectID returns the identifier that enterprise gives to opaque, 1 to 32 bytes; 16
// make one of DefaultIDSize. It is as unique as opaque is, which the caller
// sees to. It fails with problem.Malformed.
func NewObjectID(enterprise uint32, opaque []byte) (ObjectID, error) {
	if enterprise > MaxEnterprise {
		return "", problem.New(problem.Malformed, "The enterprise number %d is greater than %d.", enterprise, MaxEnterprise)
	}
	if len(opaque) == 0 || len(opaque) > MaxIDSize-idHead {
		return "", problem.New(problem.Malformed, "An object id has %d bytes of its own, not 1 to %d.", len(opaque), MaxIDSize-idHead)
	}
	b := make([]byte, idHead, MaxIDSize)
	binary.BigEndian.PutUint32(b, enterprise) // its first byte is 0
	b = append(b, opaque...)
	b[5] = byte(len(b))
	binary.BigEndian.PutUint16(b[6:], crc16(b))
	return ObjectID(upperHex(b)), nil
}

// ParseObjectID reads an identifier in upper or lower case, or fails with problem.Malformed. It does not look at
// the CRC, see Intact.
func ParseObjectID(s string) (ObjectID, error) {
	if len(s) > 2*MaxIDSize {
		return "", problem.New(problem.Malformed, "The object id %s is longer than %d bytes in Base16.", problem.Quote(s), MaxIDSize)
	}
	b, err := hex.DecodeString(s)
	switch {
	case err != nil:
		return "", problem.New(problem.Malformed, "The object id %s is not Base16.", problem.Quote(s))
	case len(b) <= idHead:
		return "", problem.New(problem.Malformed, "The object id %s is shorter than %d bytes.", problem.Quote(s), idHead+1)
	case b[0] != 0 || b[4] != 0:
		return "", problem.New(problem.Malformed, "The object id %s has a reserved byte that is not zero.", problem.Quote(s))
	case int(b[5]) != len(b):
		return "", problem.New(problem.Malformed, "The object id %s says that it has %d bytes, and has %d.", problem.Quote(s), b[5], len(b))
	}
	return ObjectID(upperHex(b)), nil
}

// Enterprise returns the number of who gave id out, or 0 if id is none.
func (id ObjectID) Enterprise() uint32 {
	b := id.bytes()
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint32(b) // its first byte is 0
}

// Intact reports whether the CRC of id is right. One of our own that is not was mistyped.
func (id ObjectID) Intact() bool {
	b := id.bytes()
	return b != nil && crc16(b) == binary.BigEndian.Uint16(b[6:])
}

// bytes returns what is behind the text, or nil if id is not what ParseObjectID returns.
func (id ObjectID) bytes() []byte {
	parsed, err := ParseObjectID(string(id))
	if err != nil || parsed != id {
		return nil
	}
	b, err := hex.DecodeString(string(id))
	if err != nil {
		return nil
	}
	return b
}

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// crc16 is CRC-16/ARC of b, with bytes 6 and 7 taken as zero: polynomial 0x8005, bits
// reflected, nothing before and nothing after.
func crc16(b []byte) uint16 {
	var crc uint16
	for i, c := range b {
		if i == 6 || i == 7 {
			c = 0
		}
		crc ^= uint16(c)
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low != 0 {
				crc ^= 0xA001 // 0x8005 with its bits reflected
			}
		}
	}
	return crc
}
