package main

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
)

// capabilityLife is the shortest that a broker mints.
const capabilityLife = time.Minute

// A shortLived is what the campaign came to.
type shortLived struct {
	Life        string  `json:"capability_life"`
	State       string  `json:"state"`
	Bytes       int64   `json:"bytes"`
	Seconds     float64 `json:"seconds"`
	Renewals    int64   `json:"capability_renewals"`
	Needed      int64   `json:"capability_renewals_needed"`
	Again       int64   `json:"bytes_again"`
	LanesAgain  int64   `json:"lanes_opened_again"`
	Interrupted int     `json:"batches_interrupted"`
}

// short runs one transfer through many capabilities of the shortest life.
func short(ctx context.Context, b *bench) error {
	w, err := b.newWorldWith(ctx, settings{hub: []localnet.Setting{{Key: "capability_life", Value: capabilityLife.String()}}})
	if err != nil {
		return err
	}
	if err := fill(filepath.Join(w.from, "file"), int64(b.size), b.seed); err != nil {
		return err
	}
	began := time.Now()
	id, err := w.order(ctx, "--rate", strconv.FormatInt(int64(b.rate), 10), "north:/src/file", "south:/dst/file")
	if err != nil {
		return err
	}
	t, err := w.await(ctx, id)
	if err != nil {
		return err
	}
	var r rotated
	if err := w.count(ctx, &r); err != nil {
		return err
	}
	s := shortLived{
		Life: capabilityLife.String(), State: string(t.State), Bytes: int64(b.size), Seconds: time.Since(began).Seconds(),
		Renewals: r.Renewals, Again: r.Again, LanesAgain: r.LanesAgain, Interrupted: r.Interrupted,
	}
	s.Needed = int64(s.Seconds / capabilityLife.Seconds())
	if err := b.report(s); err != nil {
		return err
	}
	if s.Needed < 1 {
		return fmt.Errorf("the transfer took %.0f s, less than one capability; with a lower -rate it lasts", s.Seconds)
	}
	if t.State != api.Complete || s.Renewals < s.Needed {
		return errBroken
	}
	return w.prove(ctx, &kill{State: s.State}, id, "file")
}

func occurrences(log []byte, text string) int { return bytes.Count(log, []byte(text)) }
