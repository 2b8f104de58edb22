package certs

import (
	"crypto/x509"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/consign-transfer/consign/token/problem"
)

// outside returns the problem of a certificate that is not within its life at the given
// time, or nil. The sentence begins with subject and holds no other name.
func outside(subject string, c *x509.Certificate, at time.Time) error {
	switch {
	case at.After(c.NotAfter):
		return problem.New(problem.CertExpired, "%s (serial %s) expired on %s, %s ago.",
			subject, serial(c), date(c.NotAfter), span(at.Sub(c.NotAfter)))
	case at.Before(c.NotBefore):
		return problem.New(problem.CertNotYet, "%s (serial %s) is not valid before %s, which is in %s.",
			subject, serial(c), date(c.NotBefore), span(c.NotBefore.Sub(at)))
	}
	return nil
}

// serial is enough of a serial number to find the certificate by.
func serial(c *x509.Certificate) string {
	const digits = 8
	if c.SerialNumber == nil {
		return "none"
	}
	s := c.SerialNumber.Text(16)
	if len(s) > digits {
		return s[:digits] + "…"
	}
	return s
}

func date(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// span says a duration in its largest whole unit.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	for _, u := range []struct {
		size time.Duration
		name string
	}{{day, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := int64(d / u.size); n == 1 {
			return "1 " + u.name
		} else if n > 1 {
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	return "less than a second"
}

// MaxWords bounds the words of an authority in a sentence of ours, bytes.
const MaxWords = 512

// Printable makes somebody else's words fit for a sentence of ours: no control characters, and at most limit bytes.
func Printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}
