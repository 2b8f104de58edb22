package s3

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
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

// A life is what an agent does with four items: it publishes a small one, one of two parts, and one that it takes up again after a crash; and gives
// a last one up. It makes a call again that failed with problem.StoreAway, and stages anew what is lost.
type life struct {
	*testing.T
	conf   Config
	prefix string
	notes  *notebook
	store  *bucket.Store
	batch  store.Batch
	ends   map[int]error // by item
}

const tries = 5 // of one call of an agent

func (l *life) item(i int) (store.Item, []byte) {
	size := []int{1000, partSize + 4099, token.ChunkSize + 7, token.ChunkSize + 9}[i]
	return store.Item{Index: i, Name: token.ObjectName(fmt.Sprintf("d/%d", i)), Size: int64(size), Part: partSize, Attrs: store.Attrs{ContentType: "text/x-life"}}, pattern(size + i)[i:]
}

// again calls f until it does not fail with what passes.
func again(f func() error) (err error) {
	for range tries {
		if err = f(); problem.Of(err) != problem.StoreAway {
			break
		}
	}
	return err
}

func (l *life) open() {
	b, err := newBackend(l.conf)
	if err != nil {
		l.Fatal(err)
	}
	s := bucket.New(b, bucket.Options{Where: b.host, Prefix: l.prefix, Now: time.Now, Patience: 300 * time.Millisecond, Interval: 2 * time.Millisecond})
	s.Keep(l.notes)
	l.store = s
	if l.batch, err = s.Batch(l.Context(), "life-1"); err != nil {
		l.Fatal(err)
	}
}

func (l *life) close() {
	if err := errors.Join(l.batch.Close(), l.store.Close()); err != nil {
		l.Error(err)
	}
}

// stage writes what is not held of an item.
func (l *life) stage(i int) error {
	it, data := l.item(i)
	return again(func() error {
		st, err := l.batch.Stage(l.Context(), it)
		if err != nil {
			return err
		}
		defer st.Close()
		for p := range it.Parts() {
			if st.Holds(p) {
				continue
			}
			off, n := it.Span(p)
			if err := l.part(st, p, data[off:off+n]); err != nil {
				return err
			}
		}
		return st.Sync()
	})
}

func (l *life) part(st store.Stage, p int64, data []byte) error {
	w, err := st.Part(l.Context(), p)
	if err != nil {
		return err
	}
	if _, err := w.Write(data); err != nil {
		w.Abort()
		return err
	}
	return w.Close()
}

// publish stages an item and publishes it, anew if it is lost.
func (l *life) publish(i int) (err error) {
	it, data := l.item(i)
	for range tries {
		if err = l.stage(i); err == nil {
			err = again(func() error {
				return l.batch.Publish(l.Context(), []store.Publication{{Item: it, Root: storetest.Root(data)}})[0].Err
			})
		}
		if !errors.Is(err, store.ErrLost) {
			return err
		}
		st, serr := l.batch.Stage(l.Context(), it)
		if serr != nil {
			return serr
		}
		if derr := again(func() error { return st.Discard(l.Context()) }); derr != nil {
			return derr
		}
	}
	return err
}

func (l *life) live() {
	l.open()
	l.ends[0] = l.publish(0)
	l.ends[1] = l.publish(1)
	staged := l.stage(2)
	l.ends[3] = l.stage(3)
	l.close() // as a crash does: what was kept in memory is gone
	l.open()
	if l.ends[2] = l.publish(2); staged != nil && l.ends[2] != nil {
		l.ends[2] = staged
	}
	l.ends[4] = again(func() error { return l.batch.Drop(l.Context()) })
	if l.ends[1] == nil {
		l.ends[5] = again(l.read)
	}
	l.close()
}

// read finds item 1 in a listing and reads it.
func (l *life) read() error {
	it, data := l.item(1)
	var found *store.Info
	err := l.store.List(l.Context(), "d", "", func(in store.Info, err error) bool {
		if err == nil && in.Name == it.Name {
			found = &in
		}
		return true
	})
	if err != nil {
		return err
	}
	if found == nil {
		l.Errorf("a listing without an error leaves out %q", it.Name)
		return nil
	}
	r, err := l.store.Open(l.Context(), it.Name, found.Version)
	if err != nil {
		return err
	}
	defer r.Close()
	sec, err := r.Section(l.Context(), 5, it.Size-5)
	if err != nil {
		return err
	}
	defer sec.Close()
	got, err := io.ReadAll(sec)
	if err == nil && !bytes.Equal(got, data[5:]) {
		l.Error("other bytes were read, without an error")
	}
	return err
}

