package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
)

// patience bounds every wait for a transfer.
const patience = 15 * time.Minute

// A world is two providers, one broker and a subscriber with an account at both.
type world struct {
	*bench
	broker      *localnet.Broker
	source      *localnet.Agent
	destination *localnet.Agent
	config      string // of the subscriber
	from, to    string // folders that are exported as north:/src and south:/dst
}

// settings are those of the daemons beyond the usual.
type settings struct{ hub, source, destination []localnet.Setting }

// newWorld makes and starts it, with folders as containers.
func (b *bench) newWorld(ctx context.Context) (*world, error) {
	return b.newWorldWith(ctx, settings{})
}

// newWorldWith is newWorld with settings.
func (b *bench) newWorldWith(ctx context.Context, s settings) (*world, error) {
	from, to := filepath.Join(b.dir, "src"), filepath.Join(b.dir, "dst")
	for _, dir := range []string{from, to} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("making a container: %w", err)
		}
	}
	w, err := b.newWorldOf(ctx, localnet.Export{Dir: from}, localnet.Export{Dir: to}, s)
	if err != nil {
		return nil, err
	}
	w.from, w.to = from, to
	return w, nil
}

// newWorldOf makes and starts a world whose containers are what two exports name.
func (b *bench) newWorldOf(ctx context.Context, src, dst localnet.Export, s settings) (*world, error) {
	w := &world{bench: b}
	src.Container, src.Read = "src", true
	dst.Container, dst.Read, dst.Create = "dst", true, true
	if err := b.net.AddProvider("north"); err != nil {
		return nil, err
	}
	if err := b.net.AddProvider("south"); err != nil {
		return nil, err
	}
	var err error
	if w.broker, err = b.net.AddBroker(ctx, "hub", s.hub...); err != nil {
		return nil, err
	}
	brokers := []*localnet.Broker{w.broker}
	if w.source, err = b.net.AddAgent("north", "one", []localnet.Export{src}, brokers, s.source...); err != nil {
		return nil, err
	}
	if w.destination, err = b.net.AddAgent("south", "one", []localnet.Export{dst}, brokers, s.destination...); err != nil {
		return nil, err
	}
	if w.config, err = b.net.AddSubscriber("alice", w.broker, "north", "south"); err != nil {
		return nil, err
	}
	for _, p := range []*localnet.Proc{w.broker.Proc, w.source.Proc, w.destination.Proc} {
		if err := p.Start(ctx); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// order runs cp and returns the transfer's id.
func (w *world) order(ctx context.Context, args ...string) (string, error) {
	r, err := w.net.Run(ctx, w.config, append([]string{"cp", "-o", "json"}, args...)...)
	if err != nil {
		return "", err
	}
	var t api.Transfer
	if err := json.Unmarshal([]byte(r.Stdout), &t); err != nil {
		return "", fmt.Errorf("reading what cp printed: %w", err)
	}
	return string(t.ID), nil
}

// show returns the transfer's state now.
func (w *world) show(ctx context.Context, id string) (api.Transfer, error) {
	var t api.Transfer
	r, err := w.net.Run(ctx, w.config, "transfer", "show", id, "-o", "json")
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal([]byte(r.Stdout), &t); err != nil {
		return t, fmt.Errorf("reading what show printed: %w", err)
	}
	return t, nil
}

// await polls until the transfer has ended.
func (w *world) await(ctx context.Context, id string) (api.Transfer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		t, err := w.show(ctx, id)
		if err == nil && t.State.Ended() {
			return t, nil
		}
		select {
		case <-ctx.Done():
			return t, fmt.Errorf("waiting for %s, last seen %s (%s): %w", id, t.State, t.Waiting, ctx.Err())
		case <-tick.C:
		}
	}
}

// verify fetches the receipts of the transfer and verifies them offline, as an auditor does.
func (w *world) verify(ctx context.Context, id string) (err error) {
	file := filepath.Join(w.dir, "receipts-"+id+".jsonl")
	defer func() { err = errors.Join(err, os.RemoveAll(file)) }()
	if _, err := w.net.Run(ctx, w.config, "receipt", "get", id, "-f", file); err != nil {
		return err
	}
	_, err = w.net.Run(ctx, w.config, "receipt", "verify", file)
	return err
}

// stages counts what is left below the destination's stage folder.
func (w *world) stages() (int, error) {
	var n int
	err := filepath.WalkDir(filepath.Join(w.to, ".consign"), func(_ string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("counting stages: %w", err)
	}
	return n, nil
}

// moved returns how many bytes of content an agent's counters tell of, where their labels contain label.
func moved(ctx context.Context, p *localnet.Proc, label string) (float64, error) {
	return metric(ctx, p, "consign_agent_bytes_total", label)
}

// metric returns the sum of what a daemon tells under a name, where its labels contain label.
func metric(ctx context.Context, p *localnet.Proc, name, label string) (float64, error) {
	text, err := p.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	var sum float64
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		line := s.Text()
		rest, ours := strings.CutPrefix(line, name)
		if !ours || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, " ") || !strings.Contains(line, label) {
			continue
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("reading the metric %q: %w", line, err)
		}
		sum += v
	}
	return sum, nil
}

// fill writes n bytes that do not compress and do not repeat.
func fill(file string, n int64, seed uint64) error {
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("making %s: %w", filepath.Base(file), err)
	}
	defer f.Close()
	if _, err := io.Copy(f, stream(seed, n)); err != nil {
		return fmt.Errorf("filling %s: %w", filepath.Base(file), err)
	}
	return f.Close()
}

// same compares two files byte for byte with the system's own tool.
func same(ctx context.Context, a, b string) error {
	out, err := exec.CommandContext(ctx, "cmp", a, b).CombinedOutput()
	if err != nil {
		return fmt.Errorf("comparing: %w: %s", err, out)
	}
	return nil
}
