package token_test

import (
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
	"github.com/consign-transfer/consign/token/tokentest"
)

func TestOrderCheck(t *testing.T) {
	t.Parallel()
	type edit func(*token.Order)
	sameProvider := func(o *token.Order) {
		o.To.Provider, o.Accounts = "a.example", []token.Identity{tokentest.AtA}
	}
	list, stat, mk := tokentest.Asking(token.List), tokentest.Asking(token.Stat), tokentest.Asking(token.Make)
	for _, tc := range []struct {
		name string
		base token.Order
		edit edit
		want problem.Code
	}{
		{"tree", tokentest.Order(), func(*token.Order) {}, ""},
		{"object", tokentest.OneObject(), func(*token.Order) {}, ""},
		{"list", list, func(*token.Order) {}, ""},
		{"stat", stat, func(*token.Order) {}, ""},
		{"make", mk, func(*token.Order) {}, ""},
		{"erase of an object", tokentest.Erasure(), func(*token.Order) {}, ""},
		{"erase of an empty container", tokentest.Erasure(), func(o *token.Order) { o.Version = "" }, ""},
		{"whole containers", tokentest.Order(), func(o *token.Order) { o.From.Name, o.To.Name = "", "" }, ""},
		{"one provider, one account", tokentest.Order(), sameProvider, ""},
		{"400 days", tokentest.Order(), func(o *token.Order) { o.Exp = o.Iat + 400*86400 }, ""},
		{"list with filters and limit", list, func(o *token.Order) { o.Limits.Items, o.Filters = 5, tokentest.Order().Filters }, ""},

		{"no id", tokentest.Order(), func(o *token.Order) { o.ID = "" }, problem.Malformed},
		{"no iat", tokentest.Order(), func(o *token.Order) { o.Iat = 0 }, problem.Malformed},
		{"negative iat", tokentest.Order(), func(o *token.Order) { o.Iat = -1 }, problem.Malformed},
		{"ends at once", tokentest.Order(), func(o *token.Order) { o.Exp = o.Iat }, problem.Malformed},
		{"401 days", tokentest.Order(), func(o *token.Order) { o.Exp = o.Iat + 400*86400 + 1 }, problem.Malformed},
		{"span that overflows", tokentest.Order(), func(o *token.Order) { o.Iat, o.Exp = 1, 1<<62 }, problem.Malformed},
		{"no verb", tokentest.Order(), func(o *token.Order) { o.Do = "" }, problem.Malformed},
		{"verb of a capability", tokentest.Order(), func(o *token.Order) { o.Do = token.Read }, problem.Malformed},
		{"verb to come", tokentest.Order(), func(o *token.Order) { o.Do = "move" }, problem.Malformed},
		{"a copy that would erase", tokentest.Order(), func(o *token.Order) { o.Do = token.Erase }, problem.Malformed},
		{"erase of a tree", tokentest.Erasure(), func(o *token.Order) { o.Scope = token.Tree }, problem.Malformed},
		{"erase of a whole container", tokentest.Erasure(), func(o *token.Order) { o.To.Name = "" }, problem.BadName},
		{"erase from a source", tokentest.Erasure(), func(o *token.Order) { o.From = tokentest.Order().From }, problem.Malformed},
		{"erase with a digest", tokentest.Erasure(), func(o *token.Order) { o.Digest = tokentest.OneObject().Digest }, problem.Malformed},
		{"erase with filters", tokentest.Erasure(), func(o *token.Order) { o.Filters = tokentest.Order().Filters }, problem.Malformed},
		{"erase of a number of items", tokentest.Erasure(), func(o *token.Order) { o.Limits.Items = 2 }, problem.Malformed},
		{"erase again and again", tokentest.Erasure(), func(o *token.Order) { o.Period = 3600 }, problem.Malformed},
		{"erase by the other account", tokentest.Erasure(), func(o *token.Order) { o.Accounts = []token.Identity{tokentest.AtA} }, problem.Malformed},
		{"version with a new line", tokentest.Erasure(), func(o *token.Order) { o.Version = "a\nb" }, problem.Malformed},
		{"long version", tokentest.Erasure(), func(o *token.Order) { o.Version = token.Version(strings.Repeat("v", 257)) }, problem.Malformed},
		{"version of a make", mk, func(o *token.Order) { o.Version = "v" }, problem.Malformed},
		{"version of a copy", tokentest.Order(), func(o *token.Order) { o.Version = "v" }, problem.Malformed},
		{"no scope", tokentest.Order(), func(o *token.Order) { o.Scope = "" }, problem.Malformed},
		{"list of one", list, func(o *token.Order) { o.Scope = token.One }, problem.Malformed},
		{"stat of a tree", stat, func(o *token.Order) { o.Scope = token.Tree }, problem.Malformed},
		{"copy to nowhere", tokentest.Order(), func(o *token.Order) { o.To = token.Location{} }, problem.BadName},
		{"list with a destination", list, func(o *token.Order) { o.To = tokentest.Order().To }, problem.Malformed},
		{"make with a source", mk, func(o *token.Order) { o.From = tokentest.Order().From }, problem.Malformed},
		{"list nothing", list, func(o *token.Order) { o.From = token.Location{} }, problem.BadName},
		{"up", tokentest.Order(), func(o *token.Order) { o.From.Name = "a/../b" }, problem.BadName},
		{"one without a name", tokentest.OneObject(), func(o *token.Order) { o.To.Name = "" }, problem.BadName},
		{"no if_exists", tokentest.Order(), func(o *token.Order) { o.IfExists = "" }, problem.Malformed},
		{"overwrite", tokentest.Order(), func(o *token.Order) { o.IfExists = "overwrite" }, problem.Malformed},
		{"if_exists of a list", list, func(o *token.Order) { o.IfExists = token.Fail }, problem.Malformed},
		{"digest of a tree", tokentest.Order(), func(o *token.Order) { o.Digest = tokentest.OneObject().Digest }, problem.Malformed},
		{"digest of a stat", stat, func(o *token.Order) { o.Digest = tokentest.OneObject().Digest }, problem.Malformed},
		{"bad digest", tokentest.OneObject(), func(o *token.Order) { o.Digest = "md5:0" }, problem.Malformed},
		{"no accounts", tokentest.Order(), func(o *token.Order) { o.Accounts = nil }, problem.Malformed},
		{"one account too few", tokentest.Order(), func(o *token.Order) { o.Accounts = o.Accounts[:1] }, problem.Malformed},
		{"unsorted", tokentest.Order(), func(o *token.Order) { o.Accounts = []token.Identity{tokentest.AtB, tokentest.AtA} }, problem.Malformed},
		{"twice", tokentest.Order(), func(o *token.Order) { o.Accounts = []token.Identity{tokentest.AtA, tokentest.AtA} }, problem.Malformed},
		{"two at one provider", tokentest.Order(), func(o *token.Order) {
			o.Accounts = []token.Identity{tokentest.AtA, "spiffe://a.example/subscriber/bob"}
		}, problem.Malformed},
		{"two accounts, one provider", tokentest.Order(), func(o *token.Order) { o.To.Provider = "a.example" }, problem.Malformed},
		{"an agent as account", tokentest.Order(), func(o *token.Order) { o.Accounts = []token.Identity{tokentest.AgentA, tokentest.AtB} }, problem.Malformed},
		{"account elsewhere", tokentest.Order(), func(o *token.Order) {
			o.Accounts = []token.Identity{tokentest.AtA, "spiffe://c.example/subscriber/ada"}
		}, problem.Malformed},
		{"no identity", tokentest.Order(), func(o *token.Order) { o.Accounts = []token.Identity{"ada", tokentest.AtB} }, problem.Malformed},
		{"negative limit", tokentest.Order(), func(o *token.Order) { o.Limits.Rate = -1 }, problem.Malformed},
		{"rate of a list", list, func(o *token.Order) { o.Limits.Rate = 1 }, problem.Malformed},
		{"items of a stat", stat, func(o *token.Order) { o.Limits.Items = 1 }, problem.Malformed},
		{"filters of a make", mk, func(o *token.Order) { o.Filters = tokentest.Order().Filters }, problem.Malformed},
		{"65 filters", tokentest.Order(), func(o *token.Order) { o.Filters = make([]token.Filter, 65) }, problem.TooLarge},
		{"bad filter", tokentest.Order(), func(o *token.Order) { o.Filters = []token.Filter{{Do: "omit", Match: "*"}} }, problem.Malformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			o := tc.base
			tc.edit(&o)
			wantCode(t, o.Check(), tc.want)
			if b, err := o.Payload(); problem.Of(err) != tc.want || (b == nil) != (err != nil) {
				t.Errorf("Payload: got %s (%v), want %q", b, err, tc.want)
			}
		})
	}
}

