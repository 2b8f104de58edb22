package realstores

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	maxInsert = 512 << 20 // bytes of one insert, which the proxy keeps until it is whole
	maxList   = 1000      // objects on one page of a listing
)

// An honest is the proxy of GCSEmulator. It looks at the preconditions that the
// server behind does not look at.
type honest struct {
	target    *url.URL
	transport *http.Transport
	back      *httputil.ReverseProxy

	// writes is held by who looks and then writes. An insert, which the server behind
	// does in one step, shares it.
	writes sync.RWMutex

	mu       sync.Mutex
	composed map[string]int // number of components by versionKey
}

func newHonest(target *url.URL) *honest {
	h := &honest{target: target, transport: &http.Transport{DisableCompression: true}, composed: map[string]int{}}
	h.back = forwarder(target, h.transport)
	h.back.ModifyResponse = h.mend
	return h
}

// ServeHTTP implements http.Handler.
func (h *honest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.serve(w, r); err != nil {
		writeGCSError(w, err)
	}
}

// serve answers, or returns an error with which nothing was done.
func (h *honest) serve(w http.ResponseWriter, r *http.Request) error {
	if strings.HasPrefix(r.URL.EscapedPath(), "/upload/") {
		return h.insert(w, r)
	}
	t := parseTarget(r)
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case t.bucket == "":
		h.back.ServeHTTP(w, r)
		return nil
	case t.object == "":
		if reads {
			capPage(r)
		}
		h.back.ServeHTTP(w, r)
		return nil
	case reads:
		return h.read(w, r, t)
	}
	// What was begun is ended under the lock, also if nobody waits for the answer.
	r = r.WithContext(context.WithoutCancel(r.Context()))
	body, err := readBody(w, r, maxAnswer)
	if err != nil {
		return err
	}
	h.writes.Lock()
	defer h.writes.Unlock()
	switch t.verb {
	case "compose":
		var components int
		components, err = h.checkCompose(r, t, body)
		r = r.WithContext(context.WithValue(r.Context(), componentsKey{}, components))
	case "rewriteTo", "copyTo":
		err = errors.Join(h.check(r, t.bucket, t.object, "ifSource"), h.check(r, t.toBucket, t.toObject, "if"))
	default:
		err = h.check(r, t.bucket, t.object, "if")
	}
	if err != nil {
		return err
	}
	h.back.ServeHTTP(w, r)
	return nil
}

// insert forwards an insert when all of it has come, so that nobody has to
// wait for a client that sends slowly.
func (h *honest) insert(w http.ResponseWriter, r *http.Request) error {
	r = r.WithContext(context.WithoutCancel(r.Context()))
	if _, err := readBody(w, r, maxInsert); err != nil {
		return err
	}
	h.writes.RLock()
	defer h.writes.RUnlock()
	h.back.ServeHTTP(w, r)
	return nil
}

// read forwards a read with a condition as one of the generation that was looked at.
func (h *honest) read(w http.ResponseWriter, r *http.Request, t target) error {
	now, err := h.checked(r, t.bucket, t.object, "if")
	if err != nil {
		return err
	}
	if q := r.URL.Query(); now != 0 && !q.Has("generation") {
		q.Set("generation", strconv.FormatInt(now, 10))
		r.URL.RawQuery = q.Encode()
	}
	h.back.ServeHTTP(w, r)
	return nil
}

// check returns an error if a condition on an object does not hold. The names
// of the conditions begin with prefix.
func (h *honest) check(r *http.Request, bucket, object, prefix string) error {
	_, err := h.checked(r, bucket, object, prefix)
	return err
}

// checked is check and returns the generation that was looked at, 0 if there is
// none or nothing to check.
func (h *honest) checked(r *http.Request, bucket, object, prefix string) (now int64, err error) {
	q := r.URL.Query()
	if !q.Has(prefix+"GenerationMatch") && !q.Has(prefix+"GenerationNotMatch") {
		return 0, nil
	}
	now, _, err = h.generation(r.Context(), bucket, object)
	if err != nil {
		return 0, err
	}
	for _, c := range []struct {
		name string
		want bool // that they are equal
	}{{prefix + "GenerationMatch", true}, {prefix + "GenerationNotMatch", false}} {
		if !q.Has(c.name) {
			continue
		}
		n, err := strconv.ParseInt(q.Get(c.name), 10, 64)
		switch {
		case err != nil:
			return 0, &gcsError{http.StatusBadRequest, "invalid value for " + c.name}
		case (n == now) == c.want:
		case !c.want && r.Method == http.MethodGet:
			return 0, &gcsError{http.StatusNotModified, "not modified"}
		default:
			return 0, errCondition()
		}
	}
	return now, nil
}

