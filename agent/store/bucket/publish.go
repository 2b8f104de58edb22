package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Publish implements store.Batch. A small item is one request, and so is a large one whose parts were all written in this life.
func (b *batch) Publish(ctx context.Context, pubs []store.Publication) []store.Published {
	outs := make([]store.Published, len(pubs))
	first := map[int]int{}
	for i, p := range pubs {
		if _, ok := first[p.Index]; ok {
			outs[i].Err = fmt.Errorf("publishing item %d: named twice", p.Index)
			continue
		}
		first[p.Index] = i
	}
	each(b.s.opt.Concurrency, maps.Values(first), func(i int) {
		o, err := b.publish(ctx, pubs[i])
		if err != nil {
			outs[i].Err = fmt.Errorf("publishing item %d: %w", pubs[i].Index, err)
			return
		}
		outs[i].Info = b.s.info(pubs[i].Name, o)
		outs[i].Lost = lost(pubs[i].Attrs, outs[i].Info.Attrs)
	})
	return outs
}

// publish makes one item an object, or finds that it is one.
func (b *batch) publish(ctx context.Context, pub store.Publication) (Object, error) {
	if err := errors.Join(b.alive(ctx), checkItem(pub.Item), b.s.checkName(pub.Name)); err != nil {
		return Object{}, err
	}
	origin := store.OriginOf(b.id, pub.Index)
	f, err := b.find(pub.Item)
	if err == nil && f == nil {
		f, err = b.load(ctx, pub.Item)
	}
	if err != nil {
		return Object{}, err
	}
	f.mu.Lock()
	f.sealed = true
	dead, done := f.dead, f.done
	f.mu.Unlock()
	switch {
	case dead != nil:
		return Object{}, dead
	case f.key != b.s.key(pub.Name):
		return Object{}, fmt.Errorf("it was staged for another name: %w", store.ErrLost)
	case done != nil:
		return b.again(ctx, pub, origin)
	}
	m := &making{s: b.s, pub: pub, origin: origin, doubt: f.pending()}
	if small(pub.Item) {
		m.create = f.put(pub, origin)
	} else {
		m.create = f.complete(pub, origin)
	}
	o, direct, err := m.run(ctx)
	if err != nil {
		return Object{}, err
	}
	f.mu.Lock() // Durable from here.
	f.done, f.content, f.spent = &o, nil, direct && !b.s.limits.Named
	f.mu.Unlock()
	b.add(f)
	if o.Meta == nil {
		return b.again(ctx, pub, origin)
	}
	return o, nil
}

// has reports whether a stage was opened on f, and not discarded since.
func (b *batch) has(f *item) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.items[f.item.Index] == f
}

// beside is an object as it is once the header was stored with it.
func (h Header) beside(o Object) Object {
	o.ContentType, o.Meta = h.ContentType, h.Meta
	return o
}

// again answers for what was published before. If it was removed since, its name is spent.
func (b *batch) again(ctx context.Context, pub store.Publication, origin store.Origin) (o Object, err error) {
	err = b.s.call(ctx, b.s.opt.Stall, func(ctx context.Context) error {
		o, err = b.s.look(ctx, pub, origin)
		return err
	})
	if errors.Is(err, errGone) {
		err = problem.New(problem.Taken, "%q was published and has been removed since.", pub.Name)
	}
	return o, err
}

// look finds out in one request what a name is: our work, which is returned; problem.Taken; or errGone.
func (s *Store) look(ctx context.Context, pub store.Publication, origin store.Origin) (Object, error) {
	o, err := s.b.Head(ctx, s.key(pub.Name))
	if problem.Of(err) == problem.Missing {
		return Object{}, errGone
	}
	if err != nil {
		return Object{}, err
	}
	m := s.decode(o)
	ours := m.origin == origin && o.Size == pub.Size
	if m.digest != "" || small(pub.Item) {
		ours = ours && (pub.Root == "" || m.digest == pub.Root)
	}
	if !ours {
		return Object{}, problem.New(problem.Taken, "%q exists at the destination.", pub.Name)
	}
	return o, nil
}

func isTaken(err error) bool { return problem.Of(err) == problem.Taken }

// A making is one item on its way to be an object.
type making struct {
	s      *Store
	pub    store.Publication
	origin store.Origin
	create func(context.Context) (Object, error) // nil if there is nothing to make it of
	asked  bool                                  // create was called
	doubt  bool                                  // and its answer was lost: the object may yet come
}

// run makes the object, or decides by looking what became of it. direct says that the service has answered to create itself.
func (m *making) run(ctx context.Context) (o Object, direct bool, err error) {
	l := m.s.loop()
	for {
		if o, direct, err = m.try(ctx); err == nil {
			return o, direct, nil
		}
		if err = l.again(ctx, err); err != nil {
			break
		}
	}
	if ctx.Err() != nil && m.asked {
		err = problem.Wrap(ctx.Err(), problem.StoreAway, "The publication was ended before the store had answered.")
	}
	return Object{}, false, err
}

