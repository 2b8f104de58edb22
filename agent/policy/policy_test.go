package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/consign-transfer/consign/agent/policy"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	alice = token.Identity("spiffe://north/subscriber/alice")
	bob   = token.Identity("spiffe://north/subscriber/bob")
	carol = token.Identity("spiffe://north/subscriber/carol")
	hub   = token.Identity("spiffe://hub/broker/main")
	other = token.Identity("spiffe://hub/broker/other")
)

func who(ws ...policy.Who) []policy.Who        { return ws }
func may(rs ...policy.Right) []policy.Right    { return rs }
func at(ps ...token.Provider) []token.Provider { return ps }

// lab is a policy with a rule of each kind.
func lab(t *testing.T) *policy.Policy {
	t.Helper()
	p, err := policy.New("north", []policy.Container{
		{Name: "lab", Session: []token.Identity{hub}, Rules: []policy.Rule{
			{Who: who("group:staff"), May: may(policy.Read, policy.List), Limits: policy.Limits{Object: 1000}},
			{Who: who(policy.Everyone), May: may(policy.List), Below: "public"},
			{Who: who("spiffe://north/subscriber/bob"), May: may(policy.Read), Below: "public/open", To: at("south")},
			{Who: who("spiffe://north/subscriber/carol"), May: may(policy.Create), Below: "in/carol", From: at("south", "east"), Limits: policy.Limits{Items: 2, Bytes: 100}},
		}},
		{Name: "drop", Brokers: []token.Identity{hub}, Rules: []policy.Rule{{Who: who(policy.Everyone), May: may(policy.Create), Below: "box"}}},
		{Name: "none"},
	}, policy.Groups{"staff": {alice}, "empty": {}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRules(t *testing.T) {
	t.Parallel()
	p := lab(t)
	for _, tt := range []struct {
		about   string
		account token.Identity
		right   policy.Right
		at      string // container/name
		peer    token.Provider
		size    int64
		want    problem.Code
		says    string
	}{
		{"a member of a group reads", alice, policy.Read, "lab/x/y", "south", 5, "", ""},
		{"a member of a group lists all", alice, policy.List, "lab", "", 0, "", ""},
		{"the limit is still allowed", alice, policy.Read, "lab/x", "south", 1000, "", ""},
		{"a large object", alice, policy.Read, "lab/x", "south", 1001, problem.PolicyRefused, "max_object"},
		{"a right that the rule does not give", alice, policy.Create, "lab/x", "south", 5, problem.NotPermitted, string(alice) + ` may not create objects below "lab" (needs create)`},
		{"everyone lists below a prefix", carol, policy.List, "lab/public/x", "", 0, "", ""},
		{"the prefix itself", carol, policy.List, "lab/public", "", 0, "", ""},
		{"above the prefix", carol, policy.List, "lab", "", 0, problem.Hidden, string(carol)},
		{"beside the prefix, by letters", carol, policy.List, "lab/publicly", "", 0, problem.Hidden, "lab/publicly"},
		{"may list there, may not read", carol, policy.Read, "lab/public/x", "south", 5, problem.NotPermitted, `"lab/public" (needs read)`},
		{"may not even list there", carol, policy.Read, "lab/private/x", "south", 5, problem.Hidden, `"lab/private"`},
		{"the peer that is allowed", bob, policy.Read, "lab/public/open/x", "south", 5, "", ""},
		{"another peer", bob, policy.Read, "lab/public/open/x", "east", 5, problem.PolicyRefused, "east"},
		{"no peer, as for a description", bob, policy.Read, "lab/public/open/x", "", 5, "", ""},
		{"creates at home", carol, policy.Create, "lab/in/carol/x", "east", 5, "", ""},
		{"creates what comes from elsewhere", carol, policy.Create, "lab/in/carol/x", "west", 5, problem.PolicyRefused, "west"},
		{"creates outside the prefix", carol, policy.Create, "lab/in/bob/x", "south", 5, problem.NotPermitted, `below "lab/in/bob" (needs create)`},
		{"creates at a prefix by letters", carol, policy.Create, "lab/in/caroline", "south", 5, problem.NotPermitted, `below "lab/in"`},
		{"a drop box does not tell", bob, policy.List, "drop/box", "", 0, problem.PolicyRefused, "not exported to list"},
		{"a drop box takes", bob, policy.Create, "drop/box/x", "south", 5, "", ""},
		{"a container without rules", alice, policy.Read, "none/x", "south", 5, problem.PolicyRefused, "not exported to read from"},
		{"somebody of another provider", "spiffe://south/subscriber/alice", policy.Read, "lab/x", "south", 5, problem.NotPermitted, "south/subscriber/alice"},
	} {
		c, name, _ := strings.Cut(tt.at, "/")
		v, err := p.Open(policy.Ask{Container: token.Container(c), Broker: hub, Account: tt.account, Peer: tt.peer, Authority: token.ByOrder})
		if err == nil {
			_, err = v.Item(tt.right, token.ObjectName(name), tt.size)
		}
		if problem.Of(err) != tt.want || !strings.Contains(fmt.Sprint(err), tt.says) {
			t.Errorf("%s: got %v, want %q and %q", tt.about, err, tt.want, tt.says)
		}
	}
}

func TestWhoMayAsk(t *testing.T) {
	t.Parallel()
	p := lab(t)
	for _, tt := range []struct {
		about string
		ask   policy.Ask
		want  problem.Code
	}{
		{"a container that is not exported", policy.Ask{Container: "nowhere", Broker: hub, Account: alice, Authority: token.ByOrder}, problem.NoContainer},
		{"a broker that is not named", policy.Ask{Container: "drop", Broker: other, Account: alice, Authority: token.ByOrder}, problem.PolicyRefused},
		{"any broker where none is named", policy.Ask{Container: "lab", Broker: other, Account: alice, Authority: token.ByOrder}, ""},
		{"the word of a broker that is trusted", policy.Ask{Container: "lab", Broker: hub, Account: alice, Authority: token.BySession}, ""},
		{"the word of another broker", policy.Ask{Container: "lab", Broker: other, Account: alice, Authority: token.BySession}, problem.PolicyRefused},
		{"the word of a broker where none is trusted", policy.Ask{Container: "drop", Broker: hub, Account: alice, Authority: token.BySession}, problem.PolicyRefused},
		{"no authority", policy.Ask{Container: "drop", Broker: hub, Account: alice}, problem.PolicyRefused},
	} {
		if _, err := p.Open(tt.ask); problem.Of(err) != tt.want {
			t.Errorf("%s: got %v, want %q", tt.about, err, tt.want)
		}
	}
	if _, err := new(policy.Policy).Open(policy.Ask{Container: "lab"}); problem.Of(err) != problem.NoContainer {
		t.Errorf("the zero policy: got %v, want it to allow nothing", err)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	p := lab(t)
	for _, tt := range []struct {
		account token.Identity
		name    token.ObjectName
		want    problem.Code
	}{
		{carol, "public/x", ""}, {bob, "public/open/x", ""}, {carol, "private/x", problem.Hidden}, {alice, "private/x", ""},
		{"spiffe://south/subscriber/x", "private/x", problem.NotPermitted},
	} {
		v, err := p.Open(policy.Ask{Container: "lab", Broker: hub, Account: tt.account, Authority: token.ByOrder})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.MayDescribe(tt.name); problem.Of(err) != tt.want {
			t.Errorf("%s at %s: got %v, want %q", tt.account, tt.name, err, tt.want)
		}
	}
}

func items(sizes map[token.ObjectName]int64) []token.Item {
	var out []token.Item
	for n, size := range sizes {
		out = append(out, token.Item{Src: "src/" + n, Dst: n, Size: size})
	}
	slices.SortFunc(out, func(a, b token.Item) int { return strings.Compare(string(a.Dst), string(b.Dst)) })
	return out
}

func TestBatches(t *testing.T) {
	t.Parallel()
	p := lab(t)
	for _, tt := range []struct {
		about  string
		items  map[token.ObjectName]int64
		denied int
		want   problem.Code
		says   string
	}{
		{"at the limits", map[token.ObjectName]int64{"in/carol/a": 50, "in/carol/b": 50}, 0, "", ""},
		{"too many bytes", map[token.ObjectName]int64{"in/carol/a": 50, "in/carol/b": 51}, 0, problem.PolicyRefused, "max_batch_bytes"},
		{"too many items", map[token.ObjectName]int64{"in/carol/a": 1, "in/carol/b": 1, "in/carol/c": 1}, 0, problem.PolicyRefused, "max_batch_items"},
		{"one of two outside", map[token.ObjectName]int64{"in/carol/a": 1, "in/bob/b": 1}, 1, "", ""},
		{"what is denied does not count", map[token.ObjectName]int64{"in/carol/a": 1, "in/carol/b": 1, "in/bob/b": 500}, 1, "", ""},
		{"all outside", map[token.ObjectName]int64{"in/a": 1, "in/b": 1}, 2, problem.NotPermitted, "needs create"},
	} {
		v, err := p.Open(policy.Ask{Container: "lab", Broker: hub, Account: carol, Peer: "south", Authority: token.ByOrder})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, it := range items(tt.items) {
			if _, denied := v.Item(policy.Create, it.Dst, it.Size); denied != nil {
				n++
			}
		}
		err = v.Batch(policy.Create, items(tt.items))
		if n != tt.denied || problem.Of(err) != tt.want || !strings.Contains(fmt.Sprint(err), tt.says) {
			t.Errorf("%s: got %d denied and %v, want %d and %q with %q", tt.about, n, err, tt.denied, tt.want, tt.says)
		}
	}
}

func TestOffers(t *testing.T) {
	t.Parallel()
	p := lab(t)
	for _, tt := range []struct {
		c      token.Container
		broker token.Identity
		want   policy.Offer
		ok     bool
	}{
		{"lab", hub, policy.Offer{Read: true, Create: true, Session: true, Items: 2, Bytes: 100}, true},
		{"lab", other, policy.Offer{Read: true, Create: true, Items: 2, Bytes: 100}, true},
		{"drop", hub, policy.Offer{Create: true}, true}, {"drop", other, policy.Offer{}, false},
		{"none", hub, policy.Offer{}, false}, {"nowhere", hub, policy.Offer{}, false},
	} {
		if got, ok := p.Offer(tt.c, tt.broker); got != tt.want || ok != tt.ok {
			t.Errorf("%s to %s: got %+v, %t, want %+v, %t", tt.c, tt.broker, got, ok, tt.want, tt.ok)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := policy.Rule{Who: who(policy.Everyone), May: may(policy.Read, policy.Create)}
	for name, tt := range map[string]struct {
		change func(r *policy.Rule, g policy.Groups)
		says   string
	}{
		"nobody":                      {func(r *policy.Rule, _ policy.Groups) { r.Who = nil }, "nobody"},
		"nothing":                     {func(r *policy.Rule, _ policy.Groups) { r.May = nil }, "nothing"},
		"a right that does not exist": {func(r *policy.Rule, _ policy.Groups) { r.May = may("write") }, "write"},
		"an unknown group":            {func(r *policy.Rule, _ policy.Groups) { r.Who = who("group:x") }, "no group"},
		"a foreign subscriber":        {func(r *policy.Rule, _ policy.Groups) { r.Who = who("spiffe://south/subscriber/x") }, "not a subscriber of north"},
		"an agent":                    {func(r *policy.Rule, _ policy.Groups) { r.Who = who("spiffe://north/agent/x") }, "not a subscriber"},
		"a misspelt everyone":         {func(r *policy.Rule, _ policy.Groups) { r.Who = who("all") }, "not a subscriber"},
		"a name that escapes":         {func(r *policy.Rule, _ policy.Groups) { r.Below = "a/../b" }, ""},
		"a prefix with a slash":       {func(r *policy.Rule, _ policy.Groups) { r.Below = "a/" }, ""},
		"a provider that is none":     {func(r *policy.Rule, _ policy.Groups) { r.To = at("so uth") }, "provider"},
		"from without create":         {func(r *policy.Rule, _ policy.Groups) { r.May, r.From = may(policy.Read), at("south") }, "from"},
		"to without read":             {func(r *policy.Rule, _ policy.Groups) { r.May, r.To = may(policy.Create), at("south") }, "to"},
		"a negative limit":            {func(r *policy.Rule, _ policy.Groups) { r.Limits.Rate = -1 }, "negative"},
		"limits of a listing":         {func(r *policy.Rule, _ policy.Groups) { r.May, r.Limits.Items = may(policy.List), 1 }, "limits"},
		"too many who":                {func(r *policy.Rule, _ policy.Groups) { r.Who = make([]policy.Who, policy.MaxWho+1) }, "more than"},
		"a foreign member":            {func(_ *policy.Rule, g policy.Groups) { g["staff"] = []token.Identity{"spiffe://south/subscriber/x"} }, "group"},
		"a group without a name":      {func(_ *policy.Rule, g policy.Groups) { g[""] = nil }, "name of a group"},
		"too many members": {func(_ *policy.Rule, g policy.Groups) {
			g["x"] = slices.Repeat([]token.Identity{alice}, policy.MaxMembers+1)
		}, "members"},
		"too many groups": {func(_ *policy.Rule, g policy.Groups) {
			for i := range policy.MaxGroups + 1 {
				g[fmt.Sprint(i)] = nil
			}
		}, "groups"},
	} {
		r, g := good, policy.Groups{}
		tt.change(&r, g)
		_, err := policy.New("north", []policy.Container{{Name: "lab", Rules: []policy.Rule{r}}}, g)
		if problem.Of(err) != problem.BadConfig || !strings.Contains(fmt.Sprint(err), tt.says) {
			t.Errorf("%s: got %v, want %q with %q", name, err, problem.BadConfig, tt.says)
		}
	}
	if _, err := policy.New("north", []policy.Container{{Name: "lab", Rules: slices.Repeat([]policy.Rule{good}, policy.MaxRules+1)}}, nil); problem.Of(err) != problem.BadConfig {
		t.Errorf("too many rules: got %v, want %q", err, problem.BadConfig)
	}
	if _, err := policy.New("north", []policy.Container{{Name: "lab"}, {Name: "lab"}}, nil); problem.Of(err) != problem.BadConfig {
		t.Errorf("a container twice: got %v, want %q", err, problem.BadConfig)
	}
}

// A question is what somebody wants to do.
type question struct {
	account token.Identity
	right   policy.Right
	name    string
	peer    token.Provider
	size    int64
}

// naive answers as the manual says it, segment by segment and member by member, sharing nothing with the package but the rules.
func naive(rules []policy.Rule, groups policy.Groups, q question) (rule int, code problem.Code) {
	segments := func(s string) []string {
		if s == "" {
			return nil
		}
		return strings.Split(s, "/")
	}
	under := func(root token.ObjectName) bool {
		r, n := segments(string(root)), segments(q.name)
		return len(n) >= len(r) && slices.Equal(n[:len(r)], r)
	}
	isFor := func(r policy.Rule) bool {
		for _, w := range r.Who {
			if w == "*" || string(w) == string(q.account) {
				return true
			}
			for g, ids := range groups {
				if string(w) == "group:"+g && slices.Contains(ids, q.account) {
					return true
				}
			}
		}
		return false
	}
	business, lists, given, peers := false, false, false, false
	for i, r := range rules {
		given = given || slices.Contains(r.May, q.right)
		if !isFor(r) {
			continue
		}
		business = true
		lists = lists || under(r.Below) && slices.Contains(r.May, policy.List)
		if !slices.Contains(r.May, q.right) || !under(r.Below) {
			continue
		}
		ps := map[policy.Right][]token.Provider{policy.Read: r.To, policy.Create: r.From}[q.right]
		if q.peer != "" && len(ps) > 0 && !slices.Contains(ps, q.peer) {
			peers = true
			continue
		}
		if r.Limits.Object > 0 && q.size > r.Limits.Object {
			return i, problem.PolicyRefused
		}
		return i, ""
	}
	switch {
	case peers, !given:
		return -1, problem.PolicyRefused
	case q.right != policy.Create && business && !lists:
		return -1, problem.Hidden
	}
	return -1, problem.NotPermitted
}

// TestAgainstANaiveEvaluator: random rules, groups and questions have the same answer, and the same rule decides.
func TestAgainstANaiveEvaluator(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		some := func(n int, all ...string) (out []string) {
			for range n {
				out = append(out, all[rnd.IntN(len(all))])
			}
			return out
		}
		name := func() string { return strings.Join(some(rnd.IntN(4), "a", "b", "ab"), "/") }
		ids := []token.Identity{alice, bob, carol}
		groups := policy.Groups{}
		for _, g := range []string{"x", "y"} {
			for _, id := range ids {
				if rnd.IntN(2) == 0 {
					groups[g] = append(groups[g], id)
				}
			}
			groups[g] = slices.Clip(groups[g])
		}
		rights := []policy.Right{policy.Read, policy.Create, policy.List}
		var rules []policy.Rule
		for range rnd.IntN(5) {
			r := policy.Rule{Below: token.ObjectName(name())}
			for _, w := range some(1+rnd.IntN(2), "*", "group:x", "group:y", string(alice), string(bob)) {
				r.Who = append(r.Who, policy.Who(w))
			}
			for range 1 + rnd.IntN(2) {
				r.May = append(r.May, rights[rnd.IntN(3)])
			}
			if slices.Contains(r.May, policy.Read) {
				r.To = at([]token.Provider{"south", "east"}[:rnd.IntN(3)]...)
			}
			if slices.Contains(r.May, policy.Create) {
				r.From = at([]token.Provider{"east", "south"}[:rnd.IntN(3)]...)
			}
			if slices.Contains(r.May, policy.Create) || slices.Contains(r.May, policy.Read) {
				r.Limits.Object = int64(rnd.IntN(3))
			}
			rules = append(rules, r)
		}
		p, err := policy.New("north", []policy.Container{{Name: "c", Rules: rules}}, groups)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for range 100 {
			q := question{ids[rnd.IntN(3)], rights[rnd.IntN(3)], name(), []token.Provider{"", "south", "east", "west"}[rnd.IntN(4)], int64(rnd.IntN(4))}
			if q.right == policy.List {
				q.size = 0
			}
			v, err := p.Open(policy.Ask{Container: "c", Broker: hub, Account: q.account, Peer: q.peer, Authority: token.ByOrder})
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.Item(q.right, token.ObjectName(q.name), q.size)
			i, code := naive(rules, groups, q)
			if problem.Of(err) != code || err == nil && got.String() != rules[i].String() {
				t.Fatalf("seed %d: %+v: got %+v and %v, want rule %d and %q of %+v", seed, q, got, err, i, code, rules)
			}
		}
	}
}
