package broker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Bounds of what memory holds of denials.
const (
	maxDenials = 4096            // kinds of denial that are told apart in one minute
	lastWrite  = 5 * time.Second // that what was counted may take to be written when the broker stops
)

// A denial is a refusal of somebody whose identity was verified.
type denial struct {
	id   token.Identity
	code problem.Code
}

// deny counts a refusal for the ledger, if err is one, and returns err.
func (b *Broker) deny(id token.Identity, err error) error {
	code := problem.Of(err)
	if !errors.As(err, new(*problem.Error)) || problem.Lookup(code).HTTP == 500 {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.countDenial(denial{id, code}, 1)
	return err
}

// countDenial adds to what the next leaves say. Whoever does not fit is counted without a name, so that none is missed. mu is held.
func (b *Broker) countDenial(d denial, n int64) {
	if _, ok := b.denials[d]; !ok && len(b.denials) >= maxDenials {
		d = denial{}
	}
	b.denials[d] += n
}

// Deny counts the refusal of a request that did not come as far as the broker's own methods, and returns err.
func (b *Broker) Deny(peer certs.Peer, err error) error { return b.deny(peer.Identity, err) }

// flushDenials writes the denials of the last minute as leaves.
func (b *Broker) flushDenials(ctx context.Context, now time.Time) error {
	b.mu.Lock()
	due := now.Sub(b.deniedAt) >= time.Minute
	if len(b.denials) == 0 {
		b.deniedAt, due = now, false
	}
	b.mu.Unlock()
	if !due {
		return nil
	}
	return b.writeDenials(ctx, now)
}

// writeDenials writes what was counted. What is not written stays counted.
func (b *Broker) writeDenials(ctx context.Context, now time.Time) error {
	b.mu.Lock()
	counted, since := b.denials, b.deniedAt
	b.denials, b.deniedAt = map[denial]int64{}, now
	b.mu.Unlock()
	if len(counted) == 0 {
		return nil
	}
	err := b.write(ctx, now, func(w *work) error {
		for d, n := range counted {
			if _, err := w.leaf(ctx, db.DenialLeaf, facts{"code": d.code, "id": d.id, "n": n, "since": since.Unix()}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		later := b.denials
		b.denials, b.deniedAt = counted, since
		for d, n := range later {
			b.countDenial(d, n)
		}
	}
	return err
}

// lastDenials writes what was counted since the last leaves, when the broker stops.
func (b *Broker) lastDenials(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
	defer cancel()
	if err := b.writeDenials(ctx, time.Now()); err != nil {
		return fmt.Errorf("writing the last denials: %w", err)
	}
	return nil
}
