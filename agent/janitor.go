package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/disk"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/token"
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
// other agents in the same store are theirs, and what cannot be told to be ours is left alone.
func (a *Agent) sweep(ctx context.Context) {
	for _, e := range a.conf.Exports {
		if !e.Creates() && !e.erases() {
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
	if err = errors.Join(err, a.orders.set.Compact(now), a.withdrawn.set.Compact(now), a.spent.set.Compact(now), a.stages.Compact(now), a.compactKept(now)); err != nil {
		a.log.Warn("old marks are left behind", zap.Error(err))
	}
	a.orders.share.recount()
	a.withdrawn.share.recount()
	if forgotten > 0 {
		a.log.Info("marks of ended orders removed", zap.Int("orders", forgotten))
	}
}

// sweepStages drops what is ours in a container and belongs to no live batch, and returns of how many batches.
func (a *Agent) sweepStages(ctx context.Context, e Export) (dropped int, err error) {
	dead := map[store.BatchID]bool{}
	err = e.Store.Leftovers(ctx, func(l store.Leftover) bool {
		if ownStages(l.Batch, a.self) && l.Expires.IsZero() {
			dead[l.Batch] = true
		}
		return true
	})
	if err != nil {
		return 0, err
	}
	// Only now, so that a batch which begins in between is live.
	live, err := liveStages(a.batchDir, a.self)
	if err != nil {
		return 0, err
	}
	for _, id := range slices.Sorted(maps.Keys(dead)) {
		if _, busy := a.wiping.Load(id); busy || live[id] {
			continue
		}
		if bad := dropStages(ctx, e.Store, id); bad != nil {
			err = errors.Join(err, bad)
			continue
		}
		dropped++
	}
	a.metrics.swept.WithLabelValues(string(e.Container)).Add(float64(dropped))
	return dropped, err
}

// dropStages removes every stage of a batch that is not in use.
func dropStages(ctx context.Context, s store.Store, id store.BatchID) error {
	stages, err := s.Batch(ctx, id)
	if err != nil {
		return fmt.Errorf("opening the stages of %q: %w", id, err)
	}
	if err := errors.Join(stages.Drop(ctx), stages.Close()); err != nil {
		return fmt.Errorf("dropping the stages of %q: %w", id, err)
	}
	return nil
}

const shortSize = 8 // characters that short returns

// ownStages reports whether id names stages of the agent self: what batchKey.stages makes.
func ownStages(id store.BatchID, self token.Identity) bool {
	if len(id) < shortSize {
		return false
	}
	return strings.HasSuffix(string(id[:len(id)-shortSize]), "-"+short(string(self))) // the last characters name the broker
}

// liveStages are the stages of the batches that have a journal in dir, also of those whose journal cannot be read: a journal is
// durable before the first stage of its batch is made, and is removed after the last.
func liveStages(dir disk.FS, self token.Identity) (map[store.BatchID]bool, error) {
	live := map[store.BatchID]bool{}
	err := dir.Names(func(name string) bool {
		if id, ok := stagesOf(name, self); ok {
			live[id] = true
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("listing journals: %w", err)
	}
	return live, nil
}

// stagesOf returns the stages of the batch whose journal has that name, if it is one that receives. It agrees with batchKey.file
// and batchKey.stages.
func stagesOf(file string, self token.Identity) (store.BatchID, bool) {
	at := strings.LastIndexByte(file, '-')
	if at < 0 || len(file)-at-1 != shortSize {
		return "", false
	}
	batch, ok := strings.CutSuffix(file[:at], "-"+string(token.Create))
	return store.BatchID(batch + "-" + short(string(self)) + file[at+1:]), ok
}
