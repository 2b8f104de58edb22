package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// lookupLife is how long an order that is carried out while its subscriber waits is good for.
const lookupLife = 10 * time.Minute

// A session is a subscriber with its configuration, at its broker.
type session struct {
	a        *app
	trust    *certs.Trust
	accounts []*certs.Pair // in the order of the configuration, at most one a provider
	clients  []*api.Client // one an account
}

// addClientFlags adds the flags that stand for settings of config.yaml.
func addClientFlags(cmd *cobra.Command) {
	cmd.Flags().String("broker-url", "", "order from the broker at this `URL`")
	cmd.Flags().String("broker-id", "", "the broker's `identity`, spiffe://domain/broker/name")
}

// clientConfig reads the subscriber's configuration, which must be there. flags may be nil.
func (a *app) clientConfig(flags *pflag.FlagSet) (cliConfig, error) {
	files, err := a.files(subscriberConfig)
	if err != nil {
		return cliConfig{}, err
	}
	cfg, got, err := a.loadClient(files, flags)
	if err != nil {
		return cfg, err
	}
	if len(got.files) == 0 && cfg.Broker.URL == "" {
		return cfg, &problem.Error{
			Code:   problem.BadConfig,
			Detail: "There is no configuration; looked for " + files[len(files)-1] + " and " + files[0],
			Remedy: "Write one as docs/OPERATIONS.md shows, or name it with --config or " + envConfig + ".",
		}
	}
	return cfg, nil
}

// knownConfig reads what there is of the subscriber's configuration.
func (a *app) knownConfig(flags *pflag.FlagSet) (cliConfig, error) {
	files, err := a.candidates(subscriberConfig)
	if err != nil {
		return cliConfig{}, err
	}
	cfg, _, err := a.loadClient(files, flags)
	return cfg, err
}

func (a *app) loadClient(files []string, flags *pflag.FlagSet) (cliConfig, loaded, error) {
	var cfg cliConfig
	got, err := a.load(&cfg, loading{files: files, flags: flags, flagKey: map[string]string{
		"broker-url": join("broker", "url"), "broker-id": join("broker", "id"),
	}})
	return cfg, got, err
}

// open reads the configuration and the accounts. It connects to nobody yet.
func (a *app) open(cmd *cobra.Command) (*session, error) {
	return a.openWith(cmd.Context(), cmd.Flags())
}

// openBroker checks what the configuration says of the broker, and opens the bundles.
func (c cliConfig) openBroker() (*certs.Trust, error) {
	if c.Broker.URL == "" || c.Broker.ID == "" {
		return nil, problem.New(problem.BadConfig, "The configuration names no broker: broker.url and broker.id are needed")
	}
	if u, err := url.Parse(c.Broker.URL); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, problem.New(problem.BadConfig, "The broker's address %s is not of the form https://host:port", quoted(c.Broker.URL))
	}
	if id, err := token.ParseIdentity(string(c.Broker.ID)); err != nil || id.Role() != token.Broker {
		return nil, problem.New(problem.BadConfig, "The setting broker.id is %s, which is not of the form spiffe://domain/broker/name", quoted(string(c.Broker.ID)))
	}
	trust, err := c.trustConfig.open()
	if err != nil {
		return nil, err
	}
	if !slices.Contains(trust.Providers(), c.Broker.ID.Provider()) {
		return nil, problem.New(problem.BadConfig, "The configuration has no bundle of the broker's domain %q under trust", c.Broker.ID.Provider())
	}
	return trust, nil
}

func (a *app) openWith(ctx context.Context, flags *pflag.FlagSet) (*session, error) {
	cfg, err := a.clientConfig(flags)
	if err != nil {
		return nil, err
	}
	s := &session{a: a}
	if s.trust, err = cfg.openBroker(); err != nil {
		return nil, err
	}
	for _, f := range cfg.Accounts {
		p, err := a.openAccount(ctx, f)
		if err != nil {
			return nil, err
		}
		if at := p.Identity().Provider(); s.account(at) != nil {
			return nil, problem.New(problem.BadConfig, "There are two accounts at %q in the configuration", at)
		}
		s.accounts = append(s.accounts, p)
		s.clients = append(s.clients, api.NewClient(cfg.Broker.URL, certs.BrokerClient(p, s.trust, cfg.Broker.ID)))
	}
	if len(s.accounts) == 0 {
		return nil, &problem.Error{Code: problem.CertMissing, Detail: "The configuration names no account", Remedy: addAccount}
	}
	return s, nil
}

