package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	rounds   = 5         // races of each kind: a service that is not exclusive may be lucky
	racers   = 4         // in each
	crashed  = time.Hour // after which what a probe has left is nobody's
	tailSize = 1000      // bytes of the last part of the probe's large object
)

// A probe is one call of Probe. All that it writes lies below root, and its stages are of batch id.
type probe struct {
	s    *Store
	id   store.BatchID
	root string // ends with '/'
	n    int    // stages so far

	mu  sync.Mutex // guards all below
	ups []Upload
}

// Probe implements store.Store. It lets four writers race for a name, five times by Put and five times by Complete; reads, lists
// and describes what it has written; and removes it. What a probe that crashed over an hour ago has left is removed as well. Besides
// problem.NotExclusive it refuses a service that it could not work with, or not read from safely, with problem.BadConfig.
func (s *Store) Probe(ctx context.Context) (store.Traits, error) {
	id := store.BatchID(fmt.Sprintf("%s%d-%s", probing, s.opt.Now().Unix(), strings.ToLower(rand.Text()[:8])))
	p := &probe{s: s, id: id, root: s.base + hidden + "/" + string(id) + "/"}
	t := store.Traits{
		PartSize: s.limits.PartSize, MaxParts: s.limits.MaxParts, PartDigests: s.limits.PartDigests, Volatile: true,
	}
	if err := p.sweep(ctx); err != nil {
		return store.Traits{}, fmt.Errorf("probing the store: %w", err)
	}
	exclusive, err := p.measure(ctx, &t)
	// Also when the measuring was cancelled; it is bounded by patience.
	err = errors.Join(err, p.clean(context.WithoutCancel(ctx)))
	if err != nil {
		return store.Traits{}, fmt.Errorf("probing the store: %w", err)
	}
	s.mu.Lock()
	s.looks, s.lists = exclusive != nil, t.Lists
	s.keeps = kept{t.Types, t.Modes, t.ModTimes, t.Meta}
	s.mu.Unlock()
	if exclusive == nil {
		t.Exclusive = s.limits.Exclusive
	}
	return t, exclusive
}

// measure fills t. exclusive is why the service does not create exclusively; where it cannot be used for another reason as well, err
// says both.
func (p *probe) measure(ctx context.Context, t *store.Traits) (exclusive, err error) {
	exclusive, err = p.races(ctx)
	if err != nil {
		return nil, err
	}
	if err = p.others(ctx, t); exclusive != nil && problem.Of(err) == problem.BadConfig {
		err = problem.Wrap(err, problem.BadConfig, "%s %s", problem.As(exclusive).Sentence(), problem.As(err).Sentence())
	}
	return exclusive, err
}

// others fills t.
func (p *probe) others(ctx context.Context, t *store.Traits) error {
	small, err := p.metadata(ctx, t)
	if err != nil {
		return err
	}
	if err := p.large(ctx, t, small); err != nil {
		return err
	}
	if c, ok := p.s.b.(Checker); ok {
		err := p.s.call(ctx, assembly, func(ctx context.Context) (err error) {
			t.PartDigests, err = c.CheckParts(ctx, p.root+"check")
			return err
		})
		if err != nil {
			return err
		}
	}
	t.Flat, err = p.flat(ctx)
	return err
}

func (p *probe) refuse(why string) error {
	return problem.New(problem.BadConfig, "The store at %s %s.", p.s.opt.Where, why)
}

func (p *probe) lie(format string, args ...any) error {
	return problem.New(problem.NotExclusive, "The store at %s %s: it does not create exclusively.", p.s.opt.Where, fmt.Sprintf(format, args...))
}

// next is the header of a new stage.
func (p *probe) next(a store.Attrs) Header {
	p.n++
	return p.s.header(a, store.OriginOf(p.id, p.n), "")
}

// The kinds of races.
const (
	creations   = "creations"
	completions = "completions"
)

