package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

func (a *app) accountLinkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "link", Short: "Tell the broker that all accounts of the configuration are yours", Args: exactly(),
		Long: `Link every account of the configuration with every other at the broker, by a statement that both sign. Each then sees the transfers of the
others, and is told if the key of another changes. An order is still signed by each account that it names; only where an
agent takes the word of this broker for people who cannot sign is a link as good as the signature of both.`,
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
	signed.JWS, signed.Chains, err = signedBy([]*certs.Pair{a, b}, func(by token.Signer) (string, error) { return by.Link(l) })
	if err != nil {
		return err
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
