package token

import (
	"crypto/sha256"
	"strconv"
	"time"

	"github.com/consign-transfer/consign/token/problem"
	"github.com/google/uuid"
)

// MinPeriod bounds from below the period of a standing order.
const MinPeriod = time.Minute

const uuidTime = 1<<48 - 1 // the bits of a UUIDv7 that are its time, milliseconds since 1970

// checkStanding checks what makes an order a standing one.
func (o Order) checkStanding() error {
	switch {
	case o.Period == 0:
		return nil
	case o.Do != Copy || o.Scope != Tree:
		return problem.New(problem.Malformed, "Only an order to copy a tree has a period.")
	case o.Period < int64(MinPeriod/time.Second):
		return problem.New(problem.Malformed, "The order's period is shorter than %d seconds.", int64(MinPeriod/time.Second))
	case o.Period >= o.Exp-o.Iat:
		return problem.New(problem.Malformed, "The order ends before its second run.")
	}
	return nil
}

// Standing reports whether o is carried out more than once.
func (o Order) Standing() bool { return o.Period != 0 }

// Run returns the id of the transfer that carries out run k of o, which must have passed Check; "" if there
// is no such run. Runs count from 0. Run 0 has the id of the order itself, and is the only one of an order that is not
// standing. A later run has a UUIDv7 whose time is that at which it is due, and whose other bits are the first of
// SHA-256 of the text "consign-run", a space, the order's hash, a space, and k in decimal: whoever has the order knows
// all its runs, and nobody else one of them. The last run is due before the order's end.
func (o Order) Run(k int64) TransferID {
	if !o.has(k) {
		return ""
	}
	if k == 0 {
		return o.ID
	}
	payload, err := o.Payload()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256([]byte("consign-run " + string(HashOf(payload)) + " " + strconv.FormatInt(k, 10)))
	var u uuid.UUID
	at := o.runTime(k)
	for i := range 6 {
		u[i] = byte(at >> (8 * (5 - i)))
	}
	copy(u[6:], sum[:])
	u[6] = u[6]&0x0f | 0x70 // version 7
	u[8] = u[8]&0x3f | 0x80 // variant of RFC 9562
	return TransferID(u.String())
}

// has reports whether o has a run of that number.
func (o Order) has(k int64) bool {
	return k == 0 || k > 0 && o.Standing() && k <= o.lastRun()
}

func (o Order) lastRun() int64 { return (o.Exp - o.Iat - 1) / o.Period }

// runTime is the time in the id of run k.
func (o Order) runTime(k int64) uint64 { return uint64(o.Iat+k*o.Period) * 1000 & uuidTime }

// RunOf returns the number of the run of o that the transfer xfr is, and whether it is one. It is the inverse of
// Run. o must have passed Check.
func (o Order) RunOf(xfr TransferID) (int64, bool) {
	if xfr == o.ID {
		return 0, true
	}
	u, err := uuid.Parse(string(xfr))
	if err != nil || !o.Standing() {
		return 0, false
	}
	var at uint64
	for _, b := range u[:6] {
		at = at<<8 | uint64(b)
	}
	k := int64((at-o.runTime(0))&uuidTime/1000) / o.Period
	if o.Run(k) != xfr {
		return 0, false
	}
	return k, true
}

// Due is when run k of o is due.
func (o Order) Due(k int64) time.Time { return time.Unix(o.Iat+k*o.Period, 0) }

// RunAt returns the number of the newest run of o that is due at now; 0 before o was signed.
func (o Order) RunAt(now time.Time) int64 {
	if !o.Standing() || now.Unix() <= o.Iat {
		return 0
	}
	return min((now.Unix()-o.Iat)/o.Period, o.lastRun())
}

// CheckRun reports whether run k of o may be carried out at now, as far as it is due: nil; problem.OrderNotCovered
// if o has no such run; problem.OrderNotDue if it is due more than ClockSkew after now. CheckTime says whether o
// may be acted upon at all.
func (o Order) CheckRun(k int64, now time.Time) error {
	if !o.has(k) {
		return problem.New(problem.OrderNotCovered, "The order has no run %d.", k)
	}
	if due := o.Due(k); due.Unix() > now.Add(ClockSkew).Unix() {
		return problem.New(problem.OrderNotDue, "Run %d of the order is due at %s.", k, clock(due.Unix()))
	}
	return nil
}

// checkTarget checks what an order to withdraw another is about.
func (o Order) checkTarget() error {
	if o.Do != Withdraw {
		if o.Target != "" {
			return problem.New(problem.Malformed, "Only an order to withdraw has a target.")
		}
		return nil
	}
	if _, err := ParseTransferID(string(o.Target)); err != nil {
		return err
	}
	if o.Target == o.ID {
		return problem.New(problem.Malformed, "The order withdraws itself.")
	}
	return nil
}
