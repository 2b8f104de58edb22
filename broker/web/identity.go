package web

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// peerKey is the context key of the verified caller.
type peerKey struct{}

// identify lets a request through only if TLS proved who the caller is, the chain is good now, and
// the role may use the path. It stands before every route.
func (s *Server) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)); err != nil {
			s.log.Debug("no write deadline")
		}
		peer, err := s.peer(r)
		if err != nil && isGenuine(problem.Of(err)) || err == nil && !time.Now().Before(deadline(r, peer)) {
			w.Header().Set("Connection", "close") // over HTTP/2 the last request of its connection
		}
		switch {
		case err != nil && isGenuine(problem.Of(err)):
			if id, bad := s.conf.Trust.Holder(r.TLS.PeerCertificates, time.Now()); bad != nil && id != "" {
				err = s.conf.Broker.TurnAway(id, err, time.Now())
			}
		case err == nil:
			if err = mayUse(peer.Identity, r.URL.Path); err != nil {
				err = s.conf.Broker.Deny(peer, err)
			}
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		if err := s.conf.Broker.Renewed(r.Context(), peer, time.Now()); err != nil { // it is told by other means, and what was asked for can be done
			s.log.Error("a certificate is not taken beside standing orders; it is tried again at the next call", zap.String("peer", string(peer.Identity)), zap.Error(err))
		}
		notices, err := s.conf.Broker.Meet(r.Context(), peer, time.Now())
		if err != nil {
			s.fail(w, r, err)
			return
		}
		if notices > 0 {
			w.Header().Set(api.NoticeHeader, strconv.Itoa(notices))
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), peerKey{}, peer)))
	})
}

// isGenuine reports whether certs says that of nobody but the holder of a certificate that a trusted authority has issued in that very name.
func isGenuine(code problem.Code) bool {
	switch code {
	case problem.CertExpired, problem.CertNotYet, problem.CertRevoked, problem.CRLStale, problem.IDDenied:
		return true
	}
	return false
}

func (s *Server) peer(r *http.Request) (certs.Peer, error) {
	if r.TLS == nil {
		return certs.Peer{}, problem.New(problem.CertMissing, "")
	}
	return certs.PeerOf(*r.TLS, s.conf.Trust, time.Now())
}

// A handshake is what is known of a connection when it begins.
type handshake struct {
	at  time.Time
	own time.Time // the end of our certificate
}

// handshakeKey is the context key of a connection's handshake.
type handshakeKey struct{}

// met notes when a connection began.
func (s *Server) met(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, handshakeKey{}, handshake{at: time.Now(), own: s.conf.Identity.NotAfter()})
}

// deadline returns when the connection of a request must end.
func deadline(r *http.Request, peer certs.Peer) time.Time {
	h, ok := r.Context().Value(handshakeKey{}).(handshake)
	if !ok {
		h = handshake{at: time.Now(), own: peer.NotAfter}
	}
	return certs.Deadline(h.at, h.own, peer.NotAfter)
}

// guard returns a context for a request that lasts: it ends with the connection's time, and when its caller is not to be believed
// any more, of which its cause then tells. The caller of guard calls stop at the end.
func (s *Server) guard(r *http.Request, peer certs.Peer) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(r.Context())
	ended := make(chan struct{})
	go func() { // ends with ctx; stop waits for it
		defer close(ended)
		cancel(s.conf.Trust.Guard(ctx.Done(), peer, deadline(r, peer)))
	}()
	return ctx, func() { cancel(nil); <-ended }
}

// mayUse reports whether an identity of that role has business on a path.
func mayUse(id token.Identity, path string) error {
	var role token.Role
	switch {
	case inCDMI(path):
		role = token.Subscriber
	case strings.HasPrefix(path, "/v1/agent/"):
		role = token.Agent
	case strings.HasPrefix(path, "/v1/adoptions"), strings.HasPrefix(path, "/v1/nodes"), strings.HasPrefix(path, "/v1/find"), strings.HasPrefix(path, "/v1/groups"),
		strings.HasPrefix(path, "/v1/transfers"), strings.HasPrefix(path, "/v1/lookups"), strings.HasPrefix(path, "/v1/orders"), strings.HasPrefix(path, "/v1/audit"),
		strings.HasPrefix(path, "/v1/events"), strings.HasPrefix(path, "/v1/webhooks"), strings.HasPrefix(path, "/v1/account"):
		role = token.Subscriber
	default:
		return nil // for every verified identity
	}
	if id.Role() != role {
		return problem.New(problem.NotPermitted, "%s is of role %q; this path is for the role %q", id, id.Role(), role)
	}
	return nil
}

// caller returns who makes a request that identify let through.
func caller(ctx context.Context) certs.Peer {
	p, ok := ctx.Value(peerKey{}).(certs.Peer)
	if !ok {
		panic("web: internal error: a route was reached past identify")
	}
	return p
}
