package main

import (
	"context"
	"crypto"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// tellWithin bounds how long a command asks for what the broker has to tell at its end.
const tellWithin = 5 * time.Second

func (a *app) accountLinkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "link", Short: "Tell the broker that all accounts of the configuration are yours", Args: exactly(),
		Long: `Link every account of the configuration with every other at the broker, by a statement that both sign. Each then sees the transfers of the
others, and is told if the key of another changes. It is a convenience and no authority: an order is still signed by each account that it
names.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.accountLink(cmd) },
	}
	addClientFlags(cmd)
	return cmd
}

// A linkReport is one pair in the result of 'consign account link'.
type linkReport struct {
	Accounts [2]token.Identity `json:"accounts"`
	New      bool              `json:"new"`
}

func (a *app) accountLink(cmd *cobra.Command) error {
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	if len(s.accounts) < 2 {
		return &problem.Error{Code: problem.CertMissing, Detail: "The configuration names one account, and a link is between two", Remedy: addAccount}
	}
	for _, p := range s.accounts {
		if err := p.Preflight(a.now()); err != nil {
			return renewFirst(err)
		}
	}
	out := newPrinter(a, []string{"ACCOUNT", "LINKED WITH", "SINCE"}, func(r linkReport) []string {
		since := "now"
		if !r.New {
			since = "before"
		}
		return []string{string(r.Accounts[0]), string(r.Accounts[1]), since}
	})
	for i, p := range s.accounts {
		known, err := s.clients[i].Account(cmd.Context())
		if err != nil {
			return err
		}
		for _, other := range s.accounts[i+1:] {
			r := linkReport{Accounts: [2]token.Identity{p.Identity(), other.Identity()}}
			r.New = !slices.ContainsFunc(known.Linked, func(l api.LinkedAccount) bool { return l.ID == other.Identity() })
			if r.New {
				if err := s.link(cmd.Context(), s.clients[i], p, other); err != nil {
					return err
				}
			}
			if err := out.Print(r); err != nil {
				return err
			}
		}
	}
	return out.Close()
}

// link has two accounts sign that they are one person's, and tells the broker.
func (s *session) link(ctx context.Context, c *api.Client, a, b *certs.Pair) error {
	version, err := c.Version(ctx)
	if err != nil {
		return err
	}
	challenge, err := c.LinkChallenge(ctx)
	if err != nil {
		return err
	}
	if a.Identity() > b.Identity() {
		a, b = b, a
	}
	l := token.Link{
		Accounts: []token.Identity{a.Identity(), b.Identity()}, Aud: version.Broker, Challenge: challenge.Challenge,
		Iat: s.a.now().Unix(), Exp: min(challenge.Exp, s.a.now().Add(token.MaxLinkLife).Unix()),
	}
	var signed api.SignedLink
	for _, p := range []*certs.Pair{a, b} {
		cert, chain, _ := p.Current()
		key, ok := cert.PrivateKey.(crypto.Signer)
		if !ok {
			return errors.New("the account's key cannot sign")
		}
		signer, err := token.NewSigner(key)
		if err != nil {
			return err
		}
		jws, err := signer.Link(l)
		if err != nil {
			return ofAccount(p, err)
		}
		signed.JWS, signed.Chains = append(signed.JWS, jws), append(signed.Chains, string(chain.PEM()))
	}
	_, err = c.Link(ctx, signed)
	return err
}

func (a *app) accountUnlinkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "unlink ACCOUNT", Short: "Remove the links of an account with yours", Args: exactly("ACCOUNT"),
		Long: "Remove the links between ACCOUNT, an identity or the provider of one of yours, and the accounts of the configuration.",
		RunE: func(cmd *cobra.Command, args []string) error { return a.accountUnlink(cmd, args[0]) },
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) accountUnlink(cmd *cobra.Command, which string) error {
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	other := token.Identity(which)
	if own := s.account(token.Provider(which)); own != nil {
		other = own.Identity()
	}
	if _, err := token.ParseIdentity(string(other)); err != nil {
		return usage(cmd, "%s is neither an identity, as spiffe://south/subscriber/alice, nor the provider of one of your accounts", quoted(which))
	}
	var first error
	done := false
	for i, c := range s.clients {
		if s.accounts[i].Identity() == other || s.accounts[i].Preflight(a.now()) != nil {
			continue
		}
		switch _, err := c.Unlink(cmd.Context(), other); {
		case err == nil:
			done = true
			a.note("%s is not linked with %s any more", s.accounts[i].Identity(), other)
		case problem.Of(err) != problem.NotLinked:
			return err
		case first == nil:
			first = err
		}
	}
	if !done && first == nil {
		first = problem.New(problem.NotLinked, "No account of the configuration could be linked with %s", other)
	}
	if done {
		return nil
	}
	return first
}

func (a *app) accountAcknowledgeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "acknowledge NUMBER...", Short: "Say that the change of an account's key was yours", Args: cobra.MinimumNArgs(1),
		Long: `Say that the change of a key of which the broker tells is known to you and right. It takes the earlier key, or an account that was linked before
the change: the new key alone cannot end the notice for 30 days, because a thief would have it too. If the change was not yours, tell the
provider, whose authority issued the certificate.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.accountJudge(cmd, args, api.Mine) },
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) accountDisownCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "disown NUMBER...", Short: "Say that the change of an account's key was not yours", Args: cobra.MinimumNArgs(1),
		Long: `Say that the change of a key of which the broker tells was not yours, once you have told the provider. The notice ends, and the key can do nothing
by links for good. What it can do as the account, only the provider ends: its operator denies the certificate.`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.accountJudge(cmd, args, api.NotMine) },
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) accountJudge(cmd *cobra.Command, args []string, v api.Verdict) error {
	var numbers []int64
	for _, arg := range args {
		n, err := strconv.ParseInt(arg, 10, 64)
		if err != nil || n < 1 {
			return &problem.Error{Code: problem.Usage, Detail: quoted(arg) + " is not the number of a change of a key", Remedy: "See the notice, or 'consign account list -o json'."}
		}
		numbers = append(numbers, n)
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	for _, n := range numbers {
		// Each account may, if it is of those that are told: the first one that may, does.
		var refusal error
		for i, c := range s.clients {
			err := s.accounts[i].Preflight(a.now())
			if err == nil {
				_, err = c.Acknowledge(cmd.Context(), n, v)
			}
			if err == nil {
				refusal = nil
				break
			}
			if refusal == nil || problem.Of(refusal) == problem.Hidden {
				refusal = err
			}
			if code := problem.Of(err); code != problem.Hidden && code != problem.NotPermitted && code != problem.CertExpired {
				break
			}
		}
		if refusal != nil {
			return refusal
		}
		if v == api.NotMine {
			a.note("the change %d of a key is not yours; tell the provider, if you have not yet", n)
		} else {
			a.note("the change %d of a key is acknowledged", n)
		}
	}
	return nil
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

// tellChanges prints each change of a key of which the broker spoke to one of the accounts.
func (s *session) tellChanges() {
	ctx, cancel := context.WithTimeout(context.Background(), tellWithin)
	defer cancel()
	var told []api.KeyChange
	for _, c := range s.clients {
		if !c.Notices() {
			continue
		}
		known, err := c.Account(ctx)
		if err != nil {
			s.a.note("warning: the broker has something to tell of a key that changed, and could not be asked: %s", printable(problem.As(err).Sentence()))
			continue
		}
		for _, k := range known.Changes {
			if !slices.ContainsFunc(told, func(o api.KeyChange) bool { return o.N == k.N }) {
				told = append(told, k)
			}
		}
	}
	s.a.printChanges(told)
}

// printChanges prints a notice for each change of a key.
func (a *app) printChanges(changes []api.KeyChange) {
	for _, k := range changes {
		a.note("notice: the key of the account %s changed on %s from %s to %s. If that was not you, tell the provider.",
			printable(string(k.Account)), timeText(k.At), printable(string(k.From)), printable(string(k.To)))
		a.note("hint: if it was you: consign account acknowledge %d, with the earlier key or a linked account (from %s on with the new key alone); if not, once the provider knows: consign account disown %d", k.N, timeText(k.Alone), k.N)
	}
}

// asker returns what asks the broker of an account. A broker that cannot be asked is told of once.
func (a *app) asker(cmd *cobra.Command, cfg cliConfig) func(*certs.Pair) (*api.Account, *problemReport) {
	trust, err := cfg.openBroker()
	if err != nil {
		a.note("the broker is not asked: %s", printable(problem.As(err).Sentence()))
	}
	away := err != nil
	return func(p *certs.Pair) (*api.Account, *problemReport) {
		if away {
			return nil, nil
		}
		c := api.NewClient(cfg.Broker.URL, certs.BrokerClient(p, trust, cfg.Broker.ID))
		defer c.Close()
		known, err := c.Account(cmd.Context())
		if err = a.signers.explain(err); problem.Of(err) == problem.Unavailable {
			away = true
			a.note("the broker could not be asked: %s", printable(problem.As(err).Sentence()))
			return nil, nil
		}
		if err != nil {
			return nil, reportOf(err)
		}
		return &known, nil
	}
}
