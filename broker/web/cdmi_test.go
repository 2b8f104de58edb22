package web_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// cdmi asks for a path of CDMI, and returns the answer with its body.
func (n *net0) cdmi(c *http.Client, method, path string) (*http.Response, string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, n.url+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("X-CDMI-Specification-Version", "1.1.1")
	resp, err := c.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp, string(data)
}

// TestCDMIOverTheWire: paths and queries of CDMI come to it as they are, and its failures are problems.
func TestCDMIOverTheWire(t *testing.T) {
	t.Parallel()
	n := serve(t)
	agent := n.client(n.south.Issue(token.Agent, "s1"))
	if _, err := agent.Hello(t.Context(), api.Hello{Listen: []string{}, Held: []api.Ref{}, Exports: []api.Export{{Container: "dst", Read: true}}}); err != nil {
		t.Fatal(err)
	}
	c := n.http(n.south.Issue(token.Subscriber, "alice"))
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, tt := range []struct {
		method, path string
		status       int
		says         string
	}{
		{"GET", "/cdmi/?objectName;children", 200, `{"objectName":"/cdmi/","children":["north/","south/"]}`},
		{"GET", "/cdmi/south/?children", 200, `{"children":["dst/"]}`},
		{"GET", "/cdmi/south/dst/?objectName;metadata:cdmi_owner", 200, `{"objectName":"dst/","metadata":{}}`},
		{"HEAD", "/cdmi/south/dst/?objectName", 200, ""},
		{"GET", "/cdmi", 301, ""},
		{"GET", "/cdmi/south/dst", 301, ""},
		{"GET", "/cdmi//south/", 400, `"bad-name"`},
		{"GET", "/cdmi/south/../north/", 400, `"bad-name"`},
		{"GET", "/cdmi/%2e%2e/v1/version", 400, `"bad-name"`},
		{"GET", "/%63dmi/south/", 404, `"not-found"`},
		{"GET", "/cdmi/south/dst/x", 403, `"refused-by-policy"`},
		{"PUT", "/cdmi/south/dst/x/", 400, `"malformed"`},
		{"POST", "/cdmi/south/dst/", 400, `"not-offered"`},
		{"DELETE", "/cdmi/south/dst/", 400, `"not-offered"`},
		{"GET", "/cdmi/south/none/", 404, `"unknown-container"`},
		{"GET", "/cdmi/south/dst/?metadata:" + strings.Repeat("x;metadata:y", 300), 400, ""},
	} {
		resp, body := n.cdmi(c, tt.method, tt.path)
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.says) {
			t.Errorf("%s %s: got %d %s, want %d %s", tt.method, tt.path, resp.StatusCode, body, tt.status, tt.says)
		}
		if ct := resp.Header.Get("Content-Type"); tt.status >= 400 && (ct != "application/problem+json" || !strings.Contains(body, `"status":`)) {
			t.Errorf("%s %s: got the type %q: %s", tt.method, tt.path, ct, body)
		}
	}
	if resp, _ := n.cdmi(n.http(nil), "GET", "/cdmi/"); resp.StatusCode != 401 || resp.Header.Get("WWW-Authenticate") == "" {
		t.Errorf("without a certificate: got %d %v", resp.StatusCode, resp.Header)
	}
	if resp, body := n.cdmi(n.http(n.south.Issue(token.Agent, "s1")), "GET", "/cdmi/"); resp.StatusCode != 403 || !strings.Contains(body, string(problem.NotPermitted)) {
		t.Errorf("an agent: got %d %s", resp.StatusCode, body)
	}
}
