package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Trust holds the roots of each trust domain. They are never pooled: a chain is judged
// by the roots of the one domain that its leaf claims, compared exactly.
type Trust struct {
	files map[token.Provider]string
	mu    sync.Mutex // guards seen, and makes Reload one at a time
	seen  map[token.Provider]os.FileInfo
	pools atomic.Pointer[map[token.Provider]*x509.CertPool]
}

// OpenTrust reads the PEM bundle of each provider. Each must hold 1 to MaxRoots
// certificates, all of them authorities, and no key may stand for two providers.
// It fails with problem.BadConfig, whose sentence names the provider.
func OpenTrust(files map[token.Provider]string) (*Trust, error) {
	t := &Trust{files: maps.Clone(files)}
	t.pools.Store(&map[token.Provider]*x509.CertPool{})
	if _, err := t.Reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// NewTrust returns a Trust in the given roots, which has no files to read again. The
// caller vouches for them.
func NewTrust(roots map[token.Provider][]*x509.Certificate) *Trust {
	t := &Trust{}
	pools := make(map[token.Provider]*x509.CertPool, len(roots))
	for p, certs := range roots {
		pools[p] = poolOf(certs)
	}
	t.pools.Store(&pools)
	return t
}

// Providers returns the trust domains that have roots, sorted.
func (t *Trust) Providers() []token.Provider {
	return slices.Sorted(maps.Keys(*t.pools.Load()))
}

// Reload reads all bundles again if one of their files has changed. It reports whether new roots
// are in use; on an error the old ones of all providers stay.
func (t *Trust) Reload() (changed bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen, same := make(map[token.Provider]os.FileInfo, len(t.files)), t.seen != nil
	for p, file := range t.files {
		st, err := os.Stat(file)
		if err != nil {
			return false, problem.Wrap(err, problem.BadConfig, "The trust bundle of provider %q cannot be read.", p)
		}
		seen[p] = st
		same = same && unchanged(t.seen[p], st)
	}
	if same {
		return false, nil
	}
	pools := make(map[token.Provider]*x509.CertPool, len(t.files))
	owner := map[[sha256.Size]byte]token.Provider{}
	for _, p := range slices.Sorted(maps.Keys(t.files)) {
		roots, err := readRoots(p, t.files[p])
		if err != nil {
			return false, err
		}
		for _, r := range roots {
			key := sha256.Sum256(r.RawSubjectPublicKeyInfo)
			if o, taken := owner[key]; taken && o != p {
				return false, problem.New(problem.BadConfig, "The trust bundles of providers %q and %q hold the same authority, which could then name anybody of both.", o, p)
			}
			owner[key] = p
		}
		pools[p] = poolOf(roots)
	}
	old := *t.pools.Load()
	t.pools.Store(&pools)
	t.seen = seen
	return !maps.EqualFunc(old, pools, (*x509.CertPool).Equal), nil
}

func poolOf(roots []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	return pool
}

// ParseRoots reads a trust bundle from PEM: 1 to MaxRoots certificates, all of them
// authorities. It fails with problem.TooLarge or problem.Malformed.
func ParseRoots(data []byte) ([]*x509.Certificate, error) {
	if len(data) > MaxFileSize {
		return nil, problem.New(problem.TooLarge, "The trust bundle is larger than %d bytes.", MaxFileSize)
	}
	ders, err := blocks(data, MaxRoots)
	if err != nil {
		return nil, err
	}
	if len(ders) == 0 {
		return nil, problem.New(problem.Malformed, "There is no certificate in the trust bundle.")
	}
	roots := make([]*x509.Certificate, 0, len(ders))
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "Certificate %d of the trust bundle cannot be read.", i+1)
		}
		if !c.BasicConstraintsValid || !c.IsCA {
			return nil, problem.New(problem.Malformed, "Certificate %d of the trust bundle is not an authority's.", i+1)
		}
		roots = append(roots, c)
	}
	return roots, nil
}

func readRoots(p token.Provider, file string) ([]*x509.Certificate, error) {
	if err := token.CheckProvider(p); err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "A trust bundle is configured for %q, which is not the name of a provider.", p)
	}
	data, err := readFile(file)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The trust bundle of provider %q cannot be read.", p)
	}
	roots, err := ParseRoots(data)
	if err != nil {
		return nil, problem.Wrap(fmt.Errorf("reading %s: %w", file, err), problem.BadConfig,
			"The trust bundle of provider %q is not good: %s", p, problem.As(err).Sentence())
	}
	return roots, nil
}

