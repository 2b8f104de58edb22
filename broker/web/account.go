package web

import (
	"net/http"
	"time"

	"github.com/consign-transfer/consign/broker/api"
)

// accountRoutes are what a subscriber asks about itself.
func (s *Server) accountRoutes() {
	b := s.conf.Broker
	handle(s, route{id: "account", method: http.MethodGet, path: "/v1/account", summary: "What the broker knows of the caller"},
		func(r *http.Request, _ none) (api.Account, error) { return b.Account(r.Context(), caller(r.Context())) })
	handle(s, route{id: "challenge", method: http.MethodPost, path: "/v1/account/links/challenge", summary: "The challenge for a link"},
		func(r *http.Request, _ none) (api.LinkChallenge, error) {
			return b.LinkChallenge(caller(r.Context()), time.Now())
		})
	handle(s, route{id: "link", method: http.MethodPost, path: "/v1/account/links", summary: "Link two accounts of one person"},
		func(r *http.Request, l api.SignedLink) (api.Account, error) {
			return b.Link(r.Context(), caller(r.Context()), l, time.Now())
		})
	handle(s, route{id: "unlink", method: http.MethodPost, path: "/v1/account/unlink", summary: "Remove the link with an account"},
		func(r *http.Request, u api.Unlink) (api.Account, error) {
			return b.Unlink(r.Context(), caller(r.Context()), u.Account, time.Now())
		})
	handle(s, route{id: "acknowledge", method: http.MethodPost, path: "/v1/account/acknowledge", summary: "Acknowledge the change of a key"},
		func(r *http.Request, a api.Acknowledgement) (api.Account, error) {
			return b.Acknowledge(r.Context(), caller(r.Context()), a, time.Now())
		})
}
