package realstores_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
)

func escape(name string) string { return url.PathEscape(name) }

// race runs n attempts at once and returns their statuses, how often each.
func race(t *testing.T, n int, attempt func(i int) (*realstores.Answer, error)) map[int]int {
	t.Helper()
	got := map[int]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			a, err := attempt(i)
			mu.Lock()
			defer mu.Unlock()
			var r *realstores.Refusal
			switch {
			case errors.As(err, &r):
				got[r.Status]++
			case err != nil:
				t.Error(err)
			default:
				got[a.Status]++
			}
		})
	}
	close(start)
	all.Wait()
	return got
}

// TestCompleteOfOneName checks that of 4 uploads of one name that are completed at
// once with If-None-Match one wins, and that gofakes3 lies.
func TestCompleteOfOneName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		start  func(context.Context, string) (*realstores.S3, error)
		honest bool
	}{
		{"versitygw", realstores.Versitygw, true},
		{"rclone", realstores.RcloneS3, true},
		{"gofakes3", realstores.GoFakeS3, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := s3Server(t, tt.start)
			if err := s.MakeBucket(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
			uploads := make([]string, 4)
			etags := make([]string, 4)
			for i := range uploads {
				uploads[i], etags[i] = upload(t, s, "/one/name", fmt.Sprint("content ", i))
			}
			got := race(t, 4, func(i int) (*realstores.Answer, error) { return complete(t, s, "/one/name", uploads[i], etags[i]) })
			if won := got[http.StatusOK]; (won == 1) != tt.honest || won == 0 {
				t.Errorf("4 exclusive completions of one name: got %v, honest: %v", got, tt.honest)
			}
		})
	}
}

// upload begins an upload of one part and returns its id and the part's ETag.
func upload(t *testing.T, s *realstores.S3, target, content string) (id, etag string) {
	t.Helper()
	a, err := s.Do(t.Context(), http.MethodPost, target+"?uploads=", nil)
	var begun struct {
		UploadID string `xml:"UploadId"`
	}
	if err := xml.Unmarshal(granted(t, a, err).Body, &begun); err != nil {
		t.Fatal(err)
	}
	a, err = s.Do(t.Context(), http.MethodPut, target+"?partNumber=1&uploadId="+url.QueryEscape(begun.UploadID), []byte(content))
	return begun.UploadID, granted(t, a, err).Header.Get("ETag")
}

func complete(t *testing.T, s *realstores.S3, target, id, etag string) (*realstores.Answer, error) {
	body := "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + etag + "</ETag></Part></CompleteMultipartUpload>"
	return s.Do(t.Context(), http.MethodPost, target+"?uploadId="+url.QueryEscape(id), []byte(body), "If-None-Match", "*")
}

// TestCommitOfOneName checks that of 4 block lists of one name one wins.
func TestCommitOfOneName(t *testing.T) {
	t.Parallel()
	s, err := realstores.Azurite(t.Context(), t.TempDir())
	running(t, s, err)
	if err := s.MakeContainer(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	a, err := s.Do(t.Context(), http.MethodPut, "/one/name?comp=block&blockid=AAAA", []byte("content"))
	granted(t, a, err)
	list := []byte("<BlockList><Uncommitted>AAAA</Uncommitted></BlockList>")
	got := race(t, 4, func(int) (*realstores.Answer, error) {
		return s.Do(t.Context(), http.MethodPut, "/one/name?comp=blocklist", list, "If-None-Match", "*")
	})
	if got[http.StatusCreated] != 1 {
		t.Errorf("4 exclusive commits of one name: got %v, want one 201", got)
	}
}

// TestComposeOntoOneName checks that of 8 composes with ifGenerationMatch=0 one
// wins, and that fake-gcs-server alone lies.
func TestComposeOntoOneName(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		start  func(context.Context, string) (*realstores.GCS, error)
		honest bool
	}{{"bare", realstores.FakeGCS, false}, {"emulator", realstores.GCSEmulator, true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			g := gcsServer(t, tt.start)
			if err := g.MakeBucket(t.Context(), "one"); err != nil {
				t.Fatal(err)
			}
			gcsPut(t, g, "part", "content")
			for round := range 20 {
				target := fmt.Sprintf("/storage/v1/b/one/o/name-%d/compose?ifGenerationMatch=0", round)
				got := race(t, 8, func(int) (*realstores.Answer, error) {
					return g.Do(t.Context(), http.MethodPost, target, composeOf(t, source{Name: "part"}), "Content-Type", "application/json")
				})
				if tt.honest && (got[http.StatusOK] != 1 || got[http.StatusPreconditionFailed] != 7) || !tt.honest && got[http.StatusOK] != 8 {
					t.Errorf("round %d: 8 exclusive composes: got %v, honest: %v", round, got, tt.honest)
				}
			}
		})
	}
}