// Close says what the broker has to tell of keys that changed, and releases the connections.
func (s *session) Close() {
	s.tellChanges()
	for _, c := range s.clients {
		c.Close()
	}
}

// account returns the account at p, or nil.
func (s *session) account(p token.Provider) *certs.Pair {
	for _, a := range s.accounts {
		if a.Identity().Provider() == p {
			return a
		}
	}
	return nil
}

// client returns the client of the account at p, or the first one.
func (s *session) client(p token.Provider) *api.Client {
	for i, a := range s.accounts {
		if a.Identity().Provider() == p {
			return s.clients[i]
		}
	}
	return s.clients[0]
}

// preflight explains why one of our certificates would be refused.
func (s *session) preflight() error {
	var first error
	for _, a := range s.accounts {
		err := a.Preflight(s.a.now())
		if err == nil {
			return nil
		}
		if first == nil {
			first = renewFirst(err)
		}
	}
	return first
}

// good returns which of our accounts, by index, have a certificate that is good now, and warns of those that have not: what they alone see is left out.
func (s *session) good() []int {
	var is []int
	for i, p := range s.accounts {
		if err := p.Preflight(s.a.now()); err != nil {
			s.a.note("warning: %s", printable(problem.As(renewFirst(err)).Sentence()))
			continue
		}
		is = append(is, i)
	}
	return is
}

// each calls fn with the client of each account until one may see what is asked for.
func (s *session) each(fn func(*api.Client) error) error {
	var first error
	for i, c := range s.clients {
		err := s.accounts[i].Preflight(s.a.now())
		if err != nil {
			err = renewFirst(err)
		} else {
			err = fn(c)
		}
		if err == nil {
			return nil
		}
		if first == nil || problem.Of(first) == problem.Hidden {
			first = err
		}
		if code := problem.Of(err); code != problem.Hidden && code != problem.NotFound && code != problem.CertExpired {
			return err
		}
	}
	return first
}

// firstSeeing calls fn with what get returns, and with the client of the first account that may see it.
func firstSeeing[T any](a *app, cmd *cobra.Command, get func(*api.Client) (T, error), fn func(*session, *api.Client, T) error) error {
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	var got T
	var by *api.Client
	err = s.each(func(c *api.Client) (err error) {
		by = c
		got, err = get(c)
		return err
	})
	if err != nil {
		return err
	}
	return fn(s, by, got)
}

// sign completes o with an id, its times and the accounts at the providers that it
// names, and signs it with the key of each.
func (s *session) sign(ctx context.Context, o token.Order, life time.Duration) (token.Order, api.SignedOrder, error) {
	pairs, err := s.pairsFor(ctx, o)
	if err != nil {
		return token.Order{}, api.SignedOrder{}, err
	}
	return s.signBy(o, life, pairs)
}

// signBy is sign with the given accounts, sorted by identity.
func (s *session) signBy(o token.Order, life time.Duration, pairs []*certs.Pair) (token.Order, api.SignedOrder, error) {
	none := func(err error) (token.Order, api.SignedOrder, error) { return token.Order{}, api.SignedOrder{}, err }
	id, err := uuid.NewV7()
	if err != nil {
		return none(err)
	}
	now := s.a.now()
	o.ID, o.Iat, o.Exp = token.TransferID(id.String()), now.Unix(), now.Add(life).Unix()
	for _, p := range pairs {
		o.Accounts = append(o.Accounts, p.Identity())
	}
	if err := o.Check(); err != nil {
		return none(err)
	}
	var signed api.SignedOrder
	signed.JWS, signed.Chains, err = signedBy(pairs, func(by token.Signer) (string, error) { return by.Order(o) })
	if err != nil {
		return none(err)
	}
	return o, signed, nil
}

