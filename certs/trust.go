package certs

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Trust holds, for each trust domain, its roots, its lists of revoked certificates and whose its plain certificates are; and a
// list of who is denied. Domains are never pooled: a chain is judged by the roots and lists of the one domain that its leaf
// claims, compared exactly, or that maps it.
type Trust struct {
	stale StalePolicy
	view  atomic.Pointer[view]

	mu      sync.Mutex // guards all below, and makes Reload one at a time
	bundles map[token.Provider]*source
	crls    map[token.Provider]*source
	subs    map[token.Provider]*source
	deny    *source       // nil: none
	changed chan struct{} // closed and replaced when view changes
}

// A view is one state of a Trust. It is never changed.
type view struct {
	domains map[token.Provider]*domain
	denied  *denied // nil: nobody
}

// A domain is what is held of one trust domain. It is never changed.
type domain struct {
	name  token.Provider
	stale StalePolicy
	roots []*x509.Certificate
	pool  *x509.CertPool
	// sequence is the number of the bundle that the roots are from; 0 is none.
	sequence uint64
	lists    map[authority]*list
	// accounts are the holders of plain certificates; nil: the domain has no file of them.
	accounts map[principal]token.Identity
}

// TrustFiles are the files behind a Trust. Each is read again when it changes, for itself: what is
// not good does not come into use, keeps nothing else from coming into use, and leaves in use what was before.
type TrustFiles struct {
	// Bundles are the roots of each trust domain, as ParseBundle reads them. No key may stand for two domains.
	Bundles map[token.Provider]string
	// CRLs are the lists of revoked certificates of domains that have a bundle. Optional.
	CRLs map[token.Provider]string
	// Stale says what becomes of certificates whose list is past its end. The zero value is RefuseStale.
	Stale StalePolicy
	// Denied is the operator's own list of identities and serial numbers that are refused. Optional.
	Denied string
	// Subscribers are files of domains that have a bundle: they say whose the plain certificates of their
	// authorities are, those without a SPIFFE name. Optional.
	Subscribers map[token.Provider]string
}

// OpenTrust reads the bundle of each provider and nothing else. It fails as TrustFiles.Open does.
func OpenTrust(bundles map[token.Provider]string) (*Trust, error) {
	return TrustFiles{Bundles: bundles}.Open()
}

// Open reads all files. Every one of them must be good; it fails with problem.BadConfig, whose sentence names the provider.
func (f TrustFiles) Open() (*Trust, error) {
	if f.Stale != RefuseStale && f.Stale != AcceptStale {
		return nil, problem.New(problem.BadConfig, "What to do with a stale revocation list is %q and must be %q or %q.", f.Stale, RefuseStale, AcceptStale)
	}
	t := newTrust(f.Stale)
	for p, file := range f.Bundles {
		if err := token.CheckProvider(p); err != nil {
			return nil, problem.Wrap(err, problem.BadConfig, "A trust bundle is configured for %q, which is not the name of a provider.", p)
		}
		t.bundles[p] = &source{file: file}
	}
	for p, file := range f.CRLs {
		if t.bundles[p] == nil {
			return nil, problem.New(problem.BadConfig, "A revocation list is configured for %q, which has no trust bundle.", p)
		}
		t.crls[p] = &source{file: file}
	}
	for p, file := range f.Subscribers {
		if t.bundles[p] == nil {
			return nil, problem.New(problem.BadConfig, "A file of subscribers is configured for %q, which has no trust bundle.", p)
		}
		t.subs[p] = &source{file: file}
	}
	if f.Denied != "" {
		t.deny = &source{file: f.Denied}
	}
	if _, err := t.Reload(); err != nil {
		return nil, err
	}
	return t, nil
}

// NewTrust returns a Trust in the given roots, which has no files to read again. The
// caller vouches for them.
func NewTrust(roots map[token.Provider][]*x509.Certificate) *Trust {
	t := newTrust(RefuseStale)
	v := &view{domains: make(map[token.Provider]*domain, len(roots))}
	for p, certs := range roots {
		v.domains[p] = &domain{name: p, roots: certs, pool: poolOf(certs)}
	}
	t.view.Store(v)
	return t
}

func newTrust(stale StalePolicy) *Trust {
	t := &Trust{
		stale: stale, bundles: map[token.Provider]*source{}, crls: map[token.Provider]*source{}, subs: map[token.Provider]*source{},
		changed: make(chan struct{}),
	}
	t.view.Store(&view{domains: map[token.Provider]*domain{}})
	return t
}

