package bucket_test

import (
	"io"
	"iter"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/agent/store/bucket/backendtest"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/token"
)

// A notebook is notes that outlive a Store, as a journal's set does.
type notebook struct {
	mu  sync.Mutex // guards all below
	all map[string]string
	err error // of Put
}

func newNotebook() *notebook { return &notebook{all: map[string]string{}} }

func (n *notebook) Put(key, value string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.err == nil {
		n.all[key] = value
	}
	return n.err
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

func (n *notebook) len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.all)
}

func testOptions(prefix string) bucket.Options {
	return bucket.Options{Where: "memory", Prefix: prefix, Now: time.Now, Patience: time.Second, Interval: time.Millisecond, Stall: 5 * time.Second}
}

// open returns a store over a service.
func open(svc *backendtest.Service, notes store.Notes, prefix string) *bucket.Store {
	s := bucket.New(svc.Backend(), testOptions(prefix))
	s.Keep(notes)
	return s
}

func subject(opt backendtest.Options, prefix string) storetest.Subject {
	svc := backendtest.New(opt)
	notes := newNotebook()
	base := ""
	if prefix != "" {
		base = prefix + "/"
	}
	return storetest.Subject{
		Store:  open(svc, notes, prefix),
		Put:    func(_ testing.TB, name token.ObjectName, data []byte) { svc.Set(base+string(name), data, nil) },
		Remove: func(_ testing.TB, name token.ObjectName) { svc.Unset(base + string(name)) },
		Kill:   func(testing.TB) store.Store { return open(svc, notes, prefix) },
		Second: func(testing.TB) store.Store { return open(svc, newNotebook(), prefix) },
		PutAttrs: func(t testing.TB, name token.ObjectName, data []byte, attrs store.Attrs) {
			_, err := svc.Backend().Put(t.Context(), base+string(name), data, bucket.Header{ContentType: attrs.ContentType, Meta: attrs.Meta})
			if err != nil {
				t.Error(err)
			}
		},
		Forge: func(_ testing.TB, name token.ObjectName, data []byte, origin store.Origin) {
			svc.Set(base+string(name), data, map[string]string{"consign-transfer": string(origin)})
		},
		Order:  storetest.ByBytes,
		Remote: true,
	}
}

// services are what buckets are like.
var services = map[string]backendtest.Options{
	"uploads":    {PartSize: token.ChunkSize},
	"named":      {Named: true},
	"unlisted":   {Unlisted: true, Page: 7},
	"twofold":    {Twofold: true, Page: 3},
	"expiring":   {Named: true, Expire: 7 * 24 * time.Hour},
	"small meta": {MaxMeta: 2048},
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for name, opt := range services {
		for _, prefix := range []string{"", "exports/one"} {
			if testing.Short() && (prefix == "") != (name == "uploads" || name == "unlisted") {
				continue
			}
			t.Run(name+" below "+prefix, func(t *testing.T) {
				storetest.Run(t, func(*testing.T) storetest.Subject { return subject(opt, prefix) })
			})
		}
	}
}

var _ io.Closer = (*bucket.Store)(nil)
