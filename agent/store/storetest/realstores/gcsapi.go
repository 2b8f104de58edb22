package realstores

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// A target is what a request to the JSON API is about. All names are unescaped.
type target struct {
	bucket, object     string // object is empty for the objects of a bucket
	verb               string // compose, rewriteTo, copyTo or empty
	toBucket, toObject string // of rewriteTo and copyTo
}

// parseTarget returns the zero target for what is about no objects.
func parseTarget(r *http.Request) target {
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/download")
	path, ok := strings.CutPrefix(path, "/storage/v1/b/")
	bucket, rest, ok2 := strings.Cut(path, "/")
	rest, ok3 := strings.CutPrefix(rest+"/", "o/")
	if !ok || !ok2 || !ok3 {
		return target{}
	}
	t := target{bucket: unescape(bucket), object: strings.TrimSuffix(rest, "/")}
	if r.Method == http.MethodPost {
		if object, ok := strings.CutSuffix(t.object, "/compose"); ok {
			t.object, t.verb = object, "compose"
		}
		for _, verb := range []string{"rewriteTo", "copyTo"} {
			if object, to, ok := strings.Cut(t.object, "/"+verb+"/b/"); ok {
				bucket, object2, _ := strings.Cut(to, "/o/")
				t.object, t.verb, t.toBucket, t.toObject = object, verb, unescape(bucket), unescape(object2)
			}
		}
	}
	t.object = unescape(t.object)
	return t
}

// unescape returns s as it is if it is not escaped well; the server behind refuses it.
func unescape(s string) string {
	if u, err := url.PathUnescape(s); err == nil {
		return u
	}
	return s
}

// capPage lets a listing ask for no more than GCS gives on one page.
func capPage(r *http.Request) {
	q := r.URL.Query()
	if n, err := strconv.Atoi(q.Get("maxResults")); q.Get("maxResults") == "" || err == nil && (n == 0 || n > maxList) {
		q.Set("maxResults", strconv.Itoa(maxList))
		r.URL.RawQuery = q.Encode()
	}
}

// readBody reads the whole body of r, which it puts in its place.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, &gcsError{http.StatusRequestEntityTooLarge, fmt.Sprintf("this proxy takes %d bytes at once", limit)}
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
	if len(b) > 0 {
		r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
	}
	return b, nil
}

// decodeObject decodes a JSON object and keeps its numbers as they are written.
func decodeObject(r io.ReadCloser) (map[string]any, error) {
	defer r.Close()
	d := json.NewDecoder(io.LimitReader(r, maxAnswer))
	d.UseNumber()
	var o map[string]any
	if err := d.Decode(&o); err != nil {
		return nil, fmt.Errorf("decoding an answer: %w", err)
	}
	return o, nil
}

// A gcsError is an answer that refuses.
type gcsError struct {
	status  int
	message string
}

// Error implements error.
func (e *gcsError) Error() string { return e.message }

func errCondition() error {
	return &gcsError{http.StatusPreconditionFailed, "At least one of the pre-conditions you specified did not hold."}
}

// writeGCSError answers with an error as the JSON API has it. One that is not
// ours breaks the connection.
func writeGCSError(w http.ResponseWriter, err error) {
	var e *gcsError
	if !errors.As(err, &e) {
		panic(http.ErrAbortHandler)
	}
	if e.status == http.StatusNotModified {
		w.WriteHeader(e.status)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(e.status)
	_, _ = w.Write(gcsErrorBody(e.status, e.message)) // who asked may be gone
}

// gcsErrorBody returns the body of an error of the JSON API.
func gcsErrorBody(status int, message string) []byte {
	reason := map[int]string{
		http.StatusBadRequest: "invalid", http.StatusNotFound: "notFound", http.StatusConflict: "conflict",
		http.StatusPreconditionFailed: "conditionNotMet", http.StatusRequestEntityTooLarge: "uploadTooLarge",
		http.StatusTooManyRequests: "rateLimitExceeded", http.StatusInternalServerError: "internalError",
		http.StatusServiceUnavailable: "backendError",
	}[status]
	item := map[string]any{"message": message, "domain": "global", "reason": reason}
	if status == http.StatusPreconditionFailed {
		item["locationType"], item["location"] = "header", "If-Match"
	}
	b, err := json.Marshal(map[string]any{"error": map[string]any{"code": status, "message": message, "errors": []any{item}}})
	if err != nil {
		return nil // strings and a number can be encoded
	}
	return b
}
