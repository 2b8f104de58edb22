package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// adoptOptions are the flags of 'consign adopt'.
type adoptOptions struct {
	owner   string
	meta    []string
	expires string
	wait    bool
	timeout time.Duration
}

const adoptHelp = `Enter what stands in a store in the namespace: every object and container below an address that ends in '/', or one
object. Each gets a row with its owner, size, version, time and the store's own digest, so that it is found, has metadata
and access rights of its own, and counts. Nothing in the store is changed or read.

  consign adopt north:/data/old/
  consign adopt --owner bob --meta project=apollo --wait north:/data/
  consign adopt north:/data/old/a.csv
  consign adopt list
  consign adopt show ID
  consign adopt cancel ID

You must be the owner of the place, with WRITE_METADATA there (and WRITE_OWNER, to name another owner), or an administrator of its provider. What has
a row already keeps its owner, its list and its metadata; its size, version and time are brought up to date. What is gone from the store
is left alone. Below a container that is somebody else's, an owner's adoption enters nothing.

The broker does it in the background, slowly enough for others to work, and goes on after any restart, until all is entered or the
order ends (--expires). The same command again is a new adoption, which finds what has come since.`

func (a *app) adoptCommand() *cobra.Command {
	var opt adoptOptions
	cmd := &cobra.Command{
		Use: "adopt [flags] ADDRESS", Short: "Enter what stands in a store in the namespace, with an owner and metadata", Long: adoptHelp,
		Args: exactly("ADDRESS"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.adopt(cmd, args[0], opt) },
	}
	f := cmd.Flags()
	f.StringVar(&opt.owner, "owner", "", "who owns what is entered: an `identity`, or the name of a subscriber of the place's provider; default: your account there")
	f.StringArrayVar(&opt.meta, "meta", nil, "user metadata of what is entered, as `item=value`; a value that begins with [, { or \" is JSON")
	f.StringVar(&opt.expires, "expires", "7d", "the order is good for this `time`, as 6h, 7d or 4w")
	f.BoolVarP(&opt.wait, "wait", "w", false, "wait until it has ended, with progress")
	f.DurationVar(&opt.timeout, "timeout", 0, "with --wait: give up waiting after this `time` (exit 75)")
	addClientFlags(cmd)
	cmd.AddCommand(a.adoptListCommand(), a.adoptShowCommand(), a.adoptCancelCommand())
	return cmd
}

func (a *app) adopt(cmd *cobra.Command, where string, opt adoptOptions) error {
	at, err := parseAddress(where)
	if err != nil {
		return err
	}
	life, err := parseSpan(opt.expires)
	if err != nil {
		return err
	}
	ask := api.AdoptionOrder{}
	if ask.Owner, err = ownerAt(opt.owner, at.Provider); err != nil {
		return err
	}
	if ask.Metadata, err = userItems(opt.meta); err != nil {
		return err
	}
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	order := token.Order{Do: token.Stat, Scope: token.One, From: at.Location}
	if at.into {
		order.Do, order.Scope = token.List, token.Tree
	}
	if _, ask.Order, err = s.sign(cmd.Context(), order, life); err != nil {
		return err
	}
	client := s.client(at.Provider)
	got, err := client.Adopt(cmd.Context(), ask)
	if problem.Of(err) == problem.Unavailable && cmd.Context().Err() == nil { // it may have it already, and the same again is the same
		got, err = client.Adopt(cmd.Context(), ask)
	}
	if err != nil {
		return err
	}
	if opt.wait {
		a.note("adoption %s", got.ID)
		return a.waitForAdoption(cmd.Context(), client, got, opt.timeout)
	}
	if a.format != table {
		return a.printJSON(got)
	}
	fmt.Fprintln(a.out, printable(string(got.ID)))
	if got.Waiting != "" {
		a.note("waiting: %s", printable(got.Waiting))
	}
	a.note("hint: consign adopt show %s", got.ID)
	return nil
}

