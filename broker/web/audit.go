package web

import (
	"net/http"
	"strconv"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token/problem"
)

// auditRoutes are what is recorded of attempts at access.
func (s *Server) auditRoutes() {
	b := s.conf.Broker
	handle(s, route{id: "audit", method: http.MethodGet, path: "/v1/audit", summary: "List audit records of a place, the oldest first",
		query: []string{"place", "who", "since", "until", "after", "limit"}},
		func(r *http.Request, _ none) (api.Page[api.AuditRecord], error) {
			q, err := auditQuery(r)
			if err != nil {
				return api.Page[api.AuditRecord]{}, err
			}
			return b.Audit(r.Context(), caller(r.Context()), q, time.Now())
		})
	handle(s, route{id: "auditRuns", method: http.MethodGet, path: "/v1/audit/runs", summary: "List runs of audit records, with their leaves", query: []string{"place", "from"}},
		func(r *http.Request, _ none) (api.Page[api.AuditRun], error) {
			from, err := integer(r, "from")
			if err != nil {
				return api.Page[api.AuditRun]{}, err
			}
			return b.AuditRuns(r.Context(), caller(r.Context()), r.URL.Query().Get("place"), from, time.Now())
		})
	handle(s, route{id: "auditProof", method: http.MethodGet, path: "/v1/audit/runs/{first}", summary: "One run, of which the root can be computed", query: []string{"place"}},
		func(r *http.Request, _ none) (api.AuditProof, error) {
			first, err := strconv.ParseInt(r.PathValue("first"), 10, 64)
			if err != nil || first < 1 {
				return api.AuditProof{}, problem.New(problem.Malformed, "The number of a record is not a number from 1 on")
			}
			return b.AuditProof(r.Context(), caller(r.Context()), r.URL.Query().Get("place"), first, time.Now())
		})
}

func auditQuery(r *http.Request) (api.AuditQuery, error) {
	v := r.URL.Query()
	q := api.AuditQuery{Place: v.Get("place"), Who: v.Get("who")}
	var err error
	if q.After, err = integer(r, "after"); err != nil {
		return q, err
	}
	limit, err := integer(r, "limit")
	if err != nil || limit > api.MaxPage {
		return q, problem.New(problem.Malformed, "The parameter limit is not a number from 0 to %d", api.MaxPage)
	}
	q.Limit = int(limit)
	if q.Since, err = instant(r, "since"); err != nil {
		return q, err
	}
	q.Until, err = instant(r, "until")
	return q, err
}

// instant reads a query parameter that is a time; zero if it is not there.
func instant(r *http.Request, name string) (time.Time, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() < 1970 {
		return time.Time{}, problem.New(problem.Malformed, "The parameter %s is not a time of RFC 3339", name)
	}
	return t, nil
}
