package broker

import (
	"strings"
	"testing"

	"github.com/consign-transfer/consign/broker/api"
	"github.com/consign-transfer/consign/certs"
	"github.com/consign-transfer/consign/token"
	"github.com/consign-transfer/consign/token/problem"
)

// TestAccountIsDenied: once the operator denies an account, its transfers get no capability, new or renewed, and no order of it is taken; they
// say why they wait, and go on when that is taken back.
func TestAccountIsDenied(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	trust, err := certs.TrustFiles{
		Bundles: map[token.Provider]string{"north": w.north.BundleFile(dir), "south": w.south.BundleFile(dir)}, Denied: w.north.Put(dir, "denied", nil),
	}.Open()
	if err != nil {
		t.Fatal(err)
	}
	deny := func(text string) {
		w.north.Put(dir, "denied", []byte(text))
		if changed, err := trust.Reload(); !changed || err != nil {
			t.Fatalf("reloading: got %v, %v", changed, err)
		}
	}
	w.conf.Trust = trust
	w.crash()
	src, dst := w.pair()
	id, _, receive := w.under(src, dst)
	second := w.submit(w.order())
	deny("identity spiffe://south/subscriber/alice\n")
	ref := api.Ref{Xfr: id, Bat: receive.Bat}
	if _, err := w.b.Renew(t.Context(), dst.peer, ref, w.now); problem.Of(err) != problem.IDDenied {
		t.Errorf("renewing: got %v, want %s", err, problem.IDDenied)
	}
	if _, err := w.b.Submit(t.Context(), w.me(), w.sign(w.order()), w.now); problem.Of(err) != problem.IDDenied {
		t.Errorf("another order: got %v, want %s", err, problem.IDDenied)
	}
	src.list(object("c", 10))
	w.step()
	if got := w.transfer(second); !strings.Contains(got.Waiting, "denied spiffe://south/subscriber/alice") {
		t.Errorf("the other transfer waits for %q, want the denial", got.Waiting)
	}
	deny("")
	w.step()
	if k := dst.task(api.ReceiveTask); k.Capability == "" {
		t.Error("got no capability once nobody is denied any more")
	}
	if _, err := w.b.Renew(t.Context(), dst.peer, ref, w.now); err != nil {
		t.Errorf("renewing then: %v", err)
	}
}
