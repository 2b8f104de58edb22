package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/token/problem"
)

// kind is a failure as bucket.Backend names it.
func kind(err error) string {
	var away *bucket.Away
	switch {
	case err == nil:
		return "nil"
	case errors.As(err, &away):
		return "away"
	case errors.Is(err, bucket.ErrConflict):
		return "conflict"
	case errors.Is(err, bucket.ErrNoUpload):
		return "no upload"
	}
	return string(problem.Of(err))
}

// calls are all calls of a backend, by name.
func calls(b *backend) map[string]func(ctx context.Context) error {
	up := bucket.Upload{Key: "k", ID: "id"}
	return map[string]func(ctx context.Context) error{
		"Head": func(ctx context.Context) error { _, err := b.Head(ctx, "k"); return err },
		"Get": func(ctx context.Context) error {
			r, _, err := b.Get(ctx, "k", "e1", 0, 10)
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, r)
			return errors.Join(err, r.Close())
		},
		"List":  func(ctx context.Context) error { return b.List(ctx, "", "", func(bucket.Object) bool { return true }) },
		"Put":   func(ctx context.Context) error { _, err := b.Put(ctx, "k", []byte("x"), header()); return err },
		"Begin": func(ctx context.Context) error { _, err := b.Begin(ctx, "k", header()); return err },
		"PutPart": func(ctx context.Context) error {
			_, err := b.PutPart(ctx, up, 0, bytes.NewReader(pattern(1000)), 1000)
			return err
		},
		"Parts": func(ctx context.Context) error { _, err := b.Parts(ctx, up); return err },
		"Complete": func(ctx context.Context) error {
			_, err := b.Complete(ctx, up, []bucket.Part{{Mark: "e1 AAAAAA=="}}, header())
			return err
		},
		"Abort":   func(ctx context.Context) error { return b.Abort(ctx, up) },
		"Uploads": func(ctx context.Context) error { return b.Uploads(ctx, "", func(bucket.Upload) bool { return true }) },
		"Delete":  func(ctx context.Context) error { return b.Delete(ctx, "k", "") },
	}
}

