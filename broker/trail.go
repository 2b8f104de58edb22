package broker

import (
	"context"
	"time"

	"github.com/consign-transfer/consign/broker/tree"
)

// keep writes what has to be recorded of the attempts in trail, in the transaction of w.
func (w *work) keep(ctx context.Context, trail *tree.Trail) error {
	if trail.Empty() {
		return nil
	}
	return trail.Keep(ctx, w.Tx, w.now)
}

// keepTrail writes what has to be recorded of attempts that have written nothing themselves: reads, and changes that were refused. Whoever made them
// is answered with what it returns: err, or that they could not be recorded.
func (b *Broker) keepTrail(ctx context.Context, trail *tree.Trail, err error, now time.Time) error {
	if trail.Empty() {
		return err
	}
	if bad := b.write(ctx, now, func(w *work) error { return w.keep(ctx, trail) }); bad != nil {
		return bad
	}
	return err
}
