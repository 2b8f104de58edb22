package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token/problem"
)

// A note is what is remembered of an upload that the service does not name. Its key is the stage's origin.
type note struct {
	Key    string    `json:"key"`
	Upload string    `json:"upload"` // empty: it may have begun
	Part   int64     `json:"part"`
	Since  time.Time `json:"since"`
	Unsure bool      `json:"unsure,omitempty"` // there may be another, whose identifier was lost
	Asked  time.Time `json:"asked,omitzero"`   // when the service was first asked to make the object of its parts
}

func (n note) upload() Upload { return Upload{Key: n.Key, ID: n.Upload, Part: n.Part, Since: n.Since} }

// noted returns the note of a stage. One that cannot be read is none.
func (s *Store) noted(o store.Origin) (n note, ok bool) {
	text, ok := s.memory().Get(string(o))
	return n, ok && json.Unmarshal([]byte(text), &n) == nil
}

func (s *Store) note(o store.Origin, n note) error {
	text, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if len(o)+len(text) > store.MaxNote {
		return fmt.Errorf("noting the upload of %s: %d bytes are too many", o, len(text))
	}
	if err := s.memory().Put(string(o), string(text)); err != nil {
		return fmt.Errorf("noting the upload of %s: %w", o, err)
	}
	return nil
}

// begin begins an upload, with a note before and after it. What an earlier try may have left is remembered.
func (s *Store) begin(ctx context.Context, key string, h Header, part int64) (Upload, error) {
	n := note{Key: key, Part: part, Since: s.opt.Now().UTC()}
	if !s.limits.Named {
		if old, ok := s.noted(h.Origin); ok && old.Key == key {
			n.Unsure = old.Unsure || old.Upload == ""
		}
		if err := s.note(h.Origin, n); err != nil {
			return Upload{}, err
		}
	}
	var up Upload
	err := s.call(ctx, s.opt.Stall, func(ctx context.Context) (err error) {
		up, err = s.b.Begin(ctx, key, h)
		n.Unsure = n.Unsure || err != nil && (isAway(err) || ctx.Err() != nil)
		return err
	})
	up.Part = part
	if s.limits.Named {
		return up, err
	}
	if err != nil {
		if !n.Unsure {
			err = errors.Join(err, s.memory().Remove(string(h.Origin)))
		}
		return Upload{}, err
	}
	n.Upload = up.ID
	if err := s.note(h.Origin, n); err != nil {
		return Upload{}, errors.Join(err, s.abort(ctx, up))
	}
	return up, nil
}

// abort removes an upload and looks whether it is gone: a part that was under way may have come after.
func (s *Store) abort(ctx context.Context, up Upload) error {
	return s.call(ctx, s.opt.Stall, func(ctx context.Context) error {
		if err := s.b.Abort(ctx, up); err != nil && !errors.Is(err, ErrNoUpload) {
			return err
		}
		if s.limits.Expire > 0 {
			return nil
		}
		left, err := s.b.Parts(ctx, up)
		switch {
		case errors.Is(err, ErrNoUpload) || err == nil && len(left) == 0:
			return nil
		case err == nil:
			return &Away{Err: fmt.Errorf("%d parts are there after the upload was aborted", len(left))}
		}
		return err
	})
}

// forget aborts the upload of a stage and then removes its note. f is what this life knows of it; it may be nil.
func (s *Store) forget(ctx context.Context, o store.Origin, f *item) error {
	var up Upload
	spent := false
	if f != nil {
		f.mu.Lock()
		up, spent = f.up, f.spent
		f.mu.Unlock()
	}
	n, noted := s.noted(o)
	if noted && n.Upload != "" {
		up = n.upload()
	}
	if up.ID != "" && !spent {
		if err := s.abort(ctx, up); err != nil {
			return err
		}
	}
	if s.limits.Named {
		return nil
	}
	if noted && (n.Unsure || n.Upload == "") {
		others, err := s.strangers(ctx, n.Key)
		if err != nil {
			return err
		}
		if len(others) > 0 {
			// One of them may be ours. As long as the service lists it, Leftovers shall tell.
			return s.note(o, note{Key: n.Key, Part: n.Part, Since: n.Since, Unsure: true})
		}
	}
	return s.memory().Remove(string(o))
}

