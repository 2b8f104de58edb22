package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
)

// A kill is one run of the crash campaign.
type kill struct {
	Run      int     `json:"run"`
	Victim   string  `json:"victim"`
	At       float64 `json:"at"`   // share of the file that had crossed the wire when the victim was killed
	Down     string  `json:"down"` // how long it stayed down
	Seconds  float64 `json:"seconds"`
	State    string  `json:"state"`
	Again    int64   `json:"bytes_again"` // that crossed the wire more than once
	Allowed  int64   `json:"bytes_again_allowed"`
	Stages   int     `json:"stages_left"`
	Problems string  `json:"problems,omitempty"`
}

// crash copies one file again and again and kills one of the three processes in the middle.
func crash(ctx context.Context, b *bench) error {
	w, err := b.newWorld(ctx)
	if err != nil {
		return err
	}
	if err := fill(filepath.Join(w.from, "file"), int64(b.size), b.seed); err != nil {
		return err
	}
	calm, err := w.calm(ctx)
	if err != nil {
		return err
	}
	broken := 0
	for i := 1; i <= b.runs; i++ {
		k, err := w.crashOnce(ctx, i, time.Duration(b.rand.Float64()*0.9*float64(calm)))
		if err != nil {
			k.Problems = err.Error()
			broken++
		}
		if err := b.report(k); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	fmt.Fprintf(b.out, "%d runs, %d broken\n", b.runs, broken)
	if broken > 0 {
		return errBroken
	}
	return nil
}

// lanes and wantBytes are the defaults of the agent: a kill may cost one want a lane.
const (
	lanes     = 4
	wantBytes = 16 << 20
)

// calm copies the file once in peace and returns how long that took, so that kills fall into the middle.
func (w *world) calm(ctx context.Context) (time.Duration, error) {
	started := time.Now()
	id, err := w.order(ctx, "north:/src/file", "south:/dst/calm")
	if err != nil {
		return 0, err
	}
	t, err := w.await(ctx, id)
	if err != nil {
		return 0, err
	}
	if t.State != api.Complete {
		return 0, fmt.Errorf("a copy in peace ended %s", t.State)
	}
	took := time.Since(started)
	fmt.Fprintf(w.out, "in peace: %.1f s\n", took.Seconds())
	return took, os.Remove(filepath.Join(w.to, "calm"))
}

// crashOnce orders a copy, kills one process after the given time, and proves what came of it.
func (w *world) crashOnce(ctx context.Context, i int, delay time.Duration) (kill, error) {
	victims := []*localnet.Proc{w.source.Proc, w.destination.Proc, w.broker.Proc}
	victim := victims[w.rand.IntN(len(victims))]
	down := time.Duration(w.rand.IntN(2000)) * time.Millisecond
	k := kill{Run: i, Victim: victim.Name, Down: down.String(), Allowed: lanes * wantBytes}

	// The bytes are counted at the side that is not killed.
	witness, direction := w.source.Proc, `direction="out"`
	if victim == w.source.Proc {
		witness, direction = w.destination.Proc, `direction="in"`
	}
	before, err := moved(ctx, witness, direction)
	if err != nil {
		return k, err
	}
	started := time.Now()
	name := fmt.Sprintf("run-%d", i)
	id, err := w.order(ctx, "north:/src/file", "south:/dst/"+name)
	if err != nil {
		return k, err
	}
	pass(ctx, delay)
	crossed, err := moved(ctx, witness, direction)
	if err != nil {
		return k, err
	}
	k.At = (crossed - before) / float64(w.size)
	if err := victim.Kill(); err != nil {
		return k, err
	}
	pass(ctx, down)
	if err := victim.Start(ctx); err != nil {
		return k, err
	}
	t, err := w.await(ctx, id)
	k.State, k.Seconds = string(t.State), time.Since(started).Seconds()
	if err != nil {
		return k, err
	}
	after, err := moved(ctx, witness, direction)
	if err != nil {
		return k, err
	}
	k.Again = int64(after-before) - int64(w.size)
	return k, w.prove(ctx, &k, id, name)
}

// pass lets time go by: it is part of the scenario, nothing is waited for.
func pass(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// prove checks every promise of the run and frees the space.
func (w *world) prove(ctx context.Context, k *kill, id, name string) (err error) {
	copied := filepath.Join(w.to, name)
	defer func() { err = errors.Join(err, os.RemoveAll(copied)) }()
	if k.State != string(api.Complete) {
		return fmt.Errorf("the transfer ended %s", k.State)
	}
	if err := same(ctx, filepath.Join(w.from, "file"), copied); err != nil {
		return err
	}
	if err := w.verify(ctx, id); err != nil {
		return err
	}
	if k.Again > k.Allowed {
		return fmt.Errorf("%d bytes crossed the wire again, %d are allowed", k.Again, k.Allowed)
	}
	return w.noStages(ctx, k)
}

// noStages waits up to two janitor periods for the last stage to go.
func (w *world) noStages(ctx context.Context, k *kill) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var err error
		if k.Stages, err = w.stages(); err != nil || k.Stages == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d stages are left", k.Stages)
		case <-tick.C:
		}
	}
}
