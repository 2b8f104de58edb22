package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token/problem"
)

// fail answers with the problem of err. One that is our own is logged under an incident id; the caller gets that
// id and no word of it.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	s.failAs(w, r, err, problem.Lookup(problem.Of(err)).HTTP)
}

// failAs is fail with the status that a standard wants.
func (s *Server) failAs(w http.ResponseWriter, r *http.Request, err error, status int) {
	if r.Context().Err() != nil && errors.Is(err, context.Canceled) {
		return // the caller is gone
	}
	s.conf.Broker.CountProblem(err)
	doc := api.ProblemOf(err)
	doc.Instance, doc.Status = r.URL.Path, status
	if !errors.As(err, new(*problem.Error)) || doc.Code == problem.Internal {
		doc.Incident = uuid.NewString()
		doc.Detail = problem.Lookup(problem.Of(err)).Title
		s.log.Error("a request failed for a reason of our own", zap.String("incident", doc.Incident), zap.String("method", r.Method),
			zap.String("path", r.URL.Path), zap.Error(err))
	}
	w.Header().Set("Content-Type", "application/problem+json")
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Certificate") // RFC 9110 wants one; how to show a certificate TLS knows
	}
	s.write(w, r, doc.Status, doc)
}

// write answers with a JSON body.
func (s *Server) write(w http.ResponseWriter, r *http.Request, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		s.log.Error("an answer cannot be encoded", zap.String("path", r.URL.Path), zap.Error(err))
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.Header().Set("Cache-Control", "no-store")
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
		s.log.Debug("no write deadline", zap.Error(err))
	}
	w.WriteHeader(status)
	if _, err := w.Write(data); err != nil {
		s.log.Debug("an answer was not taken", zap.String("path", r.URL.Path), zap.Error(err))
	}
}
