package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token/problem"
)

// eventRoutes are the stream of events and the webhooks that are told of them.
func (s *Server) eventRoutes() {
	b := s.conf.Broker
	s.register(route{id: "follow", method: http.MethodGet, path: "/v1/events", query: []string{"after"}, out: api.EventLine{},
		summary: "All events that the caller may see, one JSON value a line, without end: those after a number, or those from now on"}, s.follow)
	handle(s, route{id: "addWebhook", method: http.MethodPost, path: "/v1/webhooks", summary: "Have an address told of one's events", status: http.StatusCreated},
		func(r *http.Request, o api.WebhookOrder) (api.Webhook, error) {
			return b.AddWebhook(r.Context(), caller(r.Context()), o, time.Now())
		})
	handle(s, route{id: "webhooks", method: http.MethodGet, path: "/v1/webhooks", summary: "One's webhooks"},
		func(r *http.Request, _ none) (api.Page[api.Webhook], error) {
			return b.Webhooks(r.Context(), caller(r.Context()))
		})
	handle(s, route{id: "webhookKey", method: http.MethodGet, path: "/v1/webhooks/key", summary: "The key that verifies webhooks"},
		func(*http.Request, none) (api.WebhookKey, error) { return b.WebhookKey(), nil })
	handle(s, route{id: "removeWebhook", method: http.MethodDelete, path: "/v1/webhooks/{id}", summary: "Forget a webhook", status: http.StatusNoContent},
		func(r *http.Request, _ none) (none, error) {
			return none{}, b.RemoveWebhook(r.Context(), caller(r.Context()), r.PathValue("id"), time.Now())
		})
	handle(s, route{id: "testWebhook", method: http.MethodPost, path: "/v1/webhooks/{id}/test", summary: "Send a webhook a test event now"},
		func(r *http.Request, _ none) (api.WebhookTest, error) {
			return b.TestWebhook(r.Context(), caller(r.Context()), r.PathValue("id"), time.Now())
		})
}

func (s *Server) follow(w http.ResponseWriter, r *http.Request) {
	after := int64(-1)
	if r.URL.Query().Has("after") {
		var err error
		if after, err = integer(r, "after"); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	peer := caller(r.Context())
	stream(s, w, r, func(ctx context.Context, send func(api.EventLine) error) error {
		return s.conf.Broker.Follow(ctx, peer, after, send)
	})
}

// stream answers with lines, one JSON value each, until run returns. It ends when the caller's certificate ends or is refused, which
// TLS would not notice. What fails before the first line is answered as a problem.
func stream[T any](s *Server, w http.ResponseWriter, r *http.Request, run func(context.Context, func(T) error) error) {
	peer := caller(r.Context())
	ctx, stop := s.guard(r, peer)
	defer stop()
	ctl := http.NewResponseController(w)
	begun := false
	err := run(ctx, func(l T) error {
		data, err := json.Marshal(l)
		if err != nil {
			return err
		}
		if len(data) >= api.MaxTaskSize {
			return problem.New(problem.TooLarge, "A line of a stream is larger than %d bytes", api.MaxTaskSize)
		}
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
			w.Header().Set("Cache-Control", "no-store")
		}
		if err := ctl.SetWriteDeadline(time.Now().Add(lineTime)); err != nil {
			return err
		}
		if _, err := w.Write(append(data, '\n')); err != nil {
			return err
		}
		return ctl.Flush()
	})
	if cause := context.Cause(ctx); cause != nil && problem.Of(cause) != problem.Cancelled {
		err = cause
	}
	switch {
	case !begun && err != nil:
		s.fail(w, r, err)
	case err != nil && !errors.Is(err, context.Canceled):
		s.log.Info("a stream ended", zap.String("of", string(peer.Identity)), zap.Error(err))
		s.lastLine(w, err)
	}
}

// lastLine tells the caller why its stream ends, if that is for the caller to know. Nothing is done about a caller who is gone.
func (s *Server) lastLine(w http.ResponseWriter, err error) {
	if !errors.As(err, new(*problem.Error)) || problem.Of(err) == problem.Internal {
		return
	}
	data, err := json.Marshal(api.LastLine{Problem: api.ProblemOf(err)})
	if err != nil {
		return
	}
	ctl := http.NewResponseController(w)
	if ctl.SetWriteDeadline(time.Now().Add(lineTime)) != nil {
		return
	}
	if _, err := w.Write(append(data, '\n')); err == nil {
		_ = ctl.Flush() // the answer ends behind it all the same
	}
}
