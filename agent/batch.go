package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/consign-transfer/consign/agent/journal"
	"github.com/consign-transfer/consign/agent/store"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// A batchKey names a batch and which side of it is ours: Create if we receive, Read if we serve.
type batchKey struct {
	iss token.Identity
	xfr token.TransferID
	bat int64
	do  token.Verb
}

// String is the key as one word; also what is marked as spent.
func (k batchKey) String() string {
	return strings.Join([]string{string(k.iss), string(k.xfr), strconv.FormatInt(k.bat, 10), string(k.do)}, " ")
}

// file is the name of the batch's journal.
func (k batchKey) file() string {
	return string(k.xfr) + "-" + strconv.FormatInt(k.bat, 10) + "-" + string(k.do) + "-" + short(string(k.iss))
}

// stages names the batch's stages in a store that other agents may use as well.
func (k batchKey) stages(self token.Identity) store.BatchID {
	return store.BatchID(string(k.xfr) + "-" + strconv.FormatInt(k.bat, 10) + "-" + short(string(self)) + short(string(k.iss)))
}

func (k batchKey) ref() api.Ref { return api.Ref{Xfr: k.xfr, Bat: k.bat} }

// Kinds of records in a batch's journal, in the order in which they first appear. Append only.
const (
	recTask    byte = iota + 1 // both: JSON of taskRecord; the first record
	recGrant                   // both: JSON of grant, a renewed one
	recBoot                    // both: the boot id that the records behind it were written in
	recChunk                   // both: item u16, index u64, value 32
	recHeld                    // destination: JSON of heldRecord: a whole small item is staged
	recSealed                  // destination: JSON of heldRecord: a large item's digest was confirmed
	recForget                  // destination: item u16: its stage was thrown away
	recSent                    // source: item u16, then as text, with newlines between: digest, native digest, attributes that did not travel: the item was served whole at the pinned version
	recAllow                   // source: u64: bytes that may count as served after a crash
	recOutcome                 // both: one canonical outcome line
	recDrop                    // both: empty: the broker has ended the batch
	recReceipt                 // both: JSON of api.SignedReceipt
	recEnd                     // source: empty: the destination has said that it is done
	recPart                    // destination: item u16, first chunk u64, n u32, n times value 32, state of sums: a part is staged
	recRate                    // both: u64: bytes a second that the task allows from here on
)

// taskRecord is what a batch rests on.
type taskRecord struct {
	Task    api.Task       `json:"task"`
	Iss     token.Identity `json:"iss"`
	Grant   grant          `json:"grant"`
	Started int64          `json:"started"`
	// Word is the order as it was verified, if it rests on the word of Iss and nobody has signed it.
	Word *token.Order `json:"word,omitempty"`
}

// errDropped ends the work on a batch that the broker has ended.
var errDropped = errors.New("the broker has ended the batch")

// errOver ends the work on a batch of which nobody has said anything since its order ended.
var errOver = errors.New("the order ended long ago")

// errStop ends a replay early.
var errStop = errors.New("enough")

// A side is one side's work on a batch.
type side interface {
	// replay takes a record of an earlier run.
	replay(journal.Record) error
	// work carries the batch on until every item has its final outcome; ctx ends with cause errDropped if
	// the broker ends the batch. What it returns other than nil is passing: it is called again on a fresh side.
	work(ctx context.Context) error
	// outcomes returns a line an item, in order; those without a final outcome become untried
	// with the given reason.
	outcomes(rest error) ([]token.Outcome, error)
	// settle runs once the receipt is durable and before it is posted.
	settle(ctx context.Context, r token.Receipt)
	// linger runs once the broker has the receipt, and before the batch is forgotten.
	linger(ctx context.Context)
	// clean removes what the side keeps elsewhere.
	clean(ctx context.Context) error
}

// A batch is what both sides of one have in common. It lives from the task's admission until
// its receipt is with the broker.
type batch struct {
	bill
	a       *Agent
	s       *session
	log     *zap.Logger
	started int64
	breaks  int             // how often the store failed to publish; of the goroutine that works on the batch
	renew   chan struct{}   // a renewal is wanted now
	drop    func()          // ends the work with errDropped
	dropCtx context.Context // done once drop was called
	limiter *rate.Limiter   // by the order; nil is no limit

	mu       sync.Mutex // guards all below
	j        *journal.Journal
	stirring chan struct{} // closed and replaced when a capability may be good again
	rate     int64         // bytes a second that the task allows; 0 is no limit
	ceiling  *rate.Limiter // by that; nil is no limit
	peer     api.Peer
	cur      grant        // the newest
	caps     []token.Hash // in order of generation
	grants   int64        // journalled since the start
	signed   *api.SignedReceipt
	waiting  problem.Code
	note     string
	bytes    int64 // verified
	items    int64 // with a final outcome
}

