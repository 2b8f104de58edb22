// Package backendtest is the suite that every bucket.Backend passes, and a service in memory to test what is built on one.
//
// The Service keeps the promises of a Backend in the manner of S3, or of a service whose uploads are named; it can be told
// to lie, and to fail at a call of the caller's choice, before or after the call's effect. It has no limits of memory.
package backendtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/agent/store/bucket"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Lie is a promise that a Service breaks.
type Lie int

// What a Service may do wrong.
const (
	Honest         Lie = iota
	ReplacesPut        // Put replaces what exists
	ReplacesWhole      // Complete replaces what exists
	LosesRaces         // Complete refuses what exists, but not in a race
	ForgetsMeta        // user metadata is not kept
	ForgetsPins        // Get returns whatever there is now
	MiscountsParts     // Parts tells wrong sizes
	CutsRanges         // Get across a part's boundary returns what is before it
)

// Options say what a Service is like. The zero value is like S3 with parts of 1 MiB.
type Options struct {
	Named    bool          // uploads are named after origins, and parts stay until Abort
	Unlisted bool          // Uploads lists nothing
	Twofold  bool          // listings know half of a version only
	Lie      Lie           // the promise that is broken
	PartSize int64         // default 1 MiB
	Page     int           // keys that List asks for at once; default 1,000
	MaxMeta  int           // as in bucket.Limits
	Expire   time.Duration // as in bucket.Limits
}

// A Call is one request to a Service.
type Call struct {
	N   int    // counts from 0
	Op  string // the method's name: "Head", "PutPart" ...
	Key string
	// Part is that of a PutPart.
	Part int64
}

// A Fault is what goes wrong at a call. The zero value is nothing.
type Fault struct {
	Err   error // what is returned instead of the answer
	Done  bool  // the effect happens all the same
	Cut   int64 // of a Get: the body breaks after so many bytes, if not 0
	Stall bool  // nothing happens until the context ends
}

// A Service is a bucket in memory. Its methods may be called concurrently.
type Service struct {
	opt Options

	mu      sync.Mutex // guards all below
	faults  func(Call) Fault
	calls   []Call
	last    int // version, upload and mark given last
	objects map[string]*object
	uploads map[string]*upload // by id
}

type object struct {
	bucket.Object
	content  []byte
	boundary int64 // of parts; 0 is none
}

type upload struct {
	bucket.Upload
	header bucket.Header
	parts  map[int64]part
}

type part struct {
	mark    string
	content []byte
}

// New returns an empty bucket.
func New(opt Options) *Service {
	opt.PartSize = cmp.Or(opt.PartSize, token.ChunkSize)
	opt.Page = cmp.Or(opt.Page, 1000)
	return &Service{opt: opt, objects: map[string]*object{}, uploads: map[string]*upload{}}
}

// Backend returns the service as a client sees it. Any number may be in use.
func (s *Service) Backend() bucket.Backend { return client{s} }

// Fail sets what goes wrong from now on; nil is nothing. It is called with a lock of the Service held, once a call.
func (s *Service) Fail(f func(Call) Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// Calls returns every call so far.
func (s *Service) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// Set makes key an object with this content, in place of any, as somebody else does.
func (s *Service) Set(key string, content []byte, meta map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.create(key, bytes.Clone(content), bucket.Header{Meta: meta}, 0)
}

// Unset removes key, as somebody else does.
func (s *Service) Unset(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
}

// Content returns what key holds, and whether it is there.
func (s *Service) Content(key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[key]
	if o == nil {
		return nil, false
	}
	return bytes.Clone(o.content), true
}

// Keys returns the keys of all objects, in order.
func (s *Service) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.objects))
}

// Unfinished returns every upload that holds something, in the order of their ids.
func (s *Service) Unfinished() []bucket.Upload {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []bucket.Upload
	for _, id := range slices.Sorted(maps.Keys(s.uploads)) {
		all = append(all, s.uploads[id].Upload)
	}
	return all
}

