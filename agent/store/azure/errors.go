package azure

import (
	"errors"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/remote"
	"github.com/consign-transfer/consign/token/problem"
)

// refused types a refusal of the service, by its code where it has one that tells more than the status.
func refused(what call, e *azcore.ResponseError) error {
	creating := what == puts || what == completes
	switch bloberror.Code(e.ErrorCode) {
	case bloberror.BlobAlreadyExists, bloberror.ResourceAlreadyExists, bloberror.UnauthorizedBlobOverwrite:
		return problem.Wrap(e, problem.Taken, "The store has an object of this name")
	case bloberror.InvalidBlobType, bloberror.LeaseIDMissing, bloberror.BlobImmutableDueToPolicy:
		// It is there, as something that is not written to without more.
		if creating || what == stages {
			return problem.Wrap(e, problem.Taken, "The store has an object of this name")
		}
		return problem.Wrap(e, problem.Unwritable, "The store protects the object from being changed")
	case bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted, bloberror.ContainerDisabled, bloberror.AccountIsDisabled:
		return denied(what, e)
	case bloberror.InvalidBlockList:
		return errors.Join(bucket.ErrNoUpload, e)
	case bloberror.InvalidBlobOrBlock, bloberror.InvalidBlockID:
		return problem.Wrap(e, problem.Unwritable, "Another program has unfinished blocks of this name")
	case bloberror.BlockCountExceedsLimit:
		return problem.Wrap(e, problem.DiskFull, "The name has as many unfinished blocks as the service takes")
	case bloberror.InvalidResourceName, bloberror.OutOfRangeInput, bloberror.InvalidURI, bloberror.RequestURLFailedToParse:
		return problem.Wrap(e, problem.BadName, "The store does not take the name")
	case bloberror.MD5Mismatch, bloberror.CRC64Mismatch:
		return &bucket.Away{Err: e}
	case bloberror.SnapshotsPresent:
		return problem.Wrap(e, problem.Unwritable, "The object has snapshots")
	}
	return byStatus(what, e)
}

func byStatus(what call, e *azcore.ResponseError) error {
	switch s := e.StatusCode; {
	case remote.Passing(s):
		away := &bucket.Away{Err: e}
		if e.RawResponse != nil {
			away.After = remote.After(e.RawResponse.Header)
		}
		return away
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		return denied(what, e)
	case s == http.StatusNotFound && what == completes:
		return errors.Join(bucket.ErrNoUpload, e)
	case s == http.StatusNotFound && (what == reads || what == removes):
		return problem.Wrap(e, problem.Missing, "The store has no such object")
	case s == http.StatusNotFound: // what is created in is not there
		return denied(what, e)
	case s == http.StatusPreconditionFailed && (what == puts || what == completes):
		return problem.Wrap(e, problem.Taken, "The store has an object of this name")
	case s == http.StatusPreconditionFailed && what != stages && what != lists:
		return problem.Wrap(e, problem.Changed, "The object has another version")
	case s == http.StatusConflict:
		return errors.Join(bucket.ErrConflict, e)
	}
	return refusal(what, e, "The store has refused the request with status %d", e.StatusCode)
}

// denied says that the credentials, or the container, are not there for it.
func denied(what call, cause error) error {
	return refusal(what, cause, "The store's container is not there, or does not let this agent do that")
}

// refusal is of the kind that tells what was refused: to read or to write.
func refusal(what call, cause error, format string, args ...any) error {
	if what == reads || what == lists {
		return problem.Wrap(cause, problem.Unreadable, format, args...)
	}
	return problem.Wrap(cause, problem.Unwritable, format, args...)
}
