// Package sweeptest runs one life of a batch again and again over a real store behind realstores.Faults, and lets each of its
// requests fail in turn in each way that a service or a network fails.
//
// After every life these hold, or the test fails: each item is an object with the right bytes and its publication succeeded; or the
// failure has a kind, and the object is not there, or is ours and whole. An object that somebody else has put there first is never touched. Publishing
// again over a network that works says the same, and makes no new version. A fault that passes (no answer, 5xx) does not end a life. Nothing is left over
// after the batch was dropped, but what only time removes.
package sweeptest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/storetest"
	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Subject is a store behind a proxy of its own.
type Subject struct {
	Faults *realstores.Faults
	// Open opens the store through the proxy, below a prefix; with patience of a second or so.
	Open func(t testing.TB, prefix string) store.Store
	// Direct opens it without the proxy.
	Direct func(t testing.TB, prefix string) store.Store
}

const tries = 6 // of an agent, at one item, until it gives up

// faults are what happens to a request, by name, and whether that passes.
func faults() map[string]struct {
	fault  realstores.Fault
	passes bool
} {
	one := 1
	return map[string]struct {
		fault  realstores.Fault
		passes bool
	}{
		"500":              {realstores.Fault{Action: realstores.Refuse, Status: 500}, true},
		"503, Retry-After": {realstores.Fault{Action: realstores.Refuse, Status: 503, RetryAfter: &one}, true},
		"409":              {realstores.Fault{Action: realstores.Refuse, Status: 409}, false},
		"412":              {realstores.Fault{Action: realstores.Refuse, Status: 412}, false},
		"404":              {realstores.Fault{Action: realstores.Refuse, Status: 404}, false},
		"dropped before":   {realstores.Fault{Action: realstores.LoseRequest}, true},
		"dropped after":    {realstores.Fault{Action: realstores.LoseAnswer}, true},
		"500 after":        {realstores.Fault{Action: realstores.LieAfter, Status: 500}, true},
		"409 after":        {realstores.Fault{Action: realstores.LieAfter, Status: 409}, false},
		"412 after":        {realstores.Fault{Action: realstores.LieAfter, Status: 412}, false},
		"404 after":        {realstores.Fault{Action: realstores.LieAfter, Status: 404}, false},
	}
}

// Run sweeps: each kind of fault twice, and under -short only with a process that lives on. open makes a subject for one of them.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for name, f := range faults() {
		for _, killed := range []bool{false, true}[:kills()] {
			how := name
			if killed {
				how += ", killed after it"
			}
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				s := open(t)
				for _, taken := range []bool{false, true} {
					sweep(t, s, sweeping{name: how, fault: f.fault, passes: f.passes, killed: killed, taken: taken})
				}
			})
		}
	}
}

// kills is how many kinds of processes there are to try.
func kills() int {
	if testing.Short() {
		return 1
	}
	return 2
}

// A sweeping is what all lives of one sweep have in common.
type sweeping struct {
	name   string
	fault  realstores.Fault
	passes bool
	killed bool // after a failure the process is another
	taken  bool // the names exist already
}

func sweep(t *testing.T, s Subject, w sweeping) {
	s.Faults.Plan(nil)
	(&life{T: t, Subject: s, sweeping: w, prefix: prefix(w, 0)}).run()
	calls := s.Faults.Requests()
	if len(calls) < 5 {
		t.Fatalf("a life makes %d requests, which cannot be all", len(calls))
	}
	kinds := map[string]int{}
	outcomes := map[string]int{}
	for i, c := range calls {
		kinds[c.Kind]++
		s.Faults.Plan(realstores.At(c.Kind, c.Nth, w.fault))
		l := &life{T: t, Subject: s, sweeping: w, prefix: prefix(w, i+1), at: fmt.Sprintf("%s of %s %d", w.name, c.Kind, c.Nth)}
		l.run()
		for _, err := range l.ends {
			outcomes[kindOf(err)]++
		}
	}
	t.Logf("taken %v: %d lives, a fault at each of %v: %v", w.taken, len(calls), kinds, outcomes)
}

func prefix(w sweeping, n int) string { return fmt.Sprintf("sweep-%v-%v/%d", w.killed, w.taken, n) }

// A life is one batch of two items from its first stage to its end.
type life struct {
	*testing.T
	Subject
	sweeping
	prefix string
	at     string // the fault
	st     store.Store
	b      store.Batch
	ends   []error // an item
}

// name is who this batch is; every life has another prefix.
const name = store.BatchID("0199d6f0-1c3e-7abc-8def-0123456789ab-1-0123456789abcdef")

