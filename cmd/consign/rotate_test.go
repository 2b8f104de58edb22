package main

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/cmd/localnet"
	"github.com/consign-transfer/consign/token"
)

// TestEveryCertificateIsRenewedMidway replaces the certificates of the broker, of both agents and of the subscriber while one
// transfer runs, and makes everybody connect anew under the new ones: nothing fails and nothing is sent again but what was under way.
func TestEveryCertificateIsRenewedMidway(t *testing.T) {
	t.Parallel()
	const bigBytes, rate = 80 << 20, 4 << 20
	w := newWorld(t, localnet.Setting{Key: "rate", Value: rate})
	w.must(fillRandom(t.Context(), filepath.Join(w.src, "big"), bigBytes))
	w.file("after", []byte("after\n"))
	w.start()
	order := w.order("north:/src/big", "south:/dst/big")
	w.await("bytes are sent", func() bool { return w.sent() > 2<<20 })
	for _, p := range []struct {
		*localnet.Proc
		cert, key string
	}{
		{w.broker.Proc, w.broker.Cert, w.broker.Key}, {w.north.Proc, w.north.Cert, w.north.Key}, {w.south.Proc, w.south.Cert, w.south.Key},
	} {
		for _, choice := range []localnet.KeyChoice{localnet.KeepKey, localnet.NewKey} {
			until, err := w.net.Rotate(p.cert, p.key, choice, time.Hour+time.Duration(choice)*time.Minute)
			w.must(err)
			w.must(p.Reload())
			w.await(p.Name+" uses its new certificate", func() bool { return expires(t.Context(), p.Proc) == until.Unix() })
			if s := w.show(order.ID); s.State != api.Running {
				t.Fatalf("the transfer after %s has a new certificate: got %s, want running", p.Name, s.State)
			}
		}
	}
	for _, provider := range []string{"north", "south"} {
		dir := filepath.Join(w.net.Dir, "subscribers", "alice", provider)
		_, err := w.net.Rotate(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), localnet.KeepKey, time.Hour)
		w.must(err)
	}
	// The destination and the broker start again in the middle, so that every connection is made anew.
	w.must(w.broker.Kill())
	w.must(w.broker.Start(t.Context()))
	w.must(w.south.Kill())
	w.must(w.south.Start(t.Context()))
	w.consign(0, "transfer", "wait", string(order.ID))
	got := w.show(order.ID)
	if got.State != api.Complete || got.Outcomes[token.Stored] != 1 {
		t.Errorf("transfer: got %s with %v, want complete with 1 stored", got.State, got.Outcomes)
	}
	if again := w.sent() - bigBytes; again > bigBytes/2 {
		t.Errorf("%d bytes were sent again", again)
	}
	w.verified(order.ID)
	w.consign(0, "cp", "--wait", "north:/src/after", "south:/dst/after")
}

// TestFirstOrderAfterRenewals replaces every certificate while nothing happens: the broker has seen the old ones only, and what
// it mints for them is good.
func TestFirstOrderAfterRenewals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.file("one", []byte("one\n"))
	w.start()
	for _, p := range []struct {
		*localnet.Proc
		cert, key string
	}{
		{w.broker.Proc, w.broker.Cert, w.broker.Key}, {w.north.Proc, w.north.Cert, w.north.Key}, {w.south.Proc, w.south.Cert, w.south.Key},
	} {
		until, err := w.net.Rotate(p.cert, p.key, localnet.KeepKey, time.Hour)
		w.must(err)
		w.must(p.Reload())
		w.await(p.Name+" uses its new certificate", func() bool { return expires(t.Context(), p.Proc) == until.Unix() })
	}
	w.consign(0, "cp", "--wait", "north:/src/one", "south:/dst/one")
}

// expires is the end of the certificate that a daemon uses, or 0 if it does not say.
func expires(ctx context.Context, p *localnet.Proc) int64 {
	n, err := metric(ctx, p, "consign_certificate_expires_timestamp_seconds", "")
	if err != nil {
		return 0
	}
	return n
}
