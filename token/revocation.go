package token

import (
	"time"

	"github.com/consign-transfer/consign/token/problem"
)

// A Reason says why a transfer's capabilities were revoked: 1 to MaxReasonSize
// lower-case letters and '-'. A reader takes one that it does not know for ByCancel.
type Reason string

// The reasons so far.
const (
	ByPause      Reason = "paused"    // it may go on later: what was received is kept
	ByCancel     Reason = "cancelled" // it has ended
	ByWithdrawal Reason = "withdrawn" // an account has withdrawn the order
	ByDenial     Reason = "denied"    // an account has lost a right that the order needs
)

// A Revocation is a broker's list of the transfers whose capabilities are not good
// any more, though they have not ended. A list replaces those of smaller epochs,
// so that what is not in the newest one is not revoked. See docs/spec/revocation.md.
type Revocation struct {
	Epoch   int64     `json:"epoch"` // from 1; each list of a broker has a greater one than any before
	Iat     int64     `json:"iat"`
	Iss     Identity  `json:"iss"`     // the broker
	Revoked []Revoked `json:"revoked"` // sorted by Xfr, none twice; at most MaxRevoked
}

// A Revoked is one transfer of a Revocation.
type Revoked struct {
	Reason Reason     `json:"reason"`
	Until  int64      `json:"until"` // from when no capability of the transfer can live in any clock
	Xfr    TransferID `json:"xfr"`
}

// Check reports why r is not well formed: nil, problem.TooLarge for more than
// MaxRevoked transfers, else problem.Malformed.
func (r Revocation) Check() error {
	if err := checkRole("iss", r.Iss, Broker); err != nil {
		return err
	}
	switch {
	case r.Epoch < 1 || r.Epoch > maxInteger:
		return problem.New(problem.Malformed, "The revocation's epoch does not count from 1.")
	case r.Iat <= 0 || r.Iat > maxInteger:
		return problem.New(problem.Malformed, "The revocation's iat is not in seconds since 1970.")
	case len(r.Revoked) > MaxRevoked:
		return problem.New(problem.TooLarge, "The revocation lists more than %d transfers.", MaxRevoked)
	}
	for i, e := range r.Revoked {
		if err := e.check(r.Iat); err != nil {
			return err
		}
		if i > 0 && r.Revoked[i-1].Xfr >= e.Xfr {
			return problem.New(problem.Malformed, "The transfers of the revocation are not sorted, or one is there twice.")
		}
	}
	return nil
}

func (e Revoked) check(iat int64) error {
	if _, err := ParseTransferID(string(e.Xfr)); err != nil {
		return err
	}
	switch {
	case e.Reason == "" || len(e.Reason) > MaxReasonSize || !only(string(e.Reason), isCodeByte):
		return problem.New(problem.Malformed, "The reason of a revocation is not of 1 to %d lower-case letters and '-'.", MaxReasonSize)
	case e.Until <= iat || e.Until > maxInteger:
		return problem.New(problem.Malformed, "A transfer of the revocation needs none any more.")
	case e.Until-iat > int64((MaxCapabilityLife+ClockSkew)/time.Second):
		return problem.New(problem.Malformed, "A transfer is revoked for longer than a capability lives.")
	}
	return nil
}

// Payload returns the canonical bytes of r. It fails as Revocation.Check does, and
// with problem.TooLarge beyond MaxRevocationPayload.
func (r Revocation) Payload() ([]byte, error) {
	return marshalChecked("revocation", r, MaxRevocationPayload)
}

// ParseRevocation accepts only the bytes that Revocation.Payload writes. Nobody
// has signed them: it is for who keeps what VerifyRevocation has returned. It fails with problem.TooLarge,
// Malformed, UnknownField, NotCanonical or as Revocation.Check does.
func ParseRevocation(b []byte) (Revocation, error) {
	return parseChecked[Revocation]("revocation", b, MaxRevocationPayload)
}