// ownerAt is the identity that --owner means for a place of p; empty without one.
func ownerAt(text string, p token.Provider) (token.Identity, error) {
	if text == "" {
		return "", nil
	}
	who, err := expandWho(text, p)
	if err != nil {
		return "", err
	}
	if id := token.Identity(who); id.Role() != token.Subscriber {
		return "", problem.New(problem.Usage, "--owner is %s, which is no subscriber", quoted(text))
	}
	return token.Identity(who), nil
}

// userItems reads item=value pairs.
func userItems(pairs []string) (api.Items, error) {
	var out api.Items
	for _, p := range pairs {
		item, value, ok := strings.Cut(p, "=")
		if !ok || item == "" {
			return nil, problem.New(problem.Usage, "--meta is %s and must be item=value", quoted(p))
		}
		if _, twice := out[item]; twice {
			return nil, problem.New(problem.Usage, "--meta says %s twice", quoted(item))
		}
		if out == nil {
			out = api.Items{}
		}
		var err error
		if out[item], err = itemValue(value); err != nil {
			return nil, problem.New(problem.Usage, "The value of %s begins as JSON and is none", quoted(item))
		}
	}
	return out, nil
}

func (a *app) adoptListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the adoptions of these accounts, newest first",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.open(cmd)
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.preflight(); err != nil {
				return err
			}
			out := newPrinter(a, []string{"ID", "STATE", "OBJECTS", "SIZE", "OWNER", "AT"}, func(d api.Adoption) []string {
				return []string{string(d.ID), string(d.State), strconv.FormatInt(d.Objects, 10), bytesText(d.Bytes), string(d.Owner), printable(d.At.String())}
			})
			return printOnce(cmd.Context(), s, s.good(), out, func(d api.Adoption) token.TransferID { return d.ID }, func(c *api.Client, cursor string) (api.Page[api.Adoption], error) {
				return c.Adoptions(cmd.Context(), cursor, api.MaxPage)
			})
		},
	}
	addClientFlags(cmd)
	return cmd
}

// withAdoption calls fn with an adoption and the client of an account that may see it.
func (a *app) withAdoption(cmd *cobra.Command, arg string, fn func(*session, *api.Client, api.Adoption) error) error {
	id, err := token.ParseTransferID(arg)
	if err != nil {
		return &problem.Error{
			Code: problem.Usage, Detail: quoted(arg) + " is not the id of an adoption",
			Remedy: "See 'consign adopt list' for the ids.",
		}
	}
	return firstSeeing(a, cmd, func(c *api.Client) (api.Adoption, error) { return c.Adoption(cmd.Context(), id, 0, 0) }, fn)
}

func (a *app) adoptShowCommand() *cobra.Command {
	var wait bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "show ID", Short: "Show how far an adoption is, and what it met",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdoption(cmd, args[0], func(_ *session, c *api.Client, d api.Adoption) error {
				if wait {
					return a.waitForAdoption(cmd.Context(), c, d, timeout)
				}
				if a.format != table {
					return a.printJSON(d)
				}
				return a.printAdoption(d)
			})
		},
	}
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "wait until it has ended, with progress")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "with --wait: give up waiting after this `time` (exit 75)")
	addClientFlags(cmd)
	return cmd
}

func (a *app) printAdoption(d api.Adoption) error {
	rows := [][2]string{
		{"adoption", string(d.ID)}, {"state", string(d.State)}, {"at", printable(d.At.String())}, {"account", string(d.Account)}, {"owner", string(d.Owner)},
	}
	if d.Authority == token.BySession {
		rows = append(rows, [2]string{"authority", string(d.Authority)})
	}
	for _, item := range slices.Sorted(maps.Keys(d.Metadata)) {
		rows = append(rows, [2]string{"metadata", printable(item) + "=" + printable(itemText(d.Metadata[item]))})
	}
	rows = append(rows, [2]string{"begun", timeText(d.Created)})
	if d.Finished != nil {
		rows = append(rows, [2]string{"ended", timeText(*d.Finished)})
	} else {
		rows = append(rows, [2]string{"ends", timeText(d.Expires)}, [2]string{"waiting", printable(d.Waiting)}, [2]string{"came to", printable(string(d.After))})
	}
	rows = append(rows,
		[2]string{"objects", strconv.FormatInt(d.Objects, 10) + " (" + bytesText(d.Bytes) + ")"}, [2]string{"containers", strconv.FormatInt(d.Containers, 10)},
		[2]string{"rows", fmt.Sprintf("%d made, %d brought up to date", d.Made, d.Changed)})
	if d.Skipped > 0 {
		rows = append(rows, [2]string{"skipped", strconv.FormatInt(d.Skipped, 10) + " links and other special files"})
	}
	if d.Refused > 0 {
		rows = append(rows, [2]string{"not entered", strconv.FormatInt(d.Refused, 10)})
	}
	if d.Problem != nil {
		rows = append(rows, [2]string{"problem", printable(d.Problem.Detail) + " (" + string(d.Problem.Code) + ")"}, [2]string{"hint", printable(d.Problem.Remedy)})
	}
	return a.printPairs(rows)
}

