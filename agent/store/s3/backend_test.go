package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestBackend(t *testing.T) {
	t.Parallel()
	for name, run := range honest() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := run(t)
			thief := keyFile(t, v.AccessKey+"\nwrong-secret\n")
			backendtest.Run(t, func(t *testing.T) backendtest.Subject {
				bad := v.config("home")
				bad.Credentials = thief
				b, err := newBackend(v.config("home"))
				if err != nil {
					t.Fatal(err)
				}
				return backendtest.Subject{Backend: b, NoBucket: open(t, v.config("never-made")), BadCredentials: open(t, bad),
					Streams: strings.HasPrefix(name, "rclone")}
			})
		})
	}
}

// TestWhatEachServerChecks pins what the package says it has seen.
func TestWhatEachServerChecks(t *testing.T) {
	t.Parallel()
	want := map[string]string{"versitygw": "sha256", "versitygw, TLS": "crc32c", "rclone": "", "rclone, TLS": ""}
	for name, run := range honest() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, run(t).config("home"))
			got, err := b.CheckParts(t.Context(), ".consign/check")
			if err != nil || got != want[name] {
				t.Errorf("got %q and %v, want %q", got, err, want[name])
			}
			if err := b.Uploads(t.Context(), ".consign/check", func(u bucket.Upload) bool {
				t.Errorf("the upload %+v is left over", u)
				return true
			}); err != nil {
				t.Errorf("Uploads: %v", err)
			}
		})
	}
}

// TestCalls checks that one call is one request, as the package's doc counts them, and what each returns.
func TestCalls(t *testing.T) {
	t.Parallel()
	for name, run := range honest() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t, run(t).config("home"))
			n := counted(b)
			count := func(what string, want int64, err error) {
				t.Helper()
				if got := n.Swap(0); got != want || err != nil {
					t.Errorf("%s: got %d requests and %v, want %d", what, got, err, want)
				}
			}
			small, err := b.Put(t.Context(), "a/small", pattern(1000), header())
			count("Put", 1, err)
			o, err := b.Head(t.Context(), "a/small")
			count("Head", 1, err)
			if !same(o.Version, small.Version) || o.Size != 1000 || o.ContentType != header().ContentType || fmt.Sprint(o.Meta) != fmt.Sprint(header().Meta) {
				t.Errorf("Head: got %+v, want the header %+v and version %q", o, header(), small.Version)
			}
			r, o, err := b.Get(t.Context(), "a/small", small.Version, 10, 20)
			if err == nil {
				var got []byte
				got, err = io.ReadAll(r)
				err = errors.Join(err, r.Close())
				if !bytes.Equal(got, pattern(1000)[10:30]) || o.Size != 1000 || fmt.Sprint(o.Meta) != fmt.Sprint(header().Meta) {
					t.Errorf("Get: got %d other bytes of %+v", len(got), o)
				}
			}
			count("Get", 1, err)
			large := pattern(partSize + 5000)
			up, err := b.Begin(t.Context(), "a/large", header())
			count("Begin", 1, err)
			two, err := b.PutPart(t.Context(), up, 1, bytes.NewReader(large[partSize:]), 5000)
			count("PutPart", 1, err)
			one, err := b.PutPart(t.Context(), up, 0, bytes.NewReader(large[:partSize]), partSize)
			count("PutPart", 1, err)
			listed, err := b.Parts(t.Context(), up)
			count("Parts", 1, err)
			if len(listed) != 2 || listed[0].Size != partSize || listed[1].Size != 5000 {
				t.Fatalf("Parts: got %+v", listed)
			}
			if up.ID != "" && strings.HasPrefix(name, "versitygw") && (listed[0] != one || listed[1] != two) {
				t.Errorf("Parts: got %+v, want %+v and %+v", listed, one, two)
			}
			done, err := b.Complete(t.Context(), up, listed, header())
			count("Complete", 1, err)
			o, err = b.Head(t.Context(), "a/large")
			count("Head", 1, err)
			if o.Size != int64(len(large)) || !same(o.Version, done.Version) || done.Size != o.Size || fmt.Sprint(o.Meta) != fmt.Sprint(header().Meta) {
				t.Errorf("Head after Complete: got %+v, want the version %q", o, done.Version)
			}
			if got := all(t, b, o); !bytes.Equal(got, large) {
				t.Error("the content of the large object differs")
			}
			count("Get", 1, nil)
			count("Abort", 1, b.Abort(t.Context(), up))
			names := 0
			count("List", 1, b.List(t.Context(), "a/", "", func(bucket.Object) bool { names++; return true }))
			count("Delete", 2, b.Delete(t.Context(), "a/small", small.Version))
			count("Delete of any version", 1, b.Delete(t.Context(), "a/large", ""))
			if names != 2 {
				t.Errorf("List: got %d names, want 2", names)
			}
		})
	}
}

