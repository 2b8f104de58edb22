package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/consign-transfer/consign/broker/api"
)

// beats is a broker that only hears beats.
type beats struct {
	control
	came chan time.Time
}

func (b beats) Beat(context.Context, api.Beat) (api.BeatAnswer, error) {
	b.came <- time.Now()
	return api.BeatAnswer{}, nil
}

// TestProgressIsToldSoon: the beats of an idle agent are far apart, those of one with a batch are not, from its first.
func TestProgressIsToldSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{batches: map[batchKey]*batch{}}
		s := &session{a: a, ctl: beats{came: make(chan time.Time, 100)}, log: zap.NewNop(), wake: make(chan struct{}, 1), welcome: true, fetched: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); s.tend(ctx) }()
		began := time.Now()
		if got := (<-s.ctl.(beats).came).Sub(began); got != beatIdle {
			t.Errorf("the first beat of an idle agent came after %s, want %s", got, beatIdle)
		}
		synctest.Wait() // it has begun to wait as one that is idle
		taken := time.Now()
		k := batchKey{iss: s.id(), bat: 1}
		b := &batch{bill: bill{key: k}}
		a.mu.Lock()
		a.batches[k] = b
		a.mu.Unlock()
		s.soon()
		for n := range 3 {
			if got, want := (<-s.ctl.(beats).came).Sub(taken), time.Duration(n+1)*beatBusy; got != want {
				t.Errorf("beat %d after a batch was taken came after %s, want %s", n, got, want)
			}
		}
		cancel()
		<-done
	})
}
