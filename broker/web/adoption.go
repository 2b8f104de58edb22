package web

import (
	"net/http"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token/problem"
)

// adopted is the answer to an AdoptionOrder.
type adopted struct{ api.Adoption }

func (a adopted) location() string { return "/v1/adoptions/" + string(a.ID) }

func (s *Server) adoptionRoutes() {
	b := s.conf.Broker
	handle(s, route{id: "adopt", method: http.MethodPost, path: "/v1/adoptions", summary: "Have what stands in a store entered in the namespace", status: http.StatusAccepted},
		func(r *http.Request, o api.AdoptionOrder) (adopted, error) {
			a, err := b.Adopt(r.Context(), caller(r.Context()), o, time.Now())
			return adopted{a}, err
		})
	handle(s, route{id: "adoptions", method: http.MethodGet, path: "/v1/adoptions", summary: "List one's adoptions, newest first", query: []string{"cursor", "limit"}},
		func(r *http.Request, _ none) (api.Page[api.Adoption], error) {
			limit, err := integer(r, "limit")
			if err != nil || limit > api.MaxPage {
				return api.Page[api.Adoption]{}, problem.New(problem.Malformed, "The parameter limit is not a number from 0 to %d", api.MaxPage)
			}
			return b.Adoptions(r.Context(), caller(r.Context()), r.URL.Query().Get("cursor"), int(limit))
		})
	handle(s, route{id: "cancelAdoption", method: http.MethodPost, path: "/v1/adoptions/{id}/cancel", summary: "End an adoption; what was entered stays"},
		func(r *http.Request, _ none) (api.Adoption, error) {
			return b.CancelAdoption(r.Context(), caller(r.Context()), transferID(r), time.Now())
		})
	patient(s, route{id: "adoption", method: http.MethodGet, path: "/v1/adoptions/{id}", summary: "One adoption; with wait, once its seq is beyond after"},
		func(r *http.Request, after int64, d time.Duration) (api.Adoption, error) {
			return b.Adoption(r.Context(), caller(r.Context()), transferID(r), after, d)
		})
}
