package backendtest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Subject is a backend under test.
type Subject struct {
	// Backend is a bucket that may hold other keys: each test keeps to a prefix of its own, below Below.
	Backend bucket.Backend
	Below   string // "" or a prefix with '/' at its end
	// NoBucket is the same service with a bucket that does not exist; nil if it cannot be asked for.
	NoBucket bucket.Backend
	// BadCredentials is the same bucket with credentials that the service refuses; nil if it takes any.
	BadCredentials bucket.Backend
	// Streams says that the service refuses to take a part again with other bytes (rclone, which has passed them on by then).
	Streams bool
}

// A run is one test of the suite.
type run struct {
	*testing.T
	bucket.Backend
	sub    Subject
	prefix string // of all keys of the test, with '/' at its end
	batch  store.BatchID
}

// Run runs the suite. Each test gets what open returns, which is closed afterwards; a bucket may be shared.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	tests := []struct {
		name string
		run  func(t *run)
	}{
		{"01 limits are sane", limits},
		{"02 put creates once", putOnce},
		{"03 one of racing puts wins", putRace},
		{"04 metadata comes back", metadata},
		{"05 odd keys are kept or refused", oddKeys},
		{"06 ranges are exact", ranges},
		{"07 pins hold", pins},
		{"08 listing of 2,500 keys", listing},
		{"09 delete outcomes", deletes},
		{"10 parts in any order and again", parts},
		{"11 complete creates once", completeOnce},
		{"12 one of racing completes wins", completeRace},
		{"13 abort is idempotent", aborts},
		{"14 uploads are listed with what abort needs", uploads},
		{"15 a part that breaks does not count", brokenPart},
		{"16 an ended context ends the call", cancelled},
		{"17 refusals have their kind", refusals},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			t.Cleanup(func() {
				if err := s.Backend.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			})
			id := strings.ToLower(rand.Text()[:12])
			tt.run(&run{T: t, Backend: s.Backend, sub: s, prefix: s.Below + "t-" + id + "/", batch: store.BatchID("bt-" + id)})
		})
	}
}

// content is n bytes that depend on seed.
func content(seed, n int) []byte {
	b := make([]byte, n)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// header is what Store writes beside a stage's content.
func (t *run) header(index int) bucket.Header {
	o := store.OriginOf(t.batch, index)
	key := "consign-transfer"
	if t.Limits().MetaPair(key, string(o)) != nil {
		key = "consign_transfer"
	}
	return bucket.Header{Meta: map[string]string{key: string(o)}, Origin: o}
}

func (t *run) put(key string, data []byte) bucket.Object {
	t.Helper()
	o, err := t.Put(t.Context(), key, data, bucket.Header{})
	if err != nil {
		t.Fatalf("Put(%q): %v", key, err)
	}
	return o
}

func (t *run) head(key string) bucket.Object {
	t.Helper()
	o, err := t.Head(t.Context(), key)
	if err != nil {
		t.Fatalf("Head(%q): %v", key, err)
	}
	return o
}

func (t *run) want(what string, err error, codes ...problem.Code) {
	t.Helper()
	for _, code := range codes {
		if problem.Of(err) == code {
			return
		}
	}
	t.Errorf("%s: got %q (%v), want one of %q", what, problem.Of(err), err, codes)
}

// same is Limits.Same.
func (t *run) same(a, b token.Version) bool {
	if f := t.Limits().Same; f != nil {
		return f(a, b)
	}
	return a == b
}

// read gets a range whole.
func (t *run) read(key string, v token.Version, off, n int64) ([]byte, bucket.Object) {
	t.Helper()
	r, o, err := t.Get(t.Context(), key, v, off, n)
	if err != nil {
		t.Fatalf("Get(%q, %d, %d): %v", key, off, n, err)
	}
	b, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatalf("reading %q from %d: %v", key, off, err)
	}
	return b, o
}

func (t *run) wantContent(key string, want []byte) {
	t.Helper()
	o := t.head(key)
	if o.Size != int64(len(want)) {
		t.Errorf("%q: got %d bytes, want %d", key, o.Size, len(want))
		return
	}
	if got, _ := t.read(key, o.Version, 0, max(1, o.Size)); !bytes.Equal(got, want) {
		t.Errorf("the content of %q differs", key)
	}
}