// strangers are the uploads to a key that no note names.
func (s *Store) strangers(ctx context.Context, key string) ([]Upload, error) {
	ours := map[string]bool{}
	for _, text := range s.memory().All() {
		var n note
		if json.Unmarshal([]byte(text), &n) == nil {
			ours[n.Upload] = true
		}
	}
	var all []Upload
	err := s.uploads(ctx, key, func(up Upload) {
		if up.Key == key && !ours[up.ID] && len(all) < maxStrangers {
			all = append(all, up)
		}
	})
	return all, err
}

// maxStrangers bounds the uploads to one key that are told of.
const maxStrangers = 1000

// uploads calls found for all that is unfinished below a prefix. It may do so twice for one.
func (s *Store) uploads(ctx context.Context, prefix string, found func(Upload)) error {
	return s.call(ctx, assembly, func(ctx context.Context) error {
		return s.b.Uploads(ctx, prefix, func(up Upload) bool {
			found(up)
			return ctx.Err() == nil
		})
	})
}

// remove aborts every upload of a batch, and forgets it.
func (s *Store) remove(ctx context.Context, id store.BatchID, items map[int]*item) error {
	var failed firstError
	if s.limits.Named {
		ups := map[string]Upload{}
		err := error(nil)
		if s.limits.Expire == 0 {
			err = s.uploads(ctx, s.base, func(up Upload) {
				if batchOf(up.Origin) == id {
					ups[up.Key+"\x00"+up.ID] = up
				}
			})
		}
		if err != nil {
			return err
		}
		each(s.opt.Concurrency, maps.Values(ups), func(up Upload) { failed.note(s.abort(ctx, up)) })
		return failed.err
	}
	known := map[store.Origin]*item{}
	for i, f := range items {
		if !small(f.item) {
			known[store.OriginOf(id, i)] = f
		}
	}
	for key := range s.memory().All() {
		if o := store.Origin(key); batchOf(o) == id && known[o] == nil {
			known[o] = nil
		}
	}
	each(s.opt.Concurrency, maps.Keys(known), func(o store.Origin) { failed.note(s.forget(ctx, o, known[o])) })
	return failed.err
}

// A firstError keeps the first of many. Its err is read when all have been noted.
type firstError struct {
	once sync.Once
	err  error
}

func (e *firstError) note(err error) {
	if err != nil {
		e.once.Do(func() { e.err = err })
	}
}

// each calls f for every element, on up to n goroutines, and returns when all are done.
func each[T any](n int, all iter.Seq[T], f func(T)) {
	var wg sync.WaitGroup
	next := make(chan T)
	started := 0
	for v := range all {
		if started < n {
			started++
			wg.Go(func() {
				for v := range next {
					f(v)
				}
			})
		}
		next <- v
	}
	close(next)
	wg.Wait()
}

