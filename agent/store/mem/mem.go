// Package mem is a store in memory, for tests. It keeps every promise of
// store.Store but outliving the process; Crash loses what a power loss would,
// and a hook makes any operation fail, with its effect or without.
//
// It keeps modes, times and user metadata. It is an implementation of its own, not
// the directory store over another disk, so that the two check each other.
package mem

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
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

// The operations. The name that the hook gets is the object's, or batch/item for stages.
const (
	OpStat    Op = "stat"
	OpOpen    Op = "open"
	OpRead    Op = "read"
	OpCheck   Op = "check"
	OpList    Op = "list" // once per name that would be yielded
	OpMake    Op = "make"
	OpStage   Op = "stage"
	OpWrite   Op = "write"
	OpSync    Op = "sync"
	OpPublish Op = "publish" // once per publication
	OpDrop    Op = "drop"
)

// A Hook decides what becomes of an operation: nil is success; an error with
// persist means that it happened and its answer was lost. It must not call the store.
type Hook func(op Op, name string) (err error, persist bool)

// A Store is a container in memory.
type Store struct {
	now func() time.Time

	mu       sync.Mutex // guards all below, and all that belongs to the store
	hook     Hook
	versions int64
	objects  map[string]*object // by name; a subtree is an object with dir set
	batches  map[store.BatchID]map[int]*content
	inUse    map[store.BatchID]*batch
}

var _ store.Store = (*Store)(nil)

type object struct {
	info store.Info
	data []byte
	at   time.Time // of the last change
	from origin    // the stage that was published; zero for others
}

// An origin names a stage.
type origin struct {
	batch store.BatchID
	item  int
}

// content is the bytes of a stage.
type content struct {
	data   []byte
	synced []byte // what survives a crash; nil if the stage itself does not
	size   int64
	sealed bool
	dead   error
	done   token.ObjectName // what it was published as
}

// New returns an empty store that takes the time from now.
func New(now func() time.Time) *Store {
	return &Store{
		now: now, objects: map[string]*object{},
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
	return s.put(name, data, attrs, origin{})
}

// PutLink makes name a symbolic link or special file.
func (s *Store) PutLink(name token.ObjectName, t store.Type) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(name, nil, store.Attrs{}, origin{})
	s.objects[string(name)].info = store.Info{Name: name, Type: t}
}

// Remove takes name away, as somebody outside does.
func (s *Store) Remove(name token.ObjectName) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, string(name))
}

// Crash loses every write that was not synced, and closes all batches.
func (s *Store) Crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.inUse {
		b.closed = true
	}
	s.inUse = map[store.BatchID]*batch{}
	for _, stages := range s.batches {
		for item, c := range stages {
			if c.synced == nil {
				delete(stages, item)
				continue
			}
			stages[item] = c.recovered()
		}
	}
}

func (c *content) recovered() *content {
	return &content{data: slices.Clone(c.synced), synced: c.synced, size: c.size, sealed: c.done != "", done: c.done}
}

