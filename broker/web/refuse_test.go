package web_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// routes returns everything that is registered as method and path, with ids filled in, and paths that are not.
func (n *net0) routes() [][2]string {
	n.t.Helper()
	var out [][2]string
	fill := strings.NewReplacer("{id}", "0192f0c1-2345-7abc-8def-0123456789ab", "{xfr}", "x", "{bat}", "1", "{provider}", "north", "{group}", "staff")
	for _, r := range n.srv.Routes() {
		method, path, _ := strings.Cut(r, " ")
		out = append(out, [2]string{method, fill.Replace(path)})
	}
	if len(out) < 25 {
		n.t.Fatalf("got %d routes, want 25 at least", len(out))
	}
	return append(out, [2]string{"GET", "/"}, [2]string{"GET", "/no/such/path"}, [2]string{"GET", "/v1/agent/../transfers"}, [2]string{"POST", "/problems/taken"},
		[2]string{"GET", "/problems"}, [2]string{"GET", "//problems/taken"}, [2]string{"GET", "/v1/../problems/taken"}, [2]string{"DELETE", "/v1/version"},
		[2]string{"GET", "/cdmi"}, [2]string{"GET", "/cdmi/"}, [2]string{"PUT", "/cdmi/south/dst/x/"}, [2]string{"DELETE", "/cdmi/south/dst/x/"}, [2]string{"GET", "/cdmi/../v1/version"})
}

