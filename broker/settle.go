package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/consign-transfer/consign/broker/acl"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/broker/space"
	"github.com/consign-transfer/consign/broker/tree"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// maxTries is how often an item may fail for reasons of its own.
const maxTries = 8

// next says what becomes of an item that is not final.
type next int

const (
	over      next = iota // it is final
	later                 // the surroundings failed: again, until the order's end
	retry                 // the item failed: again, up to maxTries
	repin                 // the source changed: described anew, once
	elsewhere             // it went on in another batch already
)

// A verdict is what one batch means for one of its items.
type verdict struct {
	item      int64
	next      next
	result    token.Result // if over
	code      problem.Code
	detail    string
	digest    token.Digest
	size      int64
	lost      []string // attributes that could not travel, or that the destination could not represent
	disputed  bool
	unmatched bool
	refused   bool // with its whole batch
}

// A bout is what is known when a batch is judged.
type bout struct {
	src, dst  map[int64]token.Outcome // by item
	unmatched bool                    // the source's receipt is not waited for any longer
	ending    api.State               // of the transfer; empty if it goes on
	withdrawn time.Time               // when its order was withdrawn, if it was
	tries     int64
	repins    int64
}

// passing reports whether a failure lies in the surroundings and not in the item. Somebody makes room on a full disk, or brings
// a store back, when they are awake, so that is waited for as an absent agent is.
func passing(c problem.Code) bool {
	return slices.Contains([]problem.Code{
		problem.PeerUnreached, problem.AgentAbsent, problem.Draining, problem.CapExpired, problem.CapStale, problem.CapNotYet, problem.LeaseLost,
		problem.Unavailable, problem.Timeout, problem.Untried, problem.Overloaded, problem.UnknownKey, problem.Cancelled, problem.OrderNotYet, problem.OrderNotDue, problem.DiskFull,
		problem.StoreAway, problem.CapRevoked, problem.ClockSkewed,
	}, c)
}

// judge says what becomes of item i. It is the whole rule of matching.
func (t bout) judge(i int64, it token.Item) verdict {
	dst, heard := t.dst[i]
	src, served := t.src[i]
	if !heard {
		dst = token.Outcome{Item: i, Outcome: token.Untried, Code: string(problem.LeaseLost), Detail: "The destination's agent did not report it"}
	}
	v := verdict{item: i, result: dst.Outcome, code: problem.Code(dst.Code), detail: dst.Detail, digest: dst.Digest, size: it.Size}
	switch dst.Outcome {
	case token.Stored:
		return t.stored(v, src, dst, served)
	case token.Existed, token.TakenBy, token.Left:
		return v
	case token.Untried, token.Failed:
		if served && (src.Outcome == token.Altered || src.Outcome == token.Failed || src.Outcome == token.Denied) && !passing(problem.Code(src.Code)) {
			v.result, v.code, v.detail = src.Outcome, problem.Code(src.Code), src.Detail // the source knows better why
		}
	case token.Altered, token.Denied, token.Sent:
	}
	v.digest = ""
	switch {
	case t.ending != "":
		if v.result == token.Untried {
			v.code, v.detail = endCode(t.ending, t.withdrawn)
		}
	case v.result == token.Altered && t.repins == 0:
		v.next = repin
	case v.result == token.Altered:
	case passing(v.code):
		v.next = later
	case v.result == token.Failed && problem.Lookup(v.code).Retry == problem.Later && t.tries+1 < maxTries:
		v.next = retry
	}
	return v
}

// stored is judge for an item that the destination has.
func (t bout) stored(v verdict, src, dst token.Outcome, served bool) verdict {
	v.size, v.lost = dst.Size, slices.Compact(slices.Sorted(slices.Values(slices.Concat(src.Lost, dst.Lost))))
	if !served && t.unmatched {
		v.unmatched = true
		return v
	}
	if !served {
		src = token.Outcome{Item: dst.Item, Outcome: token.Untried}
	}
	if err := token.Match(src, dst); err != nil {
		v.disputed, v.result, v.code, v.detail = true, token.Failed, problem.Disputed, problem.As(err).Sentence()
	}
	return v
}

// endCode says why a transfer that is ending so does not go on. withdrawn is when its order was, or zero.
func endCode(s api.State, withdrawn time.Time) (problem.Code, string) {
	switch {
	case s == api.Expired:
		return problem.OrderExpired, "The order ended before it was tried"
	case !withdrawn.IsZero():
		return problem.OrderWithdrawn, "The order was withdrawn before it was tried"
	}
	return problem.Cancelled, "The transfer was cancelled before it was tried"
}

// A final is one line of what became of a batch's items.
type final struct {
	Item   int64        `json:"i"`
	Result token.Result `json:"o"`
	Code   problem.Code `json:"c,omitempty"`
	Detail string       `json:"d,omitempty"`
	Digest token.Digest `json:"g,omitempty"`
	Size   int64        `json:"s"`
	Lost   []string     `json:"l,omitempty"`
}

