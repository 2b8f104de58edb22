package broker

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	// transfersAtOnce is how many transfers one round of leasing looks at.
	transfersAtOnce = 256

	backoffMin = time.Second
	backoffMax = 5 * time.Minute

	// What a capability allows beyond the size of its items, for what is sent again.
	spareBytes   = 64 << 20
	sparePerItem = 4 << 10

	// A batch has at most spareGens generations of capabilities, and gensPerLife more for each life of one that has
	// passed since it was planned: each is a leaf for ever, and an agent renews as often as it likes to ask.
	spareGens   = 16
	gensPerLife = 8
)

// backoff is how long the items of a batch rest before attempt n+1.
func backoff(n int64) time.Duration {
	if n >= 9 {
		return backoffMax
	}
	return min(backoffMin<<n, backoffMax)
}

// taskID names an agent's part of a batch.
func taskID(ref api.Ref, side token.Side) string {
	return string(side[0]) + "." + string(ref.Xfr) + "." + strconv.FormatInt(ref.Bat, 10)
}

// parseTaskID is the inverse of taskID.
func parseTaskID(id string) (api.Ref, token.Side, bool) {
	parts := strings.Split(id, ".")
	if len(parts) != 3 {
		return api.Ref{}, "", false
	}
	bat, err := strconv.ParseInt(parts[2], 10, 64)
	ref := api.Ref{Xfr: token.TransferID(parts[1]), Bat: bat}
	for _, side := range []token.Side{token.Source, token.Destination} {
		if err == nil && id == taskID(ref, side) {
			return ref, side, true
		}
	}
	return api.Ref{}, "", false
}

// load is how many batches an agent has on each side, and what it may have.
type load struct{ src, dst map[token.Identity]int }

// lease mints every batch that is ready and has two agents with a free slot, the transfers
// in turns, those with the fewest live batches first.
func (b *Broker) lease(ctx context.Context, now time.Time) error {
	for {
		var ready, live []db.Batch
		err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
			if ready, err = tx.NextReady(ctx, now, transfersAtOnce); err != nil || len(ready) == 0 {
				return err
			}
			live, err = tx.Leased(ctx)
			return err
		})
		if err != nil || len(ready) == 0 {
			return err
		}
		l := load{map[token.Identity]int{}, map[token.Identity]int{}}
		of := map[token.TransferID]int{}
		for _, bt := range live {
			l.src[bt.Src]++
			l.dst[bt.Dst]++
			of[bt.Xfr]++
		}
		sort.SliceStable(ready, func(i, j int) bool { return of[ready[i].Xfr] < of[ready[j].Xfr] })
		moved := false
		var errs []error
		for _, bt := range ready {
			did, err := b.tryLease(ctx, bt.Ref, l, now)
			if err != nil && problem.Of(err) != problem.OrderExpired { // that one ends at the next step
				errs = append(errs, fmt.Errorf("leasing batch %d of %s: %w", bt.Bat, bt.Xfr, err))
			}
			moved = moved || did
		}
		if !moved || len(errs) > 0 {
			return errors.Join(errs...)
		}
	}
}