// TestRefusals is the table of what every answer means. HEAD has no body, so Head knows the status alone.
func TestRefusals(t *testing.T) {
	t.Parallel()
	reads, creates := "Head Get List Uploads", "Put Begin"
	everything := reads + " " + creates + " PutPart Parts Complete Abort Delete"
	for _, tt := range []struct {
		status int
		code   string
		want   map[string]string // calls to kind
	}{
		{503, "SlowDown", map[string]string{everything: "away"}},
		{503, "", map[string]string{everything: "away"}},
		{500, "InternalError", map[string]string{everything: "away"}},
		{502, "", map[string]string{everything: "away"}},
		{429, "TooManyRequests", map[string]string{everything: "away"}},
		{408, "", map[string]string{everything: "away"}},
		{400, "RequestTimeout", map[string]string{"Get List Put PutPart Complete": "away"}},
		{403, "RequestTimeTooSkewed", map[string]string{"Get List Put PutPart Complete": "away"}},
		{400, "BadDigest", map[string]string{"Put PutPart": "away"}},
		{412, "PreconditionFailed", map[string]string{"Put Complete": "taken", "Get Delete": "changed", "Head List Begin PutPart Parts Abort": "away"}},
		{412, "", map[string]string{"Put Complete": "taken", "Get Delete": "changed", "Head": "away"}},
		{409, "ConditionalRequestConflict", map[string]string{"Put Complete": "conflict"}},
		{409, "OperationAborted", map[string]string{everything: "away"}},
		{409, "", map[string]string{everything: "away"}},
		{409, "ObjectParentIsFile", map[string]string{"Put Begin Complete": "taken"}},
		{409, "ExistingObjectIsDirectory", map[string]string{"Put Complete": "taken"}},
		{404, "NoSuchUpload", map[string]string{"PutPart Parts Complete": "no upload", "Abort": "nil"}},
		{404, "", map[string]string{"PutPart Parts Complete": "no upload", "Head Get": "missing", "Put Begin": "unwritable", "Abort": "nil", "List Uploads": "unreadable"}},
		{404, "NoSuchKey", map[string]string{"Head Get Delete": "missing", "PutPart Complete": "no upload"}},
		{404, "NoSuchVersion", map[string]string{"Get": "missing"}},
		{404, "NoSuchBucket", map[string]string{"Get List Uploads Parts": "unreadable", "Put Begin PutPart Complete Delete": "unwritable"}},
		{404, "XAdminUserNotFound", map[string]string{"Get List": "unreadable", "Put Begin": "unwritable"}},
		{400, "InvalidPart", map[string]string{"Complete": "no upload"}},
		{400, "InvalidPartOrder", map[string]string{"Complete": "no upload"}},
		{403, "AccessDenied", map[string]string{"Get List Parts": "unreadable", "Put Begin PutPart Complete Abort Delete": "unwritable"}},
		{403, "", map[string]string{reads: "unreadable", creates: "unwritable"}},
		{403, "InvalidAccessKeyId", map[string]string{"Get": "unreadable", "Put": "unwritable"}},
		{403, "SignatureDoesNotMatch", map[string]string{"Get": "unreadable", "Put Begin": "unwritable", "PutPart": "away"}},
		{400, "ExpiredToken", map[string]string{"Get": "unreadable", "Put": "unwritable"}},
		{403, "QuotaExceeded", map[string]string{"Put Begin PutPart Complete": "disk-full"}},
		{507, "XMinioStorageFull", map[string]string{"Put PutPart Complete": "disk-full"}},
		{400, "KeyTooLongError", map[string]string{"Get Put Begin": "bad-name"}},
		{301, "PermanentRedirect", map[string]string{"Get List": "unreadable", "Put Begin": "unwritable"}},
		{400, "AuthorizationHeaderMalformed", map[string]string{"Get List": "unreadable", "Put Begin": "unwritable"}},
		{501, "NotImplemented", map[string]string{"Uploads": "unreadable", "PutPart": "unwritable"}},
		{400, "MalformedXML", map[string]string{"Complete": "unwritable"}},
	} {
		t.Run(fmt.Sprint(tt.status, tt.code), func(t *testing.T) {
			t.Parallel()
			b := fake(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(tt.status)
				if tt.code != "" {
					_, _ = io.WriteString(w, refusalXML(tt.code))
				}
			})
			for names, want := range tt.want {
				for _, name := range strings.Fields(names) {
					err := calls(b)[name](t.Context())
					if got := kind(err); got != want {
						t.Errorf("%s: got %q (%v), want %q", name, got, err, want)
					}
					if away := (*bucket.Away)(nil); errors.As(err, &away) && away.After != 7*time.Second {
						t.Errorf("%s: got Retry-After %v, want 7 s", name, away.After)
					}
				}
			}
		})
	}
}

// TestSentences checks that sentences say what to look at and hold no secret.
func TestSentences(t *testing.T) {
	t.Parallel()
	for code, words := range map[string]string{
		"NoSuchBucket": `bucket "home"`, "InvalidAccessKeyId": "credentials: InvalidAccessKeyId", "PermanentRedirect": "region", "RequestTimeTooSkewed": "clock",
		"QuotaExceeded": "quota", "SlowDown": "busy", "<b>evil</b>": `bucket "home"`,
	} {
		b := fake(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, strings.ReplaceAll(refusalXML(code), "<b>evil</b>", "&lt;b&gt;evil&lt;/b&gt;"))
		})
		_, err := b.Put(t.Context(), "k", []byte("x"), header())
		p := (*problem.Error)(nil)
		if !errors.As(err, &p) || !strings.Contains(p.Sentence(), words) || !strings.Contains(p.Sentence(), b.host) || strings.Contains(p.Sentence(), "evil") {
			t.Errorf("%s: got %v, want a sentence with %q and %q", code, err, words, b.host)
		}
		if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "Signature=") {
			t.Errorf("%s: %v holds a secret", code, err)
		}
	}
}

