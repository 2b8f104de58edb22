package broker

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Bounds of one page of a search.
const (
	maxSearched   = 10_000 // rows that are looked at
	maxFoundBytes = 4 << 20
	hitsAtOnce    = 1000 // that are judged together
)

// toFind is what a hit takes: its name, size and digest are told.
const toFind = acl.ReadAttributes | acl.ReadMetadata

// A finder is one page of a search.
type finder struct {
	b     *Broker
	root  token.Location // what is searched; without a container all of the provider
	name  token.Filter   // empty: any
	item  space.Item     // empty: any
	value any            // of it, decoded
	limit int

	hits   []db.Candidate
	at     *db.Position // of the last row that was looked at, or of the last hit of a page that is full
	looked int
	size   int  // bytes of the page
	full   bool // there may be more behind at
}

// Find returns a page of rows of a provider that a search is for, of those that the caller may see. A page looks at a bounded number of rows, so that it may
// have few hits, or none, and yet a Next. What the caller may not see counts for nothing but that number: a page of few hits must not tell that there are others.
func (b *Broker) Find(ctx context.Context, peer certs.Peer, q api.Search, now time.Time) (api.Page[api.Found], error) {
	page := api.Page[api.Found]{Items: []api.Found{}}
	f, search, err := b.finder(q)
	if err == nil {
		err = b.asking(ctx, peer.Identity, q.At.Provider, opFind, now, func(tx *db.Tx, a tree.Attempt) (err error) {
			page.Items, err = f.page(ctx, tx, search, a)
			return err
		})
	}
	if err != nil {
		return api.Page[api.Found]{}, b.deny(peer.Identity, err)
	}
	if f.full {
		page.Next = b.spellPosition(*f.at)
	}
	return page, nil
}

// finder reads what is looked for.
func (b *Broker) finder(q api.Search) (*finder, db.Search, error) {
	f := &finder{b: b, root: q.At, limit: q.Limit}
	s := db.Search{Provider: q.At.Provider, Container: q.At.Container, Below: q.At.Name, Digest: q.Digest}
	if q.Limit <= 0 || q.Limit > api.MaxFound {
		f.limit = api.MaxFound
	}
	if !slices.Contains(b.conf.Providers, q.At.Provider) {
		return nil, s, problem.New(problem.UnknownProvider, "A search names a provider, and the broker does not know %q", clip(string(q.At.Provider)))
	}
	if q.At.Container != "" {
		if err := q.At.Check(); err != nil {
			return nil, s, err
		}
	}
	if q.Name == "" && q.Digest == "" && q.Item == "" {
		return nil, s, problem.New(problem.Malformed, "The search looks for nothing: it needs a name, a digest or an item of metadata")
	}
	if err := q.Digest.Check(); err != nil {
		return nil, s, err
	}
	if q.Name != "" {
		f.name = token.Filter{Do: token.Include, Match: q.Name}
		if err := f.name.Check(); err != nil {
			return nil, s, err
		}
		if begins, ok := literal(q.Name); ok && q.At.Container != "" {
			s.Begins = token.ObjectName(begins)
			if q.At.Name != "" {
				s.Begins = q.At.Name + "/" + s.Begins
			}
		}
	}
	if q.Item != "" {
		if err := f.wants(q, &s); err != nil {
			return nil, s, err
		}
	}
	if q.Cursor != "" {
		at, err := b.parsePosition(q.Cursor)
		if err != nil {
			return nil, s, err
		}
		f.at = &at
	}
	return f, s, nil
}

// literal is what the names begin with that a pattern is for, if it says so.
func literal(pattern string) (string, bool) {
	rest, anchored := strings.CutPrefix(pattern, "/")
	if !anchored {
		return "", false
	}
	if i := strings.IndexAny(rest, "*?"); i >= 0 {
		rest = rest[:i]
	}
	return rest, rest != ""
}

// wants reads which user metadata are looked for.
func (f *finder) wants(q api.Search, s *db.Search) error {
	f.item = space.Item(q.Item)
	if err := f.item.Check(); err != nil {
		return err
	}
	if f.item.Class() != space.User {
		return problem.New(problem.Malformed, "A search is for user metadata, and %q is the standard's", clip(q.Item))
	}
	text := q.Value
	if text == "" || !strings.ContainsRune(`"[{`, rune(text[0])) {
		quoted, err := json.Marshal(text)
		if err != nil {
			return err
		}
		text = string(quoted)
	}
	name, err := json.Marshal(q.Item)
	if err != nil {
		return err
	}
	m, err := space.ParseMetadata([]byte("{" + string(name) + ":" + text + "}"))
	if err != nil {
		return err
	}
	s.User, s.Has = true, string(m.Marshal()[1:len(m.Marshal())-len(m[f.item])-1])
	f.value, err = decoded(m[f.item])
	return err
}

// decoded is what a value says, however it is written.
func decoded(v space.Value) (any, error) {
	dec := json.NewDecoder(strings.NewReader(string(v)))
	dec.UseNumber()
	var out any
	err := dec.Decode(&out)
	return out, err
}

