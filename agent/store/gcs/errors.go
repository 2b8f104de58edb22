package gcs

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
	"github.com/consign-transfer/consign/token/problem"
)

// A call is what a request was for, which decides what a refusal means.
type call int

const (
	reads call = iota
	lists
	puts      // creates
	stages    // a part
	composes  // an intermediate
	completes // creates by composing
	removes
)

// failed types err, which is what call came to.
func failed(ctx context.Context, what call, err error) error {
	if err == nil {
		return nil
	}
	var answer *googleapi.Error
	var login *oauth2.RetrieveError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &answer):
		return refused(what, answer)
	case errors.As(err, &login) && login.Response != nil && !remote.Passing(login.Response.StatusCode):
		return denied(what, err)
	}
	return remote.Lost(ctx, err)
}

// refused types a refusal of the service.
func refused(what call, e *googleapi.Error) error {
	composing := what == composes || what == completes
	switch {
	case remote.Passing(e.Code), e.Code == http.StatusForbidden && hasReason(e, "rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"):
		return &bucket.Away{After: remote.After(e.Header), Err: e}
	case e.Code == http.StatusUnauthorized, e.Code == http.StatusForbidden:
		return denied(what, e)
	case e.Code == http.StatusNotFound && composing:
		return errors.Join(bucket.ErrNoUpload, e)
	case e.Code == http.StatusNotFound && (what == reads || what == removes):
		return problem.Wrap(e, problem.Missing, "The store has no such object")
	case e.Code == http.StatusNotFound: // what is created in is not there
		return denied(what, e)
	case e.Code == http.StatusPreconditionFailed && (what == puts || what == completes):
		return problem.Wrap(e, problem.Taken, "The store has an object of this name")
	case e.Code == http.StatusPreconditionFailed && (what == reads || what == removes):
		return problem.Wrap(e, problem.Changed, "The object has another version")
	case e.Code == http.StatusConflict:
		return errors.Join(bucket.ErrConflict, e)
	}
	return refusal(what, e, "The store has refused the request with status %d", e.Code)
}

func hasReason(e *googleapi.Error, reasons ...string) bool {
	items := e.Errors
	if len(items) == 0 { // the client does not take apart what a read of content is refused with
		var body struct {
			Error struct{ Errors []googleapi.ErrorItem }
		}
		if json.Unmarshal([]byte(e.Body), &body) == nil {
			items = body.Error.Errors
		}
	}
	return slices.ContainsFunc(items, func(i googleapi.ErrorItem) bool { return slices.Contains(reasons, i.Reason) })
}

// denied says that the credentials, or the bucket, are not there for it.
func denied(what call, cause error) error {
	return refusal(what, cause, "The store's bucket is not there, or does not let this agent do that")
}

// refusal is of the kind that tells what was refused: to read or to write.
func refusal(what call, cause error, format string, args ...any) error {
	if what == reads || what == lists {
		return problem.Wrap(cause, problem.Unreadable, format, args...)
	}
	return problem.Wrap(cause, problem.Unwritable, format, args...)
}