// TestNoAnswer checks every call against a service that is not there, breaks the connection, or is not whom we trust.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	keys := keyFile(t, "access\nsecret\n")
	dead := open(t, Config{Endpoint: "http://" + l.Addr().String(), Bucket: "home", Credentials: keys})
	broken := fake(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.StartTLS()
	t.Cleanup(stranger.Close)
	untrusted := open(t, Config{Endpoint: stranger.URL, Bucket: "home", Credentials: keys})
	plainText := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plainText.Close)
	noTLS := open(t, Config{Endpoint: strings.Replace(plainText.URL, "http:", "https:", 1), Bucket: "home", Credentials: keys})
	for what, tt := range map[string]struct {
		b    *backend
		want string // "away", or anything definite
	}{"dead": {dead, "away"}, "broken": {broken, "away"}, "untrusted": {untrusted, "un"}, "no TLS": {noTLS, "un"}} {
		for name, call := range calls(tt.b) {
			err := call(t.Context())
			p := (*problem.Error)(nil)
			if got := kind(err); !strings.HasPrefix(got, tt.want) || !errors.As(err, &p) || !strings.Contains(p.Sentence(), tt.b.host) {
				t.Errorf("%s, %s: got %q (%v), want %q and a sentence with %q", what, name, got, err, tt.want, tt.b.host)
			}
		}
	}
}

// TestHalfAnswers checks answers of 200 that are none.
func TestHalfAnswers(t *testing.T) {
	t.Parallel()
	cut := func(w http.ResponseWriter, body string) {
		w.Header().Set("ETag", `"e1"`)
		w.Header().Set("Last-Modified", "Mon, 23 Nov 2026 09:16:46 GMT")
		w.Header().Set("Content-Length", fmt.Sprint(len(body)+100))
		_, _ = io.WriteString(w, body)
	}
	for name, tt := range map[string]struct {
		call   string
		answer func(w http.ResponseWriter)
		want   string
	}{
		"complete fails after 200":       {"Complete", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "\n  \n"+refusalXML("InternalError")) }, "away"},
		"complete is taken after 200":    {"Complete", func(w http.ResponseWriter) { _, _ = io.WriteString(w, refusalXML("PreconditionFailed")) }, "taken"},
		"complete says an unknown code":  {"Complete", func(w http.ResponseWriter) { _, _ = io.WriteString(w, refusalXML("Whatever")) }, "away"},
		"complete says nothing":          {"Complete", func(http.ResponseWriter) {}, "away"},
		"complete says only white space": {"Complete", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "   \n") }, "away"},
		"complete is cut off":            {"Complete", func(w http.ResponseWriter) { cut(w, "<CompleteMultipartUploadResult><Bucket>ho") }, "away"},
		"complete ends in the middle":    {"Complete", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<CompleteMultipartUploadResult><Buck") }, "away"},
		"complete is other XML":          {"Complete", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html></html>") }, "away"},
		"complete is late": {"Complete", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "\n \n<CompleteMultipartUploadResult><Bucket>home</Bucket><Key>k</Key><ETag>\"e1\"</ETag></CompleteMultipartUploadResult>")
		}, "nil"},
		"begin without an id":   {"Begin", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<InitiateMultipartUploadResult/>") }, "away"},
		"begin is cut off":      {"Begin", func(w http.ResponseWriter) { cut(w, "<InitiateMultipartUploadResult>") }, "away"},
		"list is cut off":       {"List", func(w http.ResponseWriter) { cut(w, "<ListBucketResult>") }, "away"},
		"parts are cut off":     {"Parts", func(w http.ResponseWriter) { cut(w, "<ListPartsResult>") }, "away"},
		"uploads are cut off":   {"Uploads", func(w http.ResponseWriter) { cut(w, "<ListMultipartUploadsResult>") }, "away"},
		"put without an ETag":   {"Put", func(http.ResponseWriter) {}, "away"},
		"list that is an error": {"List", func(w http.ResponseWriter) { _, _ = io.WriteString(w, refusalXML("InternalError")) }, "away"},
		"parts, an error":       {"Parts", func(w http.ResponseWriter) { _, _ = io.WriteString(w, refusalXML("Whatever")) }, "away"},
		"uploads, an error":     {"Uploads", func(w http.ResponseWriter) { _, _ = io.WriteString(w, refusalXML("AccessDenied")) }, "unreadable"},
		"content without ETag": {"Get", func(w http.ResponseWriter) {
			w.Header().Set("Last-Modified", "Mon, 23 Nov 2026 09:16:46 GMT")
			_, _ = io.WriteString(w, "x")
		}, "away"},
		"part without an ETag": {"PutPart", func(http.ResponseWriter) {}, "away"},
		"content is cut off":   {"Get", func(w http.ResponseWriter) { w.Header().Set("Content-Range", "bytes 0-9/10"); cut(w, "0123") }, "away"},
		"content of another": {"Get", func(w http.ResponseWriter) {
			w.Header().Set("ETag", `"e2"`)
			w.Header().Set("Last-Modified", "Mon, 23 Nov 2026 09:16:46 GMT")
		}, "changed"},
		"pages of empty parts": {"Parts", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "<ListPartsResult><IsTruncated>true</IsTruncated></ListPartsResult>")
		}, "away"},
		"parts again and again": {"Parts", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "<ListPartsResult><IsTruncated>true</IsTruncated><Part><PartNumber>1</PartNumber></Part></ListPartsResult>")
		}, "away"},
		"uploads again and again": {"Uploads", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker></ListMultipartUploadsResult>")
		}, "away"},
		"names out of order": {"List", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, "<ListBucketResult><Contents><Key>b</Key></Contents><Contents><Key>a</Key></Contents></ListBucketResult>")
		}, "unreadable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := fake(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				tt.answer(w)
			})
			if err := calls(b)[tt.call](t.Context()); kind(err) != tt.want {
				t.Errorf("got %q (%v), want %q", kind(err), err, tt.want)
			}
		})
	}
}

