package issue

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Limits of join tokens.
const (
	TokenLife    = 10 * time.Minute   // default
	MaxTokenLife = 7 * 24 * time.Hour // longest
	MaxTokenSize = 1 << 10            // bytes of its text

	tokenPrefix = "consign-join-1"
	secretSize  = 32                  // bytes
	keepTokens  = 30 * 24 * time.Hour // after their end, so that a late second use is still told
)

// A JoinToken is the text of a token, taken apart. It prints without its secret.
type JoinToken struct {
	Root    token.Hash // of the authority's root certificate
	Address string     // host:port of its listener
	secret  secret
}

// String hides the secret.
func (t JoinToken) String() string { return "join token for " + t.Address }

// GoString hides the secret.
func (t JoinToken) GoString() string { return t.String() }

type secret [secretSize]byte

// file is the name under which the authority knows the secret.
func (s secret) file() string {
	sum := sha256.Sum256(s[:])
	return hex.EncodeToString(sum[:])
}

func (s secret) text() string { return base64.RawURLEncoding.EncodeToString(s[:]) }

func parseSecret(text string) (s secret, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != secretSize || base64.RawURLEncoding.EncodeToString(b) != text {
		return s, problem.New(problem.JoinRefused, "")
	}
	return secret(b), nil
}

// ParseToken reads the text that NewToken made. Anything else is problem.JoinRefused,
// whose sentence does not repeat it.
func ParseToken(text string) (JoinToken, error) {
	refused := problem.New(problem.JoinRefused, "This is not the text of a join token.")
	f := strings.Split(text, ".")
	if len(text) > MaxTokenSize || len(f) != 4 || f[0] != tokenPrefix {
		return JoinToken{}, refused
	}
	s, err := parseSecret(f[1])
	if err != nil {
		return JoinToken{}, refused
	}
	root := token.Hash(f[2])
	address, err := base64.RawURLEncoding.Strict().DecodeString(f[3])
	if root.Check() != nil || err != nil || checkAddress(string(address)) != nil {
		return JoinToken{}, refused
	}
	return JoinToken{Root: root, Address: string(address), secret: s}, nil
}

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "" || len(address) > 300 || strings.ContainsAny(address, "/@?#\\ ") {
		return problem.New(problem.Malformed, "The address of the authority is not of the form host:port.")
	}
	return nil
}

// grant is what a token is good for. It is a file named by the hash of the secret.
type grant struct {
	Role    token.Role `json:"role"`
	Name    string     `json:"name"`
	Life    int64      `json:"life"`    // seconds, of the certificate
	Expires int64      `json:"expires"` // seconds since 1970 UTC, of the token
}

// NewToken makes a token with which req can join once, at the listener with the given
// address (host:port), within ttl (0 is TokenLife, MaxTokenLife the longest). The text is
// the only copy of the secret. A server over the same directory honours it at once.
func (c *CA) NewToken(req Request, address string, ttl time.Duration, now time.Time) (string, error) {
	_, _, life, err := c.check(req)
	if err != nil {
		return "", err
	}
	if err := checkAddress(address); err != nil {
		return "", err
	}
	if ttl == 0 {
		ttl = TokenLife
	}
	if ttl < time.Second || ttl > MaxTokenLife {
		return "", problem.New(problem.Malformed, "The life of a join token must be between 1s and %s.", MaxTokenLife)
	}
	if err := c.pruneTokens(now); err != nil {
		return "", fmt.Errorf("pruning join tokens: %w", err)
	}
	var s secret
	rand.Read(s[:]) // never fails
	data, err := json.Marshal(grant{Role: req.Role, Name: req.Name, Life: int64(life / time.Second), Expires: now.Add(ttl).Unix()})
	if err != nil {
		return "", fmt.Errorf("encoding a join token: %w", err)
	}
	if err := certs.ReplaceFile(c.tokenFile(s.file(), ".json"), data, 0o600); err != nil {
		return "", fmt.Errorf("keeping a join token: %w", err)
	}
	return strings.Join([]string{tokenPrefix, s.text(), string(c.Fingerprint()),
		base64.RawURLEncoding.EncodeToString([]byte(address))}, "."), nil
}

func (c *CA) tokenFile(name, ext string) string { return filepath.Join(c.dir, tokenDir, name+ext) }

// redeem spends a token for name (empty: whatever it is for). When it returns a grant
// without an error, this caller and no other ever may act on it. With problem.JoinSpent the grant says whose
// token was used again.
func (c *CA) redeem(s secret, name string, now time.Time) (grant, error) {
	g, err := c.readGrant(s.file())
	if err != nil {
		return grant{}, err
	}
	spent := c.tokenFile(s.file(), ".spent")
	if _, err := os.Stat(spent); err == nil {
		return g, problem.New(problem.JoinSpent, "")
	} else if !errors.Is(err, fs.ErrNotExist) {
		return grant{}, fmt.Errorf("looking for the mark of a spent token: %w", err)
	}
	if now.Unix() >= g.Expires {
		return grant{}, problem.New(problem.JoinRefused, "")
	}
	if name != "" && name != g.Name {
		return grant{}, problem.New(problem.JoinRefused, "The join token is for another name.")
	}
	err = certs.CreateFile(spent, []byte(now.UTC().Format(time.RFC3339)+"\n"), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return g, problem.New(problem.JoinSpent, "")
	} else if err != nil {
		return grant{}, fmt.Errorf("marking a token as spent: %w", err)
	}
	// Durable from here: whatever happens next, the token is spent.
	return g, nil
}

func (c *CA) readGrant(name string) (g grant, err error) {
	data, err := os.ReadFile(c.tokenFile(name, ".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return grant{}, problem.New(problem.JoinRefused, "")
	} else if err != nil {
		return grant{}, fmt.Errorf("reading a join token: %w", err)
	}
	if err := json.Unmarshal(data, &g); err != nil {
		return grant{}, fmt.Errorf("reading a join token: %w", err)
	}
	return g, nil
}

// pruneTokens forgets tokens long past their end, the mark before the grant, so that a token
// without its mark is never left usable: it is expired either way.
func (c *CA) pruneTokens(now time.Time) error {
	files, err := filepath.Glob(c.tokenFile("*", ".json"))
	if err != nil {
		return err
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		g, err := c.readGrant(name)
		if problem.Of(err) == problem.JoinRefused {
			continue // another process pruned it
		} else if err != nil {
			return err
		}
		if now.Before(time.Unix(g.Expires, 0).Add(keepTokens)) {
			continue
		}
		for _, ext := range []string{".spent", ".json"} {
			if err := os.Remove(c.tokenFile(name, ext)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
