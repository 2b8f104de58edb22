package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// MaxAccounts bounds the entries of a provider's file of plain certificates.
const MaxAccounts = 10_000

// A principal is whom a plain certificate names: a subject under the key of who issued it. The subject alone names nobody, since
// every authority can write any.
type principal struct {
	issuer  [sha256.Size]byte // of its SubjectPublicKeyInfo
	subject string            // DER, byte for byte
}

func principalOf(leaf, issuer *x509.Certificate) principal {
	return principal{issuer: keyOf(issuer), subject: string(leaf.RawSubject)}
}

// Plain reports whether a leaf has no SPIFFE name, so that only a provider's own file can say whose it is.
func Plain(leaf *x509.Certificate) bool {
	for _, u := range leaf.URIs {
		if u.Scheme == "spiffe" {
			return false
		}
	}
	return true
}

// AccountLine returns the line of a provider's file that makes the holder of a plain certificate the subscriber id. The chain holds the
// certificate and that of its issuer behind it. It fails with problem.CertMisused for a certificate that
// could never be used so, and with problem.CertUnknown if the second one did not issue the first.
func AccountLine(chain Chain, id token.Identity) (string, error) {
	if len(chain) < 2 {
		return "", problem.New(problem.CertUnknown, "The certificate of the issuer is missing: it belongs behind the account's.")
	}
	if err := chain.check(); err != nil {
		return "", err
	}
	leaf, issuer := chain[0], chain[1]
	if !Plain(leaf) {
		return "", problem.New(problem.CertMisused, "The certificate has a SPIFFE name, so that no file can give it another.")
	}
	if err := checkPlain(leaf); err != nil {
		return "", err
	}
	if err := leaf.CheckSignatureFrom(issuer); err != nil {
		return "", problem.Wrap(err, problem.CertUnknown, "The second certificate did not issue the first.")
	}
	if err := checkAccount(id, id.Provider()); err != nil {
		return "", err
	}
	text, err := subjectText(leaf.RawSubject)
	if err != nil {
		return "", err
	}
	key := token.HashOf(issuer.RawSubjectPublicKeyInfo)
	return strings.Join([]string{string(id), string(key), base64.RawURLEncoding.EncodeToString(leaf.RawSubject), text}, " "), nil
}

// checkPlain refuses what no plain certificate of a subscriber may be.
func checkPlain(leaf *x509.Certificate) error {
	if err := checkLeaf(leaf); err != nil {
		return err
	}
	if err := CheckKey(leaf.PublicKey); err != nil {
		return err
	}
	return checkUsages(leaf, token.Subscriber)
}

func checkAccount(id token.Identity, p token.Provider) error {
	if parsed, err := token.ParseIdentity(string(id)); err != nil || parsed.Role() != token.Subscriber || parsed.Provider() != p {
		return problem.New(problem.Malformed, "The account is not a subscriber of the provider, spiffe://%s/subscriber/name.", p)
	}
	return nil
}

// subjectText writes a subject as RFC 4514 does, for people. It refuses one that would not look like what it is.
func subjectText(der []byte) (string, error) {
	var names pkix.RDNSequence
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 || len(names) == 0 {
		return "", problem.Wrap(err, problem.CertMisused, "The certificate has no subject that can be read.")
	}
	text := names.String()
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", problem.New(problem.CertMisused, "The subject of the certificate has characters that cannot be printed.")
	}
	return text, nil
}

// parseAccounts reads the file of p: one account a line, four words in their one spelling: the identity, the hash of the issuer's
// SubjectPublicKeyInfo, the subject's DER in base64url, and, to the end of the line, the same subject as RFC 4514 writes it. Empty
// lines, and lines that begin with #, are left out. One identity may have several lines.
func parseAccounts(p token.Provider, data []byte) (map[principal]token.Identity, error) {
	if !utf8.Valid(data) {
		return nil, problem.New(problem.Malformed, "It is not text.")
	}
	out := map[principal]token.Identity{}
	for i, line := range bytes.Split(data, []byte("\n")) {
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		who, id, err := parseAccount(p, string(line))
		if _, twice := out[who]; err == nil && twice {
			err = problem.New(problem.Malformed, "The certificate is already there.")
		}
		if err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "Line %d: %s", i+1, problem.As(err).Sentence())
		}
		if out[who] = id; len(out) > MaxAccounts {
			return nil, problem.New(problem.TooLarge, "It has more than %d entries.", MaxAccounts)
		}
	}
	return out, nil
}

func parseAccount(p token.Provider, line string) (principal, token.Identity, error) {
	none := principal{}
	words := strings.SplitN(line, " ", 4)
	if len(words) != 4 {
		return none, "", problem.New(problem.Malformed, "It is not 'IDENTITY ISSUER SUBJECT TEXT'; 'consign ca map' writes such lines.")
	}
	id := token.Identity(words[0])
	if err := checkAccount(id, p); err != nil {
		return none, "", err
	}
	if err := token.Hash(words[1]).Check(); err != nil {
		return none, "", err
	}
	key, err := base64.RawURLEncoding.DecodeString(words[1])
	if err != nil {
		return none, "", problem.Wrap(err, problem.Malformed, "The issuer's key is not a hash.")
	}
	der, err := base64.RawURLEncoding.Strict().DecodeString(words[2])
	if err != nil || strings.ContainsAny(words[2], "\r\n") {
		return none, "", problem.Wrap(err, problem.Malformed, "The subject is not in base64url.")
	}
	text, err := subjectText(der)
	if err != nil {
		return none, "", err
	}
	if text != words[3] {
		return none, "", problem.New(problem.Malformed, "The subject and its text are not the same.")
	}
	return principal{issuer: [sha256.Size]byte(key), subject: string(der)}, id, nil
}

// mapped returns whose a plain chain is, and the domain whose roots and whose file say so at some time of the leaf's life. A chain
// that is genuine in a domain whose file does not have it is problem.CertMisused, and every other one problem.CertUnknown.
func (v *view) mapped(chain Chain, at time.Time) (token.Identity, *domain, error) {
	leaf := chain[0]
	if err := checkPlain(leaf); err != nil {
		return "", nil, err
	}
	outcome := problem.New(problem.CertUnknown, "The certificate names no identity and is of no authority whose subscribers are known here.")
	for _, p := range slices.Sorted(maps.Keys(v.domains)) {
		d := v.domains[p]
		if d.accounts == nil {
			continue
		}
		j := judgement{chain: chain, domain: d, usages: usagesOf(token.Subscriber)}
		for _, t := range append([]time.Time{at}, moments(leaf)...) {
			routes, err := j.routes(t)
			if err != nil {
				continue
			}
			for _, path := range routes[0] {
				if len(path) < 2 {
					continue
				}
				if id, ok := d.accounts[principalOf(leaf, path[1])]; ok {
					return id, d, nil
				}
			}
			outcome = problem.New(problem.CertMisused, "The certificate names no identity, and its provider has not said whose account it is.")
		}
	}
	return "", nil, outcome
}

// CanJudge reports whether Verify can say of a chain whether it is p's: whether p has roots here and, for a plain
// chain, a file of its subscribers.
func (t *Trust) CanJudge(chain Chain, p token.Provider) bool {
	d := t.view.Load().domains[p]
	return d != nil && (d.accounts != nil || len(chain) == 0 || !Plain(chain[0]))
}
