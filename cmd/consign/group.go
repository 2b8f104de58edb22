package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const groupHelp = `Keep the groups of a provider, which its access control lists may name with the flag IDENTIFIER_GROUP. Only administrators of the
provider can, whom the broker's configuration names. A GROUP is written as provider:name; a MEMBER is a subscriber of that provider, or a whole
identity of any.

  consign group add north:interns bob spiffe://south/subscriber/carol
  consign group remove north:interns bob
  consign group remove --all north:interns
  consign group list north

Administrators see all groups, others those that they are in. The group "subscribers" is every subscriber of the provider, and ADMINUSERS@ its administrators: nobody can change them.`

func (a *app) groupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "group", Aliases: []string{"groups"}, Short: "Keep the groups that lists name", Long: groupHelp,
		Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	cmd.AddCommand(a.groupAddCommand(), a.groupRemoveCommand(), a.groupListCommand(), a.groupShowCommand())
	return cmd
}

// parseGroup reads provider:name.
func parseGroup(arg string) (token.Provider, string, error) {
	p, name, ok := strings.Cut(arg, ":")
	if !ok || name == "" || token.CheckProvider(token.Provider(p)) != nil {
		return "", "", &problem.Error{Code: problem.Usage, Detail: quoted(arg) + " does not name a group", Remedy: "Write it as provider:name, for example north:interns."}
	}
	return token.Provider(p), name, nil
}

// members makes identities of arguments.
func members(args []string, p token.Provider) ([]token.Identity, error) {
	var out []token.Identity
	for _, arg := range args {
		who, err := expandWho(arg, p)
		if err != nil {
			return nil, err
		}
		out = append(out, token.Identity(who))
	}
	return out, nil
}

func (a *app) groupAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add GROUP MEMBER...", Short: "Put members into a group, which is made if it is not there",
		Args: atLeast(2, "a GROUP and one MEMBER at least"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeGroup(cmd, args, func(ms []token.Identity) api.GroupChange { return api.GroupChange{Add: ms} })
		},
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) groupRemoveCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "remove GROUP MEMBER... | remove --all GROUP", Aliases: []string{"rm"}, Short: "Take members out of a group, or remove it",
		Args: atLeast(1, "a GROUP, and members"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 1) {
				return usage(cmd, "Name the members that are to go, or give --all to remove the group")
			}
			if !all {
				return a.changeGroup(cmd, args, func(ms []token.Identity) api.GroupChange { return api.GroupChange{Remove: ms} })
			}
			p, name, err := parseGroup(args[0])
			if err != nil {
				return err
			}
			return a.atProvider(cmd, p, func(c *api.Client) error { return c.RemoveGroup(cmd.Context(), p, name) })
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove the group with all its members")
	addClientFlags(cmd)
	return cmd
}

// atLeast returns an argument check for n positional arguments or more.
func atLeast(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return usage(cmd, "%q takes %s", cmd.CommandPath(), what)
		}
		return nil
	}
}

// atProvider calls fn with the client of the account at p.
func (a *app) atProvider(cmd *cobra.Command, p token.Provider, fn func(*api.Client) error) error {
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	c, err := s.clientAt(p)
	if err != nil {
		return err
	}
	return fn(c)
}

func (a *app) changeGroup(cmd *cobra.Command, args []string, change func([]token.Identity) api.GroupChange) error {
	p, name, err := parseGroup(args[0])
	if err != nil {
		return err
	}
	ms, err := members(args[1:], p)
	if err != nil {
		return err
	}
	return a.atProvider(cmd, p, func(c *api.Client) error {
		g, err := c.ChangeGroup(cmd.Context(), p, name, change(ms))
		if err != nil || a.format == table {
			return err
		}
		return a.printJSON(g)
	})
}

func (a *app) groupListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list PROVIDER", Aliases: []string{"ls"}, Short: "List the groups of a provider", Args: exactly("PROVIDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := token.Provider(args[0])
			if err := token.CheckProvider(p); err != nil {
				return err
			}
			out := newPrinter(a, []string{"GROUP", "MEMBERS"}, func(g api.Group) []string {
				count := strconv.FormatInt(g.Count, 10)
				if g.Reserved && g.Count == 0 {
					count = "-"
				}
				return []string{string(g.Provider) + ":" + g.Name, count}
			})
			return a.atProvider(cmd, p, func(c *api.Client) error {
				page, err := c.Groups(cmd.Context(), p)
				if err != nil {
					return err
				}
				for _, g := range page.Items {
					if err := out.Print(g); err != nil {
						return err
					}
				}
				return out.Close()
			})
		},
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) groupShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show GROUP", Short: "List the members of a group", Args: exactly("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, name, err := parseGroup(args[0])
			if err != nil {
				return err
			}
			return a.atProvider(cmd, p, func(c *api.Client) error {
				out := newPrinter(a, nil, func(id token.Identity) []string { return []string{string(id)} })
				err := pages(cmd.Context(), func(cursor string) (api.Page[token.Identity], error) {
					return c.Members(cmd.Context(), p, name, cursor)
				}, out.Print)
				if err != nil {
					return err
				}
				return out.Close()
			})
		},
	}
	addClientFlags(cmd)
	return cmd
}
