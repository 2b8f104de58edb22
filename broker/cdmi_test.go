package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// cdmi is a place of south:/dst; a name that ends in "/" is a container's.
func cdmi(name string) (token.Location, acl.Kind) {
	k := acl.Object
	if name == "" || strings.HasSuffix(name, "/") {
		k = acl.Container
	}
	return token.Location{Provider: "south", Container: "dst", Name: token.ObjectName(strings.TrimSuffix(name, "/"))}, k
}

var everyPart = []acl.Part{acl.Attributes, acl.Metadata, acl.List, acl.Children}

// see looks at parts of a place, or at all.
func (w *world) see(who certs.Peer, name string, parts ...acl.Part) (Sight, error) {
	w.t.Helper()
	l := Look{Parts: parts, Count: 1000}
	if l.At, l.Kind = cdmi(name); len(parts) == 0 {
		l.Parts = everyPart
		if l.Kind == acl.Object {
			l.Parts = everyPart[:3]
		}
	}
	return w.b.See(w.t.Context(), who, l, w.now)
}

func (w *world) mustSee(who certs.Peer, name string, parts ...acl.Part) Sight {
	w.t.Helper()
	s, err := w.see(who, name, parts...)
	if err != nil {
		w.t.Fatalf("seeing %q: %v", name, err)
	}
	return s
}

// put makes a wish; named are the items that it is about, none for all.
func (w *world) put(who certs.Peer, name, metadata string, named ...space.Item) (bool, error) {
	w.t.Helper()
	wish := Wish{Named: named}
	if metadata != "" {
		m, err := space.ParseMetadata([]byte(metadata))
		if err != nil {
			w.t.Fatal(err)
		}
		wish.Metadata = m
	}
	wish.At, wish.Kind = cdmi(name)
	wish.Make = wish.Kind == acl.Container
	return w.b.Put(w.t.Context(), who, wish, w.now)
}

// mustPut fails unless a wish is granted, with a container made or not.
func (w *world) mustPut(who certs.Peer, made bool, name, metadata string, named ...space.Item) {
	w.t.Helper()
	if got, err := w.put(who, name, metadata, named...); err != nil || got != made {
		w.t.Fatalf("putting %q: got %v and %v, want made %v", name, got, err, made)
	}
}

func (w *world) erases(who certs.Peer, name string) error {
	w.t.Helper()
	at, _ := cdmi(name)
	return w.b.EraseContainer(w.t.Context(), who, at, w.now)
}

