package token

import (
	"slices"
	"strings"

	"github.com/consign-transfer/consign/token/problem"
)

// A ValueHash names the hash that a stored object is to have beside its digest, as CDMI's cdmi_value_hash spells it. The
// empty one is none. It is for those who compare objects by it elsewhere, and secures nothing: MD5 and SHA160 are broken.
type ValueHash string

const (
	MD5    ValueHash = "MD5"
	SHA160 ValueHash = "SHA160" // SHA-1
	SHA256 ValueHash = "SHA256"
	SHA384 ValueHash = "SHA384"
	SHA512 ValueHash = "SHA512"
)

// ValueHashes returns the names of all value hashes.
func ValueHashes() []ValueHash { return []ValueHash{MD5, SHA160, SHA256, SHA384, SHA512} }

// Size is how many bytes the hash has; 0 if it does not exist.
func (h ValueHash) Size() int {
	switch h {
	case MD5:
		return 16
	case SHA160:
		return 20
	case SHA256:
		return 32
	case SHA384:
		return 48
	case SHA512:
		return 64
	}
	return 0
}

// Check reports whether h is the name of a value hash, or none: nil or problem.Malformed.
func (h ValueHash) Check() error {
	if h == "" || slices.Contains(ValueHashes(), h) {
		return nil
	}
	return problem.New(problem.Malformed, "The value hash %s is not MD5, SHA160, SHA256, SHA384 or SHA512.", problem.Quote(string(h)))
}

// A ValueDigest is the output of a ValueHash with its name in front, a colon, and Base16 in lower case, as CDMI's cdmi_hash
// has it. The empty one is none.
type ValueDigest string

// ParseValueDigest returns s as a value digest, or problem.Malformed. The empty string is refused.
func ParseValueDigest(s string) (ValueDigest, error) {
	name, sum, ok := strings.Cut(s, ":")
	if !ok || name == "" || ValueHash(name).Check() != nil || len(sum) != 2*ValueHash(name).Size() || !only(sum, isHexByte) {
		return "", problem.New(problem.Malformed, "The value digest %s is not the name of a value hash, a colon and its lower-case hexadecimal digits.", problem.Quote(s))
	}
	return ValueDigest(s), nil
}

// Check reports whether d is a value digest or none: nil or problem.Malformed.
func (d ValueDigest) Check() error {
	if d == "" {
		return nil
	}
	_, err := ParseValueDigest(string(d))
	return err
}

// Hash returns the name in d, which must have passed Check; none of none.
func (d ValueDigest) Hash() ValueHash {
	name, _, _ := strings.Cut(string(d), ":")
	return ValueHash(name)
}

// Base16 returns the value in d, which must have passed Check; empty of none.
func (d ValueDigest) Base16() string {
	_, sum, _ := strings.Cut(string(d), ":")
	return sum
}

// CheckOutcomes reports whether outs, which must have passed Check, are of items of m, and answer the value hashes that m asks for: nil or
// problem.Malformed. A stored item has the value digest that was asked for, and none if none was.
func (m Manifest) CheckOutcomes(outs []Outcome) error {
	for _, o := range outs {
		if o.Item >= int64(len(m.Items)) {
			return problem.New(problem.Malformed, "The receipt has an outcome of item %d, which the batch does not have.", o.Item)
		}
		if it := m.Items[o.Item]; o.Outcome == Stored && o.Hash.Hash() != it.Hash {
			return problem.New(problem.Malformed, "The outcome of item %d has the value hash %s, and %s was asked for.", o.Item,
				problem.Quote(string(o.Hash.Hash())), problem.Quote(string(it.Hash)))
		}
	}
	return nil
}
