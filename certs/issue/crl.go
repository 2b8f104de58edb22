package issue

import (
	"bufio"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	// CRLPath is where the authority publishes its revocation list.
	CRLPath = "/v1/crl"

	crlLife  = 24 * time.Hour // until the next list is there at the latest
	crlEvery = time.Minute    // between two lists that the listener makes
)

// CRL returns a revocation list in PEM: the certificates, not past their end, of every key that Deny has named, as of the moment it did.
// Its number is the second in which it is made. With more than certs.MaxRevoked of them it fails with problem.TooLarge.
func (c *CA) CRL(now time.Time) ([]byte, error) {
	revoked, err := c.revoked(now)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.RevocationList{
		Number: big.NewInt(now.Unix()), ThisUpdate: now.Add(-backdate), NextUpdate: now.Add(crlLife), RevokedCertificateEntries: revoked,
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, c.root, c.key)
	if err != nil {
		return nil, fmt.Errorf("signing a revocation list: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}

// revoked reads the log for the certificates of denied keys.
func (c *CA) revoked(now time.Time) ([]x509.RevocationListEntry, error) {
	denied, err := os.ReadDir(filepath.Join(c.dir, deniedDir))
	if err != nil {
		return nil, fmt.Errorf("looking for denied keys: %w", err)
	}
	since := make(map[token.Hash]time.Time, len(denied))
	for _, d := range denied {
		st, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("looking for denied keys: %w", err)
		}
		since[token.Hash(d.Name())] = st.ModTime() // it is written once
	}
	if len(since) == 0 {
		return nil, nil
	}
	f, err := os.Open(filepath.Join(c.dir, issuedFile))
	if err != nil {
		return nil, fmt.Errorf("reading the log of certificates: %w", err)
	}
	defer f.Close()
	var out []x509.RevocationListEntry
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var i issued
		if err := json.Unmarshal(lines.Bytes(), &i); err != nil {
			return nil, fmt.Errorf("reading the log of certificates: %w", err)
		}
		at, yes := since[i.Key]
		if !yes {
			continue
		}
		end, err := time.Parse(time.RFC3339, i.NotAfter)
		serial, ok := new(big.Int).SetString(i.Serial, 16)
		if err != nil || !ok {
			return nil, problem.New(problem.BadConfig, "The log of certificates has a line that cannot be read.")
		}
		if now.After(end) {
			continue
		}
		if len(out) == certs.MaxRevoked {
			return nil, problem.New(problem.TooLarge, "More than %d certificates are revoked.", certs.MaxRevoked)
		}
		out = append(out, x509.RevocationListEntry{SerialNumber: serial, RevocationTime: at})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading the log of certificates: %w", err)
	}
	return out, nil
}

// recentCRL is CRL, made at most once every crlEvery, so that nobody can have the authority sign without end.
func (c *CA) recentCRL(now time.Time) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := now.Sub(c.listed); c.list != nil && age >= 0 && age < crlEvery {
		return c.list, nil
	}
	list, err := c.CRL(now)
	if err != nil {
		return nil, err
	}
	c.list, c.listed = list, now
	return list, nil
}