// noRows fails if there is a row of one of names.
func (w *world) noRows(names ...token.ObjectName) {
	w.t.Helper()
	if err := w.b.db.Read(w.t.Context(), func(tx *db.Tx) error {
		ns, err := tx.Nodes(w.t.Context(), "south", "dst", names)
		for _, n := range ns {
			w.t.Errorf("there is a row of %s", n.At())
		}
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
}

// atSouth is a subscriber of south.
func (w *world) atSouth(name string) certs.Peer {
	w.t.Helper()
	return peerOf(w.south.Issue(token.Subscriber, name, certstest.Valid(w.now.Add(-time.Hour), w.now.Add(96*time.Hour))))
}

// owned is a shelf whose container belongs to alice of south, who may do all there; everybody may read, list and nothing else.
func (w *world) owned(names ...string) (s *shelf, alice certs.Peer) {
	w.t.Helper()
	return w.shelf(names...), w.owner()
}

// owner lets the root container of south belong to alice.
func (w *world) owner() certs.Peer {
	w.t.Helper()
	alice := peerOf(w.alice[1])
	if err := w.b.write(w.t.Context(), w.now, func(tx *work) error {
		_, err := w.b.tree.OwnRoot(w.t.Context(), tx.Tx, token.Location{Provider: "south", Container: "dst"}, alice.Identity, w.now)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return alice
}

// only is a list that gives its owner everything and somebody else a mask, and everybody else nothing.
func only(who certs.Peer, mask string) string {
	return fmt.Sprintf(`{"cdmi_acl":[{"acetype":"ALLOW","identifier":"OWNER@","aceflags":"0x03","acemask":"ALL_PERMS"},{"acetype":"ALLOW","identifier":%q,"aceflags":"0x03","acemask":%q},
		{"acetype":"DENY","identifier":"EVERYONE@","aceflags":"0x03","acemask":"ALL_PERMS"}]}`, who.Identity, mask)
}

// TestCDMISight: what there is a row of is shown from it, what there is none of is asked of an agent, and each part takes its permission.
func TestCDMISight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, alice := w.owned("a", "dir/", "dir/x", "dir/deep/", "dir/deep/y")
	bob := w.atSouth("bob")
	if s := w.mustSee(alice, "a"); s.ID != "" || s.Metadata["cdmi_size"] != `"4"` || len(s.Shown) != 3 || s.Children != nil {
		t.Errorf("an object without a row: got %+v", s)
	}
	if s := w.mustSee(alice, "dir/"); s.ID != "" || !slices.Equal(s.Children, []string{"deep/", "x"}) || s.Metadata["cdmi_size"] != "" {
		t.Errorf("a container without a row: got %+v", s)
	}
	if s := w.mustSee(bob, ""); !slices.Equal(s.Children, []string{"a", "dir/"}) || s.ParentID != "" {
		t.Errorf("the root container: got %+v", s)
	}
	for _, name := range []string{"b", "a/", "dir", "dir/z", "none/"} {
		if _, err := w.see(alice, name); problem.Of(err) != problem.Missing {
			t.Errorf("%s: got %v, want %s", name, err, problem.Missing)
		}
	}
	w.mustPut(alice, true, "shut/", only(bob, "READ_METADATA"))
	w.mustPut(alice, false, "shut/", `{"colour":"red","cdmi_hold_id":[]}`, "colour", "cdmi_hold_id")
	s := w.mustSee(bob, "shut/")
	if !slices.Equal(s.Shown, []acl.Part{acl.Metadata}) || s.Metadata["colour"] != `"red"` || s.Metadata[space.ItemACL] != "" || s.Children != nil {
		t.Errorf("with READ_METADATA alone: got %+v", s)
	}
	for _, p := range []acl.Part{acl.Attributes, acl.List, acl.Children} {
		if _, err := w.see(bob, "shut/", p); problem.Of(err) != problem.NotPermitted {
			t.Errorf("part %d with READ_METADATA alone: got %v", p, err)
		}
	}
	full := w.mustSee(alice, "shut/")
	if full.ID == "" || full.ETag == "" || full.ParentID != w.mustSee(alice, "").ID || full.Metadata[space.ItemOwner] != space.Value(`"`+string(alice.Identity)+`"`) || full.Metadata[space.ItemACL] == "" ||
		full.Metadata["cdmi_mcount"] != `"1"` || full.Metadata["cdmi_hold_id_provided"] == "" {
		t.Errorf("its owner: got %+v", full)
	}
	at, kind, err := w.b.PlaceOf(t.Context(), alice, full.ID, w.now)
	if want, _ := cdmi("shut/"); err != nil || at != want || kind != acl.Container {
		t.Errorf("by its id: got %v, %v, %v", at, kind, err)
	}
	if _, _, err := w.b.PlaceOf(t.Context(), alice, "0000706D0010734CE0BAEB29DD542B51", w.now); problem.Of(err) != problem.Hidden {
		t.Errorf("by an id that nothing has: got %v", err)
	}
}

// TestStrangersSeeNothing: who may not see a place is told the same whether or not it is there, and no agent is asked.
func TestStrangersSeeNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, alice := w.owned("there/", "x")
	w.mustPut(alice, false, "", only(alice, "ALL_PERMS"), space.ItemACL)
	for len(s.asked) > 0 {
		<-s.asked
	}
	for _, name := range []string{"there/", "none/", "x", "y"} {
		_, see := w.see(w.me(), name)
		_, put := w.put(w.me(), name, `{"a":"b"}`)
		want := "There is nothing at south:/dst/" + strings.TrimSuffix(name, "/") + " that spiffe://north/subscriber/alice may see."
		for doing, err := range map[string]error{"seeing": see, "putting": put, "erasing": w.erases(w.me(), name)} {
			if problem.Of(err) != problem.Hidden || problem.As(err).Sentence() != want {
				t.Errorf("%s %s: got %v, want %q", doing, name, err, want)
			}
		}
	}
	if len(s.asked) > 0 {
		t.Errorf("the agent was asked to %s for who may not see anything", <-s.asked)
	}
}

// TestCDMIChildren: children are counted over the pages of a listing.
func TestCDMIChildren(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	names := []string{"many/"}
	for i := range 2500 {
		names = append(names, fmt.Sprintf("many/%04d", i))
	}
	_, alice := w.owned(names...)
	for _, tt := range []struct {
		from, count int64
		first, last string
		n           int
	}{{0, 1000, "0000", "0999", 1000}, {995, 10, "0995", "1004", 10}, {2400, 1000, "2400", "2499", 100}, {2500, 5, "", "", 0}} {
		l := Look{Parts: []acl.Part{acl.Children}, From: tt.from, Count: tt.count}
		l.At, l.Kind = cdmi("many/")
		s, err := w.b.See(t.Context(), alice, l, w.now)
		if err != nil || len(s.Children) != tt.n || tt.n > 0 && (s.Children[0] != tt.first || s.Children[tt.n-1] != tt.last) {
			t.Errorf("from %d: got %d children, %v", tt.from, len(s.Children), err)
		}
	}
}

// TestCDMIWithoutTheBrokersWord: where no agent takes the broker's word, what is kept is shown and changed, and everything else is the policy's refusal.
func TestCDMIWithoutTheBrokersWord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pair()
	alice := w.owner()
	w.mustPut(alice, false, "", `{"colour":"red"}`)
	if s := w.mustSee(alice, ""); slices.Contains(s.Shown, acl.Children) || s.Metadata["colour"] != `"red"` {
		t.Errorf("the root container: got %+v", s)
	}
	_, list := w.see(alice, "", acl.Children)
	_, see := w.see(alice, "x")
	_, put := w.put(alice, "new/", `{}`)
	for doing, err := range map[string]error{"children alone": list, "what is not known": see, "a new container": put, "an erasure": w.erases(alice, "old/")} {
		if problem.Of(err) != problem.PolicyRefused {
			t.Errorf("%s: got %v, want %s", doing, err, problem.PolicyRefused)
		}
	}
}

// TestCDMIOfAnotherProvider: an account of another provider sees what is kept, as far as lists let it, and has no agent look for it.
func TestCDMIOfAnotherProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, alice := w.owned("x")
	w.mustPut(alice, false, "", `{"colour":"red"}`)
	north := peerOf(w.alice[0])
	if s := w.mustSee(north, ""); slices.Contains(s.Shown, acl.Children) || s.Metadata["colour"] != `"red"` {
		t.Errorf("the root container: got %+v", s)
	}
	_, list := w.see(north, "", acl.Children)
	_, see := w.see(north, "x")
	for doing, err := range map[string]error{"children alone": list, "what is not known": see} {
		if problem.Of(err) != problem.PolicyRefused || !strings.Contains(problem.As(err).Remedy, "certificate of south") {
			t.Errorf("%s: got %v, want %s and whose certificate is needed", doing, err, problem.PolicyRefused)
		}
	}
}

