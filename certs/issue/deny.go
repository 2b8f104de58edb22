package issue

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Deny ends the renewal of every key that was certified for id so far, durably, and returns how many
// keys these are. Certificates that are out are on the next CRL, and stay good for who has none. The actor comes back by joining
// with a new token, which makes a new key. Denying again does no harm. A server over the same
// directory obeys at once. An id that was never certified is problem.NotFound.
func (c *CA) Deny(id token.Identity) (keys int, err error) {
	f, err := os.Open(filepath.Join(c.dir, issuedFile))
	if err != nil {
		return 0, fmt.Errorf("reading the log of certificates: %w", err)
	}
	defer f.Close()
	seen := map[token.Hash]bool{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var i issued
		if err := json.Unmarshal(lines.Bytes(), &i); err != nil {
			return 0, fmt.Errorf("reading the log of certificates: %w", err)
		}
		if i.Identity != string(id) || seen[i.Key] {
			continue
		}
		seen[i.Key] = true
		if err := certs.CreateFile(c.deniedFile(i.Key), nil, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
			return 0, fmt.Errorf("denying a key: %w", err)
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("reading the log of certificates: %w", err)
	}
	if len(seen) == 0 {
		return 0, problem.New(problem.NotFound, "No certificate was issued to %s.", id)
	}
	return len(seen), nil
}

// checkDenied refuses a key that Deny named with problem.NotPermitted.
func (c *CA) checkDenied(key token.Hash) error {
	_, err := os.Stat(c.deniedFile(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("looking for a denied key: %w", err)
	}
	return &problem.Error{
		Code: problem.NotPermitted, Detail: "The provider's operator has ended the renewal of this certificate.",
		Remedy: "Ask the operator for a join token.",
	}
}

func (c *CA) deniedFile(key token.Hash) string { return filepath.Join(c.dir, deniedDir, string(key)) }
