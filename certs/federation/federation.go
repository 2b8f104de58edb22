// Package federation keeps the trust bundles of other providers fresh, from their SPIFFE bundle endpoints.
//
// It guarantees that the relation is one-way and stays within its domain: what an endpoint answers becomes the bundle of
// the domain it was configured for, or nothing. A bundle that is older than the one in use, that is not all authorities, or that
// holds an authority of another domain changes nothing. The newest good bundle is in the domain's own bundle
// file before it is in use, so that a start while the endpoint is down goes on with it.
//
// An endpoint is asked as often as its bundle wants, within limits and never in step with others. It is asked over TLS alone, its
// redirections are not followed, and what it may make us read is bounded. Errors are *problem.Error: unavailable if nobody answers
// a bundle, bad-config if what was answered is not good, or a fault of the endpoint's certificate.
//
// It does not decide whom to trust, does not serve bundles, and does not log.
package federation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Limits of how often an endpoint is asked.
const (
	MinRefresh     = 30 * time.Second
	MaxRefresh     = time.Hour
	DefaultRefresh = 5 * time.Minute // without a hint
	retryAfter     = time.Minute     // when it failed

	callTimeout = 30 * time.Second
)

// A Profile is how an endpoint proves who it is.
type Profile string

// The profiles of the SPIFFE specification.
const (
	Web    Profile = "https_web"    // by a certificate of the web
	SPIFFE Profile = "https_spiffe" // by a certificate of a trust domain
)

// An Endpoint is where the bundle of one domain is published.
type Endpoint struct {
	Domain  token.Provider
	URL     string // https
	Profile Profile
	// Roots are who may have issued the certificate of a Web endpoint, in PEM. Optional: the system's.
	Roots []byte
	// ID is the SPIFFE ID of a SPIFFE endpoint, whose domain has a bundle already: most often it is the endpoint's own.
	ID string
}

// Check reports whether e could be asked: nil or problem.BadConfig.
func (e Endpoint) Check() error {
	if err := token.CheckProvider(e.Domain); err != nil {
		return problem.Wrap(err, problem.BadConfig, "A bundle endpoint is configured for %q, which is not the name of a provider.", e.Domain)
	}
	if u, err := url.Parse(e.URL); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Fragment != "" {
		return problem.New(problem.BadConfig, "The address of the bundle endpoint of %q is not an https URL.", e.Domain)
	}
	switch {
	case e.Profile == Web && e.ID != "":
		return problem.New(problem.BadConfig, "The bundle endpoint of %q has an id, which only one of the profile %s has.", e.Domain, SPIFFE)
	case e.Profile == SPIFFE && len(e.Roots) > 0:
		return problem.New(problem.BadConfig, "The bundle endpoint of %q has web roots, which only one of the profile %s has.", e.Domain, Web)
	case e.Profile == SPIFFE && certs.DomainOf(e.ID) == "":
		return problem.New(problem.BadConfig, "The id of the bundle endpoint of %q is not of the form spiffe://domain/path.", e.Domain)
	case e.Profile != Web && e.Profile != SPIFFE:
		return problem.New(problem.BadConfig, "The profile of the bundle endpoint of %q is neither %s nor %s.", e.Domain, Web, SPIFFE)
	}
	return nil
}

