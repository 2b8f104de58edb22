package agent

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/agent/wire"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	endTries = 3
	endTime  = 3 * time.Second
)

// settle is side.settle: the source is told that the batch has ended. If it is not reached now, linger goes on.
func (r *receiver) settle(ctx context.Context, claims token.Receipt) {
	ctx, cancel := context.WithTimeout(ctx, r.a.quickly(endTime)+time.Second)
	defer cancel()
	_, peer := r.current()
	p := r.a.lanesTo(peer.ID)
	defer func() { p.leave(time.Now()) }()
	r.claims = claims
	for n := range endTries {
		err := r.tellEnd(ctx, p.slots[n%len(p.slots)], claims)
		if r.told = err == nil || final(problem.Of(err)); r.told {
			return
		}
		r.log.Debug("the source was not told of the end", zap.Error(err))
		if ctx.Err() != nil {
			return
		}
	}
}

// linger is side.linger: the source is told until it has heard, or the broker ends the batch, or the capability ends. Without
// that the source would have to wait for the broker.
func (r *receiver) linger(ctx context.Context) {
	if r.told || r.claims.N == 0 {
		return
	}
	_, peer := r.current()
	p := r.a.lanesTo(peer.ID)
	defer func() { p.leave(time.Now()) }()
	pause := r.a.backoff(unreachMin, unreachMax)
	for ctx.Err() == nil {
		err := r.tellEnd(ctx, p.slots[0], r.claims)
		if code := problem.Of(err); err == nil || final(code) || code == problem.CapExpired || code == problem.PeerMisbehaved {
			return
		}
		if r.a.sleepOr(ctx, pause.NextBackOff(), r.dropCtx.Done()) != nil || r.dropCtx.Err() != nil {
			return
		}
	}
}

func (r *receiver) tellEnd(ctx context.Context, s *slot, claims token.Receipt) error {
	st, _, err := s.open(ctx, r.batch)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { st.Abandon(problem.Cancelled) })()
	defer st.Abandon(problem.Cancelled)
	if err := ask(st, wire.End{Batch: r.wire(), N: int(claims.N), Root: claims.Root}, r.a.patience()); err != nil {
		return err
	}
	return wire.ReadEnded(st)
}
