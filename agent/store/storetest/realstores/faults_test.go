package realstores_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
)

// A backend is a server that notes what reached it.
type backend struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string // method, host, request URI, a header and the body
}

func newBackend(t *testing.T) *backend {
	t.Helper()
	b := &backend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.seen = append(b.seen, fmt.Sprintf("%s %s %s %s %q", r.Method, r.Host, r.RequestURI, r.Header.Get("Authorization"), body))
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, "done")
	}))
	t.Cleanup(b.Server.Close)
	return b
}

func (b *backend) got() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.seen)
}

func newFaults(t *testing.T, p realstores.Protocol, endpoint string) *realstores.Faults {
	t.Helper()
	f, err := realstores.NewFaults(t.Context(), p, endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// send sends one request on a connection of its own and returns the status, 0 if the connection broke, the
// answer's header and its body.
func send(t *testing.T, method, url, body string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "signed")
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, ""
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

// TestForwardChangesNothing checks that what a signature is over reaches the store as it was sent.
func TestForwardChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	f := newFaults(t, realstores.SpeaksS3, b.URL+"/account")
	host := strings.TrimPrefix(strings.TrimSuffix(f.URL(), "/account"), "http://")
	const uri = "/account/b/a%20b%2Fc%2B+d//e?x=a;b&&partNumber=1&uploadId=%2f&flag"
	status, _, body := send(t, http.MethodPut, "http://"+host+uri, "content")
	if status != http.StatusCreated || body != "done" {
		t.Errorf("got %d %q, want 201 done", status, body)
	}
	want := fmt.Sprintf("PUT %s %s signed %q", host, uri, "content")
	if got := b.got(); len(got) != 1 || got[0] != want {
		t.Errorf("got  %v\nwant [%s]", got, want)
	}
}

// TestForwardStreams checks that a body is not held back until it is whole.
func TestForwardStreams(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadFull(r.Body, make([]byte, 5)); err == nil {
			close(arrived)
		}
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(b.Close)
	f := newFaults(t, realstores.SpeaksS3, b.URL)
	in, out := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, f.URL(), in)
	if err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the request
		_, _ = out.Write([]byte("first"))
		select {
		case <-arrived:
			_, _ = out.Write([]byte("second"))
			_ = out.Close()
		case <-t.Context().Done():
			_ = out.CloseWithError(t.Context().Err())
		}
	}()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); string(got) != "second" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestEveryFault checks of every action what the client gets and whether the store did it.
func TestEveryFault(t *testing.T) {
	t.Parallel()
	zero := 0
	const part = "/b/k?partNumber=1&uploadId=u"
	for _, tt := range []struct {
		what     string
		protocol realstores.Protocol
		fault    realstores.Fault
		status   int
		answer   string // in header or body
		done     int
	}{
		{"nothing", realstores.SpeaksS3, realstores.Fault{}, 201, "done", 1},
		{"a lost request", realstores.SpeaksS3, realstores.Fault{Action: realstores.LoseRequest}, 0, "", 0},
		{"a lost answer", realstores.SpeaksS3, realstores.Fault{Action: realstores.LoseAnswer}, 0, "", 1},
		{"a lie", realstores.SpeaksS3, realstores.Fault{Action: realstores.LieAfter, Status: 500}, 500, "<Code>InternalError</Code>", 1},
		{"S3 500", realstores.SpeaksS3, realstores.Fault{Action: realstores.Refuse, Status: 500}, 500, "<Code>InternalError</Code>", 0},
		{"S3 200", realstores.SpeaksS3, realstores.Fault{Action: realstores.Refuse, Status: 200}, 200, "<Code>InternalError</Code>", 0},
		{"S3 503", realstores.SpeaksS3, realstores.Fault{Action: realstores.Refuse, Status: 503, RetryAfter: &zero}, 503, "<Code>SlowDown</Code>", 0},
		{"S3 409", realstores.SpeaksS3, realstores.Fault{Action: realstores.Refuse, Status: 409}, 409, "<Code>ConditionalRequestConflict</Code>", 0},
		{"S3 412", realstores.SpeaksS3, realstores.Fault{Action: realstores.Refuse, Status: 412}, 412, "<Code>PreconditionFailed</Code>", 0},
		{"S3 404", realstores.SpeaksS3, realstores.Fault{Action: realstores.Refuse, Status: 404}, 404, "<Code>NoSuchUpload</Code>", 0},
		{"Azure 503", realstores.SpeaksAzure, realstores.Fault{Action: realstores.Refuse, Status: 503, RetryAfter: &zero}, 503, "ServerBusy", 0},
		{"Azure 500", realstores.SpeaksAzure, realstores.Fault{Action: realstores.Refuse, Status: 500}, 500, "InternalError", 0},
		{"Azure 409", realstores.SpeaksAzure, realstores.Fault{Action: realstores.Refuse, Status: 409}, 409, "BlobAlreadyExists", 0},
		{"GCS 503", realstores.SpeaksGCS, realstores.Fault{Action: realstores.Refuse, Status: 503, RetryAfter: &zero}, 503, `"backendError"`, 0},
		{"GCS 412", realstores.SpeaksGCS, realstores.Fault{Action: realstores.Refuse, Status: 412}, 412, `"conditionNotMet"`, 0},
	} {
		t.Run(tt.what, func(t *testing.T) {
			t.Parallel()
			b := newBackend(t)
			f := newFaults(t, tt.protocol, b.URL)
			f.Plan(func(realstores.Call, *http.Request) realstores.Fault { return tt.fault })
			status, header, body := send(t, http.MethodPut, f.URL()+part, strings.Repeat("x", 1<<20))
			if status != tt.status || !strings.Contains(body, tt.answer) {
				t.Errorf("got %d %q, want %d with %q", status, body, tt.status, tt.answer)
			}
			if got := len(b.got()); got != tt.done {
				t.Errorf("the store did it %d times, want %d", got, tt.done)
			}
			if got, want := header.Get("Retry-After"), map[bool]string{true: "0"}[tt.fault.RetryAfter != nil]; got != want {
				t.Errorf("Retry-After: got %q, want %q", got, want)
			}
			if got := header.Get("X-Ms-Error-Code"); tt.protocol == realstores.SpeaksAzure && got != tt.answer {
				t.Errorf("X-Ms-Error-Code: got %q, want %q", got, tt.answer)
			}
			calls := f.Requests()
			if len(calls) != 1 || calls[0].Status != tt.status || calls[0].Fault != tt.fault {
				t.Errorf("calls: %+v", calls)
			}
		})
	}
}