func limits(t *run) {
	l := t.Limits()
	if l.Kind == "" || l.Exclusive == "" || l.MetaPair == nil || l.MaxKey < 256 || l.MaxParts < 1000 {
		t.Errorf("got %+v, want all set", l)
	}
	if l.PartSize < token.ChunkSize || l.PartSize&(l.PartSize-1) != 0 {
		t.Errorf("got parts of %d bytes, want a power of two of at least %d", l.PartSize, token.ChunkSize)
	}
	if l.MetaPair("color", "dark blue") != nil {
		t.Error("a plain pair of metadata is refused")
	}
	for _, pair := range [][2]string{{"", "x"}, {"a\nb", "x"}, {"a b", "x"}, {"color", "x\r\ny: z"}} {
		if l.MetaPair(pair[0], pair[1]) == nil {
			t.Errorf("the pair %q is taken", pair)
		}
	}
}

func putOnce(t *run) {
	key := t.prefix + "a/b.txt"
	_, err := t.Head(t.Context(), key)
	t.want("Head before", err, problem.Missing)
	data := content(1, 3000)
	o := t.put(key, data)
	got := t.head(key)
	if got.Key != key || got.Size != 3000 || got.Version == "" || !t.same(got.Version, o.Version) || got.ModTime.IsZero() {
		t.Errorf("got %+v, want key, size, time and version of %+v", got, o)
	}
	_, err = t.Put(t.Context(), key, content(2, 10), bucket.Header{})
	t.want("Put again", err, problem.Taken)
	t.wantContent(key, data)
	t.put(t.prefix+"empty", nil)
	t.wantContent(t.prefix+"empty", nil)
	t.put(t.prefix+"mark/", nil)
	if got := t.head(t.prefix + "mark/"); got.Size != 0 {
		t.Errorf("the marker has %d bytes", got.Size)
	}
	_, err = t.Put(t.Context(), t.prefix+"mark/", nil, bucket.Header{})
	t.want("Put of the marker again", err, problem.Taken)
	_, err = t.Head(t.Context(), t.prefix+"mark")
	t.want("Head of what the marker stands for", err, problem.Missing)
}