func items() []store.Item {
	attrs := store.Attrs{ContentType: "text/plain", Meta: map[string]string{"color": "blue"}}
	return []store.Item{
		{Index: 0, Name: "d/small", Size: 300, Part: token.ChunkSize, Attrs: attrs},
		{Index: 1, Name: "d/large", Size: 2*token.ChunkSize + 7, Part: token.ChunkSize, Attrs: attrs},
	}
}

func content(it store.Item) []byte { return storetest.Content(it.Index, int(it.Size)) }

func (l *life) run() {
	l.Helper()
	direct := l.Direct(l.T, l.prefix)
	defer direct.Close()
	foreign := map[token.ObjectName]store.Info{}
	if l.taken {
		for _, it := range items() {
			foreign[it.Name] = l.squat(direct, it)
		}
	}
	l.open()
	for _, it := range items() {
		l.ends = append(l.ends, l.settle(it))
	}
	for i, it := range items() {
		if l.ends[i] == nil {
			l.fetch(it)
		}
	}
	for i, it := range items() {
		l.judge(direct, it, l.ends[i], foreign[it.Name])
	}
	l.over(direct)
}

// open begins anew, as a new process does.
func (l *life) open() {
	l.Helper()
	l.st = l.Open(l.T, l.prefix)
	var err error
	if l.b, err = l.st.Batch(l.Context(), name); err != nil {
		l.Fatalf("%s: %v", l.at, err)
	}
}

func (l *life) kill() {
	l.Helper()
	if err := errors.Join(l.b.Close(), l.st.Close()); err != nil {
		l.Errorf("%s: closing: %v", l.at, err)
	}
}

// squat puts an object of somebody else in the item's place.
func (l *life) squat(st store.Store, it store.Item) store.Info {
	l.Helper()
	b, err := st.Batch(l.Context(), "somebody-else")
	if err != nil {
		l.Fatal(err)
	}
	it.Size = 9
	pub, err := once(l.Context(), b, it, []byte("elsewhere"))
	if err := errors.Join(err, b.Close()); err != nil {
		l.Fatal(err)
	}
	return pub.Info
}

// settle does with an item what an agent does, until it is published or has failed for good.
func (l *life) settle(it store.Item) error {
	l.Helper()
	for try := 1; ; try++ {
		_, err := once(l.Context(), l.b, it, content(it))
		if err == nil || try == tries {
			return err
		}
		if !errors.Is(err, store.ErrLost) && problem.Of(err) != problem.StoreAway {
			return err
		}
		if l.killed {
			l.kill()
			l.open()
		}
		if !errors.Is(err, store.ErrLost) {
			continue
		}
		if err := discard(l.Context(), l.b, it); err != nil && problem.Of(err) != problem.StoreAway {
			return err
		}
	}
}

func discard(ctx context.Context, b store.Batch, it store.Item) error {
	s, err := b.Stage(ctx, it)
	if err != nil {
		return err
	}
	return errors.Join(s.Discard(ctx), s.Close())
}

