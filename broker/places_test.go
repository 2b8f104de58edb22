package broker

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestPlaces: where a container is, is known only where the broker's operator and every agent of it say the same.
func TestPlaces(t *testing.T) {
	t.Parallel()
	b := &Broker{conf: Config{Places: map[token.Location]space.Region{
		{Provider: "north"}: "DE", {Provider: "north", Container: "alps"}: "AT", {Provider: "south", Container: "sea"}: "IT",
	}}}
	for _, tt := range []struct {
		name   string
		at     token.Location
		agents []string
		want   space.Region
	}{
		{"all say the same", token.Location{Provider: "north", Container: "data"}, []string{"DE", "DE"}, "DE"},
		{"the container counts more than its provider", token.Location{Provider: "north", Container: "alps"}, []string{"AT"}, "AT"},
		{"a name below is where its container is", token.Location{Provider: "north", Container: "alps", Name: "a/b"}, []string{"AT"}, "AT"},
		{"the agent says the provider's, and the container is elsewhere", token.Location{Provider: "north", Container: "alps"}, []string{"DE"}, ""},
		{"one agent of two says another", token.Location{Provider: "north", Container: "data"}, []string{"DE", "FR"}, ""},
		{"one agent of two says nothing", token.Location{Provider: "north", Container: "data"}, []string{"DE", ""}, ""},
		{"a part is not the whole", token.Location{Provider: "north", Container: "data"}, []string{"DE-BY"}, ""},
		{"nobody exports it", token.Location{Provider: "north", Container: "data"}, nil, ""},
		{"the broker says nothing", token.Location{Provider: "south", Container: "land"}, []string{"IT"}, ""},
		{"nobody says anything", token.Location{Provider: "south", Container: "land"}, []string{""}, ""},
	} {
		var es []db.Exporter
		for _, p := range tt.agents {
			es = append(es, db.Exporter{Export: api.Export{Place: p}})
		}
		if got := b.placeOf(tt.at, es); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestPlacesAreChecked: a region that does not exist, or a place that is not the broker's, stops the start; an agent that says one is refused.
func TestPlacesAreChecked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for at, r := range map[token.Location]space.Region{
		{Provider: "north"}: "Germany", {Provider: "west"}: "DE", {Provider: "north", Container: "c", Name: "n"}: "DE", {Provider: "south"}: "",
	} {
		conf := w.conf
		conf.Places = map[token.Location]space.Region{at: r}
		if err := conf.Check(); problem.Of(err) != problem.BadConfig {
			t.Errorf("%v in %q: got %v, want %q", at, r, err, problem.BadConfig)
		}
	}
	a := peerOf(w.north.Issue(token.Agent, "one"))
	for _, e := range []api.Export{{Container: "src", Place: "XX"}, {Container: "src", Owner: "alice"}, {Container: "src", Owner: "OWNER@"}, {Container: "src", Owner: "spiffe://north/agent/one"},
		{Container: "src", Sanitizes: []string{"a\nb"}}, {Container: "src", Sanitizes: []string{""}}, {Container: "src", Sanitizes: []string{strings.Repeat("x", 65)}},
		{Container: "src", Sanitizes: make([]string, 17)}} {
		h := api.Hello{Listen: []string{}, Held: []api.Ref{}, Exports: []api.Export{e}}
		if _, err := w.b.Hello(t.Context(), a, h, w.now); !slices.Contains([]problem.Code{problem.Malformed, problem.BadName, problem.TooLarge}, problem.Of(err)) {
			t.Errorf("%+v: got %v, want a refusal", e, err)
		}
	}
	said := api.Export{Container: "src", Read: true, Place: "DE-BY", Owner: "spiffe://east/subscriber/alice", Erase: true, Sanitizes: []string{"overwrite", "shred"}}
	if _, err := w.b.Hello(t.Context(), a, api.Hello{Listen: []string{}, Held: []api.Ref{}, Exports: []api.Export{said}}, w.now); err != nil {
		t.Fatal(err)
	}
	err := w.b.db.Read(t.Context(), func(tx *db.Tx) error {
		es, err := tx.Exporters(t.Context(), "north", "src")
		if err == nil && (len(es) != 1 || !reflect.DeepEqual(es[0].Export, said)) {
			t.Errorf("got %+v, want what the agent said: %+v", es, said)
		}
		s, err := w.b.tree.Spot(t.Context(), tx, token.Location{Provider: "north", Container: "src"}, acl.Container)
		if err == nil && s.Owner() != acl.Who(said.Owner) {
			t.Errorf("the container belongs to %q, want whom the agent said", s.Owner())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	said.Owner = "spiffe://north/subscriber/mallory" // another agent, later
	other := peerOf(w.north.Issue(token.Agent, "two"))
	if _, err := w.b.Hello(t.Context(), other, api.Hello{Listen: []string{}, Held: []api.Ref{}, Exports: []api.Export{said}}, w.now); err != nil {
		t.Fatal(err)
	}
	w.must(w.b.db.Read(t.Context(), func(tx *db.Tx) error {
		s, err := w.b.tree.Spot(t.Context(), tx, token.Location{Provider: "north", Container: "src"}, acl.Container)
		if err == nil && s.Owner() != "spiffe://east/subscriber/alice" {
			t.Errorf("the container belongs to %q now, want that an owner stays", s.Owner())
		}
		return err
	}))
}
