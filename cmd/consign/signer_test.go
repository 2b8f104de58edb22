package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.yaml.in/yaml/v3"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/token"
)

// hold puts a signer process into the place of every key file in a configuration.
func (w *world) hold(file string) {
	w.t.Helper()
	data, err := os.ReadFile(file)
	w.must(err)
	var conf map[string]any
	w.must(yaml.Unmarshal(data, &conf))
	n := 0
	change := func(pair map[string]any) {
		pair["signer"] = []any{w.net.Binary, "signer", "serve", "--key", pair["key"]}
		delete(pair, "key")
		n++
	}
	if id, ok := conf["identity"].(map[string]any); ok {
		change(id)
	}
	if accounts, ok := conf["accounts"].([]any); ok {
		for _, a := range accounts {
			change(a.(map[string]any))
		}
	}
	if n == 0 {
		w.t.Fatalf("%s has no key", file)
	}
	data, err = yaml.Marshal(conf)
	w.must(err)
	w.must(os.WriteFile(file, data, 0o600))
}

// TestKeysInSigners copies while no program but signers has the keys of both accounts, of the destination's agent
// and of the broker: orders, receipts and handshakes of both kinds are signed by processes.
func TestKeysInSigners(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("tree/a", []byte("a\n"))
	w.file("tree/b", []byte(strings.Repeat("b", 3<<20)))
	w.hold(w.config)
	w.hold(w.south.Config)
	w.hold(filepath.Join(w.net.Dir, "brokers", "hub", "broker.yaml"))
	start(w)
	order := w.order("-r", "north:/src/tree", "south:/dst/")
	w.consign(0, "transfer", "wait", string(order.ID))
	if got := w.show(order.ID); got.State != api.Complete || got.Outcomes[token.Stored] != 2 {
		t.Errorf("transfer: got %s with %v, want complete with 2 stored", got.State, got.Outcomes)
	}
	w.same(order.ID, "tree")
	w.verified(order.ID)
}

func TestLineLoggerBoundsLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&out), zap.InfoLevel))
	l := &lineLogger{log: log}
	for _, part := range []string{"insert ", "the token\x1b[2J\nno", "w\n", strings.Repeat("x", 5<<20), "\nend\n"} {
		if n, err := l.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("writing: got %d, %v", n, err)
		}
	}
	got := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(got) != 4 || !strings.Contains(got[0], `insert the token\u001b[2J"`) || !strings.Contains(got[1], `"now"`) || len(got[2]) > 2*maxLogLine || !strings.Contains(got[3], `"end"`) {
		t.Errorf("got %d lines: %.600s", len(got), out.String())
	}
}
