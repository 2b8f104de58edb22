package broker

import (
	"context"
	"fmt"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/token"
)

// A revocations is a signed list of them.
type revocations struct {
	epoch int64 // 0: there was none yet
	jws   string
}

// revoke takes back all capabilities of a transfer for a reason, in the transaction of w. It is the one way to do that: whatever
// ends, pauses or forbids what agents do comes through here, before they are told anything else. A transfer of which no capability may
// still live has nothing to take back. Who holds one learns it from the list: at once over the task stream, or when it polls.
func (b *Broker) revoke(ctx context.Context, w *work, xfr token.TransferID, reason token.Reason) error {
	last, err := w.LastCapability(ctx, xfr)
	if err != nil {
		return err
	}
	ends := last.Add(token.ClockSkew) // by the slowest clock that counts
	if !ends.After(w.now) {
		return nil
	}
	if err := w.PutRevocation(ctx, db.Revocation{Xfr: xfr, Reason: reason, Ends: ends}, token.MaxRevoked); err != nil {
		return err
	}
	b.log.Info("capabilities revoked", zap.String("xfr", string(xfr)), zap.String("reason", string(reason)))
	return b.newEpoch(ctx, w, facts{"reason": reason, "until": ends.Unix(), "xfr": xfr})
}

// lift lets the capabilities of a transfer be good again that have not ended.
func (b *Broker) lift(ctx context.Context, w *work, xfr token.TransferID) error {
	was, err := w.DropRevocation(ctx, xfr)
	if err != nil || !was {
		return err
	}
	return b.newEpoch(ctx, w, facts{"lifted": true, "xfr": xfr})
}

// renewEpoch begins a new epoch at a start, if there ever was one: a broker whose state is older than what its agents have seen is then
// not taken for somebody who replays old lists.
func (b *Broker) renewEpoch(ctx context.Context, w *work) error {
	epoch, _, err := w.Epoch(ctx)
	if err != nil || epoch == 0 {
		return err
	}
	return b.newEpoch(ctx, w, facts{"start": true})
}

// newEpoch makes the list of what is revoked now, with an epoch beyond all before, and its leaf.
func (b *Broker) newEpoch(ctx context.Context, w *work, change facts) error {
	epoch, _, err := w.Epoch(ctx)
	if err != nil {
		return err
	}
	epoch = max(epoch+1, w.now.UnixMilli())
	if err := w.ForgetRevocations(ctx, w.now); err != nil {
		return err
	}
	if err := w.SetEpoch(ctx, epoch, w.now.Unix()); err != nil {
		return err
	}
	change["epoch"] = epoch
	if _, err := w.leaf(ctx, db.RevokeLeaf, change); err != nil {
		return err
	}
	l, err := b.signList(ctx, w.Tx)
	if err != nil {
		return err
	}
	w.then(func() { b.tellRevoked(l) })
	return nil
}

// signList signs the newest list.
func (b *Broker) signList(ctx context.Context, tx *db.Tx) (revocations, error) {
	epoch, iat, err := tx.Epoch(ctx)
	if err != nil || epoch == 0 {
		return revocations{}, err
	}
	rs, err := tx.Revocations(ctx)
	if err != nil {
		return revocations{}, err
	}
	r := token.Revocation{Epoch: epoch, Iat: iat, Iss: b.self, Revoked: make([]token.Revoked, len(rs))}
	for i, e := range rs {
		r.Revoked[i] = token.Revoked{Reason: e.Reason, Until: e.Ends.Unix(), Xfr: e.Xfr}
	}
	jws, err := b.signer().Revocation(r)
	if err != nil {
		return revocations{}, fmt.Errorf("signing the revocations: %w", err)
	}
	return revocations{epoch, jws}, nil
}

// tellRevoked sends a list that is durable to every connected agent.
func (b *Broker) tellRevoked(l revocations) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l.epoch < b.revoked.epoch {
		return // a later commit was quicker
	}
	b.revoked = l
	for _, s := range b.sessions {
		if s.stream != 0 {
			s.out = append(s.out, outgoing{revoked: true})
			poke(s.ready)
		}
	}
}

// Revocations returns the newest list of revocations if its epoch is greater than after.
func (b *Broker) Revocations(after int64) api.Revocations {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.revoked.epoch <= after {
		return api.Revocations{}
	}
	return api.Revocations{JWS: b.revoked.jws}
}