// tryLease mints one batch, or says why it waits, and reports whether anything changed.
func (b *Broker) tryLease(ctx context.Context, ref api.Ref, l load, now time.Time) (bool, error) {
	var t db.Transfer
	var src, dst token.Identity
	var why string
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		if t, err = tx.Transfer(ctx, ref.Xfr); err != nil {
			return err
		}
		if _, rests, err := tx.Revoked(ctx, ref.Xfr); err != nil || rests {
			why = problem.As(errResting).Sentence()
			return err
		}
		if denied := b.conf.Trust.Denied(t.Accounts...); denied != nil {
			why = problem.As(denied).Sentence()
			return nil
		}
		src, dst, why, err = b.pair(ctx, tx, t, l)
		return err
	})
	switch {
	case problem.Of(err) == problem.NoListener:
		return true, b.write(ctx, now, func(w *work) error {
			t, err := w.Transfer(ctx, ref.Xfr)
			if err != nil {
				return err
			}
			return b.giveUp(ctx, w, &t, problem.As(problem.New(problem.NoListener, "No agent of %s that exports %q can be dialled", t.From.Provider, t.From.Container)))
		})
	case err != nil:
		return false, err
	case why != "":
		b.await(ref.Xfr, why)
		return false, nil
	}
	var minted db.Batch
	none := false
	err = b.write(ctx, now, func(w *work) error {
		minted, none = db.Batch{}, false
		bt, err := w.Batch(ctx, ref)
		if err != nil || bt.State != db.Ready {
			return err
		}
		t, err := w.Transfer(ctx, ref.Xfr)
		if err != nil || t.State == api.Paused {
			return err
		}
		if left, err := b.judgeWaiting(ctx, w, &t, &bt); err != nil || !left {
			none = true
			return err
		}
		if ok, err := b.reserve(ctx, w, &t, &bt); err != nil || !ok {
			return err
		}
		bt.State, bt.Src, bt.Dst, bt.Note = db.Live, src, dst, ""
		if err := b.mint(ctx, w, &t, &bt, b.leafOf(dst)); err != nil {
			return err
		}
		minted = bt
		w.then(func() { b.postBoth(bt) })
		return nil
	})
	if err != nil {
		return false, err
	}
	if none {
		return true, nil
	}
	if minted.Bat == 0 {
		b.await(ref.Xfr, "A name is claimed by another transfer")
		return true, nil
	}
	l.src[src]++
	l.dst[dst]++
	b.await(ref.Xfr, "")
	return true, nil
}

// pair chooses the two agents of a transfer's next batch, never one for both sides, or says why there are none yet.
func (b *Broker) pair(ctx context.Context, tx *db.Tx, t db.Transfer, l load) (src, dst token.Identity, why string, err error) {
	from, err := taking(ctx, tx, t.From, t.Authority)
	if err != nil {
		return "", "", "", err
	}
	to, err := taking(ctx, tx, t.To, t.Authority)
	if err != nil {
		return "", "", "", err
	}
	src, why = b.choose(from, l.src, t.From, func(e db.Exporter) bool { return e.Export.Read && len(e.Listen) > 0 })
	if why != "" {
		listens := false
		for _, e := range from {
			listens = listens || e.Export.Read && len(e.Listen) > 0
		}
		if len(from) > 0 && !listens {
			return "", "", "", problem.New(problem.NoListener, "")
		}
		return "", "", why, nil
	}
	creates := func(e db.Exporter) bool { return e.Export.Create }
	if dst, why = b.choose(to, l.dst, t.To, func(e db.Exporter) bool { return creates(e) && e.ID != src }); why == "" {
		return src, dst, "", nil
	}
	// The source is the only one that may create now. It takes that side if another one may serve.
	if dst, _ = b.choose(to, l.dst, t.To, creates); dst == "" {
		return "", "", why, nil
	}
	src, _ = b.choose(from, l.src, t.From, func(e db.Exporter) bool { return e.Export.Read && len(e.Listen) > 0 && e.ID != dst })
	if src == "" {
		return "", "", fmt.Sprintf("Of the agents of %s only one can take part now, and a copy is between two", t.From.Provider), nil
	}
	return src, dst, "", nil
}

// choose returns the connected agent with the most free slots, or says why there is none.
func (b *Broker) choose(es []db.Exporter, load map[token.Identity]int, l token.Location, fit func(db.Exporter) bool) (token.Identity, string) {
	best, free, here := token.Identity(""), 0, false
	for _, e := range es {
		if !fit(e) || !b.connected(e.ID) {
			continue
		}
		here = true
		if n := e.Slots - load[e.ID]; n > free {
			best, free = e.ID, n
		}
	}
	switch {
	case best != "":
		return best, ""
	case here:
		return "", fmt.Sprintf("All agents of %s are busy", l.Provider)
	}
	return "", b.nobody(l)
}

// nobody says whom a transfer waits for at a location.
func (b *Broker) nobody(l token.Location) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, s := range b.sessions {
		if id.Provider() == l.Provider && s.stream != 0 {
			return fmt.Sprintf("No agent of %s that exports %q for this is connected", l.Provider, l.Container)
		}
	}
	why := fmt.Sprintf("No agent of %s is connected", l.Provider)
	for id := range b.turned {
		if id.Provider() == l.Provider {
			return why + b.turnedAway(id)
		}
	}
	return why
}

