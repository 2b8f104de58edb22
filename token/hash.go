package token

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"

	"github.com/consign-transfer/consign/token/problem"
	"golang.org/x/mod/sumdb/tlog"
)

// strict64 is base64url without padding that refuses spare bits which are not zero.
var strict64 = base64.RawURLEncoding.Strict()

// HashOf returns SHA-256 of b.
func HashOf(b []byte) Hash {
	sum := sha256.Sum256(b)
	return Hash(strict64.EncodeToString(sum[:]))
}

// Check reports whether h is 32 bytes in unpadded base64url: nil or problem.Malformed.
func (h Hash) Check() error {
	if len(h) == 43 && only(string(h), is64) {
		if b, err := strict64.DecodeString(string(h)); err == nil && len(b) == sha256.Size {
			return nil
		}
	}
	return problem.New(problem.Malformed, "The hash %s is not 43 characters of base64url.", problem.Quote(string(h)))
}

func is64(c byte) bool { return isPathByte(c) && c != '.' }

// ParseDigest returns s as a digest, or problem.Malformed. The empty string is
// refused: none is the absence of a digest, not one of its spellings.
func ParseDigest(s string) (Digest, error) {
	alg, sum, ok := strings.Cut(s, ":")
	if !ok || alg != "blake3" && alg != "sha256" || len(sum) != 64 || !only(sum, isHexByte) {
		return "", problem.New(problem.Malformed, "The digest %s is not blake3: or sha256: and 64 lower-case hexadecimal digits.", problem.Quote(s))
	}
	return Digest(s), nil
}

func isHexByte(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }

// Check reports whether d is a digest or none: nil or problem.Malformed.
func (d Digest) Check() error {
	if d == "" {
		return nil
	}
	_, err := ParseDigest(string(d))
	return err
}

// OutcomesRoot returns the root of the RFC 6962 tree over lines, which is SHA-256
// of nothing for no lines.
func OutcomesRoot(lines [][]byte) (Hash, error) {
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, x := range at {
			out[i] = stored[x]
		}
		return out, nil
	})
	for n, line := range lines {
		h, err := tlog.StoredHashes(int64(n), line, read)
		if err != nil {
			return "", problem.Wrap(err, problem.Internal, "Hashing outcome %d did not work.", n)
		}
		stored = append(stored, h...)
	}
	if len(lines) == 0 {
		return HashOf(nil), nil
	}
	root, err := tlog.TreeHash(int64(len(lines)), read)
	if err != nil {
		return "", problem.Wrap(err, problem.Internal, "Hashing the outcomes did not work.")
	}
	return Hash(strict64.EncodeToString(root[:])), nil
}
