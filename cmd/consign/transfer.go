package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// lookEvery is how often a transfer that is waited for is looked at.
const lookEvery = time.Second

func (a *app) transferCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "transfer", Aliases: []string{"transfers"}, Short: "Show, wait for, pause and cancel transfers",
		Args: cobra.ArbitraryArgs, RunE: needCommand,
	}
	cmd.AddCommand(a.transferListCommand(), a.transferShowCommand(), a.transferWaitCommand(), a.transferEventsCommand(), a.transferPauseCommand(), a.transferResumeCommand(), a.transferCancelCommand())
	return cmd
}

func (a *app) transferListCommand() *cobra.Command {
	var state string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the transfers of these accounts, newest first",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.transferList(cmd, api.State(state)) },
	}
	cmd.Flags().StringVar(&state, "state", "", "only those in this `state`: queued, running, paused, complete, partial, failed, cancelled, expired")
	addClientFlags(cmd)
	return cmd
}

func (a *app) transferList(cmd *cobra.Command, state api.State) error {
	known := []api.State{"", api.Queued, api.Running, api.Paused, api.Complete, api.Partial, api.Failed, api.Cancelled, api.Expired}
	if !slices.Contains(known, state) {
		return usage(cmd, "There is no state %s", quoted(string(state)))
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.preflight(); err != nil {
		return err
	}
	out := newPrinter(a, []string{"ID", "STATE", "DONE", "SIZE", "FROM", "TO"}, func(t api.Transfer) []string {
		return []string{
			string(t.ID), stateText(t), fmt.Sprintf("%d/%d", t.ItemsDone, t.Items), bytesText(t.Bytes),
			printable(t.From.String()), printable(t.To.String()),
		}
	})
	// A transfer between two of our accounts is seen by both: it is printed for the first that was asked. What a linked account sees, the first has shown.
	var linked, asked []token.Identity
	for _, i := range s.good() {
		c := s.clients[i]
		if slices.Contains(linked, s.accounts[i].Identity()) {
			continue
		}
		if i+1 < len(s.clients) {
			own, err := c.Account(cmd.Context())
			if err != nil {
				return err
			}
			for _, l := range own.Linked {
				linked = append(linked, l.ID)
			}
		}
		err := pages(cmd.Context(), func(cursor string) (api.Page[api.Transfer], error) {
			return c.Transfers(cmd.Context(), state, cursor, api.MaxPage)
		}, func(t api.Transfer) error {
			for _, earlier := range asked {
				if slices.Contains(t.Accounts, earlier) {
					return nil
				}
			}
			return out.Print(t)
		})
		if err != nil {
			return err
		}
		asked = append(asked, s.accounts[i].Identity())
	}
	return out.Close()
}

// pages calls each with every item of every page.
func pages[T any](ctx context.Context, next func(cursor string) (api.Page[T], error), each func(T) error) error {
	cursor := ""
	for ctx.Err() == nil {
		page, err := next(cursor)
		if err != nil {
			return err
		}
		for _, v := range page.Items {
			if err := each(v); err != nil {
				return err
			}
		}
		if page.Next == "" || page.Next == cursor {
			return nil
		}
		cursor = page.Next
	}
	return ctx.Err()
}

func (a *app) transferShowCommand() *cobra.Command {
	var items, events bool
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show a transfer; what was not transferred is listed with its reason",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.transferShow(cmd, args[0], items, events) },
	}
	cmd.Flags().BoolVar(&items, "items", false, "list every item instead, with outcome and digest")
	cmd.Flags().BoolVar(&events, "events", false, "list what happened instead")
	cmd.MarkFlagsMutuallyExclusive("items", "events")
	addClientFlags(cmd)
	return cmd
}