// TestInsertAndComposeOntoOneName checks that an insert and a compose exclude each other.
func TestInsertAndComposeOntoOneName(t *testing.T) {
	t.Parallel()
	g := gcsServer(t, realstores.GCSEmulator)
	if err := g.MakeBucket(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	gcsPut(t, g, "part", "content")
	for round := range 50 {
		name := fmt.Sprint("name-", round)
		got := race(t, 4, func(i int) (*realstores.Answer, error) {
			if i%2 == 0 {
				return g.Do(t.Context(), http.MethodPost, "/storage/v1/b/one/o/"+name+"/compose?ifGenerationMatch=0", composeOf(t, source{Name: "part"}))
			}
			return g.Do(t.Context(), http.MethodPost, "/upload/storage/v1/b/one/o?uploadType=media&ifGenerationMatch=0&name="+name, []byte("inserted"))
		})
		if got[http.StatusOK] != 1 || got[http.StatusPreconditionFailed] != 3 {
			t.Fatalf("round %d: 2 composes and 2 inserts: got %v, want one winner", round, got)
		}
	}
}

// A source is one of a compose.
type source struct {
	Name          string         `json:"name"`
	Generation    string         `json:"generation,omitempty"`
	Preconditions map[string]any `json:"objectPreconditions,omitempty"`
}

func composeOf(t *testing.T, sources ...source) []byte {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"sourceObjects": sources,
		"destination":   map[string]any{"contentType": "text/plain", "metadata": map[string]string{"transfer": "x-1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// An object is what the JSON API says of one.
type object struct {
	Name, Generation, Md5Hash, Crc32c, ContentType string
	Size                                           string
	ComponentCount                                 int
	Metadata                                       map[string]string
}

func decode[T any](t *testing.T, b []byte) T {
	t.Helper()
	var v T
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&v); err != nil {
		t.Fatalf("decoding %.200s: %v", b, err)
	}
	return v
}

func gcsPut(t *testing.T, g *realstores.GCS, name, content string) object {
	t.Helper()
	body := "--b\r\nContent-Type: application/json\r\n\r\n" + `{"name":"` + name + `","metadata":{"k":"v"},"contentType":"text/x-a"}` +
		"\r\n--b\r\nContent-Type: text/x-a\r\n\r\n" + content + "\r\n--b--\r\n"
	a, err := g.Do(t.Context(), http.MethodPost, "/upload/storage/v1/b/one/o?uploadType=multipart&ifGenerationMatch=0",
		[]byte(body), "Content-Type", "multipart/related; boundary=b")
	return decode[object](t, granted(t, a, err).Body)
}

// TestConditionsOfGCS checks every condition that the emulator looks at, each with one that holds and one
// that does not.
func TestConditionsOfGCS(t *testing.T) {
	t.Parallel()
	g := gcsServer(t, realstores.GCSEmulator)
	if err := g.MakeBucket(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	p := gcsPut(t, g, "dir/p 1", "one,")
	q := gcsPut(t, g, "dir/p 2", "two")
	const at = "/storage/v1/b/one/o/"
	whole := []source{{Name: p.Name, Generation: p.Generation}, {Name: q.Name, Preconditions: map[string]any{"ifGenerationMatch": q.Generation}}}
	for _, tt := range []struct {
		what, method, target string
		body                 []byte
		want                 int
	}{
		{"insert on an existing", http.MethodPost, "/upload/storage/v1/b/one/o?uploadType=media&ifGenerationMatch=0&name=dir%2Fp+1", []byte("x"), 412},
		{"compose of nothing", http.MethodPost, at + "c/compose", composeOf(t), 400},
		{"compose of what is not there", http.MethodPost, at + "c/compose", composeOf(t, source{Name: "none"}), 404},
		{"compose of another generation", http.MethodPost, at + "c/compose", composeOf(t, source{Name: p.Name, Generation: q.Generation}), 404},
		{"compose with a source's condition", http.MethodPost, at + "c/compose", composeOf(t, source{p.Name, "", map[string]any{"ifGenerationMatch": "1"}}), 412},
		{"compose onto one that should be there", http.MethodPost, at + "c/compose?ifGenerationMatch=1", composeOf(t, whole...), 412},
		{"compose", http.MethodPost, at + "c/compose?ifGenerationMatch=0", composeOf(t, whole...), 200},
		{"compose again", http.MethodPost, at + "c/compose?ifGenerationMatch=0", composeOf(t, whole...), 412},
		{"get of another generation", http.MethodGet, at + escape(p.Name) + "?ifGenerationMatch=1", nil, 412},
		{"get of this generation", http.MethodGet, at + escape(p.Name) + "?ifGenerationMatch=" + p.Generation, nil, 200},
		{"get of what has not changed", http.MethodGet, at + escape(p.Name) + "?ifGenerationNotMatch=" + p.Generation, nil, 304},
		{"content of another generation", http.MethodGet, at + escape(p.Name) + "?alt=media&ifGenerationMatch=1", nil, 412},
		{"content of a pinned generation", http.MethodGet, at + escape(p.Name) + "?alt=media&generation=" + p.Generation, nil, 200},
		{"content of one that is gone", http.MethodGet, at + escape(p.Name) + "?alt=media&generation=1", nil, 404},
		{"patch of another generation", http.MethodPatch, at + escape(p.Name) + "?ifGenerationMatch=1", []byte("{}"), 412},
		{"rewrite onto an existing", http.MethodPost, at + escape(p.Name) + "/rewriteTo/b/one/o/c?ifGenerationMatch=0", nil, 412},
		{"rewrite of another generation", http.MethodPost, at + escape(p.Name) + "/rewriteTo/b/one/o/d?ifSourceGenerationMatch=1", nil, 412},
		{"rewrite", http.MethodPost, at + escape(p.Name) + "/rewriteTo/b/one/o/d?ifGenerationMatch=0", nil, 200},
		{"a condition that is no number", http.MethodDelete, at + "d?ifGenerationMatch=x", nil, 400},
		{"delete of another generation", http.MethodDelete, at + "d?ifGenerationMatch=1", nil, 412},
		{"delete", http.MethodDelete, at + "d?ifGenerationNotMatch=1", nil, 200},
		{"delete of what is gone", http.MethodDelete, at + "d", nil, 404},
	} {
		a, err := g.Do(t.Context(), tt.method, tt.target, tt.body, "Content-Type", "application/json")
		if got := status(t, a, err); got != tt.want {
			t.Errorf("%s: got %d (%v), want %d", tt.what, got, err, tt.want)
		}
		var r *realstores.Refusal
		if errors.As(err, &r) && tt.want == http.StatusPreconditionFailed && !strings.Contains(string(r.Body), `"conditionNotMet"`) {
			t.Errorf("%s: the error is %s", tt.what, r.Body)
		}
	}
	composedIsHonest(t, g, p)
}

// composedIsHonest checks what is said of a composed object, wherever it is asked.
func composedIsHonest(t *testing.T, g *realstores.GCS, single object) {
	t.Helper()
	a, err := g.Do(t.Context(), http.MethodGet, "/storage/v1/b/one/o?prefix=c", nil)
	list := decode[struct{ Items []object }](t, granted(t, a, err).Body).Items
	a, err = g.Do(t.Context(), http.MethodGet, "/storage/v1/b/one/o/c", nil)
	for _, o := range append(list, decode[object](t, granted(t, a, err).Body)) {
		if o.Md5Hash != "" || o.Crc32c == "" || o.ComponentCount != 2 || o.ContentType != "text/plain" || o.Metadata["transfer"] != "x-1" || o.Size != "7" {
			t.Errorf("a composed object is %+v", o)
		}
	}
	a, err = g.Do(t.Context(), http.MethodGet, "/storage/v1/b/one/o/c?alt=media", nil)
	if a := granted(t, a, err); string(a.Body) != "one,two" || strings.Contains(a.Header.Get("X-Goog-Hash"), "md5") || a.Header.Get("X-Goog-Hash") == "" {
		t.Errorf("its content: %q, %v", a.Body, a.Header)
	}
	if single.Md5Hash == "" || single.Metadata["k"] != "v" || single.ContentType != "text/x-a" {
		t.Errorf("an object that was not composed is %+v", single)
	}
}

// TestPagesOfGCS checks that a listing is in order, whole and in pages, also when nobody asks for pages.
func TestPagesOfGCS(t *testing.T) {
	t.Parallel()
	g := gcsServer(t, realstores.GCSEmulator)
	if err := g.MakeBucket(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	const n = 1005
	for i := range n {
		gcsPut(t, g, fmt.Sprintf("dir/%04d", i), "x")
	}
	gcsPut(t, g, "other", "x")
	for _, tt := range []struct {
		query       string
		first, last int
		pages       int
	}{
		{"prefix=dir/", 0, n, 2},
		{"prefix=dir/&maxResults=5000", 0, n, 2},
		{"prefix=dir/&maxResults=500", 0, n, 3},
		{"prefix=dir/&maxResults=3&startOffset=dir/1000", 1000, n, 2},
	} {
		token, next, pages := "", tt.first, 0
		for pages == 0 || token != "" {
			a, err := g.Do(t.Context(), http.MethodGet, "/storage/v1/b/one/o?"+tt.query+"&pageToken="+url.QueryEscape(token), nil)
			page := decode[struct {
				Items         []object
				NextPageToken string
			}](t, granted(t, a, err).Body)
			for _, o := range page.Items {
				if want := fmt.Sprintf("dir/%04d", next); o.Name != want {
					t.Fatalf("%s: got %s, want %s", tt.query, o.Name, want)
				}
				next++
			}
			token = page.NextPageToken
			pages++
		}
		if next != tt.last || pages != tt.pages {
			t.Errorf("%s: got up to %d in %d pages, want %d in %d", tt.query, next, pages, tt.last, tt.pages)
		}
	}
}
