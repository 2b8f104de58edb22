package realstores

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// A Protocol is what a store speaks.
type Protocol int

// The protocols.
const (
	SpeaksS3 Protocol = iota
	SpeaksAzure
	SpeaksGCS
)

// kind returns the name of the operation that a request asks for, as the
// protocol's own documentation has it.
func (p Protocol) kind(r *http.Request) string {
	switch p {
	case SpeaksAzure:
		return azureKind(r)
	case SpeaksGCS:
		return gcsKind(r)
	default:
		return s3Kind(r)
	}
}

// refuse answers with the error that c.Fault asks for.
func (p Protocol) refuse(w http.ResponseWriter, r *http.Request, c Call) {
	status := c.Fault.Status
	var body []byte
	switch p {
	case SpeaksAzure:
		code := azureCode(c)
		w.Header().Set("X-Ms-Error-Code", code)
		w.Header().Set("Content-Type", "application/xml")
		body = errorXML("<Error><Code>%s</Code><Message>%s</Message></Error>", code)
	case SpeaksGCS:
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		body = gcsErrorBody(status, "injected")
	default:
		w.Header().Set("Content-Type", "application/xml")
		body = errorXML("<Error><Code>%s</Code><Message>%s</Message><RequestId>0</RequestId></Error>", s3Code(c))
	}
	if r.Method == http.MethodHead || status == http.StatusNotModified {
		body = nil
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // who asked may be gone
}

func errorXML(format, code string) []byte {
	return fmt.Appendf(nil, `<?xml version="1.0" encoding="UTF-8"?>`+"\n"+format, code, "injected")
}

func s3Kind(r *http.Request) string {
	q := r.URL.Query()
	_, object, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	name := func(ofObject, ofBucket string) string {
		if object != "" {
			return ofObject
		}
		return ofBucket
	}
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == http.MethodPost && q.Has("uploadId"):
		return "CompleteMultipartUpload"
	case r.Method == http.MethodPost && q.Has("delete"):
		return "DeleteObjects"
	case q.Has("uploads"):
		return "ListMultipartUploads"
	case r.Method == http.MethodPut && q.Has("partNumber"):
		return "UploadPart"
	case r.Method == http.MethodGet && q.Has("uploadId"):
		return "ListParts"
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		return "AbortMultipartUpload"
	case q.Has("location"):
		return "GetBucketLocation"
	case q.Has("versioning"):
		return "GetBucketVersioning"
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		return "CopyObject"
	case r.Method == http.MethodPut:
		return name("PutObject", "CreateBucket")
	case r.Method == http.MethodHead:
		return name("HeadObject", "HeadBucket")
	case r.Method == http.MethodDelete:
		return name("DeleteObject", "DeleteBucket")
	case r.Method == http.MethodGet:
		return name("GetObject", "ListObjects")
	default:
		return r.Method
	}
}

// s3Code returns the code that S3 gives with a status.
func s3Code(c Call) string {
	switch c.Fault.Status {
	case http.StatusServiceUnavailable:
		return "SlowDown"
	case http.StatusConflict:
		return "ConditionalRequestConflict"
	case http.StatusPreconditionFailed:
		return "PreconditionFailed"
	case http.StatusNotFound:
		switch c.Kind {
		case "UploadPart", "CompleteMultipartUpload", "AbortMultipartUpload", "ListParts":
			return "NoSuchUpload"
		case "CreateMultipartUpload", "ListObjects", "ListMultipartUploads", "HeadBucket":
			return "NoSuchBucket"
		}
		return "NoSuchKey"
	case http.StatusForbidden:
		return "AccessDenied"
	case http.StatusBadRequest:
		return "BadDigest"
	default:
		return "InternalError"
	}
}

func azureKind(r *http.Request) string {
	q := r.URL.Query()
	container := q.Get("restype") == "container"
	switch r.Method + " " + q.Get("comp") {
	case "PUT block":
		return "PutBlock"
	case "PUT blocklist":
		return "PutBlockList"
	case "GET blocklist":
		return "GetBlockList"
	case "GET list":
		if container {
			return "ListBlobs"
		}
		return "ListContainers"
	case "PUT metadata":
		return "SetBlobMetadata"
	case "PUT properties":
		return "SetBlobProperties"
	case "PUT lease":
		return "LeaseBlob"
	case "HEAD ", "HEAD metadata":
		if container {
			return "GetContainerProperties"
		}
		return "GetBlobProperties"
	case "GET ":
		if container {
			return "GetContainerProperties"
		}
		return "GetBlob"
	case "PUT ":
		switch {
		case container:
			return "CreateContainer"
		case r.Header.Get("X-Ms-Copy-Source") != "":
			return "CopyBlob"
		}
		return "PutBlob"
	case "DELETE ":
		if container {
			return "DeleteContainer"
		}
		return "DeleteBlob"
	default:
		return strings.TrimSpace(r.Method + " " + q.Get("comp"))
	}
}

// azureCode returns the code that Azure gives with a status.
func azureCode(c Call) string {
	switch c.Fault.Status {
	case http.StatusServiceUnavailable:
		return "ServerBusy"
	case http.StatusConflict:
		return "BlobAlreadyExists"
	case http.StatusPreconditionFailed:
		return "ConditionNotMet"
	case http.StatusNotFound:
		return "BlobNotFound"
	case http.StatusForbidden:
		return "AuthorizationFailure"
	case http.StatusBadRequest:
		return "InvalidBlockList"
	default:
		return "InternalError"
	}
}

func gcsKind(r *http.Request) string {
	if strings.HasPrefix(r.URL.Path, "/upload/") {
		if r.URL.Query().Has("upload_id") {
			return "Resume"
		}
		return "Insert"
	}
	t := parseTarget(r)
	switch {
	case t.bucket == "":
		return r.Method + " bucket"
	case t.verb == "compose":
		return "Compose"
	case t.verb != "":
		return "Rewrite"
	case t.object == "":
		return "List"
	case r.Method == http.MethodGet && r.URL.Query().Get("alt") == "media":
		return "GetMedia"
	case r.Method == http.MethodGet:
		return "Get"
	case r.Method == http.MethodDelete:
		return "Delete"
	case r.Method == http.MethodPatch:
		return "Patch"
	default:
		return r.Method
	}
}