// create makes an object. The caller holds mu.
func (s *Service) create(key string, content []byte, h bucket.Header, boundary int64) bucket.Object {
	s.last++
	o := &object{content: content, boundary: boundary}
	o.Object = bucket.Object{
		Key: key, Size: int64(len(content)), Version: token.Version(fmt.Sprintf("e%d", s.last)), ModTime: time.Now().UTC(),
		ContentType: cmp.Or(h.ContentType, "binary/octet-stream"), Meta: map[string]string{}, Native: fmt.Sprintf("etag:%d", s.last),
	}
	if s.opt.Twofold {
		o.Version += token.Version(fmt.Sprintf(";v%d", s.last))
	}
	if s.opt.Lie != ForgetsMeta {
		for k, v := range h.Meta {
			o.Meta[strings.ToLower(k)] = v
		}
	}
	s.objects[key] = o
	return o.told()
}

func (o *object) told() bucket.Object {
	out := o.Object
	out.Meta = maps.Clone(o.Meta)
	return out
}

// half is the version as a listing tells it.
func half(v token.Version) token.Version {
	etag, _, _ := strings.Cut(string(v), ";")
	return token.Version(etag)
}

// same reports whether two versions are of one state, as far as both tell.
func same(a, b token.Version) bool {
	return a == b || half(a) == half(b) && (a == half(a) || b == half(b))
}

// begin notes a call and returns its fault. If it has an error and no effect, or stalls, err is what the call returns.
func (s *Service) begin(ctx context.Context, op, key string, part int64) (Fault, error) {
	if err := ctx.Err(); err != nil {
		return Fault{}, err
	}
	s.mu.Lock()
	c := Call{N: len(s.calls), Op: op, Key: key, Part: part}
	s.calls = append(s.calls, c)
	var f Fault
	if s.faults != nil {
		f = s.faults(c)
	}
	s.mu.Unlock()
	if f.Stall {
		<-ctx.Done()
		return f, ctx.Err()
	}
	if f.Err != nil && !f.Done {
		return f, f.Err
	}
	return f, nil
}

