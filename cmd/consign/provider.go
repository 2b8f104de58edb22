package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
)

func (a *app) providerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "provider", Aliases: []string{"providers"}, Short: "Show the providers of the broker",
		Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	list := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List providers, their containers and agents",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.providerList(cmd) },
	}
	addClientFlags(list)
	cmd.AddCommand(list)
	return cmd
}

func (a *app) providerList(cmd *cobra.Command) error {
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	var page api.Page[api.ProviderInfo]
	err = s.each(func(c *api.Client) error {
		page, err = c.Providers(cmd.Context())
		return err
	})
	if err != nil {
		return err
	}
	out := newPrinter(a, []string{"PROVIDER", "CONTAINERS", "AGENTS"}, func(p api.ProviderInfo) []string {
		var containers, agents []string
		for _, c := range p.Containers {
			containers = append(containers, printable(string(c)))
		}
		for _, g := range p.Agents {
			state := "away since " + timeText(g.Seen)
			if g.Connected {
				state = "connected"
			}
			agents = append(agents, fmt.Sprintf("%s (%s)", g.ID.Name(), state))
		}
		return []string{string(p.Name), orDash(containers), orDash(agents)}
	})
	for _, p := range page.Items {
		if err := out.Print(p); err != nil {
			return err
		}
	}
	return out.Close()
}

func orDash(words []string) string {
	if len(words) == 0 {
		return "-"
	}
	return strings.Join(words, ", ")
}
