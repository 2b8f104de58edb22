package bucket

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/consign-transfer/consign/token/problem"
)

// A loop is the one retry loop of a call. It belongs to one goroutine.
type loop struct {
	s      *Store
	pause  *backoff.ExponentialBackOff
	began  time.Time
	waited time.Duration
}

func (s *Store) loop() *loop {
	l := &loop{s: s, pause: backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(s.opt.Interval), backoff.WithMaxInterval(maxInterval), backoff.WithMaxElapsedTime(0))}
	l.renew()
	return l
}

// renew starts the loop's patience anew, because there was progress.
func (l *loop) renew() {
	l.pause.Reset()
	l.began, l.waited = l.s.opt.Now(), 0
}

// again waits, and returns nil if the call is to be made again; otherwise the error to give up with.
func (l *loop) again(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if !passes(err) {
		return err
	}
	d := l.pause.NextBackOff()
	var away *Away
	if errors.As(err, &away) {
		d = max(d, away.After)
	}
	if max(l.waited, l.s.opt.Now().Sub(l.began))+d > l.s.opt.Patience {
		return storeAway(err)
	}
	l.waited += d
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// passes reports whether the same call may work later.
func passes(err error) bool { return isAway(err) || errors.Is(err, ErrConflict) }

func isAway(err error) bool {
	var away *Away
	return errors.As(err, &away)
}

// storeAway is what a failure that passes is for callers, in the backend's words if it has some.
func storeAway(err error) error {
	if known := (*problem.Error)(nil); errors.As(err, &known) && known.Code == problem.StoreAway && known.Detail != "" {
		return problem.Wrap(err, problem.StoreAway, "%s", known.Detail)
	}
	return problem.Wrap(err, problem.StoreAway, "The store does not answer, or asks to be left alone for a while.")
}

// call makes a request until it has an answer that counts, or patience ends. An attempt that takes longer than limit is over.
func (s *Store) call(ctx context.Context, limit time.Duration, request func(context.Context) error) error {
	l := s.loop()
	for {
		err := once(ctx, limit, request)
		if err == nil {
			return nil
		}
		if err = l.again(ctx, err); err != nil {
			return err
		}
	}
}

// once makes a request that may take as long as limit.
func once(ctx context.Context, limit time.Duration, request func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, dog := watch(ctx, limit)
	defer dog.end()
	dog.wake()
	return dog.why(request(ctx))
}

// A watchdog ends a context when nothing has moved for a while. Its methods may be called concurrently.
type watchdog struct {
	ctx    context.Context // the one that it ends, for its cause
	cancel context.CancelCauseFunc
	limit  time.Duration

	mu    sync.Mutex // guards all below
	timer *time.Timer
	awake bool
}

// watch returns a context and its watchdog, asleep. The caller must end it.
func watch(ctx context.Context, limit time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, &watchdog{ctx: ctx, cancel: cancel, limit: limit}
}

// wake starts the time.
func (d *watchdog) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.awake = true
	if d.timer != nil {
		d.timer.Reset(d.limit)
		return
	}
	d.timer = time.AfterFunc(d.limit, func() {
		d.cancel(&Away{Err: fmt.Errorf("nothing has moved for %v", d.limit)})
	})
}

// feed starts the time anew, unless asleep.
func (d *watchdog) feed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.awake {
		d.timer.Reset(d.limit)
	}
}

// sleep stops the time.
func (d *watchdog) sleep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.awake = false
	if d.timer != nil {
		d.timer.Stop()
	}
}

// end releases the context.
func (d *watchdog) end() {
	d.sleep()
	d.cancel(nil)
}

// why is err, or that the watchdog has ended what failed.
func (d *watchdog) why(err error) error {
	if cause := context.Cause(d.ctx); err != nil && isAway(cause) {
		return cause
	}
	return err
}
