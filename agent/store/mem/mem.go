// Package mem is a store in memory, for tests. It keeps every promise of
// store.Store but outliving the process. It is an implementation of its own, not
// the directory store over another disk, so that the two check each other.
//
// New keeps everything: modes, times, content types, user metadata, and the origin of what it
// published. NewLike has the traits that it is given, so that a caller's dealing with any of them can be
// tried without a server: Volatile loses small stages at Close, Kill and Crash, without Rereads a stage cannot be read, PartSize
// and MaxParts are told, Flat allows names below objects, attributes that are not kept are reported as lost, and
// without Exclusive Probe refuses.
//
// Kill ends the process that uses the store: batches are closed, parts that count stay. Crash is a power loss: what was not synced
// is gone as well. A Hook makes any operation fail, with its effect or without; see Op for what is asked of it, and when.
package mem

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// An Op names an operation that a hook may fail.
type Op string

// The operations, and the name that the hook gets with each: of an object, of a stage as BATCH/ITEM, of a
// part as BATCH/ITEM/PART, of a batch, or none.
const (
	OpProbe     Op = "probe"     // none
	OpStat      Op = "stat"      // object
	OpOpen      Op = "open"      // object
	OpSection   Op = "section"   // object; Reader.Section
	OpRead      Op = "read"      // object; each Read of a section
	OpInfo      Op = "info"      // object; Reader.Info
	OpCheck     Op = "check"     // object; Reader.Check
	OpList      Op = "list"      // object, once per name that would be yielded, or none, before the first
	OpMake      Op = "make"      // object
	OpErase     Op = "erase"     // object
	OpWipe      Op = "wipe"      // object; or a stage that is thrown away while Sanitize asks for that
	OpUnmake    Op = "unmake"    // object
	OpBatch     Op = "batch"     // batch; Store.Batch
	OpStage     Op = "stage"     // stage
	OpPart      Op = "part"      // part; Stage.Part
	OpWrite     Op = "write"     // part; each Write
	OpClose     Op = "close"     // part; its Close: with persist it counts all the same
	OpReread    Op = "reread"    // stage; Stage.ReadAt
	OpSync      Op = "sync"      // stage
	OpDiscard   Op = "discard"   // stage
	OpPublish   Op = "publish"   // object, once per publication
	OpDrop      Op = "drop"      // batch
	OpLeftovers Op = "leftovers" // none
)

// A Hook decides what becomes of an operation: nil is success; an error with
// persist means that it happened and its answer was lost. It must not call the store.
type Hook func(op Op, name string) (err error, persist bool)

// A Store is a container in memory.
type Store struct {
	now    func() time.Time
	traits store.Traits

	mu       sync.Mutex // guards all below, and all that belongs to the store
	hook     Hook
	versions int64
	objects  map[string]*object // by name; subtrees too
	batches  map[store.BatchID]map[int]*content
	inUse    map[store.BatchID]*batch
	wipes    bool
}

var _ store.Store = (*Store)(nil)

type object struct {
	info store.Info // with Origin, if it was published
	data []byte     // never changed
	at   time.Time  // of the last change
	root token.Digest
}

// Everything are the traits of a store that New returns.
func Everything() store.Traits {
	return store.Traits{
		Exclusive: "memory", PartSize: token.ChunkSize, MaxParts: 1 << 20, Lists: true, Rereads: true,
		Modes: true, ModTimes: true, Types: true, Meta: true,
	}
}

// New returns an empty store with the traits of Everything, which takes the time from now.
func New(now func() time.Time) *Store { return NewLike(now, Everything()) }

// NewLike returns an empty store with these traits. PartSize and MaxParts must be positive.
func NewLike(now func() time.Time, traits store.Traits) *Store {
	return &Store{
		now: now, traits: traits, objects: map[string]*object{},
		batches: map[store.BatchID]map[int]*content{}, inUse: map[store.BatchID]*batch{},
	}
}

// SetHook makes hook decide what becomes of every later operation; nil lets all succeed.
func (s *Store) SetHook(hook Hook) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Put makes name an object of these bytes at once, as somebody outside does: it
// replaces what is there. The store owns data afterwards.
func (s *Store) Put(name token.ObjectName, data []byte, attrs store.Attrs) store.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	if attrs.ModTime.IsZero() {
		attrs.ModTime = s.now()
	}
	return s.put(name, data, attrs).info
}

// PutLink makes name a symbolic link or special file.
func (s *Store) PutLink(name token.ObjectName, t store.Type) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(name, nil, store.Attrs{}).info = store.Info{Name: name, Type: t}
}