// all reads an object whole.
func all(t *testing.T, b *backend, o bucket.Object) []byte {
	t.Helper()
	r, _, err := b.Get(t.Context(), o.Key, o.Version, 0, max(1, o.Size))
	if err != nil {
		t.Fatalf("Get: %v", err)
	}
	got, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("reading: %v", err)
	}
	return got
}

// TestDeleteIsConditional checks that what was replaced between looking and deleting stays, where the service takes If-Match.
func TestDeleteIsConditional(t *testing.T) {
	t.Parallel()
	v := plain(t, realstores.Versitygw)
	b, other := open(t, v.config("home")), open(t, v.config("home"))
	old, err := b.Put(t.Context(), "x", []byte("old"), bucket.Header{})
	if err != nil {
		t.Fatal(err)
	}
	looked := false
	quick := b.transport.quick
	b.transport.base = tripper(func(r *http.Request) (*http.Response, error) {
		resp, err := quick.RoundTrip(r)
		if !looked {
			looked = true
			if err := other.Delete(t.Context(), "x", ""); err != nil {
				t.Error(err)
			}
			if _, err := other.Put(t.Context(), "x", []byte("new"), bucket.Header{}); err != nil {
				t.Error(err)
			}
		}
		return resp, err
	})
	if got := problem.Of(b.Delete(t.Context(), "x", old.Version)); got != problem.Changed {
		t.Errorf("got %q, want %q", got, problem.Changed)
	}
	b.transport.base = nil
	if got := string(all(t, b, bucket.Object{Key: "x", Size: 3})); got != "new" {
		t.Errorf("got %q, want the new object", got)
	}
}

