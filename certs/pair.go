package certs

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Pair is our own certificate and its key. It always holds one that was checked: the
// key matches and the leaf names an identity. It may be past its end: Preflight tells.
type Pair struct {
	certFile, keyFile string
	held              crypto.Signer  // the key, if it is in no file
	account           token.Identity // whose a plain certificate is
	mu                sync.Mutex     // guards seen, and makes Reload one at a time
	seen              [2]os.FileInfo // certificate, key
	cur               atomic.Pointer[own]
}

// own is one state of a Pair. It is never changed.
type own struct {
	tls   tls.Certificate
	chain Chain
	id    token.Identity
	key   crypto.Signer
	hash  token.Hash
}

// PairFiles say where a Pair is.
type PairFiles struct {
	Cert string // PEM, leaf first
	// Key is the file of the private key: PKCS #8, SEC 1 or PKCS #1, in PEM. Optional if Held is given.
	Key string
	// Held is the key, if it is in no file but held by a signer. A certificate of another key is refused with problem.SignerFailed.
	Held crypto.Signer
	// Account is whose a plain certificate is, as its provider has said it. Optional: an identity in the certificate. If that
	// has one, it must be the same.
	Account token.Identity
}

// Open reads the files. It fails with problem.BadConfig, or with problem.CertMisused if the certificate
// is no identity. A certificate that is past its end is opened, so that Preflight can explain it.
func (f PairFiles) Open() (*Pair, error) {
	p := &Pair{certFile: f.Cert, keyFile: f.Key, held: f.Held, account: f.Account}
	seen, err := p.look()
	if err != nil {
		return nil, err
	}
	cur, err := p.load()
	if err != nil {
		return nil, err
	}
	p.seen = seen
	p.cur.Store(cur)
	return p, nil
}

// OpenPair reads a certificate that names an identity, and its key, as PairFiles.Open does.
func OpenPair(certFile, keyFile string) (*Pair, error) {
	return PairFiles{Cert: certFile, Key: keyFile}.Open()
}

// OpenHeldPair is OpenPair for a key that is in no file but is held by a signer.
func OpenHeldPair(certFile string, key crypto.Signer) (*Pair, error) {
	return PairFiles{Cert: certFile, Held: key}.Open()
}

// NewPair returns a Pair in memory, which has no files to read again. It fails as OpenPair does.
func NewPair(chain Chain, key crypto.Signer) (*Pair, error) {
	return NewPairOf(chain, key, "")
}

// NewPairOf is NewPair for a plain certificate, which is the account's.
func NewPairOf(chain Chain, key crypto.Signer, account token.Identity) (*Pair, error) {
	cur, err := newOwn(chain, key, account)
	if err != nil {
		return nil, err
	}
	p := &Pair{account: account}
	p.cur.Store(cur)
	return p, nil
}

func newOwn(chain Chain, key crypto.Signer, account token.Identity) (*own, error) {
	if len(chain) == 0 || key == nil {
		return nil, problem.New(problem.BadConfig, "A certificate and its private key are needed.")
	}
	if err := chain.check(); err != nil {
		return nil, err
	}
	if !sameKey(key.Public(), chain[0].PublicKey) {
		return nil, problem.New(problem.BadConfig, "The private key does not belong to the certificate.")
	}
	if err := CheckKey(chain[0].PublicKey); err != nil {
		return nil, err
	}
	id, err := ownIdentity(chain[0], account)
	if err != nil {
		return nil, err
	}
	return &own{
		tls:   tls.Certificate{Certificate: chain.DER(), PrivateKey: key, Leaf: chain[0]},
		chain: chain, id: id, key: key, hash: chain.LeafHash(),
	}, nil
}

// ownIdentity returns whom our leaf names, or the account if it is plain and we were told that it is that.
func ownIdentity(leaf *x509.Certificate, account token.Identity) (token.Identity, error) {
	if account != "" && Plain(leaf) {
		if err := checkAccount(account, account.Provider()); err != nil {
			return "", err
		}
		return account, checkPlain(leaf)
	}
	id, err := IdentityOf(leaf)
	if err == nil && account != "" && id != account {
		return "", problem.New(problem.CertMismatch, "The certificate names %s, and not %s.", id, account)
	}
	return id, err
}

