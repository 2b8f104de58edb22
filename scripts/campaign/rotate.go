package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
)

// A party is one whose certificate is replaced.
type party struct {
	name      string
	cert, key string
	daemon    *localnet.Proc // nil: the subscriber's, whom the next command uses
	mayChange bool           // its key
}

// A rotation is one certificate that was replaced while bytes were moving.
type rotation struct {
	Rotation int     `json:"rotation"`
	Party    string  `json:"party"`
	Key      string  `json:"key"` // kept or new
	At       float64 `json:"at"`  // share of the file that had crossed the wire
	InUse    float64 `json:"in_use_s"`
}

// A rotated is what the campaign came to.
type rotated struct {
	Rotations   int     `json:"rotations"`
	NewKeys     int     `json:"new_keys"`
	Life        string  `json:"life_of_each"`
	State       string  `json:"state"`
	Bytes       int64   `json:"bytes"`
	Seconds     float64 `json:"seconds"`
	LanesAgain  int64   `json:"lanes_opened_again"`
	Renewals    int64   `json:"capability_renewals"`
	Again       int64   `json:"bytes_again"` // that crossed the wire more than once
	Allowed     int64   `json:"bytes_again_allowed"`
	LongestUse  float64 `json:"longest_until_in_use_s"`
	Interrupted int     `json:"batches_interrupted"`
}

// rotate replaces the certificates of both agents, of the broker and of the subscriber, one after another, while one
// file is moving. Each lives for a few rounds only, so that those that were replaced end meanwhile.
func rotate(ctx context.Context, b *bench) error {
	w, err := b.newWorld(ctx)
	if err != nil {
		return err
	}
	if err := fill(filepath.Join(w.from, "file"), int64(b.size), b.seed); err != nil {
		return err
	}
	expected := time.Duration(float64(b.size) / float64(b.rate) * float64(time.Second))
	every := expected * 9 / 10 / time.Duration(max(1, b.rotations))
	all := w.parties()
	// The longest between two certificates of one party are two rounds less one; it must not run out of them on a slow machine.
	life := max(time.Minute, 3*time.Duration(len(all))*every).Truncate(time.Second)
	if err := w.rotateEach(ctx, all, life); err != nil { // so that the first connections end soon, too
		return err
	}
	began := time.Now()
	id, err := w.order(ctx, "--rate", strconv.FormatInt(int64(b.rate), 10), "north:/src/file", "south:/dst/file")
	if err != nil {
		return err
	}
	r, err := w.rotateAll(ctx, id, all, every, life)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*expected+patience)
	defer cancel()
	t, err := w.await(ctx, id)
	if err != nil {
		return err
	}
	r.State, r.Seconds = string(t.State), time.Since(began).Seconds()
	if err := w.count(ctx, &r); err != nil {
		return err
	}
	if err := b.report(r); err != nil {
		return err
	}
	if t.State != api.Complete || r.Rotations < b.rotations || r.Again > r.Allowed {
		return errBroken
	}
	return w.prove(ctx, &kill{State: r.State}, id, "file")
}

// parties are in the order in which their certificates are replaced first.
func (w *world) parties() []party {
	account := func(provider string) party {
		dir := filepath.Join(w.net.Dir, "subscribers", "alice", provider)
		return party{name: "subscriber-" + provider, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	}
	return []party{
		{w.source.Name, w.source.Cert, w.source.Key, w.source.Proc, true},
		{w.destination.Name, w.destination.Cert, w.destination.Key, w.destination.Proc, true},
		{w.broker.Name, w.broker.Cert, w.broker.Key, w.broker.Proc, true},
		account("north"), account("south"),
	}
}

// rotateAll replaces a certificate each period. The order of the parties is another in each round; so is whether a daemon's key is
// kept. A new key of an account is an event for people and no routine, so accounts keep theirs.
func (w *world) rotateAll(ctx context.Context, id string, all []party, every, life time.Duration) (rotated, error) {
	r := rotated{Bytes: int64(w.size), Life: life.String()}
	started := time.Now()
	for i := range w.rotations {
		if i%len(all) == 0 {
			w.rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		}
		pass(ctx, time.Until(started.Add(time.Duration(i+1)*every)))
		p, choice := all[i%len(all)], localnet.KeepKey
		if p.mayChange && w.rand.IntN(2) == 0 {
			choice = localnet.NewKey
			r.NewKeys++
		}
		one, err := w.rotateOne(ctx, p, choice, life)
		if err != nil {
			return r, fmt.Errorf("rotation %d, of %s: %w", i+1, p.name, err)
		}
		t, err := w.show(ctx, id)
		if err != nil {
			return r, fmt.Errorf("after rotation %d, of %s: %w", i+1, p.name, err)
		}
		if t.State.Ended() {
			return r, fmt.Errorf("the transfer was %s after %d of %d rotations; with a lower -rate it lasts", t.State, i+1, w.rotations)
		}
		one.Rotation, one.At = i+1, float64(t.BytesMoved)/float64(w.size)
		r.Rotations, r.LongestUse = i+1, max(r.LongestUse, one.InUse)
		if err := w.report(one); err != nil {
			return r, err
		}
	}
	// Nobody replaces them from here on, and the rest may take longer than they live.
	return r, w.rotateEach(ctx, all, 0)
}

// rotateEach gives every party a certificate of the given life, 0 for what is usual.
func (w *world) rotateEach(ctx context.Context, all []party, life time.Duration) error {
	for _, p := range all {
		if _, err := w.rotateOne(ctx, p, localnet.KeepKey, life); err != nil {
			return fmt.Errorf("a certificate for %s: %w", p.name, err)
		}
	}
	return nil
}

// rotateOne replaces one certificate and waits until its daemon uses it.
func (w *world) rotateOne(ctx context.Context, p party, choice localnet.KeyChoice, life time.Duration) (rotation, error) {
	one := rotation{Party: p.name, Key: map[localnet.KeyChoice]string{localnet.KeepKey: "kept", localnet.NewKey: "new"}[choice]}
	until, err := w.net.Rotate(p.cert, p.key, choice, life)
	if err != nil || p.daemon == nil {
		return one, err
	}
	began := time.Now()
	if err := p.daemon.Reload(); err != nil {
		return one, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		end, err := metric(ctx, p.daemon, "consign_certificate_expires_timestamp_seconds", "")
		if err == nil && int64(end) == until.Unix() {
			one.InUse = time.Since(began).Seconds()
			return one, nil
		}
		select {
		case <-ctx.Done():
			return one, fmt.Errorf("it is not used: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// count adds up what the rotations have cost.
func (w *world) count(ctx context.Context, r *rotated) error {
	sent, err := moved(ctx, w.source.Proc, `direction="out"`)
	if err != nil {
		return err
	}
	opened, err := metric(ctx, w.destination.Proc, "consign_agent_lanes_opened_total", `direction="out"`)
	if err != nil {
		return err
	}
	renewals, err := metric(ctx, w.destination.Proc, "consign_agent_capability_renewals_total", "")
	if err != nil {
		return err
	}
	r.Again, r.LanesAgain, r.Renewals = int64(sent)-int64(w.size), int64(opened)-lanes, int64(renewals)
	r.Allowed = max(0, r.LanesAgain) * wantBytes
	log, err := os.ReadFile(w.destination.Log)
	if err != nil {
		return fmt.Errorf("reading a log: %w", err)
	}
	r.Interrupted = occurrences(log, "batch interrupted")
	return nil
}
