package localnet

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/consign-transfer/consign/certs/issue"
	"github.com/consign-transfer/consign/token"
)

// An authority is the CA of one trust domain and the file of its bundle.
type authority struct {
	ca     *issue.CA
	bundle string
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

// issue writes a certificate and key for id below dir.
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
	if _, err := a.ca.IssueFiles(dir, issue.Request{Role: id.Role(), Name: id.Name()}, time.Now()); err != nil {
		return nil, fmt.Errorf("issuing for %s: %w", id, err)
	}
	return map[string]string{"cert": filepath.Join(dir, "cert.pem"), "key": filepath.Join(dir, "key.pem")}, nil
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
