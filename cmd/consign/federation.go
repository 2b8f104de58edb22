package main

import (
	"context"
	"maps"
	"os"
	"slices"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/federation"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A federationConfig is where a provider publishes its trust bundle, as SPIFFE Federation has it. The newest bundle is kept
// in the domain's file under trust, which the daemon must be able to replace.
type federationConfig struct {
	// URL is the address of the bundle endpoint, https.
	URL string `koanf:"url"`
	// Profile is how the endpoint proves who it is: https_web or https_spiffe. Default https_web.
	Profile string `koanf:"profile"`
	// CA are the web roots of the endpoint's certificate, PEM, for https_web. Default the system's.
	CA filePath `koanf:"ca"`
	// ID is the SPIFFE ID of the endpoint, for https_spiffe; a 'consign ca serve' is spiffe://domain/ca. The first bundle of its
	// domain must be in place.
	ID string `koanf:"id"`
}

// endpoints returns what is configured, sorted by domain. Every domain must have a bundle file.
func endpoints(conf map[token.Provider]federationConfig, trust trustConfig) ([]federation.Endpoint, error) {
	var out []federation.Endpoint
	for _, p := range slices.Sorted(maps.Keys(conf)) {
		c := conf[p]
		e := federation.Endpoint{Domain: p, URL: c.URL, Profile: federation.Profile(c.Profile), ID: c.ID}
		if e.Profile == "" {
			e.Profile = federation.Web
		}
		if trust.Trust[p] == "" {
			return nil, problem.New(problem.BadConfig, "The setting federation names %s, which has no entry under trust: that file is where its bundle is kept", quoted(string(p)))
		}
		if c.CA != "" {
			data, err := os.ReadFile(string(c.CA))
			if err != nil {
				return nil, problem.Wrap(err, problem.BadConfig, "The web roots of the bundle endpoint of %s cannot be read", quoted(string(p)))
			}
			e.Roots = data
		}
		if err := e.Check(); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// firstBundles fetches the bundles of endpoints whose domain has no file yet.
func firstBundles(ctx context.Context, all []federation.Endpoint, trust trustConfig) error {
	for _, e := range all {
		if file := string(trust.Trust[e.Domain]); federation.Missing(file) {
			if err := federation.Fetch(ctx, e, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// follower polls the endpoints.
func follower(all []federation.Endpoint, trust *certs.Trust, log *zap.Logger) federation.Poller {
	return federation.Poller{
		Trust: trust, Endpoints: all,
		OnChange: func(p token.Provider) { log.Info("another trust bundle is in use", domainField(p)) },
		OnError: func(p token.Provider, err error) {
			log.Warn("asking for a trust bundle", domainField(p), zap.String("code", string(problem.Of(err))), zap.Error(err))
		},
	}
}
