package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/consign-transfer/consign/agent/store/storetest/realstores"
	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/cmd/localnet/stores"
)

// A lap is one copy of the tree by one tool.
type lap struct {
	Tool      string  `json:"tool"`
	Lap       int     `json:"lap"`
	Objects   int64   `json:"objects"`
	Bytes     int64   `json:"bytes"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"objects_per_s"`
}

// A standing compares all laps of two tools, by their total time.
type standing struct {
	What   string  `json:"what"`
	Beside string  `json:"beside"`
	Ratio  float64 `json:"ratio"` // above 1: we are faster
}

// scaleBuckets copies many small files from a folder to a bucket, beside rclone on the same server.
func scaleBuckets(ctx context.Context, b *bench) error {
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
	from := filepath.Join(b.dir, "src")
	if err := os.MkdirAll(from, 0o700); err != nil {
		return fmt.Errorf("making a container: %w", err)
	}
	w, err := b.newWorldOf(ctx, localnet.Export{Dir: from}, localnet.Export{Store: st}, settings{})
	if err != nil {
		return err
	}
	if err := w.fillMany(filepath.Join(from, "many"), int(b.each)); err != nil {
		return err
	}
	total, err := w.laps(ctx, to, filepath.Join(from, "many"))
	if err != nil {
		return err
	}
	for _, tool := range []string{"rclone", "rclone-16"} {
		if err := b.report(standing{"consign", tool, total[tool] / total["consign"]}); err != nil {
			return err
		}
	}
	for _, p := range []*localnet.Proc{w.destination.Proc, w.source.Proc, w.broker.Proc} {
		if err := p.Stop(); err != nil {
			return err
		}
		if err := b.report(resident{Process: p.Name, PeakMiB: float64(p.Peak()) / (1 << 20)}); err != nil {
			return err
		}
	}
	if total["consign"] > total["rclone"] || total["consign"] > total["rclone-16"] {
		return errBroken
	}
	return nil
}

// laps lets each tool copy the tree -repeat times, every other time in reverse order, and returns the total seconds of each.
func (w *world) laps(ctx context.Context, to bucket, from string) (map[string]float64, error) {
	tools := []struct {
		name string
		copy func(ctx context.Context, prefix string) error
	}{
		{"consign", func(ctx context.Context, prefix string) error { return w.copyTree(ctx, prefix) }},
		{"rclone", func(ctx context.Context, prefix string) error { return rcloneCopy(ctx, to, from, prefix) }},
		{"rclone-16", func(ctx context.Context, prefix string) error {
			return rcloneCopy(ctx, to, from, prefix, "--transfers", "16", "--checkers", "16")
		}},
	}
	total := map[string]float64{}
	for n := range w.repeat {
		for i := range tools {
			tool := tools[i]
			if n%2 == 1 {
				tool = tools[len(tools)-1-i]
			}
			prefix := fmt.Sprintf("%s-%d", tool.name, n)
			started := time.Now()
			if err := tool.copy(ctx, prefix); err != nil {
				return nil, fmt.Errorf("copying with %s: %w", tool.name, err)
			}
			l := lap{Tool: tool.name, Lap: n + 1, Seconds: time.Since(started).Seconds()}
			var err error
			if l.Objects, l.Bytes, err = to.count(ctx, prefix+"/"); err != nil {
				return nil, err
			}
			if l.Objects != int64(w.files) || l.Bytes != int64(w.files)*int64(w.each) {
				return nil, fmt.Errorf("%s has made %d objects of %d bytes together", tool.name, l.Objects, l.Bytes)
			}
			l.PerSecond = float64(l.Objects) / l.Seconds
			total[tool.name] += l.Seconds
			if err := w.report(l); err != nil {
				return nil, err
			}
		}
	}
	return total, nil
}

// copyTree is our own lap, as a subscriber does it: order, wait.
func (w *world) copyTree(ctx context.Context, prefix string) error {
	r, err := w.net.Run(ctx, w.config, "cp", "-r", "--wait", "-o", "json", "north:/src/many", "south:/dst/"+prefix)
	if err != nil {
		return err
	}
	var t api.Transfer
	if err := json.Unmarshal([]byte(r.Stdout), &t); err != nil {
		return fmt.Errorf("reading what cp printed: %w", err)
	}
	if t.State != api.Complete {
		return fmt.Errorf("the transfer ended %s", t.State)
	}
	return nil
}

// rcloneCopy runs rclone copy; flags are added to its defaults.
func rcloneCopy(ctx context.Context, to bucket, from, prefix string, flags ...string) error {
	program, err := realstores.Find("rclone")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"copy", from, "dst:" + to.name + "/" + prefix, "--config", filepath.Join(to.Dir, "none.conf")}, flags...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + to.Dir, "RCLONE_CONFIG_DST_TYPE=s3", "RCLONE_CONFIG_DST_PROVIDER=Other",
		"RCLONE_CONFIG_DST_ACCESS_KEY_ID=" + to.AccessKey, "RCLONE_CONFIG_DST_SECRET_ACCESS_KEY=" + to.SecretKey,
		"RCLONE_CONFIG_DST_ENDPOINT=" + to.Endpoint, "RCLONE_CONFIG_DST_REGION=" + to.Region,
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running rclone: %w: %s", err, strings.TrimSpace(string(out[max(0, len(out)-2000):])))
	}
	return nil
}
