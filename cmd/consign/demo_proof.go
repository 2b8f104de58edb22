package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

// compare proves that the copies equal their sources: by 'diff -r' where it is installed and
// by reading both trees again.
func (d *demo) compare(ctx context.Context) error {
	d.say("Is every byte there? Both trees are read again, and the BLAKE3 digest of every copy is compared with that of its source " +
		"and with the one that both agents signed.")
	for _, c := range d.copies {
		claimed, err := d.outcomes(ctx, c)
		if err != nil {
			return err
		}
		same, err := compareTrees(ctx, c.source, c.dst, claimed)
		if err != nil {
			return err
		}
		d.proof("%s: %s, %s: equal to the source, and to what was signed", c.to, counted(same.files, "file"), bytesText(same.bytes))
		if c.t.Outcomes[token.Left] == 0 {
			if err := d.diff(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// diff runs the system's diff -r, if there is one.
func (d *demo) diff(ctx context.Context, c *ordered) error {
	tool, err := exec.LookPath("diff")
	if errors.Is(err, exec.ErrNotFound) {
		return nil
	}
	out, err := exec.CommandContext(ctx, tool, "-r", c.source, c.dst).CombinedOutput()
	if err != nil {
		return fmt.Errorf("diff -r: %w: %s", err, firstLines(string(out), 5))
	}
	d.proof("diff -r %s %s finds nothing", c.source, c.dst)
	return nil
}

func firstLines(s string, n int) string {
	lines := strings.SplitN(s, "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], "\n")
}

// outcomes returns the digest of each stored item by its source name, as 'transfer show' prints it.
func (d *demo) outcomes(ctx context.Context, c *ordered) (map[string]token.Digest, error) {
	r, err := d.net.Run(ctx, d.config, "transfer", "show", "--items", "-o", "jsonl", string(c.t.ID))
	if err != nil {
		return nil, err
	}
	out := map[string]token.Digest{}
	lines := bufio.NewScanner(strings.NewReader(r.Stdout))
	for lines.Scan() {
		var item api.ItemReport
		if err := json.Unmarshal(lines.Bytes(), &item); err != nil {
			return nil, fmt.Errorf("reading what show printed: %w", err)
		}
		if item.Outcome == token.Stored {
			out[string(item.Src)] = item.Digest
		}
	}
	return out, lines.Err()
}

// audit fetches and verifies the receipts, with the program itself.
func (d *demo) audit(ctx context.Context) error {
	d.say("What would an auditor say, years later and without a network? Both agents signed a receipt for every batch. They are " +
		"fetched as a file and verified offline: signatures, certificates, the order, every name, every digest.")
	for i, c := range d.copies {
		file := filepath.Join(d.dir, fmt.Sprintf("receipts-%d.jsonl", i+1))
		fmt.Fprintf(d.a.out, "      $ consign receipt get %s -f receipts-%d.jsonl && consign receipt verify receipts-%d.jsonl\n", c.t.ID, i+1, i+1)
		if _, err := d.net.Run(ctx, d.config, "receipt", "get", string(c.t.ID), "-f", file); err != nil {
			return err
		}
		r, err := d.net.Run(ctx, d.config, "receipt", "verify", file)
		if err != nil {
			return err
		}
		for line := range strings.Lines(strings.TrimRight(r.Stdout, "\n")) {
			fmt.Fprint(d.a.out, "      "+strings.TrimRight(line, "\n")+"\n")
		}
	}
	d.proof("the receipts verify")
	return nil
}