// Reload reads the files again if one of them has changed. It reports whether another
// certificate is in use. The new pair must be good, must name the same identity and must not be
// past its end; otherwise the old one stays and the error says why, at every call until it is mended.
func (p *Pair) Reload() (changed bool, err error) {
	if p.certFile == "" {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	seen, err := p.look()
	if err != nil {
		return false, err
	}
	if unchanged(p.seen[0], seen[0]) && (p.held != nil || unchanged(p.seen[1], seen[1])) {
		return false, nil
	}
	next, err := p.load()
	if err != nil {
		return false, err
	}
	old := p.cur.Load()
	if next.id != old.id {
		return false, problem.New(problem.CertMismatch, "The new certificate names %s and the one in use %s; start again to become somebody else.", next.id, old.id)
	}
	if now := time.Now(); now.After(next.chain[0].NotAfter) {
		return false, next.preflight(now)
	}
	p.cur.Store(next)
	p.seen = seen
	return next.hash != old.hash, nil
}

// look stats both files.
func (p *Pair) look() (seen [2]os.FileInfo, err error) {
	for i, file := range []string{p.certFile, p.keyFile} {
		if file == "" {
			continue // the key is held
		}
		if seen[i], err = os.Stat(file); err != nil {
			return seen, problem.Wrap(err, problem.BadConfig, "The %s file cannot be read.", []string{"certificate", "key"}[i])
		}
	}
	return seen, nil
}

func (p *Pair) load() (*own, error) {
	certPEM, err := readFile(p.certFile)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The certificate file cannot be read.")
	}
	chain, err := ParseChain(certPEM)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", p.certFile, err)
	}
	if p.held != nil {
		return newHeld(chain, p.held, p.account)
	}
	keyPEM, err := readFile(p.keyFile)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The key file cannot be read.")
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The private key cannot be read or does not belong to the certificate.")
	}
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, problem.Wrap(errors.New("not a crypto.Signer"), problem.BadConfig, "The private key cannot sign.")
	}
	return newOwn(chain, key, p.account)
}

// newHeld is newOwn in the words of whoever has a signer.
func newHeld(chain Chain, key crypto.Signer, account token.Identity) (*own, error) {
	if len(chain) > 0 && !sameKey(key.Public(), chain[0].PublicKey) {
		return nil, &problem.Error{
			Code: problem.SignerFailed, Detail: "The signer has another key than that of the certificate.",
			Remedy: "Have the signer use the key that was certified, or name the certificate of its key.",
		}
	}
	return newOwn(chain, key, account)
}

func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// Current returns the certificate for TLS, its chain and its identity, all of one
// moment. The key of the first is a crypto.Signer. The caller must not modify them.
func (p *Pair) Current() (tls.Certificate, Chain, token.Identity) {
	cur := p.cur.Load()
	return cur.tls, cur.chain, cur.id
}

// Identity returns who we are. It never changes.
func (p *Pair) Identity() token.Identity { return p.cur.Load().id }

// Signer returns the private key in use. Where a chain must go with the signature, take
// both from one call of Current.
func (p *Pair) Signer() crypto.Signer { return p.cur.Load().key }

// LeafHash returns the hash of the certificate in use, to which capabilities are bound.
func (p *Pair) LeafHash() token.Hash { return p.cur.Load().hash }

// NotAfter returns the end of the certificate in use.
func (p *Pair) NotAfter() time.Time { return p.cur.Load().chain[0].NotAfter }

// Files returns the names of the certificate and the key file, both empty for a Pair in memory, and the second for a key that
// is held by a signer.
func (p *Pair) Files() (certFile, keyFile string) { return p.certFile, p.keyFile }

// Preflight explains in one sentence why our own certificate would be refused now because of its dates, with
// problem.CertExpired or problem.CertNotYet, or returns nil. Ask it before dialling: TLS carries no reasons.
func (p *Pair) Preflight(now time.Time) error { return p.cur.Load().preflight(now) }

func (o *own) preflight(now time.Time) error {
	return outside("Your certificate for "+string(o.id), o.chain[0], now)
}
