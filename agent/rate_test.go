package agent

import (
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

// TestRateOfTheTask: a batch keeps to the rate of its task, to another one once the task came again with that, and to that after a restart.
func TestRateOfTheTask(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var once sync.Once
	came, goOn := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(goOn) })
	w.dst.conf.hooks.moved = func(string, int, int64) bool {
		once.Do(func() { close(came) })
		<-goOn
		return true
	}
	w.src.start()
	w.dst.start()
	t.Cleanup(release) // before the agents are stopped
	o := w.order()
	o.Limits.Rate = 1 << 30
	s := w.spec(o, 1, w.random("in/big", 6<<20), w.random("in/a", 100))
	serve, receive := w.tasks(s)
	serve.Rate = 64 << 20
	w.broker.give(w.dst.port, receive)
	w.broker.give(w.src.port, serve)
	<-came
	wantRates := func(when string, order, task float64) {
		t.Helper()
		poll(t, when, func() bool {
			bs := w.src.agent.recalled()
			if len(bs) != 1 {
				return false
			}
			l := bs[0].limiters()
			return l[0] != nil && l[1] != nil && float64(l[0].Limit()) == order && float64(l[1].Limit()) == task
		})
	}
	wantRates("the rate of the task", 1<<30, 64<<20)
	serve.ID, serve.Rate = serve.ID+"-again", 32<<20
	w.broker.give(w.src.port, serve)
	wantRates("the rate of the task that came again", 1<<30, 32<<20)
	w.src.kill()
	w.broker.mu.Lock()
	w.src.port.tasks = nil // so that its journal alone knows
	w.broker.mu.Unlock()
	w.src.start()
	wantRates("that rate after a restart", 1<<30, 32<<20)
	release()
	w.stored(s)
}

// TestRatesAreShared: all batches of a transfer share what its order allows, and those with tasks of one rate that.
func TestRatesAreShared(t *testing.T) {
	t.Parallel()
	a := &Agent{batches: map[batchKey]*batch{}}
	add := func(bat, rate int64, do token.Verb) *batch {
		b := &batch{a: a, rate: rate, bill: bill{key: batchKey{xfr: "x", bat: bat, do: do}}}
		b.will.Limits.Rate = 32 << 20
		a.limit(b)
		a.batches[b.key] = b
		return b
	}
	first, other, same, there := add(1, 2<<20, token.Read), add(2, 1<<20, token.Read), add(3, 2<<20, token.Read), add(1, 2<<20, token.Create)
	f, o, s, d := first.limiters(), other.limiters(), same.limiters(), there.limiters()
	if f[0] != o[0] || f[0] != s[0] || f[1] != s[1] || f[1] == o[1] || d[0] == f[0] || d[1] == f[1] {
		t.Error("batches of a transfer do not share what they have in common, or share more")
	}
	if most := other.most(16 << 20); most != 1<<20 {
		t.Errorf("asks for %d bytes at once at a rate of 1 MiB, want as much as that lets pass at once", most)
	}
	if err := same.throttle(1 << 20); problem.Of(err) != problem.Draining { // its journal is not open
		t.Errorf("got %v", err)
	}
	if got := same.limiters(); got[0] != f[0] || got[1] != o[1] || first.limiters()[1] != f[1] {
		t.Error("the task that came again with another rate does not share that, or others lost theirs")
	}
	if err := same.throttle(0); err == nil || same.limiters()[1] != nil {
		t.Errorf("got %v and a limit where there is none any more", err)
	}
}
