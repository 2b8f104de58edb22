package enrol

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/acme"
	"golang.org/x/net/netutil"

	"github.com/consign-transfer/consign/token/problem"
)

const (
	maxVisitors = 16              // connections at once while a challenge is open
	visitTime   = 5 * time.Second // that a visitor may take to ask
)

// prove shows that we control the identifier of one authorization, unless the authority remembers that we did.
func (o *office) prove(ctx context.Context, url string) error {
	z, err := o.client.GetAuthorization(ctx, url)
	if err != nil {
		return err
	}
	if z.Status == acme.StatusValid {
		return nil
	}
	i := slices.IndexFunc(z.Challenges, func(c *acme.Challenge) bool { return c.Type == string(o.conf.Challenge) })
	if i < 0 {
		return &problem.Error{
			Code: problem.EnrolFailed, Detail: "The ACME authority does not offer the challenge " + string(o.conf.Challenge) + ".",
			Remedy: "Set another challenge, or have the authority offer this one.",
		}
	}
	srv, err := o.answers(z.Challenges[i])
	if err != nil {
		return err
	}
	leave, err := open(ctx, o.conf.listen(), srv)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := o.client.Accept(ctx, z.Challenges[i]); err != nil {
		return err
	}
	return o.proven(ctx, url)
}

// proven waits until the authority has looked.
func (o *office) proven(ctx context.Context, url string) error {
	limited, cancel := context.WithTimeout(ctx, cmp.Or(o.conf.patience, proofTime))
	defer cancel()
	_, err := o.client.WaitAuthorization(limited, url)
	if limited.Err() == nil || ctx.Err() != nil {
		return err
	}
	// Some authorities leave a challenge open when they cannot connect; what they met stands in it.
	z, err := o.client.GetAuthorization(ctx, url)
	if err != nil {
		return err
	}
	for _, c := range z.Challenges {
		if c.Type == string(o.conf.Challenge) && c.Error != nil {
			return &acme.AuthorizationError{URI: url, Errors: []error{c.Error}}
		}
	}
	return &acme.AuthorizationError{URI: url}
}

// answers returns the server that answers a challenge and nothing else.
func (o *office) answers(c *acme.Challenge) (*http.Server, error) {
	srv := &http.Server{
		Handler: http.NotFoundHandler(), ReadHeaderTimeout: visitTime, ReadTimeout: visitTime, WriteTimeout: visitTime,
		MaxHeaderBytes: 8 << 10, ErrorLog: log.New(io.Discard, "", 0), // strangers who look in are no news
	}
	if o.conf.Challenge == HTTP01 {
		text, err := o.client.HTTP01ChallengeResponse(c.Token)
		if err != nil {
			return nil, err
		}
		path := o.client.HTTP01ChallengePath(c.Token)
		srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || r.URL.Path != path {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/octet-stream")
			_, _ = io.WriteString(w, text) // an authority that is gone asks again
		})
		return srv, nil
	}
	cert, err := o.client.TLSALPN01ChallengeCert(c.Token, o.conf.Identifier)
	if err != nil {
		return nil, err
	}
	srv.TLSConfig = &tls.Config{
		MinVersion: tls.VersionTLS12, // RFC 8737 section 4
		NextProtos: []string{acme.ALPNProto}, Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true,
	}
	// The handshake is the answer; there is nothing to say after it.
	srv.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){acme.ALPNProto: func(*http.Server, *tls.Conn, http.Handler) {}}
	return srv, nil
}

// open serves at address until leave is called, which waits for the end.
func open(ctx context.Context, address string, srv *http.Server) (leave func(), err error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &problem.Error{
			Code: problem.EnrolFailed, Cause: err, Detail: "The address for ACME challenges cannot be listened at.",
			Remedy: "Name another address and have the port of the challenge forwarded to it, or stop what listens there.",
		}
	}
	ln = netutil.LimitListener(ln, maxVisitors)
	done := make(chan error, 1)
	go func() { // ends by Close in leave, which waits for it
		if srv.TLSConfig != nil {
			done <- srv.ServeTLS(ln, "", "")
			return
		}
		done <- srv.Serve(ln)
	}()
	return func() {
		_ = errors.Join(srv.Close(), <-done) // always ErrServerClosed
	}, nil
}
