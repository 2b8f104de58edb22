package space_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token/problem"
)

// printed are the identifiers in the standard's own examples, with the CRC that they should have.
var printed = []struct {
	id         space.ObjectID
	crc        string
	enterprise uint32
}{
	{"00006FFD001001CCE3B2B4F602032653", "01CC", 0x6FFD},
	{"00006FFD0010AA33D8CEF9711E0835CA", "AA33", 0x6FFD},
	{"0000706D0010734CE0BAEB29DD542B51", "734C", 0x706D},
	{"0000706D0010B84FAD185C425D8B537E", "B84F", 0x706D},
	{"00007E7F0010128E42D87EE34F5A6560", "128E", 0x7E7F},
	{"00007E7F00102E230ED82694DAA975D2", "2E23", 0x7E7F},
	{"00007ED900104E1D14771DC67C27BF8B", "4E1D", 0x7ED9},
	{"00007ED90010D891022876A8DE0BC0FD", "D891", 0x7ED9},
	// Misprinted in the standard.
	{"0000706D0010374085EF1A5C7018D774", "2B76", 0x706D},
	{"00007E7F00100C435125A61B4C289455", "1075", 0x7E7F},
	{"00007E7F0010D538DEEE8E38399E2815", "C90E", 0x7E7F},
}

// TestObjectIDVectors: the CRC of each printed identifier is found, and one that is wrong is no
// reason to refuse an identifier of somebody else.
func TestObjectIDVectors(t *testing.T) {
	t.Parallel()
	for _, v := range printed {
		for _, s := range []string{string(v.id), strings.ToLower(string(v.id))} {
			id, err := space.ParseObjectID(s)
			if err != nil || id != v.id || id.Enterprise() != v.enterprise {
				t.Errorf("%s: got %s of %x, %v", s, id, id.Enterprise(), err)
			}
		}
		right := v.id[:12] + space.ObjectID(v.crc) + v.id[16:]
		if !right.Intact() {
			t.Errorf("%s: want the CRC %s", v.id, v.crc)
		}
		if v.id.Intact() != (v.id == right) {
			t.Errorf("%s: got intact %v", v.id, v.id.Intact())
		}
		opaque := make([]byte, 8)
		for i := range opaque {
			opaque[i] = unhex(v.id[16+2*i])<<4 | unhex(v.id[17+2*i])
		}
		if made, err := space.NewObjectID(v.enterprise, opaque); err != nil || made != right {
			t.Errorf("got %s, %v, want %s", made, err, right)
		}
	}
}

func unhex(c byte) byte { return byte(strings.IndexByte("0123456789ABCDEF", c)) }

// TestCheckValueOfTheCRC: "123456789" has the published check value 0xBB3D. The CRC is over the
// whole identifier, so what stands before those bytes must add nothing: all of it but the length is zero,
// and the length is taken out by what is put in.
func TestCheckValueOfTheCRC(t *testing.T) {
	t.Parallel()
	id, err := space.NewObjectID(0, []byte("123456789"))
	if err != nil {
		t.Fatal(err)
	}
	// The same bytes through a table made by long division, bit by bit from the definition.
	b := append([]byte{0, 0, 0, 0, 0, 17, 0, 0}, "123456789"...)
	want := longDivision(b)
	if got := unhex(id[12])<<4 | unhex(id[13]); got != byte(want>>8) {
		t.Errorf("got %s, want the CRC %04X", id, want)
	}
	if got := unhex(id[14])<<4 | unhex(id[15]); got != byte(want) {
		t.Errorf("got %s, want the CRC %04X", id, want)
	}
	if got := longDivision([]byte("123456789")); got != 0xBB3D {
		t.Errorf("the division itself: got %04X, want BB3D", got)
	}
}

// longDivision is CRC-16/ARC straight from its definition: the message as a polynomial, lowest
// bit of each byte first, divided by x^16 + x^15 + x^2 + 1.
func longDivision(b []byte) uint16 {
	var bits []byte
	for _, c := range b {
		for i := range 8 {
			bits = append(bits, c>>i&1)
		}
	}
	bits = append(bits, make([]byte, 16)...)
	divisor := []byte{1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1}
	for i := range len(bits) - 16 {
		if bits[i] == 1 {
			for j, d := range divisor {
				bits[i+j] ^= d
			}
		}
	}
	var crc uint16
	for i, bit := range bits[len(bits)-16:] {
		crc |= uint16(bit) << i
	}
	return crc
}

func TestNewObjectID(t *testing.T) {
	t.Parallel()
	for size := 1; size <= space.MaxIDSize-8; size++ {
		id, err := space.NewObjectID(space.MaxEnterprise, bytes.Repeat([]byte{0xA5}, size))
		if err != nil || len(id) != 2*(8+size) || !id.Intact() || id.Enterprise() != space.MaxEnterprise {
			t.Errorf("%d bytes: got %s, %v", size, id, err)
		}
		if again, err := space.ParseObjectID(string(id)); err != nil || again != id {
			t.Errorf("got %s, %v", again, err)
		}
	}
	id, err := space.NewObjectID(1, make([]byte, 16))
	if err != nil || len(id) != 2*space.DefaultIDSize {
		t.Errorf("got %s, %v", id, err)
	}
	for _, tc := range []struct {
		enterprise uint32
		size       int
	}{{1 << 24, 16}, {1, 0}, {1, 33}} {
		id, err := space.NewObjectID(tc.enterprise, make([]byte, tc.size))
		refused(t, err, problem.Malformed)
		if id != "" {
			t.Errorf("got %s with an error", id)
		}
	}
}

func TestObjectIDsThatAreRefused(t *testing.T) {
	t.Parallel()
	good := string(printed[0].id)
	for s, word := range map[string]string{
		"":                             "shorter",
		good[:16]:                      "shorter",
		good[:31]:                      "Base16",
		good + "00":                    "has 17",
		good[:30]:                      "has 15",
		"01" + good[2:]:                "reserved",
		good[:8] + "01" + good[10:]:    "reserved",
		"G" + good[1:]:                 "Base16",
		" " + good[1:]:                 "Base16",
		good + strings.Repeat("0", 50): "longer",
	} {
		id, err := space.ParseObjectID(s)
		refused(t, err, problem.Malformed, word)
		if id != "" {
			t.Errorf("%q: got %s with an error", s, id)
		}
		if space.ObjectID(s).Intact() || space.ObjectID(s).Enterprise() != 0 {
			t.Errorf("%q: is taken for an identifier", s)
		}
	}
	if lower := space.ObjectID(strings.ToLower(good)); lower.Intact() {
		t.Error("a second spelling is taken for an identifier")
	}
}

// TestMistypedIdentifier: whatever byte is mistyped, it is seen.
func TestMistypedIdentifier(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		opaque := make([]byte, 16)
		for i := range opaque {
			opaque[i] = byte(r.Uint32())
		}
		id, err := space.NewObjectID(uint32(r.IntN(space.MaxEnterprise)), opaque)
		if err != nil {
			t.Fatal(err)
		}
		at := r.IntN(len(id))
		wrong := id[:at] + space.ObjectID("0123456789ABCDEF"[(int(unhex(id[at]))+1+r.IntN(15))%16]) + id[at+1:]
		if wrong.Intact() {
			t.Errorf("%s for %s is not seen", wrong, id)
		}
	}
}