// outcomesOf returns the outcomes of a batch's receipts, by side and item.
func outcomesOf(rs []db.Receipt) (src, dst map[int64]token.Outcome, err error) {
	src, dst = map[int64]token.Outcome{}, map[int64]token.Outcome{}
	for _, r := range rs {
		into := dst
		if r.Side == token.Source {
			into = src
		}
		for _, line := range linesOf(r.Signed.Lines) {
			o, err := token.ParseOutcome(line)
			if err != nil {
				return nil, nil, fmt.Errorf("reading an outcome that was good when it came: %w", err)
			}
			into[o.Item] = o
		}
	}
	return src, dst, nil
}

// linesOf splits outcome lines, each ended by a newline.
func linesOf(s string) [][]byte {
	if s == "" {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix([]byte(s), []byte("\n")), []byte("\n"))
}

// settle ends a live batch by what its receipts say.
func (b *Broker) settle(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch, unmatched bool) error {
	rs, err := w.Receipts(ctx, bt.Ref)
	if err != nil {
		return err
	}
	bo := bout{unmatched: unmatched, ending: t.Ending, withdrawn: t.Withdrawn, tries: bt.Tries, repins: bt.Repins}
	if bo.src, bo.dst, err = outcomesOf(rs); err != nil {
		return err
	}
	m, err := manifest(ctx, w.Tx, bt.Ref)
	if err != nil {
		return err
	}
	verdicts := make([]verdict, len(m.Items))
	for i, it := range m.Items {
		verdicts[i] = bo.judge(int64(i), it)
	}
	if t.Ending == "" {
		if err := b.judgeLeft(ctx, w, t, *bt, m, verdicts); err != nil {
			return err
		}
	}
	if err := b.addStored(ctx, w, *t, m, verdicts, bo.dst); err != nil {
		return err
	}
	return b.end(ctx, w, t, bt, m, verdicts)
}

// end writes what became of the items of a batch: final outcomes, and new batches for the others.
// The names are given back and those who wait for them are woken.
func (b *Broker) end(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch, m token.Manifest, verdicts []verdict) error {
	var finals bytes.Buffer
	again := map[next][]token.Item{}
	tally := map[token.Result]int64{}
	note := ""
	for _, v := range verdicts {
		if v.next != over {
			if v.next != elsewhere {
				again[v.next] = append(again[v.next], m.Items[v.item])
				note = sentence(v)
			}
			continue
		}
		line, err := json.Marshal(final{v.item, v.result, v.code, v.detail, v.digest, v.size, v.lost})
		if err != nil {
			return fmt.Errorf("encoding an outcome: %w", err)
		}
		finals.Write(append(line, '\n'))
		tally[v.result]++
		b.count(t, v)
	}
	for _, n := range []next{later, retry, repin} {
		if items := again[n]; len(items) > 0 {
			if err := b.addBatch(ctx, w, t, successor(*bt, n, w.now, note), items); err != nil {
				return err
			}
		}
	}
	live := bt.State == db.Live
	bt.State, bt.CapRead, bt.CapCreate = db.Ended, "", ""
	if err := w.PutBatch(ctx, *bt); err != nil {
		return err
	}
	if err := w.PutFinal(ctx, bt.Ref, finals.Bytes()); err != nil {
		return err
	}
	if err := w.Unhold(ctx, bt.Ref); err != nil {
		return err
	}
	if err := b.itemsDenied(ctx, w, t, *bt, m, verdicts); err != nil {
		return err
	}
	if live {
		if err := w.Release(ctx, bt.Ref); err != nil {
			return err
		}
		if err := w.WakeClaimed(ctx, t.To, w.now); err != nil {
			return err
		}
	}
	w.then(b.wake)
	_, err := w.record(ctx, t, change{"settled", settledNote(bt.Bat, tally, len(verdicts)), db.SettleLeaf, facts{"bat": bt.Bat, "man": bt.Man, "outcomes": tally}})
	return err
}

// itemsDenied records which items of a batch were denied, by reason. Of a whole batch that an agent has refused there is an event already.
func (b *Broker) itemsDenied(ctx context.Context, w *work, t *db.Transfer, bt db.Batch, m token.Manifest, verdicts []verdict) error {
	first, n := map[problem.Code]verdict{}, map[problem.Code]int64{}
	for _, v := range verdicts {
		if v.refused || !problem.Denial(v.code) && v.result != token.Denied || v.result == token.Untried {
			continue
		}
		if n[v.code]++; n[v.code] == 1 {
			first[v.code] = v
		}
	}
	for _, code := range slices.Sorted(maps.Keys(n)) {
		v := first[code]
		note := fmt.Sprintf("%d of the items of batch %d were denied; the first, %q: %s", n[code], bt.Bat, m.Items[v.item].Src, within(sentence(v)))
		if err := w.denied(ctx, t, code, note); err != nil {
			return err
		}
	}
	return nil
}

