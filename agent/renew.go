package agent

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/token/problem"
)

// renewer asks for a new generation at two thirds of the life of the one in use.
func (r *receiver) renewer(ctx context.Context) {
	pause := r.a.backoff(time.Second, 30*time.Second)
	for ctx.Err() == nil {
		g, peer := r.current()
		life := time.Duration(g.Claims.Exp-g.Claims.Iat) * time.Second
		at := time.Unix(g.Claims.Iat, 0).Add(life*2/3 - time.Duration(rand.Int64N(int64(life/20)+1)))
		if r.a.sleepOr(ctx, time.Until(at), r.renew) != nil {
			return
		}
		stirred := r.stirred()
		if err := r.s.revoked(r.key.xfr); err != nil { // there is none to be had
			if r.a.sleepOr(ctx, pause.NextBackOff(), stirred) != nil {
				return
			}
			continue
		}
		n, err := r.s.ctl.Renew(ctx, r.key.ref())
		if err == nil {
			g, err = r.a.verifyGrant(r.s, r.bill, n.Capability, n.Present, peer.ID, time.Now())
		}
		if err == nil {
			err = r.renewed(g)
		}
		if err == nil {
			pause.Reset()
			r.a.metrics.renewals.Inc()
			r.log.Debug("capability renewed", zap.Int64("gen", g.Claims.Gen))
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if problem.Of(err) == problem.CapRevoked {
			r.log.Debug("the transfer is paused", zap.Error(err))
		} else {
			r.log.Warn("the capability is not renewed", zap.Error(err))
		}
		if r.a.sleepOr(ctx, pause.NextBackOff(), r.s.nextHello()) != nil {
			return
		}
	}
}
