package adopt_test

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/adopt"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
)

const alice = token.Identity("spiffe://north/subscriber/alice")

// world is a namespace that alice administers.
type world struct {
	t    *testing.T
	d    *db.DB
	tree *tree.Tree
	now  time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	path := filepath.Join(t.TempDir(), "broker.sqlite")
	if err := db.Create(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	d, err := db.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Abandon() })
	tr, err := tree.New(tree.Config{Administrators: []token.Identity{alice}})
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, d: d, tree: tr, now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
}

// enter enters a listing of north:/c below a name, cut where chance wills.
func (w *world) enter(rnd *rand.Rand, below token.ObjectName, listing []api.Entry) db.Adoption {
	w.t.Helper()
	at := token.Location{Provider: "north", Container: "c", Name: below}
	a := db.Adoption{Account: alice, Owner: alice, At: at, Scope: token.Tree}
	o := token.Order{Do: token.List, Scope: token.Tree, From: at}
	for len(listing) > 0 {
		n := 1 + rnd.IntN(len(listing))
		err := w.d.Write(w.t.Context(), func(tx *db.Tx) error {
			if _, err := (adopt.Clerk{Tree: w.tree, Adoption: &a, Order: o}).Enter(w.t.Context(), tx, listing[:n], w.now); err != nil {
				return err
			}
			if a.Resume != listing[n-1].Name {
				w.t.Errorf("it goes on behind %q, want %q", a.Resume, listing[n-1].Name)
			}
			return nil
		})
		if err != nil {
			w.t.Fatal(err)
		}
		listing = listing[n:]
	}
	return a
}

// rows returns the names of all rows of a kind in north:/c.
func (w *world) rows(k acl.Kind) (out []token.ObjectName) {
	w.t.Helper()
	err := w.d.Read(w.t.Context(), func(tx *db.Tx) error {
		ns, err := tx.NodesBelow(w.t.Context(), token.Location{Provider: "north", Container: "c"}, "", acl.Object, 10_000)
		for _, n := range ns {
			if n.Kind == k && n.Owner == acl.Who(alice) {
				out = append(out, n.Name)
			}
		}
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// The orders in which stores list: by the bytes of keys, of which that of an empty container ends in '/', and by segments.
var orders = map[string]func(a, b api.Entry) int{
	"bucket": func(a, b api.Entry) int { return strings.Compare(key(a), key(b)) },
	"directory": func(a, b api.Entry) int {
		return slices.Compare(strings.Split(string(a.Name), "/"), strings.Split(string(b.Name), "/"))
	},
}

func key(e api.Entry) string {
	if e.Type == "container" {
		return string(e.Name) + "/"
	}
	return string(e.Name)
}

// TestPiecesAreEnteredAsTheWhole enters random listings, in both orders, cut anywhere: each object, and each container in which one was found, has
// one row and is counted once.
func TestPiecesAreEnteredAsTheWhole(t *testing.T) {
	t.Parallel()
	for name, compare := range orders {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			rnd := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // chance must be repeatable
			rounds := 12
			if testing.Short() {
				rounds = 3
			}
			for round := range rounds {
				root := token.ObjectName([]string{"", "r", "r/s-"}[round%3])
				if err := w.d.Write(t.Context(), func(tx *db.Tx) error {
					return tx.DropBelow(t.Context(), token.Location{Provider: "north", Container: "c"})
				}); err != nil {
					t.Fatal(err)
				}
				listing, objects, containers := random(rnd, root, compare)
				a := w.enter(rnd, root, listing)
				if int(a.Objects) != len(objects) || int(a.Containers) != len(containers) || int(a.Made) != len(objects)+len(containers) || a.Refused+a.Changed != 0 {
					t.Errorf("below %q: got %+v, want %d objects and %d containers", root, a.AdoptionCounts, len(objects), len(containers))
				}
				if got := w.rows(acl.Object); !slices.Equal(got, objects) {
					t.Errorf("below %q: got the objects %v, want %v", root, got, objects)
				}
				if got := w.rows(acl.Container); !slices.Equal(got, containers) {
					t.Errorf("below %q: got the containers %v, want %v", root, got, containers)
				}
				if again := w.enter(rnd, root, listing); again.Made+again.Changed != 0 || again.Objects != a.Objects || again.Containers != a.Containers {
					t.Errorf("below %q, again: got %+v", root, again.AdoptionCounts)
				}
			}
		})
	}
}

// random returns a listing below a name, with links and empty containers, and which objects and containers it tells of.
func random(rnd *rand.Rand, root token.ObjectName, compare func(a, b api.Entry) int) (listing []api.Entry, objects, containers []token.ObjectName) {
	kinds := map[token.ObjectName]string{}
	for range 1 + rnd.IntN(60) {
		n := string(root)
		for range 1 + rnd.IntN(4) {
			n += "/" + []string{"a", "b", "a-b", "a.b", "z"}[rnd.IntN(5)]
		}
		n = strings.TrimPrefix(n, "/")
		kinds[token.ObjectName(n)] = []string{"object", "object", "object", "link", "container"}[rnd.IntN(5)]
	}
	above := map[token.ObjectName]bool{}
	for n, k := range kinds {
		listing = append(listing, api.Entry{Name: n, Type: k, Size: int64(rnd.IntN(10)), Version: "v"})
		in := n
		switch k {
		case "link":
			continue
		case "object":
			objects = append(objects, n)
			in = n[:max(strings.LastIndexByte(string(n), '/'), 0)]
		}
		for ; in != "" && (root == "" || in == root || strings.HasPrefix(string(in), string(root)+"/")); in = in[:max(strings.LastIndexByte(string(in), '/'), 0)] {
			above[in] = true
		}
	}
	slices.SortFunc(listing, compare)
	slices.Sort(objects)
	for n := range above {
		containers = append(containers, n)
	}
	slices.Sort(containers)
	return listing, objects, containers
}
