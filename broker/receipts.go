package broker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/broker/db"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// readReceipt returns the receipt in sr if it is signed by the leaf of the chain beside it. It says nothing of who that is.
func readReceipt(sr api.SignedReceipt) (token.Receipt, certs.Chain, error) {
	chain, err := certs.ParseChain([]byte(sr.Chain))
	if err != nil {
		return token.Receipt{}, nil, err
	}
	v, err := token.VerifyReceipt(sr.JWS, chain.Leaf().PublicKey)
	if err != nil {
		return token.Receipt{}, nil, err
	}
	return v.Claims, chain, nil
}

// judgeReceipt reports whether the caller signed a receipt, with a certificate that was good at its iat, and whether its lines can be
// read.
func (b *Broker) judgeReceipt(peer certs.Peer, r token.Receipt, chain certs.Chain, sr api.SignedReceipt, now time.Time) error {
	id, err := b.conf.Trust.Verify(chain, time.Unix(r.Iat, 0))
	switch {
	case err != nil:
		return err
	case id != r.Iss || id != peer.Identity:
		return problem.New(problem.CertMismatch, "The receipt is of %s, signed by %s and posted by %s", r.Iss, id, peer.Identity)
	case r.Aud != b.self:
		return problem.New(problem.CapAudience, "The receipt is for the broker %s", r.Aud)
	case r.Iat > now.Add(token.ClockSkew).Unix():
		return problem.New(problem.Malformed, "The receipt was signed at a time that has not come yet")
	}
	if len(sr.Lines) > token.MaxItems*(token.MaxOutcomeSize+1) {
		return problem.New(problem.TooLarge, "The receipt has more outcomes than a batch has items")
	}
	if sr.Lines != "" && sr.Lines[len(sr.Lines)-1] != '\n' {
		return problem.New(problem.Malformed, "The last outcome line has no end")
	}
	return nil
}

// PostReceipt takes a receipt in. When it returns, receipt, leaf and what follows are durable. The same
// receipt again, or another of equal root, gets the same answer; problem.Conflict if it contradicts
// the one that was accepted, and the transfer is disputed. A receipt for a batch that has ended
// without it is kept and changes no outcome.
func (b *Broker) PostReceipt(ctx context.Context, peer certs.Peer, sr api.SignedReceipt, now time.Time) (api.ReceiptAnswer, error) {
	b.heard(peer, now)
	r, chain, err := readReceipt(sr)
	if err != nil {
		return api.ReceiptAnswer{}, b.deny(peer.Identity, err)
	}
	ref := api.Ref{Xfr: r.Xfr, Bat: r.Bat}
	refused := func(err error) (api.ReceiptAnswer, error) {
		return api.ReceiptAnswer{}, b.refusedIn(ctx, peer, ref, "to hand in a receipt for", err, now)
	}
	if err := b.judgeReceipt(peer, r, chain, sr, now); err != nil {
		return refused(err)
	}
	outcomes, err := r.Outcomes(linesOf(sr.Lines))
	if err != nil {
		return refused(err)
	}
	leaf, conflict, fresh := int64(0), false, false
	err = b.write(ctx, now, func(w *work) error {
		conflict, fresh = false, false
		bt, err := w.Batch(ctx, ref)
		if err != nil {
			return err
		}
		t, err := w.Transfer(ctx, ref.Xfr)
		if err != nil {
			return err
		}
		if err := b.checkReceipt(ctx, w.Tx, r, t, bt); err != nil {
			return err
		}
		m, err := manifest(ctx, w.Tx, ref)
		if err != nil {
			return err
		}
		if err := m.CheckOutcomes(outcomes); err != nil {
			return err
		}
		root, idx, old, err := w.ReceiptOf(ctx, ref, r.Side, r.Part)
		if err != nil {
			return err
		}
		if old {
			leaf, conflict = idx, root != r.Root
			if conflict && !t.Disputed {
				t.Disputed = true
				_, err = w.record(ctx, &t, change{event: "disputed", note: fmt.Sprintf("%s signed two different receipts for batch %d", r.Iss, r.Bat)})
			}
			return err
		}
		if err := checkPart(ctx, w.Tx, r, outcomes); err != nil {
			return err
		}
		fresh = true
		leaf, err = b.accept(ctx, w, &t, &bt, r, sr)
		return err
	})
	switch {
	case err != nil:
		return refused(err)
	case conflict:
		return refused(problem.New(problem.Conflict, "Another receipt for this batch, part and side was accepted before"))
	}
	if fresh {
		b.metrics.receipts.WithLabelValues(string(r.Side)).Inc()
		b.log.Debug("receipt accepted", zap.String("xfr", string(r.Xfr)), zap.Int64("bat", r.Bat), zap.String("side", string(r.Side)))
	}
	return api.ReceiptAnswer{Leaf: leaf}, nil
}