// begin makes an admitted task durable and starts on it. The stages of a destination are made later.
func (a *Agent) begin(s *session, t api.Task, bl bill, now time.Time) error {
	rec := taskRecord{Task: t, Iss: s.id(), Grant: bl.grant, Started: now.Unix()}
	if bl.will.authority == token.BySession {
		rec.Word = &bl.will.Order
	}
	b := a.newBatch(s, rec, bl)
	if err := a.enlist(b, now); err != nil {
		return err
	}
	if err := a.withdrawn.check(bl.will.Order); err != nil { // meanwhile
		a.discharge(b)
		return err
	}
	data, err := json.Marshal(rec)
	if err != nil {
		a.discharge(b)
		return fmt.Errorf("encoding the task: %w", err)
	}
	if err := a.writeTask(bl.key, data); err != nil {
		a.discharge(b)
		return problem.Wrap(err, problem.DiskFull, "The agent cannot write its journal")
	}
	a.metrics.batches.WithLabelValues(string(b.side())).Inc()
	b.log.Info("batch taken", zap.Int("items", len(b.man.Items)), zap.Int64("bytes", b.total), zap.String("peer", string(t.Peer.ID)))
	a.tasks.Go(func() { b.live(a.runCtx) })
	s.soon()
	return nil
}

// writeTask makes the batch's journal with its first record, durably.
func (a *Agent) writeTask(k batchKey, data []byte) error {
	j, err := journal.Create(a.batchDir, k.file(), a.boot)
	if err != nil {
		return err
	}
	err = j.Append(journal.Record{Kind: recTask, Data: data}, journal.Record{Kind: recBoot, Data: []byte(a.boot)})
	if err == nil {
		err = j.Commit(j.Mark()) // Durable from here.
	}
	if err = errors.Join(err, j.Close()); err != nil {
		return errors.Join(err, journal.Remove(a.batchDir, k.file()))
	}
	return nil
}

func (a *Agent) newBatch(s *session, rec taskRecord, bl bill) *batch {
	b := &batch{bill: bl, a: a, s: s, started: rec.Started, rate: rec.Task.Rate, peer: rec.Task.Peer, cur: rec.Grant, caps: []token.Hash{rec.Grant.Hash}}
	b.log = s.log.With(zap.String("xfr", string(bl.key.xfr)), zap.Int64("bat", bl.key.bat), zap.String("side", string(b.side())))
	b.renew, b.stirring = make(chan struct{}, 1), make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	b.dropCtx, b.drop = ctx, cancel
	return b
}

// renewSoon asks for a renewal of the capability now.
func (b *batch) renewSoon() {
	select {
	case b.renew <- struct{}{}:
	default:
	}
}

func (b *batch) side() token.Side {
	if b.key.do == token.Create {
		return token.Destination
	}
	return token.Source
}

// recall reads the task of a journal of an earlier run. The statements are verified again but for
// what depends on today: they were good when the task was taken.
func (a *Agent) recall(file string) (*batch, error) {
	var rec taskRecord
	_, err := journal.Open(a.batchDir, file, a.boot, func(r journal.Record) error {
		if r.Kind != recTask {
			return fmt.Errorf("record of kind %d where the task belongs", r.Kind)
		}
		if err := json.Unmarshal(r.Data, &rec); err != nil {
			return fmt.Errorf("decoding the task: %w", err)
		}
		return errStop
	})
	if err == nil {
		return nil, nil // its creation was cut short: nothing was promised
	}
	if !errors.Is(err, errStop) {
		return nil, err
	}
	s := a.session(rec.Iss)
	if s == nil {
		return nil, problem.New(problem.UnknownBroker, "The broker %s is not configured any more", rec.Iss)
	}
	bl, err := a.readBill(rec)
	if err != nil {
		return nil, err
	}
	return a.newBatch(s, rec, bl), nil
}

