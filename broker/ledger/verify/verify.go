// Package verify is all that an auditor must trust: it checks, offline and years
// later, what was signed about one transfer.
//
// It guarantees that a Report without problems means all of this: every account that
// the order names signed it, with a certificate that was good when it was signed; of a standing order the certificate may be a later one of the
// same identity and key, which was good before the order's end: that it was when a run began is what the agents saw to. Or the Report says that
// none signed, and on whose word it rests instead, which the agents of both sides took and name in their receipts. Every batch is of this order, and of one run of it, which was due
// when the receipts begin, and the order covers each of its items under the very name that it got. Every receipt was signed by an
// agent of the provider of its side, with a certificate that was good at its time, over exactly the outcome
// lines that are here. Every item that is counted as stored is stored by the word of the destination and sent by the word of the
// source, with equal size and digest. No more is stored than the order's limits allow.
//
// It does not say that nothing is missing. A Report counts the numbers of batches that are skipped and the items of which the
// destination says nothing here; that is all that can be seen of what was left out. The last batches, a batch that was never
// leased, and a statement that somebody made and the broker hid are not missed. Neither is it known whether a key was
// stolen and its statement dated back. It does not look at the objects themselves. It uses
// no network and no clock; it trusts token, certs and the roots it is given. Memory does not grow
// with the number of batches. An Auditor must not be used concurrently.
package verify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// maxProblems bounds how many problems a Report spells out.
const maxProblems = 1000

// A Problem is one thing that is wrong.
type Problem struct {
	Bat      int64        `json:"bat,omitempty"` // the batch; 0 is the order
	Code     problem.Code `json:"code"`
	Sentence string       `json:"sentence"`
}

// A Report is what an audit came to.
type Report struct {
	Transfer token.TransferID `json:"transfer"`
	Order    token.Hash       `json:"order"`
	Period   int64            `json:"period"` // seconds between the runs of a standing order; else 0
	Run      int64            `json:"run"`    // the number of the run that Transfer is; else 0
	Accounts []token.Identity `json:"accounts"`
	// Authority is what the transfer rested on. If it is token.BySession, no account has signed the order: Broker said that they
	// wanted it, and nothing here but the agents' receipts shows that it did.
	Authority token.Authority        `json:"authority"`
	Broker    token.Identity         `json:"broker,omitempty"` // that the receipts were made for
	From      token.Location         `json:"from"`
	To        token.Location         `json:"to"`
	Batches   int64                  `json:"batches"`
	Receipts  int64                  `json:"receipts"`
	Items     map[token.Result]int64 `json:"items"`    // by the destination's outcome; tried again counts again
	Bytes     int64                  `json:"bytes"`    // of the items that both sides vouch for
	Stored    int64                  `json:"stored"`   // items that both sides vouch for
	OneSided  int64                  `json:"onesided"` // stored by the word of the destination alone
	Looked    int64                  `json:"looked"`   // stored where the agent alone kept names from being created twice
	Silent    int64                  `json:"silent"`   // items of batches that are here, of which the destination says nothing here
	Skipped   int64                  `json:"skipped"`  // numbers below the highest batch that are not here: never leased, or left out
	Wrong     int64                  `json:"wrong"`    // problems found, those beyond the list included
	Problems  []Problem              `json:"problems"`
}

// Good reports whether nothing is wrong.
func (r Report) Good() bool { return r.Wrong == 0 }

// An Auditor checks the batches of one order, one after another.
type Auditor struct {
	trust  *certs.Trust
	order  token.Order
	ord    token.Hash
	report Report
	seen   map[int64]bool
	last   int64 // highest number of a batch
	found  bool  // a batch has said which run it is
}

// NewAuditor checks an order and returns an auditor of its batches. An order that is not good is not
// an error: it is a problem of the report, and the batches are still looked at. The error is for an order that cannot be read at all.
func NewAuditor(so api.SignedOrder, trust *certs.Trust) (*Auditor, error) {
	a := &Auditor{trust: trust, seen: map[int64]bool{}, report: Report{Items: map[token.Result]int64{}, Problems: []Problem{}}}
	a.report.Authority = token.ByOrder
	if so.Claims != nil {
		if err := a.word(so); err != nil {
			return nil, err
		}
		return a, nil
	}
	if len(so.JWS) == 0 || len(so.JWS) != len(so.Chains) {
		return nil, problem.New(problem.OrderUnsigned, "The order has %d signatures and %d certificate chains", len(so.JWS), len(so.Chains))
	}
	for i := range so.JWS {
		if err := a.signature(i, so.JWS[i], so.Chains[i]); err != nil {
			return nil, err
		}
	}
	a.describe()
	if o := a.order; len(o.Accounts) != len(so.JWS) {
		a.wrong(0, problem.New(problem.OrderUnsigned, "The order names %d accounts and has %d signatures", len(o.Accounts), len(so.JWS)))
	}
	return a, nil
}

