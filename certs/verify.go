package certs

import (
	"crypto/x509"
	"errors"
	"slices"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Verify returns the identity of a chain that is good at the given time. The outcomes
// are those of the package doc. To judge a statement, give the time at which it was
// made; to judge a connection, the present.
//
// What a revoked certificate signed before its revocation stays good, so that one who may have stolen a key can
// date a statement back. Who accepts a statement for the first time therefore asks about that instant as well. A deny
// list knows no time: who is on it is refused, and so is all that he ever signed.
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

// Holder is Verify, but returns the identity also with the error of a genuine chain: one whose holder is who it names, and which is
// refused for its dates or by a list. Such an error may be told to that identity, and to nobody else.
func (t *Trust) Holder(chain Chain, at time.Time) (token.Identity, error) { return t.verify(chain, at) }

// genuine reports whether a chain with that outcome is its identity's, and not good only at this time or here. verify
// returns the identity then, and the peer may be told the sentence.
func genuine(outcome error) bool {
	switch problem.Of(outcome) {
	case problem.CertExpired, problem.CertNotYet, problem.CertRevoked, problem.CRLStale, problem.IDDenied:
		return true
	}
	return outcome == nil
}

// verify is Holder.
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
	v := t.view.Load()
	id, d, err := v.claim(chain, at)
	if err != nil {
		return "", err
	}
	j := judgement{
		chain: chain, domain: d, denied: v.denied, usages: usagesOf(id.Role()), at: at, subject: "The certificate of " + string(id), account: id,
	}
	if err = j.verify(); err == nil {
		err = v.denied.identity(id)
	}
	if genuine(err) {
		return id, err
	}
	return "", err
}

// claim returns whose a chain says it is, or a provider says of a plain one, and who can judge that.
func (v *view) claim(chain Chain, at time.Time) (token.Identity, *domain, error) {
	leaf := chain[0]
	if Plain(leaf) && v.mapping() {
		return v.mapped(chain, at)
	}
	id, err := IdentityOf(leaf)
	if err != nil {
		return "", nil, err
	}
	if err := CheckKey(leaf.PublicKey); err != nil {
		return "", nil, err
	}
	d := v.domains[id.Provider()]
	if d == nil {
		return "", nil, problem.New(problem.CertUnknown, "No authority is trusted for the domain that the certificate names.")
	}
	return id, d, checkUsages(leaf, id.Role())
}

// checkUsages refuses a leaf that is not made for what its role does.
func checkUsages(leaf *x509.Certificate, role token.Role) error {
	usages := usagesOf(role)
	for _, u := range usages {
		if !slices.Contains(leaf.ExtKeyUsage, u) {
			return problem.New(problem.CertMisused, "The certificate of an identity of role %q must be made for %s.", role, usageText(usages))
		}
	}
	return nil
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

// A judgement is one chain before one trust domain.
type judgement struct {
	chain   Chain
	domain  *domain
	denied  *denied
	usages  []x509.ExtKeyUsage
	at      time.Time
	subject string // begins the sentences of a genuine chain
	account token.Identity
}

// verify fails with problem.CertUnknown for a stranger's chain, and else with what genuine reports.
func (j judgement) verify() error {
	routes, err := j.routes(j.at)
	if err != nil {
		if fault := j.timeFault(); fault != nil {
			return fault
		}
		return problem.Wrap(err, problem.CertUnknown, "")
	}
	for _, paths := range routes {
		if err := j.standing(paths); err != nil {
			return err
		}
	}
	return nil
}

// routes builds, for each usage, the paths to a root that are valid at the given time: one or more.
func (j judgement) routes(at time.Time) (routes [][]Chain, err error) {
	between := poolOf(j.chain[1:])
	for _, u := range j.usages {
		found, err := j.chain[0].Verify(x509.VerifyOptions{
			Roots: j.domain.pool, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{u},
		})
		if err != nil {
			return nil, err
		}
		var paths []Chain
		for _, p := range found {
			if j.ours(p) {
				paths = append(paths, p)
			}
		}
		if len(paths) == 0 {
			return nil, x509.UnknownAuthorityError{Cert: j.chain[0]}
		}
		routes = append(routes, paths)
	}
	return routes, nil
}

// ours reports whether a path makes the leaf the account's: a plain one must have been issued by the very key that the provider's
// file names, on this path and not on another.
func (j judgement) ours(path Chain) bool {
	if j.account == "" || !Plain(path[0]) {
		return true
	}
	return len(path) > 1 && j.domain.accounts[principalOf(path[0], path[1])] == j.account
}

// standing returns nil if one of the paths is in good standing, and else what is wrong with the first.
func (j judgement) standing(paths []Chain) error {
	var first error
	for _, p := range paths {
		err := j.domain.standing(p, j.subject, j.at)
		if err == nil {
			err = j.denied.path(j.domain.name, p, j.subject)
		}
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// timeFault returns the problem that explains a chain which is bad now and good at
// another time of its leaf's life, or nil if it is not such a chain. A stranger's never is.
func (j judgement) timeFault() error {
	leaf := j.chain[0]
	for _, t := range moments(leaf) {
		routes, err := j.routes(t)
		if err != nil {
			continue
		}
		for i, c := range routes[len(routes)-1][0] {
			if err := outside(above(j.subject, i), c, j.at); err != nil {
				return err
			}
		}
	}
	return nil
}

// moments are within the life of a leaf, at its ends.
func moments(leaf *x509.Certificate) []time.Time {
	return []time.Time{leaf.NotAfter.Add(-time.Second), leaf.NotBefore.Add(time.Second)}
}