// once stages what is not held, and publishes.
func once(ctx context.Context, b store.Batch, it store.Item, data []byte) (out store.Published, err error) {
	s, err := b.Stage(ctx, it)
	if err != nil {
		return store.Published{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for part := range it.Parts() {
		if s.Holds(part) {
			continue
		}
		p, err := s.Part(ctx, part)
		if err != nil {
			return store.Published{}, err
		}
		off, n := it.Span(part)
		if _, err := p.Write(data[off : off+n]); err != nil {
			p.Abort()
			return store.Published{}, err
		}
		if err := p.Close(); err != nil {
			return store.Published{}, err
		}
	}
	if err := s.Sync(); err != nil {
		return store.Published{}, err
	}
	out = b.Publish(ctx, []store.Publication{{Item: it, Root: storetest.Root(data)}})[0]
	return out, out.Err
}

// fetch finds an item in a listing and reads it, as the source of another transfer does, through the faults.
func (l *life) fetch(it store.Item) {
	l.Helper()
	var got []byte
	var err error
	for range tries {
		if got, err = fetchOnce(l.Context(), l.st, it); problem.Of(err) != problem.StoreAway {
			break
		}
	}
	switch {
	case err == nil && !bytes.Equal(got, content(it)):
		l.Errorf("%s: %s: read %d bytes, which are not those that were staged", l.at, it.Name, len(got))
	case err != nil && l.passes, err != nil && problem.Of(err) == problem.Internal:
		l.Errorf("%s: %s: reading: got %v", l.at, it.Name, err)
	}
}

func fetchOnce(ctx context.Context, st store.Store, it store.Item) ([]byte, error) {
	version, listed := token.Version(""), error(nil)
	err := st.List(ctx, "d", "", func(in store.Info, err error) bool {
		if in.Name == it.Name {
			version, listed = in.Version, err
		}
		return true
	})
	if err := errors.Join(err, listed); err != nil {
		return nil, err
	}
	r, err := st.Open(ctx, it.Name, version)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	body, err := r.Section(ctx, 0, it.Size)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	in, err := r.Info(ctx)
	if err == nil && in.Origin != store.OriginOf(name, it.Index) {
		err = problem.New(problem.Corrupt, "The origin is %q.", in.Origin)
	}
	return got, errors.Join(err, r.Check(ctx))
}

// judge looks at what has become of an item.
func (l *life) judge(direct store.Store, it store.Item, end error, foreign store.Info) {
	l.Helper()
	if end != nil && !errors.Is(end, store.ErrLost) && problem.Of(end) == problem.Internal {
		l.Errorf("%s: %s: got %v, want a failure with a kind", l.at, it.Name, end)
	}
	in, err := direct.Stat(l.Context(), it.Name)
	switch {
	case l.taken:
		if err != nil || in.Version != foreign.Version || in.Origin != foreign.Origin {
			l.Errorf("%s: %s: got %+v (%v), want what was there: %+v", l.at, it.Name, in, err, foreign)
		}
		if end == nil {
			l.Errorf("%s: %s: published over what was there", l.at, it.Name)
		}
		if l.passes && problem.Of(end) != problem.Taken {
			l.Errorf("%s: %s: got %v, want taken", l.at, it.Name, end)
		}
		return
	case problem.Of(err) == problem.Missing:
		if end == nil || l.passes {
			l.Errorf("%s: %s: got %v and no object", l.at, it.Name, end)
		}
		return
	case err != nil:
		l.Fatalf("%s: %s: %v", l.at, it.Name, err)
	case in.Origin != store.OriginOf(name, it.Index):
		l.Errorf("%s: %s: got the origin %q", l.at, it.Name, in.Origin)
	case end != nil && l.passes:
		l.Errorf("%s: %s: got %v, and the object is there", l.at, it.Name, end)
	}
	l.read(direct, it, in)
	if end == nil {
		l.again(direct, it, in)
	}
}

// read compares the content.
func (l *life) read(direct store.Store, it store.Item, in store.Info) {
	l.Helper()
	r, err := direct.Open(l.Context(), it.Name, in.Version)
	if err != nil {
		l.Fatalf("%s: %s: %v", l.at, it.Name, err)
	}
	defer r.Close()
	body, err := r.Section(l.Context(), 0, it.Size)
	if err != nil {
		l.Fatalf("%s: %s: %v", l.at, it.Name, err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, content(it)) {
		l.Errorf("%s: %s: got %d bytes (%v), which are not those that were staged", l.at, it.Name, len(got), err)
	}
}

// again publishes once more, which changes nothing.
func (l *life) again(direct store.Store, it store.Item, in store.Info) {
	l.Helper()
	b, err := direct.Batch(l.Context(), name)
	if err != nil {
		l.Fatalf("%s: %v", l.at, err)
	}
	out := b.Publish(l.Context(), []store.Publication{{Item: it, Root: storetest.Root(content(it))}})[0]
	now, err := direct.Stat(l.Context(), it.Name)
	err = errors.Join(err, b.Close())
	if out.Err != nil || err != nil || now.Version != in.Version {
		l.Errorf("%s: %s: publishing again: got %v and version %q (%v), want none and %q", l.at, it.Name, out.Err, now.Version, err, in.Version)
	}
}

// over drops the batch, and looks for what it has left.
func (l *life) over(direct store.Store) {
	l.Helper()
	var err error
	for range tries {
		if err = l.b.Drop(l.Context()); problem.Of(err) != problem.StoreAway {
			break
		}
	}
	if err != nil { // the fault hit the drop: it is the next process's
		if l.passes {
			l.Errorf("%s: Drop: %v", l.at, err)
		}
		b, err := direct.Batch(l.Context(), name)
		if err == nil {
			err = b.Drop(l.Context())
		}
		if err != nil {
			l.Errorf("%s: Drop by another process: %v", l.at, err)
		}
		l.kill()
	} else if err := l.st.Close(); err != nil {
		l.Errorf("%s: closing: %v", l.at, err)
	}
	err = direct.Leftovers(l.Context(), func(left store.Leftover) bool {
		if left.Batch == name && left.Expires.IsZero() {
			l.Errorf("%s: left over: %+v", l.at, left)
		}
		return true
	})
	if err != nil {
		l.Errorf("%s: Leftovers: %v", l.at, err)
	}
}

func kindOf(err error) string {
	switch {
	case err == nil:
		return "published"
	case errors.Is(err, store.ErrLost):
		return "lost"
	}
	return string(problem.Of(err))
}
