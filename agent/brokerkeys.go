package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	keysEvery  = 10 * time.Minute // between refreshes of a broker's keys
	keysAtMost = time.Minute      // between refreshes because of an unknown key that a peer has shown
	keysSoon   = 5 * time.Second  // the same, that the broker itself has used
	keysCount  = 48 * time.Hour   // that keys count which cannot be fetched anew
)

// recallKeys reads the keys that an earlier run has kept, and when they were fetched.
func (s *session) recallKeys() {
	data, err := readFile(s.a.keyDir, keyFile(s.id()), token.MaxKeySetSize)
	if err != nil {
		return // the broker is asked for them
	}
	keys, err := token.ParseKeySet(data, s.id())
	if err != nil {
		s.log.Error("the broker's keys that were kept cannot be read; it is asked for them", zap.Error(err))
		return
	}
	at, err := readFile(s.a.keyDir, fetchedFile(s.id()), 32)
	if err != nil {
		return
	}
	if n, err := strconv.ParseInt(string(at), 10, 64); err == nil {
		s.keys, s.good = keys, time.Unix(n, 0)
	}
}

// keepKeys is the inverse of recallKeys. The time comes last: keys never seem younger than they are.
func (s *session) keepKeys(data []byte, now time.Time) error {
	if err := writeFile(s.a.keyDir, keyFile(s.id()), data); err != nil {
		return err
	}
	return writeFile(s.a.keyDir, fetchedFile(s.id()), strconv.AppendInt(nil, now.Unix(), 10))
}

// keyFile names the file of a broker's keys. Nobody can choose an identity that shares it.
func keyFile(id token.Identity) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

func fetchedFile(id token.Identity) string { return keyFile(id) + ".fetched" }

// refreshKeys fetches the broker's keys unless that was done within the time given.
func (s *session) refreshKeys(ctx context.Context, now time.Time, within time.Duration) error {
	s.mu.Lock()
	if !s.fetched.IsZero() && now.Sub(s.fetched) < within {
		s.mu.Unlock()
		return nil
	}
	s.fetched = now
	s.mu.Unlock()
	data, err := s.ctl.Keys(ctx)
	if err != nil {
		return fmt.Errorf("fetching keys: %w", err)
	}
	keys, err := token.ParseKeySet(data, s.id())
	if err != nil {
		return fmt.Errorf("reading keys: %w", err)
	}
	s.mu.Lock()
	s.keys, s.good = keys, now
	s.mu.Unlock()
	if err := s.keepKeys(data, now); err != nil {
		return fmt.Errorf("keeping keys: %w", err)
	}
	return nil
}

// verifyCapability verifies tok with the keys of this session's broker, fetching them anew if the key is not among them and they were not fetched
// within the time given: keysAtMost if a peer shows it, keysSoon if the broker has sent it.
func (s *session) verifyCapability(tok string, now time.Time, within time.Duration) (token.Verified[token.Capability], error) {
	return verifyWith(s, now, within, func(keys token.KeySet) (token.Verified[token.Capability], error) {
		return token.VerifyCapability(tok, keys)
	})
}

// verifyWith verifies a statement of the session's broker with its keys, as verifyCapability says.
func verifyWith[T any](s *session, now time.Time, within time.Duration, verify func(token.KeySet) (token.Verified[T], error)) (token.Verified[T], error) {
	keys, err := s.goodKeys(now)
	if err != nil {
		return token.Verified[T]{}, err
	}
	v, err := verify(keys)
	if problem.Of(err) != problem.UnknownKey {
		return v, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if fresh := s.refreshKeys(ctx, now, s.a.quickly(within)); fresh != nil {
		return token.Verified[T]{}, errors.Join(err, fresh)
	}
	s.mu.Lock()
	keys = s.keys
	s.mu.Unlock()
	return verify(keys)
}

// goodKeys returns the broker's keys, unless they were fetched so long ago that one of them may have been withdrawn since. They are asked for
// then, at most once a minute.
func (s *session) goodKeys(now time.Time) (token.KeySet, error) {
	s.mu.Lock()
	keys, good := s.keys, s.good
	s.mu.Unlock()
	if now.Sub(good) <= keysCount || good.IsZero() { // there are none: the key is unknown
		return keys, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := s.refreshKeys(ctx, now, s.a.quickly(keysAtMost))
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.good) > keysCount {
		return token.KeySet{}, problem.Wrap(err, problem.UnknownKey, "The keys of the broker %s were last fetched at %s and count for %s; it has not given them since",
			s.id(), s.good.UTC().Format(time.RFC3339), keysCount)
	}
	return s.keys, nil
}

// holds returns nil if the broker still has the key of that id, which signed a capability that was good when it came. A broker that takes a
// key away takes back what it signed.
func (s *session) holds(kid string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kid == "" || s.keys.Has(kid) {
		return nil
	}
	return problem.New(problem.UnknownKey, "The broker has withdrawn the key that signed the capability")
}
