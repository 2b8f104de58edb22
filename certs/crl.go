package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Limits of the revocation lists of one trust domain.
const (
	MaxCRLSize = 8 << 20 // bytes of the file
	MaxRevoked = 100_000 // certificates on all its lists
)

// A StalePolicy says what becomes of certificates whose issuer's list is past its end.
type StalePolicy string

// The policies.
const (
	RefuseStale StalePolicy = ""       // none of them is good
	AcceptStale StalePolicy = "accept" // those are good that the old list does not name
)

// An authority is who issues certificates and signs lists: a name with a key.
type authority struct{ name, key [sha256.Size]byte }

func authorityOf(c *x509.Certificate) authority {
	return authority{name: sha256.Sum256(c.RawSubject), key: keyOf(c)}
}

// A list is what one authority said of its revoked certificates. It is never changed.
type list struct {
	number     *big.Int // nil: it has none
	made, next time.Time
	since      map[string]time.Time // by serial number
}

// older reports whether an authority made l before o.
func (l *list) older(o *list) bool {
	if l.number != nil && o.number != nil {
		if c := l.number.Cmp(o.number); c != 0 {
			return c < 0
		}
	}
	return l.made.Before(o.made)
}

func (l *list) stale(p token.Provider, at time.Time) error {
	return problem.New(problem.CRLStale, "The revocation list of provider %q ended on %s, %s ago.", p, date(l.next), span(at.Sub(l.next)))
}

// mergeLists returns the lists of d after those of a file have come into use. An authority without a list in the file keeps
// the one that it has, so that nothing is forgiven by leaving it out. One that is older than what is in use is an error.
func (d *domain) mergeLists(data []byte) (map[authority]*list, error) {
	parsed, between, err := parseLists(data)
	if err != nil {
		return nil, err
	}
	out, fresh := maps.Clone(d.lists), map[authority]bool{}
	if out == nil {
		out = map[authority]*list{}
	}
	for i, rl := range parsed {
		by, err := d.signerOf(rl, between)
		if err != nil {
			return nil, problem.Wrap(err, problem.Malformed, "List %d is signed by none of the provider's authorities.", i+1)
		}
		l, err := newList(rl)
		if err != nil {
			return nil, err
		}
		who := authorityOf(by)
		if fresh[who] {
			return nil, problem.New(problem.Malformed, "List %d is the second one of its authority.", i+1)
		}
		if old := out[who]; old != nil && l.older(old) {
			return nil, problem.New(problem.Malformed, "List %d, of %s, is older than the one in use, of %s.", i+1, date(l.made), date(old.made))
		}
		out[who], fresh[who] = l, true
	}
	total := 0
	for _, l := range out {
		total += len(l.since)
	}
	if len(out) > MaxRoots || total > MaxRevoked {
		return nil, problem.New(problem.TooLarge, "There are more than %d lists, or more than %d revoked certificates on them.", MaxRoots, MaxRevoked)
	}
	return out, nil
}

// parseLists reads lists, and the certificates of intermediate authorities that signed them, from PEM.
func parseLists(data []byte) (lists []*x509.RevocationList, between []*x509.Certificate, err error) {
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		if len(lists) == MaxRoots || len(between) == MaxRoots {
			return nil, nil, problem.New(problem.TooLarge, "There are more than %d lists or authorities.", MaxRoots)
		}
		switch b.Type {
		case "X509 CRL":
			rl, err := x509.ParseRevocationList(b.Bytes)
			if err != nil {
				return nil, nil, problem.Wrap(err, problem.Malformed, "List %d cannot be read.", len(lists)+1)
			}
			lists = append(lists, rl)
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil, nil, problem.Wrap(err, problem.Malformed, "A certificate beside the lists cannot be read.")
			}
			between = append(between, c)
		default:
			return nil, nil, problem.New(problem.Malformed, "There is something other than revocation lists and certificates.")
		}
	}
	if len(lists) == 0 {
		return nil, nil, problem.New(problem.Malformed, "There is no revocation list in PEM form.")
	}
	return lists, between, Chain(between).checkKeys()
}

// signerOf returns the authority that signed rl: a root of d, or an intermediate that was good when it signed.
func (d *domain) signerOf(rl *x509.RevocationList, between []*x509.Certificate) (*x509.Certificate, error) {
	var why error
	for _, c := range slices.Concat(d.roots, between) {
		if !bytes.Equal(c.RawSubject, rl.RawIssuer) {
			continue
		}
		if why = rl.CheckSignatureFrom(c); why != nil {
			continue
		}
		if slices.ContainsFunc(d.roots, c.Equal) {
			return c, nil
		}
		_, why = c.Verify(x509.VerifyOptions{
			Roots: d.pool, Intermediates: poolOf(between), CurrentTime: rl.ThisUpdate, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		})
		if why == nil {
			return c, nil
		}
	}
	if why == nil {
		why = x509.UnknownAuthorityError{}
	}
	return nil, why
}

