package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
)

const (
	// maxLatency is the promise: no byte is accepted later than this after the word that ends it.
	maxLatency = 30 * time.Second
	// silence is how long nothing must come until bytes are said to have stopped. They came many times a second before.
	silence = 10 * time.Second
)

// A stop is one run of the revoke campaign.
type stop struct {
	Run     int     `json:"run"`
	Kind    string  `json:"kind"`
	At      float64 `json:"at"`          // share of the file that had arrived
	Latency float64 `json:"latency_s"`   // from the word to the last byte that the destination accepted
	Bytes   int64   `json:"bytes_after"` // that it accepted in that time
	Command float64 `json:"command_s"`   // that the command itself took
	State   string  `json:"state"`       // of the transfer, when bytes had stopped
}

// A latency is what the runs of one kind came to.
type latency struct {
	Kind   string  `json:"kind"`
	Runs   int     `json:"runs"`
	Median float64 `json:"median_s"`
	Max    float64 `json:"max_s"`
}

// stopKinds are the words that end a transfer which runs. Those that deny an agent are written to the list of the
// other, which finds them by itself.
var stopKinds = []string{"pause", "cancel", "deny-source", "deny-destination"}

// revoke ends a running transfer again and again, and measures how long bytes still come.
func revoke(ctx context.Context, b *bench) error {
	denied := func(side string) string { return filepath.Join(b.dir, "denied-"+side) }
	var s settings
	for side, into := range map[string]*[]localnet.Setting{"source": &s.source, "destination": &s.destination} {
		if err := os.WriteFile(denied(side), nil, 0o600); err != nil {
			return fmt.Errorf("making a list: %w", err)
		}
		*into = []localnet.Setting{{Key: "denied", Value: denied(side)}}
	}
	w, err := b.newWorldWith(ctx, s)
	if err != nil {
		return err
	}
	if err := fill(filepath.Join(w.from, "file"), int64(b.size), b.seed); err != nil {
		return err
	}
	words := map[string]func(ctx context.Context, id string) error{
		"pause":            func(ctx context.Context, id string) error { return w.tell(ctx, "pause", id) },
		"cancel":           func(ctx context.Context, id string) error { return w.tell(ctx, "cancel", id) },
		"deny-source":      func(context.Context, string) error { return deny(denied("destination"), w.source.ID) },
		"deny-destination": func(context.Context, string) error { return deny(denied("source"), w.destination.ID) },
	}
	seen := map[string][]float64{}
	for i := range b.runs {
		one := stop{Run: i + 1, Kind: stopKinds[i%len(stopKinds)]}
		if err := w.stopOnce(ctx, &one, words[one.Kind]); err != nil {
			return fmt.Errorf("run %d, %s: %w", one.Run, one.Kind, err)
		}
		if err := errors.Join(deny(denied("source")), deny(denied("destination"))); err != nil {
			return err
		}
		seen[one.Kind] = append(seen[one.Kind], one.Latency)
		seen["all"] = append(seen["all"], one.Latency)
		if err := b.report(one); err != nil {
			return err
		}
	}
	return b.judge(seen)
}

// judge reports each kind and all of them.
func (b *bench) judge(seen map[string][]float64) error {
	broken := false
	for _, kind := range append(slices.Clone(stopKinds), "all") {
		l := latencyOf(kind, seen[kind])
		if l.Runs == 0 {
			continue
		}
		if err := b.report(l); err != nil {
			return err
		}
		broken = broken || l.Max >= maxLatency.Seconds()
	}
	if broken {
		return errBroken
	}
	return nil
}

func latencyOf(kind string, all []float64) latency {
	l := latency{Kind: kind, Runs: len(all)}
	if l.Runs == 0 {
		return l
	}
	slices.Sort(all)
	l.Median, l.Max = all[l.Runs/2], all[l.Runs-1]
	if l.Runs%2 == 0 {
		l.Median = (all[l.Runs/2-1] + all[l.Runs/2]) / 2
	}
	return l
}

// tell runs one command of transfer.
func (w *world) tell(ctx context.Context, verb, id string) error {
	_, err := w.net.Run(ctx, w.config, "transfer", verb, id)
	return err
}

// deny writes a list of these and nobody else.
func deny(file string, ids ...token.Identity) error {
	var text string
	for _, id := range ids {
		text += "identity " + string(id) + "\n"
	}
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing a list: %w", err)
	}
	return os.Rename(file+".new", file)
}

// stopOnce orders a copy, lets it run for a while, says the word, and sees when the last byte came. The transfer is
// ended in any case.
func (w *world) stopOnce(ctx context.Context, one *stop, word func(context.Context, string) error) error {
	before, err := w.arrived(ctx)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("run-%d", one.Run)
	id, err := w.order(ctx, "--rate", strconv.FormatInt(int64(w.rate), 10), "north:/src/file", "south:/dst/"+name)
	if err != nil {
		return err
	}
	if err := w.flowing(ctx, before); err != nil {
		return err
	}
	pass(ctx, time.Duration(1000+w.rand.IntN(4000))*time.Millisecond)
	at, err := w.arrived(ctx)
	if err != nil {
		return err
	}
	one.At = (at - before) / float64(w.size)
	said := make(chan error, 1)
	began := time.Now()
	go func() { // ends with the command, and is waited for below
		err := word(ctx, id)
		one.Command = time.Since(began).Seconds()
		said <- err
	}()
	last, end, err := w.lastByte(ctx, began, at)
	if err := errors.Join(<-said, err); err != nil {
		return err
	}
	one.Latency, one.Bytes = last.Seconds(), int64(end-at)
	t, err := w.show(ctx, id)
	if err != nil {
		return err
	}
	one.State = string(t.State)
	want := map[string]api.State{"pause": api.Paused, "cancel": api.Cancelled}[one.Kind]
	if want != "" && t.State != want || t.State == api.Complete {
		return fmt.Errorf("the transfer is %s", t.State)
	}
	if t.State.Ended() {
		return nil
	}
	if err := w.tell(ctx, "cancel", id); err != nil {
		return err
	}
	_, err = w.await(ctx, id)
	return err
}

// arrived is how many bytes the destination has accepted so far.
func (w *world) arrived(ctx context.Context) (float64, error) {
	return moved(ctx, w.destination.Proc, `direction="in"`)
}

// flowing waits until bytes arrive.
func (w *world) flowing(ctx context.Context, before float64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if n, err := w.arrived(ctx); err == nil && n > before {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for bytes: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// lastByte watches the destination until nothing has come for as long as silence, and returns when the last byte was seen, since
// began, and how many there were then. at were there before.
func (w *world) lastByte(ctx context.Context, began time.Time, at float64) (last time.Duration, end float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*maxLatency)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end = at
	for {
		n, err := w.arrived(ctx)
		if err != nil {
			return last, end, err
		}
		now := time.Since(began)
		if n > end {
			last, end = now, n
		} else if now-last > silence {
			return last, end, nil
		}
		select {
		case <-ctx.Done():
			return last, end, fmt.Errorf("bytes do not stop: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
