package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"
	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

const (
	keysEvery    = 10 * time.Minute // between refreshes of a broker's keys
	keysAtMost   = time.Minute      // between refreshes because of an unknown key
	beatBusy     = 2 * time.Second
	beatIdle     = 10 * time.Second
	skewWarn     = time.Minute
	skewRefuse   = 5 * time.Minute
	maxLookups   = 16 // list, stat and make tasks at once, per broker
	reconnectMin = 500 * time.Millisecond
	reconnectMax = 30 * time.Second
)

// A session is what an agent has with one broker, whether the broker is up or not.
type session struct {
	a    *Agent
	conf Broker
	ctl  control
	log  *zap.Logger

	pending chan struct{} // a place for each task that was taken
	lookups chan struct{} // a place for each that is being verified, and for each running list, stat or make task
	reports reports       // of refused lanes

	revoking sync.Mutex // held while a list of revocations is taken over, so that the file is as new as memory; before mu

	mu      sync.Mutex      // guards all below; not held across calls
	keys    token.KeySet    // the broker's, as last fetched
	fetched time.Time       // when keys were last asked for
	skew    time.Duration   // the broker's clock minus ours, at the last hello
	running map[string]bool // ids of tasks that are being carried out
	greeted chan struct{}   // closed and replaced at each hello
	welcome bool            // whether the last hello succeeded and the stream still runs
	wake    chan struct{}   // a batch was taken: beats come faster
	refused map[string]bool // ids of tasks that were refused, so that each is logged once
	hangUp  func()          // ends the task stream; nil while there is none
	list    revocations     // the newest that the broker has signed
}

func newSession(a *Agent, b Broker) *session {
	ctl := a.conf.hooks.dialBroker(a, b)
	s := &session{
		a: a, conf: b, ctl: ctl, log: a.log.With(zap.String("broker", string(b.ID))),
		pending: make(chan struct{}, maxTasks), lookups: make(chan struct{}, maxLookups), running: map[string]bool{}, refused: map[string]bool{},
		greeted: make(chan struct{}), wake: make(chan struct{}, 1), reports: reports{told: map[reportKey]time.Time{}},
	}
	if data, err := a.readKeys(b.ID); err == nil {
		if keys, err := token.ParseKeySet(data, b.ID); err == nil {
			s.keys = keys
		}
	}
	s.recallRevocations()
	return s
}

func (s *session) id() token.Identity { return s.conf.ID }

// run keeps the task stream open until ctx ends.
func (s *session) run(ctx context.Context) {
	pause := s.a.backoff(reconnectMin, reconnectMax)
	for ctx.Err() == nil {
		err := s.stream(ctx, pause)
		if ctx.Err() != nil {
			return
		}
		wait := pause.NextBackOff()
		s.log.Warn("the broker is not reached", zap.Error(err), zap.Duration("again_in", wait))
		if s.a.sleep(ctx, wait) != nil {
			return
		}
	}
}

// stream says hello and takes tasks until the stream breaks.
func (s *session) stream(ctx context.Context, pause backoff.BackOff) error {
	book := s.a.rules.Load()
	w, err := s.ctl.Hello(ctx, s.hello(book))
	if err != nil {
		return fmt.Errorf("saying hello: %w", err)
	}
	if w.Broker != s.id() {
		return problem.New(problem.CertMismatch, "The broker says that it is another one")
	}
	s.checkClock(w.Time, time.Now())
	// A broker that was restarted may have a new key; capabilities come within a moment.
	if err := s.refreshKeys(ctx, time.Now(), 0); err != nil {
		s.log.Warn("the broker's keys are not fetched", zap.Error(err))
	}
	for _, ref := range w.Drop {
		s.a.drop(s, ref)
	}
	stream, hangUp := context.WithCancel(ctx)
	defer hangUp()
	s.mu.Lock()
	s.welcome, s.hangUp = true, hangUp
	close(s.greeted)
	s.greeted = make(chan struct{})
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.welcome, s.hangUp = false, nil
		s.mu.Unlock()
	}()
	if s.a.rules.Load() != book {
		hangUp() // policy was replaced in between
	}
	s.log.Info("taking tasks")
	return s.ctl.Tasks(stream, func(l api.Line) error {
		pause.Reset()
		switch {
		case l.Task != nil:
			s.take(ctx, *l.Task)
		case l.Drop != nil:
			s.a.drop(s, *l.Drop)
		case l.Revocation != "":
			if err := s.takeRevocations(l.Revocation, time.Now()); err != nil {
				s.log.Warn("a list of revocations is not taken over", zap.Error(err))
			}
		}
		return nil
	})
}

