// Package bucket is a store over any object service. What services differ in is a Backend; everything that has to be decided
// is decided here, once: what a lost answer means, what is tried again, which stages are whose, what metadata says.
//
// # Names
//
// An object's key is its name, below the prefix of the container. A key "name/" without content is a marker: it makes the subtree name
// exist where nothing lies below it. Keys under .consign/, directly below the prefix, are what Probe
// and backends use; they are not listed. Another folder of that name, which is that of a container inside this one, is listed as
// store.Special and not entered. The order of listings is that of keys, by bytes, where a marker stands at its key. A marker beside an
// object of the same name is not told.
//
// # Stages
//
// Items of up to token.ChunkSize bytes are kept in memory and become objects by one Put. Larger ones are uploads, begun with their first part. Before
// an upload begins that the service does not name (Limits.Named) a note says so, and again with its identifier once it has one. A process that is
// killed between the two leaves an upload that may be anybody's: Leftovers tells of it, and nothing removes it.
//
// # Outcomes
//
// Metadata of every object says which stage it was (store.Origin), and its digest where that was known in time. After any failure to create
// an object that is not a plain refusal the store looks at the name. Our origin and size, with our digest if there is one: it is done. Something else:
// problem.Taken. Nothing: it is tried again, or store.ErrLost where the service no longer has the upload. A source cannot forge an
// origin, because metadata of these names is not carried over.
//
// # Waiting
//
// Every call has one loop that tries again what may pass, for Options.Patience, with growing pauses or as long as the
// service asks; then it is problem.StoreAway. A part is not tried again, for its bytes are the caller's. A request or part in which nothing moves for
// Options.Stall is given up.
//
// A Store believes that the service creates exclusively until Probe has found otherwise. From then on it looks before it
// creates, which narrows a race and does not end it.
package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Options are what a Store is told. Only Now is required.
type Options struct {
	Where       string           // what the store is called in sentences, for example its endpoint; default "the endpoint"
	Prefix      string           // of the container inside the bucket: "" or "a/b"
	Now         func() time.Time // the clock
	Patience    time.Duration    // how long a call is tried again; default 30 s
	Interval    time.Duration    // the first pause of it; default 200 ms
	Stall       time.Duration    // without progress a request or part is given up; default 60 s
	Concurrency int              // requests at once of one Publish or Drop; default 32
}

const (
	patience    = 30 * time.Second
	interval    = 200 * time.Millisecond
	maxInterval = 5 * time.Second
	stall       = time.Minute
	assembly    = 15 * time.Minute // how long a service may take to make an object of its parts
	concurrency = 32
)

// A Store is a bucket, or what lies below a prefix of it, as a store.Store.
type Store struct {
	b      Backend
	opt    Options
	limits Limits
	base   string // prefix of all keys, with '/' at its end, or empty
	ours   ourKeys

	mu      sync.Mutex // guards all below
	notes   store.Notes
	inUse   map[store.BatchID]bool
	dropped map[store.BatchID]bool // where Abort leaves parts behind: they are not to be found again
	looks   bool                   // it does not create exclusively: look first
	lists   bool                   // Uploads tells of what is unfinished
	keeps   kept
}

var _ store.Store = (*Store)(nil)

// New returns a store over b, which it closes when it is closed. It makes no request.
func New(b Backend, opt Options) *Store {
	opt.Where = cmp.Or(opt.Where, "the endpoint")
	opt.Patience = cmp.Or(opt.Patience, patience)
	opt.Interval = cmp.Or(opt.Interval, interval)
	opt.Stall = cmp.Or(opt.Stall, stall)
	opt.Concurrency = cmp.Or(opt.Concurrency, concurrency)
	s := &Store{
		b: b, opt: opt, limits: b.Limits(), notes: &memNotes{}, keeps: keepsAll,
		inUse: map[store.BatchID]bool{}, dropped: map[store.BatchID]bool{},
	}
	if p := strings.Trim(opt.Prefix, "/"); p != "" {
		s.base = p + "/"
	}
	s.ours = s.spell()
	return s
}

