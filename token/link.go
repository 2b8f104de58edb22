package token

import (
	"time"

	"github.com/consign-transfer/consign/token/problem"
)

// MaxLinkLife bounds exp - iat of a link: it is for one broker, now.
const MaxLinkLife = 10 * time.Minute

// MaxLinkSize bounds the compact JWS of a link, in bytes.
const MaxLinkSize = 4 << 10

// A Link is the statement of one person that two accounts are theirs. One JWS a key of Accounts is
// made over the same payload. It gives no right to anything that accounts sign for: only where an
// agent's operator takes the word of a broker does the broker give that word for accounts that are linked.
// See docs/spec/link.md.
type Link struct {
	Accounts  []Identity `json:"accounts"`  // two, of two providers, sorted
	Aud       Identity   `json:"aud"`       // the broker
	Challenge Hash       `json:"challenge"` // 32 bytes that the broker chose, so that it is said now and once
	Exp       int64      `json:"exp"`
	Iat       int64      `json:"iat"`
}

// Check reports why l is not well formed: nil or problem.Malformed.
func (l Link) Check() error {
	if err := checkRole("aud", l.Aud, Broker); err != nil {
		return err
	}
	if err := l.Challenge.Check(); err != nil {
		return err
	}
	if len(l.Accounts) != 2 {
		return problem.New(problem.Malformed, "The link names %d accounts, and is between two.", len(l.Accounts))
	}
	for _, a := range l.Accounts {
		if err := checkRole("accounts", a, Subscriber); err != nil {
			return err
		}
	}
	a, b := l.Accounts[0], l.Accounts[1]
	switch {
	case a >= b:
		return problem.New(problem.Malformed, "The accounts of the link are not sorted.")
	case a.Provider() == b.Provider():
		return problem.New(problem.Malformed, "The link is between two accounts at one provider.")
	case l.Iat <= 0 || l.Iat > maxInteger || l.Exp > maxInteger || l.Exp <= l.Iat || l.Exp-l.Iat > int64(MaxLinkLife/time.Second):
		return problem.New(problem.Malformed, "The link's iat and exp are not seconds since 1970 and at most %d minutes apart.", int64(MaxLinkLife/time.Minute))
	}
	return nil
}

// CheckTime reports whether l may be taken at now: nil, or problem.LinkRefused from exp on, and if it
// was signed more than ClockSkew after now.
func (l Link) CheckTime(now time.Time) error {
	if now.Unix() >= l.Exp || l.Iat > now.Add(ClockSkew).Unix() {
		return problem.New(problem.LinkRefused, "The link was good from %s to %s, and is not now.", clock(l.Iat), clock(l.Exp))
	}
	return nil
}
