package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

func (a *app) webhookCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "webhook", Aliases: []string{"webhooks"}, Short: "Have addresses told of what happens to one's transfers",
		Long: `Have addresses told of what happens to the transfers of an account. The broker posts each event to them, signed, in the
form of CloudEvents; docs/spec/webhooks.md shows how a receiver verifies it.`,
		Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	cmd.AddCommand(a.webhookAddCommand(), a.webhookListCommand(), a.webhookRemoveCommand(), a.webhookTestCommand(), a.webhookKeyCommand())
	return cmd
}

func (a *app) webhookAddCommand() *cobra.Command {
	var kinds []string
	var at string
	cmd := &cobra.Command{
		Use: "add URL", Short: "Have an https address told of the events of an account from now on", Args: exactly("URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.open(cmd)
			if err != nil {
				return err
			}
			defer s.Close()
			o := api.WebhookOrder{URL: args[0]}
			for _, k := range kinds {
				o.Events = append(o.Events, api.EventKind(k))
			}
			account := s.accounts[0]
			if at != "" {
				if account = s.account(token.Provider(at)); account == nil {
					return usage(cmd, "The configuration names no account at %s", quoted(at))
				}
			}
			if err := account.Preflight(a.now()); err != nil {
				return renewFirst(err)
			}
			c := s.client(account.Identity().Provider())
			h, err := c.AddWebhook(cmd.Context(), o)
			if err != nil {
				return err
			}
			key, err := c.WebhookKey(cmd.Context())
			if err != nil {
				return err
			}
			if a.format != table {
				return a.printJSON(h)
			}
			a.note("the events of %s are posted to it, signed with the key %s\nhint: consign webhook test %s", h.Account, key.Key, h.ID)
			fmt.Fprintln(a.out, printable(h.ID))
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&kinds, "event", nil, "only events of this `kind`, as complete or denied; default: all but those of every single batch")
	cmd.Flags().StringVar(&at, "at", "", "of the account at this `provider`; default: the first account")
	addClientFlags(cmd)
	return cmd
}

func (a *app) webhookListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the webhooks of these accounts and how they fare", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.open(cmd)
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.preflight(); err != nil {
				return err
			}
			out := newPrinter(a, []string{"ID", "ACCOUNT", "URL", "EVENTS", "WAITING", "STATE"}, func(h api.Webhook) []string {
				kinds := "usual"
				if len(h.Events) > 0 {
					kinds = strings.Join(strings.Fields(fmt.Sprint(h.Events)), ",")
					kinds = strings.Trim(kinds, "[]")
				}
				return []string{h.ID, string(h.Account), printable(h.URL), printable(kinds), strconv.FormatInt(h.Pending, 10), hookText(h)}
			})
			for _, i := range s.good() {
				page, err := s.clients[i].Webhooks(cmd.Context())
				if err != nil {
					return err
				}
				for _, h := range page.Items {
					if err := out.Print(h); err != nil {
						return err
					}
				}
			}
			return out.Close()
		},
	}
	addClientFlags(cmd)
	return cmd
}

// hookText says how a webhook fares.
func hookText(h api.Webhook) string {
	why := ""
	if h.Problem != nil {
		why = ": " + printable(h.Problem.Detail) + " (" + string(h.Problem.Code) + ")"
	}
	switch {
	case h.Stopped != nil:
		return "switched off " + timeText(*h.Stopped) + why
	case h.Failing != nil && h.Next != nil:
		return "failing since " + timeText(*h.Failing) + ", tried again " + timeText(*h.Next) + why
	case h.Failing != nil:
		return "failing since " + timeText(*h.Failing) + why
	case h.Delivered != nil:
		return "last told " + timeText(*h.Delivered)
	}
	return "not told anything yet"
}

func (a *app) webhookRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove ID", Aliases: []string{"rm"}, Short: "Forget a webhook, and what waits for it", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClients(cmd, func(c *api.Client) error { return c.RemoveWebhook(cmd.Context(), args[0]) })
		},
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) webhookTestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "test ID", Short: "Send a webhook a test event now; one that was switched off is on again if it takes it", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var got api.WebhookTest
			err := a.withClients(cmd, func(c *api.Client) (err error) {
				got, err = c.TestWebhook(cmd.Context(), args[0])
				return err
			})
			switch {
			case err != nil:
				return err
			case a.format != table:
				err = a.printJSON(got)
			case got.Delivered:
				a.note("the receiver has taken it")
			}
			if err == nil && !got.Delivered {
				err = errors.New("the broker did not say why")
				if got.Problem != nil {
					err = got.Problem.Err()
				}
			}
			return err
		},
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) webhookKeyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "Print the key that verifies what the broker posts", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var key api.WebhookKey
			err := a.withClients(cmd, func(c *api.Client) (err error) {
				key, err = c.WebhookKey(cmd.Context())
				return err
			})
			if err != nil {
				return err
			}
			if a.format != table {
				return a.printJSON(key)
			}
			fmt.Fprintln(a.out, printable(key.Key))
			return nil
		},
	}
	addClientFlags(cmd)
	return cmd
}

// withClients calls fn with the client of each account until one may see what is asked for.
func (a *app) withClients(cmd *cobra.Command, fn func(*api.Client) error) error {
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.each(fn)
}
