package issue

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/consign-transfer/consign/certs"
)

const (
	firstRetry  = time.Second
	longestWait = 10 * time.Minute
	shortest    = 10 * time.Second // between two renewals, however short the lives are
)

// A Renewer keeps a certificate alive. Its fields must be set before Run and not be
// changed after.
type Renewer struct {
	Pair    *certs.Pair
	Trust   *certs.Trust
	Address string // of the authority, as Renew has it

	OnRenewed func(until time.Time) // Optional.
	OnError   func(error)           // Optional. Told of each attempt that failed.

	renew func(context.Context) error // for tests; nil is Renew
}

// Run renews the certificate at about two thirds of its life, again and again, until ctx ends. Each
// certificate is due at a moment of its own between 0.62 and 0.70 of its life, so that many agents
// do not come at once. An attempt that fails is repeated after a second, then after growing pauses of at
// most ten minutes, for ever: also past the certificate's end, for it may be that somebody puts a new one into its place.
func (r *Renewer) Run(ctx context.Context) {
	for pause := time.Duration(0); wait(ctx, max(pause, time.Until(r.due()))); pause = shortest {
		if r.retry(ctx) == nil && r.OnRenewed != nil {
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

func (r *Renewer) retry(ctx context.Context) error {
	b := backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstRetry),
		backoff.WithMaxInterval(longestWait), backoff.WithMaxElapsedTime(0))
	old := r.Pair.LeafHash()
	attempt := func() error {
		if r.Pair.LeafHash() != old {
			return nil // somebody else replaced it meanwhile
		}
		if r.renew != nil {
			return r.renew(ctx)
		}
		return Renew(ctx, r.Pair, r.Address, r.Trust)
	}
	told := func(err error, _ time.Duration) {
		if r.OnError != nil && ctx.Err() == nil {
			r.OnError(err)
		}
	}
	return backoff.RetryNotify(attempt, backoff.WithContext(b, ctx), told)
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
