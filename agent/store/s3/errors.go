package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
	"github.com/consign-transfer/consign/token/problem"
)

// A purpose is what a request was for, as far as the meaning of a refusal depends on it.
type purpose int

const (
	looking   purpose = iota // Head, List, Uploads
	reading                  // Get, at a pin
	creating                 // Put
	beginning                // Begin
	staging                  // PutPart
	listing                  // Parts
	finishing                // Complete
	aborting                 // Abort
	deleting                 // Delete
)

// writes reports whether a refusal means that we may not write.
func (p purpose) writes() bool { return p != looking && p != reading && p != listing }

// A meaning is what a refusal comes to.
type meaning int

const (
	permanent meaning = iota // nothing that we know
	away                     // it may pass, and it may have happened
	clock                    // away, because our clock and theirs differ
	condition                // a precondition did not hold
	conflict                 // another request on the key was under way
	gone                     // there is no such key
	noUpload                 // there is no such upload, or not all of its parts
	noBucket
	parent // the name is taken by a folder, or one of its parents by an object
	badName
	denied    // the credentials do not allow it, or are not known
	elsewhere // the bucket is in another region
	full
)

// codes are what the codes of the protocol mean. Those that are not here mean what their status does.
func codes() map[string]meaning {
	return map[string]meaning{
		"SlowDown": away, "SlowDownRead": away, "SlowDownWrite": away, "ServiceUnavailable": away, "InternalError": away, "RequestTimeout": away,
		"Throttling": away, "ThrottlingException": away, "RequestThrottled": away, "RequestLimitExceeded": away, "TooManyRequests": away,
		"BandwidthLimitExceeded": away, "OperationAborted": away, "XMinioServerNotInitialized": away,
		// What came is not what was sent.
		"BadDigest": away, "IncompleteBody": away, "XAmzContentSHA256Mismatch": away, "XAmzContentChecksumMismatch": away, "RequestTimeTooSkewed": clock,

		"PreconditionFailed": condition, "ConditionalRequestConflict": conflict,
		"NoSuchKey": gone, "NoSuchVersion": gone, "NoSuchUpload": noUpload, "InvalidPart": noUpload, "InvalidPartOrder": noUpload,
		"NoSuchBucket": noBucket, "ObjectParentIsFile": parent, "ExistingObjectIsDirectory": parent,
		"KeyTooLongError": badName, "KeyTooLong": badName, "InvalidObjectName": badName, "XMinioInvalidObjectName": badName, "InvalidURI": badName,

		"AccessDenied": denied, "AllAccessDisabled": denied, "AccountProblem": denied, "InvalidAccessKeyId": denied, "SignatureDoesNotMatch": denied,
		"ExpiredToken": denied, "InvalidToken": denied, "TokenRefreshRequired": denied, "XAdminUserNotFound": denied, "NotSignedUp": denied,
		"PermanentRedirect": elsewhere, "TemporaryRedirect": elsewhere, "AuthorizationHeaderMalformed": elsewhere, "InvalidRegion": elsewhere,
		"QuotaExceeded": full, "QuotaExceededException": full, "XMinioStorageFull": full, "XMinioAdminBucketQuotaExceeded": full, "InsufficientStorage": full,
	}
}

// means tells what an answer that is an error comes to.
func means(e minio.ErrorResponse, what purpose) meaning {
	m, known := codes()[e.Code]
	switch {
	case known:
	case e.Code == "InvalidRequest" && (strings.HasSuffix(e.Message, "is the name of an object") || strings.HasSuffix(e.Message, "is the name of a directory")):
		return parent // rclone
	case e.Code == "InvalidArgument" && strings.HasPrefix(e.Message, "Object name"):
		return badName // rclone
	case e.Code == "NotImplemented" && what == staging && strings.Contains(e.Message, "cannot be replaced"):
		return noUpload // rclone has passed on what was sent before as this part
	default:
		m = byStatus(e.StatusCode)
	}
	switch {
	case m == gone && (what == staging || what == listing || what == finishing || what == aborting):
		return noUpload
	case m == noUpload && (what == creating || what == beginning), m == parent && !what.writes():
		return permanent
	case m == condition && what != reading && what != creating && what != finishing && what != deleting:
		return away // there was no condition: whatever answers so is not well
	}
	return m
}

func byStatus(status int) meaning {
	switch {
	case status == http.StatusInsufficientStorage:
		return full
	case status == http.StatusNotImplemented:
		return permanent
	case remote.Passing(status), status == http.StatusConflict, status == 499:
		return away // a conflict that we do not know may be over
	case status > 0 && status < 300:
		return away // an answer that could not be read to its end
	case status >= 300 && status < 400:
		return elsewhere
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return denied
	case status == http.StatusNotFound, status == http.StatusGone:
		return gone
	case status == http.StatusPreconditionFailed:
		return condition
	}
	return permanent
}

