package agent

import (
	"context"
	"errors"
	"strings"
	"time"

	"go.uber.org/zap"
)

const sweepEvery = time.Minute

// keepHouse removes what nothing needs any more, from time to time, until ctx ends.
func (a *Agent) keepHouse(ctx context.Context) {
	for a.sleep(ctx, a.quickly(sweepEvery)) == nil {
		a.closeIdle(time.Now())
		a.sweep(ctx)
	}
}

// sweep drops our stages that belong to no live batch, and marks that are past their time. Stages of
// other agents in the same store are theirs.
func (a *Agent) sweep(ctx context.Context) {
	for _, e := range a.conf.Exports {
		if !e.Create {
			continue
		}
		n, err := a.sweepStages(ctx, e)
		if err != nil && ctx.Err() == nil {
			a.log.Warn("stages are left behind", zap.String("container", string(e.Container)), zap.Error(err))
		}
		if n > 0 {
			a.log.Info("dead stages removed", zap.String("container", string(e.Container)), zap.Int("batches", n))
		}
	}
	now := time.Now()
	forgotten, err := a.names.forget(now)
	if err = errors.Join(err, a.orders.set.Compact(now), a.spent.set.Compact(now)); err != nil {
		a.log.Warn("old marks are left behind", zap.Error(err))
	}
	if forgotten > 0 {
		a.log.Info("marks of ended orders removed", zap.Int("orders", forgotten))
	}
}

// sweepStages looks at the stages first and at the live batches afterwards, so that one which begins in between is live.
func (a *Agent) sweepStages(ctx context.Context, e Export) (dropped int, err error) {
	ids, err := e.Store.Batches(ctx)
	if err != nil {
		return 0, err
	}
	live := map[string]bool{}
	for _, b := range a.of("") {
		live[string(b.key.stages(a.self))] = true
	}
	own := "-" + short(string(a.self))
	for _, id := range ids {
		const issuer = 8 // the last characters name the broker
		if live[string(id)] || len(id) < issuer || !strings.HasSuffix(string(id[:len(id)-issuer]), own) {
			continue
		}
		stages, bad := e.Store.Batch(ctx, id)
		if bad == nil {
			bad = errors.Join(stages.Drop(ctx), stages.Close())
		}
		if bad != nil {
			err = errors.Join(err, bad)
			continue
		}
		dropped++
	}
	return dropped, err
}
