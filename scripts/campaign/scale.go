package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
)

// maxResident is what broker and agents may occupy, bytes.
const maxResident = 256 << 20

// A load is what one transfer of the scale campaign came to.
type load struct {
	What         string  `json:"what"`
	Items        int64   `json:"items"`
	Bytes        int64   `json:"bytes"`
	Seconds      float64 `json:"seconds"`
	MBPerSecond  float64 `json:"mb_per_s"`
	PerSecond    float64 `json:"objects_per_s"`
	FirstByteAt  float64 `json:"first_byte_s"`
	ListedAt     float64 `json:"listed_s"`
	BytesByThen  int64   `json:"bytes_moved_when_listed"`
	BeforeListed bool    `json:"first_byte_before_listing_ended"`
}

// A resident is the peak memory of one process.
type resident struct {
	Process string  `json:"process"`
	PeakMiB float64 `json:"peak_rss_mib"`
}

// scale copies many small files and one big one and reports the peak memory of the three processes.
func scale(ctx context.Context, b *bench) error {
	w, err := b.newWorld(ctx)
	if err != nil {
		return err
	}
	if err := w.fillScale(); err != nil {
		return err
	}
	many, err := w.timed(ctx, "many", "-r", "north:/src/many", "south:/dst/many")
	if err != nil {
		return err
	}
	if err := b.report(many); err != nil {
		return err
	}
	big, err := w.timed(ctx, "big", "north:/src/big", "south:/dst/big")
	if err != nil {
		return err
	}
	if err := b.report(big); err != nil {
		return err
	}
	if err := same(ctx, filepath.Join(w.from, "big"), filepath.Join(w.to, "big")); err != nil {
		return err
	}
	broken := b.files > 1024 && !many.BeforeListed
	for _, p := range []*localnet.Proc{w.destination.Proc, w.source.Proc, w.broker.Proc} {
		if err := p.Stop(); err != nil {
			return err
		}
		if err := b.report(resident{Process: p.Name, PeakMiB: float64(p.Peak()) / (1 << 20)}); err != nil {
			return err
		}
		broken = broken || p.Peak() > maxResident
	}
	if broken {
		return errBroken
	}
	return nil
}

func (w *world) fillScale() error {
	if err := fill(filepath.Join(w.from, "big"), int64(w.big), w.seed); err != nil {
		return err
	}
	return w.fillMany(filepath.Join(w.from, "many"), 4<<10)
}

// fillMany makes w.files files of the given size, a thousand to a folder.
func (w *world) fillMany(root string, each int) error { return w.fillSome(root, w.files, each) }

// fillSome makes n files of the given size, a thousand to a folder.
func (w *world) fillSome(root string, n, each int) error {
	buf := make([]byte, each)
	for i := range n {
		dir := filepath.Join(root, fmt.Sprintf("%03d", i/1000))
		if i%1000 == 0 {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("making a folder: %w", err)
			}
		}
		for j := range buf {
			buf[j] = byte(w.rand.Uint32())
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), buf, 0o600); err != nil {
			return fmt.Errorf("making a small file: %w", err)
		}
	}
	return nil
}

// timed runs one copy to its end and notes when the first byte moved and when the listing ended.
func (w *world) timed(ctx context.Context, what string, args ...string) (load, error) {
	l := load{What: what}
	started := time.Now()
	since := func() float64 { return time.Since(started).Seconds() }
	id, err := w.order(ctx, args...)
	if err != nil {
		return l, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		t, err := w.show(ctx, id)
		if err != nil {
			return l, err
		}
		if l.FirstByteAt == 0 && t.BytesMoved > 0 {
			l.FirstByteAt, l.BeforeListed = since(), !t.Planned
		}
		if l.ListedAt == 0 && t.Planned {
			l.ListedAt, l.BytesByThen = since(), t.BytesMoved
		}
		if t.State.Ended() {
			return l.end(t, since())
		}
		select {
		case <-ctx.Done():
			return l, ctx.Err()
		case <-tick.C:
		}
	}
}

func (l load) end(t api.Transfer, seconds float64) (load, error) {
	l.Items, l.Bytes, l.Seconds = t.Items, t.Bytes, seconds
	l.MBPerSecond, l.PerSecond = float64(t.Bytes)/1e6/seconds, float64(t.Items)/seconds
	if t.State != api.Complete {
		return l, fmt.Errorf("the transfer of %s ended %s", l.What, t.State)
	}
	return l, nil
}
