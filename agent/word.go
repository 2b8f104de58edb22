package agent

import (
	"fmt"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// verifyOrder returns the order of so, as its first run, if its accounts signed it, or if the broker of this session gives its word for it. Whether
// that word is good anywhere is for local policy to say, which sees the will's authority.
func (s *session) verifyOrder(so api.SignedOrder, now time.Time) (will, error) {
	if so.Session == "" {
		return s.a.verifyOrder(so, now)
	}
	if len(so.JWS) > 0 || len(so.Chains) > 0 {
		return will{}, problem.New(problem.Malformed, "The task carries an order that its accounts signed and one that they did not")
	}
	v, err := verifyWith(s, now, keysSoon, func(keys token.KeySet) (token.Verified[token.Order], error) {
		return token.VerifySessionOrder(so.Session, keys, s.id())
	})
	if err != nil {
		return will{}, fmt.Errorf("verifying the order of a session: %w", err)
	}
	own, ok := v.Claims.Account(s.a.self.Provider())
	if !ok {
		return will{}, problem.New(problem.OrderUnsigned, "The order names no account at %s", s.a.self.Provider())
	}
	if err := s.a.mayAct(v.Claims, now); err != nil {
		return will{}, err
	}
	return will{Order: v.Claims, ord: v.Hash, account: own, authority: token.BySession, xfr: v.Claims.ID}, nil
}

// recallWill returns the will of a batch that an earlier run took, without judging it again. A broker's word is not verified once more: the key may be gone.
func (a *Agent) recallWill(rec taskRecord) (will, error) {
	w := will{authority: token.ByOrder, run: rec.Task.Run}
	if rec.Word != nil {
		w.authority, w.Order = token.BySession, *rec.Word
		payload, err := w.Payload()
		if err != nil {
			return will{}, err
		}
		w.ord = token.HashOf(payload)
	} else {
		v, _, err := readOrder(rec.Task.Order)
		if err != nil {
			return will{}, err
		}
		w.Order, w.ord = v.Claims, v.Hash
	}
	w.account, _ = w.Account(a.self.Provider())
	w.xfr = w.Run(rec.Task.Run)
	return w, nil
}
