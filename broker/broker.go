// Package broker turns orders into batches that two agents carry out under
// capabilities, and keeps what they sign about it.
//
// It guarantees: a transfer exists only with an order that every account in it
// signed, or that one account handed in over its own connection while all others in it are linked with it; which of the two is
// in everything that we sign about it. A capability is minted only for a batch whose items the order covers, whose
// destination names no other live batch of this broker has, which the namespace lets its accounts read and add, for which there is room, and for two agents of the two
// providers that the order names. Every change of state is written together with its event and its leaf
// in one transaction, and is true once that is committed; what was answered was committed before. Every
// item ends with exactly one outcome. Whatever ends the process, opening it again goes on from the
// last commit: recovery is the ordinary path.
//
// It does not move bytes, dials nobody but webhooks (through the Courier of its Config), and keeps nothing of a lookup. In memory
// alone are the open task and event streams, what agents say of their progress, lookups that somebody waits for, challenges for links,
// what was denied in the last minute, and sentences about what a transfer waits for and was told of refusals.
//
// Where things are: orders come in (orders, word, standing, withdraw), become batches (pages, plan, repin, sizes, mint, step), are delivered (sessions,
// lookup), taken back (revoke, pause) and settled (receipts, settle, usermeta); views, orderviews and eventstream are what a subscriber sees
// of that. What the namespace lets an order do is asked in gate, ground and quota, for a lookup in lookuprights, for a plan in planrights, and again, once
// that may have changed, in rights. Accounts are links and accountkeys. Our own key is keyfile, on disk, and keyring, its rotation. A refusal is counted for
// the ledger in denials, and told to its transfer in reasons. A webhook is kept, and its outbox filled, in hooks, and called in courier.
//
// Failures for callers are *problem.Error; all others are our own and become
// problem.Internal. Methods may be called concurrently.
package broker

// Lock order: the database's writer, then Broker.mu. mu is never held while the
// database is called, nor while something is sent to an agent.