// checkReceipt compares what a receipt claims with the batch.
func (b *Broker) checkReceipt(ctx context.Context, tx *db.Tx, r token.Receipt, t db.Transfer, bt db.Batch) error {
	agent := bt.Dst
	if r.Side == token.Source {
		agent = bt.Src
	}
	switch {
	case agent != r.Iss:
		return problem.New(problem.LeaseLost, "The %s of batch %d is another agent", r.Side, r.Bat)
	case r.Man != bt.Man:
		return problem.New(problem.CapManifest, "The receipt is for another manifest")
	case r.Ord != t.Ord:
		return problem.New(problem.WrongStatement, "The receipt is for another order")
	case r.Authority != t.Authority:
		return problem.New(problem.WrongStatement, "The receipt says that the batch rests on the authority %q, and it rests on %q", r.Authority, t.Authority)
	}
	minted, err := tx.Capabilities(ctx, bt.Ref)
	if err != nil {
		return err
	}
	for _, c := range r.Caps {
		if !minted[c] {
			return problem.New(problem.WrongStatement, "The receipt rests on a capability that was not minted for this batch")
		}
	}
	return nil
}

// checkPart refuses a part behind the last one, and one that tells of an item of which its side has told before. So there are
// at most as many parts as items, and nobody takes back what he has signed.
func checkPart(ctx context.Context, tx *db.Tx, r token.Receipt, outcomes []token.Outcome) error {
	rs, err := tx.Receipts(ctx, api.Ref{Xfr: r.Xfr, Bat: r.Bat})
	if err != nil {
		return err
	}
	rs = slices.DeleteFunc(rs, func(old db.Receipt) bool { return old.Side != r.Side })
	src, dst, err := outcomesOf(rs)
	if err != nil {
		return err
	}
	told := dst
	if r.Side == token.Source {
		told = src
	}
	for _, o := range outcomes {
		if _, twice := told[o.Item]; twice {
			return problem.New(problem.Conflict, "The %s has signed an outcome of item %d before", r.Side, o.Item)
		}
	}
	if slices.ContainsFunc(rs, func(old db.Receipt) bool { return old.Last }) {
		return problem.New(problem.Conflict, "The %s has signed the last part before", r.Side)
	}
	return nil
}

// accept writes a receipt with its leaf, and settles the batch if that was what it waited for.
func (b *Broker) accept(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch, r token.Receipt, sr api.SignedReceipt) (int64, error) {
	late := bt.State != db.Live
	note := fmt.Sprintf("The %s signed a receipt for batch %d", r.Side, r.Bat)
	if late {
		note += ", which had ended without it"
	}
	chain, err := certs.ParseChain([]byte(sr.Chain))
	if err != nil {
		return 0, err
	}
	leaf, err := w.record(ctx, t, change{"receipt", note, db.ReceiptLeaf, facts{"bat": r.Bat, "certificate": chain.LeafHash(), "jws": sr.JWS}})
	if err != nil {
		return 0, err
	}
	if err := w.AddReceipt(ctx, db.Receipt{Ref: bt.Ref, Side: r.Side, Part: r.Part, Last: r.Last, Root: r.Root, Signed: sr, Leaf: leaf, Came: w.now}); err != nil {
		return 0, err
	}
	if !r.Last || late {
		return leaf, nil
	}
	if r.Side == token.Source {
		bt.SrcDone = w.now
	} else {
		bt.DstDone = w.now
	}
	if bt.SrcDone.IsZero() || bt.DstDone.IsZero() {
		return leaf, w.PutBatch(ctx, *bt)
	}
	return leaf, b.settle(ctx, w, t, bt, false)
}