// TestRangeThatIsIgnored checks that content from another place is never taken.
func TestRangeThatIsIgnored(t *testing.T) {
	t.Parallel()
	status, contentRange := http.StatusOK, ""
	b := fake(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("ETag", `"e1"`)
		w.Header().Set("Last-Modified", "Mon, 23 Nov 2026 09:16:46 GMT")
		w.Header().Set("Content-Length", "10")
		if contentRange != "" {
			w.Header().Set("Content-Range", contentRange)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "0123456789")
	})
	if _, _, err := b.Get(t.Context(), "k", "e1", 5, 3); kind(err) != string(problem.Unreadable) {
		t.Errorf("all instead of a range: got %v, want %q", err, problem.Unreadable)
	}
	r, _, err := b.Get(t.Context(), "k", "e1", 0, 3)
	if err != nil {
		t.Fatalf("all instead of the beginning: %v", err)
	}
	if got, err := io.ReadAll(r); string(got) != "012" || err != nil {
		t.Errorf("all instead of the beginning: got %q and %v, want %q", got, err, "012")
	}
	_ = r.Close()
	for _, text := range []string{"bytes 0-9/20", "bytes 50-59/60", "bytes 5-14/*", "nonsense"} {
		status, contentRange = http.StatusPartialContent, text
		if _, _, err := b.Get(t.Context(), "k", "e1", 5, 10); kind(err) != string(problem.Unreadable) {
			t.Errorf("Content-Range %q: got %v, want %q", text, err, problem.Unreadable)
		}
	}
}

// TestReaderIsLeftAlone checks that PutPart does not read on after it has returned, though the service answers early.
func TestReaderIsLeftAlone(t *testing.T) {
	t.Parallel()
	b := fake(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	for range 20 {
		r := &guarded{}
		if _, err := b.PutPart(t.Context(), bucket.Upload{Key: "k", ID: "id"}, 0, r, 64<<20); kind(err) != "away" {
			t.Fatalf("got %v, want away", err)
		}
		at := r.n // a race with a Read shows under -race
		if r.n != at {
			t.Error("it reads on")
		}
	}
}

type guarded struct{ n int }

func (g *guarded) Read(p []byte) (int, error) { g.n += len(p); clear(p); return len(p), nil }
