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

// genuine reports whether a chain with that outcome is its identity's, and not good only at this time or here. verify
// returns the identity then, and the peer may be told the sentence.
func genuine(outcome error) bool {
	switch problem.Of(outcome) {
	case problem.CertExpired, problem.CertNotYet, problem.CertRevoked, problem.CRLStale, problem.IDDenied:
		return true
	}
	return outcome == nil
}

// verify is Verify, but returns the identity also with an error of a genuine chain.
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
	v := t.view.Load()
	d := v.domains[id.Provider()]
	if d == nil {
		return "", problem.New(problem.CertUnknown, "No authority is trusted for the domain that the certificate names.")
	}
	usages := usagesOf(id.Role())
	for _, u := range usages {
		if !slices.Contains(chain[0].ExtKeyUsage, u) {
			return "", problem.New(problem.CertMisused, "The certificate of an identity of role %q must be made for %s.", id.Role(), usageText(usages))
		}
	}
	j := judgement{chain: chain, domain: d, denied: v.denied, usages: usages, at: at, subject: "The certificate of " + string(id)}
	if err = j.verify(); err == nil {
		err = v.denied.identity(id)
	}
	if genuine(err) {
		return id, err
	}
	return "", err
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
		paths := make([]Chain, len(found))
		for i, p := range found {
			paths[i] = p
		}
		routes = append(routes, paths)
	}
	return routes, nil
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
	for _, t := range []time.Time{leaf.NotAfter.Add(-time.Second), leaf.NotBefore.Add(time.Second)} {
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