func TestOrderPayloadLimit(t *testing.T) {
	t.Parallel()
	o := tokentest.Order()
	o.Filters = nil
	for range token.MaxFilters {
		o.Filters = append(o.Filters, token.Filter{Do: token.Include, Match: strings.Repeat("x", 300)})
	}
	wantCode(t, o.Check(), "")
	if b, err := o.Payload(); problem.Of(err) != problem.TooLarge || b != nil {
		t.Errorf("got %d bytes (%v), want too-large", len(b), err)
	}
	o = tokentest.Order()
	o.Limits.Items = 1 << 53
	_, err := o.Payload()
	wantCode(t, err, problem.Malformed)
}

func TestOrderCheckTime(t *testing.T) {
	t.Parallel()
	o := tokentest.Order()
	for _, tc := range []struct {
		name string
		at   time.Time
		want problem.Code
	}{
		{"61 s early", time.Unix(o.Iat-61, 0), problem.OrderNotYet},
		{"60 s early", time.Unix(o.Iat-60, 0), ""},
		{"last nanosecond", time.Unix(o.Exp, -1), ""},
		{"at the end", time.Unix(o.Exp, 0), problem.OrderExpired},
		{"long after", time.Unix(o.Exp*2, 0), problem.OrderExpired},
	} {
		if got := problem.Of(o.CheckTime(tc.at)); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestOrderAccount(t *testing.T) {
	t.Parallel()
	o := tokentest.Order()
	if id, ok := o.Account("b.example"); id != tokentest.AtB || !ok {
		t.Errorf("got %q %v, want %q", id, ok, tokentest.AtB)
	}
	if id, ok := o.Account("c.example"); id != "" || ok {
		t.Errorf("got %q %v, want none", id, ok)
	}
}

func TestDestination(t *testing.T) {
	t.Parallel()
	tree := func(from, to token.ObjectName, f ...token.Filter) token.Order {
		o := tokentest.Order()
		o.From.Name, o.To.Name, o.Filters = from, to, f
		return o
	}
	one := func(f ...token.Filter) token.Order {
		o := tokentest.OneObject()
		o.Filters = f
		return o
	}
	no := func(p string) token.Filter { return token.Filter{Do: token.Exclude, Match: p} }
	yes := func(p string) token.Filter { return token.Filter{Do: token.Include, Match: p} }
	for _, tc := range []struct {
		name  string
		order token.Order
		src   token.ObjectName
		want  token.ObjectName
		code  problem.Code
	}{
		{"below both", tree("x", "y"), "x/a/b", "y/a/b", ""},
		{"from the whole", tree("", "y"), "a/b", "y/a/b", ""},
		{"to the whole", tree("x", ""), "x/a", "a", ""},
		{"whole to whole", tree("", ""), "a", "a", ""},
		{"the root itself", tree("x", "y"), "x", "", problem.OrderNotCovered},
		{"sister with the same start", tree("x", "y"), "xx/a", "", problem.OrderNotCovered},
		{"elsewhere", tree("x", "y"), "z/a", "", problem.OrderNotCovered},
		{"in other case", tree("x", "y"), "X/a", "", problem.OrderNotCovered},
		{"up and out", tree("x", "y"), "x/../z", "", problem.BadName},
		{"no name", tree("x", "y"), "", "", problem.BadName},
		{"trailing slash", tree("x", "y"), "x/", "", problem.BadName},
		{"grows too long", tree("x", token.ObjectName(strings.Repeat("y", 1000))), "x/" + token.ObjectName(strings.Repeat("a", 30)), "", problem.BadName},
		{"excluded", tree("x", "y", no("*.tmp")), "x/a.tmp", "", problem.OrderNotCovered},
		{"not excluded", tree("x", "y", no("*.tmp")), "x/a.txt", "y/a.txt", ""},
		{"first match wins", tree("x", "y", yes("keep.tmp"), no("*.tmp")), "x/keep.tmp", "y/keep.tmp", ""},
		{"only what is included", tree("x", "y", yes("*.h5"), no("**")), "x/a/b.h5", "y/a/b.h5", ""},
		{"all else excluded", tree("x", "y", yes("*.h5"), no("**")), "x/a/b.txt", "", problem.OrderNotCovered},
		{"filters do not see the root", tree("tmp", "y", no("tmp/**")), "tmp/a", "y/a", ""},
		{"one", one(), "2026/run/0001.h5", "one.h5", ""},
		{"one, another", one(), "2026/run/0002.h5", "", problem.OrderNotCovered},
		{"one, below it", one(), "2026/run/0001.h5/x", "", problem.OrderNotCovered},
		{"one, excluded by its last segment", one(no("/0001.*")), "2026/run/0001.h5", "", problem.OrderNotCovered},
		{"one, its path is not filtered", one(no("run/**")), "2026/run/0001.h5", "one.h5", ""},
		{"a list", tokentest.Asking(token.List), "2026/a", "", problem.OrderNotCovered},
		{"no order", token.Order{}, "a", "", problem.OrderNotCovered},
		{"no scope", token.Order{Do: token.Copy}, "a", "", problem.OrderNotCovered},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := tc.order.Destination(tc.src)
			if got != tc.want || problem.Of(err) != tc.code {
				t.Errorf("got %q (%v), want %q %q", got, err, tc.want, tc.code)
			}
		})
	}
}