// Refuse takes in that an agent does not take a receive or serve task. Its items are denied with
// that reason, unless the reason may pass; the other agent is told to stop. A refusal is not signed, so it changes nothing
// of what is: who has signed a receipt for the batch cannot refuse it any more, and what the destination has signed for
// stands, unmatched, when the source refuses.
func (b *Broker) Refuse(ctx context.Context, peer certs.Peer, id string, p api.Problem, now time.Time) error {
	b.heard(peer, now)
	ref, side, ok := parseTaskID(id)
	if !ok {
		return problem.New(problem.LeaseLost, "There is no such task")
	}
	err := b.write(ctx, now, func(w *work) error {
		bt, err := w.Batch(ctx, ref)
		if problem.Of(err) == problem.NotFound {
			return problem.New(problem.LeaseLost, "There is no such task")
		}
		if err != nil {
			return err
		}
		agent, other := bt.Dst, bt.Src
		if side == token.Source {
			agent, other = other, agent
		}
		if agent != peer.Identity {
			return problem.New(problem.LeaseLost, "The task is another agent's")
		}
		if bt.State != db.Live {
			return nil // refused before, and the answer was lost; or over by now
		}
		t, err := w.Transfer(ctx, ref.Xfr)
		if err != nil {
			return err
		}
		rs, err := w.Receipts(ctx, ref)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(rs, func(r db.Receipt) bool { return r.Side == side }) {
			return nil
		}
		w.then(func() { b.post(other, outgoing{batch: ref}) })
		if side == token.Source && len(rs) > 0 {
			note := fmt.Sprintf("%s refused batch %d, which %s has signed for", upper(agentText(agent)), bt.Bat, agentText(other))
			if err := w.event(ctx, &t, api.Event{Kind: refusalKind(p.Code), Code: p.Code, Note: note}); err != nil {
				return err
			}
			return b.settle(ctx, w, &t, &bt, true)
		}
		return b.refuse(ctx, w, &t, &bt, agent, problem.Error{Code: p.Code, Detail: clip(p.Detail)})
	})
	return b.deny(peer.Identity, err)
}

// refusalKind is the kind of event that an agent's refusal of a task is.
func refusalKind(code problem.Code) api.EventKind {
	if problem.Denial(code) {
		return api.DeniedEvent
	}
	return "refused"
}

// refuse ends a batch that an agent does not take.
func (b *Broker) refuse(ctx context.Context, w *work, t *db.Transfer, bt *db.Batch, agent token.Identity, p problem.Error) error {
	m, err := manifest(ctx, w.Tx, bt.Ref)
	if err != nil {
		return err
	}
	n := over
	if t.Ending == "" && (passing(p.Code) || problem.Lookup(p.Code).Retry == problem.Later) {
		n = later
	}
	verdicts := make([]verdict, len(m.Items))
	for i, it := range m.Items {
		verdicts[i] = verdict{item: int64(i), next: n, result: token.Denied, code: p.Code, detail: p.Sentence(), size: it.Size, refused: true}
	}
	note := fmt.Sprintf("%s refused batch %d: %s", upper(agentText(agent)), bt.Bat, within(p.Sentence()))
	if err := w.event(ctx, t, api.Event{Kind: refusalKind(p.Code), Code: p.Code, Note: note}); err != nil {
		return err
	}
	return b.end(ctx, w, t, bt, m, verdicts)
}