// fail makes one of the failures that bucket.Backend has out of what the client said. ctx is the caller's.
func (b *backend) fail(ctx context.Context, t *trip, what purpose, err error) error {
	var lack *keysError
	var answer minio.ErrorResponse
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &lack) && lack.pass:
		return &bucket.Away{Err: problem.Wrap(err, problem.StoreAway, "The credentials for the bucket %q cannot be had at the moment.", b.bucket)}
	case errors.As(err, &lack):
		return problem.Wrap(err, refusal(what), "There are no credentials for the bucket %q.", b.bucket)
	case t.status == 0 && t.err != nil:
		return b.unreached(what, t.err)
	case t.status == 0: // no request was made
		return problem.Wrap(err, problem.BadName, "The name cannot be a key of an object store.")
	case !errors.As(err, &answer):
		return b.away(t, err, "did not answer whole")
	}
	answer.StatusCode = t.status
	return b.refused(t, what, answer)
}

// refused is an answer that is an error.
func (b *backend) refused(t *trip, what purpose, e minio.ErrorResponse) error {
	cause := fmt.Errorf("status %d, code %s: %w", e.StatusCode, printable(e.Code), e)
	switch means(e, what) {
	case away:
		return b.away(t, cause, "is busy or not well")
	case clock:
		return b.away(t, cause, "says that the clock of this machine is wrong")
	case condition:
		if what == creating || what == finishing {
			return problem.Wrap(cause, problem.Taken, "The name exists.")
		}
		return problem.Wrap(cause, problem.Changed, "The object has another version.")
	case conflict:
		return fmt.Errorf("%w: %w", bucket.ErrConflict, cause)
	case gone:
		if what.writes() && what != deleting {
			return problem.Wrap(cause, problem.Unwritable, "%s is not there.", b.where())
		}
		return problem.Wrap(cause, problem.Missing, "There is no such object.")
	case noUpload:
		return fmt.Errorf("%w: %w", bucket.ErrNoUpload, cause)
	case noBucket:
		return problem.Wrap(cause, refusal(what), "%s is not there.", b.where())
	case parent:
		return problem.Wrap(cause, problem.Taken, "The name, or one above it, exists as something else.")
	case badName:
		return problem.Wrap(cause, problem.BadName, "The object store does not take the name.")
	case denied:
		if what == staging && !b.secure && e.Code == "SignatureDoesNotMatch" {
			return b.away(t, cause, "received a part that is not what was sent") // the upload was begun with the same credentials
		}
		return problem.Wrap(cause, refusal(what), "%s refuses our credentials: %s.", b.where(), printable(e.Code))
	case elsewhere:
		if e.Region != "" {
			return problem.Wrap(cause, refusal(what), "%s is in another region than configured: %s.", b.where(), printable(e.Region))
		}
		return problem.Wrap(cause, refusal(what), "%s is in another region than configured, or has another endpoint.", b.where())
	case full:
		return problem.Wrap(cause, problem.DiskFull, "%s has no space or quota left.", b.where())
	}
	return problem.Wrap(cause, refusal(what), "%s refuses the request: %s.", b.where(), printable(e.Code))
}

// unreached is a request without an answer. A certificate that we do not trust will not pass by itself, the rest may.
func (b *backend) unreached(what purpose, err error) error {
	var untrusted *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	if errors.As(err, &untrusted) || errors.As(err, &authority) || errors.As(err, &name) {
		return problem.Wrap(err, refusal(what), "The certificate of the object store at %s is not trusted.", b.host)
	}
	if header := (tls.RecordHeaderError{}); errors.As(err, &header) {
		return problem.Wrap(err, refusal(what), "The object store at %s does not speak TLS.", b.host)
	}
	return &bucket.Away{Err: problem.Wrap(err, problem.StoreAway, "The object store at %s does not answer.", b.host)}
}

// away is what may pass.
func (b *backend) away(t *trip, err error, why string) error {
	return &bucket.Away{
		After: remote.After(t.header),
		Err:   problem.Wrap(err, problem.StoreAway, "The object store at %s %s.", b.host, why),
	}
}

// refusal is the code of what the credentials do not allow.
func refusal(what purpose) problem.Code {
	if what.writes() {
		return problem.Unwritable
	}
	return problem.Unreadable
}

// printable is a word of the service that a sentence may repeat, or a dash.
func printable(word string) string {
	const most = 64
	if word == "" || len(word) > most {
		return "-"
	}
	for _, c := range word {
		if c != ' ' && c != '-' && c != '.' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return "-"
		}
	}
	return word
}