// Providers returns the trust domains that have roots, sorted.
func (t *Trust) Providers() []token.Provider {
	return slices.Sorted(maps.Keys(t.view.Load().domains))
}

// Changed returns a channel that is closed when something else is trusted than now. Who waits for it asks for it before
// looking at what is trusted.
func (t *Trust) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// Reload reads again each file that has changed. It reports whether anything new is in use, which can be so although
// another file is not good; the error is of all those that are not.
func (t *Trust) Reload() (changed bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.view.Load().clone()
	var errs []error
	note := func(used bool, err error) {
		changed = changed || used
		errs = append(errs, err)
	}
	for _, p := range slices.Sorted(maps.Keys(t.bundles)) {
		note(t.reloadBundle(next, p))
	}
	for _, p := range slices.Sorted(maps.Keys(t.crls)) {
		note(t.reloadCRL(next, p))
	}
	for _, p := range slices.Sorted(maps.Keys(t.subs)) {
		note(t.reloadAccounts(next, p))
	}
	if t.deny != nil {
		note(t.reloadDenied(next))
	}
	t.view.Store(next) // also when only a number has changed
	if changed {
		close(t.changed)
		t.changed = make(chan struct{})
	}
	return changed, errors.Join(errs...)
}

func (v *view) clone() *view { return &view{domains: maps.Clone(v.domains), denied: v.denied} }

// with returns a copy of d, or a new domain if d is nil, after change.
func (d *domain) with(change func(*domain)) *domain {
	next := &domain{}
	if d != nil {
		*next = *d
	}
	change(next)
	return next
}

func (t *Trust) reloadBundle(next *view, p token.Provider) (used bool, err error) {
	src := t.bundles[p]
	got, err := src.read(MaxFileSize)
	if err != nil {
		return false, problem.Wrap(err, problem.BadConfig, "The trust bundle of provider %q cannot be read.", p)
	}
	if got == nil {
		return false, nil
	}
	b, err := next.checkBundle(p, got.data)
	if err != nil {
		return false, fmt.Errorf("reading %s: %w", src.file, err)
	}
	src.use(got)
	old := next.domains[p]
	next.domains[p] = old.with(func(d *domain) {
		d.name, d.stale, d.roots, d.pool, d.sequence = p, t.stale, b.Roots, poolOf(b.Roots), b.Sequence
	})
	return old == nil || !old.pool.Equal(next.domains[p].pool), nil
}

// checkBundle reads a bundle that is to be that of p.
func (v *view) checkBundle(p token.Provider, data []byte) (Bundle, error) {
	b, err := ParseBundle(data)
	if err == nil {
		err = b.checkDomain(p)
	}
	if err == nil {
		err = v.checkRoots(p, b.Roots)
	}
	if d := v.domains[p]; err == nil && d != nil && b.spiffe && b.Sequence < d.sequence {
		err = problem.New(problem.Malformed, "It has the number %d and is older than the one in use, which has %d.", b.Sequence, d.sequence)
	}
	if err != nil {
		return Bundle{}, problem.Wrap(err, problem.BadConfig, "The trust bundle of provider %q is not good: %s", p, problem.As(err).Sentence())
	}
	return b, nil
}

// Replace puts a newer SPIFFE bundle of p, which came from elsewhere, into its file, durably, and into use. It reports whether it
// differs from what was in use. One that is not good, or not p's, changes neither; it fails with problem.BadConfig.
func (t *Trust) Replace(p token.Provider, bundle []byte) (changed bool, err error) {
	if err := t.replace(p, bundle); err != nil {
		return false, err
	}
	return t.Reload()
}

func (t *Trust) replace(p token.Provider, bundle []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	src := t.bundles[p]
	if src == nil {
		return problem.New(problem.BadConfig, "There is no file for the trust bundle of provider %q.", p)
	}
	b, err := t.view.Load().checkBundle(p, bundle)
	if err != nil {
		return err
	}
	if !b.spiffe {
		return problem.New(problem.BadConfig, "The trust bundle of provider %q is not a SPIFFE bundle.", p)
	}
	if src.seen != nil && sha256.Sum256(bundle) == src.sum {
		return nil
	}
	if err := ReplaceFile(src.file, bundle, 0o644); err != nil {
		return problem.Wrap(err, problem.BadConfig, "The trust bundle of provider %q cannot be written.", p)
	}
	return nil
}

