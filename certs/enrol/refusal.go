package enrol

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/acme"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Remedies.
const (
	remedyTemplate = "Have the authority's template map the identifier to this identity; docs/OPERATIONS.md has one for step-ca."
	remedyReach    = "Check the directory's URL, and that the authority runs and can be reached from here."
	remedyRoot     = "Name the root of the authority's own web certificate in the setting root."
	remedyProof    = "Check that the identifier leads here and that the port of the challenge is forwarded to where it is answered."
)

// refusal says in a sentence why there is no certificate. The authority's own words are in it, made fit to print: they are
// for the operator who chose that authority.
func refusal(err error) error {
	if p := (*problem.Error)(nil); errors.As(err, &p) {
		return err
	}
	var proof *acme.AuthorizationError
	var order *acme.OrderError
	var said *acme.Error
	var foreign *tls.CertificateVerificationError
	failed := func(remedy, format string, args ...any) error {
		return &problem.Error{Code: problem.EnrolFailed, Cause: err, Detail: fmt.Sprintf(format, args...), Remedy: remedy}
	}
	switch {
	case errors.As(err, &proof):
		if len(proof.Errors) > 0 && errors.As(proof.Errors[0], &said) {
			return failed(remedyProof, "The ACME authority did not see that we control the identifier: %s", words(said))
		}
		return failed(remedyProof, "The ACME authority did not look whether we control the identifier.")
	case errors.As(err, &order) && order.Problem != nil:
		return failed("", "The ACME authority gave the order up: %s", words(order.Problem))
	case errors.As(err, &said):
		return failed("", "The ACME authority refused: %s", words(said))
	case errors.As(err, &foreign):
		return failed(remedyRoot, "What answers as the ACME authority has a web certificate that is not trusted.")
	case errors.Is(err, context.DeadlineExceeded):
		return failed(remedyReach, "The ACME authority did not answer in time.")
	}
	return failed(remedyReach, "The ACME authority cannot be reached, or does not speak ACME.")
}

// words are what an ACME problem says, with its kind.
func words(e *acme.Error) string {
	kind := e.ProblemType[strings.LastIndexByte(e.ProblemType, ':')+1:]
	return certs.Printable(fmt.Sprintf("%s (%s, HTTP status %d)", strings.TrimSuffix(e.Detail, "."), kind, e.StatusCode), certs.MaxWords)
}

// misissued keeps the code of a certificate that cannot be used and says what was wanted. One for another key is
// no mistake in our configuration.
func misissued(err error, want token.Identity) error {
	code := problem.Of(err)
	if code == problem.BadConfig {
		code = problem.CertMismatch
	}
	return &problem.Error{
		Code: code, Cause: err, Remedy: remedyTemplate,
		Detail: fmt.Sprintf("What the ACME authority issued is no certificate of %s: %s", want, problem.As(err).Sentence()),
	}
}