// hello says what we export and hold.
func (s *session) hello(book *rulebook) api.Hello {
	h := api.Hello{Version: s.a.conf.Version, Listen: s.a.advertised(), Slots: s.a.conf.Slots, Exports: []api.Export{}, Held: s.a.held(s.id())}
	if h.Listen == nil {
		h.Listen = []string{}
	}
	for _, e := range s.a.conf.Exports {
		o, ok := book.Offer(e.Container, s.id())
		if !ok {
			continue
		}
		t := s.a.traits[e.Container]
		h.Exports = append(h.Exports, api.Export{Container: e.Container, Read: o.Read, Create: o.Create, PartSize: t.PartSize, MaxParts: t.MaxParts})
	}
	return h
}

// greetAgain ends the task stream, so that the next hello tells the broker of what has changed. Tasks come again, and are known.
func (s *session) greetAgain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hangUp != nil {
		s.hangUp()
	}
}

// checkClock remembers how far the broker's clock is from ours.
func (s *session) checkClock(theirs int64, now time.Time) {
	skew := time.Unix(theirs, 0).Sub(now).Truncate(time.Second)
	s.mu.Lock()
	s.skew = skew
	s.mu.Unlock()
	if skew.Abs() > skewWarn {
		s.log.Warn("the broker's clock and ours differ", zap.Duration("by", skew))
	}
}

// checkSkew refuses tasks while the clocks are too far apart to judge any time in a statement.
func (s *session) checkSkew() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.skew.Abs() > skewRefuse {
		return problem.New(problem.CapNotYet, "The clocks of the broker and of this agent differ by %s; set the clock that is wrong", s.skew.Abs())
	}
	return nil
}

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
	s.keys = keys
	s.mu.Unlock()
	if err := s.a.writeKeys(s.id(), data); err != nil {
		return fmt.Errorf("keeping keys: %w", err)
	}
	return nil
}

// verifyCapability verifies tok with the keys of this session's broker, fetching them anew, at most once
// a minute, if the key is not among them.
func (s *session) verifyCapability(tok string, now time.Time) (token.Verified[token.Capability], error) {
	return verifyWith(s, now, func(keys token.KeySet) (token.Verified[token.Capability], error) {
		return token.VerifyCapability(tok, keys)
	})
}

// verifyWith verifies a statement of the session's broker with its keys, as verifyCapability says.
func verifyWith[T any](s *session, now time.Time, verify func(token.KeySet) (token.Verified[T], error)) (token.Verified[T], error) {
	s.mu.Lock()
	keys := s.keys
	s.mu.Unlock()
	v, err := verify(keys)
	if problem.Of(err) != problem.UnknownKey {
		return v, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if fresh := s.refreshKeys(ctx, now, s.a.quickly(keysAtMost)); fresh != nil {
		return token.Verified[T]{}, errors.Join(err, fresh)
	}
	s.mu.Lock()
	keys = s.keys
	s.mu.Unlock()
	return verify(keys)
}

// tend beats and refreshes keys until ctx ends.
func (s *session) tend(ctx context.Context) {
	for ctx.Err() == nil {
		every := beatIdle
		if s.a.busy(s.id()) {
			every = beatBusy
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
			continue // with the shorter pause
		case <-time.After(s.a.quickly(every)):
		}
		s.mu.Lock()
		up := s.welcome
		s.mu.Unlock()
		if !up {
			continue
		}
		s.tell(ctx)
		s.beat(ctx)
		jitter := time.Duration(rand.Int64N(int64(keysEvery / 5)))
		if err := s.refreshKeys(ctx, time.Now(), keysEvery-jitter); err != nil && ctx.Err() == nil {
			s.log.Warn("the broker's keys are not fetched", zap.Error(err))
		}
	}
}

// soon lets the beats of a session that was idle come as often as those of a busy one, so that progress shows.
func (s *session) soon() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *session) beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, beatIdle)
	defer cancel()
	answer, err := s.ctl.Beat(ctx, api.Beat{Running: s.a.progress(s.id())})
	if err != nil {
		if ctx.Err() == nil {
			s.log.Debug("the broker did not take a beat", zap.Error(err))
		}
		return
	}
	for _, ref := range answer.Drop {
		s.a.drop(s, ref)
	}
}