// try creates at most once. An error that passes asks for another try.
func (m *making) try(ctx context.Context) (o Object, direct bool, err error) {
	if m.create == nil || m.s.careful() {
		if o, err = m.look(ctx); !errors.Is(err, errGone) {
			return o, false, err
		}
		if m.create == nil && m.doubt {
			return Object{}, false, &Away{Err: errors.New("the service may still be making the object of parts that it does not list any more")}
		}
		if m.create == nil {
			return Object{}, false, store.ErrLost
		}
	}
	var refused error
	if o, refused = m.ask(ctx); refused == nil {
		return o, true, nil
	}
	if plain(refused) || ctx.Err() != nil {
		return Object{}, false, refused
	}
	if o, err = m.look(ctx); !errors.Is(err, errGone) {
		return o, false, err
	}
	if isTaken(refused) {
		if blocked, berr := m.blocked(ctx); blocked || berr != nil {
			return Object{}, false, cmp.Or(berr, refused)
		}
	}
	gone := errors.Is(refused, ErrNoUpload)
	switch {
	case isAway(refused):
		m.doubt = true
	case gone && m.doubt, isTaken(refused):
		// The service says that it is or was there, and it is not yet to be seen.
		refused = &Away{Err: refused}
	case gone, errors.Is(refused, ErrConflict) && !small(m.pub.Item):
		refused = fmt.Errorf("%w: %w", store.ErrLost, hide(refused))
	}
	return Object{}, false, refused
}

// hide keeps an error's text and nothing to match: what passes elsewhere is final here.
func hide(err error) error { return errors.New(err.Error()) }

// ask calls create, once.
func (m *making) ask(ctx context.Context) (o Object, err error) {
	err = once(ctx, assembly, func(ctx context.Context) error {
		m.asked = true
		o, err = m.create(ctx)
		return err
	})
	o.Size = m.pub.Size
	return o, err
}

func (m *making) look(ctx context.Context) (o Object, err error) {
	err = once(ctx, m.s.opt.Stall, func(ctx context.Context) error {
		o, err = m.s.look(ctx, m.pub, m.origin)
		return err
	})
	return o, err
}

// blocked reports whether the name is none for an object because it has others below it, or is below one, at a service where that excludes
// each other.
func (m *making) blocked(ctx context.Context) (bool, error) {
	s := m.s
	for name := string(m.pub.Name); ; {
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			return s.anyBelow(ctx, m.pub.Name)
		}
		name = name[:i]
		if _, err := s.head(ctx, s.key(token.ObjectName(name))); problem.Of(err) != problem.Missing {
			return err == nil, err
		}
	}
}

// plain reports whether a refusal says that nothing was made.
func plain(err error) bool {
	switch problem.Of(err) {
	case problem.BadName, problem.Unreadable, problem.Unwritable, problem.DiskFull:
		return true
	}
	return false
}

// careful reports whether the service was found not to create exclusively.
func (s *Store) careful() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looks
}

// pending reports whether the service was asked to make the object before, not too long ago: it may still be at it. A service that takes
// its time for a large object goes on when the one who asked has died, and does not always list the parts meanwhile.
func (f *item) pending() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.asked.IsZero() && f.b.s.opt.Now().Sub(f.asked) < assembly
}

// ask remembers, beyond this life, that the service is about to be asked to make the object.
func (f *item) ask(up Upload) error {
	f.mu.Lock()
	asked := f.asked
	f.mu.Unlock()
	if !asked.IsZero() {
		return nil
	}
	now, origin := f.b.s.opt.Now().UTC(), store.OriginOf(f.b.id, f.item.Index)
	if n, ok := f.b.s.noted(origin); ok && n.Upload == up.ID { // none is noted where the service names uploads
		n.Asked = now
		if err := f.b.s.note(origin, n); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = now
	return nil
}

// put is how a small item is made; nil if its content is not here.
func (f *item) put(pub store.Publication, origin store.Origin) func(context.Context) (Object, error) {
	opened := f.b.has(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.whole && (pub.Size > 0 || !opened) {
		return nil
	}
	content := f.content
	h := f.b.s.header(pub.Attrs, origin, pub.Root)
	return func(ctx context.Context) (Object, error) {
		o, err := f.b.s.b.Put(ctx, f.key, content, h)
		return h.beside(o), err
	}
}

// complete is how a large item is made; nil if its parts are not all there. Where it is not known what the upload was begun with, the object that is
// returned has no Meta.
func (f *item) complete(pub store.Publication, origin store.Origin) func(context.Context) (Object, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.up.ID == "" || int64(len(f.parts)) != pub.Parts() {
		return nil
	}
	up, stored := f.up, f.header
	parts := slices.SortedFunc(maps.Values(f.parts), func(a, b Part) int { return cmp.Compare(a.Index, b.Index) })
	h := f.b.s.header(pub.Attrs, origin, pub.Root)
	if f.b.s.limits.Named {
		stored = &h
	}
	return func(ctx context.Context) (Object, error) {
		if err := f.ask(up); err != nil {
			return Object{}, err
		}
		o, err := f.b.s.b.Complete(ctx, up, parts, h)
		if err != nil && problem.Of(err) == problem.Internal && !passes(err) && !errors.Is(err, ErrNoUpload) {
			// Of two writers of a part the other may have won.
			if now, lerr := f.b.s.b.Parts(ctx, up); lerr == nil && fits(now, pub.Item) && !slices.Equal(now, parts) {
				parts = now
				o, err = f.b.s.b.Complete(ctx, up, parts, h)
			}
		}
		o.Meta = nil
		if stored != nil {
			o = stored.beside(o)
		}
		return o, err
	}
}

// fits reports whether parts are all of an item's, in order.
func fits(parts []Part, it store.Item) bool {
	for i, p := range parts {
		if _, n := it.Span(int64(i)); p.Index != int64(i) || p.Size != n {
			return false
		}
	}
	return int64(len(parts)) == it.Parts()
}
