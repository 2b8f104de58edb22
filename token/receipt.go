package token

import (
	"github.com/consign-transfer/consign/token/problem"
)

// Check reports why r is not well formed: nil or problem.Malformed.
func (r Receipt) Check() error {
	if err := checkRole("iss", r.Iss, Agent); err != nil {
		return err
	}
	if err := checkRole("aud", r.Aud, Broker); err != nil {
		return err
	}
	if err := checkBatch(r.Xfr, r.Bat, r.Authority); err != nil {
		return err
	}
	for _, h := range []Hash{r.Man, r.Ord, r.Root} {
		if err := h.Check(); err != nil {
			return err
		}
	}
	if err := r.checkCaps(); err != nil {
		return err
	}
	switch {
	case r.Side != Source && r.Side != Destination:
		return problem.New(problem.Malformed, "The receipt's side %s does not exist.", problem.Quote(string(r.Side)))
	case r.Side == Source && r.CreateBy != "", r.Side == Destination && r.CreateBy != GuardStore && r.CreateBy != GuardAgent:
		return problem.New(problem.Malformed, "The %s's receipt cannot say create_only %s.", r.Side, problem.Quote(string(r.CreateBy)))
	case r.Part < 1 || r.Part > maxInteger:
		return problem.New(problem.Malformed, "The receipt's part does not count from 1.")
	case r.N < 0 || r.N > MaxItems:
		return problem.New(problem.Malformed, "The receipt has not 0 to %d outcomes.", MaxItems)
	case r.N == 0 && (!r.Last || r.Bytes != 0 || r.Root != HashOf(nil)):
		return problem.New(problem.Malformed, "A receipt without outcomes must be the last and claim nothing.")
	case r.Bytes < 0 || r.Bytes > maxInteger:
		return problem.New(problem.Malformed, "The receipt's bytes are negative or too many.")
	case r.Started <= 0 || r.Started > r.Finished || r.Finished > r.Iat || r.Iat > maxInteger:
		return problem.New(problem.Malformed, "The receipt's times are not in the order started, finished, iat.")
	}
	return nil
}

func (r Receipt) checkCaps() error {
	if len(r.Caps) == 0 || len(r.Caps) > MaxCapabilities {
		return problem.New(problem.Malformed, "The receipt does not rest on 1 to %d capabilities.", MaxCapabilities)
	}
	seen := make(map[Hash]bool, len(r.Caps))
	for _, c := range r.Caps {
		if err := c.Check(); err != nil {
			return err
		}
		if seen[c] {
			return problem.New(problem.Malformed, "The receipt names a capability twice.")
		}
		seen[c] = true
	}
	return nil
}

// Outcomes returns the outcome lines of r as values, in their order, if they are
// the lines that r was signed over: as many as N, with the root Root, each
// canonical, each of another item, in words that its side may use, and Bytes in
// total. Else it fails with problem.Malformed, or as ParseOutcome does.
func (r Receipt) Outcomes(lines [][]byte) ([]Outcome, error) {
	if int64(len(lines)) != r.N {
		return nil, problem.New(problem.Malformed, "The receipt is of %d outcomes, but %d came with it.", r.N, len(lines))
	}
	for _, line := range lines {
		if len(line) > MaxOutcomeSize {
			return nil, tooLarge("outcome", MaxOutcomeSize)
		}
	}
	root, err := OutcomesRoot(lines)
	if err != nil {
		return nil, err
	}
	if root != r.Root {
		return nil, problem.New(problem.Malformed, "The outcomes are not those that the receipt was signed over.")
	}
	out := make([]Outcome, len(lines))
	seen := make(map[int64]bool, len(lines))
	bytes := int64(0)
	for i, line := range lines {
		o, err := ParseOutcome(line)
		if err != nil {
			return nil, err
		}
		if seen[o.Item] {
			return nil, problem.New(problem.Malformed, "The receipt has two outcomes of item %d.", o.Item)
		}
		if o.Outcome == Stored && r.Side != Destination || o.Outcome == Sent && r.Side != Source {
			return nil, problem.New(problem.Malformed, "The %s says %q, which only the other side can know.", r.Side, o.Outcome)
		}
		if o.Outcome == Stored || o.Outcome == Sent {
			bytes += o.Size
		}
		seen[o.Item], out[i] = true, o
	}
	if bytes != r.Bytes {
		return nil, problem.New(problem.Malformed, "The receipt claims %d bytes, but its outcomes add up to %d.", r.Bytes, bytes)
	}
	return out, nil
}
