package gcs_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/gcs"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// openStore opens a store of the bucket "con" at endpoint.
func openStore(t testing.TB, endpoint, prefix string) *bucket.Store {
	t.Helper()
	b, err := gcs.NewBackend(gcs.Config{Endpoint: endpoint, Bucket: "con", Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	return bucket.New(b, bucket.Options{
		Where: "the emulator", Prefix: prefix, Now: time.Now, Patience: 5 * time.Second, Interval: 5 * time.Millisecond, Stall: 20 * time.Second,
	})
}

// write writes an object in place of any, without the vendor's client.
func write(t testing.TB, g *realstores.GCS, key string, data []byte, contentType string, meta map[string]string) {
	t.Helper()
	about, err := json.Marshal(map[string]any{"name": key, "contentType": contentType, "metadata": meta})
	if err != nil {
		t.Error(err)
		return
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "--x\r\nContent-Type: application/json\r\n\r\n%s\r\n--x\r\nContent-Type: %s\r\n\r\n%s\r\n--x--\r\n", about, contentType, data)
	if _, err := g.Do(t.Context(), http.MethodPost, "/upload/storage/v1/b/con/o?uploadType=multipart", b.Bytes(), "Content-Type", "multipart/related; boundary=x"); err != nil {
		t.Errorf("writing %q: %v", key, err)
	}
}

func TestStore(t *testing.T) {
	t.Parallel()
	g := emulator(t)
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		prefix := "exports/" + strings.ToLower(rand.Text())
		open := func(t testing.TB) store.Store { return openStore(t, g.Endpoint, prefix) }
		key := func(name token.ObjectName) string { return prefix + "/" + string(name) }
		return storetest.Subject{
			Store: open(t),
			Put: func(t testing.TB, name token.ObjectName, data []byte) {
				write(t, g, key(name), data, "text/plain", nil)
			},
			Remove: func(t testing.TB, name token.ObjectName) {
				if _, err := g.Do(t.Context(), http.MethodDelete, "/storage/v1/b/con/o/"+url.PathEscape(key(name)), nil); err != nil {
					t.Errorf("removing %q: %v", name, err)
				}
			},
			Kill: open, Second: open,
			PutAttrs: func(t testing.TB, name token.ObjectName, data []byte, at store.Attrs) {
				write(t, g, key(name), data, at.ContentType, at.Meta)
			},
			Forge: func(t testing.TB, name token.ObjectName, data []byte, o store.Origin) {
				write(t, g, key(name), data, "text/plain", map[string]string{"consign-transfer": string(o)})
			},
			Order: storetest.ByBytes, Remote: true,
		}
	})
}

func TestProbe(t *testing.T) {
	t.Parallel()
	s := openStore(t, emulator(t).Endpoint, "a/b")
	defer s.Close()
	got, err := s.Probe(t.Context())
	want := store.Traits{
		Exclusive: "ifGenerationMatch=0", PartSize: 16 << 20, MaxParts: 32_768, PartDigests: "crc32c", Lists: true,
		Volatile: true, Flat: true, Modes: true, ModTimes: true, Types: true, Meta: true,
	}
	if err != nil || got != want {
		t.Errorf("got %+v (%v), want %+v", got, err, want)
	}
}

// TestLiarIsRefused: the emulator without its proxy composes over what exists.
func TestLiarIsRefused(t *testing.T) {
	t.Parallel()
	g, err := realstores.FakeGCS(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := g.MakeBucket(t.Context(), "con"); err != nil {
		t.Fatal(err)
	}
	s := openStore(t, g.Endpoint, "")
	defer s.Close()
	_, err = s.Probe(t.Context())
	sentence := problem.As(err).Sentence()
	if problem.Of(err) != problem.NotExclusive || !strings.Contains(sentence, "completion") || !strings.Contains(sentence, "exclusively") {
		t.Errorf("got %v, want that it does not create exclusively", err)
	}
	t.Log(sentence)
}
