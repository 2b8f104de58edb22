package token

import (
	"crypto/subtle"
	"time"

	"github.com/consign-transfer/consign/token/problem"
)

// Check reports why c is not well formed, or nil: problem.CapTooLong if it lives
// longer than MaxCapabilityLife, else problem.Malformed.
func (c Capability) Check() error {
	if err := checkRole("iss", c.Iss, Broker); err != nil {
		return err
	}
	if err := checkRole("aud", c.Aud, Agent); err != nil {
		return err
	}
	if err := checkRole("peer", c.Peer, Agent); err != nil {
		return err
	}
	if err := checkBatch(c.Xfr, c.Bat, c.Authority); err != nil {
		return err
	}
	for _, h := range []Hash{c.Cnf, c.Man, c.Ord} {
		if err := h.Check(); err != nil {
			return err
		}
	}
	switch {
	case c.Do != Read && c.Do != Create:
		return problem.New(problem.Malformed, "The capability allows %s, not read or create.", problem.Quote(string(c.Do)))
	case c.Gen < 1 || c.Gen > maxInteger:
		return problem.New(problem.Malformed, "The capability's generation does not count from 1.")
	case c.Max < 1 || c.Max > maxInteger:
		return problem.New(problem.Malformed, "The capability allows no bytes.")
	case c.Iat <= 0 || c.Exp <= c.Iat || c.Exp > maxInteger:
		return problem.New(problem.Malformed, "The capability ends before it begins.")
	case c.Exp-c.Iat > int64(MaxCapabilityLife/time.Second):
		return problem.New(problem.CapTooLong, "The capability lives longer than %s.", MaxCapabilityLife)
	}
	return nil
}

// checkBatch checks what every statement about a batch has.
func checkBatch(xfr TransferID, bat int64, by Authority) error {
	if _, err := ParseTransferID(string(xfr)); err != nil {
		return err
	}
	switch {
	case bat < 1 || bat > maxInteger:
		return problem.New(problem.Malformed, "The batch number does not count from 1.")
	case by != ByOrder && by != BySession:
		return problem.New(problem.Malformed, "The authority %s does not exist.", problem.Quote(string(by)))
	}
	return nil
}

// Admission is what the agent that is asked knows by itself: its clock and name,
// who is at the other end of the connection, and what it was asked to do.
type Admission struct {
	Now        time.Time
	Self, Peer Identity
	Leaf       Hash // SHA-256 of the DER of the presenter's leaf certificate
	Do         Verb
	Ord, Man   Hash // of the order and the manifest at hand
}

// Admit reports whether c, which VerifyCapability has returned, opens the door at
// a. It looks in this order and each failure has its own code: problem.CapExpired
// (from exp on, without grace), CapNotYet (more than ClockSkew before iat),
// CapAudience, WrongStatement (another verb), CapNotYours (another leaf),
// ForeignPeer, WrongStatement (another order), CapManifest. Budget, generation
// and write-once state are the agent's own.
func (c Capability) Admit(a Admission) error {
	switch {
	case a.Now.Unix() >= c.Exp:
		return problem.New(problem.CapExpired, "The capability ended at %s.", clock(c.Exp))
	case a.Now.Add(ClockSkew).Unix() < c.Iat:
		return problem.New(problem.CapNotYet, "The capability begins at %s.", clock(c.Iat))
	case c.Aud != a.Self:
		return problem.New(problem.CapAudience, "The capability is for %s to accept.", problem.Quote(string(c.Aud)))
	case c.Do != a.Do:
		return problem.New(problem.WrongStatement, "The capability does not allow to %s.", a.Do)
	case a.Leaf == "" || subtle.ConstantTimeCompare([]byte(c.Cnf), []byte(a.Leaf)) != 1:
		return problem.New(problem.CapNotYours, "The capability is bound to the key of another certificate.")
	case c.Peer != a.Peer:
		return problem.New(problem.ForeignPeer, "The capability is for the peer %s.", problem.Quote(string(c.Peer)))
	case c.Ord != a.Ord:
		return problem.New(problem.WrongStatement, "The capability belongs to another order.")
	case c.Man != a.Man:
		return problem.New(problem.CapManifest, "The capability is for another manifest.")
	}
	return nil
}
