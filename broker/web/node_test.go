package web_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestConditionalChangesOverTheWire: a node has an ETag, a change names it in If-Match, and what comes too late is 412.
func TestConditionalChangesOverTheWire(t *testing.T) {
	t.Parallel()
	n := serveWith(t, tree.Config{Administrators: []token.Identity{"spiffe://north/subscriber/alice"}})
	leaf := n.north.Issue(token.Subscriber, "alice")
	c := n.http(leaf)
	const place = "/v1/nodes?kind=container&at=north:/src/"
	send := func(method, body, ifMatch string) (int, string, api.Node, api.Problem) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, n.url+place, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if ifMatch != "" {
			req.Header.Set("If-Match", ifMatch)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		var node api.Node
		var p api.Problem
		if json.Unmarshal(data, &node) != nil || json.Unmarshal(data, &p) != nil {
			t.Fatalf("%s: got %s", method, data)
		}
		return resp.StatusCode, resp.Header.Get("ETag"), node, p
	}
	status, tag, node, _ := send(http.MethodGet, "", "")
	if status != 200 || tag != `"`+node.ETag+`"` || len(node.ETag) != 16 || node.Known {
		t.Fatalf("reading: got %d, ETag %s, %+v", status, tag, node)
	}
	status, changed, node, _ := send(http.MethodPatch, `{"set":{"colour":"red"},"owner":"spiffe://north/subscriber/alice"}`, tag)
	if status != 200 || changed == tag || string(node.User["colour"]) != `"red"` || node.Owner != "spiffe://north/subscriber/alice" {
		t.Fatalf("changing: got %d, ETag %s, %+v", status, changed, node)
	}
	if status, _, _, p := send(http.MethodPatch, `{"set":{"colour":"blue"}}`, tag); status != http.StatusPreconditionFailed || p.Code != problem.Outdated {
		t.Errorf("changing what was changed: got %d %s, want 412", status, p.Code)
	}
	for _, bad := range []string{"red", `W/` + changed, `"a", "b"`, `""`, `"`} {
		if status, _, _, p := send(http.MethodPatch, `{"set":{"colour":"blue"}}`, bad); status < 400 || p.Code != problem.Malformed && p.Code != problem.Outdated {
			t.Errorf("If-Match: %s: got %d %s", bad, status, p.Code)
		}
	}
	for _, good := range []string{"*", changed} {
		if status, _, _, p := send(http.MethodPatch, `{"set":{"colour":"red"}}`, good); status != 200 {
			t.Errorf("If-Match: %s: got %d %s", good, status, p.Code)
		}
	}
	for name, tt := range map[string]struct {
		method, path, body string
		want               problem.Code
	}{
		"no place":              {"GET", "/v1/nodes", "", problem.BadAddress},
		"no address":            {"GET", "/v1/nodes?at=src", "", problem.BadAddress},
		"another kind":          {"GET", "/v1/nodes?at=north:/src/&kind=queue", "", problem.Malformed},
		"an unknown member":     {"PATCH", place, `{"acls":[]}`, problem.UnknownField},
		"an entry's member":     {"PATCH", place, `{"acl":[{"acetype":"ALLOW","identifier":"EVERYONE@","aceflags":"NO_FLAGS","acemask":"READ","acetime":"1"}]}`, problem.UnknownField},
		"an item twice":         {"PATCH", place, `{"set":{"a":"1","a":"2"}}`, problem.Malformed},
		"nobody to explain for": {"GET", "/v1/nodes/explain?at=north:/src/&want=READ", "", problem.Malformed},
		"nothing to find":       {"GET", "/v1/find?at=north", "", problem.Malformed},
		"too much to find":      {"GET", "/v1/find?at=north&name=a&limit=1001", "", problem.Malformed},
		"nowhere to find":       {"GET", "/v1/find?at=North&name=a", "", problem.BadName},
		"no such provider":      {"GET", "/v1/groups/west", "", problem.UnknownProvider},
		"no such group":         {"GET", "/v1/groups/north/none", "", problem.Hidden},
	} {
		if _, p := n.ask(c, tt.method, tt.path, tt.body); p.Code != tt.want {
			t.Errorf("%s: got %s %q, want %s", name, p.Code, p.Detail, tt.want)
		}
	}
}

// TestNamespaceOverTheWire: the client's calls reach the broker whole, whatever characters a name has.
func TestNamespaceOverTheWire(t *testing.T) {
	t.Parallel()
	n := serveWith(t, tree.Config{Administrators: []token.Identity{"spiffe://north/subscriber/alice"}})
	alice, bob := n.client(n.north.Issue(token.Subscriber, "alice")), n.client(n.north.Issue(token.Subscriber, "bob"))
	at := token.Location{Provider: "north", Container: "src", Name: "a b/ü&?#%2F+"}
	value := json.RawMessage(`["` + url.QueryEscape("x&y=ü") + `", {"deep": "<&>"}]`)
	_, err := alice.ChangeNode(t.Context(), token.Location{Provider: "north", Container: "src"}, api.ContainerNode, api.NodeChange{Owner: new("spiffe://north/subscriber/alice")}, "")
	if err != nil {
		t.Fatal(err)
	}
	node, err := alice.ChangeNode(t.Context(), at, api.ObjectNode, api.NodeChange{Set: api.Items{"k&=": value}}, "")
	if err != nil || node.At != at {
		t.Fatalf("changing: got %+v, %v", node, err)
	}
	if _, err := alice.ChangeNode(t.Context(), at, api.ObjectNode, api.NodeChange{Unset: []string{"k&="}}, "AAAAAAAAAAAAAAAA"); problem.Of(err) != problem.Outdated {
		t.Errorf("with another ETag: got %v, want %s", err, problem.Outdated)
	}
	page, err := bob.Find(t.Context(), api.Search{At: token.Location{Provider: "north"}, Item: "k&=", Value: string(value)})
	if err != nil || len(page.Items) != 1 || page.Items[0].At != at || page.Items[0].Node.ID != node.ID {
		t.Errorf("finding: got %+v, %v", page, err)
	}
	if e, err := alice.ExplainAccess(t.Context(), at, "", "spiffe://north/subscriber/bob", "WRITE_METADATA | 0x1"); err != nil || e.Granted || e.At != at {
		t.Errorf("explaining: got %+v, %v", e, err)
	}
	if _, err := alice.ChangeGroup(t.Context(), "north", "lab.1", api.GroupChange{Add: []token.Identity{"spiffe://south/subscriber/carol"}}); err != nil {
		t.Errorf("a group: %v", err)
	}
	if ids, err := alice.Members(t.Context(), "north", "lab.1", ""); err != nil || len(ids.Items) != 1 {
		t.Errorf("its members: got %+v, %v", ids, err)
	}
	if err := bob.RemoveGroup(t.Context(), "north", "lab.1"); problem.Of(err) != problem.Hidden {
		t.Errorf("bob removes it: got %v, want %s", err, problem.Hidden)
	}
	if err := alice.RemoveGroup(t.Context(), "north", "lab.1"); err != nil {
		t.Errorf("removing it: %v", err)
	}
	if gs, err := alice.Groups(t.Context(), "north"); err != nil || len(gs.Items) != 2 {
		t.Errorf("the groups: got %+v, %v", gs, err)
	}
}