// Remove takes name away, as somebody outside does.
func (s *Store) Remove(name token.ObjectName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, string(name))
}

// Kill closes all batches, as the end of the process does.
func (s *Store) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.inUse {
		b.close()
	}
}

// Crash loses every part that was not synced, and closes all batches.
func (s *Store) Crash() {
	s.Kill()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stages := range s.batches {
		for item, c := range stages {
			if c.synced == nil {
				delete(stages, item)
				continue
			}
			stages[item] = &content{
				item: c.item, since: c.since, parts: maps.Clone(c.synced), synced: c.synced, sealed: c.done != "", done: c.done,
			}
		}
	}
}

// put stores an object with its parents. The caller holds mu.
func (s *Store) put(name token.ObjectName, data []byte, attrs store.Attrs) *object {
	s.makeParents(string(name))
	s.versions++
	o := &object{data: data, at: s.now(), info: store.Info{
		Name: name, Type: store.Object, Size: int64(len(data)),
		Version: token.Version("m" + strconv.FormatInt(s.versions, 10)), Attrs: attrs,
	}}
	s.objects[string(name)] = o
	return o
}

func (s *Store) makeParents(name string) {
	for i, r := range name {
		if r == '/' {
			s.makeOne(name[:i])
		}
	}
}

func (s *Store) makeOne(name string) {
	if s.objects[name] == nil {
		s.objects[name] = &object{info: store.Info{Name: token.ObjectName(name), Type: store.Subtree}, at: s.now()}
	}
}

// blocked reports whether a parent of name is no subtree, where that matters.
func (s *Store) blocked(name string) bool {
	for i, r := range name {
		if o := s.objects[name[:i]]; r == '/' && o != nil && o.info.Type != store.Subtree {
			return !s.traits.Flat || o.info.Type != store.Object
		}
	}
	return false
}

// verdict asks the hook. The caller holds mu.
func (s *Store) verdict(op Op, name string) (persist bool, err error) {
	if s.hook == nil {
		return false, nil
	}
	err, persist = s.hook(op, name)
	return persist, err
}

// checkName refuses what is no name, and the reserved segment.
func checkName(name token.ObjectName) error {
	if err := token.CheckName(name); err != nil {
		return err
	}
	for seg := range strings.SplitSeq(string(name), "/") {
		if strings.EqualFold(seg, ".consign") {
			return problem.New(problem.BadName, "The segment %q is reserved.", seg)
		}
	}
	return nil
}

func missing(name token.ObjectName) error {
	return problem.New(problem.Missing, "There is no object %q.", name)
}

// Keep implements store.Store: there is nothing to remember.
func (s *Store) Keep(store.Notes) {}

// Probe implements store.Store.
func (s *Store) Probe(ctx context.Context) (store.Traits, error) {
	if err := ctx.Err(); err != nil {
		return store.Traits{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.verdict(OpProbe, ""); err != nil {
		return store.Traits{}, err
	}
	if s.traits.Exclusive == "" {
		return s.traits, problem.New(problem.NotExclusive, "Two writers at once were not told apart by the store.")
	}
	return s.traits, nil
}

// Make implements store.Store.
func (s *Store) Make(ctx context.Context, name token.ObjectName) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	persist, err := s.verdict(OpMake, string(name))
	if err != nil && !persist {
		return err
	}
	if o := s.objects[string(name)]; s.blocked(string(name)) || o != nil && o.info.Type != store.Subtree {
		return problem.New(problem.Taken, "The name %q, or one that it lies below, is an object.", name)
	}
	s.makeParents(string(name))
	s.makeOne(string(name))
	return err
}

// Leftovers implements store.Store: one entry a stage that is not published, and one a batch that has none.
func (s *Store) Leftovers(ctx context.Context, yield func(store.Leftover) bool) error {
	all, err := s.leftovers()
	if err != nil {
		return err
	}
	for _, l := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !yield(l) {
			return nil
		}
	}
	return ctx.Err()
}

func (s *Store) leftovers() (all []store.Leftover, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.verdict(OpLeftovers, ""); err != nil {
		return nil, err
	}
	for id, stages := range s.batches {
		n := len(all)
		for item, c := range stages {
			if c.done == "" && !s.small(c.item) {
				all = append(all, store.Leftover{Batch: id, Kind: "file", Name: c.item.Name, ID: string(store.OriginOf(id, item)), Since: c.since})
			}
		}
		if len(all) == n && !s.traits.Volatile {
			all = append(all, store.Leftover{Batch: id, Kind: "file", ID: string(id)})
		}
	}
	return all, nil
}

// Close implements store.Store.
func (s *Store) Close() error { return nil }