// TestPlan checks that requests are numbered by kind, and that only the one that was meant is hit.
func TestPlan(t *testing.T) {
	t.Parallel()
	b := newBackend(t)
	f := newFaults(t, realstores.SpeaksS3, b.URL)
	run := func() (statuses []int) {
		for _, r := range []string{"POST /b/k?uploads=", "PUT /b/k?partNumber=1&uploadId=u", "PUT /b/k?partNumber=2&uploadId=u", "POST /b/k?uploadId=u"} {
			method, uri, _ := strings.Cut(r, " ")
			status, _, _ := send(t, method, f.URL()+uri, "x")
			statuses = append(statuses, status)
		}
		return statuses
	}
	run()
	var kinds []string
	for i, c := range f.Requests() {
		kinds = append(kinds, fmt.Sprint(c.Kind, " ", c.Nth))
		if c.N != i+1 || c.Path != "/b/k" || c.Status != http.StatusCreated {
			t.Errorf("call %d: %+v", i, c)
		}
	}
	if want := []string{"CreateMultipartUpload 1", "UploadPart 1", "UploadPart 2", "CompleteMultipartUpload 1"}; !slices.Equal(kinds, want) {
		t.Errorf("got %q, want %q", kinds, want)
	}
	f.Plan(realstores.At("UploadPart", 2, realstores.Fault{Action: realstores.Refuse, Status: 503}))
	if got, want := run(), []int{201, 201, 503, 201}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := f.Count("UploadPart"); got != 2 {
		t.Errorf("UploadPart: got %d, want 2", got)
	}
}