// do runs one call under the lock.
func do[T any](ctx context.Context, s *Service, op, key string, effect func() (T, error)) (T, error) {
	var none T
	f, err := s.begin(ctx, op, key, 0)
	if err != nil {
		return none, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := effect()
	if f.Err != nil {
		return none, f.Err
	}
	return v, err
}

type client struct{ s *Service }

var _ bucket.Backend = client{}

func (c client) Close() error { return nil }

func (c client) Limits() bucket.Limits {
	l := bucket.Limits{
		Kind: "upload", PartSize: c.s.opt.PartSize, MaxParts: 10000, MaxKey: 1024, Named: c.s.opt.Named, Expire: c.s.opt.Expire,
		Exclusive: "If-None-Match", MaxMeta: c.s.opt.MaxMeta, MetaPair: metaPair,
	}
	if c.s.opt.Twofold {
		l.Same = same
	}
	return l
}

func metaPair(key, value string) error {
	for _, b := range []byte(key) {
		if (b < 'a' || b > 'z') && (b < '0' || b > '9') && b != '-' && b != '_' {
			return errors.New("the key has a character that is not kept")
		}
	}
	if key == "" || strings.TrimSpace(value) != value {
		return errors.New("an empty key, or blanks around the value, are not kept")
	}
	for _, b := range []byte(value) {
		if b < ' ' || b > '~' {
			return errors.New("the value has a character that is not kept")
		}
	}
	return nil
}

func missing(key string) error {
	return problem.New(problem.Missing, "There is no object %q.", key)
}

func taken(key string) error {
	return problem.New(problem.Taken, "The object %q exists.", key)
}

func (c client) Head(ctx context.Context, key string) (bucket.Object, error) {
	return do(ctx, c.s, "Head", key, func() (bucket.Object, error) {
		if o := c.s.objects[key]; o != nil {
			return o.told(), nil
		}
		return bucket.Object{}, missing(key)
	})
}

func (c client) Get(ctx context.Context, key string, version token.Version, off, n int64) (io.ReadCloser, bucket.Object, error) {
	f, err := c.s.begin(ctx, "Get", key, 0)
	if err != nil {
		return nil, bucket.Object{}, err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	o := c.s.objects[key]
	switch {
	case f.Err != nil:
		return nil, bucket.Object{}, f.Err
	case o == nil:
		return nil, bucket.Object{}, missing(key)
	case c.s.opt.Lie != ForgetsPins && !same(o.Version, version):
		return nil, bucket.Object{}, problem.New(problem.Changed, "The object %q has another version.", key)
	}
	from := min(off, o.Size)
	piece := o.content[from:min(from+n, o.Size)]
	if b := o.boundary; c.s.opt.Lie == CutsRanges && b > from && b < from+int64(len(piece)) {
		piece = piece[:b-from]
	}
	var r io.Reader = bytes.NewReader(piece)
	if f.Cut > 0 && f.Cut < int64(len(piece)) {
		r = io.MultiReader(bytes.NewReader(piece[:f.Cut]), broken{})
	}
	return body{ctx, r}, o.told(), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("the connection was reset") }

type body struct {
	ctx context.Context // of the request, as in net/http
	r   io.Reader
}

func (b body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	return b.r.Read(p)
}

func (body) Close() error { return nil }

func (c client) List(ctx context.Context, prefix, after string, yield func(bucket.Object) bool) error {
	for {
		page, err := do(ctx, c.s, "List", prefix, func() ([]bucket.Object, error) { return c.s.page(prefix, after), nil })
		if err != nil {
			return err
		}
		for _, o := range page {
			if !yield(o) {
				return nil
			}
			after = o.Key
		}
		if len(page) < c.s.opt.Page {
			return ctx.Err()
		}
	}
}

// page is the next keys. The caller holds mu.
func (s *Service) page(prefix, after string) []bucket.Object {
	var page []bucket.Object
	for key, o := range s.objects {
		if strings.HasPrefix(key, prefix) && key > after {
			page = append(page, bucket.Object{Key: key, Size: o.Size, Version: half(o.Version), ModTime: o.ModTime, Native: o.Native})
		}
	}
	slices.SortFunc(page, func(a, b bucket.Object) int { return cmp.Compare(a.Key, b.Key) })
	return page[:min(len(page), s.opt.Page)]
}

func (c client) Put(ctx context.Context, key string, content []byte, h bucket.Header) (bucket.Object, error) {
	return do(ctx, c.s, "Put", key, func() (bucket.Object, error) {
		if c.s.objects[key] != nil && c.s.opt.Lie != ReplacesPut {
			return bucket.Object{}, taken(key)
		}
		return c.s.create(key, bytes.Clone(content), h, 0), nil
	})
}

func (c client) Delete(ctx context.Context, key string, version token.Version) error {
	_, err := do(ctx, c.s, "Delete", key, func() (bucket.Object, error) {
		o := c.s.objects[key]
		switch {
		case o == nil:
			return bucket.Object{}, missing(key)
		case version != "" && !same(o.Version, version):
			return bucket.Object{}, problem.New(problem.Changed, "The object %q has another version.", key)
		}
		delete(c.s.objects, key)
		return bucket.Object{}, nil
	})
	return err
}

// uploadID is what a service that names uploads calls one.
func uploadID(key string, origin store.Origin) string { return string(origin) + "@" + key }

func (c client) Begin(ctx context.Context, key string, h bucket.Header) (bucket.Upload, error) {
	if c.s.opt.Named {
		return bucket.Upload{Key: key, ID: uploadID(key, h.Origin), Origin: h.Origin}, ctx.Err()
	}
	return do(ctx, c.s, "Begin", key, func() (bucket.Upload, error) {
		c.s.last++
		up := bucket.Upload{Key: key, ID: fmt.Sprintf("u%d", c.s.last), Since: time.Now().UTC()}
		c.s.uploads[up.ID] = &upload{Upload: up, header: h, parts: map[int64]part{}}
		return up, nil
	})
}

// find returns an upload, and makes one where uploads are named. The caller holds mu.
func (s *Service) find(up bucket.Upload) (*upload, error) {
	u := s.uploads[up.ID]
	switch {
	case u != nil && u.Key == up.Key:
		return u, nil
	case !s.opt.Named:
		return nil, bucket.ErrNoUpload
	}
	return &upload{Upload: bucket.Upload{Key: up.Key, ID: up.ID, Origin: up.Origin, Since: time.Now().UTC()}, parts: map[int64]part{}}, nil
}

func (c client) PutPart(ctx context.Context, up bucket.Upload, index int64, r io.Reader, size int64) (bucket.Part, error) {
	f, err := c.s.begin(ctx, "PutPart", up.Key, index)
	if err != nil {
		return bucket.Part{}, err
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(r, content); err != nil {
		return bucket.Part{}, fmt.Errorf("reading part %d: %w", index, err)
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return bucket.Part{}, err
	}
	u, err := c.s.find(up)
	if err != nil {
		return bucket.Part{}, err
	}
	c.s.last++
	p := part{fmt.Sprintf("m%d", c.s.last), content}
	u.parts[index] = p
	c.s.uploads[u.ID] = u
	if f.Err != nil {
		return bucket.Part{}, f.Err
	}
	return bucket.Part{Index: index, Size: size, Mark: p.mark}, nil
}

func (c client) Parts(ctx context.Context, up bucket.Upload) ([]bucket.Part, error) {
	return do(ctx, c.s, "Parts", up.Key, func() ([]bucket.Part, error) {
		u, err := c.s.find(up)
		if err != nil {
			return nil, err
		}
		if len(u.parts) == 0 && c.s.opt.Named && c.s.objects[up.Key] == nil {
			return nil, bucket.ErrNoUpload
		}
		var all []bucket.Part
		for _, i := range slices.Sorted(maps.Keys(u.parts)) {
			p := bucket.Part{Index: i, Size: int64(len(u.parts[i].content)), Mark: u.parts[i].mark}
			if c.s.opt.Lie == MiscountsParts {
				p.Size += 86
			}
			all = append(all, p)
		}
		return all, nil
	})
}

func (c client) Complete(ctx context.Context, up bucket.Upload, parts []bucket.Part, h bucket.Header) (bucket.Object, error) {
	if c.s.opt.Lie == LosesRaces {
		c.s.mu.Lock()
		exists := c.s.objects[up.Key] != nil
		c.s.mu.Unlock()
		if exists {
			return bucket.Object{}, taken(up.Key)
		}
		runtime.Gosched()
	}
	return do(ctx, c.s, "Complete", up.Key, func() (bucket.Object, error) { return c.s.complete(up, parts, h) })
}

func (s *Service) complete(up bucket.Upload, parts []bucket.Part, h bucket.Header) (bucket.Object, error) {
	u, err := s.find(up)
	if err != nil {
		return bucket.Object{}, err
	}
	if s.objects[up.Key] != nil && s.opt.Lie != ReplacesWhole && s.opt.Lie != LosesRaces {
		return bucket.Object{}, taken(up.Key)
	}
	var content []byte
	var boundary int64
	for i, p := range parts {
		held, ok := u.parts[p.Index]
		switch {
		case !ok && s.opt.Named:
			return bucket.Object{}, bucket.ErrNoUpload
		case p.Index != int64(i), !ok, held.mark != p.Mark:
			return bucket.Object{}, fmt.Errorf("part %d is not there, or another", i)
		}
		content = append(content, held.content...)
		if i == 0 {
			boundary = int64(len(content))
		}
	}
	if !s.opt.Named {
		h = u.header
		delete(s.uploads, up.ID)
	}
	return s.create(up.Key, content, h, boundary), nil
}

func (c client) Abort(ctx context.Context, up bucket.Upload) error {
	_, err := do(ctx, c.s, "Abort", up.Key, func() (bucket.Object, error) {
		if u := c.s.uploads[up.ID]; u != nil && u.Key == up.Key {
			delete(c.s.uploads, up.ID)
		}
		return bucket.Object{}, nil
	})
	return err
}

func (c client) Uploads(ctx context.Context, prefix string, yield func(bucket.Upload) bool) error {
	all, err := do(ctx, c.s, "Uploads", prefix, func() ([]bucket.Upload, error) {
		var all []bucket.Upload
		for _, id := range slices.Sorted(maps.Keys(c.s.uploads)) {
			if u := c.s.uploads[id]; strings.HasPrefix(u.Key, prefix) && !c.s.opt.Unlisted {
				all = append(all, u.Upload)
			}
		}
		return all, nil
	})
	if err != nil {
		return err
	}
	for _, up := range all {
		if !yield(up) {
			break
		}
	}
	return nil
}