// TestCDMIPut: a container is made once, is what its maker says, and is changed afterwards.
func TestCDMIPut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	shelf, alice := w.owned("there/", "one")
	bob := w.atSouth("bob")
	w.mustPut(alice, true, "new/", only(bob, "READ"))
	if shelf.has("new") != typeSubtree {
		t.Error("the container is not in its store")
	}
	before := w.mustSee(alice, "new/")
	w.mustPut(alice, false, "new/", string(before.Metadata.Marshal())) // as it was shown
	w.mustPut(alice, false, "new/", "")
	w.mustPut(alice, false, "new/", only(bob, "READ"), space.ItemACL)
	if after := w.mustSee(alice, "new/"); after.ETag != before.ETag || after.Metadata["cdmi_mcount"] != `"0"` {
		t.Errorf("what was written back as it was shown has changed %+v to %+v", before, after)
	}
	w.mustPut(alice, false, "new/", `{"shape":"round"}`)
	if s := w.mustSee(alice, "new/"); s.Metadata["shape"] != `"round"` || s.Metadata[space.ItemACL] != before.Metadata[space.ItemACL] {
		t.Errorf("all metadata, without a list: got %+v", s.Metadata)
	}
	w.mustPut(alice, false, "new/", `{"a":"1","b":"2","shape":"flat","cdmi_size":"7"}`, "a", "shape", "cdmi_size", "c")
	w.mustPut(alice, false, "new/", `{}`, "shape")
	if s := w.mustSee(alice, "new/"); s.Metadata["a"] != `"1"` || s.Metadata["b"] != "" || s.Metadata["shape"] != "" || s.Metadata["cdmi_size"] != `"0"` {
		t.Errorf("some items: got %+v", s.Metadata)
	}
	w.mustPut(alice, false, "there/", `{"a":"1"}`)
	w.mustPut(alice, false, "one", `{"a":"1"}`)
	if s := w.mustSee(alice, "one"); s.ID == "" || s.Metadata["a"] != `"1"` {
		t.Errorf("a data object: got %+v", s)
	}
	w.mustPut(alice, false, "new/", `{}`, space.ItemACL)
	if s := w.mustSee(bob, "new/", acl.Attributes); s.ID == "" {
		t.Errorf("without a list of its own: got %+v", s)
	}
}