func (a *app) transferShow(cmd *cobra.Command, arg string, items, events bool) error {
	return a.withTransfer(cmd, arg, func(c *api.Client, t api.Transfer) error {
		switch {
		case events:
			return a.printEvents(cmd.Context(), c, t.ID)
		case items:
			return a.printItems(cmd.Context(), c, t.ID, nil)
		case a.format != table:
			return a.printJSON(t)
		}
		if err := a.printTransfer(t); err != nil {
			return err
		}
		bad := []token.Result{token.TakenBy, token.Altered, token.Denied, token.Failed, token.Left, token.Untried}
		bad = slices.DeleteFunc(bad, func(r token.Result) bool { return t.Outcomes[r] == 0 })
		if len(bad) == 0 {
			return nil
		}
		fmt.Fprintln(a.out)
		return a.printItems(cmd.Context(), c, t.ID, bad)
	})
}

// withTransfer calls fn with a transfer and the client of an account that may see it.
func (a *app) withTransfer(cmd *cobra.Command, arg string, fn func(*api.Client, api.Transfer) error) error {
	id, err := token.ParseTransferID(arg)
	if err != nil {
		return &problem.Error{
			Code: problem.Usage, Detail: quoted(arg) + " is not the id of a transfer",
			Remedy: "See 'consign transfer list' for the ids.",
		}
	}
	get := func(c *api.Client) (api.Transfer, error) { return c.Transfer(cmd.Context(), id, 0, 0) }
	return firstSeeing(a, cmd, get, func(s *session, c *api.Client, t api.Transfer) error { return fn(s.acting(c, t), t) })
}

func (a *app) printTransfer(t api.Transfer) error {
	finished := ""
	if t.Finished != nil {
		finished = timeText(*t.Finished)
	}
	planned := ""
	if !t.Planned && !t.State.Ended() {
		planned = " (the source is still being listed)"
	}
	rows := [][2]string{
		{"id", string(t.ID)}, {"state", stateText(t)}, {"from", printable(t.From.String())}, {"to", printable(t.To.String())},
		{"created", timeText(t.Created)}, {"finished", finished},
		{"objects", fmt.Sprintf("%d of %d%s", t.ItemsDone, t.Items, planned)},
		{"bytes", fmt.Sprintf("%s of %s", bytesText(t.BytesMoved), bytesText(t.Bytes))},
		{"outcomes", outcomesText(t)}, {"waiting", printable(t.Waiting)},
	}
	if t.Run > 0 {
		rows = append(rows, [2]string{"run", fmt.Sprintf("%d of the standing order %s", t.Run, t.Order)})
	}
	for _, id := range t.Accounts {
		rows = append(rows, [2]string{"account", string(id)})
	}
	if t.Authority == token.BySession {
		rows = append(rows, [2]string{"rests on", "the word of the broker: no account signed the order"})
	}
	for _, d := range t.Denials {
		rows = append(rows, [2]string{"denied", timeText(d.At) + " " + deniedText(d)}, [2]string{"hint", printable(d.Remedy)})
	}
	if t.Problem != nil {
		rows = append(rows, [2]string{"problem", printable(t.Problem.Detail) + " (" + string(t.Problem.Code) + ")"}, [2]string{"hint", printable(t.Problem.Remedy)})
	}
	return a.printPairs(rows)
}

// deniedText is the sentence of a denial with its code.
func deniedText(e api.Event) string {
	return printable(e.Note) + " (" + printable(string(e.Code)) + ")"
}

// stateText is the state with its flags.
func stateText(t api.Transfer) string {
	if len(t.Flags) == 0 {
		return string(t.State)
	}
	return string(t.State) + " (" + strings.Join(t.Flags, ", ") + ")"
}

// outcomesText counts outcomes, in a fixed order.
func outcomesText(t api.Transfer) string {
	var parts []string
	for _, r := range []token.Result{token.Stored, token.Existed, token.TakenBy, token.Altered, token.Denied, token.Failed, token.Left, token.Untried} {
		if n := t.Outcomes[r]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, r))
		}
	}
	if len(parts) == 0 {
		return "no outcomes"
	}
	return strings.Join(parts, ", ")
}