// The extensions of lists and of their entries that we know.
var (
	oidCRLNumber      = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidAuthorityKey   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidScope          = asn1.ObjectIdentifier{2, 5, 29, 28} // issuingDistributionPoint
	oidInvalidityDate = asn1.ObjectIdentifier{2, 5, 29, 24}
)

// newList takes over what a list says, if that is said of all certificates of its authority.
func newList(rl *x509.RevocationList) (*list, error) {
	if rl.NextUpdate.IsZero() || !rl.NextUpdate.After(rl.ThisUpdate) {
		return nil, problem.New(problem.Malformed, "The list does not say when the next one comes.")
	}
	for _, e := range rl.Extensions {
		known := e.Id.Equal(oidCRLNumber) || e.Id.Equal(oidAuthorityKey) || e.Id.Equal(oidScope) && coversAll(e)
		if e.Critical && !known {
			return nil, problem.New(problem.Malformed, "The list is not of all certificates of its authority, or has a critical extension that is not supported.")
		}
	}
	if len(rl.RevokedCertificateEntries) > MaxRevoked {
		return nil, problem.New(problem.TooLarge, "The list names more than %d certificates.", MaxRevoked)
	}
	l := &list{number: rl.Number, made: rl.ThisUpdate, next: rl.NextUpdate, since: make(map[string]time.Time, len(rl.RevokedCertificateEntries))}
	for _, e := range rl.RevokedCertificateEntries {
		at, err := revokedSince(e)
		if err != nil {
			return nil, err
		}
		id := string(e.SerialNumber.Bytes())
		if first, twice := l.since[id]; !twice || at.Before(first) {
			l.since[id] = at
		}
	}
	return l, nil
}

// coversAll reports whether an issuingDistributionPoint says no more than where the list is published.
func coversAll(e pkix.Extension) bool {
	var scope asn1.RawValue
	if rest, err := asn1.Unmarshal(e.Value, &scope); err != nil || len(rest) > 0 || scope.Tag != asn1.TagSequence {
		return false
	}
	var where asn1.RawValue
	rest, err := asn1.Unmarshal(scope.Bytes, &where)
	return err == nil && len(rest) == 0 && where.Class == asn1.ClassContextSpecific && where.Tag == 0
}

// revokedSince returns from when on nothing that the certificate signed is believed: from its revocation, or from when on
// its key is said to have been another's, if that is earlier.
func revokedSince(e x509.RevocationListEntry) (time.Time, error) {
	since := e.RevocationTime
	for _, x := range e.Extensions {
		if x.Critical {
			return since, problem.New(problem.Malformed, "The list has an entry with a critical extension that is not supported.")
		}
		if !x.Id.Equal(oidInvalidityDate) {
			continue
		}
		var t time.Time
		if _, err := asn1.UnmarshalWithParams(x.Value, &t, "generalized"); err != nil {
			return since, problem.Wrap(err, problem.Malformed, "The list has an entry with a date that cannot be read.")
		}
		if t.Before(since) {
			since = t
		}
	}
	return since, nil
}

// standing returns the problem of a path whose certificates are within their lives: problem.CertRevoked if one of them
// was revoked by the given time, problem.CRLStale if that cannot be known, or nil. A certificate
// whose issuer has no list is not revoked.
func (d *domain) standing(path Chain, subject string, at time.Time) error {
	var stale error
	for i := range len(path) - 1 {
		l := d.lists[authorityOf(path[i+1])]
		if l == nil {
			continue
		}
		if since, ok := l.since[string(path[i].SerialNumber.Bytes())]; ok && !at.Before(since) {
			return problem.New(problem.CertRevoked, "%s (serial %s) was revoked on %s.", above(subject, i), serial(path[i]), date(since))
		}
		if stale == nil && d.stale == RefuseStale && at.After(l.next) {
			stale = l.stale(d.name, at)
		}
	}
	return stale
}

// above says of whom a sentence is: the leaf, or the n-th authority above it.
func above(subject string, n int) string {
	if n == 0 {
		return subject
	}
	return subject + " is good, but that of an authority above it"
}