// checkRoots refuses roots for p of which one is trusted for another domain.
func (v *view) checkRoots(p token.Provider, roots []*x509.Certificate) error {
	for _, r := range roots {
		for _, o := range slices.Sorted(maps.Keys(v.domains)) {
			if o != p && slices.ContainsFunc(v.domains[o].roots, func(x *x509.Certificate) bool { return keyOf(x) == keyOf(r) }) {
				return problem.New(problem.BadConfig, "Those of %q and %q hold the same authority, which could then name anybody of both.", min(o, p), max(o, p))
			}
		}
	}
	return nil
}

// keyOf names the key of a certificate.
func keyOf(c *x509.Certificate) [sha256.Size]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

func (t *Trust) reloadCRL(next *view, p token.Provider) (used bool, err error) {
	src := t.crls[p]
	got, err := src.read(MaxCRLSize)
	if err != nil {
		return false, problem.Wrap(err, problem.BadConfig, "The revocation list of provider %q cannot be read.", p)
	}
	if got == nil || next.domains[p] == nil { // without roots nothing vouches for a list; the bundle's error says so
		return false, nil
	}
	lists, err := next.domains[p].mergeLists(got.data)
	if err != nil {
		return false, problem.Wrap(fmt.Errorf("reading %s: %w", src.file, err), problem.BadConfig,
			"The revocation list of provider %q is not good: %s", p, problem.As(err).Sentence())
	}
	src.use(got)
	next.domains[p] = next.domains[p].with(func(d *domain) { d.lists = lists })
	return true, nil
}

func (t *Trust) reloadAccounts(next *view, p token.Provider) (used bool, err error) {
	src := t.subs[p]
	got, err := src.read(MaxFileSize)
	if err != nil {
		return false, problem.Wrap(err, problem.BadConfig, "The file of subscribers of provider %q cannot be read.", p)
	}
	if got == nil || next.domains[p] == nil {
		return false, nil
	}
	accounts, err := parseAccounts(p, got.data)
	if err == nil {
		err = next.checkAccounts(p, accounts)
	}
	if err != nil {
		return false, problem.Wrap(fmt.Errorf("reading %s: %w", src.file, err), problem.BadConfig,
			"The file of subscribers of provider %q is not good: %s", p, problem.As(err).Sentence())
	}
	src.use(got)
	next.domains[p] = next.domains[p].with(func(d *domain) { d.accounts = accounts })
	return true, nil
}

// checkAccounts refuses accounts of p of which one has the certificate of an account of another domain.
func (v *view) checkAccounts(p token.Provider, accounts map[principal]token.Identity) error {
	for _, o := range slices.Sorted(maps.Keys(v.domains)) {
		for who := range v.domains[o].accounts {
			if _, both := accounts[who]; both && o != p {
				return problem.New(problem.BadConfig, "It gives a certificate to an account of %q that is already one of %q.", p, o)
			}
		}
	}
	return nil
}

// mapping reports whether any domain has a file of plain certificates.
func (v *view) mapping() bool {
	for _, d := range v.domains {
		if d.accounts != nil {
			return true
		}
	}
	return false
}

func (t *Trust) reloadDenied(next *view) (used bool, err error) {
	got, err := t.deny.read(MaxFileSize)
	if err != nil {
		return false, problem.Wrap(err, problem.BadConfig, "The deny list cannot be read.")
	}
	if got == nil {
		return false, nil
	}
	d, err := parseDenied(got.data)
	if err != nil {
		return false, problem.Wrap(fmt.Errorf("reading %s: %w", t.deny.file, err), problem.BadConfig,
			"The deny list is not good: %s", problem.As(err).Sentence())
	}
	t.deny.use(got)
	next.denied = d
	return true, nil
}

// Denied returns problem.IDDenied, with the first of the identities that is on the deny list, or nil. It is for who
// acts on their word of earlier: Verify asks it of itself.
func (t *Trust) Denied(ids ...token.Identity) error {
	v := t.view.Load()
	for _, id := range ids {
		if err := v.denied.identity(id); err != nil {
			return err
		}
	}
	return nil
}

// Stale returns problem.CRLStale, which names the provider and the end, if a list in use is past its end,
// and nil otherwise.
func (t *Trust) Stale(now time.Time) error {
	v := t.view.Load()
	for _, p := range slices.Sorted(maps.Keys(v.domains)) {
		lists := slices.SortedFunc(maps.Values(v.domains[p].lists), func(a, b *list) int { return a.next.Compare(b.next) })
		if len(lists) > 0 && now.After(lists[0].next) {
			return lists[0].stale(p, now)
		}
	}
	return nil
}
