package agent

import (
	"crypto/md5"  // for those who compare objects by it elsewhere: it secures nothing here
	"crypto/sha1" // likewise
	"crypto/sha256"
	"crypto/sha512"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// sha256Prefix begins the digests of the algorithm that an order may name beside BLAKE3.
const sha256Prefix = "sha256:"

// wantsSHA256 reports whether order or manifest say what the object hashes to by SHA-256.
func wantsSHA256(it token.Item) bool { return strings.HasPrefix(string(it.Digest), sha256Prefix) }

// sums are the hashes of one object beside BLAKE3. They take its bytes in order. Their state can be kept and taken up
// again, so that no byte is hashed twice. They belong to one goroutine.
type sums []sum

type sum struct {
	name token.ValueHash
	hash.Hash
}

// digestSums names what the digest of an item takes: nothing if it is BLAKE3 or none.
func digestSums(it token.Item) []token.ValueHash {
	if wantsSHA256(it) {
		return []token.ValueHash{token.SHA256}
	}
	return nil
}

// sumsOf names what is to be computed of an item that is stored: what its digest takes, and its value hash.
func sumsOf(it token.Item) []token.ValueHash {
	names := digestSums(it)
	if it.Hash != "" && !slices.Contains(names, it.Hash) {
		names = append(names, it.Hash)
	}
	return names
}

// newSums begins hashes of those names, or goes on from a state of them that is not empty. It fails with problem.PolicyRefused if the platform
// does not let us compute one, as in Go's FIPS 140-only mode, and with journal.ErrCorrupt if state is not one of them.
func newSums(names []token.ValueHash, state []byte) (sums, error) {
	s := make(sums, len(names))
	for i, name := range names {
		h, err := newSum(name)
		if err != nil {
			return nil, err
		}
		s[i] = sum{name, h}
	}
	if len(state) == 0 {
		return s, nil
	}
	for _, h := range s {
		if len(state) < 2 || len(state)-2 < int(binary.BigEndian.Uint16(state)) {
			return nil, fmt.Errorf("taking up the state of %s: %w", h.name, journal.ErrCorrupt)
		}
		n := 2 + int(binary.BigEndian.Uint16(state))
		if err := h.Hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(state[2:n]); err != nil {
			return nil, fmt.Errorf("taking up the state of %s: %w: %w", h.name, journal.ErrCorrupt, err)
		}
		state = state[n:]
	}
	if len(state) > 0 {
		return nil, fmt.Errorf("taking up the state of hashes: %d bytes are left: %w", len(state), journal.ErrCorrupt)
	}
	return s, nil
}

func newSum(name token.ValueHash) (h hash.Hash, err error) {
	switch name {
	case token.MD5:
		h = md5.New()
	case token.SHA160:
		h = sha1.New()
	case token.SHA256:
		h = sha256.New()
	case token.SHA384:
		h = sha512.New384()
	case token.SHA512:
		h = sha512.New()
	default:
		return nil, problem.New(problem.PolicyRefused, "The agent does not know the value hash %q", name)
	}
	if _, err := h.Write(nil); err != nil {
		return nil, problem.Wrap(err, problem.PolicyRefused, "The agent may not compute %s where it runs", name)
	}
	return h, nil
}

// write takes the next bytes.
func (s sums) write(data []byte) {
	for _, h := range s {
		h.Write(data)
	}
}

// state is what newSums goes on from: of each hash its length u16 and its state.
func (s sums) state() ([]byte, error) {
	var b []byte
	for _, h := range s {
		one, err := h.Hash.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("keeping the state of %s: %w", h.name, err)
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(one))), one...)
	}
	return b, nil
}

// value is the output of one of them; empty if it is none of them.
func (s sums) value(name token.ValueHash) token.ValueDigest {
	for _, h := range s {
		if h.name == name {
			return token.ValueDigest(string(name) + ":" + hex.EncodeToString(h.Sum(nil)))
		}
	}
	return ""
}

// digest is the output of SHA-256 as a digest.
func (s sums) digest() token.Digest {
	return token.Digest(sha256Prefix + s.value(token.SHA256).Base16())
}