// count adds a final outcome to the transfer.
func (b *Broker) count(t *db.Transfer, v verdict) {
	*t.Of(v.result)++
	if v.result == token.Stored {
		t.Moved += v.size
	}
	t.Disputed = t.Disputed || v.disputed
	t.Unmatched = t.Unmatched || v.unmatched
	if v.result != token.Stored && v.result != token.Existed && v.result != token.Left {
		blame(t, v.code, sentence(v))
		b.metrics.problems.WithLabelValues(string(problem.Lookup(v.code).Code)).Inc()
	}
}

func sentence(v verdict) string {
	return clip((&problem.Error{Code: v.code, Detail: v.detail}).Sentence())
}

// successor is the batch in which items of old are tried again.
func successor(old db.Batch, n next, now time.Time, note string) db.Batch {
	s := db.Batch{State: db.Ready, Tries: old.Tries, Attempts: old.Attempts + 1, Repins: old.Repins, NotBefore: now.Add(backoff(old.Attempts)), Note: note}
	switch n {
	case retry:
		s.Tries++
	case repin:
		s.State, s.Repins = db.Repin, old.Repins+1
	case over, later, elsewhere:
	}
	return s
}

func settledNote(bat int64, tally map[token.Result]int64, n int) string {
	done := int64(0)
	for _, k := range tally {
		done += k
	}
	return fmt.Sprintf("Batch %d ended: %d items stored, %d otherwise final, %d go on", bat, tally[token.Stored], done-tally[token.Stored], int64(n)-done)
}

// addStored has the namespace know what the destination has stored, and that it was read at the source.
func (b *Broker) addStored(ctx context.Context, w *work, t db.Transfer, m token.Manifest, verdicts []verdict, dst map[int64]token.Outcome) error {
	var objects []tree.StoredObject
	var read []token.ObjectName
	owner := accountAt(t.Accounts, t.To.Provider)
	for _, v := range verdicts {
		if v.next != over || v.result != token.Stored {
			continue
		}
		it, o := m.Items[v.item], dst[v.item]
		at := t.To
		at.Name = it.Dst
		objects = append(objects, tree.StoredObject{At: at, Owner: owner, Size: v.size, Digest: v.digest, Version: o.Version, Native: o.Native,
			HashKind: space.ValueHash(o.Hash.Hash()), Hash: o.Hash.Base16(),
			Xfr: t.ID, Bat: m.Bat, Item: v.item})
		read = append(read, it.Src)
	}
	if len(objects) == 0 {
		return nil
	}
	left, err := b.carry(ctx, w.Tx, t.From, read, objects)
	if err != nil {
		return err
	}
	for i := range verdicts {
		if v := &verdicts[i]; v.next == over && v.result == token.Stored && left[m.Items[v.item].Src] && !slices.Contains(v.lost, lostMetadata) {
			v.lost = slices.Sorted(slices.Values(append(slices.Clip(v.lost), lostMetadata)))
		}
	}
	if err := b.tree.Stored(ctx, w.Tx, objects, w.now); err != nil {
		return fmt.Errorf("writing down what batch %d of %s has stored: %w", m.Bat, t.ID, err)
	}
	return w.Accessed(ctx, t.From, acl.Object, read, w.now)
}

// accountAt returns the one of accounts that is at a provider, or none.
func accountAt(accounts []token.Identity, p token.Provider) token.Identity {
	for _, a := range accounts {
		if a.Provider() == p {
			return a
		}
	}
	return ""
}

// closeWaiting ends every batch that is not live: its items were not tried, and why.
func (b *Broker) closeWaiting(ctx context.Context, w *work, t *db.Transfer, code problem.Code, detail string) error {
	for _, s := range []db.BatchState{db.Filling, db.Ready, db.Repin} {
		for {
			bts, err := w.BatchesIn(ctx, t.ID, s, 64)
			if err != nil {
				return err
			}
			if len(bts) == 0 {
				break
			}
			for _, bt := range bts {
				if err := b.closeOne(ctx, w, t, bt, code, detail); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *Broker) closeOne(ctx context.Context, w *work, t *db.Transfer, bt db.Batch, code problem.Code, detail string) error {
	m, err := manifest(ctx, w.Tx, bt.Ref)
	if err != nil {
		return err
	}
	verdicts := make([]verdict, len(m.Items))
	for i, it := range m.Items {
		verdicts[i] = verdict{item: int64(i), result: token.Untried, code: code, detail: detail, size: it.Size}
	}
	return b.end(ctx, w, t, &bt, m, verdicts)
}
