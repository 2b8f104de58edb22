package web

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (s *Server) agentRoutes() {
	b := s.conf.Broker
	handle(s, route{id: "hello", method: http.MethodPost, path: "/v1/agent/hello", summary: "Announce an agent"},
		func(r *http.Request, h api.Hello) (api.Welcome, error) {
			return b.Hello(r.Context(), caller(r.Context()), h, time.Now())
		})
	s.register(route{id: "tasks", method: http.MethodGet, path: "/v1/agent/tasks", summary: "The task stream: one JSON value a line, without end", out: api.Line{}}, s.tasks)
	handle(s, route{id: "page", method: http.MethodPost, path: "/v1/agent/tasks/{id}/pages", summary: "A page of the result of a list, stat or make task"},
		func(r *http.Request, p api.TaskPage) (api.TaskPageAnswer, error) {
			return b.PostPage(r.Context(), caller(r.Context()), r.PathValue("id"), p, time.Now())
		})
	handle(s, route{id: "refuse", method: http.MethodPost, path: "/v1/agent/tasks/{id}/refuse", summary: "Do not take a receive or serve task"},
		func(r *http.Request, p api.Refusal) (none, error) {
			return none{}, b.Refuse(r.Context(), caller(r.Context()), r.PathValue("id"), p.Problem, time.Now())
		})
	handle(s, route{id: "beat", method: http.MethodPost, path: "/v1/agent/beat", summary: "A sign of life"},
		func(r *http.Request, p api.Beat) (api.BeatAnswer, error) {
			return b.Beat(r.Context(), caller(r.Context()), p, time.Now())
		})
	handle(s, route{id: "report", method: http.MethodPost, path: "/v1/agent/reports", summary: "Tell of lanes that one of two agents has refused"},
		func(r *http.Request, p api.Reports) (none, error) {
			return none{}, b.Report(r.Context(), caller(r.Context()), p, time.Now())
		})
	handle(s, route{id: "kept", method: http.MethodPost, path: "/v1/agent/kept", summary: "Say up to which number the log of holds and retentions is durable"},
		func(r *http.Request, m api.KeptMark) (none, error) {
			return none{}, b.Kept(r.Context(), caller(r.Context()), m, time.Now())
		})
	handle(s, route{id: "revocations", method: http.MethodGet, path: "/v1/agent/revocations", summary: "The newest list of revocations, if its epoch is beyond after", query: []string{"after"}},
		func(r *http.Request, _ none) (api.Revocations, error) {
			after, err := integer(r, "after")
			if err != nil {
				return api.Revocations{}, err
			}
			return b.Revocations(after), nil
		})
	handle(s, route{id: "renew", method: http.MethodPost, path: "/v1/agent/batches/{xfr}/{bat}/renew", summary: "The next generation of a batch's capabilities"},
		func(r *http.Request, _ none) (api.Renewal, error) {
			bat, err := strconv.ParseInt(r.PathValue("bat"), 10, 64)
			if err != nil {
				return api.Renewal{}, problem.New(problem.Malformed, "The number of the batch is not a number")
			}
			return b.Renew(r.Context(), caller(r.Context()), api.Ref{Xfr: token.TransferID(r.PathValue("xfr")), Bat: bat}, time.Now())
		})
	handle(s, route{id: "receipt", method: http.MethodPost, path: "/v1/agent/receipts", summary: "Hand in a receipt; answered once it is durable"},
		func(r *http.Request, p api.SignedReceipt) (api.ReceiptAnswer, error) {
			return b.PostReceipt(r.Context(), caller(r.Context()), p, time.Now())
		})
}

// tasks is the agent's stream; when the agent comes back after its end it is told why.
func (s *Server) tasks(w http.ResponseWriter, r *http.Request) {
	peer := caller(r.Context())
	stream(s, w, r, func(ctx context.Context, send func(api.Line) error) error {
		return s.conf.Broker.Tasks(ctx, peer, send)
	})
}