// TestCDMIPutIsRefused: what is refused changes nothing of what is kept, and makes nothing in the store.
func TestCDMIPutIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	shelf, alice := w.owned("there/")
	bob := w.atSouth("bob")
	w.mustPut(alice, true, "his/", only(bob, "READ_METADATA,WRITE_METADATA"))
	w.mustPut(alice, true, "held/", `{"cdmi_hold_id":["h"]}`)
	for name, tt := range map[string]struct {
		who             certs.Peer
		place, metadata string
		named           []space.Item
		want            problem.Code
	}{
		"a right that is missing":            {bob, "there/", `{"a":"2"}`, nil, problem.NotPermitted},
		"one of two rights that is missing":  {bob, "his/", `{"a":"2","cdmi_hold_id":["h"]}`, []space.Item{"a", "cdmi_hold_id"}, problem.NotPermitted},
		"a list":                             {bob, "his/", `{"cdmi_acl":[]}`, []space.Item{"cdmi_acl"}, problem.NotPermitted},
		"no list":                            {bob, "his/", `{}`, []space.Item{"cdmi_acl"}, problem.NotPermitted},
		"an owner":                           {bob, "his/", `{"cdmi_owner":"` + string(bob.Identity) + `"}`, []space.Item{"cdmi_owner"}, problem.NotPermitted},
		"a container where none may be made": {bob, "mine/", `{}`, nil, problem.NotPermitted},
		"a container in one that is held":    {alice, "held/new/", `{}`, nil, problem.OnHold},
		"a change of one that is held":       {alice, "held/", `{"a":"1"}`, []space.Item{"a"}, problem.OnHold},
		"a hold that is taken away":          {alice, "held/", `{}`, nil, problem.OnHold},
		"a data object that is not there":    {alice, "two", `{"a":"1"}`, nil, problem.Missing},
		"a wish of no form":                  {alice, "bad/", `{"cdmi_retention_period":"soon"}`, nil, problem.Malformed},
		"a place that the store is not in":   {alice, "far/", `{"cdmi_geographic_placement":["JP"]}`, nil, problem.PlacementRefused},
		"somebody else's":                    {alice, "gift/", `{"cdmi_owner":"` + string(bob.Identity) + `"}`, nil, problem.NotPermitted},
		"an item of no name":                 {alice, "bad/", `{"cdmi_colour":"red"}`, nil, problem.UnknownField},
	} {
		if made, err := w.put(tt.who, tt.place, tt.metadata, tt.named...); made || problem.Of(err) != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
	w.noRows("there", "mine", "held/new", "two", "bad", "far", "gift")
	for _, n := range []token.ObjectName{"mine", "held/new", "two", "bad", "far", "gift"} {
		if shelf.has(n) != "" {
			t.Errorf("%s is in the store", n)
		}
	}
	if s := w.mustSee(alice, "his/"); s.Metadata["a"] != "" || s.Metadata["cdmi_mcount"] != `"0"` {
		t.Errorf("half of a change was made: got %+v", s.Metadata)
	}
	if _, err := w.b.Put(t.Context(), alice, Wish{At: token.Location{Provider: "south", Container: "new"}, Kind: acl.Container, Make: true}, w.now); problem.Of(err) != problem.NotOffered {
		t.Errorf("a root container that nobody exports: got %v", err)
	}
	at, kind := cdmi("his/")
	if _, err := w.b.Put(t.Context(), alice, Wish{At: at, Kind: kind, Metadata: space.Metadata{"a": `"1"`}, IfMatch: "old"}, w.now); problem.Of(err) != problem.Outdated {
		t.Errorf("in another state: got %v", err)
	}
}

