package localnet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/issue"
	"github.com/consign-transfer/consign/token"
)

// An authority is the CA of one trust domain and the file of its bundle.
type authority struct {
	ca     *issue.CA // nil: it is run by somebody else
	bundle string
}

// AddForeign makes the trust domain of a provider whose authority is run by somebody else: bundle is the file of its
// roots. The certificates of its agents and accounts are not made; they belong where AddAgent and Account say.
func (n *Net) AddForeign(p token.Provider, bundle string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.authorities[p] = authority{bundle: bundle}
}

// AddProvider makes the trust domain of a provider with its own authority.
func (n *Net) AddProvider(p token.Provider) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	dir := filepath.Join(n.Dir, "authorities", string(p))
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("making the authority of %s: %w", p, err)
	}
	ca, err := issue.Create(dir, p, time.Now())
	if err != nil {
		return fmt.Errorf("making the authority of %s: %w", p, err)
	}
	bundle := filepath.Join(n.Dir, "authorities", string(p)+".pem")
	if err := os.WriteFile(bundle, ca.Bundle(), 0o600); err != nil {
		return fmt.Errorf("writing the bundle of %s: %w", p, err)
	}
	n.authorities[p] = authority{ca: ca, bundle: bundle}
	return nil
}

// Trust returns the bundle files of all domains added so far.
func (n *Net) Trust() map[token.Provider]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := map[token.Provider]string{}
	for p, a := range n.authorities {
		t[p] = a.bundle
	}
	return t
}

// providers returns the domains added so far, in order; of a broker's domain nobody copies.
func (n *Net) providers() []string {
	var names []string
	for p := range n.Trust() {
		if _, err := os.Stat(filepath.Join(n.Dir, "brokers", string(p))); err != nil {
			names = append(names, string(p))
		}
	}
	slices.Sort(names)
	return names
}

// Account makes certificates of one person, one at each provider, and returns
// their files as configuration has them: cert and key.
func (n *Net) Account(name string, providers ...token.Provider) ([]map[string]string, error) {
	var accounts []map[string]string
	for _, p := range providers {
		pair, err := n.issue(token.NewIdentity(p, token.Subscriber, name), filepath.Join(n.Dir, "subscribers", name, string(p)))
		if err != nil {
			return nil, err
		}
		accounts = append(accounts, pair)
	}
	return accounts, nil
}

// issue writes a certificate and key for id below dir; those of a foreign authority are only named.
func (n *Net) issue(id token.Identity, dir string) (map[string]string, error) {
	n.mu.Lock()
	a, ok := n.authorities[id.Provider()]
	n.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("issuing for %s: the domain was not added", id)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("issuing for %s: %w", id, err)
	}
	if a.ca != nil {
		if _, err := a.ca.IssueFiles(dir, issue.Request{Role: id.Role(), Name: id.Name()}, time.Now()); err != nil {
			return nil, fmt.Errorf("issuing for %s: %w", id, err)
		}
	}
	return map[string]string{"cert": filepath.Join(dir, "cert.pem"), "key": filepath.Join(dir, "key.pem")}, nil
}

// A KeyChoice is which key a certificate is for that replaces another.
type KeyChoice int

const (
	// KeepKey is what a renewal does.
	KeepKey KeyChoice = iota
	// NewKey is what somebody does who joins again. The key's file is replaced before the certificate's, so that whoever
	// looks in between sees files that do not fit.
	NewKey
)

// Rotate replaces the certificate in a file by another of the same identity, of the given life, and returns its end.
func (n *Net) Rotate(certFile, keyFile string, choice KeyChoice, life time.Duration) (time.Time, error) {
	pair, err := certs.OpenPair(certFile, keyFile)
	if err != nil {
		return time.Time{}, err
	}
	id, key := pair.Identity(), pair.Signer()
	n.mu.Lock()
	a := n.authorities[id.Provider()]
	n.mu.Unlock()
	if a.ca == nil {
		return time.Time{}, fmt.Errorf("rotating %s: its authority is not ours", id)
	}
	if choice == NewKey {
		if key, err = replaceKey(keyFile); err != nil {
			return time.Time{}, fmt.Errorf("rotating %s: %w", id, err)
		}
	}
	chain, err := a.ca.Issue(key.Public(), issue.Request{Role: id.Role(), Name: id.Name(), Life: life}, time.Now())
	if err != nil {
		return time.Time{}, err
	}
	if err := certs.ReplaceFile(certFile, chain.PEM(), 0o600); err != nil {
		return time.Time{}, fmt.Errorf("rotating %s: %w", id, err)
	}
	return chain.Leaf().NotAfter, nil
}

func replaceKey(file string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, certs.ReplaceFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func writeYAML(file string, v any) error {
	b, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", filepath.Base(file), err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("making the folder of %s: %w", filepath.Base(file), err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(file), err)
	}
	return nil
}
