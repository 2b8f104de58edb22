package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token/problem"
)

// tellWithin bounds how long a command asks for what the broker has to tell at its end.
const tellWithin = 5 * time.Second

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