// readFile reads a file of at most MaxFileSize bytes.
func readFile(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > MaxFileSize {
		return nil, fmt.Errorf("reading %s: more than %d bytes", file, MaxFileSize)
	}
	return data, nil
}

// unchanged reports whether two looks at a file saw the same inode, size and mtime.
func unchanged(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// Verify returns the identity of a chain that is good at the given time. The outcomes
// are those of the package doc. To judge a statement, give the time at which it was
// made; to judge a connection, the present.
//
// The leaf must name its usage explicitly: client and server authentication for an
// agent, server authentication for a broker, client authentication for a subscriber.
func (t *Trust) Verify(chain Chain, at time.Time) (token.Identity, error) {
	id, err := t.verify(chain, at)
	if err != nil {
		return "", err
	}
	return id, nil
}

// verify is Verify, but returns the identity also with CertExpired and CertNotYet,
// whose chains are good at another time.
func (t *Trust) verify(chain Chain, at time.Time) (token.Identity, error) {
	if len(chain) == 0 {
		return "", problem.New(problem.CertMissing, "")
	}
	if at.IsZero() {
		return "", errors.New("verifying a chain: no time was given")
	}
	if err := chain.check(); err != nil {
		return "", err
	}
	id, err := IdentityOf(chain[0])
	if err != nil {
		return "", err
	}
	if err := CheckKey(chain[0].PublicKey); err != nil {
		return "", err
	}
	roots := (*t.pools.Load())[id.Provider()]
	if roots == nil {
		return "", problem.New(problem.CertUnknown, "No authority is trusted for the domain that the certificate names.")
	}
	usages := usagesOf(id.Role())
	for _, u := range usages {
		if !slices.Contains(chain[0].ExtKeyUsage, u) {
			return "", problem.New(problem.CertMisused, "The certificate of an identity of role %q must be made for %s.", id.Role(), usageText(usages))
		}
	}
	j := judgement{chain: chain, roots: roots, usages: usages, at: at}
	if _, err = j.verify(at); err == nil {
		return id, nil
	}
	if fault := j.timeFault("The certificate of " + string(id)); fault != nil {
		return id, fault
	}
	return "", problem.Wrap(err, problem.CertUnknown, "")
}

func usagesOf(r token.Role) []x509.ExtKeyUsage {
	switch r {
	case token.Agent:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	case token.Broker:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
}

func usageText(us []x509.ExtKeyUsage) string {
	switch {
	case len(us) == 2:
		return "client and server authentication"
	case us[0] == x509.ExtKeyUsageServerAuth:
		return "server authentication"
	}
	return "client authentication"
}

// A judgement is one chain before one set of roots.
type judgement struct {
	chain  Chain
	roots  *x509.CertPool
	usages []x509.ExtKeyUsage
	at     time.Time
}

// verify builds a path at the given time for each usage, and returns the last.
func (j judgement) verify(at time.Time) (path Chain, err error) {
	between := x509.NewCertPool()
	for _, c := range j.chain[1:] {
		between.AddCert(c)
	}
	for _, u := range j.usages {
		paths, err := j.chain[0].Verify(x509.VerifyOptions{
			Roots: j.roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{u},
		})
		if err != nil {
			return nil, err
		}
		path = paths[0]
	}
	return path, nil
}

// timeFault returns the problem that explains a chain which is bad now and good at
// another time of its leaf's life, or nil if it is not such a chain. A stranger's never is.
func (j judgement) timeFault(subject string) error {
	leaf := j.chain[0]
	for _, t := range []time.Time{leaf.NotAfter.Add(-time.Second), leaf.NotBefore.Add(time.Second)} {
		path, err := j.verify(t)
		if err != nil {
			continue
		}
		if err := outside(subject, leaf, j.at); err != nil {
			return err
		}
		for _, c := range path[1:] {
			if err := outside(subject+" is good, but that of an authority above it", c, j.at); err != nil {
				return err
			}
		}
	}
	return nil
}
