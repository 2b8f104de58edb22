package web

import (
	"net/http"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// created is a transfer that an order has made.
type created struct{ api.Transfer }

func (c created) location() string { return "/v1/transfers/" + string(c.ID) }

func (s *Server) subscriberRoutes() {
	b := s.conf.Broker
	handle(s, route{id: "submit", method: http.MethodPost, path: "/v1/transfers", summary: "Hand in a copy order", status: http.StatusAccepted},
		func(r *http.Request, so api.SignedOrder) (created, error) {
			t, err := b.Submit(r.Context(), caller(r.Context()), so, time.Now())
			return created{t}, err
		})
	handle(s, route{id: "transfers", method: http.MethodGet, path: "/v1/transfers", summary: "List one's transfers, newest first", query: []string{"state", "cursor", "limit"}},
		func(r *http.Request, _ none) (api.Page[api.Transfer], error) {
			limit, err := integer(r, "limit")
			if err != nil || limit > api.MaxPage {
				return api.Page[api.Transfer]{}, problem.New(problem.Malformed, "The parameter limit is not a number from 0 to %d", api.MaxPage)
			}
			q := r.URL.Query()
			return b.Transfers(r.Context(), caller(r.Context()), api.State(q.Get("state")), q.Get("cursor"), int(limit))
		})
	handle(s, route{id: "cancel", method: http.MethodPost, path: "/v1/transfers/{id}/cancel", summary: "End a transfer"},
		func(r *http.Request, _ none) (api.Transfer, error) {
			return b.Cancel(r.Context(), caller(r.Context()), transferID(r), time.Now())
		})
	handle(s, route{id: "pause", method: http.MethodPost, path: "/v1/transfers/{id}/pause", summary: "Have a transfer rest"},
		func(r *http.Request, _ none) (api.Transfer, error) {
			return b.Pause(r.Context(), caller(r.Context()), transferID(r), time.Now())
		})
	handle(s, route{id: "resume", method: http.MethodPost, path: "/v1/transfers/{id}/resume", summary: "Let a paused transfer go on"},
		func(r *http.Request, _ none) (api.Transfer, error) {
			return b.Resume(r.Context(), caller(r.Context()), transferID(r), time.Now())
		})
	handle(s, route{id: "items", method: http.MethodGet, path: "/v1/transfers/{id}/items", summary: "What became of each item", query: []string{"outcome", "cursor"}},
		func(r *http.Request, _ none) (api.Page[api.ItemReport], error) {
			q := r.URL.Query()
			return b.Items(r.Context(), caller(r.Context()), transferID(r), token.Result(q.Get("outcome")), q.Get("cursor"))
		})
	handle(s, route{id: "order", method: http.MethodGet, path: "/v1/transfers/{id}/order", summary: "The order as it was signed"},
		func(r *http.Request, _ none) (api.SignedOrder, error) {
			return b.Order(r.Context(), caller(r.Context()), transferID(r))
		})
	handle(s, route{id: "batches", method: http.MethodGet, path: "/v1/transfers/{id}/batches", summary: "All that was signed about each batch", query: []string{"cursor"}},
		func(r *http.Request, _ none) (api.Page[api.BatchRecord], error) {
			return b.Batches(r.Context(), caller(r.Context()), transferID(r), r.URL.Query().Get("cursor"))
		})
	handle(s, route{id: "orders", method: http.MethodGet, path: "/v1/orders", summary: "List one's standing orders, newest first", query: []string{"cursor", "limit"}},
		func(r *http.Request, _ none) (api.Page[api.OrderInfo], error) {
			limit, err := integer(r, "limit")
			if err != nil || limit > api.MaxPage {
				return api.Page[api.OrderInfo]{}, problem.New(problem.Malformed, "The parameter limit is not a number from 0 to %d", api.MaxPage)
			}
			return b.Orders(r.Context(), caller(r.Context()), r.URL.Query().Get("cursor"), int(limit))
		})
	handle(s, route{id: "orderInfo", method: http.MethodGet, path: "/v1/orders/{id}", summary: "One order, by its id or that of a run"},
		func(r *http.Request, _ none) (api.OrderInfo, error) {
			return b.OrderInfo(r.Context(), caller(r.Context()), transferID(r))
		})
	handle(s, route{id: "runs", method: http.MethodGet, path: "/v1/orders/{id}/runs", summary: "The transfers of an order, newest run first", query: []string{"cursor"}},
		func(r *http.Request, _ none) (api.Page[api.Transfer], error) {
			return b.Runs(r.Context(), caller(r.Context()), transferID(r), r.URL.Query().Get("cursor"))
		})
	handle(s, route{id: "withdraw", method: http.MethodPost, path: "/v1/orders/{id}/withdraw", summary: "Hand in an order to withdraw an order"},
		func(r *http.Request, so api.SignedOrder) (api.OrderInfo, error) {
			return b.Withdraw(r.Context(), caller(r.Context()), transferID(r), so, time.Now())
		})
	s.waitingRoutes()
}

// waitingRoutes may keep their caller waiting, so that they set the deadline of their answer anew.
func (s *Server) waitingRoutes() {
	b := s.conf.Broker
	patient(s, route{id: "transfer", method: http.MethodGet, path: "/v1/transfers/{id}", summary: "One transfer; with wait, once its seq is beyond after"},
		func(r *http.Request, after int64, d time.Duration) (api.Transfer, error) {
			return b.Transfer(r.Context(), caller(r.Context()), transferID(r), after, d)
		})
	patient(s, route{id: "events", method: http.MethodGet, path: "/v1/transfers/{id}/events", summary: "The events of a transfer after a number"},
		func(r *http.Request, after int64, d time.Duration) (api.Page[api.Event], error) {
			return b.Events(r.Context(), caller(r.Context()), transferID(r), after, d)
		})
	handle(s, route{id: "lookup", method: http.MethodPost, path: "/v1/lookups", summary: "Carry out a list, stat or make order while the caller waits"},
		func(r *http.Request, l api.Lookup) (api.LookupResult, error) {
			return b.Lookup(r.Context(), caller(r.Context()), l, time.Now())
		})
}

// patient registers an operation with the query parameters after and wait.
func patient[Out any](s *Server, rt route, fn func(*http.Request, int64, time.Duration) (Out, error)) {
	var out Out
	rt.query, rt.out = []string{"after", "wait"}, out
	s.register(rt, func(w http.ResponseWriter, r *http.Request) {
		after, err := integer(r, "after")
		var d time.Duration
		if err == nil {
			d, err = wait(w, r)
		}
		var out Out
		if err == nil {
			out, err = fn(r, after, d)
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.write(w, r, http.StatusOK, out)
	})
}

func transferID(r *http.Request) token.TransferID { return token.TransferID(r.PathValue("id")) }
