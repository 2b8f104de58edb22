package cdmi

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A node is something in a memSpace.
type node struct {
	kind     acl.Kind
	id       space.ObjectID
	metadata space.Metadata
}

// memSpace keeps a namespace in memory, as the broker promises it to this package. Everybody may do what granted has.
type memSpace struct {
	nodes   map[string]*node // by address and, of containers, "/"
	granted []acl.Part
	hidden  bool // nobody may see anything
	refuse  error
	looks   []broker.Look
	wishes  []broker.Wish
}

func key(at token.Location, k acl.Kind) string {
	if k == acl.Container {
		return strings.TrimSuffix(at.String(), "/") + "/"
	}
	return at.String()
}

func (m *memSpace) Providers(context.Context) (api.Page[api.ProviderInfo], error) {
	return api.Page[api.ProviderInfo]{Items: []api.ProviderInfo{{Name: "north", Containers: []token.Container{"src"}}, {Name: "south", Containers: []token.Container{"dst", "arch"}}}}, nil
}

func (m *memSpace) PlaceOf(_ context.Context, _ certs.Peer, id space.ObjectID, _ time.Time) (token.Location, acl.Kind, error) {
	for at, n := range m.nodes {
		if n.id == id {
			l, err := token.ParseLocation(at)
			return l, n.kind, err
		}
	}
	return token.Location{}, 0, problem.New(problem.Hidden, "There is no object id %s", id)
}

func (m *memSpace) hide(at token.Location) error {
	return problem.New(problem.Hidden, "%s does not exist or may not be seen", at)
}

func (m *memSpace) See(_ context.Context, _ certs.Peer, l broker.Look, _ time.Time) (broker.Sight, error) {
	m.looks = append(m.looks, l)
	n := m.nodes[key(l.At, l.Kind)]
	if m.hidden || n == nil {
		return broker.Sight{}, m.hide(l.At)
	}
	var s broker.Sight
	for _, p := range l.Parts {
		if slices.Contains(m.granted, p) {
			s.Shown = append(s.Shown, p)
		}
	}
	if len(s.Shown) == 0 {
		return broker.Sight{}, problem.New(problem.NotPermitted, "Nothing of %s may be seen", l.At)
	}
	s.ID, s.ETag, s.Metadata = n.id, "v1", space.Metadata{}
	for item, v := range n.metadata {
		if p := acl.Metadata; slices.Contains(s.Shown, p) && item != space.ItemACL || item == space.ItemACL && slices.Contains(s.Shown, acl.List) {
			s.Metadata[item] = v
		}
	}
	if slices.Contains(s.Shown, acl.Children) {
		s.Children = m.children(l)
	}
	return s, nil
}

func (m *memSpace) children(l broker.Look) []string {
	root := key(l.At, acl.Container)
	var all []string
	for _, at := range slices.Sorted(maps.Keys(m.nodes)) {
		if rest, ok := strings.CutPrefix(at, root); ok && rest != "" && !strings.Contains(strings.TrimSuffix(rest, "/"), "/") {
			all = append(all, rest)
		}
	}
	n := int64(len(all))
	return all[min(l.From, n):min(l.From+l.Count, n)]
}

func (m *memSpace) Put(_ context.Context, _ certs.Peer, w broker.Wish, _ time.Time) (bool, error) {
	m.wishes = append(m.wishes, w)
	if m.refuse != nil {
		return false, m.refuse
	}
	if m.nodes[key(w.At, w.Kind)] != nil {
		return false, nil
	}
	if !w.Make {
		return false, m.hide(w.At)
	}
	m.nodes[key(w.At, w.Kind)] = &node{kind: w.Kind, id: someID, metadata: w.Metadata}
	return true, nil
}

func (m *memSpace) EraseContainer(_ context.Context, _ certs.Peer, at token.Location, _ time.Time) error {
	switch {
	case m.refuse != nil:
		return m.refuse
	case m.nodes[key(at, acl.Container)] == nil:
		return m.hide(at)
	}
	delete(m.nodes, key(at, acl.Container))
	return nil
}

const (
	idOfDir = space.ObjectID("00006FFD001001CCE3B2B4F602032653")
	idOfOne = space.ObjectID("00006FFD0010AA33D8CEF9711E0835CA")
	maker   = token.Identity("spiffe://north/subscriber/alice")
)

// newSpace has north:/src/ with dir/, which holds one, "a b", three more and deep/.
func newSpace() *memSpace {
	m := &memSpace{granted: []acl.Part{acl.Attributes, acl.Metadata, acl.List, acl.Children}, nodes: map[string]*node{
		"north:/src/":           {kind: acl.Container},
		"north:/src/dir/":       {kind: acl.Container, id: idOfDir, metadata: space.Metadata{"colour": `"red"`, "cdmi_acl": `[]`, "cdmi_size": `"7"`, "cdmi_acount": `"0"`}},
		"north:/src/dir/one":    {kind: acl.Object, id: idOfOne, metadata: space.Metadata{"@user": `"x"`, "cdmi_size": `"3"`}},
		"north:/src/dir/a b":    {kind: acl.Object},
		"north:/src/dir/deep/":  {kind: acl.Container},
		"north:/src/cdmi_odd":   {kind: acl.Object},
		"south:/dst/":           {kind: acl.Container},
		"north:/src/both":       {kind: acl.Object},
		"north:/src/both/":      {kind: acl.Container},
		"north:/src/dir/zürich": {kind: acl.Object},
	}}
	return m
}

// A got is the answer to a request.
type got struct {
	status int
	header http.Header
	body   string
	fields map[string]json.RawMessage
	err    error
}

// ask makes a request of m.
func ask(t *testing.T, m *memSpace, method, path, body string, pairs ...string) got {
	t.Helper()
	var g got
	h, err := New(Config{
		Reader: m, Writer: m, Self: "spiffe://hub/broker/main", Caller: func(context.Context) certs.Peer { return certs.Peer{Identity: maker} },
		IfMatch: func(r *http.Request) (string, error) { return strings.Trim(r.Header.Get("If-Match"), `"`), nil },
		Fail: func(w http.ResponseWriter, _ *http.Request, err error, status int) {
			g.err = err
			w.WriteHeader(status)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var r io.Reader = http.NoBody
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequestWithContext(t.Context(), method, "https://broker.example"+path, r)
	for i := 0; i+1 < len(pairs); i += 2 {
		req.Header.Add(pairs[i], pairs[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	g.status, g.header, g.body = w.Code, w.Header(), w.Body.String()
	if g.status == http.StatusOK || g.status == http.StatusCreated && g.body != "" {
		if err := json.Unmarshal(w.Body.Bytes(), &g.fields); err != nil && method != http.MethodHead {
			t.Fatalf("%s %s: %v in %s", method, path, err, g.body)
		}
	}
	return g
}

// read asks for a path as a client of CDMI does.
func read(t *testing.T, m *memSpace, path string) got {
	t.Helper()
	return ask(t, m, http.MethodGet, path, "", versionHeader, "1.1.1")
}

// text is a field that is a string; it is "" if it is not there.
func (g got) text(t *testing.T, name string) string {
	t.Helper()
	var s string
	if raw, ok := g.fields[name]; ok {
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Errorf("the field %s: %v", name, err)
		}
	}
	return s
}

// list is a field that is an array of strings.
func (g got) list(t *testing.T, name string) []string {
	t.Helper()
	var s []string
	if raw, ok := g.fields[name]; ok {
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Errorf("the field %s: %v", name, err)
		}
	}
	return s
}