// put stores an object with its parents. The caller holds mu.
func (s *Store) put(name token.ObjectName, data []byte, attrs store.Attrs, from origin) store.Info {
	s.makeParents(string(name))
	s.versions++
	in := store.Info{
		Name: name, Type: store.Object, Size: int64(len(data)),
		Version: token.Version("m" + strconv.FormatInt(s.versions, 10)), Attrs: attrs,
	}
	s.objects[string(name)] = &object{info: in, data: data, at: s.now(), from: from}
	return in
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

// blocked reports whether a parent of name is no subtree.
func (s *Store) blocked(name string) bool {
	for i, r := range name {
		if o := s.objects[name[:i]]; r == '/' && o != nil && o.info.Type != store.Subtree {
			return true
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

// describe is o as a caller sees it now.
func (s *Store) describe(o *object) store.Info {
	in := o.info
	in.Fresh = s.now().Sub(o.at).Abs() < store.Settle
	in.Attrs.Meta = maps.Clone(in.Attrs.Meta)
	return in
}

func missing(name token.ObjectName) error {
	return problem.New(problem.Missing, "There is no object %q.", name)
}

// Stat implements store.Store.
func (s *Store) Stat(ctx context.Context, name token.ObjectName) (store.Info, error) {
	if err := ctx.Err(); err != nil {
		return store.Info{}, err
	}
	if err := token.CheckName(name); err != nil {
		return store.Info{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.verdict(OpStat, string(name)); err != nil {
		return store.Info{}, err
	}
	o := s.objects[string(name)]
	if o == nil {
		return store.Info{}, missing(name)
	}
	return s.describe(o), nil
}

// List implements store.Lister in the order of segments.
func (s *Store) List(ctx context.Context, prefix, after token.ObjectName, yield func(store.Info, error) bool) error {
	if err := s.checkPrefix(prefix); err != nil {
		return err
	}
	for _, name := range s.names(string(prefix), string(after)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		in, ok, err := s.listed(name)
		if ok && !yield(in, err) {
			return nil
		}
	}
	return ctx.Err()
}

func (s *Store) checkPrefix(prefix token.ObjectName) error {
	if prefix == "" {
		return nil
	}
	if err := token.CheckName(prefix); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[string(prefix)]; o == nil || o.info.Type != store.Subtree {
		return missing(prefix)
	}
	return nil
}

// names returns what there is below prefix behind after, in order, without subtrees that hold anything.
func (s *Store) names(prefix, after string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := map[string]bool{}
	for name := range s.objects {
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			full[name[:i]] = true
		}
	}
	var names []string
	for name := range s.objects {
		below := prefix == "" || strings.HasPrefix(name, prefix+"/")
		if below && !full[name] && (after == "" || compareNames(name, after) > 0) {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, compareNames)
	return names
}

// listed describes name, unless it has gone since names was called.
func (s *Store) listed(name string) (in store.Info, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[name]
	if o == nil {
		return store.Info{}, false, nil
	}
	_, err = s.verdict(OpList, name)
	return s.describe(o), true, err
}

func compareNames(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}

// Make implements store.Store.
func (s *Store) Make(ctx context.Context, name token.ObjectName) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := token.CheckName(name); err != nil {
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

// Probe implements store.Store.
func (s *Store) Probe(ctx context.Context) (store.Traits, error) {
	return store.Traits{
		Exclusive: "memory", PartSize: token.ChunkSize, MaxParts: 1 << 20,
		Modes: true, ModTimes: true, Meta: true,
	}, ctx.Err()
}

// Close implements store.Store.
func (s *Store) Close() error { return nil }

// A reader reads the bytes that were there when it was opened.
type reader struct {
	s    *Store
	o    *object
	info store.Info
}

// Open implements store.Store.
func (s *Store) Open(ctx context.Context, name token.ObjectName, version token.Version) (store.Reader, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := token.CheckName(name); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.verdict(OpOpen, string(name)); err != nil {
		return nil, err
	}
	o := s.objects[string(name)]
	switch {
	case o == nil:
		return nil, missing(name)
	case o.info.Type != store.Object:
		return nil, problem.New(problem.Unreadable, "%q is not an object.", name)
	case o.info.Version != version:
		return nil, problem.New(problem.Changed, "%q is not the version that was planned.", name)
	}
	return &reader{s: s, o: o, info: s.describe(o)}, nil
}

func (r *reader) Info() store.Info { return r.info }
func (r *reader) Close() error     { return nil }

func (r *reader) ReadAt(p []byte, off int64) (int, error) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if _, err := r.s.verdict(OpRead, string(r.info.Name)); err != nil {
		return 0, err
	}
	return readAt(r.o.data, p, off)
}

func readAt(data, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at %d: %w", off, fs.ErrInvalid)
	}
	n := 0
	if off < int64(len(data)) {
		n = copy(p, data[off:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (r *reader) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if _, err := r.s.verdict(OpCheck, string(r.info.Name)); err != nil {
		return err
	}
	if r.s.objects[string(r.info.Name)] != r.o {
		return problem.New(problem.Changed, "%q was changed while it was read.", r.info.Name)
	}
	return nil
}
