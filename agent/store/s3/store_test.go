package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A notebook is notes that outlive a Store.
type notebook struct {
	mu  sync.Mutex // guards all
	all map[string]string
}

func newNotebook() *notebook { return &notebook{all: map[string]string{}} }

func (n *notebook) Put(key, value string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all[key] = value
	return nil
}

func (n *notebook) Get(key string) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	v, ok := n.all[key]
	return v, ok
}

func (n *notebook) Remove(key string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.all, key)
	return nil
}

func (n *notebook) All() iter.Seq2[string, string] {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.All(maps.Clone(n.all))
}

// openStore opens a store below a prefix of the bucket.
func openStore(t testing.TB, conf Config, prefix string, notes store.Notes) *bucket.Store {
	t.Helper()
	b, err := newBackend(conf)
	if err != nil {
		t.Fatal(err)
	}
	s := bucket.New(b, bucket.Options{Where: b.host, Prefix: prefix, Now: time.Now, Patience: 10 * time.Second, Interval: 10 * time.Millisecond})
	s.Keep(notes)
	return s
}

// overwrite is what somebody outside does, who tries again what fails: rclone does, where it is busy with the same name.
func overwrite(t testing.TB, b *backend, key string, data []byte, h bucket.Header) {
	t.Helper()
	var err error
	for range 20 {
		if _, err = b.core.PutObject(t.Context(), b.bucket, key, bytes.NewReader(data), int64(len(data)), "", "", options(h)); err == nil {
			return
		}
	}
	t.Errorf("overwriting %q: %v", key, err)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, run := range honest() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := run(t)
			outside := open(t, v.config("home"))
			var n atomic.Int64
			segment := 0
			if strings.HasPrefix(name, "rclone") {
				segment = 200 // it adds to it, and its file system takes 255
			}
			storetest.Run(t, func(t *testing.T) storetest.Subject {
				prefix := fmt.Sprintf("exports/%d", n.Add(1))
				notes := newNotebook()
				again := func(t testing.TB) store.Store { return openStore(t, v.config("home"), prefix, notes) }
				key := func(name token.ObjectName) string { return prefix + "/" + string(name) }
				return storetest.Subject{
					Store: again(t),
					Put: func(t testing.TB, name token.ObjectName, data []byte) {
						overwrite(t, outside, key(name), data, bucket.Header{})
					},
					Remove: func(t testing.TB, name token.ObjectName) {
						if err := outside.Delete(t.Context(), key(name), ""); err != nil {
							t.Errorf("removing %q: %v", name, err)
						}
					},
					Kill:   again,
					Second: func(t testing.TB) store.Store { return openStore(t, v.config("home"), prefix, newNotebook()) },
					PutAttrs: func(t testing.TB, name token.ObjectName, data []byte, a store.Attrs) {
						overwrite(t, outside, key(name), data, bucket.Header{ContentType: a.ContentType, Meta: a.Meta})
					},
					Forge: func(t testing.TB, name token.ObjectName, data []byte, o store.Origin) {
						overwrite(t, outside, key(name), data, bucket.Header{Meta: map[string]string{"consign-transfer": string(o)}})
					},
					Order:   storetest.ByBytes,
					Remote:  true,
					Streams: strings.HasPrefix(name, "rclone"),
					Segment: segment,
					Torn:    strings.HasPrefix(name, "rclone"),
				}
			})
		})
	}
}

// TestProbe checks what is measured of each server.
func TestProbe(t *testing.T) {
	t.Parallel()
	digests := map[string]string{"versitygw": "sha256", "versitygw, TLS": "crc32c"}
	for name, run := range honest() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, run(t).config("home"), "a/b", newNotebook())
			defer s.Close()
			got, err := s.Probe(t.Context())
			want := store.Traits{
				Exclusive: "If-None-Match", PartSize: partSize, MaxParts: maxParts, PartDigests: digests[name], Lists: strings.HasPrefix(name, "versitygw"),
				Volatile: true, Modes: true, ModTimes: true, Types: true, Meta: true,
			}
			if err != nil || got != want {
				t.Errorf("got %+v and %v, want %+v", got, err, want)
			}
		})
	}
}

// TestLiarIsRefused checks that gofakes3 is refused with a sentence that names it: it ignores If-None-Match on Complete, and where parts are
// framed, as they are over plain HTTP, it takes the frames for content, which no exception can allow.
func TestLiarIsRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		service *service
		sums    Checksums
		want    problem.Code
	}{
		"plain":             {plain(t, realstores.GoFakeS3), "", problem.BadConfig},
		"TLS":               {withTLS(t, realstores.GoFakeS3), "", problem.BadConfig},
		"TLS, no checksums": {withTLS(t, realstores.GoFakeS3), ChecksumsNone, problem.NotExclusive},
	} {
		conf := tt.service.config("home")
		conf.Checksums = tt.sums
		s := openStore(t, conf, "", newNotebook())
		_, err := s.Probe(t.Context())
		_, host, _ := strings.Cut(tt.service.endpoint, "://")
		p := (*problem.Error)(nil)
		if !errors.As(err, &p) || p.Code != tt.want || !strings.Contains(p.Sentence(), host) {
			t.Errorf("%s: got %v, want %q and a sentence that names %s", name, err, tt.want, host)
		}
		_ = s.Close()
	}
}

// TestSectionGoesOn checks that the rest is asked for where an answer breaks off in the middle, and that it is of the same version.
func TestSectionGoesOn(t *testing.T) {
	t.Parallel()
	data := pattern(100_000)
	var asked []string
	b := fake(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header.Get("Range")+" "+r.Header.Get("If-Match"))
		var off, last int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &off, &last); err != nil {
			t.Error(err)
		}
		w.Header().Set("ETag", `"e1"`)
		w.Header().Set("Last-Modified", "Mon, 23 Nov 2026 09:16:46 GMT")
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, last, len(data)))
		w.Header().Set("Content-Length", fmt.Sprint(last+1-off))
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(data[off:min(off+40_000, last+1)])
	})
	s := bucket.New(b, bucket.Options{Now: time.Now, Interval: time.Millisecond})
	r, err := s.Open(t.Context(), "x", "e1")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	sec, err := r.Section(t.Context(), 0, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	defer sec.Close()
	got, err := io.ReadAll(sec)
	want := []string{`bytes=0-99999 "e1"`, `bytes=40000-99999 "e1"`, `bytes=80000-99999 "e1"`}
	if err != nil || !bytes.Equal(got, data) || !slices.Equal(asked, want) {
		t.Errorf("got %d bytes and %v by %q, want all by %q", len(got), err, asked, want)
	}
}
