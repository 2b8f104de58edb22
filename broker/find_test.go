package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// stored writes the rows of objects, of which each has the digest of the text behind its '=', and a colour, which is JSON.
func (w *world) stored(colour string, addresses ...string) {
	w.t.Helper()
	var os []tree.StoredObject
	for _, a := range addresses {
		address, content, _ := strings.Cut(a, "=")
		o := tree.StoredObject{At: at(address), Size: int64(len(content)), Digest: digest(content), Version: "v", Xfr: "x"}
		if colour != "" {
			o.User = space.Metadata{"colour": space.Value(colour)}
		}
		os = append(os, o)
	}
	w.must(w.b.write(w.t.Context(), w.now, func(k *work) error { return w.b.tree.Stored(w.t.Context(), k.Tx, os, w.now) }))
}

// finds searches page by page, and returns what was found and on how many pages.
func (p person) finds(q api.Search) (found []string, pages int) {
	p.w.t.Helper()
	for {
		page, err := p.w.b.Find(p.w.t.Context(), p.peer, q, p.w.now)
		if err != nil {
			p.w.t.Fatalf("%s searches %+v: %v", p.id(), q, err)
		}
		pages++
		for _, f := range page.Items {
			name := f.At.String()
			if f.Kind == api.ContainerNode && !strings.HasSuffix(name, "/") {
				name += "/"
			}
			found = append(found, name)
		}
		if q.Cursor = page.Next; page.Next == "" {
			return found, pages
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	w, dave, _, _, _ := ruled(t)
	w.stored(`"red"`, "north:/src/a/1.csv=x", "north:/src/a/2.tmp=yy", "north:/src/b/1.csv=x", "north:/other/1.csv=x", "south:/dst/1.csv=x")
	w.stored(`"r\u00e9d \"100%_!\""`, "north:/src/a-b/3.csv=x", "north:/src/100%_!/4.csv=zzz")
	w.stored("", "north:/src/a/plain.csv=x")
	north := token.Location{Provider: "north"}
	for name, tt := range map[string]struct {
		q    api.Search
		want string
	}{
		"by the last segment":    {api.Search{At: north, Name: "1.csv"}, "north:/other/1.csv north:/src/a/1.csv north:/src/b/1.csv"},
		"in a container":         {api.Search{At: at("north:/src/"), Name: "1.csv"}, "north:/src/a/1.csv north:/src/b/1.csv"},
		"below a name":           {api.Search{At: at("north:/src/a"), Name: "*.csv"}, "north:/src/a/1.csv north:/src/a/plain.csv"},
		"by an anchored pattern": {api.Search{At: at("north:/src/"), Name: "/a/*.csv"}, "north:/src/a/1.csv north:/src/a/plain.csv"},
		"by a prefix":            {api.Search{At: at("north:/src/"), Name: "/a**"}, "north:/src/a/ north:/src/a-b/ north:/src/a-b/3.csv north:/src/a/1.csv north:/src/a/2.tmp north:/src/a/plain.csv"},
		"by digest":              {api.Search{At: north, Digest: digest("x")}, "north:/other/1.csv north:/src/a-b/3.csv north:/src/a/1.csv north:/src/a/plain.csv north:/src/b/1.csv"},
		"by digest below a name": {api.Search{At: at("north:/src/b"), Digest: digest("x")}, "north:/src/b/1.csv"},
		"by metadata":            {api.Search{At: north, Item: "colour", Value: "red"}, "north:/other/1.csv north:/src/a/1.csv north:/src/a/2.tmp north:/src/b/1.csv"},
		"by metadata as JSON":    {api.Search{At: north, Item: "colour", Value: `"\u0072ed"`, Name: "*.tmp"}, "north:/src/a/2.tmp"},
		"in other letter case":   {api.Search{At: north, Item: "colour", Value: "RED"}, ""},
		"by a part of a value":   {api.Search{At: north, Item: "colour", Value: "re"}, ""},
		"by wild characters":     {api.Search{At: north, Item: "colour", Value: `réd "100%_!"`}, "north:/src/100%_!/4.csv north:/src/a-b/3.csv"},
		"all that is said holds": {api.Search{At: north, Digest: digest("x"), Item: "colour", Value: "red", Name: "/src/**"}, ""},
		"nothing":                {api.Search{At: at("north:/none/"), Name: "**"}, ""},
	} {
		for _, limit := range []int{0, 1, 2} {
			tt.q.Limit = limit
			found, _ := dave.finds(tt.q)
			if got := strings.Join(found, " "); got != tt.want {
				t.Errorf("%s, %d at once: got %q, want %q", name, limit, got, tt.want)
			}
		}
	}
	for name, q := range map[string]api.Search{
		"nothing to look for": {At: north}, "a bad pattern": {At: north, Name: "[a]"}, "a bad digest": {At: north, Digest: "md5:1"},
		"an item of the standard's": {At: north, Item: "cdmi_size", Value: "1"}, "a value that is no JSON": {At: north, Item: "colour", Value: `"red`},
		"a cursor of nobody": {At: north, Name: "**", Cursor: "MHNyYy9h"}, "a bad name": {At: token.Location{Provider: "north", Container: "src", Name: "a//b"}, Name: "**"},
	} {
		if _, err := w.b.Find(t.Context(), dave.peer, q, w.now); problem.Of(err) != problem.Malformed && problem.Of(err) != problem.BadName {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := w.b.Find(t.Context(), dave.peer, api.Search{Name: "**"}, w.now); problem.Of(err) != problem.UnknownProvider {
		t.Errorf("no provider: got %v, want %s", err, problem.UnknownProvider)
	}
}

// TestFindIsNoOracle: a search says nothing of what its caller may not see: no hit, no cursor that names it, and no digest or metadata of what may
// be seen by name alone.
func TestFindIsNoOracle(t *testing.T) {
	t.Parallel()
	w, dave, alice, _, eve := ruled(t)
	w.stored(`"red"`, "north:/src/open/a=x", "north:/src/secret/plans=x", "north:/src/secret/more=x")
	dave.mustChange("north:/src/", api.NodeChange{Owner: owner(dave.id()), ACL: list("ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS",
		"ALLOW eve CONTAINER_INHERIT LIST_CONTAINER,READ_ATTRIBUTES", "ALLOW eve OBJECT_INHERIT READ_ATTRIBUTES")})
	dave.mustChange("north:/src/open/", api.NodeChange{ACL: list("ALLOW alice OBJECT_INHERIT,INHERIT_ONLY READ")})
	for name, q := range map[string]api.Search{
		"name": {Name: "**"}, "digest": {Digest: digest("x")}, "metadata": {Item: "colour", Value: "red"},
	} {
		q.At = at("north:/src/")
		if found, _ := dave.finds(q); !slices.Contains(found, "north:/src/secret/plans") {
			t.Errorf("by %s dave found %q", name, found)
		}
		if found, _ := alice.finds(q); !slices.Equal(found, []string{"north:/src/open/a"}) {
			t.Errorf("by %s alice found %q, want what she may see", name, found)
		}
		if found, _ := eve.finds(q); len(found) > 0 {
			t.Errorf("by %s eve found %q, of which she may see names alone", name, found)
		}
		q.Limit = 1
		page, err := w.b.Find(t.Context(), eve.peer, q, w.now)
		if err != nil || len(page.Items) > 0 || page.Next != "" {
			t.Errorf("by %s eve found %+v, then %q, %v: that there is more tells of what she may not see", name, page.Items, page.Next, err)
		}
	}
}

// TestFindPagesAreBounded: a page looks at so many rows and no more, whatever it finds.
func TestFindPagesAreBounded(t *testing.T) {
	t.Parallel()
	w, dave, _, _, _ := ruled(t)
	var names []string
	for i := range maxSearched + 50 {
		names = append(names, fmt.Sprintf("north:/src/many/%06d=x", i))
	}
	w.stored("", append(names, "north:/src/needle=x")...)
	found, pages := dave.finds(api.Search{At: at("north:/src/"), Name: "needle"})
	if !slices.Equal(found, []string{"north:/src/needle"}) || pages != 2 {
		t.Errorf("got %q on %d pages, want the needle on the second", found, pages)
	}
	found, pages = dave.finds(api.Search{At: at("north:/src/"), Digest: digest("x")})
	if len(found) != len(names)+1 || pages != len(found)/api.MaxFound+1 {
		t.Errorf("got %d hits on %d pages", len(found), pages)
	}
	if found, pages = dave.finds(api.Search{At: at("north:/src/"), Item: "colour", Value: "red"}); len(found) != 0 || pages != 1 {
		t.Errorf("got %q on %d pages: rows without metadata were looked at", found, pages)
	}
}