// reserve takes the destination names of a batch. Items whose name another batch has go on
// in a batch of their own that waits; false means that none was left.
func (b *Broker) reserve(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch) (bool, error) {
	m, err := manifest(ctx, w.Tx, bt.Ref)
	if err != nil {
		return false, err
	}
	names := make([]token.ObjectName, len(m.Items))
	for i, it := range m.Items {
		names[i] = it.Dst
	}
	got, err := w.Reserve(ctx, t.To, bt.Ref, names)
	if err != nil {
		return false, err
	}
	if len(got) == len(names) {
		bt.Claimed = false
		return true, nil
	}
	bt.Attempts++
	rest := w.now.Add(backoff(bt.Attempts - 1))
	if len(got) == 0 {
		bt.Claimed, bt.NotBefore, bt.Note = true, rest, "A name is claimed by another transfer"
		if err := w.PutBatch(ctx, *bt); err != nil {
			return false, err
		}
		_, err := w.record(ctx, t, change{event: "claimed", note: bt.Note})
		return false, err
	}
	var mine, others []token.Item
	for _, it := range m.Items {
		if got[it.Dst] {
			mine = append(mine, it)
		} else {
			others = append(others, it)
		}
	}
	split := db.Batch{State: db.Ready, NotBefore: rest, Judged: bt.Judged, JudgeAfter: bt.JudgeAfter, Rate: bt.Rate, Claimed: true, Tries: bt.Tries, Attempts: bt.Attempts, Repins: bt.Repins,
		Note: "A name is claimed by another transfer"}
	if err := b.addBatch(ctx, w, t, split, others); err != nil {
		return false, err
	}
	bt.Claimed = false
	if err := b.setItems(ctx, w, t, bt, mine); err != nil {
		return false, err
	}
	_, err = w.record(ctx, t, change{event: "claimed", note: fmt.Sprintf("%d names are claimed by another transfer", len(others))})
	return true, err
}

// mint signs both capabilities of a live batch, bound to the certificate cnf, as its next generation.
func (b *Broker) mint(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch, cnf token.Hash) error {
	exp := w.now.Add(b.conf.CapabilityLife)
	if t.Expires.Before(exp) {
		exp = t.Expires
	}
	if !exp.After(w.now.Add(time.Second)) {
		return problem.New(problem.OrderExpired, "The order is at its end")
	}
	if bt.Gen >= spareGens+int64(w.now.Sub(bt.Created)/max(b.conf.CapabilityLife/gensPerLife, 1)) {
		return problem.New(problem.Overloaded, "The capabilities of batch %d are renewed too often", bt.Bat)
	}
	bt.Gen++
	bt.Cnf, bt.CapExp = cnf, exp.Truncate(time.Second)
	c := token.Capability{
		Authority: t.Authority, Bat: bt.Bat, Cnf: cnf, Exp: bt.CapExp.Unix(), Gen: bt.Gen, Iat: w.now.Unix(), Iss: b.self, Man: bt.Man,
		Max: bt.Bytes + bt.Bytes/10 + spareBytes + bt.Items*sparePerItem, Ord: t.Ord, Xfr: t.ID,
	}
	var hashes [2]token.Hash
	signer := b.signer()
	for i, side := range []struct {
		do        token.Verb
		aud, peer token.Identity
		into      *string
	}{{token.Read, bt.Src, bt.Dst, &bt.CapRead}, {token.Create, bt.Dst, bt.Src, &bt.CapCreate}} {
		c.Do, c.Aud, c.Peer = side.do, side.aud, side.peer
		jws, err := signer.Capability(c)
		if err != nil {
			return fmt.Errorf("signing a capability: %w", err)
		}
		*side.into = jws
		if hashes[i], err = payloadHash(jws); err != nil {
			return err
		}
		if err := w.AddCapability(ctx, bt.Ref, bt.Gen, side.do, hashes[i]); err != nil {
			return err
		}
	}
	if t.State == api.Queued {
		t.State = api.Running
	}
	if err := w.PutBatch(ctx, *bt); err != nil {
		return err
	}
	event, note := api.EventKind("leased"), fmt.Sprintf("Batch %d goes from %s to %s", bt.Bat, bt.Src, bt.Dst)
	if bt.Gen > 1 {
		event, note = "renewed", fmt.Sprintf("Batch %d has capabilities of generation %d", bt.Bat, bt.Gen)
	}
	_, err := w.record(ctx, t, change{event, note, db.MintLeaf, facts{
		"authority": t.Authority, "bat": bt.Bat, "cnf": cnf, "create": hashes[1], "dst": bt.Dst, "gen": bt.Gen, "man": bt.Man, "read": hashes[0], "src": bt.Src,
	}})
	return err
}