// races lets writers race, and looks whether one of them won.
func (p *probe) races(ctx context.Context) (exclusive, err error) {
	for _, kind := range []struct {
		name string
		race func(ctx context.Context, key string, hs []Header) ([]error, error)
	}{{creations, p.putRace}, {completions, p.completeRace}} {
		for range rounds {
			lies := error(nil)
			err := p.s.call(ctx, assembly, func(ctx context.Context) (err error) {
				lies, err = p.round(ctx, kind.name, kind.race)
				return err
			})
			if err != nil || lies != nil {
				return lies, err
			}
		}
	}
	return nil, nil
}

// round is one race for a new name, and in the later kind two who come too late.
func (p *probe) round(ctx context.Context, kind string, race func(context.Context, string, []Header) ([]error, error)) (lies, err error) {
	hs := make([]Header, racers)
	for i := range hs {
		hs[i] = p.next(store.Attrs{})
	}
	key := p.root + "race-" + strconv.Itoa(p.n)
	errs, err := race(ctx, key, hs)
	if err != nil {
		return nil, err
	}
	winner, won := 0, 0
	for i, err := range errs {
		switch {
		case err == nil:
			winner = i
			won++
		case isAway(err), problem.Of(err) == problem.Cancelled:
			return nil, err
		case !isTaken(err) && !errors.Is(err, ErrConflict) && !errors.Is(err, ErrNoUpload):
			return nil, err
		}
	}
	if won == 0 {
		return nil, &Away{Err: fmt.Errorf("none of %d concurrent %s was accepted", racers, kind)}
	}
	if won > 1 {
		return p.lie("accepted %d of %d concurrent %s of one name", won, racers, kind), nil
	}
	if kind == completions {
		if err := p.late(ctx, key); err != nil {
			return err, nil
		}
	}
	o, err := p.s.b.Head(ctx, key)
	if err != nil {
		return nil, err
	}
	if got := p.s.decode(o).origin; got != "" && got != hs[winner].Origin {
		return p.lie("has replaced an object by a creation that it refused"), nil
	}
	return nil, nil
}

// late creates what exists.
func (p *probe) late(ctx context.Context, key string) error {
	if _, err := p.s.b.Put(ctx, key, []byte("late"), p.next(store.Attrs{})); err == nil {
		return p.lie("has accepted the creation of a name that existed")
	}
	errs, err := p.completeRace(ctx, key, []Header{p.next(store.Attrs{})})
	if err == nil && errs[0] == nil {
		return p.lie("has accepted the completion of a name that existed")
	}
	return nil
}

func (p *probe) putRace(ctx context.Context, key string, hs []Header) ([]error, error) {
	return atOnce(len(hs), func(i int) error {
		_, err := p.s.b.Put(ctx, key, []byte(hs[i].Origin), hs[i])
		return err
	}), nil
}

func (p *probe) completeRace(ctx context.Context, key string, hs []Header) ([]error, error) {
	ups, parts := make([]Upload, len(hs)), make([]Part, len(hs))
	staged := atOnce(len(hs), func(i int) (err error) {
		if ups[i], err = p.begin(ctx, key, hs[i]); err != nil {
			return err
		}
		parts[i], err = p.part(ctx, ups[i], 0, []byte(hs[i].Origin))
		return err
	})
	if err := errors.Join(staged...); err != nil {
		return nil, err
	}
	return atOnce(len(hs), func(i int) error {
		_, err := p.s.b.Complete(ctx, ups[i], parts[i:i+1], hs[i])
		return err
	}), nil
}

