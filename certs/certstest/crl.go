package certstest

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"time"

	"github.com/consign-transfer/consign/certs"
)

// A CRL is a list of revoked certificates to be signed. Its zero value is list 0 of nobody, made now, for a day.
type CRL struct {
	Number     int64
	Made, Next time.Time
	Revoked    []Revoked
	Extra      []pkix.Extension // of the list
}

// Revoked is one entry: the leaf or authority with its first certificate.
type Revoked struct {
	Chain certs.Chain
	At    time.Time
	// Stolen is when the key is said to have become another's; zero says nothing.
	Stolen time.Time
}

// CRL returns the list in PEM, signed by ca, with the certificates of the intermediates that lead to it.
func (ca *CA) CRL(l CRL) []byte {
	ca.t.Helper()
	if l.Made.IsZero() {
		l.Made = time.Now().Add(-time.Minute)
	}
	if l.Next.IsZero() {
		l.Next = l.Made.AddDate(0, 0, 1)
	}
	tmpl := &x509.RevocationList{Number: big.NewInt(l.Number), ThisUpdate: l.Made, NextUpdate: l.Next, ExtraExtensions: l.Extra}
	for _, r := range l.Revoked {
		e := x509.RevocationListEntry{SerialNumber: r.Chain[0].SerialNumber, RevocationTime: r.At}
		if !r.Stolen.IsZero() {
			at, err := asn1.MarshalWithParams(r.Stolen.UTC(), "generalized")
			if err != nil {
				ca.t.Fatalf("encoding a date: %v", err)
			}
			e.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: at}}
		}
		tmpl.RevokedCertificateEntries = append(tmpl.RevokedCertificateEntries, e)
	}
	der, err := x509.CreateRevocationList(rand.Reader, tmpl, ca.cert, ca.key)
	if err != nil {
		ca.t.Fatalf("signing a list: %v", err)
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), ca.above.PEM()...)
}

// Put replaces a file as a whole, in dir, and returns its name.
func (ca *CA) Put(dir, name string, data []byte) string {
	ca.t.Helper()
	file := filepath.Join(dir, name)
	write(ca.t, file, data, 0o644)
	return file
}