// Close releases the backend. Batches and readers must be closed before.
func (s *Store) Close() error { return s.b.Close() }

// Keep implements store.Store. Without it, or with nil, notes last as long as the Store.
func (s *Store) Keep(notes store.Notes) {
	if notes == nil {
		notes = &memNotes{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = notes
}

func (s *Store) memory() store.Notes {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notes
}

// same reports whether two versions are of one state.
func (s *Store) same(a, b token.Version) bool {
	return a == b || s.limits.Same != nil && s.limits.Same(a, b)
}

// Stat implements store.Store. A name that is no object costs a second request, which finds out whether anything lies below it.
func (s *Store) Stat(ctx context.Context, name token.ObjectName) (store.Info, error) {
	if err := s.checkName(name); err != nil {
		return store.Info{}, err
	}
	o, err := s.head(ctx, s.key(name))
	if err == nil {
		return s.info(name, o), nil
	}
	if problem.Of(err) != problem.Missing {
		return store.Info{}, fmt.Errorf("describing %q: %w", name, err)
	}
	some, err := s.anyBelow(ctx, name)
	switch {
	case err != nil:
		return store.Info{}, fmt.Errorf("describing %q: %w", name, err)
	case !some:
		return store.Info{}, missing(name)
	}
	return store.Info{Name: name, Type: store.Subtree}, nil
}

func missing(name token.ObjectName) error {
	return problem.New(problem.Missing, "There is no object %q.", name)
}

func (s *Store) head(ctx context.Context, key string) (o Object, err error) {
	err = s.call(ctx, s.opt.Stall, func(ctx context.Context) error {
		o, err = s.b.Head(ctx, key)
		return err
	})
	return o, err
}

// anyBelow reports whether a key lies below name, be it name's own marker.
func (s *Store) anyBelow(ctx context.Context, name token.ObjectName) (some bool, err error) {
	err = s.keys(ctx, s.key(name)+"/", "", func(Object) bool {
		some = true
		return false
	})
	return some, err
}

// info is what is known of an object.
func (s *Store) info(name token.ObjectName, o Object) store.Info {
	m := s.decode(o)
	return store.Info{
		Name: name, Type: store.Object, Size: o.Size, Version: o.Version, Attrs: m.attrs, Native: o.Native, Origin: m.origin,
	}
}

// Make implements store.Store. It writes a marker unless something lies below name already.
func (s *Store) Make(ctx context.Context, name token.ObjectName) error {
	if err := s.checkName(name + "/x"); err != nil { // there must be room below it
		return err
	}
	_, err := s.head(ctx, s.key(name))
	if err == nil {
		return problem.New(problem.Taken, "The name %q is an object.", name)
	}
	if problem.Of(err) != problem.Missing {
		return fmt.Errorf("making %q: %w", name, err)
	}
	some, err := s.anyBelow(ctx, name)
	if err != nil {
		return fmt.Errorf("making %q: %w", name, err)
	}
	if some {
		return nil
	}
	err = s.call(ctx, s.opt.Stall, func(ctx context.Context) error {
		_, err := s.b.Put(ctx, s.key(name)+"/", nil, Header{})
		return err
	})
	if problem.Of(err) == problem.Taken {
		// The marker, of another call or a lost answer; or, where a name is one thing only, an object in a parent's place.
		if some, lerr := s.anyBelow(ctx, name); lerr == nil && some {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("making %q: %w", name, err)
	}
	return nil // Durable from here.
}

// claim takes a batch into use, and release gives it back.
func (s *Store) claim(id store.BatchID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse[id] {
		return problem.New(problem.Claimed, "The batch is already in use.")
	}
	s.inUse[id] = true
	return nil
}

func (s *Store) release(id store.BatchID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inUse, id)
}

// errGone is the outcome of looking where nothing is.
var errGone = errors.New("there is nothing of that name")
