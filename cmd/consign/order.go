package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const orderHelp = `List, show and withdraw orders. A standing order, which 'consign cp' makes with --every, copies again
and again until its end, each time as a transfer of its own; an order without --every runs once.

  consign cp -r --every 1h --expires 90d north:/data/ south:/copy/
  consign order list
  consign order show ID
  consign order withdraw ID

A standing order needs certificates of its accounts that are good, with the keys that signed it. When you renew one, keep its
key, as 'consign ca renew' does, and run any command: the broker takes the newer certificate from it. 'consign order refresh'
does that for all accounts at once. An order whose key is gone must be withdrawn and made anew.`

func (a *app) orderCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "order", Aliases: []string{"orders"}, Short: "List, show and withdraw orders", Long: orderHelp,
		Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	cmd.AddCommand(a.orderListCommand(), a.orderShowCommand(), a.orderWithdrawCommand(), a.orderRefreshCommand())
	return cmd
}

func (a *app) orderListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the standing orders of these accounts, newest first",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.eachOrder(cmd, newPrinter(a, []string{"ID", "STATE", "EVERY", "RUNS", "NEXT", "FROM", "TO"}, func(o api.OrderInfo) []string {
				return []string{
					string(o.ID), string(o.State), everyText(o.Period), runsText(o), nextText(o), printable(o.From.String()), printable(o.To.String()),
				}
			}))
		},
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) orderRefreshCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "refresh", Short: "Hand in renewed certificates for the standing orders of these accounts",
		Long: `Call the broker with the certificate of each account, which it then takes beside the standing orders of that account if it is
newer and of the key that signed them, and list until when the certificates of each order are good. Every other command
does the same for the account that it uses.`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.eachOrder(cmd, newPrinter(a, []string{"ID", "STATE", "GOOD UNTIL", "NEXT", "WAITING"}, func(o api.OrderInfo) []string {
				until := "-"
				if o.GoodUntil != nil {
					until = timeText(*o.GoodUntil)
				}
				return []string{string(o.ID), string(o.State), until, nextText(o), printable(o.Waiting)}
			}))
		},
	}
	addClientFlags(cmd)
	return cmd
}

// eachOrder prints the standing orders of all accounts, after the broker has heard from each of them.
func (a *app) eachOrder(cmd *cobra.Command, out *printer[api.OrderInfo]) error {
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.preflight(); err != nil {
		return err
	}
	good := s.good()
	for _, i := range good {
		// With each account once before anything is printed, so that the certificates of all are known.
		if _, err := s.clients[i].Orders(cmd.Context(), "", 1); err != nil {
			return err
		}
	}
	return printOnce(cmd.Context(), s, good, out, func(o api.OrderInfo) token.TransferID { return o.ID }, func(c *api.Client, cursor string) (api.Page[api.OrderInfo], error) {
		return c.Orders(cmd.Context(), cursor, api.MaxPage)
	})
}

// printOnce prints what the accounts of those indexes have. What two of them see, by themselves or because they are linked, is printed for the first.
func printOnce[T any](ctx context.Context, s *session, accounts []int, out *printer[T], id func(T) token.TransferID, next func(*api.Client, string) (api.Page[T], error)) error {
	seen := map[token.TransferID]bool{}
	for _, i := range accounts {
		err := pages(ctx, func(cursor string) (api.Page[T], error) { return next(s.clients[i], cursor) }, func(v T) error {
			if seen[id(v)] {
				return nil
			}
			seen[id(v)] = true
			return out.Print(v)
		})
		if err != nil {
			return err
		}
	}
	return out.Close()
}

func everyText(period int64) string {
	if period == 0 {
		return "once"
	}
	return spanText(time.Duration(period) * time.Second)
}

// runsText counts the runs of an order.
func runsText(o api.OrderInfo) string {
	if o.Skipped == 0 {
		return strconv.FormatInt(o.Runs, 10)
	}
	return fmt.Sprintf("%d (%d skipped)", o.Runs, o.Skipped)
}

func nextText(o api.OrderInfo) string {
	if o.Next == nil {
		return "-"
	}
	return timeText(*o.Next)
}

func (a *app) orderShowCommand() *cobra.Command {
	var runs bool
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show an order and its newest runs",
		Long: `Show an order, by its id or by that of one of its runs. Each run is a transfer: see 'consign transfer show' for
what became of it.`,
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withOrder(cmd, args[0], func(_ *session, c *api.Client, o api.OrderInfo) error {
				if runs {
					return a.printRuns(cmd.Context(), c, o.ID, 0)
				}
				if a.format != table {
					return a.printJSON(o)
				}
				if err := a.printOrder(o); err != nil || o.Period == 0 {
					return err
				}
				fmt.Fprintln(a.out)
				return a.printRuns(cmd.Context(), c, o.ID, 10)
			})
		},
	}
	cmd.Flags().BoolVar(&runs, "runs", false, "list every run instead, newest first")
	addClientFlags(cmd)
	return cmd
}