// TestKinds checks what operations are called.
func TestKinds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		protocol        realstores.Protocol
		request, header string
		want            string
	}{
		{realstores.SpeaksS3, "PUT /b/k/l", "", "PutObject"},
		{realstores.SpeaksS3, "PUT /b/k", "X-Amz-Copy-Source", "CopyObject"},
		{realstores.SpeaksS3, "PUT /b/", "", "CreateBucket"},
		{realstores.SpeaksS3, "GET /b/?list-type=2", "", "ListObjects"},
		{realstores.SpeaksS3, "GET /b/?uploads=", "", "ListMultipartUploads"},
		{realstores.SpeaksS3, "GET /b/k?uploadId=1", "", "ListParts"},
		{realstores.SpeaksS3, "GET /b/k", "", "GetObject"},
		{realstores.SpeaksS3, "HEAD /b/k", "", "HeadObject"},
		{realstores.SpeaksS3, "HEAD /b", "", "HeadBucket"},
		{realstores.SpeaksS3, "DELETE /b/k", "", "DeleteObject"},
		{realstores.SpeaksS3, "DELETE /b/k?uploadId=1", "", "AbortMultipartUpload"},
		{realstores.SpeaksS3, "POST /b?delete=", "", "DeleteObjects"},
		{realstores.SpeaksAzure, "PUT /a/c/k?comp=block&blockid=AA", "", "PutBlock"},
		{realstores.SpeaksAzure, "PUT /a/c/k?comp=blocklist", "", "PutBlockList"},
		{realstores.SpeaksAzure, "GET /a/c/k?comp=blocklist", "", "GetBlockList"},
		{realstores.SpeaksAzure, "GET /a/c?restype=container&comp=list", "", "ListBlobs"},
		{realstores.SpeaksAzure, "GET /a/c?restype=container", "", "GetContainerProperties"},
		{realstores.SpeaksAzure, "PUT /a/c?restype=container", "", "CreateContainer"},
		{realstores.SpeaksAzure, "PUT /a/c/k", "", "PutBlob"},
		{realstores.SpeaksAzure, "GET /a/c/k", "", "GetBlob"},
		{realstores.SpeaksAzure, "HEAD /a/c/k", "", "GetBlobProperties"},
		{realstores.SpeaksAzure, "DELETE /a/c/k", "", "DeleteBlob"},
		{realstores.SpeaksGCS, "POST /upload/storage/v1/b/one/o?uploadType=multipart", "", "Insert"},
		{realstores.SpeaksGCS, "PUT /upload/storage/v1/b/one/o?upload_id=1", "", "Resume"},
		{realstores.SpeaksGCS, "POST /storage/v1/b/one/o/a%2Fb/compose", "", "Compose"},
		{realstores.SpeaksGCS, "POST /storage/v1/b/one/o/a/rewriteTo/b/one/o/b", "", "Rewrite"},
		{realstores.SpeaksGCS, "GET /storage/v1/b/one/o?prefix=a", "", "List"},
		{realstores.SpeaksGCS, "GET /storage/v1/b/one/o/a%2Fb", "", "Get"},
		{realstores.SpeaksGCS, "GET /storage/v1/b/one/o/a%2Fb?alt=media", "", "GetMedia"},
		{realstores.SpeaksGCS, "DELETE /storage/v1/b/one/o/a", "", "Delete"},
		{realstores.SpeaksGCS, "GET /storage/v1/b/one", "", "GET bucket"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			b := newBackend(t)
			f := newFaults(t, tt.protocol, b.URL)
			method, uri, _ := strings.Cut(tt.request, " ")
			req, err := http.NewRequestWithContext(t.Context(), method, f.URL()+uri, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.header != "" {
				req.Header.Set(tt.header, "x")
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if got := f.Requests(); len(got) != 1 || got[0].Kind != tt.want {
				t.Errorf("%s: got %+v, want %s", tt.request, got, tt.want)
			}
		})
	}
}

// TestSignaturesHoldBehindFaults checks real signatures through the proxy, and an answer that is lost after the
// real store did what was asked.
func TestSignaturesHoldBehindFaults(t *testing.T) {
	t.Parallel()
	s := s3Server(t, realstores.Versitygw)
	f := newFaults(t, realstores.SpeaksS3, s.Endpoint)
	through := *s
	through.Endpoint = f.URL()
	if err := through.MakeBucket(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	f.Plan(realstores.At("PutObject", 1, realstores.Fault{Action: realstores.LoseAnswer}))
	const target = "/one/a b/ü+c"
	var r *realstores.Refusal
	if _, err := through.Do(t.Context(), http.MethodPut, target, []byte("content"), "If-None-Match", "*"); err == nil || errors.As(err, &r) {
		t.Errorf("a lost answer: got %v, want a broken connection", err)
	}
	a, err := through.Do(t.Context(), http.MethodPut, target, []byte("content"), "If-None-Match", "*")
	if got := status(t, a, err); got != http.StatusPreconditionFailed {
		t.Errorf("the same once more: got %d, want 412", got)
	}
	a, err = through.Do(t.Context(), http.MethodGet, target, nil)
	if got := string(granted(t, a, err).Body); got != "content" {
		t.Errorf("got %q, want %q", got, "content")
	}
}

// TestSharedKeyHoldsBehindFaults checks the same of Azure, whose account is in the path.
func TestSharedKeyHoldsBehindFaults(t *testing.T) {
	t.Parallel()
	s, err := realstores.Azurite(t.Context(), t.TempDir())
	running(t, s, err)
	f := newFaults(t, realstores.SpeaksAzure, s.Endpoint)
	through := *s
	through.Endpoint = f.URL()
	if err := through.MakeContainer(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	a, err := through.Do(t.Context(), http.MethodGet, "/one?restype=container&comp=list", nil)
	granted(t, a, err)
	if got := f.Count("CreateContainer") + f.Count("ListBlobs"); got != 2 {
		t.Errorf("got %+v, want 2 calls", f.Requests())
	}
}

// TestCloseBreaksWhatHangs checks that Close does not wait for a store that never answers.
func TestCloseBreaksWhatHangs(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{})
	ctx, release := context.WithCancel(context.Background())
	defer release()
	b := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(asked)
		<-ctx.Done()
	}))
	f, err := realstores.NewFaults(t.Context(), realstores.SpeaksS3, b.URL)
	if err != nil {
		t.Fatal(err)
	}
	var client sync.WaitGroup
	client.Go(func() {
		if got, _, _ := send(t, http.MethodGet, f.URL(), ""); got != 0 {
			t.Errorf("got %d, want a broken connection", got)
		}
	})
	<-asked
	for range 2 {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	client.Wait()
	release()
	b.Close()
}