// printItems lists the items with the given outcomes; nil is all.
func (a *app) printItems(ctx context.Context, c *api.Client, id token.TransferID, only []token.Result) error {
	out := newPrinter(a, []string{"OUTCOME", "SIZE", "NAME", "DETAIL"}, func(i api.ItemReport) []string {
		detail := string(i.Digest)
		if len(i.Lost) > 0 {
			detail += " without " + printable(strings.Join(i.Lost, ", "))
		}
		if i.Code != "" {
			detail = printable(i.Detail) + " (" + string(i.Code) + ")"
		}
		return []string{string(i.Outcome), bytesText(i.Size), printable(string(i.Src)), detail}
	})
	if only == nil {
		only = []token.Result{""}
	}
	for _, r := range only {
		err := pages(ctx, func(cursor string) (api.Page[api.ItemReport], error) { return c.Items(ctx, id, r, cursor) }, out.Print)
		if err != nil {
			return err
		}
	}
	return out.Close()
}

func (a *app) printEvents(ctx context.Context, c *api.Client, id token.TransferID) error {
	out := newPrinter(a, []string{"AT", "EVENT", "NOTE"}, func(e api.Event) []string {
		note := printable(e.Note)
		if e.Code != "" {
			note = deniedText(e)
		}
		return []string{timeText(e.At), string(e.Kind), note}
	})
	after := int64(0)
	for {
		page, err := c.Events(ctx, id, after, 0)
		if err != nil {
			return err
		}
		for _, e := range page.Items {
			after = max(after, e.Seq)
			if err := out.Print(e); err != nil {
				return err
			}
		}
		if page.Next == "" || len(page.Items) == 0 {
			return out.Close()
		}
	}
}

func (a *app) transferWaitCommand() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait ID", Short: "Wait until a transfer has ended, with progress",
		Long: `Wait until a transfer has ended. The exit status is 0 if it is complete, 8 if it is partial, and
that of its problem if it failed. Ctrl-C leaves it running.`,
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTransfer(cmd, args[0], func(c *api.Client, t api.Transfer) error {
				return a.waitFor(cmd.Context(), c, t, timeout)
			})
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up waiting after this `time` (exit 75)")
	addClientFlags(cmd)
	return cmd
}

// waitFor shows a transfer until it has ended. There are five outcomes: nil if it is
// complete; its problem otherwise; an ending of status 75 after timeout (0 is none), and of status 130 if ctx
// ends; any other failure to ask.
func (a *app) waitFor(ctx context.Context, c *api.Client, t api.Transfer, timeout time.Duration) error {
	wait := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	m := newMeter(a)
	t, err := a.follow(wait, c, t, m)
	m.Close()
	switch {
	case ctx.Err() != nil:
		return &ending{problem.ExitInterrupted, fmt.Sprintf("detached: transfer %s goes on\nhint: consign transfer wait %s", t.ID, t.ID)}
	case wait.Err() != nil:
		return &ending{problem.ExitWaitTimeout, fmt.Sprintf("consign: transfer %s has not ended within %s; it goes on\nhint: consign transfer wait %s", t.ID, timeout, t.ID)}
	case err != nil:
		return err
	}
	m.summary(a.err, t)
	if a.format != table {
		if err := a.printJSON(t); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(a.out, printable(string(t.ID)))
	}
	return resultOf(t)
}

// follow looks at t until it has ended.
func (a *app) follow(ctx context.Context, c *api.Client, t api.Transfer, m *meter) (api.Transfer, error) {
	t, err := pursue(ctx, a, t, func(t api.Transfer) bool { return t.State.Ended() }, m.Show, func(ctx context.Context, t api.Transfer) (api.Transfer, error) {
		return c.Transfer(ctx, t.ID, t.Seq, lookEvery)
	})
	if err == nil {
		m.Show(t)
	}
	return t, err
}