// TestHoldWhereNobodyKnowsThePlace: a placement that the store does not obey is in the way of another placement alone.
func TestHoldWhereNobodyKnowsThePlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, alice := w.owned("there/")
	root := token.Location{Provider: "south", Container: "dst"}
	placement := api.NodeChange{Set: api.Items{"cdmi_geographic_placement": json.RawMessage(`["JP"]`)}}
	if _, err := w.b.ChangeNode(t.Context(), alice, Place{At: root}, placement, "", w.now); err != nil {
		t.Fatal(err)
	}
	w.mustPut(alice, false, "there/", `{"cdmi_hold_id":["h"]}`, "cdmi_hold_id")
	if s := w.mustSee(alice, "there/"); s.Metadata["cdmi_hold_id"] != `["h"]` {
		t.Errorf("got %+v", s.Metadata)
	}
	if _, err := w.put(alice, "new/", `{}`); problem.Of(err) != problem.PlacementRefused {
		t.Errorf("a container that would not be where it may be: got %v", err)
	}
}

// TestCDMIMakeIsTakenUpAgain: a process that ends between store and row leaves a container that the same request describes.
func TestCDMIMakeIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	shelf, alice := w.owned()
	w.b.fault = func(at string) error {
		if at == "before commit" && shelf.has("b") != "" {
			return errors.New("the power is gone")
		}
		return nil
	}
	if _, err := w.put(alice, "b/", `{"colour":"red"}`); err == nil {
		t.Fatal("got no failure, want one of our own")
	}
	w.b.fault = func(string) error { return nil }
	w.noRows("b")
	w.mustPut(alice, false, "b/", `{"colour":"red"}`)
	if s := w.mustSee(alice, "b/"); s.Metadata["colour"] != `"red"` {
		t.Errorf("got %+v", s)
	}
}

