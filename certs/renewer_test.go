package certs_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/certs/certstest"
	"github.com/consign-transfer/consign/token"
)

// TestRenewer runs the loop for a week of its own time against an authority that is away now and then.
func TestRenewer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca := certstest.New(t, "a.example")
		day := func() (time.Time, time.Time) { return time.Now(), time.Now().Add(24 * time.Hour) }
		first := ca.Issue(token.Agent, "x", certstest.Valid(day()))
		pair, err := certs.OpenPair(first.Files(dir))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 7*24*time.Hour)
		defer cancel()
		away, attempts, failures := 5, 0, 0
		var renewed []time.Time
		r := &certs.Renewer{
			Pair: pair,
			OnRenewed: func(until time.Time) {
				if !until.Equal(pair.NotAfter()) {
					t.Errorf("got the end %s, want %s", until, pair.NotAfter())
				}
				renewed = append(renewed, time.Now())
			},
			OnError: func(error) { failures++ },
			Renew: func(context.Context) error {
				attempts++
				if err := pair.Preflight(time.Now()); err != nil {
					t.Errorf("renewing too late: %v", err)
				}
				if attempts <= away {
					return errors.New("away")
				}
				ca.Issue(token.Agent, "x", certstest.Valid(day()), certstest.ForKey(first.Key)).Files(dir)
				_, err := pair.Reload()
				return err
			},
		}
		start := time.Now()
		r.Run(ctx)
		if got := time.Since(start); got != 7*24*time.Hour {
			t.Errorf("ran for %s, want to the end of its context", got)
		}
		if failures != away {
			t.Errorf("got %d failures, want %d", failures, away)
		}
		if len(renewed) < 9 || len(renewed) > 11 {
			t.Fatalf("got %d renewals in a week of 24 h certificates, want about 10", len(renewed))
		}
		last := start
		for i, at := range renewed {
			part := at.Sub(last).Hours() / 24
			if part < 0.61 || part > 0.72 {
				t.Errorf("renewal %d came after %.3f of a life, want about two thirds", i, part)
			}
			last = at
		}
	})
}

// TestRenewerNeverSpins gives out certificates that are due at once.
func TestRenewerNeverSpins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		ca := certstest.New(t, "a.example")
		almost := func() (time.Time, time.Time) { return time.Now().Add(-time.Hour), time.Now().Add(time.Minute) }
		first := ca.Issue(token.Agent, "x", certstest.Valid(almost()))
		pair, err := certs.OpenPair(first.Files(dir))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		attempts := 0
		r := &certs.Renewer{Pair: pair, Renew: func(context.Context) error {
			attempts++
			ca.Issue(token.Agent, "x", certstest.Valid(almost()), certstest.ForKey(first.Key)).Files(dir)
			_, err := pair.Reload()
			return err
		}}
		r.Run(ctx)
		if attempts == 0 || attempts > 361 {
			t.Errorf("got %d attempts in an hour, want one each 10 s at most", attempts)
		}
	})
}
