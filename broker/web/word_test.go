package web_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestWhoCannotSign: what a client with a certificate and no library sends, and what comes of it.
func TestWhoCannotSign(t *testing.T) {
	t.Parallel()
	n := serve(t)
	c := n.http(n.north.Issue(token.Subscriber, "alice"))
	o, _ := n.order()
	two, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	o.To.Provider, o.Accounts = "north", o.Accounts[:1]
	one, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, body string
		want       problem.Code
		says       string
	}{
		{"an order of the caller alone", `{"claims":` + string(one) + `}`, "", ""},
		{"the same once more", `{"claims":` + string(one) + `}`, "", ""},
		{"an order of an account that is not linked", `{"claims":` + string(two) + `}`, problem.NotLinked, "spiffe://south/subscriber/alice"},
		{"no claims", `{"claims":null}`, problem.OrderUnsigned, ""},
		{"empty claims", `{"claims":{}}`, problem.Malformed, ""},
		{"a claim that is none", `{"claims":` + strings.Replace(string(one), "{", `{"sudo":true,`, 1) + `}`, problem.UnknownField, `"claims.sudo"`},
		{"a claim twice", `{"claims":` + strings.Replace(string(one), "{", `{"do":"list",`, 1) + `}`, problem.Malformed, `"claims.do"`},
		{"the word of a broker", `{"session":"e30.e30.e30"}`, problem.WrongStatement, "taken from nobody"},
	} {
		status, p := n.ask(c, http.MethodPost, "/v1/transfers", tt.body)
		if p.Code != tt.want || !strings.Contains(p.Detail, tt.says) || tt.want == "" && status >= 300 {
			t.Errorf("%s: got %d %s %q, want %q with %q", tt.name, status, p.Code, p.Detail, tt.want, tt.says)
		}
	}
	bob := n.http(n.north.Issue(token.Subscriber, "bob"))
	if _, p := n.ask(bob, http.MethodPost, "/v1/transfers", `{"claims":`+string(one)+`}`); p.Code != problem.Hidden {
		t.Errorf("another's order that was accepted: got %s %q, want %q", p.Code, p.Detail, problem.Hidden)
	}
}
