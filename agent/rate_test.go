package agent

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestSourceKeepsToTheLeastRate: order, task, rule and configuration each bind the source, and the least of them is what it sends, whatever the
// destination asks for. The time is simulated.
func TestSourceKeepsToTheLeastRate(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for name, tt := range map[string]struct{ order, task, rule, own, want int64 }{
		"the order":         {order: 3 * mib, task: 9 * mib, rule: 7 * mib, own: 8 * mib, want: 3 * mib},
		"the task":          {order: 9 * mib, task: 3 * mib, rule: 7 * mib, own: 8 * mib, want: 3 * mib},
		"the task alone":    {task: 2 * mib, want: 2 * mib},
		"the rule":          {order: 9 * mib, task: 8 * mib, rule: 2 * mib, want: 2 * mib},
		"the configuration": {order: 9 * mib, task: 8 * mib, own: 4 * mib, want: 4 * mib},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := &Agent{batches: map[batchKey]*batch{}, sending: newLimiter(tt.own)}
				var sent [2]int64 // by two batches of one transfer, which share what order and task allow
				ruled, end := newLimiter(tt.rule), time.Now().Add(time.Minute)
				var wg sync.WaitGroup
				for n := range sent {
					s := &server{batch: &batch{a: a, rate: tt.task, bill: bill{key: batchKey{xfr: "x", bat: int64(n), do: token.Read}}}}
					s.will.Limits.Rate = tt.order
					a.limit(s.batch)
					a.batches[s.key] = s.batch
					var mu sync.Mutex
					for range 4 {
						wg.Go(func() {
							for {
								switch err := s.pace(t.Context(), ruled, mib); {
								case err == nil && time.Now().After(end):
									return
								case err == nil:
									mu.Lock()
									sent[n] += mib
									mu.Unlock()
								case problem.Of(err) == problem.Overloaded:
									_ = a.sleep(t.Context(), time.Second)
								default:
									t.Error(err)
									return
								}
							}
						})
					}
				}
				wg.Wait()
				got, burst := sent[0]+sent[1], max(tt.want, mib)
				if most := 60*tt.want + burst; got > most || got < 57*tt.want {
					t.Errorf("sent %d MiB in a minute, want %d to %d", got/mib, 57*tt.want/mib, most/mib)
				}
			})
		})
	}
}

// TestRateOfTheTask: a batch keeps to the rate of its task on both sides, also after a restart; one of another rate shares the order's alone.
func TestRateOfTheTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	dead := make(chan struct{})
	w.dst.at(2, func() { w.dst.kill(); close(dead) })
	w.src.start()
	w.dst.start()
	o := w.order()
	o.Limits.Rate = 1 << 30
	s := w.spec(o, 1, w.random("in/big", 6<<20), w.random("in/a", 100))
	serve, receive := w.tasks(s)
	serve.Rate, receive.Rate = 64<<20, 64<<20
	w.broker.give(w.dst.port, receive)
	w.broker.give(w.src.port, serve)
	<-dead
	rates := func(a *Agent) (order, task float64, err error) {
		for _, b := range a.recalled() {
			if b.limiter == nil || b.ceiling == nil {
				return 0, 0, errors.New("a batch that is not limited")
			}
			return float64(b.limiter.Limit()), float64(b.ceiling.Limit()), nil
		}
		return 0, 0, errors.New("no batch")
	}
	w.dst.conf.hooks.moved = nil
	again, err := Open(t.Context(), w.dst.conf)
	if err != nil {
		t.Fatal(err)
	}
	for side, a := range map[token.Side]*Agent{token.Source: w.src.agent, token.Destination: again} {
		if order, task, err := rates(a); err != nil || order != 1<<30 || task != 64<<20 {
			t.Errorf("%s: got %g, %g and %v, want %d and %d", side, order, task, err, 1<<30, 64<<20)
		}
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	w.dst.start()
	w.stored(s)

	other := &batch{rate: 1 << 20, bill: bill{key: batchKey{xfr: "x", bat: 2, do: token.Read}}}
	same := &batch{rate: 2 << 20, bill: bill{key: batchKey{xfr: "x", bat: 3, do: token.Read}}}
	first := &batch{rate: 2 << 20, bill: bill{key: batchKey{xfr: "x", bat: 1, do: token.Read}}}
	first.will.Limits.Rate, other.will.Limits.Rate, same.will.Limits.Rate = 1<<25, 1<<25, 1<<25
	a := &Agent{batches: map[batchKey]*batch{}}
	for _, b := range []*batch{first, other, same} {
		a.limit(b)
		a.batches[b.key] = b
	}
	if first.limiter != other.limiter || first.limiter != same.limiter || first.ceiling != same.ceiling || first.ceiling == other.ceiling {
		t.Error("the batches of a transfer do not share what they have in common, or more")
	}
	if most := other.most(16 << 20); most != 1<<20 {
		t.Errorf("asks for %d bytes at once at a rate of 1 MiB, want as much as that lets pass at once", most)
	}
}
