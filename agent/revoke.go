package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	// pollEvery is how often a broker is asked for its newest list of revocations, whether its task stream runs or not.
	pollEvery = 10 * time.Second
	// maxResting is how many batches may wait without a good capability, each with its journal and its stages.
	maxResting = 64
	// maxKeyID bounds the line with the id of its key before a list that is kept, bytes.
	maxKeyID = 64
)

// A revocations is the newest list of one broker that we have seen. The zero value is none.
type revocations struct {
	epoch   int64
	hash    token.Hash // of the list
	kid     string     // of the key that signed it
	reasons map[token.TransferID]token.Reason
}

func listed(r token.Revocation, hash token.Hash, kid string) revocations {
	out := revocations{epoch: r.Epoch, hash: hash, kid: kid, reasons: make(map[token.TransferID]token.Reason, len(r.Revoked))}
	for _, e := range r.Revoked {
		out.reasons[e.Xfr] = e.Reason
	}
	return out
}

// recallRevocations reads the list that an earlier run has kept. It was verified when it came, by keys that may be gone.
func (s *session) recallRevocations() {
	data, err := readFile(s.a.keyDir, revokedFile(s.id()), token.MaxRevocationPayload+maxKeyID)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var r token.Revocation
	kid, payload, _ := bytes.Cut(data, []byte("\n"))
	if err == nil {
		r, err = token.ParseRevocation(payload)
	}
	if err != nil {
		s.log.Error("the list of revocations that was kept cannot be read; the broker is asked for it", zap.Error(err))
		return
	}
	s.list = listed(r, token.HashOf(payload), string(kid))
}

func revokedFile(id token.Identity) string { return keyFile(id) + ".revoked" }

// revoked returns problem.CapRevoked if the broker has taken the capabilities of a transfer back. It is asked at each hello, each
// want and in between, and costs next to nothing.
func (s *session) revoked(xfr token.TransferID) error {
	reason := s.reason(xfr)
	switch reason {
	case "":
		return nil
	case token.ByPause:
		return problem.New(problem.CapRevoked, "The transfer is paused: its broker has revoked the capability")
	}
	return problem.New(problem.CapRevoked, "The broker has revoked the capability: the transfer is %s", reason)
}

// reason is why a transfer is in the newest list; empty if it is not.
func (s *session) reason(xfr token.TransferID) token.Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list.reasons[xfr]
}

// epoch is that of the newest list; 0 is none, or one that does not bind any more.
func (s *session) epoch() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.floor()
}

// floor is the epoch below which no list is taken: that of the newest, for as long as the broker has the key that signed it. A key that was
// stolen can sign an epoch that no list of the broker ever reaches; the broker that replaces the key is heard again. No older list comes back by
// that: a key signs nothing before the one that it follows has signed its last. mu is held.
func (s *session) floor() int64 {
	if s.list.kid != "" && !s.keys.Has(s.list.kid) {
		return 0
	}
	return s.list.epoch
}

// takeRevocations takes a list over if the broker has signed it and it is newer than ours. One that is older, or another of the same
// epoch, is refused and is an alarm: somebody replays what was true once, or tells us other things than others.
func (s *session) takeRevocations(tok string, now time.Time) error {
	v, err := verifyWith(s, now, keysSoon, func(keys token.KeySet) (token.Verified[token.Revocation], error) {
		return token.VerifyRevocation(tok, keys)
	})
	if err != nil {
		return fmt.Errorf("verifying a list of revocations: %w", err)
	}
	if v.Claims.Iss != s.id() {
		return problem.New(problem.UnknownBroker, "The list of revocations is of %s", v.Claims.Iss)
	}
	s.revoking.Lock()
	defer s.revoking.Unlock()
	s.mu.Lock()
	old, floor := s.list, s.floor()
	if v.Claims.Epoch > floor {
		s.list = listed(v.Claims, v.Hash, v.KeyID) // before it is durable: to refuse more is never wrong
	}
	s.mu.Unlock()
	switch {
	case v.Claims.Epoch < floor, v.Claims.Epoch == floor && v.Hash != old.hash:
		s.a.metrics.refusals.WithLabelValues(string(problem.CapStale)).Inc()
		s.log.Error("ALARM: a list of revocations is older than one that was seen before, or differs from it, and is refused",
			zap.Int64("epoch", v.Claims.Epoch), zap.Int64("seen", floor))
		return problem.New(problem.CapStale, "The list of revocations has the epoch %d, and %d was seen before", v.Claims.Epoch, floor)
	case v.Claims.Epoch == floor:
		return nil
	}
	err = writeFile(s.a.keyDir, revokedFile(s.id()), append([]byte(v.KeyID+"\n"), v.Payload...)) // Durable from here.
	s.log.Info("revocations taken over", zap.Int64("epoch", v.Claims.Epoch), zap.Int("transfers", len(v.Claims.Revoked)))
	s.enforce()
	if err != nil {
		return fmt.Errorf("keeping a list of revocations: %w", err)
	}
	return nil
}

// enforce ends the batches of transfers that are revoked for good, and wakes all others: they rest, or go on.
func (s *session) enforce() {
	for _, b := range s.a.of(s.id()) {
		switch s.reason(b.key.xfr) {
		case "", token.ByPause:
			b.stir()
		default:
			s.a.drop(s, b.key.ref())
		}
	}
}

// watch polls for revocations until ctx ends.
func (s *session) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.poll(ctx); err != nil && ctx.Err() == nil {
			s.log.Debug("the broker was not asked for revocations", zap.Error(err))
		}
		if s.a.sleep(ctx, s.a.quickly(pollEvery)) != nil {
			return
		}
	}
}

func (s *session) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pollEvery)
	defer cancel()
	r, err := s.ctl.Revocations(ctx, s.epoch())
	if err != nil || r.JWS == "" {
		return err
	}
	return s.takeRevocations(r.JWS, time.Now())
}

// stir wakes what waits for a capability to be good again.
func (b *batch) stir() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.stirring)
	b.stirring = make(chan struct{})
}

// stirred is closed at the next list of revocations or capability of the batch.
func (b *batch) stirred() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.stirring
}

// rests reports whether nothing can be done for a batch because its capability is revoked or has ended.
func (b *batch) rests(now time.Time) bool {
	g, _ := b.current()
	return now.Unix() >= g.Claims.Exp || b.s.revoked(b.key.xfr) != nil
}
