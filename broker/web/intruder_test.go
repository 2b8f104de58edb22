package web_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// rawly sends the head of a request with a target exactly as it is, which no client would send, and returns status and body.
func (n *net0) rawly(l *certstest.Leaf, method, target string, header ...string) (int, string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{l.TLS()}}}
	c, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(n.url, "https://"))
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	head := method + " " + target + " HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n" + strings.Join(append(header, ""), "\r\n") + "\r\n"
	if _, err := io.WriteString(c, head); err != nil {
		n.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return 0, "" // it was not taken for a request
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// fortress is a broker at which root has a container north:/src with a secret in it that eve may not see, and eve a container of her own
// beside it.
func fortress(t *testing.T) (n *net0, root, eve *certstest.Leaf, ids map[string]string) {
	t.Helper()
	n = serveWith(t, tree.Config{Administrators: []token.Identity{"spiffe://north/subscriber/root"}})
	root, eve = n.north.Issue(token.Subscriber, "root"), n.north.Issue(token.Subscriber, "eve")
	c := n.client(root)
	ids = map[string]string{}
	change := func(at string, k api.NodeKind, change api.NodeChange) {
		t.Helper()
		l, err := token.ParseLocation(at)
		if err != nil {
			t.Fatal(err)
		}
		node, err := c.ChangeNode(t.Context(), l, k, change, "")
		if err != nil {
			t.Fatalf("changing %s: %v", at, err)
		}
		ids[at+string(k)] = node.ID
	}
	me := "spiffe://north/subscriber/root"
	entry := func(kind, who, flags, mask string) api.ACE {
		return api.ACE{Type: kind, Identifier: who, Flags: flags, Mask: mask}
	}
	all := entry("ALLOW", "OWNER@", "OBJECT_INHERIT,CONTAINER_INHERIT", "ALL_PERMS")
	change("north:/src/", api.ContainerNode, api.NodeChange{Owner: &me, ACL: &[]api.ACE{all}})
	hers := []api.ACE{all, entry("ALLOW", "spiffe://north/subscriber/eve", "OBJECT_INHERIT,CONTAINER_INHERIT", "ALL_PERMS")}
	change("north:/src/eve", api.ContainerNode, api.NodeChange{ACL: &hers})
	marked := api.Items{"marker": json.RawMessage(`"fort knox"`)}
	for _, k := range []api.NodeKind{api.ContainerNode, api.ObjectNode} {
		change("north:/src/secret", k, api.NodeChange{Set: marked})
		change("north:/src/secret/deep", k, api.NodeChange{Set: marked})
	}
	change("north:/src/eve", api.ObjectNode, api.NodeChange{Set: marked}) // of the name of her container
	return n, root, eve, ids
}

// TestOddPathsOfCDMI: however a path is spelled, with whatever identifier, eve gets nothing of what she may not see, and no answer tells whether it is there.
func TestOddPathsOfCDMI(t *testing.T) {
	t.Parallel()
	n, _, eve, ids := fortress(t)
	secret, object := ids["north:/src/secret"+"container"], ids["north:/src/secret"+"object"]
	own := ids["north:/src/eve"+"container"]
	if secret == "" || object == "" || own == "" {
		t.Fatalf("got the identifiers %v", ids)
	}
	cdmi := []string{"X-CDMI-Specification-Version: 1.1.1", "Accept: */*"}
	if status, body := n.rawly(eve, "GET", "/cdmi/north/src/eve/?metadata;objectID", cdmi...); status != http.StatusOK || !strings.Contains(body, own) {
		t.Fatalf("her own container: got %d %s", status, body)
	}
	for _, target := range []string{
		"/cdmi/north/src/secret", "/cdmi/north/src/secret/", "/cdmi/north/src/secret/?metadata", "/cdmi/north/src/secret?metadata:marker",
		"/cdmi/north/src/%73ecret/", "/cdmi/north/src/secret%2F", "/cdmi/north/src%2Fsecret/", "/cdmi/north%2Fsrc/secret/", "/cdmi%2Fnorth/src/secret/", "/%63dmi/north/src/secret/",
		"/cdmi/north/src//secret/", "/cdmi//north/src/secret/", "//cdmi/north/src/secret/", "/cdmi/north/src/secret//", "/cdmi/north/src/./secret/",
		"/cdmi/north/src/eve/../secret/", "/cdmi/north/src/eve/%2e%2e/secret/", "/cdmi/north/src/eve%2F..%2Fsecret/", "/cdmi/north/src/eve/..%2fsecret/", "/v1/../cdmi/north/src/secret/",
		"/cdmi/../cdmi/north/src/secret/", "/cdmi/north/src/eve/%252e%252e/secret/", "/cdmi/north/src/secret%00/", "/cdmi/north/src/secret/%00", "/cdmi/north/src/secret%20/",
		"/cdmi/north/src/%c0%af/secret/", "/cdmi/north/src/%ff/", "/cdmi/north/src/secret/.", "/cdmi/north/src/eve/..", "/cdmi/NORTH/src/secret/", "/cdmi/north/SRC/secret/",
		"/CDMI/north/src/secret/", "/cdmi/north/src/secret;x/", "/cdmi/north/src/secret/;metadata", `/cdmi/north/src\secret/`, "/cdmi/north/src/secret/deep", "/cdmi/north/src/secret/deep/",
		"https://hub/cdmi/north/src/secret/", "/cdmi/cdmi_objectid/" + secret + "/", "/cdmi/cdmi_objectid/" + secret, "/cdmi/cdmi_objectid/" + strings.ToLower(secret) + "/deep",
		"/cdmi/cdmi_objectid/" + object, "/cdmi/cdmi_objectid/" + own + "/../secret/", "/cdmi/cdmi_objectid/" + own + "/%2e%2e/secret/", "/cdmi/cdmi_objectid/" + own + "%2f..%2fsecret/",
		"/cdmi/cdmi_objectid/" + secret + "?metadata:marker", "/cdmi/cdmi_objectid/" + object + "/deep", "/cdmi/cdmi_objectid//" + secret + "/",
		"/cdmi/north/src/eve", "/cdmi/cdmi_objectid/" + ids["north:/src/eve"+"object"] + "x", "/cdmi/north/src/eve%CC%81/",
	} {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
			status, body := n.rawly(eve, method, target, cdmi...)
			if status < 300 && status != 0 || strings.Contains(body, "fort knox") {
				t.Errorf("%s %s: got %d %s", method, target, status, body)
			}
		}
	}
	// The same question about what is there and what is not has the same answer, but for the name in it.
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		for _, end := range []string{"", "/", "/deep", "/deep/", "?metadata", "/?children"} {
			there, bodyThere := n.rawly(eve, method, "/cdmi/north/src/secret"+end, cdmi...)
			none, bodyNone := n.rawly(eve, method, "/cdmi/north/src/nobody"+end, cdmi...)
			if there != none || strings.ReplaceAll(bodyThere, "secret", "nobody") != bodyNone {
				t.Errorf("%s of %q tells whether it is there:\n%d %s\n%d %s", method, end, there, bodyThere, none, bodyNone)
			}
		}
	}
	nothing := secret[:len(secret)-2] + "00"
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		for _, id := range []string{secret, object} {
			for _, end := range []string{"", "/", "/deep", "/deep/", "?metadata", "/?children", "?bogus", "/?metadata:a;metadata:a"} {
				there, bodyThere := n.rawly(eve, method, "/cdmi/cdmi_objectid/"+id+end, cdmi...)
				none, bodyNone := n.rawly(eve, method, "/cdmi/cdmi_objectid/"+nothing+end, cdmi...)
				if there != none || strings.ReplaceAll(bodyThere, id, nothing) != bodyNone {
					t.Errorf("%s of an identifier and %q tells whether it is there:\n%d %s\n%d %s", method, end, there, bodyThere, none, bodyNone)
				}
			}
		}
	}
}

