// Package certs says who a peer is: it turns a chain of X.509 certificates into an
// identity, keeps our own certificate fresh, and builds every tls.Config.
//
// It guarantees that trust is held per trust domain and never pooled: the roots that
// judge a chain are those of the domain that its leaf claims, so that an authority of
// one provider cannot name anybody of another. It guarantees that a chain is judged at a
// time that the caller names, with one of ten outcomes: the identity, or a
// *problem.Error of code certificate-missing, certificate-expired,
// certificate-not-yet-valid, certificate-revoked, revocation-list-stale, identity-denied, certificate-unknown,
// certificate-misused, or too-large for a chain beyond the limits. Expired, not yet valid, revoked, stale and denied are said
// only of a genuine chain: one that is good at another time, or but for a list. Only those name the certificate, all others hold nothing
// of the stranger's names. Every connection that its configurations make is TLS 1.3, without
// session tickets and without early data, so that nobody resumes past a check.
//
// Files are read again without a restart, are checked before they are used, and
// what was in use stays in use if the new ones are not good. A list of revoked certificates is never replaced by an older one.
//
// Where things are: chain and verify judge what a peer shows; trust holds, a domain each, what they judge it by, which is read from
// files by bundle (roots), crl (revocation lists) and plain (whose a certificate without a SPIFFE name is), and denied (whom the
// operator refuses). pair is our own certificate and renewer has it renewed. tls, issuer and web are the configurations for peers, for
// authorities and for servers of the web, and guard ends connections. source looks at a file again, durable writes one, and key
// reads a private key.
//
// It does not decide what an identity may do, does not log, and starts no goroutine.
// It does not support RFC 3820 proxy certificates: capabilities replace them. All
// functions and methods may be called concurrently.
package certs
