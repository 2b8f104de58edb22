package certs

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

const (
	firstRetry  = time.Second
	longestWait = 10 * time.Minute
	shortest    = 10 * time.Second // between two renewals, however short the lives are
)

// A Renewer keeps a certificate alive. Its fields must be set before Run and not be
// changed after.
type Renewer struct {
	Pair *Pair
	// Renew has the authority replace the certificate in Pair's file once, and reloads Pair.
	Renew func(context.Context) error

	OnRenewed func(until time.Time) // Optional.
	OnError   func(error)           // Optional. Told of each attempt that failed.
}

// Run renews the certificate at about two thirds of its life, again and again, until ctx ends. Each
// certificate is due at a moment of its own between 0.62 and 0.70 of its life, so that many agents
// do not come at once. An attempt that fails is repeated as Insist does, for ever: also past the certificate's
// end, for it may be that somebody puts a new one into its place.
func (r *Renewer) Run(ctx context.Context) {
	for pause := time.Duration(0); wait(ctx, max(pause, time.Until(r.due()))); pause = shortest {
		if r.insist(ctx) == nil && r.OnRenewed != nil {
			r.OnRenewed(r.Pair.NotAfter())
		}
	}
}

// due returns when the certificate in use is to be renewed.
func (r *Renewer) due() time.Time {
	_, chain, _ := r.Pair.Current()
	life := chain[0].NotAfter.Sub(chain[0].NotBefore)
	return chain[0].NotBefore.Add(time.Duration(float64(life) * (0.62 + 0.08*rand.Float64())))
}

func (r *Renewer) insist(ctx context.Context) error {
	old := r.Pair.LeafHash()
	return Insist(ctx, func(ctx context.Context) error {
		if r.Pair.LeafHash() != old {
			return nil // somebody else replaced it meanwhile
		}
		return r.Renew(ctx)
	}, r.OnError)
}

// Insist calls attempt until it succeeds: again after a second, then after growing pauses of at most ten minutes, each of
// them of random length. It returns an error only when ctx ends. onError, which may be nil, is told of each attempt that
// failed.
func Insist(ctx context.Context, attempt func(context.Context) error, onError func(error)) error {
	b := backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstRetry),
		backoff.WithMaxInterval(longestWait), backoff.WithMaxElapsedTime(0))
	told := func(err error, _ time.Duration) {
		if onError != nil && ctx.Err() == nil {
			onError(err)
		}
	}
	return backoff.RetryNotify(func() error { return attempt(ctx) }, backoff.WithContext(b, ctx), told)
}

// wait returns true after d, or false when ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