// Fetch asks a Web endpoint for a first bundle and writes it to file, which must not exist. A SPIFFE endpoint
// can only be asked by who has a first bundle already, and is problem.BadConfig.
func Fetch(ctx context.Context, e Endpoint, file string) error {
	if err := e.Check(); err != nil {
		return err
	}
	if e.Profile != Web {
		return problem.New(problem.BadConfig, "There is no first trust bundle of %q; its endpoint can only be believed by who has one.", e.Domain)
	}
	data, err := e.get(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := certs.ParseBundle(data); err != nil {
		return problem.Wrap(err, problem.BadConfig, "The trust bundle of provider %q is not good: %s", e.Domain, problem.As(err).Sentence())
	}
	if err := certs.CreateFile(file, data, 0o644); err != nil && !errors.Is(err, fs.ErrExist) {
		return problem.Wrap(err, problem.BadConfig, "The trust bundle of provider %q cannot be written.", e.Domain)
	}
	return nil
}

// Missing reports whether there is no file.
func Missing(file string) bool {
	_, err := os.Stat(file)
	return errors.Is(err, fs.ErrNotExist)
}

// A Poller keeps bundles fresh. All fields are required; the functions may be called concurrently.
type Poller struct {
	Trust     *certs.Trust // has a bundle file for every endpoint's domain
	Endpoints []Endpoint
	OnChange  func(token.Provider)        // another bundle is in use
	OnError   func(token.Provider, error) // told when it begins and when its text changes
}

// Run asks every endpoint at once and then again and again, until ctx ends.
func (p Poller) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, e := range p.Endpoints {
		all.Go(func() { p.follow(ctx, e) })
	}
	all.Wait()
}

func (p Poller) follow(ctx context.Context, e Endpoint) {
	told := ""
	for {
		wait, err := p.Poll(ctx, e)
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if err != nil && text != told {
			p.OnError(e.Domain, err)
		}
		told = text
		timer := time.NewTimer(jitter(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// Poll asks an endpoint once and puts a newer bundle into use. It returns when to ask again.
func (p Poller) Poll(ctx context.Context, e Endpoint) (next time.Duration, err error) {
	data, err := e.get(ctx, p.Trust)
	if err != nil {
		return retryAfter, err
	}
	changed, err := p.Trust.Replace(e.Domain, data)
	if changed {
		p.OnChange(e.Domain)
	}
	if err != nil {
		return retryAfter, err
	}
	b, err := certs.ParseBundle(data)
	if err != nil {
		return retryAfter, err
	}
	return refresh(b.Refresh), nil
}

// refresh is how long to wait for a bundle with that hint.
func refresh(hint time.Duration) time.Duration {
	if hint == 0 {
		hint = DefaultRefresh
	}
	return min(max(hint, MinRefresh), MaxRefresh)
}

// jitter shortens a pause by up to a tenth.
func jitter(d time.Duration) time.Duration { return d - time.Duration(rand.Int64N(int64(d/10)+1)) }

// get returns what the endpoint answers. trust judges a SPIFFE endpoint.
func (e Endpoint) get(ctx context.Context, trust *certs.Trust) ([]byte, error) {
	conf, err := e.tls(trust)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL, nil)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The address of the bundle endpoint of %q is not an https URL.", e.Domain)
	}
	transport := &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}
	client := &http.Client{
		Transport: transport,
		// Who answers is who was configured, and not whom that one names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, e.unreached(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, e.unreached(fmt.Errorf("HTTP status %d", resp.StatusCode))
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, certs.MaxFileSize+1))
	if err != nil {
		return nil, e.unreached(err)
	}
	return data, nil
}

func (e Endpoint) tls(trust *certs.Trust) (*tls.Config, error) {
	if e.Profile == SPIFFE {
		return certs.BundleClient(trust, e.ID), nil
	}
	conf, err := certs.WebClient(e.Roots)
	if err != nil {
		return nil, problem.Wrap(err, problem.BadConfig, "The web roots of the bundle endpoint of %q cannot be read.", e.Domain)
	}
	return conf, nil
}

// unreached keeps our own verdict about the endpoint's certificate; everything else is that there was no answer.
func (e Endpoint) unreached(err error) error {
	var known *problem.Error
	if errors.As(err, &known) {
		return fmt.Errorf("asking the bundle endpoint of %q: %w", e.Domain, err)
	}
	return &problem.Error{
		Code: problem.Unavailable, Cause: err, Detail: "The bundle endpoint of provider " + string(e.Domain) + " gave no bundle.",
		Remedy: "Check its address, its certificate and that it runs; meanwhile the last bundle stays in use.",
	}
}