// TestRoutesAreAll: what Routes says is what is described and what is registered. Nothing comes to the mux but through register, and
// the answer for everything else.
func TestRoutesAreAll(t *testing.T) {
	t.Parallel()
	n := serve(t)
	doc, err := n.srv.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var spec struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(doc, &spec); err != nil {
		t.Fatal(err)
	}
	var described []string
	for path, ops := range spec.Paths {
		for method := range ops {
			described = append(described, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(described)
	if got := n.srv.Routes(); !slices.Equal(got, described) {
		t.Errorf("got the routes %v, and %v are described", got, described)
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 8 {
		t.Fatalf("got the files %v, %v", files, err)
	}
	registering := regexp.MustCompile(`s\.mux\.Handle|s\.api\.Adapter\(\)\.Handle|huma\.(Register|Get|Post|Put|Delete|Patch)`)
	calls := 0
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(f, "_test.go") {
			calls += len(registering.FindAll(data, -1))
		}
	}
	if calls != 2 {
		t.Errorf("got %d calls that register a path, want those of register and of the answer for everything else", calls)
	}
}

// TestProblemPageIsForEverybody: it is the one page that needs no certificate, and it says nothing but a row of the table.
func TestProblemPageIsForEverybody(t *testing.T) {
	t.Parallel()
	n := serve(t)
	evil := certstest.NewUnconstrained(t, "evil")
	get := func(c *http.Client, path, accept string) (int, string, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, resp.Header.Get("Content-Type"), string(data)
	}
	for name, leaf := range map[string]*certstest.Leaf{
		"none": nil, "expired": n.north.Issue(token.Subscriber, "alice", certstest.Expired()), "foreign": evil.Issue(token.Subscriber, "alice"),
		"of another domain": n.north.Issue(token.Subscriber, "alice", certstest.As("spiffe://south/subscriber/alice")), "good": n.north.Issue(token.Subscriber, "alice"),
	} {
		c := n.http(leaf)
		for _, k := range problem.Table() {
			status, kind, body := get(c, "/problems/"+string(k.Code), "application/json")
			var p api.ProblemPage
			if err := json.Unmarshal([]byte(body), &p); err != nil || status != 200 || kind != "application/json" {
				t.Fatalf("%s: %s: got %d %s %s", name, k.Code, status, kind, body)
			}
			want := api.ProblemPage{Code: k.Code, Number: k.Number, Status: k.HTTP, Exit: k.Exit, Retry: k.Retry == problem.Later, Title: k.Title, Cause: k.Cause(), Remedy: k.Remedy}
			if p != want || p.Cause == "" {
				t.Errorf("%s: got %+v, want %+v", name, p, want)
			}
		}
		status, kind, body := get(c, "/problems/taken", "text/html,*/*")
		if status != 200 || kind != "text/html; charset=utf-8" || !strings.Contains(body, "a transfer never replaces an object") {
			t.Errorf("%s: for people: got %d %s %s", name, status, kind, body)
		}
		for _, path := range []string{"/problems/", "/problems/no-such", "/problems/taken/x", "/problems/%3Cscript%3E"} {
			if status, kind, body := get(c, path, "text/html"); status != http.StatusNotFound || kind != "application/problem+json" || strings.Contains(body, "<script") {
				t.Errorf("%s: %s: got %d %s %s", name, path, status, kind, body)
			}
		}
	}
}

func TestStrangersReachNothing(t *testing.T) {
	t.Parallel()
	n := serve(t)
	evil := certstest.NewUnconstrained(t, "evil")
	for _, tt := range []struct {
		name string
		leaf *certstest.Leaf
		want problem.Code
	}{
		{"of an unknown authority", evil.Issue(token.Subscriber, "alice"), problem.CertUnknown},
		{"of another provider's authority", evil.Issue(token.Subscriber, "alice", certstest.As("spiffe://north/subscriber/alice")), problem.CertUnknown},
		{"of another domain than its authority's", n.north.Issue(token.Subscriber, "alice", certstest.As("spiffe://south/subscriber/alice")), problem.CertUnknown},
		{"expired", n.north.Issue(token.Subscriber, "alice", certstest.Expired()), problem.CertExpired},
		{"not yet valid", n.north.Issue(token.Subscriber, "alice", certstest.NotYet()), problem.CertNotYet},
		{"without an identity", n.north.Issue(token.Subscriber, "alice", certstest.NoURI()), problem.CertMisused},
	} {
		c := n.http(tt.leaf)
		for _, r := range n.routes() {
			status, p := n.ask(c, r[0], r[1], "")
			if p.Code != tt.want || status != problem.Lookup(tt.want).HTTP {
				t.Errorf("a certificate %s: %s %s: got %d %s, want %s", tt.name, r[0], r[1], status, p.Code, tt.want)
			}
			named := strings.Contains(p.Detail, "spiffe://north/subscriber/alice")
			if dated := tt.want == problem.CertExpired || tt.want == problem.CertNotYet; named != dated {
				t.Errorf("a certificate %s: got the sentence %q", tt.name, p.Detail)
			}
		}
	}
	for _, r := range n.routes() {
		if status, p := n.ask(n.http(nil), r[0], r[1], ""); status != http.StatusUnauthorized || p.Code != problem.CertMissing {
			t.Errorf("without a certificate: %s %s: got %d %s, want %s", r[0], r[1], status, p.Code, problem.CertMissing)
		}
	}
}

func TestRolesKeepToTheirPaths(t *testing.T) {
	t.Parallel()
	n := serve(t)
	agent, person := n.http(n.north.Issue(token.Agent, "n1")), n.http(n.north.Issue(token.Subscriber, "alice"))
	checked := 0
	for _, r := range n.routes() {
		if strings.Contains(r[1], "..") || strings.Contains(r[1], "problems") {
			continue
		}
		c := agent
		switch {
		case strings.HasPrefix(r[1], "/v1/agent/"):
			c = person
		case !strings.HasPrefix(r[1], "/v1/adoptions") && !strings.HasPrefix(r[1], "/v1/nodes") &&
			!strings.HasPrefix(r[1], "/v1/find") && !strings.HasPrefix(r[1], "/v1/groups") && !strings.HasPrefix(r[1], "/v1/audit") && !strings.HasPrefix(r[1], "/v1/transfers") && !strings.HasPrefix(r[1], "/v1/lookups") && !strings.HasPrefix(r[1], "/v1/orders") &&
			!strings.HasPrefix(r[1], "/v1/events") && !strings.HasPrefix(r[1], "/v1/webhooks") && !strings.HasPrefix(r[1], "/v1/account") && !strings.HasPrefix(r[1], "/cdmi"):
			continue
		}
		checked++
		if status, p := n.ask(c, r[0], r[1], "{}"); status != http.StatusForbidden || p.Code != problem.NotPermitted {
			t.Errorf("%s %s by the wrong role: got %d %s", r[0], r[1], status, p.Code)
		}
	}
	if checked < 15 {
		t.Errorf("checked %d routes, want 15 at least", checked)
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	n := serve(t)
	alice := n.north.Issue(token.Subscriber, "alice")
	c := n.http(alice)
	id := "/v1/transfers/0192f0c1-2345-7abc-8def-0123456789ab"
	for _, tt := range []struct {
		name, method, path, body string
		want                     problem.Code
		says                     string
	}{
		{"no JSON", "POST", "/v1/transfers", "{", problem.Malformed, ""},
		{"no body", "POST", "/v1/transfers", "", problem.Malformed, ""},
		{"a list", "POST", "/v1/transfers", "[]", problem.Malformed, ""},
		{"null signatures", "POST", "/v1/transfers", `{"jws":null,"chains":null}`, problem.OrderUnsigned, ""},
		{"unknown member", "POST", "/v1/transfers", `{"jws":[],"chains":[],"sudo":1}`, problem.UnknownField, `"sudo"`},
		{"unknown member below", "POST", "/v1/lookups", `{"order":{"jwt":[]}}`, problem.UnknownField, `"order.jwt"`},
		{"other letter case", "POST", "/v1/transfers", `{"JWS":[],"chains":[]}`, problem.UnknownField, `"JWS"`},
		{"member twice", "POST", "/v1/transfers", `{"jws":[],"jws":[]}`, problem.Malformed, `"jws"`},
		{"trailing data", "POST", "/v1/transfers", `{"jws":[],"chains":[]}{}`, problem.Malformed, "after the end"},
		{"wrong type", "POST", "/v1/transfers", `{"jws":7,"chains":[]}`, problem.Malformed, `"jws"`},
		{"nested too deep", "POST", "/v1/transfers", strings.Repeat("[", 100), problem.Malformed, ""},
		{"a token of 24 MiB", "POST", "/v1/transfers", `{"jws":["` + strings.Repeat("a", 24<<20) + `"]}`, problem.TooLarge, ""},
		{"a token of 1 MiB", "POST", "/v1/transfers", `{"jws":["` + strings.Repeat("a", 1<<20) + `"],"chains":["x"]}`, problem.Malformed, ""},
		{"a body where none belongs", "POST", id + "/cancel", "{}", problem.Malformed, ""},
		{"no such transfer", "GET", id, "", problem.Hidden, ""},
		{"no such transfer to cancel", "POST", id + "/cancel", "", problem.Hidden, ""},
		{"wait too long", "GET", id + "?wait=2h", "", problem.Malformed, "wait"},
		{"wait below zero", "GET", id + "?wait=-1s", "", problem.Malformed, "wait"},
		{"after is no number", "GET", id + "?after=x", "", problem.Malformed, "after"},
		{"limit too high", "GET", "/v1/transfers?limit=100000", "", problem.Malformed, "limit"},
		{"no such path", "GET", "/v2/transfers", "", problem.NotFound, ""},
		{"no such method", "DELETE", "/v1/providers", "", problem.NotFound, ""},
	} {
		if _, p := n.ask(c, tt.method, tt.path, tt.body); p.Code != tt.want || !strings.Contains(p.Detail, tt.says) {
			t.Errorf("%s: got %s %q, want %s", tt.name, p.Code, p.Detail, tt.want)
		}
	}
}

func TestForeignTransferIsHidden(t *testing.T) {
	t.Parallel()
	n := serve(t)
	atNorth, atSouth := n.north.Issue(token.Subscriber, "alice"), n.south.Issue(token.Subscriber, "alice")
	o, so := n.order(atNorth, atSouth)
	if _, err := n.client(atSouth).Submit(t.Context(), so); err != nil { // either account may hand it in
		t.Fatal(err)
	}
	bob := n.client(n.north.Issue(token.Subscriber, "bob"))
	if _, err := bob.Submit(t.Context(), so); err == nil {
		t.Errorf("bob handed in alice's order")
	}
	for name, call := range map[string]func() error{
		"transfer": func() error { _, err := bob.Transfer(t.Context(), o.ID, 0, 0); return err },
		"cancel":   func() error { _, err := bob.Cancel(t.Context(), o.ID); return err },
		"items":    func() error { _, err := bob.Items(t.Context(), o.ID, "", ""); return err },
		"events":   func() error { _, err := bob.Events(t.Context(), o.ID, 0, 0); return err },
		"order":    func() error { _, err := bob.Order(t.Context(), o.ID); return err },
		"batches":  func() error { _, err := bob.Batches(t.Context(), o.ID, ""); return err },
	} {
		if err := call(); problem.Of(err) != problem.Hidden {
			t.Errorf("%s of another's transfer: got %v, want %s", name, err, problem.Hidden)
		}
	}
	if p, err := bob.Transfers(t.Context(), "", "", 0); err != nil || len(p.Items) != 0 {
		t.Errorf("bob's transfers: got %+v, %v, want none", p, err)
	}
	if p, err := n.client(atNorth).Transfers(t.Context(), api.Queued, "", 0); err != nil || len(p.Items) != 1 || p.Items[0].ID != o.ID {
		t.Errorf("alice's transfers: got %+v, %v, want one", p, err)
	}
}

func TestOrdersThatAreNotGood(t *testing.T) {
	t.Parallel()
	n := serve(t)
	atNorth, atSouth := n.north.Issue(token.Subscriber, "alice"), n.south.Issue(token.Subscriber, "alice")
	alice := n.client(atNorth)
	for _, tt := range []struct {
		name   string
		leaves []*certstest.Leaf
		change func(*token.Order)
		want   problem.Code
	}{
		{"signed by one account", []*certstest.Leaf{atNorth}, nil, problem.OrderUnsigned},
		{"signed by another person", []*certstest.Leaf{atNorth, n.south.Issue(token.Subscriber, "mallory")}, nil, problem.OrderUnsigned},
		{"signed with an expired certificate", []*certstest.Leaf{atNorth, n.south.Issue(token.Subscriber, "alice", certstest.Expired())}, nil, problem.CertExpired},
		{"signed by an agent", []*certstest.Leaf{atNorth, n.south.Issue(token.Agent, "s1")}, nil, problem.OrderUnsigned},
		{"of an unknown provider", []*certstest.Leaf{atNorth, atSouth}, func(o *token.Order) {
			o.To.Provider, o.Accounts[1] = "west", "spiffe://west/subscriber/alice"
		}, problem.UnknownProvider},
		{"that has ended", []*certstest.Leaf{atNorth, atSouth}, func(o *token.Order) { o.Iat, o.Exp = o.Iat-7200, o.Iat-3600 }, problem.OrderExpired},
		{"to stat", []*certstest.Leaf{atNorth}, func(o *token.Order) {
			o.Do, o.Scope, o.To, o.IfExists, o.From.Name, o.Accounts = token.Stat, token.One, token.Location{}, "", "a", o.Accounts[:1]
		}, problem.WrongStatement},
	} {
		o, _ := n.order(tt.leaves...)
		if tt.change != nil {
			tt.change(&o)
		}
		if _, err := alice.Submit(t.Context(), n.sign(o, tt.leaves...)); problem.Of(err) != tt.want {
			t.Errorf("an order %s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	if _, err := alice.Lookup(t.Context(), api.Lookup{Order: n.statOrder(atNorth)}); problem.Of(err) != problem.AgentAbsent || !strings.Contains(fmt.Sprint(err), "north") {
		t.Errorf("a lookup without an agent: got %v, want agent-absent that names north", err)
	}
}

func (n *net0) statOrder(l *certstest.Leaf) api.SignedOrder {
	o, _ := n.order(l)
	o.Do, o.Scope, o.To, o.IfExists, o.From.Name, o.Accounts = token.Stat, token.One, token.Location{}, "", "a", o.Accounts[:1]
	return n.sign(o, l)
}

func TestAdminListener(t *testing.T) {
	t.Parallel()
	n := serve(t)
	for path, want := range map[string]string{"/livez": "ok", "/healthz": "ok", "/readyz": "ok", "/readyz?verbose": "database ok", "/metrics": "consign_leaves_total"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.admin+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if err := resp.Write(&b); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !strings.Contains(b.String(), want) {
			t.Errorf("%s: got %d %s, want %q", path, resp.StatusCode, b.String(), want)
		}
	}
}
