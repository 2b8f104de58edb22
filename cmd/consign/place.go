package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// clientAt returns the client of the account at p, or of the first account if there is none: an identity of another provider may be named in
// lists as well.
func (s *session) clientAt(p token.Provider) (*api.Client, error) {
	pair := s.account(p)
	if pair == nil {
		pair = s.accounts[0]
	}
	if err := pair.Preflight(s.a.now()); err != nil {
		return nil, renewFirst(err)
	}
	return s.client(pair.Identity().Provider()), nil
}

// node returns what the namespace knows of an address. What has no row of its own is an object or a container as the store has it: the two
// inherit differently.
func (s *session) node(ctx context.Context, at address) (*api.Client, api.Node, error) {
	c, err := s.clientAt(at.Provider)
	if err != nil {
		return nil, api.Node{}, err
	}
	n, err := c.Node(ctx, at.Location, at.kind())
	if err != nil || n.Known || at.kind() != "" {
		return c, n, err
	}
	kind, err := s.storedKind(ctx, at)
	if err != nil || kind == n.Kind {
		return c, n, err
	}
	n, err = c.Node(ctx, at.Location, kind)
	return c, n, err
}

// nodeAt is node for who asks for nothing else.
func (a *app) nodeAt(cmd *cobra.Command, where string) (api.Node, error) {
	at, err := parseAddress(where)
	if err != nil {
		return api.Node{}, err
	}
	s, err := a.open(cmd)
	if err != nil {
		return api.Node{}, err
	}
	defer s.Close()
	_, n, err := s.node(cmd.Context(), at)
	return n, err
}

// kind is what an address says of what it names: a '/' at its end makes it a container, and so is a whole one. Else it says nothing.
func (at address) kind() api.NodeKind {
	if at.into {
		return api.ContainerNode
	}
	return ""
}

// storedKind asks the store what an address names.
func (s *session) storedKind(ctx context.Context, at address) (api.NodeKind, error) {
	var kind api.NodeKind
	err := s.lookup(ctx, token.Order{Do: token.Stat, Scope: token.One, From: at.Location}, api.Lookup{}, func(e api.Entry) (bool, error) {
		switch {
		case e.Code != "":
			return false, problem.New(e.Code, "%s: %s", printable(at.String()), e.Detail)
		case e.Type == string(api.ContainerNode):
			kind = api.ContainerNode
		default:
			kind = api.ObjectNode
		}
		return false, nil
	})
	if err == nil && kind == "" {
		err = problem.New(problem.Missing, "There is no object %s", quoted(at.String()))
	}
	if err != nil {
		var p *problem.Error
		if errors.As(err, &p) && p.Code == problem.Missing {
			return "", &problem.Error{
				Code: problem.Missing, Detail: "There is nothing at " + quoted(at.String()) + ", in the store or in the namespace",
				Remedy: "Check the name with 'consign ls'; a '/' at its end names a container, also one that is not there yet.",
			}
		}
		return "", err
	}
	return kind, nil
}

// expandWho makes the identity that an argument means at a provider: alice is its subscriber alice. What is an identity or a special identifier
// stays as it is.
func expandWho(who string, p token.Provider) (string, error) {
	if strings.HasSuffix(who, "@") {
		return who, nil
	}
	if !strings.Contains(who, "/") {
		who = string(token.NewIdentity(p, token.Subscriber, who))
	}
	id, err := token.ParseIdentity(who)
	if err != nil {
		return "", &problem.Error{
			Code: problem.Usage, Detail: quoted(who) + " is not an identity",
			Remedy: "Write it as alice, for the subscriber alice of " + string(p) + ", or as spiffe://provider/subscriber/alice.",
		}
	}
	return string(id), nil
}

// shortWho is expandWho backwards, for people.
func shortWho(who string, p token.Provider) string {
	if short, ok := strings.CutPrefix(who, string(token.NewIdentity(p, token.Subscriber, ""))); ok {
		return short
	}
	return who
}
