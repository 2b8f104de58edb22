package azure_test

import (
	"crypto/rand"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// openStore opens a store of the container "con" at endpoint.
func openStore(t testing.TB, a *realstores.Azure, endpoint, prefix string) *bucket.Store {
	t.Helper()
	at := *a
	at.Endpoint = endpoint
	return bucket.New(with(t, &at, a.Key, "con"), bucket.Options{
		Where: "azurite", Prefix: prefix, Now: time.Now, Patience: 5 * time.Second, Interval: 5 * time.Millisecond, Stall: 20 * time.Second,
	})
}

// write writes a blob in place of any, without the SDK.
func write(t testing.TB, a *realstores.Azure, key string, data []byte, head ...string) {
	t.Helper()
	if _, err := a.Do(t.Context(), http.MethodPut, "/con/"+key, data, append([]string{"X-Ms-Blob-Type", "BlockBlob"}, head...)...); err != nil {
		t.Errorf("writing %q: %v", key, err)
	}
}

// byUTF16 is the order of azurite's listings.
func byUTF16(a, b token.ObjectName) int {
	return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
}

func TestStore(t *testing.T) {
	t.Parallel()
	a := azurite(t)
	storetest.Run(t, func(t *testing.T) storetest.Subject {
		prefix := "exports/" + strings.ToLower(rand.Text())
		open := func(t testing.TB) store.Store { return openStore(t, a, a.Endpoint, prefix) }
		key := func(name token.ObjectName) string { return prefix + "/" + string(name) }
		return storetest.Subject{
			Store: open(t),
			Put:   func(t testing.TB, name token.ObjectName, data []byte) { write(t, a, key(name), data) },
			Remove: func(t testing.TB, name token.ObjectName) {
				if _, err := a.Do(t.Context(), http.MethodDelete, "/con/"+key(name), nil); err != nil {
					t.Errorf("removing %q: %v", name, err)
				}
			},
			Kill: open, Second: open,
			PutAttrs: func(t testing.TB, name token.ObjectName, data []byte, at store.Attrs) {
				head := []string{"Content-Type", at.ContentType}
				for k, v := range at.Meta {
					head = append(head, "X-Ms-Meta-"+k, v)
				}
				write(t, a, key(name), data, head...)
			},
			Forge: func(t testing.TB, name token.ObjectName, data []byte, o store.Origin) {
				write(t, a, key(name), data, "X-Ms-Meta-Consign_transfer", string(o))
			},
			Order: byUTF16, Remote: true,
		}
	})
}

func TestProbe(t *testing.T) {
	t.Parallel()
	a := azurite(t)
	s := openStore(t, a, a.Endpoint, "a/b")
	got, err := s.Probe(t.Context())
	want := store.Traits{
		Exclusive: "If-None-Match", PartSize: 8 << 20, MaxParts: 50_000, PartDigests: "crc64", Lists: true,
		Volatile: true, Flat: true, Modes: true, ModTimes: true, Types: true, Meta: true,
	}
	if err != nil || got != want {
		t.Errorf("got %+v (%v), want %+v", got, err, want)
	}
	if _, err := openStore(t, a, strings.Replace(a.Endpoint, a.Account, "another", 1), "").Probe(t.Context()); problem.Of(err) != problem.Unwritable && problem.Of(err) != problem.Unreadable {
		t.Errorf("another account: got %v, want a refusal", err)
	}
}
