package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/cmd/localnet/stores"
	"github.com/consign-transfer/consign/token"
)

// large is the size of what races by a multipart upload, in bytes.
const large = 2<<20 + 5

// raceBuckets lets the agents of two providers, which export the same bucket and know nothing of each other, create the same
// key at the same moment: first small objects, which are one request, then multipart uploads.
func raceBuckets(ctx context.Context, b *bench) error {
	s, err := b.serve(ctx, "versitygw", "dst")
	if err != nil {
		return err
	}
	to, err := newBucket(ctx, s, "dst")
	if err != nil {
		return err
	}
	st, err := stores.S3At(s, filepath.Join(b.dir, "secrets"), "dst", "")
	if err != nil {
		return err
	}
	w, err := b.newSharedWorld(ctx, st)
	if err != nil {
		return err
	}
	for _, kind := range []struct {
		name string
		size int
	}{{"one-request", small}, {"multipart", large}} {
		t, err := w.raceKeys(ctx, kind.name, kind.size, to)
		if err != nil {
			return fmt.Errorf("racing by %s: %w", kind.name, err)
		}
		if err := b.report(t); err != nil {
			return err
		}
		if !t.good() {
			return errBroken
		}
	}
	return nil
}

// newSharedWorld starts a source at north and an agent at south and at west, both with the same store as their container.
func (b *bench) newSharedWorld(ctx context.Context, st localnet.Store) (*world, error) {
	w := &world{bench: b, from: filepath.Join(b.dir, "src")}
	if err := os.MkdirAll(w.from, 0o700); err != nil {
		return nil, fmt.Errorf("making a container: %w", err)
	}
	for _, p := range []token.Provider{"north", "south", "west"} {
		if err := b.net.AddProvider(p); err != nil {
			return nil, err
		}
	}
	var err error
	if w.broker, err = b.net.AddBroker(ctx, "hub"); err != nil {
		return nil, err
	}
	brokers := []*localnet.Broker{w.broker}
	procs := []*localnet.Proc{w.broker.Proc}
	for _, p := range []token.Provider{"north", "south", "west"} {
		e := localnet.Export{Container: "dst", Store: st, Create: true}
		if p == "north" {
			e = localnet.Export{Container: "src", Dir: w.from, Read: true}
		}
		a, err := b.net.AddAgent(p, "one", []localnet.Export{e}, brokers)
		if err != nil {
			return nil, err
		}
		procs = append(procs, a.Proc)
	}
	for _, p := range procs {
		if err := p.Start(ctx); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// raceKeys is raceKind between two destinations on one bucket.
func (w *world) raceKeys(ctx context.Context, kind string, size int, to bucket) (tally, error) {
	started := time.Now()
	t := tally{Kind: kind, Races: w.rounds}
	var racers [2]*racer
	for i, p := range []token.Provider{"south", "west"} {
		side := "ab"[i : i+1]
		file := kind + "-" + side
		if err := os.WriteFile(filepath.Join(w.from, file), []byte(strings.Repeat(side, size)), 0o600); err != nil {
			return t, fmt.Errorf("making a racer's object: %w", err)
		}
		r, err := w.newRacer(w.broker, file, p)
		if err != nil {
			return t, err
		}
		r.from = token.Location{Provider: "north", Container: "src", Name: token.ObjectName(file)}
		racers[i] = r
	}
	for i := range w.rounds {
		name := fmt.Sprintf("%s/%d", kind, i)
		ends, err := raceOnce(ctx, racers, token.ObjectName(name))
		if err != nil {
			return t, fmt.Errorf("race %d: %w", i, err)
		}
		got, err := to.get(ctx, name)
		if err != nil {
			return t, fmt.Errorf("reading what won race %d: %w", i, err)
		}
		t.count(ends, got, size)
	}
	t.Seconds = time.Since(started).Seconds()
	return t, nil
}