import (
	"context"
	"crypto/cipher"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/adopt"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A Broker is one open broker.
type Broker struct {
	conf    Config
	self    token.Identity
	db      *db.DB
	tree    *tree.Tree
	cursors cipher.AEAD // of searches
	log     *zap.Logger
	booted  time.Time
	metrics *metrics
	nudge   chan struct{} // holds one: there may be something to do
	fault   func(string) error
	hookKey ed25519.PrivateKey // signs webhooks
	calls   calls              // of webhooks
	posted  chan struct{}      // holds one: something may wait for a webhook

	life     context.Context // ends at Close: what goes on after its caller has gone does so until then
	die      context.CancelFunc
	erasures sync.WaitGroup // that are waited for

	mu         sync.Mutex                  // guards what follows
	sessions   map[token.Identity]*session // of agents that said hello since the start
	streams    int64                       // task streams opened so far
	lookups    map[string]*lookup          // by task id
	watchers   map[token.TransferID]*watch // long polls
	waiting    map[token.TransferID]string // what a transfer waits for
	partial    map[string][]api.Entry      // by task id: what a stat or make task has so far
	denials    map[denial]int64            // since the last leaf
	revoked    revocations                 // the newest list of revocations
	keys       ring                        // capability keys
	deniedAt   time.Time                   // when counting began
	reasons    map[token.TransferID]*reasons
	turned     map[token.Identity]turned     // agents that were refused at the door
	unwritable atomic.Bool                   // the last write failed for the sake of the disk
	chains     map[token.Identity]token.Hash // certificates of subscribers that were looked at, see Renewed
	tails      map[*tail]bool                // event streams
	met        map[token.Identity]met        // callers that were looked at, see Meet
	challenges map[token.Hash]challenge      // for links that are being made
	rights     rights                        // what the last look at all transfers rested on

	adopting map[token.TransferID]adopter // who carries an adoption out; mu guards it
	pace     *adopt.Pace                  // of adoptions
}

// Open opens the broker's state, which Init made. now is the time of the start, from which absent agents
// are counted as absent. It fails with problem.BadConfig for what an operator must correct.
// Close must be called.
func Open(ctx context.Context, conf Config, now time.Time) (*Broker, error) {
	conf, err := conf.withDefaults()
	if err != nil {
		return nil, err
	}
	b := &Broker{
		conf: conf, self: conf.Identity.Identity(), log: conf.Log, booted: now, nudge: make(chan struct{}, 1),
		fault: func(string) error { return nil }, sessions: map[token.Identity]*session{}, lookups: map[string]*lookup{},
		watchers: map[token.TransferID]*watch{}, waiting: map[token.TransferID]string{}, partial: map[string][]api.Entry{}, denials: map[denial]int64{}, deniedAt: now,
		reasons: map[token.TransferID]*reasons{}, turned: map[token.Identity]turned{}, tails: map[*tail]bool{}, posted: make(chan struct{}, 1),
		calls:  calls{hooks: map[string]bool{}, by: map[token.Identity]int{}, tested: map[string]time.Time{}},
		chains: map[token.Identity]token.Hash{}, met: map[token.Identity]met{}, challenges: map[token.Hash]challenge{},
		adopting: map[token.TransferID]adopter{},
	}
	if b.tree, err = tree.New(conf.Space); err != nil {
		return nil, err
	}
	if b.tree, err = tree.New(conf.Space); err != nil {
		return nil, err
	}
	if b.cursors, err = newCursors(); err != nil {
		return nil, err
	}
	if _, err := openKey(conf.State, keyFile); err != nil { // before the database is touched
		return nil, err
	}
	if b.db, err = db.Open(ctx, filepath.Join(conf.State, databaseFile)); err != nil {
		return nil, err
	}
	b.pace = adopt.NewPace(b.db.Tidy)
	b.metrics = newMetrics(conf.Version)
	if took := b.db.Checked(); took > 0 {
		b.log.Warn("the broker had not stopped in an orderly way; the database was checked and is good", zap.Duration("took", took))
	}
	err = b.openKeys(ctx, now)
	if err == nil {
		err = errors.Join(b.announce(ctx, now), b.openHookKey(ctx, now))
	}
	if err != nil {
		return nil, errors.Join(err, b.db.Close())
	}
	b.life, b.die = context.WithCancel(context.WithoutCancel(ctx))
	return b, nil
}

// announce writes what a start has to say: a new epoch of revocations, the providers, and the leaf of the configuration if that is not what it was.
func (b *Broker) announce(ctx context.Context, now time.Time) error {
	conf := facts{
		"capability_life": int64(b.conf.CapabilityLife / time.Second), "lease_grace": int64(b.conf.LeaseGrace / time.Second),
		"self": b.self, "providers": b.conf.Providers, "unmatched_after": int64(b.conf.UnmatchedAfter / time.Second),
	}
	if as := b.conf.Space.Administrators; len(as) > 0 {
		conf["administrators"] = as
	}
	return b.write(ctx, now, func(w *work) error {
		if err := b.renewEpoch(ctx, w); err != nil {
			return err
		}
		for _, p := range b.conf.Providers {
			if err := w.AddProvider(ctx, p, now); err != nil {
				return err
			}
		}
		if err := b.tree.Begin(ctx, w.Tx); err != nil {
			return err
		}
		body, err := conf.bytes()
		if err != nil {
			return err
		}
		old, err := w.Meta(ctx, "config")
		if err != nil || old == string(body) {
			return err
		}
		if err := w.SetMeta(ctx, "config", string(body)); err != nil {
			return err
		}
		_, err = w.leaf(ctx, db.ConfigLeaf, conf)
		return err
	})
}

// Close closes the database. Run must have returned, and no other method may be running.
func (b *Broker) Close() error {
	b.die()
	b.erasures.Wait()
	return b.db.Close()
}

// Self returns the broker's identity.
func (b *Broker) Self() token.Identity { return b.self }

// Version returns what program this is.
func (b *Broker) Version() api.VersionInfo {
	return api.VersionInfo{Broker: b.self, Version: b.conf.Version, API: 1}
}

// Metrics returns the broker's own registry.
func (b *Broker) Metrics() *prometheus.Registry { return b.metrics.registry }

// Ready returns nil if the database answers, and can be written.
func (b *Broker) Ready(ctx context.Context) error {
	if b.unwritable.Load() {
		if err := b.written(b.db.Probe(ctx)); err != nil {
			return err
		}
	}
	return b.db.Read(ctx, func(tx *db.Tx) error {
		_, err := tx.Meta(ctx, "clean")
		return err
	})
}

// Run does what is due until ctx ends: at once when something happened, and every
// second. It returns nil, or the failure that it could not go on from.
func (b *Broker) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var hooks sync.WaitGroup
	defer hooks.Wait()
	hooks.Go(func() { b.callHooks(ctx) })
	hooks.Go(func() { b.eraseDue(ctx) })
	told := ""
	for {
		now := time.Now()
		switch err := b.step(ctx, now); {
		case err == nil:
			told = ""
		case ctx.Err() == nil && err.Error() != told: // it may fail every second for hours
			told = err.Error()
			b.log.Error("a step of the broker did not succeed; it is tried again", zap.Error(err))
		}
		b.dropSilent(now)
		select {
		case <-ctx.Done():
			return errors.Join(b.lastDenials(ctx), b.lastDigests(ctx))
		case <-tick.C:
			if err := b.gauge(ctx); err != nil && ctx.Err() == nil {
				b.log.Error("the metrics are not up to date", zap.Error(err))
			}
		case <-b.nudge:
		}
	}
}

