package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token/problem"
)

// demoPatience bounds the wait for the copies.
const demoPatience = 10 * time.Minute

// order signs and hands in both orders, with the program itself.
func (d *demo) order(ctx context.Context) error {
	d.say("Alice orders two copies: %s (%s), and one file of %s that was just made. Each order is signed with her key at "+
		"north and her key at south; the broker can mint nothing that the order does not cover.",
		counted(d.tree.files, "file"), bytesText(d.tree.bytes), bytesText(int64(d.opt.big)))
	for _, c := range d.copies {
		fmt.Fprintf(d.a.out, "      $ consign cp -r %s %s\n", c.from, c.to)
		r, err := d.net.Run(ctx, d.config, "cp", "-r", "-o", "json", c.from, c.to)
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(r.Stdout), &c.t); err != nil {
			return fmt.Errorf("reading what cp printed: %w", err)
		}
		fmt.Fprintf(d.a.out, "      %s\n", c.t.ID)
	}
	return nil
}

// kill waits until between 30 and 60 percent of the bytes have arrived, and ends the
// receiving agent with SIGKILL.
func (d *demo) kill(ctx context.Context) error {
	total := d.tree.bytes + int64(d.opt.big)
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	s, err := d.session(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	m := newMeter(d.a)
	defer m.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for looks := 0; ; looks++ {
		got, err := metric(ctx, d.south.Proc, "consign_agent_bytes_total", `direction="in"`)
		if err != nil {
			return err
		}
		if got*10 >= total*3 {
			pid := d.south.PID()
			if err := d.south.Kill(); err != nil {
				return err
			}
			m.Close()
			d.say("kill -9 %d: the agent of south is dead with %s of %s received (%d %%). A thief copies its disk.",
				pid, bytesText(got), bytesText(total), got*100/max(total, 1))
			return d.steal()
		}
		if looks%10 == 0 {
			sum, err := d.look(ctx, s)
			if err != nil {
				return err
			}
			m.Show(sum)
			if sum.State.Ended() {
				return fmt.Errorf("the copies ended before the agent could be killed: %s", outcomesText(sum))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// session is alice at the broker.
func (d *demo) session(ctx context.Context) (*session, error) {
	alice := *d.a
	alice.config, alice.environ = d.config, nil
	return alice.openWith(ctx, nil)
}

// look asks for both transfers and adds them up, as one.
func (d *demo) look(ctx context.Context, s *session) (api.Transfer, error) {
	sum := api.Transfer{State: api.Complete, Planned: true}
	for _, c := range d.copies {
		t, err := s.client("north").Transfer(ctx, c.t.ID, 0, 0)
		if err != nil {
			return sum, err
		}
		c.t = t
		if !t.State.Ended() {
			sum.State = t.State
		} else if t.State != api.Complete {
			return sum, resultOf(t)
		}
		sum.Planned = sum.Planned && t.Planned
		sum.Items, sum.ItemsDone = sum.Items+t.Items, sum.ItemsDone+t.ItemsDone
		sum.Bytes, sum.BytesMoved = sum.Bytes+t.Bytes, sum.BytesMoved+t.BytesMoved
		if t.Waiting != "" {
			sum.Waiting = t.Waiting
		}
	}
	return sum, nil
}

// resume starts the agent again and waits until both transfers are complete.
func (d *demo) resume(ctx context.Context) error {
	began := d.a.now()
	if err := d.south.Start(ctx); err != nil {
		return err
	}
	d.say("It is started again (pid %d), reads its journal and asks only for what it does not hold yet.", d.south.PID())
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	s, err := d.session(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	m := newMeter(d.a)
	defer m.Close()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		sum, err := d.look(ctx, s)
		if err != nil && !problem.MayRetry(err) {
			return err
		}
		m.Show(sum)
		if err == nil && sum.State.Ended() {
			m.Close()
			d.proof("both transfers are complete, %s after the restart", d.a.now().Sub(began).Round(100*time.Millisecond))
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the copies (%s): %w", sum.Waiting, ctx.Err())
		case <-tick.C:
		}
	}
}

// metric returns the sum of the samples of a counter that have the label.
func metric(ctx context.Context, p *localnet.Proc, name, label string) (int64, error) {
	text, err := p.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	var sum float64
	for sc := bufio.NewScanner(strings.NewReader(text)); sc.Scan(); {
		line := sc.Text()
		rest, ours := strings.CutPrefix(line, name)
		if !ours || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, " ") || !strings.Contains(line, label) {
			continue
		}
		v, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("reading the counter %q: %w", line, err)
		}
		sum += v
	}
	return int64(sum), nil
}