// audit looks, without faults, at what is there.
func (l *life) audit(direct *backend, allowed ...problem.Code) {
	allowed = append(allowed, problem.StoreAway, problem.Unwritable, problem.Unreadable)
	for i, end := range l.ends {
		if end != nil && !errors.Is(end, store.ErrLost) && !slices.Contains(allowed, problem.Of(end)) {
			l.Errorf("item %d ended with %v, which is no end of this fault", i, end)
		}
		if i >= 4 {
			continue
		}
		it, data := l.item(i)
		o, err := direct.Head(l.Context(), l.prefix+"/"+string(it.Name))
		switch {
		case problem.Of(err) == problem.Missing && (end != nil || i == 3):
		case err != nil:
			l.Errorf("item %d ended with %v, and Head says %v", i, end, err)
		case i == 3:
			l.Errorf("item %d was never published, and is there", i)
		case o.Meta["consign-transfer"] != string(store.OriginOf("life-1", i)) || o.ContentType != it.Attrs.ContentType || !bytes.Equal(all(l.T, direct, o), data):
			l.Errorf("item %d ended with %v and has %+v or other bytes", i, end, o)
		}
	}
	if end, ok := l.ends[4]; end != nil || !ok {
		return // it would be dropped again
	}
	told := map[string]bool{}
	s := openStore(l, direct.conf(l.conf), l.prefix, l.notes)
	defer s.Close()
	err := s.Leftovers(l.Context(), func(f store.Leftover) bool {
		told[f.ID] = true
		if f.Batch != "" {
			l.Errorf("the batch was dropped, and %+v is left", f)
		}
		return true
	})
	if err != nil {
		l.Error(err)
	}
	err = direct.Uploads(l.Context(), l.prefix+"/", func(u bucket.Upload) bool {
		if !told[u.ID] {
			l.Errorf("the upload %+v is an orphan that nobody tells of", u)
		}
		return true
	})
	if err != nil {
		l.Error(err)
	}
}

// conf is how to go round the proxy.
func (b *backend) conf(through Config) Config {
	through.Endpoint = "http://" + b.host
	return through
}

// TestFaultAtEachCall does every fault at every request of a life, each in a life of its own.
func TestFaultAtEachCall(t *testing.T) {
	t.Parallel()
	v := plain(t, realstores.Versitygw)
	direct := open(t, v.config("home"))
	var n atomic.Int64
	live := func(t *testing.T, c realstores.Call) *realstores.Faults {
		t.Helper()
		proxy := faulty(t, v)
		if c.Kind != "" {
			proxy.Plan(realstores.At(c.Kind, c.Nth, c.Fault))
		}
		conf := v.config("home")
		conf.Endpoint = proxy.URL()
		l := &life{T: t, conf: conf, prefix: fmt.Sprintf("life/%d", n.Add(1)), notes: newNotebook(), ends: map[int]error{}}
		l.live()
		if c.Kind == "" {
			for i, end := range l.ends {
				if end != nil {
					t.Errorf("item %d ended with %v without a fault", i, end)
				}
			}
		}
		lie := c.Fault
		switch {
		case lie.Status == http.StatusNotFound && c.Kind == "CreateMultipartUpload" && lie.Action == realstores.LieAfter:
			delete(l.ends, 4) // who begins an upload and says that the bucket is not there leaves it where nobody looks
		case lie.Status == http.StatusNotFound && c.Kind == "HeadObject":
			l.audit(direct, problem.Taken, problem.Missing) // what it says is not there was removed, as far as anybody can tell
			return proxy
		case lie.Status == http.StatusNotFound && c.Kind == "GetObject", lie.Status == http.StatusPreconditionFailed && c.Kind == "GetObject":
			l.audit(direct, problem.Missing, problem.Changed)
			return proxy
		case lie.Status == http.StatusNotFound && c.Kind == "ListObjects":
			l.audit(direct, problem.Missing)
			return proxy
		}
		l.audit(direct)
		return proxy
	}
	calls := live(t, realstores.Call{}).Requests()
	if len(calls) < 15 {
		t.Fatalf("got %d requests of a life, want more", len(calls))
	}
	t.Logf("a life makes %d requests", len(calls))
	second := 1
	faults := map[string]realstores.Fault{
		"500":                  {Action: realstores.Refuse, Status: http.StatusInternalServerError},
		"503":                  {Action: realstores.Refuse, Status: http.StatusServiceUnavailable, RetryAfter: &second},
		"409":                  {Action: realstores.Refuse, Status: http.StatusConflict},
		"412":                  {Action: realstores.Refuse, Status: http.StatusPreconditionFailed},
		"404":                  {Action: realstores.Refuse, Status: http.StatusNotFound},
		"200":                  {Action: realstores.Refuse, Status: http.StatusOK},
		"request lost":         {Action: realstores.LoseRequest},
		"answer lost":          {Action: realstores.LoseAnswer},
		"500 after it is done": {Action: realstores.LieAfter, Status: http.StatusInternalServerError},
		"412 after it is done": {Action: realstores.LieAfter, Status: http.StatusPreconditionFailed},
		"404 after it is done": {Action: realstores.LieAfter, Status: http.StatusNotFound},
	}
	for i, c := range calls {
		for j, name := range slices.Sorted(maps.Keys(faults)) {
			if testing.Short() && (i+j)%3 != 0 {
				continue
			}
			f := faults[name]
			t.Run(fmt.Sprintf("%s %d %s", c.Kind, c.Nth, name), func(t *testing.T) {
				t.Parallel()
				c.Fault = f
				live(t, c)
			})
		}
	}
}
