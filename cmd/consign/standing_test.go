package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// signedAgo runs the program in this process as alice, whose clock is behind by that much.
func (w *world) signedAgo(ago time.Duration, args ...string) (stdout, stderr string) {
	w.t.Helper()
	var out, errs bytes.Buffer
	a := &app{
		streams: streams{in: strings.NewReader(""), out: &out, err: &errs, environ: []string{envConfig + "=" + w.config}},
		format:  table, now: func() time.Time { return time.Now().Add(-ago) }, signers: &signers{},
	}
	defer a.signers.Close()
	root := a.rootCommand()
	root.SetArgs(args)
	if err := root.ExecuteContext(w.t.Context()); err != nil {
		w.t.Fatalf("consign %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return out.String(), errs.String()
}

func (w *world) orderInfo(id token.TransferID) api.OrderInfo {
	w.t.Helper()
	var o api.OrderInfo
	w.must(json.Unmarshal([]byte(w.consign(0, "order", "show", "-o", "json", string(id)).Stdout), &o))
	return o
}

// runs returns the transfers of an order, newest first.
func (w *world) runs(id token.TransferID) []api.Transfer {
	w.t.Helper()
	var ts []api.Transfer
	w.must(json.Unmarshal([]byte(w.consign(0, "order", "show", "--runs", "-o", "json", string(id)).Stdout), &ts))
	return ts
}

// TestStandingOrder copies a tree every minute, by an order that was signed 45 s ago so that the second run comes
// soon, kills the broker in between, verifies both runs offline, and withdraws the order.
func TestStandingOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("tree/a", []byte("a\n"))
	start(w)
	out, notes := w.signedAgo(45*time.Second, "cp", "-r", "--every", "1m", "--expires", "90d", "north:/src/tree", "south:/dst/")
	id := token.TransferID(strings.TrimSpace(out))
	if !strings.Contains(notes, "consign order show "+string(id)) {
		t.Errorf("got %q, want it to say what it is", notes)
	}
	w.consign(0, "transfer", "wait", string(id))
	w.file("tree/b", []byte("b\n"))
	w.must(w.broker.Kill())
	w.must(w.broker.Start(t.Context()))
	w.await("the second run is complete", func() bool {
		ts := w.runs(id)
		return len(ts) > 1 && ts[len(ts)-2].State == api.Complete
	})
	ts := w.runs(id)
	first, second := ts[len(ts)-1], ts[len(ts)-2]
	if first.ID != id || first.Run != 0 || second.Order != id || second.Run < 1 || second.Outcomes[token.Stored] != 1 || second.Outcomes[token.Existed] != 1 {
		t.Errorf("got %+v and %+v, want a first run, and a second that has stored what is new and skipped the rest", first, second)
	}
	if b, err := os.ReadFile(filepath.Join(w.dst, "tree", "b")); err != nil || string(b) != "b\n" {
		t.Errorf("got %q (%v), want what came after the first run", b, err)
	}
	w.verified(first.ID)
	w.verified(second.ID)
	if got := w.consign(0, "order", "list").Stdout; strings.Count(got, string(id)) != 1 || !strings.Contains(got, "1m") {
		t.Errorf("got\n%s\nwant the order once, with its period", got)
	}
	if got := w.consign(0, "order", "show", string(second.ID)).Stdout; !strings.Contains(got, string(id)) || !strings.Contains(got, string(second.ID)) {
		t.Errorf("got\n%s\nwant the order, with its runs", got)
	}
	if got := w.consign(0, "order", "refresh").Stdout; !strings.Contains(got, "GOOD UNTIL") || !strings.Contains(got, string(id)) {
		t.Errorf("got\n%s\nwant until when the certificates are good", got)
	}

	w.must(w.south.Kill())
	if got := w.consign(0, "order", "withdraw", string(second.ID)).Stderr; !strings.Contains(got, "order "+string(id)+" is withdrawn") {
		t.Errorf("got %q, want it withdrawn", got)
	}
	w.must(w.south.Start(t.Context()))
	w.await("every agent knows of it", func() bool { return len(w.orderInfo(id).Untold) == 0 })
	if o := w.orderInfo(id); o.State != api.OrderWithdrawn || o.Next != nil {
		t.Errorf("got %+v, want no run to follow", o)
	}
	w.consign(0, "order", "withdraw", string(id)) // again
	none := "01938c5e-7a00-7abc-8def-0123456789ab"
	w.consign(problem.ExitDenied, "order", "show", none)
	w.consign(problem.ExitDenied, "order", "withdraw", none)
}