func (a *Agent) readBill(rec taskRecord) (bill, error) {
	w, err := a.recallWill(rec)
	if err != nil {
		return bill{}, err
	}
	bl := bill{will: w, grant: rec.Grant, key: batchKey{iss: rec.Iss, xfr: w.xfr, bat: rec.Task.Bat, do: rec.Grant.Claims.Do}}
	if bl.man, bl.hash, err = token.ParseManifest(rec.Task.Manifest); err != nil {
		return bill{}, err
	}
	for _, it := range bl.man.Items {
		bl.total += it.Size
	}
	at := bl.will.ask(rec.Iss, bl.key.do).Container
	if bl.export = a.exportOf(at); bl.export == nil { // what policy says of it now, the work finds out
		return bill{}, problem.New(problem.NoContainer, "The container %q is not exported any more", at)
	}
	return bl, nil
}

// live carries the batch to its end, however often it is interrupted. Whatever goes wrong on the way, the
// journal is opened again and the ordinary path is run again.
func (b *batch) live(ctx context.Context) {
	pause := b.a.backoff(time.Second, time.Minute)
	before := b.progress()
	for {
		err := diskProblem(b.attempt(ctx))
		if err == nil {
			b.a.discharge(b)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if now := b.progress(); now.Bytes > before.Bytes || now.Items > before.Items {
			before = now
			pause.Reset()
		}
		wait := pause.NextBackOff()
		b.wait(err)
		b.log.Warn("batch interrupted", zap.Error(err), zap.Duration("again_in", wait))
		if b.a.sleep(ctx, wait) != nil {
			return
		}
	}
}

// attempt is one run over the batch, from its journal to its receipt.
func (b *batch) attempt(ctx context.Context) error {
	var sd side
	if b.key.do == token.Create {
		sd = newReceiver(b)
	} else {
		sd = newServer(b)
	}
	dropped, err := b.open(sd)
	if err != nil {
		return err
	}
	defer b.closeJournal()
	if dropped {
		b.drop()
	}
	b.mu.Lock()
	signed := b.signed
	b.mu.Unlock()
	if signed == nil {
		if signed, err = b.workAndSign(ctx, sd); err != nil {
			return err
		}
	}
	if err := b.post(ctx, *signed); err != nil {
		return err
	}
	if err := sd.clean(ctx); err != nil {
		return fmt.Errorf("cleaning up: %w", err)
	}
	if sd.linger(ctx); ctx.Err() != nil {
		return ctx.Err()
	}
	return b.finish()
}

// open replays the journal into the side.
func (b *batch) open(sd side) (dropped bool, err error) {
	b.mu.Lock()
	b.cur, b.caps = b.grant, []token.Hash{b.grant.Hash}
	b.bytes, b.items = 0, 0
	b.mu.Unlock()
	j, err := journal.Open(b.a.batchDir, b.key.file(), b.a.boot, func(r journal.Record) error {
		switch r.Kind {
		case recTask:
		case recGrant:
			var g grant
			if err := json.Unmarshal(r.Data, &g); err != nil {
				return fmt.Errorf("decoding a grant: %w", err)
			}
			b.adopt(g)
		case recDrop:
			dropped = true
		case recRate:
			if len(r.Data) != 8 {
				return fmt.Errorf("decoding a rate: %w", journal.ErrCorrupt)
			}
			b.a.mu.Lock()
			b.a.ceil(b, int64(binary.BigEndian.Uint64(r.Data)))
			b.a.mu.Unlock()
		case recReceipt:
			signed := new(api.SignedReceipt)
			if err := json.Unmarshal(r.Data, signed); err != nil {
				return fmt.Errorf("decoding the receipt: %w", err)
			}
			b.mu.Lock()
			b.signed = signed
			b.mu.Unlock()
		default:
			return sd.replay(r)
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("opening the batch's journal: %w", err)
	}
	b.mu.Lock()
	b.j = j
	b.mu.Unlock()
	return dropped, j.Append(journal.Record{Kind: recBoot, Data: []byte(b.a.boot)})
}

func (b *batch) closeJournal() {
	b.mu.Lock()
	j := b.j
	b.j = nil
	b.mu.Unlock()
	if j == nil {
		return
	}
	if err := j.Close(); err != nil {
		b.log.Warn("closing the batch's journal", zap.Error(err))
	}
}

// workAndSign runs the side to its end, signs the receipt and makes it durable.
func (b *batch) workAndSign(ctx context.Context, sd side) (*api.SignedReceipt, error) {
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(b.dropCtx, func() { cancel(errDropped) })
	defer stop()
	over := time.AfterFunc(time.Until(endOf(b.will.Order)), func() { cancel(errOver) })
	defer over.Stop()
	err := sd.work(work)
	var rest error
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(context.Cause(work), errDropped):
		if rest = b.a.withdrawn.check(b.will.Order); rest == nil {
			rest = problem.New(problem.Cancelled, "The broker ended the batch")
		}
		if err := b.record(journal.Record{Kind: recDrop}); err != nil {
			return nil, err
		}
	case errors.Is(context.Cause(work), errOver):
		rest = problem.New(problem.OrderExpired, "The order ended before the batch did")
	case err != nil:
		return nil, err
	}
	outs, err := sd.outcomes(rest)
	if err != nil {
		return nil, err
	}
	signed, claims, err := b.sign(outs, time.Now())
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(signed)
	if err != nil {
		return nil, fmt.Errorf("encoding the receipt: %w", err)
	}
	if err := b.record(journal.Record{Kind: recReceipt, Data: data}); err != nil {
		return nil, err
	}
	if err := b.commit(); err != nil { // Durable from here.
		return nil, fmt.Errorf("keeping the receipt: %w", err)
	}
	b.mu.Lock()
	b.signed = signed
	b.mu.Unlock()
	b.wait(nil)
	sd.settle(ctx, claims)
	return signed, nil
}

// record appends records to the journal.
func (b *batch) record(recs ...journal.Record) error {
	b.mu.Lock()
	j := b.j
	b.mu.Unlock()
	if j == nil {
		return problem.New(problem.Draining, "The batch is not open")
	}
	if err := j.Append(recs...); err != nil {
		return fmt.Errorf("keeping the journal: %w", err)
	}
	return nil
}

// commit makes all records so far durable. What they claim must be durable already.
func (b *batch) commit() error {
	b.mu.Lock()
	j := b.j
	b.mu.Unlock()
	if j == nil {
		return problem.New(problem.Draining, "The batch is not open")
	}
	return j.Commit(j.Mark())
}

// finish forgets the batch once the broker has the receipt and the stages are gone: the journal last, so that a
// crash in between finds its way here again.
func (b *batch) finish() error {
	if err := b.a.spent.put(b.key, b.will.Order, time.Now()); err != nil {
		return err
	}
	b.closeJournal()
	if err := journal.Remove(b.a.batchDir, b.key.file()); err != nil {
		return err
	}
	b.log.Info("batch ended")
	return nil
}

// adopt makes g the newest grant; an older or the same generation changes nothing.
func (b *batch) adopt(g grant) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Contains(b.caps, g.Hash) || g.Claims.Gen <= b.cur.Claims.Gen {
		return
	}
	b.cur = g
	b.caps = append(b.caps, g.Hash)
	if len(b.caps) > token.MaxCapabilities { // the first stays, then the newest
		b.caps = slices.Delete(b.caps, 1, 2)
	}
}

// spareGrants and one more a second are the newer grants that a batch journals; a broker or peer that brings more is not followed.
const spareGrants = 64

// renewed journals and adopts a newer grant. One that is not newer is problem.CapStale, so that whoever asked for it pauses.
func (b *batch) renewed(g grant) error {
	b.mu.Lock()
	newer := g.Claims.Gen > b.cur.Claims.Gen
	many := b.grants >= spareGrants+max(0, time.Now().Unix()-b.started)
	if newer && !many {
		b.grants++
	}
	b.mu.Unlock()
	switch {
	case !newer:
		return problem.New(problem.CapStale, "Generation %d brings nothing new", g.Claims.Gen)
	case many:
		return problem.New(problem.Overloaded, "The capabilities of the batch are renewed too often")
	}
	data, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("encoding a grant: %w", err)
	}
	if err := b.record(journal.Record{Kind: recGrant, Data: data}); err != nil {
		return err
	}
	b.adopt(g)
	b.stir()
	return nil
}

// current returns the newest grant and where the peer is.
func (b *batch) current() (grant, api.Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.cur, b.peer
}

// wait says why the batch does not go on at the moment; nil: it does.
func (b *batch) wait(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting, b.note = "", ""
	if err != nil {
		e := problem.As(err)
		b.waiting, b.note = e.Code, e.Sentence()
	}
}

// progress is what a beat says of the batch.
func (b *batch) progress() api.Progress {
	b.mu.Lock()
	defer b.mu.Unlock()
	return api.Progress{Ref: b.key.ref(), Bytes: b.bytes, Items: b.items, Waiting: b.waiting, Note: b.note}
}

// isSigned reports whether the work is done and only the receipt is on its way.
func (b *batch) isSigned() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.signed != nil
}