// atOnce calls f for 0 to n-1, each in a goroutine of its own.
func atOnce(n int, f func(i int) error) []error {
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

// begin is Begin with a memory, for clean.
func (p *probe) begin(ctx context.Context, key string, h Header) (Upload, error) {
	up, err := p.s.b.Begin(ctx, key, h)
	if err != nil {
		return Upload{}, err
	}
	up.Part = p.s.limits.PartSize
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ups = append(p.ups, up)
	return up, nil
}

func (p *probe) part(ctx context.Context, up Upload, index int64, data []byte) (Part, error) {
	return p.s.b.PutPart(ctx, up, index, bytes.NewReader(data), int64(len(data)))
}

// metadata writes one object with all attributes and looks which are kept.
func (p *probe) metadata(ctx context.Context, t *store.Traits) (Object, error) {
	want := store.Attrs{
		ModTime: time.Date(2001, 2, 3, 4, 5, 6, 789012345, time.UTC), Mode: 0o640, HasMode: true, ContentType: "text/x-consign",
		Meta: map[string]string{"color": "blue"},
	}
	var o Object
	err := p.s.call(ctx, p.s.opt.Stall, func(ctx context.Context) (err error) {
		h := p.next(want)
		key := p.root + "meta-" + strconv.Itoa(p.n)
		if _, err = p.s.b.Put(ctx, key, []byte("m"), h); err != nil {
			return err
		}
		if o, err = p.s.b.Head(ctx, key); err == nil && p.s.decode(o).origin != h.Origin {
			return p.refuse("does not keep user metadata, by which an agent knows its own work again after a crash")
		}
		return err
	})
	got := p.s.decode(o).attrs
	t.Types = got.ContentType == want.ContentType
	t.Modes = got.HasMode && got.Mode == want.Mode
	t.ModTimes = got.ModTime.Equal(want.ModTime)
	t.Meta = got.Meta["color"] == "blue"
	return o, err
}

// large makes an object of two parts, and looks at every step whether the service does what a Store relies on.
func (p *probe) large(ctx context.Context, t *store.Traits, other Object) error {
	return p.s.call(ctx, assembly, func(ctx context.Context) error {
		h := p.next(store.Attrs{})
		key := p.root + "large-" + strconv.Itoa(p.n)
		up, err := p.begin(ctx, key, h)
		if err != nil {
			return err
		}
		size := p.s.limits.PartSize
		data := make([]byte, size+tailSize)
		_, _ = rand.Read(data) // never an error
		err = p.outOfOrder(ctx, up, data, true)
		if errors.Is(err, ErrNoUpload) {
			// It has passed on the first one: a part is not replaced. An item is staged anew then, which works as well.
			if up, err = p.begin(ctx, key, h); err == nil {
				err = p.outOfOrder(ctx, up, data, false)
			}
		}
		if err != nil {
			return err
		}
		parts, err := p.s.b.Parts(ctx, up)
		if err != nil && !errors.Is(err, ErrNoUpload) {
			return err
		}
		if !fits(parts, store.Item{Size: int64(len(data)), Part: size}) {
			return p.refuse("does not list the parts that it holds, without which nothing can be resumed")
		}
		t.Lists = false
		err = p.s.b.Uploads(ctx, p.root, func(u Upload) bool {
			t.Lists = t.Lists || u.Key == key
			return true
		})
		if err != nil {
			return err
		}
		if _, err := p.s.b.Complete(ctx, up, parts, h); err != nil {
			return err
		}
		o, err := p.s.b.Head(ctx, key)
		if err != nil {
			return err
		}
		if p.s.decode(o).origin != h.Origin {
			return p.refuse("does not keep the metadata of an upload, by which an agent knows its own work again after a crash")
		}
		return p.reads(ctx, o, data, other)
	})
}

// outOfOrder writes the last part, another first one if it shall be replaced, and the first.
func (p *probe) outOfOrder(ctx context.Context, up Upload, data []byte, replaced bool) error {
	size := p.s.limits.PartSize
	if _, err := p.part(ctx, up, 1, data[size:]); err != nil {
		return err
	}
	if replaced {
		if _, err := p.part(ctx, up, 0, data[:tailSize]); err != nil {
			return err
		}
	}
	_, err := p.part(ctx, up, 0, data[:size])
	return err
}

// reads reads around the boundary of two parts, and at a version that is another object's.
func (p *probe) reads(ctx context.Context, o Object, data []byte, other Object) error {
	off, n := p.s.limits.PartSize-tailSize/2, int64(tailSize)
	body, _, err := p.s.b.Get(ctx, o.Key, o.Version, off, n)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(io.LimitReader(body, n+1))
	_ = body.Close() // only read from
	if err != nil {
		return &Away{Err: err}
	}
	if o.Size != int64(len(data)) || !bytes.Equal(got, data[off:off+n]) {
		return p.refuse("does not return the bytes that were written")
	}
	body, _, err = p.s.b.Get(ctx, o.Key, other.Version, 0, 1)
	switch code := problem.Of(err); {
	case err == nil:
		_ = body.Close() // not read
		return p.refuse("does not refuse to read another version than the one that was asked for, so it is no safe source")
	case code != problem.Changed && code != problem.Missing:
		return err
	}
	return nil
}

// flat reports whether a name can be an object and have others below it.
func (p *probe) flat(ctx context.Context) (flat bool, err error) {
	err = p.s.call(ctx, p.s.opt.Stall, func(ctx context.Context) error {
		h := p.next(store.Attrs{})
		key := p.root + "flat-" + strconv.Itoa(p.n)
		if _, err := p.s.b.Put(ctx, key, []byte("f"), h); err != nil {
			return err
		}
		_, err := p.s.b.Put(ctx, key+"/below", []byte("f"), h)
		flat = err == nil
		if passes(err) || ctx.Err() != nil {
			return err
		}
		return nil
	})
	return flat, err
}

// clean removes what the probe has made.
func (p *probe) clean(ctx context.Context) error {
	p.mu.Lock()
	ups := p.ups
	p.mu.Unlock()
	var failed firstError
	each(p.s.opt.Concurrency, slices.Values(ups), func(up Upload) { failed.note(p.s.abort(ctx, up)) })
	if failed.err != nil {
		return failed.err
	}
	return p.s.erase(ctx, p.root, func(string) bool { return true })
}

// sweep removes what probes have left that crashed.
func (p *probe) sweep(ctx context.Context) error {
	before := p.s.opt.Now().Add(-crashed).Unix()
	old := func(id string) bool {
		when, _, _ := strings.Cut(strings.TrimPrefix(id, probing), "-")
		n, err := strconv.ParseInt(when, 10, 64)
		return err == nil && strings.HasPrefix(id, probing) && n < before
	}
	root := p.s.base + hidden + "/"
	var ups []Upload
	err := p.s.uploads(ctx, p.s.base+hidden+"/"+probing, func(up Upload) {
		id, _, _ := strings.Cut(strings.TrimPrefix(up.Key, root), "/")
		if old(id) && len(ups) < maxStrangers {
			ups = append(ups, up)
		}
	})
	if err != nil {
		return err
	}
	for _, up := range ups {
		if err := p.s.abort(ctx, up); err != nil {
			return err
		}
	}
	return p.s.erase(ctx, root+probing, func(key string) bool {
		id, _, _ := strings.Cut(strings.TrimPrefix(key, root), "/")
		return old(id)
	})
}

// erase removes the objects below a hidden prefix that which names. They are few.
func (s *Store) erase(ctx context.Context, prefix string, which func(key string) bool) error {
	var all []string
	err := s.keys(ctx, prefix, "", func(o Object) bool {
		if which(o.Key) {
			all = append(all, o.Key)
		}
		return len(all) < maxStrangers
	})
	if err != nil {
		return err
	}
	for _, key := range all {
		err := s.call(ctx, s.opt.Stall, func(ctx context.Context) error { return s.b.Delete(ctx, key, token.Version("")) })
		if err != nil && problem.Of(err) != problem.Missing {
			return err
		}
	}
	return nil
}