// wake has Run look for what is due.
func (b *Broker) wake() {
	select {
	case b.nudge <- struct{}{}:
	default:
	}
}

// work is one transaction and what must be told once it is committed.
type work struct {
	*db.Tx
	now     time.Time
	touched map[token.TransferID]bool
	after   []func()
	leaves  int

	audience map[token.Identity]bool // accounts that have a new event
	posted   bool                    // something waits for a webhook
}

// then has fn called after the commit.
func (w *work) then(fn func()) { w.after = append(w.after, fn) }

// write carries fn out in one transaction, and then tells those who wait for a change.
func (b *Broker) write(ctx context.Context, now time.Time, fn func(*work) error) error {
	w := &work{now: now, touched: map[token.TransferID]bool{}, audience: map[token.Identity]bool{}}
	err := b.db.Write(ctx, func(tx *db.Tx) error {
		w.Tx = tx
		if err := fn(w); err != nil {
			return err
		}
		return b.fault("before commit")
	})
	if err := b.written(err); err != nil {
		return err
	}
	// Durable from here.
	b.metrics.leaves.Add(float64(w.leaves))
	for _, f := range w.after {
		f()
	}
	for _, p := range w.NewKeeps() {
		b.pushKept(p)
	}
	for xfr := range w.touched {
		b.notify(xfr)
	}
	b.wakeTails(w.audience)
	if w.posted {
		poke(b.posted)
	}
	return b.fault("after commit")
}

// written looks at what became of a write. That the database cannot be written is logged when it begins and when it ends, and told
// to whoever asked for the write.
func (b *Broker) written(err error) error {
	switch {
	case errors.Is(err, db.ErrUnwritable):
		if !b.unwritable.Swap(true) {
			b.log.Error("the database cannot be written; nothing new is accepted until it can", zap.Error(err))
		}
		return &problem.Error{
			Code: problem.Unavailable, Detail: "The broker cannot write its database at present", Cause: err,
			Remedy: "Nothing was changed. Try again later; its operator has to look at the disk.",
		}
	case err == nil && b.unwritable.Swap(false):
		b.log.Info("the database is written again")
	}
	return err
}

// facts is the content of a leaf that is not itself a statement. Keys are sorted when it is encoded.
type facts map[string]any

// bytes is the one spelling: sorted keys, no white space, integers only.
func (f facts) bytes() ([]byte, error) {
	var s strings.Builder
	enc := json.NewEncoder(&s)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(f); err != nil {
		return nil, fmt.Errorf("encoding a leaf: %w", err)
	}
	return []byte(strings.TrimSuffix(s.String(), "\n")), nil
}

func (w *work) leaf(ctx context.Context, kind db.LeafKind, body facts) (int64, error) {
	data, err := body.bytes()
	if err != nil {
		return 0, err
	}
	w.leaves++
	return db.Append(ctx, w.Tx, db.Leaf{Kind: kind, At: w.now, Body: data})
}

// A change is what happened to a transfer: an event for people, and a leaf unless kind is empty.
type change struct {
	event api.EventKind
	note  string
	kind  db.LeafKind
	body  facts
}

// record is the one way in which the state of a transfer changes: it writes the transfer, the
// event and the leaf in the transaction of w, and returns the leaf's index.
func (w *work) record(ctx context.Context, t *db.Transfer, c change) (int64, error) {
	if err := w.event(ctx, t, api.Event{Kind: c.event, Note: c.note}); err != nil || c.kind == "" {
		return 0, err
	}
	c.body["xfr"] = t.ID
	return w.leaf(ctx, c.kind, c.body)
}

// event writes an event of a transfer, and the transfer.
func (w *work) event(ctx context.Context, t *db.Transfer, e api.Event) error {
	e.At, e.Xfr = w.now, t.ID
	var err error
	if e.Seq, err = w.AddEvent(ctx, e); err != nil {
		return err
	}
	t.Seq = e.Seq
	w.touched[t.ID] = true
	for _, a := range t.Accounts {
		w.audience[a] = true
	}
	if err := w.SaveTransfer(ctx, *t); err != nil {
		return err
	}
	return w.spread(ctx, e, t.Accounts...)
}

// accountEvent writes an event of an account, of no transfer.
func (w *work) accountEvent(ctx context.Context, account token.Identity, e api.Event) error {
	e.At, e.Account = w.now, account
	var err error
	if e.Seq, err = w.AddEvent(ctx, e); err != nil {
		return err
	}
	w.audience[account] = true
	return w.spread(ctx, e, account)
}

// blame notes the first problem of a transfer.
func blame(t *db.Transfer, code problem.Code, detail string) {
	if t.Code == "" {
		t.Code, t.Detail = code, detail
	}
}