// race calls f from n goroutines at once and returns what each got.
func race(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// oneWinner wants one nil, and returns its place.
func (t *run) oneWinner(what string, errs []error) int {
	t.Helper()
	winner, n := 0, 0
	for i, err := range errs {
		switch {
		case err == nil:
			winner = i
			n++
		case !refused(err):
			t.Errorf("%s: got %v, want a refusal", what, err)
		}
	}
	if n != 1 {
		t.Errorf("%s: got %d winners, want 1", what, n)
	}
	return winner
}

// refused reports whether err is one of the answers to a creation that did not win.
func refused(err error) bool {
	return problem.Of(err) == problem.Taken || errors.Is(err, bucket.ErrConflict) || errors.Is(err, bucket.ErrNoUpload)
}

func putRace(t *run) {
	for round := range 5 {
		key := fmt.Sprintf("%sx%d", t.prefix, round)
		w := t.oneWinner(key, race(4, func(i int) error {
			_, err := t.Put(t.Context(), key, content(i, 500+i), bucket.Header{})
			return err
		}))
		t.wantContent(key, content(w, 500+w))
	}
}

func metadata(t *run) {
	h := t.header(7)
	h.ContentType = "text/markdown; charset=utf-8"
	pairs := map[string]string{"color": "dark blue", "mtime": "1700000000.123456789", "mode": "0100644", "k-1": "a", "k_2": "b", "Caps": "C",
		"uni": "grün", "quote": `a"b\c`, "percent": "100%25", "eq": "a=b;c, d"}
	for k, v := range pairs {
		if t.Limits().MetaPair(k, v) == nil {
			h.Meta[k] = v
		}
	}
	check := func(what string, o bucket.Object) {
		t.Helper()
		if o.ContentType != h.ContentType {
			t.Errorf("%s: got the type %q, want %q", what, o.ContentType, h.ContentType)
		}
		for k, v := range h.Meta {
			if o.Meta[k] != v {
				t.Errorf("%s: got %q = %q, want %q", what, k, o.Meta[k], v)
			}
		}
		if len(o.Meta) != len(h.Meta) {
			t.Errorf("%s: got the metadata %q, want %q", what, o.Meta, h.Meta)
		}
	}
	if _, err := t.Put(t.Context(), t.prefix+"small", []byte("x"), h); err != nil {
		t.Fatalf("Put: %v", err)
	}
	o := t.head(t.prefix + "small")
	check("Put", o)
	if _, got := t.read(o.Key, o.Version, 0, 1); got.Meta != nil {
		check("Get", got)
	}
	t.whole(t.prefix+"large", h, content(1, 5000))
	check("Complete", t.head(t.prefix+"large"))
}

// whole makes an object by an upload of one part.
func (t *run) whole(key string, h bucket.Header, data []byte) {
	t.Helper()
	up, part := t.stage(key, h, data)
	if _, err := t.Complete(t.Context(), up, []bucket.Part{part}, h); err != nil {
		t.Fatalf("Complete(%q): %v", key, err)
	}
	if err := t.Abort(t.Context(), up); err != nil {
		t.Errorf("Abort of what was completed: %v", err)
	}
}

// stage begins an upload of one part and writes it.
func (t *run) stage(key string, h bucket.Header, data []byte) (bucket.Upload, bucket.Part) {
	t.Helper()
	up, err := t.Begin(t.Context(), key, h)
	if err != nil {
		t.Fatalf("Begin(%q): %v", key, err)
	}
	up.Part = t.Limits().PartSize
	return up, t.part(up, 0, data)
}

func (t *run) part(up bucket.Upload, index int64, data []byte) bucket.Part {
	t.Helper()
	p, err := t.PutPart(t.Context(), up, index, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatalf("PutPart(%d): %v", index, err)
	}
	if p.Index != index || p.Size != int64(len(data)) || p.Mark == "" {
		t.Errorf("PutPart(%d): got %+v, want index, size %d and a mark", index, p, len(data))
	}
	return p
}

func oddKeys(t *run) {
	long := t.prefix + strings.Repeat("d/", 60)
	long += strings.Repeat("n", min(200, t.Limits().MaxKey-len(long)))
	for i, key := range []string{"with blank", "plus+and&and=", "percent%41", "ques?tion#hash", "qu'ote\"s", "gr\u00fcn/\u4e16\u754c", "tilde~(x)[y]{z}", "a:b@c!d$e*f,g;h",
		"dot.", ".hidden", "end\U0010FFFD", strings.TrimPrefix(long, t.prefix)} {
		data := content(i, 20+i)
		_, err := t.Put(t.Context(), t.prefix+key, data, bucket.Header{})
		if problem.Of(err) == problem.BadName {
			continue
		}
		if err != nil {
			t.Errorf("Put(%q): %v", key, err)
			continue
		}
		t.wantContent(t.prefix+key, data)
		found := false
		err = t.List(t.Context(), t.prefix+key, "", func(o bucket.Object) bool { found = found || o.Key == t.prefix+key; return true })
		if err != nil || !found {
			t.Errorf("List(%q): got %v and found %v, want it found", key, err, found)
		}
	}
}

func ranges(t *run) {
	data := content(3, 100000)
	o := t.put(t.prefix+"x", data)
	for _, tt := range []struct{ off, n int64 }{{0, 1}, {0, 100000}, {99999, 1}, {1234, 4321}, {0, 200000}, {99990, 100}} {
		got, head := t.read(o.Key, o.Version, tt.off, tt.n)
		if !bytes.Equal(got, data[tt.off:min(tt.off+tt.n, 100000)]) {
			t.Errorf("Get(%d, %d): got %d bytes, or others", tt.off, tt.n, len(got))
		}
		if head.Size != 100000 || !t.same(head.Version, o.Version) {
			t.Errorf("Get(%d, %d): got size %d and version %q, want 100000 and %q", tt.off, tt.n, head.Size, head.Version, o.Version)
		}
	}
	for _, off := range []int64{100000, 100001} {
		if got, _ := t.read(o.Key, o.Version, off, 10); len(got) != 0 {
			t.Errorf("Get at %d: got %d bytes, want none", off, len(got))
		}
	}
	o = t.put(t.prefix+"empty", nil)
	if got, _ := t.read(o.Key, o.Version, 0, 10); len(got) != 0 {
		t.Errorf("Get of an empty object: got %d bytes", len(got))
	}
}

func pins(t *run) {
	key := t.prefix + "x"
	made := t.put(key, content(1, 1000))
	vs := []token.Version{made.Version, t.head(key).Version}
	err := t.List(t.Context(), key, "", func(o bucket.Object) bool { vs = append(vs, o.Version); return true })
	if err != nil || len(vs) != 3 {
		t.Fatalf("List: got %d versions and %v", len(vs), err)
	}
	for _, v := range vs {
		if got, _ := t.read(key, v, 10, 20); !bytes.Equal(got, content(1, 1000)[10:30]) {
			t.Errorf("Get at %q: other bytes", v)
		}
		if !t.same(v, vs[0]) {
			t.Errorf("the versions %q and %q are not the same", v, vs[0])
		}
	}
	other := t.put(t.prefix+"y", content(2, 1000)).Version
	_, _, err = t.Get(t.Context(), key, other, 0, 10)
	t.want("Get at another's version", err, problem.Changed, problem.Missing)
	if err := t.Delete(t.Context(), key, vs[1]); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	_, _, err = t.Get(t.Context(), t.prefix+"never", vs[0], 0, 10)
	t.want("Get of what never was", err, problem.Missing, problem.Changed)
	t.put(key, content(9, 1000))
	for _, v := range vs {
		r, _, err := t.Get(t.Context(), key, v, 0, 1000)
		if err != nil {
			t.want("Get of what was replaced", err, problem.Changed, problem.Missing)
			continue
		}
		// A service that keeps versions may still have the old one.
		got, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || !bytes.Equal(got, content(1, 1000)) {
			t.Errorf("Get at %q of what was replaced: got other bytes, and %v", v, err)
		}
	}
}

func listing(t *run) {
	const n = 2500
	name := func(i int) string { return fmt.Sprintf("%sk/%04d", t.prefix, i) }
	for _, err := range race(16, func(w int) error {
		for i := w; i < n; i += 16 {
			if _, err := t.Put(t.Context(), name(i), content(i, i%7), bucket.Header{}); err != nil {
				return err
			}
		}
		return nil
	}) {
		if err != nil {
			t.Fatalf("Put: %v", err)
		}
	}
	for _, key := range []string{"k!", "k-a", "k0", "l/z"} {
		t.put(t.prefix+key, []byte("x"))
	}
	list := func(prefix, after string, stop int) (keys []string) {
		t.Helper()
		err := t.List(t.Context(), prefix, after, func(o bucket.Object) bool {
			if i := 0; strings.HasPrefix(o.Key, t.prefix+"k/") {
				if _, err := fmt.Sscanf(o.Key[len(t.prefix)+2:], "%d", &i); err != nil || o.Size != int64(i%7) || o.Version == "" {
					t.Errorf("got %+v, want a version and %d bytes", o, i%7)
				}
			}
			keys = append(keys, o.Key)
			return len(keys) != stop
		})
		if err != nil {
			t.Errorf("List(%q, %q): %v", prefix, after, err)
		}
		return keys
	}
	all := list(t.prefix+"k/", "", 0)
	for i := range n {
		if len(all) != n || all[i] != name(i) {
			t.Fatalf("got %d keys, and another than %q at %d", len(all), name(i), i)
		}
	}
	for _, tt := range []struct {
		prefix, after string
		stop          int
		first         string
		count         int
	}{
		{"k/", "k/1999", 0, "k/2000", 500}, {"k/", "k/0999", 3, "k/1000", 3}, {"k/", "k/2499", 0, "", 0}, {"k/", "k/1999x", 0, "k/2000", 500},
		{"k/", "a", 0, "k/0000", n}, {"k/", "z", 0, "", 0}, {"k/12", "", 0, "k/1200", 100}, {"nothing/", "", 0, "", 0}, {"k", "", 2, "k!", 2},
		{"", "k/\U0010FFFF", 0, "k0", 2}, {"", "k/2499", 0, "k0", 2}, {"k/", "k/", 1, "k/0000", 1},
	} {
		keys := list(t.prefix+tt.prefix, t.prefix+tt.after, tt.stop)
		if len(keys) != tt.count || tt.count > 0 && keys[0] != t.prefix+tt.first {
			t.Errorf("List(%q, %q): got %d keys from %q, want %d from %q", tt.prefix, tt.after, len(keys), keys[:min(1, len(keys))], tt.count, tt.first)
		}
	}
}

func deletes(t *run) {
	key := t.prefix + "x"
	old := t.put(t.prefix+"other", content(1, 9)).Version
	t.want("Delete of what is not there", t.Delete(t.Context(), key, old), problem.Missing, problem.Changed)
	v := t.put(key, content(2, 9)).Version
	t.want("Delete of another version", t.Delete(t.Context(), key, old), problem.Changed, problem.Missing)
	t.wantContent(key, content(2, 9))
	t.want("Delete", t.Delete(t.Context(), key, v), "")
	_, err := t.Head(t.Context(), key)
	t.want("Head after Delete", err, problem.Missing)
	t.want("Delete again", t.Delete(t.Context(), key, v), problem.Missing, problem.Changed)
	t.put(key, content(3, 9))
	t.want("Delete of any version", t.Delete(t.Context(), key, ""), "")
	t.want("Delete of any version again", t.Delete(t.Context(), key, ""), problem.Missing, "")
}