// describe takes over into the report what the order is.
func (a *Auditor) describe() {
	o := a.order
	a.report.Transfer, a.report.Order, a.report.Accounts, a.report.From, a.report.To = o.ID, a.ord, o.Accounts, o.From, o.To
	a.report.Period = o.Period
	if o.Do != token.Copy {
		a.wrong(0, problem.New(problem.WrongStatement, "The order is one to %s, not to copy", o.Do))
	}
}

// word takes an order that no account signed. It is named by its hash alone, in every manifest and receipt; the broker's signature is not looked
// at, for the broker's keys are in no certificate. It fails if the order cannot be read.
func (a *Auditor) word(so api.SignedOrder) error {
	payload, err := so.Claims.Payload()
	if err != nil {
		return fmt.Errorf("reading the order, which nobody signed: %w", err)
	}
	a.order, a.ord, a.report.Authority = *so.Claims, token.HashOf(payload), token.BySession
	a.describe()
	if len(so.JWS) > 0 || len(so.Chains) > 0 {
		a.wrong(0, problem.New(problem.Malformed, "The bundle holds an order that nobody signed, and signatures beside it"))
	}
	return nil
}

// signature checks the i-th signature of the order. It fails if that cannot be read.
func (a *Auditor) signature(i int, jws, pem string) error {
	chain, err := certs.ParseChain([]byte(pem))
	if err != nil {
		return fmt.Errorf("reading certificate chain %d of the order: %w", i+1, err)
	}
	v, err := token.VerifyOrder(jws, chain.Leaf().PublicKey)
	if err != nil {
		return fmt.Errorf("verifying signature %d of the order: %w", i+1, err)
	}
	if i == 0 {
		a.order, a.ord = v.Claims, v.Hash
	}
	if v.Hash != a.ord {
		a.wrong(0, problem.New(problem.OrderUnsigned, "The signatures of the order are not over the same payload"))
		return nil
	}
	at := time.Unix(a.order.Iat, 0)
	if begin := chain.Leaf().NotBefore; a.order.Standing() && begin.After(at) { // renewed since: the key that signed is the same
		at = begin
	}
	id, err := a.trust.Verify(chain, at)
	switch {
	case err != nil:
		a.wrong(0, err)
	case at.Unix() >= a.order.Exp:
		a.wrong(0, problem.New(problem.OrderUnsigned, "The certificate of signature %d is newer than the end of the order", i+1))
	case i >= len(a.order.Accounts) || id != a.order.Accounts[i]:
		a.wrong(0, problem.New(problem.OrderUnsigned, "Signature %d of the order is by %s, which is not the account named there", i+1, id))
	}
	return nil
}

func (a *Auditor) wrong(bat int64, err error) {
	a.report.Wrong++
	if len(a.report.Problems) < maxProblems {
		e := problem.As(err)
		a.report.Problems = append(a.report.Problems, Problem{Bat: bat, Code: e.Code, Sentence: e.Sentence()})
	}
}

// Batch checks one batch and all its receipts.
func (a *Auditor) Batch(r api.BatchRecord) {
	a.report.Batches++
	if a.seen[r.Bat] {
		a.wrong(r.Bat, problem.New(problem.Conflict, "The batch is in the bundle twice"))
		return
	}
	a.seen[r.Bat] = true
	m, man, err := token.ParseManifest(r.Manifest)
	if err != nil {
		a.wrong(r.Bat, err)
		return
	}
	if m.Bat != r.Bat || m.Ord != a.ord {
		a.wrong(r.Bat, problem.New(problem.CapManifest, "The manifest is of another batch, transfer or order"))
		return
	}
	if err := a.run(m.Xfr); err != nil {
		a.wrong(r.Bat, err)
		return
	}
	if a.report.Broker != "" && a.report.Broker != m.Iss {
		a.wrong(r.Bat, problem.New(problem.CapManifest, "The batches are of two brokers, %s and %s", a.report.Broker, m.Iss))
		return
	}
	a.last, a.report.Broker = max(a.last, r.Bat), m.Iss
	for _, it := range m.Items {
		if err := a.order.Covers(it); err != nil {
			a.wrong(r.Bat, err)
		}
	}
	src, dst := map[int64]token.Outcome{}, map[int64]token.Outcome{}
	parts := map[token.Side]map[int64]bool{token.Source: {}, token.Destination: {}}
	for _, sr := range r.Receipts {
		a.report.Receipts++
		c, outs, err := a.receipt(sr, m, man)
		if err != nil {
			a.wrong(r.Bat, err)
			continue
		}
		if parts[c.Side][c.Part] {
			a.wrong(r.Bat, problem.New(problem.Conflict, "The %s has two receipts of part %d", c.Side, c.Part))
			continue
		}
		parts[c.Side][c.Part] = true
		into := dst
		if c.Side == token.Source {
			into = src
		}
		for _, o := range outs {
			if _, twice := into[o.Item]; twice {
				a.wrong(r.Bat, problem.New(problem.Conflict, "The %s has two outcomes of item %d", c.Side, o.Item))
			}
			into[o.Item] = o
			if o.Outcome == token.Stored && c.CreateBy == token.GuardAgent {
				a.report.Looked++
			}
		}
	}
	a.match(m, src, dst)
}

