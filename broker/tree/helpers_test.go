package tree_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Who is who. Rita administrates north, sven administrates south.
const (
	alice = token.Identity("spiffe://north/subscriber/alice")
	bob   = token.Identity("spiffe://north/subscriber/bob")
	carol = token.Identity("spiffe://south/subscriber/carol")
	rita  = token.Identity("spiffe://north/subscriber/rita")
	sven  = token.Identity("spiffe://south/subscriber/sven")
)

// errUndone ends a transaction that is to leave nothing behind.
var errUndone = errors.New("undone")

// A world is a database with a tree over it.
type world struct {
	t    *testing.T
	d    *db.DB
	tree *tree.Tree
	now  time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, d: newDB(t), tree: newTree(t, tree.Config{Administrators: []token.Identity{rita, sven}}), now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
}

// empty returns the file of a database in which nothing is. Its schema is made once for all tests.
var empty = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "tree")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "broker.sqlite")
	err = db.Create(context.Background(), path)
	data, rerr := os.ReadFile(path)
	return data, errors.Join(err, rerr, os.RemoveAll(dir))
})

func newDB(tb testing.TB) *db.DB {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "broker.sqlite")
	data, err := empty()
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
	d, err := db.Open(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = d.Abandon() })
	return d
}

func newTree(tb testing.TB, conf tree.Config) *tree.Tree {
	tb.Helper()
	tr, err := tree.New(conf)
	if err != nil {
		tb.Fatal(err)
	}
	return tr
}

// write runs fn in a transaction that must succeed.
func (w *world) write(fn func(ctx context.Context, tx *db.Tx) error) {
	w.t.Helper()
	if err := w.d.Write(w.t.Context(), func(tx *db.Tx) error { return fn(w.t.Context(), tx) }); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) read(fn func(ctx context.Context, tx *db.Tx) error) {
	w.t.Helper()
	if err := w.d.Read(w.t.Context(), func(tx *db.Tx) error { return fn(w.t.Context(), tx) }); err != nil {
		w.t.Fatal(err)
	}
}

// at reads an address; one that ends in '/' is a container's.
func at(tb testing.TB, address string) (token.Location, acl.Kind) {
	tb.Helper()
	l, err := token.ParseLocation(address)
	if err != nil {
		tb.Fatal(err)
	}
	if strings.HasSuffix(address, "/") {
		return l, acl.Container
	}
	return l, acl.Object
}

func list(tb testing.TB, text string) acl.ACL {
	tb.Helper()
	a, err := acl.ParseText(strings.ReplaceAll(text, ";", "\n"))
	if err != nil {
		tb.Fatalf("%q: %v", text, err)
	}
	return a
}

func items(tb testing.TB, text string) space.Metadata {
	tb.Helper()
	m, err := space.ParseMetadata([]byte(text))
	if err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
	return m
}

// make makes a place with an owner and, unless it is empty, a list.
func (w *world) make(address string, owner token.Identity, lists ...string) {
	w.t.Helper()
	l, k := at(w.t, address)
	w.write(func(ctx context.Context, tx *db.Tx) error {
		n, err := w.tree.Make(ctx, tx, owner, l, k, w.now)
		if err != nil || len(lists) == 0 {
			return err
		}
		n.ACL = string(list(w.t, lists[0]).Marshal())
		return errors.Join(tx.SaveNode(ctx, n), tx.BumpACLGen(ctx, l.Provider))
	})
}

// stored stores objects that belong to owner.
func (w *world) stored(owner token.Identity, addresses ...string) {
	w.t.Helper()
	var objects []tree.StoredObject
	for _, a := range addresses {
		l, _ := at(w.t, a)
		objects = append(objects, tree.StoredObject{At: l, Owner: owner, Size: 10, Digest: "blake3:d", Version: "v1", Xfr: "x", Bat: 1})
	}
	w.write(func(ctx context.Context, tx *db.Tx) error { return w.tree.Stored(ctx, tx, objects, w.now) })
}

func (w *world) spot(address string) (s tree.Spot) {
	w.t.Helper()
	l, k := at(w.t, address)
	w.read(func(ctx context.Context, tx *db.Tx) (err error) {
		s, err = w.tree.Spot(ctx, tx, l, k)
		return err
	})
	return s
}

func (w *world) principal(who token.Identity, p token.Provider) (out acl.Principal) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) (err error) {
		out, err = w.tree.Principal(ctx, tx, who, p)
		return err
	})
	return out
}

// decide judges one attempt, and returns what is to be recorded of it too.
func (w *world) decide(who token.Identity, address string, want acl.Mask) (*tree.Trail, error) {
	w.t.Helper()
	s := w.spot(address)
	a := attempt(w.principal(who, s.At.Provider))
	return a.Trail, w.tree.Decide(a, s, want)
}

func attempt(p acl.Principal) tree.Attempt {
	return tree.Attempt{By: p, Op: "test", Trail: new(tree.Trail)}
}

// apply changes a place in a transaction of its own, which is undone if the change is refused.
func (w *world) apply(who token.Identity, address string, c tree.Change, ifMatch string) (s tree.Spot, err error) {
	w.t.Helper()
	c.At, c.Kind = at(w.t, address)
	c.IfMatch = ifMatch
	refused := w.d.Write(w.t.Context(), func(tx *db.Tx) error {
		p, perr := w.tree.Principal(w.t.Context(), tx, who, c.At.Provider)
		if perr != nil {
			w.t.Fatal(perr)
		}
		s, err = w.tree.Apply(w.t.Context(), tx, attempt(p), c, w.now)
		return err
	})
	if refused != nil && err == nil {
		w.t.Fatal(refused)
	}
	return s, err
}

// must fails unless a change was made.
func (w *world) must(s tree.Spot, err error) tree.Spot {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) gen(p token.Provider) (n int64) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) (err error) {
		n, err = tx.ACLGen(ctx, p)
		return err
	})
	return n
}

// refused fails unless err is a problem of code whose sentence has all of words.
func refused(tb testing.TB, err error, code problem.Code, words ...string) {
	tb.Helper()
	if problem.Of(err) != code {
		tb.Fatalf("got %v, want a problem of code %s", err, code)
	}
	sentence := problem.As(err).Sentence()
	for _, word := range append(words, ".") {
		if !strings.Contains(sentence, word) {
			tb.Errorf("got %q, want %q in it", sentence, word)
		}
	}
}

// silent fails if the sentence of err has one of words.
func silent(tb testing.TB, err error, words ...string) {
	tb.Helper()
	for _, word := range words {
		if strings.Contains(problem.As(err).Sentence(), word) {
			tb.Errorf("got %q, want nothing of %q in it", problem.As(err).Sentence(), word)
		}
	}
}