// Leftovers implements store.Store. Where the service lists what is unfinished, a note without it is none. An upload to a key of which a note knows no
// identifier has no Batch. Where the service cannot list, or keeps parts of what is published, each costs a request.
func (s *Store) Leftovers(ctx context.Context, yield func(store.Leftover) bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.limits.Named {
		return s.namedLeftovers(ctx, yield)
	}
	byID, byKey := map[string]store.Origin{}, map[string]store.Origin{}
	notes := map[store.Origin]note{}
	for key, text := range s.memory().All() {
		var n note
		if o := store.Origin(key); batchOf(o) != "" && json.Unmarshal([]byte(text), &n) == nil {
			notes[o] = n
			if n.Upload != "" {
				byID[n.Upload] = o
			}
			if n.Upload == "" || n.Unsure {
				byKey[n.Key] = o
			}
		}
	}
	listed, unsure := map[store.Origin]bool{}, map[string]store.Leftover{}
	err := s.uploads(ctx, s.base, func(up Upload) {
		if o, ok := byID[up.ID]; ok && notes[o].Key == up.Key {
			listed[o] = true
		} else if _, ok := byKey[up.Key]; ok && len(unsure) < maxStrangers {
			unsure[up.ID] = s.leftover("", up)
			listed[byKey[up.Key]] = listed[byKey[up.Key]] || notes[byKey[up.Key]].Upload == ""
		}
	})
	if err != nil {
		return fmt.Errorf("looking for leftovers: %w", err)
	}
	s.mu.Lock()
	lists := s.lists
	s.mu.Unlock()
	for o, n := range notes {
		left := listed[o]
		switch {
		case n.Upload == "":
			if !left {
				s.expired(o)
			}
			continue
		case !left && !lists:
			published, err := s.published(ctx, n.Key, o)
			if err != nil {
				return fmt.Errorf("looking for leftovers: %w", err)
			}
			left = !published
		}
		if left && !yield(s.leftover(batchOf(o), n.upload())) {
			return nil
		}
	}
	for _, l := range unsure {
		if !yield(l) {
			return nil
		}
	}
	return ctx.Err()
}

// expired forgets a note that nothing is left of, unless its batch is in use and may be about to begin.
func (s *Store) expired(o store.Origin) {
	s.mu.Lock()
	busy := s.inUse[batchOf(o)]
	notes := s.notes
	s.mu.Unlock()
	if !busy {
		_ = notes.Remove(string(o)) // else it is found again
	}
}

func (s *Store) namedLeftovers(ctx context.Context, yield func(store.Leftover) bool) error {
	all := map[string]Upload{}
	err := s.uploads(ctx, s.base, func(up Upload) {
		if id := batchOf(up.Origin); id != "" && !isProbe(id) {
			all[up.Key+"\x00"+up.ID] = up
		}
	})
	if err != nil {
		return fmt.Errorf("looking for leftovers: %w", err)
	}
	for _, up := range all {
		l := s.leftover(batchOf(up.Origin), up)
		published, err := s.published(ctx, up.Key, up.Origin)
		if err != nil {
			return fmt.Errorf("looking for leftovers: %w", err)
		}
		if published {
			l.Name = "" // what is left will not become anything
		}
		if !yield(l) {
			return nil
		}
	}
	return ctx.Err()
}

// published reports whether a stage has become the object that is there.
func (s *Store) published(ctx context.Context, key string, o store.Origin) (bool, error) {
	obj, err := s.head(ctx, key)
	if problem.Of(err) == problem.Missing {
		return false, nil
	}
	return err == nil && s.decode(obj).origin == o, err
}

func (s *Store) leftover(id store.BatchID, up Upload) store.Leftover {
	l := store.Leftover{Batch: id, Kind: s.limits.Kind, Name: s.nameOf(up.Key), ID: up.ID, Since: up.Since}
	if s.limits.Expire > 0 {
		l.Expires = s.opt.Now().Add(s.limits.Expire)
		if !up.Since.IsZero() {
			l.Expires = up.Since.Add(s.limits.Expire)
		}
	}
	return l
}

// isProbe reports whether a batch is a probe's.
func isProbe(id store.BatchID) bool { return strings.HasPrefix(string(id), probing) }

// memNotes are notes that end with the process.
type memNotes struct {
	mu  sync.Mutex // guards all
	all map[string]string
}

func (m *memNotes) Put(key, value string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all == nil {
		m.all = map[string]string{}
	}
	m.all[key] = value
	return nil
}

func (m *memNotes) Get(key string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.all[key]
	return v, ok
}

func (m *memNotes) Remove(key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.all, key)
	return nil
}

func (m *memNotes) All() iter.Seq2[string, string] {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.All(maps.Clone(m.all))
}