// TestOddAddressesOfNodes: the same at the native surface, and a name has one spelling: what is not in NFC, ends in a slash too many or has a case of its own is no
// other way to a place.
func TestOddAddressesOfNodes(t *testing.T) {
	t.Parallel()
	n, _, eve, _ := fortress(t)
	c := n.http(eve)
	for _, at := range []string{
		"north:/src/secret", "north:/src/secret/", "north:/src/secret//", "north:/src//secret", "north:/src/./secret", "north:/src/eve/../secret", "north:/src/secret/deep",
		"NORTH:/src/secret", "north:/src/secre\u0301t", "north:/src/secret\x00", "north:/src/secret\n", "north:src/secret", "north://src/secret", "north:/src/secret ",
		"north:/src\\secret", "north:/src/eve%2F..%2Fsecret", "south:/../north/src/secret",
	} {
		for _, kind := range []string{"", "object", "container", "Object", "container,object"} {
			for _, path := range []string{"/v1/nodes?at=%s&kind=%s", "/v1/nodes/explain?at=%s&kind=%s&who=" + url.QueryEscape("spiffe://north/subscriber/root") + "&want=READ_OBJECT", "/v1/audit?place=%s&x=%s"} {
				status, p := n.ask(c, http.MethodGet, fmt.Sprintf(path, url.QueryEscape(at), url.QueryEscape(kind)), "")
				if status < 400 || p.Code == "" || strings.Contains(p.Detail, "fort knox") {
					t.Errorf("%s of %q, %q: got %d %+v", path, at, kind, status, p)
				}
			}
			status, p := n.ask(c, http.MethodPatch, "/v1/nodes?at="+url.QueryEscape(at)+"&kind="+url.QueryEscape(kind), `{"set":{"a":"b"}}`)
			if status < 400 || p.Code == "" {
				t.Errorf("changing %q, %q: got %d %+v", at, kind, status, p)
			}
		}
	}
	// Her rights in her container are none on the object that has its name.
	if status, p := n.ask(c, http.MethodGet, "/v1/nodes?at="+url.QueryEscape("north:/src/eve")+"&kind=object", ""); status != http.StatusForbidden && p.Code != problem.Hidden {
		t.Errorf("the object of the name of her container: got %d %+v", status, p)
	}
	if status, p := n.ask(c, http.MethodGet, "/v1/nodes?at="+url.QueryEscape("north:/src/eve"), ""); status < 400 { // the object comes before the container
		t.Errorf("without a kind: got %d %+v", status, p)
	}
}