func (a *app) adoptCancelCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cancel ID", Short: "End an adoption; what was entered stays",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdoption(cmd, args[0], func(s *session, c *api.Client, d api.Adoption) error {
				if d.State.Ended() {
					return problem.New(problem.Conflict, "Adoption %s has already ended: it is %s", d.ID, d.State)
				}
				for i, p := range s.accounts {
					if p.Identity() == d.Account { // whom a link shows it may not end it
						c = s.clients[i]
					}
				}
				d, err := c.CancelAdoption(cmd.Context(), d.ID)
				if err != nil {
					return err
				}
				if a.format != table {
					return a.printJSON(d)
				}
				a.note("adoption %s is %s; %d objects and %d containers have a row", d.ID, d.State, d.Objects, d.Containers)
				return nil
			})
		},
	}
	addClientFlags(cmd)
	return cmd
}

// waitForAdoption follows an adoption to its end.
func (a *app) waitForAdoption(ctx context.Context, c *api.Client, d api.Adoption, timeout time.Duration) error {
	wait := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	began, first, plain := a.now(), d.Objects, a.now()
	show := func(d api.Adoption) {
		if now := a.now(); now.Sub(plain) >= plainEvery {
			plain = now
			a.note("%s", adoptionText(d, float64(d.Objects-first)/now.Sub(began).Seconds()))
		}
	}
	d, err := pursue(wait, a, d, func(d api.Adoption) bool { return d.State.Ended() }, show, func(ctx context.Context, d api.Adoption) (api.Adoption, error) {
		return c.Adoption(ctx, d.ID, d.Seq, lookEvery)
	})
	switch {
	case ctx.Err() != nil:
		return &ending{problem.ExitInterrupted, fmt.Sprintf("detached: adoption %s goes on\nhint: consign adopt show --wait %s", d.ID, d.ID)}
	case wait.Err() != nil:
		return &ending{problem.ExitWaitTimeout, fmt.Sprintf("consign: adoption %s has not ended within %s; it goes on\nhint: consign adopt show --wait %s", d.ID, timeout, d.ID)}
	case err != nil:
		return err
	}
	a.note("%s in %s", adoptionText(d, 0), a.now().Sub(began).Round(100*time.Millisecond))
	if a.format != table {
		if err := a.printJSON(d); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(a.out, printable(string(d.ID)))
	}
	if d.Problem != nil {
		return d.Problem.Err()
	}
	return nil
}

// adoptionText is how far an adoption is, on one line. A rate of less than one object a second is not said.
func adoptionText(d api.Adoption, rate float64) string {
	text := fmt.Sprintf("%s: %d objects (%s), %d containers; %d rows made, %d brought up to date", d.State, d.Objects, bytesText(d.Bytes), d.Containers, d.Made, d.Changed)
	if d.Skipped > 0 {
		text += fmt.Sprintf(", %d skipped", d.Skipped)
	}
	if d.Refused > 0 {
		text += fmt.Sprintf(", %d not entered", d.Refused)
	}
	if rate >= 1 {
		text += fmt.Sprintf("; %.0f objects/s", rate)
	}
	if d.Waiting != "" {
		text += "; waiting: " + printable(d.Waiting)
	}
	return text
}