// pursue looks at t, which it shows each time, until it is over. While the broker cannot be reached it says so once and
// goes on asking.
func pursue[T any](ctx context.Context, a *app, t T, over func(T) bool, show func(T), look func(context.Context, T) (T, error)) (T, error) {
	retry := backoff.NewExponentialBackOff(backoff.WithInitialInterval(lookEvery/4), backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(0))
	lost := false
	for !over(t) {
		show(t)
		asked := a.now()
		got, err := look(ctx, t)
		pause := lookEvery/4 - a.now().Sub(asked)
		switch {
		case err == nil:
			if lost {
				a.note("the broker is back")
			}
			t, lost = got, false
			retry.Reset()
		case ctx.Err() != nil:
			return t, ctx.Err()
		case problem.MayRetry(err):
			if !lost {
				a.note("waiting: %s", printable(problem.As(err).Sentence()))
			}
			lost, pause = true, retry.NextBackOff()
		default:
			return t, err
		}
		if pause > 0 && !over(t) {
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
				timer.Stop()
				return t, ctx.Err()
			case <-timer.C:
			}
		}
	}
	return t, nil
}

// resultOf returns nil for a transfer that is complete, and its problem otherwise.
func resultOf(t api.Transfer) error {
	show := "See 'consign transfer show " + string(t.ID) + "' for each item and its reason."
	switch t.State {
	case api.Complete:
		return nil
	case api.Partial:
		return &problem.Error{Code: problem.Partial, Detail: "Transfer " + string(t.ID) + " is partial: " + outcomesText(t), Remedy: show}
	case api.Cancelled:
		if t.Problem != nil && t.Problem.Code != problem.Cancelled {
			return t.Problem.Err() // of an order that was withdrawn
		}
		return problem.New(problem.Cancelled, "Transfer %s was cancelled: %s", t.ID, outcomesText(t))
	case api.Expired:
		return problem.New(problem.OrderExpired, "The order of transfer %s ended before it was complete: %s", t.ID, outcomesText(t))
	case api.Failed, api.Queued, api.Running, api.Paused:
	}
	if t.Problem != nil {
		return t.Problem.Err()
	}
	return errors.New("transfer " + string(t.ID) + " failed and the broker did not say why")
}

func (a *app) transferPauseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pause ID", Short: "Have a transfer rest until it is resumed",
		Long: `Have a transfer rest until it is resumed: bytes stop within seconds, nothing new is begun, and what was received
stays at the destination. Its destination names are kept from other transfers for an hour. The order ends when it says, paused or not.`,
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTransfer(cmd, args[0], func(c *api.Client, t api.Transfer) error {
				t, err := c.Pause(cmd.Context(), t.ID)
				return a.changed(t, err)
			})
		},
	}
	addClientFlags(cmd)
	return cmd
}

func (a *app) transferResumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "resume ID", Short: "Let a paused transfer go on where it was",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTransfer(cmd, args[0], func(c *api.Client, t api.Transfer) error {
				t, err := c.Resume(cmd.Context(), t.ID)
				return a.changed(t, err)
			})
		},
	}
	addClientFlags(cmd)
	return cmd
}

// changed says where a transfer stands that a command has changed.
func (a *app) changed(t api.Transfer, err error) error {
	if err != nil {
		return err
	}
	if a.format != table {
		return a.printJSON(t)
	}
	a.note("transfer %s is %s", t.ID, t.State)
	return nil
}

func (a *app) transferCancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cancel ID", Short: "Cancel a transfer; what is stored stays",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withTransfer(cmd, args[0], func(c *api.Client, t api.Transfer) error {
				if t.State.Ended() {
					return problem.New(problem.Conflict, "Transfer %s has already ended: it is %s", t.ID, t.State)
				}
				t, err := c.Cancel(cmd.Context(), t.ID)
				return a.changed(t, err)
			})
		},
	}
	addClientFlags(cmd)
	return cmd
}
