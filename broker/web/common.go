package web

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
)

// commonRoutes are for every verified identity.
func (s *Server) commonRoutes() {
	b := s.conf.Broker
	handle(s, route{id: "providers", method: http.MethodGet, path: "/v1/providers", summary: "The providers and what their agents export"},
		func(r *http.Request, _ none) (api.Page[api.ProviderInfo], error) { return b.Providers(r.Context()) })
	handle(s, route{id: "version", method: http.MethodGet, path: "/v1/version", summary: "What program the broker is"},
		func(*http.Request, none) (api.VersionInfo, error) { return b.Version(), nil })
	handle(s, route{id: "keys", method: http.MethodGet, path: "/.well-known/jwks.json", summary: "The keys that sign capabilities (RFC 7517)"},
		func(*http.Request, none) (json.RawMessage, error) { return b.Keys(), nil })
	handle(s, route{id: "openapi", method: http.MethodGet, path: "/openapi.json", summary: "This description"},
		func(*http.Request, none) (json.RawMessage, error) { return s.api.OpenAPI().MarshalJSON() })
}

// adminHandler is for operators on the same machine.
func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	live := func(w http.ResponseWriter, _ *http.Request) { s.text(w, http.StatusOK, "ok") }
	mux.HandleFunc("GET /livez", live)
	mux.HandleFunc("GET /healthz", live)
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		status, db := http.StatusOK, "ok"
		if err := s.conf.Broker.Ready(r.Context()); err != nil {
			s.log.Error("the database does not answer", zap.Error(err))
			status, db = http.StatusServiceUnavailable, "failed"
		}
		if !r.URL.Query().Has("verbose") {
			s.text(w, status, strings.ToLower(http.StatusText(status)))
			return
		}
		s.text(w, status, "database "+db)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.conf.Broker.Metrics(), promhttp.HandlerOpts{}))
	return mux
}

func (s *Server) text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	if _, err := w.Write([]byte(body + "\n")); err != nil {
		s.log.Debug("an answer was not taken", zap.Error(err))
	}
}