func TestSelects(t *testing.T) {
	t.Parallel()
	list := tokentest.Asking(token.List)
	list.Filters = []token.Filter{{Do: token.Exclude, Match: "*.tmp"}}
	wantCode(t, list.Selects("2026/a"), "")
	wantCode(t, list.Selects("2026/a.tmp"), problem.OrderNotCovered)
	wantCode(t, list.Selects("2027/a"), problem.OrderNotCovered)
	wantCode(t, tokentest.Asking(token.Make).Selects("2026/a"), problem.OrderNotCovered)
	wantCode(t, token.Order{}.Selects("a"), problem.OrderNotCovered)
}

// TestCovers is what stops a broker that renames, adds or swaps.
func TestCovers(t *testing.T) {
	t.Parallel()
	for i, it := range tokentest.Manifest().Items {
		if err := tokentest.Order().Covers(it); err != nil {
			t.Errorf("item %d: got %v, want nil", i, err)
		}
	}
	one := tokentest.OneObject()
	exact := token.Item{Src: one.From.Name, Dst: one.To.Name, Digest: one.Digest}
	wantCode(t, one.Covers(exact), "")
	for name, edit := range map[string]func(*token.Item){
		"renamed":        func(it *token.Item) { it.Dst = "other.h5" },
		"other object":   func(it *token.Item) { it.Src = "2026/run/0002.h5" },
		"no digest":      func(it *token.Item) { it.Digest = "" },
		"other digest":   func(it *token.Item) { it.Digest = "blake3:" + token.Digest(strings.Repeat("0", 64)) },
		"negative size":  func(it *token.Item) { it.Size = -1 },
		"no destination": func(it *token.Item) { it.Dst = "" },
	} {
		it := exact
		edit(&it)
		if got := problem.Of(one.Covers(it)); got != problem.OrderNotCovered {
			t.Errorf("%s: got %q, want %q", name, got, problem.OrderNotCovered)
		}
	}
	big := tokentest.Order()
	big.Limits.Bytes = 10
	it := tokentest.Manifest().Items[0]
	it.Size = 10
	wantCode(t, big.Covers(it), "")
	it.Size = 11
	wantCode(t, big.Covers(it), problem.OrderNotCovered)
}