// page looks at rows until enough is found that may be seen, or so many were looked at as one page may.
func (f *finder) page(ctx context.Context, tx *db.Tx, s db.Search, a tree.Attempt) ([]api.Found, error) {
	out := []api.Found{}
	for {
		more, err := f.search(ctx, tx, s)
		if err != nil {
			return nil, err
		}
		seen, err := f.seen(ctx, tx, a)
		if err != nil {
			return nil, err
		}
		for _, c := range seen {
			out = append(out, f.found(c))
			f.size += len(c.Name) + len(c.User) + 512
			if f.full = len(out) == f.limit || f.size > maxFoundBytes; f.full {
				f.at = &c.Position
				return out, nil
			}
		}
		if f.full = more && f.looked == maxSearched; f.full || !more {
			return out, nil
		}
	}
}

// search looks at the next rows until it has hits to be judged, and reports whether there may be more.
func (f *finder) search(ctx context.Context, tx *db.Tx, s db.Search) (more bool, err error) {
	f.hits = f.hits[:0]
	err = tx.Candidates(ctx, s, f.at, maxSearched-f.looked, func(c db.Candidate) (bool, error) {
		f.looked++
		at := c.Position
		f.at = &at
		hit, err := f.fits(&c)
		if err != nil || !hit {
			return true, err
		}
		f.hits = append(f.hits, c)
		more = len(f.hits) == hitsAtOnce
		return !more, nil
	})
	return more || f.looked == maxSearched, err
}

// fits reports whether a row is a hit, and leaves of its metadata the item that was looked for.
func (f *finder) fits(c *db.Candidate) (bool, error) {
	if f.name.Match != "" {
		name := string(c.Name)
		if f.root.Name != "" {
			name = strings.TrimPrefix(name, string(f.root.Name)+"/")
		}
		if name == "" || !f.name.Matches(token.ObjectName(name)) {
			return false, nil
		}
	}
	if f.item == "" {
		return true, nil
	}
	if c.User == "" {
		return false, nil
	}
	m, err := space.ParseMetadata([]byte(c.User))
	if err != nil {
		return false, err
	}
	v, ok := m[f.item]
	if !ok {
		return false, nil
	}
	got, err := decoded(v)
	if err != nil || !reflect.DeepEqual(got, f.value) {
		return false, err
	}
	c.User = string(v)
	return true, nil
}

// seen returns those of the hits that whoever searches may see.
func (f *finder) seen(ctx context.Context, tx *db.Tx, a tree.Attempt) ([]db.Candidate, error) {
	type crowd struct {
		container token.Container
		kind      acl.Kind
	}
	names := map[crowd][]token.ObjectName{}
	for _, c := range f.hits {
		names[crowd{c.Container, c.Kind}] = append(names[crowd{c.Container, c.Kind}], c.Name)
	}
	refused := map[crowd]map[token.ObjectName]error{}
	for k, ns := range names {
		at := token.Location{Provider: f.root.Provider, Container: k.container}
		if k.container == f.root.Container {
			at.Name = f.root.Name
		}
		var err error
		if refused[k], err = f.b.tree.DecideMany(ctx, tx, a, tree.Page{At: at, Kind: k.kind, Names: ns}, toFind); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(f.hits, func(c db.Candidate) bool { return refused[crowd{c.Container, c.Kind}][c.Name] != nil }), nil
}

// found is a hit as it is shown.
func (f *finder) found(c db.Candidate) api.Found {
	found := api.Found{
		At: token.Location{Provider: f.root.Provider, Container: c.Container, Name: c.Name}, Kind: kindOf(c.Kind), Size: max(c.Size, 0),
		Node: api.NodeBrief{ID: string(c.ID), Owner: string(c.Owner), Digest: c.Digest}, Modified: time.UnixMicro(c.Modified).UTC(),
	}
	if c.User != "" {
		found.Metadata = api.Items{string(f.item): json.RawMessage(c.User)}
	}
	return found
}

// spellPosition and parsePosition are a position as a cursor. It is encrypted, for it may name what its holder may not see, under a key that is
// made anew when the broker starts.
func (b *Broker) spellPosition(p db.Position) string {
	text := strconv.Itoa(int(p.Kind)) + string(p.Container) + "/" + string(p.Name)
	return base64.RawURLEncoding.EncodeToString(b.cursors.Seal(nil, nil, []byte(text), nil))
}

func (b *Broker) parsePosition(cursor string) (db.Position, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || len(cursor) > api.MaxPosition {
		return db.Position{}, badPosition()
	}
	text, err := b.cursors.Open(nil, nil, sealed, nil)
	if err != nil || len(text) == 0 {
		return db.Position{}, badPosition()
	}
	container, name, _ := strings.Cut(string(text[1:]), "/")
	return db.Position{Container: token.Container(container), Name: token.ObjectName(name), Kind: acl.Kind(text[0] - '0')}, nil
}

func badPosition() error {
	return &problem.Error{
		Code: problem.Malformed, Detail: "The cursor is not one that this broker gave since it started", Remedy: "Begin the search anew.",
	}
}

// newCursors makes what encrypts cursors.
func newCursors() (cipher.AEAD, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