// TestPartIsNotBuffered checks that a large part is streamed, with TLS and without.
func TestPartIsNotBuffered(t *testing.T) {
	const size = 64 << 20
	for name, run := range map[string]func(*testing.T) *service{
		"plain": func(t *testing.T) *service { return plain(t, realstores.Versitygw) },
		"TLS":   func(t *testing.T) *service { return withTLS(t, realstores.Versitygw) },
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, run(t).config("home"))
			up, err := b.Begin(t.Context(), "x", header())
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if _, err := b.PutPart(t.Context(), up, 0, io.LimitReader(zeros{}, size), size); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			got := after.TotalAlloc - before.TotalAlloc
			t.Logf("%d KiB were allocated in all for a part of %d MiB, by the client and a proxy", got>>10, size>>20)
			if got > size/2 {
				t.Errorf("got %d bytes allocated, want far less than %d", got, size)
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestHostileMetadata checks that metadata of a source are never other headers of the protocol.
func TestHostileMetadata(t *testing.T) {
	t.Parallel()
	b := open(t, plain(t, realstores.Versitygw).config("home"))
	meta := map[string]string{}
	for _, k := range []string{"content-type", "content-encoding", "x-amz-acl", "x-amz-server-side-encryption", "x-amz-storage-class", "cache-control", "expires",
		"x-amz-checksum-crc32c", "x-amz-website-redirect-location", "x-minio-source-mtime", "if-none-match", "host", "x-amz-meta-x"} {
		if metaPair(k, "evil") == nil {
			meta[k] = "evil"
		}
	}
	var sent []string
	b.transport.base = tripper(func(r *http.Request) (*http.Response, error) {
		for k, v := range r.Header {
			if strings.Contains(strings.Join(v, ","), "evil") && !strings.HasPrefix(k, metaPrefix) {
				sent = append(sent, k)
			}
		}
		return b.transport.quick.RoundTrip(r)
	})
	if _, err := b.Put(t.Context(), "x", []byte("x"), bucket.Header{Meta: meta}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Begin(t.Context(), "y", bucket.Header{Meta: meta}); err != nil {
		t.Fatal(err)
	}
	if len(sent) != 0 {
		t.Errorf("metadata were sent as the headers %q", sent)
	}
	o, err := b.Head(t.Context(), "x")
	if err != nil || fmt.Sprint(o.Meta) != fmt.Sprint(meta) || o.ContentType != noType {
		t.Errorf("got %q, type %q and %v, want %q", o.Meta, o.ContentType, err, meta)
	}
}

// TestLiar pins why gofakes3 is refused: the second Complete replaces the first.
func TestLiar(t *testing.T) {
	t.Parallel()
	b := open(t, plain(t, realstores.GoFakeS3).config("home"))
	var versions []string
	for i := range 2 {
		up, err := b.Begin(t.Context(), "x", header())
		if err != nil {
			t.Fatal(err)
		}
		p, err := b.PutPart(t.Context(), up, 0, bytes.NewReader(pattern(100+i)), int64(100+i))
		if err != nil {
			t.Fatal(err)
		}
		o, err := b.Complete(t.Context(), up, []bucket.Part{p}, header())
		if err != nil {
			t.Fatalf("Complete: got %v; it does not lie any more", err)
		}
		versions = append(versions, string(o.Version))
	}
	if versions[0] == versions[1] {
		t.Errorf("got the versions %q", versions)
	}
}

// TestConfig checks what is no configuration, and that no error repeats a secret.
func TestConfig(t *testing.T) {
	t.Parallel()
	keys := keyFile(t, "access\nsecret\n")
	bad := filepath.Join(t.TempDir(), "bad.pem")
	if err := os.WriteFile(bad, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{
		"no bucket":            {},
		"bad bucket":           {Bucket: "Has Spaces"},
		"no scheme":            {Bucket: "home", Endpoint: "s3.example.org"},
		"another scheme":       {Bucket: "home", Endpoint: "ftp://s3.example.org"},
		"a path":               {Bucket: "home", Endpoint: "https://s3.example.org/home"},
		"a secret in it":       {Bucket: "home", Endpoint: "https://me:hunter2@s3.example.org"},
		"a secret, malformed":  {Bucket: "home", Endpoint: "https://me:hunter2@s3.example.org:x:y"},
		"a style of its own":   {Bucket: "home", Style: "dns"},
		"checksums":            {Bucket: "home", Checksums: "md5"},
		"no file of keys":      {Bucket: "home", Credentials: "/nonexistent"},
		"a file of one line":   {Bucket: "home", Credentials: keyFile(t, "hunter2\n")},
		"a file of four lines": {Bucket: "home", Credentials: keyFile(t, "a\nb\nc\nhunter2")},
		"a long file":          {Bucket: "home", Credentials: keyFile(t, strings.Repeat("hunter2", maxKeyFile))},
		"half a profile":       {Bucket: "home", Credentials: keyFile(t, "[default]\naws_access_key_id = hunter2\n")},
		"no such profile":      {Bucket: "home", Credentials: keyFile(t, "[a]\naws_access_key_id = x\naws_secret_access_key = hunter2\n"), Profile: "b"},
		"no shared form":       {Bucket: "home", Credentials: keyFile(t, "[default]\nhunter2\n")},
		"no certificate":       {Bucket: "home", CA: bad},
		"no file of roots":     {Bucket: "home", CA: "/nonexistent"},
	} {
		if c.Credentials == "" {
			c.Credentials = keys
		}
		_, err := NewBackend(c)
		if problem.Of(err) != problem.BadConfig || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want %q without the secret", name, err, problem.BadConfig)
		}
	}
	for name, tt := range map[string]struct {
		conf Config
		url  string
	}{
		"AWS":                 {Config{}, "https://home.s3.us-east-1.amazonaws.com/k"},
		"AWS in a region":     {Config{Region: "eu-central-1"}, "https://home.s3.eu-central-1.amazonaws.com/k"},
		"AWS, bucket in path": {Config{Style: StylePath}, "https://s3.us-east-1.amazonaws.com/home/k"},
		"AWS, dual stack":     {Config{Endpoint: "https://s3.dualstack.eu-central-1.amazonaws.com"}, "https://home.s3.dualstack.eu-central-1.amazonaws.com/k"},
		"others":              {Config{Endpoint: "https://s3.example.org:9000"}, "https://s3.example.org:9000/home/k"},
		"others by name":      {Config{Endpoint: "http://s3.example.org", Style: StyleVirtual}, "http://home.s3.example.org/k"},
	} {
		tt.conf.Bucket, tt.conf.Credentials = "home", keys
		b := open(t, tt.conf)
		got := ""
		b.transport.base = tripper(func(r *http.Request) (*http.Response, error) {
			got = r.URL.String()
			return nil, errors.New("not sent")
		})
		if _, err := b.Head(t.Context(), "k"); err == nil || got != tt.url {
			t.Errorf("%s: got %q, want %q", name, got, tt.url)
		}
	}
}

func TestMetaPair(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key, value string
		ok         bool
	}{
		{"color", "blue", true}, {"a-b_c.d!", "  inner  is kept"[2:], true}, {"0", "", true}, {"color", `"<>&;,=\%41`, true},
		{"Color", "blue", false}, {"", "x", false}, {"a b", "x", false}, {"a:b", "x", false}, {"a\r\nb", "x", false}, {"grün", "x", false},
		{"color", "grün", false}, {"color", " x", false}, {"color", "x ", false}, {"color", "x\r\ny: z", false}, {"color", "\x00", false}, {"color", "a\tb", false}, {"color", "=?UTF-8?B?eA==?=", false},
	} {
		if err := metaPair(tt.key, tt.value); (err == nil) != tt.ok {
			t.Errorf("%q = %q: got %v, want taken: %v", tt.key, tt.value, err, tt.ok)
		}
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	if got := versionOf("e1", "null"); got != "e1" {
		t.Errorf("got %q for an object from before versioning, want its ETag", got)
	}
	for _, tt := range []struct {
		a, b string
		want bool
	}{{"e1", "e1", true}, {"e1", "e1#v1", true}, {"e1#v1", "e1#v1", true}, {"e1#v1", "e1#v2", false}, {"e1", "e2", false}, {"e1#v1", "e2#v1", false}} {
		if got := same(token.Version(tt.a), token.Version(tt.b)); got != tt.want {
			t.Errorf("same(%q, %q): got %v, want %v", tt.a, tt.b, got, tt.want)
		}
	}
}
