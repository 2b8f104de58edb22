package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// spotAt is provider:/container/name as a place.
func spotAt(t *testing.T, s string) token.Location {
	t.Helper()
	p, rest, ok := strings.Cut(s, ":/")
	c, name, _ := strings.Cut(rest, "/")
	l := token.Location{Provider: token.Provider(p), Container: token.Container(c), Name: token.ObjectName(name)}
	if err := l.Check(); !ok || err != nil {
		t.Fatalf("the place %q: %v", s, err)
	}
	return l
}

// bob owns everything that has an owner.
func bob(p token.Provider) token.Identity {
	return token.Identity("spiffe://" + string(p) + "/subscriber/bob")
}

// apply changes a container as bob, who gets its root container before.
func (w *world) apply(at string, kind acl.Kind, c tree.Change) {
	w.t.Helper()
	l := spotAt(w.t, at)
	err := w.b.write(w.t.Context(), w.now, func(tx *work) error {
		if _, err := w.b.tree.OwnRoot(tx.ctx(), tx.Tx, l, bob(l.Provider), w.now); err != nil {
			return err
		}
		a, err := w.b.tree.Attempt(tx.ctx(), tx.Tx, bob(l.Provider), l.Provider, "test")
		if err != nil {
			return err
		}
		c.At, c.Kind = l, kind
		_, err = w.b.tree.Apply(tx.ctx(), tx.Tx, a, c, w.now)
		return err
	})
	if err != nil {
		w.t.Fatalf("changing %s: %v", at, err)
	}
}

// ctx is for tests, in which nothing ends early.
func (w *work) ctx() context.Context { return context.Background() }

// allow gives a container the list: bob may do all, and what lines say.
func (w *world) allow(at string, lines ...string) {
	w.t.Helper()
	a, err := acl.ParseText(strings.Join(append([]string{"ALLOW OWNER@ OBJECT_INHERIT,CONTAINER_INHERIT ALL_PERMS"}, lines...), "\n"))
	if err != nil {
		w.t.Fatal(err)
	}
	w.apply(at, acl.Container, tree.Change{ACL: &a})
}

// grant is a line that allows alice a mask in a container and below it.
func grant(p token.Provider, m acl.Mask) string {
	return fmt.Sprintf("ALLOW spiffe://%s/subscriber/alice OBJECT_INHERIT,CONTAINER_INHERIT %s", p, m.Hex())
}

// wish sets an item of a container; a value is JSON.
func (w *world) wish(at string, kind acl.Kind, item space.Item, value string) {
	w.t.Helper()
	w.apply(at, kind, tree.Change{Set: space.Metadata{item: space.Value(value)}})
}

// everything is what the list of a root container without an owner allows subscribers.
const everything = acl.ReadObject | acl.AddObject | acl.AddSubcontainer | acl.ReadMetadata | acl.ReadAttributes | acl.ReadACL

// spots returns the place that a row is of, or fails.
func (w *world) spot(at string, kind acl.Kind) tree.Spot {
	w.t.Helper()
	var s tree.Spot
	if err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) (err error) {
		s, err = w.b.tree.Spot(w.t.Context(), tx, spotAt(w.t, at), kind)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// lookupOrder is an order to look something up, with alice's account there.
func (w *world) lookupOrder(do token.Verb, at string) token.Order {
	l := spotAt(w.t, at)
	return w.order(func(o *token.Order) {
		o.Do, o.Scope, o.IfExists, o.From, o.To = do, token.One, "", l, token.Location{}
		switch do {
		case token.List:
			o.Scope = token.Tree
		case token.Make:
			o.From, o.To = token.Location{}, l
		}
		o.Accounts = []token.Identity{token.Identity("spiffe://" + string(l.Provider) + "/subscriber/alice")}
	})
}

// TestEachMissingRightHasItsSentence takes one right at a time from alice, who has all that the order takes otherwise. Nothing is asked of any agent.
func TestEachMissingRightHasItsSentence(t *testing.T) {
	t.Parallel()
	nested := func(o *token.Order) { one(o); o.To.Name = "new/b" }
	for _, tt := range []struct {
		name    string
		order   func(*token.Order)
		at      string // the container whose list lacks it
		missing acl.Mask
		bit     string // in the sentence
		where   string // in the sentence
	}{
		{"READ_OBJECT of one object", one, "north:/src", acl.ReadObject, "READ_OBJECT", "north:/src/a"},
		{"READ_METADATA of one object", one, "north:/src", acl.ReadMetadata, "READ_METADATA", "north:/src/a"},
		{"LIST_CONTAINER of a tree", func(*token.Order) {}, "north:/src", acl.ListContainer, "LIST_CONTAINER", "north:/src/"},
		{"ADD_OBJECT", one, "south:/dst", acl.AddObject, "ADD_OBJECT", "south:/dst/"},
		{"ADD_OBJECT of a tree", func(*token.Order) {}, "south:/dst", acl.AddObject, "ADD_OBJECT", "south:/dst/copy"},
		{"ADD_SUBCONTAINER for a new container", nested, "south:/dst", acl.AddSubcontainer, "ADD_SUBCONTAINER", "south:/dst/"},
		{"ADD_SUBCONTAINER for the root of a tree", func(*token.Order) {}, "south:/dst", acl.AddSubcontainer, "ADD_SUBCONTAINER", "south:/dst/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			at := spotAt(t, tt.at)
			w.allow(tt.at, grant(at.Provider, everything&^tt.missing))
			_, err := w.b.Submit(t.Context(), w.me(), w.sign(w.order(tt.order)), w.now)
			if problem.Of(err) != problem.NotPermitted {
				t.Fatalf("got %v, want %s", err, problem.NotPermitted)
			}
			who := "spiffe://" + string(at.Provider) + "/subscriber/alice"
			for _, part := range []string{who, tt.bit, tt.where, "no entry allows it"} {
				if text := problem.As(err).Sentence(); !strings.Contains(text, part) {
					t.Errorf("got %q, without %q", text, part)
				}
			}
			w.allow(tt.at, grant(at.Provider, everything))
			w.submit(w.order(tt.order))
		})
	}
}