// withOrder calls fn with an order and the client of an account that may see it.
func (a *app) withOrder(cmd *cobra.Command, arg string, fn func(*session, *api.Client, api.OrderInfo) error) error {
	id, err := token.ParseTransferID(arg)
	if err != nil {
		return &problem.Error{
			Code: problem.Usage, Detail: quoted(arg) + " is not the id of an order",
			Remedy: "See 'consign order list' and 'consign transfer list' for the ids.",
		}
	}
	return firstSeeing(a, cmd, func(c *api.Client) (api.OrderInfo, error) { return c.OrderInfo(cmd.Context(), id) }, fn)
}

func (a *app) printOrder(o api.OrderInfo) error {
	rows := [][2]string{
		{"order", string(o.ID)}, {"state", string(o.State)}, {"verb", string(o.Do)}, {"every", everyText(o.Period)},
		{"from", printable(o.From.String())}, {"to", printable(o.To.String())}, {"signed", timeText(o.Signed)}, {"ends", timeText(o.Expires)},
	}
	for _, id := range o.Accounts {
		rows = append(rows, [2]string{"account", string(id)})
	}
	if o.Period != 0 {
		rows = append(rows, [2]string{"runs", runsText(o)}, [2]string{"next run", nextText(o)})
		if o.GoodUntil != nil {
			rows = append(rows, [2]string{"certificates", "good until " + timeText(*o.GoodUntil)})
		}
		if o.Waiting != "" {
			rows = append(rows, [2]string{"waiting", printable(o.Waiting)})
		}
	}
	if o.Withdrawn != nil {
		rows = append(rows, [2]string{"withdrawn", timeText(*o.Withdrawn) + " by " + string(o.WithdrawnBy)})
		if len(o.Untold) > 0 {
			rows = append(rows, [2]string{"untold", untoldText(o)})
		}
	}
	return a.printPairs(rows)
}

// untoldText names the agents that have not said that they know of a withdrawal.
func untoldText(o api.OrderInfo) string {
	var names []string
	for _, id := range o.Untold {
		names = append(names, string(id))
	}
	return strings.Join(names, ", ")
}

// printRuns lists the runs of an order, newest first: at most limit, or all if that is 0.
func (a *app) printRuns(ctx context.Context, c *api.Client, id token.TransferID, limit int) error {
	out := newPrinter(a, []string{"RUN", "TRANSFER", "STATE", "BEGUN", "DONE", "SIZE", "OUTCOMES"}, func(t api.Transfer) []string {
		return []string{
			strconv.FormatInt(t.Run, 10), string(t.ID), stateText(t), timeText(t.Created), fmt.Sprintf("%d/%d", t.ItemsDone, t.Items), bytesText(t.Bytes), outcomesText(t),
		}
	})
	n := 0
	err := pages(ctx, func(cursor string) (api.Page[api.Transfer], error) {
		page, err := c.Runs(ctx, id, cursor)
		if limit > 0 {
			page.Next, page.Items = "", page.Items[:min(len(page.Items), limit)]
		}
		return page, err
	}, func(t api.Transfer) error {
		n++
		return out.Print(t)
	})
	if err != nil {
		return err
	}
	return out.Close()
}

func (a *app) orderWithdrawCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "withdraw ID", Short: "Withdraw an order: nothing more is done for it, and what runs is cancelled",
		Long: `Sign with one of the order's accounts that nothing more is to be done for it. What runs is cancelled, no run follows, and
each agent that could take part is shown the withdrawal, and refuses the order from then on, whatever the broker says.
What is stored stays.`,
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withOrder(cmd, args[0], func(s *session, _ *api.Client, o api.OrderInfo) error {
				return s.withdraw(cmd.Context(), o)
			})
		},
	}
	addClientFlags(cmd)
	return cmd
}

// withdraw signs the withdrawal of an order with the first of our accounts that is good, and hands it in.
func (s *session) withdraw(ctx context.Context, target api.OrderInfo) error {
	now := s.a.now()
	if !now.Before(target.Expires) {
		return problem.New(problem.Conflict, "Order %s has ended by itself at %s", target.ID, timeText(target.Expires))
	}
	var by *certs.Pair
	var first error
	for _, p := range s.accounts {
		if !slices.Contains(target.Accounts, p.Identity()) {
			continue
		}
		err := p.Preflight(now)
		if err == nil {
			by = p
			break
		}
		first = cmp.Or(first, err)
	}
	if by == nil && first != nil {
		return renewFirst(first)
	}
	if by == nil {
		return problem.New(problem.CertMissing, "The configuration names none of the accounts of order %s", target.ID)
	}
	life := min(target.Expires.Sub(now), token.MaxOrderLife)
	o, signed, err := s.signBy(token.Order{Do: token.Withdraw, Target: target.ID}, life, []*certs.Pair{by})
	if err != nil {
		return err
	}
	c := s.client(by.Identity().Provider())
	got, err := c.Withdraw(ctx, o.Target, signed)
	if problem.Of(err) == problem.Unavailable && ctx.Err() == nil { // it may have it already, which is the same
		got, err = c.Withdraw(ctx, o.Target, signed)
	}
	if err != nil {
		return err
	}
	if s.a.format != table {
		return s.a.printJSON(got)
	}
	s.a.note("order %s is withdrawn", got.ID)
	if len(got.Untold) > 0 {
		s.a.note("to be told yet: %s", untoldText(got))
	}
	return nil
}
