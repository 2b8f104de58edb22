package web

import (
	"net/http"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// shown is a node with its ETag.
type shown struct{ api.Node }

func (n shown) tag() string { return n.ETag }

// nodeRoutes are the namespace: what is known of a place, who may do what there, and the groups that lists name.
func (s *Server) nodeRoutes() {
	b := s.conf.Broker
	params := []string{"at", "kind"}
	handle(s, route{id: "node", method: http.MethodGet, path: "/v1/nodes", summary: "What the namespace knows of a place", query: params},
		func(r *http.Request, _ none) (shown, error) {
			of, err := place(r)
			if err != nil {
				return shown{}, err
			}
			n, err := b.Node(r.Context(), caller(r.Context()), of, time.Now())
			return shown{n}, err
		})
	handle(s, route{id: "changeNode", method: http.MethodPatch, path: "/v1/nodes", summary: "Change list, owner or metadata of a place", query: params, header: []string{"If-Match"}},
		func(r *http.Request, c api.NodeChange) (shown, error) {
			of, err := place(r)
			if err != nil {
				return shown{}, err
			}
			tag, err := ifMatch(r)
			if err != nil {
				return shown{}, err
			}
			n, err := b.ChangeNode(r.Context(), caller(r.Context()), of, c, tag, time.Now())
			return shown{n}, err
		})
	handle(s, route{id: "explain", method: http.MethodGet, path: "/v1/nodes/explain", summary: "What the lists make of an attempt", query: append(params, "who", "want")},
		func(r *http.Request, _ none) (api.Explanation, error) {
			of, err := place(r)
			if err != nil {
				return api.Explanation{}, err
			}
			q := r.URL.Query()
			return b.ExplainAccess(r.Context(), caller(r.Context()), of, q.Get("who"), q.Get("want"), time.Now())
		})
	handle(s, route{id: "find", method: http.MethodGet, path: "/v1/find", summary: "Search the rows of the namespace",
		query: []string{"at", "name", "digest", "item", "value", "cursor", "limit"}},
		func(r *http.Request, _ none) (api.Page[api.Found], error) {
			what, err := search(r)
			if err != nil {
				return api.Page[api.Found]{}, err
			}
			return b.Find(r.Context(), caller(r.Context()), what, time.Now())
		})
	s.groupRoutes()
}

func (s *Server) groupRoutes() {
	b := s.conf.Broker
	group := func(r *http.Request) (token.Provider, string) {
		return token.Provider(r.PathValue("provider")), r.PathValue("group")
	}
	handle(s, route{id: "groups", method: http.MethodGet, path: "/v1/groups/{provider}", summary: "The groups of a provider"},
		func(r *http.Request, _ none) (api.Page[api.Group], error) {
			p, _ := group(r)
			return b.Groups(r.Context(), caller(r.Context()), p)
		})
	handle(s, route{id: "members", method: http.MethodGet, path: "/v1/groups/{provider}/{group}", summary: "The members of a group", query: []string{"cursor"}},
		func(r *http.Request, _ none) (api.Page[token.Identity], error) {
			p, name := group(r)
			return b.Members(r.Context(), caller(r.Context()), p, name, r.URL.Query().Get("cursor"))
		})
	handle(s, route{id: "changeGroup", method: http.MethodPatch, path: "/v1/groups/{provider}/{group}", summary: "Put identities into a group and take others out"},
		func(r *http.Request, c api.GroupChange) (api.GroupChanged, error) {
			p, name := group(r)
			return b.ChangeGroup(r.Context(), caller(r.Context()), p, name, c, time.Now())
		})
	handle(s, route{id: "removeGroup", method: http.MethodDelete, path: "/v1/groups/{provider}/{group}", summary: "Remove a group", status: http.StatusNoContent},
		func(r *http.Request, _ none) (none, error) {
			p, name := group(r)
			return none{}, b.RemoveGroup(r.Context(), caller(r.Context()), p, name, time.Now())
		})
}

// place reads the query parameters at, an address, and kind, which may be missing.
func place(r *http.Request) (broker.Place, error) {
	at, err := token.ParseLocation(r.URL.Query().Get("at"))
	return broker.Place{At: at, Kind: api.NodeKind(r.URL.Query().Get("kind"))}, err
}

// ifMatch reads the header If-Match: one strong entity tag, or nothing, or *, which is true of every place.
func ifMatch(r *http.Request) (string, error) {
	tags := r.Header.Values("If-Match")
	if len(tags) == 0 || len(tags) == 1 && strings.TrimSpace(tags[0]) == "*" {
		return "", nil
	}
	tag := strings.TrimSpace(tags[0])
	inner, ok := strings.CutPrefix(tag, `"`)
	inner, closed := strings.CutSuffix(inner, `"`)
	if len(tags) > 1 || !ok || !closed || inner == "" || strings.Contains(inner, `"`) {
		return "", problem.New(problem.Malformed, "The header If-Match is not the one ETag that an answer had, in quotation marks")
	}
	return inner, nil
}

// search reads the query parameters of a search.
func search(r *http.Request) (api.Search, error) {
	q := r.URL.Query()
	out := api.Search{Name: q.Get("name"), Digest: token.Digest(q.Get("digest")), Item: q.Get("item"), Value: q.Get("value"), Cursor: q.Get("cursor")}
	switch where := q.Get("at"); {
	case where == "":
	case !strings.Contains(where, ":"):
		out.At.Provider = token.Provider(where)
		if err := token.CheckProvider(out.At.Provider); err != nil {
			return out, err
		}
	default:
		var err error
		if out.At, err = token.ParseLocation(where); err != nil {
			return out, err
		}
	}
	limit, err := integer(r, "limit")
	if err != nil || limit > api.MaxFound {
		return out, problem.New(problem.Malformed, "The parameter limit is not a number from 0 to %d", api.MaxFound)
	}
	out.Limit = int(limit)
	return out, nil
}