// signedBy has each account sign one statement, and returns the signatures with the certificate chains to send beside them.
func signedBy(pairs []*certs.Pair, statement func(token.Signer) (string, error)) (jws, chains []string, err error) {
	for _, p := range pairs {
		cert, chain, _ := p.Current()
		key, ok := cert.PrivateKey.(crypto.Signer)
		if !ok {
			return nil, nil, errors.New("the account's key cannot sign")
		}
		signer, err := token.NewSigner(key)
		if err != nil {
			return nil, nil, err
		}
		one, err := statement(signer)
		if err != nil {
			return nil, nil, ofAccount(p, err)
		}
		jws, chains = append(jws, one), append(chains, string(chain.PEM()))
	}
	return jws, chains, nil
}

// pairsFor returns the accounts at the providers of o, sorted by identity, each good now; or says of each that
// is missing or out of its time what to do.
func (s *session) pairsFor(ctx context.Context, o token.Order) ([]*certs.Pair, error) {
	var pairs []*certs.Pair
	var wrong []*problem.Error
	for i, l := range []token.Location{o.From, o.To} {
		if l.Provider == "" || i == 1 && l.Provider == o.From.Provider {
			continue
		}
		p := s.account(l.Provider)
		if p == nil {
			wrong = append(wrong, problem.As(s.noAccount(ctx, l.Provider)))
		} else if err := p.Preflight(s.a.now()); err != nil {
			wrong = append(wrong, renewFirst(err))
		}
		pairs = append(pairs, p)
	}
	if len(wrong) == 1 {
		return nil, wrong[0]
	}
	if len(wrong) > 1 {
		both := *wrong[0]
		both.Detail = strings.TrimSuffix(both.Sentence(), ".") + ". " + wrong[1].Sentence()
		if other := wrong[1].Advice(); other != both.Advice() {
			both.Remedy = both.Advice() + " " + other
		}
		return nil, &both
	}
	slices.SortFunc(pairs, func(a, b *certs.Pair) int {
		if a.Identity() < b.Identity() {
			return -1
		}
		return 1
	})
	return pairs, nil
}

// renewFirst says what to do about a certificate of ours that is past its end.
func renewFirst(err error) *problem.Error {
	e := *problem.As(err)
	if e.Code == problem.CertExpired {
		e.Remedy = "Renew the certificate at the provider: a token of its operator and 'consign ca join' make a new one, and 'consign account add --replace' uses it."
	}
	return &e
}

// noAccount says whether the broker does not know p or we have no account there.
func (s *session) noAccount(ctx context.Context, p token.Provider) error {
	if page, err := s.clients[0].Providers(ctx); err == nil {
		var known []string
		for _, i := range page.Items {
			known = append(known, string(i.Name))
		}
		if !slices.Contains(known, string(p)) {
			e := &problem.Error{Code: problem.UnknownProvider, Detail: "The broker does not know the provider " + quoted(string(p))}
			if near := nearest(string(p), known); near != "" {
				e.Detail += "; did you mean " + quoted(near)
			}
			return e
		}
	}
	return &problem.Error{
		Code: problem.CertMissing, Remedy: addAccount,
		Detail: fmt.Sprintf("The configuration names no account at the provider %q, and an order must be signed by the account at each provider", p),
	}
}

// lookup carries out a list, stat or make order page by page. fn returns false to stop.
func (s *session) lookup(ctx context.Context, o token.Order, ask api.Lookup, fn func(api.Entry) (bool, error)) error {
	at := o.From.Provider
	if at == "" {
		at = o.To.Provider
	}
	_, signed, err := s.sign(ctx, o, lookupLife)
	if err != nil {
		return err
	}
	ask.Order = signed
	for {
		got, err := s.client(at).Lookup(ctx, ask)
		if err != nil {
			return err
		}
		for _, e := range got.Entries {
			if more, err := fn(e); err != nil || !more {
				return err
			}
		}
		if got.Next == "" {
			return nil
		}
		ask.After = got.Next
	}
}

// acting returns the client of one of the transfer's own accounts, which may change it, or c if none of ours is.
func (s *session) acting(c *api.Client, t api.Transfer) *api.Client {
	for i, p := range s.accounts {
		if slices.Contains(t.Accounts, p.Identity()) && p.Preflight(s.a.now()) == nil {
			return s.clients[i]
		}
	}
	return c
}