// TestCDMIErase: a container goes with its row if nothing is in it, and nothing holds it.
func TestCDMIErase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	shelf, alice := w.owned("full/", "full/x", "old/")
	bob := w.atSouth("bob")
	for name, metadata := range map[string]string{
		"mine/": `{}`, "kept/": `{"cdmi_retention_period":"2020-01-01T00:00:00.000000Z/2090-01-01T00:00:00.000000Z"}`, "held/": `{"cdmi_hold_id":["h"]}`,
	} {
		w.mustPut(alice, true, name, metadata)
	}
	w.mustPut(alice, true, "mine/inner/", `{}`)
	for name, tt := range map[string]struct {
		who   certs.Peer
		place string
		want  problem.Code
	}{
		"without the right":         {bob, "mine/inner/", problem.NotPermitted},
		"one that has rows below":   {alice, "mine/", problem.Conflict},
		"one that its store fills":  {alice, "full/", problem.Conflict},
		"under a retention":         {alice, "kept/", problem.UnderRetention},
		"under a hold":              {alice, "held/", problem.OnHold},
		"what is not there":         {alice, "none/", problem.Missing},
		"an object":                 {alice, "full/x/", problem.Missing},
		"the root container":        {alice, "", problem.NotOffered},
		"what is not there, inside": {alice, "mine/none/", problem.Missing},
	} {
		if err := w.erases(tt.who, tt.place); problem.Of(err) != tt.want {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
	for _, name := range []string{"mine/inner/", "mine/", "old/"} {
		if err := w.erases(alice, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if at, _ := cdmi(name); shelf.has(at.Name) != "" {
			t.Errorf("%s is in its store still", name)
		}
	}
	w.noRows("mine", "mine/inner", "old")
	w.mustPut(alice, true, "gone/", `{}`)
	shelf.drop("gone")
	if err := w.erases(alice, "gone/"); err != nil {
		t.Errorf("what is gone from its store by another hand: %v", err)
	}
	w.noRows("gone")
	if len(shelf.asked) == 0 || !slices.Contains([]api.TaskKind{api.StatTask, api.MakeTask}, <-shelf.asked) {
		t.Error("the agent was not asked")
	}
}

// TestCDMIAttemptsAreRecorded: an AUDIT entry has attempts recorded, those that are refused too, and before anybody is answered.
func TestCDMIAttemptsAreRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, alice := w.owned()
	bob := w.atSouth("bob")
	w.mustPut(alice, true, "watched/", `{"cdmi_acl":[{"acetype":"AUDIT","identifier":"EVERYONE@","aceflags":"0x03","acemask":"READ_METADATA,WRITE_METADATA,DELETE,ADD_SUBCONTAINER"},
		{"acetype":"ALLOW","identifier":"OWNER@","aceflags":"0x03","acemask":"ALL_PERMS"},{"acetype":"ALLOW","identifier":"EVERYONE@","aceflags":"0x03","acemask":"READ"}]}`)
	w.mustSee(bob, "watched/", acl.Metadata)
	_, put := w.put(bob, "watched/", `{"a":"1"}`)
	_, mk := w.put(bob, "watched/new/", `{}`)
	for doing, err := range map[string]error{"changing": put, "making": mk, "erasing": w.erases(bob, "watched/")} {
		if problem.Of(err) != problem.NotPermitted {
			t.Errorf("%s: got %v", doing, err)
		}
	}
	tried := map[string]acl.Mask{}
	if err := w.b.db.Read(t.Context(), func(tx *db.Tx) error {
		rs, err := tx.AuditFrom(t.Context(), 1, 1000)
		for _, r := range rs {
			if r.Who == acl.Who(bob.Identity) {
				tried[r.Op] |= r.Audited
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for op, want := range map[string]acl.Mask{opReadCDMI: acl.ReadMetadata, opPutCDMI: acl.WriteMetadata | acl.AddSubcontainer, opEraseCDMI: acl.Delete} {
		if tried[op]&want != want {
			t.Errorf("%s: got records of %s, want %s", op, tried[op], want)
		}
	}
}