// TestEachMissingRightOfALookup is the same for what is answered at once.
func TestEachMissingRightOfALookup(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		do      token.Verb
		at      string
		missing acl.Mask
		bit     string
	}{
		{token.List, "north:/src", acl.ListContainer, "LIST_CONTAINER"},
		{token.List, "north:/src/dir", acl.ListContainer, "LIST_CONTAINER"},
		{token.Stat, "north:/src/a", acl.ReadAttributes, "READ_ATTRIBUTES"},
		{token.Make, "north:/src/new", acl.AddSubcontainer, "ADD_SUBCONTAINER"},
		{token.Make, "north:/src/new/deep", acl.AddSubcontainer, "ADD_SUBCONTAINER"},
	} {
		t.Run(string(tt.do)+" "+tt.at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			src, _ := w.pair()
			w.allow("north:/src", grant("north", everything&^tt.missing))
			look := func() (api.LookupResult, error) {
				return w.b.Lookup(t.Context(), w.me(), api.Lookup{Order: w.sign(w.lookupOrder(tt.do, tt.at))}, w.now)
			}
			_, err := look()
			if text := fmt.Sprint(err); problem.Of(err) != problem.NotPermitted || !strings.Contains(text, tt.bit) || !strings.Contains(text, "alice") {
				t.Errorf("got %v, want %s that names %s", err, problem.NotPermitted, tt.bit)
			}
			w.allow("north:/src", grant("north", everything))
			done := make(chan error, 1)
			go func() {
				_, err := look()
				done <- err
			}()
			k := src.next().Task
			src.page(k.ID, api.TaskPage{Last: true})
			if err := <-done; err != nil {
				t.Errorf("with the right: %v", err)
			}
		})
	}
}

// TestStrangerLearnsNothing: who may not see a place gets one answer, whether it is there or not, also from lookups and of what he owns nothing of.
func TestStrangerLearnsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pair()
	w.allow("north:/src")
	w.wish("north:/src/there", acl.Object, "colour", `"red"`)
	var texts []string
	for _, name := range []token.ObjectName{"there", "absent"} {
		_, err := w.b.Submit(t.Context(), w.me(), w.sign(w.order(one, func(o *token.Order) { o.From.Name = name })), w.now)
		texts = append(texts, strings.ReplaceAll(fmt.Sprint(problem.Of(err), err), string(name), "NAME"))
		_, err = w.b.Lookup(t.Context(), w.me(), api.Lookup{Order: w.sign(w.lookupOrder(token.Stat, "north:/src/"+string(name)))}, w.now)
		texts = append(texts, strings.ReplaceAll(fmt.Sprint(problem.Of(err), err), string(name), "NAME"))
	}
	if texts[0] != texts[2] || texts[1] != texts[3] || !strings.HasPrefix(texts[0], string(problem.Hidden)) || !strings.HasPrefix(texts[1], string(problem.Hidden)) {
		t.Errorf("got %q, want twice the same, which says %s", texts, problem.Hidden)
	}
}