// payloadHash names a statement that we have just signed.
func payloadHash(jws string) (token.Hash, error) {
	parts := strings.Split(jws, ".")
	if len(parts) != 3 {
		return "", errors.New("naming a capability: it is not of three parts")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", fmt.Errorf("naming a capability: %w", err)
	}
	return token.HashOf(payload), nil
}

// Renew mints the next generation of a live batch's capabilities, bound to the certificate of the destination's
// call; the source gets its copy of the present one. It fails with problem.LeaseLost if the batch is not
// the caller's or is over, with problem.CapRevoked while the transfer is paused, with problem.OrderExpired, and with problem.Overloaded if it is asked for too often.
func (b *Broker) Renew(ctx context.Context, peer certs.Peer, ref api.Ref, now time.Time) (api.Renewal, error) {
	b.heard(peer, now)
	var bt db.Batch
	var t db.Transfer
	err := b.db.Read(ctx, func(tx *db.Tx) (err error) {
		if bt, err = tx.Batch(ctx, ref); err != nil {
			return err
		}
		t, err = tx.Transfer(ctx, ref.Xfr)
		return err
	})
	refused := func(err error) (api.Renewal, error) {
		return api.Renewal{}, b.refusedIn(ctx, peer, ref, "new capabilities for", err, now)
	}
	lost := problem.New(problem.LeaseLost, "The batch is over, or is another agent's")
	switch {
	case problem.Of(err) == problem.NotFound:
		return api.Renewal{}, b.deny(peer.Identity, lost)
	case err != nil:
		return api.Renewal{}, err
	case bt.State != db.Live || !bt.Dropped.IsZero() || bt.Src != peer.Identity && bt.Dst != peer.Identity:
		return refused(lost)
	case t.State == api.Paused:
		return api.Renewal{}, errPaused
	case b.conf.Trust.Denied(t.Accounts...) != nil:
		return refused(b.conf.Trust.Denied(t.Accounts...))
	case bt.Src == peer.Identity && now.Before(bt.CapExp):
		return api.Renewal{Capability: bt.CapRead}, nil
	case bt.Src == peer.Identity:
		return api.Renewal{}, problem.New(problem.CapExpired, "The destination has not renewed the capability")
	}
	bt, err = b.remint(ctx, ref, peer.Leaf, now)
	if err != nil {
		return refused(err)
	}
	return api.Renewal{Capability: bt.CapCreate, Present: bt.CapRead}, nil
}

// remint mints the next generation of a live batch, and sends the source its copy.
func (b *Broker) remint(ctx context.Context, ref api.Ref, cnf token.Hash, now time.Time) (db.Batch, error) {
	var bt db.Batch
	err := b.write(ctx, now, func(w *work) error {
		var err error
		if bt, err = w.Batch(ctx, ref); err != nil {
			return err
		}
		t, err := w.Transfer(ctx, ref.Xfr)
		if err != nil {
			return err
		}
		if bt.State != db.Live || !bt.Dropped.IsZero() || t.Ending != "" {
			return problem.New(problem.LeaseLost, "The batch is over")
		}
		if t.State == api.Paused {
			return errPaused
		}
		if err := b.judgeLive(ctx, w, &t, &bt); err != nil {
			return err
		}
		if bt.Cnf == cnf && bt.CapExp.Equal(now.Add(b.conf.CapabilityLife).Truncate(time.Second)) {
			return nil // asked twice within a second
		}
		if bt.Cnf == "" {
			w.then(func() { b.post(bt.Src, outgoing{batch: bt.Ref}) })
		}
		return b.mint(ctx, w, &t, &bt, cnf)
	})
	if err != nil {
		return db.Batch{}, err
	}
	b.log.Debug("capabilities renewed", zap.String("xfr", string(ref.Xfr)), zap.Int64("bat", ref.Bat), zap.Int64("gen", bt.Gen))
	return bt, nil
}
