// Package web is the broker's HTTP server: it knows the caller from TLS, decodes
// strictly, calls package broker, and renders problems.
//
// It guarantees that nobody reaches a route whose certificate chain is not good now for the
// domain that it claims: all others get the problem that says why, the page of what a problem's code means, and nothing else. It
// guarantees that agents reach the agents' routes alone and subscribers theirs alone. A body has exactly
// one reading: unknown or doubled members, members in other letter case and trailing data are refused with
// the name of the member. Every failure is application/problem+json with a stable code; one that is our
// own is problem.Internal with an incident id that is in our log, and says nothing more.
//
// It decides nothing. The admin listener (/livez /readyz /healthz /metrics) is plain HTTP and
// shows no object name; it belongs on loopback.
package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/web/cdmi"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	headerTime   = 5 * time.Second
	idleTime     = 60 * time.Second
	bodyTime     = 60 * time.Second // to read one request body
	answerTime   = 60 * time.Second // to write one answer
	lineTime     = 20 * time.Second // to write one line of a task stream
	stopTime     = 10 * time.Second
	maxHeader    = 32 << 10
	maxStreams   = 250 // requests at once on one connection
	pingSilentIn = 15 * time.Second
)

// Config is what a Server needs. All of it is required but Log.
type Config struct {
	Broker   *broker.Broker
	Identity *certs.Pair
	Trust    *certs.Trust
	Log      *zap.Logger // nothing by default
}

// A Server answers for one broker.
type Server struct {
	conf Config
	log  *zap.Logger
	api  huma.API
	mux  *http.ServeMux
	cdmi *cdmi.Handler

	routes []string // all that mux has, but what it has for everything else
}

// New returns a server that listens nowhere yet.
func New(conf Config) (*Server, error) {
	if conf.Broker == nil || conf.Identity == nil || conf.Trust == nil {
		return nil, errors.New("making the web server: broker, identity and trust are required")
	}
	if conf.Log == nil {
		conf.Log = zap.NewNop()
	}
	s := &Server{conf: conf, log: conf.Log, mux: http.NewServeMux()}
	s.api = humago.New(s.mux, huma.Config{OpenAPI: &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "Consign broker", Version: "1", Description: "Moves objects between providers under signed orders. " +
			"Callers are known by their client certificate."},
	}})
	s.subscriberRoutes()
	s.eventRoutes()
	s.agentRoutes()
	s.accountRoutes()
	s.auditRoutes()
	s.adoptionRoutes()
	s.nodeRoutes()
	s.commonRoutes()
	var err error
	if s.cdmi, err = s.newCDMI(); err != nil {
		return nil, err
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, problem.New(problem.NotFound, "There is no such path, or not for this method"))
	})
	return s, nil
}

// Handler returns everything that the listener for subscribers and agents serves. It must stand
// behind TLS that asks for a client certificate.
func (s *Server) Handler() http.Handler {
	inner := s.identify(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if inCDMI(r.URL.Path) { // past the mux, which would correct paths that have to be refused
			s.cdmi.ServeHTTP(w, r)
			return
		}
		s.mux.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code, ok := strings.CutPrefix(r.URL.Path, api.ProblemPath); ok && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			s.problemPage(w, r, problem.Code(code))
			return
		}
		inner.ServeHTTP(w, r)
	})
}

// Routes returns every path that is served with its method, as "GET /v1/version", in order; that of the problem page, which alone needs no
// certificate, is not among them, nor are those of CDMI.
func (s *Server) Routes() []string { return slices.Sorted(slices.Values(s.routes)) }

// OpenAPI returns the description of the surface, as YAML.
func (s *Server) OpenAPI() ([]byte, error) { return s.api.OpenAPI().YAML() }

// Run serves subscribers and agents on l and, if admin is not nil, operators on admin, until ctx ends; then
// task streams are closed, running calls get up to 10 s, and both listeners are closed. It returns nil
// after an orderly stop.
func (s *Server) Run(ctx context.Context, l, admin net.Listener) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	public, private := s.server(base, s.Handler()), s.server(base, s.adminHandler())
	public.TLSConfig = certs.BrokerServer(s.conf.Identity)
	public.ConnContext = s.met
	servers := []*http.Server{public}
	ended := make(chan error, 2)
	go func() { ended <- public.ServeTLS(l, "", "") }()
	if admin != nil {
		servers = append(servers, private)
		go func() { ended <- private.Serve(admin) }()
	}
	var errs []error
	left := len(servers)
	select {
	case <-ctx.Done():
	case err := <-ended:
		left--
		errs = append(errs, fmt.Errorf("serving: %w", err))
	}
	cancel() // the streams first: Shutdown waits for them
	late, done := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer done()
	for _, h := range servers {
		if err := h.Shutdown(late); err != nil {
			errs = append(errs, fmt.Errorf("stopping: %w", err), h.Close())
		}
	}
	for range left {
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, fmt.Errorf("serving: %w", err))
		}
	}
	return errors.Join(errs...)
}

// server has no write timeout, which would end streams and waits: each handler sets its own deadlines.
func (s *Server) server(base context.Context, h http.Handler) *http.Server {
	quiet, err := zap.NewStdLogAt(s.log, zap.DebugLevel)
	if err != nil {
		quiet = nil // the level is a constant that zap knows
	}
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader, ErrorLog: quiet,
		BaseContext: func(net.Listener) context.Context { return base },
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingSilentIn, PingTimeout: pingSilentIn},
	}
}