// TestIfMatchRace: of any number of changes that begin from one state, over both surfaces at once, exactly one is made.
func TestIfMatchRace(t *testing.T) {
	t.Parallel()
	n, root, _, _ := fortress(t)
	c := n.client(root)
	at := token.Location{Provider: "north", Container: "src", Name: "secret"}
	node, err := c.Node(t.Context(), at, api.ContainerNode)
	if err != nil {
		t.Fatal(err)
	}
	const racers = 16
	var mu sync.Mutex
	won := []string{}
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			mine := fmt.Sprintf("racer %d", i)
			if i%2 == 0 {
				_, err := c.ChangeNode(t.Context(), at, api.ContainerNode, api.NodeChange{Set: api.Items{"marker": json.RawMessage(`"` + mine + `"`)}}, node.ETag)
				if err != nil && problem.Of(err) != problem.Outdated {
					t.Errorf("%s: %v", mine, err)
				}
				if err != nil {
					return
				}
			} else {
				status, p := n.rawPut(root, "/cdmi/north/src/secret/?metadata:marker", `{"metadata":{"marker":"`+mine+`"}}`, node.ETag)
				if status != http.StatusNoContent {
					if status != http.StatusPreconditionFailed {
						t.Errorf("%s: got %d %s", mine, status, p)
					}
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			won = append(won, mine)
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Fatalf("got %d winners %q, want one", len(won), won)
	}
	if node, err = c.Node(t.Context(), at, api.ContainerNode); err != nil || string(node.User["marker"]) != `"`+won[0]+`"` {
		t.Errorf("got %s, %v, want what %s wrote", node.User["marker"], err, won[0])
	}
}

// rawPut makes a conditional change over CDMI.
func (n *net0) rawPut(l *certstest.Leaf, target, body, tag string) (int, string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), http.MethodPut, n.url+target, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("X-CDMI-Specification-Version", "1.1.1")
	req.Header.Set("Content-Type", "application/cdmi-container")
	req.Header.Set("If-Match", `"`+tag+`"`)
	resp, err := n.http(l).Do(req)
	if err != nil {
		n.t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Error(err)
	}
	return resp.StatusCode, string(data)
}