// run checks that xfr is the run of the order of which the other batches are.
func (a *Auditor) run(xfr token.TransferID) error {
	k, ok := a.order.RunOf(xfr)
	switch {
	case !ok:
		return problem.New(problem.CapManifest, "The manifest is of another batch, transfer or order")
	case a.found && k != a.report.Run:
		return problem.New(problem.CapManifest, "The manifest is of run %d of the order, and others here are of run %d", k, a.report.Run)
	}
	a.found, a.report.Run, a.report.Transfer = true, k, xfr
	return nil
}

// inTime checks that a receipt of a standing order was begun when its run was due, and before the order's end.
func (a *Auditor) inTime(r token.Receipt) error {
	if !a.order.Standing() {
		return nil
	}
	began := time.Unix(r.Started, 0)
	if err := a.order.CheckRun(a.report.Run, began); err != nil {
		return err
	}
	return a.order.CheckTime(began)
}

// receipt checks one receipt and returns its claims and outcomes.
func (a *Auditor) receipt(sr api.SignedReceipt, m token.Manifest, man token.Hash) (token.Receipt, []token.Outcome, error) {
	var zero token.Receipt
	chain, err := certs.ParseChain([]byte(sr.Chain))
	if err != nil {
		return zero, nil, err
	}
	v, err := token.VerifyReceipt(sr.JWS, chain.Leaf().PublicKey)
	if err != nil {
		return zero, nil, err
	}
	r := v.Claims
	id, err := a.trust.Verify(chain, time.Unix(r.Iat, 0))
	if err != nil {
		return zero, nil, err
	}
	want := a.order.To.Provider
	if r.Side == token.Source {
		want = a.order.From.Provider
	}
	switch {
	case id != r.Iss || id.Role() != token.Agent:
		return zero, nil, problem.New(problem.CertMismatch, "The receipt is of %s and was signed by %s", r.Iss, id)
	case id.Provider() != want:
		return zero, nil, problem.New(problem.ForeignPeer, "The receipt of the %s is by %s, which is not an agent of %s", r.Side, id, want)
	case r.Aud != m.Iss || r.Xfr != m.Xfr || r.Bat != m.Bat || r.Man != man || r.Ord != a.ord:
		return zero, nil, problem.New(problem.WrongStatement, "The receipt is for another broker, transfer, batch, manifest or order")
	case r.Authority != a.report.Authority:
		return zero, nil, problem.New(problem.WrongStatement, "The receipt says that the transfer rested on the authority %q, and the order here is one of %q", r.Authority, a.report.Authority)
	}
	if err := a.inTime(r); err != nil {
		return zero, nil, err
	}
	outs, err := r.Outcomes(split(sr.Lines))
	if err != nil {
		return zero, nil, err
	}
	if err := m.CheckOutcomes(outs); err != nil {
		return zero, nil, err
	}
	return r, outs, nil
}

// split returns the lines of a text in which each is ended by a newline; a rest without one is a line that
// no receipt was signed over.
func split(s string) [][]byte {
	var out [][]byte
	for line := range strings.SplitSeq(s, "\n") {
		out = append(out, []byte(line))
	}
	if len(out[len(out)-1]) == 0 {
		out = out[:len(out)-1]
	}
	return out
}

// match compares what the two sides say of each item.
func (a *Auditor) match(m token.Manifest, src, dst map[int64]token.Outcome) {
	for i, it := range m.Items {
		d, ok := dst[int64(i)]
		if !ok {
			a.report.Silent++
			continue
		}
		a.report.Items[d.Outcome]++
		if d.Outcome != token.Stored {
			continue
		}
		if it.Digest != "" && d.Digest != it.Digest {
			a.wrong(m.Bat, problem.New(problem.DigestDiffers, "Item %d is stored with another digest than was ordered", i))
			continue
		}
		s, ok := src[int64(i)]
		if !ok {
			a.report.OneSided++
			continue
		}
		if err := token.Match(s, d); err != nil {
			a.wrong(m.Bat, err)
			continue
		}
		a.report.Stored++
		a.report.Bytes += d.Size
	}
}

// Report returns what has been found so far. The caller must not modify it.
func (a *Auditor) Report() Report {
	r := a.report
	r.Skipped = a.last
	for bat := range a.seen {
		if bat >= 1 && bat <= a.last {
			r.Skipped--
		}
	}
	if l := a.order.Limits; l.Items > 0 && r.Stored+r.OneSided > l.Items || l.Bytes > 0 && r.Bytes > l.Bytes {
		r.Wrong++
		r.Problems = append(slices.Clip(r.Problems), Problem{
			Code: problem.OrderNotCovered, Sentence: "More items or bytes were stored than the order allows",
		})
	}
	return r
}
