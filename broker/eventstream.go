package broker

import (
	"context"
	"slices"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// Bounds of event streams.
const (
	maxTails     = 512
	maxTailsBy   = 8                      // of one identity
	eventsAtOnce = 256                    // that one look brings
	eventWindow  = 1 << 14                // numbers that one look goes over, whosever they are
	lookPause    = 100 * time.Millisecond // between looks, so that many events are one look
)

// A tail is one event stream.
type tail struct {
	by       token.Identity
	accounts []token.Identity // that wake it; Broker.mu guards it
	ready    chan struct{}    // holds one: there may be more
}

// widen returns the accounts whose events a stream shows now, its own first, and has their events wake it. It is asked before each look, for
// links come and go.
func (b *Broker) widen(ctx context.Context, t *tail, peer certs.Peer) (accounts []token.Identity, err error) {
	err = b.db.Read(ctx, func(tx *db.Tx) (err error) {
		accounts, err = sees(ctx, tx, peer)
		return err
	})
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	t.accounts = accounts
	return accounts, nil
}

// Follow sends every event that the caller may see through send, in order: a ping; those beyond the number after, or those from now on if
// after is negative; a ping when it has caught up; then what comes, and a ping where there was nothing to say. It returns when ctx ends or send
// fails. send is called by this goroutine alone. problem.Overloaded: there are too many streams.
func (b *Broker) Follow(ctx context.Context, peer certs.Peer, after int64, send func(api.EventLine) error) error {
	t, err := b.addTail(peer)
	if err != nil {
		return b.deny(peer.Identity, err)
	}
	defer b.dropTail(t)
	if after < 0 {
		err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
			after, err = tx.LastEvent(ctx)
			return err
		})
		if err != nil {
			return err
		}
	}
	if err := send(api.EventLine{Seq: after, Ping: true}); err != nil { // the reader learns at once that it is heard
		return err
	}
	ping := time.NewTicker(api.PingEvery)
	defer ping.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for caught := false; ; {
		accounts, err := b.widen(ctx, t, peer)
		if err != nil {
			return err
		}
		es, upTo, more, err := b.eventsBehind(ctx, accounts, after)
		if err != nil {
			return err
		}
		for _, e := range es {
			if err := send(api.EventLine{Seq: e.Seq, Event: &e}); err != nil {
				return err
			}
		}
		if after = upTo; more {
			continue
		}
		if !caught {
			caught = true
			if err := send(api.EventLine{Seq: after, Ping: true}); err != nil {
				return err
			}
		}
		pause.Reset(lookPause)
		if err := b.nextLook(ctx, t, ping.C, pause.C, func() error { return send(api.EventLine{Seq: after, Ping: true}) }); err != nil {
			return err
		}
	}
}

// nextLook returns when it is time to look for events again.
func (b *Broker) nextLook(ctx context.Context, t *tail, ping, pause <-chan time.Time, say func() error) error {
	for rested, ready := false, false; !rested || !ready; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-pause:
			rested = true
		case <-t.ready:
			ready = true
		case <-ping:
			if err := say(); err != nil {
				return err
			}
		}
	}
	return nil
}

// eventsBehind returns events of the accounts beyond after, the number up to which it has looked, and whether there is more to look at.
func (b *Broker) eventsBehind(ctx context.Context, accounts []token.Identity, after int64) (es []api.Event, upTo int64, more bool, err error) {
	err = b.db.Read(ctx, func(tx *db.Tx) error {
		last, err := tx.LastEvent(ctx)
		if err != nil {
			return err
		}
		upTo = min(max(last, after), after+eventWindow)
		es, err = tx.EventsOf(ctx, accounts, after, upTo, eventsAtOnce)
		if len(es) == eventsAtOnce {
			upTo = es[len(es)-1].Seq
		}
		more = upTo < last
		return err
	})
	return advised(es), upTo, more, err
}

func (b *Broker) addTail(peer certs.Peer) (*tail, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	own := 0
	for t := range b.tails {
		if t.by == peer.Identity {
			own++
		}
	}
	if len(b.tails) >= maxTails || own >= maxTailsBy {
		return nil, problem.New(problem.Overloaded, "Too many event streams are open at once")
	}
	t := &tail{by: peer.Identity, accounts: []token.Identity{peer.Identity}, ready: make(chan struct{}, 1)}
	b.tails[t] = true
	return t, nil
}

func (b *Broker) dropTail(t *tail) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.tails, t)
}

// wakeTails has the streams of these accounts look for events.
func (b *Broker) wakeTails(accounts map[token.Identity]bool) {
	if len(accounts) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for t := range b.tails {
		if slices.ContainsFunc(t.accounts, func(a token.Identity) bool { return accounts[a] }) {
			poke(t.ready)
		}
	}
}

// advised fills in the remedy of each event that has a code.
func advised(es []api.Event) []api.Event {
	for i, e := range es {
		if e.Code != "" {
			es[i].Remedy = problem.Lookup(e.Code).Remedy
		}
	}
	return es
}