// checkCompose looks at the sources and the destination of a compose, and
// returns the number of components that it makes.
func (h *honest) checkCompose(r *http.Request, t target, body []byte) (components int, err error) {
	var request struct {
		SourceObjects []struct {
			Name                string
			Generation          json.Number
			ObjectPreconditions struct {
				IfGenerationMatch json.Number
			}
		}
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return 0, &gcsError{http.StatusBadRequest, "parse error"}
	}
	if len(request.SourceObjects) == 0 {
		return 0, &gcsError{http.StatusBadRequest, "you must provide at least one source component"}
	}
	for _, s := range request.SourceObjects {
		now, count, err := h.generation(r.Context(), t.bucket, s.Name)
		if err != nil {
			return 0, err
		}
		is := strconv.FormatInt(now, 10)
		if now == 0 || s.Generation != "" && string(s.Generation) != is {
			return 0, &gcsError{http.StatusNotFound, fmt.Sprintf("Object %s/%s (generation: %s) not found.", t.bucket, s.Name, s.Generation)}
		}
		if m := s.ObjectPreconditions.IfGenerationMatch; m != "" && string(m) != is {
			return 0, errCondition()
		}
		components += count
	}
	return components, h.check(r, t.bucket, t.object, "if")
}

// componentsKey is of a number of components in the context of a compose.
type componentsKey struct{}

// generation returns the live generation of an object, 0 if there is none, and
// its number of components.
func (h *honest) generation(ctx context.Context, bucket, object string) (now int64, components int, err error) {
	at := h.target.String() + "/storage/v1/b/" + url.PathEscape(bucket) + "/o/" + url.PathEscape(object)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return 0, 0, fmt.Errorf("looking at %s/%s: %w", bucket, object, err)
	}
	res, err := h.transport.RoundTrip(req)
	if err != nil {
		return 0, 0, fmt.Errorf("looking at %s/%s: %w", bucket, object, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	switch {
	case err != nil:
		return 0, 0, fmt.Errorf("looking at %s/%s: %w", bucket, object, err)
	case res.StatusCode == http.StatusNotFound:
		return 0, 0, nil
	}
	var o struct {
		Generation int64 `json:",string"`
	}
	if err := json.Unmarshal(b, &o); err != nil || res.StatusCode != http.StatusOK || o.Generation == 0 {
		return 0, 0, fmt.Errorf("looking at %s/%s: status %d: %.200s", bucket, object, res.StatusCode, b)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return o.Generation, max(1, h.composed[versionKey(bucket, object, strconv.FormatInt(o.Generation, 10))]), nil
}

// mend changes what an answer says of composed objects.
func (h *honest) mend(res *http.Response) error {
	t := parseTarget(res.Request)
	if t.bucket == "" || res.StatusCode >= http.StatusMultipleChoices {
		return nil
	}
	if g := res.Header.Get("X-Goog-Generation"); g != "" { // content, not JSON
		if h.components(t.bucket, t.object, g) > 0 {
			crc, _, _ := strings.Cut(res.Header.Get("X-Goog-Hash"), ",")
			res.Header.Set("X-Goog-Hash", crc)
		}
		return nil
	}
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") || res.Request.Method == http.MethodDelete {
		return nil
	}
	answer, err := decodeObject(res.Body)
	if err != nil {
		return err
	}
	if n, ok := res.Request.Context().Value(componentsKey{}).(int); ok {
		h.mu.Lock()
		h.composed[versionKey(t.bucket, t.object, fmt.Sprint(answer["generation"]))] = n
		h.mu.Unlock()
	}
	items, _ := answer["items"].([]any)
	for _, o := range append(slices.Clone(items), answer) {
		h.mendObject(o)
	}
	b, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("encoding an answer: %w", err)
	}
	res.Body = io.NopCloser(bytes.NewReader(b))
	res.ContentLength = int64(len(b))
	res.Header.Set("Content-Length", strconv.Itoa(len(b)))
	return nil
}

func (h *honest) mendObject(v any) {
	o, ok := v.(map[string]any)
	if !ok {
		return
	}
	bucket, _ := o["bucket"].(string)
	name, _ := o["name"].(string)
	if n := h.components(bucket, name, fmt.Sprint(o["generation"])); n > 0 {
		delete(o, "md5Hash")
		o["componentCount"] = n
	}
}

// components returns the number of components of a version, 0 if it was not composed.
func (h *honest) components(bucket, object, generation string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.composed[versionKey(bucket, object, generation)]
}

func versionKey(bucket, object, generation string) string {
	return bucket + "/" + object + "#" + generation
}