// TestPlanKeepsToTheRights: of a tree goes what may be read, the rest is denied, and of what is in a container that may not be listed there is no name.
func TestPlanKeepsToTheRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, dst := w.pair()
	w.allow("north:/src", grant("north", everything))
	w.allow("north:/src/hr", "DENY spiffe://north/subscriber/alice OBJECT_INHERIT,CONTAINER_INHERIT LIST_CONTAINER")
	w.shut("north:/src/b")
	id := w.submit(w.order())
	src.list(object("a", 1), object("b", 1), object("hr/salaries", 1), object("hr/sub/x", 1), api.Entry{Name: "hr/empty", Type: "container"}, object("z", 1))
	serve, receive := batch(src, dst)
	dst.post(dst.receipt(receive, nil))
	src.post(src.receipt(serve, nil))
	got := w.want(id, api.Partial, map[token.Result]int64{token.Stored: 2, token.Denied: 2})
	page, err := w.b.Items(t.Context(), w.me(), id, "", "")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.Marshal(page)
	if !strings.Contains(string(text), `"src":"hr"`) || strings.Contains(string(text), "salaries") || strings.Contains(string(text), "empty") {
		t.Errorf("got %s, want hr and nothing that is in it", text)
	}
	if n := len(got.Denials); n != 1 || got.Denials[0].Code != problem.NotPermitted || !strings.Contains(got.Denials[0].Note, "north:/src/b") {
		t.Errorf("got the denials %+v, want one", got.Denials)
	}
}

// shut gives an object a list by which alice may not read it.
func (w *world) shut(at string) {
	w.t.Helper()
	a, err := acl.ParseText("DENY spiffe://north/subscriber/alice NO_FLAGS READ_OBJECT,READ_ATTRIBUTES")
	if err != nil {
		w.t.Fatal(err)
	}
	w.apply(at, acl.Object, tree.Change{ACL: &a})
}

// TestListingShowsWhatMayBeSeen: of a recursive listing nothing is shown that is in a container which may not be listed, and no attribute
// of what may not be described.
func TestListingShowsWhatMayBeSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	src, _ := w.pair()
	w.allow("north:/src", grant("north", everything))
	w.allow("north:/src/hr", "DENY spiffe://north/subscriber/alice OBJECT_INHERIT,CONTAINER_INHERIT LIST_CONTAINER")
	w.shut("north:/src/b")
	var r api.LookupResult
	done := make(chan error, 1)
	go func() {
		var err error
		r, err = w.b.Lookup(context.Background(), w.me(), api.Lookup{Order: w.sign(w.lookupOrder(token.List, "north:/src"))}, w.now)
		done <- err
	}()
	k := src.task(api.ListTask)
	src.page(k.ID, api.TaskPage{Last: true, Entries: []api.Entry{object("a", 7), object("b", 7), object("hr/salaries", 7), object("hr/sub/x", 7)}})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range r.Entries {
		lines = append(lines, fmt.Sprintf("%s %s %d %s", e.Name, e.Type, e.Size, e.Code))
	}
	want := []string{"a object 7 ", "b object 0 insufficient-privileges", "hr container 0 insufficient-privileges"}
	if fmt.Sprint(lines) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}

// TestRefusedBeforeAByte: holds, retention and placement of a container refuse adding to it, at the order; nobody is asked for anything.
func TestRefusedBeforeAByte(t *testing.T) {
	t.Parallel()
	span := func(from, to time.Time) string {
		return fmt.Sprintf("%q", space.Interval{Start: from, End: to}.String())
	}
	now := time.Now()
	for _, tt := range []struct {
		name  string
		item  space.Item
		value string
		code  problem.Code
	}{
		{"hold", space.HoldID, `["case 7"]`, problem.OnHold},
		{"retention", space.RetentionPeriod, span(now.Add(-time.Hour), now.Add(time.Hour)), problem.UnderRetention},
		{"place", space.GeographicPlacement, `["FR"]`, problem.PlacementRefused},
		{"sanitization", space.SanitizationMethod, `"overwrite"`, problem.Unsanitizable},
		{"unknown place", space.GeographicPlacement, `["*","!FR"]`, problem.PlacementRefused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.conf.Places = map[token.Location]space.Region{{Provider: "south"}: "DE"}
			w.crash()
			src, dst := w.agent(w.north, "n1", "src"), w.agent(w.south, "s1", "dst")
			if tt.name == "place" {
				dst.hello.Exports[0].Place = "DE"
			}
			src.connect()
			dst.connect()
			w.allow("south:/dst", grant("south", everything))
			w.wish("south:/dst/copy", acl.Container, tt.item, tt.value)
			_, err := w.b.Submit(t.Context(), w.me(), w.sign(w.order()), w.now)
			if problem.Of(err) != tt.code {
				t.Errorf("got %v, want %s", err, tt.code)
			}
			w.step()
			for _, f := range []*fake{src, dst} {
				if len(f.lines) != 0 {
					t.Errorf("%s was asked for something", f.peer.Identity)
				}
			}
		})
	}
}
