package certs

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// IssuerName returns the URI name of the leaf with which the built-in authority of a
// provider serves. It is no identity, so that nobody takes the authority for a peer, and no
// identity is it, so that no broker with a leaf of that authority can pose as the authority.
func IssuerName(p token.Provider) string { return "spiffe://" + string(p) + "/ca" }

// IssuerServer is for the listener of a built-in authority, which get gives a
// certificate for each handshake. A client may send a certificate; its key is proven, and the caller
// judges it with Trust.Verify where one is needed.
func IssuerServer(get func() (*tls.Certificate, error)) *tls.Config {
	c := base(nil)
	c.ClientAuth = tls.RequestClientCert
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return get() }
	return c
}

// IssuerClient is for dialling the built-in authority of one's own provider, to renew
// p: the server must be IssuerName under the roots that t has for p's provider.
func IssuerClient(p *Pair, t *Trust) *tls.Config {
	c := base(p)
	c.InsecureSkipVerify = true // as in BrokerClient
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		domain := p.Identity().Provider()
		d := t.view.Load().domains[domain]
		if d == nil {
			return problem.New(problem.BadConfig, "There is no trust bundle of provider %q.", domain)
		}
		return verifyIssuer(cs.PeerCertificates, d, IssuerName(domain))
	}
	return c
}

// PinnedIssuerClient is for the first contact with a built-in authority, by one who has
// no certificate and knows the hash of its root: the server must send that root, and a leaf that it
// issued and that is named IssuerName of some provider.
func PinnedIssuerClient(root token.Hash) *tls.Config {
	c := base(nil)
	c.InsecureSkipVerify = true // as in BrokerClient
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		for _, r := range cs.PeerCertificates {
			if r.IsCA && token.HashOf(r.Raw) == root {
				return verifyIssuer(cs.PeerCertificates, &domain{pool: poolOf([]*x509.Certificate{r})}, "")
			}
		}
		return problem.New(problem.CertUnknown, "The server is not the authority that the join token names.")
	}
	return c
}

// verifyIssuer checks the chain of a server that must be an authority: of that name, or of
// the name that fits its leaf's domain if name is empty.
func verifyIssuer(chain Chain, d *domain, name string) error {
	if err := chain.check(); err != nil {
		return err
	}
	j := judgement{
		chain: chain, domain: d, usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, at: time.Now(), subject: "The server's certificate",
	}
	if err := j.verify(); err != nil && genuine(err) && problem.Of(err) != problem.CertExpired && problem.Of(err) != problem.CertNotYet {
		return err
	} else if err != nil {
		return problem.Wrap(err, problem.CertUnknown, "The server is not the authority that was expected.")
	}
	leaf := chain[0]
	if len(leaf.URIs) != 1 || leaf.IsCA {
		return problem.New(problem.CertMisused, "The server's certificate is not that of an authority's listener.")
	}
	raw, err := rawURI(leaf)
	if err != nil {
		return problem.Wrap(err, problem.CertMisused, "The server's certificate is not that of an authority's listener.")
	}
	if name == "" {
		name = IssuerName(token.Provider(leaf.URIs[0].Host))
	}
	if raw != name {
		return problem.New(problem.CertMismatch, "The server is not the authority that was expected.")
	}
	return nil
}

// BundleClient is for a bundle endpoint that shows a certificate of a trust domain, as SPIFFE calls https_spiffe: the server must
// be exactly id, a SPIFFE ID of a domain that t has a bundle of, which need not be an identity.
func BundleClient(t *Trust, id string) *tls.Config {
	c := base(nil)
	c.InsecureSkipVerify = true // as in BrokerClient
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		d := t.view.Load().domains[DomainOf(id)]
		if d == nil {
			return problem.New(problem.BadConfig, "There is no trust bundle of the domain of %q.", id)
		}
		return verifyIssuer(cs.PeerCertificates, d, id)
	}
	return c
}

// DomainOf returns the trust domain of a SPIFFE ID in its one spelling, or "" if it is none.
func DomainOf(id string) token.Provider {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	domain, path, found := strings.Cut(rest, "/")
	p := token.Provider(domain)
	if !ok || !found || token.CheckProvider(p) != nil {
		return ""
	}
	for _, seg := range strings.Split(path, "/") {
		if seg == "" || seg == "." || seg == ".." || strings.ContainsFunc(seg, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
		}) {
			return ""
		}
	}
	return p
}
