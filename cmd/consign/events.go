package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// maxSeen is how many events are remembered so that one that two accounts see is printed once.
const maxSeen = 1 << 16

func (a *app) transferEventsCommand() *cobra.Command {
	var follow bool
	var after int64
	cmd := &cobra.Command{
		Use: "events [ID]", Short: "Show what happens to a transfer, or to all of these accounts",
		Long: `Show the events of a transfer, or of all transfers of these accounts if none is named. With --follow it goes on
with what comes: until the transfer has ended, or until Ctrl-C. Each event has a number; --after goes on behind one.
With -o jsonl each event is one line of JSON.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exactly("ID")(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if after < 0 {
				return usage(cmd, "The number of --after is negative")
			}
			if len(args) == 0 {
				return a.allEvents(cmd, after, follow)
			}
			return a.withTransfer(cmd, args[0], func(c *api.Client, t api.Transfer) error {
				return a.eventsOf(cmd.Context(), c, t.ID, after, follow)
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().Int64Var(&after, "after", 0, "begin behind the event of this `number`")
	addClientFlags(cmd)
	return cmd
}

// eventsOf prints the events of one transfer, with follow until it has ended.
func (a *app) eventsOf(ctx context.Context, c *api.Client, id token.TransferID, after int64, follow bool) error {
	wait := time.Duration(0)
	if follow {
		wait = api.MaxWait / 2
	}
	out := &eventPrinter{a: a}
	for {
		var page api.Page[api.Event]
		err := a.patiently(ctx, follow, func() (err error) {
			page, err = c.Events(ctx, id, after, wait)
			return err
		})
		if err != nil {
			return err
		}
		look := len(page.Items) == 0
		for _, e := range page.Items {
			after = max(after, e.Seq)
			look = look || api.State(e.Kind).Ended()
			if err := out.print(e); err != nil {
				return err
			}
		}
		if !follow && page.Next == "" {
			return nil
		}
		if follow && look {
			if t, err := c.Transfer(ctx, id, 0, 0); err == nil && t.Finished != nil && t.Seq <= after {
				return nil
			}
		}
	}
}

// patiently calls fn, with again until it does not fail for a reason that may pass.
func (a *app) patiently(ctx context.Context, again bool, fn func() error) error {
	retry := backoff.NewExponentialBackOff(backoff.WithInitialInterval(lookEvery/4), backoff.WithMaxInterval(5*time.Second), backoff.WithMaxElapsedTime(0))
	for {
		err := fn()
		if err == nil || !again || ctx.Err() != nil || !problem.MayRetry(err) {
			return err
		}
		timer := time.NewTimer(retry.NextBackOff())
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// errCaughtUp ends a stream that has sent all that there was.
var errCaughtUp = errors.New("all events were printed")

// allEvents prints the events of all accounts, each once.
func (a *app) allEvents(cmd *cobra.Command, after int64, follow bool) error {
	s, err := a.open(cmd)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.preflight(); err != nil {
		return err
	}
	out := &eventPrinter{a: a, seen: map[int64]bool{}}
	group, ctx := errgroup.WithContext(cmd.Context())
	for _, i := range s.good() {
		group.Go(func() error { return a.followEvents(ctx, s.clients[i], after, follow, out) })
	}
	return group.Wait()
}

// followEvents prints the events of one account.
func (a *app) followEvents(ctx context.Context, c *api.Client, after int64, follow bool, out *eventPrinter) error {
	return a.patiently(ctx, follow, func() error {
		pings := 0
		err := c.Follow(ctx, after, func(l api.EventLine) error {
			after = l.Seq
			if l.Event != nil {
				return out.print(*l.Event)
			}
			if pings++; pings == 2 && !follow {
				return errCaughtUp
			}
			return nil
		})
		if errors.Is(err, errCaughtUp) {
			return nil
		}
		return err
	})
}

// An eventPrinter prints events, one line each. It may be used concurrently.
type eventPrinter struct {
	a    *app
	mu   sync.Mutex     // guards what follows, and the output
	seen map[int64]bool // numbers that were printed; nil if none comes twice
}

func (p *eventPrinter) print(e api.Event) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen != nil {
		if p.seen[e.Seq] {
			return nil
		}
		if len(p.seen) >= maxSeen {
			clear(p.seen)
		}
		p.seen[e.Seq] = true
	}
	if p.a.format != table {
		return (&app{streams: p.a.streams, format: jsonLines}).printJSON(e)
	}
	of := string(e.Xfr)
	if of == "" {
		of = string(e.Account)
	}
	note := printable(e.Note)
	if e.Code != "" {
		note = deniedText(e)
	}
	_, err := fmt.Fprintf(p.a.out, "%s  %-36s  %-11s  %s\n", timeText(e.At), printable(of), printable(string(e.Kind)), note)
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}