// TestAdministratorOfAnotherProvider: who administers north is a stranger at south, at every door.
func TestAdministratorOfAnotherProvider(t *testing.T) {
	t.Parallel()
	n := serveWith(t, tree.Config{Administrators: []token.Identity{"spiffe://north/subscriber/root", "spiffe://south/subscriber/root"}})
	north, south := n.north.Issue(token.Subscriber, "root"), n.south.Issue(token.Subscriber, "root")
	dst := token.Location{Provider: "south", Container: "dst"}
	owner, name := "spiffe://south/subscriber/root", "spiffe://north/subscriber/root"
	mine := []api.ACE{{Type: "ALLOW", Identifier: "OWNER@", Flags: "OBJECT_INHERIT,CONTAINER_INHERIT", Mask: "ALL_PERMS"}}
	was, err := n.client(south).ChangeNode(t.Context(), dst, api.ContainerNode, api.NodeChange{Owner: &owner, ACL: &mine, Set: api.Items{"a": json.RawMessage(`"b"`)}}, "")
	if err != nil {
		t.Fatal(err)
	}
	c := n.http(north)
	at := url.QueryEscape("south:/dst/")
	for _, tt := range []struct{ method, path, body string }{
		{"GET", "/v1/nodes?kind=container&at=" + at, ""},
		{"PATCH", "/v1/nodes?kind=container&at=" + at, `{"owner":"` + name + `"}`},
		{"PATCH", "/v1/nodes?kind=container&at=" + at, `{"acl":[]}`},
		{"PATCH", "/v1/nodes?kind=container&at=" + at, `{"set":{"a":"c"}}`},
		{"PATCH", "/v1/nodes?kind=object&at=" + at + "x", `{"set":{"cdmi_hold_id":["h"]}}`},
		{"PATCH", "/v1/nodes?kind=container&at=" + at, `{"release_hold":"h"}`},
		{"GET", "/v1/nodes/explain?kind=container&want=READ_OBJECT&at=" + at + "&who=" + url.QueryEscape(owner), ""},
		{"PATCH", "/v1/groups/south/staff", `{"add":["` + name + `"]}`},
		{"PATCH", "/v1/groups/south/subscribers", `{"add":["` + name + `"]}`},
		{"PATCH", "/v1/groups/south/ADMINUSERS@", `{"add":["` + name + `"]}`},
		{"DELETE", "/v1/groups/south/staff", ""},
		{"GET", "/v1/groups/south/staff", ""},
		{"GET", "/v1/groups/south/ADMINUSERS@", ""},
		{"GET", "/v1/audit?place=" + url.QueryEscape("south:"), ""},
		{"GET", "/v1/audit?place=" + at, ""},
		{"GET", "/v1/audit/runs?place=" + url.QueryEscape("south:"), ""},
		{"GET", "/v1/audit/runs/1?place=" + at, ""},
	} {
		if status, p := n.ask(c, tt.method, tt.path, tt.body); status != http.StatusForbidden && status != http.StatusNotFound && p.Code != problem.Malformed || status < 400 {
			t.Errorf("%s %s %s: got %d %+v, want a refusal", tt.method, tt.path, tt.body, status, p)
		}
	}
	for _, target := range []string{"/cdmi/south/dst/", "/cdmi/south/dst/new/", "/cdmi/cdmi_objectid/" + was.ID + "/"} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			if status, body := n.rawly(north, method, target, "X-CDMI-Specification-Version: 1.1.1", "Accept: */*"); status < 400 {
				t.Errorf("%s %s: got %d %s", method, target, status, body)
			}
		}
	}
	if page, err := n.client(north).Find(t.Context(), api.Search{At: token.Location{Provider: "south"}, Name: "**"}); err != nil || len(page.Items) > 0 || page.Next != "" {
		t.Errorf("finding: got %+v, %v", page, err)
	}
	if is, err := n.client(south).Node(t.Context(), dst, api.ContainerNode); err != nil || is.ETag != was.ETag {
		t.Errorf("afterwards: got %+v, %v, want what it was", is, err)
	}
}
