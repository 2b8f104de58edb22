package agent

import (
	"context"
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
	kept *kept // what this broker has told us of holds and retentions
	log  *zap.Logger

	pending chan struct{} // a place for each task that was taken
	lookups chan struct{} // a place for each that is being verified, and for each running list, stat or make task
	reports reports       // of refused lanes

	revoking sync.Mutex // held while a list of revocations is taken over, so that the file is as new as memory; before mu

	mu      sync.Mutex      // guards all below; not held across calls
	keys    token.KeySet    // the broker's, as last fetched
	fetched time.Time       // when keys were last asked for
	good    time.Time       // when keys were last fetched
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
		a: a, conf: b, ctl: ctl, kept: a.kept[b.ID], log: a.log.With(zap.String("broker", string(b.ID))),
		pending: make(chan struct{}, maxTasks), lookups: make(chan struct{}, maxLookups), running: map[string]bool{}, refused: map[string]bool{},
		greeted: make(chan struct{}), wake: make(chan struct{}, 1), reports: newReports(),
	}
	s.recallKeys()
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
	s.kept.expect(w.Kept)
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
		case l.Kept != nil:
			return s.takeKept(stream, *l.Kept)
		}
		return nil
	})
}

// hello says what we export and hold.
func (s *session) hello(book *rulebook) api.Hello {
	h := api.Hello{Version: s.a.conf.Version, Listen: s.a.advertised(), Slots: s.a.conf.Slots, Exports: []api.Export{}, Held: s.a.held(s.id()), Kept: s.kept.reached()}
	if h.Listen == nil {
		h.Listen = []string{}
	}
	for _, e := range s.a.conf.Exports {
		o, ok := book.Offer(e.Container, s.id())
		if !ok {
			continue
		}
		t := s.a.traits[e.Container]
		h.Exports = append(h.Exports, api.Export{Container: e.Container, Read: o.Read, Create: o.Create, Erase: o.Erase, PartSize: t.PartSize, MaxParts: t.MaxParts,
			Session: o.Session, MaxItems: o.Items, MaxBytes: o.Bytes, Place: string(e.Place), Owner: e.Owner, Sanitizes: e.sanitizes()})
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

// checkClock remembers how far the broker's clock is from ours. A difference is logged when it comes about, and when it grows.
func (s *session) checkClock(theirs int64, now time.Time) {
	skew := time.Unix(theirs, 0).Sub(now).Truncate(time.Second)
	s.mu.Lock()
	before := s.skew
	s.skew = skew
	s.mu.Unlock()
	if skew.Abs() > skewWarn && (skew-before).Abs() > skewWarn {
		s.log.Warn("the broker's clock and ours differ", zap.Duration("by", skew))
	}
}

// checkSkew refuses tasks while the clocks are too far apart to judge any time in a statement.
func (s *session) checkSkew() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.skew.Abs() <= skewRefuse {
		return nil
	}
	side := "behind"
	if s.skew < 0 {
		side = "ahead of"
	}
	return problem.New(problem.ClockSkewed, "The clock of the agent %s is %s %s that of the broker", s.a.self, s.skew.Abs(), side)
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
	if answer.Time != 0 {
		s.checkClock(answer.Time, time.Now())
	}
	for _, ref := range answer.Drop {
		s.a.drop(s, ref)
	}
}
